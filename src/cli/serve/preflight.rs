//! Before the first shard starts: what on this host would stop or slow the broker, each with the cause in one line
//! and the command that mends it.
//!
//! Gathering ([`gather`]) and judging ([`findings`]) are apart, so that every message can be tested with invented
//! facts. What fails later, when a socket is bound or a ring is made, is worded here too ([`listen_failed`],
//! [`ring_failed`], [`lock_failed`]).

use std::fs::OpenOptions;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use nix::sys::statvfs::statvfs;

use super::options::ServeOptions;
use crate::base::units::{MIB, human_bytes};
use crate::cli::exit::HostError;
use crate::io::uring::{DataLock, LockError, RingError};

/// The oldest kernel that is supported.
const KERNEL_MIN: (u32, u32) = (6, 1);
/// Below this the first segments and metadata cannot be prepared.
const FREE_BYTES_MIN: u64 = 16 * MIB as u64;
/// Below this a warning is due.
const FREE_BYTES_LOW: u64 = 256 * MIB as u64;
/// Files and connections that a broker of one topic and a few clients needs.
const OPEN_FILES_MIN: u64 = 256;
/// A partition takes up to four descriptors, a connection one: below this a benchmark hits the limit.
const OPEN_FILES_LOW: u64 = 16 * 1024;
/// What one ring's queues are charged, as a rule: 64 bytes a submission and 16 a completion entry, with headers.
const RING_BASE_BYTES: u64 = 8 * 1024;

/// How bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The broker runs, with a drawback.
    Warning,
    /// It cannot start.
    Fatal,
}

/// One line for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad.
    pub severity: Severity,
    /// What is the matter.
    pub cause: String,
    /// The command or change that mends it.
    pub remedy: String,
}

impl Finding {
    fn fatal(cause: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding { severity: Severity::Fatal, cause: cause.into(), remedy: remedy.into() }
    }

    fn warning(cause: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding { severity: Severity::Warning, cause: cause.into(), remedy: remedy.into() }
    }

    /// The error that stops the start.
    pub fn into_error(self) -> HostError {
        HostError { message: self.cause, remedy: self.remedy }
    }
}

/// What was found on the host.
#[derive(Clone, Debug)]
pub struct HostFacts {
    /// `uname -r`.
    pub kernel_release: String,
    /// `kernel.io_uring_disabled`: 0 allowed, 1 only for its group and administrators, 2 never; `None` before 6.6.
    pub io_uring_disabled: Option<u32>,
    /// This process is root or has the capability that value 1 asks for.
    pub privileged: bool,
    /// Soft limit on locked memory, in bytes.
    pub memlock_bytes: u64,
    /// Soft limit on open files, after it was raised, and the hard one.
    pub open_files: (u64, u64),
    /// The data directory.
    pub data_dir: DirectoryFacts,
}

/// What was found out about the data directory.
#[derive(Clone, Debug)]
pub struct DirectoryFacts {
    /// Its path.
    pub path: PathBuf,
    /// The error of creating it or writing a file into it.
    pub write_error: Option<(io::ErrorKind, String)>,
    /// It lies in memory.
    pub tmpfs: bool,
    /// A broker has been here before: it needs no new room to serve what is stored.
    pub has_data: bool,
    /// A file could be opened with O_DIRECT.
    pub direct_io: bool,
    /// Bytes that this user may still write.
    pub free_bytes: u64,
    /// Files that may still be made; `None` where the file system does not count them.
    pub free_files: Option<u64>,
}

/// What the options ask of the host.
#[derive(Clone, Copy, Debug)]
pub struct Needs {
    /// Rings, one per shard.
    pub shard_count: usize,
    /// Submission entries of each.
    pub ring_entries: u32,
    /// Completion entries of each.
    pub ring_cq_entries: u32,
}

impl Needs {
    /// Those of `options`.
    pub fn of(options: &ServeOptions) -> Needs {
        Needs {
            shard_count: options.shard_count,
            ring_entries: options.ring.sq_entries,
            ring_cq_entries: options.ring.cq_entries,
        }
    }

