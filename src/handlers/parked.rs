//! Connections whose next request cannot take effect yet: what wakes each of them.
//!
//! Three things do: room in the partition that the request is held at, memory that comes back, and a deadline. A
//! connection is looked at again for other reasons as well (a response of it was sent), finds that it still waits,
//! and would wait a second time.
//!
//! Two more are room for answers ([`super::room`]) and for fetches ([`super::fetch_tasks`]).
//!
//! Invariant: a connection stands at most once in the list of the partition that it waits at, once in each list of
//! those that wait for memory, and has one deadline that counts, however often it is looked at.

use std::ops::Range;
use std::time::Duration;

use super::broker::{Broker, Handled};
use super::deadlines::Deadline;
use crate::base::time::Monotonic;
use crate::io::Io;
use crate::model::limits::FRAME_SIZE_BYTES_MAX;
use crate::net::ConnectionId;
use crate::net::connection::{Input, Next};
use crate::protocol::frame::PREFIX_SIZE;

/// How often what waits for memory is tried again if nothing else wakes it.
const RETRY_AFTER: Duration = Duration::from_millis(5);

/// Where one connection waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parked {
    /// In this partition's list.
    slot: Option<u32>,
    /// In the list of those that wait for memory.
    is_starved: bool,
    /// In the list of those that wait for room for their answers.
    pub(super) waits_for_room: bool,
    /// In the list of those whose fetches wait for others to be answered.
    pub(super) waits_for_fetches: bool,
    /// A deadline is entered for then.
    timer: Option<Monotonic>,
}

/// The frame behind `end`, which is left where it is.
fn following(input: &mut Input, end: usize) -> Option<Range<usize>> {
    let size = |_| FRAME_SIZE_BYTES_MAX;
    let Next::Frame(first) = input.next(size) else { return None };
    input.consume(end);
    let next = input.next(size);
    input.consume(first.start - PREFIX_SIZE);
    match next {
        Next::Frame(range) => Some(range),
        _ => None,
    }
}

impl<I: Io> Broker<I> {
    /// The connection is looked at again when the partition has room.
    pub(super) fn park_for_room(&mut self, id: ConnectionId, slot: u32) {
        if self.parked.entry(id).or_default().slot.replace(slot) != Some(slot) {
            self.partitions.get_mut(slot).held.push(id);
        }
    }

    /// The connection is looked at again when memory may have come back, and soon in any case.
    pub(super) fn park_for_memory(&mut self, id: ConnectionId) {
        if !std::mem::replace(&mut self.parked.entry(id).or_default().is_starved, true) {
            self.starved.push(id);
        }
        self.look_again(id, self.now.monotonic + RETRY_AFTER);
    }

    /// The connection is looked at again at `at` at the latest.
    pub(super) fn look_again(&mut self, id: ConnectionId, at: Monotonic) {
        let timer = &mut self.parked.entry(id).or_default().timer;
        if timer.is_none_or(|timer| timer > at) {
            *timer = Some(at);
            self.deadlines.push(at, Deadline::Held(id));
        }
    }

    /// A mutant: a request that must wait is overtaken by the one behind it.
    pub(super) fn overtake(&mut self, id: ConnectionId, input: &mut Input, start: usize, end: usize) {
        let held = self.held.remove(&id);
        let first = start - PREFIX_SIZE;
        input.consume(first);
        if let Some(next) = following(input, end)
            && matches!(self.handle(id, input, next.start, next.end), Handled::Done)
        {
            // The first one stands behind it now.
            input.frame(first..next.end).rotate_left(end - first);
            input.consume(next.end - (end - first));
        }
        self.held.extend(held.map(|held| (id, held)));
    }

    /// The partition has room, or never will: those that wait there are looked at.
    pub(super) fn serve_held(&mut self, slot: u32) {
        for id in std::mem::take(&mut self.partitions.get_mut(slot).held) {
            if let Some(parked) = self.parked.get_mut(&id)
                && parked.slot == Some(slot)
            {
                parked.slot = None;
            }
            self.serve(id);
        }
    }

    /// Tries again what waits for memory.
    pub(super) fn retry_starved(&mut self) {
        for id in std::mem::take(&mut self.starved) {
            if let Some(parked) = self.parked.get_mut(&id) {
                parked.is_starved = false;
            }
            self.serve(id);
        }
    }

    /// A deadline of the connection has come. It need not be the one that counts.
    pub(super) fn look_at_parked(&mut self, id: ConnectionId) {
        let now = self.now.monotonic;
        if let Some(parked) = self.parked.get_mut(&id)
            && parked.timer.is_some_and(|timer| timer <= now)
        {
            parked.timer = None;
        }
        self.serve(id);
    }
}
