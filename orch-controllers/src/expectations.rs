//! What a controller did and has not yet seen in its informer.
//!
//! Between a create's answer and its watch event the cache is one pod short, and a controller that trusted it would
//! create one too many. So it records the uids that it made or removed, and waits until the informer has shown them.

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
}

impl Expectations {
    /// An object with this uid was created for `owner`.
    pub(crate) fn created(&self, owner: &NamespacedName, uid: &str) {
        self.note(owner, |outstanding| outstanding.created.insert(uid.to_owned()));
    }

    /// The deletion of an object of `owner` was acknowledged.
    pub(crate) fn deleted(&self, owner: &NamespacedName, uid: &str) {
        self.note(owner, |outstanding| outstanding.deleted.insert(uid.to_owned()));
    }

    /// Nothing is expected for `owner` any more: it is gone.
    pub(crate) fn forget(&self, owner: &NamespacedName) {
        self.owners.lock().remove(owner);
    }

    /// Whether the cache shows all that was done for `owner`. `present` are the uids in the cache, with whether each is
    /// being deleted.
    pub(crate) fn fulfilled<'a>(
        &self,
        owner: &NamespacedName,
        present: impl Iterator<Item = (&'a str, bool)>,
    ) -> bool {
        let mut owners = self.owners.lock();
        let Some(outstanding) = owners.get_mut(owner) else {
            return true;
        };
        let present: HashMap<&str, bool> = present.collect();
        outstanding
            .created
            .retain(|uid| !present.contains_key(uid.as_str()));
        outstanding
            .deleted
            .retain(|uid| present.get(uid.as_str()) == Some(&false));
        let fulfilled = (outstanding.created.is_empty() && outstanding.deleted.is_empty())
            || outstanding.since.elapsed() > TIMEOUT;
        if fulfilled {
            owners.remove(owner);
        }
        fulfilled
    }

    fn note(&self, owner: &NamespacedName, change: impl FnOnce(&mut Outstanding) -> bool) {
        let mut owners = self.owners.lock();
        let outstanding = owners.entry(owner.clone()).or_insert_with(|| Outstanding {
            since: Instant::now(),
            created: HashSet::new(),
            deleted: HashSet::new(),
        });
        outstanding.since = Instant::now();
        change(outstanding);
    }

    /// An object came and went before the cache could show it.
    pub(crate) fn gone(&self, owner: &NamespacedName, uid: &str) {
        if let Some(outstanding) = self.owners.lock().get_mut(owner) {
            outstanding.created.remove(uid);
            outstanding.deleted.remove(uid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_creation_is_expected_until_the_cache_shows_it() {
        let (expectations, owner) = (Expectations::default(), NamespacedName::new("ns", "web"));
        assert!(expectations.fulfilled(&owner, std::iter::empty()));
        expectations.created(&owner, "a");
        assert!(!expectations.fulfilled(&owner, [("b", false)].into_iter()));
        assert!(expectations.fulfilled(&owner, [("a", false), ("b", false)].into_iter()));
        assert!(
            expectations.fulfilled(&owner, std::iter::empty()),
            "fulfilled once is forgotten"
        );
    }

    #[test]
    fn a_deletion_is_expected_until_the_object_terminates_or_is_gone() {
        let (expectations, owner) = (Expectations::default(), NamespacedName::new("ns", "web"));
        expectations.deleted(&owner, "a");
        assert!(!expectations.fulfilled(&owner, [("a", false)].into_iter()));
        assert!(expectations.fulfilled(&owner, [("a", true)].into_iter()));
        expectations.deleted(&owner, "b");
        assert!(expectations.fulfilled(&owner, std::iter::empty()));
    }

    #[test]
    fn what_came_and_went_unseen_is_not_waited_for() {
        let (expectations, owner) = (Expectations::default(), NamespacedName::new("ns", "web"));
        expectations.created(&owner, "a");
        expectations.gone(&owner, "a");
        assert!(expectations.fulfilled(&owner, std::iter::empty()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_event_is_given_up_after_five_minutes() {
        let (expectations, owner) = (Expectations::default(), NamespacedName::new("ns", "web"));
        expectations.created(&owner, "a");
        tokio::time::advance(TIMEOUT + Duration::from_secs(1)).await;
        assert!(expectations.fulfilled(&owner, std::iter::empty()));
    }
}
