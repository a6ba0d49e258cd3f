//! Administration: configs, partitions and records of topics in use, what disks hold, and what one node has none of.

mod common;

use std::process::Command;

use common::broker::{Broker, Options};
use common::clients::{Admin, block_on, options, read_all, send_all};
use common::requests::{self, append, batch, connect, error_of, list_offsets, topic_name};
use common::until;
use kafka_protocol::messages::alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic};
use kafka_protocol::messages::create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic};
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::DescribeConfigsResult;
use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use kafka_protocol::messages::elect_leaders_request::TopicPartitions;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{
    AlterConfigsRequest, AlterPartitionReassignmentsRequest, CreatePartitionsRequest, DeleteRecordsRequest,
    DeleteTopicsRequest, DescribeConfigsRequest, DescribeLogDirsRequest, ElectLeadersRequest,
    IncrementalAlterConfigsRequest, ListConfigResourcesRequest, ListOffsetsRequest, ListPartitionReassignmentsRequest,
    alter_configs_request,
};
use kafka_protocol::protocol::StrBytes;
use ottla::base::time::Timestamp;
use ottla::client::Connection;
use ottla::model::builder::BatchBuilder;
use ottla::model::compression::Codec;
use ottla::protocol::ErrorCode;
use rdkafka::admin::{AlterConfig, ConfigSource, NewPartitions, ResourceSpecifier};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::Value;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;
/// Nothing is wrong.
const DONE: ErrorCode = ErrorCode::None;

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// One resource of IncrementalAlterConfigs: a name, what is to be done, a value.
fn resource(resource_type: i8, name: &str, configs: &[(&str, i8, Option<&str>)]) -> AlterConfigsResource {
    let configs = configs.iter().map(|(name, op, value)| {
        AlterableConfig::default().with_name(text(name)).with_config_operation(*op).with_value(value.map(text))
    });
    AlterConfigsResource::default()
        .with_resource_type(resource_type)
        .with_resource_name(text(name))
        .with_configs(configs.collect())
}

/// The code of each resource, in the order in which they were asked for.
fn alter_all(connection: &mut Connection, resources: Vec<AlterConfigsResource>, validate_only: bool) -> Vec<ErrorCode> {
    let asked: Vec<_> = resources.iter().map(|r| (r.resource_type, r.resource_name.clone())).collect();
    let request = IncrementalAlterConfigsRequest::default().with_resources(resources).with_validate_only(validate_only);
    let response = connection.call(1, &request).expect("IncrementalAlterConfigs is answered");
    let told: Vec<_> = response.responses.iter().map(|r| (r.resource_type, r.resource_name.clone())).collect();
    assert_eq!(asked, told);
    let has_words = |code, message: &Option<StrBytes>| (code == 0) == message.is_none();
    assert!(response.responses.iter().all(|r| has_words(r.error_code, &r.error_message)), "{response:?}");
    response.responses.iter().map(|r| error_of(r.error_code)).collect()
}

/// Changes one setting of a topic.
fn set(connection: &mut Connection, topic: &str, name: &str, value: &str) {
    let codes = alter_all(connection, vec![resource(TOPIC, topic, &[(name, SET, Some(value))])], false);
    assert_eq!(codes, [DONE], "{name}={value}");
}

fn describe(connection: &mut Connection, resource_type: i8, name: &str) -> DescribeConfigsResult {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(resource_type)
        .with_resource_name(text(name))
        .with_configuration_keys(None);
    let request = DescribeConfigsRequest::default().with_resources(vec![resource]).with_include_synonyms(true);
    connection.call(4, &request).expect("DescribeConfigs is answered").results.remove(0)
}

/// A setting's value and its source's number.
fn described(connection: &mut Connection, topic: &str, name: &str) -> (String, i8) {
    let result = describe(connection, TOPIC, topic);
    let entry = result.configs.iter().find(|entry| &*entry.name == name).expect("it is described");
    (entry.value.as_deref().unwrap_or_default().to_owned(), entry.config_source)
}

/// A topic of one partition, connections to its leader and to another shard.
fn one_partition(broker: &Broker, name: &str, configs: &[(&str, &str)]) -> (requests::Topic, Connection, Connection) {
    Admin::new(&broker.bootstrap()).create(name, 1, configs);
    let topic = requests::topic(&mut connect(&broker.serving()[0].address), name);
    let leader = topic.partitions[0].0;
    let other = broker.serving().iter().find(|serving| serving.broker != leader).expect("there are two");
    let (leader, other) = (connect(broker.address_of(leader)), connect(&other.address));
    (topic, leader, other)
}

#[test]
fn librdkafka_changes_a_topics_configs_and_every_shard_acts_on_them_at_once() {
    // As soon as the change is answered, every leader refuses what was fine before; a restart changes nothing.
    let mut broker = Broker::start(Options::shards(3));
    let admin = Admin::new(&broker.bootstrap());
    admin.create("changed", 3, &[("retention.ms", "3600000")]);
    let change = AlterConfig::new(ResourceSpecifier::Topic("changed")).set("max.message.bytes", "1000");
    let changed = block_on(admin.inner().alter_configs([&change], &options())).expect("AlterConfigs is answered");
    assert_eq!(changed.len(), 1);
    assert!(changed[0].is_ok(), "{changed:?}");
    for round in 0..2 {
        let topic = requests::topic(&mut connect(&broker.serving()[0].address), "changed");
        for (partition, (leader, ..)) in (0..).zip(&topic.partitions) {
            let mut leader = connect(broker.address_of(*leader));
            assert!(append(&mut leader, &topic, partition, batch(&[&[0; 500]])).is_ok());
            let large = append(&mut leader, &topic, partition, batch(&[&[0; 1500]]));
            assert_eq!(large, Err(ErrorCode::MessageTooLarge), "round {round}");
        }
        if round == 0 {
            broker.restart();
        }
    }
    // AlterConfigs replaces all of a topic's settings: what was set at creation is gone.
    let admin = Admin::new(&broker.bootstrap());
    let specifier = ResourceSpecifier::Topic("changed");
    let results = block_on(admin.inner().describe_configs([&specifier], &options())).unwrap();
    let topic = results.into_iter().next().expect("one resource").expect("it is described");
    let entry = topic.get("max.message.bytes").expect("it is described");
    assert_eq!((entry.value.as_deref(), &entry.source), (Some("1000"), &ConfigSource::DynamicTopic));
    let entry = topic.get("retention.ms").expect("it is described");
    assert_eq!((entry.value.as_deref(), &entry.source), (Some("604800000"), &ConfigSource::Default));
}

