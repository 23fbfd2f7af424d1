//! From Services and EndpointSlices to the desired state, and to what changed in it.
//!
//! The [`Tracker`] is told of each object as it comes, changes and goes, in any order; it does no I/O. What it recomputes follows the
//! size of the change: the service ports of the Services touched, and of those whose frontends become free or lost.

mod claims;
mod service;
mod slices;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use claims::{Claim, Claims};
use service::{PortPlan, ServicePlan};
use slices::SlicePlan;

use crate::model::{Change, Changes, DesiredState, NamespacedName, ServicePort, ServicePortKey, keep_order};
use crate::objects::{EndpointSlice, Service};

/// Something that a Service asks for and does not get.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Warning {
    /// The Service.
    pub service: NamespacedName,
    /// A reason in the form of an event's.
    pub reason: &'static str,
    /// What is not served and why.
    pub message: String,
}

/// Keeps the desired state of one node.
#[derive(Debug, Default)]
pub struct Tracker {
    node_name: String,
    services: HashMap<NamespacedName, ServicePlan>,
    slices: HashMap<NamespacedName, BTreeMap<NamespacedName, SlicePlan>>,
    slice_owners: HashMap<NamespacedName, NamespacedName>,
    claims: Claims,
    state: DesiredState,
    keys: HashMap<NamespacedName, Vec<ServicePortKey>>,
    dirty: BTreeSet<NamespacedName>,
    before: HashMap<ServicePortKey, Option<Arc<ServicePort>>>,
    warnings: BTreeSet<Warning>,
}

impl Tracker {
    /// A tracker for the node of this name, with nothing to serve.
    #[must_use]
    pub fn new(node_name: impl Into<String>) -> Self {
        Self {
            node_name: node_name.into(),
            ..Self::default()
        }
    }

    /// A Service that came or changed.
    pub fn apply_service(&mut self, service: &Service) {
        let name = service_name(service);
        match ServicePlan::of(&name, service) {
            Some(plan) => {
                if self.services.get(&name) == Some(&plan) {
                    return;
                }
                self.warnings.extend(plan.warnings.iter().cloned());
                self.claim(&name, Some(&plan));
                self.services.insert(name.clone(), plan);
                self.dirty.insert(name);
            }
            None => self.delete_service(&name),
        }
    }

    /// A Service that went.
    pub fn delete_service(&mut self, name: &NamespacedName) {
        if self.services.remove(name).is_some() {
            self.claim(name, None);
            self.dirty.insert(name.clone());
        }
    }

    /// An EndpointSlice that came or changed.
    pub fn apply_slice(&mut self, slice: &EndpointSlice) {
        let name = slice_name(slice);
        let Some((owner, plan)) = SlicePlan::of(slice, &self.node_name) else {
            self.delete_slice(&name);
            return;
        };
        if self.slice_owners.get(&name).is_some_and(|old| *old != owner) {
            self.delete_slice(&name);
        }
        self.slice_owners.insert(name.clone(), owner.clone());
        let slices = self.slices.entry(owner.clone()).or_default();
        if slices.get(&name) != Some(&plan) {
            slices.insert(name, plan);
            self.dirty.insert(owner);
        }
    }

    /// An EndpointSlice that went.
    pub fn delete_slice(&mut self, name: &NamespacedName) {
        let Some(owner) = self.slice_owners.remove(name) else {
            return;
        };
        if let Some(slices) = self.slices.get_mut(&owner) {
            slices.remove(name);
            if slices.is_empty() {
                self.slices.remove(&owner);
            }
        }
        self.dirty.insert(owner);
    }

    /// Forgets every Service that `keep` does not name, as after a list.
    pub fn retain_services(&mut self, keep: impl Fn(&NamespacedName) -> bool) {
        let gone: Vec<_> = self.services.keys().filter(|name| !keep(name)).cloned().collect();
        gone.iter().for_each(|name| self.delete_service(name));
    }

    /// Forgets every EndpointSlice that `keep` does not name, as after a list.
    pub fn retain_slices(&mut self, keep: impl Fn(&NamespacedName) -> bool) {
        let gone: Vec<_> = self
            .slice_owners
            .keys()
            .filter(|name| !keep(name))
            .cloned()
            .collect();
        gone.iter().for_each(|name| self.delete_slice(name));
    }

