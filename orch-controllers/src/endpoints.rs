//! Endpoints: the older form of EndpointSlices, one object a Service, for clients that still read it.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use orch_core::controller::{Controller, Outcome, ReconcileError, Watches};
use orch_core::events::{self, EventRecorder, EventType};
use orch_core::informer::{Informer, Informers};
use orch_core::key::NamespacedName;

use crate::endpoint_slice::services_of;
use crate::{pods, services};

/// The name under which events are recorded.
pub const COMPONENT: &str = "endpoint-controller";

const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// Most addresses that one object names.
const MAX: usize = 1000;

/// Writes the Endpoints of Services that have a selector.
pub struct EndpointsController {
    client: Client,
    services: Informer<Service>,
    pods: Informer<Pod>,
    endpoints: Informer<Endpoints>,
    recorder: EventRecorder,
}

impl std::fmt::Debug for EndpointsController {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EndpointsController").finish_non_exhaustive()
    }
}

impl EndpointsController {
    /// A controller that reads `informers` and writes through their client.
    pub fn new(informers: &Informers, recorder: EventRecorder) -> Self {
        EndpointsController {
            client: informers.client().clone(),
            services: informers.get(),
            pods: pods::informer(informers),
            endpoints: informers.get(),
            recorder,
        }
    }

    async fn sync(&self, key: &NamespacedName) -> Result<Outcome, ReconcileError> {
        let present = self.endpoints.get(key);
        let Some(service) = self.services.get(key) else {
            self.delete(key, present.as_deref()).await?;
            return Ok(Outcome::Done);
        };
        let Some(selector) = services::selector(&service) else {
            return Ok(Outcome::Done);
        };
        let mut behind = self.pods.list_namespace(key.namespace());
        behind.retain(|pod| {
            selector.matches_option(pod.metadata.labels.as_ref()) && services::is_candidate(pod, false)
        });
        let wanted = endpoints(&service, &behind, present.as_deref());
        if present.as_deref() == Some(&wanted) {
            return Ok(Outcome::Done);
        }
        let api: Api<Endpoints> = Api::namespaced(self.client.clone(), key.namespace());
        let params = PostParams::default();
        let (result, reason, verb) = match present {
            None => (
                api.create(&params, &wanted).await,
                "FailedToCreateEndpoint",
                "create",
            ),
            Some(_) => (
                api.replace(key.name(), &params, &wanted).await,
                "FailedToUpdateEndpoint",
                "update",
            ),
        };
        match result {
            Ok(_) => Ok(Outcome::Done),
            Err(error) if pods::is_namespace_terminating(&error) => Ok(Outcome::Done),
            Err(error) => {
                if !pods::is_gone_or_changed(&error) {
                    let message = format!("Failed to {verb} endpoint {key}: {error}");
                    self.recorder
                        .event(&events::reference(&*service), EventType::Warning, reason, message);
                }
                Err(error.into())
            }
        }
    }

