//! From files to a log, at start: what is there, what of it counts, and a defined state behind the end.
//!
//! 1. The directory is listed. A compacted segment that was taking the place of older ones takes it. Files below the
//!    durable log start are removed (an interrupted free).
//! 2. The checkpoint, or the clean stop's state, says what was durable then; sidecars of later segments move that
//!    point on. From there batches are scanned: next expected offset, valid CRC, epoch not going back.
//! 3. A spare whose first batch has the expected offset is the next segment (an interrupted roll): it gets its name.
//! 4. Corruption is not the end of a log: bad bytes below the checkpoint or in a sealed segment, or a valid batch of
//!    the current epoch beyond one greatest commit behind the end, and nothing is touched: the partition is offline.
//! 5. What was found above the checkpoint is written again, synced: a write or a sync of it may have failed in the
//!    process that is gone (see `rewriter`). So is a checkpoint that was found.
//! 6. What one commit could have reached behind the end is zeroed and synced, so that no remnant of it can ever join
//!    a later batch. (Topics that do not sync each write may have left more: all of the file is zeroed.)
//! 7. The unfinished last block goes back to staging.
//!
//! Blocking, at start, where nothing else is under way. Cost: reading and writing what was written since the last
//! checkpoint. The owner raises the leader epoch durably before it serves.

use std::io;
use std::path::Path;

use crate::base::coverage;
use crate::base::mutant;
use crate::base::time::{Now, Timestamp};
use crate::base::units::align_down;
use crate::io::{File, Io, Op, OpenOptions, Outcome, Slice};
use crate::model::batch::{HEADER_SIZE, Header};
use crate::model::id::{LeaderEpoch, Offset};
use crate::model::limits::{BLOCK_SIZE_BYTES, COMMIT_SIZE_BYTES_MAX, ENVELOPE_SIZE_BYTES_MAX};

use super::checkpoint::{self, PartitionState};
use super::epochs::LeaderEpochs;
use super::event::{Boundary, Offline};
use super::index::SegmentIndex;
use super::job::{Job, JobKind, Step, replace_file};
use super::layout::{self, FileName};
use super::log::{Identity, Log, Resources, State};
use super::options::{AckAfter, LogOptions, PrepareMode};
use super::prepare::Spare;
use super::producer_state::ProducerState;
use super::rewriter::Rewriter;
use super::scanner::{Expected, Scanner};
use super::segment::{Index, Segment};
use super::sidecar::{Sidecar, SidecarContents};
use super::tail_cache::{Chunk, block_end};
use super::transactions::Aborted;

const BLOCK: u64 = BLOCK_SIZE_BYTES as u64;

/// Why a partition could not be opened. Nothing of its batches was changed.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// Its files are not what they must be: it stays offline (see [`Log::new_offline`]).
    #[error("{0}")]
    Offline(Offline),
    /// The system refused an operation.
    #[error("{what}: {error}")]
    Io {
        /// The operation.
        what: String,
        /// The system's answer.
        error: io::Error,
    },
}

impl From<io::ErrorKind> for RecoveryError {
    fn from(error: io::ErrorKind) -> Self {
        io::Error::from(error).into()
    }
}

impl From<io::Error> for RecoveryError {
    fn from(error: io::Error) -> Self {
        RecoveryError::Io { what: "recovery".to_owned(), error }
    }
}

impl RecoveryError {
    /// As the cause of an offline log.
    pub fn into_offline(self) -> Offline {
        match self {
            RecoveryError::Offline(cause) => cause,
            RecoveryError::Io { what, error } => {
                Offline::Failed { what: "recovery", error: format!("{what}: {error}") }
            }
        }
    }
}

/// What a recovery did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecoveryStats {
    /// Bytes of batches that were read and checked.
    pub scanned_bytes: u64,
    /// Bytes of batches that were written again.
    pub rewritten_bytes: u64,
    /// Bytes behind the end that were zeroed.
    pub zeroed_bytes: u64,
    /// An interrupted roll was finished.
    pub finished_roll: bool,
    /// Files that were left over and removed.
    pub removed_file_count: usize,
}

/// What the owner knows of a partition from its own durable records.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// It was recorded that the partition has data (after `Events::materialized`).
    pub had_data: bool,
    /// What a clean stop kept, if the stop was clean.
    pub clean: Option<PartitionState>,
}

