//! Produce: batches out of the frame, into the logs, acknowledged when the logs say so.
//!
//! 1. The request is walked where it lies; each batch is checked, given to its partition's log, and noted in a
//!    [`ProduceTask`] with the offset that the high watermark has to reach.
//! 2. Where a log is not ready (its directory or space is being made, staging is full) the whole request is held at
//!    that partition: nothing behind it on the connection takes effect first. It goes on there when there is room, or
//!    answers REQUEST_TIMED_OUT after its own time-out.
//! 3. The task answers when the last of its partitions is acknowledged. acks=0 is answered by silence, and its errors
//!    by closing the connection, as Kafka does.
//!
//! Hot path: tasks, their vectors and the answer's are reused; a batch is copied once, by the log.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::broker::{Broker, Handled};
use super::call::RequestInfo;
use super::errors;
use super::located::Located;
use super::recompress::recompress;
use crate::base::coverage;
use crate::base::mutant;
use crate::base::time::{Monotonic, Timestamp};
use crate::io::Io;
use crate::model::batch::{self, Header};
use crate::model::configs::{TimestampType, TopicConfig, Validate};
use crate::model::id::{Offset, PartitionIndex, ProducerId, TopicId};
use crate::model::limits::RECORDS_SIZE_BYTES_MAX;
use crate::model::records;
use crate::net::{CloseReason, ConnectionId, Ticket};
use crate::protocol::error::ErrorCode;
use crate::protocol::produce::{
    ProducePartitionResponse, ProduceRequest, ProduceResponseEncoder, ProduceStep, ProduceSteps,
};
use crate::protocol::{LeaderIdAndEpoch, Topic, TopicRef};
use crate::storage::producer_state::Verdict;
use crate::storage::{AppendError, State};

/// What a Produce may be held back at least: the first append to a partition waits for its directory, and Kafka, which
/// makes it beforehand, serves requests with a time-out of 0.
const HELD_MIN: Duration = Duration::from_secs(1);
/// The longest that a Produce is held back, whatever time-out it names.
const HELD_MAX: Duration = Duration::from_secs(30);

/// A topic of a request, kept after the frame is gone.
#[derive(Clone, Debug)]
enum TopicKey {
    Name(Arc<str>),
    Id(TopicId),
}

/// What became of one partition of a request.
#[derive(Debug)]
struct Outcome {
    index: PartitionIndex,
    error: ErrorCode,
    base_offset: Offset,
    log_append_time: Timestamp,
    log_start_offset: Offset,
    message: Option<Box<str>>,
    leader: Option<LeaderIdAndEpoch>,
}

impl Outcome {
    fn refused(index: PartitionIndex, error: ErrorCode, message: Option<Box<str>>) -> Outcome {
        Outcome {
            index,
            error,
            base_offset: Offset::NONE,
            log_append_time: Timestamp::NONE,
            log_start_offset: Offset::NONE,
            message,
            leader: None,
        }
    }
}

/// A Produce request that is not answered yet.
#[derive(Debug)]
pub struct ProduceTask {
    ticket: Ticket,
    version: i16,
    correlation_id: i32,
    topics: Vec<(TopicKey, usize)>,
    outcomes: Vec<Outcome>,
    // Partitions that are not acknowledged yet, plus one while the request is still being taken in.
    waiting_count: usize,
}

/// The Produce requests of a shard that are not answered yet.
#[derive(Debug, Default)]
pub struct ProduceTasks {
    // Never moved and never shrunk: a free one's vectors serve the next request.
    tasks: Vec<ProduceTask>,
    free: Vec<u32>,
}

/// What waits in a partition for its high watermark: which outcome of which task.
#[derive(Clone, Copy, Debug)]
pub struct AckWait {
    /// The first offset that is not waited for.
    pub end: Offset,
    task: u32,
    outcome: u32,
}

/// A request that is held back, and where to go on.
#[derive(Debug)]
pub struct HeldProduce {
    task: Option<u32>,
    topic_count: usize,
    done_count: usize,
    deadline: Monotonic,
    failed: bool,
    has_looked_ahead: bool,
    checked: Option<Checked>,
}

