//! Consumers of groups that fall behind, get stuck or are wrong: they are told so in Kafka's codes, go on as
//! `auto.offset.reset` says, and harm nobody else.

mod common;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use common::broker::{Broker, Options};
use common::clients::{Admin, Producer, Record, block_on, consumer, options, send_all};
use common::groups::{heartbeat, join, join_request, sync_request, text, to_coordinator};
use common::requests::{error_of, topic_name};
use common::{WAIT_MAX, until};
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::{GroupId, JoinGroupRequest, LeaveGroupRequest, OffsetCommitRequest};
use ottla::client::Connection;
use ottla::protocol::ErrorCode;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Message, Offset, TopicPartitionList};

const TOPIC: &str = "read";

fn broker(settings: &[(&str, &str)]) -> Broker {
    let options = Options::shards(2).set("group.initial.rebalance.delay.ms", "0");
    let broker = Broker::start(settings.iter().fold(options, |options, (key, value)| options.set(key, value)));
    Admin::new(&broker.bootstrap()).create(TOPIC, 1, &[]);
    broker
}

fn values(numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.map(|number| number.to_string()).collect()
}

fn delete_records(broker: &Broker, before: i64) {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(TOPIC, 0, Offset::Offset(before)).expect("an offset");
    let deleted = block_on(Admin::new(&broker.bootstrap()).inner().delete_records(&list, &options()));
    deleted.expect("answered").elements()[0].error().expect("deleted");
}

// ---- falling behind

#[test]
fn a_consumer_that_has_fallen_behind_the_logs_start_goes_on_as_it_wants() {
    // Groups have committed offset 5, then everything below 20 is deleted: one goes on at the earliest record, one at
    // the end, one wants to be told.
    let broker = broker(&[]);
    send_all(&broker.bootstrap(), TOPIC, 0, &values(0..30));
    let reader = |group: &str, reset: &str| {
        consumer(
            &broker.bootstrap(),
            TOPIC,
            &[(0, Offset::Stored)],
            &[("group.id", group), ("auto.offset.reset", reset)],
        )
    };
    let resets = ["earliest", "latest", "error"];
    for reset in resets {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(TOPIC, 0, Offset::Offset(5)).expect("an offset");
        reader(reset, reset).commit(&list, CommitMode::Sync).expect("committed");
    }
    delete_records(&broker, 20);
    let [earliest, latest, told] = resets.map(|reset| reader(reset, reset));
    assert_eq!(common::clients::read_one(&earliest).offset, 20);
    until("it is told", || match told.poll(Duration::from_millis(50)) {
        Some(Err(error)) => {
            let code = error.rdkafka_error_code().map(|code| format!("{code:?}")).unwrap_or_default();
            assert!(code.contains("AutoOffsetReset") || code.contains("OffsetOutOfRange"), "{error}");
            Some(())
        }
        Some(Ok(message)) => panic!("it was given offset {}", message.offset()),
        None => None,
    });
    until("it is at the end", || match latest.poll(Duration::from_millis(50)) {
        Some(Err(KafkaError::PartitionEOF(0))) => Some(()),
        Some(Ok(message)) => panic!("it was given offset {}", message.offset()),
        _ => None,
    });
    send_all(&broker.bootstrap(), TOPIC, 0, &values(30..31));
    assert_eq!(common::clients::read_one(&latest).offset, 30);
}

