//! From what is on disk to the state that was acknowledged.
//!
//! The newest checkpoint is the base. On it the log is replayed, from the last segment that begins at or before the
//! checkpoint. All of it must be whole, but for the end of the last segment: a frame there that is not
//! whole, with no whole one after it, is what a crash leaves of a write that was never acknowledged. Zeros up to the end of the
//! file are room for frames that were not written.

use std::sync::Arc;

use super::checkpoint::{self, Checkpoint};
use super::codec::read_full;
use super::frame::{self, Record};
use super::frames::Stop;
use super::log::{Log, LogError, Position, Segment};
use super::mark::Mark;
use super::replay::Replay;
use super::{OpenError, segment};
use crate::disk::Disk;
use crate::engine::State;
use crate::{Event, Revision};

/// What recovery found.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) state: State,
    /// The events since the compaction, in order.
    pub(super) events: Vec<Arc<Event>>,
    pub(super) log: Log,
    pub(super) checkpoint: Option<Checkpoint>,
}

/// What is on disk, read without changing any of it.
pub(super) struct Found {
    replay: Replay,
    checkpoint: Option<Checkpoint>,
    /// How many keys the checkpoint has.
    checkpoint_keys: u64,
    segments: Vec<ReadSegment>,
    /// Whether the store was closed in good order.
    was_closed: bool,
}

/// A segment of the log that was read.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReadSegment {
    pub(super) header: segment::Header,
    pub(super) stop: Stop,
    /// How many frames it has.
    pub(super) frames: u64,
}

/// Opens what is on disk for writing. The store then stands at or above `skip_to`.
pub(super) fn recover(disk: &Arc<dyn Disk>, segment_size: u64, skip_to: u64) -> Result<Recovered, OpenError> {
    let mut found = read(disk.as_ref())?;
    let replay = &mut found.replay;
    // The segments so far have no record of what is skipped now: the log will.
    let written = replay.state.assigned;
    let mut skips = !found.was_closed && replay.skip_to(replay.reserved);
    skips |= replay.skip_to(skip_to);
    let end = found.segments.last().map(|last| (last.header, last.stop));
    let segments = found.segments.iter().map(ReadSegment::segment).collect();
    let mut log = open_log(disk, end, replay, written, segment_size, segments)?;
    if skips {
        log_skip(&mut log, replay.floor)?;
    }
    let checkpoint = found.checkpoint;
    let (state, events) = found.replay.finish();
    Ok(Recovered {
        state,
        events,
        log,
        checkpoint,
    })
}

/// Reads and checks everything that the state is made of.
pub(super) fn read(disk: &dyn Disk) -> Result<Found, OpenError> {
    let names = disk
        .list()
        .map_err(|error| OpenError::io("list", "the directory", error))?;
    let (state, checkpoint) = load_checkpoint(disk, &names)?;
    let checkpoint_keys = state.index.len();
    let headers = relevant(read_headers(disk, &names)?, state.published, checkpoint.is_some())?;
    let (mut replay, segments) = Replay::run(disk, &headers, state)?;
    replay.reach_floor();
    let was_closed = was_closed(disk, &names, segments.last())?;
    Ok(Found {
        replay,
        checkpoint,
        checkpoint_keys,
        segments,
        was_closed,
    })
}

impl Found {
    /// The newest segment's file name.
    pub(super) fn last_segment(&self) -> Option<String> {
        self.segments.last().map(|last| segment::name(last.header.number))
    }

    /// Up to here revisions may have been shown to readers, in the log or not.
    pub(super) fn shown(&self) -> u64 {
        let beyond = if self.was_closed { 0 } else { self.replay.reserved };
        self.replay.state.assigned.max(beyond)
    }

    pub(super) fn was_closed(&self) -> bool {
        self.was_closed
    }

    /// The checkpoint and how many keys it has.
    pub(super) fn checkpoint(&self) -> Option<(Checkpoint, u64)> {
        self.checkpoint
            .map(|checkpoint| (checkpoint, self.checkpoint_keys))
    }

    pub(super) fn segments(&self) -> &[ReadSegment] {
        &self.segments
    }

    /// The state, and the events since its compaction.
    pub(super) fn finish(self) -> (State, Vec<Arc<Event>>) {
        self.replay.finish()
    }
}

impl ReadSegment {
    pub(super) fn name(&self) -> String {
        segment::name(self.header.number)
    }

    /// How many bytes of it are whole frames and the header.
    pub(super) fn length(&self) -> u64 {
        self.stop.length
    }

    /// How many bytes follow them.
    pub(super) fn torn(&self) -> u64 {
        self.stop.torn
    }

    pub(super) fn frames(&self) -> u64 {
        self.frames
    }

