//! How fast one core checks and copies.

use std::hint::black_box;
use std::time::{Duration, Instant};

use super::Row;

const MIB: f64 = (1 << 20) as f64;

/// CRC-32C and copying, in the cache and out of it, for about `time` each.
pub fn measure(time: Duration) -> Vec<Row> {
    let mut rows = Vec::new();
    for (size, text) in [(4 << 10, "4 KiB"), (64 << 10, "64 KiB"), (64 << 20, "64 MiB")] {
        let source = vec![0x5a_u8; size];
        rows.push(rate(format!("CRC-32C {text}"), size, time, || {
            black_box(crc32c::crc32c(black_box(&source)));
        }));
        let mut target = vec![0_u8; size];
        rows.push(rate(format!("copy {text}"), size, time, || {
            black_box(&mut target).copy_from_slice(black_box(&source));
        }));
    }
    rows
}

fn rate(name: String, size_bytes: usize, time: Duration, mut step: impl FnMut()) -> Row {
    // So many that looking at the clock costs nothing.
    let batch = (1_usize << 20).div_ceil(size_bytes);
    step();
    let start = Instant::now();
    let mut count = 0;
    while start.elapsed() < time {
        for _ in 0..batch {
            step();
        }
        count += batch;
    }
    let seconds = start.elapsed().as_secs_f64();
    let mib_per_second = Some((count * size_bytes) as f64 / MIB / seconds);
    Row { name, mib_per_second, ..Row::default() }
}
