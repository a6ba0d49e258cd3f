//! The processors: frequency, idle states, isolation, interrupts, NUMA, what a hypervisor takes.

use super::finding::{Finding, Line};
use super::reading::{Reading, Root, cpu_list};

/// Waking from deeper states shows in the latency of a single request.
const EXIT_LATENCY_US_OK: u64 = 20;
/// Below this many CPUs none can be spared for isolation.
const CPU_COUNT_FOR_ISOLATION: usize = 4;
/// Thousandths of all time that a hypervisor may take before it shows.
const STEAL_PERMILLE_OK: u64 = 5;
/// Interrupts that happened less often than this do not matter.
const IRQ_COUNT_MIN: u64 = 1000;

/// What was found out about the processors.
#[derive(Clone, Debug)]
pub struct Facts {
    /// CPUs that are switched on.
    pub online: Reading<Vec<usize>>,
    /// CPUs that this process may use.
    pub allowed: Vec<usize>,
    /// The frequency governors in force, each once; absent without frequency control.
    pub governors: Reading<Vec<String>>,
    /// Idle states of the first CPU; absent where the hypervisor keeps them to itself.
    pub idle_states: Reading<Vec<IdleState>>,
    /// Two threads of a core are in use.
    pub smt: Reading<u64>,
    /// `isolcpus`.
    pub isolated: Reading<Vec<usize>>,
    /// `nohz_full`; absent if the kernel was built without.
    pub tickless: Reading<Vec<usize>>,
    /// Device interrupts.
    pub irqs: Reading<Vec<Irq>>,
    /// Thousandths of the time since boot that the hypervisor gave to others.
    pub steal_permille: Reading<u64>,
    /// NUMA nodes that are online.
    pub nodes: Reading<Vec<usize>>,
    /// `kernel.numa_balancing`.
    pub numa_balancing: Reading<u64>,
    /// It is a virtual machine.
    pub virtual_machine: bool,
}

/// One idle state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdleState {
    /// As the driver calls it.
    pub name: String,
    /// Microseconds to leave it.
    pub latency_us: u64,
    /// Somebody switched it off.
    pub disabled: bool,
}

/// One interrupt line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Irq {
    /// Its number.
    pub number: u32,
    /// The device's name for it.
    pub name: String,
    /// How often it came.
    pub count: u64,
    /// Where it is delivered.
    pub cpus: Vec<usize>,
}

/// Reads the facts.
pub fn read(root: &Root) -> Facts {
    const CPUS: &str = "sys/devices/system/cpu";
    let list = |path: String| root.text(path).parse(|text| cpu_list(if text == "(null)" { "" } else { text }));
    let set = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0));
    let allowed = set.map_or(Vec::new(), |set| {
        (0..nix::sched::CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).collect()
    });
    Facts {
        online: list(format!("{CPUS}/online")),
        allowed,
        governors: governors(root),
        idle_states: idle_states(root),
        smt: root.number(format!("{CPUS}/smt/active")),
        isolated: list(format!("{CPUS}/isolated")),
        tickless: list(format!("{CPUS}/nohz_full")),
        irqs: irqs(root),
        steal_permille: root.text("proc/stat").parse(|text| steal_permille(text)),
        nodes: list("sys/devices/system/node/online".to_string()),
        numa_balancing: root.sysctl_number("kernel.numa_balancing"),
        virtual_machine: root.text("proc/cpuinfo").known().is_some_and(|text| text.contains(" hypervisor")),
    }
}

fn governors(root: &Root) -> Reading<Vec<String>> {
    const POLICIES: &str = "sys/devices/system/cpu/cpufreq";
    let policies = match root.names(POLICIES) {
        Reading::Known(names) => names.into_iter().filter(|name| name.starts_with("policy")).collect::<Vec<_>>(),
        other => return other,
    };
    let mut governors = Vec::new();
    for policy in policies {
        match root.text(format!("{POLICIES}/{policy}/scaling_governor")) {
            Reading::Known(governor) => governors.push(governor),
            Reading::Absent => {}
            Reading::Unread(why) => return Reading::Unread(why),
        }
    }
    governors.sort();
    governors.dedup();
    if governors.is_empty() { Reading::Absent } else { Reading::Known(governors) }
}

