//! Reads as tasks of their own: from an offset to ranges that a response is made of.
//!
//! 1. The batch that holds the offset is found: a remembered place (sequential readers hit it), an index entry, else
//!    a walk over headers.
//! 2. The end is found: the segment's end or what may be read, if that is within the limit; else an index entry,
//!    which is a place where the next fetch begins without a search; else a walk over headers. Ranges hold whole
//!    batches, at least one, which may be larger than the limit.
//! 3. What is in the tail is handed out as slices. Of the rest, a large range of a sealed segment is handed out as a
//!    file range (splice), a small one is read through the page cache, and a segment that is still written is read
//!    direct.
//!
//! A task holds clones of the files it uses, which pin them. It belongs to the owner, with a token of the owner's
//! choice: the log knows nothing of it between `start` and `resume`.
//!
//! Invariants: nothing above the asked bound is read; a plan stays within one segment. A read from memory allocates
//! the plan's list and nothing per batch.

use std::io;

use crate::base::units::MIB;
use crate::io::{File, Io, Outcome, Slice, Token};
use crate::model::batch::{HEADER_SIZE, Header};
use crate::model::id::Offset;

use super::aborted::AbortedWalk;
use super::event::{Boundary, ReadError};
use super::log::Log;
use super::segment::{Index, Segment};
use super::sidecar::AbortedTransaction;
use super::source::{Question, Source, Taken, corrupt};

/// What is read at once into memory. Larger only for a larger batch.
const READ_SIZE_BYTES_MAX: u64 = MIB as u64;
const HINT_COUNT: usize = 4;

/// How far a read may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpTo {
    /// Consumers of committed records: what is acknowledged and decided.
    LastStable,
    /// Consumers: what is acknowledged.
    HighWatermark,
    /// Replicas and the broker itself: what was appended.
    LogEnd,
}

/// What to read.
#[derive(Clone, Copy, Debug)]
pub struct ReadRequest {
    /// The first wanted offset; the batch that holds it is returned whole.
    pub offset: Offset,
    /// The most to return, but for the first batch.
    pub size_bytes_max: u32,
    /// The first batch is returned even if it is larger than the limit.
    pub min_one_batch: bool,
    /// How far to read.
    pub up_to: UpTo,
}

/// A run of bytes of a response.
#[derive(Clone, Debug)]
pub enum Range {
    /// In memory.
    Memory(Slice),
    /// In a sealed file, to be spliced. The handle pins the file.
    File {
        /// Open for buffered reading.
        file: File,
        /// Where the range starts.
        position: u64,
        /// Its length.
        length_bytes: u32,
    },
}

/// Where the bytes of a plan came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathBytes {
    /// From the tail cache.
    pub tail: u64,
    /// As file ranges.
    pub splice: u64,
    /// Read direct from a segment that is being written.
    pub direct: u64,
    /// Read from a sealed segment through the page cache.
    pub copy: u64,
}

/// Whole batches in order.
#[derive(Clone, Debug, Default)]
pub struct ReadPlan {
    /// The bytes.
    pub ranges: Vec<Range>,
    /// How many they are.
    pub size_bytes: u64,
    /// Offset behind the last batch, where it is known without looking.
    pub next_offset: Option<Offset>,
    /// For readers of committed records: the aborted transactions that overlap the batches, and perhaps later ones.
    pub aborted: Vec<AbortedTransaction>,
    /// Where they came from.
    pub paths: PathBytes,
}

/// Where a read begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadSource {
    /// In memory.
    Memory,
    /// In the file of a sealed segment.
    Sealed,
    /// In the file of a segment that is still written.
    Active,
}

/// How a read stands.
#[allow(clippy::large_enum_variant)] // the task moves into the owner's slab; a box would be one more allocation
pub enum ReadStep {
    /// Done. An empty plan: there is nothing at the offset yet, or not even one batch fits the limit.
    Ready(ReadPlan),
    /// An operation is under way; `resume` with its completion.
    Pending(ReadTask),
    /// Failed.
    Failed(ReadError),
}

/// Places between batches that readers will come back to.
#[derive(Default)]
pub(super) struct Hints {
    places: [Boundary; HINT_COUNT],
    next: usize,
}

impl Hints {
    pub fn find(&self, offset: Offset) -> Option<Boundary> {
        self.places.iter().find(|place| place.offset == offset && place.position > 0).copied()
    }

    pub fn keep(&mut self, from: Offset, place: Boundary) {
        // A reader moves its own hint on; a new one replaces the oldest.
        let own = self.places.iter().position(|kept| kept.offset == from || kept.offset == place.offset);
        let at = own.unwrap_or_else(|| {
            self.next = (self.next + 1) % HINT_COUNT;
            self.next
        });
        self.places[at] = place;
    }
}

