//! What comes into the transaction coordinator and what goes out of it.

use crate::base::time::Now;
use crate::model::id::{ProducerEpoch, ProducerId};

use super::metadata::{Metadata, Partitions};

/// Why a request of a transactional producer fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransactionError {
    /// The transactional id is empty or too long.
    #[error("the transactional id is empty or too long")]
    InvalidRequest,
    /// The time-out is not within bounds.
    #[error("the transaction timeout is not within bounds")]
    InvalidTransactionTimeout,
    /// Another change is under way: ask again.
    #[error("another change of this transactional id is under way")]
    ConcurrentTransactions,
    /// The id is unknown, or has another producer id.
    #[error("the transactional id has another producer id")]
    InvalidProducerIdMapping,
    /// A newer producer has the id.
    #[error("another producer has taken over")]
    ProducerFenced,
    /// The request makes no sense in this state.
    #[error("the transaction is in another state")]
    InvalidTxnState,
    /// The partition is not in the transaction, which can only be aborted.
    #[error("the partition is not in the transaction")]
    TransactionAbortable,
    /// There is no room for more ids, or the log does not take the change.
    #[error("the change cannot be written now")]
    CoordinatorNotAvailable,
    /// The coordinator is not here any more.
    #[error("the coordinator is not here")]
    NotCoordinator,
    /// The transaction includes more partitions than a record can hold.
    #[error("the transaction includes too many partitions")]
    TooLarge,
    /// A producer id is needed: the caller gets some and asks again. Nothing was changed.
    #[error("a producer id is needed")]
    NoProducerId,
}

/// What an event may know and do.
pub struct Context<'a, T> {
    /// Both clocks.
    pub now: Now,
    /// What the operator decided.
    pub settings: Settings,
    /// Gives a producer id that nobody has; `None`: there is none at hand.
    pub producer_id: &'a mut dyn FnMut() -> Option<ProducerId>,
    /// How many more ids there is room for.
    pub room_count: usize,
    /// What is to be done.
    pub effects: &'a mut Vec<Effect<T>>,
}

/// What the operator decided about transactions.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// `transaction.max.timeout.ms`
    pub timeout_ms_max: u64,
    /// `transactional.id.expiration.ms`
    pub expiration_ms: u64,
}

/// A producer's id and epoch.
pub type Producer = (ProducerId, ProducerEpoch);

/// Which write of which id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The transactional id.
    pub transactional_id: Box<str>,
    /// The write's number.
    pub number: u64,
}

/// A decision, to be written into partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Markers {
    /// The transactional id, for [`Transactions::marked`](super::Transactions::marked).
    pub transactional_id: Box<str>,
    /// The transaction's producer.
    pub producer: Producer,
    /// What was decided.
    pub commits: bool,
    /// Where to.
    pub partitions: Partitions,
}

/// What is to be done after an event.
#[derive(Debug)]
pub enum Effect<T> {
    /// Answer an init.
    Init(T, Result<Producer, TransactionError>),
    /// Answer an add.
    Add(T, Result<(), TransactionError>),
    /// Answer an end. The producer is the one of the next transaction.
    End(T, Result<Producer, TransactionError>),
    /// Make this durable, `None` is a tombstone, and call [`persisted`](super::Transactions::persisted).
    Persist(Written, Option<Box<Metadata>>),
    /// Put this into the log some time: it has happened, and what is durable leads to it again.
    Note(Box<str>, Box<Metadata>),
    /// Write markers and call [`marked`](super::Transactions::marked) for each partition.
    Mark(Markers),
}
