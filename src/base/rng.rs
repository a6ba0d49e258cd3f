//! Random numbers from one seeded generator per shard, so that a run can be replayed from its seed.

use std::ops::RangeBounds;

/// A seeded generator. Not for secrets.
#[derive(Clone, Debug)]
pub struct Rng(fastrand::Rng);

impl Rng {
    /// A generator whose whole sequence follows from `seed`.
    pub fn new(seed: u64) -> Rng {
        Rng(fastrand::Rng::with_seed(seed))
    }

    /// A seed that differs from run to run, for production.
    pub fn seed_from_entropy() -> u64 {
        fastrand::Rng::new().u64(..)
    }

    /// An independent generator for a part of the run.
    pub fn fork(&mut self) -> Rng {
        Rng(self.0.fork())
    }

    /// A uniformly distributed 64-bit number.
    pub fn next_u64(&mut self) -> u64 {
        self.0.u64(..)
    }

    /// A uniformly distributed number within `range`, which must not be empty.
    pub fn in_range(&mut self, range: impl RangeBounds<u64>) -> u64 {
        self.0.u64(range)
    }

    /// True `numerator` times out of `denominator`.
    pub fn chance(&mut self, numerator: u64, denominator: u64) -> bool {
        self.0.u64(..denominator) < numerator
    }

    /// Fills `bytes` with random ones.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_sequence() {
        let (mut a, mut b, mut c) = (Rng::new(7), Rng::new(7), Rng::new(8));
        let draw = |r: &mut Rng| (0..32).map(|_| r.next_u64()).collect::<Vec<_>>();
        assert_eq!(draw(&mut a), draw(&mut b));
        assert_ne!(draw(&mut a), draw(&mut c));
    }
}
