//! Compaction on the simulated world, against a plain list of what was appended.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::bench::*;
use crate::base::rng::Rng;
use crate::base::time::Timestamp;
use crate::base::units::KIB;
use crate::io::sim::{Fault, Loss, OpKind, Rule, WorldOptions};
use crate::model::batch::{self, Header, batches};
use crate::model::builder::BatchBuilder;
use crate::model::compression::Codec;
use crate::model::id::{Offset, ProducerEpoch, ProducerId, Sequence};
use crate::model::records::{Records, section};
use crate::storage::options::Mutants;
use crate::storage::producer_state::Verdict;
use crate::storage::*;

const DAY_MS: u64 = 24 * 3600 * 1000;
const SEGMENT_SIZE_BYTES: u64 = 32 * KIB as u64;

const POLICY: CompactionPolicy = CompactionPolicy {
    min_cleanable_dirty_ratio: 0.3,
    min_compaction_lag_ms: 0,
    max_compaction_lag_ms: i64::MAX as u64,
    delete_retention_ms: DAY_MS,
};

fn small() -> LogOptions {
    LogOptions { segment_size_bytes: SEGMENT_SIZE_BYTES, index_interval_size_bytes: 4096, ..LogOptions::default() }
}

/// A record as it was appended.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    key: u64,
    value: Option<Vec<u8>>,
    time: i64,
}

/// A log with keyed records beside the list of them, by offset.
struct Keyed {
    bench: Bench,
    rows: BTreeMap<i64, Row>,
    rng: Rng,
    key_count: u64,
    sequences: BTreeMap<i64, i32>,
}

impl Keyed {
    fn new(seed: u64, world: WorldOptions, options: LogOptions, policy: Option<CompactionPolicy>) -> Keyed {
        let mut bench = Bench::new(seed, world, options);
        bench.compaction = policy;
        Keyed { bench, rows: BTreeMap::new(), rng: Rng::new(seed ^ 0xc1ea), key_count: 50, sequences: BTreeMap::new() }
    }

    /// Appends one batch of random keys; `None` if the power was cut meanwhile.
    fn append(&mut self, size_bytes: usize) -> Option<()> {
        let codec = Codec::ALL[self.rng.in_range(0..5) as usize];
        let count = self.rng.in_range(1..12);
        let now = self.bench.world.now().wall;
        let producer = self.rng.in_range(0..4) as i64;
        let mut builder = BatchBuilder::new(codec);
        if producer > 0 {
            let sequence = self.sequences.entry(producer).or_default();
            builder = builder.producer(ProducerId(producer), ProducerEpoch(0), Sequence(*sequence));
            *sequence += count as i32;
        }
        let mut rows = Vec::new();
        for _ in 0..count {
            let row = Row {
                key: self.rng.in_range(0..self.key_count),
                value: self.rng.chance(9, 10).then(|| {
                    let mut value = vec![0; size_bytes / count as usize + 1];
                    self.rng.fill(&mut value);
                    value
                }),
                time: now.0 - self.rng.in_range(0..1000) as i64,
            };
            builder.push(Timestamp(row.time), Some(&row.key.to_be_bytes()), row.value.as_deref(), &[("h", None)]);
            rows.push(row);
        }
        let appended = self.bench.append(builder.build())?;
        let offsets = appended.base_offset.0..;
        self.rows.extend(offsets.zip(rows));
        self.bench.commit();
        Some(())
    }

    fn fill(&mut self, batch_count: usize, size_bytes: usize) {
        for _ in 0..batch_count {
            if self.append(size_bytes).is_none() {
                return;
            }
        }
        self.bench.settle();
    }

    /// Starts again and forgets what was lost with consent.
    fn restart(&mut self, clean: Option<checkpoint::PartitionState>) -> Result<RecoveryStats, String> {
        let stats = self.bench.restart(clean)?;
        let end = self.bench.log.log_end().0;
        self.rows.retain(|offset, _| *offset < end);
        for (producer, next) in &mut self.sequences {
            *next = self
                .bench
                .log
                .producers()
                .get(ProducerId(*producer))
                .and_then(|entry| entry.kept().last())
                .map_or(0, |last| last.last_sequence + 1);
        }
        Ok(stats)
    }

