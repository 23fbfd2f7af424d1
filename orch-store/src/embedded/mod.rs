//! The durable store: the shared engine over an append log with checkpoints.

mod checkpoint;
mod codec;
mod committer;
mod frame;
mod frames;
mod import;
mod log;
mod maintenance;
mod mark;
mod options;
mod queue;
mod recovery;
mod replay;
mod segment;
mod snapshot;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

pub use self::import::{Import, ImportError};
pub use self::options::EmbeddedOptions;
pub use self::snapshot::{Snapshot, SnapshotContent, SnapshotFile};

use self::committer::Committer;
use self::maintenance::Maintenance;
use self::queue::Queue;
use crate::disk::{Directory, Disk};
use crate::engine::Engine;
use crate::{Deleted, Health, KeyValue, ListOptions, ListPage, Read, Revision, Store, StoreError, Watcher};

/// Why an [`EmbeddedStore`] could not be opened. Nothing on disk was changed or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another store, in this process or another, has the directory open.
    #[error("{} is in use by another store", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },

    /// The directory does not exist or has no store in it, where one was to be read.
    #[error("there is no store in {}", path.display())]
    NoStore {
        /// The directory.
        path: PathBuf,
    },

    /// The directory may not be written to.
    #[error("{} is not writable", path.display())]
    NotWritable {
        /// The directory.
        path: PathBuf,
        /// What the file system said.
        #[source]
        source: io::Error,
    },

    /// A newer version of this crate wrote the file.
    #[error("{file} has format {found}, this version reads up to {supported}")]
    NewerFormat {
        /// The file's name.
        file: String,
        /// Its format.
        found: u32,
        /// The newest format that can be read.
        supported: u32,
    },

    /// The file is damaged: not by a crash, which damages at most the end of the log and is repaired, but by
    /// something that changed what was safely on disk.
    #[error("{file} is damaged at byte {offset}: {reason}")]
    Corrupt {
        /// The file's name.
        file: String,
        /// Where the damage begins.
        offset: u64,
        /// What is wrong.
        reason: &'static str,
    },

    /// The file system refused.
    #[error("cannot {action} {file}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        file: String,
        /// What the file system said.
        #[source]
        source: io::Error,
    },
}

impl OpenError {
    fn corrupt(file: &str, offset: u64, reason: &'static str) -> Self {
        Self::Corrupt {
            file: file.to_owned(),
            offset,
            reason,
        }
    }

    fn io(action: &'static str, file: &str, source: io::Error) -> Self {
        Self::Io {
            action,
            file: file.to_owned(),
            source,
        }
    }
}

/// A durable [`Store`] in one directory, for one process.
///
/// A write is acknowledged, and shown to anyone, after it is on disk (`fdatasync`); writers that come at the same time
/// share one such call. All keys and values are also kept in memory, so that reads touch no disk: the data has to
/// fit. History is kept, in memory and on disk, until it is [compacted](Store::compact), for instance
/// by a [`Compactor`](crate::Compactor).
///
/// **After a crash**, opening the directory finds every write that was acknowledged or shown, and no part of one. It
/// repairs nothing by guessing: damage that no crash can cause is reported as [`OpenError::Corrupt`].
/// Damage to the very end of the log of a store that was not closed is the one that cannot be told from a crash.
///
/// **When the disk is full**, writes fail with [`StoreError::WriteFailed`], reads go on, and writes succeed again when
/// there is space. When the disk fails to say whether data is safe, the store takes no more writes
/// ([`StoreError::ReadOnly`]).
///
/// Dropping the store ends its watchers, waits for the writes under way, and closes the files.
#[derive(Debug)]
pub struct EmbeddedStore {
    engine: Arc<Engine>,
    // Fields are dropped in this order: the maintenance may use the log, not the other way round.
    maintenance: Maintenance,
    committer: Committer,
}

impl EmbeddedStore {
    /// Opens the store in this directory, which is made if it does not exist, with the default options.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::options().open(path).await
    }

    /// What can be chosen when opening.
    #[must_use]
    pub fn options() -> EmbeddedOptions {
        EmbeddedOptions::default()
    }

    /// Reads the state in a directory, which another process may have open, and changes nothing in it.
    ///
    /// # Errors
    /// [`OpenError::NoStore`] for a directory without one; see [`OpenError`] for the others.
    pub async fn snapshot_of(path: impl AsRef<Path>) -> Result<Snapshot, OpenError> {
        let path = path.as_ref().to_owned();
        options::blocking(move || Snapshot::read(&path)).await
    }

    /// Begins to fill a directory without keys, which is made if it does not exist, with the state that another store
    /// had at `revision`. The store will stand there, or where it stands now if that is later.
    ///
    /// # Errors
    /// [`ImportError::NotEmpty`] for a directory with keys; see [`OpenError`] for the others.
    pub async fn import(path: impl AsRef<Path>, revision: Revision) -> Result<Import, ImportError> {
        let path = path.as_ref().to_owned();
        options::blocking(move || Import::begin(path, revision)).await
    }

    /// Waits until the compactions so far have given back what memory and disk space they can. Whether that
    /// failed, [`Store::health`] tells.
    ///
    /// Nobody has to call this: it is for programs that compact and end, as closing the store leaves the rest of that work
    /// to the next time it is open.
    pub async fn reclaimed(&self) {
        self.maintenance.idle().await;
    }

    fn open_blocking(disk: Arc<dyn Disk>, options: &EmbeddedOptions) -> Result<Self, OpenError> {
        let recovered = recovery::recover(&disk, options.segment_size, options.skip_to.0)?;
        let log = Arc::clone(recovered.log.segments());
        let volatile = options.volatile.clone();
        let queue = Arc::new(Queue::new(volatile, recovered.log.reserved()));
        let engine = Engine::new(
            recovered.state,
            recovered.events,
            options.limits,
            Some(Box::new(Arc::clone(&queue))),
        );
        let committer = Committer::start(queue, Arc::clone(&engine), recovered.log)
            .map_err(|error| OpenError::io("start a thread for", "the log", error))?;
        let maintenance = Maintenance::start(maintenance::Context {
            disk,
            engine: Arc::clone(&engine),
            segments: log,
            checkpoint: recovered.checkpoint,
            min_garbage: options.checkpoint_after,
        })
        .map_err(|error| OpenError::io("start a thread for", "checkpoints", error))?;
        Ok(Self {
            engine,
            maintenance,
            committer,
        })
    }
}

fn open_directory(path: &Path, options: &EmbeddedOptions) -> Result<EmbeddedStore, OpenError> {
    if options.must_exist {
        snapshot::check_is_store(path)?;
    }
    let directory = Directory::open(path)?;
    EmbeddedStore::open_blocking(Arc::new(directory), options)
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        self.engine.close();
    }
}

#[async_trait]
impl Store for EmbeddedStore {
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
        if !self.engine.would_compact(revision)? {
            if self.maintenance.warning().is_some() {
                // What failed for want of space may find it by now.
                self.maintenance.wake();
            }
            return Ok(());
        }
        // On disk before it takes effect: history that was gone must not come back with a restart.
        self.committer.compact(revision).await?;
        self.engine.mark_compacted(revision);
        self.maintenance.wake();
        Ok(())
    }

    async fn current_revision(&self) -> Result<Revision, StoreError> {
        Ok(self.engine.revision())
    }

    async fn health(&self) -> Result<Health, StoreError> {
        match self.committer.trouble() {
            Some(error) => Err(error),
            None => Ok(self.engine.health().warning(self.maintenance.warning())),
        }
    }
}
