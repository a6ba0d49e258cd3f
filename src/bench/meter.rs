//! CPU time and memory: of the broker's process with all its threads, of this one, of the machine.
//!
//! The process clock counts every thread of the process, the kernel workers of its rings included, and those that
//! have ended meanwhile. What the workers alone used comes from `/proc/PID/task`: a worker ends after some idle
//! seconds, so it must be looked at now and then ([`Meter::watch`]). The machine's busy time also has what the kernel
//! did for nobody in particular (interrupts, softirqs), to the tick of `/proc/stat`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use anyhow::{Context, bail};
use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

/// The tick of `/proc/stat`, on every Linux that we run on.
const TICK: Duration = Duration::from_millis(10);

/// Reads the clocks; the difference of two readings is what was used in between.
#[derive(Clone, Debug)]
pub struct Meter {
    broker: Option<(Pid, ClockId)>,
    /// Kernel workers of the broker and what each has used when it was last seen.
    workers: BTreeMap<i32, Duration>,
    /// Its other threads, which are looked at once: there may be hundreds, and a look takes time from the load.
    others: BTreeSet<i32>,
}

/// What a process used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessTime {
    /// In all.
    pub total: Duration,
    /// In its own code.
    pub user: Duration,
    /// In the kernel, its workers included.
    pub system: Duration,
    /// Its kernel workers alone.
    pub workers: Duration,
}

/// What was used since an unnamed start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuTime {
    /// By the broker's process, if it was named.
    pub broker: Option<ProcessTime>,
    /// By this process.
    pub own: Duration,
    /// By the whole machine.
    pub machine: Duration,
}

/// Memory of a process in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Resident now.
    pub resident_bytes: u64,
    /// The most that ever was.
    pub resident_bytes_max: u64,
}

impl ProcessTime {
    fn since(self, earlier: ProcessTime) -> ProcessTime {
        ProcessTime {
            total: self.total.saturating_sub(earlier.total),
            user: self.user.saturating_sub(earlier.user),
            system: self.system.saturating_sub(earlier.system),
            workers: self.workers.saturating_sub(earlier.workers),
        }
    }
}

impl CpuTime {
    /// What was used between `earlier` and this reading.
    pub fn since(&self, earlier: &CpuTime) -> CpuTime {
        CpuTime {
            broker: self.broker.zip(earlier.broker).map(|(now, then)| now.since(then)),
            own: self.own.saturating_sub(earlier.own),
            machine: self.machine.saturating_sub(earlier.machine),
        }
    }
}

impl Meter {
    /// A meter of this process and, if it is on this machine and named, the broker's.
    pub fn new(broker_pid: Option<i32>) -> anyhow::Result<Meter> {
        let clock = |pid: i32| {
            let pid = Pid::from_raw(pid);
            let clock = clock_getcpuclockid(pid).with_context(|| format!("the CPU clock of process {pid}"))?;
            anyhow::Ok((pid, clock))
        };
        Ok(Meter { broker: broker_pid.map(clock).transpose()?, workers: BTreeMap::new(), others: BTreeSet::new() })
    }

    /// Reads all clocks.
    pub fn read(&mut self) -> anyhow::Result<CpuTime> {
        self.watch();
        let time = |clock| clock_gettime(clock).map(Duration::from).context("reading a CPU clock");
        let broker = match self.broker {
            None => None,
            Some((pid, clock)) => {
                let path = format!("/proc/{pid}/stat");
                let stat =
                    fs::read_to_string(&path).with_context(|| format!("reading {path}: has the broker ended?"))?;
                let (user, system) = user_and_system(&stat).with_context(|| format!("{path} is `{stat}`"))?;
                Some(ProcessTime { total: time(clock)?, user, system, workers: self.workers.values().sum() })
            }
        };
        let stat = fs::read_to_string("/proc/stat").context("reading /proc/stat")?;
        Ok(CpuTime { broker, own: time(ClockId::CLOCK_PROCESS_CPUTIME_ID)?, machine: busy(&stat)? })
    }

