//! The beginning of a shard's broker: recovery of its partitions; and what its end leaves for the next start.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::broker::Broker;
use super::bus::Waiting;
use super::cold_reads::ColdReads;
use super::compaction::Compaction;
use super::coordinator::CoordinatorHost;
use super::deadlines::Deadlines;
use super::delete_records::Deletions;
use super::endpoints::Endpoints;
use super::fetch_session::FetchSessions;
use super::fetch_tasks::FetchTasks;
use super::init_producer_id::ProducerIdBlock;
use super::journal::JournalHost;
use super::list_offsets::Lookups;
use super::logs::prepare_mode;
use super::options::BrokerOptions;
use super::partitions::{Partition, Partitions};
use super::produce::ProduceTasks;
use super::room::RoomQueue;
use super::token::{self, Kind};
use crate::base::rng::Rng;
use crate::controller::image::{Image, TopicImage};
use crate::io::Io;
use crate::model::id::{PartitionIndex, ShardId, TopicIdPartition};
use crate::net::connection::RECEIVE_SIZE_BYTES_MIN;
use crate::net::{Admission, Connections};
use crate::storage::checkpoint::{CleanStopWriter, PartitionState};
use crate::storage::journal::{JournalError, Replayed, replay};
use crate::storage::recovery::{Known, recover};
use crate::storage::{Identity, Journal, JournalOptions, Log, Offline, Resources};
use crate::telemetry::{Counters, Occasional};

/// States of partitions that stopped cleanly.
pub type CleanStates = FxHashMap<TopicIdPartition, PartitionState>;

/// What recovering a shard's partitions took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Partitions with files.
    pub partition_count: usize,
    /// Of these, those that could not be opened.
    pub offline_count: usize,
    /// Bytes of batches that were read.
    pub scanned_bytes: u64,
    /// Bytes of batches that the journals had and the segments may not have had.
    pub replayed_bytes: u64,
    /// Something that the journals have could not be written to its partition.
    pub needs_journals: bool,
}

