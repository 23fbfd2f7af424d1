use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use super::Engine;

/// When which write of a key ends.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Due {
    deadline: u64,
    pub(super) revision: u64,
    pub(super) key: Bytes,
}

impl Due {
    pub(super) fn new(deadline: u64, revision: u64, key: Bytes) -> Self {
        Self {
            deadline,
            revision,
            key,
        }
    }
}

/// Deletes keys when their time to live ends, within milliseconds, on a thread of its own that exists from the first
/// such key on.
///
/// A key that is written again leaves its old entry behind: when that comes due, the guard of its
/// deletion does not hold and nothing happens.
#[derive(Debug, Default)]
pub(crate) struct Expiry {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    due: BinaryHeap<Reverse<Due>>,
    stopped: bool,
}

impl Expiry {
    pub(super) fn arm(&self, engine: &Arc<Engine>, due: Due) {
        let mut queue = self.shared.queue.lock();
        if queue.stopped {
            return;
        }
        let is_next = queue.due.peek().is_none_or(|Reverse(next)| due < *next);
        queue.due.push(Reverse(due));
        drop(queue);
        if is_next {
            self.shared.changed.notify_one();
            self.start(engine);
        }
    }

    /// Ends the thread and waits for it.
    pub(crate) fn stop(&self) {
        self.shared.queue.lock().stopped = true;
        self.shared.changed.notify_one();
        let thread = self.thread.lock().take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the expiry thread panicked");
        }
    }

    fn start(&self, engine: &Arc<Engine>) {
        let mut thread = self.thread.lock();
        if thread.is_some() {
            return;
        }
        let shared = Arc::clone(&self.shared);
        let engine = Arc::downgrade(engine);
        let started = std::thread::Builder::new()
            .name("orch-store-ttl".into())
            .spawn(move || shared.run(&engine));
        match started {
            Ok(handle) => *thread = Some(handle),
            Err(error) => tracing::error!(%error, "no thread for expiry, keys outlive their time"),
        }
    }
}

impl Shared {
    fn run(&self, engine: &Weak<Engine>) {
        while let Some(due) = self.wait(engine) {
            let Some(engine) = engine.upgrade() else {
                return;
            };
            engine.expire(&due);
        }
    }

    /// Waits for the next entry to come due; `None` means to stop.
    fn wait(&self, engine: &Weak<Engine>) -> Option<Due> {
        let mut queue = self.queue.lock();
        loop {
            if queue.stopped {
                return None;
            }
            let Some(Reverse(next)) = queue.due.peek() else {
                self.changed.wait(&mut queue);
                continue;
            };
            let now = engine.upgrade()?.clock.now();
            if next.deadline <= now {
                return queue.due.pop().map(|Reverse(due)| due);
            }
            let rest = Duration::from_millis(next.deadline - now);
            self.changed.wait_for(&mut queue, rest);
        }
    }
}
