//! The kernel: its version, what its io_uring can do and who may use it, its clock.

use super::finding::{Finding, Line};
use super::reading::{Reading, Root};
use crate::io::uring::RingOptions;
use crate::io::uring::capabilities::{KERNEL_MIN, KernelVersion, kernel_version, probe_ring};

/// From here on the ring has every operation that the broker can use.
const KERNEL_COMPLETE: (u32, u32) = (6, 9);

/// What was found out about the kernel.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Its version.
    pub version: KernelVersion,
    /// What a ring got, or why there was none.
    pub ring: Result<RingFacts, String>,
    /// `kernel.io_uring_disabled`; absent before 6.6.
    pub io_uring_disabled: Reading<u64>,
    /// This process is root's.
    pub privileged: bool,
    /// The clock source in force.
    pub clock: Reading<String>,
    /// Those that could be.
    pub clocks: Reading<String>,
}

/// A ring as the host grants it.
#[derive(Clone, Debug, Default)]
pub struct RingFacts {
    /// Set-up flags in force.
    pub flags: Vec<&'static str>,
    /// Operations that are done by other means.
    pub missing: Vec<&'static str>,
    /// Options that are not in force, with reasons.
    pub fallbacks: Vec<String>,
}

/// Reads the facts and sets a ring up to see what it gets.
pub fn read(root: &Root, options: &RingOptions) -> Facts {
    let report = probe_ring(options).map_err(|error| error.to_string());
    const CLOCK: &str = "sys/devices/system/clocksource/clocksource0";
    Facts {
        version: kernel_version(),
        ring: report.map(|report| RingFacts {
            flags: report.flags,
            missing: report.missing,
            fallbacks: report.fallbacks,
        }),
        io_uring_disabled: root.sysctl_number("kernel.io_uring_disabled"),
        privileged: nix::unistd::geteuid().is_root(),
        clock: root.text(format!("{CLOCK}/current_clocksource")),
        clocks: root.text(format!("{CLOCK}/available_clocksource")),
    }
}

/// Judges them.
pub fn check(facts: &Facts) -> Vec<Finding> {
    vec![version(facts), disabled(facts), ring(facts), task_run(facts), operations(facts), clock(facts)]
}

fn version(facts: &Facts) -> Finding {
    let line = Line::new(
        "version",
        "6.1 is the oldest that the ring is written for; from 6.9 on every operation of it is there (truncation on \
         the ring), from 6.6 on tmpfs takes direct I/O",
    );
    let (release, number) = (facts.version.release.clone(), (facts.version.major, facts.version.minor));
    match number {
        number if number < KERNEL_MIN => line.bad(release, "6.1 or newer").by_hand("boot a newer kernel"),
        number if number < KERNEL_COMPLETE => line.note(release, "6.9 or newer"),
        _ => line.ok(release, "6.9 or newer"),
    }
}

fn disabled(facts: &Facts) -> Finding {
    let line = Line::new("kernel.io_uring_disabled", "1 allows io_uring to one group and to root, 2 to nobody");
    line.judge(&facts.io_uring_disabled, "no such switch before 6.6", "0", |line, value| match value {
        0 => line.ok("0", "0"),
        1 if facts.privileged => line.note("1, and this user is root", "0, or the broker's group in io_uring_group"),
        1 if facts.ring.is_ok() => line.ok("1, and this user is in the group", "0, or the broker's group"),
        value => line.bad(value.to_string(), "0").sysctl("kernel.io_uring_disabled", 0),
    })
}

fn ring(facts: &Facts) -> Finding {
    let line = Line::new("ring", "each shard lives on one ring; what it is refused it does without, at a cost");
    match &facts.ring {
        Err(error) => {
            line.bad(error.clone(), "a ring can be set up").by_hand("see what the error says; a container needs a seccomp profile that allows io_uring_setup, io_uring_enter and io_uring_register")
        }
        Ok(ring) if !ring.fallbacks.is_empty() => line.warn(ring.fallbacks.join("; "), "as asked for"),
        Ok(_) => line.ok("as asked for", "as asked for"),
    }
}

fn task_run(facts: &Facts) -> Finding {
    const WANTED: [&str; 3] = ["SINGLE_ISSUER", "DEFER_TASKRUN", "COOP_TASKRUN"];
    let line = Line::new(
        "ring flags",
        "completions that run when the shard asks for them saved 11-13 % of the CPU in the measurements behind the \
         design",
    );
    let wanted = WANTED.join(" ");
    match &facts.ring {
        Err(_) => {
            line.judge(&Reading::<()>::Unread("there is no ring".into()), "", &wanted, |line, ()| line.ok("", ""))
        }
        Ok(ring) if WANTED.iter().all(|flag| ring.flags.contains(flag)) => line.ok(ring.flags.join(" "), wanted),
        Ok(ring) => line.warn(ring.flags.join(" "), wanted).by_hand("a kernel of 6.1 or newer grants them"),
    }
}

