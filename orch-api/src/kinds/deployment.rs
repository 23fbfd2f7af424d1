//! Deployments.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStatus, DeploymentStrategy};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use orch_core::field::ErrorList;
use serde_json::Value;

use super::check::{Check, Path};
use super::semantic::{bump_generation, same};
use super::table::{self, AGE, CONTAINERS, IMAGES, NAME, SELECTOR, number, text_column};
use super::text::{default_text, drop_false, text};
use super::{int_or_percent, pod_spec, selectors, warnings, workload};
use crate::resource::ResourceInfo;
use crate::strategy::{Column, Kind, ScaleView};

/// The rules of deployments.
pub(super) struct Deployments;

impl Kind for Deployments {
    type Object = Deployment;

    fn info() -> ResourceInfo {
        ResourceInfo::namespaced("apps", "v1", "Deployment", "deployments")
            .short(["deploy"])
            .categories(["all"])
            .status()
            .scale()
    }

    fn default(deployment: &mut Deployment) {
        let spec = &mut deployment.spec;
        spec.replicas.get_or_insert(1);
        spec.revision_history_limit.get_or_insert(10);
        spec.progress_deadline_seconds.get_or_insert(600);
        drop_false(&mut spec.paused);
        if spec.min_ready_seconds == Some(0) {
            spec.min_ready_seconds = None;
        }
        let strategy = spec.strategy.get_or_insert_default();
        default_text(&mut strategy.type_, "RollingUpdate");
        if text(&strategy.type_) == "RollingUpdate" {
            let quarter = || IntOrString::String("25%".to_owned());
            let rolling = strategy.rolling_update.get_or_insert_default();
            rolling.max_unavailable.get_or_insert_with(quarter);
            rolling.max_surge.get_or_insert_with(quarter);
        }
        pod_spec::default_template(&mut spec.template);
    }

    fn prepare_for_create(deployment: &mut Deployment) {
        deployment.status = Some(DeploymentStatus::default());
        deployment.metadata.generation = Some(1);
    }

    fn prepare_for_update(new: &mut Deployment, old: &Deployment) {
        new.status.clone_from(&old.status);
        // Rollouts take annotations over to ReplicaSets, so the controller must see when they change.
        let changed =
            !same(&new.spec, &old.spec) || !same(&new.metadata.annotations, &old.metadata.annotations);
        bump_generation(&mut new.metadata, &old.metadata, changed);
    }

    fn prepare_for_status_update(new: &mut Deployment, old: &Deployment) {
        new.spec.clone_from(&old.spec);
        new.metadata.labels.clone_from(&old.metadata.labels);
        new.metadata.generation = old.metadata.generation;
    }

    fn validate(deployment: &Deployment) -> ErrorList {
        Check::run(|check| validate(check, &deployment.spec, &Path::new("spec")))
    }

    fn validate_update(new: &Deployment, old: &Deployment) -> ErrorList {
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

    fn validate_status_update(new: &Deployment, old: &Deployment) -> ErrorList {
        Check::run(|check| status(check, new, old))
    }

    fn warnings(new: &Deployment, old: Option<&Deployment>) -> Vec<String> {
        match old {
            None => warnings::of_template(&new.spec.template, &Path::new("spec").child("template")),
            Some(_) => Vec::new(),
        }
    }

    fn columns() -> &'static [Column] {
        static COLUMNS: &[Column] = &[
            NAME,
            text_column("Ready", "How many pods are ready, of how many wanted."),
            number("Up-to-date", "How many pods are made from the present template."),
            number("Available", "How many pods have been ready for long enough."),
            AGE,
            CONTAINERS,
            IMAGES,
            SELECTOR,
        ];
        COLUMNS
    }

    fn cells(deployment: &Deployment, now: Timestamp) -> Vec<Value> {
        let status = deployment.status.clone().unwrap_or_default();
        let spec = &deployment.spec;
        let wanted = spec.replicas.unwrap_or(0);
        let (containers, images) = table::containers(Some(&spec.template));
        vec![
            table::name(&deployment.metadata),
            format!("{}/{wanted}", status.ready_replicas.unwrap_or(0)).into(),
            status.updated_replicas.unwrap_or(0).into(),
            status.available_replicas.unwrap_or(0).into(),
            table::age(&deployment.metadata, now),
            containers,
            images,
            selectors::show(Some(&spec.selector)).into(),
        ]
    }

