//! The table of pods.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerState, ContainerStatus, Pod, PodSpec, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;

use crate::kinds::pod_spec::is_sidecar;
use crate::kinds::table::{self, AGE, NAME, NONE, or_none, since, text_column};
use crate::kinds::text::{list, text};
use crate::strategy::Column;

pub(super) static COLUMNS: &[Column] = &[
    NAME,
    text_column("Ready", "How many containers are ready, of how many."),
    text_column("Status", "What the containers of the pod are doing, in a word."),
    text_column(
        "Restarts",
        "How often containers of the pod were restarted, and when the last time.",
    ),
    AGE,
    text_column("IP", "The address of the pod.").wide(),
    text_column("Node", "The node on which the pod runs.").wide(),
    text_column(
        "Nominated Node",
        "The node for which the pod waits while others are evicted there.",
    )
    .wide(),
    text_column(
        "Readiness Gates",
        "How many readiness gates are open, of how many.",
    )
    .wide(),
];

pub(super) fn cells(pod: &Pod, now: Timestamp) -> Vec<Value> {
    let (no_spec, no_status) = (PodSpec::default(), PodStatus::default());
    let spec = pod.spec.as_ref().unwrap_or(&no_spec);
    let status = pod.status.as_ref().unwrap_or(&no_status);
    let summary = Summary::of(pod, spec, status);
    let address = list(&status.pod_ips)
        .first()
        .map_or(text(&status.pod_ip), |one| &one.ip);
    vec![
        table::name(&pod.metadata),
        format!("{}/{}", summary.ready, summary.containers).into(),
        summary.reason.clone().into(),
        summary.restarts(now).into(),
        table::age(&pod.metadata, now),
        or_none(address).into(),
        or_none(text(&spec.node_name)).into(),
        or_none(text(&status.nominated_node_name)).into(),
        readiness_gates(spec, status).into(),
    ]
}

/// Whether all of a pod's containers have ended for good.
pub(super) fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().map_or("", |status| text(&status.phase));
    phase == "Succeeded" || phase == "Failed"
}

fn readiness_gates(spec: &PodSpec, status: &PodStatus) -> String {
    let gates = list(&spec.readiness_gates);
    if gates.is_empty() {
        return NONE.to_owned();
    }
    let open = gates
        .iter()
        .filter(|gate| is_true(status, &gate.condition_type))
        .count();
    format!("{open}/{}", gates.len())
}

fn is_true(status: &PodStatus, condition: &str) -> bool {
    list(&status.conditions)
        .iter()
        .any(|one| one.type_ == condition && one.status == "True")
}

/// What one line says about all containers of a pod.
struct Summary {
    containers: usize,
    ready: usize,
    restarts: i32,
    last_restart: Option<Time>,
    reason: String,
}

impl Summary {
    fn of(pod: &Pod, spec: &PodSpec, status: &PodStatus) -> Self {
        let sidecars = list(&spec.init_containers)
            .iter()
            .filter(|container| is_sidecar(container))
            .count();
        let mut summary = Summary {
            containers: spec.containers.len() + sidecars,
            ready: 0,
            restarts: 0,
            last_restart: None,
            reason: pod_reason(status),
        };
        let initialising = summary.init(spec, status);
        if !initialising || is_true(status, "Initialized") {
            (summary.restarts, summary.last_restart) = sidecar_restarts(spec, status);
            summary.main(status);
        }
        summary.ending(pod, status);
        summary
    }

    /// Goes through the init containers up to the first that is not done. Whether there is one.
    fn init(&mut self, spec: &PodSpec, status: &PodStatus) -> bool {
        let all = list(&spec.init_containers);
        for (i, init) in list(&status.init_container_statuses).iter().enumerate() {
            self.count_restarts(init);
            let state = init.state.clone().unwrap_or_default();
            if state
                .terminated
                .as_ref()
                .is_some_and(|terminated| terminated.exit_code == 0)
            {
                continue;
            }
            if named(all, &init.name).is_some_and(is_sidecar) && init.started == Some(true) {
                self.ready += usize::from(init.ready);
                continue;
            }
            self.reason = init_reason(&state).unwrap_or_else(|| format!("Init:{i}/{}", all.len()));
            return true;
        }
        false
    }

