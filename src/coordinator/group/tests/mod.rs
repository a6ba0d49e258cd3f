//! Facts about groups.
//!
//! [`world`] holds the groups of a coordinator with a log that is a list; tickets are numbers.

mod join;
mod life;
mod limits;
mod model;
mod rebalance;
mod statics;
mod sync;
mod world;
