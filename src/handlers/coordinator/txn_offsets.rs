//! TxnOffsetCommit: what a group has read up to, as part of a transaction.
//!
//! Once it is known that the group's partition of the offsets topic is in the transaction, the offsets are checked and
//! written like those of an OffsetCommit, in a batch of the transaction. They count when its marker is there.

use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_commit_response::OffsetCommitResponseTopic;
use kafka_protocol::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use kafka_protocol::messages::{OffsetCommitRequest, TxnOffsetCommitRequest, TxnOffsetCommitResponse};

use super::append::{Batch, Continuation};
use super::{Host, Place};
use crate::coordinator::OFFSETS_TOPIC;
use crate::coordinator::transaction::event::Producer;
use crate::handlers::broker::Broker;
use crate::handlers::call::Call;
use crate::handlers::located::Located;
use crate::handlers::markers::Part;
use crate::handlers::verify::{Asked, Question};
use crate::io::Io;
use crate::model::id::{ProducerEpoch, ProducerId, TopicIdPartition};
use crate::model::marker::EndTransactionMarker;
use crate::protocol::Topic;
use crate::protocol::error::ErrorCode;

/// From this version on the group's partition comes into the transaction by itself (KIP-890).
const ADDS_FROM: i16 = 5;
/// From this version on clients know that a transaction can only be aborted.
const ABORTABLE_FROM: i16 = 4;

/// A TxnOffsetCommit that waits to know whether it is part of its transaction.
#[derive(Debug)]
pub(in crate::handlers) struct WaitingCommit {
    call: Call,
    request: OffsetCommitRequest,
    producer: Producer,
}

impl<I: Io> Broker<I> {
    /// Takes a TxnOffsetCommit in.
    pub(in crate::handlers) fn txn_offset_commit(&mut self, call: Call, request: &TxnOffsetCommitRequest) {
        let producer = (ProducerId(request.producer_id.0), ProducerEpoch(request.producer_epoch));
        let waiting = Box::new(WaitingCommit { call, request: as_offset_commit(request), producer });
        let index = match self.coordinator_of_group(&request.group_id) {
            Ok(index) => index,
            Err(error) => return self.refuse_txn_commit(&waiting, error),
        };
        if self.check_offsets_producer(index, Some(producer)).is_err() {
            return self.refuse_txn_commit(&waiting, ErrorCode::InvalidProducerEpoch);
        }
        let is_verified = !self.options.config.transaction_partition_verification_enable && call.version < ADDS_FROM;
        if is_verified || self.has_offsets_transaction(index, producer) {
            return self.commit_offsets(call, &waiting.request, Some(producer));
        }
        let question = Question {
            transactional_id: (&**request.transactional_id).into(),
            producer,
            topic: OFFSETS_TOPIC.into(),
            partition: index.index,
            adds: call.version >= ADDS_FROM,
            asker: self.shard,
            number: 0,
            met_count: 0,
        };
        self.ask_transaction(question, Asked::Commit(waiting));
    }

    /// The transaction's coordinator has answered.
    pub(in crate::handlers) fn commit_verified(&mut self, waiting: WaitingCommit, result: Result<(), ErrorCode>) {
        let WaitingCommit { call, request, producer } = &waiting;
        match result {
            Ok(()) => self.commit_offsets(*call, request, Some(*producer)),
            Err(error) => {
                let error = match error {
                    ErrorCode::TransactionAbortable if call.version < ABORTABLE_FROM => ErrorCode::InvalidTxnState,
                    ErrorCode::ProducerFenced => ErrorCode::InvalidProducerEpoch,
                    ErrorCode::NotCoordinator | ErrorCode::CoordinatorLoadInProgress => {
                        // Of the transaction; the client would look for the group's.
                        ErrorCode::CoordinatorNotAvailable
                    }
                    other => other,
                };
                self.refuse_txn_commit(&waiting, error);
            }
        }
    }

    /// Whether a producer may still write into the group's partition.
    pub(super) fn check_offsets_producer(&mut self, index: Place, producer: Option<Producer>) -> Result<(), ErrorCode> {
        let Some((id, epoch)) = producer else { return Ok(()) };
        let Located::Here(slot) = self.locate(Topic::Name(index.host.topic()), index.index) else {
            return Err(ErrorCode::NotCoordinator);
        };
        let log = &self.partitions.get_mut(slot).log;
        match log.producers().get(id) {
            Some(known) if epoch.0 < known.producer_epoch => Err(ErrorCode::InvalidProducerEpoch),
            None if !log.has_room_for_transaction() => Err(ErrorCode::CoordinatorNotAvailable),
            _ => Ok(()),
        }
    }

