use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::frame;
use super::mark::Mark;
use super::segment;
use crate::disk::{Disk, DiskFile};

/// How much room is made ahead of the frames, so that most of them neither make the file longer nor change where it
/// lies on the disk: then `fdatasync` has nothing to write to the file system's journal.
const ROOM: u64 = 512 * 1024;

/// How an attempt to write failed.
#[derive(Debug)]
pub(super) enum LogError {
    /// The log is as it was before.
    Undone(io::Error),
    /// It is unknown what is on disk.
    Unknown(io::Error),
}

/// A segment that exists, oldest first in a list of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) previous_revision: u64,
    pub(super) length: u64,
}

/// The segments on disk, the last being the one that is written. Shared by the writer of the log, who adds at the end,
/// and the maintenance, which removes at the front.
pub(super) type Segments = Arc<Mutex<Vec<Segment>>>;

/// Where a log goes on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Position {
    /// The segment written last, 0 if there is none yet.
    pub(super) number: u64,
    /// How many of its bytes count.
    pub(super) length: u64,
    pub(super) next_sequence: u64,
    pub(super) revision: u64,
    /// Up to here revisions may be shown before they are on disk.
    pub(super) reserved: u64,
}

/// The writing end of the log.
#[derive(Debug)]
pub(super) struct Log {
    disk: Arc<dyn Disk>,
    /// `None` when the next write has to begin a new segment.
    file: Option<Box<dyn DiskFile>>,
    /// How long the file is with the room behind what counts; no more room is made below this length.
    room: u64,
    salt: u32,
    position: Position,
    segment_size: u64,
    segments: Segments,
}

impl Log {
    /// Goes on in a segment that ends in good order.
    pub(super) fn resume(
        disk: &Arc<dyn Disk>,
        salt: u32,
        position: Position,
        segment_size: u64,
        segments: Vec<Segment>,
    ) -> io::Result<Self> {
        Mark::remove(disk.as_ref())?;
        let mut file = disk.open(&segment::name(position.number))?;
        // Behind what counts there may be the room of a store that was not closed.
        file.truncate(position.length)?;
        // After a crash of the process alone, what recovery has read may still be in the kernel's hands only; it must
        // be on disk before it is shown to anyone.
        file.sync()?;
        disk.sync()?;
        Ok(Self {
            disk: Arc::clone(disk),
            file: Some(file),
            room: position.length,
            salt,
            position,
            segment_size,
            segments: Arc::new(Mutex::new(segments)),
        })
    }

    /// Goes on in a new segment.
    pub(super) fn begin(
        disk: &Arc<dyn Disk>,
        position: Position,
        segment_size: u64,
        segments: Vec<Segment>,
    ) -> io::Result<Self> {
        Mark::remove(disk.as_ref())?;
        let mut log = Self {
            disk: Arc::clone(disk),
            file: None,
            room: 0,
            salt: 0,
            position,
            segment_size,
            segments: Arc::new(Mutex::new(segments)),
        };
        log.begin_segment()?;
        Ok(log)
    }

    pub(super) fn segments(&self) -> &Segments {
        &self.segments
    }

    /// Writes a frame and waits until it is on disk. `revision` is the newest in it.
    pub(super) fn commit(&mut self, frame: &mut frame::Builder, revision: u64) -> Result<(), LogError> {
        if self.file.is_none() || self.position.length >= self.segment_size {
            self.begin_segment().map_err(LogError::Undone)?;
        }
        let bytes = frame.seal(self.position.next_sequence, self.salt);
        self.make_room(bytes.len() as u64);
        let file = self.file.as_mut().expect("a segment was begun");
        if let Err(error) = file.append(bytes) {
            // The torn frame has to go before another is written behind it.
            self.room = self.position.length;
            let undone = file.truncate(self.position.length).and_then(|()| file.sync());
            return Err(match undone {
                Ok(()) => LogError::Undone(error),
                Err(_) => LogError::Unknown(error),
            });
        }
        file.sync().map_err(LogError::Unknown)?;
        self.position.length += bytes.len() as u64;
        self.position.next_sequence += 1;
        self.position.revision = self.position.revision.max(revision);
        if let Some(segment) = self.segments.lock().last_mut() {
            segment.length = self.position.length;
        }
        Ok(())
    }

    /// A reservation is on disk; the segments to come repeat it.
    pub(super) fn set_reserved(&mut self, revision: u64) {
        self.position.reserved = self.position.reserved.max(revision);
    }

    pub(super) fn reserved(&self) -> u64 {
        self.position.reserved
    }

    /// Goes on in a new segment if this one holds at least so many bytes, so that compaction can remove it once its
    /// history is forgotten: at once, as there may be no further write for long.
    pub(super) fn end_segment(&mut self, min_length: u64) {
        if self.position.length < min_length.max(segment::HEADER as u64 + 1) {
            return;
        }
        if let Err(error) = self.begin_segment() {
            // No write depends on it yet; the next one tries again and tells.
            tracing::warn!(%error, "the log could not go on in a new file");
        }
    }

    /// Marks the log as closed in good order.
    pub(super) fn close(mut self) -> io::Result<()> {
        self.leave_file();
        let mark = Mark {
            number: self.position.number,
            length: self.position.length,
        };
        mark.write(self.disk.as_ref())
    }

    /// Sees to it that a frame of this length does not make the file grow, if it is worth it.
    fn make_room(&mut self, length: u64) {
        let needed = self.position.length + length;
        if needed <= self.room {
            return;
        }
        let room = self.segment_size.min(needed + ROOM);
        let Some(file) = self.file.as_mut().filter(|_| room > needed) else {
            return;
        };
        match file.reserve(room - self.position.length) {
            Ok(()) => self.room = room,
            Err(error) => {
                tracing::debug!(%error, "no room could be made ahead of the log");
                // The frame itself may still fit. There is no further attempt before that fails, or the segment ends.
                self.room = u64::MAX;
            }
        }
    }

    /// Ends the writing of a segment and gives back the room at its end. That it stays after a crash or an error does no
    /// harm: the length that counts stands in the next segment, or in the mark.
    fn leave_file(&mut self) {
        if let Some(mut file) = self.file.take()
            && self.room > self.position.length
            && let Err(error) = file.truncate(self.position.length)
        {
            tracing::debug!(%error, "room behind the log could not be given back");
        }
    }

    /// A crash in here leaves at most a file that holds no more than a header, which recovery takes for what it is.
    /// After an error nothing is written to the segment before any more, so that its length in the header stays true.
    fn begin_segment(&mut self) -> io::Result<()> {
        self.leave_file();
        let header = segment::Header {
            salt: fastrand::u32(..),
            number: self.position.number + 1,
            first_sequence: self.position.next_sequence,
            previous_revision: self.position.revision,
            previous_length: self.position.length,
            reserved: self.position.reserved,
        };
        let mut file = self.disk.create(&segment::name(header.number))?;
        file.append(&header.encode())?;
        file.sync()?;
        self.disk.sync()?;
        self.file = Some(file);
        self.room = segment::HEADER as u64;
        self.salt = header.salt;
        self.position.number = header.number;
        self.position.length = segment::HEADER as u64;
        self.segments.lock().push(Segment {
            number: header.number,
            previous_revision: header.previous_revision,
            length: self.position.length,
        });
        Ok(())
    }
}
