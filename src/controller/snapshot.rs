//! The image as bytes, so that the metadata log before it may be cut.
//!
//! A snapshot is a row of parts, each an rkyv archive in the [`envelope`] that all of ottla's archives have
//! (checksummed, versioned, whole blocks). Parts have a bound, so that any number of topics fits; a part's sequence is
//! its place in the row, the first one says how many there are, and every part bears the image's version, so that
//! parts of different snapshots never pass for one. Version 1 knew no groups with settings of their own.
//!
//! Invariants: what is read back equals what was written; it is checked as a whole before it is believed: damage, a
//! missing part or contents that cannot be are errors, never an image with less in it.
//! It must not know where snapshots are kept.

use std::collections::BTreeMap;
use std::sync::Arc;

use rkyv::rancor;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};
use uuid::Uuid;

use crate::controller::apply::{brokers, collision_key};
use crate::controller::image::{ClusterId, DeletedTopic, Image, NodeImage, TopicImage};
use crate::controller::records::DATA_FORMAT;
use crate::model::configs::Overrides;
use crate::model::id::{BrokerId, NodeId, Offset, ProducerId, TopicId};
use crate::model::limits::{ENVELOPE_SIZE_BYTES_MAX, SHARD_COUNT_MAX, TOPIC_PARTITION_COUNT_MAX};
use crate::storage::envelope::{self, EnvelopeError, Kind};

/// Magic and version of a part.
pub const KIND: Kind = Kind { magic: *b"ottlaMSN", version: 2, version_min: 1 };

/// Estimated bytes of topics after which a part is full. A single topic may be larger: with the most partitions, each
/// assigned to as many brokers as a node can have, it could pass the envelope's bound only if the policy pretends.
const PART_SIZE_BYTES: usize = ENVELOPE_SIZE_BYTES_MAX / 4;

/// What one part holds. The first has everything but topics, and how many parts there are.
#[derive(Archive, Serialize, Deserialize, Debug, Default)]
struct Part {
    version: i64,
    part_count: u64,
    head: Option<Head>,
    topics: Vec<Topic>,
    deleted: Vec<Deleted>,
    groups: Vec<Group>,
}

/// A part as version 1 wrote it.
#[derive(Archive, Serialize, Deserialize, Debug, Default)]
struct PartOne {
    version: i64,
    part_count: u64,
    head: Option<Head>,
    topics: Vec<Topic>,
    deleted: Vec<Deleted>,
}

#[derive(Archive, Serialize, Deserialize, Debug)]
struct Head {
    format: u16,
    cluster_id: Option<[u8; 16]>,
    start_count: i32,
    next_producer_id: i64,
    nodes: Vec<Node>,
}

#[derive(Archive, Serialize, Deserialize, Debug)]
struct Node {
    id: i32,
    shard_count: u16,
    start_count: i32,
}

#[derive(Archive, Serialize, Deserialize, Debug)]
struct Topic {
    id: [u8; 16],
    name: String,
    partition_count: i32,
    replication_factor: i16,
    created_at_start: i32,
    configs: Vec<(String, String)>,
    assignments: Vec<Vec<i32>>,
    materialized: Vec<u64>,
}

#[derive(Archive, Serialize, Deserialize, Debug)]
struct Deleted {
    id: [u8; 16],
    name: String,
    partition_count: i32,
}

/// A group that has settings of its own.
#[derive(Archive, Serialize, Deserialize, Debug)]
struct Group {
    id: String,
    configs: Vec<(String, String)>,
}

/// Why bytes are not a snapshot. The disk's fault, or a newer version of ottla wrote them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// A part is damaged or of another version.
    #[error("part {part} of the metadata snapshot: {cause}")]
    Part {
        /// Its place in the row.
        part: u64,
        /// What is wrong with it.
        cause: EnvelopeError,
    },
    /// The parts are not all there, or not of one snapshot.
    #[error("the metadata snapshot is not whole: part {part} is not the one that belongs there")]
    Row {
        /// The place in the row.
        part: u64,
    },
    /// The data directory belongs to a newer version of ottla.
    #[error("the metadata snapshot has format {format}, and this version of ottla reads up to {DATA_FORMAT}")]
    NewerFormat {
        /// Its format.
        format: u16,
    },
    /// The parts are sound, but what they say cannot be.
    #[error("the metadata snapshot cannot be: {cause}")]
    Contents {
        /// What cannot be.
        cause: &'static str,
    },
}

