//! The driver of one pod: it observes, lets [`step`] decide, does what was decided, and reports the status.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use orch_core::events::EventType;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, Id, JoinSet};

use super::backoff::short;
use super::handler::{self, Target};
use super::prober::{ProbeKind, ProbeReport, Prober};
use super::start::{self, Start, StartFailure};
use super::step::{Action, Step, step};
use super::view::{
    Busy, Memory, Observed, ProbeResults, View, find_container, grace_seconds, init_containers, spec,
};
use super::volumes::{self, Tokens, VolumeError};
use super::{config, status};
use crate::agent::shared::Shared;
use crate::log_file;
use crate::runtime::{
    ContainerFilter, ContainerId, ContainerState, ContainerStatus, Result as RuntimeResult, RuntimeError,
    SandboxId, labels,
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

    fn spawn(&mut self, task: Task, work: impl Future<Output = Done> + Send + 'static) {
        let handle = self.tasks.spawn(async move {
            let done = work.await;
            if matches!(done, Done::Runtime(Err(_))) {
                // It stays under way for so long, so that it is not begun again at once.
                tokio::time::sleep(RETRY).await;
            }
            done
        });
        self.running.insert(handle.id(), (task, handle));
    }

    fn begin(&mut self, action: Action, now: Timestamp) {
        let shared = Arc::clone(&self.shared);
        let pod = Arc::clone(&self.pod);
        match action {
            Action::PrepareVolumes => self.begin_volumes(now),
            Action::CreateSandbox { attempt } => {
                self.spawn(Task::Action(Busy::Sandbox), async move {
                    Done::Sandbox(create_sandbox(&shared, &pod, attempt).await)
                });
            }
            Action::StartContainer { name, attempt } => self.begin_start(name, attempt, now),
            Action::KillContainer {
                id,
                name,
                grace,
                message,
            } => {
                let ip = self.memory.ips.first().cloned().unwrap_or_default();
                self.spawn(Task::Action(Busy::Kill(id.clone())), async move {
                    Done::Runtime(kill(&shared, &pod, &id, &name, grace, message, &ip).await)
                });
            }
            Action::RemoveContainer(id) => {
                self.spawn(Task::Action(Busy::Remove(id.clone())), async move {
                    Done::Runtime(shared.runtime.remove_container(&id).await)
                });
            }
            Action::StopSandboxes(ids) => {
                self.spawn(Task::Action(Busy::StopSandboxes), async move {
                    Done::Runtime(stop_sandboxes(&shared, &ids).await)
                });
            }
            Action::DeadlineExceeded => {
                let message = "Pod was active on the node longer than the specified deadline";
                self.shared
                    .pod_event(&self.pod, EventType::Normal, "DeadlineExceeded", message);
                self.memory.failed = Some(("DeadlineExceeded".into(), message.into()));
                self.memory.retry_at.insert(String::new(), now);
            }
            Action::Finish => self.begin_finish(),
        }
    }

    fn begin_volumes(&mut self, now: Timestamp) {
        let (shared, pod) = (Arc::clone(&self.shared), Arc::clone(&self.pod));
        let ips = self.memory.ips.clone();
        let known = self
            .tokens_at
            .filter(|at| now.duration_since(*at) < token_age(&pod))
            .map(|_| self.tokens.clone());
        if known.is_none() {
            self.tokens_at = Some(now);
        }
        self.spawn(Task::Action(Busy::Volumes), async move {
            Done::Volumes(prepare_volumes(&shared, &pod, &ips, known).await)
        });
    }

    fn begin_start(&mut self, name: String, attempt: u32, now: Timestamp) {
        let Some(sandbox) = self.observed.ready_sandbox().map(|s| s.sandbox.id.clone()) else {
            return;
        };
        let Some(container) = find_container(&self.pod, &name).cloned() else {
            return;
        };
        if self
            .observed
            .current(&name)
            .is_some_and(|c| c.state == ContainerState::Exited)
        {
            self.memory.restarts.next(&name, now);
        }
        let image = container.image.clone().unwrap_or_default();
        let pull_backoff = self
            .memory
            .retry_at
            .get(&pull_key(&image))
            .and_then(|since| self.memory.pulls.due(&image, *since, now).map(|(_, delay)| delay));
        let ips = if spec(&self.pod).host_network == Some(true) {
            self.shared.node.ips.clone()
        } else {
            self.memory.ips.clone()
        };
        let (shared, pod) = (Arc::clone(&self.shared), Arc::clone(&self.pod));
        self.spawn(Task::Action(Busy::Container(name.clone())), async move {
            let start = Start {
                shared: &shared,
                pod: &pod,
                container: &container,
                attempt,
                sandbox: &sandbox,
                pod_ips: &ips,
                pull_backoff,
            };
            let result = start.run().await;
            Done::Started(name, result)
        });
    }

    fn begin_finish(&mut self) {
        let patch = self.status_patch(true);
        let (shared, pod, gone) = (Arc::clone(&self.shared), Arc::clone(&self.pod), self.gone);
        let delay = if self.failures == 0 { Duration::ZERO } else { RETRY };
        let sandboxes: Vec<SandboxId> = self
            .observed
            .sandboxes
            .iter()
            .map(|s| s.sandbox.id.clone())
            .collect();
        self.spawn(Task::Finish, async move {
            tokio::time::sleep(delay).await;
            Done::Finished(finish(&shared, &pod, patch.filter(|_| !gone), &sandboxes, gone).await)
        });
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

    fn finished(&mut self, done: Result<(Id, Done), tokio::task::JoinError>) -> Next {
        let (id, done) = match done {
            Ok((id, done)) => (id, Some(done)),
            Err(error) => {
                if error.is_panic() {
                    tracing::error!(%error, pod = %status::full_name(&self.pod), "an action ended badly");
                }
                (error.id(), None)
            }
        };
        self.running.remove(&id);
        match done {
            Some(Done::Finished(Ok(()))) => Next::End,
            Some(Done::Patched(result)) => {
                self.patched(result);
                Next::Decide
            }
            Some(done) => {
                self.take(done);
                Next::Look
            }
            None => Next::Look,
        }
    }

    fn take(&mut self, done: Done) {
        let now = Timestamp::now();
        match done {
            Done::Volumes(Ok(tokens)) => {
                self.tokens = tokens;
                self.memory.volumes_ready = true;
                self.succeeded();
                let shows_objects = |v: &k8s_openapi::api::core::v1::Volume| {
                    v.config_map.is_some()
                        || v.secret.is_some()
                        || v.projected.is_some()
                        || v.downward_api.is_some()
                };
                let refresh = self.shared.settings.volumes
                    && spec(&self.pod).volumes.iter().flatten().any(shows_objects);
                self.refresh_at = refresh.then(|| now + REFRESH);
            }
            Done::Volumes(Err(error)) => self.volumes_failed(&error, now),
            Done::Sandbox(Ok(())) => self.succeeded(),
            Done::Sandbox(Err(error)) => {
                let message = format!("Failed to create pod sandbox: {error}");
                self.shared
                    .pod_event(&self.pod, EventType::Warning, "FailedCreatePodSandBox", message);
                self.retry_later("", now);
            }
            Done::Started(name, Ok(())) => {
                self.memory.waiting.remove(&name);
                self.memory.retry_at.remove(&name);
            }
            Done::Started(name, Err(failure)) => self.start_failed(name, failure, now),
            Done::Runtime(Err(error)) => {
                tracing::warn!(pod = %status::full_name(&self.pod), %error, "runtime call failed");
                self.retry_later("", now);
            }
            Done::Finished(Err(error)) => {
                tracing::warn!(pod = %status::full_name(&self.pod), error, "pod could not be cleaned up yet");
                self.failures += 1;
            }
            Done::Runtime(Ok(())) | Done::Patched(_) | Done::Finished(Ok(())) => {}
        }
    }

    fn succeeded(&mut self) {
        self.failures = 0;
        self.memory.retry_at.remove("");
    }

    /// Half a second, doubled each time up to half a minute.
    fn retry_later(&mut self, key: &str, now: Timestamp) {
        let delay = SignedDuration::from_millis(500i64 << self.failures.min(6));
        self.failures += 1;
        self.memory.retry_at.insert(key.to_owned(), now + delay);
    }

    fn volumes_failed(&mut self, error: &VolumeError, now: Timestamp) {
        let message = format!("MountVolume.SetUp failed : {error}");
        self.shared
            .pod_event(&self.pod, EventType::Warning, "FailedMount", message);
        if matches!(error, VolumeError::NotBuilt(_)) {
            self.refused = Some(error.to_string());
            self.refuse();
        }
        if self.memory.volumes_ready {
            self.refresh_at = Some(now + REFRESH);
        } else {
            self.retry_later("", now);
        }
    }

    fn start_failed(&mut self, name: String, failure: StartFailure, now: Timestamp) {
        let image = find_container(&self.pod, &name)
            .and_then(|c| c.image.clone())
            .unwrap_or_default();
        let again = match failure.reason.as_str() {
            "ErrImagePull" | "RegistryUnavailable" | "InvalidImageName" => {
                self.memory.pulls.next(&image, now);
                self.memory.retry_at.insert(pull_key(&image), now);
                Some(now + SignedDuration::from_secs(1))
            }
            "ImagePullBackOff" => {
                let since = self
                    .memory
                    .retry_at
                    .get(&pull_key(&image))
                    .copied()
                    .unwrap_or(now);
                self.memory.pulls.due(&image, since, now).map(|(due, _)| due)
            }
            // The container is there, and ended: the restart policy has the word.
            "RunContainerError" | "PostStartHookError" => None,
            _ => Some(now + SignedDuration::from_secs(10)),
        };
        let message = match failure.reason.as_str() {
            "ImagePullBackOff" => {
                let before = self
                    .memory
                    .waiting
                    .get(&name)
                    .filter(|(reason, _)| reason == "ErrImagePull");
                let why = before
                    .map(|(reason, message)| format!(": {reason}: {message}"))
                    .unwrap_or_default();
                failure.message + &why
            }
            _ => failure.message,
        };
        match again {
            Some(at) => self.memory.retry_at.insert(name.clone(), at),
            None => self.memory.retry_at.remove(&name),
        };
        self.memory.waiting.insert(name, (failure.reason, message));
    }

    fn patched(&mut self, result: Result<Box<Pod>, kube::Error>) {
        match result {
            Ok(pod) => {
                if !is_older(&pod, &self.pod) {
                    self.pod = Arc::new(*pod);
                }
            }
            Err(kube::Error::Api(error)) if error.code == 404 || error.code == 409 => {
                tracing::debug!(pod = %status::full_name(&self.pod), error = %error.message, "status was not taken");
                self.patch_after = Some(Timestamp::now() + PATCH_RETRY);
            }
            Err(error) => {
                tracing::warn!(pod = %status::full_name(&self.pod), %error, "status could not be reported");
                self.patch_after = Some(Timestamp::now() + PATCH_RETRY);
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

fn token_age(pod: &Pod) -> SignedDuration {
    let requests = volumes::token_requests(pod);
    let shortest = requests
        .iter()
        .map(|(_, token)| token.expiration_seconds.unwrap_or(3600))
        .min()
        .unwrap_or(3600);
    SignedDuration::from_secs(shortest * 8 / 10)
}

async fn prepare_volumes(
    shared: &Shared,
    pod: &Pod,
    ips: &[String],
    tokens: Option<Tokens>,
) -> Result<Tokens, VolumeError> {
    if !shared.settings.volumes {
        return Ok(Tokens::new());
    }
    let referenced = start::fetch(shared, pod, volumes::references(pod)).await?;
    let tokens = match tokens {
        Some(tokens) => tokens,
        None => request_tokens(shared, pod).await?,
    };
    volumes::prepare(
        pod,
        &shared.pod_dir(pod),
        &referenced,
        &shared.env_facts(ips),
        &tokens,
    )?;
    Ok(tokens)
}

/// Asks for the service account tokens that the pod's volumes show, bound to the pod.
async fn request_tokens(shared: &Shared, pod: &Pod) -> Result<Tokens, VolumeError> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let account = spec(pod).service_account_name.as_deref().unwrap_or("default");
    let api = Api::<ServiceAccount>::namespaced(shared.client.clone(), namespace);
    let mut tokens = Tokens::new();
    for (volume, wanted) in volumes::token_requests(pod) {
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: wanted.audience.clone().map(|audience| vec![audience]),
                expiration_seconds: Some(wanted.expiration_seconds.unwrap_or(3600)),
                bound_object_ref: Some(k8s_openapi::api::authentication::v1::BoundObjectReference {
                    api_version: Some("v1".into()),
                    kind: Some("Pod".into()),
                    name: pod.metadata.name.clone(),
                    uid: pod.metadata.uid.clone(),
                }),
                ..TokenRequestSpec::default()
            }),
            ..TokenRequest::default()
        };
        let answer = api
            .create_token_request(account, &PostParams::default(), &request)
            .await;
        let answer =
            answer.map_err(|error| super::env::ConfigError(format!("failed to fetch token: {error}")))?;
        let token = answer.status.and_then(|status| status.token).unwrap_or_default();
        tokens.insert((volume, wanted.path.clone()), token);
    }
    Ok(tokens)
}

async fn create_sandbox(shared: &Shared, pod: &Pod, attempt: u32) -> Result<(), RuntimeError> {
    let settings = &shared.settings;
    let config = config::sandbox(
        pod,
        attempt,
        &settings.node_name,
        &settings.log_dir(),
        &settings.dns,
    );
    shared.runtime.run_pod_sandbox(&config).await.map(drop)
}

async fn stop_sandboxes(shared: &Shared, ids: &[SandboxId]) -> Result<(), RuntimeError> {
    for id in ids {
        shared.runtime.stop_pod_sandbox(id).await?;
    }
    Ok(())
}

async fn kill(
    shared: &Shared,
    pod: &Pod,
    id: &ContainerId,
    name: &str,
    grace: i64,
    message: String,
    ip: &str,
) -> Result<(), RuntimeError> {
    shared.container_event(pod, name, EventType::Normal, "Killing", message);
    let begin = tokio::time::Instant::now();
    let grace = Duration::from_secs(u64::try_from(grace).unwrap_or(0));
    if let Some(container) = find_container(pod, name)
        && let Some(hook) = container
            .lifecycle
            .as_ref()
            .and_then(|lifecycle| lifecycle.pre_stop.as_ref())
    {
        let target = Target {
            runtime: &*shared.runtime,
            id,
            container,
            ip,
        };
        let failure = match tokio::time::timeout(grace, handler::hook(&target, hook, grace)).await {
            Ok(result) => result.err(),
            Err(_) => Some("it did not end within the grace period".into()),
        };
        if let Some(failure) = failure {
            let message = format!("PreStopHook failed: {failure}");
            shared.container_event(pod, name, EventType::Warning, "FailedPreStopHook", message);
        }
    }
    // However long the hook took, the program gets a moment to end by itself.
    let left = grace
        .saturating_sub(begin.elapsed())
        .max(Duration::from_secs(2).min(grace));
    shared.runtime.stop_container(id, left).await
}

/// Ends what is left of a pod: reports the last status, cleans up, lets the API server forget it.
async fn finish(
    shared: &Shared,
    pod: &Pod,
    patch: Option<Value>,
    sandboxes: &[SandboxId],
    gone: bool,
) -> Result<(), String> {
    if let Some(patch) = patch {
        match patch_status(shared, pod, &patch).await {
            Ok(_) => {}
            Err(kube::Error::Api(error)) if error.code == 404 || error.code == 409 => {}
            Err(error) => return Err(format!("report the last status: {error}")),
        }
    }
    for id in sandboxes {
        shared
            .runtime
            .remove_pod_sandbox(id)
            .await
            .map_err(|error| error.to_string())?;
    }
    shared
        .remove_pod_files(pod)
        .map_err(|error| format!("remove the pod's files: {error}"))?;
    if gone {
        return Ok(());
    }
    let meta = &pod.metadata;
    let api = Api::<Pod>::namespaced(
        shared.client.clone(),
        meta.namespace.as_deref().unwrap_or_default(),
    );
    let params = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions {
            uid: meta.uid.clone(),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    match api
        .delete(meta.name.as_deref().unwrap_or_default(), &params)
        .await
    {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(error)) if error.code == 404 || error.code == 409 => Ok(()),
        Err(error) => Err(format!("delete the pod: {error}")),
    }
}

async fn patch_status(shared: &Shared, pod: &Pod, patch: &Value) -> Result<Pod, kube::Error> {
    let meta = &pod.metadata;
    let api = Api::<Pod>::namespaced(
        shared.client.clone(),
        meta.namespace.as_deref().unwrap_or_default(),
    );
    let name = meta.name.as_deref().unwrap_or_default();
    api.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch))
        .await
}

