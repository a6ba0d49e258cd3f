//! The transactional ids' state machines on this shard: what they are told, and what they want done.
//!
//! An event's effects are carried out at once: answers go to their connections or to the shard that asked, records into
//! the partition's log with [`Continuation::Transaction`], markers to the shards that own the transaction's partitions
//! ([`crate::handlers::markers`]). Which those are is looked up each time they are sent; a partition that is gone
//! needs none.

use std::collections::BTreeMap;
use std::time::Duration;

use kafka_protocol::messages::{AddPartitionsToTxnRequest, EndTxnRequest, InitProducerIdRequest};

use super::append::Continuation;
use super::{Host, HostState, Place};
use crate::controller::image;
use crate::coordinator::TRANSACTIONS_TOPIC;
use crate::coordinator::transaction::event::{Context, Effect, Markers, Settings, Written};
use crate::coordinator::transaction::metadata::Metadata;
use crate::coordinator::transaction::{TransactionError, Transactions, records};
use crate::handlers::broker::Broker;
use crate::handlers::bus::Message;
use crate::handlers::call::Call;
use crate::handlers::deadlines::Deadline;
use crate::handlers::errors;
use crate::handlers::markers::{MarkerOrder, MarkerReport};
use crate::handlers::verify::Question;
use crate::io::Io;
use crate::model::id::{PartitionIndex, ShardId, TopicIdPartition};
use crate::model::limits::{
    COMPLETED_TRANSACTION_COUNT_MAX, EXPIRED_TRANSACTIONAL_ID_COUNT_MAX, SHARD_TRANSACTIONAL_ID_COUNT_MAX,
};
use crate::protocol::error::ErrorCode;

/// When markers that were refused are sent again; twice as late each time, so often, as long as some are: a partition
/// that stays offline must not keep a shard busy.
const RESEND_AFTER: Duration = Duration::from_millis(100);
const RESEND_DOUBLED_MAX: u32 = 4;

/// Who waits for a transactional id.
#[derive(Debug)]
pub(in crate::handlers) enum TransactionTicket {
    /// An InitProducerId or EndTxn.
    Call(Call),
    /// An AddOffsetsToTxn.
    AddOffsets(Call),
    /// An AddPartitionsToTxn of one transaction.
    AddPartitions(Call, Box<AddPartitionsToTxnRequest>),
    /// A transaction of an AddPartitionsToTxn of several: the request's number and its place.
    Batched(u64, usize),
    /// A partition that asks whether it is in the transaction, and comes into it.
    Question(Question),
}

/// A request that waits for producer ids.
#[derive(Debug)]
pub(in crate::handlers) enum NeedsProducerId {
    Init(Call, Box<InitProducerIdRequest>),
    End(Call, Box<EndTxnRequest>),
}

