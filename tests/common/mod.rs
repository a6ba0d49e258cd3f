//! What the end-to-end tests share: the real binary as a child process, a real librdkafka, and requests by hand.
//!
//! [`broker`] starts, kills and stops `ottla serve` and reads its log; [`clients`] wraps `rdkafka`; [`requests`] sends
//! single requests of chosen versions, for what librdkafka would never send, and [`groups`] those of members of groups;
//! [`members`] are such members by librdkafka.
//! Every wait has a bound, and nothing is synchronised by sleeping: tests wait for what the broker says or answers.

#![allow(dead_code, unreachable_pub)] // Each test binary uses its own part of this.

pub mod broker;
pub mod clients;
pub mod groups;
pub mod members;
pub mod requests;

use std::time::{Duration, Instant};

/// How long anything may take before a test fails: far more than it takes on a slow machine.
pub const WAIT_MAX: Duration = Duration::from_secs(60);

/// Asks again until the answer is there.
///
/// # Panics
/// If it is not there within [`WAIT_MAX`].
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {WAIT_MAX:?} for this: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
