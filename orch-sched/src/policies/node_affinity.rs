use super::node_selector::{Operator, any_term_matches, field_name, pod_matches, pod_terms, required_terms};
use crate::cluster::{Cluster, LabelColumn, Node, NodeId, NodeSet};
use crate::event::{ClusterEvent, EventSet};
use crate::object::{NodeInfo, PodInfo};
use crate::policy::{
    Hint, NodeFilter, NodeScore, PreFilter, PreScore, Rejection, SchedulerPolicy, scale_scores,
};
use k8s_openapi::api::core::v1 as core;
use std::collections::BTreeSet;

/// Takes nodes that match the pod's `nodeSelector` and required node affinity, and prefers those that match its preferred
/// terms.
#[derive(Clone, Debug, Default)]
pub struct NodeAffinity {
    added: Option<core::NodeAffinity>,
}

impl NodeAffinity {
    /// Requires and prefers this affinity of all pods, beside their own.
    #[must_use]
    pub fn with_added_affinity(added: core::NodeAffinity) -> Self {
        Self { added: Some(added) }
    }

    fn added_terms(&self) -> Option<&[core::NodeSelectorTerm]> {
        self.added.as_ref().and_then(required_terms)
    }

    fn matches(&self, pod: &PodInfo, node: &NodeInfo) -> bool {
        self.added_terms()
            .is_none_or(|terms| any_term_matches(terms, node))
            && pod_matches(pod, node)
    }
}

impl SchedulerPolicy for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn events(&self) -> EventSet {
        EventSet::NODE_ADD | EventSet::NODE_LABEL
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent<'_>) -> Hint {
        let ClusterEvent::Node { old, new, .. } = event else {
            return Hint::Skip;
        };
        let matched_before = old.is_some_and(|node| self.matches(pod, node));
        Hint::queue_if(!matched_before && new.is_some_and(|node| self.matches(pod, node)))
    }

    fn pre_filter<'c>(&'c self, pod: &'c PodInfo, cluster: &'c Cluster) -> PreFilter<'c> {
        let own = pod_terms(pod);
        if pod.node_selector.is_empty() && own.is_none() && self.added_terms().is_none() {
            return PreFilter::Skip;
        }
        let filter = Box::new(Required {
            pod,
            added: self.added_terms(),
        });
        match own.and_then(named_nodes) {
            None => PreFilter::Filter(filter),
            Some(names) if names.is_empty() => {
                PreFilter::Reject(Rejection::unresolvable("pod affinity terms conflict"))
            }
            Some(names) => PreFilter::Only(
                names.iter().filter_map(|name| cluster.find(name)).collect(),
                Some(filter),
            ),
        }
    }

    fn pre_score<'c>(&'c self, pod: &'c PodInfo, cluster: &'c Cluster, _: &NodeSet) -> PreScore<'c> {
        let sources = [self.added.as_ref(), pod.node_affinity.as_ref()];
        let preferred = sources.into_iter().flatten();
        let terms: Vec<_> = preferred
            .flat_map(|affinity| {
                affinity
                    .preferred_during_scheduling_ignored_during_execution
                    .iter()
                    .flatten()
            })
            .collect();
        if terms.is_empty() {
            return PreScore::Skip;
        }
        let compiled = terms
            .iter()
            .map(|t| (i64::from(t.weight), Term::compile(&t.preference, cluster)))
            .collect();
        PreScore::Score(Box::new(Preferred(compiled)))
    }
}

/// The nodes that all terms come down to by name, if they do: such pods (those of DaemonSets) need not look at all nodes.
fn named_nodes(terms: &[core::NodeSelectorTerm]) -> Option<BTreeSet<&str>> {
    let mut names = BTreeSet::new();
    for term in terms {
        let by_name = term
            .match_fields
            .iter()
            .flatten()
            .filter(|r| r.key == "metadata.name" && r.operator == "In");
        let sets = by_name.map(|r| {
            r.values
                .iter()
                .flatten()
                .map(String::as_str)
                .collect::<BTreeSet<_>>()
        });
        names.extend(sets.reduce(|a, b| &a & &b)?);
    }
    Some(names)
}

