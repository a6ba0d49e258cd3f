//! What of a log can be compacted, whether it should be, and which segments become one: decisions only.
//!
//! Kafka's rules: sealed segments below the last stable offset, up to the first whose youngest record is younger than
//! `min.compaction.lag.ms`; when the dirty share of them is above `min.cleanable.dirty.ratio`, or a dirty record is
//! older than `max.compaction.lag.ms`. Neighbours become one segment as long as they were together no larger than a
//! segment may be.
//!
//! It must not know files or the clock.

use std::ops::Range;

use crate::base::time::Timestamp;
use crate::model::id::Offset;
use crate::model::limits::COMPACTION_GROUP_COUNT_MAX;

/// A topic's rules.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CompactionPolicy {
    /// `min.cleanable.dirty.ratio`
    pub min_cleanable_dirty_ratio: f64,
    /// `min.compaction.lag.ms`: younger records stay as they are.
    pub min_compaction_lag_ms: u64,
    /// `max.compaction.lag.ms`: older records are compacted whatever the ratio is.
    pub max_compaction_lag_ms: u64,
    /// `delete.retention.ms`: how long a tombstone stays once it has been compacted.
    pub delete_retention_ms: u64,
}

/// A sealed segment as planning sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealedSegment {
    /// Its base offset.
    pub base_offset: Offset,
    /// Offset behind it.
    pub next_offset: Offset,
    /// Bytes of its batches.
    pub size_bytes: u64,
    /// Timestamp of its first batch; `NONE` if nobody looked since the start.
    pub first_timestamp: Timestamp,
    /// Its youngest record's, or when it was written.
    pub max_timestamp: Timestamp,
}

/// What is to be compacted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dirtiness {
    /// Everything below was compacted before: its keys are unique.
    pub first_dirty: Offset,
    /// Nothing at or above is touched; the end of a segment.
    pub end: Offset,
    /// The dirty share of what is below the end, 0 to 1.
    pub ratio: f64,
    /// A dirty record is older than it may be.
    pub is_overdue: bool,
}

/// How dirty a log is whose sealed segments below its last stable offset are `sealed`, oldest first; `None` if nothing
/// of it can be compacted.
pub fn dirtiness(
    sealed: &[SealedSegment],
    log_start: Offset,
    cleaner_offset: Offset,
    policy: &CompactionPolicy,
    now: Timestamp,
) -> Option<Dirtiness> {
    let ago = |ms: u64| now.0.saturating_sub(i64::try_from(ms).unwrap_or(i64::MAX));
    let first_dirty = cleaner_offset.max(log_start);
    let is_dirty = |segment: &SealedSegment| segment.next_offset > first_dirty;
    let too_young = |segment: &SealedSegment| {
        is_dirty(segment)
            && policy.min_compaction_lag_ms > 0
            && segment.max_timestamp.0 > ago(policy.min_compaction_lag_ms)
    };
    let count = sealed.iter().position(too_young).unwrap_or(sealed.len());
    let below = &sealed[..count];
    let end = below.last()?.next_offset;
    let dirty_bytes: u64 = below.iter().filter(|segment| is_dirty(segment)).map(|segment| segment.size_bytes).sum();
    let total_bytes: u64 = below.iter().map(|segment| segment.size_bytes).sum();
    if dirty_bytes == 0 {
        return None;
    }
    // An unknown first timestamp counts as the greatest age: compacting too early is allowed, too late is not.
    let is_older = |segment: &SealedSegment| segment.first_timestamp.0 < ago(policy.max_compaction_lag_ms);
    let is_overdue = policy.max_compaction_lag_ms < i64::MAX as u64
        && below.iter().filter(|segment| is_dirty(segment)).any(is_older);
    Some(Dirtiness { first_dirty, end, ratio: dirty_bytes as f64 / total_bytes as f64, is_overdue })
}

impl Dirtiness {
    /// True if it is to be compacted now.
    pub fn is_due(&self, policy: &CompactionPolicy) -> bool {
        self.is_overdue || self.ratio > policy.min_cleanable_dirty_ratio
    }
}

