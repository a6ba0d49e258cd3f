//! The endless stream of one producing connection: Produce frames one behind the other, sent round and round.
//!
//! A frame's correlation id is its place in the cycle, so nothing is patched per request and connections with the
//! same partitions share the bytes. Batches have no producer, so a frame may be sent any number of times. Their
//! timestamps age: [`Cycle::restamped`] makes the same frames with new ones.

use std::rc::Rc;

use anyhow::{Context, ensure};
use bytes::Bytes;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{ProduceRequest, TopicName};
use kafka_protocol::protocol::StrBytes;

use crate::base::rng::Rng;
use crate::base::time::Timestamp;
use crate::io::{Pool, Slice};
use crate::model::batch::{self, Header};
use crate::protocol::encode::encode_request;

use super::keys::KeySpace;
use super::route::{BY_ID_FROM, LoadTopic, Place};
use super::schedule::deck;
use super::workload::Workload;

/// The most that the frames of one cycle may take.
const CYCLE_SIZE_BYTES_MAX: usize = 1 << 30;
/// A cycle has at least so many frames for each partition when partitions are drawn by weight.
const WEIGHTED_FRAME_COUNT: usize = 8;
/// How long the broker may wait for replicas.
const ANSWER_WAIT_MS: i32 = 30_000;
/// Base and max timestamp of a batch.
const AT_BASE_TIMESTAMP: usize = 27;
const AT_MAX_TIMESTAMP: usize = 35;

/// One request of a cycle.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    /// Where it begins in the cycle's bytes.
    pub start: usize,
    /// One behind its last byte.
    pub end: usize,
    /// Bytes of its batches.
    pub batch_bytes: u32,
    /// Records of its batches.
    pub records: u32,
    /// Its partitions are `places[first_place..first_place + place_count]` of the cycle.
    pub first_place: u32,
    /// Partitions that it has a batch for.
    pub place_count: u32,
}

/// The frames of one connection.
#[derive(Debug)]
pub struct Cycle {
    /// The Produce version.
    pub version: i16,
    /// The frames, one behind the other.
    pub bytes: Slice,
    /// Where each is; its index is its correlation id.
    pub frames: Vec<Frame>,
    /// The partitions of the frames, in order.
    pub places: Vec<Place>,
    /// Where each batch begins.
    batches: Vec<usize>,
}

impl Cycle {
    /// The frames for `places`, in turn or by the weight of their keys; so many that `in_flight_count` at a time
    /// differ in correlation id.
    #[allow(clippy::too_many_arguments)] // everything that a frame is made of
    pub fn new(
        workload: &Workload,
        topics: &[LoadTopic],
        places: &[Place],
        keys: Option<&KeySpace>,
        version: i16,
        in_flight_count: usize,
        now: Timestamp,
        pool: &Pool,
    ) -> anyhow::Result<Rc<Cycle>> {
        ensure!(!places.is_empty(), "a connection needs a partition");
        let mut rng = Rng::new(workload.seed ^ u64::from(places[0].id));
        let order = match keys {
            None => (0..places.len() as u32).collect(),
            Some(keys) => {
                let weights: Vec<f64> = places.iter().map(|place| keys.weight(place.partition)).collect();
                ensure!(weights.iter().sum::<f64>() > 0.0, "no key belongs to the partitions of a connection");
                let drawn = deck(&weights, &mut rng);
                let wanted = (places.len() * WEIGHTED_FRAME_COUNT).max(in_flight_count);
                drawn.into_iter().take(wanted * workload.batches_per_request).collect::<Vec<u32>>()
            }
        };
        let per_request = workload.batches_per_request.clamp(1, order.len());
        let frame_count = order.len().div_ceil(per_request);
        let frame_count = in_flight_count.div_ceil(frame_count).max(1) * frame_count;
        let mut turn = order.iter().cycle();
        let mut cycle = Draft::default();
        for index in 0..frame_count {
            let mut chosen: Vec<Place> = Vec::with_capacity(per_request);
            for _ in 0..per_request {
                let place = places[*turn.next().expect("it goes round") as usize];
                // A request names a partition once.
                if !chosen.contains(&place) {
                    chosen.push(place);
                }
            }
            chosen.sort_by_key(|place| (place.topic, place.partition));
            cycle.push(i32::try_from(index)?, &chosen, workload, topics, keys, version, &mut rng, now)?;
            let size = cycle.bytes.len();
            ensure!(
                size <= CYCLE_SIZE_BYTES_MAX,
                "the frames of one connection would take more than 1 GiB: fewer partitions or requests in flight for \
                 each connection, or smaller batches"
            );
        }
        let mut memory = pool.take(cycle.bytes.len()).context("memory for the frames")?;
        memory[..cycle.bytes.len()].copy_from_slice(&cycle.bytes);
        let bytes = memory.freeze(cycle.bytes.len());
        Ok(Rc::new(Cycle { version, bytes, frames: cycle.frames, places: cycle.places, batches: cycle.batches }))
    }

