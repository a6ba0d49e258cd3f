//! The Fetch request: checked once, then walked without copies.

use std::ops::Range;

use uuid::Uuid;

use super::{API, BY_ID_FROM};
use crate::model::id::{BrokerId, LeaderEpoch, Offset, PartitionIndex, TopicId};
use crate::model::limits::REQUEST_PARTITION_COUNT_MAX;
use crate::protocol::wire::{self, DecodeError, Reader, TopicRef};

/// A Fetch request that was found sound; positions refer to the frame that was parsed.
#[derive(Clone, Debug)]
pub struct FetchRequest {
    /// The request's version.
    pub version: i16,
    /// The follower's broker id; -1 for consumers. A tagged field from version 15 on.
    pub replica_id: BrokerId,
    /// The follower's broker epoch, or -1. Version 15.
    pub replica_epoch: i64,
    /// How long to wait for `min_bytes`.
    pub max_wait_ms: i32,
    /// Record bytes that make the answer worth sending.
    pub min_bytes: i32,
    /// Record bytes that it should not exceed, but for the first batch.
    pub max_bytes: i32,
    /// True for `read_committed`.
    pub is_read_committed: bool,
    /// The fetch session, 0 for none. Version 7.
    pub session_id: i32,
    /// The session's epoch: 0 asks for a new session, -1 for none or the end of it. Version 7.
    pub session_epoch: i32,
    /// Topics, as often as they are named.
    pub topic_count: usize,
    /// Partitions of all topics.
    pub partition_count: usize,
    /// Topics with partitions that leave the session. Version 7.
    pub forgotten_topic_count: usize,
    /// Partitions that leave the session.
    pub forgotten_partition_count: usize,
    cluster_id: Option<Range<usize>>,
    rack: Option<Range<usize>>,
    steps: FetchSteps,
    forgotten: ForgottenSteps,
}

/// One partition as it is asked for. What the version does not have is at Kafka's default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchPartition {
    /// The partition.
    pub index: PartitionIndex,
    /// The leader epoch that the client knows, or [`LeaderEpoch::NONE`]. Version 9.
    pub current_leader_epoch: LeaderEpoch,
    /// The first offset that it wants.
    pub fetch_offset: Offset,
    /// Epoch of its last record, or [`LeaderEpoch::NONE`]. Version 12.
    pub last_fetched_epoch: LeaderEpoch,
    /// The follower's log start offset, or [`Offset::NONE`]. Version 5.
    pub log_start_offset: Offset,
    /// Record bytes that it should not exceed, but for the first batch.
    pub max_bytes: i32,
    /// The follower's log directory, or nil. Version 17.
    pub replica_directory_id: Uuid,
    /// The follower's high watermark, or `i64::MAX`. Version 18 (KIP-1166).
    pub high_watermark: Offset,
}

/// One step of the walk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchStep {
    /// A topic; its partitions follow.
    Topic {
        /// By name, from version 13 on by id.
        topic: TopicRef,
        /// How many partitions follow.
        partition_count: usize,
    },
    /// A partition of the last topic.
    Partition(FetchPartition),
}

/// One step of the walk through what leaves the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForgottenStep {
    /// A topic; its partitions follow.
    Topic {
        /// By name, from version 13 on by id.
        topic: TopicRef,
        /// How many partitions follow.
        partition_count: usize,
    },
    /// A partition of the last topic.
    Partition(PartitionIndex),
}

/// The walk through a request that was parsed. It holds no borrow; give it the same frame each time.
#[derive(Clone, Debug)]
pub struct FetchSteps(Walk);

/// The walk through the forgotten topics of a request that was parsed. It holds no borrow.
#[derive(Clone, Debug)]
pub struct ForgottenSteps(Walk);

#[derive(Clone, Debug)]
struct Walk {
    at: usize,
    version: i16,
    flexible: bool,
    topics_left: usize,
    partitions_left: usize,
}

