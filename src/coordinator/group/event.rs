//! What a group is told and what it wants done.

use std::time::Duration;

use bytes::Bytes;

use super::snapshot::GroupSnapshot;
use crate::base::rng::Rng;
use crate::base::time::Now;

/// Where a group is between two rebalances, in Kafka's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupState {
    /// Nobody is a member.
    Empty,
    /// Members are to join again.
    PreparingRebalance,
    /// The leader is to assign.
    CompletingRebalance,
    /// Everybody has an assignment.
    Stable,
    /// It is being deleted.
    Dead,
}

impl GroupState {
    /// Kafka's name for it: `PreparingRebalance`.
    pub const fn name(self) -> &'static str {
        match self {
            GroupState::Empty => "Empty",
            GroupState::PreparingRebalance => "PreparingRebalance",
            GroupState::CompletingRebalance => "CompletingRebalance",
            GroupState::Stable => "Stable",
            GroupState::Dead => "Dead",
        }
    }
}

/// Why a request about a group fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// The group's id is empty or longer than a record can hold.
    #[error("the group id is not valid")]
    InvalidGroupId,
    /// A text of the request is longer than a record can hold.
    #[error("a text of the request is too long")]
    InvalidRequest,
    /// The session timeout is outside of what the broker allows.
    #[error("the session timeout is not within group.min.session.timeout.ms and group.max.session.timeout.ms")]
    InvalidSessionTimeout,
    /// The member is to join again with the id that it was given.
    #[error("join again with the given member id")]
    MemberIdRequired,
    /// The group has no such member.
    #[error("the member is not known")]
    UnknownMemberId,
    /// Another member has the instance id now.
    #[error("the instance id belongs to another member")]
    FencedInstanceId,
    /// The member speaks of a generation that is over.
    #[error("the generation is not the current one")]
    IllegalGeneration,
    /// The member must join again.
    #[error("the group rebalances")]
    RebalanceInProgress,
    /// The member has no protocol that all others have.
    #[error("the member's protocols do not fit the group's")]
    InconsistentGroupProtocol,
    /// The group takes no more members, or no more bytes of them.
    #[error("the group has reached its greatest size")]
    GroupMaxSizeReached,
    /// No such group.
    #[error("the group does not exist")]
    GroupIdNotFound,
    /// The group has members.
    #[error("the group is not empty")]
    NonEmptyGroup,
    /// The group is being deleted, cannot be written now, or there is no room for it: try again.
    #[error("the coordinator is not available")]
    CoordinatorNotAvailable,
    /// Another broker is to be asked.
    #[error("this is not the group's coordinator")]
    NotCoordinator,
    /// The member's epoch is not the one it was told (consumer protocol): it is to give everything up and join again.
    #[error("the member epoch is not the current one: give up all partitions and join again")]
    FencedMemberEpoch,
    /// The member speaks of an epoch that is over (consumer protocol).
    #[error("the member epoch is not the current one")]
    StaleMemberEpoch,
    /// The member that has the instance id has not left (consumer protocol).
    #[error("the instance id belongs to a member that has not left")]
    UnreleasedInstanceId,
    /// There is no such assignor, or the operator does not allow it.
    #[error("the assignor is not supported")]
    UnsupportedAssignor,
    /// Not a regular expression, or too large a one.
    #[error("the regular expression is not valid")]
    InvalidRegularExpression,
    /// A member of the consumer protocol uses a version that has no member epoch.
    #[error("members of the consumer protocol need a newer version of the request")]
    UnsupportedVersion,
    /// The group does not fit into a record.
    #[error("the group's record is too large")]
    TooLarge,
}

/// What the operator decided about groups, within the limits.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// `group.min.session.timeout.ms`.
    pub session_timeout_ms_min: u64,
    /// `group.max.session.timeout.ms`.
    pub session_timeout_ms_max: u64,
    /// `group.initial.rebalance.delay.ms`.
    pub initial_rebalance_delay: Duration,
    /// `group.max.size`.
    pub member_count_max: usize,
}

/// What an event happens in.
#[derive(Debug)]
pub struct Context<'a, T> {
    /// Both clocks.
    pub now: Now,
    /// What the operator decided.
    pub settings: &'a Settings,
    /// For member ids.
    pub rng: &'a mut Rng,
    /// What is to be done, in order; events add to it.
    pub effects: &'a mut Vec<Effect<T>>,
}

