//! Groups of the consumer protocol (KIP-848): the broker assigns, and members come to their assignment one by one.
//!
//! | file | its one job |
//! |---|---|
//! | [`groups`] | the groups of one coordinator, their deadlines and bounds: the face |
//! | [`group`] | one group: what it is, its books, its subscriptions |
//! | `heartbeat` | a member joins, goes on, changes its mind, leaves |
//! | `reconcile` | one member's next step towards its target |
//! | [`assignor`] | who is to have what |
//! | `pattern` | regular expressions of topic names |
//! | `classic` | members that speak the classic protocol, in a group of this one |
//! | `migrate` | a classic group becomes one of this protocol, and back |
//! | [`embedded`] | what consumers put into the bytes of the classic protocol |
//! | [`member`], [`event`] | one member; what comes in and what goes out |
//! | [`change`], [`records`], [`kept`] | what is written, its bytes, and what is read of it at a start |
//!
//! Three epochs make a rebalance. A change of members or topics raises the *group epoch*. The next heartbeat of anybody
//! makes a target for all and raises the *assignment epoch* to it. Each member is then led to its target: it gives up
//! what it is to lose, its *member epoch* becomes that of the target, and it is given what nobody else has any more.
//! ```text
//! Empty -> Assigning -> Reconciling -> Stable         of a member: Stable <-> UnrevokedPartitions, UnreleasedPartitions
//! ```
//! Memory is ahead of the log: an event changes the group at once, its records are written, and whoever caused it is
//! answered when they are durable. If they are refused, the whole group is written anew before anybody is answered
//! again, so that what was answered is always durable.
//!
//! Invariants
//! - Every ticket is given back exactly once.
//! - A partition is given to a member only when no other member has it or is still to give it up.
//! - A heartbeat that changes nothing touches no member but its own.
//!
//! It must not know the log, connections or clocks.

pub mod assignor;
pub mod change;
mod classic;
pub mod embedded;
pub mod event;
pub mod group;
pub mod groups;
mod heartbeat;
pub mod kept;
pub mod member;
mod migrate;
mod pattern;
mod reconcile;
pub mod records;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::model::id::TopicId;

pub use groups::ConsumerGroups;

/// Partitions by topic: of each the indexes, ascending, and at least one.
pub type Assignment = BTreeMap<TopicId, Vec<i32>>;

/// The metadata that groups need.
pub trait Topics {
    /// Another number than before if a topic has come, gone or changed its partitions since.
    fn version(&self) -> u64;
    /// How many topics there are.
    fn count(&self) -> usize;
    /// The topic of this name.
    fn find(&self, name: &str) -> Option<Topic>;
    /// The name of a topic.
    fn name_of(&self, id: TopicId) -> Option<&str>;
    /// Shows every name that a pattern may match: internal topics are left out.
    fn visit_names(&self, visit: &mut dyn FnMut(&str));
}

/// What a group needs to know of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Its identity.
    pub id: TopicId,
    /// How many partitions it has.
    pub partition_count: i32,
}

/// About what an assignment takes in memory.
fn size_bytes_of(assignment: &Assignment) -> usize {
    assignment.values().map(|partitions| 64 + 4 * partitions.len()).sum()
}

/// Partitions in all.
fn count_of(assignment: &Assignment) -> usize {
    assignment.values().map(Vec::len).sum()
}

/// True if every partition of `part` is one of `whole`.
fn is_subset(part: &Assignment, whole: &Assignment) -> bool {
    part.iter().all(|(topic, partitions)| {
        let known = whole.get(topic).map_or(&[][..], Vec::as_slice);
        partitions.iter().all(|partition| known.binary_search(partition).is_ok())
    })
}

/// True if a partition is in both.
fn intersects(one: &Assignment, other: &Assignment) -> bool {
    one.iter().any(|(topic, partitions)| {
        let known = other.get(topic).map_or(&[][..], Vec::as_slice);
        partitions.iter().any(|partition| known.binary_search(partition).is_ok())
    })
}

/// An assignment of what the wire gives: sorted, each partition once, without empty topics.
pub fn assignment_of(partitions: impl IntoIterator<Item = (TopicId, Vec<i32>)>) -> Assignment {
    let mut assignment = Assignment::new();
    for (topic, partitions) in partitions {
        assignment.entry(topic).or_default().extend(partitions);
    }
    assignment.retain(|_, partitions| {
        partitions.sort_unstable();
        partitions.dedup();
        !partitions.is_empty()
    });
    assignment
}
