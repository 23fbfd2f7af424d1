//! What may change in a pod once it exists: images, a shorter deadline, more tolerations, fewer scheduling gates.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, Container, NodeAffinity, NodeSelectorTerm, Pod, PodSpec, Toleration,
};

use crate::kinds::check::{Check, Path};
use crate::kinds::semantic::{difference, same};
use crate::kinds::text::{entries, list};

/// Marks the API server's image of a static pod.
pub(super) const MIRROR: &str = "kubernetes.io/config.mirror";

const UPDATABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
                         `spec.tolerations` (only additions to existing tolerations),\
                         `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

pub(super) fn validate(check: &mut Check, new: &Pod, old: &Pod) {
    mirror(check, new, old, &Path::new("metadata").child("annotations"));
    let (Some(new), Some(old)) = (&new.spec, &old.spec) else {
        return;
    };
    if new == old {
        return;
    }
    let path = Path::new("spec");
    let counts = [
        ("containers", new.containers.len() == old.containers.len()),
        (
            "initContainers",
            list(&new.init_containers).len() == list(&old.init_containers).len(),
        ),
    ];
    for (field, equal) in counts {
        if !equal {
            check.forbidden(&path.child(field), "pod updates may not add or remove containers");
            return;
        }
    }
    if !deadline(check, new, old, &path.child("activeDeadlineSeconds")) {
        return;
    }
    tolerations(check, new, old, &path.child("tolerations"));
    gates(check, new, old, &path.child("schedulingGates"));
    rest(check, new, old, &path);
}

fn mirror(check: &mut Check, new: &Pod, old: &Pod, path: &Path) {
    let of = |pod: &Pod| {
        pod.metadata
            .annotations
            .as_ref()
            .and_then(|annotations| annotations.get(MIRROR).cloned())
    };
    match (of(old), of(new)) {
        (None, Some(_)) => check.forbidden(&path.key(MIRROR), "may not add mirror pod annotation"),
        (Some(before), after) if after.as_ref() != Some(&before) => {
            check.forbidden(
                &path.key(MIRROR),
                "may not remove or update mirror pod annotation",
            );
        }
        _ => {}
    }
}

/// A deadline may come, and come nearer. Whether the other rules should be looked at too.
fn deadline(check: &mut Check, new: &PodSpec, old: &PodSpec, path: &Path) -> bool {
    match (new.active_deadline_seconds, old.active_deadline_seconds) {
        (Some(after), Some(before)) if before < after => {
            check.invalid(path, after, "must be less than or equal to previous value");
            false
        }
        (None, Some(_)) => {
            check.invalid(
                path,
                None::<i64>,
                "must not update from a positive integer to nil value",
            );
            true
        }
        _ => true,
    }
}

fn tolerations(check: &mut Check, new: &PodSpec, old: &PodSpec, path: &Path) {
    let kept = |before: &Toleration| {
        list(&new.tolerations).iter().any(|after| {
            let retimed = Toleration {
                toleration_seconds: after.toleration_seconds,
                ..before.clone()
            };
            retimed == *after
        })
    };
    if !list(&old.tolerations).iter().all(kept) {
        check.forbidden(
            path,
            "existing toleration can not be modified except its tolerationSeconds",
        );
    }
}

fn gates(check: &mut Check, new: &PodSpec, old: &PodSpec, path: &Path) {
    for (i, gate) in list(&new.scheduling_gates).iter().enumerate() {
        if !list(&old.scheduling_gates).contains(gate) {
            let why = format!(
                "only deletion is allowed, but found new scheduling gate '{}'",
                gate.name
            );
            check.forbidden(&path.index(i).child("name"), why);
        }
    }
}

/// Puts the old values of everything that may change into a copy; the two must then be equal.
fn rest(check: &mut Check, new: &PodSpec, old: &PodSpec, path: &Path) {
    let mut munged = new.clone();
    images(&mut munged.containers, &old.containers);
    if let Some(containers) = &mut munged.init_containers {
        images(containers, list(&old.init_containers));
    }
    munged.active_deadline_seconds = old.active_deadline_seconds;
    munged.tolerations.clone_from(&old.tolerations);
    munged.scheduling_gates.clone_from(&old.scheduling_gates);
    let was_negative = old
        .termination_grace_period_seconds
        .is_some_and(|seconds| seconds < 0);
    if was_negative && munged.termination_grace_period_seconds == Some(1) {
        munged.termination_grace_period_seconds = old.termination_grace_period_seconds;
    }
    if !list(&old.scheduling_gates).is_empty() {
        gated(check, &mut munged, old, path);
    }
    if !same(&munged, old) {
        let changes = difference(old, &munged, "spec");
        check.forbidden(
            path,
            format!("pod updates may not change fields other than {UPDATABLE}\n{changes}"),
        );
    }
}

fn images(containers: &mut [Container], old: &[Container]) {
    for (container, old) in containers.iter_mut().zip(old) {
        container.image.clone_from(&old.image);
    }
}

/// A gated pod may still be narrowed to fewer nodes.
fn gated(check: &mut Check, munged: &mut PodSpec, old: &PodSpec, path: &Path) {
    let before: BTreeMap<_, _> = entries(&old.node_selector).collect();
    let after: BTreeMap<_, _> = entries(&munged.node_selector).collect();
    if before.iter().any(|(key, value)| after.get(key) != Some(value)) {
        let why = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        check.invalid(&path.child("nodeSelector"), &munged.node_selector, why);
    }
    munged.node_selector.clone_from(&old.node_selector);

    let of = |spec: &PodSpec| {
        spec.affinity
            .as_ref()
            .and_then(|affinity| affinity.node_affinity.clone())
    };
    let (before, after) = (of(old), of(munged));
    node_affinity(
        check,
        after.as_ref(),
        before.as_ref(),
        &path.child("affinity").child("nodeAffinity"),
    );
    if let Some(affinity) = &mut munged.affinity {
        affinity.node_affinity = before;
    } else if before.is_some() {
        munged.affinity = Some(Affinity {
            node_affinity: before,
            ..Affinity::default()
        });
    }
}

fn node_affinity(check: &mut Check, new: Option<&NodeAffinity>, old: Option<&NodeAffinity>, path: &Path) {
    let terms = |affinity: Option<&NodeAffinity>| {
        let required =
            affinity.and_then(|one| one.required_during_scheduling_ignored_during_execution.clone());
        required
            .map(|selector| selector.node_selector_terms)
            .unwrap_or_default()
    };
    let (before, after) = (terms(old), terms(new));
    if before.is_empty() {
        return;
    }
    let at = path
        .child("requiredDuringSchedulingIgnoredDuringExecution")
        .child("nodeSelectorTerms");
    if before.len() != after.len() {
        let why = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        check.invalid(&at, &after, why);
        return;
    }
    for (i, (before, after)) in before.iter().zip(&after).enumerate() {
        if !only_adds(after, before) {
            check.invalid(
                &at.index(i),
                after,
                "only additions are allowed (no mutations or deletions)",
            );
        }
    }
}

fn only_adds(new: &NodeSelectorTerm, old: &NodeSelectorTerm) -> bool {
    let (old_labels, old_fields) = (list(&old.match_expressions), list(&old.match_fields));
    let (new_labels, new_fields) = (list(&new.match_expressions), list(&new.match_fields));
    // A term without requirements matches nothing: to add one would widen it.
    if old_labels.is_empty() && old_fields.is_empty() {
        return new_labels.is_empty() && new_fields.is_empty();
    }
    new_labels.starts_with(old_labels) && new_fields.starts_with(old_fields)
}
