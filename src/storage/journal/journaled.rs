//! What a log gives to the journal, and what it gets back.
//!
//! A log has one write under way, be it its own or the journal's. What the journal has made durable stays staged until
//! an own write carries it into the segment: then it is *settled*. Own writes always begin at the first block that is
//! not wholly in the segment, so the next one settles all that went before, whoever asked for it.
//!
//! Invariant: what is durable and not settled is in memory and in the journal, and lies in the active segment.

use crate::io::Io;
use crate::model::id::Offset;

use super::super::event::Events;
use super::super::log::{Log, State};
use super::super::options::{AckAfter, PrepareMode};
use super::group::{Group, Place};

/// A larger commit goes straight to the segment: its own write costs little for each byte, and the journal would
/// write them twice.
const JOURNALED_SIZE_BYTES_MAX: u64 = 16 * 1024;
/// A log with this much in the journal writes itself: by then one write of its own carries many commits. It bounds
/// what the staged bytes of quiet logs take of the pool.
const UNSETTLED_SIZE_BYTES_MAX: u64 = 64 * 1024;

impl Log {
    /// The log's name in a journal: its token.
    pub fn journal_key(&self) -> u64 {
        self.token_base
    }

    /// Bytes that a journal could make durable now; `None` if there are none, or an own write is due.
    pub fn journalable_bytes(&self) -> Option<usize> {
        let may = self.state == State::Serving
            && self.options.ack_after == AckAfter::Sync
            // What the journal made durable must find its place in the segment, also on a full disk.
            && self.options.prepare != PrepareMode::None
            && self.offline.is_none()
            && !self.is_committing()
            && self.syncing.is_none()
            && !self.unsynced
            && !self.must_settle()
            && self.durable.segment == self.end.segment;
        let bytes = self.end.position.saturating_sub(self.durable.position);
        let fits = (1..=JOURNALED_SIZE_BYTES_MAX).contains(&bytes) && self.staged_bytes <= UNSETTLED_SIZE_BYTES_MAX;
        (may && fits).then_some(bytes as usize)
    }

    /// Adds what is to be committed to `group`. False: the log must write it itself. Else
    /// [`journaled`](Self::journaled) must follow.
    pub fn journal_into(&mut self, group: &mut Group) -> bool {
        if self.journalable_bytes().is_none() {
            return false;
        }
        let (from, to) = (self.durable, self.end);
        let place = Place {
            topic: self.identity.topic_id,
            partition: self.identity.partition,
            segment: from.segment,
            position: from.position,
        };
        let tail = &self.tail;
        let is_there = group.push(self.token_base, place, to, |slices| {
            tail.slices(from.segment, from.position, to.position, slices) == from.position
        });
        if is_there {
            self.journaling = Some(to);
        }
        is_there
    }

    /// What was given to the journal is durable, or else the log is to write it itself.
    pub fn journaled(&mut self, io: &mut impl Io, is_durable: bool) -> Events {
        if let Some(boundary) = self.journaling.take()
            && is_durable
            && self.offline.is_none()
            && self.state != State::Deleted
        {
            self.advance_durable(boundary);
        }
        self.go_on(io);
        self.take_events()
    }

    /// What is below `offset` is durable in the segments themselves, or nobody's: no journal is needed for it.
    pub fn is_settled(&self, offset: Offset) -> bool {
        self.state == State::Deleted || self.settled.offset >= offset
    }

    /// Starts to write into the segment what is below `offset` and not there yet.
    pub fn settle(&mut self, io: &mut impl Io, offset: Offset) -> Events {
        self.settle_to = self.settle_to.max(offset);
        self.go_on(io);
        self.take_events()
    }

    /// The segment itself must catch up: the journal is to be overwritten, or what comes next (a seal, a checkpoint,
    /// the end) describes the segment.
    pub(in crate::storage) fn must_settle(&self) -> bool {
        self.settle_to > self.settled.offset
            || self.rolling.is_some()
            || self.checkpoints.captured.is_some()
            || self.state == State::Closing
    }

    /// A write of its batches is under way, its own or the journal's.
    pub(in crate::storage) fn is_committing(&self) -> bool {
        self.in_flight.is_some() || self.journaling.is_some()
    }
}
