//! CreateTopics and DeleteTopics: decided by the controller, answered when every shard knows.

use kafka_protocol::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{
    CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest, DeleteTopicsResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use super::broker::Broker;
use super::bus::Pending;
use super::call::Call;
use crate::controller::controller::{ControllerError, Event, TopicResults};
use crate::controller::topics::{CreatedTopic, DeletedTopicRef, NewTopic, TopicError, TopicRef};
use crate::io::Io;
use crate::model::configs::describe_topic;
use crate::model::id::{BrokerId, PartitionIndex, TopicId};
use crate::protocol::error::ErrorCode;

impl<I: Io> Broker<I> {
    /// Hands the topics to the controller.
    pub(super) fn create_topics(&mut self, call: Call, request: CreateTopicsRequest) {
        let names = request.topics.iter().map(|topic| topic_name(&topic.name)).collect();
        let topics = request
            .topics
            .into_iter()
            .map(|topic| NewTopic {
                name: topic.name.to_string(),
                partition_count: topic.num_partitions,
                replication_factor: topic.replication_factor,
                assignments: topic
                    .assignments
                    .into_iter()
                    .map(|assignment| {
                        let brokers = assignment.broker_ids.iter().map(|id| BrokerId(id.0)).collect();
                        (PartitionIndex(assignment.partition_index), brokers)
                    })
                    .collect(),
                configs: topic
                    .configs
                    .into_iter()
                    .map(|config| (config.name.to_string(), config.value.map(|value| value.to_string())))
                    .collect(),
            })
            .collect();
        let validate_only = request.validate_only;
        let event = |ticket| Event::CreateTopics { ticket, topics, validate_only };
        self.ask_controller(event, Pending::CreateTopics(call, names));
    }

    /// The controller has judged.
    pub(super) fn topics_created(&mut self, call: Call, results: TopicResults<String, CreatedTopic>) {
        let topics = results
            .into_iter()
            .map(|(name, result)| {
                let answer = CreatableTopicResult::default().with_name(topic_name(&name));
                match result {
                    Err(error) => answer
                        .with_error_code(code_of(&error).code())
                        .with_error_message(Some(StrBytes::from_string(error.to_string())))
                        .with_num_partitions(-1)
                        .with_replication_factor(-1),
                    Ok(created) => {
                        if created.replication_factor != created.replication_factor_asked {
                            tracing::warn!(
                                topic = name,
                                asked = created.replication_factor_asked,
                                "shards of one node are no replicas: the topic has a replication factor of 1"
                            );
                        }
                        answer
                            // The codec's default is an empty text, not none.
                            .with_error_message(None)
                            .with_topic_id(created.id.0)
                            .with_num_partitions(created.partition_count)
                            .with_replication_factor(created.replication_factor)
                            .with_configs((call.version >= 5).then(|| self.configs_of(&created)))
                    }
                }
            })
            .collect();
        self.reply(call, &CreateTopicsResponse::default().with_topics(topics));
    }

    fn configs_of(&self, created: &CreatedTopic) -> Vec<CreatableTopicConfigs> {
        let entries = describe_topic(&self.options.config, &created.configs).unwrap_or_default();
        entries
            .into_iter()
            .map(|entry| {
                CreatableTopicConfigs::default()
                    .with_name(StrBytes::from_static_str(entry.name))
                    .with_value(entry.value.map(StrBytes::from_string))
                    .with_read_only(entry.read_only)
                    .with_config_source(entry.source.number())
                    .with_is_sensitive(entry.is_sensitive)
            })
            .collect()
    }

    /// The controller could not judge. There is no place for an error of the whole request but the topics' own.
    pub(super) fn topics_not_created(
        &mut self,
        call: Call,
        names: Vec<TopicName>,
        error: ErrorCode,
        cause: &ControllerError,
    ) {
        tracing::error!(%cause, code = error.name(), "CreateTopics failed");
        let refused = names.into_iter().map(|name| {
            CreatableTopicResult::default()
                .with_name(name)
                .with_error_code(error.code())
                .with_error_message(Some(StrBytes::from_string(cause.to_string())))
                .with_num_partitions(-1)
                .with_replication_factor(-1)
        });
        self.reply(call, &CreateTopicsResponse::default().with_topics(refused.collect()));
    }

    /// Hands the topics to the controller. Up to version 5 they are named in a list of their own.
    pub(super) fn delete_topics(&mut self, call: Call, request: DeleteTopicsRequest) {
        let by_name = request.topic_names.iter().map(|name| TopicRef::Name(name.to_string()));
        let by_either = request.topics.iter().map(|topic| match (&topic.name, TopicId(topic.topic_id)) {
            (Some(name), TopicId::NONE) => TopicRef::Name(name.to_string()),
            (Some(name), id) => TopicRef::Both(name.to_string(), id),
            (None, TopicId::NONE) => TopicRef::Neither,
            (None, id) => TopicRef::Id(id),
        });
        let topics: Vec<TopicRef> = by_name.chain(by_either).collect();
        let asked = topics.clone();
        self.ask_controller(|ticket| Event::DeleteTopics { ticket, topics }, Pending::DeleteTopics(call, asked));
    }

    /// The controller has judged.
    pub(super) fn topics_deleted(&mut self, call: Call, results: TopicResults<TopicRef, DeletedTopicRef>) {
        let responses = results
            .into_iter()
            .map(|(asked, result)| {
                let answer = deletable(&asked);
                match result {
                    Ok(deleted) => answer.with_name(Some(topic_name(&deleted.name))).with_topic_id(deleted.id.0),
                    Err(error) => {
                        // The code for it came with version 3.
                        let code = match error {
                            TopicError::DeletionDisabled if call.version < 3 => ErrorCode::InvalidRequest,
                            _ => code_of(&error),
                        };
                        let message = Some(StrBytes::from_string(error.to_string()));
                        answer.with_error_code(code.code()).with_error_message(message)
                    }
                }
            })
            .collect();
        self.reply(call, &DeleteTopicsResponse::default().with_responses(responses));
    }

    /// See [`topics_not_created`](Self::topics_not_created).
    pub(super) fn topics_not_deleted(
        &mut self,
        call: Call,
        topics: Vec<TopicRef>,
        error: ErrorCode,
        cause: &ControllerError,
    ) {
        tracing::error!(%cause, code = error.name(), "DeleteTopics failed");
        let refused = topics.iter().map(|asked| {
            let message = Some(StrBytes::from_string(cause.to_string()));
            deletable(asked).with_error_code(error.code()).with_error_message(message)
        });
        self.reply(call, &DeleteTopicsResponse::default().with_responses(refused.collect()));
    }

    /// Asks the controller for topics that a Metadata request misses.
    pub(super) fn create_missing_topics(&mut self, names: Vec<String>, pending: Pending) {
        self.ask_controller(|ticket| Event::AutoCreateTopics { ticket, names }, pending);
    }
}

/// A name as the codec holds it.
pub(super) fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

/// An answer about a topic, named as it was asked for.
fn deletable(asked: &TopicRef) -> DeletableTopicResult {
    match asked {
        TopicRef::Name(name) => DeletableTopicResult::default().with_name(Some(topic_name(name))),
        TopicRef::Id(id) => DeletableTopicResult::default().with_name(None).with_topic_id(id.0),
        TopicRef::Both(name, id) => {
            DeletableTopicResult::default().with_name(Some(topic_name(name))).with_topic_id(id.0)
        }
        TopicRef::Neither => DeletableTopicResult::default().with_name(None),
    }
}

/// Kafka's code for what is wrong with a request about a topic.
pub(super) fn code_of(error: &TopicError) -> ErrorCode {
    match error {
        TopicError::InvalidName { .. } | TopicError::NameCollision { .. } => ErrorCode::InvalidTopicException,
        TopicError::TopicExists { .. } => ErrorCode::TopicAlreadyExists,
        TopicError::Duplicate
        | TopicError::DuplicateId
        | TopicError::InvalidRequest { .. }
        | TopicError::DefaultTopic
        | TopicError::DefaultGroup
        | TopicError::NameAndId
        | TopicError::NeitherNameNorId => ErrorCode::InvalidRequest,
        TopicError::InvalidPartitions { .. } | TopicError::NoMorePartitions { .. } => ErrorCode::InvalidPartitions,
        TopicError::InvalidReplicationFactor { .. } => ErrorCode::InvalidReplicationFactor,
        TopicError::InvalidAssignment { .. } => ErrorCode::InvalidReplicaAssignment,
        TopicError::InvalidConfig(_)
        | TopicError::NullConfig { .. }
        | TopicError::LongConfig { .. }
        | TopicError::NotAList { .. } => ErrorCode::InvalidConfig,
        TopicError::UnknownTopic => ErrorCode::UnknownTopicOrPartition,
        TopicError::UnknownTopicId => ErrorCode::UnknownTopicId,
        TopicError::DeletionDisabled => ErrorCode::TopicDeletionDisabled,
        TopicError::PolicyViolation { .. } | TopicError::ManyGroups => ErrorCode::PolicyViolation,
    }
}
