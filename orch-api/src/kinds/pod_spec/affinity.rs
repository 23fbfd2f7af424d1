//! Where a pod may run: affinity, tolerations, topology spread.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::kinds::check::{Check, Path};
use crate::kinds::text::{entries, list, text};
use crate::kinds::{format, selectors};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

pub(super) fn affinity(check: &mut Check, affinity: &core::Affinity, path: &Path) {
    if let Some(node) = &affinity.node_affinity {
        node_affinity(check, node, &path.child("nodeAffinity"));
    }
    if let Some(pods) = &affinity.pod_affinity {
        let path = path.child("podAffinity");
        pod_terms(
            check,
            list(&pods.required_during_scheduling_ignored_during_execution),
            &path,
        );
        weighted_terms(
            check,
            list(&pods.preferred_during_scheduling_ignored_during_execution),
            &path,
        );
    }
    if let Some(pods) = &affinity.pod_anti_affinity {
        let path = path.child("podAntiAffinity");
        pod_terms(
            check,
            list(&pods.required_during_scheduling_ignored_during_execution),
            &path,
        );
        weighted_terms(
            check,
            list(&pods.preferred_during_scheduling_ignored_during_execution),
            &path,
        );
    }
}

fn node_affinity(check: &mut Check, affinity: &core::NodeAffinity, path: &Path) {
    if let Some(selector) = &affinity.required_during_scheduling_ignored_during_execution {
        node_selector(check, selector, &path.child(REQUIRED));
    }
    let preferred = list(&affinity.preferred_during_scheduling_ignored_during_execution);
    for (i, term) in preferred.iter().enumerate() {
        let path = path.child(PREFERRED).index(i);
        weight(check, term.weight, &path);
        node_term(check, &term.preference, false, &path.child("preference"));
    }
}

pub(crate) fn node_selector(check: &mut Check, selector: &core::NodeSelector, path: &Path) {
    let path = path.child("nodeSelectorTerms");
    if selector.node_selector_terms.is_empty() {
        check.required(&path, "must have at least one node selector term");
    }
    for (i, term) in selector.node_selector_terms.iter().enumerate() {
        node_term(check, term, true, &path.index(i));
    }
}

/// A preference may name label values that no label can have; a requirement may not.
fn node_term(check: &mut Check, term: &core::NodeSelectorTerm, strict: bool, path: &Path) {
    for (i, one) in list(&term.match_expressions).iter().enumerate() {
        node_requirement(check, one, strict, &path.child("matchExpressions").index(i));
    }
    for (i, one) in list(&term.match_fields).iter().enumerate() {
        node_field(check, one, &path.child("matchFields").index(i));
    }
}

