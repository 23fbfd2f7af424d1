//! All rules of a service beside those of its cluster addresses.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};

use super::{addresses, is_external, is_headless, needs_health_check};
use crate::kinds::check::{Check, Path};
use crate::kinds::pod_spec;
use crate::kinds::text::{entries, list, text};
use crate::kinds::{format, selectors};

const ONLY_BALANCERS: &str = "may only be used when `type` is 'LoadBalancer'";

pub(super) fn service(check: &mut Check, service: &Service) {
    let empty = ServiceSpec::default();
    let spec = service.spec.as_ref().unwrap_or(&empty);
    let path = Path::new("spec");
    let sort = text(&spec.type_);
    if list(&spec.ports).is_empty() && !is_headless(spec) && sort != "ExternalName" {
        check.required(&path.child("ports"), "");
    }
    by_type(check, spec, &path);
    ports(check, spec, &path.child("ports"));
    selectors::labels(check, &spec.selector, &path.child("selector"));
    affinity(check, spec, &path);
    addresses::validate(check, spec, &path);
    for (i, address) in list(&spec.external_ips).iter().enumerate() {
        let at = path.child("externalIPs").index(i);
        let faults = format::ip(address);
        let faults = if faults.is_empty() {
            format::special_ip(address)
        } else {
            faults
        };
        check.faults(&at, address, faults);
    }
    check.one_of(
        &path.child("type"),
        sort,
        &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"],
    );
    balancer(check, service, spec, &path);
    traffic(check, spec, &path);
}

fn by_type(check: &mut Check, spec: &ServiceSpec, path: &Path) {
    let sort = text(&spec.type_);
    if ["LoadBalancer", "NodePort"].contains(&sort) && is_headless(spec) {
        let why = format!("may not be set to 'None' for {sort} services");
        check.invalid(&path.child("clusterIPs").index(0), "None", why);
    }
    if sort != "ExternalName" {
        return;
    }
    let given = [
        ("clusterIPs", !list(&spec.cluster_ips).is_empty()),
        ("ipFamilies", !list(&spec.ip_families).is_empty()),
        ("ipFamilyPolicy", spec.ip_family_policy.is_some()),
    ];
    for (field, given) in given {
        if given {
            check.forbidden(&path.child(field), "may not be set for ExternalName services");
        }
    }
    // A trailing dot says that the name is whole.
    let name = text(&spec.external_name);
    let name = name.strip_suffix('.').unwrap_or(name);
    check.name(&path.child("externalName"), name, format::dns1123_subdomain);
}

fn ports(check: &mut Check, spec: &ServiceSpec, path: &Path) {
    let all = list(&spec.ports);
    let mut names = BTreeSet::new();
    for (i, port) in all.iter().enumerate() {
        let at = path.index(i);
        self::port(check, port, all.len() > 1, &at);
        if port
            .name
            .as_ref()
            .is_some_and(|name| !name.is_empty() && !names.insert(name))
        {
            check.duplicate(&at.child("name"), text(&port.name));
        }
    }
    let mut node_ports = BTreeSet::new();
    for (i, port) in all.iter().enumerate() {
        let Some(number) = port.node_port.filter(|number| *number != 0) else {
            continue;
        };
        let at = path.index(i).child("nodePort");
        if text(&spec.type_) == "ClusterIP" {
            check.forbidden(&at, "may not be used when `type` is 'ClusterIP'");
        }
        if !node_ports.insert((&port.protocol, number)) {
            check.duplicate(&at, number);
        }
    }
    let mut numbers = BTreeSet::new();
    for (i, port) in all.iter().enumerate() {
        if !numbers.insert((&port.protocol, port.port)) {
            let key = ServicePort {
                port: port.port,
                protocol: port.protocol.clone(),
                ..ServicePort::default()
            };
            check.duplicate(&path.index(i), key);
        }
    }
}

fn port(check: &mut Check, port: &ServicePort, named: bool, path: &Path) {
    let name = text(&port.name);
    if !name.is_empty() {
        check.faults(&path.child("name"), name, format::dns1123_label(name));
    } else if named {
        check.required(&path.child("name"), "");
    }
    check.port(&path.child("port"), port.port);
    check.one_of(&path.child("protocol"), text(&port.protocol), &format::PROTOCOLS);
    if let Some(target) = &port.target_port {
        pod_spec::port(check, target, &path.child("targetPort"));
    }
    if let Some(protocol) = &port.app_protocol {
        check.faults(
            &path.child("appProtocol"),
            protocol,
            format::qualified_name(protocol),
        );
    }
}

fn affinity(check: &mut Check, spec: &ServiceSpec, path: &Path) {
    let affinity = text(&spec.session_affinity);
    check.one_of(&path.child("sessionAffinity"), affinity, &["ClientIP", "None"]);
    let at = path.child("sessionAffinityConfig");
    let client = spec
        .session_affinity_config
        .as_ref()
        .map(|config| config.client_ip.as_ref());
    match (affinity, client) {
        ("None", Some(_)) => check.forbidden(&at, "must not be set when session affinity is None"),
        ("ClientIP", None) => check.required(&at, "when session affinity type is ClientIP"),
        ("ClientIP", Some(None)) => {
            check.required(&at.child("clientIP"), "when session affinity type is ClientIP");
        }
        ("ClientIP", Some(Some(client))) => {
            let at = at.child("clientIP").child("timeoutSeconds");
            match client.timeout_seconds {
                None => check.required(&at, "when session affinity type is ClientIP"),
                Some(seconds) if !(1..=86_400).contains(&seconds) => {
                    check.invalid(&at, seconds, "must be greater than 0 and less than 86400");
                }
                Some(_) => {}
            }
        }
        _ => {}
    }
}

