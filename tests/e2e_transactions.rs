//! Transactions with a real librdkafka: commit, abort, fencing, time-outs, offsets in transactions, and a broker that is
//! killed in the middle of them.

mod common;

use std::time::Duration;

use common::broker::{Broker, Options};
use common::clients::{self, Admin, Read, read_all, read_to_end};
use common::requests::{connect, list_offsets};
use common::{WAIT_MAX, until};
use kafka_protocol::messages::{
    DescribeTransactionsRequest, FindCoordinatorRequest, GroupId, ListTransactionsRequest, OffsetFetchRequest,
    TransactionalId,
    offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics},
};
use kafka_protocol::protocol::StrBytes;
use ottla::client::Connection;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};

type Transactional = ThreadedProducer<DefaultProducerContext>;

/// Few partitions, so that starting is quick; several of them on each shard.
fn options(shard_count: usize) -> Options {
    Options::shards(shard_count)
        .set("transaction.state.log.num.partitions", "4")
        .set("offsets.topic.num.partitions", "4")
        .set("transaction.abort.timed.out.transaction.cleanup.interval.ms", "200")
        .set("group.initial.rebalance.delay.ms", "0")
}

fn config(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("broker.address.family", "v4")
        .set("reconnect.backoff.ms", "20")
        .set("reconnect.backoff.max.ms", "200")
        .set_log_level(RDKafkaLogLevel::Emerg);
    config
}

/// A producer with a transactional id, which has it.
fn transactional(bootstrap: &str, id: &str, timeout_ms: u32) -> Transactional {
    let mut config = config(bootstrap);
    config.set("transactional.id", id).set("transaction.timeout.ms", timeout_ms.to_string()).set("linger.ms", "2");
    let producer: Transactional = config.create().expect("a producer");
    producer.init_transactions(WAIT_MAX).expect("it gets its id");
    producer
}

fn send(producer: &Transactional, topic: &str, partition: i32, value: &str) {
    let record = BaseRecord::<str, str>::to(topic).partition(partition).payload(value);
    producer.send(record).map_err(|(error, _)| error).expect("it is queued");
}

fn texts(records: &[Vec<Read>]) -> Vec<Vec<&str>> {
    records.iter().map(|records| records.iter().map(Read::text).collect()).collect()
}

