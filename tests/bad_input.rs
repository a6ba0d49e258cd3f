//! What a client may send wrong, against the real binary on loopback: each gets the protocol's error or a closed
//! connection with a logged reason, memory stays within its bounds, and a witness on another connection goes on
//! producing and fetching throughout.

mod support_bad;

use std::io::Write;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::messages::{
    ApiVersionsRequest, CreateTopicsRequest, DeleteTopicsRequest, FetchRequest, InitProducerIdRequest,
    ListOffsetsRequest, MetadataRequest, ProduceRequest,
};
use ottla::model::batch;
use ottla::model::compression::Codec;
use ottla::protocol::decode::decode_response;

use support_bad::{Broker, FETCH_VERSION, PRODUCE_VERSION, Reaction, Wire, Witness, batch as records, batch_with};
use support_bad::{fetch, produce, produce_all};

/// The slowest round of a witness: a debug build on a host that builds other things at the same time.
const SLOWEST: Duration = Duration::from_secs(5);

const CORRUPT_MESSAGE: i16 = 2;
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
const MESSAGE_TOO_LARGE: i16 = 10;
const UNSUPPORTED_VERSION: i16 = 35;
const INVALID_RECORD: i16 = 87;

/// Asserts that the connection is closed, and that the log says why.
fn is_closed(broker: &Broker, wire: &mut Wire, reason: &str) {
    let port = wire.stream.local_addr().unwrap().port();
    wire.wait_for_close(support_bad::PATIENCE);
    let began = Instant::now();
    let name = format!("127.0.0.1:{port}");
    loop {
        let log = broker.log();
        if log.lines().any(|line| line.contains(&name) && line.contains("WARN") && line.contains(reason)) {
            return;
        }
        assert!(began.elapsed() < support_bad::PATIENCE, "no line with {name} and {reason:?}:\n{log}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A frame of `key` and `version` with an empty client id and `body`.
fn raw_frame(key: i16, version: i16, is_flexible: bool, body: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    content.extend_from_slice(&key.to_be_bytes());
    content.extend_from_slice(&version.to_be_bytes());
    content.extend_from_slice(&7i32.to_be_bytes());
    content.extend_from_slice(&(-1i16).to_be_bytes());
    if is_flexible {
        content.push(0);
    }
    content.extend_from_slice(body);
    let mut frame = (content.len() as i32).to_be_bytes().to_vec();
    frame.extend_from_slice(&content);
    frame
}

#[test]
fn a_frame_with_an_absurd_size_ends_its_connection_and_costs_nothing() {
    // 2 GiB, just above the bound, negative, too small for a header, and a client of another protocol.
    let broker = Broker::start(&[]);
    let witness = Witness::start(broker.address());
    let before = broker.rss_kib();
    for size in [i32::MAX, (100 << 20) + 1, -1, i32::MIN, 0, 7] {
        let mut wire = Wire::open(broker.address());
        wire.send(&size.to_be_bytes());
        is_closed(&broker, &mut wire, "outside of what socket.request.max.bytes allows");
    }
    let mut wire = Wire::open(broker.address());
    wire.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    is_closed(&broker, &mut wire, "outside of what socket.request.max.bytes allows");
    assert!(broker.rss_kib() < before + 64 * 1024);
    witness.finish(SLOWEST);
}

#[test]
fn only_a_produce_may_have_a_large_frame() {
    // 9 MiB of Metadata and of an unknown API are refused when the key is known, before the rest is sent; a Produce of
    // that size gets an answer.
    let broker = Broker::start(&[]);
    let witness = Witness::start(broker.address());
    let before = broker.rss_kib();
    for key in [3i16, 1, 19, 4711] {
        let mut wire = Wire::open(broker.address());
        wire.send(&(9i32 << 20).to_be_bytes());
        assert_eq!(wire.reaction(Duration::from_millis(50)), Reaction::Silent);
        wire.send(&key.to_be_bytes()[..1]);
        assert_eq!(wire.reaction(Duration::from_millis(50)), Reaction::Silent);
        wire.send(&key.to_be_bytes()[1..]);
        is_closed(&broker, &mut wire, "a frame of 9437184 bytes");
    }
    assert!(broker.rss_kib() < before + 8 * 1024);
    let mut wire = Wire::open(broker.address());
    wire.create_topic("large", 10, &[]);
    let part = Bytes::from(records(1, 950_000));
    let response = wire.call(PRODUCE_VERSION, &produce_all("large", (0..10).map(|index| (index, part.clone()))));
    assert!(response.responses[0].partition_responses.iter().all(|partition| partition.error_code == 0));
    witness.finish(SLOWEST);
}

#[test]
fn absurd_counts_and_lengths_end_the_connection_before_anything_is_allocated() {
    // Arrays that claim -2, 2^31-1 or many millions of elements, in the classic and in the compact form.
    let broker = Broker::start(&[]);
    let witness = Witness::start(broker.address());
    let before = broker.rss_kib();
    let huge = [i32::MAX.to_be_bytes(), 100_000_000i32.to_be_bytes(), (-2i32).to_be_bytes(), i32::MIN.to_be_bytes()];
    let compact: [&[u8]; 3] =
        [&[0xff, 0xff, 0xff, 0xff, 0x0f], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], &[0x80, 0xc8, 0xaf, 0x2f]];
    let mut bodies: Vec<(&str, i16, i16, bool, Vec<u8>)> = Vec::new();
    for count in huge {
        let with = |head: &[u8]| [head, &count].concat();
        bodies.push(("Metadata", 3, 4, false, with(&[])));
        bodies.push(("CreateTopics", 19, 2, false, with(&[])));
        bodies.push(("DeleteTopics", 20, 1, false, with(&[])));
        bodies.push(("ListOffsets", 2, 1, false, with(&(-1i32).to_be_bytes())));
        bodies.push(("OffsetForLeaderEpoch", 23, 2, false, with(&[])));
        bodies.push(("DescribeConfigs", 32, 1, false, with(&[])));
        // acks, timeout; replica, max wait, min bytes, max bytes, isolation.
        bodies.push(("Produce", 0, 3, false, with(&[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1])));
        bodies.push(("Fetch", 1, 4, false, with(&[0; 17])));
        // One topic "a" with so many partitions.
        bodies.push(("Produce", 0, 3, false, with(&[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 0, 0, 0, 1, 0, 1, b'a'])));
        let fetch_head = [&[0; 17][..], &[0, 0, 0, 1, 0, 1, b'a']].concat();
        bodies.push(("Fetch", 1, 4, false, with(&fetch_head)));
    }
    for count in compact {
        let with = |head: &[u8]| [head, count].concat();
        bodies.push(("Metadata", 3, 12, true, with(&[])));
        bodies.push(("CreateTopics", 19, 7, true, with(&[])));
        bodies.push(("DeleteTopics", 20, 6, true, with(&[])));
        bodies.push(("DescribeTopicPartitions", 75, 0, true, with(&[])));
        bodies.push(("Produce", 0, 9, true, with(&[0, 0xff, 0xff, 0, 0, 0, 1])));
        bodies.push(("Fetch", 1, 12, true, with(&[0; 25])));
    }
    // Null where the protocol has none, and counts with too few bytes behind.
    bodies.push(("CreateTopics", 19, 2, false, (-1i32).to_be_bytes().to_vec()));
    bodies.push(("Produce", 0, 3, false, vec![0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff]));
    for (name, key, version, is_flexible, mut body) in bodies {
        // Some bytes behind, so that a small wrong count would be found out by its own walk.
        body.extend_from_slice(&[0xff; 40]);
        let mut wire = Wire::open(broker.address());
        wire.send(&raw_frame(key, version, is_flexible, &body));
        is_closed(&broker, &mut wire, &format!("malformed request: {name}"));
    }
    assert!(broker.rss_kib() < before + 16 * 1024, "{} KiB, then {} KiB", before, broker.rss_kib());
    witness.finish(SLOWEST);
}

#[test]
fn a_request_that_is_cut_anywhere_ends_its_connection() {
    // Good requests whose frame says so few bytes that the body ends early.
    let broker = Broker::start(&[]);
    let witness = Witness::start(broker.address());
    let mut wire = Wire::open(broker.address());
    wire.create_topic("cut", 1, &[]);
    let frames = [
        ("Metadata", wire.frame(4, &MetadataRequest::default().with_topics(Some(vec![])))),
        ("Produce", wire.frame(PRODUCE_VERSION, &produce("cut", 0, records(1, 10)))),
        ("Fetch", wire.frame(FETCH_VERSION, &fetch("cut", 0, 0, 1000, 0))),
        ("CreateTopics", wire.frame(5, &CreateTopicsRequest::default())),
        ("InitProducerId", wire.frame(2, &InitProducerIdRequest::default())),
    ];
    for (name, frame) in frames {
        for lost in [1, frame.len() / 4, frame.len() / 2] {
            let mut cut = frame[..frame.len() - lost].to_vec();
            let size = cut.len() as i32 - 4;
            cut[..4].copy_from_slice(&size.to_be_bytes());
            let mut wire = Wire::open(broker.address());
            wire.send(&cut);
            let reason = "malformed request: ";
            is_closed(&broker, &mut wire, reason);
            assert!(broker.log().contains(name) || lost > 1);
        }
    }
    witness.finish(SLOWEST);
}

#[test]
fn an_unknown_api_or_version_ends_the_connection() {
    let broker = Broker::start(&[]);
    let witness = Witness::start(broker.address());
    for (key, version, reason) in [
        (4711, 0, "unknown API key"),
        (-1, 0, "unknown API key"),
        (3, 99, "unsupported API version"),
        (0, 2, "unsupported API version"),
        (1, 3, "unsupported API version"),
        (1, -1, "unsupported API version"),
    ] {
        let mut wire = Wire::open(broker.address());
        wire.send(&raw_frame(key, version, false, &[0; 20]));
        is_closed(&broker, &mut wire, reason);
    }
    let mut wire = Wire::open(broker.address());
    // A client id that is longer than the frame.
    wire.send(&[0, 0, 0, 12, 0, 3, 0, 4, 0, 0, 0, 1, 0x7f, 0xff, 0, 0]);
    is_closed(&broker, &mut wire, "malformed request: request header");
    witness.finish(SLOWEST);
}

#[test]
fn api_versions_of_an_unknown_version_gets_our_list_and_the_connection_goes_on() {
    // KIP-511: a body of version 0 with error 35; then the client asks again with a version that it found there.
    let broker = Broker::start(&[]);
    let mut wire = Wire::open(broker.address());
    for version in [5i16, 99, i16::MAX, -1] {
        wire.send(&raw_frame(18, version, false, &[0xff; 30]));
        let content = wire.receive_frame().unwrap();
        let (correlation_id, response) = decode_response::<ApiVersionsRequest>(Bytes::from(content), 0).unwrap();
        assert_eq!((correlation_id, response.error_code), (7, UNSUPPORTED_VERSION));
        let own = response.api_keys.iter().find(|api| api.api_key == 18).unwrap();
        assert_eq!((own.min_version, own.max_version), (0, 4));
    }
    let response = wire.call(
        3,
        &ApiVersionsRequest::default()
            .with_client_software_name(support_bad::text("test"))
            .with_client_software_version(support_bad::text("1")),
    );
    assert_eq!(response.error_code, 0);
}

#[test]
fn batches_that_are_none_are_refused_and_leave_no_trace() {
    // Each gets its error alone; the connection stays, and the log still begins with the one good batch.
    let broker = Broker::start(&[]);
    let witness = Witness::start(broker.address());
    let mut wire = Wire::open(broker.address());
    wire.create_topic("batches", 1, &[]);
    let good = records(3, 100);
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        bytes
    };
    let stamped = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = changed(change);
        batch::stamp_crc(&mut bytes);
        bytes
    };
    let put = |bytes: &mut Vec<u8>, at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    let cases: Vec<(&str, Vec<u8>, i16)> = vec![
        ("empty", Vec::new(), INVALID_RECORD),
        ("cut in the header", good[..30].to_vec(), CORRUPT_MESSAGE),
        ("cut in the records", good[..good.len() - 1].to_vec(), CORRUPT_MESSAGE),
        ("a wrong CRC", changed(&|b| put(b, 17, &[1, 2, 3, 4])), CORRUPT_MESSAGE),
        ("a flipped bit", changed(&|b| b[80] ^= 1), CORRUPT_MESSAGE),
        ("a length that is too long", changed(&|b| put(b, 8, &(1i32 << 30).to_be_bytes())), CORRUPT_MESSAGE),
        ("a length that is negative", changed(&|b| put(b, 8, &(-1i32).to_be_bytes())), CORRUPT_MESSAGE),
        ("a length too short for a header", changed(&|b| put(b, 8, &20i32.to_be_bytes())), CORRUPT_MESSAGE),
        ("two batches", [good.clone(), good.clone()].concat(), INVALID_RECORD),
        ("bytes behind", [good.clone(), vec![0]].concat(), INVALID_RECORD),
        ("magic 0", changed(&|b| b[16] = 0), INVALID_RECORD),
        ("magic 1", changed(&|b| b[16] = 1), INVALID_RECORD),
        ("magic 3", changed(&|b| b[16] = 3), INVALID_RECORD),
        ("a count that the offsets deny", stamped(&|b| put(b, 57, &4i32.to_be_bytes())), INVALID_RECORD),
        ("a count of none", stamped(&|b| put(b, 57, &0i32.to_be_bytes())), INVALID_RECORD),
        ("a negative count", stamped(&|b| put(b, 57, &(-1i32).to_be_bytes())), INVALID_RECORD),
        ("a negative last offset", stamped(&|b| put(b, 23, &(-1i32).to_be_bytes())), INVALID_RECORD),
        ("a control batch", stamped(&|b| b[22] |= 0x20), INVALID_RECORD),
        ("larger than max.message.bytes", records(1, 1_100_000), MESSAGE_TOO_LARGE),
    ];
    for (what, bytes, expected) in cases {
        let (error, offset) = wire.produce("batches", 0, bytes);
        assert_eq!((error, offset), (expected, -1), "{what}");
    }
    let null = wire.frame(PRODUCE_VERSION, &{
        let mut request = produce("batches", 0, Bytes::new());
        request.topic_data[0].partition_data[0].records = None;
        request
    });
    wire.send(&null);
    let response = wire.receive::<ProduceRequest>(PRODUCE_VERSION);
    assert_eq!(response.responses[0].partition_responses[0].error_code, INVALID_RECORD);
    assert_eq!(wire.produce("batches", 9, good.clone()).0, UNKNOWN_TOPIC_OR_PARTITION);
    assert_eq!(wire.produce("nowhere", -1, good.clone()).0, UNKNOWN_TOPIC_OR_PARTITION);
    assert_eq!(wire.produce("batches", 0, good.clone()), (0, 0));
    let (error, fetched) = wire.fetch("batches", 0, 0, 1 << 20);
    assert_eq!((error, fetched.len()), (0, good.len()));
    assert_eq!(fetched[batch::CRC_COVERED_FROM..], good[batch::CRC_COVERED_FROM..]);
    witness.finish(SLOWEST);
}

