//! DeleteGroups, and empty groups that nobody needs any longer.
//!
//! A group goes with all that it has committed, in one change: either all of it is gone after a restart or nothing.
//! While that is being written the group is dead and takes neither members nor commits.

use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::{DeleteGroupsRequest, DeleteGroupsResponse, GroupId};

use super::Place;
use super::append::Continuation;
use crate::coordinator::consumer_group::group::GroupState as ConsumerGroupState;
use crate::coordinator::consumer_group::records as consumer_records;
use crate::coordinator::group::event::{GroupError, GroupState};
use crate::coordinator::records::Record;
use crate::handlers::broker::Broker;
use crate::handlers::call::Call;
use crate::handlers::errors;
use crate::io::Io;
use crate::model::id::PartitionIndex;
use crate::protocol::error::ErrorCode;

/// A DeleteGroups that is not answered yet.
#[derive(Debug)]
pub(super) struct Deletion {
    call: Call,
    results: Vec<DeletableGroupResult>,
    /// Groups whose tombstones are not durable.
    left_count: usize,
}

/// One group that is being deleted.
#[derive(Debug)]
pub(in crate::handlers) struct DeleteGroup {
    group_id: Box<str>,
    keys: Vec<(Box<str>, PartitionIndex)>,
    /// The request and the place of the answer in it; none if the broker itself deletes.
    asked: Option<(u64, usize)>,
}

impl<I: Io> Broker<I> {
    /// Takes a DeleteGroups in.
    pub(in crate::handlers) fn delete_groups(&mut self, call: Call, request: &DeleteGroupsRequest) {
        self.coordinator.deletion_count += 1;
        let number = self.coordinator.deletion_count;
        let results: Vec<DeletableGroupResult> = request
            .groups_names
            .iter()
            .map(|group_id| DeletableGroupResult::default().with_group_id(group_id.clone()))
            .collect();
        let left_count = results.len();
        self.coordinator.deletions.insert(number, Deletion { call, results, left_count: left_count + 1 });
        for (place, GroupId(group_id)) in request.groups_names.iter().enumerate() {
            if let Err(error) = self.delete_group(group_id, Some((number, place))) {
                self.group_answered(number, place, Err(error));
            }
        }
        self.one_left_less(number);
    }

    fn delete_group(&mut self, group_id: &str, asked: Option<(u64, usize)>) -> Result<(), ErrorCode> {
        let index = self.coordinator_of_group(group_id)?;
        let hosted = self.coordinator.partitions.get_mut(&index).expect("it is active");
        let mut keys: Vec<(Box<str>, PartitionIndex)> = Vec::new();
        for (topic, partitions) in hosted.offsets.group(group_id).into_iter().flatten() {
            keys.extend(partitions.keys().map(|partition| (topic.clone(), *partition)));
        }
        keys.extend(hosted.pending_commits().remove(group_id).unwrap_or_default());
        keys.extend(hosted.transactional.of_group(group_id));
        keys.sort();
        keys.dedup();
        let mut tombstones = vec![Record::group_tombstone(group_id)];
        let begun = match hosted.consumer_groups.has_group(group_id) {
            true => hosted.consumer_groups.begin_delete(group_id).map(|changes| {
                tombstones = changes.iter().map(|change| consumer_records::encode(group_id, change)).collect();
            }),
            false => hosted.groups.begin_delete(group_id),
        };
        match begun {
            Ok(()) => {}
            // It has nothing but offsets.
            Err(GroupError::GroupIdNotFound)
                if !keys.is_empty()
                    && !hosted.groups.has_group(group_id)
                    && !hosted.consumer_groups.has_group(group_id) => {}
            Err(error) => return Err(errors::of_group(&error)),
        }
        let offsets = keys.iter().map(|(topic, partition)| Record::offset_tombstone(group_id, topic, *partition));
        let records = offsets.chain(tombstones).collect();
        let delete = DeleteGroup { group_id: group_id.into(), keys, asked };
        self.coordinator_append(index, records, Continuation::DeleteGroup(Box::new(delete)));
        Ok(())
    }

    /// The tombstones of a group are durable, or were refused.
    pub(super) fn group_deleted(&mut self, index: Place, delete: DeleteGroup, result: Result<(), ErrorCode>) {
        if let Some(hosted) = self.coordinator.partitions.get_mut(&index) {
            hosted.groups.end_delete(&delete.group_id, result.is_ok());
            hosted.consumer_groups.end_delete(&delete.group_id, result.is_ok());
            if result.is_ok() {
                for (topic, partition) in &delete.keys {
                    hosted.offsets.remove(&delete.group_id, topic, *partition);
                    hosted.transactional.forget(&delete.group_id, topic, *partition);
                }
            }
        }
        if let Some((number, place)) = delete.asked {
            self.group_answered(number, place, result);
        }
    }

    fn group_answered(&mut self, number: u64, place: usize, result: Result<(), ErrorCode>) {
        let deletion = self.coordinator.deletions.get_mut(&number).expect("it is answered last");
        deletion.results[place].error_code = result.err().unwrap_or(ErrorCode::None).code();
        self.one_left_less(number);
    }

    fn one_left_less(&mut self, number: u64) {
        let deletion = self.coordinator.deletions.get_mut(&number).expect("it is answered last");
        deletion.left_count -= 1;
        if deletion.left_count == 0 {
            let deletion = self.coordinator.deletions.remove(&number).expect("it was there");
            self.reply(deletion.call, &DeleteGroupsResponse::default().with_results(deletion.results));
        }
    }

    /// Groups of a partition without members and offsets, which nobody has a use for, go.
    pub(super) fn expire_groups_of(&mut self, index: Place) {
        let Some(hosted) = self.coordinator.hosted(index) else { return };
        let pending = hosted.pending_commits();
        let is_unused = |group_id: &str| {
            let has_offsets = hosted.offsets.group(group_id).is_some() || pending.contains_key(group_id);
            !has_offsets && hosted.transactional.of_group(group_id).is_empty()
        };
        let empty = hosted.groups.iter().filter(|group| group.state == GroupState::Empty && !group.is_awaited());
        let empty_consumers = hosted.consumer_groups.iter().filter(|group| group.state() == ConsumerGroupState::Empty);
        let empty = empty.map(|group| &group.id).chain(empty_consumers.map(|group| &group.id));
        let unused: Vec<Box<str>> = empty.filter(|id| is_unused(id)).take(EXPIRED_COUNT_MAX).cloned().collect();
        for group_id in unused {
            tracing::info!(group = %group_id, "an empty group without offsets expires");
            if let Err(error) = self.delete_group(&group_id, None) {
                tracing::debug!(group = %group_id, error = error.name(), "later");
            }
        }
    }
}

/// Groups that go in one look: the next one takes the others.
const EXPIRED_COUNT_MAX: usize = 1000;