    /// Everything that can be read from `from` on, batch by batch, small reads and large ones.
    fn read(&mut self, from: Offset) -> Result<BTreeMap<i64, Row>, String> {
        let mut rows = BTreeMap::new();
        let mut offset = from;
        while offset < self.bench.log.high_watermark() {
            let size_max = [100, 5000, 100_000][self.rng.in_range(0..3) as usize];
            let plan = match self.bench.read(offset, size_max, UpTo::HighWatermark) {
                Ok(plan) => plan,
                Err(_) if self.bench.world.is_power_cut() => return Ok(rows),
                // The log start has passed it.
                Err(ReadError::OffsetOutOfRange { start, .. }) if offset < start => {
                    rows.clear();
                    offset = start;
                    continue;
                }
                Err(error) => return Err(format!("read of {offset}: {error}")),
            };
            let bytes = self.bench.bytes(&plan);
            if self.bench.world.is_power_cut() {
                return Ok(rows);
            }
            let before = offset;
            let mut total = 0;
            for (header, bytes) in batches(&bytes) {
                total += bytes.len();
                if batch::crc_of(bytes) != header.crc {
                    return Err(format!("a wrong CRC at {}", header.base_offset));
                }
                if header.next_offset() <= offset || (header.base_offset < offset && offset > before) {
                    return Err(format!("the batch of {} does not follow {offset}", header.base_offset));
                }
                let section = section(&header, bytes, 1 << 24).map_err(|error| error.to_string())?;
                for record in Records::new(&section, header.record_count) {
                    let record = record.map_err(|error| error.to_string())?;
                    let row = Row {
                        key: u64::from_be_bytes(record.key.expect("all have one").try_into().expect("8 bytes")),
                        value: record.value.map(<[u8]>::to_vec),
                        time: record.timestamp(&header).0,
                    };
                    if record.headers.len() != 1 {
                        return Err("a record's header is gone".into());
                    }
                    let at = record.offset(&header);
                    if at >= from {
                        rows.insert(at.0, row);
                    }
                }
                offset = header.next_offset();
            }
            if total != bytes.len() || offset == before {
                return Err(format!("nothing whole at {before}"));
            }
        }
        Ok(rows)
    }

    /// What is read are records that were appended, at their offsets, and the last one of each key is among them.
    fn check(&mut self) -> Result<(), String> {
        let from = self.bench.log.log_start();
        let read = self.read(from)?;
        if self.bench.world.is_power_cut() {
            return Ok(());
        }
        let start = self.bench.log.log_start().0;
        let end = self.bench.log.high_watermark().0;
        for (offset, row) in read.range(start..) {
            if self.rows.get(offset) != Some(row) {
                return Err(format!("the record at {offset} is not what was appended"));
            }
        }
        let mut last = BTreeMap::new();
        for (offset, row) in self.rows.range(start..end) {
            last.insert(row.key, *offset);
        }
        for (key, offset) in last {
            let row = &self.rows[&offset];
            // Its own time is up to a second before it was appended.
            let age_ms = self.bench.world.now().wall.0 - row.time;
            let retention_ms = self.bench.compaction.map_or(0, |policy| policy.delete_retention_ms as i64);
            let may_be_gone = row.value.is_none() && age_ms >= retention_ms;
            if !read.contains_key(&offset) && !may_be_gone {
                let what = if row.value.is_none() { "tombstone" } else { "value" };
                return Err(format!("the last {what} of key {key}, at {offset}, is gone"));
            }
            // Where a tombstone is gone, what it deleted must be gone, too.
            if !read.contains_key(&offset) && read.values().any(|row| row.key == key) {
                return Err(format!("key {key} was deleted at {offset} and is back"));
            }
        }
        self.check_lookups(&read)
    }