fn idle_states(root: &Root) -> Reading<Vec<IdleState>> {
    const STATES: &str = "sys/devices/system/cpu/cpu0/cpuidle";
    root.names(STATES).map(|names| {
        let states = names.iter().filter(|name| name.starts_with("state")).filter_map(|name| {
            let dir = format!("{STATES}/{name}");
            Some(IdleState {
                name: root.text(format!("{dir}/name")).known()?.clone(),
                latency_us: *root.number(format!("{dir}/latency")).known()?,
                disabled: root.number(format!("{dir}/disable")).known().is_some_and(|value| *value != 0),
            })
        });
        states.collect()
    })
}

fn irqs(root: &Root) -> Reading<Vec<Irq>> {
    root.text("proc/interrupts").map(|text| {
        let mut lines = text.lines();
        let cpu_count = lines.next().map_or(0, |header| header.split_whitespace().count());
        let found = lines.filter_map(|line| {
            let (number, rest) = line.trim_start().split_once(':')?;
            // Lines with letters are the architecture's own, which have no affinity.
            let number: u32 = number.parse().ok()?;
            let words: Vec<&str> = rest.split_whitespace().collect();
            let count = words.iter().take(cpu_count).filter_map(|word| word.parse::<u64>().ok()).sum();
            let list = |name| root.text(format!("proc/irq/{number}/{name}")).parse(|text| cpu_list(text));
            let cpus = list("effective_affinity_list").known().cloned().filter(|cpus| !cpus.is_empty());
            let cpus = cpus.or_else(|| list("smp_affinity_list").known().cloned()).unwrap_or_default();
            Some(Irq { number, name: words.last()?.to_string(), count, cpus })
        });
        found.collect()
    })
}

/// From the first line of `/proc/stat`: user nice system idle iowait irq softirq steal.
fn steal_permille(text: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with("cpu "))?;
    let ticks: Vec<u64> = line.split_whitespace().skip(1).take(8).map_while(|word| word.parse().ok()).collect();
    let total = ticks.iter().sum::<u64>().max(1);
    Some(ticks.get(7)? * 1000 / total)
}

/// Judges them.
pub fn check(facts: &Facts) -> Vec<Finding> {
    vec![
        governor(facts),
        idle(facts),
        smt(facts),
        isolation(facts),
        tickless(facts),
        interrupts(facts),
        steal(facts),
        numa(facts),
    ]
}

fn governor(facts: &Facts) -> Finding {
    let line = Line::new(
        "frequency governor",
        "a governor that follows the load is late: the first requests after a pause run on a slow clock, and \
         measurements scatter",
    );
    line.judge(&facts.governors, "no frequency control here", "performance", |line, governors| {
        match governors.iter().all(|governor| governor == "performance") {
            true => line.ok("performance", "performance"),
            false => line.warn(governors.join(", "), "performance").shell([
                "for g in /sys/devices/system/cpu/cpufreq/policy*/scaling_governor; do echo performance > \"$g\"; done",
            ]),
        }
    })
}

fn idle(facts: &Facts) -> Finding {
    let line = Line::new(
        "idle states",
        "a sleeping shard wakes later from a deep state: that time is added to the latency of a request that comes \
         alone; keeping CPUs shallow costs power",
    );
    let recommended = format!("none slower to leave than {EXIT_LATENCY_US_OK} us");
    line.judge(&facts.idle_states, "kept by the hypervisor or firmware", &recommended, |line, states| {
        let deep: Vec<&IdleState> =
            states.iter().filter(|state| !state.disabled && state.latency_us > EXIT_LATENCY_US_OK).collect();
        let text = |states: &mut dyn Iterator<Item = &IdleState>| {
            states.map(|state| format!("{} {} us", state.name, state.latency_us)).collect::<Vec<_>>().join(", ")
        };
        if states.is_empty() {
            return line.ok("none", &recommended);
        }
        if deep.is_empty() {
            return line.ok(text(&mut states.iter().filter(|state| !state.disabled)), &recommended);
        }
        line.note(text(&mut deep.into_iter()), &recommended).shell([format!(
            "for s in /sys/devices/system/cpu/cpu*/cpuidle/state*; do [ \"$(cat \"$s/latency\")\" -gt \
             {EXIT_LATENCY_US_OK} ] && echo 1 > \"$s/disable\"; done; true"
        )])
    })
}

