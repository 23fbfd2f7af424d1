//! Containers with no daemon: namespaces, mounts, control groups and a bridge, by the kernel's own means.
//!
//! A pod sandbox is a set of pinned namespaces (network, IPC, UTS), with no process. A container is a program in mount and
//! process id namespaces of its own, watched by a small shim process that writes its log and records its end. So
//! containers outlive the agent: [`EmbeddedRuntime`] finds all of them again in its state directory.
//!
//! The only image so far is `orch.local/host`: the host's own root file system with a writable layer in memory, which
//! ends with the container. It shows the host's files to the pods, so the integrator has to allow it.
//!
//! ```no_run
//! # async fn example() -> Result<(), orch_node::runtime::RuntimeError> {
//! orch_node::embedded::init(); // first in `main`
//!
//! let runtime = orch_node::embedded::EmbeddedRuntime::builder("/var/lib/orch/runtime")
//!     .allow_host_image(true)
//!     .hide_path("/var/lib/orch")
//!     .build()
//!     .await?;
//! # Ok(())
//! # }
//! ```
//!
//! # What it needs
//!
//! Root (`CAP_SYS_ADMIN`, `CAP_NET_ADMIN`), Linux 5.8 or newer with overlayfs. Control groups are used where they are;
//! [`EmbeddedRuntime::missing_limits`] tells which limits this host cannot set.
//!
//! # What it does not do yet
//!
//! Images from registries, shared process namespaces, `hostPID`, terminals and seccomp profiles: each is refused with
//! an error that says so. Addresses of pods that talk to hosts outside are translated only where
//! [`masquerade`](EmbeddedRuntimeBuilder::masquerade) asks for it. File systems mounted below the host's root (a separate `/usr` or `/home`) are not part of the image.

mod cgroup;
mod container;
mod exec;
mod init;
mod launch;
mod masquerade;
mod namespaces;
mod network;
mod record;
mod sandbox;
mod shim;
mod sys;

use std::collections::HashMap;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt};
use parking_lot::Mutex;
use tokio::task::JoinSet;

use self::cgroup::Cgroups;
use self::container::ContainerEntry;
use self::masquerade::Masquerade;
use self::network::PodNetwork;
use self::record::SandboxRecord;
use crate::address_pool::AddressPool;
use crate::event_bus::EventBus;
use crate::runtime::{
    Container, ContainerConfig, ContainerEvent, ContainerFilter, ContainerId, ContainerStatus,
    ExecSyncResponse, Image, Mount, Observation, PodSandbox, PodSandboxConfig, PodSandboxState,
    PodSandboxStatus, Result, Runtime, RuntimeCondition, RuntimeConfig, RuntimeError, RuntimeStatus,
    SandboxId, Version,
};

pub use self::init::init;

/// The image that is the host's own root file system, copy on write.
pub const HOST_IMAGE: &str = "orch.local/host";

/// Where containers find the programs that the integrator added to [`HOST_IMAGE`].
const PROGRAMS: &str = "/orch/bin";

/// Containers with no daemon. See the [module's page](self).
#[derive(Debug)]
pub struct EmbeddedRuntime {
    inner: Arc<Inner>,
    /// Watches over the containers; ends with this value, which ends no container.
    tasks: Mutex<JoinSet<()>>,
    _lock: File,
}

/// Settings of an [`EmbeddedRuntime`].
#[derive(Debug, Clone)]
#[must_use]
pub struct EmbeddedRuntimeBuilder {
    state_dir: PathBuf,
    allow_host_image: bool,
    hidden: Vec<PathBuf>,
    programs: Vec<Mount>,
    helper: PathBuf,
    masquerade: bool,
}

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    allow_host_image: bool,
    hidden: Vec<PathBuf>,
    programs: Vec<Mount>,
    helper: PathBuf,
    boot_id: String,
    cgroups: Cgroups,
    /// Parent of all control groups of this runtime.
    cgroup_base: PathBuf,
    network: PodNetwork,
    events: EventBus,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    sandboxes: HashMap<SandboxId, SandboxRecord>,
    containers: HashMap<ContainerId, ContainerEntry>,
    pool: Option<AddressPool>,
}

