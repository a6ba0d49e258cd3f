//! Fetching: waiting for data, looking offsets up, sessions, and the paths that bytes take.

mod common;

use std::sync::mpsc;
use std::time::{Duration, Instant};

use common::broker::{Broker, Options};
use common::clients::{Admin, consumer, read_all, read_one, send_all};
use common::requests::{
    self, AT_ONCE, FETCH, Limits, Topic, append, batch, connect, error_of, fetch, fetch_request, fetched, headers,
    list_offsets,
};
use common::until;
use kafka_protocol::messages::FetchRequest;
use ottla::base::time::Timestamp;
use ottla::model::builder::BatchBuilder;
use ottla::model::compression::Codec;
use ottla::protocol::ErrorCode;
use rdkafka::Offset;
use rdkafka::consumer::Consumer;

const MIB: usize = 1 << 20;

fn one_topic(broker: &Broker, name: &str, configs: &[(&str, &str)]) -> Topic {
    Admin::new(&broker.bootstrap()).create(name, 1, configs);
    requests::topic(&mut connect(&broker.serving()[0].address), name)
}

#[test]
fn a_fetch_at_the_end_waits_and_an_append_wakes_it() {
    // The broker itself says that the fetch waits; the answer comes after the append, long before max_wait.
    let broker = Broker::start(Options::shards(1));
    let topic = one_topic(&broker, "polled", &[]);
    let mut waiting = connect(&broker.bootstrap());
    let limits = Limits { min_bytes: 1, wait_ms_max: 50_000, ..AT_ONCE };
    waiting.send(FETCH, &fetch_request(FETCH, &topic, &[(0, 0)], limits)).unwrap();
    until("the fetch waits", || (broker.counter("fetch_waits") == 1).then_some(()));
    let (answers, answer) = mpsc::channel();
    let reader = std::thread::spawn(move || answers.send(waiting.receive::<FetchRequest>().unwrap()).unwrap());
    assert_eq!(answer.try_recv().unwrap_err(), mpsc::TryRecvError::Empty);
    assert_eq!(append(&mut connect(&broker.bootstrap()), &topic, 0, batch(&[b"woken"])), Ok(0));
    let response = answer.recv_timeout(Duration::from_secs(30)).expect("it is woken, not timed out");
    reader.join().unwrap();
    let data = fetched(&response);
    assert_eq!((data.high_watermark, headers(data.records.as_deref().unwrap()).len()), (1, 1));
}

#[test]
fn a_fetch_that_wants_more_bytes_waits_for_all_of_them() {
    // The first append is too small to wake it; the second makes enough, and both are in the answer.
    let broker = Broker::start(Options::shards(1));
    let topic = one_topic(&broker, "polled", &[]);
    let mut waiting = connect(&broker.bootstrap());
    let limits = Limits { min_bytes: 5000, wait_ms_max: 50_000, ..AT_ONCE };
    waiting.send(FETCH, &fetch_request(FETCH, &topic, &[(0, 0)], limits)).unwrap();
    until("the fetch waits", || (broker.counter("fetch_waits") == 1).then_some(()));
    let mut connection = connect(&broker.bootstrap());
    assert_eq!(append(&mut connection, &topic, 0, batch(&[&[1; 1000]])), Ok(0));
    assert_eq!(append(&mut connection, &topic, 0, batch(&[&[2; 5000]])), Ok(1));
    let response = waiting.receive::<FetchRequest>().unwrap();
    assert_eq!(headers(fetched(&response).records.as_deref().unwrap()).len(), 2);
}

#[test]
fn a_fetch_that_finds_nothing_is_answered_empty_after_max_wait() {
    let broker = Broker::start(Options::shards(1));
    let topic = one_topic(&broker, "polled", &[]);
    let mut connection = connect(&broker.bootstrap());
    let limits = Limits { min_bytes: 1, wait_ms_max: 200, ..AT_ONCE };
    let start = Instant::now();
    let response = fetch(&mut connection, FETCH, &topic, &[(0, 0)], limits);
    assert!(start.elapsed() >= Duration::from_millis(200), "{:?}", start.elapsed());
    let data = fetched(&response);
    assert_eq!((error_of(data.error_code), data.high_watermark), (ErrorCode::None, 0));
    assert!(data.records.as_deref().unwrap_or_default().is_empty());
}

