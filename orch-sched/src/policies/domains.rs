use crate::cluster::{Cluster, LabelColumn, NodeId};
use std::collections::{BTreeMap, HashMap};

/// Sums over the domains of one topology: the nodes that have the same value of a label.
pub(super) struct Domains<'c> {
    column: LabelColumn<'c>,
    sums: HashMap<u32, i64>,
}

impl<'c> Domains<'c> {
    pub(super) fn new(cluster: &'c Cluster, topology_key: &str) -> Self {
        Self {
            column: cluster.label(topology_key),
            sums: HashMap::new(),
        }
    }

    /// Whether the node is in a domain at all.
    pub(super) fn has(&self, node: NodeId) -> bool {
        self.column.symbol(node) != 0
    }

    /// Adds to the sum of the node's domain; 0 only makes the domain known.
    pub(super) fn add(&mut self, node: NodeId, amount: i64) {
        match self.column.symbol(node) {
            0 => {}
            domain => *self.sums.entry(domain).or_default() += amount,
        }
    }

    /// The sum of the node's domain; none when it is in none, or in one that is not known.
    pub(super) fn sum(&self, node: NodeId) -> Option<i64> {
        self.sums.get(&self.column.symbol(node)).copied()
    }

    /// How many domains are known.
    pub(super) fn len(&self) -> usize {
        self.sums.len()
    }

    /// The least of the sums.
    pub(super) fn least(&self) -> Option<i64> {
        self.sums.values().copied().min()
    }
}

/// Sums over the domains of several topologies.
#[derive(Default)]
pub(super) struct Topologies<'c>(BTreeMap<&'c str, Domains<'c>>);

impl<'c> Topologies<'c> {
    /// Adds to the sum of the node's domain in one topology, if it is in one.
    pub(super) fn add(&mut self, cluster: &'c Cluster, topology_key: &'c str, node: NodeId, amount: i64) {
        let domains = self
            .0
            .entry(topology_key)
            .or_insert_with(|| Domains::new(cluster, topology_key));
        domains.add(node, amount);
    }

    /// The sum of the node's domain in one topology.
    pub(super) fn sum(&self, topology_key: &str, node: NodeId) -> i64 {
        let domains = self.0.get(topology_key);
        domains.and_then(|domains| domains.sum(node)).unwrap_or(0)
    }

    /// The sums of the node's domains in all topologies.
    pub(super) fn sums(&self, node: NodeId) -> impl Iterator<Item = i64> {
        self.0.values().filter_map(move |domains| domains.sum(node))
    }

    /// True when nothing was added to any domain.
    pub(super) fn is_empty(&self) -> bool {
        self.0.values().all(|domains| domains.len() == 0)
    }
}
