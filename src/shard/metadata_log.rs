//! The metadata log: the controller's records as batches of an ordinary log, `DATA/meta/__cluster_metadata-0`.
//!
//! It is a partition's log like any other, recovered and written by the same code, always synced, so it has no format
//! of its own. The offsets of its records are the versions of the metadata image.
//!
//! A snapshot of the image is written at start when the log has grown much since the last one; the log then begins
//! behind it. The newest snapshot that can be read counts.
//!
//! Invariant: one append is under way at a time, and its records are acknowledged when they are durable.

use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::base::coverage;
use crate::base::time::Now;
use crate::base::units::{KIB, MIB};
use crate::controller::image::Image;
use crate::controller::records::Record;
use crate::controller::snapshot;
use crate::handlers::token::{self, Kind};
use crate::io::{Completion, File, Io, Op, OpenOptions, Outcome, Slice};
use crate::model::batch::{self, Header};
use crate::model::builder::BatchBuilder;
use crate::model::compression::Codec;
use crate::model::id::{LeaderEpoch, Offset, PartitionIndex, TopicId};
use crate::model::limits::{ENVELOPE_SIZE_BYTES_MAX, RECORDS_SIZE_BYTES_MAX};
use crate::model::records;
use crate::storage::layout::Layout;
use crate::storage::recovery::{Known, recover};
use crate::storage::{AppendError, Events, Identity, Log, LogOptions, Range, ReadRequest, ReadStep, Resources, UpTo};

/// Kafka's name and id of its own metadata topic.
const NAME: &str = "__cluster_metadata";
const TOPIC: TopicId = TopicId(Uuid::from_u128(1));
/// A start cuts the log by a snapshot when it holds more than this. Tests have small logs, and snapshots all the same.
const SNAPSHOT_AFTER_BYTES: u64 = if cfg!(any(test, feature = "simulate")) { 4 * KIB as u64 } else { 4 * MIB as u64 };
const READ_SIZE_BYTES: u32 = MIB as u32;
const SNAPSHOT_SUFFIX: &str = ".snapshot";

/// The metadata log cannot be used: the node cannot start.
#[derive(Debug, thiserror::Error)]
#[error("the metadata log in {}: {what}", dir.display())]
pub struct MetadataLogError {
    dir: PathBuf,
    what: String,
}

/// What became of the append under way.
#[derive(Debug)]
pub enum Progress {
    /// Nothing yet.
    None,
    /// Its records are durable.
    Appended,
    /// The log is offline.
    Failed(String),
    /// The log is closed.
    Closed,
}

/// See the module.
pub struct MetadataLog {
    log: Log,
    /// A batch that the log was not ready for, and the version behind it.
    parked: Option<Vec<u8>>,
    /// The version behind the records under way.
    awaited: Option<Offset>,
}

impl MetadataLog {
    /// Recovers the log, or prepares for a first one, and replays it. Blocking: at start, where nothing else is under
    /// way on `io`.
    pub fn open<I: Io>(
        io: &mut I,
        layout: &Layout,
        options: LogOptions,
        shared: Resources,
        now: Now,
    ) -> Result<(MetadataLog, Image), MetadataLogError> {
        let parent = layout.meta_dir();
        let dir = parent.join(format!("{NAME}-0"));
        let error = |what: String| MetadataLogError { dir: dir.clone(), what };
        for path in [layout.meta_dir(), layout.topics_dir()] {
            io.run(Op::CreateDir { path: path.clone() }).map_err(|e| error(format!("{}: {e}", path.display())))?;
        }
        // Also that of the log itself: a process that ended while it made it may not have come to syncing it.
        for path in [layout.data_dir().to_owned(), layout.meta_dir()] {
            io.run(Op::SyncDir { path }).map_err(|e| error(e.to_string()))?;
        }
        let had_data = list(io, &dir).map_err(&error)?.iter().any(|name| name.ends_with(".log"));
        if !had_data && !list(io, &layout.topics_dir()).map_err(&error)?.is_empty() {
            return Err(error("it is gone, but there are topics; restore it from a copy of the data directory".into()));
        }
        let identity = Identity { topic_id: TOPIC, partition: PartitionIndex(0), parent, dir: dir.clone() };
        let token = token::base(Kind::Metadata, 0, 0).0;
        let known = Known { had_data, clean: None };
        let (mut log, _) = recover(io, token, identity, options, LeaderEpoch(0), known, shared, now)
            .map_err(|cause| error(cause.to_string()))?;
        let snapshot = newest_snapshot(io, layout).map_err(&error)?;
        let mut image = snapshot.unwrap_or_default();
        if log.log_start().0 > image.version().0 + 1 {
            return Err(error(format!("records {} to {} are missing", image.version().0 + 1, log.log_start().0 - 1)));
        }
        replay(io, &mut log, &mut image).map_err(&error)?;
        if log.log_end() != image.version().plus(1) {
            return Err(error(format!("it ends at {}, its snapshot at {}", log.log_end().0, image.version().0)));
        }
        if log.size_bytes() > SNAPSHOT_AFTER_BYTES {
            match write_snapshot(io, layout, &image) {
                // Everything below is in the snapshot; the log keeps at least its active segment.
                Ok(()) => {
                    coverage::hit("metadata: snapshot");
                    let cut = log.delete_records(io, image.version().plus(1));
                    cut.map_err(|cause| error(cause.to_string()))?;
                    settle(io, &mut log, now);
                }
                Err(cause) => tracing::warn!(%cause, "no snapshot of the metadata was written"),
            }
        }
        Ok((MetadataLog { log, parked: None, awaited: None }, image))
    }

