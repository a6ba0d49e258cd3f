//! A transactional producer, one request at a time.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, EndTxnRequest, FindCoordinatorRequest, GroupId,
    InitProducerIdRequest, OffsetFetchRequest, ProduceRequest, TransactionalId, TxnOffsetCommitRequest,
};
use kafka_protocol::protocol::StrBytes;

use super::book::{Book, Sent, Told};
use super::links::Links;
use super::{PARTITION_COUNT, TOPIC, offsets};
use crate::base::coverage;
use crate::base::rng::Rng;
use crate::base::time::Monotonic;
use crate::protocol::ErrorCode;
use crate::simulate::admin::topic_name;
use crate::simulate::ask;
use crate::simulate::keyed::{self, Keyed};
use crate::simulate::link::decode;
use crate::simulate::scene::{Scene, error_of};
use crate::simulate::violation::{Checker, Violation, violated};
use crate::simulate::wire::Session;

/// Transactions of one life that come quickly; a life may be long.
const HURRY_COUNT: u32 = 1_000;
/// How long a group's offset may be unstable without a transaction of which that is known, where nothing is slow.
const UNSTABLE_TIME_MAX: Duration = Duration::from_secs(30);
const FIND: i16 = 3;
const INIT: i16 = 4;
const ADD: i16 = 3;
/// Key types of FindCoordinator.
const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;

enum Question {
    Find(i8),
    Init,
    Add,
    /// Numbers of the records, their partition.
    Produce(Vec<usize>, usize),
    AddOffsets,
    CommitOffset,
    ReadOffset,
    End(bool),
}

/// What a transaction has still to do.
enum Step {
    /// Only with the first protocol.
    Add(Vec<usize>),
    Produce(usize),
    /// Only with the first protocol.
    AddOffsets,
    CommitOffset,
    ReadOffset,
    End(bool),
}