    /// Lookups by time answer as a walk over the records that were left before, or over those that a compaction
    /// meanwhile must have left.
    fn check_lookups(&mut self, read: &BTreeMap<i64, Row>) -> Result<(), String> {
        let start = self.bench.log.log_start().0;
        let end = self.bench.log.high_watermark().0;
        let mut last = BTreeMap::new();
        for (offset, row) in self.rows.range(start..end) {
            last.insert(row.key, *offset);
        }
        let lasts: BTreeSet<i64> = last.into_values().filter(|offset| self.rows[offset].value.is_some()).collect();
        let Some(latest) = read.values().map(|row| row.time).max() else { return Ok(()) };
        for _ in 0..3 {
            let time = Timestamp(latest - self.rng.in_range(0..3000) as i64);
            let step = self.bench.log.find_by_timestamp(&mut self.bench.io, READ, time, UpTo::HighWatermark);
            let found = match self.bench.drive_lookup(step) {
                Ok(found) => found.map(|found| found.offset.0),
                Err(_) if self.bench.world.is_power_cut() => return Ok(()),
                Err(error) => return Err(format!("lookup of {}: {error}", time.0)),
            };
            if self.bench.log.log_start().0 != start {
                return Ok(()); // A log start that was asked for before has become durable.
            }
            let first = read.iter().find(|(_, row)| row.time >= time.0).map(|(offset, _)| *offset);
            let kept = lasts.iter().copied().find(|offset| self.rows[offset].time >= time.0);
            let fits = match (found, first) {
                // The record may lie below a log start that is within its batch.
                (Some(found), _) if found == start => true,
                (Some(found), Some(first)) => {
                    self.rows[&found].time >= time.0 && found >= first && kept.is_none_or(|kept| found <= kept)
                }
                (Some(_), None) => false,
                (None, _) => kept.is_none(),
            };
            if !fits {
                return Err(format!("lookup of {}: {found:?} is not between {first:?} and {kept:?}", time.0));
            }
        }
        Ok(())
    }

    /// Below the cleaner offset every key is there once.
    fn check_unique(&mut self) -> Result<(), String> {
        let end = self.bench.log.cleaner_offset().0;
        let read = self.read(self.bench.log.log_start())?;
        let mut keys = BTreeSet::new();
        for (offset, row) in read.range(..end) {
            if !keys.insert(row.key) {
                return Err(format!("key {} is at {offset} and before", row.key));
            }
        }
        Ok(())
    }

    fn done<T>(&self, result: Result<T, String>) -> T {
        result.unwrap_or_else(|error| panic!("seed {}: {error}", self.bench.world.seed()))
    }
}

#[test]
fn of_each_key_the_last_record_stays() {
    // Many times more records than keys over many segments; what is left is little, whole and at its offsets.
    let mut keyed = Keyed::new(1, WorldOptions::calm(), small(), Some(POLICY));
    keyed.fill(300, 3000);
    let before = keyed.bench.log.size_bytes();
    let all = keyed.rows.len();
    keyed.bench.compact();
    assert!(keyed.bench.compacted_count > 0);
    let result = keyed.check().and_then(|()| keyed.check_unique());
    keyed.done(result);
    let left = keyed.read(Offset(0)).expect("readable").len();
    assert!(left < all / 3 && keyed.bench.log.size_bytes() < before / 2, "{left} of {all} records are left");
    // Small neighbours become one in the next round.
    keyed.fill(100, 3000);
    keyed.bench.compact();
    assert!(keyed.bench.log.segment_count() < 20, "{} segments", keyed.bench.log.segment_count());
    let result = keyed.check().and_then(|()| keyed.check_unique());
    keyed.done(result);
    // Nothing of it is left over on the disk.
    let names: Vec<String> =
        keyed.bench.world.list("/data/topics/t-0").unwrap().into_iter().map(|entry| entry.name).collect();
    assert!(!names.iter().any(|name| name.ends_with(".new") || name.ends_with(".swap")), "{names:?}");
    let logs = names.iter().filter(|name| name.ends_with(".log")).count();
    assert_eq!(logs, keyed.bench.log.segment_count());
}

#[test]
fn compaction_goes_on_over_restarts_and_finds_its_place_again() {
    // Rounds of appends and compactions with clean stops, kills and power cuts between.
    let mut keyed = Keyed::new(2, WorldOptions::calm(), small(), Some(POLICY));
    let mut cleaner_offset = Offset(0);
    for round in 0..9 {
        keyed.fill(80, 3000);
        keyed.bench.compact();
        assert!(keyed.bench.log.cleaner_offset() >= cleaner_offset);
        cleaner_offset = keyed.bench.log.cleaner_offset();
        keyed.bench.quiesce();
        let clean = match round % 3 {
            0 => Some(keyed.bench.close().expect("the power is on").expect("it has files")),
            1 => {
                keyed.bench.world.kill_process();
                keyed.bench.world.wait_for_lock();
                None
            }
            _ => None,
        };
        keyed.bench.power_cut();
        let result = keyed.restart(clean);
        keyed.done(result);
        assert_eq!(keyed.bench.log.cleaner_offset(), cleaner_offset, "round {round}");
        let result = keyed.check().and_then(|()| keyed.check_unique());
        keyed.done(result);
    }
    assert!(cleaner_offset > Offset(2000));
}

