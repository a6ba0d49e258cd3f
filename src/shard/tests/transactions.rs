//! Transactions on whole shards: power cuts at every step of a commit, other shard counts, and late batches.
//!
//! A client writes the same transaction number into every partition of a topic and an offset for a group. After every
//! start it is all of it or nothing: what was told to be committed is there, what was told to be aborted is not, and
//! what was not told is whole.

use std::collections::BTreeMap;
use std::time::Duration;

use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, EndTxnRequest, FindCoordinatorRequest, GroupId,
    InitProducerIdRequest, OffsetFetchRequest, ProduceRequest, TransactionalId, TxnOffsetCommitRequest,
    offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics},
};
use kafka_protocol::protocol::{Request, StrBytes};

use super::client::{Client, PRODUCE_BY_ID, fetch_request, partition_of, produce_request, topic_name};
use super::node::{Spec, TestNode};
use crate::io::sim::{Fault, OpKind, Rule, Tear, World, WorldOptions};
use crate::model::batch;
use crate::model::builder::BatchBuilder;
use crate::model::compression::Codec;
use crate::model::id::{ProducerEpoch, ProducerId, Sequence, TopicId};
use crate::model::limits::HELD_ADD_WAIT_MAX;
use crate::model::records::{Records, section};
use crate::protocol::ErrorCode;

const ID: &str = "txn";
const GROUP: &str = "group";
const PARTITIONS: i32 = 3;
const PRODUCE: i16 = 11;

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn spec(shard_count: u16) -> Spec {
    Spec::new(shard_count)
        .set("offsets.topic.num.partitions", 2)
        .set("transaction.state.log.num.partitions", 2)
        .set("offsets.topic.segment.bytes", 1)
        .set("transaction.state.log.segment.bytes", 1)
        .set("transaction.abort.timed.out.transaction.cleanup.interval.ms", 100)
}

/// What a client was told of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Nothing,
    Committed,
    Aborted,
}

/// A transactional client that remembers.
struct Writer {
    links: BTreeMap<i32, Client>,
    coordinators: BTreeMap<i8, i32>,
    topic: Option<TopicId>,
    producer: Option<(ProducerId, ProducerEpoch)>,
    sequences: [i32; PARTITIONS as usize],
    told: Vec<Told>,
    /// The second protocol: nothing is added beforehand, and each end raises the epoch.
    is_v2: bool,
}

impl Writer {
    fn new() -> Writer {
        Writer {
            links: BTreeMap::new(),
            coordinators: BTreeMap::new(),
            topic: None,
            producer: None,
            sequences: [0; PARTITIONS as usize],
            told: Vec::new(),
            is_v2: false,
        }
    }

    fn disconnect(&mut self) {
        self.links.clear();
        self.coordinators.clear();
        self.producer = None;
    }

    fn create(&mut self, node: &mut TestNode) -> Option<()> {
        let created = Client::connect(node, 0).try_create(node, "t", PARTITIONS, &[])?;
        self.topic = created.ok().or(self.topic);
        let mut client = Client::connect(node, 0);
        if self.topic.is_none() {
            let metadata = client.metadata(node)?;
            let found = metadata.topics.iter().find(|topic| topic.name.as_ref().is_some_and(|name| &***name == "t"));
            self.topic = found.map(|topic| TopicId(topic.topic_id));
        }
        Some(())
    }

    /// The broker of each partition.
    fn leaders(&self, node: &mut TestNode) -> Vec<i32> {
        let metadata = Client::connect(node, 0).metadata(node).expect("on");
        let topic = metadata.topics.iter().find(|topic| topic.name.as_ref().is_some_and(|name| &***name == "t"));
        let mut partitions = topic.expect("known").partitions.clone();
        partitions.sort_by_key(|partition| partition.partition_index);
        partitions.iter().map(|partition| partition.leader_id.0).collect()
    }

    fn link(&mut self, node: &TestNode, id: i32) -> &mut Client {
        self.links.entry(id).or_insert_with(|| Client::connect(node, id as usize - 1))
    }

