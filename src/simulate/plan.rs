//! What a history is made of, all of it from the seed, and the smaller plans that a failing one is shrunk to.
//!
//! Each life of the broker draws from a generator of its own, so that a plan with fewer lives begins with the same
//! ones.

use super::model::{End, Keeps};
use crate::base::rng::Rng;
use crate::io::sim::{OpKind, WorldOptions};

/// Which faults a history may meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Faults {
    /// Operations of the disk that take long.
    pub delays: bool,
    /// Writes, syncs and other operations of the disk that fail.
    pub errors: bool,
    /// Reads that yield other bytes than were written.
    pub corruption: bool,
    /// The disk is full for a while.
    pub full: bool,
    /// Connections that are reset, half open or not read from.
    pub network: bool,
    /// The wall clock jumps.
    pub clock: bool,
    /// Shards that get no turn for a while.
    pub stalls: bool,
    /// Kills and power cuts; otherwise every life ends with a clean stop.
    pub crashes: bool,
}

/// A size of batches of which some headers lie across two blocks.
pub const CROSSING_SIZE_BYTES: u64 = 1204;
/// A size of batches of which every second one begins with a block.
pub const ALIGNED_SIZE_BYTES: u64 = 2048;

/// A size of batches of which one fills more than half of a tiny segment: what is freed is too small for the next one.
pub const LARGE_SIZE_BYTES: u64 = 6200;

/// What batches and segments look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// All sizes.
    Mixed,
    /// Batches of one size in bytes in small, reused segments: what is left of an old one lies where the new one
    /// begins.
    Uniform(u64),
}

/// Operations that take long: their kind, a part of the path, and for how many milliseconds at most.
pub type Slow = (OpKind, &'static str, u64);

/// Checkpoints lag far behind what they describe.
pub const SLOW_CHECKPOINTS: &[Slow] = &[(OpKind::Write, "checkpoint", 150)];
/// Sealing takes long: what follows a roll waits, and renamings stay in the air.
pub const SLOW_SEALS: &[Slow] = &[(OpKind::Truncate, ".log", 300)];
/// Writes of segments take long and differ: what was begun later may be there first.
pub const SLOW_COMMITS: &[Slow] = &[(OpKind::Write, ".log", 40), (OpKind::Write, ".spare", 40)];
/// Directories of deleted topics stay for a while.
pub const SLOW_RENAMES: &[Slow] = &[(OpKind::Rename, "/topics/", 400)];
/// Making the next file takes long.
pub const SLOW_FILES: &[Slow] = &[(OpKind::Open, ".spare", 200), (OpKind::WriteZeros, "", 50)];
/// What groups commit takes long.
pub const SLOW_OFFSETS: &[Slow] = &[(OpKind::Write, "__consumer_offsets", 100)];
/// Sidecars come late.
pub const SLOW_SIDECARS: &[Slow] = &[(OpKind::Write, ".new", 300)];
/// The metadata log takes long.
pub const SLOW_METADATA: &[Slow] = &[(OpKind::Write, "/meta/", 60)];

const SLOW: [&[Slow]; 8] =
    [SLOW_CHECKPOINTS, SLOW_SEALS, SLOW_COMMITS, SLOW_RENAMES, SLOW_FILES, SLOW_OFFSETS, SLOW_SIDECARS, SLOW_METADATA];

/// What a history is made of.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where everything random begins.
    pub seed: u64,
    /// Lives of the broker, each with an end of its own.
    pub life_count: u64,
    /// Clients that produce.
    pub writer_count: u32,
    /// Clients that fetch.
    pub reader_count: u32,
    /// Clients that are members of a group.
    pub member_count: u32,
    /// Clients that are members of a group of the consumer protocol.
    pub consumer_count: u32,
    /// Topics at a time.
    pub topic_count_max: usize,
    /// Batches that are acknowledged in a life before it may end.
    pub goal_max: u64,
    /// Shards at most.
    pub shard_count_max: u16,
    /// What batches look like.
    pub shape: Shape,
    /// Segments hold a few batches; only where these have one size. Much rolls, and what is freed is small.
    pub has_tiny_segments: bool,
    /// Which kind of world: 0 calm, 1 usual, 2 harsh.
    pub world: u64,
    /// Which faults.
    pub faults: Faults,
    /// There is a compacted topic.
    pub has_compacted: bool,
    /// There are transactional producers.
    pub has_transactions: bool,
    /// Size of each shard's journal; 0: none.
    pub journal_kib: u64,
    /// Partitions that must commit at a time for it to be used.
    pub journal_min_partitions: u64,
    /// What takes long in every life.
    pub slow: &'static [Slow],
    /// Every reader takes its answers late, not only some.
    pub slow_readers: bool,
    /// What acknowledgements of every topic survive; without it each topic is another.
    pub keeps: Option<Keeps>,
    /// How every life ends; without it by chance.
    pub end: Option<End>,
}

