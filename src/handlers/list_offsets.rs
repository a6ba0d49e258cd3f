//! ListOffsets: the first, the last, the newest in time, and the first at or after a time.
//!
//! A special timestamp is known from the version on that brought it, and a partition may be asked for once in a
//! request, as in Kafka. Special timestamps are answered at once; a time is looked for in the log's index and batches, one partition after
//! the other, and the answer waits for the last.

use std::collections::BTreeSet;
use std::vec;

use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use kafka_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse, TopicName};

use super::broker::Broker;
use super::call::Call;
use super::errors;
use super::token::{self, Kind};
use crate::base::mutant;
use crate::base::time::Timestamp;
use crate::io::{Completion, Io};
use crate::model::id::{LeaderEpoch, Offset, PartitionIndex, TopicIdPartition};
use crate::protocol::error::ErrorCode;
use crate::storage::lookup::Found;
use crate::storage::{LookupStep, LookupTask, UpTo};

/// Kafka's number of the isolation level.
const READ_COMMITTED: i8 = 1;

/// Kafka's special timestamps.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;
const EARLIEST_PENDING_UPLOAD: i64 = -6;

/// A ListOffsets request that is not answered yet.
struct Lookup {
    call: Call,
    /// What may be told: up to the high watermark, or what is decided.
    up_to: UpTo,
    /// Partitions that it asks for more than once.
    repeated: BTreeSet<(TopicName, i32)>,
    topics: vec::IntoIter<ListOffsetsTopic>,
    topic: TopicName,
    partitions: vec::IntoIter<ListOffsetsPartition>,
    answered: Vec<ListOffsetsTopicResponse>,
    /// The partition that is being looked into, and whose log it is: meanwhile the topic may be another one of the
    /// same name.
    task: Option<(LookupTask, ListOffsetsPartition, TopicIdPartition)>,
}

/// The ListOffsets requests of a shard that read.
#[derive(Default)]
pub struct Lookups {
    slots: Vec<Option<Box<Lookup>>>,
    free: Vec<u32>,
}

impl Lookups {
    fn reserve(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            u32::try_from(self.slots.len() - 1).expect("bounded by requests in flight")
        })
    }
}

/// What is to be looked for.
#[derive(Clone, Copy)]
enum Sought {
    AtOrAfter(Timestamp),
    Greatest,
}

/// What is known of a partition's question at once.
enum Answer {
    Now(ListOffsetsPartitionResponse),
    Search(u32, Sought),
}

impl<I: Io> Broker<I> {
    /// Takes a ListOffsets request in.
    pub(super) fn list_offsets(&mut self, call: Call, request: ListOffsetsRequest) {
        let lookup = Box::new(Lookup {
            call,
            up_to: if request.isolation_level == READ_COMMITTED { UpTo::LastStable } else { UpTo::HighWatermark },
            repeated: repeated(&request.topics),
            answered: Vec::with_capacity(request.topics.len()),
            topics: request.topics.into_iter(),
            topic: TopicName::default(),
            partitions: Vec::new().into_iter(),
            task: None,
        });
        let slot = self.lookups.reserve();
        self.look_up(slot, lookup);
    }

    /// A read of a lookup has completed.
    pub(super) fn lookup_completed(&mut self, slot: u32, completion: Completion) {
        let mut lookup = self.lookups.slots[slot as usize].take().expect("a lookup stays until it is answered");
        let (task, asked, read_from) = lookup.task.take().expect("it was reading");
        let led = self.led_partition(&lookup.topic, PartitionIndex(asked.partition_index), LeaderEpoch::NONE);
        match led {
            Err(error) => lookup.note(refused(&asked, error)),
            Ok(partition) if self.partitions.get_mut(partition).id != read_from => {
                lookup.note(refused(&asked, ErrorCode::UnknownTopicOrPartition));
            }
            Ok(partition) => {
                let log = &mut self.partitions.get_mut(partition).log;
                let step = task.resume(&mut self.io, log, completion.result);
                if take_lookup_step(&mut lookup, asked, step, read_from) {
                    self.lookups.slots[slot as usize] = Some(lookup);
                    return;
                }
            }
        }
        self.look_up(slot, lookup);
    }

