//! The watch cache of one resource: the newest state as an immutable snapshot, and the changes that led to it.
//!
//! One task follows the store. Readers take the snapshot of the moment and share its bytes; watchers hold a position in
//! the log of changes. Order of publication, on which readers rely: changes first, then the snapshot, then the
//! head. So a watch that begins at a snapshot's revision misses nothing, and whoever waited for the head to
//! reach a revision finds it in the snapshot.

pub(crate) mod entry;
pub(crate) mod snapshot;
pub(crate) mod splice;
pub(crate) mod topic;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use orch_core::status::{ApiError, Reason, cause};
use orch_store::fanout::{Bounds, Cursor, Fanout, FanoutError};
use orch_store::{Event, EventKind, ListOptions, ProgressRequester, Revision, Store, StoreError, Watcher};
use parking_lot::Mutex;
use tokio::sync::{OnceCell, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use self::entry::{Change, Entry};
use self::snapshot::Snapshot;
use self::topic::{Topic, Topics};
use crate::store_error;
use crate::strategy::Strategy;
use crate::tasks::Tasks;

/// How many changes, and how many bytes of them, a slow watcher may be behind before it is cut off.
const HISTORY: (usize, usize) = (4096, 64 << 20);
/// How long a read waits for the cache to reach the revision that it asks for, as upstream.
const FRESH_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the follower waits before it starts over when the store fails.
const RESTART_DELAY: Duration = Duration::from_millis(200);
/// How many past snapshots are kept for the next pages of lists.
const PAGED_SNAPSHOTS: usize = 8;

/// The cache of one resource. It starts when it is first asked.
#[derive(Debug)]
pub(crate) struct Cache {
    strategy: Arc<dyn Strategy>,
    store: StoreHandle,
    tasks: Tasks,
    inner: OnceCell<Arc<Inner>>,
    /// Ends the follower with the cache, which may go before the server does.
    dropped: CancellationToken,
    _ends: DropGuard,
}

/// A store that prints as such.
#[derive(Clone)]
pub(crate) struct StoreHandle(pub(crate) Arc<dyn Store>);

impl std::fmt::Debug for StoreHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Store")
    }
}

struct Inner {
    snapshot: ArcSwap<Snapshot>,
    /// Replaced as a whole when the follower has to start over: then its watchers end.
    changes: ArcSwap<Fanout<Arc<Change>, Topics>>,
    progress: ArcSwap<Option<ProgressRequester>>,
    head: watch::Sender<u64>,
    paged: Mutex<VecDeque<Arc<Snapshot>>>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner")
            .field("head", &*self.head.borrow())
            .finish_non_exhaustive()
    }
}

impl Cache {
    pub(crate) fn new(strategy: Arc<dyn Strategy>, store: StoreHandle, tasks: Tasks) -> Self {
        let dropped = tasks.stopped().child_token();
        Self {
            strategy,
            store,
            tasks,
            inner: OnceCell::new(),
            _ends: dropped.clone().drop_guard(),
            dropped,
        }
    }

    async fn inner(&self) -> Result<&Arc<Inner>, ApiError> {
        self.inner.get_or_try_init(|| self.start()).await
    }

    async fn start(&self) -> Result<Arc<Inner>, ApiError> {
        let follower = Follower {
            strategy: Arc::clone(&self.strategy),
            store: Arc::clone(&self.store.0),
        };
        let target = self.store.0.current_revision().await.map_err(store_error)?;
        let (state, changes, watcher) = follower.begin(true).await.map_err(store_error)?;
        let inner = Arc::new(Inner {
            head: watch::Sender::new(state.revision),
            snapshot: ArcSwap::from_pointee(state),
            changes: ArcSwap::from_pointee(changes),
            progress: ArcSwap::from_pointee(Some(watcher.progress_requester())),
            paged: Mutex::default(),
        });
        let (owned, dropped) = (Arc::clone(&inner), self.dropped.clone());
        self.tasks.spawn(move |_| follower.run(owned, watcher, dropped));
        inner.reach(target.get()).await?;
        Ok(inner)
    }

    /// How many objects there are, if the cache has started.
    pub(crate) fn count(&self) -> Option<usize> {
        Some(self.inner.get()?.snapshot.load().len())
    }

    /// The state of the moment, however old.
    pub(crate) async fn any(&self) -> Result<Arc<Snapshot>, ApiError> {
        Ok(self.inner().await?.snapshot.load_full())
    }

    /// A state that holds every write acknowledged before the call.
    pub(crate) async fn fresh(&self) -> Result<Arc<Snapshot>, ApiError> {
        let inner = self.inner().await?;
        let newest = self.store.0.current_revision().await.map_err(store_error)?;
        inner.reach(newest.get()).await
    }

