//! OffsetFetch: what groups have committed, as far as it is durable.
//!
//! With `require_stable` the answer waits until commits that are on their way are durable, so that a consumer which
//! takes a partition over begins where the last one has ended.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{OffsetFetchRequest, OffsetFetchResponse, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::append::Continuation;
use super::offset_commit::{BY_ID_FROM, id_in_name};
use super::{Hosted, Place};
use crate::coordinator::offsets::{CommittedOffset, GroupOffsets};
use crate::handlers::broker::Broker;
use crate::handlers::call::Call;
use crate::io::Io;
use crate::model::id::{LeaderEpoch, Offset, PartitionIndex};
use crate::protocol::error::ErrorCode;

/// Versions from this one on ask about several groups at once.
const BATCHED_FROM: i16 = 8;
/// Versions from this one on have a place for an error of the whole group.
const GROUP_ERROR_FROM: i16 = 2;
/// Versions from this one on carry the leader epoch.
const EPOCH_FROM: i16 = 5;

/// An OffsetFetch that waits for commits.
#[derive(Debug)]
pub(in crate::handlers) struct Fetch {
    call: Call,
    groups: Vec<OffsetFetchRequestGroup>,
    require_stable: bool,
    /// Partitions of the offsets topic whose commits are still to be waited for, the next one last.
    unsettled: Vec<Place>,
    /// Those that refused to be waited for.
    refused: BTreeMap<Place, ErrorCode>,
}

impl<I: Io> Broker<I> {
    /// Takes an OffsetFetch in.
    pub(in crate::handlers) fn offset_fetch(&mut self, call: Call, request: OffsetFetchRequest) {
        let require_stable = request.require_stable;
        let groups = match call.version {
            BATCHED_FROM.. => request.groups,
            _ => {
                let topics = request.topics.map(|topics| {
                    let asked = topics.into_iter().map(|topic| {
                        OffsetFetchRequestTopics::default()
                            .with_name(topic.name)
                            .with_partition_indexes(topic.partition_indexes)
                    });
                    asked.collect()
                });
                vec![OffsetFetchRequestGroup::default().with_group_id(request.group_id).with_topics(topics)]
            }
        };
        let mut unsettled = BTreeSet::new();
        if require_stable {
            let indexes = groups.iter().filter_map(|group| self.coordinator_of(&group.group_id).ok());
            unsettled.extend(indexes.filter(|index| self.coordinator.hosted(*index).is_some_and(Hosted::has_writes)));
        }
        let unsettled = unsettled.into_iter().collect();
        self.wait_for_commits(Fetch { call, groups, require_stable, unsettled, refused: BTreeMap::new() });
    }

    /// Waits for the commits that are on their way in the next partition, or answers.
    fn wait_for_commits(&mut self, fetch: Fetch) {
        match fetch.unsettled.last() {
            Some(index) => self.coordinator_append(*index, Vec::new(), Continuation::OffsetFetch(Box::new(fetch))),
            None => self.answer_offset_fetch(fetch),
        }
    }

    /// The commits of a partition are durable, or their log is gone.
    pub(super) fn commits_settled(&mut self, mut fetch: Fetch, result: Result<(), ErrorCode>) {
        let index = fetch.unsettled.pop().expect("it was waited for");
        if let Err(error) = result {
            fetch.refused.insert(index, error);
        }
        self.wait_for_commits(fetch);
    }

    fn answer_offset_fetch(&mut self, fetch: Fetch) {
        let version = fetch.call.version;
        let mut groups: Vec<OffsetFetchResponseGroup> = Vec::with_capacity(fetch.groups.len());
        for group in &fetch.groups {
            let result = self.coordinator_of(&group.group_id).and_then(|index| match fetch.refused.get(&index) {
                Some(error) => Err(*error),
                None => {
                    let hosted = self.coordinator.hosted(index).ok_or(ErrorCode::NotCoordinator)?;
                    hosted.check_fetch(&group.group_id, group.member_id.as_deref(), group.member_epoch)?;
                    Ok(index)
                }
            });
            let answer = OffsetFetchResponseGroup::default().with_group_id(group.group_id.clone());
            groups.push(match result {
                Ok(index) => {
                    let mut topics = self.topics_of(version, index, group);
                    if fetch.require_stable {
                        self.refuse_unstable(version, index, &group.group_id, &mut topics);
                    }
                    answer.with_topics(topics)
                }
                Err(error) if version < GROUP_ERROR_FROM => answer.with_topics(refused(group, error)),
                Err(error) => answer.with_error_code(error.code()),
            });
        }
        let response = OffsetFetchResponse::default();
        if version >= BATCHED_FROM {
            return self.reply(fetch.call, &response.with_groups(groups));
        }
        let group = groups.pop().expect("there is one");
        let response = match version {
            GROUP_ERROR_FROM.. => response.with_error_code(group.error_code),
            _ => response,
        };
        let topics = group.topics.into_iter().map(|topic| {
            let partitions = topic.partitions.into_iter().map(|partition| {
                OffsetFetchResponsePartition::default()
                    .with_partition_index(partition.partition_index)
                    .with_committed_offset(partition.committed_offset)
                    .with_committed_leader_epoch(partition.committed_leader_epoch)
                    .with_metadata(partition.metadata)
                    .with_error_code(partition.error_code)
            });
            OffsetFetchResponseTopic::default().with_name(topic.name).with_partitions(partitions.collect())
        });
        let response = response.with_topics(topics.collect());
        self.reply(fetch.call, &response);
    }

