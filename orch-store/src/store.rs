use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::{Event, KeyValue, Revision, StoreError, Watcher};

/// A revisioned key-value store with watch.
///
/// # Contract
///
/// **Revisions.** The store has one counter. Every successful write raises it by at least one and belongs to
/// exactly one revision; a revision that anyone was told of is never given to another write, also not after a
/// crash. Writes become visible in the order of their revisions: whoever sees revision `n`, by any
/// method or watcher, sees every write up to `n` with every later call.
///
/// **Linearizable.** Each call takes effect at one instant between its start and its end. Two guarded writes that
/// name the same revision of a key have one winner, and so have two creators of one key.
///
/// **Durable.** What a store that keeps data on disk has acknowledged, or shown to a reader or watcher, survives the loss of
/// power. A write that fails with an error for which [`StoreError::outcome_is_unknown`] holds may have
/// happened; after any other error it has not, and never will.
///
/// **Cancellation.** Dropping the future of a read or of [`watch`](Self::watch) has no effect. Dropping the
/// future of a write leaves it undecided whether the write happens, but it happens wholly or not at all, and in its
/// place in the order.
///
/// **Idempotence.** Guarded writes may be repeated safely: the second attempt gets [`StoreError::AlreadyExists`] or
/// [`StoreError::Conflict`] with what is there, from which the caller can see whether the first one had
/// arrived. [`compact`](Self::compact) to a revision that is compacted already succeeds and changes nothing.
///
/// **History.** A read `at` a revision, and a watch from one, work for every revision from the one last
/// [compacted](Self::compact) up to the current one; older ones get [`StoreError::Compacted`], later ones
/// [`StoreError::FutureRevision`].
///
/// **Values** are opaque. Cloned results share their bytes with the store.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Reads one key, as it is now or as it was `at` a revision.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] and [`StoreError::FutureRevision`] for an `at` outside the history.
    async fn get(&self, key: &[u8], at: Option<Revision>) -> Result<Read, StoreError>;

    /// Lists the keys that begin with `prefix`, in the order of their bytes. An empty prefix lists all.
    ///
    /// All pages of one list show one state when each but the first names the first one's revision in
    /// [`ListOptions::at`] and the last key so far in [`ListOptions::start_after`].
    ///
    /// # Errors
    /// [`StoreError::Compacted`] and [`StoreError::FutureRevision`] for an `at` outside the history.
    async fn list(&self, prefix: &[u8], options: ListOptions) -> Result<ListPage, StoreError>;

    /// Writes a key that must not exist. With a `ttl` the key is deleted when that time has passed
    /// since this write, early by nothing and late by little (see the implementation).
    ///
    /// # Errors
    /// [`StoreError::AlreadyExists`] carries what is there; errors of limits and storage.
    async fn create(&self, key: Bytes, value: Bytes, ttl: Option<Duration>) -> Result<KeyValue, StoreError>;

    /// Writes a key that must be at the revision `expected`. The time to live starts anew with `ttl`;
    /// `None` makes the key permanent, whatever it was before.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] carries what is there, or that there is nothing; errors of limits and storage.
    async fn update(
        &self,
        key: Bytes,
        value: Bytes,
        expected: Revision,
        ttl: Option<Duration>,
    ) -> Result<KeyValue, StoreError>;

    /// Deletes a key, which must be at the revision `expected` if one is given.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the key is not at `expected`, or absent; [`StoreError::NotFound`] when it is
    /// absent and nothing was expected; errors of storage.
    async fn delete(&self, key: &[u8], expected: Option<Revision>) -> Result<Deleted, StoreError>;

    /// Watches the keys that begin with `prefix`: every event after the revision `from`, which is exclusive,
    /// so that the revision of a list or of the last event is the one to go on from.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] and [`StoreError::FutureRevision`] for a `from` outside the history.
    async fn watch(&self, prefix: &[u8], from: Revision) -> Result<Box<dyn Watcher>, StoreError>;

    /// Forgets the history before `revision`: states before it can no longer be read, events up to and including it no
    /// longer be watched. The state at `revision` and all later ones stay. Watchers that have delivered
    /// everything up to it are not disturbed.
    ///
    /// When it returns, the history is gone for readers; memory and disk are given back soon after.
    ///
    /// # Errors
    /// [`StoreError::FutureRevision`] when it has not happened yet; errors of storage.
    async fn compact(&self, revision: Revision) -> Result<(), StoreError>;

    /// The newest revision: every write acknowledged before the call is at or below it.
    ///
    /// # Errors
    /// Only where the store has to be asked and cannot be reached.
    async fn current_revision(&self) -> Result<Revision, StoreError>;

    /// Whether the store can do its work now, both reading and writing.
    ///
    /// # Errors
    /// What stands in the way, for a readiness probe and for people.
    async fn health(&self) -> Result<Health, StoreError>;
}

/// What [`Store::get`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// The key, or `None` when it does not exist at that revision.
    pub kv: Option<KeyValue>,
    /// The revision of the state that was read: `at`, or the newest one.
    pub revision: Revision,
}

/// What to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListOptions {
    /// At most this many items. `None` means all; with 0 and [`count`](Self::count) the store only counts.
    pub limit: Option<usize>,
    /// Only keys after this one (exclusive): the last key of the page before. It need not exist.
    pub start_after: Option<Bytes>,
    /// The state at this revision instead of the newest one.
    pub at: Option<Revision>,
    /// Whether to count what remains after this page. It costs time in proportion to what is counted.
    pub count: bool,
}

impl ListOptions {
    /// At most so many items.
    #[must_use]
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Only keys after this one.
    #[must_use]
    pub fn start_after(mut self, key: impl Into<Bytes>) -> Self {
        self.start_after = Some(key.into());
        self
    }

    /// The state at this revision.
    #[must_use]
    pub fn at(mut self, revision: Revision) -> Self {
        self.at = Some(revision);
        self
    }

    /// Counts what remains after the page.
    #[must_use]
    pub fn count(mut self) -> Self {
        self.count = true;
        self
    }
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListPage {
    /// The items in the order of their keys.
    pub items: Vec<KeyValue>,
    /// The revision of the state that was listed.
    pub revision: Revision,
    /// Whether there are further items after these.
    pub more: bool,
    /// How many further items there are, if [`ListOptions::count`] asked for it.
    pub remaining: Option<usize>,
}

/// What [`Store::delete`] removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deleted {
    /// The key as it was before.
    pub previous: KeyValue,
    /// The revision of the deletion.
    pub revision: Revision,
}

impl Deleted {
    pub(crate) fn from_event(event: &Event) -> Self {
        Self {
            previous: event.previous.clone().expect("a deletion has a previous value"),
            revision: event.revision(),
        }
    }
}

/// How a healthy store is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Health {
    /// The newest revision.
    pub revision: Revision,
    /// The oldest revision that can still be read.
    pub compacted: Revision,
    /// Something that needs a person's eye but stops nobody, such as a failed checkpoint.
    pub warning: Option<String>,
}

impl Health {
    /// A store without worries.
    #[must_use]
    pub fn good(revision: Revision, compacted: Revision) -> Self {
        Self {
            revision,
            compacted,
            warning: None,
        }
    }

    /// Adds a warning.
    #[must_use]
    pub fn warning(mut self, warning: Option<String>) -> Self {
        self.warning = warning;
        self
    }
}
