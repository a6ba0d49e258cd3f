//! `ottla bench floor`: what no broker can beat on this host.
//!
//! The bare append and fetch server is `ottla bench sink` in a process of its own, so that its CPU time and that of
//! its kernel workers can be told from the client's.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::{Args, Parser, ValueEnum};
use core_affinity::CoreId;
use serde_json::Value;

use super::load::{RawConsume, RawProduce, measure_consume, measure_produce};
use super::options::size;
use crate::bench::floor::disk::DiskOptions;
use crate::bench::floor::ratios::{APPEND_SIZES_BYTES, FETCH_NAME};
use crate::bench::floor::{self, Row, append_name};
use crate::bench::results::median;
use crate::cli::exit::UsageError;
use crate::cli::output::Output;
use crate::io::uring::{Ring, RingOptions};

/// Sizes of direct writes.
const WRITE_SIZES_BYTES: [u64; 5] = [4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20];

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// CRC-32C and copying.
    Cpu,
    /// Loopback.
    Net,
    /// Direct writes and reads.
    Disk,
    /// The bare append server.
    Append,
    /// The bare fetch server.
    Fetch,
}

/// Flags of `ottla bench floor`.
#[derive(Debug, Args)]
pub struct RawFloor {
    /// A directory on the disk to be measured; its files are removed at the end.
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// Size of the files there.
    #[arg(long, value_name = "SIZE", default_value = "1GiB")]
    file_bytes: String,
    /// How long each thing is measured.
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(10..=600_000))]
    time_ms: u64,
    /// Rounds of the bare server, whose medians are given.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Only some of it.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PART,...")]
    only: Vec<Part>,
    /// The CPU for the server, and for the other side of loopback.
    #[arg(long, value_name = "N")]
    server_cpu: Option<usize>,
    /// The CPU for everything else.
    #[arg(long, value_name = "N")]
    cpu: Option<usize>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Write JSON there, for --floor of the other commands.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Reads a result of this command.
pub fn read_floor(path: &Path) -> anyhow::Result<Value> {
    let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let json: Value = serde_json::from_slice(&bytes).with_context(|| format!("{} is no JSON", path.display()))?;
    ensure!(json["kind"] == floor::KIND, "{} is no result of ottla bench floor", path.display());
    Ok(json)
}

/// Runs the command.
pub fn command(raw: &RawFloor) -> anyhow::Result<()> {
    let file_size_bytes = size("--file-bytes", &raw.file_bytes)? as u64 / 4096 * 4096;
    if file_size_bytes < 32 << 20 {
        return Err(UsageError::new("--file-bytes: at least 32MiB").into());
    }
    if let Some(cpu) = raw.cpu
        && !core_affinity::set_for_current(CoreId { id: cpu })
    {
        return Err(UsageError::new(format!("--cpu {cpu}: this process cannot be pinned to it")).into());
    }
    let wants = |part: Part| raw.only.is_empty() || raw.only.contains(&part);
    let time = Duration::from_millis(raw.time_ms);
    let mut rows = Vec::new();
    if wants(Part::Cpu) {
        rows.extend(floor::cpu::measure(time));
    }
    if wants(Part::Net) {
        rows.extend(floor::net::measure(time, raw.server_cpu)?);
    }
    if wants(Part::Disk) {
        let directory = raw.dir.clone();
        let options = DiskOptions { directory, file_size_bytes, sizes_bytes: WRITE_SIZES_BYTES.to_vec(), time };
        let mut ring = Ring::new(RingOptions::default(), 256 << 20, None)?;
        rows.extend(floor::disk::measure(&mut ring, &options).context("measuring the disk")?);
    }
    let mut cells = Vec::new();
    if wants(Part::Append) {
        for (written, sync) in [(true, true), (true, false), (false, true), (false, false)] {
            cells.extend(APPEND_SIZES_BYTES.map(|size_bytes| Cell::Append { size_bytes, written, sync }));
        }
    }
    if wants(Part::Fetch) {
        cells.extend([Cell::Fetch { splice: false }, Cell::Fetch { splice: true }]);
    }
    let mut rounds: Vec<Vec<Row>> = cells.iter().map(|_| Vec::new()).collect();
    for _ in 0..raw.rounds {
        for (cell, measured) in cells.iter().zip(&mut rounds) {
            measured.push(cell.measure(raw, file_size_bytes)?);
        }
    }
    rows.extend(rounds.iter().filter(|rounds| !rounds.is_empty()).map(|rounds| middle(rounds)));
    let json = floor::to_json(&rows);
    if let Some(path) = &raw.out {
        std::fs::write(path, serde_json::to_vec_pretty(&json)?)
            .with_context(|| format!("writing {}", path.display()))?;
    }
    let mut out = Output::stdout();
    match raw.json {
        true => out.json(&json)?,
        false => out.table(&floor::HEADER, &floor::table(&rows))?,
    }
    Ok(out.flush()?)
}

/// One load on the bare server.
#[derive(Clone, Copy, Debug)]
enum Cell {
    Append { size_bytes: u64, written: bool, sync: bool },
    Fetch { splice: bool },
}

