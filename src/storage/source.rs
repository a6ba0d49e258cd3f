//! Where a read finds bytes, headers and indexes: memory, then what it has read itself, then a submitted operation.
//!
//! Each question is answered at once or with `None`, after an operation has been submitted with the reader's token;
//! the reader asks again when [`Source::take`] has had the completion. Nothing is remembered of the log between two
//! calls, so a log that changed meanwhile is seen as it is.
//!
//! Sealed segments are read through the page cache, which splice shares; a segment that is still written direct is
//! read direct, never through the page cache: a cached page would hold up its writes.

use std::io;
use std::ops::Range;

use crate::base::time::Timestamp;
use crate::base::units::{KIB, align_down};
use crate::io::{Buffer, File, Io, Op, OpenOptions, Outcome, Slice, Token};
use crate::model::batch::{HEADER_SIZE, Header, MAGIC};
use crate::model::id::Offset;
use crate::model::limits::{BLOCK_SIZE_BYTES, ENVELOPE_SIZE_BYTES_MAX};

use super::event::ReadError;
use super::index::{Entry, View};
use super::layout::FileName;
use super::log::Log;
use super::segment::{Index, Segment};
use super::sidecar::Sidecar;
use super::tail_cache::block_end;

/// Bytes that are read to walk over headers: two intervals of the index.
const WINDOW_SIZE_BYTES: u64 = 64 * KIB as u64;

/// A question to an index.
#[derive(Clone, Copy, Debug)]
pub(super) enum Question {
    /// The greatest known start of a batch at or before this offset.
    Offset(Offset),
    /// The greatest known start of a batch above the first position and not above the second.
    Cut(u64, u64),
    /// Where to look for the first batch at or above this time.
    Timestamp(Timestamp),
}

/// An index's answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub position: u64,
    /// The batch at the position begins with the asked offset.
    pub exact: bool,
    /// The base offset of the batch at the position, for a cut.
    pub offset: Option<Offset>,
}

/// What an operation under way is for.
enum Loading {
    Nothing,
    LogFile(Offset),
    SidecarOpen(Offset),
    SidecarLength(Offset, File),
    Sidecar(Offset),
    Window { segment: Offset, position: u64, needed_bytes: usize },
}

/// What a completion came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// Ask again now.
    Done,
    /// Another operation had to follow; ask when it has completed.
    Waiting,
    /// Compaction has replaced segments meanwhile: whatever was found of places is to be found anew.
    Stale,
}

/// Bytes of a segment that were read.
struct Window {
    segment: Offset,
    position: u64,
    bytes: Slice,
}

/// See the module.
pub(super) struct Source {
    token: Token,
    /// Whose bytes these are: the log's own token, which no other log of the shard has.
    log: u64,
    /// How often places in that log's sealed segments had changed when this began.
    swap_count: u32,
    loading: Loading,
    window: Option<Window>,
    file: Option<(Offset, File)>,
    sidecar: Option<(Offset, Sidecar)>,
}

impl Source {
    /// Nothing read yet; operations carry `token`.
    pub fn new(token: Token, log: &Log) -> Source {
        let (of, swap_count) = (log.token_base, log.compaction.swap_count);
        Source { token, log: of, swap_count, loading: Loading::Nothing, window: None, file: None, sidecar: None }
    }