#[test]
fn settings_are_set_taken_back_appended_and_subtracted_and_described_with_their_sources() {
    let broker = Broker::start(Options::shards(2).set("log.retention.ms", "7200000"));
    let (_, mut leader, mut other) = one_partition(&broker, "edited", &[("segment.bytes", "2097152")]);
    set(&mut other, "edited", "retention.ms", "5000");
    assert_eq!(described(&mut leader, "edited", "retention.ms"), ("5000".into(), 1));
    assert_eq!(described(&mut leader, "edited", "segment.bytes"), ("2097152".into(), 1), "the others stay");
    let result = describe(&mut leader, TOPIC, "edited");
    let retention = result.configs.iter().find(|entry| &*entry.name == "retention.ms").unwrap();
    let synonyms: Vec<_> = retention.synonyms.iter().map(|s| (&*s.name, s.value.as_deref(), s.source)).collect();
    assert_eq!(synonyms[0], ("retention.ms", Some("5000"), 1));
    assert_eq!(synonyms[1], ("log.retention.ms", Some("7200000"), 4));
    assert!(synonyms.contains(&("log.retention.hours", Some("168"), 5)), "{synonyms:?}");

    let edit = |op, value| vec![resource(TOPIC, "edited", &[("cleanup.policy", op, Some(value))])];
    assert_eq!(alter_all(&mut other, edit(APPEND, "compact"), false), [DONE]);
    assert_eq!(described(&mut leader, "edited", "cleanup.policy"), ("delete,compact".into(), 1));
    assert_eq!(alter_all(&mut other, edit(SUBTRACT, "delete"), false), [DONE]);
    assert_eq!(described(&mut leader, "edited", "cleanup.policy"), ("compact".into(), 1));

    let back = [("retention.ms", DELETE, None), ("cleanup.policy", DELETE, None)];
    assert_eq!(alter_all(&mut other, vec![resource(TOPIC, "edited", &back)], false), [DONE]);
    assert_eq!(described(&mut leader, "edited", "retention.ms"), ("7200000".into(), 4));
    assert_eq!(described(&mut leader, "edited", "cleanup.policy"), ("delete".into(), 5));
}

#[test]
fn what_is_only_to_be_judged_is_judged_and_stays() {
    let broker = Broker::start(Options::shards(2));
    let (_, mut leader, mut other) = one_partition(&broker, "judged", &[]);
    let good = resource(TOPIC, "judged", &[("retention.ms", SET, Some("5"))]);
    let bad = resource(TOPIC, "missing", &[("retention.ms", SET, Some("5"))]);
    let codes = alter_all(&mut other, vec![good, bad], true);
    assert_eq!(codes, [ErrorCode::None, ErrorCode::UnknownTopicOrPartition]);
    assert_eq!(described(&mut leader, "judged", "retention.ms"), ("604800000".into(), 5));
}

