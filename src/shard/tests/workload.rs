//! Everything at once by the seed: writers, readers, topics that come and go, retention, power cuts, kills, stops,
//! other shard counts; compared with the plain model of [`load`](super::load) after every start.

use std::time::Duration;

use super::admin::{deleted, deletion_request};
use super::client::Client;
use super::load::Load;
use super::node::{Spec, TestNode};
use crate::base::rng::Rng;
use crate::io::sim::{Fault, OpKind, Rule, Tear, World, WorldOptions};
use crate::protocol::ErrorCode;

fn options(rng: &mut Rng) -> WorldOptions {
    match rng.in_range(0..3) {
        0 => WorldOptions::calm(),
        1 => WorldOptions::default(),
        _ => WorldOptions::harsh(),
    }
}

fn spec(rng: &mut Rng) -> Spec {
    let mut spec = Spec::new(1 + rng.in_range(0..3) as u16)
        .set("log.segment.bytes", [8, 16, 64][rng.in_range(0..3) as usize] * 1024)
        .set("log.retention.check.interval.ms", 200);
    if rng.chance(1, 2) {
        spec = spec.set("log.retention.bytes", 32 * 1024);
    }
    spec.tail_size_bytes = [64 << 10, 1 << 20][rng.in_range(0..2) as usize];
    spec.is_disorderly = rng.chance(1, 2);
    spec
}

/// What a history may do to the node and still ask for everything that was acknowledged.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Sync,
    /// `ottla.ack.after=write`: kills, no power cuts.
    Write,
    /// `ottla.ack.after=memory`: clean stops only.
    Memory,
}

/// Operations that now and then take long.
fn slow_down(world: &World, rng: &mut Rng) {
    const KINDS: [OpKind; 9] = [
        OpKind::Open,
        OpKind::Read,
        OpKind::Write,
        OpKind::WriteZeros,
        OpKind::Sync,
        OpKind::Truncate,
        OpKind::Rename,
        OpKind::Remove,
        OpKind::SyncDir,
    ];
    world.clear_faults();
    for kind in KINDS {
        if rng.chance(1, 3) {
            let delay = Duration::from_millis(rng.in_range(1..200));
            world.inject(Rule::new(kind, Fault::Delay(delay)).chance(1, 10));
        }
    }
}

/// One life of the node: `None` if the power was cut in it.
fn live(world: &World, rng: &mut Rng, load: &mut Load, names: &mut u32, mode: Mode) -> Option<()> {
    let ack_after = match mode {
        Mode::Sync => "sync",
        Mode::Write => "write",
        Mode::Memory => "memory",
    };
    let mut node = TestNode::try_start(world, &spec(rng).set("ottla.ack.after", ack_after))?;
    load.connect(&mut node).then_some(())?;
    load.verify(&mut node).then_some(())?;
    for _ in 0..rng.in_range(1..4) {
        let at = rng.in_range(0..node.shards.len() as u64) as usize;
        let mut client = Client::connect(&node, at);
        match rng.in_range(0..5) {
            0 if load.parts.len() < 8 => {
                *names += 1;
                let producer = if rng.chance(1, 2) { Some(client.try_producer(&mut node)?) } else { None };
                let created = client.try_create(&mut node, &format!("topic-{names}"), 2, &[])?;
                load.add_topic(created.expect("it does not exist"), 2, producer);
                load.connect(&mut node).then_some(())?;
            }
            1 if load.parts.iter().filter(|part| !part.is_deleted).count() > 4 => {
                let first = load.parts.iter().find(|part| !part.is_deleted).expect("there are some").topic;
                let metadata = client.metadata(&mut node)?;
                let topic = metadata.topics.iter().find(|topic| topic.topic_id == first.0).expect("it exists");
                let name = topic.name.as_ref().expect("named").to_string();
                // Whatever comes of it, it is not looked at any more.
                load.parts.retain(|part| part.topic != first);
                assert_eq!(client.try_delete(&mut node, &name)?, ErrorCode::None);
            }
            2 if !load.parts.is_empty() => {
                // What a client was told to be deleted never comes back: `load` holds every later start to it.
                let at = rng.in_range(0..load.parts.len() as u64) as usize;
                let part = &mut load.parts[at];
                let metadata = client.metadata(&mut node)?;
                let topic = metadata.topics.iter().find(|topic| topic.topic_id == part.topic.0).expect("it exists");
                let name = topic.name.as_ref().expect("named").to_string();
                let end = part.acked_end().max(part.log_start);
                let to = rng.in_range(part.log_start as u64..=end as u64) as i64;
                let request = deletion_request(&name, part.index, to, 60_000);
                let answer = Client::connect(&node, part.leader).try_call(&mut node, 2, &request)?;
                let (log_start, code) = deleted(answer);
                assert_eq!(code, ErrorCode::None, "seed {}", world.seed());
                assert!(log_start >= to, "seed {}: {log_start} after deleting up to {to}", world.seed());
                part.log_start = log_start;
            }
            _ => {}
        }
        load.connect(&mut node).then_some(())?;
        load.run(&mut node, rng.in_range(1..60) as usize).then_some(())?;
        if rng.chance(1, 3) {
            load.verify(&mut node).then_some(())?;
        }
        if rng.chance(1, 4) {
            // Slow work: retention, checkpoints.
            node.run_for(Duration::from_secs(6)).then_some(())?;
        }
    }
    let seed = world.seed();
    let refused: Vec<_> = load.parts.iter().filter_map(|part| part.is_refused).collect();
    assert!(refused.is_empty(), "seed {seed}: {refused:?}");
    match rng.in_range(0..3) {
        _ if mode == Mode::Memory => node.stop().then_some(())?,
        0 => node.stop().then_some(())?,
        1 => world.kill_process(),
        _ if mode == Mode::Write => world.kill_process(),
        _ => world.power_cut(),
    }
    Some(())
}

/// A whole history; returns the hash of everything that happened.
fn history(seed: u64) -> u64 {
    let mut rng = Rng::new(seed);
    let world = World::new(seed, options(&mut rng));
    let mut load = Load::new(rng.next_u64());
    load.value_size_bytes_max = [200, 1_500][rng.in_range(0..2) as usize];
    let mode = [Mode::Sync, Mode::Sync, Mode::Sync, Mode::Write, Mode::Memory][rng.in_range(0..5) as usize];
    let mut names = 0;
    for _ in 0..5 {
        slow_down(&world, &mut rng);
        if rng.chance(1, 3) && mode == Mode::Sync {
            let at = world.write_count() + rng.in_range(0..300);
            let tear = if rng.chance(1, 4) { Tear::Lost } else { Tear::Random };
            world.cut_power_at_write(at, tear);
        }
        live(&world, &mut rng, &mut load, &mut names, mode);
        world.clear_write_hooks();
        load.disconnect();
    }
    world.clear_faults();
    let mut node = TestNode::start(&world, &Spec::new(2));
    assert!(load.connect(&mut node) && load.verify(&mut node));
    world.trace_hash()
}

#[test]
fn any_history_keeps_what_it_has_acknowledged() {
    let count: u64 = std::env::var("OTTLA_SIM_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(150);
    let first: u64 = std::env::var("OTTLA_SIM_FIRST").ok().and_then(|n| n.parse().ok()).unwrap_or(0);
    for seed in first..first + count {
        println!("seed {seed}");
        history(seed);
    }
}

#[test]
fn one_seed_gives_one_history_of_whole_shards() {
    for seed in 0..5 {
        assert_eq!(history(seed), history(seed), "seed {seed}");
    }
    assert_ne!(history(0), history(1));
}
