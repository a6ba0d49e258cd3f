//! Populated requests and responses of the APIs that change and describe topics and the cluster's disks, for the tests
//! that `samples` names. It is included beside that file, so it names it as its neighbour.

use kafka_protocol::messages::*;

use super::samples::{Visitor, brokers, text, topic};

/// Shows every sample of the administrative APIs.
pub fn visit_admin(visitor: &mut impl Visitor) {
    for version in 0..=2 {
        visitor.request(version, alter_configs_request());
        visitor.response::<AlterConfigsRequest>(version, alter_configs_response());
    }
    for version in 0..=3 {
        visitor.request(version, create_partitions_request());
        visitor.response::<CreatePartitionsRequest>(version, create_partitions_response());
    }
    for version in 0..=1 {
        visitor.request(version, incremental_alter_configs_request());
        visitor.response::<IncrementalAlterConfigsRequest>(version, incremental_alter_configs_response());
    }
}

fn alter_configs_request() -> AlterConfigsRequest {
    use alter_configs_request::*;
    let config = AlterableConfig::default().with_name(text("retention.ms"));
    let resource = AlterConfigsResource::default().with_resource_type(2).with_resource_name(text("flights"));
    AlterConfigsRequest::default().with_validate_only(true).with_resources(vec![
        resource.clone().with_configs(vec![config.clone().with_value(Some(text("1000"))), config.with_value(None)]),
        resource,
    ])
}

fn alter_configs_response() -> AlterConfigsResponse {
    use alter_configs_response::*;
    let resource = AlterConfigsResourceResponse::default().with_resource_type(2).with_resource_name(text("flights"));
    AlterConfigsResponse::default().with_throttle_time_ms(3).with_responses(vec![
        resource.clone().with_error_message(None),
        resource.with_error_code(40).with_error_message(Some(text("no such config"))),
    ])
}

fn incremental_alter_configs_request() -> IncrementalAlterConfigsRequest {
    use incremental_alter_configs_request::*;
    let config = AlterableConfig::default().with_name(text("retention.ms")).with_config_operation(1);
    let resource = AlterConfigsResource::default().with_resource_type(2).with_resource_name(text("flights"));
    IncrementalAlterConfigsRequest::default().with_validate_only(true).with_resources(vec![
        resource.clone().with_configs(vec![config.clone().with_value(Some(text("1000"))), config.with_value(None)]),
        resource,
    ])
}

fn incremental_alter_configs_response() -> IncrementalAlterConfigsResponse {
    use incremental_alter_configs_response::*;
    let resource = AlterConfigsResourceResponse::default().with_resource_type(2).with_resource_name(text("flights"));
    IncrementalAlterConfigsResponse::default().with_throttle_time_ms(3).with_responses(vec![
        resource.clone().with_error_message(None),
        resource.with_error_code(40).with_error_message(Some(text("no such config"))),
    ])
}

fn create_partitions_request() -> CreatePartitionsRequest {
    use create_partitions_request::*;
    let assignment = CreatePartitionsAssignment::default();
    let named = CreatePartitionsTopic::default().with_name(topic("flights")).with_count(12);
    CreatePartitionsRequest::default().with_timeout_ms(30_000).with_validate_only(true).with_topics(vec![
        named.clone().with_assignments(Some(vec![assignment.clone().with_broker_ids(brokers(&[1, 2])), assignment])),
        named.with_assignments(None),
    ])
}

fn create_partitions_response() -> CreatePartitionsResponse {
    use create_partitions_response::*;
    let result = CreatePartitionsTopicResult::default().with_name(topic("flights"));
    CreatePartitionsResponse::default().with_throttle_time_ms(3).with_results(vec![
        result.clone().with_error_message(None),
        result.with_error_code(37).with_error_message(Some(text("not an increase"))),
    ])
}
