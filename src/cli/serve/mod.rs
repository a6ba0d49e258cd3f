//! `ottla serve`: raw flags → merged layers → validated options → preflight → the broker.
//!
//! [`settings`] is the one table of what can be said; [`flags`] and [`layers`] collect what was said, [`options`]
//! decides what it means, [`mod@print`] shows it, [`preflight`] looks at the host. [`start`] starts the shards.

pub mod flags;
pub mod host;
pub mod layers;
pub mod logging;
pub mod options;
pub mod preflight;
pub mod print;
pub mod settings;
pub mod start;

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::Context;

pub use flags::RawServe;
pub use options::ServeOptions;

use self::layers::Merged;
use self::options::Facts;
use self::preflight::Severity;
use crate::cli::exit::UsageError;
use crate::cli::output::Output;

/// Runs the command.
pub fn command(raw: RawServe) -> anyhow::Result<()> {
    let (merged, options) = configure(&raw, &environment())?;
    if raw.print_config {
        let mut out = Output::stdout();
        if raw.json {
            out.json(&print::json_value(&merged))?;
        } else {
            out.write_all(print::toml_text(&merged).as_bytes())?;
        }
        out.flush()?;
        return Ok(());
    }
    logging::install(&options.log);
    for warning in &options.warnings {
        tracing::warn!("{warning}");
    }
    check_host(&options)?;
    start::run(&options)
}

/// Reads and merges everything that was said.
fn configure(raw: &RawServe, environment: &BTreeMap<String, String>) -> anyhow::Result<(Merged, ServeOptions)> {
    let path = layers::config_path(raw, environment);
    let text = match &path {
        Some(path) => Some(std::fs::read_to_string(path).map_err(|error| {
            UsageError::new(format!("the configuration file {} cannot be read: {error}", path.display()))
                .hint("give an existing file with --config, or unset OTTLA_CONFIG")
        })?),
        None => None,
    };
    let mut merged = layers::merge(raw, environment, path.as_deref().zip(text.as_deref()))?;
    let facts = Facts {
        cpu_count: host::usable_cpu_count(),
        memory_bytes: host::usable_memory_bytes(),
        stored_shard_count: merged.values.get("data-dir").and_then(|dir| start::stored_shard_count(dir.text.as_ref())),
        host_name: host::host_name(),
    };
    let options = options::resolve(&mut merged, &facts)?;
    Ok((merged, options))
}

fn check_host(options: &ServeOptions) -> anyhow::Result<()> {
    let facts = preflight::gather(&options.data_dir);
    for finding in preflight::findings(&facts, &preflight::Needs::of(options)) {
        match finding.severity {
            Severity::Fatal => return Err(finding.into_error()).context("cannot start"),
            Severity::Warning => tracing::warn!(remedy = finding.remedy, "{}", finding.cause),
        }
    }
    preflight::wait_for_ports(&options.listen, &options.data_dir)
        .map_err(|finding| finding.into_error())
        .context("cannot start")?;
    Ok(())
}

/// The environment as text; names and values that are not UTF-8 cannot be ours.
fn environment() -> BTreeMap<String, String> {
    std::env::vars_os().filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?))).collect()
}
