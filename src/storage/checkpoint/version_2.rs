//! Checkpoints and clean-stop chunks of version 2, which knew no transactions: read, never written.

use rkyv::{Archive, Deserialize, Serialize};

use super::{CleanStopChunk, CleanStopEntry, PartitionState};
use crate::storage::epochs::EpochEntry;
use crate::storage::index::IndexEntry;
use crate::storage::producer_state::ProducerEntry;
use crate::storage::retention::SegmentSummary;

#[derive(Archive, Serialize, Deserialize)]
pub struct State {
    pub active_base_offset: i64,
    pub position_bytes: u64,
    pub next_offset: i64,
    pub log_start: i64,
    pub commit_bytes_max: u64,
    pub max_timestamp: i64,
    pub max_timestamp_offset: i64,
    pub cleaner_offset: i64,
    pub leader_epoch: i32,
    pub clean: bool,
    pub has_gaps: bool,
    pub sealed: Vec<SegmentSummary>,
    pub index: Vec<IndexEntry>,
    pub epochs: Vec<EpochEntry>,
    pub producers: Vec<ProducerEntry>,
}

#[derive(Archive, Serialize, Deserialize)]
pub struct Entry {
    pub topic: [u8; 16],
    pub partition: i32,
    pub state: State,
}

#[derive(Archive, Serialize, Deserialize)]
pub struct Chunk {
    pub entries: Vec<Entry>,
}

impl From<State> for PartitionState {
    fn from(old: State) -> Self {
        PartitionState {
            active_base_offset: old.active_base_offset,
            position_bytes: old.position_bytes,
            next_offset: old.next_offset,
            log_start: old.log_start,
            commit_bytes_max: old.commit_bytes_max,
            max_timestamp: old.max_timestamp,
            max_timestamp_offset: old.max_timestamp_offset,
            cleaner_offset: old.cleaner_offset,
            leader_epoch: old.leader_epoch,
            clean: old.clean,
            has_gaps: old.has_gaps,
            sealed: old.sealed,
            index: old.index,
            epochs: old.epochs,
            producers: old.producers,
            aborted: Vec::new(),
            aborting_segments: Vec::new(),
        }
    }
}

impl From<Chunk> for CleanStopChunk {
    fn from(old: Chunk) -> Self {
        let entry = |old: Entry| CleanStopEntry { topic: old.topic, partition: old.partition, state: old.state.into() };
        CleanStopChunk { entries: old.entries.into_iter().map(entry).collect() }
    }
}
