//! The controller: what the cluster's metadata is, and how it changes.
//!
//! The metadata log holds [`records`]; [`apply`] turns an [`image`] and a record into the next image, so that any log
//! gives one image, and every shard holds an immutable one. [`topics`], [`configs`] and [`growth`] judge requests; [`controller`] is the state
//! machine that turns requests into records and answers them when they are durable and every shard knows. [`placement`]
//! says which broker leads a partition, from the image alone. [`snapshot`] lets the log be cut.
//!
//! Invariants: the same records give the same image; an image's version is the offset of its last record; a record is
//! never changed once it was written, only new versions of its encoding are added.
//! It must not know sockets, files, clocks or wire versions.

pub mod apply;
pub mod configs;
#[allow(clippy::module_inception)]
pub mod controller;
pub mod growth;
pub mod image;
pub mod internal;
mod map;
pub mod placement;
pub mod records;
pub mod snapshot;
#[cfg(test)]
mod tests;
pub mod topics;
