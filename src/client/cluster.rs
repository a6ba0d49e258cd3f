//! The brokers as one: metadata, a connection for each broker that is needed, and bounded retries.
//!
//! Every shard is a broker, so one process at one address still means several connections. Requests about a partition
//! go to its leader; a refusal that says the leader is elsewhere makes the metadata be asked for again.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::{Request, StrBytes};

use super::connection::{Connection, ConnectionOptions};
use super::error::{ClientError, is_retriable};
use crate::model::id::{BrokerId, LeaderEpoch, TopicId};
use crate::protocol::ErrorCode;

/// The first pause before a retry; it doubles up to [`RETRY_WAIT_MAX`].
const RETRY_WAIT_MIN: Duration = Duration::from_millis(20);
const RETRY_WAIT_MAX: Duration = Duration::from_secs(1);

/// How a [`Client`] behaves.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Of each connection.
    pub connection: ConnectionOptions,
    /// How long retriable refusals are retried before they are given to the caller.
    pub retry_for: Duration,
}

impl Default for ClientOptions {
    fn default() -> Self {
        ClientOptions { connection: ConnectionOptions::default(), retry_for: Duration::from_secs(30) }
    }
}

/// A broker as metadata lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerInfo {
    /// Its id.
    pub id: BrokerId,
    /// `host:port`.
    pub address: String,
    /// Its failure domain.
    pub rack: Option<String>,
}

/// A topic as metadata lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicInfo {
    /// Its name.
    pub name: String,
    /// Its id; nil from brokers that have none.
    pub id: TopicId,
    /// Made by the broker for itself.
    pub internal: bool,
    /// In order of index.
    pub partitions: Vec<PartitionInfo>,
}

/// A partition as metadata lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionInfo {
    /// Its index.
    pub index: i32,
    /// 0, or why it cannot be used.
    pub error_code: i16,
    /// The broker that leads it.
    pub leader: Option<BrokerId>,
    /// The leader's epoch.
    pub leader_epoch: LeaderEpoch,
    /// All replicas.
    pub replicas: Vec<BrokerId>,
    /// Those in sync.
    pub in_sync: Vec<BrokerId>,
}

/// What one Metadata answer said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterInfo {
    /// The cluster's id.
    pub cluster_id: Option<String>,
    /// The broker for controller requests.
    pub controller: Option<BrokerId>,
    /// By id.
    pub brokers: BTreeMap<i32, BrokerInfo>,
    /// By name. Topics with an error are not here but in `topic_errors`.
    pub topics: BTreeMap<String, TopicInfo>,
    /// Names that were asked for and refused.
    pub topic_errors: BTreeMap<String, i16>,
}

/// The client.
pub struct Client {
    options: ClientOptions,
    bootstrap: Vec<String>,
    any: Option<Connection>,
    connections: BTreeMap<i32, Connection>,
    info: ClusterInfo,
}

impl Client {
    /// Connects to the first address of a comma-separated list that answers, and asks who the brokers are.
    pub fn connect(bootstrap: &str, options: ClientOptions) -> Result<Client, ClientError> {
        let bootstrap: Vec<String> =
            bootstrap.split(',').map(|part| part.trim().to_string()).filter(|part| !part.is_empty()).collect();
        for address in &bootstrap {
            let (host, port) = address.rsplit_once(':').ok_or_else(|| ClientError::Address(address.clone()))?;
            if host.is_empty() || port.parse::<u16>().is_err() {
                return Err(ClientError::Address(address.clone()));
            }
        }
        let mut client =
            Client { options, bootstrap, any: None, connections: BTreeMap::new(), info: ClusterInfo::default() };
        client.any()?;
        Ok(client)
    }

    /// What the last Metadata answers said.
    pub fn info(&self) -> &ClusterInfo {
        &self.info
    }

    /// Asks for the brokers and the named topics, or all topics. Does not create topics.
    pub fn metadata(&mut self, topics: Option<&[&str]>) -> Result<&ClusterInfo, ClientError> {
        let request = metadata_request(topics, false);
        let response = self.call_any::<MetadataRequest>(MAX_VERSION, |version| for_version(&request, version))?;
        self.learn(&response);
        Ok(&self.info)
    }

