//! Which records of a batch stay: the rules of Kafka's cleaner.
//!
//! 1. At and behind the end of what was mapped everything stays.
//! 2. A record stays if no later one of its key is known.
//! 3. A tombstone that is the last of its key stays until its batch's delete horizon has passed. The first pass that
//!    has mapped the whole batch sets the horizon: now plus `delete.retention.ms`. Before that pass not everything that
//!    its tombstones delete is gone, and after it a reader must have the time to come by them.
//! 4. Records without a key go: they are refused when they come, and are here only because the topic became a
//!    compacted one later.
//! 5. Records of aborted transactions go, whatever their keys are. A marker stays while a batch of its transaction does,
//!    even one without records: without its end the transaction would be open again after a recovery. The first pass
//!    that finds nothing left sets the marker's delete horizon, as with tombstones: readers are between the batches
//!    that went and the marker.
//! 6. A batch without records left goes, unless its header is needed: it is the last batch of its new segment, or
//!    holds its producer's last sequence.

use rustc_hash::{FxHashMap, FxHashSet};

use crate::base::time::Timestamp;
use crate::model::batch::Header;
use crate::model::id::{Offset, ProducerId};
use crate::model::limits::{COMPACTION_PRODUCER_COUNT_MAX, RECORDS_SIZE_BYTES_MAX};
use crate::model::records::{self, RecordError};
use crate::model::rewrite::{self, Left};
use crate::storage::options::Mutants;
use crate::storage::sidecar::AbortedTransaction;

use super::map::{KeyHasher, OffsetMap};

/// What decides over the records of one compaction.
#[derive(Debug)]
pub struct Filter {
    /// The last offset of each key.
    pub map: OffsetMap,
    /// How keys are hashed.
    pub hasher: KeyHasher,
    /// The transactions that were aborted.
    pub aborted: AbortedRanges,
    /// Those of which something was left when their marker has not come yet.
    pub unended: Unended,
    /// Everything below was mapped, by [`Filter::map_batch`]; to begin with, what a compaction before this one has.
    pub mapped_end: Offset,
    /// The time of the compaction's begin.
    pub now: Timestamp,
    /// `delete.retention.ms`
    pub delete_retention_ms: u64,
    /// Broken rules.
    pub mutants: Mutants,
}

/// Where producers have written what was aborted.
#[derive(Debug, Default)]
pub struct AbortedRanges {
    /// First offset and marker of each aborted transaction of a producer, in order.
    by_producer: FxHashMap<ProducerId, Vec<(Offset, Offset)>>,
}

impl AbortedRanges {
    /// Of these transactions.
    pub fn new(transactions: &[AbortedTransaction]) -> AbortedRanges {
        let mut ranges = AbortedRanges::default();
        for entry in transactions {
            let own = ranges.by_producer.entry(ProducerId(entry.producer_id)).or_default();
            own.push((Offset(entry.first_offset), Offset(entry.last_offset)));
        }
        ranges.by_producer.values_mut().for_each(|own| own.sort_unstable());
        ranges
    }

    /// True if the batch is part of an aborted transaction.
    pub fn holds(&self, header: &Header) -> bool {
        if !header.attributes.is_transactional() || header.attributes.is_control() {
            return false;
        }
        let Some(own) = self.by_producer.get(&header.producer_id) else { return false };
        // One producer's transactions do not overlap.
        let at = own.partition_point(|(first, _)| *first <= header.base_offset);
        at > 0 && header.base_offset <= own[at - 1].1
    }
}

/// The producers whose transaction has a batch that stays and whose marker is still to come, while batches are gone
/// through in order.
#[derive(Debug, Default)]
pub struct Unended {
    producers: FxHashSet<ProducerId>,
    /// There were too many to remember: every marker stays.
    has_overflown: bool,
}

impl Unended {
    fn note(&mut self, producer: ProducerId) {
        match self.producers.len() < COMPACTION_PRODUCER_COUNT_MAX {
            true => _ = self.producers.insert(producer),
            false => self.has_overflown = true,
        }
    }

