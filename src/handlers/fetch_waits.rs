//! Fetches that wait for more to read: in which partitions, until when, and what wakes them.
//!
//! A task that waits stands once in the list of each of its partitions. What an append adds is compared with
//! `min_bytes` by a running sum: a task of 10,000 partitions costs an append what a task of one does.
//!
//! Waits that are over are not looked for: whoever meets one drops it.

use std::time::Duration;

use super::broker::Broker;
use super::deadlines::Deadline;
use super::fetch_tasks::{FetchTask, FetchWait};
use crate::base::coverage;
use crate::base::mutant;
use crate::base::time::Monotonic;
use crate::io::Io;
use crate::net::ConnectionId;

/// How often a fetch that waits is looked at, however long it may wait.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(30);

impl<I: Io> Broker<I> {
    /// Sums up about how many bytes could be returned now; true if the task is to be answered at once: they are
    /// enough, it has an error to tell, or nothing to look at.
    pub(super) fn has_enough(&mut self, task: &mut FetchTask) -> bool {
        for part in 0..task.parts.len() {
            if self.is_news(task, part) {
                return true;
            }
        }
        task.parts.is_empty() || task.available_bytes >= task.min_bytes as u64
    }

    /// Counts anew what one part adds; true if it has something else to tell.
    fn is_news(&mut self, task: &mut FetchTask, part: usize) -> bool {
        let up_to = task.up_to;
        let part = &mut task.parts[part];
        let Some(slot) = self.look_at(part) else { return true };
        let readable_bytes = self.partitions.get_mut(slot).log.readable_bytes(part.wanted.fetch_offset, up_to);
        let available_bytes = readable_bytes.min(part.wanted.size_bytes_max.max(1) as u64);
        let before = std::mem::replace(&mut part.available_bytes, available_bytes);
        task.available_bytes = task.available_bytes - before + available_bytes;
        false
    }

    pub(super) fn wait_for_data(&mut self, index: u32, generation: u16) {
        coverage::hit("fetch: waits");
        self.counters.fetch_waits += 1;
        let mut task = self.fetch_tasks.take(index, generation).expect("just inserted");
        for (number, part) in task.parts.iter_mut().enumerate() {
            if let Some(slot) = self.look_at(part) {
                let fetch_tasks = &self.fetch_tasks;
                let waits = &mut self.partitions.get_mut(slot).fetch_waits;
                if waits.len() == waits.capacity() {
                    // Waits that are over are dropped when the list would have to grow.
                    waits.retain(|wait| fetch_tasks.is_waiting(wait.index, wait.generation));
                }
                waits.push(FetchWait { index, generation, part: number as u32 });
            }
        }
        let until = task.until;
        self.fetch_tasks.put_back(index, task);
        self.look_at_fetch_again(index, generation, until);
    }

    /// A client may ask for a wait of weeks: a deadline that lived as long as that would stay when the wait is over,
    /// and so would the task of a connection that is gone.
    fn look_at_fetch_again(&mut self, index: u32, generation: u16, until: Monotonic) {
        let at = until.min(self.now.monotonic + LOOK_AGAIN_AFTER);
        self.deadlines.push(at, Deadline::Fetch { index, generation });
        if self.deadlines.is_grown() {
            let (fetch_tasks, parked, deletions) = (&self.fetch_tasks, &self.parked, &self.deletions);
            self.deadlines.retain(|deadline| match deadline {
                Deadline::Fetch { index, generation } => fetch_tasks.is_waiting(index, generation),
                Deadline::Held(id) => parked.contains_key(&id),
                Deadline::Deletion(number) => deletions.is_waiting(number),
                Deadline::Coordinator | Deadline::Accept | Deadline::Drain => true,
            });
        }
    }

    /// A partition's high watermark has moved, or it has something else to tell: fetches that wait look again.
    pub(super) fn wake_fetches(&mut self, slot: u32) {
        if mutant::is_on("miss_a_wake_up") {
            return;
        }
        let mut waits = std::mem::take(&mut self.partitions.get_mut(slot).fetch_waits);
        waits.retain(|&wait| self.goes_on_waiting(wait));
        // The list keeps its memory.
        let later = std::mem::replace(&mut self.partitions.get_mut(slot).fetch_waits, waits);
        self.partitions.get_mut(slot).fetch_waits.extend(later);
    }

    /// Looks at one wait anew and runs its task if there is enough. False if the wait is over.
    fn goes_on_waiting(&mut self, FetchWait { index, generation, part }: FetchWait) -> bool {
        match self.fetch_tasks.waiting(index, generation) {
            // One that waits for room needs no more data, nor does one that waits for the disk: what it has read stays.
            Some(task) if task.room_until.is_none() && !task.waits_for_disk => {}
            _ => return false,
        }
        let mut task = self.fetch_tasks.take(index, generation).expect("it waits");
        let is_news = self.is_news(&mut task, part as usize);
        let waits = !is_news && task.available_bytes < task.min_bytes as u64;
        self.fetch_tasks.put_back(index, task);
        if !waits {
            coverage::hit("fetch: is woken");
            self.run_fetch(index, generation);
        }
        waits
    }

    /// A fetch has waited long enough, or it is time to see whether anybody still waits for it.
    pub(super) fn fetch_waited(&mut self, index: u32, generation: u16) {
        let Some(task) = self.fetch_tasks.waiting(index, generation) else { return };
        let (ticket, until) = (task.ticket, task.room_until.unwrap_or(task.until));
        if self.now.monotonic >= until || !self.is_answerable(ticket) {
            self.run_fetch(index, generation);
        } else {
            self.look_at_fetch_again(index, generation, until);
        }
    }

    /// The connection is gone: what waits for its fetches' sake is forgotten, or clients that come and go could pile up
    /// waits without end. Reads that are under way end by themselves.
    pub(super) fn forget_fetches(&mut self, id: ConnectionId) {
        for index in self.fetch_tasks.indexes() {
            if let Some(generation) = self.fetch_tasks.waiting_of(index, id) {
                self.fetch_tasks.take(index, generation);
                self.fetch_tasks.finish(index);
            }
        }
    }

    /// The shard stops: no fetch waits any longer.
    pub(super) fn hurry_all_fetches(&mut self) {
        for index in self.fetch_tasks.indexes() {
            if let Some(generation) = self.fetch_tasks.waiting_generation(index) {
                self.run_fetch(index, generation);
            }
        }
    }

    /// The client has ended its side and will most likely take no answer: its fetches wait no longer.
    pub(super) fn hurry_fetches(&mut self, id: ConnectionId) {
        for index in self.fetch_tasks.indexes() {
            if let Some(generation) = self.fetch_tasks.waiting_of(index, id) {
                self.run_fetch(index, generation);
            }
        }
    }
}
