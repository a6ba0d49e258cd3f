//! Sending a range of a file without copying it through user space: splice from file to pipe to socket.
//!
//! Splices always run in kernel workers, and one into a full socket sleeps there with its pipe. So that a stopped
//! receiver holds neither:
//! 1. The socket's room is asked for first. Without any, readiness is waited for on the ring, which takes no worker,
//!    at most `DELAY` long.
//! 2. With room a pipe is taken (or waited for, first come first served) and both splices are queued, linked, for
//!    no more bytes than fit: one worker runs both.
//! 3. Should the estimate be wrong, the socket's send timeout ends the second splice. What is then left in the pipe is
//!    discarded with it; the count of what reached the socket is exact.
//!
//! Bytes that the receiver's window does not take yet are kept below a mark of our own (`TCP_NOTSENT_LOWAT`), not
//! only below the kernel's 4 MiB: a thousand stopped receivers would use up the host's TCP memory, and then every
//! connection crawls.
//!
//! Where a limit says so, no more than that is asked of the disk at a time, and the kernel reads nothing ahead.
//!
//! Once some bytes went out, the operation ends as soon as the socket has no room, and is asked again from there.

use std::io;
use std::os::fd::AsFd;

use io_uring::{opcode, squeue, types};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use super::delays::DELAY;
use super::pipes::Pipe;
use super::ring::Ring;
use super::slots::{Step, Work};
use crate::base::units::KIB;
use crate::io::{File, Outcome, Socket};

const PAGE_BYTES: usize = 4 * KIB;
/// `getsockopt` option for the socket's memory, and the two values of it that are used.
const SO_MEMINFO: i32 = 55;
const MEMINFO_SEND_BUFFER: usize = 3;
const MEMINFO_SEND_QUEUED: usize = 5;
const MEMINFO_COUNT: usize = 9;
/// Bytes that may wait in a socket for the receiver's window.
const UNSENT_MAX_BYTES: usize = 512 * KIB;
/// `ioctl` that tells how many do.
const SIOCOUTQNSD: libc::Ioctl = 0x894B;
/// What an interrupted kernel worker may answer instead of `EINTR`.
const ERESTARTSYS: i32 = 512;

pub(super) struct SendFileWork {
    socket: Socket,
    file: File,
    offset: u64,
    left: usize,
    sent: usize,
    pub(super) stage: Stage,
}

pub(super) enum Stage {
    /// The ring waits for room in the socket.
    Room,
    /// No request is under way: all pipes are lent.
    PipeQueue,
    /// The splices are under way.
    Splice(Splice),
}

/// What both splices know.
pub(super) struct Splice {
    pipe: Pipe,
    asked: usize,
    /// Bytes that came into the pipe, or an error.
    filled: Option<i32>,
    /// Bytes that went out of it, or an error.
    drained: Option<i32>,
}

impl Ring {
    pub(super) fn send_file(&mut self, index: u32, socket: Socket, file: File, offset: u64, length_bytes: u32) {
        let entry = self.table.entry_mut(socket.index());
        if !entry.send_bounded {
            entry.send_bounded = true;
            bound_sends(self.table.fd(socket.index()));
        }
        let work = SendFileWork { socket, file, offset, left: length_bytes as usize, sent: 0, stage: Stage::Room };
        self.continue_send_file(index, work, false);
    }

    /// Splices if there is room, or waits for it. `writable`: the ring has just reported room, or a failed socket,
    /// which the splice will report.
    fn continue_send_file(&mut self, index: u32, mut work: SendFileWork, writable: bool) {
        if work.left == 0 {
            return self.finish_send_file(index, work, 0);
        }
        let room = match socket_room(self.table.fd(work.socket.index())) {
            Some(room) => room,
            None if writable => PAGE_BYTES,
            None if work.sent > 0 => return self.finish_send_file(index, work, 0),
            None => return self.wait_for_room(index, work),
        };
        let pipe = match self.pipes.take(index, self.slots.generation(index)) {
            Ok(Some(pipe)) => pipe,
            Ok(None) => {
                work.stage = Stage::PipeQueue;
                return self.slots.set(index, Work::SendFile(work));
            }
            Err(error) if work.sent == 0 => return self.finish(index, Err(error)),
            Err(_) => return self.finish_send_file(index, work, 0),
        };
        // A range that begins within a page takes one page more of the pipe.
        let capacity = pipe.capacity_bytes.saturating_sub((work.offset % PAGE_BYTES as u64) as usize).max(1);
        let asked = work.left.min(room).min(capacity).min(self.transfer_bytes_max.unwrap_or(usize::MAX));
        self.advise(&work.file);
        self.start_splices(index, work, pipe, asked);
    }