#[test]
fn what_cannot_be_changed_is_refused_with_kafkas_codes_and_the_rest_of_the_request_is_done() {
    use ErrorCode::{InvalidConfig, InvalidRequest, InvalidTopicException, UnknownTopicOrPartition};
    let broker = Broker::start(Options::shards(2));
    let (_, mut leader, mut other) = one_partition(&broker, "refused", &[]);
    let wrong = |name: &str, op, value: &str| resource(TOPIC, "refused", &[(name, op, Some(value))]);
    let cases = [
        (wrong("no.such.config", SET, "1"), InvalidConfig),
        (wrong("retention.ms", SET, "soon"), InvalidConfig),
        (wrong("segment.bytes", SET, "-1"), InvalidConfig),
        (wrong("cleanup.policy", SET, "shrink"), InvalidConfig),
        (wrong("remote.storage.enable", SET, "true"), InvalidConfig),
        (wrong("num.partitions", SET, "3"), InvalidConfig),
        (wrong("retention.ms", APPEND, "5"), InvalidConfig),
        (wrong("no.such.config", SUBTRACT, "5"), InvalidConfig),
        (wrong("cleanup.policy", SUBTRACT, "delete"), InvalidConfig),
        (wrong("retention.ms", 7, "5"), InvalidRequest),
        (resource(TOPIC, "refused", &[("retention.ms", SET, None)]), InvalidRequest),
        (resource(TOPIC, "refused", &[("flush.ms", SET, Some("5")), ("flush.ms", DELETE, None)]), InvalidRequest),
        (resource(TOPIC, "", &[("retention.ms", SET, Some("5"))]), InvalidRequest),
        (resource(TOPIC, "a/b", &[("retention.ms", SET, Some("5"))]), InvalidTopicException),
        (resource(TOPIC, "missing", &[("retention.ms", SET, Some("5"))]), UnknownTopicOrPartition),
        // As Kafka: the config is judged before the topic is looked for.
        (resource(TOPIC, "missing", &[("retention.ms", SET, Some("soon"))]), InvalidConfig),
        (resource(3, "refused", &[("retention.ms", SET, Some("5"))]), InvalidRequest),
        (resource(TOPIC, "refused", &[("no.such.config", DELETE, None)]), DONE),
        (resource(TOPIC, "refused", &[]), DONE),
    ];
    for (resource, code) in cases {
        let codes = alter_all(&mut other, vec![resource.clone()], false);
        assert_eq!(codes, [code], "{resource:?}");
    }
    // One wrong setting keeps the others of its topic from being changed, but no other topic.
    let both = resource(TOPIC, "refused", &[("retention.ms", SET, Some("5")), ("segment.ms", SET, Some("x"))]);
    Admin::new(&broker.bootstrap()).create("fine", 1, &[]);
    let fine = resource(TOPIC, "fine", &[("retention.ms", SET, Some("5"))]);
    assert_eq!(alter_all(&mut other, vec![both, fine.clone()], false), [InvalidConfig, DONE]);
    assert_eq!(described(&mut leader, "refused", "retention.ms").1, 5);
    assert_eq!(described(&mut leader, "fine", "retention.ms"), ("5".into(), 1));
    // A topic that is there twice is changed by neither.
    let again = resource(TOPIC, "fine", &[("retention.ms", SET, Some("6"))]);
    assert_eq!(alter_all(&mut other, vec![again, fine], false), [InvalidRequest, InvalidRequest]);
    assert_eq!(described(&mut leader, "fine", "retention.ms"), ("5".into(), 1));

    // The older API, which has no operations.
    let config = |value: Option<&str>| {
        alter_configs_request::AlterableConfig::default().with_name(text("retention.ms")).with_value(value.map(text))
    };
    for (name, configs, code) in [
        ("fine", vec![config(Some("7"))], DONE),
        ("fine", vec![config(None)], InvalidRequest),
        ("fine", vec![config(Some("7")), config(Some("8"))], InvalidRequest),
        ("missing", vec![config(Some("7"))], UnknownTopicOrPartition),
        ("", vec![], InvalidRequest),
    ] {
        let resource = alter_configs_request::AlterConfigsResource::default()
            .with_resource_type(TOPIC)
            .with_resource_name(text(name))
            .with_configs(configs);
        let request = AlterConfigsRequest::default().with_resources(vec![resource]);
        for version in 0..=2 {
            let response = other.call(version, &request).expect("AlterConfigs is answered");
            assert_eq!(error_of(response.responses[0].error_code), code, "{request:?}");
        }
    }
    assert_eq!(described(&mut leader, "fine", "retention.ms"), ("7".into(), 1));
}

#[test]
fn a_brokers_configs_are_those_of_its_start() {
    // What cannot take effect is refused, not accepted and forgotten; nothing is set for all brokers while they run.
    use ErrorCode::InvalidRequest;
    let broker = Broker::start(Options::shards(2));
    let mut connection = connect(&broker.serving()[1].address);
    let id = broker.serving()[1].broker.to_string();
    let cases = [
        (resource(BROKER, &id, &[("num.partitions", SET, Some("3"))]), InvalidRequest),
        (resource(BROKER, &id, &[("log.retention.ms", SET, Some("3"))]), InvalidRequest),
        (resource(BROKER, "", &[("log.retention.ms", SET, Some("3"))]), InvalidRequest),
        (resource(BROKER, "77", &[("log.retention.ms", SET, Some("3"))]), InvalidRequest),
        (resource(BROKER, "me", &[("log.retention.ms", SET, Some("3"))]), InvalidRequest),
        (resource(BROKER, &id, &[("no.such.config", SET, Some("3"))]), InvalidRequest),
        (resource(BROKER, &id, &[("log.retention.ms", DELETE, None)]), DONE),
    ];
    for (resource, code) in cases {
        assert_eq!(alter_all(&mut connection, vec![resource.clone()], false), [code], "{resource:?}");
    }
    let all = describe(&mut connection, BROKER, "");
    assert_eq!((error_of(all.error_code), all.configs.len()), (DONE, 0));
    let own = describe(&mut connection, BROKER, &id);
    assert!(own.configs.len() >= 300 && own.configs.iter().all(|entry| entry.read_only));
    assert_eq!(error_of(describe(&mut connection, BROKER, "77").error_code), InvalidRequest);
}

#[test]
fn retention_and_segment_sizes_follow_a_change() {
    // 8 MiB in one segment stay; in segments of 1 MiB, limited to 2 MiB, the start moves; limited in time, all goes.
    let broker = Broker::start(Options::shards(2).set("log.retention.check.interval.ms", "100"));
    let (topic, mut leader, mut other) = one_partition(&broker, "kept", &[("retention.ms", "-1")]);
    let fill = |leader: &mut Connection, count: i64| {
        for _ in 0..count {
            append(leader, &topic, 0, batch(&[&vec![7; 250_000]])).expect("appended");
        }
    };
    fill(&mut leader, 16);
    set(&mut other, "kept", "segment.bytes", "1048576");
    fill(&mut leader, 32);
    assert_eq!(list_offsets(&mut leader, 7, "kept", 0, -2).offset, 0);
    set(&mut other, "kept", "retention.bytes", "2097152");
    until("the log start moves", || (list_offsets(&mut leader, 7, "kept", 0, -2).offset >= 36).then_some(()));
    assert!(list_offsets(&mut leader, 7, "kept", 0, -2).offset < 48);
    set(&mut other, "kept", "retention.ms", "1");
    until("everything has expired", || (list_offsets(&mut leader, 7, "kept", 0, -2).offset == 48).then_some(()));
}

