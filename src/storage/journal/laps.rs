//! The journal of a shard: two files that take turns.
//!
//! 1. Groups go into one file until it is full. Then the other one is begun anew: a *lap*. What the full one holds is
//!    meanwhile settled, a few logs at a time, and only then it is free for the lap after this.
//! 2. Where no file is ready for a group there is none: the logs write themselves, which also settles them. So nothing
//!    ever waits for the journal's space.
//! 3. A file is made when it is first wanted, and its space grows in synced steps ahead of the writer, as a segment's.
//! 4. A write that fails ends the journal for this life of the broker: its logs write themselves.
//! 5. A file with entries of a log that went offline is left as it is, for the next start, and another one is made.
//! 6. A lap that is needed is named by every group of the lap after it, so that a start can tell that one of its groups
//!    is missing. Before a file is overwritten, a group that no longer names its old lap is durable: else a torn first
//!    write would look like damage to what is needed. Where no other group comes, an empty one says so.
//!
//! Hot path: allocates nothing but the buffer of the group.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use rustc_hash::FxHashMap;
use uuid::Uuid;

use crate::base::coverage;
use crate::base::mutant;
use crate::base::time::Monotonic;
use crate::base::units::{KIB, MIB};
use crate::io::{File, Io, Op, OpenOptions, Outcome, Pool, Token};
use crate::model::id::Offset;
use crate::model::limits::BLOCK_SIZE_BYTES;

use super::super::job::{Job, JobKind, Step};
use super::super::layout::Layout;
use super::super::log::is_disk_full;
use super::super::options::PrepareMode;
use super::super::tail_cache::block_end;
use super::group::{GROUP_SIZE_BYTES_MAX, Group, GroupHeader};

const BLOCK: u64 = BLOCK_SIZE_BYTES as u64;
const STEP_SIZE_BYTES_MIN: u64 = 256 * KIB as u64;
const STEP_SIZE_BYTES_MAX: u64 = 4 * MIB as u64;
/// Logs that are settled at a time: enough to keep a disk busy, few beside the commits of everybody else.
const SETTLING_COUNT_MAX: usize = 16;
/// What is in the journal for so long is settled even if there is room: a start has less to do, and logs that have
/// become quiet get their memory back.
const LAP_MAX: Duration = Duration::from_secs(10);
/// When a full disk is asked again.
const DISK_FULL_PAUSE: Duration = Duration::from_secs(10);

/// What an owner decides.
#[derive(Clone, Copy, Debug)]
pub struct JournalOptions {
    /// Bytes of each of the two files; 0: there is no journal.
    pub file_size_bytes: u64,
    /// How space is made ahead of the writer; with [`PrepareMode::None`] there is no journal.
    pub prepare: PrepareMode,
}

/// What has become of a log that must be settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// Its segments have everything, or nobody needs it any more.
    Yes,
    /// Its own write is on its way.
    UnderWay,
    /// It is offline: the journal has what its segments may lack.
    Never,
}

/// A write of the journal that has completed.
#[derive(Debug)]
pub struct Written {
    /// The logs that took part ([`Log::journal_key`](crate::storage::Log::journal_key)).
    pub logs: Vec<u64>,
    /// Otherwise they write themselves.
    pub is_durable: bool,
}

/// The journal's own operations, as they stand in the low bits of their tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OpKind {
    Write = 1,
    Prepare = 2,
    Job = 3,
}

/// One of the two files.
#[derive(Default)]
struct Half {
    file: Option<File>,
    /// The how-manieth file of the journal it is.
    number: u32,
    prepared_bytes: u64,
    /// Where the next group goes.
    position: u64,
    /// The first sequence of its lap.
    lap: u64,
    /// When its lap began to hold something.
    began: Monotonic,
    /// The logs in it, and up to where.
    logs: FxHashMap<u64, Offset>,
}

/// See the module.
pub struct Journal {
    options: JournalOptions,
    token_base: u64,
    pool: Pool,
    layout: Layout,
    /// Its directory.
    dir: PathBuf,
    id: Uuid,
    file_count: u32,
    sequence: u64,
    halves: [Half; 2],
    /// The one that is written to.
    current: usize,
    /// Its sequence is in the file or on its way.
    writing: Option<Writing>,
    /// Making a file, and which half's.
    job: Option<(usize, Job)>,
    /// A step of space: the number of the file, and up to where.
    preparing: Option<(u32, u64)>,
    step_bytes: u64,
    rests_until: Monotonic,
    has_failed: bool,
    /// Of the lap before: logs that must be settled, and those that are being.
    unsettled: VecDeque<(u64, Offset)>,
    settling: Vec<(u64, Offset)>,
    /// Something in the lap before belongs to a log that is offline.
    is_kept: bool,
    /// A file was left for the next start, and with it the directory.
    has_kept: bool,
    /// The last sequence when the other file became free: no group has said so yet while it is still the last.
    freed_at: u64,
    /// Nothing, for groups that only say so.
    nothing: Group,
    /// Vectors of the last write, to be used again.
    spare: Vec<u64>,
}

