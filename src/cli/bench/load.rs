//! `ottla bench produce`, `consume`, `end-to-end` and `mixed`.

use std::io::Write;
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use clap::{Args, ValueEnum};
use core_affinity::CoreId;
use serde_json::json;

use super::floor::read_floor;
use super::options::{RawAcks, RawFetch, RawLoad, RawRun, RawTarget};
use super::progress::Line;
use crate::base::time::Timestamp;
use crate::bench::Report;
use crate::bench::client::{AtEnd, Client as LoadClient, ConsumerSetup, EndToEnd, Load, ProducerSetup, Setup};
use crate::bench::cycle::Cycle;
use crate::bench::fetch_frame::FetchFrame;
use crate::bench::floor::ratios::{Ratio, ratios};
use crate::bench::keys::KeySpace;
use crate::bench::meter::Meter;
use crate::bench::route::{Place, Route};
use crate::cli::exit::UsageError;
use crate::cli::output::Output;
use crate::client::{Client, EARLIEST, IsolationLevel, LATEST};
use crate::io::uring::{Ring, RingOptions};
use crate::io::{Io, Pool};

/// The most memory for frames and answers.
const POOL_SIZE_BYTES: usize = 16 << 30;
/// How late the kernel may make a timer, so that requests are sent when they are due.
const TIMER_SLACK_NS: u64 = 1;

