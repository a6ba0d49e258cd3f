//! The network: queues and buffers of the kernel, and the interfaces that reach other hosts.

use super::finding::{Finding, Line, Severity};
use super::reading::{Reading, Root};
use crate::base::units::{KIB, MIB, human_bytes};
use crate::io::interface::{InterfaceReport, interface_report};

/// Clients that come back together after a restart.
const ACCEPT_QUEUE_OK: u64 = 4096;
/// A window for 10 Gbit/s over a few milliseconds.
const WINDOW_BYTES_OK: u64 = 4 * MIB as u64;
const WINDOW_BYTES_BEST: u64 = 16 * MIB as u64;
/// The kernel's default bound on what a program may ask for a socket, below which Kafka clients' settings are cut.
const SOCKET_BYTES_OK: u64 = 2 * MIB as u64;
/// What the broker lets a stopped receiver hold, and how many of them a host should stand.
const UNSENT_BYTES: u64 = 512 * KIB as u64;
const STOPPED_RECEIVER_COUNT: u64 = 1000;
/// Outgoing ports for a load generator on this host.
const PORT_COUNT_OK: u64 = 20_000;
/// The page of nearly every host: tcp_mem counts in it.
const PAGE_BYTES: u64 = 4096;

/// What was found out about the network.
#[derive(Clone, Debug)]
pub struct Facts {
    /// `net.core.somaxconn`.
    pub accept_queue: Reading<u64>,
    /// `net.ipv4.tcp_max_syn_backlog`.
    pub syn_queue: Reading<u64>,
    /// `net.ipv4.tcp_rmem`: least, default, most.
    pub receive_window: Reading<Vec<u64>>,
    /// `net.ipv4.tcp_wmem`.
    pub send_window: Reading<Vec<u64>>,
    /// `net.core.rmem_max`.
    pub receive_max: Reading<u64>,
    /// `net.core.wmem_max`.
    pub send_max: Reading<u64>,
    /// `net.ipv4.tcp_mem`, in pages: low, pressure, high.
    pub tcp_memory: Reading<Vec<u64>>,
    /// `net.core.busy_read`, microseconds.
    pub busy_read: Reading<u64>,
    /// `net.core.busy_poll`, microseconds.
    pub busy_poll: Reading<u64>,
    /// `net.core.netdev_max_backlog`.
    pub packet_queue: Reading<u64>,
    /// Packets that found it full, since boot.
    pub dropped_count: Reading<u64>,
    /// `net.ipv4.tcp_slow_start_after_idle`.
    pub slow_start_after_idle: Reading<u64>,
    /// `net.ipv4.ip_local_port_range`.
    pub ports: Reading<Vec<u64>>,
    /// Those with a device behind them, or the one that was asked for.
    pub interfaces: Vec<Interface>,
}

/// One interface.
#[derive(Clone, Debug)]
pub struct Interface {
    /// As `ip link` shows it.
    pub name: String,
    /// `up`, `down`, ….
    pub state: Reading<String>,
    /// Greatest packet.
    pub mtu: Reading<u64>,
    /// Mbit/s; virtual ones do not tell.
    pub speed_mbit: Reading<u64>,
    /// What the driver says.
    pub report: Reading<InterfaceReport>,
}

/// Reads the facts; of `only` that interface, if it is given.
pub fn read(root: &Root, only: Option<&str>) -> Facts {
    Facts {
        accept_queue: root.sysctl_number("net.core.somaxconn"),
        syn_queue: root.sysctl_number("net.ipv4.tcp_max_syn_backlog"),
        receive_window: root.sysctl_numbers("net.ipv4.tcp_rmem"),
        send_window: root.sysctl_numbers("net.ipv4.tcp_wmem"),
        receive_max: root.sysctl_number("net.core.rmem_max"),
        send_max: root.sysctl_number("net.core.wmem_max"),
        tcp_memory: root.sysctl_numbers("net.ipv4.tcp_mem"),
        busy_read: root.sysctl_number("net.core.busy_read"),
        busy_poll: root.sysctl_number("net.core.busy_poll"),
        packet_queue: root.sysctl_number("net.core.netdev_max_backlog"),
        dropped_count: root.text("proc/net/softnet_stat").parse(|text| dropped_count(text)),
        slow_start_after_idle: root.sysctl_number("net.ipv4.tcp_slow_start_after_idle"),
        ports: root.sysctl_numbers("net.ipv4.ip_local_port_range"),
        interfaces: interfaces(root, only),
    }
}

