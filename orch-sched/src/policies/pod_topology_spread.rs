use super::domains::Domains;
use super::node_selector::pod_matches;
use super::tolerations::first_untolerated;
use crate::cluster::{Cluster, Node, NodeId, NodeSet};
use crate::event::{ClusterEvent, EventSet};
use crate::object::{NodeInfo, PodInfo, Spread, SpreadConstraint, Taint};
use crate::policy::{
    Hint, MAX_NODE_SCORE, NodeFilter, NodeScore, PreFilter, PreScore, Rejection, SchedulerPolicy,
};

const UNEVEN: &str = "node(s) didn't match pod topology spread constraints";
const NO_DOMAIN: &str = "node(s) didn't match pod topology spread constraints (missing required label)";
const HOSTNAME: &str = "kubernetes.io/hostname";

/// Keeps to a pod's `topologySpreadConstraints`: takes nodes whose domains have not too many of the pod's like already, and
/// prefers those with fewer. Pods without constraints of their own are left to other policies.
#[derive(Clone, Copy, Debug, Default)]
pub struct PodTopologySpread;

fn constraints(pod: &PodInfo, spread: Spread) -> Vec<&SpreadConstraint> {
    pod.spread.iter().filter(|one| one.spread == spread).collect()
}

/// Only nodes in a domain of each constraint count.
fn in_all_domains(constraints: &[&SpreadConstraint], node: &NodeInfo) -> bool {
    constraints
        .iter()
        .all(|one| node.labels.contains_key(&one.topology_key))
}

/// Whether the constraint looks at the node, by its inclusion policies.
fn includes(constraint: &SpreadConstraint, pod: &PodInfo, node: &NodeInfo) -> bool {
    (!constraint.honours_node_affinity || pod_matches(pod, node))
        && (!constraint.honours_node_taints
            || first_untolerated(&node.taints, &pod.tolerations, Taint::repels).is_none())
}

/// The pods on a node that count. Upstream has the selector that selects everything count none, and pods that are being
/// deleted do not count.
fn matching(constraint: &SpreadConstraint, pod: &PodInfo, node: Node<'_>) -> i64 {
    if constraint.selector.is_everything() {
        return 0;
    }
    let counts = |other: &PodInfo| {
        !other.terminating && other.namespace == pod.namespace && constraint.selector.matches(&other.labels)
    };
    node.pods().iter().map(|other| i64::from(counts(other))).sum()
}

impl SchedulerPolicy for PodTopologySpread {
    fn name(&self) -> &'static str {
        "PodTopologySpread"
    }

    fn events(&self) -> EventSet {
        let pods = EventSet::ASSIGNED_POD_ADD
            | EventSet::ASSIGNED_POD_DELETE
            | EventSet::POD_LABEL
            | EventSet::POD_TOLERATION;
        let nodes = EventSet::NODE_ADD | EventSet::NODE_DELETE | EventSet::NODE_LABEL | EventSet::NODE_TAINT;
        pods | nodes
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent<'_>) -> Hint {
        match event {
            ClusterEvent::Node { old, new, .. } => {
                let constraints = constraints(pod, Spread::Required);
                let mut sides = [old, new].into_iter().flatten();
                Hint::queue_if(sides.any(|node| in_all_domains(&constraints, node)))
            }
            ClusterEvent::Pod { old, new, .. } => Hint::queue_if(pod_change_helps(pod, *old, *new)),
            ClusterEvent::Namespace { .. } => Hint::Skip,
        }
    }

    fn pre_filter<'c>(&'c self, pod: &'c PodInfo, cluster: &'c Cluster) -> PreFilter<'c> {
        let constraints = constraints(pod, Spread::Required);
        if constraints.is_empty() {
            return PreFilter::Skip;
        }
        PreFilter::Filter(Box::new(Required::new(pod, cluster, &constraints)))
    }

    fn pre_score<'c>(&'c self, pod: &'c PodInfo, cluster: &'c Cluster, feasible: &NodeSet) -> PreScore<'c> {
        let constraints = constraints(pod, Spread::Preferred);
        if constraints.is_empty() {
            return PreScore::Skip;
        }
        PreScore::Score(Box::new(Preferred::new(pod, cluster, &constraints, feasible)))
    }
}

