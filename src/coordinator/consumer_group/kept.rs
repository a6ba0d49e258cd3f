//! A group as its records tell it, gathered while they are read.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Assignment;
use super::change::{Change, Resolved, Subscribed};
use super::member::{Current, Profile};

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// The group epoch; without one there is no group.
    pub epoch: Option<i32>,
    /// The topics that it reads.
    pub topics: Subscribed,
    /// The epoch of the targets.
    pub target_epoch: i32,
    /// What members say about themselves.
    pub profiles: BTreeMap<Box<str>, Arc<Profile>>,
    /// Targets of members.
    pub targets: BTreeMap<Box<str>, Arc<Assignment>>,
    /// Where members are.
    pub currents: BTreeMap<Box<str>, Current>,
    /// What patterns match.
    pub regexes: BTreeMap<Box<str>, Resolved>,
}

impl Kept {
    /// Takes the next change in. What is said of a member that is not there (any longer) is not looked at later.
    pub fn apply(&mut self, change: Change) {
        fn put<V>(map: &mut BTreeMap<Box<str>, V>, key: Box<str>, value: Option<V>) {
            match value {
                Some(value) => drop(map.insert(key, value)),
                None => drop(map.remove(&key)),
            }
        }
        match change {
            Change::Epoch(None) => *self = Kept::default(),
            Change::Epoch(epoch) => self.epoch = epoch,
            Change::Topics(topics) => self.topics = topics.unwrap_or_default(),
            Change::Member(member_id, profile) => put(&mut self.profiles, member_id, profile),
            Change::TargetEpoch(epoch) => self.target_epoch = epoch.unwrap_or(0),
            Change::Target(member_id, target) => put(&mut self.targets, member_id, target),
            Change::Current(member_id, current) => put(&mut self.currents, member_id, current),
            Change::Regex(pattern, resolved) => put(&mut self.regexes, pattern, resolved),
            Change::Classic(_) => {}
        }
    }

    /// True if nothing of it is left.
    pub fn is_nothing(&self) -> bool {
        *self == Kept::default()
    }
}
