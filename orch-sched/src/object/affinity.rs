use super::PodInfo;
use super::selector::{selector, with_label_keys};
use k8s_openapi::api::core::v1 as core;
use orch_core::selector::{LabelSelector, Operator};
use std::collections::{BTreeMap, BTreeSet};

/// What a pod asks for of the pods near it, in the form that placement computes with.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodAffinity {
    /// Pods that must be near.
    pub required: Vec<AffinityTerm>,
    /// Pods that must not be near.
    pub required_anti: Vec<AffinityTerm>,
    /// Pods that had better be near.
    pub preferred: Vec<WeightedAffinityTerm>,
    /// Pods that had better not be near.
    pub preferred_anti: Vec<WeightedAffinityTerm>,
}

/// Some pods, and what counts as near.
#[derive(Clone, Debug, PartialEq)]
pub struct AffinityTerm {
    /// Nodes with the same value of this label are near each other.
    pub topology_key: String,
    /// The pods' labels, with those of `matchLabelKeys` and `mismatchLabelKeys`.
    pub selector: LabelSelector,
    /// Namespaces of the pods, by name; the pod's own when it names none and selects none.
    pub namespaces: BTreeSet<String>,
    /// Namespaces of the pods, by label.
    pub namespace_selector: LabelSelector,
}

/// A term that counts so much.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightedAffinityTerm {
    /// 1 to 100.
    pub weight: i64,
    /// The term.
    pub term: AffinityTerm,
}

impl PodAffinity {
    /// What the affinity of a pod of that namespace and with those labels asks for; none when it says nothing of pods.
    pub(super) fn of(
        affinity: &core::Affinity,
        namespace: &str,
        labels: &BTreeMap<String, String>,
    ) -> Option<Self> {
        let term = |term: &core::PodAffinityTerm| AffinityTerm::of(term, namespace, labels);
        let weighted = |one: &core::WeightedPodAffinityTerm| WeightedAffinityTerm {
            weight: i64::from(one.weight),
            term: term(&one.pod_affinity_term),
        };
        let mut all = Self::default();
        if let Some(near) = &affinity.pod_affinity {
            let required = near.required_during_scheduling_ignored_during_execution.iter();
            let preferred = near.preferred_during_scheduling_ignored_during_execution.iter();
            all.required = required.flatten().map(term).collect();
            all.preferred = preferred.flatten().map(weighted).collect();
        }
        if let Some(far) = &affinity.pod_anti_affinity {
            let required = far.required_during_scheduling_ignored_during_execution.iter();
            let preferred = far.preferred_during_scheduling_ignored_during_execution.iter();
            all.required_anti = required.flatten().map(term).collect();
            all.preferred_anti = preferred.flatten().map(weighted).collect();
        }
        (all != Self::default()).then_some(all)
    }

    /// All terms.
    pub fn terms(&self) -> impl Iterator<Item = &AffinityTerm> {
        let weighted = self.preferred.iter().chain(&self.preferred_anti);
        let required = self.required.iter().chain(&self.required_anti);
        required.chain(weighted.map(|one| &one.term))
    }
}

impl AffinityTerm {
    fn of(term: &core::PodAffinityTerm, namespace: &str, labels: &BTreeMap<String, String>) -> Self {
        let mut namespaces: BTreeSet<String> = term.namespaces.iter().flatten().cloned().collect();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.insert(namespace.to_owned());
        }
        let same = with_label_keys(
            selector(term.label_selector.as_ref()),
            term.match_label_keys.as_ref(),
            Operator::In,
            labels,
        );
        Self {
            topology_key: term.topology_key.clone(),
            selector: with_label_keys(same, term.mismatch_label_keys.as_ref(), Operator::NotIn, labels),
            namespaces,
            namespace_selector: selector(term.namespace_selector.as_ref()),
        }
    }

    /// Whether the term is about a pod whose namespace has those labels.
    pub fn matches<'a>(
        &self,
        pod: &PodInfo,
        namespace_labels: impl FnOnce() -> &'a BTreeMap<String, String>,
    ) -> bool {
        self.selector.matches(&pod.labels)
            && (self.namespaces.contains(&pod.namespace)
                || !self.namespace_selector.is_nothing()
                    && self.namespace_selector.matches(namespace_labels()))
    }

    /// Whether the term may be about a pod, whatever labels its namespace has.
    #[must_use]
    pub fn may_match(&self, pod: &PodInfo) -> bool {
        self.selector.matches(&pod.labels)
            && (self.namespaces.contains(&pod.namespace) || !self.namespace_selector.is_nothing())
    }
}
