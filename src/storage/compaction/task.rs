//! One compaction of one log, step by step.
//!
//! 0. **Find**: the transactions that were aborted are looked up, in memory and sidecars.
//! 1. **Map**: the dirty segments are read and each key's last offset is noted, until the map is full or the end is
//!    reached.
//! 2. **Clean**: every segment up to there, clean ones too, is read, filtered and written, in groups that become one
//!    segment each. A single segment of which nothing goes is left as it is.
//! 3. **Swap**: see [`super::swap`]. Then the next group.
//! 4. The cleaner offset moves to the end of what was mapped.
//!
//! [`CleanTask::go_on`] looks at a bounded number of bytes and submits at most one operation; its outcome comes through
//! [`CleanTask::take`]. The log may change between two calls in any way: segments that are gone end the compaction,
//! and nothing is lost by that but work.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;

use crate::base::coverage;
use crate::base::time::Timestamp;
use crate::io::{Io, Op, Outcome, Token};
use crate::model::batch::Header;
use crate::model::id::{Offset, ProducerId};
use crate::model::limits::{COMPACTION_ABORTED_COUNT_MAX, COMPACTION_STEP_SIZE_BYTES};
use crate::model::records::RecordError;
use crate::storage::aborted::AbortedWalk;
use crate::storage::event::ReadError;
use crate::storage::layout::FileName;
use crate::storage::log::Log;
use crate::storage::sidecar::AbortedTransaction;
use crate::storage::source::{Source, Taken};

use super::cleaner::CleanerOptions;
use super::filter::{AbortedRanges, Fate, Filter, Unended};
use super::input::{Found, Input};
use super::map::{KeyHasher, OffsetMap};
use super::output::{Did, Output, Wants};
use super::plan::{CompactionPolicy, Dirtiness};

/// Decompressing and compressing costs about so many times what copying does.
const COMPRESSED_COST: u64 = 8;

/// Why a compaction ended early. The log is what it was before, or partly compacted.
#[derive(Debug, thiserror::Error)]
pub enum CompactError {
    /// Stored bytes are not what was written: the log is not compacted again before the next start.
    #[error("corrupt at position {position} of segment {segment}: {what}")]
    Corrupt {
        /// Base offset of the segment.
        segment: Offset,
        /// Where in it.
        position: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// A batch is sound, its records are not; as above.
    #[error("the records of a batch in segment {segment} cannot be read: {error}")]
    Records {
        /// Base offset of the segment.
        segment: Offset,
        /// What is wrong.
        error: RecordError,
    },
    /// A batch is larger than the memory that compaction may take; as above.
    #[error("the batch at position {position} of segment {segment} is larger than the memory for it")]
    TooLarge {
        /// Base offset of the segment.
        segment: Offset,
        /// Where in it.
        position: u64,
    },
    /// The system refused an operation, perhaps for want of space.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Segments went away meanwhile, or the log did.
    #[error("the segments are gone")]
    Gone,
}

/// What a compaction has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompactionStats {
    /// Bytes read, both passes together.
    pub read_bytes: u64,
    /// Bytes of batches written.
    pub written_bytes: u64,
    /// Segments that were replaced.
    pub replaced_count: u64,
    /// Segments that took their places.
    pub new_count: u64,
    /// Keys in the map.
    pub key_count: usize,
}

