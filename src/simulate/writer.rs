//! A client that produces: several requests in flight, several partitions in a request.
//!
//! A plain writer gives up what it has no answer to. An idempotent one sends it again, in order, until it has: what is
//! in doubt after a lost connection, an error or a crash must end up in the log once.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{InitProducerIdRequest, ProduceRequest};

use super::history::later;
use super::link::{Link, decode};
use super::model::{PartKey, Sent, TopicState};
use super::plan::Shape;
use super::scene::{Scene, error_of};
use super::violation::{Checker, Violation, violated};
use super::wire::{self, Session};
use crate::base::rng::Rng;
use crate::base::time::Monotonic;
use crate::protocol::ErrorCode;

const PRODUCE: i16 = 13;
const INIT: i16 = 4;
/// Batches of one partition in flight: as many as a broker remembers.
const DEPTH_MAX: usize = 5;
/// How long a partition that refuses is left alone.
const REFUSED_PAUSE: Duration = Duration::from_millis(300);

/// A partition's batch of a request: its number in the model.
type Item = (PartKey, u32);

enum Question {
    Produce(Vec<Item>),
    Init,
}

/// What this writer sends to one partition.
#[derive(Default)]
struct Stream {
    next_number: u64,
    sequence: i32,
    /// Numbers in the model and bytes of batches that are not acknowledged, of an idempotent writer.
    open: BTreeMap<u32, Vec<u8>>,
    in_flight: VecDeque<u32>,
    /// An error came: what is in flight fails as well, then everything open is sent again in order.
    is_draining: bool,
    /// Something of this session was acknowledged.
    has_acked: bool,
    /// Before that something was refused, or may have been when nobody heard it. As with Kafka the log takes any first
    /// sequence, so what was in flight behind it may be taken, and then it will not be.
    is_first_lost: bool,
    paused_until: Monotonic,
}

impl Stream {
    /// The first open batch that is not in flight.
    fn again(&self) -> Option<u32> {
        self.open.keys().copied().find(|index| !self.in_flight.contains(index))
    }
}

/// See the module.
pub struct Writer {
    id: u32,
    rng: Rng,
    is_idempotent: bool,
    /// There was nothing that it could send: it looks again soon, or when it is answered.
    is_idle: bool,
    session: Option<Session>,
    /// Counts the connections that a plain writer has lost, the sessions that an idempotent one has given up: what is
    /// sent then may overtake what the broker has still to take from before.
    incarnation: u32,
    links: BTreeMap<usize, Link<Question>>,
    streams: BTreeMap<PartKey, Stream>,
    /// In this life, or the last one while a life begins, batches may be refused.
    may_be_refused: bool,
    next_at: Monotonic,
    pace_us: u64,
    size_bytes_max: u64,
}

impl Writer {
    /// Writer `id`; every second one is idempotent.
    pub fn new(id: u32, mut rng: Rng) -> Writer {
        let size_bytes_max = [100, 1_000, 8_000][rng.in_range(0..3) as usize];
        Writer {
            id,
            is_idempotent: id % 2 == 1,
            is_idle: false,
            session: None,
            incarnation: 0,
            links: BTreeMap::new(),
            streams: BTreeMap::new(),
            may_be_refused: false,
            next_at: Monotonic(0),
            pace_us: 100,
            size_bytes_max,
            rng,
        }
    }

    /// A life begins: nothing of the last one's connections is left.
    pub fn begin_life(&mut self) {
        let links = std::mem::take(&mut self.links);
        links.into_values().for_each(|link| self.doubt(link.into_questions()));
        for stream in self.streams.values_mut() {
            (stream.is_draining, stream.paused_until) = (false, Monotonic(0));
        }
        self.pace_us = [20, 200, 2_000, 20_000][self.rng.in_range(0..4) as usize];
        self.next_at = Monotonic(0);
    }

