//! Populated requests and responses of the APIs that change and describe topics and the cluster's disks, for the tests
//! that `samples` names. It is included beside that file, so it names it as its neighbour.

use kafka_protocol::messages::*;

use super::samples::{Visitor, brokers, text, topic};

/// Shows every sample of the administrative APIs.
pub fn visit_admin(visitor: &mut impl Visitor) {
    for version in 0..=2 {
        visitor.request(version, alter_configs_request());
        visitor.response::<AlterConfigsRequest>(version, alter_configs_response());
        visitor.request(version, delete_records_request());
        visitor.response::<DeleteRecordsRequest>(version, delete_records_response());
        visitor.request(version, elect_leaders_request(version));
        visitor.response::<ElectLeadersRequest>(version, elect_leaders_response(version));
    }
    for version in 1..=4 {
        visitor.request(version, describe_log_dirs_request());
        visitor.response::<DescribeLogDirsRequest>(version, describe_log_dirs_response(version));
    }
    for version in 0..=3 {
        visitor.request(version, create_partitions_request());
        visitor.response::<CreatePartitionsRequest>(version, create_partitions_response());
    }
    for version in 0..=1 {
        visitor.request(version, incremental_alter_configs_request());
        visitor.response::<IncrementalAlterConfigsRequest>(version, incremental_alter_configs_response());
        visitor.request(version, alter_partition_reassignments_request(version));
        visitor
            .response::<AlterPartitionReassignmentsRequest>(version, alter_partition_reassignments_response(version));
        visitor.request(version, list_config_resources_request(version));
        visitor.response::<ListConfigResourcesRequest>(version, list_config_resources_response(version));
    }
    visitor.request(0, list_partition_reassignments_request());
    visitor.response::<ListPartitionReassignmentsRequest>(0, list_partition_reassignments_response());
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

fn delete_records_request() -> DeleteRecordsRequest {
    use delete_records_request::*;
    let partition = DeleteRecordsPartition::default().with_partition_index(3).with_offset(77);
    let named = DeleteRecordsTopic::default().with_name(topic("flights"));
    DeleteRecordsRequest::default()
        .with_topics(vec![named.clone().with_partitions(vec![partition.clone(), partition]), named])
        .with_timeout_ms(30_000)
}

fn delete_records_response() -> DeleteRecordsResponse {
    use delete_records_response::*;
    let partition = DeleteRecordsPartitionResult::default().with_partition_index(3);
    let named = DeleteRecordsTopicResult::default().with_name(topic("flights"));
    DeleteRecordsResponse::default().with_throttle_time_ms(3).with_topics(vec![
        named.clone().with_partitions(vec![
            partition.clone().with_low_watermark(77),
            partition.with_low_watermark(-1).with_error_code(1),
        ]),
        named,
    ])
}

fn describe_log_dirs_request() -> DescribeLogDirsRequest {
    use describe_log_dirs_request::DescribableLogDirTopic;
    let named = DescribableLogDirTopic::default().with_topic(topic("flights")).with_partitions(vec![0, 1]);
    DescribeLogDirsRequest::default().with_topics(Some(vec![named]))
}

fn describe_log_dirs_response(version: i16) -> DescribeLogDirsResponse {
    use describe_log_dirs_response::*;
    let partition = DescribeLogDirsPartition::default().with_partition_size(1 << 40);
    let second = partition.clone().with_partition_index(1).with_offset_lag(7).with_is_future_key(true);
    let named = DescribeLogDirsTopic::default().with_name(topic("flights")).with_partitions(vec![partition, second]);
    let mut dir = DescribeLogDirsResult::default().with_log_dir(text("/data")).with_topics(vec![named]);
    if version >= 4 {
        dir = dir.with_total_bytes(1 << 41).with_usable_bytes(1 << 39);
    }
    let failed = DescribeLogDirsResult::default().with_error_code(56).with_log_dir(text("/other"));
    let response = DescribeLogDirsResponse::default().with_throttle_time_ms(3).with_results(vec![dir, failed]);
    if version >= 3 { response.with_error_code(31) } else { response }
}

fn elect_leaders_request(version: i16) -> ElectLeadersRequest {
    use elect_leaders_request::TopicPartitions;
    let named = TopicPartitions::default().with_topic(topic("flights"));
    let request = ElectLeadersRequest::default()
        .with_topic_partitions(Some(vec![named.clone().with_partitions(vec![0, 1]), named]))
        .with_timeout_ms(30_000);
    if version >= 1 { request.with_election_type(1) } else { request }
}

fn elect_leaders_response(version: i16) -> ElectLeadersResponse {
    use elect_leaders_response::*;
    let partition = PartitionResult::default().with_partition_id(1);
    let result = ReplicaElectionResult::default().with_topic(topic("flights")).with_partition_result(vec![
        partition.clone().with_error_code(84).with_error_message(Some(text("not needed"))),
        partition.with_error_message(None),
    ]);
    let response = ElectLeadersResponse::default().with_throttle_time_ms(3).with_replica_election_results(vec![result]);
    if version >= 1 { response.with_error_code(41) } else { response }
}

fn alter_partition_reassignments_request(version: i16) -> AlterPartitionReassignmentsRequest {
    use alter_partition_reassignments_request::*;
    let partition = ReassignablePartition::default().with_partition_index(1);
    let named = ReassignableTopic::default()
        .with_name(topic("flights"))
        .with_partitions(vec![partition.clone().with_replicas(Some(brokers(&[1, 2]))), partition.with_replicas(None)]);
    let request = AlterPartitionReassignmentsRequest::default().with_timeout_ms(30_000).with_topics(vec![named]);
    if version >= 1 { request.with_allow_replication_factor_change(false) } else { request }
}

fn alter_partition_reassignments_response(version: i16) -> AlterPartitionReassignmentsResponse {
    use alter_partition_reassignments_response::*;
    let partition = ReassignablePartitionResponse::default().with_partition_index(1);
    let named = ReassignableTopicResponse::default().with_name(topic("flights")).with_partitions(vec![
        partition.clone().with_error_code(85).with_error_message(Some(text("none"))),
        partition.with_error_message(None),
    ]);
    let response = AlterPartitionReassignmentsResponse::default()
        .with_throttle_time_ms(3)
        .with_error_code(41)
        .with_error_message(Some(text("elsewhere")))
        .with_responses(vec![named]);
    if version >= 1 { response.with_allow_replication_factor_change(false) } else { response }
}

fn list_partition_reassignments_request() -> ListPartitionReassignmentsRequest {
    use list_partition_reassignments_request::ListPartitionReassignmentsTopics;
    let named =
        ListPartitionReassignmentsTopics::default().with_name(topic("flights")).with_partition_indexes(vec![0, 1]);
    ListPartitionReassignmentsRequest::default().with_timeout_ms(30_000).with_topics(Some(vec![named]))
}

fn list_partition_reassignments_response() -> ListPartitionReassignmentsResponse {
    use list_partition_reassignments_response::*;
    let partition = OngoingPartitionReassignment::default()
        .with_partition_index(1)
        .with_replicas(brokers(&[1, 2]))
        .with_adding_replicas(brokers(&[2]))
        .with_removing_replicas(brokers(&[1]));
    let named = OngoingTopicReassignment::default().with_name(topic("flights")).with_partitions(vec![partition]);
    ListPartitionReassignmentsResponse::default()
        .with_throttle_time_ms(3)
        .with_error_code(41)
        .with_error_message(Some(text("elsewhere")))
        .with_topics(vec![named])
}

fn list_config_resources_request(version: i16) -> ListConfigResourcesRequest {
    let request = ListConfigResourcesRequest::default();
    if version >= 1 { request.with_resource_types(vec![2, 4]) } else { request }
}

fn list_config_resources_response(version: i16) -> ListConfigResourcesResponse {
    use list_config_resources_response::ConfigResource;
    let mut resource = ConfigResource::default().with_resource_name(text("flights"));
    if version >= 1 {
        resource = resource.with_resource_type(2);
    }
    ListConfigResourcesResponse::default()
        .with_throttle_time_ms(3)
        .with_error_code(35)
        .with_config_resources(vec![resource])
}
