//! API errors: the `Status` objects that a Kubernetes API server answers with.
//!
//! [`ApiError`] wraps a failure `Status` and has a constructor for each reason, with upstream's code, reason, details
//! and wording, so that clients which match on any of them behave as they do against Kubernetes.
//!
//! ```
//! use orch_core::status::{ApiError, GroupResource};
//!
//! let error = ApiError::not_found(&GroupResource::new("apps", "deployments"), "web");
//! assert_eq!(error.to_string(), "deployments.apps \"web\" not found");
//! assert_eq!(error.code(), 404);
//! ```

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Status, StatusCause, StatusDetails};
use serde::{Deserialize, Serialize};

use crate::field::{ErrorList, quote};

/// What upstream says when a write carried an outdated resourceVersion.
pub const OPTIMISTIC_LOCK_MESSAGE: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

/// A resource (plural) in its API group; the core group is empty. Written `deployments.apps` or `pods`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupResource {
    /// API group, empty for the core group.
    pub group: Cow<'static, str>,
    /// Plural name.
    pub resource: Cow<'static, str>,
}

impl GroupResource {
    /// A resource of a group.
    pub fn new(group: impl Into<Cow<'static, str>>, resource: impl Into<Cow<'static, str>>) -> Self {
        GroupResource {
            group: group.into(),
            resource: resource.into(),
        }
    }
}

impl fmt::Display for GroupResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        qualified(f, &self.resource, &self.group)
    }
}

/// A kind in its API group; the core group is empty. Written `Deployment.apps` or `Pod`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupKind {
    /// API group, empty for the core group.
    pub group: Cow<'static, str>,
    /// Kind.
    pub kind: Cow<'static, str>,
}

impl GroupKind {
    /// A kind of a group.
    pub fn new(group: impl Into<Cow<'static, str>>, kind: impl Into<Cow<'static, str>>) -> Self {
        GroupKind {
            group: group.into(),
            kind: kind.into(),
        }
    }
}

impl fmt::Display for GroupKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        qualified(f, &self.kind, &self.group)
    }
}

fn qualified(f: &mut fmt::Formatter<'_>, name: &str, group: &str) -> fmt::Result {
    match group {
        "" => f.write_str(name),
        group => write!(f, "{name}.{group}"),
    }
}

/// The machine-readable reason of a failure, with upstream's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// 400: the request cannot be understood.
    BadRequest,
    /// 401: who asks is not known.
    Unauthorized,
    /// 403: who asks may not do this, or an admission rule refuses it.
    Forbidden,
    /// 404: no such object or resource.
    NotFound,
    /// 405: the resource does not offer this verb.
    MethodNotAllowed,
    /// 406: no offered media type is accepted.
    NotAcceptable,
    /// 409: an object of that name exists.
    AlreadyExists,
    /// 409: the object changed meanwhile, or a precondition or field owner stands against the write.
    Conflict,
    /// 410: the item is gone and no forwarding address is known.
    Gone,
    /// 410: the asked revision or continue token is too old.
    Expired,
    /// 413: the body is too large.
    RequestEntityTooLarge,
    /// 415: the body's media type is not understood.
    UnsupportedMediaType,
    /// 422: the object is well-formed and wrong.
    Invalid,
    /// 429: slow down.
    TooManyRequests,
    /// 500: something broke inside.
    InternalError,
    /// 500: not done in time, try again.
    ServerTimeout,
    /// 503: not able to serve now.
    ServiceUnavailable,
    /// 504: the request ran out of time.
    Timeout,
}

impl Reason {
    /// The name in `Status.reason`.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::BadRequest => "BadRequest",
            Reason::Unauthorized => "Unauthorized",
            Reason::Forbidden => "Forbidden",
            Reason::NotFound => "NotFound",
            Reason::MethodNotAllowed => "MethodNotAllowed",
            Reason::NotAcceptable => "NotAcceptable",
            Reason::AlreadyExists => "AlreadyExists",
            Reason::Conflict => "Conflict",
            Reason::Gone => "Gone",
            Reason::Expired => "Expired",
            Reason::RequestEntityTooLarge => "RequestEntityTooLarge",
            Reason::UnsupportedMediaType => "UnsupportedMediaType",
            Reason::Invalid => "Invalid",
            Reason::TooManyRequests => "TooManyRequests",
            Reason::InternalError => "InternalError",
            Reason::ServerTimeout => "ServerTimeout",
            Reason::ServiceUnavailable => "ServiceUnavailable",
            Reason::Timeout => "Timeout",
        }
    }

    /// The HTTP status code that goes with it.
    pub fn code(self) -> u16 {
        match self {
            Reason::BadRequest => 400,
            Reason::Unauthorized => 401,
            Reason::Forbidden => 403,
            Reason::NotFound => 404,
            Reason::MethodNotAllowed => 405,
            Reason::NotAcceptable => 406,
            Reason::AlreadyExists | Reason::Conflict => 409,
            Reason::Gone | Reason::Expired => 410,
            Reason::RequestEntityTooLarge => 413,
            Reason::UnsupportedMediaType => 415,
            Reason::Invalid => 422,
            Reason::TooManyRequests => 429,
            Reason::InternalError | Reason::ServerTimeout => 500,
            Reason::ServiceUnavailable => 503,
            Reason::Timeout => 504,
        }
    }
}

