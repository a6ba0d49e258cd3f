//! Memory: how much, huge pages, swapping, what the page cache may pile up.

use super::Needs;
use super::finding::{Finding, Line};
use super::reading::{Reading, Root, chosen};
use crate::base::units::{GIB, MIB, human_bytes};

/// Beside the shards' budgets: code, kernel memory of sockets, the page cache that catch-up readers use.
const OTHER_BYTES: u64 = 512 * MIB as u64;
/// More dirty memory than this takes a disk seconds to write.
const DIRTY_BYTES_OK: u64 = GIB as u64;
/// Swapping of anonymous memory only to avoid the out-of-memory killer.
const SWAPPINESS_OK: u64 = 1;
/// Room for packets that arrive when no memory can be waited for.
const MIN_FREE_KIB_OK: u64 = 65_536;
/// Smaller hosts need every page.
const MIN_FREE_TOTAL_BYTES: u64 = 8 * GIB as u64;

/// What was found out about memory.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Of the host.
    pub total_bytes: Reading<u64>,
    /// That programs could still get.
    pub available_bytes: Reading<u64>,
    /// `transparent_hugepage/enabled`.
    pub huge_pages: Reading<String>,
    /// `transparent_hugepage/defrag`.
    pub defrag: Reading<String>,
    /// Swap areas: name and bytes in use.
    pub swaps: Reading<Vec<(String, u64)>>,
    /// `vm.swappiness`.
    pub swappiness: Reading<u64>,
    /// `vm.dirty_bytes`; 0: the ratio is in force.
    pub dirty_bytes: Reading<u64>,
    /// `vm.dirty_ratio`, percent of the available memory.
    pub dirty_ratio: Reading<u64>,
    /// `vm.dirty_background_bytes`; 0: the ratio is in force.
    pub dirty_background_bytes: Reading<u64>,
    /// `vm.dirty_background_ratio`, percent.
    pub dirty_background_ratio: Reading<u64>,
    /// `vm.min_free_kbytes`.
    pub min_free_kib: Reading<u64>,
    /// `vm.zone_reclaim_mode`.
    pub zone_reclaim: Reading<u64>,
}

/// Reads the facts.
pub fn read(root: &Root) -> Facts {
    const HUGE: &str = "sys/kernel/mm/transparent_hugepage";
    let meminfo = |key: &'static str| root.text("proc/meminfo").parse(|text| meminfo_bytes(text, key));
    Facts {
        total_bytes: meminfo("MemTotal"),
        available_bytes: meminfo("MemAvailable"),
        huge_pages: root.text(format!("{HUGE}/enabled")).parse(|text| chosen(text)),
        defrag: root.text(format!("{HUGE}/defrag")).parse(|text| chosen(text)),
        swaps: root.text("proc/swaps").map(|text| swaps(&text)),
        swappiness: root.sysctl_number("vm.swappiness"),
        dirty_bytes: root.sysctl_number("vm.dirty_bytes"),
        dirty_ratio: root.sysctl_number("vm.dirty_ratio"),
        dirty_background_bytes: root.sysctl_number("vm.dirty_background_bytes"),
        dirty_background_ratio: root.sysctl_number("vm.dirty_background_ratio"),
        min_free_kib: root.sysctl_number("vm.min_free_kbytes"),
        zone_reclaim: root.sysctl_number("vm.zone_reclaim_mode"),
    }
}

fn meminfo_bytes(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.split(':').next() == Some(key))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// After a header: name, type, size, used (KiB), priority.
fn swaps(text: &str) -> Vec<(String, u64)> {
    let lines = text.lines().skip(1).filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        Some((words.first()?.to_string(), words.get(3)?.parse::<u64>().ok()? * 1024))
    });
    lines.collect()
}

/// Judges them.
pub fn check(facts: &Facts, needs: &Needs) -> Vec<Finding> {
    vec![
        budget(facts, needs),
        huge_pages(facts),
        defrag(facts),
        swap(facts),
        dirty(facts),
        min_free(facts),
        zone_reclaim(facts),
    ]
}

fn budget(facts: &Facts, needs: &Needs) -> Finding {
    let line = Line::new(
        "available",
        "each shard may use its budget (--memory-per-shard) for buffers; the page cache serves readers of sealed \
         segments with what is left",
    );
    let needed = needs.memory_per_shard_bytes * needs.shard_count as u64 + OTHER_BYTES;
    let recommended = format!("{} for {} shards", human_bytes(needed), needs.shard_count);
    line.judge(&facts.available_bytes, "not told", &recommended, |line, available| {
        let current = match facts.total_bytes.known() {
            Some(total) => format!("{} of {}", human_bytes(*available), human_bytes(*total)),
            None => human_bytes(*available),
        };
        match *available >= needed {
            true => line.ok(current, &recommended),
            false => line.warn(current, &recommended).by_hand("fewer --shards, or less --memory-per-shard"),
        }
    })
}

