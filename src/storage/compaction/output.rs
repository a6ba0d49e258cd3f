//! The file of a new segment: batches are gathered and written direct, in whole blocks; at the end it is cut to its
//! batches and synced. It bears a name that a start removes, until [`super::swap`] gives it another.

use std::path::PathBuf;

use crate::base::time::Timestamp;
use crate::io::{AppendBuffer, File, Op, OpenOptions, Outcome, Pool};
use crate::model::batch::Header;
use crate::model::id::Offset;
use crate::model::limits::{BLOCK_SIZE_BYTES, COMPACTION_IO_SIZE_BYTES};
use crate::storage::index::SegmentIndex;

use super::swap::NewSegment;

/// How far the end of the file has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Open,
    Written,
    Truncated,
    Synced,
}

/// A new segment being written.
pub(super) struct Output {
    pub base: Offset,
    /// Offset behind the last segment that it replaces.
    pub next: Offset,
    /// Base offset of the segment to be read next.
    input: Offset,
    /// How many segments it replaces.
    pub replaces_count: usize,
    /// Records went, or batches were written anew.
    pub is_changed: bool,
    path: PathBuf,
    file: Option<File>,
    is_made: bool,
    is_emptied: bool,
    buffer: Option<AppendBuffer>,
    /// Where the buffer's bytes belong.
    buffer_start: u64,
    /// Bytes that found no room in the buffer.
    pending: Vec<u8>,
    size_bytes: u64,
    next_offset: Offset,
    index: SegmentIndex,
    first_timestamp: Timestamp,
    max_timestamp: (Timestamp, Offset),
    ending: Ending,
    skips_sync: bool,
}

/// What an output waits for.
pub(super) enum Wants {
    /// Nothing: it can take a batch, or is finished.
    Nothing,
    /// This must complete first; [`Output::take`] has its outcome.
    Needs(Op),
    /// Memory is short; ask again later.
    NoMemory,
}

impl Output {
    pub fn new(
        base: Offset,
        next: Offset,
        replaces_count: usize,
        path: PathBuf,
        interval: u32,
        skips_sync: bool,
    ) -> Output {
        Output {
            base,
            next,
            input: base,
            replaces_count,
            is_changed: replaces_count > 1,
            path,
            file: None,
            is_made: false,
            is_emptied: false,
            buffer: None,
            buffer_start: 0,
            pending: Vec::new(),
            size_bytes: 0,
            next_offset: base,
            index: SegmentIndex::new(base, interval),
            first_timestamp: Timestamp::NONE,
            max_timestamp: (Timestamp::NONE, Offset::NONE),
            ending: Ending::Open,
            skips_sync,
        }
    }

    /// Its file's name while it is being written.
    pub fn path(&self) -> &PathBuf {
        &self.path
    }

    /// True if the file may be there.
    pub fn has_file(&self) -> bool {
        self.is_made
    }

    /// Gives up the handle: the file is going to be removed, and a last handle that goes later would free its blocks
    /// on the spot, on the shard's own thread.
    pub fn close(&mut self) {
        self.file = None;
    }

    /// Base offset of the segment to be read next, or `None` behind the last one.
    pub fn next_input(&self) -> Option<Offset> {
        (self.input < self.next).then_some(self.input)
    }

    /// A segment was read to its end, behind which this offset begins.
    pub fn has_read(&mut self, next: Offset) {
        self.input = next;
    }

    /// Bytes of its batches so far.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Takes a batch. [`wants`](Self::wants) must have said that nothing is wanted.
    pub fn append(&mut self, header: &Header, batch: &[u8]) {
        debug_assert!(self.pending.is_empty() && header.base_offset >= self.next_offset);
        self.index.append(header, self.size_bytes);
        if self.size_bytes == 0 {
            self.first_timestamp = header.max_timestamp;
        }
        if header.record_count > 0 && header.max_timestamp > self.max_timestamp.0 {
            self.max_timestamp = (header.max_timestamp, header.base_offset);
        }
        self.size_bytes += batch.len() as u64;
        self.next_offset = header.next_offset();
        let room = self.buffer.as_ref().map_or(0, AppendBuffer::room);
        let (now, later) = batch.split_at(batch.len().min(room));
        if let Some(buffer) = &self.buffer {
            buffer.append(now);
        }
        self.pending.extend_from_slice(later);
    }