    fn look_up(&mut self, slot: u32, mut lookup: Box<Lookup>) {
        loop {
            let Some(asked) = lookup.partitions.next() else {
                let Some(topic) = lookup.topics.next() else { break };
                lookup.answered.push(ListOffsetsTopicResponse::default().with_name(topic.name.clone()));
                lookup.topic = topic.name;
                lookup.partitions = topic.partitions.into_iter();
                continue;
            };
            if !lookup.repeated.is_empty() && lookup.repeated.contains(&(lookup.topic.clone(), asked.partition_index)) {
                lookup.note(refused(&asked, ErrorCode::InvalidRequest));
                continue;
            }
            if !is_known(asked.timestamp, lookup.call.version) {
                lookup.note(refused(&asked, ErrorCode::UnsupportedVersion));
                continue;
            }
            match self.answer_at_once(&lookup.topic, &asked, lookup.up_to) {
                Answer::Now(answer) => lookup.note(answer),
                Answer::Search(partition, sought) => {
                    let partition = self.partitions.get_mut(partition);
                    let (log, read_from) = (&mut partition.log, partition.id);
                    let (io, token, up_to) = (&mut self.io, token::base(Kind::Lookup, slot, 0), lookup.up_to);
                    let step = match sought {
                        Sought::AtOrAfter(time) => log.find_by_timestamp(io, token, time, up_to),
                        Sought::Greatest => log.find_max_timestamp(io, token, up_to),
                    };
                    if take_lookup_step(&mut lookup, asked, step, read_from) {
                        self.lookups.slots[slot as usize] = Some(lookup);
                        return;
                    }
                }
            }
        }
        self.lookups.free.push(slot);
        if lookup.call.version < 4 {
            // The epoch came with version 4 and may not be set below it.
            let partitions = lookup.answered.iter_mut().flat_map(|topic| &mut topic.partitions);
            partitions.for_each(|partition| partition.leader_epoch = -1);
        }
        self.reply(lookup.call, &ListOffsetsResponse::default().with_topics(lookup.answered));
    }

    fn answer_at_once(&mut self, topic: &str, asked: &ListOffsetsPartition, up_to: UpTo) -> Answer {
        let current = LeaderEpoch(asked.current_leader_epoch);
        let partition = match self.led_partition(topic, PartitionIndex(asked.partition_index), current) {
            Ok(partition) => partition,
            Err(error) => return Answer::Now(refused(asked, error)),
        };
        let log = &self.partitions.get_mut(partition).log;
        let at = |offset: Offset| {
            let epoch = log.epochs().epoch_at(offset).unwrap_or(log.leader_epoch());
            Answer::Now(found(asked, offset, Timestamp::NONE, epoch))
        };
        match asked.timestamp {
            LATEST => {
                let end = match up_to {
                    UpTo::LastStable => log.last_stable_offset(),
                    UpTo::HighWatermark | UpTo::LogEnd => log.high_watermark(),
                };
                Answer::Now(found(asked, end, Timestamp::NONE, log.leader_epoch()))
            }
            EARLIEST | EARLIEST_LOCAL => at(log.log_start()),
            // Nothing is tiered, so there is no last tiered record and none that waits for its upload.
            LATEST_TIERED | EARLIEST_PENDING_UPLOAD => {
                Answer::Now(found(asked, Offset::NONE, Timestamp::NONE, LeaderEpoch::NONE))
            }
            MAX_TIMESTAMP => Answer::Search(partition, Sought::Greatest),
            timestamp => Answer::Search(partition, Sought::AtOrAfter(Timestamp(timestamp))),
        }
    }
}

