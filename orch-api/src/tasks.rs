//! The background tasks of a server: owned by it, ended with it.

use std::future::Future;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

/// A set of tasks that end when the last handle is dropped or [`stop`](Tasks::stop) is called. Clones share the set.
#[derive(Clone, Debug)]
pub(crate) struct Tasks {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    tasks: Mutex<JoinSet<()>>,
    stop: CancellationToken,
    _stops: DropGuard,
}

impl Tasks {
    pub(crate) fn new() -> Self {
        let stop = CancellationToken::new();
        let shared = Shared {
            tasks: Mutex::default(),
            _stops: stop.clone().drop_guard(),
            stop,
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Runs a task, which must not hold a handle to the set itself.
    pub(crate) fn spawn<F: Future<Output = ()> + Send + 'static>(
        &self,
        task: impl FnOnce(CancellationToken) -> F,
    ) {
        let task = task(self.shared.stop.clone());
        let mut tasks = self.shared.tasks.lock();
        // Those that have ended make room.
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    /// Tells all tasks to end.
    pub(crate) fn stop(&self) {
        self.shared.stop.cancel();
    }

    /// Cancelled when the tasks are to end.
    pub(crate) fn stopped(&self) -> &CancellationToken {
        &self.shared.stop
    }
}