    fn coordinator(&mut self, node: &mut TestNode, key_type: i8, key: &str) -> Option<i32> {
        if let Some(id) = self.coordinators.get(&key_type) {
            return Some(*id);
        }
        let request = FindCoordinatorRequest::default().with_key_type(key_type).with_coordinator_keys(vec![text(key)]);
        let found = Client::connect(node, 0).try_call(node, 6, &request)?.coordinators.remove(0);
        assert_eq!(found.error_code, 0, "{found:?}");
        self.coordinators.insert(key_type, found.node_id.0);
        Some(found.node_id.0)
    }

    /// Asks a coordinator until it has an answer that is not "later".
    fn ask<R: Request>(
        &mut self,
        node: &mut TestNode,
        (key_type, key): (i8, &str),
        version: i16,
        request: &R,
        code: impl Fn(&R::Response) -> i16,
    ) -> Option<R::Response> {
        let until = node.world.now().monotonic + Duration::from_secs(60);
        loop {
            let id = self.coordinator(node, key_type, key)?;
            let response = self.link(node, id).try_call(node, version, request)?;
            let error = ErrorCode::from_code(code(&response)).expect("a known code");
            let is_later = matches!(
                error,
                ErrorCode::ConcurrentTransactions
                    | ErrorCode::CoordinatorLoadInProgress
                    | ErrorCode::CoordinatorNotAvailable
                    | ErrorCode::UnstableOffsetCommit
            );
            if !is_later {
                return Some(response);
            }
            assert!(node.world.now().monotonic < until, "seed {}: {error:?} for ever", node.world.seed());
            if !node.run_for(Duration::from_millis(5)) {
                return None;
            }
        }
    }

    fn init(&mut self, node: &mut TestNode) -> Option<()> {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(Some(TransactionalId(text(ID))))
            .with_transaction_timeout_ms(60_000)
            .with_producer_id((-1).into())
            .with_producer_epoch(-1);
        let given = self.ask(node, (1, ID), 4, &request, |response| response.error_code)?;
        assert_eq!(given.error_code, 0, "{given:?}");
        self.producer = Some((ProducerId(given.producer_id.0), ProducerEpoch(given.producer_epoch)));
        self.sequences = [0; PARTITIONS as usize];
        Some(())
    }

    fn add(&mut self, node: &mut TestNode) -> Option<()> {
        let (id, epoch) = self.producer.expect("initialized");
        let topic =
            AddPartitionsToTxnTopic::default().with_name(topic_name("t")).with_partitions((0..PARTITIONS).collect());
        let request = AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(TransactionalId(text(ID)))
            .with_v3_and_below_producer_id(id.0.into())
            .with_v3_and_below_producer_epoch(epoch.0)
            .with_v3_and_below_topics(vec![topic]);
        let added = self.ask(node, (1, ID), 3, &request, |response| {
            response.results_by_topic_v3_and_below[0].results_by_partition[0].partition_error_code
        })?;
        let topic = &added.results_by_topic_v3_and_below[0];
        assert!(topic.results_by_partition.iter().all(|result| result.partition_error_code == 0), "{added:?}");
        let request = AddOffsetsToTxnRequest::default()
            .with_transactional_id(TransactionalId(text(ID)))
            .with_producer_id(id.0.into())
            .with_producer_epoch(epoch.0)
            .with_group_id(GroupId(text(GROUP)));
        let added = self.ask(node, (1, ID), 3, &request, |response| response.error_code)?;
        assert_eq!(added.error_code, 0);
        Some(())
    }

    /// One transaction; `None` if the power was cut in the middle of it.
    fn run(&mut self, node: &mut TestNode, commits: bool) -> Option<()> {
        if self.producer.is_none() {
            self.init(node)?;
        }
        let number = self.told.len();
        self.told.push(Told::Nothing);
        if !self.is_v2 {
            self.add(node)?;
        }
        for index in 0..PARTITIONS {
            let error = self.produce(node, index, number)?;
            assert_eq!(error, ErrorCode::None, "seed {}: partition {index}", node.world.seed());
        }
        self.commit_offset(node, number)?;
        self.end(node, commits)?;
        self.told[number] = if commits { Told::Committed } else { Told::Aborted };
        Some(())
    }

