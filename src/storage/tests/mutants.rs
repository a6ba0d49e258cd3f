//! Each rule has a mutant that breaks it; the simulated world must catch the mutant and pass the rule.

use super::bench::*;
use super::model::history;
use crate::base::rng::Rng;
use crate::base::units::KIB;
use crate::io::sim::{Fault, Loss, OpKind, Rule, Tear, WorldOptions};
use crate::storage::options::Mutants;
use crate::storage::*;

fn small() -> LogOptions {
    LogOptions { segment_size_bytes: 64 * KIB as u64, index_interval_size_bytes: 4096, ..LogOptions::default() }
}

/// Runs `scenario` with and without the mutant over some seeds: the rule passes all of them, the mutant does not.
fn is_caught(mutate: fn(&mut Mutants), seeds: u64, scenario: impl Fn(u64, LogOptions) -> Result<(), String>) {
    for seed in 0..seeds {
        if let Err(error) = scenario(seed, small()) {
            panic!("the rule itself fails, seed {seed}: {error}");
        }
    }
    let mut options = small();
    mutate(&mut options.mutants);
    let caught = (0..seeds).any(|seed| {
        // A broken rule may also show as a panic of a check on reading.
        let run = std::panic::AssertUnwindSafe(|| scenario(seed, options));
        !matches!(std::panic::catch_unwind(run), Ok(Ok(())))
    });
    assert!(caught, "the mutant lived");
}

/// Appends, waits for the acknowledgements, cuts the power with everything lost that may be, and looks.
fn acknowledged_then_cut(seed: u64, options: LogOptions) -> Result<(), String> {
    let world = WorldOptions { loss: Loss::All, ..WorldOptions::calm() };
    let mut bench = Bench::new(seed, world, options);
    let mut rng = Rng::new(seed);
    for _ in 0..8 {
        bench.append(batch(&mut rng, 500, 2));
        bench.append(batch(&mut rng, 3000, 2));
        bench.commit();
        if rng.chance(1, 2) {
            bench.turn();
        }
    }
    bench.settle();
    bench.power_cut();
    bench.restart(None)?;
    bench.check_all();
    Ok(())
}

#[test]
fn skipping_the_sync_is_caught() {
    is_caught(|m| m.skip_sync = true, 3, acknowledged_then_cut);
}

#[test]
fn acknowledging_before_the_write_is_caught() {
    // The power goes as soon as anything is acknowledged.
    is_caught(
        |m| m.ack_before_write = true,
        3,
        |seed, options| {
            let world = WorldOptions { loss: Loss::All, ..WorldOptions::calm() };
            let mut bench = Bench::new(seed, world, options);
            let mut rng = Rng::new(seed);
            for _ in 0..4 {
                bench.append(batch(&mut rng, 500, 2));
                bench.commit();
            }
            bench.power_cut();
            bench.restart(None).map(drop)
        },
    );
}

#[test]
fn not_carrying_the_unfinished_block_is_caught() {
    // Appends while writes are under way, so that new buffers begin within a block.
    is_caught(|m| m.skip_tail_carry = true, 5, acknowledged_then_cut);
}

/// Batches of this size from the start of a file: the 18th begins 12 bytes before a block boundary, which its base
/// offset and length, but nothing that the CRC covers, lie before.
const TORN_SIZE_BYTES: usize = 1204;
const TORN_BATCH: u64 = 17;

/// A log whose active segment is a reused file, about to take the batch whose header crosses a block boundary, where
/// an older batch of the same size lies.
fn before_crossing(seed: u64, options: LogOptions) -> Bench {
    let world = WorldOptions { loss: Loss::All, ..WorldOptions::calm() };
    let mut bench = Bench::new(seed, world, options);
    let mut rng = Rng::new(seed);
    for _ in 0..400 {
        bench.append(exact_batch(&mut rng, TORN_SIZE_BYTES));
        bench.quiesce();
        let high_watermark = bench.log.high_watermark();
        bench.log.delete_records(&mut bench.io, high_watermark).expect("in range");
        bench.quiesce();
        let active = bench.log.segments.back().expect("there is one");
        if active.reused && active.size_bytes == TORN_BATCH * TORN_SIZE_BYTES as u64 {
            return bench;
        }
    }
    panic!("no file was reused");
}

