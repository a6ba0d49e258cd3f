//! How a group comes to its next generation, and what runs out meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::classic::{Group, JoinTimer, earlier};
use super::event::{Context, Effect, GroupError, GroupState, Joined};
use super::member::Member;
use crate::base::mutant;
use crate::base::time::Monotonic;

/// A rebalance that nobody has joined is looked at no more often, whatever timeout its members asked for.
const POSTPONED_MIN: Duration = Duration::from_secs(1);

impl<T> Group<T> {
    /// The members have changed: they all join again, or, if they do that already, it may be complete.
    pub(super) fn rebalance_or_complete(&mut self, context: &mut Context<'_, T>) {
        match self.state {
            GroupState::PreparingRebalance => self.complete_join_if_all(context),
            GroupState::Empty | GroupState::CompletingRebalance | GroupState::Stable => self.prepare_rebalance(context),
            GroupState::Dead => {}
        }
    }

    /// Somebody has left or is gone.
    pub(super) fn after_removal(&mut self, context: &mut Context<'_, T>) {
        match self.state {
            GroupState::PreparingRebalance => self.complete_join_if_all(context),
            GroupState::CompletingRebalance | GroupState::Stable => self.prepare_rebalance(context),
            // Nobody was a member.
            GroupState::Empty | GroupState::Dead => {}
        }
    }

    /// Every member is to join again.
    pub(super) fn prepare_rebalance(&mut self, context: &mut Context<'_, T>) {
        if self.state == GroupState::CompletingRebalance {
            self.refuse_syncs(GroupError::RebalanceInProgress, context);
        }
        self.clear_unsynced();
        // What is being written is of a generation that ends now.
        self.assignment_write = None;
        self.replacements.clear();
        let is_first = self.state == GroupState::Empty;
        self.enter(GroupState::PreparingRebalance, context.now);
        if is_first {
            // More members will come: wait for them.
            let delay = context.settings.initial_rebalance_delay;
            let left = self.rebalance_timeout().saturating_sub(delay);
            self.has_new_member = false;
            self.set_join_timer(JoinTimer { at: context.now.monotonic + delay, extension: Some((delay, left)) });
        } else if self.has_everybody_joined() {
            self.complete_join(context);
        } else {
            let at = context.now.monotonic + self.rebalance_timeout();
            self.set_join_timer(JoinTimer { at, extension: None });
        }
    }

    /// Those who wait for their assignment are refused; nobody has one.
    pub(super) fn refuse_syncs(&mut self, error: GroupError, context: &mut Context<'_, T>) {
        for member in self.members.values_mut() {
            self.size_bytes -= std::mem::take(&mut member.assignment).len();
            if let Some(ticket) = member.syncing.take() {
                let deadline = member.renew(context.now.monotonic);
                self.earliest = earlier(self.earliest, deadline);
                context.effects.push(Effect::Sync(ticket, Err(error)));
            }
        }
    }

    fn clear_unsynced(&mut self) {
        self.sync_deadline = None;
        if self.unsynced_count > 0 {
            self.members.values_mut().for_each(|member| member.owes_sync = false);
            self.unsynced_count = 0;
        }
    }

    fn set_join_timer(&mut self, timer: JoinTimer) {
        self.join_timer = Some(timer);
        self.due_by(timer.at);
    }

    /// True while an empty group waits for its first members.
    pub(super) fn is_first_rebalance(&self) -> bool {
        self.state == GroupState::PreparingRebalance && self.join_timer.is_some_and(|timer| timer.extension.is_some())
    }

    fn has_everybody_joined(&self) -> bool {
        self.joining_count == self.members.len() && self.pending.is_empty()
    }

    /// Completes the joining unless somebody is missing, or may still come to an empty group.
    pub(super) fn complete_join_if_all(&mut self, context: &mut Context<'_, T>) {
        let is_preparing = self.state == GroupState::PreparingRebalance;
        if is_preparing && !self.is_first_rebalance() && self.has_everybody_joined() {
            self.complete_join(context);
        }
    }

    /// Who has joined is the next generation. Static members stay without joining, until their session ends.
    fn complete_join(&mut self, context: &mut Context<'_, T>) {
        self.join_timer = None;
        let is_missing = |member: &Member<T>| member.joining.is_none();
        let missing = self.members.iter().filter(|(_, member)| is_missing(member));
        let missing = missing.filter(|(_, member)| member.group_instance_id.is_none());
        let missing: Vec<Box<str>> = missing.map(|(member_id, _)| member_id.clone()).collect();
        for member_id in missing {
            tracing::info!(group = %self.id, member = %member_id, "has not joined the rebalance in time");
            self.expel(&member_id, context);
        }
        if self.members.is_empty() {
            return self.become_empty(context);
        }
        if !self.elect_joined_leader() {
            // Only static members are left and none has come: they may until their sessions end.
            let at = context.now.monotonic + self.rebalance_timeout().max(POSTPONED_MIN);
            return self.set_join_timer(JoinTimer { at, extension: None });
        }
        if self.generation < 1 || !mutant::is_on("keep_generation") {
            self.generation = next_generation(self.generation);
        }
        self.protocol = self.select_protocol();
        self.enter(GroupState::CompletingRebalance, context.now);
        self.answer_joins(context);
        let deadline = context.now.monotonic + self.rebalance_timeout();
        self.sync_deadline = Some(deadline);
        self.due_by(deadline);
        tracing::info!(group = %self.id, generation = self.generation, members = self.members.len(), "rebalanced");
    }

    fn become_empty(&mut self, context: &mut Context<'_, T>) {
        self.generation = next_generation(self.generation);
        self.protocol = None;
        self.clear_unsynced();
        self.enter(GroupState::Empty, context.now);
        tracing::info!(group = %self.id, generation = self.generation, "is empty");
        let snapshot = self.snapshot(None);
        self.persist(snapshot, context);
    }

