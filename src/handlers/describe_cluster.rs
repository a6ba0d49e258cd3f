//! DescribeCluster: the shards as brokers.

use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::{DescribeClusterRequest, DescribeClusterResponse};
use kafka_protocol::protocol::StrBytes;

use super::authorized::{CLUSTER_OPERATIONS, NOT_ASKED};
use super::broker::Broker;
use super::call::Call;
use crate::io::Io;
use crate::protocol::error::ErrorCode;

/// Kafka's numbers of endpoint types.
const BROKERS: i8 = 1;

impl<I: Io> Broker<I> {
    /// Answers with every shard; controllers are not listed apart, for there are none.
    pub(super) fn describe_cluster(&mut self, call: Call, request: &DescribeClusterRequest) {
        if call.version >= 1 && request.endpoint_type != BROKERS {
            let response = DescribeClusterResponse::default()
                .with_error_code(ErrorCode::MismatchedEndpointType.code())
                .with_error_message(Some(StrBytes::from_static_str("this is a broker endpoint")));
            return self.reply(call, &response);
        }
        let brokers = self.endpoints.brokers().map(|(id, endpoint)| {
            DescribeClusterBroker::default()
                .with_broker_id(id.0.into())
                .with_host(StrBytes::from_string(endpoint.host.clone()))
                .with_port(i32::from(endpoint.port))
                .with_rack(Some(StrBytes::from_string(self.endpoints.rack().to_owned())))
        });
        let operations = if request.include_cluster_authorized_operations { CLUSTER_OPERATIONS } else { NOT_ASKED };
        let endpoint_type = if call.version >= 1 { BROKERS } else { DescribeClusterResponse::default().endpoint_type };
        let response = DescribeClusterResponse::default()
            .with_endpoint_type(endpoint_type)
            .with_cluster_id(StrBytes::from_string(self.cluster_id()))
            .with_controller_id(self.controller_id().0.into())
            .with_brokers(brokers.collect())
            .with_cluster_authorized_operations(operations);
        self.reply(call, &response);
    }
}
