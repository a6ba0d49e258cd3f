//! The controller's state machine: requests in, records and answers out.
//!
//! [`Controller::handle`] takes an event and gives effects, which the shard carries out: append these records, publish
//! this image to every shard, send this answer.
//!
//! There are two images. The *tip* has every change that was accepted; requests are judged against it, so that two
//! creations of one name cannot both succeed however close they follow one another. The *committed* image has what is
//! durable, and only that is published. While one append is in flight, further changes queue and go together in the
//! next.
//!
//! Invariants: an answer is given when everything it was judged by is durable **and every shard has applied it**, so
//! a client that acts on it meets no shard that does not know; answers leave in the order of their requests; replaying
//! the appended records gives the committed image. After a failed append nothing is accepted any more: what is on disk
//! is unknown until the next start reads it.
//! It must not know how the log is written, where shards are, or who asks.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use uuid::Uuid;

use crate::base::rng::Rng;
use crate::controller::configs::{ConfigChange, ConfigResource, judge_alteration};
use crate::controller::growth::{MorePartitions, judge_growth};
use crate::controller::image::{ClusterId, Image};
use crate::controller::internal::{internal_topic, with_internal_settings};
use crate::controller::records::{DATA_FORMAT, ProducerIdBlock, Record};
use crate::controller::topics::{
    CreatedTopic, DeletedTopicRef, NewTopic, TopicError, TopicRef, check_name, judge_creation, judge_deletion,
};
use crate::invariant;
use crate::model::configs::BrokerConfig;
use crate::model::id::{NodeId, Offset, ShardId, TopicId, TopicIdPartition};
use crate::model::limits::{
    METADATA_BATCH_SIZE_BYTES_MAX, METADATA_CHANGE_COUNT_MAX, PRODUCER_ID_BLOCK_COUNT, SHARD_COUNT_MAX,
};

/// What happened. `T` is the asker's ticket, given back with the answer.
#[derive(Clone, Debug)]
pub enum Event<T> {
    /// This node starts: the first event, once.
    Start {
        /// Whom to answer.
        ticket: T,
        /// Which node.
        node: NodeId,
    },
    /// A client creates topics.
    CreateTopics {
        /// Whom to answer.
        ticket: T,
        /// The topics, in the request's order.
        topics: Vec<NewTopic>,
        /// Judge, but change nothing.
        validate_only: bool,
    },
    /// A client asked for topics that may be created on demand.
    AutoCreateTopics {
        /// Whom to answer.
        ticket: T,
        /// Their names.
        names: Vec<String>,
    },
    /// A client deletes topics.
    DeleteTopics {
        /// Whom to answer.
        ticket: T,
        /// The topics, in the request's order.
        topics: Vec<TopicRef>,
    },
    /// A client changes the settings of topics and groups.
    AlterConfigs {
        /// Whom to answer.
        ticket: T,
        /// What is to be changed, in the request's order and each once, and what becomes of the settings.
        resources: Vec<(ConfigResource, ConfigChange)>,
        /// Judge, but change nothing.
        validate_only: bool,
    },
    /// A client gives topics more partitions.
    CreatePartitions {
        /// Whom to answer.
        ticket: T,
        /// The topics, in the request's order.
        topics: Vec<MorePartitions>,
        /// Judge, but change nothing.
        validate_only: bool,
    },
    /// A shard is about to give partitions their first record, and must not acknowledge it before this is durable.
    Materialize {
        /// Whom to answer.
        ticket: T,
        /// The partitions.
        partitions: Vec<TopicIdPartition>,
    },
    /// A shard has no producer ids left.
    AllocateProducerIds {
        /// Whom to answer.
        ticket: T,
    },
    /// A shard removed all directories of a deleted topic that were its own.
    DirectoriesRemoved {
        /// The shard.
        shard: ShardId,
        /// The topic.
        topic: TopicId,
    },
    /// The records of the last [`Effect::Append`] are durable.
    Appended,
    /// They may or may not be: the metadata log failed.
    AppendFailed {
        /// What the disk said.
        cause: String,
    },
    /// A shard applied the published image of this version.
    Applied {
        /// The shard.
        shard: ShardId,
        /// The image's version.
        version: Offset,
    },
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect<T> {
    /// Append these records durably, as one batch, then tell [`Event::Appended`]. One at a time.
    Append {
        /// The offset of the first.
        base_offset: Offset,
        /// Their values, encoded.
        values: Vec<Vec<u8>>,
    },
    /// Give every shard this image, the controller's own included; each tells [`Event::Applied`].
    Publish(Image),
    /// Answer.
    Reply {
        /// Whom.
        ticket: T,
        /// With what.
        result: Result<Reply, ControllerError>,
    },
}

/// A topic's name or id as it was asked for, and what became of it.
pub type TopicResults<K, V> = Vec<(K, Result<V, TopicError>)>;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The node may serve: its start is durable and every leader epoch is raised.
    Started,
    /// One result per name, in the request's order.
    CreateTopics(TopicResults<String, CreatedTopic>),
    /// One result per name: its topic's id, whether it was created now or is older.
    AutoCreateTopics(TopicResults<String, TopicId>),
    /// One result per topic, in the request's order.
    DeleteTopics(TopicResults<TopicRef, DeletedTopicRef>),
    /// One result per resource, in the request's order.
    AlterConfigs(TopicResults<ConfigResource, ()>),
    /// One result per name, in the request's order.
    CreatePartitions(TopicResults<String, ()>),
    /// The partitions may acknowledge, but for those that do not exist (any more).
    Materialized {
        /// Those.
        unknown: Vec<TopicIdPartition>,
    },
    /// Ids that nobody else will get.
    ProducerIds(ProducerIdBlock),
}

