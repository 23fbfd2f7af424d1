use std::sync::Arc;

use bytes::Bytes;

use super::{Index, Version};
use crate::{Event, EventKind, KeyValue, Revision, StoreError};

/// A write that was asked for.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    Create {
        key: Bytes,
        value: Bytes,
        deadline: u64,
    },
    Update {
        key: Bytes,
        value: Bytes,
        expected: u64,
        deadline: u64,
    },
    Delete {
        key: Bytes,
        expected: Option<u64>,
    },
}

impl Op {
    pub(super) fn deadline(&self) -> u64 {
        match self {
            Self::Create { deadline, .. } | Self::Update { deadline, .. } => *deadline,
            Self::Delete { .. } => 0,
        }
    }

    fn key(&self) -> &Bytes {
        match self {
            Self::Create { key, .. } | Self::Update { key, .. } | Self::Delete { key, .. } => key,
        }
    }
}

/// A write whose guard did not hold.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) error: StoreError,
    /// The revision that the refusal relies on. It may be told to the caller once that is published.
    pub(crate) seen: u64,
    /// The state's count of roll-backs at that time.
    pub(crate) roll_backs: u64,
}

impl Refusal {
    pub(super) fn now(error: StoreError) -> Self {
        Self {
            error,
            seen: 0,
            roll_backs: 0,
        }
    }
}

/// The index and where in its history the store stands. Pure: no I/O, no locks.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) index: Index,
    /// The newest revision that was given to a write.
    pub(crate) assigned: u64,
    /// The newest revision that readers see.
    pub(crate) published: u64,
    /// How many writes are staged and not published.
    pub(crate) staged: usize,
    /// The oldest revision that can be read.
    pub(crate) compacted: u64,
    /// How often staged writes were taken back.
    pub(crate) roll_backs: u64,
}

impl Default for State {
    fn default() -> Self {
        Self::new(Index::default(), Revision::ZERO)
    }
}

impl State {
    /// The state at `revision`, with no history before it.
    pub(crate) fn new(index: Index, revision: Revision) -> Self {
        let now = revision.max(Revision::FIRST).0;
        Self {
            index,
            assigned: now,
            published: now,
            staged: 0,
            compacted: revision.0,
            roll_backs: 0,
        }
    }

    /// Checks the guard and, if it holds, puts the write into the index under a new revision.
    pub(crate) fn stage(&mut self, op: Op) -> Result<Arc<Event>, Refusal> {
        let newest = self.index.newest(op.key());
        if let Err(error) = self.check_guard(&op, newest) {
            return Err(Refusal {
                error,
                seen: newest.map_or(0, |version| version.mod_revision),
                roll_backs: self.roll_backs,
            });
        }
        let deadline = op.deadline();
        let (key, value) = match op {
            Op::Create { key, value, .. } | Op::Update { key, value, .. } => (key, Some(value)),
            Op::Delete { key, .. } => (key, None),
        };
        self.staged += 1;
        Ok(self.apply(self.assigned + 1, key, value, deadline))
    }

    /// Puts a write into the index under `revision`, whatever is there: staging, and replay of a log.
    pub(crate) fn apply(
        &mut self,
        revision: u64,
        key: Bytes,
        value: Option<Bytes>,
        deadline: u64,
    ) -> Arc<Event> {
        let event = self.index.push_with(key, |key, newest| {
            let previous = newest.and_then(|version| version.to_kv(key));
            let (create_revision, lives) = previous
                .as_ref()
                .map_or((revision, 0), |kv| (kv.create_revision.0, kv.version));
            let version = Version {
                mod_revision: revision,
                create_revision,
                version: if value.is_some() { lives + 1 } else { lives },
                deadline,
                value,
            };
            let event = Arc::new(event(key, &version, previous));
            (version, event)
        });
        self.assigned = revision;
        event
    }

    /// Whether the state at `revision` can be read.
    pub(crate) fn check_readable(&self, revision: Revision) -> Result<(), StoreError> {
        if revision.0 < self.compacted {
            return Err(StoreError::Compacted {
                requested: revision,
                compacted: Revision(self.compacted),
            });
        }
        if revision.0 > self.published {
            return Err(StoreError::FutureRevision {
                requested: revision,
                current: Revision(self.published),
            });
        }
        Ok(())
    }

    fn check_guard(&self, op: &Op, newest: Option<&Version>) -> Result<(), StoreError> {
        let newest = newest.filter(|version| version.value.is_some());
        let current = || newest.and_then(|version| version.to_kv(op.key())).map(Box::new);
        match op {
            Op::Create { .. } => match current() {
                None => Ok(()),
                Some(current) => Err(StoreError::AlreadyExists { current }),
            },
            Op::Delete { expected: None, .. } if newest.is_some() => Ok(()),
            Op::Delete { expected: None, key } => Err(StoreError::NotFound {
                key: key.clone(),
                revision: Revision(self.published),
            }),
            Op::Update { expected, key, .. }
            | Op::Delete {
                expected: Some(expected),
                key,
            } => {
                if newest.is_some_and(|version| version.mod_revision == *expected) {
                    return Ok(());
                }
                Err(StoreError::Conflict {
                    key: key.clone(),
                    expected: Revision(*expected),
                    current: current(),
                })
            }
        }
    }
}

/// What watchers see of a version that was written.
fn event(key: &Bytes, version: &Version, previous: Option<KeyValue>) -> Event {
    Event {
        kind: if version.value.is_some() {
            EventKind::Put
        } else {
            EventKind::Delete
        },
        kv: KeyValue {
            key: key.clone(),
            value: version.value.clone().unwrap_or_default(),
            create_revision: Revision(version.create_revision),
            mod_revision: Revision(version.mod_revision),
            version: version.version,
        },
        previous,
    }
}
