//! ListConfigResources: what has configs that can be described.

use kafka_protocol::messages::list_config_resources_response::ConfigResource;
use kafka_protocol::messages::{ListConfigResourcesRequest, ListConfigResourcesResponse};
use kafka_protocol::protocol::StrBytes;

use super::broker::Broker;
use super::call::Call;
use super::describe_configs::{BROKER, GROUP, TOPIC};
use crate::io::Io;
use crate::protocol::error::ErrorCode;

/// Kafka's numbers of resources that ottla has none of.
const BROKER_LOGGER: i8 = 8;
const CLIENT_METRICS: i8 = 16;

impl<I: Io> Broker<I> {
    /// Lists the topics, the brokers, and the groups that have configs of their own; loggers and subscriptions to client
    /// metrics have none here. Version 0 is the older ListClientMetricsResources: it asks for the last of these only.
    pub(super) fn list_config_resources(&mut self, call: Call, request: &ListConfigResourcesRequest) {
        const KNOWN: [i8; 5] = [TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP];
        let asked = match request.resource_types.as_slice() {
            _ if call.version == 0 => &[CLIENT_METRICS],
            [] => &KNOWN[..],
            some => some,
        };
        if asked.iter().any(|resource_type| !KNOWN.contains(resource_type)) {
            let refused = ListConfigResourcesResponse::default().with_error_code(ErrorCode::UnsupportedVersion.code());
            return self.reply(call, &refused);
        }
        let resource = |resource_type: i8, name: String| {
            ConfigResource::default().with_resource_type(resource_type).with_resource_name(StrBytes::from_string(name))
        };
        let mut resources = Vec::new();
        if asked.contains(&TOPIC) {
            resources.extend(self.image.topics().map(|topic| resource(TOPIC, topic.name.to_string())));
        }
        if asked.contains(&BROKER) {
            resources.extend(self.endpoints.brokers().map(|(id, _)| resource(BROKER, id.to_string())));
        }
        if asked.contains(&GROUP) {
            resources.extend(self.image.group_configs().keys().map(|group| resource(GROUP, group.to_string())));
        }
        self.reply(call, &ListConfigResourcesResponse::default().with_config_resources(resources));
    }
}
