use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

use super::checkpoint::{self, Checkpoint};
use super::log::Segments;
use super::segment;
use crate::disk::Disk;
use crate::engine::Engine;

/// How many keys of a checkpoint are collected while the engine's lock is held once.
const CHUNK: usize = 512;

/// What the maintenance works on.
pub(super) struct Context {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) engine: Arc<Engine>,
    pub(super) segments: Segments,
    /// The newest one on disk.
    pub(super) checkpoint: Option<Checkpoint>,
    /// See [`EmbeddedOptions::checkpoint_after`](super::EmbeddedOptions::checkpoint_after).
    pub(super) min_garbage: u64,
}

/// The thread that gives back memory and disk after a compaction, while the store serves.
#[derive(Debug)]
pub(super) struct Maintenance {
    signal: Arc<Signal>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Signal {
    state: Mutex<SignalState>,
    changed: Condvar,
    /// Fires after each round.
    done: Notify,
}

#[derive(Debug, Default)]
struct SignalState {
    wanted: bool,
    /// A round is under way.
    busy: bool,
    stopped: bool,
    warning: Option<String>,
}

impl Maintenance {
    pub(super) fn start(context: Context) -> io::Result<Self> {
        let signal = Arc::new(Signal::default());
        // The first round removes what a crash during an earlier one has left.
        signal.state.lock().wanted = true;
        let worker = Worker {
            signal: Arc::clone(&signal),
            context,
        };
        let thread = std::thread::Builder::new()
            .name("orch-store-compact".into())
            .spawn(move || worker.run())?;
        Ok(Self {
            signal,
            thread: Some(thread),
        })
    }

    /// Says that there was a compaction.
    pub(super) fn wake(&self) {
        self.signal.state.lock().wanted = true;
        self.signal.changed.notify_one();
    }

    /// Waits until there is nothing to do.
    pub(super) async fn idle(&self) {
        loop {
            let mut done = pin!(self.signal.done.notified());
            done.as_mut().enable();
            {
                let state = self.signal.state.lock();
                if !state.wanted && !state.busy {
                    return;
                }
            }
            done.await;
        }
    }

    /// Why the last round failed, if it did.
    pub(super) fn warning(&self) -> Option<String> {
        self.signal.state.lock().warning.clone()
    }
}

impl Drop for Maintenance {
    fn drop(&mut self) {
        self.signal.state.lock().stopped = true;
        self.signal.changed.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the compaction thread panicked");
        }
    }
}

impl Signal {
    /// Waits for work; false means to stop.
    fn wait(&self) -> bool {
        let mut state = self.state.lock();
        while !state.wanted && !state.stopped {
            self.changed.wait(&mut state);
        }
        state.wanted = false;
        state.busy = !state.stopped;
        !state.stopped
    }

    /// A round is over.
    fn finish(&self, error: Option<io::Error>) {
        let mut state = self.state.lock();
        state.busy = false;
        state.warning = error.map(|error| format!("compaction could not give back disk space: {error}"));
        self.done.notify_waiters();
    }

    fn is_stopped(&self) -> bool {
        self.state.lock().stopped
    }
}

struct Worker {
    signal: Arc<Signal>,
    context: Context,
}

impl Worker {
    fn run(mut self) {
        while self.signal.wait() {
            let result = self.round();
            if result.is_err() {
                // An unfinished checkpoint must not take the space that is missing.
                self.remove_leftovers().ok();
            }
            if let Err(error) = &result {
                tracing::warn!(%error, "compaction could not give back disk space");
            }
            self.signal.finish(result.err());
        }
    }

    fn round(&mut self) -> io::Result<()> {
        let floor = self.context.engine.compacted();
        while self.context.engine.drop_compacted(floor) {
            if self.signal.is_stopped() {
                return Ok(());
            }
        }
        if self.is_worth_it(floor) {
            let Some(checkpoint) = self.write_checkpoint(floor)? else {
                return Ok(());
            };
            self.context.checkpoint = Some(checkpoint);
        }
        self.remove_leftovers()
    }

    fn is_worth_it(&self, floor: u64) -> bool {
        let done = self.context.checkpoint.map_or(0, |last| last.revision);
        if floor <= done {
            return false;
        }
        let garbage: u64 = {
            let segments = self.context.segments.lock();
            let count = superseded(&segments, floor);
            segments[..count].iter().map(|segment| segment.length).sum()
        };
        let half = self.context.checkpoint.map_or(0, |last| last.length / 2);
        garbage > 0 && garbage >= self.context.min_garbage.max(half)
    }

    /// Writes the state at `floor`; `None` when told to stop.
    fn write_checkpoint(&self, floor: u64) -> io::Result<Option<Checkpoint>> {
        let mut writer = checkpoint::Writer::create(&self.context.disk, floor)?;
        let mut reached: Option<Bytes> = None;
        loop {
            if self.signal.is_stopped() {
                return Ok(None);
            }
            let chunk = self.context.engine.snapshot(reached.as_ref(), floor, CHUNK);
            for (key, version) in &chunk.keys {
                writer.push(key, version)?;
            }
            if chunk.reached.is_none() {
                break;
            }
            reached = chunk.reached;
        }
        writer.finish().map(Some)
    }

    /// Removes the files that the newest checkpoint has made superfluous, and unfinished ones.
    fn remove_leftovers(&self) -> io::Result<()> {
        let revision = self.context.checkpoint.map_or(0, |last| last.revision);
        let first = {
            let mut segments = self.context.segments.lock();
            let count = superseded(&segments, revision);
            segments.drain(..count);
            segments.first().map_or(0, |segment| segment.number)
        };
        let disk = &self.context.disk;
        let mut removed = false;
        for name in disk.list()? {
            let superfluous = checkpoint::is_temporary(&name)
                || checkpoint::revision(&name).is_some_and(|found| found < revision)
                || segment::number(&name).is_some_and(|number| number < first);
            if superfluous {
                disk.remove(&name)?;
                removed = true;
            }
        }
        if removed { disk.sync() } else { Ok(()) }
    }
}

/// How many of the oldest segments hold nothing after `revision`. Never the last one, which is being written.
fn superseded(segments: &[super::log::Segment], revision: u64) -> usize {
    let later = segments.iter().skip(1);
    later
        .take_while(|next| next.previous_revision <= revision)
        .count()
}