#[test]
fn tombstones_go_after_their_time_and_with_them_what_they_deleted() {
    // Keys are deleted; a compaction keeps the tombstones, one after their retention drops them.
    let policy = CompactionPolicy { delete_retention_ms: 10_000, min_cleanable_dirty_ratio: 0.0, ..POLICY };
    let mut keyed = Keyed::new(3, WorldOptions::calm(), small(), Some(policy));
    keyed.fill(200, 3000);
    keyed.bench.compact();
    let last: BTreeMap<u64, i64> = keyed.rows.iter().map(|(offset, row)| (row.key, *offset)).collect();
    let end = keyed.bench.log.cleaner_offset().0;
    let expected: BTreeSet<i64> =
        last.into_values().filter(|offset| *offset < end && keyed.rows[offset].value.is_none()).collect();
    let tombstones = |keyed: &mut Keyed| -> BTreeSet<i64> {
        let read = keyed.read(Offset(0)).expect("readable");
        read.range(..end).filter(|(_, row)| row.value.is_none()).map(|(offset, _)| *offset).collect()
    };
    assert!(!expected.is_empty() && tombstones(&mut keyed).is_superset(&expected));
    // Other keys follow, so that these stay what they are.
    keyed.key_count = 0;
    let keys: Vec<u64> = (1000..1060).collect();
    for _ in 0..2 {
        for key in &keys {
            let mut builder = BatchBuilder::new(Codec::None);
            builder.push(keyed.bench.world.now().wall, Some(&key.to_be_bytes()), Some(&[9; 1500]), &[("h", None)]);
            let row = Row { key: *key, value: Some(vec![9; 1500]), time: keyed.bench.world.now().wall.0 };
            let appended = keyed.bench.append(builder.build()).expect("the power is on");
            keyed.rows.insert(appended.base_offset.0, row);
            keyed.bench.commit();
        }
        keyed.bench.settle();
        keyed.bench.compact();
        let is_young = keyed.bench.world.now().wall.0 < 1_750_000_000_000 + 10_000;
        let left = tombstones(&mut keyed);
        assert!(if is_young { left.is_superset(&expected) } else { left.is_empty() }, "{left:?} of {expected:?}");
        keyed.bench.world.advance(Duration::from_secs(20));
    }
    assert!(keyed.bench.compacted_count > 2);
    keyed.bench.compaction = Some(CompactionPolicy { delete_retention_ms: 0, ..policy });
    let result = keyed.check();
    keyed.done(result);
}

#[test]
fn a_cut_at_every_step_of_a_compaction_leaves_the_old_segments_or_the_new_ones() {
    // One history; the power goes after each turn of the compaction, with everything lost that may be, nothing, or
    // some of it. After the restart all is there, and the compaction can be done again.
    for loss in [Loss::All, Loss::Nothing, Loss::Random] {
        let mut step_count = 0;
        loop {
            let mut keyed = Keyed::new(4, WorldOptions { loss, ..WorldOptions::calm() }, small(), None);
            keyed.fill(60, 3000);
            keyed.bench.quiesce();
            keyed.bench.compaction = Some(POLICY);
            let mut ended = false;
            for _ in 0..step_count {
                keyed.bench.turn();
                ended = keyed.bench.compacted_count > 0 && keyed.bench.log.jobs.is_empty();
            }
            keyed.bench.power_cut();
            let result = keyed.restart(None).and_then(|_| keyed.check());
            result.unwrap_or_else(|error| panic!("{loss:?}, cut after {step_count} turns: {error}"));
            keyed.bench.compact();
            let result = keyed.check().and_then(|()| keyed.check_unique());
            result.unwrap_or_else(|error| panic!("{loss:?}, cut after {step_count} turns, compacted again: {error}"));
            if ended {
                break;
            }
            step_count += 1;
        }
        assert!(step_count > 40, "{step_count} steps");
    }
}

