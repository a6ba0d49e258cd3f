//! What this host and a directory can do, for preflight: asked once, before anything depends on it.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::options::RingOptions;
use super::setup::{RingError, RingReport, set_up};
use crate::io::buffer::ALIGN_BYTES;

/// The oldest kernel that the ring is written for.
pub const KERNEL_MIN: (u32, u32) = (6, 1);

/// The running kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelVersion {
    /// As in 6.1.
    pub major: u32,
    /// As in 6.1.
    pub minor: u32,
    /// All of it, as `uname -r` prints it.
    pub release: String,
}

impl KernelVersion {
    /// True if it is not older than [`KERNEL_MIN`].
    pub fn is_supported(&self) -> bool {
        (self.major, self.minor) >= KERNEL_MIN
    }
}

/// The running kernel's version. Numbers that cannot be read are 0.
pub fn kernel_version() -> KernelVersion {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    let (major, minor) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    KernelVersion { major, minor, release }
}

/// The bytes that rings of this user may lock, or `None` if no limit applies to this process.
pub fn memlock_bytes() -> Option<u64> {
    const CAP_IPC_LOCK: u32 = 14;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok()).unwrap_or(0);
    if effective >> CAP_IPC_LOCK & 1 == 1 {
        return None;
    }
    let (soft, _) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_MEMLOCK).ok()?;
    (soft != libc::RLIM_INFINITY).then_some(soft)
}

/// Sets a ring up with `options` and lets it go again: what would a shard get?
pub fn probe_ring(options: &RingOptions) -> Result<RingReport, RingError> {
    set_up(options, None).map(|(_, report)| report)
}

/// A file system by what matters to a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    /// ext2, ext3 or ext4.
    Ext,
    /// XFS.
    Xfs,
    /// Btrfs: copies on write, so overwriting allocates.
    Btrfs,
    /// ZFS: copies on write.
    Zfs,
    /// bcachefs: copies on write.
    Bcachefs,
    /// F2FS: writes elsewhere, as a copy-on-write file system does.
    F2fs,
    /// In memory: nothing survives a restart of the host.
    Tmpfs,
    /// A container's layers: files of it should not hold data.
    Overlay,
    /// NFS.
    Nfs,
    /// Any other, with its magic number of `statfs`.
    Other(u64),
}

impl FileSystem {
    fn from_magic(magic: u64) -> FileSystem {
        match magic {
            0xEF53 => FileSystem::Ext,
            0x5846_5342 => FileSystem::Xfs,
            0x9123_683E => FileSystem::Btrfs,
            0x2FC1_2FC1 => FileSystem::Zfs,
            0xCA45_1A4E => FileSystem::Bcachefs,
            0xF2F5_2010 => FileSystem::F2fs,
            0x0102_1994 => FileSystem::Tmpfs,
            0x794C_7630 => FileSystem::Overlay,
            0x6969 => FileSystem::Nfs,
            other => FileSystem::Other(other),
        }
    }

    /// True if overwriting a block writes it elsewhere, so that reusing segments gains nothing.
    pub fn is_copy_on_write(self) -> bool {
        matches!(self, FileSystem::Btrfs | FileSystem::Zfs | FileSystem::Bcachefs | FileSystem::F2fs)
    }

    /// True if what is written is gone after a restart of the host.
    pub fn is_volatile(self) -> bool {
        self == FileSystem::Tmpfs
    }
}

/// The units of direct I/O.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectAlignment {
    /// Of the memory that is read into or written from.
    pub memory_bytes: u32,
    /// Of offsets and lengths.
    pub offset_bytes: u32,
}

/// What a directory can do.
#[derive(Clone, Debug)]
pub struct DirectoryCapabilities {
    /// Its file system.
    pub file_system: FileSystem,
    /// The file system's block.
    pub block_bytes: u64,
    /// Bytes free for a normal user.
    pub free_bytes: u64,
    /// Units of direct I/O, or `None` if files cannot be opened for it. Memory and offsets are 4 KiB where the kernel
    /// does not tell.
    pub direct: Option<DirectAlignment>,
}

/// Looks at `directory`, which must exist and be writable: writes one block to a file of its own and removes it.
pub fn probe_directory(directory: &Path) -> io::Result<DirectoryCapabilities> {
    let stat = nix::sys::statfs::statfs(directory)?;
    // The magic number's type differs between targets; its bits do not.
    let magic = stat.filesystem_type().0 as u64 & 0xFFFF_FFFF;
    let block_bytes = stat.block_size() as u64;
    let probe = Probe::create(directory)?;
    Ok(DirectoryCapabilities {
        file_system: FileSystem::from_magic(magic),
        block_bytes,
        free_bytes: stat.blocks_available() * block_bytes,
        direct: probe.direct()?,
    })
}

/// A file that is removed with its owner.
struct Probe(PathBuf);

impl Drop for Probe {
    fn drop(&mut self) {
        // A probe that cannot be removed harms nobody.
        let _ = fs::remove_file(&self.0);
    }
}

impl Probe {
    fn create(directory: &Path) -> io::Result<Probe> {
        let path = directory.join(format!(".probe-{}", std::process::id()));
        File::create(&path)?;
        Ok(Probe(path))
    }

    fn direct(&self) -> io::Result<Option<DirectAlignment>> {
        let file = match File::options().write(true).custom_flags(libc::O_DIRECT).open(&self.0) {
            Ok(file) => file,
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Ok(None),
            Err(error) => return Err(error),
        };
        let memory = crate::io::Pool::new(2 * ALIGN_BYTES).take(ALIGN_BYTES).expect("within the budget");
        match file.write_all_at(&memory, 0) {
            Ok(()) => Ok(Some(self.alignment())),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn alignment(&self) -> DirectAlignment {
        let unknown = DirectAlignment { memory_bytes: ALIGN_BYTES as u32, offset_bytes: ALIGN_BYTES as u32 };
        let Ok(path) = CString::new(self.0.as_os_str().as_bytes()) else { return unknown };
        // SAFETY: an all-zero structure is valid, and the call writes only within it.
        let mut stat: libc::statx = unsafe { std::mem::zeroed() };
        // SAFETY: path and structure outlive the call.
        let result = unsafe { libc::statx(libc::AT_FDCWD, path.as_ptr(), 0, libc::STATX_DIOALIGN, &raw mut stat) };
        if result < 0 || stat.stx_mask & libc::STATX_DIOALIGN == 0 || stat.stx_dio_offset_align == 0 {
            return unknown;
        }
        DirectAlignment { memory_bytes: stat.stx_dio_mem_align, offset_bytes: stat.stx_dio_offset_align }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_tells_its_file_system_and_its_units() {
        // On whatever this is run: the facts must agree with each other, and the probe must leave nothing behind.
        let directory = tempfile::tempdir().expect("a directory");
        let found = probe_directory(directory.path()).expect("it is writable");
        assert!(found.block_bytes.is_power_of_two(), "{found:?}");
        if let Some(direct) = found.direct {
            assert!(direct.offset_bytes.is_power_of_two() && direct.memory_bytes.is_power_of_two(), "{found:?}");
        }
        assert_eq!(fs::read_dir(directory.path()).expect("it is there").count(), 0);
    }

    #[test]
    fn the_running_kernel_has_a_version() {
        let kernel = kernel_version();
        assert!(kernel.major > 0, "{kernel:?}");
        assert!(kernel.release.starts_with(&format!("{}.{}", kernel.major, kernel.minor)), "{kernel:?}");
    }
}
