//! Transactions in one log, against a plain list of them: the last stable offset, what readers of committed records
//! get, and what of it survives.

use std::collections::BTreeMap;

use super::bench::*;
use crate::base::rng::Rng;
use crate::base::time::Timestamp;
use crate::base::units::KIB;
use crate::io::sim::WorldOptions;
use crate::io::{Io, Op};
use crate::model::batch::batches;
use crate::model::builder::BatchBuilder;
use crate::model::compression::Codec;
use crate::model::id::{Offset, ProducerEpoch, ProducerId, Sequence};
use crate::model::marker::EndTransactionMarker;
use crate::model::records::{Records, section};
use crate::storage::*;

/// What a log should know of its transactions.
#[derive(Default)]
struct Model {
    /// By producer: first offset of the open transaction.
    open: BTreeMap<i64, i64>,
    /// Producer, first offset, offset of the marker, whether it committed.
    ended: Vec<(i64, i64, i64, bool)>,
    sequences: BTreeMap<i64, i32>,
}

fn options() -> LogOptions {
    LogOptions { segment_size_bytes: 16 * KIB as u64, index_interval_size_bytes: 2048, ..LogOptions::default() }
}

impl Model {
    fn data(&mut self, bench: &mut Bench, producer: i64, transactional: bool, size_bytes: usize) {
        let sequence = self.sequences.entry(producer).or_default();
        let id = (ProducerId(producer), ProducerEpoch(0), Sequence(*sequence));
        let builder = BatchBuilder::new(Codec::None).producer(id.0, id.1, id.2);
        let mut builder = if transactional { builder.transactional() } else { builder };
        let value = vec![producer as u8; size_bytes];
        builder.push(Timestamp(1_750_000_000_000), None, Some(&value), &[]);
        *sequence += 1;
        let appended = bench.append(builder.build()).expect("the power is on");
        if transactional {
            self.open.entry(producer).or_insert(appended.base_offset.0);
        }
    }

    fn end(&mut self, bench: &mut Bench, producer: i64, commits: bool) {
        let marker = EndTransactionMarker { commits, coordinator_epoch: 3 };
        let batch = marker.batch(ProducerId(producer), ProducerEpoch(0), Timestamp(1_750_000_000_000));
        let appended = bench.append(batch).expect("the power is on");
        if let Some(first) = self.open.remove(&producer) {
            self.ended.push((producer, first, appended.base_offset.0, commits));
        }
    }

    /// What the last stable offset must be: nothing that could still change or vanish is below it.
    fn last_stable(&self, high_watermark: i64) -> i64 {
        let unacknowledged = self.ended.iter().filter(|(.., marker, _)| *marker >= high_watermark);
        let firsts = self.open.values().copied().chain(unacknowledged.map(|(_, first, ..)| *first));
        firsts.min().unwrap_or(high_watermark).min(high_watermark)
    }

    /// Reads committed records as a client does, in steps of `size_bytes_max`, and compares every batch.
    fn check(&self, bench: &mut Bench, size_bytes_max: u32) {
        let seed = bench.world.seed();
        let end = self.last_stable(bench.log.high_watermark().0);
        assert_eq!(bench.log.last_stable_offset().0, end, "seed {seed}");
        let mut offset = bench.log.log_start().0;
        while offset < end {
            let plan = bench.read(Offset(offset), size_bytes_max, UpTo::LastStable).expect("readable");
            let bytes = bench.bytes(&plan);
            assert!(!bytes.is_empty(), "seed {seed}: nothing at {offset} below {end}");
            for aborted in &plan.aborted {
                let known = (aborted.producer_id, aborted.first_offset, aborted.last_offset, false);
                assert!(self.ended.contains(&known), "seed {seed}: {aborted:?} was not aborted");
                assert!(aborted.last_offset >= offset, "seed {seed}: {aborted:?} ended before {offset}");
            }
            // It may have moved on meanwhile.
            let now = self.last_stable(bench.log.high_watermark().0);
            for (header, _) in batches(&bytes) {
                let base = header.base_offset.0;
                assert!(header.next_offset().0 <= now, "seed {seed}: undecided at {base}");
                offset = header.next_offset().0;
                if !header.attributes.is_transactional() || header.attributes.is_control() {
                    continue;
                }
                let id = header.producer_id.0;
                let (.., commits) = self
                    .ended
                    .iter()
                    .find(|(producer, first, marker, _)| *producer == id && (*first..*marker).contains(&base))
                    .expect("it is decided");
                let covers = |entry: &&crate::storage::sidecar::AbortedTransaction| {
                    entry.producer_id == id && (entry.first_offset..entry.last_offset).contains(&base)
                };
                let is_listed = plan.aborted.iter().any(|entry| covers(&entry));
                assert_eq!(is_listed, !commits, "seed {seed}: the batch at {base}");
            }
        }
    }
}

