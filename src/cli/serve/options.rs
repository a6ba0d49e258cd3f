//! Merged texts to validated options: what the broker is started with.
//!
//! Invariant: a [`ServeOptions`] can be acted on without further checks of form; what the host can do is
//! [`super::preflight`]'s business. It must not read the environment, files or the clock: facts arrive as values.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use super::layers::{Merged, Source, Value};
use crate::base::units::{KIB, MIB, align_down};
use crate::cli::exit::UsageError;
use crate::cli::size::{parse_bool, parse_size_bytes};
use crate::cli::suggest::did_you_mean;
use crate::io::uring::{RingOptions, SubmissionPolling};
use crate::model::configs::BrokerConfig;
use crate::model::id::NodeId;
use crate::model::limits::SHARD_COUNT_MAX;

/// Node ids that leave room for the shards in an `i32` broker id (`id * 1000 + shard + 1`).
const NODE_ID_MAX: i64 = 2_147_482;
/// The default number of shards stops here: more rarely pays before somebody has measured.
pub const SHARD_COUNT_DEFAULT_MAX: usize = 8;
/// A shard needs room for one request frame and its staging.
const MEMORY_PER_SHARD_BYTES_MIN: u64 = (8 * MIB) as u64;
/// On the smallest machines: a Produce request of ordinary size for each of many connections.
const MEMORY_PER_SHARD_BYTES_DEFAULT_MIN: u64 = (64 * MIB) as u64;
/// See [`settle_memory`].
const TAIL_CACHE_BYTES_DEFAULT_MAX: u64 = (256 * MIB) as u64;
/// Where the machine's memory cannot be read.
const MEMORY_PER_SHARD_BYTES_UNTOLD: u64 = (256 * MIB) as u64;

/// What the options depend on besides what was written.
#[derive(Clone, Debug)]
pub struct Facts {
    /// CPUs that this process may use: affinity mask and cgroup quota, at least 1.
    pub cpu_count: usize,
    /// Bytes of memory that this process may use, if that is told.
    pub memory_bytes: Option<u64>,
    /// The shard count that the data directory remembers, if it has been started before.
    pub stored_shard_count: Option<usize>,
    /// This host's name, for clients that cannot use a wildcard address.
    pub host_name: String,
}

/// Everything that `ottla serve` starts with.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// Where records and metadata live.
    pub data_dir: PathBuf,
    /// This node.
    pub node_id: NodeId,
    /// Shards to run, 1 to [`SHARD_COUNT_MAX`].
    pub shard_count: usize,
    /// Whence that number. If it is not [`Source::DataDirectory`] it may differ from what the directory remembers,
    /// and partitions then change their owners.
    pub shard_count_source: Source,
    /// One address per shard. Port 0 takes a free port.
    pub listen: Vec<SocketAddr>,
    /// What clients are told, one per shard.
    pub advertise: Vec<Advertised>,
    /// Pin shard threads to CPUs.
    pub pin: bool,
    /// Each shard's ring.
    pub ring: RingOptions,
    /// Bound on a shard's buffers.
    pub memory_per_shard_bytes: u64,
    /// Part of it for the newest records; less than half.
    pub tail_cache_bytes: u64,
    /// Ranges of sealed segments of at least this size are spliced.
    pub splice_min_bytes: u64,
    /// Loop turns longer than this are logged.
    pub stall_threshold: Duration,
    /// Broker configs under Kafka's names, parsed; among them what replication factors above 1 get.
    pub broker: BrokerConfig,
    /// Those that somebody set, as written, with their sources.
    pub broker_settings: BTreeMap<String, Value>,
    /// How to log.
    pub log: LogOptions,
    /// To be logged at start.
    pub warnings: Vec<String>,
}

/// A host and port for clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertised {
    /// Name or address.
    pub host: String,
    /// Port; 0 stands for the port that the shard was bound to.
    pub port: u16,
}

/// How to log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// JSON lines instead of text.
    pub json: bool,
    /// A `tracing` filter.
    pub filter: String,
}

