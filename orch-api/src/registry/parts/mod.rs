//! Parts of objects that are not simply stored: scale, binding, finalize, log, eviction.

pub(crate) mod binding;
pub(crate) mod eviction;
pub(crate) mod finalize;
pub(crate) mod log;
pub(crate) mod scale;
pub(crate) mod token;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use orch_core::status::ApiError;

/// The answer to a request for something that this server does not do.
pub(crate) fn not_implemented(what: &str) -> ApiError {
    ApiError::from(Status {
        code: Some(501),
        reason: Some("NotImplemented".to_owned()),
        status: Some("Failure".to_owned()),
        message: Some(format!("{what} is not implemented by this server")),
        ..Status::default()
    })
}
