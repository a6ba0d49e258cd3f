//! Long polling of all leaders of a topic's partitions at once, and the records in what comes back.
//!
//! Each leader has one request under way; [`Fetcher::poll`] takes the first answer that arrives, so a quiet broker
//! never holds up a busy one. Positions move when batches are handed out.
//!
//! Invariant: records are handed out in offset order per partition, each once, whatever moves or fails in between.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::messages::FetchRequest;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};

use super::cluster::{Client, MAX_VERSION, TopicInfo, pause, topic_name};
use super::error::{ClientError, is_retriable};
use super::offsets::IsolationLevel;
use crate::base::time::Timestamp;
use crate::model::batch;
use crate::model::id::{BrokerId, Offset, ProducerId};
use crate::model::records::{Headers, Records, section};

/// From this Fetch version on topics go by id (KIP-516).
const BY_ID_FROM: i16 = 13;
/// How much longer than asked a broker may keep an answer to itself.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// The batches of one answer may become at most this much each when decompressed.
const DECOMPRESSED_BYTES_MAX: usize = 1 << 30;

/// How a [`Fetcher`] asks.
#[derive(Clone, Debug)]
pub struct FetchOptions {
    /// What to see of transactions.
    pub isolation: IsolationLevel,
    /// How long a broker may wait for `min_bytes`.
    pub wait_max: Duration,
    /// Answer at once when so much is there.
    pub min_bytes: i32,
    /// Per answer.
    pub max_bytes: i32,
    /// Per partition and answer.
    pub partition_max_bytes: i32,
}

impl Default for FetchOptions {
    fn default() -> Self {
        FetchOptions {
            isolation: IsolationLevel::ReadUncommitted,
            wait_max: Duration::from_millis(500),
            min_bytes: 1,
            max_bytes: 32 << 20,
            partition_max_bytes: 4 << 20,
        }
    }
}

/// One partition of one answer.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// The partition.
    pub partition: i32,
    /// The offset that was asked for: earlier records of the first batch are not wanted.
    pub from: Offset,
    /// Where the next request goes on.
    pub next: Offset,
    /// What was acknowledged to producers when the answer was made.
    pub high_watermark: Offset,
    /// The end of what read_committed may see.
    pub last_stable_offset: Offset,
    batches: Bytes,
    aborted: Vec<(ProducerId, Offset)>,
}

/// One record, borrowed from an answer.
#[derive(Clone, Copy, Debug)]
pub struct Consumed<'a> {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: Offset,
    /// Its time; [`Timestamp::NONE`] if it has none.
    pub timestamp: Timestamp,
    /// Key, or null.
    pub key: Option<&'a [u8]>,
    /// Value, or null.
    pub value: Option<&'a [u8]>,
    /// Headers in order.
    pub headers: Headers<'a>,
}

