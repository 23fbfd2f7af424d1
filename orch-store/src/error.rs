use std::io;
use std::sync::Arc;

use bytes::Bytes;

use crate::{KeyValue, Revision};

/// Why a [`Store`](crate::Store) or [`Watcher`](crate::Watcher) refused or failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A create found the key in use. Nothing was written.
    #[error("key {:?} already exists at revision {}", current.key, current.mod_revision)]
    AlreadyExists {
        /// What is there.
        current: Box<KeyValue>,
    },

    /// A guarded write named a revision that is not the key's newest. Nothing was written.
    #[error("key {key:?} is not at revision {expected} but {}", state(current.as_deref()))]
    Conflict {
        /// The key.
        key: Bytes,
        /// The revision that the caller expected.
        expected: Revision,
        /// What is there instead; `None` when the key does not exist.
        current: Option<Box<KeyValue>>,
    },

    /// An unguarded delete found nothing to delete.
    #[error("key {key:?} does not exist at revision {revision}")]
    NotFound {
        /// The key.
        key: Bytes,
        /// The store's revision at which the key was absent.
        revision: Revision,
    },

    /// The history asked for is gone: read the newest state and go on from there. A watcher gets this when
    /// it fell so far behind that compaction dropped events it had not delivered.
    #[error("revision {requested} has been compacted, history begins at {compacted}")]
    Compacted {
        /// What the caller asked for.
        requested: Revision,
        /// The oldest revision that can still be read.
        compacted: Revision,
    },

    /// The revision asked for has not happened yet.
    #[error("revision {requested} is in the future, the store is at {current}")]
    FutureRevision {
        /// What the caller asked for.
        requested: Revision,
        /// Where the store is.
        current: Revision,
    },

    /// Keys have at least one byte.
    #[error("the key is empty")]
    EmptyKey,

    /// The key is longer than [`Limits::max_key`](crate::Limits::max_key).
    #[error("the key is {size} bytes long, the limit is {limit}")]
    KeyTooLong {
        /// Its length in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },

    /// The value is larger than [`Limits::max_value`](crate::Limits::max_value).
    #[error("the value is {size} bytes large, the limit is {limit}")]
    ValueTooLarge {
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },

    /// The write did not reach the disk and was taken back; it may be tried again, for instance when
    /// there is space again.
    #[error("the write could not be stored")]
    WriteFailed {
        /// What the disk said.
        #[source]
        source: Arc<io::Error>,
    },

    /// An earlier failure left it unknown what is on disk. Reads go on; writes are refused until the store
    /// is opened again. A write that was under way when it happened may or may not have been kept.
    #[error("the store takes no writes since an earlier failure")]
    ReadOnly {
        /// The failure that caused it.
        #[source]
        source: Arc<io::Error>,
    },

    /// The store's server refuses this client: its credentials or rights do not suffice, or what it was told about the
    /// connection contradicts itself. Nothing was written. For implementations that are remote.
    #[error("the store refuses access: {reason}")]
    Denied {
        /// What the server said.
        reason: String,
    },

    /// The store was closed or dropped. The outcome of a write that was under way is unknown.
    #[error("the store is closed")]
    Closed,

    /// The store's server cannot be reached or answered with an error of its own; whether a write happened
    /// is unknown. For implementations that are remote.
    #[error("the store is unavailable: {reason}")]
    Unavailable {
        /// What happened.
        reason: String,
    },
}

impl StoreError {
    /// Whether another writer was first: [`Self::AlreadyExists`] or [`Self::Conflict`].
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::AlreadyExists { .. } | Self::Conflict { .. })
    }

    /// Whether the history asked for is gone, so that the caller has to list again.
    #[must_use]
    pub fn is_compacted(&self) -> bool {
        matches!(self, Self::Compacted { .. })
    }

    /// Whether the same call may succeed later without the caller changing anything.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::WriteFailed { .. } | Self::Unavailable { .. } | Self::FutureRevision { .. }
        )
    }

    /// Whether the write may have happened although the call failed.
    #[must_use]
    pub fn outcome_is_unknown(&self) -> bool {
        matches!(
            self,
            Self::ReadOnly { .. } | Self::Closed | Self::Unavailable { .. }
        )
    }
}

fn state(current: Option<&KeyValue>) -> String {
    current.map_or_else(
        || "does not exist".to_owned(),
        |kv| format!("at {}", kv.mod_revision),
    )
}
