use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::engine::{Engine, State};
use crate::{
    Deleted, Health, KeyValue, Limits, ListOptions, ListPage, Read, Revision, Store, StoreError, Watcher,
};

/// A [`Store`] that keeps everything in memory and forgets it when it is dropped: for tests and for ephemeral
/// control planes.
///
/// History is kept until it is [compacted](Store::compact). Keys with a time to live end within milliseconds
/// of their time.
#[derive(Debug)]
pub struct MemoryStore {
    engine: Arc<Engine>,
}

impl MemoryStore {
    /// An empty store with the default [`Limits`].
    #[must_use]
    pub fn new() -> Self {
        Self::with_limits(Limits::default())
    }

    /// An empty store.
    #[must_use]
    pub fn with_limits(limits: Limits) -> Self {
        Self {
            engine: Engine::new(State::default(), Vec::new(), limits, None),
        }
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for MemoryStore {
    fn drop(&mut self) {
        self.engine.close();
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn get(&self, key: &[u8], at: Option<Revision>) -> Result<Read, StoreError> {
        self.engine.get(key, at)
    }

    async fn list(&self, prefix: &[u8], options: ListOptions) -> Result<ListPage, StoreError> {
        self.engine.list(prefix, &options)
    }

    async fn create(&self, key: Bytes, value: Bytes, ttl: Option<Duration>) -> Result<KeyValue, StoreError> {
        self.engine.create(key, value, ttl).await
    }

    async fn update(
        &self,
        key: Bytes,
        value: Bytes,
        expected: Revision,
        ttl: Option<Duration>,
    ) -> Result<KeyValue, StoreError> {
        self.engine.update(key, value, expected, ttl).await
    }

    async fn delete(&self, key: &[u8], expected: Option<Revision>) -> Result<Deleted, StoreError> {
        let event = self.engine.delete(key, expected).await?;
        Ok(Deleted::from_event(&event))
    }

    async fn watch(&self, prefix: &[u8], from: Revision) -> Result<Box<dyn Watcher>, StoreError> {
        Ok(Box::new(self.engine.watch(prefix, from)?))
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        if self.engine.would_compact(revision)? {
            self.engine.mark_compacted(revision);
        }
        // Also when it is compacted already: a call that was cancelled may have left something.
        let floor = self.engine.compacted();
        while self.engine.drop_compacted(floor) {
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    async fn current_revision(&self) -> Result<Revision, StoreError> {
        Ok(self.engine.revision())
    }

    async fn health(&self) -> Result<Health, StoreError> {
        Ok(self.engine.health())
    }
}
