//! The load generator: what a broker does under load, and what it costs.
//!
//! How it works
//! 1. A [`Workload`] says what is sent. Its batches and request frames are made once; correlation ids repeat with
//!    the frames, so that nothing is patched while it runs and the client stays cheaper than the broker.
//! 2. [`closed_loop`] keeps so many requests in flight on each connection, from one thread on plain sockets.
//! 3. A [`Meter`](meter::Meter) reads the CPU clocks of the broker and of the machine around the measured time.
//! 4. A [`Report`] is what came of it, for people and as JSON.
//!
//! Invariants
//! - Every answer is looked at: an error code, a wrong correlation id or a closed connection ends the run as an
//!   error, never as a number.
//! - Nothing is counted before the warm-up is over or after the measured time.
//!
//! It must not know the command line, nor shards, rings or files.

pub mod closed_loop;
pub mod meter;
pub mod report;
pub mod workload;

pub use report::Report;
pub use workload::Workload;
