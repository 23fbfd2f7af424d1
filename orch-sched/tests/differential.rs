//! The columns against a naive reference that looks at every raw object for every decision.

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, Toleration};
use orch_sched::object::{
    AffinityTerm, NodeInfo, PodInfo, PodKey, Spread, SpreadConstraint, Taint, TaintEffect,
};
use orch_sched::testkit::{random_node, random_pod};
use orch_sched::{Cluster, Profile, Simulation, explain};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// Every object as it is, and nothing derived.
#[derive(Default)]
struct Reference {
    nodes: BTreeMap<String, NodeInfo>,
    pods: BTreeMap<PodKey, (PodInfo, String)>,
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
}

impl Reference {
    fn on<'a>(&'a self, node: &'a str) -> impl Iterator<Item = &'a PodInfo> + Clone {
        self.pods
            .values()
            .filter(move |(_, at)| at == node)
            .map(|(pod, _)| pod)
    }

    fn feasible(&self, pod: &PodInfo) -> Vec<&NodeInfo> {
        self.nodes.values().filter(|node| self.takes(node, pod)).collect()
    }

    fn takes(&self, node: &NodeInfo, pod: &PodInfo) -> bool {
        let there = self.on(&node.name);
        let used = |resource: &str| there.clone().map(|p| p.requests.get(resource)).sum::<i64>();
        let mut resources = vec![
            "cpu".to_owned(),
            "memory".to_owned(),
            "ephemeral-storage".to_owned(),
        ];
        resources.extend(pod.requests.scalar.iter().map(|(name, _)| name.to_string()));
        let room = resources.iter().all(|r| {
            let wanted = pod.requests.get(r);
            wanted == 0 || used(r) + wanted <= node.allocatable(r)
        });
        let cordon = Taint {
            key: "node.kubernetes.io/unschedulable".into(),
            value: String::new(),
            effect: TaintEffect::NoSchedule,
        };
        room && there.clone().count() < usize::try_from(node.pods).unwrap_or(0)
            && (!node.unschedulable || tolerated(pod, &cordon))
            && node
                .taints
                .iter()
                .filter(|t| t.effect != TaintEffect::PreferNoSchedule)
                .all(|t| tolerated(pod, t))
            && there
                .flat_map(|p| &p.host_ports)
                .all(|held| !pod.host_ports.iter().any(|p| p.conflicts_with(held)))
            && pod
                .node_selector
                .iter()
                .all(|(k, v)| node.labels.get(k) == Some(v))
            && required(pod).is_none_or(|terms| terms.iter().any(|term| matches(term, node)))
            && self.spreads(pod, node)
            && self.near_enough(pod, node)
            && self.far_enough(pod, node)
    }

    /// Every pod that is on a known node, with that node.
    fn placed(&self) -> impl Iterator<Item = (&PodInfo, &NodeInfo)> {
        self.pods
            .values()
            .filter_map(|(pod, at)| Some((pod, self.nodes.get(at)?)))
    }

    fn about(&self, term: &AffinityTerm, pod: &PodInfo) -> bool {
        let named = term.namespaces.contains(&pod.namespace);
        let selected = term
            .namespace_selector
            .matches_option(self.namespaces.get(&pod.namespace));
        term.selector.matches(&pod.labels) && (named || selected)
    }

    fn near_enough(&self, pod: &PodInfo, node: &NodeInfo) -> bool {
        let Some(terms) = pod.pod_affinity.as_ref().map(|all| &all.required) else {
            return true;
        };
        let all_about = |other: &PodInfo| terms.iter().all(|term| self.about(term, other));
        let friend_at = |term: &AffinityTerm| {
            self.placed()
                .any(|(other, at)| all_about(other) && same_domain(&term.topology_key, at, node))
        };
        let in_all = terms
            .iter()
            .all(|term| node.labels.contains_key(&term.topology_key));
        let anybody = self.placed().any(|(other, at)| {
            all_about(other)
                && terms
                    .iter()
                    .any(|term| at.labels.contains_key(&term.topology_key))
        });
        in_all && (terms.iter().all(friend_at) || !anybody && all_about(pod))
    }

