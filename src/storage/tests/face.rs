//! What the log promises, one fact a test.

use super::bench::*;
use crate::base::rng::Rng;
use crate::base::time::{Now, Timestamp};
use crate::base::units::KIB;
use crate::io::sim::{Fault, OpKind, Rule, WorldOptions};
use crate::model::batch::Header;
use crate::model::builder::BatchBuilder;
use crate::model::compression::Codec;
use crate::model::id::Offset;
use crate::model::records::{Records, section};
use crate::storage::retention::RetentionPolicy;
use crate::storage::*;

fn small() -> LogOptions {
    LogOptions {
        segment_size_bytes: 128 * KIB as u64,
        index_interval_size_bytes: 4096,
        splice_size_bytes_min: 32 * KIB as u32,
        ..LogOptions::default()
    }
}

#[test]
fn what_was_appended_is_read_back_and_survives_a_power_cut() {
    // Appends over several segments, reads by all paths, cuts the power and reads again.
    let mut bench = Bench::new(1, WorldOptions::calm(), small());
    let mut rng = Rng::new(1);
    for size in [70, 5000, 300, 90_000, 4096, 61 + 4000].into_iter().cycle().take(60) {
        let batch = batch(&mut rng, size, 1 + size / 1000);
        bench.append(batch).expect("the power is on");
        bench.commit();
    }
    bench.settle();
    bench.check_all();
    assert!(bench.log.segment_count() > 5);
    bench.power_cut();
    bench.restart(None).expect("everything is there");
    assert_eq!(bench.acked, bench.model.last().expect("appended").next_offset);
    bench.check_all();
}

#[test]
fn a_clean_stop_scans_nothing() {
    // Closes, starts with the snapshot, and looks at the statistics.
    let mut bench = Bench::new(2, WorldOptions::calm(), small());
    let mut rng = Rng::new(2);
    for _ in 0..100 {
        bench.append(batch(&mut rng, 3000, 3)).expect("the power is on");
        bench.commit();
    }
    let state = bench.close().expect("the power is on").expect("there is a directory");
    bench.power_cut();
    let stats = bench.restart(Some(state)).expect("everything is there");
    assert_eq!((stats.scanned_bytes, stats.zeroed_bytes), (0, 0));
    bench.check_all();
    bench.append(batch(&mut rng, 3000, 3)).expect("the power is on");
    bench.settle();
    bench.check_all();
}

#[test]
fn an_empty_partition_has_no_directory_and_no_buffers() {
    // Makes a log, stops it, and looks at the disk.
    let mut bench = Bench::new(3, WorldOptions::calm(), small());
    assert_eq!(bench.close(), Some(None));
    assert!(bench.world.list("/data/topics/t-0").is_err());
    assert_eq!(bench.log.memory_bytes(), 0);
    assert!(size_of::<Log>() < 4096);
    bench.restart(None).expect("nothing was there");
}

#[test]
fn an_almost_empty_partition_costs_little_disk_and_memory() {
    // One small batch; the bounds are those of the design: 64 KiB of disk, 32 KiB of memory.
    let mut bench = Bench::new(4, WorldOptions::calm(), LogOptions::default());
    let mut rng = Rng::new(4);
    bench.append(batch(&mut rng, 100, 1)).expect("the power is on");
    bench.quiesce();
    assert!(bench.world.occupied_bytes() < 64 * KIB as u64, "{}", bench.world.occupied_bytes());
    assert!(bench.log.memory_bytes() <= 8 * KIB);
    for _ in 0..300 {
        bench.append(batch(&mut rng, 3000, 1)).expect("the power is on");
        bench.commit();
    }
    bench.quiesce();
    bench.log.shrink();
    assert!(bench.log.memory_bytes() <= 8 * KIB);
    bench.append(batch(&mut rng, 3000, 1)).expect("the power is on");
    bench.quiesce();
    bench.check_all();
}

