//! Which segments can go, and where the log then starts: decisions only.
//!
//! Kafka's three reasons, in its order: the log start offset has passed a segment, the log is larger than
//! `retention.bytes`, a segment's youngest record is older than `retention.ms`. Segments go from the oldest on, never
//! out of order, and only below the high watermark. The active segment goes too if all of it can: by rolling first.
//!
//! It must not know files or the clock.

use rkyv::{Archive, Deserialize, Serialize};

use crate::base::time::Timestamp;
use crate::model::id::Offset;

/// What retention and start-up know of a segment without opening it, as it is archived.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentSummary {
    /// Offset of its first record.
    pub base_offset: i64,
    /// Offset behind its last record; the base offset if it is empty.
    pub next_offset: i64,
    /// Bytes of its batches.
    pub size_bytes: u64,
    /// Its greatest timestamp. If no record has one (-1), the time at which it was last written.
    pub max_timestamp: i64,
}

/// A topic's retention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetentionPolicy {
    /// `retention.ms`; `None` (-1 in Kafka's configuration): for ever.
    pub retention_ms: Option<u64>,
    /// `retention.bytes`; `None` (-1): any size.
    pub retention_bytes: Option<u64>,
}

/// Why segments go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// They end at or below the log start offset (DeleteRecords).
    LogStart,
    /// `retention.bytes`
    Size,
    /// `retention.ms`
    Time,
}

/// What to remove. The order of doing it is the caller's: the log start is durable first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// How many of the sealed segments go, from the oldest on.
    pub sealed_count: usize,
    /// The active segment goes too: roll first, then remove the one that was active.
    pub roll_active: bool,
    /// The log start offset afterwards; never below the old one.
    pub log_start: Offset,
    /// Why the last of them goes.
    pub reason: Reason,
}

/// What a log looks like when retention asks.
#[derive(Clone, Copy, Debug)]
pub struct LogShape<'a> {
    /// The sealed segments, oldest first.
    pub sealed: &'a [SegmentSummary],
    /// The active segment.
    pub active: SegmentSummary,
    /// The log start offset.
    pub log_start: Offset,
    /// Nothing at or above it goes.
    pub high_watermark: Offset,
}

/// Decides what can go at `now`; `None`: nothing.
pub fn decide(log: LogShape<'_>, policy: RetentionPolicy, now: Timestamp) -> Option<Decision> {
    let total_bytes = log.sealed.iter().map(|segment| segment.size_bytes).sum::<u64>() + log.active.size_bytes;
    // What may still go before the log is within its size.
    let mut excess_bytes = policy.retention_bytes.map_or(0, |limit| total_bytes.saturating_sub(limit));
    let mut reason_of = |segment: &SegmentSummary, is_active: bool| {
        if segment.next_offset > log.high_watermark.0 {
            return None;
        }
        let by_log_start = !is_active && segment.next_offset <= log.log_start.0;
        let by_size = segment.size_bytes > 0 && excess_bytes >= segment.size_bytes;
        let age_ms = now.0.saturating_sub(segment.max_timestamp);
        let by_time = policy.retention_ms.is_some_and(|limit| age_ms > i64::try_from(limit).unwrap_or(i64::MAX));
        excess_bytes = excess_bytes.saturating_sub(segment.size_bytes);
        match () {
            () if by_log_start => Some(Reason::LogStart),
            () if by_size => Some(Reason::Size),
            () if by_time => Some(Reason::Time),
            () => None,
        }
    };

    let mut last = None;
    let mut sealed_count = 0;
    for segment in log.sealed {
        let Some(reason) = reason_of(segment, false) else { break };
        last = Some((reason, segment.next_offset));
        sealed_count += 1;
    }
    let mut roll_active = false;
    if sealed_count == log.sealed.len()
        && log.active.size_bytes > 0
        && let Some(reason) = reason_of(&log.active, true)
    {
        last = Some((reason, log.active.next_offset));
        roll_active = true;
    }
    let (reason, end) = last?;
    Some(Decision { sealed_count, roll_active, log_start: log.log_start.max(Offset(end)), reason })
}

/// DeleteRecords: the new log start for a wish to delete everything below `target`, where -1 means everything that
/// can be. A target below the log start changes nothing; one above the high watermark is the client's error
/// (Kafka: OFFSET_OUT_OF_RANGE).
pub fn delete_records(
    target: Offset,
    log_start: Offset,
    high_watermark: Offset,
) -> Result<Offset, DeleteRecordsOutOfRange> {
    let target = if target == Offset::NONE { high_watermark } else { target };
    if target.0 < 0 || target > high_watermark {
        return Err(DeleteRecordsOutOfRange { target, high_watermark });
    }
    Ok(log_start.max(target))
}

