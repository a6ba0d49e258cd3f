//! The table of everything that `ottla serve` can be told, one row each.
//!
//! A row gives the flag `--KEY`, the variable `OTTLA_KEY`, the key in the configuration file, the text that help and
//! `--print-config` show, and the default. What a value means is decided in [`super::options`].
//!
//! Invariant: keys are unique, in the order in which they are printed.

/// How a setting takes its value on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `--key VALUE`.
    Text,
    /// `--key` or `--key=BOOL`.
    Switch,
    /// Like a switch that is on by default: also `--no-key`.
    SwitchOn,
    /// `--key` or `--key=NUMBER`.
    OptionalNumber,
    /// `--key VALUE`, a number: printed without quotes.
    Number,
}

/// One row.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The flag without its dashes, and the key in the file.
    pub key: &'static str,
    /// What help calls its value.
    pub value_name: &'static str,
    /// How the value is given.
    pub kind: Kind,
    /// The default as text; `None` if it is worked out or absent.
    pub default: Option<&'static str>,
    /// One or two sentences for `--help`.
    pub help: &'static str,
    /// The heading in `--help`.
    pub heading: &'static str,
}

const fn row(
    heading: &'static str,
    key: &'static str,
    value_name: &'static str,
    kind: Kind,
    default: Option<&'static str>,
    help: &'static str,
) -> Setting {
    Setting { key, value_name, kind, default, help, heading }
}

const BASE: &str = "Broker";
const MEMORY: &str = "Memory and data path";
const RING: &str = "io_uring";
const LOG: &str = "Logs";

/// Every setting but `config`, which names the file, and `set`, which carries broker configs.
#[rustfmt::skip]
pub const SETTINGS: &[Setting] = &[
    row(BASE, "data-dir", "DIR", Kind::Text, Some("./ottla-data"), "Where records and metadata live; created if it is not there."),
    row(BASE, "listen", "ADDRESS[,ADDRESS...]", Kind::Text, Some("127.0.0.1:9092"), "One address, from which ports count up by shard, or one address for each shard. Port 0 takes free ports."),
    row(BASE, "advertise", "HOST:PORT[,HOST:PORT...]", Kind::Text, None, "What clients are told to connect to, in the forms of --listen [default: the listening addresses]."),
    row(BASE, "shards", "N", Kind::Number, None, "Shards, each a thread, a ring, a port and a broker to clients [default: what the data directory has; at first start the usable CPUs, at most 8]."),
    row(BASE, "node-id", "N", Kind::Number, Some("0"), "Shard i is broker N * 1000 + i + 1."),
    row(BASE, "pin", "BOOL", Kind::SwitchOn, Some("true"), "Pin each shard's thread to a CPU."),
    row(BASE, "replication-factor-policy", "POLICY", Kind::Text, None, "What a replication factor above 1 gets from a single node: truthful (1, and answered as 1), refuse, or pretend (answered as asked). Short for --set ottla.replication.factor.policy=POLICY [default: truthful]."),
    row(BASE, "stall-threshold-ms", "MS", Kind::Number, Some("100"), "Log a turn of a shard's loop that takes longer, with what ran."),
    row(MEMORY, "memory-per-shard", "SIZE", Kind::Text, None, "Bound on a shard's buffers: staging, tail cache, receiving, responses [default: a quarter of the memory, shared out among the shards]."),
    row(MEMORY, "tail-cache", "SIZE", Kind::Text, None, "Part of it that keeps the newest records for fetches; taken as records come [default: half of it, at most 256MiB]."),
    row(MEMORY, "huge-pages", "BOOL", Kind::SwitchOn, Some("true"), "Ask for huge pages for the shards' memory (madvise)."),
    row(MEMORY, "splice-min-bytes", "SIZE", Kind::Text, Some("128KiB"), "Sealed ranges of at least this size go from file to socket without a copy."),
    row(RING, "ring-entries", "N", Kind::Number, Some("256"), "Submission queue entries, a power of two."),
    row(RING, "ring-cq-entries", "N", Kind::Number, Some("1024"), "Completion queue entries, a power of two."),
    row(RING, "ring-sqpoll", "IDLE_MS", Kind::OptionalNumber, Some("false"), "Let a kernel thread take submissions, asleep after so many idle milliseconds (1000 without a number). Drops the task-run flags."),
    row(RING, "ring-sqpoll-cpu", "CPU", Kind::Number, None, "CPU of those threads [default: any]."),
    row(RING, "ring-spin-us", "US", Kind::Number, Some("0"), "Poll the ring so long before sleeping."),
    row(RING, "ring-fixed-files", "BOOL", Kind::Switch, Some("false"), "Register files and sockets with the ring."),
    row(RING, "ring-registered-buffers", "SIZE", Kind::Text, None, "Register so much of each shard's memory with its ring; it is locked from the start [default: none]."),
    row(RING, "ring-no-defer-taskrun", "BOOL", Kind::Switch, Some("false"), "Do not ask for DEFER_TASKRUN and COOP_TASKRUN."),
    row(RING, "ring-worker-bounded-max", "N", Kind::Number, Some("16"), "Kernel workers for file operations of each ring; 0 leaves it to the kernel."),
    row(RING, "ring-worker-unbounded-max", "N", Kind::Number, Some("8"), "Kernel workers for socket and pipe operations of each ring; 0 leaves it to the kernel."),
    row(RING, "ring-worker-cpus", "LIST", Kind::Text, None, "CPUs for the rings' kernel workers, such as 2,4-6 [default: the shard's]."),
    row(RING, "ring-send-zc-min-bytes", "SIZE", Kind::Text, None, "Send pieces of at least this size with zero-copy send [default: never]."),
    row(LOG, "log-format", "FORMAT", Kind::Text, Some("text"), "text or json."),
    row(LOG, "log-level", "LEVEL", Kind::Text, Some("info"), "error, warn, info, debug or trace, or a filter such as `info,ottla::storage=debug`."),
];

/// The row of `key`.
pub fn find(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

/// The variable of `key`: `ring-entries` is `OTTLA_RING_ENTRIES`.
pub fn variable(key: &str) -> String {
    format!("OTTLA_{}", key.to_ascii_uppercase().replace('-', "_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_unique_and_have_distinct_variables() {
        let keys: std::collections::BTreeSet<_> = SETTINGS.iter().map(|s| s.key).collect();
        let variables: std::collections::BTreeSet<_> = SETTINGS.iter().map(|s| variable(s.key)).collect();
        assert_eq!((keys.len(), variables.len()), (SETTINGS.len(), SETTINGS.len()));
        assert_eq!(variable("ring-cq-entries"), "OTTLA_RING_CQ_ENTRIES");
    }
}
