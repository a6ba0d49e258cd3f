//! Committed offsets of topics that are deleted: forgotten in memory at once, then in the log.
//!
//! A topic of the same name must never begin with the offsets of the old one, whatever happens in between. So a shard
//! tells the controller that it is done with a deleted topic only when the tombstones of its offsets are durable
//! ([`Broker::is_cleared`]); until then the deletion is part of the image, commits for the name are refused, and a
//! start that finds the deletion in the image forgets what it reads of that name.

use std::collections::BTreeMap;

use super::append::Continuation;
use super::{Host, HostState, Hosted, Place};
use crate::coordinator::records::Record;
use crate::handlers::broker::Broker;
use crate::io::Io;
use crate::model::id::TopicId;
use crate::protocol::error::ErrorCode;

/// Tombstones of one change: what a batch holds.
const RECORD_COUNT_MAX: usize = 5000;

/// A deleted topic of which offsets are still to be forgotten.
#[derive(Debug, Default)]
pub(super) struct Clearing {
    /// For each partition the changes that are not durable, or its loading.
    waits: BTreeMap<Place, usize>,
    /// Its directories are gone from this shard: this is what it still waits for.
    is_removed: bool,
}

/// Tombstones on their way.
#[derive(Debug)]
pub(in crate::handlers) struct Forget {
    records: Vec<Record>,
    topics: Vec<TopicId>,
}

/// Tombstones that were refused and are to be written again.
pub(super) type Unwritten = Forget;

impl Hosted {
    /// Groups and partitions of which offsets of `topic` are known or on their way, which are forgotten.
    fn take_of_topic(&mut self, topic: &str) -> Vec<Record> {
        let known = self.offsets.of_topic(topic);
        for (group, partition) in &known {
            self.offsets.remove(group, topic, *partition);
        }
        let mut keys = known;
        for (group, partition) in self.transactional.of_topic(topic) {
            self.transactional.forget(&group, topic, partition);
            keys.push((group, partition));
        }
        for (group, pending) in self.pending_commits() {
            let of_topic = pending.into_iter().filter(|(name, _)| **name == *topic);
            keys.extend(of_topic.map(|(_, partition)| (group.clone(), partition)));
        }
        keys.sort();
        keys.dedup();
        keys.into_iter().map(|(group, partition)| Record::offset_tombstone(&group, topic, partition)).collect()
    }
}

impl<I: Io> Broker<I> {
    /// A topic is deleted: what groups have committed for it is forgotten.
    pub(in crate::handlers) fn forget_topic(&mut self, id: TopicId, name: &str) {
        let mut waits = BTreeMap::new();
        let mut found = Vec::new();
        for (index, hosted) in &mut self.coordinator.partitions {
            match hosted.state {
                _ if index.host != Host::Groups => {}
                // It looks when it is loaded.
                HostState::Loading => drop(waits.insert(*index, 1)),
                HostState::Active => found.push((*index, hosted.take_of_topic(name))),
                HostState::Failed => {}
            }
        }
        self.coordinator.clearing.insert(id, Clearing { waits, is_removed: false });
        for (index, records) in found {
            self.write_tombstones(index, records, vec![id]);
        }
    }

    /// A partition was read: forgets what it holds of topics that are gone.
    pub(super) fn forget_unknown(&mut self, index: Place) {
        let image = self.image.clone();
        let Some(hosted) = self.coordinator.partitions.get_mut(&index) else { return };
        let mut topics: Vec<Box<str>> =
            hosted.offsets.groups().flat_map(|(_, topics)| topics.keys().cloned()).collect();
        topics.extend(hosted.transactional.topics().map(Box::from));
        topics.sort();
        topics.dedup();
        let is_gone = |name: &str| {
            image.topic_by_name(name).is_none() || image.deleted_topics().any(|(_, deleted)| *deleted.name == *name)
        };
        let gone = topics.into_iter().filter(|name| is_gone(name));
        let records: Vec<Record> = gone.flat_map(|name| hosted.take_of_topic(&name)).collect();
        let clearing = &mut self.coordinator.clearing;
        let waiting = clearing.iter().filter(|(_, clearing)| clearing.waits.contains_key(&index));
        let waiting: Vec<TopicId> = waiting.map(|(id, _)| *id).collect();
        self.write_tombstones(index, records, waiting.clone());
        // Loading itself was one of the things to wait for.
        waiting.into_iter().for_each(|id| self.cleared(id, index));
    }

    fn write_tombstones(&mut self, index: Place, mut records: Vec<Record>, topics: Vec<TopicId>) {
        while !records.is_empty() {
            let rest = records.split_off(records.len().min(RECORD_COUNT_MAX));
            for id in &topics {
                if let Some(clearing) = self.coordinator.clearing.get_mut(id) {
                    *clearing.waits.entry(index).or_default() += 1;
                }
            }
            let forget = Forget { records: records.clone(), topics: topics.clone() };
            self.coordinator_append(index, records, Continuation::Forget(forget));
            records = rest;
        }
    }

    /// Tombstones are durable, or were refused.
    pub(super) fn forgotten(&mut self, index: Place, forget: Forget, result: Result<(), ErrorCode>) {
        match (result, self.coordinator.partitions.get_mut(&index)) {
            (Err(_), Some(hosted)) if hosted.state == HostState::Active => hosted.unwritten.push(forget),
            _ => forget.topics.into_iter().for_each(|id| self.cleared(id, index)),
        }
    }

    /// Writes again what was refused.
    pub(super) fn write_unwritten(&mut self) {
        let refused = self.coordinator.partitions.iter_mut().flat_map(|(index, hosted)| {
            std::mem::take(&mut hosted.unwritten).into_iter().map(|forget| (*index, forget))
        });
        for (index, forget) in refused.collect::<Vec<_>>() {
            self.coordinator_append(index, forget.records.clone(), Continuation::Forget(forget));
        }
    }

    /// One thing less to wait for.
    fn cleared(&mut self, id: TopicId, index: Place) {
        let Some(clearing) = self.coordinator.clearing.get_mut(&id) else { return };
        if let Some(count) = clearing.waits.get_mut(&index) {
            *count -= 1;
            if *count == 0 {
                clearing.waits.remove(&index);
            }
        }
        if clearing.waits.is_empty() && clearing.is_removed {
            self.tell_removed(id);
        }
    }

    /// A partition has no coordinator here any more: nobody waits for it.
    pub(super) fn nothing_to_clear(&mut self, index: Place) {
        let ids: Vec<TopicId> = self.coordinator.clearing.keys().copied().collect();
        for id in ids {
            let count = self.coordinator.clearing[&id].waits.get(&index).copied().unwrap_or(0);
            (0..count).for_each(|_| self.cleared(id, index));
        }
    }

    /// True if nothing of a deleted topic is left here but its deletion. Else [`Broker::tell_removed`] is called again
    /// when it is so.
    pub(in crate::handlers) fn is_cleared(&mut self, id: TopicId) -> bool {
        if let Some(clearing) = self.coordinator.clearing.get_mut(&id)
            && !clearing.waits.is_empty()
        {
            clearing.is_removed = true;
            return false;
        }
        self.coordinator.clearing.remove(&id);
        true
    }
}
