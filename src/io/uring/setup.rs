//! Setting a ring up: the options that this kernel and these limits allow, and a plain word about the others.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use io_uring::{IoUring, Parameters, Probe, opcode};

use super::capabilities::{KernelVersion, kernel_version};
use super::lock::DataLock;
use super::options::RingOptions;
use crate::base::units::human_bytes;
use crate::io::buffer::SIZE_MAX_BYTES;
use crate::io::{Pool, PoolOptions};

/// Below this a ring is of no use.
const SQ_ENTRIES_MIN: u32 = 8;
/// The kernel gives a closed ring's memory back a little later: a broker that was just stopped may still be charged.
const TEAR_DOWN_WAIT: Duration = Duration::from_secs(1);
const TEAR_DOWN_RETRY: Duration = Duration::from_millis(20);
/// The greatest table of registered files: above it descriptors are used plainly.
const FIXED_FILE_COUNT_MAX: u32 = 16 * 1024;

/// The greatest piece of memory that can be registered as one buffer.
pub(super) const REGISTERED_PIECE_BYTES: usize = 1 << 30;

/// Why there is no ring, and what mends it. Each is the operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// The kernel has no io_uring.
    #[error("this kernel ({kernel}) has no io_uring: run Linux 6.1 or newer with CONFIG_IO_URING=y")]
    Missing {
        /// The running kernel.
        kernel: String,
    },
    /// The kernel is older than what the ring needs.
    #[error("Linux {kernel} is too old for this ring ({missing} is missing): run Linux 6.1 or newer")]
    TooOld {
        /// The running kernel.
        kernel: String,
        /// What it lacks.
        missing: &'static str,
    },
    /// A sysctl forbids it.
    #[error(
        "io_uring is switched off by kernel.io_uring_disabled={value}: run `sudo sysctl -w kernel.io_uring_disabled=0`"
    )]
    DisabledBySysctl {
        /// 1: allowed to a group and to administrators only; 2: forbidden to all.
        value: u32,
    },
    /// Something else forbids it: seccomp in most containers.
    #[error(
        "io_uring is forbidden here, most likely by a container's seccomp profile: run the container with \
         `--security-opt seccomp=unconfined`, or with a profile that allows the io_uring system calls"
    )]
    Forbidden,
    /// No memory, or too little of it may be locked.
    #[error(
        "no memory for a ring of {sq_entries} entries (memlock limit: {memlock}): run `ulimit -l unlimited`, or set \
         LimitMEMLOCK=infinity in the service"
    )]
    Memlock {
        /// The smallest ring that was tried.
        sq_entries: u32,
        /// The limit for people, such as `64 KiB`.
        memlock: String,
    },
    /// Anything else.
    #[error("cannot set up the ring: {step}: {source}")]
    Other {
        /// What was being done.
        step: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// What the ring got, for the start-up summary and for preflight.
#[derive(Clone, Debug)]
pub struct RingReport {
    /// The running kernel's release.
    pub kernel: String,
    /// Entries of the submission queue.
    pub sq_entries: u32,
    /// Entries of the completion queue.
    pub cq_entries: u32,
    /// Set-up flags in force.
    pub flags: Vec<&'static str>,
    /// Operations that this kernel lacks and that are done by other means.
    pub missing: Vec<&'static str>,
    /// Options that are not in force, each with its reason.
    pub fallbacks: Vec<String>,
    /// Files that can be registered with the ring; 0: none are.
    pub fixed_file_count: u32,
    /// Bytes of buffers that are registered with the ring.
    pub registered_buffer_bytes: usize,
    /// Microseconds of looking for completions before sleeping.
    pub spin_us: u32,
    /// The CPUs of the kernel's workers, if they are not the shard's.
    pub worker_cpus: Option<Vec<usize>>,
    /// Kernel workers for file operations and for others; 0: the kernel's own bound.
    pub workers: [u32; 2],
    /// Sends of at least so many bytes are zero-copy sends.
    pub zero_copy_min_bytes: Option<usize>,
    /// The data directory's lock lives as long as this ring's last write.
    pub holds_data_lock: bool,
    /// Zero-copy sends are available.
    pub send_zero_copy: bool,
    /// Files are truncated on the ring and not by a system call.
    pub truncate_on_ring: bool,
}

impl fmt::Display for RingReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ring of {}/{} entries, {}", self.sq_entries, self.cq_entries, self.flags.join(" "))?;
        if self.fixed_file_count > 0 {
            write!(f, ", {} fixed files", self.fixed_file_count)?;
        }
        if self.registered_buffer_bytes > 0 {
            write!(f, ", {} of registered buffers", human_bytes(self.registered_buffer_bytes as u64))?;
        }
        if self.spin_us > 0 {
            write!(f, ", spins for {} us", self.spin_us)?;
        }
        if self.workers != [0, 0] {
            let [bounded, unbounded] =
                self.workers.map(|count| if count == 0 { "any".into() } else { count.to_string() });
            write!(f, ", {bounded}+{unbounded} kernel workers")?;
        }
        if let Some(cpus) = &self.worker_cpus {
            let cpus: Vec<String> = cpus.iter().map(usize::to_string).collect();
            write!(f, " on CPUs {}", cpus.join(","))?;
        }
        if let Some(bytes) = self.zero_copy_min_bytes {
            write!(f, ", zero-copy sends from {}", human_bytes(bytes as u64))?;
        }
        for fallback in &self.fallbacks {
            write!(f, "; {fallback}")?;
        }
        write!(f, " (Linux {})", self.kernel)
    }
}

