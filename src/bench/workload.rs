//! What is sent: batches of a size, and the Produce frames that carry them.
//!
//! A [`Cycle`] is the endless stream of one connection: frames one behind the other, sent round and round. A frame's
//! correlation id is its place in the cycle, so the bytes never change and connections with the same partitions
//! share them. Batches have no producer, so a frame may be sent any number of times.

use std::rc::Rc;

use anyhow::{Context, ensure};
use bytes::Bytes;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{ProduceRequest, TopicName};
use kafka_protocol::protocol::StrBytes;

use crate::base::rng::Rng;
use crate::base::time::Timestamp;
use crate::client::TopicInfo;
use crate::model::batch::HEADER_SIZE;
use crate::model::builder::BatchBuilder;
use crate::model::compression::Codec;
use crate::model::id::{Offset, PartitionIndex};
use crate::protocol::encode::encode_request;
use crate::protocol::produce::{ProducePartitionResponse, ProduceResponseEncoder};
use crate::protocol::{ErrorCode, Topic};

/// The newest Produce version that is spoken here.
pub const VERSION_MAX: i16 = 13;
/// From this version on topics go by id (KIP-516).
const BY_ID_FROM: i16 = 13;
/// The least batch: a header and the smallest record.
pub const BATCH_SIZE_BYTES_MIN: usize = HEADER_SIZE + 8;
/// The most that the frames of one cycle may take.
const CYCLE_SIZE_BYTES_MAX: usize = 1 << 30;
/// How long the broker may wait for replicas.
const ANSWER_WAIT_MS: i32 = 30_000;

/// What is sent to a topic.
#[derive(Clone, Debug)]
pub struct Workload {
    /// The size of a batch, its header included. Met exactly or, where lengths are encoded in steps, missed by a byte.
    pub batch_size_bytes: usize,
    /// The size of a record's value; 0 for one record that fills the batch.
    pub record_size_bytes: usize,
    /// -1 (all) or 1.
    pub acks: i16,
    /// What the random contents are made from.
    pub seed: u64,
}

/// The frames of one connection, and how their answers look.
#[derive(Debug)]
pub struct Cycle {
    /// The frames, one behind the other.
    pub bytes: Vec<u8>,
    /// Size of each frame, the size prefix included. All are the same.
    pub frame_size_bytes: usize,
    /// Frames in the cycle; correlation ids go from 0 to this, exclusive.
    pub frame_count: usize,
    /// Where in an answer the partition's error code stands, counted from the start of the size prefix.
    pub error_code_at: usize,
}

impl Workload {
    /// A batch, as large as it is to be.
    pub fn batch(&self, rng: &mut Rng, now: Timestamp) -> Vec<u8> {
        let mut value = vec![0; self.batch_size_bytes];
        rng.fill(&mut value);
        let mut builder = BatchBuilder::new(Codec::None);
        // At most five bytes of length, delta and so on each; the last record takes what is left.
        const OVERHEAD_MAX: usize = 24;
        if self.record_size_bytes > 0 {
            let step = self.record_size_bytes;
            while builder.size_bytes() + 2 * (step + OVERHEAD_MAX) <= self.batch_size_bytes {
                let from = rng.in_range(0..=(value.len() - step) as u64) as usize;
                builder.push(now, None, Some(&value[from..from + step]), &[]);
            }
        }
        let room = self.batch_size_bytes.saturating_sub(builder.size_bytes());
        let (most, least) = (room, room.saturating_sub(OVERHEAD_MAX));
        let fitting = (least..=most).rev().map(|length| {
            let mut filled = builder.clone();
            filled.push(now, None, Some(&value[..length]), &[]);
            filled
        });
        let mut fitting = fitting.skip_while(|filled| filled.size_bytes() > self.batch_size_bytes);
        fitting
            .next()
            .unwrap_or_else(|| {
                let mut smallest = builder.clone();
                smallest.push(now, None, Some(&[]), &[]);
                smallest
            })
            .build()
    }

    /// The frames for `partitions`, in turn, so many that `in_flight_count` at a time differ in correlation id.
    pub fn cycle(
        &self,
        topic: &TopicInfo,
        partitions: &[i32],
        version: i16,
        in_flight_count: usize,
        now: Timestamp,
    ) -> anyhow::Result<Rc<Cycle>> {
        ensure!(!partitions.is_empty(), "a connection needs a partition");
        let rounds = in_flight_count.div_ceil(partitions.len()).max(1);
        let frame_count = rounds * partitions.len();
        let total = frame_count.saturating_mul(self.batch_size_bytes);
        ensure!(total <= CYCLE_SIZE_BYTES_MAX, "the frames of a connection would take {total} bytes");
        let mut rng = Rng::new(self.seed);
        let (mut bytes, mut frame_size_bytes) = (Vec::new(), 0);
        for place in 0..frame_count {
            let partition = partitions[place % partitions.len()];
            let start = bytes.len();
            let request = self.request(topic, partition, version, Bytes::from(self.batch(&mut rng, now)));
            encode_request(&mut bytes, version, i32::try_from(place)?, Some("ottla-bench"), &request)
                .context("a Produce request")?;
            let size = bytes.len() - start;
            ensure!(place == 0 || size == frame_size_bytes, "frames of one size: {size} and {frame_size_bytes} bytes");
            frame_size_bytes = size;
        }
        Ok(Rc::new(Cycle { bytes, frame_size_bytes, frame_count, error_code_at: error_code_at(topic, version) }))
    }

