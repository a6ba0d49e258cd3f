//! JoinGroup: waits for the other members of the group.

use bytes::Bytes;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::{JoinGroupRequest, JoinGroupResponse};
use kafka_protocol::protocol::StrBytes;

use super::membership::settings;
use crate::coordinator::group::event::{JoinRefused, JoinRequest, Joined, Protocol};
use crate::coordinator::group::groups::check_join;
use crate::handlers::broker::Broker;
use crate::handlers::call::Call;
use crate::handlers::errors;
use crate::io::Io;
use crate::model::limits::GROUP_PROTOCOL_COUNT_MAX;
use crate::protocol::error::ErrorCode;

/// From this version on a new member is given its id first (KIP-394).
const MEMBER_ID_REQUIRED_FROM: i16 = 4;
/// From this version on the protocol's type is told, and its name may be null.
const PROTOCOL_TYPE_FROM: i16 = 7;
/// From this version on a leader can be told that it need not assign (KIP-814).
const SKIP_ASSIGNMENT_FROM: i16 = 9;

impl<I: Io> Broker<I> {
    /// Takes a JoinGroup in; the answer comes now or when the rebalance completes.
    pub(in crate::handlers) fn join_group(&mut self, call: Call, request: JoinGroupRequest, client_id: Box<str>) {
        let request = self.join_request(call, request, client_id);
        let checked = check_join(&request, &settings(&self.options.config)).map_err(|error| errors::of_group(&error));
        match checked.and_then(|()| self.coordinator_of(&request.group_id)) {
            Ok(index) if self.is_consumer_group(index, &request.group_id) => {
                let room = self.room_for_groups();
                self.with_consumer_groups(index, |groups, context| groups.join(call, &request, room, context));
            }
            Ok(index) => {
                self.make_room_for_classic(index, &request.group_id);
                let room = self.room_for_groups();
                self.with_groups(index, |groups, context| groups.join(call, request, room, context));
            }
            Err(error) => self.refuse_join(call, error, &request.member_id),
        }
    }

    fn join_request(&mut self, call: Call, request: JoinGroupRequest, client_id: Box<str>) -> JoinRequest {
        let peer = self.connections.find(call.ticket.connection).map(|connection| connection.peer().ip());
        // A slice would keep the whole request in memory.
        let protocol = |offered: &JoinGroupRequestProtocol| Protocol {
            name: (&*offered.name).into(),
            metadata: Bytes::copy_from_slice(&offered.metadata),
        };
        // One too many is enough to be refused.
        let protocols = request.protocols.iter().take(GROUP_PROTOCOL_COUNT_MAX + 1).map(protocol).collect();
        JoinRequest {
            group_id: (&**request.group_id).into(),
            member_id: (&*request.member_id).into(),
            group_instance_id: request.group_instance_id.as_deref().map(Into::into),
            client_id,
            client_host: peer.map(|ip| format!("/{ip}")).unwrap_or_default().into(),
            session_timeout_ms: request.session_timeout_ms,
            // Version 0 has none.
            rebalance_timeout_ms: match request.rebalance_timeout_ms {
                -1 => request.session_timeout_ms,
                timeout_ms => timeout_ms,
            },
            protocol_type: (&*request.protocol_type).into(),
            protocols,
            requires_member_id: call.version >= MEMBER_ID_REQUIRED_FROM,
            can_skip_assignment: call.version >= SKIP_ASSIGNMENT_FROM,
        }
    }

    fn refuse_join(&mut self, call: Call, error: ErrorCode, member_id: &str) {
        let response = JoinGroupResponse::default()
            .with_error_code(error.code())
            .with_generation_id(-1)
            .with_protocol_name((call.version < PROTOCOL_TYPE_FROM).then(StrBytes::default))
            .with_member_id(text(member_id));
        self.reply(call, &response);
    }

    /// Answers a JoinGroup.
    pub(super) fn answer_join(&mut self, call: Call, answer: Result<Joined, JoinRefused>) {
        let joined = match answer {
            Ok(joined) => joined,
            Err(refused) => return self.refuse_join(call, errors::of_group(&refused.error), &refused.member_id),
        };
        let protocol_name = joined.protocol.as_deref().map(text);
        let members = joined.members.into_iter().map(|member| {
            JoinGroupResponseMember::default()
                .with_member_id(text(&member.member_id))
                .with_group_instance_id(member.group_instance_id.as_deref().map(text))
                .with_metadata(member.metadata)
        });
        let mut response = JoinGroupResponse::default()
            .with_generation_id(joined.generation)
            .with_leader(text(&joined.leader))
            .with_member_id(text(&joined.member_id))
            .with_members(members.collect())
            .with_skip_assignment(joined.skip_assignment);
        if call.version >= PROTOCOL_TYPE_FROM {
            response.protocol_type = joined.protocol_type.as_deref().map(text);
            response.protocol_name = protocol_name;
        } else {
            response.protocol_name = Some(protocol_name.unwrap_or_default());
        }
        self.reply(call, &response);
    }
}

pub(super) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}