/// Checks every value and works out what was left open.
pub fn resolve(merged: &mut Merged, facts: &Facts) -> Result<ServeOptions, UsageError> {
    settle_shard_count(merged, facts);
    let broker = broker_config(merged)?;
    let shard_count = Reader { merged }.number("shards", 1, SHARD_COUNT_MAX as i64)?.expect("settled above") as usize;
    settle_memory(merged, facts, shard_count)?;
    let read = Reader { merged };
    let listen = read.with("listen", |text| listen_addresses(text, shard_count))?.expect("has a default");
    let mut warnings = Vec::new();
    let advertise = match read.with("advertise", |text| advertised(text, shard_count))? {
        Some(addresses) => addresses,
        None => advertise_listening(&listen, &facts.host_name, &mut warnings),
    };
    let memory_per_shard_bytes = read.size("memory-per-shard")?.expect("settled above");
    if memory_per_shard_bytes < MEMORY_PER_SHARD_BYTES_MIN {
        return Err(read.error("memory-per-shard", "a shard needs at least 8MiB"));
    }
    let tail_cache_bytes = read.size("tail-cache")?.expect("settled above");
    if tail_cache_bytes > memory_per_shard_bytes / 2 {
        return Err(read
            .error("tail-cache", "more than half of --memory-per-shard leaves too little for requests")
            .hint("raise --memory-per-shard or lower --tail-cache"));
    }
    let options = ServeOptions {
        data_dir: PathBuf::from(read.text("data-dir").expect("has a default")),
        node_id: NodeId(read.number("node-id", 0, NODE_ID_MAX)?.expect("has a default") as i32),
        shard_count,
        shard_count_source: read.merged.values["shards"].source.clone(),
        listen,
        advertise,
        pin: read.switch("pin")?,
        ring: ring(&read)?,
        memory_per_shard_bytes,
        tail_cache_bytes,
        splice_min_bytes: read.size("splice-min-bytes")?.expect("has a default"),
        stall_threshold: Duration::from_millis(
            read.number("stall-threshold-ms", 1, 3_600_000)?.expect("has a default") as u64,
        ),
        broker,
        broker_settings: read.merged.broker.clone(),
        log: LogOptions {
            json: read.choice("log-format", &[("text", false), ("json", true)])?.expect("has a default"),
            filter: read.with("log-level", log_filter)?.expect("has a default"),
        },
        warnings: Vec::new(),
    };
    warnings.splice(0..0, merged.warnings.iter().cloned());
    Ok(ServeOptions { warnings, ..options })
}

/// The count belongs to the data directory: only an explicit one is stronger than what it remembers.
fn settle_shard_count(merged: &mut Merged, facts: &Facts) {
    merged.values.entry("shards").or_insert_with(|| match facts.stored_shard_count {
        Some(count) => Value { text: count.to_string(), source: Source::DataDirectory },
        None => {
            let count = facts.cpu_count.clamp(1, SHARD_COUNT_DEFAULT_MAX);
            Value { text: count.to_string(), source: Source::Default }
        }
    });
}

/// What a shard's buffers may take if nobody says: a quarter of the memory, shared out among the shards.
pub fn memory_per_shard_default_bytes(memory_bytes: Option<u64>, shard_count: usize) -> u64 {
    let share = memory_bytes.map_or(MEMORY_PER_SHARD_BYTES_UNTOLD, |bytes| bytes / 4 / shard_count as u64);
    align_down(share, MIB as u64).max(MEMORY_PER_SHARD_BYTES_DEFAULT_MIN)
}

/// Memory follows the machine, the tail cache follows the memory up to a size that serves readers who keep up. More
/// would be taken by whatever is produced, read or not, and memory is what others on the host may want.
fn settle_memory(merged: &mut Merged, facts: &Facts, shard_count: usize) -> Result<(), UsageError> {
    let in_mib = |bytes: u64| Value { text: format!("{}MiB", bytes / MIB as u64), source: Source::Default };
    let memory = memory_per_shard_default_bytes(facts.memory_bytes, shard_count);
    merged.values.entry("memory-per-shard").or_insert_with(|| in_mib(memory));
    let memory = Reader { merged }.size("memory-per-shard")?.expect("it was just settled");
    merged.values.entry("tail-cache").or_insert_with(|| in_mib((memory / 2).min(TAIL_CACHE_BYTES_DEFAULT_MAX)));
    Ok(())
}

/// The flag for a policy that has a broker config of its own is a short way to write it.
const POLICY_KEY: &str = "ottla.replication.factor.policy";

