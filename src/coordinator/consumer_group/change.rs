//! What is written about a group: one change for each record.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::member::{Current, Profile};
use super::{Assignment, Topic};
use crate::base::time::Timestamp;
use crate::coordinator::group::snapshot::GroupSnapshot;

/// Names of subscribed topics and what the group knows of them.
pub type Subscribed = BTreeMap<Box<str>, Topic>;

/// The topics that a pattern matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    /// Their names, sorted.
    pub topics: Vec<Box<str>>,
    /// Which metadata was looked at.
    pub version: i64,
    /// When.
    pub at: Timestamp,
}

/// One change; `None` takes back what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The group, at this epoch.
    Epoch(Option<i32>),
    /// The topics that it reads.
    Topics(Option<Subscribed>),
    /// A member.
    Member(Box<str>, Option<Arc<Profile>>),
    /// The epoch of the targets.
    TargetEpoch(Option<i32>),
    /// A member's target.
    Target(Box<str>, Option<Arc<Assignment>>),
    /// Where a member is.
    Current(Box<str>, Option<Current>),
    /// What a pattern matches.
    Regex(Box<str>, Option<Resolved>),
    /// The group as a classic one.
    Classic(Option<GroupSnapshot>),
}
