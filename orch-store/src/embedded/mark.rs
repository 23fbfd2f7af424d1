//! The mark of a store that was closed in good order: how long its log was then.
//!
//! The end of a log that a crash has torn looks like one that was damaged or cut off later. With the mark there is no doubt:
//! nothing was under way, so all of the log must be whole. It is removed, durably, before the log is
//! written to again.

use std::io;

use super::OpenError;
use super::codec::{self, Reader, read_full};
use crate::disk::Disk;

const NAME: &str = "closed";
const LENGTH: usize = 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    /// The segment written last.
    pub(super) number: u64,
    /// Its length in bytes.
    pub(super) length: u64,
}

impl Mark {
    pub(super) fn write(self, disk: &dyn Disk) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(LENGTH);
        codec::put_u64(&mut bytes, self.number);
        codec::put_u64(&mut bytes, self.length);
        let sum = codec::checksum(0, &bytes);
        codec::put_u32(&mut bytes, sum);
        let mut file = disk.create(NAME)?;
        file.append(&bytes)?;
        file.sync()?;
        disk.sync()
    }

    /// The mark, if there is one that is whole: a crash while it was being written leaves one that is not.
    pub(super) fn read(disk: &dyn Disk, names: &[String]) -> Result<Option<Self>, OpenError> {
        if !names.iter().any(|name| name == NAME) {
            return Ok(None);
        }
        let mut bytes = [0; LENGTH + 1];
        let length = disk
            .read(NAME)
            .and_then(|mut file| read_full(&mut file, &mut bytes))
            .map_err(|error| OpenError::io("read", NAME, error))?;
        Ok(Self::decode(&bytes[..length]))
    }

    /// Removes the mark. The caller syncs the disk.
    pub(super) fn remove(disk: &dyn Disk) -> io::Result<()> {
        match disk.remove(NAME) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let sum_of_fields = codec::checksum(0, bytes.get(..LENGTH - 4)?);
        let mut reader = Reader(bytes);
        let mark = Self {
            number: reader.u64()?,
            length: reader.u64()?,
        };
        (reader.u32()? == sum_of_fields && reader.is_empty()).then_some(mark)
    }
}
