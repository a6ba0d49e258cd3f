//! The least log that an acknowledgement can mean something by: one file that is overwritten round and round, one
//! staging buffer, one direct write in flight while the next gathers.

use std::collections::VecDeque;
use std::path::PathBuf;

use anyhow::{Context, bail, ensure};

use crate::io::{AppendBuffer, File, Io, Op, OpenOptions, Outcome, Pool};
use crate::model::batch;

/// What gathers while a write is in flight.
pub const STAGING_SIZE_BYTES: usize = 2 << 20;
const BLOCK_SIZE_BYTES: usize = 4096;

/// The file and how it is written.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// The file; made if it is not there or not large enough.
    pub path: PathBuf,
    /// Its size; writing begins again at its start.
    pub size_bytes: u64,
    /// Acknowledge when the write is durable (`RWF_DSYNC`), not only when it is done.
    pub sync: bool,
    /// Write its blocks before, so that every write overwrites; else they are only reserved.
    pub written: bool,
}

/// The log.
pub struct Log {
    file: File,
    sync: bool,
    size_bytes: u64,
    buffer: AppendBuffer,
    /// Offset in the file of the buffer's first byte; a multiple of the block.
    base: u64,
    /// Bytes of the buffer that a write has covered already.
    issued_bytes: usize,
    /// Bytes appended in all, and of those the ones that the write in flight covers and that are written.
    total_bytes: u64,
    in_flight_until: Option<u64>,
    durable_bytes: u64,
    /// What is to be answered when so many bytes are written: connection and size of its answer.
    answers: VecDeque<(u64, u32, usize)>,
}

impl Log {
    /// Opens the file and prepares its blocks.
    pub fn open(io: &mut impl Io, options: &LogOptions) -> anyhow::Result<Log> {
        ensure!(
            options.size_bytes >= 8 * STAGING_SIZE_BYTES as u64,
            "the file must have at least {} bytes",
            8 * STAGING_SIZE_BYTES
        );
        let size_bytes = options.size_bytes / BLOCK_SIZE_BYTES as u64 * BLOCK_SIZE_BYTES as u64;
        let open = OpenOptions { write: true, create: true, direct: true, ..OpenOptions::default() };
        let what = || format!("preparing {}", options.path.display());
        let Outcome::Opened(file) =
            io.run(Op::Open { path: options.path.clone(), options: open }).with_context(what)?
        else {
            bail!("an open that did something else");
        };
        let Outcome::Length(length) = io.run(Op::Length { file: file.clone() })? else { bail!("no length") };
        if options.written && length < size_bytes {
            let zeros = Op::WriteZeros { file: file.clone(), offset: 0, length_bytes: size_bytes };
            io.run(zeros).with_context(what)?;
        } else if !options.written {
            // Unwritten extents, also where an earlier run has written.
            io.run(Op::Truncate { file: file.clone(), length_bytes: 0 }).with_context(what)?;
            io.run(Op::Allocate { file: file.clone(), offset: 0, length_bytes: size_bytes }).with_context(what)?;
            io.run(Op::Sync { file: file.clone() }).with_context(what)?;
        }
        let buffer = staging(io.pool())?;
        Ok(Log {
            file,
            sync: options.sync,
            size_bytes,
            buffer,
            base: 0,
            issued_bytes: 0,
            total_bytes: 0,
            in_flight_until: None,
            durable_bytes: 0,
            answers: VecDeque::new(),
        })
    }

    /// True if so many bytes can be appended now.
    pub fn has_room(&self, size_bytes: usize) -> bool {
        self.buffer.room() >= size_bytes + BLOCK_SIZE_BYTES
    }

    /// Checks a batch and stages it.
    #[inline]
    pub fn append(&mut self, bytes: &[u8]) {
        std::hint::black_box(batch::crc_of(bytes));
        self.buffer.append(bytes);
        self.total_bytes += bytes.len() as u64;
    }

    /// An answer of this size waits for all that was appended so far.
    pub fn answer_when_written(&mut self, connection: u32, size_bytes: usize) {
        self.answers.push_back((self.total_bytes, connection, size_bytes));
    }

    /// The next write, if there is something to write and none is in flight. The unfinished last block is carried
    /// over, so that no block changes while it is being written.
    pub fn next_write(&mut self, pool: &Pool) -> Option<Op> {
        let length = self.buffer.len();
        if self.in_flight_until.is_some() || length == self.issued_bytes {
            return None;
        }
        let next = pool.take_append(STAGING_SIZE_BYTES)?;
        let padded = self.buffer.pad(BLOCK_SIZE_BYTES);
        let slice = self.buffer.slice_padded(0..padded);
        let whole = length / BLOCK_SIZE_BYTES * BLOCK_SIZE_BYTES;
        next.append(self.buffer.slice(whole..length).as_bytes());
        let write = Op::Write { file: self.file.clone(), offset: self.base, slice, sync: self.sync };
        self.base += whole as u64;
        if self.base + 2 * STAGING_SIZE_BYTES as u64 > self.size_bytes {
            self.base = 0;
        }
        (self.buffer, self.issued_bytes) = (next, length - whole);
        self.in_flight_until = Some(self.total_bytes);
        Some(write)
    }

    /// The write in flight is done. Calls `answer` with each connection whose answer may go out and its size.
    pub fn written(&mut self, mut answer: impl FnMut(u32, usize)) {
        self.durable_bytes = self.in_flight_until.take().expect("a write was in flight");
        while let Some((until, connection, size_bytes)) = self.answers.front().copied() {
            if until > self.durable_bytes {
                break;
            }
            self.answers.pop_front();
            answer(connection, size_bytes);
        }
    }
}

fn staging(pool: &Pool) -> anyhow::Result<AppendBuffer> {
    pool.take_append(STAGING_SIZE_BYTES).context("memory for a staging buffer")
}
