//! Image and record to the next image. Deterministic: any replay of a log gives the same image.
//!
//! Requests are judged before they become records, so a record that does not fit means a damaged log or a fault of
//! ours: it is refused with its cause, and the image stays as it was.

use std::sync::Arc;

use crate::controller::image::{DeletedTopic, Image, NodeImage, TopicImage};
use crate::controller::records::{DATA_FORMAT, Record, TopicCreated};
use crate::model::id::{BrokerId, NodeId, PartitionIndex, ProducerId, ShardId, TopicId, TopicIdPartition};
use crate::model::limits::{SHARD_COUNT_MAX, TOPIC_PARTITION_COUNT_MAX};

/// Why a record does not fit the image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// The cluster has an identity already, or has none yet.
    #[error("{record} before or after the one ClusterCreated that opens a log")]
    ClusterIdentity {
        /// The record's name.
        record: &'static str,
    },
    /// The data directory belongs to a newer version of ottla.
    #[error("the data directory has format {format}, and this version of ottla reads up to {DATA_FORMAT}")]
    NewerFormat {
        /// Its format.
        format: u16,
    },
    /// No such number of shards or such a node can be.
    #[error("node {node} cannot have {shard_count} shards")]
    Node {
        /// The node.
        node: NodeId,
        /// Its shards.
        shard_count: u16,
    },
    /// The id or the name is in use.
    #[error("topic {name} ({topic}) is there already")]
    TopicExists {
        /// Its id.
        topic: TopicId,
        /// Its name.
        name: String,
    },
    /// No topic has this id.
    #[error("{record} names topic {topic}, which is not there")]
    UnknownTopic {
        /// The record's name.
        record: &'static str,
        /// The id.
        topic: TopicId,
    },
    /// A number of partitions or of assignments that cannot be.
    #[error("topic {topic}: {cause}")]
    Partitions {
        /// Its id.
        topic: TopicId,
        /// What is wrong.
        cause: &'static str,
    },
    /// The block overlaps ids that were given out, or holds none.
    #[error("producer ids from {first} overlap those before {next}, or are none")]
    ProducerIds {
        /// The block's first id.
        first: ProducerId,
        /// The first id that no block holds.
        next: ProducerId,
    },
}

impl Image {
    /// Applies one record, whose offset becomes the image's version. On an error the image is as it was.
    pub fn apply(&mut self, record: &Record) -> Result<(), ApplyError> {
        let is_first = matches!(record, Record::ClusterCreated { .. });
        if is_first == self.cluster_id.is_some() {
            return Err(ApplyError::ClusterIdentity { record: record.name() });
        }
        match record {
            Record::ClusterCreated { cluster_id } => self.cluster_id = Some(*cluster_id),
            Record::NodeStarted { node, shard_count, format } => self.start_node(*node, *shard_count, *format)?,
            Record::TopicCreated(topic) => self.create_topic(topic)?,
            Record::TopicDeleted { topic } => self.delete_topic(*topic)?,
            Record::PartitionsMaterialized { partitions } => self.materialize(partitions)?,
            Record::TopicConfigChanged { topic, configs } => {
                self.known(record, *topic)?;
                let topic = self.topics.get_mut(topic).expect("it was looked up");
                Arc::make_mut(topic).configs = Arc::new(configs.clone());
            }
            Record::PartitionsAdded { topic, partition_count, assignments } => {
                let before = self.known(record, *topic)?.partition_count;
                self.add_partitions(*topic, before, *partition_count, assignments)?;
            }
            Record::ProducerIdBlock(block) => {
                let next = self.next_producer_id;
                let end = block.first.0.checked_add(i64::from(block.count));
                match end {
                    Some(end) if block.first >= next && block.count > 0 => self.next_producer_id = ProducerId(end),
                    _ => return Err(ApplyError::ProducerIds { first: block.first, next }),
                }
            }
            Record::TopicDirectoriesRemoved { topic } => {
                let unknown = ApplyError::UnknownTopic { record: record.name(), topic: *topic };
                self.deleted.remove(topic).ok_or(unknown)?;
            }
            Record::GroupConfigChanged { group, configs } => {
                let groups = Arc::make_mut(&mut self.group_configs);
                match configs.is_empty() {
                    true => drop(groups.remove(group.as_str())),
                    false => drop(groups.insert(group.as_str().into(), configs.clone())),
                }
            }
        }
        self.version = self.version.plus(1);
        Ok(())
    }

