//! The client against the sink, and against peers that misbehave.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use super::*;
use crate::base::time::Timestamp;
use crate::bench::fetch_frame::{FetchFrame, FetchLimits};
use crate::bench::route::Place;
use crate::bench::sink::tests::with_sink;
use crate::bench::workload::Workload;
use crate::io::uring::{Ring, RingOptions};
use crate::model::id::{Offset, PartitionIndex, TopicId};
use crate::protocol::produce::{ProducePartitionResponse, ProduceResponseEncoder};
use crate::protocol::{ErrorCode, Topic};

const VERSION: i16 = 13;
const FETCH_VERSION: i16 = 17;

fn ring() -> Ring {
    Ring::new(RingOptions::default(), 1 << 30, None).expect("a ring")
}

fn topic() -> LoadTopic {
    LoadTopic { name: "load".into(), id: TopicId(uuid::Uuid::from_u128(7)), partition_count: 2 }
}

fn places() -> Vec<Place> {
    (0..2).map(|id| Place { topic: 0, partition: id as i32, id }).collect()
}

fn times(measured_ms: u64) -> Times {
    let ms = Duration::from_millis;
    Times { warm_up: WarmUp::Time(ms(20)), measured: ms(measured_ms), interval: ms(50) }
}

/// One producing connection with four requests in flight.
fn producing(ring: &Ring, address: SocketAddr, acks: i16, load: Load) -> Setup {
    let workload = Workload { batch_size_bytes: 200, acks, ..Workload::default() };
    let cycle = Cycle::new(&workload, &[topic()], &places(), None, VERSION, 4, Timestamp(1), ring.pool()).unwrap();
    Setup {
        topics: vec![topic()],
        producers: vec![ProducerSetup { address, cycle, weight: 1.0 }],
        consumers: Vec::new(),
        streams: vec!["produce"],
        end_to_end: None,
        load,
        in_flight_count: 4,
        unanswered: acks == 0,
        seed: 1,
    }
}

fn run(ring: &mut Ring, setup: Setup, times: Times) -> anyhow::Result<Run> {
    Client::connect(ring, setup)?.run(times, &mut Meter::new(None).unwrap(), |_| ())
}

/// What a peer does with the request of this number and correlation id: bytes to send, or the end.
type Reaction = Box<dyn FnMut(u64, i32) -> Option<Vec<u8>> + Send>;

/// A peer that answers in pieces of so many bytes; returns how many requests it has answered.
fn peer(piece: usize, mut react: Reaction) -> (SocketAddr, thread::JoinHandle<u64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answering = move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_nodelay(true).unwrap();
        let mut count = 0;
        while let Some(id) = correlation_id(&mut stream) {
            let Some(bytes) = react(count, id) else { return count };
            for part in bytes.chunks(piece) {
                if stream.write_all(part).is_err() {
                    return count;
                }
            }
            count += 1;
        }
        count
    };
    (address, thread::spawn(answering))
}

/// Takes one request off the stream.
fn correlation_id(stream: &mut TcpStream) -> Option<i32> {
    let mut prefix = [0; 4];
    stream.read_exact(&mut prefix).ok()?;
    let mut content = vec![0; u32::from_be_bytes(prefix) as usize];
    stream.read_exact(&mut content).ok()?;
    Some(i32::from_be_bytes(content[4..8].try_into().unwrap()))
}

fn answer(id: i32, error: ErrorCode) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = ProduceResponseEncoder::begin(&mut out, VERSION, id, 1);
    encoder.topic(Topic::Id(topic().id), 1);
    let fine = ProducePartitionResponse::appended(PartitionIndex(0), Offset(0), Offset(0));
    encoder.partition(&ProducePartitionResponse { error, ..fine });
    encoder.finish(0, &[]);
    out
}

#[test]
fn every_request_is_answered_and_counted_once() {
    // Answers that come whole, in pieces and byte by byte; the peer's count is that of warm-up, measured time and end.
    for piece in [1, 7, 4096] {
        let (address, peer) = peer(piece, Box::new(|_, id| Some(answer(id, ErrorCode::None))));
        let mut ring = ring();
        let setup = producing(&ring, address, -1, Load::Closed);
        let run = run(&mut ring, setup, times(150)).unwrap();
        drop(ring);
        let recorder = &run.streams[0].1;
        let counted = recorder.counts().requests + run.warm_up_request_count;
        assert!(recorder.counts().requests > 0);
        assert_eq!(recorder.latency_ns().len(), recorder.counts().requests);
        // What was in flight at the end was answered and belongs to no interval.
        assert!((0..=4).contains(&(peer.join().unwrap() - counted)));
        assert_eq!(run.unanswered_count, 0);
    }
}

