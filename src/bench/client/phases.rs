//! Warm-up, measured time, and the wait for what is under way at its end; and the intervals in them.
//!
//! Invariant: nothing is counted before the warm-up is over or after the measured time. In an open loop latencies
//! belong to the time at which their request was due, in a closed one to that of its answer.

use std::time::{Duration, SystemTime};

use anyhow::ensure;

use crate::base::time::{Monotonic, Now};
use crate::bench::meter::{CpuTime, Memory, Meter};
use crate::bench::recorder::{Counts, Recorder, Row};
use crate::bench::steady::Steady;

/// How long to wait for answers at the end.
const DRAIN_MAX: Duration = Duration::from_secs(30);
const DRAIN_LOOK_EVERY: Duration = Duration::from_millis(20);
/// The sampling of a warm-up that ends by itself.
const STEADY_INTERVAL: Duration = Duration::from_millis(500);

/// When the warm-up is over.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum WarmUp {
    /// After this time.
    Time(Duration),
    /// When the rate is steady.
    Steady {
        /// The share of the mean that the rate of half a second may be off.
        tolerance: f64,
        /// After this time anyway.
        at_most: Duration,
    },
}

/// How long to run.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// Not counted.
    pub warm_up: WarmUp,
    /// Counted.
    pub measured: Duration,
    /// The distance of rows in the time series.
    pub interval: Duration,
}

