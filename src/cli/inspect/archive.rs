//! Files in envelopes (sidecars, checkpoints, clean-stop files, metadata snapshots) and `partition.metadata`.
//!
//! What a file is follows from its magic, not from its name.

use std::io::Write;
use std::path::Path;

use rkyv::rancor;
use rkyv::util::AlignedVec;
use serde_json::{Value, json};

use super::{Findings, metadata};
use crate::base::time::Timestamp;
use crate::base::units::{counted, human_bytes};
use crate::cli::exit::UsageError;
use crate::cli::format::time::date_time;
use crate::cli::output::Output;
use crate::controller::snapshot;
use crate::storage::checkpoint::{self, PartitionState, read_clean_stop_chunk};
use crate::storage::envelope;
use crate::storage::layout::parse_partition_metadata;
use crate::storage::sidecar::{self, ArchivedSidecarContents, SidecarContents};

/// The whole file where archives can be accessed in place.
pub fn read_aligned(path: &Path) -> std::io::Result<AlignedVec<16>> {
    let bytes = std::fs::read(path)?;
    let mut aligned = AlignedVec::with_capacity(bytes.len());
    aligned.extend_from_slice(&bytes);
    Ok(aligned)
}

/// A sidecar's contents.
pub fn read_sidecar(bytes: &[u8]) -> Result<SidecarContents, String> {
    let envelope = envelope::open(sidecar::KIND, bytes).map_err(|error| error.to_string())?;
    let archived = envelope::access::<ArchivedSidecarContents>(envelope.payload).map_err(|error| error.to_string())?;
    rkyv::deserialize::<SidecarContents, rancor::Failure>(archived).map_err(|_| "the archive is malformed".into())
}

/// Prints what kind of file it is and what it says.
pub fn inspect(path: &Path, as_json: bool, out: &mut Output) -> anyhow::Result<Findings> {
    let bytes = read_aligned(path)?;
    if !as_json {
        out.heading(&path.display().to_string())?;
    }
    let magic = bytes.first_chunk::<8>().copied().unwrap_or_default();
    let is_checkpoint_file = path.file_name().is_some_and(|name| name == checkpoint_name());
    if magic == sidecar::KIND.magic {
        inspect_sidecar(&bytes, as_json, out)
    } else if magic == checkpoint::CLEAN_STOP_KIND.magic {
        inspect_clean_stop(&bytes, as_json, out)
    } else if magic == checkpoint::KIND.magic || is_checkpoint_file {
        inspect_checkpoint(&bytes, as_json, out)
    } else if magic == snapshot::KIND.magic {
        inspect_snapshot(&bytes, as_json, out)
    } else {
        Err(UsageError::new(format!("{} is no file of ottla's that this command knows", path.display()))
            .hint("give a segment (.log, .spare), a .sidecar, a checkpoint, a snapshot, a partition's or the data directory")
            .into())
    }
}

fn checkpoint_name() -> &'static str {
    crate::storage::layout::CHECKPOINT
}

fn inspect_sidecar(bytes: &[u8], as_json: bool, out: &mut Output) -> anyhow::Result<Findings> {
    let contents = match read_sidecar(bytes) {
        Ok(contents) => contents,
        Err(why) => return Ok(Findings { problems: vec![why], document: json!({ "kind": "sidecar" }) }),
    };
    let segment = contents.segment;
    if !as_json {
        writeln!(
            out,
            "sidecar of a segment with offsets {} to {}, {}, newest record {}",
            segment.base_offset,
            segment.next_offset - 1,
            human_bytes(segment.size_bytes),
            date_time(Timestamp(segment.max_timestamp))
        )?;
        writeln!(
            out,
            "{} index entries, {} aborted transactions, {} producers, {} leader epochs",
            contents.index.len(),
            contents.aborted.len(),
            contents.producers.len(),
            contents.epochs.len()
        )?;
    }
    let document = json!({
        "kind": "sidecar",
        "base_offset": segment.base_offset,
        "next_offset": segment.next_offset,
        "size_bytes": segment.size_bytes,
        "max_timestamp": segment.max_timestamp,
        "max_timestamp_offset": contents.max_timestamp_offset,
        "index": contents.index.iter().map(|entry| json!({
            "offset": segment.base_offset + i64::from(entry.relative_offset),
            "position": entry.position_bytes,
            "timestamp_before": entry.timestamp_before,
        })).collect::<Vec<_>>(),
        "aborted": contents.aborted.iter().map(|aborted| json!({
            "producer_id": aborted.producer_id,
            "first_offset": aborted.first_offset,
            "last_offset": aborted.last_offset,
        })).collect::<Vec<_>>(),
        "producers": contents.producers.iter().map(|producer| producer.producer_id).collect::<Vec<_>>(),
        "epochs": epochs(&contents.epochs),
    });
    Ok(Findings { problems: Vec::new(), document })
}

