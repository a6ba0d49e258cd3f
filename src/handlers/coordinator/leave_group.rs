//! LeaveGroup: members go, or are removed by an operator.

use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::{LeaveGroupRequest, LeaveGroupResponse};

use crate::coordinator::group::event::Leaving;
use crate::handlers::broker::Broker;
use crate::handlers::call::Call;
use crate::handlers::errors;
use crate::io::Io;
use crate::protocol::error::ErrorCode;

/// From this version on several members leave at once and each is answered.
const BATCHED_FROM: i16 = 3;

impl<I: Io> Broker<I> {
    /// Answers a LeaveGroup.
    pub(in crate::handlers) fn leave_group(&mut self, call: Call, request: &LeaveGroupRequest) {
        let leaving: Vec<Leaving<'_>> = match call.version {
            ..BATCHED_FROM => vec![Leaving { member_id: &request.member_id, group_instance_id: None }],
            _ => request
                .members
                .iter()
                .map(|member| Leaving {
                    member_id: &member.member_id,
                    group_instance_id: member.group_instance_id.as_deref(),
                })
                .collect(),
        };
        let left = self.coordinator_of_group(&request.group_id).and_then(|index| {
            let left = match self.is_consumer_group(index, &request.group_id) {
                true => self
                    .with_consumer_groups(index, |groups, context| groups.leave(&request.group_id, &leaving, context)),
                false => self.with_groups(index, |groups, context| groups.leave(&request.group_id, &leaving, context)),
            };
            left.expect("it is active").map_err(|error| errors::of_group(&error))
        });
        let code = |result: &Result<(), _>| result.as_ref().map_or_else(errors::of_group, |()| ErrorCode::None);
        let response = match left {
            Err(error) => LeaveGroupResponse::default().with_error_code(error.code()),
            Ok(results) if call.version < BATCHED_FROM => {
                LeaveGroupResponse::default().with_error_code(code(&results[0]).code())
            }
            Ok(results) => {
                let members = request.members.iter().zip(&results).map(|(member, result)| {
                    MemberResponse::default()
                        .with_member_id(member.member_id.clone())
                        .with_group_instance_id(member.group_instance_id.clone())
                        .with_error_code(code(result).code())
                });
                LeaveGroupResponse::default().with_members(members.collect())
            }
        };
        self.reply(call, &response);
    }
}
