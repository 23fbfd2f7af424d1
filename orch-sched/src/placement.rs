//! One pod's way through filters and scores.

use crate::cluster::{Cluster, Node, NodeId, NodeSet};
use crate::diagnosis::Diagnosis;
use crate::object::PodInfo;
use crate::policy::{NodeFilter, NodeScore, PreFilter, PreScore, Rejection};
use crate::profile::{PolicySet, Profile};
use std::sync::Arc;

/// Where a pod goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Placement {
    /// The node.
    pub(crate) node: NodeId,
    /// The weighted sum of its scores; 0 when it was the only node.
    pub(crate) score: i64,
}

/// Buffers that are used again from pod to pod.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    nodes: Vec<NodeId>,
    scores: Vec<i64>,
    totals: Vec<i64>,
}

/// Chooses the node with the highest score among all that take the pod; at random among equals.
pub(crate) fn place(
    profile: &Profile,
    cluster: &mut Cluster,
    pod: &Arc<PodInfo>,
    scratch: &mut Scratch,
    random: &mut fastrand::Rng,
) -> Result<Placement, Diagnosis> {
    let feasible = feasible(profile, cluster, pod)?;
    scratch.nodes.clear();
    scratch.nodes.extend(feasible.iter());
    if let [only] = scratch.nodes[..] {
        return Ok(Placement { node: only, score: 0 });
    }
    score(profile, cluster, pod, &feasible, scratch);
    let (node, score) = best(&scratch.nodes, &scratch.totals, random);
    Ok(Placement { node, score })
}

fn best(nodes: &[NodeId], totals: &[i64], random: &mut fastrand::Rng) -> (NodeId, i64) {
    let score = totals
        .iter()
        .copied()
        .max()
        .expect("at least one node is feasible");
    let equals = totals.iter().filter(|total| **total == score).count();
    let chosen = random.usize(..equals);
    let at = totals
        .iter()
        .enumerate()
        .filter(|(_, total)| **total == score)
        .map(|(at, _)| at)
        .nth(chosen);
    (nodes[at.expect("the chosen is one of the equals")], score)
}

/// All nodes that take the pod. A node that the pod is nominated to goes before all others.
pub(crate) fn feasible(
    profile: &Profile,
    cluster: &mut Cluster,
    pod: &Arc<PodInfo>,
) -> Result<NodeSet, Diagnosis> {
    if cluster.is_empty() {
        return Err(Diagnosis::new(0));
    }
    if let Some(node) = cluster
        .nominated_node(&pod.key)
        .and_then(|name| cluster.find(name))
        && fits_beside_nominated(profile, cluster, pod, node).is_ok()
    {
        return Ok([node].into_iter().collect());
    }
    let mut candidates = match Prepared::new(profile, cluster, pod) {
        Ok(prepared) => prepared.narrow(cluster),
        Err(diagnosis) => return Err(diagnosis),
    };
    let mut reserved = cluster.nodes_with_nominations();
    reserved.intersect(&candidates);
    let mut refused = Vec::new();
    for node in reserved.iter() {
        if let Err((policy, rejection)) = fits_beside_nominated(profile, cluster, pod, node) {
            candidates.remove(node);
            refused.push((policy, node, rejection));
        }
    }
    if candidates.is_empty() {
        return Err(diagnose(profile, cluster, pod, refused));
    }
    Ok(candidates)
}

fn diagnose(
    profile: &Profile,
    cluster: &Cluster,
    pod: &PodInfo,
    refused: Vec<(usize, NodeId, Rejection)>,
) -> Diagnosis {
    let mut diagnosis = Diagnosis::new(cluster.len());
    let prepared = match Prepared::new(profile, cluster, pod) {
        Ok(prepared) => prepared,
        Err(diagnosis) => return diagnosis,
    };
    for node in cluster.nodes() {
        if let Err((policy, rejection)) = prepared.filter(node) {
            diagnosis.reject(policy, node.id(), rejection);
        }
    }
    for policy in prepared.narrowed_by.iter() {
        diagnosis.rejected_by.insert(policy);
    }
    for (policy, node, rejection) in refused {
        diagnosis.reject(policy, node, rejection);
    }
    diagnosis
}

