//! What was asked of a store and what it promised, to be held against what is there after a crash.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use orch_store::{Event, EventKind, ListOptions, Revision, Store, StoreError, Watcher};

/// A write: the key and its new value, or `None` for a deletion.
pub(crate) type Write = (Bytes, Option<Bytes>);

#[derive(Debug, Default)]
pub(crate) struct Witness {
    /// The writes that were acknowledged or seen.
    pub(crate) certain: BTreeMap<Revision, Write>,
    /// The writes whose outcome nobody knows.
    pub(crate) unknown: Vec<Write>,
    /// The newest revision to which history was compacted for certain, and that to which it may have been.
    pub(crate) compacted: (Revision, Revision),
    /// The newest revision that anyone was told of.
    pub(crate) told: Revision,
}

impl Witness {
    pub(crate) fn acknowledge(&mut self, revision: Revision, write: &Write) {
        self.told = self.told.max(revision);
        let known = self.certain.entry(revision).or_insert_with(|| write.clone());
        assert_eq!(*known, *write, "revision {revision} was given to two writes");
    }

    pub(crate) fn observe(&mut self, event: &Event) {
        let value = (event.kind == EventKind::Put).then(|| event.kv.value.clone());
        self.acknowledge(event.revision(), &(event.key().clone(), value));
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
        assert!(floor <= self.compacted.1, "history is gone without being asked");
        self.compacted = (floor, floor);
        self.check_history(store, floor, current).await;
        self.check_state(store).await;
        self.unknown.clear();
        self.told = current;
    }

    async fn check_history(&mut self, store: &dyn Store, floor: Revision, current: Revision) {
        let mut watcher = store.watch(b"", floor).await.unwrap();
        let mut found = BTreeMap::new();
        for event in read_until(watcher.as_mut(), current).await.unwrap() {
            let value = (event.kind == EventKind::Put).then(|| event.kv.value.clone());
            found.insert(event.revision(), (event.key().clone(), value));
        }
        for (revision, write) in self.certain.range(floor.next()..) {
            assert_eq!(found.get(revision), Some(write), "the write at {revision}");
        }
        for (revision, write) in found {
            if !self.certain.contains_key(&revision) {
                assert!(
                    self.unknown.contains(&write),
                    "the write at {revision} was never asked for"
                );
                self.certain.insert(revision, write);
            }
        }
    }

    async fn check_state(&self, store: &dyn Store) {
        let mut expected = BTreeMap::new();
        for (key, value) in self.certain.values() {
            match value {
                Some(value) => expected.insert(key.clone(), value.clone()),
                None => expected.remove(key),
            };
        }
        let page = store.list(b"", ListOptions::default()).await.unwrap();
        let found = page.items.into_iter().map(|kv| (kv.key, kv.value));
        assert_eq!(found.collect::<BTreeMap<_, _>>(), expected);
    }
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
