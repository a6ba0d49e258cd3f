//! One shard's broker: its state, and the way of a request from the connection to its handler.
//!
//! Fields are what a shard has; the methods here only pass things on. What a request means is in the file of its API.
//! The event loop above gives completions and turns; everything here runs to completion.

use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::apply::Removals;
use super::bus::{CONTROLLER, Message, Waiting};
use super::call::RequestInfo;
use super::cold_reads::ColdReads;
use super::compaction::Compaction;
use super::coordinator::CoordinatorHost;
use super::deadlines::{Deadline, Deadlines};
use super::delete_records::Deletions;
use super::endpoints::Endpoints;
use super::fetch_session::FetchSessions;
use super::fetch_tasks::FetchTasks;
use super::init_producer_id::ProducerIdBlock;
use super::journal::JournalHost;
use super::list_offsets::Lookups;
use super::markers::MarkerTasks;
use super::options::BrokerOptions;
use super::parked::Parked;
use super::partitions::Partitions;
use super::produce::{HeldProduce, ProduceTasks};
use super::room::{Room, RoomQueue};
use super::token::{self, Kind};
use super::verify::Questions;
use crate::base::mutant;
use crate::base::rng::Rng;
use crate::base::time::{Monotonic, Now};
use crate::controller::image::Image;
use crate::io::{Completion, Io, Listener, Op, Outcome};
use crate::model::id::{BrokerId, ShardId, TopicIdPartition};
use crate::net::connection::{Input, Next, OP_RECEIVE, PATIENCE_MAX};
use crate::net::{Admission, CloseReason, Connection, ConnectionId, Connections, Response, Ticket};
use crate::protocol::{api, header};
use crate::storage::Resources;
use crate::telemetry::{Counters, Occasional};

/// When accepting is tried again after it has failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A count in a line of the log, left out if it is zero.
fn some(count: u64) -> Option<u64> {
    (count > 0).then_some(count)
}

/// How a request was taken.
#[derive(Debug)]
pub(super) enum Handled {
    /// It was answered, or will be.
    Done,
    /// Its effects cannot happen yet: it stays, and everything behind it.
    Hold,
    /// The connection ends.
    Close(CloseReason),
}

/// A shard as a Kafka broker.
pub struct Broker<I: Io> {
    /// Time, disk and network.
    pub io: I,
    /// Which shard this is.
    pub shard: ShardId,
    /// What the operator decided.
    pub options: Arc<BrokerOptions>,
    /// Both clocks, as of this turn.
    pub now: Now,
    /// The metadata that this shard has applied.
    pub image: Arc<Image>,
    /// Where the shards listen.
    pub endpoints: Endpoints,
    /// What happened so far.
    pub counters: Counters,
    /// Messages for other shards, sent at the end of the turn.
    pub outbox: Vec<(ShardId, Message)>,

    pub(super) rng: Rng,
    pub(super) listener: Option<Listener>,
    pub(super) connections: Connections,
    /// Connections with answers that are sent when the turn ends.
    pub(super) unsent: Vec<ConnectionId>,
    pub(super) admission: Admission,
    pub(super) partitions: Partitions,
    pub(super) journal: JournalHost,
    pub(super) produce_tasks: ProduceTasks,
    pub(super) held: FxHashMap<ConnectionId, HeldProduce>,
    /// Connections that wait for memory, be it for a request or to receive one.
    pub(super) starved: Vec<ConnectionId>,
    pub(super) parked: FxHashMap<ConnectionId, Parked>,
    pub(super) room_queue: RoomQueue,
    pub(super) fetch_tasks: FetchTasks,
    pub(super) cold_reads: ColdReads,
    pub(super) sessions: FetchSessions,
    pub(super) lookups: Lookups,
    pub(super) deletions: Deletions,
    pub(super) waiting: Waiting,
    pub(super) deadlines: Deadlines,
    pub(super) producer_ids: ProducerIdBlock,
    pub(super) coordinator: CoordinatorHost,
    pub(super) markers: MarkerTasks,
    pub(super) questions: Questions,
    /// Partitions about which a transaction's coordinator has answered.
    pub(super) answered_slots: Vec<u32>,
    /// Partitions whose first append waits for its record, gathered in this turn.
    pub(super) materialized: Vec<TopicIdPartition>,
    pub(super) removals: Removals,
    pub(super) compaction: Compaction,
    pub(super) resources: Resources,
    pub(super) spare_dirty: Vec<u32>,
    /// Where small answers are encoded.
    pub(super) scratch: Vec<u8>,
    pub(super) tended_at: Monotonic,
    pub(super) retained_at: Monotonic,
    /// The shard stops: clients have until then to take their answers.
    pub(super) draining_until: Option<Monotonic>,
    pub(super) accepting_said: Occasional,
    pub(super) closing_said: Occasional,
}

