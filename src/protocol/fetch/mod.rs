//! Fetch (key 1), versions 4 to 18: a walk of the request where it lies, and the response as header pieces with gaps.
//!
//! [`FetchRequest::parse`] checks the whole structure in one pass; [`FetchRequest::steps`] and
//! [`FetchRequest::forgotten_steps`] then walk topics and partitions and cannot fail. They hand out positions, not
//! borrows, so the frame may be kept or released as the caller likes.
//!
//! [`FetchResponseEncoder`] writes everything but the record bytes. For each partition it says where in the vector
//! they belong; whoever sends puts the cached, spliced or read bytes there. The size prefix counts them.
//!
//! Invariants: nothing here allocates except the response's vector growing; record bytes never pass through here.
//!
//! Versions: 5 log start offset, 7 sessions, error code and forgotten topics, 9 current leader epoch, 11 rack and
//! preferred replica, 12 flexible with last fetched epoch, diverging epoch and current leader, 13 topic ids, 15
//! replica state, 16 node endpoints, 17 directory ids, 18 the follower's high watermark.

mod request;
mod response;
#[cfg(test)]
mod tests;

use crate::protocol::api::ApiKey;

pub use request::{FetchPartition, FetchRequest, FetchStep, FetchSteps, ForgottenStep, ForgottenSteps};
pub use response::{FetchPartitionResponse, FetchResponseEncoder, FetchResponseHead};

const API: ApiKey = ApiKey::Fetch;
/// From here on topics are named by id (KIP-516).
const BY_ID_FROM: i16 = 13;
