//! Server-side assignors: who is to have which partitions.
//!
//! | assignor | what it cares for |
//! |---|---|
//! | [`uniform`] | equal numbers of partitions, then that little moves |
//! | [`range`] | neighbouring partitions together, the same numbers of every topic with one member |
//!
//! Pure: (members, topics, what they have) -> what they are to have. The order of members decides where nothing else
//! does, so that the same input gives the same result.

mod range;
mod uniform;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use super::Assignment;
use crate::model::id::TopicId;

/// An assignor under Kafka's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Assignor {
    /// `uniform`.
    Uniform,
    /// `range`.
    Range,
}

/// A member as an assignor sees it.
#[derive(Clone, Debug)]
pub struct Candidate<'a> {
    /// Its id.
    pub member_id: &'a str,
    /// Its instance id, if it is static.
    pub instance_id: Option<&'a str>,
    /// Topics that it reads, ascending. All of them are known.
    pub topics: Rc<[TopicId]>,
    /// Its target until now.
    pub target: Arc<Assignment>,
}

/// Partition counts of all topics that are read.
pub type PartitionCounts = BTreeMap<TopicId, i32>;

impl Assignor {
    /// Kafka's name for it.
    pub const fn name(self) -> &'static str {
        match self {
            Assignor::Uniform => "uniform",
            Assignor::Range => "range",
        }
    }

    /// The assignor of this name, which may be that of Kafka's class.
    pub fn find(name: &str) -> Option<Assignor> {
        const PACKAGE: &str = "org.apache.kafka.coordinator.group.assignor.";
        match name.strip_prefix(PACKAGE).unwrap_or(name) {
            "uniform" | "UniformAssignor" => Some(Assignor::Uniform),
            "range" | "RangeAssignor" => Some(Assignor::Range),
            _ => None,
        }
    }

    /// New targets, in the order of the members. `is_homogeneous` says that all members read the same topics.
    pub fn assign(self, members: &[Candidate<'_>], counts: &PartitionCounts, is_homogeneous: bool) -> Vec<Assignment> {
        match self {
            _ if members.is_empty() => Vec::new(),
            Assignor::Range => range::assign(members, counts),
            Assignor::Uniform if is_homogeneous => uniform::assign_equal(members, counts),
            Assignor::Uniform => uniform::assign_unequal(members, counts),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::base::rng::Rng;
    use crate::coordinator::consumer_group::{assignment_of, count_of};

    pub fn topic(number: u128) -> TopicId {
        TopicId(uuid::Uuid::from_u128(number))
    }

    pub fn counts(counts: &[(u128, i32)]) -> PartitionCounts {
        counts.iter().map(|(number, count)| (topic(*number), *count)).collect()
    }

    pub fn candidate<'a>(member_id: &'a str, topics: &[u128], target: &[(u128, &[i32])]) -> Candidate<'a> {
        Candidate {
            member_id,
            instance_id: None,
            topics: topics.iter().map(|number| topic(*number)).collect(),
            target: Arc::new(assigned(target)),
        }
    }

    pub fn assigned(partitions: &[(u128, &[i32])]) -> Assignment {
        assignment_of(partitions.iter().map(|(number, partitions)| (topic(*number), partitions.to_vec())))
    }

    /// Panics unless every partition that somebody reads has one owner, who reads it.
    pub fn check_complete(members: &[Candidate<'_>], counts: &PartitionCounts, targets: &[Assignment]) {
        let mut owners: BTreeMap<(TopicId, i32), usize> = BTreeMap::new();
        for (member, target) in members.iter().zip(targets) {
            for (topic, partitions) in target {
                assert!(member.topics.contains(topic), "{} does not read {topic}", member.member_id);
                assert!(partitions.is_sorted() && !partitions.is_empty());
                for partition in partitions {
                    assert!((0..counts[topic]).contains(partition));
                    *owners.entry((*topic, *partition)).or_default() += 1;
                }
            }
        }
        assert!(owners.values().all(|count| *count == 1), "{owners:?}");
        let is_read = |topic: &TopicId| members.iter().any(|member| member.topics.contains(topic));
        let read = counts.iter().filter(|(topic, _)| is_read(topic)).map(|(_, count)| *count as usize);
        assert_eq!(owners.len(), read.sum::<usize>());
    }

    /// Partitions that a member had and has no longer, although it could.
    pub fn moved_count(members: &[Candidate<'_>], targets: &[Assignment]) -> usize {
        let lost = |member: &Candidate<'_>, target: &Assignment| {
            let kept = member.target.iter().map(|(topic, partitions)| {
                let now = target.get(topic).map_or(&[][..], Vec::as_slice);
                partitions.iter().filter(|partition| now.contains(partition)).count()
            });
            count_of(&member.target) - kept.sum::<usize>()
        };
        members.iter().zip(targets).map(|(member, target)| lost(member, target)).sum()
    }

    #[test]
    fn whatever_members_read_and_had_every_partition_has_one_reader() {
        // A thousand random groups, each assigned anew after its members, topics and subscriptions have changed.
        for seed in 0..1_000 {
            let mut rng = Rng::new(seed);
            let assignor = if rng.chance(1, 4) { Assignor::Range } else { Assignor::Uniform };
            let names: Vec<String> = (0..12).map(|number| format!("m{number}")).collect();
            let mut targets: BTreeMap<&str, Arc<Assignment>> = BTreeMap::new();
            for _ in 0..4 {
                let topic_count = rng.in_range(1..6) as u128;
                let counts: PartitionCounts =
                    (0..topic_count).map(|number| (topic(number), rng.in_range(0..10) as i32)).collect();
                let is_homogeneous = rng.chance(1, 2);
                let mut members = Vec::new();
                for name in names.iter().take(rng.in_range(1..12) as usize) {
                    let topics: Vec<u128> = (0..topic_count).filter(|_| is_homogeneous || rng.chance(1, 2)).collect();
                    let mut member = candidate(name, &topics, &[]);
                    member.target = targets.get(&**name).cloned().unwrap_or_default();
                    members.push(member);
                }
                let assigned = assignor.assign(&members, &counts, is_homogeneous);
                check_complete(&members, &counts, &assigned);
                if is_homogeneous && assignor == Assignor::Uniform {
                    let sizes = assigned.iter().map(count_of);
                    assert!(sizes.clone().max().unwrap() - sizes.min().unwrap() <= 1, "seed {seed}: {assigned:?}");
                }
                let names: Vec<&str> = members.iter().map(|member| member.member_id).collect();
                targets = names.into_iter().zip(assigned.into_iter().map(Arc::new)).collect();
            }
        }
    }

    #[test]
    fn assignors_are_found_by_kafkas_names() {
        for assignor in [Assignor::Uniform, Assignor::Range] {
            assert_eq!(Assignor::find(assignor.name()), Some(assignor));
        }
        let class = "org.apache.kafka.coordinator.group.assignor.RangeAssignor";
        assert_eq!((Assignor::find(class), Assignor::find("cooperative-sticky")), (Some(Assignor::Range), None));
    }
}
