//! SyncGroup: a member's assignment, once the leader's is durable.

use bytes::Bytes;
use kafka_protocol::messages::{SyncGroupRequest, SyncGroupResponse};

use super::join_group::text;
use crate::coordinator::group::event::{GroupError, SyncRequest, Synced};
use crate::handlers::broker::Broker;
use crate::handlers::call::Call;
use crate::handlers::errors;
use crate::io::Io;
use crate::protocol::error::ErrorCode;

/// From this version on type and name of the protocol are given and told.
const PROTOCOL_FROM: i16 = 5;

impl<I: Io> Broker<I> {
    /// Takes a SyncGroup in; the answer comes when the assignment is durable.
    pub(in crate::handlers) fn sync_group(&mut self, call: Call, request: &SyncGroupRequest) {
        let index = match self.coordinator_of_group(&request.group_id) {
            Ok(index) => index,
            Err(error) => return self.refuse_sync(call, error),
        };
        // A slice would keep the whole request in memory.
        let assignments = request.assignments.iter();
        let assignments =
            assignments.map(|given| (&*given.member_id, Bytes::copy_from_slice(&given.assignment))).collect();
        let request = SyncRequest {
            group_id: &request.group_id,
            member_id: &request.member_id,
            group_instance_id: request.group_instance_id.as_deref(),
            generation: request.generation_id,
            protocol_type: request.protocol_type.as_deref(),
            protocol: request.protocol_name.as_deref(),
            assignments,
        };
        if self.is_consumer_group(index, request.group_id) {
            self.with_consumer_groups(index, |groups, context| groups.sync(call, &request, context));
        } else {
            self.with_groups(index, |groups, context| groups.sync(call, request, context));
        }
    }

    /// Answers a SyncGroup.
    pub(super) fn answer_sync(&mut self, call: Call, answer: Result<Synced, GroupError>) {
        let synced = match answer {
            Ok(synced) => synced,
            Err(error) => return self.refuse_sync(call, errors::of_group(&error)),
        };
        let mut response = SyncGroupResponse::default().with_assignment(synced.assignment);
        if call.version >= PROTOCOL_FROM {
            response.protocol_type = synced.protocol_type.as_deref().map(text);
            response.protocol_name = synced.protocol.as_deref().map(text);
        }
        self.reply(call, &response);
    }

    fn refuse_sync(&mut self, call: Call, error: ErrorCode) {
        self.reply(call, &SyncGroupResponse::default().with_error_code(error.code()));
    }
}
