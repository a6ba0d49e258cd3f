//! Offsets by time: `ListOffsets` with a timestamp, and with the greatest one.
//!
//! The segment is found by its greatest timestamp, the place in it by the index, the batch by a walk over headers,
//! and the record within the batch by decompressing it. A task like a read: the owner keeps it and drives it.

use std::io;

use crate::base::time::Timestamp;
use crate::io::{Io, Outcome, Token};
use crate::model::batch::Header;
use crate::model::id::{LeaderEpoch, Offset};
use crate::model::limits::FRAME_SIZE_BYTES_MAX;
use crate::model::records;

use super::event::{Boundary, ReadError};
use super::log::Log;
use super::reader::UpTo;
use super::source::{Question, Source, Taken, corrupt};

/// A record found by its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its offset.
    pub offset: Offset,
    /// Its timestamp.
    pub timestamp: Timestamp,
    /// The leader epoch of its batch.
    pub leader_epoch: LeaderEpoch,
}

/// How a lookup stands.
#[allow(clippy::large_enum_variant)] // the task moves into the owner's slab; a box would be one more allocation
pub enum LookupStep {
    /// Done; `None`: no record is that young (or the log is empty).
    Ready(Option<Found>),
    /// An operation is under way; `resume` with its completion.
    Pending(LookupTask),
    /// Failed.
    Failed(ReadError),
}

#[derive(Clone, Copy)]
enum Sought {
    /// The first record at or above this time.
    AtOrAfter(Timestamp),
    /// The first record with the greatest time.
    Greatest,
}

/// A lookup under way.
pub struct LookupTask {
    token: Token,
    source: Source,
    sought: Sought,
    up_to: UpTo,
    /// The segment that is being looked into.
    segment: Option<Offset>,
    /// Segments before this one hold nothing that is sought.
    from: Offset,
    /// The segment of the greatest time whose batches have all been looked at in vain, and that time: segments that
    /// compaction has emptied keep the time of what they held.
    looked: Option<(Timestamp, Offset)>,
    /// Where the walk has come to.
    walk: Option<(Offset, u64)>,
    /// The batch that holds the record.
    batch: Option<(Offset, u64, Header)>,
    /// Greatest so far, while all batches of a segment are walked.
    greatest: Option<(Offset, u64, Header)>,
}

impl Log {
    /// The first record with a timestamp at or above `timestamp`. Operations it needs carry `token`.
    pub fn find_by_timestamp(
        &mut self,
        io: &mut impl Io,
        token: Token,
        timestamp: Timestamp,
        up_to: UpTo,
    ) -> LookupStep {
        LookupTask::new(token, self, Sought::AtOrAfter(timestamp), up_to).go_on(io, self)
    }

    /// The first record with the greatest timestamp. Operations it needs carry `token`.
    pub fn find_max_timestamp(&mut self, io: &mut impl Io, token: Token, up_to: UpTo) -> LookupStep {
        LookupTask::new(token, self, Sought::Greatest, up_to).go_on(io, self)
    }
}

impl LookupTask {
    fn new(token: Token, log: &Log, sought: Sought, up_to: UpTo) -> LookupTask {
        LookupTask {
            token,
            source: Source::new(token, log),
            segment: None,
            sought,
            up_to,
            from: Offset(0),
            looked: None,
            walk: None,
            batch: None,
            greatest: None,
        }
    }

    /// Goes on with the completion of the operation under way.
    pub fn resume(mut self, io: &mut impl Io, log: &mut Log, result: io::Result<Outcome>) -> LookupStep {
        let taken = self.source.take(io, log, result);
        if matches!(taken, Ok(Taken::Waiting)) {
            return LookupStep::Pending(self);
        }
        let is_stale = matches!(taken, Ok(Taken::Stale));
        if is_stale || self.segment.is_some_and(|base| log.segment(base).is_none()) {
            // It was freed or replaced meanwhile: what was read of it, or could not be, says nothing about what is left.
            return LookupTask::new(self.token, log, self.sought, self.up_to).go_on(io, log);
        }
        match taken {
            Ok(_) => self.go_on(io, log),
            Err(error) => LookupStep::Failed(error),
        }
    }

    fn go_on(mut self, io: &mut impl Io, log: &mut Log) -> LookupStep {
        match self.find(io, log) {
            Ok(Some(found)) => LookupStep::Ready(found),
            Ok(None) => LookupStep::Pending(self),
            Err(error) => LookupStep::Failed(error),
        }
    }

    fn find(&mut self, io: &mut impl Io, log: &Log) -> Result<Option<Option<Found>>, ReadError> {
        let bound = log.read_bound(self.up_to);
        log.check_readable(log.log_start(), bound)?;
        loop {
            if let Some((segment, position, header)) = self.batch {
                let Some(found) = self.record(io, log, segment, position, &header, bound)? else { return Ok(None) };
                match found {
                    Some(found) => return Ok(Some(Some(found))),
                    // The header's greatest timestamp was not the records': go on behind it.
                    None => {
                        self.batch = None;
                        self.walk = Some((segment, position + header.size_bytes as u64));
                    }
                }
            }
            let Some(base) = self.next_segment(log, bound) else { return Ok(Some(None)) };
            if self.walk.is_some_and(|(walked, _)| walked != base) {
                // What was appended meanwhile has a greater time.
                (self.walk, self.greatest) = (None, None);
            }
            self.segment = Some(base);
            match self.walk_segment(io, log, base, bound)? {
                Walked::Waiting => return Ok(None),
                Walked::Found => {}
                Walked::End => {
                    self.walk = None;
                    self.from = Offset(base.0 + 1);
                    self.looked = log.segment(base).map(|segment| (segment.max_timestamp.0, base));
                }
            }
        }
    }

