//! What the control groups of this process leave it: the strictest of its own group and all above it.
//!
//! Knows both versions, also mixed. In a container the path of the group often does not exist below its mount; the
//! mount's own top, which is the container's group, is then what is found.

use super::Needs;
use super::finding::{Finding, Line};
use super::reading::{Reading, Root};
use crate::base::units::{MIB, human_bytes};

/// Beside the shards' budgets: sockets and page cache are charged to the group too.
const OTHER_BYTES: u64 = 512 * MIB as u64;
/// Version 1 writes the greatest number of pages for "no limit".
const NO_LIMIT_BYTES: u64 = 1 << 60;

/// The limits. Absent: none.
#[derive(Clone, Debug)]
pub struct Facts {
    /// CPUs' worth of time, in thousandths.
    pub cpu_permille: Reading<u64>,
    /// Periods in which a group was stopped for having used up its time.
    pub throttled_count: Reading<u64>,
    /// Bytes of memory.
    pub memory_bytes: Reading<u64>,
    /// Bytes above which the group is slowed down.
    pub memory_high_bytes: Reading<u64>,
    /// Devices and their limits.
    pub io: Reading<Vec<String>>,
    /// Processes and threads.
    pub processes: Reading<u64>,
}

/// Reads the facts.
pub fn read(root: &Root) -> Facts {
    let membership = root.text("proc/self/cgroup");
    let texts = |places: &[(&str, &str)]| texts(root, &membership, places);
    let least = |places: &[(&str, &str)], parse: fn(&str) -> Option<u64>| fold(texts(places), parse, u64::min);
    let throttled = |text: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix("nr_throttled "))?;
        line.trim().parse().ok()
    };
    let quota = least(&[("", "cpu.max")], quota_permille);
    let facts = Facts {
        // Version 1 has two files: only the group that is seen as the top of the mount matters in a container.
        cpu_permille: match quota {
            Reading::Absent => old_quota(root, &membership),
            quota => quota,
        },
        throttled_count: fold(texts(&[("", "cpu.stat"), ("cpu", "cpu.stat")]), throttled, u64::max),
        memory_bytes: least(&[("", "memory.max"), ("memory", "memory.limit_in_bytes")], bytes),
        memory_high_bytes: least(&[("", "memory.high")], bytes),
        io: texts(&[
            ("", "io.max"),
            ("blkio", "blkio.throttle.write_bps_device"),
            ("blkio", "blkio.throttle.read_bps_device"),
            ("blkio", "blkio.throttle.write_iops_device"),
            ("blkio", "blkio.throttle.read_iops_device"),
        ])
        .map(|texts| texts.iter().flat_map(|text| text.lines()).map(str::to_string).collect()),
        processes: least(&[("", "pids.max"), ("pids", "pids.max")], bytes),
    };
    match facts.io.known().is_some_and(Vec::is_empty) {
        true => Facts { io: Reading::Absent, ..facts },
        false => facts,
    }
}

/// The contents of the files in this process's groups and those above, nearest first. A place is a controller of
/// version 1, or nothing for version 2, and a file.
fn texts(root: &Root, membership: &Reading<String>, places: &[(&str, &str)]) -> Reading<Vec<String>> {
    let text = match membership {
        Reading::Known(text) => text,
        Reading::Absent => return Reading::Absent,
        Reading::Unread(why) => return Reading::Unread(why.clone()),
    };
    let mut found = Vec::new();
    let mut unread = None;
    for (controller, file) in places {
        for line in text.lines() {
            let mut fields = line.splitn(3, ':');
            let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
                continue;
            };
            if !controllers.split(',').any(|name| name == *controller) {
                continue;
            }
            let mounts: &[&str] = match controller.is_empty() {
                true => &["sys/fs/cgroup", "sys/fs/cgroup/unified"],
                false => &[controllers, controller],
            };
            for mount in mounts {
                let mount = if controller.is_empty() { mount.to_string() } else { format!("sys/fs/cgroup/{mount}") };
                let read = along(root, &mount, path, file, &mut unread);
                if !read.is_empty() {
                    found.extend(read);
                    break;
                }
            }
        }
    }
    match (found.is_empty(), unread) {
        (false, _) => Reading::Known(found),
        (true, Some(why)) => Reading::Unread(why),
        (true, None) => Reading::Absent,
    }
}