/// Why a request was not judged at all: our fault or the disk's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControllerError {
    /// The metadata log failed; the node must be started again.
    #[error("the metadata log failed: {cause}")]
    LogFailed {
        /// What the disk said.
        cause: String,
    },
    /// Too many changes wait; the client may try again.
    #[error("{METADATA_CHANGE_COUNT_MAX} metadata changes are waiting already")]
    Overloaded,
}

/// An answer that waits until every shard has applied a version.
#[derive(Debug)]
struct Waiting<T> {
    version: Offset,
    ticket: T,
    reply: Reply,
}

/// See the module.
#[derive(Debug)]
pub struct Controller<T> {
    config: Arc<BrokerConfig>,
    rng: Rng,
    tip: Image,
    committed: Image,
    /// Accepted, in `tip`, not yet given to the log.
    queued: VecDeque<Record>,
    /// Given to the log, not yet durable.
    in_flight: Vec<Record>,
    /// By ascending version.
    waiting: VecDeque<Waiting<T>>,
    /// The version that each shard of this node has applied.
    applied: Vec<Offset>,
    /// Shards that have removed their directories of a deleted topic.
    removals: BTreeMap<TopicId, BTreeSet<ShardId>>,
    failed: Option<String>,
}

impl<T> Controller<T> {
    /// A controller that begins with the image that the metadata log gave, on a node with `shard_count` shards, none
    /// of which has an image yet.
    pub fn new(config: Arc<BrokerConfig>, image: Image, shard_count: u16, rng: Rng) -> Controller<T> {
        invariant!((1..=SHARD_COUNT_MAX).contains(&usize::from(shard_count)), "{shard_count} shards");
        Controller {
            config,
            rng,
            tip: image.clone(),
            committed: image,
            queued: VecDeque::new(),
            in_flight: Vec::new(),
            waiting: VecDeque::new(),
            applied: vec![Offset::NONE; usize::from(shard_count)],
            removals: BTreeMap::new(),
            failed: None,
        }
    }

    /// The durable image: what a snapshot is made of.
    pub fn committed(&self) -> &Image {
        &self.committed
    }

