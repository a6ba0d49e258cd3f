//! The log of one partition: fields, face, and where completions go.
//!
//! How the parts share the work: [`super::appender`] stages a batch, [`super::commit`] makes it durable,
//! [`super::prepare`] and [`super::roll`] keep files ahead of and behind it, [`super::reader`] reads. Each is an
//! `impl Log` of its own file. The owner calls `append`, then `commit` once per loop turn for logs that are dirty,
//! and hands every completion whose token has the log's upper bits to [`Log::complete`].
//!
//! Invariants
//! - `log start <= last stable offset <= high watermark <= end`, `settled <= durable <= end`, `settled <= written <= end`.
//! - The log start that anybody is told is durable: a raised one counts once a checkpoint says so.
//! - Between `append` calls the tail holds everything from the last written block to the end.
//! - At most one write of batches is under way, be it the journal's, and at most one step of a job, one preparation and one sync.
//! - An open, quiet log holds less than 32 KiB; one without data no buffer at all.
//! - `append`, `commit` and the completion of a write allocate nothing per batch beyond buffers.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;

use crate::base::time::Now;
use crate::io::{Io, Outcome, Pool, Token};
use crate::model::id::{LeaderEpoch, Offset, PartitionIndex, TopicId};

use super::commit::InFlight;
use super::compaction::swap::Compaction;
use super::epochs::LeaderEpochs;
use super::event::{Boundary, Events, Offline};
use super::files::FileCache;
use super::job::Job;
use super::options::{AckAfter, LogOptions};
use super::prepare::{NextFile, Space, Spare};
use super::producer_state::ProducerState;
use super::reader::Hints;
use super::roll::Checkpoints;
use super::segment::Segment;
use super::tail_cache::{Tail, TailBudget};
use super::transactions::Transactions;

/// Low bits of a token that belong to the log. The owner's base token has them zero.
pub const TOKEN_BITS: u32 = 8;

/// What the logs of a shard share. Clones are the same.
#[derive(Clone)]
pub struct Resources {
    /// Buffers.
    pub pool: Pool,
    /// The budget of written buffers.
    pub tail: TailBudget,
    /// Sealed files and sidecars.
    pub files: FileCache,
}

/// The log's own operations, as they stand in the low bits of their tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OpKind {
    Commit = 1,
    Sync = 2,
    Prepare = 3,
    Job = 4,
}

/// Where a log is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No directory: costs nothing until the first append.
    Absent,
    /// The directory is being made.
    Materializing,
    /// The directory is durable; the owner has yet to record that the partition has data.
    Gated,
    /// Takes appends.
    Serving,
    /// Being closed: staged batches become durable, nothing new is taken.
    Closing,
    /// Everything is durable and described by a checkpoint.
    Closed,
    /// The directory is being or has been renamed away.
    Deleted,
}

/// Who a log is and where it lives.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The topic's id, written into `partition.metadata`.
    pub topic_id: TopicId,
    /// The partition within it.
    pub partition: PartitionIndex,
    /// `DATA/topics`.
    pub parent: PathBuf,
    /// `DATA/topics/<topic>-<partition>`.
    pub dir: PathBuf,
}

/// The log of one partition.
pub struct Log {
    pub(super) token_base: u64,
    pub(super) identity: Identity,
    pub(super) options: LogOptions,
    pub(super) shared: Resources,
    pub(super) state: State,
    pub(super) offline: Option<Offline>,
    pub(super) leader_epoch: LeaderEpoch,

    pub(super) segments: VecDeque<Segment>,
    pub(super) tail: Tail,
    pub(super) log_start: Offset,
    /// What the log start will be when a checkpoint says so; not below it.
    pub(super) next_log_start: Offset,
    pub(super) end: Boundary,
    pub(super) written: Boundary,
    pub(super) durable: Boundary,
    /// Durable in the segments themselves; above it the journal has what is durable.
    pub(super) settled: Boundary,
    /// What is below must be settled soon.
    pub(super) settle_to: Offset,
    pub(super) high_watermark: Boundary,
    /// Bytes are written that no sync covers.
    pub(super) unsynced: bool,

    pub(super) in_flight: Option<InFlight>,
    /// What the journal's write under way will have made durable.
    pub(super) journaling: Option<Boundary>,
    /// What the sync under way will have made durable.
    pub(super) syncing: Option<Boundary>,
    pub(super) staging_size_bytes: usize,
    /// Bytes of batches that are not written yet.
    pub(super) staged_bytes: u64,

