//! The node agent against a real API server, with the fake and the embedded runtime. The latter needs root, and fails without.
#![allow(clippy::unwrap_used, reason = "a test ends when what it stands on is missing")]

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, ContainerStatus, Event, Node, Pod, Secret};
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::runtime::wait::await_condition;
use orch_api::testkit::TestServer;
use orch_core::pki::{self, CertificateAuthority, ClientCertificates, Leaf};
use orch_node::embedded::{EmbeddedRuntime, HOST_IMAGE};
use orch_node::fake::{FakeRuntime, Script};
use orch_node::runtime::{ContainerFilter, Runtime};
use orch_node::{NodeAgent, NodeAgentBuilder};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(60);

/// An agent that runs; dropping it is like killing it.
struct Running {
    task: JoinHandle<()>,
    shutdown: CancellationToken,
}

impl Running {
    async fn start(builder: NodeAgentBuilder) -> Self {
        let agent = builder.build().await.unwrap();
        let ready = agent.ready();
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(agent.run(shutdown.clone()));
        tokio::time::timeout(PATIENCE, ready.wait())
            .await
            .expect("the agent gets ready");
        Self { task, shutdown }
    }

    async fn kill(self) {
        self.task.abort();
        drop(self.task.await);
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }
}

/// Pods of tests that run at the same time must not have the same addresses: their bridges are on one host.
static NETWORKS: AtomicU8 = AtomicU8::new(100);

fn agent(world: &World, runtime: Arc<dyn Runtime>) -> NodeAgentBuilder {
    NodeAgent::builder(world.server.client(), "n1")
        .runtime(runtime)
        .data_dir(world.dir.path().join("node"))
        .pod_cidr(format!("{}.0/24", world.network))
        .healthz(None)
        .internal_ips([IpAddr::from([192, 0, 2, 7])])
}

fn pod(name: &str, spec: Value) -> Pod {
    let mut spec = spec;
    spec["nodeName"] = json!("n1");
    spec["terminationGracePeriodSeconds"] = spec
        .get("terminationGracePeriodSeconds")
        .cloned()
        .unwrap_or(json!(5));
    serde_json::from_value(
        json!({"metadata": {"name": name, "namespace": "default", "labels": {"app": name}}, "spec": spec}),
    )
    .unwrap()
}

struct World {
    server: TestServer,
    pods: Api<Pod>,
    dir: tempfile::TempDir,
    /// The first three numbers of its pods' addresses.
    network: String,
}

impl World {
    async fn new() -> Self {
        // The log of a failed test, by RUST_LOG; another test may have set it up already.
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_test_writer()
            .try_init()
            .ok();
        let server = TestServer::start().await;
        let pods = Api::namespaced(server.client(), "default");
        Self {
            server,
            pods,
            dir: tempfile::tempdir().unwrap(),
            network: format!("10.213.{}", NETWORKS.fetch_add(1, Ordering::Relaxed)),
        }
    }

    async fn with_fake(fake: &FakeRuntime) -> (Self, Running) {
        let world = Self::new().await;
        let running = world.run(fake).await;
        (world, running)
    }

    async fn run(&self, fake: &FakeRuntime) -> Running {
        Running::start(agent(self, Arc::new(fake.clone()))).await
    }

    async fn create(&self, pod: &Pod) -> Pod {
        self.pods.create(&PostParams::default(), pod).await.unwrap()
    }

    /// Waits until a pod is as wanted.
    async fn until(&self, name: &str, what: &str, wanted: impl Fn(&Pod) -> bool) -> Pod {
        let found = await_condition(self.pods.clone(), name, |pod: Option<&Pod>| {
            pod.is_some_and(&wanted)
        });
        match tokio::time::timeout(PATIENCE, found).await {
            Ok(found) => found.unwrap().unwrap(),
            Err(_) => {
                let now = self.pods.get_opt(name).await.unwrap();
                panic!(
                    "{name} is not {what}: {}",
                    serde_json::to_string_pretty(&now).unwrap()
                );
            }
        }
    }

    async fn gone(&self, name: &str) {
        let gone = await_condition(self.pods.clone(), name, |pod: Option<&Pod>| pod.is_none());
        tokio::time::timeout(PATIENCE, gone)
            .await
            .expect("the pod goes")
            .unwrap();
    }

