//! The metadata log and its snapshots: what the controller remembers, put together as at a start.
//!
//! Snapshots are known by their magic, logs by their names; both lie in `DATA/meta` or a directory below it.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::scan;
use crate::base::units::counted;
use crate::controller::image::Image;
use crate::controller::records::Record;
use crate::controller::snapshot;
use crate::model::batch::Header;
use crate::model::id::Offset;
use crate::model::records::{Records, section};
use crate::storage::layout::{FileName, Layout};

/// A metadata record is small; a batch of them may become so much when decompressed.
const DECOMPRESSED_BYTES_MAX: usize = 256 << 20;

/// True for a segment of the metadata log: it lies in `meta` or in a directory below.
pub fn is_metadata(path: &Path) -> bool {
    path.canonicalize().is_ok_and(|path| {
        path.ancestors().skip(1).take(2).any(|dir| dir.file_name().is_some_and(|name| name == "meta"))
    })
}

/// The records of one batch of the metadata log.
pub fn records(header: &Header, bytes: &[u8]) -> Result<Vec<(Offset, Record)>, String> {
    let records = section(header, bytes, DECOMPRESSED_BYTES_MAX).map_err(|error| error.to_string())?;
    Records::new(&records, header.record_count)
        .map(|record| {
            let record = record.map_err(|error| error.to_string())?;
            let value = record.value.ok_or("a metadata record without a value")?;
            Ok((record.offset(header), Record::decode(value).map_err(|error| error.to_string())?))
        })
        .collect()
}

/// One record for people and for `--json`.
pub fn record_json(offset: Offset, record: &Record) -> Value {
    json!({ "offset": offset.0, "type": record.name(), "record": format!("{record:?}") })
}

/// A snapshot's or an image's contents.
pub fn image_json(image: &Image) -> Value {
    let nodes: Vec<_> = image
        .nodes()
        .iter()
        .map(|(id, node)| json!({ "node": id.0, "shards": node.shard_count, "starts": node.start_count }))
        .collect();
    let mut topics: Vec<_> = image
        .topics()
        .map(|topic| json!({ "name": &*topic.name, "id": topic.id.to_string(), "partitions": topic.partition_count }))
        .collect();
    topics.sort_by_key(|topic| topic["name"].to_string());
    json!({
        "version": image.version().0,
        "cluster_id": image.cluster_id().map(|id| id.to_string()),
        "nodes": nodes,
        "topics": topics,
        "partition_count": image.partition_count(),
        "next_producer_id": image.next_producer_id().0,
    })
}

/// An image in a line.
pub fn image_text(image: &Image) -> String {
    let nodes: Vec<_> = image
        .nodes()
        .iter()
        .map(|(id, node)| format!("node {id} with {}", counted(u64::from(node.shard_count), "shard")))
        .collect();
    format!(
        "metadata to offset {}: cluster {}, {}, {}, {}",
        image.version(),
        image.cluster_id().map_or("without id".into(), |id| id.to_string()),
        nodes.join(", "),
        counted(image.topic_count() as u64, "topic"),
        counted(image.partition_count() as u64, "partition")
    )
}

/// What a start would know: the newest sound snapshot and the records after it. `None` if there is no metadata yet.
/// Damaged snapshots are passed over and named in `problems`.
pub fn read(layout: &Layout, problems: &mut Vec<String>) -> anyhow::Result<Option<Image>> {
    let (mut logs, mut others) = (Vec::new(), Vec::new());
    for file in files(&layout.meta_dir())? {
        let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        match FileName::parse(&name) {
            Some(FileName::Segment(base)) => logs.push((base, file)),
            None => others.push(file),
            Some(_) => {}
        }
    }
    logs.sort();
    let mut image = Image::default();
    for file in others {
        let bytes = std::fs::read(&file)?;
        if !bytes.starts_with(&snapshot::KIND.magic) {
            continue;
        }
        match snapshot::decode(&bytes) {
            Ok(found) if found.version() > image.version() => image = found,
            Ok(_) => {}
            Err(error) => problems.push(format!("{}: {error}", file.display())),
        }
    }
    for (_, log) in logs {
        apply(&log, &mut image, problems)?;
    }
    Ok((image.version() != Offset::NONE).then_some(image))
}