    /// The next segment that may hold what is sought.
    fn next_segment(&self, log: &Log, bound: Boundary) -> Option<Offset> {
        let mut readable = log.segments.iter().filter(|segment| {
            segment.next_offset > log.log_start && segment.base_offset < bound.offset && segment.size_bytes > 0
        });
        match self.sought {
            Sought::AtOrAfter(timestamp) => readable
                .find(|segment| segment.base_offset >= self.from && segment.max_timestamp.0 >= timestamp)
                .map(|segment| segment.base_offset),
            Sought::Greatest => {
                // The first one of the greatest time, and then the next in that order.
                let rank = |(time, base): (Timestamp, Offset)| (time, std::cmp::Reverse(base));
                readable
                    .map(|segment| rank((segment.max_timestamp.0, segment.base_offset)))
                    .filter(|found| self.looked.is_none_or(|looked| *found < rank(looked)))
                    .max()
                    .map(|(_, base)| base.0)
            }
        }
    }

    fn walk_segment(
        &mut self,
        io: &mut impl Io,
        log: &Log,
        base: Offset,
        bound: Boundary,
    ) -> Result<Walked, ReadError> {
        let Some((segment, limit)) = log.segment_for(base, bound) else {
            return Err(corrupt(base, 0, "a segment is missing"));
        };
        if self.walk.is_none() {
            let question = match self.sought {
                Sought::AtOrAfter(timestamp) => Question::Timestamp(timestamp),
                Sought::Greatest => Question::Timestamp(segment.max_timestamp.0),
            };
            let Some(place) = self.source.ask(io, log, segment, question)? else { return Ok(Walked::Waiting) };
            self.walk = Some((base, place.map_or(0, |place| place.position)));
        }
        loop {
            let (_, position) = self.walk.expect("it was begun above");
            if position >= limit.position {
                self.batch = self.greatest.take();
                return Ok(if self.batch.is_some() { Walked::Found } else { Walked::End });
            }
            let Some(header) = self.source.header(io, log, segment, position, limit.position)? else {
                return Ok(Walked::Waiting);
            };
            self.walk = Some((base, position + header.size_bytes as u64));
            if header.last_offset() < log.log_start || header.attributes.is_control() || header.record_count == 0 {
                continue;
            }
            match self.sought {
                Sought::AtOrAfter(timestamp) if header.max_timestamp >= timestamp => {
                    self.batch = Some((base, position, header));
                    return Ok(Walked::Found);
                }
                Sought::AtOrAfter(_) => {}
                Sought::Greatest => {
                    let best = self.greatest.as_ref().map_or(Timestamp::NONE, |(_, _, best)| best.max_timestamp);
                    if self.greatest.is_none() || header.max_timestamp > best {
                        self.greatest = Some((base, position, header));
                    }
                    if header.max_timestamp >= segment.max_timestamp.0 {
                        self.batch = self.greatest.take();
                        return Ok(Walked::Found);
                    }
                }
            }
        }
    }

    /// Looks into the batch; `Some(None)`: the record is not in it after all.
    fn record(
        &mut self,
        io: &mut impl Io,
        log: &Log,
        base: Offset,
        position: u64,
        header: &Header,
        bound: Boundary,
    ) -> Result<Option<Option<Found>>, ReadError> {
        let Some((segment, _)) = log.segment_for(base, bound).filter(|(segment, _)| segment.base_offset == base) else {
            // It was freed meanwhile: the log start has passed it.
            return Ok(Some(None));
        };
        let end = position + header.size_bytes as u64;
        let mut slices = Vec::new();
        let in_memory = log.tail.slices(base, position, end, &mut slices) == position;
        let bytes = match self.source.in_window(base, position, end) {
            _ if in_memory => slices.iter().flat_map(|slice| slice.as_bytes()).copied().collect(),
            Some(slice) => slice.as_bytes().to_vec(),
            None => {
                self.source.read(io, log, segment, position..end, end)?;
                return Ok(None);
            }
        };
        // Records may have been deleted up to the middle of a batch.
        let from = log.log_start;
        let broken = |_| corrupt(base, position, "the records cannot be read");
        let found = match self.sought {
            Sought::AtOrAfter(timestamp) => {
                records::first_at_or_after(header, &bytes, timestamp, from, FRAME_SIZE_BYTES_MAX).map_err(broken)?
            }
            Sought::Greatest => {
                let found = records::max_timestamp(header, &bytes, from, FRAME_SIZE_BYTES_MAX).map_err(broken)?;
                Some(found).filter(|(_, offset)| *offset != Offset::NONE)
            }
        };
        Ok(Some(found.map(|(timestamp, offset)| Found { offset, timestamp, leader_epoch: header.leader_epoch })))
    }
}

enum Walked {
    Waiting,
    /// `batch` is set.
    Found,
    End,
}
