//! What is where: nodes, and the pods that hold room on them, as columns.
//!
//! One row a node, one column a property. Events update rows in place, so a change costs what changed, and a policy can
//! decide about all nodes by running along a column.

mod interner;
mod labels;
mod node;
mod node_set;
mod nominations;
mod ports;
mod resources;
mod taints;

pub use labels::LabelColumn;
pub use node::Node;
pub use node_set::{NodeId, NodeSet};
pub use resources::ResourceColumn;
pub(crate) use taints::TaintList;

use crate::object::{HostPort, NodeInfo, PodInfo, PodKey, Taint};
use labels::LabelColumns;
use nominations::Nominations;
use ports::PortHolders;
use resources::Resources;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use taints::TaintColumn;

static NO_LABELS: BTreeMap<String, String> = BTreeMap::new();

/// The state that placement decides on.
///
/// A node may have pods before it is known itself (a pod event came first, or the node was deleted under them): its row
/// keeps count, but only rows of known nodes are candidates.
#[derive(Debug, Default)]
pub struct Cluster {
    rows: Vec<Row>,
    by_name: HashMap<Arc<str>, NodeId>,
    free_rows: Vec<NodeId>,
    present: NodeSet,
    unschedulable: NodeSet,
    resources: Resources,
    labels: LabelColumns,
    taints: TaintColumn,
    ports: PortHolders,
    pods: HashMap<PodKey, Placed>,
    /// Pods on nodes that ask for or against others: few, as a rule, so that nobody else's placement walks all pods.
    with_affinity: HashMap<PodKey, (NodeId, Arc<PodInfo>)>,
    namespace_labels: HashMap<String, BTreeMap<String, String>>,
    nominations: Nominations,
}

#[derive(Debug, Default)]
struct Row {
    name: Arc<str>,
    info: Option<Arc<NodeInfo>>,
    pods: Vec<Arc<PodInfo>>,
}

#[derive(Debug)]
struct Placed {
    node: NodeId,
    /// Where the pod stands in its row's list.
    at: usize,
    assumed: bool,
}

/// What [`Cluster::set_node`] replaced.
#[derive(Clone, Debug)]
pub struct NodeChange {
    /// The node's row.
    pub id: NodeId,
    /// The node before; none when it is new.
    pub old: Option<Arc<NodeInfo>>,
    /// The node now.
    pub new: Arc<NodeInfo>,
}

impl Cluster {
    /// A cluster without nodes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a node or takes over what changed of it.
    pub fn set_node(&mut self, node: NodeInfo) -> NodeChange {
        let id = self.row_of(&node.name);
        let new = Arc::new(node);
        let old = self.rows[id.index()].info.replace(new.clone());
        let none = BTreeMap::new();
        self.present.insert(id);
        if new.unschedulable {
            self.unschedulable.insert(id);
        } else {
            self.unschedulable.remove(id);
        }
        self.resources.set_allocatable(id, old.as_deref(), Some(&new));
        self.labels
            .replace(id, old.as_ref().map_or(&none, |o| &o.labels), &new.labels);
        if old.as_ref().is_none_or(|o| o.taints != new.taints) {
            self.taints.set(id, &new.taints);
        }
        NodeChange { id, old, new }
    }

    /// Takes a node away. Its pods stay counted until they are removed themselves.
    pub fn remove_node(&mut self, name: &str) -> Option<Arc<NodeInfo>> {
        let id = *self.by_name.get(name)?;
        let old = self.rows[id.index()].info.take()?;
        self.present.remove(id);
        self.unschedulable.remove(id);
        self.resources.set_allocatable(id, Some(&old), None);
        self.labels.replace(id, &old.labels, &BTreeMap::new());
        self.taints.set(id, &[]);
        self.drop_row_if_unused(id);
        Some(old)
    }

    /// Records that a pod is bound to the named node; confirms an assumed pod, moves one that is elsewhere, and takes over
    /// what changed of one that is there.
    pub fn set_pod(&mut self, pod: Arc<PodInfo>, node: &str) -> Option<Arc<PodInfo>> {
        let old = self.remove_pod(&pod.key);
        let id = self.row_of(node);
        self.put(id, pod, false);
        old
    }

    /// Counts a pod on a node before the API server has confirmed its binding.
    pub fn assume(&mut self, pod: Arc<PodInfo>, node: NodeId) {
        self.remove_pod(&pod.key);
        self.put(node, pod, true);
    }

    /// Takes a pod away from its node.
    pub fn remove_pod(&mut self, key: &PodKey) -> Option<Arc<PodInfo>> {
        let placed = self.pods.remove(key)?;
        let pods = &mut self.rows[placed.node.index()].pods;
        let pod = pods.swap_remove(placed.at);
        if let Some(moved) = pods.get(placed.at).map(|p| p.key.clone()) {
            self.pods
                .get_mut(&moved)
                .expect("every pod of a row is indexed")
                .at = placed.at;
        }
        self.with_affinity.remove(key);
        self.resources.remove_pod(placed.node, &pod.requests);
        self.ports.remove(placed.node, &pod.host_ports);
        self.drop_row_if_unused(placed.node);
        Some(pod)
    }