/// Opens a partition. `leader_epoch` is the new one, which later batches carry.
#[allow(clippy::too_many_arguments)]
pub fn recover<I: Io>(
    io: &mut I,
    token_base: u64,
    identity: Identity,
    options: LogOptions,
    leader_epoch: LeaderEpoch,
    known: Known,
    shared: Resources,
    now: Now,
) -> Result<(Log, RecoveryStats), RecoveryError> {
    let log = Log::new(token_base, identity, options, leader_epoch, shared);
    let files = match list(io, &log.identity.dir)? {
        Some(files) => files,
        None if known.had_data => return Err(missing("its directory is gone")),
        None => return Ok((log, RecoveryStats::default())),
    };
    check_identity(io, &log, &known, &files)?;
    if !known.had_data {
        // Nothing in it was ever acknowledged; the first append makes it anew.
        coverage::hit("recovery: of a directory without data");
        return Ok((log, RecoveryStats::default()));
    }
    Recovery { io, log, files, stats: RecoveryStats::default(), epoch: LeaderEpoch(-1), now }.run(known.clean)
}

impl Log {
    /// A log that answers everything with `cause`: what could not be recovered.
    pub fn new_offline(
        token_base: u64,
        identity: Identity,
        options: LogOptions,
        leader_epoch: LeaderEpoch,
        shared: Resources,
        cause: Offline,
    ) -> Log {
        let mut log = Log::new(token_base, identity, options, leader_epoch, shared);
        log.state = State::Serving;
        log.go_offline(cause);
        log
    }
}

/// A partition's files by what they are.
#[derive(Default)]
struct Files {
    segments: Vec<Offset>,
    sidecars: Vec<Offset>,
    spares: Vec<Offset>,
    /// Compacted segments and the ends of what they replace.
    swaps: Vec<(Offset, Offset)>,
    checkpoint: bool,
    metadata: bool,
    foreign: Vec<String>,
}

struct Recovery<'a, I: Io> {
    io: &'a mut I,
    log: Log,
    files: Files,
    stats: RecoveryStats,
    /// Epoch of the last batch.
    epoch: LeaderEpoch,
    now: Now,
}