impl<I: Io> Broker<I> {
    /// Lets an event happen to the transactional ids of a partition, and carries out its effects. `None` if it has no
    /// coordinator here.
    pub(super) fn with_transactions<R>(
        &mut self,
        index: Place,
        event: impl FnOnce(&mut Transactions<TransactionTicket>, &mut Context<'_, TransactionTicket>) -> R,
    ) -> Option<R> {
        let config = &self.options.config;
        let settings = Settings {
            timeout_ms_max: config.transaction_max_timeout_ms,
            expiration_ms: config.transactional_id_expiration_ms,
        };
        let id_count: usize = self.coordinator.partitions.values().map(|hosted| hosted.transactions.count()).sum();
        let hosted = self.coordinator.partitions.get_mut(&index)?;
        let mut effects = Vec::new();
        let ids = &mut self.producer_ids;
        let mut context = Context {
            now: self.now,
            settings,
            producer_id: &mut || ids.take(),
            room_count: SHARD_TRANSACTIONAL_ID_COUNT_MAX.saturating_sub(id_count),
            effects: &mut effects,
        };
        let result = event(&mut hosted.transactions, &mut context);
        if hosted.transactions.has_unfinished() && self.coordinator.markers_due.is_none() {
            let due = self.now.monotonic + RESEND_AFTER * (1 << self.coordinator.resent_count.min(RESEND_DOUBLED_MAX));
            self.coordinator.markers_due = Some(due);
            self.deadlines.push(due, Deadline::Coordinator);
        }
        for effect in effects {
            match effect {
                Effect::Init(ticket, answer) => self.answer_init_transaction(ticket, answer),
                Effect::Add(ticket, answer) => self.answer_add(ticket, answer),
                Effect::End(ticket, answer) => self.answer_end(ticket, answer),
                Effect::Persist(written, metadata) => {
                    let record = records::record(&written.transactional_id, metadata.as_deref());
                    self.coordinator_append(index, vec![record], Continuation::Transaction(written));
                }
                Effect::Note(id, metadata) => {
                    let record = records::record(&id, Some(&*metadata));
                    self.coordinator_append(index, vec![record], Continuation::Nothing);
                }
                Effect::Mark(markers) => self.send_markers(index, markers),
            }
        }
        Some(result)
    }

    /// The record of an id is durable, or was refused.
    pub(super) fn transaction_written(&mut self, index: Place, written: &Written, result: Result<(), ErrorCode>) {
        if let Err(error) = result {
            let id = &written.transactional_id;
            tracing::warn!(transactional_id = %id, error = error.name(), "the transaction could not be written");
        }
        let result = result.map_err(errors::to_transaction);
        self.with_transactions(index, |transactions, context| transactions.persisted(written, result, context));
    }

    /// A partition was read: these are its ids. What was decided goes on.
    pub(super) fn begin_transactions(&mut self, index: Place, ids: BTreeMap<String, Metadata>) {
        self.with_transactions(index, |transactions, context| {
            for (id, metadata) in ids {
                transactions.restore(&id, Some(metadata), context.now.monotonic);
            }
            transactions.begin(context);
        });
    }

    /// A partition has no coordinator here any more: whoever waits for one of its ids is told.
    pub(super) fn end_transactions(&mut self, index: Place, error: ErrorCode) {
        let error = errors::to_transaction(error);
        self.with_transactions(index, |transactions, context| transactions.unload(error, context));
    }

    /// Sends a decision to the shards that own the transaction's partitions.
    fn send_markers(&mut self, index: Place, markers: Markers) {
        let image = self.image.clone();
        let Some(topic) = image.topic_by_name(TRANSACTIONS_TOPIC) else { return };
        let coordinator_epoch = image.leader_epoch(topic).0;
        let mut by_shard: BTreeMap<ShardId, Vec<(TopicIdPartition, Box<str>)>> = BTreeMap::new();
        let mut gone = Vec::new();
        for (name, indexes) in &markers.partitions {
            for partition in indexes {
                let topic = image.topic_by_name(name).filter(|topic| topic.has(*partition));
                let leader = topic.and_then(|topic| Some((topic.id, image.leader(topic, *partition)?)));
                match leader {
                    Some((topic, leader)) => {
                        let id = TopicIdPartition { topic, partition: *partition };
                        by_shard.entry(image::locate(leader).1).or_default().push((id, name.clone()));
                    }
                    None => gone.push((name.clone(), *partition)),
                }
            }
        }
        for (shard, partitions) in by_shard {
            let order = Box::new(MarkerOrder {
                shard: self.shard,
                index: index.index,
                transactional_id: markers.transactional_id.clone(),
                producer: markers.producer,
                coordinator_epoch,
                commits: markers.commits,
                partitions,
            });
            match shard == self.shard {
                true => self.write_markers(order),
                false => self.outbox.push((shard, Message::WriteMarkers(order))),
            }
        }
        if !gone.is_empty() {
            let report = MarkerReport {
                index: index.index,
                transactional_id: markers.transactional_id,
                producer: markers.producer,
                partitions: gone,
                is_refused: false,
            };
            self.markers_written(&report);
        }
    }

    /// A shard has written markers, or could not.
    pub fn markers_written(&mut self, report: &MarkerReport) {
        let MarkerReport { index, transactional_id, producer, partitions, is_refused } = report;
        let index = Place { host: Host::Transactions, index: *index };
        self.with_transactions(index, |transactions, context| {
            transactions.marked(transactional_id, *producer, partitions, *is_refused, context);
        });
    }

    /// Sends markers again that were refused, when it is time. Called each turn; there is usually nothing to do.
    pub(super) fn resend_markers(&mut self) {
        let now = self.now.monotonic;
        if self.coordinator.markers_due.is_none_or(|due| due > now) {
            return;
        }
        self.coordinator.markers_due = None;
        self.coordinator.resent_count += 1;
        for index in self.places_of_transactions() {
            self.with_transactions(index, |transactions, context| transactions.retry(context));
        }
    }

    /// Completions to be written, time-outs and ids to be forgotten. About once a second.
    pub(super) fn tend_transactions(&mut self) {
        if self.coordinator.markers_due.is_none() {
            self.coordinator.resent_count = 0;
        }
        for index in self.places_of_transactions() {
            if self.coordinator.hosted(index).is_some_and(|hosted| hosted.transactions.has_unwritten()) {
                self.with_transactions(index, |transactions, context| {
                    transactions.write_completions(COMPLETED_TRANSACTION_COUNT_MAX, context);
                });
            }
        }
        self.refuse_late_adds();
        let now = self.now.monotonic;
        let config = &self.options.config;
        let timeouts = Duration::from_millis(config.transaction_abort_timed_out_interval_ms);
        let expirations = Duration::from_millis(config.transaction_remove_expired_interval_ms);
        let looks_for_timeouts = now.since(self.coordinator.timed_out_at) >= timeouts;
        let looks_for_expired = now.since(self.coordinator.ids_expired_at) >= expirations;
        if !looks_for_timeouts && !looks_for_expired {
            return;
        }
        if looks_for_timeouts {
            self.coordinator.timed_out_at = now;
        }
        if looks_for_expired {
            self.coordinator.ids_expired_at = now;
        }
        for index in self.places_of_transactions() {
            self.with_transactions(index, |transactions, context| {
                if looks_for_timeouts {
                    transactions.abort_timed_out(context);
                }
                if looks_for_expired {
                    transactions.expire(EXPIRED_TRANSACTIONAL_ID_COUNT_MAX, context);
                }
            });
        }
    }

    /// Whoever has waited long enough for the markers of a transaction is told to ask again.
    fn refuse_late_adds(&mut self) {
        let now = self.now.monotonic;
        let hosts = self.coordinator.partitions.values_mut();
        let late: Vec<_> = hosts.flat_map(|hosted| hosted.transactions.take_late(now)).collect();
        for ticket in late {
            match ticket {
                // Not asked again by us: its client has waited.
                TransactionTicket::Question(question) => {
                    self.answer_question(question, Err(ErrorCode::ConcurrentTransactions));
                }
                ticket => self.answer_add(ticket, Err(TransactionError::ConcurrentTransactions)),
            }
        }
    }

    /// The partitions of the transactions' topic whose coordinators are here and active.
    pub(super) fn places_of_transactions(&self) -> Vec<Place> {
        let hosted = self.coordinator.partitions.iter();
        let active = hosted.filter(|(index, hosted)| {
            index.host == Host::Transactions && hosted.state == HostState::Active && hosted.transactions.count() > 0
        });
        active.map(|(index, _)| *index).collect()
    }

    /// Why transactions of this shard cannot be listed yet, if they cannot.
    pub(super) fn check_transactions_loaded(&self) -> Result<(), ErrorCode> {
        let mut hosts = self.coordinator.partitions.iter().filter(|(index, _)| index.host == Host::Transactions);
        let is_loading = hosts.any(|(_, hosted)| hosted.state == HostState::Loading);
        if is_loading { Err(ErrorCode::CoordinatorLoadInProgress) } else { Ok(()) }
    }

    /// Which shard has the coordinator of a transactional id, and its partition.
    pub(in crate::handlers) fn shard_of_transaction(&self, id: &str) -> Option<(ShardId, PartitionIndex)> {
        let topic = self.image.topic_by_name(TRANSACTIONS_TOPIC)?;
        let index = PartitionIndex(crate::coordinator::partition_of(id, topic.partition_count));
        let leader = self.image.leader(topic, index)?;
        Some((image::locate(leader).1, index))
    }
}
