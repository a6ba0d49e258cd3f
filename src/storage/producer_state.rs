//! What one partition remembers of its idempotent producers (KIP-98): the rules of Kafka's producer state.
//!
//! 1. [`ProducerState::check`] looks at a batch before its offset is known and says: append it, it repeats one of
//!    the last five, or why it is refused. It changes nothing.
//! 2. [`ProducerState::update`] notes the batch once it has its offset. Between the two nothing may be appended by
//!    the same producer; an append that fails calls no `update`.
//! 3. [`ProducerState::snapshot`] and [`ProducerState::restore`] carry the state through checkpoints and sidecars;
//!    in recovery every batch read is passed to `update`.
//!
//! Invariants: a producer's batches have ascending offsets and one epoch; an empty state has no heap; at most
//! [`PRODUCER_COUNT_MAX`] producers are kept.
//!
//! A transaction begins with its producer's first transactional batch and ends with a marker
//! ([`ProducerState::end_transaction`]). Which of them are open, and what that means to readers, is the business of
//! [`super::transactions`].
//!
//! It must not know error codes, files or the clock.

use rkyv::{Archive, Deserialize, Serialize};
use rustc_hash::FxHashMap;

use crate::base::time::Timestamp;
use crate::model::batch::Header;
use crate::model::id::{Offset, ProducerEpoch, ProducerId, Sequence};
use crate::model::limits::{PRODUCER_BATCH_COUNT_MAX, PRODUCER_COUNT_MAX};
use crate::model::marker::EndTransactionMarker;

/// A batch that may be repeated by its producer, as it is archived. A slot without a batch has `last_offset` -1.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchEntry {
    /// Offset of its last record.
    pub last_offset: i64,
    /// Its greatest timestamp: a repeated batch of a LogAppendTime topic is answered with it.
    pub timestamp: i64,
    /// Sequence of its last record.
    pub last_sequence: i32,
    /// Number of records less one, by offset.
    pub offset_delta: i32,
}

/// One producer's state as it is archived: integers of fixed size and order.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerEntry {
    /// The producer.
    pub producer_id: i64,
    /// When it last appended, by the broker's clock.
    pub last_append: i64,
    /// First offset of its transaction that is under way; -1: none.
    pub transaction_first_offset: i64,
    /// Its last batches, oldest first, empty slots last.
    pub batches: [BatchEntry; PRODUCER_BATCH_COUNT_MAX],
    /// Epoch of its transaction coordinator; -1: never had one.
    pub coordinator_epoch: i32,
    /// The producer's epoch.
    pub producer_epoch: i16,
}

const NO_BATCH: BatchEntry = BatchEntry { last_offset: -1, timestamp: -1, last_sequence: -1, offset_delta: 0 };

/// What to do with a batch that passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Append it, then call [`ProducerState::update`].
    Append,
    /// It repeats one of the producer's last batches: answer as that one was answered, once that one is durable
    /// (its last offset tells), and append nothing.
    Duplicate {
        /// Offset of its first record.
        base_offset: Offset,
        /// Offset of its last record.
        last_offset: Offset,
        /// Greatest timestamp of the batch as it was stored.
        timestamp: Timestamp,
    },
}

