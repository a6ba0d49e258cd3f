//! What goes in comes out: codecs, keys, headers, nulls, timestamps, sizes, acknowledgement modes and versions.

mod common;

use std::time::{SystemTime, UNIX_EPOCH};

use common::broker::{Broker, Options};
use common::clients::{Admin, Producer, Read, Record, read_all};
use common::requests::{self, AT_ONCE, append, batch, connect, error_of, fetched, headers, produced};
use ottla::base::time::Timestamp as BatchTime;
use ottla::model::builder::BatchBuilder;
use ottla::model::compression::Codec;
use ottla::protocol::ErrorCode;
use rdkafka::Timestamp;
use rdkafka::error::RDKafkaErrorCode;

const PARTITION_COUNT: i32 = 3;

/// Keys, values and headers that are there, empty and null, times that go back, text and bytes, short and long.
fn varied_records(count: usize) -> Vec<Record> {
    (0..count)
        .map(|number| {
            let long = format!("value {number} ").repeat(1 + number % 7 * 20).into_bytes();
            let noise: Vec<u8> = (0..number % 50).map(|at| (number * 31 + at * 7) as u8).collect();
            Record {
                key: [None, Some(vec![]), Some(format!("key {number}").into_bytes()), Some(noise.clone())][number % 4]
                    .clone(),
                value: [Some(long), None, Some(vec![]), Some(noise)][number / 4 % 4].clone(),
                headers: [
                    vec![],
                    vec![("one".to_string(), Some(b"1".to_vec()))],
                    vec![("null".to_string(), None), ("empty".to_string(), Some(vec![])), ("null".to_string(), None)],
                ][number % 3]
                    .clone(),
                timestamp_ms: Some(1_700_000_000_000 + (number as i64 * 7919) % 10_000),
            }
        })
        .collect()
}

/// What was sent to each partition, in order.
fn sent_to(partition: i32, records: &[Record]) -> Vec<Record> {
    let own = records.iter().enumerate().filter(|(number, _)| *number as i32 % PARTITION_COUNT == partition);
    own.map(|(_, record)| record.clone()).collect()
}

fn records_of(reads: &[Read]) -> Vec<Record> {
    reads.iter().map(|read| read.record.clone()).collect()
}

#[test]
fn records_of_every_codec_come_back_with_keys_headers_nulls_and_timestamps() {
    // librdkafka writes three partitions on two shards with each codec, and another librdkafka reads them. That the
    // broker kept the codec is seen in the batches' headers.
    let broker = Broker::start(Options::shards(2));
    let bootstrap = broker.bootstrap();
    let admin = Admin::new(&bootstrap);
    let records = varied_records(400);
    for codec in Codec::ALL {
        let topic = format!("codec-{}", codec.name());
        admin.create(&topic, PARTITION_COUNT, &[]);
        let settings = [("compression.type", codec.name()), ("batch.num.messages", "50"), ("linger.ms", "50")];
        let mut producer = Producer::new(&bootstrap, &settings);
        for (number, record) in records.iter().enumerate() {
            producer.send(&topic, number as i32 % PARTITION_COUNT, record);
        }
        producer.deliver();

        for (partition, reads) in read_all(&bootstrap, &topic, PARTITION_COUNT).iter().enumerate() {
            assert_eq!(records_of(reads), sent_to(partition as i32, &records), "{topic}-{partition}");
            assert!(reads.iter().all(|read| matches!(read.timestamp, Timestamp::CreateTime(_))));
            let offsets: Vec<i64> = reads.iter().map(|read| read.offset).collect();
            assert_eq!(offsets, (0..reads.len() as i64).collect::<Vec<_>>());
        }
        let mut connection = connect(&broker.serving()[0].address);
        let topic = requests::topic(&mut connection, &topic);
        let mut leader = connect(broker.address_of(topic.partitions[0].0));
        let stored = requests::fetch_to_end(&mut leader, &topic, 0, 0);
        let codecs: Vec<u8> = headers(&stored).iter().map(|header| header.attributes.codec()).collect();
        // librdkafka leaves a batch as it is if compressing would make it longer.
        assert!(codecs.contains(&codec.number()), "{codecs:?} for {codec:?}");
        assert!(codecs.iter().all(|found| [codec.number(), 0].contains(found)), "{codecs:?} for {codec:?}");
    }
}

