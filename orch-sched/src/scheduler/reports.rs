//! Which `PodScheduled` conditions are on their way.
//!
//! Attempts can follow each other faster than the API server answers, and faster than the informer tells what was written. So
//! for each pod one write is under way at a time, the newest word waits for its end, and what is compared with is what was
//! written last, not what has been heard of it.

use crate::object::{PodInfo, PodKey};
use k8s_openapi::api::core::v1::PodCondition;
use std::collections::HashMap;
use std::sync::Arc;

/// What is to be said about a pod that got no node.
#[derive(Clone, Debug)]
pub(super) struct Report {
    pub(super) pod: Arc<PodInfo>,
    pub(super) reason: &'static str,
    pub(super) message: String,
    pub(super) nominated: Option<String>,
}

/// The reports of all pods that wait.
#[derive(Debug, Default)]
pub(super) struct Reports {
    pods: HashMap<PodKey, Reported>,
}

#[derive(Debug, Default)]
struct Reported {
    /// What is being written, or was written last.
    last: Option<PodCondition>,
    under_way: bool,
    next: Option<Report>,
}

impl Reports {
    /// Gives the report back if it can be written now; else it waits for [`ended`](Self::ended).
    pub(super) fn admit(&mut self, report: Report) -> Option<Report> {
        match self.pods.get_mut(&report.pod.key) {
            Some(reported) if reported.under_way => {
                reported.next = Some(report);
                None
            }
            _ => Some(report),
        }
    }

    /// The condition that stands in the pod's status as far as is known.
    pub(super) fn last<'a>(&'a self, pod: &'a PodInfo) -> Option<&'a PodCondition> {
        let written = self
            .pods
            .get(&pod.key)
            .and_then(|reported| reported.last.as_ref());
        written.or(pod.scheduled_condition.as_ref())
    }

    /// A write begins.
    pub(super) fn begun(&mut self, key: &PodKey, condition: PodCondition) {
        let reported = self.pods.entry(key.clone()).or_default();
        reported.last = Some(condition);
        reported.under_way = true;
    }

    /// A write has ended; returns what waited for that.
    pub(super) fn ended(&mut self, key: &PodKey, written: bool) -> Option<Report> {
        let reported = self.pods.get_mut(key)?;
        reported.under_way = false;
        let next = reported.next.take();
        if !written {
            self.pods.remove(key);
        }
        next
    }

    /// The pod is gone, or has a node.
    pub(super) fn forget(&mut self, key: &PodKey) {
        self.pods.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::pod;

    fn report(message: &str) -> Report {
        Report {
            pod: Arc::new(pod("p").uid("u").build()),
            reason: "Unschedulable",
            message: message.to_owned(),
            nominated: None,
        }
    }

    fn condition(message: &str) -> PodCondition {
        PodCondition {
            message: Some(message.to_owned()),
            ..PodCondition::default()
        }
    }

    #[test]
    fn the_newest_word_follows_the_write_under_way_and_is_held_against_it() {
        let mut reports = Reports::default();
        let first = reports.admit(report("first")).unwrap();
        reports.begun(&first.pod.key, condition("first"));
        assert!(reports.admit(report("second")).is_none());
        assert!(reports.admit(report("third")).is_none());
        let next = reports.ended(&first.pod.key, true).unwrap();
        assert_eq!(next.message, "third");
        assert_eq!(reports.last(&next.pod), Some(&condition("first")));
        assert!(reports.admit(next).is_some());
    }

    #[test]
    fn a_write_that_failed_and_a_pod_that_is_gone_are_forgotten() {
        let mut reports = Reports::default();
        let key = report("").pod.key.clone();
        reports.begun(&key, condition("lost"));
        assert!(reports.ended(&key, false).is_none());
        assert_eq!(reports.last(&report("").pod), None);
        reports.begun(&key, condition("late"));
        reports.forget(&key);
        assert!(reports.ended(&key, true).is_none());
    }
}