struct Required<'c> {
    pod: &'c PodInfo,
    added: Option<&'c [core::NodeSelectorTerm]>,
}

impl NodeFilter for Required<'_> {
    fn filter(&self, node: Node<'_>) -> Result<(), Rejection> {
        let Some(info) = node.info() else {
            return Err(Rejection::unresolvable("node not found"));
        };
        if self.added.is_some_and(|terms| !any_term_matches(terms, info)) {
            return Err(Rejection::unresolvable(
                "node(s) didn't match scheduler-enforced node affinity",
            ));
        }
        if !pod_matches(self.pod, info) {
            return Err(Rejection::unresolvable(
                "node(s) didn't match Pod's node affinity/selector",
            ));
        }
        Ok(())
    }

    fn narrow(&self, cluster: &Cluster, candidates: &mut NodeSet) {
        if let Some(terms) = self.added {
            narrow_to_any(terms, cluster, candidates);
        }
        for (key, value) in &self.pod.node_selector {
            let column = cluster.label(key);
            Test::In(column, column.symbol_of(value).into_iter().collect()).narrow(candidates);
        }
        if let Some(terms) = pod_terms(self.pod) {
            narrow_to_any(terms, cluster, candidates);
        }
    }
}

fn narrow_to_any(terms: &[core::NodeSelectorTerm], cluster: &Cluster, candidates: &mut NodeSet) {
    let terms: Vec<Term<'_>> = terms.iter().map(|term| Term::compile(term, cluster)).collect();
    match &terms[..] {
        [only] => only.narrow(candidates),
        _ => candidates.retain(|id| terms.iter().any(|term| term.matches(id))),
    }
}

struct Preferred<'c>(Vec<(i64, Term<'c>)>);

impl NodeScore for Preferred<'_> {
    fn score(&self, node: Node<'_>) -> i64 {
        self.0
            .iter()
            .filter(|(_, term)| term.matches(node.id()))
            .map(|(weight, _)| weight)
            .sum()
    }

    fn normalise(&self, scores: &mut [i64]) {
        scale_scores(scores, false);
    }
}

/// One term over the label columns: all tests must hold. Without any it holds nowhere, as upstream has it.
struct Term<'c>(Vec<Test<'c>>);

impl<'c> Term<'c> {
    fn compile(term: &core::NodeSelectorTerm, cluster: &'c Cluster) -> Self {
        let labels = term
            .match_expressions
            .iter()
            .flatten()
            .map(|r| Test::label(r, cluster));
        let fields = term
            .match_fields
            .iter()
            .flatten()
            .map(|r| Test::field(r, cluster));
        Self(labels.chain(fields).collect())
    }

    fn matches(&self, id: NodeId) -> bool {
        !self.0.is_empty() && self.0.iter().all(|test| test.holds(id))
    }

    fn narrow(&self, candidates: &mut NodeSet) {
        if self.0.is_empty() {
            candidates.clear();
        }
        self.0.iter().for_each(|test| test.narrow(candidates));
    }
}