/// The batch that a request is held at was found sound, under this configuration: its bytes do not change meanwhile,
/// and checking them may mean to decompress a megabyte.
#[derive(Debug)]
struct Checked {
    header: Header,
    config: Arc<TopicConfig>,
}

/// What an append attempt came to.
enum Attempt {
    Done(Outcome),
    Waits(Outcome, u32, Offset),
    /// The partition has no room, or the shard no memory, for a batch that is sound.
    Hold {
        slot: u32,
        header: Header,
        wants_memory: bool,
    },
}

impl ProduceTasks {
    fn insert(&mut self, ticket: Ticket, version: i16, correlation_id: i32) -> u32 {
        let index = self.free.pop().unwrap_or_else(|| {
            let (topics, outcomes) = (Vec::new(), Vec::new());
            self.tasks.push(ProduceTask { ticket, version, correlation_id, topics, outcomes, waiting_count: 0 });
            u32::try_from(self.tasks.len() - 1).expect("bounded by requests in flight")
        });
        let task = &mut self.tasks[index as usize];
        debug_assert!(task.waiting_count == 0 && task.topics.is_empty() && task.outcomes.is_empty());
        (task.ticket, task.version, task.correlation_id) = (ticket, version, correlation_id);
        task.waiting_count = 1;
        index
    }

    /// The connections whose requests these are.
    pub(super) fn connections(&self) -> impl Iterator<Item = ConnectionId> {
        self.tasks.iter().filter(|task| task.waiting_count > 0).map(|task| task.ticket.connection)
    }

    fn get(&mut self, index: u32) -> &mut ProduceTask {
        let task = &mut self.tasks[index as usize];
        assert!(task.waiting_count > 0, "a task lives until all of its waits are over");
        task
    }

    fn get_correlation(&self, index: u32) -> i32 {
        self.tasks[index as usize].correlation_id
    }

    /// Frees a task whose waits are over. It keeps memory for a request of few partitions: that of larger ones is
    /// small beside their batches.
    fn remove(&mut self, index: u32) {
        const KEPT_COUNT_MAX: usize = 8;
        let task = &mut self.tasks[index as usize];
        debug_assert!(task.waiting_count == 0);
        task.topics.clear();
        task.outcomes.clear();
        task.topics.shrink_to(KEPT_COUNT_MAX);
        task.outcomes.shrink_to(KEPT_COUNT_MAX);
        self.free.push(index);
    }
}