#[test]
fn a_waiting_librdkafka_gets_records_as_they_come() {
    let broker = Broker::start(Options::shards(2));
    let topic = one_topic(&broker, "followed", &[]);
    let consumer = consumer(&broker.bootstrap(), "followed", &[(0, Offset::End)], &[("fetch.wait.max.ms", "30000")]);
    let mut connection = connect(broker.address_of(topic.partitions[0].0));
    let waits = until("the consumer waits at the end", || {
        assert!(consumer.poll(Duration::ZERO).is_none_or(|polled| polled.is_err()));
        Some(broker.counter("fetch_waits")).filter(|waits| *waits > 0)
    });
    assert!(waits > 0);
    for number in 0..20 {
        let value = format!("record {number}");
        assert_eq!(append(&mut connection, &topic, 0, batch(&[value.as_bytes()])), Ok(number));
        let read = read_one(&consumer);
        assert_eq!((read.offset, read.text()), (number, value.as_str()));
    }
}

#[test]
fn offsets_are_found_by_time_and_by_their_special_names() {
    // Batches of ten records, ten milliseconds apart, one of them out of order in time; several segments, so that
    // active and sealed ones are asked; and once more after a restart.
    const START_MS: i64 = 1_700_000_000_000;
    let mut broker = Broker::start(Options::shards(1));
    let topic = one_topic(&broker, "timed", &[("segment.bytes", "1048576"), ("retention.ms", "-1")]);
    let mut connection = connect(&broker.bootstrap());
    assert_eq!(list_offsets(&mut connection, 7, "timed", 0, -3).offset, -1, "no record has the greatest time yet");
    let time_of = |record: i64| if record == 205 { START_MS + 1_000_000 } else { START_MS + record * 10 };
    for number in 0..40 {
        let mut builder = BatchBuilder::new(Codec::None);
        for record in number * 10..number * 10 + 10 {
            builder.push(Timestamp(time_of(record)), None, Some(&[record as u8; 10_000]), &[]);
        }
        assert_eq!(append(&mut connection, &topic, 0, builder.build().into()), Ok(number * 10));
    }
    for round in 0..2 {
        let mut connection = connect(&broker.bootstrap());
        let mut ask = |timestamp: i64| {
            let found = list_offsets(&mut connection, 7, "timed", 0, timestamp);
            assert_eq!(error_of(found.error_code), ErrorCode::None);
            (found.offset, found.timestamp)
        };
        assert_eq!(ask(-2), (0, -1), "earliest, start {round}");
        assert_eq!(ask(-1), (400, -1), "latest, start {round}");
        assert_eq!(ask(-3), (205, time_of(205)), "greatest time, start {round}");
        assert_eq!(ask(0), (0, START_MS));
        for record in [0, 1, 9, 10, 99, 150, 204] {
            assert_eq!(ask(time_of(record)), (record, time_of(record)), "start {round}");
            assert_eq!(ask(time_of(record) - 9), (record, time_of(record)), "start {round}");
        }
        // From here on the first record that is late enough is the one with the greatest time.
        assert_eq!(ask(START_MS + 3500), (205, time_of(205)), "start {round}");
        assert_eq!(ask(time_of(205) + 1), (-1, -1), "start {round}");

        // librdkafka's own question.
        let consumer = consumer(&broker.bootstrap(), "timed", &[(0, Offset::Beginning)], &[]);
        let mut question = rdkafka::TopicPartitionList::new();
        question.add_partition_offset("timed", 0, Offset::Offset(time_of(150))).unwrap();
        let found = consumer.offsets_for_times(question, common::WAIT_MAX).unwrap();
        assert_eq!(found.elements()[0].offset(), Offset::Offset(150));
        assert_eq!(consumer.fetch_watermarks("timed", 0, common::WAIT_MAX).unwrap(), (0, 400));
        if round == 0 {
            broker.restart();
        }
    }
}

