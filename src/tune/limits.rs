//! Limits of the user or service that the broker runs as.

use nix::sys::resource::{Resource, getrlimit};

use super::Needs;
use super::finding::{Finding, Line};
use crate::base::units::human_bytes;
use crate::io::uring::capabilities::memlock_bytes;

/// What everybody gets from systemd since version 240, and enough for tens of thousands of partitions.
const OPEN_FILES_OK: u64 = 100_000;
/// A partition takes up to four descriptors and a connection one.
const OPEN_FILES_LOW: u64 = 16 * 1024;
/// A broker of one topic and a few clients.
const OPEN_FILES_MIN: u64 = 256;
/// Kernel workers of a ring are threads of its process's user.
const PROCESSES_PER_SHARD: u64 = 64;

/// The limits of this process, which the broker gets too if it is started from the same shell.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Bytes that may be locked; `None`: no limit applies.
    pub memlock_bytes: Option<u64>,
    /// Soft and hard limit on open files.
    pub open_files: Option<(u64, u64)>,
    /// Soft limit on processes and threads of the user.
    pub processes: Option<u64>,
    /// Limits on processes do not bind root.
    pub privileged: bool,
}

/// Reads them.
pub fn read() -> Facts {
    Facts {
        memlock_bytes: memlock_bytes(),
        open_files: getrlimit(Resource::RLIMIT_NOFILE).ok(),
        processes: getrlimit(Resource::RLIMIT_NPROC).ok().map(|(soft, _)| soft),
        privileged: nix::unistd::geteuid().is_root(),
    }
}

/// Judges them.
pub fn check(facts: &Facts, needs: &Needs) -> Vec<Finding> {
    vec![memlock(facts, needs), open_files(facts), processes(facts, needs)]
}

fn memlock(facts: &Facts, needs: &Needs) -> Finding {
    let needed = needs.ring.charged_bytes() * needs.shard_count as u64;
    let line = Line::new(
        "locked memory",
        "the memory of all rings of a user is charged to this limit; what does not fit makes rings smaller, and \
         smaller rings need more system calls",
    );
    let recommended = format!("{} for {} rings, or no limit", human_bytes(needed), needs.shard_count);
    match facts.memlock_bytes {
        None => line.ok("no limit applies", recommended),
        // Two brokers, or one and a load generator, on a host.
        Some(bytes) if bytes >= 2 * needed => line.ok(human_bytes(bytes), recommended),
        Some(bytes) if bytes >= needed => line.note(human_bytes(bytes), format!("twice {}", human_bytes(needed))),
        Some(bytes) => line
            .warn(human_bytes(bytes), recommended)
            .by_hand("LimitMEMLOCK=infinity in the service, or `memlock` in a file of /etc/security/limits.d"),
    }
}

fn open_files(facts: &Facts) -> Finding {
    let line = Line::new(
        "open files",
        "a partition takes up to four descriptors and a connection one; the broker raises the soft limit to the hard \
         one by itself",
    );
    let Some((soft, hard)) = facts.open_files else {
        return line.is(super::finding::Severity::Unknown, "not read", "1048576");
    };
    let (current, best) = (format!("{soft} (hard {hard})"), soft.max(hard));
    let remedy = "LimitNOFILE=1048576 in the service, or `nofile` in a file of /etc/security/limits.d";
    match best {
        n if n >= OPEN_FILES_OK => line.ok(current, "hard limit of 100000 or more"),
        n if n >= OPEN_FILES_LOW => line.note(current, "hard limit of 1048576").by_hand(remedy),
        n if n >= OPEN_FILES_MIN => line.warn(current, "hard limit of 1048576").by_hand(remedy),
        _ => line.bad(current, "hard limit of 1048576").by_hand(remedy),
    }
}

fn processes(facts: &Facts, needs: &Needs) -> Finding {
    let needed = PROCESSES_PER_SHARD * needs.shard_count as u64;
    let line = Line::new(
        "processes",
        "the rings' kernel workers count as threads of the user: at the limit, work that cannot be done at once waits",
    );
    let recommended = format!("{needed} or more");
    match facts.processes {
        None => line.is(super::finding::Severity::Unknown, "not read", recommended),
        _ if facts.privileged => line.ok("does not bind root", recommended),
        Some(libc::RLIM_INFINITY) => line.ok("no limit", recommended),
        Some(count) if count >= needed => line.ok(count.to_string(), recommended),
        Some(count) => line.warn(count.to_string(), recommended).by_hand("LimitNPROC= in the service, or `nproc`"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity::{self, Bad, Note, Ok, Warn};
    use super::*;

    fn needs(shard_count: usize) -> Needs {
        Needs { shard_count, ..Needs::default() }
    }

    fn facts() -> Facts {
        Facts { memlock_bytes: None, open_files: Some((1024, 524_288)), processes: Some(4096), privileged: false }
    }

    #[test]
    fn rings_are_held_against_the_memory_that_may_be_locked() {
        let of = |bytes, shards| memlock(&Facts { memlock_bytes: bytes, ..facts() }, &needs(shards)).severity;
        assert_eq!(of(None, 8), Ok);
        assert_eq!(of(Some(8 << 20), 8), Ok);
        assert_eq!(of(Some(64 << 10), 1), Note);
        assert_eq!(of(Some(64 << 10), 8), Warn);
    }

    #[test]
    fn the_hard_limit_of_open_files_decides() {
        let of = |limits| open_files(&Facts { open_files: Some(limits), ..facts() }).severity;
        let expected: [((u64, u64), Severity); 4] =
            [((1024, 524_288), Ok), ((1024, 20_000), Note), ((1024, 4096), Warn), ((64, 128), Bad)];
        for (limits, severity) in expected {
            assert_eq!(of(limits), severity, "{limits:?}");
        }
    }

    #[test]
    fn kernel_workers_count_as_processes() {
        assert_eq!(processes(&facts(), &needs(2)).severity, Ok);
        assert_eq!(processes(&Facts { processes: Some(100), ..facts() }, &needs(2)).severity, Warn);
        assert_eq!(processes(&Facts { processes: Some(100), privileged: true, ..facts() }, &needs(2)).severity, Ok);
    }
}
