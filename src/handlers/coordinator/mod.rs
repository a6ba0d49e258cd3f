//! The coordinators of this shard: of groups, one for each partition of `__consumer_offsets` that it leads, and of
//! transactions, one for each of `__transaction_state`.
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
//! | [`consumer_groups`] | the same of groups of the consumer protocol (KIP-848) |
//! | [`consumer_group_heartbeat`], [`consumer_group_describe`] | their requests |
//! | [`describe_groups`], [`list_groups`], [`delete_groups`] | the requests of operators, and the end of groups |
//! | [`transactions`] | the transactional ids' state machine: its events, effects and deadlines |
//! | [`init_transaction`], [`add_to_txn`], [`end_txn`] | the requests of transactional producers |
//! | [`txn_offsets`] | offsets that are committed in transactions |
//! | [`describe_transactions`] | the requests of operators about transactions |
//!
//! A partition is [`Loading`](HostState::Loading) until its log was read, then [`Active`](HostState::Active). It
//! appends through its own log like a Produce does, with the same acknowledgement; it never goes over a socket.
//!
//! Invariants
//! - What is read and answered is durable: a commit is put into [`Offsets`] when the high watermark has passed it.
//! - What follows the writes of one partition happens in their order.
//! - A write either follows all of its course or is refused and changes nothing in memory. Refused after it was
//!   appended (the log went offline) it may be found at the next start, as with any Kafka broker.

mod add_to_txn;
pub(super) mod append;
mod consumer_group_describe;
mod consumer_group_heartbeat;
mod consumer_groups;
mod delete_groups;
mod describe_groups;
mod describe_transactions;
mod end_txn;
mod expiry;
mod find;
mod forget;
mod heartbeat;
mod init_transaction;
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
pub(super) mod transactions;
pub(super) mod txn_offsets;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::broker::Broker;
use super::call::Call;
use crate::base::time::Monotonic;
use crate::coordinator::consumer_group::ConsumerGroups;
use crate::coordinator::consumer_group::event::Settings as ConsumerSettings;
use crate::coordinator::group::Groups;
use crate::coordinator::offsets::Offsets;
use crate::coordinator::offsets::transactional::TransactionalOffsets;
use crate::coordinator::transaction::Transactions;
use crate::coordinator::{OFFSETS_TOPIC, TRANSACTIONS_TOPIC, partition_of};
use crate::io::Io;
use crate::model::id::{PartitionIndex, ProducerId, TopicId, TopicIdPartition};
use crate::protocol::error::ErrorCode;
use add_to_txn::BatchedAdd;
use append::{Continuation, Queued, Waiting};
use delete_groups::Deletion;
use forget::{Clearing, Unwritten};
use load::Load;
use offset_commit::PendingCommits;
use transactions::TransactionTicket;

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

/// What is coordinated in a topic's partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Host {
    /// Groups and their offsets.
    Groups = 0,
    /// Transactional ids.
    Transactions = 1,
}

impl Host {
    const ALL: [Host; 2] = [Host::Groups, Host::Transactions];

    /// The topic.
    pub fn topic(self) -> &'static str {
        match self {
            Host::Groups => OFFSETS_TOPIC,
            Host::Transactions => TRANSACTIONS_TOPIC,
        }
    }
}

/// One of the partitions that coordinators are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::handlers) struct Place {
    pub(super) host: Host,
    pub(super) index: PartitionIndex,
}

