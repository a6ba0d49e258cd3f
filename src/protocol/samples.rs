//! Populated requests and responses of every served API and version, for tests: of the codecs here, of the golden
//! frames in `tests/golden_frames.rs`, which includes this file. Every field that a version has is set to something, arrays to
//! two elements, one of them with null where null is allowed.

use std::fmt::Debug;

use bytes::Bytes;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Request, StrBytes};
use uuid::Uuid;

#[path = "samples_groups.rs"]
mod groups;
#[path = "samples_offsets.rs"]
mod offsets;
#[path = "samples_transactions.rs"]
mod transactions;

/// Is shown every sample.
pub trait Visitor {
    /// A request of `version`.
    fn request<T: Request + PartialEq + Debug>(&mut self, version: i16, request: T);
    /// A response to a request `T` of `version`.
    fn response<T: Request>(&mut self, version: i16, response: T::Response)
    where
        T::Response: PartialEq + Debug;
}

/// A name as the codec holds it.
pub fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

/// A topic name as the codec holds it.
pub fn topic(name: &'static str) -> TopicName {
    TopicName(text(name))
}

/// Broker ids as the codec holds them.
pub fn brokers(ids: &[i32]) -> Vec<BrokerId> {
    ids.iter().copied().map(BrokerId).collect()
}

const ID: Uuid = Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
/// What stands for records and other opaque bytes.
pub const RECORDS: &[u8] = b"record bytes are opaque here";

/// Shows every sample of the APIs that are served.
pub fn visit_served(visitor: &mut impl Visitor) {
    groups::visit(visitor);
    offsets::visit(visitor);
    transactions::visit(visitor);
    for version in 3..=13 {
        visitor.request(version, produce_request(version));
        visitor.response::<ProduceRequest>(version, produce_response(version));
    }
    for version in 4..=18 {
        visitor.request(version, fetch_request(version));
        visitor.response::<FetchRequest>(version, fetch_response(version));
    }
    for version in 1..=11 {
        visitor.request(version, list_offsets_request(version));
        visitor.response::<ListOffsetsRequest>(version, list_offsets_response(version));
    }
    for version in 0..=13 {
        visitor.request(version, metadata_request(version));
        visitor.response::<MetadataRequest>(version, metadata_response(version));
    }
    for version in 0..=4 {
        visitor.request(version, api_versions_request(version));
        visitor.response::<ApiVersionsRequest>(version, api_versions_response(version));
    }
    for version in 2..=7 {
        visitor.request(version, create_topics_request());
        visitor.response::<CreateTopicsRequest>(version, create_topics_response(version));
    }
    for version in 1..=6 {
        visitor.request(version, delete_topics_request(version));
        visitor.response::<DeleteTopicsRequest>(version, delete_topics_response(version));
    }
    for version in 0..=5 {
        visitor.request(version, init_producer_id_request(version));
        visitor.response::<InitProducerIdRequest>(
            version,
            InitProducerIdResponse::default()
                .with_throttle_time_ms(3)
                .with_producer_id(ProducerId(4_000))
                .with_producer_epoch(5),
        );
    }
    for version in 2..=4 {
        visitor.request(version, offset_for_leader_epoch_request(version));
        visitor.response::<OffsetForLeaderEpochRequest>(version, offset_for_leader_epoch_response());
    }
    for version in 1..=4 {
        visitor.request(version, describe_configs_request(version));
        visitor.response::<DescribeConfigsRequest>(version, describe_configs_response(version));
    }
    for version in 0..=2 {
        visitor.request(version, describe_cluster_request(version));
        visitor.response::<DescribeClusterRequest>(version, describe_cluster_response(version));
    }
    visitor.request(0, describe_topic_partitions_request());
    visitor.response::<DescribeTopicPartitionsRequest>(0, describe_topic_partitions_response());
}