    fn far_enough(&self, pod: &PodInfo, node: &NodeInfo) -> bool {
        let clash = |of: &PodInfo, with: &PodInfo, at: &NodeInfo| {
            let mut terms = of.pod_affinity.iter().flat_map(|all| &all.required_anti);
            terms.any(|term| self.about(term, with) && same_domain(&term.topology_key, at, node))
        };
        !self
            .placed()
            .any(|(other, at)| clash(pod, other, at) || clash(other, pod, at))
    }

    fn spreads(&self, pod: &PodInfo, node: &NodeInfo) -> bool {
        let hard: Vec<_> = pod
            .spread
            .iter()
            .filter(|c| c.spread == Spread::Required)
            .collect();
        hard.iter().all(|c| {
            let nodes = self
                .nodes
                .values()
                .filter(|n| in_all(&hard, n) && included(c, pod, n));
            let mut counts: BTreeMap<&String, i64> = BTreeMap::new();
            nodes
                .for_each(|n| *counts.entry(&n.labels[&c.topology_key]).or_default() += self.like(pod, c, n));
            let least = counts.values().min().copied().unwrap_or(0);
            let least = if counts.len() < c.min_domains { 0 } else { least };
            let itself = i64::from(c.selector.matches(&pod.labels));
            node.labels
                .get(&c.topology_key)
                .is_some_and(|domain| counts.get(domain).copied().unwrap_or(0) + itself - least <= c.max_skew)
        })
    }