/// True for times, and for special timestamps that a version knows.
fn is_known(timestamp: i64, version: i16) -> bool {
    match timestamp {
        0.. | LATEST | EARLIEST => true,
        MAX_TIMESTAMP => version >= 7,
        EARLIEST_LOCAL => version >= 8,
        LATEST_TIERED => version >= 9,
        EARLIEST_PENDING_UPLOAD => version >= 11,
        _ => false,
    }
}

/// Partitions that are there more than once.
fn repeated(topics: &[ListOffsetsTopic]) -> BTreeSet<(TopicName, i32)> {
    let partitions = |topic: &'_ ListOffsetsTopic| topic.partitions.len();
    let mut all: Vec<(&TopicName, i32)> = Vec::with_capacity(topics.iter().map(partitions).sum());
    for topic in topics {
        all.extend(topic.partitions.iter().map(|partition| (&topic.name, partition.partition_index)));
    }
    all.sort_unstable();
    let pairs = all.windows(2).filter(|pair| pair[0] == pair[1]);
    pairs.map(|pair| (pair[0].0.clone(), pair[0].1)).collect()
}

/// Notes what a search came to. True if it goes on later.
fn take_lookup_step(
    lookup: &mut Lookup,
    asked: ListOffsetsPartition,
    step: LookupStep,
    read_from: TopicIdPartition,
) -> bool {
    let answer = match step {
        LookupStep::Pending(task) => {
            lookup.task = Some((task, asked, read_from));
            return true;
        }
        LookupStep::Failed(error) => refused(&asked, errors::of_read(&error)),
        // Kafka's answer where no record is that young: no offset, no timestamp, no error.
        LookupStep::Ready(None) => found(&asked, Offset::NONE, Timestamp::NONE, LeaderEpoch::NONE),
        LookupStep::Ready(Some(Found { offset, timestamp, leader_epoch })) => {
            let is_wrong = mutant::is_on("look_up_one_too_far");
            found(&asked, Offset(offset.0 + i64::from(is_wrong)), timestamp, leader_epoch)
        }
    };
    lookup.note(answer);
    false
}

impl Lookup {
    fn note(&mut self, answer: ListOffsetsPartitionResponse) {
        self.answered.last_mut().expect("its topic was noted first").partitions.push(answer);
    }
}

fn found(
    asked: &ListOffsetsPartition,
    offset: Offset,
    timestamp: Timestamp,
    epoch: LeaderEpoch,
) -> ListOffsetsPartitionResponse {
    ListOffsetsPartitionResponse::default()
        .with_partition_index(asked.partition_index)
        .with_timestamp(timestamp.0)
        .with_offset(offset.0)
        .with_leader_epoch(epoch.0)
}

fn refused(asked: &ListOffsetsPartition, error: ErrorCode) -> ListOffsetsPartitionResponse {
    found(asked, Offset::NONE, Timestamp::NONE, LeaderEpoch::NONE).with_error_code(error.code())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::protocol::StrBytes;

    #[test]
    fn partitions_that_are_there_twice_are_found_across_topics_of_one_name() {
        let topic = |name: &'static str, partitions: &[i32]| {
            let partitions =
                partitions.iter().map(|index| ListOffsetsPartition::default().with_partition_index(*index));
            ListOffsetsTopic::default()
                .with_name(TopicName(StrBytes::from_static_str(name)))
                .with_partitions(partitions.collect())
        };
        let found = repeated(&[topic("a", &[0, 1, 2, 1]), topic("b", &[0, 5]), topic("a", &[3, 2])]);
        let found: Vec<_> = found.iter().map(|(name, index)| (name.as_str(), *index)).collect();
        assert_eq!(found, [("a", 1), ("a", 2)]);
        assert!(repeated(&[topic("a", &[0, 1]), topic("b", &[0, 1])]).is_empty());
    }
}