#[test]
fn an_error_a_wrong_answer_and_a_lost_connection_are_no_result() {
    let reactions: [(&str, Reaction); 4] = [
        (
            "NOT_LEADER_OR_FOLLOWER",
            Box::new(|count, id| {
                Some(answer(id, if count == 5 { ErrorCode::NotLeaderOrFollower } else { ErrorCode::None }))
            }),
        ),
        ("instead of", Box::new(|count, id| Some(answer(if count == 5 { id + 1 } else { id }, ErrorCode::None)))),
        ("closed", Box::new(|count, id| (count < 5).then(|| answer(id, ErrorCode::None)))),
        ("Kafka broker", Box::new(|_, _| Some(b"\xff\xff\xff\xff HTTP/1.1".to_vec()))),
    ];
    for (expected, reaction) in reactions {
        let (address, _peer) = peer(4096, reaction);
        let mut ring = ring();
        let setup = producing(&ring, address, -1, Load::Closed);
        let error = format!("{:#}", run(&mut ring, setup, times(5000)).unwrap_err());
        let reset = expected == "closed" && error.contains("receiving answers");
        assert!(error.contains(expected) || reset, "{error}");
    }
}

#[test]
fn a_stall_counts_for_every_request_that_it_holds_up() {
    // The peer stops for 400 ms in the middle of two seconds at 500 requests/s: those that were due in the first
    // 300 ms of that waited at least 100 ms. A closed loop has only those that were in flight.
    let stalling = || -> Reaction {
        let mut start = None;
        let mut stalled = false;
        Box::new(move |_, id| {
            let start = *start.get_or_insert_with(std::time::Instant::now);
            if !stalled && start.elapsed() > Duration::from_millis(500) {
                stalled = true;
                thread::sleep(Duration::from_millis(400));
            }
            Some(answer(id, ErrorCode::None))
        })
    };
    let slow_count = |load| {
        let (address, _peer) = peer(4096, stalling());
        let mut ring = ring();
        let setup = producing(&ring, address, -1, load);
        let run = run(&mut ring, setup, times(2000)).unwrap();
        let latency = run.streams[0].1.latency_ns();
        let slow = latency.count_between(100_000_000, latency.max().max(100_000_001));
        (slow, latency.len())
    };
    let (slow, count) = slow_count(Load::Open { rate_per_second: 500.0, arrivals: Arrivals::Uniform });
    assert!((140..600).contains(&slow), "{slow} of {count}");
    // Due in the measured time means in the result, however late.
    assert!((995..=1001).contains(&count), "{count}");
    let (slow, count) = slow_count(Load::Closed);
    assert!(slow < 40, "{slow} of {count}");
}

#[test]
fn without_acknowledgements_sending_is_what_counts() {
    with_sink(
        |_| (),
        |address| {
            let mut ring = ring();
            let setup = producing(&ring, address, 0, Load::Closed);
            let run = run(&mut ring, setup, times(100)).unwrap();
            assert!(run.streams[0].1.counts().requests > 0);
        },
    );
}

fn consuming(ring: &Ring, address: SocketAddr, at_end: AtEnd) -> Setup {
    let limits = FetchLimits { wait_ms_max: 0, min_bytes: 1, max_bytes: 100_000, partition_max_bytes: 50_000 };
    let frame = FetchFrame::new(&[topic()], &places(), FETCH_VERSION, limits).unwrap();
    let consumer = ConsumerSetup {
        frame,
        version: FETCH_VERSION,
        places: places(),
        positions: vec![0; 2],
        at_end,
        check_crc: true,
    };
    Setup {
        producers: Vec::new(),
        consumers: vec![(address, 0, consumer)],
        ..producing(ring, address, -1, Load::Closed)
    }
}

#[test]
fn a_consumer_reads_every_byte_once_or_again_and_again() {
    // The sink's block is 1 MiB for each of two partitions, in batches of 64 KiB: more than a limit, and given whole.
    with_sink(
        |options| options.fetch_size_bytes = 1 << 20,
        |address| {
            let now = Times { warm_up: WarmUp::Time(Duration::ZERO), ..times(60_000) };
            let mut ring = ring();
            let setup = consuming(&ring, address, AtEnd::Stop);
            let once = run(&mut ring, setup, now).unwrap();
            let once = once.streams[0].1.counts();
            assert!((2 << 20) - once.bytes < 300_000, "{once:?}");
            let setup = consuming(&ring, address, AtEnd::Repeat);
            let again = run(&mut ring, setup, Times { measured: Duration::from_millis(300), ..now }).unwrap();
            assert!(again.streams[0].1.counts().bytes > once.bytes);
        },
    );
}

#[test]
fn a_warm_up_may_end_by_itself() {
    with_sink(
        |_| (),
        |address| {
            let mut ring = ring();
            let setup = producing(&ring, address, -1, Load::Closed);
            // Any rate is steady by this measure, so a window of half seconds is enough.
            let warm_up = WarmUp::Steady { tolerance: 10.0, at_most: Duration::from_secs(60) };
            let run = run(&mut ring, setup, Times { warm_up, ..times(100) }).unwrap();
            assert_eq!(run.is_steady, Some(true));
            assert!(run.warm_up >= Duration::from_millis(2900) && run.warm_up < Duration::from_secs(60));
        },
    );
}