impl Plan {
    /// The plan of a seed.
    pub fn new(seed: u64) -> Plan {
        let mut rng = Rng::new(seed ^ 0x0711_a000);
        let mut journal = Rng::new(seed ^ 0x10a2);
        let mut often = |of: u64| rng.chance(2, of);
        let faults = Faults {
            delays: often(3),
            errors: often(6),
            corruption: often(8),
            full: often(6),
            network: often(3),
            clock: often(4),
            stalls: often(3),
            crashes: true,
        };
        Plan {
            seed,
            life_count: 10,
            writer_count: 1 + rng.in_range(0..4) as u32,
            reader_count: rng.in_range(1..4) as u32,
            topic_count_max: rng.in_range(1..5) as usize,
            goal_max: 260,
            shard_count_max: 1 + rng.in_range(0..4) as u16,
            shape: match rng.in_range(0..6) {
                0 => Shape::Uniform(CROSSING_SIZE_BYTES),
                1 if faults.full && seed % 5 < 2 => Shape::Uniform(LARGE_SIZE_BYTES),
                1 => Shape::Uniform(ALIGNED_SIZE_BYTES),
                _ => Shape::Mixed,
            },
            has_tiny_segments: seed % 5 < 2,
            world: rng.in_range(0..3),
            faults,
            has_compacted: seed % 2 == 1,
            has_transactions: seed.is_multiple_of(3),
            journal_kib: [0, 24, 64, 1024][journal.in_range(0..4) as usize],
            journal_min_partitions: journal.in_range(1..4),
            member_count: rng.in_range(0..5) as u32,
            slow_readers: false,
            keeps: None,
            end: None,
            slow: if rng.chance(1, 3) { SLOW[rng.in_range(0..SLOW.len() as u64) as usize] } else { &[] },
            consumer_count: rng.in_range(0..5) as u32,
        }
    }

    /// How the world of this plan behaves.
    pub fn world_options(&self) -> WorldOptions {
        let options = match self.world {
            0 => WorldOptions::calm(),
            1 => WorldOptions::default(),
            _ => WorldOptions::harsh(),
        };
        // As a day in 2025, so that retention by time is far from anything at first. What a killed process has handed
        // over may take long.
        WorldOptions { wall_start_ms: 1_750_000_000_000, outlive_ns: 0..=400_000_000, ..options }
    }

    /// Plans that are smaller by one thing, the greatest steps first.
    pub fn smaller(&self) -> Vec<(&'static str, Plan)> {
        let mut plans = Vec::new();
        let mut add = |what, is_smaller, change: &dyn Fn(&mut Plan)| {
            if is_smaller {
                let mut plan = self.clone();
                change(&mut plan);
                plans.push((what, plan));
            }
        };
        add("half the lives", self.life_count > 2, &|p| p.life_count = p.life_count.div_ceil(2));
        add("a life less", self.life_count > 1, &|p| p.life_count -= 1);
        add("one topic", self.topic_count_max > 1, &|p| p.topic_count_max = 1);
        add("one writer", self.writer_count > 1, &|p| p.writer_count = 1);
        add("no reader", self.reader_count > 0, &|p| p.reader_count = 0);
        add("no compacted topic", self.has_compacted, &|p| p.has_compacted = false);
        add("no consumer", self.consumer_count > 0, &|p| p.consumer_count = 0);
        add("no transactions", self.has_transactions, &|p| p.has_transactions = false);
        add("no journal", self.journal_kib > 0, &|p| p.journal_kib = 0);
        add("no member", self.member_count > 0, &|p| p.member_count = 0);
        add("nothing that is always slow", !self.slow.is_empty(), &|p| p.slow = &[]);
        add("one shard", self.shard_count_max > 1, &|p| p.shard_count_max = 1);
        add("half the batches", self.goal_max > 4, &|p| p.goal_max /= 2);
        add("a writer less", self.writer_count > 2, &|p| p.writer_count -= 1);
        add("a reader less", self.reader_count > 1, &|p| p.reader_count -= 1);
        add("a consumer less", self.consumer_count > 1, &|p| p.consumer_count -= 1);
        add("a member less", self.member_count > 1, &|p| p.member_count -= 1);
        add("a topic less", self.topic_count_max > 2, &|p| p.topic_count_max -= 1);
        add("a shard less", self.shard_count_max > 2, &|p| p.shard_count_max -= 1);
        add("no delays", self.faults.delays, &|p| p.faults.delays = false);
        add("no errors", self.faults.errors, &|p| p.faults.errors = false);
        add("no corruption", self.faults.corruption, &|p| p.faults.corruption = false);
        add("no full disk", self.faults.full, &|p| p.faults.full = false);
        add("a sound network", self.faults.network, &|p| p.faults.network = false);
        add("a steady clock", self.faults.clock, &|p| p.faults.clock = false);
        add("no stalls", self.faults.stalls, &|p| p.faults.stalls = false);
        add("clean stops only", self.faults.crashes, &|p| p.faults.crashes = false);
        add("a calm world", self.world > 0, &|p| p.world = 0);
        add("a tenth fewer batches", self.goal_max > 4, &|p| p.goal_max -= p.goal_max.div_ceil(10));
        plans
    }
}