    /// What must happen before the next batch can be taken.
    pub fn wants(&mut self, pool: &Pool) -> Wants {
        let Some(file) = self.file.clone() else {
            let options = OpenOptions { write: true, create: true, direct: true, ..OpenOptions::default() };
            return Wants::Needs(Op::Open { path: self.path.clone(), options });
        };
        if !self.is_emptied {
            return Wants::Needs(Op::Truncate { file, length_bytes: 0 });
        }
        if let Some(buffer) = &self.buffer
            && buffer.room() == 0
        {
            let slice = buffer.slice(0..buffer.len());
            return Wants::Needs(Op::Write { file, offset: self.buffer_start, slice, sync: false });
        }
        if self.buffer.is_none() {
            if pool.used_bytes() + COMPACTION_IO_SIZE_BYTES > pool.budget_bytes() / 4 * 3 {
                return Wants::NoMemory;
            }
            let Some(buffer) = pool.take_append(COMPACTION_IO_SIZE_BYTES) else { return Wants::NoMemory };
            let count = self.pending.len().min(buffer.room());
            buffer.append(&self.pending[..count]);
            self.pending.drain(..count);
            self.buffer = Some(buffer);
            return self.wants(pool);
        }
        Wants::Nothing
    }

    /// What must happen before the file is whole and durable, after the last batch.
    pub fn wants_ending(&mut self, pool: &Pool) -> Wants {
        if self.ending == Ending::Open && !self.pending.is_empty() {
            return self.wants(pool);
        }
        let file = self.file.clone().expect("a batch was taken, so it is open");
        match (self.ending, &self.buffer) {
            (Ending::Open, Some(buffer)) if !buffer.is_empty() => {
                let padded = buffer.pad(BLOCK_SIZE_BYTES);
                let slice = buffer.slice_padded(0..padded);
                Wants::Needs(Op::Write { file, offset: self.buffer_start, slice, sync: false })
            }
            (Ending::Open, _) => {
                self.ending = Ending::Written;
                self.wants_ending(pool)
            }
            (Ending::Written, _) => Wants::Needs(Op::Truncate { file, length_bytes: self.size_bytes }),
            (Ending::Truncated, _) if self.skips_sync => {
                self.ending = Ending::Synced;
                Wants::Nothing
            }
            (Ending::Truncated, _) => Wants::Needs(Op::Sync { file }),
            (Ending::Synced, _) => Wants::Nothing,
        }
    }

    /// Takes the outcome of an operation that was wanted.
    pub fn take(&mut self, op: Did, outcome: Outcome) {
        match (op, outcome) {
            (Did::Open, Outcome::Opened(file)) => {
                self.file = Some(file);
                self.is_made = true;
            }
            (Did::Truncate, _) if !self.is_emptied => self.is_emptied = true,
            (Did::Truncate, _) => self.ending = Ending::Truncated,
            (Did::Sync, _) => self.ending = Ending::Synced,
            (Did::Write, _) => {
                let buffer = self.buffer.take().expect("it was written");
                self.buffer_start += buffer.len() as u64;
            }
            (op, outcome) => unreachable!("{op:?} completes with {outcome:?}"),
        }
    }

    /// The segment, once it is whole. For once: its index goes with it.
    pub fn segment(&mut self) -> NewSegment {
        debug_assert_eq!(self.ending, Ending::Synced);
        NewSegment {
            base_offset: self.base,
            next_offset: self.next,
            path: self.path.clone(),
            size_bytes: self.size_bytes,
            first_timestamp: self.first_timestamp,
            max_timestamp: self.max_timestamp,
            index: std::mem::replace(&mut self.index, SegmentIndex::new(self.base, u32::MAX)),
            aborted: Vec::new(),
        }
    }
}

/// Which operation of an output has completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Did {
    Open,
    Truncate,
    Write,
    Sync,
}

impl Did {
    pub fn of(op: &Op) -> Did {
        match op {
            Op::Open { .. } => Did::Open,
            Op::Truncate { .. } => Did::Truncate,
            Op::Write { .. } => Did::Write,
            Op::Sync { .. } => Did::Sync,
            other => unreachable!("an output asks for nothing like {other:?}"),
        }
    }
}
