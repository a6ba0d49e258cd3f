//! Coordinators: pure state machines that know neither the log nor the connection.
//!
//! They take events and give effects; the handlers append records, answer and keep time.
//!
//! It must not know files, sockets, clocks or requests.

pub mod group;
