//! `ottla consume`: records to stdout, byte for byte.

use std::collections::BTreeMap;
use std::io::Write;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};

use super::exit::UsageError;
use super::format::time::parse_timestamp;
use super::format::{OutputFormat, RecordWriter};
use super::output::Output;
use super::remote::{RawRemote, unescape};
use crate::base::time::Timestamp;
use crate::base::units::{counted, human_bytes};
use crate::client::{Client, ClientError, EARLIEST, FetchOptions, Fetched, Fetcher, IsolationLevel, LATEST};
use crate::model::id::Offset;

/// Flags of `ottla consume`.
#[derive(Debug, Args)]
pub struct RawConsume {
    /// The topic.
    topic: String,
    /// Partitions, such as 0,2-4 [default: all].
    #[arg(long, value_name = "LIST")]
    partitions: Option<String>,
    /// beginning, end, an offset, -N for the last N of each partition, or @TIME.
    #[arg(long, value_name = "WHERE", default_value = "beginning", allow_hyphen_values = true)]
    from: String,
    /// Stop after so many records.
    #[arg(long, short, value_name = "N")]
    count: Option<u64>,
    /// Stop at the offsets that were the ends when it began.
    #[arg(long, short)]
    exit_at_end: bool,
    /// value, key-value, json, or a template of %k %v %o %p %t %h %T with \n and \t, to which nothing is added.
    #[arg(long, short, value_name = "FORMAT", default_value = "value")]
    format: String,
    /// Between key and value in key-value; implies it.
    #[arg(long, value_name = "TEXT")]
    key_separator: Option<String>,
    /// Print keys, values and header values in base 64.
    #[arg(long)]
    base64: bool,
    /// What to print for null.
    #[arg(long, value_name = "TEXT", default_value = "")]
    null: String,
    /// Which records of transactions are shown.
    #[arg(long, value_enum, default_value_t = RawIsolation::ReadUncommitted)]
    isolation: RawIsolation,
    /// Stop after so many seconds without a record.
    #[arg(long, value_name = "SECONDS")]
    idle_timeout: Option<u64>,
    /// Say on stderr at the end how many records and bytes it was, and how fast.
    #[arg(long)]
    summary: bool,
    #[command(flatten)]
    remote: RawRemote,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum RawIsolation {
    /// All.
    #[value(name = "read_uncommitted", alias = "read-uncommitted")]
    ReadUncommitted,
    /// Only committed ones.
    #[value(name = "read_committed", alias = "read-committed")]
    ReadCommitted,
}

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    Beginning,
    End,
    At(i64),
    Last(i64),
    Time(Timestamp),
}

/// Validated.
#[derive(Debug)]
struct Options {
    partitions: Option<Vec<i32>>,
    from: From,
    writer: RecordWriter,
    isolation: IsolationLevel,
}

/// What went out.
#[derive(Default)]
struct Seen {
    records: u64,
    bytes: u64,
}

/// Runs the command.
pub fn command(raw: RawConsume) -> anyhow::Result<()> {
    let options = validate(&raw)?;
    if raw.count == Some(0) {
        return Ok(());
    }
    let mut client = raw.remote.connect()?;
    let started = Instant::now();
    let partitions = chosen(&mut client, &raw.topic, options.partitions.as_deref())?;
    let positions = starts(&mut client, &raw.topic, &partitions, options.from, options.isolation)?;
    let ends = match raw.exit_at_end {
        true => Some(edges(&mut client, &raw.topic, &partitions, LATEST, options.isolation)?),
        false => None,
    };
    let fetch = FetchOptions { isolation: options.isolation, ..FetchOptions::default() };
    let mut fetcher = Fetcher::new(client, &raw.topic, positions, fetch)?;
    let mut out = Output::stdout();
    let mut seen = Seen::default();
    let result = print_all(&raw, &options.writer, &mut fetcher, ends.as_ref(), &mut out, &mut seen);
    // What was read before a failure is shown before the failure is.
    out.flush()?;
    if raw.summary {
        let seconds = started.elapsed().as_secs_f64().max(1e-9);
        eprintln!(
            "{}, {} in {seconds:.2} s: {:.0} records/s, {:.1} MB/s",
            counted(seen.records, "record"),
            human_bytes(seen.bytes),
            seen.records as f64 / seconds,
            seen.bytes as f64 / 1e6 / seconds
        );
    }
    result
}