fn balancer(check: &mut Check, service: &Service, spec: &ServiceSpec, path: &Path) {
    const RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
    let balances = text(&spec.type_) == "LoadBalancer";
    let ranges = list(&spec.load_balancer_source_ranges);
    let annotation = entries(&service.metadata.annotations).find(|(key, _)| *key == RANGES);
    if !ranges.is_empty() {
        let at = path.child("LoadBalancerSourceRanges");
        if !balances {
            check.forbidden(&at, ONLY_BALANCERS);
        }
        for (i, range) in ranges.iter().enumerate() {
            check.cidr(&at.index(i), range.trim());
        }
    } else if let Some((_, value)) = annotation {
        let at = Path::new("metadata").child("annotations").key(RANGES);
        if !balances {
            check.forbidden(&at, ONLY_BALANCERS);
        }
        for range in value
            .trim()
            .split(',')
            .map(str::trim)
            .filter(|range| !range.is_empty())
        {
            check.cidr(&at, range);
        }
    }
    let allocate = spec.allocate_load_balancer_node_ports;
    match (balances, allocate) {
        (false, Some(_)) => check.forbidden(&path.child("allocateLoadBalancerNodePorts"), ONLY_BALANCERS),
        (true, None) => check.required(&Path::new("allocateLoadBalancerNodePorts"), ""),
        _ => {}
    }
    if let Some(class) = &spec.load_balancer_class {
        let at = path.child("loadBalancerClass");
        if balances {
            check.faults(&at, class, format::qualified_name(class));
        } else {
            check.forbidden(&at, ONLY_BALANCERS);
        }
    }
}

fn traffic(check: &mut Check, spec: &ServiceSpec, path: &Path) {
    const POLICIES: [&str; 2] = ["Cluster", "Local"];
    let policy = text(&spec.external_traffic_policy);
    let at = path.child("externalTrafficPolicy");
    if is_external(spec) {
        check.one_of(&at, policy, &POLICIES);
    } else if !policy.is_empty() {
        check.invalid(&at, policy, "may only be set for externally-accessible services");
    }
    let at = path.child("healthCheckNodePort");
    match (needs_health_check(spec), spec.health_check_node_port.unwrap_or(0)) {
        (true, 0) => check.required(&at, ""),
        (true, port) => check.port(&at, port),
        (false, 0) => {}
        (false, port) => {
            let why = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            check.invalid(&at, port, why);
        }
    }
    let at = path.child("internalTrafficPolicy");
    match &spec.internal_traffic_policy {
        None if text(&spec.type_) != "ExternalName" => check.required(&at, ""),
        policy => check.optional_one_of(&at, policy.as_deref(), &POLICIES),
    }
    let known = ["PreferClose", "PreferSameNode", "PreferSameZone"];
    check.optional_one_of(
        &path.child("trafficDistribution"),
        spec.traffic_distribution.as_deref(),
        &known,
    );
}

/// What stays while the type stays.
pub(super) fn update(check: &mut Check, new: &ServiceSpec, old: &ServiceSpec) {
    let path = Path::new("spec");
    let balances = |spec: &ServiceSpec| text(&spec.type_) == "LoadBalancer";
    if balances(new) && balances(old) && new.load_balancer_class != old.load_balancer_class {
        check.invalid(
            &path.child("loadBalancerClass"),
            &new.load_balancer_class,
            "may not change once set",
        );
    }
    let port = |spec: &ServiceSpec| spec.health_check_node_port.unwrap_or(0);
    if needs_health_check(new) && needs_health_check(old) && port(new) != port(old) {
        check.forbidden(&path.child("healthCheckNodePort"), "field is immutable");
    }
}

pub(super) fn status(check: &mut Check, service: &Service) {
    let balancer = service
        .status
        .as_ref()
        .and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.map_or(&[][..], |balancer| list(&balancer.ingress));
    let path = Path::new("status").child("loadBalancer").child("ingress");
    let sort = service.spec.as_ref().map_or("", |spec| text(&spec.type_));
    if sort != "LoadBalancer" {
        if !ingress.is_empty() {
            check.forbidden(&path, "may only be used when `spec.type` is 'LoadBalancer'");
        }
        return;
    }
    for (i, one) in ingress.iter().enumerate() {
        let at = path.index(i);
        let (address, name) = (text(&one.ip), text(&one.hostname));
        if !address.is_empty() {
            check.ip(&at.child("ip"), address);
        }
        match (&one.ip_mode, address) {
            (None, "") => {}
            (None, _) => check.required(&at.child("ipMode"), "must be specified when `ip` is set"),
            (Some(_), "") => {
                check.forbidden(&at.child("ipMode"), "may not be specified when `ip` is not set")
            }
            (Some(mode), _) => check.optional_one_of(&at.child("ipMode"), Some(mode), &["Proxy", "VIP"]),
        }
        if !name.is_empty() {
            check.faults(&at.child("hostname"), name, format::dns1123_subdomain(name));
            if name.parse::<IpAddr>().is_ok() {
                check.invalid(
                    &at.child("hostname"),
                    name,
                    "must be a DNS name, not an IP address",
                );
            }
        }
    }
}
