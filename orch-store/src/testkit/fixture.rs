use std::any::Any;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::{
    Event, KeyValue, Limits, ListOptions, ListPage, Revision, Store, StoreError, WatchBatch, Watcher,
};

/// A store under test, and what the kit should know of it.
pub struct Fixture {
    store: Arc<dyn Store>,
    keep: Vec<Box<dyn Any + Send + Sync>>,
    limits: Limits,
    ttl: Duration,
    patience: Duration,
    disrupt: Option<Disrupt>,
}

/// Disrupts the way to a store, and returns when it is whole again.
type Disrupt = Box<dyn Fn() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

impl Fixture {
    /// A store with the default limits.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            keep: Vec::new(),
            limits: Limits::default(),
            ttl: Duration::from_millis(300),
            patience: Duration::from_secs(30),
            disrupt: None,
        }
    }

    /// Keeps something alive until the check is over: a temporary directory, a server.
    #[must_use]
    pub fn keep(mut self, thing: impl Any + Send + Sync) -> Self {
        self.keep.push(Box::new(thing));
        self
    }

    /// The limits that the store has.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The shortest time to live that the store keeps well. Default 300 ms.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// How long to wait for something that must happen before it counts as missing. Default 30 s.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// For a store that is remote: something that breaks the way to it and returns when that is whole again, such as
    /// killing its server and starting it anew. Called several times by the checks that are about this.
    #[must_use]
    pub fn disrupt<F>(mut self, disrupt: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.disrupt = Some(Box::new(move || Box::pin(disrupt())));
        self
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store)
    }

    pub(super) fn store_limits(&self) -> Limits {
        self.limits
    }

    pub(super) fn shortest_ttl(&self) -> Duration {
        self.ttl
    }

    /// Waits for something that must happen.
    pub(super) async fn soon<F: Future>(&self, what: &str, future: F) -> F::Output {
        match tokio::time::timeout(self.patience, future).await {
            Ok(output) => output,
            Err(_) => panic!("{what} did not happen within {:?}", self.patience),
        }
    }

    /// Disrupts the store, if that can be.
    pub(super) async fn disrupted(&self) {
        if let Some(disrupt) = &self.disrupt {
            disrupt().await;
        }
    }

    /// As [`now`](Self::now), while the store may be disrupted.
    pub(super) async fn now_soon(&self) -> Revision {
        self.soon("an answer", async {
            loop {
                match self.store.current_revision().await {
                    Err(error) if error.is_retryable() => tokio::time::sleep(Duration::from_millis(10)).await,
                    result => return ok("current_revision", result),
                }
            }
        })
        .await
    }

    /// As [`watch`](Self::watch), while the store may be disrupted.
    pub(super) async fn watch_soon(&self, prefix: &str, from: Revision) -> Box<dyn Watcher> {
        self.soon("a watch", async {
            loop {
                match self.store.watch(prefix.as_bytes(), from).await {
                    Err(error) if error.is_retryable() => tokio::time::sleep(Duration::from_millis(10)).await,
                    result => return ok("watch", result),
                }
            }
        })
        .await
    }

    pub(super) async fn now(&self) -> Revision {
        ok("current_revision", self.store.current_revision().await)
    }

    pub(super) async fn create(&self, key: &str, value: &str) -> KeyValue {
        ok("create", self.store.create(bytes(key), bytes(value), None).await)
    }

    pub(super) async fn update(&self, kv: &KeyValue, value: &str) -> KeyValue {
        let update = self
            .store
            .update(kv.key.clone(), bytes(value), kv.mod_revision, None);
        ok("update", update.await)
    }

    /// Deletes the key as it stands in `kv`; the revision of the deletion.
    pub(super) async fn delete(&self, kv: &KeyValue) -> Revision {
        let deleted = self.store.delete(&kv.key, Some(kv.mod_revision)).await;
        let deleted = ok("delete", deleted);
        assert_eq!(deleted.previous, *kv, "a deletion returns what it has removed");
        deleted.revision
    }

    pub(super) async fn get(&self, key: &str) -> Option<KeyValue> {
        ok("get", self.store.get(key.as_bytes(), None).await).kv
    }

    pub(super) async fn list(&self, prefix: &str, options: ListOptions) -> ListPage {
        ok("list", self.store.list(prefix.as_bytes(), options).await)
    }

    pub(super) async fn watch(&self, prefix: &str, from: Revision) -> Box<dyn Watcher> {
        ok("watch", self.store.watch(prefix.as_bytes(), from).await)
    }

    pub(super) async fn compact(&self, revision: Revision) {
        ok("compact", self.store.compact(revision).await);
    }

    pub(super) async fn batch(&self, watcher: &mut dyn Watcher) -> WatchBatch {
        ok(
            "the watcher's next",
            self.soon("the next event", watcher.next()).await,
        )
    }

    /// The next `count` events, and no more.
    pub(super) async fn events(&self, watcher: &mut dyn Watcher, count: usize) -> Vec<Arc<Event>> {
        let mut events = Vec::new();
        while events.len() < count {
            let batch = self.batch(watcher).await;
            if let Some(last) = batch.events.last() {
                assert!(batch.revision >= last.revision(), "a batch reaches its events");
            }
            events.extend(batch.events);
        }
        assert_eq!(events.len(), count, "no more events than there were writes");
        events
    }

    /// All events up to `revision`, of which the last may be a progress mark.
    pub(super) async fn events_until(
        &self,
        watcher: &mut dyn Watcher,
        revision: Revision,
    ) -> Vec<Arc<Event>> {
        let mut events = Vec::new();
        watcher.progress_requester().request();
        loop {
            let batch = self.batch(watcher).await;
            events.extend(batch.events);
            if batch.revision >= revision {
                return events;
            }
        }
    }
}

impl fmt::Debug for Fixture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fixture")
            .field("limits", &self.limits)
            .field("ttl", &self.ttl)
            .field("patience", &self.patience)
            .finish_non_exhaustive()
    }
}

/// What a call that has to succeed returned.
pub(super) fn ok<T>(what: &str, result: Result<T, StoreError>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{what} failed: {error}"),
    }
}

pub(super) fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}
