//! Status conditions: finding and setting them by type, keeping `lastTransitionTime` honest.
//!
//! ```
//! use k8s_openapi::api::core::v1::PodCondition;
//! use orch_core::conditions;
//!
//! let mut list = Vec::new();
//! let ready = PodCondition { type_: "Ready".into(), status: "True".into(), ..Default::default() };
//! assert!(conditions::set(&mut list, ready.clone()));
//! assert!(conditions::is_true(&list, "Ready"));
//! assert!(!conditions::set(&mut list, ready), "nothing new");
//! ```

use k8s_openapi::api::apps::v1::{
    DaemonSetCondition, DeploymentCondition, ReplicaSetCondition, StatefulSetCondition,
};
use k8s_openapi::api::batch::v1::JobCondition;
use k8s_openapi::api::core::v1::{NamespaceCondition, NodeCondition, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition as MetaCondition, Time};
use k8s_openapi::jiff::Timestamp;

/// What all condition types of the Kubernetes API have in common.
pub trait Condition: PartialEq {
    /// The condition's type, its key in the list.
    fn type_(&self) -> &str;
    /// `True`, `False` or `Unknown`.
    fn status(&self) -> &str;
    /// The machine-readable reason.
    fn reason(&self) -> Option<&str>;
    /// When the status last changed.
    fn last_transition(&self) -> Option<&Time>;
    /// Sets when the status last changed.
    fn set_last_transition(&mut self, at: Option<Time>);
}

/// Some kinds have these fields optional; an absent one reads as empty.
trait Text {
    fn text(&self) -> &str;
}

impl Text for String {
    fn text(&self) -> &str {
        self
    }
}

impl Text for Option<String> {
    fn text(&self) -> &str {
        self.as_deref().unwrap_or_default()
    }
}

macro_rules! condition {
    ($($kind:ty),*) => {$(
        impl Condition for $kind {
            fn type_(&self) -> &str { self.type_.text() }
            fn status(&self) -> &str { self.status.text() }
            fn reason(&self) -> Option<&str> { self.reason.as_deref() }
            fn last_transition(&self) -> Option<&Time> { self.last_transition_time.as_ref() }
            fn set_last_transition(&mut self, at: Option<Time>) { self.last_transition_time = at; }
        }
    )*};
}

condition!(
    PodCondition,
    NodeCondition,
    NamespaceCondition,
    DeploymentCondition,
    ReplicaSetCondition,
    StatefulSetCondition,
    DaemonSetCondition,
    JobCondition
);

impl Condition for MetaCondition {
    fn type_(&self) -> &str {
        &self.type_
    }
    fn status(&self) -> &str {
        &self.status
    }
    fn reason(&self) -> Option<&str> {
        Some(&self.reason)
    }
    fn last_transition(&self) -> Option<&Time> {
        Some(&self.last_transition_time)
    }
    fn set_last_transition(&mut self, at: Option<Time>) {
        if let Some(at) = at {
            self.last_transition_time = at;
        }
    }
}

/// The condition of that type.
pub fn get<'a, C: Condition>(conditions: &'a [C], type_: &str) -> Option<&'a C> {
    conditions.iter().find(|condition| condition.type_() == type_)
}

/// Whether the condition of that type exists and is `True`.
pub fn is_true<C: Condition>(conditions: &[C], type_: &str) -> bool {
    get(conditions, type_).is_some_and(|condition| condition.status() == "True")
}

/// Adds `condition` or replaces the one of its type; says whether anything changed.
///
/// `lastTransitionTime` stays as it was while the status stays; where it is needed and missing, it is now.
pub fn set<C: Condition>(conditions: &mut Vec<C>, mut condition: C) -> bool {
    let Some(present) = conditions.iter_mut().find(|c| c.type_() == condition.type_()) else {
        if condition.last_transition().is_none() {
            condition.set_last_transition(Some(now()));
        }
        conditions.push(condition);
        return true;
    };
    if present.status() == condition.status() {
        condition.set_last_transition(present.last_transition().cloned());
    } else if condition.last_transition().is_none() {
        condition.set_last_transition(Some(now()));
    }
    let changed = *present != condition;
    *present = condition;
    changed
}

/// Removes the condition of that type; says whether there was one.
pub fn remove<C: Condition>(conditions: &mut Vec<C>, type_: &str) -> bool {
    let before = conditions.len();
    conditions.retain(|condition| condition.type_() != type_);
    conditions.len() != before
}

/// The present time in whole seconds, which is what the API keeps of a `Time`.
pub fn now() -> Time {
    let now = Timestamp::now();
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(status: &str, reason: &str) -> NodeCondition {
        NodeCondition {
            type_: "Ready".into(),
            status: status.into(),
            reason: Some(reason.into()),
            ..NodeCondition::default()
        }
    }

    #[test]
    fn the_transition_time_moves_only_with_the_status() {
        let mut list = vec![ready("True", "A")];
        let past = Time(Timestamp::from_second(1000).unwrap());
        list[0].last_transition_time = Some(past.clone());
        assert!(set(&mut list, ready("True", "B")), "the reason changed");
        assert_eq!(list[0].last_transition_time, Some(past.clone()));
        assert!(set(&mut list, ready("False", "B")));
        assert!(list[0].last_transition_time.as_ref().unwrap().0 > past.0);
    }

    #[test]
    fn removing_says_whether_it_was_there() {
        let mut list = vec![ready("True", "A")];
        assert!(remove(&mut list, "Ready"));
        assert!(!remove(&mut list, "Ready"));
        assert!(!is_true(&list, "Ready"));
    }
}