/// DeleteRecords asked for more than there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("offset {target} is outside of the log, whose high watermark is {high_watermark}")]
pub struct DeleteRecordsOutOfRange {
    /// What was asked for.
    pub target: Offset,
    /// What can be deleted.
    pub high_watermark: Offset,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Segments of ten records each from offset 0 on, the last one active.
    fn shape(segments: &[(u64, i64)]) -> (Vec<SegmentSummary>, SegmentSummary) {
        let mut all: Vec<_> = segments
            .iter()
            .enumerate()
            .map(|(at, &(size_bytes, max_timestamp))| SegmentSummary {
                base_offset: at as i64 * 10,
                next_offset: at as i64 * 10 + if size_bytes > 0 { 10 } else { 0 },
                size_bytes,
                max_timestamp,
            })
            .collect();
        let active = all.pop().expect("there is an active segment");
        (all, active)
    }

    fn ask(
        segments: &[(u64, i64)],
        ms: Option<u64>,
        bytes: Option<u64>,
        log_start: i64,
        high_watermark: i64,
    ) -> Option<(usize, bool, i64, Reason)> {
        let (sealed, active) = shape(segments);
        let log =
            LogShape { sealed: &sealed, active, log_start: Offset(log_start), high_watermark: Offset(high_watermark) };
        let policy = RetentionPolicy { retention_ms: ms, retention_bytes: bytes };
        decide(log, policy, Timestamp(1000))
            .map(|decision| (decision.sealed_count, decision.roll_active, decision.log_start.0, decision.reason))
    }

    #[test]
    fn expired_segments_go_up_to_the_first_that_is_not() {
        // The third one is old too, but stands behind a young one.
        let log = [(100, 100), (100, 200), (100, 950), (100, 100), (100, 990)];
        assert_eq!(ask(&log, Some(500), None, 0, 50), Some((2, false, 20, Reason::Time)));
        assert_eq!(ask(&log, Some(900), None, 0, 50), None);
        assert_eq!(ask(&log, Some(899), None, 0, 50), Some((1, false, 10, Reason::Time)));
        assert_eq!(ask(&log, None, None, 0, 50), None);
    }

    #[test]
    fn an_active_segment_whose_records_all_expired_is_rolled_and_goes() {
        let log = [(100, 100), (100, 200)];
        assert_eq!(ask(&log, Some(500), None, 0, 20), Some((1, true, 20, Reason::Time)));
        assert_eq!(ask(&[(100, 100)], Some(500), None, 0, 10), Some((0, true, 10, Reason::Time)));
        assert_eq!(ask(&[(0, -1)], Some(500), None, 0, 0), None);
    }

    #[test]
    fn a_log_shrinks_to_its_size_but_not_below_it() {
        let log = [(100, 0), (100, 0), (100, 0), (50, 0)];
        assert_eq!(ask(&log, None, Some(350), 0, 40), None);
        assert_eq!(ask(&log, None, Some(251), 0, 40), None);
        assert_eq!(ask(&log, None, Some(250), 0, 40), Some((1, false, 10, Reason::Size)));
        assert_eq!(ask(&log, None, Some(149), 0, 40), Some((2, false, 20, Reason::Size)));
        assert_eq!(ask(&log, None, Some(0), 0, 40), Some((3, true, 40, Reason::Size)));
    }

    #[test]
    fn nothing_at_or_above_the_high_watermark_goes() {
        let log = [(100, 0), (100, 0), (50, 0)];
        assert_eq!(ask(&log, Some(1), None, 0, 19), Some((1, false, 10, Reason::Time)));
        assert_eq!(ask(&log, Some(1), None, 0, 20), Some((2, false, 20, Reason::Time)));
    }

    #[test]
    fn segments_below_the_log_start_go_and_the_log_start_stays() {
        let log = [(100, 999), (100, 999), (50, 999)];
        assert_eq!(ask(&log, None, None, 15, 25), Some((1, false, 15, Reason::LogStart)));
        assert_eq!(ask(&log, None, None, 20, 30), Some((2, false, 20, Reason::LogStart)));
        // The active segment stays, even when every record of it was deleted.
        assert_eq!(ask(&log, None, None, 30, 30), Some((2, false, 30, Reason::LogStart)));
    }

    #[test]
    fn delete_records_moves_the_log_start_within_the_log() {
        let ask = |target| delete_records(Offset(target), Offset(10), Offset(20)).map(|offset| offset.0);
        assert_eq!(ask(15), Ok(15));
        assert_eq!(ask(5), Ok(10));
        assert_eq!(ask(20), Ok(20));
        assert_eq!(ask(-1), Ok(20));
        assert!(ask(21).is_err());
        assert!(ask(-2).is_err());
    }
}
