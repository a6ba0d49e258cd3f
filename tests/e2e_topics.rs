//! Topics: creating, judging, describing, deleting, creating again.

mod common;

use common::broker::{Broker, Options};
use common::clients::{Admin, Producer, Record, block_on, consumer, options, read_all, send_all};
use common::requests::{self, AT_ONCE, FETCH, append, batch, connect, error_of, fetch, fetched, produced};
use kafka_protocol::messages::MetadataRequest;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use ottla::client::{Client, ClientOptions, NewTopic};
use ottla::protocol::ErrorCode;
use rdkafka::Offset;
use rdkafka::admin::{ConfigSource, ResourceSpecifier};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

#[test]
fn a_topic_can_be_produced_to_at_every_shard_as_soon_as_it_is_created() {
    // Create, then write to all partitions at once, many times.
    let broker = Broker::start(Options::shards(3));
    let admin = Admin::new(&broker.bootstrap());
    for round in 0..10 {
        let name = format!("at-once-{round}");
        admin.create(&name, 6, &[]);
        let topic = requests::topic(&mut connect(&broker.serving()[round % 3].address), &name);
        for (partition, (leader, ..)) in (0..).zip(&topic.partitions) {
            let mut connection = connect(broker.address_of(*leader));
            assert_eq!(append(&mut connection, &topic, partition, batch(&[b"at once"])), Ok(0));
        }
    }
}

#[test]
fn a_topic_that_is_deleted_and_created_again_is_another_topic() {
    // The new one has a new id and no records; who holds the old id is told that it is unknown.
    let mut broker = Broker::start(Options::shards(2));
    let bootstrap = broker.bootstrap();
    let admin = Admin::new(&bootstrap);
    let mut old_ids = Vec::new();
    for round in 0..4 {
        admin.create("again", 3, &[]);
        let topic = requests::topic(&mut connect(&broker.serving()[0].address), "again");
        assert!(!old_ids.contains(&topic.id));
        assert!(read_all(&bootstrap, "again", 3).iter().all(Vec::is_empty), "round {round}");
        for partition in 0..3 {
            send_all(&bootstrap, "again", partition, &[format!("round {round}")]);
        }
        if round == 2 {
            broker.restart();
        }
        admin.delete("again").unwrap();
        for serving in broker.serving() {
            let mut connection = connect(&serving.address);
            let response = requests::metadata(&mut connection, Some("again"));
            assert_eq!(error_of(response.topics[0].error_code), ErrorCode::UnknownTopicOrPartition);
            let appended = append(&mut connection, &topic, 0, batch(&[b"late"]));
            assert_eq!(appended, Err(ErrorCode::UnknownTopicId));
            let response = fetch(&mut connection, FETCH, &topic, &[(0, 0)], AT_ONCE);
            assert_eq!(error_of(fetched(&response).error_code), ErrorCode::UnknownTopicId);
        }
        old_ids.push(topic.id);
    }
    // Also while a topic of that name is there.
    admin.create("again", 3, &[]);
    let topic = requests::topic(&mut connect(&broker.serving()[0].address), "again");
    let (leader, ..) = topic.partitions[0];
    let mut connection = connect(broker.address_of(leader));
    let old = requests::Topic { id: old_ids[0], ..topic.clone() };
    assert_eq!(append(&mut connection, &old, 0, batch(&[b"late"])), Err(ErrorCode::UnknownTopicId));
    assert_eq!(append(&mut connection, &topic, 0, batch(&[b"new"])), Ok(0));
    assert_eq!(admin.delete("never-there"), Err(RDKafkaErrorCode::UnknownTopicOrPartition));
}

#[test]
fn the_files_of_a_deleted_topic_go_and_its_name_can_be_used_by_one_with_more_partitions() {
    let broker = Broker::start(Options::shards(2));
    let bootstrap = broker.bootstrap();
    let admin = Admin::new(&bootstrap);
    admin.create("reused", 2, &[]);
    send_all(&bootstrap, "reused", 1, &vec!["x".repeat(10_000); 100]);
    admin.delete("reused").unwrap();
    admin.create("reused", 5, &[]);
    send_all(&bootstrap, "reused", 1, &["new".into()]);
    send_all(&bootstrap, "reused", 4, &["new".into()]);
    let counts: Vec<usize> = read_all(&bootstrap, "reused", 5).iter().map(Vec::len).collect();
    assert_eq!(counts, [0, 1, 0, 0, 1]);
    common::until("deleted directories are removed", || {
        let names = std::fs::read_dir(broker.data_dir().join("topics")).unwrap();
        let mut names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.all(|name| !name.ends_with(".deleted")).then_some(())
    });
}

