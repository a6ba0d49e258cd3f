//! What is kept beside a sealed segment: index, aborted transactions, producers and leader epochs as of its end.
//!
//! Written once, when the segment is sealed, and only after the segment's last byte is durable. Read into a buffer
//! and accessed in place. A damaged or missing sidecar is made again from its segment; it never decides what the
//! segment holds.

use rkyv::rancor;
use rkyv::{Archive, Deserialize, Serialize};

use crate::base::time::Timestamp;
use crate::io::Slice;
use crate::model::id::Offset;

use super::envelope::{self, ENVELOPE_HEADER_SIZE, EnvelopeError, Kind};
use super::epochs::EpochEntry;
use super::index::{ArchivedIndexEntry, IndexEntry, View};
use super::producer_state::ProducerEntry;
use super::retention::SegmentSummary;

/// Magic and version of the file.
pub const KIND: Kind = Kind { magic: *b"ottlaSDC", version: 1, version_min: 1 };

/// An aborted transaction that ends in the segment.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbortedTransaction {
    /// Its producer.
    pub producer_id: i64,
    /// Offset of its first record.
    pub first_offset: i64,
    /// Offset of its abort marker.
    pub last_offset: i64,
    /// The last stable offset when the marker was appended.
    pub last_stable_offset: i64,
}

/// A sidecar's contents, as they are archived.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct SidecarContents {
    /// Offsets, size and greatest timestamp of the segment.
    pub segment: SegmentSummary,
    /// Base offset of the first batch that holds the greatest timestamp; -1: no record has one.
    pub max_timestamp_offset: i64,
    /// The sparse index.
    pub index: Vec<IndexEntry>,
    /// Aborted transactions, by ascending last offset.
    pub aborted: Vec<AbortedTransaction>,
    /// Producers as of the segment's end, by ascending id.
    pub producers: Vec<ProducerEntry>,
    /// Leader epochs as of the segment's end.
    pub epochs: Vec<EpochEntry>,
}

impl SidecarContents {
    /// The file's bytes, whole blocks.
    pub fn encode(&self) -> Vec<u8> {
        envelope::seal(KIND, 0, self)
    }
}

/// A sidecar that was read and found sound; its contents stay in the buffer that they were read into.
#[derive(Clone, Debug)]
pub struct Sidecar {
    payload: Slice,
}

impl Sidecar {
    /// Checks the file's bytes, which begin at the start of a buffer.
    pub fn open(bytes: Slice) -> Result<Sidecar, EnvelopeError> {
        let length = {
            let envelope = envelope::open(KIND, bytes.as_bytes())?;
            let contents = envelope::access::<ArchivedSidecarContents>(envelope.payload)?;
            check(contents)?;
            envelope.payload.len()
        };
        Ok(Sidecar { payload: bytes.slice(ENVELOPE_HEADER_SIZE..ENVELOPE_HEADER_SIZE + length) })
    }

    /// The contents in place. They are checked again, without the checksum: for arrays of integers nothing of that is
    /// left but the bounds, less than 0.1 us with a full index, and it needs no `unsafe`.
    pub fn contents(&self) -> &ArchivedSidecarContents {
        envelope::access(self.payload.as_bytes()).expect("it was checked when it was opened, and it cannot change")
    }

    /// The index, for lookups.
    pub fn index(&self) -> View<'_, ArchivedIndexEntry> {
        let contents = self.contents();
        View::new(Offset(contents.segment.base_offset.to_native()), contents.index.as_slice())
    }

    /// Offsets, size and greatest timestamp of the segment.
    pub fn segment(&self) -> SegmentSummary {
        let Ok(segment) = rkyv::deserialize::<SegmentSummary, rancor::Infallible>(&self.contents().segment);
        segment
    }

    /// The greatest timestamp and the base offset of the first batch that holds it.
    pub fn max_timestamp(&self) -> (Timestamp, Offset) {
        let contents = self.contents();
        (Timestamp(contents.segment.max_timestamp.to_native()), Offset(contents.max_timestamp_offset.to_native()))
    }

    /// The aborted transactions, by ascending offset of the marker.
    pub fn aborted(&self) -> impl Iterator<Item = AbortedTransaction> {
        self.contents().aborted.iter().map(|entry| AbortedTransaction {
            producer_id: entry.producer_id.to_native(),
            first_offset: entry.first_offset.to_native(),
            last_offset: entry.last_offset.to_native(),
            last_stable_offset: entry.last_stable_offset.to_native(),
        })
    }

    /// Everything, copied out.
    pub fn to_contents(&self) -> SidecarContents {
        rkyv::deserialize::<SidecarContents, rancor::Failure>(self.contents()).expect("it is plain data")
    }

    /// Bytes of memory that it holds.
    pub fn memory_bytes(&self) -> usize {
        self.payload.memory_bytes()
    }
}

