//! A pod's status as upstream reports it: a pure function of what is observed.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState as State, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus as ApiContainerStatus, HostIP, Pod, PodCondition, PodIP,
    PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::backoff::short;
use super::view::{Busy, View, has_started, init_containers, is_ready, is_sidecar, spec};
use crate::runtime::{ContainerState, ContainerStatus};

/// What the status needs to know of the node.
#[derive(Debug, Clone, Default)]
pub(crate) struct NodeFacts {
    /// The runtime's name, in front of container ids.
    pub(crate) runtime_name: String,
    /// The node's addresses, the primary one first.
    pub(crate) ips: Vec<String>,
}

/// A time as the API keeps it, in whole seconds.
pub(crate) fn time(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

/// Whether the pod's work is over for good.
pub(crate) fn is_terminal(view: &View<'_>) -> bool {
    let phase = view
        .pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    if matches!(phase, Some("Succeeded" | "Failed")) {
        return true;
    }
    matches!(phase_of(view, false), Phase::Succeeded | Phase::Failed)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Pending,
    Running,
    Succeeded,
    Failed,
}

impl Phase {
    fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
        }
    }
}

/// Upstream's `getPhase`. `ended`: nothing of the pod will run again.
fn phase_of(view: &View<'_>, ended: bool) -> Phase {
    let spec = view.spec();
    let policy = spec.restart_policy.as_deref().unwrap_or("Always");
    let mut initializing = false;
    for container in init_containers(spec).iter().filter(|c| !is_sidecar(c)) {
        match view.observed.latest(&container.name) {
            Some(c) if c.state == ContainerState::Exited && c.exit_code == 0 => {}
            Some(c) if c.state == ContainerState::Exited && (policy == "Never" || ended) => {
                return Phase::Failed;
            }
            _ => initializing = true,
        }
    }
    let (mut running, mut waiting, mut stopped, mut succeeded) = (0, 0, 0, 0);
    for container in &spec.containers {
        match view.observed.latest(&container.name) {
            Some(c) if c.state == ContainerState::Running => running += 1,
            Some(c) if c.state == ContainerState::Exited => {
                stopped += 1;
                succeeded += usize::from(c.exit_code == 0);
            }
            _ => waiting += 1,
        }
    }
    match (running, waiting, stopped) {
        _ if ended && running == 0 => {
            if waiting == 0 && stopped == succeeded {
                Phase::Succeeded
            } else {
                Phase::Failed
            }
        }
        _ if initializing && stopped == 0 && running == 0 => Phase::Pending,
        (_, w, _) if w > 0 => Phase::Pending,
        (r, _, _) if r > 0 => Phase::Running,
        (_, _, s) if s > 0 && policy == "Always" => Phase::Running,
        (_, _, s) if s > 0 && s == succeeded => Phase::Succeeded,
        (_, _, s) if s > 0 && policy == "Never" => Phase::Failed,
        (_, _, s) if s > 0 => Phase::Running,
        _ => Phase::Pending,
    }
}

/// The pod's status. `ended`: all of the pod has been stopped for good.
pub(crate) fn pod_status(view: &View<'_>, node: &NodeFacts, ended: bool) -> PodStatus {
    let old = view.pod.status.clone().unwrap_or_default();
    let spec = view.spec();
    let phase = match (&view.memory.failed, old.phase.as_deref()) {
        (Some(_), _) | (None, Some("Failed")) => Phase::Failed,
        (None, Some("Succeeded")) => Phase::Succeeded,
        (None, _) => phase_of(view, ended),
    };
    let initialized = init_incomplete(view).is_empty();
    let describe = |container: &Container, is_init: bool| {
        container_status(view, container, node, is_init || !initialized)
    };
    let init: Vec<_> = init_containers(spec).iter().map(|c| describe(c, false)).collect();
    let containers: Vec<_> = spec.containers.iter().map(|c| describe(c, false)).collect();
    let ips = pod_ips(view, node, &old);
    let (reason, message) = match &view.memory.failed {
        Some((reason, message)) => (Some(reason.clone()), Some(message.clone())),
        None => (old.reason, old.message),
    };
    let mut status = PodStatus {
        phase: Some(phase.as_str().into()),
        reason,
        message,
        host_ip: node.ips.first().cloned(),
        host_ips: Some(node.ips.iter().map(|ip| HostIP { ip: ip.clone() }).collect()),
        pod_ip: ips.first().cloned(),
        pod_ips: (!ips.is_empty()).then(|| ips.into_iter().map(|ip| PodIP { ip }).collect()),
        start_time: Some(old.start_time.unwrap_or_else(|| time(view.now))),
        init_container_statuses: (!init.is_empty()).then_some(init),
        container_statuses: Some(containers),
        observed_generation: view.pod.metadata.generation,
        qos_class: old.qos_class,
        ..PodStatus::default()
    };
    status.conditions = Some(conditions(
        view,
        &status,
        phase,
        old.conditions.unwrap_or_default(),
    ));
    status
}