    /// Locked memory that the rings are charged.
    fn memlock_bytes(&self) -> u64 {
        let ring = RING_BASE_BYTES + u64::from(self.ring_entries) * 68 + u64::from(self.ring_cq_entries) * 16;
        ring * self.shard_count as u64
    }
}

/// Looks at the host, creates the data directory and raises the soft limit of open files to the hard one.
pub fn gather(data_dir: &Path) -> HostFacts {
    HostFacts {
        kernel_release: nix::sys::utsname::uname()
            .map(|name| name.release().to_string_lossy().into_owned())
            .unwrap_or_default(),
        io_uring_disabled: std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled")
            .ok()
            .and_then(|text| text.trim().parse().ok()),
        privileged: nix::unistd::geteuid().is_root(),
        memlock_bytes: getrlimit(Resource::RLIMIT_MEMLOCK).map_or(u64::MAX, |(soft, _)| soft),
        open_files: raise_open_files(),
        data_dir: gather_directory(data_dir),
    }
}

/// How many files and connections this process may have open.
pub fn open_file_count_max() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft)
}

/// Raises the soft limit to the hard one; gives both as they are then.
fn raise_open_files() -> (u64, u64) {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return (u64::MAX, u64::MAX) };
    if soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() {
        return (hard, hard);
    }
    (soft, hard)
}

fn gather_directory(path: &Path) -> DirectoryFacts {
    const PROBE: &str = ".ottla-preflight";
    let mut facts = DirectoryFacts {
        path: path.to_path_buf(),
        write_error: None,
        tmpfs: false,
        has_data: path.join("meta").is_dir(),
        direct_io: true,
        free_bytes: u64::MAX,
        free_files: None,
    };
    let probe = path.join(PROBE);
    let made = std::fs::create_dir_all(path)
        .and_then(|()| OpenOptions::new().write(true).create(true).truncate(true).open(&probe).map(drop));
    match made {
        Ok(()) => {
            let direct = OpenOptions::new().read(true).custom_flags(nix::fcntl::OFlag::O_DIRECT.bits()).open(&probe);
            facts.direct_io = direct.is_ok();
            let _ = std::fs::remove_file(&probe);
        }
        Err(error) => facts.write_error = Some((error.kind(), error.to_string())),
    }
    facts.tmpfs = statfs(path).is_ok_and(|fs| fs.filesystem_type() == TMPFS_MAGIC);
    if let Ok(space) = statvfs(path) {
        facts.free_bytes = space.blocks_available().saturating_mul(space.fragment_size());
        // Some file systems (btrfs) report no inodes at all: they make them as needed.
        facts.free_files = (space.files() > 0).then(|| space.files_available());
    }
    facts
}

/// Judges the facts, fatal findings first.
pub fn findings(facts: &HostFacts, needs: &Needs) -> Vec<Finding> {
    let mut found = Vec::new();
    kernel(facts, &mut found);
    memlock(facts, needs, &mut found);
    open_files(facts, &mut found);
    directory(&facts.data_dir, &mut found);
    found.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    found
}

fn kernel(facts: &HostFacts, found: &mut Vec<Finding>) {
    if let Some(version) = kernel_version(&facts.kernel_release).filter(|version| *version < KERNEL_MIN) {
        found.push(Finding::fatal(
            format!("the kernel is {}.{}; ottla needs Linux 6.1 or newer", version.0, version.1),
            "boot a newer kernel (`uname -r` shows the running one)",
        ));
    }
    match facts.io_uring_disabled {
        Some(2) => found.push(Finding::fatal(
            "io_uring is switched off on this host (kernel.io_uring_disabled = 2)",
            "sudo sysctl -w kernel.io_uring_disabled=0",
        )),
        Some(1) if !facts.privileged => found.push(Finding::fatal(
            "io_uring is allowed for a group and root only (kernel.io_uring_disabled = 1)",
            "sudo sysctl -w kernel.io_uring_disabled=0, or add this user to the group of kernel.io_uring_group",
        )),
        _ => {}
    }
}

