//! What committed offsets ask of the groups that commit them: who may commit, and from when on offsets may go.
//!
//! A group that only has offsets, of a consumer that assigns its partitions itself, is a simple one: without members
//! and protocol, and anybody may commit for it who claims no membership.

use crate::base::time::Timestamp;
use crate::coordinator::consumer_group::group::GroupState as ConsumerGroupState;
use crate::coordinator::group::event::{GroupError, GroupState};
use crate::coordinator::offsets::RetentionBase;
use crate::handlers::broker::Broker;
use crate::handlers::errors;
use crate::io::Io;
use crate::protocol::error::ErrorCode;

use super::{Hosted, Place};

/// From this version on a commit for a group that does not exist is told so.
const GROUP_NOT_FOUND_FROM: i16 = 9;

impl<I: Io> Broker<I> {
    /// Whether a member, or somebody who claims to be none, may commit offsets for a group whose coordinator is here.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn check_commit(
        &mut self,
        index: Place,
        group: &str,
        member: &str,
        instance: Option<&str>,
        generation: i32,
        version: i16,
        is_transactional: bool,
    ) -> Result<(), ErrorCode> {
        let now = self.now.monotonic;
        let hosted = self.coordinator.partitions.get_mut(&index).ok_or(ErrorCode::NotCoordinator)?;
        let checked =
            hosted.consumer_groups.check_commit(group, member, instance, generation, is_transactional, version);
        let checked = checked
            .unwrap_or_else(|| hosted.groups.check_commit(group, member, instance, generation, is_transactional, now));
        checked.map_err(|error| match error {
            GroupError::GroupIdNotFound if version < GROUP_NOT_FOUND_FROM || is_transactional => {
                ErrorCode::IllegalGeneration
            }
            // TxnOffsetCommit does not know epochs.
            GroupError::StaleMemberEpoch if is_transactional => ErrorCode::IllegalGeneration,
            error => errors::of_group(&error),
        })
    }

    /// Whether offsets of a group may be deleted: those of consumers by topic, those of others with members not.
    pub(super) fn check_offset_delete(&self, index: Place, group: &str) -> Result<(), ErrorCode> {
        let hosted = self.coordinator.hosted(index).ok_or(ErrorCode::NotCoordinator)?;
        if let Some(known) = hosted.consumer_groups.get(group) {
            return match known.state() {
                ConsumerGroupState::Dead => Err(ErrorCode::GroupIdNotFound),
                _ => Ok(()),
            };
        }
        match hosted.groups.get(group) {
            Some(known) if known.state == GroupState::Dead => Err(ErrorCode::GroupIdNotFound),
            Some(known) if known.state == GroupState::Empty || known.is_of_consumers() => Ok(()),
            Some(_) => Err(ErrorCode::NonEmptyGroup),
            None => {
                let is_known = hosted.offsets.group(group).is_some()
                    || hosted.pending_commits().contains_key(group)
                    || !hosted.transactional.of_group(group).is_empty();
                if is_known { Ok(()) } else { Err(ErrorCode::GroupIdNotFound) }
            }
        }
    }
}

impl Hosted {
    /// True if a group reads a topic.
    pub(super) fn is_subscribed(&self, group: &str, topic: &str) -> bool {
        match self.consumer_groups.get(group) {
            Some(group) => group.reads_topic(topic),
            None => self.groups.is_subscribed_to(group, topic),
        }
    }

    /// From when on the retention of a group's offsets counts.
    pub(super) fn retention_base(&self, group: &str) -> RetentionBase {
        let Some(group) = self.groups.get(group) else { return RetentionBase::Commit };
        match group.state {
            _ if group.protocol_type.is_none() => RetentionBase::Commit,
            GroupState::Empty if group.since == Timestamp::NONE => RetentionBase::Commit,
            GroupState::Empty => RetentionBase::Since(group.since),
            // Topics that it reads no longer: which those are is known when it is at rest.
            GroupState::Stable if group.is_of_consumers() => RetentionBase::Commit,
            _ => RetentionBase::Never,
        }
    }
}