fn pod_ips(view: &View<'_>, node: &NodeFacts, old: &PodStatus) -> Vec<String> {
    if spec(view.pod).host_network == Some(true) {
        return if view.observed.sandboxes.is_empty() {
            Vec::new()
        } else {
            node.ips.clone()
        };
    }
    let live = view
        .observed
        .sandbox()
        .map(|s| s.ips.iter().map(ToString::to_string).collect::<Vec<_>>());
    match live {
        Some(ips) if !ips.is_empty() => ips,
        // A stopped pod keeps showing the address that it had.
        _ if !view.memory.ips.is_empty() => view.memory.ips.clone(),
        _ => old.pod_ips.iter().flatten().map(|ip| ip.ip.clone()).collect(),
    }
}

fn container_status(
    view: &View<'_>,
    container: &Container,
    node: &NodeFacts,
    initializing: bool,
) -> ApiContainerStatus {
    let instances = view.observed.instances(&container.name);
    let latest = instances.first().copied();
    let state = match latest {
        Some(c) => shown_state(view, container, c, node),
        None => waiting(view, container, initializing),
    };
    let is_waiting = state.waiting.is_some();
    // While the next start is awaited, the last end is the last state; else it is the instance before.
    let last = match latest {
        Some(c) if is_waiting && c.state == ContainerState::Exited => Some(c),
        _ => instances
            .get(1)
            .copied()
            .filter(|c| c.state == ContainerState::Exited),
    };
    let results = latest.map(|c| view.memory.probes_of(&c.id)).unwrap_or_default();
    let running = state.running.is_some();
    let init_done = is_init(view.pod, &container.name)
        && !is_sidecar(container)
        && state.terminated.as_ref().is_some_and(|t| t.exit_code == 0);
    ApiContainerStatus {
        name: container.name.clone(),
        image: latest.map_or_else(
            || container.image.clone().unwrap_or_default(),
            |c| c.image.clone(),
        ),
        image_id: latest.map(|c| c.image_ref.clone()).unwrap_or_default(),
        container_id: latest.map(|c| container_id(node, c)),
        restart_count: latest.map_or(0, |c| i32::try_from(c.metadata.attempt).unwrap_or(i32::MAX)),
        ready: init_done || (running && is_ready(container, &results)),
        started: Some(running && has_started(container, &results)),
        last_state: Some(last.map(|c| terminated(view, c, node)).unwrap_or_default()),
        state: Some(state),
        ..ApiContainerStatus::default()
    }
}

fn is_init(pod: &Pod, name: &str) -> bool {
    init_containers(spec(pod)).iter().any(|c| c.name == name)
}

fn shown_state(view: &View<'_>, container: &Container, c: &ContainerStatus, node: &NodeFacts) -> State {
    match c.state {
        ContainerState::Running => State {
            running: Some(ContainerStateRunning {
                started_at: c.started_at.map(time),
            }),
            ..State::default()
        },
        ContainerState::Created => waiting(view, container, false),
        ContainerState::Exited => match view.memory.waiting.get(&container.name) {
            Some((reason, message)) if !view.deleting => wait_state(reason, message),
            _ => match crash_loop(view, c) {
                Some(state) => state,
                None => terminated(view, c, node),
            },
        },
        ContainerState::Unknown => wait_state(
            "ContainerStatusUnknown",
            "the runtime cannot tell the container's state",
        ),
    }
}

