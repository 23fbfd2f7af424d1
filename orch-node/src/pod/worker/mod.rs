//! The driver of one pod: it observes, lets [`step`] decide, does what was decided, and reports the status.

mod begin;
mod outcome;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use orch_core::events::EventType;
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, Id, JoinSet};

use super::backoff::short;
use super::prober::{ProbeKind, ProbeReport, Prober};
use super::start::StartFailure;
use super::status_patch::{patch_between, patch_status};
use super::step::{Action, Step, step};
use super::view::{
    Busy, Memory, Observed, ProbeResults, View, find_container, grace_seconds, init_containers, spec,
};
use super::volumes::{Tokens, VolumeError};
use super::{config, status};
use crate::agent::shared::Shared;
use crate::log_file;
use crate::runtime::{
    ContainerFilter, ContainerId, ContainerState, ContainerStatus, Result as RuntimeResult, RuntimeError,
    labels,
};

/// How often volumes that show objects are brought up to date.
const REFRESH: SignedDuration = SignedDuration::from_secs(60);

/// How long to wait before the runtime or the API server is asked again after an error.
const RETRY: Duration = Duration::from_secs(1);

/// How long to wait before a status that was not taken is reported again.
const PATCH_RETRY: SignedDuration = SignedDuration::from_secs(1);

/// What a pod's worker is told.
#[derive(Debug)]
pub(crate) enum Message {
    /// The pod as the API server has it now.
    Pod(Arc<Pod>),
    /// The pod is gone from the API server.
    Gone,
    /// Something happened to one of its containers.
    Runtime,
}

/// What became of an action.
#[derive(Debug)]
enum Done {
    Volumes(Result<Tokens, VolumeError>),
    Sandbox(Result<(), RuntimeError>),
    Started(String, Result<(), StartFailure>),
    Runtime(Result<(), RuntimeError>),
    Patched(Result<Box<Pod>, kube::Error>),
    Finished(Result<(), String>),
}

/// Things under way that are no pod actions.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Task {
    Action(Busy),
    Patch,
    Finish,
}

/// One pod's worker.
#[derive(Debug)]
pub(crate) struct Worker {
    shared: Arc<Shared>,
    pod: Arc<Pod>,
    gone: bool,
    refused: Option<String>,
    observed: Observed,
    memory: Memory,
    messages: mpsc::UnboundedReceiver<Message>,
    tasks: JoinSet<Done>,
    running: HashMap<Id, (Task, AbortHandle)>,
    probers: HashMap<(ContainerId, ProbeKind), AbortHandle>,
    probe_tasks: JoinSet<()>,
    started: HashMap<ContainerId, watch::Sender<bool>>,
    reports: (
        mpsc::UnboundedSender<ProbeReport>,
        mpsc::UnboundedReceiver<ProbeReport>,
    ),
    tokens: Tokens,
    tokens_at: Option<Timestamp>,
    refresh_at: Option<Timestamp>,
    patch_after: Option<Timestamp>,
    last_patch: Option<Value>,
    failures: u32,
    announced_backoff: HashSet<ContainerId>,
}

impl Worker {
    pub(crate) fn new(
        shared: Arc<Shared>,
        pod: Arc<Pod>,
        messages: mpsc::UnboundedReceiver<Message>,
    ) -> Self {
        let refused = config::not_built(&pod);
        let memory = Memory {
            probes: reported_probes(&pod),
            ..Memory::default()
        };
        Self {
            shared,
            pod,
            gone: false,
            refused,
            observed: Observed::default(),
            memory,
            messages,
            tasks: JoinSet::new(),
            running: HashMap::new(),
            probers: HashMap::new(),
            probe_tasks: JoinSet::new(),
            started: HashMap::new(),
            reports: mpsc::unbounded_channel(),
            tokens: Tokens::new(),
            tokens_at: None,
            refresh_at: None,
            patch_after: None,
            last_patch: None,
            failures: 0,
            announced_backoff: HashSet::new(),
        }
    }

    /// Runs until the pod has ended and is gone from the API server.
    pub(crate) async fn run(mut self) {
        self.refuse();
        let mut look = true;
        loop {
            let mut wake_at = None;
            if look {
                look = match self.observe().await {
                    Ok(()) => false,
                    Err(error) => {
                        tracing::warn!(pod = %status::full_name(&self.pod), %error, "runtime could not be asked");
                        true
                    }
                };
            }
            // Nothing is decided on what could not be seen.
            if !look {
                wake_at = self.decide();
                self.publish();
                wake_at = [wake_at, self.patch_after].into_iter().flatten().min();
            }
            match self.wait(wake_at, look).await {
                Next::Look => look = true,
                Next::Decide => {}
                Next::End => return,
            }
        }
    }