    /// Only what we have written: others may keep Endpoints of Services to come.
    async fn delete(&self, key: &NamespacedName, present: Option<&Endpoints>) -> Result<(), ReconcileError> {
        let Some(present) = present.filter(|present| is_ours(present)) else {
            return Ok(());
        };
        let api: Api<Endpoints> = Api::namespaced(self.client.clone(), key.namespace());
        let params = DeleteParams::default().preconditions(Preconditions {
            uid: present.metadata.uid.clone(),
            resource_version: None,
        });
        match api.delete(key.name(), &params).await {
            Err(error) if !pods::is_gone_or_changed(&error) => Err(error.into()),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Controller for EndpointsController {
    fn name(&self) -> &str {
        "endpoint"
    }

    fn watches(&self, watches: &mut Watches) {
        watches.own(&self.services);
        watches.mapped(&self.endpoints, |event| {
            let ours = event.object().filter(|endpoints| is_ours(endpoints));
            ours.map(|endpoints| NamespacedName::of(&**endpoints))
        });
        let services = self.services.clone();
        watches.mapped(&self.pods, move |event| services_of(&services, event));
    }

    async fn reconcile(&self, key: &NamespacedName) -> Result<Outcome, ReconcileError> {
        self.sync(key).await
    }
}

fn is_ours(endpoints: &Endpoints) -> bool {
    endpoints.labels().get(MANAGED_BY).map(String::as_str) == Some(COMPONENT)
}

/// The object as it should be. What others put into its metadata stays.
fn endpoints(service: &Service, pods: &[Arc<Pod>], present: Option<&Endpoints>) -> Endpoints {
    let mut labels = services::labels(service, &[services::HEADLESS]);
    labels.insert(MANAGED_BY.to_owned(), COMPONENT.to_owned());
    let mut metadata = present.map_or_else(
        || ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            ..ObjectMeta::default()
        },
        |present| present.metadata.clone(),
    );
    metadata.labels = Some(labels);
    let (subsets, truncated) = subsets(service, pods);
    let mut annotations: BTreeMap<_, _> = metadata.annotations.take().unwrap_or_default();
    annotations.remove(OVER_CAPACITY);
    if truncated {
        annotations.insert(OVER_CAPACITY.to_owned(), "truncated".to_owned());
    }
    metadata.annotations = (!annotations.is_empty()).then_some(annotations);
    Endpoints {
        metadata,
        subsets: (!subsets.is_empty()).then_some(subsets),
    }
}

/// Addresses by the ports they have, in a fixed order; and whether there were too many of them.
fn subsets(service: &Service, pods: &[Arc<Pod>]) -> (Vec<EndpointSubset>, bool) {
    let mut behind: Vec<_> = pods
        .iter()
        .filter_map(|pod| Some((address(service, pod)?, pod)))
        .collect();
    // Those that are ready are the last to be left out.
    behind.sort_by(|a, b| {
        pods::is_ready(b.1)
            .cmp(&pods::is_ready(a.1))
            .then_with(|| a.0.ip.cmp(&b.0.ip))
    });
    let truncated = behind.len() > MAX;
    behind.truncate(MAX);
    let mut subsets: Vec<EndpointSubset> = Vec::new();
    let headless = services::is_headless(service);
    for (address, pod) in behind {
        let ports = ports(service, pod);
        if ports.is_empty() && !headless {
            continue;
        }
        let ports = (!ports.is_empty()).then_some(ports);
        let at = subsets
            .iter()
            .position(|subset| subset.ports == ports)
            .unwrap_or_else(|| {
                subsets.push(EndpointSubset {
                    ports,
                    ..EndpointSubset::default()
                });
                subsets.len() - 1
            });
        let ready = services::publishes_not_ready(service) || pods::is_ready(pod);
        let subset = &mut subsets[at];
        let list = if ready {
            &mut subset.addresses
        } else {
            &mut subset.not_ready_addresses
        };
        list.get_or_insert_default().push(address);
    }
    for subset in &mut subsets {
        for list in [&mut subset.addresses, &mut subset.not_ready_addresses] {
            list.iter_mut()
                .for_each(|list| list.sort_by(|a, b| a.ip.cmp(&b.ip)));
        }
    }
    let order = |subset: &EndpointSubset| {
        let ports = subset.ports.iter().flatten();
        ports
            .map(|port| (port.port, port.name.clone(), port.protocol.clone()))
            .collect::<Vec<_>>()
    };
    subsets.sort_by_key(order);
    (subsets, truncated)
}

/// The pod's address in the first family of the Service.
fn address(service: &Service, pod: &Pod) -> Option<EndpointAddress> {
    let spec = service.spec.as_ref();
    let families = spec
        .and_then(|spec| spec.ip_families.as_deref())
        .unwrap_or_default();
    let v6 = match families.first() {
        Some(family) => family == "IPv6",
        None => spec
            .and_then(|spec| spec.cluster_ip.as_deref())
            .unwrap_or_default()
            .contains(':'),
    };
    let ip = services::addresses(pod).find(|ip| ip.is_ipv6() == v6)?;
    let node = pods::node_name(pod);
    Some(EndpointAddress {
        ip: ip.to_string(),
        hostname: services::hostname(service, pod),
        node_name: (!node.is_empty()).then(|| node.to_owned()),
        target_ref: Some(services::pod_reference(pod)),
    })
}

fn ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let ports = service
        .spec
        .as_ref()
        .and_then(|spec| spec.ports.as_deref())
        .unwrap_or_default();
    let ports = ports.iter().filter_map(|port| {
        Some(EndpointPort {
            name: port.name.clone().filter(|name| !name.is_empty()),
            port: services::target_port(port, pod)?,
            protocol: Some(services::protocol(port.protocol.as_ref()).to_owned()),
            app_protocol: port.app_protocol.clone(),
        })
    });
    ports.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, ip: &str, ready: &str) -> Arc<Pod> {
        let pod = json!({
            "metadata": {"name": name, "namespace": "default", "uid": name},
            "spec": {"nodeName": "n1", "containers": []},
            "status": {"phase": "Running", "podIP": ip, "conditions": [{"type": "Ready", "status": ready}]},
        });
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn service() -> Service {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "default", "labels": {"a": "b"}},
            "spec": {"ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
        }))
        .unwrap()
    }

    #[test]
    fn ready_and_not_ready_addresses_stand_apart() {
        let pods = [
            pod("b", "10.0.0.2", "True"),
            pod("a", "10.0.0.1", "True"),
            pod("c", "10.0.0.3", "False"),
        ];
        let made = endpoints(&service(), &pods, None);
        let subsets = made.subsets.as_ref().unwrap();
        assert_eq!(subsets.len(), 1);
        let ips: Vec<_> = subsets[0]
            .addresses
            .iter()
            .flatten()
            .map(|a| a.ip.as_str())
            .collect();
        assert_eq!(ips, ["10.0.0.1", "10.0.0.2"]);
        assert_eq!(subsets[0].not_ready_addresses.as_ref().unwrap()[0].ip, "10.0.0.3");
        assert_eq!(subsets[0].ports.as_ref().unwrap()[0].port, 8080);
        assert_eq!(made.labels()["a"], "b");
        assert_eq!(
            endpoints(&service(), &pods, Some(&made)),
            made,
            "nothing to write"
        );
    }

    #[test]
    fn a_thousand_are_enough() {
        let pods: Vec<_> = (0..1001)
            .map(|i| {
                pod(
                    &format!("p{i}"),
                    &format!("10.0.{}.{}", i / 250, i % 250 + 1),
                    "True",
                )
            })
            .collect();
        let made = endpoints(&service(), &pods, None);
        assert_eq!(made.annotations()[OVER_CAPACITY], "truncated");
        assert_eq!(made.subsets.unwrap()[0].addresses.as_ref().unwrap().len(), 1000);
    }

    #[test]
    fn without_pods_there_are_no_subsets() {
        assert_eq!(endpoints(&service(), &[], None).subsets, None);
    }
}
