use std::sync::Arc;

use bytes::Bytes;
use etcd_client::{GetOptions, WatchOptions};

use super::convert::{header, revision, signed};
use super::failure::{Failure, Refused};
use super::members::Members;
use crate::{Revision, StoreError};

/// Where etcd's history begins and ends.
pub(super) struct History {
    members: Arc<Members>,
    /// A key that may be read. What it holds is of no interest.
    probe: Bytes,
}

impl History {
    pub(super) fn new(members: Arc<Members>, probe: Bytes) -> Self {
        Self { members, probe }
    }

    /// The newest revision.
    pub(super) async fn current(&self) -> Result<Revision, Failure> {
        self.probe(None).await
    }

    /// The oldest revision that can be read; zero when nothing was ever compacted.
    pub(super) async fn compacted(&self) -> Result<Revision, Failure> {
        match self.probe(Some(Revision::FIRST)).await {
            Ok(_) => Ok(Revision::ZERO),
            Err(Failure::Refused(Refused::Compacted)) => self.ask_compacted().await,
            Err(failure) => Err(failure),
        }
    }

    /// Whether the state at this revision can be read.
    pub(super) async fn check(&self, at: Revision) -> Result<(), StoreError> {
        // To etcd zero means the newest.
        match self.probe(Some(at.max(Revision::FIRST))).await {
            Ok(_) => Ok(()),
            Err(failure) => Err(self.explain(failure, at).await),
        }
    }

    /// The error for a read at `requested` that failed.
    pub(super) async fn explain(&self, failure: Failure, requested: Revision) -> StoreError {
        let told = match failure {
            Failure::Refused(Refused::Compacted) => self
                .compacted()
                .await
                .map(|compacted| StoreError::Compacted { requested, compacted }),
            Failure::Refused(Refused::Future) => self
                .current()
                .await
                .map(|current| StoreError::FutureRevision { requested, current }),
            other => return other.into_error(),
        };
        told.unwrap_or_else(Failure::into_error)
    }

    /// Reads at a revision, or the newest; returns the newest.
    async fn probe(&self, at: Option<Revision>) -> Result<Revision, Failure> {
        let mut options = GetOptions::new().with_count_only();
        if let Some(at) = at {
            options = options.with_revision(signed(at));
        }
        let read = self.members.read(|connection| {
            let (key, options) = (self.probe.to_vec(), options.clone());
            async move { connection.kv.clone().get(key, Some(options)).await }
        });
        Ok(header(read.await?.0.header.as_ref()))
    }

    /// Only a watch from before the compaction is told where that was.
    async fn ask_compacted(&self) -> Result<Revision, Failure> {
        let options = WatchOptions::new().with_start_revision(1);
        let ask = self.members.read(|connection| {
            let (key, options) = (self.probe.to_vec(), options.clone());
            async move {
                let mut stream = connection.watch.clone().watch(key, Some(options)).await?;
                while let Some(message) = stream.message().await? {
                    if message.compact_revision() > 0 {
                        return Ok(Some(revision(message.compact_revision())));
                    }
                    if message.canceled() {
                        break;
                    }
                }
                Ok(None)
            }
        });
        ask.await?
            .ok_or_else(|| Failure::NotDone("etcd did not tell its compacted revision".into()))
    }
}