    fn produce(&mut self, node: &mut TestNode, index: i32, number: usize) -> Option<ErrorCode> {
        let sequence = self.sequences[index as usize];
        let (id, epoch) = self.producer.expect("initialized");
        let mut builder = BatchBuilder::new(Codec::None).producer(id, epoch, Sequence(sequence)).transactional();
        for part in ["a", "b"] {
            builder.push(node.world.now().wall, None, Some(format!("{number} {part}").as_bytes()), &[]);
        }
        self.sequences[index as usize] += 2;
        self.append(node, index, builder.build())
    }

    /// Appends a batch of the transaction where its leader is.
    fn append(&mut self, node: &mut TestNode, index: i32, batch: Vec<u8>) -> Option<ErrorCode> {
        let topic = self.topic.expect("created");
        let mut request = produce_request(topic, index, batch);
        request.transactional_id = Some(TransactionalId(text(ID)));
        if !self.is_v2 {
            request.topic_data[0].name = topic_name("t");
            request.topic_data[0].topic_id = TopicId::NONE.0;
        }
        // Versions that name topics by id bring partitions into the transaction.
        let version = if self.is_v2 { PRODUCE_BY_ID } else { PRODUCE };
        for _ in 0..50 {
            for shard in 0..node.shards.len() as i32 {
                let response = self.link(node, shard + 1).try_call(node, version, &request)?;
                let code = partition_of(response).error_code;
                let error = ErrorCode::from_code(code).expect("a known code");
                match error {
                    ErrorCode::NotLeaderOrFollower => {}
                    // With the second protocol the end of the transaction before is waited for.
                    ErrorCode::NotEnoughReplicas if !self.is_v2 => {
                        node.run_for(Duration::from_millis(5));
                    }
                    other => return Some(other),
                }
            }
        }
        panic!("seed {}: partition {index} has no leader", node.world.seed())
    }

    fn offset_request(&self, number: usize) -> TxnOffsetCommitRequest {
        let (id, epoch) = self.producer.expect("initialized");
        let partition = TxnOffsetCommitRequestPartition::default()
            .with_partition_index(0)
            .with_committed_offset(number as i64)
            .with_committed_leader_epoch(-1)
            .with_committed_metadata(Some(text("note")));
        let topic = TxnOffsetCommitRequestTopic::default().with_name(topic_name("t")).with_partitions(vec![partition]);
        TxnOffsetCommitRequest::default()
            .with_transactional_id(TransactionalId(text(ID)))
            .with_group_id(GroupId(text(GROUP)))
            .with_producer_id(id.0.into())
            .with_producer_epoch(epoch.0)
            .with_topics(vec![topic])
    }

    fn commit_offset(&mut self, node: &mut TestNode, number: usize) -> Option<()> {
        let request = self.offset_request(number);
        let version = if self.is_v2 { 5 } else { 3 };
        let done =
            self.ask(node, (0, GROUP), version, &request, |response| response.topics[0].partitions[0].error_code)?;
        assert_eq!(done.topics[0].partitions[0].error_code, 0, "{done:?}");
        Some(())
    }

    fn end(&mut self, node: &mut TestNode, commits: bool) -> Option<()> {
        let (id, epoch) = self.producer.expect("initialized");
        let request = EndTxnRequest::default()
            .with_transactional_id(TransactionalId(text(ID)))
            .with_producer_id(id.0.into())
            .with_producer_epoch(epoch.0)
            .with_committed(commits);
        let version = if self.is_v2 { 5 } else { 3 };
        let ended = self.ask(node, (1, ID), version, &request, |response| response.error_code)?;
        assert_eq!(ended.error_code, 0, "seed {}: {ended:?}", node.world.seed());
        if self.is_v2 {
            assert_eq!(ended.producer_epoch, epoch.0 + 1);
            self.producer = Some((id, ProducerEpoch(ended.producer_epoch)));
            self.sequences = [0; PARTITIONS as usize];
        }
        Some(())
    }

