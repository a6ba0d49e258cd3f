//! The records of the metadata log and their bytes.
//!
//! A record is the value of one record in a batch of the metadata log:
//! ```text
//!  0  type      u8
//!  1  version   u8    of this type's layout, from 0
//!  2  fields
//! ```
//! Integers are big-endian. A text is a u16 length and UTF-8, a list a u32 count and its entries, an id 16 bytes.
//! Records stay for ever: a change of layout is a new version beside the old one, and a version from the future is an
//! error that says so, never a guess.

use uuid::Uuid;

use crate::controller::image::ClusterId;
use crate::model::configs::Overrides;
use crate::model::id::{BrokerId, NodeId, PartitionIndex, ProducerId, TopicId, TopicIdPartition};

/// The version of the data directory that this broker writes. A start records it; a later format is refused.
pub const DATA_FORMAT: u16 = 2;

/// One change of the metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The cluster's identity: the first record of a log.
    ClusterCreated {
        /// The identity.
        cluster_id: ClusterId,
    },
    /// A node was started. Raises every leader epoch.
    NodeStarted {
        /// Which node.
        node: NodeId,
        /// How many shards it has from now on.
        shard_count: u16,
        /// The version of its data directory.
        format: u16,
    },
    /// A topic exists from now on.
    TopicCreated(TopicCreated),
    /// A topic is gone; its directories are to be removed.
    TopicDeleted {
        /// Which one.
        topic: TopicId,
    },
    /// These partitions may have data from now on.
    PartitionsMaterialized {
        /// Which ones.
        partitions: Vec<TopicIdPartition>,
    },
    /// A topic's own settings are these from now on.
    TopicConfigChanged {
        /// Which topic.
        topic: TopicId,
        /// All of its settings.
        configs: Overrides,
    },
    /// A topic has more partitions from now on.
    PartitionsAdded {
        /// Which topic.
        topic: TopicId,
        /// Its partitions, the old ones included.
        partition_count: i32,
        /// Brokers for each added partition, leader first; empty: placed.
        assignments: Vec<Vec<BrokerId>>,
    },
    /// Producer ids that are given out from now on.
    ProducerIdBlock(ProducerIdBlock),
    /// The directories of a deleted topic are gone.
    TopicDirectoriesRemoved {
        /// Which topic.
        topic: TopicId,
    },
    /// A group's own settings are these from now on.
    GroupConfigChanged {
        /// Its id.
        group: String,
        /// All of its settings.
        configs: Overrides,
    },
}

/// A topic as it was created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicCreated {
    /// Its identity.
    pub id: TopicId,
    /// Its name.
    pub name: String,
    /// How many partitions it has.
    pub partition_count: i32,
    /// Replicas that are shown for each partition.
    pub replication_factor: i16,
    /// Brokers for each partition, leader first; empty: placed.
    pub assignments: Vec<Vec<BrokerId>>,
    /// Its own settings.
    pub configs: Overrides,
}

/// A row of producer ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerIdBlock {
    /// The first.
    pub first: ProducerId,
    /// How many.
    pub count: i32,
}

/// Why bytes are not a record that this broker understands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A type that this broker does not know.
    #[error("metadata record type {record_type} is unknown: it was written by a newer version of ottla")]
    UnknownType {
        /// The type.
        record_type: u8,
    },
    /// A layout that this broker does not know.
    #[error(
        "metadata record {name} has version {version}, and this version of ottla reads up to {supported}: start a newer one"
    )]
    NewerVersion {
        /// The record's name.
        name: &'static str,
        /// Its version.
        version: u8,
        /// The newest that is understood.
        supported: u8,
    },
    /// The bytes end too early, go on too long, or hold what cannot be.
    #[error("metadata record {name} is damaged: {cause}")]
    Damaged {
        /// The record's name.
        name: &'static str,
        /// What is wrong.
        cause: &'static str,
    },
}

/// Numbers and names of the types, and the newest version of each.
const TYPES: [(u8, &str, u8); 10] = [
    (1, "ClusterCreated", 0),
    (2, "NodeStarted", 0),
    (3, "TopicCreated", 0),
    (4, "TopicDeleted", 0),
    (5, "PartitionsMaterialized", 0),
    (6, "TopicConfigChanged", 0),
    (7, "PartitionsAdded", 0),
    (8, "ProducerIdBlock", 0),
    (9, "TopicDirectoriesRemoved", 0),
    (10, "GroupConfigChanged", 0),
];

