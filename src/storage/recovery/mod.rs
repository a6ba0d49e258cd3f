//! From files to a log, at start: what is there, what of it counts, and a defined state behind the end.
//!
//! 1. The directory is listed. A compacted segment that was taking the place of older ones takes it. Files below the
//!    durable log start are removed (an interrupted free).
//! 2. The checkpoint, or the clean stop's state, says what was durable then; sidecars of later segments move that
//!    point on. From there batches are scanned: next expected offset, valid CRC, epoch not going back.
//! 3. A spare whose first batch has the expected offset is the next segment (an interrupted roll): it gets its name.
//! 4. Corruption is not the end of a log: bad bytes below the checkpoint or in a sealed segment, or a valid batch of
//!    the current epoch beyond one greatest commit behind the end, and nothing is touched: the partition is offline.
//! 5. What was found above the checkpoint is written again, synced: a write or a sync of it may have failed in the
//!    process that is gone (see `rewriter`). So is a checkpoint that was found.
//! 6. What one commit could have reached behind the end is zeroed and synced, so that no remnant of it can ever join
//!    a later batch. (Topics that do not sync each write may have left more: all of the file is zeroed.)
//! 7. The unfinished last block goes back to staging.
//!
//! | file | its one job |
//! |---|---|
//! | `directory` | the directory: what is there, whose it is, what an interrupted change left over (1) |
//! | `checkpoint` | the checkpoint, read and written again (2, 5) |
//! | `segments` | segments by checkpoint, sidecars and their batches; interrupted rolls (2 to 5) |
//! | `end` | what is behind the end, and the unfinished block (4, 6, 7) |
//! | `transactions` | where open transactions began |
//!
//! Blocking, at start, where nothing else is under way. Cost: reading and writing what was written since the last
//! checkpoint. The owner raises the leader epoch durably before it serves.

mod checkpoint;
mod directory;
mod end;
mod segments;
mod transactions;

use std::io;

use crate::base::coverage;
use crate::base::mutant;
use crate::base::time::{Now, Timestamp};
use crate::io::Io;
use crate::model::id::{LeaderEpoch, Offset};

use super::checkpoint::PartitionState;
use super::event::{Boundary, Offline};
use super::log::{Identity, Log, Resources, State};
use super::options::LogOptions;
use directory::{Files, check_identity, list};

/// Why a partition could not be opened. Nothing of its batches was changed.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// Its files are not what they must be: it stays offline (see [`Log::new_offline`]).
    #[error("{0}")]
    Offline(Offline),
    /// The system refused an operation.
    #[error("{what}: {error}")]
    Io {
        /// The operation.
        what: String,
        /// The system's answer.
        error: io::Error,
    },
}

impl From<io::ErrorKind> for RecoveryError {
    fn from(error: io::ErrorKind) -> Self {
        io::Error::from(error).into()
    }
}

impl From<io::Error> for RecoveryError {
    fn from(error: io::Error) -> Self {
        RecoveryError::Io { what: "recovery".to_owned(), error }
    }
}

impl RecoveryError {
    /// As the cause of an offline log.
    pub fn into_offline(self) -> Offline {
        match self {
            RecoveryError::Offline(cause) => cause,
            RecoveryError::Io { what, error } => {
                Offline::Failed { what: "recovery", error: format!("{what}: {error}") }
            }
        }
    }
}

/// What a recovery did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecoveryStats {
    /// Bytes of batches that were read and checked.
    pub scanned_bytes: u64,
    /// Bytes of batches that were written again.
    pub rewritten_bytes: u64,
    /// Bytes behind the end that were zeroed.
    pub zeroed_bytes: u64,
    /// An interrupted roll was finished.
    pub finished_roll: bool,
    /// Files that were left over and removed.
    pub removed_file_count: usize,
}

/// What the owner knows of a partition from its own durable records.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// It was recorded that the partition has data (after `Events::materialized`).
    pub had_data: bool,
    /// What a clean stop kept, if the stop was clean.
    pub clean: Option<PartitionState>,
}