/// A strategic merge patch from the reported status to the wanted one; `None` when they agree.
///
/// The pod's UID goes with it, so that a later pod of the same name refuses it.
fn patch_between(
    reported: &k8s_openapi::api::core::v1::PodStatus,
    wanted: &k8s_openapi::api::core::v1::PodStatus,
    uid: &str,
) -> Option<Value> {
    const MERGED: [(&str, &str); 3] = [("conditions", "type"), ("podIPs", "ip"), ("hostIPs", "ip")];
    // What others write into the status.
    const FOREIGN: [&str; 4] = [
        "qosClass",
        "nominatedNodeName",
        "resize",
        "ephemeralContainerStatuses",
    ];
    let (Ok(Value::Object(reported)), Ok(Value::Object(wanted))) =
        (serde_json::to_value(reported), serde_json::to_value(wanted))
    else {
        return None;
    };
    let mut status = serde_json::Map::new();
    for (key, value) in &wanted {
        if FOREIGN.contains(&key.as_str()) || reported.get(key) == Some(value) {
            continue;
        }
        let value = match MERGED.iter().find(|(name, _)| name == key) {
            Some((_, by)) => merge_list(reported.get(key), value, by),
            None => value.clone(),
        };
        if value.as_array().is_none_or(|list| !list.is_empty()) {
            status.insert(key.clone(), value);
        }
    }
    for key in reported
        .keys()
        .filter(|key| ["podIP", "podIPs", "reason", "message"].contains(&key.as_str()))
    {
        if !wanted.contains_key(key) {
            status.insert(key.clone(), Value::Null);
        }
    }
    (!status.is_empty()).then(|| json!({"metadata": {"uid": uid}, "status": status}))
}

