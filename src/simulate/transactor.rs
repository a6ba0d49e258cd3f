//! Transactional producers, and a reader of what they have committed, in a topic of their own.
//!
//! Producers of two transactional ids, by either protocol of transactions, write records into several partitions of
//! several shards and commit or abort; where they do not know what became of a request they begin anew, which ends what
//! was open. The reader goes over a partition from its start to the last stable offset, and leaves out what it is told
//! was aborted, as consumers do.
//!
//! What was never asked to be committed must never be seen. What was told to be committed must be there, below the last
//! stable offset. What nobody was told is decided by the first record that is seen, or is passed over: all others of
//! the transaction must agree with it, now and after every crash.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    AddPartitionsToTxnRequest, CreateTopicsRequest, EndTxnRequest, FindCoordinatorRequest, InitProducerIdRequest,
    MetadataRequest, ProduceRequest, TransactionalId,
};
use kafka_protocol::protocol::{Request, StrBytes};
use uuid::Uuid;

use super::admin::{METADATA, topic_name};
use super::ask::{self, FETCH};
use super::keyed::{self, Keyed};
use super::link::{Link, decode};
use super::scene::{Scene, error_of};
use super::violation::{Checker, Violation, violated};
use super::wire::Session;
use crate::base::coverage;
use crate::base::rng::Rng;
use crate::base::time::Monotonic;
use crate::protocol::ErrorCode;

/// The topic, which is nobody else's business.
pub const TOPIC: &str = "transactions";
const PARTITION_COUNT: usize = 3;
const PRODUCER_COUNT: u32 = 2;
/// Transactions of one life that come quickly; a life may be long.
const HURRY_COUNT: u32 = 1_000;
const CREATE: i16 = 7;
const FIND: i16 = 3;
const INIT: i16 = 4;
const ADD: i16 = 3;
const READ_COMMITTED: i8 = 1;

/// What its producer was told of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// Nothing: it goes on, or its commit was asked for and not answered.
    Nothing,
    Committed,
    /// So, or its producer began anew without having asked for a commit.
    Aborted,
}

/// A transaction.
struct Transaction {
    told: Told,
    /// A commit was asked for: it may be one.
    is_commit_asked: bool,
    /// Records of it were seen.
    is_shown: bool,
    /// Records of it were passed over below a last stable offset.
    is_hidden: bool,
}

/// A record that was sent.
struct Sent {
    record: Keyed,
    transaction: usize,
    partition: usize,
    at: Option<i64>,
}

/// What is known, of all producers.
#[derive(Default)]
struct Book {
    topic: Option<Uuid>,
    /// Where each partition is led, if that is known.
    leaders: Vec<usize>,
    transactions: Vec<Transaction>,
    sent: Vec<Sent>,
    /// Which record stands where, as far as it was told.
    placed: [BTreeMap<i64, usize>; PARTITION_COUNT],
    /// The greatest last stable offset that was told.
    stable: [i64; PARTITION_COUNT],
}

impl Book {
    /// A record stands at an offset: it was acknowledged there, or read.
    fn place(&mut self, partition: usize, number: usize, offset: i64) -> Result<(), Violation> {
        let there = self.placed[partition].insert(offset, number);
        let sent = &mut self.sent[number];
        let at = sent.at.replace(offset);
        if there.is_some_and(|there| there != number)
            || at.is_some_and(|at| at != offset)
            || sent.partition != partition
        {
            let what = format!(
                "{TOPIC}-{partition}: record {number} of partition {} is at {offset} and at {at:?}, where {there:?} was",
                sent.partition
            );
            return violated(Checker::Duplicate, what);
        }
        Ok(())
    }

