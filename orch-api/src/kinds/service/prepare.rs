//! What the server fills in and takes away before a service is checked.

use k8s_openapi::api::core::v1::ServiceSpec;

use super::{is_headless, needs_health_check};
use crate::kinds::text::{list, text};

/// A new service: singular and plural cluster address agree, and the address families are settled.
pub(super) fn create(spec: &mut ServiceSpec) {
    if let Some(address) = spec.cluster_ip.clone()
        && list(&spec.cluster_ips).is_empty()
    {
        spec.cluster_ips = Some(vec![address]);
    }
    families(spec);
}

/// A changed service: a client that speaks of only one of two linked fields means both, and what the server had given
/// out stays when the client left it open.
pub(super) fn update(new: &mut ServiceSpec, old: &ServiceSpec) {
    cluster_addresses(new, old);
    keep_allocated(new, old);
    drop_for_type(new, old);
    families(new);
}

fn cluster_addresses(new: &mut ServiceSpec, old: &ServiceSpec) {
    let one_changed = text(&new.cluster_ip) != text(&old.cluster_ip);
    let all_changed = list(&new.cluster_ips) != list(&old.cluster_ips);
    if one_changed && !all_changed {
        match (&new.cluster_ip, new.cluster_ips.as_mut()) {
            (None, _) => new.cluster_ips = None,
            (Some(address), Some(all)) if !all.is_empty() => all[0].clone_from(address),
            (Some(address), _) => new.cluster_ips = Some(vec![address.clone()]),
        }
    } else if all_changed && !one_changed {
        match list(&new.cluster_ips).first().cloned() {
            None if new.cluster_ips.is_some() => new.cluster_ip = None,
            None => new.cluster_ips = new.cluster_ip.clone().map(|address| vec![address]),
            Some(first) if new.cluster_ip.is_none() => new.cluster_ip = Some(first),
            Some(_) => {}
        }
    }
}

fn has_address(spec: &ServiceSpec) -> bool {
    text(&spec.type_) != "ExternalName"
}

fn has_node_ports(spec: &ServiceSpec) -> bool {
    match text(&spec.type_) {
        "NodePort" => true,
        "LoadBalancer" => spec.allocate_load_balancer_node_ports != Some(false),
        _ => false,
    }
}

fn keep_allocated(new: &mut ServiceSpec, old: &ServiceSpec) {
    if has_address(new) && has_address(old) && new.cluster_ip.is_none() {
        new.cluster_ip.clone_from(&old.cluster_ip);
        new.cluster_ips.clone_from(&old.cluster_ips);
    }
    if has_node_ports(new) && has_node_ports(old) {
        let taken: Vec<i32> = list(&new.ports)
            .iter()
            .filter_map(|port| port.node_port)
            .collect();
        for port in new
            .ports
            .iter_mut()
            .flatten()
            .filter(|port| port.node_port.is_none())
        {
            let same = |other: &&k8s_openapi::api::core::v1::ServicePort| {
                other.protocol == port.protocol && other.port == port.port
            };
            let before = list(&old.ports)
                .iter()
                .find(same)
                .and_then(|other| other.node_port);
            port.node_port = before.filter(|before| !taken.contains(before));
        }
    }
    if needs_health_check(new) && needs_health_check(old) && new.health_check_node_port.unwrap_or(0) == 0 {
        new.health_check_node_port = old.health_check_node_port;
    }
}

/// When the type changes, fields that only the old type has go, unless the client changed them itself.
fn drop_for_type(new: &mut ServiceSpec, old: &ServiceSpec) {
    if has_address(old) && !has_address(new) && list(&new.cluster_ips) == list(&old.cluster_ips) {
        (new.cluster_ip, new.cluster_ips) = (None, None);
        if new.ip_families == old.ip_families {
            new.ip_families = None;
        }
        if new.ip_family_policy == old.ip_family_policy {
            new.ip_family_policy = None;
        }
    }
    if has_node_ports(old) && !has_node_ports(new) {
        let before: Vec<i32> = list(&old.ports)
            .iter()
            .filter_map(|port| port.node_port)
            .collect();
        for port in new.ports.iter_mut().flatten() {
            port.node_port = port.node_port.filter(|number| !before.contains(number));
        }
    }
    if needs_health_check(old)
        && !needs_health_check(new)
        && new.health_check_node_port == old.health_check_node_port
    {
        new.health_check_node_port = None;
    }
    let balances = |spec: &ServiceSpec| text(&spec.type_) == "LoadBalancer";
    if balances(old) && !balances(new) {
        if new.allocate_load_balancer_node_ports == old.allocate_load_balancer_node_ports {
            new.allocate_load_balancer_node_ports = None;
        }
        if new.load_balancer_class == old.load_balancer_class {
            new.load_balancer_class = None;
        }
    }
    let external = super::is_external;
    if external(old) && !external(new) && new.external_traffic_policy == old.external_traffic_policy {
        new.external_traffic_policy = None;
    }
}

/// Settles what of the address families does not depend on the cluster; the allocator, which knows the cluster's
/// networks, settles the rest. A headless service gets no address, so that all is settled here; one without a
/// selector names its own endpoints and may have both families.
fn families(spec: &mut ServiceSpec) {
    if !has_address(spec) {
        return;
    }
    if list(&spec.ip_families).is_empty() {
        let family = |address: &String| if address.contains(':') { "IPv6" } else { "IPv4" }.to_owned();
        let families: Vec<String> = match is_headless(spec) {
            true => vec!["IPv4".to_owned()],
            false => list(&spec.cluster_ips).iter().map(family).collect(),
        };
        spec.ip_families = (!families.is_empty()).then_some(families);
    }
    if is_headless(spec) && spec.selector.as_ref().is_none_or(|selector| selector.is_empty()) {
        let policy = spec
            .ip_family_policy
            .get_or_insert_with(|| "RequireDualStack".to_owned());
        if policy != "SingleStack"
            && let Some([family]) = spec.ip_families.as_deref()
        {
            let other = if family == "IPv6" { "IPv4" } else { "IPv6" };
            spec.ip_families = Some(vec![family.clone(), other.to_owned()]);
        }
        return;
    }
    let both = list(&spec.ip_families).len() > 1 || list(&spec.cluster_ips).len() > 1;
    let policy = if both { "RequireDualStack" } else { "SingleStack" };
    spec.ip_family_policy.get_or_insert_with(|| policy.to_owned());
}
