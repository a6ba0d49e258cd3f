//! Markers: the control batches that end transactions in this shard's partitions, and WriteTxnMarkers.
//!
//! 1. An order names a decision and partitions of this shard: of a transaction's coordinator, here or on another shard,
//!    or of an operator who ends a hanging transaction.
//! 2. Each marker goes through its partition's log like any batch; into a partition of the offsets topic through its
//!    coordinator, which learns what the transaction has committed. A log that is not ready is tried again when
//!    something has completed.
//! 3. When the last marker of an order is durable, or was refused, the order is answered. Refused ones are the
//!    coordinator's to send again.
//!
//! A partition that is gone needs no marker. One whose producer has moved on to a newer epoch needs none either.

use std::collections::{BTreeMap, VecDeque};

use kafka_protocol::messages::write_txn_markers_response::{
    WritableTxnMarkerPartitionResult, WritableTxnMarkerResult, WritableTxnMarkerTopicResult,
};
use kafka_protocol::messages::{WriteTxnMarkersRequest, WriteTxnMarkersResponse};

use super::broker::Broker;
use super::bus::Message;
use super::call::Call;
use super::errors;
use super::located::Located;
use crate::base::mutant;
use crate::coordinator::transaction::event::Producer;
use crate::io::Io;
use crate::model::batch::Header;
use crate::model::id::{Offset, PartitionIndex, ProducerEpoch, ProducerId, ShardId, TopicIdPartition};
use crate::model::limits::WRITTEN_MARKER_COUNT_MAX;
use crate::model::marker::EndTransactionMarker;
use crate::protocol::Topic;
use crate::protocol::error::ErrorCode;
use crate::storage::{AppendError, State};

/// A coordinator's decision for partitions of one shard.
#[derive(Clone, Debug)]
pub struct MarkerOrder {
    /// The shard of the coordinator.
    pub shard: ShardId,
    /// The coordinator's partition.
    pub index: PartitionIndex,
    /// Whose transaction.
    pub transactional_id: Box<str>,
    /// Its producer.
    pub producer: Producer,
    /// The coordinator's epoch.
    pub coordinator_epoch: i32,
    /// What was decided.
    pub commits: bool,
    /// Where, with the topics' names.
    pub partitions: Vec<(TopicIdPartition, Box<str>)>,
}

/// What became of an order.
#[derive(Clone, Debug)]
pub struct MarkerReport {
    /// The coordinator's partition.
    pub index: PartitionIndex,
    /// Whose transaction.
    pub transactional_id: Box<str>,
    /// Its producer.
    pub producer: Producer,
    /// Partitions whose markers are durable, or were refused.
    pub partitions: Vec<(Box<str>, PartitionIndex)>,
    /// They were refused.
    pub is_refused: bool,
}

/// Which part of which task.
pub(super) type Part = (u64, usize);

/// An order that is not answered yet.
#[derive(Debug)]
struct Task {
    then: Then,
    results: Vec<Result<(), ErrorCode>>,
    /// Parts without a result, plus one while the order is being taken in.
    left_count: usize,
}

#[derive(Debug)]
enum Then {
    Report(Box<MarkerOrder>),
    Answer(Call, Box<WriteTxnMarkersRequest>),
}

/// A marker that is not in its log yet.
#[derive(Debug)]
struct Queued {
    part: Part,
    producer: Producer,
    marker: EndTransactionMarker,
}

/// The markers of a shard that are on their way.
#[derive(Debug, Default)]
pub struct MarkerTasks {
    tasks: BTreeMap<u64, Task>,
    task_count: u64,
    /// By slot: not in the log yet.
    queued: BTreeMap<u32, VecDeque<Queued>>,
    /// By slot: in the log, durable when the high watermark has come there.
    waiting: BTreeMap<u32, VecDeque<(Offset, Part)>>,
}

impl<I: Io> Broker<I> {
    /// Takes a coordinator's order in.
    pub fn write_markers(&mut self, order: Box<MarkerOrder>) {
        let marker = EndTransactionMarker { commits: order.commits, coordinator_epoch: order.coordinator_epoch };
        let (producer, partitions) = (order.producer, order.partitions.clone());
        let task = self.begin_markers(Then::Report(order), partitions.len());
        for (place, (id, _)) in partitions.into_iter().enumerate() {
            let is_wrong = place > 0 && mutant::is_on("end_halves_differently");
            let marker = EndTransactionMarker { commits: marker.commits != is_wrong, ..marker };
            self.write_marker((task, place), id, producer, marker);
        }
        self.markers_settled(task);
    }

