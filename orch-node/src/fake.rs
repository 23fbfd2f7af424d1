//! A runtime that runs nothing: scripted behaviour for tests, and light enough for thousands of pods on hollow nodes.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use crate::address_pool::AddressPool;
use crate::event_bus::EventBus;
use crate::log_file;
use crate::runtime::{
    Container, ContainerConfig, ContainerEvent, ContainerEventType, ContainerFilter, ContainerId,
    ContainerState, ContainerStatus, ExecSyncResponse, Image, Observation, PodSandbox, PodSandboxConfig,
    PodSandboxState, PodSandboxStatus, Result, Runtime, RuntimeCondition, RuntimeConfig, RuntimeError,
    RuntimeStatus, SandboxId, Version,
};

/// How containers of one image behave in a [`FakeRuntime`].
#[derive(Debug, Clone)]
pub struct Script {
    /// How long pulling the image takes.
    pub pull_delay: Duration,
    /// Pulling the image fails with this message.
    pub pull_error: Option<String>,
    /// How long a start takes.
    pub start_delay: Duration,
    /// Starting fails with this message.
    pub start_error: Option<String>,
    /// The program ends by itself after this time.
    pub exit_after: Option<Duration>,
    /// The exit code when it ends by itself.
    pub exit_code: i32,
    /// The exit code when it is asked to end; `None`: it ignores the request and is killed when the time is over.
    pub stop_exit_code: Option<i32>,
    /// Lines that the program writes to its standard output when it starts.
    pub log: Vec<String>,
    /// The exit code of each command executed in the container.
    pub exec_exit_code: i32,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            pull_delay: Duration::ZERO,
            pull_error: None,
            start_delay: Duration::ZERO,
            start_error: None,
            exit_after: None,
            exit_code: 0,
            stop_exit_code: Some(0),
            log: Vec::new(),
            exec_exit_code: 0,
        }
    }
}

/// A scripted runtime. Clones share one state, so a clone given to a second agent shows what adoption does.
///
/// ```
/// use orch_node::fake::{FakeRuntime, Script};
///
/// let runtime = FakeRuntime::new().script("crash", Script { start_error: Some("no such file".into()), ..Script::default() });
/// ```
#[derive(Debug, Clone, Default)]
pub struct FakeRuntime {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    due_changed: Notify,
    unavailable: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    scripts: HashMap<String, Script>,
    sandboxes: BTreeMap<SandboxId, FakeSandbox>,
    containers: BTreeMap<ContainerId, FakeContainer>,
    images: BTreeMap<String, Image>,
    pool: Option<AddressPool>,
    exits: BTreeMap<(Instant, ContainerId), i32>,
    events: EventBus,
    counter: u64,
    starts: u64,
}

#[derive(Debug)]
struct FakeSandbox {
    config: Box<PodSandboxConfig>,
    state: PodSandboxState,
    ip: Option<IpAddr>,
    created_at: Timestamp,
}

#[derive(Debug)]
struct FakeContainer {
    status: ContainerStatus,
    pod_uid: String,
    stop_exit_code: Option<i32>,
    exec_exit_code: i32,
}

impl FakeRuntime {
    /// A runtime whose containers start at once and run for ever.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how containers of an image behave.
    #[must_use]
    pub fn script(self, image: impl Into<String>, script: Script) -> Self {
        self.set_script(image, script);
        self
    }

    /// Changes how containers of an image behave from their next start on.
    pub fn set_script(&self, image: impl Into<String>, script: Script) {
        self.shared.state.lock().scripts.insert(image.into(), script);
    }

    /// Makes every call fail as if the runtime could not be reached, or lets them work again.
    pub fn set_available(&self, available: bool) {
        self.shared.unavailable.store(!available, Ordering::SeqCst);
    }

    /// Ends a running container's program with an exit code.
    pub fn exit(&self, id: &ContainerId, exit_code: i32) {
        self.shared.state.lock().exit(id, exit_code);
    }

    /// How many containers were started in all.
    #[must_use]
    pub fn starts(&self) -> u64 {
        self.shared.state.lock().starts
    }

    fn check(&self) -> Result<()> {
        if self.shared.unavailable.load(Ordering::SeqCst) {
            return Err(RuntimeError::Unavailable(
                "the fake runtime was made unavailable".into(),
            ));
        }
        self.shared.state.lock().advance();
        Ok(())
    }

    fn script_of(&self, image: &str) -> Script {
        self.shared
            .state
            .lock()
            .scripts
            .get(image)
            .cloned()
            .unwrap_or_default()
    }
}