/// One requirement over a label column, with values as symbols.
enum Test<'c> {
    In(LabelColumn<'c>, Vec<u32>),
    NotIn(LabelColumn<'c>, Vec<u32>),
    Exists(LabelColumn<'c>),
    DoesNotExist(LabelColumn<'c>),
    Gt(LabelColumn<'c>, i64),
    Lt(LabelColumn<'c>, i64),
    Is(Option<NodeId>),
    IsNot(Option<NodeId>),
    /// A requirement that makes no sense, which the API server does not admit.
    Never,
}

impl<'c> Test<'c> {
    fn label(requirement: &core::NodeSelectorRequirement, cluster: &'c Cluster) -> Self {
        let Some(operator) = Operator::of(requirement) else {
            return Self::Never;
        };
        let column = cluster.label(&requirement.key);
        let symbols = || {
            requirement
                .values
                .iter()
                .flatten()
                .filter_map(|value| column.symbol_of(value))
                .collect()
        };
        match operator {
            Operator::In => Self::In(column, symbols()),
            Operator::NotIn => Self::NotIn(column, symbols()),
            Operator::Exists => Self::Exists(column),
            Operator::DoesNotExist => Self::DoesNotExist(column),
            Operator::Gt(bound) => Self::Gt(column, bound),
            Operator::Lt(bound) => Self::Lt(column, bound),
        }
    }

    fn field(requirement: &core::NodeSelectorRequirement, cluster: &'c Cluster) -> Self {
        let node = |name: &str| cluster.find(name);
        match field_name(requirement) {
            Some((true, name)) => Self::Is(node(name)),
            Some((false, name)) => Self::IsNot(node(name)),
            None => Self::Never,
        }
    }

    fn holds(&self, id: NodeId) -> bool {
        match self {
            Self::In(column, symbols) => symbols.contains(&column.symbol(id)),
            Self::NotIn(column, symbols) => !symbols.contains(&column.symbol(id)),
            Self::Exists(column) => column.symbol(id) != 0,
            Self::DoesNotExist(column) => column.symbol(id) == 0,
            Self::Gt(column, bound) => column
                .number(column.symbol(id))
                .is_some_and(|number| number > *bound),
            Self::Lt(column, bound) => column
                .number(column.symbol(id))
                .is_some_and(|number| number < *bound),
            Self::Is(node) => *node == Some(id),
            Self::IsNot(node) => *node != Some(id),
            Self::Never => false,
        }
    }

    fn narrow(&self, candidates: &mut NodeSet) {
        match self {
            Self::In(_, symbols) if symbols.is_empty() => candidates.clear(),
            Self::In(column, symbols) => match symbols[..] {
                [one] => candidates.retain_column(column.rows(), |symbol| symbol == one),
                _ => candidates.retain_column(column.rows(), |symbol| symbols.contains(&symbol)),
            },
            Self::Exists(column) => candidates.retain_column(column.rows(), |symbol| symbol != 0),
            Self::NotIn(..)
            | Self::DoesNotExist(_)
            | Self::Gt(..)
            | Self::Lt(..)
            | Self::Is(_)
            | Self::IsNot(_)
            | Self::Never => candidates.retain(|id| self.holds(id)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{field_term, node, pod, term};
    use crate::testkit::{filtered, scored};

    fn taken(pod: &PodInfo) -> Vec<bool> {
        let nodes = [
            node("a").label("zone", "x").label("gen", "5"),
            node("b").label("zone", "y").label("gen", "12"),
            node("c"),
        ];
        filtered(&NodeAffinity::default(), pod, &nodes)
            .iter()
            .map(Result::is_ok)
            .collect()
    }

    #[test]
    fn each_operator_matches_as_upstream_has_it() {
        let cases: [(&str, &str, &[&str], [bool; 3]); 12] = [
            ("zone", "In", &["x", "z"], [true, false, false]),
            ("zone", "In", &[], [false, false, false]),
            ("zone", "NotIn", &["x"], [false, true, true]),
            ("zone", "NotIn", &["nowhere"], [true, true, true]),
            ("zone", "Exists", &[], [true, true, false]),
            ("zone", "Exists", &["x"], [false, false, false]),
            ("zone", "DoesNotExist", &[], [false, false, true]),
            ("gen", "Gt", &["5"], [false, true, false]),
            ("gen", "Lt", &["12"], [true, false, false]),
            ("gen", "Gt", &["five"], [false, false, false]),
            ("zone", "Gt", &["1"], [false, false, false]),
            ("zone", "Is", &["x"], [false, false, false]),
        ];
        for (key, operator, values, expected) in cases {
            let wanted = pod("p")
                .required_node_affinity(vec![term(&[(key, operator, values)])])
                .build();
            assert_eq!(taken(&wanted), expected, "{key} {operator} {values:?}");
        }
    }

    #[test]
    fn terms_are_alternatives_and_expressions_add_up() {
        let either = vec![
            term(&[("zone", "In", &["x"])]),
            term(&[("zone", "DoesNotExist", &[])]),
        ];
        assert_eq!(
            taken(&pod("p").required_node_affinity(either).build()),
            [true, false, true]
        );
        let both = vec![term(&[("zone", "Exists", &[]), ("gen", "Gt", &["6"])])];
        assert_eq!(
            taken(&pod("p").required_node_affinity(both).build()),
            [false, true, false]
        );
        assert_eq!(
            taken(&pod("p").required_node_affinity(vec![term(&[])]).build()),
            [false; 3],
            "empty matches nothing"
        );
        assert_eq!(
            taken(&pod("p").required_node_affinity(vec![]).build()),
            [false; 3],
            "no term matches nothing"
        );
        let selector_too = pod("p")
            .node_selector("gen", "5")
            .required_node_affinity(vec![term(&[("zone", "Exists", &[])])]);
        assert_eq!(taken(&selector_too.build()), [true, false, false]);
    }

    #[test]
    fn nodes_can_be_named_by_field() {
        let named = pod("p").required_node_affinity(vec![field_term(&[("metadata.name", "In", &["b"])])]);
        assert_eq!(taken(&named.build()), [false, true, false]);
        let not = pod("p").required_node_affinity(vec![field_term(&[("metadata.name", "NotIn", &["b"])])]);
        assert_eq!(taken(&not.build()), [true, false, true]);
        let mixed = vec![
            field_term(&[("metadata.name", "In", &["b"])]),
            term(&[("zone", "In", &["x"])]),
        ];
        assert_eq!(
            taken(&pod("p").required_node_affinity(mixed).build()),
            [true, true, false]
        );
        let conflict = field_term(&[("metadata.name", "In", &["a"]), ("metadata.name", "In", &["b"])]);
        let why = Rejection::unresolvable("pod affinity terms conflict");
        let wanted = pod("p").required_node_affinity(vec![conflict]).build();
        assert_eq!(
            filtered(&NodeAffinity::default(), &wanted, &[node("a")]),
            [Err(why)]
        );
    }

    #[test]
    fn rejections_say_whose_affinity_it_was() {
        let added = core::NodeAffinity {
            required_during_scheduling_ignored_during_execution: Some(core::NodeSelector {
                node_selector_terms: vec![term(&[("zone", "In", &["x"])])],
            }),
            ..core::NodeAffinity::default()
        };
        let policy = NodeAffinity::with_added_affinity(added);
        let nodes = [node("a").label("zone", "x"), node("b").label("zone", "y")];
        let own = Rejection::unresolvable("node(s) didn't match Pod's node affinity/selector");
        let enforced = Rejection::unresolvable("node(s) didn't match scheduler-enforced node affinity");
        let wanted = pod("p").node_selector("disk", "ssd").build();
        assert_eq!(filtered(&policy, &wanted, &nodes), [Err(own), Err(enforced)]);
    }

    #[test]
    fn preferences_add_up_by_weight_and_the_best_node_gets_a_hundred() {
        let nodes = [
            node("a").label("zone", "x").label("disk", "ssd"),
            node("b").label("zone", "x"),
            node("c"),
        ];
        let wanted = pod("p")
            .preferred_node_affinity(3, term(&[("zone", "In", &["x"])]))
            .preferred_node_affinity(5, term(&[("disk", "In", &["ssd"])]))
            .preferred_node_affinity(7, term(&[]));
        assert_eq!(
            scored(&NodeAffinity::default(), &wanted.build(), &nodes),
            [100, 37, 0]
        );
    }

    #[test]
    fn only_a_node_that_begins_to_match_helps() {
        let wanting = pod("p").node_selector("zone", "x").build();
        let (bare, labelled) = (node("n").build(), node("n").label("zone", "x").build());
        let hint = |old: Option<&NodeInfo>, new: &NodeInfo| {
            NodeAffinity::default().hint(&wanting, &ClusterEvent::node(old, new).unwrap())
        };
        assert_eq!(hint(Some(&bare), &labelled), Hint::Queue);
        assert_eq!(hint(Some(&labelled), &bare), Hint::Skip);
        assert_eq!(hint(None, &bare), Hint::Skip);
        assert_eq!(hint(None, &labelled), Hint::Queue);
    }
}
