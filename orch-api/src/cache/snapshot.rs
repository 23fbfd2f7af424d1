//! An ordered set of objects that never changes: writers make a new one, readers keep the one they have.

use std::cmp::Ordering;
use std::ops::Bound;
use std::sync::Arc;

use super::entry::Entry;

/// How many entries a chunk holds at most before it is split.
const CHUNK: usize = 128;

type Chunk = Arc<Vec<Arc<Entry>>>;

/// All objects of a resource at one revision, in the order of their keys.
///
/// Two levels of shared vectors: a change copies one chunk and the list of chunks, so a new snapshot costs the same
/// few microseconds for a hundred objects and for ten thousand, and shares nearly all of its memory with the last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    chunks: Arc<Vec<Chunk>>,
    len: usize,
    /// The state of the store that this is.
    pub(crate) revision: u64,
}

impl Snapshot {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The chunk in which a key is, or would be.
    fn chunk_of(&self, key: &[u8]) -> usize {
        let after = self
            .chunks
            .partition_point(|chunk| chunk.first().is_some_and(|first| first.key.as_ref() <= key));
        after.saturating_sub(1)
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&Arc<Entry>> {
        let chunk = self.chunks.get(self.chunk_of(key))?;
        let at = chunk.binary_search_by(|entry| entry.key.as_ref().cmp(key)).ok()?;
        chunk.get(at)
    }

    /// The entries whose keys begin with `prefix` and lie after `start`.
    pub(crate) fn range<'a>(
        &'a self,
        prefix: &'a [u8],
        start: Bound<&'a [u8]>,
    ) -> impl Iterator<Item = &'a Arc<Entry>> + 'a {
        let from = match start {
            Bound::Included(key) | Bound::Excluded(key) if key > prefix => key,
            _ => prefix,
        };
        let first = self.chunk_of(from);
        self.chunks
            .iter()
            .skip(first)
            .flat_map(|chunk| chunk.iter())
            .skip_while(move |entry| entry.key.as_ref() < from)
            .skip_while(move |entry| matches!(start, Bound::Excluded(key) if entry.key.as_ref() <= key))
            .take_while(move |entry| entry.key.starts_with(prefix))
    }

    /// Tells every entry that differs between an older snapshot and this one: as it was, and as it is. What both share is
    /// skipped chunk by chunk, so the work follows what has changed.
    pub(crate) fn changes_since(
        &self,
        old: &Snapshot,
        mut visit: impl FnMut(Option<&Arc<Entry>>, Option<&Arc<Entry>>),
    ) {
        if Arc::ptr_eq(&self.chunks, &old.chunks) {
            return;
        }
        let (mut before, mut after) = (Walk::new(&old.chunks), Walk::new(&self.chunks));
        loop {
            while before.skip_shared(&mut after) {}
            let order = match (before.entry(), after.entry()) {
                (None, None) => return,
                (None, Some(_)) => Ordering::Greater,
                (Some(_), None) => Ordering::Less,
                (Some(old), Some(new)) => old.key.cmp(&new.key),
            };
            match order {
                Ordering::Less => visit(before.take(), None),
                Ordering::Greater => visit(None, after.take()),
                Ordering::Equal => {
                    let (old, new) = (before.take(), after.take());
                    if old.map(|entry| entry.revision) != new.map(|entry| entry.revision) {
                        visit(old, new);
                    }
                }
            }
        }
    }

    /// Puts an entry in; gives back the one that it replaces.
    pub(crate) fn insert(&mut self, entry: Arc<Entry>) -> Option<Arc<Entry>> {
        let at = self.chunk_of(&entry.key);
        let chunks = Arc::make_mut(&mut self.chunks);
        let Some(chunk) = chunks.get_mut(at) else {
            chunks.push(Arc::new(vec![entry]));
            self.len += 1;
            return None;
        };
        let chunk = Arc::make_mut(chunk);
        match chunk.binary_search_by(|old| old.key.cmp(&entry.key)) {
            Ok(found) => Some(std::mem::replace(&mut chunk[found], entry)),
            Err(place) => {
                chunk.insert(place, entry);
                if chunk.len() > CHUNK {
                    // Keys that only grow (most names do not, events' do) keep the left chunk nearly full.
                    let split = if place + 1 == chunk.len() {
                        CHUNK
                    } else {
                        CHUNK / 2
                    };
                    let right = chunk.split_off(split);
                    chunks.insert(at + 1, Arc::new(right));
                }
                self.len += 1;
                None
            }
        }
    }

    /// Takes an entry out.
    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<Arc<Entry>> {
        self.get(key)?;
        let at = self.chunk_of(key);
        let chunks = Arc::make_mut(&mut self.chunks);
        let chunk = Arc::make_mut(chunks.get_mut(at)?);
        let found = chunk.binary_search_by(|old| old.key.as_ref().cmp(key)).ok()?;
        let removed = chunk.remove(found);
        if chunk.is_empty() {
            chunks.remove(at);
        }
        self.len -= 1;
        Some(removed)
    }
}

/// A place in a snapshot.
struct Walk<'a> {
    chunks: &'a [Chunk],
    at: usize,
}

impl<'a> Walk<'a> {
    fn new(chunks: &'a [Chunk]) -> Self {
        Self { chunks, at: 0 }
    }

