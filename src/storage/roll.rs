//! The end of segments: roll, seal, checkpoint, free, reuse; and the running of jobs.
//!
//! Roll: batches go to the next file at once. When the old segment's last batch is durable its file is truncated to
//! its batches and synced, the new one gets its name, the directory is synced; then the sidecar is written. Only
//! then may the log roll again, so recovery meets at most one segment under a spare's name.
//!
//! Free: the log start is durable in a checkpoint → sidecar removed, file renamed to a spare (or removed) →
//! directory synced → overwriting allowed. A file that a planned response or a read still uses is removed instead.
//!
//! Checkpoint: captured at the log's end and written when all that it describes is durable.
//!
//! A raised log start (DeleteRecords, retention) counts from when a checkpoint that says so is durable: until then
//! readers see what was there, and after it nothing brings the records back.
//!
//! Invariant: sidecars and checkpoints that reach the disk describe synced bytes only.

use std::io;

use crate::base::coverage;
use crate::base::mutant;
use crate::base::time::{Monotonic, Now, Timestamp};
use crate::io::{File, Io, OpenOptions, Outcome};
use crate::model::batch::Header;
use crate::model::id::Offset;
use crate::model::limits::COMMIT_SIZE_BYTES_MAX;

use super::checkpoint::{self, AbortingSegment, PartitionState, Slot};
use super::event::{AppendError, Boundary};
use super::index::IndexEntry;
use super::job::{Job, JobKind, Milestone, Step, replace_file};
use super::layout::FileName;
use super::log::{Log, OpKind, State, is_disk_full};
use super::prepare::Spare;
use super::retention::{self, LogShape, RetentionPolicy, SegmentSummary};
use super::segment::{Index, Segment};
use super::sidecar::SidecarContents;

/// What is known of checkpoints.
#[derive(Default)]
pub(super) struct Checkpoints {
    /// Of the durable one.
    pub sequence: u64,
    /// Of the durable one.
    pub slot: Option<Slot>,
    /// What the durable one describes.
    pub durable: Boundary,
    /// Its log start.
    pub log_start: Offset,
    /// Somebody asked for one.
    pub wanted: bool,
    /// Captured, waiting for what it describes to become durable.
    pub captured: Option<(Boundary, Offset, Vec<u8>)>,
    /// The durable one says that sealed segments may have gaps.
    pub tells_gaps: bool,
    /// The one being written says so.
    pub captured_gaps: bool,
}

impl Log {
    /// True if the batch belongs into the next segment.
    pub(super) fn must_roll(&mut self, header: &Header, now: Now) -> bool {
        let (position, offset) = (self.end.position, self.end.offset);
        let (size_max, ms_max) = (self.options.segment_size_bytes, self.options.segment_ms);
        let active = self.active();
        if active.size_bytes == 0 {
            return false;
        }
        // As Kafka: by the records' own time where they have one.
        let is_full = active.aborted.is_full();
        let time = if header.max_timestamp > Timestamp::NONE { header.max_timestamp } else { now.wall };
        let age_ms = time.0.saturating_sub(active.first_timestamp.0);
        let last_relative = offset.0 - active.base_offset.0 + i64::from(header.last_offset_delta);
        position + header.size_bytes as u64 > size_max
            || last_relative > i64::from(i32::MAX)
            || u64::try_from(age_ms).is_ok_and(|age| age >= ms_max)
            || is_full
    }

    /// Makes the next file the active one, or says why that must wait.
    pub(super) fn roll(&mut self, io: &mut impl Io, now: Now) -> Result<(), AppendError> {
        if self.rolling.is_some() {
            coverage::hit("roll: waits for the last one");
            return Err(AppendError::NotReady);
        }
        let Some(next) = self.next.take() else {
            coverage::hit("roll: waits for its file");
            self.prepare_next(io, now.monotonic);
            let full = self.is_disk_full(now.monotonic);
            return Err(if full { AppendError::DiskFull } else { AppendError::NotReady });
        };
        coverage::hit(if next.reused { "roll: into a reused file" } else { "roll: into a new file" });
        let base_offset = self.end.offset;
        self.sidecar = Some(self.sidecar_contents().encode());
        let interval = self.options.index_interval_size_bytes;
        self.rolling = Some(self.end.segment);
        self.segments.push_back(Segment::new(
            base_offset,
            next.name,
            next.file,
            next.prepared_bytes,
            next.reused,
            interval,
        ));
        self.end = Boundary { segment: base_offset, position: 0, offset: base_offset };
        Ok(())
    }

