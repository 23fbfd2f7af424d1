//! What several tests need.
#![allow(dead_code, reason = "each test uses a part of it")]

pub(crate) mod kubectl;

use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Error;
use kube::api::ObjectMeta;
use orch_api::UserInfo;
use orch_api::testkit::TestServer;
use serde_json::Value;
use tower::ServiceExt;

/// A config map with one entry and one label.
pub(crate) fn config_map(name: &str, value: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some([("value".to_owned(), value.to_owned())].into()),
            ..ObjectMeta::default()
        },
        data: Some([("key".to_owned(), value.to_owned())].into()),
        ..ConfigMap::default()
    }
}

/// The status code of an answer that is an error.
pub(crate) fn code(error: &Error) -> u16 {
    match error {
        Error::Api(status) => status.code,
        other => panic!("not an answer of the API: {other}"),
    }
}

/// The message of an answer that is an error.
pub(crate) fn message(error: Error) -> String {
    match error {
        Error::Api(status) => status.message,
        other => panic!("not an answer of the API: {other}"),
    }
}

/// A request as bytes go over the wire, without a client that hides anything.
pub(crate) struct Raw {
    pub(crate) status: u16,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Raw {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("no JSON: {}", String::from_utf8_lossy(&self.body)))
    }

    /// The lines of a watch.
    pub(crate) fn lines(&self) -> Vec<Value> {
        let text = std::str::from_utf8(&self.body).expect("a watch is text");
        text.lines()
            .map(|line| serde_json::from_str(line).expect("each line is JSON"))
            .collect()
    }
}

/// Sends a request as an administrator.
pub(crate) async fn raw(
    server: &TestServer,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Raw {
    raw_as(server, Some(UserInfo::admin()), method, path, headers, body).await
}

/// Sends a request as anybody, or as nobody.
pub(crate) async fn raw_as(
    server: &TestServer,
    user: Option<UserInfo>,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Raw {
    let mut request = http::Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if let Some(user) = user {
        request = request.extension(user);
    }
    let request = request.body(body.to_owned()).expect("a well-formed request");
    let response = server
        .server()
        .clone()
        .oneshot(request)
        .await
        .expect("the service never fails");
    let (parts, body) = response.into_parts();
    let body = body
        .collect()
        .await
        .expect("bodies never fail")
        .to_bytes()
        .to_vec();
    Raw {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body,
    }
}

/// GET as an administrator.
pub(crate) async fn get(server: &TestServer, path: &str) -> Raw {
    raw(server, "GET", path, &[], "").await
}
