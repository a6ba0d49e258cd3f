//! One member's next step towards its target.
//!
//! It first gives up what it is to lose, in its old epoch; then its epoch becomes the target's and it is given what
//! nobody else has. What others have yet it is given when they have given it up, at some later heartbeat.

use std::sync::Arc;

use super::member::{Current, MemberState};
use super::{Assignment, intersects};
use crate::coordinator::group::event::GroupError;
use crate::model::id::TopicId;

/// Where the member is from now on. `owned` is what it says that it has, if it says; `is_free` whether nobody has a
/// partition.
pub(super) fn step(
    current: &Current,
    target_epoch: i32,
    target: &Assignment,
    owned: Option<&Assignment>,
    is_free: impl Fn(TopicId, i32) -> bool,
) -> Result<Current, GroupError> {
    let has_none_of = |revoking: &Assignment| owned.is_some_and(|owned| !intersects(owned, revoking));
    let epoch = match current.state {
        MemberState::Stable if current.epoch == target_epoch => return Ok(current.clone()),
        MemberState::Stable | MemberState::UnreleasedPartitions => current.epoch,
        MemberState::UnrevokedPartitions if has_none_of(&current.revoking) => current.epoch + 1,
        MemberState::UnrevokedPartitions => return Ok(current.clone()),
        // Whatever a newer broker meant, a member without partitions begins anew.
        MemberState::Unknown if owned.is_some_and(Assignment::is_empty) => target_epoch,
        MemberState::Unknown => return Err(GroupError::FencedMemberEpoch),
    };
    let mut next = split(&current.assigned, target, is_free);
    let previous_epoch = current.epoch;
    if !next.revoking.is_empty() && !has_none_of(&next.revoking) {
        let (assigned, revoking) = (Arc::new(next.kept), Arc::new(next.revoking));
        return Ok(Current { epoch, previous_epoch, state: MemberState::UnrevokedPartitions, assigned, revoking });
    }
    for (topic, free) in next.free {
        let partitions = next.kept.entry(topic).or_default();
        partitions.extend(free);
        partitions.sort_unstable();
    }
    Ok(Current {
        epoch: target_epoch,
        previous_epoch,
        state: if next.has_unreleased { MemberState::UnreleasedPartitions } else { MemberState::Stable },
        assigned: Arc::new(next.kept),
        revoking: Arc::default(),
    })
}

/// What a member has and is to have, by what is to be done with it.
struct Split {
    kept: Assignment,
    revoking: Assignment,
    /// To be given, and nobody has it.
    free: Assignment,
    /// Somebody has partitions that are to be given.
    has_unreleased: bool,
}

fn split(assigned: &Assignment, target: &Assignment, is_free: impl Fn(TopicId, i32) -> bool) -> Split {
    let mut split =
        Split { kept: Assignment::new(), revoking: Assignment::new(), free: Assignment::new(), has_unreleased: false };
    let put = |assignment: &mut Assignment, topic: TopicId, partitions: Vec<i32>| {
        if !partitions.is_empty() {
            assignment.insert(topic, partitions);
        }
    };
    for (topic, partitions) in assigned {
        let wanted = target.get(topic).map_or(&[][..], Vec::as_slice);
        let (kept, revoking) = partitions.iter().partition(|partition| wanted.binary_search(partition).is_ok());
        put(&mut split.kept, *topic, kept);
        put(&mut split.revoking, *topic, revoking);
    }
    for (topic, partitions) in target {
        let known = assigned.get(topic).map_or(&[][..], Vec::as_slice);
        let missing = partitions.iter().copied().filter(|partition| known.binary_search(partition).is_err());
        let (free, unreleased): (Vec<i32>, Vec<i32>) = missing.partition(|partition| is_free(*topic, *partition));
        split.has_unreleased |= !unreleased.is_empty();
        put(&mut split.free, *topic, free);
    }
    split
}

#[cfg(test)]
mod tests {
    use super::super::assignor::tests::assigned;
    use super::*;

