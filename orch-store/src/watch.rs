use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::{Event, Revision, StoreError};

/// The events of one prefix, in order, from a revision on. Made by [`Store::watch`](crate::Store::watch).
///
/// # Contract
///
/// **Complete.** Every write to the prefix after the starting revision is delivered once, in the order of revisions,
/// with the key's previous value. No event is merged with another or left out.
///
/// **Slow readers.** A watcher owns no queue: it is a position in the store's history, so a slow one holds
/// up no writer and takes no memory. When compaction drops events that it has not delivered yet, it
/// ends with [`StoreError::Compacted`]: list again and watch from the list's revision. A watcher that waits for
/// events which do not come is never behind, however far compaction goes.
///
/// **Cancellation.** Dropping the future of [`next`](Self::next) loses nothing: the next call delivers what that one
/// would have. Dropping the watcher ends the watch.
///
/// **End.** After an error every further call returns an error too.
#[async_trait]
pub trait Watcher: Send {
    /// Waits for the next events, or for a progress mark that was asked for.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] for a reader that fell behind, [`StoreError::Closed`] and
    /// [`StoreError::Unavailable`] when the store has gone.
    async fn next(&mut self) -> Result<WatchBatch, StoreError>;

    /// A handle by which others ask this watcher for a progress mark, also while it waits in
    /// [`next`](Self::next).
    fn progress_requester(&self) -> ProgressRequester;
}

/// Events, and how far they reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchBatch {
    /// The events in the order of their revisions. Empty in a batch that is only a progress mark.
    pub events: Vec<Arc<Event>>,
    /// Everything up to and including this revision has now been delivered. It never goes back.
    pub revision: Revision,
}

/// Asks a [`Watcher`] to tell how far it is.
///
/// After a [`request`](Self::request) the watcher delivers, once it has caught up, a batch whose revision is at or above the
/// store's current revision at the time of the request, even if there are no events. So a cache knows that it is as
/// fresh as a read from the store: take [`Store::current_revision`](crate::Store::current_revision), request, and
/// wait until the cache has reached it.
#[derive(Clone)]
pub struct ProgressRequester(Arc<dyn Fn() + Send + Sync>);

impl ProgressRequester {
    /// For implementations: `ask` is called for each request and must not block.
    pub fn new(ask: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(ask))
    }

    /// Asks for a progress mark. Requests that come before the mark is delivered are answered together.
    pub fn request(&self) {
        (self.0)();
    }
}

impl fmt::Debug for ProgressRequester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProgressRequester").finish_non_exhaustive()
    }
}