#[test]
fn segments_are_closed_by_age_from_when_it_is_set() {
    let broker = Broker::start(Options::shards(2));
    let (topic, mut leader, mut other) = one_partition(&broker, "aged", &[]);
    let segments = || {
        let names = std::fs::read_dir(broker.data_dir().join("topics/aged-0")).expect("the partition's directory");
        names.flatten().filter(|entry| entry.file_name().to_string_lossy().ends_with(".log")).count()
    };
    let at = |time: i64| {
        let mut builder = BatchBuilder::new(Codec::None);
        builder.push(Timestamp(time), None, Some(b"aged"), &[]);
        builder.build().into()
    };
    append(&mut leader, &topic, 0, at(1_700_000_000_000)).unwrap();
    append(&mut leader, &topic, 0, at(1_700_000_010_000)).unwrap();
    assert_eq!(segments(), 1);
    set(&mut other, "aged", "segment.ms", "5000");
    append(&mut leader, &topic, 0, at(1_700_000_010_000)).unwrap();
    until("the old segment is closed", || (segments() == 2).then_some(()));
}

#[test]
fn records_are_judged_and_stamped_by_the_topics_new_settings() {
    let broker = Broker::start(Options::shards(2));
    let (topic, mut leader, mut other) = one_partition(&broker, "stamped", &[]);
    let appended_at = |leader: &mut Connection| {
        let response = requests::produce(leader, requests::PRODUCE, &topic, 0, batch(&[b"when"]));
        let partition = requests::produced(&response);
        (error_of(partition.error_code), partition.log_append_time_ms)
    };
    assert_eq!(appended_at(&mut leader), (ErrorCode::None, -1));
    set(&mut other, "stamped", "message.timestamp.type", "LogAppendTime");
    let (code, time) = appended_at(&mut leader);
    assert!(code == ErrorCode::None && time > 1_700_000_000_000, "{code:?} {time}");
    set(&mut other, "stamped", "message.timestamp.type", "CreateTime");
    assert_eq!(appended_at(&mut leader), (ErrorCode::None, -1));
    // The batch's time is years ago.
    set(&mut other, "stamped", "message.timestamp.before.max.ms", "1000");
    assert_eq!(appended_at(&mut leader).0, ErrorCode::InvalidTimestamp);
    set(&mut other, "stamped", "message.timestamp.before.max.ms", "9223372036854775807");
    assert_eq!(appended_at(&mut leader).0, ErrorCode::None);
    // A record without a key cannot be compacted.
    set(&mut other, "stamped", "cleanup.policy", "compact");
    assert_eq!(appended_at(&mut leader).0, ErrorCode::InvalidRecord);
    set(&mut other, "stamped", "cleanup.policy", "delete");
    assert_eq!(appended_at(&mut leader).0, ErrorCode::None);
}

#[test]
fn acknowledgements_mean_what_the_topic_says_while_it_changes_its_mind() {
    // A producer writes while the topic goes through all modes; what it was told is there after kill -9.
    let mut broker = Broker::start(Options::shards(2));
    let (topic, mut leader, mut other) = one_partition(&broker, "modes", &[]);
    let mut expected = 0;
    for mode in ["memory", "sync", "write", "sync", "memory", "write", "sync"] {
        set(&mut other, "modes", "ottla.ack.after", mode);
        assert_eq!(described(&mut leader, "modes", "ottla.ack.after"), (mode.into(), 1));
        for _ in 0..20 {
            assert_eq!(append(&mut leader, &topic, 0, batch(&[mode.as_bytes()])), Ok(expected));
            expected += 1;
        }
    }
    set(&mut other, "modes", "ottla.ack.after", "memory");
    set(&mut other, "modes", "flush.messages", "1");
    // One message at a time is what `sync` means.
    assert_eq!(append(&mut leader, &topic, 0, batch(&[b"last"])), Ok(expected));
    broker.kill9();
    broker.start_again();
    send_all(&broker.bootstrap(), "modes", 0, &["after".into()]);
    let mut leader = connect(broker.address_of(topic.partitions[0].0));
    assert_eq!(list_offsets(&mut leader, 7, "modes", 0, -1).offset, expected + 2);
}

fn grow(connection: &mut Connection, topics: Vec<CreatePartitionsTopic>, validate_only: bool) -> Vec<ErrorCode> {
    let asked = topics.len();
    let request = CreatePartitionsRequest::default()
        .with_topics(topics)
        .with_timeout_ms(30_000)
        .with_validate_only(validate_only);
    for version in 0..3 {
        // Older versions say the same; they only judge, so that the last one finds what they found.
        let judged = request.clone().with_validate_only(true);
        assert_eq!(connection.call(version, &judged).expect("CreatePartitions is answered").results.len(), asked);
    }
    let response = connection.call(3, &request).expect("CreatePartitions is answered");
    response.results.iter().map(|result| error_of(result.error_code)).collect()
}

fn more(name: &str, count: i32, assignments: Option<&[&[i32]]>) -> CreatePartitionsTopic {
    let assigned = |ids: &&[i32]| {
        let ids = ids.iter().map(|id| (*id).into()).collect();
        CreatePartitionsAssignment::default().with_broker_ids(ids)
    };
    CreatePartitionsTopic::default()
        .with_name(topic_name(name))
        .with_count(count)
        .with_assignments(assignments.map(|all| all.iter().map(assigned).collect()))
}

