//! How others verify the tokens of service accounts: OpenID's discovery document and the keys.

use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Method, Response, StatusCode};
use orch_core::status::ApiError;

use super::dispatch::Call;
use crate::http::body::Body;
use crate::http::response;

/// The answer to the two paths of OpenID; `None` for any other.
pub(super) fn answer(call: &Call<'_>, path: &str) -> Option<Result<Response<Body>, ApiError>> {
    let issuer = &call.context.issuer;
    let (document, media) = match path.trim_end_matches('/') {
        "/.well-known/openid-configuration" => (issuer.openid_configuration(), "application/json"),
        "/openid/v1/jwks" => (issuer.key_set(), "application/jwk-set+json"),
        _ => return None,
    };
    if !matches!(*call.method, Method::GET | Method::HEAD) {
        return Some(Err(call.method_not_allowed()));
    }
    let answer = response::serialised(StatusCode::OK, &document).map(|mut response| {
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
        response
    });
    Some(answer)
}