    pub(super) space: Space,
    pub(super) next: Option<NextFile>,
    /// What `next` is being made of, and whether it was a spare.
    pub(super) making: Option<(Spare, bool)>,
    pub(super) spare: Option<Spare>,
    /// A segment waits to be sealed: no further roll until then.
    pub(super) rolling: Option<Offset>,
    /// The sidecar of the segment being sealed, made when it ended.
    pub(super) sidecar: Option<Vec<u8>>,
    pub(super) jobs: VecDeque<Job>,
    /// A job's step is under way.
    pub(super) step_running: bool,
    pub(super) checkpoints: Checkpoints,
    pub(super) compaction: Compaction,
    pub(super) close_without_checkpoint: bool,
    /// An append was refused; `Events::room` will say when to try again.
    pub(super) parked: bool,

    pub(super) producers: ProducerState,
    pub(super) transactions: Transactions,
    pub(super) epochs: LeaderEpochs,
    pub(super) hints: Hints,
    /// For events that arise outside `complete`.
    pub(super) events: Events,
}

impl Log {
    /// A log without files: a new partition. The low [`TOKEN_BITS`] of `token_base` must be zero.
    pub fn new(
        token_base: u64,
        identity: Identity,
        options: LogOptions,
        leader_epoch: LeaderEpoch,
        shared: Resources,
    ) -> Log {
        assert!(token_base.trailing_zeros() >= TOKEN_BITS, "{token_base:#x} has low bits set");
        Log {
            token_base,
            identity,
            options,
            state: State::Absent,
            offline: None,
            leader_epoch,
            segments: VecDeque::new(),
            tail: Tail::new(shared.tail.clone()),
            log_start: Offset(0),
            next_log_start: Offset(0),
            end: Boundary::default(),
            written: Boundary::default(),
            durable: Boundary::default(),
            settled: Boundary::default(),
            settle_to: Offset(0),
            high_watermark: Boundary::default(),
            unsynced: false,
            in_flight: None,
            journaling: None,
            syncing: None,
            staging_size_bytes: crate::io::buffer::SIZE_MIN_BYTES,
            staged_bytes: 0,
            space: Space::default(),
            next: None,
            making: None,
            spare: None,
            rolling: None,
            sidecar: None,
            jobs: VecDeque::new(),
            step_running: false,
            checkpoints: Checkpoints::default(),
            compaction: Compaction::default(),
            close_without_checkpoint: false,
            parked: false,
            producers: ProducerState::default(),
            transactions: Transactions::default(),
            epochs: LeaderEpochs::default(),
            hints: Hints::default(),
            events: Events::default(),
            shared,
        }
    }

    /// Where the log is in its life.
    pub fn state(&self) -> State {
        self.state
    }

    /// Why it is offline, if it is.
    pub fn offline(&self) -> Option<&Offline> {
        self.offline.as_ref()
    }

    /// Who it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Its options.
    pub fn options(&self) -> &LogOptions {
        &self.options
    }

    /// Log start offset; it is durable.
    pub fn log_start(&self) -> Offset {
        self.log_start
    }

    /// Log end offset.
    pub fn log_end(&self) -> Offset {
        self.end.offset
    }

    /// What readers may see; appends below it are acknowledged.
    pub fn high_watermark(&self) -> Offset {
        self.high_watermark.offset
    }

    /// Everything below is synced.
    pub fn durable_offset(&self) -> Offset {
        self.durable.offset
    }