/// Why a batch of an idempotent producer is refused. The peer's fault, or a lost one's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProducerError {
    /// A newer producer has taken the id over (Kafka: INVALID_PRODUCER_EPOCH).
    #[error("producer {id} has epoch {epoch}, but epoch {current} was seen")]
    InvalidProducerEpoch {
        /// The producer.
        id: ProducerId,
        /// The batch's epoch.
        epoch: ProducerEpoch,
        /// The greatest epoch seen.
        current: ProducerEpoch,
    },
    /// Records are missing before this batch, or it repeats one that is no longer remembered
    /// (Kafka: OUT_OF_ORDER_SEQUENCE_NUMBER).
    #[error("producer {id} sent sequence {sequence}; expected {expected}")]
    OutOfOrderSequence {
        /// The producer.
        id: ProducerId,
        /// The batch's first sequence.
        sequence: Sequence,
        /// What it should have been.
        expected: Sequence,
    },
    /// The producer has a transaction under way here, of which the batch is no part (Kafka: INVALID_TXN_STATE).
    #[error("producer {id} sent a batch outside of its transaction")]
    NotTransactional {
        /// The producer.
        id: ProducerId,
    },
    /// The marker is of a coordinator that another one has replaced (Kafka: TRANSACTION_COORDINATOR_FENCED).
    #[error("producer {id} has a marker of coordinator epoch {current}; {epoch} is older")]
    CoordinatorFenced {
        /// The producer.
        id: ProducerId,
        /// The marker's.
        epoch: i32,
        /// The greatest epoch seen.
        current: i32,
    },
}

/// The producers of one partition.
#[derive(Clone, Debug, Default)]
pub struct ProducerState {
    producers: FxHashMap<ProducerId, ProducerEntry>,
}

impl ProducerState {
    /// Takes archived entries back, the later of two with one id.
    pub fn restore(entries: impl IntoIterator<Item = ProducerEntry>) -> ProducerState {
        let mut state = ProducerState::default();
        for entry in entries {
            state.producers.insert(ProducerId(entry.producer_id), entry);
        }
        while state.producers.len() > PRODUCER_COUNT_MAX {
            state.evict();
        }
        state
    }

    /// Whether the batch may be appended. Batches without a producer id always may. An id that is unknown, because
    /// its records are gone or its state expired, may begin with any sequence, as in Kafka.
    #[inline]
    pub fn check(&self, header: &Header) -> Result<Verdict, ProducerError> {
        if header.producer_id == ProducerId::NONE {
            return Ok(Verdict::Append);
        }
        match self.producers.get(&header.producer_id) {
            Some(producer) => producer.check(header),
            None => Ok(Verdict::Append),
        }
    }

    /// Whether a marker may be appended that ends the producer's transaction. It changes nothing.
    pub fn check_marker(
        &self,
        id: ProducerId,
        epoch: ProducerEpoch,
        marker: EndTransactionMarker,
    ) -> Result<(), ProducerError> {
        let Some(producer) = self.producers.get(&id) else { return Ok(()) };
        let current = ProducerEpoch(producer.producer_epoch);
        if epoch < current {
            return Err(ProducerError::InvalidProducerEpoch { id, epoch, current });
        }
        let (epoch, current) = (marker.coordinator_epoch, producer.coordinator_epoch);
        // Tools that abort a transaction by hand may not know the epoch.
        if epoch >= 0 && epoch < current {
            return Err(ProducerError::CoordinatorFenced { id, epoch, current });
        }
        Ok(())
    }

    /// Notes a batch of records that was given its offset (`header.base_offset`) and its final timestamps; `now` is the
    /// time of the append. In recovery, when that time is unknown, `now` is the time of recovery. True if the batch
    /// begins a transaction.
    #[inline]
    pub fn update(&mut self, header: &Header, now: Timestamp) -> bool {
        if header.producer_id == ProducerId::NONE {
            return false;
        }
        if let Some(producer) = self.producers.get_mut(&header.producer_id) {
            return producer.update(header, now);
        }
        self.add(header).update(header, now)
    }

    /// Notes a marker that was given its offset. The first offset of the transaction that it ends, if there is one.
    pub fn end_transaction(&mut self, header: &Header, marker: EndTransactionMarker, now: Timestamp) -> Option<Offset> {
        let producer = match self.producers.contains_key(&header.producer_id) {
            true => self.producers.get_mut(&header.producer_id).expect("it is there"),
            false => self.add(header),
        };
        producer.take_epoch(header.producer_epoch);
        producer.coordinator_epoch = producer.coordinator_epoch.max(marker.coordinator_epoch);
        producer.last_append = now.0;
        let first = std::mem::replace(&mut producer.transaction_first_offset, -1);
        (first >= 0).then_some(Offset(first))
    }

