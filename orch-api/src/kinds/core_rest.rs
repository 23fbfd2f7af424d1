//! The other kinds of the core group: replication controllers, quotas, limits, pod templates.

use k8s_openapi::api::core::v1::{LimitRange, PodTemplate, ReplicationController, ResourceQuota};
use orch_core::field::ErrorList;

use super::check::{Check, Path};
use super::stored::{status_apart, status_apart_uncounted, table};
use super::table::{self as cell, AGE, CONTAINERS, IMAGES, NAME, SELECTOR, number, text_column};
use super::text::{entries, list, text};
use super::{pod_spec, resources, selectors};
use crate::resource::ResourceInfo;
use crate::strategy::{Kind, ScaleView};

/// The rules of replication controllers.
pub(super) struct ReplicationControllers;

impl Kind for ReplicationControllers {
    type Object = ReplicationController;

    fn info() -> ResourceInfo {
        ResourceInfo::namespaced("", "v1", "ReplicationController", "replicationcontrollers")
            .short(["rc"])
            .categories(["all"])
            .status()
            .scale()
            .stored_at("controllers")
    }

    fn default(controller: &mut ReplicationController) {
        let spec = controller.spec.get_or_insert_default();
        spec.replicas.get_or_insert(1);
        let Some(template) = &mut spec.template else {
            return;
        };
        pod_spec::default_template(template);
        let labels = template.metadata.as_ref().and_then(|meta| meta.labels.clone());
        if entries(&spec.selector).next().is_none() {
            spec.selector.clone_from(&labels);
        }
        if entries(&controller.metadata.labels).next().is_none() {
            controller.metadata.labels = labels;
        }
    }

    status_apart!();

    fn validate(controller: &ReplicationController) -> ErrorList {
        Check::run(|check| {
            let spec = controller.spec.clone().unwrap_or_default();
            let path = Path::new("spec");
            check.not_negative(&path.child("replicas"), spec.replicas.unwrap_or(0).into());
            check.not_negative(
                &path.child("minReadySeconds"),
                spec.min_ready_seconds.unwrap_or(0).into(),
            );
            if entries(&spec.selector).next().is_none() {
                check.required(&path.child("selector"), "");
            }
            let path = path.child("template");
            let Some(template) = &spec.template else {
                check.required(&path, "");
                return;
            };
            let labels = template
                .metadata
                .as_ref()
                .and_then(|meta| meta.labels.clone())
                .unwrap_or_default();
            if entries(&spec.selector).any(|(key, value)| labels.get(key) != Some(value)) {
                let why = "`selector` does not match template `labels`";
                check.invalid(&path.child("metadata").child("labels"), &labels, why);
            }
            pod_spec::validate_template(check, template, &path);
            let policy = template
                .spec
                .as_ref()
                .map_or("", |spec| text(&spec.restart_policy));
            check.optional_one_of(
                &path.child("spec").child("restartPolicy"),
                Some(policy),
                &["Always"],
            );
        })
    }

    table!(
        [
            NAME,
            number("Desired", "How many pods are wanted."),
            number("Current", "How many pods there are."),
            number("Ready", "How many pods are ready."),
            AGE,
            CONTAINERS,
            IMAGES,
            SELECTOR,
        ],
        |controller, now| {
            let spec = controller.spec.clone().unwrap_or_default();
            let status = controller.status.clone().unwrap_or_default();
            let (containers, images) = cell::containers(spec.template.as_ref());
            vec![
                cell::name(&controller.metadata),
                spec.replicas.unwrap_or(0).into(),
                status.replicas.into(),
                status.ready_replicas.unwrap_or(0).into(),
                cell::age(&controller.metadata, now),
                containers,
                images,
                selectors::show_labels(&spec.selector).into(),
            ]
        }
    );

    fn selectable_fields(controller: &ReplicationController) -> Vec<(&'static str, String)> {
        let replicas = controller.status.as_ref().map_or(0, |status| status.replicas);
        vec![("status.replicas", replicas.to_string())]
    }