fn produce_request(version: i16) -> ProduceRequest {
    use produce_request::{PartitionProduceData, TopicProduceData};
    let partition = PartitionProduceData::default;
    let named = |name, id| match version {
        ..13 => TopicProduceData::default().with_name(topic(name)),
        _ => TopicProduceData::default().with_topic_id(id),
    };
    ProduceRequest::default()
        .with_transactional_id(Some(TransactionalId(text("tx"))))
        .with_acks(-1)
        .with_timeout_ms(30_000)
        .with_topic_data(vec![
            named("flights", ID).with_partition_data(vec![
                partition().with_index(0).with_records(Some(Bytes::from_static(RECORDS))),
                partition().with_index(7).with_records(None),
            ]),
            named("quiet", Uuid::from_u128(2)),
        ])
}

fn produce_response(version: i16) -> ProduceResponse {
    use produce_response::*;
    let mut refused = PartitionProduceResponse::default()
        .with_index(7)
        .with_error_code(6)
        .with_base_offset(-1)
        .with_log_append_time_ms(-1);
    if version >= 8 {
        refused = refused.with_error_message(Some(text("elsewhere"))).with_record_errors(vec![
            BatchIndexAndErrorMessage::default().with_batch_index(3).with_batch_index_error_message(Some(text("bad"))),
            BatchIndexAndErrorMessage::default().with_batch_index(4),
        ]);
    }
    let mut appended =
        PartitionProduceResponse::default().with_index(0).with_base_offset(1 << 40).with_log_append_time_ms(1_700);
    if version >= 5 {
        appended = appended.with_log_start_offset(12);
    }
    let mut response = ProduceResponse::default().with_throttle_time_ms(9);
    if version >= 10 {
        refused = refused
            .with_current_leader(LeaderIdAndEpoch::default().with_leader_id(BrokerId(1002)).with_leader_epoch(8));
        let endpoint = NodeEndpoint::default().with_node_id(BrokerId(1002)).with_host(text("localhost"));
        response = response
            .with_node_endpoints(vec![endpoint.clone().with_port(9093).with_rack(Some(text("rack"))), endpoint]);
    }
    let named = |name, id| match version {
        ..13 => TopicProduceResponse::default().with_name(topic(name)),
        _ => TopicProduceResponse::default().with_topic_id(id),
    };
    response.with_responses(vec![
        named("flights", ID).with_partition_responses(vec![appended, refused]),
        named("quiet", Uuid::from_u128(2)),
    ])
}

fn fetch_request(version: i16) -> FetchRequest {
    use fetch_request::*;
    let partition = |index| {
        let mut partition = FetchPartition::default()
            .with_partition(index)
            .with_fetch_offset(1 << 33)
            .with_partition_max_bytes(1 << 20);
        if version >= 5 {
            partition = partition.with_log_start_offset(17);
        }
        if version >= 9 {
            partition = partition.with_current_leader_epoch(4);
        }
        if version >= 12 {
            partition = partition.with_last_fetched_epoch(3);
        }
        if version >= 17 {
            partition = partition.with_replica_directory_id(ID);
        }
        if version >= 18 {
            partition = partition.with_high_watermark(99);
        }
        partition
    };
    let named = |name, id| match version {
        ..13 => FetchTopic::default().with_topic(topic(name)),
        _ => FetchTopic::default().with_topic_id(id),
    };
    let mut request = FetchRequest::default()
        .with_max_wait_ms(500)
        .with_min_bytes(1)
        .with_max_bytes(55 << 20)
        .with_isolation_level(1)
        .with_topics(vec![
            named("flights", ID).with_partitions(vec![partition(0), partition(3)]),
            named("quiet", Uuid::from_u128(2)),
        ]);
    if version >= 7 {
        let forgotten = match version {
            ..13 => ForgottenTopic::default().with_topic(topic("old")),
            _ => ForgottenTopic::default().with_topic_id(Uuid::from_u128(3)),
        };
        request = request
            .with_session_id(77)
            .with_session_epoch(5)
            .with_forgotten_topics_data(vec![forgotten.with_partitions(vec![1, 2])]);
    }
    if version >= 11 {
        request = request.with_rack_id(text("rack"));
    }
    if version >= 12 {
        request = request.with_cluster_id(Some(text("cluster")));
    }
    match version {
        ..15 => request.with_replica_id(BrokerId(1003)),
        _ => request.with_replica_state(ReplicaState::default().with_replica_id(BrokerId(1003)).with_replica_epoch(6)),
    }
}

