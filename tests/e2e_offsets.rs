//! Committed offsets: librdkafka commits and resumes, also after a stop and a crash; every version by hand; what is
//! refused.

mod common;

use common::broker::{Broker, Options};
use common::clients::{Admin, consumer, send_all};
use common::requests::{self, connect, error_of, topic_name};
use common::{WAIT_MAX, until};
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::{
    FindCoordinatorRequest, GroupId, OffsetCommitRequest, OffsetDeleteRequest, OffsetFetchRequest,
};
use kafka_protocol::protocol::StrBytes;
use ottla::client::Connection;
use ottla::model::id::TopicId;
use ottla::protocol::ErrorCode;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};

const GROUP: &str = "readers";

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// A broker with a topic of three partitions that has records.
fn with_records(shards: usize) -> Broker {
    let broker = Broker::start(Options::shards(shards));
    Admin::new(&broker.bootstrap()).create("read", 3, &[]);
    for partition in 0..3 {
        let values: Vec<String> = (0..20).map(|number| format!("{partition}/{number}")).collect();
        send_all(&broker.bootstrap(), "read", partition, &values);
    }
    broker
}

/// A consumer that assigns its partitions itself and keeps its offsets in the group.
fn reader(broker: &Broker) -> BaseConsumer<common::clients::Collecting> {
    let from: Vec<_> = (0..3).map(|partition| (partition, Offset::Stored)).collect();
    let settings = [("group.id", GROUP), ("auto.offset.reset", "earliest")];
    consumer(&broker.bootstrap(), "read", &from, &settings)
}

fn offsets(of: &[(i32, i64, &str)]) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for (partition, offset, metadata) in of {
        let mut element = list.add_partition("read", *partition);
        element.set_offset(Offset::Offset(*offset)).expect("an offset");
        element.set_metadata(*metadata);
    }
    list
}

/// Offset and metadata of each partition as the group has committed them.
fn committed(consumer: &BaseConsumer<common::clients::Collecting>) -> Vec<(Option<i64>, String)> {
    let mut asked = TopicPartitionList::new();
    for partition in 0..3 {
        asked.add_partition("read", partition);
    }
    let found = consumer.committed_offsets(asked, WAIT_MAX).expect("the coordinator answers");
    let found = found.elements();
    let mut found: Vec<_> = found
        .iter()
        .map(|element| {
            element.error().expect("no error");
            let offset = if let Offset::Offset(offset) = element.offset() { Some(offset) } else { None };
            (element.partition(), (offset, element.metadata().to_owned()))
        })
        .collect();
    found.sort_by_key(|(partition, _)| *partition);
    found.into_iter().map(|(_, found)| found).collect()
}

#[test]
fn librdkafka_commits_and_resumes_also_after_a_stop_and_a_crash() {
    let mut broker = with_records(2);
    let first = reader(&broker);
    assert!(committed(&first).iter().all(|(offset, _)| offset.is_none()));
    first.commit(&offsets(&[(0, 5, "five"), (1, 7, "")]), CommitMode::Sync).expect("committed");
    first.commit(&offsets(&[(0, 6, "six \u{2713}")]), CommitMode::Sync).expect("committed");
    let expected = vec![(Some(6), "six \u{2713}".to_owned()), (Some(7), String::new()), (None, String::new())];
    assert_eq!(committed(&first), expected);
    drop(first);

    broker.restart();
    assert_eq!(committed(&reader(&broker)), expected);
    broker.kill9();
    broker.start_again();
    let second = reader(&broker);
    assert_eq!(committed(&second), expected);

    // It goes on where the group has read to, and at the beginning where it has read nothing.
    let mut firsts = [None; 3];
    let found = until("a record of each partition", || {
        if let Some(Ok(message)) = second.poll(std::time::Duration::from_millis(50)) {
            let message: rdkafka::message::BorrowedMessage<'_> = message;
            let place = &mut firsts[rdkafka::Message::partition(&message) as usize];
            place.get_or_insert(rdkafka::Message::offset(&message));
        }
        firsts.iter().all(Option::is_some).then_some(firsts)
    });
    assert_eq!(found, [Some(6), Some(7), Some(0)]);
}