#[test]
fn readers_are_served_while_segments_are_replaced_under_them() {
    // Reads and lookups are begun and driven turn by turn while compactions run; and a response that was planned
    // before keeps its bytes.
    for seed in 0..8 {
        let mut keyed = Keyed::new(seed, WorldOptions::default(), small(), Some(POLICY));
        keyed.fill(60, 3000);
        let plan = keyed.bench.read(Offset(0), 20_000, UpTo::HighWatermark).expect("readable");
        let bytes = keyed.bench.bytes(&plan);
        for _ in 0..40 {
            keyed.fill(5, 3000);
            let result = keyed.check();
            keyed.done(result);
        }
        assert!(keyed.bench.compacted_count > 1, "seed {seed}");
        assert!(keyed.bench.bytes(&plan) == bytes, "seed {seed}");
    }
}

#[test]
fn a_map_that_is_too_small_takes_more_rounds_and_loses_nothing() {
    // Room for a few keys of the fifty: each round maps as far as it gets.
    let mut keyed = Keyed::new(5, WorldOptions::calm(), small(), None);
    keyed.bench.cleaner_options = CleanerOptions { map_size_bytes: 24 * 16, ..CLEANER };
    keyed.fill(150, 3000);
    keyed.bench.quiesce();
    keyed.bench.power_cut();
    let result = keyed.restart(None);
    keyed.done(result);
    keyed.bench.compaction = Some(CompactionPolicy { min_cleanable_dirty_ratio: 0.0, ..POLICY });
    keyed.bench.compact();
    assert!(keyed.bench.compacted_count > 5, "{} rounds", keyed.bench.compacted_count);
    let result = keyed.check();
    keyed.done(result);
    assert!(keyed.read(Offset(0)).expect("readable").len() < keyed.rows.len() / 2);
}

#[test]
fn a_producers_last_sequence_outlives_its_records() {
    // A producer's only record is superseded by others'; after compaction and recovery its next sequence is known.
    let policy = CompactionPolicy { min_cleanable_dirty_ratio: 0.0, ..POLICY };
    let mut keyed = Keyed::new(6, WorldOptions::calm(), small(), Some(policy));
    let mut builder = BatchBuilder::new(Codec::Zstd).producer(ProducerId(77), ProducerEpoch(3), Sequence(0));
    builder.push(Timestamp(5), Some(&1_u64.to_be_bytes()), Some(b"old"), &[("h", None)]);
    builder.push(Timestamp(5), Some(&2_u64.to_be_bytes()), Some(b"old"), &[("h", None)]);
    let repeated = builder.build();
    keyed.bench.append(repeated.clone()).expect("the power is on");
    keyed.fill(100, 3000);
    keyed.bench.compact();
    assert!(keyed.bench.compacted_count > 0);
    let header = keyed.bench.read(Offset(0), 10, UpTo::HighWatermark).map(|plan| keyed.bench.bytes(&plan));
    let header = Header::parse(&header.expect("readable")).expect("a batch");
    assert_eq!((header.base_offset, header.record_count, header.producer_id), (Offset(0), 0, ProducerId(77)));
    // Every sidecar and the checkpoint are lost: the state is read from the batches.
    keyed.bench.quiesce();
    for entry in keyed.bench.world.list("/data/topics/t-0").unwrap() {
        if entry.name.ends_with(".sidecar") {
            let path = format!("/data/topics/t-0/{}", entry.name);
            keyed.bench.world.write_file(path, b"").expect("it is there");
        }
    }
    keyed.bench.power_cut();
    let result = keyed.restart(None);
    keyed.done(result);
    let found = keyed.bench.log.producers().check(&Header::parse(&repeated).unwrap());
    assert!(matches!(found, Ok(Verdict::Duplicate { base_offset: Offset(0), .. })), "{found:?}");
    let result = keyed.read(Offset(0));
    keyed.done(result);
}

#[test]
fn corrupt_batches_are_not_copied() {
    // Bytes rot in a sealed segment: the compaction ends, the file stays, and the log is left alone.
    rot_is_not_copied(10_000, &[0xff; 4]);
}

