//! Transactional producers, and a reader of what they have committed, in a topic of their own.
//!
//! Producers of two transactional ids, by either protocol of transactions, write records into several partitions of
//! several shards, commit an offset to a group of their own ([`offsets`]), and commit or abort; where they do not know
//! what became of a request they begin anew, which ends what was open ([`producer`]). The reader, which is here, goes
//! over a partition from its start to the last stable offset, and leaves out what it is told was aborted, as consumers
//! do.
//!
//! What was never asked to be committed must never be seen. What was told to be committed must be there, below the last
//! stable offset. What nobody was told is decided by the first record or offset that is seen, or is passed over: all
//! others of the transaction must agree with it, now and after every crash ([`book`]).

mod book;
mod links;
mod offsets;
mod producer;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::{CreateTopicsRequest, MetadataRequest};
use uuid::Uuid;

use self::book::{Book, Told};
use self::links::Links;
use self::producer::Producer;
use super::admin::METADATA;
use super::ask::{self, FETCH};
use super::keyed;
use super::link::decode;
use super::scene::{Scene, error_of};
use super::violation::{Checker, Violation, violated};
use crate::base::coverage;
use crate::base::rng::Rng;
use crate::base::time::Monotonic;
use crate::protocol::ErrorCode;

/// The topic, which is nobody else's business.
pub const TOPIC: &str = "transactions";
const PARTITION_COUNT: usize = 3;
const PRODUCER_COUNT: u32 = 2;
const CREATE: i16 = 7;
const READ_COMMITTED: i8 = 1;

enum Question {
    Metadata,
    Create,
    /// Which partition from where, and the last stable offset that was known.
    Fetch(usize, i64, i64),
}

/// A walk over one partition.
struct Pass {
    partition: usize,
    position: i64,
    /// What was known to be committed when it began.
    committed: BTreeSet<usize>,
    shown: BTreeSet<usize>,
    /// By producer: the transaction of the last record that was seen, while its marker has not come.
    unended: BTreeMap<i64, usize>,
}

impl Pass {
    /// A record is seen. Committed ones stay, so the marker of the producer's transaction before is there too. (The last
    /// one's may lie behind the last stable offset.)
    fn show(&mut self, producer: i64, number: usize, transaction: usize) -> Result<(), Violation> {
        self.shown.insert(number);
        match self.unended.insert(producer, transaction) {
            Some(before) if before != transaction => {
                let what = format!("{TOPIC}-{}: transaction {before} is there, and its marker is not", self.partition);
                violated(Checker::Compaction, what)
            }
            _ => Ok(()),
        }
    }
}

/// See the module.
pub struct Transactor {
    rng: Rng,
    book: Book,
    producers: Vec<Producer>,
    links: Links<Question>,
    is_compacted: bool,
    pass: Option<Pass>,
    next_at: Monotonic,
    pace_us: u64,
}

impl Transactor {
    /// Producers that have not begun, and a reader.
    pub fn new(mut rng: Rng) -> Transactor {
        Transactor {
            producers: (0..PRODUCER_COUNT).map(|id| Producer::new(id, rng.fork())).collect(),
            book: Book::default(),
            links: Links::default(),
            is_compacted: rng.chance(1, 2),
            pass: None,
            next_at: Monotonic(0),
            pace_us: 0,
            rng,
        }
    }

    /// A life begins.
    pub fn begin_life(&mut self) {
        self.links = Links::default();
        self.book.leaders.clear();
        self.pass = None;
        self.next_at = Monotonic(0);
        self.pace_us = [300, 3_000, 30_000][self.rng.in_range(0..3) as usize];
        self.producers.iter_mut().for_each(|producer| producer.begin_life(&mut self.book));
    }

    /// When it acts without being answered.
    pub fn next_at(&self) -> Monotonic {
        self.producers.iter().map(Producer::next_at).min().unwrap_or(self.next_at).min(self.next_at)
    }

    /// Questions that are not answered.
    pub fn under_way_count(&self) -> usize {
        let producers = self.producers.iter().map(Producer::under_way_count);
        producers.sum::<usize>() + self.links.under_way_count()
    }