#[test]
fn batches_of_every_codec_are_kept_as_they_came_and_read_by_librdkafka() {
    // Batches that our builder compressed, one of each codec.
    let broker = Broker::start(Options::shards(1));
    Admin::new(&broker.bootstrap()).create("codecs", 1, &[]);
    let mut connection = connect(&broker.bootstrap());
    let topic = requests::topic(&mut connection, "codecs");
    let mut sent = Vec::new();
    for codec in Codec::ALL {
        let mut builder = BatchBuilder::new(codec);
        for number in 0..50 {
            let value = format!("{} {number} ", codec.name()).repeat(30);
            builder.push(BatchTime(1_700_000_000_000), None, Some(value.as_bytes()), &[]);
            sent.push(value);
        }
        assert!(append(&mut connection, &topic, 0, builder.build().into()).is_ok());
    }
    let stored = requests::fetch_to_end(&mut connection, &topic, 0, 0);
    let codecs: Vec<u8> = headers(&stored).iter().map(|header| header.attributes.codec()).collect();
    assert_eq!(codecs, Codec::ALL.map(Codec::number));
    let reads = read_all(&broker.bootstrap(), "codecs", 1).remove(0);
    assert_eq!(reads.iter().map(Read::text).collect::<Vec<_>>(), sent);
}

#[test]
fn records_of_a_topic_with_log_append_time_carry_the_brokers_time() {
    // The producer gives a time long ago; what is read lies between before and after the sending.
    let now_ms = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
    let broker = Broker::start(Options::shards(1));
    let bootstrap = broker.bootstrap();
    Admin::new(&bootstrap).create("stamped", 1, &[("message.timestamp.type", "LogAppendTime")]);
    let before = now_ms();
    for codec in ["none", "zstd"] {
        let mut producer = Producer::new(&bootstrap, &[("compression.type", codec)]);
        for number in 0..20 {
            let record = Record { timestamp_ms: Some(1000), ..Record::of(format!("record {number}").repeat(20)) };
            producer.send("stamped", 0, &record);
        }
        producer.deliver();
    }
    let after = now_ms();
    let reads = read_all(&bootstrap, "stamped", 1).remove(0);
    assert_eq!(reads.len(), 40);
    for read in reads {
        let Timestamp::LogAppendTime(at) = read.timestamp else { panic!("{:?}", read.timestamp) };
        assert!((before..=after).contains(&at), "{at} is not within {before}..={after}");
    }
}

