//! What a runtime reports.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::config::{ContainerMetadata, PodSandboxMetadata};
use super::error::RuntimeError;
use super::id::{ContainerId, SandboxId};

/// What looking at something gave.
#[derive(Debug)]
pub enum Observation<T> {
    /// It is there.
    Seen(T),
    /// Looked, and it is not there.
    Absent,
    /// Could not look: nothing is known.
    Unknown(RuntimeError),
}

impl<T> Observation<T> {
    /// The value when it was seen.
    pub fn seen(self) -> Option<T> {
        match self {
            Self::Seen(value) => Some(value),
            Self::Absent | Self::Unknown(_) => None,
        }
    }

    /// `None` when absent, an error when it could not be looked at.
    ///
    /// # Errors
    /// The reason why nothing could be seen.
    pub fn known(self) -> Result<Option<T>, RuntimeError> {
        match self {
            Self::Seen(value) => Ok(Some(value)),
            Self::Absent => Ok(None),
            Self::Unknown(error) => Err(error),
        }
    }
}

/// A runtime's name and version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Name, such as `orch`.
    pub runtime_name: String,
    /// Version, such as `0.1.0`.
    pub runtime_version: String,
}

/// One condition of a runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeCondition {
    /// Whether it holds.
    pub status: bool,
    /// Why not, as one word.
    pub reason: String,
    /// Why not, for people.
    pub message: String,
}

impl RuntimeCondition {
    /// The condition holds.
    #[must_use]
    pub fn ready() -> Self {
        Self {
            status: true,
            reason: String::new(),
            message: String::new(),
        }
    }

    /// The condition does not hold.
    pub fn not_ready(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            status: false,
            reason: reason.into(),
            message: message.into(),
        }
    }
}

/// Whether a runtime can do its work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeStatus {
    /// `RuntimeReady`: can run containers.
    pub runtime_ready: RuntimeCondition,
    /// `NetworkReady`: can give pods an address.
    pub network_ready: RuntimeCondition,
}

/// State of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PodSandboxState {
    /// Its namespaces and network are there.
    Ready,
    /// Stopped, or lost with a reboot.
    NotReady,
}

/// A sandbox in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodSandbox {
    /// Its id.
    pub id: SandboxId,
    /// Whose it is.
    pub metadata: PodSandboxMetadata,
    /// Its state.
    pub state: PodSandboxState,
    /// When it was created.
    pub created_at: Timestamp,
    /// As given at creation.
    pub labels: BTreeMap<String, String>,
    /// As given at creation.
    pub annotations: BTreeMap<String, String>,
}

/// A sandbox with its network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodSandboxStatus {
    /// What the list shows.
    pub sandbox: PodSandbox,
    /// The pod's addresses, the primary one first; empty with the node's network.
    pub ips: Vec<IpAddr>,
}

/// State of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerState {
    /// Created, not started.
    Created,
    /// Its program runs.
    Running,
    /// Its program has ended.
    Exited,
    /// It is there, but what became of its program cannot be told.
    Unknown,
}

/// A container in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Its id.
    pub id: ContainerId,
    /// The sandbox that it is in.
    pub pod_sandbox_id: SandboxId,
    /// Name and attempt.
    pub metadata: ContainerMetadata,
    /// Its state.
    pub state: ContainerState,
    /// When it was created.
    pub created_at: Timestamp,
    /// As given at creation.
    pub labels: BTreeMap<String, String>,
}

/// A container in full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerStatus {
    /// Its id.
    pub id: ContainerId,
    /// The sandbox that it is in.
    pub pod_sandbox_id: SandboxId,
    /// Name and attempt.
    pub metadata: ContainerMetadata,
    /// Its state.
    pub state: ContainerState,
    /// When it was created.
    pub created_at: Timestamp,
    /// When its program was started.
    pub started_at: Option<Timestamp>,
    /// When its program ended.
    pub finished_at: Option<Timestamp>,
    /// Its program's exit code; 128 + n when ended by signal n. Meaningful in [`ContainerState::Exited`].
    pub exit_code: i32,
    /// The image as asked for.
    pub image: String,
    /// The image's reference on this node.
    pub image_ref: String,
    /// One word on why it exited: `Completed`, `Error`, `OOMKilled`, `StartError`; may be empty.
    pub reason: String,
    /// More on why it exited.
    pub message: String,
    /// As given at creation.
    pub labels: BTreeMap<String, String>,
    /// As given at creation.
    pub annotations: BTreeMap<String, String>,
    /// Its log in CRI format; absent when the runtime keeps none.
    pub log_path: Option<PathBuf>,
}

/// Which containers to list; the default is all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerFilter {
    /// Only those of this pod.
    pub pod_uid: Option<String>,
    /// Only those in this sandbox.
    pub pod_sandbox_id: Option<SandboxId>,
}

impl ContainerFilter {
    /// All containers of a pod.
    pub fn pod(uid: impl Into<String>) -> Self {
        Self {
            pod_uid: Some(uid.into()),
            pod_sandbox_id: None,
        }
    }
}

/// What a command in a container answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecSyncResponse {
    /// Its standard output, cut off at 16 MiB.
    pub stdout: Vec<u8>,
    /// Its standard error, cut off at 16 MiB.
    pub stderr: Vec<u8>,
    /// Its exit code.
    pub exit_code: i32,
}

/// An image on the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its reference, unique on the node.
    pub id: String,
    /// The names it goes by.
    pub repo_tags: Vec<String>,
    /// Bytes on disk.
    pub size: u64,
}

/// What happened to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerEventType {
    /// It was created.
    Created,
    /// Its program was started.
    Started,
    /// Its program has ended.
    Stopped,
    /// It was removed.
    Deleted,
}

/// A container's change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerEvent {
    /// The container.
    pub container_id: ContainerId,
    /// The UID of its pod.
    pub pod_uid: String,
    /// What happened.
    pub event_type: ContainerEventType,
}
