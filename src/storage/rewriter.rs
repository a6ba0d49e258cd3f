//! Batches that recovery has found above the checkpoint are written again, synced, before they count.
//!
//! That they can be read proves nothing: a write or a sync of theirs may have failed, in a process that is gone and left
//! no word of it, so that what is read lives in a cache which may lose it, and no later sync covers it. The system
//! tells of a failed sync once. What is written again is covered by a sync of its own, and if that fails this start
//! knows it.
//!
//! 1. What is written are the very bytes in memory whose checksum was just found right: a read that went wrong
//!    afterwards cannot get onto the disk.
//! 2. Whole blocks only, in their places; the unfinished last block is recovery's to write, when it has seen that
//!    nothing follows.
//! 3. A batch is overwritten by itself, so a write that is torn leaves each block as it was or as it was meant.
//!
//! Only the active segment needs it: the first write into a segment waits until the one before is durable.

use std::io;

use crate::base::coverage;
use crate::io::{AppendBuffer, File, Io, Op};
use crate::model::limits::{BLOCK_SIZE_BYTES, COMMIT_SIZE_BYTES_MAX};

use super::tail_cache::block_end;

const BLOCK: u64 = BLOCK_SIZE_BYTES as u64;

/// See the module.
pub(super) struct Rewriter {
    file: File,
    /// Where the buffer's bytes belong: a block's begin.
    start: u64,
    /// Where the file's blocks end: no buffer needs to hold more.
    end: u64,
    /// What stands in the first block before the first batch.
    head: Vec<u8>,
    buffer: Option<AppendBuffer>,
    written_bytes: u64,
}

impl Rewriter {
    /// For batches that follow `head`, which are the bytes from the block's begin at `start` on. `file` is open for
    /// direct I/O and `length_bytes` long.
    pub fn new(file: File, start: u64, length_bytes: u64, head: &[u8]) -> Rewriter {
        debug_assert!(start.is_multiple_of(BLOCK) && head.len() < BLOCK_SIZE_BYTES);
        Rewriter { file, start, end: block_end(length_bytes), head: head.to_vec(), buffer: None, written_bytes: 0 }
    }

    /// The next bytes.
    pub fn push(&mut self, io: &mut impl Io, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let buffer = match &self.buffer {
                Some(buffer) => buffer,
                None => {
                    let size = (self.end - self.start).min(COMMIT_SIZE_BYTES_MAX as u64) as usize;
                    let buffer = io.pool().take_append(size).ok_or(io::ErrorKind::OutOfMemory)?;
                    buffer.append(&std::mem::take(&mut self.head));
                    self.buffer.insert(buffer)
                }
            };
            let (now, later) = bytes.split_at(bytes.len().min(buffer.room()));
            buffer.append(now);
            bytes = later;
            if buffer.room() == 0 {
                self.write(io)?;
            }
        }
        Ok(())
    }

    /// Nothing follows: writes the whole blocks that are left. Returns how many bytes were written in all.
    pub fn finish(mut self, io: &mut impl Io) -> io::Result<u64> {
        self.write(io)?;
        if self.written_bytes > 0 {
            coverage::hit("recovery: writes again what it found");
        }
        Ok(self.written_bytes)
    }

    fn write(&mut self, io: &mut impl Io) -> io::Result<()> {
        let Some(buffer) = self.buffer.take() else { return Ok(()) };
        let size = buffer.len() / BLOCK_SIZE_BYTES * BLOCK_SIZE_BYTES;
        if size > 0 {
            let slice = buffer.slice(0..size);
            io.run(Op::Write { file: self.file.clone(), offset: self.start, slice, sync: true })?;
        }
        self.start += size as u64;
        self.written_bytes += size as u64;
        Ok(())
    }
}
