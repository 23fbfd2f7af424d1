//! The seam between the node agent and whatever runs containers.
//!
//! [`Runtime`] is shaped like the Container Runtime Interface (CRI v1): sandboxes, containers, images. Its
//! method names are CRI's in snake case, so that an implementation over gRPC is a translation of types.

mod config;
mod error;
mod id;
mod status;

use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;

pub(crate) use config::parse_cidr;
pub use config::{
    Capabilities, ContainerConfig, ContainerMetadata, DnsConfig, LinuxContainerResources, Mount,
    NamespaceMode, PodSandboxConfig, PodSandboxMetadata, RuntimeConfig, SecurityContext, labels,
};
pub use error::{Result, RuntimeError};
pub use id::{ContainerId, SandboxId};
pub use status::{
    Container, ContainerEvent, ContainerEventType, ContainerFilter, ContainerState, ContainerStatus,
    ExecSyncResponse, Image, Observation, PodSandbox, PodSandboxState, PodSandboxStatus, RuntimeCondition,
    RuntimeStatus, Version,
};

/// What runs pods on a node.
///
/// # Contract
///
/// * **Who calls**: one node agent. It may call any methods concurrently, also for one pod; it never starts a container
///   before [`Runtime::create_container`] answered with its id.
/// * **A runtime can list**: everything that was created and not yet removed is in the lists, also after the process that
///   created it was killed and a new one opened the runtime again. Containers keep running while no agent lives.
/// * **Idempotent**: stopping what is stopped and removing what is gone succeed.
/// * **Order**: stopping a sandbox first kills the containers in it, removing a sandbox first removes them.
/// * **Observations have three values**: a status is [`Observation::Seen`], [`Observation::Absent`] (looked, and it is not
///   there) or [`Observation::Unknown`] (could not look). The agent starts or deletes nothing on the third.
/// * **Cancellation**: a future that is dropped may leave its effect half done, but what is half done is in the lists
///   or cleaned up by the implementation.
#[async_trait]
pub trait Runtime: std::fmt::Debug + Send + Sync + 'static {
    /// The runtime's name and version, as shown in `nodeInfo.containerRuntimeVersion`.
    async fn version(&self) -> Result<Version>;

    /// Whether the runtime and its pod network are ready.
    ///
    /// # Errors
    /// When the runtime could not be asked.
    async fn status(&self) -> Result<RuntimeStatus>;

    /// Tells the runtime the node's pod CIDR, once the node has one. Repeating it is harmless.
    async fn update_runtime_config(&self, config: &RuntimeConfig) -> Result<()>;

    /// Creates the pod's sandbox (its namespaces and its network) and starts it.
    async fn run_pod_sandbox(&self, config: &PodSandboxConfig) -> Result<SandboxId>;

    /// Kills what runs in the sandbox at once and gives back its network. The record stays until it is removed.
    async fn stop_pod_sandbox(&self, id: &SandboxId) -> Result<()>;

    /// Removes the sandbox with all its containers.
    async fn remove_pod_sandbox(&self, id: &SandboxId) -> Result<()>;

    /// What can be seen of one sandbox.
    async fn pod_sandbox_status(&self, id: &SandboxId) -> Observation<PodSandboxStatus>;

    /// Every sandbox that was not removed, or those of one pod UID.
    async fn list_pod_sandbox(&self, pod_uid: Option<&str>) -> Result<Vec<PodSandbox>>;

    /// Creates a container in a sandbox, without starting it.
    async fn create_container(&self, sandbox: &SandboxId, config: &ContainerConfig) -> Result<ContainerId>;

    /// Starts a created container. When the program cannot be executed the error is [`RuntimeError::Start`] and the
    /// container is exited with code 128 and reason `StartError`.
    async fn start_container(&self, id: &ContainerId) -> Result<()>;

    /// Stops a container: its stop signal, then SIGKILL when `timeout` has passed. Returns when it has exited.
    async fn stop_container(&self, id: &ContainerId, timeout: Duration) -> Result<()>;

    /// Removes a container and its log file; a running one is killed first.
    async fn remove_container(&self, id: &ContainerId) -> Result<()>;

    /// What can be seen of one container.
    async fn container_status(&self, id: &ContainerId) -> Observation<ContainerStatus>;

    /// Every container that was not removed, or those that match.
    async fn list_containers(&self, filter: &ContainerFilter) -> Result<Vec<Container>>;

    /// Runs a command inside a running container, and waits for its end for at most `timeout` (zero: without limit).
    async fn exec_sync(
        &self,
        id: &ContainerId,
        command: &[String],
        timeout: Duration,
    ) -> Result<ExecSyncResponse>;

    /// The image when it is present on the node.
    async fn image_status(&self, image: &str) -> Result<Option<Image>>;

    /// Makes the image present and returns its reference.
    async fn pull_image(&self, image: &str) -> Result<String>;

    /// The images present on the node.
    async fn list_images(&self) -> Result<Vec<Image>>;

    /// Removes an image; an absent one is no error.
    async fn remove_image(&self, image: &str) -> Result<()>;

    /// Changes of containers from now on. A consumer that lags may lose events, so it lists again from time to time.
    fn events(&self) -> BoxStream<'static, ContainerEvent>;
}
