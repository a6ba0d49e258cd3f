//! Which commits go into the shard's journal, and what it is told.
//!
//! 1. At the end of a turn a log that has little to commit waits for the journal if that is likely to spare writes:
//!    if at least `ottla.journal.min.partitions` logs wait or write for themselves. Else it writes itself, at once: few
//!    partitions have nothing to gain, and each byte in the journal is written twice.
//! 2. While a group is being written the next one gathers. Where the journal has no room, or no memory is left, those
//!    who wait write themselves.
//! 3. What the lap before holds is settled meanwhile (see [`crate::storage::journal`]).

use super::broker::Broker;
use super::cold_reads::CommitBegan;
use super::token;
use crate::io::{Completion, Io, Token};
use crate::storage::{Group, Journal, Settled};

/// The shard's journal and who waits for it.
pub struct JournalHost {
    pub(super) journal: Journal,
    /// Logs that wait to be committed by the journal: slot and generation.
    waiting: Vec<(u32, u16)>,
    group: Group,
    /// The write under way.
    began: Option<CommitBegan>,
    /// From so many logs on that commit at a time.
    partition_count_min: usize,
    /// Logs whose own write is under way.
    writing_count: usize,
    /// Memory was short: what is in the journal is to be settled, which frees some.
    is_hurried: bool,
}

impl JournalHost {
    /// Nobody waits.
    pub fn new(journal: Journal, partition_count_min: usize) -> JournalHost {
        JournalHost {
            journal,
            waiting: Vec::new(),
            group: Group::default(),
            began: None,
            partition_count_min,
            writing_count: 0,
            is_hurried: false,
        }
    }

    /// Somebody found no memory.
    pub(super) fn hurry(&mut self) {
        self.is_hurried = true;
    }
}

impl<I: Io> Broker<I> {
    /// Lets a log with something to commit wait for the journal, if that may take it.
    pub(super) fn wait_for_journal(&mut self, slot: u32) -> bool {
        if !self.journal.journal.is_on() {
            return false;
        }
        let generation = self.partitions.generation(slot);
        let partition = self.partitions.get_mut(slot);
        let may = partition.log.journalable_bytes().is_some();
        if may && !std::mem::replace(&mut partition.waits_for_journal, true) {
            self.journal.waiting.push((slot, generation));
        }
        may
    }

    /// Commits those who wait: by the journal, or each for itself. At the end of a turn.
    pub(super) fn commit_waiting(&mut self) {
        if self.journal.waiting.is_empty() || self.journal.journal.is_writing() {
            return;
        }
        let is_crowd = self.journal.waiting.len() + self.journal.writing_count >= self.journal.partition_count_min;
        let waiting = std::mem::take(&mut self.journal.waiting);
        for &(slot, generation) in &waiting {
            let Some(partition) = self.partitions.current(slot, generation) else { continue };
            partition.waits_for_journal = false;
            match partition.log.journalable_bytes().filter(|_| is_crowd) {
                Some(bytes) if self.journal.group.is_full_for(bytes) => {
                    // It is in the next group.
                    partition.waits_for_journal = true;
                    self.journal.waiting.push((slot, generation));
                }
                Some(_) if partition.log.journal_into(&mut self.journal.group) => {}
                _ => self.commit_itself(slot),
            }
        }
        if self.journal.waiting.is_empty() {
            self.journal.waiting = waiting;
            self.journal.waiting.clear();
        }
        if !self.journal.group.is_empty() {
            self.write_group();
        }
    }

    /// Writes the group that was gathered, or lets its logs write themselves.
    fn write_group(&mut self) {
        let now = self.now.monotonic;
        let JournalHost { journal, group, .. } = &mut self.journal;
        let size_bytes = group.size_bytes();
        if journal.has_room(&mut self.io, size_bytes, now) && journal.write(&mut self.io, group, now) {
            self.counters.journal_writes += 1;
            self.counters.journal_bytes += size_bytes as u64;
            self.journal.began = Some(self.begin_commit(size_bytes as u64));
            self.journal.group.clear();
            return;
        }
        let logs: Vec<u64> = group.logs().map(|(log, _)| log).collect();
        group.clear();
        self.told_of_group(&logs, false);
        for log in logs {
            self.commit_itself(token::parts(Token(log)).index);
        }
    }

    /// The logs of a group learn what became of it.
    fn told_of_group(&mut self, logs: &[u64], is_durable: bool) {
        for &log in logs {
            let parts = token::parts(Token(log));
            if let Some(partition) = self.partitions.current(parts.index, parts.generation) {
                let events = partition.log.journaled(&mut self.io, is_durable);
                self.counters.journal_commits += u64::from(is_durable);
                self.react(parts.index, events);
            }
        }
    }

    /// An operation of the journal has completed.
    pub(super) fn journal_completed(&mut self, completion: Completion) {
        let (token, now) = (completion.token, self.now.monotonic);
        let Some(written) = self.journal.journal.complete(&mut self.io, token, completion.result, now) else { return };
        if let Some(began) = self.journal.began.take() {
            self.end_commit(began, true);
        }
        self.told_of_group(&written.logs, written.is_durable);
        self.journal.journal.give_back(written.logs);
        self.retry_waiting();
    }

    /// Goes on settling what the lap before holds. At the end of a turn.
    pub(super) fn settle_journalled(&mut self) {
        if std::mem::take(&mut self.journal.is_hurried) {
            self.journal.journal.hurry(&mut self.io, self.now.monotonic);
        }
        let (partitions, io) = (&mut self.partitions, &mut self.io);
        let mut begun = Vec::new();
        self.journal.journal.settle(|log, end| {
            let parts = token::parts(Token(log));
            let Some(partition) = partitions.current(parts.index, parts.generation) else { return Settled::Yes };
            match &mut partition.log {
                log if log.is_settled(end) => Settled::Yes,
                log if log.offline().is_some() => Settled::Never,
                log => {
                    begun.push((parts.index, log.settle(io, end)));
                    Settled::UnderWay
                }
            }
        });
        for (slot, events) in begun {
            self.commit_began(slot);
            self.react(slot, events);
        }
    }

    /// True if every log has in its segments what the journal holds of it.
    pub fn is_journal_settled(&self) -> bool {
        self.journal.journal.open_entries().all(|(log, end)| {
            let parts = token::parts(Token(log));
            let partition = self.partitions.look(parts.index, parts.generation);
            partition.is_none_or(|partition| partition.log.is_settled(end))
        })
    }

    /// Counts logs whose own write is under way.
    pub(super) fn note_writing(&mut self, slot: u32) {
        let partition = self.partitions.get_mut(slot);
        let is_writing = partition.log.writing_bytes().is_some();
        match (std::mem::replace(&mut partition.is_writing, is_writing), is_writing) {
            (false, true) => self.journal.writing_count += 1,
            (true, false) => self.journal.writing_count -= 1,
            _ => {}
        }
    }

    /// The directory of the journal, if nothing in it is needed any more: for the end of a clean stop.
    pub fn settled_journal(&self) -> Option<std::path::PathBuf> {
        self.journal.journal.dir().filter(|_| self.is_journal_settled()).cloned()
    }
}
