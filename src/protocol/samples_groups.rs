//! Samples of the APIs of groups and their members; see the module above, which shows them.

use bytes::Bytes;
use kafka_protocol::messages::*;

use super::{ID, RECORDS, Visitor, text, topic};

/// Shows them.
pub fn visit(visitor: &mut impl Visitor) {
    for version in 0..=9 {
        visitor.request(version, join_group_request(version));
        visitor.response::<JoinGroupRequest>(version, join_group_response(version));
    }
    for version in 0..=4 {
        visitor.request(version, heartbeat_request(version));
        let response = HeartbeatResponse::default().with_error_code(27);
        visitor.response::<HeartbeatRequest>(
            version,
            if version >= 1 { response.with_throttle_time_ms(3) } else { response },
        );
    }
    for version in 0..=5 {
        visitor.request(version, leave_group_request(version));
        visitor.response::<LeaveGroupRequest>(version, leave_group_response(version));
        visitor.request(version, sync_group_request(version));
        visitor.response::<SyncGroupRequest>(version, sync_group_response(version));
        visitor.request(version, list_groups_request(version));
        visitor.response::<ListGroupsRequest>(version, list_groups_response(version));
    }
    for version in 0..=6 {
        visitor.request(version, describe_groups_request(version));
        visitor.response::<DescribeGroupsRequest>(version, describe_groups_response(version));
    }
    for version in 0..=1 {
        visitor.request(version, consumer_group_heartbeat_request(version));
        visitor.response::<ConsumerGroupHeartbeatRequest>(version, consumer_group_heartbeat_response());
        visitor.request(version, consumer_group_describe_request());
        visitor.response::<ConsumerGroupDescribeRequest>(version, consumer_group_describe_response(version));
    }
    for version in 0..=2 {
        visitor.request(version, DeleteGroupsRequest::default().with_groups_names(vec![group(), group()]));
        visitor.response::<DeleteGroupsRequest>(version, delete_groups_response());
    }
}

