//! The state at one revision in one file: what is left of history after a compaction.
//!
//! | bytes | |
//! |---|---|
//! | 8 | magic |
//! | 4 | format |
//! | 4 | salt of the checksums |
//! | 8 | revision |
//! | 4 | checksum of the fields above |
//! | … | blocks: length (4), checksum (4), keys in ascending order |
//! | 8 | zero: the end of the blocks |
//! | 8 | number of keys |
//! | 4 | checksum of that number |
//!
//! A checkpoint gets its name when all of it is on disk, so that every one that can be seen is whole.

use std::io::{self, BufReader, Read};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

use bytes::Bytes;

use super::OpenError;
use super::codec::{self, Reader};
use super::segment::check_format;
use crate::disk::{Disk, DiskFile};
use crate::engine::{Index, Version};

const HEADER: usize = 28;
const MAGIC: [u8; 8] = *b"orch-chk";
const FORMAT: u32 = 1;
const BLOCK: usize = 256 * 1024;

/// How many blocks are read ahead of those that are decoded.
const BLOCKS: usize = 8;

/// A checkpoint on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Checkpoint {
    pub(super) revision: u64,
    /// Its size in bytes.
    pub(super) length: u64,
}

pub(super) fn name(revision: u64) -> String {
    format!("checkpoint-{revision:020}")
}

pub(super) fn temporary_name(revision: u64) -> String {
    format!("{}.tmp", name(revision))
}

/// The revision in a checkpoint's file name.
pub(super) fn revision(name: &str) -> Option<u64> {
    name.strip_prefix("checkpoint-")?.parse().ok()
}

pub(super) fn is_temporary(name: &str) -> bool {
    name.strip_suffix(".tmp")
        .is_some_and(|name| revision(name).is_some())
}

/// Writes a checkpoint key by key.
#[derive(Debug)]
pub(super) struct Writer {
    disk: Arc<dyn Disk>,
    file: Box<dyn DiskFile>,
    revision: u64,
    salt: u32,
    block: Vec<u8>,
    keys: u64,
    length: u64,
}

impl Writer {
    pub(super) fn create(disk: &Arc<dyn Disk>, revision: u64) -> io::Result<Self> {
        let salt = fastrand::u32(..);
        let mut header = MAGIC.to_vec();
        codec::put_u32(&mut header, FORMAT);
        codec::put_u32(&mut header, salt);
        codec::put_u64(&mut header, revision);
        let sum = codec::checksum(0, &header);
        codec::put_u32(&mut header, sum);
        let mut writer = Self {
            disk: Arc::clone(disk),
            file: disk.create(&temporary_name(revision))?,
            revision,
            salt,
            block: Vec::new(),
            keys: 0,
            length: 0,
        };
        writer.write(&header)?;
        Ok(writer)
    }

    /// Adds a key that exists; keys come in ascending order.
    pub(super) fn push(&mut self, key: &[u8], version: &Version) -> io::Result<()> {
        let Some(value) = &version.value else {
            return Ok(());
        };
        codec::put_u64(&mut self.block, version.mod_revision);
        codec::put_u64(&mut self.block, version.create_revision);
        codec::put_u64(&mut self.block, version.version);
        codec::put_u64(&mut self.block, version.deadline);
        codec::put_string(&mut self.block, key);
        codec::put_string(&mut self.block, value);
        self.keys += 1;
        if self.block.len() >= BLOCK {
            self.flush()?;
        }
        Ok(())
    }

