//! CPU time: of a process with all its threads, of this one, of the machine.
//!
//! The process clock counts every thread of the process, the kernel workers of its rings included, and those that
//! have ended meanwhile. The machine's busy time also has what the kernel did for nobody in particular (interrupts,
//! softirqs), to the tick of `/proc/stat`.

use std::fs;
use std::time::Duration;

use anyhow::{Context, bail};
use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

/// The tick of `/proc/stat`, on every Linux that we run on.
const TICK: Duration = Duration::from_millis(10);

/// Reads the clocks; the difference of two readings is what was used in between.
#[derive(Clone, Copy, Debug)]
pub struct Meter {
    broker: Option<ClockId>,
    own: ClockId,
}

/// What was used since an unnamed start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuTime {
    /// By the broker's process, if it was named.
    pub broker: Option<Duration>,
    /// By this process.
    pub own: Duration,
    /// By the whole machine.
    pub machine: Duration,
}

impl CpuTime {
    /// What was used between `earlier` and this reading.
    pub fn since(&self, earlier: &CpuTime) -> CpuTime {
        CpuTime {
            broker: self.broker.zip(earlier.broker).map(|(now, then)| now.saturating_sub(then)),
            own: self.own.saturating_sub(earlier.own),
            machine: self.machine.saturating_sub(earlier.machine),
        }
    }
}

impl Meter {
    /// A meter of this process and, if it is on this machine and named, the broker's.
    pub fn new(broker_pid: Option<i32>) -> anyhow::Result<Meter> {
        let clock = |pid: i32| {
            clock_getcpuclockid(Pid::from_raw(pid)).with_context(|| format!("the CPU clock of process {pid}"))
        };
        Ok(Meter { broker: broker_pid.map(clock).transpose()?, own: ClockId::CLOCK_PROCESS_CPUTIME_ID })
    }

    /// Reads all clocks.
    pub fn read(&self) -> anyhow::Result<CpuTime> {
        let time = |clock| clock_gettime(clock).map(Duration::from).context("reading a CPU clock");
        let stat = fs::read_to_string("/proc/stat").context("reading /proc/stat")?;
        Ok(CpuTime { broker: self.broker.map(time).transpose()?, own: time(self.own)?, machine: busy(&stat)? })
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
    fn a_process_is_metered_with_what_it_burns() {
        // This process as its own broker: both clocks are the same and move.
        let meter = Meter::new(Some(std::process::id() as i32)).unwrap();
        let before = meter.read().unwrap();
        let mut used = meter.read().unwrap().since(&before);
        while used.own < Duration::from_millis(2) {
            used = meter.read().unwrap().since(&before);
        }
        assert!(used.broker.unwrap() > Duration::from_millis(1));
        // Above the greatest process id there is.
        assert!(Meter::new(Some((1 << 22) + 1)).is_err());
    }
}
