//! For authors of policies: try one on a small cluster, and check that it keeps the framework's contract.

use crate::cluster::{Cluster, NodeId, NodeSet};
use crate::event::ClusterEvent;
use crate::object::PodInfo;
use crate::policy::{Hint, MAX_NODE_SCORE, PreFilter, PreScore, Rejection, SchedulerPolicy};
use crate::sample::{self, NodeBuilder, PodBuilder, node, pod};
use k8s_openapi::api::core::v1 as core;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a policy says about each node for a pod, on an otherwise empty cluster.
///
/// # Panics
/// When its filter for all nodes disagrees with its filter for one.
pub fn filtered(
    policy: &dyn SchedulerPolicy,
    pod: &PodInfo,
    nodes: &[NodeBuilder],
) -> Vec<Result<(), Rejection>> {
    filtered_among(policy, pod, nodes, &[])
}

/// What a policy says about each node for a pod, beside pods that are bound already.
///
/// # Panics
/// When its filter for all nodes disagrees with its filter for one.
pub fn filtered_among(
    policy: &dyn SchedulerPolicy,
    pod: &PodInfo,
    nodes: &[NodeBuilder],
    pods: &[PodBuilder],
) -> Vec<Result<(), Rejection>> {
    let cluster = cluster_of(nodes, pods);
    verdicts(policy, pod, &cluster)
}

/// How a policy scores each node for a pod, normalised over all of them, on an otherwise empty cluster.
///
/// # Panics
/// When its scores for all nodes disagree with its score for one.
pub fn scored(policy: &dyn SchedulerPolicy, pod: &PodInfo, nodes: &[NodeBuilder]) -> Vec<i64> {
    scored_among(policy, pod, nodes, &[])
}

/// How a policy scores each node for a pod, normalised over all of them, beside pods that are bound already.
///
/// # Panics
/// When its scores for all nodes disagree with its score for one.
pub fn scored_among(
    policy: &dyn SchedulerPolicy,
    pod: &PodInfo,
    nodes: &[NodeBuilder],
    pods: &[PodBuilder],
) -> Vec<i64> {
    let cluster = cluster_of(nodes, pods);
    scores(policy, pod, &cluster).unwrap_or_else(|| vec![0; nodes.len()])
}

/// A cluster of nodes, and of pods that are bound to them.
///
/// # Panics
/// When a pod is not bound.
#[must_use]
pub fn cluster_of(nodes: &[NodeBuilder], pods: &[PodBuilder]) -> Cluster {
    let mut cluster = Cluster::new();
    for node in nodes {
        cluster.set_node(node.build());
    }
    for pod in pods.iter().map(PodBuilder::build) {
        let node = pod.node_name.clone().expect("pods of a sample cluster are bound");
        cluster.set_pod(Arc::new(pod), &node);
    }
    cluster
}

/// Checks on random clusters that a policy keeps the framework's contract:
///
/// - its filter for all nodes answers like its filter for one, and its scores likewise;
/// - the same state gives the same answer;
/// - scores are 0 to 100 after normalising;
/// - a node that begins to take a pod does so by an event that the policy asked for, and its hint says so.
///
/// # Panics
/// When it does not, with the case at hand.
pub fn conformance(policy: &dyn SchedulerPolicy, cases: u64) {
    assert!(!policy.name().is_empty(), "a policy needs a name");
    for seed in 0..cases {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut cluster = random_cluster(&mut random);
        let pod = random_pod(&mut random, "incoming").build();
        let before = verdicts(policy, &pod, &cluster);
        assert_eq!(
            before,
            verdicts(policy, &pod, &cluster),
            "{}: seed {seed}: the answer changed",
            policy.name()
        );
        if let Some(scores) = scores(policy, &pod, &cluster) {
            let bad = scores.iter().find(|score| !(0..=MAX_NODE_SCORE).contains(*score));
            assert_eq!(bad, None, "{}: seed {seed}: score out of range", policy.name());
        }
        hints_are_honest(policy, &pod, &mut cluster, &mut random, seed);
    }
}

