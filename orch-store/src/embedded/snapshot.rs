use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::recovery::{self, Found};
use super::{OpenError, checkpoint, segment};
use crate::disk::{Disk, DiskFile};
use crate::engine::State;
use crate::{Event, KeyValue, ListOptions, ListPage, Read, Revision, StoreError};

/// How often a directory is read before it is given up. What looks wrong twice in the same way is believed before.
const ATTEMPTS: u32 = 100;

/// The state of an [`EmbeddedStore`](super::EmbeddedStore)'s directory at one moment, for backups and inspection.
///
/// It is read beside the process that has the store open, without its lock, and changes nothing on disk. What it
/// holds is the state at one revision, and certain to survive the loss of power; it has every write that was
/// acknowledged before the call. Only writes under a [volatile
/// prefix](super::EmbeddedOptions::volatile_prefix) that are not on disk yet are missing.
///
/// Everything that the state is made of is checked. The whole of it is held in memory, as by the store.
#[derive(Debug)]
pub struct Snapshot {
    state: State,
    /// Since the compaction, in order.
    events: Vec<Arc<Event>>,
    shown: Revision,
    was_closed: bool,
    files: Vec<SnapshotFile>,
}

/// A file that a [`Snapshot`] was read from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnapshotFile {
    /// Its name in the directory.
    pub name: String,
    /// Its size in bytes, up to where it was read.
    pub bytes: u64,
    /// What is in it.
    pub content: SnapshotContent,
}

/// What a [`SnapshotFile`] holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SnapshotContent {
    /// The state at one revision.
    Checkpoint {
        /// The revision.
        revision: Revision,
        /// How many keys it has.
        keys: u64,
    },
    /// Part of the log.
    Log {
        /// How many frames it has, each being the writes that were made durable together.
        frames: u64,
        /// How many bytes after the last whole frame belong to a write that was never acknowledged: it is under way,
        /// or a crash cut it off.
        torn: u64,
    },
}

impl Snapshot {
    /// Reads a directory. One that is in use may change while it is read, and then is read again.
    pub(super) fn read(path: &Path) -> Result<Self, OpenError> {
        let disk = ReadOnly(path.to_owned());
        let mut before = None;
        let mut attempt = 0;
        loop {
            attempt += 1;
            let error = match Self::attempt(&disk) {
                Ok(snapshot) => return Ok(snapshot),
                Err(error) => error,
            };
            // What a process did meanwhile looks different the next time.
            let description = format!("{error:?}");
            if before.as_ref() == Some(&description) || attempt == ATTEMPTS || !may_pass(&error) {
                return Err(error);
            }
            before = Some(description);
        }
    }

    fn attempt(disk: &ReadOnly) -> Result<Self, OpenError> {
        check_is_store(&disk.0)?;
        let found = recovery::read(disk)?;
        if let Some(name) = found.last_segment() {
            // The last frame may be whole and yet only in the kernel's hands.
            File::open(disk.0.join(&name))
                .and_then(|file| file.sync_data())
                .map_err(|error| OpenError::io("sync", &name, error))?;
        }
        let (shown, was_closed, files) = (Revision(found.shown()), found.was_closed(), files(&found));
        let (state, events) = found.finish();
        Ok(Self {
            state,
            events,
            shown,
            was_closed,
            files,
        })
    }

    /// The revision of the state.
    #[must_use]
    pub fn revision(&self) -> Revision {
        Revision(self.state.published)
    }

    /// The oldest revision that can be read.
    #[must_use]
    pub fn compacted(&self) -> Revision {
        Revision(self.state.compacted)
    }

    /// The newest revision that anyone may have been told of when the snapshot was taken. Later than
    /// [`revision`](Self::revision) only where volatile prefixes are in use.
    #[must_use]
    pub fn shown(&self) -> Revision {
        self.shown
    }

    /// Whether the store had been closed in good order: otherwise it is in use, or its process died.
    #[must_use]
    pub fn was_closed(&self) -> bool {
        self.was_closed
    }

    /// The files that it was read from.
    #[must_use]
    pub fn files(&self) -> &[SnapshotFile] {
        &self.files
    }

    /// As [`Store::get`](crate::Store::get).
    ///
    /// # Errors
    /// [`StoreError::Compacted`] and [`StoreError::FutureRevision`] for an `at` outside the history.
    pub fn get(&self, key: &[u8], at: Option<Revision>) -> Result<Read, StoreError> {
        self.state.get(key, at)
    }

