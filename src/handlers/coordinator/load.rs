//! Reading a coordinator's partition before it answers.
//!
//! From the log's start to its high watermark in chunks, a few partitions at a time and one chunk of each a turn, so
//! that loading neither takes the memory of a shard nor stops it. Nothing is appended meanwhile, for nobody but the
//! coordinator writes there.
//!
//! Invariant: the state that is left when the last record was read is that of the last durable change.

use std::collections::{BTreeMap, VecDeque};

use super::{Host, HostState, Place};
use crate::base::mutant;
use crate::base::time::Monotonic;
use crate::coordinator::consumer_group::kept::Kept;
use crate::coordinator::consumer_group::records as consumer_records;
use crate::coordinator::group::snapshot::GroupSnapshot;
use crate::coordinator::offsets::Offsets;
use crate::coordinator::offsets::transactional::TransactionalOffsets;
use crate::coordinator::records::{self, Key};
use crate::coordinator::transaction;
use crate::coordinator::transaction::metadata::Metadata;
use crate::handlers::broker::Broker;
use crate::handlers::located::Located;
use crate::handlers::token::{self, Kind};
use crate::io::{Completion, Io, Op, Outcome, Token};
use crate::model::batch;
use crate::model::id::{Offset, PartitionIndex, ProducerId};
use crate::model::limits::{COORDINATOR_LOAD_COUNT_MAX, COORDINATOR_LOAD_SIZE_BYTES, RECORDS_SIZE_BYTES_MAX};
use crate::model::marker::EndTransactionMarker;
use crate::model::records::{Records, section};
use crate::protocol::Topic;
use crate::protocol::error::ErrorCode;
use crate::storage::{Range, ReadError, ReadRequest, ReadStep, ReadTask, UpTo};

/// Set in the token of a read of the transactions' topic: no topic has so many partitions.
const TRANSACTIONS_BIT: u32 = 1 << 31;

/// A partition that is being read.
pub(super) struct Load {
    begun_at: Monotonic,
    /// Where the next chunk begins.
    next: Offset,
    /// The high watermark when it began.
    end: Offset,
    task: Option<ReadTask>,
    /// What is left of a chunk's ranges, and the bytes before them.
    ranges: VecDeque<Range>,
    bytes: Vec<u8>,
    host: Host,
    offsets: Offsets,
    transactional: TransactionalOffsets,
    groups: BTreeMap<String, GroupSnapshot>,
    transactions: BTreeMap<String, Metadata>,
    consumer_groups: BTreeMap<String, Kept>,
    record_count: u64,
    size_bytes: u64,
    unknown_count: u64,
}

/// How one chunk came out.
enum Step {
    /// An operation is under way.
    Pending,
    /// The chunk is whole.
    Ready,
    /// There is no memory: later.
    Later,
    Failed(String),
}

impl<I: Io> Broker<I> {
    /// Goes on with what can be read at once, and begins with the next partitions.
    pub(super) fn go_on_loading(&mut self) {
        if self.listener.is_none() {
            // Until everybody listens the start uses single operations.
            return;
        }
        while self.coordinator.reading.len() < COORDINATOR_LOAD_COUNT_MAX
            && let Some(index) = self.coordinator.unread.pop_front()
        {
            self.begin_load(index);
        }
        for index in std::mem::take(&mut self.coordinator.readable) {
            self.load_chunk(index);
        }
        if !self.coordinator.readable.is_empty() {
            self.coordinate_soon();
        }
    }

    fn begin_load(&mut self, index: Place) {
        let Located::Here(slot) = self.locate(Topic::Name(index.host.topic()), index.index) else {
            return self.fail_coordinator(index, ErrorCode::NotCoordinator);
        };
        let log = &self.partitions.get_mut(slot).log;
        if log.offline().is_some() {
            return self.fail_coordinator(index, ErrorCode::NotCoordinator);
        }
        let load = Load {
            begun_at: self.now.monotonic,
            next: log.log_start(),
            end: log.high_watermark(),
            task: None,
            ranges: VecDeque::new(),
            bytes: Vec::new(),
            host: index.host,
            offsets: Offsets::default(),
            transactional: TransactionalOffsets::default(),
            groups: BTreeMap::new(),
            transactions: BTreeMap::new(),
            consumer_groups: BTreeMap::new(),
            record_count: 0,
            size_bytes: 0,
            unknown_count: 0,
        };
        let hosted = self.coordinator.partitions.get_mut(&index).expect("it is to be read");
        hosted.load = Some(Box::new(load));
        self.coordinator.reading.insert(index);
        self.coordinator.readable.insert(index);
    }