fn fetch_response(version: i16) -> FetchResponse {
    use fetch_response::*;
    let mut full = PartitionData::default()
        .with_partition_index(0)
        .with_high_watermark(200)
        .with_last_stable_offset(190)
        .with_aborted_transactions(Some(vec![
            AbortedTransaction::default().with_producer_id(ProducerId(4_000)).with_first_offset(150),
        ]))
        .with_records(Some(Bytes::from_static(RECORDS)));
    let mut refused = PartitionData::default()
        .with_partition_index(3)
        .with_error_code(6)
        .with_high_watermark(-1)
        .with_aborted_transactions(None)
        .with_records(Some(Bytes::new()));
    if version >= 5 {
        full = full.with_log_start_offset(10);
    }
    if version >= 11 {
        full = full.with_preferred_read_replica(BrokerId(1003));
    }
    if version >= 12 {
        full = full.with_diverging_epoch(EpochEndOffset::default().with_epoch(2).with_end_offset(120));
        refused = refused
            .with_current_leader(LeaderIdAndEpoch::default().with_leader_id(BrokerId(1002)).with_leader_epoch(8));
    }
    let named = |name, id| match version {
        ..13 => FetchableTopicResponse::default().with_topic(topic(name)),
        _ => FetchableTopicResponse::default().with_topic_id(id),
    };
    let mut response = FetchResponse::default().with_throttle_time_ms(9).with_responses(vec![
        named("flights", ID).with_partitions(vec![full, refused]),
        named("quiet", Uuid::from_u128(2)),
    ]);
    if version >= 7 {
        response = response.with_session_id(77).with_error_code(71);
    }
    if version >= 16 {
        response = response.with_node_endpoints(vec![
            NodeEndpoint::default().with_node_id(BrokerId(1002)).with_host(text("localhost")).with_port(9093),
        ]);
    }
    response
}

fn list_offsets_request(version: i16) -> ListOffsetsRequest {
    use list_offsets_request::*;
    let partition = |index, timestamp| {
        let partition = ListOffsetsPartition::default().with_partition_index(index).with_timestamp(timestamp);
        if version >= 4 { partition.with_current_leader_epoch(4) } else { partition }
    };
    let mut request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![
        ListOffsetsTopic::default()
            .with_name(topic("flights"))
            .with_partitions(vec![partition(0, -2), partition(1, 1_700_000_000_000)]),
        ListOffsetsTopic::default().with_name(topic("quiet")),
    ]);
    if version >= 2 {
        request = request.with_isolation_level(1);
    }
    if version >= 10 {
        request = request.with_timeout_ms(30_000);
    }
    request
}

fn list_offsets_response(version: i16) -> ListOffsetsResponse {
    use list_offsets_response::*;
    let mut partition = ListOffsetsPartitionResponse::default()
        .with_partition_index(1)
        .with_error_code(3)
        .with_timestamp(1_700_000_000_000)
        .with_offset(42);
    if version >= 4 {
        partition = partition.with_leader_epoch(8);
    }
    let response = ListOffsetsResponse::default().with_topics(vec![
        ListOffsetsTopicResponse::default().with_name(topic("flights")).with_partitions(vec![partition]),
    ]);
    if version >= 2 { response.with_throttle_time_ms(9) } else { response }
}

fn metadata_request(version: i16) -> MetadataRequest {
    use metadata_request::MetadataRequestTopic;
    let mut second = MetadataRequestTopic::default().with_name(Some(topic("quiet")));
    if version >= 10 {
        second = second.with_topic_id(ID).with_name(None);
    }
    MetadataRequest::default()
        .with_topics(Some(vec![MetadataRequestTopic::default().with_name(Some(topic("flights"))), second]))
        .with_allow_auto_topic_creation(version < 4)
        .with_include_cluster_authorized_operations((8..=10).contains(&version))
        .with_include_topic_authorized_operations(version >= 8)
}

