//! Which endpoints a service port has, and which of them take traffic.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use super::service::port_number;
use crate::model::{Endpoint, Family, NamespacedName, Protocol, ServicePortKey};
use crate::objects::{EndpointSlice, SliceEndpoint, SlicePort, has_label};

const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";
const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";

/// What a proxy keeps of an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SlicePlan {
    family: Family,
    ports: Vec<(String, Protocol, u16)>,
    endpoints: Vec<Candidate>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    address: IpAddr,
    local: bool,
    ready: bool,
    serving: bool,
    terminating: bool,
}

impl SlicePlan {
    /// The Service and the plan, or `None` for a slice that is none of this proxy's business.
    pub(super) fn of(slice: &EndpointSlice, node_name: &str) -> Option<(NamespacedName, Self)> {
        if has_label(&slice.metadata, PROXY_NAME_LABEL) || has_label(&slice.metadata, HEADLESS_LABEL) {
            return None;
        }
        let family = match slice.address_type.as_str() {
            "IPv4" => Family::V4,
            "IPv6" => Family::V6,
            _ => return None,
        };
        let service = slice
            .metadata
            .labels
            .as_ref()?
            .get(SERVICE_NAME_LABEL)
            .filter(|name| !name.is_empty())?;
        let owner = NamespacedName::new(slice.metadata.namespace.as_deref().unwrap_or_default(), service);
        let endpoints = slice
            .endpoints
            .iter()
            .filter_map(|endpoint| candidate(endpoint, family, node_name))
            .collect();
        Some((
            owner,
            Self {
                family,
                ports: slice.ports.iter().filter_map(slice_port).collect(),
                endpoints,
            },
        ))
    }
}

fn slice_port(port: &SlicePort) -> Option<(String, Protocol, u16)> {
    let protocol = Protocol::from_api(port.protocol.as_deref().unwrap_or("TCP"))?;
    Some((
        port.name.clone().unwrap_or_default(),
        protocol,
        port_number(port.port?)?,
    ))
}

fn candidate(endpoint: &SliceEndpoint, family: Family, node_name: &str) -> Option<Candidate> {
    // All addresses of an endpoint are the same pod; upstream's proxies use the first as well.
    let address = endpoint
        .addresses
        .first()?
        .parse()
        .ok()
        .filter(|ip| Family::of(*ip) == family)?;
    Some(Candidate {
        address,
        local: endpoint.node_name.as_deref() == Some(node_name),
        ready: endpoint.conditions.ready.unwrap_or(true),
        serving: endpoint.conditions.serving.unwrap_or(true),
        terminating: endpoint.conditions.terminating.unwrap_or(false),
    })
}

/// All candidates of a service port, sorted, each address once.
///
/// Slices may overlap while endpoints move between them: then the one that knows better (ready, local) counts.
pub(super) fn endpoints_of<'a>(
    slices: impl Iterator<Item = &'a SlicePlan>,
    key: &ServicePortKey,
) -> Vec<(SocketAddr, Candidate)> {
    let mut found: HashMap<SocketAddr, Candidate> = HashMap::new();
    for slice in slices.filter(|slice| slice.family == key.family) {
        for (_, _, port) in slice
            .ports
            .iter()
            .filter(|(name, proto, _)| *name == key.port && *proto == key.protocol)
        {
            for candidate in &slice.endpoints {
                found
                    .entry(SocketAddr::new(candidate.address, *port))
                    .and_modify(|known| *known = better(*known, *candidate))
                    .or_insert(*candidate);
            }
        }
    }
    let mut found: Vec<_> = found.into_iter().collect();
    found.sort_unstable_by_key(|(address, _)| *address);
    found
}

fn better(a: Candidate, b: Candidate) -> Candidate {
    let rank = |c: &Candidate| (c.ready, c.serving, !c.terminating, c.local);
    if rank(&b) > rank(&a) { b } else { a }
}

/// The endpoints that take traffic: cluster-wide, and on this node if asked for.
///
/// Ready ones; if there is none, those which serve although they terminate (KEP-1669).
pub(super) fn usable(found: &[(SocketAddr, Candidate)], uses_local: bool) -> (Vec<Endpoint>, Vec<Endpoint>) {
    let cluster = ready_or_draining(&found.iter());
    let local = if uses_local {
        ready_or_draining(&found.iter().filter(|(_, c)| c.local))
    } else {
        Vec::new()
    };
    (cluster, local)
}

fn ready_or_draining<'a>(
    found: &(impl Iterator<Item = &'a (SocketAddr, Candidate)> + Clone),
) -> Vec<Endpoint> {
    let pick = |usable: fn(&Candidate) -> bool| -> Vec<Endpoint> {
        let kept = found.clone().filter(|(_, c)| usable(c));
        kept.map(|(address, c)| Endpoint {
            address: *address,
            local: c.local,
        })
        .collect()
    };
    let ready = pick(|c| c.ready);
    if ready.is_empty() {
        pick(|c| c.serving && c.terminating)
    } else {
        ready
    }
}
