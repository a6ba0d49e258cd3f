//! AddPartitionsToTxn and AddOffsetsToTxn: what a transaction includes, durable before anything is written there.
//!
//! Up to version 3 clients ask, for one transaction; from version 4 on brokers ask for several at once, and may only
//! ask whether partitions are in it.

use kafka_protocol::messages::add_partitions_to_txn_request::{AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction};
use kafka_protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnResult, AddPartitionsToTxnTopicResult,
};
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, AddPartitionsToTxnRequest, AddPartitionsToTxnResponse,
};

use super::transactions::TransactionTicket;
use crate::coordinator::transaction::TransactionError;
use crate::coordinator::transaction::event::Producer;
use crate::coordinator::transaction::metadata::Partitions;
use crate::coordinator::{OFFSETS_TOPIC, partition_of};
use crate::handlers::broker::Broker;
use crate::handlers::bus::Pending;
use crate::handlers::call::Call;
use crate::handlers::errors;
use crate::io::Io;
use crate::model::id::{PartitionIndex, ProducerEpoch, ProducerId};
use crate::protocol::error::ErrorCode;

/// From this version on brokers ask, for several transactions.
const BATCHED_FROM: i16 = 4;
/// From this version on a fenced producer is told so.
const FENCED_FROM: i16 = 2;

/// An AddPartitionsToTxn of several transactions that is not answered yet.
#[derive(Debug)]
pub(super) struct BatchedAdd {
    call: Call,
    transactions: Vec<AddPartitionsToTxnTransaction>,
    results: Vec<AddPartitionsToTxnResult>,
    left_count: usize,
}

impl<I: Io> Broker<I> {
    /// Takes an AddPartitionsToTxn in.
    pub(in crate::handlers) fn add_partitions_to_txn(&mut self, call: Call, request: AddPartitionsToTxnRequest) {
        if call.version >= BATCHED_FROM {
            return self.add_partitions_batched(call, request);
        }
        let id = request.v3_and_below_transactional_id.clone();
        let producer =
            (ProducerId(request.v3_and_below_producer_id.0), ProducerEpoch(request.v3_and_below_producer_epoch));
        let unknown = self.unknown_partitions(&request.v3_and_below_topics);
        if !unknown.is_empty() {
            let results = results_of(&request.v3_and_below_topics, |topic, index| match unknown.get(topic) {
                Some(indexes) if indexes.contains(&index) => ErrorCode::UnknownTopicOrPartition,
                // As Kafka: one that is wrong leaves the others out.
                _ => ErrorCode::OperationNotAttempted,
            });
            let response = AddPartitionsToTxnResponse::default().with_results_by_topic_v3_and_below(results);
            return self.reply(call, &response);
        }
        let partitions = partitions_of(&request.v3_and_below_topics);
        let ticket = TransactionTicket::AddPartitions(call, Box::new(request));
        self.add_to_transaction(ticket, &id, producer, &partitions, 0);
    }

    fn add_partitions_batched(&mut self, call: Call, request: AddPartitionsToTxnRequest) {
        let empty = vec![AddPartitionsToTxnResult::default(); request.transactions.len()];
        let left_count = request.transactions.len() + 1;
        self.coordinator.batched_add_count += 1;
        let number = self.coordinator.batched_add_count;
        let transactions = request.transactions.clone();
        self.coordinator.batched_adds.insert(number, BatchedAdd { call, transactions, results: empty, left_count });
        for (place, transaction) in request.transactions.iter().enumerate() {
            let producer = (ProducerId(transaction.producer_id.0), ProducerEpoch(transaction.producer_epoch));
            let id = &transaction.transactional_id;
            let unknown = self.unknown_partitions(&transaction.topics);
            if transaction.verify_only || !unknown.is_empty() {
                let verified = |topic: &str, index: PartitionIndex| match unknown.get(topic) {
                    Some(indexes) if indexes.contains(&index) => ErrorCode::UnknownTopicOrPartition,
                    _ if !transaction.verify_only => ErrorCode::OperationNotAttempted,
                    _ => match self.verify_transaction(id, producer, topic, index) {
                        Ok(()) => ErrorCode::None,
                        Err(error) => error,
                    },
                };
                let results = results_of(&transaction.topics, verified);
                self.batched_add_answered(number, place, results);
                continue;
            }
            let partitions = partitions_of(&transaction.topics);
            self.add_to_transaction(TransactionTicket::Batched(number, place), id, producer, &partitions, 2);
        }
        self.batched_add_settled(number);
    }

    /// Takes an AddOffsetsToTxn in: the group's partition of the offsets topic comes into the transaction.
    pub(in crate::handlers) fn add_offsets_to_txn(&mut self, call: Call, request: AddOffsetsToTxnRequest) {
        if self.image.topic_by_name(OFFSETS_TOPIC).is_none() {
            // The group's coordinator, which makes it, is asked for later.
            let names = vec![OFFSETS_TOPIC.to_owned()];
            return self.create_missing_topics(names, Pending::AddOffsetsToTxn(call, Box::new(request)));
        }
        self.add_offsets(call, &request);
    }

    /// The offsets topic is there, or cannot be made.
    pub(in crate::handlers) fn add_offsets(&mut self, call: Call, request: &AddOffsetsToTxnRequest) {
        let producer = (ProducerId(request.producer_id.0), ProducerEpoch(request.producer_epoch));
        let ticket = TransactionTicket::AddOffsets(call);
        let Some(topic) = self.image.topic_by_name(OFFSETS_TOPIC) else {
            return self.refuse_add(ticket, ErrorCode::CoordinatorNotAvailable);
        };
        let index = PartitionIndex(partition_of(&request.group_id, topic.partition_count));
        let mut partitions = Partitions::new();
        partitions.entry(OFFSETS_TOPIC.into()).or_default().insert(index);
        self.add_to_transaction(ticket, &request.transactional_id, producer, &partitions, 0);
    }