/// The image's bytes, whole blocks.
pub fn encode(image: &Image) -> Vec<u8> {
    let mut parts = vec![Part { head: Some(head(image)), ..Part::default() }];
    let mut size_bytes = 0;
    let mut room_for = |parts: &mut Vec<Part>, entry_size_bytes: usize| {
        if size_bytes + entry_size_bytes > PART_SIZE_BYTES && size_bytes > 0 {
            parts.push(Part::default());
            size_bytes = 0;
        }
        size_bytes += entry_size_bytes;
    };
    for topic in image.topics() {
        room_for(&mut parts, size_of_topic(topic));
        parts.last_mut().expect("at least one").topics.push(archive_topic(topic));
    }
    for (id, topic) in image.deleted_topics() {
        room_for(&mut parts, 64 + topic.name.len());
        parts.last_mut().expect("at least one").deleted.push(Deleted {
            id: id.0.into_bytes(),
            name: topic.name.to_string(),
            partition_count: topic.partition_count,
        });
    }
    for (id, configs) in image.group_configs().iter() {
        room_for(&mut parts, 32 + id.len() + size_of_configs(configs));
        parts
            .last_mut()
            .expect("at least one")
            .groups
            .push(Group { id: id.to_string(), configs: archive_configs(configs) });
    }
    let part_count = parts.len() as u64;
    let mut bytes = Vec::new();
    for (place, part) in (0..).zip(parts) {
        let part = Part { version: image.version().0, part_count, ..part };
        bytes.extend_from_slice(&envelope::seal(KIND, place, &part));
    }
    bytes
}

/// The image that `bytes` hold; what follows the last part is ignored.
pub fn decode(bytes: &[u8]) -> Result<Image, SnapshotError> {
    let mut image = Image::default();
    let mut start = 0;
    let mut place = 0;
    loop {
        let at = |cause| SnapshotError::Part { part: place, cause };
        let rest = bytes.get(start..).unwrap_or_default();
        let envelope = envelope::open(KIND, rest).map_err(at)?;
        let part = open(envelope.version, envelope.payload).map_err(at)?;
        let belongs = envelope.sequence == place
            && part.head.is_some() == (place == 0)
            && (place == 0 || part.version == image.version.0)
            && part.part_count > place;
        if !belongs {
            return Err(SnapshotError::Row { part: place });
        }
        let (size_bytes, part_count) = (envelope.size_bytes, part.part_count);
        restore(&mut image, part)?;
        start += size_bytes;
        place += 1;
        if place == part_count {
            return Ok(image);
        }
    }
}

/// Copies the archive out; the bytes may lie anywhere, an archive must lie at a multiple of 16.
fn open(version: u32, payload: &[u8]) -> Result<Part, EnvelopeError> {
    let mut aligned: AlignedVec<16> = AlignedVec::with_capacity(payload.len());
    aligned.extend_from_slice(payload);
    let part = match version {
        1 => rkyv::from_bytes::<PartOne, rancor::Error>(&aligned).map(|one| {
            let PartOne { version, part_count, head, topics, deleted } = one;
            Part { version, part_count, head, topics, deleted, groups: Vec::new() }
        }),
        _ => rkyv::from_bytes::<Part, rancor::Error>(&aligned),
    };
    part.map_err(|_| EnvelopeError::Malformed)
}

fn head(image: &Image) -> Head {
    let node = |(id, node): (&NodeId, &NodeImage)| Node {
        id: id.0,
        shard_count: node.shard_count,
        start_count: node.start_count,
    };
    Head {
        format: DATA_FORMAT,
        cluster_id: image.cluster_id().map(|id| id.0.into_bytes()),
        start_count: image.start_count(),
        next_producer_id: image.next_producer_id().0,
        nodes: image.nodes().iter().map(node).collect(),
    }
}

fn archive_topic(topic: &TopicImage) -> Topic {
    let numbers = |brokers: &Vec<BrokerId>| brokers.iter().map(|broker| broker.0).collect();
    Topic {
        id: topic.id.0.into_bytes(),
        name: topic.name.to_string(),
        partition_count: topic.partition_count,
        replication_factor: topic.replication_factor,
        created_at_start: topic.created_at_start,
        configs: archive_configs(&topic.configs),
        assignments: topic.assignments.iter().map(numbers).collect(),
        materialized: topic.materialized.clone(),
    }
}

