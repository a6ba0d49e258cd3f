//! Operations on open files, and opening them: the steps of each and what its completions mean.
//!
//! `start_…` queues the next request of an operation and puts its work into the slot; `…_done` takes the kernel's
//! answer and either starts again (short reads and writes, steps) or finishes.

use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::ffi::CString;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::OnceLock;

use io_uring::{opcode, types};

use super::ring::Ring;
use super::slots::{Step, Work};
use crate::base::units::{MIB, align_down};
use crate::io::buffer::ALIGN_BYTES;
use crate::io::{Buffer, File, OpenOptions, Outcome, Slice};

/// Direct I/O that stops short does so at a multiple of this, or at the end of the file.
const SECTOR_BYTES: usize = 512;
/// Zeros are written in pieces of this size, the greatest that gains throughput on the disks we measured.
const ZEROS_BYTES: usize = MIB;
/// `fallocate` mode of Linux 6.17 that writes zeros by the device's own means.
const FALLOC_FL_WRITE_ZEROES: i32 = 0x80;

pub(super) struct OpenWork {
    path: CString,
    options: OpenOptions,
    direct: bool,
}

pub(super) struct ReadWork {
    file: File,
    offset: u64,
    buffer: Buffer,
    length: usize,
    done: usize,
}

pub(super) struct WriteWork {
    file: File,
    offset: u64,
    slice: Slice,
    sync: bool,
    done: usize,
}

pub(super) struct ZeroWork {
    file: File,
    offset: u64,
    length: u64,
    done: u64,
    stage: ZeroStage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ZeroStage {
    /// The device is asked to write them.
    Device,
    /// They are written from memory.
    Write,
    Sync,
}

/// One request whose result is success or not. It owns what the request uses.
pub(super) struct SimpleWork {
    pub(super) file: Option<File>,
    pub(super) paths: [Option<CString>; 2],
    pub(super) on_error: OnError,
}

/// What an error of a simple operation means.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum OnError {
    Fail,
    /// An existing directory is as good as a new one.
    AcceptDirectory,
}

pub(super) fn error(result: i32) -> io::Error {
    io::Error::from_raw_os_error(-result)
}

fn zeros() -> &'static [u8] {
    static ZEROS: OnceLock<&'static [u8]> = OnceLock::new();
    ZEROS.get_or_init(|| {
        let layout = Layout::from_size_align(ZEROS_BYTES, ALIGN_BYTES).expect("constants");
        // SAFETY: the size is not zero.
        let memory = unsafe { alloc_zeroed(layout) };
        if memory.is_null() {
            handle_alloc_error(layout);
        }
        // SAFETY: that many zeroed bytes, owned by this static and never freed or written.
        unsafe { std::slice::from_raw_parts(memory, ZEROS_BYTES) }
    })
}

impl Ring {
    pub(super) fn open(&mut self, index: u32, path: CString, options: OpenOptions) {
        self.start_open(index, OpenWork { path, options, direct: options.direct });
    }

    fn start_open(&mut self, index: u32, work: OpenWork) {
        let OpenOptions { write, create, create_new, .. } = work.options;
        let mut flags = libc::O_CLOEXEC | if write { libc::O_RDWR } else { libc::O_RDONLY };
        flags |= if create { libc::O_CREAT } else { 0 };
        flags |= if create && create_new { libc::O_EXCL } else { 0 };
        flags |= if work.direct { libc::O_DIRECT } else { 0 };
        let entry = opcode::OpenAt::new(types::Fd(libc::AT_FDCWD), work.path.as_ptr()).flags(flags).mode(0o644);
        self.slots.set(index, Work::Open(work));
        // SAFETY: the path is on the heap of the slot's work, which stays until the completion.
        unsafe { self.start(index, Step::Only, entry.build()) };
    }

    pub(super) fn open_done(&mut self, index: u32, mut work: OpenWork, result: i32) {
        if result == -libc::EINTR && !self.slots.is_cancelled(index) {
            return self.start_open(index, work);
        }
        if result == -libc::EINVAL && work.direct {
            // A file system without direct I/O. An exclusively created file is there already.
            work.direct = false;
            work.options.create_new = false;
            return self.start_open(index, work);
        }
        if result < 0 {
            return self.fail(index, result);
        }
        // SAFETY: the kernel has just opened it for us; the table owns it from here.
        let fd = unsafe { OwnedFd::from_raw_fd(result) };
        let handle = self.table.insert(self.queue.ring(), fd, work.direct);
        let file = File::new(handle, &self.dropped);
        self.finish(index, Ok(Outcome::Opened(file)));
    }

    pub(super) fn read(&mut self, index: u32, file: File, offset: u64, buffer: Buffer, length_bytes: u32) {
        let length = length_bytes as usize;
        assert!(length <= buffer.len(), "a read of {length} bytes into {}", buffer.len());
        self.start_read(index, ReadWork { file, offset, buffer, length, done: 0 });
    }

