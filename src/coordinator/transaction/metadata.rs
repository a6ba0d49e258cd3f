//! A transactional id as it is kept, and the changes that it can make: each is a new value, the old one stays until
//! the new one is durable.

use std::collections::{BTreeMap, BTreeSet};

use super::event::Producer;
use crate::base::time::Timestamp;
use crate::model::id::{PartitionIndex, ProducerEpoch, ProducerId};

/// The last epoch that a client gets: the one above it fences that client.
const EPOCH_MAX: i16 = i16::MAX - 1;

/// Where a transactional id is in its life. The numbers are Kafka's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i8)]
pub enum TransactionState {
    /// Its producer is initialized and has not begun a transaction.
    #[default]
    Empty = 0,
    /// A transaction is under way.
    Ongoing = 1,
    /// It is decided: commit.
    PrepareCommit = 2,
    /// It is decided: abort.
    PrepareAbort = 3,
    /// Every partition has its marker.
    CompleteCommit = 4,
    /// Every partition has its marker.
    CompleteAbort = 5,
    /// It is being forgotten.
    Dead = 6,
    /// Its producer is being fenced; never durable.
    PrepareEpochFence = 7,
}

impl TransactionState {
    /// All of them, by number.
    pub const ALL: [TransactionState; 8] = [
        TransactionState::Empty,
        TransactionState::Ongoing,
        TransactionState::PrepareCommit,
        TransactionState::PrepareAbort,
        TransactionState::CompleteCommit,
        TransactionState::CompleteAbort,
        TransactionState::Dead,
        TransactionState::PrepareEpochFence,
    ];

    /// The state with Kafka's number.
    pub fn from_number(number: i8) -> Option<TransactionState> {
        TransactionState::ALL.get(usize::try_from(number).ok()?).copied()
    }

    /// Kafka's name for it.
    pub fn name(self) -> &'static str {
        match self {
            TransactionState::Empty => "Empty",
            TransactionState::Ongoing => "Ongoing",
            TransactionState::PrepareCommit => "PrepareCommit",
            TransactionState::PrepareAbort => "PrepareAbort",
            TransactionState::CompleteCommit => "CompleteCommit",
            TransactionState::CompleteAbort => "CompleteAbort",
            TransactionState::Dead => "Dead",
            TransactionState::PrepareEpochFence => "PrepareEpochFence",
        }
    }

    /// True while the markers of a decision are on their way.
    pub fn is_prepared(self) -> bool {
        matches!(self, TransactionState::PrepareCommit | TransactionState::PrepareAbort)
    }

    /// True after a transaction whose markers are written.
    pub fn is_complete(self) -> bool {
        matches!(self, TransactionState::CompleteCommit | TransactionState::CompleteAbort)
    }

    /// True if nothing is lost when the id is forgotten.
    pub fn may_expire(self) -> bool {
        self == TransactionState::Empty || self.is_complete()
    }
}

/// Partitions by topic.
pub type Partitions = BTreeMap<Box<str>, BTreeSet<PartitionIndex>>;

/// A transactional id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// The producer id in use.
    pub producer_id: ProducerId,
    /// The one before it, where its epochs were used up; none otherwise.
    pub previous_producer_id: ProducerId,
    /// The one that follows when the transaction is complete; none otherwise.
    pub next_producer_id: ProducerId,
    /// The producer's epoch; -1: no client has one yet.
    pub producer_epoch: ProducerEpoch,
    /// The epoch that a client may name whose answer was lost; -1: none.
    pub last_producer_epoch: ProducerEpoch,
    /// How long a transaction may take.
    pub timeout_ms: i32,
    /// Where it is.
    pub state: TransactionState,
    /// What the transaction includes.
    pub partitions: Partitions,
    /// When the transaction began; `NONE`: there was none.
    pub start: Timestamp,
    /// When it last changed.
    pub last_update: Timestamp,
    /// The transaction protocol of the client that made the last change: 0, 1 or, with epochs that rise with each
    /// transaction, 2.
    pub client_version: i16,
}

impl Metadata {
    /// A new id, without a client yet.
    pub fn new(producer_id: ProducerId, timeout_ms: i32, now: Timestamp) -> Metadata {
        Metadata {
            producer_id,
            previous_producer_id: ProducerId::NONE,
            next_producer_id: ProducerId::NONE,
            producer_epoch: ProducerEpoch(-1),
            last_producer_epoch: ProducerEpoch(-1),
            timeout_ms,
            state: TransactionState::Empty,
            partitions: Partitions::new(),
            start: Timestamp::NONE,
            last_update: now,
            client_version: 0,
        }
    }

    /// True if no client may get another epoch of this producer id.
    pub fn is_epoch_exhausted(&self) -> bool {
        is_exhausted(self.producer_epoch)
    }

    /// The producer that goes on: another one where the epochs are used up.
    pub fn next_producer(&self) -> Producer {
        match self.next_producer_id {
            ProducerId::NONE => (self.producer_id, self.producer_epoch),
            next => (next, ProducerEpoch(0)),
        }
    }

    /// True if epochs rise with each transaction.
    pub fn is_v2(&self) -> bool {
        self.client_version >= 2
    }

    /// True if all of these are in the transaction.
    pub fn includes(&self, partitions: &Partitions) -> bool {
        partitions.iter().all(|(topic, indexes)| self.partitions.get(topic).is_some_and(|own| own.is_superset(indexes)))
    }

