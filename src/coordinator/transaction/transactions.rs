//! The transactional ids of one coordinator, and what happens to them: see the module above for the rules.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::base::time::{Monotonic, Timestamp};
use crate::model::id::{PartitionIndex, ProducerEpoch, ProducerId};
use crate::model::limits::{HELD_ADD_WAIT_MAX, TRANSACTION_PARTITIONS_SIZE_BYTES_MAX, TRANSACTIONAL_ID_SIZE_BYTES_MAX};

use super::event::{Context, Effect, Markers, Producer, TransactionError, Written};
use super::metadata::{Metadata, Partitions, TransactionState, is_exhausted};

/// For so long after the last end an end of the second protocol that has nothing to commit is told to come again. Java's
/// producer looks at what it has buffered and at what it is to ask next one after the other; where its thread is kept
/// waiting in between, as on a busy machine, the end of a transaction overtakes the records of it (as seen with clients
/// 4.3). Told INVALID_TXN_STATE, which is right, it gives up for good; told to ask again it sends the records first.
/// A start counts as an end: when the last one was is not known then.
const OVERTAKEN_MAX: Duration = Duration::from_secs(2);

/// A change that is being written.
#[derive(Debug)]
struct Pending<T> {
    number: u64,
    next: Option<Metadata>,
    asker: Asker<T>,
}

/// Who waits for a change, and for what.
#[derive(Debug)]
enum Asker<T> {
    Init(T),
    Add(T),
    End(T),
    /// An init that has to ask again when the abort is durable.
    Fence(T),
    /// Nobody, for a transaction that has timed out.
    TimeOut,
    /// Nobody: an expiration.
    Nobody,
}

/// Who wants to begin the next transaction.
#[derive(Debug)]
struct Next<T> {
    ticket: T,
    /// How long it waits at most.
    until: Monotonic,
    producer: Producer,
    partitions: Partitions,
    client_version: i16,
}

#[derive(Debug)]
struct Entry<T> {
    metadata: Metadata,
    /// When the metadata changed, in the life of this process: no jump of the wall clock makes it longer or shorter ago.
    changed_at: Monotonic,
    pending: Option<Pending<T>>,
    /// Partitions whose marker is on its way, and those where it was refused.
    unmarked: Partitions,
    refused: Partitions,
    /// A fence was not written: its epoch is taken already.
    is_epoch_raised: bool,
    /// The one that waits for the end of this transaction.
    next: Option<Next<T>>,
}

/// A partition, for which coordinators verify that it is in a transaction.
pub type PartitionName<'a> = (&'a str, PartitionIndex);

/// See the module.
#[derive(Debug)]
pub struct Transactions<T> {
    entries: BTreeMap<Box<str>, Entry<T>>,
    /// Ids whose markers must be sent again.
    unfinished: BTreeSet<Box<str>>,
    /// Ids whose completion is in no record yet.
    unwritten: BTreeSet<Box<str>>,
    /// Ids of which somebody waits for the end of the transaction, by the time until when.
    held: BTreeSet<(Monotonic, Box<str>)>,
    write_count: u64,
}

impl<T> Default for Transactions<T> {
    fn default() -> Transactions<T> {
        Transactions {
            entries: BTreeMap::new(),
            unfinished: BTreeSet::new(),
            unwritten: BTreeSet::new(),
            held: BTreeSet::new(),
            write_count: 0,
        }
    }
}

/// Fails if this can be no transactional id.
pub fn check_id(transactional_id: &str) -> Result<(), TransactionError> {
    match (1..=TRANSACTIONAL_ID_SIZE_BYTES_MAX).contains(&transactional_id.len()) {
        true => Ok(()),
        false => Err(TransactionError::InvalidRequest),
    }
}

