//! The seam between the embedded store and the file system.
//!
//! The store needs little: files that are written at their end, and a folder. Tests put a disk behind it
//! that loses power; an integrator can put one behind it that encrypts or counts.

mod directory;

use std::fmt;
use std::io;

pub use self::directory::Directory;

/// A flat folder of files for one store.
///
/// # Contract
///
/// What a file holds is certain to survive the loss of power after [`DiskFile::sync`]; that files were created,
/// renamed or removed, after [`Disk::sync`]. Until then any part of it may be lost, in any order. Calls come from
/// several threads, but never two at once for one file.
pub trait Disk: Send + Sync + 'static {
    /// The names of all files, in any order.
    ///
    /// # Errors
    /// Those of the file system.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Makes an empty file to be written at its end. One of that name is emptied.
    ///
    /// # Errors
    /// Those of the file system.
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;

    /// Opens an existing file to be written at its end, behind any room that was made.
    ///
    /// # Errors
    /// Those of the file system.
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;

    /// Opens a file to be read from its start.
    ///
    /// # Errors
    /// Those of the file system.
    fn read(&self, name: &str) -> io::Result<Box<dyn io::Read + Send>>;

    /// Gives a file another name, replacing a file that has it.
    ///
    /// # Errors
    /// Those of the file system.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// Those of the file system.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes the creations, renamings and removals so far durable.
    ///
    /// # Errors
    /// Those of the file system.
    fn sync(&self) -> io::Result<()>;
}

/// A file that is being written.
pub trait DiskFile: Send {
    /// Writes all of `bytes` at the end, over the room that was made there. After an error any part of them may have
    /// been written.
    ///
    /// # Errors
    /// Those of the file system.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Makes room for so many bytes behind the end: zeros that a reader sees until they are written over, and that
    /// need not survive a crash. It is for disks on which syncing a file is cheaper when the file does not grow; for others,
    /// doing nothing, the default, is right. After an error any part of the room may have been made.
    ///
    /// # Errors
    /// Those of the file system.
    fn reserve(&mut self, bytes: u64) -> io::Result<()> {
        let _ = bytes;
        Ok(())
    }

    /// Cuts the file, and room behind it, off at `length`, which is the end from then on.
    ///
    /// # Errors
    /// Those of the file system.
    fn truncate(&mut self, length: u64) -> io::Result<()>;

    /// Makes what was written durable. After an error it is unknown what is, and trying again does not help.
    ///
    /// # Errors
    /// Those of the file system.
    fn sync(&mut self) -> io::Result<()>;
}

impl fmt::Debug for dyn Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Disk")
    }
}

impl fmt::Debug for dyn DiskFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DiskFile")
    }
}
