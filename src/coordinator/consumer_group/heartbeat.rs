//! ConsumerGroupHeartbeat: a member joins, goes on, says what has changed, or leaves.

use std::sync::Arc;

use super::change::Change;
use super::event::{Context, Heartbeat, HeartbeatRequest, Settings};
use super::group::ConsumerGroup;
use super::is_subset;
use super::member::{AWAY_EPOCH, Current, Member, MemberState, Profile};
use super::{Assignment, assignor::Assignor, pattern, reconcile};
use crate::base::mutant;
use crate::coordinator::group::event::GroupError;
use crate::model::limits::{GROUP_MEMBER_COUNT_MAX, GROUP_TEXT_SIZE_BYTES_MAX};

/// The member epoch that joins; below it are those that leave.
const JOIN: i32 = 0;

/// Fails if a heartbeat is wrong whatever the group is.
pub fn check_heartbeat(request: &HeartbeatRequest<'_>, settings: &Settings) -> Result<(), GroupError> {
    let is_blank = |text: &str| text.trim().is_empty();
    let is_joining = request.member_epoch == JOIN;
    if is_blank(request.group_id) || (is_blank(request.member_id) && (request.requires_member_id || !is_joining)) {
        return Err(GroupError::InvalidRequest);
    }
    if request.instance_id.is_some_and(is_blank) || request.rack_id.is_some_and(is_blank) {
        return Err(GroupError::InvalidRequest);
    }
    if is_joining {
        let has_subscription = request.topics.is_some() || request.regex.is_some();
        let has_nothing = request.owned.as_ref().is_some_and(Assignment::is_empty);
        if request.rebalance_timeout_ms == -1 || !has_nothing || !has_subscription {
            return Err(GroupError::InvalidRequest);
        }
    } else if request.member_epoch < AWAY_EPOCH || (request.member_epoch == AWAY_EPOCH && request.instance_id.is_none())
    {
        return Err(GroupError::InvalidRequest);
    }
    let texts = [Some(request.group_id), Some(request.member_id), request.instance_id, request.rack_id, request.regex];
    let mut texts =
        texts.into_iter().flatten().chain([request.client_id]).chain(request.topics.iter().flatten().copied());
    if texts.any(|text| text.len() > GROUP_TEXT_SIZE_BYTES_MAX) {
        return Err(GroupError::InvalidRequest);
    }
    match request.assignor {
        Some(name) if Assignor::find(name).is_none_or(|assignor| !settings.assignors.contains(&assignor)) => {
            Err(GroupError::UnsupportedAssignor)
        }
        _ => Ok(()),
    }
}

/// What became of a group that a member has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It goes on without the member.
    GoesOn,
    /// All others speak the classic protocol: it is to become a classic group. Nothing was changed yet.
    Downgrades,
}

impl ConsumerGroup {
    /// A member joins or goes on. Nothing is changed if it is refused.
    pub(super) fn heartbeat<T>(
        &mut self,
        member_id: &str,
        request: &HeartbeatRequest<'_>,
        context: &Context<'_, T>,
        changes: &mut Vec<Change>,
    ) -> Result<Heartbeat, GroupError> {
        let before = self.find(member_id, request, context.settings)?;
        if let Some(regex) = request.regex.filter(|regex| !regex.is_empty())
            && !self.regexes.contains_key(regex)
        {
            pattern::compile(regex)?;
        }
        let replaced = before.as_ref().and_then(|before| before.replaced.clone());
        let old = before.map(|before| before.member);
        let known = old.as_ref().map(|old| old.profile.clone()).unwrap_or_default();
        let profile = updated(&known, request);
        let is_rejoining = request.member_epoch == JOIN && old.is_some();

        if let Some(replaced) = &replaced {
            self.replace(replaced, member_id, &profile, changes);
        }
        let is_new = old.is_none();
        let mut current = old.map(|old| old.current).unwrap_or_default();
        if is_rejoining {
            // It has nothing any more; a static one is given again what it had.
            current = match replaced {
                Some(_) => Current { epoch: 0, previous_epoch: 0, ..current },
                None => Current { epoch: 0, previous_epoch: 0, ..Current::default() },
            };
        }
        let is_changed = profile.as_ref().is_some_and(|profile| **profile != *known);
        if is_changed || is_new || is_rejoining {
            let profile = profile.clone().unwrap_or_else(|| known.clone());
            if is_changed || is_new {
                changes.push(Change::Member(member_id.into(), Some(profile.clone())));
            }
            let mut member = Member::new(profile, current.clone());
            if let Some(old) = self.members.get(member_id).filter(|_| !is_rejoining) {
                member.rebalance_deadline = old.rebalance_deadline;
            }
            self.put(member_id, member);
        }
        let profile = profile.unwrap_or(known.clone());
        let has_new_topics = is_new || profile.topics != known.topics || profile.regex != known.regex;
        self.renew(member_id, context.settings, context.now);

        if self.refresh(has_new_topics, context, changes) || has_new_topics {
            self.bump(changes);
        }
        self.retarget(context, changes);
        let next = self.reconcile(member_id, current.clone(), request.owned.as_ref(), context, changes)?;
        let is_full = request.member_epoch == JOIN
            || (request.rebalance_timeout_ms != -1
                && (request.topics.is_some() || request.regex.is_some())
                && request.owned.is_some());
        let assignment = (is_full || next.assigned != current.assigned).then(|| next.assigned.clone());
        let interval = context.settings.timeouts(&self.id).heartbeat_interval;
        Ok(Heartbeat { member_id: member_id.into(), member_epoch: next.epoch, assignment, interval })
    }

