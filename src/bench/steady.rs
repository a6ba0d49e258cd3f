//! Is the rate steady yet? Looks at the rates of the last intervals.
//!
//! Steady means: over a window of intervals each rate is near the mean, and the means of the window's halves are
//! nearer still, so that a slow rise or fall is not taken for rest. Pure.

use std::collections::VecDeque;

/// Intervals that are looked at together.
pub const WINDOW_COUNT: usize = 6;

/// The last rates and what they may differ by.
#[derive(Clone, Debug)]
pub struct Steady {
    tolerance: f64,
    rates: VecDeque<f64>,
}

impl Steady {
    /// `tolerance` is the share of the mean that a single interval may be off; halves may differ by half of that.
    pub fn new(tolerance: f64) -> Steady {
        Steady { tolerance, rates: VecDeque::with_capacity(WINDOW_COUNT) }
    }

    /// Adds the rate of one more interval; true if the rate is steady now.
    pub fn push(&mut self, rate: f64) -> bool {
        if self.rates.len() == WINDOW_COUNT {
            self.rates.pop_front();
        }
        self.rates.push_back(rate);
        if self.rates.len() < WINDOW_COUNT {
            return false;
        }
        let mean = |rates: &mut dyn Iterator<Item = &f64>| {
            let (count, sum) = rates.fold((0, 0.0), |(count, sum), rate| (count + 1, sum + rate));
            sum / f64::from(count)
        };
        let whole = mean(&mut self.rates.iter());
        let older = mean(&mut self.rates.iter().take(WINDOW_COUNT / 2));
        let newer = mean(&mut self.rates.iter().skip(WINDOW_COUNT / 2));
        whole > 0.0
            && self.rates.iter().all(|rate| (rate - whole).abs() <= self.tolerance * whole)
            && (newer - older).abs() <= self.tolerance / 2.0 * whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steady_after(rates: impl IntoIterator<Item = f64>) -> Option<usize> {
        let mut steady = Steady::new(0.05);
        rates.into_iter().position(|rate| steady.push(rate))
    }

    #[test]
    fn a_rate_is_steady_once_a_window_of_it_was_seen() {
        assert_eq!(steady_after([100.0; 10]), Some(WINDOW_COUNT - 1));
        assert_eq!(steady_after([100.0, 103.0, 98.0, 101.0, 99.0, 102.0]), Some(5));
        // A slow start is forgotten when the window has passed it.
        assert_eq!(steady_after([10.0, 50.0].into_iter().chain([100.0; 10])), Some(WINDOW_COUNT + 1));
    }

    #[test]
    fn a_rise_a_swing_and_silence_are_not_steady() {
        assert_eq!(steady_after((0..40).map(|step| 1.017f64.powi(step))), None);
        assert_eq!(steady_after((0..40).map(|step| if step % 2 == 0 { 100.0 } else { 80.0 })), None);
        assert_eq!(steady_after([0.0; 20]), None);
    }
}