/// Opens a partition. `leader_epoch` is the new one, which later batches carry.
#[allow(clippy::too_many_arguments)]
pub fn recover<I: Io>(
    io: &mut I,
    token_base: u64,
    identity: Identity,
    options: LogOptions,
    leader_epoch: LeaderEpoch,
    known: Known,
    shared: Resources,
    now: Now,
) -> Result<(Log, RecoveryStats), RecoveryError> {
    let log = Log::new(token_base, identity, options, leader_epoch, shared);
    let files = match list(io, &log.identity.dir)? {
        Some(files) => files,
        None if known.had_data => return Err(missing("its directory is gone")),
        None => return Ok((log, RecoveryStats::default())),
    };
    check_identity(io, &log, &known, &files)?;
    if !known.had_data {
        // Nothing in it was ever acknowledged; the first append makes it anew.
        coverage::hit("recovery: of a directory without data");
        return Ok((log, RecoveryStats::default()));
    }
    Recovery { io, log, files, stats: RecoveryStats::default(), epoch: LeaderEpoch(-1), now }.run(known.clean)
}

impl Log {
    /// A log that answers everything with `cause`: what could not be recovered.
    pub fn new_offline(
        token_base: u64,
        identity: Identity,
        options: LogOptions,
        leader_epoch: LeaderEpoch,
        shared: Resources,
        cause: Offline,
    ) -> Log {
        let mut log = Log::new(token_base, identity, options, leader_epoch, shared);
        log.state = State::Serving;
        log.go_offline(cause);
        log
    }
}
struct Recovery<'a, I: Io> {
    io: &'a mut I,
    log: Log,
    files: Files,
    stats: RecoveryStats,
    /// Epoch of the last batch.
    epoch: LeaderEpoch,
    now: Now,
}

impl<I: Io> Recovery<'_, I> {
    fn run(mut self, clean: Option<PartitionState>) -> Result<(Log, RecoveryStats), RecoveryError> {
        let is_clean = clean.is_some();
        self.finish_swaps()?;
        let state = match clean {
            Some(state) => {
                // The next checkpoint must still be newer than the one in the file.
                self.checkpoint(is_clean)?;
                Some(state)
            }
            None => self.checkpoint(is_clean)?,
        };
        coverage::hit(match (is_clean, &state) {
            (true, _) => "recovery: after a clean stop",
            (false, Some(_)) => "recovery: from the checkpoint",
            (false, None) => "recovery: without a checkpoint",
        });
        let first = *self.files.segments.first().ok_or_else(|| missing("it has no segment"))?;
        let mut state = state.unwrap_or_else(|| PartitionState {
            active_base_offset: first.0,
            next_offset: first.0,
            log_start: first.0,
            max_timestamp: Timestamp::NONE.0,
            max_timestamp_offset: Offset::NONE.0,
            ..PartitionState::default()
        });
        self.log.log_start = Offset(state.log_start);
        self.log.next_log_start = self.log.log_start;
        self.log.compaction.has_gaps = state.has_gaps;
        self.log.compaction.cleaner_offset = Offset(state.cleaner_offset);
        // Only the checkpoint in the file survives the next power cut.
        self.remove_freed(self.log.checkpoints.log_start)?;
        if self.files.segments.first().is_none_or(|first| first.0 > state.log_start) {
            let bases = &self.files.segments;
            return Err(missing(format!("the segment with offset {} is gone; there are {bases:?}", state.log_start)));
        }
        self.follow_roll(&mut state);
        self.open_segments(&state)?;
        if !is_clean {
            self.accept_spare()?;
            self.check_behind_end()?;
            self.zero_behind_end()?;
        }
        self.remove_left_over(is_clean)?;
        self.load_unfinished_block()?;
        self.find_open_transactions()?;
        let log = &mut self.log;
        let active = log.segments.back().expect("it was opened");
        log.end = Boundary { segment: active.base_offset, position: active.size_bytes, offset: active.next_offset };
        (log.written, log.durable, log.settled, log.high_watermark) = (log.end, log.end, log.end, log.end);
        log.epochs.truncate_end(log.end.offset);
        if mutant::is_on("keep_leader_epoch") {
            log.leader_epoch = self.epoch.max(LeaderEpoch(0));
        }
        log.state = State::Serving;
        // So that the next start does not scan the same again.
        log.checkpoints.wanted = self.stats.scanned_bytes > 0;
        Ok((self.log, self.stats))
    }
}

fn missing(what: impl Into<String>) -> RecoveryError {
    RecoveryError::Offline(Offline::Missing(what.into()))
}

fn corrupt(segment: Offset, position: u64, what: &'static str) -> RecoveryError {
    RecoveryError::Offline(Offline::Corrupt { segment, position, what })
}
