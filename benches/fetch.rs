//! What a Fetch costs besides moving bytes: the answer's encoding and the index look-up.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ottla::model::id::{Offset, PartitionIndex, TopicId};
use ottla::protocol::fetch::{FetchPartitionResponse, FetchResponseEncoder, FetchResponseHead};
use ottla::protocol::{ErrorCode, Topic};
use ottla::storage::index::{IndexEntry, View};

fn answer(c: &mut Criterion) {
    let mut group = c.benchmark_group("fetch answer");
    for partition_count in [1, 100] {
        let mut out = Vec::with_capacity(64 << 10);
        let mut gaps = Vec::with_capacity(partition_count);
        group.throughput(Throughput::Elements(partition_count as u64));
        group.bench_function(BenchmarkId::from_parameter(partition_count), |b| {
            b.iter(|| {
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
                encoder.finish(&[])
            });
        });
    }
}

fn index(c: &mut Criterion) {
    let mut group = c.benchmark_group("index look-up");
    for count in [100u32, 8192] {
        let entries: Vec<IndexEntry> = (1..=count)
            .map(|n| IndexEntry { timestamp_before: i64::from(n), relative_offset: n * 100, position_bytes: n * 32768 })
            .collect();
        let mut offset = 0;
        group.bench_with_input(BenchmarkId::from_parameter(count), &entries, |b, entries| {
            b.iter(|| {
                offset = (offset + 7919) % (i64::from(count) * 100);
                View::new(Offset(0), black_box(entries)).floor(Offset(offset))
            });
        });
    }
}

criterion_group!(benches, answer, index);
criterion_main!(benches);
