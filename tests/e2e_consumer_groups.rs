//! Groups of the consumer protocol (KIP-848) with a real librdkafka and members by hand: sharing partitions while
//! members come, leave and die, patterns, static members, a broker that is killed, groups that go from one protocol to
//! the other, and what is refused.

mod common;

use std::process::Command;

use common::broker::{Broker, Options};
use common::clients::{Admin, Collecting, send_all};
use common::groups::{text, to_coordinator};
use common::members::{
    self, PARTITION_COUNT, TOPIC, Values, assigned, commit, poll, read_all, send_to_all, until_shared, values,
};
use common::requests::{error_of, topic_name};
use common::until;
use kafka_protocol::messages::consumer_group_describe_response::DescribedGroup;
use kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use kafka_protocol::messages::{
    ApiVersionsRequest, ConsumerGroupDescribeRequest, ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse,
    DeleteGroupsRequest, DescribeConfigsRequest, DescribeGroupsRequest, GroupId, IncrementalAlterConfigsRequest,
    ListConfigResourcesRequest, ListGroupsRequest, OffsetCommitRequest, OffsetFetchRequest,
};
use ottla::client::Connection;
use ottla::protocol::ErrorCode;
use rdkafka::consumer::{BaseConsumer, Consumer};
use serde_json::Value;

/// A broker that hears of its members often and misses them soon.
fn broker() -> Broker {
    members::broker(&[
        ("group.initial.rebalance.delay.ms", "0"),
        ("group.min.session.timeout.ms", "1000"),
        ("group.consumer.heartbeat.interval.ms", "200"),
        ("group.consumer.min.heartbeat.interval.ms", "100"),
        ("group.consumer.session.timeout.ms", "10000"),
        ("group.consumer.min.session.timeout.ms", "1000"),
    ])
}

// ---- members by librdkafka

type Member = BaseConsumer<Collecting>;

fn member(broker: &Broker, group: &str, settings: &[(&str, &str)]) -> Member {
    members::member(broker, group, TOPIC, &[&[("group.protocol", "consumer")], settings].concat())
}

fn classic_member(broker: &Broker, group: &str) -> Member {
    let settings = [("group.protocol", "classic"), ("session.timeout.ms", "10000"), ("heartbeat.interval.ms", "200")];
    members::member(broker, group, TOPIC, &settings)
}

#[test]
fn three_members_share_a_topic_and_take_over_from_one_that_leaves() {
    // Every record is read by the group; what the member that leaves has committed is not read again.
    let broker = broker();
    send_to_all(&broker, &values(0));
    let members = [(); 3].map(|()| member(&broker, "leaving", &[]));
    let [first, second, third] = &members;
    read_all("every record is read", &[first, second, third], 10);
    let shares = until_shared(&[first, second, third]);
    assert!(shares.iter().all(|share| share.len() == 2), "{shares:?}");
    commit(&[first, second, third]);
    third.unsubscribe();
    let again = until_shared(&[first, second]);
    // Nothing moves but what was left behind.
    for (before, after) in shares.iter().zip(&again) {
        assert!(before.is_subset(after), "{before:?} became {after:?}");
    }
    send_to_all(&broker, &values(1));
    let read = read_all("every new record is read", &[first, second], 10);
    for (partition, read) in &read {
        assert_eq!(*read, values(1), "{partition:?}");
    }
}

#[test]
fn a_group_goes_on_when_the_broker_is_killed_and_starts_again() {
    // Two members work through it: the same members, epochs and partitions; new records come, commits are kept.
    let mut broker = broker();
    let (first, second) = (member(&broker, "lasting", &[]), member(&broker, "lasting", &[]));
    let shares = until_shared(&[&first, &second]);
    let before = stable(&broker, "lasting");
    broker.kill9();
    broker.start_again();
    send_to_all(&broker, &["after".to_owned()]);
    read_all("the group reads on", &[&first, &second], 1);
    commit(&[&first, &second]);
    assert_eq!([assigned(&first), assigned(&second)], shares[..]);
    let after = stable(&broker, "lasting");
    assert_eq!((after.group_epoch, after.assignment_epoch), (before.group_epoch, before.assignment_epoch));
    let ids = |group: &DescribedGroup| group.members.iter().map(|m| m.member_id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&after), ids(&before));
}

