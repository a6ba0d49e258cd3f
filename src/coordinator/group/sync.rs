//! SyncGroup, Heartbeat, and what became of an assignment's write.

use std::collections::BTreeMap;

use super::classic::{AssignmentWrite, Group};
use super::event::{Context, Effect, GroupError, GroupState, SyncRequest};
use crate::base::mutant;
use crate::base::time::Monotonic;
use crate::model::limits::GROUP_SIZE_BYTES_MAX;

impl<T> Group<T> {
    /// A member asks for its assignment; the leader brings everybody's.
    pub(super) fn sync(&mut self, ticket: T, request: SyncRequest<'_>, context: &mut Context<'_, T>) {
        if let Err(error) = self.check_sync(&request) {
            return context.effects.push(Effect::Sync(ticket, Err(error)));
        }
        let member_id = request.member_id;
        self.renew(member_id, context.now.monotonic);
        self.settle_sync(member_id);
        let member = self.members.get_mut(member_id).expect("it was checked");
        if self.state == GroupState::Stable {
            let assignment = member.assignment.clone();
            let synced = self.synced(assignment);
            return context.effects.push(Effect::Sync(ticket, Ok(synced)));
        }
        if let Some(replaced) = member.syncing.replace(ticket) {
            context.effects.push(Effect::Sync(replaced, Err(GroupError::RebalanceInProgress)));
        }
        // If the leader asks twice, what it said first is being written.
        if self.is_leader(member_id) && self.assignment_write.is_none() {
            self.assign(request, context);
        }
    }

    fn check_sync(&self, request: &SyncRequest<'_>) -> Result<(), GroupError> {
        match self.state {
            GroupState::Dead => return Err(GroupError::CoordinatorNotAvailable),
            GroupState::Empty => return Err(GroupError::UnknownMemberId),
            _ => self.check_member(request.member_id, request.group_instance_id)?,
        }
        if request.generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        let differs = |asked: Option<&str>, known: &Option<Box<str>>| {
            asked.is_some_and(|asked| known.as_deref().is_some_and(|known| known != asked))
        };
        if differs(request.protocol_type, &self.protocol_type) || differs(request.protocol, &self.protocol) {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        match self.state {
            GroupState::PreparingRebalance => Err(GroupError::RebalanceInProgress),
            _ => Ok(()),
        }
    }

    fn assign(&mut self, request: SyncRequest<'_>, context: &mut Context<'_, T>) {
        let mut assignments = BTreeMap::new();
        let mut size_bytes = 0;
        for (member_id, assignment) in request.assignments {
            if let Some((member_id, _)) = self.members.get_key_value(member_id) {
                size_bytes += assignment.len();
                assignments.insert(member_id.clone(), assignment);
            }
        }
        if self.size_bytes + size_bytes > GROUP_SIZE_BYTES_MAX {
            return self.not_assigned(GroupError::TooLarge, context);
        }
        let snapshot = self.snapshot(Some(&assignments));
        let number = self.persist(snapshot, context);
        self.assignment_write = Some(AssignmentWrite { number, assignments });
    }

    fn not_assigned(&mut self, error: GroupError, context: &mut Context<'_, T>) {
        tracing::warn!(group = %self.id, generation = self.generation, %error, "the assignment cannot be kept");
        self.refuse_syncs(error, context);
        self.prepare_rebalance(context);
    }

    /// A write has come out.
    pub(super) fn persisted(&mut self, number: u64, result: Result<(), GroupError>, context: &mut Context<'_, T>) {
        let Some(write) = self.assignment_write.take_if(|write| write.number == number) else {
            return self.replaced(number, result, context);
        };
        match result {
            Ok(()) => self.give_out(write.assignments, context),
            Err(error) => self.not_assigned(error, context),
        }
    }

    /// A member is alive. Says also what it must do.
    pub(super) fn heartbeat(
        &mut self,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
        now: Monotonic,
    ) -> Result<(), GroupError> {
        if self.state == GroupState::Dead {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        self.check_member(member_id, instance_id)?;
        if generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        if !mutant::is_on("forget_heartbeats") {
            self.renew(member_id, now);
        }
        match self.state {
            GroupState::PreparingRebalance => Err(GroupError::RebalanceInProgress),
            _ => Ok(()),
        }
    }

    /// Whether a member, or somebody who is none, may commit offsets. A member's commit is a sign of life.
    pub(super) fn check_commit(
        &mut self,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
        is_transactional: bool,
        now: Monotonic,
    ) -> Result<(), GroupError> {
        if self.state == GroupState::Dead {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        if generation < 0 && self.state == GroupState::Empty {
            // A tool, or a consumer that needs no group to share partitions.
            return Ok(());
        }
        if mutant::is_on("take_commits_of_anybody") {
            return Ok(());
        }
        if generation < 0 && member_id.is_empty() && instance_id.is_none() {
            return if is_transactional { Ok(()) } else { Err(GroupError::UnknownMemberId) };
        }
        self.check_member(member_id, instance_id)?;
        if generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        if self.state == GroupState::CompletingRebalance && !is_transactional {
            return Err(GroupError::RebalanceInProgress);
        }
        self.renew(member_id, now);
        Ok(())
    }
}
