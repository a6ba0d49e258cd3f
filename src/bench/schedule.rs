//! When requests are due in an open loop: a rate that does not care how the broker is doing.
//!
//! A request's latency runs from the moment at which it was due, so a stall counts for every request that it held up
//! and not only for the one that it hit. Pure: the caller brings the clock.
//!
//! Invariant: due times never go back and do not drift; request `k` at a uniform rate is due at exactly
//! `start + k / rate`, however late the caller asks.

use crate::base::rng::Rng;
use crate::base::time::Monotonic;

/// The least and the greatest rate: one in a thousand seconds, and more than a core can send.
pub const RATE_PER_SECOND: std::ops::RangeInclusive<f64> = 0.001..=100_000_000.0;

/// How requests follow one another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Arrivals {
    /// At equal distances.
    #[default]
    Uniform,
    /// With exponentially distributed gaps, as independent clients do.
    Poisson,
}

/// The due times of one run.
#[derive(Clone, Debug)]
pub struct Schedule {
    start: Monotonic,
    rate_per_second_millis: u64,
    index: u64,
    /// Of Poisson arrivals: the generator and the time since the start in nanoseconds.
    random: Option<(Rng, f64)>,
    next: Monotonic,
}

impl Schedule {
    /// A schedule whose first request is due at `start`.
    ///
    /// # Panics
    /// If the rate is not within [`RATE_PER_SECOND`].
    pub fn new(start: Monotonic, rate_per_second: f64, arrivals: Arrivals, seed: u64) -> Schedule {
        assert!(RATE_PER_SECOND.contains(&rate_per_second), "a rate of {rate_per_second}");
        let random = (arrivals == Arrivals::Poisson).then(|| (Rng::new(seed), 0.0));
        let rate_per_second_millis = (rate_per_second * 1000.0).round().max(1.0) as u64;
        Schedule { start, rate_per_second_millis, index: 0, random, next: start }
    }

    /// When the next request is due.
    pub fn next_due(&self) -> Monotonic {
        self.next
    }

    /// The next request's due time if it has come.
    #[inline]
    pub fn take(&mut self, now: Monotonic) -> Option<Monotonic> {
        if self.next > now {
            return None;
        }
        let due = self.next;
        self.index += 1;
        let since_start_ns = match &mut self.random {
            None => u128::from(self.index) * 1_000_000_000_000 / u128::from(self.rate_per_second_millis),
            Some((rng, elapsed_ns)) => {
                // In (0, 1], so that the logarithm is finite.
                let uniform = ((rng.next_u64() >> 11) + 1) as f64 / (1u64 << 53) as f64;
                *elapsed_ns -= uniform.ln() * 1e12 / self.rate_per_second_millis as f64;
                *elapsed_ns as u128
            }
        };
        self.next = Monotonic(self.start.0.saturating_add(u64::try_from(since_start_ns).unwrap_or(u64::MAX)));
        Some(due)
    }
}

/// The order in which requests go round among connections: in turn, or drawn by weight. Weights of zero get nothing.
pub fn deck(weights: &[f64], rng: &mut Rng) -> Vec<u32> {
    /// Long enough for weights of a per mille, short enough for the cache.
    const LENGTH: usize = 8192;
    let first = weights.first().copied().unwrap_or(0.0);
    if weights.iter().all(|weight| (weight - first).abs() <= first * 1e-9) {
        return (0..weights.len() as u32).collect();
    }
    let sums: Vec<f64> = weights
        .iter()
        .scan(0.0, |sum, weight| {
            *sum += weight;
            Some(*sum)
        })
        .collect();
    (0..LENGTH.max(4 * weights.len())).map(|_| draw(&sums, rng) as u32).collect()
}

/// Draws an index by cumulative weights, which must not be empty and must end above zero.
pub fn draw(sums: &[f64], rng: &mut Rng) -> usize {
    let total = *sums.last().expect("weights");
    let at = (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64 * total;
    sums.partition_point(|sum| *sum <= at).min(sums.len() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn all(schedule: &mut Schedule, now: Monotonic) -> Vec<u64> {
        std::iter::from_fn(|| schedule.take(now)).map(|due| due.0).collect()
    }

    #[test]
    fn a_uniform_rate_does_not_drift_however_it_is_asked() {
        // A rate whose gap is no whole number of nanoseconds, asked every 7 ms and once at the end: the same times.
        let start = Monotonic(1000);
        let mut often = Schedule::new(start, 30_000.0, Arrivals::Uniform, 1);
        let mut times = Vec::new();
        for step in 1..=500 {
            times.extend(all(&mut often, start + Duration::from_millis(7 * step)));
        }
        let mut once = Schedule::new(start, 30_000.0, Arrivals::Uniform, 1);
        assert_eq!(times, all(&mut once, start + Duration::from_millis(3500)));
        assert_eq!(times.len(), 30_000 * 35 / 10 + 1);
        assert_eq!(times[30_000], start.0 + 1_000_000_000);
        assert!(times.windows(2).all(|pair| (33_333..=33_334).contains(&(pair[1] - pair[0]))));
    }

    #[test]
    fn nothing_is_due_before_its_time() {
        let mut schedule = Schedule::new(Monotonic(500), 2.0, Arrivals::Uniform, 1);
        assert_eq!(schedule.take(Monotonic(499)), None);
        assert_eq!(schedule.take(Monotonic(500)), Some(Monotonic(500)));
        assert_eq!(schedule.take(Monotonic(500)), None);
        assert_eq!(schedule.next_due(), Monotonic(500_000_500));
    }

    #[test]
    fn poisson_arrivals_keep_the_rate_and_vary() {
        // Mean and variance of 100,000 exponential gaps: the standard deviation equals the mean.
        let mut schedule = Schedule::new(Monotonic(0), 10_000.0, Arrivals::Poisson, 7);
        let times = all(&mut schedule, Monotonic(10_000_000_000));
        assert!((99_000..101_000).contains(&times.len()), "{} requests in ten seconds", times.len());
        let gaps: Vec<f64> = times.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.02, "{} and {mean}", variance.sqrt());
    }

    #[test]
    fn a_deck_follows_its_weights() {
        let mut rng = Rng::new(3);
        assert_eq!(deck(&[2.0, 2.0, 2.0], &mut rng), [0, 1, 2]);
        let deck = deck(&[8.0, 0.0, 1.0, 1.0], &mut rng);
        let share = |index| deck.iter().filter(|drawn| **drawn == index).count() as f64 / deck.len() as f64;
        assert!((share(0) - 0.8).abs() < 0.03 && share(1) == 0.0 && (share(2) - 0.1).abs() < 0.03);
    }
}
