//! One shard's compactions: one at a time, at a pace, with one budget of memory.
//!
//! The owner of the logs finds the dirtiest one that is due and gives it to [`Cleaner::start`]; then it calls
//! [`Cleaner::go_on`] when [`Cleaner::due`] says so and hands completions of the cleaner's token to
//! [`Cleaner::complete`].
//!
//! The pace: one step of a bounded number of bytes a turn, a pause after it while others are served, and no more bytes
//! read and written a second than the operator allows. So producers wait at most for one step.
//!
//! Invariant: the map and two buffers are the memory, however many logs there are; without work there is none.

use std::path::PathBuf;
use std::time::Duration;

use crate::base::rng::Rng;
use crate::base::time::{Monotonic, Now};
use crate::io::{Io, Op, Outcome, Token};
use crate::storage::log::Log;

use super::map::KeyHasher;
use super::plan::{CompactionPolicy, Dirtiness};
use super::task::{CleanStep, CleanTask, CompactError, CompactionStats};

/// Between two steps while requests are being served.
const BUSY_PAUSE: Duration = Duration::from_millis(1);
/// How long a log is left alone when the system has refused something.
const FAILED_PAUSE: Duration = Duration::from_secs(60);
/// When memory or a swap is looked for again.
const BLOCKED_PAUSE: Duration = Duration::from_millis(5);

/// What the operator decides.
#[derive(Clone, Copy, Debug)]
pub struct CleanerOptions {
    /// Memory of the map, of this shard.
    pub map_size_bytes: usize,
    /// How full the map may get, above 0 and up to 1.
    pub load_factor: f64,
    /// Bytes read and written in a second, of this shard; infinite: as fast as it goes.
    pub io_bytes_per_second: f64,
    /// The pause when nothing is due.
    pub backoff: Duration,
}

/// How a compaction ended.
#[derive(Debug)]
pub enum Ended {
    /// Everything up to the end of the map is compacted.
    Done(CompactionStats),
    /// See the error. If the system refused something the log is left alone for a while.
    Failed(CompactError),
}

/// See the module.
pub struct Cleaner {
    options: CleanerOptions,
    token: Token,
    hasher: KeyHasher,
    task: Option<Box<CleanTask>>,
    is_under_way: bool,
    /// A file that an ended compaction has left, to be removed.
    leftover: Option<PathBuf>,
    due: Monotonic,
    /// Before then nothing is read or written, for the rate's sake.
    paced_until: Monotonic,
}

impl Cleaner {
    /// A cleaner whose operations carry `token`.
    pub fn new(token: Token, options: CleanerOptions, rng: &mut Rng) -> Cleaner {
        let hasher = KeyHasher::new((rng.next_u64(), rng.next_u64()));
        let (due, paced_until) = (Monotonic(0), Monotonic(0));
        Cleaner { options, token, hasher, task: None, is_under_way: false, leftover: None, due, paced_until }
    }

    /// When it wants to go on, or to be given work. `None` while an operation is under way.
    pub fn due(&self) -> Option<Monotonic> {
        (!self.is_under_way).then_some(self.due.max(self.paced_until))
    }

    /// True while an operation of its own is under way: it completes after all else has ended, too.
    pub fn is_under_way(&self) -> bool {
        self.is_under_way
    }

    /// The log that is being compacted: its token.
    pub fn log(&self) -> Option<u64> {
        self.task.as_ref().map(|task| task.log())
    }

    /// Nothing is found yet, and not everything has been looked at.
    pub fn go_on_looking(&mut self, now: Monotonic) {
        self.due = now + BUSY_PAUSE;
    }

    /// There is nothing to do now.
    pub fn rest(&mut self, now: Monotonic) {
        self.due = now + self.options.backoff;
    }

    /// There will be something to do soon.
    pub fn rest_shortly(&mut self, now: Monotonic) {
        self.due = now + BLOCKED_PAUSE.max(self.options.backoff.min(Duration::from_millis(100)));
    }