fn pod_change_helps(pod: &PodInfo, old: Option<&PodInfo>, new: Option<&PodInfo>) -> bool {
    if new.is_some_and(|new| new.key == pod.key) {
        return true;
    }
    let counted = |constraint: &SpreadConstraint, other: Option<&PodInfo>| {
        other.is_some_and(|other| {
            other.namespace == pod.namespace && constraint.selector.matches(&other.labels)
        })
    };
    let constraints = constraints(pod, Spread::Required);
    let mut constraints = constraints.iter();
    constraints.any(|one| counted(one, old) != counted(one, new))
}

/// The constraints that must be kept, with the counts of their domains.
struct Required<'c>(Vec<Counted<'c>>);

struct Counted<'c> {
    constraint: &'c SpreadConstraint,
    domains: Domains<'c>,
    /// How many there are in the domain with the fewest.
    least: i64,
    /// 1 when the pod itself counts.
    itself: i64,
}

impl<'c> Required<'c> {
    fn new(pod: &'c PodInfo, cluster: &'c Cluster, constraints: &[&'c SpreadConstraint]) -> Self {
        let mut domains: Vec<_> = constraints
            .iter()
            .map(|one| Domains::new(cluster, &one.topology_key))
            .collect();
        for node in cluster.nodes() {
            let Some(info) = node.info().filter(|info| in_all_domains(constraints, info)) else {
                continue;
            };
            for (one, domains) in constraints.iter().zip(&mut domains) {
                if includes(one, pod, info) {
                    domains.add(node.id(), matching(one, pod, node));
                }
            }
        }
        let counted = constraints
            .iter()
            .zip(domains)
            .map(|(constraint, domains)| Counted {
                constraint,
                least: if domains.len() < constraint.min_domains {
                    0
                } else {
                    domains.least().unwrap_or(0)
                },
                domains,
                itself: i64::from(constraint.selector.matches(&pod.labels)),
            });
        Self(counted.collect())
    }
}

impl NodeFilter for Required<'_> {
    fn filter(&self, node: Node<'_>) -> Result<(), Rejection> {
        for one in &self.0 {
            if !one.domains.has(node.id()) {
                return Err(Rejection::unresolvable(NO_DOMAIN));
            }
            let there = one.domains.sum(node.id()).unwrap_or(0);
            if there + one.itself - one.least > one.constraint.max_skew {
                return Err(Rejection::resolvable(UNEVEN));
            }
        }
        Ok(())
    }
}

/// The constraints that had better be kept, with the counts of the domains that feasible nodes are in.
struct Preferred<'c> {
    pod: &'c PodInfo,
    constraints: Vec<Weighed<'c>>,
    /// Feasible nodes in a domain of each constraint; the others get 0.
    scored: NodeSet,
}

struct Weighed<'c> {
    constraint: &'c SpreadConstraint,
    domains: Domains<'c>,
    /// Evens out that constraints with many domains have fewer pods in each.
    weight: f64,
}

impl Weighed<'_> {
    /// Domains of one node each are counted as they are scored.
    fn by_node(&self) -> bool {
        self.constraint.topology_key == HOSTNAME
    }
}

impl<'c> Preferred<'c> {
    /// What a node gets that is not scored, until normalised. Scores are never below 0.
    const NOT_SCORED: i64 = -1;

