//! How much may be read from disk at a time beside appends: wide where nobody notices, narrow where writes get slow.
//!
//! A commit that no read from disk met tells what writes of its size take on this disk; one that did is compared with
//! that. Beside commits the pace begins at its narrowest: one read at a time, which gives a single reader that is far
//! behind nearly what it has alone. Where commits do not mind, more and larger reads are let in, step by step, which is
//! what many readers share; where they take clearly longer, fewer again. A step that turned out too wide is tried again
//! after twice the time, since each trial costs those who write. Where nothing is written the pace is at its widest.
//!
//! Pure: times come in, a pace goes out. It must not know partitions or connections.

use std::time::Duration;

use crate::base::time::Monotonic;
use crate::base::units::{KIB, MIB};
use crate::model::limits::{BLOCK_SIZE_BYTES, COMMIT_SIZE_BYTES_MAX};

/// How much may be read from disk at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pace {
    /// Reads into memory, and as many file transfers.
    pub count_max: usize,
    /// What one read may return, but for its first batch.
    pub size_bytes_max: usize,
    /// Of transfers the same, without which the kernel reads ahead as much as it likes.
    pub transfer_bytes_max: Option<usize>,
}

/// The steps, from the widest. Eight of 1 MiB is where the disks that were measured have no more to give.
const PACES: [Pace; 4] = [
    Pace { count_max: 8, size_bytes_max: MIB, transfer_bytes_max: None },
    narrow(4, MIB / 2),
    narrow(2, 256 * KIB),
    narrow(1, 256 * KIB),
];

const fn narrow(count_max: usize, size_bytes_max: usize) -> Pace {
    Pace { count_max, size_bytes_max, transfer_bytes_max: Some(size_bytes_max) }
}

const NARROWEST: usize = PACES.len() - 1;
/// From this ratio on commits beside reads are slow.
const RATIO_SLOW: f32 = 1.4;
/// Below this one they are not.
const RATIO_FAST: f32 = 1.15;
/// The least time between two steps down.
const NARROW_EVERY: Duration = Duration::from_millis(10);
/// The least time until the next step up: at first, and after many that were too wide.
const WIDEN_AFTER_MIN: Duration = Duration::from_secs(4);
const WIDEN_AFTER_MAX: Duration = Duration::from_secs(64);
/// Without a commit for so long nobody is disturbed.
const IDLE_AFTER: Duration = Duration::from_secs(1);
/// The weight of a new commit in what quiet ones take, and in how much longer the others do.
const QUIET_WEIGHT: f32 = 1.0 / 32.0;
const RATIO_WEIGHT: f32 = 1.0 / 16.0;
/// What one commit counts as at most: an outlier of a disk is not the readers' doing.
const RATIO_MAX: f32 = 4.0;
/// Quiet commits of a size before others are compared with them.
const QUIET_COUNT_MIN: u32 = 8;

/// Sizes of commits by powers of two of a block, synced or not.
const CLASS_COUNT: usize = 2 * ((COMMIT_SIZE_BYTES_MAX / BLOCK_SIZE_BYTES).trailing_zeros() as usize + 1);

#[derive(Clone, Copy, Debug, Default)]
struct Quiet {
    took_ns: f32,
    count: u32,
}

/// See the module.
#[derive(Debug)]
pub(super) struct ColdPace {
    quiet: [Quiet; CLASS_COUNT],
    ratio: f32,
    step: usize,
    changed_at: Monotonic,
    widen_after: Duration,
    /// The last step was one up.
    is_on_trial: bool,
    committed_at: Monotonic,
}

impl Default for ColdPace {
    fn default() -> ColdPace {
        ColdPace {
            quiet: [Quiet::default(); CLASS_COUNT],
            ratio: 1.0,
            step: NARROWEST,
            changed_at: Monotonic::default(),
            widen_after: WIDEN_AFTER_MIN,
            is_on_trial: false,
            committed_at: Monotonic::default(),
        }
    }
}

impl ColdPace {
    /// How much may be read now.
    pub fn pace(&self, now: Monotonic) -> Pace {
        PACES[if now.since(self.committed_at) > IDLE_AFTER { 0 } else { self.step }]
    }

    /// A commit begins: whoever reads makes room for it.
    pub fn commit_begins(&mut self, now: Monotonic) {
        if now.since(self.committed_at) > IDLE_AFTER {
            let quiet = self.quiet;
            *self = ColdPace { quiet, changed_at: now, ..ColdPace::default() };
        }
        self.committed_at = now;
    }