#[test]
fn the_last_stable_offset_is_the_first_that_is_undecided_or_could_vanish() {
    // Two transactions that overlap; the marker of the first counts when it is durable, not when it is appended.
    let mut bench = Bench::new(1, WorldOptions::calm(), LogOptions::default());
    let mut model = Model::default();
    model.data(&mut bench, 9, false, 100);
    model.data(&mut bench, 1, true, 100);
    model.data(&mut bench, 2, true, 100);
    bench.settle();
    assert_eq!((bench.log.last_stable_offset(), bench.log.high_watermark()), (Offset(1), Offset(3)));
    assert!(bench.log.has_transaction(ProducerId(1), ProducerEpoch(0)));
    assert!(!bench.log.has_transaction(ProducerId(1), ProducerEpoch(1)));
    assert!(!bench.log.has_transaction(ProducerId(9), ProducerEpoch(0)));
    model.end(&mut bench, 1, true);
    assert_eq!(bench.log.last_stable_offset(), Offset(1));
    bench.settle();
    assert_eq!(bench.log.last_stable_offset(), Offset(2));
    model.end(&mut bench, 2, false);
    bench.settle();
    assert_eq!(bench.log.last_stable_offset(), Offset(5));
    model.check(&mut bench, 100_000);
    let open = bench.log.active_producers().into_iter().filter(|producer| producer.transaction_start.is_some());
    assert_eq!(open.count(), 0);
}

#[test]
fn a_marker_of_an_older_epoch_or_coordinator_is_refused() {
    let mut bench = Bench::new(2, WorldOptions::calm(), LogOptions::default());
    let mut model = Model::default();
    model.data(&mut bench, 1, true, 100);
    model.end(&mut bench, 1, true);
    let marker = |coordinator_epoch| EndTransactionMarker { commits: true, coordinator_epoch };
    let check = |epoch, coordinator| bench.log.check_marker(ProducerId(1), ProducerEpoch(epoch), marker(coordinator));
    assert!(check(0, 3).is_ok() && check(1, 4).is_ok() && check(0, -1).is_ok());
    assert!(check(0, 2).is_err() && check(-1, 3).is_err());
}

#[test]
fn a_deleted_beginning_of_a_transaction_leaves_the_log_start_as_what_is_stable() {
    // DeleteRecords passes the first batch of an open transaction.
    let mut bench = Bench::new(3, WorldOptions::calm(), options());
    let mut model = Model::default();
    for _ in 0..30 {
        model.data(&mut bench, 1, true, 2000);
    }
    bench.settle();
    bench.log.delete_records(&mut bench.io, Offset(20)).expect("below the high watermark");
    bench.quiesce();
    assert_eq!((bench.log.log_start(), bench.log.last_stable_offset()), (Offset(20), Offset(20)));
    let plan = bench.read(Offset(20), 1000, UpTo::LastStable).expect("readable");
    assert_eq!(plan.size_bytes, 0);
    model.end(&mut bench, 1, false);
    bench.settle();
    assert_eq!(bench.log.last_stable_offset(), Offset(31));
    let plan = bench.read(Offset(20), 1000, UpTo::LastStable).expect("readable");
    assert_eq!(plan.aborted.len(), 1);
}

#[test]
fn nothing_undecided_is_found_by_time_or_counted_wherever_the_log_begins() {
    // An open transaction over many segments, of which more and more is deleted: its first batch, its first segment, and
    // batches in the middle of a segment.
    let mut bench = Bench::new(4, WorldOptions::calm(), options());
    let mut model = Model::default();
    model.data(&mut bench, 2, false, 2000);
    bench.settle();
    let decided = bench.log.readable_bytes(Offset(0), UpTo::HighWatermark);
    for _ in 0..40 {
        model.data(&mut bench, 1, true, 2000);
    }
    bench.settle();
    assert!(bench.log.segments.len() > 3);
    assert_eq!(bench.log.readable_bytes(Offset(0), UpTo::LastStable), decided);
    for start in 1..40 {
        bench.log.delete_records(&mut bench.io, Offset(start)).expect("below the high watermark");
        bench.quiesce();
        assert_eq!(bench.log.last_stable_offset(), Offset(start));
        assert_eq!(bench.log.readable_bytes(Offset(start), UpTo::LastStable), 0);
        for up_to in [UpTo::LastStable, UpTo::HighWatermark] {
            let step = bench.log.find_by_timestamp(&mut bench.io, READ, Timestamp(0), up_to);
            let by_time = bench.drive_lookup(step).expect("readable");
            let step = bench.log.find_max_timestamp(&mut bench.io, READ, up_to);
            let greatest = bench.drive_lookup(step).expect("readable");
            let is_found = up_to == UpTo::HighWatermark;
            assert_eq!((by_time.is_some(), greatest.is_some()), (is_found, is_found), "from {start} {up_to:?}");
        }
    }
}

