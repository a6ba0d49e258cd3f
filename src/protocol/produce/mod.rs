//! Produce (key 0), versions 3 to 13: a walk of the request where it lies, and the response's encoder.
//!
//! [`ProduceRequest::parse`] checks the whole structure in one pass and remembers a few positions. Afterwards
//! [`ProduceRequest::steps`] walks topics and partitions and cannot fail. Both hand out *ranges of the frame* instead
//! of borrowed slices, and the walk borrows the frame only for the length of a call, so that the caller may stamp the
//! record bytes in place between two steps.
//!
//! Invariants: nothing here allocates except the response's vector growing; a range lies within the frame that was
//! parsed; record bytes are not looked into.
//!
//! Versions: 5 adds the log start offset to the answer, 8 record errors and message, 9 is flexible, 10 current leader
//! and node endpoints, 13 names topics by id. A broken request is an error here; what the request means is not known.

mod request;
mod response;
#[cfg(test)]
mod tests;

use crate::protocol::api::ApiKey;

pub use request::{ProduceRequest, ProduceStep, ProduceSteps};
pub use response::{ProducePartitionResponse, ProduceResponseEncoder, RecordError};

const API: ApiKey = ApiKey::Produce;
/// From here on topics are named by id (KIP-516).
const BY_ID_FROM: i16 = 13;
