//! PATCH: the new object is computed from the present one, then takes the way of every update.

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use orch_core::field::{ErrorList, FieldError, Path};
use orch_core::status::{ApiError, GroupKind};
use serde_json::Value;

use super::live::Live;
use super::write::{Candidate, Outcome, Write};
use crate::server::yaml_to_json;
use crate::{ownership, patch};

const JSON_PATCH: &str = "application/json-patch+json";
const MERGE_PATCH: &str = "application/merge-patch+json";
const STRATEGIC_PATCH: &str = "application/strategic-merge-patch+json";
const APPLY_YAML: &str = "application/apply-patch+yaml";

/// The patch formats, told apart by media type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Merge,
    Strategic,
    Apply,
}

impl Format {
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, ApiError> {
        let value = headers
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        match value.split(';').next().unwrap_or_default().trim() {
            JSON_PATCH => Ok(Format::Json),
            MERGE_PATCH => Ok(Format::Merge),
            STRATEGIC_PATCH => Ok(Format::Strategic),
            APPLY_YAML => Ok(Format::Apply),
            _ => Err(ApiError::unsupported_media_type(&[
                JSON_PATCH,
                MERGE_PATCH,
                STRATEGIC_PATCH,
                APPLY_YAML,
            ])),
        }
    }
}

impl Write<'_> {
    /// PATCH of an object or of its status.
    pub(crate) async fn patch(&self, name: &str, format: Format, body: &[u8]) -> Result<Outcome, ApiError> {
        self.check_options(format)?;
        if format == Format::Strategic && !self.resource.strategy.merges_strategically() {
            return Err(ApiError::unsupported_media_type(&[
                JSON_PATCH,
                MERGE_PATCH,
                APPLY_YAML,
            ]));
        }
        let parsed = || -> Result<Value, ApiError> {
            serde_json::from_slice(body)
                .map_err(|error| ApiError::bad_request(format!("error decoding patch: {error}")))
        };
        match format {
            Format::Apply => self.apply(name, body).await,
            Format::Json | Format::Merge | Format::Strategic => {
                let patch = parsed()?;
                self.change(name, || Ok(None), |live| self.patched(name, format, &patch, live))
                    .await
            }
        }
    }

    /// Upstream's `ValidatePatchOptions`.
    fn check_options(&self, format: Format) -> Result<(), ApiError> {
        let mut errors = ErrorList::new();
        if format == Format::Apply && !self.options.names_manager {
            errors.push(FieldError::required(
                &Path::new("fieldManager"),
                "is required for apply patch",
            ));
        }
        if format != Format::Apply && self.options.force.is_some() {
            errors.push(FieldError::forbidden(
                &Path::new("force"),
                "may not be specified for non-apply patch",
            ));
        }
        if errors.is_empty() {
            return Ok(());
        }
        Err(ApiError::invalid(
            &GroupKind::new("meta.k8s.io", "PatchOptions"),
            "",
            &errors,
        ))
    }

    fn patched(&self, name: &str, format: Format, patch: &Value, live: &Live) -> Result<Candidate, ApiError> {
        let present = live.object.to_value();
        let value = match format {
            Format::Json => patch::json(&present, patch)?,
            Format::Strategic => patch::strategic(present, patch.clone(), self.resource.strategy.schema())?,
            Format::Merge | Format::Apply => patch::merge(present, patch)?,
        };
        let mut candidate = self.read_value(&value, Vec::new())?;
        self.place(&mut *candidate.object, Some(name))?;
        forget_version(&mut candidate, live);
        Ok(candidate)
    }

    /// Server-side apply: creates what is not there, and tracks who wants which field.
    async fn apply(&self, name: &str, body: &[u8]) -> Result<Outcome, ApiError> {
        let yaml = yaml_to_json(body)?;
        let configuration: Value = serde_json::from_slice(&yaml).map_err(ApiError::internal)?;
        let applied = |live: Option<&Live>| -> Result<Candidate, ApiError> {
            let value = ownership::apply(self, live.map(|live| &*live.object), &configuration)?;
            let mut candidate = self.read_value(&value, Vec::new())?;
            self.place(&mut *candidate.object, Some(name))?;
            candidate.owners_known = true;
            if let Some(live) = live {
                forget_version(&mut candidate, live);
            }
            Ok(candidate)
        };
        let creates = self.subresource.is_none();
        let or_create = || creates.then(|| applied(None)).transpose();
        self.change(name, or_create, |live| applied(Some(live))).await
    }
}

/// The present version is in what was patched. It guards the write only when the patch itself brought another.
fn forget_version(candidate: &mut Candidate, live: &Live) {
    let metadata = candidate.object.metadata_mut();
    if metadata.resource_version == live.object.metadata().resource_version {
        metadata.resource_version = None;
    }
}
