use http_body_util::BodyExt;
use orch_api::UserInfo;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::common::{get, raw};
use super::{DEFINITIONS, WIDGETS, patch, post, widget, with_widgets};

const MERGE: &str = "application/merge-patch+json";

fn spec() -> Value {
    json!({"type": "object", "required": ["size"], "properties": {
        "size": {"type": "integer", "minimum": 1},
        "color": {"type": "string", "enum": ["red", "blue"], "default": "red"},
        "replicas": {"type": "integer"},
        "parts": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"], "items": {
            "type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "count": {"type": "integer"}},
        }},
    }})
}

#[tokio::test]
async fn objects_are_defaulted_and_pruned() {
    let server = with_widgets(spec(), json!({})).await;
    let (code, created) = post(&server, WIDGETS, widget("a", json!({"size": 2, "unknown": 1}))).await;
    assert_eq!(
        (code, &created["spec"]),
        (201, &json!({"size": 2, "color": "red"}))
    );
    assert_eq!(created["metadata"]["generation"], 1);
    let stored = get(&server, &format!("{WIDGETS}/a")).await.json();
    assert_eq!(stored["spec"], created["spec"]);
}

#[tokio::test]
async fn wrong_values_are_named_as_upstream_does() {
    let server = with_widgets(spec(), json!({})).await;
    let wrong = widget(
        "a",
        json!({"size": "big", "color": "green", "parts": [{"name": "a"}, {"name": "a"}]}),
    );
    let (code, status) = post(&server, WIDGETS, wrong).await;
    assert_eq!(code, 422);
    assert_eq!(
        status["message"],
        "Widget.example.com \"a\" is invalid: [spec.color: Unsupported value: \"green\": supported values: \"red\", \"blue\", \
         spec.size: Invalid value: \"string\": spec.size in body must be of type integer: \"string\", \
         spec.parts[1]: Duplicate value: {\"name\":\"a\"}]"
    );
    let (_, status) = post(&server, WIDGETS, widget("a", json!({}))).await;
    assert_eq!(
        status["message"],
        "Widget.example.com \"a\" is invalid: spec.size: Required value"
    );
}

#[tokio::test]
async fn strict_validation_tells_of_unknown_fields() {
    let server = with_widgets(spec(), json!({})).await;
    let body = widget("a", json!({"size": 2, "unknown": 1})).to_string();
    let refused = raw(
        &server,
        "POST",
        &format!("{WIDGETS}?fieldValidation=Strict"),
        &[],
        &body,
    )
    .await;
    assert_eq!(refused.status, 400);
    assert_eq!(
        refused.json()["message"],
        "Widget in version \"v1\" cannot be handled as a Widget: strict decoding error: unknown field \"spec.unknown\""
    );
    let warned = raw(
        &server,
        "POST",
        &format!("{WIDGETS}?fieldValidation=Warn"),
        &[],
        &body,
    )
    .await;
    assert_eq!(warned.status, 201);
    assert_eq!(
        warned.headers["warning"],
        "299 - \"unknown field \\\"spec.unknown\\\"\""
    );
}

#[tokio::test]
async fn patches_work_but_for_the_strategic_one() {
    let server = with_widgets(spec(), json!({})).await;
    post(&server, WIDGETS, widget("a", json!({"size": 2}))).await;
    let path = format!("{WIDGETS}/a");
    let (code, merged) = patch(&server, &path, MERGE, json!({"spec": {"size": 3}})).await;
    assert_eq!(
        (code, &merged["spec"]["size"], &merged["metadata"]["generation"]),
        (200, &json!(3), &json!(2))
    );
    let operations = json!([{"op": "replace", "path": "/spec/size", "value": 4}]);
    let (code, patched) = patch(&server, &path, "application/json-patch+json", operations).await;
    assert_eq!((code, &patched["spec"]["size"]), (200, &json!(4)));
    let (code, _) = patch(
        &server,
        &path,
        "application/strategic-merge-patch+json",
        json!({}),
    )
    .await;
    assert_eq!(code, 415);
}

