//! From options to a running node, and from a signal to a stopped one.

use std::io::IsTerminal;

use anyhow::Context;
use nix::sys::signal::{SigSet, Signal};

use super::options::{Advertised, ServeOptions};
use super::preflight;
use crate::base::rng::Rng;
use crate::base::units::human_bytes;
use crate::handlers::endpoints::Endpoint;
use crate::handlers::options::BrokerOptions;
use crate::io::uring::capabilities;
use crate::model::configs::Prepare;
use crate::shard::node::{Node, NodeError, NodeOptions};
use crate::shard::properties::Properties;
use crate::shard::threads;
use crate::storage::layout::Layout;
use crate::telemetry::Counters;

/// The exit code of a process that found its own state to be wrong (`EX_SOFTWARE` of sysexits.h).
const EXIT_SOFTWARE: i32 = 70;

/// Starts the broker and returns when it has stopped.
pub fn run(options: &ServeOptions) -> anyhow::Result<()> {
    std::fs::create_dir_all(&options.data_dir)
        .with_context(|| format!("the data directory {} cannot be made", options.data_dir.display()))?;
    let properties = Properties { node: options.node_id, shard_count: options.shard_count as u16 };
    let stored = Properties::read(&options.data_dir)?;
    if let Some(stored) = stored
        && stored.node != options.node_id
    {
        anyhow::bail!(
            "{} belongs to node {}, not to node {}: start with --node-id {}, or choose another --data-dir",
            options.data_dir.display(),
            stored.node,
            options.node_id,
            stored.node
        );
    }
    let directory = capabilities::probe_directory(&options.data_dir)
        .with_context(|| format!("{} cannot be used", options.data_dir.display()))?;
    let node_options = node_options(options, directory.file_system.is_copy_on_write());

    // A shard whose state is wrong must not go on, and the others must not go on without it.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::exit(EXIT_SOFTWARE);
    }));
    // Blocked before any thread exists, so that all inherit it and the signals come to this thread only.
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGUSR1] {
        signals.add(signal);
    }
    signals.thread_block().context("signals cannot be blocked")?;

    let node = Node::start(node_options).map_err(explain).context("cannot start")?;
    if stored != Some(properties) {
        properties.write(&options.data_dir).context("meta.properties cannot be written")?;
    }
    announce(options, &node);
    loop {
        match signals.wait().context("waiting for signals")? {
            Signal::SIGUSR1 => log_counters(&node.counters()),
            signal => {
                tracing::info!(%signal, "stopping");
                break;
            }
        }
    }
    log_counters(&node.counters());
    node.stop();
    tracing::info!("stopped; the next start needs no recovery");
    Ok(())
}

/// The shard count that the data directory remembers.
pub fn stored_shard_count(data_dir: &std::path::Path) -> Option<usize> {
    let properties = Properties::read(data_dir).ok()??;
    Some(usize::from(properties.shard_count))
}

fn node_options(options: &ServeOptions, copy_on_write: bool) -> NodeOptions {
    let mut config = options.broker.clone();
    if copy_on_write && config.prepare == Prepare::Write {
        // Writing zeros first would only write everything twice: each later write takes new blocks anyway.
        config.prepare = Prepare::None;
    }
    let fetch_max_bytes = config.fetch_max_bytes(options.shard_count);
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    NodeOptions {
        broker: BrokerOptions {
            node: options.node_id,
            node_name: host.unwrap_or_else(|| format!("node-{}", options.node_id)),
            config,
            layout: Layout::new(&options.data_dir),
            shard_count: options.shard_count as u16,
            pool_size_bytes: options.memory_per_shard_bytes as usize,
            tail_size_bytes: options.tail_cache_bytes as usize,
            splice_size_bytes_min: u32::try_from(options.splice_min_bytes).unwrap_or(u32::MAX),
            fetch_max_bytes,
            reuses_segments: !copy_on_write,
            open_file_count_max: preflight::open_file_count_max(),
            stall_threshold: options.stall_threshold,
        },
        listen: options.listen.clone(),
        advertise: options.advertise.iter().map(endpoint).collect(),
        ring: options.ring.clone().within_memlock(options.shard_count, capabilities::memlock_bytes()),
        cpus: cpus(options),
        seed: Rng::seed_from_entropy(),
    }
}

fn endpoint(advertised: &Advertised) -> Endpoint {
    Endpoint { host: advertised.host.clone(), port: advertised.port }
}

/// One CPU a shard, round and round if there are more shards than CPUs.
fn cpus(options: &ServeOptions) -> Vec<usize> {
    let usable = threads::usable_cpus();
    match options.pin && !usable.is_empty() {
        true => (0..options.shard_count).map(|shard| usable[shard % usable.len()]).collect(),
        false => Vec::new(),
    }
}

/// What stands in the way of a start, in the words of preflight where it has some.
fn explain(error: NodeError) -> anyhow::Error {
    let finding = match &error {
        NodeError::Ring(ring) => preflight::ring_failed(ring),
        NodeError::Lock(lock) => preflight::lock_failed(lock),
        NodeError::Listen { address, source } => preflight::listen_failed(*address, source),
        _ => return error.into(),
    };
    finding.into_error().into()
}

/// Says once and for all what was started: in the log, and for people at a terminal in a few lines.
fn announce(options: &ServeOptions, node: &Node) {
    for report in node.reports() {
        for note in &report.ring.fallbacks {
            tracing::warn!(shard = %report.shard, "{note}");
        }
        tracing::info!(
            shard = %report.shard,
            broker = %report.shard.broker(options.node_id),
            address = format!("{}:{}", report.endpoint.host, report.endpoint.port),
            cpu = report.cpu,
            partitions = report.recovered.partition_count,
            offline = report.recovered.offline_count,
            scanned_bytes = report.recovered.scanned_bytes,
            ring = %report.ring,
            "serving"
        );
    }
    if !options.log.json && std::io::stderr().is_terminal() {
        let addresses: Vec<String> =
            node.reports().iter().map(|r| format!("{}:{}", r.endpoint.host, r.endpoint.port)).collect();
        eprintln!("\nottla serves on {}", addresses.join(", "));
        eprintln!("  data        {}", options.data_dir.display());
        eprintln!("  shards      {}, {} of buffers each", addresses.len(), human_bytes(options.memory_per_shard_bytes));
        eprintln!("  durability  acks are sent after {}", durability(options));
        eprintln!("  stop        Ctrl-C\n");
    }
}

fn durability(options: &ServeOptions) -> &'static str {
    match options.broker.set_value("ottla.ack.after") {
        Some("write") => "the write completed (survives kill -9, not power loss)",
        Some("memory") => "the batch is in memory (survives a clean stop only)",
        _ => "the synced write completed (survives power loss)",
    }
}

fn log_counters(shards: &[Counters]) {
    for (shard, counters) in shards.iter().enumerate() {
        tracing::info!(shard, "{counters}");
    }
}