    fn request(&self, topic: &TopicInfo, partition: i32, version: i16, batch: Bytes) -> ProduceRequest {
        let data = PartitionProduceData::default().with_index(partition).with_records(Some(batch));
        let named = TopicProduceData::default().with_partition_data(vec![data]);
        let named = match version >= BY_ID_FROM {
            true => named.with_topic_id(topic.id.0),
            false => named.with_name(TopicName(StrBytes::from_string(topic.name.clone()))),
        };
        ProduceRequest::default().with_acks(self.acks).with_timeout_ms(ANSWER_WAIT_MS).with_topic_data(vec![named])
    }
}

/// Where the error code stands: the first byte in which two answers that differ in nothing else differ.
fn error_code_at(topic: &TopicInfo, version: i16) -> usize {
    let answer = |error| {
        let mut out = Vec::new();
        let mut encoder = ProduceResponseEncoder::begin(&mut out, version, 0, 1);
        let named = if version >= BY_ID_FROM { Topic::Id(topic.id) } else { Topic::Name(&topic.name) };
        encoder.topic(named, 1);
        let appended = ProducePartitionResponse::appended(PartitionIndex(0), Offset(0), Offset(0));
        encoder.partition(&ProducePartitionResponse { error, ..appended });
        encoder.finish(0, &[]);
        out
    };
    let (fine, failed) = (answer(ErrorCode::None), answer(ErrorCode::UnknownServerError));
    fine.iter().zip(&failed).position(|(fine, failed)| fine != failed).expect("error codes differ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::batch::validate;
    use crate::model::id::TopicId;
    use crate::protocol::header;
    use crate::protocol::produce::{ProduceRequest as Walked, ProduceStep};

    fn workload(batch_size_bytes: usize, record_size_bytes: usize) -> Workload {
        Workload { batch_size_bytes, record_size_bytes, acks: -1, seed: 1 }
    }

    fn topic() -> TopicInfo {
        TopicInfo { name: "load".into(), id: TopicId(uuid::Uuid::from_u128(7)), internal: false, partitions: vec![] }
    }

    #[test]
    fn batches_are_sound_and_as_large_as_asked() {
        // Every size in a range, with one record and with many.
        for record in [0, 10, 100, 1000] {
            for size in (BATCH_SIZE_BYTES_MIN..400).chain([4096, 16_500, 65_536]) {
                let batch = workload(size, record).batch(&mut Rng::new(1), Timestamp(1));
                validate(&batch).unwrap();
                assert!(batch.len() == size || batch.len() == size - 1, "{} bytes instead of {size}", batch.len());
            }
        }
    }

    #[test]
    fn a_cycle_is_frames_that_the_broker_can_walk() {
        // Each frame has its place as correlation id and its partition's batch, by name and by id.
        for version in [9, VERSION_MAX] {
            let cycle = workload(256, 0).cycle(&topic(), &[0, 3], version, 5, Timestamp(1)).unwrap();
            assert_eq!((cycle.frame_count, cycle.bytes.len()), (6, 6 * cycle.frame_size_bytes));
            for (place, frame) in cycle.bytes.chunks(cycle.frame_size_bytes).enumerate() {
                let frame = &frame[4..];
                let header = header::parse(frame).unwrap();
                assert_eq!(header.correlation_id, place as i32);
                let request = Walked::parse(frame, header.body_offset, version).unwrap();
                let mut steps = request.steps();
                assert!(matches!(steps.next(frame), Some(ProduceStep::Topic { .. })));
                let Some(ProduceStep::Partition { index, records: Some(records) }) = steps.next(frame) else {
                    panic!("a partition with records");
                };
                assert_eq!(index.0, [0, 3][place % 2]);
                validate(&frame[records]).unwrap();
            }
        }
    }

    #[test]
    fn the_error_code_is_found_in_answers_of_every_version() {
        // Reads it from an answer that another partition and offset have made different.
        for version in [3, 5, 8, 9, 12, 13] {
            let at = error_code_at(&topic(), version);
            let mut out = Vec::new();
            let mut encoder = ProduceResponseEncoder::begin(&mut out, version, 77, 1);
            let named = if version >= BY_ID_FROM { Topic::Id(topic().id) } else { Topic::Name("load") };
            encoder.topic(named, 1);
            let error = ErrorCode::NotLeaderOrFollower;
            encoder.partition(&ProducePartitionResponse::refused(PartitionIndex(5), error, None));
            encoder.finish(0, &[]);
            assert_eq!(i16::from_be_bytes([out[at], out[at + 1]]), error.code(), "version {version}");
        }
    }
}
