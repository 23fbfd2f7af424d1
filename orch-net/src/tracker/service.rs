//! What one Service asks of the proxy.

use std::net::IpAddr;
use std::time::Duration;

use super::Warning;
use super::claims::{Claim, Slot};
use crate::model::{
    Family, Frontend, FrontendAddress, NamespacedName, Protocol, ServicePortKey, TrafficPolicy,
};
use crate::objects::{Service, ServicePortSpec, has_label};

const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";
/// Upstream's default of `spec.sessionAffinityConfig.clientIP.timeoutSeconds`.
const DEFAULT_AFFINITY: i64 = 10_800;
/// Upstream's bound for it.
const LONGEST_AFFINITY: i64 = 86_400;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServicePlan {
    pub(super) ports: Vec<PortPlan>,
    pub(super) session_affinity: Option<Duration>,
    pub(super) internal_policy: TrafficPolicy,
    pub(super) external_policy: TrafficPolicy,
    pub(super) warnings: Vec<Warning>,
    created: i128,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PortPlan {
    pub(super) key: ServicePortKey,
    pub(super) frontends: Vec<Frontend>,
}

impl ServicePlan {
    /// `None` for a Service that no proxy, or another one, serves.
    pub(super) fn of(name: &NamespacedName, service: &Service) -> Option<Self> {
        let spec = &service.spec;
        if spec.type_ == "ExternalName" || has_label(&service.metadata, PROXY_NAME_LABEL) {
            return None;
        }
        let cluster_ips = cluster_ips(service);
        if cluster_ips.is_empty() {
            return None;
        }
        let mut warnings = Vec::new();
        let mut warn = |reason, message: String| {
            warnings.push(Warning {
                service: name.clone(),
                reason,
                message,
            })
        };
        unbuilt(service, &mut warn);
        let mut ports = Vec::new();
        for port in &spec.ports {
            match port_plans(name, service, port, &cluster_ips) {
                Ok(plans) => ports.extend(plans),
                Err(message) => warn("InvalidServicePort", message),
            }
        }
        let local = |policy: &str| {
            if policy == "Local" {
                TrafficPolicy::Local
            } else {
                TrafficPolicy::Cluster
            }
        };
        Some(Self {
            ports,
            session_affinity: session_affinity(service),
            internal_policy: local(&spec.internal_traffic_policy),
            external_policy: local(&spec.external_traffic_policy),
            warnings,
            created: service
                .metadata
                .creation_timestamp
                .as_ref()
                .map_or(i128::MAX, |time| time.0.as_nanosecond()),
        })
    }

    pub(super) fn uses_local(&self) -> bool {
        self.internal_policy == TrafficPolicy::Local || self.external_policy == TrafficPolicy::Local
    }

    pub(super) fn claims(&self) -> Vec<(Slot, Claim)> {
        let claim = |port: &PortPlan| Claim {
            created: self.created,
            key: port.key.clone(),
        };
        self.ports
            .iter()
            .flat_map(|port| {
                port.frontends
                    .iter()
                    .map(move |frontend| (Slot::of(&port.key, frontend), claim(port)))
            })
            .collect()
    }
}

/// The virtual addresses of a Service: none if it is headless or has none yet.
fn cluster_ips(service: &Service) -> Vec<IpAddr> {
    let spec = &service.spec;
    if spec.cluster_ip == "None" {
        return Vec::new();
    }
    let texts = if spec.cluster_ips.is_empty() {
        std::slice::from_ref(&spec.cluster_ip)
    } else {
        &spec.cluster_ips[..]
    };
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

fn session_affinity(service: &Service) -> Option<Duration> {
    if service.spec.session_affinity != "ClientIP" {
        return None;
    }
    let config = service.spec.session_affinity_config.as_ref();
    let seconds = config
        .and_then(|config| config.client_ip.as_ref())
        .and_then(|client| client.timeout_seconds);
    let seconds = seconds.unwrap_or(DEFAULT_AFFINITY).clamp(1, LONGEST_AFFINITY);
    Some(Duration::from_secs(seconds.unsigned_abs()))
}

/// Says what the Service asks for that this proxy does not do. Nothing of it is served by halves.
fn unbuilt(service: &Service, warn: &mut impl FnMut(&'static str, String)) {
    if !service.spec.load_balancer_source_ranges.is_empty() {
        warn(
            "LoadBalancerSourceRangesUnsupported",
            "spec.loadBalancerSourceRanges is not implemented by this proxy, which therefore does not serve the load balancer's \
             addresses on this node"
                .to_owned(),
        );
    }
    if service.spec.health_check_node_port != 0 {
        warn(
            "HealthCheckNodePortUnsupported",
            format!(
                "spec.healthCheckNodePort is not implemented by this proxy: port {} does not answer on this node",
                service.spec.health_check_node_port
            ),
        );
    }
}

fn port_plans(
    name: &NamespacedName,
    service: &Service,
    port: &ServicePortSpec,
    cluster_ips: &[IpAddr],
) -> Result<Vec<PortPlan>, String> {
    let protocol = match port.protocol.as_str() {
        "" => Protocol::Tcp,
        other => Protocol::from_api(other)
            .ok_or_else(|| format!("port {:?}: unknown protocol {other:?}", port.name))?,
    };
    let number =
        port_number(port.port).ok_or_else(|| format!("port {:?}: {} is no port", port.name, port.port))?;
    let mut plans: Vec<PortPlan> = Vec::new();
    for ip in cluster_ips {
        let family = Family::of(*ip);
        if plans.iter().any(|plan| plan.key.family == family) {
            continue;
        }
        let key = ServicePortKey {
            service: name.clone(),
            port: port.name.clone(),
            protocol,
            family,
        };
        plans.push(PortPlan {
            frontends: frontends(service, port, number, *ip),
            key,
        });
    }
    Ok(plans)
}

fn frontends(service: &Service, port: &ServicePortSpec, number: u16, cluster_ip: IpAddr) -> Vec<Frontend> {
    let family = Family::of(cluster_ip);
    let parse = |text: &String| text.parse().ok().filter(|ip| Family::of(*ip) == family);
    let mut frontends = vec![Frontend {
        address: FrontendAddress::ClusterIp(cluster_ip),
        port: number,
    }];
    let mut push = |address: FrontendAddress, port| {
        if frontends
            .iter()
            .all(|seen| (seen.address.ip(), seen.port) != (address.ip(), port))
        {
            frontends.push(Frontend { address, port });
        }
    };
    for ip in service.spec.external_ips.iter().filter_map(parse) {
        push(FrontendAddress::ExternalIp(ip), number);
    }
    let restricted = !service.spec.load_balancer_source_ranges.is_empty();
    for ingress in service
        .status
        .load_balancer
        .ingress
        .iter()
        .filter(|_| !restricted)
    {
        let vip = ingress.ip_mode.as_deref().is_none_or(|mode| mode == "VIP");
        if let Some(ip) = parse(&ingress.ip).filter(|_| vip) {
            push(FrontendAddress::LoadBalancerIp(ip), number);
        }
    }
    if let Some(node_port) = port_number(port.node_port) {
        push(FrontendAddress::NodePort, node_port);
    }
    frontends
}

pub(super) fn port_number(port: i64) -> Option<u16> {
    u16::try_from(port).ok().filter(|port| *port != 0)
}
