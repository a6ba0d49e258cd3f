//! The log on the simulated world.

mod bench;
mod face;
mod model;
mod mutants;
