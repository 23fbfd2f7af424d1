//! What Endpoints and EndpointSlices have in common: which pods stand behind a Service, and on which ports.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use orch_core::selector::LabelSelector;

use crate::pods;

/// Marks what belongs to a Service without cluster IP.
pub(crate) const HEADLESS: &str = "service.kubernetes.io/headless";

/// The Service's selector. None if it has none: its endpoints are somebody else's matter.
pub(crate) fn selector(service: &Service) -> Option<LabelSelector> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    let selector = spec.selector.as_ref().filter(|selector| !selector.is_empty())?;
    Some(LabelSelector::from_labels(selector))
}

pub(crate) fn is_headless(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.and_then(|spec| spec.cluster_ip.as_deref()) == Some("None")
}

pub(crate) fn publishes_not_ready(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.and_then(|spec| spec.publish_not_ready_addresses)
        .unwrap_or(false)
}

/// Whether the pod can be behind a Service at all.
pub(crate) fn is_candidate(pod: &Pod, with_terminating: bool) -> bool {
    !pods::is_terminal(pod)
        && addresses(pod).next().is_some()
        && (with_terminating || pod.metadata.deletion_timestamp.is_none())
}

/// The pod's addresses, of which there is one a family.
pub(crate) fn addresses(pod: &Pod) -> impl Iterator<Item = IpAddr> {
    let status = pod.status.as_ref();
    let all = status
        .and_then(|status| status.pod_ips.as_deref())
        .unwrap_or_default();
    let first = status
        .and_then(|status| status.pod_ip.as_deref())
        .filter(|_| all.is_empty());
    let all = all.iter().map(|ip| ip.ip.as_str());
    all.chain(first).filter_map(|ip| ip.parse().ok())
}

/// The number that a Service's port has in this pod. None if the pod does not name such a port.
pub(crate) fn target_port(port: &ServicePort, pod: &Pod) -> Option<i32> {
    let name = match &port.target_port {
        None | Some(IntOrString::Int(0)) => return Some(port.port),
        Some(IntOrString::Int(number)) => return Some(*number),
        Some(IntOrString::String(name)) if name.is_empty() => return Some(port.port),
        Some(IntOrString::String(name)) => name,
    };
    let spec = pod.spec.as_ref()?;
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let containers = spec.containers.iter().chain(sidecars);
    let mut ports = containers.flat_map(|container| container.ports.iter().flatten());
    let found = ports.find(|p| {
        p.name.as_ref() == Some(name) && protocol(p.protocol.as_ref()) == protocol(port.protocol.as_ref())
    });
    found.map(|port| port.container_port)
}

pub(crate) fn protocol(protocol: Option<&String>) -> &str {
    protocol.map_or("TCP", String::as_str)
}

/// The reference by which an endpoint names its pod.
pub(crate) fn pod_reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_owned()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

/// The host name by which DNS knows the pod, if it belongs to this headless Service.
pub(crate) fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let hostname = spec.hostname.as_ref().filter(|name| !name.is_empty())?;
    let same =
        spec.subdomain == service.metadata.name && pod.metadata.namespace == service.metadata.namespace;
    same.then(|| hostname.clone())
}

/// The Service's own labels, for what is derived from it.
pub(crate) fn labels(service: &Service, reserved: &[&str]) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.retain(|key, _| !reserved.contains(&key.as_str()));
    if is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels
}

/// Whether an event of a pod can change what stands behind a Service.
pub(crate) fn matters(old: &Pod, new: &Pod) -> bool {
    let hosts = |pod: &Pod| {
        let spec = pod.spec.as_ref();
        spec.map(|spec| {
            (
                spec.hostname.clone(),
                spec.subdomain.clone(),
                spec.node_name.clone(),
            )
        })
    };
    old.metadata.labels != new.metadata.labels
        || old.metadata.deletion_timestamp.is_some() != new.metadata.deletion_timestamp.is_some()
        || pods::is_ready(old) != pods::is_ready(new)
        || pods::is_terminal(old) != pods::is_terminal(new)
        || !addresses(old).eq(addresses(new))
        || hosts(old) != hosts(new)
}