    /// Offsets that a transaction may still change are not told to who asks for stable ones.
    fn refuse_unstable(&self, version: i16, index: Place, group: &str, topics: &mut [OffsetFetchResponseTopics]) {
        let Some(hosted) = self.coordinator.hosted(index) else { return };
        let waiting = hosted.transactional.of_group(group);
        for (topic, partition) in waiting {
            let id = self.image.topic_by_name(&topic).map(|topic| topic.id);
            let answer = topics.iter_mut().find(|answer| match version {
                BY_ID_FROM.. => id.is_some_and(|id| answer.topic_id == id.0),
                _ => **answer.name == *topic,
            });
            let partitions = answer.into_iter().flat_map(|answer| &mut answer.partitions);
            for answer in partitions.filter(|answer| answer.partition_index == partition.0) {
                *answer = found(version, partition.0, None).with_error_code(ErrorCode::UnstableOffsetCommit.code());
            }
        }
    }

    fn topics_of(&self, version: i16, index: Place, asked: &OffsetFetchRequestGroup) -> Vec<OffsetFetchResponseTopics> {
        let offsets = self.coordinator.hosted(index).and_then(|hosted| hosted.offsets.group(&asked.group_id));
        match &asked.topics {
            None => offsets.map_or(Vec::new(), |offsets| self.all_topics(version, offsets)),
            Some(topics) => topics.iter().map(|topic| self.asked_topic(version, topic, offsets)).collect(),
        }
    }

    fn all_topics(&self, version: i16, offsets: &GroupOffsets) -> Vec<OffsetFetchResponseTopics> {
        let mut topics = Vec::with_capacity(offsets.len());
        for (name, partitions) in offsets {
            let answer = match version {
                BY_ID_FROM.. => {
                    // Offsets of a topic that is gone are being forgotten.
                    let Some(topic) = self.image.topic_by_name(name) else { continue };
                    OffsetFetchResponseTopics::default().with_topic_id(topic.id.0)
                }
                _ => OffsetFetchResponseTopics::default().with_name(TopicName(StrBytes::from_string(name.to_string()))),
            };
            let partitions = partitions.iter().map(|(index, committed)| found(version, index.0, Some(committed)));
            topics.push(answer.with_partitions(partitions.collect()));
        }
        topics
    }

    fn asked_topic(
        &self,
        version: i16,
        asked: &OffsetFetchRequestTopics,
        offsets: Option<&GroupOffsets>,
    ) -> OffsetFetchResponseTopics {
        let mut error = ErrorCode::None;
        let (answer, name) = match version {
            BY_ID_FROM.. => {
                let id = id_in_name(&asked.name);
                let topic = self.image.topic(id);
                if topic.is_none() {
                    error = ErrorCode::UnknownTopicId;
                }
                (OffsetFetchResponseTopics::default().with_topic_id(id.0), topic.map(|topic| &*topic.name))
            }
            _ => (OffsetFetchResponseTopics::default().with_name(asked.name.clone()), Some(&**asked.name)),
        };
        let known = name.and_then(|name| offsets?.get(name));
        let partitions = asked.partition_indexes.iter().map(|index| {
            let committed = known.and_then(|known| known.get(&PartitionIndex(*index)));
            found(version, *index, committed).with_error_code(error.code())
        });
        answer.with_partitions(partitions.collect())
    }
}

fn found(version: i16, index: i32, committed: Option<&CommittedOffset>) -> OffsetFetchResponsePartitions {
    let metadata = committed.map_or("", |committed| &*committed.metadata);
    let epoch = committed.map_or(LeaderEpoch::NONE, |committed| committed.leader_epoch);
    OffsetFetchResponsePartitions::default()
        .with_partition_index(index)
        .with_committed_offset(committed.map_or(Offset::NONE, |committed| committed.offset).0)
        // Below the version that has it, it may not be set.
        .with_committed_leader_epoch(if version >= EPOCH_FROM { epoch.0 } else { -1 })
        .with_metadata(Some(StrBytes::from_string(metadata.to_owned())))
}

/// What was asked for, each with the group's error: the oldest version has no other place.
fn refused(asked: &OffsetFetchRequestGroup, error: ErrorCode) -> Vec<OffsetFetchResponseTopics> {
    let topics = asked.topics.iter().flatten().map(|topic| {
        let partitions = topic.partition_indexes.iter();
        let partitions = partitions.map(|index| found(0, *index, None).with_error_code(error.code()));
        OffsetFetchResponseTopics::default().with_name(topic.name.clone()).with_partitions(partitions.collect())
    });
    topics.collect()
}
