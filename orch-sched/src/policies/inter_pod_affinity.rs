use super::domains::Topologies;
use crate::cluster::{Cluster, Node, NodeId, NodeSet};
use crate::event::{ClusterEvent, EventSet};
use crate::object::{AffinityTerm, PodAffinity, PodInfo, WeightedAffinityTerm};
use crate::policy::{
    Hint, MAX_NODE_SCORE, NodeFilter, NodeScore, PreFilter, PreScore, Rejection, SchedulerPolicy,
};

const NOT_NEAR: &str = "node(s) didn't match pod affinity rules";
const TOO_NEAR: &str = "node(s) didn't match pod anti-affinity rules";
const UNWANTED: &str = "node(s) didn't satisfy existing pods anti-affinity rules";

/// Takes nodes near the pods that a pod's affinity asks for and far from those that its anti-affinity asks against, keeps
/// to what the pods there ask against, and prefers by what either side prefers.
#[derive(Clone, Copy, Debug)]
pub struct InterPodAffinity {
    hard_pod_affinity_weight: i64,
    ignore_preferred_terms_of_existing_pods: bool,
}

impl Default for InterPodAffinity {
    fn default() -> Self {
        Self {
            hard_pod_affinity_weight: 1,
            ignore_preferred_terms_of_existing_pods: false,
        }
    }
}

impl InterPodAffinity {
    /// How much it counts for a pod that a pod there requires it to be near. 0 to 100, default 1.
    #[must_use]
    pub fn hard_pod_affinity_weight(mut self, weight: u8) -> Self {
        self.hard_pod_affinity_weight = i64::from(weight.min(100));
        self
    }

    /// Pods that prefer nothing themselves are not scored by what the pods there prefer. Default: they are.
    #[must_use]
    pub fn ignoring_preferred_terms_of_existing_pods(mut self) -> Self {
        self.ignore_preferred_terms_of_existing_pods = true;
        self
    }
}

fn about(term: &AffinityTerm, pod: &PodInfo, cluster: &Cluster) -> bool {
    term.matches(pod, || cluster.namespace_labels(&pod.namespace))
}

fn about_all(terms: &[AffinityTerm], pod: &PodInfo, cluster: &Cluster) -> bool {
    !terms.is_empty() && terms.iter().all(|term| about(term, pod, cluster))
}

fn affinity(pod: &PodInfo) -> impl Iterator<Item = &PodAffinity> {
    pod.pod_affinity.as_deref().into_iter()
}

fn required(pod: &PodInfo) -> &[AffinityTerm] {
    pod.pod_affinity.as_ref().map_or(&[], |all| &all.required)
}

fn required_anti(pod: &PodInfo) -> &[AffinityTerm] {
    pod.pod_affinity.as_ref().map_or(&[], |all| &all.required_anti)
}

impl SchedulerPolicy for InterPodAffinity {
    fn name(&self) -> &'static str {
        "InterPodAffinity"
    }

    fn events(&self) -> EventSet {
        let pods = EventSet::ASSIGNED_POD_ADD | EventSet::ASSIGNED_POD_DELETE | EventSet::POD_LABEL;
        let nodes = EventSet::NODE_ADD | EventSet::NODE_DELETE | EventSet::NODE_LABEL;
        pods | nodes | EventSet::NAMESPACE
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent<'_>) -> Hint {
        match event {
            // Which topologies the pods there ask about, the event does not say.
            ClusterEvent::Node { .. } => Hint::Queue,
            ClusterEvent::Pod { old, new, .. } => Hint::queue_if(pod_change_helps(pod, *old, *new)),
            ClusterEvent::Namespace { name } => {
                let selects = |term: &AffinityTerm| !term.namespace_selector.is_nothing();
                let selects = affinity(pod).flat_map(PodAffinity::terms).any(selects);
                Hint::queue_if(selects || pod.namespace == *name)
            }
        }
    }

    fn pre_filter<'c>(&'c self, pod: &'c PodInfo, cluster: &'c Cluster) -> PreFilter<'c> {
        let unwanted = unwanted(pod, cluster);
        let (near, far) = (required(pod), required_anti(pod));
        if unwanted.is_empty() && near.is_empty() && far.is_empty() {
            return PreFilter::Skip;
        }
        let mut filter = Required {
            near,
            far,
            first: about_all(near, pod, cluster),
            wanted: Topologies::default(),
            avoided: Topologies::default(),
            unwanted,
        };
        if !near.is_empty() || !far.is_empty() {
            for node in cluster.nodes() {
                filter.count(cluster, node);
            }
        }
        PreFilter::Filter(Box::new(filter))
    }

    fn pre_score<'c>(&'c self, pod: &'c PodInfo, cluster: &'c Cluster, _: &NodeSet) -> PreScore<'c> {
        let mut sums = Topologies::default();
        let own = pod.pod_affinity.as_deref();
        let own = own.filter(|own| !own.preferred.is_empty() || !own.preferred_anti.is_empty());
        if own.is_none() && self.ignore_preferred_terms_of_existing_pods {
            return PreScore::Skip;
        }
        if let Some(own) = own {
            for node in cluster.nodes() {
                for other in node.pods() {
                    count_preferred(&mut sums, own, other, cluster, node.id());
                }
            }
        }
        for (node, other) in cluster.pods_with_affinity() {
            for theirs in affinity(other) {
                for term in theirs.required.iter().filter(|term| about(term, pod, cluster)) {
                    sums.add(cluster, &term.topology_key, node, self.hard_pod_affinity_weight);
                }
                count_preferred(&mut sums, theirs, pod, cluster, node);
            }
        }
        if sums.is_empty() {
            return PreScore::Skip;
        }
        PreScore::Score(Box::new(Preferred(sums)))
    }
}