/// A read under way.
pub struct ReadTask {
    source: Source,
    request: ReadRequest,
    /// The segment and position of the batch that holds the offset, once found.
    start: Option<Boundary>,
    /// Where a walk over headers has come to.
    walk: Option<(Offset, u64)>,
    /// Where the range ends, once found, and the offset there if it is known.
    end: Option<(u64, Option<Offset>)>,
    /// What the tail held when the rest was submitted to be read.
    rest: Option<(u64, Vec<Slice>)>,
    /// The base offset of the batch where the range was cut: nothing of it is read.
    cut: Option<Offset>,
    /// The search for aborted transactions, once it was begun.
    aborted: Option<AbortedWalk>,
}

impl Log {
    /// Starts a read. Operations it needs carry `token`, which is not one of the log's own.
    pub fn read(&mut self, io: &mut impl Io, token: Token, request: ReadRequest) -> ReadStep {
        let source = Source::new(token, self);
        let task =
            ReadTask { source, request, start: None, walk: None, end: None, rest: None, cut: None, aborted: None };
        task.go_on(io, self)
    }

    /// About how many bytes a read from `offset` would find: what a fetch that waits for
    /// more compares. Exact where the log ends; else an index entry before the offset counts from there, and a
    /// sealed segment as a whole.
    pub fn readable_bytes(&self, offset: Offset, up_to: UpTo) -> u64 {
        let bound = self.read_bound(up_to);
        if offset >= bound.offset || offset < self.log_start {
            return 0;
        }
        let Some((segment, end)) = self.segment_for(offset, bound) else { return 0 };
        let start = match (&segment.index, self.hints.find(offset)) {
            (_, Some(place)) if place.segment == segment.base_offset => place.position,
            (Index::Memory(index), _) => u64::from(index.view().floor(offset)),
            _ => 0,
        };
        let later =
            self.segments.iter().filter(|s| s.base_offset > segment.base_offset && s.base_offset < bound.offset);
        let later: u64 =
            later.map(|s| if s.base_offset == bound.segment { bound.position } else { s.size_bytes }).sum();
        end.position.saturating_sub(start) + later
    }

    /// Where a read from `offset` up to the high watermark would begin. Exact where readers go on from one read to the
    /// next; else it may be a file although the batch is among the oldest in memory.
    pub fn source_of(&self, offset: Offset) -> ReadSource {
        if offset >= self.high_watermark.offset {
            return ReadSource::Memory;
        }
        let Some((segment, _)) = self.segment_for(offset, self.high_watermark) else { return ReadSource::Memory };
        let position = match (&segment.index, self.hints.find(offset)) {
            (_, Some(place)) if place.segment == segment.base_offset => place.position,
            (Index::Memory(index), _) => u64::from(index.view().floor(offset)),
            (Index::Sidecar, _) => 0,
        };
        match segment.is_sealed() {
            _ if self.tail.holds(segment.base_offset, position) => ReadSource::Memory,
            true => ReadSource::Sealed,
            false => ReadSource::Active,
        }
    }

    /// True if an offset of the segment may be in no batch, because compaction has removed it.
    pub(super) fn may_have_gaps(&self, segment: &Segment) -> bool {
        self.compaction.has_gaps && segment.is_sealed() && !self.options.mutants().forget_gaps
    }

    /// The place that a read of this kind may not pass.
    pub(super) fn read_bound(&self, up_to: UpTo) -> Boundary {
        match up_to {
            UpTo::LastStable => self.last_stable(),
            UpTo::HighWatermark => self.high_watermark,
            UpTo::LogEnd => self.end,
        }
    }

    /// The segment that holds `offset`, and where its readable bytes end.
    pub(super) fn segment_for(&self, offset: Offset, bound: Boundary) -> Option<(&Segment, Boundary)> {
        let at = self.segments.partition_point(|segment| segment.base_offset <= offset).checked_sub(1)?;
        let segment = &self.segments[at];
        let own_end =
            Boundary { segment: segment.base_offset, position: segment.size_bytes, offset: segment.next_offset };
        Some((segment, if bound.segment == segment.base_offset { bound } else { own_end }))
    }

    /// Refuses reads of an offline log and of offsets outside.
    pub(super) fn check_readable(&self, offset: Offset, bound: Boundary) -> Result<(), ReadError> {
        if let Some(cause) = &self.offline {
            return Err(ReadError::Offline(cause.clone()));
        }
        if offset < self.log_start || offset > bound.offset {
            return Err(ReadError::OffsetOutOfRange { offset, start: self.log_start, end: bound.offset });
        }
        Ok(())
    }
}