#[test]
fn records_that_lie_pass_header_validation_and_not_record_validation() {
    // Batches with a good header and CRC around records that do not decompress, are too few, too many, or broken.
    let broker = Broker::start(&[]);
    let witness = Witness::start(broker.address());
    let mut wire = Wire::open(broker.address());
    wire.create_topic("header", 1, &[]);
    wire.create_topic("records", 1, &[("ottla.validate", "records")]);
    let before = broker.rss_kib();
    let mut lies: Vec<(String, Vec<u8>)> = Vec::new();
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let mut bytes = batch_with(codec, 3, 200);
        let middle = (batch::HEADER_SIZE + bytes.len()) / 2;
        bytes[batch::HEADER_SIZE..middle].fill(0xff);
        batch::stamp_crc(&mut bytes);
        lies.push((format!("{codec:?} garbage"), bytes));
        let mut bytes = batch_with(codec, 3, 200);
        bytes.truncate(bytes.len() - 30);
        let length = bytes.len() as i32 - 12;
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        batch::stamp_crc(&mut bytes);
        lies.push((format!("{codec:?} cut"), bytes));
    }
    for count in [2i32, 4] {
        let mut bytes = records(3, 50);
        bytes[57..61].copy_from_slice(&count.to_be_bytes());
        bytes[23..27].copy_from_slice(&(count - 1).to_be_bytes());
        batch::stamp_crc(&mut bytes);
        lies.push((format!("{count} instead of 3 records"), bytes));
    }
    let mut bytes = records(3, 50);
    bytes[batch::HEADER_SIZE] = 0xff;
    batch::stamp_crc(&mut bytes);
    lies.push(("a record's length".into(), bytes));
    for (what, bytes) in lies {
        assert_eq!(wire.produce("records", 0, bytes.clone()), (INVALID_RECORD, -1), "{what}");
        assert_eq!(wire.produce("header", 0, bytes).0, 0, "{what}");
    }
    // 1 GiB of zeros in a batch of some KiB: refused when it has grown above the bound.
    let bomb = {
        let mut encoder = zstd_of_zeros(1 << 30);
        let mut bytes = batch_with(Codec::Zstd, 1, 10);
        bytes.truncate(batch::HEADER_SIZE);
        bytes.append(&mut encoder);
        let length = bytes.len() as i32 - 12;
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        batch::stamp_crc(&mut bytes);
        bytes
    };
    assert!(bomb.len() < 1 << 20, "{}", bomb.len());
    assert_eq!(wire.produce("records", 0, bomb), (INVALID_RECORD, -1));
    assert!(broker.rss_peak_kib() < before + 256 * 1024, "{} KiB", broker.rss_peak_kib());
    for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        assert_eq!(wire.produce("records", 0, batch_with(codec, 5, 300)).0, 0);
    }
    witness.finish(SLOWEST);
}