    /// A reader of committed records has seen a record, or has passed over it.
    fn read(&mut self, partition: usize, number: usize, offset: i64, is_shown: bool) -> Result<(), Violation> {
        self.place(partition, number, offset)?;
        let at = self.sent[number].transaction;
        let transaction = &mut self.transactions[at];
        let who = || format!("{TOPIC}-{partition}: record {number} at {offset} of transaction {at}");
        match is_shown {
            true => transaction.is_shown = true,
            false => transaction.is_hidden = true,
        }
        if is_shown && (!transaction.is_commit_asked || transaction.told == Told::Aborted) {
            return violated(Checker::AbortedRead, format!("{} is read, which was not committed", who()));
        }
        if !is_shown && transaction.told == Told::Committed {
            return violated(Checker::Fractured, format!("{} is passed over, which was committed", who()));
        }
        if transaction.is_shown && transaction.is_hidden {
            let what = if is_shown { "read, and others of it" } else { "passed over, and others of it were read, not" };
            return violated(Checker::Fractured, format!("{} is {what} passed over", who()));
        }
        Ok(())
    }
}

enum Question {
    Find,
    Init,
    Add,
    /// Numbers of the records, their partition.
    Produce(Vec<usize>, usize),
    End(bool),
    Metadata,
    Create,
    /// Which partition from where, and the last stable offset that was known.
    Fetch(usize, i64, i64),
}

/// Connections of one client, to every shard that it needs. One question is under way at a time.
#[derive(Default)]
struct Links(BTreeMap<usize, Link<Question>>);

impl Links {
    fn ask<R: Request>(&mut self, shard: usize, version: i16, request: &R, question: Question, scene: &Scene<'_>) {
        let link = match self.0.entry(shard) {
            Entry::Occupied(link) => link.into_mut(),
            Entry::Vacant(place) => match Link::connect(scene.world, scene.addresses[shard]) {
                Some(link) => place.insert(link),
                None => return,
            },
        };
        link.send(version, request, Some(question), scene.now);
    }

    fn under_way_count(&self) -> usize {
        self.0.values().map(Link::under_way_count).sum()
    }

    /// Answers that have come, and whether a question was lost.
    fn take(&mut self, scene: &Scene<'_>, who: &str) -> Result<(Vec<(Question, Bytes)>, bool), Violation> {
        let (mut answers, mut over, mut is_lost) = (Vec::new(), Vec::new(), false);
        for (shard, link) in &mut self.0 {
            while let Some(answer) = link.take(scene.now)? {
                answers.push(answer);
            }
            if scene.check_link(link, &format_args!("{who} at shard {shard}"))? {
                over.push(*shard);
            }
        }
        for shard in over {
            is_lost |= self.0.remove(&shard).expect("it is there").under_way_count() > 0;
        }
        Ok((answers, is_lost))
    }
}

/// What a transaction has still to do.
enum Step {
    /// Only with the first protocol.
    Add(Vec<usize>),
    Produce(usize),
    End(bool),
}

/// A transactional producer.
struct Producer {
    id: u32,
    rng: Rng,
    links: Links,
    coordinator: Option<usize>,
    session: Option<Session>,
    sequences: [i32; PARTITION_COUNT],
    /// By the second protocol: produce requests bring partitions into the transaction, each end raises the epoch.
    is_v2: bool,
    timeout_ms: i32,
    transaction: Option<(usize, i64)>,
    todo: VecDeque<Step>,
    /// A batch that was refused for now, its records and partition.
    again: Option<(Vec<u8>, Vec<usize>)>,
    next_at: Monotonic,
    pace_us: u64,
    hurry_count: u32,
}

impl Producer {
    fn new(id: u32, mut rng: Rng) -> Producer {
        Producer {
            id,
            links: Links::default(),
            coordinator: None,
            session: None,
            sequences: [0; PARTITION_COUNT],
            is_v2: rng.chance(1, 2),
            timeout_ms: if rng.chance(1, 4) { 500 } else { 60_000 },
            transaction: None,
            todo: VecDeque::new(),
            again: None,
            next_at: Monotonic(0),
            pace_us: 0,
            hurry_count: 0,
            rng,
        }
    }

    fn begin_life(&mut self, book: &mut Book) {
        if std::mem::take(&mut self.links).under_way_count() > 0 {
            self.give_up(book);
        }
        self.coordinator = None;
        self.next_at = Monotonic(0);
        self.pace_us = [20, 200, 3_000][self.rng.in_range(0..3) as usize];
        self.hurry_count = HURRY_COUNT;
    }

