//! FindCoordinator: the broker that leads the partition of `__consumer_offsets` that a group belongs to, or that of
//! `__transaction_state` that a transactional id belongs to.
//!
//! The first question makes the topic. Kafka answers it with COORDINATOR_NOT_AVAILABLE; here it waits until every
//! shard knows the topic, which saves clients a pause.

use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{FindCoordinatorRequest, FindCoordinatorResponse};
use kafka_protocol::protocol::StrBytes;

use crate::coordinator::{OFFSETS_TOPIC, TRANSACTIONS_TOPIC, partition_of};
use crate::handlers::broker::Broker;
use crate::handlers::bus::Pending;
use crate::handlers::call::Call;
use crate::io::Io;
use crate::model::id::PartitionIndex;
use crate::protocol::error::ErrorCode;

/// Kafka's numbers of what has a coordinator.
const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;

/// Versions from this one on ask about several keys at once.
const BATCHED_FROM: i16 = 4;

impl<I: Io> Broker<I> {
    /// Answers, after making the topic if it is not there yet.
    pub(in crate::handlers) fn find_coordinator(&mut self, call: Call, request: FindCoordinatorRequest) {
        let has_keys = call.version < BATCHED_FROM || !request.coordinator_keys.is_empty();
        if let Some(topic) = topic_of(request.key_type)
            && has_keys
            && self.image.topic_by_name(topic).is_none()
        {
            let names = vec![topic.to_owned()];
            return self.create_missing_topics(names, Pending::FindCoordinator(call, Box::new(request)));
        }
        self.answer_find_coordinator(call, &request);
    }

    /// Answers from the image as it is.
    pub(in crate::handlers) fn answer_find_coordinator(&mut self, call: Call, request: &FindCoordinatorRequest) {
        if call.version < BATCHED_FROM {
            let found = self.find_one(request.key_type, &request.key);
            let message = (call.version >= 1)
                .then(|| StrBytes::from_static_str(ErrorCode::from_code(found.error_code).map_or("", ErrorCode::name)));
            let response = FindCoordinatorResponse::default()
                .with_error_code(found.error_code)
                .with_error_message(message)
                .with_node_id(found.node_id)
                .with_host(found.host)
                .with_port(found.port);
            return self.reply(call, &response);
        }
        let coordinators = request.coordinator_keys.iter().map(|key| self.find_one(request.key_type, key));
        let response = FindCoordinatorResponse::default().with_coordinators(coordinators.collect());
        self.reply(call, &response);
    }

    fn find_one(&self, key_type: i8, key: &StrBytes) -> Coordinator {
        let answer = Coordinator::default().with_key(key.clone());
        let Some(topic) = topic_of(key_type) else { return refused(answer, ErrorCode::InvalidRequest) };
        let found = self.image.topic_by_name(topic).and_then(|topic| {
            let index = PartitionIndex(partition_of(key, topic.partition_count));
            let leader = self.image.leader(topic, index)?;
            self.endpoints.brokers().find(|(id, _)| *id == leader)
        });
        match found {
            None => refused(answer, ErrorCode::CoordinatorNotAvailable),
            Some((id, endpoint)) => answer
                .with_node_id(id.0.into())
                .with_host(StrBytes::from_string(endpoint.host.clone()))
                .with_port(i32::from(endpoint.port))
                .with_error_message(None),
        }
    }
}

/// The topic whose partitions the coordinators of a kind of key belong to.
fn topic_of(key_type: i8) -> Option<&'static str> {
    match key_type {
        GROUP => Some(OFFSETS_TOPIC),
        TRANSACTION => Some(TRANSACTIONS_TOPIC),
        _ => None,
    }
}

fn refused(answer: Coordinator, error: ErrorCode) -> Coordinator {
    answer.with_error_code(error.code()).with_node_id((-1).into()).with_port(-1).with_error_message(None)
}
