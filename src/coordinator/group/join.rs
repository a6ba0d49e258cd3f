//! JoinGroup: who comes, comes back, or comes again.

use std::fmt::Write;

use bytes::Bytes;

use super::classic::{Group, Replacement};
use super::event::{Context, Effect, GroupError, GroupState, JoinRefused, JoinRequest, Protocol};
use super::member::{Member, milliseconds};
use crate::base::rng::Rng;
use crate::model::limits::{
    GROUP_MEMBER_COUNT_MAX, GROUP_PROTOCOL_COUNT_MAX, GROUP_SIZE_BYTES_MAX, NEW_MEMBER_JOIN_MS_MAX,
};

impl<T> Group<T> {
    /// Somebody joins. The answer is among the effects now or later.
    pub(super) fn join(&mut self, ticket: T, mut request: JoinRequest, context: &mut Context<'_, T>) {
        let refuse = |ticket, error, member_id: &str, context: &mut Context<'_, T>| {
            let refused = JoinRefused { error, member_id: member_id.into() };
            context.effects.push(Effect::Join(ticket, Err(refused)));
        };
        let member_id = request.member_id.clone();
        keep_first_of_each_name(&mut request.protocols);
        if self.state == GroupState::Dead {
            return refuse(ticket, GroupError::CoordinatorNotAvailable, &member_id, context);
        }
        if !self.has_room_for(&request, context) {
            // A member that is too many must not come back under its old id.
            let was_there = self.expel(&member_id, context) || self.remove_pending(&member_id);
            refuse(ticket, GroupError::GroupMaxSizeReached, "", context);
            if was_there {
                self.after_removal(context);
            }
            return;
        }
        let too_many = request.protocols.len() > GROUP_PROTOCOL_COUNT_MAX;
        if too_many || !self.supports(&request.protocol_type, &request.protocols) {
            return refuse(ticket, GroupError::InconsistentGroupProtocol, &member_id, context);
        }
        if member_id.is_empty() {
            return self.join_new(ticket, request, context);
        }
        if self.pending.contains_key(&member_id) {
            if request.group_instance_id.is_some() {
                // Ids are given out beforehand to dynamic members only.
                return refuse(ticket, GroupError::UnknownMemberId, &member_id, context);
            }
            return self.add_member(ticket, member_id, request, context);
        }
        if let Err(error) = self.check_member(&member_id, request.group_instance_id.as_deref()) {
            return refuse(ticket, error, &member_id, context);
        }
        self.join_again(ticket, request, context);
    }

    /// True if the group may take the member, or has it. While it prepares a rebalance those that have joined count,
    /// so that a group that is too large loses the last ones.
    fn has_room_for(&self, request: &JoinRequest, context: &Context<'_, T>) -> bool {
        let known = self.members.get(&request.member_id);
        let count_max = context.settings.member_count_max.min(GROUP_MEMBER_COUNT_MAX);
        let has_place = match self.state {
            GroupState::Empty | GroupState::Dead => true,
            GroupState::PreparingRebalance => {
                known.is_some_and(|member| member.joining.is_some()) || self.joining_count < count_max
            }
            GroupState::CompletingRebalance | GroupState::Stable => known.is_some() || self.members.len() < count_max,
        };
        // Metadata that stays the same takes no more.
        let is_same = known.is_some_and(|member| member.protocols == request.protocols);
        has_place && (is_same || self.size_bytes + Group::<T>::growth_bytes(request) <= GROUP_SIZE_BYTES_MAX)
    }

    fn join_new(&mut self, ticket: T, request: JoinRequest, context: &mut Context<'_, T>) {
        let prefix = request.group_instance_id.as_ref().unwrap_or(&request.client_id);
        let member_id = new_member_id(prefix, context.rng);
        let known = request.group_instance_id.as_ref().and_then(|instance_id| self.statics.get(instance_id));
        if let Some(old_member_id) = known.cloned() {
            return self.replace_static(ticket, &old_member_id, member_id, request, context);
        }
        if request.group_instance_id.is_some() || !request.requires_member_id {
            return self.add_member(ticket, member_id, request, context);
        }
        let error = match self.pending.len() < GROUP_MEMBER_COUNT_MAX {
            true => GroupError::MemberIdRequired,
            false => GroupError::CoordinatorNotAvailable,
        };
        if error == GroupError::MemberIdRequired {
            let deadline = context.now.monotonic + milliseconds(request.session_timeout_ms);
            self.add_pending(member_id.clone(), deadline);
        }
        context.effects.push(Effect::Join(ticket, Err(JoinRefused { error, member_id })));
    }

    fn add_member(&mut self, ticket: T, member_id: Box<str>, request: JoinRequest, context: &mut Context<'_, T>) {
        if self.members.is_empty() {
            self.protocol_type = Some(request.protocol_type);
        }
        if self.is_first_rebalance() {
            self.has_new_member = true;
        }
        // It does not know its id or its first join waits: it cannot send heartbeats, and whether it is still there
        // cannot be seen. If it is, it asks again.
        let deadline = context.now.monotonic + milliseconds(NEW_MEMBER_JOIN_MS_MAX);
        let member = Member {
            group_instance_id: request.group_instance_id,
            client_id: request.client_id,
            client_host: request.client_host,
            rebalance_timeout_ms: request.rebalance_timeout_ms,
            session_timeout_ms: request.session_timeout_ms,
            protocols: request.protocols,
            assignment: Bytes::new(),
            joining: Some(ticket),
            syncing: None,
            is_new: true,
            owes_sync: false,
            deadline,
        };
        self.insert_member(member_id, member);
        self.due_by(deadline);
        self.rebalance_or_complete(context);
    }

    /// A member joins that is one already.
    fn join_again(&mut self, ticket: T, request: JoinRequest, context: &mut Context<'_, T>) {
        let member_id = &request.member_id;
        let is_same = self.members[member_id].protocols == request.protocols;
        self.renew(member_id, context.now.monotonic);
        let needs_rebalance = match self.state {
            GroupState::PreparingRebalance => true,
            // The answer may have been lost.
            GroupState::CompletingRebalance => !is_same,
            // What the leader assigns may depend on more than metadata: topics, for example.
            GroupState::Stable => !is_same || self.is_leader(member_id),
            GroupState::Empty | GroupState::Dead => unreachable!("it has a member and was looked at"),
        };
        if !needs_rebalance {
            let joined = self.joined(member_id);
            return context.effects.push(Effect::Join(ticket, Ok(joined)));
        }
        let (rebalance_ms, session_ms) = (request.rebalance_timeout_ms, request.session_timeout_ms);
        self.update_member(member_id, request.protocols, rebalance_ms, session_ms);
        self.await_join(member_id, ticket, context);
        self.rebalance_or_complete(context);
    }

    /// A static member comes back without its id: whoever has it still is fenced.
    fn replace_static(
        &mut self,
        ticket: T,
        old_member_id: &str,
        member_id: Box<str>,
        request: JoinRequest,
        context: &mut Context<'_, T>,
    ) {
        let old_leader = self.leader.clone();
        let (client_id, client_host) = (request.client_id, request.client_host);
        let (mut old_rebalance_timeout_ms, mut old_session_timeout_ms) = (0, 0);
        self.rename_member(old_member_id, &member_id, context, |member| {
            (member.client_id, member.client_host) = (client_id, client_host);
            (old_rebalance_timeout_ms, old_session_timeout_ms) =
                (member.rebalance_timeout_ms, member.session_timeout_ms);
        });
        let (rebalance_ms, session_ms) = (request.rebalance_timeout_ms, request.session_timeout_ms);
        let old_protocols = self.update_member(&member_id, request.protocols, rebalance_ms, session_ms);
        self.renew(&member_id, context.now.monotonic);
        self.await_join(&member_id, ticket, context);
        match self.state {
            GroupState::Stable if self.protocol == self.select_protocol() => {
                let snapshot = self.snapshot(None);
                let number = self.persist(snapshot, context);
                let replacement = Replacement {
                    member_id,
                    old_member_id: old_member_id.into(),
                    old_leader,
                    old_protocols,
                    old_rebalance_timeout_ms,
                    old_session_timeout_ms,
                    can_skip_assignment: request.can_skip_assignment,
                };
                self.replacements.insert(number, replacement);
            }
            // The leader may have been told of the old id: what it assigns would not reach the new one.
            GroupState::Stable | GroupState::CompletingRebalance => self.prepare_rebalance(context),
            GroupState::PreparingRebalance => self.complete_join_if_all(context),
            GroupState::Empty | GroupState::Dead => unreachable!("it has a member and was looked at"),
        }
    }

    /// A member has another id; who waits under the old one is fenced.
    fn rename_member(
        &mut self,
        old_member_id: &str,
        member_id: &str,
        context: &mut Context<'_, T>,
        change: impl FnOnce(&mut Member<T>),
    ) {
        let was_leader = self.is_leader(old_member_id);
        let mut member = self.remove_member(old_member_id).expect("the caller has found it");
        if let Some(ticket) = member.joining.take() {
            let refused = JoinRefused { error: GroupError::FencedInstanceId, member_id: old_member_id.into() };
            context.effects.push(Effect::Join(ticket, Err(refused)));
        }
        if let Some(ticket) = member.syncing.take() {
            context.effects.push(Effect::Sync(ticket, Err(GroupError::FencedInstanceId)));
        }
        member.is_new = false;
        change(&mut member);
        self.insert_member(member_id.into(), member);
        if was_leader {
            self.leader = Some(member_id.into());
        }
    }

    /// The write of a replaced static member has come out.
    pub(super) fn replaced(&mut self, number: u64, result: Result<(), GroupError>, context: &mut Context<'_, T>) {
        // A rebalance that has begun since then answers the member itself.
        let Some(replacement) = self.replacements.remove(&number) else { return };
        let member_id = &replacement.member_id;
        let Some(ticket) = self.take_join(member_id) else { return };
        self.renew(member_id, context.now.monotonic);
        let Err(error) = result else {
            let mut joined = self.joined(member_id);
            if replacement.can_skip_assignment {
                joined.skip_assignment = self.is_leader(member_id);
            } else {
                // Told the old leader's id, the member does not take itself for the leader and does not assign.
                joined.leader = replacement.old_leader.unwrap_or_default();
                joined.members = Vec::new();
            }
            return context.effects.push(Effect::Join(ticket, Ok(joined)));
        };
        self.update_member(
            member_id,
            replacement.old_protocols,
            replacement.old_rebalance_timeout_ms,
            replacement.old_session_timeout_ms,
        );
        self.rename_member(member_id, &replacement.old_member_id, context, |_| {});
        self.renew(&replacement.old_member_id, context.now.monotonic);
        context.effects.push(Effect::Join(ticket, Err(JoinRefused { error, member_id: "".into() })));
    }
}

/// Of protocols with equal names the first counts. More than a member may have are refused as they are.
fn keep_first_of_each_name(protocols: &mut Vec<Protocol>) {
    let mut index = 0;
    while protocols.len() <= GROUP_PROTOCOL_COUNT_MAX && index < protocols.len() {
        match protocols[..index].iter().any(|known| known.name == protocols[index].name) {
            true => drop(protocols.remove(index)),
            false => index += 1,
        }
    }
}

/// A member's id as Kafka makes it: what the client calls itself, or its instance id, and a random UUID.
fn new_member_id(prefix: &str, rng: &mut Rng) -> Box<str> {
    let mut bytes = [0; 16];
    rng.fill(&mut bytes);
    let id = uuid::Builder::from_random_bytes(bytes).into_uuid();
    let mut member_id = String::with_capacity(prefix.len() + 37);
    write!(member_id, "{prefix}-{id}").expect("a string takes it");
    member_id.into()
}