#[test]
fn a_consumer_without_a_topic_is_told_so() {
    let broker = Broker::start(Options::shards(1).set("auto.create.topics.enable", "false"));
    let settings = [("topic.metadata.propagation.max.ms", "0"), ("allow.auto.create.topics", "true")];
    let consumer = consumer(&broker.bootstrap(), "nowhere", &[(0, Offset::Beginning)], &settings);
    let error = common::until("an error comes", || match consumer.poll(std::time::Duration::from_millis(50)) {
        Some(Err(KafkaError::MessageConsumption(code))) => Some(code),
        _ => None,
    });
    assert!(matches!(
        error,
        RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::UnknownPartition
    ));
}

#[test]
fn unknown_topics_are_created_when_asked_for_if_the_broker_allows_it() {
    // librdkafka produces to a topic that nobody created; num.partitions says how many partitions it gets.
    let broker = Broker::start(Options::shards(2).set("num.partitions", "4"));
    let mut producer = Producer::new(&broker.bootstrap(), &[]);
    for partition in 0..4 {
        producer.send("automatic", partition, &Record::of("made on the way"));
    }
    producer.deliver();
    let mut connection = connect(&broker.serving()[1].address);
    let topic = requests::topic(&mut connection, "automatic");
    assert_eq!(topic.partitions.len(), 4);
    // Who does not want topics to be created gets none.
    let response = requests::metadata(&mut connection, Some("not-wanted"));
    assert_eq!(error_of(response.topics[0].error_code), ErrorCode::UnknownTopicOrPartition);
    // What cannot be a topic is not created.
    for bad in ["with space", "..", "a/b", &"x".repeat(250)] {
        let asked = MetadataRequestTopic::default().with_name(Some(requests::topic_name(bad)));
        let request = MetadataRequest::default().with_topics(Some(vec![asked])).with_allow_auto_topic_creation(true);
        let response = connection.call(12, &request).unwrap();
        assert_eq!(error_of(response.topics[0].error_code), ErrorCode::InvalidTopicException, "{bad:?}");
    }
}

#[test]
fn unknown_topics_stay_unknown_if_the_broker_does_not_allow_their_creation() {
    let broker = Broker::start(Options::shards(2).set("auto.create.topics.enable", "false"));
    let settings = [("topic.metadata.propagation.max.ms", "0"), ("message.timeout.ms", "5000")];
    let mut producer = Producer::new(&broker.bootstrap(), &settings);
    let number = producer.send("automatic", 0, &Record::of("lost"));
    let report = producer.flush()[&number];
    assert!(
        matches!(report, Err(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic)),
        "{report:?}"
    );
    assert!(requests::metadata(&mut connect(&broker.serving()[0].address), None).topics.is_empty());
    let missing = requests::Topic { name: "automatic".into(), id: uuid::Uuid::nil(), partitions: vec![] };
    let mut connection = connect(&broker.serving()[0].address);
    let response = requests::produce(&mut connection, 9, &missing, 0, batch(&[b"lost"]));
    assert_eq!(error_of(produced(&response).error_code), ErrorCode::UnknownTopicOrPartition);
}

#[test]
fn validate_only_judges_and_creates_nothing() {
    let broker = Broker::start(Options::shards(2));
    let admin = Admin::new(&broker.bootstrap());
    let judge = |topic: &str, partition_count, configs: &[(&str, &str)]| {
        admin.try_create(topic, partition_count, 1, configs, true)
    };
    assert_eq!(judge("judged", 3, &[("retention.ms", "1000")]), Ok(()));
    assert_eq!(judge("judged", 0, &[]), Err(RDKafkaErrorCode::InvalidPartitions));
    assert_eq!(judge("judged", 1, &[("retention.ms", "soon")]), Err(RDKafkaErrorCode::InvalidConfig));
    assert_eq!(judge("judged", 1, &[("no.such.config", "1")]), Err(RDKafkaErrorCode::InvalidConfig));
    assert_eq!(judge("no good", 1, &[]), Err(RDKafkaErrorCode::InvalidTopic));
    for serving in broker.serving() {
        assert!(requests::metadata(&mut connect(&serving.address), None).topics.is_empty());
    }
    admin.create("judged", 1, &[]);
    assert_eq!(judge("judged", 1, &[]), Err(RDKafkaErrorCode::TopicAlreadyExists));
    assert_eq!(admin.try_create("judged", 1, 1, &[], false), Err(RDKafkaErrorCode::TopicAlreadyExists));
}

