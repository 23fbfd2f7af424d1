//! The unit of the log: everything that one `fdatasync` makes durable, under one checksum.
//!
//! A frame is written only after the one before it is durable, so that a crash can damage the last frame of the log and
//! no other.
//!
//! | bytes | |
//! |---|---|
//! | 4 | magic |
//! | 4 | length of the payload |
//! | 8 | sequence: one more than that of the frame before |
//! | 4 | checksum of the payload |
//! | 4 | checksum of the fields above |
//! | … | payload: [records](Record) |

use super::codec::{self, Reader};

pub(super) const HEADER: usize = 24;
const MAGIC: [u8; 4] = *b"oFr1";

/// One entry of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Record<'a> {
    Put {
        revision: u64,
        deadline: u64,
        key: &'a [u8],
        value: &'a [u8],
    },
    Delete {
        revision: u64,
        key: &'a [u8],
    },
    /// History before this revision was forgotten.
    Compact {
        revision: u64,
    },
    /// Revisions up to this one may have been shown before they were on disk: after a crash they are skipped.
    Reserve {
        revision: u64,
    },
}

impl Record<'_> {
    pub(super) fn encode(&self, buffer: &mut Vec<u8>) {
        match *self {
            Self::Put {
                revision,
                deadline,
                key,
                value,
            } => {
                buffer.push(1);
                codec::put_u64(buffer, revision);
                codec::put_u64(buffer, deadline);
                codec::put_string(buffer, key);
                codec::put_string(buffer, value);
            }
            Self::Delete { revision, key } => {
                buffer.push(2);
                codec::put_u64(buffer, revision);
                codec::put_string(buffer, key);
            }
            Self::Compact { revision } => {
                buffer.push(3);
                codec::put_u64(buffer, revision);
            }
            Self::Reserve { revision } => {
                buffer.push(4);
                codec::put_u64(buffer, revision);
            }
        }
    }
}

impl<'a> Record<'a> {
    pub(super) fn decode(reader: &mut Reader<'a>) -> Option<Self> {
        Some(match reader.u8()? {
            1 => Self::Put {
                revision: reader.u64()?,
                deadline: reader.u64()?,
                key: reader.string()?,
                value: reader.string()?,
            },
            2 => Self::Delete {
                revision: reader.u64()?,
                key: reader.string()?,
            },
            3 => Self::Compact {
                revision: reader.u64()?,
            },
            4 => Self::Reserve {
                revision: reader.u64()?,
            },
            _ => return None,
        })
    }
}

/// A frame being built. Records are encoded behind the room for its header.
#[derive(Debug, Default)]
pub(super) struct Builder {
    buffer: Vec<u8>,
}

impl Builder {
    pub(super) fn push(&mut self, record: &Record<'_>) {
        if self.buffer.is_empty() {
            self.buffer.resize(HEADER, 0);
        }
        record.encode(&mut self.buffer);
    }

    pub(super) fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Fills in the header; the frame's bytes.
    pub(super) fn seal(&mut self, sequence: u64, salt: u32) -> &[u8] {
        let (header, payload) = self.buffer.split_at_mut(HEADER);
        header[..4].copy_from_slice(&MAGIC);
        header[4..8].copy_from_slice(&codec::length(payload).to_le_bytes());
        header[8..16].copy_from_slice(&sequence.to_le_bytes());
        header[16..20].copy_from_slice(&codec::checksum(salt, payload).to_le_bytes());
        let sum = codec::checksum(salt, &header[..20]);
        header[20..24].copy_from_slice(&sum.to_le_bytes());
        &self.buffer
    }

    pub(super) fn clear(&mut self) {
        self.buffer.clear();
        // One huge batch must not keep its memory for ever.
        self.buffer.shrink_to(1024 * 1024);
    }
}

/// A frame's header that is as it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) length: usize,
    pub(super) sequence: u64,
    payload_sum: u32,
}

impl Header {
    pub(super) fn decode(bytes: &[u8], salt: u32) -> Option<Self> {
        let sum_of_fields = codec::checksum(salt, bytes.get(..20)?);
        let mut reader = Reader(bytes);
        if reader.take(4)? != MAGIC {
            return None;
        }
        let header = Self {
            length: usize::try_from(reader.u32()?).ok()?,
            sequence: reader.u64()?,
            payload_sum: reader.u32()?,
        };
        (reader.u32()? == sum_of_fields).then_some(header)
    }

    pub(super) fn fits(&self, payload: &[u8], salt: u32) -> bool {
        payload.len() == self.length && codec::checksum(salt, payload) == self.payload_sum
    }
}

/// Whether anywhere in `bytes` there is the header of a frame at or after `sequence`.
pub(super) fn contains_header(bytes: &[u8], sequence: u64, salt: u32) -> bool {
    bytes.windows(HEADER).any(|window| {
        window[..4] == MAGIC && Header::decode(window, salt).is_some_and(|header| header.sequence >= sequence)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORDS: [Record<'static>; 4] = [
        Record::Put {
            revision: 7,
            deadline: 9,
            key: b"k",
            value: b"value",
        },
        Record::Delete {
            revision: 8,
            key: b"gone",
        },
        Record::Compact { revision: 3 },
        Record::Reserve { revision: 99 },
    ];

    fn sealed(sequence: u64, salt: u32) -> Vec<u8> {
        let mut builder = Builder::default();
        for record in RECORDS {
            builder.push(&record);
        }
        builder.seal(sequence, salt).to_vec()
    }

    #[test]
    fn records_come_back_as_they_went_in() {
        let frame = sealed(5, 1);
        let header = Header::decode(&frame, 1).unwrap();
        assert_eq!(header.sequence, 5);
        assert!(header.fits(&frame[HEADER..], 1));
        let mut reader = Reader(&frame[HEADER..]);
        for record in RECORDS {
            assert_eq!(Record::decode(&mut reader), Some(record));
        }
        assert!(reader.is_empty());
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let frame = sealed(5, 1);
        for bit in 0..frame.len() * 8 {
            let mut damaged = frame.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let whole = Header::decode(&damaged, 1).is_some_and(|header| header.fits(&damaged[HEADER..], 1));
            assert!(!whole, "bit {bit}");
        }
    }

    #[test]
    fn every_shortened_frame_is_noticed() {
        let frame = sealed(5, 1);
        for length in 0..frame.len() {
            let cut = &frame[..length];
            let whole = Header::decode(cut, 1)
                .is_some_and(|header| cut.len() >= HEADER && header.fits(&cut[HEADER..], 1));
            assert!(!whole, "length {length}");
        }
    }

    #[test]
    fn a_frame_copied_from_another_file_is_not_ours() {
        assert_eq!(Header::decode(&sealed(5, 1), 2), None);
        let mut bytes = b"noise".to_vec();
        bytes.extend(sealed(5, 1));
        assert!(contains_header(&bytes, 5, 1));
        assert!(!contains_header(&bytes, 6, 1));
        assert!(!contains_header(&bytes, 5, 2));
    }
}
