//! The sink answers, and its log holds what was sent.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;

use super::*;
use crate::base::time::Timestamp;
use crate::client::{Client, ClientError, ClientOptions, FetchOptions, Fetcher, OutRecord, Producer, ProducerOptions};
use crate::io::uring::{Ring, RingOptions};
use crate::model::batch::{batches, validate};
use crate::model::id::Offset;

/// Runs `test` beside a sink of two partitions, whose options `change` may change.
pub(in crate::bench) fn with_sink<T>(change: impl FnOnce(&mut SinkOptions), test: impl FnOnce(SocketAddr) -> T) -> T {
    let mut options = SinkOptions {
        listen: "127.0.0.1:0".parse().unwrap(),
        partition_count: 2,
        log: None,
        fetch_size_bytes: 1 << 20,
        fetch_batch_size_bytes: 64 << 10,
        fetch_file: None,
    };
    change(&mut options);
    let (sender, receiver) = mpsc::channel();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let serving = thread::spawn(move || {
        let mut ring = Ring::new(RingOptions::default(), 1 << 30, None).expect("a ring");
        let waker = ring.waker();
        let sink = Sink::new(&mut ring, &options).expect("a sink");
        sender.send((sink.address(), waker)).unwrap();
        sink.run(|| stopped.load(Ordering::Relaxed)).expect("the sink serves");
    });
    let (address, waker) = receiver.recv().expect("the sink starts");
    let result = test(address);
    stop.store(true, Ordering::Relaxed);
    waker.wake();
    serving.join().expect("the sink stops");
    result
}

fn client(address: SocketAddr) -> Client {
    Client::connect(&address.to_string(), ClientOptions::default()).expect("it answers ApiVersions")
}

#[test]
fn an_ordinary_client_takes_it_for_a_broker() {
    // Metadata, then both partitions' blocks from memory and by splice, checked by the client as any other answer.
    for by_splice in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fetch");
        let change = |options: &mut SinkOptions| options.fetch_file = by_splice.then_some(path);
        with_sink(change, |address| {
            let positions = [(0, Offset(0)), (1, Offset(0))].into();
            let mut fetcher = Fetcher::new(client(address), "any", positions, FetchOptions::default()).unwrap();
            let mut read = [0; 2];
            let mut end = i64::MAX;
            while read.iter().any(|count| *count < end) {
                for part in fetcher.poll().unwrap() {
                    end = part.high_watermark.0;
                    let counted = part.for_each::<ClientError>(|record| {
                        assert_eq!(record.offset.0, read[part.partition as usize]);
                        read[part.partition as usize] += 1;
                        Ok(ControlFlow::Continue(()))
                    });
                    assert!(counted.unwrap().is_continue());
                }
            }
            assert_eq!(read, [end; 2]);
        });
    }
}

#[test]
fn what_it_acknowledges_is_in_its_log() {
    // More than the staging buffer holds, so that writing goes on while more comes; prepared in both ways.
    for written in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let log = LogOptions { path: path.clone(), size_bytes: 16 << 20, sync: true, written };
        with_sink(
            |options| options.log = Some(log),
            |address| {
                let options = ProducerOptions { idempotent: false, ..ProducerOptions::default() };
                let mut producer = Producer::new(client(address), "any", options, 1).unwrap();
                for index in 0..6000u32 {
                    let mut value = vec![7; 1000];
                    value[..4].copy_from_slice(&index.to_be_bytes());
                    let record = OutRecord {
                        partition: Some(0),
                        key: None,
                        value: Some(&value),
                        headers: &[],
                        timestamp: Timestamp(1),
                    };
                    producer.push(record).unwrap();
                }
                producer.flush().unwrap();
                let bytes = std::fs::read(&path).unwrap();
                let mut record_count = 0;
                for (header, batch) in batches(&bytes).take_while(|(header, _)| header.magic == 2) {
                    validate(batch).unwrap();
                    record_count += header.record_count;
                }
                assert_eq!(record_count, 6000);
            },
        );
    }
}
