//! The transactions of one partition: which are open, up to where readers of committed records may read, and which
//! were aborted.
//!
//! 1. A transaction is open from its first batch until its marker is appended. Until the high watermark has passed the
//!    marker it still counts, for the marker could vanish: it is *unacknowledged*.
//! 2. The **last stable offset** is the first offset of the oldest transaction that is open or unacknowledged, else the
//!    high watermark; never below the log start. Only below it is it decided what is committed.
//! 3. An aborted transaction is noted in the segment that holds its marker ([`Aborted`]): in memory while that is the
//!    index's place, then in the sidecar. Readers of committed records are told of those that overlap what they get.
//!
//! Invariants: a log without transactions has no heap here; both maps are keyed by first offsets, which no two
//! transactions share; a segment notes at most [`ABORTED_TRANSACTION_COUNT_MAX`], then the log rolls.
//!
//! It must not know why a transaction ended, or the coordinator.

use std::collections::BTreeMap;

use crate::base::mutant;
use crate::base::time::Timestamp;
use crate::model::batch::Header;
use crate::model::id::{Offset, ProducerEpoch, ProducerId};
use crate::model::limits::{ABORTED_TRANSACTION_COUNT_MAX, OPEN_TRANSACTION_COUNT_MAX};
use crate::model::marker::EndTransactionMarker;

use super::event::Boundary;
use super::log::Log;
use super::producer_state::ProducerError;
use super::sidecar::AbortedTransaction;

/// The transactions of a log that are not settled yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Transactions {
    /// Where the first batch of each begins.
    open: BTreeMap<Offset, Boundary>,
    /// Ended by a marker that is not acknowledged yet: where the first batch begins, and the offset behind the marker.
    unacknowledged: BTreeMap<Offset, (Boundary, Offset)>,
}

impl Transactions {
    /// A transaction begins with the batch at `start`.
    pub fn begin(&mut self, start: Boundary) {
        self.open.insert(start.offset, start);
    }

    /// The transaction that began at `first` has a marker, which ends before `end`.
    pub fn end(&mut self, first: Offset, end: Offset) {
        if let Some(start) = self.open.remove(&first) {
            self.unacknowledged.insert(first, (start, end));
        }
    }

    /// The high watermark has moved.
    #[inline]
    pub fn acknowledge(&mut self, high_watermark: Offset) {
        if !self.unacknowledged.is_empty() {
            self.unacknowledged.retain(|_, (_, end)| *end > high_watermark);
        }
    }

    /// Where the oldest transaction begins that is not settled.
    #[inline]
    pub fn first_unstable(&self) -> Option<Boundary> {
        if self.open.is_empty() && self.unacknowledged.is_empty() {
            return None;
        }
        let open = self.open.first_key_value().map(|(_, start)| *start);
        let unacknowledged = self.unacknowledged.first_key_value().map(|(_, (start, _))| *start);
        open.into_iter().chain(unacknowledged).min_by_key(|start| start.offset)
    }

    /// The first offset of the oldest open one.
    pub fn first_open(&self) -> Option<Offset> {
        self.open.first_key_value().map(|(first, _)| *first)
    }

    /// How many are open.
    pub fn open_count(&self) -> usize {
        self.open.len()
    }

    /// True if one began at `first`.
    pub fn is_open(&self, first: Offset) -> bool {
        self.open.contains_key(&first)
    }

    /// At a start: only these are open, and what ended is acknowledged.
    pub fn retain_open(&mut self, is_open: impl Fn(Offset) -> bool) {
        self.unacknowledged.clear();
        self.open.retain(|first, _| is_open(*first));
    }
}

/// The aborted transactions whose markers a segment holds.
#[derive(Clone, Debug, Default)]
pub(super) struct Aborted {
    /// By ascending offset of the marker; empty once they are in the sidecar.
    pub entries: Vec<AbortedTransaction>,
    /// The least first offset of any; `None`: there are none.
    pub first_offset: Option<Offset>,
}

impl Aborted {
    /// What a sidecar or a checkpoint says of a segment.
    pub fn restore(entries: Vec<AbortedTransaction>) -> Aborted {
        let first_offset = entries.iter().map(|entry| Offset(entry.first_offset)).min();
        Aborted { entries, first_offset }
    }

    /// Notes one.
    pub fn push(&mut self, entry: AbortedTransaction) {
        let first = Offset(entry.first_offset);
        self.first_offset = Some(self.first_offset.map_or(first, |known| known.min(first)));
        self.entries.push(entry);
    }

    /// True if the segment must not note more.
    pub fn is_full(&self) -> bool {
        self.entries.len() >= ABORTED_TRANSACTION_COUNT_MAX
    }

    /// They are in the sidecar.
    pub fn forget_entries(&mut self) {
        self.entries = Vec::new();
    }
}

/// A producer as operators see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActiveProducer {
    /// Its id.
    pub producer_id: ProducerId,
    /// Its epoch.
    pub producer_epoch: ProducerEpoch,
    /// Sequence of its last record; -1: none.
    pub last_sequence: i32,
    /// When it last appended.
    pub last_timestamp: Timestamp,
    /// Epoch of the coordinator of its last marker; -1: none.
    pub coordinator_epoch: i32,
    /// First offset of its transaction that is under way.
    pub transaction_start: Option<Offset>,
}

impl Log {
    /// The last stable offset: what is committed below it and what is not is decided. Not above the high watermark.
    pub fn last_stable_offset(&self) -> Offset {
        self.last_stable().offset
    }