    /// Takes answers and sends more.
    pub fn act(&mut self, scene: &mut Scene<'_>) -> Result<(), Violation> {
        let refusals = [ErrorCode::KafkaStorageError, ErrorCode::RequestTimedOut, ErrorCode::InvalidTimestamp];
        self.may_be_refused = refusals.into_iter().any(|error| scene.excuses(error));
        let shards: Vec<usize> = self.links.keys().copied().collect();
        for shard in shards {
            self.take(shard, scene)?;
        }
        if scene.now < self.next_at {
            return Ok(());
        }
        let model = &scene.model;
        self.streams.retain(|key, stream| model.parts.contains_key(key) || !stream.in_flight.is_empty());
        self.next_at = scene.now + Duration::from_micros(self.rng.in_range(0..=2 * self.pace_us));
        let shard = self.rng.in_range(0..scene.addresses.len() as u64) as usize;
        if let Entry::Vacant(empty) = self.links.entry(shard) {
            let Some(link) = Link::connect(scene.world, scene.addresses[shard]) else { return Ok(()) };
            empty.insert(link);
        }
        if self.is_idempotent && self.session.is_none() {
            return self.ask_session(shard, scene);
        }
        self.produce(shard, scene)
    }

    /// When it acts without being answered.
    pub fn next_at(&self) -> Monotonic {
        self.next_at
    }

    /// Batches that are in flight or have to be sent again.
    pub fn open_count(&self, scene_is_paused: impl Fn(&PartKey) -> bool) -> usize {
        let open = |(key, stream): (&PartKey, &Stream)| match scene_is_paused(key) {
            true => stream.in_flight.len(),
            false => stream.in_flight.len().max(stream.open.len()),
        };
        self.streams.iter().map(open).sum()
    }