/// Adds what terms that prefer say about a pod, at the domains of a node.
fn count_preferred<'c>(
    sums: &mut Topologies<'c>,
    terms: &'c PodAffinity,
    about_whom: &PodInfo,
    cluster: &'c Cluster,
    node: NodeId,
) {
    let signed = |terms: &'c [WeightedAffinityTerm], sign: i64| terms.iter().map(move |term| (term, sign));
    for (one, sign) in signed(&terms.preferred, 1).chain(signed(&terms.preferred_anti, -1)) {
        if about(&one.term, about_whom, cluster) {
            sums.add(cluster, &one.term.topology_key, node, sign * one.weight);
        }
    }
}

/// Where pods are that ask against this one.
fn unwanted<'c>(pod: &PodInfo, cluster: &'c Cluster) -> Topologies<'c> {
    let mut sums = Topologies::default();
    for (node, other) in cluster.pods_with_affinity() {
        for term in required_anti(other) {
            if about(term, pod, cluster) {
                sums.add(cluster, &term.topology_key, node, 1);
            }
        }
    }
    sums
}

/// Which labels a namespace has, an event does not say: where that matters, it may help.
fn pod_change_helps(pod: &PodInfo, old: Option<&PodInfo>, new: Option<&PodInfo>) -> bool {
    if new.is_some_and(|new| new.key == pod.key) {
        return true;
    }
    let wanted =
        |other: &PodInfo| !required(pod).is_empty() && required(pod).iter().all(|term| term.may_match(other));
    let avoided = |other: &PodInfo| required_anti(pod).iter().any(|term| term.may_match(other));
    let avoids = |other: &PodInfo| required_anti(other).iter().any(|term| term.may_match(pod));
    match (old, new) {
        (None, None) => false,
        (None, Some(added)) => wanted(added),
        // When the last pod of a group leaves, the next may be the first again.
        (Some(gone), None) => avoided(gone) || avoids(gone) || wanted(gone),
        (Some(old), Some(new)) => wanted(old) != wanted(new) || avoided(old) && !avoided(new) || avoids(old),
    }
}

/// What a pod requires of the pods near it, and they of it.
struct Required<'c> {
    near: &'c [AffinityTerm],
    far: &'c [AffinityTerm],
    /// The pod is one of those it asks for: where there are none yet, it may be the first.
    first: bool,
    /// Pods that all terms of `near` are about, by the terms' topologies.
    wanted: Topologies<'c>,
    /// Pods that a term of `far` is about, by that term's topology.
    avoided: Topologies<'c>,
    /// Pods that ask against the pod, by their terms' topologies.
    unwanted: Topologies<'c>,
}

