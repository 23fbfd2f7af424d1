//! The cluster process is killed at random moments under writes; what it acknowledged is there when it is back.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ListParams, PostParams};
use nix::sys::signal::{Signal, kill};
use support::{Cluster, KUBECTL};
use tokio::sync::Notify;

const ROUNDS: u64 = 20;
const WRITERS: u64 = 4;

/// Creates configmaps one after the other until the server goes away; returns the names that were acknowledged.
async fn write_until_gone(client: kube::Client, round: u64, writer: u64, begun: Arc<Notify>) -> Vec<String> {
    let api: Api<ConfigMap> = Api::default_namespaced(client);
    let mut acknowledged = Vec::new();
    for number in 0.. {
        let name = format!("w{writer}-r{round}-n{number}");
        let mut object = ConfigMap {
            data: Some(BTreeMap::from([("name".into(), name.clone())])),
            ..ConfigMap::default()
        };
        object.metadata.name = Some(name.clone());
        if api.create(&PostParams::default(), &object).await.is_err() {
            break;
        }
        acknowledged.push(name);
        begun.notify_one();
    }
    acknowledged
}

/// A client over HTTPS, through the namespace of the cluster: kube connects from this thread.
async fn client(cluster: &Cluster) -> kube::Client {
    let kubeconfig = kube::config::Kubeconfig::read_from(cluster.kubeconfig()).expect("a kubeconfig");
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default())
        .await
        .expect("a configuration");
    kube::Client::try_from(config).expect("a client")
}

#[test]
fn no_acknowledged_write_is_lost_by_sigkill() {
    let mut cluster = Cluster::start(&["--runtime", "fake"]);
    cluster.enter();
    let mut expected = Vec::new();
    for round in 0..ROUNDS {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let pid = cluster.pid();
        let acknowledged = runtime.block_on(async {
            let client = client(&cluster).await;
            let begun = Arc::new(Notify::new());
            let writer = |number| write_until_gone(client.clone(), round, number, Arc::clone(&begun));
            let writers: Vec<_> = (0..WRITERS).map(|number| tokio::spawn(writer(number))).collect();
            begun.notified().await;
            // Any moment will do; these spread over the writers' first half second.
            tokio::time::sleep(Duration::from_millis(round * 97 % 460)).await;
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("the cluster runs");
            let mut all = Vec::new();
            for writer in writers {
                all.extend(writer.await.expect("a writer ends"));
            }
            all
        });
        cluster.kill();
        assert!(
            !acknowledged.is_empty(),
            "round {round} wrote nothing: the test proves nothing"
        );
        expected.extend(acknowledged);
        cluster.start_again();
    }

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let found: BTreeMap<String, ConfigMap> = runtime.block_on(async {
        let api: Api<ConfigMap> = Api::default_namespaced(client(&cluster).await);
        let list = api.list(&ListParams::default()).await.expect("a list");
        list.items
            .into_iter()
            .map(|object| (object.metadata.name.clone().unwrap_or_default(), object))
            .collect()
    });
    for name in &expected {
        let object = found
            .get(name)
            .unwrap_or_else(|| panic!("{name} was acknowledged and is gone"));
        assert_eq!(
            object.data.as_ref().and_then(|data| data.get("name")),
            Some(name),
            "a half write"
        );
    }
}

#[test]
fn a_killed_cluster_adopts_its_running_pods() {
    let mut cluster = Cluster::start(&[]);
    cluster.apply(KUBECTL, &[], include_str!("../manifests/web.yaml"));
    cluster.kubectl(KUBECTL, &["rollout", "status", "deployment/web", "--timeout=60s"]);
    let containers = "jsonpath={range .items[*]}{.metadata.name} {.status.containerStatuses[0].containerID} \
                      {.status.containerStatuses[0].restartCount}{\"\\n\"}{end}";
    let before = cluster.kubectl(KUBECTL, &["get", "pods", "-l", "app=web", "-o", containers]);
    cluster.kill();
    cluster.start_again();
    cluster.kubectl(KUBECTL, &["rollout", "status", "deployment/web", "--timeout=60s"]);
    let after = cluster.kubectl(KUBECTL, &["get", "pods", "-l", "app=web", "-o", containers]);
    assert_eq!(before, after, "the pods should have been adopted as they ran");
    let ip = cluster.kubectl(
        KUBECTL,
        &["get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"],
    );
    cluster
        .http_get(&format!("{ip}:80"))
        .expect("the Service still answers");
}

#[test]
fn a_second_ctrl_c_leaves_pods_that_take_their_time_to_the_next_start() {
    let mut cluster = Cluster::start(&[]);
    // The first process of a pod ignores SIGTERM unless it handles it.
    let command = [
        "create",
        "deployment",
        "slow",
        "--image=orch.local/host",
        "--",
        "sleep",
        "1000",
    ];
    cluster.kubectl(KUBECTL, &command);
    cluster.kubectl(
        KUBECTL,
        &["rollout", "status", "deployment/slow", "--timeout=60s"],
    );
    let container = [
        "get",
        "pods",
        "-o",
        "jsonpath={.items[*].status.containerStatuses[0].containerID}",
    ];
    let before = cluster.kubectl(KUBECTL, &container);
    kill(cluster.pid(), Signal::SIGINT).expect("SIGINT reaches the cluster");
    cluster.wait("the word that it stops", Duration::from_secs(10), |cluster| {
        cluster.log().contains("stopping")
    });
    assert!(!cluster.interrupt(), "not in order:\n{}", cluster.log());
    cluster.start_again();
    assert_eq!(cluster.kubectl(KUBECTL, &container), before);
    cluster.kubectl(KUBECTL, &["delete", "deployment", "slow"]);
    cluster.kubectl(KUBECTL, &["delete", "pods", "--all", "--grace-period=1"]);
}

#[test]
fn ctrl_c_stops_cleanly_and_the_next_start_goes_on() {
    let mut cluster = Cluster::start(&[]);
    cluster.apply(KUBECTL, &[], include_str!("../manifests/web.yaml"));
    cluster.kubectl(KUBECTL, &["rollout", "status", "deployment/web", "--timeout=60s"]);
    let uid = cluster.kubectl(
        KUBECTL,
        &["get", "deployment", "web", "-o", "jsonpath={.metadata.uid}"],
    );
    assert!(
        cluster.interrupt(),
        "Ctrl-C should end with status 0:\n{}",
        cluster.log()
    );
    cluster.start_again();
    assert_eq!(
        cluster.kubectl(
            KUBECTL,
            &["get", "deployment", "web", "-o", "jsonpath={.metadata.uid}"]
        ),
        uid
    );
    cluster.kubectl(KUBECTL, &["rollout", "status", "deployment/web", "--timeout=60s"]);
    let ip = cluster.kubectl(
        KUBECTL,
        &["get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"],
    );
    let mut last = String::new();
    cluster.wait("an answer of the Service", Duration::from_secs(30), |cluster| {
        cluster
            .http_get(&format!("{ip}:80"))
            .map_err(|error| last = error)
            .is_ok()
    });
}
