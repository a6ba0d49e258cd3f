//! At start: what the journals hold reaches the segments, before partitions recover.
//!
//! 1. Every journal's groups are read, whichever shard wrote them. Of each journal those that its last group calls for
//!    must all be there; a hole is damage that nobody may start over.
//! 2. Each shard writes the entries of its own partitions into their active segments, synced. What belongs to another
//!    segment than the active one was settled before that was made, and is passed over; so is what belongs to topics
//!    that are gone. Groups that were settled long ago are written again as well: they change nothing.
//! 3. When every shard has done so the journals are [removed](remove), before anything is appended. A journal is a
//!    directory: it is first renamed, which it is as a whole or not at all, and a part of one is never taken for one.
//!
//! Blocking, at start, where nothing else is under way. Cost: reading the journals twice, and writing what is in them.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::base::coverage;
use crate::base::mutant;
use crate::base::units::align_down;
use crate::io::{File, Io, Op, OpenOptions, Outcome};
use crate::model::id::{Offset, TopicIdPartition};
use crate::model::limits::BLOCK_SIZE_BYTES;

use super::super::layout::{FileName, Layout};
use super::super::scanner::Scanner;
use super::super::tail_cache::block_end;
use super::group::{self, GROUP_SIZE_BYTES_MAX, GroupHeader, HEADER_SIZE};

/// How the names of journals end.
pub(super) const SUFFIX: &str = ".journal";
/// How the names of directories end that are being removed.
const REMOVED: &str = ".removed";
const BLOCK: u64 = BLOCK_SIZE_BYTES as u64;

/// The journals cannot be read, or not all of what they held is there.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The system refused an operation.
    #[error("the journal {}: {error}", path.display())]
    Io {
        /// Which file, or the directory of all.
        path: PathBuf,
        /// The system's words.
        error: io::Error,
    },
    /// Groups that were acknowledged are missing before others that are there.
    #[error(
        "the journals in {} are damaged: of groups {first} to {last}, number {missing} is missing; it held records that \
         were acknowledged. Restore the directory, or move it away to start without them",
        dir.display()
    )]
    Damaged {
        /// Where the journals are.
        dir: PathBuf,
        /// The first group that is needed.
        first: u64,
        /// The last one that is there.
        last: u64,
        /// One that is not.
        missing: u64,
    },
}

/// What a replay did.
#[derive(Debug, Default)]
pub struct Replayed {
    /// Bytes of batches that were written into segments.
    pub written_bytes: u64,
    /// Partitions that they could not be written to, and why: they must not be opened, and the journals stay.
    pub failed: BTreeMap<TopicIdPartition, String>,
}

/// Writes what the journals hold of the partitions whose directory `dir_of` tells into their segments.
pub fn replay(
    io: &mut impl Io,
    layout: &Layout,
    dir_of: impl Fn(TopicIdPartition) -> Option<PathBuf>,
) -> Result<Replayed, JournalError> {
    let mut replayed = Replayed::default();
    let paths = files(io, layout)?;
    if paths.is_empty() || mutant::is_on("forget_journal") {
        return Ok(replayed);
    }
    let mut groups: BTreeMap<Uuid, Found> = BTreeMap::new();
    for path in &paths {
        each_group(io, path, |header, _| groups.entry(header.journal).or_default().add(header))?;
    }
    groups.values().try_for_each(|found| found.check(&layout.journal_dir()))?;
    for path in &paths {
        let mut runs: BTreeMap<(TopicIdPartition, Offset), Runs> = BTreeMap::new();
        each_group(io, path, |_, bytes| {
            for (place, batches) in group::entries(bytes).expect("it was just checked") {
                let id = TopicIdPartition { topic: place.topic, partition: place.partition };
                if dir_of(id).is_some() {
                    runs.entry((id, place.segment)).or_default().add(place.position, batches);
                }
            }
        })?;
        for ((id, segment), runs) in runs {
            let dir = dir_of(id).expect("only such were gathered");
            match runs.write(io, &dir, segment) {
                Ok(bytes) => replayed.written_bytes += bytes,
                Err(error) => {
                    coverage::hit("journal: a partition's records cannot be replayed");
                    replayed.failed.insert(id, format!("writing what the journal holds of it: {error}"));
                }
            }
        }
    }
    Ok(replayed)
}

/// Removes all journals, durably. Everything in them is in the segments, or nobody's. `run` runs one operation.
pub fn remove_all(layout: &Layout, run: &mut impl FnMut(Op) -> io::Result<Outcome>) -> Result<(), JournalError> {
    let dirs = list(&layout.journal_dir(), run)?;
    remove(layout, &dirs, run)
}

