//! The comparison after a start: the metadata of every shard, and every batch of every partition, with the model.
//!
//! Nobody else is connected. It waits for each answer while the node runs, so it comes to its end unless the power
//! goes.

use std::collections::BTreeMap;
use std::time::Duration;

use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::{FetchRequest, MetadataRequest};
use kafka_protocol::protocol::Request;
use uuid::Uuid;

use super::admin::METADATA;
use super::compacted::TOPIC;
use super::link::{Link, decode};
use super::model::{Model, Name, PartKey, TopicState};
use super::reader::list_request;
use super::scene::{Excuses, error_of};
use super::transactor;
use super::violation::{Checker, Violation, violated};
use super::wire;
use crate::io::sim::World;
use crate::protocol::ErrorCode;
use crate::shard::simulated::SimNode;

const FETCH: i16 = 16;
const LIST: i16 = 7;
const ANSWER_TIME_MAX: Duration = Duration::from_secs(120);
const EARLIEST: i64 = -2;

/// Whether the comparison came to its end.
pub type Done = Option<()>;

/// See the module.
pub struct Audit<'a> {
    /// The node that was started.
    pub node: &'a mut SimNode,
    /// What is known.
    pub model: &'a mut Model,
    /// What may go wrong.
    pub excuses: Excuses,
    world: World,
    links: BTreeMap<usize, Link<()>>,
}

