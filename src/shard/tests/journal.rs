//! The shard's journal: small commits of many partitions by one write, and what it keeps safe.

use std::time::Duration;

use super::client::Client;
use super::durability::cut_and_compare;
use super::load::Load;
use super::node::{DATA, Spec, Start, TestNode};
use crate::base::units::{KIB, MIB};
use crate::io::sim::{Fault, OpKind, Rule, World, WorldOptions};
use crate::model::limits::BLOCK_SIZE_BYTES;
use crate::protocol::ErrorCode;

/// A journal of so many bytes that takes every small commit.
fn spec(shard_count: u16, journal_bytes: usize) -> Spec {
    let spec = Spec::new(shard_count).set("log.segment.bytes", 64 * KIB);
    spec.set("ottla.journal.bytes", journal_bytes).set("ottla.journal.min.partitions", 1)
}

/// A node with one topic and a load of small batches for it.
fn begin(seed: u64, partitions: i32, journal_bytes: usize) -> (World, TestNode, Load) {
    let world = World::new(seed, WorldOptions::default());
    let mut node = TestNode::start(&world, &spec(1, journal_bytes));
    let topic = Client::connect(&node, 0).create(&mut node, "many", partitions, &[]);
    let mut load = Load::new(seed);
    load.value_size_bytes_max = 400;
    load.add_topic(topic, partitions, None);
    assert!(load.connect(&mut node));
    (world, node, load)
}

fn journals(world: &World) -> Vec<String> {
    let mut paths = Vec::new();
    for dir in world.list(format!("{DATA}/journal")).unwrap_or_default() {
        let dir = format!("{DATA}/journal/{}", dir.name);
        let entries = world.list(&dir).unwrap_or_default();
        paths.extend(entries.into_iter().map(|entry| format!("{dir}/{}", entry.name)));
    }
    paths
}

#[test]
fn small_commits_of_many_partitions_share_writes_and_a_clean_stop_leaves_no_journal() {
    for seed in 0..3 {
        let (world, mut node, mut load) = begin(seed, 12, MIB);
        assert!(load.run(&mut node, 400));
        let counters = node.shards[0].broker().counters;
        let (writes, commits) = (counters.journal_writes, counters.journal_commits);
        assert!(writes > 20 && commits > 3 * writes, "seed {seed}: {counters}");
        assert!(!journals(&world).is_empty());
        assert!(load.verify(&mut node));
        assert!(node.stop());
        assert_eq!(journals(&world), [""; 0], "seed {seed}");
        let mut node = TestNode::start(&world, &spec(2, MIB));
        assert_eq!(node.recovered.iter().map(|it| it.scanned_bytes + it.replayed_bytes).sum::<u64>(), 0);
        load.disconnect();
        assert!(load.connect(&mut node) && load.verify(&mut node));
    }
}

#[test]
fn what_the_journal_took_survives_a_power_cut_at_any_write() {
    // As without a journal, with one of which every third group begins a lap, and one that is never full.
    for (journal_bytes, step) in [(24 * KIB, 7), (MIB, 11)] {
        for seed in 0..2 {
            let spec = |shard_count| spec(shard_count, journal_bytes);
            let writes = cut_and_compare(&spec, seed, None, [1, 2, 1]);
            for cut_at in (0..writes).skip(seed as usize).step_by(step) {
                cut_and_compare(&spec, seed, Some(cut_at), [2, 1, 3]);
            }
        }
    }
}

#[test]
fn what_has_become_quiet_is_settled_and_its_memory_comes_back() {
    let (_world, mut node, mut load) = begin(1, 40, 16 * MIB);
    assert!(load.run(&mut node, 800));
    let busy = node.used_bytes();
    node.run_for(Duration::from_secs(30));
    let quiet = node.used_bytes();
    assert!(quiet < busy && quiet < 40 * 2 * BLOCK_SIZE_BYTES + MIB, "{busy} {quiet}");
    assert!(node.shards[0].broker().is_journal_settled());
    assert!(load.verify(&mut node));
}

