//! The lock of a data directory: one broker at a time, and none while the writes of a killed one may still land.
//!
//! The lock is a `flock` on `.lock` in the directory. Every ring registers the same open file, so that the kernel
//! lets go of the lock only when the last ring's last write is done, be the process long dead.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often a lock that is held is tried again.
const RETRY: Duration = Duration::from_millis(10);

/// A data directory that is ours. Shared by reference between all rings of the process.
#[derive(Debug)]
pub struct DataLock {
    file: File,
    path: PathBuf,
}

/// Why a data directory could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it, or the last writes of a killed one are still under way.
    #[error("{} is in use by {}: stop that broker or choose another --data-dir", directory.display(), Holder(*pid))]
    Held {
        /// The data directory.
        directory: PathBuf,
        /// Who wrote itself into the lock file, if it can be read.
        pid: Option<u32>,
    },
    /// The lock file cannot be made.
    #[error("cannot lock {}: {source}", path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

struct Holder(Option<u32>);

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(pid) => write!(f, "process {pid}"),
            None => write!(f, "another process"),
        }
    }
}

impl DataLock {
    /// Locks the existing directory `directory`, or says at once who has it.
    pub fn acquire(directory: &Path) -> Result<DataLock, LockError> {
        let path = directory.join(".lock");
        let failed = |source| LockError::Io { path: path.clone(), source };
        let mut options = File::options();
        let mut file = options.read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                // A holder that is unknown is still a holder.
                let _ = file.take(32).read_to_string(&mut text);
                return Err(LockError::Held { directory: directory.to_owned(), pid: text.trim().parse().ok() });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let write = |file: &mut File| -> io::Result<()> {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        if let Err(source) = write(&mut file) {
            // The number only helps people: a full disk must not keep the broker from starting.
            tracing::debug!(%source, "the lock file does not tell who holds it");
        }
        Ok(DataLock { file, path })
    }

    /// As [`acquire`](Self::acquire), but tries again for `wait` if the holder is dead: a killed broker's writes end
    /// within the time that the disk takes for them. A holder that lives is not waited for. Blocks the thread; for
    /// start-up.
    pub fn acquire_within(directory: &Path, wait: Duration) -> Result<DataLock, LockError> {
        let start = Instant::now();
        loop {
            match DataLock::acquire(directory) {
                Err(LockError::Held { pid, .. }) if !pid.is_some_and(lives) && start.elapsed() < wait => {
                    std::thread::sleep(RETRY);
                }
                result => return result,
            }
        }
    }

    /// The lock file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

/// True if another process of this number has not ended. One that is dead but not reaped has.
fn lives(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
    pid != std::process::id() && state.is_some_and(|state| !"ZXx".contains(state))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lock_is_refused_with_the_holder_until_the_first_is_gone() {
        // flock belongs to the open file, so a second open within this process is refused like another process.
        let directory = tempfile::tempdir().expect("a directory");
        let first = DataLock::acquire(directory.path()).expect("nobody has it");
        match DataLock::acquire(directory.path()) {
            Err(LockError::Held { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
            other => panic!("locked twice: {other:?}"),
        }
        let wait = Duration::from_millis(30);
        assert!(matches!(DataLock::acquire_within(directory.path(), wait), Err(LockError::Held { .. })));
        drop(first);
        DataLock::acquire_within(directory.path(), wait).expect("it is free again");
    }

    #[test]
    fn a_holder_that_lives_is_not_waited_for() {
        let directory = tempfile::tempdir().expect("a directory");
        let lock = DataLock::acquire(directory.path()).expect("nobody has it");
        std::fs::write(lock.path(), std::os::unix::process::parent_id().to_string()).expect("it can be written");
        let start = Instant::now();
        let refused = DataLock::acquire_within(directory.path(), Duration::from_secs(60));
        assert!(matches!(refused, Err(LockError::Held { .. })));
        assert!(start.elapsed() < Duration::from_secs(30));
    }
}
