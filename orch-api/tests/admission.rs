//! The admission rules that every server has, as clients meet them.

#![allow(clippy::unwrap_used, clippy::needless_pass_by_value, reason = "a test")]

mod common;

use std::fmt::Debug;

use k8s_openapi::api::core::v1::{LimitRange, PersistentVolumeClaim, Pod};
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use k8s_openapi::api::node::v1::RuntimeClass;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Resource};
use orch_api::testkit::TestServer;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::common::message;

async fn create<K>(api: &Api<K>, object: Value) -> Result<K, String>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize,
{
    let object = serde_json::from_value(object).unwrap();
    api.create(&PostParams::default(), &object).await.map_err(message)
}

fn pods(server: &TestServer) -> Api<Pod> {
    Api::default_namespaced(server.client())
}

fn pod(name: &str, spec: Value) -> Value {
    let mut pod = json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    for (field, value) in spec.as_object().unwrap() {
        pod["spec"][field] = value.clone();
    }
    pod
}

#[tokio::test]
async fn pods_have_the_priority_of_their_class() {
    let server = TestServer::start().await;
    let (pods, classes) = (pods(&server), Api::<PriorityClass>::all(server.client()));
    let plain = create(&pods, pod("plain", json!({})))
        .await
        .unwrap()
        .spec
        .unwrap();
    assert_eq!(
        (plain.priority, plain.preemption_policy.as_deref()),
        (Some(0), Some("PreemptLowerPriority"))
    );

    let class = json!({"metadata": {"name": "high"}, "value": 1000, "preemptionPolicy": "Never"});
    create(&classes, class).await.unwrap();
    let named = json!({"priorityClassName": "high"});
    let high = create(&pods, pod("high", named)).await.unwrap().spec.unwrap();
    assert_eq!(
        (high.priority, high.preemption_policy.as_deref()),
        (Some(1000), Some("Never"))
    );
    let critical = json!({"priorityClassName": "system-node-critical"});
    let critical = create(&pods, pod("critical", critical))
        .await
        .unwrap()
        .spec
        .unwrap();
    assert_eq!(critical.priority, Some(2_000_001_000));

    let refused = create(&pods, pod("none", json!({"priorityClassName": "none"})))
        .await
        .unwrap_err();
    assert_eq!(
        refused,
        r#"pods "none" is forbidden: no PriorityClass with name none was found"#
    );
    let refused = create(&pods, pod("own", json!({"priority": 7})))
        .await
        .unwrap_err();
    assert!(
        refused.contains("the integer value of priority (7) must not be provided in pod spec"),
        "{refused}"
    );

    let default = |name: &str| json!({"metadata": {"name": name}, "value": 5, "globalDefault": true});
    create(&classes, default("usual")).await.unwrap();
    let usual = create(&pods, pod("usual", json!({})))
        .await
        .unwrap()
        .spec
        .unwrap();
    assert_eq!(
        (usual.priority, usual.priority_class_name.as_deref()),
        (Some(5), Some("usual"))
    );
    let refused = create(&classes, default("another")).await.unwrap_err();
    assert_eq!(
        refused,
        "priorityclasses.scheduling.k8s.io \"another\" is forbidden: PriorityClass usual is already marked as default. Only \
         one default can exist"
    );
    // What an update leaves out stays as it is.
    let patch = Patch::Merge(json!({"metadata": {"labels": {"a": "b"}}, "spec": {"priority": null}}));
    let kept = pods.patch("high", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(kept.spec.unwrap().priority, Some(1000));
}

#[tokio::test]
async fn a_limit_range_fills_in_defaults_and_says_so() {
    let server = TestServer::start().await;
    let ranges: Api<LimitRange> = Api::default_namespaced(server.client());
    let limits = json!([{"type": "Container", "default": {"cpu": "500m", "memory": "1Gi"},
                         "defaultRequest": {"cpu": "100m", "memory": "512Mi"}}]);
    create(
        &ranges,
        json!({"metadata": {"name": "defaults"}, "spec": {"limits": limits}}),
    )
    .await
    .unwrap();
    let api = pods(&server);
    let created = create(
        &api,
        pod(
            "p",
            json!({"containers": [
                {"name": "a", "image": "i"},
                {"name": "b", "image": "i", "resources": {"requests": {"cpu": "1m"}, "limits": {"memory": "2Gi"}}},
            ]}),
        ),
    );
    let created = created.await.unwrap();
    let resources = |index: usize| {
        let container = &created.spec.as_ref().unwrap().containers[index];
        serde_json::to_value(&container.resources).unwrap()
    };
    assert_eq!(
        resources(0),
        json!({"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"cpu": "500m", "memory": "1Gi"}})
    );
    // A limit that is given is the request too, where none is.
    assert_eq!(
        resources(1),
        json!({"requests": {"cpu": "1m", "memory": "2Gi"}, "limits": {"cpu": "500m", "memory": "2Gi"}})
    );
    assert_eq!(
        created.metadata.annotations.unwrap()["kubernetes.io/limit-ranger"],
        "LimitRanger plugin set: cpu, memory request for container a; cpu, memory limit for container a; cpu limit for container b"
    );
}

#[tokio::test]
async fn a_limit_range_refuses_what_goes_beyond_it() {
    let server = TestServer::start().await;
    let ranges: Api<LimitRange> = Api::default_namespaced(server.client());
    let limits = json!([
        {"type": "Container", "min": {"cpu": "100m"}, "max": {"cpu": "2"}, "maxLimitRequestRatio": {"cpu": "4"},
         "default": {"cpu": "1"}, "defaultRequest": {"cpu": "500m"}},
        {"type": "Pod", "max": {"memory": "1Gi"}},
        {"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}, "max": {"storage": "10Gi"}},
    ]);
    create(
        &ranges,
        json!({"metadata": {"name": "limits"}, "spec": {"limits": limits}}),
    )
    .await
    .unwrap();
    let pods = pods(&server);
    let with = |requests: Value, limits: Value| json!({"containers": [{"name": "c", "image": "i", "resources": {"requests": requests, "limits": limits}}]});
    for (requests, limits, expected) in [
        (
            json!({"cpu": "1"}),
            json!({"cpu": "3", "memory": "1Gi"}),
            "maximum cpu usage per Container is 2, but limit is 3",
        ),
        (
            json!({"cpu": "10m"}),
            json!({"cpu": "20m", "memory": "1Gi"}),
            "minimum cpu usage per Container is 100m, but request is 10m",
        ),
        (
            json!({"cpu": "200m"}),
            json!({"cpu": "1", "memory": "1Gi"}),
            "cpu max limit to request ratio per Container is 4, but provided ratio is 5.000000",
        ),
        (
            json!({}),
            json!({"memory": "2Gi"}),
            "maximum memory usage per Pod is 1Gi, but limit is 2Gi",
        ),
        (
            json!({}),
            json!({}),
            "maximum memory usage per Pod is 1Gi.  No limit is specified",
        ),
        (
            json!({"cpu": "10m"}),
            json!({"cpu": "3", "memory": "2Gi"}),
            "[minimum cpu usage per Container is 100m, but request is 10m, maximum cpu usage per Container is 2, but limit is 3, cpu max \
          limit to request ratio per Container is 4, but provided ratio is 300.000000, maximum memory usage per Pod is 1Gi, but limit \
          is 2Gi]",
        ),
    ] {
        let refused = create(&pods, pod("p", with(requests, limits))).await.unwrap_err();
        assert_eq!(refused, format!("pods \"p\" is forbidden: {expected}"));
    }
    create(
        &pods,
        pod(
            "p",
            with(json!({"cpu": "1"}), json!({"cpu": "2", "memory": "1Gi"})),
        ),
    )
    .await
    .unwrap();

    let claims: Api<PersistentVolumeClaim> = Api::default_namespaced(server.client());
    let claim = |size: &str| json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}});
    let refused = create(&claims, claim("20Gi")).await.unwrap_err();
    assert_eq!(
        refused,
        "persistentvolumeclaims \"c\" is forbidden: maximum storage usage per PersistentVolumeClaim is 10Gi, but request is 20Gi"
    );
    let refused = create(&claims, claim("1Mi")).await.unwrap_err();
    assert!(
        refused.ends_with("minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 1Mi"),
        "{refused}"
    );
    create(&claims, claim("5Gi")).await.unwrap();
}

#[tokio::test]
async fn init_containers_count_for_a_pod_as_they_run() {
    let server = TestServer::start().await;
    let ranges: Api<LimitRange> = Api::default_namespaced(server.client());
    let limits = json!([{"type": "Pod", "max": {"cpu": "4"}}]);
    create(
        &ranges,
        json!({"metadata": {"name": "limits"}, "spec": {"limits": limits}}),
    )
    .await
    .unwrap();
    let container = |name: &str, cpu: &str, always: bool| {
        let mut container = json!({"name": name, "image": "i", "resources": {"limits": {"cpu": cpu}}});
        if always {
            container["restartPolicy"] = "Always".into();
        }
        container
    };
    let pods = pods(&server);
    // 1 + 1 + a sidecar of 1 at the end, 1 + 3 while the last init container runs.
    let fits = json!({"containers": [container("a", "1", false), container("b", "1", false)],
                      "initContainers": [container("s", "1", true), container("i", "3", false)]});
    create(&pods, pod("fits", fits)).await.unwrap();
    let beyond = json!({"containers": [container("a", "1", false)],
                        "initContainers": [container("s", "1", true), container("i", "3500m", false)]});
    let refused = create(&pods, pod("beyond", beyond)).await.unwrap_err();
    assert!(
        refused.ends_with("maximum cpu usage per Pod is 4, but limit is 4500m"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_runtime_class_brings_overhead_and_where_to_run() {
    let server = TestServer::start().await;
    let (pods, classes) = (pods(&server), Api::<RuntimeClass>::all(server.client()));
    let class = json!({"metadata": {"name": "kata"}, "handler": "kata", "overhead": {"podFixed": {"cpu": "250m"}},
        "scheduling": {"nodeSelector": {"kata": "yes"}, "tolerations": [{"key": "kata", "operator": "Exists"}]}});
    create(&classes, class).await.unwrap();
    let created = create(&pods, pod("a", json!({"runtimeClassName": "kata"})))
        .await
        .unwrap()
        .spec
        .unwrap();
    assert_eq!(
        serde_json::to_value(&created.overhead).unwrap(),
        json!({"cpu": "250m"})
    );
    assert_eq!(created.node_selector.unwrap()["kata"], "yes");
    assert!(
        created
            .tolerations
            .unwrap()
            .iter()
            .any(|toleration| toleration.key.as_deref() == Some("kata"))
    );
    for (spec, expected) in [
        (
            json!({"runtimeClassName": "none"}),
            "pod rejected: RuntimeClass \"none\" not found",
        ),
        (
            json!({"overhead": {"cpu": "1"}}),
            "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead",
        ),
        (
            json!({"runtimeClassName": "kata", "overhead": {"cpu": "1"}}),
            "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead",
        ),
        (
            json!({"runtimeClassName": "kata", "nodeSelector": {"kata": "no"}}),
            "conflict: runtimeClass.scheduling.nodeSelector[kata] = yes; pod.spec.nodeSelector[kata] = no",
        ),
    ] {
        let refused = create(&pods, pod("b", spec)).await.unwrap_err();
        assert_eq!(refused, format!("pods \"b\" is forbidden: {expected}"));
    }
}

#[tokio::test]
async fn what_names_no_class_gets_the_default_one() {
    let server = TestServer::start().await;
    let storage = Api::<StorageClass>::all(server.client());
    let claims: Api<PersistentVolumeClaim> = Api::default_namespaced(server.client());
    let claim = |name: &str, class: Value| {
        json!({"metadata": {"name": name}, "spec": {"storageClassName": class, "accessModes": ["ReadWriteOnce"],
               "resources": {"requests": {"storage": "1Gi"}}}})
    };
    let class_of = |claim: PersistentVolumeClaim| claim.spec.unwrap().storage_class_name;
    assert_eq!(
        class_of(create(&claims, claim("a", Value::Null)).await.unwrap()),
        None
    );
    let class = |name: &str| {
        json!({"metadata": {"name": name, "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
               "provisioner": "example.com/p"})
    };
    create(&storage, class("b")).await.unwrap();
    create(
        &storage,
        json!({"metadata": {"name": "a"}, "provisioner": "example.com/p"}),
    )
    .await
    .unwrap();
    assert_eq!(
        class_of(create(&claims, claim("b", Value::Null)).await.unwrap()).as_deref(),
        Some("b")
    );
    assert_eq!(
        class_of(create(&claims, claim("c", "".into())).await.unwrap()).as_deref(),
        Some("")
    );

    let classes = Api::<IngressClass>::all(server.client());
    let ingresses: Api<Ingress> = Api::default_namespaced(server.client());
    create(&classes, json!({"metadata": {"name": "nginx", "annotations": {"ingressclass.kubernetes.io/is-default-class": "true"}},
        "spec": {"controller": "example.com/i"}})).await.unwrap();
    let ingress = json!({"metadata": {"name": "i"}, "spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}}});
    let created = create(&ingresses, ingress).await.unwrap();
    assert_eq!(created.spec.unwrap().ingress_class_name.as_deref(), Some("nginx"));
}
