//! A client with a compacted topic of its own: it writes keyed records, tombstones among them, and reads the topic from
//! its start again and again, while segments are replaced under it. Now and then it deletes the topic and makes it anew.
//!
//! What it must find it knows from its [`Ledger`].

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    CreateTopicsRequest, DeleteTopicsRequest, FetchRequest, MetadataRequest, ProduceRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::admin::METADATA;
use super::keyed::{self, Keyed};
use super::ledger::{Ledger, Pass};
use super::link::{Link, decode};
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
const FETCH: i16 = 16;

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
    link: Option<(usize, Link<Question>)>,
    topic: Option<Uuid>,
    /// Its deletion was asked for: it may be gone any time.
    is_deleting: bool,
    leader: Option<usize>,
    key_count: u64,
    ledger: Ledger,
    /// Behind the last record that was acknowledged.
    acked_end: i64,
    connection: u32,
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
            link: None,
            topic: None,
            is_deleting: false,
            leader: None,
            key_count: [3, 20, 100][rng.in_range(0..3) as usize],
            ledger: Ledger::new(TOPIC, [0, 200, 5_000, 86_400_000][rng.in_range(0..4) as usize]),
            acked_end: 0,
            connection: 0,
            pass: None,
            next_at: Monotonic(0),
            pace_us: 0,
            hurry_count: 0,
            rng,
        }
    }

    /// A life begins: first of all everything is read.
    pub fn begin_life(&mut self, wall_ms: i64) {
        self.lose();
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
        self.link.as_ref().map_or(0, |(_, link)| link.under_way_count())
    }

    /// Takes answers and asks on.
    pub fn act(&mut self, scene: &mut Scene<'_>) -> Result<(), Violation> {
        if let Some((shard, mut link)) = self.link.take() {
            while let Some((question, frame)) = link.take(scene.now)? {
                self.answered(question, frame, scene)?;
            }
            match scene.check_link(&link, &format_args!("the client of {TOPIC} at shard {shard}"))? {
                true => self.lose(),
                false => self.link = Some((shard, link)),
            }
        }
        if scene.now < self.next_at || !scene.is_busy || self.under_way_count() > 0 {
            return Ok(());
        }
        self.hurry_count = self.hurry_count.saturating_sub(1);
        let pace_us = if self.hurry_count > 0 { self.pace_us } else { 50_000 };
        self.next_at = scene.now + Duration::from_micros(self.rng.in_range(0..=2 * pace_us));
        let any = self.rng.in_range(0..scene.addresses.len() as u64) as usize;
        let shard = self.leader.unwrap_or(any);
        if self.link.as_ref().is_none_or(|(connected, _)| *connected != shard) {
            self.lose_link();
            self.link = Link::connect(scene.world, scene.addresses[shard]).map(|link| (shard, link));
        }
        if self.link.is_none() {
            return Ok(());
        }
        match (self.leader.is_some(), self.topic) {
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
            _ => {
                let topic = MetadataRequestTopic::default().with_name(Some(name()));
                self.ask(
                    METADATA,
                    &MetadataRequest::default().with_topics(Some(vec![topic])),
                    Question::Metadata,
                    scene,
                );
            }
        }
        Ok(())
    }

    fn ask<R: kafka_protocol::protocol::Request>(
        &mut self,
        version: i16,
        request: &R,
        question: Question,
        scene: &Scene<'_>,
    ) {
        let (_, link) = self.link.as_mut().expect("connected");
        link.send(version, request, Some(question), scene.now);
    }

    fn create(&mut self, scene: &mut Scene<'_>) {
        let text = |value: String| Some(StrBytes::from_string(value));
        let config = |name: &'static str, value: String| {
            CreatableTopicConfig::default().with_name(StrBytes::from_static_str(name)).with_value(text(value))
        };
        let topic =
            CreatableTopic::default().with_name(name()).with_num_partitions(1).with_replication_factor(1).with_configs(
                vec![
                    config("cleanup.policy", "compact".into()),
                    config("min.cleanable.dirty.ratio", "0.2".into()),
                    config("delete.retention.ms", self.ledger.retention_ms.to_string()),
                ],
            );
        let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(30_000);
        scene
            .story
            .tell(scene.now, || format!("{TOPIC} is created, with {} ms for tombstones", self.ledger.retention_ms));
        self.ask(CREATE, &request, Question::Create, scene);
    }

    fn delete(&mut self, topic: Uuid, scene: &mut Scene<'_>) {
        scene.story.tell(scene.now, || format!("{TOPIC} is deleted"));
        self.is_deleting = true;
        let topics = vec![DeleteTopicState::default().with_topic_id(topic).with_name(None)];
        let request = DeleteTopicsRequest::default().with_topics(topics).with_timeout_ms(30_000);
        self.ask(DELETE, &request, Question::Delete, scene);
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
        let numbers = self.ledger.send(records, scene.wall_ms, self.connection);
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
        self.ask(PRODUCE, &request, question, scene);
    }

    fn fetch(&mut self, topic: Uuid, scene: &Scene<'_>) {
        let position = self.pass.as_ref().expect("it has begun").position;
        let partition = FetchPartition::default()
            .with_partition(0)
            .with_current_leader_epoch(-1)
            .with_last_fetched_epoch(-1)
            .with_fetch_offset(position)
            .with_partition_max_bytes([1, 10_000, 200_000][self.rng.in_range(0..3) as usize]);
        let topic = FetchTopic::default().with_topic_id(topic).with_partitions(vec![partition]);
        let request = FetchRequest::default()
            .with_max_wait_ms(0)
            .with_min_bytes(1)
            .with_max_bytes(200_000)
            .with_session_id(0)
            .with_session_epoch(-1)
            .with_topics(vec![topic]);
        self.ask(FETCH, &request, Question::Fetch(position, self.acked_end), scene);
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
                let (error, base_offset) = produced(frame)?;
                scene.story.tell(scene.now, || format!("{TOPIC}: {numbers:?}: {error:?}, offset {base_offset}"));
                if !self.is_taken(error, scene)? {
                    return Ok(());
                }
                coverage::hit("keyed records appended");
                self.acked_end = self.acked_end.max(base_offset + (numbers.end - numbers.start) as i64);
                self.ledger.place_batch(numbers.start, base_offset)
            }
            Question::Keyless => {
                let (error, _) = produced(frame)?;
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
        self.leader = topic.partitions.first().and_then(|partition| usize::try_from(partition.leader_id.0 - 1).ok());
        Ok(())
    }

    /// True if there is no error. Who does not lead the partition, or does not know the topic yet, sends us to another.
    fn is_taken(&mut self, error: ErrorCode, scene: &Scene<'_>) -> Result<bool, Violation> {
        match error {
            ErrorCode::None => Ok(true),
            ErrorCode::NotLeaderOrFollower | ErrorCode::UnknownTopicId => {
                self.leader = None;
                Ok(false)
            }
            error if scene.excuses(error) => Ok(false),
            error => violated(Checker::Refusals, format!("{TOPIC}: {error:?}")),
        }
    }

    fn fetched(&mut self, position: i64, acked_end: i64, frame: Bytes, scene: &mut Scene<'_>) -> Result<(), Violation> {
        let mut response = decode::<FetchRequest>(frame, FETCH)?;
        let data = response.responses.pop().and_then(|mut topic| topic.partitions.pop());
        let Some(data) = data else { return violated(Checker::Answers, "a fetch without its partition".into()) };
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
        (self.topic, self.leader, self.pass, self.is_deleting) = (None, None, None, false);
        self.ledger.clear();
        self.acked_end = 0;
    }

    /// What was asked is not answered any more; what comes next may overtake it.
    fn lose(&mut self) {
        self.lose_link();
        self.leader = None;
    }

    fn lose_link(&mut self) {
        self.link = None;
        self.connection += 1;
    }
}

fn name() -> TopicName {
    TopicName(StrBytes::from_static_str(TOPIC))
}

/// The answer for the one partition of a produce request.
fn produced(frame: Bytes) -> Result<(ErrorCode, i64), Violation> {
    let response = decode::<ProduceRequest>(frame, PRODUCE)?;
    match response.responses.first().and_then(|topic| topic.partition_responses.first()) {
        Some(answer) => Ok((error_of(answer.error_code)?, answer.base_offset)),
        None => violated(Checker::Answers, "a produce answer without its partition".into()),
    }
}
