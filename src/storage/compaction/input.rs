//! Batches of a sealed segment, one after the other, by direct reads: they do not drive out of the page cache what
//! consumers read.
//!
//! [`Input::batch`] answers at once or says what is to be submitted first. Every batch is checked against its CRC, and
//! its offsets, which no CRC covers, against its place: a read that went astray must not put another batch there.

use crate::base::units::align_down;
use crate::io::{File, Op, OpenOptions, Outcome, Pool, Slice};
use crate::model::batch::{self, HEADER_SIZE, Header, MAGIC};
use crate::model::id::Offset;
use crate::model::limits::{BLOCK_SIZE_BYTES, COMPACTION_IO_SIZE_BYTES};
use crate::storage::log::Log;
use crate::storage::segment::Segment;
use crate::storage::tail_cache::block_end;

use super::task::CompactError;

const BLOCK: u64 = BLOCK_SIZE_BYTES as u64;

/// A sealed segment being read.
pub(super) struct Input {
    pub base: Offset,
    path: std::path::PathBuf,
    /// Bytes of its batches.
    size_bytes: u64,
    /// The next batch begins here, or behind it if offsets may be missing, and none reaches beyond the end.
    next_offset: Offset,
    end: Offset,
    may_have_gaps: bool,
    file: Option<File>,
    /// Where the next batch begins.
    pub position: u64,
    window: Option<(u64, Slice)>,
}

/// What there is at the position.
pub(super) enum Found {
    /// A batch; the position is behind it.
    Batch(Header, Slice),
    /// The segment's end.
    End,
    /// This must complete first; [`Input::take`] has its outcome.
    Needs(Op),
    /// Memory is short; ask again later.
    NoMemory,
}

impl Input {
    /// `segment` of `log`, from its start.
    pub fn new(log: &Log, segment: &Segment) -> Input {
        Input {
            base: segment.base_offset,
            path: segment.path(&log.identity.dir),
            size_bytes: segment.size_bytes,
            next_offset: segment.base_offset,
            end: segment.next_offset,
            may_have_gaps: log.may_have_gaps(segment),
            file: None,
            position: 0,
            window: None,
        }
    }

    /// Bytes from the start that have been gone through, to the end of the segment.
    pub fn is_at_end(&self) -> bool {
        self.position >= self.size_bytes
    }

    /// Takes the outcome of an operation that was needed.
    pub fn take(&mut self, outcome: Outcome) -> Result<(), CompactError> {
        match outcome {
            Outcome::Opened(file) => self.file = Some(file),
            Outcome::Read { buffer, bytes } => {
                let start = align_down(self.position, BLOCK);
                self.window = Some((start, buffer.freeze(bytes)));
                if start + bytes as u64 <= self.position {
                    return Err(self.corrupt("the file ends early"));
                }
            }
            other => unreachable!("an input neither opens nor reads with {other:?}"),
        }
        Ok(())
    }

    pub fn batch(&mut self, pool: &Pool) -> Result<Found, CompactError> {
        if self.is_at_end() {
            self.window = None;
            return Ok(Found::End);
        }
        let Some(file) = &self.file else {
            let options = OpenOptions { direct: true, ..OpenOptions::default() };
            return Ok(Found::Needs(Op::Open { path: self.path.clone(), options }));
        };
        let file = file.clone();
        if self.position + HEADER_SIZE as u64 > self.size_bytes {
            return Err(self.corrupt("a batch ends behind the end"));
        }
        let Some(header) = self.bytes(HEADER_SIZE as u64) else {
            return self.read(file, HEADER_SIZE as u64, pool);
        };
        let header = match Header::parse(header.as_bytes()) {
            Some(header) if header.magic == MAGIC && header.record_count >= 0 && header.last_offset_delta >= 0 => {
                header
            }
            _ => return Err(self.corrupt("no batch header")),
        };
        let is_next = header.base_offset == self.next_offset;
        let is_later = self.may_have_gaps && header.base_offset > self.next_offset;
        if !(is_next || is_later) || header.next_offset() > self.end {
            return Err(self.corrupt("a batch whose offsets belong elsewhere"));
        }
        let size_bytes = header.size_bytes as u64;
        if self.position + size_bytes > self.size_bytes {
            return Err(self.corrupt("a batch ends behind the end"));
        }
        let Some(bytes) = self.bytes(size_bytes) else { return self.read(file, size_bytes, pool) };
        if batch::crc_of(bytes.as_bytes()) != header.crc {
            return Err(self.corrupt("the CRC does not match"));
        }
        self.position += size_bytes;
        self.next_offset = header.next_offset();
        Ok(Found::Batch(header, bytes))
    }

    /// The next so many bytes, if they were read.
    fn bytes(&self, size_bytes: u64) -> Option<Slice> {
        let (start, bytes) = self.window.as_ref()?;
        let from = self.position.checked_sub(*start)? as usize;
        let to = from + size_bytes as usize;
        (to <= bytes.len()).then(|| bytes.slice(from..to))
    }

    fn read(&mut self, file: File, needed_bytes: u64, pool: &Pool) -> Result<Found, CompactError> {
        self.window = None;
        let start = align_down(self.position, BLOCK);
        let end = block_end((self.position + needed_bytes).max(start + COMPACTION_IO_SIZE_BYTES as u64));
        let length = end.min(block_end(self.size_bytes)) - start;
        // A quarter is left to those who serve.
        let limit = pool.budget_bytes() / 4 * 3;
        if length as usize > limit {
            return Err(CompactError::TooLarge { segment: self.base, position: self.position });
        }
        if pool.used_bytes() + length as usize > limit {
            return Ok(Found::NoMemory);
        }
        let Some(buffer) = pool.take(length as usize) else { return Ok(Found::NoMemory) };
        Ok(Found::Needs(Op::Read { file, offset: start, buffer, length_bytes: length as u32 }))
    }

    pub fn corrupt(&self, what: &'static str) -> CompactError {
        CompactError::Corrupt { segment: self.base, position: self.position, what }
    }
}
