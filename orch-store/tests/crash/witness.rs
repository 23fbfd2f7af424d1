//! What was asked of a store and what it promised, to be held against what is there after a crash.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use orch_store::{Event, EventKind, ListOptions, Revision, Store, StoreError, Watcher};

/// The prefix of the keys whose newest writes a crash may take, in the tests that use it.
pub(crate) const VOLATILE: &str = "/registry/leases/";

/// A write: the key and its new value, or `None` for a deletion.
pub(crate) type Write = (Bytes, Option<Bytes>);

type Writes = BTreeMap<Revision, Write>;

#[derive(Debug, Default)]
pub(crate) struct Witness {
    /// The writes that were acknowledged or seen, and those after the last durable one that may go in a crash.
    certain: Writes,
    volatile: Writes,
    /// All that anyone was ever shown, also what a crash took.
    shown: Writes,
    /// Whether there are volatile writes, so that a crash may cost the history.
    pub(crate) has_volatile: bool,
    /// The writes whose outcome nobody knows.
    unknown: Vec<Write>,
    /// The newest revision to which history was compacted for certain, and that to which it may have been.
    pub(crate) compacted: (Revision, Revision),
    /// The newest revision that anyone was told of.
    told: Revision,
}

impl Witness {
    pub(crate) fn acknowledge(&mut self, revision: Revision, write: &Write) {
        self.told = self.told.max(revision);
        let known = self.shown.entry(revision).or_insert_with(|| write.clone());
        assert_eq!(known, write, "revision {revision} was given to two writes");
        let is_volatile = write.0.starts_with(VOLATILE.as_bytes());
        let writes = if is_volatile {
            &mut self.volatile
        } else {
            &mut self.certain
        };
        writes.insert(revision, write.clone());
    }

    pub(crate) fn observe(&mut self, event: &Event) {
        self.acknowledge(event.revision(), &as_write(event));
    }

    pub(crate) fn fail(&mut self, error: &StoreError, write: Write) {
        if error.outcome_is_unknown() {
            self.unknown.push(write);
        }
    }

    /// Checks a store after a crash against all that was promised before, and takes what it shows as the truth to go on from.
    pub(crate) async fn check(&mut self, store: &dyn Store) {
        let current = store.current_revision().await.unwrap();
        assert!(
            current >= self.told,
            "the store is at {current}, {} was acknowledged or shown",
            self.told
        );
        let floor = store.health().await.unwrap().compacted;
        assert!(floor >= self.compacted.0, "history that was gone came back");
        let skipped = floor == current && self.has_volatile;
        assert!(
            floor <= self.compacted.1 || skipped,
            "history is gone without being asked"
        );
        self.compacted = (floor, floor);
        self.check_history(store, floor, current).await;
        self.check_state(store).await;
        self.unknown.clear();
        self.told = current;
    }

    async fn check_history(&mut self, store: &dyn Store, floor: Revision, current: Revision) {
        let mut watcher = store.watch(b"", floor).await.unwrap();
        let events = read_until(watcher.as_mut(), current).await.unwrap();
        let found: Writes = events
            .iter()
            .map(|event| (event.revision(), as_write(event)))
            .collect();
        for (revision, write) in self.certain.range(floor.next()..) {
            assert_eq!(found.get(revision), Some(write), "the write at {revision}");
        }
        for (revision, write) in &found {
            assert!(
                self.shown.get(revision) == Some(write) || self.unknown.contains(write),
                "the write at {revision} was never asked for"
            );
            self.acknowledge(*revision, write);
        }
    }

    /// The state must be what the writes up to some point add up to: the last one, or if volatile ones are among them, any from
    /// the last durable one on.
    async fn check_state(&mut self, store: &dyn Store) {
        let page = store.list(b"", ListOptions::default()).await.unwrap();
        for kv in &page.items {
            let write = (kv.key.clone(), Some(kv.value.clone()));
            assert!(
                self.shown.contains_key(&kv.mod_revision) || self.unknown.contains(&write),
                "{kv:?} was never asked for"
            );
            self.acknowledge(kv.mod_revision, &write);
        }
        let found: BTreeMap<_, _> = page.items.into_iter().map(|kv| (kv.key, kv.value)).collect();
        self.adopt_deletions(&found);
        let all: Writes = self
            .certain
            .clone()
            .into_iter()
            .chain(self.volatile.clone())
            .collect();
        let durable = self
            .certain
            .last_key_value()
            .map_or(Revision::ZERO, |(last, _)| *last);
        let ends = self.volatile.range(durable..).map(|(end, _)| *end);
        let end = std::iter::once(durable)
            .chain(ends)
            .rfind(|end| state_at(&all, *end) == found);
        let Some(end) = end else {
            panic!("{found:?} is no state that there ever was: {all:?}");
        };
        self.volatile.retain(|revision, _| *revision <= end);
    }

    /// A deletion of unknown outcome that happened, seen only by what is missing where the history was given up.
    fn adopt_deletions(&mut self, found: &BTreeMap<Bytes, Bytes>) {
        for (key, value) in &self.unknown {
            if value.is_none() && !found.contains_key(key) {
                self.certain.retain(|_, (other, _)| other != key);
                self.volatile.retain(|_, (other, _)| other != key);
            }
        }
    }
}

fn as_write(event: &Event) -> Write {
    let value = (event.kind == EventKind::Put).then(|| event.kv.value.clone());
    (event.key().clone(), value)
}

fn state_at(writes: &Writes, end: Revision) -> BTreeMap<Bytes, Bytes> {
    let mut state = BTreeMap::new();
    for (key, value) in writes.range(..=end).map(|(_, write)| write) {
        match value {
            Some(value) => state.insert(key.clone(), value.clone()),
            None => state.remove(key),
        };
    }
    state
}

pub(crate) async fn read_until(
    watcher: &mut dyn Watcher,
    revision: Revision,
) -> Result<Vec<Arc<Event>>, StoreError> {
    let mut events = Vec::new();
    watcher.progress_requester().request();
    loop {
        let batch = watcher.next().await?;
        events.extend(batch.events);
        if batch.revision >= revision {
            return Ok(events);
        }
    }
}
