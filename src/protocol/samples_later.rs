//! Populated requests of the APIs whose descriptors stand ready for when they are served, for the guard's tests.

use bytes::Bytes;
use kafka_protocol::messages::*;

use crate::protocol::samples::{RECORDS, Visitor, text, topic};

/// Shows requests of the APIs whose descriptors stand ready for when they are served.
pub fn visit_later(visitor: &mut impl Visitor) {
    for version in 2..=9 {
        visitor.request(version, offset_commit_request(version));
    }
    for version in 1..=9 {
        visitor.request(version, offset_fetch_request(version));
    }
    for version in 0..=9 {
        visitor.request(version, join_group_request(version));
    }
    for version in 0..=4 {
        visitor.request(
            version,
            HeartbeatRequest::default()
                .with_group_id(group())
                .with_generation_id(3)
                .with_member_id(text("member"))
                .with_group_instance_id((version >= 3).then(|| text("instance"))),
        );
    }
    for version in 0..=5 {
        visitor.request(version, leave_group_request(version));
        visitor.request(version, sync_group_request(version));
        visitor.request(
            version,
            ListGroupsRequest::default()
                .with_states_filter(if version >= 4 { vec![text("Stable"), text("Empty")] } else { vec![] })
                .with_types_filter(if version >= 5 { vec![text("classic")] } else { vec![] }),
        );
    }
    for version in 0..=6 {
        visitor.request(
            version,
            DescribeGroupsRequest::default()
                .with_groups(vec![group(), GroupId(text("other"))])
                .with_include_authorized_operations(version >= 3),
        );
    }
    for version in 0..=2 {
        visitor.request(version, DeleteGroupsRequest::default().with_groups_names(vec![group(), group()]));
    }
    visitor.request(0, offset_delete_request());
}

fn group() -> GroupId {
    GroupId(text("group"))
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
            OffsetCommitRequestTopic::default().with_name(topic("flights")).with_partitions(vec![partition, second]),
            OffsetCommitRequestTopic::default().with_name(topic("quiet")),
        ]);
    if version <= 4 { request.with_retention_time_ms(1_000) } else { request }
}

fn offset_fetch_request(version: i16) -> OffsetFetchRequest {
    use offset_fetch_request::*;
    let request = OffsetFetchRequest::default().with_require_stable(version >= 7);
    if version <= 7 {
        let named = OffsetFetchRequestTopic::default().with_name(topic("flights")).with_partition_indexes(vec![0, 1]);
        return request.with_group_id(group()).with_topics(Some(vec![named]));
    }
    let named = OffsetFetchRequestTopics::default().with_name(topic("flights")).with_partition_indexes(vec![0, 1]);
    let mut first = OffsetFetchRequestGroup::default().with_group_id(group()).with_topics(Some(vec![named]));
    if version >= 9 {
        first = first.with_member_id(Some(text("member"))).with_member_epoch(4);
    }
    let second = OffsetFetchRequestGroup::default().with_group_id(GroupId(text("other"))).with_topics(None);
    request.with_groups(vec![first, second])
}

fn join_group_request(version: i16) -> JoinGroupRequest {
    use join_group_request::JoinGroupRequestProtocol;
    let protocol = |name| JoinGroupRequestProtocol::default().with_name(text(name));
    let request = JoinGroupRequest::default()
        .with_group_id(group())
        .with_session_timeout_ms(45_000)
        .with_member_id(text("member"))
        .with_group_instance_id((version >= 5).then(|| text("instance")))
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol("range").with_metadata(Bytes::from_static(RECORDS)), protocol("roundrobin")])
        .with_reason((version >= 8).then(|| text("why not")));
    if version >= 1 { request.with_rebalance_timeout_ms(300_000) } else { request }
}

fn leave_group_request(version: i16) -> LeaveGroupRequest {
    use leave_group_request::MemberIdentity;
    let request = LeaveGroupRequest::default().with_group_id(group());
    if version <= 2 {
        return request.with_member_id(text("member"));
    }
    request.with_members(vec![
        MemberIdentity::default()
            .with_member_id(text("member"))
            .with_group_instance_id(Some(text("instance")))
            .with_reason((version >= 5).then(|| text("done"))),
        MemberIdentity::default().with_member_id(text("other")),
    ])
}

fn sync_group_request(version: i16) -> SyncGroupRequest {
    use sync_group_request::SyncGroupRequestAssignment;
    let assignment = |member| SyncGroupRequestAssignment::default().with_member_id(text(member));
    SyncGroupRequest::default()
        .with_group_id(group())
        .with_generation_id(3)
        .with_member_id(text("member"))
        .with_group_instance_id((version >= 3).then(|| text("instance")))
        .with_protocol_type((version >= 5).then(|| text("consumer")))
        .with_protocol_name((version >= 5).then(|| text("range")))
        .with_assignments(vec![assignment("member").with_assignment(Bytes::from_static(RECORDS)), assignment("other")])
}

fn offset_delete_request() -> OffsetDeleteRequest {
    use offset_delete_request::*;
    let partition = OffsetDeleteRequestPartition::default().with_partition_index(3);
    let named = OffsetDeleteRequestTopic::default().with_name(topic("flights"));
    OffsetDeleteRequest::default()
        .with_group_id(group())
        .with_topics(vec![named.clone().with_partitions(vec![partition.clone(), partition]), named])
}