    /// Completes the file, makes it durable and gives it its name.
    pub(super) fn finish(mut self) -> io::Result<Checkpoint> {
        if !self.block.is_empty() {
            self.flush()?;
        }
        let mut end = vec![0; 8];
        codec::put_u64(&mut end, self.keys);
        let sum = codec::checksum(self.salt, &end);
        codec::put_u32(&mut end, sum);
        self.write(&end)?;
        self.file.sync()?;
        let name = name(self.revision);
        self.disk.rename(&temporary_name(self.revision), &name)?;
        self.disk.sync()?;
        Ok(Checkpoint {
            revision: self.revision,
            length: self.length,
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut head = Vec::with_capacity(8);
        codec::put_u32(&mut head, codec::length(&self.block));
        codec::put_u32(&mut head, codec::checksum(self.salt, &self.block));
        self.write(&head)?;
        let block = std::mem::take(&mut self.block);
        self.write(&block)?;
        self.block = block;
        self.block.clear();
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.length += bytes.len() as u64;
        self.file.append(bytes)
    }
}

/// Reads a whole checkpoint: one thread reads and checks, another decodes.
pub(super) fn load(disk: &dyn Disk, revision: u64) -> Result<(Index, Checkpoint), OpenError> {
    let name = name(revision);
    let file = disk
        .read(&name)
        .map_err(|error| OpenError::io("open", &name, error))?;
    let mut loader = Loader {
        name: &name,
        reader: BufReader::with_capacity(BLOCK, file),
        offset: 0,
        salt: 0,
    };
    loader.header(revision)?;
    let (sender, blocks) = sync_channel(BLOCKS);
    std::thread::scope(|scope| {
        let reading = std::thread::Builder::new()
            .name("orch-store-read".into())
            .spawn_scoped(scope, move || {
                loader.blocks(&sender)?;
                drop(sender);
                Ok(loader)
            })
            .map_err(|error| OpenError::io("start a thread for", &name, error))?;
        let mut keys = Vec::new();
        let decoded = blocks.into_iter().try_for_each(|block| block.decode(&mut keys));
        let mut loader = match reading.join() {
            Ok(result) => result?,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        decoded.map_err(|offset| OpenError::corrupt(&name, offset, "a key cannot be read"))?;
        loader.end(keys.len())?;
        let length = loader.offset;
        Ok((Index::from_sorted(keys), Checkpoint { revision, length }))
    })
}

/// A block that is as it was written.
struct Block {
    bytes: Vec<u8>,
    /// Where it ends in the file.
    end: u64,
}

impl Block {
    /// Appends its keys; an error is where in the file it is.
    fn decode(self, keys: &mut Vec<(Bytes, Version)>) -> Result<(), u64> {
        let mut reader = Reader(&self.bytes);
        while !reader.is_empty() {
            keys.push(decode(&mut reader).ok_or(self.end)?);
        }
        Ok(())
    }
}

struct Loader<'a> {
    name: &'a str,
    reader: BufReader<Box<dyn Read + Send>>,
    offset: u64,
    salt: u32,
}

impl Loader<'_> {
    fn header(&mut self, revision: u64) -> Result<(), OpenError> {
        let bytes = self.take(HEADER)?;
        check_format(self.name, &bytes, MAGIC, FORMAT)?;
        let mut reader = Reader(&bytes[12..]);
        let fields = (reader.u32(), reader.u64(), reader.u32());
        let sum = codec::checksum(0, &bytes[..HEADER - 4]);
        match fields {
            (Some(salt), Some(found), Some(expected)) if found == revision && expected == sum => {
                self.salt = salt;
                Ok(())
            }
            _ => Err(self.corrupt("the header's checksum is wrong")),
        }
    }

    /// Reads all blocks, up to the mark that ends them, and hands them on.
    fn blocks(&mut self, blocks: &SyncSender<Block>) -> Result<(), OpenError> {
        loop {
            let head = self.take(8)?;
            let mut reader = Reader(&head);
            let (Some(length), Some(sum)) = (reader.u32(), reader.u32()) else {
                return Err(self.corrupt("the file ends too early"));
            };
            if length == 0 && sum == 0 {
                return Ok(());
            }
            let bytes = self.take(length as usize)?;
            if codec::checksum(self.salt, &bytes) != sum {
                return Err(self.corrupt("a block's checksum is wrong"));
            }
            let end = self.offset;
            if blocks.send(Block { bytes, end }).is_err() {
                // One of them could not be decoded, which is what will be told.
                return Ok(());
            }
        }
    }

    fn end(&mut self, keys: usize) -> Result<(), OpenError> {
        let bytes = self.take(12)?;
        let mut signed = vec![0; 8];
        codec::put_u64(&mut signed, keys as u64);
        let sum = codec::checksum(self.salt, &signed);
        codec::put_u32(&mut signed, sum);
        if bytes != signed[8..] {
            return Err(self.corrupt("the number of keys is wrong"));
        }
        let mut beyond = [0];
        let count = codec::read_full(&mut self.reader, &mut beyond)
            .map_err(|error| OpenError::io("read", self.name, error))?;
        if count > 0 {
            return Err(self.corrupt("there is something after the end"));
        }
        Ok(())
    }

    fn take(&mut self, length: usize) -> Result<Vec<u8>, OpenError> {
        // Grows with what is there, so that a damaged length cannot ask for more memory than the file has.
        let mut bytes = Vec::new();
        (&mut self.reader)
            .take(length as u64)
            .read_to_end(&mut bytes)
            .map_err(|error| OpenError::io("read", self.name, error))?;
        if bytes.len() < length {
            return Err(self.corrupt("the file ends too early"));
        }
        self.offset += length as u64;
        Ok(bytes)
    }

    fn corrupt(&self, reason: &'static str) -> OpenError {
        OpenError::corrupt(self.name, self.offset, reason)
    }
}

fn decode(reader: &mut Reader<'_>) -> Option<(Bytes, Version)> {
    let (mod_revision, create_revision) = (reader.u64()?, reader.u64()?);
    let (version, deadline) = (reader.u64()?, reader.u64()?);
    let key = Bytes::copy_from_slice(reader.string()?);
    let value = Some(Bytes::copy_from_slice(reader.string()?));
    let version = Version {
        mod_revision,
        create_revision,
        version,
        deadline,
        value,
    };
    Some((key, version))
}
