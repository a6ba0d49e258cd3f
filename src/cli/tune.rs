//! `ottla tune`: the host doctor.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;

use super::exit::UsageError;
use super::output::Output;
use super::serve::host::{usable_cpu_count, usable_memory_bytes};
use super::serve::options::{SHARD_COUNT_DEFAULT_MAX, memory_per_shard_default_bytes};
use super::size::parse_size_bytes;
use crate::tune::{self, Needs, Request, text::Style};

/// Flags of `ottla tune`.
#[derive(Debug, Args)]
pub struct RawTune {
    /// Where the broker's records are or will be; it need not be there yet.
    #[arg(long, value_name = "DIR", default_value = "./ottla-data", env = "OTTLA_DATA_DIR")]
    data_dir: PathBuf,
    /// Look at this network interface only [default: all with a device].
    #[arg(long, value_name = "NAME")]
    interface: Option<String>,
    /// Shards that the broker would run [default: the usable CPUs, at most 8].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    shards: Option<u16>,
    /// Memory of each [default: a quarter of the memory, shared out].
    #[arg(long, value_name = "SIZE")]
    memory_per_shard: Option<String>,
    /// Say why for what is in order too.
    #[arg(long, short)]
    verbose: bool,
    /// Print a shell script that would mend what was found. It is not run.
    #[arg(long, conflicts_with = "json")]
    script: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn command(raw: RawTune) -> anyhow::Result<()> {
    if let Some(name) = &raw.interface
        && (name.contains('/') || !Path::new("/sys/class/net").join(name).exists())
    {
        return Err(UsageError::new(format!("--interface {name}: there is none")).hint("`ip link` lists them").into());
    }
    let shard_count = raw.shards.map_or_else(|| usable_cpu_count().min(SHARD_COUNT_DEFAULT_MAX), usize::from);
    let memory_per_shard_bytes = match &raw.memory_per_shard {
        Some(text) => {
            parse_size_bytes(text).map_err(|why| UsageError::new(format!("--memory-per-shard {text}: {why}")))?
        }
        None => memory_per_shard_default_bytes(usable_memory_bytes(), shard_count),
    };
    let report = tune::examine(&Request {
        data_dir: raw.data_dir,
        interface: raw.interface,
        needs: Needs { shard_count, memory_per_shard_bytes, ..Needs::default() },
    });
    let mut out = Output::stdout();
    if raw.json {
        out.json(&tune::json(&report))?;
    } else if raw.script {
        out.write_all(tune::script::render(&report).as_bytes())?;
    } else {
        let style = Style { colour: out.has_colour(), verbose: raw.verbose };
        out.write_all(tune::text::render(&report, style).as_bytes())?;
    }
    Ok(out.flush()?)
}
