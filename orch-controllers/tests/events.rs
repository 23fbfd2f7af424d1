//! Events as they stand in a real API server.

#![allow(clippy::unwrap_used, reason = "tests end where they fail")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::delayed;
use http::Method;
use k8s_openapi::api::core::v1::{ConfigMap, Event};
use kube::api::{ListParams, PostParams};
use kube::{Api, ResourceExt};
use orch_api::testkit::TestServer;
use orch_core::events::{self, EventType};
use serde_json::json;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeats_raise_the_count_of_one_event() {
    let server = TestServer::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(server.client());
    let map: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "settings"}})).unwrap();
    let map = maps.create(&PostParams::default(), &map).await.unwrap();

    let (recorder, sink) = events::recorder(server.client(), "tester", "host-1");
    let stop = CancellationToken::new();
    let running = tokio::spawn(sink.run(stop.clone()));
    for _ in 0..3 {
        recorder.event(
            &events::reference(&map),
            EventType::Warning,
            "Spoilt",
            "it has gone off",
        );
    }
    recorder.event(
        &events::reference(&map),
        EventType::Normal,
        "Mended",
        "it is well again",
    );
    // What was recorded is written before the sink ends.
    stop.cancel();
    running.await.unwrap();

    let written: Api<Event> = Api::default_namespaced(server.client());
    let mut written = written.list(&ListParams::default()).await.unwrap().items;
    written.sort_by_key(|event| event.reason.clone());
    let [mended, spoilt] = written.as_slice() else {
        panic!("two events, not {written:?}")
    };
    assert_eq!((mended.count, mended.type_.as_deref()), (Some(1), Some("Normal")));
    assert_eq!(mended.first_timestamp, mended.last_timestamp);

    assert_eq!(
        (spoilt.count, spoilt.type_.as_deref()),
        (Some(3), Some("Warning"))
    );
    assert_eq!(spoilt.message.as_deref(), Some("it has gone off"));
    assert!(spoilt.name_any().starts_with("settings."));
    let (first, last) = (
        spoilt.first_timestamp.as_ref().unwrap(),
        spoilt.last_timestamp.as_ref().unwrap(),
    );
    assert!(first <= last, "{first:?} {last:?}");
    assert_eq!(spoilt.involved_object, events::reference(&map));
    assert_eq!(spoilt.involved_object.kind.as_deref(), Some("ConfigMap"));
    let source = spoilt.source.as_ref().unwrap();
    assert_eq!(
        (source.component.as_deref(), source.host.as_deref()),
        (Some("tester"), Some("host-1"))
    );
    assert_eq!(spoilt.reporting_component.as_deref(), Some("tester"));
    assert_eq!(spoilt.reporting_instance.as_deref(), Some("host-1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_is_being_written_at_the_end_is_not_written_twice() {
    let server = TestServer::start().await;
    let (reached, go) = (Arc::new(Notify::new()), Arc::new(Semaphore::new(0)));
    let (at, wait) = (Arc::clone(&reached), Arc::clone(&go));
    let client = delayed(server.client(), move |method, _| {
        let (at, wait) = (Arc::clone(&at), Arc::clone(&wait));
        async move {
            if method == Method::POST {
                at.notify_one();
                drop(wait.acquire().await);
            }
        }
    });
    let (recorder, sink) = events::recorder(client, "tester", "");
    let stop = CancellationToken::new();
    let running = tokio::spawn(sink.run(stop.clone()));
    let mut map = ConfigMap::default();
    map.metadata.name = Some("settings".into());
    map.metadata.namespace = Some("default".into());
    for _ in 0..2 {
        recorder.event(&events::reference(&map), EventType::Normal, "Ended", "it is over");
    }
    reached.notified().await;
    stop.cancel();
    tokio::time::sleep(Duration::from_millis(50)).await;
    go.add_permits(10);
    running.await.unwrap();
    let written: Api<Event> = Api::default_namespaced(server.client());
    let written = written.list(&ListParams::default()).await.unwrap().items;
    let counts: Vec<_> = written.iter().map(|event| event.count).collect();
    assert_eq!(counts, [Some(2)]);
}