impl<I: Io> Broker<I> {
    /// Takes a Produce request in, or goes on with one that was held back.
    pub(super) fn produce(&mut self, id: ConnectionId, info: RequestInfo, frame: &mut [u8]) -> Handled {
        let Ok(request) = ProduceRequest::parse(frame, info.body_offset, info.version) else {
            return Handled::Close(CloseReason::Malformed("Produce"));
        };
        let mut held = self.held.remove(&id).unwrap_or_else(|| self.begin_produce(id, info.correlation_id, &request));
        let refused_acks = !matches!(request.acks, -1..=1);
        let transactional_id: Option<Box<str>> = request.transactional_id(frame).map(Into::into);
        let is_late = self.now.monotonic >= held.deadline;

        let mut steps = request.steps();
        let mut topic = TopicRef::Id(TopicId::NONE);
        let (mut topic_number, mut position) = (0, 0);
        while let Some(step) = steps.next(frame) {
            let (index, records) = match step {
                ProduceStep::Topic { topic: next, partition_count } => {
                    topic_number += 1;
                    if topic_number > held.topic_count {
                        held.topic_count = topic_number;
                        if let Some(task) = held.task {
                            let key = self.topic_key(next.resolve(frame));
                            self.produce_tasks.get(task).topics.push((key, partition_count));
                        }
                    }
                    topic = next;
                    continue;
                }
                ProduceStep::Partition { index, records } => (index, records),
            };
            position += 1;
            if position <= held.done_count {
                continue;
            }
            let checked = held.checked.take();
            let attempt = if refused_acks {
                Attempt::Done(Outcome::refused(index, ErrorCode::InvalidRequiredAcks, None))
            } else {
                let id = transactional_id.as_deref();
                self.append_records(&topic, index, records.clone(), id, info.version, frame, checked)
            };
            let size = records.map_or(0, |records| records.len()) as u64;
            match attempt {
                Attempt::Done(outcome) => {
                    self.counters.produce_bytes_received += size;
                    self.note_outcome(&mut held, outcome, None);
                }
                Attempt::Waits(outcome, slot, end) => {
                    self.counters.produce_bytes_received += size;
                    self.note_outcome(&mut held, outcome, Some((slot, end)));
                }
                Attempt::Hold { .. } if is_late => {
                    self.counters.produce_bytes_received += size;
                    self.counters.produce_bytes_refused += size;
                    self.note_outcome(&mut held, Outcome::refused(index, ErrorCode::RequestTimedOut, None), None);
                }
                Attempt::Hold { slot, header, wants_memory } => {
                    if wants_memory {
                        self.park_for_memory(id);
                    } else {
                        self.park_for_room(id, slot);
                        if !held.has_looked_ahead {
                            held.has_looked_ahead = true;
                            self.materialize_ahead(steps.clone(), topic.clone(), frame);
                        }
                    }
                    held.checked = Some(Checked { header, config: self.partitions.get_mut(slot).config.clone() });
                    held.done_count = position - 1;
                    coverage::hit("produce: held back");
                    self.counters.produce_held += 1;
                    self.look_again(id, held.deadline);
                    self.held.insert(id, held);
                    return Handled::Hold;
                }
            }
        }
        match held.task {
            Some(task) => self.release_produce(task),
            None if held.failed => return Handled::Close(CloseReason::Malformed("Produce with acks=0 failed")),
            None => {}
        }
        Handled::Done
    }

    /// The request is held at a partition: those that follow get their directories meanwhile, not one by one.
    fn materialize_ahead(&mut self, mut steps: ProduceSteps, mut topic: TopicRef, frame: &[u8]) {
        while let Some(step) = steps.next(frame) {
            let (index, records) = match step {
                ProduceStep::Topic { topic: next, .. } => {
                    topic = next;
                    continue;
                }
                ProduceStep::Partition { index, records } => (index, records),
            };
            let has_batch = records.is_some_and(|records| Header::parse(&frame[records]).is_some());
            if has_batch
                && let Located::Here(slot) = self.locate(topic.resolve(frame), index)
                && self.partitions.get_mut(slot).log.state() == State::Absent
                && !self.is_directory_taken(slot)
            {
                self.partitions.get_mut(slot).log.materialize_ahead(&mut self.io, self.now);
            }
        }
    }

    fn begin_produce(&mut self, id: ConnectionId, correlation_id: i32, request: &ProduceRequest) -> HeldProduce {
        let wait = Duration::from_millis(request.timeout_ms.max(0) as u64).clamp(HELD_MIN, HELD_MAX);
        let task = (request.acks != 0).then(|| {
            let ticket = self.open_ticket(id);
            self.produce_tasks.insert(ticket, request.version, correlation_id)
        });
        let deadline = self.now.monotonic + wait;
        HeldProduce {
            task,
            topic_count: 0,
            done_count: 0,
            deadline,
            failed: false,
            has_looked_ahead: false,
            checked: None,
        }
    }

    fn topic_key(&self, topic: Topic<'_>) -> TopicKey {
        match topic {
            Topic::Id(id) => TopicKey::Id(id),
            Topic::Name(name) => {
                TopicKey::Name(self.image.topic_by_name(name).map_or_else(|| name.into(), |topic| topic.name.clone()))
            }
        }
    }

    fn note_outcome(&mut self, held: &mut HeldProduce, outcome: Outcome, wait: Option<(u32, Offset)>) {
        held.failed |= !outcome.error.is_none();
        let Some(index) = held.task else { return };
        let task = self.produce_tasks.get(index);
        task.outcomes.push(outcome);
        if let Some((slot, end)) = wait {
            task.waiting_count += 1;
            let outcome = task.outcomes.len() as u32 - 1;
            self.partitions.get_mut(slot).acks.push_back(AckWait { end, task: index, outcome });
        }
    }

