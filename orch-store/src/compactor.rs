use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::{Revision, Store};

/// How many times in the time that history is kept the compactor looks at the store.
const LOOKS: u32 = 5;

/// Compacts a store again and again, so that its history stays bounded: what kube-apiserver does to etcd every five
/// minutes.
///
/// History is kept for a time (default five minutes, and up to a fifth longer), but never more than a number of revisions
/// (default 100,000) at the time of each look.
///
/// ```no_run
/// # async fn example(store: std::sync::Arc<dyn orch_store::Store>) {
/// use std::time::Duration;
/// use orch_store::Compactor;
/// use tokio_util::sync::CancellationToken;
///
/// let shutdown = CancellationToken::new();
/// Compactor::new(store).keep(Duration::from_secs(600)).run(shutdown).await;
/// # }
/// ```
#[must_use = "a compactor does nothing until it runs"]
pub struct Compactor {
    store: Arc<dyn Store>,
    keep: Duration,
    max_revisions: u64,
}

impl Compactor {
    /// A compactor with the default policy.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            keep: Duration::from_secs(300),
            max_revisions: 100_000,
        }
    }

    /// How long history is kept, unless there is too much of it. At least a millisecond.
    pub fn keep(mut self, time: Duration) -> Self {
        self.keep = time.max(Duration::from_millis(1));
        self
    }

    /// How many revisions are kept at most, however young they are.
    pub fn max_revisions(mut self, revisions: u64) -> Self {
        self.max_revisions = revisions;
        self
    }

    /// Compacts until the shutdown. A failure is logged and tried again at the next look.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut looks = tokio::time::interval(self.keep / LOOKS);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut past = Past::default();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = looks.tick() => {}
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.look(&mut past) => {}
            }
        }
    }

    async fn look(&self, past: &mut Past) {
        let compacted = async {
            let current = self.store.current_revision().await?;
            let Some(target) = past.look(Instant::now(), current, self.keep, self.max_revisions) else {
                return Ok(());
            };
            self.store.compact(target).await
        };
        if let Err(error) = compacted.await {
            tracing::warn!(%error, "the store could not be compacted");
        }
    }
}

impl fmt::Debug for Compactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compactor")
            .field("keep", &self.keep)
            .field("max_revisions", &self.max_revisions)
            .finish_non_exhaustive()
    }
}

/// Which revision the store had when.
#[derive(Debug, Default)]
struct Past {
    looks: VecDeque<(Instant, Revision)>,
}

impl Past {
    /// Notes where the store is; the revision to compact to, if there is one.
    fn look(
        &mut self,
        now: Instant,
        current: Revision,
        keep: Duration,
        max_revisions: u64,
    ) -> Option<Revision> {
        self.looks.push_back((now, current));
        let mut old = Revision::ZERO;
        while let Some(&(at, revision)) = self.looks.front()
            && now.duration_since(at) >= keep
        {
            old = revision;
            self.looks.pop_front();
        }
        let excess = Revision(current.0.saturating_sub(max_revisions));
        let target = old.max(excess);
        (target > Revision::FIRST).then_some(target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ListOptions, MemoryStore};

    const KEEP: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn history_is_kept_for_its_time() {
        let start = Instant::now();
        let mut past = Past::default();
        let mut look = |second: u64, revision: u64| {
            past.look(
                start + Duration::from_secs(second),
                Revision(revision),
                KEEP,
                1000,
            )
        };
        assert_eq!(look(0, 5), None);
        assert_eq!(look(5, 9), None);
        assert_eq!(look(10, 20), Some(Revision(5)));
        assert_eq!(look(25, 20), Some(Revision(20)));
    }

    #[tokio::test]
    async fn too_much_history_is_cut_however_young() {
        let mut past = Past::default();
        let target = past.look(Instant::now(), Revision(5000), KEEP, 1000);
        assert_eq!(target, Some(Revision(4000)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_running_compactor_forgets_history_and_keeps_the_present() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let shutdown = CancellationToken::new();
        let compactor = Compactor::new(Arc::clone(&store)).keep(KEEP);
        let task = tokio::spawn(compactor.run(shutdown.clone()));
        let first = store.create("k".into(), "1".into(), None).await.unwrap();
        let second = store
            .update("k".into(), "2".into(), first.mod_revision, None)
            .await
            .unwrap();
        tokio::time::sleep(KEEP * 2).await;
        let old = ListOptions::default().at(first.mod_revision);
        assert!(store.list(b"", old).await.unwrap_err().is_compacted());
        let page = store.list(b"", ListOptions::default()).await.unwrap();
        assert_eq!(page.items, [second]);
        shutdown.cancel();
        task.await.unwrap();
    }
}
