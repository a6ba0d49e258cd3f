//! Operations on names: rename, remove, directories.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use io_uring::{opcode, types};

use super::disk::{OnError, SimpleWork};
use super::ring::Ring;
use super::slots::{Step, Work};
use crate::io::{DirEntry, Outcome, Space};

/// Open, fsync, close.
pub(super) struct SyncDirWork {
    path: CString,
    directory: Option<OwnedFd>,
}

impl SyncDirWork {
    /// True while the request under way is the open.
    pub(super) fn is_opening(&self) -> bool {
        self.directory.is_none()
    }
}

const HERE: types::Fd = types::Fd(libc::AT_FDCWD);

/// A path as the kernel takes it.
pub(super) fn c_path(path: PathBuf) -> io::Result<CString> {
    CString::new(path.into_os_string().into_vec()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

pub(super) fn is_directory(path: &CStr) -> bool {
    Path::new(OsStr::from_bytes(path.to_bytes())).is_dir()
}

impl Ring {
    pub(super) fn rename(&mut self, index: u32, from: CString, to: CString) {
        let entry = opcode::RenameAt::new(HERE, from.as_ptr(), HERE, to.as_ptr()).build();
        self.simple_on_paths(index, [Some(from), Some(to)], OnError::Fail, entry);
    }

    pub(super) fn remove(&mut self, index: u32, path: CString) {
        let entry = opcode::UnlinkAt::new(HERE, path.as_ptr()).build();
        self.simple_on_paths(index, [Some(path), None], OnError::Fail, entry);
    }

    pub(super) fn remove_dir(&mut self, index: u32, path: CString) {
        let entry = opcode::UnlinkAt::new(HERE, path.as_ptr()).flags(libc::AT_REMOVEDIR).build();
        self.simple_on_paths(index, [Some(path), None], OnError::Fail, entry);
    }

    pub(super) fn create_dir(&mut self, index: u32, path: CString) {
        let entry = opcode::MkDirAt::new(HERE, path.as_ptr()).mode(0o755).build();
        self.simple_on_paths(index, [Some(path), None], OnError::AcceptDirectory, entry);
    }

    fn simple_on_paths(
        &mut self,
        index: u32,
        paths: [Option<CString>; 2],
        on_error: OnError,
        entry: io_uring::squeue::Entry,
    ) {
        // The strings are on the heap, so moving them into the slot does not move what the entry points to.
        self.slots.set(index, Work::Simple(SimpleWork { file: None, paths, on_error }));
        // SAFETY: the slot owns the paths until the completion.
        unsafe { self.start(index, Step::Only, entry) };
    }

    pub(super) fn sync_dir(&mut self, index: u32, path: CString) {
        self.start_sync_dir(index, SyncDirWork { path, directory: None });
    }

    fn start_sync_dir(&mut self, index: u32, work: SyncDirWork) {
        let entry = match &work.directory {
            None => {
                let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
                opcode::OpenAt::new(HERE, work.path.as_ptr()).flags(flags).build()
            }
            Some(directory) => opcode::Fsync::new(types::Fd(directory.as_raw_fd())).build(),
        };
        self.slots.set(index, Work::SyncDir(work));
        // SAFETY: the slot owns the path and the directory until the completion.
        unsafe { self.start(index, Step::Only, entry) };
    }

    pub(super) fn sync_dir_done(&mut self, index: u32, mut work: SyncDirWork, result: i32) {
        if result < 0 {
            return match self.is_retry(index, result) {
                true => self.start_sync_dir(index, work),
                false => self.fail(index, result),
            };
        }
        if work.directory.is_some() {
            return self.finish(index, Ok(Outcome::Done));
        }
        // SAFETY: the kernel has just opened it for us; the slot owns it from here.
        work.directory = Some(unsafe { OwnedFd::from_raw_fd(result) });
        if self.slots.is_cancelled(index) {
            return self.fail(index, -libc::ECANCELED);
        }
        self.start_sync_dir(index, work);
    }

    /// At once: the ring has no operation for it.
    pub(super) fn list(&mut self, index: u32, path: PathBuf) {
        let result = read_directory(&path).map(Outcome::Listed);
        self.finish(index, result);
    }
}

/// What the system says of the file system that holds `path`.
pub(super) fn space(path: &Path) -> io::Result<Space> {
    let told = nix::sys::statvfs::statvfs(path)?;
    let fragment = told.fragment_size();
    Ok(Space {
        total_bytes: (told.blocks() as u64).saturating_mul(fragment as u64),
        usable_bytes: (told.blocks_available() as u64).saturating_mul(fragment as u64),
    })
}

fn read_directory(path: &Path) -> io::Result<Vec<DirEntry>> {
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let is_dir = entry.file_type()?.is_dir();
        if let Ok(name) = entry.file_name().into_string() {
            entries.push(DirEntry { name, is_dir });
        }
    }
    Ok(entries)
}