#[test]
fn a_batch_whose_offset_is_not_its_places_is_not_copied() {
    // No CRC covers the base offset: it rots, as if a read had gone astray.
    rot_is_not_copied(7, &[5]);
}

fn rot_is_not_copied(position: u64, rot: &[u8]) {
    let mut keyed = Keyed::new(7, WorldOptions::calm(), small(), None);
    keyed.fill(60, 3000);
    keyed.bench.quiesce();
    let path = "/data/topics/t-0/00000000000000000000.log";
    keyed.bench.world.rot(path, position, rot).expect("it is there");
    let before = keyed.bench.world.read_file(path).unwrap();
    let mut cleaner = Cleaner::new(READ, CLEANER, &mut Rng::new(1));
    let ended = loop {
        let now = keyed.bench.world.now();
        if cleaner.log().is_none() {
            let found = keyed.bench.log.dirtiness(&mut keyed.bench.io, &POLICY, now).expect("it is dirty");
            if let Some(found) = keyed.bench.log.may_compact(&mut keyed.bench.io, &found) {
                cleaner.start(&keyed.bench.log, found, &POLICY, now);
            }
            keyed.bench.turn();
            continue;
        }
        if cleaner.is_under_way() {
            let result = keyed.bench.wait_read();
            let ended = cleaner.complete(&mut keyed.bench.io, Some(&mut keyed.bench.log), result, now.monotonic);
            assert!(ended.is_none());
        } else if let Some(ended) = cleaner.go_on(&mut keyed.bench.io, &mut keyed.bench.log, now, false) {
            break ended;
        }
    };
    assert!(format!("{ended:?}").contains("Corrupt"), "{ended:?}");
    let now = keyed.bench.world.now();
    assert_eq!(keyed.bench.log.dirtiness(&mut keyed.bench.io, &POLICY, now), None);
    assert!(keyed.bench.log.offline().is_none() && keyed.bench.world.read_file(path).unwrap() == before);
}

#[test]
fn a_full_disk_ends_a_compaction_and_harms_nothing() {
    // Nothing can be written while it runs; later it can.
    let mut keyed = Keyed::new(8, WorldOptions::calm(), small(), None);
    keyed.fill(60, 3000);
    keyed.bench.quiesce();
    keyed.bench.world.inject(Rule::new(OpKind::Write, Fault::Error(libc::ENOSPC)).path(".log.new"));
    let mut cleaner = Cleaner::new(READ, CLEANER, &mut Rng::new(1));
    let mut failures = 0;
    while failures < 3 {
        let now = keyed.bench.world.now();
        if cleaner.is_under_way() {
            let result = keyed.bench.wait_read();
            let log = Some(&mut keyed.bench.log);
            if cleaner.complete(&mut keyed.bench.io, log, result, now.monotonic).is_some() {
                failures += 1;
                // It is left alone for a while, and others would get their turn.
                let now = keyed.bench.world.now();
                assert_eq!(keyed.bench.log.dirtiness(&mut keyed.bench.io, &POLICY, now), None);
                keyed.bench.world.advance(Duration::from_secs(61));
            }
        } else if cleaner.log().is_some() {
            let ended = cleaner.go_on(&mut keyed.bench.io, &mut keyed.bench.log, now, false);
            assert!(ended.is_none(), "{ended:?}");
        } else {
            let found = keyed.bench.log.dirtiness(&mut keyed.bench.io, &POLICY, now).expect("it is dirty");
            if let Some(found) = keyed.bench.log.may_compact(&mut keyed.bench.io, &found) {
                cleaner.start(&keyed.bench.log, found, &POLICY, now);
            }
            keyed.bench.turn();
        }
    }
    while cleaner.is_under_way() {
        let (result, now) = (keyed.bench.wait_read(), keyed.bench.world.now().monotonic);
        cleaner.complete(&mut keyed.bench.io, Some(&mut keyed.bench.log), result, now);
    }
    let names = keyed.bench.world.list("/data/topics/t-0").unwrap();
    assert!(!names.iter().any(|entry| entry.name.ends_with(".new")), "{names:?}");
    keyed.bench.world.clear_faults();
    keyed.bench.compaction = Some(POLICY);
    keyed.bench.compact();
    let result = keyed.check().and_then(|()| keyed.check_unique());
    keyed.done(result);
    assert!(keyed.bench.compacted_count > 0);
}