fn smt(facts: &Facts) -> Finding {
    let line = Line::new(
        "hardware threads",
        "two shards on the threads of one core share its units: give shards one thread of each core, or count on less \
         than twice the work",
    );
    line.judge(&facts.smt, "one a core, or not told", "one shard a core", |line, active| match active {
        0 => line.ok("one a core", "one shard a core"),
        _ => line.note("two or more a core", "one shard a core").by_hand(
            "lscpu -e shows which CPUs share a core; start the broker under taskset with one CPU of each, or set \
             CPUAffinity= in the service",
        ),
    })
}

fn isolation(facts: &Facts) -> Finding {
    let line = Line::new(
        "isolcpus",
        "on CPUs that the scheduler leaves alone a pinned shard is never moved aside; worth it for the last tenth of \
         the tail, and a loss where the CPUs are needed for other work",
    );
    let online = facts.online.known().map_or(0, Vec::len);
    line.judge(&facts.isolated, "not told", "the shards' CPUs", |line, isolated| {
        let text = list_text(isolated);
        if isolated.is_empty() && online < CPU_COUNT_FOR_ISOLATION {
            line.ok("none", "none with so few CPUs")
        } else if isolated.is_empty() {
            line.note("none", "the shards' CPUs, for the lowest tail")
                .by_hand("boot with isolcpus=LIST nohz_full=LIST rcu_nocbs=LIST irqaffinity=THE-OTHERS")
        } else if isolated.iter().any(|cpu| facts.allowed.contains(cpu)) {
            line.ok(text, "the shards' CPUs")
        } else {
            line.warn(format!("{text}, and this process may use none of them"), "the shards' CPUs")
                .by_hand(format!("start the broker with `taskset -c {text}`, or CPUAffinity={text} in the service"))
        }
    })
}

fn tickless(facts: &Facts) -> Finding {
    let line = Line::new(
        "nohz_full",
        "on isolated CPUs the timer tick is what is left of interruptions: 100 to 1000 a second of a microsecond or two",
    );
    let isolated = facts.isolated.known().cloned().unwrap_or_default();
    line.judge(&facts.tickless, "not in this kernel", "the same as isolcpus", |line, tickless| {
        match isolated.iter().all(|cpu| tickless.contains(cpu)) {
            true => line.ok(list_text(tickless), "the same as isolcpus"),
            false => line
                .note(list_text(tickless), list_text(&isolated))
                .by_hand(format!("boot with nohz_full={0} rcu_nocbs={0}", list_text(&isolated))),
        }
    })
}

fn interrupts(facts: &Facts) -> Finding {
    let line = Line::new(
        "interrupts",
        "an interrupt on a shard's isolated CPU stops the shard; elsewhere it is best on the CPU that waits for it, \
         and spread when there are several",
    );
    let isolated = facts.isolated.known().cloned().unwrap_or_default();
    line.judge(&facts.irqs, "not told", "off isolated CPUs, spread over the others", |line, irqs| {
        let busy: Vec<&Irq> = irqs.iter().filter(|irq| irq.count >= IRQ_COUNT_MIN && !irq.cpus.is_empty()).collect();
        let astray: Vec<&Irq> =
            busy.iter().copied().filter(|irq| irq.cpus.iter().any(|cpu| isolated.contains(cpu))).collect();
        let name = |irqs: &[&Irq]| {
            let few = irqs.iter().take(4).map(|irq| format!("{} on {}", irq.name, list_text(&irq.cpus)));
            let rest = irqs.len().saturating_sub(4);
            few.chain((rest > 0).then(|| format!("{rest} more"))).collect::<Vec<_>>().join(", ")
        };
        if !astray.is_empty() {
            let others: Vec<usize> =
                facts.online.known().into_iter().flatten().copied().filter(|cpu| !isolated.contains(cpu)).collect();
            let lines = astray
                .iter()
                .map(|irq| format!("echo {} > /proc/irq/{}/smp_affinity_list", list_text(&others), irq.number));
            return line.warn(name(&astray), "off isolated CPUs").shell(lines);
        }
        let mut used: Vec<usize> = busy.iter().flat_map(|irq| irq.cpus.iter().copied()).collect();
        used.sort_unstable();
        used.dedup();
        let online = facts.online.known().map_or(1, Vec::len);
        if busy.len() >= 4 && used.len() == 1 && online >= 4 {
            return line
                .note(format!("{} busy ones, all on CPU {}", busy.len(), list_text(&used)), "spread")
                .by_hand("run irqbalance, or write CPUs to /proc/irq/NUMBER/smp_affinity_list");
        }
        line.ok(if busy.is_empty() { "none is busy".to_string() } else { name(&busy) }, "spread")
    })
}

