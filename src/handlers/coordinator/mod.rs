//! The group coordinators of this shard: one for each partition of `__consumer_offsets` that it leads.
//!
//! | file | its one job |
//! |---|---|
//! | [`append`] | records into the partition's log, and what follows when they are durable |
//! | [`load`] | a partition's log read from its start, before anybody is answered from it |
//! | [`forget`] | what groups have committed for topics that are deleted |
//! | [`find`] | FindCoordinator, and the making of the topic |
//! | [`offset_commit`], [`offset_fetch`], [`offset_delete`] | the requests of these names |
//! | [`expiry`] | offsets that nobody needs any longer |
//! | [`standing`] | what offsets ask of the groups that commit them |
//! | [`membership`] | the groups' state machines: their events, effects and deadlines |
//! | [`join_group`], [`sync_group`], [`heartbeat`], [`leave_group`] | the requests of members |
//! | [`describe_groups`], [`list_groups`], [`delete_groups`] | the requests of operators, and the end of groups |
//!
//! A partition is [`Loading`](HostState::Loading) until its log was read, then [`Active`](HostState::Active). It
//! appends through its own log like a Produce does, with the same acknowledgement; it never goes over a socket.
//!
//! Invariants
//! - What is read and answered is durable: a commit is put into [`Offsets`] when the high watermark has passed it.
//! - What follows the writes of one partition happens in their order.
//! - A write either follows all of its course or is refused and changes nothing in memory. Refused after it was
//!   appended (the log went offline) it may be found at the next start, as with any Kafka broker.

pub(super) mod append;
mod delete_groups;
mod describe_groups;
mod expiry;
mod find;
mod forget;
mod heartbeat;
mod join_group;
mod leave_group;
mod list_groups;
pub(super) mod load;
mod membership;
mod offset_commit;
mod offset_delete;
mod offset_fetch;
mod standing;
mod sync_group;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::broker::Broker;
use super::call::Call;
use crate::base::time::Monotonic;
use crate::coordinator::OFFSETS_TOPIC;
use crate::coordinator::group::Groups;
use crate::coordinator::offsets::Offsets;
use crate::coordinator::partition_of;
use crate::io::Io;
use crate::model::id::{PartitionIndex, TopicId, TopicIdPartition};
use crate::protocol::error::ErrorCode;
use append::{Continuation, Queued, Waiting};
use delete_groups::Deletion;
use forget::{Clearing, Unwritten};
use load::Load;
use offset_commit::PendingCommits;

/// Where the coordinator of a partition is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HostState {
    /// Its log is being read; requests are answered with COORDINATOR_LOAD_IN_PROGRESS.
    Loading,
    /// It answers.
    Active,
    /// Its log cannot be read or written until the broker is started again: NOT_COORDINATOR, as in Kafka.
    Failed,
}

/// The coordinator of one partition.
pub(super) struct Hosted {
    pub state: HostState,
    /// What groups have committed, as far as it is durable.
    pub offsets: Offsets,
    /// Who is a member of which group.
    pub groups: Groups<Call>,
    load: Option<Box<Load>>,
    /// Writes that are not in the log yet.
    queued: VecDeque<Queued>,
    queued_size_bytes: usize,
    /// Writes that are in the log and not durable yet.
    waiting: VecDeque<Waiting>,
    /// Offsets to be forgotten whose tombstones were refused.
    unwritten: Vec<Unwritten>,
}

/// The coordinators of a shard.
#[derive(Default)]
pub struct CoordinatorHost {
    /// The topic whose partitions these are: another one of the same name is another life.
    topic: Option<TopicId>,
    partitions: BTreeMap<PartitionIndex, Hosted>,
    /// Partitions with writes that can be tried.
    ready: BTreeSet<PartitionIndex>,
    /// Partitions with writes that the log was not ready for.
    stuck: BTreeSet<PartitionIndex>,
    /// Partitions that are to be read, in order, and those of them that can go on at once.
    unread: VecDeque<PartitionIndex>,
    reading: BTreeSet<PartitionIndex>,
    readable: BTreeSet<PartitionIndex>,
    /// Those that found no memory.
    paused: BTreeSet<PartitionIndex>,
    /// Which life of the topic the tokens of reads belong to.
    generation: u16,
    /// Partitions that are still to be looked at for expired offsets, and when the last look began.
    unexpired: VecDeque<PartitionIndex>,
    expired_at: Monotonic,
    /// When groups are to be looked at, as the shard's deadlines know.
    groups_due: Option<Monotonic>,
    /// DeleteGroups requests that are not answered yet, by number.
    deletions: BTreeMap<u64, Deletion>,
    deletion_count: u64,
    /// Deleted topics of which offsets are still to be forgotten.
    clearing: BTreeMap<TopicId, Clearing>,
}

impl Hosted {
    fn new(state: HostState) -> Hosted {
        Hosted {
            state,
            offsets: Offsets::default(),
            groups: Groups::default(),
            load: None,
            queued: VecDeque::new(),
            queued_size_bytes: 0,
            waiting: VecDeque::new(),
            unwritten: Vec::new(),
        }
    }

    /// True if something is on its way into the log.
    pub fn has_writes(&self) -> bool {
        !self.waiting.is_empty() || !self.queued.is_empty()
    }

    /// Commits that are on their way.
    pub fn pending_commits(&self) -> PendingCommits {
        let under_way = self.waiting.iter().map(|w| &w.then).chain(self.queued.iter().map(|q| &q.then));
        let mut pending = PendingCommits::new();
        for (group, topic, partition) in under_way.flat_map(Continuation::commits) {
            pending.entry(group.into()).or_default().push((topic.into(), partition));
        }
        pending
    }