    fn scale(controller: &ReplicationController) -> Option<ScaleView> {
        let spec = controller.spec.as_ref()?;
        Some(ScaleView {
            spec_replicas: spec.replicas.unwrap_or(0),
            status_replicas: controller.status.as_ref().map_or(0, |status| status.replicas),
            selector: Some(selectors::show_labels(&spec.selector)),
        })
    }

    fn set_replicas(controller: &mut ReplicationController, replicas: i32) {
        controller.spec.get_or_insert_default().replicas = Some(replicas);
    }
}

/// The rules of quotas.
pub(super) struct ResourceQuotas;

impl Kind for ResourceQuotas {
    type Object = ResourceQuota;

    fn info() -> ResourceInfo {
        ResourceInfo::namespaced("", "v1", "ResourceQuota", "resourcequotas")
            .short(["quota"])
            .status()
    }

    fn default(quota: &mut ResourceQuota) {
        if let Some(spec) = &mut quota.spec {
            resources::normalise_list(&mut spec.hard);
        }
    }

    status_apart_uncounted!();

    fn validate(quota: &ResourceQuota) -> ErrorList {
        Check::run(|check| {
            let Some(spec) = &quota.spec else { return };
            let path = Path::new("spec");
            for (name, amount) in entries(&spec.hard) {
                let at = path.child("hard").key(name);
                // Counts of objects of any kind are quotas too.
                if !name.starts_with("count/") {
                    resources::name(check, name, &at);
                }
                resources::quantity(check, name, amount, &at);
            }
            let scopes = list(&spec.scopes);
            let has = |scope: &str| scopes.iter().any(|one| one == scope);
            if (has("BestEffort") && has("NotBestEffort")) || (has("Terminating") && has("NotTerminating")) {
                check.invalid(&path.child("scopes"), scopes, "conflicting scopes");
            }
        })
    }

    fn validate_update(new: &ResourceQuota, old: &ResourceQuota) -> ErrorList {
        let mut errors = Self::validate(new);
        errors.extend(Check::run(|check| {
            let scopes = |quota: &ResourceQuota| quota.spec.as_ref().and_then(|spec| spec.scopes.clone());
            check.immutable(&Path::new("spec").child("scopes"), &scopes(new), &scopes(old));
        }));
        errors
    }

    table!(
        [
            NAME,
            text_column("Request", "What is used of each resource, of how much."),
            text_column("Limit", "What is used of each limit, of how much."),
            AGE,
        ],
        |quota, now| {
            let status = quota.status.clone().unwrap_or_default();
            let (mut requests, mut limits) = (Vec::new(), Vec::new());
            for (name, hard) in entries(&status.hard) {
                let used = status
                    .used
                    .as_ref()
                    .and_then(|used| used.get(name))
                    .map_or("0", |used| &used.0);
                let shown = format!("{name}: {used}/{}", hard.0);
                if name.starts_with("limits.") {
                    limits.push(shown)
                } else {
                    requests.push(shown)
                }
            }
            vec![
                cell::name(&quota.metadata),
                requests.join(", ").into(),
                limits.join(", ").into(),
                cell::age(&quota.metadata, now),
            ]
        }
    );
}

/// The rules of limit ranges.
pub(super) struct LimitRanges;

impl Kind for LimitRanges {
    type Object = LimitRange;

    fn info() -> ResourceInfo {
        ResourceInfo::namespaced("", "v1", "LimitRange", "limitranges").short(["limits"])
    }

    fn default(range: &mut LimitRange) {
        for limit in range.spec.iter_mut().flat_map(|spec| spec.limits.iter_mut()) {
            let amounts = [
                &mut limit.max,
                &mut limit.min,
                &mut limit.default,
                &mut limit.default_request,
            ];
            amounts.into_iter().for_each(resources::normalise_list);
            if limit.type_ != "Container" {
                continue;
            }
            fill(limit.default.get_or_insert_default(), &limit.max);
            let default = limit.default.clone();
            let request = limit.default_request.get_or_insert_default();
            fill(request, &default);
            fill(request, &limit.min);
        }
    }

