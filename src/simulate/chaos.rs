//! The faults of one life: which rules the disk gets, and what happens to network, clock and scheduling while it lasts.

use std::time::Duration;

use super::consumer::Consumer;
use super::history::later;
use super::member::Member;
use super::model::End;
use super::plan::{CROSSING_SIZE_BYTES, Plan, Shape};
use super::reader::Reader;
use super::scene::{Excuses, Story};
use super::writer::Writer;
use crate::base::coverage;
use crate::base::rng::Rng;
use crate::base::time::Monotonic;
use crate::base::units::{KIB, MIB};
use crate::io::sim::{Fault, Loss, OpKind, Rule, Tear, World};
use crate::shard::simulated::SimNode;

/// The unit of direct writes.
const BLOCK: u64 = 4096;
/// The wall clock stays within this of its true time, so that no record is too far from it to be accepted.
const CLOCK_JUMP_MS_MAX: i64 = 20 * 60 * 1000;

/// What befalls one life.
pub struct Chaos {
    /// How it ends.
    pub end: End,
    /// What it excuses.
    pub excuses: Excuses,
    /// How long its busy part may take.
    pub time_max: Duration,
    rng: Rng,
    wall_offset_ms: i64,
    next_network: Option<Monotonic>,
    next_clock: Option<Monotonic>,
    next_stall: Option<Monotonic>,
    next_full: Option<Monotonic>,
    is_full: bool,
    is_bytewise: bool,
}

/// Whose connections may be disturbed.
pub struct Clients<'a> {
    /// Clients that produce.
    pub writers: &'a mut [Writer],
    /// Clients that fetch.
    pub readers: &'a mut [Reader],
    /// Members of a classic group.
    pub members: &'a mut [Member],
    /// Members of a group of the consumer protocol.
    pub consumers: &'a mut [Consumer],
}

impl Chaos {
    /// The faults of a life that is about to start. Some are there already when it does.
    pub fn new(plan: &Plan, world: &World, rng: &mut Rng) -> Chaos {
        let faults = plan.faults;
        let end = match rng.in_range(0..8) {
            _ if !faults.crashes => End::Stop,
            _ if plan.end.is_some() => plan.end.expect("it was just looked at"),
            0 => End::Stop,
            1 | 2 => End::Kill,
            _ => End::Cut,
        };
        let mut rng = rng.fork();
        let mut on = |is_possible: bool| is_possible && rng.chance(1, 2);
        let (delays, errors, corrupt) = (on(faults.delays), on(faults.errors), on(faults.corruption));
        let (full, network, clock, stalls) = (on(faults.full), on(faults.network), on(faults.clock), on(faults.stalls));
        // The moment between a swap's name and its end is a short one otherwise.
        let swaps = plan.has_compacted && rng.chance(1, 4);
        let slow = delays || stalls || swaps || !plan.slow.is_empty();
        let excuses = Excuses { storage: errors, full, corrupt, network, clock, slow };
        world.clear_faults();
        world.clear_write_hooks();
        world.set_capacity(u64::MAX);
        world.set_loss([Loss::Random, Loss::Random, Loss::All, Loss::Nothing][rng.in_range(0..4) as usize]);
        if delays {
            slow_down(world, &mut rng);
        }
        for (kind, path, ms_max) in plan.slow {
            let delay = Duration::from_millis(rng.in_range(1..=*ms_max));
            world.inject(Rule::new(*kind, Fault::Delay(delay)).path(*path).chance(1, 2));
        }
        if swaps {
            world.inject(
                Rule::new(OpKind::Rename, Fault::Delay(Duration::from_millis(rng.in_range(1..500)))).path(".swap"),
            );
        }
        if errors {
            fail(world, &mut rng);
        }
        let is_first = world.write_count() == 0;
        match rng.in_range(0..20) {
            // While the metadata log itself is made.
            0..8 if is_first && end == End::Cut => world.cut_power_at_write(rng.in_range(0..3), tear(&mut rng)),
            // Perhaps in the middle of the start, or soon after it.
            0..4 if end == End::Cut => {
                let at = world.write_count() + rng.in_range(0..40);
                world.cut_power_at_write(at, tear(&mut rng));
            }
            4 | 5 if end == End::Cut => cut_before_data_is_recorded(world, &mut rng),
            _ => {}
        }
        let start = Monotonic(0);
        Chaos {
            end,
            excuses,
            time_max: Duration::from_secs(40),
            wall_offset_ms: 0,
            next_network: network.then_some(start),
            next_clock: clock.then_some(start),
            next_stall: stalls.then_some(start),
            next_full: full.then_some(start),
            is_full: false,
            is_bytewise: false,
            rng,
        }
    }

