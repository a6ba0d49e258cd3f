//! `ottla topic alter | delete-records`: a topic is changed while it is in use.

use std::io::Write;

use clap::Args;
use serde_json::json;

use super::exit::{Failed, UsageError};
use super::output::Output;
use super::remote::RawRemote;
use super::topic::{key_value, partitions_text};
use crate::client::code_name;
use crate::model::id::Offset;

/// Flags of `ottla topic alter`.
#[derive(Debug, Args)]
pub struct RawAlter {
    /// The topic.
    name: String,
    /// A config to set, such as retention.ms=3600000; may be repeated.
    #[arg(long = "config", value_name = "KEY=VALUE")]
    configs: Vec<String>,
    /// A config to take back, so that the broker's value holds again; may be repeated.
    #[arg(long = "delete-config", value_name = "KEY")]
    deleted_configs: Vec<String>,
    /// How many partitions it is to have: more than now. Records with keys go elsewhere from then on.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,
    /// Only check whether it could be changed.
    #[arg(long)]
    validate_only: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: RawRemote,
}

/// Flags of `ottla topic delete-records`.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("what").required(true)))]
pub struct RawDeleteRecords {
    /// The topic.
    name: String,
    /// Delete the records below this offset.
    #[arg(long, value_name = "OFFSET", group = "what", value_parser = clap::value_parser!(i64).range(0..))]
    before: Option<i64>,
    /// Delete all records that are there now.
    #[arg(long, group = "what")]
    all: bool,
    /// A partition; may be repeated [default: all of the topic].
    #[arg(long = "partition", value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    partitions: Vec<i32>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: RawRemote,
}

/// Changes configs first, then the number of partitions; what was done before something is refused stays done.
pub fn alter(raw: &RawAlter) -> anyhow::Result<()> {
    let changes = changes(raw)?;
    let mut client = raw.remote.connect()?;
    let name = &raw.name;
    if !changes.is_empty() {
        client.alter_topic_configs(name, &changes, raw.validate_only)?;
    }
    if let Some(count) = raw.partitions {
        client.add_partitions(name, count, raw.validate_only)?;
    }
    let mut out = Output::stdout();
    if raw.json {
        let set: serde_json::Map<_, _> =
            changes.iter().filter_map(|(key, value)| Some((key.clone(), json!(value.as_ref()?)))).collect();
        let deleted: Vec<_> = changes.iter().filter(|(_, value)| value.is_none()).map(|(key, _)| key).collect();
        out.json(&json!({
            "name": name,
            "altered": !raw.validate_only,
            "configs": set,
            "deleted_configs": deleted,
            "partitions": raw.partitions,
        }))?;
    } else {
        let verb = if raw.validate_only { "could be changed" } else { "changed" };
        let mut done: Vec<String> = changes
            .iter()
            .map(|(key, value)| match value {
                Some(value) => format!("{key}={value}"),
                None => format!("{key} taken back"),
            })
            .collect();
        done.extend(raw.partitions.map(partitions_text));
        writeln!(out, "topic {name} {verb}: {}", done.join(", "))?;
    }
    Ok(out.flush()?)
}

/// What is to be set and taken back, each once.
fn changes(raw: &RawAlter) -> Result<Vec<(String, Option<String>)>, UsageError> {
    let mut changes = Vec::new();
    for pair in &raw.configs {
        let (key, value) = key_value(pair)?;
        changes.push((key, Some(value)));
    }
    changes.extend(raw.deleted_configs.iter().map(|key| (key.trim().to_string(), None)));
    for (at, (key, _)) in changes.iter().enumerate() {
        if changes[..at].iter().any(|(other, _)| other == key) {
            return Err(UsageError::new(format!("config {key} is to be changed twice")));
        }
    }
    if changes.is_empty() && raw.partitions.is_none() {
        return Err(
            UsageError::new("nothing to change").hint("--config KEY=VALUE, --delete-config KEY or --partitions N")
        );
    }
    Ok(changes)
}

/// Goes on after a failure, so that one partition does not keep the others.
pub fn delete_records(raw: &RawDeleteRecords) -> anyhow::Result<()> {
    let mut client = raw.remote.connect()?;
    let topic = client.topic(&raw.name, false)?;
    let partitions: Vec<i32> = match raw.partitions.is_empty() {
        true => topic.partitions.iter().map(|partition| partition.index).collect(),
        false => raw.partitions.clone(),
    };
    let before = raw.before.map_or(Offset::NONE, Offset);
    let wanted: Vec<_> = partitions.iter().map(|partition| (*partition, before)).collect();
    let results = client.delete_records(&raw.name, &wanted)?;
    let mut out = Output::stdout();
    if raw.json {
        let documents: Vec<_> = results
            .iter()
            .map(|(partition, result)| match result {
                Ok(start) => json!({ "partition": partition, "log_start_offset": start.0 }),
                Err(code) => json!({ "partition": partition, "error": code_name(*code) }),
            })
            .collect();
        out.json(&json!(documents))?;
    } else {
        let rows: Vec<Vec<String>> = results
            .iter()
            .map(|(partition, result)| {
                let start = result.as_ref().map_or_else(|code| code_name(*code), |start| start.to_string());
                vec![partition.to_string(), start]
            })
            .collect();
        out.table(&["PARTITION", "START"], &rows)?;
    }
    out.flush()?;
    let refused = results.values().filter(|result| result.is_err()).count();
    match refused {
        0 => Ok(()),
        count => {
            let message = format!("{} of topic {} kept their records", partitions_text(count as i32), raw.name);
            let hint = Some(format!("`ottla topic describe {}` shows the offsets that there are", raw.name));
            Err(Failed { message, hint }.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        alter: RawAlter,
    }

    fn parse(args: &[&str]) -> Result<Vec<(String, Option<String>)>, UsageError> {
        changes(&Line::try_parse_from([&["ottla", "t"], args].concat()).expect("flags").alter)
    }

    #[test]
    fn each_config_is_changed_once_and_something_must_be_changed() {
        let changes = parse(&["--config", "a=1=2", "--delete-config", "b", "--config", " c = 3"]).unwrap();
        let expected = [("a", Some("1=2")), ("c", Some(" 3")), ("b", None)];
        let expected = expected.map(|(key, value)| (key.to_string(), value.map(str::to_string)));
        assert_eq!(changes, expected);
        assert!(parse(&["--partitions", "3"]).unwrap().is_empty());
        for wrong in [&["--config", "a=1", "--delete-config", "a"][..], &["--config", "a"], &[]] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