/// A failed API request, as the `Status` object that describes it.
///
/// Serialises to that object. Displays its message.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{}", .0.message.as_deref().unwrap_or("unknown"))]
pub struct ApiError(Box<Status>);

impl ApiError {
    /// A failure with a reason and a message.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        ApiError(Box::new(Status {
            code: Some(i32::from(reason.code())),
            message: Some(message.into()),
            reason: Some(reason.as_str().to_owned()),
            status: Some("Failure".to_owned()),
            ..Status::default()
        }))
    }

    /// The object does not exist.
    pub fn not_found(resource: &GroupResource, name: &str) -> Self {
        Self::new(Reason::NotFound, format!("{resource} {} not found", quote(name))).about(resource, name)
    }

    /// The server has no such path or resource.
    pub fn unknown_resource() -> Self {
        let message = "the server could not find the requested resource";
        Self::new(Reason::NotFound, message).with_details(|_| ())
    }

    /// An object of that name exists.
    pub fn already_exists(resource: &GroupResource, name: &str) -> Self {
        let message = format!("{resource} {} already exists", quote(name));
        Self::new(Reason::AlreadyExists, message).about(resource, name)
    }

    /// `generateName` came up with a name that exists; the client may try again.
    pub fn generate_name_conflict(resource: &GroupResource, name: &str) -> Self {
        let message = format!(
            "{resource} {} already exists, the server was not able to generate a unique name for the object",
            quote(name)
        );
        Self::new(Reason::AlreadyExists, message)
            .about(resource, name)
            .retry_after(Duration::from_secs(1))
    }

    /// The write stands against the object's present state; `why` completes the sentence.
    pub fn conflict(resource: &GroupResource, name: &str, why: impl fmt::Display) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {resource} {}: {why}",
            quote(name)
        );
        Self::new(Reason::Conflict, message).about(resource, name)
    }

    /// The write carried an outdated resourceVersion.
    pub fn modified(resource: &GroupResource, name: &str) -> Self {
        Self::conflict(resource, name, OPTIMISTIC_LOCK_MESSAGE)
    }

    /// Server-side apply met fields of other managers; one cause for each.
    pub fn apply_conflict(causes: Vec<StatusCause>, message: impl Into<String>) -> Self {
        Self::new(Reason::Conflict, message).with_details(|details| details.causes = Some(causes))
    }

    /// The object is well-formed and wrong.
    pub fn invalid(kind: &GroupKind, name: &str, errors: &ErrorList) -> Self {
        let message = match errors.is_empty() {
            true => format!("{kind} {} is invalid", quote(name)),
            false => format!("{kind} {} is invalid: {errors}", quote(name)),
        };
        Self::new(Reason::Invalid, message).with_details(|details| {
            details.group = non_empty(&kind.group);
            details.kind = non_empty(&kind.kind);
            details.name = non_empty(name);
            details.causes = (!errors.is_empty()).then(|| errors.to_causes());
        })
    }

    /// The request cannot be understood.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(Reason::BadRequest, message)
    }

    /// Not allowed, for the reason `why`.
    pub fn forbidden(resource: &GroupResource, name: &str, why: impl fmt::Display) -> Self {
        let message = match (resource.resource.as_ref(), name) {
            ("", _) => format!("forbidden: {why}"),
            (_, "") => format!("{resource} is forbidden: {why}"),
            (_, name) => format!("{resource} {} is forbidden: {why}", quote(name)),
        };
        Self::new(Reason::Forbidden, message).about(resource, name)
    }

    /// Who asks is not known.
    pub fn unauthorized() -> Self {
        Self::new(Reason::Unauthorized, "Unauthorized")
    }

    /// The resource does not offer `action`.
    pub fn method_not_allowed(resource: &GroupResource, action: &str) -> Self {
        let message = format!(
            "{action} is not supported on resources of kind {}",
            quote(&resource.to_string())
        );
        Self::new(Reason::MethodNotAllowed, message).about(resource, "")
    }

    /// The thing asked for is gone.
    pub fn gone(message: impl Into<String>) -> Self {
        Self::new(Reason::Gone, message)
    }

    /// The asked revision or continue token is too old.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(Reason::Expired, message)
    }

    /// The body is too large.
    pub fn too_large(message: impl fmt::Display) -> Self {
        let message = format!("Request entity is too large: {message}");
        Self::new(Reason::RequestEntityTooLarge, message)
    }

    /// The body's media type is none of `accepted`.
    pub fn unsupported_media_type(accepted: &[&str]) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            accepted.join(", ")
        );
        Self::new(Reason::UnsupportedMediaType, message)
    }

    /// The client accepts none of `offered`.
    pub fn not_acceptable(offered: &[&str]) -> Self {
        let message = format!(
            "only the following media types are accepted: {}",
            offered.join(", ")
        );
        Self::new(Reason::NotAcceptable, message)
    }

    /// The request ran out of time.
    pub fn timeout(message: impl fmt::Display, retry_after: Duration) -> Self {
        Self::new(Reason::Timeout, format!("Timeout: {message}")).retry_after(retry_after)
    }

    /// The operation could not be completed in time; the client should try again.
    pub fn server_timeout(resource: &GroupResource, operation: &str, retry_after: Duration) -> Self {
        let message = format!(
            "The {operation} operation against {resource} could not be completed at this time, please try again."
        );
        Self::new(Reason::ServerTimeout, message)
            .about(resource, operation)
            .retry_after(retry_after)
    }

    /// The client asks too much.
    pub fn too_many_requests(message: impl Into<String>, retry_after: Duration) -> Self {
        Self::new(Reason::TooManyRequests, message).retry_after(retry_after)
    }

    /// Something broke inside.
    pub fn internal(error: impl fmt::Display) -> Self {
        let text = error.to_string();
        Self::new(Reason::InternalError, format!("Internal error occurred: {text}")).with_details(|details| {
            details.causes = Some(vec![StatusCause {
                message: Some(text),
                ..StatusCause::default()
            }]);
        })
    }

    /// Not able to serve now.
    pub fn service_unavailable(message: impl Into<String>) -> Self {
        Self::new(Reason::ServiceUnavailable, message)
    }

    fn about(self, resource: &GroupResource, name: &str) -> Self {
        self.with_details(|details| {
            details.group = non_empty(&resource.group);
            details.kind = non_empty(&resource.resource);
            details.name = non_empty(name);
        })
    }

    fn retry_after(self, after: Duration) -> Self {
        let seconds = i32::try_from(after.as_secs()).unwrap_or(i32::MAX);
        self.with_details(|details| details.retry_after_seconds = (seconds > 0).then_some(seconds))
    }

    /// Changes the details, which start out empty.
    #[must_use]
    pub fn with_details(mut self, change: impl FnOnce(&mut StatusDetails)) -> Self {
        change(self.0.details.get_or_insert_default());
        self
    }

    /// Adds a cause.
    #[must_use]
    pub fn with_cause(self, cause: StatusCause) -> Self {
        self.with_details(|details| details.causes.get_or_insert_default().push(cause))
    }

    /// The HTTP status code.
    pub fn code(&self) -> u16 {
        self.0
            .code
            .and_then(|code| u16::try_from(code).ok())
            .unwrap_or(500)
    }

    /// The HTTP status code, typed.
    pub fn status_code(&self) -> http::StatusCode {
        http::StatusCode::from_u16(self.code()).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The machine-readable reason, empty when unknown.
    pub fn reason(&self) -> &str {
        self.0.reason.as_deref().unwrap_or_default()
    }

    /// The message for people.
    pub fn message(&self) -> &str {
        self.0.message.as_deref().unwrap_or_default()
    }

    /// The causes, one for each field that is wrong.
    pub fn causes(&self) -> &[StatusCause] {
        let details = self.0.details.as_ref();
        details.and_then(|d| d.causes.as_deref()).unwrap_or_default()
    }

    /// How long the client should wait before it tries again, when the server said so.
    pub fn retry_after_hint(&self) -> Option<Duration> {
        let seconds = self.0.details.as_ref()?.retry_after_seconds?;
        u64::try_from(seconds).ok().map(Duration::from_secs)
    }

    /// The `Status` object.
    pub fn status(&self) -> &Status {
        &self.0
    }

    /// The `Status` object, owned.
    pub fn into_status(self) -> Status {
        *self.0
    }

    fn is(&self, reason: Reason) -> bool {
        self.reason() == reason.as_str() || (self.reason().is_empty() && self.code() == reason.code())
    }

    /// Whether the object or resource does not exist.
    pub fn is_not_found(&self) -> bool {
        self.is(Reason::NotFound)
    }

    /// Whether an object of that name exists.
    pub fn is_already_exists(&self) -> bool {
        self.reason() == Reason::AlreadyExists.as_str()
    }

    /// Whether the object changed meanwhile.
    pub fn is_conflict(&self) -> bool {
        self.is(Reason::Conflict)
    }

    /// Whether the object is wrong.
    pub fn is_invalid(&self) -> bool {
        self.is(Reason::Invalid)
    }

    /// Whether the request is not allowed.
    pub fn is_forbidden(&self) -> bool {
        self.is(Reason::Forbidden)
    }

    /// Whether the asked revision is too old: list again.
    pub fn is_expired(&self) -> bool {
        self.reason() == Reason::Expired.as_str() || self.is(Reason::Gone)
    }

    /// Whether the same request may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self.code(), 429 | 500 | 503 | 504) || self.is_conflict()
    }
}