    /// The same frames with batches of the time `now`; `None` if the pool has no room for a second set.
    pub fn restamped(&self, now: Timestamp, pool: &Pool) -> Option<Rc<Cycle>> {
        let size = self.bytes.len();
        let mut memory = pool.take(size)?;
        memory[..size].copy_from_slice(self.bytes.as_bytes());
        for start in &self.batches {
            let header = Header::parse(&memory[*start..size]).expect("batches are whole");
            let bytes = &mut memory[*start..*start + header.size_bytes];
            bytes[AT_BASE_TIMESTAMP..][..8].copy_from_slice(&now.0.to_be_bytes());
            bytes[AT_MAX_TIMESTAMP..][..8].copy_from_slice(&now.0.to_be_bytes());
            batch::stamp_crc(bytes);
        }
        let (frames, places, batches) = (self.frames.clone(), self.places.clone(), self.batches.clone());
        Some(Rc::new(Cycle { version: self.version, bytes: memory.freeze(size), frames, places, batches }))
    }

    /// The partitions of a frame.
    pub fn places_of(&self, frame: &Frame) -> &[Place] {
        &self.places[frame.first_place as usize..][..frame.place_count as usize]
    }
}

#[derive(Default)]
struct Draft {
    bytes: Vec<u8>,
    frames: Vec<Frame>,
    places: Vec<Place>,
    batches: Vec<usize>,
}

impl Draft {
    #[allow(clippy::too_many_arguments)] // everything that a frame is made of
    fn push(
        &mut self,
        correlation_id: i32,
        places: &[Place],
        workload: &Workload,
        topics: &[LoadTopic],
        keys: Option<&KeySpace>,
        version: i16,
        rng: &mut Rng,
        now: Timestamp,
    ) -> anyhow::Result<()> {
        let (start, first_place) = (self.bytes.len(), self.places.len() as u32);
        let mut named: Vec<TopicProduceData> = Vec::new();
        let (mut batch_bytes, mut records) = (0, 0);
        let mut last_topic = None;
        let mut contents = Vec::with_capacity(places.len());
        for place in places {
            let batch = Bytes::from(workload.batch_for(rng, now, keys.map(|keys| (keys, place.partition))));
            batch_bytes += u32::try_from(batch.len())?;
            records += Header::parse(&batch).context("a batch")?.record_count as u32;
            contents.push(batch.clone());
            let data = PartitionProduceData::default().with_index(place.partition).with_records(Some(batch));
            if last_topic != Some(place.topic) {
                let topic = &topics[place.topic as usize];
                named.push(match version >= BY_ID_FROM {
                    true => TopicProduceData::default().with_topic_id(topic.id.0),
                    false => {
                        let name = TopicName(StrBytes::from_string(topic.name.clone()));
                        TopicProduceData::default().with_name(name)
                    }
                });
                last_topic = Some(place.topic);
            }
            named.last_mut().expect("pushed above").partition_data.push(data);
        }
        let request =
            ProduceRequest::default().with_acks(workload.acks).with_timeout_ms(ANSWER_WAIT_MS).with_topic_data(named);
        encode_request(&mut self.bytes, version, correlation_id, Some("ottla-bench"), &request)
            .context("a Produce request")?;
        // Where the batches came to lie: each behind the one before.
        let mut at = start;
        for batch in &contents {
            let frame = &self.bytes[at..];
            at += position(frame, batch).context("a batch that is not in its request")?;
            self.batches.push(at);
            at += batch.len();
        }
        self.places.extend_from_slice(places);
        let (end, place_count) = (self.bytes.len(), places.len() as u32);
        self.frames.push(Frame { start, end, batch_bytes, records, first_place, place_count });
        Ok(())
    }
}