impl ReadTask {
    /// Goes on with the completion of the operation under way.
    pub fn resume(mut self, io: &mut impl Io, log: &mut Log, result: io::Result<Outcome>) -> ReadStep {
        match self.source.take(io, log, result) {
            Ok(Taken::Done) => self.go_on(io, log),
            Ok(Taken::Waiting) => ReadStep::Pending(self),
            Ok(Taken::Stale) => {
                (self.start, self.walk, self.end, self.rest) = (None, None, None, None);
                (self.cut, self.aborted) = (None, None);
                self.go_on(io, log)
            }
            Err(ReadError::Failed(error)) => {
                // The file may be gone because its segment is.
                let out_of_range = log.check_readable(self.request.offset, log.read_bound(self.request.up_to)).err();
                ReadStep::Failed(out_of_range.unwrap_or(ReadError::Failed(error)))
            }
            Err(error) => ReadStep::Failed(error),
        }
    }

    fn go_on(mut self, io: &mut impl Io, log: &mut Log) -> ReadStep {
        match self.plan(io, log) {
            Ok(Some(plan)) => {
                if let (Some(start), Some((position, Some(offset)))) = (self.start, self.end) {
                    log.hints.keep(self.request.offset, Boundary { segment: start.segment, position, offset });
                }
                ReadStep::Ready(plan)
            }
            Ok(None) => ReadStep::Pending(self),
            Err(error) => ReadStep::Failed(error),
        }
    }

    /// The plan, or `None` after an operation has been submitted.
    fn plan(&mut self, io: &mut impl Io, log: &Log) -> Result<Option<ReadPlan>, ReadError> {
        let bound = log.read_bound(self.request.up_to);
        log.check_readable(self.request.offset, bound)?;
        if self.request.offset == bound.offset {
            return Ok(Some(ReadPlan { next_offset: Some(bound.offset), ..ReadPlan::default() }));
        }
        let Some((segment, limit)) = log.segment_for(self.request.offset, bound) else {
            return Err(corrupt(bound.segment, 0, "no segment holds the offset"));
        };
        let Some(start) = self.find_start(io, log, segment, limit)? else { return Ok(None) };
        let Some(end) = self.find_end(io, log, segment, start, limit)? else { return Ok(None) };
        if end == start.position {
            return Ok(Some(ReadPlan::default()));
        }
        if self.request.up_to == UpTo::LastStable && !self.find_aborted(io, log, limit.offset)? {
            return Ok(None);
        }
        let mut plan = self.fill(io, log, segment, start.position, end)?;
        if let Some(plan) = &mut plan
            && let Some(walk) = self.aborted.take()
        {
            plan.aborted = walk.found;
        }
        Ok(plan)
    }

    /// Looks for the aborted transactions that overlap what is read; false if an operation was submitted.
    fn find_aborted(&mut self, io: &mut impl Io, log: &Log, limit: Offset) -> Result<bool, ReadError> {
        let mut walk = match self.aborted.take() {
            Some(walk) => walk,
            None => {
                let end = self.end.and_then(|(_, offset)| offset).or(self.cut).unwrap_or(limit);
                AbortedWalk::new(self.request.offset, end)
            }
        };
        let is_done = walk.go_on(&mut self.source, io, log)?;
        self.aborted = Some(walk);
        Ok(is_done)
    }

    fn find_start(
        &mut self,
        io: &mut impl Io,
        log: &Log,
        segment: &Segment,
        limit: Boundary,
    ) -> Result<Option<Boundary>, ReadError> {
        if let Some(start) = self.start {
            return Ok(Some(start));
        }
        let (base, offset) = (segment.base_offset, self.request.offset);
        if self.walk.is_none() {
            if let Some(hint) = log.hints.find(offset).filter(|hint| hint.segment == base) {
                self.start = Some(hint);
                return Ok(self.start);
            }
            let place = self.source.ask(io, log, segment, Question::Offset(offset))?;
            let Some(place) = place else { return Ok(None) };
            let place = place.expect("an index knows the segment's start");
            if place.exact {
                self.start = Some(Boundary { segment: base, position: place.position, offset });
                return Ok(self.start);
            }
            self.walk = Some((base, place.position));
        }
        loop {
            let (_, position) = self.walk.expect("it was begun above");
            let Some(header) = self.source.header(io, log, segment, position, limit.position)? else {
                return Ok(None);
            };
            if header.base_offset > offset && !log.may_have_gaps(segment) {
                return Err(corrupt(base, position, "the batch that holds an offset is missing"));
            }
            if header.next_offset() > offset {
                self.walk = None;
                self.start = Some(Boundary { segment: base, position, offset: header.base_offset });
                return Ok(self.start);
            }
            self.walk = Some((base, position + header.size_bytes as u64));
        }
    }