    /// The pods on a node that a constraint counts.
    fn like(&self, pod: &PodInfo, c: &SpreadConstraint, node: &NodeInfo) -> i64 {
        let counts =
            |p: &PodInfo| !p.terminating && p.namespace == pod.namespace && c.selector.matches(&p.labels);
        let there = self
            .on(&node.name)
            .filter(|p| counts(p) && !c.selector.is_everything());
        there.map(|_| 1).sum()
    }

    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "upstream scores in floating point"
    )]
    fn spread_scores(&self, pod: &PodInfo, nodes: &[&NodeInfo]) -> Vec<i64> {
        let soft: Vec<_> = pod
            .spread
            .iter()
            .filter(|c| c.spread == Spread::Preferred)
            .collect();
        if soft.is_empty() {
            return vec![0; nodes.len()];
        }
        let scored: Vec<_> = nodes.iter().filter(|n| in_all(&soft, n)).collect();
        let one = |node: &NodeInfo, c: &SpreadConstraint| {
            let host = c.topology_key == "kubernetes.io/hostname";
            let domains: BTreeSet<_> = scored.iter().map(|n| &n.labels[&c.topology_key]).collect();
            let size = if host { scored.len() } else { domains.len() };
            let same = |n: &&NodeInfo| {
                in_all(&soft, n) && included(c, pod, n) && same_domain(&c.topology_key, n, node)
            };
            let count: i64 = if host {
                self.like(pod, c, node)
            } else {
                self.nodes
                    .values()
                    .filter(same)
                    .map(|n| self.like(pod, c, n))
                    .sum()
            };
            count as f64 * ((size + 2) as f64).ln() + (c.max_skew - 1) as f64
        };
        let raw = |n: &NodeInfo| {
            in_all(&soft, n).then(|| soft.iter().map(|c| one(n, c)).sum::<f64>().round() as i64)
        };
        let raw: Vec<Option<i64>> = nodes.iter().map(|n| raw(n)).collect();
        let (least, most) = (
            raw.iter().flatten().min().copied(),
            raw.iter().flatten().max().copied(),
        );
        let scaled = |score: Option<i64>| match (score, least, most) {
            (Some(score), Some(least), Some(most)) if most != 0 => 100 * (most + least - score) / most,
            (Some(_), _, _) => 100,
            (None, _, _) => 0,
        };
        raw.into_iter().map(scaled).collect()
    }

    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "upstream scores in floating point"
    )]
    fn neighbour_scores(&self, pod: &PodInfo, nodes: &[&NodeInfo]) -> Vec<i64> {
        let liking = |of: &PodInfo, with: &PodInfo, at: &NodeInfo, node: &NodeInfo, hard: i64| -> i64 {
            let Some(all) = &of.pod_affinity else { return 0 };
            let holds = |term: &AffinityTerm| {
                i64::from(self.about(term, with) && same_domain(&term.topology_key, at, node))
            };
            all.preferred
                .iter()
                .map(|one| one.weight * holds(&one.term))
                .sum::<i64>()
                - all
                    .preferred_anti
                    .iter()
                    .map(|one| one.weight * holds(&one.term))
                    .sum::<i64>()
                + all.required.iter().map(|term| hard * holds(term)).sum::<i64>()
        };
        let raw = |node: &&NodeInfo| -> i64 {
            let both = |(other, at): (&PodInfo, &NodeInfo)| {
                liking(pod, other, at, node, 0) + liking(other, pod, at, node, 1)
            };
            self.placed().map(both).sum()
        };
        let raw: Vec<i64> = nodes.iter().map(raw).collect();
        let least = raw.iter().min().copied().unwrap_or(0);
        let range = raw.iter().max().copied().unwrap_or(0) - least;
        let scaled = |score: i64| {
            if range == 0 {
                0
            } else {
                (100.0 * ((score - least) as f64 / range as f64)) as i64
            }
        };
        raw.into_iter().map(scaled).collect()
    }

    /// The weighted sums of upstream's default scores.
    fn scores(&self, pod: &PodInfo, nodes: &[&NodeInfo]) -> Vec<i64> {
        let soft = |node: &&NodeInfo| -> i64 {
            let soft = node
                .taints
                .iter()
                .filter(|t| t.effect == TaintEffect::PreferNoSchedule);
            soft.map(|t| i64::from(!tolerated(pod, t))).sum()
        };
        let taints: Vec<i64> = nodes.iter().map(soft).collect();
        let affinity: Vec<i64> = nodes.iter().map(|node| preference(pod, node)).collect();
        let (most_taints, best_affinity) = (
            taints.iter().max().copied().unwrap_or(0),
            affinity.iter().max().copied().unwrap_or(0),
        );
        let spread = self.spread_scores(pod, nodes);
        let neighbours = self.neighbour_scores(pod, nodes);
        let total = |(at, node): (usize, &&NodeInfo)| {
            let taint = if most_taints == 0 {
                100
            } else {
                100 - 100 * taints[at] / most_taints
            };
            let preferred = if best_affinity == 0 {
                0
            } else {
                100 * affinity[at] / best_affinity
            };
            2 * (spread[at] + neighbours[at])
                + 3 * taint
                + 2 * preferred
                + self.least_allocated(node, pod)
                + self.balanced(node, pod)
        };
        nodes.iter().enumerate().map(total).collect()
    }

    fn least_allocated(&self, node: &NodeInfo, pod: &PodInfo) -> i64 {
        let all = || self.on(&node.name).chain([pod]);
        let both = [
            (
                node.milli_cpu,
                all().map(|p| p.requests.nonzero_milli_cpu).sum::<i64>(),
            ),
            (node.memory, all().map(|p| p.requests.nonzero_memory).sum::<i64>()),
        ];
        let counting = || both.iter().filter(|(capacity, _)| *capacity != 0);
        let sum: i64 = counting()
            .map(|(capacity, used)| (capacity - used).max(0) * 100 / capacity)
            .sum();
        sum.checked_div(counting().map(|_| 1).sum()).unwrap_or(0)
    }

    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "upstream scores in floating point"
    )]
    fn balanced(&self, node: &NodeInfo, pod: &PodInfo) -> i64 {
        if pod.requests.milli_cpu == 0 && pod.requests.memory == 0 {
            return 0;
        }
        let all = || self.on(&node.name).chain([pod]);
        let both = [
            (node.milli_cpu, all().map(|p| p.requests.milli_cpu).sum::<i64>()),
            (node.memory, all().map(|p| p.requests.memory).sum::<i64>()),
        ];
        let shares: Vec<f64> = both
            .iter()
            .filter(|(c, _)| *c != 0)
            .map(|(c, used)| (*used as f64 / *c as f64).min(1.0))
            .collect();
        match shares[..] {
            [a, b] => ((1.0 - ((a - b) / 2.0).abs()) * 100.0) as i64,
            _ => 100,
        }
    }
}

