//! More partitions for a topic, judged against an image (CreatePartitions).
//!
//! What is added is placed by the same pure function as what was there, unless the client names the brokers. Nothing
//! here changes anything.

use crate::controller::image::Image;
use crate::controller::records::Record;
use crate::controller::topics::{TopicError, check_replicas, judge_partition_count, one_per_node};
use crate::coordinator::{OFFSETS_TOPIC, TRANSACTIONS_TOPIC};
use crate::model::configs::{BrokerConfig, ReplicationFactorPolicy};
use crate::model::id::BrokerId;
use crate::model::limits::TOPIC_PARTITION_COUNT_MAX;

/// A topic that is to have more partitions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MorePartitions {
    /// Its name.
    pub name: String,
    /// How many it is to have, the old ones included.
    pub partition_count: i32,
    /// Brokers for each added partition, leader first; `None`: the controller places them.
    pub assignments: Option<Vec<Vec<BrokerId>>>,
}

/// Judges the growth of a topic and gives its record.
pub fn judge_growth(image: &Image, config: &BrokerConfig, more: &MorePartitions) -> Result<Record, TopicError> {
    let topic = image.topic_by_name(&more.name).ok_or(TopicError::UnknownTopic)?;
    let (before, after) = (topic.partition_count, more.partition_count);
    if more.name == OFFSETS_TOPIC || more.name == TRANSACTIONS_TOPIC {
        // Where an id's records are follows from the number of partitions.
        let name = &more.name;
        let reason = format!("The topic {name} keeps its {before} partition(s): coordinators are found by them.");
        return Err(TopicError::NoMorePartitions { reason });
    }
    if after == before {
        let reason = format!("Topic already has {before} partition(s).");
        return Err(TopicError::NoMorePartitions { reason });
    }
    if after < before {
        let name = &more.name;
        let reason = format!("The topic {name} currently has {before} partition(s); {after} would not be an increase.");
        return Err(TopicError::NoMorePartitions { reason });
    }
    if after > TOPIC_PARTITION_COUNT_MAX as i32 {
        return Err(TopicError::InvalidPartitions { count: after });
    }
    let added = (after - before) as usize;
    judge_partition_count(image, added)?;
    let mut assignments = more.assignments.clone().unwrap_or_default();
    if more.assignments.is_some() && assignments.len() != added {
        let reason = format!(
            "Attempted to add {added} additional partition(s), but only {} assignment(s) were specified.",
            assignments.len()
        );
        return Err(TopicError::InvalidAssignment { reason });
    }
    for brokers in &assignments {
        check_replicas(image, brokers, usize::try_from(topic.replication_factor).unwrap_or(1))?;
    }
    if config.replication_factor_policy != ReplicationFactorPolicy::Pretend {
        assignments = assignments.into_iter().map(one_per_node).collect();
    }
    Ok(Record::PartitionsAdded { topic: topic.id, partition_count: after, assignments })
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::controller::image::ClusterId;
    use crate::controller::records::TopicCreated;
    use crate::model::configs::Overrides;
    use crate::model::id::{NodeId, PartitionIndex, TopicId};

    fn image(shard_count: u16) -> Image {
        let mut image = Image::default();
        image.apply(&Record::ClusterCreated { cluster_id: ClusterId(Uuid::from_u128(1)) }).unwrap();
        image.apply(&Record::NodeStarted { node: NodeId(0), shard_count, format: 1 }).unwrap();
        let created = TopicCreated {
            id: TopicId(Uuid::from_u128(9)),
            name: "t".into(),
            partition_count: 3,
            replication_factor: 1,
            assignments: Vec::new(),
            configs: Overrides::new(),
        };
        image.apply(&Record::TopicCreated(created)).unwrap();
        image
    }

    fn judge(image: &Image, count: i32, assignments: Option<&[&[i32]]>) -> Result<Record, TopicError> {
        let brokers = |ids: &&[i32]| ids.iter().map(|id| BrokerId(*id)).collect();
        let assignments = assignments.map(|all| all.iter().map(brokers).collect());
        let more = MorePartitions { name: "t".into(), partition_count: count, assignments };
        judge_growth(image, &BrokerConfig::default(), &more)
    }

    #[test]
    fn old_partitions_stay_where_they_are_and_new_ones_are_placed_or_go_where_they_were_sent() {
        let before = image(3);
        let leaders = |image: &Image| {
            let topic = image.topic_by_name("t").unwrap();
            topic.partitions().map(|index| image.leader(topic, index).unwrap()).collect::<Vec<_>>()
        };
        let mut placed = before.clone();
        placed.apply(&judge(&before, 6, None).unwrap()).unwrap();
        assert_eq!(leaders(&placed)[..3], leaders(&before));
        assert_eq!(leaders(&placed)[3..], leaders(&before), "round once more");
        let mut sent = before.clone();
        sent.apply(&judge(&before, 5, Some(&[&[2], &[2]])).unwrap()).unwrap();
        assert_eq!(leaders(&sent), [&leaders(&before)[..], &[BrokerId(2), BrokerId(2)]].concat());
        assert!(!sent.topic_by_name("t").unwrap().is_materialized(PartitionIndex(4)));
    }

    #[test]
    fn what_is_no_growth_is_refused() {
        let image = image(1);
        for count in [3, 2, 0, -1, i32::MIN] {
            assert!(matches!(judge(&image, count, None), Err(TopicError::NoMorePartitions { .. })), "{count}");
        }
        for count in [TOPIC_PARTITION_COUNT_MAX as i32 + 1, i32::MAX] {
            assert_eq!(judge(&image, count, None), Err(TopicError::InvalidPartitions { count }));
        }
        // One shard carries as many as one topic may have, and three are there.
        let most = TOPIC_PARTITION_COUNT_MAX as i32;
        assert!(matches!(judge(&image, most, None), Ok(Record::PartitionsAdded { .. })));
        let more = MorePartitions { name: "u".into(), partition_count: 5, assignments: None };
        assert_eq!(judge_growth(&image, &BrokerConfig::default(), &more), Err(TopicError::UnknownTopic));
    }

    #[test]
    fn assignments_that_are_none_are_refused() {
        let image = image(2);
        let cases: [&[&[i32]]; 6] = [&[], &[&[1], &[2]], &[&[]], &[&[3]], &[&[1, 1]], &[&[1, 2]]];
        for case in cases {
            let result = judge(&image, 4, Some(case));
            assert!(matches!(result, Err(TopicError::InvalidAssignment { .. })), "{case:?}: {result:?}");
        }
    }
}
