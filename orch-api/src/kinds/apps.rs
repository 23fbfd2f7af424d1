//! The other kinds of `apps`: DaemonSets, StatefulSets, ControllerRevisions.

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, StatefulSet};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use orch_core::field::ErrorList;
use orch_core::owner;

use super::check::{Check, Path};
use super::stored::{status_apart, table};
use super::table::{self as cell, AGE, CONTAINERS, IMAGES, NAME, NONE, SELECTOR, number, text_column};
use super::text::{default_text, text};
use super::{pod_spec, selectors, workload};
use crate::resource::ResourceInfo;
use crate::strategy::{Kind, ScaleView};

/// The rules of DaemonSets.
pub(super) struct DaemonSets;

impl Kind for DaemonSets {
    type Object = DaemonSet;

    fn info() -> ResourceInfo {
        ResourceInfo::namespaced("apps", "v1", "DaemonSet", "daemonsets")
            .short(["ds"])
            .categories(["all"])
            .status()
    }

    fn default(set: &mut DaemonSet) {
        let spec = &mut set.spec;
        spec.revision_history_limit.get_or_insert(10);
        let strategy = spec.update_strategy.get_or_insert_default();
        default_text(&mut strategy.type_, "RollingUpdate");
        if text(&strategy.type_) == "RollingUpdate" {
            let rolling = strategy.rolling_update.get_or_insert_default();
            rolling.max_unavailable.get_or_insert(IntOrString::Int(1));
            rolling.max_surge.get_or_insert(IntOrString::Int(0));
        }
        pod_spec::default_template(&mut spec.template);
    }

    status_apart!();

    fn validate(set: &DaemonSet) -> ErrorList {
        Check::run(|check| {
            let path = Path::new("spec");
            workload::validate(check, &set.spec.selector, &set.spec.template, "DaemonSet", &path);
            let strategy = set
                .spec
                .update_strategy
                .as_ref()
                .map_or("", |strategy| text(&strategy.type_));
            let at = path.child("updateStrategy").child("type");
            check.one_of(&at, strategy, &["OnDelete", "RollingUpdate"]);
            check.not_negative(
                &path.child("minReadySeconds"),
                set.spec.min_ready_seconds.unwrap_or(0).into(),
            );
        })
    }

    fn validate_update(new: &DaemonSet, old: &DaemonSet) -> ErrorList {
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

    table!(
        [
            NAME,
            number("Desired", "How many nodes should run a pod of it."),
            number("Current", "How many nodes run one."),
            number("Ready", "How many pods are ready."),
            number("Up-to-date", "How many pods are made from the present template."),
            number("Available", "How many pods have been ready for long enough."),
            text_column("Node Selector", "Which nodes run a pod of it."),
            AGE,
            CONTAINERS,
            IMAGES,
            SELECTOR,
        ],
        |set, now| {
            let status = set.status.clone().unwrap_or_default();
            let (containers, images) = cell::containers(Some(&set.spec.template));
            let nodes = set
                .spec
                .template
                .spec
                .as_ref()
                .and_then(|spec| spec.node_selector.clone());
            vec![
                cell::name(&set.metadata),
                status.desired_number_scheduled.into(),
                status.current_number_scheduled.into(),
                status.number_ready.into(),
                status.updated_number_scheduled.unwrap_or(0).into(),
                status.number_available.unwrap_or(0).into(),
                selectors::show_labels(&nodes).into(),
                cell::age(&set.metadata, now),
                containers,
                images,
                selectors::show(Some(&set.spec.selector)).into(),
            ]
        }
    );
}

/// The rules of StatefulSets.
pub(super) struct StatefulSets;

impl Kind for StatefulSets {
    type Object = StatefulSet;

    fn info() -> ResourceInfo {
        ResourceInfo::namespaced("apps", "v1", "StatefulSet", "statefulsets")
            .short(["sts"])
            .categories(["all"])
            .status()
            .scale()
    }

    fn default(set: &mut StatefulSet) {
        let spec = &mut set.spec;
        spec.replicas.get_or_insert(1);
        spec.revision_history_limit.get_or_insert(10);
        default_text(&mut spec.pod_management_policy, "OrderedReady");
        let strategy = spec.update_strategy.get_or_insert_default();
        default_text(&mut strategy.type_, "RollingUpdate");
        if text(&strategy.type_) == "RollingUpdate" {
            strategy
                .rolling_update
                .get_or_insert_default()
                .partition
                .get_or_insert(0);
        }
        let retention = spec
            .persistent_volume_claim_retention_policy
            .get_or_insert_default();
        default_text(&mut retention.when_deleted, "Retain");
        default_text(&mut retention.when_scaled, "Retain");
        pod_spec::default_template(&mut spec.template);
        for claim in spec.volume_claim_templates.iter_mut().flatten() {
            super::persistent_volume_claim::default_spec(claim.spec.get_or_insert_default());
        }
    }

