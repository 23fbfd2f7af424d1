use crate::cluster::{Cluster, Node, NodeId, NodeSet};
use crate::event::{ClusterEvent, EventSet};
use crate::object::{NodeInfo, PodInfo, Requests};
use crate::policy::{
    Hint, MAX_NODE_SCORE, NodeFilter, NodeScore, PreFilter, PreScore, Rejection, SchedulerPolicy,
};
use std::borrow::Cow;

/// How much a resource counts in a score.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceWeight {
    /// The resource's name.
    pub name: String,
    /// Its weight, at least 1.
    pub weight: i64,
}

impl ResourceWeight {
    /// A resource with its weight.
    #[must_use]
    pub fn new(name: &str, weight: i64) -> Self {
        Self {
            name: name.to_owned(),
            weight,
        }
    }

    pub(super) fn cpu_and_memory() -> Vec<Self> {
        vec![Self::new("cpu", 1), Self::new("memory", 1)]
    }
}

/// Takes nodes with room for what the pod requests, and prefers those of which the least is requested already
/// (`LeastAllocated`).
#[derive(Clone, Debug)]
pub struct NodeResourcesFit {
    resources: Vec<ResourceWeight>,
}

impl Default for NodeResourcesFit {
    fn default() -> Self {
        Self {
            resources: ResourceWeight::cpu_and_memory(),
        }
    }
}

impl NodeResourcesFit {
    /// Scores by these resources instead of by processor time and memory alike.
    #[must_use]
    pub fn scoring_by(resources: Vec<ResourceWeight>) -> Self {
        Self { resources }
    }
}

impl SchedulerPolicy for NodeResourcesFit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn events(&self) -> EventSet {
        EventSet::NODE_ADD
            | EventSet::NODE_ALLOCATABLE
            | EventSet::ASSIGNED_POD_DELETE
            | EventSet::POD_SCALE_DOWN
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent<'_>) -> Hint {
        Hint::queue_if(match event {
            ClusterEvent::Node { old, new, .. } => new.is_some_and(|new| {
                fits_when_empty(&pod.requests, new)
                    && old.is_none_or(|old| offers_more(&pod.requests, old, new))
            }),
            ClusterEvent::Namespace { .. } => false,
            ClusterEvent::Pod { new: None, .. } => true,
            ClusterEvent::Pod {
                old, new: Some(new), ..
            } => {
                new.key == pod.key
                    || new.node_name.is_some()
                        && old.is_some_and(|old| frees_some(&pod.requests, &old.requests, &new.requests))
            }
        })
    }

    fn pre_filter<'c>(&'c self, pod: &'c PodInfo, _: &'c Cluster) -> PreFilter<'c> {
        PreFilter::Filter(Box::new(Room(&pod.requests)))
    }

    fn pre_score<'c>(&'c self, pod: &'c PodInfo, cluster: &'c Cluster, _: &NodeSet) -> PreScore<'c> {
        PreScore::Score(Box::new(LeastAllocated(fractions(
            &self.resources,
            &pod.requests,
            cluster,
            Usage::NonZero,
        ))))
    }
}

fn fits_when_empty(wanted: &Requests, node: &NodeInfo) -> bool {
    node.pods >= 1 && named(wanted).all(|(name, amount)| amount <= node.allocatable(name))
}

fn offers_more(wanted: &Requests, old: &NodeInfo, new: &NodeInfo) -> bool {
    new.pods > old.pods || named(wanted).any(|(name, _)| new.allocatable(name) > old.allocatable(name))
}

fn frees_some(wanted: &Requests, old: &Requests, new: &Requests) -> bool {
    named(wanted).any(|(name, _)| new.get(name) < old.get(name))
}

/// What is requested at all, by name.
fn named(requests: &Requests) -> impl Iterator<Item = (&str, i64)> {
    let usual = [
        ("cpu", requests.milli_cpu),
        ("memory", requests.memory),
        ("ephemeral-storage", requests.ephemeral_storage),
    ];
    let scalar = requests.scalar.iter().map(|(name, amount)| (&**name, *amount));
    usual.into_iter().chain(scalar).filter(|(_, amount)| *amount > 0)
}

struct Room<'c>(&'c Requests);