/// Asks the filters about one node, with and without the pods that room is reserved for there.
pub(crate) fn fits_beside_nominated(
    profile: &Profile,
    cluster: &mut Cluster,
    pod: &PodInfo,
    node: NodeId,
) -> Result<(), (usize, Rejection)> {
    let nominated: Vec<_> = cluster
        .nominated_before(pod, node)
        .into_iter()
        .filter(|n| cluster.node_of(&n.key).is_none())
        .collect();
    nominated
        .iter()
        .for_each(|other| cluster.assume(other.clone(), node));
    let beside = fits(profile, cluster, pod, node);
    nominated.iter().for_each(|other| {
        cluster.forget(&other.key);
    });
    match beside {
        Ok(()) if !nominated.is_empty() => fits(profile, cluster, pod, node),
        verdict => verdict,
    }
}

/// Asks the filters about one node.
pub(crate) fn fits(
    profile: &Profile,
    cluster: &Cluster,
    pod: &PodInfo,
    node: NodeId,
) -> Result<(), (usize, Rejection)> {
    for (at, entry) in profile.entries().iter().enumerate() {
        let verdict = match entry.policy.pre_filter(pod, cluster) {
            PreFilter::Skip => Ok(()),
            PreFilter::Filter(filter) => filter.filter(cluster.node(node)),
            PreFilter::Only(nodes, _) if !nodes.contains(node) => Err(not_among(&[entry.policy.name()])),
            PreFilter::Only(_, filter) => filter.map_or(Ok(()), |f| f.filter(cluster.node(node))),
            PreFilter::Reject(rejection) => Err(rejection),
        };
        verdict.map_err(|rejection| (at, rejection))?;
    }
    Ok(())
}

/// The filters of all policies for one pod.
pub(crate) struct Prepared<'c> {
    profile: &'c Profile,
    filters: Vec<(usize, Box<dyn NodeFilter + 'c>)>,
    only: Option<NodeSet>,
    narrowed_by: PolicySet,
}

impl<'c> Prepared<'c> {
    pub(crate) fn new(
        profile: &'c Profile,
        cluster: &'c Cluster,
        pod: &'c PodInfo,
    ) -> Result<Self, Diagnosis> {
        let mut prepared = Self {
            profile,
            filters: Vec::new(),
            only: None,
            narrowed_by: PolicySet::default(),
        };
        for (at, entry) in profile.entries().iter().enumerate() {
            match entry.policy.pre_filter(pod, cluster) {
                PreFilter::Skip => {}
                PreFilter::Filter(filter) => prepared.filters.push((at, filter)),
                PreFilter::Only(nodes, filter) => {
                    prepared.filters.extend(filter.map(|filter| (at, filter)));
                    prepared.narrow_to(at, nodes);
                    if prepared.only.as_ref().is_some_and(NodeSet::is_empty) {
                        return Err(prepared.ruled_out(cluster));
                    }
                }
                PreFilter::Reject(rejection) => return Err(ruled_out(cluster, at, &rejection)),
            }
        }
        Ok(prepared)
    }

    /// The nodes that pass all filters.
    pub(crate) fn narrow(&self, cluster: &Cluster) -> NodeSet {
        let mut candidates = cluster.present().clone();
        if let Some(only) = &self.only {
            candidates.intersect(only);
        }
        for (_, filter) in &self.filters {
            filter.narrow(cluster, &mut candidates);
        }
        candidates
    }

    /// The verdict on one node: that of the first policy that rejects it.
    pub(crate) fn filter(&self, node: Node<'_>) -> Result<(), (usize, Rejection)> {
        if let Some(only) = &self.only
            && !only.contains(node.id())
        {
            let first = self
                .narrowed_by
                .iter()
                .next()
                .expect("a policy narrowed the nodes down");
            return Err((first, not_among(&self.profile.names(self.narrowed_by))));
        }
        self.filters
            .iter()
            .try_for_each(|(at, filter)| filter.filter(node).map_err(|rejection| (*at, rejection)))
    }

