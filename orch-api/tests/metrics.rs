//! `/metrics`, as Prometheus and people read it.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{ListParams, PostParams, WatchParams};
use orch_api::UserInfo;
use orch_api::testkit::TestServer;

use crate::common::{config_map, get, raw_as};

async fn text(server: &TestServer) -> String {
    let answer = get(server, "/metrics").await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.headers["content-type"],
        "text/plain; version=0.0.4; charset=utf-8"
    );
    String::from_utf8(answer.body).unwrap()
}

/// The value of the metric whose line begins so, and has all these labels.
fn value(text: &str, name: &str, labels: &[&str]) -> Option<f64> {
    let line = text.lines().find(|line| {
        let is_name = line
            .strip_prefix(name)
            .is_some_and(|rest| rest.starts_with(['{', ' ']));
        is_name && labels.iter().all(|label| line.contains(label))
    });
    line?.rsplit(' ').next()?.parse().ok()
}

#[tokio::test]
async fn requests_objects_and_the_process_are_counted() {
    let server = TestServer::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(server.client());
    for name in ["a", "b", "c"] {
        maps.create(&PostParams::default(), &config_map(name, "x"))
            .await
            .unwrap();
    }
    maps.create(&PostParams::default(), &config_map("a", "x"))
        .await
        .unwrap_err();
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    maps.create(&dry, &config_map("d", "x")).await.unwrap();
    maps.list(&ListParams::default()).await.unwrap();

    let text = text(&server).await;
    let requests = "apiserver_request_total";
    let post = [
        "verb=\"POST\"",
        "resource=\"configmaps\"",
        "scope=\"resource\"",
        "version=\"v1\"",
        "group=\"\"",
    ];
    let with = |more: &[&'static str]| [&post[..], more].concat();
    assert_eq!(
        value(&text, requests, &with(&["code=\"201\"", "dry_run=\"\""])),
        Some(3.0)
    );
    assert_eq!(value(&text, requests, &with(&["code=\"409\""])), Some(1.0));
    assert_eq!(value(&text, requests, &with(&["dry_run=\"All\""])), Some(1.0));
    let list = ["verb=\"LIST\"", "resource=\"configmaps\"", "scope=\"namespace\""];
    assert_eq!(
        value(&text, "apiserver_request_duration_seconds_count", &list),
        Some(1.0)
    );
    assert_eq!(value(&text, "apiserver_response_sizes_count", &list), Some(1.0));
    assert_eq!(
        value(&text, "apiserver_storage_objects", &["resource=\"configmaps\""]),
        Some(3.0)
    );
    // This request itself.
    let inflight = "apiserver_current_inflight_requests";
    assert_eq!(value(&text, inflight, &["request_kind=\"readOnly\""]), Some(1.0));
    assert_eq!(value(&text, inflight, &["request_kind=\"mutating\""]), Some(0.0));
    assert!(value(&text, "process_resident_memory_bytes", &[]).is_some_and(|bytes| bytes > 1e6));
    assert!(text.contains("# TYPE apiserver_request_total counter"));
}

#[tokio::test]
async fn a_watch_counts_while_it_lasts() {
    let server = TestServer::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(server.client());
    let labels = ["verb=\"WATCH\"", "resource=\"configmaps\""];
    let running = async || value(&text(&server).await, "apiserver_longrunning_requests", &labels);
    let mut watch = maps.watch(&WatchParams::default(), "0").await.unwrap().boxed();
    maps.create(&PostParams::default(), &config_map("a", "x"))
        .await
        .unwrap();
    watch.next().await.unwrap().unwrap();
    assert_eq!(running().await, Some(1.0));
    drop(watch);
    let ended = async {
        while running().await != Some(0.0) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), ended)
        .await
        .unwrap();
    assert_eq!(
        value(&text(&server).await, "apiserver_request_total", &labels),
        Some(1.0)
    );
}

#[tokio::test]
async fn made_up_names_make_no_metrics() {
    let server = TestServer::start().await;
    for number in 0..20 {
        let path = format!("/apis/group{number}.example/v1/things{number}/x");
        assert_eq!(get(&server, &path).await.status, 404);
        let admin = Some(UserInfo::admin());
        raw_as(
            &server,
            admin,
            &format!("METHOD{number}"),
            "/api/v1/pods",
            &[],
            "",
        )
        .await;
    }
    let text = text(&server).await;
    assert!(!text.contains("things") && !text.contains("METHOD"), "{text}");
    let others = ["verb=\"GET\"", "resource=\"\"", "code=\"404\""];
    assert_eq!(value(&text, "apiserver_request_total", &others), Some(20.0));
}

#[tokio::test]
async fn not_everybody_may_read_them() {
    let server = TestServer::start().await;
    for user in [None, Some(UserInfo::new("jane", ["devs"]))] {
        let answer = raw_as(&server, user, "GET", "/metrics", &[], "").await;
        assert_eq!(answer.status, 403);
    }
}
