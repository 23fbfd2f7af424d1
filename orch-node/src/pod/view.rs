//! What is known of one pod on this node: what the runtime shows, and what the agent remembers.

use std::collections::{BTreeSet, HashMap};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

use super::backoff::Backoffs;
use crate::runtime::{ContainerId, ContainerState, ContainerStatus, PodSandboxState, PodSandboxStatus};

/// What the runtime shows of a pod.
#[derive(Debug, Clone, Default)]
pub(crate) struct Observed {
    pub(crate) sandboxes: Vec<PodSandboxStatus>,
    pub(crate) containers: Vec<ContainerStatus>,
}

impl Observed {
    /// The newest sandbox.
    pub(crate) fn sandbox(&self) -> Option<&PodSandboxStatus> {
        self.sandboxes
            .iter()
            .max_by_key(|s| (s.sandbox.metadata.attempt, s.sandbox.created_at))
    }

    /// The newest sandbox when it is ready.
    pub(crate) fn ready_sandbox(&self) -> Option<&PodSandboxStatus> {
        self.sandbox()
            .filter(|s| s.sandbox.state == PodSandboxState::Ready)
    }

    /// The containers of a name, the newest first.
    pub(crate) fn instances(&self, name: &str) -> Vec<&ContainerStatus> {
        let mut all: Vec<_> = self
            .containers
            .iter()
            .filter(|c| c.metadata.name == name)
            .collect();
        all.sort_by_key(|c| std::cmp::Reverse((c.metadata.attempt, c.created_at)));
        all
    }

    /// The newest container of a name.
    pub(crate) fn latest(&self, name: &str) -> Option<&ContainerStatus> {
        let named = self.containers.iter().filter(|c| c.metadata.name == name);
        named.max_by_key(|c| (c.metadata.attempt, c.created_at))
    }

    /// The newest container of a name when it is in the newest sandbox.
    pub(crate) fn current(&self, name: &str) -> Option<&ContainerStatus> {
        let sandbox = &self.sandbox()?.sandbox.id;
        self.latest(name).filter(|c| c.pod_sandbox_id == *sandbox)
    }

    pub(crate) fn running(&self) -> impl Iterator<Item = &ContainerStatus> {
        self.containers
            .iter()
            .filter(|c| c.state == ContainerState::Running)
    }
}

/// What the probes of one container have found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ProbeResults {
    pub(crate) started: bool,
    pub(crate) ready: bool,
    /// Why the container is to be restarted, as the event says it.
    pub(crate) failed: Option<String>,
}

/// What the agent remembers of a pod between steps. It can be lost: then waiting times begin again.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// Restarts, by container name.
    pub(crate) restarts: Backoffs,
    /// Image pulls, by image.
    pub(crate) pulls: Backoffs,
    /// Why a container does not run, by container name: reason and message.
    pub(crate) waiting: HashMap<String, (String, String)>,
    /// When to try again, by container name; the empty name stands for the sandbox.
    pub(crate) retry_at: HashMap<String, Timestamp>,
    pub(crate) probes: HashMap<ContainerId, ProbeResults>,
    pub(crate) termination_messages: HashMap<ContainerId, String>,
    pub(crate) volumes_ready: bool,
    /// The agent has ended the pod for this reason and with this message.
    pub(crate) failed: Option<(String, String)>,
    /// The address of a pod whose sandbox was stopped.
    pub(crate) ips: Vec<String>,
}

impl Memory {
    pub(crate) fn probes_of(&self, id: &ContainerId) -> ProbeResults {
        self.probes.get(id).cloned().unwrap_or_default()
    }
}

/// Something that is under way and must not be begun again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Busy {
    Volumes,
    Sandbox,
    Container(String),
    Kill(ContainerId),
    Remove(ContainerId),
    StopSandboxes,
}

/// All that one step decides on.
#[derive(Debug)]
pub(crate) struct View<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) observed: &'a Observed,
    pub(crate) memory: &'a Memory,
    pub(crate) busy: &'a BTreeSet<Busy>,
    /// The pod is being deleted, or is gone from the API already.
    pub(crate) deleting: bool,
    pub(crate) now: Timestamp,
}

impl<'a> View<'a> {
    pub(crate) fn spec(&self) -> &'a PodSpec {
        spec(self.pod)
    }
}

/// A pod's specification.
pub(crate) fn spec(pod: &Pod) -> &PodSpec {
    pod.spec
        .as_ref()
        .expect("only pods with a node name get a worker, so they have a specification")
}

pub(crate) fn init_containers(spec: &PodSpec) -> &[Container] {
    spec.init_containers.as_deref().unwrap_or_default()
}

/// A sidecar: an init container that keeps running.
pub(crate) fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

pub(crate) fn find_container<'a>(pod: &'a Pod, name: &str) -> Option<&'a Container> {
    let spec = spec(pod);
    init_containers(spec)
        .iter()
        .chain(&spec.containers)
        .find(|container| container.name == name)
}

/// Whether the startup probe of a running container, if it has one, was passed.
pub(crate) fn has_started(container: &Container, results: &ProbeResults) -> bool {
    container.startup_probe.is_none() || results.started
}

pub(crate) fn is_ready(container: &Container, results: &ProbeResults) -> bool {
    has_started(container, results) && (container.readiness_probe.is_none() || results.ready)
}

/// The time that the pod's containers get to end.
pub(crate) fn grace_seconds(pod: &Pod) -> i64 {
    let own = spec(pod).termination_grace_period_seconds.unwrap_or(30);
    if pod.metadata.deletion_timestamp.is_some() {
        return pod.metadata.deletion_grace_period_seconds.unwrap_or(own).max(1);
    }
    own
}