impl Cell {
    fn measure(self, raw: &RawFloor, file_size_bytes: u64) -> anyhow::Result<Row> {
        let path = raw.dir.join(format!("ottla-floor-{}.dat", std::process::id()));
        let file = path.to_str().context("a directory whose name is text")?.to_string();
        let server = match self {
            Cell::Append { written, sync, .. } => {
                let mut args = vec!["--log".into(), file, "--log-bytes".into(), file_size_bytes.to_string()];
                args.extend(sync.then(|| "--sync".to_string()));
                args.extend((!written).then(|| "--fallocated".to_string()));
                args
            }
            Cell::Fetch { splice: true } => vec!["--fetch-file".into(), file],
            Cell::Fetch { splice: false } => Vec::new(),
        };
        let server = Server::start(&server, raw.server_cpu);
        let row = server.and_then(|server| self.load(raw, &server));
        if path.exists() {
            std::fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
        }
        row
    }

    fn load(self, raw: &RawFloor, server: &Server) -> anyhow::Result<Row> {
        let warm_up_ms = (raw.time_ms / 3).max(10);
        let (pid, time_ms) = (server.child.id(), raw.time_ms);
        let mut args = format!(
            "bench --bootstrap {} --pid {pid} --warm-up-ms {warm_up_ms} --duration-ms {time_ms}",
            server.address
        );
        let (name, report) = match self {
            Cell::Append { size_bytes, written, sync } => {
                // As many in flight as keep the server busy at each size.
                let (connections, in_flight) = match size_bytes {
                    ..1024 => (32, 8),
                    1024..16_384 => (16, 4),
                    _ => (4, 4),
                };
                args += &format!(" --batch-bytes {size_bytes} --connections {connections} --in-flight {in_flight}");
                (append_name(size_bytes, written, sync), measure_produce(&parse::<RawProduce>(&args)?)?)
            }
            Cell::Fetch { splice } => {
                args += " --repeat --max-bytes 1MiB --partition-max-bytes 1MiB";
                let name = if splice { "fetch by splice" } else { FETCH_NAME };
                (name.to_string(), measure_consume(&parse::<RawConsume>(&args)?)?)
            }
        };
        let json = report.to_json();
        let figure = |name: &str| json[name].as_f64();
        Ok(Row {
            name,
            per_second: figure("requests_per_second"),
            mib_per_second: figure("mib_per_second"),
            p50_us: figure("p50_us"),
            p99_us: figure("p99_us"),
            p999_us: figure("p999_us"),
            cpu_seconds_per_gib: figure("broker_cpu_seconds_per_gib"),
            cpu_seconds_per_million_requests: figure("broker_cpu_seconds_per_million_requests"),
            machine_less_client_cpu_seconds_per_million_requests: figure(
                "machine_less_client_cpu_seconds_per_million_requests",
            ),
        })
    }
}

/// Flags of another subcommand, written as a user would.
fn parse<T: Args>(args: &str) -> anyhow::Result<T> {
    #[derive(Parser)]
    struct Wrapped<T: Args> {
        #[command(flatten)]
        raw: T,
    }
    Ok(Wrapped::<T>::try_parse_from(args.split(' ')).context("the load on the bare server")?.raw)
}

/// The median of each figure.
fn middle(rows: &[Row]) -> Row {
    let figure = |of: fn(&Row) -> Option<f64>| {
        let mut numbers: Vec<f64> = rows.iter().filter_map(of).collect();
        (!numbers.is_empty()).then(|| median(&mut numbers))
    };
    Row {
        name: rows[0].name.clone(),
        per_second: figure(|row| row.per_second),
        mib_per_second: figure(|row| row.mib_per_second),
        p50_us: figure(|row| row.p50_us),
        p99_us: figure(|row| row.p99_us),
        p999_us: figure(|row| row.p999_us),
        cpu_seconds_per_gib: figure(|row| row.cpu_seconds_per_gib),
        cpu_seconds_per_million_requests: figure(|row| row.cpu_seconds_per_million_requests),
        machine_less_client_cpu_seconds_per_million_requests: figure(|row| {
            row.machine_less_client_cpu_seconds_per_million_requests
        }),
    }
}

/// `ottla bench sink` as a child, killed and reaped when this is dropped.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(args: &[String], cpu: Option<usize>) -> anyhow::Result<Server> {
        let mut command = Command::new(std::env::current_exe().context("this program's own path")?);
        command.args(["bench", "sink", "--listen", "127.0.0.1:0"]).args(args);
        if let Some(cpu) = cpu {
            command.args(["--cpu", &cpu.to_string()]);
        }
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("starting the bare server")?;
        let stdout = child.stdout.take().context("it is piped")?;
        let mut server = Server { child, address: String::new() };
        BufReader::new(stdout).read_line(&mut server.address).context("waiting for the bare server")?;
        server.address.truncate(server.address.trim_end().len());
        if server.address.is_empty() {
            bail!("the bare server did not start");
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
