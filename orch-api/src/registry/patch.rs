//! PATCH: the new object is computed from the present one, then takes the way of every update.

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use orch_core::status::ApiError;
use serde_json::Value;

use super::live::Live;
use super::write::{Candidate, Outcome, Write};
use crate::{patch, schema};

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
        let parsed = || -> Result<Value, ApiError> {
            serde_json::from_slice(body)
                .map_err(|error| ApiError::bad_request(format!("error decoding patch: {error}")))
        };
        match format {
            Format::Apply => self.apply(name, body).await,
            Format::Json | Format::Merge | Format::Strategic => {
                let patch = parsed()?;
                self.change(name, None, |live| self.patched(name, format, &patch, live))
                    .await
            }
        }
    }

    fn patched(&self, name: &str, format: Format, patch: &Value, live: &Live) -> Result<Candidate, ApiError> {
        let info = self.resource.info();
        let present = live.object.to_value();
        let value = match format {
            Format::Json => patch::json(&present, patch)?,
            Format::Strategic => {
                let schema = schema::root(&info.group, &info.version, &info.kind);
                patch::strategic(present, patch.clone(), schema)?
            }
            Format::Merge | Format::Apply => patch::merge(present, patch)?,
        };
        let mut candidate = self.read_value(&value, Vec::new())?;
        self.place(&mut *candidate.object, Some(name))?;
        Ok(candidate)
    }

    async fn apply(&self, _name: &str, _body: &[u8]) -> Result<Outcome, ApiError> {
        Err(ApiError::unsupported_media_type(&[
            JSON_PATCH,
            MERGE_PATCH,
            STRATEGIC_PATCH,
        ]))
    }
}