impl<I: Io> Broker<I> {
    /// The broker id of this shard.
    pub fn broker_id(&self) -> BrokerId {
        self.shard.broker(self.options.node)
    }

    /// The broker that clients are told is the controller: the first shard, which is the one.
    pub(super) fn controller_id(&self) -> BrokerId {
        CONTROLLER.broker(self.options.node)
    }

    /// The cluster's id as clients see it.
    pub(super) fn cluster_id(&self) -> String {
        self.image.cluster_id().map(|id| id.to_string()).unwrap_or_default()
    }

    /// Starts accepting connections.
    pub fn accept(&mut self, listener: Listener) {
        self.io.submit(token::base(Kind::Accept, 0, 0), Op::Accept { listener: listener.clone() });
        self.listener = Some(listener);
    }

    /// When something is to be looked at even if nothing happens.
    pub fn next_deadline(&self) -> Option<Monotonic> {
        [self.deadlines.next(), self.compaction_due()].into_iter().flatten().min()
    }

    /// Connections that are not forgotten yet.
    pub fn connection_count(&self) -> usize {
        self.connections.len()
    }

    /// Takes one completion.
    pub fn complete(&mut self, completion: Completion) {
        let parts = token::parts(completion.token);
        match parts.kind {
            Kind::Accept => self.accepted(completion),
            Kind::Connection => {
                let id = ConnectionId { index: parts.index, generation: parts.generation };
                if parts.op == OP_RECEIVE { self.received(id, completion) } else { self.sent(id, completion) }
            }
            Kind::Log => self.log_completed(parts.index, parts.generation, completion),
            Kind::Fetch => self.fetch_completed(parts.index, parts.generation, completion),
            Kind::Lookup => self.lookup_completed(parts.index, completion),
            Kind::Coordinator => self.load_completed(parts.index, parts.generation, completion),
            Kind::Removal => self.removal_completed(parts.index, completion),
            Kind::Compaction => self.compaction_completed(completion),
            Kind::Journal => self.journal_completed(completion),
            Kind::Metadata => panic!("the metadata log's operations are the controller's"),
        }
    }

    /// Does what is due, and at the end of the turn what the turn has gathered: the writes of all logs at once.
    pub fn end_turn(&mut self) {
        while let Some(deadline) = self.deadlines.pop_due(self.now.monotonic) {
            match deadline {
                Deadline::Fetch { index, generation } => self.fetch_waited(index, generation),
                Deadline::Held(id) => self.look_at_parked(id),
                // The turn is what it asked for.
                Deadline::Coordinator => {}
                Deadline::Deletion(number) => self.deletion_waited(number),
                Deadline::Accept => self.accept_again(),
                // Every turn of a shard that stops looks.
                Deadline::Drain => {}
            }
        }
        self.serve_answered();
        self.coordinate();
        // Writes go first: the disk works while answers are being sent.
        self.settle_journalled();
        self.commit_dirty();
        self.commit_waiting();
        self.record_materialized();
        self.serve_cold();
        self.serve_waiters();
        self.serve_held_fetches();
        for id in self.unsent.drain(..) {
            if let Some(connection) = self.connections.find(id) {
                connection.flush(&mut self.io, self.now.monotonic);
            }
        }
        // Last: whoever waits has been served.
        self.compact();
        if self.is_stopping() {
            self.drain();
        }
    }

