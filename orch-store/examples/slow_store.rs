//! A store made by someone else: it wraps another one and answers late, to see how a program copes with a slow disk.
//!
//! `cargo run -p orch-store --features testkit --example slow_store` runs the conformance kit on it, as its author's
//! `cargo test` would.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use orch_store::testkit::{self, Fixture};
use orch_store::{
    Deleted, Health, KeyValue, ListOptions, ListPage, MemoryStore, Read, Revision, Store, StoreError, Watcher,
};

/// Delays each call by a random time of up to `most`.
struct SlowStore {
    inner: Arc<dyn Store>,
    most: Duration,
}

impl SlowStore {
    fn new(inner: Arc<dyn Store>, most: Duration) -> Self {
        Self { inner, most }
    }

    async fn delay(&self) {
        tokio::time::sleep(self.most.mul_f64(fastrand::f64())).await;
    }
}

#[async_trait]
impl Store for SlowStore {
    async fn get(&self, key: &[u8], at: Option<Revision>) -> Result<Read, StoreError> {
        self.delay().await;
        self.inner.get(key, at).await
    }

    async fn list(&self, prefix: &[u8], options: ListOptions) -> Result<ListPage, StoreError> {
        self.delay().await;
        self.inner.list(prefix, options).await
    }

    async fn create(&self, key: Bytes, value: Bytes, ttl: Option<Duration>) -> Result<KeyValue, StoreError> {
        self.delay().await;
        self.inner.create(key, value, ttl).await
    }

    async fn update(
        &self,
        key: Bytes,
        value: Bytes,
        expected: Revision,
        ttl: Option<Duration>,
    ) -> Result<KeyValue, StoreError> {
        self.delay().await;
        self.inner.update(key, value, expected, ttl).await
    }

    async fn delete(&self, key: &[u8], expected: Option<Revision>) -> Result<Deleted, StoreError> {
        self.delay().await;
        self.inner.delete(key, expected).await
    }

    // Events come late through the writes; the watcher itself can be handed on as it is.
    async fn watch(&self, prefix: &[u8], from: Revision) -> Result<Box<dyn Watcher>, StoreError> {
        self.delay().await;
        self.inner.watch(prefix, from).await
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.delay().await;
        self.inner.compact(revision).await
    }

    async fn current_revision(&self) -> Result<Revision, StoreError> {
        self.delay().await;
        self.inner.current_revision().await
    }

    async fn health(&self) -> Result<Health, StoreError> {
        self.inner.health().await
    }
}

async fn fixture() -> Fixture {
    let memory = Arc::new(MemoryStore::new());
    let slow = SlowStore::new(memory, Duration::from_millis(2));
    Fixture::new(Arc::new(slow)).ttl(Duration::from_secs(1))
}

#[allow(clippy::print_stdout, reason = "a program for people")]
fn main() {
    let mut checks = 0;
    testkit::run_all(fixture, |name| {
        println!("{name}");
        checks += 1;
    });
    println!("{checks} checks passed");
}