    /// Takes a completion.
    pub fn take(&mut self, io: &mut impl Io, log: &Log, result: io::Result<Outcome>) -> Result<Taken, ReadError> {
        let loading = std::mem::replace(&mut self.loading, Loading::Nothing);
        if log.token_base != self.log {
            // Who asks by a topic's name may come back to another topic of that name.
            return Err(ReadError::Failed("the partition was deleted meanwhile".into()));
        }
        if log.compaction.swap_count != self.swap_count && !log.options.mutants().keep_old_places {
            // What was read, opened or failed is of files that were replaced.
            *self = Source::new(self.token, log);
            return Ok(Taken::Stale);
        }
        let outcome = result.map_err(|error| ReadError::Failed(error.to_string()))?;
        match (loading, outcome) {
            (Loading::LogFile(segment), Outcome::Opened(file)) => {
                // If the segment was freed meanwhile nobody asks for it again, and nobody would forget it.
                if log.segment(segment).is_some() {
                    self.file = Some((segment, log.shared.files.keep_file(log.token_base, segment, file)));
                }
            }
            (Loading::SidecarOpen(segment), Outcome::Opened(file)) => {
                self.loading = Loading::SidecarLength(segment, file.clone());
                io.submit(self.token, Op::Length { file });
                return Ok(Taken::Waiting);
            }
            (Loading::SidecarLength(segment, file), Outcome::Length(length)) => {
                if length > 2 * ENVELOPE_SIZE_BYTES_MAX as u64 {
                    return Err(corrupt(segment, 0, "the sidecar is too long"));
                }
                let buffer = log.shared.pool.take(length as usize).ok_or(ReadError::NoMemory)?;
                self.loading = Loading::Sidecar(segment);
                io.submit(self.token, Op::Read { file, offset: 0, buffer, length_bytes: length as u32 });
                return Ok(Taken::Waiting);
            }
            (Loading::Sidecar(segment), Outcome::Read { buffer, bytes }) => {
                let sidecar = Sidecar::open(buffer.freeze(bytes))
                    .map_err(|_| corrupt(segment, 0, "the sidecar cannot be read"))?;
                if log.segment(segment).is_some() {
                    log.shared.files.keep_sidecar(log.token_base, segment, sidecar.clone());
                    self.sidecar = Some((segment, sidecar));
                }
            }
            (Loading::Window { segment, position, needed_bytes }, Outcome::Read { buffer, bytes }) => {
                if bytes < needed_bytes {
                    return Err(corrupt(segment, position + bytes as u64, "the file ends early"));
                }
                self.window = Some(Window { segment, position, bytes: buffer.freeze(bytes) });
            }
            _ => unreachable!("an operation completes with its own outcome"),
        }
        Ok(Taken::Done)
    }

    /// Asks a segment's index.
    pub fn ask(
        &mut self,
        io: &mut impl Io,
        log: &Log,
        segment: &Segment,
        question: Question,
    ) -> Result<Option<Option<Place>>, ReadError> {
        if let Index::Memory(index) = &segment.index {
            return Ok(Some(answer(index.view(), segment.base_offset, question)));
        }
        let base = segment.base_offset;
        let sidecar = self.sidecar(io, log, base);
        Ok(sidecar.map(|sidecar| answer(sidecar.index(), base, question)))
    }

    /// The sidecar of the segment with this base offset, which has one.
    pub fn sidecar(&mut self, io: &mut impl Io, log: &Log, base: Offset) -> Option<Sidecar> {
        let kept = self.sidecar.as_ref().filter(|(of, _)| *of == base).map(|(_, sidecar)| sidecar.clone());
        let sidecar = kept.or_else(|| log.shared.files.sidecar(log.token_base, base));
        match &sidecar {
            Some(sidecar) => self.sidecar = Some((base, sidecar.clone())),
            None => {
                let path = FileName::Sidecar(base).path(&log.identity.dir);
                self.loading = Loading::SidecarOpen(base);
                io.submit(self.token, Op::Open { path, options: OpenOptions::default() });
            }
        }
        sidecar
    }

    /// The buffered file of a sealed segment.
    pub fn file(&mut self, io: &mut impl Io, log: &Log, segment: &Segment) -> Option<File> {
        let base = segment.base_offset;
        if let Some(file) = &segment.renaming {
            return Some(file.clone());
        }
        let kept = self.file.as_ref().filter(|(of, _)| *of == base).map(|(_, file)| file.clone());
        let file = kept.or_else(|| log.shared.files.file(log.token_base, base));
        match &file {
            Some(file) => self.file = Some((base, file.clone())),
            None => {
                self.loading = Loading::LogFile(base);
                io.submit(
                    self.token,
                    Op::Open { path: segment.path(&log.identity.dir), options: OpenOptions::default() },
                );
            }
        }
        file
    }

