//! Creating, reading, changing and deleting through kube-rs, in process.

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{
    DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use kube::{Api, Error};
use orch_api::testkit::TestServer;
use serde_json::json;

fn config_map(name: &str, value: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        },
        data: Some([("key".to_owned(), value.to_owned())].into()),
        ..ConfigMap::default()
    }
}

fn code(error: &Error) -> u16 {
    match error {
        Error::Api(status) => status.code,
        other => panic!("not an answer of the API: {other}"),
    }
}

fn message(error: Error) -> String {
    match error {
        Error::Api(status) => status.message,
        other => panic!("not an answer of the API: {other}"),
    }
}

#[tokio::test]
async fn an_object_lives_from_create_to_delete() {
    let server = TestServer::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(server.client());
    let created = maps
        .create(&PostParams::default(), &config_map("a", "1"))
        .await
        .unwrap();
    assert!(created.metadata.uid.is_some() && created.metadata.creation_timestamp.is_some());
    assert_eq!(created.metadata.namespace.as_deref(), Some("default"));

    let read = maps.get("a").await.unwrap();
    assert_eq!(read, created);

    let mut changed = read.clone();
    changed.data = config_map("a", "2").data;
    let changed = maps.replace("a", &PostParams::default(), &changed).await.unwrap();
    assert_ne!(
        changed.metadata.resource_version,
        created.metadata.resource_version
    );
    assert_eq!(changed.metadata.uid, created.metadata.uid);

    assert_eq!(
        maps.list(&ListParams::default()).await.unwrap().items,
        vec![changed]
    );
    assert!(
        maps.delete("a", &DeleteParams::default())
            .await
            .unwrap()
            .is_right()
    );
    assert_eq!(code(&maps.get("a").await.unwrap_err()), 404);
}

#[tokio::test]
async fn a_stale_update_is_refused() {
    let server = TestServer::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(server.client());
    let first = maps
        .create(&PostParams::default(), &config_map("a", "1"))
        .await
        .unwrap();
    let mut newer = first.clone();
    newer.data = config_map("a", "2").data;
    maps.replace("a", &PostParams::default(), &newer).await.unwrap();
    let error = maps
        .replace("a", &PostParams::default(), &newer)
        .await
        .unwrap_err();
    assert_eq!(
        message(error),
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the latest version and try again"
    );
}

#[tokio::test]
async fn an_update_that_changes_nothing_keeps_the_version() {
    let server = TestServer::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(server.client());
    let created = maps
        .create(&PostParams::default(), &config_map("a", "1"))
        .await
        .unwrap();
    let same = maps.replace("a", &PostParams::default(), &created).await.unwrap();
    assert_eq!(same.metadata.resource_version, created.metadata.resource_version);
}

#[tokio::test]
async fn a_name_is_taken_once() {
    let server = TestServer::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(server.client());
    maps.create(&PostParams::default(), &config_map("a", "1"))
        .await
        .unwrap();
    let error = maps
        .create(&PostParams::default(), &config_map("a", "1"))
        .await
        .unwrap_err();
    assert_eq!(
        (code(&error), message(error).as_str()),
        (409, "configmaps \"a\" already exists")
    );
}

#[tokio::test]
async fn names_are_generated() {
    let server = TestServer::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(server.client());
    let mut wanted = config_map("", "1");
    wanted.metadata = ObjectMeta {
        generate_name: Some("web-".into()),
        ..ObjectMeta::default()
    };
    let name = maps
        .create(&PostParams::default(), &wanted)
        .await
        .unwrap()
        .metadata
        .name
        .unwrap();
    assert!(name.starts_with("web-") && name.len() == 9, "{name}");
}

#[tokio::test]
async fn a_namespace_must_be_there() {
    let server = TestServer::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(server.client(), "nowhere");
    let error = maps
        .create(&PostParams::default(), &config_map("a", "1"))
        .await
        .unwrap_err();
    assert_eq!(
        (code(&error), message(error).as_str()),
        (404, "namespaces \"nowhere\" not found")
    );
}

