//! One log on the simulated world, beside a model of it: the list of its batches.

use std::time::Duration;

use crate::base::rng::Rng;
use crate::base::time::Timestamp;
use crate::base::units::MIB;
use crate::io::sim::{SimIo, World, WorldOptions};
use crate::io::{Io, Outcome, Token};
use crate::model::batch::{Header, batches};
use crate::model::builder::BatchBuilder;
use crate::model::compression::Codec;
use crate::model::id::{LeaderEpoch, Offset, PartitionIndex, TopicId};
use crate::storage::recovery::{Known, RecoveryError, RecoveryStats, recover};
use crate::storage::*;

pub const LOG: u64 = 1 << 16;
pub const READ: Token = Token(1 << 40);
const CLEAN: Token = Token(1 << 41);
const POOL: usize = 64 * MIB;

/// A batch as it was appended, stamped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub base_offset: Offset,
    pub next_offset: Offset,
    pub bytes: Vec<u8>,
}

pub struct Bench {
    pub world: World,
    pub io: SimIo,
    pub log: Log,
    pub options: LogOptions,
    pub epoch: i32,
    pub had_data: bool,
    /// What was appended, in order, and not lost with consent.
    pub model: Vec<Stored>,
    /// Everything below was acknowledged.
    pub acked: Offset,
    pub log_start: Offset,
    pub events: Events,
    pub tail_budget_bytes: usize,
    /// The mode may lose what it acknowledged when the power goes.
    pub lossy: bool,
    /// The log is compacted by these rules whenever it is due.
    pub compaction: Option<CompactionPolicy>,
    pub cleaner: Cleaner,
    /// Compactions that ended well.
    pub compacted_count: usize,
    pub cleaner_options: CleanerOptions,
    read_result: Option<std::io::Result<Outcome>>,
}

fn cleaner(seed: u64, options: CleanerOptions) -> Cleaner {
    Cleaner::new(CLEAN, options, &mut Rng::new(seed))
}

pub fn identity() -> Identity {
    Identity {
        topic_id: TopicId(uuid::Uuid::from_u128(7)),
        partition: PartitionIndex(0),
        parent: "/data/topics".into(),
        dir: "/data/topics/t-0".into(),
    }
}

fn resources(io: &SimIo, tail_budget_bytes: usize) -> Resources {
    Resources {
        pool: io.pool().clone(),
        tail: TailBudget::new(io.pool().clone(), tail_budget_bytes),
        files: FileCache::new(3, MIB),
    }
}

/// A map that is never full, and no pause.
pub const CLEANER: CleanerOptions = CleanerOptions {
    map_size_bytes: MIB,
    load_factor: 0.9,
    io_bytes_per_second: f64::INFINITY,
    backoff: Duration::from_millis(1),
};

/// A batch of exactly `size_bytes` with one record.
pub fn exact_batch(rng: &mut Rng, size_bytes: usize) -> Vec<u8> {
    let mut size = size_bytes;
    for _ in 0..10 {
        let batch = batch(rng, size, 1);
        if batch.len() == size_bytes {
            return batch;
        }
        size = size + size_bytes - batch.len();
    }
    panic!("no value gives a batch of {size_bytes}");
}

/// A batch of about `size_bytes` with `count` records, its content by the generator.
pub fn batch(rng: &mut Rng, size_bytes: usize, count: usize) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Codec::None);
    let each = (size_bytes.saturating_sub(61) / count).saturating_sub(10).max(1);
    for _ in 0..count {
        let mut value = vec![0; each];
        rng.fill(&mut value);
        builder.push(Timestamp(1_750_000_000_000 + rng.in_range(0..1000) as i64), None, Some(&value), &[]);
    }
    builder.build()
}

impl Bench {
    pub fn new(seed: u64, world: WorldOptions, options: LogOptions) -> Bench {
        let world = World::new(seed, world);
        world.create_dir_all("/data/topics").expect("an empty disk");
        let io = world.io("shard", POOL);
        let tail_budget_bytes = 128 * 1024;
        let log = Log::new(LOG, identity(), options, LeaderEpoch(0), resources(&io, tail_budget_bytes));
        Bench {
            world,
            io,
            log,
            options,
            epoch: 0,
            had_data: false,
            model: Vec::new(),
            acked: Offset(0),
            log_start: Offset(0),
            events: Events::default(),
            tail_budget_bytes,
            lossy: options.ack_after != AckAfter::Sync,
            compaction: None,
            cleaner: cleaner(seed, CLEANER),
            compacted_count: 0,
            cleaner_options: CLEANER,
            read_result: None,
        }
    }

