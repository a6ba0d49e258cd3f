//! Classic consumer groups: who is a member, and how a group comes to an assignment.
//!
//! | file | its one job |
//! |---|---|
//! | [`groups`] | the groups of one coordinator, their deadlines and bounds: the face |
//! | `classic` | one group: its state and what changes it |
//! | `join`, `rebalance`, `sync`, `leave` | the events of a group |
//! | `migrate` | groups that go to the consumer protocol and come back |
//! | [`member`] | one member |
//! | [`event`] | what comes in and what goes out |
//! | [`snapshot`] | a group as it is kept |
//! | `subscription` | which topics a consumer's metadata names |
//!
//! A group is a state machine, (state, event, now) -> effects, that behaves as Kafka's classic groups do; metadata and
//! assignments are opaque, so eager and cooperative protocols are the same to it.
//! ```text
//! Empty -> PreparingRebalance -> CompletingRebalance -> Stable
//!   ^              |  ^                  |                |
//!   +--------------+  +------------------+----------------+        Dead: its deletion is being written
//! ```
//! Who waits is a ticket `T` of the caller's, given back with the answer.
//!
//! Invariants
//! - Every ticket is given back exactly once.
//! - A generation has one leader, which is a member; all members support the protocol that was chosen.
//! - An assignment is given out only once it is durable.
//! - A heartbeat neither allocates nor touches any member but its own.
//!
//! It must not know records, connections or clocks.

pub mod classic;
pub mod event;
pub mod groups;
mod join;
mod leave;
pub mod member;
mod migrate;
mod rebalance;
pub mod snapshot;
mod subscription;
mod sync;
#[cfg(test)]
mod tests;

pub use event::{Effect, GroupError};
pub use groups::Groups;
