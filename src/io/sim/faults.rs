//! Faults that a test asks for: rules matched against each operation as it is handed over.
//!
//! ```ignore
//! // The fourth write to a segment fails.
//! world.inject(Rule::new(OpKind::Write, Fault::Error(libc::EIO)).path(".log").skip(3).times(1));
//! // One read in a hundred is corrupt.
//! world.inject(Rule::new(OpKind::Read, Fault::CorruptRead).chance(1, 100));
//! ```
//!
//! It must not know how a fault is carried out.

use std::time::Duration;

use crate::base::coverage;
use crate::base::rng::Rng;
use crate::io::Op;

/// The kinds of operation, as in [`Op`].
#[allow(missing_docs)] // named as the operations are
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OpKind {
    Accept,
    Connect,
    Recv,
    Send,
    SendFile,
    Open,
    Read,
    Write,
    WriteZeros,
    Allocate,
    Sync,
    Truncate,
    Length,
    DropCache,
    Rename,
    Remove,
    RemoveDir,
    CreateDir,
    SyncDir,
    List,
}

impl OpKind {
    /// The kind of `op`.
    pub fn of(op: &Op) -> OpKind {
        match op {
            Op::Accept { .. } => OpKind::Accept,
            Op::Connect { .. } => OpKind::Connect,
            Op::Recv { .. } => OpKind::Recv,
            Op::Send { .. } => OpKind::Send,
            Op::SendFile { .. } => OpKind::SendFile,
            Op::Open { .. } => OpKind::Open,
            Op::Read { .. } => OpKind::Read,
            Op::Write { .. } => OpKind::Write,
            Op::WriteZeros { .. } => OpKind::WriteZeros,
            Op::Allocate { .. } => OpKind::Allocate,
            Op::Sync { .. } => OpKind::Sync,
            Op::Truncate { .. } => OpKind::Truncate,
            Op::Length { .. } => OpKind::Length,
            Op::DropCache { .. } => OpKind::DropCache,
            Op::Rename { .. } => OpKind::Rename,
            Op::Remove { .. } => OpKind::Remove,
            Op::RemoveDir { .. } => OpKind::RemoveDir,
            Op::CreateDir { .. } => OpKind::CreateDir,
            Op::SyncDir { .. } => OpKind::SyncDir,
            Op::List { .. } => OpKind::List,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            OpKind::Accept => "Accept",
            OpKind::Connect => "Connect",
            OpKind::Recv => "Recv",
            OpKind::Send => "Send",
            OpKind::SendFile => "SendFile",
            OpKind::Open => "Open",
            OpKind::Read => "Read",
            OpKind::Write => "Write",
            OpKind::WriteZeros => "WriteZeros",
            OpKind::Allocate => "Allocate",
            OpKind::Sync => "Sync",
            OpKind::Truncate => "Truncate",
            OpKind::Length => "Length",
            OpKind::DropCache => "DropCache",
            OpKind::Rename => "Rename",
            OpKind::Remove => "Remove",
            OpKind::RemoveDir => "RemoveDir",
            OpKind::CreateDir => "CreateDir",
            OpKind::SyncDir => "SyncDir",
            OpKind::List => "List",
        }
    }
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The operation fails with this errno. A failed write may have been carried out in part. A failed sync, also that
    /// of a synced write, leaves its writes unsynced for good: a later sync succeeds and does not cover them, as on Linux. `ECONNRESET`,
    /// `EPIPE` and `ETIMEDOUT` of a receive or send reset the connection.
    Error(i32),
    /// One byte of what is read is not what is stored.
    CorruptRead,
    /// What is read comes from another block of the file.
    MisdirectedRead,
    /// It takes so much longer.
    Delay(Duration),
}

/// When a fault happens.
#[derive(Clone, Debug)]
pub struct Rule {
    kind: OpKind,
    fault: Fault,
    path: String,
    skip_count: u64,
    times: u64,
    chance: (u64, u64),
}

impl Rule {
    /// `fault` on every operation of `kind`, for ever; see the other methods for less.
    pub fn new(kind: OpKind, fault: Fault) -> Rule {
        Rule { kind, fault, path: String::new(), skip_count: 0, times: u64::MAX, chance: (1, 1) }
    }

    /// Only where the path contains `part`: the path that the file was last opened, created or renamed under (for
    /// `Rename` the old one; for `Connect` the address).
    pub fn path(mut self, part: impl Into<String>) -> Rule {
        self.path = part.into();
        self
    }

    /// Not on the first `count` operations that match.
    pub fn skip(mut self, count: u64) -> Rule {
        self.skip_count = count;
        self
    }

    /// At most so often.
    pub fn times(mut self, times: u64) -> Rule {
        self.times = times;
        self
    }

    /// Only `numerator` times out of `denominator`, by the seed.
    pub fn chance(mut self, numerator: u64, denominator: u64) -> Rule {
        self.chance = (numerator, denominator);
        self
    }
}

pub(super) struct Faults {
    rules: Vec<Rule>,
    rng: Rng,
}

impl Faults {
    pub(super) fn new(rng: Rng) -> Faults {
        Faults { rules: Vec::new(), rng }
    }

    pub(super) fn add(&mut self, rule: Rule) {
        self.rules.push(rule);
    }

    pub(super) fn clear(&mut self) {
        self.rules.clear();
    }

    /// The fault of an operation that is being handed over: the first rule that fires. Every matching rule counts it.
    pub(super) fn pick(&mut self, kind: OpKind, path: &str) -> Option<Fault> {
        let mut picked = None;
        for rule in &mut self.rules {
            if rule.kind != kind || !path.contains(&rule.path) {
                continue;
            }
            if rule.skip_count > 0 {
                rule.skip_count -= 1;
                continue;
            }
            if picked.is_none() && rule.times > 0 && self.rng.chance(rule.chance.0, rule.chance.1) {
                rule.times -= 1;
                picked = Some(rule.fault);
                coverage::hit(match (rule.fault, kind) {
                    (Fault::Error(_), OpKind::Write | OpKind::WriteZeros) => "fault: failed write",
                    (Fault::Error(_), OpKind::Sync | OpKind::SyncDir) => "fault: failed sync",
                    (Fault::Error(_), OpKind::Read) => "fault: failed read",
                    (Fault::Error(_), _) => "fault: failed change of names",
                    (Fault::CorruptRead, _) => "fault: corrupt read",
                    (Fault::MisdirectedRead, _) => "fault: misdirected read",
                    (Fault::Delay(_), _) => "fault: slow operation",
                });
            }
        }
        picked
    }
}
