//! Staged → written → durable: a log's own writes, and the seam for the journal.
//!
//! 1. `commit` hands over the oldest chunk that has unwritten bytes: whole blocks from the first one that is not
//!    wholly written, padded with zeros. One write per log is under way; the next gathers meanwhile.
//! 2. In a reused file a batch's first 21 bytes, which its CRC does not cover, must not reach the disk before the
//!    bytes behind the block boundary that they cross: an old body with a valid CRC may stand there. Such a commit
//!    is two writes: from the first such boundary on, durable, and then the rest. In a fresh file zeros stand
//!    there, no batch has a length of zero, and one write does.
//! 3. The first write into a new segment waits until the old one's last is durable, so that what recovery finds in
//!    a later segment always follows what it finds in the earlier ones.
//! 4. `advance_written`, `advance_durable` and `advance_settled` are the only places where those boundaries move: own
//!    writes move all of them, the [journal](super::journal) only what is durable. What it made durable is in the
//!    segment, *settled*, after the next own write, which begins where the last one ended.
//!
//! Invariant: `unsynced` is true exactly while bytes below `written` are covered by no sync; they are all in the
//! segment of `written`.
//!
//! Hot path: allocates nothing.

use std::io;
use std::rc::Rc;

use crate::base::coverage;
use crate::base::units::align_down;
use crate::io::{Io, Op, Outcome};
use crate::model::id::Offset;
use crate::model::limits::BLOCK_SIZE_BYTES;

use super::event::{Boundary, Events, Offline};
use super::log::{Log, OpKind, State};
use super::options::AckAfter;
use super::tail_cache::{Chunk, block_end};

const BLOCK: u64 = BLOCK_SIZE_BYTES as u64;

/// The write under way.
pub(super) struct InFlight {
    chunk: Rc<Chunk>,
    /// Where its blocks begin.
    from: u64,
    /// Where its bytes end, unpadded.
    to: u64,
    /// The last batch boundary at or before `to`.
    boundary: Boundary,
    /// The blocks that are written second, if this is the first write of two.
    rest: Option<(u64, u64)>,
    /// Durable when complete.
    sync: bool,
}

impl InFlight {
    /// Base offset of the segment it writes to.
    pub fn segment(&self) -> Offset {
        self.chunk.segment
    }
}

impl Log {
    /// Starts writing what is staged, unless a write is under way. Called once per loop turn for dirty logs, so
    /// that all appends of a turn share a write.
    pub fn commit(&mut self, io: &mut impl Io) {
        if self.is_committing() || self.offline.is_some() {
            return;
        }
        let Some(chunk) = self.tail.first_dirty().cloned() else { return };
        let mutants = self.options.mutants();
        let sync = self.options.ack_after == AckAfter::Sync || self.settle_to > self.settled.offset;
        // A synced write does not cover earlier unsynced ones, not even those whose sync is under way.
        let old_must_be_durable = (sync || chunk.segment != self.written.segment) && !mutants.roll_without_wait;
        if old_must_be_durable && (self.unsynced || self.syncing.is_some()) {
            coverage::hit("commit: waits for a sync");
            return self.sync_written(io);
        }
        let segment = self.segment(chunk.segment).expect("staged bytes belong to a segment that is written direct");
        let (file, reused) = (segment.direct.clone().expect("it is not sealed yet"), segment.reused);

        let from = align_down(chunk.written.get(), BLOCK);
        let (to, padded) = (chunk.end(), block_end(chunk.end()));
        let crossing = chunk.crossing.replace(0);
        let two_steps = reused && crossing > from && crossing < padded && !mutants.skip_two_step;
        coverage::hit(match (two_steps, reused) {
            (true, _) => "commit: in two steps",
            (false, true) => "commit: over an old file",
            (false, false) => "commit: in a new file",
        });
        chunk.in_flight.set(padded);
        let (first, rest) = if two_steps { (crossing, Some((from, crossing))) } else { (from, None) };
        let slice = chunk.slice_padded(first, padded);
        // The first of two writes is durable in every mode: the order on disk is what counts.
        let op_sync = (sync || two_steps) && !mutants.skip_sync;
        io.submit(self.token(OpKind::Commit), Op::Write { file, offset: first, slice, sync: op_sync });
        self.in_flight = Some(InFlight { boundary: chunk.boundary.get(), chunk, from, to, rest, sync });
    }

    /// Bytes of the write under way, if there is one.
    pub fn writing_bytes(&self) -> Option<u64> {
        self.in_flight.as_ref().map(|write| write.to - write.from)
    }

    /// Takes the completion of a write.
    pub(super) fn finish_write(&mut self, io: &mut impl Io, result: io::Result<Outcome>) {
        let mut write = self.in_flight.take().expect("a write completes once");
        if let Err(error) = result {
            return self.fail("write", &error);
        }
        if self.offline.is_some() {
            return;
        }
        if let Some((from, to)) = write.rest.take() {
            coverage::hit("commit: the second of two steps");
            let segment = self.segment(write.chunk.segment).expect("it is not sealed before it is written");
            let file = segment.direct.clone().expect("it is not sealed yet");
            let slice = write.chunk.slice_padded(from, to);
            let sync = write.sync && !self.options.mutants().skip_sync;
            io.submit(self.token(OpKind::Commit), Op::Write { file, offset: from, slice, sync });
            self.in_flight = Some(write);
            return;
        }
        write.chunk.in_flight.set(0);
        self.staged_bytes -= write.to - write.chunk.written.replace(write.to);
        self.calm_staging((write.to - write.from) as usize);
        self.tail.settle();
        self.advance_written(write.boundary);
        match write.sync {
            true => self.advance_settled(write.boundary),
            false => self.unsynced = true,
        }
        // Memory and room in staging have become free.
        self.tell_parked();
    }