fn position(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    (0..=bytes.len().checked_sub(wanted.len())?).find(|at| bytes[*at..].starts_with(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::batch::validate;
    use crate::model::id::TopicId;
    use crate::protocol::header;
    use crate::protocol::produce::{ProduceRequest as Walked, ProduceStep};

    fn topics() -> Vec<LoadTopic> {
        let topic = |name: &str, id| LoadTopic {
            name: name.into(),
            id: TopicId(uuid::Uuid::from_u128(id)),
            partition_count: 8,
        };
        vec![topic("load-0", 7), topic("load-10", 8)]
    }

    fn places(count: u32) -> Vec<Place> {
        (0..count).map(|id| Place { topic: id % 2, partition: (id / 2) as i32, id }).collect()
    }

    /// Topic and partition of every batch in a frame, after checking it.
    fn walk(frame: &[u8], version: i16, correlation_id: i32) -> Vec<i32> {
        let frame = &frame[4..];
        let header = header::parse(frame).unwrap();
        assert_eq!(header.correlation_id, correlation_id);
        let request = Walked::parse(frame, header.body_offset, version).unwrap();
        let mut steps = request.steps();
        let mut found = Vec::new();
        while let Some(step) = steps.next(frame) {
            if let ProduceStep::Partition { index, records: Some(records) } = step {
                validate(&frame[records]).unwrap();
                found.push(index.0);
            }
        }
        found
    }

    #[test]
    fn a_cycle_is_frames_that_the_broker_can_walk() {
        // Each frame has its place as correlation id and its partitions' batches, by name and by id, with old and
        // with new timestamps.
        let pool = Pool::new(16 << 20);
        for (version, per_request) in [(9, 1), (13, 1), (9, 3), (13, 3)] {
            let workload = Workload { batch_size_bytes: 256, batches_per_request: per_request, ..Workload::default() };
            let places = places(6);
            let cycle = Cycle::new(&workload, &topics(), &places, None, version, 5, Timestamp(1), &pool).unwrap();
            assert_eq!(cycle.frames.len() % (6 / per_request), 0);
            assert!(cycle.frames.len() >= 5);
            for cycle in [cycle.clone(), cycle.restamped(Timestamp(99), &pool).unwrap()] {
                let mut seen = Vec::new();
                for (index, frame) in cycle.frames.iter().enumerate() {
                    let bytes = &cycle.bytes.as_bytes()[frame.start..frame.end];
                    let partitions = walk(bytes, version, index as i32);
                    assert_eq!(partitions.len(), per_request);
                    assert_eq!(frame.records as usize, per_request);
                    seen.extend(cycle.places_of(frame).iter().map(|place| place.id));
                }
                seen.sort();
                seen.dedup();
                assert_eq!(seen, [0, 1, 2, 3, 4, 5]);
            }
        }
    }

    #[test]
    fn new_timestamps_change_nothing_else() {
        let pool = Pool::new(16 << 20);
        let workload = Workload { batch_size_bytes: 300, ..Workload::default() };
        let old = Cycle::new(&workload, &topics(), &places(3), None, 13, 1, Timestamp(5), &pool).unwrap();
        let new = old.restamped(Timestamp(1 << 40), &pool).unwrap();
        let differing = old.bytes.as_bytes().iter().zip(new.bytes.as_bytes()).filter(|(a, b)| a != b).count();
        assert!(differing > 0 && differing <= old.frames.len() * (8 + 8 + 4), "{differing} bytes differ");
    }

    #[test]
    fn hot_partitions_come_more_often() {
        let pool = Pool::new(64 << 20);
        let keys = KeySpace::new(1000, 1.5, 4);
        let workload = Workload { batch_size_bytes: 128, ..Workload::default() };
        let places: Vec<Place> = (0..4).map(|id| Place { topic: 0, partition: id as i32, id }).collect();
        let cycle = Cycle::new(&workload, &topics(), &places, Some(&keys), 13, 2000, Timestamp(1), &pool).unwrap();
        let hottest = (0..4).max_by(|a, b| keys.weight(*a).total_cmp(&keys.weight(*b))).unwrap();
        let share = cycle.places.iter().filter(|place| place.partition == hottest).count() as f64;
        let total: f64 = (0..4).map(|partition| keys.weight(partition)).sum();
        assert!((share / cycle.places.len() as f64 - keys.weight(hottest) / total).abs() < 0.1);
    }
}