fn metadata_response(version: i16) -> MetadataResponse {
    use metadata_response::*;
    let broker = |id| MetadataResponseBroker::default().with_node_id(BrokerId(id)).with_host(text("127.0.0.1"));
    let mut nodes = vec![broker(1).with_port(9092), broker(2).with_port(9093)];
    let mut partition = MetadataResponsePartition::default()
        .with_partition_index(5)
        .with_error_code(9)
        .with_leader_id(BrokerId(2))
        .with_replica_nodes(brokers(&[2, 1]))
        .with_isr_nodes(brokers(&[2]));
    let mut first = MetadataResponseTopic::default().with_name(Some(topic("flights")));
    let mut response = MetadataResponse::default();
    if version >= 1 {
        nodes[1] = nodes[1].clone().with_rack(Some(text("rack")));
        first = first.with_is_internal(true);
        response = response.with_controller_id(BrokerId(1));
    }
    if version >= 2 {
        response = response.with_cluster_id(Some(text("cluster")));
    }
    if version >= 3 {
        response = response.with_throttle_time_ms(9);
    }
    if version >= 5 {
        partition = partition.with_offline_replicas(brokers(&[1]));
    }
    if version >= 7 {
        partition = partition.with_leader_epoch(8);
    }
    if version >= 8 {
        first = first.with_topic_authorized_operations(3_576);
    }
    if (8..=10).contains(&version) {
        response = response.with_cluster_authorized_operations(2_000);
    }
    if version >= 10 {
        first = first.with_topic_id(ID);
    }
    let mut second = MetadataResponseTopic::default().with_name(Some(topic("gone"))).with_error_code(3);
    if version >= 12 {
        second = second.with_name(None);
    }
    if version >= 13 {
        response = response.with_error_code(129);
    }
    response.with_brokers(nodes).with_topics(vec![first.with_partitions(vec![partition]), second])
}

fn api_versions_request(version: i16) -> ApiVersionsRequest {
    let request = ApiVersionsRequest::default();
    if version < 3 {
        return request;
    }
    request.with_client_software_name(text("librdkafka")).with_client_software_version(text("2.15.0"))
}

fn api_versions_response(version: i16) -> ApiVersionsResponse {
    use api_versions_response::*;
    let mut response = ApiVersionsResponse::default().with_api_keys(vec![
        ApiVersion::default().with_api_key(0).with_min_version(0).with_max_version(13),
        ApiVersion::default().with_api_key(1).with_min_version(4).with_max_version(18),
    ]);
    if version >= 1 {
        response = response.with_throttle_time_ms(9);
    }
    if version >= 3 {
        let feature = text("metadata.version");
        response = response
            .with_supported_features(vec![
                SupportedFeatureKey::default().with_name(feature.clone()).with_min_version(7).with_max_version(27),
            ])
            .with_finalized_features_epoch(1)
            .with_finalized_features(vec![
                FinalizedFeatureKey::default().with_name(feature).with_min_version_level(7).with_max_version_level(27),
            ]);
    }
    response
}

fn create_topics_request() -> CreateTopicsRequest {
    use create_topics_request::*;
    let assignment = CreatableReplicaAssignment::default;
    let config = CreatableTopicConfig::default;
    CreateTopicsRequest::default().with_timeout_ms(30_000).with_validate_only(true).with_topics(vec![
        CreatableTopic::default()
            .with_name(topic("flights"))
            .with_num_partitions(-1)
            .with_replication_factor(-1)
            .with_configs(vec![
                config().with_name(text("retention.ms")).with_value(Some(text("1000"))),
                config().with_name(text("cleanup.policy")),
            ]),
        CreatableTopic::default()
            .with_name(topic("placed"))
            .with_num_partitions(-1)
            .with_replication_factor(-1)
            .with_assignments(vec![
                assignment().with_partition_index(0).with_broker_ids(brokers(&[1, 2])),
                assignment().with_partition_index(1),
            ]),
    ])
}

