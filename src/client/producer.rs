//! Records to batches to the partitions' leaders.
//!
//! How it works
//! 1. [`Producer::push`] puts a record into its partition's open batch; a full one is sealed and waits.
//! 2. Every leader has at most one request under way, with one batch of each of its partitions; the next fills
//!    meanwhile. So the order of a partition's records is kept through retries.
//! 3. Retriable refusals and broken connections put batches back in front and ask for metadata again.
//!
//! With acks=all and a broker that gives producer ids, batches carry sequences: a batch that was stored although its
//! answer was lost is not stored twice.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{InitProducerIdRequest, ProduceRequest};

use super::cluster::{Client, MAX_VERSION, TopicInfo, pause, topic_name};
use super::error::{ClientError, is_retriable};
use super::partitioner::Partitioner;
use crate::base::time::Timestamp;
use crate::model::builder::BatchBuilder;
use crate::model::compression::Codec;
use crate::model::id::{BrokerId, ProducerEpoch, ProducerId, Sequence};
use crate::protocol::ErrorCode;

/// From this Produce version on topics go by id (KIP-516).
const BY_ID_FROM: i16 = 13;
/// The least version for zstd (KIP-110).
const ZSTD_FROM: i16 = 7;

/// How a [`Producer`] sends.
#[derive(Clone, Debug)]
pub struct ProducerOptions {
    /// -1 all, 1 the leader, 0 none: then nothing is known about what became of a record.
    pub acks: i16,
    /// Of the batches.
    pub codec: Codec,
    /// Its level, or the usual one.
    pub level: Option<i32>,
    /// A batch is sealed when it would grow beyond this, uncompressed.
    pub batch_size_bytes: usize,
    /// A request carries at most so much, or one batch.
    pub request_size_bytes_max: usize,
    /// Sealed batches that may wait; then `push` blocks.
    pub waiting_size_bytes_max: usize,
    /// Ask for a producer id, if `acks` is -1.
    pub idempotent: bool,
}

impl Default for ProducerOptions {
    fn default() -> Self {
        ProducerOptions {
            acks: -1,
            codec: Codec::None,
            level: None,
            batch_size_bytes: 128 << 10,
            request_size_bytes_max: 8 << 20,
            waiting_size_bytes_max: 32 << 20,
            idempotent: true,
        }
    }
}

/// A record to be sent.
#[derive(Clone, Copy, Debug)]
pub struct OutRecord<'a> {
    /// `None`: by key, or any.
    pub partition: Option<i32>,
    /// Key, or null.
    pub key: Option<&'a [u8]>,
    /// Value, or null.
    pub value: Option<&'a [u8]>,
    /// Headers in order.
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
    /// Its time.
    pub timestamp: Timestamp,
}

/// What has been acknowledged, or with acks=0 sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Records.
    pub record_count: u64,
    /// Their batches.
    pub batch_count: u64,
    /// Bytes of keys, values and headers with their framing, uncompressed.
    pub record_bytes: u64,
    /// Bytes of batches as sent.
    pub batch_bytes: u64,
}

/// A sealed batch.
#[derive(Clone, Debug)]
struct Batch {
    bytes: Bytes,
    record_count: u64,
    record_bytes: u64,
}

/// Sends to one topic.
pub struct Producer {
    client: Client,
    topic: TopicInfo,
    options: ProducerOptions,
    partitioner: Partitioner,
    producer: Option<(ProducerId, ProducerEpoch)>,
    sequences: BTreeMap<i32, Sequence>,
    open: BTreeMap<i32, BatchBuilder>,
    sealed: BTreeMap<i32, VecDeque<Batch>>,
    sealed_bytes: usize,
    under_way: BTreeMap<i32, Vec<(i32, Batch)>>,
    stuck_since: Option<Instant>,
    totals: Totals,
    base_offsets: BTreeMap<i32, (i64, i64)>,
}

impl Producer {
    /// For `topic`, which the broker may create if it does that. `seed` says where keyless records begin.
    pub fn new(mut client: Client, topic: &str, options: ProducerOptions, seed: u64) -> Result<Producer, ClientError> {
        let topic = client.topic(topic, true)?;
        let producer = if options.idempotent && options.acks == -1 { producer_id(&mut client)? } else { None };
        Ok(Producer {
            partitioner: Partitioner::new(topic.partitions.len(), seed),
            client,
            topic,
            options,
            producer,
            sequences: BTreeMap::new(),
            open: BTreeMap::new(),
            sealed: BTreeMap::new(),
            sealed_bytes: 0,
            under_way: BTreeMap::new(),
            stuck_since: None,
            totals: Totals::default(),
            base_offsets: BTreeMap::new(),
        })
    }

