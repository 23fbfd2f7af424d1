//! What the agent asks a runtime to run.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Label and annotation keys that the agent puts on sandboxes and containers; upstream's names.
pub mod labels {
    /// The pod's name.
    pub const POD_NAME: &str = "io.kubernetes.pod.name";
    /// The pod's namespace.
    pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
    /// The pod's UID.
    pub const POD_UID: &str = "io.kubernetes.pod.uid";
    /// The container's name in the pod.
    pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
    /// Annotation: hash of the container's specification at the time it was created.
    pub const CONTAINER_HASH: &str = "io.kubernetes.container.hash";
    /// Annotation: the file on the host that the container's termination message is read from.
    pub const TERMINATION_MESSAGE_FILE: &str = "io.kubernetes.container.terminationMessageFile";
    /// Annotation: the pod's grace period in seconds, for pods whose object is gone.
    pub const GRACE_PERIOD: &str = "io.kubernetes.pod.terminationGracePeriod";
}

/// Settings of the node that the runtime needs to know.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeConfig {
    /// The node's pod CIDR, such as `10.244.3.0/24`.
    pub pod_cidr: String,
}

/// Which pod a sandbox belongs to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodSandboxMetadata {
    /// The pod's name.
    pub name: String,
    /// The pod's UID.
    pub uid: String,
    /// The pod's namespace.
    pub namespace: String,
    /// Counts the sandboxes of one pod, from 0.
    pub attempt: u32,
}

/// Whose namespace is used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NamespaceMode {
    /// One for the pod.
    #[default]
    Pod,
    /// One for each container.
    Container,
    /// The node's own.
    Node,
}

/// What goes into the containers' `/etc/resolv.conf`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsConfig {
    /// `nameserver` lines.
    pub servers: Vec<String>,
    /// The `search` line.
    pub searches: Vec<String>,
    /// The `options` line.
    pub options: Vec<String>,
}

/// A pod's sandbox: what its containers share.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodSandboxConfig {
    /// Which pod this is.
    pub metadata: PodSandboxMetadata,
    /// The host name inside the pod.
    pub hostname: String,
    /// The directory that the containers' log paths are relative to.
    pub log_directory: PathBuf,
    /// DNS settings; absent: the host's own.
    pub dns_config: Option<DnsConfig>,
    /// Labels, kept and given back.
    pub labels: BTreeMap<String, String>,
    /// Annotations, kept and given back.
    pub annotations: BTreeMap<String, String>,
    /// The network namespace: [`NamespaceMode::Pod`] or [`NamespaceMode::Node`].
    pub network: NamespaceMode,
    /// The IPC namespace: [`NamespaceMode::Pod`] or [`NamespaceMode::Node`].
    pub ipc: NamespaceMode,
    /// The process id namespace.
    pub pid: NamespaceMode,
    /// Kernel settings of the pod's namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// Cgroup of the pod below the runtime's own, such as `besteffort/pod1234`; empty: the sandbox id.
    pub cgroup_parent: String,
}

/// A container's name within its pod and the count of its restarts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerMetadata {
    /// The container's name.
    pub name: String,
    /// Counts the containers of that name in the pod, from 0.
    pub attempt: u32,
}

/// A file or directory of the host shown inside a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Path inside the container.
    pub container_path: PathBuf,
    /// Path on the host.
    pub host_path: PathBuf,
    /// Not writable for the container.
    pub readonly: bool,
}

/// Changes to the runtime's default set of capabilities, names without `CAP_`; `ALL` means each.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Added.
    pub add: Vec<String>,
    /// Taken away.
    pub drop: Vec<String>,
}

/// Who the container's process is and what it may do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityContext {
    /// User id; absent: the image's.
    pub run_as_user: Option<i64>,
    /// Group id; absent: the user's, or 0.
    pub run_as_group: Option<i64>,
    /// Refuse to run as user 0.
    pub run_as_non_root: bool,
    /// Further groups.
    pub supplemental_groups: Vec<i64>,
    /// All capabilities and devices.
    pub privileged: bool,
    /// Changes to the default capabilities.
    pub capabilities: Capabilities,
    /// The root file system is not writable.
    pub readonly_rootfs: bool,
    /// The process and its children can gain no privileges by `execve`.
    pub no_new_privs: bool,
    /// `RuntimeDefault`, `Localhost/NAME` or absent for unconfined.
    pub seccomp_profile: Option<String>,
}

/// Limits of a container; absent: none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinuxContainerResources {
    /// Relative weight, 2 to 262144.
    pub cpu_shares: Option<u64>,
    /// Length of a CPU period in µs.
    pub cpu_period: Option<u64>,
    /// CPU time in a period in µs.
    pub cpu_quota: Option<i64>,
    /// Bytes of memory.
    pub memory_limit: Option<u64>,
    /// Number of processes and threads.
    pub pids_limit: Option<u64>,
    /// What the kernel adds to the process's badness, -1000 to 1000.
    pub oom_score_adj: Option<i32>,
}

/// A container to create.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerConfig {
    /// Its name and attempt.
    pub metadata: ContainerMetadata,
    /// The image, as [`Runtime::pull_image`](super::Runtime::pull_image) knows it.
    pub image: String,
    /// Instead of the image's entry point.
    pub command: Vec<String>,
    /// Instead of the image's command.
    pub args: Vec<String>,
    /// Where the program starts; empty: the image's, or `/`.
    pub working_dir: String,
    /// The environment, in order; the image's own variables come before these.
    pub envs: Vec<(String, String)>,
    /// Host paths shown in the container.
    pub mounts: Vec<Mount>,
    /// Labels, kept and given back.
    pub labels: BTreeMap<String, String>,
    /// Annotations, kept and given back.
    pub annotations: BTreeMap<String, String>,
    /// The log file, relative to the sandbox's log directory.
    pub log_path: PathBuf,
    /// Keep the standard input open (nothing can attach to it yet in the embedded runtime).
    pub stdin: bool,
    /// Give the program a terminal.
    pub tty: bool,
    /// Limits.
    pub resources: LinuxContainerResources,
    /// User and rights.
    pub security_context: SecurityContext,
    /// The signal that asks the program to end; absent: SIGTERM.
    pub stop_signal: Option<String>,
}

impl PodSandboxConfig {
    /// Whether the pod has an address of its own.
    #[must_use]
    pub fn has_own_network(&self) -> bool {
        self.network == NamespaceMode::Pod
    }
}

/// Parses `a.b.c.d/n` into address and prefix length.
pub(crate) fn parse_cidr(cidr: &str) -> Option<(IpAddr, u8)> {
    let (address, prefix) = cidr.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let prefix: u8 = prefix.parse().ok()?;
    let max = if address.is_ipv4() { 32 } else { 128 };
    (prefix <= max).then_some((address, prefix))
}
