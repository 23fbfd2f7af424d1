//! Forged, foreign, expired and outlived tokens.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, Secret, ServiceAccount};
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::claims::{Audience, Claims, Kubernetes, Reference};
use crate::authn::{Authenticator, Credentials, SigningKey};
use crate::testkit::TestServer;
use crate::user::UserInfo;

/// A server with the account `bot` in `default`.
struct Cluster {
    server: TestServer,
    account: Reference,
}

async fn make<K>(api: &Api<K>, object: Value) -> Reference
where
    K: Resource + Clone + DeserializeOwned + Serialize + std::fmt::Debug,
{
    let object = serde_json::from_value(object).unwrap();
    let made = api.create(&PostParams::default(), &object).await.unwrap();
    Reference {
        name: made.meta().name.clone().unwrap(),
        uid: made.meta().uid.clone().unwrap(),
    }
}

impl Cluster {
    async fn start() -> Self {
        let server = TestServer::start().await;
        let accounts: Api<ServiceAccount> = Api::default_namespaced(server.client());
        let account = make(&accounts, json!({"metadata": {"name": "bot"}})).await;
        Self { server, account }
    }

    fn claims(&self) -> Claims {
        let now = Timestamp::now().as_second();
        Claims {
            aud: Audience::Several(vec![super::DEFAULT_ISSUER.to_owned()]),
            exp: now + 3600,
            iat: now,
            iss: super::DEFAULT_ISSUER.to_owned(),
            jti: "id".to_owned(),
            kubernetes: Kubernetes {
                namespace: "default".to_owned(),
                serviceaccount: self.account.clone(),
                ..Kubernetes::default()
            },
            nbf: now,
            sub: "system:serviceaccount:default:bot".to_owned(),
        }
    }

    fn sign(&self, claims: &Claims) -> String {
        self.server.server().context.issuer.issue(claims).unwrap()
    }

    /// Who the server takes the holder of a token for, or why for nobody.
    async fn ask(&self, token: &str) -> Result<UserInfo, String> {
        let context = &self.server.server().context;
        let credentials = Credentials {
            token: Some(token),
            headers: &HeaderMap::new(),
            audiences: &context.issuer.audiences,
        };
        let asked = context.authenticator.authenticate(&credentials).await;
        asked
            .map(|found| found.unwrap().user)
            .map_err(|error| error.to_string())
    }

    async fn refused(&self, token: &str) -> String {
        let why = self.ask(token).await.unwrap_err();
        let secret = token.rsplit('.').next().unwrap();
        assert!(
            secret.is_empty() || !why.contains(secret),
            "the token shows: {why}"
        );
        why
    }

    /// Deletions reach the caches a moment after they are answered.
    async fn refused_soon(&self, token: &str) -> String {
        while self.ask(token).await.is_ok() {
            tokio::task::yield_now().await;
        }
        self.refused(token).await
    }
}

#[tokio::test]
async fn a_good_token_is_its_account() {
    let cluster = Cluster::start().await;
    let user = cluster.ask(&cluster.sign(&cluster.claims())).await.unwrap();
    assert_eq!(user.name, "system:serviceaccount:default:bot");
    assert_eq!(user.uid, cluster.account.uid);
    assert_eq!(
        user.groups,
        [
            "system:serviceaccounts",
            "system:serviceaccounts:default",
            "system:authenticated"
        ]
    );
    assert_eq!(
        user.extra["authentication.kubernetes.io/credential-id"],
        ["JTI=id"]
    );
}

#[tokio::test]
async fn what_is_not_signed_by_the_servers_key_is_refused() {
    let cluster = Cluster::start().await;
    let good = cluster.sign(&cluster.claims());
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let (header, claims) = signed.split_once('.').unwrap();
    let encode = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let id = cluster.server.server().context.issuer.verifying[0]
        .id()
        .to_owned();
    let foreign = SigningKey::generate().unwrap();
    let foreign = foreign
        .sign(&serde_json::to_vec(&cluster.claims()).unwrap())
        .unwrap();
    let foreign_signature = foreign.rsplit('.').next().unwrap();
    let mut other = cluster.claims();
    other.sub = "system:serviceaccount:kube-system:bot".to_owned();
    let other = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&other).unwrap());
    let none = encode(json!({"alg": "none"}));
    let none_with_id = encode(json!({"alg": "none", "kid": id}));
    let hmac = encode(json!({"alg": "HS256", "kid": id}));
    for (what, token) in [
        ("foreign key", foreign.clone()),
        (
            "foreign signature",
            format!("{header}.{claims}.{foreign_signature}"),
        ),
        ("alg none", format!("{none}.{claims}.")),
        (
            "alg none with a signature",
            format!("{none}.{claims}.{signature}"),
        ),
        ("alg none with the key's id", format!("{none_with_id}.{claims}.")),
        ("alg HMAC", format!("{hmac}.{claims}.{signature}")),
        ("no signature", format!("{signed}.")),
        ("other claims", format!("{header}.{other}.{signature}")),
    ] {
        assert_eq!(
            cluster.refused(&token).await,
            "service account token has an invalid signature",
            "{what}"
        );
    }
    for nonsense in ["a", "a.b", "a.b.c", "..", "\u{fc}.\u{fc}.\u{fc}"] {
        assert_eq!(
            cluster.ask(nonsense).await.unwrap_err(),
            "invalid bearer token",
            "{nonsense}"
        );
    }
}

