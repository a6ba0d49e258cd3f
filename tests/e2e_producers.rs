//! Idempotent producers: repeated batches, gaps, epochs; also after a restart and a crash.

mod common;

use bytes::Bytes;
use common::broker::{Broker, Options};
use common::clients::{Admin, Producer, Record, read_all};
use common::requests::{self, Topic, append, connect, error_of, init_producer_id};
use ottla::base::time::Timestamp;
use ottla::client::Connection;
use ottla::model::builder::BatchBuilder;
use ottla::model::compression::Codec;
use ottla::model::id::{ProducerEpoch, ProducerId, Sequence};
use ottla::protocol::ErrorCode;

/// Records in each batch.
const RECORD_COUNT: i32 = 3;

/// Batch `number` of a producer; its sequences follow on those of the batch before.
fn sequenced(id: i64, epoch: i16, number: i32) -> Bytes {
    let mut builder =
        BatchBuilder::new(Codec::None).producer(ProducerId(id), ProducerEpoch(epoch), Sequence(number * RECORD_COUNT));
    for record in 0..RECORD_COUNT {
        let value = format!("{id}/{epoch}: {}", number * RECORD_COUNT + record);
        builder.push(Timestamp(1_700_000_000_000), None, Some(value.as_bytes()), &[]);
    }
    builder.build().into()
}

/// A broker with one shard, a topic with one partition and a new producer.
fn one_producer() -> (Broker, Connection, Topic, i64) {
    let broker = Broker::start(Options::shards(1));
    Admin::new(&broker.bootstrap()).create("sequenced", 1, &[]);
    let mut connection = connect(&broker.bootstrap());
    let topic = requests::topic(&mut connection, "sequenced");
    let given = init_producer_id(&mut connection, None);
    assert_eq!((error_of(given.error_code), given.producer_epoch), (ErrorCode::None, 0));
    (broker, connection, topic, given.producer_id.0)
}

fn end_offset(connection: &mut Connection) -> i64 {
    requests::list_offsets(connection, 7, "sequenced", 0, -1).offset
}

fn offset_of(number: i32) -> i64 {
    i64::from(number * RECORD_COUNT)
}

#[test]
fn a_repeated_batch_is_answered_with_its_first_offset_and_not_kept_twice() {
    // Seven batches; then each of the last five again, which the broker must remember, in any order.
    let (broker, mut connection, topic, id) = one_producer();
    for number in 0..7 {
        assert_eq!(append(&mut connection, &topic, 0, sequenced(id, 0, number)), Ok(offset_of(number)));
    }
    for number in [6, 2, 4, 3, 5] {
        assert_eq!(append(&mut connection, &topic, 0, sequenced(id, 0, number)), Ok(offset_of(number)));
    }
    // The sixth last is forgotten: it can only be told from a gap by its number.
    let forgotten = append(&mut connection, &topic, 0, sequenced(id, 0, 1));
    assert_eq!(forgotten, Err(ErrorCode::OutOfOrderSequenceNumber));
    assert_eq!(end_offset(&mut connection), offset_of(7));
    assert_eq!(append(&mut connection, &topic, 0, sequenced(id, 0, 7)), Ok(offset_of(7)));
    assert_eq!(read_all(&broker.bootstrap(), "sequenced", 1)[0].len() as i64, offset_of(8));
}

#[test]
fn a_repeated_batch_of_the_same_pipeline_is_answered_with_its_first_offset() {
    // The batch and its repetition are sent before the first answer is read.
    let (_broker, mut connection, topic, id) = one_producer();
    for number in [0, 0, 1, 0, 1, 2] {
        let request = requests::produce_request(requests::PRODUCE, &topic, 0, sequenced(id, 0, number));
        connection.send(requests::PRODUCE, &request).unwrap();
    }
    for number in [0, 0, 1, 0, 1, 2] {
        let response = connection.receive::<kafka_protocol::messages::ProduceRequest>().unwrap();
        let partition = requests::produced(&response);
        assert_eq!((error_of(partition.error_code), partition.base_offset), (ErrorCode::None, offset_of(number)));
    }
    assert_eq!(end_offset(&mut connection), offset_of(3));
}

#[test]
fn a_gap_in_the_sequences_is_refused_and_changes_nothing() {
    let (_broker, mut connection, topic, id) = one_producer();
    assert_eq!(append(&mut connection, &topic, 0, sequenced(id, 0, 0)), Ok(0));
    for gap in [2, 3, 100] {
        let refused = append(&mut connection, &topic, 0, sequenced(id, 0, gap));
        assert_eq!(refused, Err(ErrorCode::OutOfOrderSequenceNumber), "batch {gap}");
    }
    assert_eq!(end_offset(&mut connection), offset_of(1));
    assert_eq!(append(&mut connection, &topic, 0, sequenced(id, 0, 1)), Ok(offset_of(1)));
}