    /// Looks at the broker's kernel workers, so that none ends unseen with more than was used since the last look.
    pub fn watch(&mut self) {
        let Some((pid, _)) = self.broker else { return };
        let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return };
        for task in tasks.flatten() {
            let Some(id) = task.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            if self.others.contains(&id) {
                continue;
            }
            let path = task.path();
            if !self.workers.contains_key(&id) {
                match fs::read_to_string(path.join("comm")) {
                    Ok(name) if is_kernel_worker(&name) => {}
                    Ok(_) => {
                        self.others.insert(id);
                        continue;
                    }
                    Err(_) => continue,
                }
            }
            // Time on a CPU in nanoseconds comes first in `schedstat`.
            let used = fs::read_to_string(path.join("schedstat"));
            if let Some(used) = used.ok().and_then(|text| text.split_whitespace().next()?.parse().ok()) {
                self.workers.insert(id, Duration::from_nanos(used));
            }
        }
    }

    /// The broker's memory, if it was named.
    pub fn memory(&self) -> Option<Memory> {
        let (pid, _) = self.broker?;
        Some(memory(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?))
    }
}

/// Threads that the kernel made for the rings of a process.
fn is_kernel_worker(name: &str) -> bool {
    name.starts_with("iou-wrk") || name.starts_with("iou-sqp")
}

/// Fields 14 and 15 of `/proc/PID/stat`, in ticks. The second field may hold anything, so they are counted from its
/// closing bracket.
fn user_and_system(stat: &str) -> Option<(Duration, Duration)> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || Some(TICK * fields.next()?.parse::<u32>().ok()?);
    Some((ticks()?, ticks()?))
}

fn memory(status: &str) -> Memory {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':').trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    };
    Memory {
        resident_bytes: field("VmRSS").unwrap_or(0) * 1024,
        resident_bytes_max: field("VmHWM").unwrap_or(0) * 1024,
    }
}

/// The first line's busy time: everything but idle, waiting for disks, and stolen by a hypervisor.
fn busy(stat: &str) -> anyhow::Result<Duration> {
    let line = stat.lines().next().unwrap_or_default();
    let mut fields = line.split_whitespace();
    if fields.next() != Some("cpu") {
        bail!("/proc/stat begins with `{line}`");
    }
    let ticks: Vec<u64> = fields.map(str::parse).collect::<Result<_, _>>().context("/proc/stat")?;
    // user nice system (idle iowait) irq softirq
    let busy: u64 = [0, 1, 2, 5, 6].into_iter().filter_map(|field| ticks.get(field)).sum();
    Ok(TICK * u32::try_from(busy).context("/proc/stat")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_time_leaves_out_idle_and_stolen_time() {
        let stat = "cpu  100 20 30 4000 500 6 7 800 0 0\ncpu0 1 1 1 1\n";
        assert_eq!(busy(stat).unwrap(), Duration::from_millis(1630));
        assert!(busy("intr 5").is_err());
    }

    #[test]
    fn a_process_name_with_brackets_and_spaces_hides_nothing() {
        let stat = "17 (a) b (c) S 1 17 17 0 -1 4194560 2530 0 1 0 250 75 0 0 20 0 3 0 123 4567 89";
        let expected = (Duration::from_millis(2500), Duration::from_millis(750));
        assert_eq!(user_and_system(stat), Some(expected));
        assert_eq!(user_and_system("17 (ottla) S 1"), None);
    }

    #[test]
    fn memory_is_read_in_bytes() {
        let status = "Name:\tottla\nVmPeak:\t 9 kB\nVmHWM:\t   2048 kB\nVmRSS:\t   1024 kB\n";
        assert_eq!(memory(status), Memory { resident_bytes: 1 << 20, resident_bytes_max: 2 << 20 });
        assert_eq!(memory("Name: zombie\n"), Memory::default());
    }

    #[test]
    fn a_process_is_metered_with_what_it_burns() {
        // This process as its own broker: both clocks are the same and move.
        let mut meter = Meter::new(Some(std::process::id() as i32)).unwrap();
        let before = meter.read().unwrap();
        let mut used = meter.read().unwrap().since(&before);
        while used.own < Duration::from_millis(2) {
            used = meter.read().unwrap().since(&before);
        }
        assert!(used.broker.unwrap().total > Duration::from_millis(1));
        assert!(meter.memory().unwrap().resident_bytes > 1 << 20);
        // Above the greatest process id there is.
        assert!(Meter::new(Some((1 << 22) + 1)).is_err());
    }
}