/// How a compaction stands.
#[derive(Debug)]
pub enum CleanStep {
    /// An operation is under way.
    Waiting,
    /// The step's share of work is done; go on when others have had their turn.
    Paused,
    /// Memory is short or a swap is under way: go on a little later.
    Blocked,
    /// Done.
    Done(CompactionStats),
    /// Ended early. [`CleanTask::leftover`] may be to be removed.
    Failed(CompactError),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Find,
    Map,
    Clean,
    /// Removing an output in which nothing has changed.
    Discard,
    /// Waiting for a swap; the log's count of swaps before it.
    Swap(u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    Nothing,
    Find,
    Input,
    Output(Did),
    Remove,
}

/// See the module.
pub struct CleanTask {
    token: Token,
    log: u64,
    dirtiness: Dirtiness,
    filter: Filter,
    phase: Phase,
    doing: Doing,
    input: Option<Input>,
    output: Option<Output>,
    groups: VecDeque<(Offset, Offset, usize)>,
    /// The search for aborted transactions, and the outcome of its operation.
    search: (Source, AbortedWalk),
    searched: Option<io::Result<Outcome>>,
    stats: CompactionStats,
    /// Bytes of reads and writes that the pace has not counted yet.
    io_bytes: u64,
    forgets_last_header: bool,
}

impl CleanTask {
    /// A compaction of what `dirtiness` tells, with a map as `options` allow it. Operations carry `token`.
    pub fn new(
        log: &Log,
        token: Token,
        dirtiness: Dirtiness,
        policy: &CompactionPolicy,
        hasher: KeyHasher,
        options: &CleanerOptions,
        now: Timestamp,
    ) -> CleanTask {
        let key_count_max = (dirtiness.end.0 - dirtiness.first_dirty.0).max(1) as u64;
        let filter = Filter {
            map: OffsetMap::new(options.map_size_bytes, options.load_factor, key_count_max),
            hasher,
            aborted: AbortedRanges::default(),
            unended: Unended::default(),
            mapped_end: dirtiness.first_dirty,
            now,
            delete_retention_ms: policy.delete_retention_ms,
            mutants: log.options.mutants(),
        };
        CleanTask {
            token,
            log: log.token_base,
            dirtiness,
            filter,
            phase: Phase::Find,
            search: (Source::new(token, log), AbortedWalk::new(log.log_start, dirtiness.end)),
            searched: None,
            doing: Doing::Nothing,
            input: None,
            output: None,
            groups: VecDeque::new(),
            stats: CompactionStats::default(),
            io_bytes: 0,
            forgets_last_header: log.options.mutants().forget_last_header,
        }
    }

    /// Whose log this compacts: its token.
    pub fn log(&self) -> u64 {
        self.log
    }

    /// Bytes of reads and writes submitted since the last call.
    pub fn take_io_bytes(&mut self) -> u64 {
        std::mem::take(&mut self.io_bytes)
    }

    /// A file that an ended compaction has left.
    pub fn leftover(&self) -> Option<PathBuf> {
        self.output.as_ref().filter(|output| output.has_file()).map(|output| output.path().clone())
    }

    /// Takes the outcome of the operation under way.
    ///
    /// # Errors
    /// The compaction has ended: an operation failed, or the file is not what it must be.
    pub fn take(&mut self, result: io::Result<Outcome>) -> Result<(), CompactError> {
        let doing = std::mem::replace(&mut self.doing, Doing::Nothing);
        match (doing, result) {
            (Doing::Input | Doing::Output(_), Err(error)) if error.kind() == io::ErrorKind::NotFound => {
                return Err(CompactError::Gone);
            }
            (Doing::Find, result) => self.searched = Some(result),
            (Doing::Input, result) => self.input.as_mut().expect("it is being read").take(result?)?,
            (Doing::Output(did), result) => self.output.as_mut().expect("it is being written").take(did, result?),
            (Doing::Remove, Err(error)) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            (Doing::Remove, _) => {
                self.output = None;
                self.phase = Phase::Clean;
            }
            (Doing::Nothing, _) => unreachable!("nothing was submitted"),
        }
        Ok(())
    }

    /// Goes on. Not to be called while an operation is under way.
    pub fn go_on(&mut self, io: &mut impl Io, log: &mut Log) -> CleanStep {
        debug_assert!(self.doing == Doing::Nothing && log.token_base == self.log);
        let mut work = 0;
        let result = loop {
            if work >= COMPACTION_STEP_SIZE_BYTES as u64 {
                break Ok(CleanStep::Paused);
            }
            let step = match self.phase {
                Phase::Find => self.find_aborted(io, log),
                Phase::Map => self.map(io, log, &mut work),
                Phase::Clean => self.clean(io, log, &mut work),
                Phase::Discard => self.discard(io),
                Phase::Swap(before) => self.wait_for_swap(log, before),
            };
            match step {
                Ok(None) => {}
                Ok(Some(step)) => break Ok(step),
                Err(error) => break Err(error),
            }
        };
        log.compaction.reading = self.input.as_ref().map(|input| input.base);
        match result {
            Ok(step) => step,
            Err(error) => {
                log.compaction.reading = None;
                CleanStep::Failed(error)
            }
        }
    }