    /// Tries to append the records of one partition. `transactional_id`: what the request says. `checked`: what is known of them from an earlier attempt.
    #[allow(clippy::too_many_arguments)]
    fn append_records(
        &mut self,
        topic: &TopicRef,
        index: PartitionIndex,
        records: Option<Range<usize>>,
        transactional_id: Option<&str>,
        version: i16,
        frame: &mut [u8],
        checked: Option<Checked>,
    ) -> Attempt {
        let size = records.as_ref().map_or(0, |range| range.len()) as u64;
        let refuse = |broker: &mut Self, error: ErrorCode, message: Option<Box<str>>| {
            broker.counters.produce_bytes_refused += size;
            Attempt::Done(Outcome::refused(index, error, message))
        };
        let slot = match self.locate(topic.resolve(frame), index) {
            Located::Here(slot) => slot,
            Located::Elsewhere(leader) => {
                self.counters.produce_bytes_refused += size;
                let mut outcome = Outcome::refused(index, ErrorCode::NotLeaderOrFollower, None);
                outcome.leader = Some(leader);
                return Attempt::Done(outcome);
            }
            Located::Unknown(error) => return refuse(self, error, None),
        };
        let Some(records) = records.filter(|records| !records.is_empty()) else {
            return refuse(self, ErrorCode::InvalidRecord, Some("there is no record batch".into()));
        };
        let now = self.now;
        let partition = self.partitions.get_mut(slot);
        if partition.is_internal {
            let message = format!("Cannot append to internal topic {}", partition.topic);
            return refuse(self, ErrorCode::InvalidTopicException, Some(message.into()));
        }
        let known = checked.filter(|checked| Arc::ptr_eq(&checked.config, &partition.config));
        let header = match known {
            Some(checked) => checked.header,
            None => {
                self.counters.produce_batches_checked += 1;
                match check_batch(&partition.config, &frame[records.clone()], version, now.wall) {
                    Ok(header) => header,
                    Err((error, message)) => return refuse(self, error, Some(message.into())),
                }
            }
        };
        let log_start_offset = partition.log.log_start();
        let log_append_time = partition.config.message_timestamp_type == TimestampType::LogAppendTime;
        if let Some(cause) = partition.log.offline() {
            // A batch that is sent again would wait for a write that never comes.
            let error = AppendError::Offline(cause.clone());
            return refuse(self, errors::of_append(&error), Some(error.to_string().into()));
        }
        match partition.log.producers().check(&header) {
            Ok(Verdict::Append) => {}
            Ok(Verdict::Duplicate { .. }) if mutant::is_on("append_duplicates") => {}
            Ok(Verdict::Duplicate { base_offset, last_offset, timestamp }) => {
                self.counters.produce_bytes_refused += size;
                let mut outcome = Outcome::refused(index, ErrorCode::None, None);
                outcome.base_offset = base_offset;
                outcome.log_append_time = if log_append_time { timestamp } else { Timestamp::NONE };
                outcome.log_start_offset = log_start_offset;
                let end = last_offset.plus(1);
                return if partition.log.high_watermark() >= end || mutant::is_on("answer_duplicates_at_once") {
                    coverage::hit("produce: a duplicate");
                    Attempt::Done(outcome)
                } else {
                    coverage::hit("produce: a duplicate waits");
                    Attempt::Waits(outcome, slot, end)
                };
            }
            Err(error) => return refuse(self, errors::of_producer(&error), Some(error.to_string().into())),
        }
        if header.attributes.is_transactional() {
            match self.check_transaction(slot, &header, transactional_id, version) {
                Some(Ok(())) => {}
                Some(Err(error)) => return refuse(self, error, None),
                None => return Attempt::Hold { slot, header, wants_memory: false },
            }
        }
        if self.partitions.get_mut(slot).log.state() == State::Absent && self.is_directory_taken(slot) {
            return Attempt::Hold { slot, header, wants_memory: true };
        }
        let partition = self.partitions.get_mut(slot);
        let mut recompressed = match recompress(&partition.config, &header, &frame[records.clone()]) {
            Ok(recompressed) => recompressed,
            Err((error, message)) => return refuse(self, error, Some(message.into())),
        };
        let (bytes, stored) = match &mut recompressed {
            None => (&mut frame[records], header),
            Some(bytes) => {
                let stored = Header::parse(bytes).expect("it was just made");
                (&mut bytes[..], stored)
            }
        };
        match partition.log.append(&mut self.io, bytes, &stored, now) {
            Ok(appended) => {
                self.counters.produce_bytes_appended += size;
                self.counters.produce_batches_appended += 1;
                let mut outcome = Outcome::refused(index, ErrorCode::None, None);
                outcome.base_offset = appended.base_offset;
                outcome.log_append_time = if log_append_time { now.wall } else { Timestamp::NONE };
                outcome.log_start_offset = log_start_offset;
                self.mark_dirty(slot);
                Attempt::Waits(outcome, slot, appended.end)
            }
            Err(AppendError::NotReady) if mutant::is_on("refuse_instead_of_holding") => {
                refuse(self, ErrorCode::RequestTimedOut, None)
            }
            Err(AppendError::NotReady) => Attempt::Hold { slot, header, wants_memory: false },
            Err(AppendError::NoMemory) => {
                self.mark_dirty(slot);
                self.journal.hurry();
                Attempt::Hold { slot, header, wants_memory: true }
            }
            Err(error) => refuse(self, errors::of_append(&error), Some(error.to_string().into())),
        }
    }