    /// The events of a pod, once there is one of each reason.
    async fn events(&self, name: &str, reasons: &[&str]) -> Vec<(String, String)> {
        let api: Api<Event> = Api::namespaced(self.server.client(), "default");
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let list = api.list(&ListParams::default()).await.unwrap();
            let about = list
                .items
                .into_iter()
                .filter(|event| event.involved_object.name.as_deref() == Some(name));
            let found: Vec<(String, String)> = about
                .map(|event| {
                    (
                        event.reason.unwrap_or_default(),
                        event.message.unwrap_or_default(),
                    )
                })
                .collect();
            if reasons
                .iter()
                .all(|reason| found.iter().any(|(have, _)| have == reason))
            {
                return found;
            }
            assert!(tokio::time::Instant::now() < deadline, "{reasons:?} in {found:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn container(pod: &Pod, index: usize) -> Option<&ContainerStatus> {
    pod.status.as_ref()?.container_statuses.as_ref()?.get(index)
}

fn phase(pod: &Pod) -> &str {
    pod.status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default()
}

fn condition<'a>(pod: &'a Pod, type_: &str) -> &'a str {
    let all = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    all.filter(|c| c.type_ == type_)
        .map(|c| c.status.as_str())
        .next()
        .unwrap_or_default()
}

fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready") == "True"
}

fn waiting(pod: &Pod, index: usize) -> &str {
    let state = container(pod, index).and_then(|c| c.state.as_ref()?.waiting.as_ref()?.reason.as_deref());
    state.unwrap_or_default()
}

