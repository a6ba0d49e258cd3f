//! What a log tells its owner: events, boundaries between batches, errors.

use crate::model::id::Offset;

/// A place between two batches (or the end). `position` is where the batch with base offset `offset` starts or will
/// start in the segment with base offset `segment`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Boundary {
    /// Base offset of the segment.
    pub segment: Offset,
    /// Bytes from the segment's start.
    pub position: u64,
    /// The next batch's base offset.
    pub offset: Offset,
}

/// Where an append landed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Offset of the batch's first record.
    pub base_offset: Offset,
    /// Log end offset after the batch. The batch is acknowledged once the high watermark is not below it.
    pub end: Offset,
}

/// What happened, for the owner to act on. Several may be true at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events {
    /// The high watermark moved: wake acknowledgements and fetches.
    pub advanced: bool,
    /// The durable offset moved.
    pub durable: bool,
    /// An append that was refused with `NotReady` or `DiskFull` may be tried again.
    pub room: bool,
    /// The directory is durable. Record that the partition has data, durably, then call `allow_serving`.
    pub materialized: bool,
    /// The log went offline; `Log::offline` says why.
    pub offline: bool,
    /// There is something to commit: call `commit` at the end of the turn.
    pub dirty: bool,
    /// A checkpoint became durable, and with it the log start that it says; files below that are being released.
    pub checkpointed: bool,
    /// A segment was sealed: retention may have something to free, and the next roll can reuse it.
    pub sealed: bool,
    /// `close` is complete: everything is durable.
    pub closed: bool,
    /// With `closed`, of a deleted partition: its directory may still stand under its name.
    pub left_over: bool,
}

impl Events {
    /// Both.
    pub fn merge(&mut self, other: Events) {
        self.advanced |= other.advanced;
        self.durable |= other.durable;
        self.room |= other.room;
        self.materialized |= other.materialized;
        self.offline |= other.offline;
        self.dirty |= other.dirty;
        self.checkpointed |= other.checkpointed;
        self.sealed |= other.sealed;
        self.closed |= other.closed;
        self.left_over |= other.left_over;
    }
}

/// Why a partition takes no reads and no writes until the broker is started again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Offline {
    /// A data write, sync, or directory operation failed: what is on disk is unknown.
    #[error("{what} failed: {error}")]
    Failed {
        /// The operation.
        what: &'static str,
        /// The system's words.
        error: String,
    },
    /// Bytes that were durable are not what was written.
    #[error("corrupt at position {position} of segment {segment}: {what}")]
    Corrupt {
        /// Base offset of the segment.
        segment: Offset,
        /// Where in it.
        position: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// The partition had data and its directory is gone, or belongs to another topic.
    #[error("{0}")]
    Missing(String),
}

/// Why a batch was not appended. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Space, a file or the directory is being made; `Events::room` says when to try again.
    #[error("the log is not ready for the batch yet")]
    NotReady,
    /// The disk is full. Not sticky: trying again later asks the disk again.
    #[error("the disk is full")]
    DiskFull,
    /// The buffer pool is exhausted; try again after completions.
    #[error("no memory for staging")]
    NoMemory,
    /// The batch is longer than a segment may be.
    #[error("the batch is larger than a segment")]
    TooLarge,
    /// See the cause.
    #[error("offline: {0}")]
    Offline(Offline),
    /// The log is being closed or deleted.
    #[error("the log is closed")]
    Closed,
}

/// Why a read gave nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Below the log start offset or above what may be read.
    #[error("offset {offset} is not within {start} to {end}")]
    OffsetOutOfRange {
        /// The asked offset.
        offset: Offset,
        /// Log start offset.
        start: Offset,
        /// High watermark or log end offset, as asked.
        end: Offset,
    },
    /// See the cause.
    #[error("offline: {0}")]
    Offline(Offline),
    /// Bytes on disk are not a batch where one must be.
    #[error("corrupt at position {position} of segment {segment}: {what}")]
    Corrupt {
        /// Base offset of the segment.
        segment: Offset,
        /// Where in it.
        position: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// The buffer pool is exhausted; try again after completions.
    #[error("no memory for reading")]
    NoMemory,
    /// The system refused the read; the log stays as it is.
    #[error("read failed: {0}")]
    Failed(String),
}
