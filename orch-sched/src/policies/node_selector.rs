use crate::object::{NodeInfo, PodInfo};
use k8s_openapi::api::core::v1 as core;
use std::collections::BTreeMap;

pub(super) fn required_terms(affinity: &core::NodeAffinity) -> Option<&[core::NodeSelectorTerm]> {
    affinity
        .required_during_scheduling_ignored_during_execution
        .as_ref()
        .map(|s| &s.node_selector_terms[..])
}

pub(super) fn pod_terms(pod: &PodInfo) -> Option<&[core::NodeSelectorTerm]> {
    pod.node_affinity.as_ref().and_then(required_terms)
}

/// Whether a node has what the pod's `nodeSelector` and required node affinity ask for.
pub(super) fn pod_matches(pod: &PodInfo, node: &NodeInfo) -> bool {
    pod.node_selector
        .iter()
        .all(|(key, value)| node.labels.get(key) == Some(value))
        && pod_terms(pod).is_none_or(|terms| any_term_matches(terms, node))
}

/// A requirement's operator, checked against its values as upstream does.
#[derive(Clone, Copy)]
pub(super) enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    Gt(i64),
    Lt(i64),
}

impl Operator {
    pub(super) fn of(requirement: &core::NodeSelectorRequirement) -> Option<Self> {
        let values = requirement.values.as_deref().unwrap_or_default();
        let number = || match values {
            [one] => one.parse().ok(),
            _ => None,
        };
        match requirement.operator.as_str() {
            "In" if !values.is_empty() => Some(Self::In),
            "NotIn" if !values.is_empty() => Some(Self::NotIn),
            "Exists" if values.is_empty() => Some(Self::Exists),
            "DoesNotExist" if values.is_empty() => Some(Self::DoesNotExist),
            "Gt" => number().map(Self::Gt),
            "Lt" => number().map(Self::Lt),
            _ => None,
        }
    }
}

/// The one field that upstream knows, with exactly one value: true for `In`, false for `NotIn`.
pub(super) fn field_name(requirement: &core::NodeSelectorRequirement) -> Option<(bool, &str)> {
    let [name] = requirement.values.as_deref()? else {
        return None;
    };
    match (requirement.key.as_str(), requirement.operator.as_str()) {
        ("metadata.name", "In") => Some((true, name)),
        ("metadata.name", "NotIn") => Some((false, name)),
        _ => None,
    }
}

pub(super) fn any_term_matches(terms: &[core::NodeSelectorTerm], node: &NodeInfo) -> bool {
    terms.iter().any(|term| term_matches(term, node))
}

fn term_matches(term: &core::NodeSelectorTerm, node: &NodeInfo) -> bool {
    let (labels, fields) = (
        term.match_expressions.iter().flatten(),
        term.match_fields.iter().flatten(),
    );
    if labels.clone().next().is_none() && fields.clone().next().is_none() {
        return false;
    }
    labels.into_iter().all(|r| label_matches(r, &node.labels))
        && fields
            .into_iter()
            .all(|r| field_name(r).is_some_and(|(is, name)| (name == &*node.name) == is))
}

fn label_matches(requirement: &core::NodeSelectorRequirement, labels: &BTreeMap<String, String>) -> bool {
    let Some(operator) = Operator::of(requirement) else {
        return false;
    };
    let value = labels.get(&requirement.key);
    let listed = || value.is_some_and(|value| requirement.values.iter().flatten().any(|v| v == value));
    let number = || value.and_then(|value| value.parse::<i64>().ok());
    match operator {
        Operator::In => listed(),
        Operator::NotIn => !listed(),
        Operator::Exists => value.is_some(),
        Operator::DoesNotExist => value.is_none(),
        Operator::Gt(bound) => number().is_some_and(|number| number > bound),
        Operator::Lt(bound) => number().is_some_and(|number| number < bound),
    }
}
