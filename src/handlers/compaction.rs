//! Compaction of this shard's partitions: which one is next, and a step of it at the end of a turn.
//!
//! Every `log.cleaner.backoff.ms`, and at once after a compaction, the topics whose `cleanup.policy` says compact *now*
//! are looked at, some partitions a turn; the dirtiest one that is due is compacted, one at a time. A topic that stops
//! being a compacted one, is deleted, or a broker that stops ends it at the next step.

use std::time::Duration;

use super::broker::Broker;
use super::token::{self, Kind};
use crate::base::rng::Rng;
use crate::base::time::Monotonic;
use crate::io::{Completion, Io, Token};
use crate::model::configs::{BrokerConfig, TopicConfig};
use crate::model::id::TopicIdPartition;
use crate::model::limits::COMPACTION_LOOK_COUNT;
use crate::storage::compaction::cleaner::Ended;
use crate::storage::compaction::task::CompactError;
use crate::storage::{Cleaner, CleanerOptions, CompactionPolicy, Dirtiness, State};

/// This shard's cleaner, and what was served when it last did something.
pub struct Compaction {
    cleaner: Option<Cleaner>,
    request_count: u64,
    look: Look,
}

/// A look for the dirtiest partition, turn by turn.
#[derive(Default)]
struct Look {
    /// The slot to go on with.
    slot: u32,
    /// The dirtiest that is due so far, whether it is overdue and how dirty it is.
    dirtiest: Option<(TopicIdPartition, (bool, f64))>,
}

impl Compaction {
    /// A cleaner with this shard's share of what the configuration allows the node; none if it is switched off.
    pub fn new(config: &BrokerConfig, shard_count: usize, rng: &mut Rng) -> Compaction {
        let options = CleanerOptions {
            map_size_bytes: config.log_cleaner_dedupe_buffer_size / shard_count.max(1),
            load_factor: config.log_cleaner_io_buffer_load_factor,
            io_bytes_per_second: config.log_cleaner_io_max_bytes_per_second / shard_count.max(1) as f64,
            // Looking costs little, but not nothing.
            backoff: Duration::from_millis(config.log_cleaner_backoff_ms.max(10)),
        };
        let token = token::base(Kind::Compaction, 0, 0);
        let cleaner = config.log_cleaner_enable.then(|| Cleaner::new(token, options, rng));
        Compaction { cleaner, request_count: 0, look: Look::default() }
    }
}

impl<I: Io> Broker<I> {
    /// When compaction wants its turn.
    pub(super) fn compaction_due(&self) -> Option<Monotonic> {
        // Before everybody listens, and while logs close, nothing is begun.
        if self.listener.is_none() || self.is_stopping() {
            return None;
        }
        self.compaction.cleaner.as_ref()?.due()
    }

    /// True while an operation of a compaction is under way.
    pub(super) fn is_compacting(&self) -> bool {
        self.compaction.cleaner.as_ref().is_some_and(Cleaner::is_under_way)
    }

    /// True while a log is being compacted, with an operation under way or not.
    pub fn has_compaction(&self) -> bool {
        self.compaction.cleaner.as_ref().is_some_and(|cleaner| cleaner.log().is_some())
    }

    /// A step of the compaction under way, or a look for the next one, if that is due.
    pub(super) fn compact(&mut self) {
        if self.compaction_due().is_none_or(|due| due > self.now.monotonic) {
            return;
        }
        match self.compacted_slot() {
            Some(slot) => self.go_on_compacting(slot),
            None => self.look_for_the_dirtiest(),
        }
    }

    /// An operation of a compaction has completed.
    pub(super) fn compaction_completed(&mut self, completion: Completion) {
        let slot = self.compacted_slot();
        let cleaner = self.compaction.cleaner.as_mut().expect("it has submitted it");
        let log = slot.map(|slot| &mut self.partitions.get_mut(slot).log);
        let ended = cleaner.complete(&mut self.io, log, completion.result, self.now.monotonic);
        self.note_ended(slot, ended);
    }

    /// Ends a compaction under way. The segments that it has replaced stay replaced.
    pub(super) fn stop_compacting(&mut self) {
        let slot = self.compacted_slot();
        if let Some(cleaner) = &mut self.compaction.cleaner {
            let log = slot.map(|slot| &mut self.partitions.get_mut(slot).log);
            cleaner.abandon(&mut self.io, log);
        }
    }

    /// The partition that is being compacted, if it still can be; otherwise its compaction has ended.
    fn compacted_slot(&mut self) -> Option<u32> {
        let cleaner = self.compaction.cleaner.as_mut()?;
        let parts = token::parts(Token(cleaner.log()?));
        match self.partitions.current(parts.index, parts.generation) {
            Some(partition) if partition.log.state() != State::Deleted && partition.log.offline().is_none() => {
                Some(parts.index)
            }
            _ => {
                cleaner.abandon(&mut self.io, None);
                None
            }
        }
    }