    /// Takes a WriteTxnMarkers in.
    pub(super) fn write_txn_markers(&mut self, call: Call, request: WriteTxnMarkersRequest) {
        let mut parts = Vec::new();
        for marker in &request.markers {
            let producer = (ProducerId(marker.producer_id.0), ProducerEpoch(marker.producer_epoch));
            let written = EndTransactionMarker {
                commits: marker.transaction_result,
                coordinator_epoch: marker.coordinator_epoch,
            };
            for topic in &marker.topics {
                let known = self.image.topic_by_name(&topic.name).map(|known| known.id);
                let indexes = topic.partition_indexes.iter().map(|index| PartitionIndex(*index));
                parts
                    .extend(indexes.map(|partition| {
                        (known.map(|topic| TopicIdPartition { topic, partition }), producer, written)
                    }));
            }
        }
        if parts.len() > WRITTEN_MARKER_COUNT_MAX {
            let results = vec![Err(ErrorCode::InvalidRequest); parts.len()];
            return self.reply(call, &answer(&request, &results));
        }
        let task = self.begin_markers(Then::Answer(call, Box::new(request)), parts.len());
        for (place, (id, producer, marker)) in parts.into_iter().enumerate() {
            match id {
                Some(id) if self.image.topic(id.topic).is_some_and(|topic| topic.has(id.partition)) => {
                    self.write_marker((task, place), id, producer, marker);
                }
                _ => self.marker_settled((task, place), Err(ErrorCode::UnknownTopicOrPartition)),
            }
        }
        self.markers_settled(task);
    }

    fn begin_markers(&mut self, then: Then, part_count: usize) -> u64 {
        self.markers.task_count += 1;
        let task = Task { then, results: vec![Ok(()); part_count], left_count: part_count + 1 };
        self.markers.tasks.insert(self.markers.task_count, task);
        self.markers.task_count
    }

    fn write_marker(&mut self, part: Part, id: TopicIdPartition, producer: Producer, marker: EndTransactionMarker) {
        let is_known = self.image.topic(id.topic).is_some_and(|topic| topic.has(id.partition));
        let slot = match self.locate(Topic::Id(id.topic), id.partition) {
            Located::Here(slot) if is_known => slot,
            Located::Elsewhere(_) => return self.marker_settled(part, Err(ErrorCode::NotLeaderOrFollower)),
            _ => return self.marker_settled(part, Ok(())),
        };
        let partition = self.partitions.get_mut(slot);
        // Whoever asked before this cannot rely on the answer any more.
        partition.forget_verifications(producer.0);
        if let Err(error) = partition.log.check_marker(producer.0, producer.1, marker) {
            return self.marker_settled(part, Err(errors::of_producer(&error)));
        }
        if self.decide_offsets(part, id, producer, marker) {
            return;
        }
        self.markers.queued.entry(slot).or_default().push_back(Queued { part, producer, marker });
        self.flush_markers(slot);
    }

    /// Appends what is queued for a partition, as far as its log takes it.
    fn flush_markers(&mut self, slot: u32) {
        let now = self.now;
        while let Some(queued) = self.markers.queued.get_mut(&slot).and_then(VecDeque::pop_front) {
            let Queued { part, producer, marker } = queued;
            let is_taken = self.partitions.get_mut(slot).log.state() == State::Absent && self.is_directory_taken(slot);
            let partition = self.partitions.get_mut(slot);
            let mut batch = marker.batch(producer.0, producer.1, now.wall);
            let header = Header::parse(&batch).expect("it was just built");
            let appended = match is_taken {
                true => Err(AppendError::NotReady),
                false => partition.log.append(&mut self.io, &mut batch, &header, now),
            };
            partition.forget_verifications(producer.0);
            self.mark_dirty(slot);
            match appended {
                Ok(appended) => {
                    self.markers.waiting.entry(slot).or_default().push_back((appended.end, part));
                    self.acknowledge_markers(slot);
                }
                Err(AppendError::NotReady | AppendError::NoMemory) => {
                    let queued = Queued { part, producer, marker };
                    self.markers.queued.entry(slot).or_default().push_front(queued);
                    return;
                }
                Err(error) => self.marker_settled(part, Err(errors::of_append(&error))),
            }
        }
        self.markers.queued.remove(&slot);
    }

