//! Lines of the log that a client can cause: so many in a time, and then how many were left out.

use std::time::Duration;

use crate::base::time::Monotonic;

/// Lines within one period.
const LINE_COUNT_MAX: u32 = 200;
/// How long a period is.
const PERIOD: Duration = Duration::from_secs(10);

/// Says when a line of one kind may be written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Occasional {
    since: Monotonic,
    said_count: u32,
    unsaid_count: u64,
}

impl Occasional {
    /// `Some` if the line may be written: how many were left out before it.
    pub fn say(&mut self, now: Monotonic) -> Option<u64> {
        if now.since(self.since) >= PERIOD {
            (self.since, self.said_count) = (now, 0);
        }
        if self.said_count == LINE_COUNT_MAX {
            self.unsaid_count += 1;
            return None;
        }
        self.said_count += 1;
        Some(std::mem::take(&mut self.unsaid_count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_lines_at_once_are_some_and_a_count() {
        let mut said = Occasional::default();
        let at = |seconds: u64| Monotonic(0) + Duration::from_secs(seconds);
        let count = (0..1000).filter(|_| said.say(at(100)) == Some(0)).count();
        assert_eq!(count, LINE_COUNT_MAX as usize);
        assert_eq!(said.say(at(109)), None);
        assert_eq!(said.say(at(110)), Some(801));
        assert_eq!(said.say(at(110)), Some(0));
    }
}