impl<T> Transactions<T> {
    /// A client begins: it gets a producer id and an epoch, and whoever had the id before is fenced. `expected`: the
    /// ones that the client has, if it has some. Without a producer id at hand the ticket comes back and nothing has
    /// happened.
    pub fn init(
        &mut self,
        ticket: T,
        transactional_id: &str,
        timeout_ms: i32,
        expected: Option<Producer>,
        context: &mut Context<'_, T>,
    ) -> Result<(), T> {
        match self.judge_init(transactional_id, timeout_ms, expected, context) {
            Ok((next, is_fence)) => {
                let asker = if is_fence { Asker::Fence(ticket) } else { Asker::Init(ticket) };
                self.write(transactional_id, Some(next), asker, context);
            }
            Err(TransactionError::NoProducerId) => return Err(ticket),
            Err(error) => context.effects.push(Effect::Init(ticket, Err(error))),
        }
        Ok(())
    }

    /// What init makes of an id, and whether that is only the abort of what is under way.
    fn judge_init(
        &mut self,
        id: &str,
        timeout_ms: i32,
        expected: Option<Producer>,
        context: &mut Context<'_, T>,
    ) -> Result<(Metadata, bool), TransactionError> {
        check_id(id)?;
        let is_allowed = |ms: u64| (1..=context.settings.timeout_ms_max).contains(&ms);
        if !u64::try_from(timeout_ms).is_ok_and(is_allowed) {
            return Err(TransactionError::InvalidTransactionTimeout);
        }
        let now = context.now.wall;
        if !self.entries.contains_key(id) {
            if context.room_count == 0 {
                return Err(TransactionError::CoordinatorNotAvailable);
            }
            let producer_id = (context.producer_id)().ok_or(TransactionError::NoProducerId)?;
            let entry = Entry::new(Metadata::new(producer_id, timeout_ms, now), context.now.monotonic);
            self.entries.insert(id.into(), entry);
        }
        let entry = self.entries.get_mut(id).expect("it is there now");
        let metadata = &entry.metadata;
        if entry.pending.is_some() {
            return Err(TransactionError::ConcurrentTransactions);
        }
        let is_valid = |(producer_id, epoch): Producer| {
            metadata.producer_epoch.0 == -1
                || producer_id == metadata.producer_id
                || (producer_id == metadata.previous_producer_id && is_exhausted(epoch))
        };
        if !expected.is_none_or(is_valid) {
            return Err(TransactionError::ProducerFenced);
        }
        match metadata.state {
            TransactionState::PrepareCommit | TransactionState::PrepareAbort => {
                Err(TransactionError::ConcurrentTransactions)
            }
            TransactionState::Ongoing => {
                let next = metadata.fenced(entry.is_epoch_raised, now);
                Ok((next, true))
            }
            _ => {
                let fits = expected.is_none_or(|(_, epoch)| epoch == metadata.producer_epoch);
                if metadata.is_epoch_exhausted() && fits {
                    let producer_id = (context.producer_id)().ok_or(TransactionError::NoProducerId)?;
                    return Ok((metadata.with_producer_id(producer_id, expected.is_some(), timeout_ms, now), false));
                }
                let expected = expected.map(|(_, epoch)| epoch);
                let next = metadata.with_next_epoch(expected, timeout_ms, now);
                next.map(|next| (next, false)).ok_or(TransactionError::ProducerFenced)
            }
        }
    }

    /// Partitions come into the transaction. While the last one's markers are on their way it waits for them.
    pub fn add(
        &mut self,
        ticket: T,
        transactional_id: &str,
        producer: Producer,
        partitions: &Partitions,
        client_version: i16,
        context: &mut Context<'_, T>,
    ) {
        match self.judge_add(transactional_id, producer, partitions, client_version, context.now.wall) {
            Ok(Some(next)) => self.write(transactional_id, Some(next), Asker::Add(ticket), context),
            Ok(None) => context.effects.push(Effect::Add(ticket, Ok(()))),
            Err(TransactionError::ConcurrentTransactions) => {
                let until = context.now.monotonic + HELD_ADD_WAIT_MAX;
                let next = Next { ticket, until, producer, partitions: partitions.clone(), client_version };
                if let Some(next) = self.hold(transactional_id, next) {
                    let answer = Err(TransactionError::ConcurrentTransactions);
                    context.effects.push(Effect::Add(next.ticket, answer));
                }
            }
            Err(error) => context.effects.push(Effect::Add(ticket, Err(error))),
        }
    }

