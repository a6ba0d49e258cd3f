//! What a user may choose about the ring: the values behind `--ring-…`.

/// Submission by a kernel thread instead of a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubmissionPolling {
    /// The kernel thread sleeps after so many milliseconds without work.
    pub idle_ms: u32,
    /// The CPU it is pinned to.
    pub cpu: Option<u32>,
}

/// How a ring is set up. The defaults are the measured best on the hosts we know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingOptions {
    /// Entries of the submission queue; more than this are handed over in several system calls.
    pub sq_entries: u32,
    /// Entries of the completion queue; the kernel keeps what overflows, at a cost.
    pub cq_entries: u32,
    /// Promise the kernel that one thread submits (`IORING_SETUP_SINGLE_ISSUER`).
    pub single_issuer: bool,
    /// Run completion work only when the shard asks for it (`IORING_SETUP_DEFER_TASKRUN`, needs `single_issuer`).
    pub defer_taskrun: bool,
    /// Do not interrupt the shard for completion work (`IORING_SETUP_COOP_TASKRUN`).
    pub coop_taskrun: bool,
    /// Submission by a kernel thread; switches `defer_taskrun` and `coop_taskrun` off, which exclude it.
    pub sqpoll: Option<SubmissionPolling>,
    /// Register files and sockets with the ring, so that the kernel need not look them up at each operation.
    pub fixed_files: bool,
    /// Bytes of the shard's memory that are registered with the ring, so that the kernel need not look up and pin pages
    /// at each read and write of a file; 0: none. They are locked, and there from the start.
    pub registered_buffer_bytes: usize,
    /// Ask for huge pages for the shard's memory (`MADV_HUGEPAGE`). Where the kernel has none to give at once it may
    /// move memory about first, as `/sys/kernel/mm/transparent_hugepage/defrag` says.
    pub huge_pages: bool,
    /// Microseconds of looking for completions before sleeping; 0: sleep at once, an idle shard uses no CPU.
    pub spin_us: u32,
    /// Kernel workers for files and block devices at a time (fsync, fallocate, open, rename); 0: the kernel's own
    /// bound.
    pub worker_bounded_max: u32,
    /// Kernel workers for everything else, here splices, at a time, and so the number of pipes; 0: the kernel's own
    /// bound and the pipes of the default.
    pub worker_unbounded_max: u32,
    /// CPUs for the kernel workers; `None`: those of the shard.
    pub worker_cpus: Option<Vec<usize>>,
    /// Sends of at least so many bytes are zero-copy sends; `None`: never. On loopback the kernel copies anyway.
    /// They complete when the receiver has acknowledged them, exclude `sqpoll` and `fixed_files`, and after a kill
    /// hold the data lock until their connections have ended. Cancelling one that has begun resets its connection.
    pub send_zero_copy_min_bytes: Option<usize>,
}

/// Enough for the splices of one core, few enough for stopped receivers not to fill the host with threads.
pub(super) const WORKER_UNBOUNDED_DEFAULT: u32 = 8;

/// A submission entry, its index and a completion entry, and what each of the two mappings has besides: the rings
/// are charged to the user's memlock limit in pages.
const SQ_ENTRY_BYTES: u64 = 64;
const SQ_INDEX_BYTES: u64 = 4;
const CQ_ENTRY_BYTES: u64 = 16;
const RING_HEADER_BYTES: u64 = 320;
const PAGE_BYTES: u64 = 4096;
/// Halving ends here.
const FITTED_SQ_ENTRIES_MIN: u32 = 32;

impl RingOptions {
    /// Fewer entries, as far as needed for `ring_count` such rings to fit into `memlock_bytes`, which all rings of a
    /// user share: without this the first shards would take what the last ones need. `None`: no limit applies, see
    /// [`capabilities::memlock_bytes`](super::capabilities::memlock_bytes). Eight rings fit into 64 KiB.
    pub fn within_memlock(mut self, ring_count: usize, memlock_bytes: Option<u64>) -> RingOptions {
        let Some(limit) = memlock_bytes else { return self };
        while self.charged_bytes() * ring_count as u64 > limit && self.sq_entries > FITTED_SQ_ENTRIES_MIN {
            self.sq_entries /= 2;
            self.cq_entries = (self.cq_entries / 2).max(2 * self.sq_entries);
        }
        self
    }

    /// Locked memory that one such ring is charged.
    pub fn charged_bytes(&self) -> u64 {
        let sq = u64::from(self.sq_entries.next_power_of_two());
        let cq = u64::from(self.cq_entries.next_power_of_two());
        let pages = |bytes: u64| bytes.next_multiple_of(PAGE_BYTES);
        pages(sq * SQ_ENTRY_BYTES) + pages(RING_HEADER_BYTES + sq * SQ_INDEX_BYTES + cq * CQ_ENTRY_BYTES)
    }
}

impl Default for RingOptions {
    fn default() -> RingOptions {
        RingOptions {
            sq_entries: 256,
            cq_entries: 1024,
            single_issuer: true,
            defer_taskrun: true,
            coop_taskrun: true,
            sqpoll: None,
            fixed_files: false,
            registered_buffer_bytes: 0,
            huge_pages: true,
            spin_us: 0,
            worker_bounded_max: 16,
            worker_unbounded_max: WORKER_UNBOUNDED_DEFAULT,
            worker_cpus: None,
            send_zero_copy_min_bytes: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_rings_fit_into_64_kib_and_one_is_left_alone_without_a_limit() {
        let fitted = RingOptions::default().within_memlock(8, Some(64 * 1024));
        assert!(8 * fitted.charged_bytes() <= 64 * 1024, "{fitted:?}");
        assert_eq!(RingOptions::default().within_memlock(8, None), RingOptions::default());
        assert_eq!(RingOptions::default().within_memlock(1, Some(64 * 1024)), RingOptions::default());
    }
}
