//! Fetch: what is wanted, waiting until there is enough of it, reading, and the answer with gaps.
//!
//! 1. The request and its session say which partitions to look at ([`FetchSessions`]). A [`FetchTask`] notes them.
//! 2. If there is less than `min_bytes` and nothing to tell at once, the task waits in its partitions; an append or
//!    `max_wait_ms` wakes it.
//! 3. The partitions are read one after the other within the limits of request, partition and broker. Memory is taken
//!    as it is; disk reads complete later and the task goes on.
//! 4. The answer's pieces refer to the bytes: tail cache, file range, or what was read directly.
//!
//! Invariants: an answer never reaches past the high watermark; the first batch is returned whole, however large;
//! a task holds its pins until its answer is sent or its connection is gone.
//!
//! [`FetchSessions`]: super::fetch_session::FetchSessions

use std::time::Duration;

use super::broker::{Broker, Handled};
use super::call::RequestInfo;
use super::deadlines::Deadline;
use super::errors;
use super::fetch_session::{SessionError, Told, TopicRef, Wanted};
use super::located::Located;
use super::token::{self, Kind};
use crate::base::time::Monotonic;
use crate::base::units::MIB;
use crate::io::{Completion, Io};
use crate::model::id::{LeaderEpoch, Offset, PartitionIndex, TopicIdPartition};
use crate::net::{CloseReason, ConnectionId, Content, Gap, Response, Ticket};
use crate::protocol::error::ErrorCode;
use crate::protocol::fetch::{
    FetchPartitionResponse, FetchRequest, FetchResponseEncoder, FetchResponseHead, FetchStep, ForgottenStep,
};
use crate::protocol::{LeaderIdAndEpoch, Topic, TopicRef as WireTopicRef};
use crate::storage::{Range, ReadError, ReadRequest, ReadStep, ReadTask, UpTo};

/// What a fetch that reads from disk may hold, as a rule: one read of each of its partitions in turn.
const READ_EXPECTED_BYTES: u64 = MIB as u64;
/// When a fetch that found no memory to read into is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(10);
/// How often a fetch that waits is looked at, however long it may wait.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(30);
/// From this version on topics go by id.
const BY_ID_FROM: i16 = 13;

/// What is known of one partition of a task.
struct Part {
    wanted: Wanted,
    error: ErrorCode,
    high_watermark: Offset,
    log_start_offset: Offset,
    current_leader: Option<LeaderIdAndEpoch>,
    diverging_epoch: Option<(LeaderEpoch, Offset)>,
    contents: Vec<Content>,
    size_bytes: usize,
}

impl Part {
    fn new(wanted: Wanted) -> Part {
        Part {
            wanted,
            error: ErrorCode::None,
            high_watermark: Offset::NONE,
            log_start_offset: Offset::NONE,
            current_leader: None,
            diverging_epoch: None,
            contents: Vec::new(),
            size_bytes: 0,
        }
    }

    fn refuse(&mut self, error: ErrorCode) {
        self.error = error;
        self.high_watermark = Offset::NONE;
        self.log_start_offset = Offset::NONE;
        self.contents.clear();
        self.size_bytes = 0;
    }
}

/// A Fetch request that is not answered yet.
pub struct FetchTask {
    ticket: Ticket,
    version: i16,
    correlation_id: i32,
    session_id: i32,
    incremental: bool,
    min_bytes: usize,
    max_bytes: usize,
    parts: Vec<Part>,
    next: usize,
    size_bytes: usize,
    /// When it is answered whatever there is.
    until: Monotonic,
    /// The read under way and whose log it is of: meanwhile the topic may be another one of the same name.
    read: Option<(ReadTask, TopicIdPartition)>,
    /// The connection was told to expect an answer.
    is_expected: bool,
}

#[derive(Default)]
struct Slot {
    generation: u16,
    task: Option<Box<FetchTask>>,
}

/// The Fetch requests of a shard that are not answered yet.
#[derive(Default)]
pub struct FetchTasks {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

impl FetchTasks {
    fn insert(&mut self, task: Box<FetchTask>) -> (u32, u16) {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            u32::try_from(self.slots.len() - 1).expect("bounded by requests in flight")
        });
        let slot = &mut self.slots[index as usize];
        slot.task = Some(task);
        (index, slot.generation)
    }

    /// Takes a task out to work on it; [`put_back`](Self::put_back) or [`finish`](Self::finish) follows.
    fn take(&mut self, index: u32, generation: u16) -> Option<Box<FetchTask>> {
        let slot = self.slots.get_mut(index as usize)?;
        if slot.generation == generation { slot.task.take() } else { None }
    }

    fn put_back(&mut self, index: u32, task: Box<FetchTask>) {
        self.slots[index as usize].task = Some(task);
    }

    fn finish(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(index);
    }

    /// The task, if it waits for more to read.
    fn waiting(&self, index: u32, generation: u16) -> Option<&FetchTask> {
        let slot = self.slots.get(index as usize).filter(|slot| slot.generation == generation)?;
        slot.task.as_deref().filter(|task| task.read.is_none())
    }

    /// The generation of a task that waits, if it is this connection's.
    fn waiting_of(&self, index: u32, id: ConnectionId) -> Option<u16> {
        let slot = &self.slots[index as usize];
        let is_its_own = slot.task.as_ref().is_some_and(|task| task.read.is_none() && task.ticket.connection == id);
        is_its_own.then_some(slot.generation)
    }

    fn is_waiting(&self, index: u32, generation: u16) -> bool {
        self.waiting(index, generation).is_some()
    }
}