    /// Lets the first of the next transaction wait for the end of this one; given back if it cannot be long or another
    /// one waits.
    fn hold(&mut self, id: &str, next: Next<T>) -> Option<Next<T>> {
        match self.entries.get_mut(id) {
            Some(entry) if entry.is_being_marked() && entry.next.is_none() => {
                self.held.insert((next.until, id.into()));
                entry.next.replace(next)
            }
            _ => Some(next),
        }
    }

    /// The one that waits for the end of this transaction waits no longer.
    fn take_held(&mut self, id: &str) -> Option<Next<T>> {
        let next = self.entries.get_mut(id)?.next.take()?;
        self.held.remove(&(next.until, Box::from(id)));
        Some(next)
    }

    /// Gives those back who have waited long enough for the end of a transaction: they are to hear
    /// CONCURRENT_TRANSACTIONS, which their clients ask again after.
    pub fn take_late(&mut self, now: Monotonic) -> Vec<T> {
        let mut late = Vec::new();
        while self.held.first().is_some_and(|(until, _)| *until <= now) {
            let (_, id) = self.held.pop_first().expect("it is there");
            late.extend(self.entries.get_mut(&id).and_then(|entry| entry.next.take()).map(|next| next.ticket));
        }
        late
    }

    fn judge_add(
        &self,
        id: &str,
        producer: Producer,
        partitions: &Partitions,
        client_version: i16,
        now: Timestamp,
    ) -> Result<Option<Metadata>, TransactionError> {
        let entry = self.entry_of(id, producer)?;
        let metadata = &entry.metadata;
        if entry.pending.is_some() || metadata.state.is_prepared() {
            return Err(TransactionError::ConcurrentTransactions);
        }
        if metadata.state == TransactionState::Ongoing && metadata.includes(partitions) {
            return Ok(None);
        }
        let next = metadata.with_partitions(partitions, client_version, now);
        let size_bytes: usize =
            next.partitions.iter().map(|(topic, indexes)| topic.len() + 6 + 4 * indexes.len()).sum();
        match size_bytes <= TRANSACTION_PARTITIONS_SIZE_BYTES_MAX {
            true => Ok(Some(next)),
            false => Err(TransactionError::TooLarge),
        }
    }

    /// Whether a partition is in the transaction of a producer, as whoever is to append a batch of it asks.
    pub fn verify(
        &self,
        transactional_id: &str,
        producer: Producer,
        (topic, partition): PartitionName<'_>,
    ) -> Result<(), TransactionError> {
        let metadata = &self.entry_of(transactional_id, producer)?.metadata;
        if metadata.state.is_prepared() {
            return Err(TransactionError::ConcurrentTransactions);
        }
        let is_in = metadata.partitions.get(topic).is_some_and(|indexes| indexes.contains(&partition));
        if is_in { Ok(()) } else { Err(TransactionError::TransactionAbortable) }
    }

    fn entry_of(&self, id: &str, (producer_id, epoch): Producer) -> Result<&Entry<T>, TransactionError> {
        check_id(id)?;
        let entry = self.entries.get(id).ok_or(TransactionError::InvalidProducerIdMapping)?;
        if entry.metadata.state.is_prepared() && entry.metadata.next_producer() == (producer_id, epoch) {
            // The next transaction's producer has come before this one is complete.
            return Err(TransactionError::ConcurrentTransactions);
        }
        if entry.metadata.producer_id != producer_id {
            return Err(TransactionError::InvalidProducerIdMapping);
        }
        if entry.metadata.producer_epoch != epoch {
            return Err(TransactionError::ProducerFenced);
        }
        Ok(entry)
    }

