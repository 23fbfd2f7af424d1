use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use super::frame;
use super::log::{Log, LogError};
use super::queue::{Entry, Queue, Trouble};
use crate::engine::{Engine, Journal};
use crate::{Event, Revision, StoreError};

/// The most bytes in one frame, beyond which the next writers get a frame of their own.
const FRAME: usize = 4 * 1024 * 1024;

/// The least size at which a compaction ends a segment.
const MIN_SEGMENT: u64 = 64 * 1024;

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
            has_lost: false,
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
        self.queue.trouble()
    }
}

/// Commits what waits, closes the log and ends the thread.
impl Drop for Committer {
    fn drop(&mut self) {
        self.queue.close();
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
    /// Whether something that readers have seen could not be written in the end.
    has_lost: bool,
}

impl Worker {
    fn run(mut self) {
        while let Some(entries) = self.queue.take() {
            self.commit_all(entries);
        }
        if self.has_lost || self.queue.refuses().is_some() {
            return;
        }
        if let Err(error) = self.log.close() {
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
        self.queue.clear_trouble();
        let events = batch.iter().filter_map(Entry::unpublished).cloned();
        self.engine.publish(events.collect());
        for entry in batch {
            match entry {
                Entry::Compact { .. } => self.log.end_segment(MIN_SEGMENT),
                Entry::Reserve { revision } => {
                    self.log.set_reserved(revision);
                    self.queue.set_reserved(revision);
                }
                Entry::Write(_) => {}
            }
            entry.answer(Ok(()));
        }
    }

    /// Takes back these entries and all that were staged on top of them, but for what readers have seen already.
    fn fail(&mut self, error: LogError, mut entries: Vec<Entry>) {
        let trouble = match error {
            LogError::Undone(error) => Trouble::Passing(Arc::new(error)),
            LogError::Unknown(error) => Trouble::Final(Arc::new(error)),
        };
        tracing::error!(?trouble, "the log could not be written");
        let failed = {
            // While this lock is held no further write is staged.
            let mut state = self.engine.state().write();
            entries.append(&mut self.queue.take_rest());
            self.queue.set_trouble(trouble.clone());
            let (seen, failed): (Vec<_>, Vec<_>) = entries.into_iter().partition(Entry::is_published);
            self.has_lost |= !self.queue.put_back(seen);
            let events: Vec<Arc<Event>> = failed.iter().filter_map(Entry::event).cloned().collect();
            self.engine.roll_back(&mut state, &events);
            failed
        };
        for entry in failed {
            entry.answer(Err(trouble.error()));
        }
    }
}