fn memlock(facts: &HostFacts, needs: &Needs, found: &mut Vec<Finding>) {
    // Since 5.12 root's rings are charged too, but to its cgroup and not to this limit if it may lock memory.
    if !facts.privileged && facts.memlock_bytes < needs.memlock_bytes() {
        found.push(Finding::warning(
            format!(
                "the limit on locked memory is {}, and {} rings of {}/{} entries may want {}: rings will be made smaller if refused",
                human_bytes(facts.memlock_bytes),
                needs.shard_count,
                needs.ring_entries,
                needs.ring_cq_entries,
                human_bytes(needs.memlock_bytes())
            ),
            format!(
                "ulimit -l {} (or LimitMEMLOCK= in the unit, or a smaller --ring-entries)",
                needs.memlock_bytes().div_ceil(1024)
            ),
        ));
    }
}

fn open_files(facts: &HostFacts, found: &mut Vec<Finding>) {
    let (soft, hard) = facts.open_files;
    let remedy = if soft < hard {
        format!("ulimit -n {hard}")
    } else {
        "raise the hard limit: LimitNOFILE=1048576 in the unit, or `nofile` in /etc/security/limits.conf".to_string()
    };
    if soft < OPEN_FILES_MIN {
        found.push(Finding::fatal(format!("only {soft} files may be open; a broker needs {OPEN_FILES_MIN}"), remedy));
    } else if soft < OPEN_FILES_LOW {
        let partitions = soft / 8;
        found.push(Finding::warning(
            format!("only {soft} files may be open: enough for about {partitions} partitions and as many connections"),
            remedy,
        ));
    }
}

fn directory(facts: &DirectoryFacts, found: &mut Vec<Finding>) {
    let path = facts.path.display();
    let is_full = |kind: &io::ErrorKind| matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    let write_error = facts.write_error.as_ref().filter(|(kind, _)| !(facts.has_data && is_full(kind)));
    if let Some((kind, text)) = write_error {
        found.push(match kind {
            io::ErrorKind::PermissionDenied => Finding::fatal(
                format!("the data directory {path} cannot be written: {text}"),
                format!("sudo chown -R $(id -un) {path}, or give another with --data-dir"),
            ),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Finding::fatal(
                format!("the file system of the data directory {path} is full"),
                format!("free some space (`df -h {path}`), or give another directory with --data-dir"),
            ),
            io::ErrorKind::ReadOnlyFilesystem => Finding::fatal(
                format!("the file system of the data directory {path} is mounted read-only"),
                format!("sudo mount -o remount,rw $(findmnt -no TARGET -T {path}), or give another with --data-dir"),
            ),
            _ => Finding::fatal(
                format!("the data directory {path} cannot be used: {text}"),
                "give another with --data-dir",
            ),
        });
        return;
    }
    if facts.has_data && (facts.free_bytes < FREE_BYTES_MIN || facts.free_files == Some(0)) {
        // Starting is what makes retention and deletion possible.
        found.push(Finding::warning(
            format!(
                "the file system of the data directory {path} is all but full: appends are refused until there is room"
            ),
            format!("delete topics or shorten their retention, or free some space (`df -h {path}; df -i {path}`)"),
        ));
    } else if facts.free_bytes < FREE_BYTES_MIN || facts.free_files == Some(0) {
        let what = if facts.free_files == Some(0) { "no inode".into() } else { human_bytes(facts.free_bytes) };
        found.push(Finding::fatal(
            format!("the file system of the data directory {path} has {what} left"),
            format!("free some space (`df -h {path}; df -i {path}`), or give another directory with --data-dir"),
        ));
    } else if facts.free_bytes < FREE_BYTES_LOW {
        found.push(Finding::warning(
            format!("only {} are left for {path}: appends are refused when it is full", human_bytes(facts.free_bytes)),
            format!("free some space (`df -h {path}`), or set retention.bytes on large topics"),
        ));
    }
    if facts.tmpfs {
        found.push(Finding::warning(
            format!("the data directory {path} lies in memory (tmpfs): nothing in it survives a reboot"),
            "give a directory on a disk with --data-dir (ext4 or xfs)",
        ));
    } else if !facts.direct_io {
        found.push(Finding::warning(
            format!("the file system of {path} has no direct I/O: writes pass through the page cache"),
            "give a directory on ext4 or xfs with --data-dir",
        ));
    }
}

