//! The frames of one segment, read one after the other and checked.

use std::io::{BufReader, Read};

use super::codec::read_full;
use super::{OpenError, frame, segment};
use crate::disk::Disk;

/// Where the whole frames of a segment end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stop {
    pub(super) length: u64,
    /// How many bytes follow them.
    pub(super) torn: u64,
}

impl Stop {
    pub(super) fn is_torn(self) -> bool {
        self.torn > 0
    }
}

/// What comes next in a segment.
pub(super) enum Next {
    /// A whole frame: [`Frames::payload`].
    Frame,
    /// The file ends here, or holds nothing but zeros from here on.
    End,
    /// No whole frame, but these bytes, up to the last of the file that is not zero.
    Torn(Vec<u8>),
}

/// The frames of one segment.
pub(super) struct Frames<'a> {
    name: &'a str,
    salt: u32,
    reader: BufReader<Box<dyn Read + Send>>,
    /// Where the next frame begins.
    pub(super) offset: u64,
    payload: Vec<u8>,
}

impl<'a> Frames<'a> {
    pub(super) fn open(disk: &dyn Disk, name: &'a str, salt: u32) -> Result<Self, OpenError> {
        let file = disk
            .read(name)
            .map_err(|error| OpenError::io("open", name, error))?;
        let mut frames = Self {
            name,
            salt,
            reader: BufReader::with_capacity(256 * 1024, file),
            offset: segment::HEADER as u64,
            payload: Vec::new(),
        };
        frames.fill(&mut [0; segment::HEADER])?;
        Ok(frames)
    }

    /// The payload of the frame that was read last.
    pub(super) fn payload(&self) -> &[u8] {
        &self.payload
    }

    pub(super) fn next(&mut self, sequence: u64) -> Result<Next, OpenError> {
        let mut bytes = [0; frame::HEADER];
        let length = self.fill(&mut bytes)?;
        if length == 0 {
            return Ok(Next::End);
        }
        let header = frame::Header::decode(&bytes[..length], self.salt);
        let Some(header) = header.filter(|_| length == frame::HEADER) else {
            return self.tail(bytes[..length].to_vec());
        };
        if header.sequence != sequence {
            return Err(self.corrupt("a frame is missing"));
        }
        self.payload.clear();
        (&mut self.reader)
            .take(header.length as u64)
            .read_to_end(&mut self.payload)
            .map_err(|error| OpenError::io("read", self.name, error))?;
        if !header.fits(&self.payload, self.salt) {
            let mut front = bytes.to_vec();
            front.append(&mut self.payload);
            return self.tail(front);
        }
        self.offset += (frame::HEADER + self.payload.len()) as u64;
        Ok(Next::Frame)
    }

    fn tail(&mut self, mut front: Vec<u8>) -> Result<Next, OpenError> {
        self.reader
            .read_to_end(&mut front)
            .map_err(|error| OpenError::io("read", self.name, error))?;
        let Some(last) = front.iter().rposition(|byte| *byte != 0) else {
            return Ok(Next::End);
        };
        front.truncate(last + 1);
        Ok(Next::Torn(front))
    }

    /// A frame is written only after the one before it is durable: if one comes after the damage, no crash did it.
    pub(super) fn check_torn(&self, tail: &[u8]) -> Result<Stop, OpenError> {
        if frame::contains_header(&tail[1..], 0, self.salt) {
            return Err(self.corrupt("a frame is damaged, and it is not the last one"));
        }
        tracing::warn!(
            file = self.name,
            offset = self.offset,
            bytes = tail.len(),
            "the log ends in a write that a crash cut off; it was not acknowledged and is ignored"
        );
        Ok(self.stop(tail.len() as u64))
    }

    pub(super) fn stop(&self, torn: u64) -> Stop {
        Stop {
            length: self.offset,
            torn,
        }
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, OpenError> {
        read_full(&mut self.reader, buffer).map_err(|error| OpenError::io("read", self.name, error))
    }

    pub(super) fn corrupt(&self, reason: &'static str) -> OpenError {
        OpenError::corrupt(self.name, self.offset, reason)
    }
}
