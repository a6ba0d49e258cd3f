//! The load generator: what a broker does under load, and what it costs. It speaks to any Kafka broker.
//!
//! How it works
//! 1. A [`Workload`] says what is sent, a [`Route`](route::Route) where to. Batches and request frames are made once
//!    ([`cycle`]); nothing is encoded while it runs, so that the client stays far cheaper than the broker.
//! 2. The [`client`] keeps requests in flight in a closed loop, or sends them by a [`schedule`] in an open one, and
//!    consumes; one thread on one ring, through [`Io`](crate::io::Io).
//! 3. A [`Meter`](meter::Meter) reads the CPU clocks of the broker and of the machine around the measured time, a
//!    [`Recorder`](recorder::Recorder) keeps latencies.
//! 4. A [`Report`] is what came of it, for people, as JSON and as files; [`plot`] makes a page of several.
//! 5. A [`floor`] is what nothing can beat on this host; reports give their figures as ratios to it. Its server is the
//!    [`sink`], which also shows what the client itself costs.
//!
//! Invariants
//! - Every answer is looked at: an error code, a wrong correlation id or a closed connection ends the run as an
//!   error, never as a number.
//! - Nothing is counted before the warm-up is over or after the measured time.
//!
//! It must not know the command line, nor shards or storage.

pub mod answers;
pub mod client;
pub mod cycle;
pub mod fetch_frame;
pub mod floor;
pub mod keys;
pub mod meter;
pub mod plot;
pub mod recorder;
pub mod report;
pub mod results;
pub mod route;
pub mod schedule;
pub mod sink;
pub mod steady;
pub mod workload;

pub use report::Report;
pub use workload::Workload;