    /// The active segment's sidecar, as of now.
    fn sidecar_contents(&mut self) -> SidecarContents {
        let active = self.active();
        let (segment, offset) = (active.summary(), active.max_timestamp.1);
        let index = active.index_in_memory().map_or(Vec::new(), |index| index.entries().to_vec());
        SidecarContents {
            segment,
            max_timestamp_offset: offset.0,
            index,
            aborted: active.aborted.entries.clone(),
            producers: self.producers.snapshot(),
            epochs: self.epochs.entries().to_vec(),
        }
    }

    /// Starts sealing the segment that was rolled away from once nothing more will be written to it.
    pub(super) fn seal_if_durable(&mut self) {
        let Some(base) = self.rolling else { return };
        let segment = self.segment(base).expect("a segment being sealed is not freed");
        let (size_bytes, file) = (segment.size_bytes, segment.direct.clone());
        let is_early = self.options.mutants().roll_without_wait
            || (mutant::is_on("seal_unsettled") && self.durable.offset >= segment.next_offset);
        let written = self.settled.offset >= segment.next_offset || is_early;
        let queued = self.jobs.iter().any(|job| job.kind == JobKind::Roll);
        let in_flight = self.in_flight.as_ref().is_some_and(|write| write.segment() == base);
        if !written || queued || in_flight || self.space.is_preparing(base) {
            coverage::hit("roll: sealing waits");
            return;
        }
        let dir = self.identity.dir.clone();
        let active = self.segments.back().expect("there is one");
        let steps = [
            Step::Truncate(size_bytes),
            Step::Sync,
            Step::Rename { from: active.path(&dir), to: FileName::Segment(active.base_offset).path(&dir) },
            Step::SyncDir(dir),
            Step::Reached(Milestone::Sealed(base)),
        ];
        self.jobs.push_back(Job::new(JobKind::Roll, file, steps));
    }

    /// The segment is sealed: its sidecar follows.
    fn sealed(&mut self, base: Offset) {
        coverage::hit("roll: sealed");
        self.rolling = None;
        self.events.sealed = true;
        for segment in &mut self.segments {
            // Reads of earlier days may still use the direct handle: it is kept as their pin.
            if segment.old_direct.as_ref().is_some_and(|file| !file.is_shared()) {
                segment.old_direct = None;
            }
            if segment.base_offset == base {
                segment.old_direct = segment.direct.take();
            }
        }
        let active = self.active();
        active.name = FileName::Segment(active.base_offset).to_string();
        if let Some(bytes) = self.sidecar.take()
            && let Some(buffer) = self.shared.pool.take_append(bytes.len())
        {
            buffer.append(&bytes);
            let name = FileName::Sidecar(base).to_string();
            let mut steps = Vec::from(replace_file(&self.identity.dir, &name, buffer.slice(0..bytes.len())));
            steps.push(Step::SyncDir(self.identity.dir.clone()));
            steps.push(Step::Reached(Milestone::SidecarWritten(base)));
            self.jobs.push_back(Job::new(JobKind::Sidecar, None, steps));
        }
        self.tell_parked();
    }

    /// Asks for a checkpoint; `Events::checkpointed` tells when one is durable. The shard decides when, by bytes
    /// appended since the last ([`Log::checkpoint_age_bytes`]).
    pub fn checkpoint(&mut self, io: &mut impl Io) {
        self.checkpoints.wanted = true;
        self.go_on(io);
    }

    /// Bytes that recovery would have to scan if the process ended now.
    pub fn checkpoint_age_bytes(&self) -> u64 {
        let durable = self.checkpoints.durable;
        let newer = self.segments.iter().rev().take_while(|segment| segment.base_offset > durable.segment);
        let in_its_segment = self.segment(durable.segment).map_or(0, |s| s.size_bytes.saturating_sub(durable.position));
        newer.map(|segment| segment.size_bytes).sum::<u64>() + in_its_segment
    }

    /// What a clean-stop file keeps of this log once it is closed; `None` if it has no files or is not closed.
    pub fn snapshot(&mut self) -> Option<PartitionState> {
        let closed = self.state == State::Closed && self.offline.is_none() && !self.segments.is_empty();
        // The clean stop's file is gone as soon as the next start appends: it must not know a later log start than the
        // checkpoint does.
        let log_start = self.log_start;
        closed.then(|| PartitionState { clean: true, ..self.partition_state(log_start) })
    }