impl FetchRequest {
    /// Checks the body at `body_offset` of `frame` (a frame's content, whose header was read before), every length
    /// and count in it.
    ///
    /// Bytes behind the body are ignored, as Kafka does.
    pub fn parse(frame: &[u8], body_offset: usize, version: i16) -> Result<FetchRequest, DecodeError> {
        if !API.serves(version) {
            return Err(DecodeError::UnsupportedVersion { api_key: API.key(), version });
        }
        let flexible = API.is_flexible(version);
        let mut reader = Reader::new(frame, body_offset);
        let mut replica_id = BrokerId(if version <= 14 { reader.i32()? } else { -1 });
        let max_wait_ms = reader.i32()?;
        let min_bytes = reader.i32()?;
        let max_bytes = reader.i32()?;
        let is_read_committed = match reader.i8()? {
            0 => false,
            1 => true,
            _ => return Err(DecodeError::Invalid("isolation level")),
        };
        let (session_id, session_epoch) = if version >= 7 { (reader.i32()?, reader.i32()?) } else { (0, -1) };

        let mut walk = Walk::begin(&mut reader, version)?;
        let (topic_count, mut partition_count) = (walk.topics_left, 0);
        let steps = FetchSteps(walk.clone());
        while let Some(step) = walk.try_next_partition(frame)? {
            partition_count += usize::from(matches!(step, FetchStep::Partition(_)));
            refuse_too_many(topic_count + partition_count)?;
        }
        reader = Reader::new(frame, walk.at);

        let nothing = Walk { at: walk.at, version, flexible, topics_left: 0, partitions_left: 0 };
        let mut walk = if version >= 7 { Walk::begin(&mut reader, version)? } else { nothing };
        let (forgotten_topic_count, mut forgotten_partition_count) = (walk.topics_left, 0);
        let forgotten = ForgottenSteps(walk.clone());
        while let Some(step) = walk.try_next_forgotten(frame)? {
            forgotten_partition_count += usize::from(matches!(step, ForgottenStep::Partition(_)));
            refuse_too_many(forgotten_topic_count + forgotten_partition_count)?;
        }
        reader = Reader::new(frame, walk.at);

        let rack = if version >= 11 { Some(reader.text_range(flexible)?) } else { None };
        let (mut cluster_id, mut replica_epoch) = (None, -1);
        if flexible {
            reader.tagged_fields(|tag, field| match tag {
                0 => {
                    cluster_id = field.text_range_or_null(true)?;
                    Ok(true)
                }
                1 => {
                    if version < 15 {
                        return Err(DecodeError::Invalid("tag for the version"));
                    }
                    replica_id = BrokerId(field.i32()?);
                    replica_epoch = field.i64()?;
                    field.skip_tagged_fields()?;
                    Ok(true)
                }
                _ => Ok(false),
            })?;
        }
        Ok(FetchRequest {
            version,
            replica_id,
            replica_epoch,
            max_wait_ms,
            min_bytes,
            max_bytes,
            is_read_committed,
            session_id,
            session_epoch,
            topic_count,
            partition_count,
            forgotten_topic_count,
            forgotten_partition_count,
            cluster_id,
            rack,
            steps,
            forgotten,
        })
    }

    /// The cluster that the follower believes to fetch from, borrowed from the frame that was parsed. Version 12.
    pub fn cluster_id<'a>(&self, frame: &'a [u8]) -> Option<&'a str> {
        self.cluster_id.clone().map(|range| wire::text(frame, range))
    }

    /// The consumer's rack, empty if it has none, borrowed from the frame that was parsed. Version 11.
    pub fn rack<'a>(&self, frame: &'a [u8]) -> &'a str {
        self.rack.clone().map_or("", |range| wire::text(frame, range))
    }

    /// A walk from the first topic on; as many as one likes.
    #[inline]
    pub fn steps(&self) -> FetchSteps {
        self.steps.clone()
    }

    /// A walk from the first forgotten topic on.
    #[inline]
    pub fn forgotten_steps(&self) -> ForgottenSteps {
        self.forgotten.clone()
    }
}

#[inline]
fn refuse_too_many(topic_and_partition_count: usize) -> Result<(), DecodeError> {
    if topic_and_partition_count > REQUEST_PARTITION_COUNT_MAX {
        return Err(DecodeError::TooLarge("number of topics and partitions"));
    }
    Ok(())
}

impl FetchSteps {
    /// The next topic or partition, or `None` behind the last. Panics if `frame` is not the one that was parsed.
    #[inline]
    pub fn next(&mut self, frame: &[u8]) -> Option<FetchStep> {
        self.0.try_next_partition(frame).expect("the frame is the one that was parsed, which checked it")
    }
}

impl ForgottenSteps {
    /// The next topic or partition, or `None` behind the last. Panics if `frame` is not the one that was parsed.
    #[inline]
    pub fn next(&mut self, frame: &[u8]) -> Option<ForgottenStep> {
        self.0.try_next_forgotten(frame).expect("the frame is the one that was parsed, which checked it")
    }
}

