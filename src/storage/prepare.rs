//! Space ahead of the writer: steps of zeros in the active file, the next file, and the first one.
//!
//! 1. The active file grows in separately synced steps. A step is as large as twice the one before, so that it
//!    follows the partition's own rate: an almost empty partition costs one step of 16 KiB.
//! 2. A step is started when what is left is less than half of the last; a batch that finds no room waits.
//! 3. The next segment's file is made (or a freed one taken) when the active one is three quarters full, or when a
//!    roll finds none. It bears a spare's name until it has been rolled to.
//!
//! Invariants
//! - Zeros are only written above `prepared_bytes`, batches only below it.
//! - A full disk is met here, before a batch is accepted, and is not sticky.

use std::io;

use crate::base::coverage;
use crate::base::mutant;
use crate::base::time::{Monotonic, Now};
use crate::base::units::{KIB, MIB, align_down};
use crate::io::{File, Io, Op, OpenOptions, Outcome};
use crate::model::id::Offset;
use crate::model::limits::BLOCK_SIZE_BYTES;

use super::event::AppendError;
use super::job::{Job, JobKind, Milestone, Step};
use super::layout::{self, FileName};
use super::log::{Log, OpKind, State, is_disk_full};
use super::options::PrepareMode;
use super::tail_cache::block_end;

const BLOCK: u64 = BLOCK_SIZE_BYTES as u64;
const STEP_SIZE_BYTES_MIN: u64 = 16 * KIB as u64;
const STEP_SIZE_BYTES_MAX: u64 = 16 * MIB as u64;
/// Reserved for checkpoints when the directory is made: two of the smallest, so that they fit on a full disk.
const CHECKPOINT_RESERVED_BYTES: u64 = 2 * BLOCK;

/// How a log's space grows.
pub(super) struct Space {
    step_bytes: u64,
    /// The segment and the position up to which a step under way prepares it.
    preparing: Option<(Offset, u64)>,
    /// The disk was full: it is not asked again before.
    full_until: Option<Monotonic>,
}

impl Default for Space {
    fn default() -> Space {
        Space { step_bytes: STEP_SIZE_BYTES_MIN, preparing: None, full_until: None }
    }
}

impl Space {
    /// True while a step is under way.
    pub fn is_busy(&self) -> bool {
        self.preparing.is_some()
    }

    /// True while a step works on this segment.
    pub fn is_preparing(&self, segment: Offset) -> bool {
        self.preparing.is_some_and(|(preparing, _)| preparing == segment)
    }

    fn is_full(&self, now: Monotonic) -> bool {
        self.full_until.is_some_and(|until| now < until)
    }
}

/// The next segment's file.
pub(super) struct NextFile {
    pub file: File,
    pub name: String,
    pub prepared_bytes: u64,
    pub reused: bool,
}

/// A freed file that may be overwritten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spare {
    pub name: String,
    pub size_bytes: u64,
}

/// Whether a batch fits into prepared space.
pub(super) enum Room {
    Enough,
    Soon,
    Full,
}

impl Log {
    /// Begins to make the directory of a log that has none, for an append that is known to follow soon.
    pub fn materialize_ahead(&mut self, io: &mut impl Io, now: Now) {
        if self.state == State::Absent && self.offline.is_none() {
            // What stands in its way the append itself will tell.
            let _ = self.materialize(io, now);
        }
    }

    /// Starts making the directory and the first file, and says why the append must wait.
    pub(super) fn materialize(&mut self, io: &mut impl Io, now: Now) -> AppendError {
        if self.space.is_full(now.monotonic) {
            return AppendError::DiskFull;
        }
        let Some(text) = self.shared.pool.take_append(BLOCK_SIZE_BYTES) else { return AppendError::NoMemory };
        let identity = &self.identity;
        text.append(layout::format_partition_metadata(identity.topic_id).as_bytes());
        let create = OpenOptions { write: true, create: true, ..OpenOptions::default() };
        let direct = OpenOptions { direct: true, ..create };
        let dir = &identity.dir;
        let mut steps = vec![
            Step::CreateDir(dir.clone()),
            Step::Open { path: FileName::PartitionMetadata.path(dir), options: create },
            Step::Write { offset: 0, content: text.slice(0..text.len()) },
            Step::Sync,
            Step::Open { path: FileName::Checkpoint.path(dir), options: direct },
            Step::Zeros { offset: 0, length_bytes: CHECKPOINT_RESERVED_BYTES },
            Step::Open { path: FileName::Segment(self.end.offset).path(dir), options: direct },
            Step::Truncate(0),
        ];
        let prepared_bytes = self.first_space(&mut steps, 0, STEP_SIZE_BYTES_MIN);
        if !mutant::is_on("skip_directory_sync") {
            steps.push(Step::SyncDir(dir.clone()));
            steps.push(Step::SyncDir(identity.parent.clone()));
        }
        steps.push(Step::Reached(Milestone::Materialized { prepared_bytes }));
        self.jobs.push_back(Job::new(JobKind::Materialize, None, steps));
        self.state = State::Materializing;
        self.run_jobs(io);
        AppendError::NotReady
    }

    /// Adds the steps that prepare a file of `size_bytes` up to `up_to_bytes`, by the option's way; returns how far
    /// it will be prepared.
    fn first_space(&self, steps: &mut Vec<Step>, size_bytes: u64, up_to_bytes: u64) -> u64 {
        let from = align_down(size_bytes, BLOCK);
        let up_to = up_to_bytes.min(block_end(self.options.segment_size_bytes));
        match self.options.prepare {
            _ if from >= up_to => from,
            PrepareMode::Zeros => {
                steps.push(Step::Zeros { offset: from, length_bytes: up_to - from });
                up_to
            }
            PrepareMode::Allocate => {
                steps.push(Step::Allocate { length_bytes: up_to });
                steps.push(Step::Sync);
                up_to
            }
            PrepareMode::None => {
                steps.push(Step::Sync);
                from
            }
        }
    }