fn node_requirement(check: &mut Check, one: &core::NodeSelectorRequirement, strict: bool, path: &Path) {
    let values = list(&one.values);
    let at = path.child("values");
    match one.operator.as_str() {
        "In" | "NotIn" if values.is_empty() => {
            check.required(&at, "must be specified when `operator` is 'In' or 'NotIn'");
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            check.forbidden(
                &at,
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            );
        }
        "Gt" | "Lt" if values.len() != 1 => {
            check.required(
                &at,
                "must be specified single value when `operator` is 'Lt' or 'Gt'",
            );
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => check.invalid(&path.child("operator"), other, "not a valid selector operator"),
    }
    check.faults(&path.child("key"), &one.key, format::qualified_name(&one.key));
    if strict {
        for (i, value) in values.iter().enumerate() {
            check.faults(&at.index(i), value, format::label_value(value));
        }
    }
}

fn node_field(check: &mut Check, one: &core::NodeSelectorRequirement, path: &Path) {
    let values = list(&one.values);
    match one.operator.as_str() {
        "In" | "NotIn" => {
            if values.len() != 1 {
                let why = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
                check.required(&path.child("values"), why);
            }
        }
        other => check.invalid(&path.child("operator"), other, "not a valid selector operator"),
    }
    if one.key == "metadata.name" {
        for (i, value) in values.iter().enumerate() {
            check.faults(
                &path.child("values").index(i),
                value,
                format::dns1123_subdomain(value),
            );
        }
    } else {
        check.invalid(&path.child("key"), &one.key, "not a valid field selector key");
    }
}

fn weight(check: &mut Check, weight: i32, path: &Path) {
    if !(1..=100).contains(&weight) {
        check.invalid(&path.child("weight"), weight, "must be in the range 1-100");
    }
}

fn pod_terms(check: &mut Check, terms: &[core::PodAffinityTerm], path: &Path) {
    for (i, term) in terms.iter().enumerate() {
        pod_term(check, term, &path.child(REQUIRED).index(i));
    }
}

fn weighted_terms(check: &mut Check, terms: &[core::WeightedPodAffinityTerm], path: &Path) {
    for (i, term) in terms.iter().enumerate() {
        let path = path.child(PREFERRED).index(i);
        weight(check, term.weight, &path);
        pod_term(check, &term.pod_affinity_term, &path.child("podAffinityTerm"));
    }
}

fn pod_term(check: &mut Check, term: &core::PodAffinityTerm, path: &Path) {
    selectors::validate(check, term.label_selector.as_ref(), &path.child("labelSelector"));
    selectors::validate(
        check,
        term.namespace_selector.as_ref(),
        &path.child("namespaceSelector"),
    );
    for namespace in list(&term.namespaces) {
        check.faults(
            &path.child("namespace"),
            namespace,
            format::dns1123_label(namespace),
        );
    }
    let selector = term.label_selector.as_ref();
    label_keys(
        check,
        list(&term.match_label_keys),
        selector,
        &path.child("matchLabelKeys"),
    );
    label_keys(
        check,
        list(&term.mismatch_label_keys),
        selector,
        &path.child("mismatchLabelKeys"),
    );
    both_ways(check, term, path);
    if term.topology_key.is_empty() {
        check.required(&path.child("topologyKey"), "can not be empty");
    }
    check.faults(
        &path.child("topologyKey"),
        &term.topology_key,
        format::qualified_name(&term.topology_key),
    );
}

fn label_keys(check: &mut Check, keys: &[String], selector: Option<&LabelSelector>, path: &Path) {
    if keys.is_empty() {
        return;
    }
    if selector.is_none() {
        check.forbidden(path, "must not be specified when labelSelector is not set");
        return;
    }
    for (i, key) in keys.iter().enumerate() {
        check.faults(&path.index(i), key, format::qualified_name(key));
    }
}

fn both_ways(check: &mut Check, term: &core::PodAffinityTerm, path: &Path) {
    for (i, key) in list(&term.match_label_keys).iter().enumerate() {
        if list(&term.mismatch_label_keys).contains(key) {
            let why = "exists in both matchLabelKeys and mismatchLabelKeys";
            check.invalid(&path.child("matchLabelKeys").index(i), key, why);
        }
    }
}

pub(super) fn tolerations(check: &mut Check, tolerations: &[core::Toleration], path: &Path) {
    for (i, toleration) in tolerations.iter().enumerate() {
        self::toleration(check, toleration, &path.index(i));
    }
}

fn toleration(check: &mut Check, toleration: &core::Toleration, path: &Path) {
    let (key, operator) = (text(&toleration.key), text(&toleration.operator));
    let (value, effect) = (text(&toleration.value), text(&toleration.effect));
    if !key.is_empty() {
        check.faults(&path.child("key"), key, format::qualified_name(key));
    } else if operator != "Exists" {
        let why =
            "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        check.invalid(&path.child("operator"), operator, why);
    }
    if toleration.toleration_seconds.is_some() && effect != "NoExecute" {
        let why = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        check.invalid(&path.child("effect"), effect, why);
    }
    let at = path.child("operator");
    match operator {
        "Equal" | "" => {
            let faults = format::label_value(value);
            if !faults.is_empty() {
                check.invalid(&at, value, faults.join(";"));
            }
        }
        "Exists" => {
            if !value.is_empty() {
                check.invalid(&at, value, "value must be empty when `operator` is 'Exists'");
            }
        }
        "Lt" | "Gt" => {
            if value.parse::<i64>().is_err() {
                check.invalid(
                    &path.child("value"),
                    value,
                    "value must be a valid integer for numeric operators",
                );
            }
        }
        other => check.not_supported(&at, other, &["Equal", "Exists", "Gt", "Lt"]),
    }
    if !effect.is_empty() {
        taint_effect(check, effect, &path.child("effect"));
    }
}

pub(crate) fn taint_effect(check: &mut Check, effect: &str, path: &Path) {
    check.one_of(path, effect, &["NoSchedule", "PreferNoSchedule", "NoExecute"]);
}

pub(super) fn topology_spread(
    check: &mut Check,
    constraints: &[core::TopologySpreadConstraint],
    path: &Path,
) {
    let mut seen = BTreeSet::new();
    for (i, one) in constraints.iter().enumerate() {
        let at = path.index(i);
        let pair = (one.topology_key.as_str(), one.when_unsatisfiable.as_str());
        spread_constraint(check, one, &at);
        if !seen.insert(pair) {
            check.duplicate(
                &at.child("{topologyKey, whenUnsatisfiable}"),
                format!("{{{}, {}}}", pair.0, pair.1),
            );
        }
    }
}

fn spread_constraint(check: &mut Check, one: &core::TopologySpreadConstraint, path: &Path) {
    const ACTIONS: [&str; 2] = ["DoNotSchedule", "ScheduleAnyway"];
    if one.max_skew <= 0 {
        check.invalid(&path.child("maxSkew"), one.max_skew, format::NOT_POSITIVE);
    }
    if one.topology_key.is_empty() {
        check.required(&path.child("topologyKey"), "can not be empty");
    }
    if !ACTIONS.contains(&one.when_unsatisfiable.as_str()) {
        check.not_supported(
            &path.child("whenUnsatisfiable"),
            &one.when_unsatisfiable,
            &ACTIONS,
        );
    }
    if let Some(domains) = one.min_domains {
        let at = path.child("minDomains");
        if domains <= 0 {
            check.invalid(&at, domains, format::NOT_POSITIVE);
        }
        if one.when_unsatisfiable != "DoNotSchedule" {
            let action = &one.when_unsatisfiable;
            let why = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
            check.invalid(&at, domains, why);
        }
    }
    for (field, policy) in [
        ("nodeAffinityPolicy", &one.node_affinity_policy),
        ("nodeTaintsPolicy", &one.node_taints_policy),
    ] {
        check.optional_one_of(&path.child(field), policy.as_deref(), &["Honor", "Ignore"]);
    }
    spread_label_keys(check, one, &path.child("matchLabelKeys"));
    selectors::validate(check, one.label_selector.as_ref(), &path.child("labelSelector"));
}

fn spread_label_keys(check: &mut Check, one: &core::TopologySpreadConstraint, path: &Path) {
    let keys = list(&one.match_label_keys);
    if keys.is_empty() {
        return;
    }
    let Some(selector) = &one.label_selector else {
        check.forbidden(path, "must not be specified when labelSelector is not set");
        return;
    };
    for (i, key) in keys.iter().enumerate() {
        check.faults(&path.index(i), key, format::qualified_name(key));
        let in_labels = entries(&selector.match_labels).any(|(label, _)| label == key);
        let in_expressions = list(&selector.match_expressions)
            .iter()
            .any(|one| one.key == *key);
        if in_labels || in_expressions {
            check.invalid(
                &path.index(i),
                key,
                "exists in both matchLabelKeys and labelSelector",
            );
        }
    }
}