#[test]
fn random_transactions_over_many_segments_are_what_they_were_after_stops_and_power_cuts() {
    // Producers whose transactions overlap and span segments; now and then a clean stop, a power cut, or a checkpoint;
    // readers with small and large limits.
    for seed in 0..12 {
        let mut rng = Rng::new(seed);
        let mut bench = Bench::new(seed, WorldOptions::calm(), options());
        let mut model = Model::default();
        for step in 0..300 {
            let producer = 1 + rng.in_range(0..4) as i64;
            match rng.in_range(0..10) {
                0..=4 => model.data(&mut bench, producer, true, rng.in_range(50..2500) as usize),
                5 => model.data(&mut bench, 9, false, 200),
                6..=7 => model.end(&mut bench, producer, rng.chance(1, 2)),
                8 => bench.commit(),
                _ if step % 7 == 0 => {
                    bench.log.checkpoint(&mut bench.io);
                    bench.quiesce();
                }
                _ if rng.chance(1, 6) => {
                    bench.quiesce();
                    let state = if rng.chance(1, 2) { bench.close().expect("on") } else { None };
                    bench.power_cut();
                    bench.restart(state).expect("everything is there");
                }
                _ => bench.turn(),
            }
            if rng.chance(1, 12) {
                model.check(&mut bench, [1500, 100_000][rng.in_range(0..2) as usize]);
            }
        }
        bench.quiesce();
        assert!(bench.log.segment_count() > 3);
        bench.power_cut();
        bench.restart(None).expect("everything is there");
        for size_bytes_max in [1000, 5000, 1_000_000] {
            model.check(&mut bench, size_bytes_max);
        }
        // What is open goes on.
        for producer in 1..5 {
            model.end(&mut bench, producer, producer % 2 == 0);
        }
        bench.settle();
        assert_eq!(bench.log.last_stable_offset(), bench.log.log_end());
        model.check(&mut bench, 3000);
    }
}

#[test]
fn a_lost_sidecar_is_made_again_with_its_aborted_transactions() {
    // A transaction that spans two segments is aborted in the second; that one's sidecar is removed.
    let mut bench = Bench::new(5, WorldOptions::calm(), options());
    let mut model = Model::default();
    for _ in 0..12 {
        model.data(&mut bench, 1, true, 2000);
    }
    model.end(&mut bench, 1, false);
    for _ in 0..30 {
        model.data(&mut bench, 9, false, 2000);
    }
    bench.quiesce();
    bench.log.checkpoint(&mut bench.io);
    bench.quiesce();
    let holder = bench.log.segments.iter().find(|segment| segment.aborted.first_offset.is_some());
    let base = holder.expect("a segment has the marker").base_offset;
    assert!(base > Offset(0));
    let path = layout::FileName::Sidecar(base).path(&identity().dir);
    bench.io.run(Op::Remove { path }).expect("it is there");
    bench.io.run(Op::SyncDir { path: identity().dir }).expect("a directory");
    bench.power_cut();
    bench.restart(None).expect("everything is there");
    model.check(&mut bench, 1_000_000);
    model.check(&mut bench, 2500);
}

/// The last committed value of each key, as a reader of committed records finds it.
fn committed_values(bench: &mut Bench) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut offset = bench.log.log_start();
    while offset < bench.log.last_stable_offset() {
        let plan = bench.read(offset, 5000, UpTo::LastStable).expect("readable");
        let bytes = bench.bytes(&plan);
        assert!(!bytes.is_empty(), "nothing at {offset}");
        for (header, batch) in batches(&bytes) {
            offset = header.next_offset();
            let is_aborted = plan.aborted.iter().any(|entry| {
                entry.producer_id == header.producer_id.0
                    && (entry.first_offset..entry.last_offset).contains(&header.base_offset.0)
            });
            if header.attributes.is_control() || (header.attributes.is_transactional() && is_aborted) {
                continue;
            }
            let section = section(&header, batch, 1 << 20).expect("plain");
            for record in Records::new(&section, header.record_count) {
                let record = record.expect("sound");
                found.insert(record.key.expect("a key").to_vec(), record.value.expect("a value").to_vec());
            }
        }
    }
    found
}

