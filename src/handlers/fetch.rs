//! Fetch: what is wanted, waiting until there is enough of it, reading, and the answer with gaps.
//!
//! 1. The request and its session say which partitions to look at ([`FetchSessions`]). A [`FetchTask`] notes them.
//! 2. If there is less than `min_bytes` and nothing to tell at once, the task waits in its partitions
//!    ([`super::fetch_waits`]); an append or `max_wait_ms` wakes it.
//! 3. The partitions are read one after the other within the limits of request, partition and broker. Memory is taken
//!    as it is; disk reads complete later and the task goes on.
//! 4. The answer's pieces refer to the bytes: tail cache, file range, or what was read directly.
//!
//! Invariants: an answer never reaches past the high watermark, and for `read_committed` not past the last stable
//! offset; the first batch is returned whole, however large;
//! a task holds its pins until its answer is sent or its connection is gone.
//!
//! [`FetchSessions`]: super::fetch_session::FetchSessions

use std::time::Duration;

use super::broker::{Broker, Handled};
use super::call::RequestInfo;
use super::deadlines::Deadline;
use super::errors;
use super::fetch_session::{SessionError, Told, TopicRef, Wanted};
use super::fetch_tasks::{FetchTask, Part};
use super::located::Located;
use super::room::FetchTurn;
use super::token::{self, Kind};
use crate::base::coverage;
use crate::base::mutant;
use crate::base::units::MIB;
use crate::io::{Completion, Io};
use crate::model::id::{LeaderEpoch, Offset, PartitionIndex, ProducerId, TopicId, TopicIdPartition};
use crate::net::{CloseReason, ConnectionId, Content, Gap, Response};
use crate::protocol::error::ErrorCode;
use crate::protocol::fetch::{FetchRequest, FetchResponseEncoder, FetchResponseHead, FetchStep, ForgottenStep};
use crate::protocol::{LeaderIdAndEpoch, Topic, TopicRef as WireTopicRef};
use crate::storage::{Range, ReadError, ReadRequest, ReadSource, ReadStep, UpTo};

/// What a fetch that reads from disk may hold, as a rule: one read of each of its partitions in turn.
const READ_EXPECTED_BYTES: u64 = MIB as u64;
/// When a fetch that found no memory to read into is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(10);
/// From this version on topics go by id.
const BY_ID_FROM: i16 = 13;

impl<I: Io> Broker<I> {
    /// Takes a Fetch request in.
    pub(super) fn fetch(&mut self, id: ConnectionId, info: RequestInfo, frame: &[u8]) -> Handled {
        if self.waits_for_fetches(id) {
            return Handled::Hold;
        }
        let Ok(request) = FetchRequest::parse(frame, info.body_offset, info.version) else {
            return Handled::Close(CloseReason::Malformed("Fetch"));
        };
        let ticket = self.open_ticket(id);
        let wanted = wanted_of(&request, frame);
        let forgotten = forgotten_of(&request, frame);
        let session = (request.session_id, request.session_epoch);
        let by_id = info.version >= BY_ID_FROM;
        let plan = match request.session_epoch > 0 && self.sessions.is_named_otherwise(request.session_id, by_id) {
            true => Err(SessionError::TopicIdError),
            false => self.sessions.begin(session, wanted, &forgotten, &mut self.rng, self.now.monotonic),
        };
        let max_bytes = usize::try_from(request.max_bytes).unwrap_or(0).min(self.options.fetch_max_bytes);
        let mut task = Box::new(FetchTask {
            ticket,
            version: info.version,
            correlation_id: info.correlation_id,
            session_id: 0,
            incremental: false,
            up_to: match request.is_read_committed {
                true => UpTo::LastStable,
                false => UpTo::HighWatermark,
            },
            min_bytes: usize::try_from(request.min_bytes).unwrap_or(0).min(max_bytes),
            max_bytes,
            parts: Vec::new(),
            next: 0,
            size_bytes: 0,
            available_bytes: 0,
            until: self.now.monotonic + Duration::from_millis(request.max_wait_ms.max(0) as u64),
            room_until: None,
            read: None,
            is_expected: false,
            is_cold: false,
            waits_for_disk: false,
        });
        match plan {
            Err(error) => {
                let error = match error {
                    SessionError::IdNotFound => ErrorCode::FetchSessionIdNotFound,
                    SessionError::InvalidEpoch => ErrorCode::InvalidFetchSessionEpoch,
                    SessionError::TopicIdError => ErrorCode::FetchSessionTopicIdError,
                };
                self.answer_fetch(&mut task, error);
                return Handled::Done;
            }
            Ok(plan) => {
                task.session_id = plan.session_id;
                task.incremental = plan.incremental;
                task.parts = plan.wanted.into_iter().map(Part::new).collect();
            }
        }
        if request.replica_id.0 >= 0 {
            // There are no followers: Kafka's answer to one that it does not know.
            task.parts.iter_mut().for_each(|part| part.refuse(ErrorCode::NotLeaderOrFollower));
            self.answer_fetch(&mut task, ErrorCode::None);
            return Handled::Done;
        }
        let waits = !self.has_enough(&mut task) && self.now.monotonic < task.until;
        let (index, generation) = self.fetch_tasks.insert(task);
        if waits {
            self.wait_for_data(index, generation);
        } else {
            self.run_fetch(index, generation);
        }
        Handled::Done
    }

