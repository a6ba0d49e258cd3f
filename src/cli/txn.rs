//! `ottla txn list | describe | abort`.

use std::io::Write;

use clap::{Args, Subcommand};
use serde_json::json;

use super::exit::Failed;
use super::output::Output;
use super::remote::RawRemote;
use crate::client::{Client, PartitionProducer, TransactionDescription};

/// Subcommands of `ottla txn`.
#[derive(Debug, Subcommand)]
pub enum RawTxn {
    /// List the transactional ids.
    List(RawList),
    /// Show what transactions include, or who writes into a partition.
    Describe(RawDescribe),
    /// End a transaction that hangs in a partition, whose producer and coordinator have lost it.
    Abort(RawAbort),
}

/// Flags of `ottla txn list`.
#[derive(Debug, Args)]
pub struct RawList {
    /// Only ids in this state, such as Ongoing or PrepareCommit; may be repeated.
    #[arg(long = "state", value_name = "STATE")]
    states: Vec<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: RawRemote,
}

/// Flags of `ottla txn describe`.
#[derive(Debug, Args)]
pub struct RawDescribe {
    /// Transactional ids.
    #[arg(required_unless_present = "partition", conflicts_with = "partition")]
    ids: Vec<String>,
    /// A partition instead, as TOPIC:N: the producers that it remembers, and which of them have a transaction open.
    #[arg(long, value_name = "TOPIC:N", value_parser = parse_partition)]
    partition: Option<(String, i32)>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: RawRemote,
}

/// Flags of `ottla txn abort`.
#[derive(Debug, Args)]
pub struct RawAbort {
    /// The partition, as TOPIC:N.
    #[arg(value_name = "TOPIC:N", value_parser = parse_partition)]
    partition: (String, i32),
    /// The first offset of the transaction, as `ottla txn describe --partition` shows it.
    #[arg(long, value_name = "OFFSET")]
    start_offset: i64,
    #[command(flatten)]
    remote: RawRemote,
}

fn parse_partition(text: &str) -> Result<(String, i32), String> {
    let (topic, index) = text.rsplit_once(':').ok_or("a partition is written as TOPIC:N")?;
    match index.parse() {
        Ok(index) if index >= 0 && !topic.is_empty() => Ok((topic.to_owned(), index)),
        _ => Err(format!("{index} is no partition of a topic")),
    }
}

/// Runs the command.
pub fn command(raw: RawTxn) -> anyhow::Result<()> {
    match raw {
        RawTxn::List(raw) => list(&raw),
        RawTxn::Describe(raw) => match &raw.partition {
            Some((topic, index)) => describe_partition(&raw, topic, *index),
            None => describe(&raw),
        },
        RawTxn::Abort(raw) => abort(&raw),
    }
}

fn list(raw: &RawList) -> anyhow::Result<()> {
    let found = raw.remote.connect()?.list_transactions(&raw.states)?;
    let mut out = Output::stdout();
    if raw.json {
        let found: Vec<_> = found
            .iter()
            .map(|id| {
                json!({
                    "transactional_id": id.id,
                    "state": id.state,
                    "producer_id": id.producer_id,
                    "coordinator": id.coordinator,
                })
            })
            .collect();
        out.json(&json!(found))?;
    } else {
        let rows: Vec<Vec<String>> = found
            .into_iter()
            .map(|id| vec![id.id, id.state, id.producer_id.to_string(), id.coordinator.to_string()])
            .collect();
        out.table(&["TRANSACTIONAL-ID", "STATE", "PRODUCER", "COORDINATOR"], &rows)?;
    }
    Ok(out.flush()?)
}