fn create_topics_response(version: i16) -> CreateTopicsResponse {
    use create_topics_response::*;
    let mut created = CreatableTopicResult::default().with_name(topic("flights"));
    if version >= 5 {
        let config = CreatableTopicConfigs::default().with_config_source(5).with_read_only(true);
        created = created.with_num_partitions(6).with_replication_factor(1).with_configs(Some(vec![
            config.clone().with_name(text("retention.ms")).with_value(Some(text("1000"))).with_is_sensitive(true),
            config.with_name(text("cleanup.policy")),
        ]));
    }
    if version >= 7 {
        created = created.with_topic_id(ID);
    }
    let refused = CreatableTopicResult::default()
        .with_name(topic("placed"))
        .with_error_code(36)
        .with_error_message(Some(text("exists")));
    CreateTopicsResponse::default().with_throttle_time_ms(9).with_topics(vec![created, refused])
}

fn delete_topics_request(version: i16) -> DeleteTopicsRequest {
    use delete_topics_request::DeleteTopicState;
    let request = DeleteTopicsRequest::default().with_timeout_ms(30_000);
    if version < 6 {
        return request.with_topic_names(vec![topic("flights"), topic("quiet")]);
    }
    request.with_topics(vec![
        DeleteTopicState::default().with_name(Some(topic("flights"))),
        DeleteTopicState::default().with_topic_id(ID),
    ])
}

fn delete_topics_response(version: i16) -> DeleteTopicsResponse {
    use delete_topics_response::DeletableTopicResult;
    let mut deleted = DeletableTopicResult::default().with_name(Some(topic("flights")));
    let mut refused = DeletableTopicResult::default().with_name(Some(topic("quiet"))).with_error_code(3);
    if version >= 5 {
        refused = refused.with_error_message(Some(text("no such topic")));
    }
    if version >= 6 {
        deleted = deleted.with_topic_id(ID);
        refused = refused.with_name(None);
    }
    DeleteTopicsResponse::default().with_throttle_time_ms(9).with_responses(vec![deleted, refused])
}

fn init_producer_id_request(version: i16) -> InitProducerIdRequest {
    let request = InitProducerIdRequest::default()
        .with_transactional_id((version % 2 == 0).then(|| TransactionalId(text("tx"))))
        .with_transaction_timeout_ms(60_000);
    if version < 3 {
        return request;
    }
    request.with_producer_id(ProducerId(4_000)).with_producer_epoch(5)
}

fn offset_for_leader_epoch_request(version: i16) -> OffsetForLeaderEpochRequest {
    use offset_for_leader_epoch_request::*;
    let partition = OffsetForLeaderPartition::default().with_partition(3).with_current_leader_epoch(8);
    let request = OffsetForLeaderEpochRequest::default().with_topics(vec![
        OffsetForLeaderTopic::default()
            .with_topic(topic("flights"))
            .with_partitions(vec![partition.clone().with_leader_epoch(7), partition]),
        OffsetForLeaderTopic::default().with_topic(topic("quiet")),
    ]);
    if version >= 3 { request.with_replica_id(BrokerId(-1)) } else { request }
}

fn offset_for_leader_epoch_response() -> OffsetForLeaderEpochResponse {
    use offset_for_leader_epoch_response::*;
    let end = EpochEndOffset::default().with_partition(3).with_leader_epoch(7).with_end_offset(1_000);
    OffsetForLeaderEpochResponse::default().with_throttle_time_ms(9).with_topics(vec![
        OffsetForLeaderTopicResult::default()
            .with_topic(topic("flights"))
            .with_partitions(vec![end, EpochEndOffset::default().with_error_code(74)]),
    ])
}

fn describe_configs_request(version: i16) -> DescribeConfigsRequest {
    use describe_configs_request::DescribeConfigsResource;
    let resource = DescribeConfigsResource::default;
    DescribeConfigsRequest::default()
        .with_include_synonyms(true)
        .with_include_documentation(version >= 3)
        .with_resources(vec![
            resource()
                .with_resource_type(2)
                .with_resource_name(text("flights"))
                .with_configuration_keys(Some(vec![text("retention.ms"), text("")])),
            resource().with_resource_type(4).with_resource_name(text("1")).with_configuration_keys(None),
        ])
}

