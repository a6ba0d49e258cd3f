//! The metadata bus: what shards tell one another. Metadata only: no variant can carry record bytes.
//!
//! A shard asks the controller with a number of its own and keeps what it meant to do with the answer
//! ([`Waiting`]). Published images come to every shard, which says when it has applied one.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use kafka_protocol::messages::{AddOffsetsToTxnRequest, FindCoordinatorRequest, MetadataRequest, TopicName};
use rustc_hash::FxHashMap;

use super::alter_configs;
use super::broker::Broker;
use super::call::Call;
use super::coordinator::transactions::NeedsProducerId;
use super::endpoints::{Endpoint, Endpoints};
use super::init_producer_id::ProducerIdBlock;
use super::markers::{MarkerOrder, MarkerReport};
use super::verify::Question;
use crate::controller::controller::{ControllerError, Event, Reply};
use crate::controller::image::Image;
use crate::controller::topics::TopicRef;
use crate::io::Io;
use crate::model::id::{ShardId, TopicIdPartition};
use crate::protocol::error::ErrorCode;
use crate::storage::Offline;
use crate::telemetry::Counters;

/// The shard that runs the controller.
pub const CONTROLLER: ShardId = ShardId(0);

/// Whom the controller answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    /// The shard that asked.
    pub shard: ShardId,
    /// Its number for the question.
    pub number: u64,
}

/// A message between shards, or from the control thread.
#[derive(Clone, Debug)]
pub enum Message {
    /// To the controller: this shard listens here.
    Hello {
        /// Which shard.
        shard: ShardId,
        /// What clients are to be told.
        endpoint: Endpoint,
        /// Something that the journals hold could not be written to its partition.
        needs_journals: bool,
    },
    /// To every shard: the start is durable and known everywhere; serve.
    Welcome {
        /// Where all shards listen.
        endpoints: Endpoints,
    },
    /// To the controller.
    Ask(Event<Asker>),
    /// From the controller: the answer to a question.
    Answer {
        /// The asker's number.
        number: u64,
        /// The answer.
        result: Result<Reply, ControllerError>,
    },
    /// From the controller: the metadata is this from now on.
    Publish(Arc<Image>),
    /// From a transaction's coordinator: end the transaction in these partitions of yours.
    WriteMarkers(Box<MarkerOrder>),
    /// To the coordinator: these are ended, or could not be.
    MarkersWritten(Box<MarkerReport>),
    /// To a transaction's coordinator: is this partition of mine in it?
    AskTransaction(Box<Question>),
    /// From the coordinator.
    TransactionAnswer {
        /// The asker's number.
        number: u64,
        /// Why not.
        result: Result<(), ErrorCode>,
    },
    /// From the control thread: count for me.
    Report(Sender<(ShardId, Counters)>),
    /// From the control thread: stop cleanly.
    Stop,
}

/// What a shard means to do when the controller has answered.
#[derive(Debug)]
pub(super) enum Pending {
    /// Answer a Metadata request whose missing topics are being created.
    Metadata(Call, Box<MetadataRequest>),
    /// Answer a FindCoordinator request whose topic is being created.
    FindCoordinator(Call, Box<FindCoordinatorRequest>),
    /// Answer an AddOffsetsToTxn request; the offsets topic is being created.
    AddOffsetsToTxn(Call, Box<AddOffsetsToTxnRequest>),
    /// Answer a CreateTopics request about these topics.
    CreateTopics(Call, Vec<TopicName>),
    /// Answer a DeleteTopics request about these topics.
    DeleteTopics(Call, Vec<TopicRef>),
    /// Answer AlterConfigs or IncrementalAlterConfigs.
    AlterConfigs(Call, Vec<alter_configs::Answer>),
    /// Answer a CreatePartitions request about these topics.
    CreatePartitions(Call, Vec<String>),
    /// Give a producer id from the block that comes.
    ProducerId(Call),
    /// Go on with a request of a transactional producer that needs an id from the block that comes.
    TransactionalProducer(NeedsProducerId),
    /// Let these partitions take appends.
    Materialize(Vec<TopicIdPartition>),
}

/// Questions that are not answered yet.
#[derive(Debug, Default)]
pub struct Waiting {
    pending: FxHashMap<u64, Pending>,
    asked: u64,
    /// Partitions that have data, which the controller had no room to record.
    materialized: Vec<TopicIdPartition>,
}

impl<I: Io> Broker<I> {
    /// Asks the controller; `event` is made with the number of the question.
    pub(super) fn ask_controller(&mut self, event: impl FnOnce(Asker) -> Event<Asker>, pending: Pending) {
        self.waiting.asked += 1;
        let asker = Asker { shard: self.shard, number: self.waiting.asked };
        self.waiting.pending.insert(asker.number, pending);
        self.outbox.push((CONTROLLER, Message::Ask(event(asker))));
    }