fn simple(name: &str, image: &str) -> Pod {
    pod(name, json!({"containers": [{"name": "main", "image": image}]}))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_registers_and_keeps_its_lease() {
    let (world, running) = World::with_fake(&FakeRuntime::new()).await;
    let nodes: Api<Node> = Api::all(world.server.client());
    let is_ready = |node: Option<&Node>| {
        let conditions = node.and_then(|node| node.status.as_ref()?.conditions.as_ref());
        conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
    };
    tokio::time::timeout(PATIENCE, await_condition(nodes.clone(), "n1", is_ready))
        .await
        .unwrap()
        .unwrap();
    let node = nodes.get("n1").await.unwrap();
    let labels = node.metadata.labels.unwrap();
    assert_eq!(
        (
            labels["kubernetes.io/hostname"].as_str(),
            labels["kubernetes.io/os"].as_str()
        ),
        ("n1", "linux")
    );
    let status = node.status.unwrap();
    let addresses: Vec<String> = status
        .addresses
        .unwrap()
        .into_iter()
        .map(|a| format!("{}={}", a.type_, a.address))
        .collect();
    assert_eq!(addresses, ["InternalIP=192.0.2.7", "Hostname=n1"]);
    let reasons: Vec<String> = status
        .conditions
        .unwrap()
        .into_iter()
        .filter_map(|c| c.reason)
        .collect();
    assert!(
        reasons.contains(&"KubeletReady".to_owned())
            // The machine of the test may be short of disk.
            && reasons.iter().any(|reason| reason.ends_with("DiskPressure")),
        "{reasons:?}"
    );
    let info = status.node_info.unwrap();
    assert!(
        info.kubelet_version.starts_with("v1.37.") && info.container_runtime_version.starts_with("fake://")
    );
    assert_eq!(status.capacity.unwrap()["pods"].0, "110");
    let leases: Api<Lease> = Api::namespaced(world.server.client(), "kube-node-lease");
    let held = |lease: Option<&Lease>| {
        lease.is_some_and(|lease| lease.spec.as_ref().is_some_and(|s| s.renew_time.is_some()))
    };
    tokio::time::timeout(PATIENCE, await_condition(leases.clone(), "n1", held))
        .await
        .unwrap()
        .unwrap();
    let lease = leases.get("n1").await.unwrap();
    assert_eq!(lease.spec.unwrap().lease_duration_seconds, Some(40));
    assert_eq!(lease.metadata.owner_references.unwrap()[0].kind, "Node");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_runs_and_ends_as_upstream_reports_it() {
    let fake = FakeRuntime::new();
    let (world, running) = World::with_fake(&fake).await;
    world.create(&simple("web", "nginx")).await;
    let found = world.until("web", "ready", is_ready).await;
    assert_eq!(phase(&found), "Running");
    for type_ in [
        "PodReadyToStartContainers",
        "Initialized",
        "ContainersReady",
        "PodScheduled",
    ] {
        assert_eq!(condition(&found, type_), "True", "{type_}");
    }
    let status = found.status.clone().unwrap();
    assert!(status.pod_ip.as_ref().unwrap().starts_with(&world.network));
    assert_eq!(status.pod_ips.unwrap()[0].ip, status.pod_ip.unwrap());
    assert_eq!(
        (status.host_ip.as_deref(), status.qos_class.as_deref()),
        (Some("192.0.2.7"), Some("BestEffort"))
    );
    let main = container(&found, 0).unwrap();
    assert!(main.ready && main.started == Some(true) && main.restart_count == 0);
    assert!(main.container_id.as_ref().unwrap().starts_with("fake://"));
    let events = world.events("web", &["Pulled", "Created", "Started"]).await;
    assert!(
        events.contains(&("Started".into(), "Container started".into())),
        "{events:?}"
    );

    world.pods.delete("web", &DeleteParams::default()).await.unwrap();
    world.gone("web").await;
    assert!(
        fake.list_pod_sandbox(None).await.unwrap().is_empty(),
        "nothing is left in the runtime"
    );
    let events = world.events("web", &["Killing"]).await;
    assert!(
        events.contains(&("Killing".into(), "Stopping container main".into())),
        "{events:?}"
    );
    let left = std::fs::read_dir(world.dir.path().join("node/pods")).map_or(0, Iterator::count);
    assert_eq!(left, 0, "nothing is left on disk");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_crashes_is_restarted_at_once_and_then_waits() {
    let crash = Script {
        exit_after: Some(Duration::from_millis(30)),
        exit_code: 7,
        ..Script::default()
    };
    let (world, _running) = World::with_fake(&FakeRuntime::new().script("crash", crash)).await;
    world.create(&simple("bad", "crash")).await;
    let found = world
        .until("bad", "crash looping", |pod| {
            waiting(pod, 0) == "CrashLoopBackOff"
        })
        .await;
    let main = container(&found, 0).unwrap();
    assert_eq!((main.restart_count, phase(&found)), (1, "Running"));
    let last = main.last_state.as_ref().unwrap().terminated.as_ref().unwrap();
    assert_eq!((last.exit_code, last.reason.as_deref()), (7, Some("Error")));
    let message = main
        .state
        .as_ref()
        .unwrap()
        .waiting
        .as_ref()
        .unwrap()
        .message
        .clone()
        .unwrap();
    let uid = found.metadata.uid.unwrap();
    assert_eq!(
        message,
        format!("back-off 10s restarting failed container=main pod=bad_default({uid})")
    );
    let events = world.events("bad", &["BackOff"]).await;
    let text = format!("Back-off restarting failed container main in pod bad_default({uid})");
    assert!(events.contains(&("BackOff".into(), text)), "{events:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_cannot_be_pulled_is_reported() {
    let missing = Script {
        pull_error: Some("not found".into()),
        ..Script::default()
    };
    let (world, _running) = World::with_fake(&FakeRuntime::new().script("missing", missing)).await;
    world.create(&simple("noimage", "missing")).await;
    world
        .until("noimage", "waiting for its image", |pod| {
            waiting(pod, 0) == "ErrImagePull"
        })
        .await;
    let found = world
        .until("noimage", "backing off", |pod| {
            waiting(pod, 0) == "ImagePullBackOff"
        })
        .await;
    assert_eq!(phase(&found), "Pending");
    let events = world.events("noimage", &["Pulling", "Failed", "BackOff"]).await;
    assert!(
        events.contains(&("Failed".into(), "Error: ErrImagePull".into())),
        "{events:?}"
    );
    world
        .pods
        .delete("noimage", &DeleteParams::default())
        .await
        .unwrap();
    world.gone("noimage").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn init_containers_run_first_and_jobs_end() {
    let done = Script {
        exit_after: Some(Duration::from_millis(20)),
        ..Script::default()
    };
    let failed = Script {
        exit_after: Some(Duration::from_millis(20)),
        exit_code: 2,
        ..Script::default()
    };
    let fake = FakeRuntime::new().script("done", done).script("failed", failed);
    let (world, _running) = World::with_fake(&fake).await;
    let spec = json!({"restartPolicy": "Never", "initContainers": [{"name": "first", "image": "done"}, {"name": "second", "image": "done"}],
        "containers": [{"name": "main", "image": "done"}]});
    world.create(&pod("job", spec)).await;
    let found = world.until("job", "done", |pod| phase(pod) == "Succeeded").await;
    let init = found
        .status
        .as_ref()
        .unwrap()
        .init_container_statuses
        .as_ref()
        .unwrap();
    let ended = |c: &ContainerStatus| {
        c.state
            .as_ref()
            .unwrap()
            .terminated
            .as_ref()
            .unwrap()
            .finished_at
            .clone()
            .unwrap()
    };
    assert!(ended(&init[0]) <= ended(&init[1]) && init.iter().all(|c| c.ready));
    assert_eq!(condition(&found, "Ready"), "False");
    let spec = json!({"restartPolicy": "Never", "containers": [{"name": "main", "image": "failed"}]});
    world.create(&pod("failing", spec)).await;
    let found = world
        .until("failing", "failed", |pod| phase(pod) == "Failed")
        .await;
    let ended = container(&found, 0)
        .unwrap()
        .state
        .as_ref()
        .unwrap()
        .terminated
        .as_ref()
        .unwrap();
    assert_eq!(ended.exit_code, 2);
    assert_eq!(fake.starts(), 4, "nothing is started again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_agent_adopts_what_runs() {
    let fake = FakeRuntime::new();
    let (world, running) = World::with_fake(&fake).await;
    for name in ["stays", "leaves"] {
        world.create(&simple(name, "nginx")).await;
        world.until(name, "ready", is_ready).await;
    }
    let before = world.pods.get("stays").await.unwrap();
    running.kill().await;
    let now = DeleteParams {
        grace_period_seconds: Some(0),
        ..DeleteParams::default()
    };
    world.pods.delete("leaves", &now).await.unwrap();
    let _running = world.run(&fake).await;
    world.create(&simple("new", "nginx")).await;
    world.until("new", "ready", is_ready).await;
    let after = world.pods.get("stays").await.unwrap();
    assert_eq!(
        container(&after, 0).unwrap().container_id,
        container(&before, 0).unwrap().container_id
    );
    assert_eq!(after.status, before.status, "adoption changes nothing");
    assert_eq!(fake.starts(), 3, "nothing was started twice");
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while fake.list_pod_sandbox(None).await.unwrap().len() > 2 {
        assert!(
            tokio::time::Instant::now() < deadline,
            "the pod that was deleted meanwhile is ended"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_restarted_while_the_runtime_cannot_be_asked() {
    let fake = FakeRuntime::new();
    let (world, _running) = World::with_fake(&fake).await;
    world.create(&simple("web", "nginx")).await;
    world.until("web", "ready", is_ready).await;
    fake.set_available(false);
    world.create(&simple("late", "nginx")).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    fake.set_available(true);
    world.until("late", "ready", is_ready).await;
    assert_eq!(fake.starts(), 2);
    assert_eq!(
        container(&world.pods.get("web").await.unwrap(), 0)
            .unwrap()
            .restart_count,
        0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_built_is_said() {
    let (world, _running) = World::with_fake(&FakeRuntime::new()).await;
    let volume = json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}], "containers": [{"name": "main", "image": "x"}]});
    world.create(&pod("pvc", volume)).await;
    let probe =
        json!({"containers": [{"name": "main", "image": "x", "livenessProbe": {"grpc": {"port": 1}}}]});
    world.create(&pod("grpc", probe)).await;
    for (name, text) in [
        ("pvc", "persistentVolumeClaim is not built"),
        ("grpc", "gRPC probes are not built"),
    ] {
        let found = world
            .until(name, "refused", |pod| {
                waiting(pod, 0) == "CreateContainerConfigError"
            })
            .await;
        let message = container(&found, 0)
            .unwrap()
            .state
            .as_ref()
            .unwrap()
            .waiting
            .as_ref()
            .unwrap()
            .message
            .clone();
        assert!(message.as_ref().unwrap().contains(text), "{message:?}");
        world.events(name, &["Failed"]).await;
        world.pods.delete(name, &DeleteParams::default()).await.unwrap();
        world.gone(name).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_config_is_waited_for() {
    let (world, _running) = World::with_fake(&FakeRuntime::new()).await;
    let env = json!([{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "late", "key": "k"}}}]);
    world
        .create(&pod(
            "web",
            json!({"containers": [{"name": "main", "image": "x", "env": env}]}),
        ))
        .await;
    let found = world
        .until("web", "waiting", |pod| {
            waiting(pod, 0) == "CreateContainerConfigError"
        })
        .await;
    let message = container(&found, 0)
        .unwrap()
        .state
        .as_ref()
        .unwrap()
        .waiting
        .as_ref()
        .unwrap()
        .message
        .clone();
    assert_eq!(message.as_deref(), Some("configmap \"late\" not found"));
    let map = serde_json::from_value(json!({"metadata": {"name": "late"}, "data": {"k": "v"}})).unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(world.server.client(), "default");
    maps.create(&PostParams::default(), &map).await.unwrap();
    world.until("web", "ready", is_ready).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_hollow_nodes_share_one_process_and_client() {
    let world = World::new().await;
    let mut agents = Vec::new();
    for index in 0..50 {
        let fake = Arc::new(FakeRuntime::new());
        let builder = NodeAgent::builder(world.server.client(), format!("hollow-{index}"))
            .runtime(fake)
            .pod_cidr(format!("10.214.{index}.0/24"))
            .hollow();
        agents.push(Running::start(builder).await);
    }
    for index in 0..50 {
        let mut pod = simple(&format!("p{index}"), "nginx");
        pod.spec.as_mut().unwrap().node_name = Some(format!("hollow-{index}"));
        world.create(&pod).await;
    }
    for index in 0..50 {
        world.until(&format!("p{index}"), "ready", is_ready).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lease_belongs_to_the_node_that_is_registered_now() {
    let (world, running) = World::with_fake(&FakeRuntime::new()).await;
    let nodes: Api<Node> = Api::all(world.server.client());
    let leases: Api<Lease> = Api::namespaced(world.server.client(), "kube-node-lease");
    let owner = |lease: &Lease| lease.metadata.owner_references.as_ref().unwrap()[0].uid.clone();
    let first = nodes.get("n1").await.unwrap().metadata.uid.unwrap();
    let owned = |uid: String| move |lease: Option<&Lease>| lease.is_some_and(|lease| owner(lease) == uid);
    let wait = await_condition(leases.clone(), "n1", owned(first.clone()));
    tokio::time::timeout(PATIENCE, wait).await.unwrap().unwrap();

    nodes.delete("n1", &DeleteParams::default()).await.unwrap();
    let other = |node: Option<&Node>| {
        let ready = node.and_then(|node| node.status.as_ref()?.conditions.as_ref());
        node.is_some_and(|node| node.metadata.uid.as_ref() != Some(&first))
            && ready.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
    };
    let again = await_condition(nodes.clone(), "n1", other);
    let again = tokio::time::timeout(PATIENCE, again)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    let uid = again.metadata.uid.unwrap();
    let wait = await_condition(leases.clone(), "n1", owned(uid.clone()));
    tokio::time::timeout(PATIENCE, wait).await.unwrap().unwrap();

    // What the garbage collector may have deleted meanwhile comes back as the new Node's.
    leases.delete("n1", &DeleteParams::default()).await.unwrap();
    let wait = await_condition(leases.clone(), "n1", owned(uid));
    tokio::time::timeout(PATIENCE, wait).await.unwrap().unwrap();
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hollow_node_has_no_listeners_but_those_that_are_named() {
    let server = TestServer::start().await;
    let hollow = || {
        NodeAgent::builder(server.client(), "hollow")
            .runtime(Arc::new(FakeRuntime::new()))
            .hollow()
    };
    let none = hollow().build().await.unwrap();
    assert_eq!((none.server_addr(), none.healthz_addr()), (None, None));
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let (builder, _) = Https::serve(hollow());
    let both = builder.healthz(Some(any)).build().await.unwrap();
    assert!(both.server_addr().is_some() && both.healthz_addr().is_some());
}

// From here on with the embedded runtime.

async fn embedded(dir: &Path) -> Arc<EmbeddedRuntime> {
    let builder = EmbeddedRuntime::builder(dir.join("runtime"))
        .allow_host_image(true)
        .helper_program(env!("CARGO_BIN_EXE_orch-node-helper"));
    Arc::new(
        builder
            .build()
            .await
            .expect("the embedded runtime's tests need root"),
    )
}

/// A client of the agent's HTTPS server.
struct Https {
    authority: CertificateAuthority,
    address: SocketAddr,
}

impl Https {
    /// A builder that serves, and what its client needs but for the address.
    fn serve(builder: NodeAgentBuilder) -> (NodeAgentBuilder, CertificateAuthority) {
        let authority = CertificateAuthority::create("test").unwrap();
        let identity = authority.issue(&Leaf::server("n1", ["localhost"])).unwrap();
        let tls = pki::server_config(
            &identity,
            Some((authority.certificate_pem(), ClientCertificates::Required)),
        )
        .unwrap();
        (
            builder.server(SocketAddr::from(([127, 0, 0, 1], 0)), tls),
            authority,
        )
    }

    async fn get(&self, path: &str, group: Option<&str>) -> (u16, String) {
        let (answer, connection) = self.open(path, group).await;
        let status = answer.status().as_u16();
        let body = tokio::time::timeout(PATIENCE, answer.into_body().collect())
            .await
            .expect("the answer ends")
            .unwrap();
        connection.abort();
        (status, String::from_utf8(body.to_bytes().to_vec()).unwrap())
    }

    /// An answer whose body is still to come, while the task runs.
    async fn open(
        &self,
        path: &str,
        group: Option<&str>,
    ) -> (
        http::Response<hyper::body::Incoming>,
        JoinHandle<hyper::Result<()>>,
    ) {
        let identity = self
            .authority
            .issue(&Leaf::client("kube-apiserver-kubelet-client", group))
            .unwrap();
        let config = pki::client_config(self.authority.certificate_pem(), Some(&identity)).unwrap();
        let stream = tokio::net::TcpStream::connect(self.address).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
        let tls = tokio_rustls::TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
            .unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls))
            .await
            .unwrap();
        let connection = tokio::spawn(connection);
        let request = http::Request::get(path)
            .header("host", "localhost")
            .body(Empty::<Bytes>::new())
            .unwrap();
        (sender.send_request(request).await.unwrap(), connection)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn real_pods_run_are_probed_logged_adopted_and_leave_nothing_behind() {
    let world = World::new().await;
    let client = world.server.client();
    let map =
        serde_json::from_value(json!({"metadata": {"name": "conf"}, "data": {"greeting": "hello"}})).unwrap();
    Api::<ConfigMap>::namespaced(client.clone(), "default")
        .create(&PostParams::default(), &map)
        .await
        .unwrap();
    let secret =
        serde_json::from_value(json!({"metadata": {"name": "key"}, "stringData": {"token": "s3cret"}}))
            .unwrap();
    Api::<Secret>::namespaced(client.clone(), "default")
        .create(&PostParams::default(), &secret)
        .await
        .unwrap();

    let runtime = embedded(world.dir.path()).await;
    let builder = agent(&world, runtime.clone());
    let (builder, authority) = Https::serve(builder);
    let build = builder.build().await.unwrap();
    let https = Https {
        authority,
        address: build.server_addr().unwrap(),
    };
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(build.run(shutdown.clone()));
    let running = Running { task, shutdown };

    let script = "echo env $GREETING $TOKEN on $NODE at $(hostname -i); cat /conf/greeting; echo; cat /etc/hosts; \
                  echo last words > /dev/termination-log; touch /tmp/up; trap 'echo bye; exit 0' TERM; \
                  while :; do sleep 3600 & wait; done";
    let spec = json!({
        "volumes": [{"name": "conf", "configMap": {"name": "conf"}}, {"name": "scratch", "emptyDir": {}}],
        "containers": [{
            "name": "main", "image": HOST_IMAGE, "command": ["/bin/sh", "-c"], "args": [script],
            "env": [
                {"name": "GREETING", "valueFrom": {"configMapKeyRef": {"name": "conf", "key": "greeting"}}},
                {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "key", "key": "token"}}},
                {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            ],
            "volumeMounts": [{"name": "conf", "mountPath": "/conf"}, {"name": "scratch", "mountPath": "/scratch"}],
            "readinessProbe": {"exec": {"command": ["test", "-e", "/tmp/up"]}, "periodSeconds": 1},
        }],
    });
    world.create(&pod("web", spec)).await;
    let found = world.until("web", "ready", is_ready).await;
    let ip = found.status.as_ref().unwrap().pod_ip.clone().unwrap();
    assert!(
        container(&found, 0)
            .unwrap()
            .container_id
            .as_ref()
            .unwrap()
            .starts_with("orch://")
    );

    let masters = Some("system:masters");
    let (status, log) = https.get("/containerLogs/default/web/main", masters).await;
    assert_eq!(status, 200, "{log}");
    assert!(
        log.starts_with(&format!(
            "env hello s3cret on n1 at {ip}\nhello\n# Kubernetes-managed hosts file.\n"
        )),
        "{log}"
    );
    let (_, log) = https
        .get(
            "/containerLogs/default/web/main?tailLines=1&timestamps=true",
            masters,
        )
        .await;
    assert!(
        log.ends_with(&format!("{ip}\tweb\n")) && log.starts_with("20"),
        "{log}"
    );
    assert_eq!(https.get("/containerLogs/default/web/main", None).await.0, 403);
    assert_eq!(
        https.get("/containerLogs/default/nobody/main", masters).await.0,
        404
    );
    assert_eq!(
        https
            .get("/containerLogs/default/web/main?previous=true", masters)
            .await
            .0,
        400
    );
    assert_eq!(
        https.get("/exec/default/web/main?command=id", masters).await.0,
        501
    );
    assert_eq!(https.get("/healthz", None).await, (200, "ok".into()));
    let (_, pods) = https.get("/pods", masters).await;
    assert!(pods.contains("\"PodList\"") && pods.contains("\"web\""));

    // The agent and its runtime are killed; the program goes on and is adopted.
    running.kill().await;
    // The tasks that were killed let go of the runtime when they are next looked at.
    while Arc::strong_count(&runtime) > 1 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(runtime);
    let runtime = embedded(world.dir.path()).await;
    let running = Running::start(agent(&world, runtime.clone())).await;
    world
        .create(&pod(
            "other",
            json!({"containers": [{"name": "main", "image": HOST_IMAGE, "command": ["sleep", "3600"]}]}),
        ))
        .await;
    world.until("other", "ready", is_ready).await;
    let after = world.pods.get("web").await.unwrap();
    assert_eq!(
        container(&after, 0),
        container(&found, 0),
        "the container is the same"
    );

    for name in ["web", "other"] {
        world
            .pods
            .delete(
                name,
                &DeleteParams {
                    grace_period_seconds: Some(1),
                    ..DeleteParams::default()
                },
            )
            .await
            .unwrap();
    }
    world.gone("web").await;
    world.gone("other").await;
    assert!(runtime.list_pod_sandbox(None).await.unwrap().is_empty());
    assert!(
        runtime
            .list_containers(&ContainerFilter::default())
            .await
            .unwrap()
            .is_empty()
    );
    running.stop().await;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let dir = world.dir.path().canonicalize().unwrap();
    assert!(!mounts.contains(dir.to_str().unwrap()), "no mount is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn failing_liveness_restarts_and_last_words_are_kept() {
    let world = World::new().await;
    let runtime = embedded(world.dir.path()).await;
    let running = Running::start(agent(&world, runtime.clone())).await;
    let script =
        "echo it was time > /dev/termination-log; trap 'exit 9' TERM; while :; do sleep 3600 & wait; done";
    let spec = json!({"containers": [{
        "name": "main", "image": HOST_IMAGE, "command": ["/bin/sh", "-c", script],
        "livenessProbe": {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 2},
    }]});
    world.create(&pod("sick", spec)).await;
    let found = world
        .until("sick", "restarted", |pod| {
            container(pod, 0).is_some_and(|c| c.restart_count > 0)
        })
        .await;
    let last = container(&found, 0)
        .unwrap()
        .last_state
        .as_ref()
        .unwrap()
        .terminated
        .as_ref()
        .unwrap();
    assert_eq!(
        (last.exit_code, last.message.as_deref()),
        (9, Some("it was time\n"))
    );
    let events = world.events("sick", &["Unhealthy", "Killing"]).await;
    assert!(
        events.contains(&(
            "Killing".into(),
            "Container main failed liveness probe, will be restarted".into()
        )),
        "{events:?}"
    );
    let now = DeleteParams {
        grace_period_seconds: Some(1),
        ..DeleteParams::default()
    };
    world.pods.delete("sick", &now).await.unwrap();
    world.gone("sick").await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_of_the_node_can_stop_its_pods() {
    let world = World::new().await;
    let runtime = embedded(world.dir.path()).await;
    let builder = agent(&world, runtime.clone()).stop_pods_on_shutdown(true);
    let running = Running::start(builder).await;
    let command = json!([
        "/bin/sh",
        "-c",
        "trap 'exit 0' TERM; while :; do sleep 3600 & wait; done"
    ]);
    world
        .create(&pod(
            "web",
            json!({"containers": [{"name": "main", "image": HOST_IMAGE, "command": command}]}),
        ))
        .await;
    world.until("web", "ready", is_ready).await;
    running.stop().await;
    let sandboxes = runtime.list_pod_sandbox(None).await.unwrap();
    assert!(
        sandboxes
            .iter()
            .all(|s| s.state == orch_node::runtime::PodSandboxState::NotReady)
    );
    for sandbox in sandboxes {
        runtime.remove_pod_sandbox(&sandbox.id).await.unwrap();
    }
}

/// Two listeners in one program: 8080 answers HTTP and takes commands (`/off`, `/on`: what `/ready` says; `/close`, `/open`:
/// the other listener), 8081 only accepts.
const SWITCHES: &str = r#"exec perl -MIO::Socket::INET -e '$SIG{TERM}=sub{exit 0};
sub on { IO::Socket::INET->new(LocalPort=>$_[0],Listen=>50,ReuseAddr=>1) or die }
$web=on(8080); $tcp=on(8081); $ok=1;
while($c=$web->accept()){ $_=<$c>; while(($h=<$c>)=~/\S/){} $code=200;
  if(m{ /ready}){$code=503 unless $ok} elsif(m{ /off}){$ok=0} elsif(m{ /on}){$ok=1}
  elsif(m{ /close}){close $tcp} elsif(m{ /open}){$tcp=on(8081)} else{$code=404}
  print $c "HTTP/1.0 $code X\r\n\r\n"; close $c}'"#;

/// A pod with [`SWITCHES`] and these probes.
fn switched(name: &str, readiness: &Value, liveness: &Value) -> Pod {
    let probe = |action: &Value, failures: u32| {
        let mut probe = json!({"periodSeconds": 1, "failureThreshold": failures});
        probe
            .as_object_mut()
            .unwrap()
            .extend(action.as_object().unwrap().clone());
        probe
    };
    pod(
        name,
        json!({"containers": [{
            "name": "main", "image": HOST_IMAGE, "command": ["/bin/sh", "-c", SWITCHES],
            "ports": [{"name": "web", "containerPort": 8080}],
            "readinessProbe": probe(readiness, 1), "livenessProbe": probe(liveness, 3),
        }]}),
    )
}

/// Sends a command to a pod with [`SWITCHES`].
async fn switch(pod: &Pod, command: &str) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let ip: IpAddr = pod
        .status
        .as_ref()
        .unwrap()
        .pod_ip
        .as_ref()
        .unwrap()
        .parse()
        .unwrap();
    let mut stream = tokio::net::TcpStream::connect((ip, 8080)).await.unwrap();
    let request = format!("GET /{command} HTTP/1.0\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.0 200"), "{command}: {answer}");
}

/// One kind of probe of a real pod: how it is made to fail and to pass, and what the event says then.
struct Switch {
    action: Value,
    off: &'static str,
    on: &'static str,
    failure: &'static str,
}

async fn probes_follow_a_real_pod(name: &str, readiness: Switch, liveness: Switch) {
    let world = World::new().await;
    let runtime = embedded(world.dir.path()).await;
    let builder = agent(&world, runtime.clone());
    let running = Running::start(builder).await;
    world
        .create(&switched(name, &readiness.action, &liveness.action))
        .await;
    let found = world.until(name, "ready", is_ready).await;

    switch(&found, readiness.off).await;
    let down = world.until(name, "not ready", |pod| !is_ready(pod)).await;
    assert_eq!(condition(&down, "ContainersReady"), "False");
    let ip = found.status.as_ref().unwrap().pod_ip.as_deref().unwrap();
    let events = world.events(name, &["Unhealthy"]).await;
    let text = format!("Readiness probe failed: {}", readiness.failure.replace("IP", ip));
    assert!(
        events.iter().any(|(_, message)| *message == text),
        "{text}: {events:?}"
    );
    switch(&found, readiness.on).await;
    let up = world.until(name, "ready again", is_ready).await;
    assert_eq!(container(&up, 0).unwrap().restart_count, 0);

    switch(&found, liveness.off).await;
    let restarted = |pod: &Pod| container(pod, 0).is_some_and(|c| c.restart_count == 1);
    world.until(name, "restarted", restarted).await;
    let events = world.events(name, &["Killing"]).await;
    let text = format!("Liveness probe failed: {}", liveness.failure.replace("IP", ip));
    assert!(
        events.iter().any(|(_, message)| *message == text),
        "{text}: {events:?}"
    );
    // What was switched off is on in the new program.
    world
        .until(name, "ready after its restart", |pod| {
            restarted(pod) && is_ready(pod)
        })
        .await;

    let soon = DeleteParams {
        grace_period_seconds: Some(1),
        ..DeleteParams::default()
    };
    world.pods.delete(name, &soon).await.unwrap();
    world.gone(name).await;
    running.stop().await;
}

fn http_probe() -> Switch {
    Switch {
        action: json!({"httpGet": {"path": "/ready", "port": "web"}}),
        off: "off",
        on: "on",
        failure: "HTTP probe failed with statuscode: 503",
    }
}

fn tcp_probe() -> Switch {
    Switch {
        action: json!({"tcpSocket": {"port": 8081}}),
        off: "close",
        on: "open",
        failure: "dial tcp IP:8081: connect: connection refused",
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn http_readiness_and_tcp_liveness_follow_a_real_pod() {
    probes_follow_a_real_pod("http-tcp", http_probe(), tcp_probe()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tcp_readiness_and_http_liveness_follow_a_real_pod() {
    probes_follow_a_real_pod("tcp-http", tcp_probe(), http_probe()).await;
}

/// Reads from a body until the text ends as wanted.
async fn read_until(body: &mut hyper::body::Incoming, text: &mut String, wanted: &str) {
    while !text.ends_with(wanted) {
        let frame = tokio::time::timeout(PATIENCE, body.frame())
            .await
            .unwrap_or_else(|_| panic!("{wanted:?} follows {text:?}"));
        let data = frame.expect("the log is not over").unwrap().into_data().unwrap();
        text.push_str(std::str::from_utf8(&data).unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_followed_until_the_container_ends() {
    let world = World::new().await;
    let runtime = embedded(world.dir.path()).await;
    let builder = agent(&world, runtime.clone());
    let (builder, authority) = Https::serve(builder);
    let agent = builder.build().await.unwrap();
    let https = Https {
        authority,
        address: agent.server_addr().unwrap(),
    };
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(agent.run(shutdown.clone()));

    let share = world.dir.path().join("share");
    std::fs::create_dir(&share).unwrap();
    let script =
        "step() { while [ ! -e /share/$1 ]; do sleep 0.05; done; echo $1; }; echo begin; step one; step two";
    let spec = json!({
        "restartPolicy": "Never",
        "volumes": [{"name": "share", "hostPath": {"path": share}}],
        "containers": [{
            "name": "main", "image": HOST_IMAGE, "command": ["/bin/sh", "-c", script],
            "volumeMounts": [{"name": "share", "mountPath": "/share"}],
        }],
    });
    world.create(&pod("talker", spec)).await;
    world.until("talker", "running", is_ready).await;
    let path = "/containerLogs/default/talker/main?follow=true";
    let (answer, connection) = https.open(path, Some("system:masters")).await;
    assert_eq!(answer.status(), 200);
    let mut body = answer.into_body();
    let mut text = String::new();
    // What is written while the log is followed arrives while the container runs.
    read_until(&mut body, &mut text, "begin\n").await;
    for step in ["one", "two"] {
        std::fs::write(share.join(step), "").unwrap();
        read_until(&mut body, &mut text, &format!("{step}\n")).await;
    }
    assert_eq!(text, "begin\none\ntwo\n");
    let end = tokio::time::timeout(PATIENCE, body.frame()).await;
    assert!(
        end.expect("the log ends with the container").is_none(),
        "nothing follows"
    );
    connection.abort();
    world
        .until("talker", "done", |pod| phase(pod) == "Succeeded")
        .await;
    world
        .pods
        .delete("talker", &DeleteParams::default())
        .await
        .unwrap();
    world.gone("talker").await;
    // A pod that is done goes from the API server at once, and after that from the node.
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !runtime.list_pod_sandbox(None).await.unwrap().is_empty() {
        assert!(tokio::time::Instant::now() < deadline, "the sandbox goes");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    shutdown.cancel();
    task.await.unwrap();
}