struct Writing {
    logs: Vec<u64>,
    size_bytes: u64,
}

impl Journal {
    /// A journal without files. `name` is that of its directory and no other's; `id` must be another one in each life
    /// of the broker. The low bits of `token_base` must be zero.
    pub fn new(
        token_base: Token,
        layout: Layout,
        name: String,
        id: Uuid,
        pool: Pool,
        options: JournalOptions,
    ) -> Journal {
        Journal {
            options,
            token_base: token_base.0,
            pool,
            dir: layout.journal_dir().join(name),
            layout,
            id,
            file_count: 0,
            sequence: 0,
            halves: Default::default(),
            current: 0,
            writing: None,
            job: None,
            preparing: None,
            step_bytes: STEP_SIZE_BYTES_MIN,
            rests_until: Monotonic(0),
            has_failed: false,
            unsettled: VecDeque::new(),
            settling: Vec::new(),
            is_kept: false,
            has_kept: false,
            freed_at: 0,
            nothing: Group::default(),
            spare: Vec::new(),
        }
    }

    /// True unless it is switched off or has failed.
    pub fn is_on(&self) -> bool {
        self.options.file_size_bytes > 0 && self.options.prepare != PrepareMode::None && !self.has_failed
    }

    /// True while a group is being written: the next one gathers meanwhile.
    pub fn is_writing(&self) -> bool {
        self.writing.is_some()
    }

    /// True while an operation of it is under way.
    pub fn is_busy(&self) -> bool {
        self.writing.is_some() || self.preparing.is_some() || self.job.is_some()
    }

    /// Whether a group of at most `size_bytes` can be written now. Where it cannot, what is missing is begun.
    pub fn has_room(&mut self, io: &mut impl Io, size_bytes: usize, now: Monotonic) -> bool {
        if !self.is_on() || self.writing.is_some() {
            return false;
        }
        let size = block_end(size_bytes as u64);
        let limit = block_end(self.options.file_size_bytes);
        // The last block is for the group that says that the other file is free.
        let is_full = self.halves[self.current].position + size + BLOCK > limit;
        if is_full && (size + BLOCK > limit || !self.turn(io, now)) {
            coverage::hit("journal: full, and the other file is not free");
            return false;
        }
        self.find_space(io, size, limit, now);
        self.has_space(size)
    }

    /// Writes the group, durably. False: there was no memory for it. Whoever asks has found
    /// [room](Self::has_room) for it.
    pub fn write(&mut self, io: &mut impl Io, group: &Group, now: Monotonic) -> bool {
        debug_assert!(self.writing.is_none() && group.size_bytes() <= GROUP_SIZE_BYTES_MAX);
        let sequence = self.sequence + 1;
        let (lap, lap_before) = self.lap_numbers(sequence);
        let header = GroupHeader { journal: self.id, sequence, lap, lap_before, size_bytes: 0, entry_count: 0 };
        let Some(slice) = group.encode(&self.pool, header) else { return false };
        let half = &mut self.halves[self.current];
        if half.position == 0 {
            (half.lap, half.began) = (sequence, now);
        }
        self.sequence = sequence;
        let mut logs = std::mem::take(&mut self.spare);
        for (log, end) in group.logs() {
            logs.push(log);
            half.logs.insert(log, end);
        }
        self.writing = Some(Writing { logs, size_bytes: slice.len() as u64 });
        let file = half.file.clone().expect("there is room in it");
        let (offset, sync) = (half.position, !mutant::is_on("journal_without_sync"));
        io.submit(self.token(OpKind::Write), Op::Write { file, offset, slice, sync });
        true
    }

    /// The vector of a [`Written`] whose logs have been told, to be used again.
    pub fn give_back(&mut self, mut logs: Vec<u64>) {
        logs.clear();
        self.spare = logs;
    }

