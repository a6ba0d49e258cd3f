//! A synchronous client for tests: sends and looks at what has arrived, while the test lets time pass.

use std::io;
use std::net::SocketAddr;

use super::events::{ConnectionId, Event};
use super::network::Owner;
use super::world::World;

/// One side of a connection, driven by hand. It lives outside the process: a power cut or a kill resets it. Dropping
/// it closes it.
pub struct SimClient {
    world: World,
    connection: ConnectionId,
}

impl SimClient {
    pub(super) fn connect(world: World, address: SocketAddr) -> io::Result<SimClient> {
        let mut inside = world.inside();
        let Some(listener) = inside.network.listener_at(address) else {
            return Err(io::Error::from_raw_os_error(libc::ECONNREFUSED));
        };
        let inside = &mut *inside;
        let connection = inside.network.connect(Owner::Client, listener, address, &inside.options);
        let after_ns = inside.options.network.pick_ns(&mut inside.network.rng);
        inside.events.schedule(after_ns, Event::Arrive { listener, connection });
        // What the client sends must not overtake the connection.
        let arrives_ns = inside.events.now_ns() + after_ns;
        inside.network.connections.get_mut(&connection).expect("just made").sides[0].last_arrival_ns = arrives_ns;
        Ok(SimClient { world: world.clone(), connection })
    }

    /// Sends `bytes`. Nothing is refused: what the window does not take waits here.
    pub fn send(&self, bytes: &[u8]) {
        let mut inside = self.world.inside();
        if let Some(own) = inside.network.side(self.connection, 0) {
            own.outbox.extend(bytes);
        }
        inside.pump(self.connection, 0);
    }

    /// Takes what has arrived so far.
    pub fn recv_available(&self) -> Vec<u8> {
        self.recv_at_most(usize::MAX)
    }

    /// Takes at most `bytes_max` of what has arrived so far; the rest goes on filling the window.
    pub fn recv_at_most(&self, bytes_max: usize) -> Vec<u8> {
        let mut inside = self.world.inside();
        let length = inside.network.side(self.connection, 0).map_or(0, |own| own.inbox.len().min(bytes_max));
        let mut bytes = vec![0; length];
        inside.take_inbox(self.connection, 0, &mut bytes);
        bytes
    }

    /// Bytes that have arrived and were not taken.
    pub fn available_bytes(&self) -> usize {
        self.world.inside().network.side(self.connection, 0).map_or(0, |own| own.inbox.len())
    }

    /// Bytes that were sent here and did not find room yet.
    pub fn unsent_bytes(&self) -> usize {
        self.world.inside().network.side(self.connection, 0).map_or(0, |own| own.outbox.len())
    }

    /// The most that is kept for this client before the other side must wait.
    pub fn set_window(&self, window_bytes: usize) {
        let mut inside = self.world.inside();
        if let Some(own) = inside.network.side(self.connection, 0) {
            own.window_bytes = window_bytes;
        }
        inside.pump(self.connection, 1);
    }

    /// True once the other side has ended or reset the connection.
    pub fn is_ended(&self) -> bool {
        let mut inside = self.world.inside();
        inside.network.side(self.connection, 0).is_none_or(|own| own.peer_ended || own.is_reset)
    }

    /// True once the other side has reset the connection.
    pub fn is_reset(&self) -> bool {
        self.world.inside().network.side(self.connection, 0).is_none_or(|own| own.is_reset)
    }

    /// The client's address, as the accepting side sees it.
    pub fn address(&self) -> Option<SocketAddr> {
        self.world.inside().network.side(self.connection, 0).map(|own| own.address)
    }

    /// Ends the sending direction; what was sent still arrives, and answers can be received.
    pub fn end(&self) {
        let mut inside = self.world.inside();
        if let Some(own) = inside.network.side(self.connection, 0) {
            own.is_ending = true;
        }
        inside.pump(self.connection, 0);
    }

    /// Closes: as a process does that exits.
    pub fn close(self) {}

    /// Resets the connection.
    pub fn reset(self) {
        self.world.inside().abort_side(self.connection, 0);
    }
}

impl Drop for SimClient {
    fn drop(&mut self) {
        let Some(mut inside) = self.world.try_inside() else { return };
        if inside.network.side(self.connection, 0).is_some_and(|own| own.owner == Owner::Client) {
            inside.close_side(self.connection, 0);
        }
    }
}