    /// The transactions whose records a reader of committed records finds in a partition, in order.
    fn read(&mut self, node: &mut TestNode, index: i32) -> Vec<usize> {
        let topic = self.topic.expect("created");
        for shard in 0..node.shards.len() {
            let mut client = Client::connect(node, shard);
            let (mut found, mut offset, mut aborted) = (Vec::new(), 0, BTreeMap::new());
            loop {
                let request = fetch_request(topic, index, offset).with_isolation_level(1);
                let data = client.fetch(node, &request).expect("the power stays on");
                if data.error_code == ErrorCode::NotLeaderOrFollower.code() {
                    break;
                }
                assert_eq!(data.error_code, 0, "{data:?}");
                assert!(data.last_stable_offset <= data.high_watermark);
                if offset >= data.last_stable_offset {
                    return found;
                }
                for entry in data.aborted_transactions.unwrap_or_default() {
                    aborted.entry(entry.producer_id.0).or_insert_with(Vec::new).push(entry.first_offset);
                }
                let records = data.records.unwrap_or_default();
                assert!(!records.is_empty(), "seed {}: nothing at {offset}", node.world.seed());
                for (header, bytes) in batch::batches(&records) {
                    batch::validate_stored(bytes).expect("sound");
                    assert!(header.base_offset.0 < data.last_stable_offset, "undecided");
                    offset = header.next_offset().0;
                    let own = aborted.entry(header.producer_id.0).or_default();
                    if header.attributes.is_control() {
                        own.retain(|first| *first > header.base_offset.0);
                        continue;
                    }
                    if own.iter().any(|first| *first <= header.base_offset.0) {
                        continue;
                    }
                    let section = section(&header, bytes, 1 << 20).expect("plain");
                    for record in Records::new(&section, header.record_count) {
                        let value = String::from_utf8(record.expect("sound").value.expect("a value").to_vec());
                        let value = value.expect("text");
                        let number = value.split(' ').next().expect("a number").parse().expect("a number");
                        found.push(number);
                    }
                }
            }
        }
        panic!("seed {}: partition {index} has no leader", node.world.seed())
    }

    /// The group's stable offset.
    fn offset(&mut self, node: &mut TestNode) -> i64 {
        let topic = OffsetFetchRequestTopics::default().with_name(topic_name("t")).with_partition_indexes(vec![0]);
        let group =
            OffsetFetchRequestGroup::default().with_group_id(GroupId(text(GROUP))).with_topics(Some(vec![topic]));
        let request = OffsetFetchRequest::default().with_require_stable(true).with_groups(vec![group]);
        let found = self.ask(node, (0, GROUP), 8, &request, |response| match response.groups[0].error_code {
            0 => response.groups[0].topics[0].partitions[0].error_code,
            error => error,
        });
        found.expect("the power stays on").groups[0].topics[0].partitions[0].committed_offset
    }

    /// Compares with what was told; what was not told is decided now. The transaction under way ends by a new epoch.
    fn verify(&mut self, node: &mut TestNode) {
        let seed = node.world.seed();
        self.init(node).expect("the power stays on");
        // A start of its own transaction comes after all markers.
        self.add(node).expect("the power stays on");
        self.end(node, false).expect("the power stays on");
        let mut seen: Option<Vec<usize>> = None;
        for index in 0..PARTITIONS {
            let found = self.read(node, index);
            assert!(found.chunks(2).all(|pair| pair.len() == 2 && pair[0] == pair[1]), "seed {seed}: {found:?}");
            let found: Vec<usize> = found.chunks(2).map(|pair| pair[0]).collect();
            let before = seen.get_or_insert_with(|| found.clone());
            assert_eq!(*before, found, "seed {seed}: partition {index} differs: a transaction is torn");
        }
        let seen = seen.expect("there are partitions");
        for (number, told) in self.told.iter_mut().enumerate() {
            let is_there = seen.contains(&number);
            match told {
                Told::Committed => assert!(is_there, "seed {seed}: {number} was committed"),
                Told::Aborted => assert!(!is_there, "seed {seed}: {number} was aborted"),
                Told::Nothing => *told = if is_there { Told::Committed } else { Told::Aborted },
            }
        }
        let last = seen.last().map_or(-1, |number| *number as i64);
        assert_eq!(self.offset(node), last, "seed {seed}: the offset is part of the last transaction");
    }
}