    /// True if something of the transaction that this producer's marker ends may be left.
    fn end(&mut self, producer: ProducerId) -> bool {
        self.producers.remove(&producer) || self.has_overflown
    }
}

/// What becomes of a batch.
#[derive(Debug, PartialEq, Eq)]
pub enum Fate {
    /// It stays as it is.
    Stays,
    /// It becomes this.
    Becomes(Vec<u8>),
    /// It goes.
    Goes,
}

impl Filter {
    /// Notes the keys of a batch at or above `from` and moves the mapped end behind it. False if the map had no room
    /// for a key: then the mapped end is that record, which is never the first one at or above `from`.
    ///
    /// # Errors
    /// Records that cannot be read.
    pub fn map_batch(&mut self, header: &Header, batch: &[u8], from: Offset) -> Result<bool, RecordError> {
        let is_mapped = !header.attributes.is_control() && !self.aborted.holds(header);
        if is_mapped && header.record_count > 0 && header.next_offset() > from {
            let section = records::section(header, batch, RECORDS_SIZE_BYTES_MAX)?;
            for record in records::Records::new(&section, header.record_count) {
                let record = record?;
                let offset = record.offset(header);
                if let Some(key) = record.key
                    && offset >= from
                    && !self.map.put(self.hasher.hash(key), offset)
                {
                    self.mapped_end = self.mapped_end.max(offset);
                    return Ok(false);
                }
            }
        }
        self.mapped_end = self.mapped_end.max(header.next_offset());
        Ok(true)
    }

    /// What becomes of a batch, the next one of the log; with `needs_header` it stays at least without records.
    ///
    /// # Errors
    /// Records that cannot be read.
    pub fn fate(&mut self, header: &Header, batch: &[u8], needs_header: bool) -> Result<Fate, RecordError> {
        if header.attributes.is_control() {
            return self.fate_of_marker(header, batch, needs_header);
        }
        let fate = self.fate_of_records(header, batch, needs_header)?;
        if header.attributes.is_transactional() && fate != Fate::Goes {
            self.unended.note(header.producer_id);
        }
        Ok(fate)
    }

    fn fate_of_marker(&mut self, header: &Header, batch: &[u8], needs_header: bool) -> Result<Fate, RecordError> {
        let is_needed = self.unended.end(header.producer_id);
        if self.mutants.markers_go_early && !needs_header && header.next_offset() <= self.mapped_end {
            return Ok(Fate::Goes);
        }
        if is_needed || needs_header || header.next_offset() > self.mapped_end {
            return Ok(Fate::Stays);
        }
        if header.delete_horizon().is_some_and(|horizon| self.now >= horizon) {
            return Ok(Fate::Goes);
        }
        let section = records::section(header, batch, RECORDS_SIZE_BYTES_MAX)?;
        Ok(match rewrite::retain(header, &section, Some(self.horizon()), |_| true)? {
            Left::Some(bytes) => Fate::Becomes(bytes),
            Left::Whole | Left::Nothing => Fate::Stays,
        })
    }

    /// When what only readers who come by still need may go.
    fn horizon(&self) -> Timestamp {
        Timestamp(self.now.0.saturating_add(i64::try_from(self.delete_retention_ms).unwrap_or(i64::MAX)))
    }

