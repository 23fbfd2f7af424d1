//! The endpoints that a Service should have, by address family and ports.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort};

use crate::{pods, services};

/// Endpoints that can share slices: of one family, with the same ports.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Group {
    /// `IPv4` or `IPv6`.
    pub(super) family: &'static str,
    pub(super) ports: Vec<EndpointPort>,
    pub(super) endpoints: Vec<Endpoint>,
}

/// Groups the `pods` behind `service`. Pods may differ in the numbers of their named ports. A family without any pod
/// has one group without endpoints, so that each Service has a slice.
pub(super) fn groups(
    service: &Service,
    pods: &[Arc<Pod>],
    zone: impl Fn(&str) -> Option<String>,
) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for family in families(service) {
        let before = groups.len();
        for pod in pods {
            let Some(address) = services::addresses(pod).find(|ip| ip.is_ipv4() == (family == "IPv4")) else {
                continue;
            };
            let ports = ports(service, pod);
            let endpoint = endpoint(service, pod, address.to_string(), &zone);
            match groups[before..].iter_mut().find(|group| group.ports == ports) {
                Some(group) => group.endpoints.push(endpoint),
                None => groups.push(Group {
                    family,
                    ports,
                    endpoints: vec![endpoint],
                }),
            }
        }
        if groups.len() == before {
            groups.push(Group {
                family,
                ports: Vec::new(),
                endpoints: Vec::new(),
            });
        }
    }
    groups
}

fn families(service: &Service) -> Vec<&'static str> {
    let spec = service.spec.as_ref();
    let families = spec
        .and_then(|spec| spec.ip_families.as_deref())
        .unwrap_or_default();
    let known = families.iter().filter_map(|family| match family.as_str() {
        "IPv4" => Some("IPv4"),
        "IPv6" => Some("IPv6"),
        _ => None,
    });
    let families: Vec<_> = known.collect();
    if !families.is_empty() {
        return families;
    }
    let ip = spec
        .and_then(|spec| spec.cluster_ip.as_deref())
        .unwrap_or_default();
    vec![if ip.contains(':') { "IPv6" } else { "IPv4" }]
}

fn ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let ports = service
        .spec
        .as_ref()
        .and_then(|spec| spec.ports.as_deref())
        .unwrap_or_default();
    let ports = ports.iter().filter_map(|port| {
        Some(EndpointPort {
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(services::target_port(port, pod)?),
            protocol: Some(services::protocol(port.protocol.as_ref()).to_owned()),
            app_protocol: port.app_protocol.clone(),
        })
    });
    ports.collect()
}

fn endpoint(
    service: &Service,
    pod: &Pod,
    address: String,
    zone: impl Fn(&str) -> Option<String>,
) -> Endpoint {
    let serving = pods::is_ready(pod);
    let terminating = pod.metadata.deletion_timestamp.is_some();
    let node = Some(pods::node_name(pod)).filter(|node| !node.is_empty());
    Endpoint {
        addresses: vec![address],
        conditions: Some(EndpointConditions {
            ready: Some(services::publishes_not_ready(service) || (serving && !terminating)),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: services::hostname(service, pod),
        node_name: node.map(str::to_owned),
        target_ref: Some(services::pod_reference(pod)),
        zone: node.and_then(zone),
        ..Endpoint::default()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::{Value, json};

    pub(crate) fn service(spec: &Value) -> Service {
        serde_json::from_value(
            json!({"metadata": {"name": "web", "namespace": "default", "uid": "s"}, "spec": spec}),
        )
        .unwrap()
    }

    pub(crate) fn pod(name: &str, ip: &str, port: i32, ready: &str) -> Arc<Pod> {
        let pod = json!({
            "metadata": {"name": name, "namespace": "default", "uid": name},
            "spec": {"nodeName": "n1", "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": port}]}]},
            "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
                "conditions": [{"type": "Ready", "status": ready}]},
        });
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn pods_group_by_the_numbers_of_their_named_ports() {
        let service = service(&json!({"ports": [{"port": 80, "targetPort": "http"}]}));
        let pods = [
            pod("a", "10.0.0.1", 8080, "True"),
            pod("b", "10.0.0.2", 9090, "True"),
            pod("c", "10.0.0.3", 8080, "False"),
        ];
        let groups = groups(&service, &pods, |_| Some("z1".into()));
        assert_eq!(groups.len(), 2);
        assert_eq!(groups[0].ports[0].port, Some(8080));
        assert_eq!(groups[0].endpoints.len(), 2);
        assert_eq!(groups[0].endpoints[0].zone.as_deref(), Some("z1"));
        let conditions = groups[0].endpoints[1].conditions.as_ref().unwrap();
        assert_eq!((conditions.ready, conditions.serving), (Some(false), Some(false)));
    }

    #[test]
    fn a_terminating_pod_serves_and_is_not_ready() {
        let mut going = (*pod("a", "10.0.0.1", 80, "True")).clone();
        going.metadata.deletion_timestamp = Some(orch_core::conditions::now());
        let plain = service(&json!({"ports": [{"port": 80}]}));
        let conditions = groups(&plain, &[Arc::new(going)], |_| None)[0].endpoints[0]
            .conditions
            .clone()
            .unwrap();
        assert_eq!(
            (conditions.ready, conditions.serving, conditions.terminating),
            (Some(false), Some(true), Some(true))
        );
    }

    #[test]
    fn who_publishes_not_ready_addresses_calls_all_ready() {
        let service = service(&json!({"ports": [{"port": 80}], "publishNotReadyAddresses": true}));
        let groups = groups(&service, &[pod("a", "10.0.0.1", 80, "False")], |_| None);
        assert_eq!(
            groups[0].endpoints[0].conditions.as_ref().unwrap().ready,
            Some(true)
        );
    }

    #[test]
    fn each_family_has_its_group() {
        let service = service(&json!({"ports": [{"port": 80}], "ipFamilies": ["IPv4", "IPv6"]}));
        let groups = groups(&service, &[pod("a", "fd00::1", 80, "True")], |_| None);
        assert_eq!((groups[0].family, groups[0].endpoints.len()), ("IPv4", 0));
        assert_eq!((groups[1].family, groups[1].endpoints.len()), ("IPv6", 1));
    }
}
