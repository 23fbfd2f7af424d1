//! One ordered source of events, thousands of readers.
//!
//! A [`Fanout`] keeps one log. Each reader is a [`Cursor`]: a position in that log, so that an event is kept once
//! however many read it, publishing costs nothing for readers that are not interested, and no reader can
//! hold up the source. The log is bounded ([`Bounds`]); a cursor whose next event was dropped from it gets
//! [`FanoutError::Lagged`] and has to start over from a fresh state.
//!
//! A [`Router`] says which of the readers' *topics* an event belongs to, and only those readers are woken:
//! [`Broadcast`] has one topic, [`ByKey`] one per key besides one for all.
//!
//! ```
//! use orch_store::Revision;
//! use orch_store::fanout::{Bounds, Broadcast, Fanout};
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let source = Fanout::new(Broadcast, Revision(10), Bounds::default().max_items(1000));
//! let mut cursor = source.subscribe((), Revision(10))?;
//!
//! source.publish(Revision(11), "added");
//! source.publish(Revision(12), "changed");
//!
//! let batch = cursor.next(100).await?;
//! assert_eq!(batch.items, ["added", "changed"]);
//! assert_eq!(batch.revision, Revision(12));
//! # Ok::<_, orch_store::fanout::FanoutError>(()) }).unwrap();
//! ```

mod cursor;
mod log;
mod router;

use std::fmt;
use std::sync::Arc;

use parking_lot::RwLock;

pub use self::cursor::{Batch, Cursor};
pub use self::router::{Broadcast, ByKey, Router, Topic};

use self::log::Log;
use crate::Revision;

/// How much a [`Fanout`] keeps for cursors that are behind. The oldest items go first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Bounds {
    /// At most this many items. `None`, the default, means no bound.
    pub max_items: Option<usize>,
    /// At most this sum of [`Router::weight`]. `None`, the default, means no bound.
    pub max_weight: Option<usize>,
}

impl Bounds {
    /// Keeps at most this many items.
    #[must_use]
    pub fn max_items(mut self, items: usize) -> Self {
        self.max_items = Some(items);
        self
    }

    /// Keeps at most this sum of weights.
    #[must_use]
    pub fn max_weight(mut self, weight: usize) -> Self {
        self.max_weight = Some(weight);
        self
    }
}

/// Why a cursor cannot be had, or cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FanoutError {
    /// Events after the cursor's position were dropped before it read them: start over from a fresh state.
    #[error("revision {position} is too old, events up to {dropped} have been dropped")]
    Lagged {
        /// Where the cursor was, or was to begin.
        position: Revision,
        /// Up to where events are gone.
        dropped: Revision,
    },

    /// The position to begin from has not been reached yet.
    #[error("revision {position} is in the future, the source is at {head}")]
    Future {
        /// Where the cursor was to begin.
        position: Revision,
        /// Where the source is.
        head: Revision,
    },

    /// The source was closed and everything it published has been read.
    #[error("the source is closed")]
    Closed,
}

/// The writing side, and the place where cursors come from. Clones share one log.
///
/// Revisions must rise from one publication to the next; there is one publisher, or several under a lock of
/// their own that gives the order.
pub struct Fanout<T, R: Router<T> = Broadcast> {
    shared: Arc<RwLock<Log<T, R>>>,
}

impl<T, R> Fanout<T, R>
where
    T: Clone + Send + Sync + 'static,
    R: Router<T>,
{
    /// A source that stands at the revision `head`: cursors can begin there, not before.
    #[must_use]
    pub fn new(router: R, head: Revision, bounds: Bounds) -> Self {
        Self {
            shared: Arc::new(RwLock::new(Log::new(router, head, bounds))),
        }
    }

    /// Appends one item and wakes the cursors of its topics.
    ///
    /// # Panics
    /// If `revision` is not above the head.
    pub fn publish(&self, revision: Revision, item: T) {
        self.publish_all([(revision, item)]);
    }

    /// Appends items in one go: cursors see them together.
    ///
    /// # Panics
    /// If the revisions do not rise, or do not begin above the head.
    pub fn publish_all(&self, items: impl IntoIterator<Item = (Revision, T)>) {
        self.shared.write().append(items);
    }

    /// Says that nothing happens up to `revision`: the head moves without an item. Lower than the head
    /// changes nothing. Cursors learn of it with their next item or requested progress mark.
    pub fn advance(&self, revision: Revision) {
        self.shared.write().advance(revision);
    }

    /// Starts to read the items of `topic` after the revision `after`.
    ///
    /// # Errors
    /// [`FanoutError::Lagged`] and [`FanoutError::Future`] when `after` is not within what is kept,
    /// [`FanoutError::Closed`] after [`close`](Self::close).
    pub fn subscribe(&self, topic: R::Topic, after: Revision) -> Result<Cursor<T, R>, FanoutError> {
        let group = self.shared.write().join(&topic, after)?;
        Ok(Cursor::new(Arc::clone(&self.shared), topic, group, after))
    }

    /// Drops items up to and including `revision`, at most `at_most` of them, and hands them out.
    /// Fewer than that means that all of them are gone.
    pub fn drop_until(&self, revision: Revision, at_most: usize) -> Vec<T> {
        self.shared.write().drop_until(revision, at_most)
    }

    /// The newest revision.
    #[must_use]
    pub fn head(&self) -> Revision {
        self.shared.read().head()
    }

    /// Up to where items have been dropped: cursors begin here or later.
    #[must_use]
    pub fn floor(&self) -> Revision {
        self.shared.read().floor()
    }

    /// How many items are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.read().len()
    }

    /// Whether no item is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many cursors there are.
    #[must_use]
    pub fn cursors(&self) -> usize {
        self.shared.read().cursors()
    }

    /// Ends the source: cursors read what is left and then get [`FanoutError::Closed`].
    pub fn close(&self) {
        self.shared.write().close();
    }
}

impl<T, R: Router<T>> Clone for Fanout<T, R> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<T, R: Router<T>> fmt::Debug for Fanout<T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fanout").finish_non_exhaustive()
    }
}
