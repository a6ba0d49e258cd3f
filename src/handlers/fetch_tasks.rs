//! Fetch requests that are not answered yet: what is known of each, and the table of them.
//!
//! Invariants
//! - A task is in its slot but while somebody works on it; whoever takes it out puts it back or finishes the slot.
//! - Together they stay within a share of the shard's memory: a connection may send a thousand fetches ahead, and each
//!   may name a hundred thousand partitions. Where half of it is taken, a connection's next fetch waits for those
//!   before it, and where all of it is, for those of others; who waits goes on in the order of coming.
//! - A slot's generation tells its tasks apart, so that what is left of an earlier one (a wait, a deadline, a
//!   completion) finds nobody.

use std::collections::VecDeque;

use super::broker::Broker;
use super::fetch_session::Wanted;
use crate::base::mutant;
use crate::base::time::Monotonic;
use crate::io::Io;
use crate::model::id::{LeaderEpoch, Offset, ProducerId, TopicIdPartition};
use crate::model::limits::FETCH_TASKS_POOL_SHARE;
use crate::net::connection::RECEIVE_SIZE_BYTES_MIN;
use crate::net::{ConnectionId, Content, Ticket};
use crate::protocol::LeaderIdAndEpoch;
use crate::protocol::error::ErrorCode;
use crate::protocol::fetch::FetchPartitionResponse;
use crate::storage::{Log, ReadTask, UpTo};

/// What is known of one partition of a task.
pub(super) struct Part {
    pub wanted: Wanted,
    pub error: ErrorCode,
    pub high_watermark: Offset,
    pub log_start_offset: Offset,
    pub current_leader: Option<LeaderIdAndEpoch>,
    pub diverging_epoch: Option<(LeaderEpoch, Offset)>,
    pub contents: Vec<Content>,
    pub size_bytes: usize,
    /// What it adds to the task's `available_bytes`.
    pub available_bytes: u64,
    pub last_stable_offset: Offset,
    /// For readers of committed records: what is aborted among the records.
    pub aborted: Option<Box<[(ProducerId, Offset)]>>,
}

impl Part {
    pub fn new(wanted: Wanted) -> Part {
        Part {
            wanted,
            error: ErrorCode::None,
            high_watermark: Offset::NONE,
            log_start_offset: Offset::NONE,
            current_leader: None,
            diverging_epoch: None,
            contents: Vec::new(),
            size_bytes: 0,
            available_bytes: 0,
            last_stable_offset: Offset::NONE,
            aborted: None,
        }
    }

    /// What the log says of itself. The records that are read end at or below the one offset that counts.
    pub fn note(&mut self, log: &Log) {
        self.high_watermark = log.high_watermark();
        self.last_stable_offset = log.last_stable_offset();
        self.log_start_offset = log.log_start();
    }

    pub fn refuse(&mut self, error: ErrorCode) {
        self.error = error;
        self.high_watermark = Offset::NONE;
        self.log_start_offset = Offset::NONE;
        self.last_stable_offset = Offset::NONE;
        self.aborted = None;
        self.contents.clear();
        self.size_bytes = 0;
    }

    pub fn response(&self, up_to: UpTo) -> FetchPartitionResponse<'_> {
        let is_stale = mutant::is_on("tell_an_old_watermark") && self.high_watermark.0 % 7 == 6;
        FetchPartitionResponse {
            high_watermark: Offset(self.high_watermark.0 - i64::from(is_stale)),
            last_stable_offset: self.last_stable_offset,
            log_start_offset: self.log_start_offset,
            diverging_epoch: self.diverging_epoch,
            current_leader: self.current_leader,
            aborted_transactions: (up_to == UpTo::LastStable).then(|| self.aborted.as_deref().unwrap_or_default()),
            ..FetchPartitionResponse::refused(self.wanted.partition, self.error)
        }
    }
}

