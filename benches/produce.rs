//! The way of a Produce request in a shard, without its I/O: walk, validation with CRC-32C, stamping, the answer.

mod harness;

use std::hint::black_box;

use bytes::Bytes;
use criterion::Throughput;
use harness::Subject;
use kafka_protocol::messages::ProduceRequest as Message;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use ottla::base::rng::Rng;
use ottla::base::time::Timestamp;
use ottla::bench::Workload;
use ottla::model::batch::{stamp, validate};
use ottla::model::id::{LeaderEpoch, Offset, PartitionIndex, TopicId};
use ottla::model::records::validate_records;
use ottla::protocol::encode::encode_request;
use ottla::protocol::produce::{ProducePartitionResponse, ProduceRequest, ProduceResponseEncoder, ProduceStep};
use ottla::protocol::{Topic, header};

const SIZES: [usize; 3] = [256, 4096, 65536];
const VERSION: i16 = 13;

fn batch(batch_size_bytes: usize, record_size_bytes: usize) -> Vec<u8> {
    let workload = Workload { batch_size_bytes, record_size_bytes, ..Workload::default() };
    workload.batch(&mut Rng::new(1), Timestamp(1_750_000_000_000))
}

/// A request for so many partitions, without its size prefix.
fn frame(partition_count: i32) -> Vec<u8> {
    let data = (0..partition_count)
        .map(|index| PartitionProduceData::default().with_index(index).with_records(Some(Bytes::from(batch(256, 0)))));
    let topic = TopicProduceData::default().with_topic_id(uuid::Uuid::from_u128(7)).with_partition_data(data.collect());
    let request = Message::default().with_acks(-1).with_timeout_ms(1000).with_topic_data(vec![topic]);
    let mut frame = Vec::new();
    encode_request(&mut frame, VERSION, 1, Some("bench"), &request).expect("it can be encoded");
    frame.split_off(4)
}

fn walk(partition_count: i32) -> Subject {
    let frame = frame(partition_count);
    let throughput = Throughput::Elements(partition_count as u64);
    Subject::new("produce walk", partition_count, throughput, move || {
        let header = header::parse(black_box(&frame)).expect("a header");
        let request = ProduceRequest::parse(&frame, header.body_offset, VERSION).expect("a request");
        let mut steps = request.steps();
        let mut size = 0;
        while let Some(step) = steps.next(&frame) {
            if let ProduceStep::Partition { records: Some(records), .. } = step {
                size += records.len();
            }
        }
        size
    })
}

fn check(size: usize) -> Subject {
    let batch = batch(size, 0);
    Subject::new("batch validate", size, Throughput::Bytes(size as u64), move || {
        validate(black_box(&batch)).expect("it is sound")
    })
}

fn check_records() -> Subject {
    let batch = batch(65536, 100);
    let header = validate(&batch).expect("it is sound");
    let throughput = Throughput::Elements(header.record_count as u64);
    Subject::new("batch validate", "records of 100 bytes", throughput, move || {
        validate_records(&header, black_box(&batch), 1 << 20, false).expect("they are sound")
    })
}

fn stamping() -> Subject {
    let mut batch = batch(256, 0);
    Subject::new("produce", "stamp", Throughput::Elements(1), move || {
        stamp(black_box(&mut batch), Offset(7), LeaderEpoch(3))
    })
}

fn answer() -> Subject {
    let mut out = Vec::with_capacity(1024);
    Subject::new("produce", "answer", Throughput::Elements(1), move || {
        out.clear();
        let mut encoder = ProduceResponseEncoder::begin(&mut out, VERSION, 1, 1);
        encoder.topic(Topic::Id(TopicId(uuid::Uuid::from_u128(7))), 1);
        encoder.partition(&ProducePartitionResponse::appended(PartitionIndex(0), Offset(9), Offset(0)));
        encoder.finish(0, &[]);
        out.len()
    })
}

fn main() {
    let mut subjects = vec![walk(1), walk(100), stamping(), answer()];
    subjects.extend(SIZES.map(check));
    subjects.push(check_records());
    harness::main(subjects);
}
