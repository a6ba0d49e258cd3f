//! How a command ends: exit codes, and errors that say what to do next.
//!
//! Subcommands return `anyhow::Result`; what they mean is found by type at the top. A broken pipe is success: the
//! reader has seen what it wanted (`ottla consume t | head`).

use std::io;
use std::process::ExitCode;

use crate::client::ClientError;

/// The command did what was asked.
pub const SUCCESS: u8 = 0;
/// It was understood and failed.
pub const FAILURE: u8 = 1;
/// The command line, a variable or the configuration file is wrong.
pub const USAGE: u8 = 2;
/// This host or directory cannot run the broker as it is.
pub const HOST: u8 = 3;

/// What the user wrote cannot be meant.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct UsageError {
    /// What is wrong, with the place where it was written.
    pub message: String,
    /// What to do next, as a sentence or a command.
    pub hint: Option<String>,
}

impl UsageError {
    /// An error that needs no hint.
    pub fn new(message: impl Into<String>) -> UsageError {
        UsageError { message: message.into(), hint: None }
    }

    /// The same with a hint.
    pub fn hint(mut self, hint: impl Into<String>) -> UsageError {
        self.hint = Some(hint.into());
        self
    }
}

/// The host stands in the way; see [`crate::cli::serve::preflight`].
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct HostError {
    /// The cause.
    pub message: String,
    /// The command or change that mends it.
    pub remedy: String,
}

/// A failure that has been printed already or needs no more words.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failed {
    /// What failed.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
}

/// The exit code and the lines for stderr.
pub fn explain(error: &anyhow::Error) -> (u8, Vec<String>) {
    if is_broken_pipe(error) {
        return (SUCCESS, Vec::new());
    }
    let mut code = FAILURE;
    let mut hint = None;
    for cause in error.chain() {
        if let Some(usage) = cause.downcast_ref::<UsageError>() {
            code = USAGE;
            hint = hint.or_else(|| usage.hint.clone());
        } else if let Some(host) = cause.downcast_ref::<HostError>() {
            code = HOST;
            hint = hint.or_else(|| Some(host.remedy.clone()));
        } else if let Some(failed) = cause.downcast_ref::<Failed>() {
            hint = hint.or_else(|| failed.hint.clone());
        } else if let Some(client) = cause.downcast_ref::<ClientError>() {
            hint = hint.or_else(|| client.hint());
        }
    }
    let mut lines = vec![format!("ottla: {}", chain_text(error))];
    if let Some(hint) = hint {
        lines.push(format!("  try: {hint}"));
    }
    (code, lines)
}

/// Prints the error, if there is one to print, and gives the exit code.
pub fn finish(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::from(SUCCESS),
        Err(error) => {
            let (code, lines) = explain(&error);
            for line in lines {
                eprintln!("{line}");
            }
            ExitCode::from(code)
        }
    }
}

/// Causes joined by colons, without the repetition that nested messages bring.
fn chain_text(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let part = cause.to_string();
        if text.ends_with(&part) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&part);
    }
    text
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        // A connection may break as well, but that comes wrapped in a `ClientError` whose text is not `io::Error`'s.
        cause.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
            && !error.chain().any(|c| c.is::<ClientError>())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn each_kind_of_error_has_its_exit_code_even_under_context() {
        let usage = Err::<(), _>(UsageError::new("bad").hint("good")).context("reading flags").unwrap_err();
        assert_eq!(explain(&usage), (USAGE, vec!["ottla: reading flags: bad".into(), "  try: good".into()]));
        let host = anyhow::Error::new(HostError { message: "no".into(), remedy: "do".into() });
        assert_eq!(explain(&host).0, HOST);
        assert_eq!(explain(&anyhow::anyhow!("x")), (FAILURE, vec!["ottla: x".into()]));
    }

    #[test]
    fn a_broken_pipe_is_success_and_silent() {
        let error = anyhow::Error::new(io::Error::from(io::ErrorKind::BrokenPipe)).context("writing records");
        assert_eq!(explain(&error), (SUCCESS, vec![]));
    }
}