    /// Reads the next chunk.
    fn load_chunk(&mut self, index: Place) {
        let Some(mut load) = self.take_load(index) else { return };
        if load.next >= load.end {
            return self.loaded(index, load);
        }
        let Located::Here(slot) = self.locate(Topic::Name(index.host.topic()), index.index) else {
            return self.fail_coordinator(index, ErrorCode::NotCoordinator);
        };
        let request = ReadRequest {
            offset: load.next,
            size_bytes_max: COORDINATOR_LOAD_SIZE_BYTES,
            min_one_batch: true,
            up_to: UpTo::HighWatermark,
        };
        let token = self.load_token(index);
        let step = self.partitions.get_mut(slot).log.read(&mut self.io, token, request);
        let step = load.take_step(step);
        self.go_on_with(index, load, step);
    }

    /// A read of a load has completed.
    pub(in crate::handlers) fn load_completed(&mut self, index: u32, generation: u16, completion: Completion) {
        let host = if index & TRANSACTIONS_BIT == 0 { Host::Groups } else { Host::Transactions };
        let index = Place { host, index: PartitionIndex((index & !TRANSACTIONS_BIT) as i32) };
        if generation != self.coordinator.generations[host as usize] {
            return;
        }
        let Some(mut load) = self.take_load(index) else { return };
        let step = match load.task.take() {
            Some(task) => {
                let Located::Here(slot) = self.locate(Topic::Name(index.host.topic()), index.index) else {
                    return self.fail_coordinator(index, ErrorCode::NotCoordinator);
                };
                let log = &mut self.partitions.get_mut(slot).log;
                load.take_step(task.resume(&mut self.io, log, completion.result))
            }
            None => match completion.result {
                Ok(Outcome::Read { buffer, bytes }) => {
                    let expected = match load.ranges.pop_front() {
                        Some(Range::File { length_bytes, .. }) => length_bytes as usize,
                        other => panic!("read for {other:?}"),
                    };
                    load.bytes.extend_from_slice(&buffer[..bytes]);
                    if bytes == expected { Step::Ready } else { Step::Failed("a segment ends early".into()) }
                }
                Ok(other) => panic!("a read completed with {other:?}"),
                Err(error) => Step::Failed(error.to_string()),
            },
        };
        self.go_on_with(index, load, step);
    }

    fn go_on_with(&mut self, index: Place, mut load: Box<Load>, mut step: Step) {
        if let Step::Ready = step {
            let token = self.load_token(index);
            step = load.gather(&mut self.io, token);
        }
        if let Step::Ready = step {
            step = load.apply();
            self.coordinator.readable.insert(index);
            self.coordinate_soon();
        }
        match step {
            Step::Failed(cause) => {
                tracing::error!(
                    partition = index.index.0,
                    topic = index.host.topic(),
                    cause,
                    "it cannot be read: no coordinator"
                );
                return self.fail_coordinator(index, ErrorCode::NotCoordinator);
            }
            Step::Later => {
                load.ranges.clear();
                load.bytes.clear();
                self.coordinator.paused.insert(index);
            }
            Step::Pending | Step::Ready => {}
        }
        self.coordinator.partitions.get_mut(&index).expect("it was there").load = Some(load);
    }

    fn loaded(&mut self, index: Place, load: Box<Load>) {
        self.coordinator.reading.remove(&index);
        let hosted = self.coordinator.partitions.get_mut(&index).expect("it was being read");
        hosted.state = HostState::Active;
        hosted.offsets = load.offsets;
        hosted.transactional = load.transactional;
        tracing::info!(
            partition = index.index.0,
            records = load.record_count,
            bytes = load.size_bytes,
            unknown = load.unknown_count,
            offsets = hosted.offsets.count(),
            groups = load.groups.len(),
            transactional_ids = load.transactions.len(),
            consumer_groups = load.consumer_groups.len(),
            took_ms = self.now.monotonic.since(load.begun_at).as_millis() as u64,
            "coordinator loaded"
        );
        match index.host {
            Host::Groups => {
                self.begin_groups(index, load.groups, load.consumer_groups);
                self.forget_unknown(index);
            }
            Host::Transactions => self.begin_transactions(index, load.transactions),
        }
        if !self.coordinator.unread.is_empty() {
            self.coordinate_soon();
        }
    }

    /// Chunks that found no memory are read again.
    pub(super) fn resume_paused(&mut self) {
        let host = &mut self.coordinator;
        host.readable.append(&mut host.paused);
    }

    fn take_load(&mut self, index: Place) -> Option<Box<Load>> {
        self.coordinator.partitions.get_mut(&index)?.load.take()
    }

    fn load_token(&self, index: Place) -> Token {
        let bit = if index.host == Host::Transactions { TRANSACTIONS_BIT } else { 0 };
        let generation = self.coordinator.generations[index.host as usize];
        token::base(Kind::Coordinator, index.index.0 as u32 | bit, generation)
    }
}

