//! Flags of `ottla bench`, by what they are about, and what they mean together.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::bench::client::{Load, Times, WarmUp};
use crate::bench::fetch_frame::FetchLimits;
use crate::bench::keys::KEY_COUNT_MAX;
use crate::bench::route::TopicPlan;
use crate::bench::schedule::{Arrivals, RATE_PER_SECOND};
use crate::bench::workload::{BATCH_SIZE_BYTES_MIN, Workload};
use crate::cli::exit::UsageError;
use crate::cli::remote::RawRemote;
use crate::cli::size::parse_size_bytes;
use crate::model::compression::Codec;
use crate::model::limits::FRAME_SIZE_BYTES_MAX;

/// A warm-up that waits for a steady rate ends after this time anyway.
const STEADY_MAX: Duration = Duration::from_secs(120);

/// When a request is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RawAcks {
    /// By all replicas in sync.
    All,
    /// By the leader.
    #[value(name = "1")]
    One,
    /// Never.
    #[value(name = "0")]
    None,
}

/// How requests of an open loop follow one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RawArrivals {
    /// At equal distances.
    Uniform,
    /// As from independent clients.
    Poisson,
}

/// Where the load goes.
#[derive(Clone, Debug, Args)]
pub struct RawTarget {
    /// The topic; created if it is not there.
    #[arg(long, default_value = "bench")]
    pub topic: String,
    /// Several topics, named TOPIC-0 and so on.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub topics: u32,
    /// Partitions of a topic that is created; all that it has are used.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..))]
    pub partitions: i32,
    /// Replicas of a topic that is created [default: the broker's].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i16).range(1..))]
    pub replication_factor: Option<i16>,
    /// A config of a topic that is created, such as segment.bytes=268435456; may be repeated.
    #[arg(long = "config", value_name = "KEY=VALUE")]
    pub configs: Vec<String>,
}

/// How long, how it is watched, and what becomes of the result.
#[derive(Clone, Debug, Args)]
pub struct RawRun {
    /// Run so long before measuring.
    #[arg(long, value_name = "MS", default_value_t = 1000)]
    pub warm_up_ms: u64,
    /// Warm up until the rate of the last three seconds varies by at most so much, for two minutes at most.
    #[arg(long, value_name = "PERCENT", num_args = 0..=1, default_missing_value = "5", conflicts_with = "warm_up_ms")]
    pub steady: Option<f64>,
    /// Measure so long.
    #[arg(long, value_name = "MS", default_value_t = 5000, value_parser = clap::value_parser!(u64).range(1..))]
    pub duration_ms: u64,
    /// Distance of rows in the time series.
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(50..))]
    pub interval_ms: u64,
    /// The broker's process, if it runs on this machine: its CPU time and memory are part of the result.
    #[arg(long, value_name = "PID", alias = "broker-pid", value_parser = clap::value_parser!(i32).range(1..))]
    pub pid: Option<i32>,
    /// Pin the load generator to this CPU.
    #[arg(long, value_name = "N")]
    pub cpu: Option<usize>,
    /// Look for answers so long before sleeping: less latency of its own, more CPU.
    #[arg(long, value_name = "US", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=1_000_000))]
    pub busy_poll_us: u32,
    /// What random contents, draws and arrivals are made from.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// What to call this run in reports [default: what was measured].
    #[arg(long, value_name = "TEXT")]
    pub label: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Write result.json, series.csv and HdrHistogram logs there, for `ottla bench report`.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Give the figures also as ratios to this result of `ottla bench floor`.
    #[arg(long, value_name = "FILE")]
    pub floor: Option<PathBuf>,
    #[command(flatten)]
    pub remote: RawRemote,
}