impl<I: Io> Recovery<'_, I> {
    fn run(mut self, clean: Option<PartitionState>) -> Result<(Log, RecoveryStats), RecoveryError> {
        let is_clean = clean.is_some();
        self.finish_swaps()?;
        let state = match clean {
            Some(state) => {
                // The next checkpoint must still be newer than the one in the file.
                self.checkpoint(is_clean)?;
                Some(state)
            }
            None => self.checkpoint(is_clean)?,
        };
        coverage::hit(match (is_clean, &state) {
            (true, _) => "recovery: after a clean stop",
            (false, Some(_)) => "recovery: from the checkpoint",
            (false, None) => "recovery: without a checkpoint",
        });
        let first = *self.files.segments.first().ok_or_else(|| missing("it has no segment"))?;
        let mut state = state.unwrap_or_else(|| PartitionState {
            active_base_offset: first.0,
            next_offset: first.0,
            log_start: first.0,
            max_timestamp: Timestamp::NONE.0,
            max_timestamp_offset: Offset::NONE.0,
            ..PartitionState::default()
        });
        self.log.log_start = Offset(state.log_start);
        self.log.next_log_start = self.log.log_start;
        self.log.compaction.has_gaps = state.has_gaps;
        self.log.compaction.cleaner_offset = Offset(state.cleaner_offset);
        // Only the checkpoint in the file survives the next power cut.
        self.remove_freed(self.log.checkpoints.log_start)?;
        if self.files.segments.first().is_none_or(|first| first.0 > state.log_start) {
            let bases = &self.files.segments;
            return Err(missing(format!("the segment with offset {} is gone; there are {bases:?}", state.log_start)));
        }
        self.follow_roll(&mut state);
        self.open_segments(&state)?;
        if !is_clean {
            self.accept_spare()?;
            self.check_behind_end()?;
            self.zero_behind_end()?;
        }
        self.remove_left_over(is_clean)?;
        self.load_unfinished_block()?;
        self.find_open_transactions()?;
        let log = &mut self.log;
        let active = log.segments.back().expect("it was opened");
        log.end = Boundary { segment: active.base_offset, position: active.size_bytes, offset: active.next_offset };
        (log.written, log.durable, log.settled, log.high_watermark) = (log.end, log.end, log.end, log.end);
        log.epochs.truncate_end(log.end.offset);
        if mutant::is_on("keep_leader_epoch") {
            log.leader_epoch = self.epoch.max(LeaderEpoch(0));
        }
        log.state = State::Serving;
        // So that the next start does not scan the same again.
        log.checkpoints.wanted = self.stats.scanned_bytes > 0;
        Ok((self.log, self.stats))
    }

    /// Reads the checkpoint.
    fn checkpoint(&mut self, is_clean: bool) -> Result<Option<PartitionState>, RecoveryError> {
        if !self.files.checkpoint {
            return Ok(None);
        }
        let path = FileName::Checkpoint.path(&self.log.identity.dir);
        let bytes = read_file(self.io, &path, 3 * ENVELOPE_SIZE_BYTES_MAX as u64)?;
        let found =
            checkpoint::find(bytes.as_bytes()).map_err(|_| corrupt(Offset(0), 0, "the checkpoint cannot be read"))?;
        let Some(found) = found else { return Ok(None) };
        let frees = self.files.segments.get(1).is_some_and(|second| second.0 <= found.state.log_start);
        if (!is_clean || frees) && !self.log.options.mutants().trust_what_is_found {
            // Files are removed by what it says, and its write or sync may have failed.
            let (offset, size) = (found.slot.start_bytes, found.slot.size_bytes as usize);
            let buffer = self.io.pool().take_append(size).ok_or(io::ErrorKind::OutOfMemory)?;
            buffer.append(&bytes.as_bytes()[offset as usize..bytes.len().min(offset as usize + size)]);
            let slice = buffer.slice_padded(0..buffer.pad(BLOCK_SIZE_BYTES));
            let file = open(self.io, &path, true)?;
            self.io.run(Op::Write { file, offset, slice, sync: true })?;
        }
        let checkpoints = &mut self.log.checkpoints;
        checkpoints.sequence = found.sequence;
        checkpoints.slot = Some(found.slot);
        checkpoints.log_start = Offset(found.state.log_start);
        checkpoints.tells_gaps = found.state.has_gaps;
        checkpoints.durable = Boundary {
            segment: Offset(found.state.active_base_offset),
            position: found.state.position_bytes,
            offset: Offset(found.state.next_offset),
        };
        Ok(Some(found.state))
    }

    /// Finishes interrupted swaps: the new segment is whole, what it replaces goes.
    fn finish_swaps(&mut self) -> Result<(), RecoveryError> {
        let dir = self.log.identity.dir.clone();
        for (base, next) in std::mem::take(&mut self.files.swaps) {
            coverage::hit("recovery: finishes a swap");
            // After a kill its name may not be durable yet, and files are removed by what it says.
            self.io.run(Op::SyncDir { path: dir.clone() })?;
            let replaced = |offset: &Offset| *offset >= base && *offset < next;
            let sidecars: Vec<Offset> = self.files.sidecars.iter().copied().filter(replaced).collect();
            for sidecar in sidecars {
                self.remove(&FileName::Sidecar(sidecar).to_string())?;
            }
            let segments: Vec<Offset> = self.files.segments.iter().copied().filter(replaced).collect();
            for segment in segments.into_iter().filter(|segment| *segment != base) {
                self.remove(&FileName::Segment(segment).to_string())?;
            }
            self.files.sidecars.retain(|offset| !replaced(offset));
            self.files.segments.retain(|offset| !replaced(offset));
            let (from, to) = (FileName::Swap(base, next).path(&dir), FileName::Segment(base).path(&dir));
            let sync = Step::SyncDir(dir.clone());
            run_steps(self.io, None, [Step::SyncDir(dir.clone()), Step::Rename { from, to }, sync])?;
            self.files.segments.push(base);
            self.files.segments.sort_unstable();
        }
        Ok(())
    }

    /// Finishes what an interrupted free left: segments wholly below the log start.
    fn remove_freed(&mut self, log_start: Offset) -> Result<(), RecoveryError> {
        while let [first, second, ..] = self.files.segments[..]
            && second <= log_start
        {
            coverage::hit("recovery: removes a freed segment");
            self.remove(&FileName::Segment(first).to_string())?;
            self.files.segments.remove(0);
        }
        let kept = self.files.segments.clone();
        for sidecar in std::mem::take(&mut self.files.sidecars) {
            match kept.contains(&sidecar) {
                true => self.files.sidecars.push(sidecar),
                false => self.remove(&FileName::Sidecar(sidecar).to_string())?,
            }
        }
        Ok(())
    }

    /// The checkpoint's active segment may have been rolled and freed since, if the log start was its end: then the
    /// log goes on in the segment that begins there.
    fn follow_roll(&self, state: &mut PartitionState) {
        let bases = &self.files.segments;
        if !bases.contains(&Offset(state.active_base_offset)) && bases.first() == Some(&Offset(state.next_offset)) {
            coverage::hit("recovery: follows a roll");
            state.active_base_offset = state.next_offset;
            state.position_bytes = 0;
            state.index.clear();
            (state.max_timestamp, state.max_timestamp_offset) = (Timestamp::NONE.0, Offset::NONE.0);
        }
    }

    /// Opens all segments; scans those that the state does not cover.
    fn open_segments(&mut self, state: &PartitionState) -> Result<(), RecoveryError> {
        let bases = self.files.segments.clone();
        let last = *bases.last().expect("there is one");
        let state_base = Offset(state.active_base_offset);
        let interval = self.log.options.index_interval_size_bytes;
        if !bases.contains(&state_base) {
            return Err(missing("the checkpoint's segment is gone"));
        }
        let mut next = None;
        for (at, &base) in bases.iter().enumerate() {
            if next.is_some_and(|next| next != base) {
                return Err(corrupt(base, 0, "a segment is missing before it"));
            }
            let following = bases.get(at + 1).copied();
            let has_sidecar = self.files.sidecars.contains(&base);
            // What was compacted since is described by its sidecar alone.
            let is_known = base < state_base && (state.clean || !state.has_gaps);
            let summary = state.sealed.iter().find(|summary| is_known && summary.base_offset == base.0);
            if let Some(summary) = summary
                && has_sidecar
            {
                coverage::hit("recovery: a sealed segment, by the checkpoint");
                self.push_sealed(
                    base,
                    Offset(summary.next_offset),
                    summary.size_bytes,
                    (Timestamp(summary.max_timestamp), base),
                );
                let aborting = state.aborting_segments.iter().find(|segment| segment.base_offset == base.0);
                self.last().aborted.first_offset = aborting.map(|segment| Offset(segment.first_offset));
            } else if base != last
                && has_sidecar
                && let Some(contents) = self.sidecar(base)?
            {
                coverage::hit("recovery: a sealed segment, by its sidecar");
                let summary = &contents.segment;
                if summary.next_offset != following.expect("it is not the last").0 {
                    return Err(corrupt(base, 0, "its sidecar does not end where the next segment begins"));
                }
                let max = (Timestamp(summary.max_timestamp), Offset(contents.max_timestamp_offset));
                self.push_sealed(base, Offset(summary.next_offset), summary.size_bytes, max);
                self.last().aborted = Aborted::restore(contents.aborted);
                self.last().aborted.forget_entries();
                if base >= state_base {
                    self.take_states(contents.producers, contents.epochs)?;
                }
            } else if base < state_base {
                self.scan_sealed_again(base, following.expect("a later one is there"), state)?;
            } else {
                let from = if base == state_base {
                    coverage::hit("recovery: scans from the checkpoint's position");
                    self.take_states(state.producers.clone(), state.epochs.clone())?;
                    state.position_bytes
                } else {
                    coverage::hit("recovery: scans a later segment");
                    0
                };
                let file = self.open(base)?;
                let name = FileName::Segment(base).to_string();
                let mut segment = Segment::new(base, name, file, 0, true, interval);
                if from > 0 {
                    let max = (Timestamp(state.max_timestamp), Offset(state.max_timestamp_offset));
                    let index = SegmentIndex::restore(base, interval, max, state.index.clone())
                        .ok_or_else(|| corrupt(base, from, "the checkpoint's index does not ascend"))?;
                    segment.max_timestamp = max;
                    segment.index = Index::Memory(index);
                    segment.size_bytes = from;
                    segment.next_offset = Offset(state.next_offset);
                    segment.aborted = Aborted::restore(state.aborted.clone());
                }
                self.scan(segment, state.clean && base == state_base, following, false)?;
                if let Some(following) = following {
                    self.finish_sealing(following)?;
                }
            }
            next = self.log.segments.back().map(|segment| segment.next_offset);
        }
        Ok(())
    }

    fn push_sealed(&mut self, base: Offset, next_offset: Offset, size_bytes: u64, max_timestamp: (Timestamp, Offset)) {
        self.log.segments.push_back(Segment::sealed(base, next_offset, size_bytes, max_timestamp));
    }

    /// A sealed segment below the checkpoint without a sidecar: rebuilt. Producers and epochs come from the
    /// checkpoint, so those that this scan yields are put aside.
    fn scan_sealed_again(
        &mut self,
        base: Offset,
        following: Offset,
        state: &PartitionState,
    ) -> Result<(), RecoveryError> {
        coverage::hit("recovery: rebuilds a sidecar");
        let file = self.open(base)?;
        let interval = self.log.options.index_interval_size_bytes;
        let segment = Segment::new(base, FileName::Segment(base).to_string(), file, 0, true, interval);
        let epochs = std::mem::take(&mut self.log.epochs);
        let epoch = std::mem::replace(&mut self.epoch, LeaderEpoch(-1));
        // Which transactions it ends is known from what was open before it.
        let before = self.log.segments.back().map(|segment| (segment.base_offset, segment.next_offset));
        if let Some((before, next)) = before
            && next == base
            && self.files.sidecars.contains(&before)
            && let Some(contents) = self.sidecar(before)?
        {
            self.log.producers = ProducerState::restore(contents.producers);
        }
        self.scan(segment, false, Some(following), state.has_gaps)?;
        self.finish_sealing(following)?;
        self.log.epochs = epochs;
        self.epoch = epoch;
        Ok(())
    }

    /// Scans `segment` from its present end on and pushes it. With `following`, its end must be that offset.
    fn scan(
        &mut self,
        mut segment: Segment,
        clean: bool,
        following: Option<Offset>,
        may_have_gaps: bool,
    ) -> Result<(), RecoveryError> {
        let base = segment.base_offset;
        let file = segment.direct.clone().expect("it was opened");
        let any_epoch = self.log.options.mutants().skip_epoch_check;
        let mut scanner = Scanner::new(self.io, file.clone())?;
        if clean {
            scanner = scanner.read_blocks();
        }
        let length = scanner.length_bytes;
        let from = segment.size_bytes;
        if from > length {
            return Err(corrupt(base, length, "the file is shorter than the checkpoint says"));
        }
        if from > 0
            && let Some(header) = Header::parse(scanner.bytes(0, length.min(64))?)
        {
            segment.first_timestamp = header.max_timestamp;
        }
        if from > 0 && !clean {
            check_below(&mut scanner, &mut segment, from)?;
        }
        let is_rewritten = !clean && following.is_none() && !self.log.options.mutants().trust_what_is_found;
        let mut rewriter = None;
        if is_rewritten {
            let block = align_down(from, BLOCK);
            // The check of what is below has just found these bytes right as well.
            let head = if block < from { scanner.bytes(block, from)? } else { &[] };
            rewriter = Some(Rewriter::new(file, block, length, head));
        }
        let mut expected = Expected { offset: segment.next_offset, epoch: self.epoch, any_epoch, may_have_gaps };
        let mut position = from;
        while !clean && following.is_none_or(|following| expected.offset < following) {
            let Some((header, bytes)) = scanner.batch(position, length, expected)? else { break };
            let start = position;
            position += header.size_bytes as u64;
            expected = Expected { offset: header.next_offset(), epoch: header.leader_epoch, ..expected };
            self.log.epochs.assign(header.leader_epoch, header.base_offset);
            if !mutant::is_on("forget_producers") {
                let at = Boundary { segment: base, position: start, offset: header.base_offset };
                let aborted = self.log.note_producer(&header, bytes, at, self.now.wall);
                aborted.into_iter().for_each(|aborted| segment.aborted.push(aborted));
            }
            segment.note(&header, start, Boundary { segment: base, position, offset: expected.offset });
            if let Some(rewriter) = &mut rewriter {
                scanner.rewrite(start, position, rewriter)?;
            }
        }
        if let Some(rewriter) = rewriter {
            self.stats.rewritten_bytes += rewriter.finish(self.io)?;
        }
        self.epoch = expected.epoch;
        self.stats.scanned_bytes += position - from;
        segment.prepared_bytes = match self.log.options.prepare {
            PrepareMode::None => 0,
            _ => align_down(length, BLOCK),
        };
        if following.is_some_and(|following| following != segment.next_offset) {
            return Err(corrupt(base, position, "a sealed segment ends before the next one begins"));
        }
        self.log.segments.push_back(segment);
        Ok(())
    }

    /// Truncates the last scanned segment to its batches and writes its sidecar: the roll to `following` was
    /// interrupted.
    fn finish_sealing(&mut self, following: Offset) -> Result<(), RecoveryError> {
        coverage::hit("recovery: finishes sealing");
        let dir = self.log.identity.dir.clone();
        let contents = {
            let segment = self.log.segments.back().expect("it was just scanned");
            debug_assert_eq!(segment.next_offset, following);
            let Index::Memory(index) = &segment.index else { return Ok(()) };
            SidecarContents {
                segment: segment.summary(),
                max_timestamp_offset: segment.max_timestamp.1.0,
                index: index.entries().to_vec(),
                aborted: segment.aborted.entries.clone(),
                producers: self.log.producers.snapshot(),
                epochs: self.log.epochs.entries().to_vec(),
            }
        };
        let bytes = contents.encode();
        let buffer = self.io.pool().take_append(bytes.len()).ok_or(io::ErrorKind::OutOfMemory)?;
        buffer.append(&bytes);
        let segment = self.log.segments.back_mut().expect("it was just scanned");
        let file = segment.direct.take();
        let base = segment.base_offset;
        segment.index = Index::Sidecar;
        segment.aborted.forget_entries();
        let mut steps = vec![Step::Truncate(segment.size_bytes), Step::Sync];
        steps.extend(replace_file(&dir, &FileName::Sidecar(base).to_string(), buffer.slice(0..bytes.len())));
        steps.push(Step::SyncDir(dir));
        run_steps(self.io, file, steps)?;
        Ok(())
    }

    /// Finds the next segment under a spare's name: the end of an interrupted roll.
    fn accept_spare(&mut self) -> Result<(), RecoveryError> {
        let (end, size_bytes) = {
            let last = self.log.segments.back().expect("there is one");
            (last.next_offset, last.size_bytes)
        };
        if size_bytes == 0 {
            return Ok(());
        }
        let dir = self.log.identity.dir.clone();
        for spare in self.files.spares.clone() {
            let path = FileName::Spare(spare).path(&dir);
            let file = open(self.io, &path, true)?;
            let any_epoch = self.log.options.mutants().skip_epoch_check;
            let expected = Expected { offset: end, epoch: self.epoch, any_epoch, may_have_gaps: false };
            let mut scanner = Scanner::new(self.io, file.clone())?;
            let length = scanner.length_bytes;
            if scanner.batch(0, length, expected)?.is_none() {
                coverage::hit("recovery: a spare is not the next segment");
                continue;
            }
            self.finish_sealing(end)?;
            let to = FileName::Segment(end).path(&dir);
            run_steps(self.io, None, [Step::Rename { from: path, to }, Step::SyncDir(dir)])?;
            self.files.spares.retain(|other| *other != spare);
            let interval = self.log.options.index_interval_size_bytes;
            let name = FileName::Segment(end).to_string();
            self.scan(Segment::new(end, name, file, 0, true, interval), false, None, false)?;
            coverage::hit("recovery: a spare is the next segment");
            self.stats.finished_roll = true;
            return Ok(());
        }
        Ok(())
    }

    /// A valid batch of the current epoch further behind the end than one commit reaches: something before it was
    /// durable and is damaged.
    fn check_behind_end(&mut self) -> Result<(), RecoveryError> {
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
    fn zero_behind_end(&mut self) -> Result<(), RecoveryError> {
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

    /// Removes what nobody owns. After a clean stop one spare is kept to be overwritten.
    fn remove_left_over(&mut self, is_clean: bool) -> Result<(), RecoveryError> {
        let mut spares = std::mem::take(&mut self.files.spares);
        if is_clean
            && self.log.options.reuse
            && let Some(spare) = spares.pop()
        {
            let name = FileName::Spare(spare).to_string();
            let file = open(self.io, &self.log.identity.dir.join(&name), false)?;
            let Outcome::Length(size_bytes) = self.io.run(Op::Length { file })? else {
                unreachable!("Length completes with a length")
            };
            coverage::hit("recovery: keeps a spare");
            self.log.spare = Some(Spare { name, size_bytes });
        }
        let names = spares.into_iter().map(|spare| FileName::Spare(spare).to_string());
        for name in names.chain(std::mem::take(&mut self.files.foreign)).collect::<Vec<_>>() {
            self.remove(&name)?;
        }
        // After a kill, renamings that were found may not be durable either.
        if self.stats.removed_file_count > 0 || !is_clean {
            self.io.run(Op::SyncDir { path: self.log.identity.dir.clone() })?;
        }
        Ok(())
    }

    fn load_unfinished_block(&mut self) -> Result<(), RecoveryError> {
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

    /// Every open transaction gets its place: those that began in what was scanned have it.
    fn find_open_transactions(&mut self) -> Result<(), RecoveryError> {
        let mut open: Vec<Offset> = self.log.producers.open_transactions().collect();
        open.sort_unstable();
        self.log.transactions.retain_open(|first| open.binary_search(&first).is_ok());
        for first in open {
            if !self.log.transactions.is_open(first) {
                let start = self.find_batch(first)?;
                self.log.transactions.begin(start);
            }
        }
        Ok(())
    }

    /// Where the batch begins that holds an offset; the log's begin if it is gone.
    fn find_batch(&mut self, offset: Offset) -> Result<Boundary, RecoveryError> {
        let at = self.log.segments.partition_point(|segment| segment.base_offset <= offset);
        let Some(at) = at.checked_sub(1) else {
            let first = self.log.segments.front().expect("there is one").base_offset;
            return Ok(Boundary { segment: first, position: 0, offset });
        };
        let segment = &self.log.segments[at];
        let (base, end, direct) = (segment.base_offset, segment.size_bytes, segment.direct.clone());
        let mut position = match &segment.index {
            Index::Memory(index) => u64::from(index.view().floor(offset)),
            Index::Sidecar => {
                let path = FileName::Sidecar(base).path(&self.log.identity.dir);
                let bytes = read_file(self.io, &path, 2 * ENVELOPE_SIZE_BYTES_MAX as u64)?;
                Sidecar::open(bytes).map_or(0, |sidecar| u64::from(sidecar.index().floor(offset)))
            }
        };
        let file = match direct {
            Some(file) => file,
            None => self.open(base)?,
        };
        let mut scanner = Scanner::new(self.io, file)?;
        while position + HEADER_SIZE as u64 <= end {
            let header = Header::parse(scanner.bytes(position, position + HEADER_SIZE as u64)?);
            let Some(header) = header.filter(|header| header.next_offset() <= offset) else { break };
            position += header.size_bytes as u64;
        }
        Ok(Boundary { segment: base, position, offset })
    }

    /// The segment that was pushed last.
    fn last(&mut self) -> &mut Segment {
        self.log.segments.back_mut().expect("one was just pushed")
    }

    fn take_states(
        &mut self,
        producers: Vec<super::producer_state::ProducerEntry>,
        epochs: Vec<super::epochs::EpochEntry>,
    ) -> Result<(), RecoveryError> {
        if !mutant::is_on("forget_producers") {
            self.log.producers = ProducerState::restore(producers);
        }
        self.log.epochs =
            LeaderEpochs::restore(epochs).ok_or_else(|| corrupt(Offset(0), 0, "leader epochs do not ascend"))?;
        self.epoch = self.log.epochs.latest().unwrap_or(LeaderEpoch(-1));
        Ok(())
    }

    /// A sidecar's contents; `None` if it is damaged, so that it is made again.
    fn sidecar(&mut self, base: Offset) -> Result<Option<SidecarContents>, RecoveryError> {
        let path = FileName::Sidecar(base).path(&self.log.identity.dir);
        let bytes = read_file(self.io, &path, 2 * ENVELOPE_SIZE_BYTES_MAX as u64)?;
        Ok(Sidecar::open(bytes).ok().map(|sidecar| sidecar.to_contents()))
    }

    fn open(&mut self, base: Offset) -> Result<File, RecoveryError> {
        open(self.io, &FileName::Segment(base).path(&self.log.identity.dir), true)
    }

    fn remove(&mut self, name: &str) -> Result<(), RecoveryError> {
        let path = self.log.identity.dir.join(name);
        match self.io.run(Op::Remove { path: path.clone() }) {
            Ok(_) => {}
            // Sealing anew may have replaced it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(RecoveryError::Io { what: format!("removing {}", path.display()), error }),
        }
        coverage::hit("recovery: removes a file");
        self.stats.removed_file_count += 1;
        Ok(())
    }
}

/// Checks the batches before the checkpoint's position, as far back as the last index entry: they must lead there.
fn check_below<I: Io>(scanner: &mut Scanner<'_, I>, segment: &mut Segment, to: u64) -> Result<(), RecoveryError> {
    let base = segment.base_offset;
    let next_offset = segment.next_offset;
    let index = segment.index_in_memory().expect("it was just restored");
    let mut position = u64::from(index.view().position_floor(to - 1));
    let mut next = None;
    while position < to {
        let header = Header::parse(scanner.bytes(position, (position + 61).min(to))?);
        let base_offset = header.map_or(Offset::NONE, |header| header.base_offset);
        let offset = next.unwrap_or(base_offset);
        let expected = Expected { offset, epoch: LeaderEpoch(-1), any_epoch: true, may_have_gaps: false };
        let Some((header, _)) = scanner.batch(position, to, expected)? else {
            return Err(corrupt(base, position, "bad bytes below the checkpoint"));
        };
        position += header.size_bytes as u64;
        next = Some(header.next_offset());
    }
    if next != Some(next_offset) {
        return Err(corrupt(base, position, "the batches below the checkpoint do not lead to it"));
    }
    Ok(())
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

/// The directory's files, or `None` if it is not there.
fn list(io: &mut impl Io, dir: &Path) -> Result<Option<Files>, RecoveryError> {
    let entries = match io.run(Op::List { path: dir.to_owned() }) {
        Ok(Outcome::Listed(entries)) => entries,
        Ok(_) => unreachable!("List completes with a list"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(RecoveryError::Io { what: format!("listing {}", dir.display()), error }),
    };
    let mut files = Files::default();
    for entry in entries {
        match FileName::parse(&entry.name) {
            Some(FileName::Segment(base)) => files.segments.push(base),
            Some(FileName::Sidecar(base)) => files.sidecars.push(base),
            Some(FileName::Spare(base)) => files.spares.push(base),
            Some(FileName::Swap(base, next)) => files.swaps.push((base, next)),
            Some(FileName::Checkpoint) => files.checkpoint = true,
            Some(FileName::PartitionMetadata) => files.metadata = true,
            // Only what is ours to replace; Kafka's own index files and the like stay.
            None if entry.name.ends_with(".new") => files.foreign.push(entry.name),
            None => {}
        }
    }
    files.segments.sort_unstable();
    files.spares.sort_unstable();
    files.swaps.sort_unstable();
    files.foreign.sort_unstable();
    Ok(Some(files))
}

/// The directory must belong to the expected topic.
fn check_identity(io: &mut impl Io, log: &Log, known: &Known, files: &Files) -> Result<(), RecoveryError> {
    let id = match files.metadata {
        true => {
            let path = FileName::PartitionMetadata.path(&log.identity.dir);
            let bytes = read_file(io, &path, BLOCK)?;
            layout::parse_partition_metadata(bytes.as_bytes()).map_err(|error| error.to_string())
        }
        false => Err("partition.metadata is missing".to_owned()),
    };
    match id {
        Ok(id) if id == log.identity.topic_id => Ok(()),
        Ok(id) => Err(missing(format!("its directory belongs to topic id {id}"))),
        Err(_) if !known.had_data => Ok(()),
        Err(error) => Err(missing(error)),
    }
}

fn open(io: &mut impl Io, path: &Path, direct: bool) -> Result<File, RecoveryError> {
    let options = OpenOptions { write: direct, direct, ..OpenOptions::default() };
    match io.run(Op::Open { path: path.to_owned(), options }) {
        Ok(Outcome::Opened(file)) => Ok(file),
        Ok(_) => unreachable!("Open completes with a file"),
        Err(error) => Err(RecoveryError::Io { what: format!("opening {}", path.display()), error }),
    }
}

/// A small file's bytes, aligned as archives need it.
fn read_file(io: &mut impl Io, path: &Path, size_bytes_max: u64) -> Result<Slice, RecoveryError> {
    let file = open(io, path, false)?;
    let Outcome::Length(length) = io.run(Op::Length { file: file.clone() })? else {
        unreachable!("Length completes with a length")
    };
    if length > size_bytes_max {
        return Err(missing(format!("{} is too long", path.display())));
    }
    let buffer = io.pool().take(length as usize).ok_or(io::ErrorKind::OutOfMemory)?;
    match io.run(Op::Read { file, offset: 0, buffer, length_bytes: length as u32 })? {
        Outcome::Read { buffer, bytes } => Ok(buffer.freeze(bytes)),
        _ => unreachable!("Read completes with its buffer"),
    }
}

/// Runs steps one after the other.
fn run_steps(io: &mut impl Io, file: Option<File>, steps: impl IntoIterator<Item = Step>) -> io::Result<()> {
    let mut job = Job::new(JobKind::Roll, file, steps);
    while let Some(step) = job.steps.pop_front() {
        let forgiving = matches!(step, Step::Remove(_));
        match io.run(job.op(step)) {
            Ok(Outcome::Opened(file)) => job.file = Some(file),
            Ok(_) => {}
            Err(error) if forgiving && error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn missing(what: impl Into<String>) -> RecoveryError {
    RecoveryError::Offline(Offline::Missing(what.into()))
}

fn corrupt(segment: Offset, position: u64, what: &'static str) -> RecoveryError {
    RecoveryError::Offline(Offline::Corrupt { segment, position, what })
}
