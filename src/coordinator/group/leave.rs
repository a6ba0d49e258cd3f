//! LeaveGroup: members that go, or are made to.

use super::classic::Group;
use super::event::{Context, GroupError, GroupState, Leaving};

impl<T> Group<T> {
    /// Members leave, several at once and then one rebalance. What became of each, in order.
    pub(super) fn leave(
        &mut self,
        leaving: &[Leaving<'_>],
        context: &mut Context<'_, T>,
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        if self.state == GroupState::Dead {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        let count = self.members.len();
        let results: Vec<_> = leaving.iter().map(|leaving| self.leave_one(leaving, context)).collect();
        // An id that nobody used is missed only by those who wait for it.
        if self.members.len() < count || self.state == GroupState::PreparingRebalance {
            self.after_removal(context);
        }
        Ok(results)
    }

    fn leave_one(&mut self, leaving: &Leaving<'_>, context: &mut Context<'_, T>) -> Result<(), GroupError> {
        if leaving.member_id.is_empty() {
            // An operator removes a static member.
            let member_id = leaving.group_instance_id.and_then(|instance_id| self.statics.get(instance_id));
            let member_id = member_id.cloned().ok_or(GroupError::UnknownMemberId)?;
            self.expel(&member_id, context);
            return Ok(());
        }
        if self.remove_pending(leaving.member_id) {
            return Ok(());
        }
        self.check_member(leaving.member_id, leaving.group_instance_id)?;
        self.expel(leaving.member_id, context);
        Ok(())
    }
}