    /// Makes what is written durable in modes that do not sync each write (`flush.ms`, `flush.messages`).
    /// `Events::durable` tells when. Nothing happens while a write is under way: its completion is the time to ask.
    pub fn flush(&mut self, io: &mut impl Io) {
        self.sync_written(io);
    }

    /// Makes what is written durable, unless it is or a sync is under way.
    pub(super) fn sync_written(&mut self, io: &mut impl Io) {
        if !self.unsynced || self.syncing.is_some() || self.in_flight.is_some() || self.offline.is_some() {
            return;
        }
        let segment = self.segment(self.written.segment).expect("unsynced bytes are in a segment written direct");
        let file = segment.direct.clone().expect("it is not sealed yet");
        io.submit(self.token(OpKind::Sync), Op::Sync { file });
        self.unsynced = false;
        self.syncing = Some(self.written);
    }

    /// Takes the completion of a sync.
    pub(super) fn finish_sync(&mut self, io: &mut impl Io, result: io::Result<Outcome>) {
        let covered = self.syncing.take().expect("a sync completes once");
        if let Err(error) = result {
            return self.fail("sync", &error);
        }
        if self.offline.is_none() {
            coverage::hit("commit: a sync of several writes");
            self.advance_settled(covered);
            // A commit may have waited for it.
            self.commit(io);
        }
    }

    /// Everything before `boundary` is written.
    pub(super) fn advance_written(&mut self, boundary: Boundary) {
        debug_assert!(boundary.offset >= self.written.offset);
        self.written = boundary;
        self.move_high_watermark();
    }

    /// Everything before `boundary` is durable in the segments themselves.
    fn advance_settled(&mut self, boundary: Boundary) {
        debug_assert!(boundary.offset >= self.settled.offset);
        self.settled = boundary;
        if boundary.offset >= self.durable.offset {
            self.advance_durable(boundary);
        }
    }

    /// Everything before `boundary` is durable, be it by own writes or by the journal.
    pub(super) fn advance_durable(&mut self, boundary: Boundary) {
        debug_assert!(boundary.offset >= self.durable.offset);
        self.durable = boundary;
        self.events.durable = true;
        self.move_high_watermark();
    }

    /// The high watermark follows what the topic calls acknowledged; it never goes back.
    pub(super) fn move_high_watermark(&mut self) {
        let acknowledged = match self.options.ack_after {
            AckAfter::Sync => self.durable,
            AckAfter::Write => self.written,
            AckAfter::Memory => self.end,
        };
        if acknowledged.offset > self.high_watermark.offset {
            self.high_watermark = acknowledged;
            self.transactions.acknowledge(acknowledged.offset);
            self.events.advanced = true;
        }
    }

    /// Closes the log: takes no more appends, makes everything durable and writes a checkpoint. `Events::closed`
    /// tells when it is done (it may come from this call). The clean-stop marker is the owner's.
    pub fn close(&mut self, io: &mut impl Io) -> Events {
        match self.state {
            State::Serving | State::Gated => self.state = State::Closing,
            State::Absent => {
                self.state = State::Closed;
                self.events.closed = true;
            }
            State::Materializing | State::Closing => self.state = State::Closing,
            State::Closed | State::Deleted => self.events.closed = true,
        }
        if self.offline.is_some() {
            self.events.closed = true;
        }
        self.go_on(io);
        self.take_events()
    }

    /// [`close`](Log::close) without a checkpoint, for an owner that keeps the [`snapshot`](Log::snapshot).
    pub fn close_for_clean_stop(&mut self, io: &mut impl Io) -> Events {
        self.close_without_checkpoint = true;
        self.close(io)
    }

    /// Goes on with closing: commits, then a sync, then what is left of jobs, then the checkpoint.
    pub(super) fn go_on_closing(&mut self, io: &mut impl Io) {
        if self.state != State::Closing || self.is_committing() || self.syncing.is_some() {
            return;
        }
        if self.tail.first_dirty().is_some() {
            return self.commit(io);
        }
        if self.unsynced {
            return self.sync_written(io);
        }
        if !self.jobs.is_empty() || self.rolling.is_some() || self.space.is_busy() {
            return;
        }
        if !self.segments.is_empty()
            && (self.checkpoints.durable.offset < self.durable.offset
                || self.checkpoints.log_start < self.next_log_start)
            && !self.close_without_checkpoint
        {
            // One attempt: without a checkpoint the next start scans further, no more.
            coverage::hit("checkpoint: of a log that closes");
            self.close_without_checkpoint = true;
            self.checkpoints.wanted = true;
            return self.go_on(io);
        }
        if self.checkpoints.wanted {
            // Asked for while an earlier one was being written.
            self.go_on_checkpoint();
            self.run_jobs(io);
            if !self.jobs.is_empty() {
                return;
            }
        }
        self.state = State::Closed;
        self.events.closed = true;
    }

    /// For tests and owners that must not go on: sticky, with a cause of their own.
    pub fn take_offline(&mut self, cause: Offline) {
        self.go_offline(cause);
    }
}
