//! Transactions as operators see them: which there are, who is in a partition's way, and the end of one that hangs.

use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic};
use kafka_protocol::messages::{
    DescribeProducersRequest, DescribeTransactionsRequest, FindCoordinatorRequest, ListTransactionsRequest,
    TransactionalId, WriteTxnMarkersRequest,
};

use super::cluster::{Client, MAX_VERSION, text, topic_name};
use super::error::ClientError;
use super::groups::TopicPartition;
use crate::model::id::BrokerId;
use crate::protocol::ErrorCode;

/// What FindCoordinator calls a transactional id.
const TRANSACTION: i8 = 1;

/// A transactional id as it is listed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TransactionListing {
    /// The id.
    pub id: String,
    /// `Ongoing`, `Empty`, `CompleteCommit` and the like.
    pub state: String,
    /// Its producer.
    pub producer_id: i64,
    /// The broker that listed it: its coordinator.
    pub coordinator: i32,
}

/// A transactional id and its transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionDescription {
    /// Its coordinator.
    pub coordinator: BrokerId,
    /// `Ongoing`, `Empty`, `CompleteCommit` and the like.
    pub state: String,
    /// Its producer.
    pub producer_id: i64,
    /// The producer's epoch.
    pub producer_epoch: i16,
    /// How long a transaction may take, in milliseconds.
    pub timeout_ms: i32,
    /// When it began, in milliseconds since 1970; -1: there was none.
    pub start_ms: i64,
    /// What it includes.
    pub partitions: Vec<TopicPartition>,
}

/// A producer that a partition remembers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionProducer {
    /// Its id.
    pub producer_id: i64,
    /// Its epoch.
    pub producer_epoch: i32,
    /// Epoch of the coordinator of its last marker; -1: none.
    pub coordinator_epoch: i32,
    /// When it last wrote.
    pub last_timestamp_ms: i64,
    /// First offset of its transaction that is under way; -1: none.
    pub transaction_start: i64,
}

impl Client {
    /// All transactional ids: every broker is asked for those that it coordinates.
    pub fn list_transactions(&mut self, states: &[String]) -> Result<Vec<TransactionListing>, ClientError> {
        let brokers: Vec<i32> = self.metadata(Some(&[]))?.brokers.keys().copied().collect();
        let mut found = Vec::new();
        for broker in brokers {
            let response = self.retry(None, |client| {
                let filters: Vec<_> = states.iter().map(|state| text(state)).collect();
                let build = |_| ListTransactionsRequest::default().with_state_filters(filters.clone());
                let response = client.call_broker(BrokerId(broker), MAX_VERSION, build)?;
                ClientError::check(response.error_code, None, || {
                    format!("listing the transactions of broker {broker}")
                })?;
                Ok(response)
            })?;
            if let Some(unknown) = response.unknown_state_filters.first() {
                return Err(ClientError::Request(format!("there is no state {}", unknown.as_str())));
            }
            found.extend(response.transaction_states.into_iter().map(|state| TransactionListing {
                id: state.transactional_id.to_string(),
                state: state.transaction_state.to_string(),
                producer_id: state.producer_id.0,
                coordinator: broker,
            }));
        }
        found.sort();
        Ok(found)
    }

    fn transaction_coordinator(&mut self, id: &str) -> Result<BrokerId, ClientError> {
        let response = self.call_any(MAX_VERSION, |version| {
            let request = FindCoordinatorRequest::default().with_key_type(TRANSACTION);
            match version {
                ..4 => request.with_key(text(id)),
                _ => request.with_coordinator_keys(vec![text(id)]),
            }
        })?;
        let (code, node) = match response.coordinators.first() {
            Some(found) => (found.error_code, found.node_id),
            None => (response.error_code, response.node_id),
        };
        ClientError::check(code, None, || format!("looking for the coordinator of transactional id {id}"))?;
        Ok(BrokerId(node.0))
    }

