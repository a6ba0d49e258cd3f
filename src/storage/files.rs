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
    /// A cache of at most `entry_count_max` segments whose sidecars fill at most `sidecar_size_bytes_max` (one may
    /// be larger).
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
        let bytes = sidecar.size_bytes();
        let entry = inner.entries.entry((log, segment)).or_default();
        let before = entry.sidecar.replace(sidecar).map_or(0, |old| old.size_bytes());
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
        self.sidecar_bytes -= entry.sidecar.as_ref().map_or(0, Sidecar::size_bytes);
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