#[test]
fn writing_a_torn_header_in_one_step_is_caught() {
    // The commit is torn at every subset of its blocks, in its first write and in its second; a stale body must
    // never pass under a new header.
    let scenario = |seed: u64, options: LogOptions| {
        for (nth, kept) in (0..2u64).flat_map(|nth| (0..8u64).map(move |kept| (nth, kept))) {
            let mut bench = before_crossing(seed, options);
            let mut rng = Rng::new(seed + 100);
            let mut seen = 0;
            bench.world.on_write(move |write| {
                if write.is_zeros || !write.path.to_string_lossy().ends_with(".log") {
                    return None;
                }
                seen += 1;
                (seen == nth + 1).then(|| Tear::Blocks((0..3).filter(|block| kept & (1 << block) != 0).collect()))
            });
            for _ in 0..3 {
                bench.append(exact_batch(&mut rng, TORN_SIZE_BYTES));
            }
            bench.commit();
            for _ in 0..3 {
                bench.settle();
                if !bench.world.is_power_cut() {
                    bench.append(exact_batch(&mut rng, TORN_SIZE_BYTES));
                }
            }
            bench.world.clear_write_hooks();
            if !bench.world.is_power_cut() {
                bench.power_cut();
            }
            bench.restart(None)?;
            bench.check_all();
        }
        Ok(())
    };
    is_caught(|m| m.skip_two_step = true, 2, scenario);
}

#[test]
fn writing_a_new_segment_before_the_old_one_is_durable_is_caught() {
    // A mode without synced writes leaves the old segment's end in the air when the new one is begun.
    is_caught(
        |m| m.roll_without_wait = true,
        60,
        |seed, options| {
            let options = LogOptions { ack_after: AckAfter::Write, ..options };
            history(seed, options, WorldOptions { loss: Loss::Random, ..WorldOptions::default() }, 200)
        },
    );
}

/// Keeps rolling and freeing, with power cuts at random moments.
fn rolling(seed: u64, options: LogOptions) -> Result<(), String> {
    let mut bench = Bench::new(seed, WorldOptions::default(), options);
    let mut rng = Rng::new(seed);
    for _ in 0..12 {
        for _ in 0..rng.in_range(5..60) {
            if bench.append(batch(&mut rng, 6000, 2)).is_none() {
                break;
            }
            bench.commit();
            if rng.chance(1, 4) {
                bench.settle();
                let high_watermark = bench.log.high_watermark();
                bench.log.delete_records(&mut bench.io, high_watermark).expect("in range");
            }
        }
        if rng.chance(1, 2) {
            bench.settle();
        }
        bench.power_cut();
        bench.restart(None)?;
        bench.check_all();
    }
    Ok(())
}

#[test]
fn overwriting_before_the_renaming_is_durable_is_caught() {
    is_caught(|m| m.reuse_before_sync_dir = true, 40, rolling);
}

/// Space and staging follow the rate.
fn let_four_blocks_fit_a_write(bench: &mut Bench) {
    bench.log.staging_size_bytes = 16 * KIB;
    while bench.log.active().prepared_bytes < 32 * KIB as u64 {
        let now = bench.world.now().monotonic;
        bench.log.find_space(&mut bench.io, 16 * KIB as u64, now);
        bench.turn();
    }
}

/// A commit of four batches of a block each is torn so that its first block is lost and the others stay. After the
/// restart one batch is appended in the lost one's place, which leads to the remnants, and the power goes again.
fn remnants(seed: u64, options: LogOptions, at_end: impl Fn(&mut LogOptions)) -> Result<(), String> {
    let world = WorldOptions { loss: Loss::All, ..WorldOptions::calm() };
    let mut bench = Bench::new(seed, world, options);
    let mut rng = Rng::new(seed);
    bench.append(exact_batch(&mut rng, 4096));
    bench.quiesce();
    let_four_blocks_fit_a_write(&mut bench);
    bench.world.on_write(|write| {
        let is_commit = !write.is_zeros && write.length_bytes == 4 * 4096;
        is_commit.then(|| Tear::Blocks([1, 2, 3].into()))
    });
    for _ in 0..4 {
        let batch = exact_batch(&mut rng, 4096);
        bench.try_append(batch).expect("there is room");
    }
    bench.commit();
    bench.settle();
    assert!(bench.world.is_power_cut());
    bench.world.clear_write_hooks();
    bench.restart(None)?;
    bench.append(exact_batch(&mut rng, 4096));
    bench.settle();
    bench.power_cut();
    at_end(&mut bench.options);
    bench.restart(None).map(drop)
}

#[test]
fn leaving_what_lies_behind_the_end_is_caught() {
    // The last recovery does not look at epochs, so zeroing alone must have removed the remnants.
    let scenario = |seed, options| remnants(seed, options, |options| options.mutants.skip_epoch_check = true);
    is_caught(|m| m.skip_zeroing = true, 2, scenario);
}