/// Tries every address, so that a taken port is reported before recovery begins. Port 0 is always free.
pub fn check_ports(listen: &[SocketAddr]) -> Result<(), Finding> {
    let mut held = Vec::new();
    for address in listen {
        // All are held until the last is tried: an address given twice is found too.
        held.push(TcpListener::bind(address).map_err(|error| listen_failed(*address, &error))?);
    }
    Ok(())
}

/// As [`check_ports`], but waits for what a killed broker left in the kernel: its rings keep its listeners open until
/// its last write is done, and the lock of `data_dir` too. So ports that are in use are looked at again once nobody
/// has the directory, unless whoever has it lives.
pub fn wait_for_ports(listen: &[SocketAddr], data_dir: &Path) -> Result<(), Finding> {
    /// How long the last writes of a killed broker are waited for.
    const LOCK_WAIT: Duration = Duration::from_secs(10);
    /// How long the kernel may take to close the listeners when it has let go of the lock.
    const CLOSE_WAIT: Duration = Duration::from_millis(300);
    const RETRY: Duration = Duration::from_millis(10);
    let Err(finding) = check_ports(listen) else { return Ok(()) };
    let Ok(lock) = DataLock::acquire_within(data_dir, LOCK_WAIT) else { return Err(finding) };
    drop(lock);
    let start = Instant::now();
    loop {
        match check_ports(listen) {
            Err(_) if start.elapsed() < CLOSE_WAIT => sleep(RETRY),
            result => return result,
        }
    }
}

/// Why a shard could not listen on `address`.
pub fn listen_failed(address: SocketAddr, error: &io::Error) -> Finding {
    let port = address.port();
    match error.kind() {
        io::ErrorKind::AddrInUse => Finding::fatal(
            format!("{address} is in use by another process"),
            format!("`ss -ltnp 'sport = :{port}'` shows which; or --listen {}:{}", host_text(address), free_base(port)),
        ),
        io::ErrorKind::AddrNotAvailable => Finding::fatal(
            format!("{address} is not an address of this host"),
            format!("`ip address` lists them; or --listen 0.0.0.0:{port} with --advertise HOST:{port}"),
        ),
        io::ErrorKind::PermissionDenied => Finding::fatal(
            format!("this user may not listen on {address}"),
            format!("sudo sysctl -w net.ipv4.ip_unprivileged_port_start={port}, or a port above 1023"),
        ),
        _ => Finding::fatal(format!("cannot listen on {address}: {error}"), "give another address with --listen"),
    }
}

/// Why a ring could not be made.
pub fn ring_failed(error: &RingError) -> Finding {
    const LIMIT: &str =
        "ulimit -l unlimited (or LimitMEMLOCK=infinity in the unit), or --ring-entries 64 --ring-cq-entries 128";
    match error {
        RingError::Missing { kernel } => Finding::fatal(
            format!("this kernel ({kernel}) or sandbox has no io_uring"),
            "run on Linux 6.1 or newer; in a container: a runtime and a seccomp profile that allow io_uring",
        ),
        RingError::TooOld { kernel, missing } => Finding::fatal(
            format!("Linux {kernel} is too old: {missing} is missing"),
            "run on Linux 6.1 or newer (`uname -r` shows the running kernel)",
        ),
        RingError::DisabledBySysctl { value } => Finding::fatal(
            format!("io_uring is switched off on this host (kernel.io_uring_disabled = {value})"),
            "sudo sysctl -w kernel.io_uring_disabled=0",
        ),
        RingError::Forbidden => Finding::fatal(
            "io_uring is forbidden here, most likely by a container's seccomp profile",
            "run the container with --security-opt seccomp=unconfined, or with a profile that allows io_uring_setup, io_uring_enter and io_uring_register",
        ),
        RingError::Memlock { sq_entries, memlock } => Finding::fatal(
            format!("no ring of {sq_entries} entries fits into the limit on locked memory ({memlock})"),
            LIMIT,
        ),
        RingError::Other { step, source } => {
            let remedy = match source.raw_os_error() {
                Some(libc::EMFILE | libc::ENFILE) => "ulimit -n 65536",
                Some(libc::EINVAL) => "without the --ring-... options, or on a newer kernel",
                _ => "`dmesg | tail` may say more",
            };
            Finding::fatal(format!("the ring cannot be made: {step}: {source}"), remedy)
        }
    }
}