    /// The node serves: now comes what would keep it from starting.
    pub fn begin(&mut self, world: &World, now: Monotonic) {
        if self.excuses.corrupt {
            for (kind, chance) in [(Fault::CorruptRead, 20), (Fault::MisdirectedRead, 20)] {
                world.inject(Rule::new(OpKind::Read, kind).path(".log").chance(1, chance).times(20));
            }
        }
        for next in [&mut self.next_network, &mut self.next_clock, &mut self.next_stall, &mut self.next_full] {
            *next = next.map(|_| later(now, &mut self.rng, 0..400));
        }
    }

    /// When something is due.
    pub fn next_at(&self) -> Monotonic {
        let all = [self.next_network, self.next_clock, self.next_stall, self.next_full];
        all.into_iter().flatten().min().unwrap_or(Monotonic(u64::MAX))
    }

    /// Does what is due.
    pub fn act(&mut self, world: &World, node: &mut SimNode, clients: Clients<'_>, story: &mut Story) {
        let Clients { writers, readers, members, consumers } = clients;
        let now = world.now().monotonic;
        let rng = &mut self.rng;
        if self.next_network.is_some_and(|at| at <= now) {
            self.next_network = Some(later(now, rng, 5..500));
            let until = later(now, rng, 10..3_000);
            if std::mem::take(&mut self.is_bytewise) {
                world.change_options(|options| options.segment_bytes_max = 1400);
            }
            let (whom, how) = (rng.in_range(0..64) as usize, rng.in_range(0..2));
            let what = match rng.in_range(0..12) {
                0 => {
                    world.reset_connections();
                    "every connection is reset"
                }
                1 => {
                    // Not for long: every byte is an event of its own.
                    world.change_options(|options| options.segment_bytes_max = 1);
                    self.is_bytewise = true;
                    self.next_network = Some(later(now, rng, 5..60));
                    "bytes arrive one by one"
                }
                2 => {
                    world.change_options(|options| options.segment_bytes_max = 1400);
                    "bytes arrive in packets"
                }
                3..8 if !writers.is_empty() => writers[whom % writers.len()].disturb(how, until),
                8 if !consumers.is_empty() && whom % 2 == 0 => consumers[whom % consumers.len()].disturb(until),
                8 if !members.is_empty() => members[whom % members.len()].disturb(until),
                _ if !readers.is_empty() => readers[whom % readers.len()].disturb(how, until),
                _ => "nothing",
            };
            coverage::hit(match what {
                "every connection is reset" => "fault: all connections reset",
                "bytes arrive one by one" => "fault: byte by byte",
                "nothing" | "bytes arrive in packets" => "fault: packets",
                what if what.ends_with("is reset") => "fault: connection reset",
                _ => "fault: deaf client",
            });
            story.tell(now, || format!("-- {what}"));
        }
        if self.next_clock.is_some_and(|at| at <= now) {
            self.next_clock = Some(later(now, rng, 50..3_000));
            let target = rng.in_range(0..2 * CLOCK_JUMP_MS_MAX as u64) as i64 - CLOCK_JUMP_MS_MAX;
            let by_ms = target - self.wall_offset_ms;
            self.wall_offset_ms = target;
            world.jump_wall(by_ms);
            coverage::hit(if by_ms > 0 { "fault: clock forward" } else { "fault: clock back" });
            story.tell(now, || format!("-- the wall clock jumps by {by_ms} ms"));
        }
        if self.next_stall.is_some_and(|at| at <= now) {
            self.next_stall = Some(later(now, rng, 20..1_500));
            let (shard, time) = (rng.in_range(0..node.shards.len() as u64) as usize, rng.in_range(1..400));
            node.stall(shard, Duration::from_millis(time));
            coverage::hit("fault: stalled shard");
            story.tell(now, || format!("-- shard {shard} gets no turn for {time} ms"));
        }
        if self.next_full.is_some_and(|at| at <= now) {
            self.next_full = Some(later(now, rng, 100..2_000));
            self.is_full = !self.is_full;
            match self.is_full {
                true => {
                    let left_max = [1, 1, 32 * KIB, 256 * KIB, 2 * MIB][rng.in_range(0..5) as usize];
                    world.set_capacity(world.occupied_bytes() + rng.in_range(0..left_max as u64));
                    coverage::hit("fault: full disk");
                }
                false => world.set_capacity(u64::MAX),
            }
            let is_full = self.is_full;
            story.tell(now, || format!("-- the disk is {}", if is_full { "full" } else { "empty enough again" }));
        }
    }

