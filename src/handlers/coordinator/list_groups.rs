//! ListGroups: the groups whose coordinators are here. Clients ask every broker.

use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{GroupId, ListGroupsRequest, ListGroupsResponse};
use kafka_protocol::protocol::StrBytes;

use super::join_group::text;
use crate::coordinator::group::event::GroupState;
use crate::handlers::broker::Broker;
use crate::handlers::call::Call;
use crate::io::Io;

/// From this version on the state is told.
const STATE_FROM: i16 = 4;
/// From this version on the type is told.
const TYPE_FROM: i16 = 5;
/// The types of groups.
const CLASSIC: &str = "classic";
const CONSUMER: &str = "consumer";

impl<I: Io> Broker<I> {
    /// Answers a ListGroups.
    pub(in crate::handlers) fn list_groups(&mut self, call: Call, request: &ListGroupsRequest) {
        if let Err(error) = self.check_loaded() {
            return self.reply(call, &ListGroupsResponse::default().with_error_code(error.code()));
        }
        let is_wanted = |filter: &[StrBytes], value: &str| {
            filter.is_empty() || filter.iter().any(|wanted| wanted.eq_ignore_ascii_case(value))
        };
        let mut groups = Vec::new();
        let mut list = |group_id: &str, group_type: &'static str, protocol_type: &str, state: &'static str| {
            if !is_wanted(&request.states_filter, state) || !is_wanted(&request.types_filter, group_type) {
                return;
            }
            let mut listed =
                ListedGroup::default().with_group_id(GroupId(text(group_id))).with_protocol_type(text(protocol_type));
            if call.version >= STATE_FROM {
                listed.group_state = StrBytes::from_static_str(state);
            }
            if call.version >= TYPE_FROM {
                listed.group_type = StrBytes::from_static_str(group_type);
            }
            groups.push(listed);
        };
        for (_, hosted) in self.coordinator.partitions() {
            for group in hosted.groups.iter() {
                list(&group.id, CLASSIC, group.protocol_type.as_deref().unwrap_or_default(), group.state.name());
            }
            for group in hosted.consumer_groups.iter() {
                list(&group.id, CONSUMER, CONSUMER, group.state().name());
            }
            // Groups that only have offsets.
            let simple = hosted.offsets.groups().filter(|(group_id, _)| {
                !hosted.groups.has_group(group_id) && !hosted.consumer_groups.has_group(group_id)
            });
            simple.for_each(|(group_id, _)| list(group_id, CLASSIC, "", GroupState::Empty.name()));
        }
        self.reply(call, &ListGroupsResponse::default().with_groups(groups));
    }
}