/// Removes these directories of journals, durably. Those that cannot be removed as soon as they do not count any more
/// are left to the next start.
pub fn remove(
    layout: &Layout,
    dirs: &[PathBuf],
    run: &mut impl FnMut(Op) -> io::Result<Outcome>,
) -> Result<(), JournalError> {
    if dirs.is_empty() {
        return Ok(());
    }
    let of = |path: &Path| {
        let path = path.to_owned();
        move |error| JournalError::Io { path, error }
    };
    let mut removed = Vec::new();
    for dir in dirs {
        let mut to = dir.clone();
        if is_journal(dir) {
            let mut name = dir.file_name().expect("it has a name").to_owned();
            name.push(REMOVED);
            to.set_file_name(name);
            run(Op::Rename { from: dir.clone(), to: to.clone() }).map_err(of(dir))?;
        }
        removed.push(to);
    }
    let parent = layout.journal_dir();
    run(Op::SyncDir { path: parent.clone() }).map_err(of(&parent))?;
    coverage::hit("journal: journals are removed");
    for dir in removed {
        for path in list(&dir, run)? {
            run(Op::Remove { path: path.clone() }).map_err(of(&path))?;
        }
        run(Op::RemoveDir { path: dir.clone() }).map_err(of(&dir))?;
    }
    Ok(())
}

fn is_journal(dir: &Path) -> bool {
    !dir.to_string_lossy().ends_with(REMOVED)
}

/// The journals' files, in order of their names.
fn files(io: &mut impl Io, layout: &Layout) -> Result<Vec<PathBuf>, JournalError> {
    let mut run = |op| io.run(op);
    let mut files = Vec::new();
    for dir in list(&layout.journal_dir(), &mut run)?.into_iter().filter(|dir| is_journal(dir)) {
        files.extend(list(&dir, &mut run)?);
    }
    files.retain(|path| path.to_string_lossy().ends_with(SUFFIX));
    Ok(files)
}

/// What is in a directory, in order of the names; nothing in one that is not there.
fn list(dir: &Path, run: &mut impl FnMut(Op) -> io::Result<Outcome>) -> Result<Vec<PathBuf>, JournalError> {
    let mut paths: Vec<PathBuf> = match run(Op::List { path: dir.to_owned() }) {
        Ok(Outcome::Listed(entries)) => entries.into_iter().map(|entry| dir.join(entry.name)).collect(),
        Ok(other) => panic!("a listing completed with {other:?}"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(JournalError::Io { path: dir.to_owned(), error }),
    };
    paths.sort_unstable();
    Ok(paths)
}

/// The groups of one journal that were found.
#[derive(Default)]
struct Found {
    sequences: Vec<u64>,
    last: Option<GroupHeader>,
}

impl Found {
    fn add(&mut self, header: GroupHeader) {
        self.sequences.push(header.sequence);
        if self.last.is_none_or(|last| last.sequence < header.sequence) {
            self.last = Some(header);
        }
    }

    /// All groups that the last one calls for must be there: one write was under way at a time.
    fn check(&self, dir: &Path) -> Result<(), JournalError> {
        let Some(last) = self.last else { return Ok(()) };
        let first = if last.lap_before == 0 { last.lap } else { last.lap_before };
        let mut sequences = self.sequences.clone();
        sequences.sort_unstable();
        match (first..=last.sequence).find(|sequence| sequences.binary_search(sequence).is_err()) {
            None => Ok(()),
            Some(missing) => Err(JournalError::Damaged { dir: dir.to_owned(), first, last: last.sequence, missing }),
        }
    }
}

/// Calls `found` for every whole group of a file.
fn each_group(io: &mut impl Io, path: &Path, mut found: impl FnMut(GroupHeader, &[u8])) -> Result<(), JournalError> {
    let mut read = || -> io::Result<()> {
        let file = open(io, path, false)?;
        let mut scanner = Scanner::new(io, file)?;
        let (mut position, length) = (0, scanner.length_bytes);
        while position + HEADER_SIZE as u64 <= length {
            let end = (position + GROUP_SIZE_BYTES_MAX as u64).min(length);
            let header = GroupHeader::parse(scanner.bytes(position, position + HEADER_SIZE as u64)?);
            let header = header.filter(|header| position + u64::from(header.size_bytes) <= end);
            position += match header {
                None => BLOCK,
                Some(header) => {
                    let bytes = scanner.bytes(position, position + u64::from(header.size_bytes))?;
                    match group::entries(bytes) {
                        None => BLOCK,
                        Some(_) => {
                            found(header, bytes);
                            block_end(bytes.len() as u64)
                        }
                    }
                }
            };
        }
        Ok(())
    };
    read().map_err(|error| JournalError::Io { path: path.to_owned(), error })
}

/// What belongs into one segment: runs of bytes that follow each other.
#[derive(Default)]
struct Runs(BTreeMap<u64, Vec<u8>>);

impl Runs {
    /// Adds bytes at a position. What overlaps is the same.
    fn add(&mut self, position: u64, bytes: &[u8]) {
        if let Some((start, run)) = self.0.range_mut(..=position).next_back() {
            let end = start + run.len() as u64;
            if position <= end {
                run.extend_from_slice(bytes.get((end - position) as usize..).unwrap_or(&[]));
                return;
            }
        }
        match self.0.get_mut(&position) {
            Some(run) if run.len() >= bytes.len() => {}
            _ => drop(self.0.insert(position, bytes.to_vec())),
        }
    }

    /// Writes the runs, synced, if `segment` is the partition's last one. Returns how many bytes were written.
    fn write(self, io: &mut impl Io, dir: &Path, segment: Offset) -> io::Result<u64> {
        let Outcome::Listed(entries) = io.run(Op::List { path: dir.to_owned() })? else {
            unreachable!("List completes with a list")
        };
        let segments = entries.iter().filter_map(|entry| match FileName::parse(&entry.name) {
            Some(FileName::Segment(base)) => Some(base),
            _ => None,
        });
        let is_there = segments.clone().any(|base| base == segment);
        if segments.max() != Some(segment) && !(is_there && mutant::is_on("replay_into_sealed")) {
            coverage::hit("journal: passes over a sealed segment");
            return Ok(0);
        }
        coverage::hit("journal: replays");
        let file = open(io, &FileName::Segment(segment).path(dir), true)?;
        let length_bytes = Scanner::new(io, file.clone())?.length_bytes;
        let mut written = 0;
        for (position, bytes) in self.0 {
            // Its space was durable before anything was appended.
            if position + bytes.len() as u64 > block_end(length_bytes) {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "it belongs behind the end of the segment's file",
                ));
            }
            for (at, piece) in bytes.chunks(GROUP_SIZE_BYTES_MAX).enumerate() {
                write_at(io, &file, position + (at * GROUP_SIZE_BYTES_MAX) as u64, piece)?;
            }
            written += bytes.len() as u64;
        }
        io.run(Op::Sync { file })?;
        Ok(written)
    }
}

