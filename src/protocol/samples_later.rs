//! Populated requests of the APIs whose descriptors stand ready for when they are served, for the guard's tests.

use bytes::Bytes;
use kafka_protocol::messages::*;

use crate::protocol::samples::{RECORDS, Visitor, text};

/// Shows requests of the APIs whose descriptors stand ready for when they are served.
pub fn visit_later(visitor: &mut impl Visitor) {
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
