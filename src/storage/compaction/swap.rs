//! The log's side of compaction: what of it may be compacted, and a new segment in the place of old ones.
//!
//! The order of a swap, each arrow waiting for what stands before it:
//! the new file is whole and synced under a name that a start removes → renamed to a `.swap`, whose name tells the
//! range of offsets that it replaces → directory synced: from here on a start finishes the swap instead of undoing it
//! → readers see the new segment → the old ones' sidecars and files are removed, but for the first file → directory
//! synced → the `.swap` is renamed over the first file → directory synced → sidecar.
//!
//! The steps stand in the log's own queue of jobs, so no free, roll or checkpoint comes between them. Old files are
//! removed and never reused: reads under way, and responses that are being sent, hold them open.
//!
//! Only segments below the durable checkpoint's are touched, so recovery scans no file that a swap may have changed;
//! and the checkpoint that is durable before the first swap says that offsets may have gaps, for recovery must then
//! believe the sidecars and not the checkpoint's list.

use std::io;

use crate::base::coverage;
use crate::base::time::{Monotonic, Now, Timestamp};
use crate::io::{File, Io, OpenOptions};
use crate::model::id::Offset;
use crate::storage::event::Boundary;
use crate::storage::index::SegmentIndex;
use crate::storage::job::{Job, JobKind, Milestone, Step, replace_file};
use crate::storage::layout::FileName;
use crate::storage::log::{Log, State, is_disk_full};
use crate::storage::producer_state::ProducerEntry;
use crate::storage::segment::{Index, Segment};
use crate::storage::sidecar::{AbortedTransaction, SidecarContents};
use crate::storage::transactions::Aborted;

use super::plan::{self, CompactionPolicy, Dirtiness, SealedSegment};

/// A new segment, whole and synced under its first name.
pub(in crate::storage) struct NewSegment {
    /// Base offset of the first segment that it replaces.
    pub base_offset: Offset,
    /// Offset behind the last segment that it replaces.
    pub next_offset: Offset,
    /// Its file.
    pub path: std::path::PathBuf,
    /// Bytes of its batches.
    pub size_bytes: u64,
    /// Timestamp of its first batch.
    pub first_timestamp: Timestamp,
    /// Greatest timestamp of its records and the base offset of the first batch that holds it.
    pub max_timestamp: (Timestamp, Offset),
    /// Its index.
    pub index: SegmentIndex,
    /// Aborted transactions whose markers it holds, and records of which may be left.
    pub aborted: Vec<AbortedTransaction>,
}

/// A swap under way.
struct Swap {
    base: Offset,
    /// Until readers see it.
    segment: Option<NewSegment>,
    naming: Naming,
}

/// How far the new file has come to the name that a start finishes the swap by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Naming {
    /// Nothing has happened yet.
    Before,
    /// It is being renamed. A failure leaves open whether it was, unless there was no room for it.
    UnderWay,
    /// It has the name: there is no way back.
    Done,
}

/// What a log remembers of its compaction.
#[derive(Default)]
pub(in crate::storage) struct Compaction {
    /// Everything below was compacted.
    pub cleaner_offset: Offset,
    /// Sealed segments may have gaps between their batches.
    pub has_gaps: bool,
    /// Rises whenever places in sealed segments change: who remembers some begins anew.
    pub swap_count: u32,
    /// Base offset of the segment that a compaction reads: its file is not to be reused.
    pub reading: Option<Offset>,
    /// What it holds cannot be read: it is left alone until the next start.
    pub is_uncleanable: bool,
    /// The system refused something: it is left alone until then, so that others get their turn.
    pub rests_until: Monotonic,
    swap: Option<Box<Swap>>,
}

impl Compaction {
    /// True while a swap is under way: no segment may be freed.
    pub fn is_swapping(&self) -> bool {
        self.swap.is_some()
    }
}