    /// One loop turn: completions, then commit. Time passes if nothing else is to do.
    pub fn turn(&mut self) {
        let mut completions = Vec::new();
        self.io.poll(Some(self.world.now().monotonic), &mut completions);
        if completions.is_empty() && !self.world.is_power_cut() {
            if !self.world.advance_to_next_event() && self.compaction.is_some() {
                self.world.advance(Duration::from_millis(1));
            }
            self.io.poll(Some(self.world.now().monotonic), &mut completions);
        }
        for completion in completions {
            if completion.token == READ {
                self.read_result = Some(completion.result);
                continue;
            }
            let now = self.world.now();
            if completion.token == CLEAN {
                let ended = self.cleaner.complete(&mut self.io, Some(&mut self.log), completion.result, now.monotonic);
                self.ended(ended);
                continue;
            }
            let events = self.log.complete(&mut self.io, completion.token, completion.result, now);
            self.take(events);
        }
        self.tend_cleaner();
        self.commit();
    }

    /// As a shard does at the end of a turn.
    fn tend_cleaner(&mut self) {
        let now = self.world.now();
        if self.world.is_power_cut() || self.cleaner.due().is_none_or(|due| due > now.monotonic) {
            return;
        }
        if self.cleaner.log().is_some() {
            let ended = match self.compaction {
                Some(_) => self.cleaner.go_on(&mut self.io, &mut self.log, now, false),
                None => {
                    self.cleaner.abandon(&mut self.io, Some(&mut self.log));
                    None
                }
            };
            self.ended(ended);
        } else if let Some(policy) = &self.compaction {
            let found = self.log.dirtiness(&mut self.io, policy, now).filter(|found| found.is_due(policy));
            match found.and_then(|found| self.log.may_compact(&mut self.io, &found)) {
                Some(found) => self.cleaner.start(&self.log, found, policy, now),
                None => self.cleaner.rest(now.monotonic),
            }
        }
        let events = self.log.take_events();
        self.take(events);
    }

    fn ended(&mut self, ended: Option<compaction::cleaner::Ended>) {
        use compaction::cleaner::Ended;
        use compaction::task::CompactError;
        match ended {
            Some(Ended::Done(_)) => self.compacted_count += 1,
            Some(Ended::Failed(CompactError::Gone)) | None => {}
            Some(Ended::Failed(_)) if self.world.is_power_cut() => {}
            Some(Ended::Failed(error)) => panic!("compaction failed (seed {}): {error}", self.world.seed()),
        }
    }

    /// Turns until a compaction has ended and none is due, or the power is cut.
    pub fn compact(&mut self) {
        let policy = self.compaction.expect("it was asked for");
        for _ in 0..200_000 {
            let now = self.world.now();
            if self.world.is_power_cut() || self.log.offline().is_some() {
                return;
            }
            let is_resting = self.cleaner.log().is_none() && self.log.jobs.is_empty() && !self.log.is_swapping();
            let found = if is_resting { self.log.dirtiness(&mut self.io, &policy, now) } else { None };
            if is_resting && found.is_none_or(|found| !found.is_due(&policy)) && self.log.jobs.is_empty() {
                return;
            }
            self.turn();
        }
        panic!("never compacted (seed {})", self.world.seed());
    }

    pub fn commit(&mut self) {
        self.log.commit(&mut self.io);
        self.acked = self.acked.max(self.log.high_watermark());
    }

    pub fn take(&mut self, events: Events) {
        self.events.merge(events);
        if events.materialized {
            self.had_data = true;
            self.log.allow_serving();
        }
        self.acked = self.acked.max(self.log.high_watermark());
    }

    /// Appends without waiting.
    pub fn try_append(&mut self, mut batch: Vec<u8>) -> Result<Appended, AppendError> {
        let header = Header::parse(&batch).expect("built");
        let now = self.world.now();
        let appended = self.log.append(&mut self.io, &mut batch, &header, now)?;
        let header = Header::parse(&batch).expect("stamped");
        assert_eq!((appended.base_offset, appended.end), (header.base_offset, header.next_offset()));
        let expected = self.model.last().map_or(self.log_start, |last| last.next_offset);
        if !self.model.is_empty() {
            assert_eq!(appended.base_offset, expected, "offsets have no gap");
        }
        self.model.push(Stored { base_offset: appended.base_offset, next_offset: appended.end, bytes: batch });
        Ok(appended)
    }

