//! The connections of one shard, found by an id that is never mistaken for an earlier connection's.

use super::connection::Connection;

/// Request numbers of one connection before those of the next begin: 25 days of 500,000 a second.
const REQUEST_NUMBER_BITS: u32 = 40;

/// A connection of this shard: an index and how often it was used before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId {
    /// Position in the table.
    pub index: u32,
    /// Generation of the position. It wraps after 65,536 connections, which an answer may outlive: requests are
    /// numbered from another start on every connection, so that it finds nobody.
    pub generation: u16,
}

/// A request that is to be answered: its connection and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// Where it came from.
    pub connection: ConnectionId,
    /// As given by [`Connection::open_request`].
    pub number: u64,
}

#[derive(Debug, Default)]
struct Entry {
    generation: u16,
    connection: Option<Connection>,
}

/// A table of connections.
#[derive(Debug, Default)]
pub struct Connections {
    entries: Vec<Entry>,
    free: Vec<u32>,
    count: usize,
    opened: u64,
}

impl Connections {
    /// The id that the next [`insert`](Self::insert) will use: a connection needs its token before it exists.
    pub fn next_id(&mut self) -> ConnectionId {
        let index = match self.free.last() {
            Some(&index) => index,
            None => {
                self.entries.push(Entry::default());
                let index = u32::try_from(self.entries.len() - 1).expect("bounded by admission");
                self.free.push(index);
                index
            }
        };
        ConnectionId { index, generation: self.entries[index as usize].generation }
    }

    /// Adds a connection under the id of [`next_id`](Self::next_id).
    pub fn insert(&mut self, mut connection: Connection) -> ConnectionId {
        let id = self.next_id();
        self.opened += 1;
        connection.number_requests_from(self.opened << REQUEST_NUMBER_BITS);
        self.free.pop();
        self.entries[id.index as usize].connection = Some(connection);
        self.count += 1;
        id
    }

    /// The connection, if it is still the one that was meant.
    pub fn find(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        let entry = self.entries.get_mut(id.index as usize)?;
        if entry.generation == id.generation { entry.connection.as_mut() } else { None }
    }

    /// Forgets a connection.
    pub fn remove(&mut self, id: ConnectionId) -> Option<Connection> {
        let entry = self.entries.get_mut(id.index as usize)?;
        if entry.generation != id.generation {
            return None;
        }
        let connection = entry.connection.take()?;
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(id.index);
        self.count -= 1;
        Some(connection)
    }

    /// The ids of all connections, in table order.
    pub fn ids(&self) -> impl Iterator<Item = ConnectionId> {
        self.entries.iter().enumerate().filter_map(|(index, entry)| {
            entry.connection.as_ref()?;
            Some(ConnectionId { index: index as u32, generation: entry.generation })
        })
    }

    /// All connections, in table order.
    #[cfg(any(test, feature = "simulate"))]
    pub fn iter(&self) -> impl Iterator<Item = &Connection> {
        self.entries.iter().filter_map(|entry| entry.connection.as_ref())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}