    fn start_read(&mut self, index: u32, mut work: ReadWork) {
        let target = self.table.target(work.file.index());
        let offset = work.offset + work.done as u64;
        let rest = &mut work.buffer[work.done..work.length];
        let (memory, length) = (rest.as_mut_ptr(), rest.len() as u32);
        let entry = match self.registered_index(memory) {
            Some(number) => opcode::ReadFixed::new(target.fd, memory, length, number).offset(offset).build(),
            None => opcode::Read::new(target.fd, memory, length).offset(offset).build(),
        };
        self.slots.set(index, Work::Read(work));
        // SAFETY: the slot owns the buffer until the completion and nobody else can reach it.
        unsafe { self.start(index, Step::Only, entry.flags(target.flags)) };
    }

    pub(super) fn read_done(&mut self, index: u32, mut work: ReadWork, result: i32) {
        if result < 0 {
            return match self.is_retry(index, result) {
                true => self.start_read(index, work),
                false => self.fail(index, result),
            };
        }
        work.done += result as usize;
        let direct = self.table.entry(work.file.index()).direct;
        let at_end = result == 0 || (direct && !work.done.is_multiple_of(SECTOR_BYTES));
        if work.done < work.length && !at_end {
            if self.slots.is_cancelled(index) {
                return self.fail(index, -libc::ECANCELED);
            }
            return self.start_read(index, work);
        }
        self.finish(index, Ok(Outcome::Read { bytes: work.done, buffer: work.buffer }));
    }

    pub(super) fn write(&mut self, index: u32, file: File, offset: u64, slice: Slice, sync: bool) {
        if slice.is_empty() {
            return self.finish(index, Ok(Outcome::Done));
        }
        self.start_write(index, WriteWork { file, offset, slice, sync, done: 0 });
    }

    fn start_write(&mut self, index: u32, work: WriteWork) {
        let target = self.table.target(work.file.index());
        let rest = &work.slice.as_bytes()[work.done..];
        let (memory, length) = (rest.as_ptr(), u32::try_from(rest.len()).unwrap_or(u32::MAX));
        let offset = work.offset + work.done as u64;
        let sync = if work.sync { libc::RWF_DSYNC } else { 0 };
        let entry = match self.registered_index(memory) {
            Some(number) => {
                let write = opcode::WriteFixed::new(target.fd, memory, length, number);
                write.offset(offset).rw_flags(sync).build()
            }
            None => opcode::Write::new(target.fd, memory, length).offset(offset).rw_flags(sync).build(),
        };
        self.slots.set(index, Work::Write(work));
        // SAFETY: the slot's slice keeps the bytes, which nobody changes, until the completion.
        unsafe { self.start(index, Step::Only, entry.flags(target.flags)) };
    }

    pub(super) fn write_done(&mut self, index: u32, mut work: WriteWork, result: i32) {
        if result < 0 {
            return match self.is_retry(index, result) {
                true => self.start_write(index, work),
                false => self.fail(index, result),
            };
        }
        let before = work.done;
        work.done += result as usize;
        if work.done == work.slice.len() {
            return self.finish(index, Ok(Outcome::Done));
        }
        if self.table.entry(work.file.index()).direct {
            // Direct writes go on from a whole sector; repeating a part of one writes the same bytes again.
            work.done = align_down(work.done as u64, SECTOR_BYTES as u64) as usize;
        }
        if work.done <= before {
            return self.finish(index, Err(io::Error::from(io::ErrorKind::WriteZero)));
        }
        if self.slots.is_cancelled(index) {
            return self.fail(index, -libc::ECANCELED);
        }
        self.start_write(index, work);
    }

    pub(super) fn write_zeros(&mut self, index: u32, file: File, offset: u64, length: u64) {
        let stage = match length {
            0 => ZeroStage::Sync,
            _ if self.device_writes_zeros => ZeroStage::Device,
            _ => ZeroStage::Write,
        };
        self.start_zeros(index, ZeroWork { file, offset, length, done: 0, stage });
    }

    fn start_zeros(&mut self, index: u32, work: ZeroWork) {
        let target = self.table.target(work.file.index());
        let entry = match work.stage {
            ZeroStage::Device => {
                let fallocate = opcode::Fallocate::new(target.fd, work.length);
                fallocate.offset(work.offset).mode(FALLOC_FL_WRITE_ZEROES).build()
            }
            ZeroStage::Write => {
                let piece = (work.length - work.done).min(ZEROS_BYTES as u64);
                let write = opcode::Write::new(target.fd, zeros().as_ptr(), piece as u32);
                write.offset(work.offset + work.done).build()
            }
            ZeroStage::Sync => opcode::Fsync::new(target.fd).flags(types::FsyncFlags::DATASYNC).build(),
        };
        self.slots.set(index, Work::Zero(work));
        // SAFETY: the zeros are never freed or written; the other requests point to nothing.
        unsafe { self.start(index, Step::Only, entry.flags(target.flags)) };
    }

