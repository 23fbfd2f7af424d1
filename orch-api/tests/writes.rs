//! The rules of writes: validation, ownership, graceful deletion, parts of objects.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use common::{code, message, raw};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Service};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use orch_api::testkit::TestServer;
use serde_json::{Value, json};

const PODS: &str = "/api/v1/namespaces/default/pods";
const SERVICES: &str = "/api/v1/namespaces/default/services";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    })
}

fn deployment(name: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": 2, "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
        },
    })
}

async fn create(server: &TestServer, path: &str, object: &Value) -> Value {
    let answer = raw(server, "POST", path, &[], &object.to_string()).await;
    assert_eq!(answer.status, 201, "{}", answer.json());
    answer.json()
}

async fn refusal(server: &TestServer, path: &str, object: &Value) -> (u16, String) {
    let answer = raw(server, "POST", path, &[], &object.to_string()).await;
    (
        answer.status,
        answer.json()["message"].as_str().unwrap_or_default().to_owned(),
    )
}

#[tokio::test]
async fn unknown_fields_fail_warn_or_pass() {
    let server = TestServer::start().await;
    let mut wrong = deployment("a");
    wrong["spec"]["foo"] = json!(1);
    let strict = format!("{DEPLOYMENTS}?fieldValidation=Strict");
    assert_eq!(
        refusal(&server, &strict, &wrong).await,
        (400, "Deployment in version \"v1\" cannot be handled as a Deployment: strict decoding error: unknown field \"spec.foo\"".into())
    );
    let warned = raw(&server, "POST", DEPLOYMENTS, &[], &wrong.to_string()).await;
    assert_eq!(warned.status, 201);
    assert_eq!(
        warned.headers["warning"],
        "299 - \"unknown field \\\"spec.foo\\\"\""
    );
    let ignored = raw(
        &server,
        "PUT",
        &format!("{DEPLOYMENTS}/a?fieldValidation=Ignore"),
        &[],
        &wrong.to_string(),
    )
    .await;
    assert_eq!(
        (ignored.status, ignored.headers.contains_key("warning")),
        (200, false)
    );
}

#[tokio::test]
async fn wrong_types_and_broken_text_are_bad_requests() {
    let server = TestServer::start().await;
    let mut wrong = deployment("a");
    wrong["spec"]["replicas"] = json!("two");
    assert_eq!(
        refusal(&server, DEPLOYMENTS, &wrong).await,
        (
            400,
            "Deployment in version \"v1\" cannot be handled as a Deployment: json: cannot unmarshal string into Go struct field Deployment.spec.replicas of type int32".into()
        )
    );
    assert_eq!(raw(&server, "POST", DEPLOYMENTS, &[], "{").await.status, 400);
    assert_eq!(
        raw(
            &server,
            "POST",
            DEPLOYMENTS,
            &[("content-type", "text/plain")],
            "{}"
        )
        .await
        .status,
        415
    );
    assert_eq!(refusal(&server, DEPLOYMENTS, &pod("a")).await.0, 400);
    let large = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"a": "x".repeat(4 << 20)}});
    assert_eq!(
        refusal(&server, "/api/v1/namespaces/default/configmaps", &large)
            .await
            .0,
        413
    );
    assert_eq!(
        common::get(&server, &format!("{DEPLOYMENTS}/a")).await.status,
        404
    );
}

#[tokio::test]
async fn invalid_objects_are_told_where() {
    let server = TestServer::start().await;
    let mut wrong = deployment("Upper_case");
    wrong["spec"]["selector"]["matchLabels"]["app"] = json!("other");
    let answer = raw(&server, "POST", DEPLOYMENTS, &[], &wrong.to_string()).await;
    assert_eq!(answer.status, 422);
    let causes = answer.json()["details"]["causes"].clone();
    let fields: Vec<&str> = causes
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|cause| cause["field"].as_str())
        .collect();
    assert!(
        fields.contains(&"metadata.name") && fields.contains(&"spec.template.metadata.labels"),
        "{fields:?}"
    );
}

#[tokio::test]
async fn yaml_is_taken() {
    let server = TestServer::start().await;
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  key: |\n    text\n";
    let headers = [("content-type", "application/yaml")];
    let answer = raw(
        &server,
        "POST",
        "/api/v1/namespaces/default/configmaps",
        &headers,
        yaml,
    )
    .await;
    assert_eq!(
        (answer.status, &answer.json()["data"]["key"]),
        (201, &json!("text\n"))
    );
}

