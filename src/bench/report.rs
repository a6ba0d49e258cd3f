//! What a run came to: figures as tables for people, as JSON, and as files.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use super::client::Run;
use super::recorder::{Counts, Recorder};

const GIB: f64 = (1u64 << 30) as f64;
/// Quantiles of the table and the names of their figures.
const QUANTILES: [(&str, f64); 5] =
    [("p50_us", 0.5), ("p90_us", 0.9), ("p99_us", 0.99), ("p999_us", 0.999), ("p9999_us", 0.9999)];
/// What result files say they are.
pub const KIND: &str = "ottla-bench-result/1";

/// Name, value and decimals.
type Figure = (&'static str, f64, usize);

/// The figures of one run.
#[derive(Clone, Debug)]
pub struct Report {
    /// `produce`, `consume` and so on.
    pub what: &'static str,
    /// What the user calls it: the name of its line in plots.
    pub label: String,
    /// What was asked for.
    pub options: Value,
    /// What came of it.
    pub run: Run,
    /// Streams that carry bytes: their requests and bytes are what CPU time is divided by.
    pub loaded: Vec<&'static str>,
}

impl Report {
    /// Rates and latencies of a stream.
    fn stream_figures(&self, recorder: &Recorder) -> Vec<Figure> {
        let seconds = self.run.measured.as_secs_f64().max(1e-9);
        let counts = recorder.counts();
        let latency = recorder.latency_ns();
        let mut figures = vec![
            ("requests_per_second", counts.requests as f64 / seconds, 0),
            ("records_per_second", counts.records as f64 / seconds, 0),
            ("mib_per_second", counts.bytes as f64 / (1 << 20) as f64 / seconds, 1),
            ("mean_us", latency.mean() / 1e3, 0),
        ];
        figures.extend(QUANTILES.map(|(name, quantile)| (name, latency.value_at_quantile(quantile) as f64 / 1e3, 0)));
        figures.push(("max_us", if latency.is_empty() { 0.0 } else { latency.max() as f64 / 1e3 }, 0));
        figures
    }

    /// What it cost, per byte and per request of all streams that carry bytes.
    fn cost_figures(&self) -> Vec<Figure> {
        let mut total = Counts::default();
        for (_, recorder) in self.run.streams.iter().filter(|(name, _)| self.loaded.contains(name)) {
            let counts = recorder.counts();
            (total.requests, total.bytes) = (total.requests + counts.requests, total.bytes + counts.bytes);
        }
        let (gib, million) = (total.bytes as f64 / GIB, total.requests as f64 / 1e6);
        let seconds = self.run.measured.as_secs_f64();
        let (cpu, mut figures) = (&self.run.cpu, Vec::new());
        // Without any request there is nothing to divide by.
        let per = |time: Duration, by: f64| if by > 0.0 { time.as_secs_f64() / by } else { 0.0 };
        if let Some(broker) = cpu.broker {
            figures.extend([
                ("broker_cpu_seconds_per_gib", per(broker.total, gib), 4),
                ("broker_user_seconds_per_gib", per(broker.user, gib), 4),
                ("broker_system_seconds_per_gib", per(broker.system, gib), 4),
                ("broker_workers_seconds_per_gib", per(broker.workers, gib), 4),
                ("broker_cpu_seconds_per_million_requests", per(broker.total, million), 3),
                ("broker_user_seconds_per_million_requests", per(broker.user, million), 3),
                ("broker_system_seconds_per_million_requests", per(broker.system, million), 3),
                ("broker_workers_seconds_per_million_requests", per(broker.workers, million), 3),
                ("broker_cpu_utilization", per(broker.total, seconds), 3),
            ]);
        }
        if let Some(memory) = self.run.memory {
            figures.extend([
                ("broker_resident_mib", memory.resident_bytes as f64 / (1 << 20) as f64, 1),
                ("broker_resident_mib_max", memory.resident_bytes_max as f64 / (1 << 20) as f64, 1),
            ]);
        }
        let others = cpu.machine.saturating_sub(cpu.own);
        figures.extend([
            ("machine_less_client_cpu_seconds_per_gib", per(others, gib), 4),
            ("machine_less_client_cpu_seconds_per_million_requests", per(others, million), 3),
            ("client_cpu_seconds_per_gib", per(cpu.own, gib), 4),
            ("client_cpu_seconds_per_million_requests", per(cpu.own, million), 3),
            ("client_cpu_utilization", per(cpu.own, seconds), 3),
        ]);
        figures
    }

    /// Everything, as one object. The figures of the first stream also stand at the top.
    pub fn to_json(&self) -> Value {
        let run = &self.run;
        let began = run.began.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let first = &run.streams[0].1;
        let mut object = json!({
            "kind": KIND,
            "version": env!("CARGO_PKG_VERSION"),
            "what": self.what,
            "label": self.label,
            "options": self.options,
            "host": host(),
            "began": began.as_secs_f64(),
            "seconds": run.measured.as_secs_f64(),
            "warm_up_seconds": run.warm_up.as_secs_f64(),
            "steady": run.is_steady,
            "unanswered": run.unanswered_count,
            "requests": first.counts().requests,
            "requests_total": first.counts().requests + run.warm_up_request_count,
        });
        for (name, value, _) in self.stream_figures(first).into_iter().chain(self.cost_figures()) {
            object[name] = json!(value);
        }
        if let Some(broker) = run.cpu.broker {
            object["broker_cpu_seconds"] = json!({
                "total": broker.total.as_secs_f64(),
                "user": broker.user.as_secs_f64(),
                "system": broker.system.as_secs_f64(),
                "workers": broker.workers.as_secs_f64(),
            });
        }
        let mut streams = Map::new();
        for (name, recorder) in &run.streams {
            let mut stream = json!({
                "requests": recorder.counts().requests,
                "records": recorder.counts().records,
                "bytes": recorder.counts().bytes,
                "percentiles": percentiles(recorder.latency_ns()),
                "series": series(recorder),
            });
            for (figure, value, _) in self.stream_figures(recorder) {
                stream[figure] = json!(value);
            }
            streams.insert(name.to_string(), stream);
        }
        object["streams"] = Value::Object(streams);
        if !run.lateness.latency_ns().is_empty() {
            let latency = run.lateness.latency_ns();
            let us = |quantile| latency.value_at_quantile(quantile) as f64 / 1e3;
            object["client_lateness"] =
                json!({ "p50_us": us(0.5), "p99_us": us(0.99), "p999_us": us(0.999), "max_us": us(1.0) });
        }
        let mut before = 0.0;
        let cpu = run.cpu_series.iter().map(|(end, used)| {
            let seconds = end.as_secs_f64() - before;
            before = end.as_secs_f64();
            let share = |time: Duration| time.as_secs_f64() / seconds.max(1e-9);
            json!({
                "end": end.as_secs_f64(),
                "broker": used.broker.map(|broker| share(broker.total)),
                "client": share(used.own),
                "machine": share(used.machine),
            })
        });
        object["cpu_series"] = cpu.collect();
        object
    }

    /// Header and rows of the table of streams.
    pub fn stream_table(&self) -> (Vec<&'static str>, Vec<Vec<String>>) {
        let mut header = vec!["STREAM", "REQUESTS/S", "RECORDS/S", "MIB/S", "MEAN US"];
        header.extend(["P50 US", "P90 US", "P99 US", "P99.9 US", "P99.99 US", "MAX US"]);
        let rows = self.run.streams.iter().map(|(name, recorder)| {
            let figures = self.stream_figures(recorder).into_iter();
            let cells = figures.map(|(_, value, decimals)| format!("{value:.decimals$}"));
            std::iter::once(name.to_string()).chain(cells).collect()
        });
        (header, rows.collect())
    }

    /// Rows of name and value: what it cost.
    pub fn cost_rows(&self) -> Vec<Vec<String>> {
        let figures = self.cost_figures().into_iter();
        figures.map(|(name, value, decimals)| vec![name.replace('_', " "), format!("{value:.decimals$}")]).collect()
    }

    /// What a reader of the figures must know.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let run = &self.run;
        if run.unanswered_count > 0 {
            warnings.push(format!(
                "{} requests were never answered; they count with the time that they had waited",
                run.unanswered_count
            ));
        }
        if run.is_steady == Some(false) {
            warnings.push("the rate never was steady; measured all the same".into());
        }
        if run.cpu.own.as_secs_f64() > 0.95 * run.measured.as_secs_f64() {
            warnings.push("the load generator used its whole core: the broker may be faster".into());
        }
        let lateness = run.lateness.latency_ns();
        let (late, p99) = (lateness.value_at_quantile(0.99), run.streams[0].1.latency_ns().value_at_quantile(0.99));
        if !lateness.is_empty() && late > p99 / 2 {
            let ms = late as f64 / 1e6;
            warnings.push(format!("the load generator itself was late with requests (p99 {ms:.2} ms)"));
        }
        warnings
    }

    /// Writes `result.json`, `series.csv` and one HdrHistogram interval log for each stream.
    pub fn write(&self, directory: &Path) -> anyhow::Result<()> {
        fs::create_dir_all(directory).with_context(|| format!("creating {}", directory.display()))?;
        let put = |name: &str, contents: &[u8]| {
            let path = directory.join(name);
            fs::write(&path, contents).with_context(|| format!("writing {}", path.display()))
        };
        put("result.json", &serde_json::to_vec_pretty(&self.to_json())?)?;
        let mut csv = String::from("stream,start_s,seconds,requests,records,bytes,p50_us,p99_us,p999_us,max_us\n");
        for (name, recorder) in &self.run.streams {
            put(&format!("{name}.hlog"), &recorder.interval_log(self.run.began))?;
            for row in recorder.rows() {
                let (start, seconds, counts) = (row.start.as_secs_f64(), row.duration.as_secs_f64(), row.counts);
                let [p50, p99, p999, max] = row.latency_ns.map(|ns| ns as f64 / 1e3);
                let Counts { requests, records, bytes } = counts;
                csv += &format!(
                    "{name},{start:.3},{seconds:.3},{requests},{records},{bytes},{p50:.1},{p99:.1},{p999:.1},{max:.1}\n"
                );
            }
        }
        put("series.csv", csv.as_bytes())
    }
}

