//! What a shard holds, beside the most that it may: for simulations, which look after every step.

use super::broker::Broker;
use crate::base::units::KIB;
use crate::io::Io;
use crate::model::limits::{
    COLD_FRAME_SIZE_BYTES_MAX, COMMITTED_OFFSETS_SIZE_BYTES_MAX, CONNECTION_REQUEST_COUNT_MAX,
    COORDINATOR_QUEUE_SIZE_BYTES_MAX, OPEN_TRANSACTION_COUNT_MAX, SESSIONS_PARTITION_COUNT_MAX,
    SHARD_GROUPS_SIZE_BYTES_MAX,
};
use crate::storage::State;

/// Something that has a bound.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    /// What it is.
    pub what: &'static str,
    /// How much of it there is.
    pub used: u64,
    /// How much there may be.
    pub max: u64,
}

impl<I: Io> Broker<I> {
    /// What keeps a shard that stops from having stopped, for messages.
    pub fn unfinished(&self) -> String {
        let mut text = format!("{}: {} connections", self.shard, self.connections.len());
        for partition in self.partitions.iter() {
            let log = &partition.log;
            if !(log.is_quiet() && matches!(log.state(), State::Closed | State::Deleted)) {
                let (name, index) = (&partition.topic, partition.id.partition);
                let is_offline = log.offline().is_some();
                text += &format!(
                    ", {name}-{index} {:?} (quiet: {}, offline: {is_offline}, {} jobs)",
                    log.state(),
                    log.is_quiet(),
                    log.job_count(),
                );
            }
        }
        text
    }

    /// The most of the pool that a shard may hold while nothing is under way: what is cached of batches and sidecars,
    /// what connections receive into, `partition_bytes` for each partition and a little more.
    pub fn quiet_bytes_max(&self, partition_bytes: usize) -> usize {
        let partition_count = self.partitions.iter().count();
        let cached = self.resources.tail.used_bytes() + self.resources.files.sidecar_bytes();
        cached + self.admission.receive_bytes() + partition_count * partition_bytes + 128 * KIB
    }

    /// What of the pool is whose, for messages.
    pub fn memory_shares(&self) -> String {
        let logs: Vec<(String, usize)> = self
            .partitions
            .iter()
            .map(|partition| (format!("{}-{}", partition.topic, partition.id.partition), partition.log.memory_bytes()))
            .collect();
        format!(
            "{} bytes are cached, {} of {} sealed segments, {} to receive into, {} of fetches, {} of answers, compacting: {}, logs: {logs:?}",
            self.resources.tail.used_bytes(),
            self.resources.files.sidecar_bytes(),
            self.resources.files.len(),
            self.admission.receive_bytes(),
            self.fetch_task_bytes(),
            self.answer_bytes(),
            self.has_compaction(),
        )
    }

    /// Everything of this shard that is bounded. One answer of each connection, at most `answer_size_bytes_max`
    /// large, may come on top of what answers may hold: a first batch is given also where there is no room.
    pub fn bounds(&self, answer_size_bytes_max: u64) -> impl Iterator<Item = Bound> {
        let bound = |what, used, max| Bound { what, used: used as u64, max: max as u64 };
        let connection_count = self.connections.len() as u64;
        let (mut request_count, mut unsent_bytes) = (0, 0);
        for connection in self.connections.iter() {
            request_count = request_count.max(connection.request_count());
            unsent_bytes = unsent_bytes.max(connection.unsent_memory_bytes());
        }
        let answers_max = self.room_size_bytes_max() + connection_count * answer_size_bytes_max;
        let connection_max = crate::net::connection::SEND_PENDING_BYTES_MAX + 2 * answer_size_bytes_max;
        let pool = self.io.pool();
        [
            bound("bytes of the pool", pool.used_bytes(), pool.budget_bytes()),
            bound("bytes to receive into", self.admission.receive_bytes(), self.admission.receive_bytes_max()),
            Bound { what: "bytes that answers hold", used: self.answer_bytes(), max: answers_max },
            Bound { what: "bytes of one connection's answers", used: unsent_bytes, max: connection_max },
            bound("requests of one connection", request_count, CONNECTION_REQUEST_COUNT_MAX),
            bound("partitions of fetch sessions", self.sessions.partition_count(), SESSIONS_PARTITION_COUNT_MAX),
            bound(
                "bytes of group changes that wait",
                self.coordinator.queued_size_bytes(),
                COORDINATOR_QUEUE_SIZE_BYTES_MAX + COLD_FRAME_SIZE_BYTES_MAX,
            ),
            Bound {
                what: "questions to coordinators",
                used: self.questions.open_count() as u64,
                max: self.partitions.iter().count() as u64 * OPEN_TRANSACTION_COUNT_MAX as u64
                    + connection_count * CONNECTION_REQUEST_COUNT_MAX as u64,
            },
            bound("bytes of offsets", self.coordinator.offsets_size_bytes(), COMMITTED_OFFSETS_SIZE_BYTES_MAX),
            bound("bytes of groups", self.coordinator.groups_size_bytes(), SHARD_GROUPS_SIZE_BYTES_MAX),
        ]
        .into_iter()
    }
}
