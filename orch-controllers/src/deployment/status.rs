//! The status that a Deployment reports: counts, and whether it is available and progressing.

use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use orch_core::conditions;

use super::rollout::Limits;
use super::template::Sets;

const AVAILABLE: &str = "Available";
const PROGRESSING: &str = "Progressing";
const REPLICA_FAILURE: &str = "ReplicaFailure";

/// Reason of a finished rollout.
const NEW_AVAILABLE: &str = "NewReplicaSetAvailable";
/// Reason of a rollout that took too long.
const TIMED_OUT: &str = "ProgressDeadlineExceeded";

/// The new status, and when to look at the progress deadline again.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) status: DeploymentStatus,
    pub(crate) again_in: Option<Duration>,
}

/// Counts a Deployment's pods and judges its progress.
pub(crate) fn report(
    deployment: &Deployment,
    sets: &Sets,
    collisions: Option<i32>,
    now: Timestamp,
) -> Report {
    let limits = Limits::of(deployment);
    let old = deployment.status.clone().unwrap_or_default();
    let mut status = counts(deployment, sets, &limits);
    status.collision_count = collisions;
    let mut list = old.conditions.clone().unwrap_or_default();
    set_available(&mut list, &status, &limits, now);
    let mut again_in = None;
    if let Some(deadline) = deadline(deployment) {
        judge_progress(deployment, sets, &old, &status, &limits, &mut list, deadline, now);
        again_in = until_deadline(&list, deadline, now);
    } else {
        conditions::remove(&mut list, PROGRESSING);
    }
    set_failure(&mut list, sets);
    status.conditions = Some(list);
    Report { status, again_in }
}

fn counts(deployment: &Deployment, sets: &Sets, limits: &Limits) -> DeploymentStatus {
    let sum = |count: fn(&ReplicaSet) -> i32| sets.all().map(|set| count(set)).sum::<i32>();
    let available = sum(|set| {
        set.status
            .as_ref()
            .and_then(|status| status.available_replicas)
            .unwrap_or(0)
    });
    let ready = sum(|set| {
        set.status
            .as_ref()
            .and_then(|status| status.ready_replicas)
            .unwrap_or(0)
    });
    let terminating = sum(|set| {
        set.status
            .as_ref()
            .and_then(|status| status.terminating_replicas)
            .unwrap_or(0)
    });
    let wanted: i32 = sets.all().map(|set| super::rollout::wanted(set)).sum();
    let some = |number: i32| Some(number).filter(|number| *number > 0);
    DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: some(sum(existing)),
        updated_replicas: some(sets.new.as_deref().map_or(0, existing)),
        ready_replicas: some(ready),
        available_replicas: some(available),
        unavailable_replicas: some(wanted.max(limits.replicas.min(wanted)) - available),
        terminating_replicas: Some(terminating),
        ..DeploymentStatus::default()
    }
}

fn existing(set: &ReplicaSet) -> i32 {
    set.status.as_ref().map_or(0, |status| status.replicas)
}

/// A deadline so large means none.
fn deadline(deployment: &Deployment) -> Option<Duration> {
    let seconds = deployment
        .spec
        .progress_deadline_seconds
        .filter(|seconds| *seconds != i32::MAX)?;
    u64::try_from(seconds).ok().map(Duration::from_secs)
}

fn condition(
    type_: &str,
    status: bool,
    reason: &str,
    message: impl Into<String>,
    now: Timestamp,
) -> DeploymentCondition {
    DeploymentCondition {
        type_: Some(type_.into()),
        status: Some(if status { "True" } else { "False" }.into()),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_transition_time: Some(Time(now)),
        last_update_time: Some(Time(now)),
    }
}

/// Sets a condition unless status and reason are the same already: `lastUpdateTime` tells of real changes only.
fn set(list: &mut Vec<DeploymentCondition>, condition: DeploymentCondition) {
    let same = conditions::get(list, condition.type_.as_deref().unwrap_or_default())
        .is_some_and(|now| now.status == condition.status && now.reason == condition.reason);
    if !same {
        conditions::set(list, condition);
    }
}

fn set_available(
    list: &mut Vec<DeploymentCondition>,
    status: &DeploymentStatus,
    limits: &Limits,
    now: Timestamp,
) {
    let available = status.available_replicas.unwrap_or(0) >= limits.min_available();
    let (reason, message) = if available {
        ("MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        (
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.",
        )
    };
    set(list, condition(AVAILABLE, available, reason, message, now));
}