impl NodeFilter for Room<'_> {
    fn filter(&self, node: Node<'_>) -> Result<(), Rejection> {
        let mut rejection = Rejection {
            reasons: Vec::new(),
            resolvable: true,
        };
        if node.requested("pods") + 1 > node.allocatable("pods") {
            rejection.reasons.push(Cow::Borrowed("Too many pods"));
        }
        for (name, amount) in named(self.0) {
            let allocatable = node.allocatable(name);
            if amount > allocatable.saturating_sub(node.requested(name)) {
                rejection.reasons.push(insufficient(name));
                rejection.resolvable &= amount <= allocatable;
            }
        }
        if rejection.reasons.is_empty() {
            Ok(())
        } else {
            Err(rejection)
        }
    }

    fn narrow(&self, cluster: &Cluster, candidates: &mut NodeSet) {
        for (name, amount) in named(self.0).chain([("pods", 1)]) {
            match cluster.resource(name) {
                Some(column) => candidates.retain_column(column.free(), |free| amount <= free),
                None => candidates.clear(),
            }
        }
    }
}

fn insufficient(name: &str) -> Cow<'static, str> {
    match name {
        "cpu" => Cow::Borrowed("Insufficient cpu"),
        "memory" => Cow::Borrowed("Insufficient memory"),
        "ephemeral-storage" => Cow::Borrowed("Insufficient ephemeral-storage"),
        other => Cow::Owned(format!("Insufficient {other}")),
    }
}

/// How pods without requests count.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Usage {
    /// As they stand.
    Requested,
    /// With upstream's default for processor time and memory.
    NonZero,
}

/// One resource that counts in a score: its columns, and what the pod adds.
pub(super) struct Fraction<'c> {
    allocatable: &'c [i64],
    used: &'c [i64],
    adds: i64,
    weight: i64,
}

impl Fraction<'_> {
    /// Requested with the pod, and allocatable; none where the node has nothing of the resource.
    pub(super) fn on(&self, id: NodeId) -> Option<(i64, i64)> {
        let allocatable = self.allocatable[id.index()];
        (allocatable != 0).then(|| (self.used[id.index()].wrapping_add(self.adds), allocatable))
    }
}

/// A resource that the pod does not ask for counts only if it is one of the common ones.
pub(super) fn fractions<'c>(
    resources: &[ResourceWeight],
    requests: &Requests,
    cluster: &'c Cluster,
    usage: Usage,
) -> Vec<Fraction<'c>> {
    let fraction = |resource: &ResourceWeight| {
        let column = cluster.resource(&resource.name)?;
        let (used, adds) = match (resource.name.as_str(), usage) {
            ("cpu", Usage::NonZero) => (cluster.nonzero_milli_cpu(), requests.nonzero_milli_cpu),
            ("memory", Usage::NonZero) => (cluster.nonzero_memory(), requests.nonzero_memory),
            (name, _) => (column.requested(), requests.get(name)),
        };
        let common = matches!(resource.name.as_str(), "cpu" | "memory" | "ephemeral-storage");
        (common || adds != 0).then(|| Fraction {
            allocatable: column.allocatable(),
            used,
            adds,
            weight: resource.weight,
        })
    };
    resources.iter().filter_map(fraction).collect()
}

struct LeastAllocated<'c>(Vec<Fraction<'c>>);

impl LeastAllocated<'_> {
    fn on(&self, id: NodeId) -> i64 {
        let (mut sum, mut weights) = (0, 0);
        for fraction in &self.0 {
            let Some((requested, allocatable)) = fraction.on(id) else {
                continue;
            };
            if requested <= allocatable {
                sum += fraction.weight * ((allocatable - requested) * MAX_NODE_SCORE / allocatable);
            }
            weights += fraction.weight;
        }
        if weights == 0 { 0 } else { sum / weights }
    }
}

