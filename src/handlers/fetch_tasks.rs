//! Fetch requests that are not answered yet: what is known of each, and the table of them.
//!
//! Invariants
//! - A task is in its slot but while somebody works on it; whoever takes it out puts it back or finishes the slot.
//! - A slot's generation tells its tasks apart, so that what is left of an earlier one (a wait, a deadline, a
//!   completion) finds nobody.

use super::fetch_session::Wanted;
use crate::base::time::Monotonic;
use crate::model::id::{LeaderEpoch, Offset, TopicIdPartition};
use crate::net::{ConnectionId, Content, Ticket};
use crate::protocol::LeaderIdAndEpoch;
use crate::protocol::error::ErrorCode;
use crate::protocol::fetch::FetchPartitionResponse;
use crate::storage::ReadTask;

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
        }
    }

    pub fn refuse(&mut self, error: ErrorCode) {
        self.error = error;
        self.high_watermark = Offset::NONE;
        self.log_start_offset = Offset::NONE;
        self.contents.clear();
        self.size_bytes = 0;
    }

    pub fn response(&self) -> FetchPartitionResponse<'static> {
        FetchPartitionResponse {
            high_watermark: self.high_watermark,
            last_stable_offset: self.high_watermark,
            log_start_offset: self.log_start_offset,
            diverging_epoch: self.diverging_epoch,
            current_leader: self.current_leader,
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
    pub min_bytes: usize,
    pub max_bytes: usize,
    pub parts: Vec<Part>,
    pub next: usize,
    pub size_bytes: usize,
    /// About how many bytes could be returned: the sum over the parts, kept up to date while it waits.
    pub available_bytes: u64,
    /// When it is answered whatever there is.
    pub until: Monotonic,
    /// The read under way and whose log it is of: meanwhile the topic may be another one of the same name.
    pub read: Option<(ReadTask, TopicIdPartition)>,
    /// The connection was told to expect an answer.
    pub is_expected: bool,
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
}

/// The Fetch requests of a shard that are not answered yet.
#[derive(Default)]
pub struct FetchTasks {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

impl FetchTasks {
    pub(super) fn insert(&mut self, task: Box<FetchTask>) -> (u32, u16) {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            u32::try_from(self.slots.len() - 1).expect("bounded by requests in flight")
        });
        let slot = &mut self.slots[index as usize];
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

    pub(super) fn is_waiting(&self, index: u32, generation: u16) -> bool {
        self.waiting(index, generation).is_some()
    }

    /// Every slot there ever was; those in use are among them.
    pub(super) fn indexes(&self) -> std::ops::Range<u32> {
        0..self.slots.len() as u32
    }
}