impl Load {
    fn take_step(&mut self, step: ReadStep) -> Step {
        match step {
            ReadStep::Pending(task) => {
                self.task = Some(task);
                Step::Pending
            }
            ReadStep::Failed(ReadError::NoMemory) => Step::Later,
            ReadStep::Failed(error) => Step::Failed(error.to_string()),
            ReadStep::Ready(plan) if plan.size_bytes == 0 => {
                Step::Failed(format!("nothing at offset {} below the high watermark", self.next))
            }
            ReadStep::Ready(plan) => {
                self.ranges = plan.ranges.into();
                Step::Ready
            }
        }
    }

    /// Copies what is in memory; reads what is in files.
    fn gather(&mut self, io: &mut impl Io, token: Token) -> Step {
        while let Some(range) = self.ranges.front() {
            match range {
                Range::Memory(slice) => self.bytes.extend_from_slice(slice.as_bytes()),
                Range::File { file, position, length_bytes } => {
                    let Some(buffer) = io.pool().take(*length_bytes as usize) else { return Step::Later };
                    let (file, offset, length_bytes) = (file.clone(), *position, *length_bytes);
                    io.submit(token, Op::Read { file, offset, buffer, length_bytes });
                    return Step::Pending;
                }
            }
            self.ranges.pop_front();
        }
        Step::Ready
    }

    /// Takes what the chunk says.
    fn apply(&mut self) -> Step {
        let bytes = std::mem::take(&mut self.bytes);
        for (header, batch) in batch::batches(&bytes) {
            if let Err(error) = batch::validate_stored(batch) {
                return Step::Failed(format!("the batch at offset {}: {error}", header.base_offset));
            }
            self.next = header.next_offset();
            if header.attributes.is_control() {
                if let Some(marker) = EndTransactionMarker::of_batch(&header, batch) {
                    self.transactional.end(header.producer_id, marker.commits, &mut self.offsets);
                }
                continue;
            }
            let producer = header.attributes.is_transactional().then_some(header.producer_id);
            let records = match section(&header, batch, RECORDS_SIZE_BYTES_MAX) {
                Ok(records) => records,
                Err(error) => return Step::Failed(format!("the records at offset {}: {error}", header.base_offset)),
            };
            for record in Records::new(&records, header.record_count) {
                let Ok(record) = record else {
                    return Step::Failed(format!("the records at offset {} are broken", header.base_offset));
                };
                self.record_count += 1;
                if !self.take_record(producer, record.key.unwrap_or_default(), record.value) {
                    self.unknown_count += 1;
                }
            }
        }
        self.size_bytes += bytes.len() as u64;
        Step::Ready
    }

    /// Takes one record. False if it is not one that is known.
    fn take_record(&mut self, producer: Option<ProducerId>, key: &[u8], value: Option<&[u8]>) -> bool {
        match self.host {
            Host::Groups => self.take_group_record(producer, key, value),
            Host::Transactions => self.take_transaction_record(key, value),
        }
    }

    fn take_transaction_record(&mut self, key: &[u8], value: Option<&[u8]>) -> bool {
        let Ok(Some(id)) = transaction::records::decode_key(key) else { return false };
        match value.map(transaction::records::decode_value) {
            None => drop(self.transactions.remove(&id)),
            Some(Ok(Some(metadata))) => drop(self.transactions.insert(id, metadata)),
            Some(Ok(None) | Err(_)) => return false,
        }
        true
    }

    fn take_group_record(&mut self, producer: Option<ProducerId>, key: &[u8], value: Option<&[u8]>) -> bool {
        match (records::decode_key(key), value) {
            (Ok(Key::Offset { group, topic, partition }), None) => {
                self.offsets.remove(&group, &topic, partition);
                self.transactional.forget(&group, &topic, partition);
                true
            }
            (Ok(Key::Offset { group, topic, partition }), Some(value)) => match records::decode_offset(value) {
                Ok(Some(committed)) => {
                    match producer {
                        Some(_) if mutant::is_on("forget_undecided_offsets") => {}
                        Some(producer) => self.transactional.put(producer, &group, &topic, partition, committed),
                        None => {
                            self.transactional.supersede(&group, &topic, partition);
                            self.offsets.put(&group, &topic, partition, committed);
                        }
                    }
                    true
                }
                Ok(None) | Err(_) => false,
            },
            (Ok(Key::Group { group }), None) => {
                self.groups.remove(&group);
                true
            }
            (Ok(Key::Group { group }), Some(value)) => match records::decode_group(value) {
                Ok(Some(snapshot)) => {
                    self.groups.insert(group, snapshot);
                    true
                }
                Ok(None) | Err(_) => false,
            },
            (Ok(Key::Unknown(_)), value) => match consumer_records::decode(key, value) {
                Ok(Some((group, change))) => {
                    let kept = self.consumer_groups.entry(group.clone()).or_default();
                    kept.apply(change);
                    if kept.is_nothing() {
                        self.consumer_groups.remove(&group);
                    }
                    true
                }
                Ok(None) | Err(_) => false,
            },
            (Err(_), _) => false,
        }
    }
}
