//! What a Fetch costs besides moving bytes: the answer's encoding and the index look-up.

mod harness;

use std::hint::black_box;

use criterion::Throughput;
use harness::Subject;
use ottla::model::id::{Offset, PartitionIndex, TopicId};
use ottla::protocol::fetch::{FetchPartitionResponse, FetchResponseEncoder, FetchResponseHead};
use ottla::protocol::{ErrorCode, Topic};
use ottla::storage::index::{IndexEntry, View};

fn answer(partition_count: usize) -> Subject {
    let mut out = Vec::with_capacity(64 << 10);
    let mut gaps = Vec::with_capacity(partition_count);
    let throughput = Throughput::Elements(partition_count as u64);
    Subject::new("fetch answer", partition_count, throughput, move || {
        out.clear();
        gaps.clear();
        let head = FetchResponseHead {
            version: 17,
            correlation_id: 1,
            throttle_time_ms: 0,
            error: ErrorCode::None,
            session_id: 5,
            topic_count: 1,
        };
        let mut encoder = FetchResponseEncoder::begin(&mut out, head);
        encoder.topic(Topic::Id(TopicId(uuid::Uuid::from_u128(7))), partition_count);
        for index in 0..partition_count {
            let partition = FetchPartitionResponse {
                high_watermark: Offset(1000),
                last_stable_offset: Offset(1000),
                log_start_offset: Offset(0),
                ..FetchPartitionResponse::refused(PartitionIndex(index as i32), ErrorCode::None)
            };
            gaps.push(encoder.partition(black_box(&partition), 65536));
        }
        encoder.finish(&[]);
    })
}

fn index(count: u32) -> Subject {
    let entries: Vec<IndexEntry> = (1..=count)
        .map(|n| IndexEntry { timestamp_before: i64::from(n), relative_offset: n * 100, position_bytes: n * 32768 })
        .collect();
    let mut offset = 0;
    Subject::new("index look-up", count, Throughput::Elements(1), move || {
        offset = (offset + 7919) % (i64::from(count) * 100);
        View::new(Offset(0), black_box(&entries)).floor(Offset(offset))
    })
}

fn main() {
    harness::main(vec![answer(1), answer(100), index(100), index(8192)]);
}
