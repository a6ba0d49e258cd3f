//! The Produce request: checked once, then walked without copies.

use std::ops::Range;

use super::{API, BY_ID_FROM};
use crate::model::id::{PartitionIndex, TopicId};
use crate::model::limits::REQUEST_PARTITION_COUNT_MAX;
use crate::protocol::wire::{self, DecodeError, Reader, TopicRef};

/// A Produce request that was found sound; positions refer to the frame that was parsed.
#[derive(Clone, Debug)]
pub struct ProduceRequest {
    /// The request's version.
    pub version: i16,
    /// How many acknowledgements the client waits for: 0, 1 or -1 for all. Any other value is for the handler to
    /// refuse (INVALID_REQUIRED_ACKS).
    pub acks: i16,
    /// How long the client waits for them, as it says.
    pub timeout_ms: i32,
    /// Topics, as often as they are named.
    pub topic_count: usize,
    /// Partitions of all topics.
    pub partition_count: usize,
    /// Record bytes of all partitions.
    pub records_size_bytes: usize,
    transactional_id: Option<Range<usize>>,
    steps: ProduceSteps,
}

/// One step of the walk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProduceStep {
    /// A topic; its partitions follow.
    Topic {
        /// By name, from version 13 on by id.
        topic: TopicRef,
        /// How many partitions follow.
        partition_count: usize,
    },
    /// A partition of the last topic.
    Partition {
        /// Its index.
        index: PartitionIndex,
        /// Where in the frame its record bytes are; `None` if the field is null.
        records: Option<Range<usize>>,
    },
}

/// The walk through a request that was parsed. It holds no borrow; give it the same frame each time.
#[derive(Clone, Debug)]
pub struct ProduceSteps {
    at: usize,
    flexible: bool,
    by_id: bool,
    topics_left: usize,
    partitions_left: usize,
}

impl ProduceRequest {
    /// Checks the body at `body_offset` of `frame` (a frame's content, whose header was read before), every length
    /// and count in it.
    ///
    /// Bytes behind the body are ignored, as Kafka does. Panics only if `body_offset` is not within the frame.
    pub fn parse(frame: &[u8], body_offset: usize, version: i16) -> Result<ProduceRequest, DecodeError> {
        if !API.serves(version) {
            return Err(DecodeError::UnsupportedVersion { api_key: API.key(), version });
        }
        let (flexible, by_id) = (API.is_flexible(version), version >= BY_ID_FROM);
        let mut reader = Reader::new(frame, body_offset);
        let transactional_id = reader.text_range_or_null(flexible)?;
        let acks = reader.i16()?;
        let timeout_ms = reader.i32()?;
        let topic_count = reader.count(flexible, topic_size_min(flexible, by_id))?;
        let steps = ProduceSteps { at: reader.at(), flexible, by_id, topics_left: topic_count, partitions_left: 0 };

        // The same walk as later, with its errors returned instead of excluded. Counts are bounded as it goes, so
        // that a frame of nothing but empty topics cannot hold up the shard.
        let (mut partition_count, mut records_size_bytes) = (0, 0);
        let mut walk = steps.clone();
        while let Some(step) = walk.try_next(frame)? {
            if let ProduceStep::Partition { records, .. } = step {
                partition_count += 1;
                records_size_bytes += records.map_or(0, |range| range.len());
            }
            if topic_count + partition_count > REQUEST_PARTITION_COUNT_MAX {
                return Err(DecodeError::TooLarge("number of topics and partitions"));
            }
        }
        if flexible {
            Reader::new(frame, walk.at).skip_tagged_fields()?;
        }
        Ok(ProduceRequest {
            version,
            acks,
            timeout_ms,
            topic_count,
            partition_count,
            records_size_bytes,
            transactional_id,
            steps,
        })
    }

    /// The transactional id, borrowed from the frame that was parsed.
    pub fn transactional_id<'a>(&self, frame: &'a [u8]) -> Option<&'a str> {
        self.transactional_id.clone().map(|range| wire::text(frame, range))
    }

    /// A walk from the first topic on; as many as one likes.
    #[inline]
    pub fn steps(&self) -> ProduceSteps {
        self.steps.clone()
    }
}

impl ProduceSteps {
    /// The next topic or partition, or `None` behind the last. `frame` is the one that was parsed; its record bytes
    /// may have changed, nothing else. Panics if it is another one.
    #[inline]
    pub fn next(&mut self, frame: &[u8]) -> Option<ProduceStep> {
        self.try_next(frame).expect("the frame is the one that was parsed, which checked it")
    }

    #[inline]
    fn try_next(&mut self, frame: &[u8]) -> Result<Option<ProduceStep>, DecodeError> {
        let mut reader = Reader::new(frame, self.at);
        let step = if self.partitions_left > 0 {
            let index = PartitionIndex(reader.i32()?);
            let records = reader.bytes_range_or_null(self.flexible)?;
            if self.flexible {
                reader.skip_tagged_fields()?;
            }
            self.partitions_left -= 1;
            self.end_topic_if_done(&mut reader)?;
            ProduceStep::Partition { index, records }
        } else if self.topics_left > 0 {
            let topic = if self.by_id {
                TopicRef::Id(TopicId(reader.uuid()?))
            } else {
                TopicRef::Name(reader.text_range(self.flexible)?)
            };
            // Index, length of the records, tagged fields.
            let partition_count = reader.count(self.flexible, if self.flexible { 4 + 1 + 1 } else { 4 + 4 })?;
            self.topics_left -= 1;
            self.partitions_left = partition_count;
            self.end_topic_if_done(&mut reader)?;
            ProduceStep::Topic { topic, partition_count }
        } else {
            return Ok(None);
        };
        self.at = reader.at();
        Ok(Some(step))
    }

    #[inline]
    fn end_topic_if_done(&self, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        if self.flexible && self.partitions_left == 0 {
            reader.skip_tagged_fields()?;
        }
        Ok(())
    }
}

/// Name or id, count of partitions, tagged fields.
fn topic_size_min(flexible: bool, by_id: bool) -> usize {
    match (flexible, by_id) {
        (true, true) => 16 + 1 + 1,
        (true, false) => 1 + 1 + 1,
        _ => 2 + 4,
    }
}