fn same_domain(key: &str, a: &NodeInfo, b: &NodeInfo) -> bool {
    a.labels.contains_key(key) && a.labels.get(key) == b.labels.get(key)
}

fn in_all(constraints: &[&SpreadConstraint], node: &NodeInfo) -> bool {
    constraints
        .iter()
        .all(|c| node.labels.contains_key(&c.topology_key))
}

fn included(c: &SpreadConstraint, pod: &PodInfo, node: &NodeInfo) -> bool {
    let mut selected = pod.node_selector.iter();
    let selected = selected.all(|(k, v)| node.labels.get(k) == Some(v))
        && required(pod).is_none_or(|terms| terms.iter().any(|term| matches(term, node)));
    let mut taints = node
        .taints
        .iter()
        .filter(|t| t.effect != TaintEffect::PreferNoSchedule);
    (selected || !c.honours_node_affinity) && (!c.honours_node_taints || taints.all(|t| tolerated(pod, t)))
}

fn tolerated(pod: &PodInfo, taint: &Taint) -> bool {
    pod.tolerations.iter().any(|t: &Toleration| {
        let key = t.key.as_deref().unwrap_or_default();
        let effect = t.effect.as_deref().unwrap_or_default();
        (key.is_empty() || key == taint.key)
            && (effect.is_empty() || effect == taint.effect.as_str())
            && (t.operator.as_deref() == Some("Exists")
                || t.value.as_deref().unwrap_or_default() == taint.value)
    })
}

fn required(pod: &PodInfo) -> Option<&Vec<NodeSelectorTerm>> {
    let affinity = pod.node_affinity.as_ref()?;
    Some(
        &affinity
            .required_during_scheduling_ignored_during_execution
            .as_ref()?
            .node_selector_terms,
    )
}

fn preference(pod: &PodInfo, node: &NodeInfo) -> i64 {
    let preferred = pod
        .node_affinity
        .iter()
        .flat_map(|a| &a.preferred_during_scheduling_ignored_during_execution)
        .flatten();
    preferred
        .filter(|p| matches(&p.preference, node))
        .map(|p| i64::from(p.weight))
        .sum()
}

fn matches(term: &NodeSelectorTerm, node: &NodeInfo) -> bool {
    let label = |r: &NodeSelectorRequirement| holds(r, node.labels.get(&r.key).map(String::as_str));
    let field = |r: &NodeSelectorRequirement| holds(r, Some(&node.name));
    term.match_expressions.iter().flatten().all(label) && term.match_fields.iter().flatten().all(field)
}

fn holds(r: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = r.values.as_deref().unwrap_or_default();
    let listed = value.is_some_and(|value| values.iter().any(|v| v == value));
    let numbers = || Some((value?.parse::<i64>().ok()?, values.first()?.parse::<i64>().ok()?));
    match r.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => numbers().is_some_and(|(value, bound)| value > bound),
        "Lt" => numbers().is_some_and(|(value, bound)| value < bound),
        other => panic!("the generator does not make {other}"),
    }
}

