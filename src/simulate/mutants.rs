//! Rules of the broker that a simulation can break, each to be found by a checker.
//!
//! Where a rule is kept, [`crate::base::mutant::is_on`] asks whether this thread breaks it. Those of storage are also
//! caught one level below, where `storage::tests` puts the worst case together by hand.

use super::history::{Outcome, run};
use super::model::{End, Keeps};
use super::plan::{
    ALIGNED_SIZE_BYTES, CROSSING_SIZE_BYTES, Faults, Plan, SLOW_CHECKPOINTS, SLOW_COMMITS, SLOW_OFFSETS, SLOW_RENAMES,
    SLOW_SEALS, Shape, Slow,
};
use crate::base::mutant::Guard;

/// A broken rule.
#[derive(Clone, Copy, Debug)]
pub struct Mutant {
    /// Its name, as [`crate::base::mutant`] knows it.
    pub name: &'static str,
    /// What is done wrong.
    pub what: &'static str,
    /// What kind of history meets it soon.
    aim: Aim,
    /// Seeds within which it must be found.
    pub seed_count_max: u64,
    /// Few histories meet it: finding it takes many seeds.
    pub is_rare: bool,
}

#[derive(Clone, Copy, Debug)]
enum Aim {
    /// Any.
    Any,
    /// Nothing goes wrong but what the mutant does.
    Calm,
    /// Crashes, and little else.
    Crashes,
    /// Crashes, batches of one size and segments that are used again and again; these things are slow.
    Reuse(u64, &'static [Slow]),
    /// Power cuts one soon after the other, at writes of which something behind the beginning is kept.
    Remnants,
    /// Topics that do not sync each write, and power cuts; these things are slow.
    Unsynced(&'static [Slow]),
    /// Crashes, and a disk that fails.
    Failing,
    /// Nothing but kills, and writes that take long.
    Kills,
    /// Connections that are lost, and crashes.
    Doubt,
    /// The same, and writes that take long.
    SlowDoubt,
    /// Connections that are lost, and no crashes.
    Resets,
    /// Topics that come and go, and their directories slowly.
    Topics,
    /// Members of a group and committed offsets, whose records are written slowly.
    Groups,
    /// Members of a group in long lives without a fault.
    Members,
    /// Members of a group of the consumer protocol, whose records are written slowly.
    Consumers,
    /// Segments that are used again and again, and slow readers.
    Readers,
    /// A compacted topic, and crashes.
    Compaction,
    /// Transactions, and crashes.
    Transactions,
    /// A journal of this many KiB that takes every small commit, and crashes; these things are slow.
    Journal(u64, &'static [Slow]),
    /// The same, with a compacted topic.
    CompactedJournal,
}

const fn mutant(name: &'static str, what: &'static str, aim: Aim, seed_count_max: u64) -> Mutant {
    Mutant { name, what, aim, seed_count_max, is_rare: false }
}

const fn rare(name: &'static str, what: &'static str, aim: Aim, seed_count_max: u64) -> Mutant {
    Mutant { name, what, aim, seed_count_max, is_rare: true }
}

/// All of them.
pub const ALL: [Mutant; 57] = [
    mutant("skip_sync", "commits are not synced", Aim::Crashes, 10),
    rare(
        "skip_two_step",
        "a header across two blocks of a reused file is written in one step",
        Aim::Reuse(CROSSING_SIZE_BYTES, &[]),
        200,
    ),
    mutant("skip_tail_carry", "a new buffer does not begin with the unfinished block", Aim::Crashes, 10),
    mutant(
        "roll_without_wait",
        "a new segment is begun before the old one's end is durable",
        Aim::Unsynced(SLOW_SEALS),
        100,
    ),
    mutant(
        "reuse_before_sync_dir",
        "a freed file is overwritten before its renaming is durable",
        Aim::Reuse(CROSSING_SIZE_BYTES, SLOW_SEALS),
        100,
    ),
    mutant(
        "skip_zeroing",
        "recovery leaves what lies behind the end, and takes batches of any epoch",
        Aim::Remnants,
        200,
    ),
    mutant("trust_what_is_found", "recovery does not write again what it finds", Aim::Failing, 200),
    mutant("ack_before_write", "a batch is acknowledged when it is staged", Aim::Crashes, 10),
    mutant(
        "checkpoint_beyond_sync",
        "a checkpoint describes what is not synced",
        Aim::Reuse(CROSSING_SIZE_BYTES, SLOW_COMMITS),
        100,
    ),
    mutant(
        "free_before_checkpoint",
        "segments go before the log start is durable",
        Aim::Reuse(CROSSING_SIZE_BYTES, SLOW_CHECKPOINTS),
        20,
    ),
    mutant("reuse_under_a_reader", "a segment is reused while a reader has it", Aim::Readers, 100),
    mutant("skip_directory_sync", "a new partition's directory is not synced", Aim::Crashes, 20),
    mutant("keep_leader_epoch", "a start does not raise the leader epoch", Aim::Crashes, 10),
    mutant("forget_producers", "recovery forgets what idempotent producers wrote", Aim::Doubt, 20),
    mutant("append_duplicates", "a batch that is sent again is appended again", Aim::Doubt, 20),
    mutant(
        "answer_duplicates_at_once",
        "a batch sent again is answered before the first is durable",
        Aim::SlowDoubt,
        60,
    ),
    mutant("start_without_lock", "a start does not wait for the dead process's last write", Aim::Kills, 40),
    mutant("let_requests_overtake", "a request that must wait is overtaken", Aim::Any, 10),
    mutant("refuse_instead_of_holding", "a request that must wait is refused", Aim::Calm, 10),
    mutant("forget_an_answer", "some requests are never answered", Aim::Calm, 10),
    mutant("miss_a_wake_up", "an append wakes no fetch", Aim::Calm, 10),
    mutant("read_unacknowledged", "readers see what may still vanish", Aim::Any, 10),
    mutant("tell_an_old_watermark", "the high watermark goes back", Aim::Any, 10),
    mutant("look_up_one_too_far", "an offset by time is one too great", Aim::Any, 10),
    mutant("retain_nothing", "topics without retention by size get one", Aim::Any, 10),
    mutant("apply_at_the_controller_only", "shards say that they know a topic and do not", Aim::Topics, 10),
    mutant("drop_the_last_value", "compaction drops a key's last record", Aim::Compaction, 10),
    mutant("tombstones_go_early", "compaction drops tombstones at once", Aim::Compaction, 20),
    mutant("forget_gaps", "reads do not expect that offsets are gone", Aim::Compaction, 20),
    mutant("keep_old_places", "readers use places in segments that were replaced", Aim::Compaction, 60),
    mutant("swap_before_sync", "a compacted segment takes its place before it is synced", Aim::Compaction, 100),
    mutant("swap_without_name", "it replaces several without a name that says so", Aim::Compaction, 100),
    mutant("swap_without_checkpoint", "no checkpoint says that sealed segments change", Aim::Compaction, 60),
    rare("write_into_a_deleted_directory", "a topic created again uses the old one's directory", Aim::Topics, 60),
    mutant("leak_buffers", "a connection's memory does not come back", Aim::Resets, 20),
    mutant("leave_records_out", "some reads begin too far behind", Aim::Calm, 10),
    mutant("give_records_again", "some reads begin too early", Aim::Calm, 10),
    mutant("commit_before_durable", "an offset is committed before it is durable", Aim::Groups, 20),
    mutant("assign_before_durable", "an assignment is given out before it is durable", Aim::Groups, 100),
    mutant("keep_generation", "a rebalance does not raise the generation", Aim::Groups, 10),
    mutant("forget_heartbeats", "heartbeats do not keep a member alive", Aim::Members, 60),
    mutant("tell_before_durable", "a member is told of its partitions before that is durable", Aim::Consumers, 100),
    mutant("give_what_is_taken", "a partition is given before its owner has given it up", Aim::Consumers, 20),
    mutant("forget_member_epochs", "a start forgets where members were", Aim::Consumers, 20),
    mutant("take_old_epochs", "a member is believed whatever epoch it names", Aim::Consumers, 20),
    mutant("forget_aborted", "readers are not told what was aborted", Aim::Transactions, 10),
    mutant("read_undecided", "readers of committed records read what is not decided", Aim::Transactions, 10),
    mutant("end_halves_differently", "a transaction's partitions get different markers", Aim::Transactions, 10),
    mutant("markers_go_early", "compaction drops a marker before its records", Aim::Transactions, 60),
    mutant("count_offsets_at_once", "offsets of a transaction count before it is decided", Aim::Transactions, 10),
    mutant(
        "forget_undecided_offsets",
        "a start forgets offsets of transactions that are not decided",
        Aim::Transactions,
        60,
    ),
    mutant("journal_without_sync", "the journal's writes are not synced", Aim::Journal(1024, &[]), 10),
    mutant("forget_journal", "a start passes over the journals", Aim::Journal(1024, &[]), 10),
    mutant(
        "overwrite_unsettled",
        "a journal is overwritten before all of it is in the segments",
        Aim::Journal(24, SLOW_COMMITS),
        20,
    ),
    mutant(
        "seal_unsettled",
        "a segment is sealed before what the journal has of it is there",
        Aim::Journal(1024, &[]),
        20,
    ),
    mutant("replay_into_sealed", "a start writes into segments that have been compacted", Aim::CompactedJournal, 60),
    mutant("take_commits_of_anybody", "whoever was a member may commit", Aim::Groups, 300),
];

impl Mutant {
    /// The mutant of this name.
    pub fn find(name: &str) -> Option<Mutant> {
        ALL.into_iter().find(|mutant| mutant.name == name)
    }

    /// The plan of a seed that meets it soon.
    pub fn plan(&self, seed: u64) -> Plan {
        let plan = Plan { life_count: 6, slow: &[], member_count: 0, consumer_count: 0, ..Plan::new(seed) };
        let plan = Plan { has_compacted: false, has_transactions: false, has_tiny_segments: false, ..plan };
        let plan = Plan { journal_kib: 0, journal_min_partitions: 1, ..plan };
        let none = Faults {
            delays: false,
            errors: false,
            corruption: false,
            full: false,
            network: false,
            clock: false,
            stalls: false,
            crashes: true,
        };
        match self.aim {
            Aim::Any => plan,
            Aim::Calm => Plan { faults: Faults { crashes: false, ..none }, writer_count: 2, reader_count: 3, ..plan },
            Aim::Crashes => Plan { faults: none, goal_max: 60, ..plan },
            Aim::Reuse(size_bytes, slow) => {
                let shape = Shape::Uniform(size_bytes);
                Plan { faults: none, shape, slow, topic_count_max: 2, goal_max: 400, life_count: 8, ..plan }
            }
            Aim::Remnants => {
                let (shape, end) = (Shape::Uniform(ALIGNED_SIZE_BYTES), Some(End::Cut));
                let plan = Plan { faults: none, shape, end, writer_count: 4, topic_count_max: 1, ..plan };
                Plan { goal_max: 12, life_count: 20, shard_count_max: 1, ..plan }
            }
            Aim::Unsynced(slow) => {
                let (shape, keeps) = (Shape::Uniform(CROSSING_SIZE_BYTES), Some(Keeps::Write));
                let plan = Plan { faults: none, shape, slow, keeps, end: Some(End::Cut), ..plan };
                Plan { topic_count_max: 2, goal_max: 400, life_count: 8, ..plan }
            }
            Aim::Compaction => Plan { faults: none, has_compacted: true, topic_count_max: 1, writer_count: 1, ..plan },
            Aim::Transactions => Plan { faults: none, has_transactions: true, writer_count: 1, goal_max: 120, ..plan },
            Aim::Journal(journal_kib, slow) => {
                Plan { faults: none, journal_kib, slow, writer_count: 4, topic_count_max: 4, goal_max: 120, ..plan }
            }
            Aim::CompactedJournal => {
                let plan = Plan { faults: none, has_compacted: true, topic_count_max: 1, writer_count: 1, ..plan };
                Plan { journal_kib: 1024, ..plan }
            }
            Aim::Failing => {
                let faults = Faults { errors: true, ..none };
                Plan { faults, topic_count_max: 2, goal_max: 60, life_count: 12, ..plan }
            }
            Aim::Kills => {
                Plan { faults: none, slow: SLOW_COMMITS, end: Some(End::Kill), goal_max: 60, life_count: 10, ..plan }
            }
            Aim::SlowDoubt => Plan {
                faults: Faults { network: true, ..none },
                slow: SLOW_COMMITS,
                end: Some(End::Cut),
                writer_count: 4,
                goal_max: 120,
                ..plan
            },
            Aim::Doubt => Plan { faults: Faults { network: true, ..none }, writer_count: 4, goal_max: 120, ..plan },
            Aim::Resets => {
                let faults = Faults { network: true, crashes: false, ..none };
                Plan { faults, writer_count: 4, reader_count: 4, goal_max: 200, ..plan }
            }
            Aim::Topics => {
                let slow = SLOW_RENAMES;
                Plan { faults: none, slow, topic_count_max: 4, goal_max: 300, shard_count_max: 3, ..plan }
            }
            Aim::Groups => Plan { faults: none, slow: SLOW_OFFSETS, member_count: 4, goal_max: 400, ..plan },
            Aim::Consumers => {
                let plan = Plan { slow: SLOW_OFFSETS, consumer_count: 4, writer_count: 1, reader_count: 1, ..plan };
                Plan { faults: none, goal_max: 400, topic_count_max: 4, ..plan }
            }
            Aim::Members => Plan {
                faults: Faults { crashes: false, ..none },
                writer_count: 1,
                reader_count: 1,
                member_count: 4,
                goal_max: 1_500,
                ..plan
            },
            Aim::Readers => Plan {
                faults: none,
                shape: Shape::Uniform(CROSSING_SIZE_BYTES),
                topic_count_max: 1,
                reader_count: 4,
                slow_readers: true,
                goal_max: 400,
                ..plan
            },
        }
    }

    /// Runs one history with the rule broken.
    pub fn run(&self, seed: u64) -> Outcome {
        let _guard = Guard::new(Some(self.name));
        run(&self.plan(seed), false)
    }
}