fn interfaces(root: &Root, only: Option<&str>) -> Vec<Interface> {
    const NET: &str = "sys/class/net";
    let names = match only {
        Some(name) => vec![name.to_string()],
        None => {
            let all = root.names(NET).known().cloned().unwrap_or_default();
            all.into_iter().filter(|name| root.path(format!("{NET}/{name}/device")).exists()).collect()
        }
    };
    let interface = |name: String| {
        let dir = format!("{NET}/{name}");
        Interface {
            state: root.text(format!("{dir}/operstate")),
            mtu: root.number(format!("{dir}/mtu")),
            // Virtual ones answer -1 or an error: they do not have it.
            speed_mbit: match root.number(format!("{dir}/speed")) {
                Reading::Known(speed) => Reading::Known(speed),
                _ => Reading::Absent,
            },
            report: Reading::from(interface_report(&name)),
            name,
        }
    };
    names.into_iter().map(interface).collect()
}

/// The second column of each CPU's line, hexadecimal.
fn dropped_count(text: &str) -> Option<u64> {
    text.lines().map(|line| u64::from_str_radix(line.split_whitespace().nth(1)?, 16).ok()).sum()
}

/// Judges them.
pub fn check(facts: &Facts) -> Vec<Finding> {
    let mut found = vec![
        at_least(
            Line::new(
                "net.core.somaxconn",
                "connections that wait to be accepted, after a restart all clients at once; beyond it they are turned away and try again after a second",
            ),
            &facts.accept_queue,
            "net.core.somaxconn",
            ACCEPT_QUEUE_OK,
            Severity::Warn,
        ),
        at_least(
            Line::new("net.ipv4.tcp_max_syn_backlog", "the same for connections that are being opened"),
            &facts.syn_queue,
            "net.ipv4.tcp_max_syn_backlog",
            1024,
            Severity::Note,
        ),
        window("net.ipv4.tcp_rmem", "the greatest receive window", &facts.receive_window),
        window("net.ipv4.tcp_wmem", "the most that may be on its way to one client", &facts.send_window),
        at_least(
            Line::new(
                "net.core.rmem_max",
                "bound on receive.buffer.bytes of Kafka clients and on socket.receive.buffer.bytes: what asks for more gets this, and no growing window",
            ),
            &facts.receive_max,
            "net.core.rmem_max",
            SOCKET_BYTES_OK,
            Severity::Note,
        ),
        at_least(
            Line::new("net.core.wmem_max", "the same for send.buffer.bytes"),
            &facts.send_max,
            "net.core.wmem_max",
            SOCKET_BYTES_OK,
            Severity::Note,
        ),
        tcp_memory(facts),
        busy_poll(facts),
        dropped(facts),
        slow_start(facts),
        ports(facts),
    ];
    for interface in &facts.interfaces {
        found.extend(interface_findings(interface));
    }
    found
}

fn at_least(line: Line, reading: &Reading<u64>, key: &'static str, least: u64, severity: Severity) -> Finding {
    let recommended = format!("{least} or more");
    line.judge(reading, "not told", &recommended, |line, value| match *value >= least {
        true => line.ok(value.to_string(), &recommended),
        false => line.is(severity, value.to_string(), &recommended).sysctl(key, least),
    })
}

