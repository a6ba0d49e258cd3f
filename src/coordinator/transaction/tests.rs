//! What the rules of the module promise, one fact a test, and random histories against a plain model.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::event::{Context, Effect, Markers, Producer, Settings, TransactionError, Written};
use super::metadata::{Metadata, Partitions, TransactionState};
use super::transactions::Transactions;
use crate::base::rng::Rng;
use crate::base::time::{Monotonic, Now, Timestamp};
use crate::model::id::{PartitionIndex, ProducerEpoch, ProducerId};
use crate::model::limits::HELD_ADD_WAIT_MAX;

const ID: &str = "txn";

/// A coordinator whose log is under the test's control.
struct World {
    transactions: Transactions<u32>,
    /// The wall clock in milliseconds.
    now: i64,
    /// The other one.
    passed: Duration,
    next_id: i64,
    /// Producer ids that are at hand.
    id_count: i64,
    room_count: usize,
    /// Writes that are neither durable nor refused yet.
    writes: Vec<(Written, Option<Metadata>)>,
    /// What is durable.
    log: BTreeMap<String, Metadata>,
    markers: Vec<Markers>,
    /// Every decision that markers were ever asked for.
    decided: BTreeMap<Producer, BTreeSet<bool>>,
    answers: BTreeMap<u32, Result<Producer, TransactionError>>,
    asked: u32,
}

type Outcome = Option<Result<Producer, TransactionError>>;

const NONE: Producer = (ProducerId::NONE, ProducerEpoch(-1));

impl World {
    fn new() -> World {
        World {
            transactions: Transactions::default(),
            now: 1_000_000,
            passed: Duration::ZERO,
            next_id: 100,
            id_count: 1_000_000,
            room_count: 1000,
            writes: Vec::new(),
            log: BTreeMap::new(),
            markers: Vec::new(),
            decided: BTreeMap::new(),
            answers: BTreeMap::new(),
            asked: 0,
        }
    }

