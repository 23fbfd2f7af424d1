//! Tables for [`step`](super::step): a pod, what is observed, and what is to be done.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::status::{NodeFacts, pod_status};
use super::step::{Action, Step, step};
use super::view::{Busy, Memory, Observed, View};
use crate::runtime::{
    ContainerMetadata, ContainerState, ContainerStatus, PodSandbox, PodSandboxMetadata, PodSandboxState,
    PodSandboxStatus,
};

fn now() -> Timestamp {
    Timestamp::from_second(1_000_000).unwrap()
}

/// One situation of a pod.
struct Case {
    pod: Pod,
    observed: Observed,
    memory: Memory,
    busy: BTreeSet<Busy>,
    deleting: bool,
    now: Timestamp,
}

impl Case {
    fn new(spec: Value) -> Self {
        let pod = json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u1"}, "spec": spec});
        let memory = Memory {
            volumes_ready: true,
            ..Memory::default()
        };
        Self {
            pod: serde_json::from_value(pod).unwrap(),
            observed: Observed::default(),
            memory,
            busy: BTreeSet::new(),
            deleting: false,
            now: now(),
        }
    }

    fn with_sandbox(mut self, attempt: u32, state: PodSandboxState) -> Self {
        let sandbox = PodSandbox {
            id: format!("s{attempt}").into(),
            metadata: PodSandboxMetadata {
                attempt,
                ..PodSandboxMetadata::default()
            },
            state,
            created_at: now(),
            labels: Default::default(),
            annotations: Default::default(),
        };
        let ips = vec![std::net::IpAddr::from([10, 0, 0, 9])];
        self.observed.sandboxes.push(PodSandboxStatus { sandbox, ips });
        self
    }

    fn ready(self) -> Self {
        self.with_sandbox(0, PodSandboxState::Ready)
    }

    /// A container in the first sandbox; with an exit code, it has ended.
    fn with(self, name: &str, attempt: u32, exit_code: Option<i32>) -> Self {
        self.with_in(0, name, attempt, exit_code)
    }

    fn with_in(mut self, sandbox: u32, name: &str, attempt: u32, exit_code: Option<i32>) -> Self {
        self.observed.containers.push(ContainerStatus {
            id: format!("{name}-{attempt}").into(),
            pod_sandbox_id: format!("s{sandbox}").into(),
            metadata: ContainerMetadata {
                name: name.into(),
                attempt,
            },
            state: if exit_code.is_some() {
                ContainerState::Exited
            } else {
                ContainerState::Running
            },
            created_at: now(),
            started_at: Some(now()),
            finished_at: exit_code.map(|_| now()),
            exit_code: exit_code.unwrap_or(0),
            image: "img".into(),
            image_ref: "img@1".into(),
            reason: String::new(),
            message: String::new(),
            labels: Default::default(),
            annotations: Default::default(),
            log_path: None,
        });
        self
    }

    fn deleted(mut self) -> Self {
        self.deleting = true;
        self
    }

    fn view(&self) -> View<'_> {
        View {
            pod: &self.pod,
            observed: &self.observed,
            memory: &self.memory,
            busy: &self.busy,
            deleting: self.deleting,
            now: self.now,
        }
    }

    fn step(&self) -> Step {
        step(&self.view())
    }

    fn actions(&self) -> Vec<String> {
        self.step().actions.iter().map(describe).collect()
    }

    fn status(&self) -> Value {
        let node = NodeFacts {
            runtime_name: "orch".into(),
            ips: vec!["192.0.2.1".into()],
        };
        serde_json::to_value(pod_status(&self.view(), &node, false)).unwrap()
    }
}

fn describe(action: &Action) -> String {
    match action {
        Action::PrepareVolumes => "volumes".into(),
        Action::CreateSandbox { attempt } => format!("sandbox {attempt}"),
        Action::StartContainer { name, attempt } => format!("start {name} {attempt}"),
        Action::KillContainer { id, grace, .. } => format!("kill {id} {grace}s"),
        Action::RemoveContainer(id) => format!("remove {id}"),
        Action::StopSandboxes(ids) => format!("stop {ids:?}"),
        Action::DeadlineExceeded => "deadline".into(),
        Action::Finish => "finish".into(),
    }
}

