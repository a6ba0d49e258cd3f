//! OffsetDelete: forgets what a group has committed, where the group does not use it.

use kafka_protocol::messages::offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic};
use kafka_protocol::messages::{OffsetDeleteRequest, OffsetDeleteResponse};

use super::Place;
use super::append::Continuation;
use crate::coordinator::records::Record;
use crate::handlers::broker::Broker;
use crate::handlers::call::Call;
use crate::io::Io;
use crate::model::id::PartitionIndex;
use crate::protocol::error::ErrorCode;

/// Offsets that a client deletes.
#[derive(Debug)]
pub(in crate::handlers) struct Delete {
    call: Call,
    group: Box<str>,
    keys: Vec<(Box<str>, PartitionIndex)>,
    topics: Vec<OffsetDeleteResponseTopic>,
}

impl<I: Io> Broker<I> {
    /// Takes an OffsetDelete in.
    pub(in crate::handlers) fn offset_delete(&mut self, call: Call, request: OffsetDeleteRequest) {
        let group: Box<str> = (&**request.group_id).into();
        let checked = match group.is_empty() {
            true => Err(ErrorCode::InvalidGroupId),
            false => self.coordinator_of(&group).and_then(|index| {
                self.check_offset_delete(index, &group)?;
                Ok(index)
            }),
        };
        let index = match checked {
            Ok(index) => index,
            Err(error) => {
                return self.reply(call, &OffsetDeleteResponse::default().with_error_code(error.code()));
            }
        };
        let hosted = self.coordinator.hosted(index).expect("it is active");
        let pending = hosted.pending_commits();
        let pending = pending.get(&group).map_or(&[][..], Vec::as_slice);
        let mut delete = Delete { call, group, keys: Vec::new(), topics: Vec::with_capacity(request.topics.len()) };
        for topic in &request.topics {
            let found = self.image.topic_by_name(&topic.name);
            let is_subscribed = found.is_some() && hosted.is_subscribed(&delete.group, &topic.name);
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for asked in &topic.partitions {
                let partition = PartitionIndex(asked.partition_index);
                let error = match found {
                    Some(found) if !found.has(partition) => ErrorCode::UnknownTopicOrPartition,
                    None => ErrorCode::UnknownTopicOrPartition,
                    Some(_) if is_subscribed => ErrorCode::GroupSubscribedToTopic,
                    Some(_) => ErrorCode::None,
                };
                let is_known = hosted.offsets.get(&delete.group, &topic.name, partition).is_some()
                    || hosted.transactional.is_unstable(&delete.group, &topic.name, partition)
                    || pending.iter().any(|(name, index)| **name == **topic.name && *index == partition);
                if error.is_none() && is_known {
                    delete.keys.push(((&**topic.name).into(), partition));
                }
                partitions.push(
                    OffsetDeleteResponsePartition::default()
                        .with_partition_index(asked.partition_index)
                        .with_error_code(error.code()),
                );
            }
            delete
                .topics
                .push(OffsetDeleteResponseTopic::default().with_name(topic.name.clone()).with_partitions(partitions));
        }
        if delete.keys.is_empty() {
            return self.reply(call, &OffsetDeleteResponse::default().with_topics(delete.topics));
        }
        let records = delete.keys.iter();
        let records = records.map(|(topic, partition)| Record::offset_tombstone(&delete.group, topic, *partition));
        self.coordinator_append(index, records.collect(), Continuation::OffsetDelete(Box::new(delete)));
    }

    /// The tombstones are durable, or were refused.
    pub(super) fn offsets_deleted(&mut self, index: Place, delete: Delete, result: Result<(), ErrorCode>) {
        let response = match result {
            Err(error) => OffsetDeleteResponse::default().with_error_code(error.code()),
            Ok(()) => {
                if let Some(hosted) = self.coordinator.partitions.get_mut(&index) {
                    for (topic, partition) in &delete.keys {
                        hosted.offsets.remove(&delete.group, topic, *partition);
                        hosted.transactional.forget(&delete.group, topic, *partition);
                    }
                }
                OffsetDeleteResponse::default().with_topics(delete.topics)
            }
        };
        self.reply(delete.call, &response);
    }
}
