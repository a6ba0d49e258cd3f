//! A client that fetches: long polls, with and without a session, some of them slow; and asks for offsets by time.
//!
//! It holds the broker to what consumers rely on: the next fetch goes on where the last one ended, nothing below the
//! high watermark is withheld, a long poll is woken.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{FetchRequest, ListOffsetsRequest, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::link::{Link, decode};
use super::model::{Floor, PartKey, TopicState};
use super::scene::{Scene, error_of};
use super::violation::{Checker, Violation, violated};
use super::wire;
use crate::base::rng::Rng;
use crate::base::time::Monotonic;
use crate::protocol::ErrorCode;

const FETCH: i16 = 16;
const LIST: i16 = 7;
/// How long a long poll may sleep on what it waits for, where nothing is slow.
const WAKE_TIME_MAX: Duration = Duration::from_secs(3);
const EARLIEST: i64 = -2;
/// How long it waits after a refusal.
const REFUSED_PAUSE: Duration = Duration::from_millis(50);

/// What was asked of one partition, and what was known then.
#[derive(Clone, Copy)]
struct Asked {
    position: i64,
    floor: Floor,
}

enum Question {
    Fetch { asked: BTreeMap<PartKey, Asked>, is_session: bool, wakes: bool },
    List { key: PartKey, time: i64, asked: Asked },
}

/// See the module.
pub struct Reader {
    id: u32,
    rng: Rng,
    shard: usize,
    link: Option<Link<Question>>,
    positions: BTreeMap<PartKey, i64>,
    /// The session's id and next epoch, and what it was told last; `None`: without one.
    session: Option<(i32, i32, BTreeMap<PartKey, i64>)>,
    next_at: Monotonic,
    pace_us: u64,
    window_bytes: Option<usize>,
    /// It takes what it was sent late, again and again.
    is_slow: bool,
}

impl Reader {
    /// Reader `id`.
    pub fn new(id: u32, rng: Rng) -> Reader {
        Reader {
            id,
            rng,
            shard: 0,
            link: None,
            positions: BTreeMap::new(),
            session: None,
            next_at: Monotonic(0),
            pace_us: 0,
            window_bytes: None,
            is_slow: false,
        }
    }

    /// A life begins.
    pub fn begin_life(&mut self, shard_count: usize, must_be_slow: bool) {
        self.link = None;
        self.shard = self.rng.in_range(0..shard_count as u64) as usize;
        self.positions.clear();
        self.session = None;
        self.next_at = Monotonic(0);
        self.pace_us = [0, 500, 20_000][self.rng.in_range(0..3) as usize];
        self.window_bytes = (must_be_slow || self.rng.chance(1, 4)).then(|| self.rng.in_range(512..20_000) as usize);
        self.is_slow = must_be_slow || self.window_bytes.is_some() && self.rng.chance(1, 2);
    }

    /// Takes answers and asks on.
    pub fn act(&mut self, scene: &mut Scene<'_>) -> Result<(), Violation> {
        if let Some(link) = &mut self.link {
            while let Some((question, frame)) = link.take(scene.now)? {
                let who = format!("reader {} at shard {}", self.id, self.shard);
                match question {
                    Question::Fetch { asked, is_session, .. } => {
                        let (positions, session) = (&mut self.positions, &mut self.session);
                        if fetched(positions, session, &asked, is_session, frame, scene, &who)? {
                            self.next_at = scene.now + REFUSED_PAUSE;
                        }
                    }
                    Question::List { key, time, asked } => {
                        listed(&mut self.positions, key, time, asked, frame, scene, &who)?;
                    }
                }
            }
            if scene.check_link(link, &format_args!("reader {} at shard {}", self.id, self.shard))? {
                self.lose();
            }
        }
        if scene.now < self.next_at || !scene.is_busy {
            return Ok(());
        }
        if self.link.is_none() {
            self.link = Link::connect(scene.world, scene.addresses[self.shard]);
            if let (Some(link), Some(bytes)) = (&self.link, self.window_bytes) {
                link.set_window(bytes);
            }
        }
        if self.link.as_ref().is_some_and(|link| link.under_way_count() == 0) {
            self.next_at = scene.now + Duration::from_micros(self.rng.in_range(0..=2 * self.pace_us));
            self.ask(scene);
            if let (true, Some(link)) = (self.is_slow, &mut self.link) {
                link.deaf_until = scene.now + Duration::from_millis(self.rng.in_range(0..700));
            }
        }
        Ok(())
    }

