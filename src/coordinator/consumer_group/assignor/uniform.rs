//! `uniform`: members get equally many partitions, as far as what they read allows it, and as few as possible move.
//!
//! Members that read the same have a quota: what they have above it they lose, and what is free fills those below.
//! Where subscriptions differ, what is free goes to its least loaded reader, topics with the fewest readers first;
//! then partitions move from a reader with at least two more to one with less until none does.

use std::collections::{BTreeMap, BTreeSet};

use super::{Candidate, PartitionCounts};
use crate::coordinator::consumer_group::{Assignment, count_of};
use crate::model::id::TopicId;

/// Times that all topics are looked at for partitions to move. Each move makes loads more equal, so it ends by itself;
/// this bounds what a group of thousands may cost.
const BALANCE_ROUND_COUNT_MAX: usize = 16;

/// Targets of members that all read the same.
pub(super) fn assign_equal(members: &[Candidate<'_>], counts: &PartitionCounts) -> Vec<Assignment> {
    let mut targets = kept(members, counts);
    let sizes: Vec<usize> = targets.iter().map(count_of).collect();
    let partition_count: usize = members[0].topics.iter().map(|topic| counts[topic] as usize).sum();
    let quota = partition_count / members.len();
    let mut extra_count = partition_count % members.len();
    // Who has more than the others may keep one more; what is then left of these places goes to the first.
    let mut quotas = vec![quota; members.len()];
    for has_more in [true, false] {
        for (own, size) in quotas.iter_mut().zip(&sizes) {
            if extra_count > 0 && *own == quota && (*size > quota) == has_more {
                *own += 1;
                extra_count -= 1;
            }
        }
    }
    for (target, (size, quota)) in targets.iter_mut().zip(sizes.iter().zip(&quotas)) {
        take_away(target, size.saturating_sub(*quota));
    }
    let mut free = free_of(&members[0].topics, counts, &targets).into_iter();
    for (target, quota) in targets.iter_mut().zip(&quotas) {
        let missing = quota.saturating_sub(count_of(target));
        free.by_ref().take(missing).for_each(|(topic, partition)| target.entry(topic).or_default().push(partition));
    }
    sort(&mut targets);
    targets
}

/// What members have that is still there, that they still read and that no other has before them.
fn kept(members: &[Candidate<'_>], counts: &PartitionCounts) -> Vec<Assignment> {
    let mut taken: BTreeMap<TopicId, Vec<bool>> = BTreeMap::new();
    let mut targets = Vec::with_capacity(members.len());
    for member in members {
        let mut target = Assignment::new();
        for (topic, partitions) in member.target.iter() {
            let Some(count) = counts.get(topic).filter(|_| member.topics.binary_search(topic).is_ok()) else {
                continue;
            };
            let taken = taken.entry(*topic).or_insert_with(|| vec![false; *count as usize]);
            let mut partitions = partitions.clone();
            partitions.retain(|partition| match usize::try_from(*partition).ok().and_then(|i| taken.get_mut(i)) {
                Some(is_taken) => !std::mem::replace(is_taken, true),
                None => false,
            });
            if !partitions.is_empty() {
                target.insert(*topic, partitions);
            }
        }
        targets.push(target);
    }
    targets
}

/// Takes the last `count` partitions away.
fn take_away(target: &mut Assignment, mut count: usize) {
    while count > 0
        && let Some(mut last) = target.last_entry()
    {
        let partitions = last.get_mut();
        let left = partitions.len().saturating_sub(count);
        count -= partitions.len() - left;
        partitions.truncate(left);
        if left == 0 {
            last.remove();
        }
    }
}

/// Partitions of `topics` that nobody has.
fn free_of(topics: &[TopicId], counts: &PartitionCounts, targets: &[Assignment]) -> Vec<(TopicId, i32)> {
    let mut free = Vec::new();
    for topic in topics {
        let mut is_taken = vec![false; counts[topic] as usize];
        for partition in targets.iter().filter_map(|target| target.get(topic)).flatten() {
            is_taken[*partition as usize] = true;
        }
        let partitions = (0..counts[topic]).filter(|partition| !is_taken[*partition as usize]);
        free.extend(partitions.map(|partition| (*topic, partition)));
    }
    free
}

fn sort(targets: &mut [Assignment]) {
    targets.iter_mut().flat_map(Assignment::values_mut).for_each(|partitions| partitions.sort_unstable());
}

/// Targets of members that read different topics.
pub(super) fn assign_unequal(members: &[Candidate<'_>], counts: &PartitionCounts) -> Vec<Assignment> {
    let mut targets = kept(members, counts);
    let mut loads: Vec<usize> = targets.iter().map(count_of).collect();
    let mut readers: BTreeMap<TopicId, Vec<usize>> = BTreeMap::new();
    for (index, member) in members.iter().enumerate() {
        member.topics.iter().for_each(|topic| readers.entry(*topic).or_default().push(index));
    }
    let mut topics: Vec<TopicId> = readers.keys().copied().collect();
    topics.sort_by_key(|topic| (readers[topic].len(), *topic));
    for topic in &topics {
        let mut by_load: BTreeSet<(usize, usize)> =
            readers[topic].iter().map(|index| (loads[*index], *index)).collect();
        for (topic, partition) in free_of(&[*topic], counts, &targets) {
            let (load, index) = by_load.pop_first().expect("somebody reads it");
            targets[index].entry(topic).or_default().push(partition);
            loads[index] = load + 1;
            by_load.insert((load + 1, index));
        }
    }
    for _ in 0..BALANCE_ROUND_COUNT_MAX {
        let mut has_moved = false;
        for topic in &topics {
            has_moved |= balance(*topic, &readers[topic], &mut targets, &mut loads);
        }
        if !has_moved {
            break;
        }
    }
    sort(&mut targets);
    targets
}

/// Moves partitions of a topic from its most loaded owners to its least loaded readers. True if one has moved.
fn balance(topic: TopicId, readers: &[usize], targets: &mut [Assignment], loads: &mut [usize]) -> bool {
    let mut by_load: BTreeSet<(usize, usize)> = readers.iter().map(|index| (loads[*index], *index)).collect();
    let owners = readers.iter().filter(|index| targets[**index].contains_key(&topic));
    let mut owners: BTreeSet<(usize, usize)> = owners.map(|index| (loads[*index], *index)).collect();
    let mut has_moved = false;
    while let (Some((most, from)), Some((least, to))) = (owners.last().copied(), by_load.first().copied()) {
        if most < least + 2 {
            break;
        }
        has_moved = true;
        let partitions = targets[from].get_mut(&topic).expect("it is an owner");
        let partition = partitions.pop().expect("an owner has one");
        let is_owner = !partitions.is_empty();
        if !is_owner {
            targets[from].remove(&topic);
        }
        targets[to].entry(topic).or_default().push(partition);
        (loads[from], loads[to]) = (most - 1, least + 1);
        owners.remove(&(most, from));
        if is_owner {
            owners.insert((most - 1, from));
        }
        owners.remove(&(least, to));
        owners.insert((least + 1, to));
        for (old, new, index) in [(most, most - 1, from), (least, least + 1, to)] {
            by_load.remove(&(old, index));
            by_load.insert((new, index));
        }
    }
    has_moved
}

#[cfg(test)]
mod tests {
    use super::super::tests::{assigned, candidate, check_complete, counts, moved_count};
    use super::*;

    #[test]
    fn a_member_that_comes_takes_what_it_needs_and_nothing_else_moves() {
        // Six partitions of two members: a third one gets two, one from each.
        let members = [
            candidate("a", &[1], &[(1, &[0, 1, 2])]),
            candidate("b", &[1], &[(1, &[3, 4, 5])]),
            candidate("c", &[1], &[]),
        ];
        let counts = counts(&[(1, 6)]);
        for targets in [assign_equal(&members, &counts), assign_unequal(&members, &counts)] {
            check_complete(&members, &counts, &targets);
            assert!(targets.iter().all(|target| count_of(target) == 2), "{targets:?}");
            assert_eq!(moved_count(&members, &targets), 2);
        }
    }

    #[test]
    fn what_a_member_leaves_behind_goes_to_the_others_and_nothing_else_moves() {
        let members = [candidate("a", &[1], &[(1, &[0, 1])]), candidate("b", &[1], &[(1, &[2, 3, 4])])];
        let targets = assign_equal(&members, &counts(&[(1, 7)]));
        assert_eq!(targets, [assigned(&[(1, &[0, 1, 5, 6])]), assigned(&[(1, &[2, 3, 4])])]);
    }

    #[test]
    fn a_member_that_has_one_more_than_others_keeps_it() {
        let members = [candidate("a", &[1], &[(1, &[0])]), candidate("b", &[1], &[(1, &[1, 2])])];
        let counts = counts(&[(1, 3)]);
        for targets in [assign_equal(&members, &counts), assign_unequal(&members, &counts)] {
            assert_eq!(targets, [assigned(&[(1, &[0])]), assigned(&[(1, &[1, 2])])]);
        }
    }

    #[test]
    fn topics_that_shrank_or_went_are_given_up() {
        let members = [candidate("a", &[1], &[(1, &[0, 5]), (2, &[0])]), candidate("b", &[1], &[(1, &[1])])];
        let counts = counts(&[(1, 2)]);
        for targets in [assign_equal(&members, &counts), assign_unequal(&members, &counts)] {
            assert_eq!(targets, [assigned(&[(1, &[0])]), assigned(&[(1, &[1])])]);
        }
    }

    #[test]
    fn a_partition_that_two_have_stays_with_one() {
        // As a client-side assignor may have left it.
        let members = [candidate("a", &[1], &[(1, &[0, 1])]), candidate("b", &[1], &[(1, &[0, 1])])];
        let counts = counts(&[(1, 2)]);
        for targets in [assign_equal(&members, &counts), assign_unequal(&members, &counts)] {
            check_complete(&members, &counts, &targets);
        }
    }

    #[test]
    fn members_that_read_different_topics_are_as_equal_as_they_can_be() {
        // One reads both topics, so the others share the first one; a load of nothing but its own stays.
        let members = [candidate("a", &[1, 2], &[]), candidate("b", &[1], &[]), candidate("c", &[1], &[])];
        let counts = counts(&[(1, 6), (2, 6)]);
        let targets = assign_unequal(&members, &counts);
        check_complete(&members, &counts, &targets);
        assert_eq!(targets.iter().map(count_of).collect::<Vec<_>>(), [6, 3, 3]);
        // The same again moves nothing.
        let again: Vec<Candidate<'_>> = members
            .iter()
            .zip(&targets)
            .map(|(member, target)| Candidate { target: std::sync::Arc::new(target.clone()), ..member.clone() })
            .collect();
        assert_eq!(moved_count(&again, &assign_unequal(&again, &counts)), 0);
    }
}