impl Audit<'_> {
    /// A comparison that is about to begin.
    pub fn new<'a>(node: &'a mut SimNode, model: &'a mut Model, excuses: Excuses) -> Audit<'a> {
        let world = node.world.clone();
        Audit { node, model, excuses, world, links: BTreeMap::new() }
    }

    /// Compares everything; `None` if the power was cut meanwhile.
    pub fn run(mut self) -> Result<Done, Violation> {
        for shard in 0..self.node.addresses.len() {
            if self.compare_metadata(shard)?.is_none() {
                return Ok(None);
            }
        }
        let keys: Vec<PartKey> = self.model.live_parts().map(|(key, _)| *key).collect();
        for key in keys {
            if self.compare_part(key)?.is_none() {
                return Ok(None);
            }
        }
        Ok(Some(()))
    }

    fn ask<R: Request>(&mut self, shard: usize, version: i16, request: &R) -> Result<Option<R::Response>, Violation> {
        if !self.links.contains_key(&shard) {
            let Some(link) = Link::connect(&self.world, self.node.addresses[shard]) else {
                return violated(Checker::Start, format!("shard {shard} does not listen"));
            };
            self.links.insert(shard, link);
        }
        let link = self.links.get_mut(&shard).expect("connected");
        let until = self.world.now().monotonic + ANSWER_TIME_MAX;
        link.send(version, request, Some(()), self.world.now().monotonic);
        loop {
            let now = self.world.now().monotonic;
            if let Some(((), frame)) = link.take(now)? {
                return decode::<R>(frame, version).map(Some);
            }
            if link.is_over() && !self.world.is_power_cut() {
                return violated(Checker::Refusals, format!("shard {shard} has ended a quiet connection"));
            }
            if now > until {
                return violated(Checker::Answers, format!("shard {shard} does not answer"));
            }
            if self.world.is_power_cut() || !self.node.step_by(Some(until)) {
                return Ok(None);
            }
        }
    }

    fn compare_metadata(&mut self, shard: usize) -> Result<Done, Violation> {
        let request = MetadataRequest::default().with_topics(None);
        let Some(response) = self.ask(shard, METADATA, &request)? else { return Ok(None) };
        let mut listed: BTreeMap<String, Uuid> = BTreeMap::new();
        // Kafka's own topics belong to nobody here.
        let mut response = response;
        let is_own = |name: &str| name == TOPIC || name == transactor::TOPIC;
        response
            .topics
            .retain(|topic| !topic.is_internal && !topic.name.as_ref().is_some_and(|name| is_own(name.as_str())));
        for topic in &response.topics {
            listed.insert(topic.name.as_ref().map_or(String::new(), |name| name.to_string()), topic.topic_id);
        }
        let names: Vec<(String, Name)> = self.model.names.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        for (name, known) in names {
            let found = listed.remove(&name);
            match (known, found) {
                (Name::Free, None) => {}
                (Name::Is(id), Some(found)) if id == found => {}
                // Not answered, so either is right; from now on it is known.
                (Name::Creating(_), None) => drop(self.model.names.insert(name, Name::Free)),
                (Name::Creating(spec), Some(id)) => self.model.created(&name, id, spec)?,
                (Name::Deleting(id), None) => self.model.deleted(id),
                (Name::Deleting(id), Some(found)) if id == found => {
                    self.model.names.insert(name, Name::Is(id));
                    self.model.topics.get_mut(&id).expect("it exists").state = TopicState::Live;
                }
                (known, found) => {
                    return violated(Checker::Metadata, format!("shard {shard}: {name} is {found:?}, not {known:?}"));
                }
            }
        }
        if !listed.is_empty() {
            return violated(Checker::Metadata, format!("shard {shard} lists what nobody created: {listed:?}"));
        }
        for topic in &response.topics {
            let count = self.model.topics[&topic.topic_id].spec.partition_count;
            if topic.partitions.len() as i32 != count {
                return violated(
                    Checker::Metadata,
                    format!("{:?} has {} partitions, not {count}", topic.name, topic.partitions.len()),
                );
            }
            for partition in &topic.partitions {
                let key = PartKey { topic: topic.topic_id, index: partition.partition_index };
                let leader = usize::try_from(partition.leader_id.0 - 1).unwrap_or(usize::MAX);
                if leader >= self.node.addresses.len() {
                    return violated(Checker::Metadata, format!("{key:?} is led by {}", partition.leader_id.0));
                }
                let part = self.model.parts.get_mut(&key).expect("counted");
                if shard > 0 && part.leader != leader {
                    return violated(Checker::Metadata, format!("shards disagree who leads {key:?}"));
                }
                part.leader = leader;
            }
        }
        Ok(Some(()))
    }

    fn compare_part(&mut self, key: PartKey) -> Result<Done, Violation> {
        let part = &self.model.parts[&key];
        let (leader, topic) = (part.leader, &self.model.topics[&key.topic]);
        let (name, may_trim) = (topic.name.clone(), topic.spec.may_trim);
        let who = format!("after the start, {name}-{} ({})", key.index, key.topic);
        let mut start = 0;
        let (found, end) = loop {
            match self.read_all(key, leader, start)? {
                None => return Ok(None),
                Some(Ok(found)) => break found,
                Some(Err((ErrorCode::OffsetOutOfRange, _))) if may_trim => {
                    let Some(response) = self.ask(leader, LIST, &list_request(&name, key.index, EARLIEST))? else {
                        return Ok(None);
                    };
                    let answer = &response.topics[0].partitions[0];
                    if answer.error_code == ErrorCode::KafkaStorageError.code() && self.excuses.storage {
                        // The disk has failed in between.
                        self.model.parts.get_mut(&key).expect("it is there").is_offline = true;
                        return Ok(Some(()));
                    }
                    if answer.error_code != 0 || answer.offset <= start {
                        return violated(Checker::LogStart, format!("{who}: {start} is out of range: {answer:?}"));
                    }
                    start = answer.offset;
                }
                Some(Err((error, data))) => {
                    let is_excused = error == ErrorCode::KafkaStorageError && self.excuses.storage;
                    return match is_excused {
                        // It stays as unknown as it was.
                        true => {
                            self.model.parts.get_mut(&key).expect("it is there").is_offline = true;
                            Ok(Some(()))
                        }
                        false => violated(Checker::Durability, format!("{who}: {error:?}: {data:?}")),
                    };
                }
            }
        };
        let now = self.world.now().monotonic;
        let part = self.model.parts.get_mut(&key).expect("it is there");
        if start < part.log_start {
            let before = part.log_start;
            return violated(
                Checker::LogStart,
                format!("{who}: the log starts at {start}, clients were told {before}"),
            );
        }
        part.is_offline = false;
        part.compare(start, end, &found, now, &who)?;
        (part.log_start, part.watermark) = (start, part.watermark.max(end));
        Ok(Some(()))
    }

    /// Every batch from `start` to the high watermark, and that; or the answer that refused.
    #[allow(clippy::type_complexity)]
    fn read_all(
        &mut self,
        key: PartKey,
        leader: usize,
        start: i64,
    ) -> Result<Option<Result<(Vec<wire::Batch>, i64), (ErrorCode, PartitionData)>>, Violation> {
        let mut found: Vec<wire::Batch> = Vec::new();
        let mut position = start;
        loop {
            let partition = FetchPartition::default()
                .with_partition(key.index)
                .with_current_leader_epoch(-1)
                .with_last_fetched_epoch(-1)
                .with_fetch_offset(position)
                .with_partition_max_bytes(200_000);
            let topic = FetchTopic::default().with_topic_id(key.topic).with_partitions(vec![partition]);
            let request = FetchRequest::default()
                .with_max_wait_ms(0)
                .with_min_bytes(1)
                .with_max_bytes(200_000)
                .with_session_id(0)
                .with_session_epoch(-1)
                .with_topics(vec![topic]);
            let Some(mut response) = self.ask(leader, FETCH, &request)? else { return Ok(None) };
            let data = response.responses.pop().and_then(|mut topic| topic.partitions.pop());
            let Some(data) = data else { return violated(Checker::Answers, "a fetch without its partition".into()) };
            match error_of(data.error_code)? {
                ErrorCode::None => {}
                error => return Ok(Some(Err((error, data)))),
            }
            let end = data.high_watermark;
            if position >= end {
                return Ok(Some(Ok((found, end))));
            }
            let records = data.records.unwrap_or_default();
            let batches = match wire::read(&records) {
                Ok(batches) => batches,
                Err(error) => return violated(Checker::Changed, format!("{key:?} at {position}: {error}")),
            };
            let Some(last) = batches.last() else {
                return violated(Checker::Gaps, format!("{key:?}: nothing at {position} below {end}"));
            };
            if last.next_offset <= position {
                return violated(Checker::Gaps, format!("{key:?}: {position} was asked for, {last:?} came"));
            }
            position = last.next_offset;
            found.extend(batches);
        }
    }
}
