//! What a partition needs to start without reading its log from the beginning.
//!
//! 1. While it runs: [`PartitionState`] goes into the partition's `checkpoint` file. One direct synced write; no
//!    rename, no sync of the directory. [`place`] puts it where the last durable one is not, so a torn write costs
//!    nothing: [`find`] takes the sound one with the greatest sequence.
//! 2. When it stops cleanly: the states of many partitions go together into one `clean-stop.<part>` file, as a row of
//!    chunks ([`CleanStopWriter`], [`read_clean_stop_chunk`]): one sequential write and one sync for thousands of
//!    partitions. The files are removed, and the removal made durable, before the first append after a start.
//!
//! Invariants: a state describes synced bytes only. A partition that no clean-stop file names did not stop cleanly
//! and recovers from its checkpoint; one without a checkpoint recovers from its segments.

mod version_1;
mod version_2;

use rkyv::rancor;
use rkyv::{Archive, Deserialize, Serialize};

use crate::model::id::{PartitionIndex, TopicId, TopicIdPartition};
use crate::model::limits::BLOCK_SIZE_BYTES;
use uuid::Uuid;

use super::envelope::{self, Envelope, EnvelopeError, Kind};
use super::epochs::EpochEntry;
use super::index::{IndexEntry, thinned};
use super::producer_state::ProducerEntry;
use super::retention::SegmentSummary;
use super::sidecar::AbortedTransaction;

/// Magic and version of a checkpoint.
pub const KIND: Kind = Kind { magic: *b"ottlaCKP", version: 3, version_min: 1 };
/// Magic and version of a clean-stop chunk.
pub const CLEAN_STOP_KIND: Kind = Kind { magic: *b"ottlaSTP", version: 3, version_min: 1 };

/// Entries of the active segment's index that the clean-stop file keeps for one partition: 16 KiB, so that 10,000
/// partitions stay below 160 MiB. A coarser index makes the first lookups read further, never wrongly.
pub const CLEAN_STOP_INDEX_ENTRY_COUNT_MAX: usize = 1024;

/// Bytes of states that are gathered into one clean-stop chunk: what is in memory at a time.
const CHUNK_SIZE_BYTES: usize = 1024 * 1024;

/// A partition at a moment at which everything that is named here was durable, as it is archived.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionState {
    /// Base offset of the active segment.
    pub active_base_offset: i64,
    /// Bytes of the active segment that are durable: recovery scans from here.
    pub position_bytes: u64,
    /// Offset that the batch at that position has, if there is one.
    pub next_offset: i64,
    /// Log start offset.
    pub log_start: i64,
    /// The greatest commit so far: how far behind the end recovery must look, and zero.
    pub commit_bytes_max: u64,
    /// Greatest timestamp of the active segment up to the position; -1: none.
    pub max_timestamp: i64,
    /// Base offset of the first batch that holds it; -1: none.
    pub max_timestamp_offset: i64,
    /// Everything below was compacted.
    pub cleaner_offset: i64,
    /// Leader epoch in which this was written.
    pub leader_epoch: i32,
    /// Nothing was written after this: recovery has nothing to scan.
    pub clean: bool,
    /// The log was compacted: sealed segments may have gaps between their batches, and may have changed since.
    pub has_gaps: bool,
    /// The sealed segments, oldest first, so that none has to be opened to know the log's shape.
    pub sealed: Vec<SegmentSummary>,
    /// Index of the active segment up to the position.
    pub index: Vec<IndexEntry>,
    /// Leader epochs.
    pub epochs: Vec<EpochEntry>,
    /// Producers as of the position.
    pub producers: Vec<ProducerEntry>,
    /// Aborted transactions whose markers are in the active segment, by ascending offset of the marker.
    pub aborted: Vec<AbortedTransaction>,
    /// Which sealed segments have some in their sidecars.
    pub aborting_segments: Vec<AbortingSegment>,
}