/// Transactions until the power is cut or all are done, a start with other shards, and once more.
fn cut_and_compare(seed: u64, cut_at: Option<u64>, shards: [u16; 3], is_v2: bool) -> u64 {
    let world = World::new(seed, WorldOptions::default());
    if let Some(cut_at) = cut_at {
        world.cut_power_at_write(cut_at, Tear::Random);
    }
    let mut writer = Writer { is_v2, ..Writer::new() };
    let first = TestNode::try_start(&world, &spec(shards[0])).and_then(|mut node| {
        writer.create(&mut node)?;
        // The group's coordinator is asked for before its partition can be part of a transaction.
        writer.coordinator(&mut node, 0, GROUP)?;
        for number in 0..8 {
            writer.run(&mut node, number % 3 != 1)?;
        }
        Some(node)
    });
    let writes = world.write_count();
    if cut_at.is_none() {
        world.kill_process();
    }
    drop(first);
    world.clear_write_hooks();
    writer.disconnect();

    let mut node = TestNode::start(&world, &spec(shards[1]));
    writer.create(&mut node).expect("the power stays on");
    writer.coordinator(&mut node, 0, GROUP).expect("the power stays on");
    writer.verify(&mut node);
    for number in 0..3 {
        writer.run(&mut node, number != 1).expect("the power stays on");
    }
    writer.verify(&mut node);
    assert!(node.stop());
    writer.disconnect();

    let mut node = TestNode::start(&world, &spec(shards[2]));
    writer.verify(&mut node);
    writes
}

#[test]
fn a_transaction_is_whole_or_nothing_after_a_power_cut_at_any_write_and_other_shard_counts() {
    // Counts the writes of a whole run, then cuts the power at every k-th.
    for (seed, shards, is_v2) in [(1, [1, 2, 1], false), (2, [3, 1, 2], false), (3, [2, 3, 1], true)] {
        let writes = cut_and_compare(seed, None, shards, is_v2);
        let step = (writes / 24).max(1);
        let mut cut_at = seed % step;
        while cut_at < writes {
            cut_and_compare(seed, Some(cut_at), shards, is_v2);
            cut_at += step;
        }
    }
}

#[test]
fn a_batch_of_a_transaction_that_does_not_include_the_partition_is_refused() {
    // Before the partition is added, and after the transaction has ended: nothing may open one that nobody ends.
    let world = World::new(7, WorldOptions::default());
    let mut node = TestNode::start(&world, &spec(2));
    let mut writer = Writer::new();
    writer.create(&mut node).expect("on");
    writer.coordinator(&mut node, 0, GROUP).expect("on");
    writer.init(&mut node).expect("on");
    let refused = |writer: &mut Writer, node: &mut TestNode| {
        let error = writer.produce(node, 0, 99).expect("on");
        writer.sequences[0] -= 2;
        error
    };
    assert_eq!(refused(&mut writer, &mut node), ErrorCode::TransactionAbortable);
    writer.run(&mut node, true).expect("on");
    let late = refused(&mut writer, &mut node);
    assert!(matches!(late, ErrorCode::TransactionAbortable | ErrorCode::NotEnoughReplicas), "{late:?}");
    // One without a transactional id, and one that is no part of the transaction under way.
    let mut request = produce_request(writer.topic.expect("created"), 0, Vec::new());
    let (id, epoch) = writer.producer.expect("initialized");
    let batch = |sequence: i32, transactional: bool| {
        let builder = BatchBuilder::new(Codec::None).producer(id, epoch, Sequence(sequence));
        let mut builder = if transactional { builder.transactional() } else { builder };
        builder.push(node.world.now().wall, None, Some(b"x"), &[]);
        builder.build()
    };
    let (bare, plain) = (batch(2, true), batch(4, false));
    request.topic_data[0].partition_data[0].records = Some(bare.into());
    let codes: Vec<i16> = (1..=2)
        .map(|shard| partition_of(writer.link(&node, shard).call(&mut node, PRODUCE_BY_ID, &request)).error_code)
        .collect();
    assert!(codes.contains(&ErrorCode::TransactionalIdAuthorizationFailed.code()), "{codes:?}");
    writer.add(&mut node).expect("on");
    assert_eq!(writer.produce(&mut node, 0, 5), Some(ErrorCode::None));
    assert_eq!(writer.append(&mut node, 0, plain), Some(ErrorCode::InvalidTxnState));
    writer.end(&mut node, true).expect("on");
}

