//! The ground floor: units, time, seeded random numbers, bounded queues and `invariant!`.
//!
//! It must not know Kafka, files or sockets.

mod invariant;
pub mod queue;
pub mod rng;
pub mod time;
pub mod units;