impl State {
    /// Lets the programs end whose time has come.
    fn advance(&mut self) {
        let now = Instant::now();
        while let Some(entry) = self.exits.first_entry() {
            if entry.key().0 > now {
                return;
            }
            let ((_, id), code) = entry.remove_entry();
            self.exit(&id, code);
        }
    }

    fn exit(&mut self, id: &ContainerId, exit_code: i32) {
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        if container.status.state != ContainerState::Running {
            return;
        }
        container.status.state = ContainerState::Exited;
        container.status.finished_at = Some(Timestamp::now());
        container.status.exit_code = exit_code;
        container.status.reason = if exit_code == 0 {
            "Completed".into()
        } else {
            "Error".into()
        };
        let pod_uid = container.pod_uid.clone();
        self.events.send(id, &pod_uid, ContainerEventType::Stopped);
    }

    fn new_id(&mut self, kind: &str) -> String {
        self.counter += 1;
        format!("{kind}-{:016x}", self.counter)
    }

    fn running_in(&self, sandbox: &SandboxId) -> Vec<ContainerId> {
        let in_sandbox = |c: &&FakeContainer| c.status.pod_sandbox_id == *sandbox;
        self.containers
            .values()
            .filter(in_sandbox)
            .map(|c| c.status.id.clone())
            .collect()
    }

    fn stop_sandbox(&mut self, id: &SandboxId) {
        for container in self.running_in(id) {
            self.exit(&container, 137);
        }
        let Some(sandbox) = self.sandboxes.get_mut(id) else {
            return;
        };
        sandbox.state = PodSandboxState::NotReady;
        if let (Some(pool), Some(ip)) = (self.pool.as_mut(), sandbox.ip) {
            pool.release(ip);
        }
    }

    fn remove_container(&mut self, id: &ContainerId) {
        self.exit(id, 137);
        if let Some(container) = self.containers.remove(id) {
            self.events
                .send(id, &container.pod_uid, ContainerEventType::Deleted);
        }
    }
}

impl FakeSandbox {
    fn listed(&self, id: &SandboxId) -> PodSandbox {
        PodSandbox {
            id: id.clone(),
            metadata: self.config.metadata.clone(),
            state: self.state,
            created_at: self.created_at,
            labels: self.config.labels.clone(),
            annotations: self.config.annotations.clone(),
        }
    }
}

#[async_trait]
impl Runtime for FakeRuntime {
    async fn version(&self) -> Result<Version> {
        self.check()?;
        Ok(Version {
            runtime_name: "fake".into(),
            runtime_version: env!("CARGO_PKG_VERSION").into(),
        })
    }

    async fn status(&self) -> Result<RuntimeStatus> {
        self.check()?;
        let network_ready = match self.shared.state.lock().pool {
            Some(_) => RuntimeCondition::ready(),
            None => RuntimeCondition::not_ready("NetworkPluginNotReady", "the node has no pod CIDR yet"),
        };
        Ok(RuntimeStatus {
            runtime_ready: RuntimeCondition::ready(),
            network_ready,
        })
    }

    async fn update_runtime_config(&self, config: &RuntimeConfig) -> Result<()> {
        self.check()?;
        let mut pool = AddressPool::new(&config.pod_cidr)
            .ok_or_else(|| RuntimeError::Config(format!("invalid pod CIDR {:?}", config.pod_cidr)))?;
        let mut state = self.shared.state.lock();
        for ip in state
            .sandboxes
            .values()
            .filter(|s| s.state == PodSandboxState::Ready)
            .filter_map(|s| s.ip)
        {
            pool.take(ip);
        }
        state.pool = Some(pool);
        Ok(())
    }

    async fn run_pod_sandbox(&self, config: &PodSandboxConfig) -> Result<SandboxId> {
        self.check()?;
        let mut state = self.shared.state.lock();
        let ip = if config.has_own_network() {
            let pool = state
                .pool
                .as_mut()
                .ok_or_else(|| RuntimeError::Network("the node has no pod CIDR yet".into()))?;
            Some(
                pool.allocate()
                    .ok_or_else(|| RuntimeError::Network("no free address in the pod CIDR".into()))?,
            )
        } else {
            None
        };
        let id = SandboxId::from(state.new_id("sandbox"));
        let sandbox = FakeSandbox {
            config: Box::new(config.clone()),
            state: PodSandboxState::Ready,
            ip,
            created_at: Timestamp::now(),
        };
        state.sandboxes.insert(id.clone(), sandbox);
        Ok(id)
    }

    async fn stop_pod_sandbox(&self, id: &SandboxId) -> Result<()> {
        self.check()?;
        self.shared.state.lock().stop_sandbox(id);
        Ok(())
    }

