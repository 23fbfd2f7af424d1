//! Who owns a frontend that more than one service port asks for.
//!
//! Cluster IPs and node ports are unique by allocation, external IPs and load balancer addresses by nobody's care. The
//! oldest Service wins, by name among equals, so that every node and every restart comes to the same answer and a newcomer can not
//! take over traffic.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use super::Warning;
use crate::model::{Family, Frontend, NamespacedName, Protocol, ServicePortKey};

/// What packets can tell apart: two frontends with one slot are one to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Slot {
    family: Family,
    protocol: Protocol,
    address: Option<IpAddr>,
    port: u16,
}

impl Slot {
    pub(super) fn of(key: &ServicePortKey, frontend: &Frontend) -> Self {
        Self {
            family: key.family,
            protocol: key.protocol,
            address: frontend.address.ip(),
            port: frontend.port,
        }
    }
}

/// A service port's wish for a slot. The order is the rank: the least wins.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Claim {
    /// Creation time of the Service in nanoseconds; a Service without one ranks last.
    pub(super) created: i128,
    pub(super) key: ServicePortKey,
}

#[derive(Debug, Default)]
pub(super) struct Claims {
    slots: HashMap<Slot, BTreeSet<Claim>>,
    services: HashMap<NamespacedName, Vec<(Slot, Claim)>>,
}

impl Claims {
    /// Sets all claims of a Service. Returns claims of others that won or lost a slot by it.
    pub(super) fn replace(&mut self, service: &NamespacedName, wanted: Vec<(Slot, Claim)>) -> Vec<Claim> {
        let mut touched = Vec::new();
        for (slot, claim) in self.services.remove(service).unwrap_or_default() {
            if let Some(claims) = self.slots.get_mut(&slot) {
                claims.remove(&claim);
                touched.extend(claims.first().cloned());
                if claims.is_empty() {
                    self.slots.remove(&slot);
                }
            }
        }
        for (slot, claim) in &wanted {
            let claims = self.slots.entry(*slot).or_default();
            touched.extend(claims.first().cloned());
            claims.insert(claim.clone());
        }
        if !wanted.is_empty() {
            self.services.insert(service.clone(), wanted);
        }
        touched.retain(|claim| claim.key.service != *service);
        touched
    }

    /// Who has the frontend, if that is not `key`.
    pub(super) fn owner_if_lost(&self, key: &ServicePortKey, frontend: &Frontend) -> Option<&ServicePortKey> {
        let owner = &self.slots.get(&Slot::of(key, frontend))?.first()?.key;
        (owner != key).then_some(owner)
    }
}

pub(super) fn lost(key: &ServicePortKey, frontend: &Frontend, owner: &ServicePortKey) -> Warning {
    let address = frontend
        .address
        .ip()
        .map_or_else(|| "node port".to_owned(), |ip| ip.to_string());
    let message = format!(
        "{address} {}/{} of port {key} is not served: {owner} has it",
        frontend.port, key.protocol
    );
    Warning {
        service: key.service.clone(),
        reason: "FrontendConflict",
        message,
    }
}