#[tokio::test]
async fn an_apply_creates_owns_and_conflicts() {
    let server = TestServer::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(server.client());
    let wanted = |value: &str| {
        Patch::Apply(json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"key": value},
        }))
    };
    let created = maps
        .patch("a", &PatchParams::apply("first"), &wanted("1"))
        .await
        .unwrap();
    let owner = &created.metadata.managed_fields.as_ref().unwrap()[0];
    assert_eq!(
        (owner.manager.as_deref(), owner.operation.as_deref()),
        (Some("first"), Some("Apply"))
    );
    let again = maps
        .patch("a", &PatchParams::apply("first"), &wanted("1"))
        .await
        .unwrap();
    assert_eq!(
        again.metadata.resource_version, created.metadata.resource_version,
        "nothing changed"
    );

    let error = maps
        .patch("a", &PatchParams::apply("second"), &wanted("2"))
        .await
        .unwrap_err();
    assert_eq!(code(&error), 409);
    assert!(message(error).contains("Apply failed with 1 conflict: conflict with \"first\": .data.key"));
    let forced = maps
        .patch("a", &PatchParams::apply("second").force(), &wanted("2"))
        .await
        .unwrap();
    assert_eq!(forced.data.unwrap()["key"], "2");

    let nameless = raw(
        &server,
        "PATCH",
        "/api/v1/namespaces/default/configmaps/a",
        &[("content-type", "application/apply-patch+yaml")],
        "{}",
    )
    .await;
    assert_eq!(nameless.status, 422);
}

#[tokio::test]
async fn a_create_notes_who_owns_what() {
    let server = TestServer::start().await;
    let created = create(
        &server,
        &format!("{DEPLOYMENTS}?fieldManager=me"),
        &deployment("a"),
    )
    .await;
    let owner = &created["metadata"]["managedFields"][0];
    assert_eq!(
        (&owner["manager"], &owner["operation"]),
        (&json!("me"), &json!("Update"))
    );
    assert!(owner["fieldsV1"]["f:spec"]["f:replicas"].is_object());
    assert!(owner["fieldsV1"].get("f:status").is_none());
}

#[tokio::test]
async fn a_pod_that_runs_nowhere_goes_at_once_and_one_on_a_node_waits() {
    let server = TestServer::start().await;
    let pods: Api<Pod> = Api::default_namespaced(server.client());
    create(&server, PODS, &pod("free")).await;
    pods.delete("free", &DeleteParams::default()).await.unwrap();
    assert!(pods.get_opt("free").await.unwrap().is_none());

    create(&server, PODS, &pod("bound")).await;
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "bound"}, "target": {"kind": "Node", "name": "n1"}});
    create(&server, &format!("{PODS}/bound/binding"), &binding).await;
    let again = raw(
        &server,
        "POST",
        &format!("{PODS}/bound/binding"),
        &[],
        &binding.to_string(),
    )
    .await;
    assert_eq!(
        (again.status, again.json()["message"].as_str().unwrap().to_owned()),
        (409, "Operation cannot be fulfilled on pods/binding \"bound\": pod bound is already assigned to node \"n1\"".into())
    );
    let bound = pods.get("bound").await.unwrap();
    assert_eq!(bound.spec.unwrap().node_name.as_deref(), Some("n1"));

    let pending = pods
        .delete("bound", &DeleteParams::default())
        .await
        .unwrap()
        .left()
        .unwrap();
    assert_eq!(pending.metadata.deletion_grace_period_seconds, Some(30));
    let shorter = pods
        .delete("bound", &DeleteParams::default().grace_period(5))
        .await
        .unwrap()
        .left()
        .unwrap();
    assert_eq!(shorter.metadata.deletion_grace_period_seconds, Some(5));
    pods.delete("bound", &DeleteParams::default().grace_period(60))
        .await
        .unwrap();
    assert_eq!(
        pods.get("bound")
            .await
            .unwrap()
            .metadata
            .deletion_grace_period_seconds,
        Some(5)
    );
    pods.delete("bound", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    assert!(pods.get_opt("bound").await.unwrap().is_none());
}

#[tokio::test]
async fn pods_get_an_account_and_tolerations() {
    let server = TestServer::start().await;
    let created = create(&server, PODS, &pod("a")).await;
    assert_eq!(created["spec"]["serviceAccountName"], "default");
    assert_eq!(created["spec"]["tolerations"].as_array().unwrap().len(), 2);
    assert_eq!(created["status"]["phase"], "Pending");
}