    /// What each policy says about one node, whatever those before it said.
    pub(crate) fn verdicts(&self, node: Node<'_>) -> Vec<(usize, Result<(), Rejection>)> {
        let excluded = self.only.as_ref().is_some_and(|only| !only.contains(node.id()));
        let by: Vec<usize> = if excluded {
            self.narrowed_by.iter().collect()
        } else {
            Vec::new()
        };
        let mut verdicts: Vec<_> = by
            .iter()
            .map(|at| (*at, Err(not_among(&self.profile.names(self.narrowed_by)))))
            .collect();
        let others = self.filters.iter().filter(|(at, _)| !by.contains(at));
        verdicts.extend(others.map(|(at, filter)| (*at, filter.filter(node))));
        verdicts.sort_by_key(|(at, _)| *at);
        verdicts
    }

    fn narrow_to(&mut self, policy: usize, mut nodes: NodeSet) {
        self.narrowed_by.insert(policy);
        if let Some(only) = &self.only {
            nodes.intersect(only);
        }
        self.only = Some(nodes);
    }

    /// The policies that narrow the nodes down leave none between them.
    fn ruled_out(&self, cluster: &Cluster) -> Diagnosis {
        let names = self.profile.names(self.narrowed_by);
        let message = match names[..] {
            [one] => format!("node(s) didn't satisfy plugin {one}"),
            _ => format!(
                "node(s) didn't satisfy plugin(s) [{}] simultaneously",
                names.join(" ")
            ),
        };
        Diagnosis {
            rejected_by: self.narrowed_by,
            pre_filter: Some(message),
            ..Diagnosis::new(cluster.len())
        }
    }
}

fn not_among(policies: &[&str]) -> Rejection {
    Rejection::unresolvable(format!(
        "node(s) didn't satisfy plugin(s) [{}]",
        policies.join(" ")
    ))
}

fn ruled_out(cluster: &Cluster, policy: usize, rejection: &Rejection) -> Diagnosis {
    let mut diagnosis = Diagnosis::new(cluster.len());
    diagnosis.rejected_by.insert(policy);
    diagnosis.pre_filter = Some(rejection.to_string());
    if rejection.resolvable {
        diagnosis.resolvable = cluster.present().clone();
    }
    diagnosis
}

/// Fills `scratch.totals` with the weighted sums for `scratch.nodes`.
fn score(profile: &Profile, cluster: &Cluster, pod: &PodInfo, feasible: &NodeSet, scratch: &mut Scratch) {
    scratch.totals.clear();
    scratch.totals.resize(scratch.nodes.len(), 0);
    for entry in profile.entries() {
        let PreScore::Score(scorer) = entry.policy.pre_score(pod, cluster, feasible) else {
            continue;
        };
        scratch.scores.clear();
        scratch.scores.resize(scratch.nodes.len(), 0);
        normalised(&*scorer, cluster, &scratch.nodes, &mut scratch.scores);
        for (total, score) in scratch.totals.iter_mut().zip(&scratch.scores) {
            *total += entry.weight * score;
        }
    }
}

fn normalised(scorer: &dyn NodeScore, cluster: &Cluster, nodes: &[NodeId], scores: &mut [i64]) {
    scorer.score_all(cluster, nodes, scores);
    scorer.normalise(scores);
}

/// The scores of each policy that has any, for `nodes`, before weighting.
pub(crate) fn scores_by_policy(
    profile: &Profile,
    cluster: &Cluster,
    pod: &PodInfo,
    feasible: &NodeSet,
) -> Vec<(usize, Vec<i64>)> {
    let nodes: Vec<NodeId> = feasible.iter().collect();
    let mut all = Vec::new();
    for (at, entry) in profile.entries().iter().enumerate() {
        if let PreScore::Score(scorer) = entry.policy.pre_score(pod, cluster, feasible) {
            let mut scores = vec![0; nodes.len()];
            normalised(&*scorer, cluster, &nodes, &mut scores);
            all.push((at, scores));
        }
    }
    all
}