impl Record {
    /// The record's type, for people.
    pub fn name(&self) -> &'static str {
        TYPES[usize::from(self.record_type()) - 1].1
    }

    fn record_type(&self) -> u8 {
        match self {
            Record::ClusterCreated { .. } => 1,
            Record::NodeStarted { .. } => 2,
            Record::TopicCreated(_) => 3,
            Record::TopicDeleted { .. } => 4,
            Record::PartitionsMaterialized { .. } => 5,
            Record::TopicConfigChanged { .. } => 6,
            Record::PartitionsAdded { .. } => 7,
            Record::ProducerIdBlock(_) => 8,
            Record::TopicDirectoriesRemoved { .. } => 9,
            Record::GroupConfigChanged { .. } => 10,
        }
    }

    /// The record's bytes, in the newest version of its layout.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer(vec![self.record_type(), TYPES[usize::from(self.record_type()) - 1].2]);
        match self {
            Record::ClusterCreated { cluster_id } => out.uuid(cluster_id.0),
            Record::NodeStarted { node, shard_count, format } => {
                out.i32(node.0);
                out.u16(*shard_count);
                out.u16(*format);
            }
            Record::TopicCreated(topic) => {
                out.uuid(topic.id.0);
                out.text(&topic.name);
                out.i32(topic.partition_count);
                out.u16(topic.replication_factor as u16);
                out.assignments(&topic.assignments);
                out.configs(&topic.configs);
            }
            Record::TopicDeleted { topic } | Record::TopicDirectoriesRemoved { topic } => out.uuid(topic.0),
            Record::PartitionsMaterialized { partitions } => out.list(partitions, |out, partition| {
                out.uuid(partition.topic.0);
                out.i32(partition.partition.0);
            }),
            Record::TopicConfigChanged { topic, configs } => {
                out.uuid(topic.0);
                out.configs(configs);
            }
            Record::PartitionsAdded { topic, partition_count, assignments } => {
                out.uuid(topic.0);
                out.i32(*partition_count);
                out.assignments(assignments);
            }
            Record::ProducerIdBlock(block) => {
                out.i64(block.first.0);
                out.i32(block.count);
            }
            Record::GroupConfigChanged { group, configs } => {
                out.text(group);
                out.configs(configs);
            }
        }
        out.0
    }

    /// Reads a record's bytes: all of them, and nothing beside them.
    pub fn decode(bytes: &[u8]) -> Result<Record, DecodeError> {
        let [record_type, version, fields @ ..] = bytes else {
            return Err(DecodeError::Damaged {
                name: "without type",
                cause: "it is shorter than its type and version",
            });
        };
        let (record_type, version) = (*record_type, *version);
        let Some((_, name, supported)) = TYPES.iter().copied().find(|(number, ..)| *number == record_type) else {
            return Err(DecodeError::UnknownType { record_type });
        };
        if version > supported {
            return Err(DecodeError::NewerVersion { name, version, supported });
        }
        let mut fields = Reader { bytes: fields, name };
        let record = fields.record(record_type)?;
        match fields.bytes {
            [] => Ok(record),
            _ => Err(fields.damaged("bytes follow its end")),
        }
    }
}

struct Writer(Vec<u8>);

impl Writer {
    fn u16(&mut self, number: u16) {
        self.0.extend_from_slice(&number.to_be_bytes());
    }

    fn i32(&mut self, number: i32) {
        self.0.extend_from_slice(&number.to_be_bytes());
    }

    fn i64(&mut self, number: i64) {
        self.0.extend_from_slice(&number.to_be_bytes());
    }

    fn uuid(&mut self, uuid: Uuid) {
        self.0.extend_from_slice(uuid.as_bytes());
    }

    fn text(&mut self, text: &str) {
        // Names and configs come from requests whose texts have lengths of 16 bits.
        self.u16(u16::try_from(text.len()).expect("a text from a request"));
        self.0.extend_from_slice(text.as_bytes());
    }

