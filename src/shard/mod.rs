//! Shards: one thread, one ring, one event loop each; and the node that they make up.
//!
//! | file | its one job |
//! |---|---|
//! | [`event_loop`] | one shard: turns, mail, phases |
//! | [`controller_host`] | the pure controller's effects, carried out on shard 0 |
//! | [`metadata_log`] | the controller's records on disk |
//! | [`clean_stop`] | what a clean stop leaves for the next start |
//! | [`mailbox`] | messages between shards |
//! | [`node`] | threads, start and stop of all shards |
//! | `simulated` | a node on the simulated world, for tests and simulations |
//! | [`properties`] | what a data directory says about itself |
//! | [`threads`] | pinning |
//! | [`stall`] | turns that take too long |
//!
//! What a request means is unknown here.

pub mod clean_stop;
pub mod controller_host;
pub mod event_loop;
pub mod mailbox;
pub mod metadata_log;
pub mod node;
pub mod properties;
#[cfg(any(test, feature = "simulate"))]
pub(crate) mod simulated;
pub mod stall;
pub mod threads;

#[cfg(test)]
mod tests;
