use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use super::frame::Record;
use crate::engine::{Journal, Outcome, Staged};
use crate::{Event, EventKind, Revision, StoreError};

/// How long volatile writes wait for a durable one that takes them along.
const LINGER: Duration = Duration::from_secs(1);

/// For how many revisions ahead the log promises not to give them out again after a crash.
const RESERVE: u64 = 10_000;

/// What waits to be written.
#[derive(Debug)]
pub(super) enum Entry {
    Write(Staged),
    Compact { revision: Revision, done: Outcome },
    Reserve { revision: u64 },
}

impl Entry {
    /// The write's event, whether or not it is published.
    pub(super) fn event(&self) -> Option<&Arc<Event>> {
        match self {
            Self::Write(staged) => Some(&staged.event),
            Self::Compact { .. } | Self::Reserve { .. } => None,
        }
    }

    /// The event of a write that readers do not see yet.
    pub(super) fn unpublished(&self) -> Option<&Arc<Event>> {
        self.event().filter(|_| !self.is_published())
    }

    pub(super) fn is_published(&self) -> bool {
        matches!(self, Self::Write(staged) if staged.is_published)
    }

    pub(super) fn record(&self) -> Record<'_> {
        match self {
            Self::Reserve { revision } => Record::Reserve { revision: *revision },
            Self::Compact { revision, .. } => Record::Compact { revision: revision.0 },
            Self::Write(Staged { event, deadline, .. }) => match event.kind {
                EventKind::Put => Record::Put {
                    revision: event.revision().0,
                    deadline: *deadline,
                    key: event.key(),
                    value: &event.kv.value,
                },
                EventKind::Delete => Record::Delete {
                    revision: event.revision().0,
                    key: event.key(),
                },
            },
        }
    }

    pub(super) fn answer(self, outcome: Result<(), StoreError>) {
        let done = match self {
            Self::Write(staged) => staged.done,
            Self::Compact { done, .. } => Some(done),
            Self::Reserve { .. } => None,
        };
        if let Some(done) = done {
            // An error means that the caller was cancelled and does not want to know.
            done.send(outcome).ok();
        }
    }
}

/// How the last write failed.
#[derive(Debug, Clone)]
pub(super) enum Trouble {
    /// It was taken back; the next may succeed.
    Passing(Arc<io::Error>),
    /// There will be no further one.
    Final(Arc<io::Error>),
}

impl Trouble {
    pub(super) fn error(&self) -> StoreError {
        match self {
            Self::Passing(source) => StoreError::WriteFailed {
                source: Arc::clone(source),
            },
            Self::Final(source) => StoreError::ReadOnly {
                source: Arc::clone(source),
            },
        }
    }
}

/// Writes that are staged, on their way to the thread that commits them.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
    trouble: Mutex<Option<Trouble>>,
    volatile: Vec<Bytes>,
    /// Up to here revisions may be shown before they are on disk: a crash skips them.
    reserved: AtomicU64,
    /// Up to where that was asked for.
    requested: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    entries: Vec<Entry>,
    /// Whether somebody waits for one of them.
    urgent: bool,
    closed: bool,
}

impl Queue {
    pub(super) fn new(volatile: Vec<Bytes>, reserved: u64) -> Self {
        Self {
            waiting: Mutex::default(),
            arrived: Condvar::new(),
            trouble: Mutex::default(),
            volatile,
            reserved: AtomicU64::new(reserved),
            requested: AtomicU64::new(reserved),
        }
    }

    pub(super) fn push(&self, entry: Entry) {
        self.push_after(None, entry);
    }

    /// Queues both with nothing between them: whoever takes one takes the other.
    fn push_after(&self, before: Option<Entry>, entry: Entry) {
        let urgent = before.iter().chain([&entry]).any(|entry| !entry.is_published());
        let mut waiting = self.waiting.lock();
        // The thread looks again before it sleeps, so only the first of a batch has to wake it.
        let wakes = waiting.entries.is_empty() || (urgent && !waiting.urgent);
        waiting.entries.extend(before);
        waiting.entries.push(entry);
        waiting.urgent |= urgent;
        if wakes {
            self.arrived.notify_one();
        }
    }

    /// Waits for entries and takes all; `None` when the queue is closed and empty.
    pub(super) fn take(&self) -> Option<Vec<Entry>> {
        let mut waiting = self.waiting.lock();
        while waiting.entries.is_empty() {
            if waiting.closed {
                return None;
            }
            self.arrived.wait(&mut waiting);
        }
        let until = Instant::now() + LINGER;
        while !waiting.urgent && !waiting.closed {
            if self.arrived.wait_until(&mut waiting, until).timed_out() {
                break;
            }
        }
        Some(waiting.take())
    }

    /// What waits now.
    pub(super) fn take_rest(&self) -> Vec<Entry> {
        self.waiting.lock().take()
    }

    /// Puts published writes back to be tried again; false if the queue is closed and will not try.
    pub(super) fn put_back(&self, mut entries: Vec<Entry>) -> bool {
        let mut waiting = self.waiting.lock();
        if waiting.closed {
            return entries.is_empty();
        }
        entries.append(&mut waiting.entries);
        waiting.entries = entries;
        true
    }

    pub(super) fn close(&self) {
        self.waiting.lock().closed = true;
        self.arrived.notify_one();
    }

    pub(super) fn trouble(&self) -> Option<StoreError> {
        self.trouble.lock().as_ref().map(Trouble::error)
    }

    pub(super) fn set_trouble(&self, trouble: Trouble) {
        *self.trouble.lock() = Some(trouble);
        // What was asked for may be among what failed.
        let reserved = self.reserved.load(Ordering::Relaxed);
        self.requested.store(reserved, Ordering::Relaxed);
    }

    /// A write has succeeded.
    pub(super) fn clear_trouble(&self) {
        self.trouble
            .lock()
            .take_if(|trouble| matches!(trouble, Trouble::Passing(_)));
    }

    pub(super) fn set_reserved(&self, revision: u64) {
        self.reserved.fetch_max(revision, Ordering::Relaxed);
    }

    fn is_volatile(&self, event: &Event) -> bool {
        let key = event.key();
        self.volatile.iter().any(|prefix| key.starts_with(prefix))
    }

    /// What asks for more revisions, in good time.
    fn reserve_for(&self, revision: u64) -> Option<Entry> {
        if revision + RESERVE / 2 <= self.requested.load(Ordering::Relaxed) {
            return None;
        }
        let revision = revision + RESERVE;
        self.requested.store(revision, Ordering::Relaxed);
        Some(Entry::Reserve { revision })
    }
}

impl Waiting {
    fn take(&mut self) -> Vec<Entry> {
        self.urgent = false;
        std::mem::take(&mut self.entries)
    }
}

impl Journal for Arc<Queue> {
    fn submit(&self, staged: Staged) {
        let reservation = if self.is_volatile(&staged.event) {
            self.reserve_for(staged.event.revision().0)
        } else {
            None
        };
        // First the reservation: when the write that asked for it is acknowledged, it holds.
        self.push_after(reservation, Entry::Write(staged));
    }

    fn may_publish_first(&self, event: &Event) -> bool {
        event.revision().0 <= self.reserved.load(Ordering::Relaxed) && self.is_volatile(event)
    }

    fn refuses(&self) -> Option<StoreError> {
        match &*self.trouble.lock() {
            Some(trouble @ Trouble::Final(_)) => Some(trouble.error()),
            Some(Trouble::Passing(_)) | None => None,
        }
    }
}