#[test]
fn a_transaction_that_comes_into_many_partitions_at_once_is_never_told_to_wait() {
    // With the second protocol each partition's shard asks the coordinator, which makes one change at a time; and the
    // first questions come while the markers of the transaction before are being written.
    let world = World::new(11, WorldOptions::default());
    let mut node = TestNode::start(&world, &spec(3));
    let mut writer = Writer { is_v2: true, ..Writer::new() };
    writer.create(&mut node).expect("on");
    writer.coordinator(&mut node, 0, GROUP).expect("on");
    writer.init(&mut node).expect("on");
    let leaders = writer.leaders(&mut node);
    for round in 0..20 {
        let (id, epoch) = writer.producer.expect("initialized");
        for (index, leader) in (0..).zip(&leaders) {
            let mut builder = BatchBuilder::new(Codec::None).producer(id, epoch, Sequence(0)).transactional();
            builder.push(world.now().wall, None, Some(b"x"), &[]);
            let mut request = produce_request(writer.topic.expect("created"), index, builder.build());
            request.transactional_id = Some(TransactionalId(text(ID)));
            writer.link(&node, *leader).send(PRODUCE_BY_ID, &request);
        }
        for leader in &leaders {
            let response = writer.link(&node, *leader).receive::<ProduceRequest>(&mut node, PRODUCE_BY_ID).expect("on");
            assert_eq!(partition_of(response).error_code, 0, "round {round}");
        }
        // As fast as the decision is durable: no pause for the markers.
        writer.end(&mut node, round % 2 == 0).expect("on");
    }
}

#[test]
fn who_waits_for_markers_that_do_not_come_is_told_to_ask_again_soon() {
    // The disk takes a minute for what is written to the topic, and with it for the markers of what was committed. What
    // begins the next transaction is a request of its own, or the first batch of it. Without a journal, which would
    // commit markers and decisions alike.
    for (seed, is_v2) in [(30, false), (31, true)] {
        let world = World::new(seed, WorldOptions::default());
        let mut node = TestNode::start(&world, &spec(1).set("ottla.journal.bytes", 0));
        let mut writer = Writer { is_v2, ..Writer::new() };
        writer.create(&mut node).expect("on");
        writer.coordinator(&mut node, 0, GROUP).expect("on");
        writer.run(&mut node, true).expect("on");
        if !is_v2 {
            writer.add(&mut node).expect("on");
        }
        assert_eq!(writer.produce(&mut node, 0, 1), Some(ErrorCode::None));
        let minute = Fault::Delay(Duration::from_secs(60));
        world.inject(Rule::new(OpKind::Write, minute).path("/t-"));
        writer.end(&mut node, true).expect("on");
        let asked_at = world.now().monotonic;
        let error = match is_v2 {
            true => writer.produce(&mut node, 0, 2).expect("on"),
            false => {
                let (id, epoch) = writer.producer.expect("initialized");
                let request = AddOffsetsToTxnRequest::default()
                    .with_transactional_id(TransactionalId(text(ID)))
                    .with_producer_id(id.0.into())
                    .with_producer_epoch(epoch.0)
                    .with_group_id(GroupId(text(GROUP)));
                let owner = writer.coordinator(&mut node, 1, ID).expect("on");
                let added = writer.link(&node, owner).call(&mut node, 3, &request);
                ErrorCode::from_code(added.error_code).expect("a known code")
            }
        };
        let took = world.now().monotonic.since(asked_at);
        assert_eq!(error, ErrorCode::ConcurrentTransactions, "seed {seed}");
        assert!(took >= HELD_ADD_WAIT_MAX && took < 2 * HELD_ADD_WAIT_MAX, "seed {seed}: {took:?}");
    }
}