    /// Whether the producer's transaction has begun in the partition and nothing is about to end it.
    fn has_offsets_transaction(&mut self, index: Place, (id, epoch): Producer) -> bool {
        if self.coordinator.hosted(index).is_none_or(|hosted| hosted.has_queued_marker(id)) {
            return false;
        }
        match self.locate(Topic::Name(index.host.topic()), index.index) {
            Located::Here(slot) => self.partitions.get_mut(slot).log.has_transaction(id, epoch),
            Located::Elsewhere(_) | Located::Unknown(_) => false,
        }
    }

    /// Writes a marker through the coordinator of its partition, if it is one of the offsets topic. False if not.
    pub(in crate::handlers) fn decide_offsets(
        &mut self,
        part: Part,
        id: TopicIdPartition,
        (producer, epoch): Producer,
        marker: EndTransactionMarker,
    ) -> bool {
        let Some(index) = self.coordinated(id).filter(|index| index.host == Host::Groups) else { return false };
        let then = Continuation::Marker { part, producer, commits: marker.commits };
        self.coordinator_append_as(index, Batch::Marker(producer, epoch, marker), Vec::new(), then);
        true
    }

    /// A marker is durable in a partition of the offsets topic: what its transaction has committed counts, or not.
    pub(super) fn offsets_decided(
        &mut self,
        index: Place,
        producer: ProducerId,
        commits: bool,
        result: Result<(), ErrorCode>,
    ) {
        debug_assert!(index.host == Host::Groups);
        if let (Ok(()), Some(hosted)) = (result, self.coordinator.partitions.get_mut(&index)) {
            hosted.transactional.end(producer, commits, &mut hosted.offsets);
        }
    }

    /// Answers a TxnOffsetCommit.
    pub(super) fn answer_txn_offset_commit(&mut self, call: Call, topics: Vec<OffsetCommitResponseTopic>) {
        let topics = topics.into_iter().map(|topic| {
            let partitions = topic.partitions.into_iter().map(|partition| {
                let error = match ErrorCode::from_code(partition.error_code) {
                    // As Kafka: what is no error of this API's own is one that its clients know.
                    Some(ErrorCode::GroupIdNotFound) => ErrorCode::IllegalGeneration.code(),
                    _ => partition.error_code,
                };
                TxnOffsetCommitResponsePartition::default()
                    .with_partition_index(partition.partition_index)
                    .with_error_code(error)
            });
            TxnOffsetCommitResponseTopic::default().with_name(topic.name).with_partitions(partitions.collect())
        });
        let response = TxnOffsetCommitResponse::default().with_topics(topics.collect());
        self.reply(call, &response);
    }

    fn refuse_txn_commit(&mut self, waiting: &WaitingCommit, error: ErrorCode) {
        let topics = waiting.request.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|partition| {
                TxnOffsetCommitResponsePartition::default()
                    .with_partition_index(partition.partition_index)
                    .with_error_code(error.code())
            });
            TxnOffsetCommitResponseTopic::default().with_name(topic.name.clone()).with_partitions(partitions.collect())
        });
        let response = TxnOffsetCommitResponse::default().with_topics(topics.collect());
        self.reply(waiting.call, &response);
    }
}

/// The same commit, outside of a transaction. Before version 3 there was no member to be checked.
fn as_offset_commit(request: &TxnOffsetCommitRequest) -> OffsetCommitRequest {
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            OffsetCommitRequestPartition::default()
                .with_partition_index(partition.partition_index)
                .with_committed_offset(partition.committed_offset)
                .with_committed_leader_epoch(partition.committed_leader_epoch)
                .with_committed_metadata(partition.committed_metadata.clone())
        });
        OffsetCommitRequestTopic::default().with_name(topic.name.clone()).with_partitions(partitions.collect())
    });
    OffsetCommitRequest::default()
        .with_group_id(request.group_id.clone())
        .with_generation_id_or_member_epoch(request.generation_id)
        .with_member_id(request.member_id.clone())
        .with_group_instance_id(request.group_instance_id.clone())
        .with_retention_time_ms(-1)
        .with_topics(topics.collect())
}