    /// Says what is not built, instead of running something else than what was asked for.
    fn refuse(&mut self) {
        let Some(message) = self.refused.clone() else {
            return;
        };
        self.shared.pod_event(
            &self.pod,
            EventType::Warning,
            "Failed",
            format!("Error: {message}"),
        );
        let spec = spec(&self.pod);
        for container in init_containers(spec).iter().chain(&spec.containers) {
            self.memory.waiting.insert(
                container.name.clone(),
                ("CreateContainerConfigError".into(), message.clone()),
            );
        }
    }

    fn deleting(&self) -> bool {
        self.gone || self.pod.metadata.deletion_timestamp.is_some()
    }

    fn uid(&self) -> &str {
        self.pod.metadata.uid.as_deref().unwrap_or_default()
    }

    fn busy(&self) -> BTreeSet<Busy> {
        let actions = self.running.values().filter_map(|(task, _)| match task {
            Task::Action(busy) => Some(busy.clone()),
            Task::Patch | Task::Finish => None,
        });
        actions.collect()
    }

    async fn observe(&mut self) -> RuntimeResult<()> {
        let runtime = Arc::clone(&self.shared.runtime);
        let mut observed = Observed::default();
        for sandbox in runtime.list_pod_sandbox(Some(self.uid())).await? {
            observed
                .sandboxes
                .extend(runtime.pod_sandbox_status(&sandbox.id).await.known()?);
        }
        for container in runtime.list_containers(&ContainerFilter::pod(self.uid())).await? {
            observed
                .containers
                .extend(runtime.container_status(&container.id).await.known()?);
        }
        self.observed = observed;
        if let Some(sandbox) = self.observed.ready_sandbox()
            && !sandbox.ips.is_empty()
        {
            self.memory.ips = sandbox.ips.iter().map(ToString::to_string).collect();
        }
        self.read_last_words();
        self.tend_probes();
        Ok(())
    }

    /// Reads the termination messages of containers that have ended.
    fn read_last_words(&mut self) {
        for ended in self
            .observed
            .containers
            .iter()
            .filter(|c| c.state == ContainerState::Exited)
        {
            if !self.memory.termination_messages.contains_key(&ended.id) {
                let message = termination_message(&self.pod, ended);
                self.memory.termination_messages.insert(ended.id.clone(), message);
            }
        }
        let present: HashSet<&ContainerId> = self.observed.containers.iter().map(|c| &c.id).collect();
        self.memory
            .termination_messages
            .retain(|id, _| present.contains(id));
        self.memory.probes.retain(|id, _| present.contains(id));
        self.started.retain(|id, _| present.contains(id));
        self.announced_backoff.retain(|id| present.contains(id));
    }

    /// Starts the probes of containers that run, and ends those of others.
    fn tend_probes(&mut self) {
        let running: HashMap<ContainerId, ContainerStatus> = self
            .observed
            .running()
            .map(|c| (c.id.clone(), c.clone()))
            .collect();
        self.probers.retain(|(id, _), handle| {
            let keep = running.contains_key(id);
            if !keep {
                handle.abort();
            }
            keep
        });
        while self.probe_tasks.try_join_next().is_some() {}
        let ip = self
            .memory
            .ips
            .first()
            .or(self.shared.node.ips.first())
            .cloned()
            .unwrap_or_default();
        let pod = Arc::clone(&self.pod);
        for (id, status) in running {
            let Some(container) = find_container(&pod, &status.metadata.name) else {
                continue;
            };
            let passed = container.startup_probe.is_none() || self.memory.probes_of(&id).started;
            let started = self
                .started
                .entry(id.clone())
                .or_insert_with(|| watch::Sender::new(passed));
            for kind in ProbeKind::ALL {
                let key = (id.clone(), kind);
                if kind.of(container).is_none() || self.probers.contains_key(&key) {
                    continue;
                }
                let prober = Prober {
                    runtime: Arc::clone(&self.shared.runtime),
                    id: id.clone(),
                    container: container.clone(),
                    kind,
                    ip: ip.clone(),
                    started_at: status.started_at.unwrap_or(status.created_at),
                    started: started.subscribe(),
                    reports: self.reports.0.clone(),
                };
                self.probers.insert(key, self.probe_tasks.spawn(prober.run()));
            }
        }
    }