    fn with<R>(&mut self, event: impl FnOnce(&mut Transactions<u32>, &mut Context<'_, u32>) -> R) -> R {
        let mut effects = Vec::new();
        let (next_id, id_count) = (&mut self.next_id, &mut self.id_count);
        let mut take = || {
            (*id_count > 0).then(|| {
                *id_count -= 1;
                *next_id += 1;
                ProducerId(*next_id - 1)
            })
        };
        let mut context = Context {
            now: Now { monotonic: Monotonic(0) + self.passed, wall: Timestamp(self.now) },
            settings: Settings { timeout_ms_max: 900_000, expiration_ms: 10_000_000 },
            producer_id: &mut take,
            room_count: self.room_count,
            effects: &mut effects,
        };
        let result = event(&mut self.transactions, &mut context);
        for effect in effects {
            match effect {
                Effect::Init(ticket, answer) | Effect::End(ticket, answer) => self.answer(ticket, answer),
                Effect::Add(ticket, answer) => self.answer(ticket, answer.map(|()| NONE)),
                Effect::Persist(written, metadata) => self.writes.push((written, metadata.map(|metadata| *metadata))),
                // The number of no write: nobody waits for it.
                Effect::Note(id, metadata) => {
                    self.writes.push((Written { transactional_id: id, number: 0 }, Some(*metadata)));
                }
                Effect::Mark(markers) => {
                    self.decided.entry(markers.producer).or_default().insert(markers.commits);
                    self.markers.push(markers);
                }
            }
        }
        result
    }

    fn answer(&mut self, ticket: u32, answer: Result<Producer, TransactionError>) {
        assert!(self.answers.insert(ticket, answer).is_none(), "answered once");
    }

    fn ticket(&mut self) -> u32 {
        self.asked += 1;
        self.asked
    }

    fn begin_init(&mut self, expected: Option<Producer>) -> u32 {
        let ticket = self.ticket();
        assert!(self.with(|t, c| t.init(ticket, ID, 60_000, expected, c)).is_ok());
        ticket
    }

    fn begin_add(&mut self, producer: Producer, topic: &str, index: i32, version: i16) -> u32 {
        let ticket = self.ticket();
        let partitions = partitions(topic, index);
        self.with(|t, c| t.add(ticket, ID, producer, &partitions, version, c));
        ticket
    }

    fn begin_end(&mut self, producer: Producer, commits: bool, version: i16) -> u32 {
        let ticket = self.ticket();
        assert!(self.with(|t, c| t.end(ticket, ID, producer, commits, version, c)).is_ok());
        ticket
    }

    /// All writes become durable, and what follows them.
    fn settle(&mut self) {
        while !self.writes.is_empty() {
            self.settle_one(true);
        }
    }

    fn settle_one(&mut self, is_durable: bool) {
        let (written, metadata) = self.writes.remove(0);
        let id = written.transactional_id.to_string();
        if is_durable {
            match metadata {
                Some(metadata) => drop(self.log.insert(id, metadata)),
                None => drop(self.log.remove(&id)),
            }
        }
        let result = if is_durable { Ok(()) } else { Err(TransactionError::CoordinatorNotAvailable) };
        self.with(|t, c| t.persisted(&written, result, c));
    }

    /// All markers are written, in every partition.
    fn mark_all(&mut self) {
        for markers in std::mem::take(&mut self.markers) {
            let partitions = listed(&markers.partitions);
            self.with(|t, c| t.marked(&markers.transactional_id, markers.producer, &partitions, false, c));
        }
    }

    fn finish(&mut self) {
        for _ in 0..4 {
            self.settle();
            self.mark_all();
        }
    }

    fn told(&mut self, ticket: u32) -> Outcome {
        self.answers.remove(&ticket)
    }

    fn init(&mut self, expected: Option<Producer>) -> Result<Producer, TransactionError> {
        let ticket = self.begin_init(expected);
        self.settle();
        self.told(ticket).expect("answered")
    }

    fn add(&mut self, producer: Producer, topic: &str, index: i32) -> Result<Producer, TransactionError> {
        let ticket = self.begin_add(producer, topic, index, 0);
        self.settle();
        self.told(ticket).expect("answered")
    }

    fn end(&mut self, producer: Producer, commits: bool) -> Result<Producer, TransactionError> {
        self.end_as(producer, commits, 0)
    }

    fn end_as(&mut self, producer: Producer, commits: bool, version: i16) -> Result<Producer, TransactionError> {
        let ticket = self.begin_end(producer, commits, version);
        self.settle();
        self.told(ticket).expect("answered")
    }

    fn state(&self) -> TransactionState {
        self.transactions.get(ID).expect("it is known").state
    }

    /// The coordinator starts again with what is durable.
    fn restart(&mut self) {
        self.transactions = Transactions::default();
        self.writes.clear();
        self.markers.clear();
        let log = self.log.clone();
        for (id, metadata) in log {
            // As its record brings it back.
            let record = super::records::record(&id, Some(&metadata));
            let read = super::records::decode_value(&record.value.expect("a value")).expect("sound").expect("known");
            self.transactions.restore(&id, Some(read), Monotonic(0) + self.passed);
        }
        self.with(|t, c| t.begin(c));
    }

    /// Puts an id into a state with an epoch, as if it had come there.
    fn place(&mut self, state: TransactionState, epoch: i16, version: i16) -> Producer {
        let mut metadata = Metadata::new(ProducerId(7), 60_000, Timestamp(self.now));
        metadata.producer_epoch = ProducerEpoch(epoch);
        metadata.state = state;
        metadata.client_version = version;
        if !matches!(state, TransactionState::Empty) {
            metadata.start = Timestamp(self.now);
        }
        if state == TransactionState::Ongoing || state.is_prepared() {
            metadata.partitions = partitions("t", 0);
        }
        self.log.insert(ID.into(), metadata);
        self.restart();
        (ProducerId(7), ProducerEpoch(epoch))
    }
}

fn partitions(topic: &str, index: i32) -> Partitions {
    BTreeMap::from([(topic.into(), BTreeSet::from([PartitionIndex(index)]))])
}

fn listed(partitions: &Partitions) -> Vec<(Box<str>, PartitionIndex)> {
    partitions.iter().flat_map(|(topic, indexes)| indexes.iter().map(|index| (topic.clone(), *index))).collect()
}

fn epoch((_, epoch): Producer) -> i16 {
    epoch.0
}

#[test]
fn a_transaction_goes_its_way_and_the_next_one_follows() {
    let mut world = World::new();
    let producer = world.init(None).expect("a new id");
    assert_eq!(producer, (ProducerId(100), ProducerEpoch(0)));
    for commits in [true, false, true] {
        assert!(world.add(producer, "t", 0).is_ok() && world.add(producer, "t", 1).is_ok());
        assert!(world.add(producer, "u", 0).is_ok());
        assert_eq!(world.state(), TransactionState::Ongoing);
        assert_eq!(world.end(producer, commits), Ok(producer));
        assert!(world.state().is_prepared());
        let markers = &world.markers[0];
        assert_eq!((markers.producer, markers.commits, listed(&markers.partitions).len()), (producer, commits, 3));
        world.finish();
        let complete = if commits { TransactionState::CompleteCommit } else { TransactionState::CompleteAbort };
        assert_eq!(world.state(), complete);
        assert!(world.transactions.get(ID).expect("known").partitions.is_empty());
    }
}

#[test]
fn nothing_is_answered_and_no_marker_sent_before_it_is_durable() {
    let mut world = World::new();
    let init = world.begin_init(None);
    assert_eq!(world.told(init), None);
    world.settle();
    let producer = world.told(init).expect("durable").expect("given");
    let add = world.begin_add(producer, "t", 0, 0);
    assert_eq!(world.told(add), None);
    assert_eq!(
        world.transactions.verify(ID, producer, ("t", PartitionIndex(0))),
        Err(TransactionError::TransactionAbortable)
    );
    world.settle();
    assert!(world.told(add).expect("durable").is_ok());
    assert_eq!(world.transactions.verify(ID, producer, ("t", PartitionIndex(0))), Ok(()));
    let end = world.begin_end(producer, true, 0);
    assert!(world.told(end).is_none() && world.markers.is_empty());
    world.settle();
    assert!(world.told(end).expect("durable").is_ok() && world.markers.len() == 1);
    // Complete only when the last marker is there.
    assert_eq!(world.state(), TransactionState::PrepareCommit);
}

#[test]
fn only_one_change_is_under_way_at_a_time() {
    let mut world = World::new();
    let producer = world.init(None).expect("a new id");
    let first = world.begin_add(producer, "t", 0, 0);
    let concurrent = Some(Err(TransactionError::ConcurrentTransactions));
    let add = world.begin_add(producer, "t", 1, 0);
    let end = world.begin_end(producer, true, 0);
    let init = world.begin_init(None);
    assert_eq!((world.told(add), world.told(end), world.told(init)), (concurrent, concurrent, concurrent));
    world.settle();
    assert!(world.told(first).expect("durable").is_ok());
}

#[test]
fn what_is_in_the_transaction_already_is_answered_at_once() {
    let mut world = World::new();
    let producer = world.init(None).expect("a new id");
    assert!(world.add(producer, "t", 0).is_ok());
    let again = world.begin_add(producer, "t", 0, 0);
    assert!(world.writes.is_empty());
    assert!(world.told(again).expect("at once").is_ok());
}

#[test]
fn a_second_producer_fences_the_first_and_aborts_its_transaction() {
    let mut world = World::new();
    let first = world.init(None).expect("a new id");
    assert!(world.add(first, "t", 0).is_ok());
    // The second one is told to come again; the abort has an epoch that nobody gets.
    assert_eq!(world.init(None), Err(TransactionError::ConcurrentTransactions));
    assert_eq!((world.state(), epoch(world.markers[0].producer)), (TransactionState::PrepareAbort, 1));
    assert_eq!(world.init(None), Err(TransactionError::ConcurrentTransactions));
    world.finish();
    let second = world.init(None).expect("now");
    assert_eq!(second, (first.0, ProducerEpoch(2)));
    for error in [world.add(first, "t", 0), world.end(first, true)] {
        assert_eq!(error, Err(TransactionError::ProducerFenced));
    }
    let verified = world.transactions.verify(ID, first, ("t", PartitionIndex(0)));
    assert_eq!(verified, Err(TransactionError::ProducerFenced));
    assert!(world.add(second, "t", 0).is_ok());
}

#[test]
fn without_a_transaction_a_second_producer_gets_the_next_epoch_at_once() {
    let mut world = World::new();
    let first = world.init(None).expect("a new id");
    let second = world.init(None).expect("at once");
    assert_eq!(second, (first.0, ProducerEpoch(1)));
}

#[test]
fn a_client_that_names_its_epoch_goes_on_with_the_next_and_a_fenced_one_does_not() {
    // KIP-360: after an error a client asks for its own next epoch; the same question again has the same answer.
    let mut world = World::new();
    let first = world.init(None).expect("a new id");
    let second = world.init(Some(first)).expect("its own");
    assert_eq!(epoch(second), 1);
    assert_eq!(world.init(Some(first)), Ok(second));
    assert_eq!(epoch(world.init(None).expect("another producer")), 2);
    for fenced in [first, second, (ProducerId(999), ProducerEpoch(2))] {
        assert_eq!(world.init(Some(fenced)), Err(TransactionError::ProducerFenced));
    }
}

#[test]
fn epochs_that_are_used_up_bring_a_new_producer_id() {
    let mut world = World::new();
    let last = world.place(TransactionState::Empty, i16::MAX - 1, 0);
    let next = world.init(Some(last)).expect("rotated");
    assert_eq!(next, (ProducerId(100), ProducerEpoch(0)));
    // The answer was lost: the exhausted epoch of the old id is the one before.
    assert_eq!(world.init(Some(last)), Ok(next));
    // A fence may use the greatest epoch, which no client ever gets.
    let last = world.place(TransactionState::Ongoing, i16::MAX - 1, 0);
    assert_eq!(world.init(None), Err(TransactionError::ConcurrentTransactions));
    assert_eq!(epoch(world.markers[0].producer), i16::MAX);
    world.finish();
    let next = world.init(None).expect("rotated");
    assert!(next.0 != last.0 && epoch(next) == 0);
}

#[test]
fn without_a_producer_id_at_hand_nothing_happens() {
    let mut world = World::new();
    world.id_count = 0;
    let refused = world.with(|t, c| t.init(77, ID, 60_000, None, c));
    assert_eq!((refused, world.transactions.count()), (Err(77), 0));
    world.id_count = 1;
    assert!(world.init(None).is_ok());
    let last = world.place(TransactionState::Ongoing, i16::MAX - 1, 2);
    let refused = world.with(|t, c| t.end(78, ID, last, true, 2, c));
    assert_eq!((refused, world.state()), (Err(78), TransactionState::Ongoing));
}

#[test]
fn a_decision_that_is_asked_for_again_is_answered_as_before_and_another_one_is_refused() {
    let mut world = World::new();
    let producer = world.init(None).expect("a new id");
    assert_eq!(world.end(producer, true), Err(TransactionError::InvalidTxnState));
    assert!(world.add(producer, "t", 0).is_ok());
    assert!(world.end(producer, true).is_ok());
    assert_eq!(world.end(producer, true), Err(TransactionError::ConcurrentTransactions));
    assert_eq!(world.end(producer, false), Err(TransactionError::InvalidTxnState));
    world.finish();
    assert_eq!(world.end(producer, true), Ok(producer));
    assert_eq!(world.end(producer, false), Err(TransactionError::InvalidTxnState));
}

#[test]
fn who_is_not_the_producer_is_told_so() {
    let mut world = World::new();
    let producer = world.init(None).expect("a new id");
    let (other, newer) = ((ProducerId(5), producer.1), (producer.0, ProducerEpoch(1)));
    assert_eq!(world.add(other, "t", 0), Err(TransactionError::InvalidProducerIdMapping));
    assert_eq!(world.end(other, true), Err(TransactionError::InvalidProducerIdMapping));
    assert_eq!(world.add(newer, "t", 0), Err(TransactionError::ProducerFenced));
    let unknown = world.transactions.verify("unknown", producer, ("t", PartitionIndex(0)));
    assert_eq!(unknown, Err(TransactionError::InvalidProducerIdMapping));
}

#[test]
fn bounds_are_kept() {
    let mut world = World::new();
    let mut ask = |id: &str, timeout_ms| {
        let ticket = world.ticket();
        assert!(world.with(|t, c| t.init(ticket, id, timeout_ms, None, c)).is_ok());
        world.settle();
        world.told(ticket).expect("answered")
    };
    assert_eq!(ask("", 1), Err(TransactionError::InvalidRequest));
    assert_eq!(ask(&"x".repeat(40_000), 1), Err(TransactionError::InvalidRequest));
    for timeout_ms in [0, -1, 900_001] {
        assert_eq!(ask(ID, timeout_ms), Err(TransactionError::InvalidTransactionTimeout));
    }
    assert!(ask(ID, 900_000).is_ok());
    world.room_count = 0;
    let ticket = world.ticket();
    assert!(world.with(|t, c| t.init(ticket, "one more", 1, None, c)).is_ok());
    assert_eq!(world.told(ticket), Some(Err(TransactionError::CoordinatorNotAvailable)));
    let producer = world.init(None).expect("known ids go on");
    let topic = "t".repeat(600_000);
    assert_eq!(world.add(producer, &topic, 0), Err(TransactionError::TooLarge));
}

#[test]
fn a_transaction_that_takes_too_long_is_aborted_and_its_producer_fenced() {
    let mut world = World::new();
    let producer = world.init(None).expect("a new id");
    assert!(world.add(producer, "t", 0).is_ok());
    world.now += 59_999;
    world.with(|t, c| t.abort_timed_out(c));
    assert!(world.writes.is_empty());
    world.now += 1;
    world.with(|t, c| t.abort_timed_out(c));
    world.settle();
    assert_eq!(world.state(), TransactionState::PrepareAbort);
    assert!(!world.markers[0].commits && epoch(world.markers[0].producer) == 1);
    assert_eq!(world.end(producer, true), Err(TransactionError::ProducerFenced));
    world.finish();
    assert_eq!(world.state(), TransactionState::CompleteAbort);
    // The client goes on with its own next epoch only if it names none (it is fenced), another one always.
    assert_eq!(world.init(Some(producer)), Err(TransactionError::ProducerFenced));
    assert_eq!(epoch(world.init(None).expect("free")), 2);
}

#[test]
fn ids_that_nobody_uses_are_forgotten_and_those_with_a_transaction_are_not() {
    let mut world = World::new();
    let producer = world.init(None).expect("a new id");
    assert!(world.add(producer, "t", 0).is_ok());
    world.now += 20_000_000;
    world.with(|t, c| t.expire(10, c));
    assert!(world.writes.is_empty());
    assert!(world.end(producer, true).is_ok());
    world.finish();
    world.now += 9_999_999;
    world.with(|t, c| t.expire(10, c));
    assert!(world.writes.is_empty());
    world.now += 1;
    world.with(|t, c| t.expire(10, c));
    assert_eq!(world.init(None), Err(TransactionError::ConcurrentTransactions));
    world.settle();
    assert!(world.transactions.get(ID).is_none() && world.log.is_empty());
    assert_eq!(world.init(None).map(epoch), Ok(0));
}

#[test]
fn markers_that_were_refused_are_sent_again_and_only_they() {
    let mut world = World::new();
    let producer = world.init(None).expect("a new id");
    for index in 0..3 {
        assert!(world.add(producer, "t", index).is_ok());
    }
    assert!(world.end(producer, true).is_ok());
    world.markers.clear();
    let name = |index: i32| ("t".into(), PartitionIndex(index));
    world.with(|t, c| t.marked(ID, producer, &[name(0)], false, c));
    world.with(|t, c| t.marked(ID, producer, &[name(1), name(2)], true, c));
    assert!(world.transactions.has_unfinished());
    world.with(|t, c| t.retry(c));
    assert_eq!(listed(&world.markers[0].partitions), [name(1), name(2)]);
    // A report twice, or of another producer, changes nothing.
    world.with(|t, c| t.marked(ID, producer, &[name(0)], true, c));
    world.with(|t, c| t.marked(ID, (producer.0, ProducerEpoch(9)), &[name(1), name(2)], false, c));
    assert_eq!(world.state(), TransactionState::PrepareCommit);
    world.finish();
    assert_eq!(world.state(), TransactionState::CompleteCommit);
}

#[test]
fn a_write_that_was_refused_changes_nothing_and_may_be_asked_for_again() {
    let mut world = World::new();
    let init = world.begin_init(None);
    world.settle_one(false);
    assert_eq!(world.told(init), Some(Err(TransactionError::CoordinatorNotAvailable)));
    assert_eq!(world.transactions.count(), 0);
    let producer = world.init(None).expect("again");
    let add = world.begin_add(producer, "t", 0, 0);
    world.settle_one(false);
    assert!(world.told(add).expect("told").is_err());
    assert!(world.add(producer, "t", 0).is_ok());
    let end = world.begin_end(producer, true, 0);
    world.settle_one(false);
    assert!(world.told(end).expect("told").is_err() && world.markers.is_empty());
    assert!(world.end(producer, true).is_ok());
    world.mark_all();
    assert_eq!(world.state(), TransactionState::CompleteCommit);
}

#[test]
fn what_begins_the_next_transaction_waits_for_the_markers_of_the_last_one() {
    let mut world = World::new();
    let producer = world.init(None).expect("a new id");
    assert!(world.add(producer, "t", 0).is_ok());
    assert!(world.end(producer, true).is_ok());
    let next = world.begin_add(producer, "u", 0, 0);
    // One waits, no more; and of what cannot be for long, none.
    let second = world.begin_add(producer, "u", 1, 0);
    assert_eq!((world.told(next), world.told(second)), (None, Some(Err(TransactionError::ConcurrentTransactions))));
    world.mark_all();
    assert_eq!((world.told(next), world.state()), (None, TransactionState::CompleteCommit));
    world.settle();
    assert!(world.told(next).expect("durable").is_ok());
    assert_eq!(listed(&world.transactions.get(ID).expect("known").partitions), listed(&partitions("u", 0)));
    assert!(world.end(producer, true).is_ok());
    let next = world.begin_add(producer, "t", 0, 0);
    let name = listed(&world.markers[0].partitions);
    world.with(|t, c| t.marked(ID, producer, &name, true, c));
    assert_eq!(world.told(next), Some(Err(TransactionError::ConcurrentTransactions)));
    assert_eq!(world.add(producer, "t", 0), Err(TransactionError::ConcurrentTransactions));
    world.with(|t, c| t.retry(c));
    let next = world.begin_add(producer, "t", 0, 0);
    world.with(|t, c| t.unload(TransactionError::NotCoordinator, c));
    assert_eq!(world.told(next), Some(Err(TransactionError::NotCoordinator)));
}

#[test]
fn who_waits_for_markers_is_given_back_after_a_while() {
    // One whose markers never come, and one whose come in time; a second wait of the first begins anew.
    let mut world = World::new();
    let producer = world.init(None).expect("a new id");
    assert!(world.add(producer, "t", 0).is_ok() && world.end(producer, true).is_ok());
    let late = |world: &mut World| world.with(|t, c| t.take_late(c.now.monotonic));
    let next = world.begin_add(producer, "u", 0, 0);
    world.passed += HELD_ADD_WAIT_MAX - Duration::from_millis(1);
    assert!(late(&mut world).is_empty());
    world.passed += Duration::from_millis(1);
    assert_eq!((late(&mut world), late(&mut world)), (vec![next], vec![]));
    let again = world.begin_add(producer, "u", 0, 0);
    world.passed += HELD_ADD_WAIT_MAX / 2;
    assert!(late(&mut world).is_empty() && world.told(again).is_none());
    world.finish();
    assert!(world.told(again).expect("durable").is_ok());
    world.passed += HELD_ADD_WAIT_MAX;
    assert!(late(&mut world).is_empty());
}

#[test]
fn a_completion_is_written_with_the_next_transaction_or_later_and_a_start_before_that_marks_once_more() {
    let mut world = World::new();
    let producer = world.init(None).expect("a new id");
    assert!(world.add(producer, "t", 0).is_ok() && world.end(producer, true).is_ok());
    world.mark_all();
    assert!(world.writes.is_empty() && world.transactions.has_unwritten());
    world.restart();
    assert_eq!((world.state(), world.markers.len()), (TransactionState::PrepareCommit, 1));
    world.mark_all();
    // The record of the next transaction says it too.
    assert!(world.add(producer, "t", 0).is_ok() && !world.transactions.has_unwritten());
    world.restart();
    assert_eq!((world.state(), world.markers.len()), (TransactionState::Ongoing, 0));
    assert!(world.end(producer, true).is_ok());
    world.mark_all();
    world.with(|t, c| t.write_completions(1, c));
    world.settle();
    assert_eq!(world.log[ID].state, TransactionState::CompleteCommit);
    assert!(!world.transactions.has_unwritten());
    // A change that was refused has not said it.
    assert!(world.add(producer, "t", 0).is_ok() && world.end(producer, true).is_ok());
    world.mark_all();
    let add = world.begin_add(producer, "t", 0, 0);
    world.settle_one(false);
    assert!(world.told(add).expect("told").is_err() && world.transactions.has_unwritten());
}

#[test]
fn a_fence_that_could_not_be_written_takes_its_epoch_and_not_one_more_each_time() {
    let mut world = World::new();
    let producer = world.init(None).expect("a new id");
    assert!(world.add(producer, "t", 0).is_ok());
    for _ in 0..3 {
        let init = world.begin_init(None);
        world.settle_one(false);
        assert!(world.told(init).expect("told").is_err());
        // It may be in the log: the old producer is fenced for good.
        assert_eq!(world.end(producer, true), Err(TransactionError::ProducerFenced));
    }
    assert_eq!(world.init(None), Err(TransactionError::ConcurrentTransactions));
    assert_eq!(epoch(world.markers[0].producer), 1);
    world.finish();
    assert_eq!(world.init(None).map(epoch), Ok(2));
}

#[test]
fn a_start_in_any_state_goes_on_with_what_was_durable() {
    for state in TransactionState::ALL {
        if matches!(state, TransactionState::Dead | TransactionState::PrepareEpochFence) {
            continue;
        }
        let mut world = World::new();
        let producer = world.place(state, 3, 0);
        assert_eq!(world.markers.len(), usize::from(state.is_prepared()), "{state:?}");
        world.finish();
        match state {
            TransactionState::PrepareCommit => assert_eq!(world.state(), TransactionState::CompleteCommit),
            TransactionState::PrepareAbort => assert_eq!(world.state(), TransactionState::CompleteAbort),
            other => assert_eq!(world.state(), other),
        }
        assert!(world.add(producer, "t", 1).is_ok());
        assert!(world.end(producer, true).is_ok());
        world.finish();
        assert_eq!(world.state(), TransactionState::CompleteCommit);
    }
}

#[test]
fn who_waits_is_told_when_the_coordinator_goes() {
    let mut world = World::new();
    let producer = world.init(None).expect("a new id");
    let add = world.begin_add(producer, "t", 0, 0);
    world.with(|t, c| t.unload(TransactionError::NotCoordinator, c));
    assert_eq!(world.told(add), Some(Err(TransactionError::NotCoordinator)));
    // What completes later finds nobody.
    world.settle();
    assert_eq!(world.transactions.count(), 0);
}

#[test]
fn with_the_second_protocol_each_end_raises_the_epoch() {
    let mut world = World::new();
    let mut producer = world.init(None).expect("a new id");
    for number in 0..3 {
        let add = world.begin_add(producer, "t", 0, 2);
        world.settle();
        assert!(world.told(add).expect("told").is_ok());
        let next = world.end_as(producer, true, 2).expect("decided");
        assert_eq!((epoch(next), epoch(world.markers[0].producer)), (number + 1, number + 1));
        // Asked again, before and after it is complete.
        assert_eq!(world.end_as(producer, true, 2), Err(TransactionError::ConcurrentTransactions));
        world.finish();
        assert_eq!(world.end_as(producer, true, 2), Ok(next));
        assert_eq!(world.end_as(producer, false, 2), Err(TransactionError::InvalidTxnState));
        assert_eq!(world.add(producer, "t", 0), Err(TransactionError::ProducerFenced));
        producer = next;
    }
    // The epochs are used up: the next transaction has another producer id.
    let last = world.place(TransactionState::Ongoing, i16::MAX - 1, 2);
    let raised = world.end_as(last, false, 2).expect("decided");
    assert_eq!(raised, (ProducerId(101), ProducerEpoch(0)));
    assert_eq!(world.markers[0].producer, (last.0, ProducerEpoch(i16::MAX)));
    world.finish();
    let known = world.transactions.get(ID).expect("known");
    let next = (known.producer_id, known.producer_epoch);
    assert_eq!((next.1, known.previous_producer_id), (ProducerEpoch(0), last.0));
    assert_eq!(world.end_as(last, false, 2), Ok(next));
    assert!(world.add(next, "t", 0).is_ok());
    // It waits for the end of the last one under its own id.
    let last = world.place(TransactionState::Ongoing, i16::MAX - 1, 2);
    let raised = world.end_as(last, false, 2).expect("decided");
    let next = world.begin_add(raised, "t", 0, 2);
    assert_eq!(world.told(next), None);
    world.finish();
    assert_eq!(world.told(next), Some(Ok(NONE)));
}

#[test]
fn an_abort_of_the_second_protocol_is_a_success_where_nothing_was_begun() {
    // A client whose batches never came through aborts all the same: each such end raises the epoch like any other.
    for state in [TransactionState::Empty, TransactionState::CompleteCommit, TransactionState::CompleteAbort] {
        let mut world = World::new();
        let producer = world.place(state, 3, 2);
        world.passed += Duration::from_secs(2);
        assert_eq!(world.end_as(producer, true, 2), Err(TransactionError::InvalidTxnState), "{state:?}");
        let next = world.end_as(producer, false, 2).expect("aborted");
        assert_eq!((next.0, epoch(next)), (producer.0, 4), "{state:?}");
        world.finish();
        assert_eq!((world.state(), world.end_as(producer, false, 2)), (TransactionState::CompleteAbort, Ok(next)));
        assert!(world.add(next, "t", 0).is_ok());
        // A client of the first protocol knows what it has begun.
        let producer = world.place(TransactionState::Empty, 3, 0);
        assert_eq!(world.end(producer, false), Err(TransactionError::InvalidTxnState));
    }
    let last = world_with_the_last_epoch();
    assert_eq!(last.0.state(), TransactionState::CompleteAbort);
}

/// An empty abort where the epochs are used up: the next transaction has another producer id.
fn world_with_the_last_epoch() -> (World, Producer) {
    let mut world = World::new();
    let last = world.place(TransactionState::Empty, i16::MAX - 1, 2);
    let next = world.end_as(last, false, 2).expect("aborted");
    assert!(next.0 != last.0 && epoch(next) == 0);
    world.finish();
    assert!(world.end_as(next, false, 2).is_ok());
    world.finish();
    (world, next)
}

#[test]
fn an_end_that_overtakes_the_records_of_its_transaction_is_to_come_again() {
    // Java's clients of the second protocol do that on a busy machine, and give up for good when told anything else.
    let mut world = World::new();
    let producer = world.init(None).expect("a new id");
    let overtaking = Err(TransactionError::ConcurrentTransactions);
    assert_eq!(world.end_as(producer, true, 2), overtaking);
    let add = world.begin_add(producer, "t", 0, 2);
    world.settle();
    assert!(world.told(add).expect("told").is_ok());
    let next = world.end_as(producer, true, 2).expect("decided");
    // Of the next transaction, while the markers of this one are on their way and when it is complete.
    for commits in [true, false] {
        assert_eq!(world.end_as(next, commits, 2), overtaking);
    }
    world.finish();
    // The wall clock is somebody else's: where it is set to makes it neither longer ago nor shorter.
    world.passed += Duration::from_millis(1999);
    for jump_ms in [1_000_000, -1_900_000] {
        world.now += jump_ms;
        assert_eq!(world.end_as(next, true, 2), overtaking);
    }
    let add = world.begin_add(next, "t", 0, 2);
    world.settle();
    assert!(world.told(add).expect("told").is_ok());
    let next = world.end_as(next, true, 2).expect("decided");
    world.finish();
    // It is no transaction that comes late, but none.
    world.passed += Duration::from_secs(2);
    world.now -= 50_000;
    assert_eq!(world.end_as(next, true, 2), Err(TransactionError::InvalidTxnState));
    // The same where the producer id is another one.
    let last = world.place(TransactionState::Ongoing, i16::MAX - 1, 2);
    let next = world.end_as(last, true, 2).expect("decided");
    assert_ne!(next.0, last.0);
    assert_eq!(world.end_as(next, true, 2), overtaking);
}

#[test]
fn a_producer_that_was_fenced_with_the_greatest_epoch_is_told_so() {
    // The fence takes the epoch behind which there is none.
    let mut world = World::new();
    let last = world.place(TransactionState::Ongoing, i16::MAX - 1, 0);
    assert_eq!(world.init(None), Err(TransactionError::ConcurrentTransactions));
    world.finish();
    assert_eq!(world.init(Some(last)), Err(TransactionError::ProducerFenced));
    for version in [0, 2] {
        assert_eq!(world.end_as(last, true, version), Err(TransactionError::ProducerFenced));
    }
}

#[test]
fn a_client_of_the_second_protocol_whose_transaction_timed_out_is_fenced_whatever_it_decides() {
    // The epoch of the fence is the one that its own end would have made: it must not pass for a lost answer.
    for commits in [true, false] {
        let mut world = World::new();
        let producer = world.init(None).expect("a new id");
        let add = world.begin_add(producer, "t", 0, 2);
        world.settle();
        assert!(world.told(add).expect("told").is_ok());
        world.now += 60_000;
        world.with(|t, c| t.abort_timed_out(c));
        world.settle();
        assert_eq!(world.end_as(producer, commits, 2), Err(TransactionError::ProducerFenced));
        world.finish();
        assert_eq!(world.end_as(producer, commits, 2), Err(TransactionError::ProducerFenced));
    }
}

#[test]
fn random_histories_never_answer_what_is_not_durable_and_always_come_to_an_end() {
    // Several clients of one id, writes and markers that are refused now and then, starts in between. A client that was
    // told that its transaction is committed must find markers of that decision and no others of its epoch.
    // With the second protocol, in every other history, an epoch has one decision only.
    for seed in 0..300 {
        let version = if seed % 2 == 0 { 0 } else { 2 };
        let mut rng = Rng::new(seed);
        let mut world = World::new();
        let mut clients: Vec<Option<Producer>> = vec![None; 3];
        let mut waiting: Vec<(u32, usize, Option<bool>)> = Vec::new();
        let mut told: Vec<(Producer, bool)> = Vec::new();
        for _ in 0..400 {
            let client = rng.in_range(0..3) as usize;
            match (rng.in_range(0..12), clients[client]) {
                (0, _) => waiting.push((world.begin_init(None), client, None)),
                (1, Some(producer)) => waiting.push((world.begin_init(Some(producer)), client, None)),
                (2..=4, Some(producer)) => {
                    let index = rng.in_range(0..3) as i32;
                    let ticket = world.begin_add(producer, "t", index, version);
                    world.answers.remove(&ticket);
                }
                (5..=6, Some(producer)) => {
                    let commits = rng.chance(1, 2);
                    waiting.push((world.begin_end(producer, commits, version), client, Some(commits)));
                }
                (7..=8, _) if !world.writes.is_empty() => {
                    let is_durable = rng.chance(9, 10);
                    world.settle_one(is_durable);
                }
                (9, _) if !world.markers.is_empty() => {
                    let markers = world.markers.remove(0);
                    let (partitions, is_refused) = (listed(&markers.partitions), rng.chance(1, 5));
                    world.with(|t, c| t.marked(ID, markers.producer, &partitions, is_refused, c));
                }
                (10, _) if rng.chance(1, 2) => world.with(|t, c| t.retry(c)),
                (10, _) => world.with(|t, c| t.write_completions(1, c)),
                (11, _) if rng.chance(1, 8) => {
                    world.restart();
                    waiting.clear();
                }
                _ => {}
            }
            waiting.retain(|(ticket, client, commits)| {
                let Some(answer) = world.answers.remove(ticket) else { return true };
                match (answer, commits) {
                    (Ok(producer), Some(commits)) => {
                        told.push((producer, *commits));
                        clients[*client] = Some(producer);
                    }
                    (Ok(producer), None) => clients[*client] = Some(producer),
                    (Err(TransactionError::ProducerFenced), _) => clients[*client] = None,
                    (Err(_), _) => {}
                }
                false
            });
        }
        for _ in 0..20 {
            world.settle();
            for markers in std::mem::take(&mut world.markers) {
                let partitions = listed(&markers.partitions);
                world.with(|t, c| t.marked(ID, markers.producer, &partitions, false, c));
            }
            world.with(|t, c| t.retry(c));
        }
        let decided = &world.decided;
        for (producer, commits) in told {
            // One epoch may have several transactions one after the other; each that was told has its markers.
            assert!(decided.get(&producer).is_some_and(|seen| seen.contains(&commits)), "seed {seed}: {producer:?}");
        }
        if version == 2 {
            assert!(decided.values().all(|decisions| decisions.len() == 1), "seed {seed}: {decided:?}");
        }
        if let Some(known) = world.transactions.get(ID) {
            assert!(!known.state.is_prepared(), "seed {seed}: it never ends");
        }
    }
}
