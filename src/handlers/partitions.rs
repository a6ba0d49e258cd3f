//! The partitions that this shard leads: their logs, and who waits for them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::cold_reads::CommitBegan;
use super::fetch_tasks::FetchWait;
use super::metadata::is_internal;
use super::produce::AckWait;
use super::verify::Verification;
use crate::base::time::Monotonic;
use crate::coordinator::transaction::event::Producer;
use crate::io::Io;
use crate::model::configs::{AckAfter, TopicConfig};
use crate::model::id::{ProducerId, TopicIdPartition};
use crate::net::ConnectionId;
use crate::storage::Log;

/// One partition.
pub struct Partition {
    /// Which.
    pub id: TopicIdPartition,
    /// Its topic's name.
    pub topic: Arc<str>,
    /// Its topic's configuration.
    pub config: Arc<TopicConfig>,
    /// Only the broker itself writes there.
    pub is_internal: bool,
    /// Its records.
    pub log: Log,
    /// Produce requests that wait for the high watermark, in order of their offsets.
    pub acks: VecDeque<AckWait>,
    /// What coordinators say about transactions that are to begin here.
    pub verifications: BTreeMap<Producer, Verification>,
    /// Fetches that wait for more.
    pub fetch_waits: Vec<FetchWait>,
    /// Connections whose Produce waits for room.
    pub held: Vec<ConnectionId>,
    /// The log end when memory was last given back: a log that has not moved since is quiet.
    pub quiet_end: i64,
    /// When what was written was last synced for `flush.ms`.
    pub flushed_at: Monotonic,
    /// Its topic is deleted and its directory is gone.
    pub is_removed: bool,
    /// The commit under way, if it is timed.
    pub commit_began: Option<CommitBegan>,
    /// It is to be committed by the journal.
    pub waits_for_journal: bool,
    /// A write of its log's own was under way when it was last looked at.
    pub is_writing: bool,
    is_dirty: bool,
}

impl Partition {
    /// What a coordinator said of the producer before is not true any more.
    pub fn forget_verifications(&mut self, producer: ProducerId) {
        self.verifications.retain(|(id, _), _| *id != producer);
    }

    /// A partition that nobody waits for.
    pub fn new(id: TopicIdPartition, topic: Arc<str>, config: Arc<TopicConfig>, log: Log) -> Partition {
        Partition {
            id,
            is_internal: is_internal(&topic),
            topic,
            config,
            log,
            acks: VecDeque::new(),
            verifications: BTreeMap::new(),
            fetch_waits: Vec::new(),
            held: Vec::new(),
            quiet_end: -1,
            flushed_at: Monotonic(0),
            is_removed: false,
            commit_began: None,
            waits_for_journal: false,
            is_writing: false,
            is_dirty: false,
        }
    }
}

impl Partition {
    /// `flush.messages` and `flush.ms`: bounds on what is written but not synced, for topics that acknowledge earlier.
    pub fn flush_if_due(&mut self, io: &mut impl Io, now: Monotonic) {
        if self.config.ack_after == AckAfter::Sync {
            return;
        }
        let unsynced = (self.log.log_end().0 - self.log.durable_offset().0) as u64;
        let by_count = self.config.flush_messages.is_some_and(|count| unsynced >= count);
        let interval = self.config.flush_ms.map(Duration::from_millis);
        let by_time = unsynced > 0 && interval.is_some_and(|interval| now.since(self.flushed_at) >= interval);
        if by_count || by_time {
            self.flushed_at = now;
            self.log.flush(io);
        }
    }
}

#[derive(Default)]
struct Slot {
    generation: u16,
    partition: Option<Box<Partition>>,
}

/// The partitions of a shard, by slot and by id.
#[derive(Default)]
pub struct Partitions {
    slots: Vec<Slot>,
    free: Vec<u32>,
    by_id: FxHashMap<TopicIdPartition, u32>,
    dirty: Vec<u32>,
}