impl<I: Io> Broker<I> {
    /// Takes a Fetch request in.
    pub(super) fn fetch(&mut self, id: ConnectionId, info: RequestInfo, frame: &[u8]) -> Handled {
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
            min_bytes: usize::try_from(request.min_bytes).unwrap_or(0).min(max_bytes),
            max_bytes,
            parts: Vec::new(),
            next: 0,
            size_bytes: 0,
            until: self.now.monotonic + Duration::from_millis(request.max_wait_ms.max(0) as u64),
            read: None,
            is_expected: false,
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
        let available = self.available(&mut task);
        let may_wait = self.now.monotonic < task.until;
        let enough = available.is_none_or(|bytes| bytes >= task.min_bytes as u64);
        let (index, generation) = self.fetch_tasks.insert(task);
        if !enough && may_wait {
            self.wait_for_data(index, generation);
        } else {
            self.run_fetch(index, generation);
        }
        Handled::Done
    }

    /// About how many bytes could be returned now. `None` if the task is to be answered at once whatever there is:
    /// it has an error to tell, or nothing to look at.
    fn available(&mut self, task: &mut FetchTask) -> Option<u64> {
        let mut sum = 0;
        for part in &mut task.parts {
            let slot = self.look_at(part)?;
            let readable_bytes = self.partitions.get_mut(slot).log.readable_bytes(part.wanted.fetch_offset);
            sum += readable_bytes.min(part.wanted.size_bytes_max.max(1) as u64);
        }
        (!task.parts.is_empty()).then_some(sum)
    }