fn print_all(
    raw: &RawConsume,
    writer: &RecordWriter,
    fetcher: &mut Fetcher,
    ends: Option<&BTreeMap<i32, Offset>>,
    out: &mut Output,
    seen: &mut Seen,
) -> anyhow::Result<()> {
    let mut last_record_at = Instant::now();
    stop_finished(fetcher, ends);
    while !fetcher.positions().is_empty() {
        let before = seen.records;
        for fetched in fetcher.poll().map_err(explain_range)? {
            let end = ends.and_then(|ends| ends.get(&fetched.partition)).copied();
            if print(raw, writer, &fetched, end, out, seen)?.is_break() {
                return Ok(());
            }
        }
        // A person or a pipe is waiting for what has come so far.
        out.flush()?;
        stop_finished(fetcher, ends);
        if seen.records > before {
            last_record_at = Instant::now();
        } else if raw.idle_timeout.is_some_and(|s| last_record_at.elapsed() >= Duration::from_secs(s)) {
            return Ok(());
        }
    }
    Ok(())
}

fn print(
    raw: &RawConsume,
    writer: &RecordWriter,
    fetched: &Fetched,
    end: Option<Offset>,
    out: &mut Output,
    seen: &mut Seen,
) -> anyhow::Result<ControlFlow<()>> {
    fetched.for_each(|record| {
        if end.is_some_and(|end| record.offset >= end) {
            return Ok(ControlFlow::Continue(()));
        }
        writer.write(out, &record)?;
        seen.records += 1;
        seen.bytes += (record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len)) as u64;
        let enough = raw.count.is_some_and(|count| seen.records >= count);
        Ok::<_, anyhow::Error>(if enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })
}

/// Partitions that have reached their end are read no more.
fn stop_finished(fetcher: &mut Fetcher, ends: Option<&BTreeMap<i32, Offset>>) {
    let Some(ends) = ends else { return };
    let finished: Vec<i32> = fetcher
        .positions()
        .iter()
        .filter(|(partition, offset)| ends.get(partition).is_none_or(|end| *offset >= end))
        .map(|(partition, _)| *partition)
        .collect();
    finished.into_iter().for_each(|partition| fetcher.stop(partition));
}

/// An offset that retention has passed is the commonest mistake here.
fn explain_range(error: ClientError) -> anyhow::Error {
    if error.is_code(crate::protocol::ErrorCode::OffsetOutOfRange) {
        let message = error.to_string();
        let hint = "--from beginning; `ottla topic describe TOPIC` shows the offsets that are there";
        return UsageError::new(message).hint(hint).into();
    }
    error.into()
}

fn validate(raw: &RawConsume) -> Result<Options, UsageError> {
    let partitions = match &raw.partitions {
        Some(text) => Some(
            super::serve::options::parse_cpu_list(text)
                .map_err(|_| UsageError::new(format!("--partitions {text}: expected a list such as 0,2-4")))?
                .into_iter()
                .map(|partition| partition as i32)
                .collect(),
        ),
        None => None,
    };
    let format: OutputFormat =
        raw.format.parse().map_err(|why| UsageError::new(format!("--format {}: {why}", raw.format)))?;
    let format = match (format, &raw.key_separator) {
        (OutputFormat::Value | OutputFormat::KeyValue, Some(_)) => OutputFormat::KeyValue,
        (OutputFormat::Json | OutputFormat::Template(_), Some(_)) => {
            return Err(UsageError::new("--key-separator goes with --format key-value only"));
        }
        (format, None) => format,
    };
    Ok(Options {
        partitions,
        from: parse_from(&raw.from).map_err(|why| UsageError::new(format!("--from {}: {why}", raw.from)))?,
        writer: RecordWriter {
            format,
            key_separator: unescape(raw.key_separator.as_deref().unwrap_or("\t")),
            base64: raw.base64,
            null: unescape(&raw.null),
            topic: raw.topic.clone(),
        },
        isolation: match raw.isolation {
            RawIsolation::ReadUncommitted => IsolationLevel::ReadUncommitted,
            RawIsolation::ReadCommitted => IsolationLevel::ReadCommitted,
        },
    })
}