    /// Decides and begins what was decided; when to look again.
    fn decide(&mut self) -> Option<Timestamp> {
        let now = Timestamp::now();
        if self.refused.is_some() && !self.deleting() {
            return None;
        }
        if self.running.values().any(|(task, _)| *task == Task::Finish) {
            return None;
        }
        let busy = self.busy();
        let view = View {
            pod: &self.pod,
            observed: &self.observed,
            memory: &self.memory,
            busy: &busy,
            deleting: self.deleting(),
            now,
        };
        let Step {
            actions,
            mut wake_at,
            backing_off,
        } = step(&view);
        for (name, delay) in backing_off {
            self.announce_backoff(&name, delay);
        }
        for action in actions {
            self.begin(action, now);
        }
        if let Some(at) = self.refresh_at.filter(|_| !self.deleting()) {
            if at <= now && !busy.contains(&Busy::Volumes) {
                self.refresh_at = None;
                self.begin(Action::PrepareVolumes, now);
            } else {
                wake_at = Some(wake_at.map_or(at, |earlier| earlier.min(at)));
            }
        }
        wake_at
    }

    fn announce_backoff(&mut self, name: &str, delay: SignedDuration) {
        // The state shows the waiting time from now on, no longer why the start failed.
        self.memory.waiting.remove(name);
        let Some(ended) = self.observed.current(name).map(|c| c.id.clone()) else {
            return;
        };
        if self.announced_backoff.insert(ended) {
            let pod = status::full_name(&self.pod);
            let message = format!(
                "Back-off restarting failed container {name} in pod {pod}({})",
                self.uid()
            );
            tracing::debug!(%pod, container = name, delay = short(delay), "container waits for its restart");
            self.shared
                .container_event(&self.pod, name, EventType::Warning, "BackOff", message);
        }
    }

    /// The difference between the status that should be reported and the reported one, as a patch.
    fn status_patch(&self, ended: bool) -> Option<Value> {
        let busy = self.busy();
        let view = View {
            pod: &self.pod,
            observed: &self.observed,
            memory: &self.memory,
            busy: &busy,
            deleting: self.deleting(),
            now: Timestamp::now(),
        };
        let wanted = status::pod_status(&view, &self.shared.node, ended);
        let reported = self.pod.status.clone().unwrap_or_default();
        patch_between(&reported, &wanted, self.uid())
    }

    /// Reports the status when it differs from what the API server has.
    fn publish(&mut self) {
        let pending = self
            .running
            .values()
            .any(|(task, _)| matches!(task, Task::Patch | Task::Finish));
        if self.gone || pending {
            return;
        }
        if self.patch_after.is_some_and(|after| after > Timestamp::now()) {
            return;
        }
        self.patch_after = None;
        let Some(patch) = self.status_patch(false) else {
            return;
        };
        if self.last_patch.as_ref() == Some(&patch) {
            // The server took it and shows something else: what is reported is not worth a busy loop.
            self.last_patch = None;
            self.patch_after = Some(Timestamp::now() + PATCH_RETRY);
            return;
        }
        self.last_patch = Some(patch.clone());
        let (shared, pod) = (Arc::clone(&self.shared), Arc::clone(&self.pod));
        self.spawn(Task::Patch, async move {
            Done::Patched(patch_status(&shared, &pod, &patch).await.map(Box::new))
        });
    }

    /// Waits for something to happen.
    async fn wait(&mut self, wake_at: Option<Timestamp>, retry: bool) -> Next {
        let until_wake =
            wake_at.map(|at| Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default());
        let sleep = match (until_wake, retry) {
            (_, true) => Some(RETRY),
            (wake, false) => wake.map(|wake| wake + Duration::from_millis(1)),
        };
        tokio::select! {
            message = self.messages.recv() => match message {
                Some(message) => self.told(message),
                None => Next::End,
            },
            Some(done) = self.tasks.join_next_with_id() => self.finished(done),
            Some(report) = self.reports.1.recv() => {
                self.probed(&report);
                Next::Decide
            }
            () = sleep_for(sleep) => if retry { Next::Look } else { Next::Decide },
        }
    }

