//! The client that makes the load: one thread, one ring, any number of connections, producing and consuming.
//!
//! How it works
//! 1. [`Client::connect`] makes all connections through [`Io`]. A producing one (`producer`) sends a
//!    [`Cycle`] round and round, a consuming one (`consumer`) has one Fetch under way; `link` moves their bytes.
//! 2. [`Client::run`] is the loop: take completions, look at answers, add requests that are due ([`Schedule`]) or
//!    allowed by an answer (closed loop), send, wait.
//! 3. `phases` says what time it is: warm-up, measured time, and the wait for what is under way at its end.
//!
//! A request's time runs from the moment at which it was to be sent: by the schedule in an open loop, in a closed one
//! by the answer that allowed it. A socket that takes no more bytes shows in the latency. The clock is read once per
//! loop turn.
//!
//! Invariants
//! - Every answer is looked at: an error code, a wrong correlation id or a lost connection ends the run as an error,
//!   never as a number.
//! - In an open loop every request that was due in the measured time is in the result, also those that are answered
//!   after its end. What has no answer when the wait is over is in it with the time that it has waited so far.

mod consumer;
mod link;
mod matcher;
mod phases;
mod producer;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use rustc_hash::FxHashSet;

use super::cycle::Cycle;
use super::meter::Meter;
use super::recorder::{Counts, Recorder};
use super::route::LoadTopic;
use super::schedule::{Arrivals, Schedule, deck};
use crate::base::rng::Rng;
use crate::base::time::{Monotonic, Now};
use crate::io::{Buffer, Completion, Io, Op, Outcome};
use consumer::Consumer;
use link::{Doing, Link, of_token, token};
use matcher::Matcher;
use phases::{Phases, Situation};
use producer::Producer;

pub use consumer::{AtEnd, ConsumerSetup};
pub use phases::{Progress, Run, Times, WarmUp};

/// Received at once on a producing connection, and its greatest answer.
const PRODUCER_BUFFER_BYTES: usize = 64 << 10;
const PRODUCER_ANSWER_BYTES_MAX: usize = 16 << 20;
/// The same on a consuming one.
const CONSUMER_BUFFER_BYTES: usize = 1 << 20;
const CONSUMER_ANSWER_BYTES_MAX: usize = 512 << 20;
/// Without any answer for so long the run has failed.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Connecting takes at most so long.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Batches get new timestamps so often, one cycle at a time, if that takes less than about a millisecond: requests that
/// are due meanwhile are sent late. Those of larger cycles keep the time at which the run began.
const RESTAMP_EVERY: Duration = Duration::from_secs(10);
const RESTAMP_SIZE_BYTES_MAX: usize = 4 << 20;

/// How producers decide when to send.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Load {
    /// As soon as an answer allows it.
    Closed,
    /// At a rate of all connections together.
    Open {
        /// Requests a second.
        rate_per_second: f64,
        /// How they follow one another.
        arrivals: Arrivals,
    },
}

/// A producing connection to be made.
#[derive(Clone, Debug)]
pub struct ProducerSetup {
    /// The broker.
    pub address: SocketAddr,
    /// What is sent.
    pub cycle: Rc<Cycle>,
    /// Its share of an open loop's requests, compared with the others.
    pub weight: f64,
}

/// What the client does.
pub struct Setup {
    /// The topics that places refer to.
    pub topics: Vec<LoadTopic>,
    /// Connections that produce.
    pub producers: Vec<ProducerSetup>,
    /// Connections that consume, each with its broker and the index of its stream.
    pub consumers: Vec<(SocketAddr, usize, ConsumerSetup)>,
    /// Names of the streams. Producers record into the first if there are any.
    pub streams: Vec<&'static str>,
    /// The stream for latencies from producing to consuming, and the stream whose consumers tell.
    pub end_to_end: Option<EndToEnd>,
    /// When requests are sent.
    pub load: Load,
    /// Requests under way on each producing connection.
    pub in_flight_count: usize,
    /// Produce with acks=0: there are no answers.
    pub unanswered: bool,
    /// For draws and Poisson arrivals.
    pub seed: u64,
}

/// Streams of a measurement from producing to consuming.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndToEnd {
    /// Where latencies are recorded.
    pub stream: usize,
    /// The stream of the consumers that count as arrival.
    pub consumers: usize,
}

