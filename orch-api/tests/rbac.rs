//! Roles and their bindings through the API: what they allow, and that nobody gives away more than they have.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use common::{Raw, raw, raw_as};
use orch_api::UserInfo;
use orch_api::testkit::TestServer;
use serde_json::{Value, json};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

fn user(name: &str) -> UserInfo {
    UserInfo::new(name, ["devs"])
}

async fn post_as(server: &TestServer, user: &UserInfo, path: &str, object: &Value) -> Raw {
    let json = [("content-type", "application/json")];
    raw_as(
        server,
        Some(user.clone()),
        "POST",
        path,
        &json,
        &object.to_string(),
    )
    .await
}

async fn put_as(server: &TestServer, user: &UserInfo, path: &str, object: &Value) -> Raw {
    let json = [("content-type", "application/json")];
    raw_as(
        server,
        Some(user.clone()),
        "PUT",
        path,
        &json,
        &object.to_string(),
    )
    .await
}

async fn make(server: &TestServer, path: &str, object: &Value) {
    let made = post_as(server, &UserInfo::admin(), path, object).await;
    assert_eq!(made.status, 201, "{}", made.json());
}

async fn status(server: &TestServer, user: &UserInfo, method: &str, path: &str) -> u16 {
    raw_as(server, Some(user.clone()), method, path, &[], "")
        .await
        .status
}

fn role(name: &str, verbs: &[&str], resources: &[&str]) -> Value {
    let rules = json!([{"verbs": verbs, "apiGroups": [""], "resources": resources}]);
    json!({"metadata": {"name": name}, "rules": rules})
}

fn binding(name: &str, kind: &str, role: &str, user: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
        "subjects": [{"kind": "User", "name": user}],
    })
}

#[tokio::test]
async fn a_binding_counts_when_it_is_answered_and_no_longer_when_it_is_gone() {
    let server = TestServer::start().await;
    let jane = user("jane");
    let maps = "/api/v1/namespaces/default/configmaps";
    assert_eq!(status(&server, &jane, "GET", maps).await, 403);
    let roles = format!("{RBAC}/namespaces/default/roles");
    let bindings = format!("{RBAC}/namespaces/default/rolebindings");
    make(
        &server,
        &roles,
        &role("reader", &["get", "list"], &["configmaps"]),
    )
    .await;
    make(&server, &bindings, &binding("jane", "Role", "reader", "jane")).await;
    assert_eq!(status(&server, &jane, "GET", maps).await, 200);
    // A denied verb, another resource, another namespace.
    assert_eq!(status(&server, &jane, "POST", maps).await, 403);
    assert_eq!(status(&server, &jane, "DELETE", maps).await, 403);
    assert_eq!(
        status(&server, &jane, "GET", "/api/v1/namespaces/default/secrets").await,
        403
    );
    assert_eq!(
        status(&server, &jane, "GET", "/api/v1/namespaces/kube-system/configmaps").await,
        403
    );
    assert_eq!(status(&server, &jane, "GET", "/api/v1/configmaps").await, 403);
    assert_eq!(status(&server, &user("joe"), "GET", maps).await, 403);
    raw(&server, "DELETE", &format!("{bindings}/jane"), &[], "").await;
    assert_eq!(status(&server, &jane, "GET", maps).await, 403);
}

#[tokio::test]
async fn one_name_may_be_listed_by_its_field_selector() {
    let server = TestServer::start().await;
    let jane = user("jane");
    let mut named = role("one", &["list", "watch"], &["configmaps"]);
    named["rules"][0]["resourceNames"] = json!(["a"]);
    make(&server, &format!("{RBAC}/clusterroles"), &named).await;
    let bindings = format!("{RBAC}/clusterrolebindings");
    make(&server, &bindings, &binding("jane", "ClusterRole", "one", "jane")).await;
    let list = async |query: &str| {
        let path = format!("/api/v1/namespaces/default/configmaps{query}");
        status(&server, &jane, "GET", &path).await
    };
    assert_eq!(list("?fieldSelector=metadata.name%3Da").await, 200);
    assert_eq!(list("?fieldSelector=metadata.name%3Db").await, 403);
    assert_eq!(list("?fieldSelector=metadata.name!%3Da").await, 403);
    assert_eq!(list("").await, 403);
}