    /// Takes one event.
    pub fn handle(&mut self, event: Event<T>) -> Vec<Effect<T>> {
        let mut effects = Vec::new();
        match event {
            Event::Appended => self.appended(&mut effects),
            Event::AppendFailed { cause } => self.append_failed(cause, &mut effects),
            Event::Applied { shard, version } => self.applied(shard, version),
            Event::DirectoriesRemoved { shard, topic } => self.directories_removed(shard, topic),
            Event::Start { ticket, node } => self.answer(ticket, |state| state.start(node), &mut effects),
            Event::CreateTopics { ticket, topics, validate_only } => {
                self.answer(ticket, |state| state.create_topics(topics, validate_only), &mut effects)
            }
            Event::AutoCreateTopics { ticket, names } => {
                self.answer(ticket, |state| state.auto_create_topics(names), &mut effects)
            }
            Event::DeleteTopics { ticket, topics } => {
                self.answer(ticket, |state| state.delete_topics(topics), &mut effects)
            }
            Event::AlterConfigs { ticket, resources, validate_only } => {
                self.answer(ticket, |state| state.alter_configs(resources, validate_only), &mut effects)
            }
            Event::CreatePartitions { ticket, topics, validate_only } => {
                self.answer(ticket, |state| state.create_partitions(topics, validate_only), &mut effects)
            }
            Event::Materialize { ticket, partitions } => {
                self.answer(ticket, |state| state.materialize(partitions), &mut effects)
            }
            Event::AllocateProducerIds { ticket } => self.answer(ticket, Self::allocate_producer_ids, &mut effects),
        }
        self.append_queued(&mut effects);
        self.reply_ready(&mut effects);
        effects
    }

    // Requests: each judges against the tip, queues its records and gives the answer that is to be sent when they are
    // durable and known.

    fn answer(&mut self, ticket: T, judge: impl FnOnce(&mut Self) -> Reply, effects: &mut Vec<Effect<T>>) {
        if let Some(cause) = &self.failed {
            let result = Err(ControllerError::LogFailed { cause: cause.clone() });
            effects.push(Effect::Reply { ticket, result });
        } else if self.waiting.len() >= METADATA_CHANGE_COUNT_MAX {
            effects.push(Effect::Reply { ticket, result: Err(ControllerError::Overloaded) });
        } else {
            let reply = judge(self);
            // The answer was judged by the whole tip, in-flight changes of others included, and waits for all of it.
            self.waiting.push_back(Waiting { version: self.tip.version(), ticket, reply });
        }
    }

    fn start(&mut self, node: NodeId) -> Reply {
        if self.tip.cluster_id().is_none() {
            let cluster_id = ClusterId(self.random_uuid());
            self.accept(Record::ClusterCreated { cluster_id });
        }
        let shard_count = self.applied.len() as u16;
        self.accept(Record::NodeStarted { node, shard_count, format: DATA_FORMAT });
        Reply::Started
    }

    fn create_topics(&mut self, topics: Vec<NewTopic>, validate_only: bool) -> Reply {
        let duplicates = duplicates(topics.iter().map(|topic| &topic.name));
        let mut told = BTreeSet::new();
        let mut results = Vec::with_capacity(topics.len());
        // What is only judged is judged on a copy, so that the topics of one request also meet one another.
        let mut trial = validate_only.then(|| self.tip.clone());
        for topic in topics {
            if duplicates.contains(&topic.name) {
                if told.insert(topic.name.clone()) {
                    results.push((topic.name, Err(TopicError::Duplicate)));
                }
                continue;
            }
            let topic = with_internal_settings(&self.config, topic);
            let result = self.create_topic(&topic, trial.as_mut());
            results.push((topic.name, result));
        }
        Reply::CreateTopics(results)
    }

    fn create_topic(&mut self, topic: &NewTopic, trial: Option<&mut Image>) -> Result<CreatedTopic, TopicError> {
        let id = self.new_topic_id();
        let image = trial.as_deref().unwrap_or(&self.tip);
        let (record, replication_factor_asked) = judge_creation(image, &self.config, topic, id)?;
        let mut created = CreatedTopic {
            id,
            partition_count: record.partition_count,
            replication_factor: record.replication_factor,
            replication_factor_asked,
            configs: Arc::new(record.configs.clone()),
        };
        let record = Record::TopicCreated(record);
        match trial {
            None => self.accept(record),
            Some(trial) => {
                created.id = TopicId::NONE;
                let applied = trial.apply(&record);
                invariant!(applied.is_ok(), "{applied:?} of {record:?}");
            }
        }
        Ok(created)
    }

    fn auto_create_topics(&mut self, names: Vec<String>) -> Reply {
        let results = names.into_iter().map(|name| {
            let result = self.auto_create_topic(&name);
            (name, result)
        });
        Reply::AutoCreateTopics(results.collect())
    }

