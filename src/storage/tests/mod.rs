//! The log on the simulated world.

mod bench;
mod compaction;
mod face;
mod model;
mod mutants;
mod transactions;