fn two() -> Value {
    json!({"containers": [{"name": "a"}, {"name": "b"}]})
}

fn with_policy(policy: &str) -> Value {
    json!({"restartPolicy": policy, "containers": [{"name": "a"}]})
}

fn with_init(policy: &str) -> Value {
    json!({"restartPolicy": policy, "initContainers": [{"name": "i"}, {"name": "j"}], "containers": [{"name": "a"}]})
}

fn with_sidecar() -> Value {
    json!({"initContainers": [{"name": "side", "restartPolicy": "Always"}], "containers": [{"name": "a"}]})
}

#[test]
fn a_pod_is_brought_up_step_by_step() {
    let mut fresh = Case::new(two());
    fresh.memory.volumes_ready = false;
    let table = [
        (fresh, vec!["volumes"]),
        (Case::new(two()), vec!["sandbox 0"]),
        (
            Case::new(two()).with_sandbox(0, PodSandboxState::NotReady),
            vec!["sandbox 1"],
        ),
        (Case::new(two()).ready(), vec!["start a 0", "start b 0"]),
        (Case::new(two()).ready().with("a", 0, None), vec!["start b 0"]),
        (
            Case::new(two()).ready().with("a", 0, None).with("b", 0, None),
            vec![],
        ),
        (Case::new(with_init("Always")).ready(), vec!["start i 0"]),
        (Case::new(with_init("Always")).ready().with("i", 0, None), vec![]),
        (
            Case::new(with_init("Always")).ready().with("i", 0, Some(0)),
            vec!["start j 0"],
        ),
        (
            Case::new(with_init("Always"))
                .ready()
                .with("i", 0, Some(0))
                .with("j", 0, Some(0)),
            vec!["start a 0"],
        ),
        (
            Case::new(with_init("Always")).ready().with("i", 0, Some(1)),
            vec!["start i 1"],
        ),
        (Case::new(with_sidecar()).ready(), vec!["start side 0"]),
        (
            Case::new(with_sidecar()).ready().with("side", 0, None),
            vec!["start a 0"],
        ),
        (
            Case::new(with_sidecar())
                .ready()
                .with("side", 0, Some(0))
                .with("a", 0, None),
            vec!["start side 1"],
        ),
    ];
    for (index, (case, expected)) in table.iter().enumerate() {
        assert_eq!(case.actions(), *expected, "row {index}");
    }
}

#[test]
fn containers_are_restarted_as_their_policy_says() {
    let table = [
        ("Always", 0, vec!["start a 1"]),
        ("Always", 1, vec!["start a 1"]),
        ("OnFailure", 1, vec!["start a 1"]),
        ("OnFailure", 0, vec!["stop [s0]"]),
        ("Never", 0, vec!["stop [s0]"]),
        ("Never", 1, vec!["stop [s0]"]),
    ];
    for (policy, code, expected) in table {
        let case = Case::new(with_policy(policy)).ready().with("a", 0, Some(code));
        assert_eq!(case.actions(), expected, "{policy} {code}");
    }
    let failed_init = Case::new(with_init("Never")).ready().with("i", 0, Some(1));
    assert_eq!(
        failed_init.actions(),
        ["stop [s0]"],
        "a failed init container fails the pod"
    );
}

#[test]
fn a_crashing_container_waits_before_its_restart() {
    let mut case = Case::new(with_policy("Always")).ready().with("a", 1, Some(1));
    case.memory.restarts.next("a", now());
    let step = case.step();
    assert_eq!(step.actions, []);
    assert_eq!(step.wake_at, Some(now() + SignedDuration::from_secs(10)));
    assert_eq!(
        step.backing_off,
        [("a".to_owned(), SignedDuration::from_secs(10))]
    );
    case.now = now() + SignedDuration::from_secs(10);
    assert_eq!(case.actions(), ["start a 2"]);
}