impl Partitions {
    /// The slot and its generation that the next [`insert`](Self::insert) will use: a log needs its token before it
    /// exists.
    pub fn next_slot(&mut self) -> (u32, u16) {
        let slot = match self.free.last() {
            Some(&slot) => slot,
            None => {
                self.slots.push(Slot::default());
                let slot = u32::try_from(self.slots.len() - 1).expect("fewer partitions than that");
                self.free.push(slot);
                slot
            }
        };
        (slot, self.slots[slot as usize].generation)
    }

    /// Adds a partition in the slot of [`next_slot`](Self::next_slot).
    pub fn insert(&mut self, partition: Partition) -> u32 {
        let (slot, _) = self.next_slot();
        self.free.pop();
        self.by_id.insert(partition.id, slot);
        self.slots[slot as usize].partition = Some(Box::new(partition));
        slot
    }

    /// The slot of a partition.
    pub fn find(&self, id: TopicIdPartition) -> Option<u32> {
        self.by_id.get(&id).copied()
    }

    /// The partition in a slot that is known to hold one.
    #[inline]
    pub fn get_mut(&mut self, slot: u32) -> &mut Partition {
        self.slots[slot as usize].partition.as_mut().expect("the slot is in use")
    }

    /// The present generation of a slot.
    pub fn generation(&self, slot: u32) -> u16 {
        self.slots[slot as usize].generation
    }

    /// The partition in a slot, if it is still the one that a token of `generation` was made for.
    pub fn current(&mut self, slot: u32, generation: u16) -> Option<&mut Partition> {
        let slot = self.slots.get_mut(slot as usize)?;
        if slot.generation == generation { slot.partition.as_deref_mut() } else { None }
    }

    /// Makes a partition unfindable by its id: its topic is deleted. Its log still gets its completions.
    pub fn unlist(&mut self, slot: u32) {
        let id = self.get_mut(slot).id;
        self.by_id.remove(&id);
    }

    /// Takes a partition out; operations of its log that complete later find nobody.
    pub fn remove(&mut self, slot: u32) -> Box<Partition> {
        let entry = &mut self.slots[slot as usize];
        let partition = entry.partition.take().expect("the slot is in use");
        entry.generation = entry.generation.wrapping_add(1);
        if self.by_id.get(&partition.id) == Some(&slot) {
            self.by_id.remove(&partition.id);
        }
        self.free.push(slot);
        partition
    }

    /// The same, to look at.
    pub fn look(&self, slot: u32, generation: u16) -> Option<&Partition> {
        let slot = self.slots.get(slot as usize)?;
        if slot.generation == generation { slot.partition.as_deref() } else { None }
    }

    /// All slots in use, in order.
    pub fn slots(&self) -> impl Iterator<Item = u32> {
        self.slots.iter().enumerate().filter(|(_, slot)| slot.partition.is_some()).map(|(slot, _)| slot as u32)
    }

    /// Up to `count` slots from `from` on, those in use, and where to go on; `None` behind the last one.
    pub fn slots_from(&self, from: u32, count: usize) -> (Vec<u32>, Option<u32>) {
        let to = (from as usize + count).min(self.slots.len());
        let used = (from..to as u32).filter(|slot| self.is_used(*slot)).collect();
        (used, (to < self.slots.len()).then_some(to as u32))
    }

    /// All partitions, in order of their slots.
    pub fn iter(&self) -> impl Iterator<Item = &Partition> {
        self.slots.iter().filter_map(|slot| slot.partition.as_deref())
    }

    /// Notes that a log has something to commit at the end of the turn.
    pub fn mark_dirty(&mut self, slot: u32) {
        let partition = self.get_mut(slot);
        if !std::mem::replace(&mut partition.is_dirty, true) {
            self.dirty.push(slot);
        }
    }

    /// Takes the slots that were marked since the last call; `spare` is kept for the next marks.
    pub fn take_dirty(&mut self, spare: Vec<u32>) -> Vec<u32> {
        debug_assert!(spare.is_empty());
        let dirty = std::mem::replace(&mut self.dirty, spare);
        for &slot in &dirty {
            if let Some(partition) = self.slots[slot as usize].partition.as_mut() {
                partition.is_dirty = false;
            }
        }
        dirty
    }

    /// True if the slot holds a partition.
    pub fn is_used(&self, slot: u32) -> bool {
        self.slots[slot as usize].partition.is_some()
    }
}
