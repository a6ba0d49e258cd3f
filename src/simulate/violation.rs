//! What a checker says when a promise was broken.

use std::fmt;

/// A promise that is checked.
#[allow(missing_docs)] // `promise` says what each means
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Checker {
    Durability,
    Order,
    Gaps,
    Phantom,
    Changed,
    Duplicate,
    Watermark,
    LogStart,
    ReadYourWrites,
    Epochs,
    Times,
    PollSkip,
    PollBack,
    Metadata,
    Commits,
    Compaction,
    AbortedRead,
    Fractured,
    Groups,
    Answers,
    Wakes,
    Refusals,
    Memory,
    Start,
    Panic,
}

impl Checker {
    /// Every checker.
    pub const ALL: [Checker; 25] = [
        Checker::Durability,
        Checker::Order,
        Checker::Gaps,
        Checker::Phantom,
        Checker::Changed,
        Checker::Duplicate,
        Checker::Watermark,
        Checker::LogStart,
        Checker::ReadYourWrites,
        Checker::Epochs,
        Checker::Times,
        Checker::PollSkip,
        Checker::PollBack,
        Checker::Metadata,
        Checker::Commits,
        Checker::Compaction,
        Checker::AbortedRead,
        Checker::Fractured,
        Checker::Groups,
        Checker::Answers,
        Checker::Wakes,
        Checker::Refusals,
        Checker::Memory,
        Checker::Start,
        Checker::Panic,
    ];

    /// The promise.
    pub fn promise(self) -> &'static str {
        match self {
            Checker::Durability => "what was acknowledged or read is there after every start",
            Checker::Order => "a writer's batches stand in the order of sending",
            Checker::Gaps => "offsets have no gap, and of an idempotent writer no batch is left out",
            Checker::Phantom => "nothing is there that was not sent to this partition",
            Checker::Changed => "what stands at an offset stays there, byte for byte",
            Checker::Duplicate => "no batch stands twice",
            Checker::Watermark => "the high watermark never goes back",
            Checker::LogStart => "a log start that was told never goes back, and rises only where it may",
            Checker::ReadYourWrites => "a fetch that begins after an acknowledgement sees the batch",
            Checker::Epochs => "leader epochs never go back, and every start raises them",
            Checker::Times => "offsets by time are the first record at or after it",
            Checker::Compaction => "of each key the last record stays, a tombstone for its time, and no key comes back",
            Checker::AbortedRead => "who reads committed records sees none of a transaction that is not committed",
            Checker::Fractured => "a transaction is seen whole or not at all",
            Checker::PollSkip => "the next fetch leaves nothing out",
            Checker::PollBack => "the next fetch gives nothing again",
            Checker::Metadata => "a topic that was created is known everywhere, a deleted one nowhere",
            Checker::Commits => "the last offset that a group was told is committed is what it reads",
            Checker::Groups => {
                "a share has one owner in a generation, a partition has one, generations and epochs only rise, living members are known"
            }
            Checker::Answers => "every request is answered, in order, or its connection ends",
            Checker::Wakes => "a long poll is woken by what it waits for",
            Checker::Refusals => "nothing is refused without a reason",
            Checker::Memory => "buffers stay within their budget and come back",
            Checker::Start => "a node starts, whatever its last end was",
            Checker::Panic => "no invariant of the broker is broken",
        }
    }
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Who found it.
    pub checker: Checker,
    /// What was found.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ({}): {}", self.checker, self.checker.promise(), self.what)
    }
}

/// A broken promise as a result.
pub fn violated<T>(checker: Checker, what: String) -> Result<T, Violation> {
    Err(Violation { checker, what })
}
