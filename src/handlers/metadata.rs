//! Metadata: which brokers there are and who leads what. Every client's first question after ApiVersions.

use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::authorized::{CLUSTER_OPERATIONS, NOT_ASKED, TOPIC_OPERATIONS};
use super::broker::Broker;
use super::bus::Pending;
use super::call::Call;
use crate::controller::image::TopicImage;
use crate::io::Io;
use crate::model::id::{PartitionIndex, TopicId};
use crate::protocol::error::ErrorCode;
use crate::storage::layout::check_topic_name;

impl<I: Io> Broker<I> {
    /// Answers, after creating the topics that are missing if the client and `auto.create.topics.enable` let it.
    pub(super) fn metadata(&mut self, call: Call, request: MetadataRequest) {
        let may_create = request.allow_auto_topic_creation || call.version < 4;
        if may_create && !asks_by_id(&request) && self.options.config.auto_create_topics_enable {
            let missing = self.missing_topics(&request);
            if !missing.is_empty() {
                return self.create_missing_topics(missing, Pending::Metadata(call, Box::new(request)));
            }
        }
        self.answer_metadata(call, &request);
    }

    fn missing_topics(&self, request: &MetadataRequest) -> Vec<String> {
        let named = request.topics.iter().flatten().filter_map(|topic| topic.name.as_ref());
        let missing = named.filter(|name| check_topic_name(name).is_ok() && self.image.topic_by_name(name).is_none());
        missing.map(|name| name.to_string()).collect()
    }

    /// Answers from the image as it is.
    pub(super) fn answer_metadata(&mut self, call: Call, request: &MetadataRequest) {
        let asked = call.version >= 8 && request.include_topic_authorized_operations;
        let operations = if asked { TOPIC_OPERATIONS } else { NOT_ASKED };
        // Version 0 had no null: an empty list asks for all.
        let all = request.topics.as_ref().is_none_or(|topics| call.version == 0 && topics.is_empty());
        let topics = if all {
            self.image.topics().map(|topic| self.describe_topic(topic, operations)).collect()
        } else {
            let by_id = asks_by_id(request);
            let asked = request.topics.iter().flatten().filter(|topic| !by_id || topic.topic_id != Uuid::nil());
            asked.map(|topic| self.describe_asked(call.version, by_id, topic, operations)).collect()
        };
        let brokers = self.endpoints.brokers().map(|(id, endpoint)| {
            MetadataResponseBroker::default()
                .with_node_id(id.0.into())
                .with_host(StrBytes::from_string(endpoint.host.clone()))
                .with_port(i32::from(endpoint.port))
                .with_rack(Some(StrBytes::from_string(self.endpoints.rack().to_owned())))
        });
        let asked = (8..=10).contains(&call.version) && request.include_cluster_authorized_operations;
        let cluster_operations = if asked { CLUSTER_OPERATIONS } else { NOT_ASKED };
        let response = MetadataResponse::default()
            .with_brokers(brokers.collect())
            .with_cluster_id(Some(StrBytes::from_string(self.cluster_id())))
            .with_controller_id(self.controller_id().0.into())
            .with_topics(topics)
            .with_cluster_authorized_operations(cluster_operations);
        self.reply(call, &response);
    }

    fn describe_asked(
        &self,
        version: i16,
        by_id: bool,
        asked: &MetadataRequestTopic,
        operations: i32,
    ) -> MetadataResponseTopic {
        let refused = |error: ErrorCode| {
            // The name is nullable from version 12 on.
            let name = asked.name.clone().filter(|_| !by_id || version < 12);
            MetadataResponseTopic::default()
                .with_error_code(error.code())
                .with_name(name.or_else(|| (version < 12).then(TopicName::default)))
                .with_topic_id(asked.topic_id)
                .with_topic_authorized_operations(NOT_ASKED)
        };
        // Versions 10 and 11 have the fields for ids, but not their use.
        if version < 12 && (by_id || asked.name.is_none()) {
            return refused(ErrorCode::InvalidRequest);
        }
        let (topic, missing) = match &asked.name {
            _ if by_id => (self.image.topic(TopicId(asked.topic_id)), ErrorCode::UnknownTopicId),
            Some(name) if check_topic_name(name).is_err() => return refused(ErrorCode::InvalidTopicException),
            Some(name) => (self.image.topic_by_name(name), ErrorCode::UnknownTopicOrPartition),
            None => (None, ErrorCode::UnknownTopicOrPartition),
        };
        match topic {
            Some(topic) => self.describe_topic(topic, operations),
            None => refused(missing),
        }
    }

    fn describe_topic(&self, topic: &TopicImage, operations: i32) -> MetadataResponseTopic {
        let partitions = (0..topic.partition_count).map(|index| {
            let partition = self.image.partition(topic, PartitionIndex(index)).expect("the index is within the count");
            let brokers = |ids: &[crate::model::id::BrokerId]| ids.iter().map(|id| id.0.into()).collect::<Vec<_>>();
            MetadataResponsePartition::default()
                .with_partition_index(index)
                .with_leader_id(partition.leader.0.into())
                .with_leader_epoch(partition.leader_epoch.0)
                .with_replica_nodes(brokers(&partition.replicas))
                .with_isr_nodes(brokers(&partition.isr))
        });
        MetadataResponseTopic::default()
            .with_name(Some(TopicName(StrBytes::from_string(topic.name.to_string()))))
            .with_topic_id(topic.id.0)
            .with_is_internal(is_internal(&topic.name))
            .with_partitions(partitions.collect())
            .with_topic_authorized_operations(operations)
    }
}

/// Whether topics are asked for by id. One id makes all of them so, whatever the names say: Java's admin client sends an
/// empty name, not a null one, beside an id.
fn asks_by_id(request: &MetadataRequest) -> bool {
    request.topics.iter().flatten().any(|topic| topic.topic_id != Uuid::nil())
}

/// Topics that brokers keep for themselves.
pub(super) fn is_internal(name: &str) -> bool {
    matches!(name, "__consumer_offsets" | "__transaction_state" | "__share_group_state")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names beside the ids, empty or not, change nothing; a request for all topics or by names alone has no id.
    #[test]
    fn one_topic_id_makes_the_request_one_by_id() {
        let named = MetadataRequestTopic::default().with_name(Some(TopicName(StrBytes::from_static_str("a"))));
        let java =
            MetadataRequestTopic::default().with_name(Some(TopicName::default())).with_topic_id(Uuid::from_u128(7));
        let asking = |topics| MetadataRequest::default().with_topics(topics);
        assert!(asks_by_id(&asking(Some(vec![java.clone()]))));
        assert!(asks_by_id(&asking(Some(vec![named.clone(), java]))));
        assert!(!asks_by_id(&asking(Some(vec![named]))));
        assert!(!asks_by_id(&asking(None)));
    }
}
