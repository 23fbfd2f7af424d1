use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;

use super::log::{Group, Log};
use super::{Broadcast, FanoutError, Router};
use crate::{ProgressRequester, Revision};

/// Items that a [`Cursor`] has come by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch<T> {
    /// The items in order. Empty in a batch that is only a progress mark.
    pub items: Vec<T>,
    /// Everything of the cursor's topic up to and including this revision has been delivered.
    pub revision: Revision,
}

/// One reader of a [`Fanout`](super::Fanout): a position and a topic, with no queue of its own.
///
/// [`next`](Self::next) is safe to cancel: what it had not returned, the next call returns. Dropping the cursor ends it.
pub struct Cursor<T, R: Router<T> = Broadcast>
where
    T: Clone,
{
    shared: Arc<RwLock<Log<T, R>>>,
    topic: R::Topic,
    group: Arc<Group>,
    position: u64,
    progress_wanted: Arc<AtomicBool>,
}

impl<T, R> Cursor<T, R>
where
    T: Clone + Send + Sync + 'static,
    R: Router<T>,
{
    pub(super) fn new(
        shared: Arc<RwLock<Log<T, R>>>,
        topic: R::Topic,
        group: Arc<Group>,
        after: Revision,
    ) -> Self {
        Self {
            shared,
            topic,
            group,
            position: after.0,
            progress_wanted: Arc::default(),
        }
    }

    /// Waits for items, at most `max` (at least one) of them, or for a progress mark that was asked for.
    ///
    /// # Errors
    /// [`FanoutError::Lagged`] when items were dropped before this cursor read them, and
    /// [`FanoutError::Closed`] at the end of a closed source; both again at each further call.
    pub async fn next(&mut self, max: usize) -> Result<Batch<T>, FanoutError> {
        let group = Arc::clone(&self.group);
        loop {
            let mut notified = pin!(group.notify.notified());
            notified.as_mut().enable();
            if let Some(batch) = self.try_next(max)? {
                return Ok(batch);
            }
            notified.await;
        }
    }

    /// What [`next`](Self::next) would return at once, or `None` if it would wait.
    ///
    /// # Errors
    /// As for [`next`](Self::next).
    pub fn try_next(&mut self, max: usize) -> Result<Option<Batch<T>>, FanoutError> {
        loop {
            let wanted = self.progress_wanted.load(Ordering::Acquire);
            let scan = self
                .shared
                .read()
                .scan(&self.topic, &self.group, self.position, max.max(1))?;
            self.position = scan.position;
            let is_answer = wanted && scan.at_end;
            if is_answer {
                self.progress_wanted.store(false, Ordering::Release);
            }
            if !scan.items.is_empty() || is_answer {
                return Ok(Some(Batch {
                    items: scan.items,
                    revision: self.position(),
                }));
            }
            if scan.at_end {
                return Ok(None);
            }
        }
    }

    /// Everything up to and including this revision has been delivered.
    #[must_use]
    pub fn position(&self) -> Revision {
        Revision(self.position)
    }

    /// A handle by which others ask this cursor for a progress mark.
    #[must_use]
    pub fn progress_requester(&self) -> ProgressRequester {
        let wanted = Arc::clone(&self.progress_wanted);
        let group = Arc::clone(&self.group);
        ProgressRequester::new(move || {
            wanted.store(true, Ordering::Release);
            group.notify.notify_waiters();
        })
    }
}

impl<T, R> Drop for Cursor<T, R>
where
    T: Clone,
    R: Router<T>,
{
    fn drop(&mut self) {
        self.shared.write().leave(&self.topic);
    }
}

impl<T, R> fmt::Debug for Cursor<T, R>
where
    T: Clone,
    R: Router<T>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cursor")
            .field("topic", &self.topic)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}