    /// The log at its end, as a checkpoint describes it.
    fn partition_state(&mut self, log_start: Offset) -> PartitionState {
        let (end, leader_epoch) = (self.end, self.leader_epoch);
        let mut epochs = self.epochs.clone();
        epochs.truncate_start(log_start);
        let sealed_count = self.segments.len() - 1;
        let sealed: Vec<SegmentSummary> = self.segments.iter().take(sealed_count).map(Segment::summary).collect();
        let aborting_segments = self.segments.iter().take(sealed_count).filter_map(|segment| {
            let first_offset = segment.aborted.first_offset?.0;
            Some(AbortingSegment { base_offset: segment.base_offset.0, first_offset })
        });
        let aborting_segments = aborting_segments.collect();
        let active = self.active();
        let aborted = active.aborted.entries.clone();
        let (max_timestamp, max_timestamp_offset) = active.max_timestamp;
        let index: Vec<IndexEntry> = active.index_in_memory().map_or(Vec::new(), |index| index.entries().to_vec());
        PartitionState {
            active_base_offset: end.segment.0,
            position_bytes: end.position,
            next_offset: end.offset.0,
            log_start: log_start.0,
            // Later commits may be as large as they get.
            commit_bytes_max: COMMIT_SIZE_BYTES_MAX as u64,
            max_timestamp: max_timestamp.0,
            max_timestamp_offset: max_timestamp_offset.0,
            leader_epoch: leader_epoch.0,
            clean: false,
            has_gaps: self.compaction.has_gaps,
            cleaner_offset: self.compaction.cleaner_offset.0,
            sealed,
            index,
            epochs: epochs.entries().to_vec(),
            producers: self.producers.snapshot(),
            aborted,
            aborting_segments,
        }
    }

    /// Captures a checkpoint that is wanted and starts writing one whose bytes are durable.
    pub(super) fn go_on_checkpoint(&mut self) {
        let ready = matches!(self.state, State::Serving | State::Closing) && !self.segments.is_empty();
        let queued = self.jobs.iter().any(|job| job.kind == JobKind::Checkpoint);
        // One at a time: each is numbered after the last durable one.
        if self.checkpoints.wanted && ready && !queued && self.rolling.is_none() && self.checkpoints.captured.is_none()
        {
            self.checkpoints.wanted = false;
            self.checkpoints.captured_gaps = self.compaction.has_gaps;
            let log_start = self.next_log_start;
            let bytes = self.partition_state(log_start).encode(self.checkpoints.sequence + 1);
            self.checkpoints.captured = Some((self.end, log_start, bytes));
        }
        let Some((boundary, ..)) = &self.checkpoints.captured else { return };
        let durable = self.settled.offset >= boundary.offset || self.options.mutants().checkpoint_beyond_sync;
        if !durable || queued {
            coverage::hit("checkpoint: waits for its bytes");
            return;
        }
        let (boundary, log_start, bytes) = self.checkpoints.captured.take().expect("it is there");
        let Some(buffer) = self.shared.pool.take_append(bytes.len()) else {
            // Without memory it is tried again when the next completion comes.
            self.checkpoints.wanted = true;
            return;
        };
        buffer.append(&bytes);
        let slot = checkpoint::place(self.checkpoints.slot, bytes.len() as u64);
        let path = FileName::Checkpoint.path(&self.identity.dir);
        let options = OpenOptions { write: true, create: true, direct: true, ..OpenOptions::default() };
        let mut steps = vec![
            Step::Open { path, options },
            Step::Write { offset: slot.start_bytes, content: buffer.slice(0..bytes.len()) },
            Step::Sync,
        ];
        if self.checkpoints.slot.is_none() {
            steps.push(Step::SyncDir(self.identity.dir.clone()));
        }
        steps.push(Step::Reached(Milestone::Checkpointed { boundary, log_start, slot }));
        self.jobs.push_back(Job::new(JobKind::Checkpoint, None, steps));
    }

    /// DeleteRecords: everything below `offset` goes; -1 means everything below the high watermark. Gives the log start
    /// that is to be waited for: it counts, for readers as well, when [`log_start`](Log::log_start) has reached it
    /// (`Events::checkpointed`), and then it is durable. The files below it are freed after that.
    ///
    /// # Errors
    /// An offset that is above the high watermark or is none.
    pub fn delete_records(
        &mut self,
        io: &mut impl Io,
        offset: Offset,
    ) -> Result<Offset, retention::DeleteRecordsOutOfRange> {
        let to = retention::delete_records(offset, self.log_start, self.high_watermark.offset)?;
        self.raise_log_start(io, to);
        Ok(to)
    }

    /// True if a raised log start is not durable yet. Without room on the disk it stays so until it is asked for again
    /// ([`Log::checkpoint`]).
    pub fn is_log_start_rising(&self) -> bool {
        self.log_start < self.next_log_start
    }

