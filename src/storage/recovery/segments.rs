//! Segments, at start: the sealed ones by checkpoint and sidecars, the later ones by their batches; and rolls that were
//! interrupted, finished.

use std::io;

use crate::base::coverage;
use crate::base::mutant;
use crate::base::time::Timestamp;
use crate::base::units::align_down;
use crate::io::{File, Io};
use crate::model::batch::Header;
use crate::model::id::{LeaderEpoch, Offset};
use crate::model::limits::{BLOCK_SIZE_BYTES, ENVELOPE_SIZE_BYTES_MAX};

use super::super::checkpoint::PartitionState;
use super::super::epochs::{EpochEntry, LeaderEpochs};
use super::super::event::Boundary;
use super::super::index::SegmentIndex;
use super::super::job::{Step, replace_file};
use super::super::layout::FileName;
use super::super::options::PrepareMode;
use super::super::producer_state::{ProducerEntry, ProducerState};
use super::super::rewriter::Rewriter;
use super::super::scanner::{Expected, Scanner};
use super::super::segment::{Index, Segment};
use super::super::sidecar::{Sidecar, SidecarContents};
use super::super::transactions::Aborted;
use super::directory::{open, read_file, run_steps};
use super::{Recovery, RecoveryError, corrupt, missing};

const BLOCK: u64 = BLOCK_SIZE_BYTES as u64;

impl<I: Io> Recovery<'_, I> {
    /// The checkpoint's active segment may have been rolled and freed since, if the log start was its end: then the
    /// log goes on in the segment that begins there.
    pub(super) fn follow_roll(&self, state: &mut PartitionState) {
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
    pub(super) fn open_segments(&mut self, state: &PartitionState) -> Result<(), RecoveryError> {
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
    pub(super) fn accept_spare(&mut self) -> Result<(), RecoveryError> {
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

    /// The segment that was pushed last.
    fn last(&mut self) -> &mut Segment {
        self.log.segments.back_mut().expect("one was just pushed")
    }

    fn take_states(&mut self, producers: Vec<ProducerEntry>, epochs: Vec<EpochEntry>) -> Result<(), RecoveryError> {
        if !mutant::is_on("forget_producers") {
            self.log.producers = ProducerState::restore(producers);
        }
        self.log.epochs =
            LeaderEpochs::restore(epochs).ok_or_else(|| corrupt(Offset(0), 0, "leader epochs do not ascend"))?;
        self.epoch = self.log.epochs.latest().unwrap_or(LeaderEpoch(-1));
        Ok(())
    }

    /// A sidecar's contents; `None` if it is damaged, so that it is made again.
    pub(super) fn sidecar(&mut self, base: Offset) -> Result<Option<SidecarContents>, RecoveryError> {
        let path = FileName::Sidecar(base).path(&self.log.identity.dir);
        let bytes = read_file(self.io, &path, 2 * ENVELOPE_SIZE_BYTES_MAX as u64)?;
        Ok(Sidecar::open(bytes).ok().map(|sidecar| sidecar.to_contents()))
    }

    pub(super) fn open(&mut self, base: Offset) -> Result<File, RecoveryError> {
        open(self.io, &FileName::Segment(base).path(&self.log.identity.dir), true)
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