fn describe_configs_response(version: i16) -> DescribeConfigsResponse {
    use describe_configs_response::*;
    let synonym = DescribeConfigsSynonym::default().with_name(text("log.retention.ms")).with_source(5);
    let mut config = DescribeConfigsResourceResult::default()
        .with_name(text("retention.ms"))
        .with_value(Some(text("604800000")))
        .with_read_only(true)
        .with_config_source(5)
        .with_synonyms(vec![synonym.clone().with_value(Some(text("604800000"))), synonym]);
    if version >= 3 {
        config = config.with_config_type(5).with_documentation(Some(text("how long")));
    }
    let secret = DescribeConfigsResourceResult::default().with_name(text("secret")).with_is_sensitive(true);
    DescribeConfigsResponse::default().with_throttle_time_ms(9).with_results(vec![
        DescribeConfigsResult::default()
            .with_resource_type(2)
            .with_resource_name(text("flights"))
            .with_configs(vec![config, secret]),
        DescribeConfigsResult::default()
            .with_error_code(40)
            .with_error_message(Some(text("unknown")))
            .with_resource_type(4),
    ])
}

fn describe_cluster_request(version: i16) -> DescribeClusterRequest {
    let request = DescribeClusterRequest::default().with_include_cluster_authorized_operations(true);
    let request = if version >= 1 { request.with_endpoint_type(2) } else { request };
    request.with_include_fenced_brokers(version >= 2)
}

fn describe_cluster_response(version: i16) -> DescribeClusterResponse {
    use describe_cluster_response::DescribeClusterBroker;
    let broker = DescribeClusterBroker::default().with_broker_id(BrokerId(2)).with_host(text("127.0.0.1"));
    let response = DescribeClusterResponse::default()
        .with_throttle_time_ms(9)
        .with_error_code(31)
        .with_error_message(Some(text("no")))
        .with_cluster_id(text("cluster"))
        .with_controller_id(BrokerId(1))
        .with_brokers(vec![
            broker.clone().with_port(9093).with_rack(Some(text("rack"))),
            broker.with_is_fenced(version >= 2),
        ])
        .with_cluster_authorized_operations(3_576);
    if version >= 1 { response.with_endpoint_type(2) } else { response }
}

fn describe_topic_partitions_request() -> DescribeTopicPartitionsRequest {
    use describe_topic_partitions_request::*;
    DescribeTopicPartitionsRequest::default()
        .with_topics(vec![
            TopicRequest::default().with_name(topic("flights")),
            TopicRequest::default().with_name(topic("quiet")),
        ])
        .with_response_partition_limit(100)
        .with_cursor(Some(Cursor::default().with_topic_name(topic("flights")).with_partition_index(3)))
}

fn describe_topic_partitions_response() -> DescribeTopicPartitionsResponse {
    use describe_topic_partitions_response::*;
    let partition = DescribeTopicPartitionsResponsePartition::default()
        .with_partition_index(3)
        .with_leader_id(BrokerId(2))
        .with_leader_epoch(8)
        .with_replica_nodes(brokers(&[2, 1]))
        .with_isr_nodes(brokers(&[2]))
        .with_eligible_leader_replicas(Some(brokers(&[1])))
        .with_offline_replicas(brokers(&[1]));
    DescribeTopicPartitionsResponse::default()
        .with_throttle_time_ms(9)
        .with_topics(vec![
            DescribeTopicPartitionsResponseTopic::default()
                .with_name(Some(topic("flights")))
                .with_topic_id(ID)
                .with_is_internal(true)
                .with_partitions(vec![partition])
                .with_topic_authorized_operations(3_576),
            DescribeTopicPartitionsResponseTopic::default().with_error_code(3).with_name(None),
        ])
        .with_next_cursor(Some(Cursor::default().with_topic_name(topic("quiet")).with_partition_index(0)))
}