    #[cold]
    fn add(&mut self, header: &Header) -> &mut ProducerEntry {
        if self.producers.len() == PRODUCER_COUNT_MAX {
            self.evict();
        }
        let producer = ProducerEntry::new(header.producer_id, header.producer_epoch);
        self.producers.entry(header.producer_id).or_insert(producer)
    }

    /// First offsets of the transactions that are under way, in no order that means anything.
    pub fn open_transactions(&self) -> impl Iterator<Item = Offset> {
        let first = self.producers.values().map(|producer| producer.transaction_first_offset);
        first.filter(|first| *first >= 0).map(Offset)
    }

    /// Forgets producers that have appended nothing for `expiration_ms` (`producer.id.expiration.ms`) and have no
    /// transaction under way. Returns how many.
    pub fn expire(&mut self, now: Timestamp, expiration_ms: i64) -> usize {
        let before = self.producers.len();
        self.producers.retain(|_, producer| {
            producer.transaction_first_offset >= 0 || now.0.saturating_sub(producer.last_append) < expiration_ms
        });
        let forgotten = before - self.producers.len();
        if forgotten > 0 && self.producers.len() < self.producers.capacity() / 4 {
            self.producers.shrink_to_fit();
        }
        forgotten
    }

    /// Forgets everything, as when the log is emptied.
    pub fn clear(&mut self) {
        self.producers = FxHashMap::default();
    }

    /// Number of producers that are known.
    pub fn len(&self) -> usize {
        self.producers.len()
    }

    /// True if no producer is known.
    pub fn is_empty(&self) -> bool {
        self.producers.is_empty()
    }

    /// What is known of one producer.
    pub fn get(&self, id: ProducerId) -> Option<&ProducerEntry> {
        self.producers.get(&id)
    }

    /// The entries for an archive, by ascending id.
    pub fn snapshot(&self) -> Vec<ProducerEntry> {
        let mut entries: Vec<_> = self.producers.values().copied().collect();
        entries.sort_unstable_by_key(|entry| entry.producer_id);
        entries
    }

    /// Makes room: the eighth of the producers that has been silent longest goes. One that comes back begins like
    /// an unknown one. Producers with a transaction under way stay as long as there are others.
    #[cold]
    fn evict(&mut self) {
        let mut order: Vec<_> = self
            .producers
            .values()
            .map(|entry| (entry.transaction_first_offset >= 0, entry.last_append, entry.producer_id))
            .collect();
        let count = order.len().div_ceil(8);
        order.sort_unstable();
        for (_, _, id) in order.into_iter().take(count) {
            self.producers.remove(&ProducerId(id));
        }
    }
}

impl ProducerEntry {
    fn new(id: ProducerId, epoch: ProducerEpoch) -> ProducerEntry {
        ProducerEntry {
            producer_id: id.0,
            last_append: -1,
            transaction_first_offset: -1,
            batches: [NO_BATCH; PRODUCER_BATCH_COUNT_MAX],
            coordinator_epoch: -1,
            producer_epoch: epoch.0,
        }
    }