#[test]
fn what_is_under_way_is_not_begun_again() {
    let mut case = Case::new(two()).ready();
    case.busy.insert(Busy::Container("a".into()));
    assert_eq!(case.actions(), ["start b 0"]);
    let mut case = Case::new(two()).ready().with("a", 0, None).deleted();
    case.busy.insert(Busy::Kill("a-0".into()));
    assert_eq!(case.actions(), Vec::<String>::new());
    let mut case = Case::new(two()).ready();
    case.memory
        .retry_at
        .insert("a".into(), now() + SignedDuration::from_secs(5));
    assert_eq!(case.actions(), ["start b 0"]);
}

#[test]
fn a_deleted_pod_ends_in_order() {
    let both = || Case::new(with_sidecar()).ready().with("side", 0, None).deleted();
    let table = [
        (both().with("a", 0, None), vec!["kill a-0 30s"]),
        (both().with("a", 0, Some(0)), vec!["kill side-0 30s"]),
        (
            Case::new(two()).ready().with("a", 0, Some(0)).deleted(),
            vec!["stop [s0]"],
        ),
        (
            Case::new(two())
                .with_sandbox(0, PodSandboxState::NotReady)
                .deleted(),
            vec!["finish"],
        ),
        (Case::new(two()).deleted(), vec!["finish"]),
    ];
    for (index, (case, expected)) in table.iter().enumerate() {
        assert_eq!(case.actions(), *expected, "row {index}");
    }
    let mut starting = Case::new(two()).ready().deleted();
    starting.busy.insert(Busy::Container("a".into()));
    assert_eq!(
        starting.actions(),
        Vec::<String>::new(),
        "a start that is under way is awaited"
    );
}

#[test]
fn a_lost_sandbox_is_replaced_and_its_containers_start_again() {
    let case = Case::new(two())
        .with_sandbox(0, PodSandboxState::NotReady)
        .with("a", 0, Some(137));
    assert_eq!(case.actions(), ["sandbox 1"]);
    let case = case.with_sandbox(1, PodSandboxState::Ready);
    assert_eq!(case.actions(), ["start a 1", "start b 0"]);
}

#[test]
fn failed_probes_kill_and_old_instances_are_removed() {
    let mut case = Case::new(with_policy("Always")).ready();
    case = case
        .with("a", 0, Some(1))
        .with("a", 1, Some(1))
        .with("a", 2, None);
    assert_eq!(
        case.actions(),
        ["remove a-0"],
        "one ended instance is kept beside the newest"
    );
    case.memory.probes.entry("a-2".into()).or_default().failed = Some("bad".into());
    assert_eq!(case.actions(), ["remove a-0", "kill a-2 30s"]);
    let probe = json!({"exec": {}, "terminationGracePeriodSeconds": 3});
    let spec = json!({"containers": [{"name": "a", "livenessProbe": probe}]});
    let mut case = Case::new(spec).ready().with("a", 0, None);
    case.memory.probes.entry("a-0".into()).or_default().failed = Some("bad".into());
    assert_eq!(
        case.actions(),
        ["kill a-0 3s"],
        "a probe's own grace period goes before the pod's"
    );
}

#[test]
fn a_pod_beyond_its_deadline_is_ended() {
    let mut spec = two();
    spec["activeDeadlineSeconds"] = json!(60);
    let mut case = Case::new(spec).ready().with("a", 0, None).with("b", 0, None);
    case.pod.status = Some(serde_json::from_value(json!({"startTime": now().to_string()})).unwrap());
    assert_eq!(case.step().wake_at, Some(now() + SignedDuration::from_secs(60)));
    case.now = now() + SignedDuration::from_secs(60);
    assert_eq!(case.actions(), ["deadline"]);
    case.memory.failed = Some(("DeadlineExceeded".into(), "late".into()));
    assert_eq!(case.actions(), ["kill a-0 30s", "kill b-0 30s"]);
    let status = case.status();
    assert_eq!(
        (status["phase"].as_str(), status["reason"].as_str()),
        (Some("Failed"), Some("DeadlineExceeded"))
    );
}

