//! Heartbeat: a member is alive.

use kafka_protocol::messages::{HeartbeatRequest, HeartbeatResponse};

use crate::handlers::broker::Broker;
use crate::handlers::call::Call;
use crate::handlers::errors;
use crate::io::Io;
use crate::protocol::error::ErrorCode;

impl<I: Io> Broker<I> {
    /// Answers a Heartbeat.
    pub(in crate::handlers) fn heartbeat(&mut self, call: Call, request: &HeartbeatRequest) {
        let error = match self.coordinator_of_group(&request.group_id) {
            Ok(index) if self.is_consumer_group(index, &request.group_id) => {
                let (group_id, instance_id) = (&request.group_id, request.group_instance_id.as_deref());
                let (member_id, generation) = (&request.member_id, request.generation_id);
                let answer = self.with_consumer_groups(index, |groups, context| {
                    groups.heartbeat_classic(group_id, member_id, instance_id, generation, context)
                });
                match answer.expect("it is active") {
                    Ok(()) => ErrorCode::None,
                    Err(error) => errors::of_group(&error),
                }
            }
            Ok(index) => {
                let now = self.now.monotonic;
                let hosted = self.coordinator.partitions.get_mut(&index).expect("it is active");
                let instance_id = request.group_instance_id.as_deref();
                let group_id = &request.group_id;
                match hosted.groups.heartbeat(group_id, &request.member_id, instance_id, request.generation_id, now) {
                    Ok(()) => ErrorCode::None,
                    Err(error) => errors::of_group(&error),
                }
            }
            // What the group is nobody knows yet; when it does, sessions begin anew.
            Err(ErrorCode::CoordinatorLoadInProgress) => ErrorCode::None,
            Err(error) => error,
        };
        self.reply(call, &HeartbeatResponse::default().with_error_code(error.code()));
    }
}
