//! What no broker can beat on this host, measured in one run: CRC and copying ([`cpu`]), loopback ([`net`]), direct
//! writes and reads and a ring's round trip ([`disk`]). A bare append and fetch server is the
//! [`sink`](super::sink)'s; the command line runs it as a process of its own.
//!
//! A floor is a list of named [`Row`]s. [`ratios`] says which of them a run is to be compared with.

pub mod cpu;
pub mod disk;
pub mod net;
pub mod ratios;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::report::host;

/// What floor files say they are.
pub const KIND: &str = "ottla-bench-floor/1";

/// One thing that was measured. Figures that it does not have are left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What it is, such as `write 64KiB written dsync`.
    pub name: String,
    /// Operations or requests a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_second: Option<f64>,
    /// MiB a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mib_per_second: Option<f64>,
    /// Half took less.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p50_us: Option<f64>,
    /// 99 % took less.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99_us: Option<f64>,
    /// 99.9 % took less.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p999_us: Option<f64>,
    /// CPU seconds of the server, with its kernel workers, per GiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_seconds_per_gib: Option<f64>,
    /// The same per million requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_seconds_per_million_requests: Option<f64>,
    /// CPU seconds of the machine less the client's, per million requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine_less_client_cpu_seconds_per_million_requests: Option<f64>,
}

/// The header of [`table`].
pub const HEADER: [&str; 8] = ["WHAT", "K/S", "MIB/S", "P50 US", "P99 US", "P99.9 US", "CPU S/GIB", "CPU S/M REQUESTS"];

/// Rows for people.
pub fn table(rows: &[Row]) -> Vec<Vec<String>> {
    let cell = |figure: Option<f64>, decimals: usize| figure.map_or("-".into(), |value| format!("{value:.decimals$}"));
    let line = |row: &Row| {
        vec![
            row.name.clone(),
            cell(row.per_second.map(|rate| rate / 1e3), 2),
            cell(row.mib_per_second, 0),
            cell(row.p50_us, 1),
            cell(row.p99_us, 1),
            cell(row.p999_us, 1),
            cell(row.cpu_seconds_per_gib, 3),
            cell(row.cpu_seconds_per_million_requests, 2),
        ]
    };
    rows.iter().map(line).collect()
}

/// The floor file.
pub fn to_json(rows: &[Row]) -> Value {
    json!({ "kind": KIND, "version": env!("CARGO_PKG_VERSION"), "host": host(), "rows": rows })
}

/// The name of the row of the bare append server for batches of this size: as [`ratios`] looks for it.
pub fn append_name(batch_size_bytes: u64, written: bool, sync: bool) -> String {
    let file = if written { "written" } else { "fallocated" };
    let sync = if sync { "dsync" } else { "no sync" };
    format!("append {} {file} {sync}", size_text(batch_size_bytes))
}

/// A size with its unit, whole.
pub fn size_text(bytes: u64) -> String {
    match bytes {
        bytes if bytes >= 1 << 20 && bytes % (1 << 20) == 0 => format!("{} MiB", bytes >> 20),
        bytes if bytes >= 1 << 10 && bytes % (1 << 10) == 0 => format!("{} KiB", bytes >> 10),
        bytes => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_keeps_what_it_has_and_nothing_else() {
        let row = Row { name: append_name(65536, true, false), mib_per_second: Some(1000.4), ..Row::default() };
        assert_eq!(
            table(std::slice::from_ref(&row))[0],
            ["append 64 KiB written no sync", "-", "1000", "-", "-", "-", "-", "-"]
        );
        let json = to_json(std::slice::from_ref(&row));
        assert_eq!(json["rows"][0].as_object().unwrap().len(), 2);
        assert_eq!(serde_json::from_value::<Row>(json["rows"][0].clone()).unwrap(), row);
    }
}