impl Walk {
    /// Reads the count of topics.
    fn begin(reader: &mut Reader<'_>, version: i16) -> Result<Walk, DecodeError> {
        let flexible = API.is_flexible(version);
        // Name or id, count of partitions, tagged fields.
        let topic_size_min = match (flexible, version >= BY_ID_FROM) {
            (true, true) => 16 + 1 + 1,
            (true, false) => 1 + 1 + 1,
            _ => 2 + 4,
        };
        let topics_left = reader.count(flexible, topic_size_min)?;
        Ok(Walk { at: reader.at(), version, flexible, topics_left, partitions_left: 0 })
    }

    #[inline]
    fn try_next_partition(&mut self, frame: &[u8]) -> Result<Option<FetchStep>, DecodeError> {
        let mut reader = Reader::new(frame, self.at);
        let step = if self.partitions_left > 0 {
            let partition = self.partition(&mut reader)?;
            self.end_partition(&mut reader)?;
            FetchStep::Partition(partition)
        } else if self.topics_left > 0 {
            // Index, fetch offset, max bytes and what the version adds to them.
            let size_min = match self.version {
                4 => 16,
                5..9 => 24,
                9..12 => 28,
                _ => 33,
            };
            let (topic, partition_count) = self.topic(&mut reader, size_min)?;
            FetchStep::Topic { topic, partition_count }
        } else {
            return Ok(None);
        };
        self.at = reader.at();
        Ok(Some(step))
    }

    #[inline]
    fn try_next_forgotten(&mut self, frame: &[u8]) -> Result<Option<ForgottenStep>, DecodeError> {
        let mut reader = Reader::new(frame, self.at);
        let step = if self.partitions_left > 0 {
            let index = PartitionIndex(reader.i32()?);
            self.end_partition(&mut reader)?;
            ForgottenStep::Partition(index)
        } else if self.topics_left > 0 {
            let (topic, partition_count) = self.topic(&mut reader, 4)?;
            ForgottenStep::Topic { topic, partition_count }
        } else {
            return Ok(None);
        };
        self.at = reader.at();
        Ok(Some(step))
    }

    #[inline]
    fn topic(&mut self, reader: &mut Reader<'_>, partition_size_min: usize) -> Result<(TopicRef, usize), DecodeError> {
        let topic = if self.version >= BY_ID_FROM {
            TopicRef::Id(TopicId(reader.uuid()?))
        } else {
            TopicRef::Name(reader.text_range(self.flexible)?)
        };
        let partition_count = reader.count(self.flexible, partition_size_min)?;
        self.topics_left -= 1;
        self.partitions_left = partition_count;
        self.end_topic_if_done(reader)?;
        Ok((topic, partition_count))
    }

    #[inline]
    fn partition(&self, reader: &mut Reader<'_>) -> Result<FetchPartition, DecodeError> {
        let mut partition = FetchPartition {
            index: PartitionIndex(reader.i32()?),
            current_leader_epoch: LeaderEpoch(if self.version >= 9 { reader.i32()? } else { -1 }),
            fetch_offset: Offset(reader.i64()?),
            last_fetched_epoch: LeaderEpoch(if self.version >= 12 { reader.i32()? } else { -1 }),
            log_start_offset: Offset(if self.version >= 5 { reader.i64()? } else { -1 }),
            max_bytes: reader.i32()?,
            replica_directory_id: Uuid::nil(),
            high_watermark: Offset(i64::MAX),
        };
        if self.flexible {
            reader.tagged_fields(|tag, field| match tag {
                0 | 1 if self.version < 17 + tag as i16 => Err(DecodeError::Invalid("tag for the version")),
                0 => {
                    partition.replica_directory_id = field.uuid()?;
                    Ok(true)
                }
                1 => {
                    partition.high_watermark = Offset(field.i64()?);
                    Ok(true)
                }
                _ => Ok(false),
            })?;
        }
        Ok(partition)
    }

    #[inline]
    fn end_partition(&mut self, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        self.partitions_left -= 1;
        self.end_topic_if_done(reader)
    }

    #[inline]
    fn end_topic_if_done(&self, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        if self.flexible && self.partitions_left == 0 {
            reader.skip_tagged_fields()?;
        }
        Ok(())
    }
}