    /// Gives up an assumption; a pod that was confirmed in the meantime stays.
    pub fn forget(&mut self, key: &PodKey) -> Option<Arc<PodInfo>> {
        if self.is_assumed(key) {
            self.remove_pod(key)
        } else {
            None
        }
    }

    /// True while a pod is counted on a node without confirmation.
    #[must_use]
    pub fn is_assumed(&self, key: &PodKey) -> bool {
        self.pods.get(key).is_some_and(|placed| placed.assumed)
    }

    /// The node that a pod is counted on.
    #[must_use]
    pub fn node_of(&self, key: &PodKey) -> Option<NodeId> {
        self.pods.get(key).map(|placed| placed.node)
    }

    /// A pod that is counted on a node.
    #[must_use]
    pub fn pod(&self, key: &PodKey) -> Option<&Arc<PodInfo>> {
        let placed = self.pods.get(key)?;
        self.rows[placed.node.index()].pods.get(placed.at)
    }

    /// Reserves room on the named node for a pod for which others are being displaced; replaces an earlier nomination.
    pub fn nominate(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.nominations.set(pod, node);
    }

    /// Gives up a nomination, if there is one.
    pub fn withdraw_nomination(&mut self, key: &PodKey) {
        self.nominations.remove(key);
    }

    /// The node that room is reserved on for a pod.
    #[must_use]
    pub fn nominated_node(&self, key: &PodKey) -> Option<&str> {
        self.nominations.node_of(key)
    }

    /// Pods nominated to a node that go before `pod`: of its priority or higher, and not itself.
    #[must_use]
    pub fn nominated_before(&self, pod: &PodInfo, node: NodeId) -> Vec<Arc<PodInfo>> {
        self.nominations.before(pod, &self.rows[node.index()].name)
    }

    /// Known nodes for which room may be reserved.
    pub(crate) fn nodes_with_nominations(&self) -> NodeSet {
        self.nominations
            .nodes()
            .filter_map(|name| self.find(name))
            .collect()
    }

    /// All known nodes.
    #[must_use]
    pub fn present(&self) -> &NodeSet {
        &self.present
    }

    /// The cordoned nodes.
    #[must_use]
    pub fn unschedulable(&self) -> &NodeSet {
        &self.unschedulable
    }