    /// Finds the part's partition and checks what the client believes of it; notes the error if there is one.
    fn look_at(&mut self, part: &mut Part) -> Option<u32> {
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

    fn wait_for_data(&mut self, index: u32, generation: u16) {
        self.counters.fetch_waits += 1;
        let mut task = self.fetch_tasks.take(index, generation).expect("just inserted");
        for part in &mut task.parts {
            if let Some(slot) = self.look_at(part) {
                let fetch_tasks = &self.fetch_tasks;
                let waits = &mut self.partitions.get_mut(slot).fetch_waits;
                if waits.len() == waits.capacity() {
                    // Waits that are over are dropped when the list would have to grow.
                    waits.retain(|(index, generation)| fetch_tasks.is_waiting(*index, *generation));
                }
                waits.push((index, generation));
            }
        }
        let until = task.until;
        self.fetch_tasks.put_back(index, task);
        self.look_at_fetch_again(index, generation, until);
    }

    /// A client may ask for a wait of weeks: a deadline that lived as long as that would stay when the wait is over,
    /// and so would the task of a connection that is gone.
    fn look_at_fetch_again(&mut self, index: u32, generation: u16, until: Monotonic) {
        let at = until.min(self.now.monotonic + LOOK_AGAIN_AFTER);
        self.deadlines.push(at, Deadline::Fetch { index, generation });
        if self.deadlines.is_grown() {
            let (fetch_tasks, parked) = (&self.fetch_tasks, &self.parked);
            self.deadlines.retain(|deadline| match deadline {
                Deadline::Fetch { index, generation } => fetch_tasks.is_waiting(index, generation),
                Deadline::Held(id) => parked.contains_key(&id),
            });
        }
    }

    /// A partition's high watermark has moved, or it has something else to tell: fetches that wait look again.
    pub(super) fn wake_fetches(&mut self, slot: u32) {
        let waits = std::mem::take(&mut self.partitions.get_mut(slot).fetch_waits);
        for &(index, generation) in &waits {
            if !self.fetch_tasks.is_waiting(index, generation) {
                continue;
            }
            let mut task = self.fetch_tasks.take(index, generation).expect("it waits");
            let available = self.available(&mut task);
            let enough = available.is_none_or(|bytes| bytes >= task.min_bytes as u64);
            self.fetch_tasks.put_back(index, task);
            if enough {
                self.run_fetch(index, generation);
            } else {
                self.partitions.get_mut(slot).fetch_waits.push((index, generation));
            }
        }
    }

    /// A fetch has waited long enough, or it is time to see whether anybody still waits for it.
    pub(super) fn fetch_waited(&mut self, index: u32, generation: u16) {
        let Some(task) = self.fetch_tasks.waiting(index, generation) else { return };
        let (ticket, until) = (task.ticket, task.until);
        if self.now.monotonic >= until || !self.is_answerable(ticket) {
            self.run_fetch(index, generation);
        } else {
            self.look_at_fetch_again(index, generation, until);
        }
    }

    /// The connection is gone: what waits for its fetches' sake is forgotten, or clients that come and go could pile up
    /// waits without end. Reads that are under way end by themselves.
    pub(super) fn forget_fetches(&mut self, id: ConnectionId) {
        for index in 0..self.fetch_tasks.slots.len() as u32 {
            if let Some(generation) = self.fetch_tasks.waiting_of(index, id) {
                self.fetch_tasks.take(index, generation);
                self.fetch_tasks.finish(index);
            }
        }
    }

    /// The client has ended its side and will most likely take no answer: its fetches wait no longer.
    pub(super) fn hurry_fetches(&mut self, id: ConnectionId) {
        for index in 0..self.fetch_tasks.slots.len() as u32 {
            if let Some(generation) = self.fetch_tasks.waiting_of(index, id) {
                self.run_fetch(index, generation);
            }
        }
    }

    /// A read for a fetch has completed.
    pub(super) fn fetch_completed(&mut self, index: u32, generation: u16, completion: Completion) {
        let Some(mut task) = self.fetch_tasks.take(index, generation) else { return };
        let (read, read_from) = task.read.take().expect("it was reading");
        let part = task.next;
        match self.look_at(&mut task.parts[part]) {
            None => task.next += 1,
            // The topic was deleted and created again: the new one is read from the beginning of the part.
            Some(slot) if self.partitions.get_mut(slot).id != read_from => {}
            Some(slot) => {
                let log = &mut self.partitions.get_mut(slot).log;
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
    fn run_fetch(&mut self, index: u32, generation: u16) {
        let mut task = self.fetch_tasks.take(index, generation).expect("the caller knows that it is there");
        if !self.is_answerable(task.ticket) {
            return self.fetch_tasks.finish(index);
        }
        while task.next < task.parts.len() {
            let part = task.next;
            let Some(slot) = self.look_at(&mut task.parts[part]) else {
                task.next += 1;
                continue;
            };
            let left = task.max_bytes.saturating_sub(task.size_bytes);
            let wanted = &task.parts[part].wanted;
            let limit = left.min(usize::try_from(wanted.size_bytes_max).unwrap_or(0));
            let is_first = task.size_bytes == 0;
            let offset = wanted.fetch_offset;
            let partition = self.partitions.get_mut(slot);
            let (log, read_from) = (&mut partition.log, partition.id);
            task.parts[part].high_watermark = log.high_watermark();
            task.parts[part].log_start_offset = log.log_start();
            if (limit == 0 && !is_first) || offset >= log.high_watermark() {
                task.next += 1;
                continue;
            }
            let request = ReadRequest {
                offset,
                size_bytes_max: u32::try_from(limit).unwrap_or(u32::MAX),
                min_one_batch: is_first,
                up_to: UpTo::HighWatermark,
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
        let part = &mut task.parts[task.next];
        match step {
            ReadStep::Pending(read) => {
                task.read = Some((read, read_from));
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
                self.counters.fetch_bytes_tail += plan.paths.tail;
                self.counters.fetch_bytes_splice += plan.paths.splice;
                self.counters.fetch_bytes_direct += plan.paths.direct;
                self.counters.fetch_bytes_copy += plan.paths.copy;
                part.size_bytes = plan.size_bytes as usize;
                part.contents.extend(plan.ranges.into_iter().map(|range| match range {
                    Range::Memory(slice) => Content::Memory(slice),
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
                let at = encoder.partition(&part.response(), part.size_bytes);
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

impl Part {
    fn response(&self) -> FetchPartitionResponse<'static> {
        FetchPartitionResponse {
            high_watermark: self.high_watermark,
            last_stable_offset: self.high_watermark,
            log_start_offset: self.log_start_offset,
            diverging_epoch: self.diverging_epoch,
            current_leader: self.current_leader,
            ..FetchPartitionResponse::refused(self.wanted.partition, self.error)
        }
    }
}

fn wanted_of(request: &FetchRequest, frame: &[u8]) -> Vec<Wanted> {
    let mut wanted = Vec::with_capacity(request.partition_count);
    let mut topic = TopicRef::Name("".into());
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
    let mut topic = TopicRef::Name("".into());
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
