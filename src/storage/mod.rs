//! Partitions on disk: one [`Log`] each, byte-exact Kafka v2 segments, direct I/O, group commit.
//!
//! | file | its one job |
//! |---|---|
//! | [`options`] | what an owner decides: options, mutants of tests |
//! | [`event`] | what a log tells its owner: events, errors, boundaries |
//! | `aborted` | the search for aborted transactions in memory and sidecars |
//! | [`log`] | the log object: fields, face, completions |
//! | [`appender`] | batch → stamped → staged |
//! | [`commit`] | staged → written → durable |
//! | [`journal`] | small commits of many logs by one write of the shard |
//! | [`tail_cache`] | the buffers that were written, under a shard-wide budget |
//! | [`segment`] | one `.log` file: names, bounds, index |
//! | [`prepare`] | space ahead of the writer, and the next file |
//! | [`roll`] | sealing, checkpoints, freeing and reuse of files |
//! | [`job`] | a script of file operations, one at a time |
//! | [`files`] | sealed files and sidecars opened on demand |
//! | [`reader`] | reads as tasks of their own |
//! | [`lookup`] | offsets by time |
//! | [`source`] | where a read finds bytes, headers and indexes |
//! | [`compaction`] | of each key the last record stays |
//! | [`recovery`], [`scanner`], `rewriter` | from files to a log, at start |
//! | [`deletion`] | directories of deleted partitions |
//! | [`index`], [`epochs`], [`producer_state`], [`retention`], [`layout`] | pure parts: places, epochs, producers, what goes, names |
//! | [`checkpoint`], [`sidecar`], [`envelope`] | what is kept beside the batches, checksummed |
//!
//! It knows neither wire versions nor error codes, cores or the time of day: `now` is passed in.
//!
//! Invariants
//! - Nothing suspends between reading and changing state: an operation's `start` is synchronous, its completion
//!   comes through [`Log::complete`].
//! - The high watermark never passes what the topic's [`AckAfter`] calls acknowledged.
//! - A failed data write or sync is sticky.

mod aborted;
pub mod appender;
pub mod checkpoint;
pub mod commit;
pub mod compaction;
pub mod deletion;
pub mod envelope;
pub mod epochs;
pub mod event;
pub mod files;
pub mod index;
pub mod job;
pub mod journal;
pub mod layout;
pub mod log;
pub mod lookup;
pub mod options;
pub mod prepare;
pub mod producer_state;
pub mod reader;
pub mod recovery;
pub mod retention;
mod rewriter;
pub mod roll;
pub mod scanner;
pub mod segment;
pub mod sidecar;
pub mod source;
pub mod tail_cache;
pub mod transactions;

pub use compaction::{Cleaner, CleanerOptions, CompactionPolicy, Dirtiness};
pub use deletion::Removal;
pub use event::{AppendError, Appended, Boundary, Events, Offline, ReadError};
pub use files::FileCache;
pub use journal::{Group, Journal, JournalOptions, Settled};
pub use log::{Identity, Log, Resources, State};
pub use lookup::{LookupStep, LookupTask};
pub use options::{AckAfter, LogOptions, PrepareMode};
pub use reader::{Range, ReadPlan, ReadRequest, ReadSource, ReadStep, ReadTask, UpTo};
pub use recovery::{Known, RecoveryError, RecoveryStats, recover};
pub use tail_cache::TailBudget;
pub use transactions::ActiveProducer;

#[cfg(test)]
mod tests;
