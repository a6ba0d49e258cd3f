//! Topics and configs: create, delete, describe.

use std::time::Duration;

use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::{
    CreateTopicsRequest, DeleteTopicsRequest, DescribeClusterRequest, DescribeConfigsRequest,
};

use super::cluster::{Client, MAX_VERSION, text, topic_name};
use super::error::ClientError;
use crate::model::id::TopicId;

/// How long the broker may take over a topic.
const TOPIC_WAIT_MAX: Duration = Duration::from_secs(30);
/// Kafka's resource type for topics in DescribeConfigs.
const RESOURCE_TOPIC: i8 = 2;

/// A topic to be created.
#[derive(Clone, Debug)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// -1 for the broker's default.
    pub partition_count: i32,
    /// -1 for the broker's default.
    pub replication_factor: i16,
    /// Configs under Kafka's names.
    pub configs: Vec<(String, String)>,
}

/// What was created, as far as the broker says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedTopic {
    /// Nil from brokers older than CreateTopics 7.
    pub id: TopicId,
    /// -1 from brokers older than CreateTopics 5.
    pub partition_count: i32,
    /// The same.
    pub replication_factor: i16,
}

/// One config of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigEntry {
    /// Kafka's name.
    pub name: String,
    /// `None` if it is secret or not set.
    pub value: Option<String>,
    /// Where the value comes from, in Kafka's numbers: 1 the topic, 5 the default.
    pub source: i8,
    /// It cannot be changed.
    pub read_only: bool,
}

impl ConfigEntry {
    /// True if nobody set it: neither the topic nor its brokers.
    pub fn is_default(&self) -> bool {
        self.source == 5
    }

    /// Kafka's name of the source.
    pub fn source_name(&self) -> &'static str {
        match self.source {
            1 => "topic",
            2 => "dynamic broker",
            3 => "dynamic default broker",
            4 => "static broker",
            5 => "default",
            6 => "dynamic broker logger",
            _ => "unknown",
        }
    }
}

/// The cluster by DescribeCluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterDescription {
    /// The cluster's id.
    pub cluster_id: String,
    /// The controller's broker id.
    pub controller: i32,
    /// Id, `host:port`, rack.
    pub brokers: Vec<(i32, String, Option<String>)>,
}

impl Client {
    /// Creates a topic, or only checks whether it could be.
    pub fn create_topic(&mut self, topic: &NewTopic, validate_only: bool) -> Result<CreatedTopic, ClientError> {
        let configs = topic
            .configs
            .iter()
            .map(|(name, value)| CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value))))
            .collect();
        let creatable = CreatableTopic::default()
            .with_name(topic_name(&topic.name))
            .with_num_partitions(topic.partition_count)
            .with_replication_factor(topic.replication_factor)
            .with_configs(configs);
        let request = CreateTopicsRequest::default()
            .with_topics(vec![creatable])
            .with_timeout_ms(TOPIC_WAIT_MAX.as_millis() as i32)
            .with_validate_only(validate_only);
        let response = self.retry(None, |client| {
            let response = client.call_controller(MAX_VERSION, |_| request.clone())?;
            let Some(result) = response.topics.into_iter().next() else {
                return Err(ClientError::Request("CreateTopics was answered without a topic".into()));
            };
            ClientError::check(result.error_code, result.error_message.as_deref(), || {
                format!("creating topic {}", topic.name)
            })?;
            Ok(result)
        })?;
        Ok(CreatedTopic {
            id: TopicId(response.topic_id),
            partition_count: response.num_partitions,
            replication_factor: response.replication_factor,
        })
    }

    /// Deletes a topic by name.
    pub fn delete_topic(&mut self, name: &str) -> Result<(), ClientError> {
        let build = |version: i16| {
            let request = DeleteTopicsRequest::default().with_timeout_ms(TOPIC_WAIT_MAX.as_millis() as i32);
            if version >= 6 {
                request.with_topics(vec![DeleteTopicState::default().with_name(Some(topic_name(name)))])
            } else {
                request.with_topic_names(vec![topic_name(name)])
            }
        };
        // UNKNOWN_TOPIC_OR_PARTITION counts as retriable elsewhere; here it is the answer.
        let response = self.call_controller(MAX_VERSION, build)?;
        let Some(result) = response.responses.first() else {
            return Err(ClientError::Request("DeleteTopics was answered without a topic".into()));
        };
        ClientError::check(result.error_code, result.error_message.as_deref(), || format!("deleting topic {name}"))
    }

    /// All configs of a topic.
    pub fn topic_configs(&mut self, name: &str) -> Result<Vec<ConfigEntry>, ClientError> {
        let resource = DescribeConfigsResource::default()
            .with_resource_type(RESOURCE_TOPIC)
            .with_resource_name(text(name))
            .with_configuration_keys(None);
        let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
        let response = self.call_any(MAX_VERSION, |_| request.clone())?;
        let Some(result) = response.results.first() else {
            return Err(ClientError::Request("DescribeConfigs was answered without a resource".into()));
        };
        ClientError::check(result.error_code, result.error_message.as_deref(), || format!("configs of topic {name}"))?;
        let mut entries: Vec<_> = result
            .configs
            .iter()
            .map(|config| ConfigEntry {
                name: config.name.to_string(),
                value: config.value.as_ref().map(|value| value.to_string()),
                source: config.config_source,
                read_only: config.read_only,
            })
            .collect();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// The brokers, by DescribeCluster.
    pub fn describe_cluster(&mut self) -> Result<ClusterDescription, ClientError> {
        let response = self.call_any(MAX_VERSION, |_| DescribeClusterRequest::default())?;
        ClientError::check(response.error_code, response.error_message.as_deref(), || "DescribeCluster".into())?;
        Ok(ClusterDescription {
            cluster_id: response.cluster_id.to_string(),
            controller: response.controller_id.0,
            brokers: response
                .brokers
                .iter()
                .map(|b| {
                    (b.broker_id.0, format!("{}:{}", b.host.as_str(), b.port), b.rack.as_ref().map(|r| r.to_string()))
                })
                .collect(),
        })
    }
}
