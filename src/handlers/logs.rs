//! The logs of this shard's partitions: opening, committing, and what their events set in motion.

use std::sync::Arc;
use std::time::Duration;

use super::broker::Broker;
use super::metadata::is_internal;
use super::partitions::Partition;
use super::token::{self, Kind};
use crate::base::mutant;
use crate::controller::image::TopicImage;
use crate::io::{Completion, Io};
use crate::model::configs::{
    AckAfter as ConfigAckAfter, BrokerConfig, CleanupPolicy, Prepare, TimestampType, TopicConfig,
};
use crate::model::id::{LeaderEpoch, PartitionIndex, TopicIdPartition};
use crate::protocol::error::ErrorCode;
use crate::storage::retention::RetentionPolicy;
use crate::storage::{AckAfter, Events, Identity, Log, LogOptions, PrepareMode, State};

/// A log is checkpointed when recovery would have to scan this much of it.
const CHECKPOINT_AGE_BYTES_MAX: u64 = 64 * 1024 * 1024;

impl<I: Io> Broker<I> {
    /// Opens a partition without files: nothing happens on disk before the first append.
    pub(super) fn open_partition(&mut self, topic: &TopicImage, index: PartitionIndex, epoch: LeaderEpoch) -> u32 {
        let (slot, generation) = self.partitions.next_slot();
        let config = self.config_of(topic);
        let identity = Identity {
            topic_id: topic.id,
            partition: index,
            parent: self.options.layout.topics_dir(),
            dir: self.options.layout.partition_dir(&topic.name, index),
        };
        let token = token::base(Kind::Log, slot, generation);
        let options = self.log_options(&config);
        let mut log = Log::new(token.0, identity, options, epoch, self.resources.clone());
        if self.is_stopping() {
            // Group changes come also during a stop. Nobody would close this log any more.
            log.close_for_clean_stop(&mut self.io);
        }
        let id = TopicIdPartition { topic: topic.id, partition: index };
        self.partitions.insert(Partition::new(id, topic.name.clone(), config, log))
    }

    /// The topic's values. Overrides were checked when they were set.
    pub(super) fn config_of(&self, topic: &TopicImage) -> Arc<TopicConfig> {
        let mut config = TopicConfig::resolve(&self.options.config, &topic.configs).unwrap_or_else(|error| {
            tracing::error!(topic = %topic.name, %error, "the topic's configs do not fit; defaults are used");
            TopicConfig::resolve(&self.options.config, &Default::default()).expect("defaults fit")
        });
        if is_internal(&topic.name) {
            // Whatever somebody has set: what groups have committed must not go because it is old.
            config.cleanup_policy = CleanupPolicy { delete: false, compact: true };
        }
        Arc::new(config)
    }

    /// What a topic's configuration means to its logs.
    pub(super) fn log_options(&self, config: &TopicConfig) -> LogOptions {
        LogOptions {
            segment_size_bytes: u64::from(config.segment_bytes),
            // As Kafka: a record is in the active segment no longer than it may be uncompacted.
            segment_ms: match config.cleanup_policy.compact {
                true => config.segment_ms.min(config.max_compaction_lag_ms),
                false => config.segment_ms,
            },
            index_interval_size_bytes: config.index_interval_bytes,
            ack_after: match config.ack_after {
                ConfigAckAfter::Sync => AckAfter::Sync,
                ConfigAckAfter::Write => AckAfter::Write,
                ConfigAckAfter::Memory => AckAfter::Memory,
            },
            prepare: prepare_mode(&self.options.config),
            reuse: self.options.reuses_segments,
            log_append_time: config.message_timestamp_type == TimestampType::LogAppendTime,
            splice_size_bytes_min: self.options.splice_size_bytes_min,
            ..LogOptions::default()
        }
    }

    /// Notes that a log has something to commit at the end of the turn.
    pub(super) fn mark_dirty(&mut self, slot: u32) {
        self.partitions.mark_dirty(slot);
    }

    /// Submits the writes of all logs that were appended to in this turn, or has them wait for the journal.
    pub(super) fn commit_dirty(&mut self) {
        let mut dirty = self.partitions.take_dirty(std::mem::take(&mut self.spare_dirty));
        for slot in dirty.drain(..) {
            if self.partitions.is_used(slot) {
                let partition = self.partitions.get_mut(slot);
                partition.flush_if_due(&mut self.io, self.now.monotonic);
                if !self.wait_for_journal(slot) {
                    self.commit_itself(slot);
                }
            }
        }
        self.spare_dirty = dirty;
    }

    /// Submits the write of a log's own.
    pub(super) fn commit_itself(&mut self, slot: u32) {
        let log = &mut self.partitions.get_mut(slot).log;
        log.commit(&mut self.io);
        let events = log.take_events();
        self.commit_began(slot);
        self.react(slot, events);
    }

