//! Batch → checked against the log's state → stamped in place → copied once into staging.
//!
//! 1. Room is found first: the segment (else roll), prepared space, memory. Only then is anything changed, so a
//!    refused append leaves no trace.
//! 2. While no write covers the unfinished last block, the current chunk goes on being filled. Else a new chunk
//!    starts with a copy of that block: a block never changes in memory while a write of it is in flight.
//! 3. A chunk is at most one commit. A batch that does not fit goes on in the next one, at a block boundary. The
//!    first 21 bytes of a batch are never split over two chunks, because they must reach the disk in the order that
//!    the two-step write gives them.
//!
//! Hot path: one copy, no allocation but buffers from the pool.

use crate::base::time::Now;
use crate::base::units::align_down;
use crate::io::Io;
use crate::io::buffer::SIZE_MIN_BYTES;
use crate::model::batch::{self, CRC_COVERED_FROM, Header};
use crate::model::limits::{BLOCK_SIZE_BYTES, COMMIT_SIZE_BYTES_MAX};

use super::event::{AppendError, Appended, Boundary};
use super::log::{Log, State};
use super::options::AckAfter;
use super::prepare::Room;
use super::tail_cache::Chunk;

const BLOCK: u64 = BLOCK_SIZE_BYTES as u64;
/// What one log may stage beyond the write under way before appends must wait: more only adds latency, and one log
/// must not take the whole pool. One larger batch is taken when nothing else is staged.
const STAGED_SIZE_BYTES_MAX: u64 = 8 * COMMIT_SIZE_BYTES_MAX as u64;

impl Log {
    /// Appends one batch that [`batch::validate`] (or the broker itself) made; `header` is its header. Stamps base
    /// offset and leader epoch into `batch`. The batch is acknowledged when the high watermark reaches
    /// [`Appended::end`], which in mode `memory` it does at once; call [`commit`](Log::commit) once per turn.
    pub fn append(
        &mut self,
        io: &mut impl Io,
        batch: &mut [u8],
        header: &Header,
        now: Now,
    ) -> Result<Appended, AppendError> {
        debug_assert_eq!(batch.len(), header.size_bytes);
        if let Some(cause) = &self.offline {
            return Err(AppendError::Offline(cause.clone()));
        }
        match self.state {
            State::Serving => {}
            State::Absent => {
                let error = self.materialize(io, now);
                return Err(self.refuse(error));
            }
            State::Materializing | State::Gated => return Err(self.refuse(AppendError::NotReady)),
            State::Closing | State::Closed | State::Deleted => return Err(AppendError::Closed),
        }
        if batch.len() as u64 > self.options.segment_size_bytes {
            return Err(AppendError::TooLarge);
        }
        if self.must_roll(header, now)
            && let Err(error) = self.roll(io, now)
        {
            return Err(self.refuse(error));
        }
        match self.find_space(io, batch.len() as u64, now.monotonic) {
            Room::Enough => {}
            Room::Soon => return Err(self.refuse(AppendError::NotReady)),
            Room::Full => return Err(self.refuse(AppendError::DiskFull)),
        }
        let position = self.end.position;
        if self.staged_bytes > 0 && self.staged_bytes + batch.len() as u64 > STAGED_SIZE_BYTES_MAX {
            return Err(self.refuse(AppendError::NotReady));
        }
        let chunk_count = match self.find_memory(batch.len()) {
            Ok(chunk_count) => chunk_count,
            Err(error) => return Err(self.refuse(error)),
        };

        let base_offset = self.end.offset;
        batch::stamp(batch, base_offset, self.leader_epoch);
        let mut header = Header { base_offset, leader_epoch: self.leader_epoch, ..*header };
        if self.options.log_append_time {
            batch::stamp_log_append_time(batch, now.wall);
            header = Header::parse(batch).expect("the stamped batch is whole");
        }
        let start = self.end;
        self.end.position += batch.len() as u64;
        self.end.offset = header.next_offset();
        self.stage(batch, position, chunk_count);
        self.staged_bytes += batch.len() as u64;

        let leader_epoch = self.leader_epoch;
        self.epochs.assign(leader_epoch, base_offset);
        let aborted = self.note_producer(&header, batch, start, now.wall);
        let end = self.end;
        let active = self.active();
        active.note(&header, position, end);
        if let Some(aborted) = aborted {
            active.aborted.push(aborted);
        }
        active.written_at = now.wall;
        if self.options.ack_after == AckAfter::Memory || self.options.mutants().ack_before_write {
            self.high_watermark = end;
            self.transactions.acknowledge(end.offset);
            self.events.advanced = true;
        }
        Ok(Appended { base_offset, end: end.offset })
    }

    /// Notes that somebody waits for `room`.
    fn refuse(&mut self, error: AppendError) -> AppendError {
        self.parked = true;
        error
    }