#[tokio::test]
async fn patches_change_what_they_name() {
    let server = TestServer::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(server.client());
    maps.create(&PostParams::default(), &config_map("a", "1"))
        .await
        .unwrap();
    let merge = Patch::Merge(json!({"data": {"other": "x"}, "metadata": {"labels": {"l": "v"}}}));
    let merged = maps.patch("a", &PatchParams::default(), &merge).await.unwrap();
    assert_eq!(merged.data.unwrap().len(), 2);
    let strategic = Patch::Strategic(json!({"data": {"key": null}}));
    let patched = maps
        .patch("a", &PatchParams::default(), &strategic)
        .await
        .unwrap();
    assert_eq!(
        patched.data.unwrap(),
        [("other".to_owned(), "x".to_owned())].into()
    );
    assert_eq!(patched.metadata.labels.unwrap()["l"], "v");
}

#[tokio::test]
async fn a_dry_run_stores_nothing() {
    let server = TestServer::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(server.client());
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    maps.create(&dry, &config_map("a", "1")).await.unwrap();
    assert!(maps.get_opt("a").await.unwrap().is_none());
    maps.create(&PostParams::default(), &config_map("a", "1"))
        .await
        .unwrap();
    let changed = maps.replace("a", &dry, &config_map("a", "2")).await.unwrap();
    assert_eq!(changed.data.unwrap()["key"], "2");
    assert_eq!(maps.get("a").await.unwrap().data.unwrap()["key"], "1");
    maps.delete(
        "a",
        &DeleteParams {
            dry_run: true,
            ..DeleteParams::default()
        },
    )
    .await
    .unwrap();
    maps.get("a").await.unwrap();
}

#[tokio::test]
async fn a_finalizer_holds_a_deleted_object() {
    let server = TestServer::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(server.client());
    let mut held = config_map("a", "1");
    held.metadata.finalizers = Some(vec!["example.org/hold".into()]);
    maps.create(&PostParams::default(), &held).await.unwrap();
    let pending = maps
        .delete("a", &DeleteParams::default())
        .await
        .unwrap()
        .left()
        .expect("it is still there");
    assert!(pending.metadata.deletion_timestamp.is_some());
    let release = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    maps.patch("a", &PatchParams::default(), &release).await.unwrap();
    assert!(maps.get_opt("a").await.unwrap().is_none());
}

#[tokio::test]
async fn a_watch_tells_every_change_in_order() {
    let server = TestServer::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(server.client());
    let from = maps
        .list(&ListParams::default())
        .await
        .unwrap()
        .metadata
        .resource_version
        .unwrap();
    let mut events = maps.watch(&WatchParams::default(), &from).await.unwrap().boxed();
    maps.create(&PostParams::default(), &config_map("a", "1"))
        .await
        .unwrap();
    maps.replace("a", &PostParams::default(), &config_map("a", "2"))
        .await
        .unwrap();
    maps.delete("a", &DeleteParams::default()).await.unwrap();
    let value = |map: ConfigMap| map.data.unwrap()["key"].clone();
    assert!(
        matches!(events.try_next().await.unwrap(), Some(WatchEvent::Added(map)) if value(map.clone()) == "1")
    );
    assert!(
        matches!(events.try_next().await.unwrap(), Some(WatchEvent::Modified(map)) if value(map.clone()) == "2")
    );
    assert!(
        matches!(events.try_next().await.unwrap(), Some(WatchEvent::Deleted(map)) if value(map.clone()) == "2")
    );
}

#[tokio::test]
async fn the_systems_namespaces_are_there_and_stay() {
    let server = TestServer::start().await;
    let namespaces: Api<Namespace> = Api::all(server.client());
    let names: Vec<String> = namespaces
        .list(&ListParams::default())
        .await
        .unwrap()
        .items
        .into_iter()
        .filter_map(|ns| ns.metadata.name)
        .collect();
    assert_eq!(
        names,
        ["default", "kube-node-lease", "kube-public", "kube-system"]
    );
    let error = namespaces
        .delete("default", &DeleteParams::default())
        .await
        .unwrap_err();
    assert_eq!(
        message(error),
        "namespaces \"default\" is forbidden: this namespace may not be deleted"
    );
}
