//! What committed offsets ask of the groups that commit them: who may commit, and from when on offsets may go.
//!
//! A group that only has offsets, of a consumer that assigns its partitions itself, is a simple one: without members
//! and protocol, and anybody may commit for it who claims no membership.

use crate::coordinator::offsets::RetentionBase;
use crate::handlers::broker::Broker;
use crate::io::Io;
use crate::model::id::PartitionIndex;
use crate::protocol::error::ErrorCode;

/// From this version on a commit for a group that does not exist is told so.
const GROUP_NOT_FOUND_FROM: i16 = 9;

impl<I: Io> Broker<I> {
    /// Whether a member, or somebody who claims to be none, may commit offsets for a group whose coordinator is here.
    pub(super) fn check_commit(
        &self,
        _index: PartitionIndex,
        _group: &str,
        _member: &str,
        _instance: Option<&str>,
        generation: i32,
        version: i16,
    ) -> Result<(), ErrorCode> {
        match generation {
            ..0 => Ok(()),
            _ if version >= GROUP_NOT_FOUND_FROM => Err(ErrorCode::GroupIdNotFound),
            _ => Err(ErrorCode::IllegalGeneration),
        }
    }

    /// Whether offsets of a group may be deleted.
    pub(super) fn check_offset_delete(&self, index: PartitionIndex, group: &str) -> Result<(), ErrorCode> {
        let hosted = self.coordinator.hosted(index).ok_or(ErrorCode::NotCoordinator)?;
        let is_known = hosted.offsets.group(group).is_some() || hosted.pending_commits().contains_key(group);
        if is_known { Ok(()) } else { Err(ErrorCode::GroupIdNotFound) }
    }

    /// True if a group reads a topic.
    pub(super) fn is_subscribed(&self, _group: &str, _topic: &str) -> bool {
        false
    }

    /// From when on the retention of a group's offsets counts.
    pub(super) fn retention_base(&self, _group: &str) -> RetentionBase {
        RetentionBase::Commit
    }
}
