//! The command line: raw flags to validated options, one file per subcommand.
//!
//! Results go to stdout, everything else to stderr; listing commands have `--json`. Exit codes and the form of errors
//! are [`exit`]'s.

pub mod bench;
pub mod cluster;
pub mod consume;
pub mod exit;
pub mod format;
pub mod group;
pub mod inspect;
pub mod output;
pub mod produce;
pub mod remote;
pub mod serve;
#[cfg(feature = "simulate")]
pub mod simulate;
pub mod size;
pub mod suggest;
pub mod topic;
pub mod topic_change;
pub mod tune;
pub mod txn;
pub mod version;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// An event-streaming broker for Linux that speaks the Apache Kafka protocol.
#[derive(Debug, Parser)]
#[command(name = "ottla", version, arg_required_else_help = true, max_term_width = 100)]
#[command(
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 this host cannot run the broker."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the broker.
    Serve(serve::RawServe),
    /// Create, list, describe, change and delete topics.
    #[command(subcommand)]
    Topic(topic::RawTopic),
    /// Show the shards of a cluster and what each of them carries.
    #[command(subcommand)]
    Cluster(cluster::RawCluster),
    /// List, describe and delete groups, and move their offsets.
    #[command(subcommand)]
    Group(group::RawGroup),
    /// List and describe transactions, and end those that hang.
    #[command(subcommand)]
    Txn(txn::RawTxn),
    /// Send lines of stdin as records.
    Produce(produce::RawProduce),
    /// Print records.
    Consume(consume::RawConsume),
    /// Put a load on a broker and measure what it does.
    #[command(subcommand)]
    Bench(bench::RawBench),
    /// Examine this host: what costs the broker throughput or latency here, and what would mend it?
    Tune(tune::RawTune),
    /// Look into a data directory, a partition or one of their files: what is in it, is it sound?
    Inspect(inspect::RawInspect),
    /// Run whole nodes in a simulated world and look for broken promises.
    #[cfg(feature = "simulate")]
    Simulate(simulate::RawSimulate),
    /// Print the version and what it was built for.
    Version(version::RawVersion),
}

/// The process's arguments to its exit code.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    exit::finish(match cli.command {
        Command::Serve(raw) => serve::command(raw),
        Command::Topic(raw) => topic::command(raw),
        Command::Cluster(raw) => cluster::command(raw),
        Command::Group(raw) => group::command(raw),
        Command::Txn(raw) => txn::command(raw),
        Command::Produce(raw) => produce::command(raw),
        Command::Consume(raw) => consume::command(raw),
        Command::Bench(raw) => bench::command(raw),
        Command::Tune(raw) => tune::command(raw),
        Command::Inspect(raw) => inspect::command(raw),
        #[cfg(feature = "simulate")]
        Command::Simulate(raw) => simulate::command(raw),
        Command::Version(raw) => version::command(raw),
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
