//! Namespaces and nodes, against a real API server.

#![allow(clippy::unwrap_used, reason = "tests end where they fail")]

mod common;

use std::time::Duration;

use common::{Cluster, eventually};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod, Secret, ServiceAccount};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use orch_api::testkit::TestServer;
use orch_controllers::{Controllers, Kind};
use serde_json::json;
use tokio_util::sync::CancellationToken;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_is_furnished_and_emptied() {
    let cluster = Cluster::start_with(|builder| builder.root_ca("-----BEGIN CERTIFICATE-----\n")).await;
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let team: Namespace = serde_json::from_value(json!({"metadata": {"name": "team"}})).unwrap();
    namespaces.create(&PostParams::default(), &team).await.unwrap();
    let accounts: Api<ServiceAccount> = Api::namespaced(cluster.client.clone(), "team");
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "team");
    eventually("it has its account", || async {
        accounts.get_opt("default").await.unwrap()
    })
    .await;
    let root = eventually("it has the root", || async {
        maps.get_opt("kube-root-ca.crt").await.unwrap()
    })
    .await;
    assert!(root.data.unwrap()["ca.crt"].starts_with("-----BEGIN"));

    let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), "team");
    let secret: Secret = serde_json::from_value(json!({"metadata": {"name": "s"}})).unwrap();
    secrets.create(&PostParams::default(), &secret).await.unwrap();
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), "team");
    let pod: Pod = serde_json::from_value(
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}),
    )
    .unwrap();
    pods.create(&PostParams::default(), &pod).await.unwrap();

    namespaces.delete("team", &DeleteParams::default()).await.unwrap();
    eventually("it is gone", || async {
        namespaces.get_opt("team").await.unwrap().is_none().then_some(())
    })
    .await;
    assert!(secrets.get_opt("s").await.unwrap().is_none());
    assert!(pods.get_opt("p").await.unwrap().is_none());
}

fn node(name: &str) -> Node {
    serde_json::from_value(json!({"metadata": {"name": name}})).unwrap()
}

const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

/// How many taints say that the node is unreachable.
fn unreachable(node: &Node) -> usize {
    let taints = node
        .spec
        .as_ref()
        .and_then(|spec| spec.taints.as_deref())
        .unwrap_or_default();
    taints.iter().filter(|taint| taint.key == UNREACHABLE).count()
}