    fn auto_create_topic(&mut self, name: &str) -> Result<TopicId, TopicError> {
        if let Some(topic) = self.tip.topic_by_name(name) {
            return Ok(topic.id);
        }
        if let Some(internal) = internal_topic(&self.config, name) {
            return self.create_topic(&internal, None).map(|created| created.id);
        }
        check_name(name)?;
        if !self.config.auto_create_topics_enable {
            return Err(TopicError::UnknownTopic);
        }
        self.create_topic(&NewTopic::with_defaults(name), None).map(|created| created.id)
    }

    fn delete_topics(&mut self, topics: Vec<TopicRef>) -> Reply {
        let duplicates = duplicates(topics.iter());
        let mut told = BTreeSet::new();
        let mut results = Vec::with_capacity(topics.len());
        for topic in topics {
            if matches!(topic, TopicRef::Name(_) | TopicRef::Id(_)) && duplicates.contains(&topic) {
                if told.insert(topic.clone()) {
                    let is_id = matches!(topic, TopicRef::Id(_));
                    let error = if is_id { TopicError::DuplicateId } else { TopicError::Duplicate };
                    results.push((topic, Err(error)));
                }
                continue;
            }
            let result = judge_deletion(&self.tip, &self.config, &topic)
                .map(|topic| DeletedTopicRef { id: topic.id, name: topic.name.clone() });
            if let Ok(deleted) = &result {
                self.accept(Record::TopicDeleted { topic: deleted.id });
            }
            results.push((topic, result));
        }
        Reply::DeleteTopics(results)
    }

    fn alter_configs(&mut self, resources: Vec<(ConfigResource, ConfigChange)>, validate_only: bool) -> Reply {
        let mut results = Vec::with_capacity(resources.len());
        for (resource, change) in resources {
            let record = judge_alteration(&self.tip, &self.config, &resource, &change);
            if let Ok(Some(record)) = &record
                && !validate_only
            {
                self.accept(record.clone());
            }
            results.push((resource, record.map(drop)));
        }
        Reply::AlterConfigs(results)
    }

    fn create_partitions(&mut self, topics: Vec<MorePartitions>, validate_only: bool) -> Reply {
        let duplicates = duplicates(topics.iter().map(|topic| &topic.name));
        let mut told = BTreeSet::new();
        let mut results = Vec::with_capacity(topics.len());
        // As in `create_topics`: together the topics may be more than the shards carry.
        let mut trial = validate_only.then(|| self.tip.clone());
        for more in topics {
            if duplicates.contains(&more.name) {
                if told.insert(more.name.clone()) {
                    results.push((more.name, Err(TopicError::Duplicate)));
                }
                continue;
            }
            let record = judge_growth(trial.as_ref().unwrap_or(&self.tip), &self.config, &more);
            match (&record, &mut trial) {
                (Err(_), _) => {}
                (Ok(record), None) => self.accept(record.clone()),
                (Ok(record), Some(trial)) => {
                    let applied = trial.apply(record);
                    invariant!(applied.is_ok(), "{applied:?} of {record:?}");
                }
            }
            results.push((more.name, record.map(drop)));
        }
        Reply::CreatePartitions(results)
    }

    fn materialize(&mut self, partitions: Vec<TopicIdPartition>) -> Reply {
        let is_known = |partition: &TopicIdPartition| {
            self.tip.topic(partition.topic).is_some_and(|topic| topic.has(partition.partition))
        };
        let (mut known, unknown): (Vec<_>, Vec<_>) = partitions.into_iter().partition(is_known);
        known.retain(|partition| {
            !self.tip.topic(partition.topic).is_some_and(|topic| topic.is_materialized(partition.partition))
        });
        if !known.is_empty() {
            // Partitions that queue together go into one record: a broker whose clients all come at once materializes
            // thousands within one append.
            match self.queued.back_mut() {
                Some(Record::PartitionsMaterialized { partitions }) if partitions.len() < MATERIALIZED_COUNT_MAX => {
                    let applied = self.tip.materialize(&known);
                    invariant!(applied.is_ok(), "{applied:?} of {known:?}");
                    partitions.append(&mut known);
                }
                _ => self.accept(Record::PartitionsMaterialized { partitions: known }),
            }
        }
        Reply::Materialized { unknown }
    }

    fn allocate_producer_ids(&mut self) -> Reply {
        let block = ProducerIdBlock { first: self.tip.next_producer_id(), count: PRODUCER_ID_BLOCK_COUNT };
        self.accept(Record::ProducerIdBlock(block));
        Reply::ProducerIds(block)
    }