#[test]
fn a_log_that_becomes_synced_syncs_what_was_written_before() {
    // Switches while a batch is staged, while it is being written and when it is written; nothing is appended after
    // it. Everything that was acknowledged is there after a power cut, and everything is acknowledged.
    for (mode, turns) in [AckAfter::Write, AckAfter::Memory].into_iter().flat_map(|m| (0..4).map(move |t| (m, t))) {
        let mut bench = Bench::new(20 + turns, WorldOptions::calm(), LogOptions { ack_after: mode, ..small() });
        let mut rng = Rng::new(20 + turns);
        bench.append(batch(&mut rng, 3000, 3)).expect("the power is on");
        bench.settle();
        bench.try_append(batch(&mut rng, 9000, 3)).expect("there is room");
        match turns {
            0 => {}
            1 => bench.commit(),
            _ => (1..turns).for_each(|_| bench.turn()),
        }
        let events = bench.log.set_options(&mut bench.io, small());
        bench.take(events);
        (bench.options, bench.lossy) = (small(), false);
        for _ in 0..50 {
            bench.turn();
        }
        let end = bench.log.log_end();
        assert_eq!((bench.log.durable_offset(), bench.log.high_watermark()), (end, end), "{mode:?}, {turns} turns");
        bench.power_cut();
        bench.restart(None).expect("everything is there");
        assert_eq!(bench.log.log_end(), end, "{mode:?}, {turns} turns");
        bench.check_all();
    }
}

#[test]
fn freed_segments_are_overwritten() {
    // Deletes records behind the writer, and sees a file's name come back.
    let mut bench = Bench::new(5, WorldOptions::calm(), small());
    let mut rng = Rng::new(5);
    for round in 0..200 {
        bench.append(batch(&mut rng, 10_000, 5)).expect("the power is on");
        bench.settle();
        if round % 10 == 9 {
            let high_watermark = bench.log.high_watermark();
            bench.log.delete_records(&mut bench.io, high_watermark).expect("in range");
        }
    }
    bench.quiesce();
    assert!(bench.log.segment_count() <= 2);
    let files = bench.world.list("/data/topics/t-0").expect("it is there");
    assert!(files.len() <= 7, "{files:?}");
    assert!(bench.world.occupied_bytes() < 600 * KIB as u64, "{}", bench.world.occupied_bytes());
    let offset = bench.log.log_start();
    bench.check_read(offset, 1000, UpTo::HighWatermark);
    assert!(matches!(bench.read(Offset(0), 1000, UpTo::HighWatermark), Err(ReadError::OffsetOutOfRange { .. })));
}

#[test]
fn one_log_written_twice_from_a_seed_is_the_same() {
    let run = |seed| {
        let mut bench = Bench::new(seed, WorldOptions::default(), small());
        let mut rng = Rng::new(seed);
        for _ in 0..50 {
            bench.append(batch(&mut rng, 5000, 5)).expect("the power is on");
            bench.turn();
        }
        bench.settle();
        bench.world.trace_hash()
    };
    assert_eq!(run(6), run(6));
}

#[test]
fn records_are_found_by_their_time() {
    // Batches of rising times over several segments, in memory and on disk; the reference is a walk over the model.
    let mut bench = Bench::new(7, WorldOptions::default(), small());
    let mut rng = Rng::new(7);
    for step in 0..200 {
        let mut builder = BatchBuilder::new(Codec::None);
        for record in 0..3 {
            let time = 10_000 + step * 10 + rng.in_range(0..40) as i64 + record;
            builder.push(Timestamp(time), None, Some(&[7; 900]), &[]);
        }
        bench.append(builder.build()).expect("the power is on");
        bench.commit();
    }
    bench.quiesce();
    let to = bench.model[20].base_offset.plus(1);
    bench.log.delete_records(&mut bench.io, to).expect("in range");
    bench.quiesce();
    let records: Vec<(Timestamp, Offset)> = bench.model[20..]
        .iter()
        .flat_map(|stored| {
            let header = Header::parse(&stored.bytes).expect("stored");
            let section = section(&header, &stored.bytes, 1 << 20).expect("not compressed");
            let records = Records::new(&section, header.record_count);
            records.map(|r| r.expect("sound")).map(|r| (r.timestamp(&header), r.offset(&header))).collect::<Vec<_>>()
        })
        .filter(|(_, offset)| *offset >= to)
        .collect();
    for time in (9_990..12_100).step_by(7) {
        let step = bench.log.find_by_timestamp(&mut bench.io, READ, Timestamp(time), UpTo::HighWatermark);
        let found = bench.drive_lookup(step).expect("readable").map(|found| (found.timestamp, found.offset));
        let expected = records.iter().find(|(at, _)| at.0 >= time).copied();
        assert_eq!(found, expected, "at {time}");
    }
    let step = bench.log.find_max_timestamp(&mut bench.io, READ, UpTo::HighWatermark);
    let found = bench.drive_lookup(step).expect("readable").expect("there are records");
    let greatest = records.iter().map(|(at, _)| *at).max().expect("there are records");
    let first = records.iter().find(|(at, _)| *at == greatest).expect("it is there");
    assert_eq!((found.timestamp, found.offset), *first);
}

