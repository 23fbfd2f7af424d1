//! Horizontal pod autoscalers.

use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscaler, MetricSpec, MetricStatus, MetricTarget, MetricValueStatus,
};
use orch_core::field::ErrorList;

use super::check::{Check, Path};
use super::stored::{status_apart_uncounted, table};
use super::table::{self as cell, AGE, NAME, NONE, UNKNOWN, UNSET, text_column};
use super::text::list;
use crate::resource::ResourceInfo;
use crate::strategy::Kind;

/// The rules of horizontal pod autoscalers.
pub(super) struct HorizontalPodAutoscalers;

impl Kind for HorizontalPodAutoscalers {
    type Object = HorizontalPodAutoscaler;

    fn info() -> ResourceInfo {
        ResourceInfo::namespaced(
            "autoscaling",
            "v2",
            "HorizontalPodAutoscaler",
            "horizontalpodautoscalers",
        )
        .short(["hpa"])
        .categories(["all"])
        .status()
    }

    fn default(scaler: &mut HorizontalPodAutoscaler) {
        scaler.spec.min_replicas.get_or_insert(1);
    }

    status_apart_uncounted!();

    fn validate(scaler: &HorizontalPodAutoscaler) -> ErrorList {
        Check::run(|check| {
            let spec = &scaler.spec;
            let path = Path::new("spec");
            let min = spec.min_replicas.unwrap_or(1);
            if min < 1 {
                check.invalid(
                    &path.child("minReplicas"),
                    min,
                    "must be greater than or equal to 1",
                );
            }
            if spec.max_replicas < 1 {
                check.invalid(
                    &path.child("maxReplicas"),
                    spec.max_replicas,
                    "must be greater than 0",
                );
            }
            if spec.max_replicas < min {
                let why = "must be greater than or equal to `minReplicas`";
                check.invalid(&path.child("maxReplicas"), spec.max_replicas, why);
            }
            let target = path.child("scaleTargetRef");
            check.present(&target.child("kind"), &spec.scale_target_ref.kind);
            check.present(&target.child("name"), &spec.scale_target_ref.name);
            let sources = ["ContainerResource", "External", "Object", "Pods", "Resource"];
            for (i, metric) in list(&spec.metrics).iter().enumerate() {
                let at = path.child("metrics").index(i).child("type");
                match metric.type_.as_str() {
                    "" => check.required(&at, "must specify a metric source type"),
                    sort => check.optional_one_of(&at, Some(sort), &sources),
                }
            }
        })
    }

    table!(
        [
            NAME,
            text_column("Reference", "What is scaled."),
            text_column("Targets", "Measured values and their targets."),
            text_column("MinPods", "The fewest pods."),
            text_column("MaxPods", "The most pods."),
            text_column("Replicas", "How many pods there are."),
            AGE,
        ],
        |scaler, now| {
            let spec = &scaler.spec;
            let reference = format!("{}/{}", spec.scale_target_ref.kind, spec.scale_target_ref.name);
            let replicas = scaler
                .status
                .as_ref()
                .and_then(|status| status.current_replicas)
                .unwrap_or(0);
            let min = spec
                .min_replicas
                .map_or_else(|| UNSET.to_owned(), |min| min.to_string());
            vec![
                cell::name(&scaler.metadata),
                reference.into(),
                targets(scaler).into(),
                min.into(),
                spec.max_replicas.to_string().into(),
                replicas.to_string().into(),
                cell::age(&scaler.metadata, now),
            ]
        }
    );
}

/// How many metrics a table shows before it only counts them.
const SHOWN: usize = 2;

fn targets(scaler: &HorizontalPodAutoscaler) -> String {
    let metrics = list(&scaler.spec.metrics);
    let current = scaler
        .status
        .as_ref()
        .map_or(&[][..], |status| list(&status.current_metrics));
    if metrics.is_empty() {
        return NONE.to_owned();
    }
    let shown: Vec<String> = metrics
        .iter()
        .enumerate()
        .map(|(i, metric)| target(metric, current.get(i)))
        .collect();
    let first = shown[..shown.len().min(SHOWN)].join(", ");
    if shown.len() > SHOWN {
        format!("{first} + {} more...", shown.len() - SHOWN)
    } else {
        first
    }
}

fn target(metric: &MetricSpec, current: Option<&MetricStatus>) -> String {
    if let Some(one) = &metric.resource {
        let now = current
            .and_then(|current| current.resource.as_ref())
            .map(|one| &one.current);
        return format!("{}: {}", one.name, share(&one.target, now));
    }
    if let Some(one) = &metric.container_resource {
        let now = current
            .and_then(|current| current.container_resource.as_ref())
            .map(|one| &one.current);
        return format!("{}: {}", one.name, share(&one.target, now));
    }
    if let Some(one) = &metric.pods {
        return average(
            &one.target,
            current
                .and_then(|current| current.pods.as_ref())
                .map(|one| &one.current),
            "",
        );
    }
    if let Some(one) = &metric.object {
        return value(
            &one.target,
            current
                .and_then(|current| current.object.as_ref())
                .map(|one| &one.current),
        );
    }
    if let Some(one) = &metric.external {
        return value(
            &one.target,
            current
                .and_then(|current| current.external.as_ref())
                .map(|one| &one.current),
        );
    }
    "<unknown type>".to_owned()
}

fn share(target: &MetricTarget, current: Option<&MetricValueStatus>) -> String {
    if target.average_value.is_some() {
        return average(target, current, "");
    }
    let now = current.and_then(|current| current.average_utilization);
    let now = now.map_or_else(|| UNKNOWN.to_owned(), |now| format!("{now}%"));
    let wanted = target
        .average_utilization
        .map_or_else(|| "<auto>".to_owned(), |wanted| format!("{wanted}%"));
    format!("{now}/{wanted}")
}

fn average(target: &MetricTarget, current: Option<&MetricValueStatus>, mark: &str) -> String {
    let now = current
        .and_then(|current| current.average_value.as_ref())
        .map_or(UNKNOWN, |now| &now.0);
    format!(
        "{now}/{}{mark}",
        target.average_value.as_ref().map_or(UNKNOWN, |wanted| &wanted.0)
    )
}

fn value(target: &MetricTarget, current: Option<&MetricValueStatus>) -> String {
    if target.average_value.is_some() {
        return average(target, current, " (avg)");
    }
    let now = current
        .and_then(|current| current.value.as_ref())
        .map_or(UNKNOWN, |now| &now.0);
    format!(
        "{now}/{}",
        target.value.as_ref().map_or(UNKNOWN, |wanted| &wanted.0)
    )
}