#[test]
fn librdkafka_adds_partitions_that_every_shard_takes_records_for_at_once() {
    let mut broker = Broker::start(Options::shards(3));
    let admin = Admin::new(&broker.bootstrap());
    admin.create("grown", 2, &[]);
    let before = requests::topic(&mut connect(&broker.serving()[0].address), "grown");
    for (partition, (leader, ..)) in (0..).zip(&before.partitions) {
        assert_eq!(append(&mut connect(broker.address_of(*leader)), &before, partition, batch(&[b"old"])), Ok(0));
    }
    let new = NewPartitions::new("grown", 7);
    let results = block_on(admin.inner().create_partitions([&new], &options())).expect("CreatePartitions is answered");
    assert!(results[0].is_ok(), "{results:?}");
    for round in 0..2 {
        let topic = requests::topic(&mut connect(&broker.serving()[round].address), "grown");
        assert_eq!((topic.id, topic.partitions.len()), (before.id, 7));
        for (partition, (leader, ..)) in (0..).zip(&topic.partitions) {
            let expected = if partition < 2 { 1 + round as i64 } else { round as i64 };
            let mut leader = connect(broker.address_of(*leader));
            assert_eq!(append(&mut leader, &topic, partition, batch(&[b"new"])), Ok(expected), "{partition}");
        }
        if round == 0 {
            let leaders = |topic: &requests::Topic| topic.partitions.iter().map(|p| p.0).collect::<Vec<_>>();
            assert_eq!(leaders(&topic)[..2], leaders(&before), "the old ones stay where they are");
            broker.kill9();
            broker.start_again();
        }
    }
    assert_eq!(
        read_all(&broker.bootstrap(), "grown", 7).iter().map(Vec::len).collect::<Vec<_>>(),
        [3, 3, 2, 2, 2, 2, 2]
    );
}

#[test]
fn partitions_are_added_only_as_kafka_lets_them() {
    use ErrorCode::{InvalidPartitions, InvalidReplicaAssignment, InvalidRequest, UnknownTopicOrPartition};
    let broker = Broker::start(Options::shards(2));
    Admin::new(&broker.bootstrap()).create("grown", 3, &[]);
    let mut connection = connect(&broker.serving()[1].address);
    let count = |connection: &mut Connection| requests::topic(connection, "grown").partitions.len();
    let cases = [
        (more("grown", 3, None), InvalidPartitions),
        (more("grown", 2, None), InvalidPartitions),
        (more("grown", 0, None), InvalidPartitions),
        (more("grown", -1, None), InvalidPartitions),
        (more("grown", i32::MAX, None), InvalidPartitions),
        (more("missing", 5, None), UnknownTopicOrPartition),
        (more("grown", 5, Some(&[&[1]])), InvalidReplicaAssignment),
        (more("grown", 4, Some(&[&[9]])), InvalidReplicaAssignment),
        (more("grown", 4, Some(&[&[]])), InvalidReplicaAssignment),
        (more("grown", 4, Some(&[&[1, 2]])), InvalidReplicaAssignment),
    ];
    for (topic, code) in cases {
        assert_eq!(grow(&mut connection, vec![topic.clone()], false), [code], "{topic:?}");
    }
    let twice = vec![more("grown", 4, None), more("grown", 5, None)];
    let request = CreatePartitionsRequest::default().with_topics(twice).with_timeout_ms(30_000);
    let response = connection.call(3, &request).expect("CreatePartitions is answered");
    let codes: Vec<_> = response.results.iter().map(|result| error_of(result.error_code)).collect();
    assert_eq!(codes, [InvalidRequest], "told once, as in Kafka");
    assert_eq!(grow(&mut connection, vec![more("grown", 4, None)], true), [DONE]);
    assert_eq!(count(&mut connection), 3, "only judged");
    assert_eq!(grow(&mut connection, vec![more("grown", 5, Some(&[&[2], &[2]]))], false), [DONE]);
    let topic = requests::topic(&mut connection, "grown");
    assert_eq!((topic.partitions[3].0, topic.partitions[4].0), (2, 2));
}

/// The log starts or errors of DeleteRecords for one topic.
fn delete_records(connection: &mut Connection, topic: &str, before: &[(i32, i64)]) -> Vec<(i64, ErrorCode)> {
    let partitions = before.iter().map(|(partition, offset)| {
        DeleteRecordsPartition::default().with_partition_index(*partition).with_offset(*offset)
    });
    let topic = DeleteRecordsTopic::default().with_name(topic_name(topic)).with_partitions(partitions.collect());
    let request = DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(30_000);
    let response = connection.call(2, &request).expect("DeleteRecords is answered");
    response.topics[0].partitions.iter().map(|p| (p.low_watermark, error_of(p.error_code))).collect()
}

#[test]
fn records_that_librdkafka_deletes_are_gone_for_good() {
    let mut broker = Broker::start(Options::shards(2));
    let admin = Admin::new(&broker.bootstrap());
    admin.create("shortened", 2, &[]);
    for partition in 0..2 {
        let values: Vec<String> = (0..10).map(|number| format!("{number}")).collect();
        send_all(&broker.bootstrap(), "shortened", partition, &values);
    }
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset("shortened", 0, Offset::Offset(4)).unwrap();
    offsets.add_partition_offset("shortened", 1, Offset::End).unwrap();
    let deleted = block_on(admin.inner().delete_records(&offsets, &options())).expect("DeleteRecords is answered");
    for (partition, start) in [(0, 4), (1, 10)] {
        let told = deleted.find_partition("shortened", partition).expect("it was asked for");
        assert_eq!((told.error(), told.offset()), (Ok(()), Offset::Offset(start)));
    }
    for round in 0..2 {
        let read = read_all(&broker.bootstrap(), "shortened", 2);
        let values: Vec<Vec<&str>> = read.iter().map(|records| records.iter().map(|r| r.text()).collect()).collect();
        assert_eq!(values, [vec!["4", "5", "6", "7", "8", "9"], vec![]], "round {round}");
        if round == 0 {
            broker.kill9();
            broker.start_again();
        }
    }
    // Offsets go on where they were.
    send_all(&broker.bootstrap(), "shortened", 1, &["next".into()]);
    let read = read_all(&broker.bootstrap(), "shortened", 2);
    assert_eq!((read[1].len(), read[1][0].offset), (1, 10));
}