    /// The leader, if it has joined, else another member that has. False if nobody has.
    fn elect_joined_leader(&mut self) -> bool {
        let has_joined = |member_id: &str| self.members[member_id].joining.is_some();
        if self.leader.as_deref().is_some_and(has_joined) {
            return true;
        }
        let Some(leader) = self.members.keys().find(|member_id| has_joined(member_id)).cloned() else { return false };
        self.leader = Some(leader);
        true
    }

    fn answer_joins(&mut self, context: &mut Context<'_, T>) {
        let leader = self.leader.clone().expect("a leader was elected");
        let to_leader = self.joined(&leader);
        let to_others = Joined { members: Vec::new(), ..to_leader.clone() };
        let mut to_leader = Some(to_leader);
        for (member_id, member) in &mut self.members {
            let deadline = member.renew(context.now.monotonic);
            self.earliest = earlier(self.earliest, deadline);
            member.is_new = false;
            member.owes_sync = true;
            let Some(ticket) = member.joining.take() else { continue };
            let joined = match **member_id == *leader {
                true => to_leader.take().expect("there is one leader"),
                false => Joined { member_id: member_id.clone(), ..to_others.clone() },
            };
            context.effects.push(Effect::Join(ticket, Ok(joined)));
        }
        self.joining_count = 0;
        self.unsynced_count = self.members.len();
    }

    /// The protocol that most members like best of those that all have; of equals the first by name.
    pub(super) fn select_protocol(&self) -> Option<Box<str>> {
        let count = self.members.len();
        let is_candidate = |name: &str| self.supported.get(name) == Some(&count);
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            if let Some(liked) = member.protocols.iter().find(|protocol| is_candidate(&protocol.name)) {
                *votes.entry(&liked.name).or_default() += 1;
            }
        }
        let most = votes.values().max()?;
        votes.iter().find(|(_, count)| *count == most).map(|(name, _)| (*name).into())
    }

    /// An assignment that is durable is given out.
    pub(super) fn give_out(&mut self, mut assignments: BTreeMap<Box<str>, Bytes>, context: &mut Context<'_, T>) {
        self.enter(GroupState::Stable, context.now);
        let mut waiting = Vec::new();
        for (member_id, member) in &mut self.members {
            let assignment = assignments.remove(member_id).unwrap_or_default();
            self.size_bytes += assignment.len();
            self.size_bytes -= std::mem::replace(&mut member.assignment, assignment.clone()).len();
            if let Some(ticket) = member.syncing.take() {
                let deadline = member.renew(context.now.monotonic);
                self.earliest = earlier(self.earliest, deadline);
                waiting.push((ticket, assignment));
            }
        }
        for (ticket, assignment) in waiting {
            let synced = self.synced(assignment);
            context.effects.push(Effect::Sync(ticket, Ok(synced)));
        }
    }

    /// Does what is due: sessions, ids that nobody used, the ends of waiting.
    pub(super) fn tick(&mut self, context: &mut Context<'_, T>) {
        let now = context.now.monotonic;
        self.expire_pending(now, context);
        self.expire_members(now, context);
        if self.sync_deadline.is_some_and(|at| at <= now) {
            self.expire_syncs(context);
        }
        if let Some(timer) = self.join_timer.filter(|timer| timer.at <= now) {
            match timer.extension {
                Some((delayed, left)) if self.has_new_member && !left.is_zero() => {
                    self.has_new_member = false;
                    let delay = context.settings.initial_rebalance_delay.min(left);
                    let left = left.saturating_sub(delayed);
                    self.set_join_timer(JoinTimer { at: now + delay, extension: Some((delay, left)) });
                }
                _ => self.complete_join(context),
            }
        }
    }

    fn expire_pending(&mut self, now: Monotonic, context: &mut Context<'_, T>) {
        let expired = self.pending.iter().filter(|(_, deadline)| **deadline <= now);
        let expired: Vec<Box<str>> = expired.map(|(member_id, _)| member_id.clone()).collect();
        if expired.is_empty() {
            return;
        }
        for member_id in expired {
            self.remove_pending(&member_id);
        }
        self.complete_join_if_all(context);
    }

    fn expire_members(&mut self, now: Monotonic, context: &mut Context<'_, T>) {
        let mut expired = Vec::new();
        for (member_id, member) in &mut self.members {
            if member.deadline <= now {
                match member.is_alive_by_waiting() {
                    true => _ = member.renew(now),
                    false => expired.push(member_id.clone()),
                }
            }
        }
        if expired.is_empty() {
            return;
        }
        for member_id in expired {
            tracing::info!(group = %self.id, member = %member_id, "is gone: its session timeout has passed");
            self.expel(&member_id, context);
        }
        self.after_removal(context);
    }

    /// Members that have joined and not asked for their assignment in time are gone.
    fn expire_syncs(&mut self, context: &mut Context<'_, T>) {
        self.sync_deadline = None;
        let unsynced = self.members.iter().filter(|(_, member)| member.owes_sync);
        let unsynced: Vec<Box<str>> = unsynced.map(|(member_id, _)| member_id.clone()).collect();
        for member_id in &unsynced {
            tracing::info!(group = %self.id, member = %member_id, "has not asked for its assignment in time");
            self.expel(member_id, context);
        }
        if !unsynced.is_empty() {
            self.after_removal(context);
        }
    }
}

/// Generations are counted from 1; -1 on the wire means none.
fn next_generation(generation: i32) -> i32 {
    generation.checked_add(1).unwrap_or(1).max(1)
}