fn crash_loop(view: &View<'_>, ended: &ContainerStatus) -> Option<State> {
    if view.deleting || view.memory.failed.is_some() || !restarts(view, ended) {
        return None;
    }
    let name = &ended.metadata.name;
    // Its next start is under way: it waits no longer.
    if view.busy.contains(&Busy::Container(name.clone())) {
        return None;
    }
    let (_, delay) = view
        .memory
        .restarts
        .due(name, ended.finished_at.unwrap_or(view.now), view.now)?;
    let message = format!(
        "back-off {} restarting failed container={name} pod={}({})",
        short(delay),
        full_name(view.pod),
        view.pod.metadata.uid.as_deref().unwrap_or_default()
    );
    Some(wait_state("CrashLoopBackOff", &message))
}

/// Whether a container that has ended like this is started again.
fn restarts(view: &View<'_>, ended: &ContainerStatus) -> bool {
    let policy = view.spec().restart_policy.as_deref().unwrap_or("Always");
    let init = init_containers(view.spec())
        .iter()
        .find(|c| c.name == ended.metadata.name);
    match (init, policy) {
        (Some(container), _) if is_sidecar(container) => true,
        (None, "Always") => true,
        (_, "Never") => false,
        _ => ended.exit_code != 0,
    }
}

/// `NAME_NAMESPACE`, as upstream's messages name a pod.
pub(crate) fn full_name(pod: &Pod) -> String {
    let meta = &pod.metadata;
    format!(
        "{}_{}",
        meta.name.as_deref().unwrap_or_default(),
        meta.namespace.as_deref().unwrap_or_default()
    )
}

fn waiting(view: &View<'_>, container: &Container, initializing: bool) -> State {
    match view.memory.waiting.get(&container.name) {
        Some((reason, message)) => wait_state(reason, message),
        None if initializing => wait_state("PodInitializing", ""),
        None if !init_containers(view.spec()).is_empty() => wait_state("PodInitializing", ""),
        None => wait_state("ContainerCreating", ""),
    }
}

fn wait_state(reason: &str, message: &str) -> State {
    let message = (!message.is_empty()).then(|| message.to_owned());
    State {
        waiting: Some(ContainerStateWaiting {
            reason: Some(reason.into()),
            message,
        }),
        ..State::default()
    }
}

fn terminated(view: &View<'_>, c: &ContainerStatus, node: &NodeFacts) -> State {
    let reason = match (c.reason.as_str(), c.exit_code) {
        ("", 0) => "Completed",
        ("", _) => "Error",
        (reason, _) => reason,
    };
    let message = view
        .memory
        .termination_messages
        .get(&c.id)
        .filter(|m| !m.is_empty())
        .unwrap_or(&c.message);
    State {
        terminated: Some(ContainerStateTerminated {
            exit_code: c.exit_code,
            reason: Some(reason.into()),
            message: (!message.is_empty()).then(|| message.clone()),
            started_at: c.started_at.or(c.finished_at).map(time),
            finished_at: c.finished_at.map(time),
            container_id: Some(container_id(node, c)),
            signal: None,
        }),
        ..State::default()
    }
}

fn container_id(node: &NodeFacts, c: &ContainerStatus) -> String {
    format!("{}://{}", node.runtime_name, c.id)
}

/// Init containers that have not done their part.
fn init_incomplete<'a>(view: &View<'a>) -> Vec<&'a str> {
    let done = |container: &Container| match view.observed.latest(&container.name) {
        Some(c) if is_sidecar(container) => {
            c.state == ContainerState::Running && has_started(container, &view.memory.probes_of(&c.id))
        }
        Some(c) => c.state == ContainerState::Exited && c.exit_code == 0,
        None => false,
    };
    let incomplete = init_containers(view.spec()).iter().filter(|c| !done(c));
    incomplete.map(|c| c.name.as_str()).collect()
}

