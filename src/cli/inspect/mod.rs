//! `ottla inspect PATH...`: what is in these files, and is it sound? Reads plain files, writes nothing.
//!
//! A path is a segment, a sidecar, a checkpoint or clean-stop file, a metadata snapshot, a partition's directory, or a
//! data directory; [`scan`] walks segments, [`archive`] reads the files in envelopes, [`metadata`] what the controller
//! wrote, [`directory`] puts them together. The broker may
//! be running: what it is just writing can then look torn.

mod archive;
mod directory;
pub mod metadata;
mod scan;

use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::exit::{Failed, UsageError};
use super::format::{json as record_json, time::date_time};
use super::output::Output;
use crate::base::units::{counted, human_bytes};
use crate::model::batch::Header;
use crate::model::compression::Codec;
use crate::model::records::{Records, section};
use crate::storage::layout::FileName;

use scan::{Ending, SegmentScan};

/// Flags of `ottla inspect`.
#[derive(Debug, Args)]
pub struct RawInspect {
    /// Segments, sidecars, checkpoints, partitions' directories or data directories.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// List the records of segments too.
    #[arg(long)]
    records: bool,
    /// Do not list a segment's batches.
    #[arg(long, conflicts_with = "records")]
    summary: bool,
    /// Print JSON: a list with one document for each path.
    #[arg(long)]
    json: bool,
}

/// The records of one batch may become so much when decompressed.
const DECOMPRESSED_BYTES_MAX: usize = 1 << 30;

/// What was found at one path.
#[derive(Debug, Default)]
struct Findings {
    /// Not empty: unsound, and why.
    problems: Vec<String>,
    /// For `--json`.
    document: Value,
}

/// Runs the command.
pub fn command(raw: RawInspect) -> anyhow::Result<()> {
    let mut out = Output::stdout();
    let mut documents = Vec::new();
    let mut unsound = 0;
    for (at, path) in raw.paths.iter().enumerate() {
        if at > 0 && !raw.json {
            writeln!(out)?;
        }
        let mut findings = inspect(&raw, path, &mut out)?;
        unsound += usize::from(!findings.problems.is_empty());
        if raw.json {
            findings.document["path"] = json!(path.display().to_string());
            findings.document["sound"] = json!(findings.problems.is_empty());
            findings.document["problems"] = json!(findings.problems);
            documents.push(findings.document);
        } else {
            match findings.problems.as_slice() {
                [] => writeln!(out, "sound")?,
                problems => problems.iter().try_for_each(|problem| writeln!(out, "NOT SOUND: {problem}"))?,
            }
        }
    }
    if raw.json {
        out.json(&json!(documents))?;
    }
    out.flush()?;
    match unsound {
        0 => Ok(()),
        count => Err(Failed { message: format!("{count} of {} paths not sound", raw.paths.len()), hint: None }.into()),
    }
}

fn inspect(raw: &RawInspect, path: &Path, out: &mut Output) -> anyhow::Result<Findings> {
    let unreadable = |error| {
        UsageError::new(format!("{} cannot be read: {error}", path.display()))
            .hint("check the path and its permissions")
    };
    if std::fs::metadata(path).map_err(unreadable)?.is_dir() {
        return directory::inspect(path, raw.json, out);
    }
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    match FileName::parse(&name) {
        Some(FileName::Segment(_) | FileName::Spare(_)) => segment(raw, path, out),
        Some(FileName::PartitionMetadata) => archive::partition_metadata(path, raw.json, out),
        _ if path.extension().is_some_and(|extension| extension == "log") => segment(raw, path, out),
        _ => archive::inspect(path, raw.json, out),
    }
}

/// Lists a segment's batches, then where they end and what follows.
fn segment(raw: &RawInspect, path: &Path, out: &mut Output) -> anyhow::Result<Findings> {
    let mut batches = Vec::new();
    let mut record_problem = None;
    if !raw.json {
        out.heading(&format!("{}", path.display()))?;
        if !raw.summary {
            writeln!(out, "{BATCH_COLUMNS}")?;
        }
    }
    let of_metadata = metadata::is_metadata(path);
    let scan = scan::segment(path, |position, header, bytes| {
        let records = match (raw.records, of_metadata) {
            (false, _) => None,
            (true, false) => Some(records_json(header, bytes)),
            (true, true) => Some(metadata::records(header, bytes).map(|records| {
                records.iter().map(|(offset, record)| metadata::record_json(*offset, record)).collect()
            })),
        };
        if let Some(Err(why)) = &records {
            record_problem.get_or_insert(format!("the records of the batch at byte {position}: {why}"));
        }
        let records = records.and_then(Result::ok);
        if raw.json {
            if !raw.summary {
                let mut document = batch_json(position, header);
                if let Some(records) = records {
                    document["records"] = json!(records);
                }
                batches.push(document);
            }
        } else if !raw.summary {
            writeln!(out, "{}", batch_line(position, header))?;
            for record in records.iter().flatten() {
                writeln!(out, "    {record}")?;
            }
        }
        Ok(ControlFlow::Continue(()))
    })?;
    let mut problems: Vec<String> = scan.problem().into_iter().collect();
    problems.extend(record_problem);
    if !raw.json {
        writeln!(out, "{}", describe(&scan))?;
    }
    let mut document = segment_json(&scan);
    if raw.json && !raw.summary {
        document["batches"] = json!(batches);
    }
    Ok(Findings { problems, document })
}

