//! A client that creates, deletes and creates topics again, at any shard, and looks whether every shard knows; deletes
//! records, and changes how much is retained.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    CreateTopicsRequest, DeleteRecordsRequest, DeleteTopicsRequest, IncrementalAlterConfigsRequest, MetadataRequest,
    TopicName,
};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::history::later;
use super::link::{Link, decode};
use super::model::{Floor, Keeps, Name, PartKey, TopicSpec, TopicState};
use super::plan::Shape;
use super::scene::{Scene, error_of};
use super::violation::{Checker, Violation, violated};
use crate::base::coverage;
use crate::base::rng::Rng;
use crate::base::time::Monotonic;
use crate::protocol::ErrorCode;

const CREATE: i16 = 7;
const DELETE: i16 = 6;
/// The version of Metadata that the simulation speaks.
pub const METADATA: i16 = 12;
const TRIM: i16 = 2;
const ALTER: i16 = 1;
const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

enum Question {
    Create(String, TopicSpec),
    Delete(String, Uuid),
    /// Everything below the offset is to go.
    Trim(PartKey, i64, Floor),
    Alter(String),
    /// The name must stand for this, at this shard.
    Know(String, Option<Uuid>),
}

/// See the module.
pub struct Admin {
    rng: Rng,
    links: BTreeMap<usize, Link<Question>>,
    next_at: Monotonic,
    /// A name that was just deleted and is to be used again at once.
    again: Option<String>,
    /// A partition that was left alone and is to be emptied now.
    emptying: Option<(String, PartKey)>,
}

impl Admin {
    /// An administrator.
    pub fn new(rng: Rng) -> Admin {
        Admin { rng, links: BTreeMap::new(), next_at: Monotonic(0), again: None, emptying: None }
    }

    /// A life begins.
    pub fn begin_life(&mut self) {
        self.links.clear();
        self.next_at = Monotonic(0);
        (self.again, self.emptying) = (None, None);
    }

    /// When it acts without being answered.
    pub fn next_at(&self) -> Monotonic {
        self.next_at
    }

    /// Questions that are not answered.
    pub fn under_way_count(&self) -> usize {
        self.links.values().map(Link::under_way_count).sum()
    }

