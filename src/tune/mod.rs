//! The host doctor: what on this host costs the broker throughput or latency, and what would mend it.
//!
//! How it works
//! 1. Each subject (`kernel`, `limits`, `cpu`, `memory`, `disk`, `network`, `cgroup`) has its facts, a reader that
//!    gathers them and checks that judge them.
//! 2. [`examine`] runs them all and gives a [`Report`], which [`text`], [`json()`] and [`script`] show.
//!
//! Invariants
//! - Checks are pure: facts in, findings out, so each is tested with invented facts.
//! - Nothing is changed on the host, but for one probe file in a data directory that is there, and removed again. The
//!   script is printed and never run.
//! - What could not be read is said so, with the reason; it never looks like something that is in order.
//!
//! It must not know shards or the command line.

mod cgroup;
mod cpu;
mod disk;
mod finding;
mod kernel;
mod limits;
mod memory;
mod network;
mod reading;
pub mod script;
pub mod text;

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::base::units::{MIB, human_bytes};
use crate::io::uring::RingOptions;

pub use finding::{Finding, Mend, Report, Section, Severity};
use reading::Root;

/// What a broker on this host would ask for.
#[derive(Clone, Debug)]
pub struct Needs {
    /// Rings, one per shard.
    pub shard_count: usize,
    /// Bound on each shard's buffers.
    pub memory_per_shard_bytes: u64,
    /// What each ring is asked for.
    pub ring: RingOptions,
}

impl Default for Needs {
    fn default() -> Needs {
        Needs { shard_count: 1, memory_per_shard_bytes: 256 * MIB as u64, ring: RingOptions::default() }
    }
}

/// What is to be examined.
#[derive(Clone, Debug)]
pub struct Request {
    /// Where the records will live.
    pub data_dir: PathBuf,
    /// Only this network interface; `None`: all that have a device.
    pub interface: Option<String>,
    /// What the broker would ask for.
    pub needs: Needs,
}

/// Looks at the host.
pub fn examine(request: &Request) -> Report {
    let root = Root::host();
    let needs = &request.needs;
    let kernel_facts = kernel::read(&root, &needs.ring);
    let cpu_facts = cpu::read(&root);
    let memory_facts = memory::read(&root);
    let disk_facts = disk::read(&root, &request.data_dir, cpu_facts.virtual_machine);
    let host = vec![
        ("kernel", format!("{} ({})", kernel_facts.version.release, std::env::consts::ARCH)),
        ("processor", cpu_text(&root, &cpu_facts)),
        ("memory", memory_facts.total_bytes.known().map_or("unknown".into(), |bytes| human_bytes(*bytes))),
        ("data", disk_facts.data_dir.display().to_string()),
        ("seen as", seen_as(&root, kernel_facts.privileged)),
    ];
    Report {
        host,
        sections: vec![
            Section { title: "kernel", findings: kernel::check(&kernel_facts) },
            Section { title: "limits", findings: limits::check(&limits::read(), needs) },
            Section { title: "control groups", findings: cgroup::check(&cgroup::read(&root), needs) },
            Section { title: "processors", findings: cpu::check(&cpu_facts) },
            Section { title: "memory", findings: memory::check(&memory_facts, needs) },
            Section { title: "disk", findings: disk::check(&disk_facts) },
            Section { title: "network", findings: network::check(&network::read(&root, request.interface.as_deref())) },
        ],
    }
}

/// CPU time that the control groups of this process leave it, in thousandths of a CPU; `None` without a quota.
pub fn cpu_quota_permille() -> Option<u64> {
    cgroup::read(&Root::host()).cpu_permille.known().copied()
}

/// Bytes of memory that this process may use: the machine's, or what its control groups leave of it if that is less.
/// `None` if neither can be read.
pub fn memory_bytes() -> Option<u64> {
    memory_bytes_at(&Root::host())
}

