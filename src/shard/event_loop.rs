//! A shard: its broker, its mail, perhaps the controller, and the loop that turns.
//!
//! One turn: wait for completions, mail or a deadline; read the clock; deliver the mail; hand out the completions; do
//! what is due; submit the writes of all logs; send the mail. Nothing in a turn waits.

use std::sync::Arc;
use std::time::Duration;

use super::clean_stop;
use super::controller_host::ControllerHost;
use super::mailbox::{Mailboxes, Post};
use super::stall::StallWatch;
use crate::base::time::Monotonic;
use crate::handlers::broker::Broker;
use crate::handlers::bus::{CONTROLLER, Message};
use crate::handlers::endpoints::Endpoint;
use crate::handlers::token::{self, Kind};
use crate::io::{Completion, Io, Listener};

/// How often slow work is looked for.
const TICK: Duration = Duration::from_secs(1);
/// When a full inbox is tried again.
const FULL_INBOX_PAUSE: Duration = Duration::from_millis(1);

/// Where a shard is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It listens, but does not accept yet.
    Starting,
    /// It serves.
    Serving,
    /// It closes its logs.
    Stopping,
    /// Everything is durable: it can be dropped.
    Stopped,
}

/// See the module.
pub struct Shard<I: Io> {
    broker: Broker<I>,
    post: Post<Message>,
    controller: Option<ControllerHost>,
    listener: Option<Listener>,
    phase: Phase,
    stall: StallWatch,
    next_tick: Monotonic,
    mail_waits: bool,
    completions: Vec<Completion>,
    mail: Vec<Message>,
}

impl<I: Io> Shard<I> {
    /// A shard whose partitions are recovered and whose listener is open: it tells the controller so and starts when
    /// all have.
    pub fn new(
        mut broker: Broker<I>,
        mailboxes: Mailboxes<Message>,
        controller: Option<ControllerHost>,
        listener: Listener,
        endpoint: Endpoint,
        needs_journals: bool,
    ) -> Shard<I> {
        let mut post = Post::new(broker.shard, mailboxes, broker.io.waker());
        post.send(CONTROLLER, Message::Hello { shard: broker.shard, endpoint, needs_journals });
        let stall = StallWatch::new(broker.options.stall_threshold);
        let next_tick = broker.io.now().monotonic + TICK;
        Shard {
            broker,
            post,
            controller,
            listener: Some(listener),
            phase: Phase::Starting,
            stall,
            next_tick,
            mail_waits: true,
            completions: Vec::new(),
            mail: Vec::new(),
        }
    }

    /// Where it is in its life.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The broker, to look at.
    pub fn broker(&self) -> &Broker<I> {
        &self.broker
    }

    /// When it must turn even if nothing happens.
    pub fn next_turn_at(&self) -> Monotonic {
        match self.mail_waits {
            true => self.broker.now.monotonic + FULL_INBOX_PAUSE,
            false => self.broker.next_deadline().map_or(self.next_tick, |at| at.min(self.next_tick)),
        }
    }

    /// Turns until it is stopped. `on_serving` is called once, when clients can connect.
    pub fn run(&mut self, on_serving: impl FnOnce(&Broker<I>)) {
        let mut on_serving = Some(on_serving);
        while self.phase != Phase::Stopped {
            self.turn(true);
            if self.phase == Phase::Serving
                && let Some(on_serving) = on_serving.take()
            {
                on_serving(&self.broker);
            }
        }
    }

