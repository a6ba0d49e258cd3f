//! Compacted topics as clients see them: the last value of each key, at its offset; and codecs of the topic's own.

mod common;

use std::collections::BTreeMap;

use common::broker::{Broker, Options};
use common::clients::{Admin, Producer, Record, block_on, consumer, options, read_all, read_to_end};
use common::requests::{self, AT_ONCE, FETCH, append, connect, fetch, fetched, list_offsets};
use common::{WAIT_MAX, until};
use ottla::base::time::Timestamp;
use ottla::model::builder::BatchBuilder;
use ottla::model::compression::Codec;
use ottla::protocol::ErrorCode;
use rdkafka::admin::{AlterConfig, ResourceSpecifier};
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};

const COMPACT: [(&str, &str); 3] =
    [("cleanup.policy", "compact"), ("segment.bytes", "1048576"), ("min.cleanable.dirty.ratio", "0.1")];

fn eager() -> Options {
    Options::shards(1).set("log.cleaner.backoff.ms", "50").set("log.retention.check.interval.ms", "100")
}

/// What was sent to each partition: key, value and offset, in order.
type Sent = Vec<(Vec<u8>, Option<Vec<u8>>, i64)>;

/// Sends `count` records of `key_count` keys to partition 0, some of them tombstones, and notes their offsets.
fn send(bootstrap: &str, topic: &str, count: usize, key_count: usize, settings: &[(&str, &str)], sent: &mut Sent) {
    let mut producer = Producer::new(bootstrap, settings);
    let first = sent.len();
    for number in first..first + count {
        let key = format!("key-{}", (number * 7919) % key_count).into_bytes();
        let value = (number % 23 != 0).then(|| format!("{number:08} ").repeat(120).into_bytes());
        let record = Record { key: Some(key.clone()), value: value.clone(), ..Record::default() };
        producer.send(topic, 0, &record);
        sent.push((key, value, -1));
    }
    for (number, (_, offset)) in producer.deliver() {
        sent[first + number].2 = offset;
    }
}

/// Reads the partition and compares: what is there was sent, and the last record of each key is there. Gives how many
/// records there are.
fn check(bootstrap: &str, topic: &str, sent: &Sent) -> usize {
    let read = read_all(bootstrap, topic, 1).remove(0);
    let by_offset: BTreeMap<i64, _> = sent.iter().map(|(key, value, offset)| (*offset, (key, value))).collect();
    let mut state = BTreeMap::new();
    let mut last_offset = -1;
    for record in &read {
        assert!(record.offset > last_offset, "offsets ascend");
        last_offset = record.offset;
        let (key, value) = by_offset[&record.offset];
        assert_eq!((record.record.key.as_ref(), &record.record.value), (Some(key), value), "at {}", record.offset);
        state.insert(key.clone(), record.offset);
    }
    let last: BTreeMap<Vec<u8>, i64> = sent.iter().map(|(key, _, offset)| (key.clone(), *offset)).collect();
    assert_eq!(state, last, "the last record of each key is there, tombstones too");
    read.len()
}

#[test]
fn a_consumer_finds_the_last_record_of_each_key_at_its_offset() {
    // Rounds with every codec, compaction after each, a kill -9 between, and idempotent producers throughout.
    let mut broker = Broker::start(eager());
    Admin::new(&broker.bootstrap()).create("compacted", 1, &COMPACT);
    let mut sent = Sent::new();
    let codecs = ["none", "gzip", "snappy", "zstd"];
    for (round, codec) in codecs.iter().enumerate() {
        let settings = [("compression.codec", *codec), ("enable.idempotence", "true")];
        send(&broker.bootstrap(), "compacted", 6000, 100, &settings, &mut sent);
        // Compressed rounds fill a segment only together; the first one fills several.
        let left = until("compaction has come by", || {
            let left = check(&broker.bootstrap(), "compacted", &sent);
            (left < 4500 + 6000 * round).then_some(left)
        });
        assert!(left >= 100);
        if round % 2 == 0 {
            broker.kill9();
            broker.start_again();
            check(&broker.bootstrap(), "compacted", &sent);
        } else {
            broker.restart();
        }
    }
    // From offsets that are gone, and from the end.
    let mut connection = connect(&broker.bootstrap());
    let end = list_offsets(&mut connection, 7, "compacted", 0, -1).offset;
    assert_eq!(end, sent.len() as i64);
    assert_eq!(list_offsets(&mut connection, 7, "compacted", 0, -2).offset, 0);
    for from in [1, 500, 3001, end - 1] {
        let consumer =
            consumer(&broker.bootstrap(), "compacted", &[(0, Offset::Offset(from))], &[("fetch.wait.max.ms", "10")]);
        let read = read_to_end(&consumer, 1).remove(0);
        assert!(read.first().is_some_and(|first| first.offset >= from));
        assert_eq!(read.last().expect("the last is never compacted").offset, end - 1);
    }
}

