//! A backup: the state of a store at one revision in one file.
//!
//! Numbers are little endian; a string stands after its length (4 bytes). Every checksum is the CRC-32 of what is named,
//! beginning from the number of the block, so that a block which is missing, doubled or moved is noticed too.
//!
//! | bytes | |
//! |---|---|
//! | 8 | magic: `orch-bak` |
//! | 4 | format: 1 |
//! | 4 | length of the fields below, up to and without the checksum |
//! | 8 | revision of the state |
//! | 8 | newest revision that a client of the store may have seen by then |
//! | 8 | when it was taken, in milliseconds since 1970 |
//! | string | prefix: only keys that begin with it are here |
//! | 4 | checksum of all of the above, from 0 |
//! | … | blocks, numbered from 1: length (4), checksum (4), records in ascending order of their keys |
//! | 8 | zero: the end of the blocks |
//! | 8 | number of records |
//! | 8 | bytes of all keys and values |
//! | 4 | checksum of the last two, from the number of blocks plus 1 |
//!
//! A record is the revision of the last write (8), of the creation (8), the version (8), the end of the time to live in
//! milliseconds since 1970 or 0 for none (8), the key (string) and the value (string).

mod reader;
mod writer;

use std::io;
use std::time::SystemTime;

use orch_store::Revision;

pub(crate) use self::reader::Reader;
pub(crate) use self::writer::{Writer, refuse_existing};

const MAGIC: [u8; 8] = *b"orch-bak";
const FORMAT: u32 = 1;
/// What a block has at least, but for the last.
const BLOCK: usize = 256 * 1024;

/// What a backup says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) revision: Revision,
    /// The newest revision that a client may have seen.
    pub(crate) shown: Revision,
    pub(crate) taken: SystemTime,
    pub(crate) prefix: String,
}

/// How much is in a backup.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) records: u64,
    /// Of all keys and values.
    pub(crate) bytes: u64,
}

/// Why a backup cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("this is not a backup of orch-store")]
    NotABackup,
    #[error("the backup has format {found}, this version reads up to {FORMAT}")]
    NewerFormat { found: u32 },
    #[error("the backup is damaged at byte {offset}: {reason}")]
    Damaged { offset: u64, reason: &'static str },
    #[error("cannot read the backup")]
    Io(#[source] io::Error),
}

fn checksum(number: u64, bytes: &[u8]) -> u32 {
    // The lower half is enough to tell neighbours apart.
    let mut hasher = crc32fast::Hasher::new_with_initial(number as u32);
    hasher.update(bytes);
    hasher.finalize()
}