#[test]
fn an_old_epoch_is_refused_and_a_new_one_starts_at_sequence_zero() {
    let (_broker, mut connection, topic, id) = one_producer();
    assert_eq!(append(&mut connection, &topic, 0, sequenced(id, 0, 0)), Ok(0));
    assert_eq!(append(&mut connection, &topic, 0, sequenced(id, 0, 1)), Ok(offset_of(1)));
    // A new epoch begins anew.
    let refused = append(&mut connection, &topic, 0, sequenced(id, 1, 2));
    assert_eq!(refused, Err(ErrorCode::OutOfOrderSequenceNumber));
    assert_eq!(append(&mut connection, &topic, 0, sequenced(id, 1, 0)), Ok(offset_of(2)));
    for number in [1, 2] {
        let refused = append(&mut connection, &topic, 0, sequenced(id, 0, number));
        assert_eq!(refused, Err(ErrorCode::InvalidProducerEpoch), "batch {number} of the old epoch");
    }
    assert_eq!(append(&mut connection, &topic, 0, sequenced(id, 1, 1)), Ok(offset_of(3)));
}

#[test]
fn producers_get_ids_of_their_own_from_every_shard_and_start() {
    let mut broker = Broker::start(Options::shards(3));
    let mut ids = Vec::new();
    for round in 0..3 {
        for serving in broker.serving() {
            let mut connection = connect(&serving.address);
            for _ in 0..5 {
                let given = init_producer_id(&mut connection, None);
                assert_eq!(error_of(given.error_code), ErrorCode::None);
                ids.push(given.producer_id.0);
            }
        }
        match round {
            0 => broker.restart(),
            1 => {
                broker.kill9();
                broker.start_again();
            }
            _ => {}
        }
    }
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((count, ids.len()), (45, 45));
}

#[test]
fn what_is_known_of_a_producer_survives_a_restart_and_a_crash() {
    // After each start: the last batch again, a gap, the next batch.
    let (mut broker, mut connection, topic, id) = one_producer();
    assert_eq!(append(&mut connection, &topic, 0, sequenced(id, 0, 0)), Ok(0));
    for number in 1..7 {
        if number % 2 == 0 {
            broker.restart();
        } else {
            broker.kill9();
            broker.start_again();
        }
        let mut connection = connect(&broker.bootstrap());
        let repeated = append(&mut connection, &topic, 0, sequenced(id, 0, number - 1));
        assert_eq!(repeated, Ok(offset_of(number - 1)), "after start {number}");
        let gap = append(&mut connection, &topic, 0, sequenced(id, 0, number + 1));
        assert_eq!(gap, Err(ErrorCode::OutOfOrderSequenceNumber), "after start {number}");
        assert_eq!(append(&mut connection, &topic, 0, sequenced(id, 0, number)), Ok(offset_of(number)));
        assert_eq!(end_offset(&mut connection), offset_of(number + 1));
    }
}

#[test]
fn batches_without_a_producer_are_kept_as_often_as_they_are_sent() {
    let (_broker, mut connection, topic, _) = one_producer();
    for number in 0..4 {
        assert_eq!(append(&mut connection, &topic, 0, requests::batch(&[b"same"])), Ok(number));
    }
}

#[test]
fn an_idempotent_librdkafka_keeps_order_with_five_requests_in_flight() {
    // Small batches, five requests in flight, five partitions on two shards.
    let broker = Broker::start(Options::shards(2));
    Admin::new(&broker.bootstrap()).create("ordered", 5, &[]);
    let settings = [
        ("enable.idempotence", "true"),
        ("max.in.flight.requests.per.connection", "5"),
        ("batch.num.messages", "7"),
        ("linger.ms", "0"),
    ];
    let mut producer = Producer::new(&broker.bootstrap(), &settings);
    for number in 0..3000 {
        producer.send("ordered", number % 5, &Record::of(number.to_string()));
    }
    producer.deliver();
    for (partition, reads) in read_all(&broker.bootstrap(), "ordered", 5).iter().enumerate() {
        let found: Vec<i32> = reads.iter().map(|read| read.text().parse().unwrap()).collect();
        assert_eq!(found, (0..3000).filter(|number| number % 5 == partition as i32).collect::<Vec<_>>());
    }
}
