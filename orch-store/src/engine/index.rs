use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

use crate::{KeyValue, Revision};

/// One value of a key, or its absence after a deletion.
#[derive(Debug, Clone)]
pub(crate) struct Version {
    pub(crate) mod_revision: u64,
    pub(crate) create_revision: u64,
    pub(crate) version: u64,
    /// When the key ends, in milliseconds since 1970; 0 for never.
    pub(crate) deadline: u64,
    /// `None` marks a deletion.
    pub(crate) value: Option<Bytes>,
}

impl Version {
    pub(crate) fn to_kv(&self, key: &Bytes) -> Option<KeyValue> {
        self.value.as_ref().map(|value| KeyValue {
            key: key.clone(),
            value: value.clone(),
            create_revision: Revision(self.create_revision),
            mod_revision: Revision(self.mod_revision),
            version: self.version,
        })
    }
}

/// The versions of one key. Most keys have one, which then needs no second allocation.
#[derive(Debug)]
struct Chain {
    newest: Version,
    /// Oldest first.
    older: Vec<Version>,
}

impl Chain {
    fn at(&self, revision: u64) -> Option<&Version> {
        if self.newest.mod_revision <= revision {
            return Some(&self.newest);
        }
        let after = self
            .older
            .partition_point(|version| version.mod_revision <= revision);
        after.checked_sub(1).map(|index| &self.older[index])
    }
}

/// All keys with all their versions since the last compaction.
#[derive(Debug, Default)]
pub(crate) struct Index {
    chains: BTreeMap<Bytes, Chain>,
}

impl Index {
    /// How many keys there are, deleted ones whose history is kept among them.
    pub(crate) fn len(&self) -> u64 {
        self.chains.len() as u64
    }

    pub(crate) fn newest(&self, key: &[u8]) -> Option<&Version> {
        self.chains.get(key).map(|chain| &chain.newest)
    }

    /// The version that was current at `revision`, which may be a deletion.
    pub(crate) fn at(&self, key: &[u8], revision: u64) -> Option<(&Bytes, &Version)> {
        let (key, chain) = self.chains.get_key_value(key)?;
        Some((key, chain.at(revision)?))
    }

    /// Adds a version that is made from the key and the newest one so far, in one search. What else `make` returns is
    /// returned.
    pub(crate) fn push_with<T>(
        &mut self,
        key: Bytes,
        make: impl FnOnce(&Bytes, Option<&Version>) -> (Version, T),
    ) -> T {
        match self.chains.entry(key) {
            std::collections::btree_map::Entry::Vacant(entry) => {
                let (newest, made) = make(entry.key(), None);
                entry.insert(Chain {
                    newest,
                    older: Vec::new(),
                });
                made
            }
            std::collections::btree_map::Entry::Occupied(mut entry) => {
                let (version, made) = make(entry.key(), Some(&entry.get().newest));
                let chain = entry.get_mut();
                let older = std::mem::replace(&mut chain.newest, version);
                chain.older.push(older);
                made
            }
        }
    }

    /// Takes back the newest version of a key.
    pub(crate) fn pop(&mut self, key: &[u8]) {
        let Some(chain) = self.chains.get_mut(key) else {
            return;
        };
        match chain.older.pop() {
            Some(version) => chain.newest = version,
            None => {
                self.chains.remove(key);
            }
        }
    }

    /// Forgets the versions of a key that nobody can read at `floor` or later.
    pub(crate) fn compact(&mut self, key: &[u8], floor: u64) {
        let Some(chain) = self.chains.get_mut(key) else {
            return;
        };
        if chain.newest.mod_revision <= floor {
            if chain.newest.value.is_none() {
                self.chains.remove(key);
            } else {
                chain.older = Vec::new();
            }
            return;
        }
        let after = chain
            .older
            .partition_point(|version| version.mod_revision <= floor);
        let Some(current) = after.checked_sub(1) else {
            return;
        };
        let keep_current = chain.older[current].value.is_some();
        chain.older.drain(..if keep_current { current } else { after });
        chain.older.shrink_to_fit();
    }

