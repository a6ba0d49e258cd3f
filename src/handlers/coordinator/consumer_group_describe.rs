//! ConsumerGroupDescribe: state, epochs and members of groups of the consumer protocol whose coordinator is here.

use kafka_protocol::messages::consumer_group_describe_response::{
    Assignment as DescribedAssignment, DescribedGroup, Member as DescribedMember, TopicPartitions,
};
use kafka_protocol::messages::{ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, GroupId, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::join_group::text;
use crate::controller::image::Image;
use crate::coordinator::consumer_group::Assignment;
use crate::coordinator::consumer_group::assignor::Assignor;
use crate::coordinator::consumer_group::group::ConsumerGroup;
use crate::handlers::authorized;
use crate::handlers::broker::Broker;
use crate::handlers::call::Call;
use crate::io::Io;
use crate::model::limits::DESCRIBED_GROUPS_SIZE_BYTES_MAX;
use crate::protocol::error::ErrorCode;

/// From this version on it is told which protocol a member speaks.
const MEMBER_TYPE_FROM: i16 = 1;
/// Its numbers.
const CLASSIC: i8 = 0;
const CONSUMER: i8 = 1;

impl<I: Io> Broker<I> {
    /// Answers a ConsumerGroupDescribe.
    pub(in crate::handlers) fn consumer_group_describe(&mut self, call: Call, request: &ConsumerGroupDescribeRequest) {
        let operations = match request.include_authorized_operations {
            true => authorized::GROUP_OPERATIONS,
            false => authorized::NOT_ASKED,
        };
        let default = self.consumer_settings().assignors[0];
        let mut size_bytes = 0;
        let groups = request.group_ids.iter().map(|group_id| {
            let described = match size_bytes < DESCRIBED_GROUPS_SIZE_BYTES_MAX {
                true => self.describe_consumer_group(call, group_id, default, &mut size_bytes),
                // The client asks for the rest again.
                false => refused(ErrorCode::CoordinatorNotAvailable, None),
            };
            described.with_group_id(group_id.clone()).with_authorized_operations(operations)
        });
        let response = ConsumerGroupDescribeResponse::default().with_groups(groups.collect());
        self.reply(call, &response);
    }

    fn describe_consumer_group(
        &self,
        call: Call,
        group_id: &GroupId,
        default: Assignor,
        size_bytes: &mut usize,
    ) -> DescribedGroup {
        let index = match self.check_consumer_protocol().and_then(|()| self.coordinator_of_group(group_id)) {
            Ok(index) => index,
            Err(error) => return refused(error, None),
        };
        let hosted = self.coordinator.hosted(index).expect("it is active");
        match hosted.consumer_groups.get(group_id) {
            Some(group) => described(call, group, default, &self.image, size_bytes),
            None if hosted.groups.has_group(group_id) => {
                refused(ErrorCode::GroupIdNotFound, Some(format!("Group {} is not a consumer group.", group_id.0)))
            }
            None => refused(ErrorCode::GroupIdNotFound, Some(format!("Group {} not found.", group_id.0))),
        }
    }
}

fn refused(error: ErrorCode, message: Option<String>) -> DescribedGroup {
    DescribedGroup::default().with_error_code(error.code()).with_error_message(message.map(StrBytes::from_string))
}

fn described(
    call: Call,
    group: &ConsumerGroup,
    default: Assignor,
    image: &Image,
    size_bytes: &mut usize,
) -> DescribedGroup {
    let mut named = |assignment: &Assignment| {
        // Topics that are gone have no name to be told by.
        let known = assignment.iter().filter_map(|(id, partitions)| Some((image.topic(*id)?, partitions)));
        let topics = known.map(|(topic, partitions)| {
            *size_bytes += 64 + topic.name.len() + 4 * partitions.len();
            TopicPartitions::default()
                .with_topic_id(topic.id.0)
                .with_topic_name(TopicName(text(&topic.name)))
                .with_partitions(partitions.clone())
        });
        DescribedAssignment::default().with_topic_partitions(topics.collect())
    };
    let mut members = Vec::with_capacity(group.members().len());
    for (member_id, member) in group.members() {
        let profile = &member.profile;
        let topics = profile.topics.iter().map(|name| TopicName(text(name)));
        let mut described = DescribedMember::default()
            .with_member_id(text(member_id))
            .with_instance_id(profile.instance_id.as_deref().map(text))
            .with_rack_id(profile.rack_id.as_deref().map(text))
            .with_member_epoch(member.current.epoch)
            .with_client_id(text(&profile.client_id))
            .with_client_host(text(&profile.client_host))
            .with_subscribed_topic_names(topics.collect())
            .with_subscribed_topic_regex(profile.regex.as_deref().map(text))
            .with_assignment(named(&member.current.assigned))
            .with_target_assignment(named(&group.target(member_id)));
        if call.version >= MEMBER_TYPE_FROM {
            described.member_type = if member.is_classic() { CLASSIC } else { CONSUMER };
        }
        members.push(described);
    }
    *size_bytes += 512 * members.len();
    DescribedGroup::default()
        .with_group_state(StrBytes::from_static_str(group.state().name()))
        .with_group_epoch(group.epoch)
        .with_assignment_epoch(group.target_epoch)
        .with_assignor_name(StrBytes::from_static_str(group.assignor(default).name()))
        .with_members(members)
}
