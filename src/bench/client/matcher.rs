//! From a batch's sending to its arrival at a consumer, by the offset that it got.
//!
//! The broker tells a batch's offset to its producer, and to a consumer with the batch; whichever comes first waits
//! here for the other. Nothing is put into the records, so any codec and any broker will do.
//!
//! Invariant: at most [`HALF_COUNT_MAX`] batches wait.

use std::time::Duration;

use anyhow::ensure;
use rustc_hash::FxHashMap;

use crate::base::time::Monotonic;

/// Batches that may wait for their other half: what a consumer that has fallen behind lets pile up. 40 bytes each.
const HALF_COUNT_MAX: usize = 8 << 20;
/// A batch that a consumer saw and no producer here has sent within this time is somebody else's.
const STRANGER_AFTER: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug)]
enum Half {
    Sent(Monotonic),
    Seen(Monotonic),
}

/// Batches of which one side is known.
#[derive(Debug, Default)]
pub struct Matcher {
    halves: FxHashMap<(u32, i64), Half>,
    sent_count: usize,
}

impl Matcher {
    /// The broker told a producer the offset of a batch that was to be sent at `since`. Returns when a consumer saw
    /// it, if that was before.
    pub fn sent(&mut self, place: u32, base_offset: i64, since: Monotonic) -> anyhow::Result<Option<Monotonic>> {
        if let Some(Half::Seen(seen)) = self.halves.remove(&(place, base_offset)) {
            return Ok(Some(seen));
        }
        ensure!(self.halves.len() < HALF_COUNT_MAX, "the consumer is {HALF_COUNT_MAX} batches behind: lower the rate");
        self.halves.insert((place, base_offset), Half::Sent(since));
        self.sent_count += 1;
        Ok(None)
    }

    /// A consumer saw a batch. Returns when it was to be sent, if its producer knows already.
    pub fn seen(&mut self, place: u32, base_offset: i64, now: Monotonic) -> Option<Monotonic> {
        match self.halves.remove(&(place, base_offset)) {
            Some(Half::Sent(since)) => {
                self.sent_count -= 1;
                Some(since)
            }
            Some(Half::Seen(_)) | None => {
                if self.halves.len() < HALF_COUNT_MAX {
                    self.halves.insert((place, base_offset), Half::Seen(now));
                }
                None
            }
        }
    }

    /// Batches that were sent and not seen yet.
    pub fn unseen_count(&self) -> usize {
        self.sent_count
    }

    /// Forgets what others have sent.
    pub fn forget_strangers(&mut self, now: Monotonic) {
        self.halves.retain(|_, half| match half {
            Half::Sent(_) => true,
            Half::Seen(seen) => now.since(*seen) < STRANGER_AFTER,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_meet_in_either_order() {
        let mut matcher = Matcher::default();
        assert_eq!(matcher.sent(1, 10, Monotonic(100)).unwrap(), None);
        assert_eq!(matcher.unseen_count(), 1);
        assert_eq!(matcher.seen(1, 10, Monotonic(150)), Some(Monotonic(100)));
        assert_eq!(matcher.seen(2, 10, Monotonic(160)), None);
        assert_eq!(matcher.sent(2, 10, Monotonic(110)).unwrap(), Some(Monotonic(160)));
        assert_eq!((matcher.unseen_count(), matcher.halves.len()), (0, 0));
    }

    #[test]
    fn batches_of_others_are_forgotten_and_own_ones_are_not() {
        let mut matcher = Matcher::default();
        matcher.seen(1, 10, Monotonic(0));
        matcher.sent(1, 11, Monotonic(0)).unwrap();
        matcher.forget_strangers(Monotonic(0) + STRANGER_AFTER);
        assert_eq!((matcher.unseen_count(), matcher.halves.len()), (1, 1));
    }
}