    /// Whether a long poll sleeps although what it waits for is there. For moments at which nothing is slow.
    pub fn check_wake(&self, scene: &Scene<'_>) -> Result<(), Violation> {
        let Some(link) = &self.link else { return Ok(()) };
        let Some(Question::Fetch { asked, wakes: true, .. }) = link.first() else { return Ok(()) };
        if link.deaf_until > Monotonic(0) && scene.now < link.deaf_until + WAKE_TIME_MAX || self.window_bytes.is_some()
        {
            return Ok(());
        }
        for (key, asked) in asked {
            if let Some(part) = scene.model.parts.get(key)
                && part.end > asked.position
                && part.log_start <= asked.position
            {
                let since = part.end_since.max(link.waits_since().expect("it waits"));
                if scene.now.since(since) > WAKE_TIME_MAX {
                    return violated(
                        Checker::Wakes,
                        format!(
                            "reader {}: {}-{} has ended at {} for {:?}, a fetch from {} sleeps",
                            self.id,
                            key.topic,
                            key.index,
                            part.end,
                            scene.now.since(since),
                            asked.position
                        ),
                    );
                }
            }
        }
        Ok(())
    }

    /// When it acts without being answered.
    pub fn next_at(&self) -> Monotonic {
        self.next_at
    }

    /// Questions that are not answered.
    pub fn under_way_count(&self) -> usize {
        self.link.as_ref().map_or(0, Link::under_way_count)
    }

    /// A fault of the network.
    pub fn disturb(&mut self, how: u64, until: Monotonic) -> &'static str {
        match (how, self.link.take()) {
            (_, None) => "nothing",
            (0, Some(link)) => {
                link.reset();
                self.lose();
                "a reader's connection is reset"
            }
            (_, Some(mut link)) => {
                link.deaf_until = until;
                // So that little is on its way to it.
                link.set_window(2_000);
                self.link = Some(link);
                "a reader does not read for a while"
            }
        }
    }

    fn lose(&mut self) {
        self.link = None;
        self.session = None;
    }

    fn ask(&mut self, scene: &mut Scene<'_>) {
        let shard = self.shard;
        let model = &scene.model;
        self.positions.retain(|key, _| model.state(key.topic) == TopicState::Live);
        let missing: Vec<PartKey> = model
            .live_parts()
            .filter(|(key, part)| part.leader == shard && !part.is_open && !self.positions.contains_key(key))
            .map(|(key, _)| *key)
            .collect();
        for key in missing {
            let part = &model.parts[&key];
            let from = part.log_start.min(part.end) as u64;
            self.positions.insert(key, self.rng.in_range(from..=part.end as u64) as i64);
        }
        let keys: Vec<PartKey> = self.positions.keys().copied().collect();
        if keys.is_empty() {
            self.next_at = scene.now + Duration::from_millis(20);
            return;
        }
        let key = keys[self.rng.in_range(0..keys.len() as u64) as usize];
        match self.rng.in_range(0..20) {
            0 => self.list(key, scene),
            1 => {
                // From anywhere again: a consumer that was reset.
                let part = &scene.model.parts[&key];
                let from = part.log_start.min(part.end) as u64;
                self.positions.insert(key, self.rng.in_range(from..=part.end as u64) as i64);
            }
            2 if self.session.is_none() => self.session = Some((0, 0, BTreeMap::new())),
            2 => self.session = None,
            3..7 if self.session.is_none() => self.fetch(&[key], scene),
            _ => self.fetch(&keys, scene),
        }
    }

    fn fetch(&mut self, keys: &[PartKey], scene: &mut Scene<'_>) {
        let asked: BTreeMap<PartKey, Asked> = keys
            .iter()
            .map(|key| {
                let position = self.positions[key];
                (*key, Asked { position, floor: scene.model.parts[key].floor() })
            })
            .collect();
        let mut named: Vec<PartKey> = keys.to_vec();
        let (mut ids, mut forgotten) = ((0, -1), Vec::new());
        if let Some((id, epoch, told)) = &mut self.session {
            ids = (*id, *epoch);
            if *epoch > 0 {
                forgotten = told.keys().copied().filter(|key| !asked.contains_key(key)).collect();
                named.retain(|key| told.get(key) != Some(&asked[key].position));
            }
            *told = asked.iter().map(|(key, asked)| (*key, asked.position)).collect();
            *epoch += 1;
        }
        let mut topics: BTreeMap<uuid::Uuid, Vec<FetchPartition>> = BTreeMap::new();
        let bytes_max = [1, 3_000, 100_000][self.rng.in_range(0..3) as usize];
        for key in &named {
            let partition = FetchPartition::default()
                .with_partition(key.index)
                .with_current_leader_epoch(-1)
                .with_last_fetched_epoch(-1)
                .with_fetch_offset(asked[key].position)
                .with_partition_max_bytes(bytes_max);
            topics.entry(key.topic).or_default().push(partition);
        }
        let topics =
            topics.into_iter().map(|(id, parts)| FetchTopic::default().with_topic_id(id).with_partitions(parts));
        let gone = forgotten
            .iter()
            .map(|key| ForgottenTopic::default().with_topic_id(key.topic).with_partitions(vec![key.index]));
        let wait_ms = [0, 20, 500, 20_000][self.rng.in_range(0..4) as usize];
        let min_bytes = if self.rng.chance(1, 6) { 5_000 } else { 1 };
        let request = FetchRequest::default()
            .with_max_wait_ms(wait_ms)
            .with_min_bytes(min_bytes)
            .with_max_bytes([1, 20_000, 1 << 20][self.rng.in_range(0..3) as usize])
            .with_session_id(ids.0)
            .with_session_epoch(ids.1)
            .with_topics(topics.collect())
            .with_forgotten_topics_data(gone.collect());
        scene.story.tell(scene.now, || {
            let from: Vec<(String, i64)> =
                asked.iter().map(|(k, a)| (format!("{}-{}", k.topic, k.index), a.position)).collect();
            format!("reader {} at shard {} fetches {from:?}, session {ids:?}, waits {wait_ms} ms", self.id, self.shard)
        });
        let is_session = self.session.is_some();
        let wakes = min_bytes == 1;
        let link = self.link.as_mut().expect("connected");
        link.send(FETCH, &request, Some(Question::Fetch { asked, is_session, wakes }), scene.now);
    }

    fn list(&mut self, key: PartKey, scene: &mut Scene<'_>) {
        let asked = Asked { position: self.positions[&key], floor: scene.model.parts[&key].floor() };
        let time = match self.rng.in_range(0..3) {
            0 => EARLIEST,
            _ => scene.wall_ms - self.rng.in_range(0..5_000) as i64,
        };
        self.send_list(key, time, asked, scene);
    }

    fn send_list(&mut self, key: PartKey, time: i64, asked: Asked, scene: &mut Scene<'_>) {
        let name = &scene.model.topics[&key.topic].name;
        let request = list_request(name, key.index, time);
        let link = self.link.as_mut().expect("connected");
        link.send(LIST, &request, Some(Question::List { key, time, asked }), scene.now);
    }
}

