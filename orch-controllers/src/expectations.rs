//! What a controller did and has not yet seen in its informer.
//!
//! Between a create's answer and its watch event the cache is one pod short, and a controller that trusted it would
//! create one too many. So it records the uids that it made or removed, and waits until the informer has shown them.
//!
//! An event may also come before the answer, and even the object's end may: a uid that is gone while a [`Batch`] of
//! requests is under way is remembered until the batch is over, and not expected when its creation is answered at last.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use orch_core::key::NamespacedName;
use parking_lot::Mutex;
use tokio::time::Instant;

/// After this an event is taken to be lost, as upstream does: better one pod too many than none ever again.
const TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// The outstanding creations and deletions of each owner.
#[derive(Debug, Default)]
pub(crate) struct Expectations {
    owners: Mutex<HashMap<NamespacedName, Outstanding>>,
}

#[derive(Debug)]
struct Outstanding {
    since: Instant,
    created: HashSet<String>,
    deleted: HashSet<String>,
    /// Batches under way.
    batches: usize,
    /// What went while a batch was under way.
    gone: HashSet<String>,
}

/// Requests for one owner that are not all answered yet; dropped when they are.
#[derive(Debug)]
pub(crate) struct Batch<'a> {
    expectations: &'a Expectations,
    owner: &'a NamespacedName,
}

impl Expectations {
    /// Requests for `owner` are about to be sent.
    pub(crate) fn batch<'a>(&'a self, owner: &'a NamespacedName) -> Batch<'a> {
        self.change(owner, |outstanding| outstanding.batches += 1);
        Batch {
            expectations: self,
            owner,
        }
    }

    /// An object is gone: nothing more is to be seen of it.
    pub(crate) fn gone(&self, owner: &NamespacedName, uid: &str) {
        if let Some(outstanding) = self.owners.lock().get_mut(owner) {
            outstanding.created.remove(uid);
            outstanding.deleted.remove(uid);
            if outstanding.batches > 0 {
                outstanding.gone.insert(uid.to_owned());
            }
        }
    }

    /// Nothing is expected for `owner` any more: it is gone.
    pub(crate) fn forget(&self, owner: &NamespacedName) {
        self.owners.lock().remove(owner);
    }

    /// How long to wait, at most, until the cache shows all that was done for `owner`; `None` when it does. `present`
    /// are the uids in the cache, with whether each is being deleted.
    pub(crate) fn still_to_wait<'a>(
        &self,
        owner: &NamespacedName,
        present: impl Iterator<Item = (&'a str, bool)>,
    ) -> Option<Duration> {
        let mut owners = self.owners.lock();
        let outstanding = owners.get_mut(owner)?;
        let present: HashMap<&str, bool> = present.collect();
        outstanding
            .created
            .retain(|uid| !present.contains_key(uid.as_str()));
        outstanding
            .deleted
            .retain(|uid| present.get(uid.as_str()) == Some(&false));
        let left = TIMEOUT.saturating_sub(outstanding.since.elapsed());
        if outstanding.is_empty() || left.is_zero() {
            owners.remove(owner);
            return None;
        }
        Some(left)
    }

    fn change(&self, owner: &NamespacedName, change: impl FnOnce(&mut Outstanding)) {
        let mut owners = self.owners.lock();
        let outstanding = owners.entry(owner.clone()).or_insert_with(|| Outstanding {
            since: Instant::now(),
            created: HashSet::new(),
            deleted: HashSet::new(),
            batches: 0,
            gone: HashSet::new(),
        });
        outstanding.since = Instant::now();
        change(outstanding);
    }
}

impl Outstanding {
    fn is_empty(&self) -> bool {
        self.created.is_empty() && self.deleted.is_empty()
    }
}

impl Batch<'_> {
    /// An object with this uid was created.
    pub(crate) fn created(&self, uid: &str) {
        self.expectations.change(self.owner, |outstanding| {
            if !outstanding.gone.contains(uid) {
                outstanding.created.insert(uid.to_owned());
            }
        });
    }

    /// The deletion of an object was acknowledged.
    pub(crate) fn deleted(&self, uid: &str) {
        self.expectations.change(self.owner, |outstanding| {
            if !outstanding.gone.contains(uid) {
                outstanding.deleted.insert(uid.to_owned());
            }
        });
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        let mut owners = self.expectations.owners.lock();
        let Some(outstanding) = owners.get_mut(self.owner) else {
            return;
        };
        outstanding.batches = outstanding.batches.saturating_sub(1);
        if outstanding.batches == 0 {
            outstanding.gone.clear();
            if outstanding.is_empty() {
                owners.remove(self.owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fulfilled(expectations: &Expectations, owner: &NamespacedName, present: &[(&str, bool)]) -> bool {
        expectations
            .still_to_wait(owner, present.iter().copied())
            .is_none()
    }

    #[test]
    fn a_creation_is_expected_until_the_cache_shows_it() {
        let (expectations, owner) = (Expectations::default(), NamespacedName::new("ns", "web"));
        assert!(fulfilled(&expectations, &owner, &[]));
        expectations.batch(&owner).created("a");
        assert!(!fulfilled(&expectations, &owner, &[("b", false)]));
        assert!(fulfilled(&expectations, &owner, &[("a", false), ("b", false)]));
        assert!(
            fulfilled(&expectations, &owner, &[]),
            "fulfilled once is forgotten"
        );
    }

    #[test]
    fn a_deletion_is_expected_until_the_object_terminates_or_is_gone() {
        let (expectations, owner) = (Expectations::default(), NamespacedName::new("ns", "web"));
        expectations.batch(&owner).deleted("a");
        assert!(!fulfilled(&expectations, &owner, &[("a", false)]));
        assert!(fulfilled(&expectations, &owner, &[("a", true)]));
        expectations.batch(&owner).deleted("b");
        assert!(fulfilled(&expectations, &owner, &[]));
    }

    #[test]
    fn what_came_and_went_unseen_is_not_waited_for() {
        let (expectations, owner) = (Expectations::default(), NamespacedName::new("ns", "web"));
        expectations.batch(&owner).created("a");
        expectations.gone(&owner, "a");
        assert!(fulfilled(&expectations, &owner, &[]));
    }

    #[test]
    fn what_went_before_its_creation_was_answered_is_not_waited_for() {
        let (expectations, owner) = (Expectations::default(), NamespacedName::new("ns", "web"));
        let batch = expectations.batch(&owner);
        expectations.gone(&owner, "a");
        batch.created("a");
        batch.created("b");
        drop(batch);
        assert!(!fulfilled(&expectations, &owner, &[]));
        assert!(fulfilled(&expectations, &owner, &[("b", false)]));
    }

    #[test]
    fn an_answered_batch_that_did_nothing_leaves_nothing() {
        let (expectations, owner) = (Expectations::default(), NamespacedName::new("ns", "web"));
        drop(expectations.batch(&owner));
        assert!(expectations.owners.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_event_is_given_up_after_five_minutes() {
        let (expectations, owner) = (Expectations::default(), NamespacedName::new("ns", "web"));
        expectations.batch(&owner).created("a");
        tokio::time::advance(Duration::from_secs(60)).await;
        let left = expectations.still_to_wait(&owner, std::iter::empty());
        assert_eq!(left, Some(Duration::from_secs(240)));
        tokio::time::advance(Duration::from_secs(240)).await;
        assert!(fulfilled(&expectations, &owner, &[]));
    }
}