fn conditions(
    view: &View<'_>,
    status: &PodStatus,
    phase: Phase,
    old: Vec<PodCondition>,
) -> Vec<PodCondition> {
    let sandbox_ready = view.observed.ready_sandbox().is_some();
    let containers_ready = containers_ready(status, phase);
    let ready = pod_ready(view.spec(), &old, &containers_ready, phase);
    let own = [
        condition("PodReadyToStartContainers", sandbox_ready, None, None),
        initialized(view, phase),
        ready,
        containers_ready,
        condition("PodScheduled", true, None, None),
    ];
    let mut all = old;
    for mut condition in own {
        condition.observed_generation = view.pod.metadata.generation;
        // Times stay as they were while nothing changes; the API server's own fields of it too.
        let known = all.iter().find(|c| c.type_ == condition.type_).cloned();
        condition.last_transition_time = match &known {
            Some(known) if known.status == condition.status => known.last_transition_time.clone(),
            _ => Some(time(view.now)),
        };
        match all.iter_mut().find(|c| c.type_ == condition.type_) {
            Some(entry) => *entry = condition,
            None => all.push(condition),
        }
    }
    all
}

fn condition(type_: &str, holds: bool, reason: Option<&str>, message: Option<String>) -> PodCondition {
    PodCondition {
        type_: type_.into(),
        status: if holds { "True" } else { "False" }.into(),
        reason: reason.map(Into::into),
        message,
        ..PodCondition::default()
    }
}

fn initialized(view: &View<'_>, phase: Phase) -> PodCondition {
    let incomplete = init_incomplete(view);
    match phase {
        Phase::Succeeded => condition("Initialized", true, Some("PodCompleted"), None),
        _ if incomplete.is_empty() => condition("Initialized", true, None, None),
        _ => {
            let message = format!("containers with incomplete status: [{}]", incomplete.join(" "));
            condition(
                "Initialized",
                false,
                Some("ContainersNotInitialized"),
                Some(message),
            )
        }
    }
}

fn containers_ready(status: &PodStatus, phase: Phase) -> PodCondition {
    match phase {
        Phase::Succeeded => return condition("ContainersReady", false, Some("PodCompleted"), None),
        Phase::Failed => return condition("ContainersReady", false, Some("PodFailed"), None),
        Phase::Pending | Phase::Running => {}
    }
    let all = status.container_statuses.iter().flatten();
    let unready: Vec<&str> = all.filter(|c| !c.ready).map(|c| c.name.as_str()).collect();
    if unready.is_empty() {
        return condition("ContainersReady", true, None, None);
    }
    let message = format!("containers with unready status: [{}]", unready.join(" "));
    condition(
        "ContainersReady",
        false,
        Some("ContainersNotReady"),
        Some(message),
    )
}

fn pod_ready(
    spec: &k8s_openapi::api::core::v1::PodSpec,
    present: &[PodCondition],
    containers: &PodCondition,
    phase: Phase,
) -> PodCondition {
    if containers.status != "True" || matches!(phase, Phase::Succeeded | Phase::Failed) {
        return PodCondition {
            type_: "Ready".into(),
            ..containers.clone()
        };
    }
    let mut problems = Vec::new();
    for gate in spec.readiness_gates.iter().flatten() {
        match present.iter().find(|c| c.type_ == gate.condition_type) {
            None => problems.push(format!(
                "corresponding condition of pod readiness gate {:?} does not exist.",
                gate.condition_type
            )),
            Some(c) if c.status != "True" => problems.push(format!(
                "the status of pod readiness gate {:?} is not \"True\", but {}",
                gate.condition_type, c.status
            )),
            Some(_) => {}
        }
    }
    if problems.is_empty() {
        return condition("Ready", true, None, None);
    }
    condition(
        "Ready",
        false,
        Some("ReadinessGatesNotReady"),
        Some(problems.join(", ")),
    )
}