    fn scale(deployment: &Deployment) -> Option<ScaleView> {
        let spec = &deployment.spec;
        Some(ScaleView {
            spec_replicas: spec.replicas.unwrap_or(0),
            status_replicas: deployment
                .status
                .as_ref()
                .and_then(|status| status.replicas)
                .unwrap_or(0),
            selector: Some(selectors::text(&spec.selector)),
        })
    }

    fn set_replicas(deployment: &mut Deployment, replicas: i32) {
        deployment.spec.replicas = Some(replicas);
    }
}

fn validate(check: &mut Check, spec: &DeploymentSpec, path: &Path) {
    check.not_negative(&path.child("replicas"), spec.replicas.unwrap_or(0).into());
    workload::validate(check, &spec.selector, &spec.template, "ReplicaSet", path);
    if let Some(strategy) = &spec.strategy {
        self::strategy(check, strategy, &path.child("strategy"));
    }
    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    check.not_negative(&path.child("minReadySeconds"), min_ready.into());
    check.not_negative(
        &path.child("revisionHistoryLimit"),
        spec.revision_history_limit.unwrap_or(0).into(),
    );
    if let Some(deadline) = spec.progress_deadline_seconds {
        let at = path.child("progressDeadlineSeconds");
        check.not_negative(&at, deadline.into());
        if deadline <= min_ready {
            check.invalid(&at, deadline, "must be greater than minReadySeconds");
        }
    }
}

fn strategy(check: &mut Check, strategy: &DeploymentStrategy, path: &Path) {
    let at = path.child("rollingUpdate");
    match (text(&strategy.type_), &strategy.rolling_update) {
        ("Recreate", None) => {}
        ("Recreate", Some(_)) => {
            check.forbidden(&at, "may not be specified when strategy `type` is 'Recreate'");
        }
        ("RollingUpdate", None) => check.required(&at, "this should be defaulted and never be nil"),
        ("RollingUpdate", Some(rolling)) => {
            let (unavailable, surge) = (rolling.max_unavailable.as_ref(), rolling.max_surge.as_ref());
            for (field, value) in [("maxUnavailable", unavailable), ("maxSurge", surge)] {
                if let Some(value) = value {
                    int_or_percent::validate(check, value, &at.child(field));
                }
            }
            if int_or_percent::is_zero(unavailable) && int_or_percent::is_zero(surge) {
                check.invalid(
                    &at.child("maxUnavailable"),
                    unavailable,
                    "may not be 0 when `maxSurge` is 0",
                );
            }
            if let Some(unavailable) = unavailable {
                int_or_percent::at_most_all(check, unavailable, &at.child("maxUnavailable"));
            }
        }
        (other, _) => check.not_supported(&path.child("type"), other, &["Recreate", "RollingUpdate"]),
    }
}

