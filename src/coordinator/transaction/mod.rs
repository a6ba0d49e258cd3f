//! Transactional ids: who may write under one, what its transaction includes, and how it ends.
//!
//! | file | its one job |
//! |---|---|
//! | [`transactions`] | the transactional ids of one coordinator: the face |
//! | [`metadata`] | one id as it is kept, and the changes that it can make |
//! | [`event`] | what comes in and what goes out |
//! | [`records`] | the records of `__transaction_state`, to and from bytes, in Kafka's own formats |
//!
//! A state machine, (state, event, now) -> effects, by the rules of Kafka's transaction coordinator (KIP-98, KIP-360,
//! KIP-890):
//! ```text
//! Empty --add--> Ongoing --end--> PrepareCommit --all markers--> CompleteCommit --add--> Ongoing
//!   ^               |   \--end, time-out, fence--> PrepareAbort --all markers--> CompleteAbort --add--> Ongoing
//!   +--init-- any state but Ongoing and Prepare...             Empty, Complete... --expiration--> Dead
//! ```
//! 1. **init** gives a producer id and an epoch. A new id gets epoch 0; a known one its epoch + 1, which fences whoever
//!    had it before; where the epochs of a producer id are used up, a new producer id. During a transaction it is
//!    aborted first, with an epoch that nobody gets (CONCURRENT_TRANSACTIONS: the client asks again). A client that
//!    names its id and epoch (KIP-360) is fenced unless they are the current ones or, after an answer that was lost, the
//!    last ones, which are answered again.
//! 2. **add** puts partitions into the transaction, which begins it. What is in it already is answered at once.
//! 3. **end** decides, and is answered when the decision is durable. It is asked again after a lost answer: the same
//!    decision is a success once it is complete and CONCURRENT_TRANSACTIONS before; another one INVALID_TXN_STATE.
//!    With the second transaction protocol each end raises the epoch, so that nothing late of the old transaction
//!    passes for the new one; and an abort is a success where nothing was begun, for its client does not know. Its end
//!    may come before its transaction: too soon after the one before it hears CONCURRENT_TRANSACTIONS.
//! 4. Markers go to every partition of the transaction, again and again until each is durable, over restarts too
//!    ([`Transactions::begin`]). Then the transaction is complete; until then the next cannot begin, and the first
//!    **add** of it waits, for a bounded time, instead of having to ask again. Completion itself is written late, in the record that begins
//!    the next transaction or about a second after: a restart before that sends the markers once more, which changes
//!    nothing, for whatever came after them has a later record.
//! 5. A transaction that is longer under way than its client's time-out is aborted and its producer fenced; an id that
//!    is silent for `transactional.id.expiration.ms` without a transaction is forgotten.
//!
//! Invariants
//! - One change of an id is being written at a time: whoever comes meanwhile hears CONCURRENT_TRANSACTIONS.
//! - What is answered and what markers say is durable: a change counts when [`Transactions::persisted`] says so. Only
//!   completion counts before: the decision and all its markers are durable then.
//! - Every ticket is given back exactly once.
//! - Epochs of a producer id only rise, and the greatest is never given to a client: it is there to fence the last.
//!
//! It must not know the log, partitions' leaders, connections or clocks.

pub mod event;
pub mod metadata;
pub mod records;
#[cfg(test)]
mod tests;
pub mod transactions;

pub use event::{Effect, TransactionError};
pub use transactions::Transactions;