fn steal(facts: &Facts) -> Finding {
    let line = Line::new(
        "stolen time",
        "time in which a shard wanted to run and the hypervisor ran somebody else: a pause that no setting in here \
         mends, and noise in every measurement",
    );
    let recommended = format!("below {}.{} %", STEAL_PERMILLE_OK / 10, STEAL_PERMILLE_OK % 10);
    line.judge(&facts.steal_permille, "not told", &recommended, |line, permille| {
        let text = format!("{}.{} % since boot", permille / 10, permille % 10);
        match *permille {
            0..STEAL_PERMILLE_OK if facts.virtual_machine => line.ok(text, &recommended),
            0..STEAL_PERMILLE_OK => line.ok("none: no virtual machine", &recommended),
            _ => line.warn(text, &recommended).by_hand("ask for CPUs of its own, or pinned ones, at the hypervisor"),
        }
    })
}

fn numa(facts: &Facts) -> Finding {
    let line = Line::new(
        "NUMA",
        "the kernel's balancing unmaps pages to see who uses them, which stops shards that are pinned anyway; memory, \
         disk and network card of another node are farther",
    );
    line.judge(&facts.nodes, "one node", "one node, or balancing off", |line, nodes| {
        if nodes.len() <= 1 {
            return line.ok("one node", "one node, or balancing off");
        }
        let current = |balancing: &str| format!("{} nodes, balancing {balancing}", nodes.len());
        match facts.numa_balancing.known() {
            Some(0) => line.ok(current("off"), "balancing off"),
            Some(_) => line.warn(current("on"), "balancing off").sysctl("kernel.numa_balancing", 0),
            None => line.ok(current("not there"), "balancing off"),
        }
    })
}

/// `0,2-3` of 0, 2, 3; `none` of nothing.
fn list_text(cpus: &[usize]) -> String {
    let mut parts: Vec<(usize, usize)> = Vec::new();
    for &cpu in cpus {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == cpu => *last = cpu,
            _ => parts.push((cpu, cpu)),
        }
    }
    let text = |(first, last): &(usize, usize)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    if parts.is_empty() { "none".into() } else { parts.iter().map(text).collect::<Vec<_>>().join(",") }
}

#[cfg(test)]
mod tests {
    use super::super::finding::{Mend, Severity};
    use super::*;

    fn plain() -> Facts {
        Facts {
            online: Reading::Known((0..8).collect()),
            allowed: (0..8).collect(),
            governors: Reading::Known(vec!["performance".into()]),
            idle_states: Reading::Known(vec![IdleState { name: "C1".into(), latency_us: 2, disabled: false }]),
            smt: Reading::Known(0),
            isolated: Reading::Known(vec![4, 5, 6, 7]),
            tickless: Reading::Known(vec![4, 5, 6, 7]),
            irqs: Reading::Known(vec![Irq { number: 30, name: "nvme0q1".into(), count: 9999, cpus: vec![0] }]),
            steal_permille: Reading::Known(0),
            nodes: Reading::Known(vec![0]),
            numa_balancing: Reading::Absent,
            virtual_machine: false,
        }
    }

    #[test]
    fn a_tuned_host_has_nothing_to_say() {
        let found = check(&plain());
        assert!(found.iter().all(|finding| finding.severity == Severity::Ok), "{found:#?}");
    }

    #[test]
    fn one_lazy_governor_is_enough_for_a_warning() {
        let facts = Facts { governors: Reading::Known(vec!["performance".into(), "powersave".into()]), ..plain() };
        assert_eq!(governor(&facts).severity, Severity::Warn);
        assert_eq!(governor(&Facts { governors: Reading::Absent, ..plain() }).severity, Severity::Ok);
    }