#[test]
fn records_are_deleted_only_as_kafka_lets_them() {
    use ErrorCode::{NotLeaderOrFollower, OffsetOutOfRange, PolicyViolation, UnknownTopicOrPartition};
    let broker = Broker::start(Options::shards(2));
    let (topic, mut leader, mut other) = one_partition(&broker, "shortened", &[]);
    assert_eq!(delete_records(&mut leader, "shortened", &[(0, -1)]), [(0, DONE)], "nothing is there");
    for _ in 0..5 {
        append(&mut leader, &topic, 0, batch(&[b"record"])).unwrap();
    }
    let wrong = [(0, 6), (0, -2), (0, i64::MIN), (0, i64::MAX), (1, 0), (-1, 0)];
    let unknown = (-1, UnknownTopicOrPartition);
    let out = (-1, OffsetOutOfRange);
    assert_eq!(delete_records(&mut leader, "shortened", &wrong), [out, out, out, out, unknown, unknown]);
    assert_eq!(delete_records(&mut leader, "missing", &[(0, 0)]), [unknown]);
    assert_eq!(delete_records(&mut other, "shortened", &[(0, 1)]), [(-1, NotLeaderOrFollower)]);
    assert_eq!(delete_records(&mut leader, "shortened", &[(0, 3), (0, 0)]), [(3, DONE), (0, DONE)]);
    // What is kept by its keys is not deleted by its offsets.
    set(&mut leader, "shortened", "cleanup.policy", "compact");
    assert_eq!(delete_records(&mut leader, "shortened", &[(0, -1)]), [(-1, PolicyViolation)]);
    set(&mut leader, "shortened", "cleanup.policy", "compact,delete");
    assert_eq!(delete_records(&mut leader, "shortened", &[(0, -1)]), [(5, DONE)]);
}

#[test]
fn disks_are_described_by_the_shards_that_lead_what_is_on_them() {
    let broker = Broker::start(Options::shards(2));
    let admin = Admin::new(&broker.bootstrap());
    admin.create("stored", 4, &[]);
    admin.create("empty", 2, &[]);
    let topic = requests::topic(&mut connect(&broker.serving()[0].address), "stored");
    for (partition, (leader, ..)) in (0..).zip(&topic.partitions) {
        let mut leader = connect(broker.address_of(*leader));
        append(&mut leader, &topic, partition, batch(&[&vec![7; 1000 * (partition as usize + 1)]])).unwrap();
    }
    let mut found = Vec::new();
    for serving in broker.serving() {
        let mut connection = connect(&serving.address);
        for version in 1..=4 {
            let request = DescribeLogDirsRequest::default().with_topics(None);
            let response = connection.call(version, &request).expect("DescribeLogDirs is answered");
            let [dir] = &response.results[..] else { panic!("one directory: {response:?}") };
            assert_eq!((response.error_code, dir.error_code), (0, 0));
            assert_eq!(&*dir.log_dir, broker.data_dir().to_str().unwrap());
            let has_room = dir.usable_bytes > 0 && dir.total_bytes >= dir.usable_bytes;
            assert_eq!(has_room, version >= 4, "{dir:?}");
            if version == 4 {
                for topic in &dir.topics {
                    let sizes = topic.partitions.iter().map(|p| (p.partition_index, p.partition_size));
                    found.extend(sizes.map(|(index, size)| (topic.name.to_string(), index, size)));
                    assert!(topic.partitions.iter().all(|p| p.offset_lag == 0 && !p.is_future_key));
                }
            }
        }
        // Only what is asked for, and only what this shard leads.
        let named = DescribableLogDirTopic::default().with_topic(topic_name("stored")).with_partitions(vec![0, 9]);
        let request = DescribeLogDirsRequest::default().with_topics(Some(vec![named]));
        let response = connection.call(4, &request).expect("DescribeLogDirs is answered");
        let leads = topic.partitions[0].0 == serving.broker;
        assert_eq!(response.results[0].topics.len(), usize::from(leads));
    }
    found.sort();
    let stored: Vec<_> = found.iter().filter(|(name, ..)| name == "stored").collect();
    assert_eq!(found.len(), 6, "each partition once: {found:?}");
    for (expected, (_, index, size)) in (0..).zip(stored) {
        let least = 1000 * (i64::from(expected) + 1);
        assert!(*index == expected && (least..least + 200).contains(size), "{found:?}");
    }
}

