//! The groups' state machines on this shard: what they are told, and what they want done.
//!
//! An event's effects are carried out at once: answers go to their connections, records into the partition's log with
//! [`Continuation::Group`], and the nearest deadline of all groups into the shard's queue.

use std::collections::BTreeMap;
use std::time::Duration;

use super::append::Continuation;
use super::{Host, HostState, Hosted, Place};
use crate::base::time::Monotonic;
use crate::coordinator::consumer_group::kept::Kept;
use crate::coordinator::group::event::{Context, Effect, Settings, Written};
use crate::coordinator::group::groups::{Groups, Room};
use crate::coordinator::group::snapshot::GroupSnapshot;
use crate::coordinator::records::Record;
use crate::handlers::broker::Broker;
use crate::handlers::call::Call;
use crate::handlers::deadlines::Deadline;
use crate::handlers::errors;
use crate::io::Io;
use crate::model::configs::BrokerConfig;
use crate::model::limits::{SHARD_GROUP_COUNT_MAX, SHARD_GROUPS_SIZE_BYTES_MAX};
use crate::protocol::error::ErrorCode;

impl<I: Io> Broker<I> {
    /// Lets an event happen to the groups of a partition, and carries out its effects. `None` if it has no
    /// coordinator here.
    pub(super) fn with_groups<R>(
        &mut self,
        index: Place,
        event: impl FnOnce(&mut Groups<Call>, &mut Context<'_, Call>) -> R,
    ) -> Option<R> {
        let settings = settings(&self.options.config);
        let hosted = self.coordinator.partitions.get_mut(&index)?;
        let mut effects = Vec::new();
        let mut context = Context { now: self.now, settings: &settings, rng: &mut self.rng, effects: &mut effects };
        let result = event(&mut hosted.groups, &mut context);
        let next = hosted.groups.next_deadline();
        self.look_at_groups_by(next);
        for effect in effects {
            match effect {
                Effect::Join(call, answer) => self.answer_join(call, answer),
                Effect::Sync(call, answer) => self.answer_sync(call, answer),
                Effect::Persist(written, snapshot) => {
                    let record = Record::group(&written.group_id, &snapshot);
                    self.coordinator_append(index, vec![record], Continuation::Group(written));
                }
            }
        }
        Some(result)
    }

    /// The record of a group is durable, or was refused.
    pub(super) fn group_written(&mut self, index: Place, written: &Written, result: Result<(), ErrorCode>) {
        if let Err(error) = result {
            tracing::warn!(group = %written.group_id, error = error.name(), "the group could not be written");
        }
        let result = result.map_err(errors::to_group);
        self.with_groups(index, |groups, context| groups.persisted(written, result, context));
    }

    /// A partition was read: these are its groups.
    pub(super) fn begin_groups(
        &mut self,
        index: Place,
        mut snapshots: BTreeMap<String, GroupSnapshot>,
        consumer_groups: BTreeMap<String, Kept>,
    ) {
        self.with_consumer_groups(index, |groups, context| {
            for (group_id, kept) in consumer_groups {
                // What is left of a group without its own record is nothing.
                if groups.restore(&group_id, kept) && snapshots.remove(&group_id).is_some() {
                    tracing::warn!(
                        group = group_id,
                        "is both classic and of the consumer protocol: taken as the latter"
                    );
                }
            }
            groups.begin(context.settings, context.now);
        });
        self.with_groups(index, |groups, context| {
            for (group_id, snapshot) in snapshots {
                groups.restore(&group_id, Some(snapshot));
            }
            groups.begin(context);
        });
    }

    /// A partition has no coordinator here any more: whoever waits for one of its groups is told.
    pub(super) fn end_groups(&mut self, index: Place, error: ErrorCode) {
        let error = errors::to_group(error);
        self.with_groups(index, |groups, context| groups.unload(error, context));
    }

    /// What the shard has left for groups.
    pub(super) fn room_for_groups(&self) -> Room {
        let hosted = || self.coordinator.partitions.values();
        let count: usize = hosted().map(|hosted| hosted.groups.count() + hosted.consumer_groups.count()).sum();
        let size_bytes: usize =
            hosted().map(|hosted| hosted.groups.size_bytes() + hosted.consumer_groups.size_bytes()).sum();
        Room {
            group_count: SHARD_GROUP_COUNT_MAX.saturating_sub(count),
            size_bytes: SHARD_GROUPS_SIZE_BYTES_MAX.saturating_sub(size_bytes),
        }
    }

    /// Sessions and waits that have run out. Called each turn; there is usually nothing to do.
    pub(super) fn tick_groups(&mut self) {
        let now = self.now.monotonic;
        if self.coordinator.groups_due.is_none_or(|at| at > now) {
            return;
        }
        // What is due next is entered once, for all.
        self.coordinator.groups_due = Some(now);
        let next_of = |hosted: &Hosted| {
            let nexts = [hosted.groups.next_deadline(), hosted.consumer_groups.next_deadline()];
            nexts.into_iter().flatten().min()
        };
        let is_due = |hosted: &Hosted| next_of(hosted).is_some_and(|at| at <= now);
        let due: Vec<Place> =
            self.coordinator.partitions().filter(|(_, hosted)| is_due(hosted)).map(|(index, _)| index).collect();
        for index in due {
            self.with_groups(index, |groups, context| groups.tick(context));
            self.with_consumer_groups(index, |groups, context| groups.tick(context));
        }
        self.coordinator.groups_due = None;
        let next = self.coordinator.partitions().filter_map(|(_, hosted)| next_of(hosted)).min();
        self.look_at_groups_by(next);
    }

    /// The shard looks at its groups again at `next`, if not before.
    pub(super) fn look_at_groups_by(&mut self, next: Option<Monotonic>) {
        let due = &mut self.coordinator.groups_due;
        if let Some(next) = next
            && due.is_none_or(|at| next < at)
        {
            *due = Some(next);
            self.deadlines.push(next, Deadline::Coordinator);
        }
    }

    /// The partition whose coordinator, which is here and active, a group has; else why not, with what Kafka checks
    /// before it looks.
    pub(super) fn coordinator_of_group(&self, group_id: &str) -> Result<Place, ErrorCode> {
        crate::coordinator::group::groups::check_group_id(group_id).map_err(|error| errors::of_group(&error))?;
        self.coordinator_of(group_id)
    }

    /// Group ids that partitions hold which are led here, or why they are not known yet.
    pub(super) fn check_loaded(&self) -> Result<(), ErrorCode> {
        let hosts = self.coordinator.partitions.iter();
        let mut states = hosts.filter(|(index, _)| index.host == Host::Groups).map(|(_, hosted)| hosted.state);
        let is_loading = states.any(|state| state == HostState::Loading);
        if is_loading { Err(ErrorCode::CoordinatorLoadInProgress) } else { Ok(()) }
    }
}

/// What the operator decided about groups.
pub(super) fn settings(config: &BrokerConfig) -> Settings {
    Settings {
        session_timeout_ms_min: config.group_min_session_timeout_ms,
        session_timeout_ms_max: config.group_max_session_timeout_ms,
        initial_rebalance_delay: Duration::from_millis(config.group_initial_rebalance_delay_ms),
        member_count_max: config.group_max_size,
    }
}