    fn go_on_compacting(&mut self, slot: u32) {
        let is_busy = self.counters.requests != self.compaction.request_count;
        self.compaction.request_count = self.counters.requests;
        let cleaner = self.compaction.cleaner.as_mut().expect("it is due");
        let partition = self.partitions.get_mut(slot);
        let ended = match partition.config.cleanup_policy.compact {
            true => cleaner.go_on(&mut self.io, &mut partition.log, self.now, is_busy),
            false => {
                cleaner.abandon(&mut self.io, Some(&mut partition.log));
                None
            }
        };
        let events = partition.log.take_events();
        self.react(slot, events);
        self.note_ended(Some(slot), ended);
    }

    /// Looks at some partitions; when all have had their turn the dirtiest one's compaction begins.
    fn look_for_the_dirtiest(&mut self) {
        let now = self.now.monotonic;
        let (slots, next) = self.partitions.slots_from(self.compaction.look.slot, COMPACTION_LOOK_COUNT);
        for slot in slots {
            let Some((_, found)) = self.dirtiness(slot) else { continue };
            let rank = (found.is_overdue, found.ratio);
            let look = &mut self.compaction.look;
            if look.dirtiest.is_none_or(|(_, best)| rank > best) {
                look.dirtiest = Some((self.partitions.get_mut(slot).id, rank));
            }
        }
        if let Some(next) = next {
            self.compaction.look.slot = next;
            return self.cleaner().go_on_looking(now);
        }
        let Some((id, _)) = std::mem::take(&mut self.compaction.look).dirtiest else { return self.cleaner().rest(now) };
        // It may have changed since it was looked at.
        let again = self.partitions.find(id).and_then(|slot| Some((slot, self.dirtiness(slot)?)));
        let Some((slot, (policy, found))) = again else { return self.cleaner().go_on_looking(now) };
        let log = &mut self.partitions.get_mut(slot).log;
        let found = log.may_compact(&mut self.io, &found);
        let events = log.take_events();
        self.react(slot, events);
        let Some(found) = found else {
            // A checkpoint comes first.
            return self.cleaner().rest_shortly(now);
        };
        let log = &self.partitions.get_mut(slot).log;
        let dir = log.identity().dir.display();
        tracing::debug!(partition = %dir, from = %found.first_dirty, to = %found.end, "compaction begins");
        let cleaner = self.compaction.cleaner.as_mut().expect("it is due");
        cleaner.start(log, found, &policy, self.now);
    }

    /// How dirty a partition is, if it is to be compacted.
    fn dirtiness(&mut self, slot: u32) -> Option<(CompactionPolicy, Dirtiness)> {
        let partition = self.partitions.get_mut(slot);
        if !partition.config.cleanup_policy.compact || partition.log.segment_count() == 0 {
            return None;
        }
        let policy = policy_of(&partition.config);
        let found = partition.log.dirtiness(&mut self.io, &policy, self.now);
        let events = partition.log.take_events();
        self.react(slot, events);
        found.filter(|found| found.is_due(&policy)).map(|found| (policy, found))
    }

    fn cleaner(&mut self) -> &mut Cleaner {
        self.compaction.cleaner.as_mut().expect("it is due")
    }

    fn note_ended(&mut self, slot: Option<u32>, ended: Option<Ended>) {
        let Some(ended) = ended else { return };
        let dir = slot.map(|slot| self.partitions.get_mut(slot).log.identity().dir.display().to_string());
        let partition = dir.unwrap_or_default();
        match ended {
            Ended::Done(stats) => {
                self.counters.compactions += 1;
                self.counters.compaction_bytes_read += stats.read_bytes;
                self.counters.compaction_bytes_written += stats.written_bytes;
                tracing::info!(
                    partition,
                    keys = stats.key_count,
                    read_bytes = stats.read_bytes,
                    written_bytes = stats.written_bytes,
                    old_segments = stats.replaced_count,
                    new_segments = stats.new_count,
                    "compacted"
                );
            }
            Ended::Failed(CompactError::Gone) => tracing::debug!(partition, "compaction ends: its segments went"),
            Ended::Failed(error @ CompactError::Io(_)) => {
                tracing::warn!(partition, %error, "compaction failed; it is tried again");
            }
            Ended::Failed(error) => {
                tracing::error!(partition, %error, "not compacted any more until the next start");
            }
        }
    }
}

/// What a topic's configuration says about its compaction.
fn policy_of(config: &TopicConfig) -> CompactionPolicy {
    CompactionPolicy {
        min_cleanable_dirty_ratio: config.min_cleanable_dirty_ratio,
        min_compaction_lag_ms: config.min_compaction_lag_ms,
        max_compaction_lag_ms: config.max_compaction_lag_ms,
        delete_retention_ms: config.delete_retention_ms,
    }
}
