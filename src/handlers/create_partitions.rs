//! CreatePartitions: decided by the controller, answered when every shard knows the new partitions.

use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::{CreatePartitionsRequest, CreatePartitionsResponse};
use kafka_protocol::protocol::StrBytes;

use super::broker::Broker;
use super::bus::Pending;
use super::call::Call;
use super::topics::{code_of, topic_name};
use crate::controller::controller::{ControllerError, Event, TopicResults};
use crate::controller::growth::MorePartitions;
use crate::io::Io;
use crate::model::id::BrokerId;
use crate::protocol::error::ErrorCode;

impl<I: Io> Broker<I> {
    /// Hands the topics to the controller.
    pub(super) fn create_partitions(&mut self, call: Call, request: CreatePartitionsRequest) {
        let names = request.topics.iter().map(|topic| topic.name.to_string()).collect();
        let topics = request.topics.into_iter().map(|topic| MorePartitions {
            name: topic.name.to_string(),
            partition_count: topic.count,
            assignments: topic.assignments.map(|assignments| {
                let brokers = assignments.into_iter().map(|assignment| assignment.broker_ids);
                brokers.map(|ids| ids.into_iter().map(|id| BrokerId(id.0)).collect()).collect()
            }),
        });
        let (topics, validate_only) = (topics.collect(), request.validate_only);
        let event = |ticket| Event::CreatePartitions { ticket, topics, validate_only };
        self.ask_controller(event, Pending::CreatePartitions(call, names));
    }

    /// The controller has judged.
    pub(super) fn partitions_created(&mut self, call: Call, results: TopicResults<String, ()>) {
        let results = results.into_iter().map(|(name, result)| {
            let answer = CreatePartitionsTopicResult::default().with_name(topic_name(&name));
            match result {
                Ok(()) => answer,
                Err(error) => answer
                    .with_error_code(code_of(&error).code())
                    .with_error_message(Some(StrBytes::from_string(error.to_string()))),
            }
        });
        let response = CreatePartitionsResponse::default().with_results(results.collect());
        self.reply(call, &response);
    }

    /// The controller could not judge.
    pub(super) fn partitions_not_created(
        &mut self,
        call: Call,
        names: Vec<String>,
        error: ErrorCode,
        cause: &ControllerError,
    ) {
        tracing::error!(%cause, code = error.name(), "CreatePartitions failed");
        let refused = names.iter().map(|name| {
            CreatePartitionsTopicResult::default()
                .with_name(topic_name(name))
                .with_error_code(error.code())
                .with_error_message(Some(StrBytes::from_string(cause.to_string())))
        });
        let response = CreatePartitionsResponse::default().with_results(refused.collect());
        self.reply(call, &response);
    }
}
