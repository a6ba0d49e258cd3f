//! Samples of FindCoordinator and of the APIs of committed offsets; see the module above, which shows them.

use kafka_protocol::messages::*;
use uuid::Uuid;

use super::{ID, Visitor, text, topic};

/// Shows them.
pub fn visit(visitor: &mut impl Visitor) {
    for version in 0..=6 {
        visitor.request(version, find_coordinator_request(version));
        visitor.response::<FindCoordinatorRequest>(version, find_coordinator_response(version));
    }
    for version in 2..=10 {
        visitor.request(version, offset_commit_request(version));
        visitor.response::<OffsetCommitRequest>(version, offset_commit_response(version));
    }
    for version in 1..=10 {
        visitor.request(version, offset_fetch_request(version));
        visitor.response::<OffsetFetchRequest>(version, offset_fetch_response(version));
    }
    visitor.request(0, offset_delete_request());
    visitor.response::<OffsetDeleteRequest>(0, offset_delete_response());
}

/// From version 10 on topics go by id, which stands in the name's place (`topic_ids`).
fn named(version: i16, name: &'static str) -> TopicName {
    match (version, name) {
        (..10, _) => topic(name),
        (_, "flights") => topic("ASNFZ4mrze8BI0VniavN7w"),
        _ => topic("AAAAAAAAAAAAAAAAAAAAAg"),
    }
}

fn group() -> GroupId {
    GroupId(text("group"))
}

fn find_coordinator_request(version: i16) -> FindCoordinatorRequest {
    let request = FindCoordinatorRequest::default();
    let request = if version >= 1 { request.with_key_type(1) } else { request };
    match version {
        ..4 => request.with_key(text("group")),
        _ => request.with_coordinator_keys(vec![text("group"), text("other")]),
    }
}

fn find_coordinator_response(version: i16) -> FindCoordinatorResponse {
    use find_coordinator_response::Coordinator;
    let response = FindCoordinatorResponse::default();
    let response = if version >= 1 { response.with_throttle_time_ms(3) } else { response };
    if version < 4 {
        // Version 0 has no message, which is read as an empty one.
        let message = Some(text(if version >= 1 { "elsewhere" } else { "" }));
        let response = response.with_error_code(15).with_error_message(message);
        return response.with_node_id(BrokerId(1002)).with_host(text("localhost")).with_port(9093);
    }
    response.with_coordinators(vec![
        Coordinator::default()
            .with_key(text("group"))
            .with_node_id(BrokerId(1002))
            .with_host(text("localhost"))
            .with_port(9093)
            .with_error_message(None),
        Coordinator::default()
            .with_key(text("other"))
            .with_node_id(BrokerId(-1))
            .with_port(-1)
            .with_error_code(15)
            .with_error_message(Some(text("elsewhere"))),
    ])
}

fn offset_commit_request(version: i16) -> OffsetCommitRequest {
    use offset_commit_request::*;
    let mut partition = OffsetCommitRequestPartition::default()
        .with_partition_index(3)
        .with_committed_offset(77)
        .with_committed_metadata(None);
    if version >= 6 {
        partition = partition.with_committed_leader_epoch(8);
    }
    let second = partition.clone().with_committed_metadata(Some(text("note")));
    let request = OffsetCommitRequest::default()
        .with_group_id(group())
        .with_generation_id_or_member_epoch(3)
        .with_member_id(text("member"))
        .with_group_instance_id((version >= 7).then(|| text("instance")))
        .with_topics(vec![
            OffsetCommitRequestTopic::default()
                .with_name(named(version, "flights"))
                .with_partitions(vec![partition, second]),
            OffsetCommitRequestTopic::default().with_name(named(version, "quiet")),
        ]);
    if version <= 4 { request.with_retention_time_ms(1_000) } else { request }
}