impl<'c> Required<'c> {
    fn count(&mut self, cluster: &'c Cluster, node: Node<'c>) {
        for other in node.pods() {
            if about_all(self.near, other, cluster) {
                for term in self.near {
                    self.wanted.add(cluster, &term.topology_key, node.id(), 1);
                }
            }
            for term in self.far.iter().filter(|term| about(term, other, cluster)) {
                self.avoided.add(cluster, &term.topology_key, node.id(), 1);
            }
        }
    }

    fn is_near(&self, node: Node<'_>) -> bool {
        let mut all_there = true;
        for term in self.near {
            if node.label(&term.topology_key).is_none() {
                return false;
            }
            all_there &= self.wanted.sum(&term.topology_key, node.id()) > 0;
        }
        all_there || self.first && self.wanted.is_empty()
    }
}

impl NodeFilter for Required<'_> {
    fn filter(&self, node: Node<'_>) -> Result<(), Rejection> {
        if !self.is_near(node) {
            return Err(Rejection::unresolvable(NOT_NEAR));
        }
        let near_avoided = |term: &AffinityTerm| self.avoided.sum(&term.topology_key, node.id()) > 0;
        if self.far.iter().any(near_avoided) {
            return Err(Rejection::resolvable(TOO_NEAR));
        }
        if self.unwanted.sums(node.id()).any(|pods| pods > 0) {
            return Err(Rejection::resolvable(UNWANTED));
        }
        Ok(())
    }
}

/// What speaks for and against each domain.
struct Preferred<'c>(Topologies<'c>);

