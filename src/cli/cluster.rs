//! `ottla cluster describe`: the shards as brokers, what each of them leads and stores, and how evenly.

use std::collections::BTreeMap;
use std::io::Write;

use clap::{Args, Subcommand};
use serde_json::json;

use super::output::Output;
use super::remote::RawRemote;
use crate::base::units::counted;
use crate::client::StoredBytes;
use crate::model::id::BrokerId;

/// Subcommands of `ottla cluster`.
#[derive(Debug, Subcommand)]
pub enum RawCluster {
    /// Show brokers (ottla: shards), their addresses, and what each of them leads and stores.
    Describe(RawDescribe),
}

/// Flags of `ottla cluster describe`.
#[derive(Debug, Args)]
pub struct RawDescribe {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: RawRemote,
}

/// One broker.
struct Row {
    id: i32,
    address: String,
    rack: Option<String>,
    /// Partitions that the metadata say it leads.
    led_count: u64,
    /// What it said about its disk, or why not.
    stored: Result<StoredBytes, String>,
}

/// Runs the command.
pub fn command(raw: RawCluster) -> anyhow::Result<()> {
    match raw {
        RawCluster::Describe(raw) => describe(&raw),
    }
}

fn describe(raw: &RawDescribe) -> anyhow::Result<()> {
    let mut client = raw.remote.connect()?;
    let cluster = client.describe_cluster()?;
    let info = client.metadata(None)?.clone();
    let mut led: BTreeMap<i32, u64> = BTreeMap::new();
    for leader in info.topics.values().flat_map(|topic| &topic.partitions).filter_map(|partition| partition.leader) {
        *led.entry(leader.0).or_default() += 1;
    }
    // A broker that does not answer is shown without its bytes.
    let rows: Vec<Row> = cluster
        .brokers
        .into_iter()
        .map(|(id, address, rack)| Row {
            id,
            address,
            rack,
            led_count: led.get(&id).copied().unwrap_or(0),
            stored: client.stored_bytes(BrokerId(id)).map_err(|error| error.to_string()),
        })
        .collect();
    let partitions = Spread::of(rows.iter().map(|row| row.led_count));
    let bytes = Spread::of(rows.iter().filter_map(|row| Some(row.stored.as_ref().ok()?.size_bytes)));
    let mut out = Output::stdout();
    if raw.json {
        let brokers: Vec<_> = rows.iter().map(|row| row_json(row, cluster.controller)).collect();
        out.json(&json!({
            "cluster_id": cluster.cluster_id,
            "controller": cluster.controller,
            "topics": info.topics.len(),
            "partitions": partitions.sum,
            "bytes": bytes.sum,
            "skew": { "partitions": partitions.skew(), "bytes": bytes.skew() },
            "brokers": brokers,
        }))?;
        return Ok(out.flush()?);
    }
    out.heading(&format!(
        "cluster {}: {}, {}, {}, {}",
        cluster.cluster_id,
        counted(rows.len() as u64, "broker"),
        counted(info.topics.len() as u64, "topic"),
        counted(partitions.sum, "partition"),
        readable_size(bytes.sum)
    ))?;
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let stored = row.stored.as_ref();
            let left = stored.ok().and_then(|stored| stored.usable_bytes);
            vec![
                row.id.to_string(),
                row.address.clone(),
                row.rack.clone().unwrap_or_else(|| "-".into()),
                if row.id == cluster.controller { "yes".into() } else { String::new() },
                row.led_count.to_string(),
                stored.map_or("-".into(), |stored| readable_size(stored.size_bytes)),
                left.map_or("-".into(), readable_size),
            ]
        })
        .collect();
    out.table(&["BROKER", "ADDRESS", "RACK", "CONTROLLER", "LEADS", "STORED", "DISK FREE"], &cells)?;
    for (row, why) in rows.iter().filter_map(|row| Some((row, row.stored.as_ref().err()?))) {
        writeln!(out, "broker {}: {why}", row.id)?;
    }
    writeln!(
        out,
        "skew (the fullest broker against the mean): partitions {:.2}, bytes {:.2}",
        partitions.skew(),
        bytes.skew()
    )?;
    Ok(out.flush()?)
}

fn row_json(row: &Row, controller: i32) -> serde_json::Value {
    let mut document = json!({
        "id": row.id,
        "address": row.address,
        "rack": row.rack,
        "controller": row.id == controller,
        "partitions": row.led_count,
    });
    match &row.stored {
        Ok(stored) => {
            document["bytes"] = json!(stored.size_bytes);
            document["disk_total_bytes"] = json!(stored.total_bytes);
            document["disk_usable_bytes"] = json!(stored.usable_bytes);
        }
        Err(why) => document["error"] = json!(why),
    }
    document
}

/// How evenly something is shared out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Spread {
    count: u64,
    sum: u64,
    greatest: u64,
}

impl Spread {
    fn of(shares: impl Iterator<Item = u64>) -> Spread {
        shares.fold(Spread::default(), |spread, share| Spread {
            count: spread.count + 1,
            sum: spread.sum + share,
            greatest: spread.greatest.max(share),
        })
    }

    /// The greatest share against the mean: 1 is even, and so is nothing at all.
    fn skew(&self) -> f64 {
        if self.sum == 0 { 1.0 } else { self.greatest as f64 * self.count as f64 / self.sum as f64 }
    }
}

/// A size for people, to three digits.
fn readable_size(bytes: u64) -> String {
    let mut size = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if size < 1000.0 {
            let digits = if unit == "B" || size >= 100.0 {
                0
            } else if size >= 10.0 {
                1
            } else {
                2
            };
            return format!("{size:.digits$} {unit}");
        }
        size /= 1024.0;
    }
    format!("{size:.2} TiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skew_is_the_fullest_against_the_mean() {
        let skew = |shares: &[u64]| Spread::of(shares.iter().copied()).skew();
        assert_eq!((skew(&[5, 5, 5]), skew(&[0, 0, 9]), skew(&[3, 1])), (1.0, 3.0, 1.5));
        assert_eq!((skew(&[]), skew(&[0, 0])), (1.0, 1.0));
    }

    #[test]
    fn sizes_have_three_digits() {
        let sizes = [(0, "0 B"), (999, "999 B"), (1000, "0.98 KiB"), (1536, "1.50 KiB"), (123 << 20, "123 MiB")];
        for (bytes, text) in sizes {
            assert_eq!(readable_size(bytes), text);
        }
        assert_eq!(readable_size(5 << 40), "5.00 TiB");
    }
}