    /// Whether a batch may come into its producer's transaction; `None`: that is being asked.
    #[inline(never)]
    fn check_transaction(
        &mut self,
        slot: u32,
        header: &Header,
        transactional_id: Option<&str>,
        version: i16,
    ) -> Option<Result<(), ErrorCode>> {
        let producer = (header.producer_id, header.producer_epoch);
        let log = &self.partitions.get_mut(slot).log;
        if log.has_transaction(producer.0, producer.1) {
            return Some(Ok(()));
        }
        // As Kafka: a transaction has an id, and nobody may use none.
        let Some(id) = transactional_id else { return Some(Err(ErrorCode::TransactionalIdAuthorizationFailed)) };
        if !log.has_room_for_transaction() {
            return Some(Err(ErrorCode::RequestTimedOut));
        }
        self.verified(slot, id, producer, header.base_sequence, version)
    }

    /// One wait of a task is over; the last one answers.
    fn release_produce(&mut self, index: u32) {
        let task = self.produce_tasks.get(index);
        task.waiting_count -= 1;
        if task.waiting_count > 0 {
            return;
        }
        let ticket = task.ticket;
        if !self.is_answerable(ticket) {
            // Its connection is gone, perhaps in the middle of the request.
            return self.produce_tasks.remove(index);
        }
        if mutant::is_on("forget_an_answer") && self.produce_tasks.get_correlation(index) % 61 == 60 {
            return self.produce_tasks.remove(index);
        }
        let task = &self.produce_tasks.tasks[index as usize];
        const KEPT_SIZE_BYTES_MAX: usize = 64 * 1024;
        let mut bytes = std::mem::take(&mut self.scratch);
        bytes.clear();
        let mut encoder =
            ProduceResponseEncoder::begin(&mut bytes, task.version, task.correlation_id, task.topics.len());
        let mut outcomes = task.outcomes.iter();
        let mut has_leaders = false;
        for (topic, partition_count) in &task.topics {
            let topic = match topic {
                TopicKey::Name(name) => Topic::Name(name),
                TopicKey::Id(id) => Topic::Id(*id),
            };
            encoder.topic(topic, *partition_count);
            for outcome in outcomes.by_ref().take(*partition_count) {
                has_leaders |= outcome.leader.is_some();
                encoder.partition(&ProducePartitionResponse {
                    index: outcome.index,
                    error: outcome.error,
                    base_offset: outcome.base_offset,
                    log_append_time: outcome.log_append_time,
                    log_start_offset: outcome.log_start_offset,
                    record_errors: &[],
                    error_message: outcome.message.as_deref(),
                    current_leader: outcome.leader,
                });
            }
        }
        match has_leaders {
            true => encoder.finish(0, &self.endpoints.wire()),
            false => encoder.finish(0, &[]),
        }
        self.produce_tasks.remove(index);
        self.answer_copy(ticket, &bytes);
        bytes.shrink_to(KEPT_SIZE_BYTES_MAX);
        self.scratch = bytes;
    }

