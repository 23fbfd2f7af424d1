//! All pods of the node: a worker for each, and the end of those that nobody wants any more.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use k8s_openapi::api::core::v1::Pod;
use orch_core::informer::{Event, Informer};
use orch_core::ready::Ready;
use tokio::sync::mpsc;
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

use super::shared::Shared;
use crate::pod::volumes;
use crate::pod::worker::{Message, Worker};
use crate::runtime::{
    ContainerEvent, ContainerFilter, ContainerState, PodSandbox, Runtime, RuntimeError, labels,
};

/// The time between two looks for pods that nobody wants, and for events that were lost.
const HOUSEKEEPING: Duration = Duration::from_secs(60);

/// Runs the workers.
pub(super) struct PodManager {
    shared: Arc<Shared>,
    events: mpsc::UnboundedReceiver<Event<Pod>>,
    runtime_events: BoxStream<'static, ContainerEvent>,
    workers: HashMap<String, mpsc::UnboundedSender<Message>>,
    tasks: JoinSet<()>,
    uids: HashMap<Id, String>,
    /// Orphans that are being ended, by the UID of their pod.
    orphans: HashSet<String>,
    synced: bool,
    ready: Ready,
}

impl PodManager {
    pub(super) fn new(shared: Arc<Shared>, informer: &Informer<Pod>, ready: Ready) -> Self {
        Self {
            events: informer.subscribe(),
            runtime_events: shared.runtime.events(),
            shared,
            workers: HashMap::new(),
            tasks: JoinSet::new(),
            uids: HashMap::new(),
            orphans: HashSet::new(),
            synced: false,
            ready,
        }
    }

    /// Runs until `shutdown`. The workers end with it; the pods' programs do not.
    pub(super) async fn run(mut self, shutdown: CancellationToken) {
        let mut housekeeping = tokio::time::interval(HOUSEKEEPING);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                event = self.events.recv() => match event {
                    Some(event) => self.changed(event).await,
                    None => break,
                },
                Some(event) = self.runtime_events.next() => self.tell(&event.pod_uid, Message::Runtime),
                Some(ended) = self.tasks.join_next_with_id() => self.ended(ended),
                _ = housekeeping.tick() => self.keep_house().await,
            }
        }
        self.tasks.shutdown().await;
    }

    async fn changed(&mut self, event: Event<Pod>) {
        match event {
            Event::Applied { new, .. } => self.applied(new),
            Event::Deleted(pod) => self.tell(pod.metadata.uid.as_deref().unwrap_or_default(), Message::Gone),
            Event::Synced => {
                self.synced = true;
                self.keep_house().await;
                self.ready.set();
            }
        }
    }

    fn applied(&mut self, pod: Arc<Pod>) {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        // The field selector gives only pods of this node; one without specification is no pod.
        if uid.is_empty() || pod.spec.is_none() {
            return;
        }
        if let Some(worker) = self.workers.get(&uid) {
            // A worker that has just ended is taken off the list when its task is joined.
            worker.send(Message::Pod(pod)).ok();
            return;
        }
        let (sender, receiver) = mpsc::unbounded_channel();
        let worker = Worker::new(Arc::clone(&self.shared), pod, receiver);
        let handle = self.tasks.spawn(worker.run());
        self.uids.insert(handle.id(), uid.clone());
        self.workers.insert(uid, sender);
    }

    fn tell(&self, uid: &str, message: Message) {
        if let Some(worker) = self.workers.get(uid) {
            worker.send(message).ok();
        }
    }

    fn ended(&mut self, ended: Result<(Id, ()), tokio::task::JoinError>) {
        let id = match ended {
            Ok((id, ())) => id,
            Err(error) => {
                tracing::error!(%error, "a pod's worker ended badly");
                error.id()
            }
        };
        if let Some(uid) = self.uids.remove(&id) {
            self.workers.remove(&uid);
            self.orphans.remove(&uid);
        }
    }

    /// Ends sandboxes and removes files of pods that the API server no longer has, once it was asked which it has.
    async fn keep_house(&mut self) {
        if !self.synced {
            return;
        }
        let sandboxes = match self.shared.runtime.list_pod_sandbox(None).await {
            Ok(sandboxes) => sandboxes,
            Err(error) => return tracing::warn!(%error, "runtime could not be asked for its sandboxes"),
        };
        let mut by_pod: HashMap<String, Vec<PodSandbox>> = HashMap::new();
        for sandbox in sandboxes {
            by_pod
                .entry(sandbox.metadata.uid.clone())
                .or_default()
                .push(sandbox);
        }
        for uid in self.uids_on_disk() {
            by_pod.entry(uid).or_default();
        }
        for (uid, sandboxes) in by_pod {
            if self.workers.contains_key(&uid) {
                // Events may have been lost.
                self.tell(&uid, Message::Runtime);
            } else if self.orphans.insert(uid.clone()) {
                let handle = self
                    .tasks
                    .spawn(end_orphan(Arc::clone(&self.shared), uid.clone(), sandboxes));
                self.uids.insert(handle.id(), uid);
            }
        }
    }

    fn uids_on_disk(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.shared.settings.pods_dir())
            .into_iter()
            .flatten()
            .filter_map(Result::ok);
        entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect()
    }
}

