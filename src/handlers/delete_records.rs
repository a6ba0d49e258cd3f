//! DeleteRecords: the log start is raised, and the answer waits until that is durable.
//!
//! A log tells its raised start, to readers as well as here, once a checkpoint says so: who was answered never meets
//! the deleted records again, whatever happens to the power. A partition that cannot say so in time is answered with a
//! timeout of its own; its records may be gone a moment later, as in Kafka.
//!
//! Invariant: a request that waits stands in the list of each partition that it waits for, and in no other.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kafka_protocol::messages::delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult};
use kafka_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse};
use rustc_hash::FxHashMap;

use super::broker::Broker;
use super::call::Call;
use super::deadlines::Deadline;
use super::metadata::is_internal;
use crate::io::Io;
use crate::model::id::{LeaderEpoch, Offset, PartitionIndex};
use crate::model::limits::DELETE_RECORDS_WAIT_MAX;
use crate::protocol::error::ErrorCode;

/// Where in its request a partition stands: its topic's place and its own.
type Place = (usize, usize);

/// A request that is not answered yet.
#[derive(Debug)]
struct Deletion {
    call: Call,
    topics: Vec<DeleteRecordsTopicResult>,
    /// By slot: whose answers wait, and for which log start.
    waiting: BTreeMap<u32, Vec<(Place, Offset)>>,
}

/// The DeleteRecords requests of a shard that wait for log starts to be durable.
#[derive(Debug, Default)]
pub struct Deletions {
    tasks: FxHashMap<u64, Deletion>,
    by_slot: FxHashMap<u32, BTreeSet<u64>>,
    taken: u64,
}

impl Deletions {
    /// True if a request of this number still waits.
    pub fn is_waiting(&self, number: u64) -> bool {
        self.tasks.contains_key(&number)
    }

    fn of(&self, slot: u32) -> Vec<u64> {
        self.by_slot.get(&slot).into_iter().flatten().copied().collect()
    }

    /// The request no longer waits for the slot.
    fn forget(&mut self, slot: u32, number: u64) {
        if let Some(numbers) = self.by_slot.get_mut(&slot) {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.by_slot.remove(&slot);
            }
        }
    }
}

impl<I: Io> Broker<I> {
    /// Raises the log starts, and answers when they are durable.
    pub(super) fn delete_records(&mut self, call: Call, request: DeleteRecordsRequest) {
        let mut deletion = Deletion { call, topics: Vec::new(), waiting: BTreeMap::new() };
        for (at, topic) in request.topics.into_iter().enumerate() {
            let mut results = Vec::with_capacity(topic.partitions.len());
            for (place, asked) in topic.partitions.iter().enumerate() {
                let index = PartitionIndex(asked.partition_index);
                let result = match self.raise_log_start(&topic.name, index, Offset(asked.offset)) {
                    Err(error) => refused(error),
                    Ok((slot, to)) => {
                        let log_start = self.partitions.get_mut(slot).log.log_start();
                        if log_start < to {
                            deletion.waiting.entry(slot).or_default().push(((at, place), to));
                        }
                        done(log_start)
                    }
                };
                results.push(result.with_partition_index(index.0));
            }
            deletion.topics.push(DeleteRecordsTopicResult::default().with_name(topic.name).with_partitions(results));
        }
        if deletion.waiting.is_empty() {
            return self.answer_deletion(deletion);
        }
        self.deletions.taken += 1;
        let number = self.deletions.taken;
        for slot in deletion.waiting.keys() {
            self.deletions.by_slot.entry(*slot).or_default().insert(number);
        }
        self.deletions.tasks.insert(number, deletion);
        let wait = Duration::from_millis(request.timeout_ms.max(0) as u64).min(DELETE_RECORDS_WAIT_MAX);
        self.deadlines.push(self.now.monotonic + wait, Deadline::Deletion(number));
    }

    /// Asks the partition's log to start at `offset` (-1: at its high watermark): its slot, and the log start that is
    /// to be waited for.
    fn raise_log_start(
        &mut self,
        topic: &str,
        index: PartitionIndex,
        offset: Offset,
    ) -> Result<(u32, Offset), ErrorCode> {
        if !self.image.topic_by_name(topic).is_some_and(|topic| topic.has(index)) {
            return Err(ErrorCode::UnknownTopicOrPartition);
        }
        if is_internal(topic) {
            return Err(ErrorCode::InvalidTopicException);
        }
        let slot = self.led_partition(topic, index, LeaderEpoch::NONE)?;
        let partition = self.partitions.get_mut(slot);
        let policy = partition.config.cleanup_policy;
        if policy.compact && !policy.delete {
            return Err(ErrorCode::PolicyViolation);
        }
        let to = partition.log.delete_records(&mut self.io, offset).map_err(|_| ErrorCode::OffsetOutOfRange)?;
        let events = partition.log.take_events();
        self.react(slot, events);
        Ok((slot, to))
    }

    /// The partition's log start may have become durable.
    pub(super) fn look_at_deletions(&mut self, slot: u32) {
        for number in self.deletions.of(slot) {
            let log_start = self.partitions.get_mut(slot).log.log_start();
            self.settle_deletion(slot, number, |to| (to <= log_start).then(|| done(log_start)));
        }
    }

    /// The partition will not say that its log start is durable.
    pub(super) fn refuse_deletions(&mut self, slot: u32, error: ErrorCode) {
        for number in self.deletions.of(slot) {
            self.settle_deletion(slot, number, |_| Some(refused(error)));
        }
    }

    /// The client does not wait any longer.
    pub(super) fn deletion_waited(&mut self, number: u64) {
        let Some(deletion) = self.deletions.tasks.get(&number) else { return };
        let slots: Vec<u32> = deletion.waiting.keys().copied().collect();
        for slot in slots {
            self.settle_deletion(slot, number, |_| Some(refused(ErrorCode::RequestTimedOut)));
        }
    }

    /// Notes what `judge` says about the log starts that a request waits for at a slot; the last one answers it.
    fn settle_deletion(
        &mut self,
        slot: u32,
        number: u64,
        judge: impl Fn(Offset) -> Option<DeleteRecordsPartitionResult>,
    ) {
        let Some(deletion) = self.deletions.tasks.get_mut(&number) else { return };
        let Some(waiting) = deletion.waiting.get_mut(&slot) else { return };
        waiting.retain(|((topic, place), to)| {
            let Some(result) = judge(*to) else { return true };
            let told = &mut deletion.topics[*topic].partitions[*place];
            *told = result.with_partition_index(told.partition_index);
            false
        });
        if !waiting.is_empty() {
            return;
        }
        deletion.waiting.remove(&slot);
        let is_over = deletion.waiting.is_empty();
        self.deletions.forget(slot, number);
        if is_over && let Some(deletion) = self.deletions.tasks.remove(&number) {
            self.answer_deletion(deletion);
        }
    }

    fn answer_deletion(&mut self, deletion: Deletion) {
        self.reply(deletion.call, &DeleteRecordsResponse::default().with_topics(deletion.topics));
    }
}

fn done(log_start: Offset) -> DeleteRecordsPartitionResult {
    DeleteRecordsPartitionResult::default().with_low_watermark(log_start.0)
}

fn refused(error: ErrorCode) -> DeleteRecordsPartitionResult {
    DeleteRecordsPartitionResult::default().with_low_watermark(-1).with_error_code(error.code())
}