    fn segment(&self) -> Segment {
        Segment {
            number: self.header.number,
            previous_revision: self.header.previous_revision,
            length: self.stop.length,
        }
    }
}

fn load_checkpoint(disk: &dyn Disk, names: &[String]) -> Result<(State, Option<Checkpoint>), OpenError> {
    let newest = names.iter().filter_map(|name| checkpoint::revision(name));
    let Some(revision) = newest.max() else {
        return Ok((State::default(), None));
    };
    let (index, checkpoint) = checkpoint::load(disk, revision)?;
    Ok((State::new(index, Revision(revision)), Some(checkpoint)))
}

/// The headers of all segments, oldest first.
fn read_headers(disk: &dyn Disk, names: &[String]) -> Result<Vec<segment::Header>, OpenError> {
    let mut numbers: Vec<_> = names.iter().filter_map(|name| segment::number(name)).collect();
    numbers.sort_unstable();
    let mut headers = Vec::with_capacity(numbers.len());
    for (index, &number) in numbers.iter().enumerate() {
        let name = segment::name(number);
        // One byte more tells whether anything comes after the header.
        let mut bytes = [0; segment::HEADER + 1];
        let length = disk
            .read(&name)
            .and_then(|mut file| read_full(&mut file, &mut bytes))
            .map_err(|error| OpenError::io("read", &name, error))?;
        let header = segment::Header::decode(&name, &bytes[..length.min(segment::HEADER)]);
        match header {
            Ok(header) if header.number != number => {
                return Err(OpenError::corrupt(&name, 16, "the number is another one"));
            }
            Ok(header) => headers.push(header),
            // A crash while the newest segment was being made: it was not written to yet.
            Err(OpenError::Corrupt { .. }) if index + 1 == numbers.len() && length <= segment::HEADER => {}
            Err(error) => return Err(error),
        }
    }
    Ok(headers)
}

/// The segments that hold what came after `base`, without gaps.
fn relevant(
    mut headers: Vec<segment::Header>,
    base: u64,
    has_checkpoint: bool,
) -> Result<Vec<segment::Header>, OpenError> {
    if headers.is_empty() && !has_checkpoint {
        return Ok(headers);
    }
    let Some(first) = headers
        .iter()
        .rposition(|header| header.previous_revision <= base)
    else {
        let missing = headers.first().map_or(1, |header| header.number - 1);
        return Err(OpenError::corrupt(
            &segment::name(missing),
            0,
            "the file is missing",
        ));
    };
    headers.drain(..first);
    for pair in headers.windows(2) {
        if pair[1].number != pair[0].number + 1 {
            let missing = segment::name(pair[0].number + 1);
            return Err(OpenError::corrupt(&missing, 0, "the file is missing"));
        }
    }
    Ok(headers)
}

/// Whether the store was closed in good order, after which the log ends where it ended then.
fn was_closed(disk: &dyn Disk, names: &[String], end: Option<&ReadSegment>) -> Result<bool, OpenError> {
    let Some(mark) = Mark::read(disk, names)? else {
        return Ok(false);
    };
    let name = segment::name(mark.number);
    match end {
        Some(ReadSegment { header, stop, .. }) if header.number == mark.number => {
            if stop.is_torn() || stop.length != mark.length {
                return Err(OpenError::corrupt(
                    &name,
                    stop.length,
                    "the file does not end where it did when the store was closed",
                ));
            }
            Ok(true)
        }
        _ => Err(OpenError::corrupt(&name, 0, "the file is missing")),
    }
}

/// Makes it certain that the history which was given up stays so.
fn log_skip(log: &mut Log, floor: u64) -> Result<(), OpenError> {
    let mut frame = frame::Builder::default();
    frame.push(&Record::Compact { revision: floor });
    match log.commit(&mut frame, floor) {
        Ok(()) => Ok(()),
        Err(LogError::Undone(error) | LogError::Unknown(error)) => {
            Err(OpenError::io("write", "the log", error))
        }
    }
}

fn open_log(
    disk: &Arc<dyn Disk>,
    end: Option<(segment::Header, Stop)>,
    replay: &Replay,
    revision: u64,
    segment_size: u64,
    segments: Vec<Segment>,
) -> Result<Log, OpenError> {
    let position = Position {
        number: end.map_or(0, |(header, _)| header.number),
        length: end.map_or(0, |(_, stop)| stop.length),
        next_sequence: replay.sequence,
        revision,
        reserved: replay.reserved,
    };
    let log = match end {
        Some((header, stop)) if !stop.is_torn() => {
            Log::resume(disk, header.salt, position, segment_size, segments)
        }
        _ => Log::begin(disk, position, segment_size, segments),
    };
    log.map_err(|error| OpenError::io("write", &segment::name(position.number), error))
}
