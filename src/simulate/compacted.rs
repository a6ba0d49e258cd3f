//! A client with a compacted topic of its own: it writes keyed records, tombstones among them, and reads the topic from
//! its start again and again, while segments are replaced under it. Now and then it deletes the topic and makes it anew.
//!
//! What it must find it knows from its [`Ledger`].

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{CreateTopicsRequest, DeleteTopicsRequest, MetadataRequest, ProduceRequest};
use uuid::Uuid;

use super::admin::METADATA;
use super::ask::{self, FETCH};
use super::contact::Contact;
use super::keyed::{self, Keyed};
use super::ledger::{Ledger, Pass};
use super::link::decode;
use super::scene::{Scene, error_of};
use super::violation::{Checker, Violation, violated};
use super::wire;
use crate::base::coverage;
use crate::base::rng::Rng;
use crate::base::time::Monotonic;
use crate::protocol::ErrorCode;

/// The topic, which is nobody else's business.
pub const TOPIC: &str = "compacted";
/// Enough for several segments and a few passes over them; a life may be long.
const HURRY_COUNT: u32 = 800;
const CREATE: i16 = 7;
const DELETE: i16 = 6;
const PRODUCE: i16 = 13;

enum Question {
    Metadata,
    Create,
    Delete,
    /// Numbers of the records.
    Append(Range<u64>),
    /// A record without a key.
    Keyless,
    /// From where, and what was acknowledged then.
    Fetch(i64, i64),
}

/// See the module.
pub struct Compacted {
    rng: Rng,
    contact: Contact<Question>,
    topic: Option<Uuid>,
    /// Its deletion was asked for: it may be gone any time.
    is_deleting: bool,
    key_count: u64,
    ledger: Ledger,
    /// Behind the last record that was acknowledged.
    acked_end: i64,
    pass: Option<Pass>,
    next_at: Monotonic,
    pace_us: u64,
    /// Questions left in this life before it takes its time.
    hurry_count: u32,
}

impl Compacted {
    /// A client that has not created its topic yet.
    pub fn new(mut rng: Rng) -> Compacted {
        Compacted {
            contact: Contact::default(),
            topic: None,
            is_deleting: false,
            key_count: [3, 20, 100][rng.in_range(0..3) as usize],
            ledger: Ledger::new(TOPIC, [0, 200, 5_000, 86_400_000][rng.in_range(0..4) as usize]),
            acked_end: 0,
            pass: None,
            next_at: Monotonic(0),
            pace_us: 0,
            hurry_count: 0,
            rng,
        }
    }

    /// A life begins: first of all everything is read.
    pub fn begin_life(&mut self, wall_ms: i64) {
        self.contact.begin_life();
        self.next_at = Monotonic(0);
        self.pace_us = [50, 300, 3_000][self.rng.in_range(0..3) as usize];
        self.hurry_count = HURRY_COUNT;
        self.pass = Some(Pass::new(wall_ms));
    }

    /// When it acts without being answered.
    pub fn next_at(&self) -> Monotonic {
        self.next_at
    }

    /// Questions that are not answered.
    pub fn under_way_count(&self) -> usize {
        self.contact.under_way_count()
    }

    /// Takes answers and asks on.
    pub fn act(&mut self, scene: &mut Scene<'_>) -> Result<(), Violation> {
        while let Some((question, frame)) = self.contact.take(scene)? {
            self.answered(question, frame, scene)?;
        }
        if self.contact.check(scene, &format_args!("the client of {TOPIC}"))?.is_some() {
            self.contact.shard = None;
        }
        if scene.now < self.next_at || !scene.is_busy || self.under_way_count() > 0 {
            return Ok(());
        }
        self.hurry_count = self.hurry_count.saturating_sub(1);
        let pace_us = if self.hurry_count > 0 { self.pace_us } else { 50_000 };
        self.next_at = scene.now + Duration::from_micros(self.rng.in_range(0..=2 * pace_us));
        if !self.contact.connect(&mut self.rng, scene) {
            return Ok(());
        }
        match (self.contact.shard.is_some(), self.topic) {
            (true, Some(topic)) => match self.rng.in_range(0..40) {
                0 if self.rng.chance(1, 10) => self.delete(topic, scene),
                0 => self.append_keyless(topic, scene),
                _ if self.pass.is_some() && self.rng.chance(1, 2) => self.fetch(topic, scene),
                1 | 2 if self.pass.is_none() => {
                    self.pass = Some(Pass::new(scene.wall_ms));
                    self.fetch(topic, scene);
                }
                _ => self.append(topic, scene),
            },
            _ if self.topic.is_none() && self.rng.chance(1, 2) => self.create(scene),
            _ => self.contact.ask(METADATA, &ask::metadata(TOPIC), Question::Metadata, scene),
        }
        Ok(())
    }

