//! One member of a group: what it says about itself, and where it is on the way to its target.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{Assignment, size_bytes_of};
use crate::base::time::Monotonic;
use crate::coordinator::group::event::Protocol;

/// What a member takes in memory beside its texts and partitions: the structures, its places in the maps.
const MEMBER_SIZE_BYTES: usize = 640;
/// What a topic of a subscription takes beside its name.
const TOPIC_SIZE_BYTES: usize = 16;
/// The member epoch of a static member that has left and will be back.
pub const AWAY_EPOCH: i32 = -2;

/// Where a member is, in Kafka's words; the numbers are those of its records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MemberState {
    /// It has its target of its epoch.
    #[default]
    Stable,
    /// It is to give partitions up.
    UnrevokedPartitions,
    /// It waits for partitions that others are to give up.
    UnreleasedPartitions,
    /// A newer broker wrote something else.
    Unknown,
}

impl MemberState {
    /// The number in a record.
    pub const fn number(self) -> i8 {
        match self {
            MemberState::Stable => 0,
            MemberState::UnrevokedPartitions => 1,
            MemberState::UnreleasedPartitions => 2,
            MemberState::Unknown => 127,
        }
    }

    /// The state with this number.
    pub const fn of_number(number: i8) -> MemberState {
        match number {
            0 => MemberState::Stable,
            1 => MemberState::UnrevokedPartitions,
            2 => MemberState::UnreleasedPartitions,
            _ => MemberState::Unknown,
        }
    }
}

/// What a member says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// Its `group.instance.id`, if it is static.
    pub instance_id: Option<Box<str>>,
    /// Where it stands.
    pub rack_id: Option<Box<str>>,
    /// What the client calls itself.
    pub client_id: Box<str>,
    /// Where it comes from, as Kafka prints it: `/127.0.0.1`.
    pub client_host: Box<str>,
    /// Topics that it reads, sorted, each once.
    pub topics: Vec<Box<str>>,
    /// A pattern of topics that it reads, too.
    pub regex: Option<Box<str>>,
    /// How long it may take to give partitions up; -1 if it never said.
    pub rebalance_timeout_ms: i32,
    /// The assignor that it wants.
    pub assignor: Option<Box<str>>,
    /// Set if it speaks the classic protocol.
    pub classic: Option<ClassicProfile>,
}

/// What a member of the classic protocol says besides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClassicProfile {
    /// How long it may be silent.
    pub session_timeout_ms: i32,
    /// What it supports, in its order.
    pub protocols: Vec<Protocol>,
}

/// Where a member is on its way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Current {
    /// Its epoch: 0 before its first target, [`AWAY_EPOCH`] while it is away.
    pub epoch: i32,
    /// The epoch before: the answer that told the newer one may have been lost.
    pub previous_epoch: i32,
    /// What it is doing.
    pub state: MemberState,
    /// What it may use.
    pub assigned: Arc<Assignment>,
    /// What it is to give up.
    pub revoking: Arc<Assignment>,
}

impl Current {
    /// True if nothing is to be done for a target of `epoch`.
    pub fn is_reconciled_to(&self, epoch: i32) -> bool {
        self.state == MemberState::Stable && self.epoch == epoch
    }
}

/// A member. Its id is its key in the group.
#[derive(Clone, Debug)]
pub struct Member {
    /// What it says about itself.
    pub profile: Arc<Profile>,
    /// Where it is.
    pub current: Current,
    /// It is gone if nothing is heard until then.
    pub(super) session_deadline: Monotonic,
    /// It is gone if it has not given up by then what it is to.
    pub(super) rebalance_deadline: Option<Monotonic>,
    /// Of the classic protocol: it is gone if it has not joined, or asked for its assignment, by then.
    pub(super) join_deadline: Option<Monotonic>,
    pub(super) sync_deadline: Option<Monotonic>,
}

impl Member {
    /// A member that is nowhere yet.
    pub(super) fn new(profile: Arc<Profile>, current: Current) -> Member {
        Member {
            profile,
            current,
            session_deadline: Monotonic::default(),
            rebalance_deadline: None,
            join_deadline: None,
            sync_deadline: None,
        }
    }

    /// True if it speaks the classic protocol.
    pub fn is_classic(&self) -> bool {
        self.profile.classic.is_some()
    }

    /// When something is due.
    pub(super) fn next_deadline(&self) -> Monotonic {
        let others = [self.rebalance_deadline, self.join_deadline, self.sync_deadline];
        others.into_iter().flatten().fold(self.session_deadline, Monotonic::min)
    }

    /// How long it may take to give partitions up.
    pub(super) fn rebalance_timeout(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.profile.rebalance_timeout_ms).unwrap_or(0))
    }

    /// About what it takes in memory.
    pub(super) fn size_bytes(&self) -> usize {
        let assigned = size_bytes_of(&self.current.assigned) + size_bytes_of(&self.current.revoking);
        MEMBER_SIZE_BYTES + self.profile.size_bytes() + assigned
    }
}

impl Profile {
    /// About what it takes in memory.
    pub(super) fn size_bytes(&self) -> usize {
        let text = |text: &Option<Box<str>>| text.as_ref().map_or(0, |text| text.len());
        let texts = 3 * text(&self.instance_id) + text(&self.rack_id) + text(&self.regex) + text(&self.assignor);
        let topics: usize = self.topics.iter().map(|topic| TOPIC_SIZE_BYTES + topic.len()).sum();
        let classic = self.classic.as_ref().map_or(0, |classic| {
            let sizes = classic.protocols.iter().map(|protocol| 64 + protocol.name.len() + protocol.metadata.len());
            sizes.sum()
        });
        texts + self.client_id.len() + self.client_host.len() + topics + classic
    }

    /// What the classic member tells with the protocol that it likes best.
    pub(super) fn classic_metadata(&self) -> Option<&Bytes> {
        Some(&self.classic.as_ref()?.protocols.first()?.metadata)
    }
}
