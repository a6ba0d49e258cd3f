//! What is known of all transactions, and what contradicts it.

use std::collections::BTreeMap;
use std::fmt::Display;

use uuid::Uuid;

use super::{PARTITION_COUNT, TOPIC};
use crate::simulate::keyed::Keyed;
use crate::simulate::violation::{Checker, Violation, violated};

/// What its producer was told of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// Nothing: it goes on, or its commit was asked for and not answered.
    Nothing,
    Committed,
    /// So, or its producer began anew without having asked for a commit.
    Aborted,
}

/// A transaction.
pub(super) struct Transaction {
    pub producer: u32,
    pub told: Told,
    /// A commit was asked for: it may be one.
    pub is_commit_asked: bool,
    /// Its producer was told that an offset is part of it.
    pub has_offset: bool,
    /// Records or the offset of it were seen.
    is_shown: bool,
    /// Records of it were passed over below a last stable offset, or its offset where the group's was stable.
    is_hidden: bool,
}

/// A record that was sent.
pub(super) struct Sent {
    pub record: Keyed,
    pub transaction: usize,
    pub partition: usize,
    pub at: Option<i64>,
}

/// What is known, of all producers.
#[derive(Default)]
pub(super) struct Book {
    pub topic: Option<Uuid>,
    /// Where each partition is led, if that is known.
    pub leaders: Vec<usize>,
    pub transactions: Vec<Transaction>,
    pub sent: Vec<Sent>,
    /// Which record stands where, as far as it was told.
    pub placed: [BTreeMap<i64, usize>; PARTITION_COUNT],
    /// The greatest last stable offset that was told.
    pub stable: [i64; PARTITION_COUNT],
}

impl Book {
    /// A producer's next transaction: its number.
    pub fn begin(&mut self, producer: u32) -> usize {
        self.transactions.push(Transaction {
            producer,
            told: Told::Nothing,
            is_commit_asked: false,
            has_offset: false,
            is_shown: false,
            is_hidden: false,
        });
        self.transactions.len() - 1
    }

    /// A transaction's producer was told how it ended.
    pub fn ended(&mut self, at: usize, commits: bool) -> Result<(), Violation> {
        let transaction = &mut self.transactions[at];
        transaction.told = if commits { Told::Committed } else { Told::Aborted };
        match commits && transaction.is_hidden {
            true => violated(Checker::Fractured, format!("transaction {at} is committed, and was passed over")),
            false => Ok(()),
        }
    }

    /// A record stands at an offset: it was acknowledged there, or read.
    pub fn place(&mut self, partition: usize, number: usize, offset: i64) -> Result<(), Violation> {
        let there = self.placed[partition].insert(offset, number);
        let sent = &mut self.sent[number];
        let at = sent.at.replace(offset);
        if there.is_some_and(|there| there != number)
            || at.is_some_and(|at| at != offset)
            || sent.partition != partition
        {
            let what = format!(
                "{TOPIC}-{partition}: record {number} of partition {} is at {offset} and at {at:?}, where {there:?} was",
                sent.partition
            );
            return violated(Checker::Duplicate, what);
        }
        Ok(())
    }

    /// A reader of committed records has seen a record, or has passed over it.
    pub fn read(&mut self, partition: usize, number: usize, offset: i64, is_shown: bool) -> Result<(), Violation> {
        self.place(partition, number, offset)?;
        self.decide(
            self.sent[number].transaction,
            is_shown,
            &format_args!("{TOPIC}-{partition}: record {number} at {offset}"),
        )
    }

    /// `what` of a transaction was seen, or passed over where all that was decided is seen.
    pub fn decide(&mut self, at: usize, is_shown: bool, what: &dyn Display) -> Result<(), Violation> {
        let transaction = &mut self.transactions[at];
        match is_shown {
            true => transaction.is_shown = true,
            false => transaction.is_hidden = true,
        }
        let who = || format!("{what} of transaction {at}");
        if is_shown && (!transaction.is_commit_asked || transaction.told == Told::Aborted) {
            return violated(Checker::AbortedRead, format!("{} is read, which was not committed", who()));
        }
        if !is_shown && transaction.told == Told::Committed {
            return violated(Checker::Fractured, format!("{} is passed over, which was committed", who()));
        }
        if transaction.is_shown && transaction.is_hidden {
            let what = if is_shown { "read, and others of it" } else { "passed over, and others of it were read, not" };
            return violated(Checker::Fractured, format!("{} is {what} passed over", who()));
        }
        Ok(())
    }
}