fn huge_pages(facts: &Facts) -> Finding {
    let line = Line::new(
        "transparent huge pages",
        "who wants them says so (madvise), and the shards do (--huge-pages): a direct write of 64 KiB is one piece, \
         not 16; with `always` the kernel looks for them for every program and copies memory together behind its back",
    );
    const FILE: &str = "/sys/kernel/mm/transparent_hugepage/enabled";
    line.judge(&facts.huge_pages, "not in this kernel", "madvise", |line, chosen| match chosen.as_str() {
        "madvise" => line.ok("madvise", "madvise"),
        word => line.note(word, "madvise").shell([format!("echo madvise > {FILE}")]),
    })
}

fn defrag(facts: &Facts) -> Finding {
    let line = Line::new(
        "huge page defrag",
        "`always` lets a page fault wait until memory has been compacted: a pause of milliseconds at any allocation",
    );
    const FILE: &str = "/sys/kernel/mm/transparent_hugepage/defrag";
    line.judge(&facts.defrag, "not in this kernel", "anything but always", |line, chosen| match chosen.as_str() {
        "always" => line.warn("always", "madvise").shell([format!("echo madvise > {FILE}")]),
        word => line.ok(word, "anything but always"),
    })
}

fn swap(facts: &Facts) -> Finding {
    let line = Line::new(
        "swap",
        "a shard that touches a swapped page stops, and all its clients with it, until the disk has answered",
    );
    line.judge(&facts.swaps, "none", "none, or swappiness 1", |line, swaps| {
        let used: u64 = swaps.iter().map(|(_, used)| used).sum();
        let swappiness = facts.swappiness.known().copied();
        let text = || {
            let names: Vec<&str> = swaps.iter().map(|(name, _)| name.as_str()).collect();
            let swappiness = swappiness.map_or("unknown".to_string(), |value| value.to_string());
            format!("{} ({} in use), swappiness {swappiness}", names.join(", "), human_bytes(used))
        };
        if swaps.is_empty() {
            line.ok("none", "none, or swappiness 1")
        } else if swappiness.is_some_and(|value| value <= SWAPPINESS_OK) {
            line.ok(text(), "none, or swappiness 1")
        } else {
            line.warn(text(), "none, or swappiness 1").sysctl("vm.swappiness", SWAPPINESS_OK)
        }
    })
}

fn dirty(facts: &Facts) -> Finding {
    let line = Line::new(
        "vm.dirty_*",
        "the broker's records bypass the page cache, but whatever else writes on this host may pile up so much and \
         then fill the disk's queue with it for seconds",
    );
    let recommended = format!("at most {}", human_bytes(DIRTY_BYTES_OK));
    let limit = |bytes: &Reading<u64>, ratio: &Reading<u64>| match (bytes.known(), ratio.known()) {
        (Some(bytes), _) if *bytes > 0 => Some(*bytes),
        (_, Some(ratio)) => facts.available_bytes.known().map(|available| available * ratio / 100),
        _ => None,
    };
    let hard = limit(&facts.dirty_bytes, &facts.dirty_ratio);
    let background = limit(&facts.dirty_background_bytes, &facts.dirty_background_ratio);
    let reading = match (&facts.dirty_ratio, hard) {
        (_, Some(hard)) => Reading::Known(hard),
        (Reading::Unread(why), None) => Reading::Unread(why.clone()),
        (_, None) => Reading::Absent,
    };
    line.judge(&reading, "not told", &recommended, |line, hard| {
        let background = background.map_or(String::new(), |bytes| format!(", written from {} on", human_bytes(bytes)));
        let current = format!("up to {}{background}", human_bytes(*hard));
        match *hard <= DIRTY_BYTES_OK {
            true => line.ok(current, &recommended),
            false => line
                .note(current, &recommended)
                .sysctl("vm.dirty_background_bytes", 64 * MIB)
                .sysctl("vm.dirty_bytes", 512 * MIB),
        }
    })
}