fn status(check: &mut Check, new: &Deployment, old: &Deployment) {
    let path = Path::new("status");
    let status = new.status.clone().unwrap_or_default();
    check.not_negative(
        &path.child("observedGeneration"),
        status.observed_generation.unwrap_or(0),
    );
    let counts = [
        ("replicas", status.replicas),
        ("updatedReplicas", status.updated_replicas),
        ("readyReplicas", status.ready_replicas),
        ("availableReplicas", status.available_replicas),
        ("unavailableReplicas", status.unavailable_replicas),
        ("terminatingReplicas", status.terminating_replicas),
        ("collisionCount", status.collision_count),
    ];
    workload::counts(check, &counts, &path);
    let (all, ready) = (status.replicas, status.ready_replicas);
    workload::at_most(
        check,
        "updatedReplicas",
        status.updated_replicas,
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
    let before = old.status.as_ref().and_then(|status| status.collision_count);
    if before.is_some_and(|before| status.collision_count.is_none_or(|now| now < before)) {
        check.invalid(
            &path.child("collisionCount"),
            status.collision_count,
            "cannot be decremented",
        );
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deployment(spec: Value) -> Deployment {
        let mut deployment: Deployment =
            serde_json::from_value(json!({"metadata": {"name": "web"}, "spec": spec})).unwrap();
        Deployments::default(&mut deployment);
        deployment
    }

    fn sound() -> Value {
        json!({
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": "nginx:1.27"}]},
            },
        })
    }

    #[test]
    fn upstreams_defaults_are_filled_in() {
        let spec = serde_json::to_value(deployment(sound()).spec).unwrap();
        assert_eq!(spec["replicas"], 1);
        assert_eq!(spec["revisionHistoryLimit"], 10);
        assert_eq!(spec["progressDeadlineSeconds"], 600);
        assert_eq!(
            spec["strategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}})
        );
        assert_eq!(spec["template"]["spec"]["restartPolicy"], "Always");
        assert!(Deployments::validate(&deployment(sound())).is_empty());
    }

    #[test]
    fn the_selector_matches_the_template() {
        let mut spec = sound();
        spec["selector"]["matchLabels"]["app"] = json!("other");
        assert_eq!(
            Deployments::validate(&deployment(spec)).to_string(),
            "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`"
        );
    }

    #[test]
    fn a_selector_is_needed() {
        let mut spec = sound();
        spec.as_object_mut().unwrap().remove("selector");
        let errors = Deployments::validate(&deployment(spec)).to_string();
        assert!(
            errors.starts_with("[spec.selector: Required value, spec.template.metadata.labels"),
            "{errors}"
        );
    }

    #[test]
    fn the_selector_never_changes() {
        let old = deployment(sound());
        let mut new = old.clone();
        let selector = &mut new.spec.selector;
        selector.match_labels = None;
        selector.match_expressions =
            Some(serde_json::from_value(json!([{"key": "app", "operator": "Exists"}])).unwrap());
        let errors = Deployments::validate_update(&new, &old).to_string();
        assert!(
            errors.starts_with("spec.selector: Invalid value: {")
                && errors.ends_with("}: field is immutable")
        );
    }

    #[test]
    fn faults_are_told_with_their_fields() {
        for (change, errors) in [
            (
                json!({"replicas": -1}),
                "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
            ),
            (
                json!({"strategy": {"type": "Recreate", "rollingUpdate": {}}}),
                "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
            ),
            (
                json!({"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}}),
                "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0",
            ),
            (
                json!({"strategy": {"rollingUpdate": {"maxUnavailable": "101%"}}}),
                "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%",
            ),
            (
                json!({"strategy": {"type": "Other"}}),
                "spec.strategy.type: Unsupported value: \"Other\": supported values: \"Recreate\", \"RollingUpdate\"",
            ),
            (
                json!({"progressDeadlineSeconds": 5, "minReadySeconds": 5}),
                "spec.progressDeadlineSeconds: Invalid value: 5: must be greater than minReadySeconds",
            ),
        ] {
            let mut spec = sound();
            spec.as_object_mut()
                .unwrap()
                .extend(change.as_object().unwrap().clone());
            assert_eq!(Deployments::validate(&deployment(spec)).to_string(), errors);
        }
    }

    #[test]
    fn a_template_keeps_its_pods_running() {
        let mut spec = sound();
        spec["template"]["spec"]["restartPolicy"] = json!("Never");
        assert_eq!(
            Deployments::validate(&deployment(spec)).to_string(),
            "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\""
        );
    }

    #[test]
    fn the_generation_counts_changes_of_the_spec_and_not_of_the_status() {
        let mut old = deployment(sound());
        Deployments::prepare_for_create(&mut old);
        let mut new = old.clone();
        new.status.as_mut().unwrap().replicas = Some(3);
        Deployments::prepare_for_update(&mut new, &old);
        assert_eq!((new.metadata.generation, &new.status), (Some(1), &old.status));
        new.spec.replicas = Some(5);
        Deployments::prepare_for_update(&mut new, &old);
        assert_eq!(new.metadata.generation, Some(2));
    }

    #[test]
    fn the_table_is_kubectls() {
        let mut deployment = deployment(sound());
        deployment.status = Some(
            serde_json::from_value(json!({"readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 2}))
                .unwrap(),
        );
        let cells = Deployments::cells(&deployment, Timestamp::UNIX_EPOCH);
        assert_eq!(
            Value::from(cells),
            json!(["web", "2/1", 3, 2, "<unknown>", "web", "nginx:1.27", "app=web"])
        );
        let names: Vec<_> = Deployments::columns()
            .iter()
            .map(|column| column.name.as_ref())
            .collect();
        assert_eq!(
            names,
            [
                "Name",
                "Ready",
                "Up-to-date",
                "Available",
                "Age",
                "Containers",
                "Images",
                "Selector"
            ]
        );
    }
}
