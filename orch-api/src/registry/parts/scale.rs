//! The `scale` subresource: replicas of any kind in one shape.

use bytes::Bytes;
use k8s_openapi::api::autoscaling::v1::{Scale, ScaleSpec, ScaleStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use orch_core::field::{ErrorList, FieldError, Path};
use orch_core::status::{ApiError, GroupKind};
use serde_json::Value;

use crate::object::Object;
use crate::registry::live::Live;
use crate::registry::patch::Format;
use crate::registry::write::{Candidate, Outcome, Write};
use crate::strategy::Strategy;
use crate::{patch, schema};

fn of(strategy: &dyn Strategy, object: &dyn Object) -> Result<Scale, ApiError> {
    let view = strategy.scale(object).ok_or_else(ApiError::unknown_resource)?;
    let metadata = object.metadata();
    Ok(Scale {
        metadata: ObjectMeta {
            name: metadata.name.clone(),
            namespace: metadata.namespace.clone(),
            uid: metadata.uid.clone(),
            resource_version: metadata.resource_version.clone(),
            creation_timestamp: metadata.creation_timestamp.clone(),
            ..ObjectMeta::default()
        },
        spec: Some(ScaleSpec {
            replicas: Some(view.spec_replicas),
        }),
        status: Some(ScaleStatus {
            replicas: view.status_replicas,
            selector: view.selector,
        }),
    })
}

/// The scale of an object's served bytes.
pub(crate) fn view(strategy: &dyn Strategy, json: &[u8]) -> Result<Bytes, ApiError> {
    let object = strategy.decode(json).map_err(ApiError::internal)?.object;
    serde_json::to_vec(&of(strategy, &*object)?)
        .map(Bytes::from)
        .map_err(ApiError::internal)
}

fn read(body: &[u8]) -> Result<Scale, ApiError> {
    serde_json::from_slice(body).map_err(|error| {
        ApiError::bad_request(format!(
            "Scale in version \"v1\" cannot be handled as a Scale: {error}"
        ))
    })
}

impl Write<'_> {
    /// PUT of a scale.
    pub(crate) async fn replace_scale(&self, name: &str, body: &[u8]) -> Result<Outcome, ApiError> {
        let wanted = read(body)?;
        let given = wanted.metadata.name.as_deref().unwrap_or(name);
        if given != name {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({given}) does not match the name on the URL ({name})"
            )));
        }
        self.rescale(name, |_| Ok(wanted.clone())).await
    }

    /// PATCH of a scale.
    pub(crate) async fn patch_scale(
        &self,
        name: &str,
        format: Format,
        body: &[u8],
    ) -> Result<Outcome, ApiError> {
        if format == Format::Apply {
            return Err(super::not_implemented("server-side apply of scale"));
        }
        let change: Value = serde_json::from_slice(body)
            .map_err(|error| ApiError::bad_request(format!("error decoding patch: {error}")))?;
        self.rescale(name, |live| {
            let present = serde_json::to_value(of(&*self.resource.strategy, &*live.object)?)
                .map_err(ApiError::internal)?;
            let patched = match format {
                Format::Json => patch::json(&present, &change)?,
                Format::Strategic => patch::strategic(
                    present,
                    change.clone(),
                    schema::root("autoscaling", "v1", "Scale"),
                )?,
                Format::Merge | Format::Apply => patch::merge(present, &change)?,
            };
            let mut scale = read(patched.to_string().as_bytes())?;
            if scale.metadata.resource_version == live.object.metadata().resource_version {
                scale.metadata.resource_version = None;
            }
            Ok(scale)
        })
        .await
    }

    async fn rescale(
        &self,
        name: &str,
        wanted: impl Fn(&Live) -> Result<Scale, ApiError>,
    ) -> Result<Outcome, ApiError> {
        let strategy = &*self.resource.strategy;
        let outcome = self
            .change(
                name,
                || Ok(None),
                |live| {
                    let wanted = wanted(live)?;
                    let replicas = wanted.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0);
                    if replicas < 0 {
                        let path = Path::new("spec").child("replicas");
                        let error =
                            FieldError::invalid(&path, replicas, "must be greater than or equal to 0");
                        let kind = GroupKind::new("autoscaling", "Scale");
                        return Err(ApiError::invalid(&kind, name, &ErrorList::from(error)));
                    }
                    let mut object = live.object.clone();
                    strategy.set_replicas(&mut *object, replicas);
                    object.metadata_mut().resource_version = wanted.metadata.resource_version;
                    if wanted.metadata.uid.is_some() {
                        object.metadata_mut().uid = wanted.metadata.uid;
                    }
                    Ok(Candidate {
                        object,
                        warnings: Vec::new(),
                        owners_known: false,
                    })
                },
            )
            .await?;
        Ok(Outcome {
            json: view(strategy, &outcome.json)?,
            ..outcome
        })
    }
}
