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

    /// Appends items in one go: cursors see them together. Several may have one revision, as when keys end together; a
    /// cursor gets those in one batch.
    ///
    /// # Panics
    /// If the revisions fall, or do not begin above the head.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn broadcast(bounds: Bounds) -> Fanout<u64> {
        Fanout::new(Broadcast, Revision(10), bounds)
    }

    fn publish(source: &Fanout<u64>, revisions: impl IntoIterator<Item = u64>) {
        source.publish_all(revisions.into_iter().map(|number| (Revision(number), number)));
    }

    /// Pods by node: (name, node before, node now).
    type Moved = (char, char, char);

    fn by_node() -> Fanout<Moved, impl Router<Moved, Topic = Topic<char>>> {
        let keys = |item: &Moved, visit: &mut dyn FnMut(char)| {
            visit(item.1);
            if item.2 != item.1 {
                visit(item.2);
            }
        };
        Fanout::new(ByKey::new(keys), Revision::ZERO, Bounds::default())
    }

    #[tokio::test]
    async fn items_of_one_revision_come_in_one_batch() {
        let source = broadcast(Bounds::default());
        let mut cursor = source.subscribe((), Revision(10)).unwrap();
        let items = [(11, 1), (12, 2), (12, 3), (12, 4), (13, 5)];
        source.publish_all(items.map(|(revision, item)| (Revision(revision), item)));
        for (max, expected, revision) in [(2, vec![1, 2, 3, 4], 12), (2, vec![5], 13)] {
            let batch = cursor.next(max).await.unwrap();
            assert_eq!((batch.items, batch.revision), (expected, Revision(revision)));
        }
        // Many more than are looked at in one go.
        source.publish_all((0..10_000).map(|item| (Revision(14), item)));
        let batch = cursor.next(1).await.unwrap();
        assert_eq!((batch.items.len(), batch.revision), (10_000, Revision(14)));
    }

    #[test]
    #[should_panic(expected = "in order")]
    fn nothing_is_added_to_a_revision_that_was_published() {
        let source = broadcast(Bounds::default());
        publish(&source, [11]);
        publish(&source, [11]);
    }

    #[test]
    fn a_cursor_begins_within_what_is_kept() {
        let source = broadcast(Bounds::default());
        publish(&source, [11, 13]);
        assert_eq!(
            source.subscribe((), Revision(9)).unwrap_err(),
            FanoutError::Lagged {
                position: Revision(9),
                dropped: Revision(10)
            }
        );
        assert_eq!(
            source.subscribe((), Revision(14)).unwrap_err(),
            FanoutError::Future {
                position: Revision(14),
                head: Revision(13)
            }
        );
        let mut cursor = source.subscribe((), Revision(12)).unwrap();
        let batch = cursor.try_next(10).unwrap().unwrap();
        assert_eq!((batch.items, batch.revision), (vec![13], Revision(13)));
    }

    #[test]
    fn batches_keep_to_their_size_and_tell_how_far_they_reach() {
        let source = broadcast(Bounds::default());
        let mut cursor = source.subscribe((), Revision(10)).unwrap();
        publish(&source, [11, 12, 15]);
        source.advance(Revision(20));
        let batch = cursor.try_next(2).unwrap().unwrap();
        assert_eq!((batch.items, batch.revision), (vec![11, 12], Revision(12)));
        let batch = cursor.try_next(2).unwrap().unwrap();
        assert_eq!((batch.items, batch.revision), (vec![15], Revision(20)));
        assert_eq!(cursor.try_next(2).unwrap(), None);
    }

    #[test]
    fn a_slow_cursor_is_cut_off_and_memory_is_bounded() {
        let source = broadcast(Bounds::default().max_items(3));
        let mut slow = source.subscribe((), Revision(10)).unwrap();
        let mut quick = source.subscribe((), Revision(10)).unwrap();
        for number in 11..100 {
            publish(&source, [number]);
            assert_eq!(quick.try_next(9).unwrap().unwrap().items, [number]);
            assert!(source.len() <= 3);
        }
        let lagged = FanoutError::Lagged {
            position: Revision(10),
            dropped: Revision(96),
        };
        assert_eq!(slow.try_next(9).unwrap_err(), lagged);
        assert_eq!(slow.try_next(9).unwrap_err(), lagged, "and remains so");
    }

    #[test]
    fn weight_bounds_memory_as_well() {
        struct Bytes;
        impl Router<u64> for Bytes {
            type Topic = ();
            fn matches(&self, (): &(), _: &u64) -> bool {
                true
            }
            fn route(&self, _: &u64, visit: &mut dyn FnMut(&())) {
                visit(&());
            }
            fn weight(&self, item: &u64) -> usize {
                usize::try_from(*item).unwrap()
            }
        }
        let source = Fanout::new(Bytes, Revision::ZERO, Bounds::default().max_weight(100));
        for (revision, weight) in [(1, 40), (2, 40), (3, 40), (4, 90)] {
            source.publish(Revision(revision), weight);
        }
        assert_eq!(source.len(), 1);
        assert_eq!(source.floor(), Revision(3));
    }

    #[test]
    fn a_reader_of_a_quiet_topic_is_never_behind() {
        let source = by_node();
        let mut quiet = source.subscribe(Topic::Key('b'), Revision::ZERO).unwrap();
        for revision in 1..=50 {
            source.publish(Revision(revision), ('p', 'a', 'a'));
        }
        assert_eq!(source.drop_until(Revision(40), 100).len(), 40);
        source.publish(Revision(51), ('q', 'b', 'b'));
        let batch = quiet.try_next(10).unwrap().unwrap();
        assert_eq!(batch.items, [('q', 'b', 'b')]);
        // What it has not read counts, however old the rest is.
        source.publish(Revision(52), ('q', 'b', 'b'));
        source.publish(Revision(53), ('p', 'a', 'a'));
        source.drop_until(Revision(53), 100);
        assert!(quiet.try_next(10).is_err());
    }

    #[test]
    fn an_item_with_two_keys_reaches_the_readers_of_both_once() {
        let source = by_node();
        let topics = [Topic::All, Topic::Key('a'), Topic::Key('b'), Topic::Key('c')];
        let mut cursors = topics.map(|topic| source.subscribe(topic, Revision::ZERO).unwrap());
        source.publish(Revision(1), ('p', 'a', 'b'));
        let found = cursors
            .each_mut()
            .map(|cursor| cursor.try_next(10).unwrap().map_or(0, |batch| batch.items.len()));
        assert_eq!(found, [1, 1, 1, 0]);
    }

    #[test]
    fn dropping_in_small_steps_says_when_it_is_done() {
        let source = broadcast(Bounds::default());
        publish(&source, 11..=20);
        assert_eq!(source.drop_until(Revision(15), 3), [11, 12, 13]);
        assert_eq!(source.drop_until(Revision(15), 3), [14, 15]);
        assert_eq!(source.floor(), Revision(15));
        assert!(source.subscribe((), Revision(15)).is_ok());
    }

    #[tokio::test]
    async fn waiting_cursors_are_woken_by_their_topic_alone() {
        let source = by_node();
        let mut mine = source.subscribe(Topic::Key('a'), Revision::ZERO).unwrap();
        let mut other = source.subscribe(Topic::Key('b'), Revision::ZERO).unwrap();
        let mine = tokio::spawn(async move { mine.next(10).await });
        let requester = other.progress_requester();
        let other = tokio::spawn(async move { other.next(10).await });
        tokio::task::yield_now().await;
        source.publish(Revision(1), ('p', 'a', 'a'));
        assert_eq!(mine.await.unwrap().unwrap().items, [('p', 'a', 'a')]);
        assert!(!other.is_finished());
        requester.request();
        let mark = other.await.unwrap().unwrap();
        assert_eq!((mark.items, mark.revision), (vec![], Revision(1)));
    }

    #[tokio::test]
    async fn a_closed_source_is_read_to_its_end() {
        let source = broadcast(Bounds::default());
        let mut cursor = source.subscribe((), Revision(10)).unwrap();
        publish(&source, [11]);
        source.close();
        assert_eq!(cursor.next(10).await.unwrap().items, [11]);
        assert_eq!(cursor.next(10).await.unwrap_err(), FanoutError::Closed);
        assert_eq!(
            source.subscribe((), Revision(11)).unwrap_err(),
            FanoutError::Closed
        );
    }

    #[test]
    fn cursors_that_are_gone_leave_nothing() {
        let source = by_node();
        for _ in 0..3 {
            let cursors = ['a', 'a', 'b'].map(|node| source.subscribe(Topic::Key(node), Revision::ZERO));
            assert_eq!(source.cursors(), 3);
            drop(cursors);
            assert_eq!(source.cursors(), 0);
        }
    }
}