fn hints_are_honest(
    policy: &dyn SchedulerPolicy,
    pod: &PodInfo,
    cluster: &mut Cluster,
    random: &mut fastrand::Rng,
    seed: u64,
) {
    let ids: Vec<NodeId> = cluster.present().iter().collect();
    let id = ids[random.usize(..ids.len())];
    let rejected = verdict(policy, pod, cluster, id).is_err();
    let tell = |cluster: &Cluster, event: Option<ClusterEvent<'_>>| {
        let helped = rejected && verdict(policy, pod, cluster, id).is_ok();
        if let Some(event) = event {
            must_tell(policy, pod, helped, &event, seed);
        }
    };
    let name = cluster.node(id).name().to_owned();
    let there = cluster.node(id).pods().first().cloned();
    match (random.u8(..6), there) {
        (0 | 1, Some(gone)) => {
            cluster.remove_pod(&gone.key);
            tell(cluster, Some(ClusterEvent::assigned_pod_deleted(&gone)));
        }
        (2, Some(old)) => {
            let labels = random_pod(random, "relabelled").build().labels;
            let new = Arc::new(PodInfo {
                labels,
                ..PodInfo::clone(&old)
            });
            cluster.set_pod(new.clone(), &name);
            tell(cluster, ClusterEvent::pod_updated(&old, &new));
        }
        (3, _) => {
            let added = Arc::new(random_pod(random, "added").build());
            cluster.set_pod(added.clone(), &name);
            tell(cluster, Some(ClusterEvent::pod_assigned(&added)));
        }
        (4, _) => {
            let namespace = ["default", "other"][random.usize(..2)];
            let team = BTreeMap::from([("team".to_owned(), "a".to_owned())]);
            if !cluster.set_namespace(namespace, &team) {
                cluster.remove_namespace(namespace);
            }
            tell(cluster, Some(ClusterEvent::Namespace { name: namespace }));
        }
        _ => {
            let change = cluster.set_node(random_node(random, &name).build());
            tell(cluster, ClusterEvent::node(change.old.as_deref(), &change.new));
        }
    }
}

fn must_tell(policy: &dyn SchedulerPolicy, pod: &PodInfo, helped: bool, event: &ClusterEvent<'_>, seed: u64) {
    let told = policy.events().intersects(event.kinds()) && policy.hint(pod, event) == Hint::Queue;
    assert!(
        told || !helped,
        "{}: seed {seed}: {event:?} helps, and the policy does not say so",
        policy.name()
    );
}

fn verdict(
    policy: &dyn SchedulerPolicy,
    pod: &PodInfo,
    cluster: &Cluster,
    id: NodeId,
) -> Result<(), Rejection> {
    match policy.pre_filter(pod, cluster) {
        PreFilter::Skip => Ok(()),
        PreFilter::Filter(filter) => filter.filter(cluster.node(id)),
        PreFilter::Only(nodes, filter) => match filter {
            Some(filter) => filter.filter(cluster.node(id)),
            None if nodes.contains(id) => Ok(()),
            None => Err(Rejection::unresolvable("not among the nodes in question")),
        },
        PreFilter::Reject(rejection) => Err(rejection),
    }
}

fn verdicts(policy: &dyn SchedulerPolicy, pod: &PodInfo, cluster: &Cluster) -> Vec<Result<(), Rejection>> {
    let each: Vec<_> = cluster
        .present()
        .iter()
        .map(|id| verdict(policy, pod, cluster, id))
        .collect();
    let mut narrowed = cluster.present().clone();
    match policy.pre_filter(pod, cluster) {
        PreFilter::Skip => {}
        PreFilter::Filter(filter) => filter.narrow(cluster, &mut narrowed),
        PreFilter::Only(nodes, filter) => {
            narrowed.intersect(&nodes);
            if let Some(filter) = filter {
                filter.narrow(cluster, &mut narrowed);
            }
        }
        PreFilter::Reject(_) => narrowed.clear(),
    }
    let passed: NodeSet = cluster
        .present()
        .iter()
        .zip(&each)
        .filter(|(_, v)| v.is_ok())
        .map(|(id, _)| id)
        .collect();
    let rows = |set: &NodeSet| set.iter().collect::<Vec<_>>();
    assert_eq!(
        rows(&narrowed),
        rows(&passed),
        "{}: narrow and filter disagree on {pod:?}",
        policy.name()
    );
    each
}