/// Flags of `ottla bench produce`.
#[derive(Debug, Args)]
pub struct RawProduce {
    #[command(flatten)]
    target: RawTarget,
    #[command(flatten)]
    load: RawLoad,
    #[command(flatten)]
    run: RawRun,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum RawFrom {
    /// The first offset that is kept.
    Start,
    /// What is written from now on.
    End,
}

/// Flags of `ottla bench consume`.
#[derive(Debug, Args)]
pub struct RawConsume {
    #[command(flatten)]
    target: RawTarget,
    /// Consuming connections, shared out among the brokers that lead partitions.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    consumers: u32,
    /// Where to begin.
    #[arg(long, value_enum, default_value_t = RawFrom::Start)]
    from: RawFrom,
    /// Begin again at the start when all is read; without, that ends the run.
    #[arg(long)]
    repeat: bool,
    #[command(flatten)]
    fetch: RawFetch,
    #[command(flatten)]
    run: RawRun,
}

/// Flags of `ottla bench end-to-end`.
#[derive(Debug, Args)]
pub struct RawEndToEnd {
    #[command(flatten)]
    target: RawTarget,
    #[command(flatten)]
    load: RawLoad,
    /// Consuming connections, shared out among the brokers that lead partitions.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    consumers: u32,
    #[command(flatten)]
    fetch: RawFetch,
    #[command(flatten)]
    run: RawRun,
}

/// Flags of `ottla bench mixed`.
#[derive(Debug, Args)]
pub struct RawMixed {
    #[command(flatten)]
    target: RawTarget,
    #[command(flatten)]
    load: RawLoad,
    /// Connections that read at the end, all partitions among them; 0 for none.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(..=10_000))]
    tail: u32,
    /// Connections that read from the start, again and again, all partitions among them; 0 for none.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(..=10_000))]
    catch_up: u32,
    /// Those read from this topic instead, which must be there.
    #[arg(long, value_name = "TOPIC")]
    catch_up_topic: Option<String>,
    #[command(flatten)]
    fetch: RawFetch,
    #[command(flatten)]
    run: RawRun,
}

/// Runs `ottla bench produce`.
pub fn produce(raw: &RawProduce) -> anyhow::Result<()> {
    finish(&raw.run, &measure_produce(raw)?)
}

/// The load of `ottla bench produce`.
pub fn measure_produce(raw: &RawProduce) -> anyhow::Result<Report> {
    let mut plan = Plan::new(&raw.run)?;
    let route = Route::find(&mut plan.client, &raw.target.plan(true)?)?;
    plan.produce(&route, &raw.load)?;
    plan.run("produce", json!({ "target": raw.target.to_json(), "load": raw.load.to_json() }))
}

/// Runs `ottla bench consume`.
pub fn consume(raw: &RawConsume) -> anyhow::Result<()> {
    finish(&raw.run, &measure_consume(raw)?)
}

/// The load of `ottla bench consume`.
pub fn measure_consume(raw: &RawConsume) -> anyhow::Result<Report> {
    let mut plan = Plan::new(&raw.run)?;
    let route = Route::find(&mut plan.client, &raw.target.plan(false)?)?;
    let at_end = match (raw.from, raw.repeat) {
        (RawFrom::Start, true) => AtEnd::Repeat,
        (RawFrom::Start, false) => AtEnd::Stop,
        (RawFrom::End, true) => return Err(UsageError::new("--repeat needs --from start").into()),
        (RawFrom::End, false) => AtEnd::Wait,
    };
    plan.consume("consume", &route, raw.consumers, &raw.fetch, at_end)?;
    let from = format!("{:?}", raw.from).to_lowercase();
    let consume =
        json!({ "consumers": raw.consumers, "from": from, "repeat": raw.repeat, "fetch": raw.fetch.to_json() });
    plan.run("consume", json!({ "target": raw.target.to_json(), "consume": consume }))
}

/// Runs `ottla bench end-to-end`.
pub fn end_to_end(raw: &RawEndToEnd) -> anyhow::Result<()> {
    if raw.load.acks == RawAcks::None {
        let hint = "offsets come with acknowledgements: use --acks 1 or all";
        return Err(UsageError::new("--acks 0 does not tell which batch is which").hint(hint).into());
    }
    let mut plan = Plan::new(&raw.run)?;
    let route = Route::find(&mut plan.client, &raw.target.plan(true)?)?;
    plan.produce(&route, &raw.load)?;
    let consumers = plan.consume("consume", &route, raw.consumers, &raw.fetch, AtEnd::Wait)?;
    plan.measure_end_to_end(consumers);
    let consume = json!({ "consumers": raw.consumers, "fetch": raw.fetch.to_json() });
    let load = raw.load.to_json();
    let options = json!({ "target": raw.target.to_json(), "load": load, "consume": consume });
    finish(&raw.run, &plan.run("end-to-end", options)?)
}

/// Runs `ottla bench mixed`.
pub fn mixed(raw: &RawMixed) -> anyhow::Result<()> {
    let mut plan = Plan::new(&raw.run)?;
    let target = raw.target.plan(true)?;
    let route = Route::find(&mut plan.client, &target)?;
    plan.produce(&route, &raw.load)?;
    if raw.tail > 0 {
        let consumers = plan.consume("tail", &route, raw.tail, &raw.fetch, AtEnd::Wait)?;
        if raw.load.acks != RawAcks::None {
            plan.measure_end_to_end(consumers);
        }
    }
    if raw.catch_up > 0 {
        let other = match &raw.catch_up_topic {
            None => None,
            Some(name) => {
                let plan_of = RawTarget { topic: name.clone(), topics: 1, ..raw.target.clone() }.plan(false)?;
                Some(Route::find(&mut plan.client, &plan_of)?)
            }
        };
        plan.consume("catch-up", other.as_ref().unwrap_or(&route), raw.catch_up, &raw.fetch, AtEnd::Repeat)?;
    }
    let readers = json!({ "tail": raw.tail, "catch_up": raw.catch_up, "fetch": raw.fetch.to_json() });
    let load = raw.load.to_json();
    let options = json!({ "target": raw.target.to_json(), "load": load, "readers": readers });
    finish(&raw.run, &plan.run("mixed", options)?)
}

/// A run that is being put together.
struct Plan<'r> {
    raw: &'r RawRun,
    client: Client,
    ring: Ring,
    meter: Meter,
    setup: Setup,
    loaded: Vec<&'static str>,
}

