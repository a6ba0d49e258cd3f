//! Virtual time, what will happen when, and the hash of what has happened.
//!
//! Time only moves when the next event is taken or someone asks for a later time: nothing here reads a clock. Events
//! of one time happen in the order in which they were scheduled.
//!
//! It must not know what an event does.

use std::collections::{BTreeMap, VecDeque};

use crate::base::time::{Monotonic, Now, Timestamp};

/// An operation under way, never used twice.
pub(super) type OpId = u64;
/// A connection, never used twice.
pub(super) type ConnectionId = u64;

/// Something that happens at a time.
#[derive(Debug)]
pub(super) enum Event {
    /// A disk operation has run its time.
    DiskDone(OpId),
    /// A network operation fails by an injected fault.
    Fail { op: OpId, errno: i32 },
    /// One side may have something to send and room for it.
    Pump { connection: ConnectionId, side: usize },
    /// One side may have something to receive.
    Receive { connection: ConnectionId, side: usize },
    /// Bytes reach a side.
    Bytes { connection: ConnectionId, to: usize, bytes: Vec<u8> },
    /// The other side's end of stream reaches a side.
    End { connection: ConnectionId, to: usize },
    /// A reset reaches a side.
    Reset { connection: ConnectionId, to: usize },
    /// A connection request reaches its listener; without an operation it is already established.
    Connect { op: OpId },
    /// A synchronous client's connection reaches its listener.
    Arrive { listener: u32, connection: ConnectionId },
    /// A `SendFile` has waited for room as long as it may.
    SendFileBound(OpId),
}

/// The clock and the queue of events.
pub(super) struct Events {
    now_ns: u64,
    wall_start_ms: i64,
    start_ns: u64,
    next_sequence: u64,
    queue: BTreeMap<(u64, u64), Event>,
    hash: u64,
    lines: VecDeque<String>,
    line_count_max: usize,
}

impl Events {
    /// A clock that starts at `start_ns` and, for people, at `wall_start_ms`; the last `line_count_max` facts are kept
    /// for people as well.
    pub(super) fn new(start_ns: u64, wall_start_ms: i64, line_count_max: usize) -> Events {
        Events {
            now_ns: start_ns,
            wall_start_ms,
            start_ns,
            next_sequence: 0,
            queue: BTreeMap::new(),
            hash: 0x9e37_79b9_7f4a_7c15,
            lines: VecDeque::new(),
            line_count_max,
        }
    }

    pub(super) fn now_ns(&self) -> u64 {
        self.now_ns
    }

    pub(super) fn now(&self) -> Now {
        let passed_ms = ((self.now_ns - self.start_ns) / 1_000_000) as i64;
        Now { monotonic: Monotonic(self.now_ns), wall: Timestamp(self.wall_start_ms + passed_ms) }
    }

    /// Moves the clock for people, and only that one.
    pub(super) fn jump_wall(&mut self, by_ms: i64) {
        self.wall_start_ms += by_ms;
    }

    /// Lets `event` happen `after_ns` from now.
    pub(super) fn schedule(&mut self, after_ns: u64, event: Event) {
        self.schedule_at(self.now_ns.saturating_add(after_ns), event);
    }

    /// Lets `event` happen at `at_ns`, which is not before now.
    pub(super) fn schedule_at(&mut self, at_ns: u64, event: Event) {
        debug_assert!(at_ns >= self.now_ns);
        self.queue.insert((at_ns, self.next_sequence), event);
        self.next_sequence += 1;
    }

    /// When the next event happens.
    pub(super) fn next_at_ns(&self) -> Option<u64> {
        self.queue.first_key_value().map(|(key, _)| key.0)
    }

    /// Takes the next event if it is not later than `limit_ns`, and moves the clock to it.
    pub(super) fn take(&mut self, limit_ns: u64) -> Option<Event> {
        let at_ns = self.next_at_ns().filter(|&at_ns| at_ns <= limit_ns)?;
        let (_, event) = self.queue.pop_first()?;
        self.now_ns = self.now_ns.max(at_ns);
        Some(event)
    }

    /// Moves the clock to `at_ns` unless it is there already. Events before it must have been taken.
    pub(super) fn advance_to(&mut self, at_ns: u64) {
        self.now_ns = self.now_ns.max(at_ns);
    }

    /// Drops the events that `drop_it` names.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&Event) -> bool) {
        self.queue.retain(|_, event| keep(event));
    }

    /// Adds a fact to the trace.
    pub(super) fn note(&mut self, what: &str, a: u64, b: u64) {
        let mut hash = mix(self.hash, self.now_ns);
        hash = mix(hash, hash_bytes(what.as_bytes()));
        hash = mix(hash, a);
        self.hash = mix(hash, b);
        if self.line_count_max > 0 {
            if self.lines.len() == self.line_count_max {
                self.lines.pop_front();
            }
            self.lines.push_back(format!("{:>16} {what} {a:#x} {b:#x}", self.now_ns));
        }
    }

    /// The last facts, oldest first.
    pub(super) fn lines(&self) -> impl Iterator<Item = &String> {
        self.lines.iter()
    }

    /// The hash of all facts so far.
    pub(super) fn trace_hash(&self) -> u64 {
        self.hash
    }
}

fn mix(hash: u64, value: u64) -> u64 {
    (hash.rotate_left(5) ^ value).wrapping_mul(0x517c_c1b7_2722_0a95)
}

/// A hash for comparing runs and for seeing whether bytes changed.
pub(super) fn hash_bytes(bytes: &[u8]) -> u64 {
    let mut hash = mix(0, bytes.len() as u64);
    let mut words = bytes.chunks_exact(8);
    for word in &mut words {
        hash = mix(hash, u64::from_le_bytes(word.try_into().expect("eight bytes")));
    }
    for &byte in words.remainder() {
        hash = mix(hash, u64::from(byte));
    }
    hash
}