    fn main(&mut self, status: &PodStatus) {
        let mut running = false;
        for container in list(&status.container_statuses).iter().rev() {
            self.count_restarts(container);
            let state = container.state.clone().unwrap_or_default();
            match state_reason(&state) {
                Some(reason) => self.reason = reason,
                None if container.ready && state.running.is_some() => {
                    running = true;
                    self.ready += 1;
                }
                None => {}
            }
        }
        // One container has ended and another goes on: the pod is not complete.
        if self.reason == "Completed" && running {
            self.reason = if is_true(status, "Ready") {
                "Running"
            } else {
                "NotReady"
            }
            .to_owned();
        }
    }

    fn ending(&mut self, pod: &Pod, status: &PodStatus) {
        if pod.metadata.deletion_timestamp.is_none() {
            return;
        }
        if text(&status.reason) == "NodeLost" {
            self.reason = "Unknown".to_owned();
        } else if !has_ended(pod) {
            self.reason = "Terminating".to_owned();
        }
    }

    fn count_restarts(&mut self, container: &ContainerStatus) {
        self.restarts += container.restart_count;
        self.last_restart = self.last_restart.take().max(last_end(container));
    }

    fn restarts(&self, now: Timestamp) -> String {
        match &self.last_restart {
            Some(last) if self.restarts != 0 => format!("{} ({} ago)", self.restarts, since(Some(last), now)),
            _ => self.restarts.to_string(),
        }
    }
}

fn named<'a>(containers: &'a [Container], name: &str) -> Option<&'a Container> {
    containers.iter().find(|container| container.name == name)
}

fn last_end(container: &ContainerStatus) -> Option<Time> {
    container
        .last_state
        .as_ref()?
        .terminated
        .as_ref()?
        .finished_at
        .clone()
}

fn sidecar_restarts(spec: &PodSpec, status: &PodStatus) -> (i32, Option<Time>) {
    let is_sidecar =
        |one: &&ContainerStatus| named(list(&spec.init_containers), &one.name).is_some_and(is_sidecar);
    let sidecars = list(&status.init_container_statuses).iter().filter(is_sidecar);
    sidecars.fold((0, None), |(restarts, last), one| {
        (restarts + one.restart_count, last.max(last_end(one)))
    })
}

fn pod_reason(status: &PodStatus) -> String {
    let gated = |reason: &Option<String>| text(reason) == "SchedulingGated";
    if list(&status.conditions)
        .iter()
        .any(|one| one.type_ == "PodScheduled" && gated(&one.reason))
    {
        return "SchedulingGated".to_owned();
    }
    let reason = text(&status.reason);
    if reason.is_empty() {
        text(&status.phase)
    } else {
        reason
    }
    .to_owned()
}

fn init_reason(state: &ContainerState) -> Option<String> {
    if state.terminated.is_some() {
        return state_reason(state).map(|reason| format!("Init:{reason}"));
    }
    let waiting = text(&state.waiting.as_ref()?.reason);
    (!waiting.is_empty() && waiting != "PodInitializing").then(|| format!("Init:{waiting}"))
}

/// Why a container does not run, when it tells.
fn state_reason(state: &ContainerState) -> Option<String> {
    if let Some(waiting) = &state.waiting
        && !text(&waiting.reason).is_empty()
    {
        return waiting.reason.clone();
    }
    let terminated = state.terminated.as_ref()?;
    Some(match (text(&terminated.reason), terminated.signal.unwrap_or(0)) {
        ("", 0) => format!("ExitCode:{}", terminated.exit_code),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    })
}