fn window(key: &'static str, what: &str, reading: &Reading<Vec<u64>>) -> Finding {
    let line = Line::new(
        key,
        format!(
            "its last number is {what}: on a fast or long network throughput of one connection is this by the round \
             trip time"
        ),
    );
    let recommended = format!("up to {} or more", human_bytes(WINDOW_BYTES_OK));
    line.judge(reading, "not told", &recommended, |line, values| match values[..] {
        [_, _, most] if most >= WINDOW_BYTES_OK => line.ok(format!("up to {}", human_bytes(most)), &recommended),
        [least, default, most] => line
            .note(format!("up to {}", human_bytes(most)), &recommended)
            .sysctl(key, format!("{least} {default} {WINDOW_BYTES_BEST}")),
        _ => line.is(Severity::Unknown, format!("not understood: {values:?}"), &recommended),
    })
}

fn tcp_memory(facts: &Facts) -> Finding {
    let least = UNSENT_BYTES * STOPPED_RECEIVER_COUNT;
    let line = Line::new(
        "net.ipv4.tcp_mem",
        "memory of all TCP sockets of the host: from its second number on every window shrinks, so that receivers \
         that have stopped slow down those that have not",
    );
    let recommended = format!("{} or more under pressure", human_bytes(least));
    line.judge(&facts.tcp_memory, "not told", &recommended, |line, values| match values[..] {
        [_, pressure, high] => {
            let current =
                format!("pressure at {}, limit {}", human_bytes(pressure * PAGE_BYTES), human_bytes(high * PAGE_BYTES));
            match pressure * PAGE_BYTES >= least {
                true => line.ok(current, &recommended),
                false => {
                    let pages = least / PAGE_BYTES;
                    line.note(current, &recommended)
                        .sysctl("net.ipv4.tcp_mem", format!("{} {pages} {}", pages * 3 / 4, pages * 3 / 2))
                }
            }
        }
        _ => line.is(Severity::Unknown, format!("not understood: {values:?}"), &recommended),
    })
}

fn busy_poll(facts: &Facts) -> Finding {
    let line = Line::new(
        "busy polling",
        "net.core.busy_read and busy_poll let a receiver look at the card itself before it sleeps: some microseconds \
         less for a CPU that is never idle, and nothing on loopback",
    );
    line.judge(&facts.busy_read, "not in this kernel", "0, or 50 us for the lowest latency", |line, read| {
        let poll = facts.busy_poll.known().copied().unwrap_or(0);
        let recommended = "0, or 50 us for the lowest latency";
        match (*read, poll) {
            (0, 0) => line.ok("off", recommended),
            (read, poll) => line.note(format!("read {read} us, poll {poll} us: a CPU is never idle"), recommended),
        }
    })
}

fn dropped(facts: &Facts) -> Finding {
    let line = Line::new(
        "dropped packets",
        "packets, those on loopback too, that found net.core.netdev_max_backlog full since boot: each is a pause \
         of 200 ms or more for its connection",
    );
    line.judge(&facts.dropped_count, "not told", "none", |line, dropped| match (*dropped, facts.packet_queue.known()) {
        (0, _) => line.ok("none", "none"),
        (count, queue) => {
            let queue = queue.copied().unwrap_or(1000);
            line.warn(format!("{count} with a queue of {queue}"), "none")
                .sysctl("net.core.netdev_max_backlog", (queue * 4).max(16_384))
        }
    })
}

fn slow_start(facts: &Facts) -> Finding {
    let line = Line::new(
        "net.ipv4.tcp_slow_start_after_idle",
        "with 1 a connection that was idle for a moment begins again with ten packets a round trip: batches that come \
         now and then pay for it, over a network",
    );
    line.judge(&facts.slow_start_after_idle, "not told", "0", |line, value| match value {
        0 => line.ok("0", "0"),
        value => line.note(value.to_string(), "0").sysctl("net.ipv4.tcp_slow_start_after_idle", 0),
    })
}