fn zstd_of_zeros(size_bytes: usize) -> Vec<u8> {
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
    let zeros = vec![0; 1 << 20];
    for _ in 0..size_bytes >> 20 {
        encoder.write_all(&zeros).unwrap();
    }
    encoder.finish().unwrap()
}

#[test]
fn requests_that_come_byte_by_byte_are_answered() {
    let broker = Broker::start(&[]);
    let mut wire = Wire::open(broker.address());
    wire.create_topic("slow", 1, &[]);
    let frame = wire.frame(PRODUCE_VERSION, &produce("slow", 0, records(1, 20)));
    for byte in &frame {
        wire.send(&[*byte]);
        std::thread::sleep(Duration::from_millis(1));
    }
    let response = wire.receive::<ProduceRequest>(PRODUCE_VERSION);
    assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
    // Two and a half requests in one piece, then the rest.
    let frames: Vec<Vec<u8>> =
        (0..3).map(|offset| wire.frame(FETCH_VERSION, &fetch("slow", 0, offset.min(1), 1000, 0))).collect();
    let bytes = frames.concat();
    let cut = bytes.len() - frames[2].len() / 2;
    wire.send(&bytes[..cut]);
    let first = wire.receive::<FetchRequest>(FETCH_VERSION);
    assert!(first.responses[0].partitions[0].records.as_ref().is_some_and(|records| !records.is_empty()));
    wire.receive::<FetchRequest>(FETCH_VERSION);
    assert_eq!(wire.reaction(Duration::from_millis(50)), Reaction::Silent);
    wire.send(&bytes[cut..]);
    wire.receive::<FetchRequest>(FETCH_VERSION);
}

