//! OffsetCommit: what a group has read up to, acknowledged when it is durable.
//!
//! Checked in Kafka's order: topics and partitions against the metadata, then the coordinator, the group and the
//! member, then each partition's metadata text. What is refused for itself leaves the others as they are.

use std::collections::BTreeMap;
use std::sync::Arc;

use kafka_protocol::messages::offset_commit_request::OffsetCommitRequestTopic;
use kafka_protocol::messages::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use kafka_protocol::messages::{OffsetCommitRequest, OffsetCommitResponse, TopicName};

use super::Place;
use super::append::{Batch, Continuation};
use crate::base::mutant;
use crate::base::time::Timestamp;
use crate::controller::image::TopicImage;
use crate::coordinator::offsets::CommittedOffset;
use crate::coordinator::records::{Record, TEXT_SIZE_BYTES_MAX};
use crate::coordinator::transaction::event::Producer;
use crate::handlers::broker::Broker;
use crate::handlers::call::Call;
use crate::io::Io;
use crate::model::id::{LeaderEpoch, Offset, PartitionIndex, TopicId};
use crate::model::limits::COMMITTED_OFFSETS_SIZE_BYTES_MAX;
use crate::protocol::error::ErrorCode;

/// From this version on topics go by id.
pub(super) const BY_ID_FROM: i16 = 10;

/// One offset that is on its way.
#[derive(Debug)]
struct Change {
    topic: Arc<str>,
    topic_id: TopicId,
    partition: PartitionIndex,
    committed: CommittedOffset,
}

/// An OffsetCommit that is not answered yet.
#[derive(Debug)]
pub(in crate::handlers) struct Commit {
    call: Call,
    group: Box<str>,
    /// The transaction that it is part of.
    transaction: Option<Producer>,
    /// The answer if all goes well.
    topics: Vec<OffsetCommitResponseTopic>,
    changes: Vec<Change>,
}

impl Commit {
    /// The group, and the topics and partitions of the changes.
    pub(super) fn keys(&self) -> impl Iterator<Item = (&str, &str, PartitionIndex)> {
        self.changes.iter().map(|change| (&*self.group, &*change.topic, change.partition))
    }

    /// Everything that was not refused is, with `error`.
    fn refuse(mut self, error: ErrorCode) -> Commit {
        let partitions = self.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
        let accepted = partitions.filter(|partition| partition.error_code == ErrorCode::None.code());
        accepted.for_each(|partition| partition.error_code = error.code());
        self
    }
}

impl<I: Io> Broker<I> {
    /// Takes an OffsetCommit in.
    pub(in crate::handlers) fn offset_commit(&mut self, call: Call, request: OffsetCommitRequest) {
        self.commit_offsets(call, &request, None);
    }

    /// Commits offsets, in a transaction or outside of one. A request in a transaction has been put into the form of one
    /// that is not, of a version that names topics.
    pub(super) fn commit_offsets(&mut self, call: Call, request: &OffsetCommitRequest, transaction: Option<Producer>) {
        let group: Box<str> = (&**request.group_id).into();
        let is_by_id = transaction.is_none() && call.version >= BY_ID_FROM;
        let version = if transaction.is_some() { BY_ID_FROM - 1 } else { call.version };
        let mut commit = Commit { call, group, transaction, topics: Vec::new(), changes: Vec::new() };
        let mut known = Vec::with_capacity(request.topics.len());
        for topic in &request.topics {
            let found = self.topic_to_commit(version, topic);
            let partitions = topic.partitions.iter().map(|asked| {
                let error = match &found {
                    Ok(found) if found.has(PartitionIndex(asked.partition_index)) => ErrorCode::None,
                    Ok(_) => ErrorCode::UnknownTopicOrPartition,
                    Err(error) => *error,
                };
                OffsetCommitResponsePartition::default()
                    .with_partition_index(asked.partition_index)
                    .with_error_code(error.code())
            });
            let mut answer = OffsetCommitResponseTopic::default().with_partitions(partitions.collect());
            if is_by_id {
                answer.topic_id = id_in_name(&topic.name).0;
            } else {
                answer.name = topic.name.clone();
            }
            commit.topics.push(answer);
            known.push(found.ok());
        }
        let is_accepted = |topic: &OffsetCommitResponseTopic| topic.partitions.iter().any(|p| p.error_code == 0);
        if !commit.topics.iter().any(is_accepted) {
            return self.answer_commit(commit);
        }
        let checked = self.coordinator_of(&commit.group).and_then(|index| {
            let generation = request.generation_id_or_member_epoch;
            let instance = request.group_instance_id.as_deref();
            let member = &request.member_id;
            let is_transactional = transaction.is_some();
            self.check_commit(index, &commit.group, member, instance, generation, version, is_transactional)?;
            self.check_offsets_producer(index, transaction)?;
            Ok(index)
        });
        let index = match checked {
            Ok(index) => index,
            Err(error) => return self.answer_commit(commit.refuse(error)),
        };
        self.take_changes(index, &mut commit, request, known);
        let records: Vec<Record> = commit.changes.iter().map(|change| record_of(&commit.group, change)).collect();
        if records.is_empty() {
            return self.answer_commit(commit);
        }
        let batch = transaction.map_or(Batch::Plain, |(producer, epoch)| Batch::Transactional(producer, epoch));
        self.coordinator_append_as(index, batch, records, Continuation::OffsetCommit(Box::new(commit)));
    }