    fn told(&mut self, message: Message) -> Next {
        match message {
            Message::Runtime => Next::Look,
            Message::Gone => {
                self.gone = true;
                self.shorten_kills(i64::MAX);
                Next::Look
            }
            Message::Pod(pod) => {
                if is_older(&pod, &self.pod) {
                    return Next::Decide;
                }
                let before = grace_seconds(&self.pod);
                let metadata_changed = pod.metadata.labels != self.pod.metadata.labels
                    || pod.metadata.annotations != self.pod.metadata.annotations;
                self.pod = pod;
                self.shorten_kills(before);
                if metadata_changed && self.refresh_at.is_some() {
                    self.refresh_at = Some(Timestamp::now());
                }
                Next::Decide
            }
        }
    }

    /// Begins the kills under way again when the pod is given less time than before.
    fn shorten_kills(&mut self, before: i64) {
        if grace_seconds(&self.pod) >= before {
            return;
        }
        self.running.retain(|_, (task, handle)| {
            let kill = matches!(task, Task::Action(Busy::Kill(_)));
            if kill {
                handle.abort();
            }
            !kill
        });
    }

    fn probed(&mut self, report: &ProbeReport) {
        if let Some(failure) = &report.failure {
            let message = format!("{} probe failed: {failure}", report.kind.name());
            self.shared
                .container_event(&self.pod, &report.name, EventType::Warning, "Unhealthy", message);
        }
        let results = self.memory.probes.entry(report.container.clone()).or_default();
        let restart = |kind: &str| {
            Some(format!(
                "Container {} failed {kind} probe, will be restarted",
                report.name
            ))
        };
        match (report.kind, report.verdict) {
            (_, None) | (ProbeKind::Liveness, Some(true)) => {}
            (ProbeKind::Readiness, Some(ready)) => results.ready = ready,
            (ProbeKind::Liveness, Some(false)) => results.failed = restart("liveness"),
            (ProbeKind::Startup, Some(false)) => results.failed = restart("startup"),
            (ProbeKind::Startup, Some(true)) => {
                results.started = true;
                if let Some(started) = self.started.get(&report.container) {
                    started.send_replace(true);
                }
            }
        }
    }
}

enum Next {
    /// The runtime shows something new.
    Look,
    /// What is known is enough.
    Decide,
    End,
}

fn pull_key(image: &str) -> String {
    format!("\0pull {image}")
}

async fn sleep_for(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}

/// What an earlier agent reported of containers that may still run: they are as ready as they were until a probe says
/// otherwise.
fn reported_probes(pod: &Pod) -> HashMap<ContainerId, ProbeResults> {
    let status = pod.status.as_ref();
    let all = status.into_iter().flat_map(|status| {
        let init = status.init_container_statuses.iter().flatten();
        init.chain(status.container_statuses.iter().flatten())
    });
    let running = all.filter(|c| c.state.as_ref().is_some_and(|state| state.running.is_some()));
    let results = running.filter_map(|c| {
        let (_, id) = c.container_id.as_deref()?.split_once("://")?;
        let results = ProbeResults {
            started: c.started == Some(true),
            ready: c.ready,
            failed: None,
        };
        Some((ContainerId::from(id), results))
    });
    results.collect()
}

/// Whether a pod is an earlier state than another one, by its resource version. Equal ones are not.
fn is_older(pod: &Pod, than: &Pod) -> bool {
    let version = |pod: &Pod| {
        pod.metadata
            .resource_version
            .as_ref()
            .and_then(|version| version.parse::<u64>().ok())
    };
    matches!((version(pod), version(than)), (Some(a), Some(b)) if a < b)
}

/// The last words of a container: from its file, or when that is empty and it failed, from its log if the pod wants so.
fn termination_message(pod: &Pod, ended: &ContainerStatus) -> String {
    const MAX_FILE: usize = 4096;
    let file = ended.annotations.get(labels::TERMINATION_MESSAGE_FILE);
    let mut message = file.and_then(|file| std::fs::read(file).ok()).unwrap_or_default();
    message.truncate(MAX_FILE);
    let message = String::from_utf8_lossy(&message).into_owned();
    let policy =
        find_container(pod, &ended.metadata.name).and_then(|c| c.termination_message_policy.as_deref());
    if message.is_empty()
        && ended.exit_code != 0
        && policy == Some("FallbackToLogsOnError")
        && let Some(log) = &ended.log_path
    {
        return log_file::tail(log, 80, 2048).unwrap_or_default();
    }
    message
}
