//! What is durable, what fails, what is checked.

use super::*;

#[test]
fn what_was_synced_is_never_lost() {
    // Three ways of making blocks durable, then a power cut, for many seeds.
    for seed in 0..200 {
        let (world, mut io) = world(seed, WorldOptions::default());
        let file = open(&mut io, "/data/a", DIRECT);
        sync_dir(&mut io);
        write(&mut io, &file, 0, 1, 3, true).expect("no faults");
        io.run(Op::WriteZeros { file: file.clone(), offset: 3 * BLOCK as u64, length_bytes: 2 * BLOCK as u64 })
            .expect("no faults");
        write(&mut io, &file, 5 * BLOCK, 2, 2, false).expect("no faults");
        io.run(Op::Sync { file: file.clone() }).expect("no faults");
        write(&mut io, &file, 7 * BLOCK, 3, 1, false).expect("no faults");
        world.power_cut();
        assert_eq!(blocks(&world, "/data/a")[..7], [1, 1, 1, 0, 0, 2, 2], "seed {seed}");
    }
}

#[test]
fn a_write_that_was_not_synced_is_lost_kept_or_torn_and_harms_nothing_else() {
    let mut seen = BTreeSet::new();
    for seed in 0..200 {
        let (world, mut io) = world(seed, WorldOptions::default());
        let file = open(&mut io, "/data/a", DIRECT);
        sync_dir(&mut io);
        write(&mut io, &file, 0, 1, 4, true).expect("no faults");
        write(&mut io, &file, BLOCK, 2, 2, false).expect("no faults");
        world.power_cut();
        let found = blocks(&world, "/data/a");
        assert_eq!((found[0], found[3]), (1, 1), "seed {seed}");
        seen.insert((found[1], found[2]));
    }
    assert_eq!(seen, BTreeSet::from([(1, 1), (1, 2), (2, 1), (2, 2)]));
}

#[test]
fn a_later_write_may_survive_an_earlier_one() {
    let survives = |seed| {
        let (world, mut io) = world(seed, WorldOptions::default());
        let file = open(&mut io, "/data/a", DIRECT);
        sync_dir(&mut io);
        write(&mut io, &file, 0, 1, 2, true).expect("no faults");
        write(&mut io, &file, 0, 2, 1, false).expect("no faults");
        write(&mut io, &file, BLOCK, 3, 1, false).expect("no faults");
        world.power_cut();
        blocks(&world, "/data/a") == [1, 3]
    };
    assert!((0..100).any(survives));
}

#[test]
fn sectors_are_torn_within_a_block_if_asked_for() {
    let torn = |seed| {
        let (world, mut io) = world(seed, WorldOptions { tear_size_bytes: 512, ..WorldOptions::default() });
        let file = open(&mut io, "/data/a", DIRECT);
        sync_dir(&mut io);
        write(&mut io, &file, 0, 1, 1, true).expect("no faults");
        write(&mut io, &file, 0, 2, 1, false).expect("no faults");
        world.power_cut();
        let bytes = world.read_file("/data/a").expect("synced");
        assert!(bytes.chunks(512).all(|sector| sector.iter().all(|byte| *byte == sector[0])));
        blocks(&world, "/data/a") == [-1]
    };
    assert!((0..100).any(torn));
}

#[test]
fn the_power_goes_at_the_chosen_write_and_leaves_the_chosen_blocks() {
    let (world, mut io) = world(1, WorldOptions::default());
    let file = open(&mut io, "/data/a", DIRECT);
    sync_dir(&mut io);
    write(&mut io, &file, 0, 1, 4, true).expect("no faults");
    world.cut_power_at_write(world.write_count() + 1, Tear::Blocks([0, 2].into()));
    write(&mut io, &file, 0, 2, 4, true).expect("not this one");
    assert!(!world.is_power_cut());
    assert_eq!(errno(write(&mut io, &file, 0, 3, 4, true)), libc::ENODEV);
    assert!(world.is_power_cut() && !io.is_alive());
    let mut io = world.io("shard 0", MIB);
    assert!(!world.is_power_cut());
    assert_eq!(blocks(&world, "/data/a"), [3, 2, 3, 2]);
    open(&mut io, "/data/a", DIRECT);
}