/// The coordinator of one partition. Of groups and offsets, or of transactional ids: the other is empty.
pub(super) struct Hosted {
    pub state: HostState,
    /// What groups have committed, as far as it is durable.
    pub offsets: Offsets,
    /// Offsets of transactions that are not decided yet, as far as they are durable.
    pub transactional: TransactionalOffsets,
    /// Who is a member of which group.
    pub groups: Groups<Call>,
    /// Transactional ids.
    pub transactions: Transactions<TransactionTicket>,
    /// The same of groups of the consumer protocol.
    pub consumer_groups: ConsumerGroups,
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
    /// The topics whose partitions these are: another one of the same name is another life.
    topics: [Option<TopicId>; 2],
    partitions: BTreeMap<Place, Hosted>,
    /// Partitions with writes that can be tried.
    ready: BTreeSet<Place>,
    /// Partitions with writes that the log was not ready for.
    stuck: BTreeSet<Place>,
    /// Partitions that are to be read, in order, and those of them that can go on at once.
    unread: VecDeque<Place>,
    reading: BTreeSet<Place>,
    readable: BTreeSet<Place>,
    /// Those that found no memory.
    paused: BTreeSet<Place>,
    /// Which life of each topic the tokens of reads belong to.
    generations: [u16; 2],
    /// Partitions that are still to be looked at for expired offsets, and when the last look began.
    unexpired: VecDeque<Place>,
    expired_at: Monotonic,
    /// When groups are to be looked at, as the shard's deadlines know.
    groups_due: Option<Monotonic>,
    /// What the operator decided about groups of the consumer protocol, once somebody has asked.
    consumer_settings: Option<Arc<ConsumerSettings>>,
    /// Raised whenever topics come, go or change their partitions.
    topics_version: u64,
    /// DeleteGroups requests that are not answered yet, by number.
    deletions: BTreeMap<u64, Deletion>,
    deletion_count: u64,
    /// AddPartitionsToTxn requests of several transactions that are not answered yet, by number.
    batched_adds: BTreeMap<u64, BatchedAdd>,
    batched_add_count: u64,
    /// Deleted topics of which offsets are still to be forgotten.
    clearing: BTreeMap<TopicId, Clearing>,
    /// When transactions were last looked at: for time-outs, and for ids to be forgotten.
    timed_out_at: Monotonic,
    ids_expired_at: Monotonic,
    /// When markers that were refused are sent again, and how often they were.
    markers_due: Option<Monotonic>,
    resent_count: u32,
}