/// Writes bytes anywhere in a file that takes whole blocks: what else is in the first and the last one stays.
fn write_at(io: &mut impl Io, file: &File, position: u64, bytes: &[u8]) -> io::Result<()> {
    let (start, end) = (align_down(position, BLOCK), block_end(position + bytes.len() as u64));
    let mut blocks = vec![0; (end - start) as usize];
    let mut scanner = Scanner::new(io, file.clone())?.read_blocks();
    let length = scanner.length_bytes;
    for block in [start, end - BLOCK] {
        let there = length.saturating_sub(block).min(BLOCK);
        let to = (block - start) as usize;
        if there > 0 {
            blocks[to..to + there as usize].copy_from_slice(scanner.bytes(block, block + there)?);
        }
    }
    let from = (position - start) as usize;
    blocks[from..from + bytes.len()].copy_from_slice(bytes);
    let buffer = io.pool().take_append(blocks.len()).ok_or(io::ErrorKind::OutOfMemory)?;
    buffer.append(&blocks);
    let slice = buffer.slice(0..blocks.len());
    io.run(Op::Write { file: file.clone(), offset: start, slice, sync: false }).map(drop)
}

fn open(io: &mut impl Io, path: &Path, write: bool) -> io::Result<File> {
    let options = OpenOptions { write, direct: true, ..OpenOptions::default() };
    match io.run(Op::Open { path: path.to_owned(), options })? {
        Outcome::Opened(file) => Ok(file),
        _ => unreachable!("Open completes with a file"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_follow_or_repeat_each_other_are_one_run() {
        let mut runs = Runs::default();
        runs.add(100, b"abc");
        runs.add(103, b"de");
        runs.add(101, b"bcd");
        runs.add(104, b"efg");
        runs.add(200, b"z");
        runs.add(90, b"0123456789");
        let all: Vec<(u64, &[u8])> = runs.0.iter().map(|(at, run)| (*at, &run[..])).collect();
        assert_eq!(all, [(90, b"0123456789".as_slice()), (100, b"abcdefg"), (200, b"z")]);
    }

    #[test]
    fn a_group_that_the_last_one_calls_for_must_be_there() {
        // Groups 1 to 9; the last one's lap begins with 6, and before that 3 is still needed or not.
        let header = |sequence, lap_before| GroupHeader {
            journal: Uuid::nil(),
            sequence,
            lap: 6,
            lap_before,
            size_bytes: 100,
            entry_count: 0,
        };
        for (lap_before, missing, is_damage) in
            [(3, 2, false), (3, 3, true), (3, 5, true), (0, 5, false), (0, 6, true), (0, 8, true), (0, 9, false)]
        {
            let mut found = Found::default();
            (1..=9).filter(|at| *at != missing).for_each(|at| found.add(header(at, lap_before)));
            assert_eq!(found.check(Path::new("journal")).is_err(), is_damage, "{lap_before} {missing}");
        }
    }
}
