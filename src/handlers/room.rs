//! Room for answers: what those of a shard hold together until their clients have taken them, and who waits for some.
//!
//! What they hold is memory of their own and the blocks of the pool that slices of theirs keep, each counted once.
//! One connection is bounded by itself; ten thousand that do not take their answers must not take what appends and
//! the answers of others need. As it fills:
//! 1. Up to half of it nobody notices.
//! 2. Then a connection is served when it has taken what it was sent, one request at a time, and a fetch returns a
//!    small part of what is left: a thousand such answers fit. Small pieces are copied, where to keep them would keep
//!    a block many times their size.
//! 3. When it is full, clients that have not taken anything for a while are closed, the slowest first, until a quarter
//!    is free. Meanwhile those who have taken what they were sent go on, by single batches, in a quarter more that is
//!    kept for them.
//! 4. When that is taken too, requests wait in the order of their coming, but for Produce, whose answers are small. A
//!    fetch that waited for long is answered without records.
//!
//! Invariant: who waits stands in the list once. Nothing waits for ever: memory is held by sends, which end, or by
//! answers behind a request that is not answered yet, and of these only fetches wait here, for [`FETCH_WAIT_MAX`].

use std::collections::VecDeque;
use std::time::Duration;

use super::broker::Broker;
use super::deadlines::Deadline;
use super::fetch_tasks::FetchTask;
use crate::base::time::Monotonic;
use crate::io::{Io, Slice};
use crate::model::limits::{ANSWER_COUNT_WHERE_SHORT, ANSWERS_POOL_SHARE};
use crate::net::{CloseReason, ConnectionId, Content};

/// How long a fetch waits for room before it is answered without records.
const FETCH_WAIT_MAX: Duration = Duration::from_secs(1);

/// How much more the answers may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// What is asked for.
    Plenty,
    /// So many bytes, and a first batch of any size.
    Little(usize),
    /// Nothing for now.
    None,
}

impl Room {
    /// The most that an answer may take; its first batch may be larger.
    pub fn size_bytes_max(self) -> usize {
        match self {
            Room::Plenty => usize::MAX,
            Room::Little(bytes) => bytes,
            Room::None => 0,
        }
    }

    /// How an answer refers to bytes in memory.
    pub fn content_of(self, slice: Slice) -> Content {
        match self {
            Room::Plenty => Content::Memory(slice.lend()),
            _ if slice.lending_bytes() > 2 * slice.len() => Content::Owned(slice.as_bytes().to_vec()),
            _ => Content::Memory(slice.lend()),
        }
    }
}

/// What is to become of a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FetchTurn {
    /// It reads.
    Read,
    /// It is answered without records.
    Empty,
    /// It waits for room.
    Wait,
}

/// What waits for room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiter {
    /// A connection whose next request is held back.
    Connection(ConnectionId),
    /// A fetch that would be answered.
    Fetch { index: u32, generation: u16 },
}

/// Who waits for room, in the order of coming.
#[derive(Debug)]
pub struct RoomQueue {
    waiters: VecDeque<Waiter>,
    size_bytes_max: u64,
}

impl RoomQueue {
    /// Answers out of a pool of so many bytes.
    pub fn new(pool_size_bytes: usize) -> RoomQueue {
        RoomQueue { waiters: VecDeque::new(), size_bytes_max: (pool_size_bytes / ANSWERS_POOL_SHARE) as u64 }
    }
}

fn room_of(held_bytes: u64, size_bytes_max: u64) -> Room {
    if held_bytes < size_bytes_max / 2 {
        Room::Plenty
    } else if held_bytes < size_bytes_max {
        Room::Little((size_bytes_max - held_bytes) as usize / ANSWER_COUNT_WHERE_SHORT)
    } else if held_bytes < size_bytes_max / 4 * 5 {
        Room::Little(0)
    } else {
        Room::None
    }
}

impl<I: Io> Broker<I> {
    /// Bytes that answers hold.
    pub fn answer_bytes(&self) -> u64 {
        self.admission.answer_bytes() + self.io.pool().lent_bytes() as u64
    }

    /// The most that they may hold, what is kept for clients that take theirs included.
    #[cfg(any(test, feature = "simulate"))]
    pub(super) fn room_size_bytes_max(&self) -> u64 {
        self.room_queue.size_bytes_max / 4 * 5
    }

    /// How much more they may hold.
    pub(super) fn room(&self) -> Room {
        room_of(self.answer_bytes(), self.room_queue.size_bytes_max)
    }

    /// The connection's next request waits for room.
    pub(super) fn wait_for_room(&mut self, id: ConnectionId) {
        if !std::mem::replace(&mut self.parked.entry(id).or_default().waits_for_room, true) {
            self.enter(Waiter::Connection(id));
        }
    }