    async fn remove_pod_sandbox(&self, id: &SandboxId) -> Result<()> {
        self.check()?;
        let mut state = self.shared.state.lock();
        state.stop_sandbox(id);
        for container in state.running_in(id) {
            state.remove_container(&container);
        }
        state.sandboxes.remove(id);
        Ok(())
    }

    async fn pod_sandbox_status(&self, id: &SandboxId) -> Observation<PodSandboxStatus> {
        if let Err(error) = self.check() {
            return Observation::Unknown(error);
        }
        match self.shared.state.lock().sandboxes.get(id) {
            Some(sandbox) => Observation::Seen(PodSandboxStatus {
                sandbox: sandbox.listed(id),
                ips: sandbox.ip.into_iter().collect(),
            }),
            None => Observation::Absent,
        }
    }

    async fn list_pod_sandbox(&self, pod_uid: Option<&str>) -> Result<Vec<PodSandbox>> {
        self.check()?;
        let state = self.shared.state.lock();
        let matches = |sandbox: &FakeSandbox| pod_uid.is_none_or(|uid| sandbox.config.metadata.uid == uid);
        Ok(state
            .sandboxes
            .iter()
            .filter(|(_, s)| matches(s))
            .map(|(id, s)| s.listed(id))
            .collect())
    }

    async fn create_container(&self, sandbox: &SandboxId, config: &ContainerConfig) -> Result<ContainerId> {
        self.check()?;
        let mut state = self.shared.state.lock();
        let found = state
            .sandboxes
            .get(sandbox)
            .ok_or_else(|| RuntimeError::no_sandbox(sandbox))?;
        if found.state != PodSandboxState::Ready {
            return Err(RuntimeError::State(format!("sandbox {sandbox} is not ready")));
        }
        let image = state.images.get(&config.image);
        let image_ref = image
            .map(|image| image.id.clone())
            .ok_or_else(|| RuntimeError::NotFound {
                kind: "image",
                id: config.image.clone(),
            })?;
        let pod_uid = found.config.metadata.uid.clone();
        let log_dir = &found.config.log_directory;
        let log_path = (!log_dir.as_os_str().is_empty()).then(|| log_dir.join(&config.log_path));
        let script = state.scripts.get(&config.image).cloned().unwrap_or_default();
        let id = ContainerId::from(state.new_id("container"));
        let status = ContainerStatus {
            id: id.clone(),
            pod_sandbox_id: sandbox.clone(),
            metadata: config.metadata.clone(),
            state: ContainerState::Created,
            created_at: Timestamp::now(),
            started_at: None,
            finished_at: None,
            exit_code: 0,
            image: config.image.clone(),
            image_ref,
            reason: String::new(),
            message: String::new(),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            log_path,
        };
        let container = FakeContainer {
            status,
            pod_uid: pod_uid.clone(),
            stop_exit_code: script.stop_exit_code,
            exec_exit_code: script.exec_exit_code,
        };
        state.containers.insert(id.clone(), container);
        state.events.send(&id, &pod_uid, ContainerEventType::Created);
        Ok(id)
    }

    async fn start_container(&self, id: &ContainerId) -> Result<()> {
        self.check()?;
        let image = {
            let state = self.shared.state.lock();
            let container = state
                .containers
                .get(id)
                .ok_or_else(|| RuntimeError::no_container(id))?;
            if container.status.state != ContainerState::Created {
                return Err(RuntimeError::State(format!("container {id} was started before")));
            }
            container.status.image.clone()
        };
        let script = self.script_of(&image);
        if !script.start_delay.is_zero() {
            tokio::time::sleep(script.start_delay).await;
        }
        let mut state = self.shared.state.lock();
        let container = state
            .containers
            .get_mut(id)
            .ok_or_else(|| RuntimeError::no_container(id))?;
        let now = Timestamp::now();
        container.status.started_at = Some(now);
        if let Some(message) = script.start_error {
            container.status.state = ContainerState::Exited;
            container.status.finished_at = Some(now);
            container.status.exit_code = 128;
            container.status.reason = "StartError".into();
            container.status.message.clone_from(&message);
            return Err(RuntimeError::Start(message));
        }
        container.status.state = ContainerState::Running;
        let pod_uid = container.pod_uid.clone();
        let log_path = container
            .status
            .log_path
            .clone()
            .filter(|_| !script.log.is_empty());
        state.starts += 1;
        if let Some(after) = script.exit_after {
            state
                .exits
                .insert((Instant::now() + after, id.clone()), script.exit_code);
            self.shared.due_changed.notify_waiters();
        }
        state.events.send(id, &pod_uid, ContainerEventType::Started);
        drop(state);
        match log_path {
            Some(path) => {
                log_file::append_lines(&path, &script.log).map_err(RuntimeError::io("write the log"))
            }
            None => Ok(()),
        }
    }

