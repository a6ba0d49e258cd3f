//! DescribeTransactions and ListTransactions: the transactional ids whose coordinators are here. Clients ask every
//! broker and merge.

use std::collections::BTreeSet;

use kafka_protocol::messages::describe_transactions_response::{TopicData, TransactionState as Described};
use kafka_protocol::messages::list_transactions_response::TransactionState as Listed;
use kafka_protocol::messages::{
    DescribeTransactionsRequest, DescribeTransactionsResponse, ListTransactionsRequest, ListTransactionsResponse,
    TransactionalId,
};
use kafka_protocol::protocol::StrBytes;
use regex::RegexBuilder;

use super::join_group::text;
use crate::coordinator::transaction::metadata::{Metadata, TransactionState};
use crate::handlers::broker::Broker;
use crate::handlers::call::Call;
use crate::handlers::topics::topic_name;
use crate::io::Io;
use crate::model::limits::DESCRIBED_TRANSACTION_PARTITION_COUNT_MAX;
use crate::protocol::error::ErrorCode;

/// What a pattern may take once it is compiled.
const PATTERN_SIZE_BYTES_MAX: usize = 256 * 1024;

impl<I: Io> Broker<I> {
    /// Answers a DescribeTransactions.
    pub(in crate::handlers) fn describe_transactions(&mut self, call: Call, request: &DescribeTransactionsRequest) {
        let mut partition_count = 0;
        let states = request.transactional_ids.iter().map(|id| {
            let described = Described::default().with_transactional_id(id.clone());
            let found = match partition_count < DESCRIBED_TRANSACTION_PARTITION_COUNT_MAX {
                true => self.find_transaction(id),
                // The client asks for the rest again.
                false => Err(ErrorCode::CoordinatorNotAvailable),
            };
            match found {
                Ok(metadata) => {
                    partition_count += metadata.partitions.values().map(BTreeSet::len).sum::<usize>();
                    describe(described, metadata)
                }
                Err(error) => described.with_error_code(error.code()),
            }
        });
        let response = DescribeTransactionsResponse::default().with_transaction_states(states.collect());
        self.reply(call, &response);
    }

    fn find_transaction(&self, id: &str) -> Result<&Metadata, ErrorCode> {
        if id.is_empty() {
            return Err(ErrorCode::InvalidRequest);
        }
        let index = self.coordinator_of_transaction(id)?;
        let hosted = self.coordinator.hosted(index).ok_or(ErrorCode::NotCoordinator)?;
        hosted.transactions.get(id).ok_or(ErrorCode::TransactionalIdNotFound)
    }

    /// Answers a ListTransactions.
    pub(in crate::handlers) fn list_transactions(&mut self, call: Call, request: &ListTransactionsRequest) {
        if let Err(error) = self.check_transactions_loaded() {
            return self.reply(call, &ListTransactionsResponse::default().with_error_code(error.code()));
        }
        let pattern = match request.transactional_id_pattern.as_deref().filter(|pattern| !pattern.is_empty()) {
            None => None,
            // The whole id must match, as in Java's regular expressions.
            Some(pattern) => {
                match RegexBuilder::new(&format!("^(?:{pattern})$")).size_limit(PATTERN_SIZE_BYTES_MAX).build() {
                    Ok(pattern) => Some(pattern),
                    Err(_) => {
                        let error = ErrorCode::InvalidRegularExpression;
                        return self.reply(call, &ListTransactionsResponse::default().with_error_code(error.code()));
                    }
                }
            }
        };
        let by_name = |name: &StrBytes| TransactionState::ALL.into_iter().find(|state| state.name() == &**name);
        let unknown = request.state_filters.iter().filter(|name| by_name(name).is_none()).cloned().collect();
        let wanted: Vec<TransactionState> = request.state_filters.iter().filter_map(by_name).collect();
        let now = self.now.wall;
        let is_wanted = |id: &str, metadata: &Metadata| {
            let by_state = request.state_filters.is_empty() || wanted.contains(&metadata.state);
            let producers = &request.producer_id_filters;
            let by_producer = producers.is_empty() || producers.iter().any(|id| id.0 == metadata.producer_id.0);
            let is_under_way = metadata.state == TransactionState::Ongoing || metadata.state.is_prepared();
            let by_duration = request.duration_filter < 0
                || (is_under_way && now.0.saturating_sub(metadata.start.0) > request.duration_filter);
            by_state && by_producer && by_duration && pattern.as_ref().is_none_or(|pattern| pattern.is_match(id))
        };
        let mut states = Vec::new();
        for index in self.places_of_transactions() {
            let hosted = self.coordinator.hosted(index).expect("it is active");
            for (id, metadata) in hosted.transactions.iter().filter(|(id, metadata)| is_wanted(id, metadata)) {
                states.push(
                    Listed::default()
                        .with_transactional_id(TransactionalId(text(id)))
                        .with_producer_id(metadata.producer_id.0.into())
                        .with_transaction_state(StrBytes::from_static_str(metadata.state.name())),
                );
            }
        }
        let response =
            ListTransactionsResponse::default().with_unknown_state_filters(unknown).with_transaction_states(states);
        self.reply(call, &response);
    }
}

fn describe(described: Described, metadata: &Metadata) -> Described {
    let topics = metadata.partitions.iter().map(|(topic, indexes)| {
        TopicData::default()
            .with_topic(topic_name(topic))
            .with_partitions(indexes.iter().map(|index| index.0).collect())
    });
    described
        .with_transaction_state(StrBytes::from_static_str(metadata.state.name()))
        .with_transaction_timeout_ms(metadata.timeout_ms)
        .with_transaction_start_time_ms(metadata.start.0)
        .with_producer_id(metadata.producer_id.0.into())
        .with_producer_epoch(metadata.producer_epoch.0)
        .with_topics(topics.collect())
}