    /// Adds a record. Blocks when too much waits.
    pub fn push(&mut self, record: OutRecord<'_>) -> Result<(), ClientError> {
        let partition = match record.partition {
            Some(partition) if self.topic.partitions.iter().any(|p| p.index == partition) => partition,
            Some(partition) => {
                let count = self.topic.partitions.len();
                return Err(ClientError::NoPartition { topic: self.topic.name.clone(), partition, count });
            }
            None => self.partitioner.partition(record.key),
        };
        let size_bytes = estimated_size_bytes(&record);
        let full = self
            .open
            .get(&partition)
            .is_some_and(|open| !open.is_empty() && open.size_bytes() + size_bytes > self.options.batch_size_bytes);
        if full {
            self.seal(partition);
            if record.partition.is_none() && record.key.is_none() {
                self.partitioner.next_batch();
            }
            self.dispatch()?;
            while self.sealed_bytes > self.options.waiting_size_bytes_max {
                self.settle_one()?;
                self.dispatch()?;
            }
            // A keyless record follows the sticky partition that has just moved.
            return self.push(record);
        }
        let (codec, level) = (self.options.codec, self.options.level);
        let open = self.open.entry(partition).or_insert_with(|| BatchBuilder::new(codec).level(level));
        open.push(record.timestamp, record.key, record.value, record.headers);
        Ok(())
    }

    /// Sends everything and waits for the answers.
    pub fn flush(&mut self) -> Result<(), ClientError> {
        let partitions: Vec<i32> = self.open.keys().copied().collect();
        for partition in partitions {
            self.seal(partition);
        }
        loop {
            self.dispatch()?;
            if self.under_way.is_empty() && self.sealed_bytes == 0 {
                return Ok(());
            }
            self.settle_one()?;
        }
    }

    /// What has been acknowledged so far.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// First and last acknowledged offset of each partition; nothing with acks=0.
    pub fn offsets(&self) -> &BTreeMap<i32, (i64, i64)> {
        &self.base_offsets
    }

    fn seal(&mut self, partition: i32) {
        let Some(mut open) = self.open.remove(&partition).filter(|open| !open.is_empty()) else { return };
        let record_count = open.record_count();
        let record_bytes = (open.size_bytes() - crate::model::batch::HEADER_SIZE) as u64;
        if let Some((id, epoch)) = self.producer {
            let sequence = self.sequences.entry(partition).or_insert(Sequence(0));
            open = open.producer(id, epoch, *sequence);
            *sequence = sequence.plus(record_count);
        }
        let bytes = Bytes::from(open.build());
        self.sealed_bytes += bytes.len();
        let batch = Batch { bytes, record_count: record_count as u64, record_bytes };
        self.sealed.entry(partition).or_default().push_back(batch);
    }

    /// Gives every idle leader a request.
    fn dispatch(&mut self) -> Result<(), ClientError> {
        let mut requests: BTreeMap<i32, Vec<(i32, Batch)>> = BTreeMap::new();
        let mut sizes: BTreeMap<i32, usize> = BTreeMap::new();
        let mut leaderless = None;
        for (partition, waiting) in &mut self.sealed {
            let Some(batch) = waiting.front() else { continue };
            match self.client.leader(&self.topic.name, *partition) {
                Ok(leader) if self.under_way.contains_key(&leader.0) => {}
                Ok(leader) => {
                    let size = sizes.entry(leader.0).or_default();
                    if *size == 0 || *size + batch.bytes.len() <= self.options.request_size_bytes_max {
                        *size += batch.bytes.len();
                        let batch = waiting.pop_front().expect("looked at above");
                        self.sealed_bytes -= batch.bytes.len();
                        requests.entry(leader.0).or_default().push((*partition, batch));
                    }
                }
                Err(error) => leaderless = Some(error),
            }
        }
        for (leader, batches) in requests {
            self.send(BrokerId(leader), batches)?;
        }
        // With answers under way there is something to do before this is tried again.
        match leaderless.filter(|_| self.under_way.is_empty()) {
            Some(error) => self.retry_later(error),
            None => Ok(()),
        }
    }

    fn send(&mut self, leader: BrokerId, batches: Vec<(i32, Batch)>) -> Result<(), ClientError> {
        let result = self.try_send(leader, &batches);
        match result {
            Ok(()) if self.options.acks == 0 => {
                batches.iter().for_each(|(_, batch)| self.count(batch));
                Ok(())
            }
            Ok(()) => {
                self.under_way.insert(leader.0, batches);
                Ok(())
            }
            Err(error) => {
                self.client.forget(leader);
                self.put_back(batches);
                self.retry_later(error)
            }
        }
    }

