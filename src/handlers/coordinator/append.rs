//! Records of coordinators into the logs of their partitions, and what follows.
//!
//! 1. [`Broker::coordinator_append`] queues the records of one change with its [`Continuation`].
//! 2. At the end of the turn the queues become batches, one for each partition, which share the writes of the turn.
//!    A log that is not ready (its directory or space is being made, memory is short) is tried again when something
//!    has completed; a write that waits for longer than `offsets.commit.timeout.ms` is refused.
//! 3. When the high watermark has passed a batch its continuations are followed in order.
//!
//! A change is never divided over two batches.

use std::time::Duration;

use super::consumer_groups::ConsumerGroupWrite;
use super::delete_groups::DeleteGroup;
use super::expiry::Expire;
use super::forget::Forget;
use super::offset_commit::Commit;
use super::offset_delete::Delete;
use super::offset_fetch::Fetch;
use super::{HostState, Place};
use crate::base::mutant;
use crate::base::time::Monotonic;
use crate::coordinator::group::event::Written;
use crate::coordinator::records::Record;
use crate::coordinator::transaction::event::Written as TransactionWritten;
use crate::handlers::broker::Broker;
use crate::handlers::deadlines::Deadline;
use crate::handlers::located::Located;
use crate::io::Io;
use crate::model::batch::Header;
use crate::model::builder::BatchBuilder;
use crate::model::compression::Codec;
use crate::model::id::{Offset, PartitionIndex, ProducerEpoch, ProducerId, Sequence};
use crate::model::limits::{COORDINATOR_BATCH_SIZE_BYTES_MAX, COORDINATOR_QUEUE_SIZE_BYTES_MAX};
use crate::model::marker::EndTransactionMarker;
use crate::protocol::Topic;
use crate::protocol::error::ErrorCode;
use crate::storage::{AppendError, State};

/// What a record takes in a batch beside key and value, at most: lengths, deltas, attributes.
const RECORD_OVERHEAD_BYTES: usize = 24;

/// What is to be done when a change is durable, or was refused: one variant for each kind of change.
#[derive(Debug)]
pub(in crate::handlers) enum Continuation {
    /// The state of a group.
    Group(Written),
    /// The state of a group of the consumer protocol.
    ConsumerGroup(Box<ConsumerGroupWrite>),
    /// A group that is deleted with its offsets.
    DeleteGroup(Box<DeleteGroup>),
    /// Offsets of a client's OffsetCommit.
    OffsetCommit(Box<Commit>),
    /// An OffsetFetch that waits for commits.
    OffsetFetch(Box<Fetch>),
    /// Offsets that a client deletes.
    OffsetDelete(Box<Delete>),
    /// Offsets that are expired.
    Expire(Expire),
    /// Offsets are forgotten whose topics are gone.
    Forget(Forget),
    /// The state of a transactional id.
    Transaction(TransactionWritten),
    /// Nothing: what the records say has happened already, and can be told again from others.
    Nothing,
    /// A marker of a transaction that has committed offsets here: who waits for it, and the decision.
    Marker { part: (u64, usize), producer: ProducerId, commits: bool },
}

impl Continuation {
    /// Group, topic and partition of each offset that this commits.
    pub(super) fn commits(&self) -> impl Iterator<Item = (&str, &str, PartitionIndex)> {
        let commit = match self {
            Continuation::OffsetCommit(commit) => Some(commit),
            _ => None,
        };
        commit.into_iter().flat_map(|commit| commit.keys())
    }
}

/// What kind of batch a change is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Batch {
    /// One of its own, or with others.
    Plain,
    /// With others of the same transaction.
    Transactional(ProducerId, ProducerEpoch),
    /// The marker of a transaction, which has no other records.
    Marker(ProducerId, ProducerEpoch, EndTransactionMarker),
}

/// A change that is not in the log yet.
#[derive(Debug)]
pub(super) struct Queued {
    batch: Batch,
    records: Vec<Record>,
    size_bytes: usize,
    pub then: Continuation,
    deadline: Monotonic,
}

impl Queued {
    /// True if it ends the producer's transaction.
    pub fn is_marker_of(&self, id: ProducerId) -> bool {
        matches!(self.batch, Batch::Marker(producer, ..) if producer == id)
    }
}

/// A change that is in the log and not durable yet.
#[derive(Debug)]
pub(super) struct Waiting {
    /// It is durable when the high watermark has come here.
    end: Offset,
    pub then: Continuation,
}

