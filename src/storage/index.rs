//! The sparse index of one segment: offset, position and time in one.
//!
//! 1. [`SegmentIndex`] is fed every batch that is appended and keeps one entry per `interval_bytes`, each at the
//!    start of a batch. Position 0 is known without an entry, so an empty index has no heap.
//! 2. [`View`] answers the lookups, over the entries in memory and over the archived ones of a sidecar alike.
//!
//! Invariants: offsets and positions ascend strictly, timestamps never descend. Memory is bounded by
//! [`INDEX_ENTRY_COUNT_MAX`]: when it is full, every second entry goes and the interval doubles.
//!
//! It must not know files or who asks.

use rkyv::{Archive, Deserialize, Serialize};

use crate::base::time::Timestamp;
use crate::model::batch::Header;
use crate::model::id::Offset;
use crate::model::limits::INDEX_ENTRY_COUNT_MAX;

/// The usual distance of two entries.
pub const INTERVAL_BYTES_DEFAULT: u32 = 32 * 1024;

/// One batch's place, as it is archived: integers of fixed size and order.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// Greatest timestamp of all batches of the segment **before** this one; -1 if they have none. So the first
    /// record at or above a time lies at or behind the last entry whose value is below that time.
    pub timestamp_before: i64,
    /// Base offset of the batch less that of the segment.
    pub relative_offset: u32,
    /// Where the batch starts in the segment.
    pub position_bytes: u32,
}

/// The index of a segment that is being appended to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentIndex {
    base_offset: Offset,
    interval_bytes: u32,
    max_timestamp: Timestamp,
    max_timestamp_offset: Offset,
    entries: Vec<IndexEntry>,
}

impl SegmentIndex {
    /// The index of an empty segment. `interval_bytes` is the least distance of two entries.
    pub fn new(base_offset: Offset, interval_bytes: u32) -> SegmentIndex {
        SegmentIndex {
            base_offset,
            interval_bytes: interval_bytes.max(1),
            max_timestamp: Timestamp::NONE,
            max_timestamp_offset: Offset::NONE,
            entries: Vec::new(),
        }
    }

    /// Takes the index back as a checkpoint kept it: see [`entries`](Self::entries),
    /// [`max_timestamp`](Self::max_timestamp). Entries that do not ascend are refused.
    pub fn restore(
        base_offset: Offset,
        interval_bytes: u32,
        (max_timestamp, max_timestamp_offset): (Timestamp, Offset),
        entries: Vec<IndexEntry>,
    ) -> Option<SegmentIndex> {
        let mut index = SegmentIndex::new(base_offset, interval_bytes);
        index.max_timestamp = max_timestamp;
        index.max_timestamp_offset = max_timestamp_offset;
        index.entries = entries;
        let sound = index.entries.is_sorted_by(|a, b| {
            a.position_bytes < b.position_bytes
                && a.relative_offset < b.relative_offset
                && a.timestamp_before <= b.timestamp_before
        });
        while index.entries.len() > INDEX_ENTRY_COUNT_MAX {
            index.thin();
        }
        sound.then_some(index)
    }

    /// Notes a batch that starts at `position_bytes`. Batches come in order. A segment whose offsets or positions
    /// leave 32 bits must have been rolled before; such a batch gets no entry.
    #[inline]
    pub fn append(&mut self, header: &Header, position_bytes: u64) {
        let last = self.entries.last().map_or(0, |entry| u64::from(entry.position_bytes));
        if position_bytes >= last + u64::from(self.interval_bytes) {
            self.add(header.base_offset, position_bytes);
        }
        if header.max_timestamp > self.max_timestamp {
            self.max_timestamp = header.max_timestamp;
            self.max_timestamp_offset = header.base_offset;
        }
    }

    #[cold]
    fn add(&mut self, base_offset: Offset, position_bytes: u64) {
        let relative = u32::try_from(base_offset.0 - self.base_offset.0);
        let (Ok(relative_offset), Ok(position_bytes)) = (relative, u32::try_from(position_bytes)) else { return };
        if self.entries.len() == INDEX_ENTRY_COUNT_MAX {
            self.thin();
        }
        self.entries.push(IndexEntry { timestamp_before: self.max_timestamp.0, relative_offset, position_bytes });
    }