impl Log {
    /// Everything below was compacted.
    pub fn cleaner_offset(&self) -> Offset {
        self.compaction.cleaner_offset
    }

    /// What of the log can be compacted now, due or not. A segment that is older than `max.compaction.lag.ms` and
    /// still active is rolled first.
    pub fn dirtiness(&mut self, io: &mut impl Io, policy: &CompactionPolicy, now: Now) -> Option<Dirtiness> {
        if self.state != State::Serving || self.offline.is_some() || self.segments.is_empty() {
            return None;
        }
        let compaction = &self.compaction;
        if compaction.is_uncleanable || compaction.rests_until > now.monotonic || compaction.is_swapping() {
            return None;
        }
        self.roll_overdue(io, policy, now);
        if self.segments.len() < 2 {
            return None;
        }
        self.move_boundaries_on();
        let sealed = self.compactable();
        plan::dirtiness(&sealed, self.log_start, self.compaction.cleaner_offset, policy, now.wall)
    }

    /// What of what `dirtiness` tells may be compacted now: what lies before the durable checkpoint's segment. For the
    /// rest of it a checkpoint is on its way.
    pub fn may_compact(&mut self, io: &mut impl Io, dirtiness: &Dirtiness) -> Option<Dirtiness> {
        self.compaction.has_gaps = true;
        let covered = match self.checkpoints.tells_gaps {
            _ if self.options.mutants().swap_without_checkpoint => dirtiness.end,
            true => self.checkpoints.durable.segment,
            false => Offset(0),
        };
        if covered < dirtiness.end {
            self.checkpoint(io);
        }
        let end = dirtiness.end.min(covered);
        (end > dirtiness.first_dirty).then_some(Dirtiness { end, ..*dirtiness })
    }

    /// Which segments below `end` become one each: base offsets of the first and behind the last, and their number.
    pub(super) fn compaction_groups(&self, end: Offset) -> Vec<(Offset, Offset, usize)> {
        let sealed = self.compactable();
        let groups = plan::groups(&sealed, end, self.options.segment_size_bytes);
        let ends = |group: std::ops::Range<usize>| {
            (sealed[group.start].base_offset, sealed[group.end - 1].next_offset, group.len())
        };
        groups.into_iter().map(ends).collect()
    }

    /// The sealed segments that lie wholly below the last stable offset, and whose ends nothing still refers to.
    fn compactable(&self) -> Vec<SealedSegment> {
        let stable = self.first_unstable_segment();
        let limits =
            [stable, self.high_watermark.segment, self.settled.segment, self.written.segment, self.end.segment];
        let limit = limits.into_iter().min().expect("there are five");
        let sealed = self.segments.iter().take_while(|segment| {
            segment.base_offset < limit && segment.is_sealed() && self.rolling != Some(segment.base_offset)
        });
        sealed
            .map(|segment| SealedSegment {
                base_offset: segment.base_offset,
                next_offset: segment.next_offset,
                size_bytes: segment.size_bytes,
                first_timestamp: segment.first_timestamp,
                max_timestamp: Timestamp(segment.summary().max_timestamp),
            })
            .collect()
    }

    /// A boundary at the end of a sealed segment is the same place as the beginning of the next one; and the next one
    /// stays while this one is rewritten.
    fn move_boundaries_on(&mut self) {
        if self.unsynced || self.syncing.is_some() || self.is_committing() {
            return;
        }
        for at in 0..4 {
            let boundary = [self.written, self.durable, self.settled, self.high_watermark][at];
            if boundary.segment < self.end.segment && self.segment(boundary.offset).is_some() {
                let moved = Boundary { segment: boundary.offset, position: 0, offset: boundary.offset };
                *[&mut self.written, &mut self.durable, &mut self.settled, &mut self.high_watermark][at] = moved;
            }
        }
    }