#[tokio::test]
async fn a_binding_to_a_role_that_is_not_there_gives_nothing_and_says_why() {
    let server = TestServer::start().await;
    let bindings = format!("{RBAC}/clusterrolebindings");
    make(
        &server,
        &bindings,
        &binding("jane", "ClusterRole", "absent", "jane"),
    )
    .await;
    let answer = raw_as(&server, Some(user("jane")), "GET", "/api/v1/pods", &[], "").await;
    assert_eq!(answer.status, 403);
    assert_eq!(
        answer.json()["message"],
        "pods is forbidden: User \"jane\" cannot list resource \"pods\" in API group \"\" at the cluster scope: \
         RBAC: clusterrole.rbac.authorization.k8s.io \"absent\" not found"
    );
}

#[tokio::test]
async fn everybody_has_the_rights_of_upstreams_bootstrap_policy() {
    let server = TestServer::start().await;
    let jane = user("jane");
    for path in [
        "/healthz",
        "/livez",
        "/version",
        "/api",
        "/apis/apps/v1",
        "/openapi/v2",
    ] {
        assert_eq!(status(&server, &jane, "GET", path).await, 200, "{path}");
    }
    assert_eq!(status(&server, &jane, "GET", "/metrics").await, 403);
    let monitor = UserInfo::new("m", ["system:monitoring"]);
    assert_ne!(status(&server, &monitor, "GET", "/metrics").await, 403);
}

#[tokio::test]
async fn aggregated_roles_are_complete_at_start_and_follow_their_parts() {
    let server = TestServer::start().await;
    let path = format!("{RBAC}/clusterroles");
    let rules = async |name: &str| {
        let role = raw(&server, "GET", &format!("{path}/{name}"), &[], "")
            .await
            .json();
        role["rules"].as_array().cloned().unwrap_or_default()
    };
    let (view, edit, admin) = (rules("view").await, rules("edit").await, rules("admin").await);
    assert!(!view.is_empty());
    assert!(view.iter().all(|rule| edit.contains(rule)));
    assert!(edit.iter().all(|rule| admin.contains(rule)));
    assert!(admin.len() > edit.len());
    let mut part = role("mine", &["get"], &["widgets"]);
    part["metadata"]["labels"] = json!({"rbac.authorization.k8s.io/aggregate-to-view": "true"});
    make(&server, &path, &part).await;
    // Made by the server behind the request.
    while !rules("admin").await.contains(&part["rules"][0]) {
        tokio::task::yield_now().await;
    }
    raw(&server, "DELETE", &format!("{path}/mine"), &[], "").await;
    while rules("admin").await.contains(&part["rules"][0]) {
        tokio::task::yield_now().await;
    }
    assert_eq!(rules("view").await, view);
}

/// A user who may write roles and bindings in `default` and read pods there, and nothing else.
async fn role_writer(server: &TestServer) -> UserInfo {
    let rules = json!([
        {"verbs": ["*"], "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles", "rolebindings"]},
        {"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]},
    ]);
    let mut rules = rules;
    rules[0]["verbs"] = json!(["create", "update", "patch", "get", "list", "delete"]);
    let writer = json!({"metadata": {"name": "writer"}, "rules": rules});
    make(server, &format!("{RBAC}/clusterroles"), &writer).await;
    let bindings = format!("{RBAC}/namespaces/default/rolebindings");
    make(
        server,
        &bindings,
        &binding("writer", "ClusterRole", "writer", "jane"),
    )
    .await;
    user("jane")
}