/// What to send for a list that the server merges by a key: entries that changed, and deletions.
fn merge_list(reported: Option<&Value>, wanted: &Value, by: &str) -> Value {
    let reported = reported
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    let wanted = wanted.as_array().map(Vec::as_slice).unwrap_or_default();
    let changed = wanted.iter().filter(|entry| !reported.contains(entry)).cloned();
    let gone = reported
        .iter()
        .filter(|entry| !wanted.iter().any(|other| other.get(by) == entry.get(by)));
    let gone = gone.map(|entry| json!({"$patch": "delete", by: entry.get(by)}));
    gone.chain(changed).collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::PodStatus;

    #[test]
    fn patches_hold_what_changed_and_leave_others_conditions_alone() {
        let status = |value: Value| -> PodStatus { serde_json::from_value(value).unwrap() };
        let condition = |type_: &str, holds: &str| json!({"type": type_, "status": holds});
        let reported = status(
            json!({"phase": "Pending", "qosClass": "Burstable", "podIPs": [{"ip": "10.0.0.1"}], "podIP": "10.0.0.1",
            "conditions": [condition("Gate", "True"), condition("Ready", "False")]}),
        );
        let wanted = status(
            json!({"phase": "Running", "podIPs": [{"ip": "10.0.0.2"}], "podIP": "10.0.0.2",
            "conditions": [condition("Gate", "True"), condition("Ready", "True")]}),
        );
        let patch = patch_between(&reported, &wanted, "u1").unwrap();
        let expected = json!({"metadata": {"uid": "u1"}, "status": {
            "phase": "Running", "podIP": "10.0.0.2", "podIPs": [{"$patch": "delete", "ip": "10.0.0.1"}, {"ip": "10.0.0.2"}],
            "conditions": [condition("Ready", "True")],
        }});
        assert_eq!(patch, expected);
        assert_eq!(patch_between(&wanted, &wanted, "u1"), None);
    }
}
