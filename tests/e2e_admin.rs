//! Administration: configs changed while topics are in use.

mod common;

use common::broker::{Broker, Options};
use common::clients::{Admin, block_on, options, send_all};
use common::requests::{self, append, batch, connect, error_of, list_offsets};
use common::until;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::DescribeConfigsResult;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::{
    AlterConfigsRequest, DescribeConfigsRequest, IncrementalAlterConfigsRequest, alter_configs_request,
};
use kafka_protocol::protocol::StrBytes;
use ottla::base::time::Timestamp;
use ottla::client::Connection;
use ottla::model::builder::BatchBuilder;
use ottla::model::compression::Codec;
use ottla::protocol::ErrorCode;
use rdkafka::admin::{AlterConfig, ConfigSource, ResourceSpecifier};

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
    assert!(describe(&mut connection, BROKER, &id).configs.len() >= 300);
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
