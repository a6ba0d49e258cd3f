//! Samples of the APIs of transactions; see the module above, which shows them.

use kafka_protocol::messages::*;

use super::{Visitor, text, topic};

/// Shows them.
pub fn visit(visitor: &mut impl Visitor) {
    for version in 0..=5 {
        visitor.request(version, add_partitions_request(version));
        visitor.response::<AddPartitionsToTxnRequest>(version, add_partitions_response(version));
        visitor.request(version, end_request());
        visitor.response::<EndTxnRequest>(version, end_response(version));
        visitor.request(version, offset_commit_request(version));
        visitor.response::<TxnOffsetCommitRequest>(version, offset_commit_response());
    }
    for version in 0..=4 {
        visitor.request(version, add_offsets_request());
        let response = AddOffsetsToTxnResponse::default().with_throttle_time_ms(3).with_error_code(51);
        visitor.response::<AddOffsetsToTxnRequest>(version, response);
    }
    visitor.request(1, write_markers_request());
    visitor.response::<WriteTxnMarkersRequest>(1, write_markers_response());
    visitor.request(0, describe_producers_request());
    visitor.response::<DescribeProducersRequest>(0, describe_producers_response());
    visitor.request(0, DescribeTransactionsRequest::default().with_transactional_ids(vec![id(), other()]));
    visitor.response::<DescribeTransactionsRequest>(0, describe_response());
    for version in 0..=2 {
        visitor.request(version, list_request(version));
        visitor.response::<ListTransactionsRequest>(version, list_response());
    }
}

fn id() -> TransactionalId {
    TransactionalId(text("txn"))
}

fn other() -> TransactionalId {
    TransactionalId(text("other"))
}

fn add_partitions_request(version: i16) -> AddPartitionsToTxnRequest {
    use add_partitions_to_txn_request::*;
    let topics = vec![
        AddPartitionsToTxnTopic::default().with_name(topic("flights")).with_partitions(vec![0, 3]),
        AddPartitionsToTxnTopic::default().with_name(topic("quiet")),
    ];
    let request = AddPartitionsToTxnRequest::default();
    if version < 4 {
        return request
            .with_v3_and_below_transactional_id(id())
            .with_v3_and_below_producer_id(ProducerId(77))
            .with_v3_and_below_producer_epoch(5)
            .with_v3_and_below_topics(topics);
    }
    let transaction = AddPartitionsToTxnTransaction::default()
        .with_transactional_id(id())
        .with_producer_id(ProducerId(77))
        .with_producer_epoch(5)
        .with_verify_only(true)
        .with_topics(topics);
    request.with_transactions(vec![transaction.clone(), transaction.with_transactional_id(other())])
}

fn add_partitions_response(version: i16) -> AddPartitionsToTxnResponse {
    use add_partitions_to_txn_response::*;
    let partition = AddPartitionsToTxnPartitionResult::default().with_partition_index(3).with_partition_error_code(51);
    let topics = vec![
        AddPartitionsToTxnTopicResult::default()
            .with_name(topic("flights"))
            .with_results_by_partition(vec![partition.clone(), partition.with_partition_index(4)]),
        AddPartitionsToTxnTopicResult::default().with_name(topic("quiet")),
    ];
    let response = AddPartitionsToTxnResponse::default().with_throttle_time_ms(3);
    if version < 4 {
        return response.with_results_by_topic_v3_and_below(topics);
    }
    let result = AddPartitionsToTxnResult::default().with_transactional_id(id()).with_topic_results(topics);
    response
        .with_error_code(15)
        .with_results_by_transaction(vec![result.clone(), result.with_transactional_id(other())])
}

fn add_offsets_request() -> AddOffsetsToTxnRequest {
    AddOffsetsToTxnRequest::default()
        .with_transactional_id(id())
        .with_producer_id(ProducerId(77))
        .with_producer_epoch(5)
        .with_group_id(GroupId(text("group")))
}

fn end_request() -> EndTxnRequest {
    EndTxnRequest::default()
        .with_transactional_id(id())
        .with_producer_id(ProducerId(77))
        .with_producer_epoch(5)
        .with_committed(true)
}

fn end_response(version: i16) -> EndTxnResponse {
    let response = EndTxnResponse::default().with_throttle_time_ms(3).with_error_code(51);
    if version >= 5 { response.with_producer_id(ProducerId(77)).with_producer_epoch(6) } else { response }
}

fn offset_commit_request(version: i16) -> TxnOffsetCommitRequest {
    use txn_offset_commit_request::*;
    let mut partition = TxnOffsetCommitRequestPartition::default()
        .with_partition_index(3)
        .with_committed_offset(77)
        .with_committed_metadata(None);
    if version >= 2 {
        partition = partition.with_committed_leader_epoch(8);
    }
    let second = partition.clone().with_committed_metadata(Some(text("note")));
    let request = TxnOffsetCommitRequest::default()
        .with_transactional_id(id())
        .with_group_id(GroupId(text("group")))
        .with_producer_id(ProducerId(77))
        .with_producer_epoch(5)
        .with_topics(vec![
            TxnOffsetCommitRequestTopic::default().with_name(topic("flights")).with_partitions(vec![partition, second]),
            TxnOffsetCommitRequestTopic::default().with_name(topic("quiet")),
        ]);
    match version {
        ..3 => request,
        _ => request
            .with_generation_id(4)
            .with_member_id(text("member"))
            .with_group_instance_id((version > 3).then(|| text("instance"))),
    }
}