/// The broker that coordinates a group.
fn coordinator(connection: &mut Connection, group: &str) -> i32 {
    let request = FindCoordinatorRequest::default().with_coordinator_keys(vec![text(group)]);
    let found = connection.call(6, &request).expect("answered").coordinators.remove(0);
    assert_eq!(error_of(found.error_code), ErrorCode::None);
    found.node_id.0
}

/// A connection to the coordinator of a group.
fn to_coordinator(broker: &Broker, group: &str) -> Connection {
    let id = coordinator(&mut connect(&broker.serving()[0].address), group);
    connect(broker.address_of(id))
}

fn commit_request(group: &str, topic: &str, index: i32, offset: i64, metadata: Option<&str>) -> OffsetCommitRequest {
    let partition = OffsetCommitRequestPartition::default()
        .with_partition_index(index)
        .with_committed_offset(offset)
        .with_committed_metadata(metadata.map(text));
    let topic = OffsetCommitRequestTopic::default().with_name(topic_name(topic)).with_partitions(vec![partition]);
    OffsetCommitRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic])
}

fn commit(connection: &mut Connection, version: i16, request: &OffsetCommitRequest) -> ErrorCode {
    let response = connection.call(version, request).expect("answered");
    error_of(response.topics[0].partitions[0].error_code)
}

/// Offset, leader epoch and metadata, or the error of the partition or the group.
fn fetch(
    connection: &mut Connection,
    version: i16,
    group: &str,
    topic: &str,
    index: i32,
) -> Result<(i64, i32, String), ErrorCode> {
    let response = connection.call(version, &fetch_request(version, group, topic, index)).expect("answered");
    let (error, offset, epoch, metadata, group_error) = if version < 8 {
        let p = &response.topics.first().map(|topic| topic.partitions[0].clone()).unwrap_or_default();
        (p.error_code, p.committed_offset, p.committed_leader_epoch, p.metadata.clone(), response.error_code)
    } else {
        let group = &response.groups[0];
        let p = &group.topics.first().map(|topic| topic.partitions[0].clone()).unwrap_or_default();
        (p.error_code, p.committed_offset, p.committed_leader_epoch, p.metadata.clone(), group.error_code)
    };
    match (error_of(error), error_of(group_error)) {
        (ErrorCode::None, ErrorCode::None) => Ok((offset, epoch, metadata.unwrap_or_default().to_string())),
        (ErrorCode::None, error) | (error, _) => Err(error),
    }
}

fn fetch_request(version: i16, group: &str, topic: &str, index: i32) -> OffsetFetchRequest {
    let request = OffsetFetchRequest::default().with_require_stable(version >= 7);
    if version < 8 {
        let topic = OffsetFetchRequestTopic::default().with_name(topic_name(topic)).with_partition_indexes(vec![index]);
        return request.with_group_id(GroupId(text(group))).with_topics(Some(vec![topic]));
    }
    let topic = OffsetFetchRequestTopics::default().with_name(topic_name(topic)).with_partition_indexes(vec![index]);
    let group = OffsetFetchRequestGroup::default()
        .with_group_id(GroupId(text(group)))
        .with_member_epoch(-1)
        .with_topics(Some(vec![topic]));
    request.with_groups(vec![group])
}

