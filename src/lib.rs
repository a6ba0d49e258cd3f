//! ottla: an event-streaming broker for Linux that speaks the Apache Kafka protocol.
//!
//! One binary on io_uring, one thread per core. Each thread is a *shard*: it owns its ring, its memory, its
//! partitions, its connections and its TCP port, and to Kafka clients it is a broker of its own. Record bytes never
//! cross shards; metadata does, by mailbox.
//!
//! # The map
//! Dependencies point down this list only; `tests/architecture.rs` compares the imports with it.
//!
//! | module | what lives there | what it must not know |
//! |---|---|---|
//! | [`base`] | units, time, seeded random numbers, bounded queues, `invariant!`, coverage and mutants of simulations | Kafka |
//! | [`telemetry`] | per-shard counters and bounded histograms | atomics on the hot path |
//! | [`model`] | ids, offsets, record batch, compression, configs, limits | files, sockets, clocks |
//! | [`protocol`] | frame, API table, header, guarded decode, encode, hot produce and fetch, error codes | I/O; `unsafe` |
//! | [`io`] | the `Io` trait, operations, buffers, the ring and the simulated world | offsets, APIs |
//! | [`net`] | connection, response queue, send chain, admission | which API a frame is |
//! | [`storage`] | log, journal, segment, appender, reader, indexes, recovery, retention, compaction, layout | wire versions, error codes, cores |
//! | [`coordinator`] | groups, committed offsets and their records: pure | the log, connections, clocks |
//! | [`controller`] | metadata image, records, apply, placement, topics, snapshot | sockets, wire versions |
//! | [`handlers`] | one file per API or family, waiters; the only place where wire types meet the domain | rings |
//! | [`shard`] | event loop, mailboxes, metadata log, clean stop, node, threads, stall watch | what a request means |
//! | `simulate` | whole nodes in a simulated world, a model of what clients may rely on, broken rules (tests, feature `simulate`) | how the broker does it |
//! | [`client`] | the small Kafka client behind the command line and the load generator | shards |
//! | [`mod@bench`] | load generator: workload, schedule, client, sink, meter, report | the command line, shards |
//! | [`tune`] | the host doctor: facts, checks, report, script | the command line, shards |
//! | [`cli`] | raw flags to validated options; one file per subcommand | |
//! | [`doc`] | pages: the on-disk format, what is tested and how | |

#![deny(unsafe_code)]

pub mod base;
pub mod bench;
pub mod cli;
pub mod client;
pub mod controller;
pub mod coordinator;
pub mod doc;
pub mod handlers;
#[allow(unsafe_code)]
pub mod io;
pub mod model;
pub mod net;
pub mod protocol;
pub mod shard;
#[cfg(any(test, feature = "simulate"))]
pub mod simulate;
pub mod storage;
pub mod telemetry;
pub mod tune;