fn offset_commit_response() -> TxnOffsetCommitResponse {
    use txn_offset_commit_response::*;
    let partition = TxnOffsetCommitResponsePartition::default().with_partition_index(3).with_error_code(51);
    TxnOffsetCommitResponse::default().with_throttle_time_ms(3).with_topics(vec![
        TxnOffsetCommitResponseTopic::default()
            .with_name(topic("flights"))
            .with_partitions(vec![partition.clone(), partition.with_partition_index(4)]),
        TxnOffsetCommitResponseTopic::default().with_name(topic("quiet")),
    ])
}

fn write_markers_request() -> WriteTxnMarkersRequest {
    use write_txn_markers_request::*;
    let marker = WritableTxnMarker::default()
        .with_producer_id(ProducerId(77))
        .with_producer_epoch(5)
        .with_transaction_result(true)
        .with_coordinator_epoch(9)
        .with_topics(vec![
            WritableTxnMarkerTopic::default().with_name(topic("flights")).with_partition_indexes(vec![0, 3]),
            WritableTxnMarkerTopic::default().with_name(topic("quiet")),
        ]);
    WriteTxnMarkersRequest::default().with_markers(vec![marker.clone(), marker.with_transaction_result(false)])
}

fn write_markers_response() -> WriteTxnMarkersResponse {
    use write_txn_markers_response::*;
    let partition = WritableTxnMarkerPartitionResult::default().with_partition_index(3).with_error_code(52);
    let result = WritableTxnMarkerResult::default().with_producer_id(ProducerId(77)).with_topics(vec![
        WritableTxnMarkerTopicResult::default()
            .with_name(topic("flights"))
            .with_partitions(vec![partition.clone(), partition.with_partition_index(4)]),
        WritableTxnMarkerTopicResult::default().with_name(topic("quiet")),
    ]);
    WriteTxnMarkersResponse::default().with_markers(vec![result.clone(), result.with_producer_id(ProducerId(78))])
}

fn describe_producers_request() -> DescribeProducersRequest {
    use describe_producers_request::*;
    DescribeProducersRequest::default().with_topics(vec![
        TopicRequest::default().with_name(topic("flights")).with_partition_indexes(vec![0, 3]),
        TopicRequest::default().with_name(topic("quiet")),
    ])
}

fn describe_producers_response() -> DescribeProducersResponse {
    use describe_producers_response::*;
    let producer = ProducerState::default()
        .with_producer_id(ProducerId(77))
        .with_producer_epoch(5)
        .with_last_sequence(41)
        .with_last_timestamp(1_700_000_000_000)
        .with_coordinator_epoch(9)
        .with_current_txn_start_offset(1234);
    let partition = PartitionResponse::default()
        .with_partition_index(3)
        .with_error_message(None)
        .with_active_producers(vec![producer.clone(), producer.with_current_txn_start_offset(-1)]);
    let second = PartitionResponse::default().with_error_code(6).with_error_message(Some(text("elsewhere")));
    DescribeProducersResponse::default().with_throttle_time_ms(3).with_topics(vec![
        TopicResponse::default().with_name(topic("flights")).with_partitions(vec![partition, second]),
        TopicResponse::default().with_name(topic("quiet")),
    ])
}

fn describe_response() -> DescribeTransactionsResponse {
    use describe_transactions_response::*;
    let state = TransactionState::default()
        .with_transactional_id(id())
        .with_transaction_state(text("Ongoing"))
        .with_transaction_timeout_ms(60_000)
        .with_transaction_start_time_ms(1_700_000_000_000)
        .with_producer_id(ProducerId(77))
        .with_producer_epoch(5)
        .with_topics(vec![
            TopicData::default().with_topic(topic("flights")).with_partitions(vec![0, 3]),
            TopicData::default().with_topic(topic("quiet")),
        ]);
    let second = TransactionState::default().with_error_code(105).with_transactional_id(other());
    DescribeTransactionsResponse::default().with_throttle_time_ms(3).with_transaction_states(vec![state, second])
}

fn list_request(version: i16) -> ListTransactionsRequest {
    let mut request = ListTransactionsRequest::default()
        .with_state_filters(vec![text("Ongoing"), text("Empty")])
        .with_producer_id_filters(vec![ProducerId(77), ProducerId(78)]);
    if version >= 1 {
        request = request.with_duration_filter(1000);
    }
    if version >= 2 {
        request = request.with_transactional_id_pattern(Some(text("t.*")));
    }
    request
}

fn list_response() -> ListTransactionsResponse {
    use list_transactions_response::*;
    let state = TransactionState::default()
        .with_transactional_id(id())
        .with_producer_id(ProducerId(77))
        .with_transaction_state(text("Ongoing"));
    ListTransactionsResponse::default()
        .with_throttle_time_ms(3)
        .with_error_code(14)
        .with_unknown_state_filters(vec![text("Odd"), text("Even")])
        .with_transaction_states(vec![state.clone(), state.with_transactional_id(other())])
}