fn scores(policy: &dyn SchedulerPolicy, pod: &PodInfo, cluster: &Cluster) -> Option<Vec<i64>> {
    let PreScore::Score(scorer) = policy.pre_score(pod, cluster, cluster.present()) else {
        return None;
    };
    let nodes: Vec<NodeId> = cluster.present().iter().collect();
    let each: Vec<i64> = nodes.iter().map(|id| scorer.score(cluster.node(*id))).collect();
    let mut all = vec![0; nodes.len()];
    scorer.score_all(cluster, &nodes, &mut all);
    assert_eq!(
        all,
        each,
        "{}: score_all and score disagree on {pod:?}",
        policy.name()
    );
    scorer.normalise(&mut all);
    Some(all)
}

/// A cluster of up to 70 random nodes with up to 150 random pods on them.
#[must_use]
pub fn random_cluster(random: &mut fastrand::Rng) -> Cluster {
    let nodes: Vec<_> = (0..random.usize(1..70))
        .map(|i| random_node(random, &format!("n{i}")))
        .collect();
    let pods: Vec<_> = (0..random.usize(..150))
        .map(|i| {
            let node = random.usize(..nodes.len());
            let pod = random_pod(random, &format!("p{i}")).on(&format!("n{node}"));
            if random.u8(..8) == 0 {
                pod.terminating()
            } else {
                pod
            }
        })
        .collect();
    let mut cluster = cluster_of(&nodes, &pods);
    let team = BTreeMap::from([("team".to_owned(), "a".to_owned())]);
    cluster.set_namespace(["default", "other"][random.usize(..2)], &team);
    cluster
}

/// A node with random resources, labels and taints.
pub fn random_node(random: &mut fastrand::Rng, name: &str) -> NodeBuilder {
    let mut node = node(name)
        .cpu(random.i64(0..8) * 500)
        .memory(random.i64(0..8) << 28)
        .pods(random.i64(0..6));
    node = node.label("kubernetes.io/hostname", name);
    for (key, values) in [("zone", 3), ("disk", 2), ("gen", 4)] {
        if random.bool() {
            node = node.label(key, &random.u32(..values).to_string());
        }
    }
    for key in ["a", "b"] {
        if random.u8(..4) == 0 {
            let effect = ["NoSchedule", "PreferNoSchedule", "NoExecute"][random.usize(..3)];
            node = node.taint(key, &random.u32(..2).to_string(), effect);
        }
    }
    if random.bool() {
        node = node.gpu(random.i64(0..4));
    }
    if random.u8(..8) == 0 {
        node.unschedulable()
    } else {
        node
    }
}

/// A pod with random requests, ports, tolerations, affinity and topology spread constraints.
pub fn random_pod(random: &mut fastrand::Rng, name: &str) -> PodBuilder {
    let mut pod = pod(name).priority(random.i32(0..3));
    if random.bool() {
        pod = pod.cpu(random.i64(0..6) * 250);
    }
    if random.bool() {
        pod = pod.memory(random.i64(0..6) << 27);
    }
    if random.u8(..6) == 0 {
        pod = pod.gpu(random.i64(0..3));
    }
    if random.u8(..6) == 0 {
        let address = ["", "127.0.0.1"][random.usize(..2)];
        pod = pod.host_port(address, ["TCP", "UDP"][random.usize(..2)], random.i32(80..83));
    }
    if random.bool() {
        let operator = ["Exists", "Equal"][random.usize(..2)];
        let value = if operator == "Equal" { "1" } else { "" };
        let effect = ["", "NoSchedule", "PreferNoSchedule"][random.usize(..3)];
        pod = pod.toleration(
            ["a", "b", ""][random.usize(..if operator == "Exists" { 3 } else { 2 })],
            operator,
            value,
            effect,
        );
    }
    if random.u8(..5) == 0 {
        pod = pod.node_selector("zone", &random.u32(..4).to_string());
    }
    if random.u8(..4) == 0 {
        pod = pod.required_node_affinity((0..random.usize(1..3)).map(|_| random_term(random)).collect());
    }
    for _ in 0..random.usize(..3) {
        pod = pod.preferred_node_affinity(random.i32(1..100), random_term(random));
    }
    if random.u8(..4) == 0 {
        pod = pod.namespace("other");
    }
    for key in ["app", "rev"] {
        if random.u8(..3) != 0 {
            pod = pod.label(key, &random.u32(..2).to_string());
        }
    }
    with_random_neighbours(random, pod)
}