/// A Fetch request that is not answered yet.
pub(super) struct FetchTask {
    pub ticket: Ticket,
    pub version: i16,
    pub correlation_id: i32,
    pub session_id: i32,
    pub incremental: bool,
    /// What may be read: up to the high watermark, or what is decided.
    pub up_to: UpTo,
    pub min_bytes: usize,
    pub max_bytes: usize,
    pub parts: Vec<Part>,
    pub next: usize,
    pub size_bytes: usize,
    /// About how many bytes could be returned: the sum over the parts, kept up to date while it waits.
    pub available_bytes: u64,
    /// When it is answered whatever there is.
    pub until: Monotonic,
    /// When it is answered without records, if it waits for room.
    pub room_until: Option<Monotonic>,
    /// The read under way and whose log it is of: meanwhile the topic may be another one of the same name.
    pub read: Option<(ReadTask, TopicIdPartition)>,
    /// The connection was told to expect an answer.
    pub is_expected: bool,
    /// It has a place among the reads from disk.
    pub is_cold: bool,
    /// It waits for one.
    pub waits_for_disk: bool,
}

/// What a task takes besides itself and its parts: its slot, its deadline, its waits, and what allocating adds.
const TASK_OVERHEAD_BYTES: usize = 256;
/// The same for a part.
const PART_OVERHEAD_BYTES: usize = 32;

// Every connection of a shard may wait in a fetch of one partition: there are so many that their smallest buffers take
// a quarter of the pool, and half of the tasks' share is theirs.
const _: () = assert!(
    size_of::<FetchTask>() + TASK_OVERHEAD_BYTES + size_of::<Part>() + PART_OVERHEAD_BYTES
        <= RECEIVE_SIZE_BYTES_MIN * 4 / FETCH_TASKS_POOL_SHARE / 2
);

impl FetchTask {
    /// The memory that it takes.
    fn weight_bytes(&self) -> usize {
        let parts = self.parts.len() * (size_of::<Part>() + PART_OVERHEAD_BYTES);
        size_of::<FetchTask>() + TASK_OVERHEAD_BYTES + parts
    }
}

/// A task that waits in a partition, and which of its parts the partition is.
#[derive(Clone, Copy, Debug)]
pub struct FetchWait {
    pub(super) index: u32,
    pub(super) generation: u16,
    pub(super) part: u32,
}

#[derive(Default)]
struct Slot {
    generation: u16,
    task: Option<Box<FetchTask>>,
    weight_bytes: usize,
}

/// The Fetch requests of a shard that are not answered yet.
pub struct FetchTasks {
    slots: Vec<Slot>,
    free: Vec<u32>,
    weight_bytes: usize,
    weight_bytes_max: usize,
    /// Connections whose next fetch waits for others to be answered.
    held: VecDeque<ConnectionId>,
}

impl FetchTasks {
    /// Tasks beside a pool of so many bytes.
    pub(super) fn new(pool_size_bytes: usize) -> FetchTasks {
        FetchTasks {
            slots: Vec::new(),
            free: Vec::new(),
            weight_bytes: 0,
            weight_bytes_max: pool_size_bytes / FETCH_TASKS_POOL_SHARE,
            held: VecDeque::new(),
        }
    }

    /// True if a connection's next fetch has to wait; its `first` one needs less room to be taken in.
    fn is_full(&self, is_first: bool) -> bool {
        self.weight_bytes >= if is_first { self.weight_bytes_max } else { self.weight_bytes_max / 2 }
    }