    /// Appends, waiting for room; `None` if the power was cut meanwhile.
    pub fn append(&mut self, batch: Vec<u8>) -> Option<Appended> {
        for _ in 0..100_000 {
            match self.try_append(batch.clone()) {
                Ok(appended) => return Some(appended),
                Err(AppendError::NotReady | AppendError::NoMemory) => self.turn(),
                Err(AppendError::DiskFull) => {
                    self.world.advance(Duration::from_millis(100));
                    self.turn();
                }
                Err(error) => panic!("append (seed {}): {error}", self.world.seed()),
            }
            if self.world.is_power_cut() {
                return None;
            }
        }
        panic!("no room for ever (seed {})", self.world.seed());
    }

    /// Turns until everything is acknowledged or the power is cut.
    pub fn settle(&mut self) {
        for _ in 0..100_000 {
            if self.world.is_power_cut() || self.log.high_watermark() == self.log.log_end() {
                return;
            }
            self.turn();
        }
        panic!("never acknowledged (seed {})", self.world.seed());
    }

    /// Turns until nothing is under way.
    pub fn quiesce(&mut self) {
        self.settle();
        while (!self.log.is_quiet() || !self.log.jobs.is_empty() || self.io.under_way_count() > 0)
            && !self.world.is_power_cut()
        {
            self.turn();
        }
    }

    pub fn drive(&mut self, mut step: ReadStep) -> Result<ReadPlan, ReadError> {
        loop {
            match step {
                ReadStep::Ready(plan) => return Ok(plan),
                ReadStep::Failed(error) => return Err(error),
                ReadStep::Pending(task) => {
                    let result = self.wait_read();
                    step = task.resume(&mut self.io, &mut self.log, result);
                }
            }
        }
    }

    pub fn drive_lookup(&mut self, mut step: LookupStep) -> Result<Option<lookup::Found>, ReadError> {
        loop {
            match step {
                LookupStep::Ready(found) => return Ok(found),
                LookupStep::Failed(error) => return Err(error),
                LookupStep::Pending(task) => {
                    let result = self.wait_read();
                    step = task.resume(&mut self.io, &mut self.log, result);
                }
            }
        }
    }

    pub fn wait_read(&mut self) -> std::io::Result<Outcome> {
        loop {
            if let Some(result) = self.read_result.take() {
                return result;
            }
            self.turn();
            if self.world.is_power_cut() {
                return Err(std::io::ErrorKind::Other.into());
            }
        }
    }

    pub fn read(&mut self, offset: Offset, size_bytes_max: u32, up_to: UpTo) -> Result<ReadPlan, ReadError> {
        let request = ReadRequest { offset, size_bytes_max, min_one_batch: true, up_to };
        let step = self.log.read(&mut self.io, READ, request);
        self.drive(step)
    }

    /// The plan's bytes.
    pub fn bytes(&mut self, plan: &ReadPlan) -> Vec<u8> {
        let mut all = Vec::new();
        for range in &plan.ranges {
            match range {
                Range::Memory(slice) => all.extend_from_slice(slice.as_bytes()),
                Range::File { file, position, length_bytes } => {
                    let buffer = self.io.pool().take(*length_bytes as usize).expect("within the budget");
                    self.io.submit(
                        READ,
                        crate::io::Op::Read {
                            file: file.clone(),
                            offset: *position,
                            buffer,
                            length_bytes: *length_bytes,
                        },
                    );
                    match self.wait_read() {
                        Ok(Outcome::Read { buffer, bytes }) => all.extend_from_slice(&buffer[..bytes]),
                        _ => return all,
                    }
                }
            }
        }
        assert_eq!(all.len() as u64, plan.size_bytes);
        all
    }

