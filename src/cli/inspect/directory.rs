//! A partition's directory or a whole data directory: each file, and whether they agree with each other.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;

use serde_json::{Value, json};

use super::archive::{read_aligned, read_sidecar, state_text};
use super::scan::{self, Ending, SegmentScan};
use super::{Findings, metadata, segment_json};
use crate::base::units::{counted, human_bytes};
use crate::cli::exit::UsageError;
use crate::cli::output::Output;
use crate::model::id::{Offset, TopicId};
use crate::storage::checkpoint;
use crate::storage::layout::{DirName, FileName, Layout, parse_partition_metadata, partition_dir_name};

/// Prints a directory's files and how they fit together.
pub fn inspect(path: &Path, as_json: bool, out: &mut Output) -> anyhow::Result<Findings> {
    let layout = Layout::new(path);
    if layout.topics_dir().is_dir() || layout.meta_dir().is_dir() {
        return data_directory(&layout, as_json, out);
    }
    let files = names(path)?;
    if !files.iter().any(|name| FileName::parse(name).is_some()) {
        return Err(UsageError::new(format!("{} is neither a data directory nor a partition's", path.display()))
            .hint("give the directory of `ottla serve --data-dir`, or one below its topics/")
            .into());
    }
    let partition = read_partition(path)?;
    if !as_json {
        out.heading(&path.display().to_string())?;
        partition_text(out, &partition)?;
    }
    let document = partition_json(&partition);
    Ok(Findings { problems: partition.problems, document })
}

/// What was found in a partition's directory.
struct Partition {
    topic: Option<TopicId>,
    segments: Vec<(FileName, SegmentScan)>,
    checkpoint: Option<checkpoint::PartitionState>,
    /// Missing sidecars and the like: made again when needed.
    notes: Vec<String>,
    problems: Vec<String>,
}

impl Partition {
    fn live(&self) -> impl Iterator<Item = &SegmentScan> {
        self.segments.iter().filter(|(name, _)| matches!(name, FileName::Segment(_))).map(|(_, scan)| scan)
    }

    fn range(&self) -> (Offset, Offset) {
        let first = self.live().find_map(|scan| scan.first_offset);
        let end = self.live().last().map_or(Offset(0), |scan| scan.next_offset);
        let start = self.checkpoint.as_ref().map(|state| Offset(state.log_start)).or(first);
        (start.unwrap_or(end).max(first.unwrap_or(Offset(0))), end)
    }

    fn record_count(&self) -> u64 {
        self.live().map(|scan| scan.record_count).sum()
    }

    fn size_bytes(&self) -> u64 {
        self.live().map(|scan| scan.end_bytes).sum()
    }
}

fn read_partition(path: &Path) -> anyhow::Result<Partition> {
    let mut partition =
        Partition { topic: None, segments: Vec::new(), checkpoint: None, notes: Vec::new(), problems: Vec::new() };
    let mut files: Vec<FileName> = names(path)?.iter().filter_map(|name| FileName::parse(name)).collect();
    files.sort();
    for name in &files {
        let file = name.path(path);
        match name {
            FileName::Segment(_) | FileName::Spare(_) => {
                let scan = scan::segment(&file, |_, _, _| Ok(ControlFlow::Continue(())))?;
                if let (FileName::Segment(_), Some(problem)) = (name, scan.problem()) {
                    partition.problems.push(format!("{name}: {problem}"));
                }
                partition.segments.push((*name, scan));
            }
            FileName::PartitionMetadata => match parse_partition_metadata(&std::fs::read(&file)?) {
                Ok(id) => partition.topic = Some(id),
                Err(error) => partition.problems.push(error.to_string()),
            },
            FileName::Checkpoint => match checkpoint::find(&read_aligned(&file)?) {
                Ok(found) => partition.checkpoint = found.map(|found| found.state),
                Err(error) => partition.problems.push(format!("checkpoint: {error}")),
            },
            FileName::Sidecar(_) => {}
            FileName::Swap(base, next) => partition.notes.push(format!(
                "{name} takes the place of offsets {base} to {next}: the next start finishes it, or a running broker does"
            )),
        }
    }
    if !files.contains(&FileName::PartitionMetadata) {
        partition.problems.push("there is no partition.metadata, so nothing says which topic this is".into());
    }
    check_segments(path, &files, &mut partition)?;
    check_checkpoint(&mut partition);
    Ok(partition)
}