    /// Why a request cannot be answered now, in Kafka's words.
    pub fn check_active(&self) -> Result<(), ErrorCode> {
        match self.state {
            HostState::Active => Ok(()),
            HostState::Loading => Err(ErrorCode::CoordinatorLoadInProgress),
            HostState::Failed => Err(ErrorCode::NotCoordinator),
        }
    }
}

impl CoordinatorHost {
    /// Every partition that has its coordinator here, in order: for requests about all groups of a broker.
    fn partitions(&self) -> impl Iterator<Item = (PartitionIndex, &Hosted)> {
        self.partitions.iter().map(|(index, hosted)| (*index, hosted))
    }

    /// The coordinator of a partition that [`Broker::coordinator_of`] has named.
    pub(super) fn hosted(&self, index: PartitionIndex) -> Option<&Hosted> {
        self.partitions.get(&index)
    }

    /// Bytes of the changes that are not in a log yet.
    fn queued_size_bytes(&self) -> usize {
        self.partitions.values().map(|hosted| hosted.queued_size_bytes).sum()
    }

    /// About what the committed offsets of the shard take in memory.
    pub(super) fn offsets_size_bytes(&self) -> usize {
        self.partitions.values().map(|hosted| hosted.offsets.size_bytes()).sum()
    }
}

impl<I: Io> Broker<I> {
    /// The partition whose coordinator, which is here and active, a group has; else why not.
    pub(super) fn coordinator_of(&self, group: &str) -> Result<PartitionIndex, ErrorCode> {
        let topic = self.image.topic_by_name(OFFSETS_TOPIC).ok_or(ErrorCode::NotCoordinator)?;
        let index = PartitionIndex(partition_of(group, topic.partition_count));
        let hosted = self.coordinator.hosted(index).ok_or(ErrorCode::NotCoordinator)?;
        hosted.check_active().map(|()| index)
    }

    /// The metadata has changed: coordinators of partitions that are led here come and go.
    pub(super) fn open_coordinators(&mut self) {
        let image = Arc::clone(&self.image);
        let topic = image.topic_by_name(OFFSETS_TOPIC);
        if self.coordinator.topic != topic.map(|topic| topic.id) {
            self.close_coordinators();
            self.coordinator.topic = topic.map(|topic| topic.id);
        }
        let Some(topic) = topic else { return };
        // Usually nothing has changed, and images come often.
        let led = topic.partitions().filter(|index| !self.coordinator.partitions.contains_key(index));
        let led: Vec<PartitionIndex> =
            led.filter(|index| image.leader(topic, *index) == Some(self.broker_id())).collect();
        for index in led {
            // What has no directory has no record either.
            let state = if topic.is_materialized(index) { HostState::Loading } else { HostState::Active };
            self.coordinator.partitions.insert(index, Hosted::new(state));
            if state == HostState::Loading {
                self.coordinator.unread.push_back(index);
            }
        }
    }

    /// The offsets topic is gone: what waits is refused.
    fn close_coordinators(&mut self) {
        let indexes: Vec<PartitionIndex> = self.coordinator.partitions.keys().copied().collect();
        for index in indexes {
            self.fail_coordinator(index, ErrorCode::NotCoordinator);
        }
        let host = &mut self.coordinator;
        host.partitions.clear();
        host.unread.clear();
        host.reading.clear();
        host.readable.clear();
        host.paused.clear();
        host.ready.clear();
        host.stuck.clear();
        host.unexpired.clear();
        host.generation = host.generation.wrapping_add(1);
    }

    /// The log in `slot` has told something: what it means to the coordinator of its partition, if it has one.
    pub(super) fn coordinated(&self, id: TopicIdPartition) -> Option<PartitionIndex> {
        let is_hosted =
            self.coordinator.topic == Some(id.topic) && self.coordinator.partitions.contains_key(&id.partition);
        is_hosted.then_some(id.partition)
    }

    /// The coordinator of a partition ends: what waits there is refused, what it knew is forgotten.
    pub(super) fn fail_coordinator(&mut self, index: PartitionIndex, error: ErrorCode) {
        let Some(hosted) = self.coordinator.partitions.get_mut(&index) else { return };
        hosted.state = HostState::Failed;
        hosted.offsets = Offsets::default();
        hosted.load = None;
        hosted.queued_size_bytes = 0;
        hosted.unwritten.clear();
        let waiting: Vec<_> = hosted.waiting.drain(..).map(|waiting| waiting.then).collect();
        let queued: Vec<_> = hosted.queued.drain(..).map(|queued| queued.then).collect();
        self.coordinator.reading.remove(&index);
        self.coordinator.readable.remove(&index);
        self.coordinator.paused.remove(&index);
        self.end_groups(index, error);
        for then in waiting.into_iter().chain(queued) {
            self.follow(index, then, Err(error));
        }
        self.nothing_to_clear(index);
    }

    /// What a turn of the event loop does for coordinators once requests and completions are through.
    pub(super) fn coordinate(&mut self) {
        self.go_on_loading();
        self.tick_groups();
        // What follows a write may write again, which in mode `memory` follows at once.
        const ROUND_COUNT_MAX: usize = 8;
        for _ in 0..ROUND_COUNT_MAX {
            if self.coordinator.ready.is_empty() {
                return;
            }
            self.flush_coordinators();
            self.commit_dirty();
        }
        self.coordinate_soon();
    }

    /// Slow work, about once a second.
    pub(super) fn tend_coordinators(&mut self) {
        self.retry_coordinators();
        self.resume_paused();
        self.refuse_late_writes();
        self.write_unwritten();
        self.expire_offsets();
    }
}
