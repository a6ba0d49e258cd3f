//! A partition's directory, at start: what is there, whose it is, and what an interrupted change left over.

use std::io;
use std::path::Path;

use crate::base::coverage;
use crate::io::{File, Io, Op, OpenOptions, Outcome, Slice};
use crate::model::id::Offset;
use crate::model::limits::BLOCK_SIZE_BYTES;

use super::super::job::{Job, JobKind, Step};
use super::super::layout::{self, FileName};
use super::super::log::Log;
use super::super::prepare::Spare;
use super::{Known, Recovery, RecoveryError, missing};

const BLOCK: u64 = BLOCK_SIZE_BYTES as u64;

/// A partition's files by what they are.
#[derive(Default)]
pub(super) struct Files {
    pub segments: Vec<Offset>,
    pub sidecars: Vec<Offset>,
    pub spares: Vec<Offset>,
    /// Compacted segments and the ends of what they replace.
    pub swaps: Vec<(Offset, Offset)>,
    pub checkpoint: bool,
    pub metadata: bool,
    pub foreign: Vec<String>,
}

impl<I: Io> Recovery<'_, I> {
    /// Finishes interrupted swaps: the new segment is whole, what it replaces goes.
    pub(super) fn finish_swaps(&mut self) -> Result<(), RecoveryError> {
        let dir = self.log.identity.dir.clone();
        for (base, next) in std::mem::take(&mut self.files.swaps) {
            coverage::hit("recovery: finishes a swap");
            // After a kill its name may not be durable yet, and files are removed by what it says.
            self.io.run(Op::SyncDir { path: dir.clone() })?;
            let replaced = |offset: &Offset| *offset >= base && *offset < next;
            let sidecars: Vec<Offset> = self.files.sidecars.iter().copied().filter(replaced).collect();
            for sidecar in sidecars {
                self.remove(&FileName::Sidecar(sidecar).to_string())?;
            }
            let segments: Vec<Offset> = self.files.segments.iter().copied().filter(replaced).collect();
            for segment in segments.into_iter().filter(|segment| *segment != base) {
                self.remove(&FileName::Segment(segment).to_string())?;
            }
            self.files.sidecars.retain(|offset| !replaced(offset));
            self.files.segments.retain(|offset| !replaced(offset));
            let (from, to) = (FileName::Swap(base, next).path(&dir), FileName::Segment(base).path(&dir));
            let sync = Step::SyncDir(dir.clone());
            run_steps(self.io, None, [Step::SyncDir(dir.clone()), Step::Rename { from, to }, sync])?;
            self.files.segments.push(base);
            self.files.segments.sort_unstable();
        }
        Ok(())
    }

    /// Finishes what an interrupted free left: segments wholly below the log start.
    pub(super) fn remove_freed(&mut self, log_start: Offset) -> Result<(), RecoveryError> {
        while let [first, second, ..] = self.files.segments[..]
            && second <= log_start
        {
            coverage::hit("recovery: removes a freed segment");
            self.remove(&FileName::Segment(first).to_string())?;
            self.files.segments.remove(0);
        }
        let kept = self.files.segments.clone();
        for sidecar in std::mem::take(&mut self.files.sidecars) {
            match kept.contains(&sidecar) {
                true => self.files.sidecars.push(sidecar),
                false => self.remove(&FileName::Sidecar(sidecar).to_string())?,
            }
        }
        Ok(())
    }

    /// Removes what nobody owns. After a clean stop one spare is kept to be overwritten.
    pub(super) fn remove_left_over(&mut self, is_clean: bool) -> Result<(), RecoveryError> {
        let mut spares = std::mem::take(&mut self.files.spares);
        if is_clean
            && self.log.options.reuse
            && let Some(spare) = spares.pop()
        {
            let name = FileName::Spare(spare).to_string();
            let file = open(self.io, &self.log.identity.dir.join(&name), false)?;
            let Outcome::Length(size_bytes) = self.io.run(Op::Length { file })? else {
                unreachable!("Length completes with a length")
            };
            coverage::hit("recovery: keeps a spare");
            self.log.spare = Some(Spare { name, size_bytes });
        }
        let names = spares.into_iter().map(|spare| FileName::Spare(spare).to_string());
        for name in names.chain(std::mem::take(&mut self.files.foreign)).collect::<Vec<_>>() {
            self.remove(&name)?;
        }
        // After a kill, renamings that were found may not be durable either.
        if self.stats.removed_file_count > 0 || !is_clean {
            self.io.run(Op::SyncDir { path: self.log.identity.dir.clone() })?;
        }
        Ok(())
    }

    fn remove(&mut self, name: &str) -> Result<(), RecoveryError> {
        let path = self.log.identity.dir.join(name);
        match self.io.run(Op::Remove { path: path.clone() }) {
            Ok(_) => {}
            // Sealing anew may have replaced it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(RecoveryError::Io { what: format!("removing {}", path.display()), error }),
        }
        coverage::hit("recovery: removes a file");
        self.stats.removed_file_count += 1;
        Ok(())
    }
}

