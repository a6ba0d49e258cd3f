//! `ottla bench sink`: the broker that drops what it gets.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use core_affinity::CoreId;

use super::options::size;
use crate::bench::sink::log::LogOptions;
use crate::bench::sink::{Sink, SinkOptions};
use crate::cli::exit::UsageError;
use crate::io::uring::{Ring, RingOptions};

/// Flags of `ottla bench sink`.
#[derive(Debug, Args)]
pub struct RawSink {
    /// Where to listen.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9092")]
    listen: SocketAddr,
    /// Partitions of every topic that is asked for without being created.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..=100_000))]
    partitions: i32,
    /// Write batches to this file, round and round, and acknowledge then.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Size of that file.
    #[arg(long, value_name = "SIZE", default_value = "4GiB")]
    log_bytes: String,
    /// Acknowledge when writes are durable.
    #[arg(long)]
    sync: bool,
    /// Only reserve the file's blocks instead of writing them before.
    #[arg(long)]
    fallocated: bool,
    /// Answer fetches from so many bytes of batches.
    #[arg(long, value_name = "SIZE", default_value = "64MiB")]
    fetch_bytes: String,
    /// Size of a batch that is fetched.
    #[arg(long, value_name = "SIZE", default_value = "64KiB")]
    fetch_batch_bytes: String,
    /// Answer fetches by splice from this file, which is made.
    #[arg(long, value_name = "FILE")]
    fetch_file: Option<PathBuf>,
    /// Pin it to this CPU.
    #[arg(long, value_name = "N")]
    cpu: Option<usize>,
}

/// Runs the sink until it is killed. Prints its address when it listens.
pub fn command(raw: &RawSink) -> anyhow::Result<()> {
    let log = match &raw.log {
        None => None,
        Some(path) => Some(LogOptions {
            path: path.clone(),
            size_bytes: size("--log-bytes", &raw.log_bytes)? as u64,
            sync: raw.sync,
            written: !raw.fallocated,
        }),
    };
    let options = SinkOptions {
        listen: raw.listen,
        partition_count: raw.partitions,
        log,
        fetch_size_bytes: size("--fetch-bytes", &raw.fetch_bytes)?,
        fetch_batch_size_bytes: size("--fetch-batch-bytes", &raw.fetch_batch_bytes)?,
        fetch_file: raw.fetch_file.clone(),
    };
    if let Some(cpu) = raw.cpu
        && !core_affinity::set_for_current(CoreId { id: cpu })
    {
        return Err(UsageError::new(format!("--cpu {cpu}: this process cannot be pinned to it")).into());
    }
    let ring = RingOptions { sq_entries: 1024, cq_entries: 4096, ..RingOptions::default() };
    let mut ring = Ring::new(ring, 4 << 30, None).context("a ring")?;
    let sink = Sink::new(&mut ring, &options)?;
    println!("{}", sink.address());
    sink.run(|| false)
}
