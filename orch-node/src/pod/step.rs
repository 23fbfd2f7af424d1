//! What to do next for a pod: a pure function of its specification, what is observed, and what is remembered.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Container;

use super::status;
use super::view::{Busy, ProbeResults, View, grace_seconds, has_started, init_containers, is_sidecar};
use crate::runtime::{ContainerId, ContainerState, ContainerStatus, SandboxId};

/// What is to be done. Several actions of one step may run at the same time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Makes the pod's volumes.
    PrepareVolumes,
    /// Makes a sandbox.
    CreateSandbox { attempt: u32 },
    /// Pulls the image, creates and starts the container.
    StartContainer { name: String, attempt: u32 },
    /// Asks the container to end, and kills it when the grace period is over.
    KillContainer {
        id: ContainerId,
        name: String,
        grace: i64,
        message: String,
    },
    /// Removes a container that has ended and is no longer needed.
    RemoveContainer(ContainerId),
    /// Stops sandboxes whose containers have all ended.
    StopSandboxes(Vec<SandboxId>),
    /// The pod has run for too long.
    DeadlineExceeded,
    /// Everything of the pod has ended and it is being deleted: clean up and let it go.
    Finish,
}

/// What a step decided.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) actions: Vec<Action>,
    /// Look again at this time even when nothing happens.
    pub(crate) wake_at: Option<Timestamp>,
    /// Containers that wait for their next restart: name and delay.
    pub(crate) backing_off: Vec<(String, SignedDuration)>,
}

impl Step {
    fn push(&mut self, action: Action) {
        self.actions.push(action);
    }

    fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }
}

/// Decides.
pub(crate) fn step(view: &View<'_>) -> Step {
    let mut step = Step::default();
    if view.deleting {
        terminate(view, &mut step);
    } else if view.memory.failed.is_some() || status::is_terminal(view) {
        end(view, &mut step);
    } else {
        run(view, &mut step);
    }
    step
}

/// Ends everything; then lets the pod go.
fn terminate(view: &View<'_>, step: &mut Step) {
    if end(view, step) {
        step.push(Action::Finish);
    }
}

/// Ends all containers, then all sandboxes. `true`: nothing runs any more.
fn end(view: &View<'_>, step: &mut Step) -> bool {
    let mut ended = true;
    let spec = view.spec();
    let sidecar = |name: &str| {
        init_containers(spec)
            .iter()
            .any(|c| c.name == name && is_sidecar(c))
    };
    // Sidecars serve the others, so they end last.
    let others_run = view.observed.running().any(|c| !sidecar(&c.metadata.name));
    for container in view.observed.running() {
        ended = false;
        let name = &container.metadata.name;
        if !(others_run && sidecar(name)) {
            kill(view, step, container, format!("Stopping container {name}"));
        }
    }
    if !ended || view.busy.iter().any(|busy| !matches!(busy, Busy::Remove(_))) {
        return false;
    }
    let ready = view
        .observed
        .sandboxes
        .iter()
        .filter(|s| s.sandbox.state == crate::runtime::PodSandboxState::Ready);
    let ready: Vec<SandboxId> = ready.map(|s| s.sandbox.id.clone()).collect();
    if ready.is_empty() {
        return true;
    }
    step.push(Action::StopSandboxes(ready));
    false
}

fn kill(view: &View<'_>, step: &mut Step, container: &ContainerStatus, message: String) {
    kill_within(view, step, container, message, grace_seconds(view.pod));
}

fn kill_within(view: &View<'_>, step: &mut Step, container: &ContainerStatus, message: String, grace: i64) {
    if view.busy.contains(&Busy::Kill(container.id.clone())) {
        return;
    }
    step.push(Action::KillContainer {
        id: container.id.clone(),
        name: container.metadata.name.clone(),
        grace,
        message,
    });
}

/// The grace period that the probe which failed sets in place of the pod's.
fn probe_grace(container: &Container, results: &ProbeResults) -> Option<i64> {
    let starting = container.startup_probe.as_ref().filter(|_| !results.started);
    starting
        .or(container.liveness_probe.as_ref())?
        .termination_grace_period_seconds
}

fn run(view: &View<'_>, step: &mut Step) {
    if deadline(view, step) {
        return;
    }
    if !view.memory.volumes_ready {
        begin(view, step, &Busy::Volumes, "", Action::PrepareVolumes);
        return;
    }
    if view.observed.ready_sandbox().is_none() {
        // What still runs in a lost sandbox has no network any more.
        for container in view.observed.running() {
            kill(
                view,
                step,
                container,
                format!("Stopping container {}", container.metadata.name),
            );
        }
        let attempt = view
            .observed
            .sandbox()
            .map_or(0, |s| s.sandbox.metadata.attempt + 1);
        begin(view, step, &Busy::Sandbox, "", Action::CreateSandbox { attempt });
        return;
    }
    remove_old(view, step);
    if run_init_containers(view, step) {
        for container in &view.spec().containers {
            let policy = view.spec().restart_policy.as_deref().unwrap_or("Always");
            keep(view, step, container, policy);
        }
    }
}

