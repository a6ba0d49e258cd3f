//! The client against brokers that move, lose answers and lie.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;

use super::test_broker::TestCluster;
use super::*;
use crate::base::time::Timestamp;
use crate::model::compression::Codec;
use crate::model::id::{BrokerId, Offset};
use crate::protocol::ErrorCode;

fn options() -> ClientOptions {
    let mut options = ClientOptions { retry_for: Duration::from_secs(5), ..ClientOptions::default() };
    options.connection.answer_wait_max = Duration::from_secs(5);
    options
}

fn connect(cluster: &TestCluster) -> Client {
    Client::connect(&cluster.bootstrap(), options()).unwrap()
}

fn producer(cluster: &TestCluster, codec: Codec) -> Producer {
    let options = ProducerOptions { codec, batch_size_bytes: 1000, ..ProducerOptions::default() };
    Producer::new(connect(cluster), "t", options, 0).unwrap()
}

fn push(producer: &mut Producer, range: std::ops::Range<usize>) {
    for number in range {
        let (key, value) = (format!("key{}", number % 7), format!("value{number}"));
        let record = OutRecord {
            partition: None,
            key: Some(key.as_bytes()),
            value: Some(value.as_bytes()),
            headers: &[("h", Some(b"1"))],
            timestamp: Timestamp(number as i64),
        };
        producer.push(record).unwrap();
    }
}

/// Everything from the beginning, by partition: value numbers in order.
fn read_all(cluster: &TestCluster, count: usize) -> BTreeMap<i32, Vec<usize>> {
    let mut client = connect(cluster);
    let partitions = client.topic("t", false).unwrap().partitions.len() as i32;
    let positions = (0..partitions).map(|p| (p, Offset(0))).collect();
    let mut fetcher = Fetcher::new(client, "t", positions, FetchOptions::default()).unwrap();
    let mut found: BTreeMap<i32, Vec<usize>> = BTreeMap::new();
    let mut seen = 0;
    for _ in 0..10_000 {
        for fetched in fetcher.poll().unwrap() {
            let _ = fetched
                .for_each(|record| {
                    let text = std::str::from_utf8(record.value.unwrap()).unwrap();
                    found.entry(record.partition).or_default().push(text["value".len()..].parse().unwrap());
                    assert_eq!(record.headers.len(), 1);
                    seen += 1;
                    Ok::<_, ClientError>(ControlFlow::Continue(()))
                })
                .unwrap();
        }
        if seen >= count {
            return found;
        }
    }
    panic!("{seen} of {count} records came");
}

/// Each number once, in order within each partition, and each key in one partition.
fn assert_complete(found: &BTreeMap<i32, Vec<usize>>, count: usize) {
    assert!(found.values().all(|numbers| numbers.is_sorted_by(|a, b| a < b)));
    let mut all: Vec<usize> = found.values().flatten().copied().collect();
    all.sort_unstable();
    assert_eq!(all, (0..count).collect::<Vec<_>>());
    let mut homes: BTreeMap<usize, i32> = BTreeMap::new();
    for (partition, numbers) in found {
        assert!(numbers.iter().all(|number| *homes.entry(number % 7).or_insert(*partition) == *partition));
    }
}

#[test]
fn records_reach_their_leaders_and_come_back_in_order() {
    // Two brokers, three partitions, every codec in turn.
    for codec in Codec::ALL {
        let cluster = TestCluster::start(2, 3);
        let mut producer = producer(&cluster, codec);
        push(&mut producer, 0..500);
        producer.flush().unwrap();
        assert_eq!(producer.totals().record_count, 500);
        assert_complete(&read_all(&cluster, 500), 500);
    }
}

#[test]
fn a_moved_leader_is_found_by_producers_and_fetchers() {
    let cluster = TestCluster::start(3, 3);
    let mut producer = producer(&cluster, Codec::None);
    push(&mut producer, 0..100);
    producer.flush().unwrap();
    cluster.state.lock().unwrap().leaders.rotate_left(1);
    push(&mut producer, 100..200);
    producer.flush().unwrap();
    assert_complete(&read_all(&cluster, 200), 200);
}

#[test]
fn a_lost_answer_does_not_store_a_batch_twice() {
    // The broker stores batches and closes the connection; the retry bears the same sequences.
    let cluster = TestCluster::start(2, 2);
    let mut producer = producer(&cluster, Codec::Lz4);
    cluster.state.lock().unwrap().lose_produce_answers = 3;
    push(&mut producer, 0..300);
    producer.flush().unwrap();
    assert_eq!(cluster.state.lock().unwrap().lose_produce_answers, 0);
    assert_complete(&read_all(&cluster, 300), 300);
}

#[test]
fn older_versions_of_api_versions_are_negotiated() {
    let cluster = TestCluster::start(1, 1);
    cluster.state.lock().unwrap().api_versions_max = Some(0);
    let mut client = connect(&cluster);
    let info = client.metadata(None).unwrap();
    assert_eq!((info.topics.len(), info.controller), (1, Some(BrokerId(1))));
}

#[test]
fn offsets_are_asked_for_at_each_partitions_leader() {
    let cluster = TestCluster::start(2, 2);
    let mut producer = producer(&cluster, Codec::None);
    push(&mut producer, 0..50);
    producer.flush().unwrap();
    let mut client = connect(&cluster);
    let ends = client.list_offsets("t", &[(0, LATEST), (1, LATEST)], IsolationLevel::ReadUncommitted).unwrap();
    assert_eq!(ends.values().map(|at| at.offset.0).sum::<i64>(), 50);
}

#[test]
fn unknown_topics_and_partitions_fail_at_once_and_say_so() {
    let cluster = TestCluster::start(1, 1);
    let mut client = connect(&cluster);
    let error = client.topic("nope", false).unwrap_err();
    assert!(error.is_code(ErrorCode::UnknownTopicOrPartition), "{error}");
    assert!(error.hint().unwrap().contains("topic list"));
    let error = Fetcher::new(client, "t", [(7, Offset(0))].into(), FetchOptions::default()).err().unwrap();
    assert_eq!(error.to_string(), "topic t has no partition 7; it has 1");
}

#[test]
fn an_answer_that_claims_too_much_ends_the_connection_without_allocating_it() {
    let cluster = TestCluster::start(1, 1);
    let mut client = connect(&cluster);
    for claimed in [i32::MAX, -1, 0] {
        cluster.state.lock().unwrap().lie_about_size = Some(claimed);
        let error = client.metadata(None).unwrap_err();
        assert!(matches!(error, ClientError::Protocol { .. }), "{error}");
        client = connect(&cluster);
    }
}

#[test]
fn nobody_listening_is_said_with_the_address_and_what_to_do() {
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = Client::connect(&format!("127.0.0.1:{port}"), options()).err().unwrap();
    assert!(error.to_string().starts_with(&format!("cannot connect to 127.0.0.1:{port}")));
    assert!(error.hint().unwrap().contains("ottla serve"));
    assert!(matches!(Client::connect("nowhere", options()), Err(ClientError::Address(_))));
}
