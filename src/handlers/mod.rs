//! Requests: one file per API or family. The only place where wire types meet the domain.
//!
//! [`broker`] holds a shard's state and passes things on; [`call`] finds the handler of a request. Handlers run to
//! completion: what takes time is submitted, noted in a task or a wait, and finished when its completion comes.
//!
//! Invariants
//! - Every request is answered exactly once, or its connection is closed, or it asked for no answer.
//! - Effects of the requests of one connection happen in their order.
//! - An acknowledgement is given only from a log's high watermark.
//!
//! It must not know rings or threads.

mod alter_configs;
mod api_versions;
pub mod apply;
mod authorized;
#[cfg(any(test, feature = "simulate"))]
pub mod bounds;
pub mod broker;
pub mod bus;
pub mod call;
mod cold_pace;
mod cold_reads;
mod compaction;
mod coordinator;
mod create_partitions;
mod deadlines;
mod delete_records;
mod describe_cluster;
mod describe_configs;
mod describe_log_dirs;
mod describe_producers;
mod describe_topic_partitions;
pub mod endpoints;
mod errors;
mod fetch;
mod fetch_session;
mod fetch_tasks;
mod fetch_waits;
mod init_producer_id;
mod journal;
mod list_config_resources;
mod list_offsets;
mod located;
mod logs;
pub mod markers;
mod metadata;
mod offset_for_leader_epoch;
pub mod options;
mod parked;
mod partitions;
mod produce;
mod reassignments;
mod recompress;
mod reconfigure;
mod room;
pub mod start;
mod stop;
pub mod token;
mod topics;
pub mod verify;