fn broker_config(merged: &mut Merged) -> Result<BrokerConfig, UsageError> {
    if let Some(policy) = merged.values.remove("replication-factor-policy")
        && merged.broker.get(POLICY_KEY).is_none_or(|written| policy.source < written.source)
    {
        merged.broker.insert(POLICY_KEY.into(), policy);
    }
    // One by one first: the error of a single pair can name the place where it was written.
    for (key, value) in &merged.broker {
        BrokerConfig::parse([(key, &value.text)]).map_err(|error| {
            let error = value.error(key, error);
            if key.contains("topic") {
                error.hint("topic configs belong to `ottla topic create --config`")
            } else {
                error
            }
        })?;
    }
    BrokerConfig::parse(merged.broker.iter().map(|(key, value)| (key, &value.text)))
        .map_err(|error| UsageError::new(error.to_string()))
}

fn ring(read: &Reader<'_>) -> Result<RingOptions, UsageError> {
    let entries = read.number("ring-entries", 1, 32_768)?.expect("has a default") as u32;
    let cq_entries = read.number("ring-cq-entries", 1, 65_536)?.expect("has a default") as u32;
    for (key, value) in [("ring-entries", entries), ("ring-cq-entries", cq_entries)] {
        if !value.is_power_of_two() {
            let hint = format!("--{key} {}", value.next_power_of_two());
            return Err(read.error(key, "must be a power of two").hint(hint));
        }
    }
    if cq_entries < entries {
        return Err(read.error("ring-cq-entries", format!("must not be below the {entries} of --ring-entries")));
    }
    let sqpoll_idle_ms = read.with("ring-sqpoll", sqpoll_idle_ms)?.flatten();
    let sqpoll_cpu = read.number("ring-sqpoll-cpu", 0, 65_535)?.map(|cpu| cpu as u32);
    if sqpoll_cpu.is_some() && sqpoll_idle_ms.is_none() {
        return Err(read.error("ring-sqpoll-cpu", "has no meaning without --ring-sqpoll").hint("add --ring-sqpoll"));
    }
    // The kernel's submission thread excludes these; so does who does not want them.
    let deferred = !read.switch("ring-no-defer-taskrun")? && sqpoll_idle_ms.is_none();
    Ok(RingOptions {
        sq_entries: entries,
        cq_entries,
        single_issuer: true,
        defer_taskrun: deferred,
        coop_taskrun: deferred,
        sqpoll: sqpoll_idle_ms.map(|idle_ms| SubmissionPolling { idle_ms, cpu: sqpoll_cpu }),
        fixed_files: read.switch("ring-fixed-files")?,
        huge_pages: read.switch("huge-pages")?,
        registered_buffer_bytes: read
            .size("ring-registered-buffers")?
            .map_or(0, |size| usize::try_from(size).unwrap_or(usize::MAX)),
        spin_us: read.number("ring-spin-us", 0, 1_000_000)?.expect("has a default") as u32,
        worker_bounded_max: read.number("ring-worker-bounded-max", 0, 65_535)?.expect("has a default") as u32,
        worker_unbounded_max: read.number("ring-worker-unbounded-max", 0, 65_535)?.expect("has a default") as u32,
        worker_cpus: read.with("ring-worker-cpus", parse_cpu_list)?,
        send_zero_copy_min_bytes: read
            .size("ring-send-zc-min-bytes")?
            .map(|size| usize::try_from(size).unwrap_or(usize::MAX)),
    })
}

/// Typed access to the merged texts; every error names the place where the value was written.
struct Reader<'a> {
    merged: &'a Merged,
}

impl Reader<'_> {
    fn text(&self, key: &'static str) -> Option<&str> {
        self.merged.values.get(key).map(|value| value.text.as_str())
    }

    fn error(&self, key: &'static str, why: impl std::fmt::Display) -> UsageError {
        self.merged.values[key].error(key, why)
    }

    fn with<T>(
        &self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, UsageError> {
        let Some(value) = self.merged.values.get(key) else { return Ok(None) };
        parse(&value.text).map(Some).map_err(|why| value.error(key, why))
    }

    fn number(&self, key: &'static str, min: i64, max: i64) -> Result<Option<i64>, UsageError> {
        self.with(key, |text| match text.trim().parse::<i64>() {
            Ok(number) if (min..=max).contains(&number) => Ok(number),
            _ => Err(format!("must be a whole number from {min} to {max}")),
        })
    }

    fn size(&self, key: &'static str) -> Result<Option<u64>, UsageError> {
        self.with(key, parse_size_bytes)
    }

    fn switch(&self, key: &'static str) -> Result<bool, UsageError> {
        Ok(self.with(key, parse_bool)?.expect("switches have defaults"))
    }

    fn choice<T: Copy>(&self, key: &'static str, choices: &[(&str, T)]) -> Result<Option<T>, UsageError> {
        self.with(key, |text| {
            let names = || choices.iter().map(|(name, _)| *name);
            choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value).ok_or_else(|| {
                format!("must be one of {}{}", names().collect::<Vec<_>>().join(", "), did_you_mean(text, names()))
            })
        })
    }
}