    /// The member that a heartbeat is of, if it is one already, and its epoch fits.
    fn find(
        &self,
        member_id: &str,
        request: &HeartbeatRequest<'_>,
        settings: &Settings,
    ) -> Result<Option<Found>, GroupError> {
        let count_max = settings.member_count_max.min(GROUP_MEMBER_COUNT_MAX);
        if self.members.len() >= count_max && !self.members.contains_key(member_id) {
            return Err(GroupError::GroupMaxSizeReached);
        }
        let is_joining = request.member_epoch == JOIN;
        let known = match request.instance_id {
            None => self.members.get_key_value(member_id),
            Some(instance_id) => {
                let owner = self.statics.get(instance_id);
                owner.and_then(|owner| self.members.get_key_value(owner))
            }
        };
        let Some((known_id, member)) = known else {
            return if is_joining { Ok(None) } else { Err(GroupError::UnknownMemberId) };
        };
        let found = Found { member: member.clone(), replaced: None };
        if **known_id != *member_id {
            if !is_joining {
                return Err(GroupError::FencedInstanceId);
            }
            if !member.is_classic() && member.current.epoch != AWAY_EPOCH {
                return Err(GroupError::UnreleasedInstanceId);
            }
            return Ok(Some(Found { replaced: Some(known_id.clone()), ..found }));
        }
        if is_joining {
            // It was told that it is fenced, or it has lost its memory: it has given everything up.
            return Ok(Some(found));
        }
        let current = &member.current;
        let is_retry = || {
            let has_some_of = |owned: &Assignment| is_subset(owned, &current.assigned);
            request.member_epoch == current.previous_epoch && request.owned.as_ref().is_some_and(has_some_of)
        };
        if mutant::is_on("take_old_epochs") {
            return Ok(Some(found));
        }
        match request.member_epoch == current.epoch || (request.member_epoch < current.epoch && is_retry()) {
            true => Ok(Some(found)),
            false => Err(GroupError::FencedMemberEpoch),
        }
    }

    /// A static member is back under another id: it has the place, the target and the partitions of the old one.
    pub(super) fn replace(
        &mut self,
        old_id: &str,
        member_id: &str,
        profile: &Option<Arc<Profile>>,
        changes: &mut Vec<Change>,
    ) {
        let target = self.target(old_id);
        let old = self.remove(old_id, changes).expect("it was found");
        let current = Current { epoch: 0, previous_epoch: 0, ..old.current };
        let profile = profile.clone().unwrap_or(old.profile);
        changes.push(Change::Member(member_id.into(), Some(profile.clone())));
        changes.push(Change::Target(member_id.into(), Some(target.clone())));
        changes.push(Change::Current(member_id.into(), Some(current.clone())));
        self.set_target(member_id, target);
        self.put(member_id, Member::new(profile, current));
    }

