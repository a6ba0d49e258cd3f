//! A run's figures as ratios to the floor: which row is the right one, and what is divided by what.
//!
//! Producing is compared with the bare append server that writes batches of the nearest size onto written blocks and
//! acknowledges when they are durable; consuming with the bare server that sends from memory.

use serde::Deserialize;
use serde_json::Value;

use super::{Row, append_name};

/// Sizes of batches that the bare append server is measured with.
pub const APPEND_SIZES_BYTES: [u64; 3] = [256, 4 << 10, 64 << 10];
/// The row for consuming.
pub const FETCH_NAME: &str = "fetch from memory";

/// One figure divided by the floor's.
#[derive(Clone, Debug, PartialEq)]
pub struct Ratio {
    /// What was divided.
    pub figure: &'static str,
    /// The ratio.
    pub value: f64,
    /// The name of the floor's row.
    pub of: String,
}

/// The ratios of a result to a floor; none if the floor lacks the row.
pub fn ratios(result: &Value, floor: &Value) -> Vec<Ratio> {
    let rows: Vec<Row> = Vec::deserialize(&floor["rows"]).unwrap_or_default();
    let Some(name) = row_name(result) else { return Vec::new() };
    let Some(row) = rows.iter().find(|row| row.name == name) else { return Vec::new() };
    let figures = [
        ("requests_per_second", "requests/s", row.per_second),
        ("mib_per_second", "MiB/s", row.mib_per_second),
        ("p99_us", "p99", row.p99_us),
        ("broker_cpu_seconds_per_gib", "CPU per GiB", row.cpu_seconds_per_gib),
        ("broker_cpu_seconds_per_million_requests", "CPU per request", row.cpu_seconds_per_million_requests),
    ];
    let ratio = |(field, figure, floor): (&str, &'static str, Option<f64>)| {
        let value = result[field].as_f64()? / floor.filter(|floor| *floor > 0.0)?;
        Some(Ratio { figure, value, of: name.clone() })
    };
    figures.into_iter().filter_map(ratio).collect()
}

fn row_name(result: &Value) -> Option<String> {
    match result["what"].as_str()? {
        "consume" => Some(FETCH_NAME.to_string()),
        "produce" => {
            let size = result["options"]["load"]["batch_bytes"].as_f64()?.max(1.0);
            let distance = |known: &&u64| ((**known as f64).ln() - size.ln()).abs();
            let nearest = APPEND_SIZES_BYTES.iter().min_by(|a, b| distance(a).total_cmp(&distance(b)))?;
            Some(append_name(*nearest, true, true))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::floor::to_json;
    use serde_json::json;

    #[test]
    fn a_run_is_divided_by_the_row_of_the_nearest_size() {
        let row = |name: String, rate, cpu| Row {
            name,
            per_second: Some(rate),
            cpu_seconds_per_million_requests: Some(cpu),
            ..Row::default()
        };
        let floor = to_json(&[
            row(append_name(4096, true, true), 100_000.0, 6.0),
            row(append_name(65536, true, true), 16_000.0, 30.0),
            row(append_name(65536, true, false), 20_000.0, 30.0),
        ]);
        let result = json!({
            "what": "produce",
            "options": { "load": { "batch_bytes": 49152 } },
            "requests_per_second": 12_000.0,
            "broker_cpu_seconds_per_million_requests": 45.0,
            "p99_us": 1000.0,
        });
        let of = "append 64 KiB written dsync".to_string();
        let expected = [
            Ratio { figure: "requests/s", value: 0.75, of: of.clone() },
            Ratio { figure: "CPU per request", value: 1.5, of },
        ];
        assert_eq!(ratios(&result, &floor), expected);
        assert!(ratios(&json!({ "what": "mixed" }), &floor).is_empty());
        assert!(ratios(&result, &json!({})).is_empty());
    }
}
