//! What all writes share: who writes what, reading the body, running admission, and what comes out.

use std::fmt;

use bytes::Bytes;
use http::StatusCode;
use orch_core::field::{ErrorList, quote};
use orch_core::status::ApiError;
use serde::Deserialize;
use serde_json::Value;

use super::Resource;
use super::options::{FieldValidation, WriteOptions};
use crate::admission::{Lookup, Operation, Review};
use crate::context::Context;
use crate::decode::{DecodeError, Decoded};
use crate::object::Object;
use crate::resource::Subresource;
use crate::user::UserInfo;

/// One write to one resource.
#[derive(Clone, Copy)]
pub(crate) struct Write<'a> {
    pub(crate) context: &'a Context,
    pub(crate) resource: &'a Resource,
    /// Empty for cluster-wide resources.
    pub(crate) namespace: &'a str,
    pub(crate) subresource: Option<Subresource>,
    pub(crate) user: &'a UserInfo,
    pub(crate) options: &'a WriteOptions,
}

impl fmt::Debug for Write<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Write({}, {:?})",
            self.resource.group_resource, self.subresource
        )
    }
}

/// What a write came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: StatusCode,
    /// The object as a reader gets it.
    pub(crate) json: Bytes,
    pub(crate) warnings: Vec<String>,
}

/// An object that a client wants, and what to tell the client about it.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub(crate) object: Box<dyn Object>,
    pub(crate) warnings: Vec<String>,
    /// Whether its `managedFields` are those after this write already.
    pub(crate) owners_known: bool,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct TypeMeta {
    #[serde(default)]
    api_version: Option<String>,
    #[serde(default)]
    kind: Option<String>,
}

impl Write<'_> {
    /// Reads an object of this resource from a body.
    pub(crate) fn read_body(&self, body: &[u8]) -> Result<Candidate, ApiError> {
        self.check_type(body)?;
        let decoded = self
            .resource
            .strategy
            .decode(body)
            .map_err(|error| self.undecodable(&error))?;
        self.judge(decoded, Vec::new())
    }

    /// Reads an object from a tree that was computed from the stored one and a patch. `noticed` is what was found
    /// wrong with the patch on the way.
    pub(crate) fn read_value(&self, value: &Value, noticed: Vec<String>) -> Result<Candidate, ApiError> {
        let body = serde_json::to_vec(value).map_err(ApiError::internal)?;
        self.check_type(&body)?;
        let decoded = self
            .resource
            .strategy
            .decode(&body)
            .map_err(|error| self.undecodable(&error))?;
        self.judge(decoded, noticed)
    }

    /// Applies `fieldValidation` to what the decoder noticed.
    fn judge(&self, decoded: Decoded, mut noticed: Vec<String>) -> Result<Candidate, ApiError> {
        noticed.extend(
            decoded
                .complaints()
                .into_iter()
                .filter(|text| !noticed.contains(text))
                .collect::<Vec<_>>(),
        );
        let warnings = match self.options.field_validation {
            FieldValidation::Strict if !noticed.is_empty() => {
                let why = format!("strict decoding error: {}", noticed.join(", "));
                return Err(self.cannot_be_handled(
                    &self.resource.info().kind,
                    &self.resource.info().version,
                    &why,
                ));
            }
            FieldValidation::Warn => noticed,
            FieldValidation::Ignore | FieldValidation::Strict => Vec::new(),
        };
        Ok(Candidate {
            object: decoded.object,
            warnings,
            owners_known: false,
        })
    }

    fn check_type(&self, body: &[u8]) -> Result<(), ApiError> {
        let info = self.resource.info();
        let found: TypeMeta = serde_json::from_slice(body).map_err(|error| {
            ApiError::bad_request(format!(
                "the object provided is unrecognized (must be of type {}): couldn't get version/kind; json parse error: {error}",
                info.kind
            ))
        })?;
        let kind = found
            .kind
            .filter(|kind| !kind.is_empty())
            .unwrap_or_else(|| info.kind.to_string());
        let expected = info.api_version();
        let version = found
            .api_version
            .filter(|version| !version.is_empty())
            .unwrap_or_else(|| expected.to_string());
        if kind != info.kind {
            let short = version.rsplit('/').next().unwrap_or_default();
            let why = format!("no kind {} is registered for this resource", quote(&kind));
            return Err(self.cannot_be_handled(&kind, short, &why));
        }
        if version != expected {
            return Err(ApiError::bad_request(format!(
                "the API version in the data ({version}) does not match the expected API version ({expected})"
            )));
        }
        Ok(())
    }

    fn cannot_be_handled(&self, kind: &str, version: &str, why: &str) -> ApiError {
        let expected = &self.resource.info().kind;
        ApiError::bad_request(format!(
            "{kind} in version {} cannot be handled as a {expected}: {why}",
            quote(version)
        ))
    }

    fn undecodable(&self, error: &DecodeError) -> ApiError {
        let info = self.resource.info();
        self.cannot_be_handled(&info.kind, &info.version, &error.describe(&info.kind))
    }

    /// Brings name and namespace of the body together with those of the path.
    pub(crate) fn place(&self, object: &mut dyn Object, name: Option<&str>) -> Result<(), ApiError> {
        let metadata = object.metadata_mut();
        let namespace = metadata.namespace.as_deref().unwrap_or_default();
        if !namespace.is_empty() && namespace != self.namespace {
            return Err(ApiError::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        metadata.namespace = (!self.namespace.is_empty()).then(|| self.namespace.to_owned());
        let Some(name) = name else { return Ok(()) };
        match metadata.name.as_deref().unwrap_or_default() {
            "" => metadata.name = Some(name.to_owned()),
            own if own == name => (),
            own => {
                return Err(ApiError::bad_request(format!(
                    "the name of the object ({own}) does not match the name on the URL ({name})"
                )));
            }
        }
        Ok(())
    }

    fn review<'a>(&'a self, operation: Operation, name: &'a str, old: Option<&'a dyn Object>) -> Review<'a> {
        Review {
            operation,
            user: self.user,
            resource: self.resource.info(),
            subresource: self.subresource,
            namespace: self.namespace,
            name,
            dry_run: self.options.dry_run,
            old,
            lookup: Lookup::new(self.context),
        }
    }

    /// Lets all admission rules change the object.
    pub(crate) async fn admit(
        &self,
        operation: Operation,
        object: &mut dyn Object,
        old: Option<&dyn Object>,
    ) -> Result<(), ApiError> {
        let name = object.name().to_owned();
        let review = self.review(operation, &name, old);
        for rule in &self.context.admission {
            rule.mutate(&review, object).await?;
        }
        Ok(())
    }

    /// Lets all admission rules look at what will be stored, or at what will be deleted.
    pub(crate) async fn admit_finished(
        &self,
        operation: Operation,
        name: &str,
        object: Option<&dyn Object>,
        old: Option<&dyn Object>,
    ) -> Result<(), ApiError> {
        let review = self.review(operation, name, old);
        for rule in &self.context.admission {
            rule.validate(&review, object).await?;
        }
        Ok(())
    }

    /// Fails when validation found anything.
    pub(crate) fn check(&self, name: &str, errors: &ErrorList) -> Result<(), ApiError> {
        if errors.is_empty() {
            Ok(())
        } else {
            Err(ApiError::invalid(&self.resource.group_kind, name, errors))
        }
    }
}
