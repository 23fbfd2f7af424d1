//! A latch that says when a component has caught up and works.

use tokio_util::sync::CancellationToken;

/// Set once by a component when it is in working order, awaited by whoever depends on it.
///
/// Clones share the latch. It never goes back.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let ready = orch_core::ready::Ready::new();
/// let seen = ready.clone();
/// ready.set();
/// seen.wait().await;
/// assert!(seen.is_ready());
/// # });
/// ```
#[derive(Clone, Debug, Default)]
pub struct Ready(CancellationToken);

impl Ready {
    /// A latch that is not set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets it.
    pub fn set(&self) {
        self.0.cancel();
    }

    /// Whether it is set.
    pub fn is_ready(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Returns once it is set.
    pub async fn wait(&self) {
        self.0.cancelled().await;
    }

    /// Returns once all of `latches` are set.
    pub async fn wait_all(latches: impl IntoIterator<Item = Ready>) {
        for latch in latches {
            latch.wait().await;
        }
    }
}