impl<I: Io> Broker<I> {
    /// Writes the records of one change of the group state in partition `index`. `then` is followed when they are
    /// durable, or at once or later with the reason why they are not. Without records it is followed when everything
    /// that was written before is durable.
    pub(in crate::handlers) fn coordinator_append(&mut self, index: Place, records: Vec<Record>, then: Continuation) {
        self.coordinator_append_as(index, Batch::Plain, records, then);
    }

    /// The same in a batch of some kind.
    pub(super) fn coordinator_append_as(
        &mut self,
        index: Place,
        batch: Batch,
        records: Vec<Record>,
        then: Continuation,
    ) {
        let timeout = Duration::from_millis(self.options.config.offsets_commit_timeout_ms);
        let deadline = self.now.monotonic + timeout;
        let size_bytes = records.iter().map(|record| record.size_bytes() + RECORD_OVERHEAD_BYTES).sum();
        let queued_size_bytes = self.coordinator.queued_size_bytes();
        let is_full = queued_size_bytes > 0 && queued_size_bytes + size_bytes > COORDINATOR_QUEUE_SIZE_BYTES_MAX;
        let refused = match self.coordinator.partitions.get_mut(&index) {
            None => ErrorCode::NotCoordinator,
            Some(hosted) => match hosted.check_active() {
                Err(error) => error,
                Ok(()) if is_full => ErrorCode::CoordinatorNotAvailable,
                Ok(()) => {
                    hosted.queued_size_bytes += size_bytes;
                    hosted.queued.push_back(Queued { batch, records, size_bytes, then, deadline });
                    self.coordinator.ready.insert(index);
                    return;
                }
            },
        };
        self.follow(index, then, Err(refused));
    }

    /// Does what a change was made for.
    pub(super) fn follow(&mut self, index: Place, then: Continuation, result: Result<(), ErrorCode>) {
        match then {
            Continuation::Group(written) => self.group_written(index, &written, result),
            Continuation::ConsumerGroup(write) => self.consumer_group_written(index, *write, result),
            Continuation::DeleteGroup(delete) => self.group_deleted(index, *delete, result),
            Continuation::OffsetCommit(commit) => self.offsets_committed(index, *commit, result),
            Continuation::OffsetFetch(fetch) => self.commits_settled(*fetch, result),
            Continuation::OffsetDelete(delete) => self.offsets_deleted(index, *delete, result),
            Continuation::Expire(expire) => self.offsets_expired(index, expire, result),
            Continuation::Forget(forget) => self.forgotten(index, forget, result),
            Continuation::Transaction(written) => self.transaction_written(index, &written, result),
            Continuation::Nothing => {}
            Continuation::Marker { part, producer, commits } => {
                self.offsets_decided(index, producer, commits, result);
                self.marker_settled(part, result);
            }
        }
    }

    /// Gives what is queued to the logs.
    pub(super) fn flush_coordinators(&mut self) {
        for index in std::mem::take(&mut self.coordinator.ready) {
            while self.flush_coordinator(index) {}
        }
    }