    /// Slow work, about once a second.
    pub fn tick(&mut self) {
        const QUIET: Duration = Duration::from_secs(10);
        const TEND: Duration = Duration::from_secs(5);
        let now = self.now.monotonic;
        self.sweep_connections(Monotonic(now.0.saturating_sub(QUIET.as_nanos() as u64)));
        self.close_stalled();
        self.tend_coordinators();
        self.retry_markers();
        self.retry_removals();
        self.retry_materialized();
        self.io.pool().trim_unused();
        self.journal.journal.tick(&mut self.io, now);
        let retention = Duration::from_millis(self.options.config.log_retention_check_interval_ms);
        if now.since(self.tended_at) >= TEND.min(retention) && !self.is_stopping() {
            self.tended_at = now;
            self.tend_logs();
        }
    }

    fn accepted(&mut self, completion: Completion) {
        let (is_over, now) = (!completion.more, self.now.monotonic);
        let mut has_failed = false;
        match completion.result {
            Ok(Outcome::Accepted { socket, peer, open_count }) => {
                let has_room = !self.is_stopping() && self.admission.admit(open_count);
                let token = token::connection(self.connections.next_id());
                let connection = has_room.then(|| {
                    let size_max = self.options.config.socket_request_max_bytes;
                    let patience =
                        self.options.config.connections_max_idle_ms.map_or(PATIENCE_MAX, Duration::from_millis);
                    let (io, now) = (&mut self.io, self.now.monotonic);
                    Connection::open(io, &mut self.admission, socket, peer, token, size_max, patience, now)
                });
                match connection {
                    Some(Some(connection)) => {
                        self.counters.connections_accepted += 1;
                        self.connections.insert(connection);
                    }
                    refused => {
                        if refused.is_some() {
                            self.admission.leave();
                        }
                        self.counters.connections_refused += 1;
                        if let Some(unsaid) = self.accepting_said.say(now) {
                            let connections = self.connections.len();
                            tracing::warn!(%peer, connections, unsaid = some(unsaid), "connection refused: at a limit");
                        }
                    }
                }
            }
            Ok(other) => panic!("accept completed with {other:?}"),
            Err(error) if self.is_stopping() => tracing::debug!(%error, "no longer accepting"),
            Err(error) => {
                has_failed = true;
                if let Some(unsaid) = self.accepting_said.say(now) {
                    tracing::error!(%error, unsaid = some(unsaid), "accepting failed");
                }
            }
        }
        if has_failed {
            // A cause that lasts would fail it again at once, and again.
            self.deadlines.push(now + ACCEPT_PAUSE, Deadline::Accept);
        } else if is_over {
            self.accept_again();
        }
    }

    fn accept_again(&mut self) {
        if !self.is_stopping()
            && let Some(listener) = self.listener.clone()
        {
            self.io.submit(token::base(Kind::Accept, 0, 0), Op::Accept { listener });
        }
    }

    fn received(&mut self, id: ConnectionId, completion: Completion) {
        let now = self.now.monotonic;
        let Some(connection) = self.connections.find(id) else { return };
        match completion.result {
            Ok(Outcome::Received { buffer, filled, bytes }) => {
                connection.received(buffer, filled, bytes, now);
                if connection.closing().is_none() {
                    return self.serve(id);
                }
            }
            Ok(other) => panic!("a receive completed with {other:?}"),
            Err(error) => {
                connection.receive_failed(&mut self.admission);
                let cancelled = error.raw_os_error() == Some(libc::ECANCELED);
                if connection.closing().is_some() {
                    // It ends as was decided.
                } else if cancelled {
                    if !connection.restart(&mut self.io, &mut self.admission) {
                        return self.close(id, CloseReason::NoMemory);
                    }
                } else {
                    return self.close(id, CloseReason::SocketError(error.raw_os_error().unwrap_or(0)));
                }
            }
        }
        self.forget_if_finished(id);
    }