    fn create(&mut self, scene: &mut Scene<'_>) {
        let retention_ms = self.ledger.retention_ms.to_string();
        let configs = [
            ("cleanup.policy", "compact"),
            ("min.cleanable.dirty.ratio", "0.2"),
            ("delete.retention.ms", &retention_ms),
        ];
        scene.story.tell(scene.now, || format!("{TOPIC} is created, with {retention_ms} ms for tombstones"));
        self.contact.ask(CREATE, &ask::create(TOPIC, 1, &configs), Question::Create, scene);
    }

    fn delete(&mut self, topic: Uuid, scene: &mut Scene<'_>) {
        scene.story.tell(scene.now, || format!("{TOPIC} is deleted"));
        self.is_deleting = true;
        let topics = vec![DeleteTopicState::default().with_topic_id(topic).with_name(None)];
        let request = DeleteTopicsRequest::default().with_topics(topics).with_timeout_ms(30_000);
        self.contact.ask(DELETE, &request, Question::Delete, scene);
    }

    fn append(&mut self, topic: Uuid, scene: &mut Scene<'_>) {
        // A batch must fit into a segment.
        let size_max = if scene.plan.has_tiny_segments { 2_000 } else { 3_000 };
        let first = self.ledger.count();
        let mut records = Vec::new();
        for number in first..first + self.rng.in_range(1..6) {
            let rng = &mut self.rng;
            let is_value = rng.chance(7, 8);
            let size_bytes = rng.in_range(0..size_max) as usize;
            records.push(Keyed {
                number,
                time: scene.wall_ms - rng.in_range(0..50) as i64,
                key: format!("key {}", rng.in_range(0..self.key_count)).into_bytes(),
                value: is_value.then(|| keyed::filler(number, size_bytes)),
            });
        }
        let bytes = keyed::build(&records.iter().collect::<Vec<_>>());
        let numbers = self.ledger.send(records, scene.wall_ms, self.contact.connection_count());
        scene.story.tell(scene.now, || format!("{TOPIC}: {numbers:?} are sent"));
        self.produce(topic, bytes, Question::Append(numbers), scene);
    }

    fn append_keyless(&mut self, topic: Uuid, scene: &Scene<'_>) {
        let bytes = wire::build(None, &[scene.wall_ms], &[b"no key".to_vec()]);
        self.produce(topic, bytes, Question::Keyless, scene);
    }

    fn produce(&mut self, topic: Uuid, bytes: Vec<u8>, question: Question, scene: &Scene<'_>) {
        let data = PartitionProduceData::default().with_index(0).with_records(Some(Bytes::from(bytes)));
        let topic = TopicProduceData::default().with_topic_id(topic).with_partition_data(vec![data]);
        let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(30_000).with_topic_data(vec![topic]);
        self.contact.ask(PRODUCE, &request, question, scene);
    }

    fn fetch(&mut self, topic: Uuid, scene: &Scene<'_>) {
        let position = self.pass.as_ref().expect("it has begun").position;
        let size_bytes_max = [1, 10_000, 200_000][self.rng.in_range(0..3) as usize];
        let request = ask::fetch(topic, 0, position, size_bytes_max);
        self.contact.ask(FETCH, &request, Question::Fetch(position, self.acked_end), scene);
    }

    fn answered(&mut self, question: Question, frame: Bytes, scene: &mut Scene<'_>) -> Result<(), Violation> {
        match question {
            Question::Metadata => self.located(frame),
            // Whether it is there, and where, is asked next.
            Question::Create => decode::<CreateTopicsRequest>(frame, CREATE).map(drop),
            Question::Delete => {
                let response = decode::<DeleteTopicsRequest>(frame, DELETE)?;
                if response.responses.iter().all(|topic| topic.error_code == 0) {
                    coverage::hit("compacted topic deleted");
                    self.forget();
                }
                Ok(())
            }
            Question::Append(numbers) => {
                let (error, base_offset) = ask::produced(frame, PRODUCE)?;
                scene.story.tell(scene.now, || format!("{TOPIC}: {numbers:?}: {error:?}, offset {base_offset}"));
                if !self.is_taken(error, scene)? {
                    return Ok(());
                }
                coverage::hit("keyed records appended");
                self.acked_end = self.acked_end.max(base_offset + (numbers.end - numbers.start) as i64);
                self.ledger.place_batch(numbers.start, base_offset)
            }
            Question::Keyless => {
                let (error, _) = ask::produced(frame, PRODUCE)?;
                match error {
                    ErrorCode::InvalidRecord => Ok(()),
                    ErrorCode::None => violated(Checker::Compaction, "a record without a key was taken".into()),
                    error => self.is_taken(error, scene).map(drop),
                }
            }
            Question::Fetch(position, acked_end) => self.fetched(position, acked_end, frame, scene),
        }
    }

