//! One segment of a log: its file's name and handle, its bounds, its index.
//!
//! Life: spare (being prepared, or freed and renamed) → active (at first still under the spare's name) → sealing
//! (truncated to its last batch, sidecar written) → sealed (opened on demand, index in its sidecar) → freed.
//!
//! It must not know who reads.

use std::path::{Path, PathBuf};

use crate::base::time::Timestamp;
use crate::io::File;
use crate::model::batch::Header;
use crate::model::id::Offset;

use super::event::Boundary;
use super::index::SegmentIndex;
use super::layout::FileName;
use super::retention::SegmentSummary;
use super::transactions::Aborted;

/// Where the index of a segment is.
pub(super) enum Index {
    /// In memory: the active segment, and sealed ones until their sidecar is durable.
    Memory(SegmentIndex),
    /// In the sidecar, read on demand.
    Sidecar,
}

/// A segment.
pub(super) struct Segment {
    /// Offset of its first record.
    pub base_offset: Offset,
    /// Offset behind its last record.
    pub next_offset: Offset,
    /// Bytes of its batches.
    pub size_bytes: u64,
    /// Name of its file within the partition's directory; a spare's name right after a roll.
    pub name: String,
    /// The handle for direct writes and reads, while it is active or sealing.
    pub direct: Option<File>,
    /// The handle of that time, kept as long as reads may use it: they pin the file.
    pub old_direct: Option<File>,
    /// The buffered handle of a new segment's file whose name is still changing: readers take it instead of opening.
    pub renaming: Option<File>,
    /// Bytes from the start that may be written without allocating blocks.
    pub prepared_bytes: u64,
    /// The file held other batches before: torn headers must be ruled out.
    pub reused: bool,
    /// Timestamp of its first batch, `NONE` while empty.
    pub first_timestamp: Timestamp,
    /// Greatest timestamp and the base offset of the first batch that holds it.
    pub max_timestamp: (Timestamp, Offset),
    /// When the last batch was appended, by the broker's clock; `NONE` if unknown.
    pub written_at: Timestamp,
    /// Aborted transactions whose markers it holds.
    pub aborted: Aborted,
    /// Where its index is.
    pub index: Index,
}

impl Segment {
    /// An empty segment over an open file.
    pub fn new(
        base_offset: Offset,
        name: String,
        file: File,
        prepared_bytes: u64,
        reused: bool,
        interval: u32,
    ) -> Self {
        Segment {
            base_offset,
            next_offset: base_offset,
            size_bytes: 0,
            name,
            direct: Some(file),
            old_direct: None,
            renaming: None,
            prepared_bytes,
            reused,
            first_timestamp: Timestamp::NONE,
            max_timestamp: (Timestamp::NONE, Offset::NONE),
            written_at: Timestamp::NONE,
            aborted: Aborted::default(),
            index: Index::Memory(SegmentIndex::new(base_offset, interval)),
        }
    }

    /// A sealed segment, whose index is in its sidecar.
    pub fn sealed(
        base_offset: Offset,
        next_offset: Offset,
        size_bytes: u64,
        max_timestamp: (Timestamp, Offset),
    ) -> Self {
        Segment {
            base_offset,
            next_offset,
            size_bytes,
            name: FileName::Segment(base_offset).to_string(),
            direct: None,
            old_direct: None,
            renaming: None,
            prepared_bytes: 0,
            reused: false,
            first_timestamp: Timestamp::NONE,
            max_timestamp,
            written_at: Timestamp::NONE,
            aborted: Aborted::default(),
            index: Index::Sidecar,
        }
    }

    /// The index, while it is in memory.
    pub fn index_in_memory(&mut self) -> Option<&mut SegmentIndex> {
        match &mut self.index {
            Index::Memory(index) => Some(index),
            Index::Sidecar => None,
        }
    }

    /// Notes a batch that starts at `position` and after which the log ends at `end`.
    pub fn note(&mut self, header: &Header, position: u64, end: Boundary) {
        if self.size_bytes == 0 {
            self.first_timestamp = header.max_timestamp;
        }
        // A batch whose records compaction has removed has no time that anyone could look for.
        if header.record_count > 0 && header.max_timestamp > self.max_timestamp.0 {
            self.max_timestamp = (header.max_timestamp, header.base_offset);
        }
        if let Index::Memory(index) = &mut self.index {
            index.append(header, position);
        }
        self.size_bytes = end.position;
        self.next_offset = end.offset;
    }

    /// As checkpoints and retention see it.
    pub fn summary(&self) -> SegmentSummary {
        SegmentSummary {
            base_offset: self.base_offset.0,
            next_offset: self.next_offset.0,
            size_bytes: self.size_bytes,
            // Retention goes by the time of writing where records have none.
            max_timestamp: if self.max_timestamp.0 > Timestamp::NONE {
                self.max_timestamp.0.0
            } else {
                self.written_at.0
            },
        }
    }

    /// The file's path.
    pub fn path(&self, dir: &Path) -> PathBuf {
        dir.join(&self.name)
    }

    /// True once its file is truncated to its batches and can be read through the page cache.
    pub fn is_sealed(&self) -> bool {
        self.direct.is_none()
    }
}