    fn validate(range: &LimitRange) -> ErrorList {
        Check::run(|check| {
            let path = Path::new("spec").child("limits");
            let limits = range.spec.as_ref().map_or(&[][..], |spec| &spec.limits);
            for (i, limit) in limits.iter().enumerate() {
                let at = path.index(i);
                if limits[..i].iter().any(|other| other.type_ == limit.type_) {
                    check.duplicate(&at.child("type"), &limit.type_);
                }
                for (field, amounts) in [
                    ("max", &limit.max),
                    ("min", &limit.min),
                    ("default", &limit.default),
                    ("defaultRequest", &limit.default_request),
                    ("maxLimitRequestRatio", &limit.max_limit_request_ratio),
                ] {
                    for (name, amount) in entries(amounts) {
                        resources::quantity(check, name, amount, &at.child(field).key(name));
                    }
                }
                bounds(check, limit, &at);
            }
        })
    }

    table!(
        [NAME, text_column("Created At", "When the object was created.")],
        |range, _now| {
            let created = range.metadata.creation_timestamp.as_ref();
            let created = created.map(|time| time.0.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
            vec![cell::name(&range.metadata), created.unwrap_or_default().into()]
        }
    );

    fn create_on_update() -> bool {
        true
    }
}

type Amounts = std::collections::BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>;

fn fill(amounts: &mut Amounts, from: &Option<Amounts>) {
    for (name, amount) in entries(from) {
        amounts.entry(name.clone()).or_insert_with(|| amount.clone());
    }
}

fn bounds(check: &mut Check, limit: &k8s_openapi::api::core::v1::LimitRangeItem, path: &Path) {
    for (name, min) in entries(&limit.min) {
        if let Some(max) = limit.max.as_ref().and_then(|max| max.get(name))
            && resources::is_less(max, min)
        {
            let why = format!("min value {} is greater than max value {}", min.0, max.0);
            check.invalid(&path.child("min").key(name), &min.0, why);
        }
    }
    for (name, default) in entries(&limit.default) {
        if let Some(max) = limit.max.as_ref().and_then(|max| max.get(name))
            && resources::is_less(max, default)
        {
            let why = format!("default value {} is greater than max value {}", default.0, max.0);
            check.invalid(&path.child("default").key(name), &max.0, why);
        }
    }
}

/// The rules of pod templates.
pub(super) struct PodTemplates;

impl Kind for PodTemplates {
    type Object = PodTemplate;

    fn info() -> ResourceInfo {
        ResourceInfo::namespaced("", "v1", "PodTemplate", "podtemplates")
    }

    fn default(template: &mut PodTemplate) {
        pod_spec::default_template(template.template.get_or_insert_default());
    }

    fn prepare_for_create(template: &mut PodTemplate) {
        template.metadata.generation = Some(1);
    }

    fn prepare_for_update(new: &mut PodTemplate, old: &PodTemplate) {
        let changed = !super::semantic::same(&new.template, &old.template);
        super::semantic::bump_generation(&mut new.metadata, &old.metadata, changed);
    }

    fn validate(template: &PodTemplate) -> ErrorList {
        Check::run(|check| {
            let inner = template.template.clone().unwrap_or_default();
            pod_spec::validate_template(check, &inner, &Path::new("template"));
        })
    }

    table!(
        [
            NAME,
            text_column("Containers", "Names of the containers in the template."),
            text_column("Images", "Images of the containers in the template."),
            text_column("Pod Labels", "The labels of the pods."),
        ],
        |template, _now| {
            let (containers, images) = cell::containers(template.template.as_ref());
            let meta = template
                .template
                .as_ref()
                .and_then(|inner| inner.metadata.as_ref());
            let labels = meta.and_then(|meta| meta.labels.clone());
            vec![
                cell::name(&template.metadata),
                containers,
                images,
                selectors::show_labels(&labels).into(),
            ]
        }
    );
}
