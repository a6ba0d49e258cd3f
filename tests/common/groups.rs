//! Members of groups by hand: requests to a coordinator.

use bytes::Bytes;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    FindCoordinatorRequest, GroupId, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, SyncGroupRequest,
};
use kafka_protocol::protocol::StrBytes;
use ottla::client::Connection;
use ottla::protocol::ErrorCode;

use super::broker::Broker;
use super::requests::{connect, error_of};
use super::until;

/// Text as the wire types have it.
pub fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// A connection to the coordinator of a group.
pub fn to_coordinator(broker: &Broker, group: &str) -> Connection {
    let mut connection = connect(&broker.serving()[0].address);
    let request = FindCoordinatorRequest::default().with_coordinator_keys(vec![text(group)]);
    let found = until("there is a coordinator", || {
        let found = connection.call(6, &request).expect("answered").coordinators.remove(0);
        error_of(found.error_code).is_none().then_some(found)
    });
    connect(broker.address_of(found.node_id.0))
}

/// A JoinGroup of a consumer with one protocol.
pub fn join_request(group: &str, member_id: &str, protocol: &str, metadata: &[u8]) -> JoinGroupRequest {
    let protocol =
        JoinGroupRequestProtocol::default().with_name(text(protocol)).with_metadata(Bytes::copy_from_slice(metadata));
    JoinGroupRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_session_timeout_ms(10_000)
        .with_rebalance_timeout_ms(10_000)
        .with_member_id(text(member_id))
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol])
}

/// A SyncGroup, of a leader with assignments.
pub fn sync_request(group: &str, member_id: &str, generation: i32, assignments: &[(&str, &str)]) -> SyncGroupRequest {
    let assignments = assignments.iter().map(|(member_id, bytes)| {
        SyncGroupRequestAssignment::default()
            .with_member_id(text(member_id))
            .with_assignment(Bytes::copy_from_slice(bytes.as_bytes()))
    });
    SyncGroupRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_generation_id(generation)
        .with_member_id(text(member_id))
        .with_assignments(assignments.collect())
}

/// What a member's heartbeat is answered with.
pub fn heartbeat(
    connection: &mut Connection,
    version: i16,
    group: &str,
    member_id: &str,
    generation: i32,
) -> ErrorCode {
    let request = HeartbeatRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_member_id(text(member_id))
        .with_generation_id(generation);
    error_of(connection.call(version, &request).expect("answered").error_code)
}

/// Joins as clients do: with an id if one is asked for.
pub fn join(connection: &mut Connection, version: i16, request: JoinGroupRequest) -> JoinGroupResponse {
    let answer = connection.call(version, &request).expect("answered");
    match error_of(answer.error_code) {
        ErrorCode::MemberIdRequired => {
            connection.call(version, &request.with_member_id(answer.member_id)).expect("answered")
        }
        _ => answer,
    }
}