impl EmbeddedRuntimeBuilder {
    /// Whether pods may use [`HOST_IMAGE`]. Off by default: such a pod's root reads every file of the host's root file
    /// system that is not hidden.
    pub fn allow_host_image(mut self, allow: bool) -> Self {
        self.allow_host_image = allow;
        self
    }

    /// Hides a file or directory of the host from containers. The runtime's own state directory always is.
    pub fn hide_path(mut self, path: impl Into<PathBuf>) -> Self {
        self.hidden.push(path.into());
        self
    }

    /// Adds a program to [`HOST_IMAGE`]: containers find the host's file `path`, read-only, as `/orch/bin/NAME`.
    pub fn program(mut self, name: &str, path: impl Into<PathBuf>) -> Self {
        self.programs.push(Mount {
            container_path: Path::new(PROGRAMS).join(name),
            host_path: path.into(),
            readonly: true,
        });
        self
    }

    /// The program that serves as the helper process: one that calls [`init`] first in `main`. Default:
    /// `/proc/self/exe`, the present program.
    pub fn helper_program(mut self, path: impl Into<PathBuf>) -> Self {
        self.helper = path.into();
        self
    }

    /// Whether pods show the node's address to hosts outside, which know no way to pods: one nftables table of the
    /// runtime's own translates what leaves the pod CIDR by another link than the bridge, and goes with the bridge. Pods of
    /// other nodes are outside, too. Needs the program `nft`. Off by default: the host's firewall may do it.
    pub fn masquerade(mut self, masquerade: bool) -> Self {
        self.masquerade = masquerade;
        self
    }

    /// Opens the state directory and adopts what is in it.
    ///
    /// # Errors
    /// Without the rights that containers need, when another process has the directory open, when it cannot be read, or
    /// when [`masquerade`](Self::masquerade) is asked for and nftables cannot be used.
    pub async fn build(self) -> Result<EmbeddedRuntime> {
        require_rights(&std::fs::read_to_string("/proc/self/status").unwrap_or_default())?;
        for dir in ["sandboxes", "containers", "trash"] {
            let dir = self.state_dir.join(dir);
            std::fs::create_dir_all(&dir).map_err(RuntimeError::io(format!("create {}", dir.display())))?;
        }
        let dir = self
            .state_dir
            .canonicalize()
            .map_err(RuntimeError::io("find the state directory"))?;
        let lock = lock_state_dir(&dir)?;
        let name = format!("orch{}", network::short_hash(dir.as_os_str().as_encoded_bytes()));
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(RuntimeError::io("open a netlink socket"))?;
        let mut tasks = JoinSet::new();
        tasks.spawn(connection);
        let masquerade = Masquerade::new(self.masquerade, name.clone(), dir.join("masquerade"));
        masquerade.prepare().await?;
        let mut hidden = self.hidden;
        hidden.push(dir.clone());
        let inner = Arc::new(Inner {
            dir,
            allow_host_image: self.allow_host_image,
            hidden,
            programs: self.programs,
            helper: self.helper,
            boot_id: std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
                .unwrap_or_default()
                .trim()
                .to_owned(),
            cgroups: Cgroups::detect(),
            cgroup_base: PathBuf::from(&name),
            network: PodNetwork::new(handle, name, masquerade),
            events: EventBus::default(),
            state: Mutex::default(),
        });
        inner.clear_trash()?;
        inner.adopt_containers(&mut tasks).await?;
        inner.adopt_sandboxes().await?;
        Ok(EmbeddedRuntime {
            inner,
            tasks: Mutex::new(tasks),
            _lock: lock,
        })
    }
}

/// Checks the effective capabilities, as `/proc/self/status` shows them.
fn require_rights(status: &str) -> Result<()> {
    const NEEDED: [(u32, &str); 2] = [(21, "CAP_SYS_ADMIN"), (12, "CAP_NET_ADMIN")];
    let bits = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = bits
        .and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok())
        .unwrap_or(0);
    match NEEDED.iter().find(|(bit, _)| bits & (1 << bit) == 0) {
        None => Ok(()),
        Some((_, missing)) => Err(RuntimeError::Unavailable(format!(
            "the embedded runtime cannot start containers without {missing}: it makes namespaces, mounts and network \
             interfaces; run this program as root"
        ))),
    }
}