    /// The client decides. `client_version` is 2 where each end raises the epoch. Without a producer id at hand the
    /// ticket comes back and nothing has happened.
    pub fn end(
        &mut self,
        ticket: T,
        transactional_id: &str,
        producer: Producer,
        commits: bool,
        client_version: i16,
        context: &mut Context<'_, T>,
    ) -> Result<(), T> {
        match self.judge_end(transactional_id, producer, commits, client_version, context) {
            Ok(Ok(next)) => self.write(transactional_id, Some(next), Asker::End(ticket), context),
            Ok(Err(answer)) => context.effects.push(Effect::End(ticket, Ok(answer))),
            Err(TransactionError::NoProducerId) => return Err(ticket),
            Err(error) => context.effects.push(Effect::End(ticket, Err(error))),
        }
        Ok(())
    }

    /// The decided value, or the answer to who asks again.
    fn judge_end(
        &mut self,
        id: &str,
        (producer_id, epoch): Producer,
        commits: bool,
        client_version: i16,
        context: &mut Context<'_, T>,
    ) -> Result<Result<Metadata, Producer>, TransactionError> {
        check_id(id)?;
        let entry = self.entries.get(id).ok_or(TransactionError::InvalidProducerIdMapping)?;
        let metadata = &entry.metadata;
        let own = metadata.producer_epoch;
        let is_v2 = client_version >= 2;
        if is_v2 && entry.pending.is_some() {
            // Before anything else: it may change the producer id.
            return Err(TransactionError::ConcurrentTransactions);
        }
        if is_v2 && metadata.state.is_prepared() && metadata.next_producer() == (producer_id, epoch) {
            // The end of the next transaction, of which nothing was begun here, has come before this one is complete.
            return Err(TransactionError::ConcurrentTransactions);
        }
        // A client of the second protocol that asks again names the epoch before the one that its end has made.
        let is_retry = is_v2 && metadata.is_v2();
        let raised = is_retry && epoch.0 >= 0 && i32::from(own.0) == i32::from(epoch.0) + 1;
        let replaced = is_retry && own.0 == 0 && metadata.previous_producer_id == producer_id && is_exhausted(epoch);
        if metadata.producer_id != producer_id && !replaced {
            return Err(TransactionError::InvalidProducerIdMapping);
        }
        let is_valid = match metadata.state {
            state if is_retry && state.is_prepared() => raised,
            TransactionState::CompleteCommit | TransactionState::CompleteAbort => raised || replaced || epoch == own,
            _ => epoch == own,
        };
        if !is_valid {
            return Err(TransactionError::ProducerFenced);
        }
        if entry.pending.is_some() {
            return Err(TransactionError::ConcurrentTransactions);
        }
        // Such a client does not know whether the broker has seen anything of the transaction that it aborts.
        let is_empty = is_v2 && !commits && !raised && !replaced && metadata.state.may_expire();
        let answer = (metadata.producer_id, own);
        match (metadata.state, commits) {
            (state, _) if state == TransactionState::Ongoing || is_empty => {
                let mut next_id = ProducerId::NONE;
                if is_v2 && metadata.is_epoch_exhausted() {
                    next_id = (context.producer_id)().ok_or(TransactionError::NoProducerId)?;
                }
                Ok(Ok(metadata.prepared(commits, client_version, next_id, context.now.wall)))
            }
            (state, true) if is_v2 && !raised && !replaced && state.may_expire() => {
                match context.now.monotonic.since(entry.changed_at) < OVERTAKEN_MAX {
                    true => Err(TransactionError::ConcurrentTransactions),
                    false => Err(TransactionError::InvalidTxnState),
                }
            }
            (TransactionState::CompleteCommit, true) | (TransactionState::CompleteAbort, false) => Ok(Err(answer)),
            (TransactionState::PrepareCommit, true) | (TransactionState::PrepareAbort, false) => {
                Err(TransactionError::ConcurrentTransactions)
            }
            _ => Err(TransactionError::InvalidTxnState),
        }
    }