#[test]
fn a_chosen_tear_of_an_append_is_visible() {
    let (world, mut io) = world(1, WorldOptions { loss: Loss::All, ..WorldOptions::default() });
    let file = open(&mut io, "/data/a", DIRECT);
    sync_dir(&mut io);
    world.cut_power_at_write(0, Tear::Blocks([1].into()));
    assert_eq!(errno(write(&mut io, &file, 0, 7, 3, true)), libc::ENODEV);
    assert_eq!(blocks(&world, "/data/a"), [0, 7, 0]);
}

#[test]
fn a_sync_covers_what_had_completed_when_it_was_submitted() {
    // A write in flight beside the sync may be lost although it completes before the sync does.
    let lost = |seed| {
        let (world, mut io) = world(seed, WorldOptions { loss: Loss::All, ..WorldOptions::default() });
        let file = open(&mut io, "/data/a", DIRECT);
        sync_dir(&mut io);
        write(&mut io, &file, 0, 1, 2, true).expect("no faults");
        let op = write_op(&io, &file, 0, 2, BLOCK, false);
        io.submit(Token(1), op);
        io.submit(Token(2), Op::Sync { file: file.clone() });
        poll_until(&mut io, 2);
        world.power_cut();
        blocks(&world, "/data/a") == [1, 1]
    };
    assert!((0..20).all(lost));
}

#[test]
fn a_failed_sync_is_not_mended_by_the_next() {
    let (world, mut io) = world(1, WorldOptions { loss: Loss::All, ..WorldOptions::calm() });
    let file = open(&mut io, "/data/a", DIRECT);
    sync_dir(&mut io);
    write(&mut io, &file, 0, 1, 1, true).expect("no faults");
    write(&mut io, &file, 0, 2, 1, false).expect("no faults");
    world.inject(Rule::new(OpKind::Sync, Fault::Error(libc::EIO)).times(1));
    assert_eq!(errno(io.run(Op::Sync { file: file.clone() })), libc::EIO);
    io.run(Op::Sync { file: file.clone() }).expect("the fault is over");
    assert_eq!(blocks(&world, "/data/a"), [2]);
    world.power_cut();
    assert_eq!(blocks(&world, "/data/a"), [1]);
}

#[test]
fn a_truncation_that_is_undone_brings_back_what_it_cut_off() {
    let (world, mut io) = world(1, WorldOptions { loss: Loss::All, ..WorldOptions::calm() });
    let file = open(&mut io, "/data/a", DIRECT);
    sync_dir(&mut io);
    write(&mut io, &file, 0, 1, 3, true).expect("no faults");
    io.run(Op::Truncate { file: file.clone(), length_bytes: BLOCK as u64 + 1 }).expect("no faults");
    assert_eq!(world.read_file("/data/a").expect("it is there").len(), BLOCK + 1);
    world.power_cut();
    assert_eq!(blocks(&world, "/data/a"), [1, 1, 1]);
}

#[test]
fn a_synced_truncation_leaves_zeros_behind_the_end() {
    let (world, mut io) = world(1, WorldOptions { loss: Loss::All, ..WorldOptions::calm() });
    let file = open(&mut io, "/data/a", DIRECT);
    sync_dir(&mut io);
    write(&mut io, &file, 0, 1, 3, true).expect("no faults");
    for length_bytes in [1, 3 * BLOCK as u64] {
        io.run(Op::Truncate { file: file.clone(), length_bytes }).expect("no faults");
    }
    io.run(Op::Sync { file: file.clone() }).expect("no faults");
    world.power_cut();
    let bytes = world.read_file("/data/a").expect("it is there");
    assert_eq!((bytes.len(), bytes[0]), (3 * BLOCK, 1));
    assert!(bytes[1..].iter().all(|&byte| byte == 0));
    assert_eq!(world.occupied_bytes(), BLOCK as u64);
}