    fn fate_of_records(&self, header: &Header, batch: &[u8], needs_header: bool) -> Result<Fate, RecordError> {
        if header.base_offset >= self.mapped_end {
            return Ok(Fate::Stays);
        }
        let left = match header.record_count {
            0 => Left::Nothing,
            _ if self.aborted.holds(header) => Left::Nothing,
            _ => {
                let section = records::section(header, batch, RECORDS_SIZE_BYTES_MAX)?;
                let has_passed = match header.delete_horizon() {
                    _ if self.mutants.tombstones_go_early => true,
                    Some(horizon) => self.now >= horizon,
                    None => false,
                };
                let is_mapped = header.next_offset() <= self.mapped_end;
                let horizon = is_mapped.then(|| self.horizon());
                rewrite::retain(header, &section, horizon, |record| {
                    let offset = record.offset(header);
                    if offset >= self.mapped_end {
                        return true;
                    }
                    let Some(key) = record.key else { return false };
                    let is_last = match self.map.get(self.hasher.hash(key)) {
                        None => true,
                        Some(last) if self.mutants.drop_the_last_value => offset < last,
                        Some(last) => offset >= last,
                    };
                    is_last && (record.value.is_some() || !has_passed)
                })?
            }
        };
        Ok(match left {
            Left::Whole => Fate::Stays,
            Left::Some(bytes) => Fate::Becomes(bytes),
            Left::Nothing if needs_header && header.record_count == 0 => Fate::Stays,
            Left::Nothing if needs_header => Fate::Becomes(rewrite::without_records(header)),
            Left::Nothing => Fate::Goes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::units::MIB;
    use crate::model::builder::BatchBuilder;
    use crate::model::compression::Codec;
    use crate::model::id::{ProducerEpoch, Sequence};
    use crate::model::marker::EndTransactionMarker;

    type Row = (Option<&'static str>, Option<&'static str>);

    fn batch(base: i64, rows: &[Row]) -> Vec<u8> {
        let mut builder = BatchBuilder::new(Codec::Lz4).base_offset(Offset(base));
        for (key, value) in rows {
            builder.push(Timestamp(50), key.map(str::as_bytes), value.map(str::as_bytes), &[]);
        }
        builder.build()
    }

    /// A filter that has mapped `batches`, all of them.
    fn filter(batches: &[&[u8]], now: i64) -> Filter {
        let mut filter = Filter {
            map: OffsetMap::new(MIB, 0.9, 1000),
            hasher: KeyHasher::new((1, 2)),
            aborted: AbortedRanges::default(),
            unended: Unended::default(),
            mapped_end: Offset(0),
            now: Timestamp(now),
            delete_retention_ms: 100,
            mutants: Mutants::default(),
        };
        for bytes in batches {
            let header = Header::parse(bytes).expect("built");
            assert!(filter.map_batch(&header, bytes, Offset(0)).expect("sound"));
            assert_eq!(filter.mapped_end, header.next_offset());
        }
        filter
    }

    fn fate(filter: &mut Filter, bytes: &[u8], needs_header: bool) -> Fate {
        filter.fate(&Header::parse(bytes).expect("a header"), bytes, needs_header).expect("sound")
    }

    /// Offsets that a fate leaves of a batch.
    fn left(bytes: &[u8], fate: &Fate) -> Vec<i64> {
        let bytes = match fate {
            Fate::Stays => bytes,
            Fate::Becomes(bytes) => bytes,
            Fate::Goes => return Vec::new(),
        };
        let header = Header::parse(bytes).expect("a header");
        let section = records::section(&header, bytes, MIB).expect("sound");
        records::Records::new(&section, header.record_count).map(|r| r.expect("sound").offset(&header).0).collect()
    }

    #[test]
    fn the_last_record_of_each_key_stays() {
        let first = batch(10, &[(Some("a"), Some("1")), (Some("b"), Some("1")), (Some("a"), Some("2"))]);
        let second = batch(20, &[(Some("b"), Some("2")), (Some("c"), Some("1"))]);
        let mut filter = filter(&[&first, &second], 0);
        assert_eq!(left(&first, &fate(&mut filter, &first, false)), [12]);
        assert_eq!(fate(&mut filter, &second, false), Fate::Stays);
    }

    #[test]
    fn what_was_not_mapped_stays() {
        // The second batch lies behind the end of the map, the first has a key that only the second repeats.
        let first = batch(10, &[(Some("a"), Some("1"))]);
        let second = batch(20, &[(Some("a"), Some("2")), (None, Some("x"))]);
        let mut filter = filter(&[&first], 0);
        assert_eq!(fate(&mut filter, &first, false), Fate::Stays);
        assert_eq!(fate(&mut filter, &second, false), Fate::Stays);
    }

    #[test]
    fn a_tombstone_needs_two_passes_and_its_time() {
        // First pass: the value goes, the tombstone stays and gets its horizon. Later ones: it goes when that passed.
        let bytes = batch(10, &[(Some("a"), Some("1")), (Some("b"), Some("1")), (Some("a"), None)]);
        let mut first = filter(&[&bytes], 1000);
        let Fate::Becomes(after) = fate(&mut first, &bytes, false) else { panic!("a value goes") };
        assert_eq!(left(&after, &Fate::Stays), [11, 12]);
        assert_eq!(Header::parse(&after).unwrap().delete_horizon(), Some(Timestamp(1100)));
        assert_eq!(fate(&mut filter(&[&after], 1099), &after, false), Fate::Stays);
        assert_eq!(left(&after, &fate(&mut filter(&[&after], 1100), &after, false)), [11]);
    }

    #[test]
    fn records_without_a_key_go() {
        let bytes = batch(10, &[(None, Some("1")), (Some("b"), Some("1"))]);
        assert_eq!(left(&bytes, &fate(&mut filter(&[&bytes], 0), &bytes, false)), [11]);
    }

    #[test]
    fn a_header_that_is_needed_stays_without_records() {
        let old = batch(10, &[(Some("a"), Some("1"))]);
        let new = batch(20, &[(Some("a"), Some("2"))]);
        let mut filter = filter(&[&old, &new], 0);
        assert_eq!(fate(&mut filter, &old, false), Fate::Goes);
        let Fate::Becomes(empty) = fate(&mut filter, &old, true) else { panic!("it is needed") };
        assert_eq!(Header::parse(&empty).unwrap().next_offset(), Offset(11));
        assert_eq!(fate(&mut filter, &empty, true), Fate::Stays);
        assert_eq!(fate(&mut filter, &empty, false), Fate::Goes);
    }

    #[test]
    fn a_full_map_ends_what_is_mapped_at_the_first_key_without_room() {
        // Room for one key: its second record is known, so the first one goes; the other key and what follows stay.
        let row = |key| (Some(key), Some("1"));
        let bytes = batch(10, &[row("a"), row("a"), row("b"), row("a"), row("b")]);
        let header = Header::parse(&bytes).unwrap();
        let mut filter = filter(&[], 0);
        filter.map = OffsetMap::new(0, 0.9, 1);
        assert!(!filter.map_batch(&header, &bytes, Offset(0)).expect("sound"));
        assert_eq!(filter.mapped_end, Offset(12));
        assert_eq!(left(&bytes, &fate(&mut filter, &bytes, false)), [11, 12, 13, 14]);
        // The next round begins there, and always gets on.
        filter.map = OffsetMap::new(0, 0.9, 1);
        assert!(!filter.map_batch(&header, &bytes, Offset(12)).expect("sound"));
        assert_eq!(filter.mapped_end, Offset(13));
    }

    #[test]
    fn a_tombstone_in_a_batch_that_is_mapped_in_part_has_no_horizon_yet() {
        // What it deletes may still be there after this pass.
        let bytes = batch(10, &[(Some("a"), Some("1")), (Some("a"), Some("2")), (Some("b"), None), (Some("c"), None)]);
        let header = Header::parse(&bytes).unwrap();
        let mut filter = filter(&[], 1000);
        filter.map = OffsetMap::new(2 * 24 * 3, 0.4, 2);
        assert!(!filter.map_batch(&header, &bytes, Offset(0)).expect("sound"));
        assert_eq!(filter.mapped_end, Offset(13));
        let Fate::Becomes(after) = fate(&mut filter, &bytes, false) else { panic!("a value goes") };
        assert_eq!(left(&after, &Fate::Stays), [11, 12, 13]);
        assert_eq!(Header::parse(&after).unwrap().delete_horizon(), None);
    }

    #[test]
    fn what_was_aborted_goes_and_hides_nothing() {
        // One producer: an aborted transaction from 20 to its marker at 25, and committed batches before and after it.
        let transactional = |base: i64, value: &str| {
            let builder = BatchBuilder::new(Codec::None).base_offset(Offset(base)).transactional();
            let mut builder = builder.producer(ProducerId(7), ProducerEpoch(0), Sequence(0));
            builder.push(Timestamp(50), Some(b"a"), Some(value.as_bytes()), &[]);
            builder.build()
        };
        let (before, aborted, after) =
            (transactional(10, "kept"), transactional(20, "gone"), transactional(30, "last"));
        let mut filter = filter(&[], 0);
        filter.aborted = AbortedRanges::new(&[AbortedTransaction {
            producer_id: 7,
            first_offset: 20,
            last_offset: 25,
            last_stable_offset: 26,
        }]);
        let map = |filter: &mut Filter, bytes: &[u8]| {
            let header = Header::parse(bytes).expect("built");
            assert!(filter.map_batch(&header, bytes, Offset(0)).expect("sound"));
        };
        map(&mut filter, &before);
        map(&mut filter, &aborted);
        assert_eq!(fate(&mut filter, &before, false), Fate::Stays);
        assert_eq!(fate(&mut filter, &aborted, false), Fate::Goes);
        // The same producer's next transaction hides what it repeats.
        map(&mut filter, &after);
        assert_eq!((fate(&mut filter, &before, false), fate(&mut filter, &after, false)), (Fate::Goes, Fate::Stays));
    }

    #[test]
    fn a_marker_goes_when_nothing_of_its_transaction_is_left_and_readers_had_their_time() {
        // Two transactions of one producer; the second replaces what the first wrote.
        let producer = (ProducerId(7), ProducerEpoch(0));
        let data = |base: i64| {
            let builder = BatchBuilder::new(Codec::None).base_offset(Offset(base)).transactional();
            let mut builder = builder.producer(producer.0, producer.1, Sequence(0));
            builder.push(Timestamp(50), Some(b"a"), Some(b"value"), &[]);
            builder.build()
        };
        let marker = |base: i64| {
            let marker = EndTransactionMarker { commits: true, coordinator_epoch: 0 };
            let mut bytes = marker.batch(producer.0, producer.1, Timestamp(60));
            bytes[..8].copy_from_slice(&base.to_be_bytes());
            bytes
        };
        let (first, first_end, second, second_end) = (data(10), marker(11), data(12), marker(13));
        let all: [&[u8]; 4] = [&first, &first_end, &second, &second_end];
        let mut pass = filter(&all, 1000);
        assert_eq!(fate(&mut pass, &first, false), Fate::Goes);
        let Fate::Becomes(marked) = fate(&mut pass, &first_end, false) else { panic!("it has a horizon now") };
        assert_eq!(Header::parse(&marked).unwrap().delete_horizon(), Some(Timestamp(1100)));
        let header = Header::parse(&marked).unwrap();
        assert_eq!(EndTransactionMarker::of_batch(&header, &marked).map(|marker| marker.commits), Some(true));
        assert_eq!(fate(&mut pass, &second, false), Fate::Stays);
        assert_eq!(fate(&mut pass, &second_end, false), Fate::Stays);

        assert_eq!(fate(&mut filter(&all, 1099), &marked, false), Fate::Stays, "readers still have time");
        assert_eq!(fate(&mut filter(&all, 1100), &marked, true), Fate::Stays, "its header is needed");
        assert_eq!(fate(&mut filter(&all, 1100), &marked, false), Fate::Goes);
        // A header without records is still the beginning of a transaction.
        let mut pass = filter(&all, 1100);
        assert!(matches!(fate(&mut pass, &first, true), Fate::Becomes(_)));
        assert_eq!(fate(&mut pass, &marked, false), Fate::Stays);
        // What was not mapped whole is not judged.
        assert_eq!(fate(&mut filter(&[&first], 1100), &marked, false), Fate::Stays);
    }
}