#[test]
fn a_batch_of_max_message_bytes_is_kept_and_one_byte_more_is_refused() {
    // Raw batches of exactly the limit and one more; then a librdkafka that was told another limit.
    const LIMIT: usize = 1_048_588;
    let broker = Broker::start(Options::shards(1));
    let bootstrap = broker.bootstrap();
    Admin::new(&bootstrap).create("large", 1, &[]);
    let mut connection = connect(&bootstrap);
    let topic = requests::topic(&mut connection, "large");
    let overhead = batch(&[&vec![7; LIMIT - 1000]]).len() - (LIMIT - 1000);
    let largest = batch(&[&vec![7; LIMIT - overhead]]);
    assert_eq!(largest.len(), LIMIT);
    assert_eq!(append(&mut connection, &topic, 0, largest), Ok(0));
    let too_large = batch(&[&vec![7; LIMIT - overhead + 1]]);
    assert_eq!(append(&mut connection, &topic, 0, too_large), Err(ErrorCode::MessageTooLarge));

    let mut producer = Producer::new(&bootstrap, &[("message.max.bytes", "4000000")]);
    let noise: Vec<u8> = (0..1_000_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let kept = producer.send("large", 0, &Record::of(&noise));
    assert_eq!(producer.deliver()[&kept], (0, 1));
    let refused = producer.send("large", 0, &Record::of(noise.repeat(2)));
    assert_eq!(producer.flush()[&refused], Err(RDKafkaErrorCode::MessageSizeTooLarge));

    let reads = read_all(&bootstrap, "large", 1).remove(0);
    assert_eq!(reads.len(), 2);
    assert_eq!(reads[0].record.value.as_ref().map(Vec::len), Some(LIMIT - overhead));
    assert_eq!(reads[1].record.value, Some(noise));
    // A topic may allow more, and a fetch returns a batch that is larger than its own limits.
    Admin::new(&bootstrap).create("larger", 1, &[("max.message.bytes", "4000000")]);
    let topic = requests::topic(&mut connection, "larger");
    assert_eq!(append(&mut connection, &topic, 0, batch(&[&vec![7; 3_000_000]])), Ok(0));
    let small = requests::Limits { max_bytes: 1000, ..AT_ONCE };
    let response = requests::fetch(&mut connection, requests::FETCH, &topic, &[(0, 0)], small);
    assert!(fetched(&response).records.as_ref().is_some_and(|records| records.len() > 3_000_000));
}

#[test]
fn records_are_kept_whatever_number_of_acks_is_asked_for() {
    // acks=0 has no answers, so the end of it is seen by reading until everything is there.
    let broker = Broker::start(Options::shards(2));
    let bootstrap = broker.bootstrap();
    let admin = Admin::new(&bootstrap);
    for acks in ["0", "1", "all"] {
        let topic = format!("acks-{acks}");
        admin.create(&topic, 2, &[]);
        let mut producer = Producer::new(&bootstrap, &[("acks", acks)]);
        for number in 0..200 {
            producer.send(&topic, number % 2, &Record::of(number.to_string()));
        }
        producer.deliver();
        let reads = common::until("all records are there", || {
            let reads = read_all(&bootstrap, &topic, 2);
            (reads.iter().map(Vec::len).sum::<usize>() == 200).then_some(reads)
        });
        for (partition, reads) in reads.iter().enumerate() {
            let found: Vec<i32> = reads.iter().map(|read| read.text().parse().unwrap()).collect();
            assert_eq!(found, (0..200).filter(|number| number % 2 == partition as i32).collect::<Vec<_>>());
        }
    }
}

#[test]
fn every_version_of_produce_and_fetch_carries_the_same_bytes() {
    // One batch by each version of Produce; the whole log by each version of Fetch. But for base offset and epoch,
    // which brokers stamp, the bytes are those that were sent.
    let broker = Broker::start(Options::shards(1));
    Admin::new(&broker.bootstrap()).create("versions", 1, &[]);
    let mut connection = connect(&broker.bootstrap());
    let topic = requests::topic(&mut connection, "versions");
    let mut sent = Vec::new();
    for version in 3..=requests::PRODUCE {
        let codec = if version < 7 { Codec::Gzip } else { Codec::Zstd };
        let mut builder = BatchBuilder::new(codec);
        for number in 0..10 {
            let value = format!("record {number} of version {version}").repeat(10);
            builder.push(BatchTime(1_700_000_000_000 + number), Some(b"key"), Some(value.as_bytes()), &[]);
        }
        let bytes = builder.build();
        let response = requests::produce(&mut connection, version, &topic, 0, bytes.clone().into());
        let partition = produced(&response);
        assert_eq!(error_of(partition.error_code), ErrorCode::None, "version {version}");
        assert_eq!(partition.base_offset, (i64::from(version) - 3) * 10);
        sent.extend(bytes);
    }
    for version in 4..=requests::FETCH {
        let response = requests::fetch(&mut connection, version, &topic, &[(0, 0)], AT_ONCE);
        let data = fetched(&response);
        // zstd is not for clients that ask by a version which did not know it (Kafka: UNSUPPORTED_COMPRESSION_TYPE).
        if version < 10 && error_of(data.error_code) == ErrorCode::UnsupportedCompressionType {
            continue;
        }
        assert_eq!(error_of(data.error_code), ErrorCode::None, "version {version}");
        let records = data.records.as_deref().expect("records");
        assert!(requests::without_stamps(records) == requests::without_stamps(&sent), "version {version}");
    }
    // From the middle of a batch the whole batch comes.
    let response = requests::fetch(&mut connection, requests::FETCH, &topic, &[(0, 15)], AT_ONCE);
    assert_eq!(headers(fetched(&response).records.as_deref().unwrap())[0].base_offset.0, 10);
}