    /// A transactional id and its transaction; `None` if nobody knows the id.
    pub fn describe_transaction(&mut self, id: &str) -> Result<Option<TransactionDescription>, ClientError> {
        self.retry(None, |client| {
            if client.info().brokers.is_empty() {
                client.metadata(Some(&[]))?;
            }
            let coordinator = client.transaction_coordinator(id)?;
            let ids = vec![TransactionalId(text(id))];
            let build = |_| DescribeTransactionsRequest::default().with_transactional_ids(ids.clone());
            let mut response = client.call_broker(coordinator, MAX_VERSION, build)?;
            let state = response.transaction_states.pop();
            let state =
                state.ok_or_else(|| ClientError::Request("DescribeTransactions was answered without an id".into()))?;
            if state.error_code == ErrorCode::TransactionalIdNotFound.code() {
                return Ok(None);
            }
            ClientError::check(state.error_code, None, || format!("describing transactional id {id}"))?;
            let partitions = state.topics.iter().flat_map(|topic| {
                topic.partitions.iter().map(|index| (topic.topic.to_string(), *index)).collect::<Vec<_>>()
            });
            Ok(Some(TransactionDescription {
                coordinator,
                state: state.transaction_state.to_string(),
                producer_id: state.producer_id.0,
                producer_epoch: state.producer_epoch,
                timeout_ms: state.transaction_timeout_ms,
                start_ms: state.transaction_start_time_ms,
                partitions: partitions.collect(),
            }))
        })
    }

    /// The producers that a partition remembers.
    pub fn partition_producers(&mut self, topic: &str, index: i32) -> Result<Vec<PartitionProducer>, ClientError> {
        self.retry(None, |client| {
            client.topic(topic, false)?;
            let leader = client.leader(topic, index)?;
            let asked = TopicRequest::default().with_name(topic_name(topic)).with_partition_indexes(vec![index]);
            let build = |_| DescribeProducersRequest::default().with_topics(vec![asked.clone()]);
            let mut response = client.call_broker(leader, MAX_VERSION, build)?;
            let partition = response.topics.pop().and_then(|mut topic| topic.partitions.pop());
            let partition = partition
                .ok_or_else(|| ClientError::Request("DescribeProducers was answered without a partition".into()))?;
            ClientError::check(partition.error_code, partition.error_message.as_deref(), || {
                format!("describing the producers of {topic}-{index}")
            })?;
            let producers = partition.active_producers.into_iter().map(|producer| PartitionProducer {
                producer_id: producer.producer_id.0,
                producer_epoch: producer.producer_epoch,
                coordinator_epoch: producer.coordinator_epoch,
                last_timestamp_ms: producer.last_timestamp,
                transaction_start: producer.current_txn_start_offset,
            });
            Ok(producers.collect())
        })
    }

    /// Ends a producer's transaction in one partition by an abort marker, whatever its coordinator knows.
    pub fn abort_transaction(
        &mut self,
        topic: &str,
        index: i32,
        producer: &PartitionProducer,
    ) -> Result<(), ClientError> {
        self.retry(None, |client| {
            client.topic(topic, false)?;
            let leader = client.leader(topic, index)?;
            let asked =
                WritableTxnMarkerTopic::default().with_name(topic_name(topic)).with_partition_indexes(vec![index]);
            let marker = WritableTxnMarker::default()
                .with_producer_id(producer.producer_id.into())
                .with_producer_epoch(producer.producer_epoch as i16)
                .with_transaction_result(false)
                .with_coordinator_epoch(producer.coordinator_epoch)
                .with_topics(vec![asked]);
            let build = |_| WriteTxnMarkersRequest::default().with_markers(vec![marker.clone()]);
            let response = client.call_broker(leader, MAX_VERSION, build)?;
            let results = response.markers.iter().flat_map(|marker| &marker.topics);
            for result in results.flat_map(|topic| &topic.partitions) {
                ClientError::check(result.error_code, None, || format!("aborting a transaction in {topic}-{index}"))?;
            }
            Ok(())
        })
    }
}