#[allow(
    clippy::too_many_arguments,
    reason = "a judgement over before, after and the clock"
)]
fn judge_progress(
    deployment: &Deployment,
    sets: &Sets,
    old: &DeploymentStatus,
    status: &DeploymentStatus,
    limits: &Limits,
    list: &mut Vec<DeploymentCondition>,
    deadline: Duration,
    now: Timestamp,
) {
    let current = conditions::get(list, PROGRESSING).cloned();
    let reason = current.as_ref().and_then(|condition| condition.reason.as_deref());
    let all_updated = status.replicas.unwrap_or(0) == status.updated_replicas.unwrap_or(0);
    if all_updated && reason == Some(NEW_AVAILABLE) {
        return;
    }
    let subject = subject(deployment, sets);
    if is_complete(deployment, status, limits) {
        let message = format!("{subject} has successfully progressed.");
        set(list, condition(PROGRESSING, true, NEW_AVAILABLE, message, now));
    } else if is_progressing(old, status, limits) {
        let mut progressing = condition(
            PROGRESSING,
            true,
            "ReplicaSetUpdated",
            format!("{subject} is progressing."),
            now,
        );
        // The time of the last progress moves with every step; that of the transition does not.
        if let Some(current) = current.filter(|current| current.status.as_deref() == Some("True")) {
            progressing.last_transition_time = current.last_transition_time;
        }
        conditions::remove(list, PROGRESSING);
        list.push(progressing);
    } else if has_timed_out(current.as_ref(), deadline, now) {
        let message = format!("{subject} has timed out progressing.");
        set(list, condition(PROGRESSING, false, TIMED_OUT, message, now));
    }
}

fn subject(deployment: &Deployment, sets: &Sets) -> String {
    match &sets.new {
        Some(new) => format!(
            "ReplicaSet \"{}\"",
            new.metadata.name.as_deref().unwrap_or_default()
        ),
        None => format!(
            "Deployment \"{}\"",
            deployment.metadata.name.as_deref().unwrap_or_default()
        ),
    }
}

/// Whether all pods are of the new template, available, and the only ones.
pub(crate) fn is_complete(deployment: &Deployment, status: &DeploymentStatus, limits: &Limits) -> bool {
    status.updated_replicas.unwrap_or(0) == limits.replicas
        && status.replicas.unwrap_or(0) == limits.replicas
        && status.available_replicas.unwrap_or(0) == limits.replicas
        && status.observed_generation >= deployment.metadata.generation
}

fn is_progressing(old: &DeploymentStatus, new: &DeploymentStatus, _limits: &Limits) -> bool {
    let outdated =
        |status: &DeploymentStatus| status.replicas.unwrap_or(0) - status.updated_replicas.unwrap_or(0);
    new.updated_replicas.unwrap_or(0) > old.updated_replicas.unwrap_or(0)
        || outdated(new) < outdated(old)
        || new.ready_replicas.unwrap_or(0) > old.ready_replicas.unwrap_or(0)
        || new.available_replicas.unwrap_or(0) > old.available_replicas.unwrap_or(0)
}

fn has_timed_out(current: Option<&DeploymentCondition>, deadline: Duration, now: Timestamp) -> bool {
    let Some(current) = current else { return false };
    match current.reason.as_deref() {
        Some(NEW_AVAILABLE) => false,
        Some(TIMED_OUT) => true,
        _ => since_update(current, now).is_some_and(|since| since >= deadline),
    }
}

fn since_update(condition: &DeploymentCondition, now: Timestamp) -> Option<Duration> {
    let updated = condition.last_update_time.as_ref()?.0;
    Some(Duration::from_secs(
        u64::try_from(now.as_second() - updated.as_second()).unwrap_or(0),
    ))
}

/// In which time a rollout that is under way would exceed its deadline.
fn until_deadline(list: &[DeploymentCondition], deadline: Duration, now: Timestamp) -> Option<Duration> {
    let current = conditions::get(list, PROGRESSING)?;
    if matches!(current.reason.as_deref(), Some(NEW_AVAILABLE | TIMED_OUT))
        || current.status.as_deref() != Some("True")
    {
        return None;
    }
    let left = deadline.saturating_sub(since_update(current, now)?);
    // Times in the API are whole seconds.
    Some(left + Duration::from_secs(1))
}

/// Passes a ReplicaSet's trouble on.
fn set_failure(list: &mut Vec<DeploymentCondition>, sets: &Sets) {
    let failure = sets.all().find_map(|set| {
        let all = set.status.as_ref()?.conditions.as_deref()?;
        conditions::get(all, REPLICA_FAILURE)
    });
    match failure {
        None => _ = conditions::remove(list, REPLICA_FAILURE),
        Some(failure) => {
            let passed_on = DeploymentCondition {
                type_: Some(REPLICA_FAILURE.into()),
                status: failure.status.clone(),
                reason: failure.reason.clone(),
                message: failure.message.clone(),
                last_transition_time: failure.last_transition_time.clone(),
                last_update_time: failure.last_transition_time.clone(),
            };
            set(list, passed_on);
        }
    }
}

/// Tells that the new ReplicaSet was made or found, unless the list knows of progress already.
pub(crate) fn note_new_set(list: &mut Vec<DeploymentCondition>, name: &str, created: bool, now: Timestamp) {
    let (reason, message) = if created {
        (
            "NewReplicaSetCreated",
            format!("Created new replica set \"{name}\""),
        )
    } else if conditions::get(list, PROGRESSING).is_none() {
        ("FoundNewReplicaSet", format!("Found new replica set \"{name}\""))
    } else {
        return;
    };
    set(list, condition(PROGRESSING, true, reason, message, now));
}

