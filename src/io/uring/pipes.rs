//! Pipes for file sends: a bounded number, kept, lent in the order of asking.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use crate::base::units::{KIB, MIB};

/// Sizes that are tried in turn: the first is the greatest that a normal user gets.
const CAPACITIES_BYTES: [usize; 3] = [MIB, 256 * KIB, 64 * KIB];

/// An empty pipe.
pub(super) struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    /// Bytes it can hold if they begin at a page.
    pub(super) capacity_bytes: usize,
}

impl Pipe {
    fn open() -> io::Result<Pipe> {
        let mut fds = [0; 2];
        // SAFETY: the array holds the two descriptors that the call writes.
        if unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) } < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptors were just made and belong to nobody else; each `OwnedFd` closes one.
        let (read, write) = unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) };
        for capacity in CAPACITIES_BYTES {
            // SAFETY: no pointers.
            if unsafe { libc::fcntl(write.as_raw_fd(), libc::F_SETPIPE_SZ, capacity as libc::c_int) } >= 0 {
                break;
            }
        }
        // SAFETY: no pointers.
        let capacity = unsafe { libc::fcntl(write.as_raw_fd(), libc::F_GETPIPE_SZ) };
        let capacity_bytes = if capacity > 0 { capacity as usize } else { 4 * KIB };
        Ok(Pipe { read, write, capacity_bytes })
    }

    pub(super) fn read_fd(&self) -> RawFd {
        self.read.as_raw_fd()
    }

    pub(super) fn write_fd(&self) -> RawFd {
        self.write.as_raw_fd()
    }
}

/// The pipes of a ring and who waits for one.
pub(super) struct Pipes {
    free: Vec<Pipe>,
    lent_count: usize,
    count_max: usize,
    /// Of these, how many may be lent for now.
    lent_count_max: usize,
    /// Slots and their generations.
    waiting: VecDeque<(u32, u32)>,
}

impl Pipes {
    pub(super) fn new(count_max: usize) -> Pipes {
        Pipes { free: Vec::new(), lent_count: 0, count_max, lent_count_max: count_max, waiting: VecDeque::new() }
    }

    /// An empty pipe; `None` if all are lent, and then `index` is queued for the next one.
    pub(super) fn take(&mut self, index: u32, generation: u32) -> io::Result<Option<Pipe>> {
        if self.lent_count >= self.lent_count_max {
            self.waiting.push_back((index, generation));
            return Ok(None);
        }
        let pipe = match self.free.pop() {
            Some(pipe) => pipe,
            None => Pipe::open()?,
        };
        self.lent_count += 1;
        Ok(Some(pipe))
    }

    /// Takes back a pipe. One that is not empty is closed.
    pub(super) fn put(&mut self, pipe: Pipe, empty: bool) {
        self.lent_count -= 1;
        if empty {
            self.free.push(pipe);
        }
    }

    /// Who waited longest, if a pipe is to be had.
    pub(super) fn next_waiting(&mut self) -> Option<(u32, u32)> {
        if self.lent_count >= self.lent_count_max {
            return None;
        }
        self.waiting.pop_front()
    }

    /// At most so many may be lent from now on, at least one.
    pub(super) fn limit(&mut self, count_max: usize) {
        self.lent_count_max = count_max.clamp(1, self.count_max);
    }

    /// Pipes that are lent now.
    pub(super) fn lent_count(&self) -> usize {
        self.lent_count
    }
}
