//! What the kinds that make pods from a template share.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::check::{Check, Path};
use super::pod_spec;
use super::selectors;
use super::text::text;

/// A selector that says something and matches the template's labels, and a template whose pods are kept running.
pub(crate) fn validate(
    check: &mut Check,
    selector: &LabelSelector,
    template: &PodTemplateSpec,
    kind: &str,
    path: &Path,
) {
    if selectors::is_empty(selector) {
        check.required(&path.child("selector"), "");
    } else {
        selectors::validate(check, Some(selector), &path.child("selector"));
    }
    let path = path.child("template");
    let labels = template.metadata.as_ref().and_then(|meta| meta.labels.clone());
    if selectors::is_empty(selector) || !selectors::matches(selector, &labels) {
        let shown = labels.unwrap_or_default();
        check.invalid(
            &path.child("metadata").child("labels"),
            shown,
            "`selector` does not match template `labels`",
        );
    }
    pod_spec::validate_template(check, template, &path);
    restarted(check, template, kind, &path.child("spec"));
}

fn restarted(check: &mut Check, template: &PodTemplateSpec, kind: &str, path: &Path) {
    let Some(spec) = &template.spec else { return };
    let policy = text(&spec.restart_policy);
    if ["OnFailure", "Never"].contains(&policy) {
        check.not_supported(&path.child("restartPolicy"), policy, &["Always"]);
    }
    if spec.active_deadline_seconds.is_some() {
        let why = format!("activeDeadlineSeconds in {kind} is not Supported");
        check.forbidden(&path.child("activeDeadlineSeconds"), why);
    }
}

/// Counts in a status are not negative.
pub(crate) fn counts(check: &mut Check, counts: &[(&'static str, Option<i32>)], path: &Path) {
    for (field, count) in counts {
        check.not_negative(&path.child(*field), i64::from(count.unwrap_or(0)));
    }
}

/// One count of a status is not above another.
pub(crate) fn at_most(
    check: &mut Check,
    field: &'static str,
    count: Option<i32>,
    most: Option<i32>,
    of: &str,
    path: &Path,
) {
    let count = count.unwrap_or(0);
    if count > most.unwrap_or(0) {
        check.invalid(&path.child(field), count, format!("cannot be greater than {of}"));
    }
}