    fn at(epoch: i32, state: MemberState, partitions: &[i32], revoking: &[i32]) -> Current {
        Current {
            epoch,
            previous_epoch: epoch - 1,
            state,
            assigned: Arc::new(assigned(&[(1, partitions)])),
            revoking: Arc::new(assigned(&[(1, revoking)])),
        }
    }

    fn go(current: &Current, epoch: i32, target: &[i32], owned: Option<&[i32]>, taken: &[i32]) -> Current {
        let owned = owned.map(|owned| assigned(&[(1, owned)]));
        let is_free = |_, partition| !taken.contains(&partition);
        step(current, epoch, &assigned(&[(1, target)]), owned.as_ref(), is_free).unwrap()
    }

    #[test]
    fn a_member_gives_up_before_it_is_given() {
        // From 0, 1 to 1, 2: as long as it has 0, or does not say, nothing happens; then its epoch rises.
        use MemberState::{Stable, UnrevokedPartitions};
        let first = go(&at(5, Stable, &[0, 1], &[]), 7, &[1, 2], None, &[]);
        assert_eq!(first, Current { previous_epoch: 5, ..at(5, UnrevokedPartitions, &[1], &[0]) });
        assert_eq!(go(&first, 7, &[1, 2], None, &[]), first);
        assert_eq!(go(&first, 7, &[1, 2], Some(&[0, 1]), &[]), first);
        let second = go(&first, 7, &[1, 2], Some(&[1]), &[]);
        assert_eq!(second, Current { previous_epoch: 5, ..at(7, Stable, &[1, 2], &[]) });
        assert_eq!(go(&second, 7, &[1, 2], None, &[]), second);
    }

    #[test]
    fn what_others_have_is_given_when_they_have_given_it_up() {
        // The epoch is the target's at once; what is free comes now.
        use MemberState::{Stable, UnreleasedPartitions};
        let first = go(&at(5, Stable, &[0], &[]), 6, &[0, 1, 2], None, &[2]);
        assert_eq!(first, Current { previous_epoch: 5, ..at(6, UnreleasedPartitions, &[0, 1], &[]) });
        let same = go(&first, 6, &[0, 1, 2], None, &[2]);
        assert_eq!(same, Current { previous_epoch: 6, ..first.clone() });
        let last = go(&same, 6, &[0, 1, 2], None, &[]);
        assert_eq!(last, Current { previous_epoch: 6, ..at(6, Stable, &[0, 1, 2], &[]) });
    }

    #[test]
    fn a_target_that_changes_while_a_member_gives_up_is_followed_when_it_has() {
        // From 0, 1 to 1, meanwhile to nothing: 1 is to be given up, too, in the epoch between.
        use MemberState::{Stable, UnrevokedPartitions};
        let first = go(&at(5, Stable, &[0, 1], &[]), 6, &[1], None, &[]);
        let second = go(&first, 8, &[], Some(&[1]), &[]);
        assert_eq!(second, Current { previous_epoch: 5, ..at(6, UnrevokedPartitions, &[], &[1]) });
        assert_eq!(go(&second, 8, &[], Some(&[]), &[]).epoch, 8);
    }

    #[test]
    fn what_a_member_has_given_up_already_need_not_be_revoked() {
        // It told with the heartbeat that made the target.
        let next = go(&at(5, MemberState::Stable, &[0, 1], &[]), 6, &[1], Some(&[1]), &[]);
        assert_eq!(next, Current { previous_epoch: 5, ..at(6, MemberState::Stable, &[1], &[]) });
    }

    #[test]
    fn a_member_in_a_state_of_a_newer_broker_begins_anew() {
        let unknown = at(5, MemberState::Unknown, &[], &[]);
        let refused = step(&unknown, 6, &Assignment::new(), None, |_, _| true);
        assert_eq!(refused, Err(GroupError::FencedMemberEpoch));
        assert_eq!(go(&unknown, 6, &[3], Some(&[]), &[]).epoch, 6);
    }
}