    /// A state no older than `revision`.
    pub(crate) async fn not_older_than(&self, revision: u64) -> Result<Arc<Snapshot>, ApiError> {
        self.inner().await?.reach(revision).await
    }

    /// The changes of a topic after a revision.
    pub(crate) async fn subscribe(
        &self,
        topic: Topic,
        after: u64,
    ) -> Result<Result<Cursor<Arc<Change>, Topics>, FanoutError>, ApiError> {
        let inner = self.inner().await?;
        Ok(inner.changes.load().subscribe(topic, Revision(after)))
    }

    /// Keeps a snapshot of which a client has read the first page.
    pub(crate) async fn keep_for_pages(&self, snapshot: &Arc<Snapshot>) -> Result<(), ApiError> {
        let mut paged = self.inner().await?.paged.lock();
        if !paged.iter().any(|kept| kept.revision == snapshot.revision) {
            paged.push_back(Arc::clone(snapshot));
            if paged.len() > PAGED_SNAPSHOTS {
                paged.pop_front();
            }
        }
        Ok(())
    }

    /// The state at exactly that revision: a kept snapshot, the newest one, or what the store still knows.
    pub(crate) async fn exactly(&self, revision: u64) -> Result<Arc<Snapshot>, StoreError> {
        if let Some(inner) = self.inner.get() {
            let newest = inner.snapshot.load_full();
            let paged = inner
                .paged
                .lock()
                .iter()
                .find(|kept| kept.revision == revision)
                .cloned();
            if let Some(found) = paged.or_else(|| (newest.revision == revision).then_some(newest)) {
                return Ok(found);
            }
        }
        let follower = Follower {
            strategy: Arc::clone(&self.strategy),
            store: Arc::clone(&self.store.0),
        };
        Ok(Arc::new(follower.list(Some(Revision(revision))).await?))
    }
}

impl Inner {
    async fn reach(&self, revision: u64) -> Result<Arc<Snapshot>, ApiError> {
        let now = self.snapshot.load_full();
        if now.revision >= revision {
            return Ok(now);
        }
        if let Some(progress) = &**self.progress.load() {
            progress.request();
        }
        let mut head = self.head.subscribe();
        let reached = tokio::time::timeout(FRESH_TIMEOUT, head.wait_for(|head| *head >= revision)).await;
        match reached {
            Ok(Ok(_)) => Ok(self.snapshot.load_full()),
            Ok(Err(_)) | Err(_) => Err(too_large(revision, *self.head.borrow())),
        }
    }

    /// Takes over a batch of the store's events.
    fn apply(&self, strategy: &dyn Strategy, events: &[Arc<Event>], revision: u64) {
        let mut snapshot = Snapshot::clone(&self.snapshot.load());
        let changes = self.changes.load();
        let publish = events
            .iter()
            .filter_map(|event| Some((event.revision(), change(&mut snapshot, strategy, event)?)));
        changes.publish_all(publish.collect::<Vec<_>>());
        changes.advance(Revision(revision));
        snapshot.revision = revision;
        self.snapshot.store(Arc::new(snapshot));
        self.head.send_replace(revision);
    }
}

/// Reads one event of the store into the snapshot.
fn change(snapshot: &mut Snapshot, strategy: &dyn Strategy, event: &Event) -> Option<Arc<Change>> {
    let revision = event.revision().get();
    match event.kind {
        EventKind::Put => {
            let entry = read(strategy, &event.kv.key, &event.kv.value, revision)?;
            let previous = snapshot.insert(Arc::clone(&entry));
            Some(Arc::new(Change::put(entry, previous)))
        }
        EventKind::Delete => {
            let previous = snapshot.remove(&event.kv.key)?;
            let last = Arc::new(previous.at_revision(revision));
            Some(Arc::new(Change::delete(last, previous)))
        }
    }
}

/// Makes an entry. What cannot be read is left out of the cache and reported, and does not stop the rest.
fn read(strategy: &dyn Strategy, key: &Bytes, value: &Bytes, revision: u64) -> Option<Arc<Entry>> {
    let entry = strategy
        .read_stored(value)
        .map_err(|error| error.to_string())
        .and_then(|value| Entry::new(key.clone(), &value, revision).map_err(|error| error.to_string()));
    match entry {
        Ok(entry) => {
            if indexed(strategy).is_some() {
                fields(strategy, &entry);
            }
            Some(Arc::new(entry))
        }
        Err(error) => {
            tracing::error!(key = %String::from_utf8_lossy(key), %error, "stored value is not an object");
            None
        }
    }
}