    /// Appends records as one batch, the first of which gets `base_offset`.
    pub fn append(&mut self, io: &mut impl Io, base_offset: Offset, values: &[Vec<u8>], now: Now) -> Progress {
        assert!(self.awaited.is_none() && self.parked.is_none(), "one append at a time");
        assert_eq!(base_offset, self.log.log_end(), "the log and the image disagree");
        let mut builder = BatchBuilder::new(Codec::None);
        for value in values {
            builder.push(now.wall, None, Some(value), &[]);
        }
        self.awaited = Some(base_offset.plus(values.len() as i64));
        self.try_append(io, builder.build(), now)
    }

    fn try_append(&mut self, io: &mut impl Io, mut bytes: Vec<u8>, now: Now) -> Progress {
        let header = Header::parse(&bytes).expect("it was just built");
        match self.log.append(io, &mut bytes, &header, now) {
            Ok(_) => {
                self.log.commit(io);
                let events = self.log.take_events();
                self.react(io, events, now)
            }
            // A full disk and missing memory pass: metadata that waits is better than metadata that is lost.
            Err(AppendError::NotReady | AppendError::DiskFull | AppendError::NoMemory) => {
                coverage::hit("metadata: a change waits");
                self.parked = Some(bytes);
                Progress::None
            }
            Err(error) => Progress::Failed(error.to_string()),
        }
    }

    /// Takes a completion of one of its operations.
    pub fn complete(&mut self, io: &mut impl Io, completion: Completion, now: Now) -> Progress {
        let events = self.log.complete(io, completion.token, completion.result, now);
        self.react(io, events, now)
    }

    /// Tries again what was not ready. For the owner's slow tick.
    pub fn tick(&mut self, io: &mut impl Io, now: Now) -> Progress {
        match self.parked.take() {
            Some(bytes) => self.try_append(io, bytes, now),
            None => Progress::None,
        }
    }

    /// Makes everything durable; [`Progress::Closed`] tells when.
    pub fn close(&mut self, io: &mut impl Io, now: Now) -> Progress {
        let events = self.log.close(io);
        self.react(io, events, now)
    }

    fn react(&mut self, io: &mut impl Io, events: Events, now: Now) -> Progress {
        if let Some(cause) = self.log.offline().filter(|_| events.offline) {
            return Progress::Failed(cause.to_string());
        }
        let mut events = events;
        if events.materialized {
            // It is its own record of having data.
            events.merge(self.log.allow_serving());
        }
        if events.closed {
            return Progress::Closed;
        }
        if self.awaited.is_some_and(|end| self.log.high_watermark() >= end) {
            self.awaited = None;
            return Progress::Appended;
        }
        if events.dirty {
            self.log.commit(io);
        }
        if events.room { self.tick(io, now) } else { Progress::None }
    }
}

/// Waits for the log's own operations, so that the start may go on with others.
fn settle(io: &mut impl Io, log: &mut Log, now: Now) {
    let mut completions = Vec::new();
    while !log.is_quiet() {
        io.poll(None, &mut completions);
        for completion in completions.drain(..) {
            log.complete(io, completion.token, completion.result, now);
        }
    }
}

/// The names in a directory; none where there is no directory. What cannot be listed is not empty: a log that was taken
/// for a new one would be overwritten.
fn list<I: Io>(io: &mut I, dir: &Path) -> Result<Vec<String>, String> {
    match io.run(Op::List { path: dir.to_owned() }) {
        Ok(Outcome::Listed(entries)) => Ok(entries.into_iter().map(|entry| entry.name).collect()),
        Ok(outcome) => panic!("a listing completed with {outcome:?}"),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(format!("listing {}: {error}", dir.display())),
    }
}

/// Applies every record of the log that the image does not have.
fn replay<I: Io>(io: &mut I, log: &mut Log, image: &mut Image) -> Result<(), String> {
    let mut offset = image.version().plus(1).max(log.log_start());
    while offset < log.log_end() {
        let bytes = read(io, log, offset)?;
        let before = offset;
        for (header, batch) in batch::batches(&bytes) {
            let section = records::section(&header, batch, RECORDS_SIZE_BYTES_MAX).map_err(|e| e.to_string())?;
            for record in records::Records::new(&section, header.record_count) {
                let record = record.map_err(|e| e.to_string())?;
                if record.offset(&header) >= offset {
                    let value = record.value.ok_or("a record without a value")?;
                    let change = Record::decode(value).map_err(|e| format!("record {offset}: {e}"))?;
                    image.apply(&change).map_err(|e| format!("record {offset}: {e}"))?;
                    offset = offset.plus(1);
                }
            }
        }
        if offset == before {
            return Err(format!("nothing can be read at record {offset}"));
        }
    }
    Ok(())
}

