//! `ottla produce`: lines of stdin as records.
//!
//! One thread reads stdin in blocks of whole lines, so that a quiet input does not keep earlier records from being
//! sent: after `--linger-ms` without a line everything is flushed.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Read, Write, stderr};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::{Args, ValueEnum};
use serde_json::json;

use super::exit::UsageError;
use super::format::input::OwnedHeader;
use super::format::time::parse_timestamp;
use super::format::{InputFormat, InputRecord, LineParser};
use super::output::Output;
use super::remote::{RawRemote, unescape};
use super::size::parse_size_bytes;
use crate::base::rng::Rng;
use crate::base::time::Timestamp;
use crate::base::units::{counted, human_bytes};
use crate::client::{OutRecord, Producer, ProducerOptions, Totals};
use crate::model::compression::Codec;

/// Blocks of input that may wait for the network.
const WAITING_BLOCK_COUNT_MAX: usize = 16;
/// How much is read at once.
const BLOCK_SIZE_BYTES: usize = 256 << 10;
/// The longest line. A record must fit into a request.
const LINE_SIZE_BYTES_MAX: usize = 64 << 20;
/// When progress begins to be shown, and how often.
const PROGRESS_AFTER: Duration = Duration::from_secs(2);

/// Flags of `ottla produce`.
#[derive(Debug, Args)]
pub struct RawProduce {
    /// The topic.
    topic: String,
    /// What a line is.
    #[arg(long, value_enum, default_value_t = RawFormat::Value)]
    format: RawFormat,
    /// Between key and value, with \t and the like; implies --format key-value.
    #[arg(long, value_name = "TEXT")]
    key_separator: Option<String>,
    /// Send every record to this partition [default: by the key, as Kafka's clients do].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// A header of every record; may be repeated.
    #[arg(long = "header", value_name = "KEY=VALUE")]
    headers: Vec<String>,
    /// none, gzip, snappy, lz4 or zstd.
    #[arg(long, value_name = "CODEC", default_value = "none")]
    codec: String,
    /// The codec's level.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    level: Option<i32>,
    /// Of records that name none: now, milliseconds since 1970, or 2023-11-14T22:13:20Z.
    #[arg(long, value_name = "TIME", default_value = "now")]
    timestamp: String,
    /// all, 1 or 0: who must have a record before it counts as sent.
    #[arg(long, value_name = "ACKS", default_value = "all")]
    acks: String,
    /// A batch is sent when it has so many bytes, uncompressed.
    #[arg(long, value_name = "SIZE", default_value = "128KiB")]
    batch_bytes: String,
    /// Send what is there after so long without input.
    #[arg(long, value_name = "MS", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    linger_ms: u64,
    /// Keys, values and header values are base 64.
    #[arg(long)]
    base64: bool,
    /// A key or value that is exactly this text is null.
    #[arg(long, value_name = "TEXT")]
    null: Option<String>,
    /// Do not ask for a producer id: a retry may then store a batch twice.
    #[arg(long)]
    no_idempotence: bool,
    /// Print no summary.
    #[arg(long, short)]
    quiet: bool,
    /// Print the summary as JSON on stdout.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: RawRemote,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum RawFormat {
    /// The value.
    Value,
    /// Key, separator, value.
    KeyValue,
    /// A JSON object with key, value, headers, partition, timestamp.
    Json,
}

/// Validated.
#[derive(Clone, Debug)]
struct Options {
    parser: LineParser,
    partition: Option<i32>,
    headers: Vec<OwnedHeader>,
    timestamp: Option<Timestamp>,
    linger: Duration,
    producer: ProducerOptions,
}

/// Runs the command.
pub fn command(raw: RawProduce) -> anyhow::Result<()> {
    let options = validate(&raw)?;
    let client = raw.remote.connect()?;
    let mut producer = Producer::new(client, &raw.topic, options.producer.clone(), Rng::seed_from_entropy())?;
    let started = Instant::now();
    let (sender, receiver) = sync_channel(WAITING_BLOCK_COUNT_MAX);
    // Not joined: on an error it may sit in a read of the terminal for ever, and the process ends anyway.
    std::thread::spawn(move || read_blocks(io::stdin().lock(), &sender));
    let sent = send_all(&receiver, &options, &mut producer, started);
    let totals = producer.totals();
    if raw.json {
        let mut out = Output::stdout();
        out.json(&summary_json(&producer, started.elapsed()))?;
        out.flush()?;
    } else if !raw.quiet {
        eprintln!("{}", summary(totals, started.elapsed(), sent.is_ok()));
    }
    sent
}

