//! A cluster for tests: a real API server in memory, the controllers, and a node agent that only pretends.

#![allow(clippy::unwrap_used, reason = "tests end where they fail")]
#![allow(dead_code, reason = "each test file uses its part")]

use std::future::Future;
use std::time::Duration;

use http::{Method, Request};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::client::Body;
use kube::{Api, Client, ResourceExt};
use orch_api::testkit::TestServer;
use orch_controllers::{Controllers, ControllersBuilder};
use orch_core::informer::{Event, Informer};
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

pub(crate) struct Cluster {
    pub(crate) server: TestServer,
    pub(crate) client: Client,
    _tasks: JoinSet<()>,
    _stop: DropGuard,
}

impl Cluster {
    /// All controllers, and pods that get ready at once.
    pub(crate) async fn start() -> Self {
        Self::start_with(|builder| builder).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(ControllersBuilder) -> ControllersBuilder) -> Self {
        let server = TestServer::start().await;
        let client = server.client();
        let controllers = change(Controllers::builder(client.clone())).build().unwrap();
        let ready = controllers.ready();
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(controllers.run(stop.clone()));
        tasks.spawn(pretend_to_run_pods(client.clone(), stop.clone()));
        ready.wait().await;
        Cluster {
            server,
            client,
            _tasks: tasks,
            _stop: stop.drop_guard(),
        }
    }

    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), "default")
    }
}

/// Pods run and are ready as soon as they exist, and go as soon as they are to go.
async fn pretend_to_run_pods(client: Client, stop: CancellationToken) {
    let pods = Informer::<Pod>::builder(Api::all(client.clone())).build();
    let mut events = pods.subscribe();
    let running = pods.run(stop);
    let mut next_ip = 1;
    let work = async {
        while let Some(event) = events.recv().await {
            let Event::Applied { new: pod, .. } = event else {
                continue;
            };
            let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap());
            let status = pod.status.clone().unwrap_or_default();
            if pod.metadata.deletion_timestamp.is_some() {
                drop(
                    api.delete(&pod.name_any(), &DeleteParams::default().grace_period(0))
                        .await,
                );
            } else if status.phase.as_deref() != Some("Running") && pod.labels().get("broken").is_none() {
                let ip = format!("10.1.{}.{}", next_ip / 250, next_ip % 250 + 1);
                next_ip += 1;
                let status = json!({"status": {
                    "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
                    "conditions": [{"type": "Ready", "status": "True",
                        "lastTransitionTime": orch_core::conditions::now()}],
                }});
                let patched = api
                    .patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(status))
                    .await;
                // Gone meanwhile is fine; refused is a fault of the test.
                match patched {
                    Err(kube::Error::Api(status)) if status.code == 404 => {}
                    patched => drop(patched.expect("the API takes the status")),
                }
            }
        }
    };
    tokio::join!(running, work);
}

/// Asks until the answer is there.
///
/// # Panics
/// After half a minute, with `what`.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut ask: impl FnMut() -> F,
) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    match tokio::time::timeout(Duration::from_secs(30), asking).await {
        Ok(answer) => answer,
        Err(_) => panic!("never: {what}"),
    }
}

/// A client by way of `client`, whose answers arrive only when `after`, given the method and path that were asked for,
/// is done.
pub(crate) fn delayed<F, D>(client: Client, after: F) -> Client
where
    F: Fn(Method, String) -> D + Clone + Send + Sync + 'static,
    D: Future<Output = ()> + Send + 'static,
{
    let namespace = client.default_namespace().to_owned();
    let service = tower::service_fn(move |request: Request<Body>| {
        let (client, after) = (client.clone(), after.clone());
        async move {
            let (method, path) = (request.method().clone(), request.uri().path().to_owned());
            let response = client.send(request).await;
            after(method, path).await;
            response
        }
    });
    Client::new(service, namespace)
}