    /// The partition's high watermark has moved: what waited for it is acknowledged.
    pub(super) fn acknowledge(&mut self, slot: u32) {
        let partition = self.partitions.get_mut(slot);
        let high_watermark = partition.log.high_watermark();
        while let Some(wait) = self.partitions.get_mut(slot).acks.pop_front_if(|wait| wait.end <= high_watermark) {
            self.release_produce(wait.task);
        }
    }

    /// The partition is gone or offline: what waits for it is refused.
    pub(super) fn refuse_waiting(&mut self, slot: u32, error: ErrorCode) {
        while let Some(wait) = self.partitions.get_mut(slot).acks.pop_front() {
            let outcome = &mut self.produce_tasks.get(wait.task).outcomes[wait.outcome as usize];
            *outcome = Outcome::refused(outcome.index, error, None);
            self.release_produce(wait.task);
        }
    }

    /// The connection of a held request is gone.
    pub(super) fn forget_held(&mut self, id: ConnectionId) {
        self.parked.remove(&id);
        if let Some(HeldProduce { task: Some(task), .. }) = self.held.remove(&id) {
            self.release_produce(task);
        }
    }
}

/// Checks a batch: that it is sound in itself, and what the topic's configuration asks of it.
fn check_batch(
    config: &TopicConfig,
    bytes: &[u8],
    version: i16,
    now: Timestamp,
) -> Result<Header, (ErrorCode, String)> {
    const ZSTD: u8 = 4;
    let header = batch::validate(bytes).map_err(|error| (errors::of_batch(&error), error.to_string()))?;
    if header.size_bytes > config.max_message_bytes {
        let message =
            format!("{} bytes are more than max.message.bytes={}", header.size_bytes, config.max_message_bytes);
        return Err((ErrorCode::MessageTooLarge, message));
    }
    if header.attributes.codec() == ZSTD && version < 7 {
        return Err((ErrorCode::UnsupportedCompressionType, "zstd needs Produce 7".into()));
    }
    if header.attributes.is_transactional() && header.producer_id == ProducerId::NONE {
        return Err((ErrorCode::InvalidRecord, "a transaction without a producer id".into()));
    }
    let has_time =
        config.message_timestamp_type == TimestampType::CreateTime && header.max_timestamp != Timestamp::NONE;
    // The header tells the greatest time only: the least one is known from the records.
    let needs_least = has_time && config.message_timestamp_before_max_ms < i64::MAX as u64;
    let mut times = (header.base_timestamp, header.max_timestamp);
    if config.validate == Validate::Records || needs_least {
        let compacts = config.cleanup_policy.compact;
        let summary = records::validate_records(&header, bytes, RECORDS_SIZE_BYTES_MAX, compacts)
            .map_err(|error| (ErrorCode::InvalidRecord, error.to_string()))?;
        times = (summary.min_timestamp, summary.max_timestamp.0.max(header.max_timestamp));
    }
    if has_time {
        let before = now.0.saturating_sub(times.0.0).max(0) as u64;
        let after = times.1.0.saturating_sub(now.0).max(0) as u64;
        if before > config.message_timestamp_before_max_ms || after > config.message_timestamp_after_max_ms {
            let message = format!("timestamps {} to {} are out of the topic's bounds", times.0.0, times.1.0);
            return Err((ErrorCode::InvalidTimestamp, message));
        }
    }
    Ok(header)
}
