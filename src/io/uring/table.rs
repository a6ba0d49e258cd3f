//! Descriptors by handle index.
//!
//! With fixed files each is registered with the ring as well, at its index plus one (the data lock is at 0), as far
//! as the registered table reaches; the others are used plainly.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};

use io_uring::{squeue, types};

/// What an entry of the submission queue needs to name a descriptor.
#[derive(Clone, Copy)]
pub(super) struct Target {
    /// The descriptor, or its registered index if the flags say so.
    pub(super) fd: types::Fd,
    pub(super) flags: squeue::Flags,
}

/// One open file, socket or listener.
pub(super) struct Entry {
    fd: OwnedFd,
    registered: bool,
    /// A file opened with `O_DIRECT`.
    pub(super) direct: bool,
    /// A socket whose blocking sends end in time.
    pub(super) send_bounded: bool,
    /// A file in which the kernel reads ahead, as it does unless it is told not to.
    pub(super) reads_ahead: bool,
}

impl AsFd for Entry {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// All descriptors of a ring that handles name.
#[derive(Default)]
pub(super) struct Table {
    entries: Vec<Option<Entry>>,
    free: Vec<u32>,
    /// Handle indexes below this may be registered.
    registered_max: u32,
}

/// The registered index of the handle `index`.
fn registered_index(index: u32) -> u32 {
    index + 1
}

impl Table {
    /// A table whose first `registered_max` descriptors are registered with the ring.
    pub(super) fn new(registered_max: u32) -> Table {
        Table { registered_max, ..Table::default() }
    }

    /// Takes `fd` over and returns its handle index.
    pub(super) fn insert(&mut self, ring: &io_uring::IoUring, fd: OwnedFd, direct: bool) -> u32 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            (self.entries.len() - 1) as u32
        });
        // A refusal costs only the gain: the descriptor is then used plainly.
        let registered = index < self.registered_max
            && ring.submitter().register_files_update(registered_index(index), &[fd.as_raw_fd()]).is_ok();
        self.entries[index as usize] = Some(Entry { fd, registered, direct, send_bounded: false, reads_ahead: true });
        index
    }

    /// Gives up the descriptor of a handle index; the caller closes it.
    pub(super) fn remove(&mut self, ring: &io_uring::IoUring, index: u32) -> RawFd {
        let entry = self.entries[index as usize].take().expect("a handle is dropped once");
        if entry.registered {
            // The slot was there a moment ago, and emptying it needs no memory; were it to fail, the next insert
            // would replace it.
            let _ = ring.submitter().register_files_update(registered_index(index), &[-1]);
        }
        self.free.push(index);
        entry.fd.into_raw_fd()
    }

    #[inline]
    pub(super) fn entry(&self, index: u32) -> &Entry {
        self.entries[index as usize].as_ref().expect("a handle keeps its descriptor")
    }

    #[inline]
    pub(super) fn entry_mut(&mut self, index: u32) -> &mut Entry {
        self.entries[index as usize].as_mut().expect("a handle keeps its descriptor")
    }

    /// The plain descriptor, for system calls.
    #[inline]
    pub(super) fn fd(&self, index: u32) -> RawFd {
        self.entry(index).fd.as_raw_fd()
    }

    /// The descriptor as the ring best knows it.
    #[inline]
    pub(super) fn target(&self, index: u32) -> Target {
        let entry = self.entry(index);
        if entry.registered {
            Target { fd: types::Fd(registered_index(index) as RawFd), flags: squeue::Flags::FIXED_FILE }
        } else {
            Target { fd: types::Fd(entry.fd.as_raw_fd()), flags: squeue::Flags::empty() }
        }
    }

    /// Closes all descriptors.
    pub(super) fn clear(&mut self) {
        self.entries.clear();
    }
}