#[test]
fn replays_and_a_consumer_that_is_stuck_do_not_keep_others_from_the_tail() {
    // One reads the tail while records are produced; one begins anew again and again, by offset and by time; one was
    // given its partition, has fetched and is never heard of again as long as its session lasts.
    let broker = broker(&[("group.min.session.timeout.ms", "1000")]);
    let from = |offset| consumer(&broker.bootstrap(), TOPIC, &[(0, offset)], &[]);
    let mut producer = Producer::new(&broker.bootstrap(), &[("linger.ms", "0")]);
    let padding = "x".repeat(2_000);
    let send = |producer: &mut Producer, number: usize| {
        producer.send(TOPIC, 0, &Record::of(format!("{number} {padding}")));
    };
    (0..2_000).for_each(|number| send(&mut producer, number));
    producer.deliver();
    let stuck: BaseConsumer<common::clients::Collecting> = from(Offset::Beginning);
    until("it has begun", || stuck.poll(Duration::from_millis(50)).and_then(Result::ok).map(drop));

    let tail = from(Offset::Offset(2_000));
    let mut replay = from(Offset::Beginning);
    let (mut replayed, mut round, mut next) = (0, 0, 2_000);
    let deadline = Instant::now() + WAIT_MAX;
    for number in 2_000..2_400 {
        send(&mut producer, number);
        producer.poll();
        // Between two records of the tail the replay takes what it can get.
        for _ in 0..20 {
            match replay.poll(Duration::ZERO) {
                Some(Ok(message)) => {
                    assert_eq!(message.offset(), replayed);
                    replayed += 1;
                }
                Some(Err(error)) if !matches!(error, KafkaError::PartitionEOF(_)) => panic!("{error}"),
                _ => break,
            }
        }
        if replayed >= 1_000 {
            // Anew: once by offset, once by time, which is that of the first record.
            round += 1;
            replayed = 0;
            replay = from(Offset::Beginning);
            if round % 2 == 0 {
                let mut asked = TopicPartitionList::new();
                asked.add_partition_offset(TOPIC, 0, Offset::Offset(1)).expect("a time");
                let found = replay.offsets_for_times(asked, WAIT_MAX).expect("answered");
                assert_eq!(found.elements()[0].offset(), Offset::Offset(0));
                replay.assign(&found).expect("assigned");
            }
        }
        while next <= number as i64 {
            assert!(Instant::now() < deadline, "the tail is at {next} of {number}");
            if let Some(Ok(message)) = tail.poll(Duration::from_millis(50)) {
                assert_eq!(message.offset(), next);
                next += 1;
            }
        }
    }
    until("the replay is at the end", || {
        while let Some(Ok(message)) = replay.poll(Duration::from_millis(50)) {
            assert_eq!(message.offset(), replayed);
            replayed += 1;
        }
        (replayed == 2_400).then_some(())
    });
    // The one that was stuck goes on where it was.
    let message = until("it goes on", || stuck.poll(Duration::from_millis(50)).and_then(Result::ok));
    assert_eq!(message.offset(), 1);
}

// ---- being wrong

/// A group with one member that has its work; the member's connection and id.
fn one_member(broker: &Broker, group: &str, instance: Option<&str>) -> (Connection, String) {
    let mut connection = to_coordinator(broker, group);
    let request = join_request(group, "", "any", b"x").with_group_instance_id(instance.map(text));
    let joined = join(&mut connection, 5, request);
    assert_eq!((error_of(joined.error_code), joined.generation_id), (ErrorCode::None, 1));
    let mut sync = sync_request(group, &joined.member_id, 1, &[(&joined.member_id, "work")]);
    sync.group_instance_id = instance.map(text);
    assert_eq!(connection.call(3, &sync).expect("answered").error_code, 0);
    (connection, joined.member_id.to_string())
}

#[test]
fn only_members_of_the_generation_commit_in_a_group_that_has_members() {
    // Wrong members, generations and instances, in the first and the last version that has them; nothing of it is kept.
    let broker = broker(&[]);
    let group = "working";
    let (mut connection, member_id) = one_member(&broker, group, Some("one"));
    let mut commit = |version: i16, member_id: &str, generation: i32, instance: Option<&str>| {
        let partition = OffsetCommitRequestPartition::default().with_committed_offset(7);
        let topic = OffsetCommitRequestTopic::default().with_name(topic_name(TOPIC)).with_partitions(vec![partition]);
        let request = OffsetCommitRequest::default()
            .with_group_id(GroupId(text(group)))
            .with_member_id(text(member_id))
            .with_generation_id_or_member_epoch(generation)
            .with_group_instance_id(instance.map(text))
            .with_topics(vec![topic]);
        error_of(connection.call(version, &request).expect("answered").topics[0].partitions[0].error_code)
    };
    for version in [2, 7, 9] {
        let unknown = ErrorCode::UnknownMemberId;
        assert_eq!(commit(version, "", -1, None), unknown, "an administrator may commit while nobody is there");
        assert_eq!(commit(version, "nobody", 1, None), unknown);
        assert_eq!(commit(version, &member_id, 0, None), ErrorCode::IllegalGeneration);
        assert_eq!(commit(version, &member_id, 2, None), ErrorCode::IllegalGeneration);
        if version >= 7 {
            assert_eq!(commit(version, "nobody", 1, Some("one")), ErrorCode::FencedInstanceId);
            assert_eq!(commit(version, &member_id, 1, Some("two")), unknown);
        }
    }
    let client = consumer(&broker.bootstrap(), TOPIC, &[], &[("group.id", group)]);
    let committed = || {
        let mut asked = TopicPartitionList::new();
        asked.add_partition(TOPIC, 0);
        client.committed_offsets(asked, WAIT_MAX).expect("answered").elements()[0].offset()
    };
    assert_eq!(committed(), Offset::Invalid);
    assert_eq!(commit(9, &member_id, 1, Some("one")), ErrorCode::None);
    assert_eq!(committed(), Offset::Offset(7));
}