    /// Has the kernel read ahead in the file, or nothing but what is asked for: on some hosts it reads 8 MiB ahead
    /// (`read_ahead_kb`), and writes wait behind them.
    fn advise(&mut self, file: &File) {
        let entry = self.table.entry_mut(file.index());
        let reads_ahead = self.transfer_bytes_max.is_none();
        if std::mem::replace(&mut entry.reads_ahead, reads_ahead) != reads_ahead {
            let advice =
                if reads_ahead { PosixFadviseAdvice::POSIX_FADV_NORMAL } else { PosixFadviseAdvice::POSIX_FADV_RANDOM };
            // A file system that takes no advice reads as it likes.
            let _ = posix_fadvise(entry.as_fd(), 0, 0, advice);
        }
    }

    fn wait_for_room(&mut self, index: u32, mut work: SendFileWork) {
        let target = self.table.target(work.socket.index());
        let entry = opcode::PollAdd::new(target.fd, libc::POLLOUT as u32).build().flags(target.flags);
        work.stage = Stage::Room;
        self.slots.set(index, Work::SendFile(work));
        // SAFETY: the request points to nothing, and the slot keeps the socket.
        unsafe { self.start(index, Step::Writable, entry) };
        let now = self.read_monotonic();
        self.delays.add(now, index, self.slots.generation(index));
    }

    fn start_splices(&mut self, index: u32, mut work: SendFileWork, pipe: Pipe, asked: usize) {
        let file = self.table.target(work.file.index());
        let write = types::Fd(pipe.write_fd());
        let fill = opcode::Splice::new(file.fd, work.offset as i64, write, -1, asked as u32);
        let fill = match file.flags.is_empty() {
            true => fill.build(),
            false => fill.flags(SPLICE_F_FD_IN_FIXED).build(),
        };
        let fill = self.slots.begin(index, Step::SpliceIn, fill.flags(squeue::Flags::IO_LINK));
        let drain = self.drain_entry(index, &work, &pipe, asked);
        work.stage = Stage::Splice(Splice { pipe, asked, filled: None, drained: None });
        self.slots.set(index, Work::SendFile(work));
        // SAFETY: the requests point to nothing; the slot keeps file, pipe and socket until both completed.
        unsafe { self.queue.push_linked([fill, drain]) };
    }

    fn drain_entry(&mut self, index: u32, work: &SendFileWork, pipe: &Pipe, bytes: usize) -> squeue::Entry {
        let socket = self.table.target(work.socket.index());
        let drain = opcode::Splice::new(types::Fd(pipe.read_fd()), -1, socket.fd, -1, bytes as u32);
        self.slots.begin(index, Step::SpliceOut, drain.build().flags(socket.flags))
    }

    pub(super) fn send_file_done(&mut self, index: u32, mut work: SendFileWork, step: Step, result: i32) {
        let Stage::Splice(splice) = &mut work.stage else {
            return self.room_done(index, work, result);
        };
        match step {
            Step::SpliceIn => splice.filled = Some(result),
            _ => splice.drained = Some(result),
        }
        let (Some(filled), Some(drained)) = (splice.filled, splice.drained) else {
            return self.slots.set(index, Work::SendFile(work));
        };
        if drained == -libc::ECANCELED && filled > 0 && !self.slots.is_cancelled(index) {
            // The file had less than was asked for, which breaks the link.
            splice.drained = None;
            let Stage::Splice(splice) = std::mem::replace(&mut work.stage, Stage::Room) else {
                unreachable!("it was a splice above");
            };
            let drain = self.drain_entry(index, &work, &splice.pipe, filled as usize);
            work.stage = Stage::Splice(splice);
            self.slots.set(index, Work::SendFile(work));
            // SAFETY: as for the pair.
            unsafe { self.queue.push(drain) };
            return;
        }
        self.splices_done(index, work, filled, drained);
    }

    fn room_done(&mut self, index: u32, work: SendFileWork, result: i32) {
        if self.slots.is_cancelled(index) {
            return self.fail(index, -libc::ECANCELED);
        }
        match result {
            // The bound has passed.
            _ if result == -libc::ECANCELED => self.finish_send_file(index, work, 0),
            _ if result < 0 => self.fail(index, result),
            _ => self.continue_send_file(index, work, true),
        }
    }

