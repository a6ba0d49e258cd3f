//! What the broker speaks about: ids and offsets, the record batch, compression, configurations and limits.
//!
//! The record batch is a leaf under both `protocol` and `storage`: it is the wire's unit and the disk's.
//! This module must not know files, sockets or clocks.

pub mod batch;
pub mod builder;
pub mod compression;
pub mod configs;
pub mod id;
pub mod limits;
pub mod marker;
pub mod records;
pub mod rewrite;