/// Tells that the new ReplicaSet could not be made.
pub(crate) fn note_create_error(list: &mut Vec<DeploymentCondition>, error: &str, now: Timestamp) {
    set(
        list,
        condition(PROGRESSING, false, "ReplicaSetCreateError", error, now),
    );
}

/// Tells that a Deployment was paused or resumed, so that its deadline does not run meanwhile. Returns whether that
/// is news.
pub(crate) fn note_pause(list: &mut Vec<DeploymentCondition>, paused: bool, now: Timestamp) -> bool {
    let current = conditions::get(list, PROGRESSING);
    let reason = current.and_then(|condition| condition.reason.as_deref());
    let told = reason == Some("DeploymentPaused");
    if reason == Some(TIMED_OUT) || paused == told {
        return false;
    }
    let (reason, message) = if paused {
        ("DeploymentPaused", "Deployment is paused")
    } else {
        ("DeploymentResumed", "Deployment is resumed")
    };
    let mut note = condition(PROGRESSING, true, reason, message, now);
    note.status = Some("Unknown".into());
    set(list, note);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::apps::v1::ReplicaSetStatus;
    use std::sync::Arc;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn deployment(replicas: i32) -> Deployment {
        let mut deployment = Deployment::default();
        deployment.metadata.name = Some("web".into());
        deployment.metadata.generation = Some(1);
        let spec = &mut deployment.spec;
        spec.replicas = Some(replicas);
        spec.progress_deadline_seconds = Some(600);
        deployment
    }

    fn sets(wanted: i32, available: i32) -> Sets {
        let mut set = ReplicaSet::default();
        set.metadata.name = Some("web-1".into());
        set.spec.replicas = Some(wanted);
        set.status = Some(ReplicaSetStatus {
            replicas: wanted,
            ready_replicas: Some(available),
            available_replicas: Some(available),
            ..ReplicaSetStatus::default()
        });
        Sets {
            new: Some(Arc::new(set)),
            old: Vec::new(),
        }
    }

    fn reason(deployment: &Deployment, type_: &str) -> Option<String> {
        let list = deployment.status.as_ref()?.conditions.as_deref()?;
        conditions::get(list, type_)?.reason.clone()
    }

    #[test]
    fn a_rollout_progresses_and_completes() {
        let mut web = deployment(3);
        let first = report(&web, &sets(3, 1), None, at(10));
        assert_eq!(first.status.unavailable_replicas, Some(2));
        assert_eq!(first.again_in, Some(Duration::from_secs(601)));
        web.status = Some(first.status);
        assert_eq!(reason(&web, PROGRESSING).as_deref(), Some("ReplicaSetUpdated"));
        assert_eq!(
            reason(&web, AVAILABLE).as_deref(),
            Some("MinimumReplicasUnavailable")
        );

        let done = report(&web, &sets(3, 3), None, at(20));
        assert_eq!(done.again_in, None);
        web.status = Some(done.status);
        assert_eq!(reason(&web, PROGRESSING).as_deref(), Some(NEW_AVAILABLE));
        assert_eq!(
            reason(&web, AVAILABLE).as_deref(),
            Some("MinimumReplicasAvailable")
        );
        let message = web
            .status
            .as_ref()
            .and_then(|status| status.conditions.as_deref()?[1].message.clone());
        assert_eq!(
            message.as_deref(),
            Some("ReplicaSet \"web-1\" has successfully progressed.")
        );

        let again = report(&web, &sets(3, 3), None, at(2000)).status;
        assert_eq!(web.status, Some(again), "nothing new is no change");
    }

    #[test]
    fn a_stuck_rollout_exceeds_its_deadline() {
        let mut web = deployment(3);
        web.status = Some(report(&web, &sets(3, 1), None, at(10)).status);
        web.status = Some(report(&web, &sets(3, 1), None, at(609)).status);
        assert_eq!(reason(&web, PROGRESSING).as_deref(), Some("ReplicaSetUpdated"));
        web.status = Some(report(&web, &sets(3, 1), None, at(611)).status);
        assert_eq!(reason(&web, PROGRESSING).as_deref(), Some(TIMED_OUT));
        web.status = Some(report(&web, &sets(3, 3), None, at(700)).status);
        assert_eq!(
            reason(&web, PROGRESSING).as_deref(),
            Some(NEW_AVAILABLE),
            "late is still done"
        );
    }

    #[test]
    fn pausing_and_resuming_are_told_once() {
        let mut list = Vec::new();
        assert!(!note_pause(&mut list, false, at(1)));
        assert!(note_pause(&mut list, true, at(1)));
        assert!(!note_pause(&mut list, true, at(2)));
        assert!(note_pause(&mut list, false, at(3)));
        assert_eq!(list[0].reason.as_deref(), Some("DeploymentResumed"));
    }
}