/// Why the data directory's lock could not be had.
pub fn lock_failed(error: &LockError) -> Finding {
    match error {
        LockError::Held { directory, pid } => Finding::fatal(
            format!("another ottla is running on the data directory {}", directory.display()),
            match pid {
                Some(pid) => format!("kill {pid} (`ps -fp {pid}` shows it), or give another directory with --data-dir"),
                None => "stop it, or give another directory with --data-dir".into(),
            },
        ),
        LockError::Io { path, source } => Finding::fatal(
            format!("the lock file {} cannot be made: {source}", path.display()),
            "give another directory with --data-dir, or mend its permissions",
        ),
    }
}

/// `6.1.0-13-amd64` is (6, 1).
fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn host_text(address: SocketAddr) -> String {
    if address.is_ipv6() { format!("[{}]", address.ip()) } else { address.ip().to_string() }
}

fn free_base(port: u16) -> u16 {
    port.checked_add(100).unwrap_or(9192)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> HostFacts {
        HostFacts {
            kernel_release: "6.18.3-generic".into(),
            io_uring_disabled: Some(0),
            privileged: false,
            memlock_bytes: u64::MAX,
            open_files: (1 << 20, 1 << 20),
            data_dir: DirectoryFacts {
                path: "data".into(),
                write_error: None,
                tmpfs: false,
                has_data: false,
                direct_io: true,
                free_bytes: 1 << 40,
                free_files: Some(1 << 20),
            },
        }
    }

    const NEEDS: Needs = Needs { shard_count: 2, ring_entries: 256, ring_cq_entries: 1024 };

    fn one(change: impl FnOnce(&mut HostFacts)) -> (Severity, String, String) {
        let mut facts = good();
        change(&mut facts);
        let found = findings(&facts, &NEEDS);
        assert_eq!(found.len(), 1, "{found:?}");
        let Finding { severity, cause, remedy } = found[0].clone();
        assert!(!cause.contains('\n') && !remedy.contains('\n') && !remedy.is_empty());
        (severity, cause, remedy)
    }

    #[test]
    fn a_good_host_has_no_findings() {
        assert_eq!(findings(&good(), &NEEDS), []);
    }

    #[test]
    fn each_obstacle_gives_one_line_with_cause_and_remedy() {
        use Severity::{Fatal, Warning};
        let check = |want: Severity, cause: &str, remedy: &str, change: &dyn Fn(&mut HostFacts)| {
            let found = one(|facts| change(facts));
            assert_eq!(found.0, want, "{found:?}");
            assert!(found.1.contains(cause) && found.2.contains(remedy), "{found:?}");
        };
        check(Fatal, "kernel is 5.15", "newer kernel", &|f| f.kernel_release = "5.15.0-91".into());
        check(Fatal, "io_uring_disabled = 2", "sysctl -w", &|f| f.io_uring_disabled = Some(2));
        check(Fatal, "io_uring_disabled = 1", "io_uring_group", &|f| f.io_uring_disabled = Some(1));
        check(Warning, "locked memory is 64.0 KiB", "ulimit -l", &|f| f.memlock_bytes = 65536);
        check(Warning, "only 1024 files", "hard limit", &|f| f.open_files = (1024, 1024));
        check(Fatal, "only 100 files", "ulimit -n 4096", &|f| f.open_files = (100, 4096));
        check(Fatal, "cannot be written", "chown", &|f| {
            f.data_dir.write_error = Some((io::ErrorKind::PermissionDenied, "denied".into()));
        });
        check(Fatal, "is full", "df -h", &|f| {
            f.data_dir.write_error = Some((io::ErrorKind::StorageFull, "full".into()));
        });
        check(Fatal, "read-only", "remount", &|f| {
            f.data_dir.write_error = Some((io::ErrorKind::ReadOnlyFilesystem, "ro".into()));
        });
        check(Fatal, "has 1.0 MiB left", "df -i", &|f| f.data_dir.free_bytes = 1 << 20);
        check(Fatal, "no inode left", "df -i", &|f| f.data_dir.free_files = Some(0));
        check(Warning, "appends are refused", "delete topics", &|f| {
            (f.data_dir.free_bytes, f.data_dir.has_data) = (0, true);
            f.data_dir.write_error = Some((std::io::ErrorKind::StorageFull, "no space".into()));
        });
        check(Warning, "only 100.0 MiB are left", "retention", &|f| f.data_dir.free_bytes = 100 << 20);
        check(Warning, "tmpfs", "ext4", &|f| f.data_dir.tmpfs = true);
        check(Warning, "no direct I/O", "xfs", &|f| f.data_dir.direct_io = false);
    }

    #[test]
    fn root_is_not_held_by_the_group_rule_nor_by_memlock() {
        let facts = HostFacts { io_uring_disabled: Some(1), privileged: true, memlock_bytes: 65536, ..good() };
        assert_eq!(findings(&facts, &NEEDS), []);
    }

    #[test]
    fn fatal_findings_come_first() {
        let mut facts = good();
        (facts.open_files, facts.kernel_release) = ((1024, 1024), "4.19.0".into());
        let severities: Vec<_> = findings(&facts, &NEEDS).iter().map(|f| f.severity).collect();
        assert_eq!(severities, [Severity::Fatal, Severity::Warning]);
    }

    #[test]
    fn ports_that_a_killed_broker_still_holds_are_waited_for() {
        // Lock and listener are let go by another thread, as the kernel does after kill -9; before that the lock file
        // names a process that lives, and nothing is waited for.
        let directory = tempfile::tempdir().unwrap();
        let lock = DataLock::acquire(directory.path()).unwrap();
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let own = std::fs::read_to_string(lock.path()).unwrap();
        std::fs::write(lock.path(), std::os::unix::process::parent_id().to_string()).unwrap();
        assert!(wait_for_ports(&[address], directory.path()).is_err());
        std::fs::write(lock.path(), own).unwrap();
        let holder = std::thread::spawn(move || {
            sleep(Duration::from_millis(50));
            drop(lock);
            drop(taken);
        });
        assert_eq!(wait_for_ports(&[address], directory.path()), Ok(()));
        holder.join().unwrap();
    }

    #[test]
    fn a_taken_port_names_the_command_that_shows_who_has_it() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let finding = check_ports(&[address]).unwrap_err();
        assert!(finding.cause.contains("in use") && finding.remedy.contains("ss -ltnp"), "{finding:?}");
        drop(taken);
        assert_eq!(check_ports(&[address]), Ok(()));
    }

    #[test]
    fn a_real_directory_is_created_probed_and_left_empty() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("a/b");
        let facts = gather_directory(&data);
        assert_eq!(facts.write_error, None);
        assert!(facts.free_bytes > 0);
        assert_eq!(std::fs::read_dir(&data).unwrap().count(), 0);
        let under_a_file = dir.path().join("file");
        std::fs::write(&under_a_file, "x").unwrap();
        assert!(gather_directory(&under_a_file.join("data")).write_error.is_some());
    }

    #[test]
    fn ring_errors_say_what_forbids_them() {
        let other = |errno| RingError::Other { step: "setting up", source: io::Error::from_raw_os_error(errno) };
        assert!(ring_failed(&RingError::Forbidden).remedy.contains("seccomp"));
        assert!(ring_failed(&RingError::Missing { kernel: "6.1".into() }).cause.contains("no io_uring"));
        assert!(ring_failed(&RingError::DisabledBySysctl { value: 2 }).remedy.contains("sysctl -w"));
        let memlock = RingError::Memlock { sq_entries: 8, memlock: "64 KiB".into() };
        assert!(ring_failed(&memlock).remedy.contains("ulimit -l"));
        assert!(ring_failed(&RingError::TooOld { kernel: "5.15".into(), missing: "x" }).remedy.contains("6.1"));
        assert!(ring_failed(&other(libc::EMFILE)).remedy.contains("ulimit -n"));
    }
}
