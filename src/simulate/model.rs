//! What clients were told, and what may follow from it: plain maps, slow and simple.
//!
//! A partition is the list of batches that were sent to it and a map from offsets to those that were acknowledged
//! there or read there. [`Part::place`] puts a batch at an offset and complains when that contradicts anything known;
//! acknowledgements, fetches and the comparison after a start all go through it.
//!
//! It knows nothing of how the broker works, and shares no code with it.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::groups::GroupModel;
use super::owners::Owners;
use super::violation::{Checker, Violation, violated};
use super::wire::Batch;
use crate::base::time::Monotonic;

/// A partition's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PartKey {
    /// Its topic.
    pub topic: Uuid,
    /// Which of them.
    pub index: i32,
}

/// What an acknowledgement survives (`ottla.ack.after`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Keeps {
    /// A power cut.
    Sync,
    /// A kill.
    Write,
    /// A clean stop.
    Memory,
}

/// How a life of the broker ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// As it should.
    Stop,
    /// The process is killed.
    Kill,
    /// The power is cut.
    Cut,
}

/// What is known of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicState {
    /// It exists.
    Live,
    /// A deletion was asked for and is not answered, or will never be.
    Deleting,
    /// It is gone.
    Deleted,
}

/// How a topic was created.
#[derive(Clone, Debug)]
pub struct TopicSpec {
    /// Partitions.
    pub partition_count: i32,
    /// What its acknowledgements survive.
    pub keeps: Keeps,
    /// Retention, or somebody, may raise its log start.
    pub may_trim: bool,
    /// The broker stamps timestamps.
    pub by_append_time: bool,
}

/// A topic.
#[derive(Clone, Debug)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// How it was created.
    pub spec: TopicSpec,
    /// Whether it is there.
    pub state: TopicState,
}

/// What stands under a name.
#[derive(Clone, Debug)]
pub enum Name {
    /// Nothing.
    Free,
    /// This topic.
    Is(Uuid),
    /// Perhaps a new topic: its creation was not answered.
    Creating(TopicSpec),
    /// Perhaps still this topic: its deletion was not answered.
    Deleting(Uuid),
}

/// A batch that was sent.
#[derive(Clone, Debug)]
pub struct Sent {
    /// By whom.
    pub writer: u32,
    /// Its number among the writer's batches for this partition.
    pub number: u64,
    /// Under which producer id, by an idempotent writer.
    pub session: Option<i64>,
    /// Its records' times.
    pub times: Vec<i64>,
    /// Where it stands.
    pub at: Option<i64>,
}

/// A partition.
#[derive(Debug, Default)]
pub struct Part {
    /// The shard that leads it.
    pub leader: usize,
    /// Everything that was sent.
    pub sent: Vec<Sent>,
    by_body: BTreeMap<u64, u32>,
    /// What stands where: by base offset, which batch and where it ends.
    placed: BTreeMap<i64, (u32, i64)>,
    streams: BTreeMap<u32, BTreeMap<u64, i64>>,
    /// Behind the last batch that is known to stand.
    pub end: i64,
    /// When `end` moved last.
    pub end_since: Monotonic,
    /// The greatest high watermark that an answer told.
    pub watermark: i64,
    /// The greatest log start that an answer told.
    pub log_start: i64,
    /// Its last end may have cost it batches: what is there now is what counts.
    pub is_open: bool,
    /// Some end may have cost it batches.
    pub was_lossy: bool,
    /// It could not be opened: the disk fails.
    pub is_offline: bool,
    /// Where this life began to append, and the greatest epoch before.
    pub born: Option<(i64, i32)>,
    /// Nobody writes to it until then.
    pub quiet_until: Monotonic,
}

/// Everything that clients know.
#[derive(Debug, Default)]
pub struct Model {
    /// By id, the deleted ones included.
    pub topics: BTreeMap<Uuid, Topic>,
    /// By name.
    pub names: BTreeMap<String, Name>,
    /// Partitions of all topics.
    pub parts: BTreeMap<PartKey, Part>,
    /// Batches acknowledged so far.
    pub acked_count: u64,
    /// What the members of a group were told.
    pub group: GroupModel,
    /// What members of a group of the consumer protocol have.
    pub owners: Owners,
}

impl Model {
    /// A topic that exists from now on.
    pub fn created(&mut self, name: &str, id: Uuid, spec: TopicSpec) -> Result<(), Violation> {
        if self.topics.contains_key(&id) {
            return violated(Checker::Metadata, format!("the id {id} of {name} was used before"));
        }
        for index in 0..spec.partition_count {
            self.parts.insert(PartKey { topic: id, index }, Part::default());
        }
        self.names.insert(name.to_owned(), Name::Is(id));
        self.topics.insert(id, Topic { name: name.to_owned(), spec, state: TopicState::Live });
        Ok(())
    }

