//! TLS, mutual TLS, users and their rights.

use std::path::Path;
use std::time::Duration;

use etcd_client::{Client, ConnectOptions, Permission};
use orch_store::{EtcdOptions, EtcdStore, ListOptions, Revision, Store, StoreError};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::server::{CURRENT, DEBIAN, Plan, Server};

/// A certificate and its key, in PEM.
struct Pair {
    certificate: String,
    key: String,
}

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    fn issue(&self, name: &str) -> Pair {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        Pair {
            certificate: params.signed_by(&key, &self.0).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }
}

/// A server that speaks TLS, and asks clients for certificates if told to.
fn secure(folder: &Path, program: &'static str, authority: &Authority, asks: bool) -> Server {
    let pair = authority.issue("127.0.0.1");
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    std::fs::write(path("ca.crt"), authority.pem()).unwrap();
    std::fs::write(path("server.crt"), &pair.certificate).unwrap();
    std::fs::write(path("server.key"), &pair.key).unwrap();
    let mut plan = Plan::alone(program).with(&[
        "--cert-file",
        &path("server.crt"),
        "--key-file",
        &path("server.key"),
    ]);
    if asks {
        plan = plan.with(&["--client-cert-auth", "--trusted-ca-file", &path("ca.crt")]);
    }
    plan.client_url = plan.client_url.replace("http://", "https://");
    Server::start(plan)
}

async fn eventually(options: EtcdOptions) -> EtcdStore {
    let until = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        match options.clone().connect().await {
            Ok(store) => return store,
            Err(error) => assert!(tokio::time::Instant::now() < until, "{error}"),
        }
    }
}

async fn works(store: &EtcdStore) {
    let start = store.current_revision().await.unwrap();
    let mut watcher = store.watch(b"tls/", start).await.unwrap();
    let kv = store.create("tls/a".into(), "v".into(), None).await.unwrap();
    assert_eq!(watcher.next().await.unwrap().events[0].kv, kv);
    assert!(store.health().await.unwrap().warning.is_none());
}

fn quick(options: EtcdOptions) -> EtcdOptions {
    options.request_timeout(Duration::from_secs(1))
}

#[tokio::test]
async fn a_server_has_to_prove_itself() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("the right one");
    let server = secure(folder.path(), DEBIAN, &authority, false);
    works(&eventually(server.options().ca(authority.pem())).await).await;

    let wrong = server.options().ca(Authority::new("a wrong one").pem());
    let error = quick(wrong).connect().await.unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
    let name = server.options().ca(authority.pem()).server_name("etcd.example");
    let error = quick(name).connect().await.unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
    let plain = EtcdStore::options().endpoint(server.url().replace("https", "http"));
    quick(plain).connect().await.unwrap_err();
}

#[tokio::test]
async fn a_client_has_to_prove_itself() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("the right one");
    let server = secure(folder.path(), CURRENT, &authority, true);
    let options = || server.options().ca(authority.pem());
    let client = authority.issue("a client");
    works(&eventually(options().identity(client.certificate, client.key)).await).await;

    quick(options())
        .connect()
        .await
        .expect_err("without a certificate");
    let stranger = Authority::new("a wrong one").issue("a client");
    let stranger = options().identity(stranger.certificate, stranger.key);
    quick(stranger)
        .connect()
        .await
        .expect_err("with somebody else's certificate");
}

/// Switches authentication on, with a user who may write below `/registry/` only.
async fn with_users(server: &Server) {
    let mut client = server.client().await;
    client.user_add("root", "secret of root", None).await.unwrap();
    client.user_grant_role("root", "root").await.unwrap();
    client.role_add("kubernetes").await.unwrap();
    let rights = Permission::read_write("/registry/").with_prefix();
    client.role_grant_permission("kubernetes", rights).await.unwrap();
    client.user_add("apiserver", "secret", None).await.unwrap();
    client.user_grant_role("apiserver", "kubernetes").await.unwrap();
    client.auth_enable().await.unwrap();
}

#[tokio::test]
async fn a_user_has_the_rights_of_the_role_and_no_more() {
    for program in [DEBIAN, CURRENT] {
        let server = Server::alone(program).await;
        with_users(&server).await;
        let error = server
            .options()
            .user("apiserver", "wrong")
            .connect()
            .await
            .unwrap_err();
        assert!(matches!(error, StoreError::Denied { .. }), "{error:?}");

        let store = server
            .options()
            .user("apiserver", "secret")
            .connect()
            .await
            .unwrap();
        let start = store.current_revision().await.unwrap();
        let mut watcher = store.watch(b"/registry/a/", start).await.unwrap();
        watcher.progress_requester().request();
        assert_eq!(watcher.next().await.unwrap().events, []);
        let ttl = Some(Duration::from_secs(60));
        let kv = store
            .create("/registry/a/b".into(), "v".into(), ttl)
            .await
            .unwrap();
        assert_eq!(watcher.next().await.unwrap().events[0].kv, kv);
        store.health().await.unwrap();

        let mut denied = vec![
            store.create("/other/a".into(), "v".into(), None).await.err(),
            store.get(b"/other/a", None).await.err(),
            store.list(b"", ListOptions::default()).await.err(),
            store.delete(b"/other/a", None).await.err(),
        ];
        // Newer versions let only root compact.
        let compact = store.compact(kv.mod_revision).await;
        match program {
            DEBIAN => compact.unwrap(),
            _ => denied.push(compact.err()),
        }
        for error in denied {
            assert!(matches!(error, Some(StoreError::Denied { .. })), "{error:?}");
        }
        let mut watcher = store.watch(b"/other/", kv.mod_revision).await.unwrap();
        let error = watcher.next().await.unwrap_err();
        assert!(matches!(error, StoreError::Denied { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_token_that_has_ended_is_renewed() {
    let plan = Plan::alone(CURRENT).with(&["--auth-token-ttl", "1"]);
    let server = Server::start_and_wait(plan).await;
    with_users(&server).await;
    let store = server
        .options()
        .user("apiserver", "secret")
        .connect()
        .await
        .unwrap();
    let first = store
        .create("/registry/a".into(), "1".into(), None)
        .await
        .unwrap();
    // Longer than the token lives without use; the server looks every second.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let mut watcher = store
        .watch(b"/registry/", Revision(first.mod_revision.0 - 1))
        .await
        .unwrap();
    assert_eq!(watcher.next().await.unwrap().events[0].kv, first);
    tokio::time::sleep(Duration::from_secs(4)).await;
    store
        .update(first.key.clone(), "2".into(), first.mod_revision, None)
        .await
        .unwrap();
    assert_eq!(watcher.next().await.unwrap().events[0].kv.value, "2");
    // The password was changed meanwhile, which ends all tokens.
    let root = ConnectOptions::new().with_user("root", "secret of root");
    let mut root = Client::connect([server.url()], Some(root)).await.unwrap();
    root.user_change_password("apiserver", "another secret")
        .await
        .unwrap();
    let until = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        match store.get(b"/registry/a", None).await {
            Err(StoreError::Denied { .. }) => break,
            other => assert!(tokio::time::Instant::now() < until, "{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn an_etcd_that_is_not_there_is_named() {
    let [port] = crate::server::free_ports();
    let options = EtcdStore::options().endpoint(format!("http://127.0.0.1:{port}"));
    let error = quick(options).connect().await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    let told = error.to_string();
    assert!(
        told.contains(&port.to_string()) && told.contains("refused"),
        "{told}"
    );
}
