//! A script of file operations that a log has done one at a time, beside its writes: making the directory, preparing
//! the next file, sealing, checkpoints, freeing files.
//!
//! 1. A [`Job`] is a row of [`Step`]s; `Log::run_jobs` submits the first one of the first job and goes on when it
//!    completes. [`Step::Reached`] is where the log changes its own state, synchronously.
//! 2. A failed step ends its job; the log decides by [`JobKind`] what that means.
//!
//! Invariant: at most one step of one log is under way, so the order of steps is the order on disk.
//!
//! It must not know offsets beyond passing them on.

use std::collections::VecDeque;
use std::path::PathBuf;

use crate::io::{File, Op, OpenOptions, Slice};
use crate::model::id::Offset;

use super::checkpoint::Slot;
use super::event::Boundary;
use super::prepare::Spare;

/// What a job is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JobKind {
    /// The directory and the first file.
    Materialize,
    /// The file of the next segment.
    Next,
    /// The end of a segment and the naming of the next.
    Roll,
    /// The sidecar of a sealed segment.
    Sidecar,
    /// A checkpoint.
    Checkpoint,
    /// Files below the log start.
    Free,
    /// A compacted segment in the place of those that it replaces.
    Swap,
    /// Away with the directory.
    Delete,
}

/// What has been reached within a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Milestone {
    /// The directory is durable and the first file open.
    Materialized { prepared_bytes: u64 },
    /// The next segment's file is open and its first space prepared.
    NextReady { name: String, prepared_bytes: u64, reused: bool },
    /// The segment with this base offset is truncated and durable, the next one has its name.
    Sealed(Offset),
    /// The sidecar of the segment with this base offset is durable.
    SidecarWritten(Offset),
    /// A checkpoint with this log start is durable.
    Checkpointed { boundary: Boundary, log_start: Offset, slot: Slot },
    /// A freed file may be overwritten under this name.
    SpareReady(Spare),
    /// The directory has its name of a deleted one, durably.
    DirectoryRenamed,
    /// A compacted segment's file is open, and is renamed next.
    SwapOpened,
    /// A compacted segment's file has the name that says what it replaces.
    SwapNamed,
    /// That name is durable: readers may see the new segment.
    Swapped,
    /// The old segments' files are gone and the new one has its last name, durably.
    SwapDone,
}

/// One operation of a job, or a change of the log's state.
#[derive(Debug)]
pub(super) enum Step {
    CreateDir(PathBuf),
    SyncDir(PathBuf),
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    /// Removes a file; it not being there is success.
    Remove(PathBuf),
    /// Opens a file and makes it the job's.
    Open {
        path: PathBuf,
        options: OpenOptions,
    },
    /// Writes into the job's file.
    Write {
        offset: u64,
        content: Slice,
    },
    Zeros {
        offset: u64,
        length_bytes: u64,
    },
    Allocate {
        length_bytes: u64,
    },
    Sync,
    Truncate(u64),
    DropCache,
    Reached(Milestone),
}

/// A row of steps.
pub(super) struct Job {
    pub kind: JobKind,
    pub steps: VecDeque<Step>,
    /// The file that steps work on.
    pub file: Option<File>,
    /// A step is under way.
    pub running: bool,
    /// The step under way may find nothing to remove.
    pub forgiving: bool,
}

impl Job {
    pub fn new(kind: JobKind, file: Option<File>, steps: impl IntoIterator<Item = Step>) -> Job {
        Job { kind, steps: steps.into_iter().collect(), file, running: false, forgiving: false }
    }

    /// True if a freed file will be kept.
    pub fn makes_spare(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Reached(Milestone::SpareReady(_))))
    }

    /// The operation of `step`.
    pub fn op(&self, step: Step) -> Op {
        let file = || self.file.clone().expect("a step that works on a file comes after the one that opened it");
        match step {
            Step::CreateDir(path) => Op::CreateDir { path },
            Step::SyncDir(path) => Op::SyncDir { path },
            Step::Rename { from, to } => Op::Rename { from, to },
            Step::Remove(path) => Op::Remove { path },
            Step::Open { path, options } => Op::Open { path, options },
            Step::Write { offset, content } => Op::Write { file: file(), offset, slice: content, sync: false },
            Step::Zeros { offset, length_bytes } => Op::WriteZeros { file: file(), offset, length_bytes },
            Step::Allocate { length_bytes } => Op::Allocate { file: file(), offset: 0, length_bytes },
            Step::Sync => Op::Sync { file: file() },
            Step::Truncate(length_bytes) => Op::Truncate { file: file(), length_bytes },
            Step::DropCache => Op::DropCache { file: file() },
            Step::Reached(_) => unreachable!("milestones are not operations"),
        }
    }
}

/// The steps that replace a small file: written under another name, synced, renamed, directory synced.
pub(super) fn replace_file(dir: &std::path::Path, name: &str, content: Slice) -> [Step; 5] {
    let new = dir.join(format!("{name}.new"));
    let options = OpenOptions { write: true, create: true, ..OpenOptions::default() };
    [
        // A longer file of an earlier attempt must not shine through.
        Step::Remove(new.clone()),
        Step::Open { path: new.clone(), options },
        Step::Write { offset: 0, content },
        Step::Sync,
        Step::Rename { from: new, to: dir.join(name) },
    ]
}