    /// From now on everything works.
    pub fn end_faults(&mut self, world: &World) {
        world.clear_faults();
        world.set_capacity(u64::MAX);
        if self.wall_offset_ms != 0 {
            world.jump_wall(-self.wall_offset_ms);
            self.wall_offset_ms = 0;
        }
        world.change_options(|options| options.segment_bytes_max = options.segment_bytes_max.max(700));
        (self.next_network, self.next_clock, self.next_stall, self.next_full) = (None, None, None, None);
    }

    /// The power goes at one of the next writes; where batches have one size, perhaps at one in which a batch's
    /// header lies across two blocks, or of which the beginning is lost and something behind it kept.
    pub fn cut_at_next_write(&mut self, world: &World, shape: Shape, rng: &mut Rng) {
        if let Shape::Uniform(size_bytes) = shape
            && rng.chance(1, 2)
        {
            let is_crossing = size_bytes == CROSSING_SIZE_BYTES;
            let blocks: std::collections::BTreeSet<_> =
                (u64::from(!is_crossing)..8).filter(|_| rng.chance(1, 2)).collect();
            world.on_write(move |write| {
                let path = write.path.to_string_lossy();
                let is_segment = path.contains("/topics/") && (path.ends_with(".log") || path.ends_with(".spare"));
                let is_long = write.length_bytes >= 3 * BLOCK;
                let has_crossing = (write.offset / BLOCK + 1..(write.offset + write.length_bytes) / BLOCK)
                    .any(|block| (1..21).contains(&(block * BLOCK % CROSSING_SIZE_BYTES)));
                let is_wanted = if is_crossing { has_crossing } else { is_long };
                (is_segment && !write.is_zeros && is_wanted).then(|| Tear::Blocks(blocks.clone()))
            });
            return;
        }
        if rng.chance(1, 3) {
            // What a node writes seldom, and about other files.
            let seldom = ["/meta/", "/checkpoint", ".new", ".spare"][rng.in_range(0..4) as usize];
            let torn = tear(rng);
            world.on_write(move |write| write.path.to_string_lossy().contains(seldom).then(|| torn.clone()));
            return;
        }
        let at = world.write_count() + rng.in_range(0..12);
        world.cut_power_at_write(at, tear(rng));
    }
}

/// The power goes when the metadata log is written after a partition's files were made: most likely it was to say that
/// the partition has data.
fn cut_before_data_is_recorded(world: &World, rng: &mut Rng) {
    let torn = tear(rng);
    let mut is_made = false;
    world.on_write(move |write| {
        let path = write.path.to_string_lossy();
        is_made |= path.ends_with("partition.metadata");
        (is_made && path.contains("/meta/")).then(|| torn.clone())
    });
}

fn tear(rng: &mut Rng) -> Tear {
    match rng.in_range(0..6) {
        0 => Tear::Lost,
        1 => Tear::Kept,
        2 | 3 => Tear::Blocks((0..8).filter(|_| rng.chance(1, 2)).collect()),
        _ => Tear::Random,
    }
}

const DISK: [OpKind; 12] = [
    OpKind::Open,
    OpKind::Read,
    OpKind::Write,
    OpKind::WriteZeros,
    OpKind::Sync,
    OpKind::Truncate,
    OpKind::Rename,
    OpKind::Remove,
    OpKind::SyncDir,
    OpKind::CreateDir,
    OpKind::RemoveDir,
    OpKind::List,
];

/// Operations that now and then take long.
fn slow_down(world: &World, rng: &mut Rng) {
    for kind in DISK {
        if rng.chance(1, 3) {
            let delay = Duration::from_millis(rng.in_range(1..200));
            world.inject(Rule::new(kind, Fault::Delay(delay)).chance(1, 10));
        }
    }
}

/// Operations that fail, a few times each.
fn fail(world: &World, rng: &mut Rng) {
    for kind in DISK {
        if rng.chance(1, 3) {
            let skip_max = [20, 100, 300][rng.in_range(0..3) as usize];
            let skip = rng.in_range(0..skip_max);
            world.inject(Rule::new(kind, Fault::Error(libc::EIO)).skip(skip).times(rng.in_range(1..3)));
        }
    }
}