    /// The keys from `start` on that begin with `prefix`, each with its version at `revision` if it existed
    /// then.
    pub(crate) fn range<'a>(
        &'a self,
        prefix: &'a [u8],
        start: Bound<&'a [u8]>,
        revision: u64,
    ) -> impl Iterator<Item = (&'a Bytes, Option<&'a Version>)> {
        self.chains
            .range::<[u8], _>((start, Bound::Unbounded))
            .take_while(move |(key, _)| key.starts_with(prefix))
            .map(move |(key, chain)| {
                let live = chain.at(revision).filter(|version| version.value.is_some());
                (key, live)
            })
    }

    /// Fills an empty index with keys in ascending order.
    pub(crate) fn from_sorted(keys: impl IntoIterator<Item = (Bytes, Version)>) -> Self {
        Self {
            chains: keys
                .into_iter()
                .map(|(key, newest)| {
                    (
                        key,
                        Chain {
                            newest,
                            older: Vec::new(),
                        },
                    )
                })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        /// Writes this key, or deletes it.
        Write(u8, bool),
        /// Compacts to this part of the way from the last compaction to now.
        Compact(f64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (0..5_u8, any::<bool>()).prop_map(|(key, put)| Step::Write(key, put)),
            1 => (0.0..=1.0).prop_map(Step::Compact),
        ]
    }

    fn version(revision: u64, put: bool) -> Version {
        Version {
            mod_revision: revision,
            create_revision: revision,
            version: 1,
            deadline: 0,
            value: put.then(|| Bytes::from(revision.to_string())),
        }
    }

    fn live_at(index: &Index, revision: u64) -> BTreeMap<Bytes, u64> {
        let keys = index.range(b"", Bound::Unbounded, revision);
        keys.filter_map(|(key, version)| Some((key.clone(), version?.mod_revision)))
            .collect()
    }

    proptest! {
        #[test]
        fn compaction_changes_no_state_from_its_revision_on(
            steps in prop::collection::vec(step(), 1..60)
        ) {
            let mut index = Index::default();
            let mut states = vec![BTreeMap::new()];
            let mut floor = 0;
            for step in steps {
                let now = states.len() as u64 - 1;
                match step {
                    Step::Write(key, put) => {
                        let key = Bytes::from(vec![key]);
                        let mut state = states[states.len() - 1].clone();
                        if put {
                            state.insert(key.clone(), now + 1);
                        } else {
                            state.remove(&key);
                        }
                        states.push(state);
                        index.push_with(key, |_, _| (version(now + 1, put), ()));
                    }
                    Step::Compact(part) => {
                        floor += ((now - floor) as f64 * part) as u64;
                        for key in 0..5 {
                            index.compact(&[key], floor);
                        }
                    }
                }
            }
            for (revision, state) in (0..).zip(&states).skip(floor as usize) {
                prop_assert_eq!(&live_at(&index, revision), state, "at {}", revision);
            }
            // Compacted to the end, only what exists is left.
            for key in 0..5 {
                index.compact(&[key], u64::MAX);
            }
            let newest = &states[states.len() - 1];
            prop_assert_eq!(index.chains.len(), newest.len());
            prop_assert!(index.chains.values().all(|chain| chain.older.is_empty()));
        }

        #[test]
        fn taking_back_the_newest_version_leaves_what_was_before(
            writes in prop::collection::vec((0..3_u8, any::<bool>()), 1..30),
            back in 0..30_usize,
        ) {
            let mut index = Index::default();
            let mut before = Vec::new();
            for (revision, (key, put)) in (1..).zip(&writes) {
                before.push(live_at(&index, u64::MAX));
                let key = Bytes::from(vec![*key]);
                index.push_with(key, |_, _| (version(revision, *put), ()));
            }
            for (key, _) in writes.iter().rev().take(back) {
                index.pop(&[*key]);
                prop_assert_eq!(Some(live_at(&index, u64::MAX)), before.pop());
            }
        }
    }
}