fn inspect_snapshot(bytes: &[u8], as_json: bool, out: &mut Output) -> anyhow::Result<Findings> {
    let kind = "metadata snapshot";
    Ok(match snapshot::decode(bytes) {
        Ok(image) => {
            if !as_json {
                writeln!(out, "{}", metadata::image_text(&image))?;
            }
            let mut document = metadata::image_json(&image);
            document["kind"] = json!(kind);
            Findings { problems: Vec::new(), document }
        }
        Err(error) => Findings { problems: vec![error.to_string()], document: json!({ "kind": kind }) },
    })
}

fn inspect_checkpoint(bytes: &[u8], as_json: bool, out: &mut Output) -> anyhow::Result<Findings> {
    let document = json!({ "kind": "checkpoint" });
    match checkpoint::find(bytes) {
        Ok(Some(found)) => {
            if !as_json {
                writeln!(
                    out,
                    "checkpoint {} at bytes {} to {}",
                    found.sequence,
                    found.slot.start_bytes,
                    found.slot.start_bytes + found.slot.size_bytes
                )?;
                writeln!(out, "{}", state_text(&found.state))?;
            }
            let mut document = state_json(&found.state);
            document["kind"] = json!("checkpoint");
            document["sequence"] = json!(found.sequence);
            Ok(Findings { problems: Vec::new(), document })
        }
        Ok(None) => Ok(Findings { problems: vec!["there is no sound checkpoint in it".into()], document }),
        Err(error) => Ok(Findings { problems: vec![error.to_string()], document }),
    }
}

fn inspect_clean_stop(bytes: &AlignedVec<16>, as_json: bool, out: &mut Output) -> anyhow::Result<Findings> {
    let mut at = 0;
    let mut partitions = Vec::new();
    let mut problems = Vec::new();
    for sequence in 0.. {
        if at >= bytes.len() {
            break;
        }
        // Chunks are whole blocks, so each begins aligned.
        match read_clean_stop_chunk(sequence, &bytes[at..]) {
            Ok((entries, size_bytes)) => {
                for (partition, state) in entries {
                    if !as_json {
                        writeln!(out, "{}-{}: {}", partition.topic, partition.partition, state_text(&state))?;
                    }
                    let mut document = state_json(&state);
                    document["topic_id"] = json!(partition.topic.to_string());
                    document["partition"] = json!(partition.partition.0);
                    partitions.push(document);
                }
                at += size_bytes.max(1);
            }
            Err(error) => {
                problems.push(format!("byte {at}: {error}"));
                break;
            }
        }
    }
    if !as_json {
        writeln!(out, "clean stop of {}", counted(partitions.len() as u64, "partition"))?;
    }
    Ok(Findings { problems, document: json!({ "kind": "clean stop", "partitions": partitions }) })
}

/// A checkpoint's state in a line.
pub fn state_text(state: &PartitionState) -> String {
    format!(
        "durable to offset {} (byte {} of the segment of offset {}), log start {}, epoch {}, {} sealed segments, {} producers{}{}",
        state.next_offset,
        state.position_bytes,
        state.active_base_offset,
        state.log_start,
        state.leader_epoch,
        state.sealed.len(),
        state.producers.len(),
        if state.has_gaps { format!(", compacted to offset {}", state.cleaner_offset) } else { String::new() },
        if state.clean { ", clean" } else { "" }
    )
}

fn state_json(state: &PartitionState) -> Value {
    json!({
        "active_base_offset": state.active_base_offset,
        "position": state.position_bytes,
        "next_offset": state.next_offset,
        "log_start_offset": state.log_start,
        "commit_bytes_max": state.commit_bytes_max,
        "leader_epoch": state.leader_epoch,
        "clean": state.clean,
        "compacted": state.has_gaps,
        "cleaner_offset": state.cleaner_offset,
        "sealed": state.sealed.iter().map(|segment| json!({
            "base_offset": segment.base_offset,
            "next_offset": segment.next_offset,
            "size_bytes": segment.size_bytes,
            "max_timestamp": segment.max_timestamp,
        })).collect::<Vec<_>>(),
        "epochs": epochs(&state.epochs),
        "producers": state.producers.len(),
    })
}

fn epochs(entries: &[crate::storage::epochs::EpochEntry]) -> Vec<Value> {
    entries.iter().map(|entry| json!({ "epoch": entry.epoch, "start_offset": entry.start_offset })).collect()
}

/// The file that ties a directory to its topic.
pub fn partition_metadata(path: &Path, as_json: bool, out: &mut Output) -> anyhow::Result<Findings> {
    let kind = "partition metadata";
    Ok(match parse_partition_metadata(&std::fs::read(path)?) {
        Ok(id) => {
            if !as_json {
                writeln!(out, "{}: topic id {id}", path.display())?;
            }
            Findings { problems: Vec::new(), document: json!({ "kind": kind, "topic_id": id.to_string() }) }
        }
        Err(error) => Findings { problems: vec![error.to_string()], document: json!({ "kind": kind }) },
    })
}