/// What is produced, and how fast.
#[derive(Clone, Debug, Args)]
pub struct RawLoad {
    /// Producing connections, shared out among the brokers that lead partitions.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub connections: u32,
    /// Requests in flight on each connection.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub in_flight: u32,
    /// Send so many requests a second, whatever the broker does; latency counts from when each was due [default: as
    /// fast as answers allow].
    #[arg(long, value_name = "PER-SECOND")]
    pub rate: Option<f64>,
    /// How requests at a rate follow one another.
    #[arg(long, value_enum, default_value_t = RawArrivals::Uniform, requires = "rate")]
    pub arrivals: RawArrivals,
    /// Size of a batch before compression, its header included.
    #[arg(long, value_name = "SIZE", default_value = "64KiB")]
    pub batch_bytes: String,
    /// Size of a record's value [default: one record fills the batch].
    #[arg(long, value_name = "SIZE")]
    pub record_bytes: Option<String>,
    /// Records of a batch, which then set its size; values of 100 bytes without --record-bytes.
    #[arg(long, value_name = "N", conflicts_with = "batch_bytes", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub records_per_batch: Option<u32>,
    /// Partitions that one request carries a batch for.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub batches_per_request: u32,
    /// When a request is answered.
    #[arg(long, value_enum, default_value_t = RawAcks::All)]
    pub acks: RawAcks,
    /// none, gzip, snappy, lz4 or zstd.
    #[arg(long, default_value_t = Codec::None)]
    pub codec: Codec,
    /// The codec's level.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub codec_level: Option<i32>,
    /// How much of each value is random; the rest compresses to almost nothing.
    #[arg(long, value_name = "PERCENT", default_value_t = 100, value_parser = clap::value_parser!(u8).range(..=100))]
    pub random_percent: u8,
    /// Give records one of so many keys; they decide how often each partition is written to.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(KEY_COUNT_MAX)))]
    pub keys: Option<u32>,
    /// Zipf exponent of the keys: 0 makes all equally frequent, 1 the first twice as frequent as the second.
    #[arg(long, value_name = "EXPONENT", default_value_t = 0.0, requires = "keys")]
    pub key_skew: f64,
}

/// How consumers ask.
#[derive(Clone, Debug, Args)]
pub struct RawFetch {
    /// How long the broker may wait for --min-bytes.
    #[arg(long, value_name = "MS", default_value_t = 500, value_parser = clap::value_parser!(i32).range(0..=300_000))]
    pub max_wait_ms: i32,
    /// Answer when so much is there.
    #[arg(long, value_name = "SIZE", default_value = "1")]
    pub min_bytes: String,
    /// The most that one answer may hold.
    #[arg(long, value_name = "SIZE", default_value = "16MiB")]
    pub max_bytes: String,
    /// The most that one answer may hold of one partition.
    #[arg(long, value_name = "SIZE", default_value = "1MiB")]
    pub partition_max_bytes: String,
    /// Check the CRC of every batch.
    #[arg(long)]
    pub check_crc: bool,
}

impl RawTarget {
    /// The topics.
    pub fn plan(&self, create: bool) -> Result<TopicPlan, UsageError> {
        let configs: Result<_, _> = self.configs.iter().map(|pair| key_value(pair)).collect();
        Ok(TopicPlan {
            name: self.topic.clone(),
            count: self.topics as usize,
            partition_count: self.partitions,
            replication_factor: self.replication_factor.unwrap_or(-1),
            configs: configs?,
            create,
        })
    }

    pub(super) fn to_json(&self) -> Value {
        json!({ "topics": self.topics, "partitions": self.partitions, "configs": self.configs })
    }
}

impl RawRun {
    /// Warm-up, measured time and interval.
    pub fn times(&self) -> Times {
        let warm_up = match self.steady {
            Some(percent) => WarmUp::Steady { tolerance: percent.max(0.1) / 100.0, at_most: STEADY_MAX },
            None => WarmUp::Time(Duration::from_millis(self.warm_up_ms)),
        };
        let ms = Duration::from_millis;
        Times { warm_up, measured: ms(self.duration_ms), interval: ms(self.interval_ms) }
    }
}