/// Which runs of `sealed` become one segment each: those that begin below `end`, in order, each run together no
/// larger than `size_bytes_max` (a single segment may be) and within the offsets that one segment can hold.
pub fn groups(sealed: &[SealedSegment], end: Offset, size_bytes_max: u64) -> Vec<Range<usize>> {
    let mut groups = Vec::new();
    let mut at = 0;
    while at < sealed.len() && sealed[at].base_offset < end {
        let base = sealed[at].base_offset;
        let mut size_bytes = sealed[at].size_bytes;
        let mut next = at + 1;
        while let Some(segment) = sealed.get(next)
            && segment.base_offset < end
            && size_bytes + segment.size_bytes <= size_bytes_max
            && segment.next_offset.0 - base.0 <= i64::from(i32::MAX)
            && next - at < COMPACTION_GROUP_COUNT_MAX
        {
            size_bytes += segment.size_bytes;
            next += 1;
        }
        groups.push(at..next);
        at = next;
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: CompactionPolicy = CompactionPolicy {
        min_cleanable_dirty_ratio: 0.5,
        min_compaction_lag_ms: 0,
        max_compaction_lag_ms: i64::MAX as u64,
        delete_retention_ms: 0,
    };
    const NOW: Timestamp = Timestamp(10_000);

    /// Segments of ten offsets each, with sizes and greatest timestamps; the first timestamp is 50 before.
    fn sealed(segments: &[(u64, i64)]) -> Vec<SealedSegment> {
        let segment = |(at, &(size_bytes, time)): (usize, &(u64, i64))| SealedSegment {
            base_offset: Offset(at as i64 * 10),
            next_offset: Offset(at as i64 * 10 + 10),
            size_bytes,
            first_timestamp: Timestamp(time - 50),
            max_timestamp: Timestamp(time),
        };
        segments.iter().enumerate().map(segment).collect()
    }

    fn ask(segments: &[(u64, i64)], cleaner_offset: i64, policy: &CompactionPolicy) -> Option<(i64, i64, f64, bool)> {
        dirtiness(&sealed(segments), Offset(0), Offset(cleaner_offset), policy, NOW)
            .map(|found| (found.first_dirty.0, found.end.0, found.ratio, found.is_due(policy)))
    }

    #[test]
    fn a_log_is_due_when_more_than_the_ratio_is_dirty() {
        let log = [(100, 0), (100, 0), (100, 0), (100, 0)];
        assert_eq!(ask(&log, 0, &POLICY), Some((0, 40, 1.0, true)));
        assert_eq!(ask(&log, 10, &POLICY), Some((10, 40, 0.75, true)));
        assert_eq!(ask(&log, 20, &POLICY), Some((20, 40, 0.5, false)));
        // A segment that is clean in part counts as dirty.
        assert_eq!(ask(&log, 15, &POLICY), Some((15, 40, 0.75, true)));
        assert_eq!(ask(&log, 40, &POLICY), None);
        assert_eq!(ask(&[], 0, &POLICY), None);
        let always = CompactionPolicy { min_cleanable_dirty_ratio: 0.0, ..POLICY };
        assert_eq!(ask(&log, 30, &always), Some((30, 40, 0.25, true)));
    }

    #[test]
    fn young_records_and_what_follows_them_are_left_alone() {
        let log = [(100, 1000), (100, 9950), (100, 2000)];
        let policy = CompactionPolicy { min_compaction_lag_ms: 100, ..POLICY };
        assert_eq!(ask(&log, 0, &policy), Some((0, 10, 1.0, true)));
        assert_eq!(ask(&log, 0, &CompactionPolicy { min_compaction_lag_ms: 50, ..POLICY }), Some((0, 30, 1.0, true)));
        // What is clean already does not stand in the way however young it is.
        assert_eq!(ask(&log, 20, &policy), Some((20, 30, 1.0 / 3.0, false)));
        assert_eq!(ask(&[(100, 9950)], 0, &policy), None);
    }

    #[test]
    fn old_records_are_compacted_whatever_the_ratio_is() {
        let log = [(1000, 0), (100, 9000)];
        let policy = |lag| CompactionPolicy { max_compaction_lag_ms: lag, ..POLICY };
        assert!(!ask(&log, 10, &policy(1100)).expect("dirty").3);
        assert!(ask(&log, 10, &policy(1000)).expect("dirty").3);
        let mut unknown = sealed(&log);
        unknown[1].first_timestamp = Timestamp::NONE;
        let found = dirtiness(&unknown, Offset(0), Offset(10), &policy(5000), NOW).expect("dirty");
        assert!(found.is_overdue);
    }

    #[test]
    fn the_log_start_moves_what_is_dirty() {
        let found = dirtiness(&sealed(&[(100, 0), (100, 0)]), Offset(12), Offset(5), &POLICY, NOW).expect("dirty");
        assert_eq!(found.first_dirty, Offset(12));
    }

    #[test]
    fn neighbours_become_one_segment_while_they_fit() {
        let segments = sealed(&[(40, 0), (40, 0), (40, 0), (200, 0), (10, 0), (10, 0)]);
        let lengths = |end, size_max| -> Vec<usize> {
            let groups = groups(&segments, Offset(end), size_max);
            assert!(groups.first().is_none_or(|first| first.start == 0));
            assert!(groups.windows(2).all(|pair| pair[0].end == pair[1].start));
            groups.iter().map(Range::len).collect()
        };
        assert_eq!(lengths(60, 100), [2, 1, 1, 2]);
        assert_eq!(lengths(60, 1000), [6]);
        assert_eq!(lengths(30, 1000), [3]);
        // An end within a segment takes all of it.
        assert_eq!(lengths(31, 1000), [4]);
        assert!(lengths(0, 1000).is_empty());
    }

    #[test]
    fn a_segment_never_spans_more_offsets_than_its_index_can_tell() {
        let mut segments = sealed(&[(10, 0), (10, 0), (10, 0)]);
        segments[1].next_offset = Offset(i64::from(i32::MAX));
        segments[2].base_offset = segments[1].next_offset;
        segments[2].next_offset = segments[2].base_offset.plus(10);
        assert_eq!(groups(&segments, Offset(i64::MAX), 1000), [0..2, 2..3]);
    }

    #[test]
    fn a_group_is_bounded_by_its_number_of_segments() {
        let many = vec![(1, 0); 3 * COMPACTION_GROUP_COUNT_MAX];
        let groups = groups(&sealed(&many), Offset(i64::MAX), 1 << 30);
        assert!(groups.len() == 3 && groups.iter().all(|group| group.len() == COMPACTION_GROUP_COUNT_MAX));
    }
}
