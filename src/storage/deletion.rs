//! Directories of deleted partitions: renamed at once, removed step by step.
//!
//! The rename makes the name free and is durable before anyone is told; what is left is removed file by file by a
//! [`Removal`], which a later start begins again where a stop interrupted it.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;

use crate::io::{Io, Op, Outcome, Token};
use crate::model::id::LeaderEpoch;

use super::event::Events;
use super::job::{Job, JobKind, Milestone, Step};
use super::layout;
use super::log::{Identity, Log, Resources, State};
use super::options::LogOptions;

impl Log {
    /// Where [`Log::delete_files`] renames the directory to.
    pub fn deleted_dir(&self) -> PathBuf {
        let identity = &self.identity;
        identity.parent.join(layout::deleted_dir_name(identity.topic_id, identity.partition))
    }

    /// A log of which there is nothing to do but [`delete_files`](Log::delete_files): what an earlier process left.
    pub fn new_deleted(token_base: u64, identity: Identity, options: LogOptions, shared: Resources) -> Log {
        let mut log = Log::new(token_base, identity, options, LeaderEpoch(0), shared);
        log.state = State::Deleted;
        log
    }

    /// Renames the directory away, durably; `Events::closed` tells when, and then [`Removal`] may begin, unless it
    /// comes with `Events::left_over`: then it may be tried again. A directory that is not there any more counts as
    /// renamed: an earlier attempt may have come so far. Appends and reads are refused from now on, but writes and
    /// reads under way complete, and the log must take their completions ([`Log::is_quiet`]). The deletion itself must
    /// be durable before.
    pub fn delete_files(&mut self, io: &mut impl Io) -> Events {
        let had_directory = self.state != State::Absent || !self.segments.is_empty();
        self.state = State::Deleted;
        self.jobs.clear();
        self.shared.files.forget_log(self.token_base);
        if had_directory {
            let steps = [
                Step::Rename { from: self.identity.dir.clone(), to: self.deleted_dir() },
                Step::SyncDir(self.identity.parent.clone()),
                Step::Reached(Milestone::DirectoryRenamed),
            ];
            self.jobs.push_back(Job::new(JobKind::Delete, None, steps));
            self.go_on(io);
        } else {
            self.events.closed = true;
        }
        self.take_events()
    }

    /// True if no operation of the log is under way: it may be dropped and its token used again.
    pub fn is_quiet(&self) -> bool {
        self.in_flight.is_none() && self.syncing.is_none() && !self.space.is_busy() && !self.step_running
    }
}

/// The removal of one renamed directory, one operation at a time.
pub struct Removal {
    token: Token,
    dir: PathBuf,
    /// `None` until the directory is listed.
    left: Option<VecDeque<String>>,
    stage: Stage,
}

/// Which operation of a removal is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Files,
    Directory,
    Parent,
}

impl Removal {
    /// Begins to remove `dir`. Operations carry `token`.
    pub fn start(io: &mut impl Io, token: Token, dir: PathBuf) -> Removal {
        io.submit(token, Op::List { path: dir.clone() });
        Removal { token, dir, left: None, stage: Stage::Files }
    }

    /// Takes a completion. `Ok(true)`: the directory is gone, durably, so that whoever remembers the deletion may
    /// forget it. What is missing already counts as removed; any other error ends the removal, and it is to be begun
    /// again.
    pub fn resume(&mut self, io: &mut impl Io, result: io::Result<Outcome>) -> io::Result<bool> {
        match result {
            Ok(Outcome::Listed(entries)) => self.left = Some(entries.into_iter().map(|entry| entry.name).collect()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let next = self.left.as_mut().and_then(VecDeque::pop_front);
        let op = match (self.stage, next) {
            (Stage::Parent, _) => return Ok(true),
            (Stage::Files, Some(name)) => Op::Remove { path: self.dir.join(name) },
            (Stage::Files, None) => {
                self.stage = Stage::Directory;
                Op::RemoveDir { path: self.dir.clone() }
            }
            (Stage::Directory, _) => {
                self.stage = Stage::Parent;
                let parent = self.dir.parent().expect("it lies in the topics' directory");
                Op::SyncDir { path: parent.to_owned() }
            }
        };
        io.submit(self.token, op);
        Ok(false)
    }
}