    fn sent(&mut self, id: ConnectionId, completion: Completion) {
        let now = self.now.monotonic;
        let Some(connection) = self.connections.find(id) else { return };
        let mut is_transfer = false;
        match completion.result {
            Ok(Outcome::Sent { gather, bytes }) => connection.sent(&mut self.io, gather, bytes, now),
            Ok(Outcome::SentFile { bytes }) => {
                connection.transferred(&mut self.io, bytes, now);
                is_transfer = bytes > 0;
            }
            Ok(other) => panic!("a send completed with {other:?}"),
            Err(error) => {
                connection.send_failed();
                connection.recount(&mut self.admission);
                // To a client that has left there is nothing to send.
                let reason = match connection.is_peer_done() {
                    true => CloseReason::ClosedByPeer,
                    false if error.kind() == std::io::ErrorKind::UnexpectedEof => CloseReason::FileEnded,
                    false => CloseReason::SocketError(error.raw_os_error().unwrap_or(0)),
                };
                return self.close(id, reason);
            }
        }
        connection.recount(&mut self.admission);
        let has_more = connection.is_held();
        if is_transfer {
            self.note_transfer();
        }
        self.forget_if_finished(id);
        if has_more {
            self.serve(id);
        }
    }

    /// Handles what a connection has received, as far as it may be.
    pub(super) fn serve(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.find(id) else { return };
        let Some(mut input) = connection.take_input() else { return };
        loop {
            let is_short = self.room() != Room::Plenty;
            let Some(connection) = self.connections.find(id) else { return };
            if connection.closing().is_some() {
                return self.forget_if_finished(id);
            }
            if connection.must_take_first(is_short) {
                return connection.hold(input);
            }
            if self.draining_until.is_some() && !self.held.contains_key(&id) {
                return connection.hold(input);
            }
            match input.next(|start| api::frame_size_bytes_max(i16::from_be_bytes(start))) {
                Next::Frame(range) => {
                    let (start, end) = (range.start, range.end);
                    match self.handle(id, &mut input, start, end) {
                        Handled::Done => {
                            self.counters.requests += 1;
                            self.counters.request_bytes += (end - start + 4) as u64;
                            input.consume(end);
                        }
                        Handled::Hold => {
                            if mutant::is_on("let_requests_overtake") {
                                self.overtake(id, &mut input, start, end);
                            }
                            return self.hold(id, input);
                        }
                        Handled::Close(reason) => return self.close(id, reason),
                    }
                }
                Next::Broken(reason) => return self.close(id, reason),
                Next::Incomplete { needed_bytes } => {
                    if connection.is_peer_done() {
                        connection.hold(input);
                        return self.close_when_idle(id);
                    }
                    let now = self.now.monotonic;
                    if !connection.resume(&mut self.io, &mut self.admission, input, needed_bytes, now) {
                        if needed_bytes > self.admission.frame_bytes_max() {
                            return self.close(id, CloseReason::NoMemory);
                        }
                        self.park_for_memory(id);
                    }
                    return;
                }
            }
        }
    }

    fn hold(&mut self, id: ConnectionId, input: Input) {
        self.connections.find(id).expect("holding does not end it").hold(input);
    }

    pub(super) fn handle(&mut self, id: ConnectionId, input: &mut Input, start: usize, end: usize) -> Handled {
        let frame = input.frame(start..end);
        match header::parse(frame) {
            Ok(header) => {
                let info = RequestInfo {
                    lookup: header.lookup,
                    version: header.api_version,
                    correlation_id: header.correlation_id,
                    body_offset: header.body_offset,
                };
                self.dispatch(id, info, frame)
            }
            Err(_) => Handled::Close(CloseReason::Malformed("request header")),
        }
    }