/// The set-up flags that may be dropped, in the order of dropping.
#[derive(Clone, Copy)]
struct Flags {
    defer_taskrun: bool,
    coop_taskrun: bool,
    single_issuer: bool,
}

/// A ring as asked for, or as near to it as the host allows.
pub(super) fn set_up(options: &RingOptions, lock: Option<&DataLock>) -> Result<(IoUring, RingReport), RingError> {
    let kernel = kernel_version();
    let mut fallbacks = Vec::new();
    let (ring, flags) = build(options, &kernel, &mut fallbacks)?;
    let parameters = ring.params();
    require(parameters, &kernel)?;
    let mut report = RingReport {
        kernel: kernel.release.clone(),
        sq_entries: parameters.sq_entries(),
        cq_entries: parameters.cq_entries(),
        flags,
        missing: Vec::new(),
        fallbacks,
        fixed_file_count: 0,
        registered_buffer_bytes: 0,
        spin_us: options.spin_us,
        workers: [0, 0],
        worker_cpus: None,
        zero_copy_min_bytes: None,
        holds_data_lock: false,
        send_zero_copy: false,
        truncate_on_ring: false,
    };
    probe(&ring, &kernel, &mut report)?;
    if options.send_zero_copy_min_bytes.is_some() && !report.send_zero_copy {
        report.fallbacks.push("no zero-copy sends: this kernel lacks the operation".to_owned());
    }
    register_files(&ring, options, lock, &mut report)?;
    if options.send_zero_copy_min_bytes.is_some() && (options.sqpoll.is_some() || report.fixed_file_count > 0) {
        // A zero-copy send to a stopped receiver ends when its socket is closed. The polling thread shares the
        // process's descriptors and the ring's own table keeps registered ones, so after a kill neither would ever
        // close, and the ring, with the data lock, would never go.
        report.send_zero_copy = false;
        report.fallbacks.push("no zero-copy sends: SQPOLL and fixed files exclude them".to_owned());
    }
    report.zero_copy_min_bytes = options.send_zero_copy_min_bytes.filter(|_| report.send_zero_copy);
    bound_workers(&ring, options, &mut report);
    Ok((ring, report))
}

