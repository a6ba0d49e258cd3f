//! `ottla bench`: a load on any Kafka broker, measured.

mod load;
mod options;
mod progress;
mod sink;

use clap::Subcommand;

/// Subcommands of `ottla bench`.
#[derive(Debug, Subcommand)]
pub enum RawBench {
    /// Send batches as fast as answers allow, or at a rate.
    Produce(load::RawProduce),
    /// Read as fast as the broker gives, from the start or at the end.
    Consume(load::RawConsume),
    /// Produce and consume at the end: the time from sending a batch to receiving it.
    EndToEnd(load::RawEndToEnd),
    /// Produce while some consumers read at the end and others from the start.
    Mixed(load::RawMixed),
    /// A broker that drops what it gets: what the load generator itself costs.
    #[command(hide = true)]
    Sink(sink::RawSink),
}

/// Runs the command.
pub fn command(raw: RawBench) -> anyhow::Result<()> {
    match raw {
        RawBench::Produce(raw) => load::produce(&raw),
        RawBench::Consume(raw) => load::consume(&raw),
        RawBench::EndToEnd(raw) => load::end_to_end(&raw),
        RawBench::Mixed(raw) => load::mixed(&raw),
        RawBench::Sink(raw) => sink::command(&raw),
    }
}