    /// Rolls an active segment that is older than `max.compaction.lag.ms`, so that a quiet partition keeps to it too.
    fn roll_overdue(&mut self, io: &mut impl Io, policy: &CompactionPolicy, now: Now) {
        let Ok(lag_ms) = i64::try_from(policy.max_compaction_lag_ms) else { return };
        let active = self.active();
        let first = active.first_timestamp.0;
        if active.size_bytes > 0 && first > 0 && first < now.wall.0.saturating_sub(lag_ms) && lag_ms < i64::MAX {
            // Where the next file is not ready yet, the next look finds it.
            if self.roll(io, now).is_ok() {
                self.go_on(io);
            }
        }
    }

    /// Puts a new segment into the place of those that it replaces; [`Log::is_swapping`] is true until it is done.
    /// False if the old ones are not all there any more.
    pub(super) fn swap_segments(&mut self, io: &mut impl Io, new: NewSegment) -> bool {
        let (base, next) = (new.base_offset, new.next_offset);
        let is_there = |offset| self.segment(offset).is_some();
        if self.offline.is_some()
            || self.state != State::Serving
            || self.compaction.is_swapping()
            || !is_there(base)
            || !is_there(next)
        {
            return false;
        }
        let dir = self.identity.dir.clone();
        let swap = FileName::Swap(base, next).path(&dir);
        let replaced = self.segments.iter().filter(|s| s.base_offset >= base && s.base_offset < next);
        let mut steps = vec![
            // Readers use this handle while the file changes its name.
            Step::Open { path: new.path.clone(), options: OpenOptions::default() },
            Step::Reached(Milestone::SwapOpened),
            Step::Rename { from: new.path.clone(), to: swap.clone() },
            Step::Reached(Milestone::SwapNamed),
            Step::SyncDir(dir.clone()),
            Step::Reached(Milestone::Swapped),
        ];
        for old in replaced {
            steps.push(Step::Remove(FileName::Sidecar(old.base_offset).path(&dir)));
            if old.base_offset != base {
                steps.push(Step::Remove(old.path(&dir)));
            }
        }
        steps.push(Step::SyncDir(dir.clone()));
        steps.push(Step::Rename { from: swap, to: FileName::Segment(base).path(&dir) });
        steps.push(Step::SyncDir(dir));
        steps.push(Step::Reached(Milestone::SwapDone));
        if self.options.mutants().swap_without_name {
            let last_name = FileName::Segment(base).path(&self.identity.dir);
            steps[2] = Step::Rename { from: new.path.clone(), to: last_name };
            let second = steps.iter().rposition(|step| matches!(step, Step::Rename { .. })).expect("it is there");
            steps.remove(second);
        }
        self.compaction.swap = Some(Box::new(Swap { base, segment: Some(new), naming: Naming::Before }));
        self.jobs.push_back(Job::new(JobKind::Swap, None, steps));
        self.go_on(io);
        true
    }

    /// True while a swap is under way.
    pub fn is_swapping(&self) -> bool {
        self.compaction.is_swapping()
    }

    /// The new file is open, and its renaming comes next.
    pub(in crate::storage) fn swap_opened(&mut self) {
        if let Some(swap) = &mut self.compaction.swap {
            swap.naming = Naming::UnderWay;
        }
    }

    /// The new file has the name that tells what it replaces.
    pub(in crate::storage) fn swap_named(&mut self) {
        if let Some(swap) = &mut self.compaction.swap {
            swap.naming = Naming::Done;
        }
    }