#[tokio::test]
async fn apply_merges_lists_by_their_keys() {
    let server = with_widgets(spec(), json!({})).await;
    let apply = |manager: &'static str, parts: Value| {
        let body = widget("a", json!({"size": 2, "parts": parts}));
        let server = &server;
        async move {
            let path = format!("{WIDGETS}/a?fieldManager={manager}");
            patch(server, &path, "application/apply-patch+yaml", body).await
        }
    };
    let (code, created) = apply("one", json!([{"name": "x", "count": 1}])).await;
    assert_eq!(code, 201, "{created}");
    let (code, both) = apply("two", json!([{"name": "y"}])).await;
    assert_eq!(code, 200);
    assert_eq!(
        both["spec"]["parts"],
        json!([{"name": "x", "count": 1}, {"name": "y"}])
    );
    let (code, conflict) = apply("two", json!([{"name": "x", "count": 2}])).await;
    assert_eq!(code, 409);
    assert_eq!(
        conflict["message"],
        "Apply failed with 1 conflict: conflict with \"one\": .spec.parts[name=\"x\"].count"
    );
    let owned = &created["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"];
    assert_eq!(
        owned["f:parts"]["k:{\"name\":\"x\"}"],
        json!({".": {}, "f:count": {}, "f:name": {}})
    );
}

#[tokio::test]
async fn status_and_scale_are_apart() {
    let parts = json!({"subresources": {
        "status": {}, "scale": {
            "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector",
        },
    }});
    let server = with_widgets(spec(), parts).await;
    let mut body = widget("a", json!({"size": 2, "replicas": 1}));
    body["status"] = json!({"replicas": 9});
    let (_, created) = post(&server, WIDGETS, body).await;
    assert_eq!(created["status"], Value::Null);
    let path = format!("{WIDGETS}/a");
    let status = json!({"metadata": {"labels": {"x": "y"}}, "spec": {"size": 7}, "status": {"replicas": 1, "selector": "a=b"}});
    let (code, updated) = patch(&server, &format!("{path}/status"), MERGE, status).await;
    assert_eq!(code, 200);
    assert_eq!(
        (&updated["spec"]["size"], &updated["status"]["replicas"]),
        (&json!(2), &json!(1))
    );
    assert_eq!(
        (&updated["metadata"]["generation"], &updated["metadata"]["labels"]),
        (&json!(1), &Value::Null)
    );
    let (code, scale) = patch(
        &server,
        &format!("{path}/scale"),
        MERGE,
        json!({"spec": {"replicas": 5}}),
    )
    .await;
    assert_eq!(code, 200, "{scale}");
    assert_eq!(
        (&scale["kind"], &scale["spec"]["replicas"]),
        (&json!("Scale"), &json!(5))
    );
    assert_eq!(scale["status"], json!({"replicas": 1, "selector": "a=b"}));
    let object = get(&server, &path).await.json();
    assert_eq!(
        (&object["spec"]["replicas"], &object["metadata"]["generation"]),
        (&json!(5), &json!(2))
    );
    let (code, _) = patch(&server, &path, MERGE, json!({"status": null})).await;
    assert_eq!(code, 200);
    assert_eq!(get(&server, &path).await.json()["status"]["replicas"], 1);
}

