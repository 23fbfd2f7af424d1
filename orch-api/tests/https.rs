//! Over HTTPS: who is who, and who may do what.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use common::{code, message, raw_as};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{ListParams, PostParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use orch_api::UserInfo;
use orch_api::testkit::TestServer;

async fn client_of(server: &TestServer, user: &str, group: Option<&str>) -> Client {
    let mut config = Kubeconfig::from_yaml(&server.kubeconfig().await).unwrap();
    let credential = server.credential(user, group).await;
    let encode = |text: &str| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, text);
    let info = config.auth_infos[0].auth_info.as_mut().unwrap();
    info.client_certificate_data = Some(encode(&credential.certificate_pem));
    info.client_key_data = Some(encode(&credential.key_pem).into());
    let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default())
        .await
        .unwrap();
    Client::try_from(config).unwrap()
}

#[tokio::test]
async fn an_administrator_works_over_https() {
    let server = TestServer::start().await;
    let client = client_of(&server, "kubernetes-admin", Some("system:masters")).await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let mut events = maps.watch(&WatchParams::default(), "0").await.unwrap().boxed();
    maps.create(&PostParams::default(), &common::config_map("a", "1"))
        .await
        .unwrap();
    let event = events.try_next().await.unwrap();
    assert!(matches!(event, Some(WatchEvent::Added(map)) if map.metadata.name.as_deref() == Some("a")));
    assert_eq!(maps.list(&ListParams::default()).await.unwrap().items.len(), 1);
}

#[tokio::test]
async fn a_user_without_rights_is_told_what_is_missing() {
    let server = TestServer::start().await;
    let client = client_of(&server, "jane", Some("devs")).await;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "y");
    let error = maps.list(&ListParams::default()).await.unwrap_err();
    assert_eq!(code(&error), 403);
    assert_eq!(
        message(error),
        "configmaps is forbidden: User \"jane\" cannot list resource \"configmaps\" in API group \"\" in the namespace \"y\""
    );
    client.list_api_groups().await.unwrap();
    client.apiserver_version().await.unwrap();
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_no_identity() {
    let (server, other) = (TestServer::start().await, TestServer::start().await);
    let mut config = Kubeconfig::from_yaml(&server.kubeconfig().await).unwrap();
    let foreign = Kubeconfig::from_yaml(&other.kubeconfig().await).unwrap();
    config.auth_infos = foreign.auth_infos;
    let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default())
        .await
        .unwrap();
    let namespaces: Api<Namespace> = Api::all(Client::try_from(config).unwrap());
    let error = namespaces.list(&ListParams::default()).await.unwrap_err();
    assert!(
        !matches!(error, kube::Error::Api(_)),
        "the handshake fails: {error}"
    );
}

#[tokio::test]
async fn nobody_reads_health_only() {
    let server = TestServer::start().await;
    let status = async |path: &str, headers: &[(&str, &str)]| {
        raw_as(&server, None, "GET", path, headers, "").await.status
    };
    assert_eq!(status("/livez", &[]).await, 200);
    assert_eq!(status("/version", &[]).await, 200);
    assert_eq!(status("/api/v1/pods", &[]).await, 403);
    assert_eq!(status("/apis", &[]).await, 403);
    // A credential that nobody can check is worse than none.
    assert_eq!(
        status("/livez", &[("authorization", "Bearer nonsense")]).await,
        401
    );
}

#[tokio::test]
async fn an_identity_in_a_request_counts_only_inside_the_process() {
    let server = TestServer::start().await;
    let headers = [
        ("x-remote-user", "kubernetes-admin"),
        ("x-remote-group", "system:masters"),
    ];
    let answer = raw_as(
        &server,
        Some(UserInfo::new("jane", ["devs"])),
        "GET",
        "/api/v1/secrets",
        &headers,
        "",
    )
    .await;
    assert_eq!(answer.status, 403);
}

#[tokio::test]
async fn kubeconfigs_of_a_dropped_server_reach_nothing() {
    let server = TestServer::start().await;
    let client = client_of(&server, "kubernetes-admin", Some("system:masters")).await;
    client.apiserver_version().await.unwrap();
    let address = server.url().await;
    drop(server);
    let address = address.trim_start_matches("https://").to_owned();
    for _ in 0..200 {
        if tokio::net::TcpStream::connect(&address).await.is_err() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("{address} still accepts connections");
}