    /// The header of the batch at `position`, below `end`.
    pub fn header(
        &mut self,
        io: &mut impl Io,
        log: &Log,
        segment: &Segment,
        position: u64,
        end: u64,
    ) -> Result<Option<Header>, ReadError> {
        let base = segment.base_offset;
        if position + HEADER_SIZE as u64 > end {
            return Err(corrupt(base, position, "a batch ends behind the end"));
        }
        let mut bytes = [0; HEADER_SIZE];
        if !log.tail.peek(base, position, &mut bytes) {
            match self.in_window(base, position, position + HEADER_SIZE as u64) {
                Some(slice) => bytes.copy_from_slice(slice.as_bytes()),
                None => {
                    let window_end = (position + WINDOW_SIZE_BYTES).min(end);
                    self.read(io, log, segment, position..window_end, position + HEADER_SIZE as u64)?;
                    return Ok(None);
                }
            }
        }
        match Header::parse(&bytes) {
            Some(header) if header.magic == MAGIC && position + header.size_bytes as u64 <= end => Ok(Some(header)),
            _ => Err(corrupt(base, position, "no batch header")),
        }
    }

    /// The bytes of `segment` from `from` to `to` out of what was read last, if they are in it.
    pub fn in_window(&self, segment: Offset, from: u64, to: u64) -> Option<Slice> {
        let window = self.window.as_ref().filter(|window| window.segment == segment && window.position <= from)?;
        let range = (from - window.position) as usize..(to - window.position) as usize;
        (range.end <= window.bytes.len()).then(|| window.bytes.slice(range))
    }

    /// Submits a read of a range of bytes, or first the opening of the file. Those up to `needed_to` must be there;
    /// the others may not be written yet.
    pub fn read(
        &mut self,
        io: &mut impl Io,
        log: &Log,
        segment: &Segment,
        range: Range<u64>,
        needed_to: u64,
    ) -> Result<(), ReadError> {
        let Range { start: from, end: to } = range;
        let (file, from, to) = match &segment.direct {
            Some(file) => (file.clone(), align_down(from, BLOCK_SIZE_BYTES as u64), block_end(to)),
            None => match self.file(io, log, segment) {
                Some(file) => (file, from, to),
                None => return Ok(()),
            },
        };
        // What was read before is given back first: a read holds one buffer.
        self.window = None;
        // An eighth is the appenders': readers who do not take what was read for them must not stop producing.
        let pool = &log.shared.pool;
        let size = (to - from) as usize;
        if pool.used_bytes() + size > pool.budget_bytes() / 8 * 7 {
            return Err(ReadError::NoMemory);
        }
        let buffer: Buffer = pool.take(size).ok_or(ReadError::NoMemory)?;
        let needed_bytes = (needed_to - from) as usize;
        self.loading = Loading::Window { segment: segment.base_offset, position: from, needed_bytes };
        io.submit(self.token, Op::Read { file, offset: from, buffer, length_bytes: (to - from) as u32 });
        Ok(())
    }
}

fn answer<E: Entry>(view: View<'_, E>, base: Offset, question: Question) -> Option<Place> {
    match question {
        Question::Offset(offset) => {
            let position = view.floor(offset);
            // Entries ascend strictly: only an entry at this very offset moves the answer.
            let exact = offset == base || position > view.floor(offset.plus(-1));
            Some(Place { position: u64::from(position), exact, offset: None })
        }
        Question::Cut(start, up_to) => {
            let cut = view.cut(start, up_to)?;
            Some(Place { position: u64::from(cut), exact: false, offset: view.offset_at(cut) })
        }
        Question::Timestamp(timestamp) => {
            Some(Place { position: u64::from(view.timestamp_floor(timestamp)), exact: false, offset: None })
        }
    }
}

pub(super) fn corrupt(segment: Offset, position: u64, what: &'static str) -> ReadError {
    ReadError::Corrupt { segment, position, what }
}