/// Segments follow each other without overlap; all but the last are whole files and have a sidecar that agrees.
fn check_segments(path: &Path, files: &[FileName], partition: &mut Partition) -> anyhow::Result<()> {
    let live: Vec<(Offset, SegmentScan)> = partition
        .segments
        .iter()
        .filter_map(|(name, scan)| match name {
            FileName::Segment(base) => Some((*base, scan.clone())),
            _ => None,
        })
        .collect();
    for pair in live.windows(2) {
        let ((base, scan), (next, _)) = (&pair[0], &pair[1]);
        let name = FileName::Segment(*base);
        if scan.next_offset > *next {
            partition
                .problems
                .push(format!("{name} ends at offset {}, behind the next one's start {next}", scan.next_offset));
        } else if scan.next_offset < *next {
            partition
                .notes
                .push(format!("{name} ends at offset {}, and the next one begins at {next}", scan.next_offset));
        }
        if scan.ending != Ending::EndOfFile {
            partition.notes.push(format!("{name} is followed by another and was not cut to its last batch"));
        }
        let sidecar = FileName::Sidecar(*base);
        if !files.contains(&sidecar) {
            partition.notes.push(format!("{name} has no sidecar; it is made again when needed"));
            continue;
        }
        match read_sidecar(&read_aligned(&sidecar.path(path))?) {
            Ok(contents) => {
                let said = (contents.segment.base_offset, contents.segment.next_offset, contents.segment.size_bytes);
                let found = (base.0, scan.next_offset.0, scan.end_bytes);
                if said != found {
                    partition.problems.push(format!(
                        "{sidecar} says offsets {} to {} in {} bytes, and the segment has {} to {} in {}",
                        said.0, said.1, said.2, found.0, found.1, found.2
                    ));
                }
            }
            Err(why) => partition.notes.push(format!("{sidecar}: {why}; it is made again when needed")),
        }
    }
    Ok(())
}

/// A checkpoint speaks of durable bytes only: the log may be longer, never shorter.
fn check_checkpoint(partition: &mut Partition) {
    let Some(state) = &partition.checkpoint else {
        partition.notes.push(
            "there is no checkpoint: without a clean stop (meta/clean-stop.*) recovery reads the log from its start"
                .into(),
        );
        return;
    };
    let (_, end) = partition.range();
    let active = FileName::Segment(Offset(state.active_base_offset));
    let found = partition.segments.iter().find(|(name, _)| *name == active);
    if state.next_offset > end.0 {
        partition
            .problems
            .push(format!("the checkpoint says offset {} is durable, and the log ends at {end}", state.next_offset));
    } else if found.is_some_and(|(_, scan)| scan.end_bytes < state.position_bytes) {
        partition.problems.push(format!("{active} ends before byte {} of the checkpoint", state.position_bytes));
    }
}

fn partition_text(out: &mut Output, partition: &Partition) -> std::io::Result<()> {
    let (start, end) = partition.range();
    writeln!(
        out,
        "topic id {}, offsets {start} to {end}, {}, {}",
        partition.topic.map_or("unknown".into(), |id| id.to_string()),
        counted(partition.record_count(), "record"),
        human_bytes(partition.size_bytes())
    )?;
    let rows: Vec<_> = partition
        .segments
        .iter()
        .map(|(name, scan)| {
            vec![
                name.to_string(),
                scan.first_offset.map_or("-".into(), |offset| offset.to_string()),
                scan.next_offset.to_string(),
                scan.batch_count.to_string(),
                scan.record_count.to_string(),
                scan.end_bytes.to_string(),
                scan.file_bytes.to_string(),
                match &scan.ending {
                    Ending::EndOfFile => "whole".into(),
                    Ending::Zeros => "zeros follow".into(),
                    Ending::Other { why } => format!("then {why}"),
                    Ending::Corrupt { .. } => "CORRUPT".into(),
                },
            ]
        })
        .collect();
    out.table(&["FILE", "FIRST", "NEXT", "BATCHES", "RECORDS", "LOG BYTES", "FILE BYTES", "END"], &rows)?;
    if let Some(state) = &partition.checkpoint {
        writeln!(out, "checkpoint: {}", state_text(state))?;
    }
    partition.notes.iter().try_for_each(|note| writeln!(out, "note: {note}"))
}