/// A transactional producer.
pub(super) struct Producer {
    id: u32,
    rng: Rng,
    links: Links<Question>,
    coordinator: Option<usize>,
    /// The coordinator of its group, if that is known.
    group_coordinator: Option<usize>,
    unstable_since: Option<Monotonic>,
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
    pub fn new(id: u32, mut rng: Rng) -> Producer {
        Producer {
            id,
            links: Links::default(),
            coordinator: None,
            group_coordinator: None,
            unstable_since: None,
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

    pub fn begin_life(&mut self, book: &mut Book) {
        if std::mem::take(&mut self.links).under_way_count() > 0 {
            self.give_up(book);
        }
        (self.coordinator, self.group_coordinator, self.unstable_since) = (None, None, None);
        self.next_at = Monotonic(0);
        self.pace_us = [20, 200, 3_000][self.rng.in_range(0..3) as usize];
        self.hurry_count = HURRY_COUNT;
    }

    /// When it acts without being answered.
    pub fn next_at(&self) -> Monotonic {
        self.next_at
    }

    /// Questions that are not answered.
    pub fn under_way_count(&self) -> usize {
        self.links.under_way_count()
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

    fn group(&self) -> GroupId {
        GroupId(StrBytes::from_string(format!("group of transactional-{}", self.id)))
    }

    fn find(&mut self, key: StrBytes, key_type: i8, scene: &Scene<'_>) {
        let any = self.rng.in_range(0..scene.addresses.len() as u64) as usize;
        let request = FindCoordinatorRequest::default().with_key(key).with_key_type(key_type);
        self.links.ask(any, FIND, &request, Question::Find(key_type), scene);
    }

    pub fn act(&mut self, book: &mut Book, scene: &mut Scene<'_>) -> Result<(), Violation> {
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
            self.find(self.name().0, TRANSACTION, scene);
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
        let step = self.todo.front().expect("it was just filled");
        if matches!(step, Step::CommitOffset | Step::ReadOffset) && self.group_coordinator.is_none() {
            self.find(self.group().0, GROUP, scene);
            return Ok(());
        }
        match step {
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
            Step::AddOffsets => {
                let request = AddOffsetsToTxnRequest::default()
                    .with_transactional_id(self.name())
                    .with_producer_id(session.id.into())
                    .with_producer_epoch(session.epoch)
                    .with_group_id(self.group());
                self.links.ask(coordinator, ADD, &request, Question::AddOffsets, scene);
            }
            Step::CommitOffset => {
                let (at, _) = self.transaction.expect("it has begun");
                let (shard, version) = (self.group_coordinator.expect("it was just found"), self.offset_version());
                let request = offsets::commit(self.name(), self.group(), session, at);
                self.links.ask(shard, version, &request, Question::CommitOffset, scene);
            }
            Step::ReadOffset => {
                let shard = self.group_coordinator.expect("it was just found");
                let request = offsets::fetch(self.group());
                self.links.ask(shard, offsets::FETCH, &request, Question::ReadOffset, scene);
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

    fn offset_version(&self) -> i16 {
        if self.is_v2 { 5 } else { 3 }
    }

    fn produce_version(&self) -> i16 {
        if self.is_v2 { 13 } else { 11 }
    }

    /// A new transaction: what it will do.
    fn begin(&mut self, book: &mut Book, scene: &mut Scene<'_>) {
        let at = book.begin(self.id);
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
        if rng.chance(1, 2) {
            // Anywhere behind what brings the partitions in.
            let place = rng.in_range(u64::from(!self.is_v2)..=self.todo.len() as u64) as usize;
            self.todo.insert(place, Step::CommitOffset);
            if !self.is_v2 {
                self.todo.insert(place, Step::AddOffsets);
            }
        }
        if rng.chance(1, 2) {
            let place = rng.in_range(0..=self.todo.len() as u64) as usize;
            self.todo.insert(place, Step::ReadOffset);
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
            Question::Find(key_type) => {
                let response = decode::<FindCoordinatorRequest>(frame, FIND)?;
                if self.goes_on(error_of(response.error_code)?, "find its coordinator", book, scene)? {
                    let shard = usize::try_from(response.node_id.0 - 1).ok();
                    *(if key_type == GROUP { &mut self.group_coordinator } else { &mut self.coordinator }) = shard;
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
            Question::AddOffsets => {
                let response = decode::<AddOffsetsToTxnRequest>(frame, ADD)?;
                if self.goes_on(error_of(response.error_code)?, "add offsets", book, scene)? {
                    self.todo.pop_front();
                }
            }
            Question::CommitOffset => {
                let response = decode::<TxnOffsetCommitRequest>(frame, self.offset_version())?;
                let error = error_of(response.topics[0].partitions[0].error_code)?;
                let (at, _) = self.transaction.expect("it has begun");
                scene.story.tell(scene.now, || format!("producer {}: offset {at}: {error:?}", self.id));
                if self.goes_on(error, "commit an offset", book, scene)? {
                    self.todo.pop_front();
                    book.transactions[at].has_offset = true;
                }
            }
            Question::ReadOffset => {
                let response = decode::<OffsetFetchRequest>(frame, offsets::FETCH)?;
                let error = match error_of(response.error_code)? {
                    ErrorCode::None => error_of(response.topics[0].partitions[0].error_code)?,
                    error => error,
                };
                if error == ErrorCode::UnstableOffsetCommit {
                    return self.is_unstable(book, scene);
                }
                if self.goes_on(error, "read an offset", book, scene)? {
                    let offset = response.topics[0].partitions[0].committed_offset;
                    scene.story.tell(scene.now, || format!("producer {}: {offset} is stable", self.id));
                    coverage::hit("transaction: a stable offset is read");
                    offsets::read(book, self.id, offset, &format_args!("producer {}", self.id))?;
                    self.todo.pop_front();
                    self.unstable_since = None;
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
        }
        Ok(())
    }

    /// The producer was told how its transaction ended.
    fn ended(&mut self, commits: bool, book: &mut Book) -> Result<(), Violation> {
        let (at, _) = self.transaction.take().expect("it has begun");
        coverage::hit(if commits { "transaction: committed" } else { "transaction: aborted" });
        book.ended(at, commits)
    }

    /// An offset of its own waits for a decision. Unless that is this transaction's, it does not wait for ever.
    fn is_unstable(&mut self, book: &Book, scene: &Scene<'_>) -> Result<(), Violation> {
        coverage::hit("transaction: an offset is unstable");
        self.todo.pop_front();
        if self.transaction.is_some_and(|(at, _)| book.transactions[at].has_offset) {
            return Ok(());
        }
        let unstable_for = scene.now.since(*self.unstable_since.get_or_insert(scene.now));
        match unstable_for > UNSTABLE_TIME_MAX && !scene.excuses_absence() {
            true => violated(Checker::Refusals, format!("producer {}: unstable for {unstable_for:?}", self.id)),
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
                (self.coordinator, self.group_coordinator) = (None, None);
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