    /// Puts partitions into a transaction whose coordinator is here.
    pub(in crate::handlers) fn add_to_transaction(
        &mut self,
        ticket: TransactionTicket,
        id: &str,
        producer: Producer,
        partitions: &Partitions,
        client_version: i16,
    ) {
        if id.is_empty() {
            return self.refuse_add(ticket, ErrorCode::InvalidRequest);
        }
        match self.coordinator_of_transaction(id) {
            Ok(index) => {
                self.with_transactions(index, |transactions, context| {
                    transactions.add(ticket, id, producer, partitions, client_version, context);
                });
            }
            Err(error) => self.refuse_add(ticket, error),
        }
    }

    /// Whether a partition is in a transaction whose coordinator is here.
    pub(in crate::handlers) fn verify_transaction(
        &self,
        id: &str,
        producer: Producer,
        topic: &str,
        index: PartitionIndex,
    ) -> Result<(), ErrorCode> {
        let place = self.coordinator_of_transaction(id)?;
        let hosted = self.coordinator.hosted(place).ok_or(ErrorCode::NotCoordinator)?;
        let verified = hosted.transactions.verify(id, producer, (topic, index));
        verified.map_err(|error| errors::of_transaction(error, true))
    }

    /// Answers whoever wanted partitions in a transaction.
    pub(super) fn answer_add(&mut self, ticket: TransactionTicket, answer: Result<(), TransactionError>) {
        let is_fenced_told = match &ticket {
            TransactionTicket::AddOffsets(call) | TransactionTicket::AddPartitions(call, _) => {
                call.version >= FENCED_FROM
            }
            _ => true,
        };
        let error = answer.map_or_else(|error| errors::of_transaction(error, is_fenced_told), |()| ErrorCode::None);
        self.refuse_add(ticket, error);
    }

    /// The same with Kafka's code, which may be none.
    fn refuse_add(&mut self, ticket: TransactionTicket, error: ErrorCode) {
        match ticket {
            TransactionTicket::AddOffsets(call) => {
                self.reply(call, &AddOffsetsToTxnResponse::default().with_error_code(error.code()));
            }
            TransactionTicket::AddPartitions(call, request) => {
                let results = results_of(&request.v3_and_below_topics, |_, _| error);
                let response = AddPartitionsToTxnResponse::default().with_results_by_topic_v3_and_below(results);
                self.reply(call, &response);
            }
            TransactionTicket::Batched(number, place) => {
                let Some(batch) = self.coordinator.batched_adds.get(&number) else { return };
                let results = results_of(&batch.transactions[place].topics, |_, _| error);
                self.batched_add_answered(number, place, results);
            }
            TransactionTicket::Question(question) if error == ErrorCode::ConcurrentTransactions => {
                self.ask_again(question);
            }
            TransactionTicket::Question(question) => {
                let result = if error.is_none() { Ok(()) } else { Err(error) };
                self.answer_question(question, result);
            }
            TransactionTicket::Call(_) => unreachable!("it adds nothing"),
        }
    }

    fn batched_add_answered(&mut self, number: u64, place: usize, results: Vec<AddPartitionsToTxnTopicResult>) {
        if let Some(batch) = self.coordinator.batched_adds.get_mut(&number) {
            batch.results[place] = AddPartitionsToTxnResult::default()
                .with_transactional_id(batch.transactions[place].transactional_id.clone())
                .with_topic_results(results);
        }
        self.batched_add_settled(number);
    }

    fn batched_add_settled(&mut self, number: u64) {
        let Some(batch) = self.coordinator.batched_adds.get_mut(&number) else { return };
        batch.left_count -= 1;
        if batch.left_count == 0
            && let Some(batch) = self.coordinator.batched_adds.remove(&number)
        {
            let response = AddPartitionsToTxnResponse::default().with_results_by_transaction(batch.results);
            self.reply(batch.call, &response);
        }
    }

    /// Partitions that nobody knows.
    fn unknown_partitions(&self, topics: &[AddPartitionsToTxnTopic]) -> Partitions {
        let mut unknown = Partitions::new();
        for topic in topics {
            let known = self.image.topic_by_name(&topic.name);
            for index in topic.partitions.iter().map(|index| PartitionIndex(*index)) {
                if !known.is_some_and(|known| known.has(index)) {
                    unknown.entry((&**topic.name).into()).or_default().insert(index);
                }
            }
        }
        unknown
    }
}

fn partitions_of(topics: &[AddPartitionsToTxnTopic]) -> Partitions {
    let mut partitions = Partitions::new();
    for topic in topics {
        let indexes = partitions.entry((&**topic.name).into()).or_default();
        indexes.extend(topic.partitions.iter().map(|index| PartitionIndex(*index)));
    }
    partitions
}

fn results_of(
    topics: &[AddPartitionsToTxnTopic],
    error: impl Fn(&str, PartitionIndex) -> ErrorCode,
) -> Vec<AddPartitionsToTxnTopicResult> {
    let topics = topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|index| {
            AddPartitionsToTxnPartitionResult::default()
                .with_partition_index(*index)
                .with_partition_error_code(error(&topic.name, PartitionIndex(*index)).code())
        });
        AddPartitionsToTxnTopicResult::default()
            .with_name(topic.name.clone())
            .with_results_by_partition(partitions.collect())
    });
    topics.collect()
}