    /// The topic that offsets are committed for. Not one whose name is still that of a deleted topic: its offsets
    /// are being forgotten by name.
    fn topic_to_commit(&self, version: i16, asked: &OffsetCommitRequestTopic) -> Result<Arc<TopicImage>, ErrorCode> {
        let (found, missing) = match version {
            BY_ID_FROM.. => (self.image.topic(id_in_name(&asked.name)), ErrorCode::UnknownTopicId),
            _ => (self.image.topic_by_name(&asked.name), ErrorCode::UnknownTopicOrPartition),
        };
        let found = found.ok_or(missing)?;
        match self.image.deleted_topics().any(|(_, deleted)| deleted.name == found.name) {
            true => Err(missing),
            false => Ok(found.clone()),
        }
    }

    /// Turns what was accepted so far into changes; refuses what is too large.
    fn take_changes(
        &mut self,
        index: Place,
        commit: &mut Commit,
        request: &OffsetCommitRequest,
        known: Vec<Option<Arc<TopicImage>>>,
    ) {
        let now = self.now.wall;
        let metadata_size_max = self.options.config.offset_metadata_max_bytes;
        // Only versions below 5 carry it; -1 leaves it to the broker.
        let own_retention = (request.retention_time_ms >= 0).then_some(request.retention_time_ms);
        let expire_timestamp = own_retention.map(|ms| Timestamp(now.0.saturating_add(ms)));
        let mut size_bytes = self.coordinator.offsets_size_bytes();
        let offsets = &self.coordinator.hosted(index).expect("it is active").offsets;
        for ((asked, answer), found) in request.topics.iter().zip(&mut commit.topics).zip(known) {
            let Some(found) = found else { continue };
            for (asked, answer) in asked.partitions.iter().zip(&mut answer.partitions) {
                if answer.error_code != ErrorCode::None.code() {
                    continue;
                }
                let metadata = asked.committed_metadata.as_deref().unwrap_or_default();
                // Kafka counts characters as Java does; the record's own bound is in bytes.
                let is_long = metadata.len() > metadata_size_max && metadata.encode_utf16().count() > metadata_size_max;
                if is_long || metadata.len() > TEXT_SIZE_BYTES_MAX {
                    answer.error_code = ErrorCode::OffsetMetadataTooLarge.code();
                    continue;
                }
                let partition = PartitionIndex(asked.partition_index);
                let growth_bytes = offsets.growth_bytes(&commit.group, &found.name, partition, metadata.len());
                if growth_bytes > 0 && size_bytes + growth_bytes > COMMITTED_OFFSETS_SIZE_BYTES_MAX {
                    answer.error_code = ErrorCode::InvalidCommitOffsetSize.code();
                    continue;
                }
                size_bytes += growth_bytes;
                commit.changes.push(Change {
                    topic: found.name.clone(),
                    topic_id: found.id,
                    partition,
                    committed: CommittedOffset {
                        offset: Offset(asked.committed_offset),
                        leader_epoch: LeaderEpoch(asked.committed_leader_epoch),
                        metadata: metadata.into(),
                        commit_timestamp: now,
                        expire_timestamp,
                    },
                });
            }
        }
    }

    /// The offsets are durable, or were refused.
    pub(super) fn offsets_committed(&mut self, index: Place, commit: Commit, result: Result<(), ErrorCode>) {
        if let Err(error) = result {
            return self.answer_commit(commit.refuse(error));
        }
        let mut commit = commit;
        let image = Arc::clone(&self.image);
        if let Some(hosted) = self.coordinator.partitions.get_mut(&index) {
            let (group, transaction) = (&commit.group, commit.transaction);
            for change in std::mem::take(&mut commit.changes) {
                // Its tombstone follows if the topic was deleted meanwhile.
                if image.topic(change.topic_id).is_none() {
                    continue;
                }
                let (topic, partition) = (&change.topic, change.partition);
                match transaction {
                    Some((producer, _)) if !mutant::is_on("count_offsets_at_once") => {
                        hosted.transactional.put(producer, group, topic, partition, change.committed);
                    }
                    _ => {
                        hosted.transactional.supersede(group, topic, partition);
                        hosted.offsets.put(group, topic, partition, change.committed);
                    }
                }
            }
        }
        self.answer_commit(commit);
    }

    fn answer_commit(&mut self, commit: Commit) {
        match commit.transaction {
            Some(_) => self.answer_txn_offset_commit(commit.call, commit.topics),
            None => self.reply(commit.call, &OffsetCommitResponse::default().with_topics(commit.topics)),
        }
    }
}

fn record_of(group: &str, change: &Change) -> Record {
    Record::offset(group, &change.topic, change.partition, &change.committed)
}

/// The id that stands in a name's place in versions that have ids (see `protocol::topic_ids`).
pub(super) fn id_in_name(name: &TopicName) -> TopicId {
    name.parse().unwrap_or(TopicId::NONE)
}

/// Keys of commits that are on their way, by group: what is decided from durable state must leave them alone.
pub(super) type PendingCommits = BTreeMap<Box<str>, Vec<(Box<str>, PartitionIndex)>>;
