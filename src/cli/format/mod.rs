//! Records as text: lines in, lines out, JSON and base 64 for what is not text.

pub mod base64;
pub mod input;
pub mod json;
pub mod output;
pub mod time;

pub use input::{InputFormat, InputRecord, LineParser};
pub use output::{OutputFormat, RecordWriter};
