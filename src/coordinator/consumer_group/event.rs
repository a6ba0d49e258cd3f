//! What a group is told and what it wants done.

use std::collections::BTreeMap;
use std::time::Duration;

use super::assignor::Assignor;
use super::change::Change;
use super::member::ClassicProfile;
use super::{Assignment, Topics};
use crate::base::rng::Rng;
use crate::base::time::Now;
use crate::coordinator::group::event::{GroupError, JoinRefused, Joined, Synced};

/// What the operator decided about groups of this protocol, within the limits.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `group.consumer.session.timeout.ms` and `group.consumer.heartbeat.interval.ms`, within their bounds.
    pub timeouts: Timeouts,
    /// The same of groups that have their own.
    pub timeouts_of: BTreeMap<Box<str>, Timeouts>,
    /// `group.consumer.max.size`.
    pub member_count_max: usize,
    /// `group.max.size`: a larger group does not become a classic one.
    pub classic_member_count_max: usize,
    /// `group.consumer.assignors`, the default one first.
    pub assignors: Vec<Assignor>,
    /// `group.consumer.migration.policy`: classic groups may become ones of this protocol.
    pub can_upgrade: bool,
    /// And back.
    pub can_downgrade: bool,
}

/// How often members are to be heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// How long a member may be silent.
    pub session: Duration,
    /// How often it is to be heard of.
    pub heartbeat_interval: Duration,
}

impl Settings {
    /// What holds for a group.
    pub fn timeouts(&self, group_id: &str) -> Timeouts {
        self.timeouts_of.get(group_id).copied().unwrap_or(self.timeouts)
    }
}

/// What an event happens in.
pub struct Context<'a, T> {
    /// Both clocks.
    pub now: Now,
    /// What the operator decided.
    pub settings: &'a Settings,
    /// The topics there are.
    pub topics: &'a dyn Topics,
    /// For member ids.
    pub rng: &'a mut Rng,
    /// What is to be done, in order; events add to it.
    pub effects: &'a mut Vec<Effect<T>>,
}

/// A ConsumerGroupHeartbeat. What is `None`, or -1, is as it was.
#[derive(Clone, Debug, Default)]
pub struct HeartbeatRequest<'a> {
    /// The group.
    pub group_id: &'a str,
    /// The member; empty if the coordinator is to make an id (version 0).
    pub member_id: &'a str,
    /// Its epoch: 0 joins, -1 leaves, -2 leaves for a while.
    pub member_epoch: i32,
    /// Its instance id, if it is static.
    pub instance_id: Option<&'a str>,
    /// Where it stands.
    pub rack_id: Option<&'a str>,
    /// How long it may take to give partitions up.
    pub rebalance_timeout_ms: i32,
    /// What the client calls itself.
    pub client_id: &'a str,
    /// Where it comes from.
    pub client_host: &'a str,
    /// Topics that it reads.
    pub topics: Option<Vec<&'a str>>,
    /// A pattern of topics that it reads; empty takes it back.
    pub regex: Option<&'a str>,
    /// The assignor that it wants.
    pub assignor: Option<&'a str>,
    /// What it has.
    pub owned: Option<Assignment>,
    /// The client makes ids itself (version 1 and later).
    pub requires_member_id: bool,
}

/// The answer to a heartbeat that went well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The member.
    pub member_id: Box<str>,
    /// Its epoch from now on.
    pub member_epoch: i32,
    /// What it may use, if that has changed or the member has told everything.
    pub assignment: Option<std::sync::Arc<Assignment>>,
    /// When it is to be heard of again.
    pub interval: Duration,
}

/// An answer of any kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To a ConsumerGroupHeartbeat.
    Heartbeat(Result<Heartbeat, GroupError>),
    /// To a JoinGroup.
    Join(Result<Joined, JoinRefused>),
    /// To a SyncGroup.
    Sync(Result<Synced, GroupError>),
}

impl Answer {
    /// The same kind of answer, refused.
    pub fn refused(&self, error: GroupError) -> Answer {
        match self {
            Answer::Heartbeat(_) => Answer::Heartbeat(Err(error)),
            Answer::Join(joined) => {
                let member_id = match joined {
                    Ok(joined) => joined.member_id.clone(),
                    Err(refused) => refused.member_id.clone(),
                };
                Answer::Join(Err(JoinRefused { error, member_id }))
            }
            Answer::Sync(_) => Answer::Sync(Err(error)),
        }
    }
}

/// A write that a group has asked for, to be told about with
/// [`ConsumerGroups::written`](super::ConsumerGroups::written).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The group.
    pub group_id: Box<str>,
    /// Which life of it.
    pub(super) life: u64,
    /// What it takes back: to be taken back again if it is refused.
    pub(super) removed: Vec<Change>,
    /// It says all that is so.
    pub(super) is_whole: bool,
}

/// A group that goes from one protocol to the other, with its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migrant {
    /// The group.
    pub group_id: Box<str>,
    /// The generation, or group epoch, that it has reached.
    pub generation: i32,
    /// The protocol that was chosen, if one was.
    pub protocol: Option<Box<str>>,
    /// Its members, by id.
    pub members: Vec<MigrantMember>,
}

/// A member of a group that migrates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MigrantMember {
    /// Its id.
    pub member_id: Box<str>,
    /// Its instance id, if it is static.
    pub instance_id: Option<Box<str>>,
    /// What the client calls itself.
    pub client_id: Box<str>,
    /// Where it comes from.
    pub client_host: Box<str>,
    /// How long it may take to join again.
    pub rebalance_timeout_ms: i32,
    /// Session timeout and protocols.
    pub classic: ClassicProfile,
    /// What it has, in the bytes of the classic protocol.
    pub assignment: bytes::Bytes,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect<T> {
    /// Answer now.
    Answer(T, Answer),
    /// Write these changes, all or none. Then answer, with the error if they were refused, and tell the group.
    Write(Written, Vec<Change>, Option<(T, Answer)>),
    /// The group is a classic one from now on, whose members are to join again. Write it with these changes, then as
    /// with `Write`.
    Downgrade(Migrant, Written, Vec<Change>, Option<(T, Answer)>),
}