#[test]
fn an_offset_outside_of_the_log_is_refused_and_says_where_the_log_is() {
    let broker = Broker::start(Options::shards(1));
    let topic = one_topic(&broker, "bounded", &[]);
    let mut connection = connect(&broker.bootstrap());
    append(&mut connection, &topic, 0, batch(&[b"one", b"two"])).unwrap();
    for offset in [3, 1000, i64::MAX] {
        let response = fetch(&mut connection, FETCH, &topic, &[(0, offset)], AT_ONCE);
        assert_eq!(error_of(fetched(&response).error_code), ErrorCode::OffsetOutOfRange, "{offset}");
    }
    let response = fetch(&mut connection, FETCH, &topic, &[(0, 2)], AT_ONCE);
    assert_eq!(error_of(fetched(&response).error_code), ErrorCode::None);
}

#[test]
fn an_incremental_session_answers_only_what_is_new() {
    // A full fetch of three partitions opens the session; then nothing; then what one partition got.
    let broker = Broker::start(Options::shards(1));
    Admin::new(&broker.bootstrap()).create("session", 3, &[]);
    let mut connection = connect(&broker.bootstrap());
    let topic = requests::topic(&mut connection, "session");
    let all = [(0, 0), (1, 0), (2, 0)];
    let open = fetch_request(FETCH, &topic, &all, AT_ONCE).with_session_epoch(0);
    let opened = connection.call(FETCH, &open).unwrap();
    assert!(opened.session_id > 0);
    assert_eq!(opened.responses[0].partitions.len(), 3);
    let next = |epoch: i32| {
        let mut request = fetch_request(FETCH, &topic, &[], AT_ONCE);
        request.topics.clear();
        request.with_session_id(opened.session_id).with_session_epoch(epoch)
    };
    assert!(connection.call(FETCH, &next(1)).unwrap().responses.is_empty());
    append(&mut connection, &topic, 1, batch(&[b"new"])).unwrap();
    let answered = connection.call(FETCH, &next(2)).unwrap();
    let indexes: Vec<i32> = answered.responses[0].partitions.iter().map(|data| data.partition_index).collect();
    assert_eq!(indexes, [1]);
    let wrong = connection.call(FETCH, &next(7)).unwrap();
    assert_eq!(error_of(wrong.error_code), ErrorCode::InvalidFetchSessionEpoch);
    let unknown = connection.call(FETCH, &next(3).with_session_id(opened.session_id ^ 1)).unwrap();
    assert_eq!(error_of(unknown.error_code), ErrorCode::FetchSessionIdNotFound);
}

/// Batches of about 100 KiB, each of its own byte, until there are so many bytes; all of them.
fn fill(broker: &Broker, topic: &Topic, size_bytes: usize) -> Vec<u8> {
    let mut connection = connect(&broker.bootstrap());
    let mut sent = Vec::new();
    while sent.len() < size_bytes {
        let number = sent.len() / 1000;
        let bytes = batch(&[&[number as u8; 60_000], &[(number >> 8) as u8; 40_000]]);
        sent.extend_from_slice(&bytes);
        append(&mut connection, topic, 0, bytes).unwrap();
    }
    sent
}