fn archive_configs(configs: &Overrides) -> Vec<(String, String)> {
    configs.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// About what settings take in the archive.
fn size_of_configs(configs: &Overrides) -> usize {
    configs.iter().map(|(name, value)| 16 + name.len() + value.len()).sum()
}

/// About what a topic takes in the archive.
fn size_of_topic(topic: &TopicImage) -> usize {
    let configs = size_of_configs(&topic.configs);
    let assignments: usize = topic.assignments.iter().map(|brokers| 8 + 4 * brokers.len()).sum();
    96 + topic.name.len() + configs + assignments + 8 * topic.materialized.len()
}

/// Adds a part to the image, if what it says can be.
fn restore(image: &mut Image, part: Part) -> Result<(), SnapshotError> {
    let impossible = |cause| Err(SnapshotError::Contents { cause });
    if let Some(head) = part.head {
        if head.format > DATA_FORMAT {
            return Err(SnapshotError::NewerFormat { format: head.format });
        }
        if part.version < -1 || head.start_count < 0 || head.next_producer_id < 0 {
            return impossible("a number is negative");
        }
        image.version = Offset(part.version);
        image.cluster_id = head.cluster_id.map(|id| ClusterId(Uuid::from_bytes(id)));
        image.start_count = head.start_count;
        image.next_producer_id = ProducerId(head.next_producer_id);
        let mut nodes = BTreeMap::new();
        for Node { id, shard_count, start_count } in head.nodes {
            let fits = (0..i32::MAX / 1000).contains(&id) && (1..=SHARD_COUNT_MAX).contains(&usize::from(shard_count));
            if !fits || nodes.insert(NodeId(id), NodeImage { shard_count, start_count }).is_some() {
                return impossible("a node is there twice, or has no shards");
            }
        }
        image.nodes = Arc::new(nodes);
        image.brokers = brokers(image);
    }
    for topic in part.topics {
        restore_topic(image, topic)?;
    }
    for Deleted { id, name, partition_count } in part.deleted {
        let deleted = DeletedTopic { name: name.into(), partition_count };
        if image.deleted.insert(TopicId(Uuid::from_bytes(id)), deleted).is_some() {
            return impossible("a deleted topic is there twice");
        }
    }
    for Group { id, configs } in part.groups {
        let groups = Arc::make_mut(&mut image.group_configs);
        if groups.insert(id.into(), configs.into_iter().collect()).is_some() {
            return impossible("a group is there twice");
        }
    }
    Ok(())
}

fn restore_topic(image: &mut Image, topic: Topic) -> Result<(), SnapshotError> {
    let impossible = |cause| Err(SnapshotError::Contents { cause });
    let id = TopicId(Uuid::from_bytes(topic.id));
    let name: Arc<str> = topic.name.into();
    if !(1..=TOPIC_PARTITION_COUNT_MAX as i32).contains(&topic.partition_count)
        || topic.materialized.len() != TopicImage::bit_words(topic.partition_count)
        || ![0, topic.partition_count as usize].contains(&topic.assignments.len())
        || !(0..=image.start_count).contains(&topic.created_at_start)
    {
        return impossible("a topic's partitions do not fit together");
    }
    if image.ids_by_name.insert(name.clone(), id).is_some() {
        return impossible("a topic's name is there twice");
    }
    if let Some(collision) = collision_key(&name) {
        image.names_by_collision.insert(collision, name.clone());
    }
    image.partition_count += topic.partition_count as usize;
    let restored = TopicImage {
        id,
        name,
        partition_count: topic.partition_count,
        replication_factor: topic.replication_factor,
        configs: Arc::new(topic.configs.into_iter().collect()),
        created_at_start: topic.created_at_start,
        assignments: topic.assignments.into_iter().map(|of| of.into_iter().map(BrokerId).collect()).collect(),
        materialized: topic.materialized,
    };
    match image.topics.insert(id, Arc::new(restored)) {
        None => Ok(()),
        Some(_) => impossible("a topic's id is there twice"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;
    use crate::controller::records::{ProducerIdBlock, Record, TopicCreated};
    use crate::model::id::{PartitionIndex, TopicIdPartition};
    use crate::model::limits::BLOCK_SIZE_BYTES;

    /// An image with something of everything.
    fn image(topic_count: u128, config_size: usize) -> Image {
        let mut image = Image::default();
        let mut apply = |record: Record| image.apply(&record).unwrap();
        apply(Record::ClusterCreated { cluster_id: ClusterId(Uuid::from_u128(7)) });
        apply(Record::NodeStarted { node: NodeId(0), shard_count: 3, format: DATA_FORMAT });
        apply(Record::NodeStarted { node: NodeId(2), shard_count: 1, format: DATA_FORMAT });
        apply(Record::ProducerIdBlock(ProducerIdBlock { first: ProducerId(5000), count: 1000 }));
        for number in 1..=topic_count {
            let id = TopicId(Uuid::from_u128(number));
            apply(Record::TopicCreated(TopicCreated {
                id,
                name: format!("topic.{number}"),
                partition_count: 70,
                replication_factor: 1,
                assignments: if number % 2 == 0 { Vec::new() } else { vec![vec![BrokerId(2)]; 70] },
                configs: Overrides::from([("retention.ms".into(), "5".repeat(config_size))]),
            }));
            let partitions = vec![TopicIdPartition { topic: id, partition: PartitionIndex(69) }];
            apply(Record::PartitionsMaterialized { partitions });
        }
        apply(Record::GroupConfigChanged {
            group: "group".into(),
            configs: Overrides::from([("consumer.session.timeout.ms".into(), "5".into())]),
        });
        apply(Record::TopicDeleted { topic: TopicId(Uuid::from_u128(2)) });
        apply(Record::NodeStarted { node: NodeId(0), shard_count: 2, format: DATA_FORMAT });
        image
    }

    #[test]
    fn an_image_survives_its_bytes() {
        for image in [Image::default(), image(2, 1), image(300, 100)] {
            let bytes = encode(&image);
            assert!(bytes.len().is_multiple_of(BLOCK_SIZE_BYTES));
            assert_eq!(decode(&bytes), Ok(image.clone()));
            // Wherever the bytes lie in memory, and whatever follows them.
            assert_eq!(decode(&[&[0], &bytes[..], &[9; 5000]].concat()[1..]), Ok(image));
        }
    }

    #[test]
    fn a_part_of_version_one_is_read() {
        // As it was written before groups had settings.
        let mut image = image(2, 1);
        image.group_configs = Arc::default();
        let topics = image.topics().map(|topic| archive_topic(topic)).collect();
        let deleted = image.deleted_topics().map(|(id, topic)| Deleted {
            id: id.0.into_bytes(),
            name: topic.name.to_string(),
            partition_count: topic.partition_count,
        });
        let deleted = deleted.collect();
        let part = PartOne { version: image.version().0, part_count: 1, head: Some(head(&image)), topics, deleted };
        assert_eq!(decode(&envelope::seal(Kind { version: 1, ..KIND }, 0, &part)), Ok(image));
    }

    #[test]
    fn a_restored_image_goes_on_like_the_one_it_was_made_of() {
        let mut image = image(10, 1);
        let mut restored = decode(&encode(&image)).unwrap();
        for record in [
            Record::NodeStarted { node: NodeId(0), shard_count: 5, format: DATA_FORMAT },
            Record::TopicDeleted { topic: TopicId(Uuid::from_u128(1)) },
            Record::TopicDirectoriesRemoved { topic: TopicId(Uuid::from_u128(2)) },
        ] {
            image.apply(&record).unwrap();
            restored.apply(&record).unwrap();
        }
        assert_eq!(image, restored);
    }

    #[test]
    fn an_image_larger_than_a_part_fits() {
        let image = image(600, 30_000);
        let bytes = encode(&image);
        assert!(bytes.len() > ENVELOPE_SIZE_BYTES_MAX);
        assert_eq!(decode(&bytes), Ok(image));
    }

    #[test]
    fn a_missing_or_foreign_part_is_noticed() {
        let bytes = encode(&image(600, 30_000));
        let second = envelope::size_of_envelope(KIND, &bytes).unwrap();
        assert!(matches!(decode(&bytes[..second]), Err(SnapshotError::Part { part: 1, .. })));
        assert_eq!(decode(&bytes[second..]), Err(SnapshotError::Row { part: 0 }));
        // The first part of a later image before the second of this one.
        let mut later = image(600, 30_000);
        later.apply(&Record::TopicDeleted { topic: TopicId(Uuid::from_u128(1)) }).unwrap();
        let later = encode(&later);
        let first = envelope::size_of_envelope(KIND, &later).unwrap();
        assert_eq!(decode(&[&later[..first], &bytes[second..]].concat()), Err(SnapshotError::Row { part: 1 }));
    }

    #[test]
    fn damage_is_an_error_and_never_another_image() {
        // Flips one byte after another at random places; padding does not count.
        let image = image(20, 10);
        let bytes = encode(&image);
        let mut rng = Rng::new(21);
        for _ in 0..2_000 {
            let mut damaged = bytes.clone();
            let at = rng.in_range(0..bytes.len() as u64) as usize;
            damaged[at] ^= 1 << rng.in_range(0..8);
            match decode(&damaged) {
                Ok(read) => assert_eq!(read, image, "byte {at}"),
                Err(error) => assert!(matches!(error, SnapshotError::Part { part: 0, .. }), "{error}"),
            }
        }
        for end in (0..bytes.len()).step_by(97) {
            let _ = decode(&bytes[..end]);
        }
    }
}