/// Everything, whatever became of its transaction.
fn read_uncommitted(bootstrap: &str, topic: &str, partition_count: i32) -> Vec<Vec<Read>> {
    let from: Vec<_> = (0..partition_count).map(|partition| (partition, Offset::Beginning)).collect();
    let settings = [("isolation.level", "read_uncommitted"), ("fetch.wait.max.ms", "10")];
    read_to_end(&clients::consumer(bootstrap, topic, &from, &settings), partition_count)
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// A connection to the coordinator of a transactional id.
fn coordinator(broker: &Broker, key_type: i8, key: &str) -> Connection {
    until("the coordinator is known", || {
        let request = FindCoordinatorRequest::default().with_key_type(key_type).with_coordinator_keys(vec![text(key)]);
        let found = connect(&broker.serving()[0].address).call(4, &request).expect("answered").coordinators.remove(0);
        (found.error_code == 0).then(|| connect(&format!("{}:{}", found.host.as_str(), found.port)))
    })
}

fn state_of(broker: &Broker, id: &str) -> String {
    until("the transaction is known", || {
        let request = DescribeTransactionsRequest::default().with_transactional_ids(vec![TransactionalId(text(id))]);
        let state = coordinator(broker, 1, id).call(0, &request).expect("answered").transaction_states.remove(0);
        (state.error_code == 0).then(|| state.transaction_state.to_string())
    })
}

/// What a group has committed for partition 0 of a topic, stable or whatever it is.
fn committed(broker: &Broker, group: &str, topic: &str, require_stable: bool) -> Result<i64, i16> {
    let mut connection = coordinator(broker, 0, group);
    let asked = OffsetFetchRequestTopics::default()
        .with_name(common::requests::topic_name(topic))
        .with_partition_indexes(vec![0]);
    let group = OffsetFetchRequestGroup::default().with_group_id(GroupId(text(group))).with_topics(Some(vec![asked]));
    let request = OffsetFetchRequest::default().with_require_stable(require_stable).with_groups(vec![group]);
    until("the group's coordinator is loaded", || {
        let mut response = connection.call(8, &request).expect("answered");
        let mut group = response.groups.remove(0);
        (group.error_code == 0).then(|| {
            let partition = group.topics.remove(0).partitions.remove(0);
            match partition.error_code {
                0 => Ok(partition.committed_offset),
                error => Err(error),
            }
        })
    })
}

#[test]
fn a_committed_transaction_is_seen_as_a_whole_and_an_aborted_one_never() {
    // Three transactions over partitions of several shards, the second one aborted, with plain records in between.
    let broker = Broker::start(options(3));
    Admin::new(&broker.bootstrap()).create("t", 4, &[]);
    let producer = transactional(&broker.bootstrap(), "txn", 60_000);
    for (number, commits) in [(0, true), (1, false), (2, true)] {
        producer.begin_transaction().expect("it begins");
        for partition in 0..4 {
            send(&producer, "t", partition, &format!("{number} a"));
            send(&producer, "t", partition, &format!("{number} b"));
        }
        match commits {
            true => producer.commit_transaction(WAIT_MAX).expect("it commits"),
            false => {
                producer.flush(WAIT_MAX).expect("they are there");
                producer.abort_transaction(WAIT_MAX).expect("it aborts");
            }
        }
        clients::send_all(&broker.bootstrap(), "t", 0, &[format!("plain {number}")]);
    }
    let committed = read_all(&broker.bootstrap(), "t", 4);
    let plain = ["0 a", "0 b", "2 a", "2 b"];
    assert_eq!(texts(&committed)[1..], [plain, plain, plain].map(Vec::from));
    assert_eq!(texts(&committed)[0], ["0 a", "0 b", "plain 0", "plain 1", "2 a", "2 b", "plain 2"]);
    let all = read_uncommitted(&broker.bootstrap(), "t", 4);
    assert_eq!(texts(&all)[1], ["0 a", "0 b", "1 a", "1 b", "2 a", "2 b"]);
    // Markers have offsets of their own, and nobody sees them.
    assert_eq!(all[1].iter().map(|read| read.offset).collect::<Vec<_>>(), [0, 1, 3, 4, 6, 7]);
}

#[test]
fn readers_of_committed_records_wait_for_the_decision_and_go_on_behind_it() {
    // An open transaction, plain records behind it: the last stable offset stays where it began until it ends.
    let broker = Broker::start(options(1));
    Admin::new(&broker.bootstrap()).create("t", 1, &[]);
    let producer = transactional(&broker.bootstrap(), "txn", 60_000);
    clients::send_all(&broker.bootstrap(), "t", 0, &["before".into()]);
    producer.begin_transaction().expect("it begins");
    send(&producer, "t", 0, "inside");
    producer.flush(WAIT_MAX).expect("it is there");
    clients::send_all(&broker.bootstrap(), "t", 0, &["behind".into()]);
    assert_eq!(texts(&read_all(&broker.bootstrap(), "t", 1)), [["before"]]);
    assert_eq!(texts(&read_uncommitted(&broker.bootstrap(), "t", 1)), [["before", "inside", "behind"]]);
    assert_eq!(state_of(&broker, "txn"), "Ongoing");
    let consumer = clients::consumer(&broker.bootstrap(), "t", &[(0, Offset::Offset(1))], &[]);
    producer.commit_transaction(WAIT_MAX).expect("it commits");
    assert_eq!(clients::read_one(&consumer).text(), "inside");
    assert_eq!(clients::read_one(&consumer).text(), "behind");
    let mut connection = connect(&broker.bootstrap());
    assert_eq!(list_offsets(&mut connection, 7, "t", 0, -1).offset, 4);
}

#[test]
fn a_second_producer_of_the_same_id_fences_the_first() {
    let broker = Broker::start(options(2));
    Admin::new(&broker.bootstrap()).create("t", 2, &[]);
    let first = transactional(&broker.bootstrap(), "txn", 60_000);
    first.begin_transaction().expect("it begins");
    send(&first, "t", 0, "of the first");
    first.flush(WAIT_MAX).expect("it is there");
    let second = transactional(&broker.bootstrap(), "txn", 60_000);
    let fenced = first.commit_transaction(WAIT_MAX).expect_err("it is fenced");
    assert!(matches!(fenced, KafkaError::Transaction(ref error) if error.is_fatal()), "{fenced:?}");
    second.begin_transaction().expect("it begins");
    send(&second, "t", 0, "of the second");
    second.commit_transaction(WAIT_MAX).expect("it commits");
    assert_eq!(texts(&read_all(&broker.bootstrap(), "t", 2)), [vec!["of the second"], vec![]]);
}

#[test]
fn a_transaction_that_takes_too_long_is_aborted_by_the_broker() {
    let broker = Broker::start(options(2));
    Admin::new(&broker.bootstrap()).create("t", 1, &[]);
    let producer = transactional(&broker.bootstrap(), "slow", 1000);
    producer.begin_transaction().expect("it begins");
    send(&producer, "t", 0, "too late");
    producer.flush(WAIT_MAX).expect("it is there");
    until("the broker aborts it", || (state_of(&broker, "slow") == "CompleteAbort").then_some(()));
    assert!(producer.commit_transaction(WAIT_MAX).is_err());
    clients::send_all(&broker.bootstrap(), "t", 0, &["behind".into()]);
    assert_eq!(texts(&read_all(&broker.bootstrap(), "t", 1)), [["behind"]]);
}

#[test]
fn offsets_of_a_transaction_count_when_it_commits() {
    // A group's offset, committed in a transaction that is aborted and in one that is committed; meanwhile it is
    // unstable for whoever asks for a stable one.
    let broker = Broker::start(options(2));
    Admin::new(&broker.bootstrap()).create("in", 1, &[]);
    clients::send_all(&broker.bootstrap(), "in", 0, &["one".into(), "two".into()]);
    let consumer: BaseConsumer =
        config(&broker.bootstrap()).set("group.id", "copy").set("auto.offset.reset", "earliest").create().unwrap();
    consumer.subscribe(&["in"]).expect("a subscription");
    until("it is a member", || {
        let _ = consumer.poll(Duration::from_millis(50));
        (consumer.assignment().expect("an assignment").count() > 0).then_some(())
    });
    let metadata = consumer.group_metadata().expect("a member");
    let producer = transactional(&broker.bootstrap(), "txn", 60_000);
    for (offset, commits, expected) in [(1, false, -1), (1, true, 1), (2, false, 1), (2, true, 2)] {
        producer.begin_transaction().expect("it begins");
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset("in", 0, Offset::Offset(offset)).unwrap();
        producer.send_offsets_to_transaction(&offsets, &metadata, WAIT_MAX).expect("they are taken");
        const UNSTABLE_OFFSET_COMMIT: i16 = 88;
        assert_eq!(committed(&broker, "copy", "in", true), Err(UNSTABLE_OFFSET_COMMIT));
        match commits {
            true => producer.commit_transaction(WAIT_MAX).expect("it commits"),
            false => producer.abort_transaction(WAIT_MAX).expect("it aborts"),
        }
        let found = until("its marker is there", || committed(&broker, "copy", "in", true).ok());
        assert_eq!(found, expected);
    }
}

#[test]
fn a_killed_broker_goes_on_with_transactions_where_they_were() {
    // Killed with a transaction open, with one just decided, several times: what was told to be committed is there, what
    // was not is not, and the same producer goes on.
    let mut broker = Broker::start(options(2));
    Admin::new(&broker.bootstrap()).create("t", 2, &[]);
    let producer = transactional(&broker.bootstrap(), "txn", 60_000);
    let mut expected = vec![Vec::new(), Vec::new()];
    for round in 0..3 {
        producer.begin_transaction().expect("it begins");
        for partition in 0..2 {
            send(&producer, "t", partition, &format!("{round} committed"));
            expected[partition as usize].push(format!("{round} committed"));
        }
        producer.commit_transaction(WAIT_MAX).expect("it commits");
        broker.kill9();
        broker.start_again();
        assert_eq!(texts(&read_committed_to_end(&broker, 2)), expected, "round {round}");

        producer.begin_transaction().expect("it begins");
        send(&producer, "t", 0, &format!("{round} open"));
        producer.flush(WAIT_MAX).expect("it is there");
        broker.kill9();
        broker.start_again();
        send(&producer, "t", 1, &format!("{round} open"));
        match round % 2 {
            0 => producer.abort_transaction(WAIT_MAX).expect("it aborts"),
            _ => {
                producer.commit_transaction(WAIT_MAX).expect("it commits");
                expected.iter_mut().for_each(|values| values.push(format!("{round} open")));
            }
        }
    }
    assert_eq!(texts(&read_committed_to_end(&broker, 2)), expected);
}

/// Committed records, once no transaction is under way.
fn read_committed_to_end(broker: &Broker, partition_count: i32) -> Vec<Vec<Read>> {
    until("every transaction has ended", || {
        let mut open = 0;
        for shard in broker.serving() {
            let request = ListTransactionsRequest::default().with_state_filters(
                ["Ongoing", "PrepareCommit", "PrepareAbort"].into_iter().map(StrBytes::from_static_str).collect(),
            );
            let listed = connect(&shard.address).call(0, &request).expect("answered");
            open += usize::from(listed.error_code != 0) + listed.transaction_states.len();
        }
        (open == 0).then_some(())
    });
    read_all(&broker.bootstrap(), "t", partition_count)
}

/// CPU time that a process has used, in seconds.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let fields: Vec<&str> = stat.rsplit_once(')').expect("a name").1.split_whitespace().collect();
    let ticks: u64 = fields[11..13].iter().map(|ticks| ticks.parse::<u64>().expect("a number")).sum();
    ticks as f64 / 100.0
}