    /// Drops every second entry: each one left still tells the truth, for it speaks of all that is before it.
    fn thin(&mut self) {
        self.entries = thinned(&self.entries, self.entries.len() / 2);
        self.interval_bytes = self.interval_bytes.saturating_mul(2);
    }

    /// Base offset of the segment.
    pub fn base_offset(&self) -> Offset {
        self.base_offset
    }

    /// The least distance of two entries; it grows with a long segment.
    pub fn interval_bytes(&self) -> u32 {
        self.interval_bytes
    }

    /// The greatest timestamp of the segment and the base offset of the first batch that holds it; `NONE`s while
    /// there is none.
    pub fn max_timestamp(&self) -> (Timestamp, Offset) {
        (self.max_timestamp, self.max_timestamp_offset)
    }

    /// The entries for an archive.
    pub fn entries(&self) -> &[IndexEntry] {
        &self.entries
    }

    /// For lookups.
    pub fn view(&self) -> View<'_, IndexEntry> {
        View::new(self.base_offset, &self.entries)
    }
}

/// At most `count_max` of `entries`, evenly spread: a shorter index is a coarser one, never a wrong one.
pub fn thinned(entries: &[IndexEntry], count_max: usize) -> Vec<IndexEntry> {
    if entries.len() <= count_max {
        return entries.to_vec();
    }
    if count_max == 0 {
        return Vec::new();
    }
    // The last of each group, so that the first gap is as long as the others.
    let step = entries.len().div_ceil(count_max);
    entries.chunks_exact(step).map(|group| group[step - 1]).collect()
}

/// What a lookup needs to know of an entry, in memory or archived.
pub trait Entry {
    /// See [`IndexEntry::timestamp_before`].
    fn timestamp_before(&self) -> i64;
    /// See [`IndexEntry::relative_offset`].
    fn relative_offset(&self) -> u32;
    /// See [`IndexEntry::position_bytes`].
    fn position_bytes(&self) -> u32;
}

impl Entry for IndexEntry {
    #[inline]
    fn timestamp_before(&self) -> i64 {
        self.timestamp_before
    }
    #[inline]
    fn relative_offset(&self) -> u32 {
        self.relative_offset
    }
    #[inline]
    fn position_bytes(&self) -> u32 {
        self.position_bytes
    }
}

impl Entry for ArchivedIndexEntry {
    #[inline]
    fn timestamp_before(&self) -> i64 {
        self.timestamp_before.to_native()
    }
    #[inline]
    fn relative_offset(&self) -> u32 {
        self.relative_offset.to_native()
    }
    #[inline]
    fn position_bytes(&self) -> u32 {
        self.position_bytes.to_native()
    }
}

/// The lookups. Every position that is answered is the start of a batch.
#[derive(Debug)]
pub struct View<'a, E> {
    base_offset: Offset,
    entries: &'a [E],
}

impl<'a, E: Entry> View<'a, E> {
    /// A view of `entries` of the segment with this base offset.
    pub fn new(base_offset: Offset, entries: &'a [E]) -> Self {
        View { base_offset, entries }
    }

    /// Where to begin reading in search of the batch that contains `offset`: the greatest known start of a batch
    /// whose base offset is not above it, else 0.
    pub fn floor(&self, offset: Offset) -> u32 {
        let relative = offset.0.saturating_sub(self.base_offset.0);
        self.before(|entry| i64::from(entry.relative_offset()) <= relative)
    }

    /// The greatest known start of a batch that is not above `position_bytes`.
    pub fn position_floor(&self, position_bytes: u64) -> u32 {
        self.before(|entry| u64::from(entry.position_bytes()) <= position_bytes)
    }

    /// The base offset of the batch at a position that the index knows.
    pub fn offset_at(&self, position_bytes: u32) -> Option<Offset> {
        let at = self.entries.binary_search_by_key(&position_bytes, Entry::position_bytes).ok()?;
        Some(self.base_offset.plus(i64::from(self.entries[at].relative_offset())))
    }