/// A sealed segment that holds markers of aborted transactions, as it is archived.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbortingSegment {
    /// Its base offset.
    pub base_offset: i64,
    /// The least first offset of these transactions.
    pub first_offset: i64,
}

impl PartitionState {
    /// The checkpoint's bytes, whole blocks. `sequence` is one above that of the last one.
    pub fn encode(&self, sequence: u64) -> Vec<u8> {
        envelope::seal(KIND, sequence, self)
    }
}

/// A checkpoint that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its sequence; the next one's is one more.
    pub sequence: u64,
    /// Where it is in the file.
    pub slot: Slot,
    /// What it says.
    pub state: PartitionState,
}

/// The blocks of the checkpoint file that one checkpoint fills.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    /// First byte.
    pub start_bytes: u64,
    /// Length.
    pub size_bytes: u64,
}

/// Where the next checkpoint of `size_bytes` goes: at the start of the file if it ends before the last durable one,
/// else behind that. The file never grows beyond three of its largest checkpoints.
pub fn place(durable: Option<Slot>, size_bytes: u64) -> Slot {
    let start_bytes = match durable {
        Some(slot) if size_bytes > slot.start_bytes => slot.start_bytes + slot.size_bytes,
        _ => 0,
    };
    Slot { start_bytes, size_bytes }
}