#[tokio::test]
async fn a_deletion_is_propagated_as_asked() {
    let server = TestServer::start().await;
    create(&server, DEPLOYMENTS, &deployment("a")).await;
    let foreground = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Foreground"});
    let answer = raw(
        &server,
        "DELETE",
        &format!("{DEPLOYMENTS}/a"),
        &[],
        &foreground.to_string(),
    )
    .await;
    assert_eq!(answer.status, 202);
    assert_eq!(
        answer.json()["metadata"]["finalizers"],
        json!(["foregroundDeletion"])
    );
    let wrong = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Sideways"});
    assert_eq!(
        raw(
            &server,
            "DELETE",
            &format!("{DEPLOYMENTS}/a"),
            &[],
            &wrong.to_string()
        )
        .await
        .status,
        422
    );
    let other = json!({"preconditions": {"uid": "other"}});
    assert_eq!(
        raw(
            &server,
            "DELETE",
            &format!("{DEPLOYMENTS}/a"),
            &[],
            &other.to_string()
        )
        .await
        .status,
        409
    );
}

#[tokio::test]
async fn a_namespace_goes_when_it_is_finalized() {
    let server = TestServer::start().await;
    let namespaces: Api<Namespace> = Api::all(server.client());
    create(
        &server,
        "/api/v1/namespaces",
        &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}}),
    )
    .await;
    let ending = namespaces
        .delete("a", &DeleteParams::default())
        .await
        .unwrap()
        .left()
        .unwrap();
    assert_eq!(ending.status.unwrap().phase.as_deref(), Some("Terminating"));
    let (status, text) = refusal(&server, "/api/v1/namespaces/a/pods", &pod("late")).await;
    assert_eq!(
        (status, text.as_str()),
        (
            403,
            "pods \"late\" is forbidden: unable to create new content in namespace a because it is being terminated"
        )
    );
    let again = namespaces
        .delete("a", &DeleteParams::default())
        .await
        .unwrap_err();
    assert_eq!(code(&again), 409);
    let empty = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}, "spec": {"finalizers": []}});
    let done = raw(
        &server,
        "PUT",
        "/api/v1/namespaces/a/finalize",
        &[],
        &empty.to_string(),
    )
    .await;
    assert_eq!(done.status, 200);
    assert!(namespaces.get_opt("a").await.unwrap().is_none());
}

#[tokio::test]
async fn status_and_spec_are_written_apart() {
    let server = TestServer::start().await;
    let mut object = create(&server, DEPLOYMENTS, &deployment("a")).await;
    object["status"] = json!({"replicas": 2, "observedGeneration": 1});
    object["spec"]["replicas"] = json!(9);
    let path = format!("{DEPLOYMENTS}/a");
    let status = raw(
        &server,
        "PUT",
        &format!("{path}/status"),
        &[],
        &object.to_string(),
    )
    .await
    .json();
    assert_eq!(
        (&status["status"]["replicas"], &status["spec"]["replicas"]),
        (&json!(2), &json!(2))
    );
    object["metadata"]["resourceVersion"] = status["metadata"]["resourceVersion"].clone();
    object["status"] = json!({"replicas": 7});
    let spec = raw(&server, "PUT", &path, &[], &object.to_string()).await.json();
    assert_eq!(
        (&spec["status"]["replicas"], &spec["spec"]["replicas"]),
        (&json!(2), &json!(9))
    );
    assert_eq!(spec["metadata"]["generation"], 2);
}

