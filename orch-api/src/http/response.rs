//! Building answers.

use std::collections::VecDeque;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WARNING};
use http::{Response, StatusCode};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use orch_core::status::ApiError;
use serde::Serialize;

use super::body::Body;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// An answer with a body of JSON text.
pub(crate) fn json(status: StatusCode, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// An answer that serialises a value.
pub(crate) fn serialised(status: StatusCode, value: &impl Serialize) -> Result<Response<Body>, ApiError> {
    Ok(json(
        status,
        serde_json::to_vec(value).map_err(ApiError::internal)?,
    ))
}

/// An answer in shared pieces.
pub(crate) fn pieces(pieces: VecDeque<Bytes>) -> Response<Body> {
    json(StatusCode::OK, Body::pieces(pieces))
}

/// Plain text, as health checks give.
pub(crate) fn text(status: StatusCode, text: impl Into<Body>) -> Response<Body> {
    let mut response = json(status, text);
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
        .headers_mut()
        .insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

/// The `Status` that says why a request failed.
pub(crate) fn failure(error: ApiError) -> Response<Body> {
    let status = error.status_code();
    let retry_after = error.retry_after_hint();
    let text = serde_json::to_vec(&error.into_status()).unwrap_or_default();
    let mut response = json(status, text);
    if let Some(after) = retry_after {
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from(after.as_secs()));
    }
    response
}

/// The `Status` of a success that gives no object.
pub(crate) fn success(code: StatusCode) -> Result<Response<Body>, ApiError> {
    let status = Status {
        status: Some("Success".into()),
        code: Some(i32::from(code.as_u16())),
        ..Status::default()
    };
    serialised(code, &status)
}

/// Adds warnings for people, as `Warning: 299 - "text"`.
pub(crate) fn warn(response: &mut Response<Body>, warnings: &[String]) {
    for warning in warnings {
        let text: String = warning.chars().filter(|c| !c.is_control()).collect();
        let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{quoted}\"").as_bytes()) {
            response.headers_mut().append(WARNING, value);
        }
    }
}