    /// A commit of `size_bytes` took so long. `is_quiet`: nothing was read from disk meanwhile. True if that made the
    /// pace narrower.
    pub fn commit_took(
        &mut self,
        now: Monotonic,
        size_bytes: u64,
        is_synced: bool,
        took: Duration,
        is_quiet: bool,
    ) -> bool {
        self.committed_at = now;
        let took_ns = took.as_nanos() as f32;
        let quiet = &mut self.quiet[class_of(size_bytes, is_synced)];
        if is_quiet {
            let weight = if quiet.count < QUIET_COUNT_MIN { 1.0 / (quiet.count + 1) as f32 } else { QUIET_WEIGHT };
            quiet.took_ns += (took_ns - quiet.took_ns) * weight;
            quiet.count = quiet.count.saturating_add(1);
            return false;
        }
        // What nothing is known of is not to be disturbed more than it must.
        let ratio = if quiet.count < QUIET_COUNT_MIN { 2.0 } else { took_ns / quiet.took_ns.max(1.0) };
        self.ratio += (ratio.min(RATIO_MAX) - self.ratio) * RATIO_WEIGHT;
        let since = now.since(self.changed_at);
        if self.ratio > RATIO_SLOW && self.step < NARROWEST && since >= NARROW_EVERY {
            self.step += 1;
            if std::mem::take(&mut self.is_on_trial) {
                self.widen_after = (2 * self.widen_after).min(WIDEN_AFTER_MAX);
            }
            self.changed_at = now;
            // What is known is of the pace before.
            self.ratio = 1.0;
            return true;
        }
        if self.ratio < RATIO_FAST && self.step > 0 && since >= self.widen_after {
            self.step -= 1;
            if std::mem::replace(&mut self.is_on_trial, true) {
                self.widen_after = (self.widen_after / 2).max(WIDEN_AFTER_MIN);
            }
            self.changed_at = now;
        }
        false
    }
}

fn class_of(size_bytes: u64, is_synced: bool) -> usize {
    let blocks = size_bytes.div_ceil(BLOCK_SIZE_BYTES as u64).max(1).next_power_of_two();
    (2 * blocks.trailing_zeros() as usize).min(CLASS_COUNT - 2) + usize::from(is_synced)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us(us: u64) -> Duration {
        Duration::from_micros(us)
    }

    /// Commits of 16 KiB, one a millisecond, that take what `took_us` says of how many reads are let in.
    fn run(pace: &mut ColdPace, now: &mut Monotonic, count: u32, is_quiet: bool, took_us: impl Fn(usize) -> u64) {
        for _ in 0..count {
            *now = *now + us(1000);
            let took = us(took_us(pace.pace(*now).count_max));
            pace.commit_took(*now, 16_384, true, took, is_quiet);
        }
    }

    #[test]
    fn the_pace_is_as_wide_as_writes_bear_and_what_was_too_wide_is_tried_less_and_less() {
        // Two reads at a time are borne, four are too many.
        let (mut pace, mut now) = (ColdPace::default(), Monotonic(0) + us(1));
        run(&mut pace, &mut now, 100, true, |_| 300);
        assert_eq!(pace.pace(now).count_max, 1, "as long as nobody knows");
        let mut wide_ms = [0; 4];
        for round in &mut wide_ms {
            for _ in 0..60_000 {
                run(&mut pace, &mut now, 1, false, |count| if count > 2 { 600 } else { 310 });
                *round += u32::from(pace.pace(now).count_max > 2);
            }
        }
        assert_eq!(pace.pace(now).count_max, 2);
        assert!(wide_ms[0] < 600, "one in a hundred: {wide_ms:?}");
        assert!((1..100).contains(&wide_ms[3]), "{wide_ms:?}");
        run(&mut pace, &mut now, 200_000, false, |_| 310);
        assert_eq!(pace.pace(now), PACES[0], "the disk has become better");
        // Never less than one.
        run(&mut pace, &mut now, 2_000, false, |_| 3_000);
        assert_eq!(pace.pace(now).count_max, 1);
        // A second without commits, and the next one.
        now = now + us(1_500_000);
        assert_eq!(pace.pace(now), PACES[0]);
        pace.commit_begins(now);
        assert_eq!(pace.pace(now).count_max, 1);
    }

    #[test]
    fn commits_are_compared_with_their_like() {
        // Large and unsynced commits take longer and shorter than small ones: nobody is slowed by that.
        let (mut pace, mut now) = (ColdPace::default(), Monotonic(0) + us(1));
        for round in 0..20_000 {
            for (size, is_synced, took) in [(4_096, true, 200), (1 << 20, true, 2_000), (4_096, false, 50)] {
                now = now + us(300);
                pace.commit_took(now, size, is_synced, us(took), round < 20);
            }
        }
        assert_eq!(pace.pace(now), PACES[0]);
    }

    #[test]
    fn one_outlier_changes_nothing_and_what_is_unknown_is_spared() {
        let (mut pace, mut now) = (ColdPace::default(), Monotonic(0) + us(1));
        run(&mut pace, &mut now, 100, true, |_| 300);
        run(&mut pace, &mut now, 20_000, false, |_| 300);
        assert!(!pace.commit_took(now + us(10), 16_384, true, us(100_000), false));
        assert_eq!(pace.pace(now), PACES[0]);
        let mut unknown = ColdPace::default();
        run(&mut unknown, &mut now, 20_000, false, |_| 300);
        assert_eq!(unknown.pace(now).count_max, 1);
    }
}