    /// Finds the part's partition and checks what the client believes of it; notes the error if there is one.
    pub(super) fn look_at(&mut self, part: &mut Part) -> Option<u32> {
        let topic = match &part.wanted.topic {
            TopicRef::Id(id) => Topic::Id(*id),
            TopicRef::Name(name) => Topic::Name(name),
        };
        let slot = match self.locate(topic, part.wanted.partition) {
            Located::Here(slot) => slot,
            Located::Elsewhere(leader) => {
                part.refuse(ErrorCode::NotLeaderOrFollower);
                part.current_leader = Some(leader);
                return None;
            }
            Located::Unknown(error) => {
                part.refuse(error);
                return None;
            }
        };
        let leader = LeaderIdAndEpoch { leader: self.broker_id(), leader_epoch: LeaderEpoch::NONE };
        let log = &self.partitions.get_mut(slot).log;
        let epoch = log.leader_epoch();
        let believed = part.wanted.current_leader_epoch;
        if believed != LeaderEpoch::NONE && believed != epoch {
            part.refuse(if believed < epoch { ErrorCode::FencedLeaderEpoch } else { ErrorCode::UnknownLeaderEpoch });
            part.current_leader = Some(LeaderIdAndEpoch { leader_epoch: epoch, ..leader });
            return None;
        }
        if log.offline().is_some() {
            part.refuse(ErrorCode::KafkaStorageError);
            return None;
        }
        let (start, end) = (log.log_start(), log.high_watermark());
        if part.wanted.last_fetched_epoch != LeaderEpoch::NONE {
            let (known, known_end) = log.epoch_end_offset(part.wanted.last_fetched_epoch);
            if known == LeaderEpoch::NONE {
                part.refuse(ErrorCode::OffsetOutOfRange);
                return None;
            }
            if known < part.wanted.last_fetched_epoch || known_end < part.wanted.fetch_offset {
                part.high_watermark = end;
                part.last_stable_offset = log.last_stable_offset();
                part.log_start_offset = start;
                part.diverging_epoch = Some((known, known_end));
                return None;
            }
        }
        // What is appended and not yet acknowledged is no error, it only cannot be read.
        if part.wanted.fetch_offset < start || part.wanted.fetch_offset > log.log_end() {
            part.refuse(ErrorCode::OffsetOutOfRange);
            return None;
        }
        Some(slot)
    }

    /// A read for a fetch has completed.
    pub(super) fn fetch_completed(&mut self, index: u32, generation: u16, completion: Completion) {
        let Some(mut task) = self.fetch_tasks.take(index, generation) else { return };
        let (read, read_from) = task.read.take().expect("it was reading");
        let part = task.next;
        match self.look_at(&mut task.parts[part]) {
            None => {
                self.end_cold(&mut task);
                task.next += 1;
            }
            // The topic was deleted and created again: the new one is read from the beginning of the part.
            Some(slot) if self.partitions.get_mut(slot).id != read_from => self.end_cold(&mut task),
            Some(slot) => {
                let log = &mut self.partitions.get_mut(slot).log;
                // The read goes up to the high watermark of today: the one that is told must not lie below.
                task.parts[part].note(log);
                let step = read.resume(&mut self.io, log, completion.result);
                if self.take_step(&mut task, step, read_from, (index, generation)) {
                    return self.fetch_tasks.put_back(index, task);
                }
            }
        }
        self.fetch_tasks.put_back(index, task);
        self.run_fetch(index, generation);
    }