    /// A topic that is gone from now on.
    pub fn deleted(&mut self, id: Uuid) {
        let topic = self.topics.get_mut(&id).expect("it existed");
        topic.state = TopicState::Deleted;
        self.names.insert(topic.name.clone(), Name::Free);
        self.parts.retain(|key, _| key.topic != id);
    }

    /// Whether the topic is there.
    pub fn state(&self, id: Uuid) -> TopicState {
        self.topics.get(&id).map_or(TopicState::Deleted, |topic| topic.state)
    }

    /// Partitions of topics that exist for sure.
    pub fn live_parts(&self) -> impl Iterator<Item = (&PartKey, &Part)> {
        self.parts.iter().filter(|(key, _)| self.state(key.topic) == TopicState::Live)
    }

    /// The broker's life is over. With `has_errors` its disk failed: what was acknowledged from memory may not have
    /// got there.
    pub fn end_life(&mut self, end: End, has_errors: bool) {
        for (key, part) in &mut self.parts {
            let keeps = self.topics[&key.topic].spec.keeps;
            let is_lossy = match end {
                End::Stop => keeps == Keeps::Memory && has_errors,
                End::Kill => keeps == Keeps::Memory,
                End::Cut => keeps != Keeps::Sync,
            };
            part.born = None;
            if is_lossy {
                part.forget();
            }
        }
    }
}

impl Part {
    /// Notes a batch that is about to be sent; its number here.
    pub fn send(&mut self, body: u64, sent: Sent) -> u32 {
        let index = self.sent.len() as u32;
        let before = self.by_body.insert(body, index);
        assert!(before.is_none(), "every batch that the writers make is another one");
        self.sent.push(sent);
        index
    }

    /// Which batch this is, that was read.
    pub fn identify(&self, batch: &Batch, who: &str) -> Result<u32, Violation> {
        if !batch.is_sound {
            return violated(
                Checker::Changed,
                format!("{who}: the CRC of the batch at {} is wrong", batch.base_offset),
            );
        }
        match self.by_body.get(&batch.body) {
            Some(index) => Ok(*index),
            None => violated(
                Checker::Phantom,
                format!("{who}: the batch at {} (epoch {}) was never sent", batch.base_offset, batch.leader_epoch),
            ),
        }
    }

    /// A batch stands at an offset: it was acknowledged there, or read.
    pub fn place(&mut self, base_offset: i64, index: u32, now: Monotonic, who: &str) -> Result<(), Violation> {
        let sent = &self.sent[index as usize];
        let next_offset = base_offset + sent.times.len() as i64;
        let name = |sent: &Sent| format!("batch {} of writer {}", sent.number, sent.writer);
        if let Some((there, _)) = self.placed.get(&base_offset)
            && *there != index
        {
            let there = name(&self.sent[*there as usize]);
            return violated(
                Checker::Changed,
                format!("{who}: {} stands at {base_offset} where {there} stood", name(sent)),
            );
        }
        match sent.at {
            Some(at) if at == base_offset => return Ok(()),
            Some(at) => {
                return violated(
                    Checker::Duplicate,
                    format!("{who}: {} stands at {at} and at {base_offset}", name(sent)),
                );
            }
            None => {}
        }
        let before = self.placed.range(..base_offset).next_back();
        let behind = self.placed.range(base_offset..).next();
        if before.is_some_and(|(_, (_, end))| *end > base_offset) || behind.is_some_and(|(at, _)| *at < next_offset) {
            return violated(
                Checker::Changed,
                format!("{who}: {} at {base_offset}..{next_offset} overlaps {before:?} or {behind:?}", name(sent)),
            );
        }
        let stream = self.streams.entry(sent.writer).or_default();
        let earlier = stream.range(..sent.number).next_back();
        let later = stream.range(sent.number..).next();
        if earlier.is_some_and(|(_, at)| *at > base_offset) || later.is_some_and(|(_, at)| *at < base_offset) {
            return violated(
                Checker::Order,
                format!("{who}: {} stands at {base_offset}, earlier {earlier:?}, later {later:?}", name(sent)),
            );
        }
        stream.insert(sent.number, base_offset);
        self.sent[index as usize].at = Some(base_offset);
        self.placed.insert(base_offset, (index, next_offset));
        if next_offset > self.end {
            self.end = next_offset;
            self.end_since = now;
        }
        Ok(())
    }

    /// A high watermark and a log start that an answer told; `floor` is what was known when it was asked for.
    pub fn saw(&mut self, (watermark, log_start): (i64, i64), floor: Floor, who: &str) -> Result<(), Violation> {
        if watermark < floor.end {
            return violated(
                Checker::ReadYourWrites,
                format!("{who}: the high watermark is {watermark}, but {} was acknowledged before", floor.end),
            );
        }
        if watermark < floor.watermark {
            return violated(
                Checker::Watermark,
                format!("{who}: the high watermark is {watermark}, it was {}", floor.watermark),
            );
        }
        if log_start < floor.log_start || log_start > watermark {
            return violated(
                Checker::LogStart,
                format!("{who}: the log start is {log_start}, it was {}, the end is {watermark}", floor.log_start),
            );
        }
        self.watermark = self.watermark.max(watermark);
        self.log_start = self.log_start.max(log_start);
        Ok(())
    }

