//! The whole cluster on a real etcd: what etcdctl finds there, and what becomes of it when either of the two dies.

mod support;

use std::time::Duration;

use support::{Cluster, KUBECTL, all};

#[test]
fn a_cluster_runs_on_etcd_and_etcdctl_reads_what_it_keeps() {
    let (mut cluster, mut etcd) = Cluster::on_etcd(&[]);
    etcd.start(&cluster);
    cluster.start_again();
    cluster.apply(KUBECTL, &[], include_str!("../manifests/web.yaml"));
    cluster.kubectl(KUBECTL, &["rollout", "status", "deployment/web", "--timeout=60s"]);

    let keys = etcd.ctl(&cluster, &["get", "--prefix", "/registry/", "--keys-only"]);
    for key in [
        "/registry/deployments/default/web",
        "/registry/services/specs/default/web",
        "/registry/services/endpoints/default/web",
        "/registry/minions/",
        "/registry/leases/kube-node-lease/",
        "/registry/namespaces/kube-system",
        "/registry/events/default/",
    ] {
        assert!(keys.contains(key), "{key} is missing in\n{keys}");
    }
    let key = "/registry/deployments/default/web";
    let value = etcd.ctl(&cluster, &["get", "--print-value-only", key]);
    let stored: serde_json::Value = serde_json::from_str(&value).expect("the value is JSON");
    assert_eq!(stored["kind"], "Deployment");
    assert_eq!(stored["apiVersion"], "apps/v1");
    let uid = cluster.kubectl(
        KUBECTL,
        &["get", "deployment", "web", "-o", "jsonpath={.metadata.uid}"],
    );
    assert_eq!(stored["metadata"]["uid"], uid);
    // An object that somebody else writes there is served.
    let mut other = stored.clone();
    other["metadata"]["annotations"]["touched"] = "by etcdctl".into();
    etcd.ctl(&cluster, &["put", key, &other.to_string()]);
    let annotation = [
        "get",
        "deployment",
        "web",
        "-o",
        "jsonpath={.metadata.annotations.touched}",
    ];
    cluster.wait("the change to be served", Duration::from_secs(30), |cluster| {
        cluster.kubectl(KUBECTL, &annotation) == "by etcdctl"
    });
    // Many objects go in one revision, as events do when their time is over.
    for index in 0..5 {
        cluster.kubectl(KUBECTL, &["create", "configmap", &format!("many-{index}")]);
    }
    etcd.ctl(
        &cluster,
        &["del", "--prefix", "/registry/configmaps/default/many-"],
    );
    cluster.kubectl(KUBECTL, &["create", "configmap", "one-more"]);
    let left = cluster.kubectl(KUBECTL, &["get", "configmaps", "-o", "name"]);
    assert!(left.contains("one-more") && !left.contains("many-"), "{left}");
    // Events end by themselves, Nodes do not.
    let key = etcd.ctl(
        &cluster,
        &[
            "get",
            "--prefix",
            "/registry/events/",
            "--keys-only",
            "--limit",
            "1",
        ],
    );
    let lease = |key: &str| {
        let answer = etcd.ctl(
            &cluster,
            &["get", "--prefix", key.trim(), "--limit", "1", "-w", "json"],
        );
        let answer: serde_json::Value = serde_json::from_str(&answer).expect("etcdctl prints JSON");
        answer["kvs"][0]["lease"].clone()
    };
    assert!(lease(&key).is_number(), "an event has a time to live");
    assert!(lease("/registry/minions/").is_null(), "a Node has none");
    assert!(cluster.interrupt(), "Ctrl-C ends it in order:\n{}", cluster.log());
}

#[test]
fn etcd_dies_and_comes_back_under_a_running_cluster() {
    let (mut cluster, mut etcd) = Cluster::on_etcd(&["--runtime", "fake"]);
    etcd.start(&cluster);
    cluster.start_again();
    let create = [
        "create",
        "deployment",
        "web",
        "--image=orch.local/host",
        "--replicas=2",
    ];
    cluster.kubectl(KUBECTL, &create);
    cluster.kubectl(KUBECTL, &["rollout", "status", "deployment/web", "--timeout=60s"]);

    etcd.kill();
    let output = cluster
        .command(KUBECTL, &["create", "configmap", "lost", "--request-timeout=30s"])
        .output();
    let output = output.expect("kubectl starts");
    assert!(
        !output.status.success() && all(&output).contains("storage is unavailable"),
        "{}",
        all(&output)
    );
    etcd.start(&cluster);
    // Writes, watches of the controllers, and reads of the newest state all go on.
    cluster.kubectl(KUBECTL, &["scale", "deployment", "web", "--replicas=4"]);
    cluster.kubectl(KUBECTL, &["rollout", "status", "deployment/web", "--timeout=60s"]);
    let pods = cluster.kubectl(KUBECTL, &["get", "pods", "-o", "name"]);
    assert_eq!(pods.lines().count(), 4, "{pods}");

    cluster.kill();
    cluster.start_again();
    cluster.kubectl(KUBECTL, &["scale", "deployment", "web", "--replicas=1"]);
    cluster.wait("the scaled Deployment", Duration::from_secs(60), |cluster| {
        cluster
            .kubectl(KUBECTL, &["get", "pods", "-o", "name"])
            .lines()
            .count()
            == 1
    });
}

#[test]
fn a_cluster_without_its_etcd_says_so() {
    let (cluster, _etcd) = Cluster::on_etcd(&[]);
    let output = cluster
        .cluster_command(&["--etcd-servers", "http://127.0.0.1:9"])
        .output();
    let output = output.expect("the cluster example starts");
    assert!(!output.status.success());
    let told = all(&output);
    assert!(
        told.contains("--etcd-servers") && told.contains("127.0.0.1:9"),
        "{told}"
    );
}