fn memory_bytes_at(root: &Root) -> Option<u64> {
    let groups = cgroup::read(root);
    let readings = [memory::read(root).total_bytes, groups.memory_bytes, groups.memory_high_bytes];
    readings.iter().filter_map(|reading| reading.known().copied()).min()
}

fn cpu_text(root: &Root, facts: &cpu::Facts) -> String {
    let text = root.text("proc/cpuinfo");
    let model = text.known().and_then(|text| text.lines().find(|line| line.starts_with("model name")));
    let model = model.and_then(|line| line.split_once(':')).map_or("unknown", |(_, model)| model.trim());
    let (online, allowed) = (facts.online.known().map_or(0, Vec::len), facts.allowed.len());
    let machine = if facts.virtual_machine { ", virtual machine" } else { "" };
    format!("{model}, {online} CPUs, {allowed} for this process{machine}")
}

fn seen_as(root: &Root, privileged: bool) -> String {
    let container = ["/.dockerenv", "/run/.containerenv", "/run/systemd/container"];
    let container = container.iter().any(|path| root.path(path.trim_start_matches('/')).exists());
    let user = if privileged { "root" } else { "a user that is not root: some things cannot be read" };
    match container {
        true => format!("{user}, in a container: limits and files are its own, the rest is the host's"),
        false => user.to_string(),
    }
}

/// Everything, as one document.
pub fn json(report: &Report) -> Value {
    let findings = report.findings().map(|(subject, finding)| {
        json!({
            "subject": subject,
            "name": finding.name,
            "severity": finding.severity.name(),
            "current": finding.current,
            "recommended": finding.recommended,
            "why": finding.why,
            "mend": finding.mend.iter().map(mend_json).collect::<Vec<_>>(),
        })
    });
    let host: serde_json::Map<String, Value> =
        report.host.iter().map(|(name, value)| (name.replace(' ', "_"), json!(value))).collect();
    let counts: serde_json::Map<String, Value> =
        Severity::ALL.iter().map(|severity| (severity.name().to_string(), json!(report.count(*severity)))).collect();
    json!({ "host": host, "findings": findings.collect::<Vec<_>>(), "counts": counts })
}

fn mend_json(mend: &Mend) -> Value {
    match mend {
        Mend::Sysctl(key, value) => json!({ "sysctl": key, "value": value }),
        Mend::Shell(lines) => json!({ "shell": lines }),
        Mend::ByHand(words) => json!({ "by_hand": words }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_host_gets_a_line_about_each_subject() {
        // On whatever this is run: nothing may panic, and each line says all four things.
        let dir = tempfile::tempdir().unwrap();
        let request = Request { data_dir: dir.path().to_path_buf(), interface: None, needs: Needs::default() };
        let report = examine(&request);
        assert_eq!(report.sections.len(), 7);
        for (subject, finding) in report.findings() {
            for text in [&finding.name, &finding.current, &finding.recommended, &finding.why] {
                assert!(!text.is_empty(), "{subject}: {finding:?}");
            }
        }
        let total: usize = Severity::ALL.iter().map(|severity| report.count(*severity)).sum();
        let document = json(&report);
        assert_eq!(document["findings"].as_array().unwrap().len(), total);
        assert_eq!(document["findings"][0]["name"], "version");
    }

    #[test]
    fn usable_memory_is_the_least_of_the_machines_and_its_groups() {
        // A machine of 4 GiB whose group has 1 GiB, then none.
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let root = Root::at(dir.path());
        assert_eq!(memory_bytes_at(&root), None);
        write("proc/meminfo", "MemTotal:        4194304 kB\nMemAvailable:    1 kB\n");
        assert_eq!(memory_bytes_at(&root), Some(4 << 30));
        write("proc/self/cgroup", "0::/a\n");
        write("sys/fs/cgroup/a/memory.max", "1073741824\n");
        assert_eq!(memory_bytes_at(&root), Some(1 << 30));
        write("sys/fs/cgroup/a/memory.max", "max\n");
        assert_eq!(memory_bytes_at(&root), Some(4 << 30));
    }
}