#[test]
fn compaction_keeps_the_last_committed_value_of_each_key_and_nothing_that_was_aborted() {
    // Transactions of several producers over a few keys, half of them aborted, one left open; compacted again and again.
    for seed in 0..6 {
        let mut rng = Rng::new(seed);
        let mut bench = Bench::new(seed, WorldOptions::calm(), options());
        bench.compaction = Some(CompactionPolicy {
            min_cleanable_dirty_ratio: 0.1,
            min_compaction_lag_ms: 0,
            max_compaction_lag_ms: i64::MAX as u64,
            delete_retention_ms: 1000,
        });
        let mut model = Model::default();
        let mut values: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        for number in 0..120 {
            let producer = 1 + rng.in_range(0..3) as i64;
            let commits = rng.chance(1, 2);
            let mut written = BTreeMap::new();
            for _ in 0..rng.in_range(1..4) {
                let (key, value) = (vec![b'k', rng.in_range(0..6) as u8], format!("{number}").repeat(200).into_bytes());
                let sequence = model.sequences.entry(producer).or_default();
                let builder = BatchBuilder::new(Codec::None).transactional();
                let mut builder = builder.producer(ProducerId(producer), ProducerEpoch(0), Sequence(*sequence));
                builder.push(Timestamp(1_750_000_000_000), Some(&key), Some(&value), &[]);
                *sequence += 1;
                let appended = bench.append(builder.build()).expect("the power is on");
                model.open.entry(producer).or_insert(appended.base_offset.0);
                written.insert(key, value);
            }
            model.end(&mut bench, producer, commits);
            if commits {
                values.extend(written);
            }
            bench.settle();
            if number % 40 == 39 {
                bench.quiesce();
                bench.compact();
                assert_eq!(committed_values(&mut bench), values, "seed {seed}");
            }
            if number == 100 {
                // From here on nothing is stable.
                let sequence = Sequence(0);
                let builder = BatchBuilder::new(Codec::None).producer(ProducerId(8), ProducerEpoch(0), sequence);
                let mut builder = builder.transactional();
                builder.push(Timestamp(1_750_000_000_000), Some(b"open"), Some(b"open"), &[]);
                bench.append(builder.build()).expect("the power is on");
                break;
            }
        }
        assert!(bench.compacted_count > 0, "seed {seed}: nothing was compacted");
        bench.quiesce();
        bench.compact();
        assert_eq!(committed_values(&mut bench), values, "seed {seed}");
        bench.power_cut();
        bench.restart(None).expect("everything is there");
        assert_eq!(committed_values(&mut bench), values, "seed {seed}");
    }
}

#[test]
fn markers_of_which_nothing_is_left_go_after_their_time_and_no_transaction_is_open_for_it() {
    // Committed and aborted transactions that write the same few keys; time passes between compactions.
    let mut bench = Bench::new(9, WorldOptions::calm(), options());
    bench.compaction = Some(CompactionPolicy {
        min_cleanable_dirty_ratio: 0.01,
        min_compaction_lag_ms: 0,
        max_compaction_lag_ms: i64::MAX as u64,
        delete_retention_ms: 1000,
    });
    let mut model = Model::default();
    let mut values: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    for number in 0..120 {
        let producer = 1 + number % 3;
        let commits = number % 4 != 0;
        let (key, value) = (vec![b'k', (number % 5) as u8], format!("{number}").repeat(200).into_bytes());
        let sequence = model.sequences.entry(producer).or_default();
        let builder = BatchBuilder::new(Codec::None).transactional();
        let mut builder = builder.producer(ProducerId(producer), ProducerEpoch(0), Sequence(*sequence));
        builder.push(Timestamp(1_750_000_000_000), Some(&key), Some(&value), &[]);
        *sequence += 1;
        bench.append(builder.build()).expect("the power is on");
        model.end(&mut bench, producer, commits);
        if commits {
            values.insert(key, value);
        }
        bench.settle();
        if number % 20 == 19 {
            bench.quiesce();
            bench.compact();
            bench.world.advance(std::time::Duration::from_secs(2));
        }
    }
    let marker_count = |bench: &mut Bench| {
        let (mut count, mut offset) = (0, bench.log.log_start());
        while offset < bench.log.log_end() {
            let plan = bench.read(offset, 5000, UpTo::LogEnd).expect("readable");
            let bytes = bench.bytes(&plan);
            for (header, _) in batches(&bytes) {
                offset = header.next_offset();
                count += usize::from(header.attributes.is_control());
            }
        }
        count
    };
    let left = marker_count(&mut bench);
    assert!((5..60).contains(&left), "{left} of 120 markers are left");
    for _ in 0..2 {
        assert_eq!(committed_values(&mut bench), values);
        assert_eq!(bench.log.last_stable_offset(), bench.log.log_end());
        bench.power_cut();
        bench.restart(None).expect("everything is there");
    }
}