#[tokio::test]
async fn a_scale_is_read_written_and_patched() {
    let server = TestServer::start().await;
    create(&server, DEPLOYMENTS, &deployment("a")).await;
    let path = format!("{DEPLOYMENTS}/a/scale");
    let mut scale = common::get(&server, &path).await.json();
    assert_eq!(
        (
            &scale["kind"],
            &scale["spec"]["replicas"],
            &scale["status"]["selector"]
        ),
        (&json!("Scale"), &json!(2), &json!("app=a"))
    );
    scale["spec"]["replicas"] = json!(5);
    assert_eq!(
        raw(&server, "PUT", &path, &[], &scale.to_string()).await.json()["spec"]["replicas"],
        5
    );
    assert_eq!(
        raw(&server, "PUT", &path, &[], &scale.to_string()).await.status,
        409,
        "the version is old"
    );
    let merge = [("content-type", "application/merge-patch+json")];
    let patched = raw(&server, "PATCH", &path, &merge, r#"{"spec":{"replicas":0}}"#).await;
    assert_eq!(patched.json()["spec"]["replicas"].as_i64().unwrap_or(0), 0);
    let deployment = common::get(&server, &format!("{DEPLOYMENTS}/a")).await.json();
    assert_eq!(
        (
            &deployment["spec"]["replicas"],
            &deployment["metadata"]["generation"]
        ),
        (&json!(0), &json!(3))
    );
    assert_eq!(
        raw(&server, "PATCH", &path, &merge, r#"{"spec":{"replicas":-1}}"#)
            .await
            .status,
        422
    );
}

#[tokio::test]
async fn services_get_addresses_of_their_own() {
    let server = TestServer::start().await;
    let services: Api<Service> = Api::default_namespaced(server.client());
    let kubernetes = services.get("kubernetes").await.unwrap();
    assert_eq!(kubernetes.spec.unwrap().cluster_ip.as_deref(), Some("10.96.0.1"));
    let service = |name: &str, spec: Value| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec});
    let first = create(
        &server,
        SERVICES,
        &service("first", json!({"ports": [{"port": 80}]})),
    )
    .await;
    let address = first["spec"]["clusterIP"].as_str().unwrap().to_owned();
    assert_eq!(first["spec"]["clusterIPs"], json!([address]));
    let (status, text) = refusal(
        &server,
        SERVICES,
        &service("second", json!({"clusterIP": address, "ports": [{"port": 80}]})),
    )
    .await;
    assert_eq!(status, 422);
    assert!(
        text.contains(&format!(
            "failed to allocate IP {address}: provided IP is already allocated"
        )),
        "{text}"
    );
    services.delete("first", &DeleteParams::default()).await.unwrap();
    create(
        &server,
        SERVICES,
        &service("second", json!({"clusterIP": address, "ports": [{"port": 80}]})),
    )
    .await;
    let node_port = create(
        &server,
        SERVICES,
        &service("third", json!({"type": "NodePort", "ports": [{"port": 80}]})),
    )
    .await;
    assert!((30000..32768).contains(&node_port["spec"]["ports"][0]["nodePort"].as_i64().unwrap()));
}

#[tokio::test]
async fn a_collection_is_deleted_by_selector() {
    let server = TestServer::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(server.client());
    for name in ["a", "b", "c"] {
        maps.create(
            &PostParams::default(),
            &common::config_map(name, if name == "b" { "keep" } else { "drop" }),
        )
        .await
        .unwrap();
    }
    let params = kube::api::ListParams::default().labels("value=drop");
    maps.delete_collection(&DeleteParams::default(), &params)
        .await
        .unwrap();
    let left = maps.list(&kube::api::ListParams::default()).await.unwrap();
    assert_eq!(
        left.items
            .iter()
            .filter_map(|map| map.metadata.name.as_deref())
            .collect::<Vec<_>>(),
        ["b"]
    );
}

#[tokio::test]
async fn two_patches_at_once_both_win() {
    let server = TestServer::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(server.client());
    maps.create(&PostParams::default(), &common::config_map("a", "1"))
        .await
        .unwrap();
    let writers = (0..10).map(|number| {
        let maps = maps.clone();
        async move {
            let patch = Patch::Merge(json!({"data": {format!("key-{number}"): "x"}}));
            maps.patch("a", &PatchParams::default(), &patch).await.unwrap();
        }
    });
    futures::future::join_all(writers).await;
    assert_eq!(maps.get("a").await.unwrap().data.unwrap().len(), 11);
}

#[tokio::test]
async fn what_is_not_built_says_so() {
    let server = TestServer::start().await;
    create(&server, PODS, &pod("a")).await;
    let exec = raw(&server, "POST", &format!("{PODS}/a/exec"), &[], "").await;
    assert_eq!(exec.status, 501, "{}", exec.json());
    assert_eq!(raw(&server, "PUT", PODS, &[], "{}").await.status, 405);
    assert_eq!(
        common::get(&server, &format!("{PODS}/a/nonsense")).await.status,
        404
    );
    // A pod that is nowhere has logged nothing.
    let log = common::get(&server, &format!("{PODS}/a/log")).await;
    assert_eq!((log.status, log.body.len()), (200, 0));
}

#[tokio::test]
async fn people_can_ask_what_they_may() {
    let server = TestServer::start().await;
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let question =
        json!({"spec": {"resourceAttributes": {"verb": "list", "resource": "pods", "namespace": "a"}}});
    assert_eq!(create(&server, path, &question).await["status"]["allowed"], true);
    let jane = Some(orch_api::UserInfo::new("jane", ["devs"]));
    let answer = common::raw_as(&server, jane.clone(), "POST", path, &[], &question.to_string()).await;
    assert_eq!(
        (answer.status, &answer.json()["status"]["allowed"]),
        (201, &json!(false))
    );
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let me = common::raw_as(&server, jane.clone(), "POST", path, &[], "{}")
        .await
        .json();
    assert_eq!(me["status"]["userInfo"]["username"], "jane");
    let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    let foreign = common::raw_as(&server, jane, "POST", path, &[], &question.to_string()).await;
    assert_eq!(foreign.status, 403);
}