impl Fetched {
    /// Hands out the records that were asked for, in order, until `each` breaks. Control batches and, with
    /// read_committed, aborted records are left out.
    pub fn for_each<E: From<ClientError>>(
        &self,
        mut each: impl FnMut(Consumed<'_>) -> Result<ControlFlow<()>, E>,
    ) -> Result<ControlFlow<()>, E> {
        let mut aborted = Aborted::new(&self.aborted);
        for (header, bytes) in batch::batches(&self.batches) {
            let damaged =
                |why: String| ClientError::Records { partition: self.partition, offset: header.base_offset.0, why };
            if header.magic != batch::MAGIC {
                return Err(damaged(format!("message format {} is not supported", header.magic)).into());
            }
            if batch::crc_of(bytes) != header.crc {
                return Err(damaged("the CRC does not match".into()).into());
            }
            if aborted.hides(&header, bytes) || header.attributes.is_control() {
                continue;
            }
            let records =
                section(&header, bytes, DECOMPRESSED_BYTES_MAX).map_err(|error| damaged(error.to_string()))?;
            for record in Records::new(&records, header.record_count) {
                let record = record.map_err(|error| damaged(error.to_string()))?;
                let offset = record.offset(&header);
                if offset < self.from {
                    continue;
                }
                let consumed = Consumed {
                    partition: self.partition,
                    offset,
                    timestamp: record.timestamp(&header),
                    key: record.key,
                    value: record.value,
                    headers: record.headers,
                };
                if each(consumed)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// Which producers' transactions are being aborted at the place of the walk.
struct Aborted<'a> {
    /// Not reached yet, by first offset.
    ahead: std::iter::Peekable<std::vec::IntoIter<&'a (ProducerId, Offset)>>,
    now: BTreeSet<ProducerId>,
}

impl<'a> Aborted<'a> {
    fn new(list: &'a [(ProducerId, Offset)]) -> Self {
        let mut ahead: Vec<_> = list.iter().collect();
        ahead.sort_by_key(|(_, first)| *first);
        Aborted { ahead: ahead.into_iter().peekable(), now: BTreeSet::new() }
    }

    fn hides(&mut self, header: &batch::Header, bytes: &[u8]) -> bool {
        while let Some((producer, _)) = self.ahead.next_if(|(_, first)| *first <= header.last_offset()) {
            self.now.insert(*producer);
        }
        if header.attributes.is_control() {
            if is_abort_marker(header, bytes) {
                self.now.remove(&header.producer_id);
            }
            return true;
        }
        header.attributes.is_transactional() && self.now.contains(&header.producer_id)
    }
}

/// A control record's key is its version and type, two `i16`; type 0 is abort.
fn is_abort_marker(header: &batch::Header, bytes: &[u8]) -> bool {
    let Ok(records) = section(header, bytes, DECOMPRESSED_BYTES_MAX) else { return false };
    let Some(Ok(first)) = Records::new(&records, header.record_count).next() else { return false };
    first.key.and_then(|key| key.get(2..4)).is_some_and(|kind| kind == [0, 0])
}

/// Reads partitions of one topic.
pub struct Fetcher {
    client: Client,
    topic: TopicInfo,
    options: FetchOptions,
    positions: BTreeMap<i32, Offset>,
    under_way: BTreeMap<i32, (Instant, Vec<i32>)>,
    /// Rotates, so that no partition is always last in a request that has a size limit.
    turn: usize,
    stuck_since: Option<Instant>,
}

impl Fetcher {
    /// Reads the partitions of `topic` in `positions`, each from its offset.
    pub fn new(
        mut client: Client,
        topic: &str,
        positions: BTreeMap<i32, Offset>,
        options: FetchOptions,
    ) -> Result<Fetcher, ClientError> {
        let topic = client.topic(topic, false)?;
        for partition in positions.keys() {
            if !topic.partitions.iter().any(|p| p.index == *partition) {
                let count = topic.partitions.len();
                return Err(ClientError::NoPartition { topic: topic.name, partition: *partition, count });
            }
        }
        Ok(Fetcher { client, topic, options, positions, under_way: BTreeMap::new(), turn: 0, stuck_since: None })
    }

    /// Stops reading a partition.
    pub fn stop(&mut self, partition: i32) {
        self.positions.remove(&partition);
    }

    /// Partitions that are still read, and where each goes on.
    pub fn positions(&self) -> &BTreeMap<i32, Offset> {
        &self.positions
    }

    /// Waits for the next answer and gives its partitions, the empty ones too (their high watermark says how far it
    /// is). Gives nothing now and then, so that the caller can look at its own deadlines.
    pub fn poll(&mut self) -> Result<Vec<Fetched>, ClientError> {
        if self.positions.is_empty() {
            return Ok(Vec::new());
        }
        if let Err(error) = self.dispatch() {
            self.retry_later(error)?;
            return Ok(Vec::new());
        }
        let Some(leader) = self.wait_for_answer()? else { return Ok(Vec::new()) };
        let asked = self.under_way.remove(&leader.0).map(|(_, asked)| asked).unwrap_or_default();
        let response = match self.client.open_broker(leader) {
            Some(connection) => connection.receive::<FetchRequest>(),
            None => return Ok(Vec::new()),
        };
        let response = match response {
            Ok(response) => response,
            Err(error) => {
                self.client.forget(leader);
                self.retry_later(error)?;
                return Ok(Vec::new());
            }
        };
        ClientError::check(response.error_code, None, || format!("fetching from topic {}", self.topic.name))?;
        let mut fetched = Vec::new();
        let mut cause = None;
        for data in response.responses.into_iter().flat_map(|topic| topic.partitions) {
            if !asked.contains(&data.partition_index) {
                continue;
            }
            match self.take(data) {
                Ok(Some(partition)) => fetched.push(partition),
                Ok(None) => {}
                Err(error) if error.is_retriable() => cause = Some(error),
                Err(error) => return Err(error),
            }
        }
        match cause {
            Some(error) => self.retry_later(error)?,
            None => self.stuck_since = None,
        }
        Ok(fetched)
    }

    fn take(&mut self, data: PartitionData) -> Result<Option<Fetched>, ClientError> {
        let partition = data.partition_index;
        let Some(from) = self.positions.get(&partition).copied() else { return Ok(None) };
        ClientError::check(data.error_code, None, || {
            format!("fetching partition {partition} of topic {} from offset {from}", self.topic.name)
        })?;
        let batches = data.records.unwrap_or_default();
        let next = batch::batches(&batches).last().map_or(from, |(header, _)| header.next_offset().max(from));
        if next == from && !batches.is_empty() && batch::batches(&batches).next().is_none() {
            let why = "the answer holds only a part of a batch".into();
            return Err(ClientError::Records { partition, offset: from.0, why });
        }
        self.positions.insert(partition, next);
        let aborted = match self.options.isolation {
            IsolationLevel::ReadCommitted => data.aborted_transactions.unwrap_or_default(),
            IsolationLevel::ReadUncommitted => Vec::new(),
        };
        Ok(Some(Fetched {
            partition,
            from,
            next,
            high_watermark: Offset(data.high_watermark),
            last_stable_offset: Offset(data.last_stable_offset),
            batches,
            aborted: aborted.iter().map(|a| (ProducerId(a.producer_id.0), Offset(a.first_offset))).collect(),
        }))
    }

    /// Gives every leader without a request one for all of its partitions.
    fn dispatch(&mut self) -> Result<(), ClientError> {
        let mut wanted: BTreeMap<i32, Vec<(i32, Offset)>> = BTreeMap::new();
        for (partition, offset) in &self.positions {
            let leader = self.client.leader(&self.topic.name, *partition)?;
            if !self.under_way.contains_key(&leader.0) {
                wanted.entry(leader.0).or_default().push((*partition, *offset));
            }
        }
        for (leader, mut partitions) in wanted {
            self.turn = self.turn.wrapping_add(1);
            let first = self.turn % partitions.len();
            partitions.rotate_left(first);
            self.send(BrokerId(leader), &partitions).inspect_err(|_| self.client.forget(BrokerId(leader)))?;
            let asked = partitions.iter().map(|(partition, _)| *partition).collect();
            self.under_way.insert(leader, (Instant::now(), asked));
        }
        Ok(())
    }

    fn send(&mut self, leader: BrokerId, partitions: &[(i32, Offset)]) -> Result<(), ClientError> {
        let entries = partitions
            .iter()
            .map(|(partition, offset)| {
                FetchPartition::default()
                    .with_partition(*partition)
                    .with_current_leader_epoch(-1)
                    .with_fetch_offset(offset.0)
                    .with_log_start_offset(-1)
                    .with_partition_max_bytes(self.options.partition_max_bytes)
            })
            .collect();
        let connection = self.client.broker(leader)?;
        let mut version = connection.version_of::<FetchRequest>(MAX_VERSION)?;
        if self.topic.id.is_none() {
            version = version.min(BY_ID_FROM - 1);
        }
        let topic = FetchTopic::default().with_partitions(entries);
        let topic = if version >= BY_ID_FROM {
            topic.with_topic_id(self.topic.id.0)
        } else {
            topic.with_topic(topic_name(&self.topic.name))
        };
        let mut request = FetchRequest::default()
            .with_max_wait_ms(self.options.wait_max.as_millis() as i32)
            .with_min_bytes(self.options.min_bytes)
            .with_max_bytes(self.options.max_bytes)
            .with_isolation_level(self.options.isolation.code())
            .with_topics(vec![topic]);
        if version < 15 {
            request = request.with_replica_id((-1).into());
        }
        if version >= 7 {
            request = request.with_session_id(0).with_session_epoch(-1);
        }
        connection.send(version, &request)
    }

    /// The broker whose answer has begun to arrive, or `None` after about the longest wait that was asked for.
    fn wait_for_answer(&mut self) -> Result<Option<BrokerId>, ClientError> {
        let leaders: Vec<i32> = self.under_way.keys().copied().collect();
        let mut connections = Vec::new();
        for leader in &leaders {
            match self.client.open_connection(BrokerId(*leader)) {
                Some(connection) => connections.push((*leader, connection)),
                None => {
                    // Metadata said that the broker has moved: its answer will never come.
                    self.under_way.remove(leader);
                    return Ok(None);
                }
            }
        }
        let mut polled: Vec<PollFd<'_>> =
            connections.iter().map(|(_, connection)| PollFd::new(connection.as_fd(), PollFlags::POLLIN)).collect();
        let wait = self.options.wait_max + Duration::from_millis(100);
        let timeout = PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX);
        match nix::poll::poll(&mut polled, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(ClientError::Request(format!("poll: {error}"))),
        }
        let ready = polled.iter().position(|fd| fd.revents().is_some_and(|events| !events.is_empty()));
        if let Some(at) = ready {
            return Ok(Some(BrokerId(connections[at].0)));
        }
        // A broker that stays silent for much longer than it was asked to wait is read from all the same: the read
        // has a time limit of its own and says what is wrong.
        let overdue = self.under_way.iter().find(|(_, (sent, _))| sent.elapsed() > self.options.wait_max + SILENCE_MAX);
        Ok(overdue.map(|(leader, _)| BrokerId(*leader)))
    }

    fn retry_later(&mut self, error: ClientError) -> Result<(), ClientError> {
        let since = *self.stuck_since.get_or_insert_with(Instant::now);
        let retriable = match &error {
            ClientError::Broker { code, .. } => is_retriable(*code),
            other => other.is_retriable(),
        };
        if !retriable || since.elapsed() > self.client.retry_for() {
            return Err(error);
        }
        let mut wait = Duration::from_millis(50);
        pause(&mut wait);
        match self.client.topic(&self.topic.name, false) {
            Ok(topic) => {
                self.topic = topic;
                Ok(())
            }
            Err(refresh) if refresh.is_retriable() => Ok(()),
            Err(refresh) => Err(refresh),
        }
    }
}