    fn known(&self, record: &Record, topic: TopicId) -> Result<&TopicImage, ApplyError> {
        let unknown = ApplyError::UnknownTopic { record: record.name(), topic };
        self.topics.get(&topic).map(|topic| &**topic).ok_or(unknown)
    }

    /// The effect of a PartitionsMaterialized on the topics; the version stays.
    pub(super) fn materialize(&mut self, partitions: &[TopicIdPartition]) -> Result<(), ApplyError> {
        // Judged before anything is changed, so that an error changes nothing.
        for partition in partitions {
            let unknown = ApplyError::UnknownTopic { record: "PartitionsMaterialized", topic: partition.topic };
            check_partition(self.topics.get(&partition.topic).ok_or(unknown)?, partition.partition)?;
        }
        for partition in partitions {
            let topic = self.topics.get_mut(&partition.topic).expect("it was looked up");
            Arc::make_mut(topic).set_materialized(partition.partition);
        }
        Ok(())
    }

    fn start_node(&mut self, node: NodeId, shard_count: u16, format: u16) -> Result<(), ApplyError> {
        if format > DATA_FORMAT {
            return Err(ApplyError::NewerFormat { format });
        }
        let node_fits = (0..i32::MAX / 1000).contains(&node.0);
        if !node_fits || shard_count == 0 || usize::from(shard_count) > SHARD_COUNT_MAX {
            return Err(ApplyError::Node { node, shard_count });
        }
        let nodes = Arc::make_mut(&mut self.nodes);
        let start_count = nodes.get(&node).map_or(0, |node| node.start_count) + 1;
        nodes.insert(node, NodeImage { shard_count, start_count });
        self.start_count += 1;
        self.brokers = brokers(self);
        Ok(())
    }

    fn create_topic(&mut self, created: &TopicCreated) -> Result<(), ApplyError> {
        let id = created.id;
        let taken = self.topics.get(&id).is_some()
            || self.deleted.get(&id).is_some()
            || self.ids_by_name.get(created.name.as_str()).is_some();
        if id.is_none() || taken {
            return Err(ApplyError::TopicExists { topic: id, name: created.name.clone() });
        }
        check_partition_count(id, created.partition_count)?;
        if !created.assignments.is_empty() && created.assignments.len() != created.partition_count as usize {
            return Err(ApplyError::Partitions { topic: id, cause: "it has not one assignment for each partition" });
        }
        let name: Arc<str> = created.name.as_str().into();
        self.ids_by_name.insert(name.clone(), id);
        if let Some(collision) = collision_key(&name) {
            self.names_by_collision.insert(collision, name.clone());
        }
        self.partition_count += created.partition_count as usize;
        let topic = TopicImage {
            id,
            name,
            partition_count: created.partition_count,
            replication_factor: created.replication_factor,
            configs: Arc::new(created.configs.clone()),
            created_at_start: self.start_count,
            assignments: created.assignments.as_slice().into(),
            materialized: vec![0; TopicImage::bit_words(created.partition_count)],
        };
        self.topics.insert(id, Arc::new(topic));
        Ok(())
    }

    fn delete_topic(&mut self, id: TopicId) -> Result<(), ApplyError> {
        let unknown = ApplyError::UnknownTopic { record: "TopicDeleted", topic: id };
        let topic = self.topics.remove(&id).ok_or(unknown)?;
        self.ids_by_name.remove(&*topic.name);
        if let Some(collision) = collision_key(&topic.name)
            && self.names_by_collision.get(&*collision) == Some(&topic.name)
        {
            self.names_by_collision.remove(&*collision);
        }
        self.partition_count -= topic.partition_count as usize;
        let deleted = DeletedTopic { name: topic.name.clone(), partition_count: topic.partition_count };
        self.deleted.insert(id, deleted);
        Ok(())
    }