#[test]
fn a_quiet_log_is_compacted_at_its_greatest_lag() {
    // One segment, never filled: nothing to compact, until its first record is too old.
    let policy = CompactionPolicy { max_compaction_lag_ms: 60_000, min_cleanable_dirty_ratio: 0.9, ..POLICY };
    let mut keyed = Keyed::new(9, WorldOptions::calm(), small(), Some(policy));
    keyed.key_count = 3;
    keyed.fill(10, 500);
    keyed.bench.compact();
    assert_eq!((keyed.bench.compacted_count, keyed.bench.log.segment_count()), (0, 1));
    keyed.bench.world.advance(Duration::from_secs(120));
    for _ in 0..2000 {
        keyed.bench.turn();
    }
    assert!(keyed.bench.compacted_count > 0 && keyed.bench.log.segment_count() == 2);
    assert_eq!(keyed.bench.log.cleaner_offset(), keyed.bench.log.log_end());
    let result = keyed.check().and_then(|()| keyed.check_unique());
    keyed.done(result);
}

/// A random history of appends, reads, deletions, rule changes, compactions, cuts, kills and stops.
fn history(seed: u64, options: LogOptions, world: WorldOptions, step_count: usize) -> Result<usize, String> {
    let policy = CompactionPolicy { delete_retention_ms: [DAY_MS, 0, 3_000][seed as usize / 2 % 3], ..POLICY };
    let mut keyed = Keyed::new(seed, world, options, Some(policy));
    let mut compacted = 0;
    keyed.key_count = [5, 50, 400][seed as usize % 3];
    keyed.bench.cleaner_options.map_size_bytes = [24 * 40, 1 << 20][seed as usize % 2];
    for _ in 0..step_count {
        match keyed.rng.in_range(0..100) {
            0..45 => {
                let size = keyed.rng.in_range(10..5000) as usize;
                keyed.append(size);
            }
            45..70 => (0..keyed.rng.in_range(1..40)).for_each(|_| keyed.bench.turn()),
            70..78 => keyed.check()?,
            78..80 => {
                let (start, end) = (keyed.bench.log.log_start().0, keyed.bench.log.high_watermark().0);
                let to = Offset(start + keyed.rng.in_range(0..=(end - start) as u64 / 8) as i64);
                keyed.bench.log.delete_records(&mut keyed.bench.io, to).expect("in range");
            }
            80..83 => keyed.bench.settle(),
            83 => keyed.bench.world.advance(Duration::from_secs(2)),
            84..88 => {
                keyed.bench.compact();
                if !keyed.bench.world.is_power_cut() {
                    keyed.check()?;
                }
            }
            88 => keyed.bench.log.shrink(),
            89 => {
                let is_on = keyed.rng.chance(3, 4);
                keyed.bench.compaction = is_on.then_some(policy);
                if !is_on {
                    (0..20).for_each(|_| keyed.bench.turn());
                    keyed.bench.compaction = Some(policy);
                }
            }
            90..95 => {
                keyed.bench.power_cut();
            }
            95..98 => {
                keyed.bench.world.kill_process();
                keyed.bench.world.wait_for_lock();
                keyed.restart(None)?;
                keyed.check()?;
            }
            _ => {
                let before = keyed.bench.compaction.take();
                if let Some(state) = keyed.bench.close() {
                    keyed.bench.world.kill_process();
                    keyed.bench.world.wait_for_lock();
                    keyed.restart(state)?;
                    keyed.check()?;
                }
                keyed.bench.compaction = before;
            }
        }
        if keyed.bench.world.is_power_cut() {
            keyed.restart(None)?;
            keyed.check()?;
        }
        compacted += std::mem::take(&mut keyed.bench.compacted_count);
        if let Some(cause) = keyed.bench.log.offline() {
            return Err(format!("offline: {cause}"));
        }
    }
    Ok(compacted)
}

