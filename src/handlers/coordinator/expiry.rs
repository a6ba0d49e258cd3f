//! Offsets that nobody needs any longer (`offsets.retention.minutes`, KIP-211).
//!
//! Every `offsets.retention.check.interval.ms` all partitions are looked at, some at a time. The retention of a group's
//! offsets begins when its last member has left, that of a consumer without a group with each commit.
//!
//! What was committed again and is not durable yet is left alone.

use super::append::Continuation;
use super::{Host, HostState, Place};
use crate::coordinator::records::Record;
use crate::handlers::broker::Broker;
use crate::io::Io;
use crate::model::id::PartitionIndex;
use crate::protocol::error::ErrorCode;

/// Offsets that are looked at in one go: a millisecond or two.
const LOOKED_AT_COUNT_MAX: usize = 10_000;
/// Tombstones of one change: what a batch holds.
const RECORD_COUNT_MAX: usize = 5000;

/// Offsets that are expired.
#[derive(Debug)]
pub(in crate::handlers) struct Expire {
    keys: Vec<(Box<str>, Box<str>, PartitionIndex)>,
}

impl<I: Io> Broker<I> {
    /// Looks for expired offsets when it is time. About once a second.
    pub(super) fn expire_offsets(&mut self) {
        let now = self.now.monotonic;
        let interval = std::time::Duration::from_millis(self.options.config.offsets_retention_check_interval_ms);
        let host = &mut self.coordinator;
        if host.unexpired.is_empty() && now.since(host.expired_at) >= interval {
            host.expired_at = now;
            let indexes = host.partitions.keys().filter(|index| index.host == Host::Groups);
            host.unexpired = indexes.copied().collect();
        }
        let mut looked_at_count = 0;
        while looked_at_count < LOOKED_AT_COUNT_MAX
            && let Some(index) = self.coordinator.unexpired.pop_front()
        {
            looked_at_count += 1 + self.coordinator.hosted(index).map_or(0, |hosted| hosted.offsets.count());
            self.expire_offsets_of(index);
        }
    }

    fn expire_offsets_of(&mut self, index: Place) {
        let (now, retention_ms) = (self.now.wall, self.options.config.offsets_retention_ms);
        let Some(hosted) = self.coordinator.hosted(index).filter(|hosted| hosted.state == HostState::Active) else {
            return;
        };
        let pending = hosted.pending_commits();
        let mut keys = Vec::new();
        for (group, _) in hosted.offsets.groups() {
            let is_subscribed = |topic: &str| hosted.is_subscribed(group, topic);
            let base = hosted.retention_base(group);
            let expired = hosted.offsets.expired_of(group, base, is_subscribed, now, retention_ms);
            let pending = pending.get(group).map_or(&[][..], Vec::as_slice);
            let expired = expired.into_iter().filter(|key| !pending.contains(key));
            keys.extend(expired.map(|(topic, partition)| (Box::from(group), topic, partition)));
        }
        while !keys.is_empty() {
            let rest = keys.split_off(keys.len().min(RECORD_COUNT_MAX));
            let tombstones =
                keys.iter().map(|(group, topic, partition)| Record::offset_tombstone(group, topic, *partition));
            let tombstones = tombstones.collect();
            tracing::info!(partition = index.index.0, count = keys.len(), "committed offsets expire");
            self.coordinator_append(index, tombstones, Continuation::Expire(Expire { keys }));
            keys = rest;
        }
        self.expire_groups_of(index);
    }

    /// The tombstones are durable; if they were refused the next look finds the offsets again.
    pub(super) fn offsets_expired(&mut self, index: Place, expire: Expire, result: Result<(), ErrorCode>) {
        if let (Ok(()), Some(hosted)) = (result, self.coordinator.partitions.get_mut(&index)) {
            for (group, topic, partition) in &expire.keys {
                hosted.offsets.remove(group, topic, *partition);
            }
        }
    }
}