#[tokio::test]
async fn a_role_with_more_than_its_writer_has_is_refused() {
    let server = TestServer::start().await;
    let jane = role_writer(&server).await;
    let roles = format!("{RBAC}/namespaces/default/roles");
    let made = post_as(&server, &jane, &roles, &role("fine", &["get", "list"], &["pods"])).await;
    assert_eq!(made.status, 201, "{}", made.json());
    let more = role("more", &["get", "delete"], &["pods", "secrets"]);
    let refused = post_as(&server, &jane, &roles, &more).await;
    assert_eq!(refused.status, 403);
    assert_eq!(
        refused.json()["message"],
        "roles.rbac.authorization.k8s.io \"more\" is forbidden: user \"jane\" (groups=[\"devs\" \"system:authenticated\"]) \
         is attempting to grant RBAC permissions not currently held:\n\
         {APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\"]}\n\
         {APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\" \"delete\"]}"
    );
    // The same by PUT, by patch and by apply, to a role that is there and to one that is not.
    let mut changed = role("fine", &["get", "list", "delete"], &["pods"]);
    let path = format!("{roles}/fine");
    assert_eq!(put_as(&server, &jane, &path, &changed).await.status, 403);
    changed["metadata"]["name"] = "absent".into();
    let absent = format!("{roles}/absent");
    assert_eq!(put_as(&server, &jane, &absent, &changed).await.status, 403);
    let patch = async |path: &str, kind: &str, body: &Value| {
        let headers = [("content-type", kind)];
        raw_as(
            &server,
            Some(jane.clone()),
            "PATCH",
            path,
            &headers,
            &body.to_string(),
        )
        .await
        .status
    };
    let rules = json!({"rules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]});
    assert_eq!(patch(&path, "application/merge-patch+json", &rules).await, 403);
    let apply = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "absent"}, "rules": rules["rules"],
    });
    let absent = format!("{absent}?fieldManager=me");
    assert_eq!(patch(&absent, "application/apply-patch+yaml", &apply).await, 403);
    // Who changes no rule may keep those that they do not hold.
    make(&server, &roles, &role("foreign", &["delete"], &["pods"])).await;
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    let foreign = format!("{roles}/foreign");
    assert_eq!(patch(&foreign, "application/merge-patch+json", &label).await, 200);
}

#[tokio::test]
async fn a_binding_to_more_than_its_writer_has_is_refused() {
    let server = TestServer::start().await;
    let jane = role_writer(&server).await;
    let bindings = format!("{RBAC}/namespaces/default/rolebindings");
    let to = async |name: &str, kind: &str, role: &str| {
        post_as(&server, &jane, &bindings, &binding(name, kind, role, "jane")).await
    };
    let refused = to("b", "ClusterRole", "cluster-admin").await;
    assert_eq!(refused.status, 403);
    let message = refused.json()["message"].as_str().unwrap().to_owned();
    assert!(
        message.starts_with("rolebindings.rbac.authorization.k8s.io \"b\" is forbidden: user \"jane\""),
        "{message}"
    );
    assert!(
        message.ends_with(
            "{APIGroups:[\"*\"], Resources:[\"*\"], Verbs:[\"*\"]}\n{NonResourceURLs:[\"*\"], Verbs:[\"*\"]}"
        ),
        "{message}"
    );
    assert_eq!(to("c", "ClusterRole", "writer").await.status, 201);
    assert_eq!(to("d", "Role", "absent").await.status, 404);
    let path = format!("{RBAC}/clusterrolebindings");
    let cluster = binding("e", "ClusterRole", "writer", "jane");
    assert_eq!(post_as(&server, &jane, &path, &cluster).await.status, 403);
    // The role of a binding never changes.
    let changed = put_as(
        &server,
        &UserInfo::admin(),
        &format!("{bindings}/c"),
        &binding("c", "ClusterRole", "view", "jane"),
    )
    .await;
    assert_eq!(changed.status, 422);
    assert!(
        changed.json()["message"]
            .as_str()
            .unwrap()
            .ends_with("cannot change roleRef")
    );
}

