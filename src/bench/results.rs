//! Result files as they are read again: what plots, tables and ratios need of them.

use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};
use serde::Deserialize;
use serde_json::Value;

use super::report::KIND;

/// One run, read from its directory.
#[derive(Clone, Debug)]
pub struct RunResult {
    /// The name of its line.
    pub label: String,
    /// `produce`, `consume` and so on.
    pub what: String,
    /// Its streams by name, in no order.
    pub streams: Vec<(String, StreamResult)>,
    /// All of the file.
    pub json: Value,
}

/// One stream of a run.
#[derive(Clone, Debug, Deserialize)]
pub struct StreamResult {
    /// Requests a second.
    pub requests_per_second: f64,
    /// MiB a second.
    pub mib_per_second: f64,
    /// Half of the requests were faster.
    pub p50_us: f64,
    /// 99 % were faster.
    pub p99_us: f64,
    /// 99.9 % were faster.
    pub p999_us: f64,
    /// None was slower.
    pub max_us: f64,
    /// Pairs of quantile and microseconds.
    pub percentiles: Vec<(f64, f64)>,
    /// The time series.
    pub series: Vec<SeriesRow>,
}

/// One interval of a time series.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct SeriesRow {
    /// Seconds from the start of the measured time.
    pub start: f64,
    /// How long it was.
    pub seconds: f64,
    /// Requests that were answered.
    pub requests: u64,
    /// Bytes of batches.
    pub bytes: u64,
    /// 99 % of its requests were faster.
    pub p99_us: f64,
    /// None was slower.
    pub max_us: f64,
}

impl RunResult {
    /// Reads `result.json` in a directory, or the file itself.
    pub fn read(path: &Path) -> anyhow::Result<RunResult> {
        let file = if path.is_dir() { path.join("result.json") } else { path.to_path_buf() };
        let bytes = fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
        let json = serde_json::from_slice(&bytes).with_context(|| format!("{} is no JSON", file.display()))?;
        RunResult::parse(json).with_context(|| format!("{} is no result of ottla bench", file.display()))
    }

    /// What the JSON of a result says.
    pub fn parse(json: Value) -> anyhow::Result<RunResult> {
        ensure!(json["kind"] == KIND, "its kind is {} and not {KIND}", json["kind"]);
        let text = |name: &str| json[name].as_str().map(str::to_string).with_context(|| format!("it has no {name}"));
        let streams = json["streams"].as_object().context("it has no streams")?;
        let streams = streams
            .iter()
            .map(|(name, stream)| {
                let stream = StreamResult::deserialize(stream).with_context(|| format!("stream {name}"))?;
                anyhow::Ok((name.clone(), stream))
            })
            .collect::<Result<_, _>>()?;
        Ok(RunResult { label: text("label")?, what: text("what")?, streams, json })
    }

    /// A figure that is one number.
    pub fn figure(&self, name: &str) -> Option<f64> {
        self.json[name].as_f64()
    }

    /// A stream by name.
    pub fn stream(&self, name: &str) -> Option<&StreamResult> {
        self.streams.iter().find(|(known, _)| known == name).map(|(_, stream)| stream)
    }
}

/// The middle of some numbers, which must not be none.
pub fn median(numbers: &mut [f64]) -> f64 {
    numbers.sort_by(f64::total_cmp);
    let middle = numbers.len() / 2;
    if numbers.len() % 2 == 1 { numbers[middle] } else { (numbers[middle - 1] + numbers[middle]) / 2.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::tests::report;

    #[test]
    fn what_was_written_is_read() {
        let directory = tempfile::tempdir().unwrap();
        report().write(directory.path()).unwrap();
        let result = RunResult::read(directory.path()).unwrap();
        assert_eq!((result.label.as_str(), result.what.as_str()), ("a label", "produce"));
        let stream = result.stream("produce").unwrap();
        assert_eq!((stream.mib_per_second, stream.series.len()), (512.0, 2));
        assert_eq!(result.figure("broker_cpu_seconds_per_gib"), Some(0.5));
    }

    #[test]
    fn other_files_are_refused_with_the_reason() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("result.json");
        assert!(RunResult::read(&path).is_err());
        for (contents, reason) in [("no", "no JSON"), ("{}", "kind"), (r#"{"kind": "something"}"#, "something")] {
            fs::write(&path, contents).unwrap();
            let error = format!("{:#}", RunResult::read(directory.path()).unwrap_err());
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 3.0]), 2.5);
    }
}