    /// Reads from `offset` once and compares with the model.
    pub fn check_read(&mut self, offset: Offset, size_bytes_max: u32, up_to: UpTo) -> Option<Offset> {
        let before = match up_to {
            UpTo::LastStable => self.log.last_stable_offset(),
            UpTo::HighWatermark => self.log.high_watermark(),
            UpTo::LogEnd => self.log.log_end(),
        };
        let plan = match self.read(offset, size_bytes_max, up_to) {
            Ok(plan) => plan,
            Err(_) if self.world.is_power_cut() => return None,
            Err(ReadError::OffsetOutOfRange { .. }) if offset < self.log.log_start() => return None,
            Err(error) => {
                for segment in &self.log.segments {
                    let length = self.world.read_file(segment.path(&identity().dir)).map(|bytes| bytes.len());
                    eprintln!(
                        "{} {} {} {:?} {length:?} sealed {}",
                        segment.name,
                        segment.size_bytes,
                        segment.next_offset,
                        segment.prepared_bytes,
                        segment.is_sealed()
                    );
                }
                eprintln!(
                    "end {:?} written {:?} durable {:?} hw {:?} tail of {} bytes",
                    self.log.end,
                    self.log.written,
                    self.log.durable,
                    self.log.high_watermark,
                    self.log.tail.memory_bytes()
                );
                panic!("read of {offset} (seed {}): {error}", self.world.seed())
            }
        };
        let bytes = self.bytes(&plan);
        if self.world.is_power_cut() {
            return None;
        }
        let mut next = None;
        let mut total = 0;
        for (header, bytes) in batches(&bytes) {
            total += bytes.len();
            let stored = self.model.iter().find(|stored| stored.base_offset == header.base_offset);
            let stored = stored
                .unwrap_or_else(|| panic!("phantom batch at {} (seed {})", header.base_offset, self.world.seed()));
            assert!(stored.bytes == bytes, "batch {} differs (seed {})", header.base_offset, self.world.seed());
            match next {
                None => assert!(header.base_offset <= offset && offset < header.next_offset()),
                Some(next) => assert_eq!(header.base_offset, next),
            }
            next = Some(header.next_offset());
        }
        assert_eq!(total, bytes.len(), "whole batches");
        if let (Some(known), Some(next)) = (plan.next_offset, next) {
            assert_eq!(known, next);
        }
        if offset < before {
            assert!(next.is_some(), "nothing at {offset} below {before} (seed {})", self.world.seed());
        }
        if total > size_bytes_max as usize {
            assert_eq!(batches(&bytes).count(), 1, "only a first batch may pass the limit");
        }
        next.or(Some(offset))
    }

    /// Reads everything and compares.
    pub fn check_all(&mut self) {
        let mut offset = self.log.log_start();
        while offset < self.log.log_end() {
            match self.check_read(offset, 100_000, UpTo::LogEnd) {
                Some(next) => offset = next,
                None => return,
            }
        }
    }

    /// Starts again with what the disk kept.
    pub fn try_restart(&mut self, clean: Option<checkpoint::PartitionState>) -> Result<RecoveryStats, RecoveryError> {
        self.io = self.world.io("shard", POOL);
        self.epoch += 1;
        let known = Known { had_data: self.had_data, clean };
        let shared = resources(&self.io, self.tail_budget_bytes);
        let now = self.world.now();
        let (log, stats) =
            recover(&mut self.io, LOG, identity(), self.options, LeaderEpoch(self.epoch), known, shared, now)?;
        self.log = log;
        self.events = Events::default();
        self.cleaner = cleaner(self.world.seed(), self.cleaner_options);
        self.read_result = None;
        Ok(stats)
    }

    /// As above, and compares: nothing acknowledged is lost, nothing is there that was not appended.
    pub fn restart(&mut self, clean: Option<checkpoint::PartitionState>) -> Result<RecoveryStats, String> {
        let stats = self.try_restart(clean).map_err(|error| format!("recovery failed: {error}"))?;
        let end = self.log.log_end();
        if end < self.acked && !self.lossy {
            return Err(format!("acknowledged up to {}, recovered up to {end}", self.acked));
        }
        if self.log.log_start() > end {
            return Err("the log start passed the end".into());
        }
        self.model.retain(|stored| stored.next_offset <= end);
        let model_end = self.model.last().map_or(Offset(0), |last| last.next_offset);
        if model_end != end {
            return Err(format!("recovered up to {end}, which is behind {model_end} or within a batch"));
        }
        self.acked = end;
        self.log_start = self.log.log_start();
        Ok(stats)
    }

    pub fn power_cut(&mut self) {
        self.world.power_cut();
    }

    /// Closes and returns the state that a clean stop keeps; `None` if the power was cut meanwhile.
    pub fn close(&mut self) -> Option<Option<checkpoint::PartitionState>> {
        let events = self.log.close(&mut self.io);
        self.take(events);
        for _ in 0..100_000 {
            if self.events.closed {
                assert_eq!(self.log.log_end(), self.log.durable_offset());
                while self.io.under_way_count() > 0 {
                    self.turn();
                }
                return Some(self.log.snapshot());
            }
            if self.world.is_power_cut() {
                return None;
            }
            self.turn();
        }
        panic!("never closed (seed {})", self.world.seed());
    }
}