fn along(root: &Root, mount: &str, path: &str, file: &str, unread: &mut Option<String>) -> Vec<String> {
    let mut found = Vec::new();
    let mut group = path.trim_matches('/');
    loop {
        let dir = if group.is_empty() { mount.to_string() } else { format!("{mount}/{group}") };
        match root.text(format!("{dir}/{file}")) {
            Reading::Known(text) => found.push(text),
            Reading::Absent => {}
            Reading::Unread(why) => *unread = Some(why),
        }
        match group.rsplit_once('/') {
            Some((parent, _)) => group = parent,
            None if group.is_empty() => return found,
            None => group = "",
        }
    }
}

fn fold(texts: Reading<Vec<String>>, parse: impl Fn(&str) -> Option<u64>, choose: fn(u64, u64) -> u64) -> Reading<u64> {
    match texts.map(|texts| texts.iter().filter_map(|text| parse(text)).reduce(choose)) {
        Reading::Known(Some(value)) => Reading::Known(value),
        Reading::Known(None) | Reading::Absent => Reading::Absent,
        Reading::Unread(why) => Reading::Unread(why),
    }
}

fn old_quota(root: &Root, membership: &Reading<String>) -> Reading<u64> {
    let of = |file| texts(root, membership, &[("cpu", file)]);
    match (of("cpu.cfs_quota_us"), of("cpu.cfs_period_us")) {
        (Reading::Known(quotas), Reading::Known(periods)) => {
            let pairs = quotas.iter().zip(&periods).map(|(quota, period)| format!("{quota} {period}")).collect();
            fold(Reading::Known(pairs), quota_permille, u64::min)
        }
        (Reading::Unread(why), _) | (_, Reading::Unread(why)) => Reading::Unread(why),
        _ => Reading::Absent,
    }
}

/// `150000 100000` is 1500; `max 100000` and version 1's `-1 100000` are no limit.
fn quota_permille(text: &str) -> Option<u64> {
    let mut words = text.split_whitespace();
    let quota: u64 = words.next()?.parse().ok()?;
    let period: u64 = words.next()?.parse().ok().filter(|period| *period > 0)?;
    Some(quota.saturating_mul(1000) / period)
}

fn bytes(text: &str) -> Option<u64> {
    text.parse().ok().filter(|bytes| *bytes < NO_LIMIT_BYTES)
}

/// Judges them.
pub fn check(facts: &Facts, needs: &Needs) -> Vec<Finding> {
    vec![cpu(facts), throttled(facts), memory(facts, needs), io(facts), processes(facts, needs)]
}

fn cpu(facts: &Facts) -> Finding {
    let line = Line::new(
        "CPU quota",
        "a group that has used up its time is stopped for the rest of the period (as a rule 100 ms), every shard and \
         all their clients with it: whole CPUs given by cpuset do not do that",
    );
    line.judge(&facts.cpu_permille, "none", "none, or cpuset", |line, permille| {
        let text = format!("{}.{:02} CPUs", permille / 1000, permille % 1000 / 10);
        match permille % 1000 {
            0 => line
                .note(text, "none, or cpuset")
                .by_hand("AllowedCPUs= in the service, or --cpuset-cpus, for CPUQuota="),
            _ => line
                .warn(text, "whole CPUs, best by cpuset")
                .by_hand("AllowedCPUs= in the service, or --cpuset-cpus of the container, instead of a quota"),
        }
    })
}

fn throttled(facts: &Facts) -> Finding {
    let line = Line::new("throttled", "each is a pause of up to a period, counted since the group was made");
    line.judge(&facts.throttled_count, "not counted", "never", |line, count| match count {
        0 => line.ok("never", "never"),
        count => line.warn(format!("{count} times"), "never").by_hand("see the CPU quota above"),
    })
}