fn ports(facts: &Facts) -> Finding {
    let line = Line::new(
        "net.ipv4.ip_local_port_range",
        "for load generators on this host: connections to one address need a port each, and a closed one keeps it for \
         a minute",
    );
    let recommended = format!("{PORT_COUNT_OK} ports or more");
    line.judge(&facts.ports, "not told", &recommended, |line, values| match values[..] {
        [first, last] if last >= first + PORT_COUNT_OK => line.ok(format!("{first}-{last}"), &recommended),
        [first, last] => {
            line.note(format!("{first}-{last}"), &recommended).sysctl("net.ipv4.ip_local_port_range", "15000 65535")
        }
        _ => line.is(Severity::Unknown, format!("not understood: {values:?}"), &recommended),
    })
}

fn interface_findings(interface: &Interface) -> Vec<Finding> {
    let name = &interface.name;
    let link = Line::new(format!("{name} link"), "a full link is the first bound on throughput");
    let mtu = interface.mtu.known().map_or(String::new(), |mtu| format!(", MTU {mtu}"));
    let state = interface.state.clone().map(|state| match interface.speed_mbit.known() {
        Some(speed) => format!("{state}, {speed} Mbit/s{mtu}"),
        None => format!("{state}{mtu}"),
    });
    let mut found = vec![link.judge(&state, "not there", "up", |line, text| line.ok(text, "up"))];
    let rings = Line::new(
        format!("{name} rings"),
        "a burst that does not fit into the receive ring is lost; larger rings cost memory and a little cache",
    );
    let offloads = Line::new(
        format!("{name} offloads"),
        "without them the CPU computes checksums and cuts and joins packets: a third more CPU a byte, and more",
    );
    let coalescing = Line::new(
        format!("{name} coalescing"),
        "a received packet waits so long for others before the interrupt: fewer interrupts, and latency",
    );
    found.push(rings.judge(&interface.report, "not told", "at least half of the card's", |line, report| {
        let recommended = "at least half of the card's";
        let Some((receive, send)) = report.rings else { return line.ok("the driver does not tell", recommended) };
        let current = format!("rx {} of {}, tx {} of {}", receive.current, receive.max, send.current, send.max);
        match receive.current * 2 >= receive.max && send.current * 2 >= send.max {
            true => line.ok(current, recommended),
            false => {
                line.note(current, recommended).shell([format!("ethtool -G {name} rx {} tx {}", receive.max, send.max)])
            }
        }
    }));
    found.push(offloads.judge(&interface.report, "not told", "all on", |line, report| {
        let off: Vec<&str> = report.offloads.iter().filter(|(_, on)| !on).map(|(name, _)| *name).collect();
        match (report.offloads.is_empty(), off.is_empty()) {
            (true, _) => line.ok("the driver does not tell", "all on"),
            (_, true) => line.ok("all on", "all on"),
            _ => line.warn(format!("off: {}", off.join(", ")), "all on").shell([format!(
                "ethtool -K {name} {}",
                off.iter().map(|name| format!("{} on", flag(name))).collect::<Vec<_>>().join(" ")
            )]),
        }
    }));
    found.push(coalescing.judge(&interface.report, "not told", "as it is, or 0 for latency", |line, report| {
        let recommended = "as it is, or 0 us for the lowest latency";
        match report.receive_coalescing_us {
            None => line.ok("the driver does not tell", recommended),
            Some(us) if us <= 10 => line.ok(format!("{us} us"), recommended),
            Some(us) => line
                .note(format!("{us} us"), recommended)
                .shell([format!("ethtool -C {name} adaptive-rx off rx-usecs 0")]),
        }
    }));
    found
}