impl<'r> Plan<'r> {
    fn new(raw: &'r RawRun) -> anyhow::Result<Plan<'r>> {
        if let Some(cpu) = raw.cpu
            && !core_affinity::set_for_current(CoreId { id: cpu })
        {
            return Err(UsageError::new(format!("--cpu {cpu}: this process cannot be pinned to it")).into());
        }
        // Only lateness is lost where it is refused, and lateness is reported.
        let _ = nix::sys::prctl::set_timerslack(TIMER_SLACK_NS);
        let options =
            RingOptions { sq_entries: 1024, cq_entries: 4096, spin_us: raw.busy_poll_us, ..RingOptions::default() };
        let setup = Setup {
            topics: Vec::new(),
            producers: Vec::new(),
            consumers: Vec::new(),
            streams: Vec::new(),
            end_to_end: None,
            load: Load::Closed,
            in_flight_count: 1,
            unanswered: false,
            seed: raw.seed,
        };
        Ok(Plan {
            raw,
            client: raw.remote.connect()?,
            ring: Ring::new(options, POOL_SIZE_BYTES, None)?,
            meter: Meter::new(raw.pid)?,
            setup,
            loaded: Vec::new(),
        })
    }

    /// Adds producing connections to all partitions of `route`, which become the first stream.
    fn produce(&mut self, route: &Route, raw: &RawLoad) -> anyhow::Result<()> {
        let workload = raw.workload(self.raw.seed)?;
        // Every leader answers for its partitions before the load begins.
        self.offsets(route, LATEST)?;
        let keys = raw.keys.map(|count| KeySpace::new(count, raw.key_skew, route.topics[0].partition_count));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = Timestamp(now.as_millis() as i64);
        // Skewed partitions are in every connection's cycle, so that the skew is the same whatever their number.
        let shares: Vec<_> = route.shares(raw.connections as usize);
        let shares = shares.into_iter().map(|(broker, share)| match &keys {
            Some(_) => (broker, broker.places.clone()),
            None => (broker, share),
        });
        let shares: Vec<_> = shares.collect();
        let mut cycles: Vec<(Vec<Place>, Rc<Cycle>)> = Vec::new();
        for (broker, share) in shares {
            let weight = match &keys {
                None => share.len() as f64,
                Some(keys) => share.iter().map(|place| keys.weight(place.partition)).sum(),
            };
            let cycle = match cycles.iter().find(|(known, _)| *known == share) {
                Some((_, cycle)) => cycle.clone(),
                None => {
                    let (version, in_flight) = (broker.produce_version, raw.in_flight as usize);
                    let pool: &Pool = self.ring.pool();
                    let topics = &route.topics;
                    let cycle = Cycle::new(&workload, topics, &share, keys.as_ref(), version, in_flight, now, pool)?;
                    cycles.push((share, cycle.clone()));
                    cycle
                }
            };
            self.setup.producers.push(ProducerSetup { address: broker.address, cycle, weight });
        }
        self.setup.topics = route.topics.clone();
        self.setup.streams.push("produce");
        self.setup.load = raw.load()?;
        self.setup.in_flight_count = raw.in_flight as usize;
        self.setup.unanswered = raw.acks == RawAcks::None;
        self.loaded.push("produce");
        Ok(())
    }

    /// Adds consuming connections to all partitions of `route` as a stream of their own, whose index is returned.
    fn consume(
        &mut self,
        name: &'static str,
        route: &Route,
        connections: u32,
        raw: &RawFetch,
        at_end: AtEnd,
    ) -> anyhow::Result<usize> {
        let limits = raw.limits()?;
        let from = self.offsets(route, if at_end == AtEnd::Wait { LATEST } else { EARLIEST })?;
        // Places of another topic are told apart by their topic's index behind those that are known.
        let first_topic = match self.setup.topics.first().is_some_and(|known| known.name == route.topics[0].name) {
            true => 0,
            false => self.setup.topics.len() as u32,
        };
        if first_topic as usize == self.setup.topics.len() {
            self.setup.topics.extend(route.topics.iter().cloned());
        }
        let stream = self.setup.streams.len();
        for (broker, share) in route.shares((connections as usize).min(route.place_count())) {
            let positions = share.iter().map(|place| from[place.id as usize]).collect();
            let frame = FetchFrame::new(&route.topics, &share, broker.fetch_version, limits)?;
            let places = share.iter().map(|place| Place { topic: place.topic + first_topic, ..*place }).collect();
            let (version, check_crc) = (broker.fetch_version, raw.check_crc);
            let consumer = ConsumerSetup { frame, version, places, positions, at_end, check_crc };
            self.setup.consumers.push((broker.address, stream, consumer));
        }
        self.setup.streams.push(name);
        self.loaded.push(name);
        Ok(stream)
    }

    fn measure_end_to_end(&mut self, consumers: usize) {
        self.setup.end_to_end = Some(EndToEnd { stream: self.setup.streams.len(), consumers });
        self.setup.streams.push("end-to-end");
    }

    /// Offsets by place.
    fn offsets(&mut self, route: &Route, at: Timestamp) -> anyhow::Result<Vec<i64>> {
        let mut offsets = vec![0; route.place_count()];
        for (index, topic) in route.topics.iter().enumerate() {
            let wanted: Vec<_> = (0..topic.partition_count as i32).map(|partition| (partition, at)).collect();
            let found = self.client.list_offsets(&topic.name, &wanted, IsolationLevel::ReadUncommitted)?;
            for place in route.places().filter(|place| place.topic as usize == index) {
                offsets[place.id as usize] = found.get(&place.partition).map_or(0, |at| at.offset.0);
            }
        }
        Ok(offsets)
    }

    fn run(mut self, what: &'static str, options: serde_json::Value) -> anyhow::Result<Report> {
        let raw = self.raw;
        let mut line = Line::new();
        let client = LoadClient::connect(&mut self.ring, self.setup)?;
        let run = client.run(raw.times(), &mut self.meter, |progress| line.show(progress));
        drop(line);
        let run = run.with_context(|| format!("the {what} load"))?;
        let label = raw.label.clone().unwrap_or_else(|| what.to_string());
        Ok(Report { what, label, options, run, loaded: self.loaded })
    }
}

/// Prints and writes what came of it.
fn finish(raw: &RawRun, report: &Report) -> anyhow::Result<()> {
    if let Some(directory) = &raw.out {
        report.write(directory)?;
    }
    let floor = raw.floor.as_deref().map(read_floor).transpose()?;
    let mut result = report.to_json();
    let ratios = floor.map(|floor| ratios(&result, &floor));
    let mut out = Output::stdout();
    if raw.json {
        if let Some(ratios) = ratios {
            let named = ratios.into_iter().map(|ratio| (ratio.figure.to_string(), json!(ratio.value)));
            result["ratios_to_floor"] = named.collect::<serde_json::Map<_, _>>().into();
        }
        out.json(&result)?;
    } else {
        let (header, rows) = report.stream_table();
        out.table(&header, &rows)?;
        writeln!(out)?;
        out.table(&["FIGURE", "VALUE"], &report.cost_rows())?;
        if let Some(ratios) = ratios {
            writeln!(out)?;
            let row = |ratio: Ratio| vec![ratio.figure.to_string(), format!("{:.2}", ratio.value), ratio.of];
            out.table(&["RATIO TO THE FLOOR", "VALUE", "FLOOR"], &ratios.into_iter().map(row).collect::<Vec<_>>())?;
        }
    }
    out.flush()?;
    for warning in report.warnings() {
        eprintln!("warning: {warning}");
    }
    Ok(())
}