fn partition_json(partition: &Partition) -> Value {
    let (start, end) = partition.range();
    let segments: Vec<_> = partition
        .segments
        .iter()
        .map(|(name, scan)| {
            let mut document = segment_json(scan);
            document["file"] = json!(name.to_string());
            document
        })
        .collect();
    json!({
        "kind": "partition",
        "topic_id": partition.topic.map(|id| id.to_string()),
        "log_start_offset": start.0,
        "log_end_offset": end.0,
        "record_count": partition.record_count(),
        "size_bytes": partition.size_bytes(),
        "segments": segments,
        "notes": partition.notes,
    })
}

/// A line per partition, and every problem with the partition's name before it.
fn data_directory(layout: &Layout, as_json: bool, out: &mut Output) -> anyhow::Result<Findings> {
    let mut problems = Vec::new();
    let (mut rows, mut documents) = (Vec::new(), Vec::new());
    let mut strangers = Vec::new();
    let mut deleted = 0;
    let topics = layout.topics_dir();
    for name in if topics.is_dir() { names(&topics)? } else { Vec::new() } {
        match DirName::parse(&name) {
            Some(DirName::Partition(..)) => {
                let partition = read_partition(&topics.join(&name))?;
                let (start, end) = partition.range();
                problems.extend(partition.problems.iter().map(|problem| format!("{name}: {problem}")));
                rows.push(vec![
                    name.clone(),
                    start.to_string(),
                    end.to_string(),
                    partition.record_count().to_string(),
                    human_bytes(partition.size_bytes()),
                    partition.live().count().to_string(),
                    if partition.problems.is_empty() { "sound".into() } else { "NOT SOUND".to_string() },
                ]);
                let mut document = partition_json(&partition);
                document["directory"] = json!(name);
                document["problems"] = json!(partition.problems);
                documents.push(document);
            }
            Some(DirName::Deleted(..)) => deleted += 1,
            None => strangers.push(name),
        }
    }
    let image = if layout.meta_dir().is_dir() { metadata::read(layout, &mut problems)? } else { None };
    if let Some(image) = &image {
        let missing = image.topics().flat_map(|topic| {
            topic
                .partitions()
                .filter(|index| topic.is_materialized(*index))
                .map(|index| partition_dir_name(&topic.name, index))
                .filter(|name| !topics.join(name).is_dir())
        });
        problems.extend(missing.map(|name| format!("{name} may have data by the metadata, and has no directory")));
    }
    let journal = layout.journal_dir();
    let journals: Vec<String> = if journal.is_dir() { names(&journal)? } else { Vec::new() };
    let meta: Vec<String> = if layout.meta_dir().is_dir() { names(&layout.meta_dir())? } else { Vec::new() };
    if !as_json {
        out.heading(&format!("data directory {}", layout.data_dir().display()))?;
        out.table(&["PARTITION", "START", "END", "RECORDS", "SIZE", "SEGMENTS", ""], &rows)?;
        if let Some(image) = &image {
            writeln!(out, "{}", metadata::image_text(image))?;
        }
        writeln!(
            out,
            "{}, {deleted} deleted ones to be removed; meta/: {}",
            counted(rows.len() as u64, "partition"),
            meta.join(" ")
        )?;
        if !journals.is_empty() {
            let count = counted(journals.len() as u64, "journal");
            writeln!(
                out,
                "note: there is {count} in journal/: the next start writes what it holds into the partitions"
            )?;
        }
        for name in &strangers {
            writeln!(out, "note: topics/{name} is not ottla's")?;
        }
    }
    let document = json!({
        "kind": "data directory",
        "partitions": documents,
        "deleted_count": deleted,
        "journals": journals,
        "meta": meta,
        "metadata": image.as_ref().map(metadata::image_json),
        "strangers": strangers,
    });
    Ok(Findings { problems, document })
}