    /// Whether a batch of `size_bytes` fits behind the end; starts preparing more where little is left.
    pub(super) fn find_space(&mut self, io: &mut impl Io, size_bytes: u64, now: Monotonic) -> Room {
        let needed = block_end(self.end.position + size_bytes);
        let limit = block_end(self.options.segment_size_bytes);
        if needed >= limit / 4 * 3 && self.next.is_none() && self.rolling.is_none() {
            self.prepare_next(io, now);
        }
        if self.options.prepare == PrepareMode::None {
            return Room::Enough;
        }
        let step = self.space.step_bytes;
        let (segment, prepared) = {
            let active = self.active();
            (active.base_offset, active.prepared_bytes)
        };
        let enough = prepared >= needed;
        let little = prepared < limit && prepared < needed + step / 2;
        if little && !self.space.is_busy() && !self.space.is_full(now) {
            let up_to = (prepared + step).min(limit).max(needed);
            let file = self.active().direct.clone().expect("the active segment is written direct");
            let (offset, length_bytes) = (prepared, up_to - prepared);
            let op = match self.options.prepare {
                PrepareMode::Zeros => Op::WriteZeros { file, offset, length_bytes },
                PrepareMode::Allocate | PrepareMode::None => Op::Allocate { file, offset, length_bytes },
            };
            io.submit(self.token(OpKind::Prepare), op);
            self.space.preparing = Some((segment, up_to));
            self.space.step_bytes = (step * 2).min(STEP_SIZE_BYTES_MAX);
        }
        match (enough, self.space.is_full(now)) {
            (true, _) => Room::Enough,
            (false, true) => Room::Full,
            (false, false) => {
                coverage::hit("space: a batch waits");
                Room::Soon
            }
        }
    }

    /// Takes the completion of a step.
    pub(super) fn finish_prepare(&mut self, result: io::Result<Outcome>, now: Monotonic) {
        let (segment, up_to) = self.space.preparing.take().expect("a step completes once");
        match result {
            Ok(_) => {
                coverage::hit("space: a step");
                self.space.full_until = None;
                if let Some(segment) = self.segment_mut(segment) {
                    segment.prepared_bytes = up_to;
                }
            }
            Err(error) if is_disk_full(&error) => self.disk_full(now),
            Err(error) => self.fail("preparing space", &error),
        }
        self.tell_parked();
    }

    /// The disk is full: appends that need space are refused for a while.
    pub(super) fn disk_full(&mut self, now: Monotonic) {
        coverage::hit("space: disk full");
        tracing::warn!(partition = %self.identity.dir.display(), "disk full");
        self.space.full_until = Some(now + self.options.disk_full_pause);
        self.space.step_bytes = STEP_SIZE_BYTES_MIN;
    }

    /// Those who were refused may try again.
    pub(super) fn tell_parked(&mut self) {
        if std::mem::take(&mut self.parked) {
            self.events.room = true;
        }
    }

    /// Starts making the next segment's file ready, unless it is or is being made.
    pub(super) fn prepare_next(&mut self, io: &mut impl Io, now: Monotonic) {
        let queued = self.jobs.iter().any(|job| job.kind == JobKind::Next);
        if self.next.is_some() || queued || self.space.is_full(now) {
            return;
        }
        let mut steps = Vec::new();
        let options = OpenOptions { write: true, create: true, direct: true, ..OpenOptions::default() };
        let (name, size_bytes, reused) = match self.spare.take() {
            Some(spare) => {
                coverage::hit("next file: a spare is reused");
                (spare.name, spare.size_bytes, true)
            }
            None => {
                coverage::hit("next file: a new one is made");
                (FileName::Spare(self.end.offset).to_string(), 0, false)
            }
        };
        steps.push(Step::Open { path: self.identity.dir.join(&name), options });
        if !reused {
            steps.push(Step::Truncate(0));
        }
        // A spare is taken as it is: on a full disk it is all there is.
        let up_to_bytes = if reused { STEP_SIZE_BYTES_MIN } else { self.space.step_bytes };
        let prepared_bytes = self.first_space(&mut steps, size_bytes, up_to_bytes);
        if !reused {
            steps.push(Step::SyncDir(self.identity.dir.clone()));
        }
        self.making = Some((Spare { name: name.clone(), size_bytes }, reused));
        steps.push(Step::Reached(Milestone::NextReady { name, prepared_bytes, reused }));
        self.jobs.push_back(Job::new(JobKind::Next, None, steps));
        self.run_jobs(io);
    }

    /// The next file could not be made for want of space: a spare is kept, a new file goes.
    pub(super) fn unmake_next(&mut self) {
        match self.making.take() {
            Some((spare, true)) => {
                coverage::hit("next file: no room for a spare, it is kept");
                self.spare = Some(spare);
            }
            Some((spare, false)) => {
                coverage::hit("next file: no room for a new one, it goes");
                let path = self.identity.dir.join(spare.name);
                self.jobs.push_back(Job::new(JobKind::Free, None, [Step::Remove(path)]));
            }
            None => {}
        }
    }

    /// Whether the disk was found full so recently that it is not asked again.
    pub(super) fn is_disk_full(&self, now: Monotonic) -> bool {
        self.space.is_full(now)
    }
}