#[test]
fn offsets_that_come_late_into_a_transaction_open_none_that_nobody_ends() {
    // A stream of offsets of one producer on a connection of its own while its transactions end on another: whatever
    // comes before or behind a marker, at the end nothing of it is open.
    for (seed, is_v2) in (20..28).flat_map(|seed| [(seed, false), (seed, true)]) {
        let world = World::new(seed, WorldOptions::default());
        let mut node = TestNode::start(&world, &spec(1));
        let mut writer = Writer { is_v2, ..Writer::new() };
        writer.create(&mut node).expect("on");
        let coordinator = writer.coordinator(&mut node, 0, GROUP).expect("on");
        writer.init(&mut node).expect("on");
        let version = if is_v2 { 5 } else { 3 };
        let mut late = Client::connect(&node, coordinator as usize - 1);
        let (mut asked, mut answered) = (0, 0);
        for number in 0..12 {
            if !is_v2 {
                writer.add(&mut node).expect("on");
            }
            writer.commit_offset(&mut node, number).expect("on");
            let request = writer.offset_request(number);
            let (id, epoch) = writer.producer.expect("initialized");
            let end = EndTxnRequest::default()
                .with_transactional_id(TransactionalId(text(ID)))
                .with_producer_id(id.0.into())
                .with_producer_epoch(epoch.0)
                .with_committed(number % 2 == 0);
            let end_version = if is_v2 { 5 } else { 3 };
            let owner = writer.coordinator(&mut node, 1, ID).expect("on");
            writer.link(&node, owner).send(end_version, &end);
            for _ in 0..40 {
                late.send(version, &request);
                asked += 1;
                node.run_for(Duration::from_micros(50));
            }
            let ended = writer.link(&node, owner).receive::<EndTxnRequest>(&mut node, end_version).expect("on");
            assert_eq!(ended.error_code, 0);
            if is_v2 {
                writer.producer = Some((id, ProducerEpoch(ended.producer_epoch)));
            }
        }
        while answered < asked {
            late.receive::<TxnOffsetCommitRequest>(&mut node, version).expect("answered");
            answered += 1;
        }
        // No transaction is under way: what is told to be stable is.
        writer.offset(&mut node);
    }
}

#[test]
fn a_batch_does_not_overtake_one_that_was_refused_before_it() {
    // The first batch of a producer is refused by the transaction's coordinator, here for the name of another id; the
    // one that was sent with it must not become the first of the partition.
    let world = World::new(41, WorldOptions::default());
    let mut node = TestNode::start(&world, &spec(2));
    let mut writer = Writer { is_v2: true, ..Writer::new() };
    writer.create(&mut node).expect("on");
    writer.coordinator(&mut node, 0, GROUP).expect("on");
    writer.init(&mut node).expect("on");
    let (id, epoch) = writer.producer.expect("initialized");
    let topic = writer.topic.expect("created");
    let mut send = |node: &mut TestNode, name: &str, sequence: i32| {
        let builder = BatchBuilder::new(Codec::None).producer(id, epoch, Sequence(sequence));
        let mut builder = builder.transactional();
        builder.push(node.world.now().wall, None, Some(b"x"), &[]);
        let mut request = produce_request(topic, 0, builder.build());
        request.transactional_id = Some(TransactionalId(text(name)));
        let codes = (1..=2).map(|shard| {
            let response = writer.link(node, shard).call(node, PRODUCE_BY_ID, &request);
            ErrorCode::from_code(partition_of(response).error_code).expect("a known code")
        });
        codes.filter(|code| *code != ErrorCode::NotLeaderOrFollower).collect::<Vec<_>>()
    };
    assert_eq!(send(&mut node, "another", 0), [ErrorCode::InvalidProducerIdMapping]);
    assert_eq!(send(&mut node, ID, 1), [ErrorCode::OutOfOrderSequenceNumber]);
    assert_eq!(send(&mut node, ID, 0), [ErrorCode::None]);
    assert_eq!(send(&mut node, ID, 1), [ErrorCode::None]);
}