#[test]
fn records_of_a_partition_that_failed_are_written_from_the_journal_by_the_next_start() {
    for seed in 0..5 {
        let (world, mut node, mut load) = begin(seed, 4, 24 * KIB);
        assert!(load.run(&mut node, 8));
        // Acknowledged by the journal; the segment of one partition takes no write any more.
        world.inject(Rule::new(OpKind::Write, Fault::Error(libc::EIO)).path("/many-0/"));
        load.has_readers = false;
        while !node.shards[0].broker().unfinished().contains("offline: true") && load.parts[0].is_refused.is_none() {
            assert!(load.run(&mut node, 4), "seed {seed}");
        }
        load.parts[0].is_refused = Some(ErrorCode::KafkaStorageError);
        assert!(load.run(&mut node, 100), "seed {seed}: the others go on, lap after lap");
        if seed % 2 == 0 {
            // A clean stop keeps them too. (Seed 95000341 of the simulator.)
            assert!(node.stop());
        } else {
            world.kill_process();
            drop(node);
        }
        world.clear_faults();
        load.disconnect();
        let mut node = TestNode::start(&world, &spec(1, 24 * KIB));
        assert!(load.connect(&mut node) && load.verify(&mut node), "seed {seed}");
    }
}

#[test]
fn a_partition_that_the_journal_cannot_be_written_to_is_offline_until_it_can() {
    let (world, mut node, mut load) = begin(3, 3, MIB);
    assert!(load.run(&mut node, 60));
    world.kill_process();
    drop(node);
    load.disconnect();
    world.inject(Rule::new(OpKind::Write, Fault::Error(libc::EIO)).path("/many-1/"));
    let node = TestNode::start(&world, &spec(1, MIB));
    assert_eq!(node.recovered[0].offline_count, 1);
    assert!(node.stop());
    world.clear_faults();
    let mut node = TestNode::start(&world, &spec(1, MIB));
    assert_eq!(node.recovered[0].offline_count, 0);
    assert!(load.connect(&mut node) && load.verify(&mut node));
}

#[test]
fn a_start_that_ends_while_it_removes_journals_leaves_nothing_that_looks_damaged() {
    // Two files, of which the removal of one or the other fails. (Seed 95000089 of the simulator had a power cut there.)
    for failing in 0..2 {
        let (world, mut node, mut load) = begin(7, 4, 24 * KIB);
        assert!(load.run(&mut node, 100));
        world.kill_process();
        drop(node);
        load.disconnect();
        assert_eq!(journals(&world).len(), 2);
        world.inject(Rule::new(OpKind::Remove, Fault::Error(libc::EIO)).path("/journal/").skip(failing).times(1));
        match TestNode::begin(&world, &spec(1, 24 * KIB)) {
            Start::Refused(why) => assert!(why.contains("cannot be removed"), "{why}"),
            _ => panic!("started although a journal is left"),
        }
        world.kill_process();
        let mut node = TestNode::start(&world, &spec(2, 24 * KIB));
        assert!(load.connect(&mut node) && load.verify(&mut node));
        assert_eq!(journals(&world), [""; 0]);
    }
}

#[test]
fn nobody_starts_over_a_hole_in_the_journal() {
    // One byte of each group in turn; only the last one may be missing.
    let (world, mut node, mut load) = begin(2, 3, MIB);
    assert!(load.run(&mut node, 40));
    world.kill_process();
    drop(node);
    let [path] = &journals(&world)[..] else { panic!("one file") };
    let bytes = world.read_file(path).expect("it is there");
    let groups: Vec<usize> =
        (0..bytes.len()).step_by(BLOCK_SIZE_BYTES).filter(|at| bytes[*at..].starts_with(b"ottla-j1")).collect();
    assert!(groups.len() > 5);
    let (last, before) = groups.split_last().expect("there are some");
    for at in before {
        world.rot(path, *at as u64 + 70, &[!bytes[at + 70]]).expect("it is there");
        match TestNode::begin(&world, &spec(1, MIB)) {
            Start::Refused(why) => assert!(why.contains("damaged"), "{why}"),
            _ => panic!("started over a hole at {at}"),
        }
        world.kill_process();
        world.rot(path, *at as u64 + 70, &[bytes[at + 70]]).expect("it is there");
    }
    assert!(*last > 0);
    load.disconnect();
    let mut node = TestNode::start(&world, &spec(1, MIB));
    assert!(load.connect(&mut node) && load.verify(&mut node));
}
