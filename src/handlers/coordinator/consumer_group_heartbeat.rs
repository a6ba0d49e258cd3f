//! ConsumerGroupHeartbeat: joining, going on and leaving in the consumer protocol (KIP-848).

use kafka_protocol::messages::consumer_group_heartbeat_response::{Assignment, TopicPartitions};
use kafka_protocol::messages::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};
use kafka_protocol::protocol::StrBytes;

use super::join_group::text;
use crate::coordinator::consumer_group::assignment_of;
use crate::coordinator::consumer_group::event::{Heartbeat, HeartbeatRequest};
use crate::coordinator::consumer_group::groups::{Taken, check_heartbeat};
use crate::coordinator::group::event::GroupError;
use crate::handlers::broker::Broker;
use crate::handlers::call::Call;
use crate::handlers::errors;
use crate::io::Io;
use crate::model::id::TopicId;
use crate::protocol::error::ErrorCode;

/// From this version on the member makes its id itself.
const OWN_ID_FROM: i16 = 1;

impl<I: Io> Broker<I> {
    /// Takes a ConsumerGroupHeartbeat in; the answer comes now or when what it has changed is durable.
    pub(in crate::handlers) fn consumer_group_heartbeat(
        &mut self,
        call: Call,
        request: &ConsumerGroupHeartbeatRequest,
        client_id: &str,
    ) {
        let peer = self.connections.find(call.ticket.connection).map(|connection| connection.peer().ip());
        let client_host = peer.map(|ip| format!("/{ip}")).unwrap_or_default();
        let owned = request.topic_partitions.as_ref();
        let owned = owned.map(|owned| assignment_of(owned.iter().map(|t| (TopicId(t.topic_id), t.partitions.clone()))));
        let heartbeat = HeartbeatRequest {
            group_id: &request.group_id,
            member_id: &request.member_id,
            member_epoch: request.member_epoch,
            instance_id: request.instance_id.as_deref(),
            rack_id: request.rack_id.as_deref(),
            rebalance_timeout_ms: request.rebalance_timeout_ms,
            client_id,
            client_host: &client_host,
            topics: request.subscribed_topic_names.as_ref().map(|names| names.iter().map(|name| &***name).collect()),
            regex: request.subscribed_topic_regex.as_deref(),
            assignor: request.server_assignor.as_deref(),
            owned,
            requires_member_id: call.version >= OWN_ID_FROM,
        };
        let settings = self.consumer_settings();
        if let Err(error) = check_heartbeat(&heartbeat, &settings) {
            return self.refuse_consumer_heartbeat(call, errors::of_group(&error), &error.to_string());
        }
        let index = match self.check_consumer_protocol().and_then(|()| self.coordinator_of_group(&request.group_id)) {
            Ok(index) => index,
            Err(error) => return self.refuse_consumer_heartbeat(call, error, error.name()),
        };
        let hosted = self.coordinator.hosted(index).expect("it is active");
        let classic = match hosted.groups.has_group(&request.group_id) && request.member_epoch == 0 {
            false => None,
            true => match hosted.groups.migrant(&request.group_id) {
                Ok(migrant) => Some(migrant),
                Err(error) => {
                    return self.refuse_consumer_heartbeat(call, errors::of_group(&error), &error.to_string());
                }
            },
        };
        let has_classic = classic.is_some();
        let room = self.room_for_groups();
        let taken = self
            .with_consumer_groups(index, |groups, context| groups.heartbeat(call, &heartbeat, classic, room, context));
        if has_classic && taken == Some(Taken::Over) {
            self.with_groups(index, |groups, context| groups.emigrate(&request.group_id, context));
        }
    }

    /// Answers a ConsumerGroupHeartbeat.
    pub(super) fn answer_consumer_heartbeat(&mut self, call: Call, answer: Result<Heartbeat, GroupError>) {
        let heartbeat = match answer {
            Ok(heartbeat) => heartbeat,
            Err(error) => {
                return self.refuse_consumer_heartbeat(call, errors::of_group(&error), &error.to_string());
            }
        };
        let assignment = heartbeat.assignment.map(|assignment| {
            let topics = assignment.iter().map(|(topic, partitions)| {
                TopicPartitions::default().with_topic_id(topic.0).with_partitions(partitions.clone())
            });
            Assignment::default().with_topic_partitions(topics.collect())
        });
        let response = ConsumerGroupHeartbeatResponse::default()
            .with_member_id(Some(text(&heartbeat.member_id)))
            .with_member_epoch(heartbeat.member_epoch)
            .with_heartbeat_interval_ms(i32::try_from(heartbeat.interval.as_millis()).unwrap_or(i32::MAX))
            .with_assignment(assignment);
        self.reply(call, &response);
    }

    fn refuse_consumer_heartbeat(&mut self, call: Call, error: ErrorCode, message: &str) {
        let response = ConsumerGroupHeartbeatResponse::default()
            .with_error_code(error.code())
            .with_error_message(Some(StrBytes::from_string(message.to_owned())));
        self.reply(call, &response);
    }
}
