//! Leader election of several copies, against a real API server.

#![allow(clippy::unwrap_used, reason = "tests end where they fail")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{delayed, eventually};
use http::Method;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client, ResourceExt};
use orch_api::testkit::TestServer;
use orch_controllers::{Controllers, Kind};
use orch_core::leader::{LeaderElector, Leadership};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

struct Copy {
    leadership: watch::Receiver<Leadership>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Copy {
    fn start(client: Client, identity: &str, lease: Duration) -> Self {
        let elector = LeaderElector::builder(client, "kube-system", "test", identity)
            .lease_duration(lease)
            .renew_deadline(lease / 2)
            .retry_period(Duration::from_millis(50))
            .build();
        let (leadership, stop) = (elector.leadership(), CancellationToken::new());
        Copy {
            leadership,
            task: tokio::spawn(elector.run(stop.clone())),
            stop,
        }
    }

    async fn leads(&mut self) {
        let leads = self.leadership.wait_for(|leadership| leadership.leading);
        let leads = tokio::time::timeout(Duration::from_secs(30), leads).await;
        leads.expect("leads in half a minute").unwrap();
    }

    /// Waits until this copy has seen that another one leads.
    async fn follows(&mut self, leader: &str) {
        let follows = self
            .leadership
            .wait_for(|leadership| !leadership.leading && leadership.holder.as_deref() == Some(leader));
        let follows = tokio::time::timeout(Duration::from_secs(30), follows).await;
        follows.expect("follows in half a minute").unwrap();
    }
}

async fn lease(client: &Client) -> LeaseSpec {
    let leases: Api<Lease> = Api::namespaced(client.clone(), "kube-system");
    leases.get("test").await.unwrap().spec.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_stops_hands_over_at_once() {
    let server = TestServer::start().await;
    // Longer than the test may take: who took over did not wait for it.
    let duration = Duration::from_secs(300);
    let mut first = Copy::start(server.client(), "first", duration);
    first.leads().await;
    let mut second = Copy::start(server.client(), "second", duration);
    second.follows("first").await;
    let held = lease(&server.client()).await;
    assert_eq!(held.holder_identity.as_deref(), Some("first"));
    assert_eq!(
        (held.lease_transitions, held.lease_duration_seconds),
        (Some(0), Some(300))
    );

    first.stop.cancel();
    first.task.await.unwrap();
    assert!(!first.leadership.borrow().leading);
    second.leads().await;
    let held = lease(&server.client()).await;
    assert_eq!(held.holder_identity.as_deref(), Some("second"));
    assert_eq!(held.lease_transitions, Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_vanishes_is_followed_when_its_lease_is_over() {
    let server = TestServer::start().await;
    let duration = Duration::from_secs(3);
    let mut first = Copy::start(server.client(), "first", duration);
    first.leads().await;
    let mut second = Copy::start(server.client(), "second", duration);
    second.follows("first").await;
    first.task.abort();
    assert!(first.task.await.unwrap_err().is_cancelled());
    let last = lease(&server.client()).await.renew_time.unwrap();
    second.leads().await;
    let taken = lease(&server.client()).await;
    assert_eq!(taken.holder_identity.as_deref(), Some("second"));
    let waited = taken.acquire_time.unwrap().0.duration_since(last.0);
    assert!(waited.as_millis() >= 3000, "waited only {waited:?}");
}

/// What a copy of the controllers wrote besides the Lease.
#[derive(Clone, Default)]
struct Writes(Arc<Mutex<Vec<String>>>);

impl Writes {
    fn recorded(&self, client: Client) -> Client {
        let writes = self.clone();
        delayed(client, move |method, path| {
            if method != Method::GET && !path.contains("/leases") {
                writes.0.lock().push(format!("{method} {path}"));
            }
            std::future::ready(())
        })
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().clone()
    }
}

fn controllers(
    client: Client,
    identity: &str,
) -> (CancellationToken, JoinHandle<()>, orch_core::ready::Ready) {
    let controllers = Controllers::builder(client)
        .only([Kind::ServiceAccount, Kind::GarbageCollector])
        .leader_election(identity)
        .build()
        .unwrap();
    let (ready, stop) = (controllers.ready(), CancellationToken::new());
    (stop.clone(), tokio::spawn(controllers.run(stop)), ready)
}

/// Work for both: a ServiceAccount to be made anew, and an object whose owner is not there.
async fn make_work(client: &Client) {
    let accounts: Api<ServiceAccount> = Api::default_namespaced(client.clone());
    accounts
        .delete("default", &DeleteParams::default())
        .await
        .unwrap();
    let orphan: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "orphan", "ownerReferences": [
        {"apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": "00000000-0000-0000-0000-000000000000"}]}}))
    .unwrap();
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    maps.create(&PostParams::default(), &orphan).await.unwrap();
}

async fn is_done(client: &Client) {
    let accounts: Api<ServiceAccount> = Api::default_namespaced(client.clone());
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    eventually("the leader does the work", || async {
        let account = accounts.get_opt("default").await.unwrap();
        let orphan = maps.get_opt("orphan").await.unwrap();
        account
            .filter(|account| orphan.is_none() && account.metadata.deletion_timestamp.is_none())
            .map(|account| account.name_any())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn controllers_work_only_where_they_lead() {
    let server = TestServer::start().await;
    let (by_first, by_second) = (Writes::default(), Writes::default());
    let (stop_first, first, ready) = controllers(by_first.recorded(server.client()), "first");
    ready.wait().await;
    is_done_before(&server.client()).await;
    let (stop_second, second, ready) = controllers(by_second.recorded(server.client()), "second");
    ready.wait().await;
    make_work(&server.client()).await;
    is_done(&server.client()).await;
    assert!(!by_first.all().is_empty());
    assert_eq!(by_second.all(), Vec::<String>::new());

    stop_first.cancel();
    first.await.unwrap();
    let of_first = by_first.all();
    make_work(&server.client()).await;
    is_done(&server.client()).await;
    assert!(!by_second.all().is_empty());
    assert_eq!(by_first.all(), of_first);
    stop_second.cancel();
    second.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lease_is_held_until_the_last_worker_is_done() {
    let server = TestServer::start().await;
    let (reached, go) = (Arc::new(Notify::new()), Arc::new(Semaphore::new(0)));
    let (at, wait) = (Arc::clone(&reached), Arc::clone(&go));
    let client = delayed(server.client(), move |method, path| {
        let (at, wait) = (Arc::clone(&at), Arc::clone(&wait));
        async move {
            if method == Method::POST && path.ends_with("/serviceaccounts") {
                at.notify_one();
                drop(wait.acquire().await);
            }
        }
    });
    let (stop, running, _) = controllers(client, "first");
    reached.notified().await;
    stop.cancel();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let leases: Api<Lease> = Api::namespaced(server.client(), "kube-system");
    let holder = || async {
        let lease = leases.get("kube-controller-manager").await.unwrap();
        lease.spec.unwrap().holder_identity
    };
    assert_eq!(holder().await.as_deref(), Some("first"));
    go.add_permits(100);
    running.await.unwrap();
    assert_eq!(holder().await.as_deref(), Some(""), "released");
}

/// The first leader has made the account that the work begins with.
async fn is_done_before(client: &Client) {
    let accounts: Api<ServiceAccount> = Api::default_namespaced(client.clone());
    eventually("the account is there", || async {
        accounts.get_opt("default").await.unwrap()
    })
    .await;
}