    /// Markers of the decision of `producer` are durable in these partitions, or, with `is_refused`, were refused: then
    /// they are sent again by [`retry`](Self::retry). Where a partition is gone its marker counts as durable.
    pub fn marked(
        &mut self,
        transactional_id: &str,
        producer: Producer,
        partitions: &[(Box<str>, PartitionIndex)],
        is_refused: bool,
        context: &mut Context<'_, T>,
    ) {
        let Some(entry) = self.entries.get_mut(transactional_id) else { return };
        if !entry.metadata.state.is_prepared()
            || (entry.metadata.producer_id, entry.metadata.producer_epoch) != producer
        {
            return;
        }
        for (topic, index) in partitions {
            if let Some(indexes) = entry.unmarked.get_mut(topic)
                && indexes.remove(index)
            {
                if indexes.is_empty() {
                    entry.unmarked.remove(topic);
                }
                if is_refused {
                    entry.refused.entry(topic.clone()).or_default().insert(*index);
                }
            }
        }
        if !entry.refused.is_empty() {
            self.unfinished.insert(transactional_id.into());
            if let Some(next) = self.take_held(transactional_id) {
                context.effects.push(Effect::Add(next.ticket, Err(TransactionError::ConcurrentTransactions)));
            }
        }
        self.complete_if_marked(transactional_id, context);
    }