    pub(super) fn insert(&mut self, task: Box<FetchTask>) -> (u32, u16) {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            u32::try_from(self.slots.len() - 1).expect("bounded by requests in flight")
        });
        let slot = &mut self.slots[index as usize];
        slot.weight_bytes = task.weight_bytes();
        self.weight_bytes += slot.weight_bytes;
        slot.task = Some(task);
        (index, slot.generation)
    }

    /// Takes a task out to work on it; [`put_back`](Self::put_back) or [`finish`](Self::finish) follows.
    pub(super) fn take(&mut self, index: u32, generation: u16) -> Option<Box<FetchTask>> {
        let slot = self.slots.get_mut(index as usize)?;
        if slot.generation == generation { slot.task.take() } else { None }
    }

    pub(super) fn put_back(&mut self, index: u32, task: Box<FetchTask>) {
        self.slots[index as usize].task = Some(task);
    }

    pub(super) fn finish(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        slot.generation = slot.generation.wrapping_add(1);
        self.weight_bytes -= std::mem::take(&mut slot.weight_bytes);
        self.free.push(index);
    }

    /// The task, if it waits for more to read.
    pub(super) fn waiting(&self, index: u32, generation: u16) -> Option<&FetchTask> {
        let slot = self.slots.get(index as usize).filter(|slot| slot.generation == generation)?;
        slot.task.as_deref().filter(|task| task.read.is_none())
    }

    /// The generation of a task that waits, if it is this connection's.
    pub(super) fn waiting_of(&self, index: u32, id: ConnectionId) -> Option<u16> {
        let slot = &self.slots[index as usize];
        let is_its_own = slot.task.as_ref().is_some_and(|task| task.read.is_none() && task.ticket.connection == id);
        is_its_own.then_some(slot.generation)
    }

    /// The generation of a task that waits.
    pub(super) fn waiting_generation(&self, index: u32) -> Option<u16> {
        let slot = &self.slots[index as usize];
        slot.task.as_ref().is_some_and(|task| task.read.is_none()).then_some(slot.generation)
    }

    /// Tells a task that waits for a place among the reads from disk that it has one; false if it is gone.
    pub(super) fn has_disk(&mut self, index: u32, generation: u16) -> bool {
        let slot = self.slots.get_mut(index as usize).filter(|slot| slot.generation == generation);
        let task = slot.and_then(|slot| slot.task.as_mut());
        task.is_some_and(|task| std::mem::replace(&mut task.waits_for_disk, false))
    }

    pub(super) fn is_waiting(&self, index: u32, generation: u16) -> bool {
        self.waiting(index, generation).is_some()
    }

    /// Every slot there ever was; those in use are among them.
    pub(super) fn indexes(&self) -> std::ops::Range<u32> {
        0..self.slots.len() as u32
    }
}

impl<I: Io> Broker<I> {
    /// Memory that the Fetch requests take which are not answered yet.
    pub fn fetch_task_bytes(&self) -> usize {
        self.fetch_tasks.weight_bytes
    }

    /// True if the connection's next fetch has to wait until others are answered. It is looked at then.
    pub(super) fn waits_for_fetches(&mut self, id: ConnectionId) -> bool {
        let is_first = self.connections.find(id).is_some_and(|connection| connection.request_count() == 0);
        if !self.fetch_tasks.is_full(is_first) {
            return false;
        }
        if !std::mem::replace(&mut self.parked.entry(id).or_default().waits_for_fetches, true) {
            self.counters.fetch_held += 1;
            let parked = &self.parked;
            let held = &mut self.fetch_tasks.held;
            if held.len() == held.capacity() {
                // Those who have left are dropped when the list would have to grow.
                held.retain(|id| parked.get(id).is_some_and(|parked| parked.waits_for_fetches));
            }
            held.push_back(id);
        }
        true
    }

    /// Goes on with connections whose fetches had to wait. At the end of a turn.
    pub(super) fn serve_held_fetches(&mut self) {
        for _ in 0..self.fetch_tasks.held.len() {
            if self.fetch_tasks.is_full(false) {
                return;
            }
            let Some(id) = self.fetch_tasks.held.pop_front() else { return };
            if let Some(parked) = self.parked.get_mut(&id)
                && std::mem::take(&mut parked.waits_for_fetches)
            {
                self.serve(id);
            }
        }
    }
}
