//! Members that speak the classic protocol in a group of this one: the broker assigns to them, too.
//!
//! A generation is the member's own epoch. Nobody leads: a member that joins is told its epoch at once, asks for its
//! assignment, and is told by its heartbeat to join again when it is to give something up or can have more.

use std::sync::Arc;

use super::change::Change;
use super::embedded::{self, Subscription};
use super::event::Context;
use super::group::ConsumerGroup;
use super::member::{AWAY_EPOCH, ClassicProfile, Current, Member, MemberState, Profile};
use super::migrate::version_of;
use crate::coordinator::group::event::{GroupError, JoinRequest, Joined, Leaving, SyncRequest, Synced};
use crate::model::limits::GROUP_MEMBER_COUNT_MAX;

/// The protocol type of consumers.
pub const CONSUMER: &str = "consumer";

impl ConsumerGroup {
    /// True if a member with these could join: a consumer with a protocol that all other classic members have.
    pub(super) fn supports(&self, request: &JoinRequest) -> bool {
        let is_common = |name: &str| self.protocol_counts.get(name).copied().unwrap_or(0) == self.classic_count;
        *request.protocol_type == *CONSUMER && request.protocols.iter().any(|offered| is_common(&offered.name))
    }

    /// A classic member joins, or joins again. Nothing is changed if it is refused.
    pub(super) fn join_classic<T>(
        &mut self,
        member_id: &str,
        request: &JoinRequest,
        context: &Context<'_, T>,
        changes: &mut Vec<Change>,
    ) -> Result<Joined, GroupError> {
        let count_max = context.settings.member_count_max.min(GROUP_MEMBER_COUNT_MAX);
        if self.members.len() >= count_max && !self.members.contains_key(member_id) {
            return Err(GroupError::GroupMaxSizeReached);
        }
        if !self.supports(request) {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        let metadata = &request.protocols.first().expect("one of them is supported").metadata;
        let Ok(subscription) = embedded::subscription(metadata, context.topics) else {
            return Err(GroupError::InconsistentGroupProtocol);
        };
        let instance_id = request.group_instance_id.as_deref();
        let replaced = match instance_id {
            None => None,
            Some(instance_id) if request.member_id.is_empty() => {
                self.statics.get(instance_id).filter(|owner| ***owner != *member_id).cloned()
            }
            Some(instance_id) => {
                self.check_member(member_id, Some(instance_id))?;
                None
            }
        };
        let old_id = replaced.as_deref().unwrap_or(member_id);
        let old = self.members.get(old_id).cloned();
        let known = old.as_ref().map(|old| old.profile.clone()).unwrap_or_default();
        let owned = subscription.owned.clone();
        let profile = Arc::new(joined(&known, request, subscription));
        if let Some(replaced) = &replaced {
            self.replace(replaced, member_id, &Some(profile.clone()), changes);
        } else if old.is_none() || *profile != *known {
            changes.push(Change::Member(member_id.into(), Some(profile.clone())));
        }
        let is_new = old.is_none();
        let mut current = old.map(|old| old.current).unwrap_or_default();
        if replaced.is_some() || current.epoch == AWAY_EPOCH {
            current = Current { epoch: 0, previous_epoch: 0, ..current };
        }
        self.put(member_id, Member::new(profile.clone(), current.clone()));
        let has_new_topics = is_new || profile.topics != known.topics || profile.regex != known.regex;
        if self.refresh(has_new_topics, context, changes) || has_new_topics {
            self.bump(changes);
        }
        self.retarget(context, changes);
        let next = self.reconcile(member_id, current, Some(&owned), context, changes)?;
        let deadline = context.now.monotonic + self.members[member_id].rebalance_timeout();
        let member = self.members.get_mut(member_id).expect("it was put in");
        (member.join_deadline, member.sync_deadline) = (None, Some(deadline));
        self.due_by(deadline);
        self.renew(member_id, context.settings, context.now);
        Ok(Joined {
            generation: next.epoch,
            protocol_type: Some(CONSUMER.into()),
            protocol: Some(request.protocols[0].name.clone()),
            leader: "".into(),
            member_id: member_id.into(),
            skip_assignment: false,
            members: Vec::new(),
        })
    }

    /// A classic member asks for its assignment.
    pub(super) fn sync_classic<T>(
        &mut self,
        request: &SyncRequest<'_>,
        context: &Context<'_, T>,
    ) -> Result<Synced, GroupError> {
        let member = self.check_classic(request.member_id, request.group_instance_id, request.generation)?;
        let protocol = member.profile.classic.as_ref().and_then(|classic| classic.protocols.first());
        let protocol = protocol.map(|protocol| protocol.name.clone());
        let is_other_type = request.protocol_type.is_some_and(|asked| asked != CONSUMER);
        if is_other_type || request.protocol.is_some_and(|asked| Some(asked) != protocol.as_deref()) {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        if self.epoch > member.current.epoch && member.current.state != MemberState::UnrevokedPartitions {
            self.await_join(request.member_id, context);
            return Err(GroupError::RebalanceInProgress);
        }
        let version = version_of(&member.profile, context.topics);
        let assignment = embedded::put_assignment(&member.current.assigned, version, context.topics);
        self.members.get_mut(request.member_id).expect("it was checked").sync_deadline = None;
        self.renew(request.member_id, context.settings, context.now);
        Ok(Synced { protocol_type: Some(CONSUMER.into()), protocol, assignment })
    }

    /// A classic member is alive. Says also whether it must join again.
    pub(super) fn heartbeat_classic<T>(
        &mut self,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
        context: &Context<'_, T>,
    ) -> Result<(), GroupError> {
        let member = self.check_classic(member_id, instance_id, generation)?;
        let must_join = member.current.epoch < self.epoch
            || match member.current.state {
                MemberState::UnrevokedPartitions => true,
                MemberState::UnreleasedPartitions => !self.waits_for_others(member_id, member),
                MemberState::Stable | MemberState::Unknown => false,
            };
        self.renew(member_id, context.settings, context.now);
        if must_join {
            self.await_join(member_id, context);
            return Err(GroupError::RebalanceInProgress);
        }
        Ok(())
    }

    /// Classic members leave. What became of each, in order.
    pub(super) fn leave_classic<T>(
        &mut self,
        leaving: &[Leaving<'_>],
        context: &Context<'_, T>,
        changes: &mut Vec<Change>,
    ) -> Vec<Result<(), GroupError>> {
        let results: Vec<_> = leaving.iter().map(|leaving| self.leave_one(leaving, changes)).collect();
        if !changes.is_empty() {
            self.refresh(true, context, changes);
            self.bump(changes);
        }
        results
    }

    fn leave_one(&mut self, leaving: &Leaving<'_>, changes: &mut Vec<Change>) -> Result<(), GroupError> {
        let owner = leaving.group_instance_id.and_then(|instance_id| self.statics.get(instance_id));
        let member_id: Box<str> = match (leaving.member_id, owner) {
            // An operator removes a static member.
            ("", Some(owner)) => owner.clone(),
            (member_id, _) => member_id.into(),
        };
        let member = self.check_member(&member_id, leaving.group_instance_id)?;
        if !member.is_classic() {
            return Err(GroupError::UnknownMemberId);
        }
        self.remove(&member_id, changes);
        Ok(())
    }

    fn check_classic(
        &self,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
    ) -> Result<&Member, GroupError> {
        let member = self.check_member(member_id, instance_id)?;
        if !member.is_classic() {
            return Err(GroupError::UnknownMemberId);
        }
        match member.current.epoch == generation {
            true => Ok(member),
            false => Err(GroupError::IllegalGeneration),
        }
    }

    /// The member is to join again within its rebalance timeout.
    fn await_join<T>(&mut self, member_id: &str, context: &Context<'_, T>) {
        let member = self.members.get_mut(member_id).expect("it was checked");
        let at = context.now.monotonic + member.rebalance_timeout();
        let at = *member.join_deadline.get_or_insert(at);
        self.due_by(at);
    }

    /// True if others have something that the member is to have.
    fn waits_for_others(&self, member_id: &str, member: &Member) -> bool {
        self.target(member_id).iter().any(|(topic, partitions)| {
            let known = member.current.assigned.get(topic).map_or(&[][..], Vec::as_slice);
            let mut missing = partitions.iter().filter(|partition| known.binary_search(partition).is_err());
            missing.any(|partition| !self.is_free(*topic, *partition))
        })
    }
}

/// What a classic member says about itself.
fn joined(known: &Profile, request: &JoinRequest, subscription: Subscription) -> Profile {
    Profile {
        instance_id: request.group_instance_id.clone().or_else(|| known.instance_id.clone()),
        rack_id: subscription.rack_id.or_else(|| known.rack_id.clone()),
        client_id: request.client_id.clone(),
        client_host: request.client_host.clone(),
        topics: subscription.topics,
        regex: None,
        rebalance_timeout_ms: request.rebalance_timeout_ms,
        assignor: known.assignor.clone(),
        classic: Some(ClassicProfile {
            session_timeout_ms: request.session_timeout_ms,
            protocols: request.protocols.clone(),
        }),
    }
}
