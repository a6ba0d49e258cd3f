//! Names and paths of everything in the data directory, and which topic names are legal.
//!
//! ```text
//! DATA/.lock                                         held by every ring of the process
//! DATA/meta.properties                               node id and shard count
//! DATA/meta/__cluster_metadata-0/                    metadata log
//! DATA/meta/                                         its snapshots, clean-stop.<part>
//! DATA/journal/<shard>-<life>/<number>.journal       small commits that are not in their segments yet
//! DATA/topics/<topic>-<partition>/
//!     partition.metadata                             Kafka's text: version and topic id
//!     checkpoint
//!     <base offset, 20 digits>.log                   record batches
//!     <base offset, 20 digits>.sidecar               index and snapshots of a sealed segment
//!     <base offset, 20 digits>.spare                 a freed segment, to be overwritten
//!     <base offset>-<next offset>.swap               a compacted segment that takes the place of older ones
//! DATA/topics/<topic id>-<partition>.deleted/        to be removed
//! ```
//! Every name that is written here can be read back here. Pure: it touches no file.

use std::path::{Path, PathBuf};

use crate::model::id::{Offset, PartitionIndex, TopicId};
use crate::model::limits::TOPIC_NAME_SIZE_BYTES_MAX;

/// The paths below one data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    data: PathBuf,
}

impl Layout {
    /// The layout of the data directory `data`.
    pub fn new(data: impl Into<PathBuf>) -> Layout {
        Layout { data: data.into() }
    }

    /// The data directory.
    pub fn data_dir(&self) -> &Path {
        &self.data
    }

    /// The file whose lock says that a process, or what it left in the kernel, still uses the directory.
    pub fn lock_file(&self) -> PathBuf {
        self.data.join(".lock")
    }

    /// Where the metadata log and the clean-stop files are.
    pub fn meta_dir(&self) -> PathBuf {
        self.data.join("meta")
    }

    /// Where partitions are.
    pub fn topics_dir(&self) -> PathBuf {
        self.data.join("topics")
    }

    /// Where the shards' journals are.
    pub fn journal_dir(&self) -> PathBuf {
        self.data.join("journal")
    }

    /// A partition's directory.
    pub fn partition_dir(&self, topic: &str, partition: PartitionIndex) -> PathBuf {
        self.topics_dir().join(partition_dir_name(topic, partition))
    }

    /// Where a deleted partition waits for its removal.
    pub fn deleted_dir(&self, topic: TopicId, partition: PartitionIndex) -> PathBuf {
        self.topics_dir().join(deleted_dir_name(topic, partition))
    }

    /// One part of the clean-stop state: whoever stops partitions writes a part of its own.
    pub fn clean_stop_file(&self, part: u32) -> PathBuf {
        self.meta_dir().join(format!("{CLEAN_STOP}{part}"))
    }
}

/// Name of a partition's checkpoint within its directory.
pub const CHECKPOINT: &str = "checkpoint";
/// Name of the file that ties a partition's directory to its topic id.
pub const PARTITION_METADATA: &str = "partition.metadata";
const CLEAN_STOP: &str = "clean-stop.";
const DELETED: &str = ".deleted";
const LOG: &str = "log";
const SIDECAR: &str = "sidecar";
const SPARE: &str = "spare";
const SWAP: &str = "swap";

/// The number of a clean-stop part, or `None` if the file in `DATA/meta` is something else.
pub fn parse_clean_stop_file(name: &str) -> Option<u32> {
    number(name.strip_prefix(CLEAN_STOP)?)
}

/// A directory in `DATA/topics`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DirName {
    /// A partition by its topic's name.
    Partition(String, PartitionIndex),
    /// A deleted one by its topic's id.
    Deleted(TopicId, PartitionIndex),
}

impl DirName {
    /// Reads a directory's name; `None`: not ours.
    pub fn parse(name: &str) -> Option<DirName> {
        if let Some(name) = name.strip_suffix(DELETED) {
            let (topic, partition) = split_partition(name)?;
            return Some(DirName::Deleted(topic.parse().ok()?, partition));
        }
        let (topic, partition) = split_partition(name)?;
        check_topic_name(topic).ok()?;
        Some(DirName::Partition(topic.to_owned(), partition))
    }
}

/// `<topic>-<partition>`
pub fn partition_dir_name(topic: &str, partition: PartitionIndex) -> String {
    format!("{topic}-{partition}")
}

/// `<topic id>-<partition>.deleted`
pub fn deleted_dir_name(topic: TopicId, partition: PartitionIndex) -> String {
    format!("{topic}-{partition}{DELETED}")
}

/// A file in a partition's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileName {
    /// The segment with this base offset.
    Segment(Offset),
    /// A freed segment that once had this base offset.
    Spare(Offset),
    /// The sidecar of the sealed segment with this base offset.
    Sidecar(Offset),
    /// A compacted segment that replaces all segments from the first offset to below the second.
    Swap(Offset, Offset),
    /// The checkpoint.
    Checkpoint,
    /// The topic id.
    PartitionMetadata,
}