#[test]
#[ignore = "takes minutes and wants a quiet machine; prints figures"]
fn what_a_transaction_costs() {
    // So many producers side by side, each with rounds of 100 records to a partition of its own, once as plain produce
    // and once as a transaction; in turns, the median of the broker's CPU time a round. What a transaction adds is the
    // same however its records come, so the ratio tells as much of how many requests they take.
    const PRODUCER_COUNT: i32 = 16;
    let broker = Broker::start(options(1));
    Admin::new(&broker.bootstrap()).create("t", PRODUCER_COUNT, &[]);
    let median = |values: &[f64]| {
        let mut values = values.to_vec();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    for (request_count, round_count) in [(1, 100), (10, 10), (100, 2)] {
        let run = |is_transactional: bool, number: usize| {
            let producers: Vec<Transactional> = (0..PRODUCER_COUNT)
                .map(|at| match is_transactional {
                    true => transactional(&broker.bootstrap(), &format!("txn-{request_count}-{number}-{at}"), 60_000),
                    false => {
                        let mut config = config(&broker.bootstrap());
                        config.set("enable.idempotence", "true").set("linger.ms", "2").create().expect("a producer")
                    }
                })
                .collect();
            let before = cpu_seconds(broker.pid());
            std::thread::scope(|scope| {
                for (partition, producer) in producers.iter().enumerate() {
                    scope.spawn(move || {
                        for _ in 0..round_count {
                            if is_transactional {
                                producer.begin_transaction().expect("it begins");
                            }
                            for _ in 0..request_count {
                                for _ in 0..100 / request_count {
                                    send(producer, "t", partition as i32, &"x".repeat(100));
                                }
                                producer.flush(WAIT_MAX).expect("delivered");
                            }
                            if is_transactional {
                                producer.commit_transaction(WAIT_MAX).expect("it commits");
                            }
                        }
                    });
                }
            });
            (cpu_seconds(broker.pid()) - before) * 1e6 / (f64::from(round_count) * f64::from(PRODUCER_COUNT))
        };
        let (mut plain, mut transactional) = (Vec::new(), Vec::new());
        for number in 0..5 {
            plain.push(run(false, number));
            transactional.push(run(true, number));
        }
        println!(
            "100 records by {request_count} requests: plain {plain:.0?} us of CPU, transactions {transactional:.0?}"
        );
        println!("ratio of the medians {:.2}", median(&transactional) / median(&plain));
    }
}