    /// Where the range ends; the start if not even one batch fits.
    fn find_end(
        &mut self,
        io: &mut impl Io,
        log: &Log,
        segment: &Segment,
        start: Boundary,
        limit: Boundary,
    ) -> Result<Option<u64>, ReadError> {
        if let Some((end, _)) = self.end {
            return Ok(Some(end));
        }
        let mut size_max = u64::from(self.request.size_bytes_max);
        let in_memory = log.tail.holds(segment.base_offset, start.position);
        if !in_memory && !segment.is_sealed() {
            size_max = size_max.min(READ_SIZE_BYTES_MAX);
        }
        if start.position + size_max >= limit.position {
            self.end = Some((limit.position, Some(limit.offset)));
            return Ok(Some(limit.position));
        }
        if self.walk.is_none() {
            let question = Question::Cut(start.position, start.position + size_max);
            let Some(cut) = self.source.ask(io, log, segment, question)? else { return Ok(None) };
            if let Some(cut) = cut {
                self.end = Some((cut.position, None));
                self.cut = cut.offset;
                return Ok(Some(cut.position));
            }
            self.walk = Some((segment.base_offset, start.position));
        }
        loop {
            let (_, position) = self.walk.expect("it was begun above");
            // It ends at the limit at the latest, because the range up to there is too large.
            let Some(header) = self.source.header(io, log, segment, position, limit.position)? else {
                return Ok(None);
            };
            let end = position + header.size_bytes as u64;
            let first = position == start.position;
            if end - start.position > size_max && !(first && self.request.min_one_batch) {
                self.end = Some((position, Some(header.base_offset)));
                return Ok(Some(position));
            }
            if end - start.position >= size_max || end >= limit.position {
                self.end = Some((end, Some(header.next_offset())));
                return Ok(Some(end));
            }
            self.walk = Some((segment.base_offset, end));
        }
    }

    fn fill(
        &mut self,
        io: &mut impl Io,
        log: &Log,
        segment: &Segment,
        start: u64,
        end: u64,
    ) -> Result<Option<ReadPlan>, ReadError> {
        let base = segment.base_offset;
        let mut plan = ReadPlan {
            size_bytes: end - start,
            next_offset: self.end.and_then(|(_, offset)| offset),
            ..ReadPlan::default()
        };
        let (from, slices) = match self.rest.take() {
            Some(rest) => rest,
            None => {
                let mut slices = Vec::new();
                (log.tail.slices(base, start, end, &mut slices), slices)
            }
        };
        let missing = from - start;
        if missing > 0 && segment.is_sealed() && missing >= u64::from(log.options.splice_size_bytes_min) {
            let Some(file) = self.source.file(io, log, segment) else {
                self.rest = Some((from, slices));
                return Ok(None);
            };
            plan.ranges.push(Range::File { file, position: start, length_bytes: missing as u32 });
            plan.paths.splice = missing;
        } else if missing > 0 {
            let Some(bytes) = self.source.in_window(base, start, from) else {
                self.rest = Some((from, slices));
                self.source.read(io, log, segment, start..from, from)?;
                return Ok(None);
            };
            check_first(bytes.as_bytes(), base, start, self.request.offset, log.may_have_gaps(segment))?;
            match segment.is_sealed() {
                true => plan.paths.copy = missing,
                false => plan.paths.direct = missing,
            }
            plan.ranges.push(Range::Memory(bytes));
        }
        plan.paths.tail = end - from;
        plan.ranges.extend(slices.into_iter().map(Range::Memory));
        Ok(Some(plan))
    }
}

/// What was read is looked at before it goes out: it must begin with the batch that holds the offset, or with the next
/// one where compaction may have removed that.
fn check_first(
    bytes: &[u8],
    segment: Offset,
    position: u64,
    offset: Offset,
    may_have_gaps: bool,
) -> Result<(), ReadError> {
    if bytes.len() < HEADER_SIZE {
        // The tail holds the rest of the header, and is what was written.
        return Ok(());
    }
    match Header::parse(bytes) {
        Some(header) if (header.base_offset <= offset || may_have_gaps) && offset < header.next_offset() => Ok(()),
        _ => Err(corrupt(segment, position, "the batch that holds an offset is missing")),
    }
}
