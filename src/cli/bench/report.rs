//! `ottla bench report`: results as one page.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use super::floor::read_floor;
use crate::bench::plot::page;
use crate::bench::results::RunResult;

/// Flags of `ottla bench report`.
#[derive(Debug, Args)]
pub struct RawReport {
    /// Directories that --out has written. Runs with the same --label are rounds of one thing.
    #[arg(required = true, value_name = "DIR")]
    directories: Vec<PathBuf>,
    /// The page to be written.
    #[arg(long, value_name = "FILE", default_value = "report.html")]
    output: PathBuf,
    /// Its title.
    #[arg(long, default_value = "ottla bench")]
    title: String,
    /// Give figures also as ratios to this result of `ottla bench floor`.
    #[arg(long, value_name = "FILE")]
    floor: Option<PathBuf>,
}

/// Runs the command.
pub fn command(raw: &RawReport) -> anyhow::Result<()> {
    let runs = raw.directories.iter().map(|path| RunResult::read(path)).collect::<Result<Vec<_>, _>>()?;
    let floor = raw.floor.as_deref().map(read_floor).transpose()?;
    let html = page(&raw.title, &runs, floor.as_ref());
    std::fs::write(&raw.output, html).with_context(|| format!("writing {}", raw.output.display()))?;
    println!("{}", raw.output.display());
    Ok(())
}