    /// The topic with all its partitions; a topic that is just being made, or moved, is waited for. With `create` the
    /// broker may create it if it does that by itself.
    pub fn topic(&mut self, name: &str, create: bool) -> Result<TopicInfo, ClientError> {
        let deadline = Instant::now() + self.options.retry_for.min(Duration::from_secs(5));
        let mut wait = RETRY_WAIT_MIN;
        loop {
            let request = metadata_request(Some(&[name]), create);
            let response = self.call_any::<MetadataRequest>(MAX_VERSION, |version| for_version(&request, version))?;
            self.learn(&response);
            if let Some(topic) = self.info.topics.get(name) {
                return Ok(topic.clone());
            }
            let code = self.info.topic_errors.get(name).copied().unwrap_or(ErrorCode::UnknownTopicOrPartition.code());
            // Unknown is final unless the broker was asked to make it.
            let final_answer = code == ErrorCode::UnknownTopicOrPartition.code() && !create;
            if final_answer || !is_retriable(code) || Instant::now() >= deadline {
                return Err(ClientError::Broker { what: format!("topic {name}"), code, message: None });
            }
            pause(&mut wait);
        }
    }

    /// The leader of a partition by the last metadata.
    pub fn leader(&self, topic: &str, partition: i32) -> Result<BrokerId, ClientError> {
        let info = self.info.topics.get(topic);
        let Some(found) = info.and_then(|t| t.partitions.iter().find(|p| p.index == partition)) else {
            let count = info.map_or(0, |t| t.partitions.len());
            return Err(ClientError::NoPartition { topic: topic.to_string(), partition, count });
        };
        found.leader.ok_or_else(|| ClientError::NoLeader { topic: topic.to_string(), partition })
    }

    /// The connection to a broker, made if there is none.
    pub fn broker(&mut self, id: BrokerId) -> Result<&mut Connection, ClientError> {
        if !self.connections.contains_key(&id.0) {
            let address = match self.info.brokers.get(&id.0) {
                Some(broker) => broker.address.clone(),
                None => {
                    let code = ErrorCode::BrokerNotAvailable.code();
                    return Err(ClientError::Broker { what: format!("broker {id}"), code, message: None });
                }
            };
            self.connections.insert(id.0, Connection::open(&address, &self.options.connection)?);
        }
        Ok(self.connections.get_mut(&id.0).expect("inserted above"))
    }

    /// The open connection to a broker, if there is one.
    pub fn open_broker(&mut self, id: BrokerId) -> Option<&mut Connection> {
        self.connections.get_mut(&id.0)
    }

    /// The same to look at.
    pub fn open_connection(&self, id: BrokerId) -> Option<&Connection> {
        self.connections.get(&id.0)
    }

    /// Forgets a connection after an error on it.
    pub fn forget(&mut self, id: BrokerId) {
        self.connections.remove(&id.0);
    }

    /// A call that any broker can answer. `build` makes the request for the version agreed on.
    pub fn call_any<R: Request>(
        &mut self,
        version_max: i16,
        build: impl Fn(i16) -> R,
    ) -> Result<R::Response, ClientError> {
        let connection = self.any()?;
        let version = connection.version_of::<R>(version_max)?;
        let result = connection.call(version, &build(version));
        if result.as_ref().is_err_and(|error| matches!(error, ClientError::Connection { .. })) {
            // The broker may have closed an idle connection or been started again: once more on a new one.
            self.any = None;
            let connection = self.any()?;
            let version = connection.version_of::<R>(version_max)?;
            return connection.call(version, &build(version));
        }
        result
    }

    /// A call to one broker. The connection is forgotten if it fails.
    pub fn call_broker<R: Request>(
        &mut self,
        id: BrokerId,
        version_max: i16,
        build: impl Fn(i16) -> R,
    ) -> Result<R::Response, ClientError> {
        let connection = self.broker(id)?;
        let result =
            connection.version_of::<R>(version_max).and_then(|version| connection.call(version, &build(version)));
        if result.is_err() {
            self.forget(id);
        }
        result
    }

    /// A call to the controller.
    pub fn call_controller<R: Request>(
        &mut self,
        version_max: i16,
        build: impl Fn(i16) -> R,
    ) -> Result<R::Response, ClientError> {
        if self.info.controller.is_none() {
            self.metadata(Some(&[]))?;
        }
        match self.info.controller {
            Some(id) => self.call_broker(id, version_max, build),
            None => self.call_any(version_max, build),
        }
    }