#[test]
fn a_topic_that_becomes_compacted_is_compacted_and_one_with_both_policies_expires() {
    // A topic of the default policy gets another one while it is in use, and then both.
    let broker = Broker::start(eager());
    let admin = Admin::new(&broker.bootstrap());
    admin.create("changing", 1, &[("segment.bytes", "1048576")]);
    let mut sent = Sent::new();
    send(&broker.bootstrap(), "changing", 4000, 50, &[], &mut sent);
    assert_eq!(check(&broker.bootstrap(), "changing", &sent), 4000);
    let set = |policy: &str, retention_ms: &str| {
        let change = AlterConfig::new(ResourceSpecifier::Topic("changing"))
            .set("segment.bytes", "1048576")
            .set("min.cleanable.dirty.ratio", "0.1")
            .set("retention.ms", retention_ms)
            .set("cleanup.policy", policy);
        let changed = block_on(admin.inner().alter_configs([&change], &options())).expect("AlterConfigs is answered");
        assert!(changed[0].is_ok(), "{changed:?}");
    };
    set("compact", "-1");
    until("it is compacted", || (check(&broker.bootstrap(), "changing", &sent) < 2500).then_some(()));
    let mut connection = connect(&broker.bootstrap());
    assert_eq!(list_offsets(&mut connection, 7, "changing", 0, -2).offset, 0);
    // Keyless records are refused from now on.
    let topic = requests::topic(&mut connection, "changing");
    let mut keyless = BatchBuilder::new(Codec::None);
    keyless.push(Timestamp(1), None, Some(b"x"), &[]);
    assert_eq!(append(&mut connection, &topic, 0, keyless.build().into()), Err(ErrorCode::InvalidRecord));
    set("compact,delete", "1");
    until("everything has expired", || {
        (list_offsets(&mut connection, 7, "changing", 0, -2).offset == 4000).then_some(())
    });
}

#[test]
fn committed_offsets_survive_the_compaction_of_their_topic() {
    // librdkafka commits the same partitions again and again, with metadata so long that segments fill; after the
    // compaction, and after a kill -9 and a stop, the last commit is what the coordinator finds in the log.
    let options = eager().set("offsets.topic.num.partitions", "1").set("offsets.topic.segment.bytes", "1");
    let mut broker = Broker::start(options);
    Admin::new(&broker.bootstrap()).create("read", 3, &[]);
    let text = |number: i64| format!("{number} ").repeat(600);
    let settings = [("group.id", "readers")];
    let reader = |broker: &Broker| consumer(&broker.bootstrap(), "read", &[(0, Offset::Beginning)], &settings);
    let list = |offset: Option<i64>| {
        let mut list = TopicPartitionList::new();
        for partition in 0..3 {
            let mut element = list.add_partition("read", partition);
            if let Some(offset) = offset {
                element.set_offset(Offset::Offset(offset)).expect("an offset");
                element.set_metadata(text(offset));
            }
        }
        list
    };
    let client = reader(&broker);
    let mut last = 0;
    until("the offsets topic is compacted", || {
        for _ in 0..100 {
            last += 1;
            client.commit(&list(Some(last)), CommitMode::Sync).expect("committed");
        }
        broker.log_lines("\"compacted\"").iter().any(|line| line.contains("__consumer_offsets")).then_some(())
    });
    drop(client);
    for end in ["kill", "stop"] {
        match end {
            "kill" => {
                broker.kill9();
                broker.start_again();
            }
            _ => broker.restart(),
        }
        let found = reader(&broker).committed_offsets(list(None), WAIT_MAX).expect("the coordinator answers");
        for element in found.elements() {
            assert_eq!((element.offset(), element.metadata()), (Offset::Offset(last), text(last).as_str()), "{end}");
        }
        assert_eq!(found.count(), 3);
    }
}

#[test]
fn a_topics_own_codec_replaces_its_producers() {
    // Batches of every codec into topics of every codec; what is stored has the topic's, what is read is the same.
    let broker = Broker::start(Options::shards(1));
    let admin = Admin::new(&broker.bootstrap());
    let value = b"0123456789".repeat(100);
    for (name, codec) in [("uncompressed", 0), ("gzip", 1), ("snappy", 2), ("lz4", 3), ("zstd", 4), ("producer", -1)] {
        admin.create(name, 1, &[("compression.type", name)]);
        let mut connection = connect(&broker.bootstrap());
        let topic = requests::topic(&mut connection, name);
        for (number, from) in Codec::ALL.into_iter().enumerate() {
            let mut builder = BatchBuilder::new(from);
            builder.push(Timestamp(1000), Some(b"k"), Some(&value), &[]);
            assert_eq!(append(&mut connection, &topic, 0, builder.build().into()), Ok(number as i64));
            let response = fetch(&mut connection, FETCH, &topic, &[(0, number as i64)], AT_ONCE);
            let records = fetched(&response).records.clone().expect("there is one");
            let stored = requests::headers(&records)[0].attributes.codec();
            assert_eq!(i32::from(stored), if codec < 0 { i32::from(from.number()) } else { codec }, "{from} in {name}");
        }
        let read = read_all(&broker.bootstrap(), name, 1).remove(0);
        assert_eq!(read.len(), 5);
        assert!(read.iter().all(|read| read.record.value.as_deref() == Some(&value[..])));
    }
}

#[test]
fn records_too_far_from_the_brokers_time_are_refused() {
    let broker = Broker::start(Options::shards(1));
    let admin = Admin::new(&broker.bootstrap());
    let bounds = [("message.timestamp.before.max.ms", "60000"), ("message.timestamp.after.max.ms", "60000")];
    admin.create("timely", 1, &bounds);
    let mut connection = connect(&broker.bootstrap());
    let topic = requests::topic(&mut connection, "timely");
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_millis() as i64;
    let batch = |times: &[i64]| {
        let mut builder = BatchBuilder::new(Codec::Zstd);
        times.iter().for_each(|time| builder.push(Timestamp(*time), None, Some(b"x"), &[]));
        builder.build().into()
    };
    assert_eq!(append(&mut connection, &topic, 0, batch(&[now])), Ok(0));
    for refused in [&[now - 3_600_000][..], &[now + 3_600_000], &[now, now - 3_600_000, now]] {
        assert_eq!(append(&mut connection, &topic, 0, batch(refused)), Err(ErrorCode::InvalidTimestamp));
    }
    // Records without a time have none that could be wrong.
    assert_eq!(append(&mut connection, &topic, 0, batch(&[-1])), Ok(1));
}
