//! The files of the log. Each begins with a header that ties it to the one before.
//!
//! | bytes | |
//! |---|---|
//! | 8 | magic |
//! | 4 | format |
//! | 4 | salt of the checksums in this file |
//! | 8 | number of the segment: one more than that of the one before |
//! | 8 | sequence of the first frame |
//! | 8 | newest revision in the segments before |
//! | 8 | how many bytes of the segment before count; what follows them there is room, or the torn end of a crash |
//! | 8 | revisions up to this one may have been shown before they were on disk |
//! | 4 | checksum of the fields above |
//! | … | [frames](super::frame), then zeros: room for more |

use super::OpenError;
use super::codec::{self, Reader};

pub(super) const HEADER: usize = 60;
const MAGIC: [u8; 8] = *b"orch-log";
const FORMAT: u32 = 1;

/// What a segment's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) salt: u32,
    pub(super) number: u64,
    pub(super) first_sequence: u64,
    pub(super) previous_revision: u64,
    pub(super) previous_length: u64,
    pub(super) reserved: u64,
}

impl Header {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut buffer = MAGIC.to_vec();
        codec::put_u32(&mut buffer, FORMAT);
        codec::put_u32(&mut buffer, self.salt);
        codec::put_u64(&mut buffer, self.number);
        codec::put_u64(&mut buffer, self.first_sequence);
        codec::put_u64(&mut buffer, self.previous_revision);
        codec::put_u64(&mut buffer, self.previous_length);
        codec::put_u64(&mut buffer, self.reserved);
        let sum = codec::checksum(0, &buffer);
        codec::put_u32(&mut buffer, sum);
        buffer
    }

    pub(super) fn decode(file: &str, bytes: &[u8]) -> Result<Self, OpenError> {
        check_format(file, bytes, MAGIC, FORMAT)?;
        Self::decode_fields(bytes)
            .ok_or_else(|| OpenError::corrupt(file, 0, "the header's checksum is wrong"))
    }

    fn decode_fields(bytes: &[u8]) -> Option<Self> {
        let sum_of_fields = codec::checksum(0, bytes.get(..HEADER - 4)?);
        let mut reader = Reader(&bytes[MAGIC.len() + 4..]);
        let header = Self {
            salt: reader.u32()?,
            number: reader.u64()?,
            first_sequence: reader.u64()?,
            previous_revision: reader.u64()?,
            previous_length: reader.u64()?,
            reserved: reader.u64()?,
        };
        (reader.u32()? == sum_of_fields).then_some(header)
    }
}

/// Checks the first bytes, which are the same in every format to come.
pub(super) fn check_format(
    file: &str,
    bytes: &[u8],
    magic: [u8; 8],
    supported: u32,
) -> Result<(), OpenError> {
    let mut reader = Reader(bytes);
    if reader.take(magic.len()) != Some(&magic) {
        return Err(OpenError::corrupt(file, 0, "this is not a file of ours"));
    }
    match reader.u32() {
        Some(found) if found > supported => Err(OpenError::NewerFormat {
            file: file.to_owned(),
            found,
            supported,
        }),
        Some(found) if found == supported => Ok(()),
        _ => Err(OpenError::corrupt(file, 8, "there is no such format")),
    }
}

pub(super) fn name(number: u64) -> String {
    format!("log-{number:020}")
}

/// The number in a segment's file name.
pub(super) fn number(name: &str) -> Option<u64> {
    name.strip_prefix("log-")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOME: Header = Header {
        salt: 1,
        number: 2,
        first_sequence: 3,
        previous_revision: 4,
        previous_length: 5,
        reserved: 6,
    };

    #[test]
    fn a_header_comes_back_as_it_went_in() {
        let bytes = SOME.encode();
        assert_eq!(bytes.len(), HEADER);
        assert_eq!(Header::decode("f", &bytes).unwrap(), SOME);
    }

    #[test]
    fn a_newer_format_is_named_even_if_all_else_differs() {
        let mut bytes = SOME.encode();
        bytes[8] = 2;
        bytes.truncate(20);
        let error = Header::decode("log-1", &bytes).unwrap_err();
        assert_eq!(
            error.to_string(),
            "log-1 has format 2, this version reads up to 1"
        );
    }

    #[test]
    fn a_damaged_header_is_noticed() {
        for byte in 12..HEADER {
            let mut bytes = SOME.encode();
            bytes[byte] ^= 0x10;
            let error = Header::decode("log-1", &bytes).unwrap_err();
            assert!(matches!(error, OpenError::Corrupt { .. }), "{error}");
        }
    }

    #[test]
    fn names_sort_as_their_numbers() {
        assert!(name(9) < name(10));
        assert_eq!(number(&name(10)), Some(10));
        assert_eq!(number("lock"), None);
    }
}