impl NodeScore for Preferred<'_> {
    fn score(&self, node: Node<'_>) -> i64 {
        self.0.sums(node.id()).sum()
    }

    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "upstream scores in floating point"
    )]
    fn normalise(&self, scores: &mut [i64]) {
        let least = scores.iter().copied().min().unwrap_or(0);
        let range = scores.iter().copied().max().unwrap_or(0) - least;
        for score in scores {
            *score = if range > 0 {
                (MAX_NODE_SCORE as f64 * ((*score - least) as f64 / range as f64)) as i64
            } else {
                0
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{NodeBuilder, PodBuilder, node, pod, pod_term, selector};
    use crate::testkit::{cluster_of, filtered_among, scored_among};
    use k8s_openapi::api::core::v1 as core;
    use std::collections::BTreeMap;

    /// Two nodes in zone x, one in y, one in none.
    fn nodes() -> [NodeBuilder; 4] {
        [
            node("x1").label("zone", "x"),
            node("x2").label("zone", "x"),
            node("y1").label("zone", "y"),
            node("none"),
        ]
    }

    fn web() -> core::PodAffinityTerm {
        pod_term("zone", &[("app", "web")])
    }

    fn letter(verdict: &Result<(), Rejection>) -> char {
        match verdict {
            Ok(()) => '+',
            Err(why) if *why == Rejection::unresolvable(NOT_NEAR) => 'n',
            Err(why) if *why == Rejection::resolvable(TOO_NEAR) => 'f',
            Err(why) if *why == Rejection::resolvable(UNWANTED) => 'u',
            Err(why) => panic!("{why}"),
        }
    }

    /// `+` takes the pod, `n` is not near, `f` not far, `u` has pods that do not want it.
    fn verdicts(pod: &PodBuilder, there: &[PodBuilder]) -> String {
        let policy = InterPodAffinity::default();
        filtered_among(&policy, &pod.build(), &nodes(), there)
            .iter()
            .map(letter)
            .collect()
    }

    #[test]
    fn messages_are_upstreams() {
        assert_eq!(NOT_NEAR, "node(s) didn't match pod affinity rules");
        assert_eq!(TOO_NEAR, "node(s) didn't match pod anti-affinity rules");
        assert_eq!(
            UNWANTED,
            "node(s) didn't satisfy existing pods anti-affinity rules"
        );
    }

    #[test]
    fn affinity_takes_the_domains_of_matching_pods() {
        let wanting = pod("p").pod_affinity(web());
        let there = |on: &str| vec![pod("w").label("app", "web").on(on)];
        assert_eq!(verdicts(&wanting, &[]), "nnnn");
        assert_eq!(verdicts(&wanting, &there("x1")), "++nn");
        assert_eq!(verdicts(&wanting, &there("none")), "nnnn", "it is in no domain");
        let elsewhere = [pod("w").label("app", "web").namespace("other").on("x1")];
        assert_eq!(verdicts(&wanting, &elsewhere), "nnnn");
    }

    #[test]
    fn one_pod_must_match_all_terms_of_the_affinity() {
        let both = pod("p")
            .pod_affinity(web())
            .pod_affinity(pod_term("zone", &[("tier", "front")]));
        let apart = [
            pod("a").label("app", "web").on("x1"),
            pod("b").label("tier", "front").on("x1"),
        ];
        assert_eq!(verdicts(&both, &apart), "nnnn");
        let one = [pod("a").label("app", "web").label("tier", "front").on("x1")];
        assert_eq!(verdicts(&both, &one), "++nn");
    }

    #[test]
    fn the_first_of_a_group_may_go_to_any_domain() {
        let first = pod("p").label("app", "web").pod_affinity(web());
        assert_eq!(verdicts(&first, &[]), "+++n");
        assert_eq!(
            verdicts(&first, &[pod("w").label("app", "web").on("y1")]),
            "nn+n",
            "it is no longer the first"
        );
        let elsewhere = core::PodAffinityTerm {
            namespaces: Some(vec!["other".to_owned()]),
            ..web()
        };
        let stranger = pod("p").label("app", "web").pod_affinity(elsewhere);
        assert_eq!(
            verdicts(&stranger, &[]),
            "nnnn",
            "it is not in the namespace it asks for"
        );
    }

    #[test]
    fn anti_affinity_avoids_the_domains_of_pods_that_match_any_term() {
        let avoiding = pod("p")
            .pod_anti_affinity(web())
            .pod_anti_affinity(pod_term("zone", &[("app", "db")]));
        assert_eq!(verdicts(&avoiding, &[]), "++++");
        assert_eq!(
            verdicts(&avoiding, &[pod("w").label("app", "web").on("x1")]),
            "ff++"
        );
        assert_eq!(
            verdicts(&avoiding, &[pod("w").label("app", "db").on("y1")]),
            "++f+"
        );
    }

    #[test]
    fn pods_that_are_there_are_not_imposed_upon() {
        let hermit = [pod("h").pod_anti_affinity(web()).on("x2")];
        assert_eq!(verdicts(&pod("p").label("app", "web"), &hermit), "uu++");
        assert_eq!(verdicts(&pod("p").label("app", "db"), &hermit), "++++");
        let elsewhere = pod("p").label("app", "web").namespace("other");
        assert_eq!(verdicts(&elsewhere, &hermit), "++++");
    }

    #[test]
    fn label_keys_narrow_the_pods_to_the_same_or_to_other_revisions() {
        let there = [pod("w").label("app", "web").label("rev", "1").on("x1")];
        let same = core::PodAffinityTerm {
            match_label_keys: Some(vec!["rev".to_owned()]),
            ..web()
        };
        let other = core::PodAffinityTerm {
            mismatch_label_keys: Some(vec!["rev".to_owned()]),
            ..web()
        };
        let avoiding = |rev: &str, term: &core::PodAffinityTerm| {
            pod("p").label("rev", rev).pod_anti_affinity(term.clone())
        };
        assert_eq!(verdicts(&avoiding("1", &same), &there), "ff++");
        assert_eq!(verdicts(&avoiding("2", &same), &there), "++++");
        assert_eq!(verdicts(&avoiding("1", &other), &there), "++++");
        assert_eq!(verdicts(&avoiding("2", &other), &there), "ff++");
    }

    #[test]
    fn namespaces_are_named_or_selected_by_their_labels() {
        let term = |named: &[&str], selected: Option<&[(&str, &str)]>| core::PodAffinityTerm {
            namespaces: Some(named.iter().map(|name| (*name).to_owned()).collect()),
            namespace_selector: selected.map(selector),
            ..web()
        };
        let cases: [(core::PodAffinityTerm, &str); 5] = [
            (term(&[], None), "++++"),
            (term(&["other"], None), "ff++"),
            (term(&["third"], Some(&[("team", "a")])), "ff++"),
            (term(&[], Some(&[("team", "b")])), "++++"),
            (term(&[], Some(&[])), "ff++"),
        ];
        let stranger = pod("w").label("app", "web").namespace("other").on("x1");
        let team = BTreeMap::from([("team".to_owned(), "a".to_owned())]);
        for (term, expected) in cases {
            let there = [stranger.clone()];
            let mut cluster = cluster_of(&nodes(), &there);
            cluster.set_namespace("other", &team);
            let avoiding = pod("p").pod_anti_affinity(term.clone()).build();
            let policy = InterPodAffinity::default();
            let filter = policy.pre_filter(&avoiding, &cluster);
            let PreFilter::Filter(filter) = filter else {
                panic!("it has a filter")
            };
            let got: String = cluster.nodes().map(|node| letter(&filter.filter(node))).collect();
            assert_eq!(got, expected, "{term:?}");
        }
    }

    #[test]
    fn preferences_of_either_side_add_up_by_domain() {
        let score = |pod: PodBuilder, there: &[PodBuilder]| {
            scored_among(&InterPodAffinity::default(), &pod.build(), &nodes(), there)
        };
        let web_on = |node: &str| pod(&format!("w-{node}")).label("app", "web").on(node);
        let likes = pod("p").preferred_pod_affinity(8, web());
        // x: 16, y: 8, none: 0.
        let there = [web_on("x1"), web_on("x2"), web_on("y1")];
        assert_eq!(score(likes, &there), [100, 100, 50, 0]);
        let dislikes = pod("p").preferred_pod_anti_affinity(8, web());
        assert_eq!(score(dislikes, &there), [0, 0, 50, 100]);
        // What pods there want of the incoming one: required counts 1, preferred its weight.
        let theirs = [
            pod("a").pod_affinity(web()).on("x1"),
            pod("b").preferred_pod_affinity(3, web()).on("y1"),
            pod("c").preferred_pod_anti_affinity(1, web()).on("y1"),
        ];
        assert_eq!(score(pod("p").label("app", "web"), &theirs), [50, 50, 100, 0]);
        assert_eq!(score(pod("p").label("app", "db"), &theirs), [0; 4]);
    }

    #[test]
    fn arguments_weigh_or_leave_out_what_pods_there_ask_for() {
        let theirs = [
            pod("a").pod_affinity(web()).on("x1"),
            pod("b").preferred_pod_affinity(2, web()).on("y1"),
        ];
        let score = |policy: InterPodAffinity| {
            scored_among(&policy, &pod("p").label("app", "web").build(), &nodes(), &theirs)
        };
        let heavy = InterPodAffinity::default().hard_pod_affinity_weight(4);
        assert_eq!(score(heavy), [100, 100, 50, 0]);
        let deaf = InterPodAffinity::default().ignoring_preferred_terms_of_existing_pods();
        assert_eq!(score(deaf), [0; 4]);
    }

    #[test]
    fn only_what_lifts_a_rule_helps() {
        let helps = |waiting: &PodBuilder, event: Option<ClusterEvent<'_>>| {
            InterPodAffinity::default().hint(&waiting.build(), &event.unwrap()) == Hint::Queue
        };
        let (web_pod, db) = (
            pod("w").label("app", "web").build(),
            pod("w").label("app", "db").build(),
        );
        let (wanting, avoiding) = (pod("p").pod_affinity(web()), pod("p").pod_anti_affinity(web()));
        assert!(helps(&wanting, Some(ClusterEvent::pod_assigned(&web_pod))));
        assert!(!helps(&wanting, Some(ClusterEvent::pod_assigned(&db))));
        assert!(helps(&wanting, ClusterEvent::pod_updated(&db, &web_pod)));
        assert!(!helps(&avoiding, Some(ClusterEvent::pod_assigned(&web_pod))));
        assert!(helps(
            &avoiding,
            Some(ClusterEvent::assigned_pod_deleted(&web_pod))
        ));
        assert!(helps(&avoiding, ClusterEvent::pod_updated(&web_pod, &db)));
        assert!(!helps(&avoiding, ClusterEvent::pod_updated(&db, &web_pod)));
        let hermit = pod("h").pod_anti_affinity(web()).build();
        let unwanted = pod("p").label("app", "web");
        assert!(helps(
            &unwanted,
            Some(ClusterEvent::assigned_pod_deleted(&hermit))
        ));
        let selecting = pod("p").pod_affinity(core::PodAffinityTerm {
            namespace_selector: Some(selector(&[("team", "a")])),
            ..web()
        });
        assert!(helps(&selecting, Some(ClusterEvent::Namespace { name: "other" })));
        assert!(!helps(&wanting, Some(ClusterEvent::Namespace { name: "other" })));
    }
}
