//! What operations of the network do, and what happens when something arrives.
//!
//! The contract is that of the ring: a send completes when all of it is on its way, or in part when the connection
//! or a cancellation ends it; a receive completes with whatever is there; a `SendFile` with what found room. Bytes
//! that arrived before a reset can still be received, as on Linux.

use std::io;
use std::net::SocketAddr;

use super::events::{ConnectionId, Event, OpId, hash_bytes};
use super::faults::{Fault, OpKind};
use super::network::{Listening, Owner};
use super::state::{Inside, error};
use crate::io::{Completion, Listener, Op, Outcome};

/// The most that one `SendFile` moves: the size of a pipe.
const SEND_FILE_BYTES_MAX: usize = 64 * 1024;

impl Inside {
    pub(super) fn listen(&mut self, io: u32, address: SocketAddr) -> io::Result<(Listener, SocketAddr)> {
        let mut address = address;
        if address.port() == 0 {
            address.set_port(self.network.free_port());
        }
        if self.network.is_taken(address) {
            return Err(error(libc::EADDRINUSE));
        }
        let listener = self.new_listener(io);
        let listening = Listening { io, address, backlog: Default::default(), accept: None };
        self.network.listeners.insert(listener.index(), listening);
        Ok((listener, address))
    }

    // Starting and cancelling