#[test]
fn a_pattern_finds_topics_that_come_later() {
    let broker = broker();
    let admin = Admin::new(&broker.bootstrap());
    admin.create("logs-a", 1, &[]);
    send_all(&broker.bootstrap(), "logs-a", 0, &["a".to_owned()]);
    let member: Member = members::member(&broker, "pattern", "^logs-.*", &[("group.protocol", "consumer")]);
    let mut read = Values::new();
    until("the first topic is read", || {
        poll(&member, &mut read);
        read.contains_key(&("logs-a".to_owned(), 0)).then_some(())
    });
    admin.create("logs-b", 1, &[]);
    send_all(&broker.bootstrap(), "logs-b", 0, &["b".to_owned()]);
    until("the second topic is read", || {
        poll(&member, &mut read);
        read.contains_key(&("logs-b".to_owned(), 0)).then_some(())
    });
    assert_eq!(read.len(), 2);
    // The client puts brackets around it.
    let group = stable(&broker, "pattern");
    let pattern = group.members[0].subscribed_topic_regex.as_deref().expect("a pattern");
    assert!(pattern.contains("^logs-.*"), "{pattern}");
}

#[test]
fn a_static_member_comes_back_to_its_partitions() {
    // It closes, which for a static member is to be away for a while, and comes back as another process.
    let broker = broker();
    let named = |name: &str| member(&broker, "static", &[("group.instance.id", name)]);
    let (one, two) = (named("one"), named("two"));
    let shares = until_shared(&[&one, &two]);
    let epoch = stable(&broker, "static").group_epoch;
    drop(two);
    let two = named("two");
    assert_eq!(until_shared(&[&one, &two]), shares);
    assert_eq!(stable(&broker, "static").group_epoch, epoch);
}

#[test]
fn a_group_goes_from_classic_to_consumer_and_back_while_it_reads() {
    // A classic member, a new one, both; the classic one leaves, another one comes, the new one leaves.
    let broker = broker();
    let classic = classic_member(&broker, "moving");
    until_shared(&[&classic]);
    assert_eq!(group_type(&broker, "moving"), "classic");
    let new = member(&broker, "moving", &[]);
    until_shared(&[&classic, &new]);
    assert_eq!(group_type(&broker, "moving"), "consumer");
    let mut types: Vec<i8> = stable(&broker, "moving").members.iter().map(|member| member.member_type).collect();
    types.sort_unstable();
    assert_eq!(types, [0, 1]);
    send_to_all(&broker, &values(0));
    read_all("every record is read", &[&classic, &new], 10);
    commit(&[&classic, &new]);
    drop(classic);
    until_shared(&[&new]);
    let classic = classic_member(&broker, "moving");
    until_shared(&[&classic, &new]);
    drop(new);
    until_shared(&[&classic]);
    assert_eq!(group_type(&broker, "moving"), "classic");
    // Nothing that was committed is read again.
    send_to_all(&broker, &values(1));
    let read = read_all("every new record is read", &[&classic], 10);
    for (partition, read) in &read {
        assert_eq!(*read, values(1), "{partition:?}");
    }
}

// ---- members by hand

fn heartbeat_request(group: &str, member_id: &str, epoch: i32) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_member_id(text(member_id))
        .with_member_epoch(epoch)
}

fn join_request(group: &str, member_id: &str) -> ConsumerGroupHeartbeatRequest {
    heartbeat_request(group, member_id, 0)
        .with_rebalance_timeout_ms(5_000)
        .with_subscribed_topic_names(Some(vec![topic_name(TOPIC)]))
        .with_topic_partitions(Some(Vec::new()))
}

fn join(connection: &mut Connection, group: &str, member_id: &str) -> ConsumerGroupHeartbeatResponse {
    let joined = connection.call(1, &join_request(group, member_id)).expect("answered");
    assert_eq!(error_of(joined.error_code), ErrorCode::None, "{:?}", joined.error_message);
    joined
}

fn described(connection: &mut Connection, group: &str) -> DescribedGroup {
    let request = ConsumerGroupDescribeRequest::default()
        .with_group_ids(vec![GroupId(text(group))])
        .with_include_authorized_operations(true);
    connection.call(1, &request).expect("answered").groups.remove(0)
}

/// The group when every member has what it is to have.
fn stable(broker: &Broker, group: &str) -> DescribedGroup {
    let mut connection = to_coordinator(broker, group);
    until("the group is stable", || {
        let group = described(&mut connection, group);
        (&*group.group_state == "Stable").then_some(group)
    })
}

/// The type of a group as it is listed.
fn group_type(broker: &Broker, group: &str) -> String {
    let mut connection = to_coordinator(broker, group);
    let listed = connection.call(5, &ListGroupsRequest::default()).expect("answered").groups;
    let found = listed.iter().find(|listed| *listed.group_id.0 == *group).expect("it is listed");
    found.group_type.to_string()
}

