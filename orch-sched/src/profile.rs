//! A scheduler's name and its policies, ordered and weighted.

use crate::policies;
use crate::policy::{QueueSort, SchedulerPolicy};
use std::fmt;
use std::sync::Arc;

/// A set of policies of one profile, by their place in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PolicySet(u64);

impl PolicySet {
    /// How many policies a profile may have.
    pub const MAX: usize = 64;

    /// Adds the policy at that place.
    pub fn insert(&mut self, policy: usize) {
        self.0 |= 1 << policy;
    }

    /// True when the policy at that place is in the set.
    #[must_use]
    pub fn contains(self, policy: usize) -> bool {
        self.0 >> policy & 1 == 1
    }

    /// True when no policy is in the set.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The places, ascending.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..Self::MAX).filter(move |&policy| self.contains(policy))
    }
}

/// The name in `spec.schedulerName` of the default scheduler.
pub const DEFAULT_SCHEDULER_NAME: &str = "default-scheduler";

/// How the pods that name one scheduler are placed.
///
/// ```
/// use orch_sched::{Profile, policies::NodeUnschedulable};
///
/// let profile = Profile::upstream();
/// assert_eq!(profile.name(), "default-scheduler");
/// let strict = Profile::new("strict").policy(NodeUnschedulable);
/// assert_eq!(strict.policies().count(), 1);
/// ```
#[derive(Clone)]
pub struct Profile {
    name: String,
    entries: Vec<Entry>,
}

#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) policy: Arc<dyn SchedulerPolicy>,
    pub(crate) weight: i64,
}

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProfileError {
    /// Two policies have the same name.
    #[error("profile {profile:?} has more than one policy named {policy:?}")]
    DuplicatePolicy {
        /// The profile's name.
        profile: String,
        /// The policy's name.
        policy: String,
    },
    /// There are more policies than a profile can hold.
    #[error("profile {profile:?} has {count} policies, the most is {}", PolicySet::MAX)]
    TooManyPolicies {
        /// The profile's name.
        profile: String,
        /// How many it has.
        count: usize,
    },
    /// A weight is below 1.
    #[error("policy {policy:?} of profile {profile:?} has weight {weight}, the least is 1")]
    BadWeight {
        /// The profile's name.
        profile: String,
        /// The policy's name.
        policy: String,
        /// Its weight.
        weight: i64,
    },
    /// Two profiles have the same name.
    #[error("more than one profile is named {0:?}")]
    DuplicateProfile(String),
    /// There is no profile at all.
    #[error("a scheduler needs at least one profile")]
    NoProfile,
}

impl Profile {
    /// A profile without policies.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            entries: Vec::new(),
        }
    }

    /// The default scheduler with upstream's default policies and weights, as far as they are built. Pods that ask for what is not
    /// are held back by [`NotBuiltYet`](policies::NotBuiltYet).
    #[must_use]
    pub fn upstream() -> Self {
        Self::new(DEFAULT_SCHEDULER_NAME)
            .policy(policies::SchedulingGates)
            .policy(policies::PrioritySort)
            .policy(policies::NotBuiltYet)
            .policy(policies::NodeUnschedulable)
            .policy(policies::NodeName)
            .weighted(policies::TaintToleration, 3)
            .weighted(policies::NodeAffinity::default(), 2)
            .policy(policies::NodePorts)
            .policy(policies::NodeResourcesFit::default())
            .weighted(policies::PodTopologySpread, 2)
            .weighted(policies::InterPodAffinity::default(), 2)
            .policy(policies::NodeResourcesBalancedAllocation::default())
    }

    /// The same policies under another name.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Adds a policy at the end, with weight 1.
    #[must_use]
    pub fn policy(self, policy: impl SchedulerPolicy + 'static) -> Self {
        self.weighted(policy, 1)
    }

    /// Adds a policy at the end, whose scores count so many times.
    #[must_use]
    pub fn weighted(self, policy: impl SchedulerPolicy + 'static, weight: i64) -> Self {
        self.shared(Arc::new(policy), weight)
    }

    /// Adds a policy at the end that others hold too.
    #[must_use]
    pub fn shared(mut self, policy: Arc<dyn SchedulerPolicy>, weight: i64) -> Self {
        self.entries.push(Entry { policy, weight });
        self
    }

    /// Takes the policy of that name out.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.entries.retain(|entry| entry.policy.name() != name);
        self
    }

    /// The scheduler's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The policies with their weights, in order.
    pub fn policies(&self) -> impl Iterator<Item = (&Arc<dyn SchedulerPolicy>, i64)> {
        self.entries.iter().map(|entry| (&entry.policy, entry.weight))
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(crate) fn queue_sort(&self) -> Option<&dyn QueueSort> {
        self.entries.iter().find_map(|entry| entry.policy.queue_sort())
    }

    /// The names of a set of policies, in the profile's order.
    pub(crate) fn names(&self, set: PolicySet) -> Vec<&str> {
        set.iter()
            .filter_map(|at| self.entries.get(at))
            .map(|entry| entry.policy.name())
            .collect()
    }

    pub(crate) fn check(&self) -> Result<(), ProfileError> {
        let profile = || self.name.clone();
        if self.entries.len() > PolicySet::MAX {
            return Err(ProfileError::TooManyPolicies {
                profile: profile(),
                count: self.entries.len(),
            });
        }
        for (at, entry) in self.entries.iter().enumerate() {
            let policy = entry.policy.name();
            if self.entries[..at]
                .iter()
                .any(|earlier| earlier.policy.name() == policy)
            {
                return Err(ProfileError::DuplicatePolicy {
                    profile: profile(),
                    policy: policy.to_owned(),
                });
            }
            if entry.weight < 1 {
                return Err(ProfileError::BadWeight {
                    profile: profile(),
                    policy: policy.to_owned(),
                    weight: entry.weight,
                });
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let policies = self
            .entries
            .iter()
            .map(|entry| (entry.policy.name(), entry.weight));
        f.debug_struct("Profile")
            .field("name", &self.name)
            .field("policies", &policies.collect::<Vec<_>>())
            .finish()
    }
}

/// Checks profiles that are to serve together.
pub(crate) fn check_all(profiles: &[Profile]) -> Result<(), ProfileError> {
    if profiles.is_empty() {
        return Err(ProfileError::NoProfile);
    }
    for (at, profile) in profiles.iter().enumerate() {
        profile.check()?;
        if profiles[..at].iter().any(|earlier| earlier.name == profile.name) {
            return Err(ProfileError::DuplicateProfile(profile.name.clone()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_that_make_no_sense_are_refused() {
        let twice = Profile::upstream().policy(policies::NodeName);
        assert!(
            matches!(twice.check(), Err(ProfileError::DuplicatePolicy { policy, .. }) if policy == "NodeName")
        );
        let weightless = Profile::new("x").weighted(policies::NodeName, 0);
        assert!(matches!(
            weightless.check(),
            Err(ProfileError::BadWeight { weight: 0, .. })
        ));
        assert!(matches!(check_all(&[]), Err(ProfileError::NoProfile)));
        let same = [Profile::upstream(), Profile::upstream()];
        assert!(matches!(check_all(&same), Err(ProfileError::DuplicateProfile(_))));
        assert!(check_all(&[Profile::upstream(), Profile::upstream().named("second")]).is_ok());
    }

    #[test]
    fn a_policy_can_be_taken_out_by_name() {
        let profile = Profile::upstream().without("NodePorts");
        assert!(profile.policies().all(|(policy, _)| policy.name() != "NodePorts"));
    }
}