    fn directories_removed(&mut self, shard: ShardId, topic: TopicId) {
        let is_deleted = self.tip.deleted.get(&topic).is_some();
        if !is_deleted || self.failed.is_some() || usize::from(shard.0) >= self.applied.len() {
            return;
        }
        let shards = self.removals.entry(topic).or_default();
        shards.insert(shard);
        if shards.len() == self.applied.len() {
            self.removals.remove(&topic);
            self.accept(Record::TopicDirectoriesRemoved { topic });
        }
    }

    // The log and the shards.

    /// Queues a record that was judged to fit the tip.
    fn accept(&mut self, record: Record) {
        let applied = self.tip.apply(&record);
        invariant!(applied.is_ok(), "{applied:?} of {record:?}");
        self.queued.push_back(record);
    }

    fn append_queued(&mut self, effects: &mut Vec<Effect<T>>) {
        if self.queued.is_empty() || !self.in_flight.is_empty() {
            return;
        }
        let mut values = Vec::new();
        let mut size_bytes = 0;
        while let Some(record) = self.queued.front() {
            let value = record.encode();
            size_bytes += value.len();
            if size_bytes > METADATA_BATCH_SIZE_BYTES_MAX && !values.is_empty() {
                break;
            }
            values.push(value);
            self.in_flight.extend(self.queued.pop_front());
        }
        effects.push(Effect::Append { base_offset: self.committed.version().plus(1), values });
    }

    fn appended(&mut self, effects: &mut Vec<Effect<T>>) {
        if self.failed.is_some() {
            return;
        }
        invariant!(!self.in_flight.is_empty(), "an append ended that was not begun");
        for record in self.in_flight.drain(..) {
            let applied = self.committed.apply(&record);
            invariant!(applied.is_ok(), "{applied:?} of {record:?}");
        }
        effects.push(Effect::Publish(self.committed.clone()));
    }

    fn append_failed(&mut self, cause: String, effects: &mut Vec<Effect<T>>) {
        self.in_flight.clear();
        self.queued.clear();
        self.tip = self.committed.clone();
        let first_lost = self.waiting.partition_point(|waiting| waiting.version <= self.committed.version());
        for Waiting { ticket, .. } in self.waiting.drain(first_lost..) {
            let result = Err(ControllerError::LogFailed { cause: cause.clone() });
            effects.push(Effect::Reply { ticket, result });
        }
        self.failed.get_or_insert(cause);
    }

    fn applied(&mut self, shard: ShardId, version: Offset) {
        invariant!(version <= self.committed.version(), "shard {shard} applied {version}, which was not published");
        let applied = &mut self.applied[usize::from(shard.0)];
        *applied = version.max(*applied);
    }

    fn reply_ready(&mut self, effects: &mut Vec<Effect<T>>) {
        let Some(version) = self.applied.iter().min().copied() else { return };
        let ready = self.waiting.partition_point(|waiting| waiting.version <= version);
        for Waiting { ticket, reply, .. } in self.waiting.drain(..ready) {
            effects.push(Effect::Reply { ticket, result: Ok(reply) });
        }
    }

    fn new_topic_id(&mut self) -> TopicId {
        loop {
            let id = TopicId(self.random_uuid());
            if self.tip.topic(id).is_none() && self.tip.deleted.get(&id).is_none() {
                return id;
            }
        }
    }

    /// A random id that does not print with a leading dash, which command lines would take for a flag (as Kafka
    /// avoids it).
    fn random_uuid(&mut self) -> Uuid {
        loop {
            let mut bytes = [0; 16];
            self.rng.fill(&mut bytes);
            let uuid = uuid::Builder::from_random_bytes(bytes).into_uuid();
            if !TopicId(uuid).to_string().starts_with('-') {
                return uuid;
            }
        }
    }
}

/// What is there more than once.
fn duplicates<'a, T: Ord + Clone + 'a>(entries: impl Iterator<Item = &'a T>) -> BTreeSet<T> {
    let mut seen = BTreeSet::new();
    entries.filter(|entry| !seen.insert(*entry)).cloned().collect()
}

/// Partitions of one PartitionsMaterialized, 20 bytes each, so that the record stays well below a batch.
const MATERIALIZED_COUNT_MAX: usize = METADATA_BATCH_SIZE_BYTES_MAX / 64;