    fn add_partitions(
        &mut self,
        id: TopicId,
        before: i32,
        partition_count: i32,
        added: &[Vec<BrokerId>],
    ) -> Result<(), ApplyError> {
        check_partition_count(id, partition_count)?;
        if partition_count <= before {
            return Err(ApplyError::Partitions { topic: id, cause: "its number of partitions can only grow" });
        }
        let added_count = (partition_count - before) as usize;
        if !added.is_empty() && added.len() != added_count {
            return Err(ApplyError::Partitions {
                topic: id,
                cause: "it has not one assignment for each added partition",
            });
        }
        self.partition_count += added_count;
        let topic = Arc::make_mut(self.topics.get_mut(&id).expect("it was looked up"));
        topic.partition_count = partition_count;
        topic.materialized.resize(TopicImage::bit_words(partition_count), 0);
        if !topic.assignments.is_empty() || !added.is_empty() {
            // Partitions that nobody chose brokers for have an empty choice, which is placed.
            let mut assignments = topic.assignments.to_vec();
            assignments.resize(before as usize, Vec::new());
            assignments.extend_from_slice(added);
            assignments.resize(partition_count as usize, Vec::new());
            topic.assignments = assignments.into();
        }
        Ok(())
    }
}

/// What a topic's name becomes when `.` and `_` are not told apart, as in the names of Kafka's metrics; `None` if it
/// has neither.
pub(super) fn collision_key(name: &str) -> Option<Arc<str>> {
    name.contains(['.', '_']).then(|| name.replace('.', "_").into())
}

/// The shards of all nodes, ascending: nodes ascend, and broker ids leave a node more room than it has shards.
pub(super) fn brokers(image: &Image) -> Arc<[BrokerId]> {
    let shards = |(node, of): (&NodeId, &NodeImage)| {
        let node = *node;
        (0..of.shard_count).map(move |shard| ShardId(shard).broker(node))
    };
    image.nodes.iter().flat_map(shards).collect()
}

fn check_partition(topic: &TopicImage, partition: PartitionIndex) -> Result<(), ApplyError> {
    if topic.has(partition) {
        Ok(())
    } else {
        Err(ApplyError::Partitions { topic: topic.id, cause: "it does not have the partition" })
    }
}