    status_apart!();

    fn validate(set: &StatefulSet) -> ErrorList {
        Check::run(|check| {
            let path = Path::new("spec");
            workload::validate(
                check,
                &set.spec.selector,
                &set.spec.template,
                "StatefulSet",
                &path,
            );
            check.not_negative(&path.child("replicas"), set.spec.replicas.unwrap_or(0).into());
            check.not_negative(
                &path.child("minReadySeconds"),
                set.spec.min_ready_seconds.unwrap_or(0).into(),
            );
            let policy = text(&set.spec.pod_management_policy);
            check.one_of(
                &path.child("podManagementPolicy"),
                policy,
                &["OrderedReady", "Parallel"],
            );
            let strategy = set
                .spec
                .update_strategy
                .as_ref()
                .map_or("", |strategy| text(&strategy.type_));
            check.one_of(
                &path.child("updateStrategy").child("type"),
                strategy,
                &["OnDelete", "RollingUpdate"],
            );
        })
    }

    fn validate_update(new: &StatefulSet, old: &StatefulSet) -> ErrorList {
        let mut errors = Self::validate(new);
        let mut munged = new.spec.clone();
        munged.replicas = old.spec.replicas;
        munged.ordinals.clone_from(&old.spec.ordinals);
        munged.template.clone_from(&old.spec.template);
        munged.update_strategy.clone_from(&old.spec.update_strategy);
        munged.revision_history_limit = old.spec.revision_history_limit;
        munged.min_ready_seconds = old.spec.min_ready_seconds;
        munged
            .persistent_volume_claim_retention_policy
            .clone_from(&old.spec.persistent_volume_claim_retention_policy);
        if !super::semantic::same(&munged, &old.spec) {
            let why = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
                       'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
                       'minReadySeconds' are forbidden";
            errors.extend(Check::run(|check| check.forbidden(&Path::new("spec"), why)));
        }
        errors
    }

    table!(
        [
            NAME,
            text_column("Ready", "How many pods are ready, of how many wanted."),
            AGE,
            CONTAINERS,
            IMAGES,
        ],
        |set, now| {
            let ready = set
                .status
                .as_ref()
                .and_then(|status| status.ready_replicas)
                .unwrap_or(0);
            let (containers, images) = cell::containers(Some(&set.spec.template));
            vec![
                cell::name(&set.metadata),
                format!("{ready}/{}", set.spec.replicas.unwrap_or(0)).into(),
                cell::age(&set.metadata, now),
                containers,
                images,
            ]
        }
    );

    fn scale(set: &StatefulSet) -> Option<ScaleView> {
        Some(ScaleView {
            spec_replicas: set.spec.replicas.unwrap_or(0),
            status_replicas: set.status.as_ref().map_or(0, |status| status.replicas),
            selector: Some(selectors::text(&set.spec.selector)),
        })
    }

    fn set_replicas(set: &mut StatefulSet, replicas: i32) {
        set.spec.replicas = Some(replicas);
    }
}

/// The rules of ControllerRevisions.
pub(super) struct ControllerRevisions;

impl Kind for ControllerRevisions {
    type Object = ControllerRevision;

    fn info() -> ResourceInfo {
        ResourceInfo::namespaced("apps", "v1", "ControllerRevision", "controllerrevisions")
    }

    fn validate(revision: &ControllerRevision) -> ErrorList {
        Check::run(|check| {
            check.not_negative(&Path::new("revision"), revision.revision.unwrap_or(0));
            if revision.data.0.is_null() {
                check.required(&Path::new("data"), "data is mandatory");
            }
        })
    }

    fn validate_update(new: &ControllerRevision, old: &ControllerRevision) -> ErrorList {
        let mut errors = Self::validate(new);
        errors.extend(Check::run(|check| {
            check.immutable(&Path::new("data"), &new.data, &old.data)
        }));
        errors
    }

    table!(
        [
            NAME,
            text_column("Controller", "The object that the revision belongs to."),
            number("Revision", "The number of the revision."),
            AGE,
        ],
        |revision, now| {
            let controller = owner::controller_of(&revision.metadata).map_or_else(
                || NONE.to_owned(),
                |owner| {
                    let kind = owner.kind.to_lowercase();
                    match owner::group_of(&owner.api_version) {
                        "" => format!("{kind}/{}", owner.name),
                        group => format!("{kind}.{group}/{}", owner.name),
                    }
                },
            );
            vec![
                cell::name(&revision.metadata),
                controller.into(),
                revision.revision.unwrap_or(0).into(),
                cell::age(&revision.metadata, now),
            ]
        }
    );
}
