//! The clean stop of a shard: what was appended is acknowledged, then everything ends.
//!
//! 1. Nothing more is accepted and no further request is looked at. Every log takes no more appends and makes what it
//!    has durable, which is what acknowledgements wait for. A Produce that is held back is refused for the rest of its
//!    partitions, with an error after which clients ask again elsewhere; fetches that wait are answered with what
//!    there is.
//! 2. A connection ends when its appends are acknowledged and it has taken its answers, all others at
//!    [`DRAIN_MAX`]: a client that takes nothing does not hold up the stop.
//! 3. The shard has stopped when all logs are closed and quiet and all connections are gone.

use std::time::Duration;

use rustc_hash::FxHashSet;

use super::broker::Broker;
use super::deadlines::Deadline;
use super::token::{self, Kind};
use crate::io::Io;
use crate::net::{CloseReason, ConnectionId};
use crate::storage::{Log, State};

/// How long clients are given to take what is left of their answers.
const DRAIN_MAX: Duration = Duration::from_secs(1);

impl<I: Io> Broker<I> {
    /// Stops taking requests and makes every log durable. [`is_stopped`](Self::is_stopped) tells when all are.
    pub fn stop(&mut self) {
        let until = self.now.monotonic + DRAIN_MAX;
        self.draining_until = Some(until);
        self.deadlines.push(until, Deadline::Drain);
        self.io.cancel(token::base(Kind::Accept, 0, 0));
        self.listener = None;
        self.stop_compacting();
        let slots: Vec<u32> = self.partitions.slots().collect();
        for slot in slots {
            let log = &mut self.partitions.get_mut(slot).log;
            if log.state() != State::Deleted {
                let events = log.close_for_clean_stop(&mut self.io);
                self.react(slot, events);
            }
        }
        let held: Vec<ConnectionId> = self.connections.ids().filter(|id| self.held.contains_key(id)).collect();
        held.into_iter().for_each(|id| self.serve(id));
        self.hurry_all_fetches();
        self.drain();
    }

    /// True once [`stop`](Self::stop) was called.
    pub(super) fn is_stopping(&self) -> bool {
        self.draining_until.is_some()
    }

    /// Ends the connections that wait for nothing more. At the end of every turn of a shard that stops.
    pub(super) fn drain(&mut self) {
        let Some(until) = self.draining_until else { return };
        let is_over = self.now.monotonic >= until;
        let appending: FxHashSet<ConnectionId> = self.produce_tasks.connections().collect();
        let ids: Vec<ConnectionId> = self.connections.ids().collect();
        for id in ids {
            let Some(connection) = self.connections.find(id) else { continue };
            if is_over || !(appending.contains(&id) || connection.has_unsent()) {
                self.close(id, CloseReason::Stopping);
            }
        }
    }

    /// True when every log is closed and quiet and every connection is gone.
    pub fn is_stopped(&self) -> bool {
        let is_closed = |log: &Log| {
            log.is_quiet() && (matches!(log.state(), State::Closed | State::Deleted) || log.offline().is_some())
        };
        self.is_stopping()
            && self.connections.is_empty()
            && !self.is_compacting()
            && !self.journal.journal.is_busy()
            && self.partitions.iter().all(|p| is_closed(&p.log))
    }
}
