//! What a node's proxy should do: service ports, their frontends and their endpoints.
//!
//! A [`ServicePort`] is one port of one Service in one address family, with every question that the API leaves open already
//! answered: which endpoints take traffic now, which frontends are its own. Backends translate it, they decide nothing.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use orch_core::ipam::Cidr;
pub use orch_core::key::NamespacedName;

/// A transport protocol of a service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP, the default.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// The protocol that the API names so (`TCP`, `UDP`, `SCTP`).
    #[must_use]
    pub fn from_api(name: &str) -> Option<Self> {
        match name {
            "TCP" => Some(Self::Tcp),
            "UDP" => Some(Self::Udp),
            "SCTP" => Some(Self::Sctp),
            _ => None,
        }
    }

    /// The lower-case name, as firewalls write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// Whether a range of addresses is of this family.
    #[must_use]
    pub fn has(self, cidr: &Cidr) -> bool {
        cidr.is_ipv4() == (self == Self::V4)
    }
}

/// What identifies a service port on a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServicePortKey {
    /// The Service.
    pub service: NamespacedName,
    /// The name of the port; empty for a Service's only, unnamed port.
    pub port: String,
    /// The protocol: one Service may offer a name once for each protocol.
    pub protocol: Protocol,
    /// The family: a dual-stack Service has a service port for each.
    pub family: Family,
}

impl fmt::Display for ServicePortKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.service)?;
        if !self.port.is_empty() {
            write!(f, ":{}", self.port)?;
        }
        Ok(())
    }
}

/// An address that takes a service port's traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    /// Where it listens.
    pub address: SocketAddr,
    /// Whether it runs on this node.
    pub local: bool,
}

/// Which endpoints a kind of traffic may reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TrafficPolicy {
    /// All of the cluster's.
    #[default]
    Cluster,
    /// Only those on this node.
    Local,
}

/// Where a service port is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FrontendAddress {
    /// The Service's own virtual address: traffic to it is internal.
    ClusterIp(IpAddr),
    /// One of `spec.externalIPs`.
    ExternalIp(IpAddr),
    /// One of `status.loadBalancer.ingress`.
    LoadBalancerIp(IpAddr),
    /// Every address of the node, loopback excepted.
    NodePort,
}

impl FrontendAddress {
    /// The address, unless it is every address of the node.
    #[must_use]
    pub fn ip(self) -> Option<IpAddr> {
        match self {
            Self::ClusterIp(ip) | Self::ExternalIp(ip) | Self::LoadBalancerIp(ip) => Some(ip),
            Self::NodePort => None,
        }
    }
}

/// An address and port at which a service port is reached. Its protocol and family are the service port's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Frontend {
    /// The address.
    pub address: FrontendAddress,
    /// The port.
    pub port: u16,
}

impl Frontend {
    /// Whether `spec.internalTrafficPolicy` rules here, not `spec.externalTrafficPolicy`.
    #[must_use]
    pub fn is_internal(&self) -> bool {
        matches!(self.address, FrontendAddress::ClusterIp(_))
    }
}

/// One port of one Service in one family, as this node should serve it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// What identifies it.
    pub key: ServicePortKey,
    /// Where it is reached. A frontend belongs to one service port of the node only.
    pub frontends: Vec<Frontend>,
    /// How long a client stays with its endpoint after its last connection, if at all.
    pub session_affinity: Option<Duration>,
    /// Which endpoints traffic to the cluster IP may reach.
    pub internal_policy: TrafficPolicy,
    /// Which endpoints traffic to all other frontends may reach.
    pub external_policy: TrafficPolicy,
    /// All usable endpoints: the ready ones, or if there is none, those which serve while they terminate.
    ///
    /// The order is stable: an endpoint keeps its index for as long as possible, and when one goes, the last takes its place.
    pub cluster_endpoints: Vec<Endpoint>,
    /// The usable endpoints of this node, by the same rule applied to them alone; empty unless a policy asks for them.
    pub local_endpoints: Vec<Endpoint>,
}

/// What becomes of traffic to a frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route<'a> {
    /// It goes to one of these; never empty.
    Endpoints(&'a [Endpoint]),
    /// It is refused: the service port has no endpoints anywhere.
    Reject,
    /// It is dropped: there are endpoints, but none here and the policy is `Local`. A load balancer then tries another node.
    Drop,
}