impl NodeScore for LeastAllocated<'_> {
    fn score(&self, node: Node<'_>) -> i64 {
        self.on(node.id())
    }

    fn score_all(&self, _: &Cluster, nodes: &[NodeId], scores: &mut [i64]) {
        for (score, &id) in scores.iter_mut().zip(nodes) {
            *score = self.on(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{node, pod};
    use crate::testkit::{filtered_among, scored_among};

    const GIB: i64 = 1 << 30;

    fn no(reasons: &[&'static str], resolvable: bool) -> Result<(), Rejection> {
        Err(Rejection {
            reasons: reasons.iter().map(|r| Cow::Borrowed(*r)).collect(),
            resolvable,
        })
    }

    #[test]
    fn every_resource_that_is_short_is_named() {
        let nodes = [node("n")
            .cpu(1000)
            .memory(GIB)
            .pods(1)
            .gpu(1)
            .allocatable("ephemeral-storage", "1Gi")];
        let pods = [pod("there").cpu(600).memory(GIB / 2).gpu(1).on("n")];
        let verdict =
            |wanted: PodInfo| filtered_among(&NodeResourcesFit::default(), &wanted, &nodes, &pods).remove(0);
        assert_eq!(verdict(pod("p").build()), no(&["Too many pods"], true));
        assert_eq!(
            verdict(pod("p").cpu(500).build()),
            no(&["Too many pods", "Insufficient cpu"], true)
        );
        let greedy = pod("p")
            .cpu(1500)
            .memory(GIB)
            .request("ephemeral-storage", "2Gi")
            .gpu(1)
            .request("a.b/c", "1");
        let all = [
            "Too many pods",
            "Insufficient cpu",
            "Insufficient memory",
            "Insufficient ephemeral-storage",
            "Insufficient a.b/c",
            "Insufficient example.com/gpu",
        ];
        assert_eq!(verdict(greedy.build()), no(&all, false));
    }

    #[test]
    fn a_pod_fits_exactly_and_one_that_asks_for_nothing_needs_a_place_only() {
        let nodes = [node("n").cpu(1000).memory(GIB)];
        let pods = [pod("there").cpu(600).memory(GIB).on("n")];
        let verdict =
            |wanted: PodInfo| filtered_among(&NodeResourcesFit::default(), &wanted, &nodes, &pods).remove(0);
        assert_eq!(verdict(pod("p").cpu(400).build()), Ok(()));
        assert_eq!(
            verdict(pod("p").cpu(401).build()),
            no(&["Insufficient cpu"], true)
        );
        assert_eq!(verdict(pod("p").build()), Ok(()));
        assert_eq!(verdict(pod("p").gpu(0).build()), Ok(()));
    }

    /// Figures as upstream computes them: mean of (capacity - requested) * 100 / capacity over cpu and memory.
    #[test]
    fn the_least_allocated_node_scores_highest() {
        let nodes = [
            node("a").cpu(4000).memory(10000),
            node("b").cpu(6000).memory(10000),
        ];
        let score =
            |wanted: PodInfo, pods: &[_]| scored_among(&NodeResourcesFit::default(), &wanted, &nodes, pods);
        let two = pod("p").cpu(3000).memory(5000);
        assert_eq!(score(two.clone().build(), &[]), [37, 50]);
        let there = [
            pod("x").cpu(1000).memory(0).on("a"),
            pod("y").cpu(6000).memory(5000).on("b"),
        ];
        assert_eq!(score(two.memory(1000).build(), &there), [45, 20]);
    }

    #[test]
    fn containers_without_requests_count_with_the_defaults() {
        let nodes = [node("n").cpu(1000).memory(2000 * 1024 * 1024)];
        assert_eq!(
            scored_among(&NodeResourcesFit::default(), &pod("p").build(), &nodes, &[]),
            [90]
        );
    }

    #[test]
    fn extended_resources_count_if_configured_and_requested() {
        let policy = || {
            NodeResourcesFit::scoring_by(vec![
                ResourceWeight::new("cpu", 1),
                ResourceWeight::new("example.com/gpu", 3),
            ])
        };
        let nodes = [node("n").cpu(1000).gpu(4)];
        assert_eq!(
            scored_among(&policy(), &pod("p").cpu(500).build(), &nodes, &[]),
            [50]
        );
        assert_eq!(
            scored_among(&policy(), &pod("p").cpu(500).gpu(1).build(), &nodes, &[]),
            [(50 + 3 * 75) / 4]
        );
    }

    #[test]
    fn only_events_that_give_room_are_worth_another_attempt() {
        let policy = NodeResourcesFit::default();
        let wanting = pod("p").cpu(2000).build();
        let node_hint = |old: Option<NodeInfo>, new: NodeInfo| {
            policy.hint(&wanting, &ClusterEvent::node(old.as_ref(), &new).unwrap())
        };
        assert_eq!(node_hint(None, node("n").cpu(1000).build()), Hint::Skip);
        assert_eq!(node_hint(None, node("n").cpu(2000).build()), Hint::Queue);
        assert_eq!(
            node_hint(Some(node("n").cpu(4000).build()), node("n").cpu(3000).build()),
            Hint::Skip
        );
        assert_eq!(
            node_hint(Some(node("n").cpu(1000).build()), node("n").cpu(3000).build()),
            Hint::Queue
        );
        let (before, after) = (
            pod("x").cpu(900).on("n").build(),
            pod("x").cpu(800).on("n").build(),
        );
        assert_eq!(
            policy.hint(&wanting, &ClusterEvent::pod_updated(&before, &after).unwrap()),
            Hint::Queue
        );
        assert_eq!(
            policy.hint(&wanting, &ClusterEvent::assigned_pod_deleted(&after)),
            Hint::Queue
        );
    }
}