    pub(super) fn zeros_done(&mut self, index: u32, mut work: ZeroWork, result: i32) {
        if result < 0 {
            if self.is_retry(index, result) {
                return self.start_zeros(index, work);
            }
            if work.stage == ZeroStage::Device && matches!(-result, libc::EOPNOTSUPP | libc::EINVAL | libc::ENOSYS) {
                // Older kernels, other file systems and devices that cannot: never asked again.
                self.device_writes_zeros = false;
                work.stage = ZeroStage::Write;
                return self.start_zeros(index, work);
            }
            return self.fail(index, result);
        }
        match work.stage {
            ZeroStage::Device => work.stage = ZeroStage::Sync,
            ZeroStage::Write => {
                let written = match self.table.entry(work.file.index()).direct {
                    true => align_down(result as u64, SECTOR_BYTES as u64),
                    false => result as u64,
                };
                if written == 0 {
                    return self.finish(index, Err(io::Error::from(io::ErrorKind::WriteZero)));
                }
                work.done += written;
                if work.done == work.length {
                    work.stage = ZeroStage::Sync;
                }
            }
            ZeroStage::Sync => return self.finish(index, Ok(Outcome::Done)),
        }
        if self.slots.is_cancelled(index) {
            return self.fail(index, -libc::ECANCELED);
        }
        self.start_zeros(index, work);
    }

    pub(super) fn allocate(&mut self, index: u32, file: File, offset: u64, length: u64) {
        let target = self.table.target(file.index());
        let entry = opcode::Fallocate::new(target.fd, length).offset(offset).build().flags(target.flags);
        self.simple_on_file(index, file, entry);
    }

    pub(super) fn sync(&mut self, index: u32, file: File) {
        let target = self.table.target(file.index());
        let entry = opcode::Fsync::new(target.fd).flags(types::FsyncFlags::DATASYNC).build().flags(target.flags);
        self.simple_on_file(index, file, entry);
    }

    pub(super) fn truncate(&mut self, index: u32, file: File, length: u64) {
        if !self.report.truncate_on_ring {
            // SAFETY: no pointers; the handle keeps the descriptor open.
            let result = unsafe { libc::ftruncate(self.table.fd(file.index()), length as libc::off_t) };
            let result = if result < 0 { Err(io::Error::last_os_error()) } else { Ok(Outcome::Done) };
            return self.finish(index, result);
        }
        let target = self.table.target(file.index());
        let entry = opcode::Ftruncate::new(target.fd, length).build().flags(target.flags);
        self.simple_on_file(index, file, entry);
    }

    pub(super) fn drop_cache(&mut self, index: u32, file: File) {
        let target = self.table.target(file.index());
        let entry = opcode::Fadvise::new(target.fd, 0, libc::POSIX_FADV_DONTNEED).build().flags(target.flags);
        self.simple_on_file(index, file, entry);
    }

    /// At once: the length of an open file is in memory, and the ring would send this to a kernel worker.
    pub(super) fn length(&mut self, index: u32, file: File) {
        let mut stat = std::mem::MaybeUninit::<libc::stat>::uninit();
        // SAFETY: the call fills the structure on success; the handle keeps the descriptor open.
        let result = match unsafe { libc::fstat(self.table.fd(file.index()), stat.as_mut_ptr()) } {
            // SAFETY: the call succeeded, so the structure is filled.
            0 => Ok(Outcome::Length(unsafe { stat.assume_init() }.st_size as u64)),
            _ => Err(io::Error::last_os_error()),
        };
        self.finish(index, result);
    }

    fn simple_on_file(&mut self, index: u32, file: File, entry: io_uring::squeue::Entry) {
        let work = SimpleWork { file: Some(file), paths: [None, None], on_error: OnError::Fail };
        self.slots.set(index, Work::Simple(work));
        // SAFETY: the request points to nothing, and the slot keeps the file.
        unsafe { self.start(index, Step::Only, entry) };
    }

    pub(super) fn simple_done(&mut self, index: u32, work: SimpleWork, result: i32) {
        if result < 0 {
            let is_directory = || match &work.paths[0] {
                Some(path) => super::names::is_directory(path),
                None => false,
            };
            if result == -libc::EEXIST && work.on_error == OnError::AcceptDirectory && is_directory() {
                return self.finish(index, Ok(Outcome::Done));
            }
            return self.fail(index, result);
        }
        drop(work.file);
        self.finish(index, Ok(Outcome::Done));
    }
}