#[tokio::test]
async fn selectable_fields_and_columns_are_the_definitions() {
    let more = json!({
        "selectableFields": [{"jsonPath": ".spec.color"}],
        "additionalPrinterColumns": [
            {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
            {"name": "Color", "type": "string", "jsonPath": ".spec.color", "priority": 1},
        ],
    });
    let server = with_widgets(spec(), more).await;
    post(&server, WIDGETS, widget("a", json!({"size": 2}))).await;
    post(&server, WIDGETS, widget("b", json!({"size": 3, "color": "blue"}))).await;
    let found = get(&server, &format!("{WIDGETS}?fieldSelector=spec.color%3Dblue"))
        .await
        .json();
    assert_eq!(
        (&found["kind"], &found["items"][0]["metadata"]["name"]),
        (&json!("WidgetList"), &json!("b"))
    );
    assert_eq!(found["items"].as_array().unwrap().len(), 1);
    assert_eq!(
        get(&server, &format!("{WIDGETS}?fieldSelector=spec.size%3D2"))
            .await
            .status,
        400
    );
    let accept = [("accept", "application/json;as=Table;g=meta.k8s.io;v=v1")];
    let table = raw(&server, "GET", WIDGETS, &accept, "").await.json();
    let columns: Vec<&Value> = table["columnDefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["name"])
        .collect();
    assert_eq!(columns, ["Name", "Size", "Color"]);
    assert_eq!(table["rows"][1]["cells"], json!(["b", 3, "blue"]));
}

#[tokio::test]
async fn a_new_default_shows_on_what_is_stored() {
    let server = with_widgets(spec(), json!({})).await;
    post(&server, WIDGETS, widget("a", json!({"size": 2}))).await;
    assert_eq!(
        get(&server, WIDGETS).await.json()["items"][0]["spec"],
        json!({"size": 2, "color": "red"})
    );
    let path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
    let operations = json!([
        {"op": "add", "path": format!("{path}/weight"), "value": {"type": "integer", "default": 7}},
        {"op": "remove", "path": format!("{path}/color")},
    ]);
    let definition = format!("{DEFINITIONS}/widgets.example.com");
    let (code, answer) = patch(&server, &definition, "application/json-patch+json", operations).await;
    assert_eq!(code, 200, "{answer}");
    for path in [WIDGETS.to_owned(), format!("{WIDGETS}?resourceVersion=0")] {
        assert_eq!(
            get(&server, &path).await.json()["items"][0]["spec"],
            json!({"size": 2, "weight": 7})
        );
    }
    assert_eq!(
        get(&server, &format!("{WIDGETS}/a")).await.json()["spec"]["weight"],
        7
    );
}

#[tokio::test]
async fn a_watch_ends_when_its_version_is_served_no_longer() {
    let server = with_widgets(spec(), json!({})).await;
    post(&server, WIDGETS, widget("a", json!({"size": 2}))).await;
    let request = http::Request::get(format!("{WIDGETS}?watch=true")).extension(UserInfo::admin());
    let request = request.body(String::new()).unwrap();
    let watch = server.server().clone().oneshot(request).await.unwrap();
    let deleted = raw(
        &server,
        "DELETE",
        &format!("{DEFINITIONS}/widgets.example.com"),
        &[],
        "",
    )
    .await;
    assert_eq!(deleted.status, 200);
    let body = watch.into_body().collect().await.unwrap().to_bytes();
    let events: Vec<Value> = body
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    let types: Vec<&Value> = events.iter().map(|event| &event["type"]).collect();
    assert_eq!(types, ["ADDED", "DELETED"]);
}

#[tokio::test]
async fn versions_of_one_strategy_are_one_object() {
    let mut definition = super::widgets(spec(), json!({}));
    let mut second = definition["spec"]["versions"][0].clone();
    second["name"] = json!("v2");
    second["storage"] = json!(false);
    definition["spec"]["versions"]
        .as_array_mut()
        .unwrap()
        .push(second);
    let server = orch_api::testkit::TestServer::start().await;
    assert_eq!(post(&server, DEFINITIONS, definition).await.0, 201);
    post(&server, WIDGETS, widget("a", json!({"size": 2}))).await;
    let v2 = WIDGETS.replace("v1", "v2");
    let seen = get(&server, &v2).await.json();
    assert_eq!(seen["apiVersion"], "example.com/v2");
    assert_eq!(seen["items"][0]["apiVersion"], "example.com/v2");
    let (code, changed) = patch(&server, &format!("{v2}/a"), MERGE, json!({"spec": {"size": 5}})).await;
    assert_eq!((code, &changed["apiVersion"]), (200, &json!("example.com/v2")));
    let first = get(&server, &format!("{WIDGETS}/a")).await.json();
    assert_eq!(
        (&first["apiVersion"], &first["spec"]["size"]),
        (&json!("example.com/v1"), &json!(5))
    );
    assert_eq!(
        get(&server, "/apis/example.com").await.json()["preferredVersion"]["version"],
        "v2"
    );
}

#[tokio::test]
async fn a_stored_object_moves_to_the_new_storage_version_with_its_next_write() {
    let mut definition = super::widgets(spec(), json!({}));
    let mut second = definition["spec"]["versions"][0].clone();
    second["name"] = json!("v2");
    second["storage"] = json!(false);
    definition["spec"]["versions"]
        .as_array_mut()
        .unwrap()
        .push(second);
    let store = std::sync::Arc::new(orch_store::MemoryStore::new());
    let server = orch_api::ApiServer::builder(std::sync::Arc::clone(&store) as _)
        .build()
        .await
        .unwrap();
    let client = server.client(UserInfo::admin());
    let send = async |method: &str, path: &str, body: Value| {
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header(
                "content-type",
                if method == "PATCH" {
                    MERGE
                } else {
                    "application/json"
                },
            )
            .body(body.to_string().into_bytes())
            .unwrap();
        client.request::<Value>(request).await.unwrap()
    };
    let stored = async || {
        let key = b"/registry/example.com/widgets/default/a";
        let kv = orch_store::Store::get(&*store, key, None)
            .await
            .unwrap()
            .kv
            .unwrap();
        serde_json::from_slice::<Value>(&kv.value).unwrap()["apiVersion"].clone()
    };
    send("POST", DEFINITIONS, definition).await;
    send("POST", WIDGETS, widget("a", json!({"size": 2}))).await;
    assert_eq!(stored().await, "example.com/v1");
    let path = format!("{DEFINITIONS}/widgets.example.com");
    let mut present = send("GET", &path, Value::Null).await;
    present["spec"]["versions"][0]["storage"] = json!(false);
    present["spec"]["versions"][1]["storage"] = json!(true);
    let changed = send("PUT", &path, present).await;
    assert_eq!(changed["status"]["storedVersions"], json!(["v1", "v2"]));
    send("PATCH", &format!("{WIDGETS}/a"), json!({})).await;
    assert_eq!(stored().await, "example.com/v2");

    // Another server on the same store serves what is defined from its start.
    let other = orch_api::ApiServer::builder(store).build().await.unwrap();
    let request = http::Request::get(format!("{WIDGETS}/a"))
        .body(Vec::new())
        .unwrap();
    let seen: Value = other.client(UserInfo::admin()).request(request).await.unwrap();
    assert_eq!(seen["spec"]["size"], 2);
}

#[tokio::test]
async fn two_servers_on_one_store_follow_each_others_definitions() {
    let store = std::sync::Arc::new(orch_store::MemoryStore::new());
    let first = orch_api::ApiServer::builder(std::sync::Arc::clone(&store) as _)
        .build()
        .await
        .unwrap();
    let second = orch_api::ApiServer::builder(store).build().await.unwrap();
    let definition = super::widgets(spec(), json!({})).to_string().into_bytes();
    let request = http::Request::post(DEFINITIONS).header("content-type", "application/json");
    let request = request.body(definition).unwrap();
    first
        .client(UserInfo::admin())
        .request::<Value>(request)
        .await
        .unwrap();
    let client = second.client(UserInfo::admin());
    let served = async {
        loop {
            let request = http::Request::get(WIDGETS).body(Vec::new()).unwrap();
            if client.request::<Value>(request).await.is_ok() {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), served)
        .await
        .expect("the other server serves it");
}