#[test]
fn a_client_that_stops_in_the_middle_of_a_frame_is_closed_in_time() {
    // Its time is connections.max.idle.ms where that is less than a minute. A connection that says nothing at all
    // is idle, which is nobody's mistake.
    let broker = Broker::start(&["--set", "connections.max.idle.ms=1500"]);
    let witness = Witness::start(broker.address());
    let mut half = Wire::open(broker.address());
    let frame = half.frame(PRODUCE_VERSION, &produce("any", 0, records(1, 3000)));
    half.send(&frame[..frame.len() / 2]);
    let mut prefix = Wire::open(broker.address());
    prefix.send(&[0, 0]);
    let mut idle = Wire::open(broker.address());
    is_closed(&broker, &mut half, "did not send the rest of its request in time");
    is_closed(&broker, &mut prefix, "did not send the rest of its request in time");
    idle.wait_for_close(support_bad::PATIENCE);
    witness.finish(SLOWEST);
}

#[test]
fn a_client_that_never_reads_is_bounded_and_closed_in_time() {
    // Each of five pipelines hundreds of fetches of 4 MiB out of a log of 64 MiB that is not all in the tail cache,
    // and reads nothing. Answers pile up to a bound; when the client has taken nothing for its time it is closed, or sooner:
    // they hold all the memory there is for answers. Those whose fetches found no room have empty answers and end as
    // idle.
    let args = ["--set", "connections.max.idle.ms=4000", "--memory-per-shard", "64MiB", "--tail-cache", "8MiB"];
    let broker = Broker::start(&args);
    let mut filler = Wire::open(broker.address());
    filler.create_topic("big", 1, &[]);
    let part = Bytes::from(records(1, 950_000));
    for _ in 0..70 {
        assert_eq!(filler.produce("big", 0, part.clone()).0, 0);
    }
    let witness = Witness::start(broker.address());
    let before = broker.rss_kib();
    let mut greedy: Vec<Wire> = (0..5)
        .map(|number| {
            let mut wire = Wire::open(broker.address());
            let mut frames = Vec::new();
            for index in 0..500 {
                let offset = (number * 13 + index) % 60;
                frames.extend(wire.frame(FETCH_VERSION, &fetch("big", 0, offset, 4 << 20, 0)));
            }
            wire.send(&frames);
            wire
        })
        .collect();
    let began = Instant::now();
    let mut most = before;
    while began.elapsed() < Duration::from_secs(3) {
        most = most.max(broker.rss_kib());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(most < before + 70 * 1024, "{before} KiB, then {most} KiB");
    broker.wait_for_log("the client did not take its responses");
    for wire in &mut greedy {
        wire.wait_for_close(support_bad::PATIENCE);
    }
    witness.finish(SLOWEST);
    // What they held is there for others again.
    let mut wire = Wire::open(broker.address());
    for offset in 0..70 {
        let (error, fetched) = wire.fetch("big", 0, offset, 1 << 20);
        assert_eq!((error, fetched.len()), (0, part.len()));
    }
}

#[test]
fn a_frame_that_is_announced_holds_no_memory_and_stops_nobody() {
    // 100 connections announce a Produce of 50 MiB each and send some KiB of it now and then; the budget for
    // receiving holds two such frames. Small requests, and a batch of 900 KB, go on beside them.
    let broker = Broker::start(&["--set", "connections.max.idle.ms=6000"]);
    let mut live = Wire::open(broker.address());
    live.create_topic("live", 1, &[]);
    let witness = Witness::start(broker.address());
    let before = broker.rss_kib();
    let part = Bytes::from(records(1, 900_000));
    let mut slow: Vec<Wire> = (0..100)
        .map(|_| {
            let mut wire = Wire::open(broker.address());
            let mut start = raw_frame(0, PRODUCE_VERSION, true, &[0; 3000]);
            start[..4].copy_from_slice(&(50i32 << 20).to_be_bytes());
            wire.send(&start);
            wire
        })
        .collect();
    let cpu_before = broker.cpu();
    for round in 0..20 {
        for wire in &mut slow {
            // Some are closed by and by.
            let _ = wire.stream.write_all(&[0; 1000]);
        }
        assert_eq!(live.produce("live", 0, part.clone()), (0, round));
        std::thread::sleep(Duration::from_millis(50));
    }
    let cpu = broker.cpu() - cpu_before;
    let rss = broker.rss_kib();
    println!("100 announced frames of 50 MiB: {} KiB more, {cpu:?} of CPU in about a second", rss - before.min(rss));
    assert!(rss < before + 128 * 1024, "{before} KiB, then {rss} KiB");
    broker.wait_for_log("did not send the rest of its request in time");
    drop(slow);
    witness.finish(SLOWEST);
}

#[test]
fn memory_for_receiving_goes_round() {
    // Twelve clients send Produce requests of 40 MiB at the same time, which do not fit the budget together: each is
    // received and answered in its turn.
    let broker = Broker::start(&["--memory-per-shard", "192MiB"]);
    let mut wire = Wire::open(broker.address());
    wire.create_topic("turns", 12, &[]);
    let witness = Witness::start(broker.address());
    let address = broker.address();
    let threads: Vec<_> = (0..12)
        .map(|_| {
            std::thread::spawn(move || {
                let mut wire = Wire::open(address);
                // Partitions that are not there: only the way in is of interest.
                let part = Bytes::from(vec![0; 1 << 20]);
                let request = produce_all("turns", (100..140).map(|index| (index, part.clone())));
                let response = wire.call(PRODUCE_VERSION, &request);
                assert_eq!(response.responses[0].partition_responses.len(), 40);
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert!(broker.rss_peak_kib() < 256 * 1024, "{} KiB", broker.rss_peak_kib());
    witness.finish(SLOWEST);
}

#[test]
fn clients_that_come_and_go_leave_nothing_behind() {
    // Some say nothing, some leave in the middle of a frame, some leave fetches behind that were to wait for an hour,
    // some a produce whose answer nobody takes. Memory may grow until the tail cache is full and to the peak of what is
    // open at once, which depends on the machine; what leaks grows in every round.
    let broker = Broker::start(&[]);
    let mut wire = Wire::open(broker.address());
    wire.create_topic("visited", 1, &[]);
    let witness = Witness::start(broker.address());
    let visit = |count: usize| {
        for number in 0..count {
            let mut wire = Wire::open(broker.address());
            let frame = match number % 4 {
                0 => Vec::new(),
                1 => wire.frame(PRODUCE_VERSION, &produce("visited", 0, records(1, 100)))[..50].to_vec(),
                2 => (0..100).flat_map(|_| long_poll()).collect(),
                _ => wire.frame(PRODUCE_VERSION, &produce("visited", 0, records(1, 100))),
            };
            let _ = wire.stream.write_all(&frame);
            if number % 8 == 2 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        // The last ones may not have been looked at yet.
        std::thread::sleep(Duration::from_millis(200));
        broker.rss_kib()
    };
    let mut rss_kib = vec![visit(800)];
    let mut quiet_rounds = 0;
    while quiet_rounds < 3 {
        assert!(rss_kib.len() < 60, "nearly every round left something behind: {rss_kib:?} KiB");
        rss_kib.push(visit(800));
        let [.., before, after] = rss_kib[..] else { unreachable!() };
        quiet_rounds += u32::from(after < before + 100);
    }
    println!("KiB after each 800 visits: {rss_kib:?}");
    witness.finish(SLOWEST);
}

#[test]
fn clients_that_just_go_are_counted_and_write_no_lines() {
    // 200 clients reset their connections, half of them in the middle of a request.
    let broker = Broker::start(&[]);
    for number in 0..200 {
        let mut wire = Wire::open(broker.address());
        wire.metadata(Some("nothing"));
        if number % 2 == 0 {
            wire.send(&[0, 0, 1]);
        }
        let linger = libc::linger { l_onoff: 1, l_linger: 0 };
        nix::sys::socket::setsockopt(&wire.stream, nix::sys::socket::sockopt::Linger, &linger).unwrap();
    }
    let began = Instant::now();
    while broker.counter("connections_broken") < 200 {
        assert!(began.elapsed() < support_bad::PATIENCE, "{} of 200", broker.counter("connections_broken"));
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(!broker.log().contains("connection closed"), "{}", broker.log());
}

/// A fetch that waits for an hour for more bytes than there will ever be.
fn long_poll() -> Vec<u8> {
    let mut bytes = Vec::new();
    let request = fetch("visited", 0, 0, 1000, 3_600_000).with_min_bytes(i32::MAX);
    ottla::protocol::encode::encode_request(&mut bytes, FETCH_VERSION, 1, None, &request).unwrap();
    bytes
}

#[test]
fn requests_that_make_no_sense_get_their_error() {
    // Sound on the wire, nonsense in meaning: answered by the API's own error, and the connection goes on.
    let broker = Broker::start(&[]);
    let mut wire = Wire::open(broker.address());
    wire.create_topic("sense", 1, &[]);
    let created = |wire: &mut Wire, name: &str, partition_count: i32| {
        use kafka_protocol::messages::create_topics_request::CreatableTopic;
        let topic = CreatableTopic::default()
            .with_name(support_bad::topic_name(name))
            .with_num_partitions(partition_count)
            .with_replication_factor(1);
        let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(10_000);
        wire.call(5, &request).topics[0].error_code
    };
    assert_eq!(created(&mut wire, "sense", 1), 36);
    for name in ["", ".", "..", "a/b", "ä", "../../x", &"n".repeat(250)] {
        assert_eq!(created(&mut wire, name, 1), 17, "{name:?}");
    }
    for count in [0, -2, i32::MIN, i32::MAX] {
        assert_eq!(created(&mut wire, "counted", count), 37, "{count}");
    }
    let unknown = vec![support_bad::topic_name("nowhere"), support_bad::topic_name("../x")];
    let response = wire.call(4, &DeleteTopicsRequest::default().with_topic_names(unknown).with_timeout_ms(10_000));
    assert!(response.responses.iter().all(|topic| topic.error_code == UNKNOWN_TOPIC_OR_PARTITION));
    for offset in [-5, 1, i64::MAX, i64::MIN] {
        assert_eq!(wire.fetch("sense", 0, offset, 1000).0, 1, "{offset}");
    }
    for partition in [-1, 1, i32::MAX, i32::MIN] {
        assert_eq!(wire.fetch("sense", partition, 0, 1000).0, UNKNOWN_TOPIC_OR_PARTITION, "{partition}");
    }
    for (size, wait) in [(i32::MIN, -1), (-1, i32::MIN), (0, 0), (i32::MAX, 1)] {
        let response = wire.call(FETCH_VERSION, &fetch("sense", 0, 0, size, wait).with_min_bytes(i32::MIN));
        assert_eq!(response.responses[0].partitions[0].error_code, 0);
    }
    let acks = produce("sense", 0, records(1, 1)).with_acks(7).with_timeout_ms(-1);
    let response = wire.call(PRODUCE_VERSION, &acks);
    assert_eq!(response.responses[0].partition_responses[0].error_code, 21);
    let response = wire.call(4, &ListOffsetsRequest::default().with_replica_id((-1).into()));
    assert!(response.topics.is_empty());
    assert_eq!(wire.produce("sense", 0, records(1, 1)), (0, 0));
    // acks=0 cannot be answered: an error there ends the connection, as in Kafka.
    let mut silent = Wire::open(broker.address());
    let frame = silent.frame(PRODUCE_VERSION, &produce("nowhere", 0, records(1, 1)).with_acks(0));
    silent.send(&frame);
    is_closed(&broker, &mut silent, "Produce with acks=0 failed");
}