    /// The transaction is over where every marker is. That needs no record of its own before the next transaction can
    /// begin, whose first record says the same.
    fn complete_if_marked(&mut self, id: &str, context: &mut Context<'_, T>) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        if !entry.is_being_marked() || !entry.unmarked.is_empty() {
            return;
        }
        entry.metadata = entry.metadata.completed(context.now.wall);
        entry.changed_at = context.now.monotonic;
        self.unwritten.insert(id.into());
        if let Some(next) = self.take_held(id) {
            self.add(next.ticket, id, next.producer, &next.partitions, next.client_version, context);
        }
    }

    /// Has completions written that no later record of their ids has made superfluous. At most `count_max` at once.
    pub fn write_completions(&mut self, count_max: usize, context: &mut Context<'_, T>) {
        for _ in 0..count_max {
            let Some(id) = self.unwritten.pop_first() else { return };
            if let Some(entry) = self.entries.get(&id) {
                context.effects.push(Effect::Note(id, Box::new(entry.metadata.clone())));
            }
        }
    }

    /// True if something waits for [`write_completions`](Self::write_completions).
    pub fn has_unwritten(&self) -> bool {
        !self.unwritten.is_empty()
    }

    fn write(&mut self, id: &str, next: Option<Metadata>, asker: Asker<T>, context: &mut Context<'_, T>) {
        self.write_count += 1;
        let number = self.write_count;
        let entry = self.entries.get_mut(id).expect("it is being changed");
        debug_assert!(entry.pending.is_none());
        self.unwritten.remove(id);
        let written = Written { transactional_id: id.into(), number };
        context.effects.push(Effect::Persist(written, next.clone().map(Box::new)));
        entry.pending = Some(Pending { number, next, asker });
    }

    /// What became of a write that an [`Effect::Persist`] has asked for.
    pub fn persisted(&mut self, written: &Written, result: Result<(), TransactionError>, context: &mut Context<'_, T>) {
        let id = &*written.transactional_id;
        let Some(entry) = self.entries.get_mut(id) else { return };
        let Some(pending) = entry.pending.take_if(|pending| pending.number == written.number) else { return };
        let is_fence = matches!(pending.asker, Asker::Fence(_) | Asker::TimeOut);
        let producer = pending.next.as_ref().map(Metadata::next_producer);
        match (result, pending.next) {
            (Ok(()), Some(next)) => {
                entry.metadata = next;
                entry.changed_at = context.now.monotonic;
                entry.is_epoch_raised = false;
                if entry.metadata.state.is_prepared() {
                    entry.unmarked = entry.metadata.partitions.clone();
                }
            }
            (Ok(()), None) => {
                self.entries.remove(id);
                return;
            }
            (Err(_), next) => {
                let raised = next.filter(|next| is_fence && next.producer_epoch > entry.metadata.producer_epoch);
                if let Some(next) = raised {
                    // It may be in the log: nobody may get this epoch, and the old one is fenced.
                    entry.metadata.producer_epoch = next.producer_epoch;
                    entry.metadata.last_producer_epoch = ProducerEpoch(-1);
                    entry.is_epoch_raised = true;
                } else if entry.metadata.producer_epoch.0 == -1 {
                    // It was never given to anybody.
                    self.entries.remove(id);
                } else if entry.metadata.state.is_complete() {
                    // If it was in no record it still is in none.
                    self.unwritten.insert(id.into());
                }
            }
        }
        let producer = producer.unwrap_or((ProducerId::NONE, ProducerEpoch(-1)));
        match pending.asker {
            Asker::Init(ticket) => context.effects.push(Effect::Init(ticket, result.map(|()| producer))),
            Asker::Add(ticket) => context.effects.push(Effect::Add(ticket, result)),
            Asker::End(ticket) => context.effects.push(Effect::End(ticket, result.map(|()| producer))),
            Asker::Fence(ticket) => {
                let error = result.err().unwrap_or(TransactionError::ConcurrentTransactions);
                context.effects.push(Effect::Init(ticket, Err(error)));
            }
            Asker::TimeOut | Asker::Nobody => {}
        }
        if let Some(entry) = self.entries.get(id)
            && result.is_ok()
            && entry.metadata.state.is_prepared()
        {
            self.send_markers(id, context);
        }
    }

    fn send_markers(&mut self, id: &str, context: &mut Context<'_, T>) {
        let Some(entry) = self.entries.get(id) else { return };
        let metadata = &entry.metadata;
        context.effects.push(Effect::Mark(Markers {
            transactional_id: id.into(),
            producer: (metadata.producer_id, metadata.producer_epoch),
            commits: metadata.state == TransactionState::PrepareCommit,
            partitions: entry.unmarked.clone(),
        }));
        if entry.unmarked.is_empty() {
            self.complete_if_marked(id, context);
        }
    }

    /// Sends again what was refused.
    pub fn retry(&mut self, context: &mut Context<'_, T>) {
        for id in std::mem::take(&mut self.unfinished) {
            let Some(entry) = self.entries.get_mut(&id).filter(|entry| entry.metadata.state.is_prepared()) else {
                continue;
            };
            let refused = std::mem::take(&mut entry.refused);
            for (topic, indexes) in &refused {
                entry.unmarked.entry(topic.clone()).or_default().extend(indexes);
            }
            let metadata = &entry.metadata;
            context.effects.push(Effect::Mark(Markers {
                transactional_id: id.clone(),
                producer: (metadata.producer_id, metadata.producer_epoch),
                commits: metadata.state == TransactionState::PrepareCommit,
                partitions: refused,
            }));
        }
    }

    /// True if something waits for [`retry`](Self::retry).
    pub fn has_unfinished(&self) -> bool {
        !self.unfinished.is_empty()
    }

    /// Aborts transactions that have taken too long.
    pub fn abort_timed_out(&mut self, context: &mut Context<'_, T>) {
        let now = context.now.wall;
        let is_late = |entry: &Entry<T>| entry.pending.is_none() && entry.metadata.is_timed_out(now);
        let late: Vec<Box<str>> =
            self.entries.iter().filter(|(_, entry)| is_late(entry)).map(|(id, _)| id.clone()).collect();
        for id in late {
            let entry = &self.entries[&id];
            tracing::info!(transactional_id = %id, "a transaction has timed out and is aborted");
            let next = entry.metadata.fenced(entry.is_epoch_raised, now);
            self.write(&id, Some(next), Asker::TimeOut, context);
        }
    }

    /// Forgets ids that nobody has used for long. At most `count_max` at once.
    pub fn expire(&mut self, count_max: usize, context: &mut Context<'_, T>) {
        let (now, expiration_ms) = (context.now.wall, context.settings.expiration_ms);
        let is_expired = |entry: &Entry<T>| entry.pending.is_none() && entry.metadata.is_expired(now, expiration_ms);
        let expired = self.entries.iter().filter(|(_, entry)| is_expired(entry)).map(|(id, _)| id.clone());
        for id in expired.take(count_max).collect::<Vec<_>>() {
            self.write(&id, None, Asker::Nobody, context);
        }
    }

    /// A record of the id was read: this is what it is, or there is none. Served from [`begin`](Self::begin) on.
    pub fn restore(&mut self, transactional_id: &str, metadata: Option<Metadata>, now: Monotonic) {
        match metadata {
            Some(metadata) => drop(self.entries.insert(transactional_id.into(), Entry::new(metadata, now))),
            None => drop(self.entries.remove(transactional_id)),
        }
    }

    /// Everything was read: decisions that are not complete go on.
    pub fn begin(&mut self, context: &mut Context<'_, T>) {
        let prepared = self.entries.iter_mut().filter(|(_, entry)| entry.metadata.state.is_prepared());
        let prepared: Vec<Box<str>> = prepared
            .map(|(id, entry)| {
                entry.unmarked = entry.metadata.partitions.clone();
                id.clone()
            })
            .collect();
        prepared.into_iter().for_each(|id| self.send_markers(&id, context));
    }

    /// The coordinator ends here: whoever waits is told.
    pub fn unload(&mut self, error: TransactionError, context: &mut Context<'_, T>) {
        self.unfinished.clear();
        self.unwritten.clear();
        self.held.clear();
        for (_, entry) in std::mem::take(&mut self.entries) {
            if let Some(next) = entry.next {
                context.effects.push(Effect::Add(next.ticket, Err(error)));
            }
            let effect = match entry.pending.map(|pending| pending.asker) {
                Some(Asker::Init(ticket) | Asker::Fence(ticket)) => Effect::Init(ticket, Err(error)),
                Some(Asker::Add(ticket)) => Effect::Add(ticket, Err(error)),
                Some(Asker::End(ticket)) => Effect::End(ticket, Err(error)),
                Some(Asker::TimeOut | Asker::Nobody) | None => continue,
            };
            context.effects.push(effect);
        }
    }

    /// What is known of an id.
    pub fn get(&self, transactional_id: &str) -> Option<&Metadata> {
        self.entries.get(transactional_id).map(|entry| &entry.metadata).filter(|known| known.producer_epoch.0 >= 0)
    }

    /// All ids, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Metadata)> {
        let known = self.entries.iter().map(|(id, entry)| (&**id, &entry.metadata));
        known.filter(|(_, metadata)| metadata.producer_epoch.0 >= 0)
    }

    /// How many ids there are.
    pub fn count(&self) -> usize {
        self.entries.len()
    }
}

impl<T> Entry<T> {
    fn new(metadata: Metadata, now: Monotonic) -> Entry<T> {
        Entry {
            metadata,
            changed_at: now,
            pending: None,
            unmarked: Partitions::new(),
            refused: Partitions::new(),
            is_epoch_raised: false,
            next: None,
        }
    }

    /// True while its markers are on their way, and none was refused.
    fn is_being_marked(&self) -> bool {
        self.metadata.state.is_prepared() && self.pending.is_none() && self.refused.is_empty()
    }
}
