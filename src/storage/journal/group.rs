//! A group: what one write of the journal holds.
//!
//! ```text
//! magic 8 | journal 16 | sequence 8 | lap 8 | lap before 8 | size 4 | entries 4     the header
//! topic id 16 | partition 4 | length 4 | segment 8 | position 8 | length bytes      each entry
//! CRC-32C 4                                                                         of all before
//! ```
//! Integers are little-endian. A group begins at a block; zeros fill its last one. `sequence` counts the groups of one
//! journal, a *journal* being what one shard wrote in one life; `lap` is the first sequence since the file was begun
//! anew, `lap before` that of the other file as long as it is needed, else 0. An entry's bytes are whole batches, and
//! belong at `position` of the segment with base offset `segment`.

use uuid::Uuid;

use crate::io::{AppendBuffer, Pool, Slice};
use crate::model::id::{Offset, PartitionIndex, TopicId};

use super::super::event::Boundary;
use super::super::tail_cache::block_end;

const MAGIC: [u8; 8] = *b"ottla-j1";
/// Bytes of a group's header.
pub const HEADER_SIZE: usize = 56;
/// Bytes of an entry before its batches.
pub const ENTRY_SIZE: usize = 40;
const CRC_SIZE: usize = 4;
/// The most that one group holds: as a partition's own commit.
pub const GROUP_SIZE_BYTES_MAX: usize = crate::model::limits::COMMIT_SIZE_BYTES_MAX;

/// Which partition, and where in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The topic.
    pub topic: TopicId,
    /// The partition.
    pub partition: PartitionIndex,
    /// Base offset of the segment.
    pub segment: Offset,
    /// Where in its file the bytes belong.
    pub position: u64,
}

/// The header of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupHeader {
    /// The journal: what one shard wrote in one life.
    pub journal: Uuid,
    /// Number of the group in it, from 1.
    pub sequence: u64,
    /// Number of the first group of this lap of the file.
    pub lap: u64,
    /// The same of the other file's lap while it is needed, else 0.
    pub lap_before: u64,
    /// Bytes of the group without what fills its last block.
    pub size_bytes: u32,
    /// Entries in it.
    pub entry_count: u32,
}

impl GroupHeader {
    /// Reads the first [`HEADER_SIZE`] bytes of a block; `None`: no group begins here.
    pub fn parse(bytes: &[u8]) -> Option<GroupHeader> {
        let mut reader = Reader(bytes);
        let is_group = reader.take::<8>()? == MAGIC;
        let header = GroupHeader {
            journal: Uuid::from_bytes(reader.take()?),
            sequence: u64::from_le_bytes(reader.take()?),
            lap: u64::from_le_bytes(reader.take()?),
            lap_before: u64::from_le_bytes(reader.take()?),
            size_bytes: u32::from_le_bytes(reader.take()?),
            entry_count: u32::from_le_bytes(reader.take()?),
        };
        let is_sane = (HEADER_SIZE + CRC_SIZE..=GROUP_SIZE_BYTES_MAX).contains(&(header.size_bytes as usize));
        (is_group && is_sane).then_some(header)
    }
}

/// The entries of the whole group `bytes`, header included; `None` if it is damaged.
pub fn entries(bytes: &[u8]) -> Option<Vec<(Place, &[u8])>> {
    let header = GroupHeader::parse(bytes)?;
    let body = bytes.get(..(header.size_bytes as usize).checked_sub(CRC_SIZE)?)?;
    let crc = bytes.get(body.len()..body.len() + CRC_SIZE)?;
    if crc != crc32c::crc32c(body).to_le_bytes() {
        return None;
    }
    let mut reader = Reader(&body[HEADER_SIZE..]);
    let mut entries = Vec::new();
    for _ in 0..header.entry_count {
        let topic = TopicId(Uuid::from_bytes(reader.take()?));
        let partition = PartitionIndex(i32::from_le_bytes(reader.take()?));
        let length = u32::from_le_bytes(reader.take()?) as usize;
        let segment = Offset(i64::from_le_bytes(reader.take()?));
        let position = u64::from_le_bytes(reader.take()?);
        position.checked_add(length as u64).filter(|end| *end <= i64::MAX as u64)?;
        let (batches, rest) = reader.0.split_at_checked(length)?;
        reader = Reader(rest);
        entries.push((Place { topic, partition, segment, position }, batches));
    }
    reader.0.is_empty().then_some(entries)
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }
}

/// A group that is being gathered. Kept and used again.
#[derive(Default)]
pub struct Group {
    entries: Vec<Entry>,
    slices: Vec<Slice>,
    size_bytes: usize,
}

struct Entry {
    place: Place,
    length_bytes: u32,
    /// Its last slice is before this one.
    slices_end: usize,
    /// Whose it is, and where its log ends behind it.
    log: u64,
    end: Boundary,
}

impl Group {
    /// Bytes that it takes in the file.
    pub fn size_bytes(&self) -> usize {
        HEADER_SIZE + self.size_bytes + CRC_SIZE
    }

    /// True if nothing was gathered.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// True if `size_bytes` of one more log would make it too large.
    pub fn is_full_for(&self, size_bytes: usize) -> bool {
        self.size_bytes() + ENTRY_SIZE + size_bytes > GROUP_SIZE_BYTES_MAX
    }