    /// An operation of a log has completed.
    pub(super) fn log_completed(&mut self, slot: u32, generation: u16, completion: Completion) {
        let now = self.now;
        let partition = self.partitions.current(slot, generation).expect("a log stays until it is quiet");
        let events = partition.log.complete(&mut self.io, completion.token, completion.result, now);
        self.time_commit(slot);
        self.react(slot, events);
        self.retry_waiting();
    }

    /// Those who waited for a log or for memory are looked at again.
    pub(super) fn retry_waiting(&mut self) {
        self.retry_starved();
        self.retry_coordinators();
        self.retry_markers();
    }

    /// Acts on what a log has told.
    pub(super) fn react(&mut self, slot: u32, events: Events) {
        self.note_writing(slot);
        if self.partitions.get_mut(slot).log.state() == State::Deleted {
            return self.react_to_deletion(slot, events);
        }
        if events.materialized {
            let id = self.partitions.get_mut(slot).id;
            self.materialized.push(id);
        }
        if events.checkpointed {
            self.look_at_deletions(slot);
        }
        let id = self.partitions.get_mut(slot).id;
        let coordinated = self.coordinated(id);
        if events.offline {
            if let Some(index) = coordinated {
                self.fail_coordinator(index, ErrorCode::NotCoordinator);
            }
            self.refuse_waiting(slot, ErrorCode::KafkaStorageError);
            self.refuse_deletions(slot, ErrorCode::KafkaStorageError);
            self.end_markers(slot, Err(ErrorCode::KafkaStorageError));
            self.wake_fetches(slot);
        }
        if events.advanced {
            self.acknowledge(slot);
            self.acknowledge_markers(slot);
            if let Some(index) = coordinated {
                self.follow_durable(index, slot);
            }
            self.wake_fetches(slot);
        }
        if events.dirty {
            self.mark_dirty(slot);
        }
        if events.sealed {
            // At once and not only at the next check: a partition that rolls faster than that would write its
            // segments anew instead of reusing them.
            self.retain(slot);
        }
        if events.room || events.offline {
            self.serve_held(slot);
        }
    }

    /// Applies retention by size to one partition. Retention by time is left to the check, as in Kafka: records that
    /// come with old timestamps stay until then.
    fn retain(&mut self, slot: u32) {
        let now = self.now;
        let partition = self.partitions.get_mut(slot);
        if partition.config.cleanup_policy.delete && partition.log.state() == State::Serving {
            let policy = RetentionPolicy { retention_ms: None, ..policy_of(&partition.config) };
            partition.log.apply_retention(&mut self.io, policy, now);
        }
    }

    /// Slow work on every partition: retention, checkpoints, memory of quiet logs, forgotten producers.
    pub(super) fn tend_logs(&mut self) {
        let slots: Vec<u32> = self.partitions.slots().collect();
        let (now, expiration_ms) = (self.now, self.options.config.producer_id_expiration_ms as i64);
        let interval = Duration::from_millis(self.options.config.log_retention_check_interval_ms);
        let retention_is_due = now.monotonic.since(self.retained_at) >= interval;
        if retention_is_due {
            self.retained_at = now.monotonic;
        }
        for slot in slots {
            let partition = self.partitions.get_mut(slot);
            let (log, config) = (&mut partition.log, &partition.config);
            if log.segment_count() == 0 || log.offline().is_some() {
                continue;
            }
            if retention_is_due && config.cleanup_policy.delete {
                log.apply_retention(&mut self.io, policy_of(config), now);
            }
            // A checkpoint that found the disk full is tried again: somebody may wait for the log start in it.
            if log.checkpoint_age_bytes() > CHECKPOINT_AGE_BYTES_MAX || log.is_log_start_rising() {
                log.checkpoint(&mut self.io);
            }
            log.producers_mut().expire(now.wall, expiration_ms);
            partition.flush_if_due(&mut self.io, now.monotonic);
            let log = &partition.log;
            let end = log.log_end().0;
            if partition.quiet_end == end {
                partition.log.shrink();
            }
            partition.quiet_end = end;
        }
    }
}

/// How space is made ahead of the writer.
pub(super) fn prepare_mode(config: &BrokerConfig) -> PrepareMode {
    match config.prepare {
        Prepare::Write => PrepareMode::Zeros,
        Prepare::Allocate => PrepareMode::Allocate,
        Prepare::None => PrepareMode::None,
    }
}

/// What a topic's configuration says about how long its records stay.
fn policy_of(config: &TopicConfig) -> RetentionPolicy {
    let retention_bytes = match mutant::is_on("retain_nothing") {
        true => Some(config.retention_bytes.unwrap_or(10_000)),
        false => config.retention_bytes,
    };
    RetentionPolicy { retention_ms: config.retention_ms, retention_bytes }
}