fn memory(facts: &Facts, needs: &Needs) -> Finding {
    let needed = needs.memory_per_shard_bytes * needs.shard_count as u64 + OTHER_BYTES;
    let line = Line::new(
        "memory limit",
        "buffers of the shards, of their sockets and the page cache of what is read are charged to the group; at its \
         limit the broker is slowed down or killed",
    );
    let recommended = format!("none, or {} and more for {} shards", human_bytes(needed), needs.shard_count);
    let reading = match (&facts.memory_bytes, &facts.memory_high_bytes) {
        (Reading::Known(max), Reading::Known(high)) => Reading::Known(*max.min(high)),
        (Reading::Absent, other) | (other, _) => other.clone(),
    };
    line.judge(&reading, "none", &recommended, |line, limit| match *limit >= needed {
        true => line.ok(human_bytes(*limit), &recommended),
        false => line
            .warn(human_bytes(*limit), &recommended)
            .by_hand("raise MemoryMax= and MemoryHigh=, or give fewer --shards or less --memory-per-shard"),
    })
}

fn io(facts: &Facts) -> Finding {
    let line = Line::new(
        "disk limit",
        "every commit waits in this queue once the limit is reached: with few operations a second group commit takes \
         larger groups, and latency grows with them",
    );
    line.judge(&facts.io, "none", "none", |line, lines| match lines.is_empty() {
        true => line.ok("none", "none"),
        false => line.note(lines.join("; "), "none").by_hand("remove IO…Max= from the service or its slice"),
    })
}

fn processes(facts: &Facts, needs: &Needs) -> Finding {
    let needed = 64 * needs.shard_count as u64;
    let line = Line::new("process limit", "the rings' kernel workers are threads of the group");
    let recommended = format!("none, or {needed} and more");
    line.judge(&facts.processes, "none", &recommended, |line, count| match *count >= needed {
        true => line.ok(count.to_string(), &recommended),
        false => line.warn(count.to_string(), &recommended).by_hand("raise TasksMax= or --pids-limit"),
    })
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity;
    use super::*;

    fn tree(files: &[(&str, &str)]) -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let root = Root::at(dir.path());
        (dir, root)
    }

    #[test]
    fn without_groups_nothing_is_limited() {
        let (_dir, root) = tree(&[]);
        let found = check(&read(&root), &Needs::default());
        assert!(found.iter().all(|finding| finding.severity == Severity::Ok), "{found:#?}");
    }

    #[test]
    fn the_strictest_group_above_decides() {
        // Version 2: the slice allows less time, the service less memory.
        let (_dir, root) = tree(&[
            ("proc/self/cgroup", "0::/system.slice/ottla.service\n"),
            ("sys/fs/cgroup/system.slice/ottla.service/cpu.max", "400000 100000\n"),
            ("sys/fs/cgroup/system.slice/cpu.max", "150000 100000\n"),
            ("sys/fs/cgroup/system.slice/ottla.service/memory.max", "67108864\n"),
            ("sys/fs/cgroup/system.slice/memory.max", "max\n"),
            ("sys/fs/cgroup/system.slice/ottla.service/io.max", "259:0 wiops=3000\n"),
            ("sys/fs/cgroup/system.slice/ottla.service/cpu.stat", "usage_usec 1\nnr_throttled 7\n"),
            ("sys/fs/cgroup/pids.max", "max\n"),
        ]);
        let facts = read(&root);
        assert_eq!(facts.cpu_permille, Reading::Known(1500));
        assert_eq!(facts.memory_bytes, Reading::Known(64 << 20));
        assert_eq!(facts.processes, Reading::Absent);
        let severities: Vec<_> = check(&facts, &Needs::default()).iter().map(|finding| finding.severity).collect();
        assert_eq!(severities, [Severity::Warn, Severity::Warn, Severity::Warn, Severity::Note, Severity::Ok]);
    }

    #[test]
    fn version_1_is_read_at_the_top_of_its_mounts_when_the_path_is_not_there() {
        let (_dir, root) = tree(&[
            ("proc/self/cgroup", "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n0::/\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "200000\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ]);
        let facts = read(&root);
        assert_eq!((facts.cpu_permille.clone(), facts.memory_bytes), (Reading::Known(2000), Reading::Absent));
        assert_eq!(facts.throttled_count, Reading::Absent);
    }
}
