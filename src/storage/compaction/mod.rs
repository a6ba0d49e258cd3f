//! Compaction: of each key the last record stays, offsets never change.
//!
//! | file | its one job |
//! |---|---|
//! | [`plan`] | what can be compacted, whether it should be, what becomes one segment: pure |
//! | [`map`] | the last offset of each key, in bounded memory |
//! | [`filter`] | which records of a batch stay |
//! | `input` | batches of a sealed segment, by direct reads |
//! | `output` | the new segment's file, by direct writes |
//! | [`task`] | one compaction of one log, step by step |
//! | [`swap`] | the log's side: what may be compacted, and the new segment in the place of the old ones |
//! | [`cleaner`] | one shard's compactions: one at a time, its pace, its bounds |
//!
//! One compaction: a checkpoint covers what is to be compacted and says that offsets may have gaps → the keys of the
//! dirty segments go into the map until it is full or the end is reached → every segment up to there is read, filtered
//! and written to a new file, several small ones together → each new file takes the place of the old ones → the
//! cleaner offset moves and goes into the next checkpoint.
//!
//! Invariants
//! - A record is dropped only if a later one of its key, below the end of what was mapped, is kept or was dropped for
//!   the same reason; a tombstone goes after its horizon, which the first pass that keeps it writes into its batch.
//! - A new segment holds the last batch of the ones it replaces, if need be without records: so segments go on ending
//!   where the next one begins, and only within them offsets have gaps.
//! - At every moment, power cuts included, a range of offsets is in the old files or in the new one, never in both
//!   and never in neither.
//! - Bytes whose checksum is wrong are not copied: the partition is left uncompacted.
//! - One operation is under way at a time, and a bounded number of bytes is looked at in one turn.
//!
//! Nothing is compacted at or above the last stable offset, so of every transaction below it is known how it ended:
//! records of aborted ones neither hide earlier records of their keys nor stay. Markers stay.
//!
//! It must not know which partition is whose, configurations' names, or the time of day beyond what is passed in.

pub mod cleaner;
pub mod filter;
mod input;
pub mod map;
mod output;
pub mod plan;
pub mod swap;
pub mod task;

pub use cleaner::{Cleaner, CleanerOptions};
pub use plan::{CompactionPolicy, Dirtiness};