    /// Reads on from where the task stands, and answers it when everything is read.
    pub(super) fn run_fetch(&mut self, index: u32, generation: u16) {
        let mut task = self.fetch_tasks.take(index, generation).expect("the caller knows that it is there");
        if !self.is_answerable(task.ticket) {
            self.end_cold(&mut task);
            return self.fetch_tasks.finish(index);
        }
        if task.waits_for_disk {
            // Its turn comes.
            return self.fetch_tasks.put_back(index, task);
        }
        let may_read = match task.next {
            0 => match self.fetch_turn(&mut task, index, generation) {
                FetchTurn::Read => true,
                FetchTurn::Empty => false,
                FetchTurn::Wait => return self.fetch_tasks.put_back(index, task),
            },
            _ => true,
        };
        while task.next < task.parts.len() {
            let part = task.next;
            let Some(slot) = self.look_at(&mut task.parts[part]) else {
                task.next += 1;
                continue;
            };
            let left = task.max_bytes.saturating_sub(task.size_bytes).min(self.room().size_bytes_max());
            let wanted = &task.parts[part].wanted;
            let limit = left.min(usize::try_from(wanted.size_bytes_max).unwrap_or(0));
            let is_first = task.size_bytes == 0;
            let offset = wanted.fetch_offset;
            let partition = self.partitions.get_mut(slot);
            let (log, read_from) = (&mut partition.log, partition.id);
            task.parts[part].note(log);
            let end = match task.up_to {
                UpTo::LastStable => log.last_stable_offset(),
                UpTo::HighWatermark | UpTo::LogEnd => log.high_watermark(),
            };
            let source = log.source_of(offset);
            if !may_read || (limit == 0 && !is_first) || offset >= end {
                task.next += 1;
                continue;
            }
            if source != ReadSource::Memory && !self.begin_cold(&mut task, index, generation) {
                return self.fetch_tasks.put_back(index, task);
            }
            let limit = match source {
                ReadSource::Memory | ReadSource::Sealed => limit,
                ReadSource::Active => limit.min(self.cold_pace().size_bytes_max),
            };
            let log = &mut self.partitions.get_mut(slot).log;
            let request = ReadRequest {
                offset: astray(offset, log.log_start(), log.high_watermark()),
                size_bytes_max: u32::try_from(limit).unwrap_or(u32::MAX),
                min_one_batch: is_first,
                up_to: if mutant::is_on("read_unacknowledged") { UpTo::LogEnd } else { task.up_to },
            };
            let step = log.read(&mut self.io, token::base(Kind::Fetch, index, generation), request);
            if self.take_step(&mut task, step, read_from, (index, generation)) {
                return self.fetch_tasks.put_back(index, task);
            }
        }
        self.answer_fetch(&mut task, ErrorCode::None);
        self.fetch_tasks.finish(index);
    }

    /// Notes what a read came to. True if it goes on later.
    fn take_step(
        &mut self,
        task: &mut FetchTask,
        step: ReadStep,
        read_from: TopicIdPartition,
        (index, generation): (u32, u16),
    ) -> bool {
        if !matches!(step, ReadStep::Pending(_)) {
            self.end_cold(task);
        }
        let room = self.room();
        let part = &mut task.parts[task.next];
        match step {
            ReadStep::Pending(read) => {
                coverage::hit("fetch: reads from disk");
                task.read = Some((read, read_from));
                self.note_cold(task);
                if !task.is_expected
                    && let Some(connection) = self.connections.find(task.ticket.connection)
                {
                    task.is_expected = true;
                    connection.expect(READ_EXPECTED_BYTES);
                }
                return true;
            }
            ReadStep::Failed(ReadError::NoMemory) if task.size_bytes == 0 => {
                // Others hold it: the client would only ask again at once.
                task.until = self.now.monotonic;
                self.deadlines.push(self.now.monotonic + RETRY_AFTER, Deadline::Fetch { index, generation });
                return true;
            }
            // The rest comes with the next fetch.
            ReadStep::Failed(ReadError::NoMemory) => {}
            ReadStep::Ready(plan) => {
                if plan.paths.splice > 0 {
                    coverage::hit("fetch: splices");
                }
                if plan.paths.tail > 0 {
                    coverage::hit("fetch: from the tail cache");
                }
                self.counters.fetch_bytes_tail += plan.paths.tail;
                self.counters.fetch_bytes_splice += plan.paths.splice;
                self.counters.fetch_bytes_direct += plan.paths.direct;
                self.counters.fetch_bytes_copy += plan.paths.copy;
                part.size_bytes = plan.size_bytes as usize;
                if !plan.aborted.is_empty() && !mutant::is_on("forget_aborted") {
                    let entries = plan.aborted.iter();
                    let entries = entries.map(|entry| (ProducerId(entry.producer_id), Offset(entry.first_offset)));
                    part.aborted = Some(entries.collect());
                }
                part.contents.extend(plan.ranges.into_iter().map(|range| match range {
                    Range::Memory(slice) => room.content_of(slice),
                    Range::File { file, position, length_bytes } => {
                        Content::File { file, position, length_bytes: u64::from(length_bytes) }
                    }
                }));
                task.size_bytes += part.size_bytes;
            }
            ReadStep::Failed(error) => part.refuse(errors::of_read(&error)),
        }
        task.next += 1;
        false
    }