fn build(
    options: &RingOptions,
    kernel: &KernelVersion,
    fallbacks: &mut Vec<String>,
) -> Result<(IoUring, Vec<&'static str>), RingError> {
    let polled = options.sqpoll.is_some();
    if polled && (options.defer_taskrun || options.coop_taskrun) {
        fallbacks.push("no DEFER_TASKRUN and COOP_TASKRUN: SQPOLL excludes them".to_owned());
    }
    let mut flags = Flags {
        defer_taskrun: options.defer_taskrun && options.single_issuer && !polled,
        coop_taskrun: options.coop_taskrun && !polled,
        single_issuer: options.single_issuer,
    };
    if options.defer_taskrun && !options.single_issuer && !polled {
        fallbacks.push("no DEFER_TASKRUN: it needs SINGLE_ISSUER".to_owned());
    }
    let start = Instant::now();
    let mut sq_entries = options.sq_entries.max(1);
    let mut cq_entries = options.cq_entries.max(sq_entries);
    loop {
        let error = match build_once(options, flags, sq_entries, cq_entries) {
            Ok(ring) => return Ok((ring, flag_names(options, flags))),
            Err(error) => error,
        };
        match error.raw_os_error() {
            Some(libc::EINVAL) if flags.defer_taskrun => {
                flags.defer_taskrun = false;
                fallbacks.push("no DEFER_TASKRUN: this kernel refuses it".to_owned());
            }
            Some(libc::EINVAL) if flags.single_issuer => {
                flags.single_issuer = false;
                fallbacks.push("no SINGLE_ISSUER: this kernel refuses it".to_owned());
            }
            Some(libc::EINVAL) if flags.coop_taskrun => {
                flags.coop_taskrun = false;
                fallbacks.push("no COOP_TASKRUN: this kernel refuses it".to_owned());
            }
            Some(libc::ENOMEM) if sq_entries > SQ_ENTRIES_MIN => {
                sq_entries = (sq_entries / 2).max(SQ_ENTRIES_MIN);
                cq_entries = (cq_entries / 2).max(2 * sq_entries);
                // One line for all halvings.
                fallbacks.retain(|line| !line.starts_with("fewer entries"));
                fallbacks.push(format!(
                    "fewer entries ({sq_entries}/{cq_entries}): memlock is limited to {}",
                    memlock_limit()
                ));
            }
            Some(libc::ENOMEM) if start.elapsed() < TEAR_DOWN_WAIT => std::thread::sleep(TEAR_DOWN_RETRY),
            _ => return Err(refusal(error, kernel, sq_entries)),
        }
    }
}

fn build_once(options: &RingOptions, flags: Flags, sq_entries: u32, cq_entries: u32) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder.dontfork().setup_clamp().setup_submit_all().setup_cqsize(cq_entries);
    if flags.single_issuer {
        builder.setup_single_issuer();
    }
    if flags.coop_taskrun {
        builder.setup_coop_taskrun();
    }
    if flags.defer_taskrun {
        builder.setup_defer_taskrun();
    }
    if flags.coop_taskrun || flags.defer_taskrun {
        // Tells without a system call whether one would find completions.
        builder.setup_taskrun_flag();
    }
    if let Some(polling) = options.sqpoll {
        builder.setup_sqpoll(polling.idle_ms);
        if let Some(cpu) = polling.cpu {
            builder.setup_sqpoll_cpu(cpu);
        }
    }
    builder.build(sq_entries)
}

fn flag_names(options: &RingOptions, flags: Flags) -> Vec<&'static str> {
    let all = [
        (flags.single_issuer, "SINGLE_ISSUER"),
        (flags.defer_taskrun, "DEFER_TASKRUN"),
        (flags.coop_taskrun, "COOP_TASKRUN"),
        (options.sqpoll.is_some(), "SQPOLL"),
    ];
    all.into_iter().filter(|(on, _)| *on).map(|(_, name)| name).collect()
}