fn check_partition_count(topic: TopicId, partition_count: i32) -> Result<(), ApplyError> {
    if (1..=TOPIC_PARTITION_COUNT_MAX as i32).contains(&partition_count) {
        Ok(())
    } else {
        Err(ApplyError::Partitions { topic, cause: "its number of partitions is not within the limit" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::image::ClusterId;
    use crate::controller::records::ProducerIdBlock;
    use crate::model::configs::Overrides;
    use crate::model::id::{LeaderEpoch, Offset};
    use uuid::Uuid;

    fn id(number: u128) -> TopicId {
        TopicId(Uuid::from_u128(number))
    }

    fn created(number: u128, name: &str, partition_count: i32) -> Record {
        Record::TopicCreated(TopicCreated {
            id: id(number),
            name: name.to_owned(),
            partition_count,
            replication_factor: 1,
            assignments: Vec::new(),
            configs: Overrides::new(),
        })
    }

    fn started(shard_count: u16) -> Record {
        Record::NodeStarted { node: NodeId(0), shard_count, format: DATA_FORMAT }
    }

    fn image(shard_count: u16) -> Image {
        let mut image = Image::default();
        image.apply(&Record::ClusterCreated { cluster_id: ClusterId(Uuid::from_u128(1)) }).unwrap();
        image.apply(&started(shard_count)).unwrap();
        image
    }

    #[test]
    fn a_topic_is_found_by_name_and_id_until_it_is_deleted() {
        let mut image = image(2);
        image.apply(&created(1, "a.b", 3)).unwrap();
        assert_eq!(image.version(), Offset(2));
        let topic = image.topic_by_name("a.b").unwrap().clone();
        assert_eq!((topic.id, image.topic_count(), image.partition_count()), (id(1), 1, 3));
        assert!(!topic.is_materialized(PartitionIndex(2)) && !topic.has(PartitionIndex(3)));

        image.apply(&Record::TopicDeleted { topic: id(1) }).unwrap();
        assert!(image.topic_by_name("a.b").is_none() && image.topic(id(1)).is_none());
        assert_eq!(
            image.deleted_topics().map(|(id, topic)| (id, topic.partition_count)).collect::<Vec<_>>(),
            [(id(1), 3)]
        );
        // The id stays taken as long as directories bear it; the name is free at once.
        assert!(matches!(image.apply(&created(1, "other", 1)), Err(ApplyError::TopicExists { .. })));
        image.apply(&created(2, "a.b", 1)).unwrap();
        image.apply(&Record::TopicDirectoriesRemoved { topic: id(1) }).unwrap();
        assert_eq!((image.deleted_topics().count(), image.partition_count()), (0, 1));
    }

    #[test]
    fn a_groups_settings_are_those_of_its_last_record() {
        let mut image = image(1);
        let changed = |group: &str, value: Option<&str>| Record::GroupConfigChanged {
            group: group.into(),
            configs: value.into_iter().map(|value| ("k".to_owned(), value.to_owned())).collect(),
        };
        let of = |image: &Image, group: &str| image.group_configs().get(group).map(|configs| configs["k"].clone());
        for record in [changed("a", Some("1")), changed("b", Some("2")), changed("a", Some("3"))] {
            image.apply(&record).unwrap();
        }
        assert_eq!((of(&image, "a"), of(&image, "b")), (Some("3".into()), Some("2".into())));
        image.apply(&changed("a", None)).unwrap();
        assert_eq!((of(&image, "a"), image.group_configs().len()), (None, 1));
    }

    #[test]
    fn every_start_raises_every_leader_epoch() {
        let mut image = image(3);
        image.apply(&created(1, "old", 4)).unwrap();
        let epoch = |image: &Image, name: &str| image.leader_epoch(image.topic_by_name(name).unwrap());
        assert_eq!(epoch(&image, "old"), LeaderEpoch(0));
        image.apply(&started(3)).unwrap();
        image.apply(&created(2, "new", 4)).unwrap();
        assert_eq!((epoch(&image, "old"), epoch(&image, "new")), (LeaderEpoch(1), LeaderEpoch(0)));
        image.apply(&started(3)).unwrap();
        assert_eq!((epoch(&image, "old"), epoch(&image, "new")), (LeaderEpoch(2), LeaderEpoch(1)));
    }

    #[test]
    fn another_number_of_shards_moves_owners_and_raises_epochs() {
        let mut image = image(2);
        image.apply(&created(1, "t", 30)).unwrap();
        let leaders = |image: &Image| {
            let topic = image.topic(id(1)).unwrap();
            topic.partitions().map(|partition| image.leader(topic, partition).unwrap()).collect::<Vec<_>>()
        };
        let before = leaders(&image);
        image.apply(&started(5)).unwrap();
        let after = leaders(&image);
        assert_ne!(before, after);
        assert_eq!(image.leader_epoch(image.topic(id(1)).unwrap()), LeaderEpoch(1));
        assert_eq!(image.brokers().len(), 5);
        for broker in image.brokers() {
            assert_eq!(after.iter().filter(|leader| *leader == broker).count(), 6);
        }
        // The same number as before gives the same owners as before.
        image.apply(&started(2)).unwrap();
        assert_eq!(leaders(&image), before);
    }

    #[test]
    fn a_chosen_broker_leads_as_long_as_it_exists() {
        let mut image = image(3);
        let assignments = vec![vec![BrokerId(3)], vec![BrokerId(1)], vec![BrokerId(3)]];
        let Record::TopicCreated(topic) = created(1, "t", 3) else { unreachable!() };
        image.apply(&Record::TopicCreated(TopicCreated { assignments, ..topic })).unwrap();
        let leader = |image: &Image, index| image.leader(image.topic(id(1)).unwrap(), PartitionIndex(index)).unwrap().0;
        assert_eq!([0, 1, 2].map(|index| leader(&image, index)), [3, 1, 3]);
        image.apply(&started(2)).unwrap();
        assert!(leader(&image, 0) <= 2 && leader(&image, 1) == 1 && leader(&image, 2) <= 2);
        image.apply(&started(3)).unwrap();
        assert_eq!([0, 1, 2].map(|index| leader(&image, index)), [3, 1, 3]);
    }

    #[test]
    fn partitions_are_added_at_the_end() {
        let mut image = image(2);
        image.apply(&created(1, "t", 2)).unwrap();
        let materialized = |partition| Record::PartitionsMaterialized {
            partitions: vec![TopicIdPartition { topic: id(1), partition: PartitionIndex(partition) }],
        };
        image.apply(&materialized(1)).unwrap();
        let add = |partition_count, assignments| Record::PartitionsAdded { topic: id(1), partition_count, assignments };
        image.apply(&add(100, Vec::new())).unwrap();
        image.apply(&materialized(99)).unwrap();
        let topic = image.topic(id(1)).unwrap();
        let bits: Vec<i32> =
            topic.partitions().filter(|index| topic.is_materialized(*index)).map(|index| index.0).collect();
        assert_eq!((bits, image.partition_count()), (vec![1, 99], 100));
        assert!(image.apply(&add(100, Vec::new())).is_err() && image.apply(&add(102, vec![vec![]])).is_err());
        image.apply(&add(101, vec![vec![BrokerId(2)]])).unwrap();
        assert_eq!(image.leader(image.topic(id(1)).unwrap(), PartitionIndex(100)), Some(BrokerId(2)));
    }

    #[test]
    fn what_does_not_fit_is_refused_and_changes_nothing() {
        let mut image = image(2);
        image.apply(&created(1, "t", 2)).unwrap();
        image.apply(&Record::ProducerIdBlock(ProducerIdBlock { first: ProducerId(0), count: 10 })).unwrap();
        let before = image.clone();
        let partition = |topic, index| TopicIdPartition { topic: id(topic), partition: PartitionIndex(index) };
        for record in [
            Record::ClusterCreated { cluster_id: ClusterId(Uuid::from_u128(2)) },
            Record::NodeStarted { node: NodeId(0), shard_count: 0, format: 1 },
            Record::NodeStarted { node: NodeId(-1), shard_count: 1, format: 1 },
            Record::NodeStarted { node: NodeId(0), shard_count: 1, format: DATA_FORMAT + 1 },
            created(1, "other", 1),
            created(2, "t", 1),
            created(0, "none", 1),
            created(3, "empty", 0),
            created(3, "huge", i32::MAX),
            Record::TopicDeleted { topic: id(9) },
            Record::PartitionsMaterialized { partitions: vec![partition(1, 0), partition(1, 2)] },
            Record::PartitionsMaterialized { partitions: vec![partition(1, 0), partition(9, 0)] },
            Record::TopicConfigChanged { topic: id(9), configs: Overrides::new() },
            Record::ProducerIdBlock(ProducerIdBlock { first: ProducerId(9), count: 10 }),
            Record::ProducerIdBlock(ProducerIdBlock { first: ProducerId(10), count: 0 }),
            Record::ProducerIdBlock(ProducerIdBlock { first: ProducerId(i64::MAX), count: 1 }),
            Record::TopicDirectoriesRemoved { topic: id(1) },
        ] {
            assert!(image.apply(&record).is_err(), "{record:?}");
            assert_eq!(image, before, "{record:?}");
        }
        assert!(Image::default().apply(&started(1)).is_err(), "a log begins with the cluster's identity");
    }

    #[test]
    fn a_copy_keeps_what_it_saw() {
        let mut image = image(2);
        image.apply(&created(1, "t", 2)).unwrap();
        let copy = image.clone();
        image.apply(&Record::TopicDeleted { topic: id(1) }).unwrap();
        image.apply(&created(2, "t", 9)).unwrap();
        assert_eq!(copy.topic_by_name("t").unwrap().partition_count, 2);
    }
}
