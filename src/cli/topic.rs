//! `ottla topic create | list | describe | delete`; what changes a topic in use is in [`super::topic_change`].

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;

use super::exit::{Failed, UsageError};
use super::output::Output;
use super::remote::RawRemote;
use super::topic_change::{self, RawAlter, RawDeleteRecords};
use crate::base::units::counted;
use crate::client::{Client, ConfigEntry, EARLIEST, IsolationLevel, LATEST, NewTopic, TopicInfo, code_name};
use crate::protocol::ErrorCode;

/// Subcommands of `ottla topic`.
#[derive(Debug, Subcommand)]
pub enum RawTopic {
    /// Create a topic.
    Create(RawCreate),
    /// List the topics.
    List(RawList),
    /// Show partitions, leaders, offsets and configs.
    Describe(RawDescribe),
    /// Change configs and add partitions, while the topic is in use.
    Alter(RawAlter),
    /// Delete the oldest records of a topic.
    DeleteRecords(RawDeleteRecords),
    /// Delete topics with all their records.
    Delete(RawDelete),
}

/// Flags of `ottla topic create`.
#[derive(Debug, Args)]
pub struct RawCreate {
    /// The topic's name: letters, digits, `.`, `_` and `-`.
    name: String,
    /// Partitions [default: the broker's num.partitions].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,
    /// Replication factor [default: the broker's].
    #[arg(long, value_name = "R", value_parser = clap::value_parser!(i16).range(1..))]
    replication_factor: Option<i16>,
    /// A topic config, such as retention.ms=3600000; may be repeated.
    #[arg(long = "config", value_name = "KEY=VALUE")]
    configs: Vec<String>,
    /// Succeed if it is there already, whatever its partitions and configs.
    #[arg(long)]
    if_not_exists: bool,
    /// Only check whether it could be created.
    #[arg(long)]
    validate_only: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: RawRemote,
}

/// Flags of `ottla topic list`.
#[derive(Debug, Args)]
pub struct RawList {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: RawRemote,
}

/// Flags of `ottla topic describe`.
#[derive(Debug, Args)]
pub struct RawDescribe {
    /// Topics [default: all].
    names: Vec<String>,
    /// Show every config, not only those that differ from the defaults.
    #[arg(long)]
    all_configs: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: RawRemote,
}

/// Flags of `ottla topic delete`.
#[derive(Debug, Args)]
pub struct RawDelete {
    /// Topics.
    #[arg(required = true)]
    names: Vec<String>,
    /// Succeed for those that are not there.
    #[arg(long)]
    if_exists: bool,
    #[command(flatten)]
    remote: RawRemote,
}

/// Runs the command.
pub fn command(raw: RawTopic) -> anyhow::Result<()> {
    match raw {
        RawTopic::Create(raw) => create(raw),
        RawTopic::List(raw) => list(&raw),
        RawTopic::Describe(raw) => describe(&raw),
        RawTopic::Alter(raw) => topic_change::alter(&raw),
        RawTopic::DeleteRecords(raw) => topic_change::delete_records(&raw),
        RawTopic::Delete(raw) => delete(&raw),
    }
}

fn create(raw: RawCreate) -> anyhow::Result<()> {
    let configs = raw.configs.iter().map(|pair| key_value(pair)).collect::<Result<_, _>>()?;
    let topic = NewTopic {
        name: raw.name,
        partition_count: raw.partitions.unwrap_or(-1),
        replication_factor: raw.replication_factor.unwrap_or(-1),
        configs,
    };
    let mut client = raw.remote.connect()?;
    let name = &topic.name;
    let mut out = Output::stdout();
    let created = match client.create_topic(&topic, raw.validate_only) {
        Err(error) if raw.if_not_exists && error.is_code(ErrorCode::TopicAlreadyExists) => {
            if raw.json {
                out.json(&json!({ "name": name, "created": false }))?;
            } else {
                writeln!(out, "topic {name} exists already")?;
            }
            return Ok(out.flush()?);
        }
        result => result?,
    };
    if raw.json {
        out.json(&json!({
            "name": name,
            "created": !raw.validate_only,
            "id": (!created.id.is_none()).then(|| created.id.to_string()),
            "partitions": created.partition_count,
            "replication_factor": created.replication_factor,
        }))?;
    } else {
        let verb = if raw.validate_only { "could be created" } else { "created" };
        let size = match created.partition_count {
            count if count >= 0 => {
                format!(" with {}, replication factor {}", partitions_text(count), created.replication_factor)
            }
            _ => String::new(),
        };
        writeln!(out, "topic {name} {verb}{size}")?;
    }
    out.flush()?;
    if let Some(asked) = raw.replication_factor.filter(|asked| (0..*asked).contains(&created.replication_factor)) {
        eprintln!("ottla: replication factor {asked} was asked for; the broker gives {}", created.replication_factor);
    }
    Ok(())
}

