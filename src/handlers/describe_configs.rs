//! DescribeConfigs: every configuration of topics, groups and brokers with its value, its source and where it would come from.

use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};
use kafka_protocol::protocol::StrBytes;

use super::broker::Broker;
use super::call::Call;
use crate::controller::topics::check_name;
use crate::io::Io;
use crate::model::configs::{ConfigEntry, Overrides, describe_broker, describe_group, describe_topic};
use crate::protocol::error::ErrorCode;

/// Kafka's numbers of resource types.
pub(super) const TOPIC: i8 = 2;
pub(super) const BROKER: i8 = 4;
pub(super) const GROUP: i8 = 32;

impl<I: Io> Broker<I> {
    /// Answers for each resource. Broker resources may be asked for at any shard: all have the same configuration. The
    /// broker without a name has what was set for all brokers while they ran, which is nothing: ottla's configs are
    /// those of its start.
    pub(super) fn describe_configs(&mut self, call: Call, request: &DescribeConfigsRequest) {
        let results = request
            .resources
            .iter()
            .map(|resource| {
                let result = DescribeConfigsResult::default()
                    .with_resource_type(resource.resource_type)
                    .with_resource_name(resource.resource_name.clone());
                match self.entries_of(resource.resource_type, &resource.resource_name) {
                    Err((error, message)) => {
                        result.with_error_code(error.code()).with_error_message(Some(StrBytes::from_string(message)))
                    }
                    Ok(entries) => {
                        let asked = |entry: &ConfigEntry| {
                            // An empty list asks for all, as null does.
                            let keys = resource.configuration_keys.as_ref().filter(|keys| !keys.is_empty());
                            keys.is_none_or(|keys| keys.iter().any(|key| &**key == entry.name))
                        };
                        let (synonyms, documentation) = (request.include_synonyms, request.include_documentation);
                        let configs = entries.into_iter().filter(asked).map(|e| wire(e, synonyms, documentation));
                        result.with_configs(configs.collect())
                    }
                }
            })
            .collect();
        self.reply(call, &DescribeConfigsResponse::default().with_results(results));
    }

    fn entries_of(&self, resource_type: i8, name: &str) -> Result<Vec<ConfigEntry>, (ErrorCode, String)> {
        match resource_type {
            TOPIC => {
                check_name(name).map_err(|error| (ErrorCode::InvalidTopicException, error.to_string()))?;
                let topic = self
                    .image
                    .topic_by_name(name)
                    .ok_or_else(|| (ErrorCode::UnknownTopicOrPartition, format!("there is no topic named {name:?}")))?;
                describe_topic(&self.options.config, &topic.configs)
                    .map_err(|error| (ErrorCode::InvalidConfig, error.to_string()))
            }
            GROUP if name.is_empty() => {
                Err((ErrorCode::InvalidRequest, "Default group resources are not allowed.".to_owned()))
            }
            // Whether there is such a group or not.
            GROUP => {
                let own = self.image.group_configs().get(name);
                Ok(describe_group(&self.options.config, own.unwrap_or(&Overrides::new())))
            }
            BROKER if name.is_empty() => Ok(Vec::new()),
            BROKER => {
                let is_ours =
                    name.parse().is_ok_and(|id: i32| self.endpoints.brokers().any(|(broker, _)| broker.0 == id));
                if !is_ours {
                    let message = format!("broker {name:?} is not one of this cluster");
                    return Err((ErrorCode::InvalidRequest, message));
                }
                let at_start = self.options.settings_at_start(name.parse().ok(), &self.endpoints);
                let entries = describe_broker(&self.options.config, &at_start);
                // Whatever Kafka could change: tools are not to offer what would be refused.
                Ok(entries.into_iter().map(|entry| ConfigEntry { read_only: true, ..entry }).collect())
            }
            _ => Err((ErrorCode::InvalidRequest, format!("resource type {resource_type} has no configs here"))),
        }
    }
}

fn wire(entry: ConfigEntry, with_synonyms: bool, with_documentation: bool) -> DescribeConfigsResourceResult {
    let synonyms = if with_synonyms { entry.synonyms } else { Vec::new() };
    DescribeConfigsResourceResult::default()
        .with_name(StrBytes::from_static_str(entry.name))
        .with_value(entry.value.map(StrBytes::from_string))
        .with_read_only(entry.read_only)
        .with_config_source(entry.source.number())
        .with_is_sensitive(entry.is_sensitive)
        .with_config_type(entry.config_type.number())
        .with_documentation(with_documentation.then(|| StrBytes::from_static_str(entry.documentation)))
        .with_synonyms(
            synonyms
                .into_iter()
                .map(|synonym| {
                    DescribeConfigsSynonym::default()
                        .with_name(StrBytes::from_static_str(synonym.name))
                        .with_value(synonym.value.map(StrBytes::from_string))
                        .with_source(synonym.source.number())
                })
                .collect(),
        )
}
