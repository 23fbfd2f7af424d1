use super::{Cluster, NodeId};
use crate::object::{HostPort, NodeInfo, PodInfo, Taint};
use std::sync::Arc;

/// One node as a policy sees it.
#[derive(Clone, Copy, Debug)]
pub struct Node<'c> {
    cluster: &'c Cluster,
    id: NodeId,
}

impl<'c> Node<'c> {
    pub(super) fn new(cluster: &'c Cluster, id: NodeId) -> Self {
        Self { cluster, id }
    }

    /// The node's row.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// `metadata.name`.
    #[must_use]
    pub fn name(&self) -> &'c str {
        &self.cluster.rows[self.id.index()].name
    }

    /// The node as it was last seen; none for a row whose node is not known (yet, or any more).
    #[must_use]
    pub fn info(&self) -> Option<&'c Arc<NodeInfo>> {
        self.cluster.rows[self.id.index()].info.as_ref()
    }

    /// A label's value.
    #[must_use]
    pub fn label(&self, key: &str) -> Option<&'c str> {
        self.info()?.labels.get(key).map(String::as_str)
    }

    /// The node's taints.
    #[must_use]
    pub fn taints(&self) -> &'c [Taint] {
        self.cluster.taints.of(self.id)
    }

    /// True while the node is cordoned.
    #[must_use]
    pub fn unschedulable(&self) -> bool {
        self.cluster.unschedulable.contains(self.id)
    }

    /// What pods may take of a resource in total: milli-cores for `cpu`, whole units for the rest.
    #[must_use]
    pub fn allocatable(&self, resource: &str) -> i64 {
        self.cluster
            .resource(resource)
            .map_or(0, |column| column.allocatable()[self.id.index()])
    }

    /// What pods take of a resource, assumed ones among them.
    #[must_use]
    pub fn requested(&self, resource: &str) -> i64 {
        self.cluster
            .resource(resource)
            .map_or(0, |column| column.requested()[self.id.index()])
    }

    /// The pods on the node, assumed ones among them.
    #[must_use]
    pub fn pods(&self) -> &'c [Arc<PodInfo>] {
        &self.cluster.rows[self.id.index()].pods
    }

    /// Host ports that are taken.
    pub fn used_ports(&self) -> impl Iterator<Item = &'c HostPort> {
        self.pods().iter().flat_map(|pod| &pod.host_ports)
    }
}