    /// The last stable offset's place.
    pub(super) fn last_stable(&self) -> Boundary {
        match self.transactions.first_unstable() {
            // Its beginning was deleted, perhaps with its segment: of what is left nothing is decided.
            Some(first) if first.offset < self.log_start => {
                let at = self.segments.partition_point(|segment| segment.base_offset <= self.log_start);
                let segment = &self.segments[at.saturating_sub(1)];
                Boundary { segment: segment.base_offset, position: 0, offset: self.log_start }
            }
            Some(first) if first.offset < self.high_watermark.offset && !mutant::is_on("read_undecided") => first,
            _ => self.high_watermark,
        }
    }

    /// The segment in which the first transaction began that is not settled, which may be gone; else that of the high
    /// watermark. Nothing refers to places in segments below.
    pub(super) fn first_unstable_segment(&self) -> Offset {
        self.transactions.first_unstable().map_or(self.high_watermark.segment, |first| first.segment)
    }

    /// True if the producer has a transaction under way in this epoch.
    pub fn has_transaction(&self, producer: ProducerId, epoch: ProducerEpoch) -> bool {
        let known = self.producers.get(producer);
        known.is_some_and(|known| known.transaction_first_offset >= 0 && known.producer_epoch == epoch.0)
    }

    /// True if one more transaction may begin.
    pub fn has_room_for_transaction(&self) -> bool {
        self.transactions.open_count() < OPEN_TRANSACTION_COUNT_MAX
    }

    /// Whether a marker may be appended.
    pub fn check_marker(
        &self,
        producer: ProducerId,
        epoch: ProducerEpoch,
        marker: EndTransactionMarker,
    ) -> Result<(), ProducerError> {
        self.producers.check_marker(producer, epoch, marker)
    }

    /// The producers that the partition remembers, by id.
    pub fn active_producers(&self) -> Vec<ActiveProducer> {
        let entries = self.producers.snapshot().into_iter().map(|entry| ActiveProducer {
            producer_id: ProducerId(entry.producer_id),
            producer_epoch: ProducerEpoch(entry.producer_epoch),
            last_sequence: entry.kept().last().map_or(-1, |batch| batch.last_sequence),
            last_timestamp: Timestamp(entry.last_append),
            coordinator_epoch: entry.coordinator_epoch,
            transaction_start: (entry.transaction_first_offset >= 0).then_some(Offset(entry.transaction_first_offset)),
        });
        entries.collect()
    }

    /// Notes what a batch that begins at `start` does to its producer and its transaction. An aborted transaction is to
    /// be noted in the batch's segment.
    #[inline]
    pub(super) fn note_producer(
        &mut self,
        header: &Header,
        batch: &[u8],
        start: Boundary,
        now: Timestamp,
    ) -> Option<AbortedTransaction> {
        if !header.attributes.is_transactional() {
            if !header.attributes.is_control() {
                self.producers.update(header, now);
            }
            return None;
        }
        self.note_transactional(header, batch, start, now)
    }

    #[inline(never)]
    fn note_transactional(
        &mut self,
        header: &Header,
        batch: &[u8],
        start: Boundary,
        now: Timestamp,
    ) -> Option<AbortedTransaction> {
        if !header.attributes.is_control() {
            if self.producers.update(header, now) {
                self.transactions.begin(start);
            }
            return None;
        }
        let marker = EndTransactionMarker::of_batch(header, batch)?;
        let first = self.producers.end_transaction(header, marker, now)?;
        self.transactions.end(first, header.next_offset());
        let last_stable_offset = self.transactions.first_open().unwrap_or(header.next_offset()).0;
        (!marker.commits).then_some(AbortedTransaction {
            producer_id: header.producer_id.0,
            first_offset: first.0,
            last_offset: header.last_offset().0,
            last_stable_offset,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: i64) -> Boundary {
        Boundary { segment: Offset(0), position: offset as u64 * 10, offset: Offset(offset) }
    }

    #[test]
    fn what_is_stable_ends_at_the_oldest_transaction_that_is_open_or_not_acknowledged() {
        let mut transactions = Transactions::default();
        assert_eq!(transactions.first_unstable(), None);
        transactions.begin(at(10));
        transactions.begin(at(20));
        assert_eq!(transactions.first_unstable(), Some(at(10)));
        // Its marker is at 30 and could still vanish.
        transactions.end(Offset(10), Offset(31));
        assert_eq!((transactions.first_unstable(), transactions.first_open()), (Some(at(10)), Some(Offset(20))));
        transactions.acknowledge(Offset(30));
        assert_eq!(transactions.first_unstable(), Some(at(10)));
        transactions.acknowledge(Offset(31));
        assert_eq!(transactions.first_unstable(), Some(at(20)));
        // A marker of a transaction that nobody knows changes nothing.
        transactions.end(Offset(15), Offset(40));
        transactions.end(Offset(20), Offset(41));
        transactions.acknowledge(Offset(41));
        assert_eq!((transactions.first_unstable(), transactions.open_count()), (None, 0));
    }

    #[test]
    fn aborted_transactions_know_how_far_back_they_reach() {
        let entry = |first_offset, last_offset| AbortedTransaction {
            producer_id: 1,
            first_offset,
            last_offset,
            last_stable_offset: 0,
        };
        let mut aborted = Aborted::default();
        assert_eq!(aborted.first_offset, None);
        aborted.push(entry(20, 30));
        aborted.push(entry(10, 31));
        assert_eq!(aborted.first_offset, Some(Offset(10)));
        assert_eq!(Aborted::restore(aborted.entries.clone()).first_offset, Some(Offset(10)));
        aborted.forget_entries();
        assert_eq!((aborted.first_offset, aborted.entries.len()), (Some(Offset(10)), 0));
    }
}