    fn new(
        pod: &'c PodInfo,
        cluster: &'c Cluster,
        constraints: &[&'c SpreadConstraint],
        feasible: &NodeSet,
    ) -> Self {
        let eligible = |id: &NodeId| {
            let info = cluster.node(*id).info();
            info.is_some_and(|info| in_all_domains(constraints, info))
        };
        let scored: NodeSet = feasible.iter().filter(eligible).collect();
        let weighed = |constraint: &&'c SpreadConstraint| {
            let mut domains = Domains::new(cluster, &constraint.topology_key);
            scored.iter().for_each(|id| domains.add(id, 0));
            let known = if constraint.topology_key == HOSTNAME {
                scored.len()
            } else {
                domains.len()
            };
            Weighed {
                constraint,
                domains,
                weight: weight(known),
            }
        };
        let mut this = Self {
            pod,
            constraints: constraints.iter().map(weighed).collect(),
            scored,
        };
        for id in cluster.present().iter().filter(eligible) {
            this.count(cluster.node(id));
        }
        this
    }

    fn count(&mut self, node: Node<'_>) {
        let Some(info) = node.info() else { return };
        for one in self.constraints.iter_mut().filter(|one| !one.by_node()) {
            if one.domains.sum(node.id()).is_some() && includes(one.constraint, self.pod, info) {
                one.domains
                    .add(node.id(), matching(one.constraint, self.pod, node));
            }
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "upstream scores in floating point")]
fn weight(domains: usize) -> f64 {
    ((domains + 2) as f64).ln()
}

impl NodeScore for Preferred<'_> {
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "upstream scores in floating point"
    )]
    fn score(&self, node: Node<'_>) -> i64 {
        if !self.scored.contains(node.id()) {
            return Self::NOT_SCORED;
        }
        let part = |one: &Weighed<'_>| {
            let count = if one.by_node() {
                matching(one.constraint, self.pod, node)
            } else {
                one.domains.sum(node.id()).unwrap_or(0)
            };
            count as f64 * one.weight + (one.constraint.max_skew - 1) as f64
        };
        self.constraints.iter().map(part).sum::<f64>().round() as i64
    }

    fn normalise(&self, scores: &mut [i64]) {
        let scored = || scores.iter().copied().filter(|score| *score != Self::NOT_SCORED);
        let (least, most) = (scored().min().unwrap_or(0), scored().max().unwrap_or(0));
        for score in scores {
            *score = match *score {
                Self::NOT_SCORED => 0,
                _ if most == 0 => MAX_NODE_SCORE,
                score => MAX_NODE_SCORE * (most + least - score) / most,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{NodeBuilder, PodBuilder, node, pod, spread};
    use crate::testkit::{filtered_among, scored_among};
    use k8s_openapi::api::core::v1 as core;

    /// Two nodes in zone x, one in y, one in none.
    fn nodes() -> [NodeBuilder; 4] {
        let named = |name: &str| node(name).label(HOSTNAME, name);
        [
            named("x1").label("zone", "x"),
            named("x2").label("zone", "x"),
            named("y1").label("zone", "y"),
            named("none"),
        ]
    }

    /// So many pods `app=web` on each node.
    fn web(counts: &[(&str, usize)]) -> Vec<PodBuilder> {
        let on = |(node, count): &(&'static str, usize)| {
            let node = *node;
            (0..*count).map(move |i| pod(&format!("{node}-{i}")).label("app", "web").on(node))
        };
        let counts: Vec<(&'static str, usize)> = counts
            .iter()
            .map(|(node, count)| {
                let all = ["x1", "x2", "y1", "none"];
                (all[all.iter().position(|n| n == node).unwrap()], *count)
            })
            .collect();
        counts.iter().flat_map(on).collect()
    }

    fn hard(key: &str) -> core::TopologySpreadConstraint {
        spread(1, key, "DoNotSchedule", &[("app", "web")])
    }

    fn incoming(constraint: core::TopologySpreadConstraint) -> PodBuilder {
        pod("p").label("app", "web").spread(constraint)
    }

    /// `+` takes the pod, `-` is uneven, `?` misses the label.
    fn verdicts(pod: &PodBuilder, nodes: &[NodeBuilder], there: &[PodBuilder]) -> String {
        let verdict = |verdict: &Result<(), Rejection>| match verdict {
            Ok(()) => '+',
            Err(why) if *why == Rejection::resolvable(UNEVEN) => '-',
            Err(why) if *why == Rejection::unresolvable(NO_DOMAIN) => '?',
            Err(why) => panic!("{why}"),
        };
        filtered_among(&PodTopologySpread, &pod.build(), nodes, there)
            .iter()
            .map(verdict)
            .collect()
    }

    #[test]
    fn no_domain_gets_more_than_max_skew_above_the_least() {
        let cases: [(&[(&str, usize)], &str); 5] = [
            (&[], "+++?"),
            (&[("x1", 1)], "--+?"),
            (&[("x1", 1), ("y1", 1)], "+++?"),
            (&[("x1", 1), ("x2", 1), ("y1", 1)], "--+?"),
            (&[("none", 5)], "+++?"),
        ];
        for (there, expected) in cases {
            assert_eq!(
                verdicts(&incoming(hard("zone")), &nodes(), &web(there)),
                expected,
                "{there:?}"
            );
        }
        let skewed = core::TopologySpreadConstraint {
            max_skew: 2,
            ..hard("zone")
        };
        assert_eq!(verdicts(&incoming(skewed), &nodes(), &web(&[("x1", 1)])), "+++?");
    }

    #[test]
    fn messages_are_upstreams() {
        assert_eq!(UNEVEN, "node(s) didn't match pod topology spread constraints");
        assert_eq!(NO_DOMAIN, format!("{UNEVEN} (missing required label)"));
    }

    #[test]
    fn all_constraints_must_hold_and_nodes_out_of_one_topology_count_in_none() {
        let both = incoming(hard("zone")).spread(hard(HOSTNAME));
        assert_eq!(verdicts(&both, &nodes(), &web(&[("x1", 1), ("y1", 1)])), "-+-?");
    }

    #[test]
    fn a_pod_that_is_none_of_its_kind_does_not_add_to_the_skew() {
        let other = pod("p").label("app", "db").spread(hard("zone"));
        assert_eq!(verdicts(&other, &nodes(), &web(&[("x1", 1)])), "+++?");
        assert_eq!(verdicts(&other, &nodes(), &web(&[("x1", 2)])), "--+?");
    }

    #[test]
    fn pods_that_leave_or_are_of_other_namespaces_do_not_count() {
        let there = [
            pod("a").label("app", "web").terminating().on("x1"),
            pod("b").label("app", "web").namespace("other").on("x1"),
        ];
        assert_eq!(verdicts(&incoming(hard("zone")), &nodes(), &there), "+++?");
    }

    #[test]
    fn too_few_domains_are_as_if_one_were_empty() {
        let three = core::TopologySpreadConstraint {
            min_domains: Some(3),
            ..hard("zone")
        };
        let there = web(&[("x1", 1), ("y1", 1)]);
        assert_eq!(verdicts(&incoming(three.clone()), &nodes(), &there), "---?");
        let third = nodes().into_iter().chain([node("z1").label("zone", "z")]);
        assert_eq!(
            verdicts(&incoming(three), &third.collect::<Vec<_>>(), &there),
            "---?+"
        );
    }

    #[test]
    fn inclusion_policies_say_which_nodes_make_domains() {
        let tainted = [
            node("x1").label("zone", "x"),
            node("y1").label("zone", "y").taint("k", "", "NoSchedule"),
        ];
        let there = web(&[("x1", 1)]);
        assert_eq!(verdicts(&incoming(hard("zone")), &tainted, &there), "-+");
        let honour = core::TopologySpreadConstraint {
            node_taints_policy: Some("Honor".to_owned()),
            ..hard("zone")
        };
        assert_eq!(verdicts(&incoming(honour), &tainted, &there), "++");

        let selected = [
            node("x1").label("zone", "x").label("disk", "ssd"),
            node("y1").label("zone", "y"),
        ];
        let wanting = incoming(hard("zone")).node_selector("disk", "ssd");
        assert_eq!(verdicts(&wanting, &selected, &there), "++");
        let ignore = core::TopologySpreadConstraint {
            node_affinity_policy: Some("Ignore".to_owned()),
            ..hard("zone")
        };
        let ignoring = incoming(ignore).node_selector("disk", "ssd");
        assert_eq!(verdicts(&ignoring, &selected, &there), "-+");
    }

    #[test]
    fn each_revision_is_spread_by_itself() {
        let by_revision = core::TopologySpreadConstraint {
            match_label_keys: Some(vec!["rev".to_owned()]),
            ..hard("zone")
        };
        let there = [pod("old").label("app", "web").label("rev", "1").on("x1")];
        let newer = |rev: &str| incoming(by_revision.clone()).label("rev", rev);
        assert_eq!(verdicts(&newer("1"), &nodes(), &there), "--+?");
        assert_eq!(verdicts(&newer("2"), &nodes(), &there), "+++?");
    }

    #[test]
    fn a_selector_of_everything_counts_nothing_as_upstream_has_it() {
        let all = spread(1, "zone", "DoNotSchedule", &[]);
        assert_eq!(verdicts(&incoming(all), &nodes(), &web(&[("x1", 5)])), "+++?");
    }

    #[test]
    fn domains_with_fewer_pods_score_higher_and_nodes_in_none_score_nothing() {
        let soft = |key: &str| spread(1, key, "ScheduleAnyway", &[("app", "web")]);
        let score = |pod: PodBuilder, there: &[(&str, usize)]| {
            scored_among(&PodTopologySpread, &pod.build(), &nodes(), &web(there))
        };
        assert_eq!(score(incoming(soft("zone")), &[]), [100, 100, 100, 0]);
        // Two domains: a pod weighs ln 4. x: 3 * 1.386 = 4.16, y: 1.386; both rounded.
        assert_eq!(
            score(incoming(soft("zone")), &[("x1", 2), ("x2", 1), ("y1", 1)]),
            [25, 25, 100, 0]
        );
        // Four hosts: a pod weighs ln 6 = 1.79.
        assert_eq!(
            score(incoming(soft(HOSTNAME)), &[("x1", 2), ("x2", 1)]),
            [0, 50, 100, 100]
        );
        assert_eq!(score(pod("p"), &[("x1", 2)]), [0; 4]);
    }

    #[test]
    fn only_what_moves_the_counts_helps() {
        let waiting = incoming(hard("zone")).build();
        let helps = |event: Option<ClusterEvent<'_>>| {
            PodTopologySpread.hint(&waiting, &event.unwrap()) == Hint::Queue
        };
        let (web, db) = (
            pod("w").label("app", "web").build(),
            pod("d").label("app", "db").build(),
        );
        assert!(helps(Some(ClusterEvent::pod_assigned(&web))));
        assert!(helps(Some(ClusterEvent::assigned_pod_deleted(&web))));
        assert!(!helps(Some(ClusterEvent::assigned_pod_deleted(&db))));
        assert!(helps(ClusterEvent::pod_updated(&db, &web)));
        let elsewhere = pod("w").label("app", "web").namespace("other").build();
        assert!(!helps(Some(ClusterEvent::assigned_pod_deleted(&elsewhere))));
        let (bare, zoned) = (node("n").build(), node("n").label("zone", "z").build());
        assert!(helps(ClusterEvent::node(None, &zoned)));
        assert!(helps(ClusterEvent::node(Some(&bare), &zoned)));
        assert!(helps(Some(ClusterEvent::node_deleted(&zoned))));
        assert!(!helps(ClusterEvent::node(None, &bare)));
    }
}