    /// Takes answers and asks on.
    pub fn act(&mut self, scene: &mut Scene<'_>) -> Result<(), Violation> {
        for producer in &mut self.producers {
            producer.act(&mut self.book, scene)?;
        }
        let (answers, _) = self.links.take(scene, "the reader of committed records")?;
        for (question, frame) in answers {
            self.answered(question, frame, scene)?;
        }
        if scene.now < self.next_at || !scene.is_busy || self.links.under_way_count() > 0 {
            return Ok(());
        }
        self.next_at = scene.now + Duration::from_micros(self.rng.in_range(0..=2 * self.pace_us));
        let any = self.rng.in_range(0..scene.addresses.len() as u64) as usize;
        match self.book.topic {
            Some(topic) if !self.book.leaders.is_empty() => self.fetch(topic, scene),
            None if self.rng.chance(1, 2) => {
                scene.story.tell(scene.now, || format!("{TOPIC} is created"));
                let request = create_request(self.is_compacted);
                self.links.ask(any, CREATE, &request, Question::Create, scene);
            }
            _ => {
                let request = ask::metadata(TOPIC);
                self.links.ask(any, METADATA, &request, Question::Metadata, scene);
            }
        }
        Ok(())
    }

    fn fetch(&mut self, topic: Uuid, scene: &Scene<'_>) {
        if self.pass.is_none() {
            let partition = self.rng.in_range(0..PARTITION_COUNT as u64) as usize;
            let is_committed = |at: &usize| self.book.transactions[*at].told == Told::Committed;
            let committed = (0..self.book.transactions.len()).filter(is_committed).collect();
            let (shown, unended) = (BTreeSet::new(), BTreeMap::new());
            self.pass = Some(Pass { partition, position: 0, committed, shown, unended });
        }
        let pass = self.pass.as_ref().expect("it has begun");
        let size_bytes_max = [1, 10_000, 200_000][self.rng.in_range(0..3) as usize];
        let request =
            ask::fetch(topic, pass.partition, pass.position, size_bytes_max).with_isolation_level(READ_COMMITTED);
        let question = Question::Fetch(pass.partition, pass.position, self.book.stable[pass.partition]);
        self.links.ask(self.book.leaders[pass.partition], FETCH, &request, question, scene);
    }

    fn answered(&mut self, question: Question, frame: Bytes, scene: &mut Scene<'_>) -> Result<(), Violation> {
        match question {
            Question::Create => {
                let response = decode::<CreateTopicsRequest>(frame, CREATE)?;
                match error_of(response.topics[0].error_code)? {
                    // Whether it is there, and where, is asked next.
                    ErrorCode::None | ErrorCode::TopicAlreadyExists => Ok(()),
                    error if scene.excuses(error) => Ok(()),
                    error => violated(Checker::Refusals, format!("{TOPIC} is not created: {error:?}")),
                }
            }
            Question::Metadata => {
                let response = decode::<MetadataRequest>(frame, METADATA)?;
                let Some(topic) = response.topics.into_iter().next().filter(|topic| topic.error_code == 0) else {
                    return Ok(());
                };
                if self.book.topic.is_some_and(|known| known != topic.topic_id) {
                    return violated(Checker::Metadata, format!("{TOPIC} has another id"));
                }
                self.book.topic = Some(topic.topic_id);
                let mut leaders = BTreeMap::new();
                for partition in &topic.partitions {
                    leaders.insert(partition.partition_index, usize::try_from(partition.leader_id.0 - 1));
                }
                let leaders: Vec<usize> = leaders.into_values().flatten().collect();
                self.book.leaders = if leaders.len() == PARTITION_COUNT { leaders } else { Vec::new() };
                Ok(())
            }
            Question::Fetch(partition, position, stable) => self.fetched(partition, position, stable, frame, scene),
        }
    }