/// One address to count up from, or one per shard.
fn listen_addresses(text: &str, shard_count: usize) -> Result<Vec<SocketAddr>, String> {
    let parts = split_list(text);
    let addresses = parts.iter().map(|part| resolve_address(part)).collect::<Result<Vec<_>, _>>()?;
    match addresses.as_slice() {
        [] => Err("no address".into()),
        [base] => {
            count_up(base.port(), shard_count)?.into_iter().map(|port| Ok(SocketAddr::new(base.ip(), port))).collect()
        }
        many if many.len() == shard_count => Ok(addresses),
        many => Err(format!("{} addresses for {shard_count} shards; give one, or one for each shard", many.len())),
    }
}

fn resolve_address(text: &str) -> Result<SocketAddr, String> {
    split_host_port(text)?;
    let mut found = text.to_socket_addrs().map_err(|error| format!("`{text}`: {error}"))?.collect::<Vec<_>>();
    // `localhost` often resolves to ::1 first, but what is advertised by default must be what clients try first.
    found.sort_by_key(|address| !address.is_ipv4());
    found.first().copied().ok_or_else(|| format!("`{text}` resolves to no address"))
}

fn advertised(text: &str, shard_count: usize) -> Result<Vec<Advertised>, String> {
    let addresses = split_list(text)
        .iter()
        .map(|part| split_host_port(part).map(|(host, port)| Advertised { host, port }))
        .collect::<Result<Vec<_>, _>>()?;
    if let Some(bad) = addresses.iter().find(|a| is_wildcard(&a.host)) {
        return Err(format!("clients cannot connect to the wildcard address {}", bad.host));
    }
    match addresses.as_slice() {
        [] => Err("no address".into()),
        [base] => Ok(count_up(base.port, shard_count)?
            .into_iter()
            .map(|port| Advertised { host: base.host.clone(), port })
            .collect()),
        many if many.len() == shard_count => Ok(addresses),
        many => Err(format!("{} addresses for {shard_count} shards; give one, or one for each shard", many.len())),
    }
}

fn advertise_listening(listen: &[SocketAddr], host_name: &str, warnings: &mut Vec<String>) -> Vec<Advertised> {
    if listen.iter().any(|address| address.ip().is_unspecified()) {
        warnings.push(format!(
            "listening on a wildcard address and advertising the host name {host_name}: give --advertise if clients cannot resolve it"
        ));
    }
    listen
        .iter()
        .map(|address| {
            let host = if address.ip().is_unspecified() { host_name.to_string() } else { address.ip().to_string() };
            Advertised { host, port: address.port() }
        })
        .collect()
}

fn count_up(base: u16, shard_count: usize) -> Result<Vec<u16>, String> {
    if base == 0 {
        return Ok(vec![0; shard_count]);
    }
    (0..shard_count)
        .map(|shard| base.checked_add(shard as u16))
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| format!("{shard_count} shards need ports {base} and up, and 65535 is the last"))
}

/// `host:port`, `1.2.3.4:port` or `[v6]:port`.
fn split_host_port(text: &str) -> Result<(String, u16), String> {
    let form = || format!("`{text}` is not HOST:PORT");
    let (host, port) = text.rsplit_once(':').ok_or_else(form)?;
    let port = port.parse().map_err(|_| form())?;
    let host = match host.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']').ok_or_else(form)?,
        None if host.contains(':') => return Err(format!("write an IPv6 address in brackets: `[{host}]:{port}`")),
        None => host,
    };
    if host.is_empty() { Err(form()) } else { Ok((host.to_string(), port)) }
}

fn is_wildcard(host: &str) -> bool {
    host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_unspecified())
}

fn split_list(text: &str) -> Vec<&str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect()
}