    /// Adds what `gather` puts into the slices: the bytes of `log` that belong at `place`, up to `end`.
    pub(super) fn push(
        &mut self,
        log: u64,
        place: Place,
        end: Boundary,
        gather: impl FnOnce(&mut Vec<Slice>) -> bool,
    ) -> bool {
        let before = self.slices.len();
        if !gather(&mut self.slices) {
            self.slices.truncate(before);
            return false;
        }
        let length: usize = self.slices[before..].iter().map(Slice::len).sum();
        let length_bytes = u32::try_from(length).expect("far below the greatest group");
        self.entries.push(Entry { place, length_bytes, slices_end: self.slices.len(), log, end });
        self.size_bytes += ENTRY_SIZE + length;
        true
    }

    /// The logs in it, each with its end behind what it gave.
    pub fn logs(&self) -> impl Iterator<Item = (u64, Offset)> {
        self.entries.iter().map(|entry| (entry.log, entry.end.offset))
    }

    /// Forgets what was gathered.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.slices.clear();
        self.size_bytes = 0;
    }

    /// The group as it is written, whole blocks; `None` without memory. Size and number of entries are filled in.
    pub(super) fn encode(&self, pool: &Pool, header: GroupHeader) -> Option<Slice> {
        let size = self.size_bytes();
        let buffer: AppendBuffer = pool.take_append(block_end(size as u64) as usize)?;
        buffer.append(&MAGIC);
        buffer.append(header.journal.as_bytes());
        for number in [header.sequence, header.lap, header.lap_before] {
            buffer.append(&number.to_le_bytes());
        }
        buffer.append(&(size as u32).to_le_bytes());
        buffer.append(&(self.entries.len() as u32).to_le_bytes());
        let mut slices = self.slices.iter();
        let mut slices_start = 0;
        for entry in &self.entries {
            let Place { topic, partition, segment, position } = entry.place;
            buffer.append(topic.0.as_bytes());
            buffer.append(&partition.0.to_le_bytes());
            buffer.append(&entry.length_bytes.to_le_bytes());
            buffer.append(&segment.0.to_le_bytes());
            buffer.append(&position.to_le_bytes());
            slices.by_ref().take(entry.slices_end - slices_start).for_each(|slice| buffer.append(slice.as_bytes()));
            slices_start = entry.slices_end;
        }
        let crc = crc32c::crc32c(buffer.slice(0..buffer.len()).as_bytes());
        buffer.append(&crc.to_le_bytes());
        debug_assert_eq!(buffer.len(), size);
        let padded = buffer.pad(crate::model::limits::BLOCK_SIZE_BYTES);
        Some(buffer.slice_padded(0..padded))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::units::MIB;

    fn place(partition: i32, position: u64) -> Place {
        let topic = TopicId(Uuid::from_u128(9));
        Place { topic, partition: PartitionIndex(partition), segment: Offset(70), position }
    }

    fn slice(pool: &Pool, bytes: &[u8]) -> Slice {
        let buffer = pool.take_append(bytes.len()).expect("within the budget");
        buffer.append(bytes);
        buffer.slice(0..bytes.len())
    }

    const HEADER: GroupHeader = GroupHeader {
        journal: Uuid::from_u128(5),
        sequence: 12,
        lap: 10,
        lap_before: 3,
        size_bytes: 0,
        entry_count: 0,
    };

    #[test]
    fn a_group_is_read_back_and_no_bit_of_it_may_change() {
        // Two logs, one in two slices. Each byte is changed in turn.
        let pool = Pool::new(MIB);
        let mut group = Group::default();
        let parts = [slice(&pool, b"first"), slice(&pool, b"second"), slice(&pool, b"third")];
        let end = Boundary::default();
        assert!(group.push(256, place(1, 4000), end, |to| {
            to.extend_from_slice(&parts[..2]);
            true
        }));
        assert!(!group.push(512, place(2, 0), end, |to| {
            to.push(parts[0].clone());
            false
        }));
        assert!(group.push(768, place(3, 8), end, |to| {
            to.push(parts[2].clone());
            true
        }));
        let written = group.encode(&pool, HEADER).expect("within the budget");
        assert_eq!(written.len(), 4096);
        let bytes = written.as_bytes().to_vec();
        let size_bytes = group.size_bytes() as u32;
        assert_eq!(GroupHeader::parse(&bytes), Some(GroupHeader { size_bytes, entry_count: 2, ..HEADER }));
        let expected: Vec<(Place, &[u8])> = vec![(place(1, 4000), b"firstsecond"), (place(3, 8), b"third")];
        assert_eq!(entries(&bytes), Some(expected));
        for at in 0..size_bytes as usize {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert_eq!(entries(&changed), None, "byte {at}");
        }
        assert_eq!(entries(&bytes[..size_bytes as usize - 1]), None);
    }

    #[test]
    fn zeros_and_lengths_that_cannot_be_are_no_group() {
        assert_eq!(GroupHeader::parse(&[0; HEADER_SIZE]), None);
        let pool = Pool::new(MIB);
        let mut bytes = Group::default().encode(&pool, HEADER).expect("within the budget").as_bytes().to_vec();
        assert!(GroupHeader::parse(&bytes).is_some());
        for size in [0, HEADER_SIZE as u32 + 3, GROUP_SIZE_BYTES_MAX as u32 + 1, u32::MAX] {
            bytes[48..52].copy_from_slice(&size.to_le_bytes());
            assert_eq!(GroupHeader::parse(&bytes), None, "{size}");
        }
    }
}