fn list(raw: &RawList) -> anyhow::Result<()> {
    let mut client = raw.remote.connect()?;
    let info = client.metadata(None)?.clone();
    let mut out = Output::stdout();
    if raw.json {
        let topics: Vec<_> = info.topics.values().map(topic_json).collect();
        out.json(&json!(topics))?;
    } else if info.topics.is_empty() {
        eprintln!("no topics; `ottla topic create NAME` makes one");
    } else {
        let rows: Vec<Vec<String>> = info
            .topics
            .values()
            .map(|topic| vec![topic.name.clone(), topic.partitions.len().to_string(), topic.id.to_string()])
            .collect();
        out.table(&["TOPIC", "PARTITIONS", "ID"], &rows)?;
    }
    Ok(out.flush()?)
}

/// What is known about one partition's offsets, or why not.
type Range = Result<(i64, i64), String>;

fn describe(raw: &RawDescribe) -> anyhow::Result<()> {
    let mut client = raw.remote.connect()?;
    let names: Vec<&str> = raw.names.iter().map(String::as_str).collect();
    let info = client.metadata((!names.is_empty()).then_some(&names))?.clone();
    if let Some((name, code)) = info.topic_errors.iter().next() {
        let code = *code;
        return Err(crate::client::ClientError::Broker { what: format!("topic {name}"), code, message: None }.into());
    }
    let mut out = Output::stdout();
    let mut documents = Vec::new();
    for (at, topic) in info.topics.values().enumerate() {
        let ranges = ranges(&mut client, topic);
        let configs: Vec<_> = client
            .topic_configs(&topic.name)?
            .into_iter()
            .filter(|config| raw.all_configs || !config.is_default())
            .collect();
        if raw.json {
            documents.push(describe_json(topic, &ranges, &configs));
        } else {
            if at > 0 {
                writeln!(out)?;
            }
            describe_text(&mut out, topic, &ranges, &configs)?;
        }
    }
    if raw.json {
        out.json(&json!(documents))?;
    }
    Ok(out.flush()?)
}

/// First and next offset of each partition. One that cannot say is shown without them.
fn ranges(client: &mut Client, topic: &TopicInfo) -> Vec<Range> {
    // A partition that is offline says so with a retriable code; a description does not wait for a repair.
    client.set_retry_for(Duration::from_secs(2));
    let led: Vec<i32> = topic.partitions.iter().filter(|p| p.leader.is_some()).map(|p| p.index).collect();
    let together = edges(client, topic, &led);
    topic
        .partitions
        .iter()
        .map(|p| match (&together, p.leader) {
            (_, None) => Err(code_name(p.error_code)),
            (Ok(found), _) => found.get(&p.index).copied().ok_or_else(|| "no answer".to_string()),
            // One that fails fails them all: find out which.
            (Err(_), _) => edges(client, topic, &[p.index])
                .and_then(|found| found.get(&p.index).copied().ok_or_else(|| "no answer".to_string())),
        })
        .collect()
}

fn edges(client: &mut Client, topic: &TopicInfo, partitions: &[i32]) -> Result<BTreeMap<i32, (i64, i64)>, String> {
    let mut ask = |timestamp| {
        let wanted: Vec<_> = partitions.iter().map(|p| (*p, timestamp)).collect();
        client.list_offsets(&topic.name, &wanted, IsolationLevel::ReadUncommitted).map_err(|error| error.to_string())
    };
    let (first, next) = (ask(EARLIEST)?, ask(LATEST)?);
    Ok(first.iter().filter_map(|(p, at)| Some((*p, (at.offset.0, next.get(p)?.offset.0)))).collect())
}

