//! The shard's journal: one synced write for the small commits of many partitions.
//!
//! A write per partition cannot group across partitions. Where many partitions have a little to commit at the same
//! time, what they staged goes into a file of the shard instead, all of it by one synced write, and is acknowledged.
//! It reaches the segments later, by the partitions' own writes, each of which then carries many commits; after that
//! the file is overwritten. Whether a commit goes this way is the owner's choice, each time.
//!
//! | file | its one job |
//! |---|---|
//! | [`group`] | what one write holds: gathered, encoded, read back |
//! | [`laps`] | two files that take turns: space, writes, and what must reach the segments before one is overwritten |
//! | `journaled` | what a log gives to the journal and gets back from it |
//! | [`mod@replay`] | at start: what the journals hold reaches the segments |
//!
//! Why it is safe
//! - A group holds whole batches, with the place in the segment where they belong. In one life of the broker a place
//!   of a segment gets the same bytes whoever writes them, and however often: writing a group again changes nothing.
//! - Only the active segment takes groups, under its lasting name. It is sealed, described by a checkpoint or moved
//!   only when its own writes have caught up; so a start passes over what belongs to any other segment.
//! - A file is overwritten when every log that has something in it has caught up. What belongs to a partition that
//!   failed meanwhile is kept until a start has written it into its segment.
//! - One write of a journal is under way at a time, and groups are numbered: at most the last one may be torn. A hole
//!   before it is corruption, and the broker does not start over it.
//! - A start empties the journals before anything is appended.

pub mod group;
mod journaled;
pub mod laps;
pub mod replay;

pub use group::Group;
pub use laps::{Journal, JournalOptions, Settled, Written};
pub use replay::{JournalError, Replayed, replay};
