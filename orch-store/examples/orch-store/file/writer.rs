//! Writes a backup, which gets its name when it is whole.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;

use super::{BLOCK, FORMAT, Header, MAGIC, Totals, checksum};
use crate::source::Record;

/// A backup being written. Dropped before it is finished, it leaves nothing behind.
#[derive(Debug)]
pub(crate) struct Writer {
    file: File,
    path: PathBuf,
    temporary: PathBuf,
    force: bool,
    block: Vec<u8>,
    number: u64,
    totals: Totals,
    length: u64,
    is_finished: bool,
}

impl Writer {
    pub(crate) fn create(path: &Path, force: bool, header: &Header) -> anyhow::Result<Self> {
        refuse_existing(path, force)?;
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".tmp");
        let temporary = PathBuf::from(temporary);
        let file = own(&temporary)?;
        let mut writer = Self {
            file,
            path: path.to_owned(),
            temporary,
            force,
            block: Vec::new(),
            number: 0,
            totals: Totals::default(),
            length: 0,
            is_finished: false,
        };
        writer.write(&encode(header))?;
        Ok(writer)
    }

    /// Adds a record; keys come in ascending order.
    pub(crate) fn push(&mut self, record: &Record) -> anyhow::Result<()> {
        let kv = &record.kv;
        for number in [kv.mod_revision.0, kv.create_revision.0, kv.version] {
            self.block.extend(number.to_le_bytes());
        }
        self.block.extend(record.expires.map_or(0, millis).to_le_bytes());
        for string in [&kv.key, &kv.value] {
            let length = u32::try_from(string.len()).context("a key or value has 4 GiB or more")?;
            self.block.extend(length.to_le_bytes());
            self.block.extend_from_slice(string);
        }
        self.totals.records += 1;
        self.totals.bytes += (kv.key.len() + kv.value.len()) as u64;
        if self.block.len() >= BLOCK {
            self.flush()?;
        }
        Ok(())
    }

    /// Completes the file, makes it durable and gives it its name. Returns what is in it, and its size.
    pub(crate) fn finish(mut self) -> anyhow::Result<(Totals, u64)> {
        if !self.block.is_empty() {
            self.flush()?;
        }
        let mut totals = self.totals.records.to_le_bytes().to_vec();
        totals.extend(self.totals.bytes.to_le_bytes());
        let sum = checksum(self.number + 1, &totals);
        self.write(&[0; 8])?;
        self.write(&totals)?;
        self.write(&sum.to_le_bytes())?;
        self.publish()
            .with_context(|| format!("cannot complete {}", self.path.display()))?;
        Ok((self.totals, self.length))
    }

    fn publish(&mut self) -> anyhow::Result<()> {
        self.file.sync_all()?;
        refuse_existing(&self.path, self.force)?;
        std::fs::rename(&self.temporary, &self.path)?;
        self.is_finished = true;
        let folder = self.path.parent().filter(|path| !path.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
        Ok(())
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        self.number += 1;
        let block = std::mem::take(&mut self.block);
        let length = u32::try_from(block.len()).context("a block has 4 GiB or more")?;
        self.write(&length.to_le_bytes())?;
        self.write(&checksum(self.number, &block).to_le_bytes())?;
        self.write(&block)?;
        self.block = block;
        self.block.clear();
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.length += bytes.len() as u64;
        self.file
            .write_all(bytes)
            .with_context(|| format!("cannot write {}", self.temporary.display()))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.is_finished {
            // What remains is only in the way, and the next backup to this file replaces it.
            std::fs::remove_file(&self.temporary).ok();
        }
    }
}

pub(crate) fn refuse_existing(path: &Path, force: bool) -> anyhow::Result<()> {
    if path.is_dir() {
        anyhow::bail!("{} is a folder, a file is needed", path.display());
    }
    if !force && path.symlink_metadata().is_ok() {
        anyhow::bail!(
            "{} exists: take another name, or --force to replace it",
            path.display()
        );
    }
    Ok(())
}

/// Makes the file, or empties what a backup that was killed has left.
fn own(path: &Path) -> anyhow::Result<File> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("cannot create {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            anyhow::bail!("{} is being written by another backup", path.display())
        }
        Err(TryLockError::Error(error)) => return Err(locking(path, error)),
    }
    file.set_len(0)
        .with_context(|| format!("cannot empty {}", path.display()))?;
    Ok(file)
}

fn locking(path: &Path, error: io::Error) -> anyhow::Error {
    anyhow::Error::new(error).context(format!("cannot lock {}", path.display()))
}

fn encode(header: &Header) -> Vec<u8> {
    let prefix = header.prefix.as_bytes();
    let mut fields = Vec::new();
    for number in [header.revision.0, header.shown.0, millis(header.taken)] {
        fields.extend(number.to_le_bytes());
    }
    fields.extend((prefix.len() as u32).to_le_bytes());
    fields.extend(prefix);
    let mut bytes = MAGIC.to_vec();
    bytes.extend(FORMAT.to_le_bytes());
    bytes.extend((fields.len() as u32).to_le_bytes());
    bytes.extend(fields);
    let sum = checksum(0, &bytes);
    bytes.extend(sum.to_le_bytes());
    bytes
}

/// Never 0, which stands for none.
fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX).max(1)
}
