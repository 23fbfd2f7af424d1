use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::feed::{Feed, Source, Weighed};
use crate::fanout::{Cursor, FanoutError};
use crate::{Event, ProgressRequester, Revision, StoreError, WatchBatch, Watcher};

/// The most events in one batch, but for those of one revision.
const BATCH: usize = 512;

/// The feeds that are shared, by prefix.
pub(super) struct Feeds {
    source: Source,
    shared: Mutex<HashMap<Bytes, Weak<Feed>>>,
}

impl Feeds {
    pub(super) fn new(source: Source) -> Self {
        Self {
            source,
            shared: Mutex::default(),
        }
    }

    /// Watches `prefix` after `from`, which must be a revision that can be read.
    pub(super) async fn watch(
        self: &Arc<Self>,
        prefix: &[u8],
        from: Revision,
    ) -> Result<EtcdWatcher, StoreError> {
        self.source.history.check(from).await?;
        let prefix = Bytes::copy_from_slice(prefix);
        let (feed, cursor) = self.join(&prefix, from)?;
        Ok(EtcdWatcher {
            feeds: Arc::clone(self),
            answered: feed.answered(),
            feed,
            cursor,
            prefix,
            position: from,
            wanted: Arc::default(),
            ticket: None,
            ended: None,
        })
    }

    /// The shared feed if it reaches back that far, else a new one.
    fn join(&self, prefix: &Bytes, from: Revision) -> Result<(Arc<Feed>, Position), StoreError> {
        let mut shared = self.shared.lock();
        let current = shared.get(prefix).and_then(Weak::upgrade);
        let current = current.filter(|feed| feed.failure().is_none());
        if let Some(feed) = &current
            && let Ok(cursor) = feed.subscribe(from)
        {
            return Ok((Arc::clone(feed), cursor));
        }
        let feed = Feed::shared(self.source.clone(), prefix.clone(), from);
        let cursor = feed.subscribe(from).map_err(|_| StoreError::Closed)?;
        if current.is_none() {
            shared.retain(|_, feed| feed.strong_count() > 0);
            shared.insert(prefix.clone(), Arc::downgrade(&feed));
        }
        Ok((feed, cursor))
    }
}

type Position = Cursor<Arc<Event>, Weighed>;

/// A request for progress, from whoever holds a requester.
#[derive(Default)]
struct Wanted {
    is_wanted: AtomicBool,
    wake: Notify,
}

/// A cursor in the log of a feed.
pub(super) struct EtcdWatcher {
    feeds: Arc<Feeds>,
    feed: Arc<Feed>,
    answered: watch::Receiver<u64>,
    cursor: Position,
    prefix: Bytes,
    /// Everything up to here has been delivered, or was not asked for.
    position: Revision,
    wanted: Arc<Wanted>,
    /// The request for progress that this watcher owes an answer to.
    ticket: Option<u64>,
    ended: Option<StoreError>,
}

impl EtcdWatcher {
    /// What there is to deliver at once.
    fn ready(&mut self) -> Result<Option<WatchBatch>, StoreError> {
        if self.wanted.is_wanted.swap(false, Ordering::AcqRel) {
            self.ticket = Some(self.feed.ask());
        }
        // Before the cursor is read: what the answer promises is in the log by then.
        let answered = *self.answered.borrow_and_update();
        match self.cursor.try_next(BATCH) {
            Ok(Some(batch)) => Ok(self.batch(batch.items, batch.revision)),
            Ok(None) => {
                self.position = self.position.max(self.cursor.position());
                if self.ticket.is_none_or(|ticket| ticket > answered) {
                    return Ok(None);
                }
                self.ticket = None;
                Ok(Some(WatchBatch {
                    events: Vec::new(),
                    revision: self.position,
                }))
            }
            Err(FanoutError::Lagged { .. }) => self.catch_up().map(|()| None),
            Err(_) => Err(self.feed.failure().unwrap_or(StoreError::Closed)),
        }
    }

    /// The events that are new to this watcher, if there are any.
    fn batch(&mut self, events: Vec<Arc<Event>>, revision: Revision) -> Option<WatchBatch> {
        let after = self.position;
        self.position = self.position.max(revision);
        self.feed.has_read(revision);
        let news = events.into_iter().filter(|event| event.revision() > after);
        let events: Vec<_> = news.collect();
        (!events.is_empty()).then_some(WatchBatch {
            events,
            revision: self.position,
        })
    }

    /// The log has dropped what comes next, but etcd may still have it.
    fn catch_up(&mut self) -> Result<(), StoreError> {
        let source = self.feeds.source.clone();
        self.feed = Feed::paced(source, self.prefix.clone(), self.position);
        self.answered = self.feed.answered();
        self.cursor = self
            .feed
            .subscribe(self.position)
            .map_err(|_| StoreError::Closed)?;
        if self.ticket.take().is_some() {
            self.ticket = Some(self.feed.ask());
        }
        Ok(())
    }
}

#[async_trait]
impl Watcher for EtcdWatcher {
    async fn next(&mut self) -> Result<WatchBatch, StoreError> {
        if let Some(error) = &self.ended {
            return Err(error.clone());
        }
        let wanted = Arc::clone(&self.wanted);
        loop {
            let wake = wanted.wake.notified();
            match self.ready() {
                Ok(Some(batch)) => return Ok(batch),
                Ok(None) => {}
                Err(error) => {
                    self.ended = Some(error.clone());
                    return Err(error);
                }
            }
            let is_owed = self.ticket.is_some();
            let batch = tokio::select! {
                batch = self.cursor.next(BATCH) => batch.ok(),
                // An error means that the feed has ended, as the cursor will tell.
                _ = self.answered.changed(), if is_owed => None,
                () = wake => None,
            };
            if let Some(batch) = batch.and_then(|batch| self.batch(batch.items, batch.revision)) {
                return Ok(batch);
            }
        }
    }

    fn progress_requester(&self) -> ProgressRequester {
        let wanted = Arc::clone(&self.wanted);
        ProgressRequester::new(move || {
            wanted.is_wanted.store(true, Ordering::Release);
            wanted.wake.notify_one();
        })
    }
}