/// The names in a directory, sorted.
fn names(path: &Path) -> anyhow::Result<Vec<String>> {
    let mut names: Vec<String> = std::fs::read_dir(path)?
        .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_, _>>()?;
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::base::time::Timestamp;
    use crate::model::builder::BatchBuilder;
    use crate::model::compression::Codec;
    use crate::storage::layout::format_partition_metadata;
    use crate::storage::retention::SegmentSummary;
    use crate::storage::sidecar::SidecarContents;

    fn batch(offset: i64, records: usize) -> Vec<u8> {
        let mut builder = BatchBuilder::new(Codec::None).base_offset(Offset(offset));
        (0..records).for_each(|_| builder.push(Timestamp(5), None, Some(b"value"), &[]));
        builder.build()
    }

    /// Two segments, 0 to 9 and 10 to 14, with metadata, the first one's sidecar and a checkpoint at 12.
    fn sound_partition() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_path_buf();
        let first = batch(0, 10);
        let (head, tail) = (batch(10, 2), batch(12, 3));
        let segment =
            SegmentSummary { base_offset: 0, next_offset: 10, size_bytes: first.len() as u64, max_timestamp: 5 };
        let sidecar = SidecarContents {
            segment,
            max_timestamp_offset: 0,
            index: Vec::new(),
            aborted: Vec::new(),
            producers: Vec::new(),
            epochs: Vec::new(),
        };
        let state = checkpoint::PartitionState {
            active_base_offset: 10,
            position_bytes: head.len() as u64,
            next_offset: 12,
            sealed: vec![segment],
            ..checkpoint::PartitionState::default()
        };
        let write = |name: FileName, bytes: Vec<u8>| std::fs::write(name.path(&path), bytes).unwrap();
        let id = TopicId(uuid::Uuid::from_u128(7));
        write(FileName::PartitionMetadata, format_partition_metadata(id).into_bytes());
        write(FileName::Segment(Offset(0)), first);
        write(FileName::Sidecar(Offset(0)), sidecar.encode());
        write(FileName::Segment(Offset(10)), [head, tail, vec![0; 8192]].concat());
        write(FileName::Checkpoint, state.encode(3));
        (dir, path)
    }

    #[test]
    fn a_sound_partition_has_neither_problems_nor_notes() {
        let (_dir, path) = sound_partition();
        let partition = read_partition(&path).unwrap();
        assert_eq!((partition.problems.clone(), partition.notes.clone()), (vec![], vec![]));
        assert_eq!(partition.range(), (Offset(0), Offset(15)));
        assert_eq!((partition.record_count(), partition.segments.len()), (15, 2));
        assert_eq!(partition.topic, Some(TopicId(uuid::Uuid::from_u128(7))));
    }

    #[test]
    fn every_disagreement_of_the_files_is_a_problem() {
        // Each change breaks one rule of a partition that was sound before.
        let problem_after = |change: &dyn Fn(&Path)| {
            let (_dir, path) = sound_partition();
            change(&path);
            read_partition(&path).unwrap().problems.join("; ")
        };
        let write = |path: &Path, name: FileName, bytes: Vec<u8>| std::fs::write(name.path(path), bytes).unwrap();
        let segment = |offset| FileName::Segment(Offset(offset));
        assert!(problem_after(&|p| write(p, segment(0), batch(0, 12))).contains("behind the next one's start"));
        assert!(problem_after(&|p| write(p, segment(0), batch(0, 9))).contains("sidecar says"));
        assert!(problem_after(&|p| write(p, segment(10), batch(10, 1))).contains("the checkpoint says offset 12"));
        assert!(
            problem_after(&|p| std::fs::remove_file(FileName::PartitionMetadata.path(p)).unwrap())
                .contains("no partition.metadata")
        );
        assert!(
            problem_after(&|p| write(p, FileName::PartitionMetadata, b"x".to_vec())).contains("partition.metadata")
        );
    }

    #[test]
    fn missing_helpers_are_only_noted() {
        let (_dir, path) = sound_partition();
        std::fs::remove_file(FileName::Sidecar(Offset(0)).path(&path)).unwrap();
        std::fs::remove_file(FileName::Checkpoint.path(&path)).unwrap();
        let partition = read_partition(&path).unwrap();
        assert_eq!((partition.problems.len(), partition.notes.len()), (0, 2));
    }
}