    fn find_aborted(&mut self, io: &mut impl Io, log: &mut Log) -> Result<Option<CleanStep>, CompactError> {
        let (source, walk) = &mut self.search;
        // A sidecar that cannot be opened may be that of a segment that is gone.
        let failed = |error: ReadError| match error {
            ReadError::Failed(_) => CompactError::Gone,
            error => CompactError::Io(io::Error::other(error.to_string())),
        };
        if let Some(result) = self.searched.take() {
            match source.take(io, log, result).map_err(failed)? {
                Taken::Done => {}
                Taken::Waiting => {
                    self.doing = Doing::Find;
                    return Ok(Some(CleanStep::Waiting));
                }
                Taken::Stale => return Err(CompactError::Gone),
            }
        }
        if !walk.go_on(source, io, log).map_err(failed)? {
            self.doing = Doing::Find;
            return Ok(Some(CleanStep::Waiting));
        }
        if walk.found.len() > COMPACTION_ABORTED_COUNT_MAX {
            return Err(CompactError::Io(io::Error::other("more transactions were aborted than fit into memory")));
        }
        self.filter.aborted = AbortedRanges::new(&walk.found);
        self.phase = Phase::Map;
        Ok(None)
    }

    fn map(&mut self, io: &mut impl Io, log: &mut Log, work: &mut u64) -> Result<Option<CleanStep>, CompactError> {
        let Some(input) = &mut self.input else {
            let next = log.segments.iter().find(|segment| segment.next_offset > self.filter.mapped_end);
            let next = next.filter(|segment| segment.base_offset < self.dirtiness.end);
            match next {
                Some(segment) if segment.base_offset > self.filter.mapped_end.max(log.log_start) => {
                    return Err(CompactError::Gone);
                }
                Some(segment) => {
                    self.input = Some(Input::new(log, segment));
                }
                None => self.begin_cleaning(log),
            }
            return Ok(None);
        };
        match input.batch(io.pool())? {
            Found::Needs(op) => Ok(Some(self.submit(io, Doing::Input, op))),
            Found::NoMemory => Ok(Some(CleanStep::Blocked)),
            Found::Batch(header, bytes) => {
                *work += cost(&header);
                let segment = input.base;
                let broken = |error| CompactError::Records { segment, error };
                let from = self.dirtiness.first_dirty;
                if !self.filter.map_batch(&header, bytes.as_bytes(), from).map_err(broken)? {
                    coverage::hit("compaction: the map is full");
                    self.begin_cleaning(log);
                }
                Ok(None)
            }
            Found::End => {
                let segment = log.segment(input.base).ok_or(CompactError::Gone)?;
                self.filter.mapped_end = self.filter.mapped_end.max(segment.next_offset);
                self.input = None;
                Ok(None)
            }
        }
    }

    fn begin_cleaning(&mut self, log: &Log) {
        self.input = None;
        self.stats.key_count = self.filter.map.len();
        self.groups = log.compaction_groups(self.filter.mapped_end).into();
        self.phase = Phase::Clean;
    }

