//! How a simulated world behaves when no fault is injected: times, sizes, and what a power cut does.

use std::ops::RangeInclusive;

use crate::base::rng::Rng;
use crate::base::units::KIB;

/// How long something takes: uniformly within a range, and now and then much longer.
#[derive(Clone, Debug)]
pub struct Latency {
    /// The usual time in nanoseconds.
    pub usual_ns: RangeInclusive<u64>,
    /// The time of an outlier in nanoseconds.
    pub slow_ns: RangeInclusive<u64>,
    /// One in so many is an outlier; 0 for none.
    pub slow_one_in: u64,
}

impl Latency {
    /// Always within `usual_ns`.
    pub const fn steady(usual_ns: RangeInclusive<u64>) -> Latency {
        Latency { usual_ns, slow_ns: 0..=0, slow_one_in: 0 }
    }

    pub(super) fn pick_ns(&self, rng: &mut Rng) -> u64 {
        let slow = self.slow_one_in > 0 && rng.chance(1, self.slow_one_in);
        rng.in_range(if slow { self.slow_ns.clone() } else { self.usual_ns.clone() })
    }
}

/// What a power cut does to what was not synced, and to what was in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Each write is lost, kept or torn, each directory keeps some of its latest changes: all by the seed.
    Random,
    /// Everything that may be lost is lost.
    All,
    /// Nothing is lost.
    Nothing,
}

/// How a world behaves.
#[derive(Clone, Debug)]
pub struct WorldOptions {
    /// Time of a read.
    pub read: Latency,
    /// Time of a write; a synced one takes a `sync` on top.
    pub write: Latency,
    /// Time of a sync of a file or directory.
    pub sync: Latency,
    /// Time of opening, renaming and other operations of names.
    pub name: Latency,
    /// Time on the way between two sides of a connection.
    pub network: Latency,
    /// Time between handing over a network operation and its first attempt.
    pub start_ns: u64,
    /// What a `poll` costs: even a shard that never waits sees time pass.
    pub poll_ns: u64,
    /// The disk's size; writes that allocate beyond it fail with `ENOSPC`.
    pub capacity_bytes: u64,
    /// The unit within which a write is never torn: 4096 or 512.
    pub tear_size_bytes: usize,
    /// What a power cut does.
    pub loss: Loss,
    /// How long the writes of a killed process may go on.
    pub outlive_ns: RangeInclusive<u64>,
    /// Bytes on their way or waiting on the receiving side before a sender must wait.
    pub window_bytes: usize,
    /// The most bytes that arrive at once: 1 delivers byte by byte. Each arrival is of a random size up to it.
    pub segment_bytes_max: usize,
    /// One in so many receives gets fewer bytes than are there; 0 for none.
    pub short_receive_one_in: u64,
    /// One in so many `SendFile`s stops short although there is room; 0 for none.
    pub short_send_file_one_in: u64,
    /// How long a `SendFile` waits for room.
    pub send_file_wait_ns: u64,
    /// The wall clock at the start, in milliseconds since the Unix epoch.
    pub wall_start_ms: i64,
    /// How many of the last facts of the trace are kept as lines; 0 for none.
    pub trace_line_count_max: usize,
}

const US: u64 = 1_000;
const MS: u64 = 1_000 * US;

impl Default for WorldOptions {
    /// A disk and a network as they are, with outliers, and a power cut that loses what it may.
    fn default() -> WorldOptions {
        WorldOptions {
            read: Latency { usual_ns: 50 * US..=500 * US, slow_ns: MS..=20 * MS, slow_one_in: 200 },
            write: Latency { usual_ns: 50 * US..=500 * US, slow_ns: MS..=20 * MS, slow_one_in: 200 },
            sync: Latency { usual_ns: 20 * US..=800 * US, slow_ns: MS..=50 * MS, slow_one_in: 200 },
            name: Latency { usual_ns: 10 * US..=200 * US, slow_ns: MS..=20 * MS, slow_one_in: 200 },
            network: Latency { usual_ns: 10 * US..=200 * US, slow_ns: MS..=5 * MS, slow_one_in: 500 },
            start_ns: US,
            poll_ns: US / 2,
            capacity_bytes: u64::MAX,
            tear_size_bytes: 4 * KIB,
            loss: Loss::Random,
            outlive_ns: 0..=30 * MS,
            window_bytes: 256 * KIB,
            segment_bytes_max: 64 * KIB,
            short_receive_one_in: 8,
            short_send_file_one_in: 8,
            send_file_wait_ns: 20 * MS,
            wall_start_ms: 1_750_000_000_000,
            trace_line_count_max: 0,
        }
    }
}

impl WorldOptions {
    /// Short fixed times, nothing split: for tests whose subject is not the world.
    pub fn calm() -> WorldOptions {
        WorldOptions {
            read: Latency::steady(100 * US..=100 * US),
            write: Latency::steady(100 * US..=100 * US),
            sync: Latency::steady(100 * US..=100 * US),
            name: Latency::steady(50 * US..=50 * US),
            network: Latency::steady(20 * US..=20 * US),
            short_receive_one_in: 0,
            short_send_file_one_in: 0,
            ..WorldOptions::default()
        }
    }

    /// Many outliers, tiny segments and windows, sectors torn at 512 bytes.
    pub fn harsh() -> WorldOptions {
        let slow = |latency: Latency| Latency { slow_one_in: 10, ..latency };
        let usual = WorldOptions::default();
        WorldOptions {
            read: slow(usual.read.clone()),
            write: slow(usual.write.clone()),
            sync: slow(usual.sync.clone()),
            name: slow(usual.name.clone()),
            network: slow(usual.network.clone()),
            tear_size_bytes: 512,
            window_bytes: 4 * KIB,
            segment_bytes_max: 700,
            short_receive_one_in: 2,
            short_send_file_one_in: 2,
            ..usual
        }
    }
}
