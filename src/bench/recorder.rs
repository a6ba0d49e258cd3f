//! What one stream of requests came to: counts, latencies, and both again for every interval.
//!
//! A latency goes into the interval's histogram; when the interval ends, that is written to the log, added to the
//! total and emptied. Hot path: [`Recorder::record`] neither allocates nor looks at a clock.

use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::IntervalLogWriterBuilder;

/// The longest latency that is told apart; longer ones count as this.
pub const LATENCY_NS_MAX: u64 = 600_000_000_000;
const LATENCY_NS_MIN: u64 = 100;

/// How much was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests that were answered.
    pub requests: u64,
    /// Bytes of record batches, as they are on the wire.
    pub bytes: u64,
    /// Records.
    pub records: u64,
}

impl Counts {
    fn add(&mut self, other: Counts) {
        self.requests += other.requests;
        self.bytes += other.bytes;
        self.records += other.records;
    }
}

/// One interval of the time series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// When it began, from the start of the measured time.
    pub start: Duration,
    /// How long it was.
    pub duration: Duration,
    /// What was done.
    pub counts: Counts,
    /// 50 %, 99 %, 99.9 % and the greatest latency in nanoseconds; 0 if nothing was done.
    pub latency_ns: [u64; 4],
}

/// Counts and latencies of a stream.
#[derive(Clone, Debug)]
pub struct Recorder {
    interval: Histogram<u64>,
    interval_counts: Counts,
    total: Histogram<u64>,
    total_counts: Counts,
    rows: Vec<Row>,
    log: Vec<u8>,
}

impl Default for Recorder {
    fn default() -> Recorder {
        Recorder::new()
    }
}

impl Recorder {
    /// Nothing yet.
    pub fn new() -> Recorder {
        let histogram = Histogram::new_with_bounds(LATENCY_NS_MIN, LATENCY_NS_MAX, 3).expect("sound bounds");
        Recorder {
            interval: histogram.clone(),
            interval_counts: Counts::default(),
            total: histogram,
            total_counts: Counts::default(),
            rows: Vec::new(),
            log: Vec::new(),
        }
    }

    /// One request that was answered after `latency_ns`.
    #[inline]
    pub fn record(&mut self, latency_ns: u64) {
        self.interval.saturating_record(latency_ns.min(LATENCY_NS_MAX));
    }

    /// Counts what was done.
    #[inline]
    pub fn count(&mut self, counts: Counts) {
        self.interval_counts.add(counts);
    }

    /// The rate of the interval so far.
    pub fn interval_counts(&self) -> Counts {
        self.interval_counts
    }

    /// Forgets everything: the warm-up is over.
    pub fn clear(&mut self) {
        *self = Recorder::new();
    }

    /// Forgets the interval, during the warm-up.
    pub fn clear_interval(&mut self) {
        self.interval.reset();
        self.interval_counts = Counts::default();
    }

    /// Ends an interval and returns it.
    pub fn roll(&mut self, start: Duration, duration: Duration) -> Row {
        let quantile = |quantile: f64| self.interval.value_at_quantile(quantile);
        let latency_ns = match self.interval.is_empty() {
            true => [0; 4],
            false => [quantile(0.5), quantile(0.99), quantile(0.999), self.interval.max()],
        };
        let row = Row { start, duration, counts: self.interval_counts, latency_ns };
        self.rows.push(row);
        // What is written into memory cannot fail, and the bounds are the same.
        let mut serializer = V2DeflateSerializer::new();
        let writer = IntervalLogWriterBuilder::new().begin_log_with(&mut self.log, &mut serializer);
        let written = writer.map(|mut writer| writer.write_histogram(&self.interval, start, duration, None));
        debug_assert!(matches!(written, Ok(Ok(()))));
        self.total.add(&self.interval).expect("equal bounds");
        self.total_counts.add(self.interval_counts);
        self.clear_interval();
        row
    }

    /// Adds what came after the last interval to the total and the log, without a row: it is no interval's rate.
    pub fn roll_rest(&mut self, start: Duration, duration: Duration) {
        if !self.interval.is_empty() || self.interval_counts != Counts::default() {
            self.roll(start, duration);
            self.rows.pop();
        }
    }

    /// All latencies in nanoseconds, of the intervals that have ended.
    pub fn latency_ns(&self) -> &Histogram<u64> {
        &self.total
    }

    /// What was done, in the intervals that have ended.
    pub fn counts(&self) -> Counts {
        self.total_counts
    }

    /// The intervals that have ended.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The intervals as HdrHistogram's own log, for its tools. `began` is the wall clock at the start of the measured
    /// time.
    pub fn interval_log(&self, began: SystemTime) -> Vec<u8> {
        let mut log = Vec::new();
        let mut serializer = V2DeflateSerializer::new();
        let header = IntervalLogWriterBuilder::new()
            .add_comment("[Histogram log format version 1.3]")
            .add_comment("values in nanoseconds")
            .with_start_time(began)
            .with_base_time(began)
            .begin_log_with(&mut log, &mut serializer)
            .and_then(|mut writer| {
                let epoch = began.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                writer.write_comment(&format!("[Began at {} (seconds since epoch)]", epoch.as_secs()))
            });
        debug_assert!(header.is_ok(), "memory takes it");
        log.extend_from_slice(
            b"\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n",
        );
        log.extend_from_slice(&self.log);
        log
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    #[test]
    fn intervals_add_up_and_can_be_read_from_the_log() {
        // Three intervals, one of them empty; the log is read by the library's own reader.
        let mut recorder = Recorder::new();
        for (index, latencies) in [&[1_000_000u64, 2_000_000][..], &[], &[5_000_000]].iter().enumerate() {
            for latency in *latencies {
                recorder.record(*latency);
                recorder.count(Counts { requests: 1, bytes: 10, records: 2 });
            }
            let row = recorder.roll(Duration::from_secs(index as u64), Duration::from_secs(1));
            assert_eq!(row.counts.requests, latencies.len() as u64);
        }
        assert_eq!(recorder.counts(), Counts { requests: 3, bytes: 30, records: 6 });
        assert_eq!(recorder.latency_ns().len(), 3);
        assert_eq!(recorder.rows()[1].latency_ns, [0; 4]);
        assert!((recorder.rows()[2].latency_ns[3] as f64 / 5e6 - 1.0).abs() < 0.01);
        let log = recorder.interval_log(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000));
        let mut intervals = 0;
        for entry in IntervalLogIterator::new(&log) {
            if let LogEntry::Interval(interval) = entry.expect("a sound line") {
                assert_eq!(interval.duration(), Duration::from_secs(1));
                intervals += 1;
            }
        }
        assert_eq!(intervals, 3);
    }

    #[test]
    fn what_is_out_of_bounds_is_counted_at_the_bound() {
        let mut recorder = Recorder::new();
        recorder.record(u64::MAX);
        recorder.record(0);
        recorder.roll(Duration::ZERO, Duration::from_secs(1));
        assert_eq!(recorder.latency_ns().len(), 2);
        assert!(recorder.latency_ns().max() >= LATENCY_NS_MAX);
    }
}