    /// Applies the retention policy; returns the number of segments that go.
    pub fn apply_retention(&mut self, io: &mut impl Io, policy: RetentionPolicy, now: Now) -> usize {
        if self.segments.is_empty() || self.offline.is_some() || self.rolling.is_some() {
            return 0;
        }
        let sealed_count = self.segments.len() - 1;
        let sealed: Vec<SegmentSummary> = self.segments.iter().take(sealed_count).map(Segment::summary).collect();
        let shape = LogShape {
            sealed: &sealed,
            active: self.active().summary(),
            log_start: self.next_log_start,
            high_watermark: self.high_watermark.offset,
        };
        let Some(decision) = retention::decide(shape, policy, now.wall) else { return 0 };
        let mut decision = decision;
        if decision.roll_active && self.roll(io, now).is_err() {
            coverage::hit("retention: the active segment stays for now");
            // The next file is being made, or the disk is full: what is sealed goes nevertheless and makes room, and
            // the next round finds the rest.
            let Some(last) = decision.sealed_count.checked_sub(1) else { return 0 };
            decision.roll_active = false;
            decision.log_start = self.next_log_start.max(Offset(sealed[last].next_offset));
        }
        self.raise_log_start(io, decision.log_start.min(self.high_watermark.offset));
        coverage::hit(if decision.roll_active { "retention: of everything" } else { "retention: of sealed segments" });
        decision.sealed_count + usize::from(decision.roll_active)
    }

    fn raise_log_start(&mut self, io: &mut impl Io, to: Offset) {
        if to > self.next_log_start {
            self.next_log_start = to;
            self.checkpoints.wanted = true;
            if mutant::is_on("free_before_checkpoint") {
                self.free_segments();
                self.run_jobs(io);
            }
            self.go_on(io);
        }
    }

    /// Frees the files of sealed segments that the durable log start has passed.
    pub(super) fn free_segments(&mut self) {
        let dir = self.identity.dir.clone();
        let log_start =
            if mutant::is_on("free_before_checkpoint") { self.next_log_start } else { self.checkpoints.log_start };
        while let Some(segment) = self.segments.front()
            && self.segments.len() > 1
            && segment.is_sealed()
            && segment.next_offset <= log_start
            && self.rolling != Some(segment.base_offset)
            && !self.compaction.is_swapping()
        {
            let segment = self.segments.pop_front().expect("there is one");
            let cached = self.shared.files.forget(self.token_base, segment.base_offset);
            let is_read = self.compaction.reading == Some(segment.base_offset);
            let pinned = (is_read
                || [cached.as_ref(), segment.old_direct.as_ref()].into_iter().flatten().any(File::is_shared))
                && !mutant::is_on("reuse_under_a_reader");
            let spares =
                self.spare.is_some() || self.jobs.iter().any(|job| job.kind == JobKind::Free && job.makes_spare());
            let path = segment.path(&dir);
            let mut steps = vec![Step::Remove(FileName::Sidecar(segment.base_offset).path(&dir))];
            coverage::hit(match (pinned, spares) {
                (true, _) => "free: removed, a reader has it",
                (_, true) => "free: removed, there is a spare",
                _ => "free: becomes a spare",
            });
            if self.options.reuse && !pinned && !spares {
                let spare =
                    Spare { name: FileName::Spare(segment.base_offset).to_string(), size_bytes: segment.size_bytes };
                let to = dir.join(&spare.name);
                let ready = Step::Reached(Milestone::SpareReady(spare));
                steps.push(Step::Open { path: path.clone(), options: OpenOptions::default() });
                steps.push(Step::DropCache);
                steps.push(Step::Rename { from: path, to });
                match self.options.mutants().reuse_before_sync_dir {
                    false => steps.extend([Step::SyncDir(dir.clone()), ready]),
                    true => steps.push(ready),
                }
            } else {
                steps.extend([Step::Remove(path), Step::SyncDir(dir.clone())]);
            }
            self.jobs.push_back(Job::new(JobKind::Free, None, steps));
        }
    }

    /// Submits the next step of the first job, unless one is under way.
    pub(super) fn run_jobs(&mut self, io: &mut impl Io) {
        while let Some(job) = self.jobs.front_mut()
            && !self.step_running
        {
            let Some(step) = job.steps.pop_front() else {
                self.jobs.pop_front();
                continue;
            };
            if let Step::Reached(milestone) = step {
                let file = job.file.clone();
                self.reached(milestone, file);
                continue;
            }
            job.running = true;
            // Of a deleted directory: it may never have been made, or an earlier attempt may have renamed it.
            let may_be_renamed = job.kind == JobKind::Delete && matches!(step, Step::Rename { .. });
            job.forgiving = matches!(step, Step::Remove(_)) || may_be_renamed;
            let op = job.op(step);
            self.step_running = true;
            io.submit(self.token(OpKind::Job), op);
            return;
        }
    }

