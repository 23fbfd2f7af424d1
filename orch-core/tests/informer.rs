//! Informers and the manager against a scripted API: what a broken watch must not lose.

#![allow(clippy::unwrap_used, reason = "tests end where they fail")]

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::client::Body;
use kube::{Api, Client, ResourceExt};
use orch_core::controller::{Controller, Manager, Outcome, ReconcileError, Watches};
use orch_core::informer::{Event, Informer, Informers};
use orch_core::key::NamespacedName;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

type Lines = mpsc::UnboundedReceiver<Value>;

/// Answers lists and watches from a script; what is not scripted never answers.
#[derive(Clone, Default)]
struct Script(Arc<Mutex<Parts>>);

#[derive(Default)]
struct Parts {
    lists: VecDeque<Value>,
    watches: VecDeque<Lines>,
}

impl Script {
    fn list(&self, version: u64, items: &[Value]) -> &Self {
        self.0.lock().lists.push_back(json!({
            "kind": "ConfigMapList", "apiVersion": "v1",
            "metadata": {"resourceVersion": version.to_string()}, "items": items,
        }));
        self
    }

    fn watch(&self) -> mpsc::UnboundedSender<Value> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.0.lock().watches.push_back(receiver);
        sender
    }

    fn client(&self) -> Client {
        let script = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let script = script.clone();
            let watching = request.uri().query().unwrap_or_default().contains("watch=true");
            async move { Ok::<_, Infallible>(script.answer(watching).await) }
        });
        Client::new(service, "default")
    }

    async fn answer(&self, watching: bool) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
        if watching {
            let lines = self.0.lock().watches.pop_front();
            let Some(lines) = lines else {
                return std::future::pending().await;
            };
            let stream = futures::stream::unfold(lines, |mut lines| async {
                let line = format!("{}\n", lines.recv().await?);
                Some((Ok::<_, Infallible>(Frame::data(Bytes::from(line))), lines))
            });
            return Response::new(StreamBody::new(stream).boxed_unsync());
        }
        let list = self.0.lock().lists.pop_front();
        match list {
            Some(list) => Response::new(Full::from(list.to_string()).boxed_unsync()),
            None => std::future::pending().await,
        }
    }
}

fn map(name: &str, version: u64) -> Value {
    map_with_uid(name, version, name)
}

fn map_with_uid(name: &str, version: u64, uid: &str) -> Value {
    json!({
        "kind": "ConfigMap", "apiVersion": "v1",
        "metadata": {"name": name, "namespace": "default", "resourceVersion": version.to_string(), "uid": uid,
            "managedFields": [{"manager": "test"}]},
    })
}

fn event(kind: &str, object: &Value) -> Value {
    json!({"type": kind, "object": object})
}

fn gone() -> Value {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 410,
        "reason": "Expired", "message": "too old resource version"});
    event("ERROR", &status)
}

async fn expect(events: &mut mpsc::UnboundedReceiver<Event<ConfigMap>>, wanted: &[&str]) {
    let mut seen = Vec::new();
    while seen.len() < wanted.len() {
        seen.push(format!("{:?}", events.recv().await.expect("the informer runs")));
    }
    seen.sort();
    let mut wanted = wanted.to_vec();
    wanted.sort_unstable();
    assert_eq!(seen, wanted);
}

#[tokio::test]
async fn a_deletion_missed_while_disconnected_is_told() {
    let script = Script::default();
    script.list(2, &[map("a", 1), map("b", 2)]);
    let first = script.watch();
    let informer = Informer::<ConfigMap>::builder(Api::all(script.client())).build();
    let mut events = informer.subscribe();
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(informer.clone().run(shutdown.clone()));

    expect(&mut events, &["Added(default/a)", "Added(default/b)", "Synced"]).await;
    assert!(informer.has_synced());
    first.send(event("ADDED", &map("c", 3))).unwrap();
    expect(&mut events, &["Added(default/c)"]).await;

    // While the watch is down b goes, a changes, c stays, and d is replaced by another of its name.
    first.send(event("ADDED", &map_with_uid("d", 4, "d1"))).unwrap();
    expect(&mut events, &["Added(default/d)"]).await;
    script.list(9, &[map("a", 7), map("c", 3), map_with_uid("d", 9, "d2")]);
    let second = script.watch();
    first.send(gone()).unwrap();
    expect(
        &mut events,
        &[
            "Changed(default/a)",
            "Deleted(default/b)",
            "Deleted(default/d)",
            "Added(default/d)",
        ],
    )
    .await;
    second.send(event("DELETED", &map("a", 10))).unwrap();
    expect(&mut events, &["Deleted(default/a)"]).await;
    let left: Vec<_> = informer.list().iter().map(|map| map.name_any()).collect();
    assert_eq!(left, ["c", "d"]);
    assert!(informer.list()[0].managed_fields().is_empty(), "kept slim");

    shutdown.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn who_subscribes_late_is_told_what_is_there() {
    let script = Script::default();
    script.list(1, &[map("a", 1)]);
    let _watch = script.watch();
    let informer = Informer::<ConfigMap>::builder(Api::all(script.client())).build();
    let running = tokio::spawn(informer.clone().run(CancellationToken::new()));
    informer.ready().wait().await;
    expect(&mut informer.subscribe(), &["Added(default/a)", "Synced"]).await;
    running.abort();
}

#[tokio::test]
async fn one_kind_has_one_informer() {
    let script = Script::default();
    let informers = Informers::new(script.client());
    let first = informers.get::<ConfigMap>();
    first.add_index("name", |map| vec![map.name_any()]);
    script.list(1, &[map("a", 1)]);
    let running = tokio::spawn(informers.clone().run(CancellationToken::new()));
    informers.synced().await;
    assert_eq!(informers.get::<ConfigMap>().by_index("name", "a").len(), 1);
    running.abort();
}

/// Fails each key once, then notes it.
struct Flaky {
    maps: Informer<ConfigMap>,
    tries: AtomicUsize,
    done: mpsc::UnboundedSender<NamespacedName>,
}

#[async_trait]
impl Controller for Flaky {
    fn name(&self) -> &str {
        "flaky"
    }

    fn watches(&self, watches: &mut Watches) {
        watches.own(&self.maps);
    }

    async fn reconcile(&self, key: &NamespacedName) -> Result<Outcome, ReconcileError> {
        match self.tries.fetch_add(1, Ordering::SeqCst) {
            0 => Err("not yet".into()),
            1 => panic!("a panic is a failure like others"),
            _ => {
                self.done.send(key.clone())?;
                Ok(Outcome::Done)
            }
        }
    }
}

#[tokio::test]
async fn a_manager_reconciles_what_is_there_and_what_comes_and_retries_failures() {
    let script = Script::default();
    script.list(1, &[map("a", 1)]);
    let watch = script.watch();
    let informers = Informers::new(script.client());
    let (done, mut reconciled) = mpsc::unbounded_channel();
    let controller = Arc::new(Flaky {
        maps: informers.get(),
        tries: AtomicUsize::new(0),
        done,
    });
    let manager = Manager::builder(informers).controller(controller).build();
    let ready = manager.ready();
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(manager.run(shutdown.clone()));

    assert_eq!(reconciled.recv().await.unwrap().as_str(), "default/a");
    ready.wait().await;
    watch.send(event("ADDED", &map("b", 2))).unwrap();
    assert_eq!(reconciled.recv().await.unwrap().as_str(), "default/b");
    watch.send(event("DELETED", &map("b", 3))).unwrap();
    assert_eq!(reconciled.recv().await.unwrap().as_str(), "default/b");

    shutdown.cancel();
    running.await.unwrap();
}
