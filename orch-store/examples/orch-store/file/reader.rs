//! Reads a backup, and believes none of it before its checksum is right.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use orch_store::{KeyValue, Revision};

use super::{BLOCK, FORMAT, FileError, Header, MAGIC, Totals, checksum};
use crate::source::Record;

/// What a header is not longer than, so that a damaged length asks for no more.
const LONGEST_HEADER: u32 = 64 * 1024;

#[derive(Debug)]
pub(crate) struct Reader {
    file: BufReader<File>,
    header: Header,
    /// Where the next thing begins.
    offset: u64,
    number: u64,
    totals: Totals,
    last: Bytes,
}

impl Reader {
    pub(crate) fn open(path: &Path) -> Result<Self, FileError> {
        let file = File::open(path).map_err(FileError::Io)?;
        let mut reader = Self {
            file: BufReader::with_capacity(BLOCK, file),
            header: Header {
                revision: Revision::ZERO,
                shown: Revision::ZERO,
                taken: UNIX_EPOCH,
                prefix: String::new(),
            },
            offset: 0,
            number: 0,
            totals: Totals::default(),
            last: Bytes::new(),
        };
        reader.header = reader.read_header()?;
        Ok(reader)
    }

    /// Reads to the end.
    pub(crate) fn check(mut self, mut progress: impl FnMut(u64)) -> Result<(Header, Totals), FileError> {
        while self.next()?.is_some() {
            progress(self.offset);
        }
        Ok((self.header, self.totals))
    }

    /// The records of the next block; `None` at the end, if it is as it should be.
    pub(crate) fn next(&mut self) -> Result<Option<Vec<Record>>, FileError> {
        let start = self.offset;
        let head = self.take(8)?;
        let mut fields = Fields(&head);
        let (Some(length), Some(sum)) = (fields.u32(), fields.u32()) else {
            return Err(self.damaged("the file ends too early"));
        };
        self.number += 1;
        if length == 0 && sum == 0 {
            return self.end().map(|()| None);
        }
        let bytes = Bytes::from(self.take(length as usize)?);
        if checksum(self.number, &bytes) != sum {
            return Err(damaged(start, "a block's checksum is wrong"));
        }
        self.records(&bytes)
            .map(Some)
            .map_err(|reason| damaged(start, reason))
    }

    fn records(&mut self, bytes: &Bytes) -> Result<Vec<Record>, &'static str> {
        let mut fields = Fields(bytes);
        let mut records = Vec::new();
        while !fields.0.is_empty() {
            let record = fields.record(bytes).ok_or("a record cannot be read")?;
            let kv = &record.kv;
            if kv.key <= self.last || !kv.key.starts_with(self.header.prefix.as_bytes()) {
                return Err("a key is where it does not belong");
            }
            if kv.mod_revision > self.header.revision {
                return Err("a key is newer than the backup");
            }
            self.last = kv.key.clone();
            self.totals.records += 1;
            self.totals.bytes += (kv.key.len() + kv.value.len()) as u64;
            records.push(record);
        }
        Ok(records)
    }

    fn end(&mut self) -> Result<(), FileError> {
        let start = self.offset;
        let bytes = self.take(20)?;
        let mut fields = Fields(&bytes);
        let totals = (fields.u64(), fields.u64(), fields.u32());
        let sum = checksum(self.number, &bytes[..16]);
        if totals != (Some(self.totals.records), Some(self.totals.bytes), Some(sum)) {
            return Err(damaged(start, "the totals are wrong"));
        }
        match self.file.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(self.damaged("there is something after the end")),
            Err(error) => Err(FileError::Io(error)),
        }
    }

    fn read_header(&mut self) -> Result<Header, FileError> {
        let mut all = Vec::new();
        let magic = self.take(8).map_err(no_backup)?;
        if magic != MAGIC {
            return Err(FileError::NotABackup);
        }
        all.extend(magic);
        let head = self.take(8)?;
        let mut fields = Fields(&head);
        let (format, length) = (fields.u32().unwrap_or(0), fields.u32().unwrap_or(0));
        if format > FORMAT {
            return Err(FileError::NewerFormat { found: format });
        }
        if format != FORMAT || length > LONGEST_HEADER {
            return Err(damaged(8, "there is no such format"));
        }
        all.extend(head);
        all.extend(self.take(length as usize)?);
        let sum = self.take(4)?;
        if checksum(0, &all).to_le_bytes()[..] != sum[..] {
            return Err(damaged(0, "the header's checksum is wrong"));
        }
        Fields(&all[16..])
            .header()
            .ok_or_else(|| damaged(16, "the header cannot be read"))
    }

    fn take(&mut self, length: usize) -> Result<Vec<u8>, FileError> {
        // Grows with what is there, so that a damaged length cannot ask for more memory than the file has.
        let mut bytes = Vec::new();
        (&mut self.file)
            .take(length as u64)
            .read_to_end(&mut bytes)
            .map_err(FileError::Io)?;
        self.offset += bytes.len() as u64;
        if bytes.len() < length {
            return Err(self.damaged("the file ends too early"));
        }
        Ok(bytes)
    }

    fn damaged(&self, reason: &'static str) -> FileError {
        damaged(self.offset, reason)
    }
}

fn damaged(offset: u64, reason: &'static str) -> FileError {
    FileError::Damaged { offset, reason }
}

/// A file that is shorter than the magic was never one of ours.
fn no_backup(error: FileError) -> FileError {
    match error {
        FileError::Damaged { .. } => FileError::NotABackup,
        other => other,
    }
}

/// Takes values off the front. `None` means that there is too little.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(front)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_le_bytes)
    }

    fn string(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()?;
        self.take(length as usize)
    }

    fn header(&mut self) -> Option<Header> {
        Some(Header {
            revision: Revision(self.u64()?),
            shown: Revision(self.u64()?),
            taken: UNIX_EPOCH + Duration::from_millis(self.u64()?),
            prefix: String::from_utf8(self.string()?.to_vec()).ok()?,
        })
    }

    /// The bytes of `block` are shared, not copied.
    fn record(&mut self, block: &Bytes) -> Option<Record> {
        let (mod_revision, create_revision) = (Revision(self.u64()?), Revision(self.u64()?));
        let (version, expires) = (self.u64()?, self.u64()?);
        let key = block.slice_ref(self.string()?);
        let value = block.slice_ref(self.string()?);
        Some(Record {
            kv: KeyValue {
                key,
                value,
                create_revision,
                mod_revision,
                version,
            },
            expires: (expires != 0).then(|| UNIX_EPOCH + Duration::from_millis(expires)),
        })
    }
}