    /// Appends one batch of what is queued for a partition. True if more may be tried at once.
    fn flush_coordinator(&mut self, index: Place) -> bool {
        let now = self.now;
        let Some(hosted) = self.coordinator.partitions.get(&index) else { return false };
        if hosted.state != HostState::Active || hosted.queued.is_empty() {
            return false;
        }
        let (mut count, mut size_bytes) = (0, 0);
        let kind = hosted.queued[0].batch;
        let mut builder = BatchBuilder::new(Codec::None);
        if let Batch::Transactional(producer, epoch) = kind {
            builder = builder.producer(producer, epoch, Sequence(-1)).transactional();
        }
        for queued in &hosted.queued {
            let is_full = !builder.is_empty() && size_bytes + queued.size_bytes > COORDINATOR_BATCH_SIZE_BYTES_MAX;
            let is_alone = matches!(kind, Batch::Marker(..)) && count > 0;
            if is_full || is_alone || queued.batch != kind {
                break;
            }
            count += 1;
            size_bytes += queued.size_bytes;
            for record in &queued.records {
                builder.push(now.wall, Some(&record.key), record.value.as_deref(), &[]);
            }
        }
        let Located::Here(slot) = self.locate(Topic::Name(index.host.topic()), index.index) else {
            self.fail_coordinator(index, ErrorCode::NotCoordinator);
            return false;
        };
        let is_taken = self.partitions.get_mut(slot).log.state() == State::Absent && self.is_directory_taken(slot);
        let log = &mut self.partitions.get_mut(slot).log;
        let marker = match kind {
            Batch::Marker(producer, epoch, marker) => Some(marker.batch(producer, epoch, now.wall)),
            Batch::Plain | Batch::Transactional(..) => None,
        };
        let appended = if builder.is_empty() && marker.is_none() {
            Ok(log.log_end())
        } else if is_taken {
            Err(AppendError::NotReady)
        } else {
            let mut batch = marker.unwrap_or_else(|| builder.build());
            let header = Header::parse(&batch).expect("it was just built");
            let appended = log.append(&mut self.io, &mut batch, &header, now).map(|appended| appended.end);
            self.mark_dirty(slot);
            appended
        };
        let error = match appended {
            Ok(end) => {
                let hosted = self.coordinator.partitions.get_mut(&index).expect("it was there");
                hosted.queued_size_bytes -= size_bytes;
                hosted.waiting.extend(hosted.queued.drain(..count).map(|queued| Waiting { end, then: queued.then }));
                self.follow_durable(index, slot);
                return true;
            }
            Err(AppendError::NotReady | AppendError::NoMemory) => {
                self.coordinator.stuck.insert(index);
                return false;
            }
            Err(AppendError::DiskFull) => ErrorCode::CoordinatorNotAvailable,
            Err(AppendError::TooLarge) => ErrorCode::UnknownServerError,
            Err(AppendError::Offline(_) | AppendError::Closed) => ErrorCode::NotCoordinator,
        };
        self.refuse_queued(index, count, error);
        true
    }

    /// The high watermark of the partition in `slot` has moved: what it has passed is followed.
    pub(in crate::handlers) fn follow_durable(&mut self, index: Place, slot: u32) {
        let high_watermark = self.partitions.get_mut(slot).log.high_watermark();
        while let Some(hosted) = self.coordinator.partitions.get_mut(&index)
            && let Some(waiting) =
                hosted.waiting.pop_front_if(|waiting| waiting.end <= high_watermark || is_too_early(&waiting.then))
        {
            self.follow(index, waiting.then, Ok(()));
        }
    }

    /// Something has completed: logs that were not ready may be.
    pub(in crate::handlers) fn retry_coordinators(&mut self) {
        let host = &mut self.coordinator;
        host.ready.append(&mut host.stuck);
    }

    /// Refuses what has waited for too long to get into the log.
    pub(super) fn refuse_late_writes(&mut self) {
        let now = self.now.monotonic;
        let late = self.coordinator.partitions.iter().filter_map(|(index, hosted)| {
            let count = hosted.queued.iter().take_while(|queued| queued.deadline <= now).count();
            (count > 0).then_some((*index, count))
        });
        for (index, count) in late.collect::<Vec<_>>() {
            tracing::warn!(
                partition = index.index.0,
                count,
                topic = index.host.topic(),
                "changes waited too long for their log"
            );
            self.refuse_queued(index, count, ErrorCode::CoordinatorNotAvailable);
        }
    }

    fn refuse_queued(&mut self, index: Place, count: usize, error: ErrorCode) {
        let hosted = self.coordinator.partitions.get_mut(&index).expect("something is queued there");
        let refused: Vec<Queued> = hosted.queued.drain(..count).collect();
        for queued in refused {
            if let Some(hosted) = self.coordinator.partitions.get_mut(&index) {
                hosted.queued_size_bytes = hosted.queued_size_bytes.saturating_sub(queued.size_bytes);
            }
            self.follow(index, queued.then, Err(error));
        }
    }

    /// The next turn comes at once.
    pub(super) fn coordinate_soon(&mut self) {
        self.deadlines.push(self.now.monotonic, Deadline::Coordinator);
    }
}

/// True if a broken rule lets `then` be followed before its records are durable.
fn is_too_early(then: &Continuation) -> bool {
    match then {
        Continuation::Group(_) => mutant::is_on("assign_before_durable"),
        Continuation::ConsumerGroup(_) => mutant::is_on("tell_before_durable"),
        Continuation::OffsetCommit(_) => mutant::is_on("commit_before_durable"),
        _ => false,
    }
}