/// Random changes of a cluster, made to the columns and to the reference alike.
fn churn(random: &mut fastrand::Rng, cluster: &mut Cluster, reference: &mut Reference) {
    let team = BTreeMap::from([("team".to_owned(), "a".to_owned())]);
    cluster.set_namespace("other", &team);
    reference.namespaces.insert("other".to_owned(), team);
    for step in 0..random.usize(10..120) {
        let node = format!("n{}", random.u32(..25));
        match random.u8(..10) {
            0..4 => {
                let built = random_node(random, &node).build();
                cluster.set_node(built.clone());
                reference.nodes.insert(node, built);
            }
            4 => {
                cluster.remove_node(&node);
                reference.nodes.remove(&node);
            }
            5..8 => {
                let pod = random_pod(random, &format!("p{step}")).on(&node);
                let pod = if random.u8(..8) == 0 {
                    pod.terminating()
                } else {
                    pod
                }
                .build();
                cluster.set_pod(std::sync::Arc::new(pod.clone()), &node);
                reference.pods.insert(pod.key.clone(), (pod, node));
            }
            8 => {
                let Some((key, (pod, _))) = reference.pods.iter().nth(random.usize(..40)) else {
                    continue;
                };
                let (key, mut pod) = (key.clone(), pod.clone());
                pod.requests = random_pod(random, "resized").build().requests;
                pod.node_name = Some(node.clone());
                cluster.set_pod(std::sync::Arc::new(pod.clone()), &node);
                reference.pods.insert(key, (pod, node));
            }
            _ => {
                if let Some(key) = reference.pods.keys().nth(random.usize(..40)).cloned() {
                    cluster.remove_pod(&key);
                    reference.pods.remove(&key);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases * 4, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn columns_and_reference_agree_on_feasible_nodes_and_scores(seed: u64) {
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut cluster, mut reference) = (Cluster::new(), Reference::default());
        churn(&mut random, &mut cluster, &mut reference);
        for i in 0..5 {
            let pod = random_pod(&mut random, &format!("incoming{i}")).build();
            let expected = reference.feasible(&pod);
            let explanation = explain(&Profile::upstream(), &cluster, &pod);
            let mut got: Vec<(String, i64)> =
                explanation.nodes.iter().filter(|n| n.is_feasible()).map(|n| (n.name.clone(), n.total)).collect();
            got.sort();
            let names = expected.iter().map(|node| node.name.to_string());
            let scores = if expected.is_empty() { Vec::new() } else { reference.scores(&pod, &expected) };
            prop_assert_eq!(got, names.zip(scores).collect::<Vec<_>>(), "{:?}", pod);
        }
    }

    /// The way a decision takes is not the way an explanation takes: bit sets, short cuts, ties.
    #[test]
    fn the_chosen_node_is_always_one_of_the_best(seed: u64) {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut simulation = Simulation::with_seed(vec![Profile::upstream()], seed).unwrap();
        let mut reference = Reference::default();
        for i in 0..random.usize(1..12) {
            let node = random_node(&mut random, &format!("n{i}")).pods(5).build();
            simulation.add_node(node.clone());
            reference.nodes.insert(node.name.to_string(), node);
        }
        for i in 0..random.usize(1..30) {
            let pod = random_pod(&mut random, &format!("p{i}")).build();
            simulation.add_pod(pod.clone());
            let outcome = simulation.step().expect("a pod waits");
            prop_assert_eq!(&outcome.pod.key, &pod.key);
            let feasible = reference.feasible(&pod);
            match &outcome.result {
                Err(diagnosis) => {
                    prop_assert!(feasible.is_empty(), "{} though {:?} would do", diagnosis, feasible[0].name);
                    simulation.remove_pod(&pod);
                }
                Ok(chosen) => {
                    let at = feasible.iter().position(|node| &*node.name == chosen);
                    prop_assert!(at.is_some(), "{} cannot take {:?}", chosen, pod);
                    let scores = reference.scores(&pod, &feasible);
                    prop_assert_eq!(Some(&scores[at.unwrap()]), scores.iter().max());
                    reference.pods.insert(pod.key.clone(), (pod, chosen.clone()));
                }
            }
        }
    }
}