/// The directory's files, or `None` if it is not there.
pub(super) fn list(io: &mut impl Io, dir: &Path) -> Result<Option<Files>, RecoveryError> {
    let entries = match io.run(Op::List { path: dir.to_owned() }) {
        Ok(Outcome::Listed(entries)) => entries,
        Ok(_) => unreachable!("List completes with a list"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(RecoveryError::Io { what: format!("listing {}", dir.display()), error }),
    };
    let mut files = Files::default();
    for entry in entries {
        match FileName::parse(&entry.name) {
            Some(FileName::Segment(base)) => files.segments.push(base),
            Some(FileName::Sidecar(base)) => files.sidecars.push(base),
            Some(FileName::Spare(base)) => files.spares.push(base),
            Some(FileName::Swap(base, next)) => files.swaps.push((base, next)),
            Some(FileName::Checkpoint) => files.checkpoint = true,
            Some(FileName::PartitionMetadata) => files.metadata = true,
            // Only what is ours to replace; Kafka's own index files and the like stay.
            None if entry.name.ends_with(".new") => files.foreign.push(entry.name),
            None => {}
        }
    }
    files.segments.sort_unstable();
    files.spares.sort_unstable();
    files.swaps.sort_unstable();
    files.foreign.sort_unstable();
    Ok(Some(files))
}

/// The directory must belong to the expected topic.
pub(super) fn check_identity(io: &mut impl Io, log: &Log, known: &Known, files: &Files) -> Result<(), RecoveryError> {
    let id = match files.metadata {
        true => {
            let path = FileName::PartitionMetadata.path(&log.identity.dir);
            let bytes = read_file(io, &path, BLOCK)?;
            layout::parse_partition_metadata(bytes.as_bytes()).map_err(|error| error.to_string())
        }
        false => Err("partition.metadata is missing".to_owned()),
    };
    match id {
        Ok(id) if id == log.identity.topic_id => Ok(()),
        Ok(id) => Err(missing(format!("its directory belongs to topic id {id}"))),
        Err(_) if !known.had_data => Ok(()),
        Err(error) => Err(missing(error)),
    }
}

pub(super) fn open(io: &mut impl Io, path: &Path, direct: bool) -> Result<File, RecoveryError> {
    let options = OpenOptions { write: direct, direct, ..OpenOptions::default() };
    match io.run(Op::Open { path: path.to_owned(), options }) {
        Ok(Outcome::Opened(file)) => Ok(file),
        Ok(_) => unreachable!("Open completes with a file"),
        Err(error) => Err(RecoveryError::Io { what: format!("opening {}", path.display()), error }),
    }
}

/// A small file's bytes, aligned as archives need it.
pub(super) fn read_file(io: &mut impl Io, path: &Path, size_bytes_max: u64) -> Result<Slice, RecoveryError> {
    let file = open(io, path, false)?;
    let Outcome::Length(length) = io.run(Op::Length { file: file.clone() })? else {
        unreachable!("Length completes with a length")
    };
    if length > size_bytes_max {
        return Err(missing(format!("{} is too long", path.display())));
    }
    let buffer = io.pool().take(length as usize).ok_or(io::ErrorKind::OutOfMemory)?;
    match io.run(Op::Read { file, offset: 0, buffer, length_bytes: length as u32 })? {
        Outcome::Read { buffer, bytes } => Ok(buffer.freeze(bytes)),
        _ => unreachable!("Read completes with its buffer"),
    }
}

/// Runs steps one after the other.
pub(super) fn run_steps(io: &mut impl Io, file: Option<File>, steps: impl IntoIterator<Item = Step>) -> io::Result<()> {
    let mut job = Job::new(JobKind::Roll, file, steps);
    while let Some(step) = job.steps.pop_front() {
        let forgiving = matches!(step, Step::Remove(_));
        match io.run(job.op(step)) {
            Ok(Outcome::Opened(file)) => job.file = Some(file),
            Ok(_) => {}
            Err(error) if forgiving && error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