#[test]
fn defaults_are_used_for_partitions_and_replicas_that_are_not_given() {
    let broker = Broker::start(Options::shards(2).set("num.partitions", "5"));
    let mut client = Client::connect(&broker.bootstrap(), ClientOptions::default()).unwrap();
    let new = NewTopic { name: "default".into(), partition_count: -1, replication_factor: -1, configs: vec![] };
    let created = client.create_topic(&new, false).unwrap();
    assert_eq!((created.partition_count, created.replication_factor), (5, 1));
    let topic = requests::topic(&mut connect(&broker.serving()[0].address), "default");
    assert_eq!((topic.partitions.len(), topic.id), (5, created.id.0));
}

#[test]
fn a_replication_factor_of_three_is_accepted_and_answered_as_one() {
    // Shards are no replicas, and the answers say so. More than there are brokers is an error as in Kafka.
    let broker = Broker::start(Options::shards(3));
    let mut client = Client::connect(&broker.bootstrap(), ClientOptions::default()).unwrap();
    let new = NewTopic { name: "three".into(), partition_count: 3, replication_factor: 3, configs: vec![] };
    assert_eq!(client.create_topic(&new, false).unwrap().replication_factor, 1);
    let topic = requests::topic(&mut connect(&broker.serving()[0].address), "three");
    assert!(topic.partitions.iter().all(|(_, _, replica_count)| *replica_count == 1));
    assert!(!broker.log_lines("replication factor").is_empty(), "a warning says so");
    let admin = Admin::new(&broker.bootstrap());
    let refused = admin.try_create("four", 3, 4, &[], false);
    assert_eq!(refused, Err(RDKafkaErrorCode::InvalidReplicationFactor));

    let broker = Broker::start(Options::shards(3).arg("replication-factor-policy", "refuse"));
    let admin = Admin::new(&broker.bootstrap());
    let refused = admin.try_create("three", 3, 3, &[], false);
    assert_eq!(refused, Err(RDKafkaErrorCode::InvalidReplicationFactor));
}

#[test]
fn configs_are_described_with_their_values_and_sources() {
    let broker = Broker::start(Options::shards(2).set("log.retention.ms", "7200000"));
    let admin = Admin::new(&broker.bootstrap());
    admin.create("configured", 1, &[("segment.bytes", "2097152"), ("max.message.bytes", "123456")]);
    let describe = |specifier: ResourceSpecifier<'_>| {
        let results = block_on(admin.inner().describe_configs([&specifier], &options())).unwrap();
        results.into_iter().next().expect("one resource").expect("it is described")
    };
    let topic = describe(ResourceSpecifier::Topic("configured"));
    let entry = |name: &str| {
        let entry = topic.get(name).unwrap_or_else(|| panic!("{name} is described"));
        (entry.value.clone().unwrap_or_default(), &entry.source, entry.is_default)
    };
    assert_eq!(entry("segment.bytes"), ("2097152".into(), &ConfigSource::DynamicTopic, false));
    assert_eq!(entry("max.message.bytes"), ("123456".into(), &ConfigSource::DynamicTopic, false));
    assert_eq!(entry("retention.ms").0, "7200000");
    assert_eq!(entry("retention.ms").1, &ConfigSource::StaticBroker);
    assert_eq!(entry("cleanup.policy"), ("delete".into(), &ConfigSource::Default, true));
    assert_eq!(entry("retention.bytes").0, "-1");
    assert!(topic.entries.len() >= 30, "Kafka's whole list: {}", topic.entries.len());

    let shard = describe(ResourceSpecifier::Broker(2));
    let retention = shard.get("log.retention.ms").expect("it is described");
    assert_eq!(retention.value.as_deref(), Some("7200000"));
    assert_eq!(retention.source, ConfigSource::StaticBroker);
    assert!(shard.entries.len() >= 100, "Kafka's whole list: {}", shard.entries.len());

    // The `rdkafka` crate drops errors of single resources.
    let mut client = Client::connect(&broker.bootstrap(), ClientOptions::default()).unwrap();
    let missing = client.topic_configs("missing").unwrap_err();
    assert!(missing.is_code(ErrorCode::UnknownTopicOrPartition), "{missing}");

    // What was set counts: a batch above the topic's own limit is refused.
    let mut connection = connect(&broker.serving()[0].address);
    let topic = requests::topic(&mut connection, "configured");
    let mut leader = connect(broker.address_of(topic.partitions[0].0));
    assert_eq!(append(&mut leader, &topic, 0, batch(&[&[0; 123_500]])), Err(ErrorCode::MessageTooLarge));
}
