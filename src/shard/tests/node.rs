//! A node on the simulated world, as the tests know it.

pub use crate::shard::simulated::{DATA, SimNode as TestNode, Spec, Start};