    /// Encodes and sends the answer.
    fn answer_fetch(&mut self, task: &mut FetchTask, error: ErrorCode) {
        if !self.is_answerable(task.ticket) {
            return;
        }
        if task.is_expected
            && let Some(connection) = self.connections.find(task.ticket.connection)
        {
            connection.unexpect(READ_EXPECTED_BYTES);
        }
        let sessions = &mut self.sessions;
        let (session_id, incremental) = (task.session_id, task.incremental);
        task.parts.retain(|part| {
            let told = Told {
                is_error: !part.error.is_none() || part.diverging_epoch.is_some(),
                has_records: part.size_bytes > 0,
                high_watermark: part.high_watermark,
                log_start_offset: part.log_start_offset,
            };
            let key = (part.wanted.topic.clone(), part.wanted.partition);
            sessions.tell(session_id, incremental, &key, told)
        });
        let mut bytes = Vec::with_capacity(128 + 80 * task.parts.len());
        let mut gaps = Vec::new();
        let topic_count = task.parts.chunk_by(|a, b| a.wanted.topic == b.wanted.topic).count();
        let mut encoder = FetchResponseEncoder::begin(
            &mut bytes,
            FetchResponseHead {
                version: task.version,
                correlation_id: task.correlation_id,
                throttle_time_ms: 0,
                error,
                session_id,
                topic_count,
            },
        );
        let mut has_leaders = false;
        for parts in task.parts.chunk_by_mut(|a, b| a.wanted.topic == b.wanted.topic) {
            let count = parts.len();
            match &parts[0].wanted.topic {
                TopicRef::Id(id) => encoder.topic(Topic::Id(*id), count),
                TopicRef::Name(name) => encoder.topic(Topic::Name(name), count),
            }
            for part in parts {
                has_leaders |= part.current_leader.is_some();
                let at = encoder.partition(&part.response(task.up_to), part.size_bytes);
                gaps.extend(part.contents.drain(..).map(|content| Gap { at, content }));
            }
        }
        match has_leaders {
            true => encoder.finish(&self.endpoints.wire()),
            false => encoder.finish(&[]),
        };
        self.answer(task.ticket, Some(Response { bytes, gaps }));
    }
}

/// Where a read begins: where the client asked, unless a broken rule leaves something out or gives it again.
fn astray(offset: Offset, log_start: Offset, high_watermark: Offset) -> Offset {
    if mutant::is_on("leave_records_out") && offset.0 % 7 == 3 && offset.0 + 2 < high_watermark.0 {
        return Offset(offset.0 + 2);
    }
    if mutant::is_on("give_records_again") && offset.0 % 7 == 3 && offset > log_start {
        return Offset(offset.0 - 1);
    }
    offset
}

fn wanted_of(request: &FetchRequest, frame: &[u8]) -> Vec<Wanted> {
    let mut wanted = Vec::with_capacity(request.partition_count);
    let mut topic = TopicRef::Id(TopicId::NONE);
    let mut steps = request.steps();
    while let Some(step) = steps.next(frame) {
        match step {
            FetchStep::Topic { topic: next, .. } => topic = owned(&next, frame),
            FetchStep::Partition(partition) => wanted.push(Wanted {
                topic: topic.clone(),
                partition: partition.index,
                current_leader_epoch: partition.current_leader_epoch,
                fetch_offset: partition.fetch_offset,
                last_fetched_epoch: partition.last_fetched_epoch,
                size_bytes_max: partition.max_bytes,
            }),
        }
    }
    wanted
}

fn forgotten_of(request: &FetchRequest, frame: &[u8]) -> Vec<(TopicRef, PartitionIndex)> {
    let mut forgotten = Vec::new();
    let mut topic = TopicRef::Id(TopicId::NONE);
    let mut steps = request.forgotten_steps();
    while let Some(step) = steps.next(frame) {
        match step {
            ForgottenStep::Topic { topic: next, .. } => topic = owned(&next, frame),
            ForgottenStep::Partition(index) => forgotten.push((topic.clone(), index)),
        }
    }
    forgotten
}

fn owned(topic: &WireTopicRef, frame: &[u8]) -> TopicRef {
    match topic.resolve(frame) {
        Topic::Id(id) => TopicRef::Id(id),
        Topic::Name(name) => TopicRef::Name(name.into()),
    }
}