#[test]
fn a_full_disk_refuses_appends_and_is_not_sticky() {
    // The disk fills while space is prepared; retention frees a segment's place and appends go on.
    let mut bench = Bench::new(8, WorldOptions::calm(), LogOptions { reuse: false, ..small() });
    let mut rng = Rng::new(8);
    bench.append(batch(&mut rng, 3000, 1)).expect("the power is on");
    bench.quiesce();
    bench.world.set_capacity(500 * KIB as u64);
    let mut refused = false;
    for _ in 0..5000 {
        let batch = batch(&mut rng, 3000, 1);
        match bench.try_append(batch) {
            Ok(_) => bench.commit(),
            Err(AppendError::DiskFull) => {
                refused = true;
                break;
            }
            Err(error) => assert_eq!(error, AppendError::NotReady),
        }
        bench.turn();
    }
    assert!(refused && bench.log.offline().is_none());
    bench.quiesce();
    bench.check_all();
    let high_watermark = bench.log.high_watermark();
    bench.log.delete_records(&mut bench.io, high_watermark).expect("in range");
    bench.quiesce();
    for _ in 0..20 {
        bench.append(batch(&mut rng, 3000, 1)).expect("there is room again");
    }
    bench.quiesce();
    bench.check_all();
}

#[test]
fn a_failed_write_is_sticky() {
    // One write fails; appends and reads are refused with its cause from then on.
    let mut bench = Bench::new(9, WorldOptions::calm(), small());
    let mut rng = Rng::new(9);
    bench.append(batch(&mut rng, 300, 1)).expect("the power is on");
    bench.quiesce();
    bench.world.inject(Rule::new(OpKind::Write, Fault::Error(libc::EIO)).times(1));
    let batch_bytes = batch(&mut rng, 300, 1);
    bench.try_append(batch_bytes).expect("there is room");
    let acked = bench.log.high_watermark();
    for _ in 0..20 {
        bench.turn();
    }
    assert!(bench.events.offline && bench.log.high_watermark() == acked);
    let again = batch(&mut rng, 300, 1);
    assert!(matches!(bench.try_append(again), Err(AppendError::Offline(Offline::Failed { .. }))));
    assert!(matches!(bench.read(Offset(0), 100, UpTo::HighWatermark), Err(ReadError::Offline(_))));
}

#[test]
fn damage_below_what_was_durable_is_never_truncated() {
    // Bytes in the middle of a long durable run rot; the next start refuses, and the file keeps its length.
    let options = LogOptions { segment_size_bytes: 8 << 20, ..small() };
    let mut bench = Bench::new(10, WorldOptions::calm(), options);
    let mut rng = Rng::new(10);
    for _ in 0..60 {
        bench.append(batch(&mut rng, 90_000, 1)).expect("the power is on");
        bench.settle();
    }
    bench.power_cut();
    let path = "/data/topics/t-0/00000000000000000000.log";
    let length = bench.world.read_file(path).expect("it is there").len();
    bench.world.rot(path, 1_000_000, &[0xff; 10]).expect("it is there");
    let error = bench.try_restart(None).map(drop).expect_err("corrupt").into_offline();
    assert!(matches!(error, Offline::Corrupt { .. }), "{error}");
    assert_eq!(bench.world.read_file(path).expect("it is there").len(), length);
}

