use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::{EmbeddedStore, OpenError, open_directory};
use crate::disk::Disk;
use crate::{Limits, Revision};

/// How to open an [`EmbeddedStore`].
#[derive(Debug, Clone)]
pub struct EmbeddedOptions {
    pub(super) limits: Limits,
    pub(super) segment_size: u64,
    pub(super) checkpoint_after: u64,
    pub(super) volatile: Vec<Bytes>,
    pub(super) skip_to: Revision,
    pub(super) must_exist: bool,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            segment_size: 64 * 1024 * 1024,
            checkpoint_after: 4 * 1024 * 1024,
            volatile: Vec::new(),
            skip_to: Revision::ZERO,
            must_exist: false,
        }
    }
}

impl EmbeddedOptions {
    /// How large keys and values may be. What is stored already is not measured again.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The size in bytes after which the log goes on in a new file. Default 64 MiB.
    #[must_use]
    pub fn segment_size(mut self, bytes: u64) -> Self {
        self.segment_size = bytes;
        self
    }

    /// A compaction gives disk space back when that is at least so many bytes, and at least half the size of the last
    /// checkpoint; otherwise it leaves that to a later one. Default 4 MiB.
    #[must_use]
    pub fn checkpoint_after(mut self, bytes: u64) -> Self {
        self.checkpoint_after = bytes;
        self
    }

    /// Makes the keys with this prefix volatile: writes of them are acknowledged and shown at once, and are on disk about a
    /// second later, or with the next durable write. May be called several times. Default: none.
    ///
    /// Meant for what is written often and soon outdated, such as Leases and Events. After a crash the last of these writes may be
    /// missing, though never one from before a durable write. Revisions are not reused even then: the store skips
    /// those that may have been shown, and as it cannot say what was lost, forgets its history, so that watchers
    /// from before the crash get [`StoreError::Compacted`](crate::StoreError::Compacted) and list again.
    #[must_use]
    pub fn volatile_prefix(mut self, prefix: impl Into<Bytes>) -> Self {
        self.volatile.push(prefix.into());
        self
    }

    /// Opening lets the store skip the revisions up to this one, if it has not reached it, and forget its history, so that
    /// watchers from before get [`StoreError::Compacted`](crate::StoreError::Compacted) and list again. Default: none.
    ///
    /// For a store that takes the place of another whose clients have seen these revisions: none of them is told
    /// a second time, of something else.
    #[must_use]
    pub fn skip_to_revision(mut self, revision: Revision) -> Self {
        self.skip_to = revision;
        self
    }

    /// Opening a directory without a store fails with [`OpenError::NoStore`] instead of making one there.
    #[must_use]
    pub fn must_exist(mut self) -> Self {
        self.must_exist = true;
        self
    }

    /// Opens the store in a directory, which is made if it does not exist.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(self, path: impl AsRef<Path>) -> Result<EmbeddedStore, OpenError> {
        let path = path.as_ref().to_owned();
        blocking(move || open_directory(&path, &self)).await
    }

    /// Opens the store on another kind of disk. Whoever makes the disk sees to it that nobody else uses it.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open_on(self, disk: Arc<dyn Disk>) -> Result<EmbeddedStore, OpenError> {
        blocking(move || EmbeddedStore::open_blocking(disk, &self)).await
    }
}

pub(super) async fn blocking<T, E>(open: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, E>
where
    T: Send + 'static,
    E: From<OpenError> + Send + 'static,
{
    match tokio::task::spawn_blocking(open).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => Err(OpenError::io("open", "the store", std::io::Error::other(error)).into()),
        },
    }
}