    fn clean(&mut self, io: &mut impl Io, log: &mut Log, work: &mut u64) -> Result<Option<CleanStep>, CompactError> {
        let Some(output) = &mut self.output else {
            let Some((base, next, count)) = self.groups.pop_front() else {
                log.set_cleaner_offset(io, self.filter.mapped_end);
                return Ok(Some(CleanStep::Done(self.stats)));
            };
            if log.segment(base).is_none() || log.segment(next).is_none() {
                return Err(CompactError::Gone);
            }
            let path = log.identity.dir.join(format!("{}.new", FileName::Segment(base)));
            let skips_sync = log.options.mutants().swap_before_sync;
            let interval = log.options.index_interval_size_bytes;
            self.output = Some(Output::new(base, next, count, path, interval, skips_sync));
            return Ok(None);
        };
        let pool = io.pool();
        let wanted = match &self.input {
            Some(_) => output.wants(pool),
            None => match output.next_input() {
                Some(base) => {
                    let segment = log.segment(base).ok_or(CompactError::Gone)?;
                    self.input = Some(Input::new(log, segment));
                    output.wants(pool)
                }
                None => match output.wants_ending(pool) {
                    Wants::Nothing => return self.end_output(io, log),
                    wanted => wanted,
                },
            },
        };
        match wanted {
            Wants::Needs(op) => {
                let did = Doing::Output(Did::of(&op));
                return Ok(Some(self.submit(io, did, op)));
            }
            Wants::NoMemory => return Ok(Some(CleanStep::Blocked)),
            Wants::Nothing => {}
        }
        let Some(input) = &mut self.input else { return Ok(None) };
        match input.batch(pool)? {
            Found::Needs(op) => Ok(Some(self.submit(io, Doing::Input, op))),
            Found::NoMemory => Ok(Some(CleanStep::Blocked)),
            Found::Batch(header, bytes) => {
                *work += cost(&header);
                let segment = input.base;
                let is_last = header.next_offset() == output.next && !self.forgets_last_header;
                let needs_header = is_last || is_last_of_producer(log, &header);
                let fate = self.filter.fate(&header, bytes.as_bytes(), needs_header);
                match fate.map_err(|error| CompactError::Records { segment, error })? {
                    Fate::Stays => output.append(&header, bytes.as_bytes()),
                    Fate::Becomes(bytes) => {
                        output.is_changed = true;
                        output.append(&Header::parse(&bytes).expect("it was just made"), &bytes);
                    }
                    Fate::Goes => output.is_changed = true,
                }
                Ok(None)
            }
            Found::End => {
                let next = log.segment(input.base).ok_or(CompactError::Gone)?.next_offset;
                output.has_read(next);
                self.input = None;
                Ok(None)
            }
        }
    }

    fn end_output(&mut self, io: &mut impl Io, log: &mut Log) -> Result<Option<CleanStep>, CompactError> {
        let Some(output) = &mut self.output else { return Ok(None) };
        if !output.is_changed {
            self.phase = Phase::Discard;
            return Ok(None);
        }
        self.stats.replaced_count += output.replaces_count as u64;
        self.stats.new_count += 1;
        self.stats.written_bytes += output.size_bytes();
        let before = log.compaction.swap_count;
        // It is removed by name if the log refuses it.
        let mut new = output.segment();
        // What was mapped holds no records of aborted transactions any more.
        let (from, to) = (new.base_offset.max(self.filter.mapped_end), new.next_offset);
        let is_left = |entry: &&AbortedTransaction| (from.0..to.0).contains(&entry.last_offset);
        new.aborted = self.search.1.found.iter().filter(is_left).copied().collect();
        if !log.swap_segments(io, new) {
            return Err(CompactError::Gone);
        }
        self.phase = Phase::Swap(before);
        Ok(None)
    }

    fn discard(&mut self, io: &mut impl Io) -> Result<Option<CleanStep>, CompactError> {
        let output = self.output.as_mut().expect("it is what is discarded");
        output.close();
        let path = output.path().clone();
        Ok(Some(self.submit(io, Doing::Remove, Op::Remove { path })))
    }

    fn wait_for_swap(&mut self, log: &Log, before: u32) -> Result<Option<CleanStep>, CompactError> {
        if log.is_swapping() {
            return Ok(Some(CleanStep::Blocked));
        }
        if log.compaction.swap_count == before {
            return Err(CompactError::Io(io::Error::other("the new segment could not be renamed")));
        }
        self.output = None;
        self.phase = Phase::Clean;
        Ok(None)
    }

    fn submit(&mut self, io: &mut impl Io, doing: Doing, op: Op) -> CleanStep {
        match &op {
            Op::Read { length_bytes, .. } => {
                self.io_bytes += u64::from(*length_bytes);
                self.stats.read_bytes += u64::from(*length_bytes);
            }
            Op::Write { slice, .. } => self.io_bytes += slice.len() as u64,
            _ => {}
        }
        self.doing = doing;
        io.submit(self.token, op);
        CleanStep::Waiting
    }
}

/// What a batch costs of a step.
fn cost(header: &Header) -> u64 {
    let factor = if header.attributes.codec() == 0 { 1 } else { COMPRESSED_COST };
    header.size_bytes as u64 * factor
}

/// True if the batch holds the last sequence of a producer that is still known.
fn is_last_of_producer(log: &Log, header: &Header) -> bool {
    header.producer_id != ProducerId::NONE
        && log
            .producers
            .get(header.producer_id)
            .and_then(|producer| producer.kept().last())
            .is_some_and(|last| last.last_offset == header.last_offset().0)
}