    fn check(&self, header: &Header) -> Result<Verdict, ProducerError> {
        let id = header.producer_id;
        let (epoch, current) = (header.producer_epoch, ProducerEpoch(self.producer_epoch));
        if epoch < current {
            return Err(ProducerError::InvalidProducerEpoch { id, epoch, current });
        }
        if self.transaction_first_offset >= 0 && !header.attributes.is_transactional() {
            return Err(ProducerError::NotTransactional { id });
        }
        let sequence = header.base_sequence;
        if sequence.0 < 0 {
            // The broker's own: offsets that are committed in a transaction.
            return Ok(Verdict::Append);
        }
        let out_of_order = |expected| Err(ProducerError::OutOfOrderSequence { id, sequence, expected });
        if epoch > current {
            return if sequence == Sequence(0) { Ok(Verdict::Append) } else { out_of_order(Sequence(0)) };
        }
        let last_sequence = sequence.plus(header.last_offset_delta);
        let duplicate = self
            .kept()
            .iter()
            .find(|batch| batch.first_sequence() == sequence && batch.last_sequence == last_sequence.0);
        if let Some(batch) = duplicate {
            return Ok(Verdict::Duplicate {
                base_offset: Offset(batch.last_offset - i64::from(batch.offset_delta)),
                last_offset: Offset(batch.last_offset),
                timestamp: Timestamp(batch.timestamp),
            });
        }
        match self.kept().last() {
            Some(last) => {
                let expected = Sequence(last.last_sequence).plus(1);
                if sequence == expected { Ok(Verdict::Append) } else { out_of_order(expected) }
            }
            // The epoch is known from a transaction marker only: its first data batch begins at 0.
            None if sequence == Sequence(0) => Ok(Verdict::Append),
            None => out_of_order(Sequence(0)),
        }
    }

    fn take_epoch(&mut self, epoch: ProducerEpoch) {
        if epoch.0 != self.producer_epoch {
            self.producer_epoch = epoch.0;
            self.batches = [NO_BATCH; PRODUCER_BATCH_COUNT_MAX];
        }
    }

    fn update(&mut self, header: &Header, now: Timestamp) -> bool {
        self.take_epoch(header.producer_epoch);
        self.last_append = now.0;
        let begins = header.attributes.is_transactional() && self.transaction_first_offset < 0;
        if begins {
            self.transaction_first_offset = header.base_offset.0;
        }
        if header.base_sequence.0 < 0 {
            return begins;
        }
        let count = self.kept().len();
        let slot = if count == PRODUCER_BATCH_COUNT_MAX {
            self.batches.rotate_left(1);
            count - 1
        } else {
            count
        };
        self.batches[slot] = BatchEntry {
            last_offset: header.last_offset().0,
            timestamp: header.max_timestamp.0,
            last_sequence: header.base_sequence.plus(header.last_offset_delta).0,
            offset_delta: header.last_offset_delta,
        };
        begins
    }

    /// The batches that are remembered, oldest first.
    pub fn kept(&self) -> &[BatchEntry] {
        let count = self.batches.iter().take_while(|batch| batch.last_offset >= 0).count();
        &self.batches[..count]
    }
}