impl ServicePort {
    /// What becomes of traffic that reaches `frontend` from outside the cluster.
    #[must_use]
    pub fn route(&self, frontend: &Frontend) -> Route<'_> {
        let policy = if frontend.is_internal() {
            self.internal_policy
        } else {
            self.external_policy
        };
        match policy {
            TrafficPolicy::Cluster => self.cluster_route(),
            TrafficPolicy::Local if !self.local_endpoints.is_empty() => {
                Route::Endpoints(&self.local_endpoints)
            }
            TrafficPolicy::Local if self.cluster_endpoints.is_empty() => Route::Reject,
            TrafficPolicy::Local => Route::Drop,
        }
    }

    /// What becomes of traffic that reaches `frontend` from a pod or from the node itself: `externalTrafficPolicy: Local`
    /// does not bind it, since it would reach the same endpoints through the cluster IP.
    #[must_use]
    pub fn route_from_cluster(&self, frontend: &Frontend) -> Route<'_> {
        if frontend.is_internal() {
            self.route(frontend)
        } else {
            self.cluster_route()
        }
    }

    /// Each endpoint that any traffic may reach, once.
    pub fn all_endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        let extra = self
            .local_endpoints
            .iter()
            .filter(|e| !self.cluster_endpoints.contains(e));
        self.cluster_endpoints.iter().chain(extra)
    }

    fn cluster_route(&self) -> Route<'_> {
        if self.cluster_endpoints.is_empty() {
            Route::Reject
        } else {
            Route::Endpoints(&self.cluster_endpoints)
        }
    }
}

/// Everything that a node's proxy should serve.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DesiredState {
    pub(crate) ports: HashMap<ServicePortKey, Arc<ServicePort>>,
}

impl DesiredState {
    /// The service port of a key.
    #[must_use]
    pub fn get(&self, key: &ServicePortKey) -> Option<&Arc<ServicePort>> {
        self.ports.get(key)
    }

    /// All service ports, in no order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<ServicePort>> {
        self.ports.values()
    }

    /// How many service ports there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ports.len()
    }

    /// Whether there is nothing to serve.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ports.is_empty()
    }
}

impl FromIterator<ServicePort> for DesiredState {
    fn from_iter<I: IntoIterator<Item = ServicePort>>(ports: I) -> Self {
        Self {
            ports: ports
                .into_iter()
                .map(|port| (port.key.clone(), Arc::new(port)))
                .collect(),
        }
    }
}

/// One service port that came, went or differs. `before` and `after` are never equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What was served.
    pub before: Option<Arc<ServicePort>>,
    /// What is to be served.
    pub after: Option<Arc<ServicePort>>,
}

/// What a sync is to bring about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changes {
    /// Nothing is known of what the host holds: make it serve the desired state, whatever is there.
    All,
    /// The host holds what the last sync brought; this is the exact difference to the desired state.
    Only(Vec<Change>),
}

impl Changes {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Only(changes) if changes.is_empty())
    }
}

/// Reorders `now` so that endpoints also in `before` keep their index where possible: holes take the last, new ones are appended.
pub(crate) fn keep_order(before: &[Endpoint], now: Vec<Endpoint>) -> Vec<Endpoint> {
    let mut fresh: std::collections::HashSet<Endpoint> = now.iter().copied().collect();
    let mut ordered: Vec<Endpoint> = before.to_vec();
    let mut index = 0;
    while index < ordered.len() {
        if fresh.remove(&ordered[index]) {
            index += 1;
        } else {
            ordered.swap_remove(index);
        }
    }
    ordered.extend(now.into_iter().filter(|endpoint| fresh.remove(endpoint)));
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(last: u8) -> Endpoint {
        Endpoint {
            address: SocketAddr::from(([10, 0, 0, last], 80)),
            local: false,
        }
    }

    #[test]
    fn a_lost_endpoint_moves_only_the_last_one() {
        let before: Vec<_> = (1..=4).map(endpoint).collect();
        let now = vec![endpoint(1), endpoint(3), endpoint(4), endpoint(5)];
        assert_eq!(
            keep_order(&before, now),
            vec![endpoint(1), endpoint(4), endpoint(3), endpoint(5)]
        );
    }

    #[test]
    fn repeated_endpoints_count_once() {
        assert_eq!(keep_order(&[], vec![endpoint(1), endpoint(1)]), vec![endpoint(1)]);
    }
}