    /// What is to become of a fetch that has not read anything yet.
    pub(super) fn fetch_turn(&mut self, task: &mut FetchTask, index: u32, generation: u16) -> FetchTurn {
        let room = self.room();
        let connection = self.connections.find(task.ticket.connection);
        if connection.is_some_and(|connection| connection.must_take_first(room != Room::Plenty)) {
            return FetchTurn::Empty;
        }
        if room != Room::None {
            return FetchTurn::Read;
        }
        let now = self.now.monotonic;
        match task.room_until {
            Some(until) if now >= until => FetchTurn::Empty,
            Some(_) => FetchTurn::Wait,
            None => {
                let until = now + FETCH_WAIT_MAX;
                task.room_until = Some(until);
                self.deadlines.push(until, Deadline::Fetch { index, generation });
                self.enter(Waiter::Fetch { index, generation });
                FetchTurn::Wait
            }
        }
    }

    fn enter(&mut self, waiter: Waiter) {
        self.counters.room_waits += 1;
        let mut waiters = std::mem::take(&mut self.room_queue.waiters);
        if waiters.len() == waiters.capacity() {
            // Those who have left are dropped when the list would have to grow.
            waiters.retain(|waiter| self.waits(waiter));
        }
        waiters.push_back(waiter);
        self.room_queue.waiters = waiters;
    }

    fn waits(&self, waiter: &Waiter) -> bool {
        match waiter {
            Waiter::Connection(id) => self.parked.get(id).is_some_and(|parked| parked.waits_for_room),
            Waiter::Fetch { index, generation } => {
                let task = self.fetch_tasks.waiting(*index, *generation);
                task.is_some_and(|task| task.room_until.is_some())
            }
        }
    }

    /// Gives room that has become free to those who wait for it. At the end of a turn.
    pub(super) fn serve_waiters(&mut self) {
        for _ in 0..self.room_queue.waiters.len() {
            if self.room() == Room::None {
                return;
            }
            let Some(waiter) = self.room_queue.waiters.pop_front() else { return };
            match waiter {
                _ if !self.waits(&waiter) => {}
                Waiter::Connection(id) => {
                    self.parked.entry(id).or_default().waits_for_room = false;
                    self.serve(id);
                }
                Waiter::Fetch { index, generation } => self.run_fetch(index, generation),
            }
        }
    }

    /// Where all room is taken, closes clients that take nothing. About once a second.
    pub(super) fn close_stalled(&mut self) {
        if self.answer_bytes() < self.room_queue.size_bytes_max {
            return;
        }
        let now = self.now.monotonic;
        let ids: Vec<ConnectionId> = self.connections.ids().collect();
        let mut stalled: Vec<(Monotonic, ConnectionId, u64)> = Vec::new();
        for id in ids {
            if let Some(connection) = self.connections.find(id)
                && let Some(since) = connection.stalled_since(now)
                && connection.unsent_memory_bytes() > 0
            {
                stalled.push((since, id, connection.unsent_memory_bytes()));
            }
        }
        stalled.sort();
        // Their memory comes back when their operations have ended.
        let mut wanted_bytes = self.answer_bytes().saturating_sub(self.room_queue.size_bytes_max / 4 * 3);
        for (_, id, bytes) in stalled {
            if wanted_bytes == 0 {
                return;
            }
            wanted_bytes = wanted_bytes.saturating_sub(bytes);
            self.close(id, CloseReason::NotTaken);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::units::{KIB, MIB};
    use crate::io::Pool;

    #[test]
    fn a_thousand_answers_where_room_is_short_leave_some() {
        // Each takes what it may; none is turned away.
        let max = 64 * MIB as u64;
        let mut held = max / 2;
        assert_eq!(room_of(held - 1, max), Room::Plenty);
        for _ in 0..1000 {
            let Room::Little(bytes) = room_of(held, max) else { panic!("no room at {held}") };
            held += bytes as u64;
        }
        assert!(held < max);
        assert_eq!(room_of(max, max), Room::Little(0));
        assert_eq!(room_of(max / 4 * 5, max), Room::None);
    }

    #[test]
    fn a_small_piece_of_a_large_block_is_copied_where_room_is_short() {
        let pool = Pool::new(MIB);
        let buffer = pool.take_append(64 * KIB).expect("within the budget");
        buffer.append(&[7; 60_000]);
        let is_copy = |room: Room, length: usize| match room.content_of(buffer.slice(0..length)) {
            Content::Owned(bytes) => bytes == vec![7; length],
            _ => false,
        };
        assert!(!is_copy(Room::Plenty, 10));
        assert!(is_copy(Room::Little(0), 10) && is_copy(Room::None, 10));
        assert!(!is_copy(Room::Little(0), 60_000), "it holds little more than it needs");
        let _lent = buffer.slice(0..1).lend();
        assert!(!is_copy(Room::Little(0), 10), "the block is held anyway");
    }
}