const BATCH_COLUMNS: &str = "  POSITION   FIRST OFFSET    LAST OFFSET  RECORDS       BYTES  EPOCH  CODEC   CRC  MAX TIMESTAMP             FLAGS";

fn batch_line(position: u64, header: &Header) -> String {
    format!(
        "{position:>10} {:>14} {:>14} {:>8} {:>11} {:>6}  {:<7} ok   {:<25} {}",
        header.base_offset.0,
        header.last_offset().0,
        header.record_count,
        header.size_bytes,
        header.leader_epoch.0,
        codec_name(header),
        date_time(header.max_timestamp),
        flags(header)
    )
    .trim_end()
    .to_string()
}

fn flags(header: &Header) -> String {
    let mut words = Vec::new();
    if header.attributes.is_log_append_time() {
        words.push("log-append-time".to_string());
    }
    if header.attributes.is_transactional() {
        words.push("transactional".into());
    }
    if header.attributes.is_control() {
        words.push("control".into());
    }
    if header.producer_id.0 >= 0 {
        words.push(format!("producer={}/{}/{}", header.producer_id, header.producer_epoch, header.base_sequence));
    }
    words.join(" ")
}

fn codec_name(header: &Header) -> &'static str {
    Codec::from_number(header.attributes.codec()).map_or("?", Codec::name)
}

fn batch_json(position: u64, header: &Header) -> Value {
    json!({
        "position": position,
        "base_offset": header.base_offset.0,
        "last_offset": header.last_offset().0,
        "record_count": header.record_count,
        "size_bytes": header.size_bytes,
        "leader_epoch": header.leader_epoch.0,
        "codec": codec_name(header),
        "crc": format!("{:08x}", header.crc),
        "crc_ok": true,
        "base_timestamp": header.base_timestamp.0,
        "max_timestamp": header.max_timestamp.0,
        "log_append_time": header.attributes.is_log_append_time(),
        "transactional": header.attributes.is_transactional(),
        "control": header.attributes.is_control(),
        "producer_id": header.producer_id.0,
        "producer_epoch": header.producer_epoch.0,
        "base_sequence": header.base_sequence.0,
    })
}

fn records_json(header: &Header, bytes: &[u8]) -> Result<Vec<Value>, String> {
    let records = section(header, bytes, DECOMPRESSED_BYTES_MAX).map_err(|error| error.to_string())?;
    Records::new(&records, header.record_count)
        .map(|record| {
            let record = record.map_err(|error| error.to_string())?;
            let headers: Vec<_> = record
                .headers
                .map(|h| {
                    json!({ "key": String::from_utf8_lossy(h.key), "value": record_json::from_bytes(h.value, false) })
                })
                .collect();
            Ok(json!({
                "offset": record.offset(header).0,
                "timestamp": record.timestamp(header).0,
                "key": record_json::from_bytes(record.key, false),
                "value": record_json::from_bytes(record.value, false),
                "headers": headers,
            }))
        })
        .collect()
}

/// Everything about a segment in three lines.
fn describe(scan: &SegmentScan) -> String {
    let codecs: Vec<_> = scan
        .codecs
        .iter()
        .map(|(number, count)| format!("{} {count}", Codec::from_number(*number).map_or("?", Codec::name)))
        .collect();
    let body = match (scan.first_offset, scan.epochs) {
        (Some(first), Some((low, high))) => format!(
            "{}, {}, offsets {} to {}, epochs {low} to {high}, {} (codecs by batch: {})",
            counted(scan.batch_count, "batch"),
            counted(scan.record_count, "record"),
            first.0,
            scan.next_offset.0 - 1,
            human_bytes(scan.end_bytes),
            codecs.join(", ")
        ),
        _ => "no batch".into(),
    };
    format!("{body}\nthe valid log ends at byte {} of {}: {}", scan.end_bytes, scan.file_bytes, ending_text(scan))
}

fn ending_text(scan: &SegmentScan) -> String {
    match &scan.ending {
        Ending::EndOfFile => "there the file ends".into(),
        Ending::Zeros => format!("{} of zeros follow", human_bytes(scan.file_bytes - scan.end_bytes)),
        Ending::Other { why } => format!("then {why}"),
        Ending::Corrupt { why, position, offset } => {
            format!("then {why}, but a valid batch of offset {} follows at byte {position}", offset.0)
        }
    }
}

fn segment_json(scan: &SegmentScan) -> Value {
    let codecs: serde_json::Map<_, _> = scan
        .codecs
        .iter()
        .map(|(number, count)| (Codec::from_number(*number).map_or("?", Codec::name).to_string(), json!(count)))
        .collect();
    json!({
        "kind": "segment",
        "batch_count": scan.batch_count,
        "record_count": scan.record_count,
        "first_offset": scan.first_offset.map(|offset| offset.0),
        "next_offset": scan.next_offset.0,
        "epochs": scan.epochs.map(|(low, high)| [low, high]),
        "codecs": codecs,
        "max_timestamp": scan.max_timestamp.0,
        "end_bytes": scan.end_bytes,
        "file_bytes": scan.file_bytes,
        "ending": match scan.ending {
            Ending::EndOfFile => "end of file",
            Ending::Zeros => "zeros",
            Ending::Other { .. } => "remains",
            Ending::Corrupt { .. } => "corrupt",
        },
        "after_end": ending_text(scan),
    })
}