    /// As [`Store::list`](crate::Store::list).
    ///
    /// # Errors
    /// [`StoreError::Compacted`] and [`StoreError::FutureRevision`] for an `at` outside the history.
    pub fn list(&self, prefix: &[u8], options: &ListOptions) -> Result<ListPage, StoreError> {
        self.state.list(prefix, options)
    }

    /// The writes after `from`, as a [`Watcher`](crate::Watcher) from there would deliver them up to
    /// [`revision`](Self::revision).
    ///
    /// # Errors
    /// [`StoreError::Compacted`] and [`StoreError::FutureRevision`] for a `from` outside the history.
    pub fn events(&self, from: Revision) -> Result<&[Arc<Event>], StoreError> {
        self.state.check_readable(from)?;
        let start = self.events.partition_point(|event| event.revision() <= from);
        Ok(&self.events[start..])
    }

    /// When the time to live ends that this key was written with; `None` for a permanent one. It may have passed: the
    /// key is deleted when the store is open at or after that time.
    #[must_use]
    pub fn expires(&self, kv: &KeyValue) -> Option<SystemTime> {
        let (_, version) = self.state.index.at(&kv.key, kv.mod_revision.0)?;
        (version.deadline != 0).then(|| UNIX_EPOCH + Duration::from_millis(version.deadline))
    }
}

/// Whether the error can come from reading a directory that is being written.
fn may_pass(error: &OpenError) -> bool {
    match error {
        OpenError::Corrupt { .. } => true,
        OpenError::Io { source, .. } => source.kind() == io::ErrorKind::NotFound,
        _ => false,
    }
}

fn files(found: &Found) -> Vec<SnapshotFile> {
    let checkpoint = found.checkpoint().map(|(file, keys)| SnapshotFile {
        name: checkpoint::name(file.revision),
        bytes: file.length,
        content: SnapshotContent::Checkpoint {
            revision: Revision(file.revision),
            keys,
        },
    });
    let segments = found.segments().iter().map(|file| SnapshotFile {
        name: file.name(),
        bytes: file.length() + file.torn(),
        content: SnapshotContent::Log {
            frames: file.frames(),
            torn: file.torn(),
        },
    });
    checkpoint.into_iter().chain(segments).collect()
}

pub(super) fn check_is_store(path: &Path) -> Result<(), OpenError> {
    let names = match ReadOnly(path.to_owned()).list() {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(OpenError::io("read", &path.display().to_string(), error)),
    };
    let is_ours = |name: &String| segment::number(name).or(checkpoint::revision(name)).is_some();
    if names.iter().any(is_ours) {
        return Ok(());
    }
    Err(OpenError::NoStore {
        path: path.to_owned(),
    })
}

/// Behind the last byte that is not zero, of the first `length` of a file.
fn written(file: &File, length: u64) -> io::Result<u64> {
    let mut end = length;
    let mut buffer = vec![0; 64 * 1024];
    while end > 0 {
        let start = end.saturating_sub(buffer.len() as u64);
        // No further than it was: meanwhile it may have grown.
        let count = file.read_at(&mut buffer[..(end - start) as usize], start)?;
        let found = buffer[..count].iter().rposition(|byte| *byte != 0);
        if let Some(last) = found {
            return Ok(start + last as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// A directory that is only read.
struct ReadOnly(PathBuf);

impl ReadOnly {
    fn refuse<T>() -> io::Result<T> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
}

impl Disk for ReadOnly {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in self.0.read_dir()? {
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn create(&self, _name: &str) -> io::Result<Box<dyn DiskFile>> {
        Self::refuse()
    }

    fn open(&self, _name: &str) -> io::Result<Box<dyn DiskFile>> {
        Self::refuse()
    }

    /// Up to where the file is written now, with zeros for the room behind it: what is written while it is read would look
    /// like damage behind a torn frame.
    fn read(&self, name: &str) -> io::Result<Box<dyn io::Read + Send>> {
        let file = File::open(self.0.join(name))?;
        let length = file.metadata()?.len();
        let written = written(&file, length)?;
        Ok(Box::new(
            file.take(written).chain(io::repeat(0).take(length - written)),
        ))
    }

    fn rename(&self, _from: &str, _to: &str) -> io::Result<()> {
        Self::refuse()
    }

    fn remove(&self, _name: &str) -> io::Result<()> {
        Self::refuse()
    }

    fn sync(&self) -> io::Result<()> {
        Self::refuse()
    }
}