#[test]
fn no_key_loses_its_last_value_in_random_histories() {
    let seeds: u64 = std::env::var("OTTLA_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(40);
    let first: u64 = std::env::var("OTTLA_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut compacted = 0;
    for seed in first..first + seeds {
        let options = LogOptions { segment_size_bytes: [8, 20, 60][seed as usize % 3] * KIB as u64, ..small() };
        let world = if seed.is_multiple_of(4) { WorldOptions::harsh() } else { WorldOptions::default() };
        let world = WorldOptions { tear_size_bytes: 4096, ..world };
        match history(seed, options, world, 250) {
            Ok(count) => compacted += count,
            Err(error) => panic!("seed {seed}: {error}"),
        }
    }
    assert!(compacted > 2 * seeds as usize, "only {compacted} compactions");
}

#[test]
fn modes_that_may_lose_never_yield_what_was_not_appended() {
    for seed in 0..12_u64 {
        let ack_after = [AckAfter::Write, AckAfter::Memory][seed as usize % 2];
        let options = LogOptions { ack_after, segment_size_bytes: 20 * KIB as u64, ..small() };
        history(seed, options, WorldOptions::default(), 200).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
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
        let run = std::panic::AssertUnwindSafe(|| scenario(seed, options));
        !matches!(std::panic::catch_unwind(run), Ok(Ok(())))
    });
    assert!(caught, "the mutant lived");
}

/// Fills, compacts and looks, twice.
fn compacted(seed: u64, options: LogOptions) -> Result<(), String> {
    let mut keyed = Keyed::new(seed, WorldOptions::calm(), options, Some(POLICY));
    for _ in 0..2 {
        keyed.fill(60, 3000);
        keyed.bench.compact();
        keyed.check()?;
    }
    Ok(())
}

/// Compacts, cuts the power at a moment by the seed, and looks.
fn compacted_and_cut(seed: u64, options: LogOptions) -> Result<(), String> {
    let loss = if seed.is_multiple_of(2) { Loss::All } else { Loss::Nothing };
    let mut keyed = Keyed::new(seed, WorldOptions { loss, ..WorldOptions::calm() }, options, None);
    keyed.fill(50, 3000);
    keyed.bench.quiesce();
    keyed.bench.compaction = Some(POLICY);
    (0..20 + seed * 3).for_each(|_| keyed.bench.turn());
    keyed.bench.power_cut();
    keyed.restart(None)?;
    keyed.check()
}

#[test]
fn dropping_tombstones_in_the_first_pass_is_caught() {
    is_caught(|m| m.tombstones_go_early = true, 2, compacted);
}

#[test]
fn dropping_the_last_value_is_caught() {
    is_caught(|m| m.drop_the_last_value = true, 2, compacted);
}

#[test]
fn swapping_without_a_checkpoint_that_tells_of_gaps_is_caught() {
    is_caught(|m| m.swap_without_checkpoint = true, 40, compacted_and_cut);
}

#[test]
fn forgetting_the_gaps_is_caught() {
    is_caught(|m| m.forget_gaps = true, 2, compacted);
}

#[test]
fn dropping_the_last_batch_of_a_segment_is_caught() {
    // Its end is then no longer where the next one begins: a read within the gap finds nothing.
    is_caught(
        |m| m.forget_last_header = true,
        4,
        |seed, options| {
            let mut keyed = Keyed::new(seed, WorldOptions::calm(), options, Some(POLICY));
            keyed.key_count = 3;
            keyed.fill(60, 3000);
            keyed.bench.compact();
            for offset in 0..keyed.bench.log.log_end().0 {
                keyed.bench.read(Offset(offset), 100, UpTo::HighWatermark).map_err(|error| error.to_string())?;
            }
            keyed.check()
        },
    );
}

#[test]
fn swapping_before_the_sync_is_caught() {
    is_caught(|m| m.swap_before_sync = true, 40, compacted_and_cut);
}

#[test]
fn replacing_several_segments_without_saying_so_is_caught() {
    is_caught(|m| m.swap_without_name = true, 40, compacted_and_cut);
}

#[test]
fn remembering_places_of_replaced_segments_is_caught() {
    // Readers go on while segments are replaced.
    is_caught(
        |m| m.keep_old_places = true,
        6,
        |seed, options| {
            let mut keyed = Keyed::new(seed, WorldOptions::default(), options, Some(POLICY));
            keyed.fill(60, 3000);
            for _ in 0..40 {
                keyed.fill(4, 3000);
                keyed.check()?;
            }
            Ok(())
        },
    );
}