    /// Takes the completion of a step.
    pub(super) fn finish_step(&mut self, result: io::Result<Outcome>, now: Monotonic) {
        self.step_running = false;
        // Going offline clears the jobs; their last step still completes.
        let Some(job) = self.jobs.front_mut().filter(|job| job.running) else { return };
        job.running = false;
        match result {
            Ok(Outcome::Opened(file)) => job.file = Some(file),
            Ok(_) => {}
            Err(error) if job.forgiving && error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                let kind = self.jobs.pop_front().expect("it is there").kind;
                self.job_failed(kind, &error, now);
            }
        }
    }

    fn job_failed(&mut self, kind: JobKind, error: &io::Error, now: Monotonic) {
        match kind {
            JobKind::Materialize if is_disk_full(error) => {
                self.state = State::Absent;
                self.disk_full(now);
                self.tell_parked();
            }
            JobKind::Next if is_disk_full(error) => {
                self.disk_full(now);
                self.unmake_next();
                self.tell_parked();
            }
            // What they write can be written again or made from the batches.
            JobKind::Sidecar | JobKind::Checkpoint if is_disk_full(error) => {
                tracing::warn!(partition = %self.identity.dir.display(), ?kind, %error, "not written");
            }
            JobKind::Materialize => self.fail("making the directory", error),
            JobKind::Next => self.fail("making the next segment", error),
            JobKind::Roll => self.fail("sealing a segment", error),
            JobKind::Sidecar => self.fail("writing a sidecar", error),
            JobKind::Checkpoint => self.fail("writing a checkpoint", error),
            JobKind::Free => self.fail("freeing a segment", error),
            JobKind::Swap if self.abandon_swap(error) => {
                tracing::warn!(partition = %self.identity.dir.display(), %error, "compacted segment not swapped in");
            }
            JobKind::Swap => self.fail("swapping a compacted segment in", error),
            JobKind::Delete => {
                // The metadata says that it is deleted: a directory that is left is never adopted.
                tracing::warn!(partition = %self.identity.dir.display(), %error, "directory not renamed; it is tried again");
                (self.events.closed, self.events.left_over) = (true, true);
            }
        }
    }

    fn reached(&mut self, milestone: Milestone, file: Option<File>) {
        match milestone {
            Milestone::Materialized { prepared_bytes } => {
                let file = file.expect("the job has opened it");
                let base = self.end.offset;
                let name = FileName::Segment(base).to_string();
                let interval = self.options.index_interval_size_bytes;
                self.segments.push_back(Segment::new(base, name, file, prepared_bytes, false, interval));
                if self.state == State::Materializing {
                    self.state = State::Gated;
                }
                self.events.materialized = true;
            }
            Milestone::NextReady { name, prepared_bytes, reused } => {
                let file = file.expect("the job has opened it");
                self.making = None;
                self.next = Some(super::prepare::NextFile { file, name, prepared_bytes, reused });
                self.tell_parked();
            }
            Milestone::Sealed(base) => self.sealed(base),
            Milestone::SidecarWritten(base) => {
                coverage::hit("roll: sidecar written");
                if let Some(segment) = self.segment_mut(base) {
                    segment.index = Index::Sidecar;
                    segment.aborted.forget_entries();
                }
            }
            Milestone::Checkpointed { boundary, log_start, slot } => {
                coverage::hit("checkpoint: durable");
                self.checkpoints.sequence += 1;
                self.checkpoints.tells_gaps |= self.checkpoints.captured_gaps;
                self.checkpoints.slot = Some(slot);
                self.checkpoints.durable = boundary;
                self.checkpoints.log_start = log_start;
                if log_start > self.log_start {
                    self.log_start = log_start;
                    self.epochs.truncate_start(log_start);
                }
                self.events.checkpointed = true;
            }
            Milestone::SpareReady(spare) => self.spare = Some(spare),
            Milestone::DirectoryRenamed => self.events.closed = true,
            Milestone::SwapOpened => self.swap_opened(),
            Milestone::SwapNamed => self.swap_named(),
            Milestone::Swapped => self.swapped(file.expect("the job has opened it")),
            Milestone::SwapDone => self.swap_done(),
        }
    }
}