/// The selectable fields of an object, found out once.
pub(crate) fn fields<'a>(strategy: &dyn Strategy, entry: &'a Entry) -> &'a [(Cow<'static, str>, String)] {
    entry.fields.get_or_init(|| match strategy.decode(&entry.json) {
        Ok(decoded) => strategy.selectable_fields(&*decoded.object),
        Err(error) => {
            tracing::error!(key = %String::from_utf8_lossy(&entry.key), %error, "stored object cannot be decoded");
            Vec::new()
        }
    })
}

/// The field by which watchers are woken apart: each node agent watches the pods of its node only.
pub(crate) fn indexed(strategy: &dyn Strategy) -> Option<&'static str> {
    let info = strategy.info();
    (info.group.is_empty() && info.plural == "pods").then_some("spec.nodeName")
}

fn too_large(wanted: u64, current: u64) -> ApiError {
    let message = format!("Too large resource version: {wanted}, current: {current}");
    let error = ApiError::new(Reason::Timeout, format!("Timeout: {message}")).with_cause(cause(
        "ResourceVersionTooLarge",
        "",
        "Too large resource version",
    ));
    error.with_details(|details| details.retry_after_seconds = Some(1))
}

/// Follows the store for one resource.
struct Follower {
    strategy: Arc<dyn Strategy>,
    store: Arc<dyn Store>,
}

type Beginning = (Snapshot, Fanout<Arc<Change>, Topics>, Box<dyn Watcher>);

impl Follower {
    fn prefix(&self) -> String {
        self.strategy.info().prefix()
    }

    /// Lists everything and begins to watch. With `history` it goes back as far as the store remembers, so that
    /// watchers can resume from before the start of the cache.
    async fn begin(&self, history: bool) -> Result<Beginning, StoreError> {
        let oldest = if history {
            let health = self.store.health().await?;
            // Not further than what can be kept, however much the store remembers.
            let kept = health.revision.get().saturating_sub(HISTORY.0 as u64);
            Some(health.compacted.max(Revision::FIRST).max(Revision(kept)))
        } else {
            None
        };
        let state = match self.list(oldest).await {
            Err(StoreError::Compacted { .. } | StoreError::FutureRevision { .. }) => self.list(None).await?,
            other => other?,
        };
        let bounds = Bounds::default().max_items(HISTORY.0).max_weight(HISTORY.1);
        let topics = Topics {
            indexed: indexed(&*self.strategy),
        };
        let changes = Fanout::new(topics, Revision(state.revision), bounds);
        let watcher = self
            .store
            .watch(self.prefix().as_bytes(), Revision(state.revision))
            .await?;
        Ok((state, changes, watcher))
    }

    async fn list(&self, at: Option<Revision>) -> Result<Snapshot, StoreError> {
        let prefix = self.prefix();
        let page = self
            .store
            .list(
                prefix.as_bytes(),
                ListOptions {
                    at,
                    ..ListOptions::default()
                },
            )
            .await?;
        let mut snapshot = Snapshot::default();
        snapshot.revision = page.revision.get();
        for kv in page.items {
            if let Some(entry) = read(&*self.strategy, &kv.key, &kv.value, kv.mod_revision.get()) {
                snapshot.insert(entry);
            }
        }
        Ok(snapshot)
    }

    async fn run(self, inner: Arc<Inner>, mut watcher: Box<dyn Watcher>, shutdown: CancellationToken) {
        loop {
            let error = tokio::select! {
                () = shutdown.cancelled() => break,
                error = self.follow(&inner, &mut *watcher) => error,
            };
            if matches!(error, StoreError::Closed) {
                break;
            }
            tracing::warn!(resource = %self.strategy.info().plural, %error, "watch of the store ended, starting over");
            tokio::select! {
                () = shutdown.cancelled() => break,
                again = self.restart(&inner) => watcher = again,
            }
        }
        inner.changes.load().close();
    }

    async fn follow(&self, inner: &Inner, watcher: &mut dyn Watcher) -> StoreError {
        loop {
            match watcher.next().await {
                Ok(batch) => inner.apply(&*self.strategy, &batch.events, batch.revision.get()),
                Err(error) => return error,
            }
        }
    }

    /// Begins anew until it works. Watchers of the old log end and have to list again: what happened in between is
    /// not known event by event.
    async fn restart(&self, inner: &Inner) -> Box<dyn Watcher> {
        loop {
            tokio::time::sleep(RESTART_DELAY).await;
            match self.begin(false).await {
                Ok((state, changes, watcher)) => {
                    let revision = state.revision;
                    inner.progress.store(Arc::new(Some(watcher.progress_requester())));
                    inner.changes.swap(Arc::new(changes)).close();
                    inner.snapshot.store(Arc::new(state));
                    inner.head.send_replace(revision);
                    return watcher;
                }
                Err(error) => tracing::warn!(%error, "store cannot be listed"),
            }
        }
    }
}