/// Asks for one offset by time.
pub fn list_request(name: &str, index: i32, time: i64) -> ListOffsetsRequest {
    let partition =
        ListOffsetsPartition::default().with_partition_index(index).with_current_leader_epoch(-1).with_timestamp(time);
    let topic = ListOffsetsTopic::default()
        .with_name(TopicName(StrBytes::from_string(name.to_owned())))
        .with_partitions(vec![partition]);
    ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![topic])
}

/// Takes an answer to a fetch. True if some of it was refused, with a reason.
fn fetched(
    positions: &mut BTreeMap<PartKey, i64>,
    session: &mut Option<(i32, i32, BTreeMap<PartKey, i64>)>,
    asked: &BTreeMap<PartKey, Asked>,
    is_session: bool,
    frame: Bytes,
    scene: &mut Scene<'_>,
    who: &str,
) -> Result<bool, Violation> {
    let response = decode::<FetchRequest>(frame, FETCH)?;
    match error_of(response.error_code)? {
        ErrorCode::None => {}
        ErrorCode::FetchSessionIdNotFound | ErrorCode::InvalidFetchSessionEpoch if is_session => {
            *session = None;
            return Ok(false);
        }
        error => return violated(Checker::Refusals, format!("{who}: a fetch is refused: {error:?}")),
    }
    if let (true, Some((id, ..))) = (is_session, &mut *session) {
        *id = response.session_id;
        if *id == 0 {
            // The broker has no room for it.
            *session = None;
        }
    }
    let (mut size_bytes, mut missing, mut is_refused) = (0, None, false);
    for topic in response.responses {
        for data in topic.partitions {
            let key = PartKey { topic: topic.topic_id, index: data.partition_index };
            let Some(asked) = asked.get(&key) else {
                return violated(Checker::Answers, format!("{who}: {key:?} was not asked for"));
            };
            let size = data.records.as_ref().map_or(0, Bytes::len);
            size_bytes += size;
            is_refused |= data.error_code != 0;
            let end = data.high_watermark;
            if data.error_code == 0 && size == 0 && end > asked.position {
                missing = Some((key, asked.position, end));
            }
            part_fetched(positions, key, *asked, data, scene, who)?;
        }
    }
    match missing {
        Some(missing) if size_bytes == 0 => {
            violated(Checker::Gaps, format!("{who}: nothing came although there is something: {missing:?}"))
        }
        _ => Ok(is_refused),
    }
}