/// What the lookups rely on, so that a wrong sidecar is refused and not believed.
fn check(contents: &ArchivedSidecarContents) -> Result<(), EnvelopeError> {
    let segment = &contents.segment;
    let sound = segment.base_offset.to_native() >= 0
        && segment.next_offset.to_native() >= segment.base_offset.to_native()
        && contents.index.as_slice().is_sorted_by(|a, b| {
            a.position_bytes.to_native() < b.position_bytes.to_native()
                && a.relative_offset.to_native() < b.relative_offset.to_native()
                && a.timestamp_before.to_native() <= b.timestamp_before.to_native()
        })
        && contents
            .index
            .last()
            .is_none_or(|last| u64::from(last.position_bytes.to_native()) < segment.size_bytes.to_native());
    if sound { Ok(()) } else { Err(EnvelopeError::Malformed) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;
    use crate::base::units::MIB;
    use crate::io::Pool;
    use crate::model::limits::BLOCK_SIZE_BYTES;
    use crate::storage::index::SegmentIndex;
    use crate::storage::producer_state::BatchEntry;

    fn buffer(bytes: &[u8]) -> Slice {
        let mut buffer = Pool::new(32 * MIB).take(bytes.len().max(1)).expect("within the budget");
        buffer[..bytes.len()].copy_from_slice(bytes);
        buffer.freeze(bytes.len())
    }

    fn producer(id: i64) -> ProducerEntry {
        let empty = BatchEntry { last_offset: -1, timestamp: -1, last_sequence: -1, offset_delta: 0 };
        let mut batches = [empty; 5];
        batches[0] = BatchEntry { last_offset: 1009, timestamp: 5000, last_sequence: 9, offset_delta: 9 };
        ProducerEntry {
            producer_id: id,
            last_append: 5001,
            transaction_first_offset: -1,
            batches,
            coordinator_epoch: -1,
            producer_epoch: 2,
        }
    }

    fn sample(entry_count: u32) -> SidecarContents {
        SidecarContents {
            segment: SegmentSummary {
                base_offset: 1000,
                next_offset: 1000 + 10 * i64::from(entry_count) + 10,
                size_bytes: 40_000 * (u64::from(entry_count) + 1),
                max_timestamp: 5000,
            },
            max_timestamp_offset: 1000,
            index: (1..=entry_count)
                .map(|at| IndexEntry { timestamp_before: 5000, relative_offset: at * 10, position_bytes: at * 40_000 })
                .collect(),
            aborted: vec![AbortedTransaction {
                producer_id: 7,
                first_offset: 1001,
                last_offset: 1005,
                last_stable_offset: 1001,
            }],
            producers: vec![producer(7), producer(8)],
            epochs: vec![EpochEntry { start_offset: 1000, epoch: 3 }],
        }
    }

    #[test]
    fn a_sidecar_reads_back_in_place() {
        let contents = sample(100);
        let bytes = contents.encode();
        assert_eq!(bytes.len() % BLOCK_SIZE_BYTES, 0);
        let sidecar = Sidecar::open(buffer(&bytes)).expect("sound");
        assert_eq!(sidecar.to_contents(), contents);
        assert_eq!(sidecar.segment(), contents.segment);
        assert_eq!(sidecar.max_timestamp(), (Timestamp(5000), Offset(1000)));
        assert_eq!(sidecar.index().floor(Offset(1055)), 200_000);
        assert!(sidecar.memory_bytes() >= bytes.len());
    }

    #[test]
    fn lookups_in_the_archive_answer_as_those_in_memory() {
        // Every question to both forms of one index.
        let contents = sample(200);
        let memory = SegmentIndex::restore(Offset(1000), 1, (Timestamp(0), Offset(0)), contents.index.clone());
        let memory = memory.expect("sound");
        let sidecar = Sidecar::open(buffer(&contents.encode())).expect("sound");
        let (ours, archived) = (memory.view(), sidecar.index());
        assert_eq!(ours.len(), archived.len());
        for at in 0..9_000_000_u64 / 1777 {
            let (position, offset) = (at * 1777, Offset(900 + at as i64));
            assert_eq!(ours.floor(offset), archived.floor(offset));
            assert_eq!(ours.position_floor(position), archived.position_floor(position));
            assert_eq!(ours.position_ceiling(position), archived.position_ceiling(position));
            assert_eq!(ours.cut(position / 2, position), archived.cut(position / 2, position));
            let timestamp = Timestamp(at as i64 * 2);
            assert_eq!(ours.timestamp_floor(timestamp), archived.timestamp_floor(timestamp));
        }
    }

    #[test]
    fn random_corruption_is_refused_or_harmless_and_never_a_panic() {
        // Bytes changed, cut or appended anywhere; only padding may change unnoticed.
        let contents = sample(50);
        let sound = contents.encode();
        let mut rng = Rng::new(23);
        for round in 0..5000 {
            let mut bytes = sound.clone();
            match rng.in_range(0..3) {
                0 => bytes.truncate(rng.in_range(0..bytes.len() as u64) as usize),
                _ => {
                    for _ in 0..rng.in_range(1..20) {
                        let at = rng.in_range(..bytes.len() as u64) as usize;
                        bytes[at] = rng.next_u64() as u8;
                    }
                }
            }
            if let Ok(sidecar) = Sidecar::open(buffer(&bytes)) {
                assert_eq!(sidecar.to_contents(), contents, "round {round}");
            }
        }
    }

    #[test]
    fn corruption_behind_a_right_checksum_is_never_a_panic() {
        // As above, with the checksum made right afterwards: what a bug or a foreign writer could leave. Whatever
        // still opens can be used.
        let sound = sample(20).encode();
        let length = u64::from_le_bytes(*sound[24..].first_chunk().expect("there")) as usize;
        let mut rng = Rng::new(29);
        let mut opened = 0;
        for _ in 0..20_000 {
            let mut bytes = sound.clone();
            for _ in 0..rng.in_range(1..4) {
                let at = ENVELOPE_HEADER_SIZE + rng.in_range(..length as u64) as usize;
                bytes[at] = rng.next_u64() as u8;
            }
            let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..ENVELOPE_HEADER_SIZE + length]);
            bytes[12..16].copy_from_slice(&crc.to_le_bytes());
            if let Ok(sidecar) = Sidecar::open(buffer(&bytes)) {
                opened += 1;
                let _ = sidecar.to_contents();
                let _ = sidecar.index().floor(Offset(rng.next_u64() as i64));
                let _ = sidecar.index().timestamp_floor(Timestamp(rng.next_u64() as i64));
            }
        }
        assert!(opened > 100, "the checks of the archive were not reached: {opened}");
    }

    #[test]
    fn what_the_lookups_rely_on_is_checked() {
        let refused = |change: fn(&mut SidecarContents)| {
            let mut contents = sample(20);
            change(&mut contents);
            Sidecar::open(buffer(&contents.encode())).err() == Some(EnvelopeError::Malformed)
        };
        assert!(!refused(|_| ()));
        assert!(refused(|contents| contents.index.swap(1, 2)));
        assert!(refused(|contents| contents.index[3].timestamp_before = 9));
        assert!(refused(|contents| contents.segment.size_bytes = 1000));
        assert!(refused(|contents| contents.segment.next_offset = 999));
        assert!(refused(|contents| contents.segment.base_offset = -1));
    }

    #[test]
    fn the_format_is_the_golden_one() {
        // If this fails, the format has changed: raise the version, keep reading the old one or say that it is not
        // read, and draw it anew in doc/on_disk_format.md.
        let bytes = sample(1).encode();
        let length = u64::from_le_bytes(*bytes[24..].first_chunk().expect("there")) as usize;
        let hex: String = bytes[..ENVELOPE_HEADER_SIZE + length].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, GOLDEN);
    }

    const GOLDEN: &str = "\
        6f74746c61534443010000002eeed8ad0000000000000000b80100000000000088130000000000000a000000409c0000\
        0700000000000000e903000000000000ed03000000000000e90300000000000007000000000000008913000000000000\
        fffffffffffffffff10300000000000088130000000000000900000009000000ffffffffffffffffffffffffffffffff\
        ffffffff00000000ffffffffffffffffffffffffffffffffffffffff00000000ffffffffffffffffffffffffffffffff\
        ffffffff00000000ffffffffffffffffffffffffffffffffffffffff00000000ffffffff020000000800000000000000\
        8913000000000000fffffffffffffffff10300000000000088130000000000000900000009000000ffffffffffffffff\
        ffffffffffffffffffffffff00000000ffffffffffffffffffffffffffffffffffffffff00000000ffffffffffffffff\
        ffffffffffffffffffffffff00000000ffffffffffffffffffffffffffffffffffffffff00000000ffffffff02000000\
        e8030000000000000300000000000000e803000000000000fc0300000000000080380100000000008813000000000000\
        e80300000000000068feffff0100000070feffff0100000088feffff02000000b0ffffff01000000";
}