fn refusal(error: io::Error, kernel: &KernelVersion, sq_entries: u32) -> RingError {
    match error.raw_os_error() {
        Some(libc::ENOSYS) => RingError::Missing { kernel: kernel.release.clone() },
        Some(libc::EPERM | libc::EACCES) => match disabled_by_sysctl() {
            Some(value) if value > 0 => RingError::DisabledBySysctl { value },
            _ => RingError::Forbidden,
        },
        Some(libc::ENOMEM) => RingError::Memlock { sq_entries, memlock: memlock_limit() },
        _ => RingError::Other { step: "io_uring_setup", source: error },
    }
}

fn disabled_by_sysctl() -> Option<u32> {
    std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?.trim().parse().ok()
}

fn memlock_limit() -> String {
    match nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_MEMLOCK) {
        Ok((libc::RLIM_INFINITY, _)) => "unlimited".to_owned(),
        Ok((soft, _)) => human_bytes(soft),
        Err(errno) => errno.to_string(),
    }
}

/// What every kernel that we support has.
fn require(parameters: &Parameters, kernel: &KernelVersion) -> Result<(), RingError> {
    let needed = [
        (parameters.is_feature_nodrop(), "IORING_FEAT_NODROP"),
        (parameters.is_feature_ext_arg(), "IORING_FEAT_EXT_ARG"),
        (parameters.is_feature_submit_stable(), "IORING_FEAT_SUBMIT_STABLE"),
        (parameters.is_feature_fast_poll(), "IORING_FEAT_FAST_POLL"),
        (parameters.is_feature_rw_cur_pos(), "IORING_FEAT_RW_CUR_POS"),
    ];
    match needed.into_iter().find(|(there, _)| !there) {
        Some((_, missing)) => Err(RingError::TooOld { kernel: kernel.release.clone(), missing }),
        None => Ok(()),
    }
}

fn probe(ring: &IoUring, kernel: &KernelVersion, report: &mut RingReport) -> Result<(), RingError> {
    let mut probe = Probe::new();
    let probed = ring.submitter().register_probe(&mut probe);
    probed.map_err(|source| RingError::Other { step: "probing its operations", source })?;
    let needed = [
        (opcode::AcceptMulti::CODE, "accept"),
        (opcode::AsyncCancel::CODE, "cancel"),
        (opcode::Close::CODE, "close"),
        (opcode::Connect::CODE, "connect"),
        (opcode::Fadvise::CODE, "fadvise"),
        (opcode::Fallocate::CODE, "fallocate"),
        (opcode::Fsync::CODE, "fsync"),
        (opcode::MkDirAt::CODE, "mkdirat"),
        (opcode::OpenAt::CODE, "openat"),
        (opcode::PollAdd::CODE, "poll"),
        (opcode::Read::CODE, "read"),
        (opcode::ReadFixed::CODE, "read_fixed"),
        (opcode::Recv::CODE, "recv"),
        (opcode::RenameAt::CODE, "renameat"),
        (opcode::Send::CODE, "send"),
        (opcode::SendMsg::CODE, "sendmsg"),
        (opcode::Splice::CODE, "splice"),
        (opcode::UnlinkAt::CODE, "unlinkat"),
        (opcode::Write::CODE, "write"),
        (opcode::WriteFixed::CODE, "write_fixed"),
    ];
    if let Some((_, missing)) = needed.into_iter().find(|(code, _)| !probe.is_supported(*code)) {
        return Err(RingError::TooOld { kernel: kernel.release.clone(), missing });
    }
    report.truncate_on_ring = probe.is_supported(opcode::Ftruncate::CODE);
    report.send_zero_copy = probe.is_supported(opcode::SendZc::CODE) && probe.is_supported(opcode::SendMsgZc::CODE);
    let optional = [(report.truncate_on_ring, "ftruncate"), (report.send_zero_copy, "send_zc")];
    report.missing = optional.into_iter().filter(|(there, _)| !there).map(|(_, name)| name).collect();
    Ok(())
}