    /// Runs `step` until it succeeds, fails for good, or the time for retries is over. Before each retry the metadata
    /// of `topic` are asked for again.
    pub fn retry<T>(
        &mut self,
        topic: Option<&str>,
        mut step: impl FnMut(&mut Client) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        let deadline = Instant::now() + self.options.retry_for;
        let mut wait = RETRY_WAIT_MIN;
        loop {
            let error = match step(self) {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            if !error.is_retriable() || Instant::now() + wait >= deadline {
                return Err(error);
            }
            pause(&mut wait);
            match topic {
                Some(name) => self.topic(name, false).map(drop)?,
                None => self.metadata(Some(&[])).map(drop)?,
            }
        }
    }

    /// How long retriable refusals are retried.
    pub fn retry_for(&self) -> Duration {
        self.options.retry_for
    }

    /// Changes how long retriable refusals are retried.
    pub fn set_retry_for(&mut self, retry_for: Duration) {
        self.options.retry_for = retry_for;
    }

    fn any(&mut self) -> Result<&mut Connection, ClientError> {
        if self.any.is_none() {
            let listed: Vec<String> = self.info.brokers.values().map(|broker| broker.address.clone()).collect();
            let mut first_error = None;
            for address in self.bootstrap.iter().chain(&listed) {
                match Connection::open(address, &self.options.connection) {
                    Ok(connection) => {
                        self.any = Some(connection);
                        break;
                    }
                    Err(error) => first_error = first_error.or(Some(error)),
                }
            }
            if let Some(error) = first_error.filter(|_| self.any.is_none()) {
                return Err(error);
            }
        }
        self.any.as_mut().ok_or_else(|| ClientError::Address(String::new()))
    }

    fn learn(&mut self, response: &MetadataResponse) {
        let broker = |id: &kafka_protocol::messages::BrokerId| BrokerId(id.0);
        let brokers: BTreeMap<i32, BrokerInfo> = response
            .brokers
            .iter()
            .map(|b| {
                let host = if b.host.contains(':') { format!("[{}]", b.host.as_str()) } else { b.host.to_string() };
                let address = format!("{host}:{}", b.port);
                let rack = b.rack.as_ref().map(|rack| rack.to_string());
                (b.node_id.0, BrokerInfo { id: broker(&b.node_id), address, rack })
            })
            .collect();
        // A broker that has moved is another one.
        self.connections
            .retain(|id, connection| brokers.get(id).is_some_and(|broker| broker.address == connection.address()));
        self.info.brokers = brokers;
        self.info.cluster_id = response.cluster_id.as_ref().map(|id| id.to_string());
        self.info.controller = (response.controller_id.0 >= 0).then_some(broker(&response.controller_id));
        for topic in &response.topics {
            let Some(name) = topic.name.as_ref().map(|name| name.0.to_string()) else { continue };
            if topic.error_code != 0 {
                self.info.topics.remove(&name);
                self.info.topic_errors.insert(name, topic.error_code);
                continue;
            }
            let mut partitions: Vec<_> = topic
                .partitions
                .iter()
                .map(|p| PartitionInfo {
                    index: p.partition_index,
                    error_code: p.error_code,
                    leader: (p.leader_id.0 >= 0).then_some(broker(&p.leader_id)),
                    leader_epoch: LeaderEpoch(p.leader_epoch),
                    replicas: p.replica_nodes.iter().map(broker).collect(),
                    in_sync: p.isr_nodes.iter().map(broker).collect(),
                })
                .collect();
            partitions.sort_by_key(|p| p.index);
            self.info.topic_errors.remove(&name);
            let info =
                TopicInfo { name: name.clone(), id: TopicId(topic.topic_id), internal: topic.is_internal, partitions };
            self.info.topics.insert(name, info);
        }
    }
}

/// No bound from our side.
pub const MAX_VERSION: i16 = i16::MAX;

/// A name as the protocol's type.
pub fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_string()))
}

/// A text as the protocol's type.
pub fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_string())
}

fn metadata_request(topics: Option<&[&str]>, create: bool) -> MetadataRequest {
    let topics = topics.map(|names| {
        names.iter().map(|name| MetadataRequestTopic::default().with_name(Some(topic_name(name)))).collect()
    });
    MetadataRequest::default().with_topics(topics).with_allow_auto_topic_creation(create)
}

/// Before version 4 a broker creates topics as it likes: the field is not there.
fn for_version(request: &MetadataRequest, version: i16) -> MetadataRequest {
    let request = request.clone();
    if version < 4 { request.with_allow_auto_topic_creation(true) } else { request }
}

/// Sleeps and doubles the next pause.
pub(super) fn pause(wait: &mut Duration) {
    sleep(*wait);
    *wait = (*wait * 2).min(RETRY_WAIT_MAX);
}
