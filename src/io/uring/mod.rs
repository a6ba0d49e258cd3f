//! The ring: [`Io`](crate::io::Io) on io_uring, the only place that knows it.
//!
//! How it works
//! 1. An operation becomes a *slot* (`slots`), which owns its handles, buffers and progress. `ring` routes it to its
//!    file: `disk` and `names` (files), `sockets` (accept, connect, receive, send), `send_file` (splice over the
//!    pooled pipes of `pipes`). Operations of several steps are small state machines in their slot.
//! 2. Steps become entries of the submission queue (`queue`), what does not fit waits in order. One `io_uring_enter`
//!    per poll hands everything over and waits.
//! 3. A kernel completion finds its slot by its user data and either takes the next step or ends the operation.
//!
//! Invariants
//! - A slot lives until the kernel has completed every request of it, zero-copy notifications included; only then is
//!   its operation completed and are its buffers given back. `Ring`'s drop waits for the same.
//! - Nothing allocates per operation on the hot path (receive, send, read, write): slots, message headers and
//!   scratch space are reused.
//! - A sleeping shard is woken through an eventfd read that is armed on the ring; waking an awake one costs no
//!   system call.
//!
//! It must not know what the bytes mean.

pub mod capabilities;
mod delays;
mod disk;
pub mod lock;
mod names;
pub mod options;
mod pipes;
mod queue;
mod ring;
mod send_file;
pub mod setup;
mod slots;
mod sockets;
mod table;
mod wake;

#[cfg(test)]
mod tests;

pub use lock::{DataLock, LockError};
pub use options::{RingOptions, SubmissionPolling};
pub use ring::{Ring, RingCounters};
pub use setup::{RingError, RingReport};