    fn fetched(
        &mut self,
        partition: usize,
        position: i64,
        stable: i64,
        frame: Bytes,
        scene: &mut Scene<'_>,
    ) -> Result<(), Violation> {
        let data = ask::fetched(frame)?;
        if scene.excuses.corrupt {
            // Nothing can be learnt from what may have been read wrong.
            self.pass = None;
            return Ok(());
        }
        let who = format!("{TOPIC}-{partition} from {position}");
        match error_of(data.error_code)? {
            ErrorCode::None => {}
            ErrorCode::NotLeaderOrFollower | ErrorCode::UnknownTopicId | ErrorCode::UnknownTopicOrPartition => {
                self.book.leaders.clear();
                return Ok(());
            }
            error if scene.excuses(error) => return Ok(()),
            error => return violated(Checker::Refusals, format!("{who}: {error:?}")),
        }
        let end = data.last_stable_offset;
        if end < stable || end > data.high_watermark {
            let what = format!("{who}: the last stable offset is {end}, it was {stable}, of {}", data.high_watermark);
            return violated(Checker::Watermark, what);
        }
        self.book.stable[partition] = self.book.stable[partition].max(end);
        let mut aborted: Vec<(i64, i64)> = data
            .aborted_transactions
            .unwrap_or_default()
            .iter()
            .map(|entry| (entry.first_offset, entry.producer_id.0))
            .collect();
        aborted.sort_unstable_by(|one, other| other.cmp(one));
        let records = data.records.unwrap_or_default();
        let batches = match keyed::read_transactional(&records) {
            Ok(batches) => batches,
            Err(error) => return violated(Checker::Changed, format!("{who}: {error}")),
        };
        let (mut next, mut ended) = (position, BTreeSet::new());
        for read in batches {
            let batch = read.batch;
            if !batch.is_sound || batch.next_offset <= next {
                return violated(Checker::Changed, format!("{who}: {batch:?} where {next} is next"));
            }
            if batch.base_offset >= end {
                return violated(Checker::AbortedRead, format!("{who}: {batch:?} is not decided, {end} is stable"));
            }
            next = batch.next_offset;
            while let Some((_, producer)) = aborted.pop_if(|(first, _)| *first < batch.next_offset) {
                ended.insert(producer);
            }
            if let Some(commits) = read.marker {
                if commits && ended.contains(&read.producer) {
                    return violated(
                        Checker::Fractured,
                        format!("{who}: {batch:?} commits what is said to be aborted"),
                    );
                }
                ended.remove(&read.producer);
                if commits && let Some(pass) = &mut self.pass {
                    pass.unended.remove(&read.producer);
                }
                continue;
            }
            let is_shown = !ended.contains(&read.producer);
            for (offset, record) in read.records {
                let number = record.number as usize;
                match self.book.sent.get(number) {
                    Some(sent) if sent.record == record => {}
                    Some(_) => return violated(Checker::Changed, format!("{who}: record {number} at {offset}")),
                    None => return violated(Checker::Phantom, format!("{who}: record {number} at {offset}")),
                }
                self.book.read(partition, number, offset, is_shown)?;
                if is_shown && let Some(pass) = &mut self.pass {
                    pass.show(read.producer, number, self.book.sent[number].transaction)?;
                }
                if !is_shown {
                    coverage::hit("transaction: a record is passed over");
                }
            }
        }
        if next == position && position < end {
            return violated(Checker::Gaps, format!("{who}: nothing below {end}"));
        }
        if next < end
            && let Some(pass) = &mut self.pass
        {
            pass.position = next;
            return Ok(());
        }
        self.check_pass(end)
    }

    /// The pass has come to the last stable offset: what was committed when it began was seen.
    fn check_pass(&mut self, end: i64) -> Result<(), Violation> {
        let Some(pass) = self.pass.take() else { return Ok(()) };
        coverage::hit("transaction: a partition is compared");
        for (offset, number) in self.book.placed[pass.partition].range(..end) {
            let at = self.book.sent[*number].transaction;
            if pass.committed.contains(&at) && !pass.shown.contains(number) {
                let what = format!(
                    "{TOPIC}-{}: record {number} at {offset} of transaction {at}, which was committed, is not there",
                    pass.partition
                );
                return violated(Checker::Fractured, what);
            }
        }
        Ok(())
    }
}

fn create_request(is_compacted: bool) -> CreateTopicsRequest {
    // No key comes twice, so compaction removes nothing but what was aborted, and markers.
    let compacts =
        [("cleanup.policy", "compact"), ("min.cleanable.dirty.ratio", "0.1"), ("delete.retention.ms", "200")];
    let keeps = [("retention.ms", "-1")];
    ask::create(TOPIC, PARTITION_COUNT, if is_compacted { &compacts } else { &keeps })
}
