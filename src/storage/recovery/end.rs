//! The end of a log, at start: nothing behind it that could join a later batch, and its unfinished block in staging.

use std::io;

use crate::base::coverage;
use crate::base::units::align_down;
use crate::io::{Io, Op};
use crate::model::batch::Header;
use crate::model::id::Offset;
use crate::model::limits::{BLOCK_SIZE_BYTES, COMMIT_SIZE_BYTES_MAX};

use super::super::event::Boundary;
use super::super::options::AckAfter;
use super::super::scanner::Scanner;
use super::super::tail_cache::{Chunk, block_end};
use super::{Recovery, RecoveryError, corrupt};

const BLOCK: u64 = BLOCK_SIZE_BYTES as u64;

impl<I: Io> Recovery<'_, I> {
    /// A valid batch of the current epoch further behind the end than one commit reaches: something before it was
    /// durable and is damaged.
    pub(super) fn check_behind_end(&mut self) -> Result<(), RecoveryError> {
        if self.log.options.ack_after != AckAfter::Sync {
            return Ok(());
        }
        let segment = self.log.segments.back().expect("there is one");
        let (base, end, offset) = (segment.base_offset, segment.size_bytes, segment.next_offset);
        let file = segment.direct.clone().expect("the last one is open");
        let mut scanner = Scanner::new(self.io, file)?;
        let from = reach(&mut scanner, end, offset)?;
        match scanner.find_later(from, from + 2 * COMMIT_SIZE_BYTES_MAX as u64, offset, self.epoch)? {
            Some(_) => Err(corrupt(base, end, "bad bytes, with valid batches behind them")),
            None => Ok(()),
        }
    }

    /// Zeros what one commit could have reached behind the end, within the file.
    pub(super) fn zero_behind_end(&mut self) -> Result<(), RecoveryError> {
        if self.log.options.mutants().skip_zeroing {
            return Ok(());
        }
        let (end, offset, file) = {
            let segment = self.log.segments.back().expect("there is one");
            (segment.size_bytes, segment.next_offset, segment.direct.clone().expect("the last one is open"))
        };
        let mut scanner = Scanner::new(self.io, file.clone())?.read_blocks();
        let length = scanner.length_bytes;
        let partial = align_down(end, BLOCK);
        let up_to = match self.log.options.ack_after {
            AckAfter::Sync => block_end(length).min(reach(&mut scanner, end, offset)?),
            AckAfter::Write | AckAfter::Memory => block_end(length),
        };
        if partial < end {
            let unfinished = scanner.bytes(partial, end)?.to_vec();
            let buffer = self.io.pool().take_append(BLOCK_SIZE_BYTES).ok_or(io::ErrorKind::OutOfMemory)?;
            buffer.append(&unfinished);
            let padded = buffer.pad(BLOCK_SIZE_BYTES);
            let slice = buffer.slice_padded(0..padded);
            self.io.run(Op::Write { file: file.clone(), offset: partial, slice, sync: true })?;
        }
        let from = block_end(end);
        if from < up_to {
            self.io.run(Op::WriteZeros { file: file.clone(), offset: from, length_bytes: up_to - from })?;
            coverage::hit("recovery: zeros behind the end");
            self.stats.zeroed_bytes = up_to - from;
        } else {
            coverage::hit("recovery: nothing to zero");
        }
        // Batches that were found may be in the page cache of a controller, written and never synced.
        self.io.run(Op::Sync { file })?;
        let segment = self.log.segments.back_mut().expect("there is one");
        segment.prepared_bytes = segment.prepared_bytes.max(from);
        Ok(())
    }

    pub(super) fn load_unfinished_block(&mut self) -> Result<(), RecoveryError> {
        let segment = self.log.segments.back().expect("there is one");
        let (base, end, offset) = (segment.base_offset, segment.size_bytes, segment.next_offset);
        let partial = align_down(end, BLOCK);
        if partial == end {
            coverage::hit("recovery: the end is a block's");
            return Ok(());
        }
        coverage::hit("recovery: takes an unfinished block up");
        let file = segment.direct.clone().expect("the last one is open");
        let unfinished = Scanner::new(self.io, file)?.read_blocks().bytes(partial, end)?.to_vec();
        let buffer = self.io.pool().take_append(BLOCK_SIZE_BYTES).ok_or(io::ErrorKind::OutOfMemory)?;
        buffer.append(&unfinished);
        let chunk = Chunk::new(base, partial, buffer, Boundary { segment: base, position: end, offset });
        chunk.written.set(end);
        self.log.tail.push(chunk);
        Ok(())
    }
}

/// How far behind `end` the commits that were under way can have written. One commit is under way at a time; a batch
/// that is larger than a commit is written by several, of which the last began within it, and only if the first,
/// with its header, was durable.
fn reach<I: Io>(scanner: &mut Scanner<'_, I>, end: u64, offset: Offset) -> io::Result<u64> {
    let length = scanner.length_bytes;
    let mut from = end;
    if end + 61 <= length
        && let Some(header) = Header::parse(scanner.bytes(end, end + 61)?)
        && header.base_offset == offset
        && end + header.size_bytes as u64 <= length
    {
        coverage::hit("recovery: a header without its body behind the end");
        from = end + header.size_bytes as u64;
    }
    Ok(align_down(from, BLOCK) + COMMIT_SIZE_BYTES_MAX as u64)
}
