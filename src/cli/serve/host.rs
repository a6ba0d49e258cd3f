//! Facts about this host that options depend on: usable CPUs and its name.

use std::path::Path;

/// CPUs that this process may use: the affinity mask, cut by the cgroups' quotas; at least 1.
pub fn usable_cpu_count() -> usize {
    let affinity = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0))
        .map(|set| (0..nix::sched::CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).count())
        .ok()
        .filter(|count| *count > 0)
        .or_else(|| std::thread::available_parallelism().ok().map(usize::from))
        .unwrap_or(1);
    affinity.min(cgroup_cpu_count(Path::new("/")).unwrap_or(usize::MAX)).max(1)
}

/// This host's name, or `localhost`.
pub fn host_name() -> String {
    nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_else(|| "localhost".into())
}

/// The whole CPUs that the quotas of this process's cgroup and its ancestors leave, under `root`. A shard that the
/// quota stops in the middle of a turn stalls all its clients, so a broken CPU does not count.
fn cgroup_cpu_count(root: &Path) -> Option<usize> {
    let membership = std::fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let mut least: Option<usize> = None;
    for line in membership.lines() {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let version_2 = controllers.is_empty();
        if !version_2 && !controllers.split(',').any(|name| name == "cpu") {
            continue;
        }
        let base = root.join(if version_2 { "sys/fs/cgroup" } else { "sys/fs/cgroup/cpu" });
        let mut group = path.trim_start_matches('/');
        loop {
            let quota = if version_2 {
                std::fs::read_to_string(base.join(group).join("cpu.max")).ok().and_then(|text| whole_cpus(&text))
            } else {
                let read = |name| std::fs::read_to_string(base.join(group).join(name)).ok();
                read("cpu.cfs_quota_us")
                    .zip(read("cpu.cfs_period_us"))
                    .and_then(|(quota, period)| whole_cpus(&format!("{} {}", quota.trim(), period.trim())))
            };
            least = least.into_iter().chain(quota).min();
            match group.rsplit_once('/') {
                Some((parent, _)) => group = parent,
                None if group.is_empty() => break,
                None => group = "",
            }
        }
    }
    least
}

/// `200000 100000` is 2; `max 100000` and version 1's `-1 100000` are no bound.
fn whole_cpus(text: &str) -> Option<usize> {
    let mut fields = text.split_whitespace();
    let quota: u64 = fields.next()?.parse().ok()?;
    let period: u64 = fields.next()?.parse().ok().filter(|period| *period > 0)?;
    Some(usize::try_from(quota / period).unwrap_or(usize::MAX).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_are_rounded_down_to_whole_cpus_but_never_to_none() {
        assert_eq!(whole_cpus("250000 100000\n"), Some(2));
        assert_eq!(whole_cpus("50000 100000\n"), Some(1));
        assert_eq!(whole_cpus("max 100000\n"), None);
        assert_eq!(whole_cpus("-1 100000"), None);
    }

    #[test]
    fn the_strictest_ancestor_decides() {
        // A tree of version 2 where the parent allows less than the group itself.
        let dir = tempfile::tempdir().unwrap();
        let group = dir.path().join("sys/fs/cgroup/a/b");
        std::fs::create_dir_all(&group).unwrap();
        std::fs::create_dir_all(dir.path().join("proc/self")).unwrap();
        std::fs::write(dir.path().join("proc/self/cgroup"), "0::/a/b\n").unwrap();
        std::fs::write(group.join("cpu.max"), "400000 100000\n").unwrap();
        std::fs::write(group.parent().unwrap().join("cpu.max"), "300000 100000\n").unwrap();
        assert_eq!(cgroup_cpu_count(dir.path()), Some(3));
        std::fs::write(dir.path().join("proc/self/cgroup"), "4:cpu,cpuacct:/x\n").unwrap();
        assert_eq!(cgroup_cpu_count(dir.path()), None);
        assert!(usable_cpu_count() >= 1);
    }
}
