//! What many histories have been through, in numbers.

use super::history::Told;
use crate::base::coverage::Counts;

/// The branches that a long simulation must go through again and again.
pub const BRANCHES: [&str; 150] = [
    "checkpoint: durable",
    "checkpoint: of a log that closes",
    "checkpoint: waits for its bytes",
    "commit: a sync of several writes",
    "commit: in a new file",
    "commit: in two steps",
    "commit: over an old file",
    "commit: the second of two steps",
    "commit: waits for a sync",
    "committed offset read",
    "compacted topic compared",
    "compacted topic deleted",
    "compaction: a segment is replaced",
    "compaction: several segments become one",
    "compaction: the map is full",
    "consumer: fenced",
    "consumer: gives up",
    "consumer: goes on where it was",
    "consumer: hangs",
    "consumer: has a partition",
    "consumer: heartbeat",
    "consumer: is given what one had whose session is over",
    "consumer: is lost",
    "consumer: joins",
    "consumer: joins again",
    "consumer: leaves",
    "consumer: reads other topics",
    "consumer: told that it is unknown",
    "deletion: directory removed",
    "deletion: finished by a start",
    "deletion: is tried again",
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
    "group: a follower joins",
    "group: a leader joins",
    "group: a member hangs",
    "group: a member is lost",
    "group: a member leaves",
    "group: an assignment",
    "group: commit of a member",
    "group: heartbeat",
    "group: told that it is unknown",
    "group: told to join again",
    "idle",
    "journal: a file is kept",
    "journal: a file is made",
    "journal: a group says that the other file is free",
    "journal: a lap ends",
    "journal: a lap is settled",
    "journal: a partition's records cannot be replayed",
    "journal: an old lap ends",
    "journal: fails",
    "journal: full, and the other file is not free",
    "journal: journals are removed",
    "journal: no space for it",
    "journal: passes over a sealed segment",
    "journal: replays",
    "keyed records appended",
    "kill",
    "kill: an operation outlives its process",
    "metadata: a change waits",
    "metadata: snapshot",
    "next file: a new one is made",
    "next file: a spare is reused",
    "next file: no room for a new one, it goes",
    "next file: no room for a spare, it is kept",
    "offset committed",
    "power cut: at a write, by chance",
    "power cut: at a write, kept",
    "power cut: at a write, lost",
    "power cut: at a write, torn",
    "power cut: at any moment",
    "produce: a duplicate",
    "produce: a duplicate waits",
    "produce: held back",
    "records are deleted",
    "recovery: a header without its body behind the end",
    "recovery: a sealed segment, by its sidecar",
    "recovery: a sealed segment, by the checkpoint",
    "recovery: a spare is not the next segment",
    "recovery: a spare is the next segment",
    "recovery: after a clean stop",
    "recovery: finishes a swap",
    "recovery: finishes sealing",
    "recovery: follows a roll",
    "recovery: from the checkpoint",
    "recovery: keeps a spare",
    "recovery: nothing to zero",
    "recovery: of a directory without data",
    "recovery: rebuilds a sidecar",
    "recovery: removes a file",
    "recovery: removes a freed segment",
    "recovery: scans a later segment",
    "recovery: scans from the checkpoint's position",
    "recovery: takes an unfinished block up",
    "recovery: the end is a block's",
    "recovery: without a checkpoint",
    "recovery: writes again what it found",
    "recovery: zeros behind the end",
    "retention is changed",
    "retention: of everything",
    "retention: of sealed segments",
    "retention: the active segment stays for now",
    "roll: into a new file",
    "roll: into a reused file",
    "roll: sealed",
    "roll: sealing waits",
    "roll: sidecar written",
    "roll: waits for its file",
    "roll: waits for the last one",
    "settled",
    "space: a batch waits",
    "space: a step",
    "space: disk full",
    "start",
    "start refused by a failing disk",
    "tombstone is gone",
    "transaction: a partition is compared",
    "transaction: a record is passed over",
    "transaction: a stable offset is read",
    "transaction: aborted",
    "transaction: an offset is unstable",
    "transaction: committed",
    "transaction: fenced",
    "transaction: given up",
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

    /// The known branches that were taken fewer than `count_min` times.
    pub fn below(&self, count_min: u64) -> Vec<(&'static str, u64)> {
        let count = |branch| self.sum.branches.get(branch).copied().unwrap_or(0);
        let counts = BRANCHES.into_iter().map(|branch| (branch, count(branch)));
        counts.filter(|(_, count)| *count < count_min).collect()
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
