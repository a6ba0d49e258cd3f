//! DescribeGroups: state and members of groups whose coordinator is here.

use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::{DescribeGroupsRequest, DescribeGroupsResponse, GroupId};
use kafka_protocol::protocol::StrBytes;

use super::join_group::text;
use crate::coordinator::group::classic::Group;
use crate::coordinator::group::event::GroupState;
use crate::handlers::authorized;
use crate::handlers::broker::Broker;
use crate::handlers::call::Call;
use crate::io::Io;
use crate::model::limits::DESCRIBED_GROUPS_SIZE_BYTES_MAX;
use crate::protocol::error::ErrorCode;

/// From this version on a group that does not exist is told so; before, it is a dead one.
const NOT_FOUND_FROM: i16 = 6;

impl<I: Io> Broker<I> {
    /// Answers a DescribeGroups.
    pub(in crate::handlers) fn describe_groups(&mut self, call: Call, request: &DescribeGroupsRequest) {
        let operations = match request.include_authorized_operations {
            true => authorized::GROUP_OPERATIONS,
            false => authorized::NOT_ASKED,
        };
        let mut size_bytes = 0;
        let groups = request.groups.iter().map(|group_id| {
            let described = match size_bytes < DESCRIBED_GROUPS_SIZE_BYTES_MAX {
                true => self.describe_group(call, group_id),
                // The client asks for the rest again.
                false => refused(ErrorCode::CoordinatorNotAvailable),
            };
            let metadata = described.members.iter().map(|member| member.member_metadata.len());
            let assignments = described.members.iter().map(|member| member.member_assignment.len() + 256);
            size_bytes += metadata.chain(assignments).sum::<usize>();
            described.with_group_id(group_id.clone()).with_authorized_operations(operations)
        });
        let response = DescribeGroupsResponse::default().with_groups(groups.collect());
        self.reply(call, &response);
    }

    fn describe_group(&self, call: Call, group_id: &GroupId) -> DescribedGroup {
        let index = match self.coordinator_of_group(group_id) {
            Ok(index) => index,
            Err(error) => return refused(error),
        };
        let hosted = self.coordinator.hosted(index).expect("it is active");
        if let Some(group) = hosted.groups.get(group_id) {
            return described(group);
        }
        let is_consumer = hosted.consumer_groups.has_group(group_id);
        let is_simple = hosted.offsets.group(group_id).is_some() && !is_consumer;
        let state = if is_simple { GroupState::Empty } else { GroupState::Dead };
        let described = DescribedGroup::default().with_group_state(StrBytes::from_static_str(state.name()));
        if is_simple || call.version < NOT_FOUND_FROM {
            return described;
        }
        // Clients that meet one of the consumer protocol ask with ConsumerGroupDescribe.
        let message = match is_consumer {
            true => format!("Group {} is not a classic group.", group_id.0),
            false => format!("Group {} not found.", group_id.0),
        };
        described
            .with_error_code(ErrorCode::GroupIdNotFound.code())
            .with_error_message(Some(StrBytes::from_string(message)))
    }
}

fn refused(error: ErrorCode) -> DescribedGroup {
    DescribedGroup::default().with_error_code(error.code())
}

fn described<T>(group: &Group<T>) -> DescribedGroup {
    // Before it is stable, what a member says about itself may not be what the protocol says.
    let protocol = group.protocol.as_deref().filter(|_| group.state == GroupState::Stable);
    let members = group.members().map(|(member_id, member)| {
        let metadata = protocol.and_then(|protocol| member.metadata(protocol)).cloned().unwrap_or_default();
        DescribedGroupMember::default()
            .with_member_id(text(member_id))
            .with_group_instance_id(member.group_instance_id.as_deref().map(text))
            .with_client_id(text(&member.client_id))
            .with_client_host(text(&member.client_host))
            .with_member_metadata(metadata)
            .with_member_assignment(member.assignment.clone())
    });
    DescribedGroup::default()
        .with_group_state(StrBytes::from_static_str(group.state.name()))
        .with_protocol_type(text(group.protocol_type.as_deref().unwrap_or_default()))
        .with_protocol_data(text(protocol.unwrap_or_default()))
        .with_members(members.collect())
}