/// A write fails, of which some blocks are there. The process is killed before it can say so, the next start serves
/// what it finds, and then the power goes.
fn failed_then_killed(seed: u64, options: LogOptions) -> Result<(), String> {
    let mut bench = Bench::new(seed, WorldOptions { loss: Loss::All, ..WorldOptions::calm() }, options);
    let mut rng = Rng::new(seed);
    bench.append(exact_batch(&mut rng, 4096));
    bench.quiesce();
    let_four_blocks_fit_a_write(&mut bench);
    match options.ack_after {
        AckAfter::Sync => bench.world.inject(Rule::new(OpKind::Write, Fault::Error(libc::EIO)).path(".log")),
        _ => bench.world.inject(Rule::new(OpKind::Sync, Fault::Error(libc::EIO)).path(".log")),
    }
    for _ in 0..4 {
        let batch = exact_batch(&mut rng, 4096);
        bench.try_append(batch).expect("there is room");
    }
    bench.commit();
    while bench.log.offline().is_none() {
        bench.turn();
        bench.log.flush(&mut bench.io);
    }
    bench.world.clear_faults();
    bench.world.kill_process();
    bench.world.wait_for_lock();
    let stats = bench.restart(None)?;
    assert!(stats.rewritten_bytes <= stats.scanned_bytes + 4096);
    // From here on what was found is acknowledged.
    bench.lossy = false;
    if seed % 2 == 1 {
        bench.append(batch(&mut rng, 3000, 2));
        bench.settle();
        bench.lossy = options.ack_after != AckAfter::Sync;
    }
    bench.power_cut();
    bench.restart(None)?;
    bench.check_all();
    Ok(())
}

#[test]
fn trusting_what_a_failed_write_left_is_caught() {
    is_caught(|m| m.trust_what_is_found = true, 20, failed_then_killed);
}

#[test]
fn trusting_what_a_failed_sync_left_is_caught() {
    // The same where writes are synced later.
    let scenario = |seed, options| failed_then_killed(seed, LogOptions { ack_after: AckAfter::Write, ..options });
    is_caught(|m| m.trust_what_is_found = true, 4, scenario);
}

#[test]
fn trusting_a_checkpoint_whose_sync_failed_is_caught() {
    // It says that the log begins later; the next start removes segments by it, and the power goes.
    let scenario = |seed: u64, options: LogOptions| {
        let mut bench = Bench::new(seed, WorldOptions { loss: Loss::All, ..WorldOptions::calm() }, options);
        let mut rng = Rng::new(seed);
        bench.append(batch(&mut rng, 3000, 2));
        bench.settle();
        bench.log.checkpoint(&mut bench.io);
        for _ in 0..30 {
            bench.append(batch(&mut rng, 6000, 2));
            bench.quiesce();
        }
        bench.world.inject(Rule::new(OpKind::Sync, Fault::Error(libc::EIO)).path("checkpoint"));
        let high_watermark = bench.log.high_watermark();
        bench.log.delete_records(&mut bench.io, high_watermark).expect("in range");
        while bench.log.offline().is_none() {
            bench.turn();
        }
        bench.world.clear_faults();
        bench.world.kill_process();
        bench.world.wait_for_lock();
        bench.restart(None)?;
        let log_start = bench.log_start;
        assert_eq!(log_start, high_watermark);
        bench.power_cut();
        bench.restart(None)?;
        match bench.log_start >= log_start {
            true => Ok(()),
            false => Err(format!("the log start went back from {log_start} to {}", bench.log_start)),
        }
    };
    is_caught(|m| m.trust_what_is_found = true, 2, scenario);
}

#[test]
fn accepting_an_epoch_that_goes_back_is_caught() {
    // Nothing is zeroed, so the epoch alone must tell the remnants from the log's own batches.
    let scenario = |seed, mut options: LogOptions| {
        options.mutants.skip_zeroing = true;
        remnants(seed, options, |_| {})
    };
    is_caught(|m| m.skip_epoch_check = true, 2, scenario);
}

#[test]
fn a_checkpoint_beyond_what_is_synced_is_caught() {
    // A checkpoint is asked for while commits are under way, and the power is cut soon after.
    let scenario = |seed: u64, options: LogOptions| {
        let world = WorldOptions { loss: Loss::All, ..WorldOptions::default() };
        let mut bench = Bench::new(seed, world, options);
        let mut rng = Rng::new(seed);
        bench.append(batch(&mut rng, 500, 2));
        bench.settle();
        for _ in 0..5 {
            bench.append(batch(&mut rng, 5000, 2));
        }
        let slow = crate::io::sim::Latency::steady(50_000_000..=50_000_000);
        bench.commit();
        bench.log.checkpoint(&mut bench.io);
        bench.world.change_options(|options| options.write = slow);
        for _ in 0..rng.in_range(1..12) {
            bench.turn();
            bench.append(batch(&mut rng, 5000, 2));
            bench.log.checkpoint(&mut bench.io);
        }
        bench.power_cut();
        bench.restart(None)?;
        bench.check_all();
        Ok(())
    };
    is_caught(|m| m.checkpoint_beyond_sync = true, 20, scenario);
}
