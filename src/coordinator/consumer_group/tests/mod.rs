//! Groups of the consumer protocol, event by event.

mod life;
mod members;
mod migration;
mod writes;

pub mod world;
