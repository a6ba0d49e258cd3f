//! Fetches of what is not in memory: a class of their own, so that readers who are far behind neither move the
//! latency of those who write nor starve.
//!
//! 1. A part of a fetch that has to go to the disk needs one of few places ([`ColdPace`] says how many). Without one
//!    the fetch waits, in the order of connections: each gets a place in turn, however many fetches it has sent ahead.
//! 2. File transfers (splice) are shared out by the ring itself, first come first served, one of each connection at a
//!    time. It is told how many there may be.
//! 3. Every commit is timed, and whether something was read from disk meanwhile is noted with it.
//!
//! Invariant: a place is given back when the read that needed it is over, whatever became of its connection.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use super::broker::Broker;
use super::cold_pace::{ColdPace, Pace};
use super::fetch_tasks::FetchTask;
use crate::base::time::Monotonic;
use crate::io::{Io, TransferLimit};
use crate::model::configs::AckAfter;
use crate::net::ConnectionId;

/// Reads from disk for fetches, under way and waiting.
#[derive(Debug, Default)]
pub struct ColdReads {
    pace: ColdPace,
    reading_count: usize,
    /// Reads and transfers that were begun or went on: two equal numbers are a time without any.
    activity_count: u64,
    waiting: RoundRobin<ConnectionId, (u32, u16)>,
    transfer_limit: Option<TransferLimit>,
}

/// A commit under way.
#[derive(Clone, Copy, Debug)]
pub struct CommitBegan {
    at: Monotonic,
    size_bytes: u64,
    is_quiet: bool,
    activity_count: u64,
}

/// Things that wait, by whose they are: each owner's in their order, owners in turn.
#[derive(Debug)]
struct RoundRobin<K, V> {
    turns: VecDeque<K>,
    waiting: FxHashMap<K, VecDeque<V>>,
}

impl<K, V> Default for RoundRobin<K, V> {
    fn default() -> Self {
        RoundRobin { turns: VecDeque::new(), waiting: FxHashMap::default() }
    }
}

impl<K: Copy + Eq + std::hash::Hash, V> RoundRobin<K, V> {
    fn push(&mut self, owner: K, value: V) {
        let own = self.waiting.entry(owner).or_default();
        if own.is_empty() {
            self.turns.push_back(owner);
        }
        own.push_back(value);
    }

    fn pop(&mut self) -> Option<V> {
        let owner = self.turns.pop_front()?;
        let own = self.waiting.get_mut(&owner)?;
        let value = own.pop_front();
        if own.is_empty() {
            self.waiting.remove(&owner);
        } else {
            self.turns.push_back(owner);
        }
        value
    }

    fn forget(&mut self, owner: K) {
        if self.waiting.remove(&owner).is_some() {
            self.turns.retain(|other| *other != owner);
        }
    }
}

impl<I: Io> Broker<I> {
    /// Fetches that are being read from disk.
    pub fn cold_read_count(&self) -> usize {
        self.cold_reads.reading_count
    }

    /// How much may be read from disk now.
    pub(super) fn cold_pace(&self) -> Pace {
        self.cold_reads.pace.pace(self.now.monotonic)
    }

    /// Takes a place for a read of the task; false if there is none, and then the task waits for one.
    pub(super) fn begin_cold(&mut self, task: &mut FetchTask, index: u32, generation: u16) -> bool {
        if task.is_cold {
            return true;
        }
        if self.cold_reads.reading_count >= self.cold_pace().count_max {
            task.waits_for_disk = true;
            self.counters.cold_waits += 1;
            self.cold_reads.waiting.push(task.ticket.connection, (index, generation));
            return false;
        }
        self.note_cold(task);
        true
    }

    /// A read of the task goes to the disk.
    pub(super) fn note_cold(&mut self, task: &mut FetchTask) {
        if !std::mem::replace(&mut task.is_cold, true) {
            self.cold_reads.reading_count += 1;
            self.cold_reads.activity_count += 1;
        }
    }

    /// The read is over.
    pub(super) fn end_cold(&mut self, task: &mut FetchTask) {
        if std::mem::replace(&mut task.is_cold, false) {
            self.cold_reads.reading_count -= 1;
        }
    }

    /// A file transfer went on.
    pub(super) fn note_transfer(&mut self) {
        self.cold_reads.activity_count += 1;
    }

    /// The connection is gone.
    pub(super) fn forget_cold(&mut self, id: ConnectionId) {
        self.cold_reads.waiting.forget(id);
    }

    /// Gives free places to those who wait, and the ring its share. At the end of a turn.
    pub(super) fn serve_cold(&mut self) {
        let pace = self.cold_pace();
        let limit = TransferLimit { count_max: pace.count_max, size_bytes_max: pace.transfer_bytes_max };
        if self.cold_reads.transfer_limit.replace(limit) != Some(limit) {
            self.io.limit_transfers(limit);
        }
        while self.cold_reads.reading_count < pace.count_max
            && let Some((index, generation)) = self.cold_reads.waiting.pop()
        {
            if self.fetch_tasks.has_disk(index, generation) {
                self.run_fetch(index, generation);
            }
        }
    }

    /// Notes a commit that was submitted just now, if there is one.
    pub(super) fn commit_began(&mut self, slot: u32) {
        let partition = self.partitions.get_mut(slot);
        if partition.commit_began.is_none()
            && let Some(size_bytes) = partition.log.writing_bytes()
        {
            let began = self.begin_commit(size_bytes);
            self.partitions.get_mut(slot).commit_began = Some(began);
        }
    }

    /// A commit of so many bytes that begins now.
    pub(super) fn begin_commit(&mut self, size_bytes: u64) -> CommitBegan {
        self.cold_reads.pace.commit_begins(self.now.monotonic);
        let is_quiet = self.cold_reads.reading_count == 0 && self.io.transfer_count() == 0;
        CommitBegan { at: self.now.monotonic, size_bytes, is_quiet, activity_count: self.cold_reads.activity_count }
    }

    /// Times the partition's commit if it has completed.
    pub(super) fn time_commit(&mut self, slot: u32) {
        let partition = self.partitions.get_mut(slot);
        if partition.log.writing_bytes().is_some() {
            return;
        }
        let Some(began) = partition.commit_began.take() else { return };
        let is_synced = partition.config.ack_after == AckAfter::Sync;
        self.end_commit(began, is_synced);
    }

    /// Times a commit that has completed.
    pub(super) fn end_commit(&mut self, began: CommitBegan, is_synced: bool) {
        let is_quiet = began.is_quiet && began.activity_count == self.cold_reads.activity_count;
        let now = self.now.monotonic;
        let narrowed =
            self.cold_reads.pace.commit_took(now, began.size_bytes, is_synced, now.since(began.at), is_quiet);
        self.counters.cold_narrowed += u64::from(narrowed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_take_turns_however_much_each_has() {
        let mut queue = RoundRobin::default();
        (0..4).for_each(|number| queue.push('a', number));
        queue.push('b', 10);
        queue.push('c', 20);
        queue.push('c', 21);
        let order: Vec<i32> = (0..3).filter_map(|_| queue.pop()).collect();
        assert_eq!(order, [0, 10, 20]);
        queue.push('b', 11);
        queue.forget('c');
        let order: Vec<i32> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(order, [1, 11, 2, 3]);
        assert!(queue.waiting.is_empty() && queue.turns.is_empty());
    }
}