/// Ends a pod of which only the runtime or the disk still knows. What fails is tried again at the next look.
async fn end_orphan(shared: Arc<Shared>, uid: String, sandboxes: Vec<PodSandbox>) {
    let mut logs: HashSet<PathBuf> = HashSet::new();
    for sandbox in &sandboxes {
        let meta = &sandbox.metadata;
        tracing::info!(
            pod = meta.name,
            namespace = meta.namespace,
            uid,
            "ending a pod that the API server does not have"
        );
        logs.insert(
            shared
                .settings
                .log_dir()
                .join(format!("{}_{}_{uid}", meta.namespace, meta.name)),
        );
    }
    if let Err(error) = end_sandboxes(&*shared.runtime, Some(&uid), &sandboxes).await {
        return tracing::warn!(uid, %error, "orphaned pod could not be ended yet");
    }
    for sandbox in &sandboxes {
        if let Err(error) = shared.runtime.remove_pod_sandbox(&sandbox.id).await {
            return tracing::warn!(uid, %error, "orphaned sandbox could not be removed yet");
        }
    }
    for dir in logs {
        std::fs::remove_dir_all(dir).ok();
    }
    if let Err(error) = volumes::remove_pod_dir(&shared.settings.pods_dir().join(&uid)) {
        tracing::warn!(uid, %error, "files of an orphaned pod could not be removed yet");
    }
}

/// Stops containers, each with its pod's grace period, then their sandboxes.
async fn end_sandboxes(
    runtime: &dyn Runtime,
    uid: Option<&str>,
    sandboxes: &[PodSandbox],
) -> Result<(), RuntimeError> {
    let grace = |sandbox: &PodSandbox| {
        let seconds = sandbox
            .annotations
            .get(labels::GRACE_PERIOD)
            .and_then(|text| text.parse().ok())
            .unwrap_or(30);
        Duration::from_secs(seconds)
    };
    let graces: HashMap<_, _> = sandboxes
        .iter()
        .map(|sandbox| (&sandbox.id, grace(sandbox)))
        .collect();
    let filter = ContainerFilter {
        pod_uid: uid.map(str::to_owned),
        pod_sandbox_id: None,
    };
    let containers = runtime.list_containers(&filter).await?;
    let running = containers
        .iter()
        .filter(|container| container.state == ContainerState::Running);
    let stops = running.map(|container| {
        let grace = graces.get(&container.pod_sandbox_id).copied().unwrap_or_default();
        runtime.stop_container(&container.id, grace)
    });
    futures::future::try_join_all(stops).await?;
    for sandbox in sandboxes {
        runtime.stop_pod_sandbox(&sandbox.id).await?;
    }
    Ok(())
}

/// Stops every pod of the runtime, for a stop of the whole node.
pub(super) async fn stop_all(runtime: &dyn Runtime) -> Result<(), RuntimeError> {
    let sandboxes = runtime.list_pod_sandbox(None).await?;
    end_sandboxes(runtime, None, &sandboxes).await
}