/// A protocol that a member supports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protocol {
    /// Its name: of an assignor, with consumers.
    pub name: Box<str>,
    /// What the member tells the leader if this protocol is chosen. A slice of a request keeps all of it in memory:
    /// copy it.
    pub metadata: Bytes,
}

/// A request to join.
#[derive(Clone, Debug)]
pub struct JoinRequest {
    /// The group.
    pub group_id: Box<str>,
    /// Empty if the member has none yet.
    pub member_id: Box<str>,
    /// Set by static members.
    pub group_instance_id: Option<Box<str>>,
    /// What the client calls itself; member ids begin with it.
    pub client_id: Box<str>,
    /// Where it comes from, as Kafka prints it: `/127.0.0.1`.
    pub client_host: Box<str>,
    /// How long it may be silent.
    pub session_timeout_ms: i32,
    /// How long it may take to join again.
    pub rebalance_timeout_ms: i32,
    /// What its protocols are for: `consumer`.
    pub protocol_type: Box<str>,
    /// In order of preference.
    pub protocols: Vec<Protocol>,
    /// A new dynamic member is given its id before it may join (JoinGroup 4 and later).
    pub requires_member_id: bool,
    /// The client can be told that it leads without having to assign (JoinGroup 9 and later).
    pub can_skip_assignment: bool,
}

/// A member as its leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinedMember {
    /// Its id.
    pub member_id: Box<str>,
    /// Its instance id if it is static.
    pub group_instance_id: Option<Box<str>>,
    /// What it tells the leader.
    pub metadata: Bytes,
}

/// The answer to a join that went well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The generation that begins.
    pub generation: i32,
    /// What the group's protocols are for.
    pub protocol_type: Option<Box<str>>,
    /// The protocol that was chosen.
    pub protocol: Option<Box<str>>,
    /// The member that assigns.
    pub leader: Box<str>,
    /// The member that is answered.
    pub member_id: Box<str>,
    /// The leader need not assign: the group keeps its assignment.
    pub skip_assignment: bool,
    /// All members; empty unless the answered one leads.
    pub members: Vec<JoinedMember>,
}

/// The answer to a join that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinRefused {
    /// Why.
    pub error: GroupError,
    /// The id that the member is to use, or used; empty if it has none.
    pub member_id: Box<str>,
}

/// A request for an assignment, with assignments if it is the leader's.
#[derive(Clone, Debug)]
pub struct SyncRequest<'a> {
    /// The group.
    pub group_id: &'a str,
    /// The member.
    pub member_id: &'a str,
    /// Its instance id, if it is static.
    pub group_instance_id: Option<&'a str>,
    /// The generation that it has joined.
    pub generation: i32,
    /// Checked if given (SyncGroup 5 and later).
    pub protocol_type: Option<&'a str>,
    /// Checked if given (SyncGroup 5 and later).
    pub protocol: Option<&'a str>,
    /// By member id; only the leader's count.
    pub assignments: Vec<(&'a str, Bytes)>,
}

/// The answer to a sync that went well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synced {
    /// What the group's protocols are for.
    pub protocol_type: Option<Box<str>>,
    /// The protocol that was chosen.
    pub protocol: Option<Box<str>>,
    /// What the leader gave this member.
    pub assignment: Bytes,
}

/// A member that leaves, or is made to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaving<'a> {
    /// Empty if an operator removes a static member.
    pub member_id: &'a str,
    /// Its instance id.
    pub group_instance_id: Option<&'a str>,
}

/// A write that a group has asked for, to be told about with [`Groups::persisted`](super::Groups::persisted).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The group.
    pub group_id: Box<str>,
    /// Which life of it.
    pub(super) life: u64,
    /// Which write.
    pub(super) number: u64,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect<T> {
    /// Answer who joined.
    Join(T, Result<Joined, JoinRefused>),
    /// Answer who asked for an assignment.
    Sync(T, Result<Synced, GroupError>),
    /// Write the group, and tell when it is durable or why it is not.
    Persist(Written, GroupSnapshot),
}
