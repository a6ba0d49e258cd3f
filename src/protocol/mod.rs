//! The Kafka wire protocol: bytes to requests and responses to bytes.
//!
//! How a frame passes: [`frame::scan`] finds where it ends, [`header::parse`] says what it is, [`api`] what versions
//! are served; then Produce and Fetch, the hot two, are walked where they lie ([`produce`], [`fetch`]: hand-written,
//! no allocation), and every other body goes through [`decode`], which lets [`guard`] look at it before
//! `kafka-protocol` may allocate anything. Answers leave by [`encode`] or by the hot two's own encoders.
//!
//! Invariants: no length or count from the wire is believed before it was compared with the bytes that are left; a
//! refusal is a value ([`DecodeError`]), never a panic.
//!
//! This module must not know sockets, shards or logs, and needs no `unsafe`.

pub mod api;
pub mod decode;
pub mod encode;
pub mod error;
pub mod fetch;
pub mod frame;
pub mod guard;
pub mod header;
pub mod produce;
#[cfg(test)]
mod samples;
#[cfg(test)]
mod samples_admin;
mod schema;
mod topic_ids;
pub mod wire;

pub use api::ApiKey;
pub use error::ErrorCode;
pub use wire::{DecodeError, LeaderIdAndEpoch, NodeEndpoint, Topic, TopicRef};