impl BatchEntry {
    /// Sequence of its first record; sequences wrap to 0 after `i32::MAX`.
    pub fn first_sequence(&self) -> Sequence {
        Sequence(self.last_sequence).plus(-self.offset_delta)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;
    use crate::model::batch::Attributes;
    use crate::model::id::LeaderEpoch;

    fn batch(id: i64, epoch: i16, sequence: i32, count: i32, base_offset: i64) -> Header {
        Header {
            base_offset: Offset(base_offset),
            size_bytes: 100,
            leader_epoch: LeaderEpoch(0),
            magic: 2,
            crc: 0,
            attributes: Attributes(0),
            last_offset_delta: count - 1,
            base_timestamp: Timestamp(0),
            max_timestamp: Timestamp(base_offset * 10),
            producer_id: ProducerId(id),
            producer_epoch: ProducerEpoch(epoch),
            base_sequence: Sequence(sequence),
            record_count: count,
        }
    }

    fn append(state: &mut ProducerState, header: Header, now: i64) {
        assert_eq!(state.check(&header), Ok(Verdict::Append));
        state.update(&header, Timestamp(now));
    }

    fn expected(result: Result<Verdict, ProducerError>) -> i32 {
        match result {
            Err(ProducerError::OutOfOrderSequence { expected, .. }) => expected.0,
            other => panic!("not out of order: {other:?}"),
        }
    }

    #[test]
    fn each_of_the_last_five_batches_is_recognized_when_it_comes_again() {
        // Six batches of three records; the first has been forgotten by then and looks like a gap.
        let mut state = ProducerState::default();
        for i in 0..6 {
            append(&mut state, batch(1, 0, i * 3, 3, 100 + i64::from(i) * 3), 0);
        }
        for i in 1..6 {
            let base = 100 + i64::from(i) * 3;
            assert_eq!(
                state.check(&batch(1, 0, i * 3, 3, -1)),
                Ok(Verdict::Duplicate {
                    base_offset: Offset(base),
                    last_offset: Offset(base + 2),
                    timestamp: Timestamp(base * 10)
                })
            );
        }
        assert_eq!(expected(state.check(&batch(1, 0, 0, 3, -1))), 18);
        // The same first sequence with another count is another batch.
        assert_eq!(expected(state.check(&batch(1, 0, 15, 2, -1))), 18);
    }

    #[test]
    fn a_gap_is_refused_and_changes_nothing() {
        let mut state = ProducerState::default();
        append(&mut state, batch(1, 0, 0, 5, 0), 0);
        let before = state.snapshot();
        assert_eq!(expected(state.check(&batch(1, 0, 6, 1, -1))), 5);
        assert_eq!(state.snapshot(), before);
        append(&mut state, batch(1, 0, 5, 1, 5), 0);
    }

    #[test]
    fn an_unknown_producer_may_begin_with_any_sequence() {
        let mut state = ProducerState::default();
        append(&mut state, batch(1, 3, 77, 2, 0), 0);
        assert_eq!(expected(state.check(&batch(1, 3, 80, 1, -1))), 79);
    }

    #[test]
    fn an_older_epoch_is_fenced_and_a_newer_one_begins_at_zero() {
        let mut state = ProducerState::default();
        append(&mut state, batch(1, 4, 0, 2, 0), 0);
        assert_eq!(
            state.check(&batch(1, 3, 2, 1, -1)),
            Err(ProducerError::InvalidProducerEpoch {
                id: ProducerId(1),
                epoch: ProducerEpoch(3),
                current: ProducerEpoch(4)
            })
        );
        assert_eq!(expected(state.check(&batch(1, 5, 2, 1, -1))), 0);
        append(&mut state, batch(1, 5, 0, 1, 2), 0);
        // The old epoch's batches are forgotten with it: the same sequences are new ones now.
        assert_eq!(state.get(ProducerId(1)).map(|producer| producer.kept().len()), Some(1));
        assert!(matches!(state.check(&batch(1, 4, 0, 2, -1)), Err(ProducerError::InvalidProducerEpoch { .. })));
    }

    #[test]
    fn sequences_wrap_and_a_batch_across_the_wrap_is_recognized() {
        let mut state = ProducerState::default();
        append(&mut state, batch(1, 0, i32::MAX - 1, 4, 0), 0);
        assert!(matches!(state.check(&batch(1, 0, i32::MAX - 1, 4, -1)), Ok(Verdict::Duplicate { .. })));
        append(&mut state, batch(1, 0, 2, 1, 4), 0);
        let mut state = ProducerState::default();
        append(&mut state, batch(1, 0, i32::MAX, 1, 0), 0);
        append(&mut state, batch(1, 0, 0, 1, 1), 0);
    }

    #[test]
    fn batches_without_a_producer_leave_no_trace() {
        let mut state = ProducerState::default();
        for offset in 0..3 {
            append(&mut state, batch(-1, -1, -1, 1, offset), 0);
        }
        assert!(state.is_empty());
        assert_eq!(state.producers.capacity(), 0);
    }

    #[test]
    fn silent_producers_expire_by_the_time_of_their_last_append() {
        let mut state = ProducerState::default();
        append(&mut state, batch(1, 0, 0, 1, 0), 1000);
        append(&mut state, batch(2, 0, 0, 1, 1), 1500);
        assert_eq!(state.expire(Timestamp(1999), 1000), 0);
        assert_eq!(state.expire(Timestamp(2000), 1000), 1);
        assert!(state.get(ProducerId(1)).is_none() && state.get(ProducerId(2)).is_some());
        append(&mut state, batch(1, 0, 50, 1, 2), 2000);
    }

    #[test]
    fn the_number_of_producers_is_bounded_and_the_most_silent_go_first() {
        let mut state = ProducerState::default();
        for id in 0..PRODUCER_COUNT_MAX as i64 + 1 {
            append(&mut state, batch(id, 0, 0, 1, id), id);
            assert!(state.len() <= PRODUCER_COUNT_MAX);
        }
        assert!(state.get(ProducerId(0)).is_none());
        assert!(state.get(ProducerId(PRODUCER_COUNT_MAX as i64)).is_some());
    }

    #[test]
    fn retries_in_any_order_leave_every_record_once_and_in_order() {
        // A client with five batches in flight whose network loses, repeats and reorders requests and loses
        // answers, against a log that is a list of sequences. The client goes on as real ones do: it repeats what was
        // not answered. The first sequence lies just before the wrap.
        for seed in 0..50 {
            let mut rng = Rng::new(seed);
            let mut state = ProducerState::default();
            let mut log: Vec<i32> = Vec::new();
            let first = Sequence(i32::MAX - 20);
            state.update(&batch(9, 0, first.0, 1, 0), Timestamp(0));
            log.push(first.0);
            let mut sent: Vec<(Sequence, i32)> = Vec::new(); // in flight, oldest first
            let mut next = first.plus(1);
            for _ in 0..2000 {
                if sent.len() < PRODUCER_BATCH_COUNT_MAX {
                    let count = rng.in_range(1..4) as i32;
                    sent.push((next, count));
                    next = next.plus(count);
                }
                let at = rng.in_range(..sent.len() as u64) as usize;
                let (sequence, count) = sent[at];
                let header = batch(9, 0, sequence.0, count, log.len() as i64);
                let stored_at = log.windows(count as usize).position(|records| records[0] == sequence.0);
                match state.check(&header) {
                    Ok(Verdict::Append) => {
                        assert_eq!(stored_at, None, "seed {seed}: stored twice");
                        state.update(&header, Timestamp(0));
                        log.extend((0..count).map(|delta| sequence.plus(delta).0));
                    }
                    Ok(Verdict::Duplicate { base_offset, last_offset, .. }) => {
                        assert_eq!(stored_at, Some(base_offset.0 as usize));
                        assert_eq!(last_offset.0, base_offset.0 + i64::from(count) - 1);
                    }
                    Err(_) => {
                        assert_eq!(stored_at, None, "seed {seed}: a stored batch was refused");
                        continue;
                    }
                }
                // Now and then the answer is lost and the batch comes again.
                if at == 0 && rng.chance(2, 3) {
                    sent.remove(0);
                }
            }
            let in_order = (0..log.len()).all(|at| log[at] == first.plus(at as i32).0);
            assert!(in_order && log.len() > 300, "seed {seed}: {} records", log.len());
        }
    }

    #[test]
    fn a_snapshot_brings_the_same_state_back() {
        // Random appends; every verdict on random batches must be the same afterwards.
        let mut rng = Rng::new(3);
        let mut state = ProducerState::default();
        let mut offset = 0;
        for _ in 0..1000 {
            let id = rng.in_range(0..20) as i64;
            let next = state.get(ProducerId(id)).and_then(|p| p.kept().last().copied());
            let sequence = next.map_or(0, |last| Sequence(last.last_sequence).plus(1).0);
            let count = rng.in_range(1..10) as i32;
            append(&mut state, batch(id, 0, sequence, count, offset), offset);
            offset += i64::from(count);
        }
        let restored = ProducerState::restore(state.snapshot());
        assert_eq!(restored.snapshot(), state.snapshot());
        for _ in 0..1000 {
            let header = batch(
                rng.in_range(0..25) as i64,
                rng.in_range(0..2) as i16,
                rng.in_range(0..300) as i32,
                rng.in_range(1..10) as i32,
                -1,
            );
            assert_eq!(restored.check(&header), state.check(&header));
        }
    }
}
