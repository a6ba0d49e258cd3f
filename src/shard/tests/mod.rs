//! Whole shards on the simulated world: event loop, controller, metadata log, handlers, net and storage, unchanged.
//!
//! | file | its one job |
//! |---|---|
//! | [`node`] | a node whose shards take turns in one thread |
//! | [`client`] | a Kafka client driven by hand |
//! | [`load`] | a load that remembers, and the model that checks what is read back |
//! | [`routing`] | who answers what, in which order |
//! | [`durability`] | what survives a power cut, a kill, a stop |
//! | [`topics`] | what the metadata survives |
//! | [`admin`] | what changed configs, more partitions and deleted records survive |
//! | [`fetching`] | long polls and sessions |
//! | [`faults`] | full and failing disks |
//! | [`hostile`] | clients that misbehave |
//! | [`journal`] | the journal of small commits |
//! | [`stopping`] | what clients get from a shard that stops |
//! | [`memory`] | what clients hold together |
//! | [`offsets`] | group coordinators and committed offsets |
//! | [`transactions`] | transactions: power cuts at every step, late batches |
//! | [`workload`] | everything at once, by the seed |
//!
//! Every failure names its seed, and a seed gives one history.

mod admin;
mod client;
mod consumer_groups;
mod durability;
mod faults;
mod fetching;
mod hostile;
mod journal;
mod load;
mod memory;
mod node;
mod offsets;
mod routing;
mod stopping;
mod topics;
mod transactions;
mod workload;