#[tokio::test]
async fn a_token_counts_in_its_time_for_its_audience_and_issuer() {
    let cluster = Cluster::start().await;
    let now = Timestamp::now().as_second();
    let with = |change: &dyn Fn(&mut Claims)| {
        let mut claims = cluster.claims();
        change(&mut claims);
        cluster.sign(&claims)
    };
    let expired = with(&|claims| claims.exp = now - 1);
    assert_eq!(
        cluster.refused(&expired).await,
        "service account token has expired"
    );
    let early = with(&|claims| claims.nbf = now + 100);
    assert_eq!(
        cluster.refused(&early).await,
        "service account token is not valid yet"
    );
    let elsewhere = with(&|claims| claims.aud = Audience::One("vault".to_owned()));
    assert_eq!(
        cluster.refused(&elsewhere).await,
        "token audiences [\"vault\"] is invalid for the target audiences \
         [\"https://kubernetes.default.svc.cluster.local\"]"
    );
    let foreign = with(&|claims| claims.iss = "https://example.org".to_owned());
    assert_eq!(cluster.refused(&foreign).await, "invalid bearer token");
    let mismatched = with(&|claims| claims.sub = "system:serviceaccount:default:other".to_owned());
    assert_eq!(
        cluster.refused(&mismatched).await,
        "service account token has unusable claims"
    );
}

#[tokio::test]
async fn a_token_ends_with_what_it_is_bound_to() {
    let cluster = Cluster::start().await;
    let client = cluster.server.client();
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let secrets: Api<Secret> = Api::default_namespaced(client.clone());
    let nodes: Api<Node> = Api::all(client.clone());
    let accounts: Api<ServiceAccount> = Api::default_namespaced(client);
    let pod = json!({"metadata": {"name": "p"}, "spec": {"serviceAccountName": "bot", "containers": [{"name": "c", "image": "i"}]}});
    let bound = |change: &dyn Fn(&mut Kubernetes)| {
        let mut claims = cluster.claims();
        change(&mut claims.kubernetes);
        cluster.sign(&claims)
    };
    let pod = make(&pods, pod).await;
    let secret = make(&secrets, json!({"metadata": {"name": "s"}})).await;
    let node = make(&nodes, json!({"metadata": {"name": "n"}})).await;
    let to_pod = bound(&|claims| claims.pod = Some(pod.clone()));
    let to_secret = bound(&|claims| claims.secret = Some(secret.clone()));
    let to_node = bound(&|claims| claims.node = Some(node.clone()));
    let to_account = cluster.sign(&cluster.claims());
    let user = cluster.ask(&to_pod).await.unwrap();
    assert_eq!(user.extra["authentication.kubernetes.io/pod-name"], ["p"]);
    assert_eq!(
        user.extra["authentication.kubernetes.io/pod-uid"],
        std::slice::from_ref(&pod.uid)
    );
    let another = Reference {
        uid: "another".to_owned(),
        ..pod.clone()
    };
    let to_another = bound(&|claims| claims.pod = Some(another.clone()));
    assert_eq!(
        cluster.refused(&to_another).await,
        format!(
            "pod UID ({}) does not match service account pod ref claim (another)",
            pod.uid
        )
    );
    for token in [&to_secret, &to_node, &to_account] {
        cluster.ask(token).await.unwrap();
    }
    let now = DeleteParams::default().grace_period(0);
    let gone = "service account token has been invalidated";
    pods.delete("p", &now).await.unwrap();
    assert_eq!(cluster.refused_soon(&to_pod).await, gone);
    secrets.delete("s", &now).await.unwrap();
    assert_eq!(cluster.refused_soon(&to_secret).await, gone);
    nodes.delete("n", &now).await.unwrap();
    assert_eq!(cluster.refused_soon(&to_node).await, gone);
    cluster.ask(&to_account).await.unwrap();
    accounts.delete("bot", &now).await.unwrap();
    assert_eq!(cluster.refused_soon(&to_account).await, gone);
    // Another account of the same name is not the same account.
    let again = make(&accounts, json!({"metadata": {"name": "bot"}})).await;
    assert_eq!(
        cluster.refused(&to_account).await,
        format!(
            "service account UID ({}) does not match claim ({})",
            again.uid, cluster.account.uid
        )
    );
}

#[tokio::test]
async fn an_older_key_verifies_as_long_as_it_is_given() {
    let older = SigningKey::generate().unwrap();
    let (public, pem) = (older.verifying_key(), older.to_pem().to_owned());
    let server = TestServer::start_with(|builder| builder.service_account_verifying_key(public)).await;
    let accounts: Api<ServiceAccount> = Api::default_namespaced(server.client());
    let account = make(&accounts, json!({"metadata": {"name": "bot"}})).await;
    let cluster = Cluster { server, account };
    let old = SigningKey::from_pem(&pem).unwrap();
    let token = old.sign(&serde_json::to_vec(&cluster.claims()).unwrap()).unwrap();
    cluster.ask(&token).await.unwrap();
    cluster.ask(&cluster.sign(&cluster.claims())).await.unwrap();
    let keys = cluster.server.server().context.issuer.key_set();
    assert_eq!(keys["keys"].as_array().unwrap().len(), 2);
}

#[test]
fn credentials_print_without_their_secrets() {
    let headers = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static("Bearer s3cret"))]);
    let credentials = Credentials {
        token: Some("s3cret"),
        headers: &headers,
        audiences: &[],
    };
    assert!(!format!("{credentials:?}").contains("s3cret"));
}
