//! Tokens and reviews through the API.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use common::{Raw, get, raw, raw_as};
use orch_api::UserInfo;
use orch_api::authn::{SigningKey, StaticTokens};
use orch_api::testkit::TestServer;
use serde_json::{Value, json};

const ACCOUNT: &str = "/api/v1/namespaces/default/serviceaccounts";

async fn post(server: &TestServer, path: &str, object: &Value) -> Raw {
    let json = [("content-type", "application/json")];
    raw(server, "POST", path, &json, &object.to_string()).await
}

/// A server with the account `bot` in `default`, which may read config maps there.
async fn start() -> TestServer {
    let server = TestServer::start().await;
    post(&server, ACCOUNT, &json!({"metadata": {"name": "bot"}})).await;
    let binding = json!({
        "metadata": {"name": "bot"}, "roleRef": {"kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "ServiceAccount", "name": "bot", "namespace": "default"}],
    });
    let path = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";
    assert_eq!(post(&server, path, &binding).await.status, 201);
    server
}

async fn token(server: &TestServer, spec: Value) -> Raw {
    post(server, &format!("{ACCOUNT}/bot/token"), &json!({"spec": spec})).await
}

async fn with_token(server: &TestServer, token: &str, method: &str, path: &str, body: &str) -> Raw {
    let bearer = format!("Bearer {token}");
    let headers = [
        ("authorization", bearer.as_str()),
        ("content-type", "application/json"),
    ];
    raw_as(server, None, method, path, &headers, body).await
}

fn text(made: &Raw) -> String {
    assert_eq!(made.status, 201, "{}", made.json());
    made.json()["status"]["token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_requested_token_opens_what_its_account_may() {
    let server = start().await;
    let made = token(&server, json!({})).await;
    let object = made.json();
    assert_eq!(object["kind"], "TokenRequest");
    assert_eq!(object["spec"]["expirationSeconds"], 3600);
    assert_eq!(
        object["spec"]["audiences"],
        json!(["https://kubernetes.default.svc.cluster.local"])
    );
    let token = text(&made);
    let status = async |method: &str, path: &str| with_token(&server, &token, method, path, "").await.status;
    assert_eq!(status("GET", "/api/v1/namespaces/default/configmaps").await, 200);
    assert_eq!(status("GET", "/api/v1/namespaces/default/secrets").await, 403);
    assert_eq!(
        status("GET", "/api/v1/namespaces/kube-system/configmaps").await,
        403
    );
    assert_eq!(status("GET", "/openid/v1/jwks").await, 200);
    // Reading a token's account is not holding it.
    assert_eq!(status("POST", &format!("{ACCOUNT}/bot/token")).await, 403);
    let who = with_token(
        &server,
        &token,
        "POST",
        "/apis/authentication.k8s.io/v1/selfsubjectreviews",
        "{}",
    )
    .await;
    let user = &who.json()["status"]["userInfo"];
    assert_eq!(user["username"], "system:serviceaccount:default:bot");
    let credential = user["extra"]["authentication.kubernetes.io/credential-id"][0]
        .as_str()
        .unwrap();
    assert!(credential.starts_with("JTI="));
}

#[tokio::test]
async fn a_wrong_token_is_401_and_never_anonymous() {
    let server = start().await;
    let other = start().await;
    let good = text(&token(&server, json!({})).await);
    let foreign = text(&token(&other, json!({})).await);
    let elsewhere = text(&token(&server, json!({"audiences": ["vault"]})).await);
    let mut broken = good.clone();
    broken.replace_range(
        broken.len() - 10..broken.len() - 9,
        if broken.as_bytes()[broken.len() - 10] == b'A' {
            "B"
        } else {
            "A"
        },
    );
    for wrong in ["nonsense", &foreign, &elsewhere, &broken] {
        for path in ["/livez", "/api/v1/namespaces/default/configmaps"] {
            let answer = with_token(&server, wrong, "GET", path, "").await;
            assert_eq!(answer.status, 401, "{path}");
            let text = String::from_utf8(answer.body).unwrap();
            assert!(text.contains("Unauthorized") && !text.contains(wrong), "{text}");
        }
    }
    for headers in [&[("authorization", "Basic abc")][..], &[("authorization", "")]] {
        assert_eq!(
            raw_as(&server, None, "GET", "/livez", headers, "").await.status,
            401
        );
    }
}

#[tokio::test]
async fn a_request_for_a_token_is_checked() {
    let server = start().await;
    let refused = async |spec: Value| {
        let made = token(&server, spec).await;
        (
            made.status,
            made.json()["message"].as_str().unwrap_or_default().to_owned(),
        )
    };
    let (status, message) = refused(json!({"expirationSeconds": 60})).await;
    assert_eq!(status, 422);
    assert!(message.ends_with(
        "spec.expirationSeconds: Invalid value: 60: may not specify a duration less than 10 minutes"
    ));
    let to =
        |kind: &str, name: &str| json!({"boundObjectRef": {"apiVersion": "v1", "kind": kind, "name": name}});
    assert_eq!(refused(to("Pod", "absent")).await.0, 404);
    let (status, message) = refused(to("ConfigMap", "a")).await;
    assert_eq!(
        (status, message.as_str()),
        (400, "cannot bind token to object of type /v1, Kind=ConfigMap")
    );
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    post(&server, "/api/v1/namespaces/default/pods", &pod).await;
    assert_eq!(
        refused(to("Pod", "p")).await.1,
        "cannot bind token for serviceaccount \"bot\" to pod running with different serviceaccount name."
    );
    post(
        &server,
        "/api/v1/namespaces/default/secrets",
        &json!({"metadata": {"name": "s"}}),
    )
    .await;
    let mut wrong_uid = to("Secret", "s");
    wrong_uid["boundObjectRef"]["uid"] = "other".into();
    assert_eq!(refused(wrong_uid).await.0, 409);
    assert_eq!(refused(to("Secret", "s")).await.0, 201);
    let absent = post(&server, &format!("{ACCOUNT}/absent/token"), &json!({})).await;
    assert_eq!(absent.status, 404);
    assert_eq!(
        raw(&server, "GET", &format!("{ACCOUNT}/bot/token"), &[], "")
            .await
            .status,
        405
    );
}

#[tokio::test]
async fn a_token_review_tells_whose_a_token_is() {
    let server = start().await;
    let token = text(&token(&server, json!({"audiences": ["vault"]})).await);
    let review = async |token: &str, audiences: Value| {
        let spec = json!({"spec": {"token": token, "audiences": audiences}});
        let answer = post(&server, "/apis/authentication.k8s.io/v1/tokenreviews", &spec).await;
        assert_eq!(answer.status, 201);
        answer.json()["status"].clone()
    };
    let good = review(&token, json!(["other", "vault"])).await;
    assert_eq!(good["authenticated"], true);
    assert_eq!(good["user"]["username"], "system:serviceaccount:default:bot");
    assert_eq!(good["audiences"], json!(["vault"]));
    for (token, audiences) in [(token.as_str(), json!([])), ("nonsense", json!(["vault"]))] {
        let bad = review(token, audiences).await;
        assert_eq!(bad["authenticated"], false);
        assert!(bad.get("user").is_none());
        assert!(!bad["error"].as_str().unwrap().contains(token));
    }
    let empty = post(
        &server,
        "/apis/authentication.k8s.io/v1/tokenreviews",
        &json!({"spec": {}}),
    )
    .await;
    assert_eq!(empty.status, 400);
}

#[tokio::test]
async fn others_can_find_the_keys() {
    let key = SigningKey::generate().unwrap();
    let server = TestServer::start_with(|builder| {
        builder
            .service_account_key(key)
            .service_account_issuer("https://issuer.example.org")
    })
    .await;
    let found = get(&server, "/.well-known/openid-configuration").await.json();
    assert_eq!(found["issuer"], "https://issuer.example.org");
    assert_eq!(found["jwks_uri"], "https://issuer.example.org/openid/v1/jwks");
    assert_eq!(found["id_token_signing_alg_values_supported"], json!(["ES256"]));
    let keys = get(&server, "/openid/v1/jwks").await;
    assert_eq!(keys.headers["content-type"], "application/jwk-set+json");
    let key = &keys.json()["keys"][0];
    assert_eq!((&key["kty"], &key["use"]), (&json!("EC"), &json!("sig")));
    assert!(
        key.get("d").is_none(),
        "the private part of a key is nobody's business"
    );
    let jane = Some(UserInfo::new("jane", ["devs"]));
    let status = raw_as(&server, jane, "GET", "/openid/v1/jwks", &[], "")
        .await
        .status;
    assert_eq!(status, 403);
}

#[tokio::test]
async fn static_tokens_are_users() {
    let tokens: StaticTokens = "t0ken,jane,7,\"system:masters,devs\"".parse().unwrap();
    let server = TestServer::start_with(|builder| builder.static_tokens(tokens).anonymous(false)).await;
    let namespaces = with_token(&server, "t0ken", "GET", "/api/v1/namespaces", "").await;
    assert_eq!(namespaces.status, 200);
    assert_eq!(
        with_token(&server, "other", "GET", "/livez", "").await.status,
        401
    );
    // Without anonymous requests nothing is for nobody.
    assert_eq!(raw_as(&server, None, "GET", "/livez", &[], "").await.status, 401);
}

#[tokio::test]
async fn what_somebody_may_do_can_be_listed() {
    let server = start().await;
    let token = text(&token(&server, json!({})).await);
    let path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
    let body = json!({"spec": {"namespace": "default"}}).to_string();
    let answer = with_token(&server, &token, "POST", path, &body).await;
    assert_eq!(answer.status, 201);
    let status = &answer.json()["status"];
    assert_eq!(status["incomplete"], false, "{status}");
    let rules = status["resourceRules"].as_array().unwrap();
    assert!(rules.iter().any(|rule| {
        rule["resources"]
            .as_array()
            .unwrap()
            .contains(&json!("configmaps"))
            && rule["verbs"] == json!(["get", "list", "watch"])
    }));
    let paths = status["nonResourceRules"].as_array().unwrap();
    assert!(paths.iter().any(|rule| {
        rule["nonResourceURLs"]
            .as_array()
            .unwrap()
            .contains(&json!("/healthz"))
    }));
    let empty = with_token(&server, &token, "POST", path, "{\"spec\":{}}").await;
    assert_eq!(empty.status, 400);
    let access = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let ask = async |verb: &str| {
        let spec = json!({"spec": {"resourceAttributes": {"verb": verb, "resource": "configmaps", "namespace": "default"}}});
        with_token(&server, &token, "POST", access, &spec.to_string())
            .await
            .json()["status"]
            .clone()
    };
    let yes = ask("list").await;
    assert_eq!(
        yes,
        json!({
            "allowed": true,
            "reason": "RBAC: allowed by RoleBinding \"bot/default\" of ClusterRole \"view\" to ServiceAccount \"bot/default\"",
        })
    );
    assert_eq!(ask("delete").await, json!({"allowed": false}));
}