#[test]
fn a_name_is_durable_only_with_its_directory() {
    let (world, mut io) = world(1, WorldOptions { loss: Loss::All, ..WorldOptions::calm() });
    let kept = open(&mut io, "/data/kept", DIRECT);
    sync_dir(&mut io);
    write(&mut io, &kept, 0, 1, 1, true).expect("no faults");
    let lost = open(&mut io, "/data/lost", DIRECT);
    write(&mut io, &lost, 0, 2, 1, true).expect("no faults");
    io.run(Op::Rename { from: "/data/kept".into(), to: "/data/renamed".into() }).expect("no faults");
    assert_eq!(world.list("/data").expect("it is there").len(), 2);
    world.power_cut();
    let names: Vec<_> = world.list("/data").expect("it is there").into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, ["kept"]);
    assert_eq!(blocks(&world, "/data/kept"), [1]);
    assert_eq!(world.occupied_bytes(), BLOCK as u64);
}

#[test]
fn a_removal_that_is_undone_brings_the_file_back() {
    let (world, mut io) = world(1, WorldOptions { loss: Loss::All, ..WorldOptions::calm() });
    let file = open(&mut io, "/data/a", DIRECT);
    sync_dir(&mut io);
    write(&mut io, &file, 0, 1, 1, true).expect("no faults");
    io.run(Op::Remove { path: "/data/a".into() }).expect("no faults");
    assert_eq!(world.occupied_bytes(), BLOCK as u64);
    drop(file);
    io.run(Op::SyncDir { path: "/".into() }).expect("another directory");
    assert_eq!(world.occupied_bytes(), 0);
    world.power_cut();
    assert_eq!(blocks(&world, "/data/a"), [1]);
    assert_eq!(world.occupied_bytes(), BLOCK as u64);
}

#[test]
fn directory_changes_survive_in_order() {
    // Files created one after another: what survives is always a prefix, and not always the same.
    let mut seen = BTreeSet::new();
    for seed in 0..100 {
        let (world, mut io) = world(seed, WorldOptions::default());
        for name in ["a", "b", "c"] {
            open(&mut io, &format!("/data/{name}"), DIRECT);
        }
        world.power_cut();
        let names: String = world.list("/data").expect("durable").into_iter().map(|entry| entry.name).collect();
        assert!("abc".starts_with(&names), "{names}");
        seen.insert(names);
    }
    assert_eq!(seen.len(), 4);
}

#[test]
fn a_rename_between_directories_is_whole() {
    for seed in 0..100 {
        let (world, mut io) = world(seed, WorldOptions::default());
        for path in ["/data/x", "/data/y"] {
            world.create_dir_all(path).expect("empty");
        }
        world.write_file("/data/x/a", b"a").expect("empty");
        io.run(Op::Rename { from: "/data/x/a".into(), to: "/data/y/b".into() }).expect("no faults");
        if seed % 2 == 0 {
            io.run(Op::SyncDir { path: "/data/y".into() }).expect("no faults");
        }
        world.power_cut();
        let (old, new) = (world.read_file("/data/x/a").is_ok(), world.read_file("/data/y/b").is_ok());
        assert!(old != new && (new || seed % 2 == 1), "seed {seed}: old {old}, new {new}");
    }
}

#[test]
fn a_full_disk_refuses_new_blocks_and_takes_overwrites() {
    let (world, mut io) = world(1, WorldOptions { capacity_bytes: 4 * BLOCK as u64, ..WorldOptions::calm() });
    let file = open(&mut io, "/data/a", DIRECT);
    write(&mut io, &file, 0, 1, 4, false).expect("it fits");
    assert_eq!(errno(write(&mut io, &file, 3 * BLOCK, 2, 2, false)), libc::ENOSPC);
    write(&mut io, &file, 0, 3, 4, true).expect("overwrites");
    let zeros = Op::WriteZeros { file: file.clone(), offset: 4 * BLOCK as u64, length_bytes: BLOCK as u64 };
    assert_eq!(errno(io.run(zeros)), libc::ENOSPC);
    let more = Op::Allocate { file: file.clone(), offset: 0, length_bytes: 5 * BLOCK as u64 };
    assert_eq!(errno(io.run(more)), libc::ENOSPC);
    io.run(Op::Truncate { file: file.clone(), length_bytes: BLOCK as u64 }).expect("no faults");
    assert_eq!(world.occupied_bytes(), BLOCK as u64);
    let other = open(&mut io, "/data/b", CACHED);
    write(&mut io, &other, 0, 1, 3, false).expect("there is room again");
}

