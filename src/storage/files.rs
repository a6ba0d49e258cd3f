//! Sealed files and sidecars, opened on demand under a bound for the whole shard.
//!
//! A log's sealed segments are usually not read at all, so neither their files nor their indexes are held. What a
//! read opens is kept until the bound is passed; then the least recently used goes. A handle that a planned response
//! still holds is not given up before: every use of a file is of the one handle here, so a shared handle is a pin.

use std::cell::RefCell;
use std::rc::Rc;

use rustc_hash::FxHashMap;

use crate::io::File;
use crate::model::id::Offset;

use super::sidecar::Sidecar;

#[derive(Default)]
struct Entry {
    file: Option<File>,
    sidecar: Option<Sidecar>,
    used: u64,
}

struct Inner {
    entries: FxHashMap<(u64, Offset), Entry>,
    entry_count_max: usize,
    sidecar_size_bytes_max: usize,
    sidecar_bytes: usize,
    tick: u64,
}

/// The cache. Clones are the same one.
#[derive(Clone)]
pub struct FileCache(Rc<RefCell<Inner>>);

impl FileCache {
    /// A cache of at most `entry_count_max` segments whose sidecars hold at most `sidecar_size_bytes_max` of
    /// memory (one may be larger).
    pub fn new(entry_count_max: usize, sidecar_size_bytes_max: usize) -> FileCache {
        FileCache(Rc::new(RefCell::new(Inner {
            entries: FxHashMap::default(),
            entry_count_max: entry_count_max.max(1),
            sidecar_size_bytes_max,
            sidecar_bytes: 0,
            tick: 0,
        })))
    }

    /// The buffered file of a sealed segment, if it is open.
    pub(super) fn file(&self, log: u64, segment: Offset) -> Option<File> {
        self.0.borrow_mut().touch(log, segment)?.file.clone()
    }

    /// The sidecar of a sealed segment, if it is in memory.
    pub(super) fn sidecar(&self, log: u64, segment: Offset) -> Option<Sidecar> {
        self.0.borrow_mut().touch(log, segment)?.sidecar.clone()
    }

    /// Keeps an opened file and returns the handle to use: that of another open that was faster, if there was one.
    pub(super) fn keep_file(&self, log: u64, segment: Offset, file: File) -> File {
        let mut inner = self.0.borrow_mut();
        let kept = inner.entries.entry((log, segment)).or_default().file.get_or_insert(file).clone();
        inner.bound(log, segment);
        kept
    }

    /// Keeps a sidecar that was read.
    pub(super) fn keep_sidecar(&self, log: u64, segment: Offset, sidecar: Sidecar) {
        let mut inner = self.0.borrow_mut();
        let bytes = sidecar.memory_bytes();
        let entry = inner.entries.entry((log, segment)).or_default();
        let before = entry.sidecar.replace(sidecar).map_or(0, |old| old.memory_bytes());
        inner.sidecar_bytes = inner.sidecar_bytes + bytes - before;
        inner.bound(log, segment);
    }

    /// Forgets a segment and gives back its file, if it was open; the caller sees whether others hold it.
    pub(super) fn forget(&self, log: u64, segment: Offset) -> Option<File> {
        self.0.borrow_mut().remove((log, segment))?.file
    }

    /// Forgets all segments of a log.
    pub(super) fn forget_log(&self, log: u64) {
        let mut inner = self.0.borrow_mut();
        let keys: Vec<_> = inner.entries.keys().filter(|(owner, _)| *owner == log).copied().collect();
        for key in keys {
            inner.remove(key);
        }
    }

    /// Number of segments held.
    pub fn len(&self) -> usize {
        self.0.borrow().entries.len()
    }

    /// Bytes of memory that sidecars hold.
    pub fn sidecar_bytes(&self) -> usize {
        self.0.borrow().sidecar_bytes
    }

    /// True if nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Inner {
    fn touch(&mut self, log: u64, segment: Offset) -> Option<&mut Entry> {
        self.tick += 1;
        let tick = self.tick;
        let entry = self.entries.get_mut(&(log, segment))?;
        entry.used = tick;
        Some(entry)
    }

    fn remove(&mut self, key: (u64, Offset)) -> Option<Entry> {
        let entry = self.entries.remove(&key)?;
        self.sidecar_bytes -= entry.sidecar.as_ref().map_or(0, Sidecar::memory_bytes);
        Some(entry)
    }

    /// Drops the least recently used others until the bounds hold. Looks at all entries: an open comes before it.
    fn bound(&mut self, log: u64, segment: Offset) {
        self.touch(log, segment);
        while self.entries.len() > 1
            && (self.entries.len() > self.entry_count_max || self.sidecar_bytes > self.sidecar_size_bytes_max)
        {
            // A file in use stays: it must be known when its segment is freed.
            let unused = self
                .entries
                .iter()
                .filter(|(key, entry)| **key != (log, segment) && !entry.file.as_ref().is_some_and(File::is_shared));
            let Some(oldest) = unused.min_by_key(|(_, entry)| entry.used).map(|(key, _)| *key) else { return };
            self.remove(oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::Pool;
    use crate::storage::retention::SegmentSummary;
    use crate::storage::sidecar::SidecarContents;

    fn sidecar(pool: &Pool, entry_count: u32) -> Sidecar {
        let size_bytes = 40_000 * (u64::from(entry_count) + 1);
        let entry = |at: u32| crate::storage::index::IndexEntry {
            timestamp_before: 0,
            relative_offset: 10 * at,
            position_bytes: 40_000 * at,
        };
        let contents = SidecarContents {
            segment: SegmentSummary { base_offset: 0, next_offset: 1 << 20, size_bytes, max_timestamp: 0 },
            max_timestamp_offset: 0,
            index: (1..=entry_count).map(entry).collect(),
            aborted: Vec::new(),
            producers: Vec::new(),
            epochs: Vec::new(),
        };
        let bytes = contents.encode();
        let buffer = pool.take_append(bytes.len()).expect("within the budget");
        buffer.append(&bytes);
        Sidecar::open(buffer.slice(0..bytes.len())).expect("sound")
    }

    #[test]
    fn sidecars_count_as_what_they_keep_from_the_pool() {
        // Small and larger ones, one in the place of another, some forgotten; the pool knows the truth.
        let pool = Pool::new(1 << 20);
        let files = FileCache::new(8, 64 * 1024);
        for (at, entry_count) in [1, 1, 600, 700, 5, 1, 800, 2, 900, 1, 1].into_iter().enumerate() {
            files.keep_sidecar(1, Offset(at as i64 % 9), sidecar(&pool, entry_count));
            assert_eq!(files.sidecar_bytes(), pool.used_bytes());
            assert!(files.len() <= 8 && files.sidecar_bytes() <= 64 * 1024);
        }
        files.forget(1, Offset(8));
        assert_eq!(files.sidecar_bytes(), pool.used_bytes());
        files.forget_log(1);
        assert_eq!((files.sidecar_bytes(), pool.used_bytes()), (0, 0));
    }
}
