//! Events of `v1` and of `events.k8s.io/v1` are two views of the same objects.

mod common;

use common::{get, raw};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Event as Older, Namespace};
use k8s_openapi::api::events::v1::Event as Newer;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use orch_api::testkit::TestServer;
use serde_json::{Value, json};

const NEWER: &str = "/apis/events.k8s.io/v1/namespaces/default/events";
const OLDER: &str = "/api/v1/namespaces/default/events";
const JSON: (&str, &str) = ("content-type", "application/json");

fn newer(name: &str) -> Newer {
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "default", "labels": {"which": name}},
        "eventTime": "2026-01-01T00:00:00.123456Z", "action": "Binding", "reason": "Scheduled", "type": "Normal",
        "note": "assigned default/web to n1", "regarding": {"kind": "Pod", "namespace": "default", "name": "web"},
        "reportingController": "default-scheduler", "reportingInstance": "default-scheduler-n1",
    }))
    .expect("an event")
}

fn apis(server: &TestServer) -> (Api<Newer>, Api<Older>) {
    (
        Api::namespaced(server.client(), "default"),
        Api::namespaced(server.client(), "default"),
    )
}

#[tokio::test]
async fn an_event_is_read_in_both_versions() {
    let server = TestServer::start().await;
    let (newer_api, older_api) = apis(&server);
    let created = newer_api
        .create(&PostParams::default(), &newer("web.1"))
        .await
        .unwrap();
    assert_eq!(created.note, newer("web.1").note);

    let older = older_api.get("web.1").await.unwrap();
    assert_eq!(older.message, created.note);
    assert_eq!(older.involved_object, created.regarding.clone().unwrap());
    assert_eq!(older.reporting_component, created.reporting_controller);
    assert_eq!(older.event_time, created.event_time);
    assert_eq!(older.metadata.uid, created.metadata.uid);
    assert_eq!(older.metadata.resource_version, created.metadata.resource_version);
    assert_eq!(newer_api.get("web.1").await.unwrap(), created);

    let fields = ListParams::default().fields("regarding.name=web,reportingController=default-scheduler");
    assert_eq!(newer_api.list(&fields).await.unwrap().items, [created]);
    let fields = ListParams::default().fields("involvedObject.name=web");
    assert_eq!(older_api.list(&fields).await.unwrap().items, [older]);
    let list = get(&server, NEWER).await.json();
    assert_eq!(
        (&list["kind"], &list["items"][0]["apiVersion"]),
        (&json!("EventList"), &json!("events.k8s.io/v1"))
    );
}

#[tokio::test]
async fn an_older_event_shows_its_old_fields_under_new_names() {
    let server = TestServer::start().await;
    let (newer_api, older_api) = apis(&server);
    let older: Older = serde_json::from_value(json!({
        "metadata": {"name": "web.2"}, "involvedObject": {"kind": "Pod", "namespace": "default", "name": "web"},
        "reason": "Pulled", "message": "pulled", "type": "Normal", "count": 3,
        "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:01:00Z",
        "source": {"component": "kubelet", "host": "n1"},
    }))
    .unwrap();
    let older = older_api.create(&PostParams::default(), &older).await.unwrap();
    let found = newer_api.get("web.2").await.unwrap();
    assert_eq!(found.deprecated_count, Some(3));
    assert_eq!(found.deprecated_source, older.source);
    assert_eq!(found.deprecated_first_timestamp, older.first_timestamp);
    assert_eq!(found.deprecated_last_timestamp, older.last_timestamp);
    assert_eq!(found.event_time, None);
}

#[tokio::test]
async fn both_versions_are_watched_and_changed() {
    let server = TestServer::start().await;
    let (newer_api, older_api) = apis(&server);
    let mut newer_events = newer_api
        .watch(&WatchParams::default(), "0")
        .await
        .unwrap()
        .boxed();
    let mut older_events = older_api
        .watch(&WatchParams::default(), "0")
        .await
        .unwrap()
        .boxed();
    newer_api
        .create(&PostParams::default(), &newer("web.3"))
        .await
        .unwrap();
    assert!(
        matches!(newer_events.try_next().await.unwrap(), Some(WatchEvent::Added(event)) if event.note.is_some())
    );
    assert!(
        matches!(older_events.try_next().await.unwrap(), Some(WatchEvent::Added(event)) if event.message.is_some())
    );

    let series = json!({"series": {"count": 2, "lastObservedTime": "2026-01-01T00:05:00.000000Z"}});
    let patched = newer_api
        .patch("web.3", &PatchParams::default(), &Patch::Merge(series.clone()))
        .await
        .unwrap();
    assert_eq!(patched.series.as_ref().unwrap().count, 2);
    assert!(matches!(
        older_events.try_next().await.unwrap(),
        Some(WatchEvent::Modified(event)) if event.series.as_ref().unwrap().count == Some(2)
    ));
    let again = newer_api
        .patch("web.3", &PatchParams::default(), &Patch::Strategic(series))
        .await
        .unwrap();
    assert_eq!(again, patched, "a patch that changes nothing writes nothing");

    let mut older = older_api.get("web.3").await.unwrap();
    older.message = Some("told otherwise".to_owned());
    older_api
        .replace("web.3", &PostParams::default(), &older)
        .await
        .unwrap();
    let mut current = newer_api.get("web.3").await.unwrap();
    assert_eq!(current.note.as_deref(), Some("told otherwise"));
    current.series.as_mut().unwrap().count = 3;
    newer_api
        .replace("web.3", &PostParams::default(), &current)
        .await
        .unwrap();
    newer_api.delete("web.3", &DeleteParams::default()).await.unwrap();
    assert!(older_api.get_opt("web.3").await.unwrap().is_none());
    let last = loop {
        if let Some(WatchEvent::Deleted(event)) = newer_events.try_next().await.unwrap() {
            break event;
        }
    };
    assert_eq!(last.series.unwrap().count, 3);
}