fn describe(raw: &RawDescribe) -> anyhow::Result<()> {
    let mut client = raw.remote.connect()?;
    let mut out = Output::stdout();
    let mut documents = Vec::new();
    for (number, id) in raw.ids.iter().enumerate() {
        let Some(found) = client.describe_transaction(id)? else {
            return Err(Failed {
                message: format!("there is no transactional id {id}"),
                hint: Some("`ottla txn list` shows those that are known".into()),
            }
            .into());
        };
        if raw.json {
            documents.push(describe_json(id, &found));
            continue;
        }
        if number > 0 {
            writeln!(out)?;
        }
        writeln!(out, "{id}: {}, producer {} epoch {}", found.state, found.producer_id, found.producer_epoch)?;
        writeln!(out, "coordinator {}, timeout {} ms", found.coordinator, found.timeout_ms)?;
        for (topic, index) in &found.partitions {
            writeln!(out, "  {topic}:{index}")?;
        }
    }
    if raw.json {
        out.json(&json!(documents))?;
    }
    Ok(out.flush()?)
}

fn describe_json(id: &str, found: &TransactionDescription) -> serde_json::Value {
    let partitions = found.partitions.iter().map(|(topic, index)| json!({ "topic": topic, "partition": index }));
    json!({
        "transactional_id": id,
        "state": found.state,
        "producer_id": found.producer_id,
        "producer_epoch": found.producer_epoch,
        "coordinator": found.coordinator.0,
        "timeout_ms": found.timeout_ms,
        "start_ms": found.start_ms,
        "partitions": partitions.collect::<Vec<_>>(),
    })
}

fn describe_partition(raw: &RawDescribe, topic: &str, index: i32) -> anyhow::Result<()> {
    let producers = raw.remote.connect()?.partition_producers(topic, index)?;
    let mut out = Output::stdout();
    if raw.json {
        let producers: Vec<_> = producers
            .iter()
            .map(|producer| {
                json!({
                    "producer_id": producer.producer_id,
                    "producer_epoch": producer.producer_epoch,
                    "coordinator_epoch": producer.coordinator_epoch,
                    "last_timestamp_ms": producer.last_timestamp_ms,
                    "transaction_start": producer.transaction_start,
                })
            })
            .collect();
        out.json(&json!(producers))?;
    } else {
        let open = |offset: i64| if offset < 0 { "-".to_owned() } else { offset.to_string() };
        let rows: Vec<Vec<String>> = producers
            .iter()
            .map(|producer| {
                vec![
                    producer.producer_id.to_string(),
                    producer.producer_epoch.to_string(),
                    producer.last_timestamp_ms.to_string(),
                    open(producer.transaction_start),
                ]
            })
            .collect();
        out.table(&["PRODUCER", "EPOCH", "LAST-WRITE-MS", "OPEN-SINCE-OFFSET"], &rows)?;
    }
    Ok(out.flush()?)
}

fn abort(raw: &RawAbort) -> anyhow::Result<()> {
    let mut client = raw.remote.connect()?;
    let (topic, index) = &raw.partition;
    let producer = producer_at(&mut client, topic, *index, raw.start_offset)?;
    client.abort_transaction(topic, *index, &producer)?;
    let mut out = Output::stdout();
    writeln!(out, "aborted the transaction of producer {} in {topic}:{index}", producer.producer_id)?;
    Ok(out.flush()?)
}

/// The producer whose transaction begins at an offset.
fn producer_at(client: &mut Client, topic: &str, index: i32, offset: i64) -> anyhow::Result<PartitionProducer> {
    let producers = client.partition_producers(topic, index)?;
    let found = producers.into_iter().find(|producer| producer.transaction_start == offset && offset >= 0);
    found.ok_or_else(|| {
        Failed {
            message: format!("no transaction is open in {topic}:{index} that begins at offset {offset}"),
            hint: Some(format!("`ottla txn describe --partition {topic}:{index}` shows those that are")),
        }
        .into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_a_topic_and_a_number() {
        assert_eq!(parse_partition("a:b:3"), Ok(("a:b".into(), 3)));
        for wrong in ["a", "a:", ":1", "a:-1", "a:x"] {
            assert!(parse_partition(wrong).is_err(), "{wrong}");
        }
    }
}
