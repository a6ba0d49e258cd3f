//! Connections: bytes in, frames out to whoever handles them, responses back in request order.
//!
//! 1. The owner accepts while [`admission`] lets it.
//! 2. A [`connection::Connection`] receives into one buffer that grows with the frames it sees and shrinks when quiet.
//! 3. Every request opens a slot in the connection's [`response::ResponseQueue`]; answers may come in any order and
//!    leave in the order of the requests.
//! 4. [`send::SendChain`] turns ready responses into sends and file transfers, one at a time, resumed from exact
//!    counts.
//!
//! Invariants
//! - At most one receive and one send operation of a connection are under way.
//! - While a request is held back (its effects cannot happen yet) nothing behind it on the connection is looked at.
//! - Receive memory of all connections stays within its share of the shard's budget.
//!
//! Which API a frame is, is unknown here.

pub mod admission;
pub mod connection;
pub mod connections;
pub mod response;
pub mod send;

pub use admission::Admission;
pub use connection::{CloseReason, Connection};
pub use connections::{ConnectionId, Connections, Ticket};
pub use response::{Content, Gap, Response};
