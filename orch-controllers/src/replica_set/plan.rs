//! What a ReplicaSet has to do next, as pure functions of what is seen.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use orch_core::owner;

/// At most so many pods are created or deleted in one go.
const BURST: usize = 500;

/// The annotation by which users say which pod to delete first.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The next step towards the wanted number of pods.
#[derive(Debug, PartialEq)]
pub(crate) enum Step {
    /// As many pods as wanted.
    Nothing,
    /// So many are missing.
    Create(usize),
    /// These are too many.
    Delete(Vec<Arc<Pod>>),
}

/// Whether a pod still counts: it neither ended nor is being deleted.
pub(crate) fn is_active(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    pod.metadata.deletion_timestamp.is_none() && !matches!(phase, Some("Succeeded" | "Failed"))
}

/// Compares the wanted replicas with the active pods. `related` counts, per node, the active pods of all ReplicaSets with
/// the same controller: where many are, one goes first.
pub(crate) fn next_step(
    replicas: usize,
    mut active: Vec<Arc<Pod>>,
    related: &HashMap<String, usize>,
    now: Timestamp,
) -> Step {
    if active.len() < replicas {
        return Step::Create((replicas - active.len()).min(BURST));
    }
    let surplus = (active.len() - replicas).min(BURST);
    if surplus == 0 {
        return Step::Nothing;
    }
    active.sort_by_cached_key(|pod| Rank::of(pod, related, now));
    active.truncate(surplus);
    Step::Delete(active)
}

/// The order in which pods are given up, smallest first: upstream's ranking of active pods.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    assigned: bool,
    phase: u8,
    ready: bool,
    deletion_cost: i32,
    colocated: Reverse<usize>,
    /// Logarithm of the time since ready, so that pods of about the same age are alike and the uid, which is random,
    /// decides between them.
    ready_for: i8,
    restarts: Reverse<i32>,
    age: i8,
    uid: Option<String>,
}

impl Rank {
    fn of(pod: &Pod, related: &HashMap<String, usize>, now: Timestamp) -> Self {
        let node = node_name(pod);
        let ready = ready_since(pod);
        Self {
            assigned: node.is_some(),
            phase: match pod.status.as_ref().and_then(|status| status.phase.as_deref()) {
                Some("Running") => 2,
                Some("Unknown") => 1,
                _ => 0,
            },
            ready: ready.is_some(),
            deletion_cost: deletion_cost(pod),
            colocated: Reverse(
                node.and_then(|node| related.get(node))
                    .copied()
                    .unwrap_or_default(),
            ),
            ready_for: ready.map_or(-1, |since| logarithm(since.as_ref(), now)),
            restarts: Reverse(restarts(pod)),
            age: logarithm(pod.metadata.creation_timestamp.as_ref(), now),
            uid: pod.metadata.uid.clone(),
        }
    }
}

/// The node that a pod is bound to.
pub(crate) fn node_name(pod: &Pod) -> Option<&str> {
    pod.spec
        .as_ref()
        .and_then(|spec| spec.node_name.as_deref())
        .filter(|node| !node.is_empty())
}

fn deletion_cost(pod: &Pod) -> i32 {
    let annotations = pod.metadata.annotations.as_ref();
    annotations
        .and_then(|all| all.get(DELETION_COST))
        .and_then(|cost| cost.parse().ok())
        .unwrap_or(0)
}

fn restarts(pod: &Pod) -> i32 {
    let statuses = pod
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.as_deref());
    statuses
        .into_iter()
        .flatten()
        .map(|status: &ContainerStatus| status.restart_count)
        .max()
        .unwrap_or(0)
}

/// Binary logarithm of the seconds since `time`; an unknown time counts as just now.
fn logarithm(time: Option<&Time>, now: Timestamp) -> i8 {
    let seconds = time.map_or(0, |time| now.as_second() - time.0.as_second());
    match seconds {
        ..1 => 0,
        seconds => i8::try_from(seconds.ilog2()).unwrap_or(i8::MAX),
    }
}

/// Since when a pod is ready: `None` when it is not, `Some(None)` when nobody wrote down since when.
fn ready_since(pod: &Pod) -> Option<Option<Time>> {
    let conditions = pod.status.as_ref()?.conditions.as_deref()?;
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready")?;
    (ready.status == "True").then(|| ready.last_transition_time.clone())
}