fn register_files(
    ring: &IoUring,
    options: &RingOptions,
    lock: Option<&DataLock>,
    report: &mut RingReport,
) -> Result<(), RingError> {
    let failed = |source| RingError::Other { step: "registering the data directory's lock", source };
    if options.fixed_files {
        let limit = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE);
        let limit = limit.map_or(1024, |(soft, _)| u32::try_from(soft).unwrap_or(u32::MAX));
        let count = limit.clamp(2, FIXED_FILE_COUNT_MAX);
        match ring.submitter().register_files_sparse(count) {
            Ok(()) => {
                // The first is the lock's.
                report.fixed_file_count = count - 1;
                if let Some(lock) = lock {
                    ring.submitter().register_files_update(0, &[lock.fd()]).map_err(failed)?;
                    report.holds_data_lock = true;
                }
                return Ok(());
            }
            Err(error) => report.fallbacks.push(format!("no fixed files: {error}")),
        }
    }
    if let Some(lock) = lock {
        ring.submitter().register_files(&[lock.fd()]).map_err(failed)?;
        report.holds_data_lock = true;
    }
    Ok(())
}

/// A pool of `budget_bytes`, part of it registered if that was asked for and is allowed.
pub(super) fn make_pool(ring: &IoUring, options: &RingOptions, budget_bytes: usize, report: &mut RingReport) -> Pool {
    let without_arena = PoolOptions { budget_bytes, arena_bytes: 0, huge_pages: options.huge_pages };
    if options.registered_buffer_bytes == 0 {
        return Pool::with(without_arena);
    }
    let arena_bytes = options.registered_buffer_bytes.max(SIZE_MAX_BYTES);
    let pool = Pool::with(PoolOptions { arena_bytes, ..without_arena });
    let Some((start, size)) = pool.arena() else {
        report.fallbacks.push(format!(
            "no registered buffers: a budget of {} has no room for {}, or the kernel has no memory to map",
            human_bytes(budget_bytes as u64),
            human_bytes(arena_bytes as u64)
        ));
        return pool;
    };
    let pieces: Vec<libc::iovec> = (0..size)
        .step_by(REGISTERED_PIECE_BYTES)
        .map(|from| libc::iovec {
            iov_base: std::ptr::with_exposed_provenance_mut(start + from),
            iov_len: (size - from).min(REGISTERED_PIECE_BYTES),
        })
        .collect();
    // SAFETY: the arena lives as long as the pool, which the ring owns and drops after its last operation; the kernel
    // keeps the pages by itself, and uses them only for operations that name them.
    match unsafe { ring.submitter().register_buffers(&pieces) } {
        Ok(()) => {
            report.registered_buffer_bytes = size;
            pool
        }
        Err(error) => {
            let cause = match error.raw_os_error() {
                Some(libc::ENOMEM) => format!("memlock is limited to {}", memlock_limit()),
                _ => error.to_string(),
            };
            report.fallbacks.push(format!("no registered buffers: {cause}"));
            Pool::with(without_arena)
        }
    }
}

fn bound_workers(ring: &IoUring, options: &RingOptions, report: &mut RingReport) {
    // Zero leaves the kernel's own bound.
    let mut bounds = [options.worker_bounded_max, options.worker_unbounded_max];
    match ring.submitter().register_iowq_max_workers(&mut bounds) {
        Ok(()) => report.workers = [options.worker_bounded_max, options.worker_unbounded_max],
        Err(error) => report.fallbacks.push(format!("no bound on kernel workers: {error}")),
    }
    let Some(cpus) = &options.worker_cpus else { return };
    // SAFETY: an all-zero set is an empty one.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for &cpu in cpus.iter().filter(|&&cpu| cpu < libc::CPU_SETSIZE as usize) {
        // SAFETY: the index lies within the set.
        unsafe { libc::CPU_SET(cpu, &mut set) };
    }
    match ring.submitter().register_iowq_aff(&set) {
        Ok(()) => report.worker_cpus = Some(cpus.clone()),
        Err(error) => report.fallbacks.push(format!("kernel workers are not pinned: {error}")),
    }
}
