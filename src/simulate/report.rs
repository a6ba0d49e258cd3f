//! What many histories have been through, in numbers.

use super::history::Told;
use crate::base::coverage::Counts;

/// The branches that a long simulation must go through again and again.
pub const BRANCHES: [&str; 82] = [
    "offset committed",
    "committed offset read",
    "records are deleted",
    "retention is changed",
    "compacted topic compared",
    "compacted topic deleted",
    "compaction: a segment is replaced",
    "compaction: several segments become one",
    "compaction: the map is full",
    "keyed records appended",
    "recovery: finishes a swap",
    "tombstone is gone",
    "checkpoint: durable",
    "checkpoint: waits for its bytes",
    "commit: in a new file",
    "commit: in two steps",
    "commit: over an old file",
    "commit: waits for a sync",
    "deletion: directory removed",
    "deletion: finished by a start",
    "end: kill",
    "end: power cut",
    "end: stop",
    "fault: all connections reset",
    "fault: byte by byte",
    "fault: clock back",
    "fault: clock forward",
    "fault: connection reset",
    "fault: corrupt read",
    "fault: deaf client",
    "fault: failed change of names",
    "fault: failed read",
    "fault: failed sync",
    "fault: failed write",
    "fault: full disk",
    "fault: misdirected read",
    "fault: packets",
    "fault: slow operation",
    "fault: stalled shard",
    "fetch: from the tail cache",
    "fetch: is woken",
    "fetch: reads from disk",
    "fetch: splices",
    "fetch: waits",
    "free: becomes a spare",
    "free: removed, a reader has it",
    "free: removed, there is a spare",
    "idle",
    "kill",
    "kill: an operation outlives its process",
    "metadata: a change waits",
    "metadata: snapshot",
    "next file: a spare is reused",
    "power cut: at a write, by chance",
    "power cut: at a write, kept",
    "power cut: at a write, lost",
    "power cut: at a write, torn",
    "power cut: at any moment",
    "produce: a duplicate waits",
    "produce: a duplicate",
    "produce: held back",
    "recovery: a spare is the next segment",
    "recovery: after a clean stop",
    "recovery: finishes sealing",
    "recovery: follows a roll",
    "recovery: from the checkpoint",
    "recovery: keeps a spare",
    "recovery: rebuilds a sidecar",
    "recovery: removes a file",
    "recovery: removes a freed segment",
    "recovery: takes an unfinished block up",
    "recovery: without a checkpoint",
    "recovery: zeros behind the end",
    "roll: into a new file",
    "roll: into a reused file",
    "roll: sealed",
    "roll: sidecar written",
    "roll: waits for its file",
    "roll: waits for the last one",
    "settled",
    "space: disk full",
    "start",
];

/// A sum over histories.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Histories.
    pub history_count: u64,
    /// The sum of what they told. Its trace is a hash over theirs in the order of seeds.
    pub sum: Told,
}

impl Report {
    /// Adds a history.
    pub fn add(&mut self, told: &Told) {
        self.history_count += 1;
        let sum = &mut self.sum;
        for (branch, count) in &told.branches {
            *sum.branches.entry(branch).or_default() += count;
        }
        sum.acked_count += told.acked_count;
        sum.request_count += told.request_count;
        sum.cut_count += told.cut_count;
        sum.kill_count += told.kill_count;
        sum.stop_count += told.stop_count;
        sum.virtual_ns += told.virtual_ns;
        // Addition, so that the order in which threads finish does not matter.
        sum.trace = sum.trace.wrapping_add(told.trace);
    }

    /// Acknowledged batches between two power cuts, on average.
    pub fn acked_per_cut(&self) -> u64 {
        self.sum.acked_count / self.sum.cut_count.max(1)
    }

    /// Virtual hours.
    pub fn virtual_hours(&self) -> f64 {
        self.sum.virtual_ns as f64 / 3.6e12
    }

    /// Every known branch and how often it was taken, the unknown ones after them.
    pub fn branches(&self) -> Counts {
        let mut counts: Counts = BRANCHES.into_iter().map(|branch| (branch, 0)).collect();
        for (branch, count) in &self.sum.branches {
            *counts.entry(branch).or_default() += count;
        }
        counts
    }
}