fn apply(log: &Path, image: &mut Image, problems: &mut Vec<String>) -> anyhow::Result<()> {
    let scan = scan::segment(log, |position, header, bytes| {
        let found = match records(header, bytes) {
            Ok(found) => found,
            Err(why) => {
                problems.push(format!("{} at byte {position}: {why}", log.display()));
                return Ok(ControlFlow::Break(()));
            }
        };
        for (offset, record) in found {
            if offset <= image.version() {
                continue;
            }
            if let Err(error) = image.apply(&record) {
                problems.push(format!("{}: offset {offset}: {error}", log.display()));
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    })?;
    problems.extend(scan.problem().map(|problem| format!("{}: {problem}", log.display())));
    Ok(())
}

/// Files in `dir` and in the directories right below it.
fn files(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => {
                for inner in std::fs::read_dir(entry.path())? {
                    found.push(inner?.path());
                }
            }
            false => found.push(entry.path()),
        }
    }
    found.retain(|path| path.is_file());
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::Timestamp;
    use crate::controller::image::ClusterId;
    use crate::controller::records::DATA_FORMAT;
    use crate::model::builder::BatchBuilder;
    use crate::model::compression::Codec;
    use crate::model::id::NodeId;

    /// The shards of node 0 by what lies in `dir`.
    fn shard_count(dir: &Path, node: NodeId) -> Option<usize> {
        let mut problems = Vec::new();
        let image = read(&Layout::new(dir), &mut problems).unwrap();
        assert_eq!(problems, Vec::<String>::new());
        image?.nodes().get(&node).map(|node| usize::from(node.shard_count))
    }

    #[test]
    fn the_shard_count_of_the_last_start_is_found_in_the_log_and_behind_a_snapshot() {
        // Two starts in the log; then the same with a snapshot of the first and a log from there on.
        let started = |shard_count| Record::NodeStarted { node: NodeId(0), shard_count, format: DATA_FORMAT };
        let records =
            [Record::ClusterCreated { cluster_id: ClusterId(uuid::Uuid::from_u128(5)) }, started(2), started(3)];
        let batch = |base: i64, records: &[Record]| {
            let mut builder = BatchBuilder::new(Codec::None).base_offset(Offset(base));
            records.iter().for_each(|record| builder.push(Timestamp(1), None, Some(&record.encode()), &[]));
            builder.build()
        };
        let dir = tempfile::tempdir().unwrap();
        let meta = dir.path().join("meta/log");
        std::fs::create_dir_all(&meta).unwrap();
        assert_eq!(shard_count(dir.path(), NodeId(0)), None);
        let first = meta.join("00000000000000000000.log");
        std::fs::write(&first, [batch(0, &records[..1]), batch(1, &records[1..]), vec![0; 4096]].concat()).unwrap();
        assert_eq!(shard_count(dir.path(), NodeId(0)), Some(3));
        assert_eq!(shard_count(dir.path(), NodeId(1)), None);

        let mut image = Image::default();
        image.apply(&records[0]).unwrap();
        image.apply(&records[1]).unwrap();
        std::fs::remove_file(&first).unwrap();
        std::fs::write(dir.path().join("meta/snapshot"), snapshot::encode(&image)).unwrap();
        assert_eq!(shard_count(dir.path(), NodeId(0)), Some(2));
        std::fs::write(meta.join("00000000000000000002.log"), batch(2, &records[2..])).unwrap();
        assert_eq!(shard_count(dir.path(), NodeId(0)), Some(3));
    }
}
