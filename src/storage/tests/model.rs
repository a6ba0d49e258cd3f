//! Random histories against a list of batches: nothing acknowledged is lost, order is kept, offsets have no gap,
//! nothing is there that was not appended.

use super::bench::*;
use crate::base::rng::Rng;
use crate::base::units::KIB;
use crate::io::sim::WorldOptions;
use crate::model::id::Offset;
use crate::storage::*;

/// A random history; an error says what was found wrong after a restart.
pub fn history(seed: u64, options: LogOptions, world: WorldOptions, step_count: usize) -> Result<(), String> {
    let mut bench = Bench::new(seed, world, options);
    let mut rng = Rng::new(seed ^ 0x5eed);
    for _ in 0..step_count {
        match rng.in_range(0..100) {
            0..50 => {
                let size = match rng.in_range(0..20) {
                    0 => rng.in_range(20_000..options.segment_size_bytes.min(90_000)),
                    1..8 => rng.in_range(61..300),
                    _ => rng.in_range(61..6000),
                } as usize;
                let count = rng.in_range(1..6) as usize;
                let batch = batch(&mut rng, size, count);
                bench.append(batch);
                if rng.chance(1, 2) {
                    bench.commit();
                }
            }
            50..70 => (0..rng.in_range(1..20)).for_each(|_| bench.turn()),
            70..85 => {
                let (start, end) = (bench.log.log_start().0, bench.log.log_end().0);
                let offset = Offset(rng.in_range(start as u64..=end as u64) as i64);
                let up_to = if rng.chance(1, 2) { UpTo::HighWatermark } else { UpTo::LogEnd };
                let size_max = if rng.chance(1, 3) { 10 } else { rng.in_range(100..200_000) as u32 };
                if up_to == UpTo::LogEnd || offset <= bench.log.high_watermark() {
                    bench.check_read(offset, size_max, up_to);
                }
            }
            85..89 => {
                let (start, end) = (bench.log.log_start().0, bench.log.high_watermark().0);
                let to = Offset(rng.in_range(start as u64..=end as u64) as i64);
                bench.log.delete_records(&mut bench.io, to).expect("in range");
            }
            89..91 => bench.log.checkpoint(&mut bench.io),
            91..94 => bench.settle(),
            94 => bench.log.shrink(),
            95..98 => {
                bench.power_cut();
            }
            98 => {
                bench.world.kill_process();
                bench.world.wait_for_lock();
                bench.restart(None)?;
                bench.check_all();
            }
            _ => {
                if let Some(state) = bench.close() {
                    bench.world.kill_process();
                    bench.world.wait_for_lock();
                    bench.restart(state)?;
                    bench.check_all();
                }
            }
        }
        if bench.world.is_power_cut() {
            bench.restart(None)?;
            bench.check_all();
        }
        if let Some(cause) = bench.log.offline() {
            return Err(format!("offline: {cause}"));
        }
    }
    Ok(())
}

#[test]
fn nothing_acknowledged_is_lost_in_random_histories() {
    // Each seed is a history of appends, reads, rolls, deletions, power cuts, kills and clean stops.
    let seeds = std::env::var("OTTLA_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(60);
    let first = std::env::var("OTTLA_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    for seed in first..first + seeds {
        let options = LogOptions {
            segment_size_bytes: [40, 100, 256][seed as usize % 3] * KIB as u64,
            index_interval_size_bytes: 4096,
            ..LogOptions::default()
        };
        if let Err(error) = history(seed, options, WorldOptions::default(), 300) {
            panic!("seed {seed}: {error}");
        }
    }
}

#[test]
fn no_mode_yields_a_batch_that_was_not_appended() {
    // The same histories with the modes that may lose, other ways of making space, no reuse and slow disks.
    for seed in 0..40 {
        let options = LogOptions {
            segment_size_bytes: 100 * KIB as u64,
            index_interval_size_bytes: 4096,
            ack_after: [AckAfter::Write, AckAfter::Memory, AckAfter::Sync][seed as usize % 3],
            prepare: [PrepareMode::Zeros, PrepareMode::Allocate, PrepareMode::None][seed as usize / 3 % 3],
            reuse: seed % 2 == 0,
            ..LogOptions::default()
        };
        // Blocks are the unit of tearing that the broker asks of a disk.
        let world = WorldOptions { tear_size_bytes: 4096, ..WorldOptions::harsh() };
        if let Err(error) = history(seed, options, world, 250) {
            panic!("seed {seed}: {error}");
        }
    }
}

#[test]
fn batches_larger_than_a_commit_are_whole_or_absent() {
    // Batches of up to 3 MiB among small ones, with power cuts while they are being written.
    for seed in 0..15 {
        let options = LogOptions { segment_size_bytes: 8 << 20, ..LogOptions::default() };
        let mut bench = Bench::new(seed, WorldOptions::default(), options);
        let mut rng = Rng::new(seed);
        for _ in 0..12 {
            for _ in 0..rng.in_range(1..6) {
                let size = if rng.chance(1, 2) { rng.in_range(61..9000) } else { rng.in_range(900_000..3_000_000) };
                if bench.append(batch(&mut rng, size as usize, 1)).is_none() {
                    break;
                }
                bench.commit();
            }
            for _ in 0..rng.in_range(0..12) {
                bench.turn();
            }
            if !bench.world.is_power_cut() {
                bench.power_cut();
            }
            bench.restart(None).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            bench.check_all();
        }
    }
}

#[test]
fn what_is_acknowledged_under_sync_survives_whatever_the_mode_was_before() {
    // The mode changes at random, in the middle of writes and syncs. A batch that was appended and acknowledged under
    // one spell of `sync` is there after a power cut, and so is everything before it.
    for seed in 0..80 {
        let modes = [AckAfter::Sync, AckAfter::Write, AckAfter::Memory];
        let with = |ack_after| LogOptions {
            segment_size_bytes: 40 * KIB as u64,
            index_interval_size_bytes: 4096,
            ack_after,
            ..LogOptions::default()
        };
        let mut bench = Bench::new(seed, WorldOptions::default(), with(AckAfter::Sync));
        bench.lossy = true;
        let mut rng = Rng::new(seed);
        let (mut waiting, mut sure) = (Vec::new(), Offset(0));
        for _ in 0..250 {
            match rng.in_range(0..20) {
                0..9 => {
                    let size = rng.in_range(61..9000) as usize;
                    let appended = bench.append(batch(&mut rng, size, 2));
                    if let Some(appended) = appended.filter(|_| bench.options.ack_after == AckAfter::Sync) {
                        waiting.push(appended.end);
                    }
                    if rng.chance(1, 2) {
                        bench.commit();
                    }
                }
                9..14 => (0..rng.in_range(1..6)).for_each(|_| bench.turn()),
                14..19 => {
                    // What is acknowledged from now on is so in the new mode's sense.
                    waiting.clear();
                    bench.options = with(modes[rng.in_range(0..3) as usize]);
                    let events = bench.log.set_options(&mut bench.io, bench.options);
                    bench.take(events);
                }
                _ => bench.power_cut(),
            }
            let high_watermark = bench.log.high_watermark();
            sure = waiting.iter().copied().filter(|end| *end <= high_watermark).fold(sure, Offset::max);
            if bench.world.is_power_cut() {
                bench.restart(None).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
                let end = bench.log.log_end();
                assert!(end >= sure, "seed {seed}: acknowledged up to {sure}, recovered up to {end}");
                bench.check_all();
                waiting.clear();
            }
        }
    }
}