fn validate(raw: &RawProduce) -> Result<Options, UsageError> {
    let format = match (raw.format, &raw.key_separator) {
        (RawFormat::Value, None) => InputFormat::Value,
        (RawFormat::Value | RawFormat::KeyValue, _) => InputFormat::KeyValue,
        (RawFormat::Json, None) => InputFormat::Json,
        (RawFormat::Json, Some(_)) => {
            return Err(UsageError::new("--key-separator has no meaning with --format json"));
        }
    };
    let key_separator = unescape(raw.key_separator.as_deref().unwrap_or("\t"));
    if key_separator.is_empty() {
        return Err(UsageError::new("--key-separator must not be empty").hint("--key-separator '\\t'"));
    }
    let codec: Codec = raw.codec.parse().map_err(|error| UsageError::new(format!("--codec {}: {error}", raw.codec)))?;
    let acks = match raw.acks.as_str() {
        "all" | "-1" => -1,
        "1" => 1,
        "0" => 0,
        other => return Err(UsageError::new(format!("--acks {other}: must be all, 1 or 0"))),
    };
    let batch_size_bytes = parse_size_bytes(&raw.batch_bytes)
        .and_then(|size| match size {
            1..=0x0400_0000 => Ok(size as usize),
            _ => Err("must be from 1 byte to 64MiB".into()),
        })
        .map_err(|why| UsageError::new(format!("--batch-bytes {}: {why}", raw.batch_bytes)))?;
    let timestamp = match raw.timestamp.as_str() {
        "now" => None,
        text => Some(parse_timestamp(text).map_err(|why| UsageError::new(format!("--timestamp: {why}")))?),
    };
    let headers = raw.headers.iter().map(|header| split_header(header)).collect::<Result<_, _>>()?;
    Ok(Options {
        parser: LineParser { format, key_separator, base64: raw.base64, null: raw.null.as_deref().map(unescape) },
        partition: raw.partition,
        headers,
        timestamp,
        linger: Duration::from_millis(raw.linger_ms),
        producer: ProducerOptions {
            acks,
            codec,
            level: raw.level,
            batch_size_bytes,
            idempotent: !raw.no_idempotence,
            ..ProducerOptions::default()
        },
    })
}

fn split_header(text: &str) -> Result<OwnedHeader, UsageError> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_string(), Some(value.as_bytes().to_vec()))),
        _ => Err(UsageError::new(format!("--header {text}: expected KEY=VALUE"))),
    }
}

/// Blocks of whole lines; the last may lack its newline.
fn read_blocks(mut input: impl Read, sender: &SyncSender<io::Result<Vec<u8>>>) {
    let mut block: Vec<u8> = Vec::with_capacity(BLOCK_SIZE_BYTES);
    loop {
        let filled = block.len();
        block.resize(filled + BLOCK_SIZE_BYTES, 0);
        let result = input.read(&mut block[filled..]);
        block.truncate(filled + *result.as_ref().unwrap_or(&0));
        let count = match result {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                let _ = sender.send(Err(error));
                return;
            }
        };
        if count == 0 {
            if !block.is_empty() {
                let _ = sender.send(Ok(block));
            }
            return;
        }
        // Only the new bytes can hold the last newline.
        if let Some(at) = block[filled..].iter().rposition(|byte| *byte == b'\n') {
            let rest = block.split_off(filled + at + 1);
            if sender.send(Ok(std::mem::replace(&mut block, rest))).is_err() {
                return;
            }
        } else if block.len() > LINE_SIZE_BYTES_MAX {
            let why = format!("a line is longer than {}", human_bytes(LINE_SIZE_BYTES_MAX as u64));
            let _ = sender.send(Err(io::Error::new(io::ErrorKind::InvalidData, why)));
            return;
        }
    }
}

