//! `ottla version`.

use std::io::Write;

use clap::Args;

use super::output::Output;

/// Flags of `ottla version`.
#[derive(Debug, Args)]
pub struct RawVersion {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn command(raw: RawVersion) -> anyhow::Result<()> {
    let mut out = Output::stdout();
    let (version, arch) = (env!("CARGO_PKG_VERSION"), std::env::consts::ARCH);
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    if raw.json {
        out.json(&serde_json::json!({ "version": version, "arch": arch, "profile": profile }))?;
    } else {
        writeln!(out, "ottla {version} ({arch}, {profile})")?;
    }
    out.flush()?;
    Ok(())
}