fn group() -> GroupId {
    GroupId(text("group"))
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

fn heartbeat_request(version: i16) -> HeartbeatRequest {
    HeartbeatRequest::default()
        .with_group_id(group())
        .with_generation_id(3)
        .with_member_id(text("member"))
        .with_group_instance_id((version >= 3).then(|| text("instance")))
}

fn list_groups_request(version: i16) -> ListGroupsRequest {
    ListGroupsRequest::default()
        .with_states_filter(if version >= 4 { vec![text("Stable"), text("Empty")] } else { vec![] })
        .with_types_filter(if version >= 5 { vec![text("classic")] } else { vec![] })
}

fn describe_groups_request(version: i16) -> DescribeGroupsRequest {
    DescribeGroupsRequest::default()
        .with_groups(vec![group(), GroupId(text("other"))])
        .with_include_authorized_operations(version >= 3)
}

fn join_group_response(version: i16) -> JoinGroupResponse {
    use join_group_response::JoinGroupResponseMember;
    let member = JoinGroupResponseMember::default().with_metadata(Bytes::from_static(RECORDS));
    let mut response = JoinGroupResponse::default()
        .with_generation_id(3)
        .with_protocol_name(Some(text("range")))
        .with_leader(text("member"))
        .with_member_id(text("member"))
        .with_members(vec![
            member
                .clone()
                .with_member_id(text("member"))
                .with_group_instance_id((version >= 5).then(|| text("instance"))),
            member.with_member_id(text("other")),
        ]);
    if version >= 2 {
        response.throttle_time_ms = 3;
    }
    if version >= 7 {
        response.protocol_type = Some(text("consumer"));
    }
    response.skip_assignment = version >= 9;
    response
}

fn sync_group_response(version: i16) -> SyncGroupResponse {
    SyncGroupResponse::default()
        .with_throttle_time_ms(if version >= 1 { 3 } else { 0 })
        .with_error_code(27)
        .with_protocol_type((version >= 5).then(|| text("consumer")))
        .with_protocol_name((version >= 5).then(|| text("range")))
        .with_assignment(Bytes::from_static(RECORDS))
}

fn leave_group_response(version: i16) -> LeaveGroupResponse {
    use leave_group_response::MemberResponse;
    let response =
        LeaveGroupResponse::default().with_throttle_time_ms(if version >= 1 { 3 } else { 0 }).with_error_code(16);
    if version < 3 {
        return response;
    }
    response.with_members(vec![
        MemberResponse::default().with_member_id(text("member")).with_group_instance_id(Some(text("instance"))),
        MemberResponse::default().with_member_id(text("other")).with_error_code(25),
    ])
}

fn list_groups_response(version: i16) -> ListGroupsResponse {
    use list_groups_response::ListedGroup;
    let listed = |name| {
        let mut listed = ListedGroup::default().with_group_id(GroupId(text(name))).with_protocol_type(text("consumer"));
        if version >= 4 {
            listed.group_state = text("Stable");
        }
        if version >= 5 {
            listed.group_type = text("classic");
        }
        listed
    };
    ListGroupsResponse::default()
        .with_throttle_time_ms(if version >= 1 { 3 } else { 0 })
        .with_error_code(14)
        .with_groups(vec![listed("group"), listed("other")])
}

fn describe_groups_response(version: i16) -> DescribeGroupsResponse {
    use describe_groups_response::{DescribedGroup, DescribedGroupMember};
    let member = DescribedGroupMember::default()
        .with_client_id(text("client"))
        .with_client_host(text("/127.0.0.1"))
        .with_member_metadata(Bytes::from_static(RECORDS))
        .with_member_assignment(Bytes::from_static(RECORDS));
    let mut described = DescribedGroup::default()
        .with_group_id(group())
        .with_group_state(text("Stable"))
        .with_protocol_type(text("consumer"))
        .with_protocol_data(text("range"))
        .with_members(vec![
            member
                .clone()
                .with_member_id(text("member"))
                .with_group_instance_id((version >= 4).then(|| text("instance"))),
            member.with_member_id(text("other")),
        ]);
    let mut unknown = DescribedGroup::default().with_group_id(GroupId(text("other"))).with_error_code(69);
    unknown.group_state = text("Dead");
    if version >= 3 {
        described.authorized_operations = 0x0d48;
    }
    if version >= 6 {
        unknown.error_message = Some(text("Group other not found."));
    }
    DescribeGroupsResponse::default()
        .with_throttle_time_ms(if version >= 1 { 3 } else { 0 })
        .with_groups(vec![described, unknown])
}

fn consumer_group_heartbeat_request(version: i16) -> ConsumerGroupHeartbeatRequest {
    use consumer_group_heartbeat_request::TopicPartitions;
    let owned = |partitions: &[i32]| TopicPartitions::default().with_topic_id(ID).with_partitions(partitions.to_vec());
    ConsumerGroupHeartbeatRequest::default()
        .with_group_id(group())
        .with_member_id(text("member"))
        .with_member_epoch(3)
        .with_instance_id(Some(text("instance")))
        .with_rack_id(Some(text("rack")))
        .with_rebalance_timeout_ms(300_000)
        .with_subscribed_topic_names((version == 0).then(|| vec![topic("orders"), topic("payments")]))
        .with_subscribed_topic_regex((version >= 1).then(|| text("orders-.*")))
        .with_server_assignor(Some(text("uniform")))
        .with_topic_partitions(Some(vec![owned(&[0, 7]), owned(&[])]))
}

fn consumer_group_heartbeat_response() -> ConsumerGroupHeartbeatResponse {
    use consumer_group_heartbeat_response::{Assignment, TopicPartitions};
    let assigned =
        |partitions: &[i32]| TopicPartitions::default().with_topic_id(ID).with_partitions(partitions.to_vec());
    ConsumerGroupHeartbeatResponse::default()
        .with_throttle_time_ms(3)
        .with_error_code(110)
        .with_error_message(Some(text("give up")))
        .with_member_id(Some(text("member")))
        .with_member_epoch(4)
        .with_heartbeat_interval_ms(5_000)
        .with_assignment(Some(Assignment::default().with_topic_partitions(vec![assigned(&[0, 7]), assigned(&[])])))
}

fn consumer_group_describe_request() -> ConsumerGroupDescribeRequest {
    ConsumerGroupDescribeRequest::default()
        .with_group_ids(vec![group(), GroupId(text("other"))])
        .with_include_authorized_operations(true)
}

fn consumer_group_describe_response(version: i16) -> ConsumerGroupDescribeResponse {
    use consumer_group_describe_response::{Assignment, DescribedGroup, Member, TopicPartitions};
    let partitions = TopicPartitions::default().with_topic_id(ID).with_topic_name(topic("orders"));
    let assigned = Assignment::default().with_topic_partitions(vec![partitions.with_partitions(vec![0, 7])]);
    let mut member = Member::default()
        .with_member_id(text("member"))
        .with_instance_id(Some(text("instance")))
        .with_rack_id(Some(text("rack")))
        .with_member_epoch(4)
        .with_client_id(text("client"))
        .with_client_host(text("/127.0.0.1"))
        .with_subscribed_topic_names(vec![topic("orders"), topic("payments")])
        .with_subscribed_topic_regex(Some(text("orders-.*")))
        .with_assignment(assigned.clone())
        .with_target_assignment(assigned);
    let mut other = Member::default().with_member_id(text("other"));
    if version >= 1 {
        (member.member_type, other.member_type) = (1, 0);
    }
    let described = DescribedGroup::default()
        .with_group_id(group())
        .with_group_state(text("Reconciling"))
        .with_group_epoch(5)
        .with_assignment_epoch(4)
        .with_assignor_name(text("uniform"))
        .with_members(vec![member, other])
        .with_authorized_operations(0x0d48);
    let unknown = DescribedGroup::default()
        .with_group_id(GroupId(text("other")))
        .with_error_code(69)
        .with_error_message(Some(text("Group other not found.")));
    ConsumerGroupDescribeResponse::default().with_throttle_time_ms(3).with_groups(vec![described, unknown])
}

fn delete_groups_response() -> DeleteGroupsResponse {
    use delete_groups_response::DeletableGroupResult;
    DeleteGroupsResponse::default().with_throttle_time_ms(3).with_results(vec![
        DeletableGroupResult::default().with_group_id(group()),
        DeletableGroupResult::default().with_group_id(GroupId(text("other"))).with_error_code(68),
    ])
}
