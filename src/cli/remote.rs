//! What every command that talks to a broker has in common: where it is, and how long to try.

use std::time::Duration;

use clap::Args;

use crate::client::{Client, ClientError, ClientOptions};

/// Common flags.
#[derive(Clone, Debug, Args)]
pub struct RawRemote {
    /// A broker to ask first, or several separated by commas.
    #[arg(long, value_name = "HOST:PORT", env = "OTTLA_BOOTSTRAP", default_value = "127.0.0.1:9092")]
    pub bootstrap: String,
    /// How many seconds to retry what may pass.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub timeout: u64,
}

impl RawRemote {
    /// Connects.
    pub fn connect(&self) -> Result<Client, ClientError> {
        let mut options = ClientOptions { retry_for: Duration::from_secs(self.timeout), ..ClientOptions::default() };
        options.connection.answer_wait_max = Duration::from_secs(self.timeout.max(30) + 5);
        Client::connect(&self.bootstrap, options)
    }
}

/// Text with `\t`, `\n`, `\0` and `\\` for characters that are hard to type.
pub fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        match rest.next() {
            Some(b't') => bytes.push(b'\t'),
            Some(b'n') => bytes.push(b'\n'),
            Some(b'0') => bytes.push(0),
            Some(b'\\') => bytes.push(b'\\'),
            Some(other) => bytes.extend([b'\\', other]),
            None => bytes.push(b'\\'),
        }
    }
    bytes
}
