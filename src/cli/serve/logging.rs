//! Structured logs on stderr, as text or as JSON lines.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::EnvFilter;

use super::options::LogOptions;

/// Installs the process's log subscriber. A second call does nothing.
pub fn install(options: &LogOptions) {
    let filter = EnvFilter::new(&options.filter);
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    let _ = if options.json {
        builder.json().flatten_event(true).with_current_span(false).try_init().map_err(drop)
    } else {
        let colour = stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        builder.with_ansi(colour).try_init().map_err(drop)
    };
}