    /// Something has completed: logs that were not ready may be.
    pub(super) fn retry_markers(&mut self) {
        if !self.markers.queued.is_empty() {
            let slots: Vec<u32> = self.markers.queued.keys().copied().collect();
            slots.into_iter().for_each(|slot| self.flush_markers(slot));
        }
    }

    /// The partition's high watermark has moved.
    #[inline]
    pub(super) fn acknowledge_markers(&mut self, slot: u32) {
        if self.markers.waiting.is_empty() {
            return;
        }
        let high_watermark = self.partitions.get_mut(slot).log.high_watermark();
        while let Some(waiting) = self.markers.waiting.get_mut(&slot) {
            let Some((_, part)) = waiting.pop_front_if(|(end, _)| *end <= high_watermark) else {
                if waiting.is_empty() {
                    self.markers.waiting.remove(&slot);
                }
                return;
            };
            self.marker_settled(part, Ok(()));
        }
    }

    /// The partition is gone, which settles its markers, or offline, which refuses them.
    pub(super) fn end_markers(&mut self, slot: u32, result: Result<(), ErrorCode>) {
        let queued = self.markers.queued.remove(&slot).into_iter().flatten().map(|queued| queued.part);
        let waiting = self.markers.waiting.remove(&slot).into_iter().flatten().map(|(_, part)| part);
        for part in queued.chain(waiting).collect::<Vec<_>>() {
            self.marker_settled(part, result);
        }
    }

    /// A marker is durable, or was refused.
    pub(super) fn marker_settled(&mut self, (task, place): Part, result: Result<(), ErrorCode>) {
        if let Some(task) = self.markers.tasks.get_mut(&task) {
            task.results[place] = result;
        }
        self.markers_settled(task);
    }

    fn markers_settled(&mut self, number: u64) {
        let Some(task) = self.markers.tasks.get_mut(&number) else { return };
        task.left_count -= 1;
        if task.left_count > 0 {
            return;
        }
        let Some(task) = self.markers.tasks.remove(&number) else { return };
        match task.then {
            Then::Report(order) => self.report_markers(*order, &task.results),
            Then::Answer(call, request) => {
                let response = answer(&request, &task.results);
                self.reply(call, &response);
            }
        }
    }

    fn report_markers(&mut self, order: MarkerOrder, results: &[Result<(), ErrorCode>]) {
        // Whoever was fenced there has nothing under way there.
        let is_done = |result: &Result<(), ErrorCode>| match result {
            Ok(()) => true,
            Err(error) => {
                matches!(error, ErrorCode::InvalidProducerEpoch | ErrorCode::TransactionCoordinatorFenced)
            }
        };
        for is_refused in [false, true] {
            let parts = order.partitions.iter().zip(results).filter(|(_, result)| is_done(result) != is_refused);
            let partitions: Vec<_> = parts.map(|((id, topic), _)| (topic.clone(), id.partition)).collect();
            if partitions.is_empty() {
                continue;
            }
            let report = Box::new(MarkerReport {
                index: order.index,
                transactional_id: order.transactional_id.clone(),
                producer: order.producer,
                partitions,
                is_refused,
            });
            match order.shard == self.shard {
                true => self.markers_written(&report),
                false => self.outbox.push((order.shard, Message::MarkersWritten(report))),
            }
        }
    }
}

fn answer(request: &WriteTxnMarkersRequest, results: &[Result<(), ErrorCode>]) -> WriteTxnMarkersResponse {
    let mut results = results.iter();
    let markers = request.markers.iter().map(|marker| {
        let topics = marker.topics.iter().map(|topic| {
            let partitions = topic.partition_indexes.iter().map(|index| {
                let result = results.next().expect("each part has a result");
                WritableTxnMarkerPartitionResult::default()
                    .with_partition_index(*index)
                    .with_error_code(result.err().unwrap_or(ErrorCode::None).code())
            });
            WritableTxnMarkerTopicResult::default().with_name(topic.name.clone()).with_partitions(partitions.collect())
        });
        let topics = topics.collect();
        WritableTxnMarkerResult::default().with_producer_id(marker.producer_id).with_topics(topics)
    });
    WriteTxnMarkersResponse::default().with_markers(markers.collect())
}