#[test]
fn one_node_has_nothing_to_elect_and_nothing_to_move_and_says_so() {
    use ErrorCode::{
        ElectionNotNeeded, InvalidReplicaAssignment, NoReassignmentInProgress, PolicyViolation, UnknownTopicOrPartition,
    };
    let broker = Broker::start(Options::shards(2));
    let (topic, _, mut connection) = one_partition(&broker, "still", &[]);
    for version in 0..=2 {
        let named = TopicPartitions::default().with_topic(topic_name("still")).with_partitions(vec![0, 1]);
        let request = ElectLeadersRequest::default().with_topic_partitions(Some(vec![named])).with_timeout_ms(1000);
        let response = connection.call(version, &request).expect("ElectLeaders is answered");
        let results = &response.replica_election_results[0].partition_result;
        let codes: Vec<_> = results.iter().map(|result| error_of(result.error_code)).collect();
        assert_eq!((response.error_code, &codes[..]), (0, &[ElectionNotNeeded, UnknownTopicOrPartition][..]));
        let all = ElectLeadersRequest::default().with_topic_partitions(None).with_timeout_ms(1000);
        let response = connection.call(version, &all).expect("ElectLeaders is answered");
        assert!(response.error_code == 0 && response.replica_election_results.is_empty());
    }
    let list = ListPartitionReassignmentsRequest::default().with_topics(None);
    let response = connection.call(0, &list).expect("ListPartitionReassignments is answered");
    assert!(response.error_code == 0 && response.topics.is_empty());

    let leader = topic.partitions[0].0;
    let elsewhere = 3 - leader;
    let cases: [(i32, Option<&[i32]>, ErrorCode); 7] = [
        (0, Some(&[leader]), DONE),
        (0, Some(&[elsewhere]), PolicyViolation),
        (0, Some(&[leader, elsewhere]), PolicyViolation),
        (0, Some(&[9]), InvalidReplicaAssignment),
        (0, Some(&[]), InvalidReplicaAssignment),
        (0, None, NoReassignmentInProgress),
        (1, None, UnknownTopicOrPartition),
    ];
    for (index, replicas, code) in cases {
        let partition = ReassignablePartition::default()
            .with_partition_index(index)
            .with_replicas(replicas.map(|ids| ids.iter().map(|id| (*id).into()).collect()));
        let named = ReassignableTopic::default().with_name(topic_name("still")).with_partitions(vec![partition]);
        let request = AlterPartitionReassignmentsRequest::default().with_topics(vec![named]).with_timeout_ms(1000);
        for version in 0..=1 {
            let response = connection.call(version, &request).expect("AlterPartitionReassignments is answered");
            let told = &response.responses[0].partitions[0];
            assert_eq!((response.error_code, error_of(told.error_code)), (0, code), "{replicas:?}");
            assert_eq!(told.error_message.is_none(), code == DONE);
        }
    }
    assert_eq!(requests::topic(&mut connection, "still"), topic);
}

#[test]
fn what_has_configs_is_listed() {
    let broker = Broker::start(Options::shards(2));
    let (_, _, mut connection) = one_partition(&broker, "listed", &[]);
    let mut list = |version, types: &[i8]| {
        let request = ListConfigResourcesRequest::default().with_resource_types(types.to_vec());
        let response = connection.call(version, &request).expect("ListConfigResources is answered");
        let resources = response.config_resources.iter();
        let mut found: Vec<_> = resources.map(|r| (r.resource_type, r.resource_name.to_string())).collect();
        found.sort();
        (error_of(response.error_code), found)
    };
    let topic = (TOPIC, "listed".to_string());
    let brokers = [(BROKER, "1".to_string()), (BROKER, "2".to_string())];
    assert_eq!(list(1, &[TOPIC]), (DONE, vec![topic.clone()]));
    assert_eq!(list(1, &[]), (DONE, [&[topic], &brokers[..]].concat()));
    // Version 0 asks for subscriptions to client metrics.
    assert_eq!(list(0, &[]), (DONE, vec![]));
    assert_eq!(list(1, &[TOPIC, 99]), (ErrorCode::UnsupportedVersion, vec![]));
}

#[test]
fn offsets_are_asked_for_once_and_by_what_the_version_knows() {
    let broker = Broker::start(Options::shards(2));
    let (topic, mut leader, _) = one_partition(&broker, "asked", &[]);
    append(&mut leader, &topic, 0, batch(&[b"record"])).unwrap();
    for (timestamp, since) in [(-1, 1), (-2, 1), (-3, 7), (-4, 8), (-5, 9), (-6, 11), (-7, 99), (i64::MIN, 99)] {
        for version in 1..=11 {
            // The codec ends at 10; 11 is laid out alike.
            let code = error_of(list_offsets(&mut leader, version, "asked", 0, timestamp).error_code);
            let expected = if version >= since { DONE } else { ErrorCode::UnsupportedVersion };
            assert_eq!(code, expected, "{timestamp} in version {version}");
        }
    }
    let partition = ListOffsetsPartition::default().with_timestamp(-1).with_current_leader_epoch(-1);
    let partitions = vec![partition.clone(), partition.clone().with_partition_index(1), partition];
    let named = ListOffsetsTopic::default().with_name(topic_name("asked")).with_partitions(partitions);
    let request = ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![named]);
    let response = leader.call(7, &request).expect("ListOffsets is answered");
    let codes: Vec<_> = response.topics[0].partitions.iter().map(|p| error_of(p.error_code)).collect();
    use ErrorCode::{InvalidRequest, UnknownTopicOrPartition};
    assert_eq!(codes, [InvalidRequest, UnknownTopicOrPartition, InvalidRequest]);
}