fn sqpoll_idle_ms(text: &str) -> Result<Option<u32>, String> {
    const IDLE_MS_DEFAULT: u32 = 1000;
    if let Ok(ms) = text.trim().parse::<u32>() {
        return if ms == 0 { Err("must be at least 1 ms, or false".into()) } else { Ok(Some(ms)) };
    }
    Ok(parse_bool(text)
        .map_err(|_| "must be a number of idle milliseconds, true or false".to_string())?
        .then_some(IDLE_MS_DEFAULT))
}

/// The kernel's list form: `0,2-5`.
pub fn parse_cpu_list(text: &str) -> Result<Vec<usize>, String> {
    const CPU_MAX: usize = 65_535;
    let fail = || format!("`{text}` is not a list of CPUs like 2,4-6");
    let mut cpus = Vec::new();
    for part in text.split(',').map(str::trim) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().map_err(|_| fail())?, last.parse().map_err(|_| fail())?);
        if first > last || last > CPU_MAX {
            return Err(fail());
        }
        cpus.extend(first..=last);
    }
    cpus.sort_unstable();
    cpus.dedup();
    Ok(cpus)
}

fn log_filter(text: &str) -> Result<String, String> {
    tracing_subscriber::EnvFilter::try_new(text)
        .map(|_| text.to_string())
        .map_err(|_| "must be error, warn, info, debug, trace or a filter such as info,ottla::storage=debug".into())
}

const _: () = assert!(MEMORY_PER_SHARD_BYTES_MIN > 64 * KIB as u64);

#[cfg(test)]
mod tests {
    use super::super::flags::RawServe;
    use super::super::layers::merge;
    use super::*;

    fn facts() -> Facts {
        Facts { cpu_count: 2, memory_bytes: Some(2 << 30), stored_shard_count: None, host_name: "box".into() }
    }