    async fn stop_container(&self, id: &ContainerId, timeout: Duration) -> Result<()> {
        self.check()?;
        let stop_exit_code = match self.shared.state.lock().containers.get(id) {
            Some(container) if container.status.state == ContainerState::Running => container.stop_exit_code,
            _ => return Ok(()),
        };
        if stop_exit_code.is_none() {
            tokio::time::sleep(timeout).await;
        }
        self.shared.state.lock().exit(id, stop_exit_code.unwrap_or(137));
        Ok(())
    }

    async fn remove_container(&self, id: &ContainerId) -> Result<()> {
        self.check()?;
        self.shared.state.lock().remove_container(id);
        Ok(())
    }

    async fn container_status(&self, id: &ContainerId) -> Observation<ContainerStatus> {
        if let Err(error) = self.check() {
            return Observation::Unknown(error);
        }
        match self.shared.state.lock().containers.get(id) {
            Some(container) => Observation::Seen(container.status.clone()),
            None => Observation::Absent,
        }
    }

    async fn list_containers(&self, filter: &ContainerFilter) -> Result<Vec<Container>> {
        self.check()?;
        let state = self.shared.state.lock();
        let matches = |c: &&FakeContainer| {
            filter.pod_uid.as_ref().is_none_or(|uid| c.pod_uid == *uid)
                && filter
                    .pod_sandbox_id
                    .as_ref()
                    .is_none_or(|id| c.status.pod_sandbox_id == *id)
        };
        let listed = |c: &FakeContainer| Container {
            id: c.status.id.clone(),
            pod_sandbox_id: c.status.pod_sandbox_id.clone(),
            metadata: c.status.metadata.clone(),
            state: c.status.state,
            created_at: c.status.created_at,
            labels: c.status.labels.clone(),
        };
        Ok(state.containers.values().filter(matches).map(listed).collect())
    }

    async fn exec_sync(
        &self,
        id: &ContainerId,
        command: &[String],
        _timeout: Duration,
    ) -> Result<ExecSyncResponse> {
        self.check()?;
        let state = self.shared.state.lock();
        let container = state
            .containers
            .get(id)
            .ok_or_else(|| RuntimeError::no_container(id))?;
        if container.status.state != ContainerState::Running {
            return Err(RuntimeError::State(format!("container {id} is not running")));
        }
        let stdout = command.join(" ").into_bytes();
        Ok(ExecSyncResponse {
            stdout,
            stderr: Vec::new(),
            exit_code: container.exec_exit_code,
        })
    }

    async fn image_status(&self, image: &str) -> Result<Option<Image>> {
        self.check()?;
        Ok(self.shared.state.lock().images.get(image).cloned())
    }

    async fn pull_image(&self, image: &str) -> Result<String> {
        self.check()?;
        let script = self.script_of(image);
        if !script.pull_delay.is_zero() {
            tokio::time::sleep(script.pull_delay).await;
        }
        if let Some(message) = script.pull_error {
            return Err(RuntimeError::ImagePull {
                image: image.into(),
                message,
            });
        }
        let id = format!("fake://{image}");
        let pulled = Image {
            id: id.clone(),
            repo_tags: vec![image.into()],
            size: 0,
        };
        self.shared.state.lock().images.insert(image.into(), pulled);
        Ok(id)
    }

    async fn list_images(&self) -> Result<Vec<Image>> {
        self.check()?;
        Ok(self.shared.state.lock().images.values().cloned().collect())
    }

    async fn remove_image(&self, image: &str) -> Result<()> {
        self.check()?;
        self.shared.state.lock().images.remove(image);
        Ok(())
    }

    fn events(&self) -> BoxStream<'static, ContainerEvent> {
        let receiver = self.shared.state.lock().events.subscribe();
        stream::unfold((Arc::clone(&self.shared), receiver), next_event).boxed()
    }
}

/// Waits for the next event; on the way it lets programs end when their time has come.
async fn next_event(
    (shared, mut receiver): (Arc<Shared>, mpsc::UnboundedReceiver<ContainerEvent>),
) -> Option<(
    ContainerEvent,
    (Arc<Shared>, mpsc::UnboundedReceiver<ContainerEvent>),
)> {
    loop {
        let changed = shared.due_changed.notified();
        let due = {
            let mut state = shared.state.lock();
            state.advance();
            state.exits.first_key_value().map(|((at, _), _)| *at)
        };
        tokio::select! {
            event = receiver.recv() => {
                return Some((event?, (Arc::clone(&shared), receiver)));
            }
            () = sleep_until(due) => {}
            () = changed => {}
        }
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