    /// Makes sure that `size_bytes` can be copied and returns how many of the newest chunks they go into, in order.
    fn find_memory(&mut self, size_bytes: usize) -> Result<usize, AppendError> {
        if self.current_room(size_bytes).0 >= size_bytes {
            return Ok(1);
        }
        self.find_held(size_bytes).or_else(|_| {
            // The current chunk may be what the memory is in.
            self.tail.shrink();
            self.find_held(size_bytes)
        })
    }

    /// While memory is taken, which may make the budget give some back, the room of the current chunk is counted on.
    fn find_held(&mut self, size_bytes: usize) -> Result<usize, AppendError> {
        let current = self.tail.current().cloned();
        let hold = |held| current.iter().for_each(|chunk| chunk.held.set(held));
        hold(true);
        let found = self.find_chunks(size_bytes);
        hold(false);
        found
    }

    /// The bytes that the current chunk may still take of a batch of this size, and whether it is full before its
    /// write could start.
    fn current_room(&self, size_bytes: usize) -> (usize, bool) {
        let position = self.end.position;
        let Some(chunk) = self.tail.current() else { return (0, false) };
        let is_covered = chunk.in_flight.get() > align_down(position, BLOCK) && !position.is_multiple_of(BLOCK);
        if chunk.segment != self.end.segment || chunk.end() != position || is_covered {
            return (0, false);
        }
        let room = if chunk.room() >= size_bytes.min(CRC_COVERED_FROM) { chunk.room() } else { 0 };
        (room, chunk.is_busy())
    }

    fn find_chunks(&mut self, size_bytes: usize) -> Result<usize, AppendError> {
        let position = self.end.position;
        let partial = (position % BLOCK) as usize;
        let (room, is_full) = self.current_room(size_bytes);
        if is_full {
            // The chunk is full before its write could start: larger ones will carry more. A chunk that is begun
            // because the last one is being written says nothing, and memory of the tail cache is not wasted on it.
            self.staging_size_bytes = (self.staging_size_bytes * 2).min(COMMIT_SIZE_BYTES_MAX);
        }
        // The first new chunk carries the unfinished block unless the current one is filled to its end.
        let (mut carry, mut start) = match room {
            0 => (partial, position - partial as u64),
            _ => (0, position + room as u64),
        };
        let mut missing = size_bytes - room;
        let mut count = 0;
        while missing > 0 {
            let wanted = (missing + carry).max(self.staging_size_bytes).min(COMMIT_SIZE_BYTES_MAX);
            let smallest = (missing + carry).min(COMMIT_SIZE_BYTES_MAX);
            let buffer = self.tail.take(wanted).or_else(|| self.tail.take(smallest));
            let Some(buffer) = buffer else {
                (0..count).for_each(|_| self.tail.pop_unused());
                return Err(AppendError::NoMemory);
            };
            if carry > 0 {
                match self.options.mutants().skip_tail_carry {
                    false => buffer.append(self.tail.unfinished_block(self.end.segment, position).as_bytes()),
                    true => buffer.append(&[0; BLOCK_SIZE_BYTES][..carry]),
                }
            }
            missing -= missing.min(buffer.room());
            let capacity = buffer.capacity() as u64;
            let chunk = Chunk::new(self.end.segment, start, buffer, self.end);
            chunk.written.set(start + carry as u64);
            self.tail.push(chunk);
            (carry, start) = (0, start + capacity);
            count += 1;
        }
        Ok(count + usize::from(room > 0))
    }

    /// Copies the batch, which starts at `position`, into the newest `chunk_count` chunks.
    fn stage(&mut self, batch: &[u8], position: u64, chunk_count: usize) {
        let (mut rest, mut at) = (batch, position);
        let end = self.end;
        for chunk in self.tail.newest(chunk_count) {
            debug_assert!(chunk.segment == end.segment && chunk.end() == at);
            let (now, later) = rest.split_at(rest.len().min(chunk.room()));
            chunk.append(now);
            if at == position {
                let boundary = align_down(at + CRC_COVERED_FROM as u64 - 1, BLOCK);
                if boundary > at && chunk.crossing.get() == 0 {
                    chunk.crossing.set(boundary);
                }
            }
            at += now.len() as u64;
            rest = later;
            if rest.is_empty() {
                chunk.boundary.set(end);
            }
        }
        debug_assert!(rest.is_empty());
    }

    /// Staging shrinks again when writes turn out small.
    pub(super) fn calm_staging(&mut self, write_size_bytes: usize) {
        if write_size_bytes < self.staging_size_bytes / 4 {
            self.staging_size_bytes = (self.staging_size_bytes / 2).max(SIZE_MIN_BYTES);
        }
    }

    /// Where the log's batches end, as a boundary.
    pub fn end_boundary(&self) -> Boundary {
        self.end
    }
}