fn operations(facts: &Facts) -> Finding {
    let line = Line::new("ring operations", "what is missing is done by a system call, or not at all (send_zc)");
    match &facts.ring {
        Err(_) => line.judge(&Reading::<()>::Unread("there is no ring".into()), "", "all", |line, ()| line.ok("", "")),
        Ok(ring) if ring.missing.is_empty() => line.ok("all", "all"),
        Ok(ring) => line.note(format!("without {}", ring.missing.join(", ")), "all (Linux 6.9)"),
    }
}

fn clock(facts: &Facts) -> Finding {
    let line = Line::new(
        "clock source",
        "the broker reads the clock once a loop turn and a load generator twice a request: with tsc that is a few \
         nanoseconds, with a clock that needs a system call or a device a microsecond",
    );
    let no_vdso = |name: &str| matches!(name, "hpet" | "acpi_pm" | "jiffies" | "xen" | "refined-jiffies");
    line.judge(&facts.clock, "not told", "tsc", |line, clock| {
        let tsc_there = facts.clocks.known().is_some_and(|clocks| clocks.split_whitespace().any(|name| name == "tsc"));
        let path = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
        match clock.as_str() {
            name if no_vdso(name) && tsc_there => line.warn(name, "tsc").shell([format!("echo tsc > {path}")]),
            name if no_vdso(name) => line.warn(name, "tsc").by_hand("boot with tsc=reliable if this CPU's is"),
            "kvm-clock" if tsc_there => line.note("kvm-clock", "tsc").shell([format!("echo tsc > {path}")]),
            name => line.ok(name, "tsc, or another that needs no system call"),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity;
    use super::*;

    fn good() -> Facts {
        Facts {
            version: KernelVersion { major: 6, minor: 12, release: "6.12.3".into() },
            ring: Ok(RingFacts {
                flags: vec!["SINGLE_ISSUER", "DEFER_TASKRUN", "COOP_TASKRUN"],
                ..RingFacts::default()
            }),
            io_uring_disabled: Reading::Known(0),
            privileged: false,
            clock: Reading::Known("tsc".into()),
            clocks: Reading::Known("tsc hpet acpi_pm".into()),
        }
    }

    fn severities(facts: &Facts) -> Vec<Severity> {
        check(facts).iter().map(|finding| finding.severity).collect()
    }

    #[test]
    fn a_good_kernel_has_nothing_to_say() {
        assert_eq!(severities(&good()), [Severity::Ok; 6]);
    }

    #[test]
    fn kernels_are_too_old_incomplete_or_fine() {
        for (number, severity) in [((5, 15), Severity::Bad), ((6, 1), Severity::Note), ((6, 9), Severity::Ok)] {
            let version = KernelVersion { major: number.0, minor: number.1, release: "x".into() };
            assert_eq!(version_of(version), severity, "{number:?}");
        }
        fn version_of(version: KernelVersion) -> Severity {
            super::version(&Facts { version, ..good() }).severity
        }
    }

    #[test]
    fn a_switched_off_ring_is_mended_by_a_sysctl_and_a_missing_one_leaves_its_lines_unknown() {
        let facts = Facts { ring: Err("forbidden".into()), io_uring_disabled: Reading::Known(2), ..good() };
        let found = check(&facts);
        assert_eq!(found[1].mend, [super::super::finding::Mend::Sysctl("kernel.io_uring_disabled", "0".into())]);
        assert_eq!(severities(&facts)[1..5], [Severity::Bad, Severity::Bad, Severity::Unknown, Severity::Unknown]);
        let grouped = Facts { io_uring_disabled: Reading::Known(1), ..good() };
        assert_eq!(disabled(&grouped).severity, Severity::Ok);
        let shut_out = Facts { ring: Err("forbidden".into()), ..grouped };
        assert_eq!(disabled(&shut_out).severity, Severity::Bad);
    }

    #[test]
    fn lost_flags_and_operations_are_named() {
        let ring = RingFacts {
            flags: vec!["SINGLE_ISSUER"],
            missing: vec!["ftruncate"],
            fallbacks: vec!["fewer entries (64/256)".into()],
        };
        let found = check(&Facts { ring: Ok(ring), ..good() });
        assert!(found[2].severity == Severity::Warn && found[2].current.contains("fewer entries"));
        assert_eq!(found[3].severity, Severity::Warn);
        assert!(found[4].severity == Severity::Note && found[4].current.contains("ftruncate"));
    }

    #[test]
    fn a_slow_clock_is_mended_only_where_a_fast_one_is_offered() {
        let slow = Facts { clock: Reading::Known("hpet".into()), ..good() };
        assert!(matches!(&clock(&slow).mend[..], [super::super::finding::Mend::Shell(_)]));
        let none = Facts { clocks: Reading::Known("hpet acpi_pm".into()), ..slow };
        assert!(matches!(&clock(&none).mend[..], [super::super::finding::Mend::ByHand(_)]));
    }
}
