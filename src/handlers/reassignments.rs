//! ElectLeaders, AlterPartitionReassignments and ListPartitionReassignments, as they are on one node.
//!
//! A partition has one copy, at the broker that placement or the client's choice gives it: its preferred leader always
//! leads, and nothing is ever on its way from one broker to another. So there is nothing to elect and nothing to list;
//! a request to move a partition is refused in words, not taken and forgotten.

use std::collections::BTreeSet;

use kafka_protocol::messages::alter_partition_reassignments_request::ReassignablePartition;
use kafka_protocol::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use kafka_protocol::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use kafka_protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, ElectLeadersRequest, ElectLeadersResponse,
    ListPartitionReassignmentsResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::broker::Broker;
use super::call::Call;
use crate::controller::image::PartitionImage;
use crate::io::Io;
use crate::model::id::{BrokerId, PartitionIndex};
use crate::protocol::error::ErrorCode;

/// Why something is not done, in a code and in words.
type Refusal = (ErrorCode, String);

impl<I: Io> Broker<I> {
    /// Every partition that there is has the leader that it should have.
    pub(super) fn elect_leaders(&mut self, call: Call, request: &ElectLeadersRequest) {
        let mut response = ElectLeadersResponse::default();
        if !(0..=1).contains(&request.election_type) {
            if call.version >= 1 {
                response.error_code = ErrorCode::InvalidRequest.code();
            }
            return self.reply(call, &response);
        }
        // Asked about all partitions, Kafka tells those for which something was done or went wrong: none.
        for topic in request.topic_partitions.iter().flatten() {
            let results = topic.partitions.iter().map(|index| {
                let (code, message) = match self.existing(&topic.topic, *index) {
                    Ok(_) => {
                        let message = "Leader election not needed for topic partition.".to_owned();
                        (ErrorCode::ElectionNotNeeded, message)
                    }
                    Err(refusal) => refusal,
                };
                PartitionResult::default()
                    .with_partition_id(*index)
                    .with_error_code(code.code())
                    .with_error_message(Some(StrBytes::from_string(message)))
            });
            let result = ReplicaElectionResult::default()
                .with_topic(topic.topic.clone())
                .with_partition_result(results.collect());
            response.replica_election_results.push(result);
        }
        self.reply(call, &response);
    }

    /// No partition is being moved.
    pub(super) fn list_partition_reassignments(&mut self, call: Call) {
        self.reply(call, &ListPartitionReassignmentsResponse::default().with_error_message(None));
    }

    /// Partitions are not moved one by one; where they are already, they stay.
    pub(super) fn alter_partition_reassignments(&mut self, call: Call, request: &AlterPartitionReassignmentsRequest) {
        let responses = request.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|asked| {
                let (code, message) = match self.judge_move(&topic.name, asked) {
                    Ok(()) => (ErrorCode::None, None),
                    Err((code, message)) => (code, Some(StrBytes::from_string(message))),
                };
                ReassignablePartitionResponse::default()
                    .with_partition_index(asked.partition_index)
                    .with_error_code(code.code())
                    .with_error_message(message)
            });
            ReassignableTopicResponse::default().with_name(topic.name.clone()).with_partitions(partitions.collect())
        });
        let mut response =
            AlterPartitionReassignmentsResponse::default().with_error_message(None).with_responses(responses.collect());
        if call.version >= 1 {
            response.allow_replication_factor_change = request.allow_replication_factor_change;
        }
        self.reply(call, &response);
    }

    fn judge_move(&self, topic: &str, asked: &ReassignablePartition) -> Result<(), Refusal> {
        let partition = self.existing(topic, asked.partition_index)?;
        let Some(replicas) = &asked.replicas else {
            let message = "No partition reassignment is in progress.".to_owned();
            return Err((ErrorCode::NoReassignmentInProgress, message));
        };
        let replicas: Vec<BrokerId> = replicas.iter().map(|id| BrokerId(id.0)).collect();
        let distinct: BTreeSet<&BrokerId> = replicas.iter().collect();
        let are_brokers = replicas.iter().all(|id| self.image.brokers().binary_search(id).is_ok());
        if replicas.is_empty() || distinct.len() < replicas.len() || !are_brokers {
            let message = "The manual partition assignment is empty, or includes a broker twice or one that is not \
                           registered."
                .to_owned();
            return Err((ErrorCode::InvalidReplicaAssignment, message));
        }
        if replicas == partition.replicas {
            return Ok(());
        }
        let message =
            "ottla does not move single partitions: a node keeps one copy of each, and its shards share them \
                       out anew when their number changes (--shards)."
                .to_owned();
        Err((ErrorCode::PolicyViolation, message))
    }

    fn existing(&self, topic: &str, index: i32) -> Result<PartitionImage, Refusal> {
        let found = self.image.topic_by_name(topic);
        let partition = found.and_then(|topic| self.image.partition(topic, PartitionIndex(index)));
        let missing = || (ErrorCode::UnknownTopicOrPartition, format!("No such partition as {topic}-{index}"));
        partition.ok_or_else(missing)
    }
}