    fn options_with(pairs: &[(&'static str, &str)], facts: &Facts) -> Result<ServeOptions, UsageError> {
        let raw = RawServe { values: pairs.iter().map(|(k, v)| (*k, v.to_string())).collect(), ..RawServe::default() };
        resolve(&mut merge(&raw, &BTreeMap::new(), None).unwrap(), facts)
    }

    fn options(pairs: &[(&'static str, &str)]) -> Result<ServeOptions, UsageError> {
        options_with(pairs, &facts())
    }

    fn ports(options: &ServeOptions) -> Vec<u16> {
        options.listen.iter().map(SocketAddr::port).collect()
    }

    #[test]
    fn without_a_word_there_is_a_shard_per_usable_cpu_but_at_most_eight_on_loopback() {
        let options = options(&[]).unwrap();
        assert_eq!((options.shard_count, ports(&options)), (2, vec![9092, 9093]));
        assert_eq!(options.advertise[1], Advertised { host: "127.0.0.1".into(), port: 9093 });
        let many = options_with(&[], &Facts { cpu_count: 64, ..facts() }).unwrap();
        assert_eq!(many.shard_count, 8);
    }

    #[test]
    fn the_data_directory_remembers_the_shard_count_and_a_flag_beats_it() {
        let stored = Facts { stored_shard_count: Some(5), ..facts() };
        let kept = options_with(&[], &stored).unwrap();
        assert_eq!((kept.shard_count, kept.shard_count_source), (5, Source::DataDirectory));
        let changed = options_with(&[("shards", "3")], &stored).unwrap();
        assert_eq!((changed.shard_count, changed.shard_count_source), (3, Source::Flag));
    }

    #[test]
    fn memory_follows_the_machine_and_the_tail_cache_follows_the_memory() {
        let sizes = |pairs: &[(&'static str, &str)], memory_bytes| {
            let options = options_with(pairs, &Facts { memory_bytes, ..facts() }).unwrap();
            (options.memory_per_shard_bytes >> 20, options.tail_cache_bytes >> 20)
        };
        assert_eq!(sizes(&[], Some(8 << 30)), (1024, 256));
        assert_eq!(sizes(&[("shards", "8")], Some(8 << 30)), (256, 128));
        assert_eq!(sizes(&[], Some(100 << 20)), (64, 32));
        assert_eq!(sizes(&[], None), (256, 128));
        assert_eq!(sizes(&[("memory-per-shard", "100MiB")], Some(8 << 30)), (100, 50));
        assert_eq!(sizes(&[("tail-cache", "10MiB")], Some(8 << 30)), (1024, 10));
    }

    #[test]
    fn addresses_count_up_from_one_or_are_listed_for_each_shard() {
        let three = |listen: &str| options(&[("shards", "3"), ("listen", listen)]);
        assert_eq!(ports(&three("127.0.0.1:100").unwrap()), [100, 101, 102]);
        assert_eq!(ports(&three("127.0.0.1:0").unwrap()), [0, 0, 0]);
        assert_eq!(ports(&three("127.0.0.1:7, [::1]:5,127.0.0.1:9").unwrap()), [7, 5, 9]);
        for bad in ["127.0.0.1:1,127.0.0.1:2", "127.0.0.1:65534", "127.0.0.1", "::1:9092", "", ":1"] {
            assert!(three(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_wildcard_is_never_advertised() {
        let options = options(&[("listen", "0.0.0.0:9092")]).unwrap();
        assert_eq!(options.advertise[0].host, "box");
        assert_eq!(options.warnings.len(), 1);
        let error = self::options(&[("advertise", "0.0.0.0:9092")]).unwrap_err();
        assert!(error.message.starts_with("--advertise 0.0.0.0:9092: clients cannot"), "{}", error.message);
    }

    #[test]
    fn ring_settings_are_checked_against_each_other() {
        let ring = |pairs: &[(&'static str, &str)]| options(pairs).map(|o| o.ring);
        let plain = ring(&[]).unwrap();
        assert_eq!(plain, RingOptions::default());
        let polled = ring(&[("ring-sqpoll", "true"), ("ring-sqpoll-cpu", "1")]).unwrap();
        assert_eq!(polled.sqpoll, Some(SubmissionPolling { idle_ms: 1000, cpu: Some(1) }));
        assert!(!polled.defer_taskrun && !polled.coop_taskrun);
        assert_eq!(ring(&[("ring-sqpoll", "50")]).unwrap().sqpoll.unwrap().idle_ms, 50);
        let workers = ring(&[("ring-worker-cpus", "4-6,2")]).unwrap().worker_cpus;
        assert_eq!(workers, Some(vec![2, 4, 5, 6]));
        assert!(ring(&[("ring-sqpoll-cpu", "1")]).is_err());
        assert!(ring(&[("ring-entries", "300")]).unwrap_err().hint.unwrap().contains("512"));
        assert!(ring(&[("ring-entries", "2048")]).is_err());
    }

    #[test]
    fn broker_configs_are_parsed_and_their_errors_name_the_place() {
        let with = |pair: &str| {
            let raw = RawServe { set: vec![pair.into()], ..RawServe::default() };
            resolve(&mut merge(&raw, &BTreeMap::new(), None).unwrap(), &facts())
        };
        assert_eq!(with("num.partitions=7").unwrap().broker.num_partitions, 7);
        let unknown = with("num.partition=7").unwrap_err().message;
        assert!(unknown.starts_with("--set num.partition=7: ") && unknown.contains("num.partitions"), "{unknown}");
        assert!(with("num.partitions=many").unwrap_err().message.contains("--set num.partitions=many"));
    }

    #[test]
    fn the_replication_factor_policy_is_a_flag_and_a_broker_config() {
        use crate::model::configs::ReplicationFactorPolicy;
        assert_eq!(options(&[]).unwrap().broker.replication_factor_policy, ReplicationFactorPolicy::Truthful);
        let refused = options(&[("replication-factor-policy", "refuse")]).unwrap();
        assert_eq!(refused.broker.replication_factor_policy, ReplicationFactorPolicy::Refuse);
        assert!(options(&[("replication-factor-policy", "maybe")]).is_err());
    }

    #[test]
    fn errors_name_the_place_and_what_is_allowed() {
        let message = |key, text| options(&[(key, text)]).unwrap_err().message;
        assert_eq!(message("shards", "0"), "--shards 0: must be a whole number from 1 to 256");
        assert_eq!(message("log-format", "jsn"), "--log-format jsn: must be one of text, json; did you mean `json`?");
        assert_eq!(message("memory-per-shard", "1MiB"), "--memory-per-shard 1MiB: a shard needs at least 8MiB");
        assert!(message("tail-cache", "600MiB").contains("more than half"));
        assert!(message("log-level", "loud=very=much").contains("must be error"));
    }
}
