//! What all parts of one agent share.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::Client;
use orch_core::events::{self, EventRecorder, EventType};

use crate::pod::config::{self, ClusterDns};
use crate::pod::status::NodeFacts;
use crate::pod::view::init_containers;
use crate::pod::{view, volumes};
use crate::runtime::Runtime;

/// Settings of an agent.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) node_name: String,
    pub(crate) data_dir: PathBuf,
    /// Whether volumes, hosts files and termination messages are made on disk.
    pub(crate) volumes: bool,
    /// Whether services are shown as environment variables.
    pub(crate) service_links: bool,
    pub(crate) dns: ClusterDns,
    pub(crate) capacity: BTreeMap<String, Quantity>,
    pub(crate) allocatable: BTreeMap<String, Quantity>,
    pub(crate) labels: BTreeMap<String, String>,
    /// Used while the Node has no pod CIDR.
    pub(crate) pod_cidr: Option<String>,
    /// How much of the disk should be free, in percent.
    pub(crate) disk_percent: u8,
    /// Whether pressure is measured on this machine.
    pub(crate) measure: bool,
}

impl Settings {
    pub(crate) fn log_dir(&self) -> PathBuf {
        self.data_dir.join("logs")
    }

    pub(crate) fn pods_dir(&self) -> PathBuf {
        self.data_dir.join("pods")
    }
}

pub(crate) struct Shared {
    pub(crate) client: Client,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) settings: Settings,
    pub(crate) node: NodeFacts,
    pub(crate) recorder: EventRecorder,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("settings", &self.settings)
            .field("runtime", &self.runtime)
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// A pod's directory, for volumes and the like.
    pub(crate) fn pod_dir(&self, pod: &Pod) -> PathBuf {
        self.settings
            .pods_dir()
            .join(pod.metadata.uid.as_deref().unwrap_or("unknown"))
    }

    /// Removes all that a pod has on disk, its logs too.
    pub(crate) fn remove_pod_files(&self, pod: &Pod) -> io::Result<()> {
        volumes::remove_pod_dir(&self.pod_dir(pod))?;
        match std::fs::remove_dir_all(config::log_directory(&self.settings.log_dir(), pod)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Records an event about a pod.
    pub(crate) fn pod_event(&self, pod: &Pod, type_: EventType, reason: &str, message: impl Into<String>) {
        self.recorder
            .event(&events::reference(pod), type_, reason, message);
    }

    /// Records an event about a container of a pod.
    pub(crate) fn container_event(
        &self,
        pod: &Pod,
        name: &str,
        type_: EventType,
        reason: &str,
        message: impl Into<String>,
    ) {
        let mut about = events::reference(pod);
        let init = init_containers(view::spec(pod))
            .iter()
            .any(|container| container.name == name);
        let list = if init { "initContainers" } else { "containers" };
        about.field_path = Some(format!("spec.{list}{{{name}}}"));
        self.recorder.event(&about, type_, reason, message);
    }
}