fn deadline(view: &View<'_>, step: &mut Step) -> bool {
    let started = view
        .pod
        .status
        .as_ref()
        .and_then(|status| status.start_time.as_ref());
    let (Some(started), Some(seconds)) = (started, view.spec().active_deadline_seconds) else {
        return false;
    };
    let at = started.0 + SignedDuration::from_secs(seconds);
    if at <= view.now {
        step.push(Action::DeadlineExceeded);
        return true;
    }
    step.wake(at);
    false
}

/// Starts the next init container. `true`: all have done their part.
fn run_init_containers(view: &View<'_>, step: &mut Step) -> bool {
    let policy = view.spec().restart_policy.as_deref().unwrap_or("Always");
    for container in init_containers(view.spec()) {
        if is_sidecar(container) {
            keep(view, step, container, "Always");
            let current = view.observed.current(&container.name);
            let running = current.filter(|c| c.state == ContainerState::Running);
            if !running.is_some_and(|c| has_started(container, &view.memory.probes_of(&c.id))) {
                return false;
            }
            continue;
        }
        match view.observed.current(&container.name) {
            Some(c) if c.state == ContainerState::Exited && c.exit_code == 0 => {}
            _ => {
                let policy = if policy == "Never" { "Never" } else { "OnFailure" };
                keep(view, step, container, policy);
                return false;
            }
        }
    }
    true
}

/// Sees to it that one container runs as its restart policy wants.
fn keep(view: &View<'_>, step: &mut Step, container: &Container, policy: &str) {
    let name = &container.name;
    let attempt = view.observed.latest(name).map_or(0, |c| c.metadata.attempt + 1);
    let Some(current) = view.observed.current(name) else {
        start(view, step, name, attempt);
        return;
    };
    match current.state {
        ContainerState::Running => {
            let results = view.memory.probes_of(&current.id);
            let grace = probe_grace(container, &results).unwrap_or_else(|| grace_seconds(view.pod));
            if let Some(message) = results.failed {
                kill_within(view, step, current, message, grace);
            }
        }
        // Created by an agent that was killed before it could start it.
        ContainerState::Created => {
            if !view.busy.contains(&Busy::Container(name.clone())) {
                remove(view, step, current);
            }
        }
        ContainerState::Exited => {
            let restart = policy == "Always" || (policy == "OnFailure" && current.exit_code != 0);
            if restart {
                restart_after(view, step, current, attempt);
            }
        }
        ContainerState::Unknown => {}
    }
}

fn restart_after(view: &View<'_>, step: &mut Step, ended: &ContainerStatus, attempt: u32) {
    let name = &ended.metadata.name;
    let since = ended.finished_at.unwrap_or(view.now);
    match view.memory.restarts.due(name, since, view.now) {
        Some((due, delay)) => {
            step.backing_off.push((name.clone(), delay));
            step.wake(due);
        }
        None => start(view, step, name, attempt),
    }
}

fn start(view: &View<'_>, step: &mut Step, name: &str, attempt: u32) {
    let action = Action::StartContainer {
        name: name.to_owned(),
        attempt,
    };
    begin(view, step, &Busy::Container(name.to_owned()), name, action);
}

/// Begins what is not under way, unless it failed a short time ago.
fn begin(view: &View<'_>, step: &mut Step, busy: &Busy, retry_key: &str, action: Action) {
    if view.busy.contains(busy) {
        return;
    }
    match view.memory.retry_at.get(retry_key) {
        Some(at) if *at > view.now => step.wake(*at),
        _ => step.push(action),
    }
}

/// Keeps the newest container of each name and the one before it, whose log and end are still shown.
fn remove_old(view: &View<'_>, step: &mut Step) {
    let names = init_containers(view.spec()).iter().chain(&view.spec().containers);
    for container in names {
        for old in view.observed.instances(&container.name).into_iter().skip(2) {
            if old.state != ContainerState::Running {
                remove(view, step, old);
            }
        }
    }
}

fn remove(view: &View<'_>, step: &mut Step, container: &ContainerStatus) {
    if !view.busy.contains(&Busy::Remove(container.id.clone())) {
        step.push(Action::RemoveContainer(container.id.clone()));
    }
}