    fn entry(&self) -> Option<&'a Arc<Entry>> {
        self.chunks.first()?.get(self.at)
    }

    fn take(&mut self) -> Option<&'a Arc<Entry>> {
        let entry = self.entry()?;
        self.at += 1;
        if self.chunks.first().is_some_and(|chunk| self.at == chunk.len()) {
            (self.chunks, self.at) = (&self.chunks[1..], 0);
        }
        Some(entry)
    }

    /// Steps over a chunk that both walks are about to enter; `false` when there is none.
    fn skip_shared(&mut self, other: &mut Self) -> bool {
        let (Some(own), Some(others)) = (self.chunks.first(), other.chunks.first()) else {
            return false;
        };
        if self.at != 0 || other.at != 0 || !Arc::ptr_eq(own, others) {
            return false;
        }
        self.chunks = &self.chunks[1..];
        other.chunks = &other.chunks[1..];
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn entry(key: &str, revision: u64) -> Arc<Entry> {
        let json = br#"{"metadata":{"name":"x"}}"#;
        Arc::new(Entry::new(key.to_owned().into(), json, revision).unwrap())
    }

    fn keys(snapshot: &Snapshot, prefix: &str, start: Bound<&[u8]>) -> Vec<String> {
        let range = snapshot.range(prefix.as_bytes(), start);
        range
            .map(|entry| String::from_utf8(entry.key.to_vec()).unwrap())
            .collect()
    }

    #[test]
    fn an_old_snapshot_does_not_see_later_changes() {
        let mut snapshot = Snapshot::default();
        snapshot.insert(entry("/a/1", 1));
        let old = snapshot.clone();
        snapshot.insert(entry("/a/2", 2));
        snapshot.remove(b"/a/1");
        assert_eq!(keys(&old, "/a/", Bound::Unbounded), ["/a/1"]);
        assert_eq!(keys(&snapshot, "/a/", Bound::Unbounded), ["/a/2"]);
        assert_eq!((old.len(), snapshot.len()), (1, 1));
    }

    #[test]
    fn a_range_begins_after_its_start() {
        let mut snapshot = Snapshot::default();
        for key in ["/a/1", "/a/2", "/a/3", "/b/1"] {
            snapshot.insert(entry(key, 1));
        }
        assert_eq!(keys(&snapshot, "/a/", Bound::Excluded(b"/a/1")), ["/a/2", "/a/3"]);
        assert_eq!(keys(&snapshot, "/a/", Bound::Included(b"/a/2")), ["/a/2", "/a/3"]);
        assert!(keys(&snapshot, "/a/", Bound::Excluded(b"/a/9")).is_empty());
        assert!(keys(&snapshot, "/c/", Bound::Unbounded).is_empty());
    }

    proptest! {
        #[test]
        fn a_snapshot_is_an_ordered_map(changes in proptest::collection::vec((any::<bool>(), 0_u16..400), 0..1500)) {
            let (mut snapshot, mut model) = (Snapshot::default(), BTreeMap::new());
            for (revision, (put, number)) in changes.into_iter().enumerate() {
                let key = format!("/p/{number:05}");
                if put {
                    let old = snapshot.insert(entry(&key, revision as u64));
                    prop_assert_eq!(old.map(|entry| entry.revision), model.insert(key, revision as u64));
                } else {
                    let old = snapshot.remove(key.as_bytes());
                    prop_assert_eq!(old.map(|entry| entry.revision), model.remove(&key));
                }
                prop_assert_eq!(snapshot.len(), model.len());
            }
            let found: Vec<_> = snapshot.range(b"/p/", Bound::Unbounded).map(|entry| entry.revision).collect();
            prop_assert_eq!(found, model.values().copied().collect::<Vec<_>>());
            for (key, revision) in &model {
                prop_assert_eq!(snapshot.get(key.as_bytes()).map(|entry| entry.revision), Some(*revision));
            }
        }

        #[test]
        fn what_has_changed_is_told_and_nothing_else(
            start in 0_u16..500,
            changes in proptest::collection::vec((any::<bool>(), 0_u16..600), 0..200),
        ) {
            let mut old = Snapshot::default();
            for number in 0..start {
                old.insert(entry(&format!("/p/{number:05}"), 1));
            }
            let mut new = old.clone();
            for (revision, (put, number)) in changes.into_iter().enumerate() {
                let key = format!("/p/{number:05}");
                if put {
                    new.insert(entry(&key, revision as u64 + 2));
                } else {
                    new.remove(key.as_bytes());
                }
            }
            let all = |snapshot: &Snapshot| -> BTreeMap<Bytes, u64> {
                let range = snapshot.range(b"/p/", Bound::Unbounded);
                range.map(|entry| (entry.key.clone(), entry.revision)).collect()
            };
            let mut followed = all(&old);
            let mut seen = 0;
            new.changes_since(&old, |before, after| {
                seen += 1;
                assert_eq!(before.map(|entry| entry.revision), before.and_then(|entry| followed.get(&entry.key).copied()));
                match after {
                    Some(entry) => followed.insert(entry.key.clone(), entry.revision),
                    None => before.and_then(|entry| followed.remove(&entry.key)),
                };
            });
            prop_assert_eq!(&followed, &all(&new));
            let (was, is) = (all(&old), all(&new));
            let differing = was.keys().chain(is.keys()).filter(|key| was.get(*key) != is.get(*key));
            prop_assert_eq!(seen, differing.collect::<std::collections::BTreeSet<_>>().len());
        }
    }
}