#[test]
fn a_batch_whose_leader_epoch_rotted_below_zero_is_not_the_logs() {
    // No checksum covers the epoch. With a long durable run behind it the batch is damage; as the last, a torn write.
    for (count, is_damage) in [(60, true), (1, false)] {
        let options = LogOptions { segment_size_bytes: 8 << 20, ..small() };
        let mut bench = Bench::new(13, WorldOptions::calm(), options);
        let mut rng = Rng::new(13);
        for _ in 0..count {
            bench.append(batch(&mut rng, 90_000, 1)).expect("the power is on");
            bench.settle();
        }
        bench.power_cut();
        bench.world.rot("/data/topics/t-0/00000000000000000000.log", 12, &[0xff; 4]).expect("it is there");
        match bench.try_restart(None) {
            Ok(_) => assert!(!is_damage && bench.log.log_end() == Offset(0)),
            Err(error) => assert!(is_damage && matches!(error.into_offline(), Offline::Corrupt { .. })),
        }
    }
}

#[test]
fn a_partition_without_its_directory_or_of_another_topic_is_offline() {
    let mut bench = Bench::new(11, WorldOptions::calm(), small());
    bench.had_data = true;
    bench.power_cut();
    let error = bench.try_restart(None).map(drop).expect_err("it had data").into_offline();
    assert!(matches!(error, Offline::Missing(_)));
    let mut bench = Bench::new(12, WorldOptions::calm(), small());
    bench.append(batch(&mut Rng::new(12), 300, 1)).expect("the power is on");
    bench.quiesce();
    bench.power_cut();
    let metadata = b"version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAAQ\n";
    bench.world.write_file("/data/topics/t-0/partition.metadata", metadata).expect("it is there");
    let error = bench.try_restart(None).map(drop).expect_err("it is another's").into_offline();
    assert!(matches!(error, Offline::Missing(_)));
}

#[test]
fn a_deleted_partition_leaves_nothing() {
    // Renamed at once, then removed step by step; a stop in between is taken up again.
    let mut bench = Bench::new(13, WorldOptions::calm(), small());
    let mut rng = Rng::new(13);
    for _ in 0..50 {
        bench.append(batch(&mut rng, 5000, 1)).expect("the power is on");
        bench.commit();
    }
    let events = bench.log.delete_files(&mut bench.io);
    bench.take(events);
    while !bench.events.closed || !bench.log.is_quiet() {
        bench.turn();
    }
    assert!(bench.world.list("/data/topics/t-0").is_err());
    let dir = bench.log.deleted_dir();
    let mut removal = Removal::start(&mut bench.io, READ, dir.clone());
    for _ in 0..2 {
        let result = bench.wait_read();
        assert!(!removal.resume(&mut bench.io, result).expect("removable"));
    }
    bench.wait_read().expect("the third step");
    let mut removal = Removal::start(&mut bench.io, READ, dir);
    loop {
        let result = bench.wait_read();
        if removal.resume(&mut bench.io, result).expect("removable") {
            break;
        }
    }
    assert_eq!(bench.world.list("/data/topics").expect("it is there"), []);
}

#[test]
fn a_file_in_use_by_a_response_is_not_overwritten() {
    // A planned response holds a file range of a segment that is freed; the writer goes round, the bytes stay.
    let mut bench = Bench::new(14, WorldOptions::calm(), small());
    let mut rng = Rng::new(14);
    for _ in 0..40 {
        bench.append(batch(&mut rng, 10_000, 1)).expect("the power is on");
        bench.settle();
    }
    bench.quiesce();
    bench.log.shrink();
    let plan = bench.read(Offset(0), 100_000, UpTo::HighWatermark).expect("readable");
    assert!(plan.paths.splice > 32 * KIB as u64, "{:?}", plan.paths);
    // Other reads push it out of the cache of open files.
    for offset in [14, 24, 34] {
        bench.check_read(Offset(offset), 50_000, UpTo::HighWatermark);
    }
    let before = bench.bytes(&plan);
    for _ in 0..60 {
        let high_watermark = bench.log.high_watermark();
        bench.log.delete_records(&mut bench.io, high_watermark).expect("in range");
        bench.append(batch(&mut rng, 10_000, 1)).expect("the power is on");
        bench.quiesce();
    }
    assert!(bench.bytes(&plan) == before);
}