/// Reads batches from `offset` on, waiting for the disk.
fn read<I: Io>(io: &mut I, log: &mut Log, offset: Offset) -> Result<Vec<u8>, String> {
    let token = token::base(Kind::Fetch, 0, 0);
    let request = ReadRequest { offset, size_bytes_max: READ_SIZE_BYTES, min_one_batch: true, up_to: UpTo::LogEnd };
    let mut step = log.read(io, token, request);
    let mut completions = Vec::new();
    loop {
        match step {
            ReadStep::Failed(error) => return Err(error.to_string()),
            ReadStep::Ready(plan) => {
                let mut bytes = Vec::with_capacity(plan.size_bytes as usize);
                for range in plan.ranges {
                    match range {
                        Range::Memory(slice) => bytes.extend_from_slice(slice.as_bytes()),
                        Range::File { file, position, length_bytes } => {
                            bytes.extend_from_slice(&read_file(io, file, position, length_bytes)?);
                        }
                    }
                }
                return Ok(bytes);
            }
            ReadStep::Pending(task) => {
                while completions.is_empty() {
                    io.poll(None, &mut completions);
                }
                let completion: Completion = completions.remove(0);
                assert!(completion.token == token && completions.is_empty(), "nothing else is under way");
                step = task.resume(io, log, completion.result);
            }
        }
    }
}

fn read_file<I: Io>(io: &mut I, file: File, offset: u64, length_bytes: u32) -> Result<Vec<u8>, String> {
    let buffer = io.pool().take(length_bytes as usize).ok_or("no memory to read it")?;
    match io.run(Op::Read { file, offset, buffer, length_bytes }) {
        Ok(Outcome::Read { buffer, bytes }) => Ok(buffer[..bytes].to_vec()),
        Ok(other) => panic!("a read completed with {other:?}"),
        Err(error) => Err(error.to_string()),
    }
}

fn newest_snapshot<I: Io>(io: &mut I, layout: &Layout) -> Result<Option<Image>, String> {
    let mut names = list(io, &layout.meta_dir())?;
    names.retain(|name| name.ends_with(SNAPSHOT_SUFFIX));
    names.sort_unstable();
    for name in names.into_iter().rev() {
        let path = layout.meta_dir().join(&name);
        let opened = io.run(Op::Open { path, options: OpenOptions::default() }).map_err(|e| e.to_string())?;
        let Outcome::Opened(file) = opened else { panic!("an open completed with {opened:?}") };
        let length = io.run(Op::Length { file: file.clone() }).map_err(|e| format!("{name}: {e}"))?;
        let Outcome::Length(length) = length else { panic!("a length completed with {length:?}") };
        if length > ENVELOPE_SIZE_BYTES_MAX as u64 {
            return Err(format!("{name} is too long"));
        }
        match snapshot::decode(&read_file(io, file, 0, length as u32)?) {
            Ok(image) => return Ok(Some(image)),
            Err(error) => tracing::warn!(name, %error, "a snapshot of the metadata cannot be read"),
        }
    }
    Ok(None)
}

/// Writes a snapshot under its version's name, durably, and removes older ones.
fn write_snapshot<I: Io>(io: &mut I, layout: &Layout, image: &Image) -> Result<(), String> {
    let bytes = snapshot::encode(image);
    let name = format!("{:020}{SNAPSHOT_SUFFIX}", image.version().0);
    let path = layout.meta_dir().join(&name);
    let temporary = layout.meta_dir().join(format!("{name}.new"));
    let slice = copied(io, &bytes).ok_or("no memory to write it")?;
    let options = OpenOptions { write: true, create: true, ..OpenOptions::default() };
    let run = |io: &mut I, op: Op| io.run(op).map_err(|e| e.to_string());
    let Outcome::Opened(file) = run(io, Op::Open { path: temporary.clone(), options })? else {
        panic!("an open gives a file")
    };
    run(io, Op::Truncate { file: file.clone(), length_bytes: 0 })?;
    run(io, Op::Write { file: file.clone(), offset: 0, slice, sync: true })?;
    run(io, Op::Sync { file })?;
    run(io, Op::Rename { from: temporary, to: path })?;
    run(io, Op::SyncDir { path: layout.meta_dir() })?;
    if let Ok(Outcome::Listed(entries)) = io.run(Op::List { path: layout.meta_dir() }) {
        let old = entries.into_iter().map(|entry| entry.name).filter(|n| n.ends_with(SNAPSHOT_SUFFIX) && *n < name);
        for name in old {
            if let Err(error) = io.run(Op::Remove { path: layout.meta_dir().join(&name) }) {
                tracing::warn!(name, %error, "an old snapshot was not removed");
            }
        }
    }
    Ok(())
}

fn copied(io: &impl Io, bytes: &[u8]) -> Option<Slice> {
    let buffer = io.pool().take_append(bytes.len())?;
    buffer.append(bytes);
    Some(buffer.slice(0..bytes.len()))
}