#[test]
fn a_second_process_of_an_instance_fences_the_first_in_everything() {
    // The first one comes back under a new member id: its old id is refused wherever it names the instance.
    let broker = broker(&[]);
    let group = "named";
    let (mut connection, old) = one_member(&broker, group, Some("one"));
    let request =
        |member_id: &str| join_request(group, member_id, "any", b"x").with_group_instance_id(Some(text("one")));
    let again = connection.call(9, &request("")).expect("answered");
    assert_eq!((error_of(again.error_code), again.generation_id), (ErrorCode::None, 1));
    assert_ne!(*again.member_id, *old);
    let fenced = ErrorCode::FencedInstanceId;
    let joined: kafka_protocol::messages::JoinGroupResponse = connection.call(9, &request(&old)).expect("answered");
    assert_eq!(error_of(joined.error_code), fenced);
    let mut sync = sync_request(group, &old, 1, &[]);
    sync.group_instance_id = Some(text("one"));
    assert_eq!(error_of(connection.call(3, &sync).expect("answered").error_code), fenced);
    let leave = |member_id: &str| {
        let member =
            MemberIdentity::default().with_member_id(text(member_id)).with_group_instance_id(Some(text("one")));
        LeaveGroupRequest::default().with_group_id(GroupId(text(group))).with_members(vec![member])
    };
    let left = connection.call(5, &leave(&old)).expect("answered");
    assert_eq!(error_of(left.members[0].error_code), fenced);
    assert_eq!(heartbeat(&mut connection, 4, group, &old, 1), ErrorCode::UnknownMemberId);
    assert_eq!(heartbeat(&mut connection, 4, group, &again.member_id, 1), ErrorCode::None);
    let left = connection.call(5, &leave(&again.member_id)).expect("answered");
    assert_eq!(error_of(left.members[0].error_code), ErrorCode::None);
}

#[test]
fn a_group_takes_as_many_members_as_the_broker_allows() {
    // With group.max.size 2 the third one is refused; when one has left it is taken.
    let broker = broker(&[("group.max.size", "2"), ("group.initial.rebalance.delay.ms", "200")]);
    let group = "small";
    let mut connections: Vec<Connection> = (0..2).map(|_| to_coordinator(&broker, group)).collect();
    let request = || join_request(group, "", "any", b"x");
    for connection in &mut connections {
        connection.send(3, &request()).expect("sent");
    }
    let joined: Vec<_> =
        connections.iter_mut().map(|connection| connection.receive::<JoinGroupRequest>().expect("answered")).collect();
    assert!(joined.iter().all(|joined| joined.error_code == 0));
    let ids: BTreeSet<&str> = joined.iter().map(|joined| &*joined.member_id).collect();
    assert_eq!(ids.len(), 2);
    let mut third = to_coordinator(&broker, group);
    for version in [3, 9] {
        let refused = third.call(version, &request()).expect("answered");
        assert_eq!((error_of(refused.error_code), &*refused.member_id), (ErrorCode::GroupMaxSizeReached, ""));
    }
    let generation = joined[0].generation_id;
    let leave = joined.iter().map(|joined| MemberIdentity::default().with_member_id(joined.member_id.clone()));
    let leave = LeaveGroupRequest::default().with_group_id(GroupId(text(group))).with_members(leave.collect());
    assert_eq!(connections[0].call(5, &leave).expect("answered").error_code, 0);
    let taken = third.call(3, &request()).expect("answered");
    assert_eq!(error_of(taken.error_code), ErrorCode::None);
    assert!(taken.generation_id > generation);
}