    /// A fault of the network: one of its connections.
    pub fn disturb(&mut self, how: u64, until: Monotonic) -> &'static str {
        let Some(shard) = self.links.keys().next().copied() else { return "nothing" };
        match how {
            0 => {
                let link = self.links.remove(&shard).expect("it is there");
                self.doubt(link.reset());
                "a writer's connection is reset"
            }
            _ => {
                self.links.get_mut(&shard).expect("it is there").deaf_until = until;
                "a writer does not read for a while"
            }
        }
    }

    fn take(&mut self, shard: usize, scene: &mut Scene<'_>) -> Result<(), Violation> {
        loop {
            let link = self.links.get_mut(&shard).expect("it is listed");
            let Some((question, frame)) = link.take(scene.now)? else { break };
            if std::mem::take(&mut self.is_idle) {
                self.next_at = scene.now;
            }
            match question {
                Question::Produce(items) => self.produced(&items, frame, shard, scene)?,
                Question::Init => {
                    let response = decode::<InitProducerIdRequest>(frame, INIT)?;
                    match error_of(response.error_code)? {
                        ErrorCode::None => {
                            let session = Session { id: response.producer_id.0, epoch: response.producer_epoch };
                            scene.story.tell(scene.now, || format!("writer {} is producer {}", self.id, session.id));
                            self.session = Some(session);
                        }
                        error if scene.excuses(error) => {}
                        error => return violated(Checker::Refusals, format!("no producer id: {error:?}")),
                    }
                }
            }
        }
        if scene.check_link(&self.links[&shard], &format_args!("writer {} at shard {shard}", self.id))? {
            let link = self.links.remove(&shard).expect("it is there");
            self.doubt(link.into_questions());
        }
        Ok(())
    }

    /// There is nothing to send. At its pace it would make the world go on in steps of microseconds for nothing.
    fn idle(&mut self, now: Monotonic) {
        self.is_idle = true;
        self.next_at = later(now, &mut self.rng, 1..4);
    }

    fn ask_session(&mut self, shard: usize, scene: &Scene<'_>) -> Result<(), Violation> {
        let asked = self.links.values().any(|link| link.under_way_count() > 0);
        if scene.is_busy && !asked {
            let request =
                InitProducerIdRequest::default().with_transactional_id(None).with_transaction_timeout_ms(60_000);
            let link = self.links.get_mut(&shard).expect("connected");
            link.send(INIT, &request, Some(Question::Init), scene.now);
        } else {
            self.idle(scene.now);
        }
        Ok(())
    }

    fn produce(&mut self, shard: usize, scene: &mut Scene<'_>) -> Result<(), Violation> {
        let mut keys: Vec<PartKey> = Vec::new();
        for (key, part) in scene.model.parts.iter().filter(|(_, part)| part.leader == shard && !part.is_open) {
            let stream = self.streams.get(key);
            let may = stream.is_none_or(|stream| {
                let has_room = stream.in_flight.len() < DEPTH_MAX && stream.open.len() < 3 * DEPTH_MAX;
                let has_work = scene.is_busy && has_room || stream.again().is_some();
                let is_free = !stream.is_draining || stream.in_flight.is_empty();
                has_work && is_free && stream.in_flight.len() < DEPTH_MAX && scene.now >= stream.paused_until
            });
            if may && !part.is_offline && scene.now >= part.quiet_until && (scene.is_busy || stream.is_some()) {
                keys.push(*key);
            }
        }
        let mut items = Vec::new();
        let mut topics: BTreeMap<uuid::Uuid, Vec<PartitionProduceData>> = BTreeMap::new();
        for _ in 0..self.rng.in_range(1..4) {
            if keys.is_empty() {
                break;
            }
            let key = keys.swap_remove(self.rng.in_range(0..keys.len() as u64) as usize);
            let (index, bytes) = self.next_batch(key, scene);
            let stream = self.streams.get_mut(&key).expect("it was just used");
            stream.in_flight.push_back(index);
            items.push((key, index));
            let data = PartitionProduceData::default().with_index(key.index).with_records(Some(Bytes::from(bytes)));
            topics.entry(key.topic).or_default().push(data);
        }
        if items.is_empty() {
            self.idle(scene.now);
            return Ok(());
        }
        // The answer lists partitions as the request does.
        items.sort_by_key(|(key, _)| key.topic);
        scene.story.tell(scene.now, || format!("writer {} asks shard {shard} to append {items:?}", self.id));
        let topics = topics.into_iter().map(|(topic, partitions)| {
            TopicProduceData::default().with_topic_id(topic).with_partition_data(partitions)
        });
        let acks = if self.rng.chance(1, 2) { -1 } else { 1 };
        let request =
            ProduceRequest::default().with_acks(acks).with_timeout_ms(30_000).with_topic_data(topics.collect());
        let link = self.links.get_mut(&shard).expect("connected");
        link.send(PRODUCE, &request, Some(Question::Produce(items)), scene.now);
        Ok(())
    }

    /// What is to be sent next to a partition: what is open, or something new.
    fn next_batch(&mut self, key: PartKey, scene: &mut Scene<'_>) -> (u32, Vec<u8>) {
        let stream = self.streams.entry(key).or_default();
        stream.is_draining = false;
        if let Some(index) = stream.again() {
            return (index, stream.open[&index].clone());
        }
        let rng = &mut self.rng;
        let (count, size) = match scene.plan.shape {
            // Less what stands around the value.
            Shape::Uniform(size_bytes) => (1, size_bytes - 70),
            Shape::Mixed if rng.chance(1, 50) => (1, rng.in_range(8_000..60_000)),
            Shape::Mixed => (rng.in_range(1..4), rng.in_range(0..=self.size_bytes_max)),
        };
        let number = stream.next_number;
        stream.next_number += 1;
        let times: Vec<i64> = (0..count).map(|_| scene.wall_ms - rng.in_range(0..50) as i64).collect();
        let values: Vec<Vec<u8>> = (0..count)
            .map(|record| {
                let mut value = format!("{} {} {number} {record} {} ", self.id, key.topic, key.index).into_bytes();
                let mut filler = wire::mix_bytes(number, &value);
                value.reserve(size as usize);
                while (value.len() as u64) < size {
                    filler = wire::mix(filler, value.len() as u64);
                    let left = size as usize - value.len();
                    value.extend_from_slice(&filler.to_le_bytes()[..left.min(8)]);
                }
                value
            })
            .collect();
        let session = self.session.map(|session| (session, stream.sequence));
        let bytes = wire::build(session, &times, &values);
        let writer = self.id + 1000 * self.incarnation;
        let sent = Sent { writer, number, session: self.session.map(|session| session.id), times, at: None };
        let part = scene.model.parts.get_mut(&key).expect("it was just looked at");
        let index = part.send(wire::body_of(&bytes), sent);
        if self.is_idempotent {
            stream.sequence += count as i32;
            stream.open.insert(index, bytes.clone());
        }
        (index, bytes)
    }

    fn produced(&mut self, items: &[Item], frame: Bytes, shard: usize, scene: &mut Scene<'_>) -> Result<(), Violation> {
        let response = decode::<ProduceRequest>(frame, PRODUCE)?;
        let mut answers = BTreeMap::new();
        for topic in response.responses {
            for answer in topic.partition_responses {
                answers.insert(PartKey { topic: topic.topic_id, index: answer.index }, answer);
            }
        }
        for (key, index) in items {
            let Some(answer) = answers.remove(key) else {
                return violated(Checker::Answers, format!("no answer for {key:?}"));
            };
            self.answered(*key, *index, &answer, shard, scene)?;
        }
        match answers.is_empty() {
            true => Ok(()),
            false => violated(Checker::Answers, format!("answers for what was not asked: {answers:?}")),
        }
    }

    fn answered(
        &mut self,
        key: PartKey,
        index: u32,
        answer: &PartitionProduceResponse,
        shard: usize,
        scene: &mut Scene<'_>,
    ) -> Result<(), Violation> {
        let who = format!("writer {} at shard {shard}, {}-{}", self.id, key.topic, key.index);
        let error = error_of(answer.error_code)?;
        let base_offset = answer.base_offset;
        scene.story.tell(scene.now, || format!("{who}: batch {index}: {error:?}, offset {base_offset}"));
        let state = scene.model.state(key.topic);
        let stream = self.streams.get_mut(&key).expect("it was sent");
        if stream.in_flight.pop_front() != Some(index) {
            return violated(Checker::Answers, format!("{who}: batch {index} is answered out of order"));
        }
        if state == TopicState::Deleted {
            stream.open.clear();
            return match error {
                // It was appended before the deletion, or comes behind one that was refused for it.
                ErrorCode::None | ErrorCode::UnknownTopicId | ErrorCode::UnknownTopicOrPartition => Ok(()),
                ErrorCode::OutOfOrderSequenceNumber => Ok(()),
                error if scene.excuses(error) => Ok(()),
                error => violated(Checker::Refusals, format!("{who}: {error:?} of a deleted topic")),
            };
        }
        let has_excuse = scene.excuses(error);
        let part = scene.model.parts.get_mut(&key).expect("its topic is there");
        // Answers to a session that was given up may still come.
        let is_current = part.sent[index as usize].session == self.session.map(|session| session.id);
        match error {
            ErrorCode::None => {
                stream.open.remove(&index);
                stream.has_acked |= is_current;
                scene.model.acked_count += 1;
                return part.place(base_offset, index, scene.now, &who);
            }
            ErrorCode::UnknownTopicId | ErrorCode::UnknownTopicOrPartition if state == TopicState::Deleting => {
                stream.paused_until = scene.now + Duration::from_secs(1);
                stream.is_draining = true;
            }
            ErrorCode::OutOfOrderSequenceNumber if stream.is_draining || !is_current => {}
            ErrorCode::OutOfOrderSequenceNumber if part.was_lossy || stream.is_first_lost => {
                // The log has lost batches of this session, or begins behind its first: a new one begins, what was open
                // is given up.
                self.session = None;
                self.incarnation += 1;
                for stream in self.streams.values_mut() {
                    stream.open.clear();
                    stream.sequence = 0;
                    (stream.has_acked, stream.is_first_lost) = (false, false);
                }
            }
            _ if has_excuse => {
                stream.is_draining = true;
                stream.is_first_lost |= is_current && !stream.has_acked;
                stream.paused_until = scene.now + REFUSED_PAUSE;
            }
            error => {
                let message = answer.error_message.as_ref().map(|text| text.to_string());
                return violated(Checker::Refusals, format!("{who}: batch {index} is refused: {error:?} {message:?}"));
            }
        }
        Ok(())
    }

    /// Nobody will answer these.
    fn doubt(&mut self, questions: Vec<Question>) {
        self.incarnation += u32::from(!self.is_idempotent);
        for question in questions {
            let Question::Produce(items) = question else { continue };
            for (key, index) in items {
                if let Some(stream) = self.streams.get_mut(&key) {
                    stream.in_flight.retain(|other| *other != index);
                    stream.is_first_lost |= self.may_be_refused && !stream.has_acked;
                }
            }
        }
    }
}