#[tokio::test]
async fn owners_keep_their_fields_across_versions() {
    let server = TestServer::start().await;
    let (newer_api, older_api) = apis(&server);
    let mut applied = serde_json::to_value(newer("web.4")).unwrap();
    applied["metadata"]["name"] = json!("web.4");
    newer_api
        .patch("web.4", &PatchParams::apply("one"), &Patch::Apply(&applied))
        .await
        .unwrap();
    let label = json!({"metadata": {"labels": {"other": "x"}}});
    older_api
        .patch("web.4", &PatchParams::default(), &Patch::Merge(label))
        .await
        .unwrap();
    let owners = older_api
        .get("web.4")
        .await
        .unwrap()
        .metadata
        .managed_fields
        .unwrap();
    let one = owners
        .iter()
        .find(|entry| entry.manager.as_deref() == Some("one"))
        .expect("the applier is still an owner");
    assert_eq!(one.api_version.as_deref(), Some("events.k8s.io/v1"));
    assert!(one.fields_v1.as_ref().unwrap().0["f:note"].is_object());

    let other = json!({
        "apiVersion": "v1", "kind": "Event", "message": "mine",
        "involvedObject": {"kind": "Pod", "namespace": "default", "name": "web"},
    });
    let error = older_api
        .patch("web.4", &PatchParams::apply("two"), &Patch::Apply(&other))
        .await
        .unwrap_err();
    assert_eq!(common::code(&error), 409);
    assert_eq!(
        common::message(error),
        r#"Apply failed with 1 conflict: conflict with "one": .note"#
    );
}

#[tokio::test]
async fn a_newer_event_is_held_to_newer_rules() {
    let server = TestServer::start().await;
    let bad = json!({"metadata": {"name": "bad"}, "note": "x", "deprecatedCount": 1, "type": "Odd"});
    let answer = raw(&server, "POST", NEWER, &[JSON], &bad.to_string()).await;
    assert_eq!(answer.status, 422);
    let status = answer.json();
    let fields: Vec<&Value> = status["details"]["causes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|cause| &cause["field"])
        .collect();
    assert_eq!(fields, ["eventTime", "type", "count"]);
    assert_eq!(get(&server, &format!("{OLDER}/bad")).await.status, 404);
}

#[tokio::test]
async fn the_recorder_of_kube_rs_writes_events() {
    let server = TestServer::start().await;
    let namespaces: Api<Namespace> = Api::all(server.client());
    let regarding = kube::Resource::object_ref(&namespaces.get("default").await.unwrap(), &());
    let reporter = Reporter {
        controller: "orch.example/controller".to_owned(),
        instance: Some("controller-1".to_owned()),
    };
    let recorder = Recorder::new(server.client(), reporter);
    let event = Event {
        type_: EventType::Warning,
        reason: "Odd".to_owned(),
        note: Some("something is odd".to_owned()),
        action: "Looking".to_owned(),
        secondary: None,
    };
    for _ in 0..3 {
        recorder.publish(&event, &regarding).await.unwrap();
    }
    let (_, older_api) = apis(&server);
    let events = older_api.list(&ListParams::default()).await.unwrap().items;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].message.as_deref(), Some("something is odd"));
    assert_eq!(events[0].series.as_ref().unwrap().count, Some(3));
}

#[tokio::test]
async fn discovery_and_schemas_tell_of_both() {
    let server = TestServer::start().await;
    let resources = get(&server, "/apis/events.k8s.io/v1").await.json();
    assert_eq!(resources["resources"][0]["name"], "events");
    let document = get(&server, "/openapi/v3/apis/events.k8s.io/v1").await.json();
    assert!(document["paths"]["/apis/events.k8s.io/v1/namespaces/{namespace}/events/{name}"].is_object());
    assert!(document["components"]["schemas"]["io.k8s.api.events.v1.Event"].is_object());
    let table = ("accept", "application/json;as=Table;v=v1;g=meta.k8s.io");
    let newer = raw(&server, "GET", NEWER, &[table], "").await.json();
    let older = raw(&server, "GET", OLDER, &[table], "").await.json();
    assert_eq!(newer["columnDefinitions"], older["columnDefinitions"]);
}