fn part_fetched(
    positions: &mut BTreeMap<PartKey, i64>,
    key: PartKey,
    asked: Asked,
    data: PartitionData,
    scene: &mut Scene<'_>,
    who: &str,
) -> Result<(), Violation> {
    let who = format!("{who}, {}-{} from {}", key.topic, key.index, asked.position);
    let state = scene.model.state(key.topic);
    let error = error_of(data.error_code)?;
    if state == TopicState::Deleted {
        positions.remove(&key);
        return Ok(());
    }
    let may_trim = scene.model.topics[&key.topic].spec.may_trim;
    let part = scene.model.parts.get_mut(&key).expect("its topic is there");
    match error {
        ErrorCode::None => {}
        ErrorCode::OffsetOutOfRange if may_trim => {
            // It may only lie below the log start; where that is the next answer tells.
            part.log_start = part.log_start.max(asked.position + 1);
            positions.insert(key, part.log_start.min(part.end).max(asked.position + 1));
            return Ok(());
        }
        ErrorCode::UnknownTopicId | ErrorCode::UnknownTopicOrPartition if state == TopicState::Deleting => {
            positions.remove(&key);
            return Ok(());
        }
        error if scene.excuses(error) => return Ok(()),
        error => return violated(Checker::Refusals, format!("{who}: {error:?}: {data:?}")),
    }
    part.saw((data.high_watermark, data.log_start_offset), asked.floor, &who)?;
    let records = data.records.unwrap_or_default();
    let batches = match wire::read(&records) {
        Ok(batches) => batches,
        Err(_) if scene.excuses.corrupt => return Ok(()),
        Err(error) => return violated(Checker::Changed, format!("{who}: {error}")),
    };
    if scene.excuses.corrupt {
        // A client sees a wrong CRC and asks again; base offsets stand outside of it, so nothing is learnt from them.
        let is_plain = batches.iter().all(|batch| batch.is_sound && part.identify(batch, &who).is_ok());
        let goes_on = batches.windows(2).all(|pair| pair[0].next_offset == pair[1].base_offset);
        if let (Some(first), Some(last)) = (batches.first(), batches.last())
            && is_plain
            && goes_on
            && (first.base_offset..first.next_offset).contains(&asked.position)
            && last.next_offset <= data.high_watermark
        {
            positions.insert(key, last.next_offset);
        }
        return Ok(());
    }
    let mut expected = None;
    for batch in &batches {
        let at = batch.base_offset;
        let position = expected.unwrap_or(asked.position);
        if at > position {
            return violated(Checker::PollSkip, format!("{who}: {position} is next, {at} came"));
        }
        if batch.next_offset <= position || (expected.is_some() && at < position) {
            return violated(Checker::PollBack, format!("{who}: {position} is next, {at} came"));
        }
        expected = Some(batch.next_offset);
        let index = part.identify(batch, &who)?;
        part.check_epoch(batch, &who)?;
        part.place(at, index, scene.now, &who)?;
    }
    if let Some(next) = expected {
        if next > data.high_watermark {
            return violated(
                Checker::Watermark,
                format!("{who}: records up to {next}, the high watermark is {}", data.high_watermark),
            );
        }
        scene.story.tell(scene.now, || format!("{who}: up to {next}"));
        positions.insert(key, next);
    }
    Ok(())
}

fn listed(
    positions: &mut BTreeMap<PartKey, i64>,
    key: PartKey,
    time: i64,
    asked: Asked,
    frame: Bytes,
    scene: &mut Scene<'_>,
    who: &str,
) -> Result<(), Violation> {
    let who = format!("{who}, {}-{}", key.topic, key.index);
    let response = decode::<ListOffsetsRequest>(frame, LIST)?;
    let answer = &response.topics[0].partitions[0];
    let error = error_of(answer.error_code)?;
    if scene.model.state(key.topic) != TopicState::Live {
        // Asked by name: it may be about another topic.
        positions.remove(&key);
        return Ok(());
    }
    let spec = &scene.model.topics[&key.topic].spec;
    let (may_trim, is_stamped) = (spec.may_trim, spec.by_append_time);
    let part = scene.model.parts.get_mut(&key).expect("its topic is there");
    match error {
        ErrorCode::None if time == EARLIEST => {
            if answer.offset < asked.floor.log_start || (answer.offset > 0 && !may_trim) {
                return violated(
                    Checker::LogStart,
                    format!("{who}: the log starts at {}, it was {}", answer.offset, asked.floor.log_start),
                );
            }
            part.log_start = part.log_start.max(answer.offset);
            Ok(())
        }
        ErrorCode::None if is_stamped || scene.excuses.corrupt => Ok(()),
        ErrorCode::None => part.check_time(time, (answer.offset, answer.timestamp), asked.floor, may_trim, &who),
        error if scene.excuses(error) => Ok(()),
        error => violated(Checker::Refusals, format!("{who}: offsets by time: {error:?}")),
    }
}
