//! Pods.

mod columns;
mod status;
mod update;

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodAffinityTerm, PodCondition, PodSpec, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelectorRequirement, Time};
use orch_core::field::ErrorList;
use serde_json::Value;

use super::check::{Check, Path};
use super::pod_spec::{self, Context};
use super::semantic::{bump_generation, same};
use super::text::{list, text};
use super::{resources, warnings};
use crate::resource::{ResourceInfo, Subresource};
use crate::strategy::{Column, Kind};

/// The rules of pods.
pub(super) struct Pods;

impl Kind for Pods {
    type Object = Pod;

    fn info() -> ResourceInfo {
        ResourceInfo::namespaced("", "v1", "Pod", "pods")
            .short(["po"])
            .categories(["all"])
            .status()
            .subresource(Subresource::Binding)
            .subresource(Subresource::Eviction)
            .subresource(Subresource::Log)
    }

    fn default(pod: &mut Pod) {
        let spec = pod.spec.get_or_insert_default();
        pod_spec::default_spec(spec);
        for container in spec
            .containers
            .iter_mut()
            .chain(spec.init_containers.iter_mut().flatten())
        {
            if let Some(requirements) = &mut container.resources {
                resources::requests_from_limits(requirements);
            }
        }
        if let Some(requirements) = &mut spec.resources {
            resources::requests_from_limits(requirements);
        }
        spec.enable_service_links.get_or_insert(true);
        if spec.host_network == Some(true) {
            host_ports(spec);
        }
    }

    fn prepare_for_create(pod: &mut Pod) {
        pod.metadata.generation = Some(1);
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        let spec = pod.spec.get_or_insert_default();
        affinity_terms(spec)
            .into_iter()
            .for_each(|term| narrow(term, &labels));
        pod.status = Some(PodStatus {
            phase: Some("Pending".to_owned()),
            qos_class: Some(resources::quality_of_service(spec).to_owned()),
            conditions: (!list(&spec.scheduling_gates).is_empty()).then(|| vec![gated()]),
            ..PodStatus::default()
        });
    }

    fn prepare_for_update(new: &mut Pod, old: &Pod) {
        new.status.clone_from(&old.status);
        let changed = !same(&new.spec, &old.spec);
        bump_generation(&mut new.metadata, &old.metadata, changed);
    }

    fn prepare_for_status_update(new: &mut Pod, old: &Pod) {
        new.spec.clone_from(&old.spec);
        new.metadata.generation = old.metadata.generation;
        new.metadata
            .deletion_timestamp
            .clone_from(&old.metadata.deletion_timestamp);
        new.metadata
            .owner_references
            .clone_from(&old.metadata.owner_references);
        let status = new.status.get_or_insert_default();
        if text(&status.qos_class).is_empty() {
            status.qos_class = old.status.as_ref().and_then(|status| status.qos_class.clone());
        }
    }

    fn validate(pod: &Pod) -> ErrorList {
        Check::run(|check| {
            validate(check, pod);
            let path = Path::new("spec");
            let Some(spec) = &pod.spec else { return };
            if !list(&spec.ephemeral_containers).is_empty() {
                check.forbidden(&path.child("ephemeralContainers"), "cannot be set on create");
            }
            if !text(&spec.node_name).is_empty() && !list(&spec.scheduling_gates).is_empty() {
                let why = "cannot be set until all schedulingGates have been cleared";
                check.forbidden(&path.child("nodeName"), why);
            }
        })
    }

    fn validate_update(new: &Pod, old: &Pod) -> ErrorList {
        Check::run(|check| {
            validate(check, new);
            update::validate(check, new, old);
        })
    }

    fn validate_status_update(new: &Pod, old: &Pod) -> ErrorList {
        Check::run(|check| status::validate(check, new, old))
    }

    fn warnings(new: &Pod, old: Option<&Pod>) -> Vec<String> {
        match (&new.spec, old) {
            (Some(spec), None) => warnings::of_spec(spec, &Path::new("spec")),
            _ => Vec::new(),
        }
    }

    fn columns() -> &'static [Column] {
        columns::COLUMNS
    }

    fn cells(pod: &Pod, now: Timestamp) -> Vec<Value> {
        columns::cells(pod, now)
    }

    fn selectable_fields(pod: &Pod) -> Vec<(&'static str, String)> {
        let spec = pod.spec.as_ref();
        let status = pod.status.as_ref();
        let of_spec =
            |field: fn(&PodSpec) -> &Option<String>| spec.map_or("", |spec| text(field(spec))).to_owned();
        let of_status = |field: fn(&PodStatus) -> &Option<String>| {
            status.map_or("", |status| text(field(status))).to_owned()
        };
        let address = status
            .and_then(|status| list(&status.pod_ips).first())
            .map(|one| one.ip.clone());
        let host_network = spec.and_then(|spec| spec.host_network).unwrap_or(false);
        vec![
            ("spec.nodeName", of_spec(|spec| &spec.node_name)),
            ("spec.restartPolicy", of_spec(|spec| &spec.restart_policy)),
            ("spec.schedulerName", of_spec(|spec| &spec.scheduler_name)),
            (
                "spec.serviceAccountName",
                of_spec(|spec| &spec.service_account_name),
            ),
            ("spec.hostNetwork", host_network.to_string()),
            ("status.phase", of_status(|status| &status.phase)),
            (
                "status.podIP",
                address.unwrap_or_else(|| of_status(|status| &status.pod_ip)),
            ),
            (
                "status.nominatedNodeName",
                of_status(|status| &status.nominated_node_name),
            ),
        ]
    }

    fn grace_period(pod: &Pod, requested: Option<i64>) -> Option<i64> {
        let spec = pod.spec.as_ref();
        let own = spec.and_then(|spec| spec.termination_grace_period_seconds);
        let period = requested.or(own).unwrap_or(0);
        let scheduled = spec.is_some_and(|spec| !text(&spec.node_name).is_empty());
        // Nobody has to confirm the end of what never started or has ended already.
        if !scheduled || columns::has_ended(pod) {
            return Some(0);
        }
        Some(if period < 0 { 1 } else { period })
    }
}