async fn report_ready(nodes: &Api<Node>, name: &str) {
    let now = orch_core::conditions::now();
    let status = json!({"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady",
        "lastHeartbeatTime": now, "lastTransitionTime": now}]}});
    nodes
        .patch_status(name, &PatchParams::default(), &Patch::Merge(status))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_node_gets_a_pod_range_of_its_own() {
    let cluster = Cluster::start_with(|builder| {
        builder
            .only([Kind::NodeIpam])
            .cluster_cidr("10.244.0.0/16".parse().unwrap())
    })
    .await;
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let mut ranges = Vec::new();
    for name in ["a", "b", "c"] {
        nodes.create(&PostParams::default(), &node(name)).await.unwrap();
        let range = eventually("the node has a range", || async {
            nodes.get(name).await.unwrap().spec.and_then(|spec| spec.pod_cidr)
        })
        .await;
        ranges.push(range);
    }
    assert_eq!(ranges, ["10.244.0.0/24", "10.244.1.0/24", "10.244.2.0/24"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_node_is_tainted_and_loses_its_pods() {
    let cluster = Cluster::start_with(|builder| {
        builder
            .only([Kind::NodeLifecycle, Kind::TaintEviction])
            .node_grace(Duration::from_millis(500))
    })
    .await;
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    nodes.create(&PostParams::default(), &node("n1")).await.unwrap();
    report_ready(&nodes, "n1").await;
    let pods = cluster.api::<Pod>();
    for (name, tolerates) in [("stays", true), ("goes", false)] {
        // None at all would be given five minutes by the API server.
        let at_once = json!([{"key": UNREACHABLE, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 0}]);
        let tolerations = match tolerates {
            true => json!([{"operator": "Exists"}]),
            false => at_once,
        };
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}], "tolerations": tolerations},
        }))
        .unwrap();
        pods.create(&PostParams::default(), &pod).await.unwrap();
    }
    let silent = eventually("the node is unreachable", || async {
        let node = nodes.get("n1").await.unwrap();
        (unreachable(&node) == 2).then_some(node)
    })
    .await;
    let ready = &silent.status.unwrap().conditions.unwrap()[0];
    assert_eq!(
        (ready.status.as_str(), ready.reason.as_deref()),
        ("Unknown", Some("NodeStatusUnknown"))
    );
    eventually("only who tolerates it stays, and is not ready", || async {
        let gone = pods
            .get_opt("goes")
            .await
            .unwrap()
            .is_none_or(|pod| pod.metadata.deletion_timestamp.is_some());
        let stays = pods.get("stays").await.unwrap();
        let conditions = stays.status.unwrap().conditions.unwrap_or_default();
        let not_ready = conditions
            .iter()
            .any(|c| c.type_ == "Ready" && c.status == "False");
        (gone && not_ready).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_renews_its_lease_is_left_alone() {
    let cluster = Cluster::start_with(|builder| {
        builder
            .only([Kind::NodeLifecycle])
            .node_grace(Duration::from_secs(2))
    })
    .await;
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let leases: Api<Lease> = Api::namespaced(cluster.client.clone(), "kube-node-lease");
    for name in ["alive", "dead"] {
        nodes.create(&PostParams::default(), &node(name)).await.unwrap();
        report_ready(&nodes, name).await;
    }
    let lease: Lease = serde_json::from_value(json!({"metadata": {"name": "alive"}, "spec": {}})).unwrap();
    leases.create(&PostParams::default(), &lease).await.unwrap();
    // The dead node tells when the grace period is over; the living one has said something since.
    eventually("the other node is unreachable", || async {
        let renew =
            k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime(k8s_openapi::jiff::Timestamp::now());
        let spec = json!({"spec": {"renewTime": renew}});
        leases
            .patch("alive", &PatchParams::default(), &Patch::Merge(spec))
            .await
            .unwrap();
        (unreachable(&nodes.get("dead").await.unwrap()) == 2).then_some(())
    })
    .await;
    let alive = nodes.get("alive").await.unwrap();
    assert_eq!(unreachable(&alive), 0, "{:?}", alive.spec);
}

fn pod(name: &str) -> Pod {
    serde_json::from_value(
        json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}}),
    )
    .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_that_no_agent_will_remove_are_removed() {
    let server = TestServer::start().await;
    let pods: Api<Pod> = Api::default_namespaced(server.client());
    let nodes: Api<Node> = Api::all(server.client());
    let mut broken = node("n1");
    broken.spec = serde_json::from_value(json!({"taints": [
        {"key": "node.kubernetes.io/out-of-service", "value": "nodeshutdown", "effect": "NoExecute"}]}))
    .unwrap();
    nodes.create(&PostParams::default(), &broken).await.unwrap();
    nodes.create(&PostParams::default(), &node("n2")).await.unwrap();
    for (name, on, finalizer) in [
        ("waits", "", true),
        ("broken", "n1", false),
        ("fine", "n2", false),
    ] {
        let mut pod = pod(name);
        pod.spec.as_mut().unwrap().node_name = (!on.is_empty()).then(|| on.to_owned());
        pod.metadata.finalizers = finalizer.then(|| vec!["example.com/held".to_owned()]);
        pods.create(&PostParams::default(), &pod).await.unwrap();
        pods.delete(name, &DeleteParams::default()).await.unwrap();
    }
    let controllers = Controllers::builder(server.client())
        .only([Kind::PodGc])
        .build()
        .unwrap();
    let (ready, stop) = (controllers.ready(), CancellationToken::new());
    let running = tokio::spawn(controllers.run(stop.clone()));
    ready.wait().await;
    eventually("the pod of the node that is out of service is gone", || async {
        pods.get_opt("broken").await.unwrap().is_none().then_some(())
    })
    .await;
    let unbound = eventually("the pod that was never bound has failed", || async {
        let pod = pods.get("waits").await.unwrap();
        let status = pod.status.clone().unwrap_or_default();
        (status.phase.as_deref() == Some("Failed")).then_some(pod)
    })
    .await;
    assert!(unbound.metadata.deletion_timestamp.is_some());
    let fine = pods.get("fine").await.unwrap();
    assert_eq!(fine.status.unwrap().phase.as_deref(), Some("Pending"));
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_that_ended_are_kept_up_to_a_threshold() {
    let server = TestServer::start().await;
    let controllers = Controllers::builder(server.client())
        .only([Kind::PodGc])
        .terminated_pod_threshold(2)
        .build()
        .unwrap();
    let (ready, stop) = (controllers.ready(), CancellationToken::new());
    let running = tokio::spawn(controllers.run(stop.clone()));
    ready.wait().await;
    let pods: Api<Pod> = Api::default_namespaced(server.client());
    pods.create(&PostParams::default(), &pod("runs")).await.unwrap();
    for name in ["a", "b", "c", "d"] {
        pods.create(&PostParams::default(), &pod(name)).await.unwrap();
    }
    for (name, reason) in [
        ("a", "Completed"),
        ("b", "Completed"),
        ("c", "Evicted"),
        ("d", "Evicted"),
    ] {
        let status = json!({"status": {"phase": "Failed", "reason": reason}});
        pods.patch_status(name, &PatchParams::default(), &Patch::Merge(status))
            .await
            .unwrap();
    }
    eventually("the evicted ones are gone", || async {
        let pods = pods.list(&ListParams::default()).await.unwrap().items;
        let names: Vec<_> = pods.iter().map(ResourceExt::name_any).collect();
        (names == ["a", "b", "runs"]).then_some(())
    })
    .await;
    stop.cancel();
    running.await.unwrap();
}
