//! `ottla bench produce`: a load on a broker, measured.

use std::net::TcpStream;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use core_affinity::CoreId;
use kafka_protocol::messages::ProduceRequest;

use super::exit::UsageError;
use super::output::Output;
use super::remote::RawRemote;
use super::size::parse_size_bytes;
use crate::base::time::Timestamp;
use crate::bench::closed_loop::{self, Times};
use crate::bench::meter::Meter;
use crate::bench::workload::{BATCH_SIZE_BYTES_MIN, VERSION_MAX, Workload};
use crate::bench::{Report, workload::Cycle};
use crate::client::{Client, ClientError, NewTopic, TopicInfo};
use crate::model::id::BrokerId;
use crate::model::limits::FRAME_SIZE_BYTES_MAX;
use crate::protocol::ErrorCode;

/// Subcommands of `ottla bench`.
#[derive(Debug, Subcommand)]
pub enum RawBench {
    /// Send batches in a closed loop: so many requests in flight on each connection.
    Produce(RawProduce),
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum RawAcks {
    All,
    #[value(name = "1")]
    One,
}

/// Flags of `ottla bench produce`.
#[derive(Debug, Args)]
pub struct RawProduce {
    /// The topic; created if it is not there.
    #[arg(long, default_value = "bench")]
    topic: String,
    /// Partitions of the topic if it is created; all that it has are produced to.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..))]
    partitions: i32,
    /// A config of the topic if it is created, such as segment.bytes=268435456; may be repeated.
    #[arg(long = "config", value_name = "KEY=VALUE")]
    configs: Vec<String>,
    /// Connections, shared out among the brokers that lead partitions.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: u32,
    /// Requests in flight on each connection.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1024))]
    in_flight: u32,
    /// Size of a batch, its header included. A request carries one.
    #[arg(long, value_name = "SIZE", default_value = "64KiB")]
    batch_bytes: String,
    /// Size of a record's value [default: one record fills the batch].
    #[arg(long, value_name = "SIZE")]
    record_bytes: Option<String>,
    /// When a request is answered: all or 1.
    #[arg(long, value_enum, default_value_t = RawAcks::All)]
    acks: RawAcks,
    /// Run so long before measuring.
    #[arg(long, value_name = "MS", default_value_t = 1000)]
    warm_up_ms: u64,
    /// Measure so long.
    #[arg(long, value_name = "MS", default_value_t = 5000, value_parser = clap::value_parser!(u64).range(1..))]
    duration_ms: u64,
    /// The broker's process, if it runs on this machine: its CPU time is part of the result.
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    broker_pid: Option<i32>,
    /// Pin the load generator to this CPU.
    #[arg(long, value_name = "N")]
    cpu: Option<usize>,
    /// What the random contents are made from.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: RawRemote,
}

/// Runs the command.
pub fn command(raw: RawBench) -> anyhow::Result<()> {
    match raw {
        RawBench::Produce(raw) => produce(&raw),
    }
}

fn produce(raw: &RawProduce) -> anyhow::Result<()> {
    let workload = workload(raw)?;
    let configs: Vec<_> = raw.configs.iter().map(|pair| key_value(pair)).collect::<Result<_, _>>()?;
    if let Some(cpu) = raw.cpu
        && !core_affinity::set_for_current(CoreId { id: cpu })
    {
        return Err(UsageError::new(format!("--cpu {cpu}: this process cannot be pinned to it")).into());
    }
    let meter = Meter::new(raw.broker_pid)?;
    let mut client = raw.remote.connect()?;
    let topic = topic(&mut client, raw, configs)?;
    let streams = connect(&mut client, &topic, &workload, raw)?;
    let times =
        Times { warm_up: Duration::from_millis(raw.warm_up_ms), measured: Duration::from_millis(raw.duration_ms) };
    let batch_size_bytes = workload.batch_size_bytes;
    let report = closed_loop::run(streams, raw.in_flight as usize, batch_size_bytes, times, &meter)
        .with_context(|| format!("producing to topic {}", topic.name))?;
    print(&report, raw.json)
}

fn workload(raw: &RawProduce) -> Result<Workload, UsageError> {
    let size = |flag: &str, text: &str| {
        let size = parse_size_bytes(text).map_err(|why| UsageError::new(format!("{flag}: {why}")))?;
        usize::try_from(size).map_err(|_| UsageError::new(format!("{flag} {text} is too large")))
    };
    let batch_size_bytes = size("--batch-bytes", &raw.batch_bytes)?;
    let record_size_bytes = raw.record_bytes.as_deref().map_or(Ok(0), |text| size("--record-bytes", text))?;
    if !(BATCH_SIZE_BYTES_MIN..FRAME_SIZE_BYTES_MAX).contains(&batch_size_bytes) {
        let range = format!("at least {BATCH_SIZE_BYTES_MIN} and below {FRAME_SIZE_BYTES_MAX} bytes");
        return Err(UsageError::new(format!("--batch-bytes {}: {range}", raw.batch_bytes)));
    }
    let acks = match raw.acks {
        RawAcks::All => -1,
        RawAcks::One => 1,
    };
    Ok(Workload { batch_size_bytes, record_size_bytes, acks, seed: raw.seed })
}

/// The topic with its partitions and their leaders, made if it is not there.
fn topic(client: &mut Client, raw: &RawProduce, configs: Vec<(String, String)>) -> Result<TopicInfo, ClientError> {
    let wanted = NewTopic { name: raw.topic.clone(), partition_count: raw.partitions, replication_factor: -1, configs };
    match client.create_topic(&wanted, false) {
        Err(error) if !error.is_code(ErrorCode::TopicAlreadyExists) => return Err(error),
        _ => {}
    }
    client.topic(&raw.topic, false)
}

/// Connections to the leaders, in turn, each with the frames for its share of its broker's partitions.
fn connect(
    client: &mut Client,
    topic: &TopicInfo,
    workload: &Workload,
    raw: &RawProduce,
) -> anyhow::Result<Vec<(TcpStream, std::rc::Rc<Cycle>)>> {
    let mut brokers: Vec<(BrokerId, Vec<i32>)> = Vec::new();
    for partition in &topic.partitions {
        let leader = client.leader(&topic.name, partition.index)?;
        match brokers.iter_mut().find(|(id, _)| *id == leader) {
            Some((_, partitions)) => partitions.push(partition.index),
            None => brokers.push((leader, vec![partition.index])),
        }
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = Timestamp(now.as_millis() as i64);
    let count = (raw.connections as usize).max(brokers.len());
    let mut streams = Vec::with_capacity(count);
    for (place, (leader, partitions)) in brokers.iter().enumerate() {
        let version = client.broker(*leader)?.version_of::<ProduceRequest>(VERSION_MAX)?;
        let version = if topic.id.is_none() { version.min(VERSION_MAX - 1) } else { version };
        let address = client.info().brokers[&leader.0].address.clone();
        let own_count = count / brokers.len() + usize::from(place < count % brokers.len());
        let mut cycles: Vec<(Vec<i32>, std::rc::Rc<Cycle>)> = Vec::new();
        for number in 0..own_count {
            // Fewer connections than partitions: each gets several. More: several share one.
            let share: Vec<i32> = match partitions.len() > own_count {
                true => partitions.iter().copied().skip(number).step_by(own_count).collect(),
                false => vec![partitions[number % partitions.len()]],
            };
            let cycle = match cycles.iter().find(|(known, _)| *known == share) {
                Some((_, cycle)) => cycle.clone(),
                None => {
                    let cycle = workload.cycle(topic, &share, version, raw.in_flight as usize, now)?;
                    cycles.push((share, cycle.clone()));
                    cycle
                }
            };
            let stream = TcpStream::connect(&address).with_context(|| format!("connecting to {address}"))?;
            streams.push((stream, cycle));
        }
    }
    Ok(streams)
}

fn print(report: &Report, json: bool) -> anyhow::Result<()> {
    let mut out = Output::stdout();
    match json {
        true => out.json(&report.to_json())?,
        false => out.table(&["FIGURE", "VALUE"], &report.rows())?,
    }
    Ok(std::io::Write::flush(&mut out)?)
}

fn key_value(pair: &str) -> Result<(String, String), UsageError> {
    match pair.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_string(), value.to_string())),
        _ => Err(UsageError::new(format!("--config {pair}: expected KEY=VALUE")).hint("--config retention.ms=3600000")),
    }
}