#[test]
fn a_fenced_producer_and_its_successor_that_ask_at_the_same_time_are_both_answered() {
    // Both hold a batch for the same partition whose first one it would be, in epochs of their own, while the
    // transaction's coordinator is asked; its shard is another one for at least one of the partitions.
    let world = World::new(43, WorldOptions::default());
    let mut node = TestNode::start(&world, &spec(3));
    let mut writer = Writer { is_v2: true, ..Writer::new() };
    writer.create(&mut node).expect("on");
    writer.coordinator(&mut node, 0, GROUP).expect("on");
    writer.init(&mut node).expect("on");
    let old = writer.producer.expect("initialized");
    writer.init(&mut node).expect("on");
    let new = writer.producer.expect("initialized");
    assert!(old.0 == new.0 && old.1 < new.1, "{old:?} {new:?}");
    for (index, leader) in (0..).zip(writer.leaders(&mut node)) {
        let mut clients = [old, new, old, new].map(|(id, epoch)| {
            let builder = BatchBuilder::new(Codec::None).producer(id, epoch, Sequence(0));
            let mut builder = builder.transactional();
            builder.push(world.now().wall, None, Some(b"x"), &[]);
            let mut request = produce_request(writer.topic.expect("created"), index, builder.build());
            request.transactional_id = Some(TransactionalId(text(ID)));
            let mut client = Client::connect(&node, leader as usize - 1);
            client.send(PRODUCE_BY_ID, &request);
            client
        });
        let until = world.now().monotonic + Duration::from_secs(1);
        node.run_until(|node| {
            for bound in node.bounds() {
                assert!(bound.used <= bound.max, "partition {index}: {bound:?}");
            }
            world.now().monotonic >= until
        });
        let codes = clients.each_mut().map(|client| {
            let response = client.receive::<ProduceRequest>(&mut node, PRODUCE_BY_ID).expect("on");
            ErrorCode::from_code(partition_of(response).error_code).expect("a known code")
        });
        let (fenced, none) = (ErrorCode::InvalidProducerEpoch, ErrorCode::None);
        assert_eq!(codes, [fenced, none, fenced, none], "partition {index}");
    }
}

#[test]
fn a_transaction_ends_when_its_topic_is_deleted_before_or_while_it_is_decided() {
    // Deleted while the transaction is open, and at once after the decision, when markers are on their way to partitions
    // of several shards: the next transaction begins all the same, also after a start in between.
    for (seed, is_before, starts_again) in [(31, true, false), (32, false, false), (33, true, true), (34, false, true)]
    {
        let world = World::new(seed, WorldOptions::default());
        let mut node = TestNode::start(&world, &spec(3));
        let mut writer = Writer::new();
        writer.create(&mut node).expect("on");
        writer.coordinator(&mut node, 0, GROUP).expect("on");
        writer.init(&mut node).expect("on");
        writer.add(&mut node).expect("on");
        for index in 0..PARTITIONS {
            assert_eq!(writer.produce(&mut node, index, 0), Some(ErrorCode::None));
        }
        let delete = |node: &mut TestNode| {
            let deleted = Client::connect(node, 0).try_delete(node, "t");
            assert_eq!(deleted, Some(ErrorCode::None), "seed {seed}");
        };
        if is_before {
            delete(&mut node);
        }
        if starts_again && is_before {
            assert!(node.stop());
            node = TestNode::start(&world, &spec(2));
            let producer = writer.producer;
            writer.disconnect();
            writer.producer = producer;
        }
        writer.end(&mut node, true).expect("on");
        if !is_before {
            delete(&mut node);
        }
        if starts_again && !is_before {
            world.kill_process();
            drop(node);
            world.clear_write_hooks();
            node = TestNode::start(&world, &spec(1));
            writer.disconnect();
        }
        writer.topic = None;
        writer.producer = None;
        writer.create(&mut node).expect("on");
        for commits in [true, false, true] {
            writer.run(&mut node, commits).expect("on");
        }
        writer.verify(&mut node);
    }
}