/// Adds random topology spread constraints, pod affinity and anti-affinity: none to most pods.
fn with_random_neighbours(random: &mut fastrand::Rng, mut pod: PodBuilder) -> PodBuilder {
    for when in ["DoNotSchedule", "ScheduleAnyway"] {
        while random.u8(..6) == 0 {
            pod = pod.spread(random_spread(random, when));
        }
    }
    if random.u8(..8) == 0 {
        pod = pod.pod_affinity(random_pod_term(random));
    }
    if random.u8(..10) == 0 {
        pod = pod.pod_anti_affinity(random_pod_term(random));
    }
    while random.u8(..6) == 0 {
        pod = pod.preferred_pod_affinity(random.i32(1..=100), random_pod_term(random));
    }
    while random.u8(..6) == 0 {
        pod = pod.preferred_pod_anti_affinity(random.i32(1..=100), random_pod_term(random));
    }
    pod
}

fn random_topology(random: &mut fastrand::Rng) -> &'static str {
    match random.u8(..10) {
        0..5 => "zone",
        5..7 => "disk",
        7..9 => "kubernetes.io/hostname",
        _ => "nowhere",
    }
}

fn random_labels(random: &mut fastrand::Rng) -> Vec<(&'static str, &'static str)> {
    let all = [("app", "0"), ("app", "1"), ("rev", "0")];
    all[random.usize(..3)..][..random.usize(..2)].to_vec()
}

fn random_spread(random: &mut fastrand::Rng, when: &str) -> core::TopologySpreadConstraint {
    let policy = |random: &mut fastrand::Rng| {
        let policies = [None, Some("Honor"), Some("Ignore")];
        policies[random.usize(..3)].map(str::to_owned)
    };
    core::TopologySpreadConstraint {
        node_affinity_policy: policy(random),
        node_taints_policy: policy(random),
        min_domains: (random.u8(..3) == 0).then(|| random.i32(1..4)),
        match_label_keys: (random.u8(..3) == 0).then(|| vec!["rev".to_owned()]),
        ..sample::spread(
            random.i32(1..4),
            random_topology(random),
            when,
            &random_labels(random),
        )
    }
}

fn random_pod_term(random: &mut fastrand::Rng) -> core::PodAffinityTerm {
    let rev = |random: &mut fastrand::Rng| (random.u8(..4) == 0).then(|| vec!["rev".to_owned()]);
    core::PodAffinityTerm {
        match_label_keys: rev(random),
        mismatch_label_keys: rev(random),
        namespaces: (random.u8(..3) == 0).then(|| vec!["other".to_owned()]),
        namespace_selector: (random.u8(..4) == 0).then(|| sample::selector(&[("team", "a")])),
        ..sample::pod_term(random_topology(random), &random_labels(random))
    }
}

fn random_term(random: &mut fastrand::Rng) -> core::NodeSelectorTerm {
    let cases: [(&str, &str, &[&str]); 8] = [
        ("zone", "In", &["0", "2"]),
        ("zone", "NotIn", &["1"]),
        ("disk", "Exists", &[]),
        ("disk", "DoesNotExist", &[]),
        ("gen", "Gt", &["1"]),
        ("gen", "Lt", &["3"]),
        ("nowhere", "NotIn", &["x"]),
        ("kubernetes.io/hostname", "In", &["n0", "n1", "n2"]),
    ];
    if random.u8(..6) == 0 {
        let name = format!("n{}", random.u32(..5));
        return sample::field_term(&[("metadata.name", ["In", "NotIn"][random.usize(..2)], &[&name])]);
    }
    let picked: Vec<_> = (0..random.usize(1..3))
        .map(|_| cases[random.usize(..cases.len())])
        .collect();
    sample::term(&picked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Profile;

    #[test]
    fn the_built_in_policies_conform() {
        for (policy, _) in Profile::upstream().policies() {
            conformance(&**policy, 200);
        }
    }

    struct Liar;

    impl SchedulerPolicy for Liar {
        fn name(&self) -> &'static str {
            "Liar"
        }

        fn hint(&self, _: &PodInfo, _: &ClusterEvent<'_>) -> Hint {
            Hint::Skip
        }

        fn pre_filter<'c>(&'c self, _: &'c PodInfo, _: &'c Cluster) -> PreFilter<'c> {
            PreFilter::each(|node| match node.label("zone") {
                Some(_) => Ok(()),
                None => Err(Rejection::unresolvable("no zone")),
            })
        }
    }

    #[test]
    #[should_panic(expected = "and the policy does not say so")]
    fn a_dishonest_hint_is_found_out() {
        conformance(&Liar, 300);
    }
}