    fn try_send(&mut self, leader: BrokerId, batches: &[(i32, Batch)]) -> Result<(), ClientError> {
        let data = batches
            .iter()
            .map(|(partition, batch)| {
                PartitionProduceData::default().with_index(*partition).with_records(Some(batch.bytes.clone()))
            })
            .collect();
        let connection = self.client.broker(leader)?;
        let mut version = connection.version_of::<ProduceRequest>(MAX_VERSION)?;
        if self.topic.id.is_none() {
            version = version.min(BY_ID_FROM - 1);
        }
        if self.options.codec == Codec::Zstd && version < ZSTD_FROM {
            return Err(ClientError::Request(format!(
                "{} does not take zstd; use another --codec",
                connection.address()
            )));
        }
        let topic = TopicProduceData::default().with_partition_data(data);
        let topic = if version >= BY_ID_FROM {
            topic.with_topic_id(self.topic.id.0)
        } else {
            topic.with_name(topic_name(&self.topic.name))
        };
        let request = ProduceRequest::default()
            .with_acks(self.options.acks)
            .with_timeout_ms(ANSWER_WAIT_MS)
            .with_topic_data(vec![topic]);
        if self.options.acks == 0 {
            connection.send_unanswered(version, &request)
        } else {
            connection.send(version, &request)
        }
    }

    /// Waits for one answer, if any is under way.
    fn settle_one(&mut self) -> Result<(), ClientError> {
        let Some((leader, batches)) = self.under_way.pop_first() else { return Ok(()) };
        let leader = BrokerId(leader);
        let response = match self.client.open_broker(leader) {
            Some(connection) => connection.receive::<ProduceRequest>(),
            None => Err(ClientError::Broker {
                what: format!("broker {leader}"),
                code: ErrorCode::BrokerNotAvailable.code(),
                message: None,
            }),
        };
        let response = match response {
            Ok(response) => response,
            Err(error) => {
                self.client.forget(leader);
                self.put_back(batches);
                return self.retry_later(error);
            }
        };
        let answers: BTreeMap<i32, PartitionProduceResponse> =
            response.responses.into_iter().flat_map(|t| t.partition_responses).map(|p| (p.index, p)).collect();
        let (mut again, mut cause) = (Vec::new(), None);
        for (partition, batch) in batches {
            let what = || format!("producing to partition {partition} of topic {}", self.topic.name);
            let Some(answer) = answers.get(&partition) else {
                return Err(ClientError::Request(format!("{}: the answer left it out", what())));
            };
            match answer.error_code {
                0 => {
                    self.note_offsets(partition, answer.base_offset, batch.record_count);
                    self.count(&batch);
                }
                // Stored before, by a request whose answer was lost.
                code if code == ErrorCode::DuplicateSequenceNumber.code() => self.count(&batch),
                code if is_retriable(code) => {
                    cause = Some(ClientError::Broker { what: what(), code, message: None });
                    again.push((partition, batch));
                }
                code => {
                    let message = answer.error_message.as_deref().map(str::to_string);
                    return Err(ClientError::Broker { what: what(), code, message });
                }
            }
        }
        self.put_back(again);
        match cause {
            Some(error) => self.retry_later(error),
            None => {
                self.stuck_since = None;
                Ok(())
            }
        }
    }

    /// Pauses and learns who leads now, unless it has been going on for too long.
    fn retry_later(&mut self, error: ClientError) -> Result<(), ClientError> {
        let since = *self.stuck_since.get_or_insert_with(Instant::now);
        if !error.is_retriable() || since.elapsed() > self.client.retry_for() {
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

    fn put_back(&mut self, batches: Vec<(i32, Batch)>) {
        for (partition, batch) in batches {
            self.sealed_bytes += batch.bytes.len();
            self.sealed.entry(partition).or_default().push_front(batch);
        }
    }

    fn count(&mut self, batch: &Batch) {
        self.totals.record_count += batch.record_count;
        self.totals.batch_count += 1;
        self.totals.record_bytes += batch.record_bytes;
        self.totals.batch_bytes += batch.bytes.len() as u64;
    }

    fn note_offsets(&mut self, partition: i32, base_offset: i64, record_count: u64) {
        let last = base_offset + record_count as i64 - 1;
        self.base_offsets.entry(partition).and_modify(|range| range.1 = last).or_insert((base_offset, last));
    }
}

/// How long the broker may wait for replicas.
const ANSWER_WAIT_MS: i32 = 30_000;

/// A producer id, or none from a broker that has no such API.
fn producer_id(client: &mut Client) -> Result<Option<(ProducerId, ProducerEpoch)>, ClientError> {
    let request = InitProducerIdRequest::default().with_transactional_id(None).with_transaction_timeout_ms(60_000);
    let result = client.retry(None, |client| {
        let response = client.call_any(MAX_VERSION, |_| request.clone())?;
        ClientError::check(response.error_code, None, || "asking for a producer id".into())?;
        Ok((ProducerId(response.producer_id.0), ProducerEpoch(response.producer_epoch)))
    });
    match result {
        Ok(producer) => Ok(Some(producer)),
        Err(ClientError::Unsupported { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// At least what the record takes in a batch.
fn estimated_size_bytes(record: &OutRecord<'_>) -> usize {
    /// Lengths, deltas and attributes at their longest.
    const OVERHEAD: usize = 36;
    let headers: usize = record.headers.iter().map(|(key, value)| 10 + key.len() + value.map_or(0, <[u8]>::len)).sum();
    OVERHEAD + record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len) + headers
}