fn non_empty(s: &str) -> Option<String> {
    (!s.is_empty()).then(|| s.to_owned())
}

impl Serialize for ApiError {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ApiError {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Status::deserialize(deserializer).map(ApiError::from)
    }
}

impl From<Status> for ApiError {
    fn from(status: Status) -> Self {
        ApiError(Box::new(status))
    }
}

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Self {
        error.into_status()
    }
}

/// Writes the causes which `kubectl` and client-go look at for an unexpected object or field.
pub fn cause(reason: &str, field: &str, message: &str) -> StatusCause {
    StatusCause {
        field: non_empty(field),
        message: non_empty(message),
        reason: non_empty(reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::{FieldError, Path};

    fn deployments() -> GroupResource {
        GroupResource::new("apps", "deployments")
    }

    #[test]
    fn messages_are_upstreams() {
        let table = [
            (
                ApiError::not_found(&deployments(), "x"),
                404,
                "NotFound",
                "deployments.apps \"x\" not found",
            ),
            (
                ApiError::not_found(&GroupResource::new("", "pods"), "x"),
                404,
                "NotFound",
                "pods \"x\" not found",
            ),
            (
                ApiError::already_exists(&deployments(), "x"),
                409,
                "AlreadyExists",
                "deployments.apps \"x\" already exists",
            ),
            (
                ApiError::modified(&deployments(), "x"),
                409,
                "Conflict",
                "Operation cannot be fulfilled on deployments.apps \"x\": the object has been modified; please apply your \
                 changes to the latest version and try again",
            ),
            (
                ApiError::forbidden(&deployments(), "", "no"),
                403,
                "Forbidden",
                "deployments.apps is forbidden: no",
            ),
            (
                ApiError::method_not_allowed(&deployments(), "create"),
                405,
                "MethodNotAllowed",
                "create is not supported on resources of kind \"deployments.apps\"",
            ),
            (
                ApiError::internal("disk"),
                500,
                "InternalError",
                "Internal error occurred: disk",
            ),
            (
                ApiError::too_large("limit is 3145728"),
                413,
                "RequestEntityTooLarge",
                "Request entity is too large: limit is 3145728",
            ),
            (ApiError::expired("too old"), 410, "Expired", "too old"),
        ];
        for (error, code, reason, message) in table {
            assert_eq!(
                (error.code(), error.reason(), error.message()),
                (code, reason, message)
            );
        }
    }

    #[test]
    fn invalid_names_each_field() {
        let errors: ErrorList = FieldError::required(&Path::new("spec").child("a"), "").into();
        let error = ApiError::invalid(&GroupKind::new("apps", "Deployment"), "x", &errors);
        assert_eq!(
            error.to_string(),
            "Deployment.apps \"x\" is invalid: spec.a: Required value"
        );
        assert_eq!(error.causes()[0].reason.as_deref(), Some("FieldValueRequired"));
        assert_eq!(error.causes()[0].field.as_deref(), Some("spec.a"));
    }

    #[test]
    fn serialises_to_a_status_object_and_back() {
        let error = ApiError::not_found(&deployments(), "x");
        let json = serde_json::to_value(&error).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": "deployments.apps \"x\" not found", "reason": "NotFound",
                "details": {"name": "x", "group": "apps", "kind": "deployments"}, "code": 404,
            })
        );
        let back: ApiError = serde_json::from_value(json).unwrap();
        assert_eq!(back, error);
    }

    #[test]
    fn predicates_fall_back_to_the_code_when_no_reason_is_given() {
        let status = Status {
            code: Some(404),
            ..Status::default()
        };
        assert!(ApiError::from(status).is_not_found());
        assert!(!ApiError::already_exists(&deployments(), "x").is_conflict());
        assert!(ApiError::gone("x").is_expired());
    }
}