    fn list<T>(&mut self, entries: &[T], mut write: impl FnMut(&mut Writer, &T)) {
        self.i32(i32::try_from(entries.len()).expect("a list of less than 2^31 entries"));
        for entry in entries {
            write(self, entry);
        }
    }

    fn assignments(&mut self, assignments: &[Vec<BrokerId>]) {
        self.list(assignments, |out, replicas| out.list(replicas, |out, broker| out.i32(broker.0)));
    }

    fn configs(&mut self, configs: &Overrides) {
        self.i32(i32::try_from(configs.len()).expect("a list of less than 2^31 entries"));
        for (name, value) in configs {
            self.text(name);
            self.text(value);
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    name: &'static str,
}

impl<'a> Reader<'a> {
    fn record(&mut self, record_type: u8) -> Result<Record, DecodeError> {
        Ok(match record_type {
            1 => Record::ClusterCreated { cluster_id: ClusterId(self.uuid()?) },
            2 => Record::NodeStarted { node: NodeId(self.i32()?), shard_count: self.u16()?, format: self.u16()? },
            3 => Record::TopicCreated(TopicCreated {
                id: self.topic()?,
                name: self.text()?.to_owned(),
                partition_count: self.i32()?,
                replication_factor: self.u16()? as i16,
                assignments: self.assignments()?,
                configs: self.configs()?,
            }),
            4 => Record::TopicDeleted { topic: self.topic()? },
            5 => Record::PartitionsMaterialized {
                partitions: self.list(20, |fields| {
                    Ok(TopicIdPartition { topic: fields.topic()?, partition: PartitionIndex(fields.i32()?) })
                })?,
            },
            6 => Record::TopicConfigChanged { topic: self.topic()?, configs: self.configs()? },
            7 => Record::PartitionsAdded {
                topic: self.topic()?,
                partition_count: self.i32()?,
                assignments: self.assignments()?,
            },
            8 => Record::ProducerIdBlock(ProducerIdBlock { first: ProducerId(self.i64()?), count: self.i32()? }),
            9 => Record::TopicDirectoriesRemoved { topic: self.topic()? },
            10 => Record::GroupConfigChanged { group: self.text()?.to_owned(), configs: self.configs()? },
            _ => unreachable!("the types were looked up in the table"),
        })
    }

    fn damaged(&self, cause: &'static str) -> DecodeError {
        DecodeError::Damaged { name: self.name, cause }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.bytes.split_at_checked(count).ok_or_else(|| self.damaged("it ends too early"))?;
        self.bytes = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        Ok(self.take(N)?.try_into().expect("as many bytes as were taken"))
    }

    fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    fn i32(&mut self) -> Result<i32, DecodeError> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    fn i64(&mut self) -> Result<i64, DecodeError> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    fn uuid(&mut self) -> Result<Uuid, DecodeError> {
        Ok(Uuid::from_bytes(self.array()?))
    }

    fn topic(&mut self) -> Result<TopicId, DecodeError> {
        Ok(TopicId(self.uuid()?))
    }

    fn text(&mut self) -> Result<&'a str, DecodeError> {
        let length = self.u16()?;
        std::str::from_utf8(self.take(usize::from(length))?).map_err(|_| self.damaged("a text is not UTF-8"))
    }

    /// A list whose entries have at least `entry_size_min` bytes: the count is checked before anything is reserved.
    fn list<T>(
        &mut self,
        entry_size_min: usize,
        mut read: impl FnMut(&mut Reader<'a>) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let count = usize::try_from(self.i32()?).map_err(|_| self.damaged("a count is negative"))?;
        if count > self.bytes.len() / entry_size_min {
            return Err(self.damaged("a count is above what the bytes can hold"));
        }
        let mut entries = Vec::with_capacity(count);
        for _ in 0..count {
            entries.push(read(self)?);
        }
        Ok(entries)
    }

    fn assignments(&mut self) -> Result<Vec<Vec<BrokerId>>, DecodeError> {
        self.list(4, |fields| fields.list(4, |fields| Ok(BrokerId(fields.i32()?))))
    }

    fn configs(&mut self) -> Result<Overrides, DecodeError> {
        let pairs = self.list(4, |fields| Ok((fields.text()?.to_owned(), fields.text()?.to_owned())))?;
        Ok(pairs.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    fn topic(number: u128) -> TopicId {
        TopicId(Uuid::from_u128(number))
    }

    fn examples() -> Vec<Record> {
        let configs = Overrides::from([
            ("retention.ms".to_owned(), "5".to_owned()),
            ("cleanup.policy".to_owned(), "".to_owned()),
        ]);
        let assignments = vec![vec![BrokerId(1), BrokerId(2)], vec![], vec![BrokerId(3)]];
        vec![
            Record::ClusterCreated { cluster_id: ClusterId(Uuid::from_u128(u128::MAX - 5)) },
            Record::NodeStarted { node: NodeId(2), shard_count: 5, format: DATA_FORMAT },
            Record::TopicCreated(TopicCreated {
                id: topic(9),
                name: "a.topic_with-all".into(),
                partition_count: 3,
                replication_factor: -1,
                assignments: assignments.clone(),
                configs: configs.clone(),
            }),
            Record::TopicDeleted { topic: topic(9) },
            Record::PartitionsMaterialized {
                partitions: vec![TopicIdPartition { topic: topic(9), partition: PartitionIndex(i32::MAX) }],
            },
            Record::PartitionsMaterialized { partitions: vec![] },
            Record::TopicConfigChanged { topic: topic(9), configs: configs.clone() },
            Record::GroupConfigChanged { group: "a group".into(), configs },
            Record::PartitionsAdded { topic: topic(9), partition_count: 6, assignments },
            Record::ProducerIdBlock(ProducerIdBlock { first: ProducerId(1 << 40), count: 1000 }),
            Record::TopicDirectoriesRemoved { topic: topic(9) },
        ]
    }

    #[test]
    fn every_record_survives_its_bytes() {
        for record in examples() {
            assert_eq!(Record::decode(&record.encode()), Ok(record.clone()));
        }
    }

    #[test]
    fn the_bytes_are_these() {
        // The format is durable: this fails when it changes without a new version.
        let record = Record::NodeStarted { node: NodeId(2), shard_count: 5, format: 1 };
        assert_eq!(record.encode(), [2, 0, 0, 0, 0, 2, 0, 5, 0, 1]);
        let record = Record::ProducerIdBlock(ProducerIdBlock { first: ProducerId(258), count: 3 });
        assert_eq!(record.encode(), [8, 0, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 3]);
        let record = Record::TopicCreated(TopicCreated {
            id: topic(1),
            name: "t".into(),
            partition_count: 2,
            replication_factor: 1,
            assignments: vec![vec![BrokerId(7)]],
            configs: Overrides::from([("k".into(), "v".into())]),
        });
        let id = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        let rest = [0, 1, b't', 0, 0, 0, 2, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 7];
        let configs = [0, 0, 0, 1, 0, 1, b'k', 0, 1, b'v'];
        assert_eq!(record.encode(), [&[3, 0][..], &id, &rest, &configs].concat());
    }

    #[test]
    fn the_future_is_refused_by_name() {
        let mut bytes = examples()[1].encode();
        bytes[1] = 7;
        let error = Record::decode(&bytes).unwrap_err();
        assert_eq!(error, DecodeError::NewerVersion { name: "NodeStarted", version: 7, supported: 0 });
        assert_eq!(Record::decode(&[200, 0]), Err(DecodeError::UnknownType { record_type: 200 }));
    }

    #[test]
    fn cut_and_lengthened_bytes_are_refused() {
        for record in examples() {
            let bytes = record.encode();
            for end in 0..bytes.len() {
                assert!(Record::decode(&bytes[..end]).is_err(), "{record:?} cut at {end}");
            }
            assert!(Record::decode(&[&bytes[..], &[0]].concat()).is_err());
        }
    }

    #[test]
    fn random_bytes_never_do_harm() {
        // Flips bytes of good records: decoding must end, in a record or an error, without reserving absurd amounts.
        let mut rng = Rng::new(5);
        for _ in 0..20_000 {
            for record in examples() {
                let mut bytes = record.encode();
                for _ in 0..rng.in_range(1..4) {
                    let at = rng.in_range(0..bytes.len() as u64) as usize;
                    bytes[at] = rng.next_u64() as u8;
                }
                let _ = Record::decode(&bytes);
            }
        }
    }
}
