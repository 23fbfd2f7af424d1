use super::selector::{selector, with_label_keys};
use k8s_openapi::api::core::v1 as core;
use orch_core::selector::{LabelSelector, Operator};
use std::collections::BTreeMap;

/// What becomes of a pod that would be too many in its domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// `DoNotSchedule`: it waits.
    Required,
    /// `ScheduleAnyway`: it had better go elsewhere.
    Preferred,
}

/// One constraint on how many pods of a sort each domain of a topology has.
#[derive(Clone, Debug, PartialEq)]
pub struct SpreadConstraint {
    /// How many more pods than in the domain with the fewest there may be; at least 1.
    pub max_skew: i64,
    /// Nodes with the same value of this label are one domain.
    pub topology_key: String,
    /// What becomes of a pod that does not keep to it.
    pub spread: Spread,
    /// The pods that count, with the labels of `matchLabelKeys`.
    pub selector: LabelSelector,
    /// With fewer domains than this, one without pods is thought to exist; at least 1.
    pub min_domains: usize,
    /// Only nodes that the pod's node selector and affinity match make domains and have their pods counted.
    pub honours_node_affinity: bool,
    /// Only nodes whose taints the pod tolerates make domains and have their pods counted.
    pub honours_node_taints: bool,
}

impl SpreadConstraint {
    /// The constraint of a pod with those labels.
    pub(super) fn of(one: &core::TopologySpreadConstraint, labels: &BTreeMap<String, String>) -> Self {
        let pods = selector(one.label_selector.as_ref());
        Self {
            max_skew: i64::from(one.max_skew),
            topology_key: one.topology_key.clone(),
            spread: match one.when_unsatisfiable.as_str() {
                "ScheduleAnyway" => Spread::Preferred,
                _ => Spread::Required,
            },
            selector: with_label_keys(pods, one.match_label_keys.as_ref(), Operator::In, labels),
            min_domains: one.min_domains.and_then(|n| usize::try_from(n).ok()).unwrap_or(1),
            honours_node_affinity: one.node_affinity_policy.as_deref() != Some("Ignore"),
            honours_node_taints: one.node_taints_policy.as_deref() == Some("Honor"),
        }
    }
}
