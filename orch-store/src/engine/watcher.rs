use std::sync::Arc;

use async_trait::async_trait;

use super::PrefixTopics;
use crate::fanout::{Cursor, FanoutError};
use crate::{Event, ProgressRequester, StoreError, WatchBatch, Watcher};

/// The most events in one batch: enough to spare locks and wake-ups, few enough to pass on at once.
const BATCH: usize = 512;

/// A watcher is a cursor in the engine's event log.
#[derive(Debug)]
pub(crate) struct EngineWatcher {
    cursor: Cursor<Arc<Event>, PrefixTopics>,
}

impl EngineWatcher {
    pub(super) fn new(cursor: Cursor<Arc<Event>, PrefixTopics>) -> Self {
        Self { cursor }
    }
}

#[async_trait]
impl Watcher for EngineWatcher {
    async fn next(&mut self) -> Result<WatchBatch, StoreError> {
        let batch = self.cursor.next(BATCH).await.map_err(store_error)?;
        Ok(WatchBatch {
            events: batch.items,
            revision: batch.revision,
        })
    }

    fn progress_requester(&self) -> ProgressRequester {
        self.cursor.progress_requester()
    }
}

#[allow(
    clippy::needless_pass_by_value,
    reason = "a function for `map_err`, which passes by value"
)]
pub(super) fn store_error(error: FanoutError) -> StoreError {
    match error {
        FanoutError::Lagged { position, dropped } => StoreError::Compacted {
            requested: position,
            compacted: dropped,
        },
        FanoutError::Future { position, head } => StoreError::FutureRevision {
            requested: position,
            current: head,
        },
        FanoutError::Closed => StoreError::Closed,
    }
}