/// The client.
pub struct Client<'i, I: Io> {
    io: &'i mut I,
    topics: Vec<LoadTopic>,
    producers: Vec<Producer>,
    consumers: Vec<Consumer>,
    streams: Vec<(&'static str, Recorder)>,
    /// How late the client itself was with requests that were due.
    lateness: Recorder,
    end_to_end: Option<(EndToEnd, Matcher)>,
    load: Load,
    /// Of an open loop: when requests are due, to whom they go in turn, and where in that order we are.
    schedule: Option<Schedule>,
    deck: Vec<u32>,
    deck_at: usize,
    in_flight_count: usize,
    /// Producers that may have something to send.
    listed: Vec<u32>,
    seed: u64,
    /// Every cycle once; when all were given new timestamps; which of them is next.
    cycles: Vec<Rc<Cycle>>,
    restamped: Monotonic,
    restamp_next: usize,
}

impl<'i, I: Io> Client<'i, I> {
    /// Makes all connections.
    pub fn connect(io: &'i mut I, setup: Setup) -> anyhow::Result<Client<'i, I>> {
        let addresses: Vec<SocketAddr> = setup.producers.iter().map(|producer| producer.address).collect();
        let addresses: Vec<SocketAddr> =
            addresses.into_iter().chain(setup.consumers.iter().map(|(address, ..)| *address)).collect();
        ensure!(!addresses.is_empty(), "there is nothing to do");
        for (number, address) in addresses.iter().enumerate() {
            io.submit(token(number as u32, Doing::Connecting), Op::Connect { address: *address });
        }
        let deadline = io.now().monotonic + CONNECT_MAX;
        let mut sockets: Vec<_> = addresses.iter().map(|_| None).collect();
        let mut completions = Vec::new();
        let mut made_count = 0;
        while made_count < sockets.len() {
            io.poll(Some(deadline), &mut completions);
            for completion in completions.drain(..) {
                let number = of_token(completion.token).0 as usize;
                let outcome = completion.result.with_context(|| format!("connecting to {}", addresses[number]))?;
                let Outcome::Connected(socket) = outcome else { bail!("a connect that did something else") };
                sockets[number] = Some(socket);
                made_count += 1;
            }
            ensure!(io.now().monotonic < deadline || made_count == sockets.len(), "connecting took {CONNECT_MAX:?}");
        }
        let mut sockets = (0..).zip(sockets.into_iter().map(|socket| socket.expect("all were made")));
        let mut rng = Rng::new(setup.seed);
        let weights: Vec<f64> = setup.producers.iter().map(|producer| producer.weight).collect();
        let mut producers = Vec::with_capacity(setup.producers.len());
        let mut cycles: Vec<Rc<Cycle>> = Vec::new();
        let mut known = FxHashSet::default();
        for (producer, (number, socket)) in setup.producers.into_iter().zip(&mut sockets) {
            if known.insert(Rc::as_ptr(&producer.cycle)) {
                cycles.push(producer.cycle.clone());
            }
            let link = Link::new(io, number, socket, PRODUCER_BUFFER_BYTES, PRODUCER_ANSWER_BYTES_MAX)?;
            producers.push(Producer::new(link, producer.cycle, setup.in_flight_count, setup.unanswered));
        }
        let mut consumers = Vec::with_capacity(setup.consumers.len());
        for ((_, stream, consumer), (number, socket)) in setup.consumers.into_iter().zip(&mut sockets) {
            let link = Link::new(io, number, socket, CONSUMER_BUFFER_BYTES, CONSUMER_ANSWER_BYTES_MAX)?;
            consumers.push(Consumer::new(link, stream, consumer));
        }
        Ok(Client {
            io,
            topics: setup.topics,
            producers,
            consumers,
            streams: setup.streams.into_iter().map(|name| (name, Recorder::new())).collect(),
            lateness: Recorder::new(),
            end_to_end: setup.end_to_end.map(|end_to_end| (end_to_end, Matcher::default())),
            load: setup.load,
            schedule: None,
            deck: deck(&weights, &mut rng),
            deck_at: 0,
            in_flight_count: setup.in_flight_count,
            listed: Vec::new(),
            seed: setup.seed,
            cycles,
            restamped: Monotonic::default(),
            restamp_next: 0,
        })
    }

    /// Runs the load. `progress` is called at the end of every interval.
    pub fn run(mut self, times: Times, meter: &mut Meter, mut progress: impl FnMut(&Progress)) -> anyhow::Result<Run> {
        let start = self.io.now().monotonic;
        self.restamped = start;
        let mut phases = Phases::new(times, self.io.now(), self.load != Load::Closed, meter)?;
        self.begin(start)?;
        let mut completions = Vec::new();
        let mut last_answer = start;
        loop {
            let until = [Some(phases.next()), self.schedule.as_ref().map(Schedule::next_due)];
            self.io.poll(until.into_iter().flatten().min(), &mut completions);
            let now = self.io.now();
            if phases.is_draining() {
                self.schedule = None;
            }
            self.add_due(now.monotonic, &phases)?;
            let mut answered = false;
            for completion in completions.drain(..) {
                answered |= self.complete(completion, now.monotonic, &phases)?;
            }
            self.send_listed();
            if answered {
                last_answer = now.monotonic;
            }
            if now.monotonic >= phases.next() || phases.is_draining() {
                let open_count = self.open_count();
                ensure!(
                    now.monotonic.since(last_answer) < SILENCE_MAX || (open_count == 0 && self.consumers.is_empty()),
                    "no answer in {SILENCE_MAX:?}; {open_count} requests under way or waiting"
                );
                let unseen_count = self.end_to_end.as_ref().map_or(0, |(_, matcher)| matcher.unseen_count());
                let situation = Situation {
                    now,
                    waits_count: open_count + unseen_count,
                    is_exhausted: self.producers.is_empty() && self.consumers.iter().all(|consumer| consumer.is_done),
                };
                let was_draining = phases.is_draining();
                let goes_on = phases.turn(situation, meter, &mut self.streams, &mut self.lateness, &mut progress)?;
                if !goes_on {
                    break;
                }
                if phases.is_draining() && !was_draining && self.load == Load::Closed {
                    self.producers.iter_mut().for_each(Producer::withdraw);
                }
                if let Some((_, matcher)) = &mut self.end_to_end {
                    matcher.forget_strangers(now.monotonic);
                }
            }
            self.restamp(now);
        }
        let mut unanswered_count = 0;
        let now = self.io.now().monotonic;
        for since in self.producers.iter().flat_map(Producer::open) {
            unanswered_count += 1;
            phases.record(&mut self.streams[0].1, since, now, Counts::default());
        }
        Ok(phases.finish(now, self.streams, self.lateness, unanswered_count))
    }

    fn begin(&mut self, now: Monotonic) -> anyhow::Result<()> {
        match self.load {
            Load::Closed => {
                for (index, producer) in self.producers.iter_mut().enumerate() {
                    for _ in 0..self.in_flight_count {
                        producer.add(now)?;
                    }
                    self.listed.push(index as u32);
                }
            }
            Load::Open { rate_per_second, arrivals } if !self.producers.is_empty() => {
                self.schedule = Some(Schedule::new(now, rate_per_second, arrivals, self.seed));
            }
            Load::Open { .. } => {}
        }
        for consumer in &mut self.consumers {
            consumer.ask(self.io, now);
        }
        self.send_listed();
        Ok(())
    }

    /// Requests of producers that are under way or wait.
    fn open_count(&self) -> usize {
        self.producers.iter().map(Producer::open_count).sum()
    }

    /// Gives requests that are due to their connections.
    #[inline]
    fn add_due(&mut self, now: Monotonic, phases: &Phases) -> anyhow::Result<()> {
        let Some(schedule) = &mut self.schedule else { return Ok(()) };
        while let Some(due) = schedule.take(now) {
            let index = self.deck[self.deck_at];
            self.deck_at = if self.deck_at + 1 == self.deck.len() { 0 } else { self.deck_at + 1 };
            let producer = &mut self.producers[index as usize];
            producer.add(due)?;
            if !producer.is_listed {
                producer.is_listed = true;
                self.listed.push(index);
            }
            if phases.covers(due) {
                self.lateness.record(now.since(due).as_nanos() as u64);
            }
        }
        Ok(())
    }

    fn send_listed(&mut self) {
        for index in self.listed.drain(..) {
            let producer = &mut self.producers[index as usize];
            producer.is_listed = false;
            producer.pump(self.io);
        }
    }

    /// Takes one completion. True if it brought an answer.
    fn complete(&mut self, completion: Completion, now: Monotonic, phases: &Phases) -> anyhow::Result<bool> {
        let (number, doing) = of_token(completion.token);
        let index = number as usize;
        let outcome = match (completion.result, doing) {
            (Ok(outcome), _) => outcome,
            (Err(error), Doing::Receiving) => return Err(error).context("receiving answers"),
            (Err(error), _) => return Err(error).context("sending requests"),
        };
        match outcome {
            Outcome::Sent { gather, .. } if index < self.producers.len() => {
                let producer = &mut self.producers[index];
                producer.link.sent(gather)?;
                let (recorder, closed) = (&mut self.streams[0].1, self.load == Load::Closed);
                let mut done_count = 0;
                producer.sent(|done| {
                    phases.record(recorder, done.since, now, done.counts);
                    done_count += 1;
                });
                if closed && !phases.is_draining() {
                    for _ in 0..done_count {
                        producer.add(now)?;
                    }
                }
                producer.pump(self.io);
                Ok(done_count > 0)
            }
            Outcome::Sent { gather, .. } => {
                self.consumers[index - self.producers.len()].link.sent(gather)?;
                Ok(false)
            }
            Outcome::Received { bytes: 0, .. } => bail!("the broker closed a connection"),
            Outcome::Received { buffer, filled, bytes } if index < self.producers.len() => {
                self.produced(number, buffer, filled + bytes, now, phases)
            }
            Outcome::Received { buffer, filled, bytes } => {
                self.consumed(index - self.producers.len(), buffer, filled + bytes, now, phases)
            }
            other => bail!("an operation that nobody asked for ended: {other:?}"),
        }
    }

    fn produced(
        &mut self,
        number: u32,
        buffer: Buffer,
        filled_bytes: usize,
        now: Monotonic,
        phases: &Phases,
    ) -> anyhow::Result<bool> {
        let Client { io, topics, producers, streams, end_to_end, load, .. } = self;
        let producer = &mut producers[number as usize];
        let refill = *load == Load::Closed && !phases.is_draining();
        let mut any = false;
        let incoming = producer.link.incoming();
        incoming.received(*io, buffer, filled_bytes, |answer| {
            any = true;
            let mut met = Vec::new();
            let matcher = end_to_end.as_mut().map(|(_, matcher)| matcher);
            let done = producer.answered(answer, topics, matcher, |since, seen| met.push((since, seen)))?;
            phases.record(&mut streams[0].1, done.since, now, done.counts);
            if let Some((end_to_end, _)) = end_to_end {
                for (since, seen) in met {
                    // The consumer counted the bytes.
                    let counts = Counts { requests: 1, ..Counts::default() };
                    phases.record(&mut streams[end_to_end.stream].1, since, seen, counts);
                }
            }
            if refill {
                producer.add(now)?;
            }
            Ok(())
        })?;
        if any && !producer.is_listed {
            producer.is_listed = true;
            self.listed.push(number);
        }
        Ok(any)
    }

    fn consumed(
        &mut self,
        index: usize,
        buffer: Buffer,
        filled_bytes: usize,
        now: Monotonic,
        phases: &Phases,
    ) -> anyhow::Result<bool> {
        let Client { io, topics, consumers, streams, end_to_end, .. } = self;
        let consumer = &mut consumers[index];
        let stream = consumer.stream;
        let mut any = false;
        let incoming = consumer.link.incoming();
        incoming.received(*io, buffer, filled_bytes, |answer| {
            any = true;
            let mut matched = end_to_end.as_mut().filter(|(end_to_end, _)| end_to_end.consumers == stream);
            let (since, counts) = consumer.answered(answer, topics, |place, base_offset| {
                let Some((end_to_end, matcher)) = &mut matched else { return };
                if let Some(since) = matcher.seen(place, base_offset, now) {
                    let counts = Counts { requests: 1, ..Counts::default() };
                    phases.record(&mut streams[end_to_end.stream].1, since, now, counts);
                }
            })?;
            // An answer without records is the end of a wait and says nothing about the broker.
            if counts.records > 0 {
                phases.record(&mut streams[stream].1, since, now, counts);
            }
            Ok(())
        })?;
        if any {
            consumer.ask(*io, now);
        }
        Ok(any)
    }

    /// Gives the batches of all cycles new timestamps now and then, of one cycle a turn.
    fn restamp(&mut self, now: Now) {
        if now.monotonic.since(self.restamped) < RESTAMP_EVERY {
            return;
        }
        let Some(old) = self.cycles.get(self.restamp_next).cloned() else {
            (self.restamp_next, self.restamped) = (0, now.monotonic);
            return;
        };
        let is_small = old.bytes.len() <= RESTAMP_SIZE_BYTES_MAX;
        if is_small && let Some(new) = old.restamped(now.wall, self.io.pool()) {
            for producer in &mut self.producers {
                if Rc::ptr_eq(&producer.cycle, &old) {
                    producer.cycle = new.clone();
                }
            }
            self.cycles[self.restamp_next] = new;
        }
        self.restamp_next += 1;
    }
}
