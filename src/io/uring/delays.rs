//! What is to happen one fixed delay later: the bound of a wait for a slow receiver, the pause of an accept that
//! failed. One delay for all makes the queue sorted by itself.

use std::collections::VecDeque;
use std::time::Duration;

use crate::base::time::Monotonic;

/// How long a file send waits for room in its socket, and a failed accept before it is tried again. Long enough not
/// to be met by a receiver that is merely busy, short enough for a stopped one to be reported soon.
pub(super) const DELAY: Duration = Duration::from_millis(100);

/// Slots that want to hear at a time.
#[derive(Default)]
pub(super) struct Delays(VecDeque<Delay>);

#[derive(Clone, Copy)]
pub(super) struct Delay {
    at: Monotonic,
    /// The slot and its generation: it may have been reused since.
    pub(super) index: u32,
    pub(super) generation: u32,
}

impl Delays {
    pub(super) fn add(&mut self, now: Monotonic, index: u32, generation: u32) {
        self.0.push_back(Delay { at: now + DELAY, index, generation });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// When the next one is due.
    pub(super) fn next(&self) -> Option<Monotonic> {
        self.0.front().map(|delay| delay.at)
    }

    /// Takes the next one if it is due.
    pub(super) fn pop_due(&mut self, now: Monotonic) -> Option<Delay> {
        if self.next()? > now {
            return None;
        }
        self.0.pop_front()
    }

    /// Takes away the next ones that `is_stale` no longer wants, so that nobody wakes for them.
    pub(super) fn skip(&mut self, is_stale: impl Fn(&Delay) -> bool) {
        while self.0.front().is_some_and(&is_stale) {
            self.0.pop_front();
        }
    }
}