    /// Nobody knows how far it came: whatever was not asked to be committed never will be.
    fn give_up(&mut self, book: &mut Book) {
        if let Some((at, _)) = self.transaction.take() {
            coverage::hit("transaction: given up");
            let transaction = &mut book.transactions[at];
            if !transaction.is_commit_asked {
                transaction.told = Told::Aborted;
            }
        }
        self.todo.clear();
        (self.again, self.session) = (None, None);
    }

    fn name(&self) -> TransactionalId {
        TransactionalId(StrBytes::from_string(format!("transactional-{}", self.id)))
    }

    fn act(&mut self, book: &mut Book, scene: &mut Scene<'_>) -> Result<(), Violation> {
        let (answers, is_lost) = self.links.take(scene, &format!("producer {}", self.id))?;
        for (question, frame) in answers {
            self.answered(question, frame, book, scene)?;
        }
        if is_lost {
            self.give_up(book);
        }
        if scene.now < self.next_at || !scene.is_busy || self.links.under_way_count() > 0 || book.leaders.is_empty() {
            return Ok(());
        }
        self.hurry_count = self.hurry_count.saturating_sub(1);
        let pace_us = if self.hurry_count > 0 { self.pace_us } else { 50_000 };
        self.next_at = scene.now + Duration::from_micros(self.rng.in_range(0..=2 * pace_us));
        let Some(coordinator) = self.coordinator else {
            let any = self.rng.in_range(0..scene.addresses.len() as u64) as usize;
            let request = FindCoordinatorRequest::default().with_key(self.name().0).with_key_type(1);
            self.links.ask(any, FIND, &request, Question::Find, scene);
            return Ok(());
        };
        let Some(session) = self.session else {
            let request = InitProducerIdRequest::default()
                .with_transactional_id(Some(self.name()))
                .with_transaction_timeout_ms(self.timeout_ms)
                .with_producer_id((-1).into())
                .with_producer_epoch(-1);
            self.links.ask(coordinator, INIT, &request, Question::Init, scene);
            return Ok(());
        };
        if self.todo.is_empty() {
            self.begin(book, scene);
        }
        match self.todo.front().expect("it was just filled") {
            Step::Add(partitions) => {
                let topic = AddPartitionsToTxnTopic::default()
                    .with_name(topic_name(TOPIC))
                    .with_partitions(partitions.iter().map(|partition| *partition as i32).collect());
                let request = AddPartitionsToTxnRequest::default()
                    .with_v3_and_below_transactional_id(self.name())
                    .with_v3_and_below_producer_id(session.id.into())
                    .with_v3_and_below_producer_epoch(session.epoch)
                    .with_v3_and_below_topics(vec![topic]);
                self.links.ask(coordinator, ADD, &request, Question::Add, scene);
            }
            Step::Produce(partition) => {
                let partition = *partition;
                let (bytes, numbers) =
                    self.again.take().unwrap_or_else(|| self.batch(session, partition, book, scene.wall_ms));
                self.again = Some((bytes.clone(), numbers.clone()));
                let data =
                    PartitionProduceData::default().with_index(partition as i32).with_records(Some(bytes.into()));
                let topic = TopicProduceData::default().with_partition_data(vec![data]);
                let (version, topic) = match self.is_v2 {
                    true => (13, topic.with_topic_id(book.topic.expect("its leaders are known"))),
                    false => (11, topic.with_name(topic_name(TOPIC))),
                };
                let request = ProduceRequest::default()
                    .with_transactional_id(Some(self.name()))
                    .with_acks(-1)
                    .with_timeout_ms(30_000)
                    .with_topic_data(vec![topic]);
                let question = Question::Produce(numbers, partition);
                self.links.ask(book.leaders[partition], version, &request, question, scene);
            }
            Step::End(commits) => {
                let commits = *commits;
                let (at, _) = self.transaction.expect("it has begun");
                book.transactions[at].is_commit_asked |= commits;
                let request = EndTxnRequest::default()
                    .with_transactional_id(self.name())
                    .with_producer_id(session.id.into())
                    .with_producer_epoch(session.epoch)
                    .with_committed(commits);
                scene
                    .story
                    .tell(scene.now, || format!("producer {} ends transaction {at}, commit: {commits}", self.id));
                let version = self.end_version();
                self.links.ask(coordinator, version, &request, Question::End(commits), scene);
            }
        }
        Ok(())
    }