    fn located(&mut self, frame: Bytes) -> Result<(), Violation> {
        let response = decode::<MetadataRequest>(frame, METADATA)?;
        let Some(topic) = response.topics.into_iter().next() else { return Ok(()) };
        let found = match error_of(topic.error_code)? {
            ErrorCode::None => Some(topic.topic_id),
            ErrorCode::UnknownTopicOrPartition => None,
            _ => return Ok(()),
        };
        if found != self.topic && self.topic.is_some() {
            if self.acked_end > 0 && !self.is_deleting {
                return violated(Checker::Metadata, format!("{TOPIC} was {:?} and is {found:?}", self.topic));
            }
            self.forget();
        }
        self.topic = found;
        self.contact.shard = None;
        topic.partitions.first().into_iter().for_each(|partition| self.contact.found(partition.leader_id));
        Ok(())
    }

    /// True if there is no error. Who does not lead the partition, or does not know the topic yet, sends us to another.
    fn is_taken(&mut self, error: ErrorCode, scene: &Scene<'_>) -> Result<bool, Violation> {
        match error {
            ErrorCode::None => Ok(true),
            ErrorCode::NotLeaderOrFollower | ErrorCode::UnknownTopicId => {
                self.contact.shard = None;
                Ok(false)
            }
            // What waited for its acknowledgement when the topic went.
            ErrorCode::UnknownTopicOrPartition if self.is_deleting => Ok(false),
            error if scene.excuses(error) => Ok(false),
            error => violated(Checker::Refusals, format!("{TOPIC}: {error:?}")),
        }
    }

    fn fetched(&mut self, position: i64, acked_end: i64, frame: Bytes, scene: &mut Scene<'_>) -> Result<(), Violation> {
        let data = ask::fetched(frame)?;
        if scene.excuses.corrupt {
            // Nothing can be learnt from what may have been read wrong; what was stored wrong shows in the next life.
            return Ok(());
        }
        if !self.is_taken(error_of(data.error_code)?, scene)? {
            return Ok(());
        }
        let (end, start) = (data.high_watermark, data.log_start_offset);
        if end < acked_end || start != 0 {
            let what = format!("{TOPIC}: from {start} to {end}, and {acked_end} was acknowledged before");
            return violated(Checker::ReadYourWrites, what);
        }
        let records = data.records.unwrap_or_default();
        let batches = match keyed::read(&records) {
            Ok(batches) => batches,
            Err(error) => return violated(Checker::Changed, format!("{TOPIC} from {position}: {error}")),
        };
        let mut next = position;
        for (batch, rows) in batches {
            let (base, behind) = (batch.base_offset, batch.next_offset);
            if !batch.is_sound || behind <= next || behind > end || (base < next && next > position) {
                return violated(Checker::Changed, format!("{TOPIC}: {batch:?} where {next} is next, up to {end}"));
            }
            let mut last = base - 1;
            for (offset, record) in rows {
                if offset <= last || offset >= behind {
                    return violated(Checker::Order, format!("{TOPIC}: {offset} follows {last} in {batch:?}"));
                }
                last = offset;
                let number = self.ledger.read(offset, &record)?;
                if let Some(pass) = self.pass.as_mut().filter(|_| offset >= position) {
                    pass.found.insert(offset, number);
                }
            }
            next = behind;
        }
        if next == position && position < end {
            return violated(Checker::Gaps, format!("{TOPIC}: nothing at {position} below {end}"));
        }
        if let Some(pass) = &mut self.pass {
            pass.position = next;
        }
        match next >= end {
            true => self.end_pass(end, scene),
            false => Ok(()),
        }
    }

    /// The pass has come to the end.
    fn end_pass(&mut self, end: i64, scene: &mut Scene<'_>) -> Result<(), Violation> {
        let Some(pass) = self.pass.take() else { return Ok(()) };
        coverage::hit("compacted topic compared");
        // Where the clock jumps nobody knows when the time of a tombstone has passed.
        let now_ms = (!scene.plan.faults.clock).then_some(scene.wall_ms);
        let gone_count = self.ledger.compare(&pass, end, now_ms)?;
        (0..gone_count).for_each(|_| coverage::hit("tombstone is gone"));
        scene.story.tell(scene.now, || format!("{TOPIC}: {} records up to {end} are right", pass.found.len()));
        Ok(())
    }

    /// The topic is gone, and all that was in it.
    fn forget(&mut self) {
        (self.topic, self.contact.shard, self.pass, self.is_deleting) = (None, None, None, false);
        self.ledger.clear();
        self.acked_end = 0;
    }
}