#[test]
fn the_partitions_of_a_member_that_dies_go_to_the_others() {
    // A member by hand takes its share and is never heard of again: gone with its session.
    let broker = broker();
    let first = member(&broker, "dying", &[]);
    until_shared(&[&first]);
    let mut connection = to_coordinator(&broker, "dying");
    let mut epoch = join(&mut connection, "dying", "by-hand").member_epoch;
    let share = until("it is given its share", || {
        poll(&first, &mut Values::new());
        let answer = connection.call(1, &heartbeat_request("dying", "by-hand", epoch)).expect("answered");
        assert_eq!(error_of(answer.error_code), ErrorCode::None);
        epoch = answer.member_epoch;
        let topics = answer.assignment.map_or(Vec::new(), |assignment| assignment.topic_partitions);
        topics.into_iter().next().map(|topic| topic.partitions)
    });
    assert!(!share.is_empty());
    until("the first one has given them up", || {
        poll(&first, &mut Values::new());
        assigned(&first).is_disjoint(&share.iter().copied().collect()).then_some(())
    });
    drop(connection);
    until_shared(&[&first]);
    assert_eq!(stable(&broker, "dying").members.len(), 1);
}

#[test]
fn every_version_and_every_refusal_by_hand() {
    let broker = broker();
    let mut connection = to_coordinator(&broker, "hand");
    // Version 0: the id comes from the broker.
    let joined = connection.call(0, &join_request("hand", "")).expect("answered");
    assert_eq!((error_of(joined.error_code), joined.member_epoch), (ErrorCode::None, 1));
    let member_id = joined.member_id.expect("an id").to_string();
    assert_eq!(joined.heartbeat_interval_ms, 200);
    let assignment = joined.assignment.expect("everything").topic_partitions;
    assert_eq!(assignment[0].partitions, (0..PARTITION_COUNT).collect::<Vec<_>>());
    let topic_id = assignment[0].topic_id;

    let mut error = |version, request: ConsumerGroupHeartbeatRequest| {
        let answer = connection.call(version, &request).expect("answered");
        assert!(answer.error_code == 0 || answer.error_message.is_some());
        error_of(answer.error_code)
    };
    assert_eq!(error(1, join_request("hand", "")), ErrorCode::InvalidRequest);
    assert_eq!(error(1, heartbeat_request("hand", &member_id, 2)), ErrorCode::FencedMemberEpoch);
    assert_eq!(error(1, heartbeat_request("hand", "nobody", 1)), ErrorCode::UnknownMemberId);
    let assignor = join_request("hand", "b").with_server_assignor(Some(text("sticky")));
    assert_eq!(error(1, assignor), ErrorCode::UnsupportedAssignor);
    let regex = join_request("hand", "b").with_subscribed_topic_regex(Some(text("(")));
    assert_eq!(error(1, regex), ErrorCode::InvalidRegularExpression);
    let fixed = |member_id| join_request("hand", member_id).with_instance_id(Some(text("i")));
    assert_eq!(error(1, fixed("b")), ErrorCode::None);
    assert_eq!(error(1, fixed("c")), ErrorCode::UnreleasedInstanceId);
    assert_eq!(error(1, heartbeat_request("hand", "b", -1)), ErrorCode::None);

    // What others see of it.
    let group = described(&mut connection, "hand");
    assert_eq!((&*group.assignor_name, group.authorized_operations), ("uniform", 0x0d48));
    assert_eq!((group.members.len(), group.members[0].member_type), (1, 1));
    assert_eq!(&*group.members[0].target_assignment.topic_partitions[0].topic_name.0, TOPIC);
    let request = ConsumerGroupDescribeRequest::default().with_group_ids(vec![GroupId(text("hand"))]);
    assert_eq!(connection.call(0, &request).expect("answered").groups[0].members.len(), 1);
    let request = DescribeGroupsRequest::default().with_groups(vec![GroupId(text("hand"))]);
    let classic = connection.call(6, &request).expect("answered").groups.remove(0);
    assert_eq!((error_of(classic.error_code), &*classic.group_state), (ErrorCode::GroupIdNotFound, "Dead"));
    let request = ListGroupsRequest::default().with_types_filter(vec![text("Consumer")]);
    let listed = connection.call(5, &request).expect("answered").groups;
    assert_eq!((listed.len(), &*listed[0].group_type, &*listed[0].protocol_type), (1, "consumer", "consumer"));
    let request = ListGroupsRequest::default().with_types_filter(vec![text("classic")]);
    assert!(connection.call(5, &request).expect("answered").groups.is_empty());

    // Offsets are the current epoch's.
    let epoch = group.members[0].member_epoch;
    let commit = |epoch: i32| {
        let partition = OffsetCommitRequestPartition::default().with_partition_index(0).with_committed_offset(0);
        let topic = OffsetCommitRequestTopic::default().with_name(topic_name(TOPIC)).with_partitions(vec![partition]);
        OffsetCommitRequest::default()
            .with_group_id(GroupId(text("hand")))
            .with_member_id(text(&member_id))
            .with_generation_id_or_member_epoch(epoch)
            .with_topics(vec![topic])
    };
    let mut committed = |version, epoch| {
        let answer = connection.call(version, &commit(epoch)).expect("answered");
        error_of(answer.topics[0].partitions[0].error_code)
    };
    assert_eq!(committed(9, epoch - 1), ErrorCode::StaleMemberEpoch);
    assert_eq!(committed(8, epoch), ErrorCode::UnsupportedVersion);
    assert_eq!(committed(9, epoch), ErrorCode::None);
    let mut fetched = |epoch: i32| {
        let asked = OffsetFetchRequestGroup::default()
            .with_group_id(GroupId(text("hand")))
            .with_member_id(Some(text(&member_id)))
            .with_member_epoch(epoch)
            .with_topics(None);
        let request = OffsetFetchRequest::default().with_groups(vec![asked]);
        error_of(connection.call(9, &request).expect("answered").groups[0].error_code)
    };
    assert_eq!((fetched(epoch), fetched(epoch + 1)), (ErrorCode::None, ErrorCode::StaleMemberEpoch));

    // It goes when its last member has left.
    let delete = DeleteGroupsRequest::default().with_groups_names(vec![GroupId(text("hand"))]);
    let mut deleted = || error_of(connection.call(2, &delete).expect("answered").results[0].error_code);
    assert_eq!(deleted(), ErrorCode::NonEmptyGroup);
    let mut leaving = to_coordinator(&broker, "hand");
    let owned = TopicPartitions::default().with_topic_id(topic_id).with_partitions(vec![0]);
    let leave = heartbeat_request("hand", &member_id, -1).with_topic_partitions(Some(vec![owned]));
    assert_eq!(leaving.call(1, &leave).expect("answered").member_epoch, -1);
    assert_eq!(deleted(), ErrorCode::None);
    assert_eq!(error_of(described(&mut leaving, "hand").error_code), ErrorCode::GroupIdNotFound);
}

