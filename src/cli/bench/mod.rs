//! `ottla bench`: a load on any Kafka broker, measured.

mod floor;
mod load;
mod options;
mod progress;
mod report;
mod sink;

use clap::Subcommand;

/// Subcommands of `ottla bench`.
#[derive(Debug, Subcommand)]
pub enum RawBench {
    /// Send batches as fast as answers allow, or at a rate.
    Produce(Box<load::RawProduce>),
    /// Read as fast as the broker gives, from the start or at the end.
    Consume(Box<load::RawConsume>),
    /// Produce and consume at the end: the time from sending a batch to receiving it.
    EndToEnd(Box<load::RawEndToEnd>),
    /// Produce while some consumers read at the end and others from the start.
    Mixed(Box<load::RawMixed>),
    /// Draw results of --out as one HTML page: latencies by percentile, against throughput and over time.
    Report(report::RawReport),
    /// Measure what no broker can beat on this host: disk, loopback, CRC, and a server that does next to nothing.
    Floor(floor::RawFloor),
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
        RawBench::Report(raw) => report::command(&raw),
        RawBench::Floor(raw) => floor::command(&raw),
        RawBench::Sink(raw) => sink::command(&raw),
    }
}