    /// The controller has answered question `number`.
    pub fn answered(&mut self, number: u64, result: Result<Reply, ControllerError>) {
        let pending = self.waiting.pending.remove(&number).expect("every question is answered once");
        if let Err(error) = &result {
            tracing::warn!(%error, "the controller refused");
        }
        let refusal = |error: &ControllerError| match error {
            ControllerError::LogFailed { .. } => ErrorCode::KafkaStorageError,
            ControllerError::Overloaded => ErrorCode::ThrottlingQuotaExceeded,
        };
        match (pending, result) {
            // Whatever became of the missing topics, the image tells.
            (Pending::Metadata(call, request), _) => self.answer_metadata(call, &request),
            (Pending::FindCoordinator(call, request), _) => self.answer_find_coordinator(call, &request),
            (Pending::AddOffsetsToTxn(call, request), _) => self.add_offsets(call, &request),
            (Pending::CreateTopics(call, _), Ok(Reply::CreateTopics(results))) => self.topics_created(call, results),
            (Pending::CreateTopics(call, names), Err(error)) => {
                self.topics_not_created(call, names, refusal(&error), &error);
            }
            (Pending::DeleteTopics(call, _), Ok(Reply::DeleteTopics(results))) => self.topics_deleted(call, results),
            (Pending::DeleteTopics(call, topics), Err(error)) => {
                self.topics_not_deleted(call, topics, refusal(&error), &error);
            }
            (Pending::AlterConfigs(call, answers), Ok(Reply::AlterConfigs(results))) => {
                self.configs_altered(call, answers, results);
            }
            (Pending::AlterConfigs(call, answers), Err(error)) => {
                self.configs_not_altered(call, answers, refusal(&error), &error);
            }
            (Pending::CreatePartitions(call, _), Ok(Reply::CreatePartitions(results))) => {
                self.partitions_created(call, results);
            }
            (Pending::CreatePartitions(call, names), Err(error)) => {
                self.partitions_not_created(call, names, refusal(&error), &error);
            }
            (Pending::ProducerId(call), Ok(Reply::ProducerIds(block))) => {
                self.producer_ids_came(call, Ok(ProducerIdBlock::new(block.first, i64::from(block.count))));
            }
            (Pending::TransactionalProducer(waits), Ok(Reply::ProducerIds(block))) => {
                self.producer_ids = ProducerIdBlock::new(block.first, i64::from(block.count));
                self.transactional_ids_came(waits, Ok(()));
            }
            (Pending::TransactionalProducer(waits), Err(error)) => {
                self.transactional_ids_came(waits, Err(refusal(&error)));
            }
            (Pending::ProducerId(call), Err(error)) => self.producer_ids_came(call, Err(refusal(&error))),
            (Pending::Materialize(partitions), Ok(Reply::Materialized { unknown })) => {
                let known = partitions.into_iter().filter(|partition| !unknown.contains(partition));
                known.for_each(|partition| self.allow_serving(partition));
            }
            (Pending::Materialize(partitions), Err(ControllerError::Overloaded)) => {
                self.waiting.materialized.extend(partitions);
            }
            // Without its record the partition must not acknowledge anything, and there will be none in this life.
            (Pending::Materialize(partitions), Err(error)) => {
                partitions.into_iter().for_each(|partition| self.refuse_serving(partition, &error));
            }
            (pending, result) => panic!("{result:?} is no answer to {pending:?}"),
        }
    }

    fn allow_serving(&mut self, partition: TopicIdPartition) {
        if let Some(slot) = self.partitions.find(partition) {
            let events = self.partitions.get_mut(slot).log.allow_serving();
            self.react(slot, events);
        }
    }

    fn refuse_serving(&mut self, partition: TopicIdPartition, error: &ControllerError) {
        if let Some(slot) = self.partitions.find(partition) {
            let log = &mut self.partitions.get_mut(slot).log;
            log.take_offline(Offline::Failed { what: "recording that it has data", error: error.to_string() });
            let events = log.take_events();
            self.react(slot, events);
        }
    }

    /// Asks the controller again to record what it had no room for. For the slow tick.
    pub(super) fn retry_materialized(&mut self) {
        self.materialized.append(&mut self.waiting.materialized);
    }

    /// Asks the controller to record that partitions have data, all of this turn at once.
    pub(super) fn record_materialized(&mut self) {
        if !self.materialized.is_empty() {
            let partitions = std::mem::take(&mut self.materialized);
            let asked = partitions.clone();
            self.ask_controller(|ticket| Event::Materialize { ticket, partitions }, Pending::Materialize(asked));
        }
    }
}
