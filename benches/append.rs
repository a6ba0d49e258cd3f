//! Append and group commit of one log on the simulated world: what the log itself costs, with a disk of memory.

mod harness;

use std::time::{Duration, Instant};

use criterion::Throughput;
use harness::Subject;
use ottla::base::rng::Rng;
use ottla::base::time::Timestamp;
use ottla::base::units::MIB;
use ottla::bench::Workload;
use ottla::io::Io;
use ottla::io::sim::{SimIo, World, WorldOptions};
use ottla::model::batch::validate;
use ottla::model::id::{LeaderEpoch, PartitionIndex, TopicId};
use ottla::storage::{AppendError, FileCache, Identity, Log, LogOptions, Resources, TailBudget};

/// Batches of a turn, which share a commit.
const GROUP_COUNT: usize = 16;
/// After so many the disk, which is memory, is begun anew.
const TURN_COUNT: usize = 1024;

struct Bench {
    world: World,
    io: SimIo,
    log: Log,
    batch: Vec<u8>,
}

impl Bench {
    /// A log that has taken its first batch.
    fn new(batch_size_bytes: usize) -> Bench {
        let world = World::new(1, WorldOptions::calm());
        world.create_dir_all("/data/topics").expect("an empty disk");
        let io = world.io("shard", 64 * MIB);
        let identity = Identity {
            topic_id: TopicId(uuid::Uuid::from_u128(7)),
            partition: PartitionIndex(0),
            parent: "/data/topics".into(),
            dir: "/data/topics/t-0".into(),
        };
        let resources = Resources {
            pool: io.pool().clone(),
            tail: TailBudget::new(io.pool().clone(), 16 * MIB),
            files: FileCache::new(3, MIB),
        };
        let log = Log::new(1 << 16, identity, LogOptions::default(), LeaderEpoch(0), resources);
        let workload = Workload { batch_size_bytes, ..Workload::default() };
        let batch = workload.batch(&mut Rng::new(1), Timestamp(1_750_000_000_000));
        let mut bench = Bench { world, io, log, batch };
        bench.append(1);
        bench
    }

    /// Appends, commits and turns until everything is acknowledged.
    fn append(&mut self, count: usize) {
        for _ in 0..count {
            loop {
                let header = validate(&self.batch).expect("it is sound");
                let now = self.world.now();
                match self.log.append(&mut self.io, &mut self.batch, &header, now) {
                    Ok(_) => break,
                    Err(AppendError::NotReady) => self.turn(),
                    Err(error) => panic!("append: {error}"),
                }
            }
        }
        while self.log.high_watermark() < self.log.log_end() {
            self.turn();
        }
    }

    fn turn(&mut self) {
        self.log.commit(&mut self.io);
        let mut completions = Vec::new();
        self.io.poll(Some(self.world.now().monotonic), &mut completions);
        if completions.is_empty() {
            self.world.advance_to_next_event();
            self.io.poll(Some(self.world.now().monotonic), &mut completions);
        }
        for completion in completions {
            let now = self.world.now();
            let events = self.log.complete(&mut self.io, completion.token, completion.result, now);
            if events.materialized {
                self.log.allow_serving();
            }
        }
    }
}

fn append(size_bytes: usize) -> Subject {
    let name = format!("{GROUP_COUNT} of {size_bytes} bytes");
    let mut bench = Bench::new(size_bytes);
    let mut turn_count = 0;
    Subject::timed("append and commit", name, Throughput::Elements(GROUP_COUNT as u64), move |count| {
        let mut took = Duration::ZERO;
        for _ in 0..count {
            turn_count += 1;
            if turn_count % TURN_COUNT == 0 {
                bench = Bench::new(size_bytes);
            }
            let started = Instant::now();
            bench.append(GROUP_COUNT);
            took += started.elapsed();
        }
        took
    })
}

fn main() {
    harness::main(vec![append(256), append(4096)]);
}