    fn end_version(&self) -> i16 {
        if self.is_v2 { 5 } else { 3 }
    }

    fn produce_version(&self) -> i16 {
        if self.is_v2 { 13 } else { 11 }
    }

    /// A new transaction: what it will do.
    fn begin(&mut self, book: &mut Book, scene: &mut Scene<'_>) {
        let at = book.transactions.len();
        book.transactions.push(Transaction {
            told: Told::Nothing,
            is_commit_asked: false,
            is_shown: false,
            is_hidden: false,
        });
        self.transaction = Some((at, scene.wall_ms));
        let rng = &mut self.rng;
        let mut partitions: Vec<usize> = (0..PARTITION_COUNT).filter(|_| rng.chance(2, 3)).collect();
        if partitions.is_empty() {
            partitions.push(rng.in_range(0..PARTITION_COUNT as u64) as usize);
        }
        if !self.is_v2 {
            self.todo.push_back(Step::Add(partitions.clone()));
        }
        for _ in 0..rng.in_range(1..3) {
            self.todo.extend(partitions.iter().map(|partition| Step::Produce(*partition)));
        }
        let commits = rng.chance(2, 3);
        self.todo.push_back(Step::End(commits));
        scene.story.tell(scene.now, || format!("producer {} begins transaction {at} in {partitions:?}", self.id));
    }

    fn batch(&mut self, session: Session, partition: usize, book: &mut Book, wall_ms: i64) -> (Vec<u8>, Vec<usize>) {
        let (transaction, _) = self.transaction.expect("it has begun");
        let first = book.sent.len();
        for _ in 0..self.rng.in_range(1..4) {
            let number = book.sent.len() as u64;
            let size_bytes = self.rng.in_range(0..2_000) as usize;
            let record = Keyed {
                number,
                time: wall_ms,
                key: format!("key {number}").into_bytes(),
                value: Some(keyed::filler(number, size_bytes)),
            };
            book.sent.push(Sent { record, transaction, partition, at: None });
        }
        let numbers: Vec<usize> = (first..book.sent.len()).collect();
        let records: Vec<&Keyed> = book.sent[first..].iter().map(|sent| &sent.record).collect();
        (keyed::build_in_transaction(session, self.sequences[partition], &records), numbers)
    }

    fn answered(
        &mut self,
        question: Question,
        frame: Bytes,
        book: &mut Book,
        scene: &mut Scene<'_>,
    ) -> Result<(), Violation> {
        match question {
            Question::Find => {
                let response = decode::<FindCoordinatorRequest>(frame, FIND)?;
                if self.goes_on(error_of(response.error_code)?, "find its coordinator", book, scene)? {
                    self.coordinator = usize::try_from(response.node_id.0 - 1).ok();
                }
            }
            Question::Init => {
                let response = decode::<InitProducerIdRequest>(frame, INIT)?;
                if self.goes_on(error_of(response.error_code)?, "begin anew", book, scene)? {
                    let session = Session { id: response.producer_id.0, epoch: response.producer_epoch };
                    scene.story.tell(scene.now, || format!("producer {} is {session:?}", self.id));
                    self.session = Some(session);
                    self.sequences = [0; PARTITION_COUNT];
                }
            }
            Question::Add => {
                let response = decode::<AddPartitionsToTxnRequest>(frame, ADD)?;
                let topic = response.results_by_topic_v3_and_below.first();
                let results = topic.map_or(&[][..], |topic| &topic.results_by_partition[..]);
                let error = results.iter().map(|result| result.partition_error_code).find(|error| *error != 0);
                if self.goes_on(error_of(error.unwrap_or(0))?, "add partitions", book, scene)? {
                    self.todo.pop_front();
                }
            }
            Question::Produce(numbers, partition) => {
                let (error, base_offset) = ask::produced(frame, self.produce_version())?;
                scene.story.tell(scene.now, || {
                    format!("producer {}: {numbers:?} in partition {partition}: {error:?}, {base_offset}", self.id)
                });
                if self.goes_on(error, "produce", book, scene)? {
                    self.again = None;
                    self.todo.pop_front();
                    self.sequences[partition] += numbers.len() as i32;
                    for (number, offset) in numbers.into_iter().zip(base_offset..) {
                        book.place(partition, number, offset)?;
                    }
                }
            }
            Question::End(commits) => {
                let version = self.end_version();
                let response = decode::<EndTxnRequest>(frame, version)?;
                let error = error_of(response.error_code)?;
                scene.story.tell(scene.now, || format!("producer {}: commit: {commits}: {error:?}", self.id));
                if self.goes_on(error, "end its transaction", book, scene)? {
                    self.todo.pop_front();
                    self.ended(commits, book)?;
                    if self.is_v2 {
                        self.session = Some(Session { id: response.producer_id.0, epoch: response.producer_epoch });
                        self.sequences = [0; PARTITION_COUNT];
                    }
                }
            }
            Question::Metadata | Question::Create | Question::Fetch(..) => unreachable!("the reader asks that"),
        }
        Ok(())
    }