fn offset_fetch_request(version: i16) -> OffsetFetchRequest {
    use offset_fetch_request::*;
    let request = OffsetFetchRequest::default().with_require_stable(version >= 7);
    if version <= 7 {
        let named =
            OffsetFetchRequestTopic::default().with_name(named(version, "flights")).with_partition_indexes(vec![0, 1]);
        return request.with_group_id(group()).with_topics(Some(vec![named]));
    }
    let named =
        OffsetFetchRequestTopics::default().with_name(named(version, "flights")).with_partition_indexes(vec![0, 1]);
    let mut first = OffsetFetchRequestGroup::default().with_group_id(group()).with_topics(Some(vec![named]));
    if version >= 9 {
        first = first.with_member_id(Some(text("member"))).with_member_epoch(4);
    }
    let second = OffsetFetchRequestGroup::default().with_group_id(GroupId(text("other"))).with_topics(None);
    request.with_groups(vec![first, second])
}

fn offset_delete_request() -> OffsetDeleteRequest {
    use offset_delete_request::*;
    let partition = OffsetDeleteRequestPartition::default().with_partition_index(3);
    let named = OffsetDeleteRequestTopic::default().with_name(topic("flights"));
    OffsetDeleteRequest::default()
        .with_group_id(group())
        .with_topics(vec![named.clone().with_partitions(vec![partition.clone(), partition]), named])
}

fn offset_commit_response(version: i16) -> OffsetCommitResponse {
    use offset_commit_response::*;
    let partition =
        |index, error| OffsetCommitResponsePartition::default().with_partition_index(index).with_error_code(error);
    let named = |name, id| match version {
        ..10 => OffsetCommitResponseTopic::default().with_name(topic(name)),
        _ => OffsetCommitResponseTopic::default().with_topic_id(id),
    };
    let response = OffsetCommitResponse::default();
    let response = if version >= 3 { response.with_throttle_time_ms(3) } else { response };
    response.with_topics(vec![
        named("flights", ID).with_partitions(vec![partition(0, 0), partition(3, 12)]),
        named("quiet", Uuid::from_u128(2)),
    ])
}

fn offset_fetch_response(version: i16) -> OffsetFetchResponse {
    use offset_fetch_response::*;
    let response = OffsetFetchResponse::default();
    let response = if version >= 3 { response.with_throttle_time_ms(3) } else { response };
    if version <= 7 {
        let found = OffsetFetchResponsePartition::default()
            .with_partition_index(0)
            .with_committed_offset(77)
            .with_committed_leader_epoch(if version >= 5 { 8 } else { -1 })
            .with_metadata(Some(text("note")));
        let missing = OffsetFetchResponsePartition::default()
            .with_partition_index(1)
            .with_committed_offset(-1)
            .with_metadata(None)
            .with_error_code(3);
        let response = if version >= 2 { response.with_error_code(14) } else { response };
        let flights = OffsetFetchResponseTopic::default().with_name(topic("flights"));
        return response.with_topics(vec![flights.with_partitions(vec![found, missing])]);
    }
    let found = OffsetFetchResponsePartitions::default()
        .with_partition_index(0)
        .with_committed_offset(77)
        .with_committed_leader_epoch(8)
        .with_metadata(Some(text("note")));
    let missing = OffsetFetchResponsePartitions::default()
        .with_partition_index(1)
        .with_committed_offset(-1)
        .with_metadata(None)
        .with_error_code(3);
    let flights = match version {
        ..10 => OffsetFetchResponseTopics::default().with_name(topic("flights")),
        _ => OffsetFetchResponseTopics::default().with_topic_id(ID),
    };
    response.with_groups(vec![
        OffsetFetchResponseGroup::default()
            .with_group_id(group())
            .with_topics(vec![flights.with_partitions(vec![found, missing])]),
        OffsetFetchResponseGroup::default().with_group_id(GroupId(text("other"))).with_error_code(16),
    ])
}

fn offset_delete_response() -> OffsetDeleteResponse {
    use offset_delete_response::*;
    let partition =
        |index, error| OffsetDeleteResponsePartition::default().with_partition_index(index).with_error_code(error);
    let named = OffsetDeleteResponseTopic::default().with_name(topic("flights"));
    OffsetDeleteResponse::default()
        .with_error_code(69)
        .with_throttle_time_ms(3)
        .with_topics(vec![named.clone().with_partitions(vec![partition(3, 0), partition(4, 86)]), named])
}