#[test]
fn direct_files_take_whole_blocks_only() {
    let (_, mut io) = world(1, WorldOptions::calm());
    let file = open(&mut io, "/data/a", DIRECT);
    let op = write_op(&io, &file, 0, 1, 100, false);
    assert_eq!(errno(io.run(op)), libc::EINVAL);
    let op = write_op(&io, &file, 100, 1, BLOCK, false);
    assert_eq!(errno(io.run(op)), libc::EINVAL);
    let slice = slice(&io, 1, 2 * BLOCK).slice(8..8 + BLOCK);
    assert_eq!(errno(io.run(Op::Write { file: file.clone(), offset: 0, slice, sync: false })), libc::EINVAL);
    let cached = open(&mut io, "/data/a", CACHED);
    let op = write_op(&io, &cached, 100, 1, 100, false);
    io.run(op).expect("the page cache takes anything");
}

#[test]
fn a_read_is_short_only_at_the_end() {
    let (world, mut io) = world(1, WorldOptions::calm());
    world.write_file("/data/a", &[9; 5000]).expect("empty");
    let file = open(&mut io, "/data/a", CACHED);
    for (offset, length_bytes, expected) in [(0, 4096, 4096), (4096, 4096, 904), (5000, 1, 0), (9000, 10, 0)] {
        let buffer = io.pool().take(4096).expect("budget");
        match io.run(Op::Read { file: file.clone(), offset, buffer, length_bytes }) {
            Ok(Outcome::Read { buffer, bytes }) => {
                assert_eq!(bytes, expected);
                assert!(buffer[..bytes].iter().all(|&byte| byte == 9));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn reads_are_corrupt_or_misdirected_when_asked_for() {
    let (world, mut io) = world(1, WorldOptions::calm());
    let bytes: Vec<u8> = (0..8 * BLOCK).map(|at| (at / BLOCK) as u8).collect();
    world.write_file("/data/a", &bytes).expect("empty");
    let file = open(&mut io, "/data/a", DIRECT);
    let mut read = |fault: Option<Fault>| {
        world.clear_faults();
        if let Some(fault) = fault {
            world.inject(Rule::new(OpKind::Read, fault).path("/a"));
        }
        let buffer = io.pool().take(BLOCK).expect("budget");
        let op = Op::Read { file: file.clone(), offset: BLOCK as u64, buffer, length_bytes: BLOCK as u32 };
        match io.run(op) {
            Ok(Outcome::Read { buffer, bytes: BLOCK }) => buffer.iter().filter(|&&byte| byte != 1).count(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(read(None), 0);
    assert_eq!(read(Some(Fault::CorruptRead)), 1);
    assert!((0..10).any(|_| read(Some(Fault::MisdirectedRead)) == BLOCK));
}

#[test]
fn the_nth_operation_fails_where_the_path_matches() {
    let (world, mut io) = world(1, WorldOptions::calm());
    let (a, b) = (open(&mut io, "/data/a", DIRECT), open(&mut io, "/data/b", DIRECT));
    world.inject(Rule::new(OpKind::Write, Fault::Error(libc::EIO)).path("/b").skip(1).times(1));
    let results: Vec<_> =
        [&a, &b, &a, &b, &b].iter().map(|file| write(&mut io, file, 0, 1, 1, false).is_ok()).collect();
    assert_eq!(results, [true, true, true, false, true]);
}

#[test]
#[should_panic(expected = "changed in memory while a write of it was in flight")]
fn changing_a_block_in_flight_is_caught() {
    let (_, mut io) = world(1, WorldOptions::calm());
    let file = open(&mut io, "/data/a", DIRECT);
    let staging = io.pool().take_append(BLOCK).expect("budget");
    staging.append(b"first");
    staging.pad(BLOCK);
    let slice = staging.slice_padded(0..BLOCK);
    io.submit(Token(1), Op::Write { file, offset: 0, slice, sync: true });
    io.poll(Some(Monotonic(0)), &mut Vec::new());
    staging.append(b"second");
    poll_until(&mut io, 1);
}

#[test]
fn writes_outlive_their_process_until_the_lock_is_free() {
    // Killed with writes in flight: some of them still happen, none after the lock is free.
    let (mut happened, mut waited) = (0, false);
    for seed in 0..50 {
        let (world, mut io) = world(seed, WorldOptions::default());
        let file = open(&mut io, "/data/a", DIRECT);
        write(&mut io, &file, 0, 1, 4, false).expect("no faults");
        for index in 0..4 {
            let op = write_op(&io, &file, index * BLOCK, 2, BLOCK, true);
            io.submit(Token(index as u64), op);
        }
        io.poll(Some(Monotonic(0)), &mut Vec::new());
        world.kill_process();
        assert!(!io.is_alive());
        assert_eq!(io.pool().used_bytes() > 0, !world.lock_is_free(), "operations own their buffers");
        let before = blocks(&world, "/data/a");
        waited |= !world.lock_is_free();
        world.wait_for_lock();
        assert_eq!(io.pool().used_bytes(), 0);
        let after = blocks(&world, "/data/a");
        happened += before.iter().zip(&after).filter(|(before, after)| before != after).count();
        world.advance(Duration::from_secs(1));
        assert_eq!(blocks(&world, "/data/a"), after);
    }
    assert!(waited && happened > 0);
}

#[test]
fn the_page_cache_outlives_a_kill_but_not_a_power_cut() {
    let (world, mut io) = world(1, WorldOptions { loss: Loss::All, ..WorldOptions::calm() });
    let file = open(&mut io, "/data/a", DIRECT);
    sync_dir(&mut io);
    write(&mut io, &file, 0, 1, 1, false).expect("no faults");
    world.kill_process();
    assert_eq!(blocks(&world, "/data/a"), [1]);
    world.power_cut();
    assert_eq!(world.read_file("/data/a").expect("its name is durable"), Vec::<u8>::new());
}

#[test]
#[should_panic(expected = "two writes of one block")]
fn two_writes_of_one_block_in_flight_are_caught() {
    let (_, mut io) = world(1, WorldOptions::calm());
    let file = open(&mut io, "/data/a", DIRECT);
    for offset in [0, BLOCK] {
        let op = write_op(&io, &file, offset, 1, 2 * BLOCK, false);
        io.submit(Token(offset as u64), op);
    }
    io.poll(Some(Monotonic(0)), &mut Vec::new());
}

#[test]
fn a_read_beside_a_write_sees_any_of_its_blocks() {
    let mut seen = BTreeSet::new();
    for seed in 0..100 {
        let (_, mut io) = world(seed, WorldOptions::default());
        let file = open(&mut io, "/data/a", DIRECT);
        write(&mut io, &file, 0, 1, 2, true).expect("no faults");
        let op = write_op(&io, &file, 0, 2, 2 * BLOCK, true);
        io.submit(Token(1), op);
        let buffer = io.pool().take(2 * BLOCK).expect("budget");
        io.submit(Token(2), Op::Read { file: file.clone(), offset: 0, buffer, length_bytes: 2 * BLOCK as u32 });
        for completion in poll_until(&mut io, 2) {
            if let Ok(Outcome::Read { buffer, .. }) = completion.result {
                seen.insert((buffer[0], buffer[BLOCK]));
            }
        }
    }
    assert_eq!(seen.len(), 4);
}

#[test]
fn a_directory_sync_covers_what_had_happened_when_it_was_submitted() {
    let (world, mut io) = world(1, WorldOptions { loss: Loss::All, ..WorldOptions::calm() });
    world.change_options(|options| options.sync = Latency::steady(1_000_000..=1_000_000));
    open(&mut io, "/data/a", DIRECT);
    io.submit(Token(1), Op::SyncDir { path: "/data".into() });
    io.submit(Token(2), Op::Open { path: "/data/b".into(), options: DIRECT });
    assert_eq!(poll_until(&mut io, 2).last().expect("two").token, Token(1));
    world.power_cut();
    assert!(world.read_file("/data/a").is_ok() && world.read_file("/data/b").is_err());
}

#[test]
fn a_cancelled_operation_completes_once_and_happened_or_not() {
    let mut seen = BTreeSet::new();
    for seed in 0..50 {
        let (world, mut io) = world(seed, WorldOptions::default());
        let file = open(&mut io, "/data/a", DIRECT);
        write(&mut io, &file, 0, 1, 1, true).expect("no faults");
        let op = write_op(&io, &file, 0, 2, BLOCK, true);
        io.submit(Token(1), op);
        io.cancel(Token(1));
        let mut completions = poll_until(&mut io, 1);
        io.poll(Some(world.now().monotonic + Duration::from_secs(1)), &mut completions);
        assert_eq!(completions.len(), 1);
        match completions.remove(0).result {
            Ok(Outcome::Done) => assert_eq!(blocks(&world, "/data/a"), [2]),
            other => {
                assert_eq!(errno(other), libc::ECANCELED);
                assert_eq!(blocks(&world, "/data/a"), [1]);
            }
        }
        seen.insert(blocks(&world, "/data/a"));
        assert_eq!(io.pool().used_bytes(), 0);
    }
    assert_eq!(seen.len(), 2);
}

#[test]
fn names_follow_the_rules_of_a_file_system() {
    let (world, mut io) = world(1, WorldOptions::default());
    let mut fails = |op: Op| errno(io.run(op));
    let path = |path: &str| std::path::PathBuf::from(path);
    let new = OpenOptions { create_new: true, ..DIRECT };
    world.create_dir_all("/data/full/dir").expect("empty");
    world.write_file("/data/file", b"").expect("empty");
    assert_eq!(fails(Op::Open { path: path("/data/none"), options: OpenOptions::default() }), libc::ENOENT);
    assert_eq!(fails(Op::Open { path: path("/none/a"), options: DIRECT }), libc::ENOENT);
    assert_eq!(fails(Op::Open { path: path("/data/file"), options: new }), libc::EEXIST);
    assert_eq!(fails(Op::Open { path: path("/data/full"), options: DIRECT }), libc::EISDIR);
    assert_eq!(fails(Op::Open { path: path("/data/file/a"), options: DIRECT }), libc::ENOTDIR);
    assert_eq!(fails(Op::Remove { path: path("/data/full") }), libc::EISDIR);
    assert_eq!(fails(Op::RemoveDir { path: path("/data/full") }), libc::ENOTEMPTY);
    assert_eq!(fails(Op::RemoveDir { path: path("/data/file") }), libc::ENOTDIR);
    assert_eq!(fails(Op::CreateDir { path: path("/data/file") }), libc::EEXIST);
    assert_eq!(fails(Op::CreateDir { path: path("/none/dir") }), libc::ENOENT);
    assert_eq!(fails(Op::Rename { from: path("/data/file"), to: path("/data/full") }), libc::EISDIR);
    assert_eq!(fails(Op::Rename { from: path("/data/full"), to: path("/data/full/dir/in") }), libc::EINVAL);
    assert_eq!(fails(Op::List { path: path("/data/file") }), libc::ENOTDIR);
    io.run(Op::CreateDir { path: path("/data/full") }).expect("it is there already");
    io.run(Op::Rename { from: path("/data/full"), to: path("/data/moved") }).expect("directories move");
    io.run(Op::RemoveDir { path: path("/data/moved/dir") }).expect("it is empty");
    let Ok(Outcome::Listed(mut entries)) = io.run(Op::List { path: path("/data") }) else { panic!("it is there") };
    entries.sort();
    let entries: Vec<_> = entries.iter().map(|entry| (entry.name.as_str(), entry.is_dir)).collect();
    assert_eq!(entries, [("file", false), ("moved", true)]);
}

#[test]
fn a_durable_truncation_keeps_its_zeros() {
    // The length is made durable by a synced write elsewhere; what was cut off must not shine through.
    let (world, mut io) = world(1, WorldOptions { loss: Loss::All, ..WorldOptions::calm() });
    let file = open(&mut io, "/data/a", DIRECT);
    sync_dir(&mut io);
    write(&mut io, &file, 0, 1, 3, true).expect("no faults");
    for length_bytes in [BLOCK as u64, 3 * BLOCK as u64] {
        io.run(Op::Truncate { file: file.clone(), length_bytes }).expect("no faults");
    }
    write(&mut io, &file, 0, 2, 1, true).expect("no faults");
    world.power_cut();
    assert_eq!(blocks(&world, "/data/a"), [2, 0, 0]);
}