    /// True if its transaction has taken too long.
    pub fn is_timed_out(&self, now: Timestamp) -> bool {
        self.state == TransactionState::Ongoing && now.0.saturating_sub(self.start.0) >= i64::from(self.timeout_ms)
    }

    /// True if nobody has used it for so long.
    pub fn is_expired(&self, now: Timestamp, expiration_ms: u64) -> bool {
        let age_ms = now.0.saturating_sub(self.last_update.0);
        self.state.may_expire() && u64::try_from(age_ms).is_ok_and(|age_ms| age_ms >= expiration_ms)
    }

    /// A client begins anew with the next epoch, which its `expected` one allows if it names one. `None`: it is fenced.
    pub fn with_next_epoch(
        &self,
        expected: Option<ProducerEpoch>,
        timeout_ms: i32,
        now: Timestamp,
    ) -> Option<Metadata> {
        // After a fence with the greatest epoch there is no next one: then nobody is expected who could get it.
        let bumped = ProducerEpoch(self.producer_epoch.0.saturating_add(1));
        let (epoch, last) = match expected {
            None => (bumped, ProducerEpoch(-1)),
            Some(expected) if self.producer_epoch.0 == -1 || expected == self.producer_epoch => {
                (bumped, self.producer_epoch)
            }
            // The answer was lost.
            Some(expected) if expected == self.last_producer_epoch => (self.producer_epoch, self.last_producer_epoch),
            Some(_) => return None,
        };
        Some(Metadata {
            producer_epoch: epoch,
            last_producer_epoch: last,
            previous_producer_id: self.producer_id,
            ..self.emptied(timeout_ms, now)
        })
    }

    /// A client begins anew with another producer id.
    pub fn with_producer_id(&self, id: ProducerId, keeps_last: bool, timeout_ms: i32, now: Timestamp) -> Metadata {
        Metadata {
            producer_id: id,
            previous_producer_id: self.producer_id,
            producer_epoch: ProducerEpoch(0),
            last_producer_epoch: if keeps_last { self.producer_epoch } else { ProducerEpoch(-1) },
            ..self.emptied(timeout_ms, now)
        }
    }

    fn emptied(&self, timeout_ms: i32, now: Timestamp) -> Metadata {
        Metadata {
            next_producer_id: ProducerId::NONE,
            state: TransactionState::Empty,
            partitions: Partitions::new(),
            start: Timestamp::NONE,
            last_update: now,
            timeout_ms,
            ..self.clone()
        }
    }

    /// With more partitions, which begin a transaction if none is under way.
    pub fn with_partitions(&self, partitions: &Partitions, client_version: i16, now: Timestamp) -> Metadata {
        let mut next = Metadata { last_update: now, client_version, ..self.clone() };
        if self.state != TransactionState::Ongoing {
            next.state = TransactionState::Ongoing;
            next.start = now;
            next.partitions.clear();
        }
        for (topic, indexes) in partitions {
            next.partitions.entry(topic.clone()).or_default().extend(indexes);
        }
        next
    }

    /// Decided; a transaction that includes nothing begins and ends now. With the second protocol the epoch rises, and
    /// `next_id` follows where it cannot.
    pub fn prepared(&self, commits: bool, client_version: i16, next_id: ProducerId, now: Timestamp) -> Metadata {
        let state = if commits { TransactionState::PrepareCommit } else { TransactionState::PrepareAbort };
        let mut next = Metadata { state, last_update: now, client_version, ..self.clone() };
        if self.state != TransactionState::Ongoing {
            next.start = now;
        }
        if client_version >= 2 {
            next.last_producer_epoch = self.producer_epoch;
            next.producer_epoch = ProducerEpoch(self.producer_epoch.0.saturating_add(1));
            next.next_producer_id = next_id;
        }
        next
    }

    /// Aborted because its producer is fenced, with an epoch that nobody gets; `is_raised`: it was raised before, by
    /// a fence that could not be written.
    pub fn fenced(&self, is_raised: bool, now: Timestamp) -> Metadata {
        let raised_by = i16::from(!is_raised);
        let epoch = ProducerEpoch(self.producer_epoch.0.saturating_add(raised_by));
        Metadata {
            state: TransactionState::PrepareAbort,
            producer_epoch: epoch,
            last_producer_epoch: ProducerEpoch(-1),
            // What a client of the second protocol did before does not count any more.
            client_version: self.client_version.min(1),
            last_update: now,
            ..self.clone()
        }
    }

    /// Every partition has its marker.
    pub fn completed(&self, now: Timestamp) -> Metadata {
        let state = match self.state {
            TransactionState::PrepareCommit => TransactionState::CompleteCommit,
            _ => TransactionState::CompleteAbort,
        };
        let mut next = Metadata { state, last_update: now, partitions: Partitions::new(), ..self.clone() };
        if self.is_v2() && self.next_producer_id != ProducerId::NONE {
            next.previous_producer_id = self.producer_id;
            next.last_producer_epoch = self.producer_epoch;
            next.producer_id = std::mem::replace(&mut next.next_producer_id, ProducerId::NONE);
            next.producer_epoch = ProducerEpoch(0);
        }
        next
    }
}

/// True for epochs after which a producer id cannot be used any more.
pub fn is_exhausted(epoch: ProducerEpoch) -> bool {
    epoch.0 >= EPOCH_MAX
}
