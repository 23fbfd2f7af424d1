use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::log::Log;
use super::{OpenError, checkpoint, recovery};
use crate::disk::{Directory, Disk};
use crate::engine::Version;
use crate::{KeyValue, Revision};

/// Why an [`Import`] was refused. The directory holds the store that was there before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The directory could not be opened, or not written to.
    #[error(transparent)]
    Open(#[from] OpenError),

    /// There are keys already.
    #[error("{} has {keys} keys already", path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
        /// How many keys there are.
        keys: u64,
    },

    /// No store could hold this.
    #[error("key {key:?}: {reason}")]
    Invalid {
        /// The key.
        key: Bytes,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// Fills an empty directory with the state of another store, revisions and times to live included. Made by
/// [`EmbeddedStore::import`](super::EmbeddedStore::import).
///
/// The state appears with [`finish`](Self::finish), all of it at once, also when there is a crash. An import that is
/// dropped before leaves the directory as an empty store.
///
/// The calls wait for the disk: make them where blocking is allowed.
#[derive(Debug)]
pub struct Import {
    writer: checkpoint::Writer,
    log: Log,
    revision: Revision,
    last: Bytes,
}

impl Import {
    pub(super) fn begin(path: PathBuf, revision: Revision) -> Result<Self, ImportError> {
        let disk: Arc<dyn Disk> = Arc::new(Directory::open(&path)?);
        // Nothing is written to the log, so that its size does not matter.
        let recovered = recovery::recover(&disk, u64::MAX, 0)?;
        let state = recovered.state;
        let keys = state.index.range(b"", std::ops::Bound::Unbounded, u64::MAX);
        let keys = keys.filter(|(_, version)| version.is_some()).count() as u64;
        if keys > 0 {
            close(recovered.log);
            return Err(ImportError::NotEmpty { path, keys });
        }
        // What was told to anyone by an empty store counts too.
        let revision = revision.max(Revision(state.published));
        let writer = checkpoint::Writer::create(&disk, revision.0)
            .map_err(|error| OpenError::io("create", &checkpoint::temporary_name(revision.0), error))?;
        Ok(Self {
            writer,
            log: recovered.log,
            revision,
            last: Bytes::new(),
        })
    }

    /// Adds a key as it was, with the end of its time to live if it has one. Keys come in ascending order, and none was
    /// written after the revision of the state. [`Limits`](crate::Limits) do not apply: what one store took, another keeps.
    ///
    /// # Errors
    /// [`ImportError::Invalid`] for a key that cannot be, [`ImportError::Open`] for what the file system says.
    pub fn push(&mut self, kv: &KeyValue, expires: Option<SystemTime>) -> Result<(), ImportError> {
        if let Some(reason) = self.objection(kv) {
            return Err(ImportError::Invalid {
                key: kv.key.clone(),
                reason,
            });
        }
        self.last = kv.key.clone();
        let version = Version {
            mod_revision: kv.mod_revision.0,
            create_revision: kv.create_revision.0,
            version: kv.version,
            deadline: expires.map_or(0, deadline),
            value: Some(kv.value.clone()),
        };
        self.writer
            .push(&kv.key, &version)
            .map_err(|error| self.failed(error))
    }

    /// Makes the state durable and visible: the directory then is a store that stands at the returned revision, with no
    /// history before it.
    ///
    /// # Errors
    /// [`ImportError::Open`] for what the file system says.
    pub fn finish(self) -> Result<Revision, ImportError> {
        let revision = self.revision;
        self.writer
            .finish()
            .map_err(|error| OpenError::io("write", &checkpoint::name(revision.0), error))?;
        close(self.log);
        Ok(revision)
    }

    fn objection(&self, kv: &KeyValue) -> Option<&'static str> {
        if kv.key.is_empty() {
            return Some("it is empty");
        }
        if kv.key <= self.last {
            return Some("it does not come after the one before");
        }
        if kv.mod_revision > self.revision {
            return Some("it was written after the revision of the state");
        }
        if kv.create_revision > kv.mod_revision || kv.create_revision == Revision::ZERO || kv.version == 0 {
            return Some("its revisions contradict each other");
        }
        None
    }

    fn failed(&self, error: std::io::Error) -> ImportError {
        OpenError::io("write", &checkpoint::temporary_name(self.revision.0), error).into()
    }
}

/// A mark that is missing costs nothing but a check at the next opening.
fn close(log: Log) {
    if let Err(error) = log.close() {
        tracing::warn!(%error, "the log could not be closed in good order");
    }
}

/// Never 0, which stands for no deadline.
fn deadline(expires: SystemTime) -> u64 {
    let since = expires.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX).max(1)
}