fn min_free(facts: &Facts) -> Finding {
    let line = Line::new(
        "vm.min_free_kbytes",
        "packets are given memory when nothing can be waited for: below this reserve they are dropped and sent again",
    );
    let recommended = format!("{MIN_FREE_KIB_OK} or more");
    let large = facts.total_bytes.known().is_some_and(|bytes| *bytes >= MIN_FREE_TOTAL_BYTES);
    line.judge(&facts.min_free_kib, "not told", &recommended, |line, kib| match *kib >= MIN_FREE_KIB_OK {
        true => line.ok(kib.to_string(), &recommended),
        false if large => line.note(kib.to_string(), &recommended).sysctl("vm.min_free_kbytes", MIN_FREE_KIB_OK),
        false => line.ok(kib.to_string(), "as it is on a host of less than 8 GiB"),
    })
}

fn zone_reclaim(facts: &Facts) -> Finding {
    let line = Line::new(
        "vm.zone_reclaim_mode",
        "other than 0, a NUMA node frees its own page cache before it takes memory of another: stalls while there is \
         plenty",
    );
    line.judge(&facts.zone_reclaim, "one node", "0", |line, mode| match mode {
        0 => line.ok("0", "0"),
        mode => line.warn(mode.to_string(), "0").sysctl("vm.zone_reclaim_mode", 0),
    })
}

#[cfg(test)]
mod tests {
    use super::super::finding::{Mend, Severity};
    use super::*;

    fn plain() -> Facts {
        Facts {
            total_bytes: Reading::Known(16 << 30),
            available_bytes: Reading::Known(14 << 30),
            huge_pages: Reading::Known("madvise".into()),
            defrag: Reading::Known("madvise".into()),
            swaps: Reading::Known(vec![]),
            swappiness: Reading::Known(60),
            dirty_bytes: Reading::Known(512 << 20),
            dirty_ratio: Reading::Known(0),
            dirty_background_bytes: Reading::Known(64 << 20),
            dirty_background_ratio: Reading::Known(0),
            min_free_kib: Reading::Known(67_584),
            zone_reclaim: Reading::Known(0),
        }
    }

    #[test]
    fn a_tuned_host_has_nothing_to_say() {
        let found = check(&plain(), &Needs::default());
        assert!(found.iter().all(|finding| finding.severity == Severity::Ok), "{found:#?}");
    }

    #[test]
    fn budgets_of_all_shards_must_fit() {
        let needs = Needs { shard_count: 64, ..Needs::default() };
        assert_eq!(budget(&plain(), &needs).severity, Severity::Warn);
    }

    #[test]
    fn swap_is_harmless_only_without_inclination() {
        let swaps = Reading::Known(vec![("/dev/sda2".to_string(), 1 << 20)]);
        let inclined = Facts { swaps, ..plain() };
        let found = swap(&inclined);
        assert_eq!(found.mend, [Mend::Sysctl("vm.swappiness", "1".into())]);
        assert!(found.current.contains("1.0 MiB in use"), "{}", found.current);
        assert_eq!(swap(&Facts { swappiness: Reading::Known(1), ..inclined }).severity, Severity::Ok);
    }

    #[test]
    fn dirty_memory_is_reckoned_from_bytes_or_else_from_the_ratio() {
        // 20 % of 14 GiB is 2.8 GiB.
        let ratio = Facts { dirty_bytes: Reading::Known(0), dirty_ratio: Reading::Known(20), ..plain() };
        let found = dirty(&ratio);
        assert!(found.severity == Severity::Note && found.current.contains("2.8 GiB"), "{found:?}");
        let unread = Reading::Unread("permission denied".to_string());
        let found = dirty(&Facts { dirty_bytes: unread.clone(), dirty_ratio: unread, ..plain() });
        assert_eq!(found.severity, Severity::Unknown);
    }

    #[test]
    fn eager_huge_pages_and_reclaim_are_mended() {
        for (word, severity) in [("always", Severity::Note), ("madvise", Severity::Ok), ("never", Severity::Note)] {
            assert_eq!(huge_pages(&Facts { huge_pages: Reading::Known(word.into()), ..plain() }).severity, severity);
        }
        assert_eq!(defrag(&Facts { defrag: Reading::Known("always".into()), ..plain() }).severity, Severity::Warn);
        assert_eq!(zone_reclaim(&Facts { zone_reclaim: Reading::Known(1), ..plain() }).severity, Severity::Warn);
        assert_eq!(min_free(&Facts { min_free_kib: Reading::Known(11_000), ..plain() }).severity, Severity::Note);
    }

    #[test]
    fn files_are_read_as_the_kernel_writes_them() {
        assert_eq!(meminfo_bytes("MemTotal:       24684096 kB\nMemFree: 1 kB\n", "MemTotal"), Some(24_684_096 * 1024));
        let text = "Filename\tType\tSize\tUsed\tPriority\n/dev/zram0 partition 8388604 1024 100\n";
        assert_eq!(swaps(text), [("/dev/zram0".to_string(), 1 << 20)]);
    }
}
