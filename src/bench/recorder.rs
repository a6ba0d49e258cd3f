//! What one stream of requests came to: counts, latencies, and both again for every interval.
//!
//! A latency goes into the interval's histogram; when the interval ends, what is in it is kept as a short list and it
//! is emptied. Hot path: [`Recorder::record`] neither allocates nor looks at a clock, and ending an interval takes some
//! ten microseconds, for requests that are due meanwhile are sent late: what is costly (the log) is made at the end.

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
    intervals: Vec<Interval>,
}

/// The latencies of an interval that has ended: how often each was seen.
#[derive(Clone, Debug)]
struct Interval {
    start: Duration,
    duration: Duration,
    latencies: Vec<(u64, u64)>,
}

impl Default for Recorder {
    fn default() -> Recorder {
        Recorder::new()
    }
}

impl Recorder {
    /// Nothing yet.
    pub fn new() -> Recorder {
        let histogram = new_histogram();
        Recorder {
            interval: histogram.clone(),
            interval_counts: Counts::default(),
            total: histogram,
            total_counts: Counts::default(),
            rows: Vec::new(),
            intervals: Vec::new(),
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
        let recorded = self.interval.iter_recorded();
        let latencies: Vec<(u64, u64)> =
            recorded.map(|step| (step.value_iterated_to(), step.count_at_value())).collect();
        for (latency_ns, count) in &latencies {
            self.total.saturating_record_n(*latency_ns, *count);
        }
        let latency_ns = [0.5, 0.99, 0.999, 1.0].map(|share| quantile(&latencies, share));
        let row = Row { start, duration, counts: self.interval_counts, latency_ns };
        self.rows.push(row);
        self.intervals.push(Interval { start, duration, latencies });
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
        let (mut log, mut serializer) = (Vec::new(), V2DeflateSerializer::new());
        let mut histogram = new_histogram();
        let written = (|| {
            let mut writer = IntervalLogWriterBuilder::new()
                .add_comment("[Histogram log format version 1.3]")
                .add_comment("[Values are nanoseconds]")
                .with_start_time(began)
                .with_base_time(began)
                .begin_log_with(&mut log, &mut serializer)?;
            for interval in &self.intervals {
                histogram.reset();
                for (latency_ns, count) in &interval.latencies {
                    histogram.saturating_record_n(*latency_ns, *count);
                }
                let written = writer.write_histogram(&histogram, interval.start, interval.duration, None);
                written.map_err(|error| std::io::Error::other(format!("{error:?}")))?;
            }
            std::io::Result::Ok(())
        })();
        written.expect("memory takes every histogram of these bounds");
        log
    }
}

fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(LATENCY_NS_MIN, LATENCY_NS_MAX, 3).expect("sound bounds")
}

/// The latency that this share of all reached or stayed below; 0 if there is none.
fn quantile(latencies: &[(u64, u64)], share: f64) -> u64 {
    let total: u64 = latencies.iter().map(|(_, count)| count).sum();
    let wanted = ((total as f64 * share).ceil() as u64).max(1);
    let mut seen = 0;
    let found = latencies.iter().find(|(_, count)| {
        seen += count;
        seen >= wanted
    });
    found.or(latencies.last()).map_or(0, |(latency_ns, _)| *latency_ns)
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
    fn the_quantiles_of_an_interval_are_those_of_its_histogram() {
        let mut recorder = Recorder::new();
        let mut expected = new_histogram();
        for step in 0..10_000u64 {
            let latency = 1000 + step * step;
            recorder.record(latency);
            expected.saturating_record(latency);
        }
        let row = recorder.roll(Duration::ZERO, Duration::from_secs(1));
        let quantiles = [0.5, 0.99, 0.999, 1.0].map(|share| expected.value_at_quantile(share));
        assert_eq!(row.latency_ns, quantiles);
        assert_eq!(recorder.latency_ns().value_at_quantile(0.9), expected.value_at_quantile(0.9));
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