    /// Whether something was reported since the last [`take_changes`](Self::take_changes).
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Brings the desired state up to date and returns the exact difference to what it was at the last call.
    pub fn take_changes(&mut self) -> Vec<Change> {
        while let Some(name) = self.dirty.pop_first() {
            self.recompute(&name);
        }
        let before = std::mem::take(&mut self.before);
        let mut changes: Vec<Change> = before
            .into_iter()
            .map(|(key, before)| Change {
                after: self.state.ports.get(&key).cloned(),
                before,
            })
            .filter(|change| change.before != change.after)
            .collect();
        changes.sort_by(|a, b| change_key(a).cmp(&change_key(b)));
        changes
    }

    /// What Services ask for in vain, each said once for each change of the Service.
    pub fn take_warnings(&mut self) -> Vec<Warning> {
        std::mem::take(&mut self.warnings).into_iter().collect()
    }

    /// The desired state as of the last [`take_changes`](Self::take_changes).
    #[must_use]
    pub fn state(&self) -> &DesiredState {
        &self.state
    }

    /// [`take_changes`](Self::take_changes) in the form that a backend takes.
    pub fn sync_input(&mut self) -> (&DesiredState, Changes) {
        let changes = Changes::Only(self.take_changes());
        (&self.state, changes)
    }

    fn claim(&mut self, name: &NamespacedName, plan: Option<&ServicePlan>) {
        let wanted = plan.map_or_else(Vec::new, ServicePlan::claims);
        let touched = self.claims.replace(name, wanted);
        self.dirty
            .extend(touched.into_iter().map(|claim: Claim| claim.key.service));
    }

    fn recompute(&mut self, name: &NamespacedName) {
        let mut ports = Vec::new();
        if let Some(plan) = self.services.get(name) {
            for port in &plan.ports {
                let (built, lost) = self.build(plan, port);
                self.warnings.extend(lost);
                ports.push(built);
            }
        }
        let keys: Vec<_> = ports.iter().map(|port| port.key.clone()).collect();
        let old = if keys.is_empty() {
            self.keys.remove(name)
        } else {
            self.keys.insert(name.clone(), keys.clone())
        };
        for key in old
            .unwrap_or_default()
            .into_iter()
            .filter(|key| !keys.contains(key))
        {
            let gone = self.state.ports.remove(&key);
            self.before.entry(key).or_insert(gone);
        }
        for port in ports {
            self.store(port);
        }
    }

    fn store(&mut self, port: ServicePort) {
        let old = self.state.ports.get(&port.key);
        if old.is_some_and(|old| **old == port) {
            return;
        }
        let key = port.key.clone();
        let old = self.state.ports.insert(key.clone(), Arc::new(port));
        self.before.entry(key).or_insert(old);
    }

    fn build(&self, plan: &ServicePlan, port: &PortPlan) -> (ServicePort, Vec<Warning>) {
        let slices = self.slices.get(&port.key.service);
        let found = slices::endpoints_of(slices.into_iter().flat_map(BTreeMap::values), &port.key);
        let (cluster, local) = slices::usable(&found, plan.uses_local());
        let old = self.state.ports.get(&port.key);
        let (old_cluster, old_local) = old.map_or((&[][..], &[][..]), |old| {
            (&old.cluster_endpoints[..], &old.local_endpoints[..])
        });
        let mut warnings = Vec::new();
        let frontends =
            port.frontends
                .iter()
                .filter(|frontend| match self.claims.owner_if_lost(&port.key, frontend) {
                    Some(owner) => {
                        warnings.push(claims::lost(&port.key, frontend, owner));
                        false
                    }
                    None => true,
                });
        let built = ServicePort {
            frontends: frontends.copied().collect(),
            session_affinity: plan.session_affinity,
            internal_policy: plan.internal_policy,
            external_policy: plan.external_policy,
            cluster_endpoints: keep_order(old_cluster, cluster),
            local_endpoints: keep_order(old_local, local),
            key: port.key.clone(),
        };
        (built, warnings)
    }
}

fn change_key(change: &Change) -> Option<&ServicePortKey> {
    change
        .after
        .as_ref()
        .or(change.before.as_ref())
        .map(|port| &port.key)
}

/// The name of a Service.
#[must_use]
pub fn service_name(service: &Service) -> NamespacedName {
    NamespacedName::of_meta(&service.metadata)
}

/// The name of an EndpointSlice.
#[must_use]
pub fn slice_name(slice: &EndpointSlice) -> NamespacedName {
    NamespacedName::of_meta(&slice.metadata)
}

#[cfg(test)]
mod tests;
