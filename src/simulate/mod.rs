//! Whole nodes in a simulated world, clients that remember what they were told, and checkers of every promise.
//!
//! A [`Plan`] follows from a seed. [`run`] plays it: a node of the real shards lives and dies several times on one
//! simulated disk, under faults of disk, network, clock and scheduling, while clients write, read, and create and
//! delete topics. What they learn goes into a [`model`] that shares no code with the broker; what contradicts it is a
//! [`Violation`]. A failing plan is shrunk by [`minimise`].
//!
//! | file | its one job |
//! |---|---|
//! | [`plan`] | what a history is made of; smaller plans |
//! | [`history`] | lives of the node, one after the other |
//! | [`chaos`] | the faults of one life |
//! | [`writer`], [`reader`], [`admin`], [`committer`], [`member`], [`consumer`] | clients |
//! | [`compacted`], [`transactor`] | clients with topics of their own |
//! | [`audit`] | the comparison after a start |
//! | [`model`], [`groups`], [`owners`], [`ledger`] | what is known, and what contradicts it |
//! | [`scene`], [`link`], [`contact`], [`ask`], [`wire`], [`keyed`] | what clients act on |
//! | [`violation`] | the promises |
//! | [`mutants`] | broken rules that the checkers must find |
//! | [`minimise`] | the shortest plan that still fails |
//! | [`report`] | what many histories have been through |
//!
//! Invariants: everything follows from the seed; one history is one thread. It must not know how the broker keeps its
//! promises, only what they are.

pub mod admin;
pub mod ask;
pub mod audit;
pub mod chaos;
pub mod committer;
pub mod compacted;
pub mod consumer;
pub mod contact;
pub mod groups;
pub mod history;
pub mod keyed;
pub mod ledger;
pub mod link;
pub mod member;
pub mod minimise;
pub mod model;
pub mod mutants;
pub mod owners;
pub mod plan;
pub mod reader;
pub mod report;
pub mod scene;
pub mod transactor;
pub mod violation;
pub mod wire;
pub mod writer;

pub use history::{Outcome, run};
pub use plan::Plan;
pub use report::Report;
pub use violation::{Checker, Violation};

#[cfg(test)]
mod tests;