#[test]
fn every_version_commits_and_fetches() {
    let broker = with_records(1);
    let mut connection = to_coordinator(&broker, GROUP);
    let id = TopicId(requests::topic(&mut connection, "read").id).to_string();
    for version in 2..=10 {
        let named = if version >= 10 { id.as_str() } else { "read" };
        let mut request = commit_request(GROUP, named, 1, i64::from(version), Some("note"));
        if version >= 6 {
            request.topics[0].partitions[0].committed_leader_epoch = 3;
        }
        assert_eq!(commit(&mut connection, version, &request), ErrorCode::None, "version {version}");
        for fetched in 1..=10 {
            let named = if fetched >= 10 { id.as_str() } else { "read" };
            let epoch = if version >= 6 && fetched >= 5 { 3 } else { -1 };
            let expected = (i64::from(version), epoch, "note".to_owned());
            assert_eq!(fetch(&mut connection, fetched, GROUP, named, 1), Ok(expected), "{version}, {fetched}");
            let missing = fetch(&mut connection, fetched, GROUP, named, 2);
            assert_eq!(missing, Ok((-1, -1, String::new())));
        }
    }
    // Null metadata comes back as an empty text.
    assert_eq!(commit(&mut connection, 9, &commit_request(GROUP, "read", 1, 5, None)), ErrorCode::None);
    assert_eq!(fetch(&mut connection, 9, GROUP, "read", 1), Ok((5, -1, String::new())));

    // All topics of two groups at once.
    assert_eq!(commit(&mut connection, 9, &commit_request(GROUP, "read", 0, 6, None)), ErrorCode::None);
    let groups = [GROUP, "nobody"].map(|group| {
        OffsetFetchRequestGroup::default().with_group_id(GroupId(text(group))).with_member_epoch(-1).with_topics(None)
    });
    let request = OffsetFetchRequest::default().with_groups(groups.to_vec());
    for version in 8..=10 {
        let response = connection.call(version, &request).expect("answered");
        assert_eq!(response.groups.len(), 2);
        let topics = &response.groups[0].topics;
        assert_eq!((topics.len(), topics[0].topic_id.is_nil()), (1, version < 10));
        let found: Vec<_> = topics[0].partitions.iter().map(|p| (p.partition_index, p.committed_offset)).collect();
        assert_eq!(found, [(0, 6), (1, 5)]);
        assert!(response.groups[1].topics.is_empty() && response.groups[1].error_code == 0);
    }
    for version in 2..=7 {
        let request = OffsetFetchRequest::default().with_group_id(GroupId(text(GROUP))).with_topics(None);
        let response = connection.call(version, &request).expect("answered");
        assert_eq!((response.topics.len(), response.topics[0].partitions.len()), (1, 2));
    }
}

#[test]
fn what_cannot_be_committed_is_refused_with_kafkas_codes() {
    let broker = with_records(3);
    let mut connection = to_coordinator(&broker, GROUP);
    let request = |topic: &str, index, metadata: Option<&str>| commit_request(GROUP, topic, index, 1, metadata);

    // Topics and partitions that are not there, beside one that is.
    let unknown = ErrorCode::UnknownTopicOrPartition;
    assert_eq!(commit(&mut connection, 9, &request("missing", 0, None)), unknown);
    assert_eq!(commit(&mut connection, 9, &request("read", 3, None)), unknown);
    assert_eq!(commit(&mut connection, 9, &request("read", -1, None)), unknown);
    let nowhere = "AAAAAAAAAAAAAAAAAAAAAQ";
    assert_eq!(commit(&mut connection, 10, &request(nowhere, 0, None)), ErrorCode::UnknownTopicId);
    assert_eq!(fetch(&mut connection, 10, GROUP, nowhere, 0), Err(ErrorCode::UnknownTopicId));
    let mut mixed = request("read", 0, None);
    let wrong = mixed.topics[0].partitions[0].clone().with_partition_index(99);
    mixed.topics[0].partitions.push(wrong);
    mixed.topics.extend(request("missing", 0, None).topics);
    let response = connection.call(9, &mixed).expect("answered");
    let codes = response.topics.iter().flat_map(|topic| &topic.partitions).map(|p| error_of(p.error_code));
    assert_eq!(codes.collect::<Vec<_>>(), [ErrorCode::None, unknown, unknown]);
    assert_eq!(fetch(&mut connection, 9, GROUP, "read", 0), Ok((1, -1, String::new())));

    // Metadata: 4096 characters are taken, one more is not.
    let longest = "\u{e9}".repeat(4096);
    assert_eq!(commit(&mut connection, 9, &request("read", 1, Some(&longest))), ErrorCode::None);
    assert_eq!(fetch(&mut connection, 9, GROUP, "read", 1), Ok((1, -1, longest.clone())));
    let too_long = commit(&mut connection, 9, &request("read", 1, Some(&(longest + "x"))));
    assert_eq!(too_long, ErrorCode::OffsetMetadataTooLarge);

    // A generation of a group that nobody has joined.
    let member = request("read", 0, None).with_generation_id_or_member_epoch(3).with_member_id(text("m"));
    let stranger = |version| member.clone().with_group_id(GroupId(text(if version < 9 { "a" } else { "b" })));
    for (version, expected) in [(8, ErrorCode::IllegalGeneration), (9, ErrorCode::GroupIdNotFound)] {
        let stranger = stranger(version);
        let mut connection = to_coordinator(&broker, &stranger.group_id);
        assert_eq!(commit(&mut connection, version, &stranger), expected);
    }

    // Another broker than the coordinator's.
    let mut elsewhere = connect(&broker.serving()[0].address);
    let id = coordinator(&mut elsewhere, GROUP);
    let mut elsewhere = connect(broker.address_of(id % 3 + 1));
    assert_eq!(commit(&mut elsewhere, 9, &request("read", 0, None)), ErrorCode::NotCoordinator);
    for version in [1, 2, 7, 8, 9] {
        assert_eq!(fetch(&mut elsewhere, version, GROUP, "read", 0), Err(ErrorCode::NotCoordinator));
    }
}