#[tokio::test]
async fn the_verbs_escalate_and_bind_are_rights_to_give_more() {
    let server = TestServer::start().await;
    let jane = role_writer(&server).await;
    let special = json!({"metadata": {"name": "special"}, "rules": [
        {"verbs": ["escalate"], "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles"]},
        {"verbs": ["bind"], "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"], "resourceNames": ["edit"]},
    ]});
    make(&server, &format!("{RBAC}/clusterroles"), &special).await;
    let bindings = format!("{RBAC}/namespaces/default/rolebindings");
    make(
        &server,
        &bindings,
        &binding("special", "ClusterRole", "special", "jane"),
    )
    .await;
    let roles = format!("{RBAC}/namespaces/default/roles");
    let more = role("more", &["*"], &["*"]);
    assert_eq!(post_as(&server, &jane, &roles, &more).await.status, 201);
    let bind = async |role: &str| {
        let binding = binding(&format!("to-{role}"), "ClusterRole", role, "jane");
        post_as(&server, &jane, &bindings, &binding).await.status
    };
    assert_eq!(bind("edit").await, 201);
    assert_eq!(bind("admin").await, 403);
}

#[tokio::test]
async fn an_aggregation_rule_is_for_those_who_may_everything() {
    let server = TestServer::start().await;
    let rules = json!([{"verbs": ["create", "update"], "apiGroups": ["*"], "resources": ["*"]}]);
    let path = format!("{RBAC}/clusterroles");
    make(
        &server,
        &path,
        &json!({"metadata": {"name": "w"}, "rules": rules}),
    )
    .await;
    let bindings = format!("{RBAC}/clusterrolebindings");
    make(&server, &bindings, &binding("w", "ClusterRole", "w", "jane")).await;
    let role = json!({"metadata": {"name": "all"}, "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}});
    let refused = post_as(&server, &user("jane"), &path, &role).await;
    assert_eq!(refused.status, 403);
    assert_eq!(
        refused.json()["message"],
        "clusterroles.rbac.authorization.k8s.io \"all\" is forbidden: must have cluster-admin privileges to use the \
         aggregationRule"
    );
    assert_eq!(
        post_as(&server, &UserInfo::admin(), &path, &role).await.status,
        201
    );
}

#[tokio::test]
async fn whoever_may_impersonate_somebody_gets_no_more_than_them() {
    let server = TestServer::start().await;
    let as_user = async |user: &UserInfo, headers: &[(&str, &str)]| {
        raw_as(&server, Some(user.clone()), "GET", "/api/v1/secrets", headers, "").await
    };
    let jane = user("jane");
    for headers in [
        &[("impersonate-user", "kubernetes-admin")][..],
        &[
            ("impersonate-user", "jane"),
            ("impersonate-group", "system:masters"),
        ],
        &[("impersonate-user", "system:serviceaccount:kube-system:default")],
    ] {
        assert_eq!(as_user(&jane, headers).await.status, 403);
    }
    let rules = json!([{"verbs": ["impersonate"], "apiGroups": [""], "resources": ["users"], "resourceNames": ["joe"]}]);
    make(
        &server,
        &format!("{RBAC}/clusterroles"),
        &json!({"metadata": {"name": "as-joe"}, "rules": rules}),
    )
    .await;
    let bindings = format!("{RBAC}/clusterrolebindings");
    make(
        &server,
        &bindings,
        &binding("as-joe", "ClusterRole", "as-joe", "jane"),
    )
    .await;
    let message = async |headers: &[(&str, &str)]| {
        let refused = as_user(&jane, headers).await;
        assert_eq!(refused.status, 403);
        refused.json()["message"].as_str().unwrap().to_owned()
    };
    assert!(
        message(&[("impersonate-user", "joe")])
            .await
            .starts_with("secrets is forbidden: User \"joe\" cannot list")
    );
    let with_group = [
        ("impersonate-user", "joe"),
        ("impersonate-group", "system:masters"),
    ];
    assert_eq!(
        message(&with_group).await,
        "groups \"system:masters\" is forbidden: User \"jane\" cannot impersonate resource \"groups\" in API group \"\" at \
         the cluster scope"
    );
}
