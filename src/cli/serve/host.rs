//! Facts about this host that options depend on: usable CPUs, usable memory and its name.

use crate::tune;

/// CPUs that this process may use: the affinity mask, cut by the cgroups' quotas; at least 1. A shard that the quota
/// stops in the middle of a turn stalls all its clients, so a broken CPU does not count.
pub fn usable_cpu_count() -> usize {
    let affinity = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0))
        .map(|set| (0..nix::sched::CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).count())
        .ok()
        .filter(|count| *count > 0)
        .or_else(|| std::thread::available_parallelism().ok().map(usize::from))
        .unwrap_or(1);
    let quota = tune::cpu_quota_permille().map_or(usize::MAX, |permille| (permille / 1000) as usize);
    affinity.min(quota).max(1)
}

/// Bytes of memory that this process may use: the machine's, or less if its cgroups say so. `None` where neither is
/// told.
pub fn usable_memory_bytes() -> Option<u64> {
    tune::memory_bytes()
}

/// This host's name, or `localhost`.
pub fn host_name() -> String {
    nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_else(|| "localhost".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_cpu_and_memory_here() {
        assert!(usable_cpu_count() >= 1);
        assert!(usable_memory_bytes().is_none_or(|bytes| bytes > 1 << 20));
    }
}