    /// Leads a member to its target as far as that goes now.
    pub(super) fn reconcile<T>(
        &mut self,
        member_id: &str,
        current: Current,
        owned: Option<&Assignment>,
        context: &Context<'_, T>,
        changes: &mut Vec<Change>,
    ) -> Result<Current, GroupError> {
        if current.is_reconciled_to(self.target_epoch) {
            return Ok(current);
        }
        let target = self.target(member_id);
        let is_free = |topic, partition| self.is_free(topic, partition);
        let next = reconcile::step(&current, self.target_epoch, &target, owned, is_free)?;
        if next == current {
            return Ok(current);
        }
        changes.push(Change::Current(member_id.into(), Some(next.clone())));
        let mut member = self.take(member_id).expect("it was put in");
        member.current = next.clone();
        let is_revoking = next.state == MemberState::UnrevokedPartitions && !member.is_classic();
        member.rebalance_deadline = is_revoking.then(|| context.now.monotonic + member.rebalance_timeout());
        let deadline = member.next_deadline();
        self.put(member_id, member);
        self.due_by(deadline);
        Ok(next)
    }

    /// A member leaves, for good or, a static one, for a while.
    pub(super) fn leave<T>(
        &mut self,
        request: &HeartbeatRequest<'_>,
        context: &Context<'_, T>,
        changes: &mut Vec<Change>,
    ) -> Result<Fate, GroupError> {
        let member = self.check_member(request.member_id, request.instance_id)?;
        if request.member_epoch != AWAY_EPOCH {
            tracing::info!(group = %self.id, member = request.member_id, "has left");
            return Ok(self.fence(request.member_id, context, changes));
        }
        let mut member = member.clone();
        member.current.previous_epoch = member.current.epoch;
        member.current.epoch = AWAY_EPOCH;
        member.current.revoking = Arc::default();
        member.rebalance_deadline = None;
        changes.push(Change::Current(request.member_id.into(), Some(member.current.clone())));
        self.put(request.member_id, member);
        Ok(Fate::GoesOn)
    }

    /// A member is gone.
    pub(super) fn fence<T>(&mut self, member_id: &str, context: &Context<'_, T>, changes: &mut Vec<Change>) -> Fate {
        if self.downgrades_without(member_id, context.settings) {
            return Fate::Downgrades;
        }
        if self.remove(member_id, changes).is_some() {
            self.refresh(true, context, changes);
            self.bump(changes);
        }
        Fate::GoesOn
    }
}

/// The member that a heartbeat is of.
struct Found {
    member: Member,
    /// The id of the static member whose place it takes.
    replaced: Option<Box<str>>,
}

/// What a member says about itself from now on; `None` if it said nothing.
fn updated(known: &Profile, request: &HeartbeatRequest<'_>) -> Option<Arc<Profile>> {
    let is_same_client = *known.client_id == *request.client_id && *known.client_host == *request.client_host;
    let says_nothing = request.rebalance_timeout_ms == -1
        && request.instance_id.is_none_or(|instance_id| known.instance_id.as_deref() == Some(instance_id))
        && [request.rack_id, request.regex, request.assignor].iter().all(Option::is_none)
        && request.topics.is_none();
    if is_same_client && says_nothing && known.classic.is_none() {
        return None;
    }
    let or_known = |said: Option<&str>, known: &Option<Box<str>>| said.map(Into::into).or_else(|| known.clone());
    let topics = match &request.topics {
        None => known.topics.clone(),
        Some(topics) => {
            let mut topics: Vec<Box<str>> = topics.iter().map(|topic| (*topic).into()).collect();
            topics.sort_unstable();
            topics.dedup();
            topics
        }
    };
    Some(Arc::new(Profile {
        instance_id: or_known(request.instance_id, &known.instance_id),
        rack_id: or_known(request.rack_id, &known.rack_id),
        client_id: request.client_id.into(),
        client_host: request.client_host.into(),
        topics,
        regex: or_known(request.regex, &known.regex).filter(|regex| !regex.is_empty()),
        rebalance_timeout_ms: match request.rebalance_timeout_ms {
            -1 => known.rebalance_timeout_ms,
            timeout_ms => timeout_ms,
        },
        assignor: or_known(request.assignor, &known.assignor),
        classic: None,
    }))
}
