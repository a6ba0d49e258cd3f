//! One member of a group.

use std::time::Duration;

use bytes::Bytes;

use super::event::Protocol;
use crate::base::time::Monotonic;

/// What a member takes in memory beside its texts, metadata and assignment: the structure, its place in the maps.
const MEMBER_SIZE_BYTES: usize = 384;
/// No session is shorter, whatever the operator allows: those of members that wait are renewed again and again.
const SESSION_TIMEOUT_MIN: Duration = Duration::from_millis(100);
/// What each protocol takes beside its name and metadata.
const PROTOCOL_SIZE_BYTES: usize = 64;

/// A member of a group. Its id is its key in the group.
#[derive(Debug)]
pub struct Member<T> {
    /// Its `group.instance.id`, if it is static.
    pub group_instance_id: Option<Box<str>>,
    /// What the client calls itself.
    pub client_id: Box<str>,
    /// Where it came from.
    pub client_host: Box<str>,
    pub(super) rebalance_timeout_ms: i32,
    pub(super) session_timeout_ms: i32,
    pub(super) protocols: Vec<Protocol>,
    /// What the leader gave it.
    pub assignment: Bytes,
    /// Its JoinGroup that waits.
    pub(super) joining: Option<T>,
    /// Its SyncGroup that waits.
    pub(super) syncing: Option<T>,
    /// It has never been told its id, so it cannot have sent a heartbeat: only a time limit ends its first join.
    pub(super) is_new: bool,
    /// It has joined the generation and not asked for its assignment yet.
    pub(super) owes_sync: bool,
    /// It is gone if nothing is heard until then.
    pub(super) deadline: Monotonic,
}

impl<T> Member<T> {
    /// What it tells the leader if `protocol` is chosen.
    pub fn metadata(&self, protocol: &str) -> Option<&Bytes> {
        self.protocols.iter().find(|offered| *offered.name == *protocol).map(|offered| &offered.metadata)
    }

    /// About what it takes in memory.
    pub(super) fn size_bytes(&self) -> usize {
        let instance_id = self.group_instance_id.as_ref().map_or(0, |id| 3 * id.len());
        let texts = instance_id + self.client_id.len() + self.client_host.len();
        MEMBER_SIZE_BYTES + texts + protocols_size_bytes(&self.protocols) + self.assignment.len()
    }

    fn session_timeout(&self) -> Duration {
        milliseconds(self.session_timeout_ms).max(SESSION_TIMEOUT_MIN)
    }

    /// It was heard of: it may be silent for its session timeout from now on.
    pub(super) fn renew(&mut self, now: Monotonic) -> Monotonic {
        self.deadline = now + self.session_timeout();
        self.deadline
    }

    /// A member that waits is alive, but for one that cannot tell that it has given up.
    pub(super) fn is_alive_by_waiting(&self) -> bool {
        !self.is_new && (self.joining.is_some() || self.syncing.is_some())
    }
}

/// About what protocols take in memory.
pub(super) fn protocols_size_bytes(protocols: &[Protocol]) -> usize {
    protocols.iter().map(|protocol| PROTOCOL_SIZE_BYTES + protocol.name.len() + protocol.metadata.len()).sum()
}

/// Milliseconds from the wire; below 0 is none.
pub(super) fn milliseconds(ms: i32) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}
