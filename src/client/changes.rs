//! What changes topics in use, and what the brokers' disks hold: configs, partitions, records, log directories.

use std::collections::BTreeMap;
use std::time::Duration;

use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::{
    CreatePartitionsRequest, DeleteRecordsRequest, DescribeLogDirsRequest, IncrementalAlterConfigsRequest,
};

use super::cluster::{Client, MAX_VERSION, text, topic_name};
use super::error::ClientError;
use crate::model::id::{BrokerId, Offset};

/// How long the brokers may take over a change.
const CHANGE_WAIT_MAX: Duration = Duration::from_secs(30);
/// Kafka's resource type for topics.
const RESOURCE_TOPIC: i8 = 2;
/// Kafka's numbers of what is done with a config.
const SET: i8 = 0;
const DELETE: i8 = 1;

/// What one broker's disk holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredBytes {
    /// Partitions that it told about.
    pub partition_count: usize,
    /// Bytes of their records.
    pub size_bytes: u64,
    /// The file system's size; `None` from brokers older than DescribeLogDirs 4.
    pub total_bytes: Option<u64>,
    /// What is left of it; `None` the same way.
    pub usable_bytes: Option<u64>,
}

impl Client {
    /// Changes single configs of a topic; `None` takes one back. Or only checks whether they could be changed.
    pub fn alter_topic_configs(
        &mut self,
        name: &str,
        changes: &[(String, Option<String>)],
        validate_only: bool,
    ) -> Result<(), ClientError> {
        let configs = changes.iter().map(|(key, value)| {
            AlterableConfig::default()
                .with_name(text(key))
                .with_config_operation(if value.is_some() { SET } else { DELETE })
                .with_value(value.as_deref().map(text))
        });
        let resource = AlterConfigsResource::default()
            .with_resource_type(RESOURCE_TOPIC)
            .with_resource_name(text(name))
            .with_configs(configs.collect());
        let request =
            IncrementalAlterConfigsRequest::default().with_resources(vec![resource]).with_validate_only(validate_only);
        let response = self.call_controller(MAX_VERSION, |_| request.clone())?;
        let Some(result) = response.responses.first() else {
            return Err(ClientError::Request("IncrementalAlterConfigs was answered without a resource".into()));
        };
        ClientError::check(result.error_code, result.error_message.as_deref(), || format!("altering topic {name}"))
    }

    /// Gives a topic more partitions, `count` with the old ones. Or only checks whether it could have them.
    pub fn add_partitions(&mut self, name: &str, count: i32, validate_only: bool) -> Result<(), ClientError> {
        let topic =
            CreatePartitionsTopic::default().with_name(topic_name(name)).with_count(count).with_assignments(None);
        let request = CreatePartitionsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(CHANGE_WAIT_MAX.as_millis() as i32)
            .with_validate_only(validate_only);
        let response = self.call_controller(MAX_VERSION, |_| request.clone())?;
        let Some(result) = response.results.first() else {
            return Err(ClientError::Request("CreatePartitions was answered without a topic".into()));
        };
        ClientError::check(result.error_code, result.error_message.as_deref(), || {
            format!("adding partitions to topic {name}")
        })
    }

    /// Deletes the records of partitions below offsets; -1 means all that there are. Each partition's new log start, or
    /// the error code with which it was refused. The topic's leaders must be known.
    pub fn delete_records(
        &mut self,
        topic: &str,
        before: &[(i32, Offset)],
    ) -> Result<BTreeMap<i32, Result<Offset, i16>>, ClientError> {
        let mut by_leader: BTreeMap<i32, Vec<DeleteRecordsPartition>> = BTreeMap::new();
        for (partition, offset) in before {
            let asked = DeleteRecordsPartition::default().with_partition_index(*partition).with_offset(offset.0);
            by_leader.entry(self.leader(topic, *partition)?.0).or_default().push(asked);
        }
        let mut found = BTreeMap::new();
        for (leader, partitions) in by_leader {
            let named = DeleteRecordsTopic::default().with_name(topic_name(topic)).with_partitions(partitions);
            let request = DeleteRecordsRequest::default()
                .with_topics(vec![named])
                .with_timeout_ms(CHANGE_WAIT_MAX.as_millis() as i32);
            let response = self.call_broker(BrokerId(leader), MAX_VERSION, |_| request.clone())?;
            for told in response.topics.iter().flat_map(|topic| &topic.partitions) {
                let result = match told.error_code {
                    0 => Ok(Offset(told.low_watermark)),
                    code => Err(code),
                };
                found.insert(told.partition_index, result);
            }
        }
        Ok(found)
    }

    /// What one broker stores.
    pub fn stored_bytes(&mut self, broker: BrokerId) -> Result<StoredBytes, ClientError> {
        let request = DescribeLogDirsRequest::default().with_topics(None);
        let response = self.call_broker(broker, MAX_VERSION, |_| request.clone())?;
        let what = || format!("log directories of broker {broker}");
        ClientError::check(response.error_code, None, what)?;
        let mut stored = StoredBytes::default();
        for dir in &response.results {
            ClientError::check(dir.error_code, None, what)?;
            for partition in dir.topics.iter().flat_map(|topic| &topic.partitions) {
                stored.partition_count += 1;
                stored.size_bytes += u64::try_from(partition.partition_size).unwrap_or(0);
            }
            // Several directories may be on several disks.
            let more = |sum: &mut Option<u64>, bytes: i64| {
                *sum = u64::try_from(bytes).ok().map(|bytes| bytes + sum.unwrap_or(0)).or(*sum);
            };
            more(&mut stored.total_bytes, dir.total_bytes);
            more(&mut stored.usable_bytes, dir.usable_bytes);
        }
        Ok(stored)
    }
}
