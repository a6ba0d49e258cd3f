//! What an acknowledgement means: power cuts, kills, stops, and other shard counts at the next start.

use std::time::Duration;

use super::client::Client;
use super::load::Load;
use super::node::{DATA, Spec, TestNode};
use crate::base::rng::Rng;
use crate::io::sim::{Fault, OpKind, Rule, Tear, World, WorldOptions};

fn spec(shard_count: u16) -> Spec {
    Spec::new(shard_count).set("log.segment.bytes", 64 * 1024)
}

/// Two topics, one of them with an idempotent writer; `None` if the power was cut.
fn prepare(node: &mut TestNode, load: &mut Load) -> Option<()> {
    let mut client = Client::connect(node, 0);
    for (name, is_idempotent) in [("plain", false), ("idempotent", true)] {
        let producer = if is_idempotent { Some(client.try_producer(node)?) } else { None };
        let id = client.try_create(node, name, 2, &[])?.expect("no reason to refuse");
        load.add_topic(id, 2, producer);
    }
    Some(())
}

/// Starts, writes until the power is cut or all is written, starts again with another number of shards, compares,
/// writes on, stops cleanly, starts once more and compares. Returns how many writes the disk saw before the cut.
pub fn cut_and_compare(spec: &impl Fn(u16) -> Spec, seed: u64, cut_at: Option<u64>, shards: [u16; 3]) -> u64 {
    let world = World::new(seed, WorldOptions::default());
    let mut rng = Rng::new(seed ^ cut_at.unwrap_or(0));
    if let Some(cut_at) = cut_at {
        let tear = match rng.in_range(0..4) {
            0 => Tear::Lost,
            1 => Tear::Kept,
            2 => Tear::Blocks((0..8).filter(|_| rng.chance(1, 2)).collect()),
            _ => Tear::Random,
        };
        world.cut_power_at_write(cut_at, tear);
    }
    let mut load = Load::new(seed);
    let first = TestNode::try_start(&world, &spec(shards[0])).and_then(|mut node| {
        prepare(&mut node, &mut load)?;
        let whole = load.connect(&mut node) && load.run(&mut node, 60);
        whole.then_some(node)
    });
    let writes = world.write_count();
    if cut_at.is_none() {
        world.kill_process();
    }
    drop(first);
    world.clear_write_hooks();
    load.disconnect();

    let mut node = TestNode::start(&world, &spec(shards[1]));
    assert!(load.connect(&mut node) && load.verify(&mut node));
    assert!(load.run(&mut node, 20) && load.verify(&mut node));
    assert!(load.parts.iter().all(|part| part.is_refused.is_none()), "seed {seed}: {cut_at:?}: refused");
    assert!(node.stop());
    load.disconnect();

    let mut node = TestNode::start(&world, &spec(shards[2]));
    let scanned: u64 = node.recovered.iter().map(|recovered| recovered.scanned_bytes).sum();
    assert_eq!(scanned, 0, "seed {seed}: nothing is scanned after a clean stop");
    let meta = world.list(format!("{DATA}/meta")).expect("a directory");
    assert!(!meta.iter().any(|entry| entry.name.contains("clean")), "seed {seed}: {meta:?}");
    assert!(load.connect(&mut node) && load.verify(&mut node));
    writes
}

/// One partition of many small segments, of which retention keeps the last; its checkpoints find the disk full.
fn without_checkpoints(seed: u64, times: u64) -> (World, TestNode, Load) {
    let world = World::new(seed, WorldOptions::default());
    let spec = Spec::new(1)
        .set("log.segment.bytes", 16 * 1024)
        .set("log.retention.bytes", 32 * 1024)
        .set("log.retention.check.interval.ms", 200);
    let mut node = TestNode::start(&world, &spec);
    let mut load = Load::new(seed);
    let id = Client::connect(&node, 0).create(&mut node, "t", 1, &[]);
    load.add_topic(id, 1, None);
    let full = Rule::new(OpKind::Write, Fault::Error(libc::ENOSPC)).path("/t-0/checkpoint").times(times);
    world.inject(full);
    assert!(load.connect(&mut node) && load.run(&mut node, 60));
    node.run_for(Duration::from_secs(2));
    (world, node, load)
}

fn segment_count(world: &World) -> usize {
    let entries = world.list(format!("{DATA}/topics/t-0")).expect("a directory");
    entries.iter().filter(|entry| entry.name.ends_with(".log")).count()
}

#[test]
fn a_checkpoint_that_found_the_disk_full_is_written_later_and_frees_files() {
    for seed in 0..3 {
        let (world, mut node, mut load) = without_checkpoints(seed, 1);
        node.run_for(Duration::from_secs(12));
        assert!(segment_count(&world) <= 4, "seed {seed}: {}", node.describe_disk());
        assert!(load.connect(&mut node) && load.verify(&mut node));
    }
}

#[test]
fn a_log_start_that_no_checkpoint_has_is_told_by_nobody() {
    // Retention wants to raise the log start, and the disk is full for every checkpoint. The clean stop does not know
    // it either: the start behind it must not tell more than the next one, which has the checkpoint only.
    for seed in 0..3 {
        let (world, mut node, mut load) = without_checkpoints(seed, u64::MAX);
        assert!(load.connect(&mut node) && load.verify(&mut node));
        assert!(load.parts.iter().all(|part| part.log_start == 0), "seed {seed}: nothing is deleted for anybody");
        assert!(node.stop());
        world.clear_faults();
        for _ in 0..3 {
            let node = TestNode::start(&world, &Spec::new(1));
            world.power_cut();
            drop(node);
        }
        let mut node = TestNode::start(&world, &Spec::new(1));
        assert!(load.connect(&mut node) && load.verify(&mut node));
        assert!(load.run(&mut node, 10) && load.verify(&mut node));
    }
}

#[test]
fn a_shard_that_recovers_for_long_does_not_make_the_others_begin() {
    // Shard 0 is ready and has files to free while another shard still reads; then all listen and it starts the node.
    for seed in 0..6 {
        let world = World::new(seed, WorldOptions::default());
        let spec = Spec::new(2)
            .set("log.segment.bytes", 16 * 1024)
            .set("log.retention.bytes", 32 * 1024)
            .set("log.retention.check.interval.ms", 200);
        let mut node = TestNode::start(&world, &spec);
        let mut load = Load::new(seed);
        let id = Client::connect(&node, 0).create(&mut node, "t", 2, &[]);
        load.add_topic(id, 2, None);
        assert!(load.connect(&mut node) && load.run(&mut node, 80));
        world.kill_process();
        drop(node);
        for index in 0..2 {
            let slow = Fault::Delay(Duration::from_secs(10));
            world.inject(Rule::new(OpKind::Open, slow).path(format!("/t-{index}/")).times(1));
        }
        let mut node = TestNode::start(&world, &spec);
        assert!(load.connect(&mut node) && load.verify(&mut node) && load.run(&mut node, 10));
    }
}

#[test]
fn what_was_acknowledged_survives_a_power_cut_at_any_write() {
    // Counts the writes of a whole run, then cuts the power at every k-th.
    for (seed, shards) in [(1, [1, 1, 1]), (2, [2, 3, 1]), (3, [3, 1, 2])] {
        let writes = cut_and_compare(&spec, seed, None, shards);
        let step = (writes / 40).max(1);
        let mut cut_at = seed % step;
        while cut_at < writes {
            cut_and_compare(&spec, seed, Some(cut_at), shards);
            cut_at += step;
        }
    }
}
