//! From the log to the state: one thread reads, checks and decodes, another applies, so that a long log takes about half as
//! long.

use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

use bytes::Bytes;

use super::codec::Reader;
use super::frame::Record;
use super::frames::{Frames, Next, Stop};
use super::recovery::ReadSegment;
use super::{OpenError, segment};
use crate::Event;
use crate::disk::Disk;
use crate::engine::State;

/// How many bytes of writes are handed on together, and how often that before the reading waits for the applying.
const BATCH: usize = 256 * 1024;
const BATCHES: usize = 8;

/// What a write costs besides its bytes, so that small ones do not pile up.
const WRITE: usize = 64;

/// The state as far as the log has been read.
pub(super) struct Replay {
    pub(super) floor: u64,
    pub(super) state: State,
    pub(super) events: Vec<Arc<Event>>,
    /// That of the next frame.
    pub(super) sequence: u64,
    /// Revisions up to this one may have been shown.
    pub(super) reserved: u64,
}

impl Replay {
    /// Replays the segments, oldest first, on the state of a checkpoint or an empty one.
    pub(super) fn run(
        disk: &dyn Disk,
        headers: &[segment::Header],
        mut state: State,
    ) -> Result<(Self, Vec<ReadSegment>), OpenError> {
        let mut events = Vec::new();
        let (sender, writes) = sync_channel::<Vec<Write>>(BATCHES);
        let mut reader = LogReader::new(disk, headers, &state, sender);
        let (reader, segments) = std::thread::scope(|scope| {
            let reading = std::thread::Builder::new()
                .name("orch-store-read".into())
                .spawn_scoped(scope, move || {
                    let segments = reader.segments(headers)?;
                    // The end for whoever applies the writes.
                    reader.finish();
                    Ok((reader, segments))
                })
                .map_err(|error| OpenError::io("start a thread for", "the log", error))?;
            for write in writes.into_iter().flatten() {
                events.push(state.apply(write.revision, write.key, write.value, write.deadline));
            }
            match reading.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })?;
        let replay = Self {
            floor: reader.floor,
            state,
            events,
            sequence: reader.sequence,
            reserved: reader.reserved,
        };
        Ok((replay, segments))
    }

    /// Only revisions that had been reached were ever compacted. It may be more than the log has records of, when revisions
    /// were skipped after an earlier crash.
    pub(super) fn reach_floor(&mut self) {
        self.state.assigned = self.state.assigned.max(self.floor);
    }

    /// Gives up the history and the revisions up to this one: after a crash those that volatile writes may have taken,
    /// because readers may have seen what is now lost and have to begin anew. Returns whether there were any.
    pub(super) fn skip_to(&mut self, revision: u64) -> bool {
        if revision <= self.state.assigned {
            return false;
        }
        self.state.assigned = revision;
        self.floor = revision;
        true
    }

    pub(super) fn finish(mut self) -> (State, Vec<Arc<Event>>) {
        self.state.published = self.state.assigned;
        self.state.compacted = self.floor;
        let kept = self
            .events
            .partition_point(|event| event.revision().0 <= self.floor);
        for event in self.events.drain(..kept) {
            self.state.index.compact(event.key(), self.floor);
        }
        (self.state, self.events)
    }
}

/// A write to be applied, with memory of its own.
struct Write {
    revision: u64,
    deadline: u64,
    key: Bytes,
    value: Option<Bytes>,
}

/// Reads segments, and checks that nothing is missing or comes twice.
struct LogReader<'a> {
    disk: &'a dyn Disk,
    /// The checkpoint's revision: it has all records up to there.
    base: u64,
    /// The newest revision so far.
    newest: u64,
    floor: u64,
    sequence: u64,
    reserved: u64,
    batch: Vec<Write>,
    bytes: usize,
    /// `None` when all has been sent.
    writes: Option<SyncSender<Vec<Write>>>,
}