/// What is shown while it runs.
#[derive(Clone, Debug)]
pub struct Progress<'a> {
    /// Still warming up.
    pub is_warm_up: bool,
    /// Since the start of the warm-up or of the measured time.
    pub elapsed: Duration,
    /// Each stream's last interval.
    pub rows: &'a [(&'static str, Row)],
}

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Run {
    /// The streams by name.
    pub streams: Vec<(&'static str, Recorder)>,
    /// How late the client itself was with requests that were due.
    pub lateness: Recorder,
    /// When the measured time began.
    pub began: SystemTime,
    /// How long was measured.
    pub measured: Duration,
    /// How long the warm-up was.
    pub warm_up: Duration,
    /// Whether the rate was steady when the warm-up ended, if that was asked for.
    pub is_steady: Option<bool>,
    /// CPU time in the measured time.
    pub cpu: CpuTime,
    /// The same for each interval: when it ended, and what was used in it.
    pub cpu_series: Vec<(Duration, CpuTime)>,
    /// The broker's memory at the end of the measured time.
    pub memory: Option<Memory>,
    /// Requests that were never answered.
    pub unanswered_count: u64,
    /// Requests of the first stream that were answered during the warm-up.
    pub warm_up_request_count: u64,
}

/// What the client is doing.
pub(super) struct Situation {
    pub(super) now: Now,
    /// Requests and batches that are waited for.
    pub(super) waits_count: usize,
    /// There is nothing left to consume, and nothing is produced.
    pub(super) is_exhausted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    WarmUp,
    Measuring,
    Draining,
}

pub(super) struct Phases {
    times: Times,
    is_open: bool,
    phase: Phase,
    start: Monotonic,
    interval_start: Monotonic,
    began: Monotonic,
    began_wall: SystemTime,
    ended: Monotonic,
    steady: Option<Steady>,
    is_steady: Option<bool>,
    cpu_began: CpuTime,
    cpu_last: CpuTime,
    cpu_series: Vec<(Duration, CpuTime)>,
    memory: Option<Memory>,
    warm_up_request_count: u64,
}

impl Phases {
    pub(super) fn new(times: Times, now: Now, is_open: bool, meter: &mut Meter) -> anyhow::Result<Phases> {
        let steady = match times.warm_up {
            WarmUp::Time(_) => None,
            WarmUp::Steady { tolerance, .. } => Some(Steady::new(tolerance)),
        };
        let mut phases = Phases {
            times,
            is_open,
            phase: Phase::WarmUp,
            start: now.monotonic,
            interval_start: now.monotonic,
            began: now.monotonic,
            began_wall: wall(now),
            ended: now.monotonic,
            is_steady: steady.is_some().then_some(false),
            steady,
            cpu_began: CpuTime::default(),
            cpu_last: CpuTime::default(),
            cpu_series: Vec::new(),
            memory: None,
            warm_up_request_count: 0,
        };
        if times.warm_up == WarmUp::Time(Duration::ZERO) {
            phases.measure(now, meter)?;
        }
        Ok(phases)
    }

    pub(super) fn is_draining(&self) -> bool {
        self.phase == Phase::Draining
    }

    /// True if a request that is due at `due` belongs into the result.
    #[inline]
    pub(super) fn covers(&self, due: Monotonic) -> bool {
        match self.phase {
            Phase::WarmUp => false,
            Phase::Measuring => due >= self.began,
            Phase::Draining => due >= self.began && due < self.ended,
        }
    }

    /// Records a request that was to be sent at `since` and was done at `now`.
    #[inline]
    pub(super) fn record(&self, recorder: &mut Recorder, since: Monotonic, now: Monotonic, counts: Counts) {
        if self.phase != Phase::Draining {
            recorder.count(counts);
        }
        let recorded = match self.phase {
            Phase::WarmUp => true,
            Phase::Measuring | Phase::Draining if self.is_open => self.covers(since),
            Phase::Measuring => true,
            Phase::Draining => false,
        };
        if recorded {
            recorder.record(now.since(since).as_nanos() as u64);
        }
    }

    /// When [`turn`](Self::turn) has something to do.
    pub(super) fn next(&self) -> Monotonic {
        let interval_end = self.interval_start + self.interval();
        match self.phase {
            Phase::WarmUp => interval_end.min(self.warm_up_end()),
            Phase::Measuring => interval_end.min(self.began + self.times.measured),
            Phase::Draining => self.interval_start + DRAIN_LOOK_EVERY,
        }
    }

    fn interval(&self) -> Duration {
        if self.phase == Phase::WarmUp && self.steady.is_some() { STEADY_INTERVAL } else { self.times.interval }
    }

    fn warm_up_end(&self) -> Monotonic {
        match self.times.warm_up {
            WarmUp::Time(time) => self.start + time,
            WarmUp::Steady { at_most, .. } => self.start + at_most,
        }
    }

    /// Ends the interval, and the phase if it is over. False when all is over.
    pub(super) fn turn(
        &mut self,
        situation: Situation,
        meter: &mut Meter,
        streams: &mut [(&'static str, Recorder)],
        lateness: &mut Recorder,
        progress: &mut impl FnMut(&Progress),
    ) -> anyhow::Result<bool> {
        let now = situation.now.monotonic;
        let (start, duration) = (self.interval_start.since(self.began), now.since(self.interval_start));
        match self.phase {
            Phase::WarmUp => {
                ensure!(!situation.is_exhausted, "all was read before the warm-up was over: shorten it");
                let request_count = streams[0].1.interval_counts().requests;
                let rate = request_count as f64 / duration.as_secs_f64();
                self.warm_up_request_count += request_count;
                // A last piece of an interval says little.
                let is_whole = duration >= self.interval() / 2;
                let rows: Vec<_> =
                    streams.iter_mut().map(|(name, stream)| (*name, stream.roll(start, duration))).collect();
                streams.iter_mut().for_each(|(_, stream)| stream.clear());
                self.interval_start = now;
                progress(&Progress { is_warm_up: true, elapsed: now.since(self.start), rows: &rows });
                let is_steady = is_whole && self.steady.as_mut().is_some_and(|steady| steady.push(rate));
                if is_steady {
                    self.is_steady = Some(true);
                }
                if is_steady || now >= self.warm_up_end() {
                    lateness.clear();
                    self.measure(situation.now, meter)?;
                }
            }
            Phase::Measuring => {
                let cpu = meter.read()?;
                let rows: Vec<_> =
                    streams.iter_mut().map(|(name, stream)| (*name, stream.roll(start, duration))).collect();
                lateness.roll(start, duration);
                self.cpu_series.push((now.since(self.began), cpu.since(&self.cpu_last)));
                self.cpu_last = cpu;
                self.interval_start = now;
                progress(&Progress { is_warm_up: false, elapsed: now.since(self.began), rows: &rows });
                if now >= self.began + self.times.measured || situation.is_exhausted {
                    self.memory = meter.memory();
                    (self.phase, self.ended) = (Phase::Draining, now);
                }
            }
            Phase::Draining => {
                return Ok(situation.waits_count > 0 && now.since(self.ended) < DRAIN_MAX);
            }
        }
        Ok(true)
    }

    fn measure(&mut self, now: Now, meter: &mut Meter) -> anyhow::Result<()> {
        self.phase = Phase::Measuring;
        (self.began, self.interval_start, self.began_wall) = (now.monotonic, now.monotonic, wall(now));
        self.cpu_began = meter.read()?;
        self.cpu_last = self.cpu_began;
        Ok(())
    }

    /// The result.
    pub(super) fn finish(
        self,
        now: Monotonic,
        mut streams: Vec<(&'static str, Recorder)>,
        lateness: Recorder,
        unanswered_count: u64,
    ) -> Run {
        for (_, stream) in &mut streams {
            stream.roll_rest(self.ended.since(self.began), now.since(self.ended));
        }
        Run {
            streams,
            lateness,
            began: self.began_wall,
            measured: self.ended.since(self.began),
            warm_up: self.began.since(self.start),
            is_steady: self.is_steady,
            cpu: self.cpu_last.since(&self.cpu_began),
            cpu_series: self.cpu_series,
            memory: self.memory,
            unanswered_count,
            warm_up_request_count: self.warm_up_request_count,
        }
    }
}

fn wall(now: Now) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(now.wall.0.max(0) as u64)
}
