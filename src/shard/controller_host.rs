//! The controller on its shard: events in, effects carried out.
//!
//! The state machine is pure; this is where its records reach the metadata log and its images and answers the
//! mailboxes. It also brings the node up: when every shard has said that it listens, the start is recorded, and when
//! that is durable and applied everywhere, all are told to serve.

use std::sync::Arc;

use super::clean_stop;
use super::mailbox::Post;
use super::metadata_log::{MetadataLog, Progress};
use crate::base::time::Now;
use crate::controller::controller::{Controller, Effect, Event};
use crate::handlers::bus::{Asker, CONTROLLER, Message};
use crate::handlers::endpoints::{Endpoint, Endpoints};
use crate::handlers::options::BrokerOptions;
use crate::io::{Completion, Io};
use crate::model::id::ShardId;
use crate::storage::journal;

/// The number of the controller's own question: to start. Shards count theirs from 1.
const START: u64 = 0;

/// See the module.
pub struct ControllerHost {
    options: Arc<BrokerOptions>,
    controller: Controller<Asker>,
    log: MetadataLog,
    hellos: Vec<Option<Endpoint>>,
    needs_journals: bool,
    is_closed: bool,
}

impl ControllerHost {
    /// A controller that waits for every shard of the node to listen.
    pub fn new(options: Arc<BrokerOptions>, controller: Controller<Asker>, log: MetadataLog) -> ControllerHost {
        let hellos = vec![None; usize::from(options.shard_count)];
        ControllerHost { options, controller, log, hellos, needs_journals: false, is_closed: false }
    }

    /// A shard listens. The last one starts the node.
    pub fn hello(
        &mut self,
        io: &mut impl Io,
        post: &mut Post<Message>,
        now: Now,
        shard: ShardId,
        endpoint: Endpoint,
        needs_journals: bool,
    ) {
        self.needs_journals |= needs_journals;
        self.hellos[usize::from(shard.0)] = Some(endpoint);
        if self.hellos.iter().all(Option::is_some) {
            // Everybody has read what the last stop left; from the first append on it would be a lie.
            if let Err(error) = clean_stop::remove(io, &self.options.layout) {
                panic!("the clean-stop files cannot be removed, so nothing may be appended: {error}");
            }
            // What they held is in the segments.
            if !self.needs_journals
                && let Err(error) = journal::replay::remove_all(&self.options.layout, &mut |op| io.run(op))
            {
                panic!("the journals cannot be removed, so nothing may be appended: {error}");
            }
            let ticket = Asker { shard: CONTROLLER, number: START };
            self.handle(io, post, now, Event::Start { ticket, node: self.options.node });
        }
    }

    /// Takes an event and carries its effects out.
    pub fn handle(&mut self, io: &mut impl Io, post: &mut Post<Message>, now: Now, event: Event<Asker>) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            for effect in self.controller.handle(event) {
                match effect {
                    Effect::Append { base_offset, values } => {
                        let progress = self.log.append(io, base_offset, &values, now);
                        events.extend(event_of(progress));
                    }
                    Effect::Publish(image) => post.send_to_all(Message::Publish(Arc::new(image))),
                    Effect::Reply { ticket, result } if ticket.number == START => match result {
                        Ok(_) => self.welcome(post),
                        // The leader epochs of this start are not durable: the next one would take the same, and
                        // recovery could not tell what is left of one life from the batches of another.
                        Err(error) => panic!("the start cannot be recorded, so nothing may be served: {error}"),
                    },
                    Effect::Reply { ticket, result } => {
                        post.send(ticket.shard, Message::Answer { number: ticket.number, result });
                    }
                }
            }
        }
    }

    fn welcome(&mut self, post: &mut Post<Message>) {
        let shards = self.hellos.iter().flatten().cloned().collect();
        let endpoints = Endpoints::new(self.options.node, &self.options.node_name, shards);
        post.send_to_all(Message::Welcome { endpoints });
    }

    /// Takes a completion of the metadata log.
    pub fn complete(&mut self, io: &mut impl Io, post: &mut Post<Message>, now: Now, completion: Completion) {
        let progress = self.log.complete(io, completion, now);
        self.go_on(io, post, now, progress);
    }

    /// For the slow tick.
    pub fn tick(&mut self, io: &mut impl Io, post: &mut Post<Message>, now: Now) {
        let progress = self.log.tick(io, now);
        self.go_on(io, post, now, progress);
    }

    /// Makes the metadata log durable and takes no further change.
    pub fn close(&mut self, io: &mut impl Io, post: &mut Post<Message>, now: Now) {
        let progress = self.log.close(io, now);
        self.go_on(io, post, now, progress);
    }

    /// True once the log is closed (or has failed: then there is nothing to wait for).
    pub fn is_closed(&self) -> bool {
        self.is_closed
    }

    fn go_on(&mut self, io: &mut impl Io, post: &mut Post<Message>, now: Now, progress: Progress) {
        self.is_closed |= matches!(progress, Progress::Closed | Progress::Failed(_));
        if let Some(event) = event_of(progress) {
            self.handle(io, post, now, event);
        }
    }
}

fn event_of(progress: Progress) -> Option<Event<Asker>> {
    match progress {
        Progress::None | Progress::Closed => None,
        Progress::Appended => Some(Event::Appended),
        Progress::Failed(cause) => Some(Event::AppendFailed { cause }),
    }
}