fn lock_state_dir(dir: &Path) -> Result<File> {
    let path = dir.join(record::LOCK);
    let file = File::create(&path).map_err(RuntimeError::io(format!("create {}", path.display())))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let message = format!("another process has the state directory {} open", dir.display());
            Err(RuntimeError::Unavailable(message))
        }
        Err(TryLockError::Error(error)) => Err(RuntimeError::io(format!("lock {}", path.display()))(error)),
    }
}

impl EmbeddedRuntime {
    /// Settings for a runtime that keeps its state in a directory, which is created when it is missing.
    pub fn builder(state_dir: impl Into<PathBuf>) -> EmbeddedRuntimeBuilder {
        EmbeddedRuntimeBuilder {
            state_dir: state_dir.into(),
            allow_host_image: false,
            hidden: Vec::new(),
            programs: Vec::new(),
            helper: PathBuf::from("/proc/self/exe"),
            masquerade: false,
        }
    }

    /// The kinds of limits (`cpu`, `memory`, `pids`) that this host has no control group for. Containers that ask for
    /// them run without.
    #[must_use]
    pub fn missing_limits(&self) -> Vec<&'static str> {
        self.inner.cgroups.missing()
    }
}

impl Inner {
    /// Ends a half-done removal.
    fn clear_trash(&self) -> Result<()> {
        let trash = self.dir.join("trash");
        std::fs::remove_dir_all(&trash)
            .and_then(|()| std::fs::create_dir(&trash))
            .map_err(RuntimeError::io("empty the trash directory"))
    }

    /// Removes a directory so that it is there whole or not at all.
    fn discard(&self, kind: &str, id: &str) -> Result<()> {
        let trash = self.dir.join("trash").join(format!("{kind}-{id}"));
        match std::fs::rename(self.dir.join(kind).join(id), &trash) {
            Ok(()) => std::fs::remove_dir_all(&trash)
                .map_err(RuntimeError::io(format!("remove {}", trash.display()))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(RuntimeError::io(format!("remove {kind}/{id}"))(error)),
        }
    }

    fn image(&self) -> Image {
        Image {
            id: HOST_IMAGE.into(),
            repo_tags: vec![format!("{HOST_IMAGE}:latest")],
            size: 0,
        }
    }

    fn is_host_image(&self, image: &str) -> bool {
        self.allow_host_image
            && image
                .strip_prefix(HOST_IMAGE)
                .is_some_and(|rest| matches!(rest, "" | ":latest"))
    }
}

/// A new identifier: 64 hexadecimal digits, as in CRI.
fn new_id() -> String {
    (0..4).map(|_| format!("{:016x}", fastrand::u64(..))).collect()
}

#[async_trait]
impl Runtime for EmbeddedRuntime {
    async fn version(&self) -> Result<Version> {
        Ok(Version {
            runtime_name: "orch".into(),
            runtime_version: env!("CARGO_PKG_VERSION").into(),
        })
    }

    async fn status(&self) -> Result<RuntimeStatus> {
        let network_ready = match self.inner.state.lock().pool {
            Some(_) => RuntimeCondition::ready(),
            None => RuntimeCondition::not_ready("NetworkPluginNotReady", "the node has no pod CIDR yet"),
        };
        Ok(RuntimeStatus {
            runtime_ready: RuntimeCondition::ready(),
            network_ready,
        })
    }

    async fn update_runtime_config(&self, config: &RuntimeConfig) -> Result<()> {
        let mut pool = AddressPool::new(&config.pod_cidr)
            .ok_or_else(|| RuntimeError::Config(format!("invalid pod CIDR {:?}", config.pod_cidr)))?;
        self.inner.network.cidr_is(pool.gateway(), pool.prefix()).await?;
        let mut state = self.inner.state.lock();
        for ip in state.sandboxes.values().filter_map(|sandbox| sandbox.ip) {
            pool.take(ip);
        }
        state.pool = Some(pool);
        Ok(())
    }

    async fn run_pod_sandbox(&self, config: &PodSandboxConfig) -> Result<SandboxId> {
        self.inner.run_sandbox(config).await
    }

    async fn stop_pod_sandbox(&self, id: &SandboxId) -> Result<()> {
        self.inner.stop_sandbox(id).await
    }

    async fn remove_pod_sandbox(&self, id: &SandboxId) -> Result<()> {
        self.inner.remove_sandbox(id).await
    }

