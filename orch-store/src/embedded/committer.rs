use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::frame::{self, Record};
use super::log::{Log, LogError};
use crate::engine::{Engine, Journal, Outcome, Staged};
use crate::{Event, EventKind, Revision, StoreError};

/// The most bytes in one frame, beyond which the next writers get a frame of their own.
const FRAME: usize = 4 * 1024 * 1024;

/// The least size at which a compaction ends a segment.
const MIN_SEGMENT: u64 = 64 * 1024;

/// What waits to be written.
#[derive(Debug)]
enum Entry {
    Write(Staged),
    Compact { revision: Revision, done: Outcome },
}

/// Writes that are staged, on their way to the thread that commits them.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
    trouble: Mutex<Option<Trouble>>,
}

#[derive(Debug, Default)]
struct Waiting {
    entries: Vec<Entry>,
    closed: bool,
}

/// How the last write failed.
#[derive(Debug, Clone)]
enum Trouble {
    /// It was taken back; the next may succeed.
    Passing(Arc<io::Error>),
    /// There will be no further one.
    Final(Arc<io::Error>),
}

impl Trouble {
    fn error(&self) -> StoreError {
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

pub(super) fn queue() -> Arc<Queue> {
    Arc::default()
}

impl Queue {
    fn push(&self, entry: Entry) {
        let mut waiting = self.waiting.lock();
        waiting.entries.push(entry);
        // The thread looks again before it sleeps, so only the first of a batch has to wake it.
        if waiting.entries.len() == 1 {
            self.arrived.notify_one();
        }
    }

    /// Waits for entries and takes all; `None` when the queue is closed and empty.
    fn take(&self) -> Option<Vec<Entry>> {
        let mut waiting = self.waiting.lock();
        while waiting.entries.is_empty() {
            if waiting.closed {
                return None;
            }
            self.arrived.wait(&mut waiting);
        }
        Some(std::mem::take(&mut waiting.entries))
    }
}

impl Journal for Arc<Queue> {
    fn submit(&self, staged: Staged) {
        self.push(Entry::Write(staged));
    }

    fn refuses(&self) -> Option<StoreError> {
        match &*self.trouble.lock() {
            Some(trouble @ Trouble::Final(_)) => Some(trouble.error()),
            Some(Trouble::Passing(_)) | None => None,
        }
    }
}

/// The thread that makes staged writes durable: all that wait go into one frame and share one `fdatasync`.
#[derive(Debug)]
pub(super) struct Committer {
    queue: Arc<Queue>,
    thread: Option<JoinHandle<()>>,
}

impl Committer {
    pub(super) fn start(queue: Arc<Queue>, engine: Arc<Engine>, log: Log) -> io::Result<Self> {
        let worker = Worker {
            queue: Arc::clone(&queue),
            engine,
            log,
            frame: frame::Builder::default(),
        };
        let thread = std::thread::Builder::new()
            .name("orch-store-log".into())
            .spawn(move || worker.run())?;
        Ok(Self {
            queue,
            thread: Some(thread),
        })
    }

    /// Notes in the log that history before `revision` is forgotten.
    pub(super) async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        if let Some(error) = self.queue.refuses() {
            return Err(error);
        }
        let (done, outcome) = oneshot::channel();
        self.queue.push(Entry::Compact { revision, done });
        outcome.await.map_err(|_| StoreError::Closed)?
    }

    /// Why the last write failed, unless one has succeeded since.
    pub(super) fn trouble(&self) -> Option<StoreError> {
        self.queue.trouble.lock().as_ref().map(Trouble::error)
    }
}

/// Commits what waits, closes the log and ends the thread.
impl Drop for Committer {
    fn drop(&mut self) {
        self.queue.waiting.lock().closed = true;
        self.queue.arrived.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that writes the log panicked");
        }
    }
}

struct Worker {
    queue: Arc<Queue>,
    engine: Arc<Engine>,
    log: Log,
    frame: frame::Builder,
}

impl Worker {
    fn run(mut self) {
        while let Some(entries) = self.queue.take() {
            self.commit_all(entries);
        }
        if self.queue.refuses().is_none()
            && let Err(error) = self.log.close()
        {
            tracing::warn!(%error, "the log could not be closed in good order");
        }
    }

    fn commit_all(&mut self, entries: Vec<Entry>) {
        let mut rest = entries.into_iter();
        loop {
            let batch = self.fill_frame(&mut rest);
            if batch.is_empty() {
                return;
            }
            let revision = batch.iter().filter_map(Entry::event).next_back();
            let revision = revision.map_or(0, |event| event.revision().0);
            let result = self.log.commit(&mut self.frame, revision);
            self.frame.clear();
            match result {
                Ok(()) => self.publish(batch),
                Err(error) => return self.fail(error, batch.into_iter().chain(rest).collect()),
            }
        }
    }

    fn fill_frame(&mut self, entries: &mut std::vec::IntoIter<Entry>) -> Vec<Entry> {
        let mut batch = Vec::with_capacity(entries.len());
        while self.frame.len() < FRAME
            && let Some(entry) = entries.next()
        {
            self.frame.push(&entry.record());
            batch.push(entry);
        }
        batch
    }

    fn publish(&mut self, batch: Vec<Entry>) {
        self.queue
            .trouble
            .lock()
            .take_if(|trouble| matches!(trouble, Trouble::Passing(_)));
        let events = batch.iter().filter_map(Entry::event).cloned().collect();
        self.engine.publish(events);
        for entry in batch {
            if matches!(entry, Entry::Compact { .. }) {
                self.log.end_segment(MIN_SEGMENT);
            }
            entry.answer(Ok(()));
        }
    }

    /// Takes back these entries and all that were staged on top of them.
    fn fail(&self, error: LogError, mut entries: Vec<Entry>) {
        let trouble = match error {
            LogError::Undone(error) => Trouble::Passing(Arc::new(error)),
            LogError::Unknown(error) => Trouble::Final(Arc::new(error)),
        };
        tracing::error!(?trouble, "the log could not be written");
        {
            // While this lock is held no further write is staged.
            let mut state = self.engine.state().write();
            entries.append(&mut self.queue.waiting.lock().entries);
            *self.queue.trouble.lock() = Some(trouble.clone());
            let events: Vec<Arc<Event>> = entries.iter().filter_map(Entry::event).cloned().collect();
            self.engine.roll_back(&mut state, &events);
        }
        for entry in entries {
            entry.answer(Err(trouble.error()));
        }
    }
}

impl Entry {
    fn event(&self) -> Option<&Arc<Event>> {
        match self {
            Self::Write(staged) => Some(&staged.event),
            Self::Compact { .. } => None,
        }
    }

    fn record(&self) -> Record<'_> {
        match self {
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

    fn answer(self, outcome: Result<(), StoreError>) {
        let done = match self {
            Self::Write(staged) => staged.done,
            Self::Compact { done, .. } => Some(done),
        };
        if let Some(done) = done {
            // An error means that the caller was cancelled and does not want to know.
            done.send(outcome).ok();
        }
    }
}
