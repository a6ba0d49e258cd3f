//! The world as a shard sees it: time, disk and network through one trait.
//!
//! [`Io`] has two implementations: the ring ([`uring`], the only place that knows io_uring) and the simulated world
//! ([`sim`], memory disk and sockets driven by a seed). Everything above runs unchanged on both, so a test can cut
//! the power at any write and replay it. A third (epoll and pwrite, for containers that forbid io_uring) fits the
//! same seam.
//!
//! How it works
//! 1. The shard submits operations with a [`Token`] of its choice; nothing happens before the next `poll`.
//! 2. [`Io::poll`] hands over what is queued, waits if it may, and appends [`Completion`]s.
//! 3. The shard finds its business by the token.
//!
//! Invariants
//! - An operation owns its file, socket and buffers from `submit` until its last completion, whatever happens to
//!   the one who asked: handles and slices are counted references, and the implementation keeps the operation in a
//!   slot until the kernel is done with it, notification included.
//! - Every submitted operation completes exactly once (a multishot accept: any number of times, the last without
//!   [`Completion::more`]), cancelled or not. There is no order between completions.
//! - Single-threaded: handles and buffers are `Rc`s and stay on their shard. Only [`std::task::Waker`] crosses.
//!
//! It must not know offsets or APIs.

pub mod buffer;
#[cfg(test)]
pub(crate) mod conformance;
pub mod gather;
pub mod handle;
pub mod interface;
pub mod memory;
pub mod op;
pub mod sim;
pub mod uring;

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use crate::base::time::{Monotonic, Now};

pub use buffer::{AppendBuffer, Buffer, Pool, PoolOptions, Slice};
pub use gather::{Gather, Piece};
pub use handle::{File, Listener, Socket};
pub use op::{Completion, DirEntry, Op, OpenOptions, Outcome, Token};

/// How much file transfers may ask of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransferLimit {
    /// How many move bytes at a time; the others wait in the order of asking. More than the implementation has pipes
    /// for, or 0, is brought into its bounds.
    pub count_max: usize,
    /// What one reads at a time, and then the kernel reads nothing ahead; `None`: it does as it likes.
    pub size_bytes_max: Option<usize>,
}

/// A file system's room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// All of it.
    pub total_bytes: u64,
    /// What may still be written.
    pub usable_bytes: u64,
}

/// Time, disk and network of one shard.
pub trait Io {
    /// Both clocks. Called once per loop turn; everyone else is passed the result.
    fn now(&mut self) -> Now;

    /// Queues `op`; its completion will carry `token`. Never blocks and never fails: what goes wrong is in the
    /// completion. Operations are started in order of submission and finish in any.
    fn submit(&mut self, token: Token, op: Op);

    /// Asks for the operations with `token` to end early. Each still completes once, with `ECANCELED` if it had not
    /// happened (a partly sent `Send` completes with what was sent).
    fn cancel(&mut self, token: Token);

    /// Hands over what was submitted, then waits until a completion is there, [`waker`](Self::waker) was called or
    /// `until` has come; `until` in the past means do not wait, `None` means no deadline. Appends to `completions`.
    fn poll(&mut self, until: Option<Monotonic>, completions: &mut Vec<Completion>);

    /// Ends a `poll` from any thread, or makes the next one not wait.
    fn waker(&self) -> std::task::Waker;

    /// Opens a listening TCP socket. At start-up only: it may block. Port 0 takes a free one.
    fn listen(&mut self, address: SocketAddr) -> io::Result<(Listener, SocketAddr)>;

    /// Ends both directions of a connection at once, so that operations waiting on it complete.
    fn shutdown(&mut self, socket: &Socket);

    /// How large the file system that holds `path` is, and how much of it is left. At once: it is in memory.
    fn space(&mut self, path: &Path) -> io::Result<Space>;

    /// How much file transfers ([`Op::SendFile`]) may ask of the disk from now on.
    fn limit_transfers(&mut self, _limit: TransferLimit) {}

    /// File transfers that move bytes now.
    fn transfer_count(&self) -> usize {
        0
    }

    /// The shard's budgeted buffers.
    fn pool(&self) -> &Pool;

    /// Submits one operation and waits for it. For start-up, recovery and tests, where nothing else is under way.
    ///
    /// # Panics
    /// If a completion of another operation arrives.
    fn run(&mut self, op: Op) -> io::Result<Outcome> {
        const TOKEN: Token = Token(u64::MAX);
        let mut completions = Vec::new();
        self.submit(TOKEN, op);
        loop {
            self.poll(None, &mut completions);
            if let Some(completion) = completions.pop() {
                assert!(completion.token == TOKEN, "run() while {:?} is under way", completion.token);
                return completion.result;
            }
        }
    }
}
