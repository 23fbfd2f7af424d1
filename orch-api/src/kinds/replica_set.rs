//! ReplicaSets.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use orch_core::field::ErrorList;
use serde_json::Value;

use super::check::{Check, Path};
use super::semantic::{bump_generation, same};
use super::table::{self, AGE, CONTAINERS, IMAGES, NAME, SELECTOR, number};
use super::{pod_spec, selectors, warnings, workload};
use crate::resource::ResourceInfo;
use crate::strategy::{Column, Kind, ScaleView};

/// The rules of ReplicaSets.
pub(super) struct ReplicaSets;

impl Kind for ReplicaSets {
    type Object = ReplicaSet;

    fn info() -> ResourceInfo {
        ResourceInfo::namespaced("apps", "v1", "ReplicaSet", "replicasets")
            .short(["rs"])
            .categories(["all"])
            .status()
            .scale()
    }

    fn default(set: &mut ReplicaSet) {
        let spec = &mut set.spec;
        spec.replicas.get_or_insert(1);
        if spec.min_ready_seconds == Some(0) {
            spec.min_ready_seconds = None;
        }
        if let Some(template) = &mut spec.template {
            pod_spec::default_template(template);
        }
    }

    fn prepare_for_create(set: &mut ReplicaSet) {
        set.status = Some(ReplicaSetStatus::default());
        set.metadata.generation = Some(1);
    }

    fn prepare_for_update(new: &mut ReplicaSet, old: &ReplicaSet) {
        new.status.clone_from(&old.status);
        let changed = !same(&new.spec, &old.spec);
        bump_generation(&mut new.metadata, &old.metadata, changed);
    }

    fn prepare_for_status_update(new: &mut ReplicaSet, old: &ReplicaSet) {
        new.spec.clone_from(&old.spec);
        new.metadata.generation = old.metadata.generation;
    }

    fn validate(set: &ReplicaSet) -> ErrorList {
        Check::run(|check| {
            let spec = &set.spec;
            let path = Path::new("spec");
            check.not_negative(&path.child("replicas"), spec.replicas.unwrap_or(0).into());
            check.not_negative(
                &path.child("minReadySeconds"),
                spec.min_ready_seconds.unwrap_or(0).into(),
            );
            match &spec.template {
                Some(template) => workload::validate(check, &spec.selector, template, "ReplicaSet", &path),
                None => check.required(&path.child("template"), ""),
            }
        })
    }

    fn validate_update(new: &ReplicaSet, old: &ReplicaSet) -> ErrorList {
        let mut errors = Self::validate(new);
        errors.extend(Check::run(|check| {
            check.immutable(
                &Path::new("spec").child("selector"),
                &new.spec.selector,
                &old.spec.selector,
            );
        }));
        errors
    }

    fn validate_status_update(new: &ReplicaSet, _old: &ReplicaSet) -> ErrorList {
        Check::run(|check| {
            let path = Path::new("status");
            let status = new.status.clone().unwrap_or_default();
            check.not_negative(
                &path.child("observedGeneration"),
                status.observed_generation.unwrap_or(0),
            );
            let (all, ready, labelled) = (
                Some(status.replicas),
                status.ready_replicas,
                status.fully_labeled_replicas,
            );
            let counts = [
                ("replicas", all),
                ("fullyLabeledReplicas", labelled),
                ("readyReplicas", ready),
                ("availableReplicas", status.available_replicas),
                ("terminatingReplicas", status.terminating_replicas),
            ];
            workload::counts(check, &counts, &path);
            workload::at_most(
                check,
                "fullyLabeledReplicas",
                labelled,
                all,
                "status.replicas",
                &path,
            );
            workload::at_most(check, "readyReplicas", ready, all, "status.replicas", &path);
            workload::at_most(
                check,
                "availableReplicas",
                status.available_replicas,
                all,
                "status.replicas",
                &path,
            );
            workload::at_most(
                check,
                "availableReplicas",
                status.available_replicas,
                ready,
                "readyReplicas",
                &path,
            );
        })
    }

    fn warnings(new: &ReplicaSet, old: Option<&ReplicaSet>) -> Vec<String> {
        match (template(new), old) {
            (Some(template), None) => warnings::of_template(template, &Path::new("spec").child("template")),
            _ => Vec::new(),
        }
    }

    fn columns() -> &'static [Column] {
        static COLUMNS: &[Column] = &[
            NAME,
            number("Desired", "How many pods are wanted."),
            number("Current", "How many pods there are."),
            number("Ready", "How many pods are ready."),
            AGE,
            CONTAINERS,
            IMAGES,
            SELECTOR,
        ];
        COLUMNS
    }

    fn cells(set: &ReplicaSet, now: Timestamp) -> Vec<Value> {
        let status = set.status.clone().unwrap_or_default();
        let spec = &set.spec;
        let (containers, images) = table::containers(template(set));
        vec![
            table::name(&set.metadata),
            spec.replicas.unwrap_or(0).into(),
            status.replicas.into(),
            status.ready_replicas.unwrap_or(0).into(),
            table::age(&set.metadata, now),
            containers,
            images,
            selectors::show(Some(&spec.selector)).into(),
        ]
    }

    fn selectable_fields(set: &ReplicaSet) -> Vec<(&'static str, String)> {
        let replicas = set.status.as_ref().map_or(0, |status| status.replicas);
        vec![("status.replicas", replicas.to_string())]
    }

    fn scale(set: &ReplicaSet) -> Option<ScaleView> {
        let spec = &set.spec;
        Some(ScaleView {
            spec_replicas: spec.replicas.unwrap_or(0),
            status_replicas: set.status.as_ref().map_or(0, |status| status.replicas),
            selector: Some(selectors::text(&spec.selector)),
        })
    }

    fn set_replicas(set: &mut ReplicaSet, replicas: i32) {
        set.spec.replicas = Some(replicas);
    }
}

fn template(set: &ReplicaSet) -> Option<&PodTemplateSpec> {
    set.spec.template.as_ref()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn set(spec: Value) -> ReplicaSet {
        let mut set: ReplicaSet = serde_json::from_value(json!({"spec": spec})).unwrap();
        ReplicaSets::default(&mut set);
        set
    }

    #[test]
    fn a_template_is_needed() {
        let errors = ReplicaSets::validate(&set(json!({"selector": {"matchLabels": {"a": "b"}}})));
        assert_eq!(errors.to_string(), "spec.template: Required value");
    }

    #[test]
    fn a_status_adds_up() {
        let mut one = set(json!({}));
        one.status = Some(serde_json::from_value(json!({"replicas": 1, "readyReplicas": 2})).unwrap());
        assert_eq!(
            ReplicaSets::validate_status_update(&one, &one).to_string(),
            "status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas"
        );
    }

    #[test]
    fn the_scale_view_shows_replicas_and_selector() {
        let mut one = set(json!({"replicas": 3, "selector": {"matchLabels": {"a": "b"}}}));
        ReplicaSets::set_replicas(&mut one, 5);
        assert_eq!(
            ReplicaSets::scale(&one),
            Some(ScaleView {
                spec_replicas: 5,
                status_replicas: 0,
                selector: Some("a=b".to_owned())
            })
        );
    }
}