fn send_all(
    receiver: &Receiver<io::Result<Vec<u8>>>,
    options: &Options,
    producer: &mut Producer,
    started: Instant,
) -> anyhow::Result<()> {
    let mut line_number = 0u64;
    let mut flushed = true;
    let mut progress = Progress::new(started);
    loop {
        let block = if flushed {
            match receiver.recv() {
                Ok(block) => block?,
                Err(_) => break,
            }
        } else {
            match receiver.recv_timeout(options.linger) {
                Ok(block) => block?,
                Err(RecvTimeoutError::Timeout) => {
                    producer.flush()?;
                    flushed = true;
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        };
        flushed = false;
        let now = options.timestamp.unwrap_or_else(wall_clock);
        for line in lines(&block) {
            line_number += 1;
            let record = options
                .parser
                .parse(line)
                .map_err(|why| UsageError::new(format!("line {line_number} of the input: {why}")))?;
            push(producer, options, &record, now)?;
        }
        progress.show(producer.totals());
    }
    producer.flush()?;
    progress.clear();
    Ok(())
}

fn push(producer: &mut Producer, options: &Options, record: &InputRecord<'_>, now: Timestamp) -> anyhow::Result<()> {
    let headers: Vec<(&str, Option<&[u8]>)> =
        options.headers.iter().chain(&record.headers).map(|(key, value)| (key.as_str(), value.as_deref())).collect();
    producer.push(OutRecord {
        partition: record.partition.or(options.partition),
        key: record.key.as_ref().map(Cow::as_ref),
        value: record.value.as_ref().map(Cow::as_ref),
        headers: &headers,
        timestamp: record.timestamp.unwrap_or(now),
    })?;
    Ok(())
}

/// The lines of a block, their ends excluded.
fn lines(block: &[u8]) -> impl Iterator<Item = &[u8]> {
    block.strip_suffix(b"\n").unwrap_or(block).split(|byte| *byte == b'\n')
}

fn wall_clock() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(since.as_millis() as i64)
}

/// A line on stderr for a person who waits.
struct Progress {
    shown_at: Option<Instant>,
    next: Instant,
    started: Instant,
}

impl Progress {
    fn new(started: Instant) -> Progress {
        Progress { shown_at: None, next: started + PROGRESS_AFTER, started }
    }

    fn show(&mut self, totals: Totals) {
        let now = Instant::now();
        // Typing on a terminal is no long job, and its echo would be overwritten.
        if now < self.next || !stderr().is_terminal() || io::stdin().is_terminal() {
            return;
        }
        self.next = now + Duration::from_millis(500);
        self.shown_at = Some(now);
        eprint!("\r\x1b[K{}", summary(totals, self.started.elapsed(), true));
        let _ = stderr().flush();
    }

    fn clear(&mut self) {
        if self.shown_at.take().is_some() {
            eprint!("\r\x1b[K");
        }
    }
}

fn summary(totals: Totals, elapsed: Duration, complete: bool) -> String {
    let seconds = elapsed.as_secs_f64().max(1e-9);
    format!(
        "{}, {} in {} ({} sent) in {seconds:.2} s: {:.0} records/s, {:.1} MB/s{}",
        counted(totals.record_count, "record"),
        human_bytes(totals.record_bytes),
        counted(totals.batch_count, "batch"),
        human_bytes(totals.batch_bytes),
        totals.record_count as f64 / seconds,
        totals.record_bytes as f64 / 1e6 / seconds,
        if complete { "" } else { "; then it failed, and what followed was not acknowledged" }
    )
}

fn summary_json(producer: &Producer, elapsed: Duration) -> serde_json::Value {
    let totals = producer.totals();
    let partitions: Vec<_> = producer
        .offsets()
        .iter()
        .map(|(partition, (first, last))| json!({ "partition": partition, "first_offset": first, "last_offset": last }))
        .collect();
    json!({
        "records": totals.record_count,
        "batches": totals.batch_count,
        "record_bytes": totals.record_bytes,
        "batch_bytes": totals.batch_bytes,
        "seconds": elapsed.as_secs_f64(),
        "partitions": partitions,
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Wrapper {
        #[command(flatten)]
        raw: RawProduce,
    }

    fn options(args: &[&str]) -> Result<Options, UsageError> {
        validate(&Wrapper::try_parse_from(["produce", "t"].iter().chain(args)).unwrap().raw)
    }

    #[test]
    fn flags_become_options_or_errors_that_name_the_flag() {
        let plain = options(&[]).unwrap();
        assert_eq!((plain.parser.format, plain.producer.acks), (InputFormat::Value, -1));
        let keyed =
            options(&["--key-separator", "\\t", "--codec", "zstd", "--acks", "1", "--header", "a=b=c"]).unwrap();
        assert_eq!((keyed.parser.format, keyed.parser.key_separator), (InputFormat::KeyValue, b"\t".to_vec()));
        assert_eq!((keyed.producer.codec, keyed.producer.acks), (Codec::Zstd, 1));
        assert_eq!(keyed.headers, [("a".to_string(), Some(b"b=c".to_vec()))]);
        for (args, part) in [
            (&["--codec", "rar"][..], "--codec rar"),
            (&["--acks", "2"], "--acks 2"),
            (&["--batch-bytes", "0"], "--batch-bytes 0"),
            (&["--header", "x"], "--header x"),
            (&["--timestamp", "soon"], "--timestamp"),
            (&["--format", "json", "--key-separator", ":"], "--key-separator"),
        ] {
            assert!(options(args).unwrap_err().message.contains(part), "{args:?}");
        }
    }

    #[test]
    fn blocks_hold_whole_lines_however_the_input_is_cut() {
        // A reader that gives one to three bytes at a time.
        struct Drip(Vec<u8>, usize);
        impl Read for Drip {
            fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
                let count = (1 + self.1 % 3).min(self.0.len()).min(target.len());
                self.1 += 1;
                target[..count].copy_from_slice(&self.0[..count]);
                self.0.drain(..count);
                Ok(count)
            }
        }
        let input = b"one\n\ntwo\r\nthree \xff\nlast".to_vec();
        let (sender, receiver) = sync_channel(100);
        read_blocks(Drip(input, 0), &sender);
        drop(sender);
        let blocks: Vec<Vec<u8>> = receiver.iter().map(Result::unwrap).collect();
        let found: Vec<&[u8]> = blocks.iter().flat_map(|block| lines(block)).collect();
        assert_eq!(found, [&b"one"[..], b"", b"two\r", b"three \xff", b"last"]);
    }
}
