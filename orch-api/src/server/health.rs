//! Health checks, the version, and the answer to unknown paths.

use std::fmt::Write;

use http::header::{ACCEPT, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH, VARY};
use http::{Method, Response, StatusCode};
use orch_core::status::ApiError;
use serde_json::json;

use super::dispatch::Call;
use crate::http::body::Body;
use crate::http::response;
use crate::openapi::{Document, Encoding};

/// The checks that `/livez`, `/readyz` and `/healthz` make.
const CHECKS: [&str; 2] = ["ping", "etcd"];

pub(super) async fn answer(call: &Call<'_>, path: &str) -> Result<Response<Body>, ApiError> {
    if !matches!(*call.method, Method::GET | Method::HEAD) {
        return Err(call.method_not_allowed());
    }
    match path.trim_end_matches('/') {
        "/version" => version(call),
        "/metrics" => metrics(call),
        "/openapi/v2" => {
            let accept = call
                .headers
                .get(ACCEPT)
                .and_then(|accept| accept.to_str().ok())
                .unwrap_or_default();
            let openapi = call.context.openapi.load();
            if is_known(call, openapi.v2_etag()) {
                return Ok(not_modified());
            }
            document(openapi.v2(Encoding::of_accept(accept)))
        }
        "/openapi/v3" => document(call.context.openapi.load().v3_index()),
        "" => response::serialised(StatusCode::OK, &json!({"paths": PATHS})),
        path if path.starts_with("/openapi/v3/") => {
            let (openapi, path) = (call.context.openapi.load(), &path["/openapi/v3/".len()..]);
            if openapi.v3_etag(path).is_some_and(|etag| is_known(call, etag)) {
                return Ok(not_modified());
            }
            document(openapi.v3(path).ok_or_else(ApiError::unknown_resource)?)
        }
        path => match path
            .strip_prefix('/')
            .map(|path| path.split_once('/').unwrap_or((path, "")))
        {
            Some((endpoint @ ("healthz" | "livez" | "readyz"), check)) => {
                Ok(health(call, endpoint, check).await)
            }
            _ => Err(ApiError::unknown_resource()),
        },
    }
}

/// What Prometheus reads.
fn metrics(call: &Call<'_>) -> Result<Response<Body>, ApiError> {
    let text = call.context.metrics.text(&call.context.resources);
    let mut response = response::text(StatusCode::OK, text.map_err(ApiError::internal)?);
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
    );
    Ok(response)
}

const PATHS: [&str; 10] = [
    "/api",
    "/api/v1",
    "/apis",
    "/healthz",
    "/livez",
    "/metrics",
    "/openapi/v2",
    "/openapi/v3",
    "/readyz",
    "/version",
];

/// Whether the client has the document of that ETag already.
fn is_known(call: &Call<'_>, etag: &str) -> bool {
    let known = call
        .headers
        .get(IF_NONE_MATCH)
        .and_then(|known| known.to_str().ok())
        .unwrap_or_default();
    known
        .split(',')
        .any(|known| known.trim().trim_start_matches("W/").trim_matches('"') == etag)
}

fn not_modified() -> Response<Body> {
    response::text(StatusCode::NOT_MODIFIED, Body::empty())
}

fn document(document: Document) -> Result<Response<Body>, ApiError> {
    let mut response = response::json(StatusCode::OK, document.body);
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(document.content_type));
    let etag = HeaderValue::try_from(format!("\"{}\"", document.etag)).map_err(ApiError::internal)?;
    response.headers_mut().insert(ETAG, etag);
    response
        .headers_mut()
        .insert(VARY, HeaderValue::from_static("Accept"));
    Ok(response)
}

fn version(call: &Call<'_>) -> Result<Response<Body>, ApiError> {
    let version = &call.context.settings.git_version;
    let mut numbers = version.trim_start_matches('v').split(['.', '-', '+']);
    let (major, minor) = (
        numbers.next().unwrap_or_default(),
        numbers.next().unwrap_or_default(),
    );
    response::serialised(
        StatusCode::OK,
        &json!({
            "major": major, "minor": minor, "gitVersion": version, "gitCommit": "", "gitTreeState": "clean",
            "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "rustc",
            "platform": format!("{}/{}", std::env::consts::OS, go_architecture()),
        }),
    )
}

fn go_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

async fn health(call: &Call<'_>, endpoint: &str, only: &str) -> Response<Body> {
    let excluded: Vec<&str> = call.query.all("exclude").collect();
    let (mut lines, mut failed) = (String::new(), Vec::new());
    for check in CHECKS
        .into_iter()
        .filter(|check| only.is_empty() || only == *check)
    {
        let result = if excluded.contains(&check) {
            "excluded: ok"
        } else {
            probe(call, check).await
        };
        let sign = if result.starts_with("failed") { '-' } else { '+' };
        if sign == '-' {
            failed.push(check);
        }
        writeln!(lines, "[{sign}]{check} {result}").unwrap_or_default();
    }
    if lines.is_empty() {
        return response::text(StatusCode::NOT_FOUND, "404 page not found\n");
    }
    match (failed.is_empty(), call.query.has("verbose")) {
        (true, false) => response::text(StatusCode::OK, "ok"),
        (true, true) => response::text(StatusCode::OK, format!("{lines}{endpoint} check passed\n")),
        (false, _) => response::text(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("{lines}{endpoint} check failed\n"),
        ),
    }
}

async fn probe(call: &Call<'_>, check: &str) -> &'static str {
    match check {
        "etcd" if call.context.store.0.health().await.is_err() => "failed: reason withheld",
        _ => "ok",
    }
}