impl RawLoad {
    /// What is sent.
    pub fn workload(&self, seed: u64) -> Result<Workload, UsageError> {
        let batch_size_bytes = size("--batch-bytes", &self.batch_bytes)?;
        let record_size_bytes = self.record_bytes.as_deref().map_or(Ok(0), |text| size("--record-bytes", text))?;
        if !(BATCH_SIZE_BYTES_MIN..FRAME_SIZE_BYTES_MAX).contains(&batch_size_bytes) {
            let range = format!("at least {BATCH_SIZE_BYTES_MIN} and below {FRAME_SIZE_BYTES_MAX} bytes");
            return Err(UsageError::new(format!("--batch-bytes {}: {range}", self.batch_bytes)));
        }
        let record_count = self.records_per_batch.unwrap_or(0) as usize;
        if record_count.saturating_mul(record_size_bytes.max(100)) >= FRAME_SIZE_BYTES_MAX {
            return Err(UsageError::new("--records-per-batch times --record-bytes is more than a request may have"));
        }
        if self.codec_level.is_some() && self.codec.levels().is_none() {
            return Err(UsageError::new(format!("--codec-level: {} has no levels", self.codec)));
        }
        let acks = match self.acks {
            RawAcks::All => -1,
            RawAcks::One => 1,
            RawAcks::None => 0,
        };
        Ok(Workload {
            batch_size_bytes,
            record_size_bytes,
            record_count,
            codec: self.codec,
            level: self.codec_level,
            random_percent: self.random_percent,
            batches_per_request: self.batches_per_request as usize,
            acks,
            seed,
        })
    }

    /// When it is sent.
    pub fn load(&self) -> Result<Load, UsageError> {
        let Some(rate_per_second) = self.rate else { return Ok(Load::Closed) };
        if !RATE_PER_SECOND.contains(&rate_per_second) {
            let (least, most) = (RATE_PER_SECOND.start(), RATE_PER_SECOND.end());
            return Err(UsageError::new(format!("--rate {rate_per_second}: {least} to {most} requests a second")));
        }
        let arrivals = match self.arrivals {
            RawArrivals::Uniform => Arrivals::Uniform,
            RawArrivals::Poisson => Arrivals::Poisson,
        };
        Ok(Load::Open { rate_per_second, arrivals })
    }

    pub(super) fn to_json(&self) -> Value {
        json!({
            "connections": self.connections,
            "in_flight": self.in_flight,
            "rate": self.rate,
            "arrivals": format!("{:?}", self.arrivals).to_lowercase(),
            "batch_bytes": parse_size_bytes(&self.batch_bytes).ok(),
            "record_bytes": self.record_bytes,
            "records_per_batch": self.records_per_batch,
            "batches_per_request": self.batches_per_request,
            "acks": format!("{:?}", self.acks).to_lowercase(),
            "codec": self.codec.name(),
            "random_percent": self.random_percent,
            "keys": self.keys,
            "key_skew": self.key_skew,
        })
    }
}

impl RawFetch {
    /// What a Fetch asks for.
    pub fn limits(&self) -> Result<FetchLimits, UsageError> {
        let bytes = |flag: &str, text: &str| {
            let bytes = size(flag, text)?;
            i32::try_from(bytes).map_err(|_| UsageError::new(format!("{flag} {text} is too large")))
        };
        Ok(FetchLimits {
            wait_ms_max: self.max_wait_ms,
            min_bytes: bytes("--min-bytes", &self.min_bytes)?,
            max_bytes: bytes("--max-bytes", &self.max_bytes)?,
            partition_max_bytes: bytes("--partition-max-bytes", &self.partition_max_bytes)?,
        })
    }

    pub(super) fn to_json(&self) -> Value {
        json!({
            "max_wait_ms": self.max_wait_ms,
            "min_bytes": self.min_bytes,
            "max_bytes": self.max_bytes,
            "partition_max_bytes": self.partition_max_bytes,
        })
    }
}

/// The size that a flag gives.
pub fn size(flag: &str, text: &str) -> Result<usize, UsageError> {
    let size = parse_size_bytes(text).map_err(|why| UsageError::new(format!("{flag}: {why}")))?;
    usize::try_from(size).map_err(|_| UsageError::new(format!("{flag} {text} is too large")))
}

fn key_value(pair: &str) -> Result<(String, String), UsageError> {
    match pair.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_string(), value.to_string())),
        _ => Err(UsageError::new(format!("--config {pair}: expected KEY=VALUE")).hint("--config retention.ms=3600000")),
    }
}