impl FileName {
    /// Reads a file's name; `None`: not ours.
    pub fn parse(name: &str) -> Option<FileName> {
        match name {
            CHECKPOINT => return Some(FileName::Checkpoint),
            PARTITION_METADATA => return Some(FileName::PartitionMetadata),
            _ => {}
        }
        let (digits, extension) = name.split_once('.')?;
        if extension == SWAP {
            let (base, next) = digits.split_once('-')?;
            return Some(FileName::Swap(offset(base)?, offset(next)?)).filter(|_| base < next);
        }
        let base = offset(digits)?;
        match extension {
            LOG => Some(FileName::Segment(base)),
            SPARE => Some(FileName::Spare(base)),
            SIDECAR => Some(FileName::Sidecar(base)),
            _ => None,
        }
    }

    /// The path of the file in a partition's directory.
    pub fn path(self, partition_dir: &Path) -> PathBuf {
        partition_dir.join(self.to_string())
    }
}

impl std::fmt::Display for FileName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            FileName::Segment(base) => write!(f, "{base:0>20}.{LOG}"),
            FileName::Spare(base) => write!(f, "{base:0>20}.{SPARE}"),
            FileName::Sidecar(base) => write!(f, "{base:0>20}.{SIDECAR}"),
            FileName::Swap(base, next) => write!(f, "{base:0>20}-{next:0>20}.{SWAP}"),
            FileName::Checkpoint => f.write_str(CHECKPOINT),
            FileName::PartitionMetadata => f.write_str(PARTITION_METADATA),
        }
    }
}

/// The text of `partition.metadata`, as Kafka writes it.
pub fn format_partition_metadata(topic: TopicId) -> String {
    format!("version: 0\ntopic_id: {topic}\n")
}

/// The topic id in a `partition.metadata`. Zero bytes at the end are padding of direct I/O and ignored.
pub fn parse_partition_metadata(bytes: &[u8]) -> Result<TopicId, InvalidPartitionMetadata> {
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
    let text = std::str::from_utf8(&bytes[..end]).map_err(|_| InvalidPartitionMetadata("it is not text"))?;
    let mut lines = text.lines();
    let mut value = |key: &str| lines.next().and_then(|line| line.strip_prefix(key)?.strip_prefix(": "));
    match value("version") {
        Some("0") => {}
        Some(_) => return Err(InvalidPartitionMetadata("its version is not 0")),
        None => return Err(InvalidPartitionMetadata("there is no version")),
    }
    let id = value("topic_id").ok_or(InvalidPartitionMetadata("there is no topic id"))?;
    let id: TopicId = id.parse().map_err(|_| InvalidPartitionMetadata("the topic id is malformed"))?;
    if id.is_none() {
        return Err(InvalidPartitionMetadata("the topic id is zero"));
    }
    Ok(id)
}

/// A `partition.metadata` file is not what Kafka or we write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("partition.metadata: {0}")]
pub struct InvalidPartitionMetadata(&'static str);

/// Why a topic may not have a name. The texts are for the client that asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTopicName {
    /// It is empty.
    #[error("the topic name is empty")]
    Empty,
    /// It means a directory.
    #[error("the topic name cannot be \".\" or \"..\"")]
    Dots,
    /// It is too long for a directory's name.
    #[error("the topic name is longer than {TOPIC_NAME_SIZE_BYTES_MAX} characters")]
    TooLong,
    /// A character is not allowed.
    #[error("the topic name may hold only ASCII letters and digits, '.', '_' and '-'")]
    Character,
}

/// Whether a topic may have this name: Kafka's rule, which also makes it a safe directory name.
pub fn check_topic_name(name: &str) -> Result<(), InvalidTopicName> {
    match name {
        "" => return Err(InvalidTopicName::Empty),
        "." | ".." => return Err(InvalidTopicName::Dots),
        _ => {}
    }
    if name.len() > TOPIC_NAME_SIZE_BYTES_MAX {
        return Err(InvalidTopicName::TooLong);
    }
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')) {
        return Err(InvalidTopicName::Character);
    }
    Ok(())
}

/// The name by which two topics collide: metric names cannot tell '.' from '_', so Kafka refuses a topic if another
/// one has the same key.
pub fn collision_key(name: &str) -> String {
    name.replace('.', "_")
}

/// True if the two different names differ only in '.' and '_'.
pub fn names_collide(a: &str, b: &str) -> bool {
    let same = |(x, y): (u8, u8)| x == y || matches!((x, y), (b'.', b'_') | (b'_', b'.'));
    a != b && a.len() == b.len() && a.bytes().zip(b.bytes()).all(same)
}

fn split_partition(name: &str) -> Option<(&str, PartitionIndex)> {
    let (topic, digits) = name.rsplit_once('-')?;
    let partition = i32::try_from(number(digits)?).ok()?;
    Some((topic, PartitionIndex(partition)))
}

/// An offset as file names have it: 20 digits.
fn offset(digits: &str) -> Option<Offset> {
    let sound = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    if sound { digits.parse().ok().map(Offset) } else { None }
}