    /// The epoch that batches are stamped with.
    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.leader_epoch
    }

    /// Leadership was taken again: later batches carry `epoch`, which must not be below the present one.
    pub fn set_leader_epoch(&mut self, epoch: LeaderEpoch) {
        assert!(epoch >= self.leader_epoch);
        self.leader_epoch = epoch;
    }

    /// What idempotent producers have written.
    pub fn producers(&self) -> &ProducerState {
        &self.producers
    }

    /// What idempotent producers have written, to expire entries.
    pub fn producers_mut(&mut self) -> &mut ProducerState {
        &mut self.producers
    }

    /// The answer to `OffsetForLeaderEpoch`: see [`LeaderEpochs::end_offset_for`]. The end is the high watermark.
    pub fn epoch_end_offset(&self, requested: LeaderEpoch) -> (LeaderEpoch, Offset) {
        if self.epochs.latest().is_none_or(|latest| latest < self.leader_epoch) && requested == self.leader_epoch {
            return (requested, self.high_watermark.offset);
        }
        self.epochs.end_offset_for(requested, self.high_watermark.offset)
    }

    /// The history of leader epochs.
    pub fn epochs(&self) -> &LeaderEpochs {
        &self.epochs
    }

    /// Bytes of all batches from the first segment's start to the end.
    pub fn size_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.size_bytes).sum()
    }

    /// Scripts of file operations that are under way or wait.
    pub fn job_count(&self) -> usize {
        self.jobs.len()
    }

    /// Number of segments.
    pub fn segment_count(&self) -> usize {
        self.segments.len()
    }

    /// Bytes of buffers held.
    pub fn memory_bytes(&self) -> usize {
        self.tail.memory_bytes()
    }

    /// True if `commit` has something to do.
    pub fn is_dirty(&self) -> bool {
        let is_due = self.options.ack_after != AckAfter::Sync
            || self.end.offset > self.durable.offset
            || (self.must_settle() && self.end.offset > self.settled.offset);
        self.offline.is_none() && !self.is_committing() && self.staged_bytes > 0 && is_due
    }

    /// Gives memory back that only a busy log needs. For the owner's slow tick, on logs that were quiet since the
    /// last one.
    pub fn shrink(&mut self) {
        self.tail.shrink();
        self.staging_size_bytes = crate::io::buffer::SIZE_MIN_BYTES;
    }

    /// The owner has recorded durably that this partition has data: appends may now be taken. Returns `room`.
    pub fn allow_serving(&mut self) -> Events {
        if self.state == State::Gated {
            self.state = State::Serving;
        }
        Events { room: true, ..Events::default() }
    }

    /// Changes the options. A log that from now on acknowledges after `sync` first has what is written synced; the
    /// high watermark never goes back, so what was acknowledged stays so.
    pub fn set_options(&mut self, io: &mut impl Io, options: LogOptions) -> Events {
        self.options = options;
        self.move_high_watermark();
        self.go_on(io);
        self.take_events()
    }

    /// Takes the completion of an operation of this log.
    pub fn complete(&mut self, io: &mut impl Io, token: Token, result: io::Result<Outcome>, now: Now) -> Events {
        let kind = (token.0 - self.token_base) as u32;
        match kind {
            k if k == OpKind::Commit as u32 => self.finish_write(io, result),
            k if k == OpKind::Sync as u32 => self.finish_sync(io, result),
            k if k == OpKind::Prepare as u32 => self.finish_prepare(result, now.monotonic),
            k if k == OpKind::Job as u32 => self.finish_step(result, now.monotonic),
            _ => panic!("token {:#x} is not one of {:#x}", token.0, self.token_base),
        }
        self.go_on(io);
        self.take_events()
    }

    /// What follows from the present state: sealing, jobs, closing.
    pub(super) fn go_on(&mut self, io: &mut impl Io) {
        if self.state == State::Deleted {
            return self.run_jobs(io);
        }
        if self.offline.is_some() {
            return;
        }
        if self.rolling.is_some() || self.checkpoints.captured.is_some() || self.options.ack_after == AckAfter::Sync {
            // In modes that do not sync each write, and for what was written before the mode became `sync`.
            self.sync_written(io);
        }
        if self.must_settle() && self.end.offset == self.durable.offset {
            // Nobody else would: there is nothing to be committed.
            self.commit(io);
        }
        self.seal_if_durable();
        self.go_on_checkpoint();
        self.run_jobs(io);
        self.free_segments();
        self.run_jobs(io);
        self.go_on_closing(io);
    }

    /// Events since the last call: for the owner, after `append` and `commit`.
    pub fn take_events(&mut self) -> Events {
        self.events.dirty = self.is_dirty();
        std::mem::take(&mut self.events)
    }

    /// Sticky: what is on disk is unknown, or known to be wrong.
    pub(super) fn go_offline(&mut self, cause: Offline) {
        if self.offline.is_none() {
            tracing::error!(partition = %self.identity.dir.display(), %cause, "partition goes offline");
            self.offline = Some(cause);
            self.events.offline = true;
            // A directory that is being deleted goes all the same.
            if self.state != State::Deleted {
                self.jobs.clear();
            }
        }
    }

    /// Sticky after a failed operation.
    pub(super) fn fail(&mut self, what: &'static str, error: &io::Error) {
        self.go_offline(Offline::Failed { what, error: error.to_string() });
    }

    /// The token of an operation of this log.
    pub(super) fn token(&self, kind: OpKind) -> Token {
        Token(self.token_base | kind as u64)
    }

    /// The segment that is appended to.
    pub(super) fn active(&mut self) -> &mut Segment {
        self.segments.back_mut().expect("a log with a directory has an active segment")
    }

    /// The segment with this base offset.
    pub(super) fn segment(&self, base_offset: Offset) -> Option<&Segment> {
        let at = self.segments.partition_point(|segment| segment.base_offset < base_offset);
        self.segments.get(at).filter(|segment| segment.base_offset == base_offset)
    }

    /// The segment with this base offset.
    pub(super) fn segment_mut(&mut self, base_offset: Offset) -> Option<&mut Segment> {
        let at = self.segments.partition_point(|segment| segment.base_offset < base_offset);
        self.segments.get_mut(at).filter(|segment| segment.base_offset == base_offset)
    }
}

/// True for the errors of a full disk or quota.
pub(super) fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