#[test]
fn deleted_offsets_are_gone_also_after_a_crash() {
    let mut broker = with_records(1);
    let mut connection = to_coordinator(&broker, GROUP);
    for index in 0..3 {
        let committed = commit(&mut connection, 9, &commit_request(GROUP, "read", index, 4, None));
        assert_eq!(committed, ErrorCode::None);
    }
    let request = |group: &str, topic: &str, indexes: &[i32]| {
        let partitions =
            indexes.iter().map(|index| OffsetDeleteRequestPartition::default().with_partition_index(*index));
        let topic =
            OffsetDeleteRequestTopic::default().with_name(topic_name(topic)).with_partitions(partitions.collect());
        OffsetDeleteRequest::default().with_group_id(GroupId(text(group))).with_topics(vec![topic])
    };
    let nobody = connection.call(0, &request("nobody", "read", &[0])).expect("answered");
    assert_eq!(error_of(nobody.error_code), ErrorCode::GroupIdNotFound);
    let nameless = connection.call(0, &request("", "read", &[0])).expect("answered");
    assert_eq!(error_of(nameless.error_code), ErrorCode::InvalidGroupId);
    let missing = connection.call(0, &request(GROUP, "missing", &[0])).expect("answered");
    assert_eq!(error_of(missing.topics[0].partitions[0].error_code), ErrorCode::UnknownTopicOrPartition);
    let deleted = connection.call(0, &request(GROUP, "read", &[0, 2, 7])).expect("answered");
    assert_eq!(error_of(deleted.error_code), ErrorCode::None);
    let codes: Vec<_> = deleted.topics[0].partitions.iter().map(|p| error_of(p.error_code)).collect();
    assert_eq!(codes, [ErrorCode::None, ErrorCode::None, ErrorCode::UnknownTopicOrPartition]);

    let left = |connection: &mut Connection| {
        [0, 1, 2].map(|index| fetch(connection, 9, GROUP, "read", index).map(|(offset, ..)| offset))
    };
    assert_eq!(left(&mut connection), [Ok(-1), Ok(4), Ok(-1)]);
    broker.kill9();
    broker.start_again();
    let mut connection = connect(&broker.bootstrap());
    let found = until("the coordinator is loaded", || {
        let left = left(&mut connection);
        (left[0] != Err(ErrorCode::CoordinatorLoadInProgress)).then_some(left)
    });
    assert_eq!(found, [Ok(-1), Ok(4), Ok(-1)]);
}
