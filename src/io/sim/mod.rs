//! The simulated world: a disk, a network and a clock in memory, driven by one seed, behind the same
//! [`Io`](super::Io) as the ring.
//!
//! # Use
//! A [`World`] is one machine and its network. [`World::io`] gives each shard its [`SimIo`]; all of them, and the
//! test, run on one thread.
//!
//! *Blocking:* `poll` with a later deadline, or none, and `run` let the world go on until this io has something.
//! Time jumps from event to event; other ios' completions wait for their own polls.
//! ```ignore
//! let world = World::new(seed, WorldOptions::default());
//! world.create_dir_all("/data")?;
//! let mut io = world.io("shard 0", 64 * MIB);
//! let file = io.run(Op::Open { path: "/data/a".into(), options })?;
//! ```
//! *Stepped:* a driver of several shards polls each with a deadline in the past, until none is
//! [`is_ready`](SimIo::is_ready), then lets time pass.
//! ```ignore
//! while !done() && !world.is_power_cut() {
//!     for shard in &mut shards { shard.turn(); }                 // polls with a past deadline
//!     if shards.iter().any(|shard| shard.io().is_ready()) { continue; }
//!     match (world.next_event_at(), earliest_deadline(&shards)) { // whichever comes first
//!         (Some(event), Some(deadline)) => world.advance_to(event.min(deadline)),
//!         (Some(event), None) => world.advance_to(event),
//!         (None, Some(deadline)) => world.advance_to(deadline),
//!         (None, None) => panic!("deadlock"),
//!     }
//! }
//! ```
//! *Crash:* run once and count the writes; then once more for each write and each way to tear it.
//! ```ignore
//! world.cut_power_at_write(7, Tear::Blocks([0, 2].into()));
//! run(&world);                             // until world.is_power_cut()
//! let mut io = world.io("shard 0", budget); // turns the machine on again, with what the disk kept
//! ```
//!
//! # The parts
//! | file | role |
//! |---|---|
//! | [`world`] | the face: time, power, faults, looking |
//! | [`shard_io`] | `SimIo` |
//! | [`client`] | a synchronous client |
//! | [`options`] | latencies, sizes, what is lost |
//! | [`faults`] | rules for faults |
//! | [`record`] | the record of writes, cutting the power at one |
//! | `state` | tables, handing over, events, ends of processes |
//! | `files`, `sockets` | what operations do |
//! | `disk`, `contents` | names, bytes, and what of them is durable |
//! | `network` | listeners and connections |
//! | `events` | virtual time, order, the hash of the trace |
//!
//! # Invariants
//! - Every latency, order and loss comes from the seed; nothing reads a clock. (One exception: where nothing is to
//!   come, a poll without deadline waits some real seconds for another thread's wake-up before it calls it a
//!   deadlock.)
//! - What a sync or a synced write completed for is never lost; a power cut touches nothing else either than what
//!   was not durable.
//! - An operation owns its buffers until it completes or its process is dead and it has happened or not.
//!
//! It must not know anything above [`io`](super).

pub mod client;
mod contents;
mod disk;
mod events;
pub mod faults;
mod files;
mod network;
pub mod options;
pub mod record;
pub mod shard_io;
mod sockets;
mod state;
pub mod world;

pub use client::SimClient;
pub use contents::Tear;
pub use faults::{Fault, OpKind, Rule};
pub use options::{Latency, Loss, WorldOptions};
pub use record::WriteRecord;
pub use shard_io::SimIo;
pub use world::World;

#[cfg(test)]
mod tests;