    /// The greatest known start of a batch above `start_bytes` and not above `position_bytes`: where a range that
    /// begins at `start_bytes` may be cut without looking at the batches. `None`: the index does not know.
    pub fn cut(&self, start_bytes: u64, position_bytes: u64) -> Option<u32> {
        let floor = self.position_floor(position_bytes);
        (u64::from(floor) > start_bytes).then_some(floor)
    }

    /// The least known start of a batch that is not below `position_bytes`.
    pub fn position_ceiling(&self, position_bytes: u64) -> Option<u32> {
        if position_bytes == 0 {
            return Some(0);
        }
        let at = self.entries.partition_point(|entry| u64::from(entry.position_bytes()) < position_bytes);
        self.entries.get(at).map(Entry::position_bytes)
    }

    /// Where to begin reading in search of the first batch with a timestamp at or above `timestamp`: everything
    /// before that position is older. Whether there is one, [`SegmentIndex::max_timestamp`] tells.
    pub fn timestamp_floor(&self, timestamp: Timestamp) -> u32 {
        self.before(|entry| entry.timestamp_before() < timestamp.0)
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True if only position 0 is known.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn before(&self, below: impl Fn(&E) -> bool) -> u32 {
        let at = self.entries.partition_point(below);
        at.checked_sub(1).map_or(0, |at| self.entries[at].position_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;
    use crate::model::batch::Attributes;
    use crate::model::id::{LeaderEpoch, ProducerEpoch, ProducerId, Sequence};

    /// A batch as the index sees it: where it starts and its header.
    fn batch(base_offset: i64, size_bytes: usize, count: i32, max_timestamp: i64) -> Header {
        Header {
            base_offset: Offset(base_offset),
            size_bytes,
            leader_epoch: LeaderEpoch(0),
            magic: 2,
            crc: 0,
            attributes: Attributes(0),
            last_offset_delta: count - 1,
            base_timestamp: Timestamp(max_timestamp),
            max_timestamp: Timestamp(max_timestamp),
            producer_id: ProducerId::NONE,
            producer_epoch: ProducerEpoch(-1),
            base_sequence: Sequence(-1),
            record_count: count,
        }
    }

    fn random_segment(seed: u64, batch_count: usize, interval_bytes: u32) -> (Vec<(u64, Header)>, SegmentIndex) {
        let mut rng = Rng::new(seed);
        let (mut offset, mut position) = (1000, 0);
        let mut index = SegmentIndex::new(Offset(1000), interval_bytes);
        let mut batches = Vec::new();
        for _ in 0..batch_count {
            let size = rng.in_range(61..3000) as usize;
            let count = rng.in_range(1..50) as i32;
            let header = batch(offset, size, count, rng.in_range(0..100_000) as i64);
            index.append(&header, position);
            batches.push((position, header));
            offset += i64::from(count);
            position += size as u64;
        }
        (batches, index)
    }

    #[test]
    fn lookups_agree_with_a_walk_over_all_batches() {
        // The reference looks at every batch. An answer must be a batch's start, at or before the one that is
        // sought, and no further from it than the interval and one batch.
        for seed in 0..20 {
            let (batches, index) = random_segment(seed, 500, 4096);
            let view = index.view();
            let mut rng = Rng::new(seed + 1000);
            let is_start = |position: u32| batches.iter().any(|(at, _)| *at == u64::from(position));
            let (end_position, end_offset) = {
                let (at, last) = batches.last().expect("there are batches");
                (at + last.size_bytes as u64, last.next_offset().0)
            };
            for _ in 0..200 {
                let offset = Offset(rng.in_range(1000..end_offset as u64) as i64);
                let (sought, _) =
                    batches.iter().rfind(|(_, header)| header.base_offset <= offset).expect("the first one is");
                let found = view.floor(offset);
                assert!(is_start(found) && u64::from(found) <= *sought && sought - u64::from(found) < 4096 + 3000);

                let timestamp = Timestamp(rng.in_range(0..100_100) as i64);
                let first = batches.iter().find(|(_, header)| header.max_timestamp >= timestamp);
                let found = view.timestamp_floor(timestamp);
                assert!(is_start(found));
                match first {
                    Some((at, _)) => assert!(u64::from(found) <= *at, "seed {seed}: skipped the first one"),
                    None => assert!(index.max_timestamp().0 < timestamp),
                }

                let position = rng.in_range(0..end_position);
                let floor = view.position_floor(position);
                assert!(is_start(floor) && u64::from(floor) <= position);
                if let Some(ceiling) = view.position_ceiling(position) {
                    assert!(is_start(ceiling) && u64::from(ceiling) >= position);
                }
                let start = rng.in_range(0..=position);
                match view.cut(start, position) {
                    Some(cut) => assert!(is_start(cut) && u64::from(cut) > start && u64::from(cut) <= position),
                    None => assert!(position - start < 2 * (4096 + 3000)),
                }
            }
        }
    }

    #[test]
    fn the_greatest_timestamp_names_the_first_batch_that_holds_it() {
        let mut index = SegmentIndex::new(Offset(0), 1);
        for (offset, timestamp) in [(0, 5), (1, 9), (2, 9), (3, 7)] {
            index.append(&batch(offset, 61, 1, timestamp), offset as u64 * 61);
        }
        assert_eq!(index.max_timestamp(), (Timestamp(9), Offset(1)));
        assert_eq!(SegmentIndex::new(Offset(0), 1).max_timestamp(), (Timestamp::NONE, Offset::NONE));
    }

    #[test]
    fn an_index_without_entries_answers_the_start_of_the_segment() {
        let index = SegmentIndex::new(Offset(7), INTERVAL_BYTES_DEFAULT);
        let view = index.view();
        assert_eq!((view.floor(Offset(7)), view.floor(Offset(3)), view.timestamp_floor(Timestamp(1))), (0, 0, 0));
        assert_eq!((view.cut(0, 1 << 20), view.position_ceiling(0), view.position_ceiling(1)), (None, Some(0), None));
        assert_eq!(index.entries.capacity(), 0);
    }

    #[test]
    fn a_full_index_becomes_coarser_and_stays_true() {
        // Feeds three times as many batches as entries fit; all lookups go through the same check as above.
        let mut index = SegmentIndex::new(Offset(0), 100);
        let count = 3 * INDEX_ENTRY_COUNT_MAX as i64;
        for offset in 0..count {
            index.append(&batch(offset, 100, 1, offset), offset as u64 * 100);
        }
        assert!(index.entries.len() <= INDEX_ENTRY_COUNT_MAX);
        assert_eq!(index.interval_bytes(), 400);
        for offset in (0..count).step_by(777) {
            let found = i64::from(index.view().floor(Offset(offset)));
            assert!(found % 100 == 0 && found <= offset * 100 && offset * 100 - found <= 400);
            let found = i64::from(index.view().timestamp_floor(Timestamp(offset)));
            assert!(found % 100 == 0 && found <= offset * 100 && offset * 100 - found <= 400);
        }
    }

    #[test]
    fn thinning_keeps_at_most_the_count_asked_for() {
        let entries: Vec<_> =
            (1..=100).map(|i| IndexEntry { timestamp_before: 0, relative_offset: i, position_bytes: i * 10 }).collect();
        for count_max in [0, 1, 2, 3, 7, 49, 50, 51, 99, 100, 101] {
            let thin = thinned(&entries, count_max);
            assert!(thin.len() <= count_max && (count_max == 0 || !thin.is_empty()), "{count_max}");
            assert!(thin.is_sorted_by_key(|entry| entry.position_bytes));
        }
    }

    #[test]
    fn entries_that_do_not_ascend_are_not_restored() {
        let (_, index) = random_segment(1, 300, 4096);
        let restored = |entries| SegmentIndex::restore(Offset(1000), 4096, index.max_timestamp(), entries);
        assert_eq!(restored(index.entries.clone()), Some(index.clone()));
        let mut swapped = index.entries.clone();
        swapped.swap(3, 4);
        assert_eq!(restored(swapped), None);
    }
}
