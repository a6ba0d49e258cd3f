//! One shard's `Io` on a world.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};
use std::time::Duration;

use super::world::World;
use crate::base::time::{Monotonic, Now};
use crate::io::{Completion, Io, Listener, Op, Outcome, Pool, Socket, Space, Token};

/// Polls of a dead io before it is taken for a loop that never ends.
const DEAD_POLL_COUNT_MAX: u32 = 100_000;
/// How long, in real milliseconds, a poll without deadline in a world where nothing is to come waits for a wake-up
/// from another thread, before it is taken for a deadlock.
const WAKE_WAIT_MS_MAX: u32 = 3_000;

struct WakeFlag(AtomicBool);

impl Wake for WakeFlag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

enum Queued {
    Submit(Token, Op),
    Cancel(Token),
}

/// An [`Io`] made by [`World::io`]. Once its process is dead, `poll` returns at once with nothing, and `run` fails
/// with `ENODEV`.
pub struct SimIo {
    world: World,
    io: u32,
    pool: Pool,
    wake: Arc<WakeFlag>,
    queue: VecDeque<Queued>,
    dead_poll_count: u32,
}

impl SimIo {
    pub(super) fn new(world: World, io: u32, pool_budget_bytes: usize) -> SimIo {
        SimIo {
            world,
            io,
            pool: Pool::new(pool_budget_bytes),
            wake: Arc::new(WakeFlag(AtomicBool::new(false))),
            queue: VecDeque::new(),
            dead_poll_count: 0,
        }
    }

    /// The world it is in.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// False once its process was killed or lost its power.
    pub fn is_alive(&self) -> bool {
        self.world.inside().ios[self.io as usize].is_alive
    }

    /// True if the next poll has something to do (completions, a wake-up, operations or dropped handles to hand over):
    /// a driver of several shards must not let time pass before.
    pub fn is_ready(&self) -> bool {
        let inside = self.world.inside();
        let state = &inside.ios[self.io as usize];
        let has_work = !state.completions.is_empty() || !self.queue.is_empty() || !state.dropped.borrow().is_empty();
        state.is_alive && (has_work || self.wake.0.load(Ordering::Acquire))
    }

    /// Operations handed over that have not completed.
    pub fn under_way_count(&self) -> usize {
        self.world.inside().ops.values().filter(|op| op.io == self.io).count()
    }

    fn hand_over(&mut self) {
        let mut inside = self.world.inside();
        let poll_ns = inside.options.poll_ns;
        let now_ns = inside.events.now_ns() + poll_ns;
        inside.run_until(now_ns);
        if !inside.ios[self.io as usize].is_alive {
            return;
        }
        inside.close_dropped(self.io);
        for queued in self.queue.drain(..) {
            match queued {
                Queued::Submit(token, op) => inside.start(self.io, token, op),
                Queued::Cancel(token) => inside.cancel(self.io, token),
            }
        }
        // What an operation held last is closed with it.
        inside.close_dropped(self.io);
    }

    /// Appends what has completed; false if that is nothing.
    fn collect(&mut self, completions: &mut Vec<Completion>) -> bool {
        let mut inside = self.world.inside();
        let waiting = &mut inside.ios[self.io as usize].completions;
        let any = !waiting.is_empty();
        completions.extend(waiting.drain(..));
        any
    }

    /// Nothing will ever happen by itself: only another thread can end this.
    fn wait_for_wake(&self) {
        if Arc::strong_count(&self.wake) > 1 {
            for _ in 0..WAKE_WAIT_MS_MAX {
                if self.wake.0.swap(false, Ordering::AcqRel) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        let inside = self.world.inside();
        let name = &inside.ios[self.io as usize].name;
        let waiting: Vec<_> = inside.ops.values().filter(|op| op.io == self.io).map(|op| (op.token, &op.op)).collect();
        panic!("{name} (seed {}) waits for ever: nothing is to come, under way: {waiting:?}", self.world.seed());
    }
}

impl Io for SimIo {
    fn now(&mut self) -> Now {
        self.world.now()
    }

    fn submit(&mut self, token: Token, op: Op) {
        self.queue.push_back(Queued::Submit(token, op));
    }

    fn cancel(&mut self, token: Token) {
        self.queue.push_back(Queued::Cancel(token));
    }

    fn poll(&mut self, until: Option<Monotonic>, completions: &mut Vec<Completion>) {
        let woken = self.wake.0.swap(false, Ordering::AcqRel);
        self.hand_over();
        loop {
            if !self.is_alive() {
                self.queue.clear();
                self.dead_poll_count += 1;
                assert!(
                    self.dead_poll_count < DEAD_POLL_COUNT_MAX,
                    "a dead io is polled for ever (seed {}): its process was killed or lost its power",
                    self.world.seed(),
                );
                return;
            }
            if self.collect(completions) || woken {
                return;
            }
            let mut inside = self.world.inside();
            let limit_ns = until.map_or(u64::MAX, |until| until.0);
            if limit_ns <= inside.events.now_ns() {
                return;
            }
            if inside.step(limit_ns) {
                continue;
            }
            drop(inside);
            match until {
                Some(until) => self.world.advance_to(until),
                None => return self.wait_for_wake(),
            }
        }
    }

    fn waker(&self) -> Waker {
        Waker::from(self.wake.clone())
    }

    fn listen(&mut self, address: SocketAddr) -> io::Result<(Listener, SocketAddr)> {
        let mut inside = self.world.inside();
        if !inside.ios[self.io as usize].is_alive {
            return Err(io::Error::from_raw_os_error(libc::ENODEV));
        }
        inside.close_dropped(self.io);
        inside.listen(self.io, address)
    }

    fn shutdown(&mut self, socket: &Socket) {
        let mut inside = self.world.inside();
        if let Some(open) = inside.sockets.get(&socket.index()).copied().filter(|open| open.io == self.io) {
            inside.shutdown(open.connection, open.side);
        }
    }

    fn space(&mut self, _path: &Path) -> io::Result<Space> {
        Ok(self.world.inside().disk.space())
    }

    fn pool(&self) -> &Pool {
        &self.pool
    }

    fn run(&mut self, op: Op) -> io::Result<Outcome> {
        const TOKEN: Token = Token(u64::MAX);
        let mut completions = Vec::new();
        self.submit(TOKEN, op);
        while self.is_alive() {
            self.poll(None, &mut completions);
            if let Some(completion) = completions.pop() {
                assert!(completion.token == TOKEN, "run() while {:?} is under way", completion.token);
                return completion.result;
            }
        }
        Err(io::Error::from_raw_os_error(libc::ENODEV))
    }
}

impl Drop for SimIo {
    /// The process exits: as if killed, but alone.
    fn drop(&mut self) {
        let Some(mut inside) = self.world.try_inside() else { return };
        if inside.ios[self.io as usize].is_alive {
            let io = self.io;
            let left = inside.end_io(io, false);
            inside.orphan(left);
        }
    }
}