/// The offload as ethtool's command line calls it.
fn flag(name: &str) -> &str {
    match name {
        "rx checksum" => "rx",
        "tx checksum" => "tx",
        "scatter-gather" => "sg",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Mend;
    use super::*;
    use crate::io::interface::RingSize;

    fn report() -> InterfaceReport {
        let rings = (RingSize { current: 512, max: 1024 }, RingSize { current: 1024, max: 1024 });
        InterfaceReport {
            rings: Some(rings),
            offloads: vec![("tso", true), ("gro", true)],
            receive_coalescing_us: Some(3),
        }
    }

    fn plain() -> Facts {
        let interface = Interface {
            name: "eth0".into(),
            state: Reading::Known("up".into()),
            mtu: Reading::Known(9000),
            speed_mbit: Reading::Known(25_000),
            report: Reading::Known(report()),
        };
        Facts {
            accept_queue: Reading::Known(4096),
            syn_queue: Reading::Known(4096),
            receive_window: Reading::Known(vec![4096, 131_072, 6 << 20]),
            send_window: Reading::Known(vec![4096, 16_384, 4 << 20]),
            receive_max: Reading::Known(4 << 20),
            send_max: Reading::Known(4 << 20),
            tcp_memory: Reading::Known(vec![287_901, 383_869, 575_802]),
            busy_read: Reading::Known(0),
            busy_poll: Reading::Known(0),
            packet_queue: Reading::Known(1000),
            dropped_count: Reading::Known(0),
            slow_start_after_idle: Reading::Known(0),
            ports: Reading::Known(vec![15_000, 65_535]),
            interfaces: vec![interface],
        }
    }

    #[test]
    fn a_tuned_network_has_nothing_to_say() {
        let found = check(&plain());
        assert!(found.iter().all(|finding| finding.severity == Severity::Ok), "{found:#?}");
    }

    #[test]
    fn small_queues_and_windows_are_mended_by_their_sysctls() {
        let facts = Facts {
            accept_queue: Reading::Known(128),
            receive_window: Reading::Known(vec![4096, 131_072, 1 << 20]),
            tcp_memory: Reading::Known(vec![10_000, 20_000, 30_000]),
            dropped_count: Reading::Known(12),
            slow_start_after_idle: Reading::Known(1),
            ports: Reading::Known(vec![32_768, 40_000]),
            ..plain()
        };
        let found = check(&facts);
        let mends: Vec<&Mend> = found.iter().flat_map(|finding| &finding.mend).collect();
        assert_eq!(mends.len(), 6);
        assert!(mends.contains(&&Mend::Sysctl("net.core.somaxconn", "4096".into())));
        assert!(mends.contains(&&Mend::Sysctl("net.ipv4.tcp_rmem", "4096 131072 16777216".into())));
        assert!(mends.contains(&&Mend::Sysctl("net.ipv4.tcp_mem", "96000 128000 192000".into())));
        assert!(mends.contains(&&Mend::Sysctl("net.core.netdev_max_backlog", "16384".into())));
    }

    #[test]
    fn a_cards_rings_offloads_and_coalescing_are_judged() {
        let mut facts = plain();
        facts.interfaces[0].report = Reading::Known(InterfaceReport {
            rings: Some((RingSize { current: 256, max: 4096 }, RingSize { current: 4096, max: 4096 })),
            offloads: vec![("tx checksum", false), ("gro", false), ("tso", true)],
            receive_coalescing_us: Some(50),
        });
        let found = interface_findings(&facts.interfaces[0]);
        let severities: Vec<_> = found.iter().map(|finding| finding.severity).collect();
        assert_eq!(severities, [Severity::Ok, Severity::Note, Severity::Warn, Severity::Note]);
        assert_eq!(found[2].mend, [Mend::Shell(vec!["ethtool -K eth0 tx on gro on".into()])]);
        facts.interfaces[0].report = Reading::Unread("operation not permitted".into());
        assert_eq!(interface_findings(&facts.interfaces[0])[1].severity, Severity::Unknown);
    }

    #[test]
    fn drops_are_counted_over_all_cpus_in_hexadecimal() {
        assert_eq!(dropped_count("0059 00000010 0\n005e 00000001 0\n"), Some(17));
        assert_eq!(dropped_count("x"), None);
    }
}