    /// A slot on the connection for the request that is being handled.
    pub(super) fn open_ticket(&mut self, id: ConnectionId) -> Ticket {
        let connection = self.connections.find(id).expect("its request is being handled");
        Ticket { connection: id, number: connection.open_request() }
    }

    /// True if an answer would find its connection.
    pub(super) fn is_answerable(&mut self, ticket: Ticket) -> bool {
        self.connections.find(ticket.connection).is_some_and(|connection| connection.awaits(ticket.number))
    }

    /// Answers a request; `None` is silence. Nobody minds if its connection is gone.
    pub(super) fn answer(&mut self, ticket: Ticket, response: Option<Response>) {
        if let Some(connection) = self.connections.find(ticket.connection) {
            if connection.answer(ticket.number, response) {
                self.unsent.push(ticket.connection);
            }
            self.settle(ticket.connection);
        }
    }

    /// After an answer to one of the connection's requests.
    fn settle(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.find(id) else { return };
        connection.recount(&mut self.admission);
        if connection.is_peer_done() && connection.is_idle() {
            self.close(id, CloseReason::ClosedByPeer);
        }
    }

    /// Answers a request by a copy of a small answer's bytes.
    pub(super) fn answer_copy(&mut self, ticket: Ticket, bytes: &[u8]) {
        if let Some(connection) = self.connections.find(ticket.connection) {
            if connection.answer_copy(ticket.number, bytes) {
                self.unsent.push(ticket.connection);
            }
            self.settle(ticket.connection);
        }
    }

    /// Ends a connection.
    pub(super) fn close(&mut self, id: ConnectionId, reason: CloseReason) {
        let Some(connection) = self.connections.find(id) else { return };
        let has_requests = !connection.is_idle();
        if connection.closing().is_none() {
            let peer = connection.peer();
            self.counters.connections_broken += u64::from(!reason.is_normal());
            if reason.is_normal() || reason.is_abrupt_end() {
                tracing::debug!(%peer, %reason, "connection closed");
            } else if let Some(unsaid) = self.closing_said.say(self.now.monotonic) {
                tracing::warn!(%peer, %reason, unsaid = some(unsaid), "connection closed");
            }
        }
        connection.close(&mut self.io, reason);
        connection.recount(&mut self.admission);
        self.forget_held(id);
        if has_requests {
            self.forget_fetches(id);
            self.forget_cold(id);
        }
        self.forget_if_finished(id);
    }

    /// The client has ended its side: what it asked for is still answered.
    fn close_when_idle(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.find(id) else { return };
        if connection.is_idle() {
            return self.close(id, CloseReason::ClosedByPeer);
        }
        self.hurry_fetches(id);
    }

    fn forget_if_finished(&mut self, id: ConnectionId) {
        if self.connections.find(id).is_some_and(|connection| connection.is_finished())
            && let Some(mut connection) = self.connections.remove(id)
        {
            if mutant::is_on("leak_buffers") {
                std::mem::forget(self.io.pool().take(256 * 1024));
            }
            connection.release(&mut self.admission);
            self.admission.leave();
        }
    }

    /// Looks at every connection: gives memory of quiet ones back, ends those that are idle or do not take their
    /// responses.
    pub(super) fn sweep_connections(&mut self, quiet_since: Monotonic) {
        let now = self.now.monotonic;
        let idle_max = self.options.config.connections_max_idle_ms.map(Duration::from_millis);
        let ids: Vec<ConnectionId> = self.connections.ids().collect();
        for id in ids {
            let Some(connection) = self.connections.find(id) else { continue };
            if let Some(reason) = connection.overdue(now) {
                self.close(id, reason);
            } else if connection.is_idle()
                && !connection.is_held()
                && idle_max.is_some_and(|max| now.since(connection.active_at()) > max)
            {
                self.close(id, CloseReason::Idle);
            } else if connection.active_at() < quiet_since {
                connection.shrink(&mut self.io);
            }
        }
    }
}
