//! The ground floor: units, time, seeded random numbers, bounded queues, `invariant!`; for simulations
//! also what they have been through and which rules they break.
//!
//! It must not know Kafka, files or sockets.

pub mod coverage;
mod invariant;
pub mod mutant;
pub mod queue;
pub mod rng;
pub mod time;
pub mod units;