    fn splices_done(&mut self, index: u32, mut work: SendFileWork, filled: i32, drained: i32) {
        let Stage::Splice(splice) = std::mem::replace(&mut work.stage, Stage::Room) else {
            unreachable!("only called with splices");
        };
        let sent = drained.max(0) as usize;
        let all = splice.asked;
        self.pipes.put(splice.pipe, filled <= 0 || filled == drained);
        self.start_waiting_for_pipes();
        work.offset += sent as u64;
        work.left -= sent;
        work.sent += sent;
        if filled < 0 && work.sent == 0 {
            return self.fail(index, filled);
        }
        if filled > 0 && drained < 0 && !matches!(-drained, libc::EAGAIN | libc::EINTR | ERESTARTSYS) {
            return self.finish_send_file(index, work, drained);
        }
        if filled == 0 && work.sent == 0 {
            return self.finish(index, Err(io::Error::from(io::ErrorKind::UnexpectedEof)));
        }
        // Short: the end of the file, a receiver that took less than its socket promised, or a cancellation.
        if sent < all || self.slots.is_cancelled(index) {
            return self.finish_send_file(index, work, 0);
        }
        if socket_room(self.table.fd(work.socket.index())).is_none() {
            return self.finish_send_file(index, work, 0);
        }
        self.continue_send_file(index, work, true);
    }

    fn finish_send_file(&mut self, index: u32, work: SendFileWork, result: i32) {
        if work.sent == 0 && (result < 0 || self.slots.is_cancelled(index)) {
            return self.fail(index, if result < 0 { result } else { -libc::ECANCELED });
        }
        self.finish(index, Ok(Outcome::SentFile { bytes: work.sent }));
    }

    /// Lends free pipes to those who wait for one.
    pub(super) fn start_waiting_for_pipes(&mut self) {
        while let Some((index, generation)) = self.pipes.next_waiting() {
            if self.slots.is_stale(index, generation) {
                continue;
            }
            match self.slots.take(index) {
                Work::SendFile(work) if matches!(work.stage, Stage::PipeQueue) => {
                    self.continue_send_file(index, work, false);
                }
                other => self.slots.set(index, other),
            }
        }
    }
}

const SPLICE_F_FD_IN_FIXED: u32 = 1 << 31;

/// Bytes that a socket takes without waiting; `None` if it would not be called writable. An eighth is left for what
/// the kernel's own structures take of the send buffer.
fn socket_room(fd: std::os::fd::RawFd) -> Option<usize> {
    let mut info = [0u32; MEMINFO_COUNT];
    let mut size = size_of_val(&info) as libc::socklen_t;
    // SAFETY: the call writes at most `size` bytes, which the array has.
    let result = unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, SO_MEMINFO, info.as_mut_ptr().cast(), &raw mut size) };
    if result < 0 {
        return None;
    }
    let mut unsent: libc::c_int = 0;
    // SAFETY: the call writes the integer.
    if unsafe { libc::ioctl(fd, SIOCOUTQNSD, &raw mut unsent) } < 0 {
        return None;
    }
    let buffer = info[MEMINFO_SEND_BUFFER] as usize;
    let queued = info[MEMINFO_SEND_QUEUED] as usize;
    let unsent = unsent.max(0) as usize;
    let free = buffer.saturating_sub(queued);
    // The kernel's own rule for TCP: writable from a third of the buffer on, and below half the mark.
    let writable = free >= queued / 2 && free >= PAGE_BYTES && 2 * unsent < UNSENT_MAX_BYTES;
    writable.then(|| (free - free / 8).min(UNSENT_MAX_BYTES - unsent))
}

/// Bounds the time that a blocking send to the socket waits for room, and what waits in it.
fn bound_sends(fd: std::os::fd::RawFd) {
    let timeout = libc::timeval {
        tv_sec: DELAY.as_secs() as libc::time_t,
        tv_usec: libc::suseconds_t::from(DELAY.subsec_micros()),
    };
    let size = size_of_val(&timeout) as libc::socklen_t;
    // SAFETY: the call reads the structure, which outlives it.
    let result =
        unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_SNDTIMEO, (&raw const timeout).cast(), size) };
    // All stream sockets have it; a gone connection shows at the splice.
    debug_assert!(result == 0, "{}", io::Error::last_os_error());
    let mark = UNSENT_MAX_BYTES as libc::c_int;
    let size = size_of_val(&mark) as libc::socklen_t;
    // SAFETY: the call reads the integer, which outlives it. Without the mark only more memory is used.
    unsafe { libc::setsockopt(fd, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, (&raw const mark).cast(), size) };
}