    /// The producer was told how its transaction ended.
    fn ended(&mut self, commits: bool, book: &mut Book) -> Result<(), Violation> {
        let (at, _) = self.transaction.take().expect("it has begun");
        let transaction = &mut book.transactions[at];
        coverage::hit(if commits { "transaction: committed" } else { "transaction: aborted" });
        transaction.told = if commits { Told::Committed } else { Told::Aborted };
        match commits && transaction.is_hidden {
            true => violated(Checker::Fractured, format!("transaction {at} is committed, and was passed over")),
            false => Ok(()),
        }
    }

    /// True if there is no error. What passes is tried again; after anything else it begins anew.
    fn goes_on(
        &mut self,
        error: ErrorCode,
        what: &str,
        book: &mut Book,
        scene: &mut Scene<'_>,
    ) -> Result<bool, Violation> {
        // A clock that jumps may end a transaction at any time.
        let began_ms = self.transaction.map(|(_, began_ms)| began_ms);
        let is_overdue = began_ms.is_some_and(|began_ms| scene.wall_ms - began_ms + 100 > i64::from(self.timeout_ms));
        let may_be_fenced = is_overdue || scene.plan.faults.clock;
        match error {
            ErrorCode::None => return Ok(true),
            ErrorCode::NotCoordinator
            | ErrorCode::CoordinatorNotAvailable
            | ErrorCode::CoordinatorLoadInProgress
            | ErrorCode::ConcurrentTransactions => {
                self.coordinator = None;
                self.next_at = scene.now + Duration::from_millis(self.rng.in_range(1..20));
            }
            ErrorCode::NotLeaderOrFollower
            | ErrorCode::UnknownTopicId
            | ErrorCode::UnknownTopicOrPartition
            | ErrorCode::NotEnoughReplicas => {
                book.leaders.clear();
                self.next_at = scene.now + Duration::from_millis(self.rng.in_range(1..20));
            }
            ErrorCode::InvalidProducerEpoch
            | ErrorCode::ProducerFenced
            | ErrorCode::InvalidTxnState
            | ErrorCode::InvalidProducerIdMapping
            | ErrorCode::TransactionAbortable
                if may_be_fenced =>
            {
                coverage::hit("transaction: fenced");
                self.give_up(book);
            }
            error if scene.excuses(error) => self.give_up(book),
            error => {
                let text = format!("producer {}, {:?}, to {what}: {error:?}", self.id, self.session);
                return violated(Checker::Refusals, text);
            }
        }
        Ok(false)
    }
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
    links: Links,
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
        self.producers.iter().map(|producer| producer.next_at).min().unwrap_or(self.next_at).min(self.next_at)
    }

    /// Questions that are not answered.
    pub fn under_way_count(&self) -> usize {
        let producers = self.producers.iter().map(|producer| producer.links.under_way_count());
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
            _ => unreachable!("producers ask that"),
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