#[test]
fn a_deletion_names_a_topic_once_and_in_one_way() {
    use ErrorCode::{InvalidRequest, UnknownTopicOrPartition};
    let broker = Broker::start(Options::shards(2));
    let (topic, mut connection, _) = one_partition(&broker, "named", &[]);
    let by = |name: Option<&str>, id: uuid::Uuid| {
        DeleteTopicState::default().with_name(name.map(topic_name)).with_topic_id(id)
    };
    let nil = uuid::Uuid::nil();
    let mut delete = |topics: Vec<DeleteTopicState>| -> Vec<ErrorCode> {
        let request = DeleteTopicsRequest::default().with_topics(topics).with_timeout_ms(30_000);
        let response = connection.call(6, &request).expect("DeleteTopics is answered");
        response.responses.iter().map(|result| error_of(result.error_code)).collect()
    };
    assert_eq!(delete(vec![by(Some("named"), topic.id), by(None, nil)]), [InvalidRequest, InvalidRequest]);
    assert_eq!(delete(vec![by(Some("named"), nil), by(Some("named"), nil)]), [InvalidRequest]);
    assert_eq!(delete(vec![by(None, topic.id), by(None, topic.id)]), [InvalidRequest]);
    assert_eq!(delete(vec![by(Some("other"), nil), by(None, topic.id)]), [UnknownTopicOrPartition, DONE]);
}

/// Runs a client command of the real binary: whether it succeeded, and what it printed.
fn ottla(broker: &Broker, args: &[&str]) -> (bool, String) {
    let bootstrap = broker.serving()[0].address.clone();
    let output = Command::new(env!("CARGO_BIN_EXE_ottla")).args(args).args(["--bootstrap", &bootstrap]).output();
    let output = output.expect("ottla starts");
    let text = String::from_utf8(if output.status.success() { output.stdout } else { output.stderr });
    (output.status.success(), text.expect("text"))
}

fn json(broker: &Broker, args: &[&str]) -> Value {
    let (is_done, text) = ottla(broker, &[args, &["--json"]].concat());
    assert!(is_done, "{args:?}: {text}");
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn the_command_line_changes_topics_and_shows_what_each_shard_carries() {
    let broker = Broker::start(Options::shards(3).set("log.retention.ms", "7200000"));
    assert!(ottla(&broker, &["topic", "create", "flights", "--partitions", "3"]).0);
    let alter = ["topic", "alter", "flights", "--config", "retention.ms=5000", "--config", "segment.bytes=2097152"];
    let changed = json(&broker, &[&alter[..], &["--partitions", "6"]].concat());
    assert_eq!((&changed["altered"], &changed["partitions"]), (&true.into(), &6.into()));
    let configs = |broker: &Broker| -> Vec<(String, String, String)> {
        let described = json(broker, &["topic", "describe", "flights"]);
        assert_eq!(described[0]["partitions"].as_array().unwrap().len(), 6);
        let entry = |config: &Value, key: &str| config[key].as_str().unwrap_or_default().to_string();
        let configs = described[0]["configs"].as_array().unwrap();
        configs.iter().map(|c| (entry(c, "name"), entry(c, "value"), entry(c, "source"))).collect()
    };
    let of = |name: &str, value: &str, source: &str| (name.to_string(), value.to_string(), source.to_string());
    let segment = of("segment.bytes", "2097152", "topic");
    assert_eq!(configs(&broker), [of("retention.ms", "5000", "topic"), segment.clone()]);
    let (is_done, text) = ottla(&broker, &["topic", "alter", "flights", "--delete-config", "retention.ms"]);
    assert!(is_done && text.contains("retention.ms taken back"), "{text}");
    // What the broker sets differs from the default as well.
    assert_eq!(configs(&broker), [of("retention.ms", "7200000", "static broker"), segment]);

    // What is refused says why; what is only judged stays.
    let (is_done, text) = ottla(&broker, &["topic", "alter", "flights", "--partitions", "2"]);
    assert!(!is_done && text.contains("would not be an increase"), "{text}");
    let (is_done, text) = ottla(&broker, &["topic", "alter", "flights", "--config", "retention.m=5"]);
    assert!(!is_done && text.contains("did you mean retention.ms"), "{text}");
    assert!(!ottla(&broker, &["topic", "alter", "flights"]).0, "nothing to change");
    assert!(ottla(&broker, &["topic", "alter", "flights", "--partitions", "9", "--validate-only"]).0);

    for partition in 0..6 {
        send_all(&broker.bootstrap(), "flights", partition, &vec!["x".repeat(1000); 10]);
    }
    let cluster = json(&broker, &["cluster", "describe"]);
    let brokers = cluster["brokers"].as_array().unwrap();
    assert_eq!((brokers.len(), &cluster["partitions"], &cluster["topics"]), (3, &6.into(), &1.into()));
    assert_eq!(cluster["skew"]["partitions"], 1.0);
    for (told, serving) in brokers.iter().zip(broker.serving()) {
        assert_eq!((&told["id"], &told["address"]), (&serving.broker.into(), &serving.address.as_str().into()));
        assert_eq!(told["partitions"], 2);
        assert!(told["bytes"].as_u64().unwrap() > 20_000 && told["disk_usable_bytes"].as_u64().unwrap() > 0, "{told}");
    }
    let (is_done, text) = ottla(&broker, &["cluster", "describe"]);
    assert!(is_done && text.contains("skew") && text.contains(&broker.serving()[2].address), "{text}");

    let deleted = json(&broker, &["topic", "delete-records", "flights", "--before", "4", "--partition", "1"]);
    assert_eq!(deleted, serde_json::json!([{ "partition": 1, "log_start_offset": 4 }]));
    let (is_done, text) = ottla(&broker, &["topic", "delete-records", "flights", "--before", "11"]);
    assert!(!is_done && text.contains("6 partitions of topic flights kept their records"), "{text}");
    let deleted = json(&broker, &["topic", "delete-records", "flights", "--all"]);
    assert!(deleted.as_array().unwrap().iter().all(|told| told["log_start_offset"] == 10), "{deleted}");
    assert!(!ottla(&broker, &["topic", "delete-records", "flights"]).0, "it says how much");
}