/// The newest sound checkpoint in the bytes of a checkpoint file. Older and torn ones are passed over; `None` if
/// there is none. An error only if the newest is whole but cannot be understood: it must not be taken for absent.
pub fn find(bytes: &[u8]) -> Result<Option<Found>, EnvelopeError> {
    let mut newest: Option<(Slot, Envelope<'_>)> = None;
    let mut foreign: Option<(u64, EnvelopeError)> = None;
    for start in (0..bytes.len()).step_by(BLOCK_SIZE_BYTES) {
        match envelope::open(KIND, &bytes[start..]) {
            Ok(envelope) if newest.is_none_or(|(_, newest)| envelope.sequence > newest.sequence) => {
                newest = Some((Slot { start_bytes: start as u64, size_bytes: envelope.size_bytes as u64 }, envelope));
            }
            Err(error @ EnvelopeError::Version { sequence, .. })
                if foreign.is_none_or(|(greatest, _)| sequence > greatest) =>
            {
                foreign = Some((sequence, error));
            }
            _ => {}
        }
    }
    if let Some((sequence, error)) = foreign
        && newest.is_none_or(|(_, newest)| sequence > newest.sequence)
    {
        return Err(error);
    }
    let Some((slot, envelope)) = newest else { return Ok(None) };
    let state = match envelope.version {
        1 => decode::<version_1::ArchivedState, version_1::State>(envelope.payload)?.into(),
        2 => decode::<version_2::ArchivedState, version_2::State>(envelope.payload)?.into(),
        _ => decode::<ArchivedPartitionState, PartitionState>(envelope.payload)?,
    };
    Ok(Some(Found { sequence: envelope.sequence, slot, state }))
}

/// One partition of a clean-stop chunk.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
struct CleanStopEntry {
    topic: [u8; 16],
    partition: i32,
    state: PartitionState,
}

/// One chunk: the envelope's sequence counts them from 0.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
struct CleanStopChunk {
    entries: Vec<CleanStopEntry>,
}

/// Gathers partitions into chunks that are written one behind the other.
#[derive(Debug, Default)]
pub struct CleanStopWriter {
    chunk: CleanStopChunk,
    chunk_bytes: usize,
    sequence: u64,
}

impl CleanStopWriter {
    /// Adds a partition; now and then a chunk is full and must be written, behind the previous ones.
    pub fn push(&mut self, partition: TopicIdPartition, mut state: PartitionState) -> Option<Vec<u8>> {
        state.clean = true;
        state.index = thinned(&state.index, CLEAN_STOP_INDEX_ENTRY_COUNT_MAX);
        self.chunk_bytes += estimate_bytes(&state);
        self.chunk.entries.push(CleanStopEntry {
            topic: *partition.topic.0.as_bytes(),
            partition: partition.partition.0,
            state,
        });
        (self.chunk_bytes >= CHUNK_SIZE_BYTES).then(|| self.seal())
    }

    /// The last chunk, to be written before the file is synced; `None` if everything was handed out.
    pub fn finish(mut self) -> Option<Vec<u8>> {
        (!self.chunk.entries.is_empty()).then(|| self.seal())
    }

    fn seal(&mut self) -> Vec<u8> {
        let bytes = envelope::seal(CLEAN_STOP_KIND, self.sequence, &self.chunk);
        self.sequence += 1;
        self.chunk = CleanStopChunk::default();
        self.chunk_bytes = 0;
        bytes
    }
}

/// Reads one chunk at the start of `bytes`: its partitions, and its length in the file, where the next one begins.
/// `sequence` counts the chunks from 0. The file ends behind the last chunk; anything else is an error, and the
/// partitions that were not named recover from their checkpoints.
pub fn read_clean_stop_chunk(
    sequence: u64,
    bytes: &[u8],
) -> Result<(Vec<(TopicIdPartition, PartitionState)>, usize), EnvelopeError> {
    let found = envelope::open(CLEAN_STOP_KIND, bytes)?;
    if found.sequence != sequence {
        return Err(EnvelopeError::Malformed);
    }
    let chunk = match found.version {
        1 => decode::<version_1::ArchivedChunk, version_1::Chunk>(found.payload)?.into(),
        2 => decode::<version_2::ArchivedChunk, version_2::Chunk>(found.payload)?.into(),
        _ => decode::<ArchivedCleanStopChunk, CleanStopChunk>(found.payload)?,
    };
    let entries = chunk.entries.into_iter().map(|entry| {
        let topic = TopicId(Uuid::from_bytes(entry.topic));
        (TopicIdPartition { topic, partition: PartitionIndex(entry.partition) }, entry.state)
    });
    Ok((entries.collect(), found.size_bytes))
}

/// Bytes that a clean-stop reader must have to read the chunk whose first block is `bytes`.
pub fn clean_stop_chunk_size(bytes: &[u8]) -> Option<usize> {
    envelope::size_of_envelope(CLEAN_STOP_KIND, bytes)
}

fn decode<A, T>(payload: &[u8]) -> Result<T, EnvelopeError>
where
    A: rkyv::Portable
        + for<'a> rkyv::bytecheck::CheckBytes<rkyv::api::high::HighValidator<'a, rancor::Failure>>
        + rkyv::Deserialize<T, rkyv::api::high::HighDeserializer<rancor::Failure>>,
{
    let archived = envelope::access::<A>(payload)?;
    rkyv::deserialize::<T, rancor::Failure>(archived).map_err(|_| EnvelopeError::Malformed)
}

fn estimate_bytes(state: &PartitionState) -> usize {
    128 + state.sealed.len() * size_of::<SegmentSummary>()
        + state.index.len() * size_of::<IndexEntry>()
        + state.epochs.len() * size_of::<EpochEntry>()
        + state.producers.len() * size_of::<ProducerEntry>()
        + state.aborted.len() * size_of::<AbortedTransaction>()
        + state.aborting_segments.len() * size_of::<AbortingSegment>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;
    use rkyv::util::AlignedVec;

    fn state(seed: u64) -> PartitionState {
        let mut rng = Rng::new(seed);
        let base = rng.in_range(0..1 << 40) as i64;
        let count = rng.in_range(0..400) as u32;
        PartitionState {
            active_base_offset: base,
            position_bytes: 40_000 * u64::from(count + 1),
            next_offset: base + 10 * i64::from(count + 1),
            log_start: base / 2,
            commit_bytes_max: rng.in_range(0..1 << 20),
            max_timestamp: 77,
            max_timestamp_offset: base,
            leader_epoch: 4,
            clean: false,
            has_gaps: rng.chance(1, 2),
            cleaner_offset: base / 3,
            sealed: vec![SegmentSummary { base_offset: 0, next_offset: base, size_bytes: 99, max_timestamp: 5 }],
            index: (1..=count)
                .map(|at| IndexEntry { timestamp_before: 77, relative_offset: at * 10, position_bytes: at * 40_000 })
                .collect(),
            epochs: vec![EpochEntry { start_offset: 0, epoch: 1 }, EpochEntry { start_offset: 50, epoch: 4 }],
            producers: Vec::new(),
            aborted: Vec::new(),
            aborting_segments: vec![AbortingSegment { base_offset: 0, first_offset: 3 }],
        }
    }

    fn aligned(bytes: &[u8]) -> AlignedVec<4096> {
        let mut copy = AlignedVec::new();
        copy.extend_from_slice(bytes);
        copy
    }

    /// A checkpoint file: what a write does to it, whole or torn.
    #[derive(Clone, Default)]
    struct CheckpointFile(Vec<u8>);

    impl CheckpointFile {
        fn write(&mut self, slot: Slot, bytes: &[u8]) {
            let (start, end) = (slot.start_bytes as usize, slot.start_bytes as usize + bytes.len());
            self.0.resize(self.0.len().max(end), 0);
            self.0[start..end].copy_from_slice(bytes);
        }

        /// Writes some blocks of `bytes` and not the others.
        fn tear(&mut self, slot: Slot, bytes: &[u8], rng: &mut Rng) {
            let old = self.clone();
            self.write(slot, bytes);
            let mut any_lost = false;
            for (at, block) in self.0.chunks_mut(BLOCK_SIZE_BYTES).enumerate() {
                let start = at * BLOCK_SIZE_BYTES;
                let written = (slot.start_bytes as usize..slot.start_bytes as usize + bytes.len()).contains(&start);
                if written && (rng.chance(1, 2) || (!any_lost && start + BLOCK_SIZE_BYTES >= bytes.len())) {
                    any_lost = true;
                    match old.0.get(start..start + BLOCK_SIZE_BYTES) {
                        Some(before) => block.copy_from_slice(before),
                        None => block.fill(0),
                    }
                }
            }
        }
    }

    #[test]
    fn a_torn_write_leaves_the_last_durable_checkpoint() {
        // Checkpoints of many sizes; before each one a torn attempt, after which the previous one must be found.
        for seed in 0..20 {
            let mut rng = Rng::new(seed);
            let mut file = CheckpointFile::default();
            let mut durable: Option<Found> = None;
            for round in 0..30 {
                let state = state(rng.next_u64());
                let sequence = durable.as_ref().map_or(0, |found| found.sequence + 1);
                let bytes = state.encode(sequence);
                let slot = place(durable.as_ref().map(|found| found.slot), bytes.len() as u64);
                let mut torn = file.clone();
                torn.tear(slot, &bytes, &mut rng);
                let found = find(&aligned(&torn.0)).expect("readable");
                // All blocks but padding may have made it: then it is the new one, as whole as it can be.
                let arrived = found.as_ref().is_some_and(|found| found.sequence == sequence && found.state == state);
                assert!(arrived || found == durable, "seed {seed} round {round}");
                if rng.chance(1, 2) {
                    file = torn;
                }
                file.write(slot, &bytes);
                durable = Some(Found { sequence, slot, state });
                assert_eq!(find(&aligned(&file.0)).expect("readable"), durable);
            }
            assert!(file.0.len() <= 3 * state_size_max());
        }
    }

    fn state_size_max() -> usize {
        PartitionState {
            index: vec![IndexEntry { timestamp_before: 0, relative_offset: 0, position_bytes: 0 }; 400],
            ..state(0)
        }
        .encode(0)
        .len()
    }

    #[test]
    fn the_file_stays_small_whatever_the_sizes() {
        let mut rng = Rng::new(3);
        let mut durable = None;
        for _ in 0..10_000 {
            let slot = place(durable, rng.in_range(1..=16) * BLOCK_SIZE_BYTES as u64);
            if let Some(before) = durable {
                let apart = slot.start_bytes + slot.size_bytes <= before.start_bytes
                    || before.start_bytes + before.size_bytes <= slot.start_bytes;
                assert!(apart);
            }
            assert!(slot.start_bytes + slot.size_bytes <= 3 * 16 * BLOCK_SIZE_BYTES as u64);
            durable = Some(slot);
        }
    }

    #[test]
    fn an_empty_or_damaged_file_has_no_checkpoint() {
        assert_eq!(find(&[]), Ok(None));
        assert_eq!(find(&aligned(&[0; 8192])), Ok(None));
        let mut bytes = state(1).encode(0);
        bytes[40] ^= 1;
        assert_eq!(find(&aligned(&bytes)), Ok(None));
    }

    #[test]
    fn a_newer_format_is_an_error_and_an_older_one_is_passed_over() {
        // The foreign one is made of a sound one with another version and its checksum.
        let with_version = |bytes: &[u8], version: u32| {
            let mut bytes = bytes.to_vec();
            let length = u64::from_le_bytes(*bytes[24..].first_chunk().expect("there")) as usize;
            bytes[8..12].copy_from_slice(&version.to_le_bytes());
            let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..32 + length]);
            bytes[12..16].copy_from_slice(&crc.to_le_bytes());
            bytes
        };
        let (old, new) = (state(1).encode(5), state(2).encode(6));
        let version = KIND.version + 1;
        let newer = [old.clone(), with_version(&new, version)].concat();
        assert_eq!(find(&aligned(&newer)), Err(EnvelopeError::Version { version, sequence: 6 }));
        let older = [with_version(&old, version), new].concat();
        assert_eq!(find(&aligned(&older)).expect("readable").map(|found| found.sequence), Some(6));
    }

    #[test]
    fn a_clean_stop_of_many_partitions_reads_back_chunk_by_chunk() {
        let partition = |at: i32| TopicIdPartition {
            topic: TopicId(Uuid::from_u128(at as u128 / 10 + 1)),
            partition: PartitionIndex(at % 10),
        };
        let mut writer = CleanStopWriter::default();
        let mut file = Vec::new();
        let mut chunk_count = 0;
        for at in 0..2000 {
            if let Some(chunk) = writer.push(partition(at), state(at as u64)) {
                file.extend_from_slice(&chunk);
                chunk_count += 1;
            }
        }
        if let Some(chunk) = writer.finish() {
            file.extend_from_slice(&chunk);
            chunk_count += 1;
        }
        assert!(chunk_count > 1);
        let (mut start, mut sequence, mut seen) = (0, 0, 0);
        while start < file.len() {
            let size = clean_stop_chunk_size(&file[start..start + BLOCK_SIZE_BYTES]).expect("a chunk");
            let bytes = aligned(&file[start..start + size]);
            let (entries, read) = read_clean_stop_chunk(sequence, &bytes).expect("sound");
            assert_eq!(read, size);
            for (id, found) in entries {
                let expected = PartitionState { clean: true, ..state(seen as u64) };
                assert_eq!((id, found), (partition(seen), expected));
                seen += 1;
            }
            start += size;
            sequence += 1;
        }
        assert_eq!((seen, sequence), (2000, chunk_count));
        let first = aligned(&file[..start.min(4 << 20)]);
        assert_eq!(read_clean_stop_chunk(1, &first), Err(EnvelopeError::Malformed));
        assert!(CleanStopWriter::default().finish().is_none());
    }

    #[test]
    fn a_long_index_is_thinned_in_the_clean_stop_file() {
        let mut writer = CleanStopWriter::default();
        let index = (1..=8000)
            .map(|at| IndexEntry { timestamp_before: 0, relative_offset: at, position_bytes: at * 100 })
            .collect();
        let id = TopicIdPartition { topic: TopicId::NONE, partition: PartitionIndex(0) };
        assert_eq!(writer.push(id, PartitionState { index, ..state(0) }), None);
        let bytes = aligned(&writer.finish().expect("one chunk"));
        let (entries, _) = read_clean_stop_chunk(0, &bytes).expect("sound");
        assert_eq!(entries[0].1.index.len(), 1000);
    }

    #[test]
    fn random_corruption_is_refused_or_harmless_and_never_a_panic() {
        let expected = state(4);
        let sound = expected.encode(9);
        let mut rng = Rng::new(31);
        for _ in 0..3000 {
            let mut bytes = aligned(&sound);
            for _ in 0..rng.in_range(1..10) {
                let at = rng.in_range(..bytes.len() as u64) as usize;
                bytes[at] = rng.next_u64() as u8;
            }
            if let Ok(Some(found)) = find(&bytes) {
                assert_eq!(found.state, expected);
            }
        }
    }

    #[test]
    fn corruption_behind_a_right_checksum_is_never_a_panic() {
        // Lists that lead outside, booleans that are none, lengths that lie: what opens is whole, the rest an error.
        let mut writer = CleanStopWriter::default();
        let id = TopicIdPartition { topic: TopicId::NONE, partition: PartitionIndex(0) };
        assert_eq!(writer.push(id, state(4)), None);
        let clean_stop = writer.finish().expect("one chunk");
        let checkpoint = state(4).encode(9);
        let mut rng = Rng::new(37);
        let (mut opened, mut refused) = (0, 0);
        for round in 0..10_000 {
            let sound = if round % 2 == 0 { &checkpoint } else { &clean_stop };
            let length = u64::from_le_bytes(*sound[24..].first_chunk().expect("there")) as usize;
            let mut bytes = aligned(sound);
            for _ in 0..rng.in_range(1..4) {
                // The root structure is at the end: most of the changes go there.
                let reach = if rng.chance(3, 4) { 128 } else { length as u64 };
                let back = rng.in_range(1..=reach) as usize;
                bytes[32 + length - back] = rng.next_u64() as u8;
            }
            let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..32 + length]);
            bytes[12..16].copy_from_slice(&crc.to_le_bytes());
            let is_ok = if round % 2 == 0 { find(&bytes).is_ok() } else { read_clean_stop_chunk(0, &bytes).is_ok() };
            if is_ok { opened += 1 } else { refused += 1 }
        }
        assert!(opened > 1000 && refused > 1000, "{opened} opened, {refused} refused");
    }

    #[test]
    fn the_drawing_in_the_documentation_is_true() {
        // Places and sizes in doc/on_disk_format.md.
        use crate::storage::epochs::ArchivedEpochEntry;
        use crate::storage::index::ArchivedIndexEntry;
        use crate::storage::producer_state::{ArchivedBatchEntry, ArchivedProducerEntry};
        use crate::storage::retention::ArchivedSegmentSummary;
        use std::mem::offset_of;
        assert_eq!((size_of::<ArchivedSegmentSummary>(), size_of::<ArchivedIndexEntry>()), (32, 16));
        assert_eq!((size_of::<ArchivedEpochEntry>(), offset_of!(ArchivedEpochEntry, epoch)), (16, 8));
        assert_eq!((size_of::<ArchivedBatchEntry>(), size_of::<ArchivedProducerEntry>()), (24, 152));
        assert_eq!(offset_of!(ArchivedProducerEntry, batches), 24);
        assert_eq!(offset_of!(ArchivedProducerEntry, producer_epoch), 148);
        assert_eq!(offset_of!(ArchivedPartitionState, cleaner_offset), 56);
        assert_eq!(offset_of!(ArchivedPartitionState, leader_epoch), 64);
        assert_eq!(offset_of!(ArchivedPartitionState, clean), 68);
        assert_eq!(offset_of!(ArchivedPartitionState, has_gaps), 69);
        assert_eq!(offset_of!(ArchivedPartitionState, sealed), 72);
        assert_eq!(offset_of!(ArchivedPartitionState, producers), 96);
        assert_eq!(offset_of!(ArchivedPartitionState, aborted), 104);
        assert_eq!(offset_of!(ArchivedPartitionState, aborting_segments), 112);
        assert_eq!(size_of::<ArchivedPartitionState>(), 120);
        assert_eq!(size_of::<ArchivedAbortingSegment>(), 16);
        assert_eq!((offset_of!(ArchivedCleanStopEntry, state), size_of::<ArchivedCleanStopEntry>()), (24, 144));
        assert_eq!((size_of::<ArchivedCleanStopChunk>(), align_of::<ArchivedCleanStopChunk>()), (8, 4));
    }

    fn golden() -> PartitionState {
        PartitionState {
            active_base_offset: 1000,
            position_bytes: 80_000,
            next_offset: 1020,
            log_start: 500,
            commit_bytes_max: 65_536,
            max_timestamp: 77,
            max_timestamp_offset: 1003,
            leader_epoch: 4,
            clean: false,
            has_gaps: true,
            cleaner_offset: 700,
            sealed: vec![SegmentSummary { base_offset: 0, next_offset: 1000, size_bytes: 99, max_timestamp: 5 }],
            index: vec![IndexEntry { timestamp_before: 77, relative_offset: 10, position_bytes: 40_000 }],
            epochs: vec![EpochEntry { start_offset: 0, epoch: 1 }, EpochEntry { start_offset: 50, epoch: 4 }],
            producers: Vec::new(),
            aborted: vec![AbortedTransaction {
                producer_id: 7,
                first_offset: 1001,
                last_offset: 1005,
                last_stable_offset: 1006,
            }],
            aborting_segments: vec![AbortingSegment { base_offset: 0, first_offset: 3 }],
        }
    }

    #[test]
    fn the_formats_are_the_golden_ones() {
        // If this fails, a format has changed: raise its version, keep reading the old one or say that it is not
        // read, and draw it anew in doc/on_disk_format.md.
        let state = golden();
        assert_eq!(hex(&state.encode(3)), GOLDEN_CHECKPOINT);
        let mut writer = CleanStopWriter::default();
        let topic = TopicId(Uuid::from_u128(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff));
        assert_eq!(writer.push(TopicIdPartition { topic, partition: PartitionIndex(6) }, state), None);
        assert_eq!(hex(&writer.finish().expect("one chunk")), GOLDEN_CLEAN_STOP);
    }

    #[test]
    fn what_version_2_wrote_is_read() {
        // The golden bytes of that version.
        let found = find(&aligned(&unhex(GOLDEN_CHECKPOINT_2))).expect("readable").expect("sound");
        let expected = PartitionState { aborted: Vec::new(), aborting_segments: Vec::new(), ..golden() };
        assert_eq!((found.sequence, &found.state), (3, &expected));
        let (entries, _) = read_clean_stop_chunk(0, &aligned(&unhex(GOLDEN_CLEAN_STOP_2))).expect("sound");
        assert_eq!(entries[0].1, PartitionState { clean: true, ..expected });
    }

    #[test]
    fn what_version_1_wrote_is_read() {
        // The golden bytes of that version.
        let bytes = aligned(&unhex(GOLDEN_CHECKPOINT_1));
        let found = find(&bytes).expect("readable").expect("sound");
        let expected = PartitionState {
            has_gaps: false,
            cleaner_offset: 0,
            aborted: Vec::new(),
            aborting_segments: Vec::new(),
            ..golden()
        };
        assert_eq!((found.sequence, &found.state), (3, &expected));
        let (entries, _) = read_clean_stop_chunk(0, &aligned(&unhex(GOLDEN_CLEAN_STOP_1))).expect("sound");
        assert_eq!(entries.len(), 1);
        assert_eq!(
            (entries[0].0.partition, &entries[0].1),
            (PartitionIndex(6), &PartitionState { clean: true, ..expected })
        );
    }

    fn unhex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex")).collect()
    }

    fn hex(sealed: &[u8]) -> String {
        let length = u64::from_le_bytes(*sealed[24..].first_chunk().expect("there")) as usize;
        sealed[..32 + length].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    const GOLDEN_CHECKPOINT: &str = "\
        6f74746c61434b5003000000bda0f7ed0300000000000000f8000000000000000000000000000000e803000000000000\
        630000000000000005000000000000004d000000000000000a000000409c000000000000000000000100000000000000\
        320000000000000004000000000000000700000000000000e903000000000000ed03000000000000ee03000000000000\
        00000000000000000300000000000000e8030000000000008038010000000000fc03000000000000f401000000000000\
        00000100000000004d00000000000000eb03000000000000bc02000000000000040000000001000038ffffff01000000\
        50ffffff0100000058ffffff0200000070ffffff0000000068ffffff0100000080ffffff01000000";
    const GOLDEN_CLEAN_STOP: &str = "\
        6f74746c61535450030000003464c38d000000000000000018010000000000000000000000000000e803000000000000\
        630000000000000005000000000000004d000000000000000a000000409c000000000000000000000100000000000000\
        320000000000000004000000000000000700000000000000e903000000000000ed03000000000000ee03000000000000\
        0000000000000000030000000000000000112233445566778899aabbccddeeff0600000000000000e803000000000000\
        8038010000000000fc03000000000000f40100000000000000000100000000004d00000000000000eb03000000000000\
        bc02000000000000040000000101000020ffffff0100000038ffffff0100000040ffffff0200000058ffffff00000000\
        50ffffff0100000068ffffff0100000070ffffff01000000";
    const GOLDEN_CHECKPOINT_2: &str = "\
        6f74746c61434b50020000007f15f43b0300000000000000b8000000000000000000000000000000e803000000000000\
        630000000000000005000000000000004d000000000000000a000000409c000000000000000000000100000000000000\
        32000000000000000400000000000000e8030000000000008038010000000000fc03000000000000f401000000000000\
        00000100000000004d00000000000000eb03000000000000bc02000000000000040000000001000068ffffff01000000\
        80ffffff0100000088ffffff02000000a0ffffff00000000";
    const GOLDEN_CLEAN_STOP_2: &str = "\
        6f74746c6153545002000000364cf7580000000000000000d8000000000000000000000000000000e803000000000000\
        630000000000000005000000000000004d000000000000000a000000409c000000000000000000000100000000000000\
        3200000000000000040000000000000000112233445566778899aabbccddeeff0600000000000000e803000000000000\
        8038010000000000fc03000000000000f40100000000000000000100000000004d00000000000000eb03000000000000\
        bc02000000000000040000000101000050ffffff0100000068ffffff0100000070ffffff0200000088ffffff00000000\
        80ffffff01000000";
    const GOLDEN_CHECKPOINT_1: &str = "\
        6f74746c61434b5001000000c740c2e60300000000000000b0000000000000000000000000000000e803000000000000\
        630000000000000005000000000000004d000000000000000a000000409c000000000000000000000100000000000000\
        32000000000000000400000000000000e8030000000000008038010000000000fc03000000000000f401000000000000\
        00000100000000004d00000000000000eb03000000000000040000000000000070ffffff0100000088ffffff01000000\
        90ffffff02000000a8ffffff00000000";
    const GOLDEN_CLEAN_STOP_1: &str = "\
        6f74746c6153545001000000f31a01f00000000000000000d0000000000000000000000000000000e803000000000000\
        630000000000000005000000000000004d000000000000000a000000409c000000000000000000000100000000000000\
        3200000000000000040000000000000000112233445566778899aabbccddeeff0600000000000000e803000000000000\
        8038010000000000fc03000000000000f40100000000000000000100000000004d00000000000000eb03000000000000\
        040000000100000058ffffff0100000070ffffff0100000078ffffff0200000090ffffff0000000088ffffff01000000";
}
