//! What a run came to: figures, as a table for people and as JSON.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::meter::CpuTime;

const GIB: f64 = (1u64 << 30) as f64;

/// The figures of one run.
#[derive(Clone, Debug)]
pub struct Report {
    /// Requests that were answered in the measured time.
    pub request_count: u64,
    /// Bytes of one request's batch.
    pub batch_size_bytes: usize,
    /// How long was measured.
    pub measured: Duration,
    /// From the moment a request could be sent to its answer, in nanoseconds.
    pub latency_ns: Histogram<u64>,
    /// CPU time in the measured time.
    pub cpu: CpuTime,
    /// Requests that were answered in all, the warm-up included.
    pub request_count_total: u64,
}

impl Report {
    /// Bytes of batches.
    pub fn batch_bytes(&self) -> u64 {
        self.request_count * self.batch_size_bytes as u64
    }

    /// Name, value and decimals of every figure, in the order of the table.
    pub fn figures(&self) -> Vec<(&'static str, f64, usize)> {
        let seconds = self.measured.as_secs_f64();
        let (gib, million) = (self.batch_bytes() as f64 / GIB, self.request_count as f64 / 1e6);
        let latency_us = |quantile: f64| self.latency_ns.value_at_quantile(quantile) as f64 / 1e3;
        let mut figures = vec![
            ("requests_per_second", self.request_count as f64 / seconds, 0),
            ("mib_per_second", gib * 1024.0 / seconds, 1),
            ("p50_us", latency_us(0.5), 0),
            ("p99_us", latency_us(0.99), 0),
            ("p999_us", latency_us(0.999), 0),
        ];
        if let Some(broker) = self.cpu.broker.map(|time| time.as_secs_f64()) {
            figures.extend([
                ("broker_cpu_seconds_per_gib", broker / gib, 4),
                ("broker_cpu_seconds_per_million_requests", broker / million, 3),
                ("broker_cpu_utilization", broker / seconds, 3),
            ]);
        }
        let others = self.cpu.machine.saturating_sub(self.cpu.own).as_secs_f64();
        figures.extend([
            ("machine_less_client_cpu_seconds_per_gib", others / gib, 4),
            ("machine_less_client_cpu_seconds_per_million_requests", others / million, 3),
            ("client_cpu_utilization", self.cpu.own.as_secs_f64() / seconds, 3),
        ]);
        figures
    }

    /// Everything, as one object.
    pub fn to_json(&self) -> Value {
        let mut object = json!({
            "requests": self.request_count,
            "requests_total": self.request_count_total,
            "batch_bytes": self.batch_size_bytes,
            "seconds": self.measured.as_secs_f64(),
        });
        for (name, value, _) in self.figures() {
            object[name] = json!(value);
        }
        object
    }

    /// Rows of name and value.
    pub fn rows(&self) -> Vec<Vec<String>> {
        let figures = self.figures().into_iter();
        figures.map(|(name, value, decimals)| vec![name.replace('_', " "), format!("{value:.decimals$}")]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_follow_from_what_was_counted() {
        // 1,024 requests of 1 MiB in two seconds: 1 GiB, 512 MiB/s; half a second of broker time.
        let mut latency_ns = Histogram::new(3).unwrap();
        latency_ns.record_n(2_000_000, 1024).unwrap();
        let (broker, own, machine) = (Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(3));
        let report = Report {
            request_count: 1024,
            batch_size_bytes: 1 << 20,
            measured: Duration::from_secs(2),
            latency_ns,
            cpu: CpuTime { broker: Some(broker), own, machine },
            request_count_total: 2000,
        };
        let json = report.to_json();
        assert_eq!(json["mib_per_second"], 512.0);
        assert_eq!(json["broker_cpu_seconds_per_gib"], 0.5);
        assert_eq!(json["machine_less_client_cpu_seconds_per_gib"], 2.0);
        assert_eq!(json["broker_cpu_seconds_per_million_requests"].as_f64().unwrap().round(), 488.0);
        assert!((json["p99_us"].as_f64().unwrap() - 2000.0).abs() < 5.0);
        assert_eq!(report.rows().len(), report.figures().len());
    }
}