/// What becomes of a config of the group "own"; the error.
fn alter(connection: &mut Connection, name: &str, value: Option<&str>) -> ErrorCode {
    let config = AlterableConfig::default()
        .with_name(text(name))
        .with_config_operation(if value.is_some() { 0 } else { 1 })
        .with_value(value.map(text));
    let resource = AlterConfigsResource::default()
        .with_resource_type(GROUP_RESOURCE)
        .with_resource_name(text("own"))
        .with_configs(vec![config]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    error_of(connection.call(1, &request).expect("answered").responses[0].error_code)
}

/// Value and source of the heartbeat interval of a group.
fn interval_of(connection: &mut Connection, group: &str) -> (String, i8) {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(GROUP_RESOURCE)
        .with_resource_name(text(group))
        .with_configuration_keys(None);
    let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
    let described = connection.call(4, &request).expect("answered").results.remove(0);
    assert_eq!((error_of(described.error_code), described.configs.len()), (ErrorCode::None, 2));
    let config = described.configs.iter().find(|config| &*config.name == INTERVAL).expect("it is told");
    (config.value.as_deref().expect("a value").to_owned(), config.config_source)
}

const GROUP_RESOURCE: i8 = 32;
const INTERVAL: &str = "consumer.heartbeat.interval.ms";

#[test]
fn a_group_has_configs_of_its_own_that_survive_a_kill() {
    // The group need not be there; what is told to its members is what is set, and what was answered is durable.
    let mut broker = broker();
    let mut connection = to_coordinator(&broker, "own");
    assert_eq!(alter(&mut connection, INTERVAL, Some("300")), ErrorCode::None);
    for (name, value) in [(INTERVAL, "99"), (INTERVAL, "10000"), ("retention.ms", "5000")] {
        assert_eq!(alter(&mut connection, name, Some(value)), ErrorCode::InvalidConfig, "{name}={value}");
    }
    assert_eq!(interval_of(&mut connection, "own"), ("300".to_owned(), 8));
    assert_eq!(interval_of(&mut connection, "other"), ("200".to_owned(), 4));
    assert_eq!(join(&mut connection, "own", "m").heartbeat_interval_ms, 300);
    broker.kill9();
    broker.start_again();
    let mut connection = to_coordinator(&broker, "own");
    let answer = until("the coordinator is there", || {
        let answer = connection.call(1, &heartbeat_request("own", "m", 1)).expect("answered");
        (error_of(answer.error_code) != ErrorCode::CoordinatorLoadInProgress).then_some(answer)
    });
    assert_eq!((error_of(answer.error_code), answer.heartbeat_interval_ms), (ErrorCode::None, 300));
    let request = ListConfigResourcesRequest::default().with_resource_types(vec![GROUP_RESOURCE]);
    let listed = connection.call(1, &request).expect("answered").config_resources;
    assert_eq!((listed.len(), &*listed[0].resource_name), (1, "own"));
    assert_eq!(alter(&mut connection, INTERVAL, None), ErrorCode::None);
    let answer = connection.call(1, &heartbeat_request("own", "m", 1)).expect("answered");
    assert_eq!(answer.heartbeat_interval_ms, 200);
}

#[test]
fn a_broker_that_offers_the_classic_protocol_only_says_so() {
    // As Kafka's: the API is listed, and answers that it is not supported, on which clients fall back.
    let broker = Broker::start(Options::shards(1).set("group.coordinator.rebalance.protocols", "classic"));
    let mut connection = to_coordinator(&broker, "none");
    let answer = connection.call(1, &join_request("none", "m")).expect("answered");
    assert_eq!(error_of(answer.error_code), ErrorCode::UnsupportedVersion);
    assert_eq!(error_of(described(&mut connection, "none").error_code), ErrorCode::UnsupportedVersion);
}

#[test]
fn group_version_is_published() {
    let broker = broker();
    let mut connection = to_coordinator(&broker, "any");
    let request =
        ApiVersionsRequest::default().with_client_software_name(text("test")).with_client_software_version(text("1"));
    for version in [3, 4] {
        let answer = connection.call(version, &request).expect("answered");
        let found = answer.finalized_features.iter().find(|feature| &*feature.name == "group.version");
        assert_eq!(found.map(|feature| feature.max_version_level), Some(1));
        let keys: Vec<i16> = answer.api_keys.iter().map(|api| api.api_key).collect();
        assert!(keys.contains(&68) && keys.contains(&69));
    }
}

#[test]
fn the_command_line_shows_epochs_and_targets() {
    let broker = broker();
    let mut connection = to_coordinator(&broker, "shown");
    join(&mut connection, "shown", "m1");
    join(&mut connection, "shown", "m2");
    let run = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ottla"));
        command.arg("group").args(args).args(["--bootstrap", &broker.bootstrap(), "--timeout", "20"]);
        let output = command.output().expect("ottla starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    let listed: Value = serde_json::from_str(&run(&["list", "--type", "consumer", "--json"])).expect("JSON");
    assert_eq!((&listed[0]["group"], &listed[0]["type"]), (&"shown".into(), &"consumer".into()));
    let none: Value = serde_json::from_str(&run(&["list", "--type", "classic", "--json"])).expect("JSON");
    assert_eq!(none.as_array().map(Vec::len), Some(0));
    let groups: Value = serde_json::from_str(&run(&["describe", "shown", "--json"])).expect("JSON");
    assert_eq!((&groups[0]["state"], &groups[0]["epoch"]), (&"Reconciling".into(), &2.into()));
    assert_eq!((&groups[0]["protocol"], &groups[0]["assignment_epoch"]), (&"uniform".into(), &2.into()));
    let members = groups[0]["members"].as_array().expect("members");
    let of = |index: usize, field: &str| members[index][field].as_array().map(Vec::len);
    assert_eq!((&members[0]["epoch"], of(0, "partitions"), of(0, "target")), (&1.into(), Some(6), Some(3)));
    assert_eq!((&members[1]["epoch"], of(1, "partitions"), of(1, "target")), (&2.into(), Some(0), Some(3)));
    let shown = run(&["describe", "shown"]);
    assert!(shown.contains("Reconciling, consumer, uniform, epoch 2, assignment epoch 2, 2 members"), "{shown}");
    assert!(shown.contains("work:3,4,5") || shown.contains("work:0,1,2"), "{shown}");
}
