//! Deadlines of one shard: what is to be looked at again, and when.
//!
//! A deadline is not withdrawn when its cause is gone; whoever it names checks whether it still matters. When their
//! number has doubled, those that no longer matter are dropped ([`Deadlines::is_grown`]): it is bounded by what waits
//! and not by how often a client begins and ends to wait.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::base::time::Monotonic;
use crate::net::ConnectionId;

/// What a deadline is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Deadline {
    /// A fetch has waited for its `max_wait_ms`.
    Fetch {
        /// Its task.
        index: u32,
        /// The task's generation.
        generation: u16,
    },
    /// A held request is to be tried again.
    Held(ConnectionId),
    /// A coordinator goes on.
    Coordinator,
    /// A DeleteRecords of this number has waited for its timeout.
    Deletion(u64),
    /// Accepting has failed and is tried again.
    Accept,
    /// A shard that stops has waited long enough for its clients.
    Drain,
}

/// A queue of deadlines, earliest first; equal ones in order of entry, so that runs replay.
#[derive(Debug, Default)]
pub struct Deadlines {
    heap: BinaryHeap<Reverse<(Monotonic, u64, Deadline)>>,
    entered: u64,
    kept_count: usize,
}

/// Below this many it is not worth looking for some that no longer matter.
const COUNT_MIN: usize = 4096;

impl Deadlines {
    /// Enters a deadline.
    pub fn push(&mut self, at: Monotonic, deadline: Deadline) {
        self.entered += 1;
        self.heap.push(Reverse((at, self.entered, deadline)));
    }

    /// True if there may be as many that no longer matter as there are others.
    pub fn is_grown(&self) -> bool {
        self.heap.len() > COUNT_MIN.max(2 * self.kept_count)
    }

    /// Drops those that no longer matter.
    pub fn retain(&mut self, matters: impl Fn(Deadline) -> bool) {
        self.heap.retain(|Reverse((.., deadline))| matters(*deadline));
        self.kept_count = self.heap.len();
        self.heap.shrink_to(2 * self.kept_count);
    }

    /// When the next one is due.
    pub fn next(&self) -> Option<Monotonic> {
        self.heap.peek().map(|Reverse((at, ..))| *at)
    }

    /// Takes one that is due.
    pub fn pop_due(&mut self, now: Monotonic) -> Option<Deadline> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse((.., deadline))| deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_that_no_longer_matter_do_not_pile_up() {
        // A hundred thousand waits, of which the first ten last.
        let mut deadlines = Deadlines::default();
        for index in 0..100_000 {
            deadlines.push(Monotonic(u64::from(index)), Deadline::Fetch { index, generation: 0 });
            if deadlines.is_grown() {
                deadlines.retain(|deadline| matches!(deadline, Deadline::Fetch { index: 0..10, .. }));
            }
            assert!(deadlines.heap.len() <= COUNT_MIN + 10);
        }
        let first = Deadline::Fetch { index: 0, generation: 0 };
        assert_eq!(deadlines.pop_due(Monotonic(0)), Some(first));
        assert_eq!(deadlines.next(), Some(Monotonic(1)));
    }

    #[test]
    fn deadlines_come_due_in_order_of_time_then_of_entry() {
        let mut deadlines = Deadlines::default();
        let fetch = |index| Deadline::Fetch { index, generation: 0 };
        for (at, index) in [(30, 0), (10, 1), (20, 2), (10, 3)] {
            deadlines.push(Monotonic(at), fetch(index));
        }
        assert_eq!(deadlines.next(), Some(Monotonic(10)));
        let mut due = Vec::new();
        while let Some(deadline) = deadlines.pop_due(Monotonic(20)) {
            due.push(deadline);
        }
        assert_eq!(due, [fetch(1), fetch(3), fetch(2)]);
        assert_eq!(deadlines.next(), Some(Monotonic(30)));
    }
}