#[test]
fn each_path_of_a_fetch_gives_the_bytes_that_were_sent() {
    // A small tail cache. The end of a log comes from it; what lies before it is read directly from the active
    // segment and spliced from sealed ones; a small range of a sealed segment is copied.
    let mut broker = Broker::start(Options::shards(1).arg("tail-cache", "1MiB"));
    let active = one_topic(&broker, "active", &[]);
    let sealed = one_topic(&broker, "sealed", &[("segment.bytes", "1048576")]);
    let sent_sealed = fill(&broker, &sealed, 6 * MIB);
    let sent_active = fill(&broker, &active, 6 * MIB);
    let mut connection = connect(&broker.bootstrap());
    let paths = |broker: &Broker| {
        ["tail", "splice", "direct", "copy"].map(|path| broker.counter(&format!("fetch_bytes_{path}")))
    };
    assert_eq!(paths(&broker), [0; 4]);

    let end = list_offsets(&mut connection, 7, "active", 0, -1).offset;
    let response = fetch(&mut connection, FETCH, &active, &[(0, end - 1)], AT_ONCE);
    let records = fetched(&response).records.as_deref().unwrap();
    assert!(
        requests::without_stamps(records)
            == requests::without_stamps(&sent_active[sent_active.len() - records.len()..])
    );
    let [tail, splice, direct, copy] = paths(&broker);
    assert_eq!((tail, splice, direct, copy), (records.len() as u64, 0, 0, 0), "the end comes from the tail cache");

    let found = requests::fetch_to_end(&mut connection, &active, 0, 0);
    assert!(requests::without_stamps(&found) == requests::without_stamps(&sent_active));
    let [_, splice, direct, copy] = paths(&broker);
    assert!(direct >= 4 * MIB as u64, "{direct} bytes of the active segment were read directly");
    assert_eq!((splice, copy), (0, 0));

    let found = requests::fetch_to_end(&mut connection, &sealed, 0, 0);
    assert!(requests::without_stamps(&found) == requests::without_stamps(&sent_sealed));
    let [_, splice, ..] = paths(&broker);
    assert!(splice >= 4 * MIB as u64, "{splice} bytes of sealed segments were spliced");

    // After a restart nothing but the unfinished last block is in memory.
    broker.restart();
    let mut connection = connect(&broker.bootstrap());
    for (topic, sent) in [(&active, &sent_active), (&sealed, &sent_sealed)] {
        let found = requests::fetch_to_end(&mut connection, topic, 0, 0);
        assert!(requests::without_stamps(&found) == requests::without_stamps(sent), "{}", topic.name);
    }
    let [tail, splice, ..] = paths(&broker);
    assert!(splice >= 5 * MIB as u64, "{splice} bytes were spliced after a restart");
    assert!(tail < 4096, "after a restart only the unfinished block is in memory: {tail}");
}

#[test]
fn a_small_range_of_a_sealed_segment_is_copied() {
    // Ranges below --splice-min-bytes are not worth a splice.
    let broker = Broker::start(Options::shards(1).arg("tail-cache", "1MiB").arg("splice-min-bytes", "4MiB"));
    let topic = one_topic(&broker, "copied", &[("segment.bytes", "1048576")]);
    let sent = fill(&broker, &topic, 5 * MIB);
    let found = requests::fetch_to_end(&mut connect(&broker.bootstrap()), &topic, 0, 0);
    assert!(requests::without_stamps(&found) == requests::without_stamps(&sent));
    assert_eq!(broker.counter("fetch_bytes_splice"), 0);
    assert!(broker.counter("fetch_bytes_copy") >= 3 * MIB as u64);
}

#[test]
fn librdkafka_reads_a_long_log_from_every_path() {
    // 20 MiB in segments of 1 MiB, read while a small tail cache holds the end.
    let broker = Broker::start(Options::shards(2).arg("tail-cache", "1MiB"));
    one_topic(&broker, "long", &[("segment.bytes", "1048576")]);
    let values: Vec<String> = (0..20_000).map(|number| format!("{number:06} ").repeat(150)).collect();
    send_all(&broker.bootstrap(), "long", 0, &values);
    let reads = read_all(&broker.bootstrap(), "long", 1).remove(0);
    assert_eq!(reads.len(), values.len());
    for (read, value) in reads.iter().zip(&values) {
        assert!(read.text() == value, "offset {}", read.offset);
    }
}
