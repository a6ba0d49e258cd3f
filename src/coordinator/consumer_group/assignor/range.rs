//! `range`: each reader of a topic gets neighbouring partitions, in the order of the members, static ones first.
//!
//! Where members read the same topics of equally many partitions, partitions of one number go to one member: what
//! joins of streams need. Members with instance ids keep their place when they come back under another member id.

use std::collections::BTreeMap;

use super::{Candidate, PartitionCounts};
use crate::coordinator::consumer_group::Assignment;
use crate::model::id::TopicId;

/// What is left to give of a topic.
struct Left {
    next: i32,
    reader_count: i32,
    /// Partitions for each reader, and readers that get one more.
    quota: i32,
    extra: i32,
}

pub(super) fn assign(members: &[Candidate<'_>], counts: &PartitionCounts) -> Vec<Assignment> {
    let mut left: BTreeMap<TopicId, Left> = BTreeMap::new();
    for topic in members.iter().flat_map(|member| member.topics.iter()) {
        let entry = left.entry(*topic).or_insert(Left { next: 0, reader_count: 0, quota: 0, extra: 0 });
        entry.reader_count += 1;
    }
    for (topic, left) in &mut left {
        left.quota = counts[topic] / left.reader_count;
        left.extra = counts[topic] % left.reader_count;
    }
    let mut order: Vec<usize> = (0..members.len()).collect();
    order.sort_by_key(|index| {
        let member = &members[*index];
        // Those without an instance id come behind those with one.
        (member.instance_id.is_none(), member.instance_id, member.member_id)
    });
    let mut targets = vec![Assignment::new(); members.len()];
    for index in order {
        for topic in members[index].topics.iter() {
            let left = left.get_mut(topic).expect("it was counted");
            let count = left.quota + i32::from(left.extra > 0);
            left.extra -= i32::from(left.extra > 0);
            if count > 0 {
                targets[index].insert(*topic, (left.next..left.next + count).collect());
                left.next += count;
            }
        }
    }
    targets
}

#[cfg(test)]
mod tests {
    use super::super::tests::{assigned, candidate, counts};
    use super::*;

    #[test]
    fn members_get_neighbouring_partitions_and_the_same_numbers_of_every_topic() {
        // Two members, two topics of three partitions: the first one gets two of each.
        let members = [candidate("a", &[1, 2], &[]), candidate("b", &[1, 2], &[])];
        let targets = assign(&members, &counts(&[(1, 3), (2, 3)]));
        assert_eq!(targets, [assigned(&[(1, &[0, 1]), (2, &[0, 1])]), assigned(&[(1, &[2]), (2, &[2])])]);
    }

    #[test]
    fn a_topic_is_divided_among_those_who_read_it() {
        // More members than partitions leave some without.
        let members = [candidate("a", &[1], &[]), candidate("b", &[1, 2], &[]), candidate("c", &[2], &[])];
        let targets = assign(&members, &counts(&[(1, 1), (2, 4)]));
        assert_eq!(targets, [assigned(&[(1, &[0])]), assigned(&[(2, &[0, 1])]), assigned(&[(2, &[2, 3])])]);
    }

    #[test]
    fn static_members_keep_their_place_under_other_member_ids() {
        // Their instance ids decide, and they come first.
        let of = |member_id: &'static str, instance_id| Candidate {
            instance_id: Some(instance_id),
            ..candidate(member_id, &[1], &[])
        };
        let before = [candidate("a", &[1], &[]), of("x", "i1"), of("y", "i2")];
        let after = [candidate("a", &[1], &[]), of("p", "i2"), of("q", "i1")];
        let counts = counts(&[(1, 3)]);
        let (before, after) = (assign(&before, &counts), assign(&after, &counts));
        assert_eq!(before, [assigned(&[(1, &[2])]), assigned(&[(1, &[0])]), assigned(&[(1, &[1])])]);
        assert_eq!((&after[1], &after[2]), (&before[2], &before[1]));
    }
}