#[test]
fn phases_are_upstreams() {
    let ready = |policy: &str| Case::new(with_policy(policy)).ready();
    let table = [
        (Case::new(two()), "Pending"),
        (Case::new(two()).ready().with("a", 0, None), "Pending"),
        (
            Case::new(two()).ready().with("a", 0, None).with("b", 0, None),
            "Running",
        ),
        (ready("Always").with("a", 0, Some(1)), "Running"),
        (ready("OnFailure").with("a", 0, Some(1)), "Running"),
        (ready("OnFailure").with("a", 0, Some(0)), "Succeeded"),
        (ready("Never").with("a", 0, Some(1)), "Failed"),
        (
            Case::new(with_init("Never")).ready().with("i", 0, Some(1)),
            "Failed",
        ),
        (
            Case::new(with_init("Always")).ready().with("i", 0, Some(1)),
            "Pending",
        ),
    ];
    for (index, (case, expected)) in table.iter().enumerate() {
        assert_eq!(case.status()["phase"], *expected, "row {index}");
    }
}

#[test]
fn a_status_is_as_upstream_writes_it() {
    let spec = json!({"containers": [{"name": "a", "image": "img", "readinessProbe": {"exec": {}}}]});
    let mut case = Case::new(spec).ready().with("a", 1, None);
    let status = case.status();
    assert_eq!(status["podIP"], "10.0.0.9");
    assert_eq!(status["hostIPs"], json!([{"ip": "192.0.2.1"}]));
    let a = &status["containerStatuses"][0];
    assert_eq!(
        (&a["containerID"], &a["restartCount"], &a["started"]),
        (&json!("orch://a-1"), &json!(1), &json!(true))
    );
    assert_eq!(a["ready"], false, "its readiness probe has not passed");
    let condition = |status: &Value, type_: &str| {
        let all = status["conditions"].as_array().unwrap().clone();
        all.into_iter()
            .find(|condition| condition["type"] == type_)
            .unwrap()
    };
    let ready = condition(&status, "Ready");
    assert_eq!(ready["reason"], "ContainersNotReady");
    assert_eq!(ready["message"], "containers with unready status: [a]");
    case.memory.probes.entry("a-1".into()).or_default().ready = true;
    assert_eq!(condition(&case.status(), "Ready")["status"], "True");
    let creating = Case::new(two()).ready().status();
    assert_eq!(
        creating["containerStatuses"][0]["state"]["waiting"]["reason"],
        "ContainerCreating"
    );
    let initializing = Case::new(with_init("Always")).ready().with("i", 0, None).status();
    assert_eq!(
        initializing["containerStatuses"][0]["state"]["waiting"]["reason"],
        "PodInitializing"
    );
    let message = condition(&initializing, "Initialized")["message"].clone();
    assert_eq!(message, "containers with incomplete status: [i j]");
}

#[test]
fn readiness_gates_hold_the_pod_back() {
    let spec = json!({"readinessGates": [{"conditionType": "lb"}], "containers": [{"name": "a"}]});
    let mut case = Case::new(spec).ready().with("a", 0, None);
    let ready = |case: &Case| {
        let all = case.status()["conditions"].as_array().unwrap().clone();
        all.into_iter()
            .find(|condition| condition["type"] == "Ready")
            .unwrap()
    };
    assert_eq!(ready(&case)["reason"], "ReadinessGatesNotReady");
    let lb = json!({"conditions": [{"type": "lb", "status": "True"}]});
    case.pod.status = Some(serde_json::from_value(lb).unwrap());
    assert_eq!(ready(&case)["status"], "True");
}
