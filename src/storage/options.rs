//! What the owner of a log decides, as plain values; and, in tests and
//! simulations only, the rules that they break on purpose.

use std::time::Duration;

use crate::base::units::{GIB, KIB};

/// When an append counts as acknowledged (`ack.after`, DESIGN section 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AckAfter {
    /// The direct write completed with `RWF_DSYNC`: survives power loss.
    #[default]
    Sync,
    /// The direct write completed: survives kill -9.
    Write,
    /// The batch is staged: survives nothing but a clean stop.
    Memory,
}

/// How space is made ahead of the writer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PrepareMode {
    /// Zeros are written and synced: later writes are plain overwrites.
    #[default]
    Zeros,
    /// Blocks are reserved as unwritten extents (`fallocate`).
    Allocate,
    /// Not at all: each write grows the file.
    None,
}

/// The options of one log.
#[derive(Clone, Copy, Debug)]
pub struct LogOptions {
    /// `segment.bytes`: a batch that would make a segment longer goes to the next one. At least one batch.
    pub segment_size_bytes: u64,
    /// `segment.ms`: a segment is rolled when the next batch comes so long after the first.
    pub segment_ms: u64,
    /// `index.interval.bytes`: about so many bytes lie between two entries of the offset index.
    pub index_interval_size_bytes: u32,
    /// When an append counts as acknowledged.
    pub ack_after: AckAfter,
    /// How space is made ahead of the writer.
    pub prepare: PrepareMode,
    /// Freed files are overwritten. Off on copy-on-write file systems, where it gains nothing.
    pub reuse: bool,
    /// `message.timestamp.type=LogAppendTime`: stamps the broker's time and recomputes the CRC.
    pub log_append_time: bool,
    /// Ranges of sealed segments from this size on are given out as file ranges, for splice; smaller ones are read.
    pub splice_size_bytes_min: u32,
    /// How long appends are refused after the disk was found full before it is asked again.
    pub disk_full_pause: Duration,
    /// Rules broken on purpose.
    #[cfg(any(test, feature = "simulate"))]
    pub mutants: Mutants,
}

impl Default for LogOptions {
    fn default() -> LogOptions {
        LogOptions {
            segment_size_bytes: GIB as u64,
            segment_ms: 7 * 24 * 3600 * 1000,
            index_interval_size_bytes: 4 * KIB as u32,
            ack_after: AckAfter::Sync,
            prepare: PrepareMode::Zeros,
            reuse: true,
            log_append_time: false,
            splice_size_bytes_min: 128 * KIB as u32,
            disk_full_pause: Duration::from_millis(500),
            #[cfg(any(test, feature = "simulate"))]
            mutants: Mutants::of_this_thread(),
        }
    }
}

impl LogOptions {
    /// The broken rules; outside tests and simulations none, and the branches compile away.
    #[cfg(any(test, feature = "simulate"))]
    pub(super) fn mutants(&self) -> Mutants {
        self.mutants
    }

    /// The broken rules; outside tests and simulations none, and the branches compile away.
    #[cfg(not(any(test, feature = "simulate")))]
    pub(super) fn mutants(&self) -> Mutants {
        Mutants::default()
    }
}

/// Each field breaks one rule; a test shows that the simulated world catches it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mutants {
    /// Commits are not synced although `ack.after` is `sync`.
    pub skip_sync: bool,
    /// A header that crosses a block boundary in a reused file is written in one step.
    pub skip_two_step: bool,
    /// A new staging buffer does not start with the unfinished block's content.
    pub skip_tail_carry: bool,
    /// A new segment is written before the old one's last write is durable.
    pub roll_without_wait: bool,
    /// A freed file is overwritten before its renaming is durable.
    pub reuse_before_sync_dir: bool,
    /// Recovery leaves what lies behind the end.
    pub skip_zeroing: bool,
    /// Recovery does not write again what it finds above the checkpoint.
    pub trust_what_is_found: bool,
    /// Recovery accepts a leader epoch that goes back.
    pub skip_epoch_check: bool,
    /// The high watermark moves when a batch is staged.
    pub ack_before_write: bool,
    /// A checkpoint describes the log's end, synced or not.
    pub checkpoint_beyond_sync: bool,
    /// Compaction drops tombstones in the first pass.
    pub tombstones_go_early: bool,
    /// Compaction drops a marker although something of its transaction is left.
    pub markers_go_early: bool,
    /// Compaction keeps the record before the last one of a key, too, and drops the last.
    pub drop_the_last_value: bool,
    /// Segments are replaced although no durable checkpoint says that offsets may have gaps.
    pub swap_without_checkpoint: bool,
    /// A compacted segment is swapped in without having been synced.
    pub swap_before_sync: bool,
    /// A compacted segment replaces the first old one without a name that tells of the others.
    pub swap_without_name: bool,
    /// The header of a segment's last batch goes with its last record.
    pub forget_last_header: bool,
    /// Readers keep the places that they remember of a segment that was replaced.
    pub keep_old_places: bool,
    /// Reads insist on the batch that holds the offset, as where there are no gaps.
    pub forget_gaps: bool,
}

#[cfg(any(test, feature = "simulate"))]
impl Mutants {
    /// What this thread breaks, by the names of the fields.
    pub fn of_this_thread() -> Mutants {
        use crate::base::mutant::is_on;
        Mutants {
            skip_sync: is_on("skip_sync"),
            skip_two_step: is_on("skip_two_step"),
            skip_tail_carry: is_on("skip_tail_carry"),
            roll_without_wait: is_on("roll_without_wait"),
            reuse_before_sync_dir: is_on("reuse_before_sync_dir"),
            skip_zeroing: is_on("skip_zeroing"),
            trust_what_is_found: is_on("trust_what_is_found"),
            // Either net alone holds what the other one lets through.
            skip_epoch_check: is_on("skip_zeroing"),
            ack_before_write: is_on("ack_before_write"),
            checkpoint_beyond_sync: is_on("checkpoint_beyond_sync"),
            tombstones_go_early: is_on("tombstones_go_early"),
            markers_go_early: is_on("markers_go_early"),
            swap_before_sync: is_on("swap_before_sync"),
            swap_without_name: is_on("swap_without_name"),
            forget_last_header: is_on("forget_last_header"),
            keep_old_places: is_on("keep_old_places"),
            forget_gaps: is_on("forget_gaps"),
            drop_the_last_value: is_on("drop_the_last_value"),
            swap_without_checkpoint: is_on("swap_without_checkpoint"),
        }
    }
}
