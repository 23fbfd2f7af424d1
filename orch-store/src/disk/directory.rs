use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::{Disk, DiskFile};
use crate::OpenError;

const LOCK: &str = "lock";

/// A directory of the operating system, locked against other processes for as long as this value lives.
///
/// It is made with mode 0700 if it does not exist, its files with 0600.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// Open for `fsync`.
    handle: File,
    /// Holds the lock, which ends with the process however that ends.
    lock: File,
}

impl Directory {
    /// Opens or makes the directory and takes its lock.
    ///
    /// # Errors
    /// [`OpenError::Locked`] when another store has it open, [`OpenError::NotWritable`] and [`OpenError::Io`] for
    /// what the file system says.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, OpenError> {
        let path = path.into();
        make_directory(&path).map_err(|error| refused(&path, "create", error))?;
        let handle = File::open(&path).map_err(|error| refused(&path, "open", error))?;
        let lock = take_lock(&path)?;
        Ok(Self { path, handle, lock })
    }

    fn options() -> OpenOptions {
        let mut options = OpenOptions::new();
        options.write(true).mode(0o600);
        options
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // Closing is not enough: a child that another thread is just starting has the file open too until it executes its
        // program, and would keep the lock for that long.
        if let Err(error) = self.lock.unlock() {
            tracing::debug!(%error, "the lock ends with the last process that has the file open");
        }
    }
}

impl Disk for Directory {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in self.path.read_dir()? {
            // A name that is not UTF-8 is none of ours.
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = Self::options().create(true).open(self.path.join(name))?;
        file.set_len(0)?;
        Ok(Box::new(Written { file, end: 0 }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = Self::options().open(self.path.join(name))?;
        let end = file.metadata()?.len();
        Ok(Box::new(Written { file, end }))
    }

    fn read(&self, name: &str) -> io::Result<Box<dyn io::Read + Send>> {
        Ok(Box::new(File::open(self.path.join(name))?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path.join(name))
    }

    fn sync(&self) -> io::Result<()> {
        self.handle.sync_all()
    }
}

/// A file that is written at `end`, behind which there may be room.
#[derive(Debug)]
struct Written {
    file: File,
    end: u64,
}

impl DiskFile for Written {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.end)?;
        self.end += bytes.len() as u64;
        Ok(())
    }

    /// Writes real zeros: space that is only allocated costs a write to the file system's journal, with the next sync,
    /// when it is first written to.
    fn reserve(&mut self, bytes: u64) -> io::Result<()> {
        static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];
        let end = self.end + bytes;
        let mut offset = self.end;
        while offset < end {
            let length = (end - offset).min(ZEROS.len() as u64);
            self.file.write_all_at(&ZEROS[..length as usize], offset)?;
            offset += length;
        }
        Ok(())
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.file.set_len(length)?;
        self.end = length;
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// Makes the directory, and its entry in the one above durable.
fn make_directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    match path.canonicalize()?.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

fn take_lock(path: &Path) -> Result<File, OpenError> {
    let file = Directory::options()
        .create(true)
        .open(path.join(LOCK))
        .map_err(|error| refused(path, "lock", error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked {
            path: path.to_owned(),
        }),
        Err(TryLockError::Error(error)) => Err(refused(path, "lock", error)),
    }
}

fn refused(path: &Path, action: &'static str, source: io::Error) -> OpenError {
    match source.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => OpenError::NotWritable {
            path: path.to_owned(),
            source,
        },
        _ => OpenError::Io {
            action,
            file: path.display().to_string(),
            source,
        },
    }
}