#[test]
fn each_path_serves_what_is_its_own() {
    // The tail from memory, a sealed range by splice, a small one by copy, the active segment's start direct.
    let mut bench = Bench::new(15, WorldOptions::calm(), small());
    let mut rng = Rng::new(15);
    for _ in 0..22 {
        bench.append(batch(&mut rng, 10_000, 1)).expect("the power is on");
        bench.settle();
    }
    bench.quiesce();
    let (start, end) = (bench.log.end_boundary().segment, bench.log.log_end());
    assert!(bench.log.segment_count() == 2 && end.0 - start.0 > 5);
    let paths = |bench: &mut Bench, offset, size_max| {
        let plan = bench.read(Offset(offset), size_max, UpTo::HighWatermark).expect("readable");
        bench.check_read(Offset(offset), size_max, UpTo::HighWatermark);
        plan.paths
    };
    assert!(paths(&mut bench, end.0 - 1, 100_000).tail > 9_000);
    bench.log.shrink();
    assert!(paths(&mut bench, 0, 90_000).splice > 32_000);
    assert!(paths(&mut bench, 1, 12_000).copy > 9_000);
    assert!(paths(&mut bench, start.0, 30_000).direct > 9_000);
}

#[test]
fn retention_frees_whole_segments_and_the_last_one_too() {
    // By size and by time; the active segment is rolled away when it is too old as a whole.
    let mut bench = Bench::new(16, WorldOptions::calm(), small());
    let mut rng = Rng::new(16);
    for _ in 0..80 {
        bench.append(batch(&mut rng, 10_000, 1)).expect("the power is on");
        bench.settle();
    }
    bench.quiesce();
    let policy = RetentionPolicy { retention_ms: None, retention_bytes: Some(300 * KIB as u64) };
    let now = bench.world.now();
    assert!(bench.log.apply_retention(&mut bench.io, policy, now) > 0);
    bench.quiesce();
    assert!(bench.log.size_bytes() < 450 * KIB as u64, "{} in {}", bench.log.size_bytes(), bench.log.segment_count());
    let policy = RetentionPolicy { retention_ms: Some(1), retention_bytes: None };
    for _ in 0..5 {
        let now = Now { wall: Timestamp(1_750_000_000_000 + 1_000_000), ..bench.world.now() };
        bench.log.apply_retention(&mut bench.io, policy, now);
        bench.quiesce();
    }
    assert_eq!((bench.log.segment_count(), bench.log.size_bytes()), (1, 0));
    assert_eq!(bench.log.log_start(), bench.log.log_end());
    bench.append(batch(&mut rng, 10_000, 1)).expect("the power is on");
    bench.quiesce();
    bench.power_cut();
    bench.restart(None).expect("everything is there");
    bench.check_all();
}

#[test]
fn a_write_that_fails_after_the_deletion_does_not_keep_the_directory() {
    // It is under way when the partition is deleted, and fails while the directory is being renamed.
    let mut bench = Bench::new(30, WorldOptions::calm(), small());
    let mut rng = Rng::new(30);
    bench.append(batch(&mut rng, 3000, 1)).expect("the power is on");
    bench.quiesce();
    bench.world.inject(Rule::new(OpKind::Write, Fault::Error(libc::EIO)).path(".log"));
    bench.try_append(batch(&mut rng, 3000, 1)).expect("there is room");
    bench.commit();
    let events = bench.log.delete_files(&mut bench.io);
    bench.events.merge(events);
    for _ in 0..20 {
        bench.turn();
    }
    assert!(bench.log.offline().is_some() && bench.log.is_quiet());
    assert!(bench.events.closed && !bench.events.left_over);
    assert!(bench.world.list("/data/topics/t-0").is_err());
}

#[test]
fn a_deletion_that_failed_may_be_asked_for_again() {
    // The renaming fails, then its sync, then nothing: the third attempt finds the directory renamed.
    let mut bench = Bench::new(31, WorldOptions::calm(), small());
    bench.append(batch(&mut Rng::new(31), 3000, 1)).expect("the power is on");
    bench.quiesce();
    bench.world.inject(Rule::new(OpKind::Rename, Fault::Error(libc::EIO)).times(1));
    bench.world.inject(Rule::new(OpKind::SyncDir, Fault::Error(libc::EIO)).times(1));
    for is_left_over in [true, true, false] {
        bench.events = Events::default();
        let events = bench.log.delete_files(&mut bench.io);
        bench.events.merge(events);
        for _ in 0..20 {
            bench.turn();
        }
        assert!(bench.events.closed && bench.events.left_over == is_left_over);
    }
    assert!(bench.world.list("/data/topics/t-0").is_err());
}