fn parse_from(text: &str) -> Result<From, String> {
    let wrong = || "expected beginning, end, an offset, -N or @TIME".to_string();
    match text {
        "beginning" | "earliest" => Ok(From::Beginning),
        "end" | "latest" => Ok(From::End),
        _ => match (text.strip_prefix('@'), text.strip_prefix('-')) {
            (Some(time), _) => parse_timestamp(time).map(From::Time),
            (_, Some(count)) => count.parse().ok().filter(|n: &i64| *n >= 0).map(From::Last).ok_or_else(wrong),
            _ => text.parse().ok().filter(|n: &i64| *n >= 0).map(From::At).ok_or_else(wrong),
        },
    }
}

/// The partitions asked for, all of which must be there.
fn chosen(client: &mut Client, topic: &str, wanted: Option<&[i32]>) -> Result<Vec<i32>, ClientError> {
    let found: Vec<i32> = client.topic(topic, false)?.partitions.iter().map(|p| p.index).collect();
    match wanted {
        None => Ok(found),
        Some(wanted) => match wanted.iter().find(|partition| !found.contains(partition)) {
            Some(missing) => {
                Err(ClientError::NoPartition { topic: topic.to_string(), partition: *missing, count: found.len() })
            }
            None => Ok(wanted.to_vec()),
        },
    }
}

fn edges(
    client: &mut Client,
    topic: &str,
    partitions: &[i32],
    timestamp: Timestamp,
    isolation: IsolationLevel,
) -> Result<BTreeMap<i32, Offset>, ClientError> {
    let wanted: Vec<_> = partitions.iter().map(|partition| (*partition, timestamp)).collect();
    let found = client.list_offsets(topic, &wanted, isolation)?;
    Ok(found.into_iter().map(|(partition, at)| (partition, at.offset)).collect())
}

fn starts(
    client: &mut Client,
    topic: &str,
    partitions: &[i32],
    from: From,
    isolation: IsolationLevel,
) -> Result<BTreeMap<i32, Offset>, ClientError> {
    let mut edge = |timestamp| edges(client, topic, partitions, timestamp, isolation);
    match from {
        From::Beginning => edge(EARLIEST),
        From::End => edge(LATEST),
        From::At(offset) => Ok(partitions.iter().map(|partition| (*partition, Offset(offset))).collect()),
        From::Last(count) => {
            let (first, next) = (edge(EARLIEST)?, edge(LATEST)?);
            let clamp = |(partition, next): (i32, Offset)| {
                let first = first.get(&partition).copied().unwrap_or(Offset(0));
                (partition, Offset(next.0.saturating_sub(count).max(first.0)))
            };
            Ok(next.into_iter().map(clamp).collect())
        }
        From::Time(time) => {
            // Where nothing is that new, what comes next is.
            let (found, next) = (edge(time)?, edge(LATEST)?);
            let known = |(partition, offset): (i32, Offset)| match offset {
                Offset::NONE => next.get(&partition).map(|next| (partition, *next)),
                offset => Some((partition, offset)),
            };
            Ok(found.into_iter().filter_map(known).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_say_where_is_read() {
        assert_eq!(parse_from("beginning"), Ok(From::Beginning));
        assert_eq!(parse_from("latest"), Ok(From::End));
        assert_eq!(parse_from("17"), Ok(From::At(17)));
        assert_eq!(parse_from("-5"), Ok(From::Last(5)));
        assert_eq!(parse_from("@1700000000000"), Ok(From::Time(Timestamp(1_700_000_000_000))));
        assert_eq!(parse_from("@2023-11-14T22:13:20Z"), Ok(From::Time(Timestamp(1_700_000_000_000))));
        for bad in ["", "middle", "--5", "@", "1.5"] {
            assert!(parse_from(bad).is_err(), "{bad}");
        }
    }
}