    /// Begins to compact what [`Log::dirtiness`] told of `log` and [`Log::may_compact`] allowed.
    pub fn start(&mut self, log: &Log, dirtiness: Dirtiness, policy: &CompactionPolicy, now: Now) {
        debug_assert!(self.task.is_none());
        let task = CleanTask::new(log, self.token, dirtiness, policy, self.hasher, &self.options, now.wall);
        self.task = Some(Box::new(task));
        self.due = now.monotonic;
    }

    /// Goes on with the compaction of `log`; `is_busy`: requests were served since the last step.
    pub fn go_on(&mut self, io: &mut impl Io, log: &mut Log, now: Now, is_busy: bool) -> Option<Ended> {
        if self.is_under_way || self.remove_leftover(io) {
            return None;
        }
        let task = self.task.as_mut()?;
        let step = task.go_on(io, log);
        let bytes = task.take_io_bytes();
        self.pace(bytes, now.monotonic);
        match step {
            CleanStep::Waiting => {
                self.is_under_way = true;
                self.due = now.monotonic + if is_busy { BUSY_PAUSE } else { Duration::ZERO };
                None
            }
            CleanStep::Paused => {
                self.due = now.monotonic + if is_busy { BUSY_PAUSE } else { Duration::ZERO };
                None
            }
            CleanStep::Blocked => {
                self.due = now.monotonic + BLOCKED_PAUSE;
                None
            }
            CleanStep::Done(stats) => {
                self.task = None;
                self.due = now.monotonic;
                Some(Ended::Done(stats))
            }
            CleanStep::Failed(error) => Some(self.fail(io, Some(log), error, now.monotonic)),
        }
    }

    /// Takes the completion of an operation. `log` is the one that is being compacted, if it is still there.
    pub fn complete(
        &mut self,
        io: &mut impl Io,
        log: Option<&mut Log>,
        result: std::io::Result<Outcome>,
        now: Monotonic,
    ) -> Option<Ended> {
        self.is_under_way = false;
        let Some(task) = &mut self.task else {
            // An abandoned compaction's, or the removal of what it left.
            self.remove_leftover(io);
            return None;
        };
        let error = match (task.take(result), &log) {
            (Err(error), _) => error,
            (Ok(()), None) => CompactError::Gone,
            (Ok(()), Some(_)) => return None,
        };
        Some(self.fail(io, log, error, now))
    }

    /// Ends the compaction, because the log is gone or is not to be compacted any more.
    pub fn abandon(&mut self, io: &mut impl Io, log: Option<&mut Log>) {
        let Some(task) = self.task.take() else { return };
        if let Some(log) = log {
            log.compaction.reading = None;
            // A swap that was begun goes on without us.
            self.leftover = task.leftover().filter(|_| !log.is_swapping());
            self.remove_leftover(io);
        }
    }

    fn fail(&mut self, io: &mut impl Io, log: Option<&mut Log>, error: CompactError, now: Monotonic) -> Ended {
        let stays = matches!(
            error,
            CompactError::Corrupt { .. } | CompactError::Records { .. } | CompactError::TooLarge { .. }
        );
        if let Some(log) = log {
            log.compaction.is_uncleanable |= stays;
            if matches!(error, CompactError::Io(_)) {
                log.compaction.rests_until = now + FAILED_PAUSE;
            }
            self.abandon(io, Some(log));
        } else {
            self.abandon(io, None);
        }
        self.due = match error {
            // They may be going still, or be missing for good.
            CompactError::Gone => now + self.options.backoff,
            _ => now,
        };
        Ended::Failed(error)
    }

    /// True if an operation is under way for it.
    fn remove_leftover(&mut self, io: &mut impl Io) -> bool {
        if self.is_under_way {
            return true;
        }
        let Some(path) = self.leftover.take() else { return false };
        io.submit(self.token, Op::Remove { path });
        self.is_under_way = true;
        true
    }

    fn pace(&mut self, bytes: u64, now: Monotonic) {
        let rate = self.options.io_bytes_per_second;
        if bytes > 0 && rate.is_finite() && rate > 0.0 {
            let seconds = (bytes as f64 / rate).min(3600.0);
            self.paced_until = self.paced_until.max(now) + Duration::from_secs_f64(seconds);
        }
    }
}
