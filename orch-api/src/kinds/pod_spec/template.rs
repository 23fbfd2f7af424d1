//! The template from which a workload makes its pods.

use k8s_openapi::api::core::v1 as core;

use super::{Context, default_spec, validate};
use crate::kinds::check::{Check, Path};
use crate::kinds::text::list;
use crate::kinds::{metadata, selectors};

/// Defaults of a template. Upstream writes an empty `creationTimestamp: null` there; it says nothing, so we do not.
pub(crate) fn default_template(template: &mut core::PodTemplateSpec) {
    template.metadata.get_or_insert_default();
    default_spec(template.spec.get_or_insert_default());
}

pub(crate) fn validate_template(check: &mut Check, template: &core::PodTemplateSpec, path: &Path) {
    if let Some(meta) = &template.metadata {
        selectors::labels(check, &meta.labels, &path.child("labels"));
        metadata::annotations(check, &meta.annotations, &path.child("annotations"));
    }
    let empty = core::PodSpec::default();
    let spec = template.spec.as_ref().unwrap_or(&empty);
    let path = path.child("spec");
    validate(check, spec, &Context::default(), &path);
    if !list(&spec.ephemeral_containers).is_empty() {
        check.forbidden(
            &path.child("ephemeralContainers"),
            "ephemeral containers not allowed in pod template",
        );
    }
}