    /// Takes answers and changes something now and then.
    pub fn act(&mut self, scene: &mut Scene<'_>) -> Result<(), Violation> {
        let shards: Vec<usize> = self.links.keys().copied().collect();
        for shard in shards {
            while let Some((question, frame)) = self.links.get_mut(&shard).expect("listed").take(scene.now)? {
                self.answered(question, frame, scene)?;
            }
            if scene.check_link(&self.links[&shard], &format_args!("the administrator at shard {shard}"))? {
                self.links.remove(&shard);
            }
        }
        if scene.now < self.next_at || !scene.is_busy {
            return Ok(());
        }
        // Topics come at once at first, then now and then.
        let pause = if scene.model.live_parts().next().is_none() { 1..3 } else { 5..300 };
        self.next_at = scene.now + Duration::from_millis(self.rng.in_range(pause));
        if self.under_way_count() > 0 {
            return Ok(());
        }
        let shard = self.rng.in_range(0..scene.addresses.len() as u64) as usize;
        if let Some((name, key)) = self.emptying.take() {
            self.empty(shard, &name, key, scene);
            return Ok(());
        }
        let name = match self.again.take() {
            Some(name) => name,
            None => NAMES[self.rng.in_range(0..NAMES.len() as u64) as usize].to_owned(),
        };
        let name = name.as_str();
        let topic_count = scene.model.topics.values().filter(|topic| topic.state != TopicState::Deleted).count();
        match scene.model.names.get(name) {
            None | Some(Name::Free) if topic_count < scene.plan.topic_count_max => self.create(shard, name, scene),
            Some(Name::Is(id)) => {
                let id = *id;
                match self.rng.in_range(0..12) {
                    0 | 1 if topic_count > 1 => self.delete(shard, name, id, scene),
                    2 => {
                        let key = self.any_partition(id, scene);
                        let is_all = self.rng.chance(1, 2);
                        self.trim(name, key, is_all, scene);
                    }
                    3 => {
                        let (config, value) = match self.rng.in_range(0..4) {
                            0 => ("retention.ms", 86_400_000),
                            _ => ("retention.bytes", [4_096, 30_000, 90_000][self.rng.in_range(0..3) as usize]),
                        };
                        self.alter(shard, name, id, (config, value), scene);
                    }
                    4 => self.hush(name, id, scene),
                    // Small files come free, and there is no room to make them larger.
                    5..8 if scene.excuses.full => self.hush(name, id, scene),
                    _ => {}
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn link<'a>(&'a mut self, shard: usize, scene: &Scene<'_>) -> Option<&'a mut Link<Question>> {
        match self.links.entry(shard) {
            Entry::Occupied(link) => Some(link.into_mut()),
            Entry::Vacant(empty) => Some(empty.insert(Link::connect(scene.world, scene.addresses[shard])?)),
        }
    }

    fn create(&mut self, shard: usize, name: &str, scene: &mut Scene<'_>) {
        let rng = &mut self.rng;
        let is_uniform = scene.plan.shape != Shape::Mixed;
        let partition_count = if is_uniform { 1 } else { rng.in_range(1..5) as i32 };
        let keeps = scene.plan.keeps.unwrap_or(match rng.in_range(0..8) {
            0 => Keeps::Write,
            1 => Keeps::Memory,
            _ => Keeps::Sync,
        });
        let retention_bytes = match rng.in_range(0..4) {
            0 if !is_uniform => None,
            1 => Some(4_096),
            2 => Some(20_000),
            _ => Some(60_000),
        };
        let retention_ms = rng.chance(1, 5).then(|| rng.in_range(200..20_000));
        let by_append_time = rng.chance(1, 5);
        let mut configs = vec![("ottla.ack.after", ["sync", "write", "memory"][keeps as usize].to_owned())];
        if let Some(bytes) = retention_bytes {
            configs.push(("retention.bytes", bytes.to_string()));
        }
        if let Some(ms) = retention_ms {
            configs.push(("retention.ms", ms.to_string()));
        }
        if by_append_time {
            configs.push(("message.timestamp.type", "LogAppendTime".to_owned()));
        }
        if rng.chance(1, 6) {
            configs.push(("ottla.validate", "records".to_owned()));
        }
        let spec =
            TopicSpec { partition_count, keeps, may_trim: retention_bytes.or(retention_ms).is_some(), by_append_time };
        let configs = configs.into_iter().map(|(name, value)| {
            CreatableTopicConfig::default()
                .with_name(StrBytes::from_static_str(name))
                .with_value(Some(StrBytes::from_string(value)))
        });
        let topic = CreatableTopic::default()
            .with_name(topic_name(name))
            .with_num_partitions(partition_count)
            .with_replication_factor(-1)
            .with_configs(configs.collect());
        let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(30_000);
        let (now, question) = (scene.now, Question::Create(name.to_owned(), spec.clone()));
        let Some(link) = self.link(shard, scene) else { return };
        link.send(CREATE, &request, Some(question), now);
        scene.story.tell(now, || format!("the administrator asks shard {shard} to create {name}: {spec:?}"));
        scene.model.names.insert(name.to_owned(), Name::Creating(spec));
    }

    fn delete(&mut self, shard: usize, name: &str, id: Uuid, scene: &mut Scene<'_>) {
        let request = DeleteTopicsRequest::default()
            .with_topics(vec![DeleteTopicState::default().with_name(Some(topic_name(name)))])
            .with_timeout_ms(30_000);
        let (now, question) = (scene.now, Question::Delete(name.to_owned(), id));
        let Some(link) = self.link(shard, scene) else { return };
        link.send(DELETE, &request, Some(question), now);
        scene.story.tell(now, || format!("the administrator asks shard {shard} to delete {name}, {id}"));
        scene.model.names.insert(name.to_owned(), Name::Deleting(id));
        scene.model.topics.get_mut(&id).expect("it exists").state = TopicState::Deleting;
    }

    /// Nobody writes to a partition for a while; once what is on its way has come, everything goes.
    fn hush(&mut self, name: &str, topic: Uuid, scene: &mut Scene<'_>) {
        let key = self.any_partition(topic, scene);
        let part = scene.model.parts.get_mut(&key).expect("its topic is there");
        part.quiet_until = later(scene.now, &mut self.rng, 500..3_000);
        self.next_at = later(scene.now, &mut self.rng, 20..300);
        self.emptying = Some((name.to_owned(), key));
    }

    fn any_partition(&mut self, topic: Uuid, scene: &Scene<'_>) -> PartKey {
        let count = scene.model.topics[&topic].spec.partition_count;
        PartKey { topic, index: self.rng.in_range(0..count as u64) as i32 }
    }

    /// Everything of a partition that is quiet goes, and soon its active segment is too old as well: its log goes on in
    /// a file of which no checkpoint knows.
    fn empty(&mut self, shard: usize, name: &str, key: PartKey, scene: &mut Scene<'_>) {
        if scene.model.state(key.topic) == TopicState::Live {
            self.trim(name, key, true, scene);
            self.alter(shard, name, key.topic, ("retention.ms", 100), scene);
        }
    }

    fn trim(&mut self, name: &str, key: PartKey, is_all: bool, scene: &mut Scene<'_>) {
        let part = &scene.model.parts[&key];
        let (leader, floor) = (part.leader, part.floor());
        if leader >= scene.addresses.len() || part.is_open || part.is_offline || part.end <= part.log_start {
            return;
        }
        let target = if is_all { part.end } else { self.rng.in_range(part.log_start as u64..=part.end as u64) as i64 };
        // -1 is the high watermark, which is not below what was acknowledged.
        let offset = if is_all { -1 } else { target };
        let partition = DeleteRecordsPartition::default().with_partition_index(key.index).with_offset(offset);
        let topic = DeleteRecordsTopic::default().with_name(topic_name(name)).with_partitions(vec![partition]);
        let request = DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(30_000);
        let now = scene.now;
        let Some(link) = self.link(leader, scene) else { return };
        link.send(TRIM, &request, Some(Question::Trim(key, target, floor)), now);
        scene.story.tell(now, || format!("the administrator deletes records of {name}-{} below {target}", key.index));
        // From now on its log may start anywhere.
        scene.model.topics.get_mut(&key.topic).expect("it exists").spec.may_trim = true;
        coverage::hit("records are deleted");
    }

    fn alter(&mut self, shard: usize, name: &str, id: Uuid, to: (&'static str, u64), scene: &mut Scene<'_>) {
        let (config, value) = to;
        let altered = AlterableConfig::default()
            .with_name(StrBytes::from_static_str(config))
            .with_value(Some(StrBytes::from_string(value.to_string())));
        let resource = AlterConfigsResource::default()
            .with_resource_type(2)
            .with_resource_name(StrBytes::from_string(name.to_owned()))
            .with_configs(vec![altered]);
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        let now = scene.now;
        let Some(link) = self.link(shard, scene) else { return };
        link.send(ALTER, &request, Some(Question::Alter(name.to_owned())), now);
        scene.story.tell(now, || format!("the administrator asks shard {shard} to set {config} of {name} to {value}"));
        scene.model.topics.get_mut(&id).expect("it exists").spec.may_trim = true;
        coverage::hit("retention is changed");
    }

    fn answered(&mut self, question: Question, frame: Bytes, scene: &mut Scene<'_>) -> Result<(), Violation> {
        match question {
            Question::Create(name, spec) => {
                let response = decode::<CreateTopicsRequest>(frame, CREATE)?;
                let topic = &response.topics[0];
                let (error, id) = (error_of(topic.error_code)?, topic.topic_id);
                scene.story.tell(scene.now, || format!("{name} is created: {error:?}, {id}"));
                match error {
                    ErrorCode::None => {
                        scene.model.created(&name, id, spec)?;
                        self.find_leaders(&name, id, scene);
                        self.ask_all(&name, Some(id), scene);
                    }
                    error if scene.excuses(error) => {}
                    error => return violated(Checker::Refusals, format!("creating {name}: {error:?}")),
                }
            }
            Question::Delete(name, id) => {
                let response = decode::<DeleteTopicsRequest>(frame, DELETE)?;
                let error = error_of(response.responses[0].error_code)?;
                scene.story.tell(scene.now, || format!("{name}, {id}, is deleted: {error:?}"));
                match error {
                    ErrorCode::None => {
                        scene.model.deleted(id);
                        if self.rng.chance(1, 2) {
                            self.next_at = scene.now;
                            self.again = Some(name.clone());
                        }
                        self.ask_all(&name, None, scene);
                    }
                    error if scene.excuses(error) => {}
                    error => return violated(Checker::Refusals, format!("deleting {name}: {error:?}")),
                }
            }
            Question::Trim(key, target, floor) => {
                let response = decode::<DeleteRecordsRequest>(frame, TRIM)?;
                let answer = &response.topics[0].partitions[0];
                match error_of(answer.error_code)? {
                    ErrorCode::None if answer.low_watermark < target.max(floor.log_start) => {
                        let start = answer.low_watermark;
                        return violated(Checker::LogStart, format!("records below {target} go, it starts at {start}"));
                    }
                    ErrorCode::None => {
                        let part = scene.model.parts.get_mut(&key).expect("only this client deletes topics");
                        part.log_start = part.log_start.max(answer.low_watermark);
                    }
                    error if scene.excuses(error) => {}
                    error => return violated(Checker::Refusals, format!("deleting records below {target}: {error:?}")),
                }
            }
            Question::Alter(name) => {
                let response = decode::<IncrementalAlterConfigsRequest>(frame, ALTER)?;
                match error_of(response.responses[0].error_code)? {
                    ErrorCode::None => {}
                    error if scene.excuses(error) => {}
                    error => {
                        return violated(Checker::Refusals, format!("changing the retention of {name}: {error:?}"));
                    }
                }
            }
            Question::Know(name, expected) => {
                let response = decode::<MetadataRequest>(frame, METADATA)?;
                let topic = &response.topics[0];
                let found = (topic.error_code == 0).then_some(topic.topic_id);
                let is_stale = match scene.model.names.get(&name) {
                    Some(Name::Is(id)) => Some(*id) != expected,
                    Some(Name::Free) => expected.is_some(),
                    _ => true,
                };
                if !is_stale && found != expected {
                    return violated(Checker::Metadata, format!("{name} is {found:?}, it should be {expected:?}"));
                }
                if let Some(id) = found.filter(|id| scene.model.state(*id) == TopicState::Live) {
                    note_leaders(scene, id, &response);
                }
            }
        }
        Ok(())
    }

    /// Until an answer tells otherwise nobody leads a new partition.
    fn find_leaders(&mut self, _name: &str, id: Uuid, scene: &mut Scene<'_>) {
        for (key, part) in &mut scene.model.parts {
            if key.topic == id {
                part.leader = usize::MAX;
            }
        }
    }

    /// Every shard must know at once.
    fn ask_all(&mut self, name: &str, expected: Option<Uuid>, scene: &mut Scene<'_>) {
        for shard in 0..scene.addresses.len() {
            let topic = MetadataRequestTopic::default().with_name(Some(topic_name(name)));
            let request = MetadataRequest::default().with_topics(Some(vec![topic]));
            let (now, question) = (scene.now, Question::Know(name.to_owned(), expected));
            if let Some(link) = self.link(shard, scene) {
                link.send(METADATA, &request, Some(question), now);
            }
        }
    }
}

/// Notes who leads a topic's partitions.
fn note_leaders(scene: &mut Scene<'_>, id: Uuid, response: &kafka_protocol::messages::MetadataResponse) {
    let Some(topic) = response.topics.iter().find(|topic| topic.topic_id == id) else { return };
    for partition in &topic.partitions {
        let key = super::model::PartKey { topic: id, index: partition.partition_index };
        if let Some(part) = scene.model.parts.get_mut(&key)
            && partition.leader_id.0 > 0
        {
            part.leader = partition.leader_id.0 as usize - 1;
        }
    }
}

/// A topic's name as the codec has it.
pub fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}
