//! Several API servers on one store behave as one.

#![allow(clippy::unwrap_used, reason = "this is a test")]

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use k8s_openapi::api::networking::v1::IPAddress;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use orch_api::{ApiServer, UserInfo};
use orch_store::{ListOptions, MemoryStore, Store};
use serde_json::json;

async fn server(store: &Arc<MemoryStore>) -> ApiServer {
    let store = Arc::clone(store) as Arc<dyn Store>;
    let builder = ApiServer::builder(store)
        .service_cidr("10.96.0.0/24".parse().unwrap())
        .node_port_range(30000..=30199);
    builder.build().await.unwrap()
}

fn services(server: &ApiServer) -> Api<Service> {
    Api::default_namespaced(server.client(UserInfo::admin()))
}

fn node_port(name: &str) -> Service {
    serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {"type": "NodePort", "ports": [{"port": 80}]},
    }))
    .unwrap()
}

fn address(service: &Service) -> String {
    service.spec.as_ref().unwrap().cluster_ip.clone().unwrap()
}

fn port(service: &Service) -> i32 {
    service.spec.as_ref().unwrap().ports.as_ref().unwrap()[0]
        .node_port
        .unwrap()
}

async fn claimed(server: &ApiServer) -> HashSet<String> {
    let all: Api<IPAddress> = Api::all(server.client(UserInfo::admin()));
    let list = all.list(&ListParams::default()).await.unwrap();
    list.items
        .into_iter()
        .map(|address| address.metadata.name.unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_address_and_no_port_is_given_out_twice() {
    let store = Arc::new(MemoryStore::new());
    // Started together, both make what every cluster has.
    let (one, other) = tokio::join!(server(&store), server(&store));
    let apis = [services(&one), services(&other)];
    let create = (0..100).map(|index| {
        let api = apis[index % 2].clone();
        async move {
            api.create(&PostParams::default(), &node_port(&format!("s{index}")))
                .await
                .unwrap()
        }
    });
    let created = join_all(create).await;
    let addresses: HashSet<_> = created.iter().map(address).collect();
    let ports: HashSet<_> = created.iter().map(port).collect();
    assert_eq!((addresses.len(), ports.len()), (100, 100));
    let mut expected = addresses.clone();
    expected.insert("10.96.0.1".to_owned());
    assert_eq!(claimed(&one).await, expected, "every address has its object");

    // All go again, each through the server that has not made it.
    for (index, service) in created.iter().enumerate() {
        let name = service.metadata.name.as_ref().unwrap();
        apis[(index + 1) % 2]
            .delete(name, &DeleteParams::default())
            .await
            .unwrap();
    }
    assert_eq!(claimed(&other).await, HashSet::from(["10.96.0.1".to_owned()]));
    // And all of the range can be had, by one of them alone.
    for index in 0..200 {
        let service = node_port(&format!("t{index}"));
        apis[0].create(&PostParams::default(), &service).await.unwrap();
    }
    let full = apis[1]
        .create(&PostParams::default(), &node_port("more"))
        .await
        .unwrap_err();
    assert!(full.to_string().contains("range is full"), "{full}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_one_has_given_out_the_other_refuses() {
    let store = Arc::new(MemoryStore::new());
    let (one, other) = (server(&store).await, server(&store).await);
    let mut wanted = node_port("first");
    wanted.spec.as_mut().unwrap().cluster_ip = Some("10.96.0.77".to_owned());
    services(&one)
        .create(&PostParams::default(), &wanted)
        .await
        .unwrap();
    wanted.metadata.name = Some("second".to_owned());
    let refused = services(&other)
        .create(&PostParams::default(), &wanted)
        .await
        .unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("failed to allocate IP 10.96.0.77: provided IP is already allocated"),
        "{refused}"
    );
    // What a service no longer has is free at once.
    services(&one)
        .delete("first", &DeleteParams::default())
        .await
        .unwrap();
    let again = async {
        while services(&other)
            .create(&PostParams::default(), &wanted)
            .await
            .is_err()
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), again)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_refused_or_dry_write_leaves_no_claim() {
    let store = Arc::new(MemoryStore::new());
    let server = server(&store).await;
    let api = services(&server);
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let service = api.create(&dry, &node_port("dry")).await.unwrap();
    assert!(address(&service).starts_with("10.96.0."));
    api.create(&PostParams::default(), &node_port("real"))
        .await
        .unwrap();
    // This one is refused only when it is written.
    api.create(&PostParams::default(), &node_port("real"))
        .await
        .unwrap_err();
    let settled = async {
        while claimed(&server).await.len() != 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), settled)
        .await
        .unwrap();

    // A service that stops to need them gives both back.
    let patch = json!({"spec": {"type": "ExternalName", "externalName": "example.com", "clusterIP": "", "clusterIPs": null, "ipFamilies": null, "ipFamilyPolicy": null,
        "ports": [{"port": 80, "nodePort": null}]}});
    api.patch("real", &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .unwrap();
    assert_eq!(claimed(&server).await.len(), 1);
    let ports = store
        .get(b"/registry/ranges/servicenodeports", None)
        .await
        .unwrap()
        .kv
        .unwrap();
    let ports: serde_json::Value = serde_json::from_slice(&ports.value).unwrap();
    assert_eq!(
        (&ports["kind"], &ports["data"]),
        (&json!("RangeAllocation"), &json!(""))
    );
}

#[tokio::test]
async fn what_a_crash_left_is_mended_at_the_next_start() {
    let store = Arc::new(MemoryStore::new());
    let first = server(&store).await;
    let service = services(&first)
        .create(&PostParams::default(), &node_port("web"))
        .await
        .unwrap();
    first.stop();
    // A claim without its service, long ago; and a service without its claim.
    let kept = address(&service);
    let key = format!("/registry/ipaddresses/{kept}");
    let claim = store.get(key.as_bytes(), None).await.unwrap().kv.unwrap();
    let mut left: serde_json::Value = serde_json::from_slice(&claim.value).unwrap();
    left["metadata"]["name"] = "10.96.0.200".into();
    left["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
    left["spec"]["parentRef"]["name"] = "gone".into();
    let left = left.to_string().into();
    store
        .create("/registry/ipaddresses/10.96.0.200".into(), left, None)
        .await
        .unwrap();
    store.delete(key.as_bytes(), None).await.unwrap();

    let second = server(&store).await;
    let expected = HashSet::from(["10.96.0.1".to_owned(), kept]);
    assert_eq!(claimed(&second).await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_writes_the_other_reads_at_once() {
    let store = Arc::new(MemoryStore::new());
    let (one, other) = (server(&store).await, server(&store).await);
    let maps = [&one, &other]
        .map(|server| -> Api<ConfigMap> { Api::default_namespaced(server.client(UserInfo::admin())) });
    for round in 0..50 {
        let (writer, reader) = (&maps[round % 2], &maps[(round + 1) % 2]);
        let name = format!("m{round}");
        let map = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        writer.create(&PostParams::default(), &map).await.unwrap();
        let list = reader.list(&ListParams::default()).await.unwrap();
        assert_eq!(list.items.len(), round + 1);
    }
    let page = store
        .list(b"/registry/configmaps/", ListOptions::default())
        .await
        .unwrap();
    assert_eq!(page.items.len(), 50);
}
