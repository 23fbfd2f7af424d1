//! What each policy says about each node for one pod.

use crate::cluster::{Cluster, NodeSet};
use crate::object::PodInfo;
use crate::placement::{self, Prepared};
use crate::policy::Rejection;
use crate::profile::Profile;

/// The verdicts and scores of all policies on all nodes for one pod.
#[derive(Clone, Debug, Default)]
pub struct Explanation {
    /// One entry a node, by row.
    pub nodes: Vec<NodeExplanation>,
    /// Set when a policy ruled out all nodes at once: its message.
    pub ruled_out: Option<String>,
    /// Set when a policy does not let the pod wait for its turn: the policy and its reason.
    pub gated: Option<(String, String)>,
}

/// What the policies say about one node.
#[derive(Clone, Debug, Default)]
pub struct NodeExplanation {
    /// The node's name.
    pub name: String,
    /// The filters' verdicts, by policy, in the profile's order.
    pub verdicts: Vec<(String, Result<(), Rejection>)>,
    /// The scores, by policy, in the profile's order; only for nodes that take the pod.
    pub scores: Vec<PolicyScore>,
    /// The weighted sum of the scores.
    pub total: i64,
}

/// One policy's score of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyScore {
    /// The policy.
    pub policy: String,
    /// Its score, 0 to 100.
    pub score: i64,
    /// How many times it counts.
    pub weight: i64,
}

impl NodeExplanation {
    /// True when no policy rejects the node.
    #[must_use]
    pub fn is_feasible(&self) -> bool {
        self.verdicts.iter().all(|(_, verdict)| verdict.is_ok())
    }
}

/// Asks all policies of a profile about all nodes, also those that an earlier policy ruled out.
#[must_use]
pub fn explain(profile: &Profile, cluster: &Cluster, pod: &PodInfo) -> Explanation {
    let gated = profile.policies().find_map(|(policy, _)| {
        let rejection = policy.pre_enqueue(pod).err()?;
        Some((policy.name().to_owned(), rejection.to_string()))
    });
    let prepared = match Prepared::new(profile, cluster, pod) {
        Ok(prepared) => prepared,
        Err(diagnosis) => {
            return Explanation {
                ruled_out: diagnosis.pre_filter,
                gated,
                ..Explanation::default()
            };
        }
    };
    let name = |at: usize| profile.entries()[at].policy.name().to_owned();
    let mut nodes: Vec<NodeExplanation> = cluster
        .nodes()
        .map(|node| NodeExplanation {
            name: node.name().to_owned(),
            verdicts: prepared
                .verdicts(node)
                .into_iter()
                .map(|(at, verdict)| (name(at), verdict))
                .collect(),
            ..NodeExplanation::default()
        })
        .collect();
    let feasible: NodeSet = nodes
        .iter()
        .zip(cluster.nodes())
        .filter(|(said, _)| said.is_feasible())
        .map(|(_, node)| node.id())
        .collect();
    for (at, scores) in placement::scores_by_policy(profile, cluster, pod, &feasible) {
        let weight = profile.entries()[at].weight;
        for (node, score) in nodes.iter_mut().filter(|node| node.is_feasible()).zip(scores) {
            node.total += weight * score;
            node.scores.push(PolicyScore {
                policy: name(at),
                score,
                weight,
            });
        }
    }
    Explanation {
        nodes,
        ruled_out: None,
        gated,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{node, pod};

    #[test]
    fn every_policy_is_heard_on_every_node() {
        let mut cluster = Cluster::new();
        cluster.set_node(node("good").build());
        cluster.set_node(
            node("bad")
                .cpu(100)
                .taint("k", "", "NoSchedule")
                .unschedulable()
                .build(),
        );
        let explanation = explain(&Profile::upstream(), &cluster, &pod("p").cpu(1000).build());
        let [good, bad] = &explanation.nodes[..] else {
            panic!("two nodes")
        };
        assert!(good.is_feasible() && good.total > 0 && bad.scores.is_empty());
        let against: Vec<_> = bad
            .verdicts
            .iter()
            .filter(|(_, v)| v.is_err())
            .map(|(p, _)| p.as_str())
            .collect();
        assert_eq!(
            against,
            ["NodeUnschedulable", "TaintToleration", "NodeResourcesFit"]
        );
        let weighted: i64 = good.scores.iter().map(|s| s.score * s.weight).sum();
        assert_eq!(weighted, good.total);
    }
}
