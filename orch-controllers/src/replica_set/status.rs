//! The status that a ReplicaSet reports.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use orch_core::conditions;

use super::plan;

/// The status, and in how many seconds it changes by itself: when the next pod becomes available.
#[derive(Debug, PartialEq)]
pub(crate) struct Report {
    pub(crate) status: ReplicaSetStatus,
    pub(crate) again_in: Option<i64>,
}

/// What went wrong in this pass, told as the condition `ReplicaFailure`.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    /// `FailedCreate` or `FailedDelete`.
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// Counts the active pods of a set.
pub(crate) fn report(
    set: &ReplicaSet,
    active: &[Arc<Pod>],
    terminating: usize,
    failure: Option<&Failure>,
    now: Timestamp,
) -> Report {
    let spec = &set.spec;
    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    let template_labels = spec
        .template
        .as_ref()
        .and_then(|template| template.metadata.as_ref())
        .and_then(|meta| meta.labels.as_ref());
    let (mut labelled, mut ready, mut available, mut again_in) = (0, 0, 0, None::<i64>);
    for pod in active {
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        if template_labels
            .into_iter()
            .flatten()
            .all(|(key, value)| labels.get(key) == Some(value))
        {
            labelled += 1;
        }
        match plan::available_in(pod, min_ready, now) {
            None => {}
            Some(0) => (ready, available) = (ready + 1, available + 1),
            Some(seconds) => {
                ready += 1;
                again_in = Some(again_in.map_or(seconds, |other| other.min(seconds)));
            }
        }
    }
    let old = set.status.clone().unwrap_or_default();
    let status = ReplicaSetStatus {
        replicas: count(active.len()),
        fully_labeled_replicas: Some(labelled).filter(|n| *n > 0),
        ready_replicas: Some(ready).filter(|n| *n > 0),
        available_replicas: Some(available).filter(|n| *n > 0),
        terminating_replicas: Some(count(terminating)),
        observed_generation: set.metadata.generation,
        conditions: failure_condition(old.conditions, failure),
    };
    Report { status, again_in }
}

fn failure_condition(
    conditions: Option<Vec<ReplicaSetCondition>>,
    failure: Option<&Failure>,
) -> Option<Vec<ReplicaSetCondition>> {
    let mut list = conditions.unwrap_or_default();
    match failure {
        None => _ = conditions::remove(&mut list, "ReplicaFailure"),
        Some(failure) => {
            let condition = ReplicaSetCondition {
                type_: Some("ReplicaFailure".into()),
                status: Some("True".into()),
                reason: Some(failure.reason.into()),
                message: Some(failure.message.clone()),
                last_transition_time: Some(conditions::now()),
            };
            conditions::set(&mut list, condition);
        }
    }
    Some(list).filter(|list| !list.is_empty())
}

/// A number of objects as the API's `int32`.
pub(crate) fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{PodCondition, PodStatus};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn ready_pod(at: Timestamp) -> Arc<Pod> {
        let condition = PodCondition {
            type_: "Ready".into(),
            status: "True".into(),
            last_transition_time: Some(Time(at)),
            ..PodCondition::default()
        };
        let status = PodStatus {
            conditions: Some(vec![condition]),
            ..PodStatus::default()
        };
        Arc::new(Pod {
            status: Some(status),
            ..Pod::default()
        })
    }

    #[test]
    fn ready_and_available_pods_are_counted_and_the_next_change_is_known() {
        let now = Timestamp::from_second(1000).expect("a time");
        let mut set = ReplicaSet::default();
        set.spec.min_ready_seconds = Some(10);
        let pods = [
            ready_pod(Timestamp::from_second(985).expect("a time")),
            ready_pod(now),
            Arc::default(),
        ];
        let report = report(&set, &pods, 1, None, now);
        assert_eq!(report.status.replicas, 3);
        assert_eq!(report.status.ready_replicas, Some(2));
        assert_eq!(report.status.available_replicas, Some(1));
        assert_eq!(report.status.terminating_replicas, Some(1));
        assert_eq!(report.again_in, Some(10));
    }

    #[test]
    fn a_failure_is_a_condition_while_it_lasts() {
        let now = Timestamp::now();
        let failure = Failure {
            reason: "FailedCreate",
            message: "quota".into(),
        };
        let mut set = ReplicaSet::default();
        set.status = Some(report(&set, &[], 0, Some(&failure), now).status);
        let conditions = set
            .status
            .as_ref()
            .and_then(|status| status.conditions.as_deref());
        assert_eq!(
            conditions.and_then(|all| all[0].reason.as_deref()),
            Some("FailedCreate")
        );
        assert_eq!(report(&set, &[], 0, None, now).status.conditions, None);
    }
}