    /// What no later answer may fall behind.
    pub fn floor(&self) -> Floor {
        Floor { end: self.end, watermark: self.watermark, log_start: self.log_start }
    }

    /// An epoch that a batch was read with.
    pub fn check_epoch(&self, batch: &Batch, who: &str) -> Result<(), Violation> {
        match self.born {
            Some((end, epoch)) if batch.base_offset >= end && batch.leader_epoch <= epoch => violated(
                Checker::Epochs,
                format!(
                    "{who}: the batch at {} has epoch {}, but the last life had {epoch}",
                    batch.base_offset, batch.leader_epoch
                ),
            ),
            _ => Ok(()),
        }
    }

    /// Compares everything that is there, from `start` to the high watermark, while nobody writes.
    pub fn compare(
        &mut self,
        start: i64,
        end: i64,
        found: &[Batch],
        now: Monotonic,
        who: &str,
    ) -> Result<(), Violation> {
        let (mut expected, mut epoch) = (None, -1);
        let mut last: BTreeMap<u32, u32> = BTreeMap::new();
        for batch in found {
            let at = batch.base_offset;
            let index = self.identify(batch, who)?;
            if expected.is_some_and(|expected| expected != at) || (expected.is_none() && at > start) {
                return violated(Checker::Gaps, format!("{who}: {at} follows {expected:?}, from {start}"));
            }
            expected = Some(batch.next_offset);
            if batch.leader_epoch < epoch {
                return violated(
                    Checker::Epochs,
                    format!("{who}: epoch {} at {at} follows {epoch}", batch.leader_epoch),
                );
            }
            epoch = batch.leader_epoch;
            self.place(at, index, now, who)?;
            let sent = &self.sent[index as usize];
            if let Some(before) = last.insert(sent.writer, index) {
                let before = &self.sent[before as usize];
                let is_session = sent.session.is_some() && sent.session == before.session;
                if is_session && before.number + 1 != sent.number && !self.was_lossy {
                    return violated(
                        Checker::Gaps,
                        format!(
                            "{who}: batch {} of writer {} is followed by {}",
                            before.number, sent.writer, sent.number
                        ),
                    );
                }
            }
        }
        if expected.unwrap_or(end) != end {
            return violated(Checker::Gaps, format!("{who}: batches end at {expected:?}, the high watermark is {end}"));
        }
        if end < self.end {
            return violated(
                Checker::Durability,
                format!("{who}: acknowledged or read up to {}, there up to {end}", self.end),
            );
        }
        // Whatever was known to stand between the first and the last is among them: they have no gap and `place` has
        // compared each.
        self.is_open = false;
        let before = self.born.map_or(-1, |(_, epoch)| epoch);
        self.born = Some((end, epoch.max(before)));
        Ok(())
    }

    /// Checks the answer to a question for the first record at or after `time`.
    pub fn check_time(
        &self,
        time: i64,
        answer: (i64, i64),
        floor: Floor,
        may_trim: bool,
        who: &str,
    ) -> Result<(), Violation> {
        let (offset, found_time) = answer;
        let record_time = |at: i64| {
            let (base, (index, end)) = self.placed.range(..=at).next_back()?;
            (at < *end).then(|| self.sent[*index as usize].times[(at - base) as usize])
        };
        if offset >= 0 && (found_time < time || record_time(offset).is_some_and(|known| known != found_time)) {
            return violated(
                Checker::Times,
                format!("{who}: time {time} is at {offset} with {found_time}, sent {:?}", record_time(offset)),
            );
        }
        if may_trim {
            return Ok(());
        }
        // Nothing that was acknowledged when it was asked stands before it.
        let end = if offset >= 0 { offset } else { floor.end };
        for (base, (index, next)) in self.placed.range(..end) {
            let times = &self.sent[*index as usize].times;
            if let Some(at) = times.iter().position(|known| *known >= time)
                && base + (at as i64) < end.min(*next)
                && base + (at as i64) < floor.end
            {
                let at = base + at as i64;
                return violated(Checker::Times, format!("{who}: time {time} is at {at}, the answer was {answer:?}"));
            }
        }
        Ok(())
    }

    fn forget(&mut self) {
        self.placed.clear();
        self.streams.clear();
        self.sent.iter_mut().for_each(|sent| sent.at = None);
        (self.end, self.watermark, self.log_start) = (0, 0, 0);
        (self.is_open, self.was_lossy) = (true, true);
    }
}

/// What was known of a partition when a question was asked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Floor {
    /// Behind the last acknowledged batch.
    pub end: i64,
    /// The greatest high watermark.
    pub watermark: i64,
    /// The greatest log start.
    pub log_start: i64,
}