/// What holds for new and for changed pods.
fn validate(check: &mut Check, pod: &Pod) {
    let path = Path::new("spec");
    let empty = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&empty);
    annotations(check, pod, spec, &Path::new("metadata").child("annotations"));
    let pod_name = pod.metadata.name.as_deref().filter(|name| !name.is_empty());
    pod_spec::validate(
        check,
        spec,
        &Context {
            is_pod: true,
            pod_name,
        },
        &path,
    );
    if !text(&spec.service_account_name).is_empty() {
        return;
    }
    for (i, volume) in list(&spec.volumes).iter().enumerate() {
        let sources = volume
            .projected
            .as_ref()
            .map_or(&[][..], |projected| list(&projected.sources));
        for (j, source) in sources.iter().enumerate() {
            if source.service_account_token.is_some() {
                let at = path
                    .child("volumes")
                    .index(i)
                    .child("projected")
                    .child("sources")
                    .index(j);
                let why = "must not be specified when serviceAccountName is not set";
                check.forbidden(&at.child("serviceAccountToken"), why);
            }
        }
    }
}

fn annotations(check: &mut Check, pod: &Pod, spec: &PodSpec, path: &Path) {
    let get = |key: &str| {
        pod.metadata
            .annotations
            .as_ref()
            .and_then(|annotations| annotations.get(key))
    };
    if let Some(mirror) = get(update::MIRROR)
        && text(&spec.node_name).is_empty()
    {
        let why = "must set spec.nodeName if mirror pod annotation is set";
        check.invalid(&path.key(update::MIRROR), mirror, why);
    }
    let cost = "controller.kubernetes.io/pod-deletion-cost";
    if let Some(value) = get(cost)
        && (value.parse::<i32>().is_err()
            || value.starts_with('+')
            || (value.len() > 1 && value.starts_with('0')))
    {
        check.invalid(&path.key(cost), value, "must be a 32bit integer");
    }
}

/// On the host's network, a container's port is the host's.
fn host_ports(spec: &mut PodSpec) {
    let containers = spec
        .containers
        .iter_mut()
        .chain(spec.init_containers.iter_mut().flatten());
    for port in containers.flat_map(|container| container.ports.iter_mut().flatten()) {
        if port.host_port.unwrap_or(0) == 0 {
            port.host_port = Some(port.container_port);
        }
    }
}

fn gated() -> PodCondition {
    PodCondition {
        type_: "PodScheduled".to_owned(),
        status: "False".to_owned(),
        reason: Some("SchedulingGated".to_owned()),
        message: Some("Scheduling is blocked due to non-empty scheduling gates".to_owned()),
        last_transition_time: Some(Time(Timestamp::now())),
        ..PodCondition::default()
    }
}

fn affinity_terms(spec: &mut PodSpec) -> Vec<&mut PodAffinityTerm> {
    let Some(affinity) = &mut spec.affinity else {
        return Vec::new();
    };
    let mut terms = Vec::new();
    if let Some(pods) = &mut affinity.pod_affinity {
        terms.extend(
            pods.required_during_scheduling_ignored_during_execution
                .iter_mut()
                .flatten(),
        );
        let preferred = pods
            .preferred_during_scheduling_ignored_during_execution
            .iter_mut()
            .flatten();
        terms.extend(preferred.map(|weighted| &mut weighted.pod_affinity_term));
    }
    if let Some(pods) = &mut affinity.pod_anti_affinity {
        terms.extend(
            pods.required_during_scheduling_ignored_during_execution
                .iter_mut()
                .flatten(),
        );
        let preferred = pods
            .preferred_during_scheduling_ignored_during_execution
            .iter_mut()
            .flatten();
        terms.extend(preferred.map(|weighted| &mut weighted.pod_affinity_term));
    }
    terms
}

/// Narrows a term's selector to (or away from) the pod's own values of the labels in `matchLabelKeys` (or
/// `mismatchLabelKeys`).
fn narrow(term: &mut PodAffinityTerm, labels: &BTreeMap<String, String>) {
    let Some(selector) = &mut term.label_selector else {
        return;
    };
    let same = list(&term.match_label_keys).iter().map(|key| (key, "In"));
    let different = list(&term.mismatch_label_keys).iter().map(|key| (key, "NotIn"));
    for (key, operator) in same.chain(different) {
        let Some(value) = labels.get(key) else { continue };
        selector
            .match_expressions
            .get_or_insert_default()
            .push(LabelSelectorRequirement {
                key: key.clone(),
                operator: operator.to_owned(),
                values: Some(vec![value.clone()]),
            });
    }
}

#[cfg(test)]
mod tests;