    /// The new file's name is durable: the log changes its mind, at once.
    pub(in crate::storage) fn swapped(&mut self, file: File) {
        let Some(swap) = &mut self.compaction.swap else { return };
        let new = swap.segment.take().expect("a swap happens once");
        let from = self.segments.partition_point(|segment| segment.base_offset < new.base_offset);
        let to = self.segments.partition_point(|segment| segment.base_offset < new.next_offset);
        let mut written_at = Timestamp::NONE;
        for old in self.segments.range(from..to) {
            written_at = written_at.max(Timestamp(old.summary().max_timestamp));
            self.tail.forget_segment(old.base_offset);
            self.shared.files.forget(self.token_base, old.base_offset);
        }
        let mut segment = Segment::sealed(new.base_offset, new.next_offset, new.size_bytes, new.max_timestamp);
        segment.first_timestamp = new.first_timestamp;
        segment.written_at = written_at;
        segment.index = Index::Memory(new.index);
        segment.aborted = Aborted::restore(new.aborted);
        segment.renaming = Some(file);
        self.segments.drain(from..to);
        self.segments.insert(from, segment);
        self.hints = Default::default();
        self.compaction.swap_count += 1;
        coverage::hit(if to - from > 1 {
            "compaction: several segments become one"
        } else {
            "compaction: a segment is replaced"
        });
    }

    /// The new file has its last name, durably: its sidecar follows.
    pub(in crate::storage) fn swap_done(&mut self) {
        let Some(swap) = self.compaction.swap.take() else { return };
        let Some(at) = self.segments.iter().position(|segment| segment.base_offset == swap.base) else { return };
        let segment = &mut self.segments[at];
        if let Some(file) = segment.renaming.take() {
            self.shared.files.keep_file(self.token_base, swap.base, file);
        }
        let next_offset = segment.next_offset;
        let Index::Memory(index) = &segment.index else { return };
        let contents = SidecarContents {
            segment: segment.summary(),
            max_timestamp_offset: segment.max_timestamp.1.0,
            index: index.entries().to_vec(),
            aborted: segment.aborted.entries.clone(),
            producers: producers_below(&self.producers.snapshot(), next_offset),
            epochs: self.epochs.entries().iter().filter(|epoch| epoch.start_offset < next_offset.0).copied().collect(),
        };
        let bytes = contents.encode();
        // Without memory the index stays where it is, and the next start makes the sidecar.
        if let Some(buffer) = self.shared.pool.take_append(bytes.len()) {
            buffer.append(&bytes);
            let name = FileName::Sidecar(swap.base).to_string();
            let mut steps = Vec::from(replace_file(&self.identity.dir, &name, buffer.slice(0..bytes.len())));
            steps.push(Step::SyncDir(self.identity.dir.clone()));
            steps.push(Step::Reached(Milestone::SidecarWritten(swap.base)));
            self.jobs.push_back(Job::new(JobKind::Sidecar, None, steps));
        }
    }

    /// A step of a swap failed. True if nothing has happened yet: then the old segments stay.
    pub(in crate::storage) fn abandon_swap(&mut self, error: &io::Error) -> bool {
        let is_harmless = match self.compaction.swap.as_ref().map(|swap| swap.naming) {
            None | Some(Naming::Before) => true,
            Some(Naming::UnderWay) => is_disk_full(error),
            Some(Naming::Done) => false,
        };
        if is_harmless {
            self.compaction.swap = None;
        }
        is_harmless
    }

    /// Everything below `offset` was compacted. A checkpoint keeps it.
    pub(super) fn set_cleaner_offset(&mut self, io: &mut impl Io, offset: Offset) {
        self.compaction.cleaner_offset = self.compaction.cleaner_offset.max(offset);
        self.checkpoint(io);
    }
}

/// Producers as of `end`, as far as their last batches tell.
fn producers_below(producers: &[ProducerEntry], end: Offset) -> Vec<ProducerEntry> {
    let mut below = Vec::new();
    for producer in producers {
        let mut producer = *producer;
        for at in 0..producer.batches.len() {
            if producer.batches[at].last_offset >= end.0 {
                producer.batches[at].last_offset = -1;
            }
        }
        if producer.transaction_first_offset >= end.0 {
            producer.transaction_first_offset = -1;
        }
        if producer.batches[0].last_offset >= 0 {
            below.push(producer);
        }
    }
    below
}
