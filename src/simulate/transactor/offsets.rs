//! Offsets that a producer commits with its transactions: to a group of its own, each the number of the transaction.
//!
//! Whoever asks for a stable offset learns which transaction was the last that counts. Those with an offset after it
//! do not count and never will; it does.

use std::fmt::Display;

use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka_protocol::messages::{GroupId, OffsetFetchRequest, TransactionalId, TxnOffsetCommitRequest};

use super::TOPIC;
use super::book::Book;
use crate::simulate::admin::topic_name;
use crate::simulate::violation::{Checker, Violation, violated};
use crate::simulate::wire::Session;

/// The version of an OffsetFetch here.
pub(super) const FETCH: i16 = 7;

/// Commits the offset `transaction` to a group without members.
pub(super) fn commit(
    name: TransactionalId,
    group: GroupId,
    session: Session,
    transaction: usize,
) -> TxnOffsetCommitRequest {
    let partition =
        TxnOffsetCommitRequestPartition::default().with_partition_index(0).with_committed_offset(transaction as i64);
    let topic = TxnOffsetCommitRequestTopic::default().with_name(topic_name(TOPIC)).with_partitions(vec![partition]);
    TxnOffsetCommitRequest::default()
        .with_transactional_id(name)
        .with_group_id(group)
        .with_producer_id(session.id.into())
        .with_producer_epoch(session.epoch)
        .with_topics(vec![topic])
}

/// Asks for the group's stable offset.
pub(super) fn fetch(group: GroupId) -> OffsetFetchRequest {
    let topic = OffsetFetchRequestTopic::default().with_name(topic_name(TOPIC)).with_partition_indexes(vec![0]);
    OffsetFetchRequest::default().with_group_id(group).with_topics(Some(vec![topic])).with_require_stable(true)
}

/// This is the stable offset of a producer's group, -1 if there is none.
pub(super) fn read(book: &mut Book, producer: u32, offset: i64, who: &dyn Display) -> Result<(), Violation> {
    let is_own = |at: usize, book: &Book| book.transactions[at].producer == producer;
    match usize::try_from(offset) {
        Err(_) if offset == -1 => {}
        Ok(at) if at < book.transactions.len() && is_own(at, book) => {
            book.decide(at, true, &format_args!("{who}: the offset"))?;
        }
        _ => return violated(Checker::Phantom, format!("{who}: {offset} is no transaction of its own")),
    }
    for at in (offset + 1) as usize..book.transactions.len() {
        if is_own(at, book) && book.transactions[at].has_offset {
            book.decide(at, false, &format_args!("{who}: at {offset} the offset"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::book::Told;
    use super::*;

    /// Transactions of two producers in turns, each with an offset and a commit that was asked for.
    fn book() -> Book {
        let mut book = Book::default();
        for producer in [0, 1, 0, 1, 0] {
            let at = book.begin(producer);
            (book.transactions[at].has_offset, book.transactions[at].is_commit_asked) = (true, true);
        }
        book
    }

    #[test]
    fn a_stable_offset_decides_which_transactions_count() {
        let mut sound = book();
        sound.transactions[2].told = Told::Committed;
        read(&mut sound, 0, 2, &"0").expect("it counts");
        read(&mut sound, 1, -1, &"1").expect("nobody was told that one of them counts");
        assert!(sound.ended(4, true).is_err(), "it was passed over");
        assert!(read(&mut sound, 0, 4, &"0").is_err());

        let mut lost = book();
        lost.transactions[4].told = Told::Committed;
        assert!(read(&mut lost, 0, 2, &"0").is_err(), "the last one counts");
        let mut undecided = book();
        undecided.transactions[4].is_commit_asked = false;
        assert!(read(&mut undecided, 0, 4, &"0").is_err(), "it may still be aborted");
        assert!(read(&mut book(), 0, 3, &"0").is_err(), "of the other producer");
        assert!(read(&mut book(), 0, 5, &"0").is_err(), "not begun");
    }
}
