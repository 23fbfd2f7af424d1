//! An executor whose tasks end with the connection: HTTP/2 runs each request as a task of its own.

use std::future::Future;

use hyper::rt::Executor;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Spawns tasks that are dropped when `stop` is cancelled.
#[derive(Clone, Debug)]
pub(super) struct OwnedExecutor {
    stop: CancellationToken,
}

impl OwnedExecutor {
    /// An executor, and the guard with which its tasks live.
    pub(super) fn new(parent: &CancellationToken) -> (Self, DropGuard) {
        let stop = parent.child_token();
        let guard = stop.clone().drop_guard();
        (OwnedExecutor { stop }, guard)
    }
}

impl<F> Executor<F> for OwnedExecutor
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        let stop = self.stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                _ = future => {}
            }
        });
    }
}