    /// Takes the completion of one of its operations.
    pub fn complete(
        &mut self,
        io: &mut impl Io,
        token: Token,
        result: io::Result<Outcome>,
        now: Monotonic,
    ) -> Option<Written> {
        match token.0 - self.token_base {
            kind if kind == OpKind::Write as u64 => {
                let Writing { logs, size_bytes } = self.writing.take().expect("a write completes once");
                let is_durable = match result {
                    Ok(_) => true,
                    Err(error) => {
                        self.fail("a write", &error);
                        false
                    }
                };
                self.halves[self.current].position += size_bytes;
                return Some(Written { logs, is_durable });
            }
            kind if kind == OpKind::Prepare as u64 => {
                let (number, up_to) = self.preparing.take().expect("a step completes once");
                let half = self.halves.iter_mut().find(|half| half.number == number);
                match result {
                    // A file that is kept has left meanwhile.
                    Ok(_) => half.into_iter().for_each(|half| half.prepared_bytes = up_to),
                    Err(error) => self.rest("preparing space", &error, now),
                }
            }
            kind if kind == OpKind::Job as u64 => self.go_on_making(io, result, now),
            _ => panic!("token {:#x} is not the journal's", token.0),
        }
        None
    }

    /// Goes on settling what the lap before holds; at the end of a turn. `look` says what has become of a log and its
    /// entries below an offset, and sees to it that they are settled.
    pub fn settle(&mut self, mut look: impl FnMut(u64, Offset) -> Settled) {
        if self.settling.is_empty() && self.unsettled.is_empty() {
            return;
        }
        let mut is_kept = self.is_kept;
        let mut is_under_way = |log: u64, end: Offset| match look(log, end) {
            Settled::Yes => false,
            Settled::UnderWay => true,
            Settled::Never => {
                is_kept = true;
                false
            }
        };
        self.settling.retain(|&(log, end)| is_under_way(log, end));
        while self.settling.len() < SETTLING_COUNT_MAX
            && let Some((log, end)) = self.unsettled.pop_front()
        {
            if is_under_way(log, end) {
                self.settling.push((log, end));
            }
        }
        self.is_kept = is_kept;
        if self.settling.is_empty() && self.unsettled.is_empty() {
            coverage::hit("journal: a lap is settled");
            let other = &mut self.halves[1 - self.current];
            if std::mem::take(&mut self.is_kept) {
                coverage::hit("journal: a file is kept");
                tracing::warn!(
                    dir = %self.dir.display(),
                    "a journal is kept for the next start: it has records of partitions that are offline"
                );
                *other = Half::default();
                self.has_kept = true;
            }
            // Free: its groups are needed no more.
            other.lap = 0;
            self.freed_at = self.sequence;
        }
    }

    /// Begins the next lap if this one is old, so that what it holds is settled. For the slow tick.
    pub fn tick(&mut self, io: &mut impl Io, now: Monotonic) {
        let half = &self.halves[self.current];
        if !half.logs.is_empty() && now.since(half.began) >= LAP_MAX {
            coverage::hit("journal: an old lap ends");
            self.turn(io, now);
        }
    }

    /// Begins the next lap if it can be: memory is short.
    pub fn hurry(&mut self, io: &mut impl Io, now: Monotonic) {
        if !self.halves[self.current].logs.is_empty() {
            self.turn(io, now);
        }
    }

    /// The logs whose entries are not known to be settled, and up to where.
    pub fn open_entries(&self) -> impl Iterator<Item = (u64, Offset)> {
        let in_files = self.halves[self.current].logs.iter().map(|(&log, &end)| (log, end));
        in_files.chain(self.unsettled.iter().copied()).chain(self.settling.iter().copied())
    }

    /// Its directory, if there is one and no file in it is kept, for its [removal](super::replay::remove) when everything
    /// is settled.
    pub fn dir(&self) -> Option<&PathBuf> {
        (self.file_count > 0 && !self.has_kept).then_some(&self.dir)
    }

    /// The numbers of the lap that a group belongs to, and of the other file's while it is needed.
    fn lap_numbers(&self, sequence: u64) -> (u64, u64) {
        let half = &self.halves[self.current];
        let lap = if half.position == 0 { sequence } else { half.lap };
        (lap, self.halves[1 - self.current].lap)
    }

    fn has_space(&self, size: u64) -> bool {
        let half = &self.halves[self.current];
        half.file.is_some() && half.prepared_bytes >= half.position + size
    }

    /// The other file's turn, if it is free: it is begun anew, and what this one holds is to be settled.
    fn turn(&mut self, io: &mut impl Io, now: Monotonic) -> bool {
        let is_settled =
            (self.settling.is_empty() && self.unsettled.is_empty()) || mutant::is_on("overwrite_unsettled");
        if !is_settled || self.writing.is_some() {
            return false;
        }
        if self.sequence == self.freed_at && self.halves[1 - self.current].file.is_some() && !self.has_failed {
            coverage::hit("journal: a group says that the other file is free");
            let nothing = std::mem::take(&mut self.nothing);
            if self.has_space(BLOCK) {
                self.write(io, &nothing, now);
            }
            self.nothing = nothing;
            return false;
        }
        coverage::hit("journal: a lap ends");
        let mut logs: Vec<(u64, Offset)> = self.halves[self.current].logs.drain().collect();
        logs.sort_unstable();
        self.unsettled = logs.into();
        self.settling.clear();
        self.current = 1 - self.current;
        let half = &mut self.halves[self.current];
        (half.position, half.lap, half.began) = (0, 0, now);
        true
    }