/// A number as we write it: no sign, no leading zeros.
fn number(digits: &str) -> Option<u32> {
    let sound = digits == "0" || (!digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit()));
    if sound { digits.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    const ID: TopicId = TopicId(Uuid::from_u128(0xfbef_be00_1234_5678_9abc_def0_1122_3344));

    #[test]
    fn every_file_name_reads_back() {
        for (name, text) in [
            (FileName::Segment(Offset(0)), "00000000000000000000.log"),
            (FileName::Segment(Offset(i64::MAX)), "09223372036854775807.log"),
            (FileName::Spare(Offset(1234)), "00000000000000001234.spare"),
            (FileName::Sidecar(Offset(99)), "00000000000000000099.sidecar"),
            (FileName::Swap(Offset(5), Offset(99)), "00000000000000000005-00000000000000000099.swap"),
            (FileName::Checkpoint, "checkpoint"),
            (FileName::PartitionMetadata, "partition.metadata"),
        ] {
            assert_eq!(name.to_string(), text);
            assert_eq!(FileName::parse(text), Some(name));
        }
    }

    #[test]
    fn foreign_file_names_are_not_ours() {
        for name in [
            "",
            "0.log",
            "+0000000000000000000.log",
            "00000000000000000000.log.swp",
            "00000000000000000000.index",
            "99999999999999999999.log",
            "leader-epoch-checkpoint",
            "00000000000000000005.swap",
            "00000000000000000099-00000000000000000005.swap",
            "0000000000000000000\u{661}.log",
        ] {
            assert_eq!(FileName::parse(name), None, "{name}");
        }
    }

    #[test]
    fn directory_names_read_back_whatever_the_topic_is_called() {
        // Names with the separators in them, and one that looks like a deleted directory.
        for topic in ["a", "a-1", "a-1.deleted", "x.y_z-", "-", "0"] {
            let name = partition_dir_name(topic, PartitionIndex(12));
            assert_eq!(DirName::parse(&name), Some(DirName::Partition(topic.to_owned(), PartitionIndex(12))));
        }
        let deleted = deleted_dir_name(ID, PartitionIndex(3));
        assert_eq!(DirName::parse(&deleted), Some(DirName::Deleted(ID, PartitionIndex(3))));
        for foreign in ["lost+found", "a", "a-", "-1", "a-01", "a-+1", "a--1x", "a-2147483648", "b-1.deleted", ".."] {
            assert_eq!(DirName::parse(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn paths_lie_below_the_data_directory() {
        let layout = Layout::new("data");
        assert_eq!(layout.lock_file(), Path::new("data/.lock"));
        assert_eq!(layout.partition_dir("t", PartitionIndex(1)), Path::new("data/topics/t-1"));
        assert_eq!(layout.clean_stop_file(2), Path::new("data/meta/clean-stop.2"));
        assert_eq!(parse_clean_stop_file("clean-stop.2"), Some(2));
        assert_eq!(parse_clean_stop_file("clean-stop.x"), None);
        let dir = layout.partition_dir("t", PartitionIndex(1));
        assert_eq!(FileName::Segment(Offset(7)).path(&dir), dir.join("00000000000000000007.log"));
    }

    #[test]
    fn partition_metadata_is_kafkas_text() {
        let id = TopicId(Uuid::from_u128(1));
        assert_eq!(format_partition_metadata(id), "version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAAQ\n");
        assert_eq!(parse_partition_metadata(b"version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAAQ"), Ok(id));
        let mut padded = format_partition_metadata(ID).into_bytes();
        padded.resize(4096, 0);
        assert_eq!(parse_partition_metadata(&padded), Ok(ID));
        for bad in [
            &b""[..],
            b"\0\0\0",
            b"\xff\xfe",
            b"version: 1\ntopic_id: AAAAAAAAAAAAAAAAAAAAAQ\n",
            b"version: 0\n",
            b"version: 0\ntopic_id: AAAA\n",
            b"version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAAA\n",
            b"topic_id: AAAAAAAAAAAAAAAAAAAAAQ\nversion: 0\n",
        ] {
            assert!(parse_partition_metadata(bad).is_err());
        }
    }

    #[test]
    fn topic_names_follow_kafkas_rule() {
        for legal in ["a", "A.b_c-9", "...", "__consumer_offsets", &"x".repeat(249)] {
            assert_eq!(check_topic_name(legal), Ok(()), "{legal}");
        }
        assert_eq!(check_topic_name(""), Err(InvalidTopicName::Empty));
        assert_eq!(check_topic_name("."), Err(InvalidTopicName::Dots));
        assert_eq!(check_topic_name(".."), Err(InvalidTopicName::Dots));
        assert_eq!(check_topic_name(&"x".repeat(250)), Err(InvalidTopicName::TooLong));
        for bad in ["a/b", "a b", "ä", "a\0", "a:b", "a\n"] {
            assert_eq!(check_topic_name(bad), Err(InvalidTopicName::Character));
        }
    }

    #[test]
    fn names_that_differ_only_in_dots_and_underscores_collide() {
        assert!(names_collide("a.b", "a_b"));
        assert!(!names_collide("a.b", "a.b"));
        assert!(!names_collide("a.b", "a-b"));
        assert_eq!(collision_key("a.b_c"), collision_key("a_b.c"));
    }
}