    /// One turn; without `may_wait` only what is there already is handled.
    pub fn turn(&mut self, may_wait: bool) {
        if self.mail_waits {
            self.mail_waits = !self.post.flush();
        }
        let until = match may_wait {
            false => Monotonic(0),
            true => self.next_turn_at(),
        };
        self.broker.io.poll(Some(until), &mut self.completions);
        self.broker.now = self.broker.io.now();
        let now = self.broker.now;
        self.stall.begin(now.monotonic, self.completions.len());
        self.broker.counters.turns += 1;

        self.post.collect(&mut self.mail);
        let mut mail = std::mem::take(&mut self.mail);
        mail.drain(..).for_each(|message| self.deliver(message));
        self.mail = mail;

        let mut completions = std::mem::take(&mut self.completions);
        for completion in completions.drain(..) {
            match (token::parts(completion.token).kind, &mut self.controller) {
                (Kind::Metadata, Some(controller)) => {
                    controller.complete(&mut self.broker.io, &mut self.post, now, completion);
                }
                _ => self.broker.complete(completion),
            }
        }
        self.completions = completions;

        if now.monotonic >= self.next_tick {
            self.next_tick = now.monotonic + TICK;
            // Before everybody listens nothing may be written, and the start still waits for single operations.
            if self.phase != Phase::Starting {
                self.broker.tick();
            }
            if let Some(controller) = &mut self.controller {
                controller.tick(&mut self.broker.io, &mut self.post, now);
            }
        }
        self.broker.end_turn();
        for (to, message) in self.broker.outbox.drain(..) {
            self.broker.counters.mailbox_messages += 1;
            self.post.send(to, message);
        }
        self.mail_waits = !self.post.flush();
        self.go_on_stopping();

        if let Some(stall) = self.stall.end(self.broker.io.now().monotonic) {
            self.broker.counters.stalls += 1;
            tracing::warn!(
                shard = %self.broker.shard,
                took_ms = stall.took.as_millis() as u64,
                completions = stall.completion_count,
                "a turn of the event loop took long"
            );
        }
    }

    fn deliver(&mut self, message: Message) {
        let now = self.broker.now;
        match message {
            Message::Hello { shard, endpoint, needs_journals } => {
                let controller = self.controller.as_mut().expect("only the controller is greeted");
                controller.hello(&mut self.broker.io, &mut self.post, now, shard, endpoint, needs_journals);
            }
            Message::Ask(event) => {
                let controller = self.controller.as_mut().expect("only the controller is asked");
                controller.handle(&mut self.broker.io, &mut self.post, now, event);
            }
            Message::Answer { number, result } => self.broker.answered(number, result),
            Message::Publish(image) => self.broker.apply_image(image),
            Message::Welcome { endpoints } => {
                self.broker.endpoints = endpoints;
                if let Some(listener) = self.listener.take()
                    && self.phase == Phase::Starting
                {
                    self.phase = Phase::Serving;
                    self.broker.accept(listener);
                }
            }
            Message::WriteMarkers(order) => self.broker.write_markers(order),
            Message::MarkersWritten(report) => self.broker.markers_written(&report),
            Message::AskTransaction(question) => self.broker.take_question(*question),
            Message::TransactionAnswer { number, result } => self.broker.question_answered(number, result),
            Message::Report(sender) => drop(sender.send((self.broker.shard, self.broker.counters))),
            Message::Stop => {
                if matches!(self.phase, Phase::Starting | Phase::Serving) {
                    self.phase = Phase::Stopping;
                    self.broker.stop();
                    if let Some(controller) = &mut self.controller {
                        controller.close(&mut self.broker.io, &mut self.post, now);
                    }
                }
            }
        }
    }

    fn go_on_stopping(&mut self) {
        let is_controller_closed = self.controller.as_ref().is_none_or(ControllerHost::is_closed);
        if self.phase != Phase::Stopping || !is_controller_closed || !self.broker.is_stopped() {
            return;
        }
        let journal = self.broker.settled_journal();
        let chunks = self.broker.clean_stop_chunks();
        let options = Arc::clone(&self.broker.options);
        if let Err(error) = clean_stop::write(&mut self.broker.io, &options.layout, self.broker.shard, chunks) {
            tracing::warn!(%error, "the clean-stop file was not written; the next start recovers instead");
        }
        if let Some(dir) = journal {
            clean_stop::remove_journal(&mut self.broker.io, &options.layout, dir);
        }
        self.phase = Phase::Stopped;
    }
}