/// When a pod counts as available: ready for `min_ready_seconds`. `None` when it is not ready, else seconds still to
/// wait, 0 when it is available now.
pub(crate) fn available_in(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> Option<i64> {
    let since = ready_since(pod)?;
    if min_ready_seconds == 0 {
        return Some(0);
    }
    let since = since?.0.as_second();
    Some((since + i64::from(min_ready_seconds) - now.as_second()).max(0))
}

/// A pod made from the ReplicaSet's template.
pub(crate) fn pod_from_template(set: &ReplicaSet, template: &PodTemplateSpec) -> Pod {
    let meta = template.metadata.clone().unwrap_or_default();
    let name = set.metadata.name.as_deref().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(prefix(name)),
            namespace: set.metadata.namespace.clone(),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: owner::new_controller_ref(set).map(|reference| vec![reference]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// The generated name's prefix. The server cuts a long one, so that name and random tail fit into a DNS name.
fn prefix(name: &str) -> String {
    format!("{name}-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{PodCondition, PodSpec, PodStatus};

    const NOW: i64 = 1_000_000;

    fn now() -> Timestamp {
        Timestamp::from_second(NOW).expect("a time")
    }

    fn pod(name: &str, node: Option<&str>, phase: &str, ready_for: Option<i64>) -> Pod {
        let mut pod = Pod::default();
        pod.metadata.name = Some(name.into());
        pod.metadata.uid = Some(name.into());
        pod.spec = Some(PodSpec {
            node_name: node.map(Into::into),
            ..PodSpec::default()
        });
        let ready = ready_for.map(|seconds| PodCondition {
            type_: "Ready".into(),
            status: "True".into(),
            last_transition_time: Some(Time(Timestamp::from_second(NOW - seconds).expect("a time"))),
            ..PodCondition::default()
        });
        pod.status = Some(PodStatus {
            phase: Some(phase.into()),
            conditions: ready.map(|ready| vec![ready]),
            ..PodStatus::default()
        });
        pod
    }

    fn deleted(replicas: usize, pods: Vec<Pod>) -> Vec<String> {
        let pods = pods.into_iter().map(Arc::new).collect();
        match next_step(replicas, pods, &HashMap::new(), now()) {
            Step::Delete(pods) => pods.iter().filter_map(|pod| pod.metadata.name.clone()).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn missing_pods_are_created_and_enough_are_left_alone() {
        assert_eq!(next_step(3, vec![], &HashMap::new(), now()), Step::Create(3));
        assert_eq!(
            next_step(2000, vec![], &HashMap::new(), now()),
            Step::Create(BURST)
        );
        let one = vec![Arc::new(pod("a", None, "Pending", None))];
        assert_eq!(next_step(1, one, &HashMap::new(), now()), Step::Nothing);
    }

    #[test]
    fn pods_that_serve_least_go_first() {
        let pods = vec![
            pod("ready", Some("n"), "Running", Some(100)),
            pod("unready", Some("n"), "Running", None),
            pod("pending", Some("n"), "Pending", None),
            pod("unassigned", None, "Pending", None),
        ];
        assert_eq!(
            deleted(0, pods.clone()),
            ["unassigned", "pending", "unready", "ready"]
        );
        assert_eq!(deleted(2, pods), ["unassigned", "pending"]);
    }

    #[test]
    fn the_younger_of_two_ready_pods_goes_first() {
        let pods = vec![
            pod("old", Some("n"), "Running", Some(5000)),
            pod("young", Some("n"), "Running", Some(3)),
        ];
        assert_eq!(deleted(1, pods), ["young"]);
    }

    #[test]
    fn a_lower_deletion_cost_goes_first() {
        let mut cheap = pod("cheap", Some("n"), "Running", Some(5000));
        cheap.metadata.annotations = Some([(DELETION_COST.into(), "-5".into())].into());
        assert_eq!(
            deleted(1, vec![pod("dear", Some("n"), "Running", Some(3)), cheap]),
            ["cheap"]
        );
    }

    #[test]
    fn the_fuller_node_gives_first() {
        let pods = [
            pod("a", Some("full"), "Running", Some(10)),
            pod("b", Some("empty"), "Running", Some(10)),
        ];
        let related = HashMap::from([("full".to_owned(), 2), ("empty".to_owned(), 1)]);
        let step = next_step(1, pods.map(Arc::new).to_vec(), &related, now());
        assert!(matches!(step, Step::Delete(pods) if pods[0].metadata.name.as_deref() == Some("a")));
    }

    #[test]
    fn available_means_ready_for_long_enough() {
        assert_eq!(available_in(&pod("a", None, "Running", None), 0, now()), None);
        assert_eq!(
            available_in(&pod("a", None, "Running", Some(0)), 0, now()),
            Some(0)
        );
        assert_eq!(
            available_in(&pod("a", None, "Running", Some(4)), 10, now()),
            Some(6)
        );
        assert_eq!(
            available_in(&pod("a", None, "Running", Some(40)), 10, now()),
            Some(0)
        );
    }
}