    async fn pod_sandbox_status(&self, id: &SandboxId) -> Observation<PodSandboxStatus> {
        match self.inner.state.lock().sandboxes.get(id) {
            Some(record) => Observation::Seen(PodSandboxStatus {
                sandbox: record.listed(id),
                ips: record
                    .ip
                    .filter(|_| record.state == PodSandboxState::Ready)
                    .into_iter()
                    .collect(),
            }),
            None => Observation::Absent,
        }
    }

    async fn list_pod_sandbox(&self, pod_uid: Option<&str>) -> Result<Vec<PodSandbox>> {
        let state = self.inner.state.lock();
        let matches = |record: &SandboxRecord| pod_uid.is_none_or(|uid| record.config.metadata.uid == uid);
        Ok(state
            .sandboxes
            .iter()
            .filter(|(_, r)| matches(r))
            .map(|(id, r)| r.listed(id))
            .collect())
    }

    async fn create_container(&self, sandbox: &SandboxId, config: &ContainerConfig) -> Result<ContainerId> {
        self.inner.create_container(sandbox, config)
    }

    async fn start_container(&self, id: &ContainerId) -> Result<()> {
        let started = self.inner.start_container(id, &mut self.tasks.lock())?;
        started
            .await
            .map_err(|_| RuntimeError::State("the runtime is being closed".into()))?
    }

    async fn stop_container(&self, id: &ContainerId, timeout: Duration) -> Result<()> {
        self.inner.stop_container(id, timeout).await
    }

    async fn remove_container(&self, id: &ContainerId) -> Result<()> {
        self.inner.remove_container(id).await
    }

    async fn container_status(&self, id: &ContainerId) -> Observation<ContainerStatus> {
        match self.inner.state.lock().containers.get(id) {
            Some(entry) => Observation::Seen(entry.status(id)),
            None => Observation::Absent,
        }
    }

    async fn list_containers(&self, filter: &ContainerFilter) -> Result<Vec<Container>> {
        let state = self.inner.state.lock();
        Ok(state
            .containers
            .iter()
            .filter(|(_, e)| e.matches(filter))
            .map(|(id, e)| e.listed(id))
            .collect())
    }

    async fn exec_sync(
        &self,
        id: &ContainerId,
        command: &[String],
        timeout: Duration,
    ) -> Result<ExecSyncResponse> {
        self.inner.exec_sync(id, command, timeout).await
    }

    async fn image_status(&self, image: &str) -> Result<Option<Image>> {
        Ok(self.inner.is_host_image(image).then(|| self.inner.image()))
    }

    async fn pull_image(&self, image: &str) -> Result<String> {
        if self.inner.is_host_image(image) {
            return Ok(HOST_IMAGE.into());
        }
        let message = if image.split([':', '@']).next() == Some(HOST_IMAGE) {
            "the host's root file system as an image is not allowed on this node".to_owned()
        } else {
            format!(
                "pulling from registries is not built into the embedded runtime yet, it only has {HOST_IMAGE}"
            )
        };
        Err(RuntimeError::ImagePull {
            image: image.into(),
            message,
        })
    }

    async fn list_images(&self) -> Result<Vec<Image>> {
        Ok(self
            .inner
            .allow_host_image
            .then(|| self.inner.image())
            .into_iter()
            .collect())
    }

    async fn remove_image(&self, image: &str) -> Result<()> {
        if self.inner.is_host_image(image) {
            return Err(RuntimeError::Unsupported(format!(
                "{HOST_IMAGE} cannot be removed"
            )));
        }
        Ok(())
    }

    fn events(&self) -> BoxStream<'static, ContainerEvent> {
        let receiver = self.inner.events.subscribe();
        stream::unfold(receiver, |mut receiver| async {
            receiver.recv().await.map(|event| (event, receiver))
        })
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_rights_are_named() {
        assert!(require_rights("Name:\tx\nCapEff:\t000001ffffffffff\n").is_ok());
        let error = require_rights("CapEff:\t0000000000000000\n")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("without CAP_SYS_ADMIN") && error.contains("as root"),
            "{error}"
        );
        let error = require_rights("CapEff:\t0000000000200000\n")
            .unwrap_err()
            .to_string();
        assert!(error.contains("CAP_NET_ADMIN"), "{error}");
    }
}