    /// Makes the current file, and space in it ahead of the writer.
    fn find_space(&mut self, io: &mut impl Io, size: u64, limit: u64, now: Monotonic) {
        if now < self.rests_until {
            return;
        }
        let half = &self.halves[self.current];
        let Some(file) = half.file.clone() else { return self.make(io) };
        let (prepared, needed) = (half.prepared_bytes, half.position + size);
        // A block more, for the group that says that the other file is free.
        let needed = needed + BLOCK;
        if prepared < limit && prepared < needed + self.step_bytes / 2 && self.preparing.is_none() {
            let up_to = (prepared + self.step_bytes).max(block_end(needed)).min(limit);
            let (offset, length_bytes) = (prepared, up_to - prepared);
            let op = match self.options.prepare {
                PrepareMode::Zeros => Op::WriteZeros { file, offset, length_bytes },
                PrepareMode::Allocate | PrepareMode::None => Op::Allocate { file, offset, length_bytes },
            };
            io.submit(self.token(OpKind::Prepare), op);
            self.preparing = Some((self.halves[self.current].number, up_to));
            self.step_bytes = (self.step_bytes * 2).min(STEP_SIZE_BYTES_MAX);
        }
    }

    /// Makes the current file, with its first space.
    fn make(&mut self, io: &mut impl Io) {
        if self.job.is_some() {
            return;
        }
        let (journals, dir) = (self.layout.journal_dir(), self.dir.clone());
        let path = dir.join(format!("{}{}", self.file_count, super::replay::SUFFIX));
        self.file_count += 1;
        let options = OpenOptions { write: true, create: true, create_new: true, direct: true };
        let length_bytes = STEP_SIZE_BYTES_MIN.min(block_end(self.options.file_size_bytes));
        let mut steps = VecDeque::from([
            Step::CreateDir(journals.clone()),
            Step::CreateDir(dir.clone()),
            Step::Open { path, options },
        ]);
        match self.options.prepare {
            PrepareMode::Zeros => steps.push_back(Step::Zeros { offset: 0, length_bytes }),
            PrepareMode::Allocate | PrepareMode::None => {
                steps.push_back(Step::Allocate { length_bytes });
                steps.push_back(Step::Sync);
            }
        }
        let parents = [dir, journals, self.layout.data_dir().to_owned()];
        steps.extend(parents.map(Step::SyncDir));
        let half = &mut self.halves[self.current];
        *half = Half { number: self.file_count, began: half.began, ..Half::default() };
        self.job = Some((self.current, Job::new(JobKind::Next, None, steps)));
        self.go_on_making(io, Ok(Outcome::Done), Monotonic(0));
    }

    /// Takes the completion of a step of making a file (or begins), and starts the next one.
    fn go_on_making(&mut self, io: &mut impl Io, result: io::Result<Outcome>, now: Monotonic) {
        let (half, mut job) = self.job.take().expect("a step completes once");
        match result {
            Ok(Outcome::Opened(file)) => job.file = Some(file),
            Ok(_) => {}
            Err(error) => return self.rest("making a file", &error, now),
        }
        match job.steps.pop_front() {
            Some(step) => {
                io.submit(self.token(OpKind::Job), job.op(step));
                self.job = Some((half, job));
            }
            None => {
                coverage::hit("journal: a file is made");
                let half = &mut self.halves[half];
                half.file = job.file;
                half.prepared_bytes = STEP_SIZE_BYTES_MIN.min(block_end(self.options.file_size_bytes));
            }
        }
    }

    /// Without space there is no journal for a while.
    fn rest(&mut self, what: &str, error: &io::Error, now: Monotonic) {
        coverage::hit("journal: no space for it");
        if is_disk_full(error) {
            tracing::warn!(what, "the disk is full: partitions write for themselves meanwhile");
            self.rests_until = now + DISK_FULL_PAUSE;
        } else {
            self.fail(what, error);
        }
    }

    fn fail(&mut self, what: &str, error: &io::Error) {
        coverage::hit("journal: fails");
        tracing::error!(what, %error, "the journal has failed: partitions write for themselves until the next start");
        self.has_failed = true;
    }

    fn token(&self, kind: OpKind) -> Token {
        Token(self.token_base | kind as u64)
    }
}
