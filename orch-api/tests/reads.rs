//! Lists, pages, selectors, watches and the shapes of answers.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use crate::common::{Raw, config_map, get, message, raw};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use orch_api::testkit::TestServer;
use serde_json::json;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn with_maps(count: usize) -> (TestServer, Api<ConfigMap>) {
    let server = TestServer::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(server.client());
    for number in 0..count {
        let map = config_map(
            &format!("map-{number:03}"),
            if number % 2 == 0 { "even" } else { "odd" },
        );
        maps.create(&PostParams::default(), &map).await.unwrap();
    }
    (server, maps)
}

fn names(list: &Raw) -> Vec<String> {
    let items = list.json()["items"].as_array().expect("a list").clone();
    items
        .iter()
        .map(|item| item["metadata"]["name"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn pages_show_one_state_while_others_write() {
    let (server, maps) = with_maps(25).await;
    let first = get(&server, &format!("{MAPS}?limit=10")).await.json();
    assert_eq!(first["items"].as_array().unwrap().len(), 10);
    assert_eq!(first["metadata"]["remainingItemCount"], 15);
    maps.delete("map-015", &DeleteParams::default()).await.unwrap();
    maps.create(&PostParams::default(), &config_map("map-011a", "new"))
        .await
        .unwrap();

    let mut seen = 10;
    let mut token = first["metadata"]["continue"].as_str().unwrap().to_owned();
    while !token.is_empty() {
        let page = get(&server, &format!("{MAPS}?limit=10&continue={token}")).await;
        assert_eq!(
            page.json()["metadata"]["resourceVersion"],
            first["metadata"]["resourceVersion"]
        );
        assert!(!names(&page).contains(&"map-011a".to_owned()));
        seen += names(&page).len();
        token = page.json()["metadata"]["continue"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
    }
    assert_eq!(seen, 25);
}

#[tokio::test]
async fn a_page_of_a_forgotten_state_is_gone_and_offers_to_go_on() {
    let store = std::sync::Arc::new(orch_store::MemoryStore::new());
    let server = orch_api::ApiServer::builder(store.clone()).build().await.unwrap();
    let maps: Api<ConfigMap> = Api::default_namespaced(server.client(orch_api::UserInfo::admin()));
    for number in 0..20 {
        maps.create(&PostParams::default(), &config_map(&format!("map-{number}"), "x"))
            .await
            .unwrap();
    }
    let list = |limit: u32, token: Option<&str>| {
        let params = ListParams {
            limit: Some(limit),
            continue_token: token.map(str::to_owned),
            ..ListParams::default()
        };
        let maps = maps.clone();
        async move { maps.list(&params).await }
    };
    let token = list(5, None).await.unwrap().metadata.continue_.unwrap();
    // Other lists push the kept snapshot out, and the store forgets it too.
    for number in 0..20 {
        maps.replace(
            &format!("map-{number}"),
            &PostParams::default(),
            &config_map(&format!("map-{number}"), "y"),
        )
        .await
        .unwrap();
        list(5, None).await.unwrap();
    }
    let now = orch_store::Store::current_revision(&*store).await.unwrap();
    orch_store::Store::compact(&*store, now).await.unwrap();
    let error = list(5, Some(&token)).await.unwrap_err();
    assert_eq!(common::code(&error), 410);
    assert!(
        message(error)
            .starts_with("The provided continue parameter is too old to display a consistent list result.")
    );
}

#[tokio::test]
async fn selectors_choose() {
    let (server, _) = with_maps(6).await;
    let odd = get(&server, &format!("{MAPS}?labelSelector=value%3Dodd")).await;
    assert_eq!(names(&odd), ["map-001", "map-003", "map-005"]);
    let one = get(&server, &format!("{MAPS}?fieldSelector=metadata.name%3Dmap-002")).await;
    assert_eq!(names(&one), ["map-002"]);
    let neither = get(&server, &format!("{MAPS}?labelSelector=value+notin+(odd,even)")).await;
    assert!(names(&neither).is_empty());
    let unknown = get(&server, &format!("{MAPS}?fieldSelector=spec.foo%3Dx")).await;
    assert_eq!(unknown.status, 400);
    assert_eq!(
        get(&server, &format!("{MAPS}?labelSelector=a+b+c")).await.status,
        400
    );
}

#[tokio::test]
async fn versions_bind_lists() {
    let (server, maps) = with_maps(2).await;
    let before = get(&server, MAPS).await.json()["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .to_owned();
    maps.delete("map-000", &DeleteParams::default()).await.unwrap();
    let exact = get(
        &server,
        &format!("{MAPS}?resourceVersion={before}&resourceVersionMatch=Exact"),
    )
    .await;
    assert_eq!(names(&exact), ["map-000", "map-001"]);
    let newer = get(
        &server,
        &format!("{MAPS}?resourceVersion={before}&resourceVersionMatch=NotOlderThan"),
    )
    .await;
    assert!(names(&newer).contains(&"map-001".to_owned()));
    assert_eq!(names(&get(&server, MAPS).await), ["map-001"]);
}

#[tokio::test]
async fn tables_have_columns_and_rows() {
    let (server, _) = with_maps(2).await;
    let accept = [(
        "accept",
        "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
    )];
    let table = raw(&server, "GET", MAPS, &accept, "").await.json();
    assert_eq!(
        (&table["kind"], &table["apiVersion"]),
        (&json!("Table"), &json!("meta.k8s.io/v1"))
    );
    assert_eq!(table["columnDefinitions"][0]["name"], "Name");
    assert_eq!(table["rows"][1]["cells"][0], "map-001");
    assert_eq!(table["rows"][1]["object"]["kind"], "PartialObjectMetadata");
    let one = raw(
        &server,
        "GET",
        &format!("{MAPS}/map-000?includeObject=None"),
        &accept,
        "",
    )
    .await
    .json();
    assert_eq!(one["rows"][0]["cells"][0], "map-000");
    assert!(one["rows"][0].get("object").is_none());
}

#[tokio::test]
async fn metadata_alone_can_be_had() {
    let (server, _) = with_maps(1).await;
    let accept = [(
        "accept",
        "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
    )];
    let list = raw(&server, "GET", MAPS, &accept, "").await.json();
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert_eq!(list["items"][0]["metadata"]["name"], "map-000");
    assert!(list["items"][0].get("data").is_none());
}

#[tokio::test]
async fn media_types_that_are_not_written_are_refused() {
    let (server, _) = with_maps(0).await;
    let protobuf = [("accept", "application/vnd.kubernetes.protobuf")];
    assert_eq!(raw(&server, "GET", MAPS, &protobuf, "").await.status, 406);
    let both = [("accept", "application/vnd.kubernetes.protobuf,application/json")];
    assert_eq!(raw(&server, "GET", MAPS, &both, "").await.status, 200);
}

#[tokio::test]
async fn a_selecting_watch_sees_objects_come_and_go() {
    let (server, maps) = with_maps(2).await;
    let params = WatchParams::default().labels("value=odd");
    let mut events = maps.watch(&params, "0").await.unwrap().boxed();
    let relabel = async |name: &str, value: &str| {
        let patch = Patch::Merge(json!({"metadata": {"labels": {"value": value}}}));
        maps.patch(name, &PatchParams::default(), &patch).await.unwrap();
    };
    let name = |map: ConfigMap| map.metadata.name.unwrap();
    let Some(WatchEvent::Added(first)) = events.try_next().await.unwrap() else {
        panic!("the state comes first")
    };
    assert_eq!(name(first), "map-001");
    relabel("map-000", "odd").await;
    let Some(WatchEvent::Added(entered)) = events.try_next().await.unwrap() else {
        panic!("it entered")
    };
    assert_eq!(name(entered), "map-000");
    relabel("map-000", "even").await;
    let Some(WatchEvent::Deleted(left)) = events.try_next().await.unwrap() else {
        panic!("it left")
    };
    assert_eq!(left.metadata.labels.unwrap()["value"], "odd");
    drop(server);
}

#[tokio::test]
async fn a_watch_begins_with_the_state_and_says_where_it_ends() {
    let (server, _) = with_maps(2).await;
    let query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=1";
    let events = get(&server, &format!("{MAPS}?{query}")).await.lines();
    let types: Vec<_> = events
        .iter()
        .map(|event| event["type"].as_str().unwrap())
        .collect();
    assert_eq!(types, ["ADDED", "ADDED", "BOOKMARK", "BOOKMARK"]);
    assert_eq!(
        events[2]["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"],
        "true"
    );
    assert!(events[3]["object"]["metadata"].get("annotations").is_none());
}

#[tokio::test]
async fn a_watch_from_a_forgotten_version_is_told_so() {
    let store = std::sync::Arc::new(orch_store::MemoryStore::new());
    let server = orch_api::ApiServer::builder(store.clone()).build().await.unwrap();
    let client = server.client(orch_api::UserInfo::admin());
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(client.clone());
    namespaces.list(&ListParams::default()).await.unwrap();
    let now = orch_store::Store::current_revision(&*store).await.unwrap();
    orch_store::Store::compact(&*store, now).await.unwrap();
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let mut events = maps.watch(&WatchParams::default(), "1").await.unwrap().boxed();
    let Some(WatchEvent::Error(status)) = events.try_next().await.unwrap() else {
        panic!("an error comes")
    };
    assert_eq!((status.code, status.reason.as_str()), (410, "Expired"));
    assert!(status.message.starts_with("too old resource version: 1 ("));
}

#[tokio::test]
async fn a_watch_of_tables_sends_the_columns_once() {
    let (server, _) = with_maps(2).await;
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let events = raw(
        &server,
        "GET",
        &format!("{MAPS}?watch=1&timeoutSeconds=1"),
        &accept,
        "",
    )
    .await
    .lines();
    assert_eq!(events[0]["object"]["columnDefinitions"][0]["name"], "Name");
    assert_eq!(events[1]["object"]["columnDefinitions"], json!([]));
    assert_eq!(events[1]["object"]["rows"][0]["cells"][0], "map-001");
}

#[tokio::test]
async fn a_version_from_the_future_is_not_waited_for_forever() {
    let (server, _) = with_maps(1).await;
    let answer = get(&server, &format!("{MAPS}?resourceVersion=999999")).await;
    assert_eq!(answer.status, 504);
    assert!(
        answer.json()["message"]
            .as_str()
            .unwrap()
            .contains("Too large resource version: 999999")
    );
}

#[tokio::test]
async fn discovery_lists_what_there_is() {
    let server = TestServer::start().await;
    let core = get(&server, "/api/v1").await.json();
    assert!(
        core["resources"]
            .as_array()
            .unwrap()
            .iter()
            .any(|entry| entry["name"] == "configmaps" && entry["shortNames"] == json!(["cm"]))
    );
    assert_eq!(get(&server, "/apis").await.json()["groups"][0]["name"], "apps");
    assert_eq!(
        get(&server, "/apis/apps").await.json()["preferredVersion"]["groupVersion"],
        "apps/v1"
    );
    let accept = [(
        "accept",
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json",
    )];
    let aggregated = raw(&server, "GET", "/apis", &accept, "").await;
    assert_eq!(
        aggregated.headers["content-type"],
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    );
    assert_eq!(
        aggregated.json()["items"][0]["versions"][0]["freshness"],
        "Current"
    );
    assert_eq!(get(&server, "/version").await.json()["minor"], "37");
    assert_eq!(
        get(&server, "/readyz?verbose").await.body,
        b"[+]ping ok\n[+]etcd ok\nreadyz check passed\n"
    );
    assert_eq!(get(&server, "/apis/nope/v1").await.status, 404);
    assert_eq!(get(&server, "/openapi/v3").await.status, 200);
}

#[tokio::test]
async fn a_long_list_comes_compressed_to_those_who_take_it() {
    use std::io::Read;

    let (server, maps) = with_maps(0).await;
    for number in 0..200 {
        let mut map = config_map(&format!("map-{number:03}"), "even");
        map.data = Some([("text".to_owned(), "x".repeat(2000))].into());
        maps.create(&PostParams::default(), &map).await.unwrap();
    }
    let plain = get(&server, MAPS).await;
    assert!(!plain.headers.contains_key("content-encoding"));
    let headers = [("accept-encoding", "gzip, deflate")];
    let packed = raw(&server, "GET", MAPS, &headers, "").await;
    assert_eq!(packed.headers["content-encoding"], "gzip");
    assert!(packed.body.len() * 10 < plain.body.len(), "{}", packed.body.len());
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(&packed.body[..])
        .read_to_end(&mut unpacked)
        .unwrap();
    assert!(unpacked == plain.body);
    let one = raw(&server, "GET", &format!("{MAPS}/map-000"), &headers, "").await;
    assert!(
        !one.headers.contains_key("content-encoding"),
        "too small to be worth it"
    );
}