    /// How many nodes are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.present.len()
    }

    /// True when no node is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.present.is_empty()
    }

    /// How many pods are counted, assumed ones among them.
    #[must_use]
    pub fn pod_count(&self) -> usize {
        self.pods.len()
    }

    /// All known nodes by row.
    pub fn nodes(&self) -> impl Iterator<Item = Node<'_>> {
        self.present.iter().map(|id| self.node(id))
    }

    /// The view of one node.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Node<'_> {
        Node::new(self, id)
    }

    /// The row of a known node.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<NodeId> {
        self.by_name
            .get(name)
            .copied()
            .filter(|&id| self.present.contains(id))
    }

    /// The column of a resource; none when no node offers it and no pod asks for it.
    #[must_use]
    pub fn resource(&self, name: &str) -> Option<&ResourceColumn> {
        self.resources.column(name)
    }

    /// Requested milli-cores by row, where containers without a request count with upstream's default.
    #[must_use]
    pub fn nonzero_milli_cpu(&self) -> &[i64] {
        &self.resources.nonzero_cpu
    }

    /// Requested bytes of memory by row, where containers without a request count with upstream's default.
    #[must_use]
    pub fn nonzero_memory(&self) -> &[i64] {
        &self.resources.nonzero_memory
    }

    /// Notes a namespace's labels; false when nothing changed.
    pub fn set_namespace(&mut self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        let old = self.namespace_labels.insert(name.to_owned(), labels.clone());
        old.as_ref() != Some(labels)
    }

    /// Forgets a namespace; false when it was not known.
    pub fn remove_namespace(&mut self, name: &str) -> bool {
        self.namespace_labels.remove(name).is_some()
    }

    /// A namespace's labels; none when it is not known.
    #[must_use]
    pub fn namespace_labels(&self, name: &str) -> &BTreeMap<String, String> {
        self.namespace_labels.get(name).unwrap_or(&NO_LABELS)
    }

    /// The pods on known nodes that have pod affinity or anti-affinity, with their nodes, in no order.
    pub fn pods_with_affinity(&self) -> impl Iterator<Item = (NodeId, &Arc<PodInfo>)> {
        let all = self.with_affinity.values().map(|(node, pod)| (*node, pod));
        all.filter(|(node, _)| self.present.contains(*node))
    }

    /// The column of a label.
    #[must_use]
    pub fn label(&self, key: &str) -> LabelColumn<'_> {
        self.labels.column(key)
    }

    /// Nodes on which a pod holds a port that conflicts with this one; a node may come more than once.
    pub fn holders_of<'c>(&'c self, port: &'c HostPort) -> impl Iterator<Item = NodeId> + 'c {
        self.ports.conflicting(port)
    }

    pub(crate) fn taint_lists(&self) -> &[TaintList] {
        self.taints.rows()
    }

    pub(crate) fn by_taint_list<T>(&self, eval: impl Fn(&[Taint]) -> T) -> Vec<T> {
        self.taints.by_list(eval)
    }

    fn put(&mut self, id: NodeId, pod: Arc<PodInfo>, assumed: bool) {
        self.resources.add_pod(id, &pod.requests);
        self.ports.add(id, &pod.host_ports);
        let pods = &mut self.rows[id.index()].pods;
        self.pods.insert(
            pod.key.clone(),
            Placed {
                node: id,
                at: pods.len(),
                assumed,
            },
        );
        if pod.pod_affinity.is_some() {
            self.with_affinity.insert(pod.key.clone(), (id, pod.clone()));
        }
        pods.push(pod);
    }

    fn row_of(&mut self, name: &str) -> NodeId {
        if let Some(&id) = self.by_name.get(name) {
            return id;
        }
        let name: Arc<str> = name.into();
        let row = Row {
            name: name.clone(),
            ..Row::default()
        };
        let id = match self.free_rows.pop() {
            Some(id) => {
                self.rows[id.index()] = row;
                id
            }
            None => {
                self.rows.push(row);
                self.resources.grow(self.rows.len());
                self.taints.grow(self.rows.len());
                NodeId::from_index(self.rows.len() - 1)
            }
        };
        self.by_name.insert(name, id);
        id
    }

    fn drop_row_if_unused(&mut self, id: NodeId) {
        let row = &mut self.rows[id.index()];
        if row.info.is_none() && row.pods.is_empty() {
            self.by_name.remove(&row.name);
            self.free_rows.push(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{node, pod};

    #[test]
    fn a_pod_counts_where_it_is_assumed_confirmed_moved_and_removed() {
        let mut cluster = Cluster::new();
        let a = cluster.set_node(node("a").build()).id;
        let b = cluster.set_node(node("b").build()).id;
        let web = Arc::new(pod("web").cpu(300).build());
        cluster.assume(web.clone(), a);
        assert!(cluster.is_assumed(&web.key));
        assert_eq!(cluster.resource("cpu").unwrap().requested()[a.index()], 300);
        cluster.set_pod(web.clone(), "b");
        assert!(!cluster.is_assumed(&web.key));
        assert_eq!(cluster.resource("cpu").unwrap().requested(), [0, 300]);
        assert_eq!(cluster.node(b).pods().len(), 1);
        assert!(
            cluster.forget(&web.key).is_none(),
            "confirmed pods are not forgotten"
        );
        cluster.remove_pod(&web.key);
        assert_eq!(cluster.resource("cpu").unwrap().requested(), [0, 0]);
        assert_eq!(cluster.resource("pods").unwrap().requested(), [0, 0]);
    }

    #[test]
    fn a_node_that_comes_after_its_pods_has_them_counted() {
        let mut cluster = Cluster::new();
        cluster.set_pod(Arc::new(pod("early").cpu(100).build()), "late");
        assert!(cluster.is_empty() && cluster.find("late").is_none());
        let id = cluster.set_node(node("late").build()).id;
        assert_eq!(cluster.node(id).requested("cpu"), 100);
    }

    #[test]
    fn a_removed_node_leaves_nothing_once_its_pods_are_gone() {
        let mut cluster = Cluster::new();
        let first = cluster
            .set_node(
                node("a")
                    .label("zone", "x")
                    .taint("k", "v", "NoSchedule")
                    .gpu(4)
                    .build(),
            )
            .id;
        let web = Arc::new(pod("web").cpu(100).build());
        cluster.set_pod(web.clone(), "a");
        assert!(cluster.remove_node("a").is_some());
        assert!(cluster.is_empty());
        cluster.remove_pod(&web.key);
        let again = cluster.set_node(node("b").build()).id;
        assert_eq!(first, again, "the row is used again");
        let b = cluster.node(again);
        assert_eq!(
            (
                b.label("zone"),
                b.taints().len(),
                b.allocatable("example.com/gpu"),
                b.requested("cpu")
            ),
            (None, 0, 0, 0)
        );
    }

    #[test]
    fn removing_a_pod_keeps_the_others_findable() {
        let mut cluster = Cluster::new();
        cluster.set_node(node("a").build());
        let pods: Vec<_> = (0..4).map(|i| Arc::new(pod(&format!("p{i}")).build())).collect();
        pods.iter().for_each(|p| {
            cluster.set_pod(p.clone(), "a");
        });
        for gone in [1, 0, 3, 2] {
            assert_eq!(cluster.remove_pod(&pods[gone].key).unwrap().name, pods[gone].name);
            assert!(
                pods.iter()
                    .filter(|p| cluster.pod(&p.key).is_some())
                    .all(|p| cluster.pod(&p.key).unwrap().name == p.name)
            );
        }
    }
}