    /// Starts a network operation.
    pub(super) fn start_network(&mut self, id: OpId, kind: OpKind) {
        let mut after_ns = self.options.start_ns;
        match self.ops[&id].fault {
            Some(Fault::Error(errno)) => return self.events.schedule(after_ns, Event::Fail { op: id, errno }),
            Some(Fault::Delay(delay)) => after_ns += u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX / 2),
            _ => {}
        }
        match kind {
            OpKind::Accept => self.start_accept(id),
            OpKind::Connect => {
                let after_ns = after_ns + self.options.network.pick_ns(&mut self.network.rng);
                self.events.schedule(after_ns, Event::Connect { op: id });
            }
            _ => self.start_on_socket(id, after_ns),
        }
    }

    fn start_accept(&mut self, id: OpId) {
        let Op::Accept { listener } = &self.ops[&id].op else { unreachable!() };
        let index = listener.index();
        let listening = self.network.listeners.get_mut(&index).expect("an operation keeps its listener open");
        assert!(listening.accept.is_none(), "one accept at a time on a listener");
        listening.accept = Some(id);
        self.accept_backlog(index);
    }

    fn start_on_socket(&mut self, id: OpId, after_ns: u64) {
        let pending = &self.ops[&id];
        let (socket, is_receive) = match &pending.op {
            Op::Recv { socket, .. } => (socket, true),
            Op::Send { socket, .. } | Op::SendFile { socket, .. } => (socket, false),
            other => unreachable!("{other:?} has no socket"),
        };
        let open = self.sockets.get(&socket.index()).filter(|open| open.io == pending.io);
        let open = *open.expect("a socket is used with the io that opened it");
        let (connection, side) = (open.connection, open.side);
        match self.network.side(connection, side) {
            Some(state) if is_receive => state.receives.push_back(id),
            Some(state) => state.sends.push_back(id),
            None => unreachable!("an open socket has its connection"),
        }
        let event = if is_receive { Event::Receive { connection, side } } else { Event::Pump { connection, side } };
        self.events.schedule(after_ns, event);
    }

    /// An injected fault: the operation fails, having done nothing. An error that means the end of the connection is
    /// one, for both sides.
    pub(super) fn fail_network(&mut self, id: OpId, errno: i32) {
        let Some(pending) = self.ops.get(&id) else { return };
        if let Op::Recv { socket, .. } | Op::Send { socket, .. } | Op::SendFile { socket, .. } = &pending.op
            && matches!(errno, libc::ECONNRESET | libc::EPIPE | libc::ETIMEDOUT)
        {
            let open = self.sockets[&socket.index()];
            self.reset_arrives(open.connection, open.side);
            self.schedule_arrival(
                open.connection,
                open.side,
                Event::Reset { connection: open.connection, to: 1 - open.side },
            );
        }
        self.complete(id, Err(error(errno)));
    }

    /// Ends a network operation early.
    pub(super) fn cancel_network(&mut self, id: OpId) {
        let Some(pending) = self.ops.get(&id) else { return };
        match &pending.op {
            Op::Accept { listener } => {
                if let Some(listening) = self.network.listeners.get_mut(&listener.index())
                    && listening.accept == Some(id)
                {
                    listening.accept = None;
                }
            }
            Op::Recv { socket, .. } | Op::Send { socket, .. } | Op::SendFile { socket, .. } => {
                let open = self.sockets[&socket.index()];
                if let Some(state) = self.network.side(open.connection, open.side) {
                    state.receives.retain(|&other| other != id);
                    state.sends.retain(|&other| other != id);
                }
                // Those behind it may have their turn.
                self.events.schedule(0, Event::Pump { connection: open.connection, side: open.side });
            }
            _ => {}
        }
        self.end_send(id, libc::ECANCELED);
    }

    /// Completes a send with what is on its way already, or with the error if nothing is; other operations with the
    /// error.
    fn end_send(&mut self, id: OpId, errno: i32) {
        let Some(pending) = self.ops.get_mut(&id) else { return };
        let bytes = pending.sent_bytes;
        let result = match &mut pending.op {
            Op::Send { gather, .. } if bytes > 0 => Ok(Outcome::Sent { gather: std::mem::take(gather), bytes }),
            _ => Err(error(errno)),
        };
        self.complete(id, result);
    }

    // Connecting

    /// A connection request reaches its address.
    pub(super) fn finish_connect(&mut self, id: OpId) {
        let Some(pending) = self.ops.get(&id) else { return };
        let io = pending.io;
        let Op::Connect { address } = pending.op else { unreachable!() };
        let Some(listener) = self.network.listener_at(address) else {
            return self.complete(id, Err(error(libc::ECONNREFUSED)));
        };
        let connection = self.network.connect(Owner::Io(io), listener, address, &self.options);
        let socket = self.new_socket(io, connection, 0);
        self.complete(id, Ok(Outcome::Connected(socket)));
        self.connection_arrives(listener, connection);
    }

    /// An established connection waits to be accepted.
    pub(super) fn connection_arrives(&mut self, listener: u32, connection: ConnectionId) {
        if self.network.queue(listener, connection) {
            self.accept_backlog(listener);
        } else {
            self.abort_side(connection, 1);
        }
    }

    fn accept_backlog(&mut self, listener: u32) {
        while let Some(listening) = self.network.listeners.get_mut(&listener)
            && let Some(id) = listening.accept
            && let Some(connection) = listening.backlog.pop_front()
        {
            let io = listening.io;
            let Some(known) = self.network.connections.get(&connection) else { continue };
            let peer = known.sides[0].address;
            let socket = self.new_socket(io, connection, 1);
            let result = Ok(Outcome::Accepted { socket, peer, open_count: 0 });
            let token = self.ops[&id].token;
            self.deliver(io, Completion { token, more: true, result });
        }
    }

    pub(super) fn close_listener(&mut self, index: u32) {
        let Some(listening) = self.network.listeners.remove(&index) else { return };
        for connection in listening.backlog {
            self.abort_side(connection, 1);
        }
    }

    // Sending

    /// Sends from one side as long as something waits and there is room, in order.
    pub(super) fn pump(&mut self, connection: ConnectionId, side: usize) {
        loop {
            let Some(known) = self.network.connections.get_mut(&connection) else { return };
            let [first, second] = &mut known.sides;
            let (own, other) = if side == 0 { (first, second) } else { (second, first) };
            if own.is_reset || own.is_shut || own.has_ended {
                let errno = if own.is_reset { libc::ECONNRESET } else { libc::EPIPE };
                own.outbox.clear();
                for id in std::mem::take(&mut own.sends) {
                    self.end_send(id, errno);
                }
                break;
            }
            let room = other.room_bytes();
            if !own.outbox.is_empty() {
                if room == 0 {
                    break;
                }
                let count = room.min(own.outbox.len());
                let bytes: Vec<u8> = own.outbox.drain(..count).collect();
                self.transmit(connection, side, bytes);
                continue;
            }
            let Some(&id) = own.sends.front() else { break };
            if !self.send_some(id, connection, side, room) {
                return;
            }
        }
        self.end_if_done(connection, side);
    }

    /// Moves the first send on; false if it must wait.
    fn send_some(&mut self, id: OpId, connection: ConnectionId, side: usize, room: usize) -> bool {
        let Some(pending) = self.ops.get_mut(&id) else {
            // It was failed by an injected fault.
            self.done_sending(connection, side);
            return true;
        };
        match &mut pending.op {
            Op::Send { gather, .. } => {
                let mut bytes = Vec::with_capacity(room.min(gather.remaining_bytes()));
                for chunk in gather.chunks() {
                    let count = chunk.len().min(room - bytes.len());
                    bytes.extend_from_slice(&chunk[..count]);
                }
                gather.advance(bytes.len());
                pending.sent_bytes += bytes.len();
                let is_done = gather.is_empty();
                if is_done {
                    let result = Ok(Outcome::Sent { gather: std::mem::take(gather), bytes: pending.sent_bytes });
                    self.complete(id, result);
                    self.done_sending(connection, side);
                }
                self.transmit(connection, side, bytes);
                is_done
            }
            Op::SendFile { .. } => self.send_file(id, connection, side, room),
            other => unreachable!("{other:?} does not send"),
        }
    }

    fn send_file(&mut self, id: OpId, connection: ConnectionId, side: usize, room: usize) -> bool {
        let pending = self.ops.get_mut(&id).expect("the caller has seen it");
        let Op::SendFile { offset, length_bytes, .. } = pending.op else { unreachable!() };
        let (inode, options) = pending.file.expect("it has a file");
        let left = self.disk.contents(inode).length_bytes().saturating_sub(offset);
        let wanted = left.min(u64::from(length_bytes)).min(SEND_FILE_BYTES_MAX as u64) as usize;
        if options.direct {
            self.complete(id, Err(error(libc::EINVAL)));
        } else if wanted == 0 && length_bytes > 0 {
            self.complete(id, Err(io::Error::from(io::ErrorKind::UnexpectedEof)));
        } else if wanted > 0 && room == 0 {
            if !pending.is_bounded {
                pending.is_bounded = true;
                self.events.schedule(self.options.send_file_wait_ns, Event::SendFileBound(id));
            }
            return false;
        } else {
            let mut count = wanted.min(room);
            let rng = &mut self.network.rng;
            let one_in = self.options.short_send_file_one_in;
            if count > 1 && one_in > 0 && rng.chance(1, one_in) {
                count = rng.in_range(1..=count as u64) as usize;
            }
            let mut bytes = vec![0; count];
            let count = self.disk.contents(inode).read(offset, &mut bytes);
            self.complete(id, Ok(Outcome::SentFile { bytes: count }));
            self.transmit(connection, side, bytes);
        }
        self.done_sending(connection, side);
        true
    }

    fn done_sending(&mut self, connection: ConnectionId, side: usize) {
        if let Some(state) = self.network.side(connection, side) {
            state.sends.pop_front();
        }
    }

    /// A `SendFile` has waited for room as long as it may.
    pub(super) fn send_file_bound(&mut self, id: OpId) {
        let Some(Op::SendFile { socket, .. }) = self.ops.get(&id).map(|pending| &pending.op) else { return };
        let open = self.sockets[&socket.index()];
        if let Some(state) = self.network.side(open.connection, open.side) {
            state.sends.retain(|&other| other != id);
        }
        self.complete(id, Ok(Outcome::SentFile { bytes: 0 }));
        self.events.schedule(0, Event::Pump { connection: open.connection, side: open.side });
    }

    /// Puts bytes on their way, in segments of random sizes.
    fn transmit(&mut self, connection: ConnectionId, side: usize, bytes: Vec<u8>) {
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let size_max = rest.len().min(self.options.segment_bytes_max.max(1));
            // Mostly full segments, now and then a split at any byte.
            let rng = &mut self.network.rng;
            let whole = self.options.short_receive_one_in == 0 || rng.chance(3, 4);
            let size = if whole { size_max } else { rng.in_range(1..=size_max as u64) as usize };
            let (segment, after) = rest.split_at(size);
            rest = after;
            let event = Event::Bytes { connection, to: 1 - side, bytes: segment.to_vec() };
            if let Some(other) = self.network.side(connection, 1 - side) {
                other.arriving_bytes += size;
            }
            self.schedule_arrival(connection, side, event);
        }
    }

    fn schedule_arrival(&mut self, connection: ConnectionId, from: usize, event: Event) {
        let latency_ns = self.options.network.pick_ns(&mut self.network.rng);
        let Some(own) = self.network.side(connection, from) else { return };
        let at_ns = own.last_arrival_ns.max(self.events.now_ns() + latency_ns);
        own.last_arrival_ns = at_ns;
        self.events.schedule_at(at_ns, event);
    }

    fn end_if_done(&mut self, connection: ConnectionId, side: usize) {
        let Some(own) = self.network.side(connection, side) else { return };
        if own.is_ending && !own.has_ended && !own.wants_to_send() {
            own.has_ended = true;
            self.schedule_arrival(connection, side, Event::End { connection, to: 1 - side });
        }
    }

    // Receiving

    /// Bytes reach a side.
    pub(super) fn bytes_arrive(&mut self, connection: ConnectionId, to: usize, bytes: &[u8]) {
        let Some(own) = self.network.side(connection, to) else { return };
        own.arriving_bytes -= bytes.len();
        if own.owner == Owner::Nobody || own.is_shut {
            return self.schedule_arrival(connection, to, Event::Reset { connection, to: 1 - to });
        }
        own.inbox.extend(bytes);
        self.events.note("bytes", connection, hash_bytes(bytes));
        self.receive(connection, to);
    }

    /// The other side's end of stream reaches a side.
    pub(super) fn end_arrives(&mut self, connection: ConnectionId, to: usize) {
        if let Some(own) = self.network.side(connection, to) {
            own.peer_ended = true;
            self.events.note("end", connection, to as u64);
            self.receive(connection, to);
        }
    }

    /// A reset reaches a side.
    pub(super) fn reset_arrives(&mut self, connection: ConnectionId, to: usize) {
        if let Some(own) = self.network.side(connection, to) {
            own.is_reset = true;
            self.events.note("reset", connection, to as u64);
            self.receive(connection, to);
            self.pump(connection, to);
        }
    }

    /// Completes the receives of a side that can be.
    pub(super) fn receive(&mut self, connection: ConnectionId, side: usize) {
        loop {
            let Some(own) = self.network.side(connection, side) else { return };
            let Some(&id) = own.receives.front() else { return };
            let is_over = own.is_reset || own.peer_ended || own.is_shut;
            if own.inbox.is_empty() && !is_over {
                return;
            }
            own.receives.pop_front();
            let Some(pending) = self.ops.get_mut(&id) else { continue };
            if own.inbox.is_empty() && own.is_reset && !own.is_shut {
                self.complete(id, Err(error(libc::ECONNRESET)));
                continue;
            }
            let op = std::mem::replace(&mut pending.op, Op::List { path: Default::default() });
            let Op::Recv { mut buffer, filled, .. } = op else { unreachable!() };
            assert!(filled < buffer.len(), "a receive needs room");
            let mut bytes = own.inbox.len().min(buffer.len() - filled);
            let one_in = self.options.short_receive_one_in;
            if bytes > 1 && one_in > 0 && self.network.rng.chance(1, one_in) {
                bytes = self.network.rng.in_range(1..=bytes as u64) as usize;
            }
            self.take_inbox(connection, side, &mut buffer[filled..filled + bytes]);
            self.complete(id, Ok(Outcome::Received { buffer, filled, bytes }));
        }
    }

    /// Takes received bytes, and lets the other side know of the room.
    pub(super) fn take_inbox(&mut self, connection: ConnectionId, side: usize, target: &mut [u8]) {
        let Some(own) = self.network.side(connection, side) else { return };
        let count = target.len();
        for (byte, taken) in target.iter_mut().zip(own.inbox.drain(..count)) {
            *byte = taken;
        }
        let other_waits = self.network.side(connection, 1 - side).is_some_and(|other| other.wants_to_send());
        if other_waits && !target.is_empty() {
            let after_ns = self.options.network.pick_ns(&mut self.network.rng);
            self.events.schedule(after_ns, Event::Pump { connection, side: 1 - side });
        }
    }

    // Ending

    /// Ends both directions at once.
    pub(super) fn shutdown(&mut self, connection: ConnectionId, side: usize) {
        if let Some(own) = self.network.side(connection, side) {
            own.is_shut = true;
            own.is_ending = true;
            self.receive(connection, side);
            self.pump(connection, side);
        }
    }

    /// The owner is done: what it sent still arrives, unless it left something unread, which resets.
    pub(super) fn close_side(&mut self, connection: ConnectionId, side: usize) {
        let Some(own) = self.network.side(connection, side) else { return };
        if !own.inbox.is_empty() {
            return self.abort_side(connection, side);
        }
        own.owner = Owner::Nobody;
        own.is_ending = true;
        own.receives.clear();
        // An operation keeps its socket open, unless its process was killed and took it along.
        own.sends.clear();
        self.pump(connection, side);
        self.network.tidy(connection);
    }

    /// The owner is gone, or wants no more: the other side is reset.
    pub(super) fn abort_side(&mut self, connection: ConnectionId, side: usize) {
        let Some(own) = self.network.side(connection, side) else { return };
        own.owner = Owner::Nobody;
        own.is_shut = true;
        own.has_ended = true;
        own.inbox.clear();
        own.outbox.clear();
        own.sends.clear();
        own.receives.clear();
        self.schedule_arrival(connection, side, Event::Reset { connection, to: 1 - side });
        self.network.tidy(connection);
    }
}