    #[test]
    fn only_deep_idle_states_that_are_switched_on_count() {
        let deep = |disabled| IdleState { name: "C6".into(), latency_us: 130, disabled };
        let of = |states| idle(&Facts { idle_states: Reading::Known(states), ..plain() }).severity;
        assert_eq!((of(vec![deep(true)]), of(vec![deep(false)])), (Severity::Ok, Severity::Note));
    }

    #[test]
    fn interrupts_on_isolated_cpus_are_sent_to_the_others() {
        let irqs = vec![
            Irq { number: 31, name: "nvme0q5".into(), count: 50_000, cpus: vec![5] },
            Irq { number: 32, name: "rare".into(), count: 3, cpus: vec![5] },
        ];
        let found = interrupts(&Facts { irqs: Reading::Known(irqs), ..plain() });
        assert_eq!(found.severity, Severity::Warn);
        assert_eq!(found.mend, [Mend::Shell(vec!["echo 0-3 > /proc/irq/31/smp_affinity_list".into()])]);
    }

    #[test]
    fn isolation_is_for_hosts_with_cpus_to_spare_and_for_processes_that_may_use_them() {
        let of = |isolated: &[usize], online: usize, allowed: &[usize]| {
            let facts = Facts {
                isolated: Reading::Known(isolated.to_vec()),
                online: Reading::Known((0..online).collect()),
                allowed: allowed.to_vec(),
                ..plain()
            };
            isolation(&facts).severity
        };
        assert_eq!(of(&[], 2, &[0, 1]), Severity::Ok);
        assert_eq!(of(&[], 16, &[0, 1]), Severity::Note);
        assert_eq!(of(&[2, 3], 4, &[0, 1]), Severity::Warn);
        assert_eq!(of(&[2, 3], 4, &[2, 3]), Severity::Ok);
        let ticking = Facts { tickless: Reading::Known(vec![]), ..plain() };
        assert_eq!(super::tickless(&ticking).severity, Severity::Note);
    }

    #[test]
    fn stolen_time_and_far_memory_are_warned_of() {
        assert_eq!(steal(&Facts { steal_permille: Reading::Known(31), ..plain() }).severity, Severity::Warn);
        let two = Facts { nodes: Reading::Known(vec![0, 1]), numa_balancing: Reading::Known(1), ..plain() };
        assert_eq!(numa(&two).mend, [Mend::Sysctl("kernel.numa_balancing", "0".into())]);
        assert_eq!(numa(&Facts { numa_balancing: Reading::Known(0), ..two }).severity, Severity::Ok);
    }

    #[test]
    fn files_are_read_as_the_kernel_writes_them() {
        // A tree with two CPUs, one interrupt of a device and one of the architecture.
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write(
            "proc/interrupts",
            "     CPU0  CPU1\n 36:  5  2043469 PCI-MSIX-0000:00:02.0 1-edge virtio1-req.0\nNMI: 0 0 x\n",
        );
        write("proc/irq/36/effective_affinity_list", "1\n");
        write("proc/stat", "cpu  100 0 100 700 0 0 0 100 0 0\n");
        write("sys/devices/system/cpu/nohz_full", "(null)\n");
        write("sys/devices/system/cpu/cpufreq/policy0/scaling_governor", "powersave\n");
        write("sys/devices/system/cpu/cpu0/cpuidle/state0/name", "POLL\n");
        write("sys/devices/system/cpu/cpu0/cpuidle/state0/latency", "0\n");
        let facts = read(&Root::at(dir.path()));
        let irq = Irq { number: 36, name: "virtio1-req.0".into(), count: 2_043_474, cpus: vec![1] };
        assert_eq!(facts.irqs, Reading::Known(vec![irq]));
        assert_eq!(facts.steal_permille, Reading::Known(100));
        assert_eq!(facts.tickless, Reading::Known(vec![]));
        assert_eq!(facts.governors, Reading::Known(vec!["powersave".into()]));
        assert_eq!(facts.idle_states.known().unwrap().len(), 1);
        assert_eq!(facts.numa_balancing, Reading::Absent);
        assert_eq!(list_text(&[0, 2, 3]), "0,2-3");
    }
}