impl Hosted {
    fn new(state: HostState) -> Hosted {
        Hosted {
            state,
            offsets: Offsets::default(),
            transactional: TransactionalOffsets::default(),
            groups: Groups::default(),
            transactions: Transactions::default(),
            consumer_groups: ConsumerGroups::default(),
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

    /// True if a marker of the producer is not in the log yet.
    pub fn has_queued_marker(&self, id: ProducerId) -> bool {
        self.queued.iter().any(|queued| queued.is_marker_of(id))
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
    fn partitions(&self) -> impl Iterator<Item = (Place, &Hosted)> {
        self.partitions.iter().map(|(index, hosted)| (*index, hosted))
    }

    /// The coordinator of a partition that [`Broker::coordinator_of`] has named.
    pub(super) fn hosted(&self, index: Place) -> Option<&Hosted> {
        self.partitions.get(&index)
    }

    /// Bytes of the changes that are not in a log yet.
    pub(super) fn queued_size_bytes(&self) -> usize {
        self.partitions.values().map(|hosted| hosted.queued_size_bytes).sum()
    }

    /// About what the groups of the shard take in memory.
    #[cfg(any(test, feature = "simulate"))]
    pub(super) fn groups_size_bytes(&self) -> usize {
        self.partitions.values().map(|hosted| hosted.groups.size_bytes()).sum()
    }

    /// About what the committed offsets of the shard take in memory.
    pub(super) fn offsets_size_bytes(&self) -> usize {
        self.partitions.values().map(|hosted| hosted.offsets.size_bytes() + hosted.transactional.size_bytes()).sum()
    }
}

impl<I: Io> Broker<I> {
    /// The partition whose coordinator, which is here and active, a group has; else why not.
    pub(super) fn coordinator_of(&self, group: &str) -> Result<Place, ErrorCode> {
        self.coordinator_in(Host::Groups, group)
    }

    /// The same for a transactional id.
    pub(super) fn coordinator_of_transaction(&self, transactional_id: &str) -> Result<Place, ErrorCode> {
        self.coordinator_in(Host::Transactions, transactional_id)
    }

    fn coordinator_in(&self, host: Host, id: &str) -> Result<Place, ErrorCode> {
        let topic = self.image.topic_by_name(host.topic()).ok_or(ErrorCode::NotCoordinator)?;
        let index = Place { host, index: PartitionIndex(partition_of(id, topic.partition_count)) };
        let hosted = self.coordinator.hosted(index).ok_or(ErrorCode::NotCoordinator)?;
        hosted.check_active().map(|()| index)
    }

    /// The metadata has changed: coordinators of partitions that are led here come and go.
    pub(super) fn open_coordinators(&mut self) {
        for host in Host::ALL {
            self.open_coordinators_of(host);
        }
    }

    fn open_coordinators_of(&mut self, host: Host) {
        let image = Arc::clone(&self.image);
        let topic = image.topic_by_name(host.topic());
        if self.coordinator.topics[host as usize] != topic.map(|topic| topic.id) {
            self.close_coordinators(host);
            self.coordinator.topics[host as usize] = topic.map(|topic| topic.id);
        }
        let Some(topic) = topic else { return };
        // Usually nothing has changed, and images come often.
        let led = topic.partitions().map(|index| Place { host, index });
        let led = led.filter(|index| !self.coordinator.partitions.contains_key(index));
        let led: Vec<Place> = led.filter(|place| image.leader(topic, place.index) == Some(self.broker_id())).collect();
        for index in led {
            // What has no directory has no record either.
            let state = if topic.is_materialized(index.index) { HostState::Loading } else { HostState::Active };
            self.coordinator.partitions.insert(index, Hosted::new(state));
            if state == HostState::Loading {
                self.coordinator.unread.push_back(index);
            }
        }
    }

    /// The topic is gone: what waits is refused.
    fn close_coordinators(&mut self, of: Host) {
        let indexes = self.coordinator.partitions.keys().copied().filter(|index| index.host == of);
        for index in indexes.collect::<Vec<_>>() {
            self.fail_coordinator(index, ErrorCode::NotCoordinator);
        }
        let stays = |index: &Place| index.host != of;
        let host = &mut self.coordinator;
        host.partitions.retain(|index, _| stays(index));
        host.unread.retain(stays);
        host.reading.retain(stays);
        host.readable.retain(stays);
        host.paused.retain(stays);
        host.ready.retain(stays);
        host.stuck.retain(stays);
        host.unexpired.retain(stays);
        host.generations[of as usize] = host.generations[of as usize].wrapping_add(1);
    }

    /// The log in `slot` has told something: what it means to the coordinator of its partition, if it has one.
    pub(super) fn coordinated(&self, id: TopicIdPartition) -> Option<Place> {
        let host = Host::ALL.into_iter().find(|host| self.coordinator.topics[*host as usize] == Some(id.topic))?;
        let place = Place { host, index: id.partition };
        self.coordinator.partitions.contains_key(&place).then_some(place)
    }

    /// The coordinator of a partition ends: what waits there is refused, what it knew is forgotten.
    pub(super) fn fail_coordinator(&mut self, index: Place, error: ErrorCode) {
        let Some(hosted) = self.coordinator.partitions.get_mut(&index) else { return };
        hosted.state = HostState::Failed;
        hosted.offsets = Offsets::default();
        hosted.transactional = TransactionalOffsets::default();
        hosted.consumer_groups = ConsumerGroups::default();
        hosted.load = None;
        hosted.queued_size_bytes = 0;
        hosted.unwritten.clear();
        let waiting: Vec<_> = hosted.waiting.drain(..).map(|waiting| waiting.then).collect();
        let queued: Vec<_> = hosted.queued.drain(..).map(|queued| queued.then).collect();
        self.coordinator.reading.remove(&index);
        self.coordinator.readable.remove(&index);
        self.coordinator.paused.remove(&index);
        self.end_groups(index, error);
        self.end_transactions(index, error);
        for then in waiting.into_iter().chain(queued) {
            self.follow(index, then, Err(error));
        }
        self.nothing_to_clear(index);
    }

    /// What a turn of the event loop does for coordinators once requests and completions are through.
    pub(super) fn coordinate(&mut self) {
        self.go_on_loading();
        self.tick_groups();
        self.resend_markers();
        self.retry_questions();
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
        self.tend_transactions();
    }
}
