//! Batches of a file, one after the other, by large direct reads: for recovery, where blocking is allowed.
//!
//! A batch counts if its offset is the expected one, its magic and CRC are right, it holds at least one record and
//! its leader epoch is one and does not go back. Whatever else stands there, the log ended before it. In a segment that may have
//! been compacted offsets only ascend, and a batch may be without records.

use std::io;

use crate::base::units::{MIB, align_down};
use crate::io::{Buffer, File, Io, Op, Outcome};
use crate::model::batch::{self, HEADER_SIZE, Header, MAGIC};
use crate::model::id::{LeaderEpoch, Offset};
use crate::model::limits::BLOCK_SIZE_BYTES;

use super::rewriter::Rewriter;
use super::tail_cache::block_end;

const BLOCK: u64 = BLOCK_SIZE_BYTES as u64;
const READ_SIZE_BYTES: u64 = MIB as u64;

/// What the next batch must be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    pub offset: Offset,
    pub epoch: LeaderEpoch,
    /// A mutant: epochs may go back.
    pub any_epoch: bool,
    /// Offsets may be missing before it, and its records.
    pub may_have_gaps: bool,
}

impl Expected {
    fn fits(&self, header: &Header) -> bool {
        let offset_fits = match self.may_have_gaps {
            false => header.base_offset == self.offset && header.record_count > 0,
            true => header.base_offset >= self.offset && header.record_count >= 0,
        };
        // No checksum covers the epoch, so it may be anything; we write none below zero.
        offset_fits && header.leader_epoch.0 >= 0 && (header.leader_epoch >= self.epoch || self.any_epoch)
    }
}

/// See the module.
pub(super) struct Scanner<'a, I: Io> {
    io: &'a mut I,
    file: File,
    pub length_bytes: u64,
    /// What is read at once.
    pub read_size_bytes: u64,
    window: Option<(u64, Buffer, u64)>,
}

impl<'a, I: Io> Scanner<'a, I> {
    /// A scanner over `file`, which is open for direct I/O.
    pub fn new(io: &'a mut I, file: File) -> io::Result<Self> {
        let Outcome::Length(length_bytes) = io.run(Op::Length { file: file.clone() })? else {
            unreachable!("Length completes with a length")
        };
        Ok(Scanner { io, file, length_bytes, read_size_bytes: READ_SIZE_BYTES, window: None })
    }

    /// The expected batch at `position`, ending at or before `end`, or `None` if what is there is not it.
    pub fn batch(&mut self, position: u64, end: u64, expected: Expected) -> io::Result<Option<(Header, &[u8])>> {
        let end = end.min(self.length_bytes);
        if position + HEADER_SIZE as u64 > end {
            return Ok(None);
        }
        let Some(header) = Header::parse(self.bytes(position, position + HEADER_SIZE as u64)?) else {
            return Ok(None);
        };
        let batch_end = position + header.size_bytes as u64;
        let plausible =
            header.magic == MAGIC && header.last_offset_delta >= 0 && expected.fits(&header) && batch_end <= end;
        if !plausible {
            return Ok(None);
        }
        let bytes = self.bytes(position, batch_end)?;
        Ok((batch::crc_of(bytes) == header.crc).then_some((header, bytes)))
    }

    /// Hands the bytes of the batch that was just given out, from `position` to `end`, to be written again: the same
    /// bytes in memory whose checksum was right.
    pub fn rewrite(&mut self, position: u64, end: u64, rewriter: &mut Rewriter) -> io::Result<()> {
        let (start, buffer, _) = self.window.as_ref().expect("a batch was just read");
        rewriter.push(&mut *self.io, &buffer[(position - start) as usize..(end - start) as usize])
    }

    /// For a look at single places.
    pub fn read_blocks(mut self) -> Self {
        self.read_size_bytes = BLOCK;
        self
    }

    /// Looks for a whole valid batch that starts anywhere from `from` to `to`, with an offset above `offset` and an
    /// epoch not below `epoch`. Returns its position.
    pub fn find_later(&mut self, from: u64, to: u64, offset: Offset, epoch: LeaderEpoch) -> io::Result<Option<u64>> {
        let end = self.length_bytes;
        let mut position = from;
        while position < to && position + HEADER_SIZE as u64 <= end {
            let upper = (position + READ_SIZE_BYTES / 2).min(end);
            let bytes = self.bytes(position, upper)?;
            // The magic tells most places apart; zeros are passed over at once.
            let found = bytes.windows(HEADER_SIZE).position(|window| {
                window[16] as i8 == MAGIC
                    && Header::parse(window).is_some_and(|header| {
                        header.base_offset > offset && header.leader_epoch >= epoch && header.record_count > 0
                    })
            });
            match found {
                Some(at) if position + at as u64 >= to => return Ok(None),
                Some(at) => {
                    position += at as u64;
                    let header = Header::parse(&bytes[at..]).expect("it was just parsed");
                    let any = Expected { offset: header.base_offset, epoch, any_epoch: false, may_have_gaps: false };
                    if self.batch(position, end, any)?.is_some() {
                        return Ok(Some(position));
                    }
                    position += 1;
                }
                None => position = (upper + 1).saturating_sub(HEADER_SIZE as u64).max(position + 1),
            }
        }
        Ok(None)
    }

    /// The bytes from `from` to `to`, which are within the file.
    pub fn bytes(&mut self, from: u64, to: u64) -> io::Result<&[u8]> {
        let covered = self.window.as_ref().is_some_and(|(start, _, length)| *start <= from && to <= start + length);
        if !covered {
            self.window = None;
            let start = align_down(from, BLOCK);
            let length = (block_end(to) - start).max(self.read_size_bytes).min(block_end(self.length_bytes) - start);
            let buffer = self.io.pool().take(length as usize).ok_or(io::ErrorKind::OutOfMemory)?;
            let op = Op::Read { file: self.file.clone(), offset: start, buffer, length_bytes: length as u32 };
            let Outcome::Read { buffer, bytes } = self.io.run(op)? else {
                unreachable!("Read completes with its buffer")
            };
            if to > start + bytes as u64 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.window = Some((start, buffer, bytes as u64));
        }
        let (start, buffer, _) = self.window.as_ref().expect("it was filled above");
        Ok(&buffer[(from - start) as usize..(to - start) as usize])
    }
}
