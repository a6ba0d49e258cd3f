//! Which broker leads a partition: a pure function of the topic's id, the partition and the brokers.
//!
//! A topic starts at a broker that its id picks and goes round from there, so that consecutive partitions are on
//! different brokers and no broker has more than one partition of a topic above another. Nothing is stored: when the
//! brokers change, every partition has a new place, and the start that changed them raises every leader epoch.

use crate::model::id::{BrokerId, PartitionIndex, TopicId};

/// The broker that leads `partition`; `None` only without brokers.
pub fn leader(topic: TopicId, partition: PartitionIndex, brokers: &[BrokerId]) -> Option<BrokerId> {
    replicas(topic, partition, brokers, 1).next()
}

/// The brokers that hold `partition`, the leader first: `count` of them, or as many as there are.
pub fn replicas(
    topic: TopicId,
    partition: PartitionIndex,
    brokers: &[BrokerId],
    count: usize,
) -> impl Iterator<Item = BrokerId> {
    let start = if brokers.is_empty() {
        0
    } else {
        (first_place(topic) % brokers.len() as u64) as usize + partition.0.max(0) as usize % brokers.len()
    };
    (0..count.min(brokers.len())).map(move |next| brokers[(start + next) % brokers.len()])
}

/// A number that a topic's id decides, evenly spread (the finalizer of SplitMix64).
fn first_place(topic: TopicId) -> u64 {
    let (high, low) = topic.0.as_u64_pair();
    let mut bits = high ^ low.rotate_left(32);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::base::rng::Rng;
    use uuid::Uuid;

    fn brokers(count: i32) -> Vec<BrokerId> {
        (1..=count).map(BrokerId).collect()
    }

    fn random_topic(rng: &mut Rng) -> TopicId {
        TopicId(Uuid::from_u64_pair(rng.next_u64(), rng.next_u64()))
    }

    #[test]
    fn no_broker_has_more_than_one_partition_of_a_topic_above_another() {
        let mut rng = Rng::new(3);
        for _ in 0..200 {
            let topic = random_topic(&mut rng);
            for broker_count in [1, 2, 3, 5, 8] {
                let brokers = brokers(broker_count);
                let mut counts: BTreeMap<BrokerId, usize> = brokers.iter().map(|broker| (*broker, 0)).collect();
                for partition in 0..rng.in_range(1..40) as i32 {
                    *counts.get_mut(&leader(topic, PartitionIndex(partition), &brokers).unwrap()).unwrap() += 1;
                }
                let (least, greatest) = (counts.values().min().unwrap(), counts.values().max().unwrap());
                assert!(greatest - least <= 1, "{counts:?}");
            }
        }
    }

    #[test]
    fn topics_of_one_partition_spread_over_the_brokers() {
        let mut rng = Rng::new(4);
        let brokers = brokers(5);
        let mut counts = BTreeMap::new();
        for _ in 0..10_000 {
            *counts.entry(leader(random_topic(&mut rng), PartitionIndex(0), &brokers).unwrap()).or_insert(0) += 1;
        }
        assert!(counts.values().all(|count| (1850..2150).contains(count)), "{counts:?}");
    }

    #[test]
    fn a_place_never_changes() {
        // Part of the format: a broker of another version must agree on who leads what.
        let topic = TopicId(Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef));
        let places: Vec<i32> =
            (0..6).map(|partition| leader(topic, PartitionIndex(partition), &brokers(5)).unwrap().0).collect();
        assert_eq!(places, [4, 5, 1, 2, 3, 4]);
    }

    #[test]
    fn replicas_are_distinct_and_no_more_than_there_are_brokers() {
        let topic = TopicId(Uuid::from_u128(7));
        let of = |count, brokers: &[BrokerId]| replicas(topic, PartitionIndex(1), brokers, count).collect::<Vec<_>>();
        let three = of(3, &brokers(5));
        assert!(three.len() == 3 && three[0] != three[1] && three[1] != three[2] && three[0] != three[2]);
        assert_eq!(of(3, &brokers(2)).len(), 2);
        assert_eq!(of(3, &[]), []);
    }
}