impl<'a> LogReader<'a> {
    fn new(
        disk: &'a dyn Disk,
        headers: &[segment::Header],
        state: &State,
        writes: SyncSender<Vec<Write>>,
    ) -> Self {
        Self {
            disk,
            base: state.published,
            newest: state.assigned,
            floor: state.compacted,
            sequence: headers.first().map_or(1, |header| header.first_sequence),
            reserved: 0,
            batch: Vec::new(),
            bytes: 0,
            writes: Some(writes),
        }
    }

    fn segments(&mut self, headers: &[segment::Header]) -> Result<Vec<ReadSegment>, OpenError> {
        let mut segments = Vec::with_capacity(headers.len());
        for (index, header) in headers.iter().enumerate() {
            let limit = headers.get(index + 1).map(|next| next.previous_length);
            let stop = self.segment(header, limit)?;
            segments.push(ReadSegment {
                header: *header,
                stop,
                frames: self.sequence - header.first_sequence,
            });
        }
        Ok(segments)
    }

    /// Reads a segment: up to `limit`, to which it must be whole, or the last one as far as it is.
    fn segment(&mut self, header: &segment::Header, limit: Option<u64>) -> Result<Stop, OpenError> {
        let name = segment::name(header.number);
        self.reserved = self.reserved.max(header.reserved);
        if header.first_sequence != self.sequence {
            return Err(OpenError::corrupt(&name, 24, "frames before it are missing"));
        }
        let mut frames = Frames::open(self.disk, &name, header.salt)?;
        loop {
            if limit == Some(frames.offset) {
                return Ok(frames.stop(0));
            }
            match frames.next(self.sequence)? {
                Next::Frame => self.frame(&frames)?,
                Next::End if limit.is_none() => return Ok(frames.stop(0)),
                Next::Torn(tail) if limit.is_none() => {
                    return frames.check_torn(&tail);
                }
                Next::End | Next::Torn(_) => return Err(frames.corrupt("a frame is damaged")),
            }
            self.sequence += 1;
        }
    }

    fn frame(&mut self, frames: &Frames<'_>) -> Result<(), OpenError> {
        let mut reader = Reader(frames.payload());
        while !reader.is_empty() {
            let record =
                Record::decode(&mut reader).ok_or_else(|| frames.corrupt("a record cannot be read"))?;
            self.record(record).map_err(|reason| frames.corrupt(reason))?;
        }
        Ok(())
    }

    fn record(&mut self, record: Record<'_>) -> Result<(), &'static str> {
        match record {
            Record::Put {
                revision,
                deadline,
                key,
                value,
            } => self.write(revision, deadline, key, Some(value)),
            Record::Delete { revision, key } => self.write(revision, 0, key, None),
            Record::Compact { revision } => {
                self.floor = self.floor.max(revision);
                Ok(())
            }
            Record::Reserve { revision } => {
                self.reserved = self.reserved.max(revision);
                Ok(())
            }
        }
    }

    fn write(
        &mut self,
        revision: u64,
        deadline: u64,
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<(), &'static str> {
        if revision <= self.base {
            return Ok(());
        }
        if revision <= self.newest {
            return Err("a revision comes twice");
        }
        self.newest = revision;
        self.batch.push(Write {
            revision,
            deadline,
            // Memory of its own for each, so that none is kept for the sake of another.
            key: Bytes::copy_from_slice(key),
            value: value.map(Bytes::copy_from_slice),
        });
        self.bytes += WRITE + key.len() + value.map_or(0, <[u8]>::len);
        if self.bytes >= BATCH {
            self.send();
        }
        Ok(())
    }

    fn send(&mut self) {
        self.bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        if let Some(writes) = &self.writes {
            // Whoever applies the writes takes all of them, or has panicked and will say so.
            writes.send(batch).ok();
        }
    }

    fn finish(&mut self) {
        self.send();
        self.writes = None;
    }
}