fn describe_text(
    out: &mut Output,
    topic: &TopicInfo,
    ranges: &[Range],
    configs: &[ConfigEntry],
) -> std::io::Result<()> {
    let internal = if topic.internal { ", internal" } else { "" };
    out.heading(&format!(
        "{}: {}, id {}{internal}",
        topic.name,
        partitions_text(topic.partitions.len() as i32),
        topic.id
    ))?;
    let rows: Vec<Vec<String>> = topic
        .partitions
        .iter()
        .zip(ranges)
        .map(|(p, range)| {
            let (start, end, records) = match range {
                Ok((start, end)) => (start.to_string(), end.to_string(), (end - start).to_string()),
                Err(_) => ("-".into(), "-".into(), "-".into()),
            };
            vec![
                p.index.to_string(),
                p.leader.map_or("none".into(), |id| id.to_string()),
                p.leader_epoch.to_string(),
                ids(&p.replicas),
                ids(&p.in_sync),
                start,
                end,
                records,
            ]
        })
        .collect();
    out.table(&["PARTITION", "LEADER", "EPOCH", "REPLICAS", "IN SYNC", "START", "END", "OFFSETS"], &rows)?;
    for (p, why) in topic.partitions.iter().zip(ranges).filter_map(|(p, range)| Some((p, range.as_ref().err()?))) {
        writeln!(out, "partition {}: {why}", p.index)?;
    }
    if !configs.is_empty() {
        let rows: Vec<_> = configs
            .iter()
            .map(|config| {
                let value = config.value.clone().unwrap_or_else(|| "-".into());
                vec![config.name.clone(), value, config.source_name().to_string()]
            })
            .collect();
        out.table(&["CONFIG", "VALUE", "SOURCE"], &rows)?;
    }
    Ok(())
}

fn describe_json(topic: &TopicInfo, ranges: &[Range], configs: &[ConfigEntry]) -> serde_json::Value {
    let mut document = topic_json(topic);
    let partitions = document["partitions"].as_array_mut().expect("made as a list");
    for (partition, range) in partitions.iter_mut().zip(ranges) {
        match range {
            Ok((start, end)) => {
                partition["log_start_offset"] = json!(start);
                partition["log_end_offset"] = json!(end);
            }
            Err(why) => partition["error"] = json!(why),
        }
    }
    document["configs"] = configs
        .iter()
        .map(|c| json!({ "name": c.name, "value": c.value, "source": c.source_name(), "read_only": c.read_only }))
        .collect();
    document
}

fn topic_json(topic: &TopicInfo) -> serde_json::Value {
    let partitions: Vec<_> = topic
        .partitions
        .iter()
        .map(|p| {
            json!({
                "partition": p.index,
                "leader": p.leader.map(|id| id.0),
                "leader_epoch": p.leader_epoch.0,
                "replicas": p.replicas.iter().map(|id| id.0).collect::<Vec<_>>(),
                "in_sync": p.in_sync.iter().map(|id| id.0).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({ "name": topic.name, "id": topic.id.to_string(), "internal": topic.internal, "partitions": partitions })
}

/// Goes on after a failure, so that one missing name does not keep the others.
fn delete(raw: &RawDelete) -> anyhow::Result<()> {
    let mut client = raw.remote.connect()?;
    let mut out = Output::stdout();
    let mut failures = Vec::new();
    for name in &raw.names {
        match client.delete_topic(name) {
            Ok(()) => writeln!(out, "topic {name} deleted")?,
            Err(error) if raw.if_exists && error.is_code(ErrorCode::UnknownTopicOrPartition) => {
                writeln!(out, "topic {name} is not there")?;
            }
            Err(error @ crate::client::ClientError::Broker { .. }) => failures.push(error),
            Err(error) => return Err(error.into()),
        }
    }
    out.flush()?;
    match failures.len() {
        0 => Ok(()),
        1 => Err(failures.remove(0).into()),
        count => {
            let texts: Vec<_> = failures.iter().map(ToString::to_string).collect();
            let message = format!("{count} topics were not deleted: {}", texts.join("; "));
            Err(Failed { message, hint: Some("`ottla topic list` shows the topics".into()) }.into())
        }
    }
}

/// A config from the command line.
pub(super) fn key_value(pair: &str) -> Result<(String, String), UsageError> {
    match pair.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_string(), value.to_string())),
        _ => Err(UsageError::new(format!("--config {pair}: expected KEY=VALUE")).hint("--config retention.ms=3600000")),
    }
}

/// `6 partitions`.
pub(super) fn partitions_text(count: i32) -> String {
    counted(u64::try_from(count).unwrap_or(0), "partition")
}

fn ids(brokers: &[crate::model::id::BrokerId]) -> String {
    brokers.iter().map(|id| id.to_string()).collect::<Vec<_>>().join(",")
}
