//! The tables of the memory network: listeners, connections and what is on its way.
//!
//! A connection is two sides. Bytes that a side sends count against the other side's window until they have been
//! received by its owner; what is on its way arrives in order.
//!
//! It must not know operations beyond their numbers; see [`super::sockets`] for what they do here.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};

use super::events::{ConnectionId, OpId};
use super::options::WorldOptions;
use crate::base::rng::Rng;

/// Connections that wait to be accepted at one listener; more are reset.
const BACKLOG_COUNT_MAX: usize = 4096;
/// The first port that is given to those who ask for none.
const PORT_EPHEMERAL_MIN: u16 = 32768;

/// Whose a side of a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// A socket of this io, or on its way to its `Accept`.
    Io(u32),
    /// A synchronous client.
    Client,
    /// Closed, or its process is gone.
    Nobody,
}

/// One side of a connection.
pub(super) struct Side {
    pub(super) owner: Owner,
    pub(super) address: SocketAddr,
    // Receiving
    pub(super) inbox: VecDeque<u8>,
    pub(super) arriving_bytes: usize,
    pub(super) window_bytes: usize,
    pub(super) receives: VecDeque<OpId>,
    pub(super) peer_ended: bool,
    pub(super) is_reset: bool,
    // Sending
    pub(super) sends: VecDeque<OpId>,
    /// What a synchronous client has sent and the window did not take yet.
    pub(super) outbox: VecDeque<u8>,
    /// No more will be sent once everything before is.
    pub(super) is_ending: bool,
    pub(super) has_ended: bool,
    pub(super) last_arrival_ns: u64,
    /// Both directions were shut down here.
    pub(super) is_shut: bool,
}

impl Side {
    fn new(owner: Owner, address: SocketAddr, window_bytes: usize) -> Side {
        Side {
            owner,
            address,
            inbox: VecDeque::new(),
            arriving_bytes: 0,
            window_bytes,
            receives: VecDeque::new(),
            peer_ended: false,
            is_reset: false,
            sends: VecDeque::new(),
            outbox: VecDeque::new(),
            is_ending: false,
            has_ended: false,
            last_arrival_ns: 0,
            is_shut: false,
        }
    }

    /// Bytes that may still be sent to this side.
    pub(super) fn room_bytes(&self) -> usize {
        self.window_bytes.saturating_sub(self.inbox.len() + self.arriving_bytes)
    }

    /// True while something waits to be sent from here.
    pub(super) fn wants_to_send(&self) -> bool {
        !self.sends.is_empty() || !self.outbox.is_empty()
    }
}

/// A connection: side 0 asked for it, side 1 accepted it.
pub(super) struct Connection {
    pub(super) sides: [Side; 2],
}

/// A listening socket.
pub(super) struct Listening {
    pub(super) io: u32,
    pub(super) address: SocketAddr,
    pub(super) backlog: VecDeque<ConnectionId>,
    pub(super) accept: Option<OpId>,
}

/// All listeners and connections.
pub(super) struct Network {
    pub(super) listeners: BTreeMap<u32, Listening>,
    pub(super) connections: BTreeMap<ConnectionId, Connection>,
    next_connection: ConnectionId,
    next_port: u16,
    pub(super) rng: Rng,
}

impl Network {
    pub(super) fn new(rng: Rng) -> Network {
        Network {
            listeners: BTreeMap::new(),
            connections: BTreeMap::new(),
            next_connection: 0,
            next_port: PORT_EPHEMERAL_MIN,
            rng,
        }
    }

    /// A port that no listener has.
    pub(super) fn free_port(&mut self) -> u16 {
        loop {
            let port = self.next_port;
            self.next_port = if port == u16::MAX { PORT_EPHEMERAL_MIN } else { port + 1 };
            if self.listeners.values().all(|listening| listening.address.port() != port) {
                return port;
            }
        }
    }

    /// The listener that answers at `address`.
    pub(super) fn listener_at(&self, address: SocketAddr) -> Option<u32> {
        let answers = |own: SocketAddr| own == address || (own.port() == address.port() && own.ip().is_unspecified());
        self.listeners.iter().find(|(_, listening)| answers(listening.address)).map(|(&index, _)| index)
    }

    /// True if the address or its port on all addresses is taken.
    pub(super) fn is_taken(&self, address: SocketAddr) -> bool {
        let clashes = |own: SocketAddr| {
            own.port() == address.port()
                && (own.ip() == address.ip() || own.ip().is_unspecified() || address.ip().is_unspecified())
        };
        self.listeners.values().any(|listening| clashes(listening.address))
    }

    /// A new connection from `owner` to `listener`.
    pub(super) fn connect(
        &mut self,
        owner: Owner,
        listener: u32,
        address: SocketAddr,
        o: &WorldOptions,
    ) -> ConnectionId {
        let id = self.next_connection;
        self.next_connection += 1;
        let ip = if address.ip().is_unspecified() { IpAddr::from([127, 0, 0, 1]) } else { address.ip() };
        let from = SocketAddr::new(ip, self.free_port());
        let accepting = Owner::Io(self.listeners[&listener].io);
        let sides = [Side::new(owner, from, o.window_bytes), Side::new(accepting, address, o.window_bytes)];
        self.connections.insert(id, Connection { sides });
        id
    }

    /// Puts an established connection in the listener's backlog; false if it is full or gone.
    pub(super) fn queue(&mut self, listener: u32, connection: ConnectionId) -> bool {
        match self.listeners.get_mut(&listener) {
            Some(listening) if listening.backlog.len() < BACKLOG_COUNT_MAX => {
                listening.backlog.push_back(connection);
                true
            }
            _ => false,
        }
    }

    /// One side, if the connection is still known.
    pub(super) fn side(&mut self, connection: ConnectionId, side: usize) -> Option<&mut Side> {
        self.connections.get_mut(&connection).map(|connection| &mut connection.sides[side])
    }

    /// Forgets the connection once nobody owns either side.
    pub(super) fn tidy(&mut self, connection: ConnectionId) {
        let is_over = |connection: &Connection| connection.sides.iter().all(|side| side.owner == Owner::Nobody);
        if self.connections.get(&connection).is_some_and(is_over) {
            self.connections.remove(&connection);
        }
    }
}