/// Pairs of quantile and microseconds, ten for each nine of the quantile as far as there are samples, and the maximum.
fn percentiles(histogram: &Histogram<u64>) -> Value {
    let mut pairs = Vec::new();
    for step in 0.. {
        let beyond = 10f64.powf(-f64::from(step) / 10.0);
        if beyond * (histogram.len() as f64) < 1.0 {
            break;
        }
        pairs.push(json!([1.0 - beyond, histogram.value_at_quantile(1.0 - beyond) as f64 / 1e3]));
    }
    if !histogram.is_empty() {
        pairs.push(json!([1.0, histogram.max() as f64 / 1e3]));
    }
    Value::Array(pairs)
}

fn series(recorder: &Recorder) -> Value {
    let rows = recorder.rows().iter().map(|row| {
        let [p50, p99, p999, max] = row.latency_ns.map(|ns| ns as f64 / 1e3);
        json!({
            "start": row.start.as_secs_f64(),
            "seconds": row.duration.as_secs_f64(),
            "requests": row.counts.requests,
            "bytes": row.counts.bytes,
            "p50_us": p50,
            "p99_us": p99,
            "p999_us": p999,
            "max_us": max,
        })
    });
    rows.collect()
}

/// What the figures were measured on.
pub fn host() -> Value {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let model = read("/proc/cpuinfo").lines().find_map(|line| {
        line.strip_prefix("model name").map(|rest| rest.trim_start_matches([' ', '\t', ':']).to_string())
    });
    json!({
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "cpu": model,
        "cpus": std::thread::available_parallelism().map_or(0, usize::from),
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::bench::meter::{CpuTime, Memory, ProcessTime};

    /// 1,024 requests of 1 MiB in two seconds: 1 GiB, 512 MiB/s; half a second of broker time.
    pub(crate) fn report() -> Report {
        let mut recorder = Recorder::new();
        for second in 0..2 {
            for _ in 0..512 {
                recorder.record(2_000_000);
                recorder.count(Counts { requests: 1, bytes: 1 << 20, records: 10 });
            }
            recorder.roll(Duration::from_secs(second), Duration::from_secs(1));
        }
        let ms = Duration::from_millis;
        let broker = ProcessTime { total: ms(500), user: ms(200), system: ms(300), workers: ms(100) };
        let cpu = CpuTime { broker: Some(broker), own: ms(1000), machine: ms(3000) };
        let run = Run {
            streams: vec![("produce", recorder)],
            lateness: Recorder::new(),
            began: SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000),
            measured: Duration::from_secs(2),
            warm_up: Duration::from_secs(1),
            is_steady: None,
            cpu,
            cpu_series: vec![(Duration::from_secs(1), cpu), (Duration::from_secs(2), cpu)],
            memory: Some(Memory { resident_bytes: 64 << 20, resident_bytes_max: 128 << 20 }),
            unanswered_count: 0,
            warm_up_request_count: 976,
        };
        let (label, options) = ("a label".to_string(), json!({ "partitions": 1 }));
        Report { what: "produce", label, options, run, loaded: vec!["produce"] }
    }

    #[test]
    fn figures_follow_from_what_was_counted() {
        let json = report().to_json();
        assert_eq!(json["mib_per_second"], 512.0);
        assert_eq!(json["records_per_second"], 5120.0);
        assert_eq!(json["broker_cpu_seconds_per_gib"], 0.5);
        assert_eq!(json["machine_less_client_cpu_seconds_per_gib"], 2.0);
        assert_eq!(json["broker_cpu_seconds_per_million_requests"].as_f64().unwrap().round(), 488.0);
        assert_eq!(json["broker_workers_seconds_per_million_requests"].as_f64().unwrap().round(), 98.0);
        assert!((json["p9999_us"].as_f64().unwrap() - 2000.0).abs() < 5.0);
        assert_eq!((&json["requests_total"], &json["broker_resident_mib"]), (&json!(2000), &json!(64.0)));
        let stream = &json["streams"]["produce"];
        assert_eq!(stream["series"].as_array().unwrap().len(), 2);
        let percentiles = stream["percentiles"].as_array().unwrap();
        assert_eq!(percentiles.last().unwrap()[0], 1.0);
        assert_eq!(percentiles.len(), 31 + 1);
    }

    #[test]
    fn files_hold_the_run() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run");
        report().write(&path).unwrap();
        let json: Value = serde_json::from_slice(&fs::read(path.join("result.json")).unwrap()).unwrap();
        assert_eq!(json["kind"], KIND);
        assert!(fs::read_to_string(path.join("produce.hlog")).unwrap().contains("BaseTime"));
        assert_eq!(fs::read_to_string(path.join("series.csv")).unwrap().lines().count(), 3);
    }

    #[test]
    fn a_client_at_its_limit_is_said() {
        let mut report = report();
        assert!(report.warnings().is_empty());
        report.run.cpu.own = Duration::from_secs(2);
        report.run.unanswered_count = 3;
        assert_eq!(report.warnings().len(), 2);
    }
}
