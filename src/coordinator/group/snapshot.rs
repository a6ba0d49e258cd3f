//! A group as it is kept: what is written when a rebalance completes and read at a start.
//!
//! Plain data with the fields of Kafka's `GroupMetadataValue`, in the order of its newest version; the bytes are made
//! elsewhere. A restored group is Stable, or Empty if it has no member.

use bytes::Bytes;

use crate::base::time::Timestamp;

/// A group as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSnapshot {
    /// What the members are to each other: `consumer`, `connect`, anything. `None` if no member ever came.
    pub protocol_type: Option<Box<str>>,
    /// How many rebalances have completed.
    pub generation: i32,
    /// The protocol that was chosen; `None` if the group is empty.
    pub protocol: Option<Box<str>>,
    /// The member that assigns; `None` if the group is empty.
    pub leader: Option<Box<str>>,
    /// Since when the group is in its state; [`Timestamp::NONE`] if an old broker wrote it.
    pub current_state_timestamp: Timestamp,
    /// The members, in the order of their ids.
    pub members: Vec<MemberSnapshot>,
}

/// A member of a group as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberSnapshot {
    /// The id that the coordinator gave it.
    pub member_id: Box<str>,
    /// Its `group.instance.id`, if it is static.
    pub group_instance_id: Option<Box<str>>,
    /// What the client calls itself.
    pub client_id: Box<str>,
    /// Where it came from, as Kafka prints it: `/127.0.0.1`.
    pub client_host: Box<str>,
    /// How long it may take to join again, in milliseconds; -1 if an old broker wrote it: the session timeout.
    pub rebalance_timeout_ms: i32,
    /// How long it may be silent, in milliseconds.
    pub session_timeout_ms: i32,
    /// Its metadata for the protocol that was chosen.
    pub subscription: Bytes,
    /// What the leader gave it.
    pub assignment: Bytes,
}
