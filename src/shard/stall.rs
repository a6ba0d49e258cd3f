//! The stall watch: a turn of the event loop above a threshold is logged with what ran.
//!
//! A shard does everything in turns; one that takes long delays every client of the shard. The watch costs one more
//! clock reading a turn and remembers the step that took longest only when it is asked to.

use std::time::Duration;

use crate::base::time::Monotonic;

/// Watches the turns of one shard.
#[derive(Debug)]
pub struct StallWatch {
    threshold: Duration,
    turn_started: Monotonic,
    completion_count: usize,
}

/// A turn that took too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stall {
    /// How long it took.
    pub took: Duration,
    /// How many completions it handled.
    pub completion_count: usize,
}

impl StallWatch {
    /// Turns above `threshold` are stalls.
    pub fn new(threshold: Duration) -> StallWatch {
        StallWatch { threshold, turn_started: Monotonic(0), completion_count: 0 }
    }

    /// A turn begins with so many completions to handle.
    pub fn begin(&mut self, now: Monotonic, completion_count: usize) {
        self.turn_started = now;
        self.completion_count = completion_count;
    }

    /// The turn ends.
    pub fn end(&mut self, now: Monotonic) -> Option<Stall> {
        let took = now.since(self.turn_started);
        (took > self.threshold).then_some(Stall { took, completion_count: self.completion_count })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_turns_above_the_threshold_are_stalls() {
        let mut watch = StallWatch::new(Duration::from_millis(10));
        watch.begin(Monotonic(1_000), 3);
        assert_eq!(watch.end(Monotonic(10_001_000)), None);
        let stall = watch.end(Monotonic(10_001_001)).expect("above");
        assert_eq!((stall.took.as_nanos(), stall.completion_count), (10_000_001, 3));
    }
}