impl<I: Io> Broker<I> {
    /// A broker without partitions or connections that knows `image`.
    pub fn new(
        mut io: I,
        shard: ShardId,
        options: Arc<BrokerOptions>,
        image: Arc<Image>,
        resources: Resources,
        seed: u64,
    ) -> Broker<I> {
        let now = io.now();
        let shards = usize::from(options.shard_count);
        // Half of the memory for requests: staging and reads must always go on. Half of that for connections that do
        // nothing: the others must always find room for what they ask.
        let receive_bytes_max = options.pool_size_bytes / 2;
        let quiet_count_max = receive_bytes_max / 2 / RECEIVE_SIZE_BYTES_MIN;
        let connection_count_max = options.config.max_connections.div_ceil(shards).min(quiet_count_max).max(1);
        let admission = Admission::new(connection_count_max, options.open_file_count_max, receive_bytes_max);
        let mut rng = Rng::new(seed);
        let compaction = Compaction::new(&options.config, shards, &mut rng);
        let journal_options = JournalOptions {
            file_size_bytes: match options.reuses_segments {
                // What is in it stays in memory until it is settled: an eighth of that, two files.
                true => options.config.journal_size_bytes.min(options.pool_size_bytes as u64 / 8) / 2,
                // On a file system that copies on write prepared space is no promise: what the journal has taken
                // might find none in its segment.
                false => 0,
            },
            prepare: prepare_mode(&options.config),
        };
        let id = uuid::Uuid::from_u128(u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64()));
        let journal = Journal::new(
            token::base(Kind::Journal, 0, 0),
            options.layout.clone(),
            format!("{shard}-{}", id.simple()),
            id,
            resources.pool.clone(),
            journal_options,
        );
        let journal = JournalHost::new(journal, options.config.journal_min_partitions);
        let slots = options.config.max_incremental_fetch_session_cache_slots.div_ceil(shards);
        Broker {
            io,
            shard,
            now,
            image,
            endpoints: Endpoints::new(options.node, &options.node_name, Vec::new()),
            counters: Counters::default(),
            outbox: Vec::new(),
            rng,
            listener: None,
            connections: Connections::default(),
            unsent: Vec::new(),
            admission,
            partitions: Partitions::default(),
            journal,
            produce_tasks: ProduceTasks::default(),
            held: FxHashMap::default(),
            starved: Vec::new(),
            parked: FxHashMap::default(),
            room_queue: RoomQueue::new(options.pool_size_bytes),
            cold_reads: ColdReads::default(),
            fetch_tasks: FetchTasks::new(options.pool_size_bytes),
            sessions: FetchSessions::new(slots),
            lookups: Lookups::default(),
            deletions: Deletions::default(),
            waiting: Waiting::default(),
            deadlines: Deadlines::default(),
            producer_ids: ProducerIdBlock::default(),
            coordinator: CoordinatorHost::default(),
            markers: Default::default(),
            questions: Default::default(),
            answered_slots: Vec::new(),
            materialized: Vec::new(),
            removals: Default::default(),
            compaction,
            resources,
            spare_dirty: Vec::new(),
            scratch: Vec::new(),
            tended_at: now.monotonic,
            retained_at: now.monotonic,
            draining_until: None,
            accepting_said: Occasional::default(),
            closing_said: Occasional::default(),
            options,
        }
    }

    /// Opens every partition of this shard that has files. Blocking: at start, where nothing else is under way.
    ///
    /// # Errors
    /// The journals cannot be read: what was acknowledged may be missing.
    pub fn recover_partitions(&mut self, clean: &mut CleanStates) -> Result<Recovered, JournalError> {
        let image = self.image.clone();
        let replayed = self.replay_journals(&image)?;
        let mut recovered = Recovered {
            replayed_bytes: replayed.written_bytes,
            needs_journals: !replayed.failed.is_empty(),
            ..Recovered::default()
        };
        for topic in image.topics() {
            for index in topic.partitions() {
                let mine = image.leader(topic, index) == Some(self.broker_id());
                if mine && topic.is_materialized(index) {
                    let id = TopicIdPartition { topic: topic.id, partition: index };
                    let failure = replayed.failed.get(&id);
                    self.recover_partition(topic, index, clean, failure, &mut recovered);
                }
            }
        }
        self.remove_left_over();
        self.open_coordinators();
        Ok(recovered)
    }

    /// Writes what the journals hold of this shard's partitions into their segments.
    fn replay_journals(&mut self, image: &Image) -> Result<Replayed, JournalError> {
        let (me, layout) = (self.broker_id(), &self.options.layout);
        replay(&mut self.io, layout, |id| {
            let topic = image.topic(id.topic)?;
            let is_mine = topic.has(id.partition)
                && image.leader(topic, id.partition) == Some(me)
                && topic.is_materialized(id.partition);
            is_mine.then(|| layout.partition_dir(&topic.name, id.partition))
        })
    }

    fn recover_partition(
        &mut self,
        topic: &TopicImage,
        index: PartitionIndex,
        clean: &mut CleanStates,
        failure: Option<&String>,
        recovered: &mut Recovered,
    ) {
        let id = TopicIdPartition { topic: topic.id, partition: index };
        let (slot, generation) = self.partitions.next_slot();
        let token = token::base(Kind::Log, slot, generation).0;
        let identity = Identity {
            topic_id: topic.id,
            partition: index,
            parent: self.options.layout.topics_dir(),
            dir: self.options.layout.partition_dir(&topic.name, index),
        };
        let config = self.config_of(topic);
        let options = self.log_options(&config);
        let epoch = self.image.leader_epoch(topic);
        let known = Known { had_data: true, clean: clean.remove(&id) };
        let shared = self.resources.clone();
        recovered.partition_count += 1;
        if let Some(error) = failure {
            recovered.offline_count += 1;
            let cause = Offline::Failed { what: "recovery", error: error.clone() };
            let log = Log::new_offline(token, identity, options, epoch, shared, cause);
            self.partitions.insert(Partition::new(id, topic.name.clone(), config, log));
            return;
        }
        let opened = recover(&mut self.io, token, identity.clone(), options, epoch, known, shared.clone(), self.now);
        let log = match opened {
            Ok((log, stats)) => {
                recovered.scanned_bytes += stats.scanned_bytes;
                log
            }
            Err(error) => {
                recovered.offline_count += 1;
                Log::new_offline(token, identity, options, epoch, shared, error.into_offline())
            }
        };
        self.partitions.insert(Partition::new(id, topic.name.clone(), config, log));
    }

    /// What the next start needs of the closed logs, in chunks to be written one behind the other.
    pub fn clean_stop_chunks(&mut self) -> Vec<Vec<u8>> {
        let mut writer = CleanStopWriter::default();
        let mut chunks = Vec::new();
        let slots: Vec<u32> = self.partitions.slots().collect();
        for slot in slots {
            let partition = self.partitions.get_mut(slot);
            if let Some(state) = partition.log.snapshot() {
                chunks.extend(writer.push(partition.id, state));
            }
        }
        chunks.extend(writer.finish());
        chunks
    }
}
