//! Custom resources, from their definition to their end.
#![allow(
    clippy::needless_pass_by_value,
    reason = "JSON written in place reads best when helpers take it whole"
)]

#[path = "../common/mod.rs"]
mod common;

mod definitions;
mod kubectl;
mod objects;
mod rust;

use common::raw;
use orch_api::testkit::TestServer;
use serde_json::{Value, json};

pub(crate) const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
pub(crate) const WIDGETS: &str = "/apis/example.com/v1/namespaces/default/widgets";

/// A definition of widgets with this schema of their `spec`, and these things said of the version.
pub(crate) fn widgets(spec: Value, more: Value) -> Value {
    let mut version = json!({
        "name": "v1", "served": true, "storage": true,
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {
            "spec": spec,
            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        }}},
    });
    for (name, value) in more.as_object().expect("fields") {
        version[name] = value.clone();
    }
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"], "categories": ["all"]},
            "versions": [version],
        },
    })
}

/// A server with widgets.
pub(crate) async fn with_widgets(spec: Value, more: Value) -> TestServer {
    let server = TestServer::start().await;
    let created = raw(
        &server,
        "POST",
        DEFINITIONS,
        &[],
        &widgets(spec, more).to_string(),
    )
    .await;
    assert_eq!(created.status, 201, "{}", created.json());
    server
}

pub(crate) fn widget(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}, "spec": spec})
}

pub(crate) async fn post(server: &TestServer, path: &str, body: Value) -> (u16, Value) {
    let answer = raw(server, "POST", path, &[], &body.to_string()).await;
    (answer.status, answer.json())
}

pub(crate) async fn patch(server: &TestServer, path: &str, media: &str, body: Value) -> (u16, Value) {
    let answer = raw(
        server,
        "PATCH",
        path,
        &[("content-type", media)],
        &body.to_string(),
    )
    .await;
    (answer.status, answer.json())
}
