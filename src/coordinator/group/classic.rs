//! One group: what it is, what it remembers, and the steps that its events share.
//!
//! Counts of members that wait or owe something are kept, so that no event but a completed rebalance walks all members.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::event::{
    Context, Effect, GroupError, GroupState, JoinRefused, JoinRequest, Joined, JoinedMember, Protocol, Synced, Written,
};
use super::member::{Member, milliseconds, protocols_size_bytes};
use super::snapshot::{GroupSnapshot, MemberSnapshot};
use super::subscription::{CONSUMER, names_topic};
use crate::base::time::{Monotonic, Now, Timestamp};

/// What a group takes in memory beside its members and texts.
const GROUP_SIZE_BYTES: usize = 640;
/// What a member id that was given out takes beside its text.
const PENDING_SIZE_BYTES: usize = 96;

/// When the members that have joined are taken as all.
#[derive(Clone, Copy, Debug)]
pub(super) struct JoinTimer {
    pub at: Monotonic,
    /// Set for the first rebalance of an empty group, which waits longer while members come: by how much it was
    /// delayed last, and what is left of the greatest delay.
    pub extension: Option<(Duration, Duration)>,
}

/// The assignment of a generation while it is being written.
#[derive(Debug)]
pub(super) struct AssignmentWrite {
    pub number: u64,
    pub assignments: BTreeMap<Box<str>, Bytes>,
}

/// A static member that came back under a new id while that is being written.
#[derive(Debug)]
pub(super) struct Replacement {
    pub member_id: Box<str>,
    pub old_member_id: Box<str>,
    pub old_leader: Option<Box<str>>,
    pub old_protocols: Vec<Protocol>,
    pub old_rebalance_timeout_ms: i32,
    pub old_session_timeout_ms: i32,
    pub can_skip_assignment: bool,
}

/// A classic group.
#[derive(Debug)]
pub struct Group<T> {
    /// Its id.
    pub id: Box<str>,
    /// A number that no other group of this coordinator has or had.
    pub(super) life: u64,
    /// Where it is.
    pub state: GroupState,
    /// Since when.
    pub since: Timestamp,
    /// How many rebalances have completed.
    pub generation: i32,
    /// What its protocols are for.
    pub protocol_type: Option<Box<str>>,
    /// The protocol that was chosen for this generation.
    pub protocol: Option<Box<str>>,
    /// The member that assigns; there is one whenever there are members.
    pub(super) leader: Option<Box<str>>,
    /// By id.
    pub(super) members: BTreeMap<Box<str>, Member<T>>,
    /// Ids of static members by instance id.
    pub(super) statics: BTreeMap<Box<str>, Box<str>>,
    /// Ids that were given out and not used yet, with the end of their time.
    pub(super) pending: BTreeMap<Box<str>, Monotonic>,
    /// How many members support a protocol.
    pub(super) supported: BTreeMap<Box<str>, usize>,
    /// Members whose JoinGroup waits.
    pub(super) joining_count: usize,
    /// Members that have joined this generation and not asked for their assignment.
    pub(super) unsynced_count: usize,
    pub(super) join_timer: Option<JoinTimer>,
    pub(super) sync_deadline: Option<Monotonic>,
    /// A member has come during the first rebalance.
    pub(super) has_new_member: bool,
    pub(super) assignment_write: Option<AssignmentWrite>,
    pub(super) replacements: BTreeMap<u64, Replacement>,
    pub(super) write_count: u64,
    /// A record of it was or is being written.
    pub(super) is_recorded: bool,
    /// About what it takes in memory.
    pub(super) size_bytes: usize,
    /// Nothing is due before; what the events have set since it was last armed counts.
    pub(super) earliest: Option<Monotonic>,
    /// For when the collection looks at it again.
    pub(super) armed: Option<Monotonic>,
}

impl<T> Group<T> {
    pub(super) fn new(id: &str, life: u64, since: Timestamp) -> Group<T> {
        Group {
            id: id.into(),
            life,
            state: GroupState::Empty,
            since,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            statics: BTreeMap::new(),
            pending: BTreeMap::new(),
            supported: BTreeMap::new(),
            joining_count: 0,
            unsynced_count: 0,
            join_timer: None,
            sync_deadline: None,
            has_new_member: false,
            assignment_write: None,
            replacements: BTreeMap::new(),
            write_count: 0,
            is_recorded: false,
            size_bytes: GROUP_SIZE_BYTES + 2 * id.len(),
            earliest: None,
            armed: None,
        }
    }

    /// The group that was kept; `None` if it contradicts itself. Sessions begin with [`begin`](Self::begin).
    pub(super) fn restore(id: &str, life: u64, snapshot: GroupSnapshot) -> Option<Group<T>> {
        let mut group = Group::new(id, life, snapshot.current_state_timestamp);
        group.is_recorded = true;
        group.generation = snapshot.generation;
        group.protocol_type = snapshot.protocol_type.filter(|kind| !kind.is_empty());
        if snapshot.members.is_empty() {
            return Some(group);
        }
        let protocol = snapshot.protocol?;
        group.protocol_type.as_ref()?;
        for kept in snapshot.members {
            let is_known = group.members.contains_key(&kept.member_id);
            let is_static = kept.group_instance_id.as_ref();
            if is_known || is_static.is_some_and(|instance| group.statics.contains_key(instance)) {
                return None;
            }
            let rebalance_timeout_ms = match kept.rebalance_timeout_ms {
                -1 => kept.session_timeout_ms,
                timeout_ms => timeout_ms,
            };
            let member = Member {
                group_instance_id: kept.group_instance_id,
                client_id: kept.client_id,
                client_host: kept.client_host,
                rebalance_timeout_ms,
                session_timeout_ms: kept.session_timeout_ms,
                protocols: vec![Protocol { name: protocol.clone(), metadata: kept.subscription }],
                assignment: kept.assignment,
                joining: None,
                syncing: None,
                is_new: false,
                owes_sync: false,
                deadline: Monotonic::default(),
            };
            group.insert_member(kept.member_id, member);
        }
        if let Some(leader) = snapshot.leader.filter(|leader| group.members.contains_key(leader)) {
            group.leader = Some(leader);
        }
        group.protocol = Some(protocol);
        group.state = GroupState::Stable;
        Some(group)
    }

    /// A restored group is served from now on: nobody was silent yet.
    pub(super) fn begin(&mut self, context: &mut Context<'_, T>) {
        for member in self.members.values_mut() {
            let deadline = member.renew(context.now.monotonic);
            self.earliest = earlier(self.earliest, deadline);
        }
        if self.members.len() > context.settings.member_count_max {
            self.prepare_rebalance(context);
        }
    }

    /// What is kept of it.
    pub(super) fn snapshot(&self, assignments: Option<&BTreeMap<Box<str>, Bytes>>) -> GroupSnapshot {
        let members = self.members.iter().map(|(member_id, member)| MemberSnapshot {
            member_id: member_id.clone(),
            group_instance_id: member.group_instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rebalance_timeout_ms: member.rebalance_timeout_ms,
            session_timeout_ms: member.session_timeout_ms,
            subscription: self.metadata_of(member),
            assignment: match assignments {
                Some(assignments) => assignments.get(member_id).cloned().unwrap_or_default(),
                None => member.assignment.clone(),
            },
        });
        GroupSnapshot {
            protocol_type: self.protocol_type.clone(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            current_state_timestamp: self.since,
            members: members.collect(),
        }
    }

    /// Asks for the group to be written; the number comes back with the outcome.
    pub(super) fn persist(&mut self, snapshot: GroupSnapshot, context: &mut Context<'_, T>) -> u64 {
        self.write_count += 1;
        self.is_recorded = true;
        let written = Written { group_id: self.id.clone(), life: self.life, number: self.write_count };
        context.effects.push(Effect::Persist(written, snapshot));
        self.write_count
    }

    /// What a member tells the leader of this generation.
    fn metadata_of(&self, member: &Member<T>) -> Bytes {
        let chosen = self.protocol.as_ref().and_then(|protocol| member.metadata(protocol));
        chosen.cloned().unwrap_or_default()
    }

    /// The members, by id.
    pub fn members(&self) -> impl ExactSizeIterator<Item = (&str, &Member<T>)> {
        self.members.iter().map(|(member_id, member)| (&**member_id, member))
    }

    /// True if nobody was ever a member, or is about to be one: then it is only there for committed offsets.
    pub fn is_simple(&self) -> bool {
        self.protocol_type.is_none() && self.is_unused()
    }

    /// True if somebody was given an id to join with.
    pub fn is_awaited(&self) -> bool {
        !self.pending.is_empty()
    }

    /// True if nobody is a member or about to be one.
    pub(super) fn is_unused(&self) -> bool {
        self.state == GroupState::Empty && self.pending.is_empty()
    }

    /// True if its members are consumers, whose metadata can be read.
    pub fn is_of_consumers(&self) -> bool {
        self.protocol_type.as_deref() == Some(CONSUMER)
    }

    /// True if a member reads `topic`, or may: nobody knows what is in metadata that cannot be read. `None` stands
    /// for such.
    pub(super) fn reads_topic(&self, topic: &str) -> Option<bool> {
        if !self.is_of_consumers() {
            return None;
        }
        let mut is_read = false;
        for member in self.members.values() {
            is_read |= names_topic(member.metadata(self.protocol.as_ref()?)?, topic)?;
        }
        Some(is_read)
    }

    pub(super) fn is_leader(&self, member_id: &str) -> bool {
        self.leader.as_deref() == Some(member_id)
    }

    /// Moves on to `state`.
    pub(super) fn enter(&mut self, state: GroupState, now: Now) {
        self.state = state;
        self.since = now.wall;
    }

    /// The member of this id, if the instance id is its own.
    pub(super) fn check_member(&self, member_id: &str, instance_id: Option<&str>) -> Result<(), GroupError> {
        if let Some(instance_id) = instance_id {
            match self.statics.get(instance_id) {
                None => return Err(GroupError::UnknownMemberId),
                Some(owner) if **owner != *member_id => return Err(GroupError::FencedInstanceId),
                Some(_) => {}
            }
        }
        match self.members.contains_key(member_id) {
            true => Ok(()),
            false => Err(GroupError::UnknownMemberId),
        }
    }

    /// True if a member with these could join: of the same kind, with a protocol that all others have.
    pub(super) fn supports(&self, protocol_type: &str, protocols: &[Protocol]) -> bool {
        if self.state == GroupState::Empty {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        let count = self.members.len();
        self.protocol_type.as_deref() == Some(protocol_type)
            && protocols.iter().any(|offered| self.supported.get(&offered.name).copied().unwrap_or(0) == count)
    }

    /// Puts a member in. The first one says what the group is for, and leads.
    pub(super) fn insert_member(&mut self, member_id: Box<str>, member: Member<T>) {
        if let Some(instance_id) = &member.group_instance_id {
            self.statics.insert(instance_id.clone(), member_id.clone());
        }
        for protocol in &member.protocols {
            *self.supported.entry(protocol.name.clone()).or_default() += 1;
        }
        self.joining_count += usize::from(member.joining.is_some());
        self.unsynced_count += usize::from(member.owes_sync);
        self.size_bytes += member.size_bytes() + 3 * member_id.len();
        self.leader.get_or_insert_with(|| member_id.clone());
        self.remove_pending(&member_id);
        let known = self.members.insert(member_id, member);
        debug_assert!(known.is_none());
    }

    /// Takes a member out; its JoinGroup and SyncGroup, if they wait, are the caller's to answer.
    pub(super) fn remove_member(&mut self, member_id: &str) -> Option<Member<T>> {
        let member = self.members.remove(member_id)?;
        if let Some(instance_id) = &member.group_instance_id {
            self.statics.remove(instance_id);
        }
        self.forget_protocols(&member.protocols);
        self.joining_count -= usize::from(member.joining.is_some());
        self.unsynced_count -= usize::from(member.owes_sync);
        self.size_bytes -= member.size_bytes() + 3 * member_id.len();
        if self.is_leader(member_id) {
            self.leader = self.members.keys().next().cloned();
        }
        Some(member)
    }

    /// Takes a member out and tells it: if it still lives, it is to join as a new one. True if there was one.
    pub(super) fn expel(&mut self, member_id: &str, context: &mut Context<'_, T>) -> bool {
        let Some(member) = self.remove_member(member_id) else { return false };
        refuse(member, GroupError::UnknownMemberId, "", context);
        true
    }

    pub(super) fn add_pending(&mut self, member_id: Box<str>, deadline: Monotonic) {
        self.size_bytes += PENDING_SIZE_BYTES + member_id.len();
        self.pending.insert(member_id, deadline);
        self.due_by(deadline);
    }

    pub(super) fn remove_pending(&mut self, member_id: &str) -> bool {
        let was_pending = self.pending.remove(member_id).is_some();
        if was_pending {
            self.size_bytes -= PENDING_SIZE_BYTES + member_id.len();
        }
        was_pending
    }

    fn forget_protocols(&mut self, protocols: &[Protocol]) {
        for protocol in protocols {
            let count = self.supported.get_mut(&protocol.name).expect("it was counted");
            *count -= 1;
            if *count == 0 {
                self.supported.remove(&protocol.name);
            }
        }
    }

    /// What a member says about itself has changed.
    pub(super) fn update_member(
        &mut self,
        member_id: &str,
        protocols: Vec<Protocol>,
        rebalance_timeout_ms: i32,
        session_timeout_ms: i32,
    ) -> Vec<Protocol> {
        for protocol in &protocols {
            *self.supported.entry(protocol.name.clone()).or_default() += 1;
        }
        self.size_bytes += protocols_size_bytes(&protocols);
        let member = self.members.get_mut(member_id).expect("the caller has checked");
        let old = std::mem::replace(&mut member.protocols, protocols);
        member.rebalance_timeout_ms = rebalance_timeout_ms;
        member.session_timeout_ms = session_timeout_ms;
        self.size_bytes -= protocols_size_bytes(&old);
        self.forget_protocols(&old);
        old
    }

    /// A member's JoinGroup waits from now on. One that waited before is told to come again.
    pub(super) fn await_join(&mut self, member_id: &str, ticket: T, context: &mut Context<'_, T>) {
        let member = self.members.get_mut(member_id).expect("the caller has checked");
        match member.joining.replace(ticket) {
            None => self.joining_count += 1,
            Some(ticket) => {
                let refused = JoinRefused { error: GroupError::RebalanceInProgress, member_id: member_id.into() };
                context.effects.push(Effect::Join(ticket, Err(refused)));
            }
        }
        // Whoever joins does not wait for an assignment any more.
        if let Some(ticket) = member.syncing.take() {
            context.effects.push(Effect::Sync(ticket, Err(GroupError::RebalanceInProgress)));
        }
    }

    /// Takes a member's JoinGroup that waits.
    pub(super) fn take_join(&mut self, member_id: &str) -> Option<T> {
        let ticket = self.members.get_mut(member_id)?.joining.take()?;
        self.joining_count -= 1;
        Some(ticket)
    }

    /// A member has asked for its assignment.
    pub(super) fn settle_sync(&mut self, member_id: &str) {
        let member = self.members.get_mut(member_id).expect("the caller has checked");
        if std::mem::take(&mut member.owes_sync) {
            self.unsynced_count -= 1;
        }
        if self.unsynced_count == 0 {
            self.sync_deadline = None;
        }
    }

    /// The member was heard of.
    pub(super) fn renew(&mut self, member_id: &str, now: Monotonic) {
        let member = self.members.get_mut(member_id).expect("the caller has checked");
        let deadline = member.renew(now);
        self.due_by(deadline);
    }

    /// Something is due at `at`.
    pub(super) fn due_by(&mut self, at: Monotonic) {
        self.earliest = earlier(self.earliest, at);
    }

    /// What a member is answered that has joined the current generation.
    pub(super) fn joined(&self, member_id: &str) -> Joined {
        let is_leader = self.is_leader(member_id);
        Joined {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            member_id: member_id.into(),
            skip_assignment: false,
            members: if is_leader { self.joined_members() } else { Vec::new() },
        }
    }

    fn joined_members(&self) -> Vec<JoinedMember> {
        let members = self.members.iter().map(|(member_id, member)| JoinedMember {
            member_id: member_id.clone(),
            group_instance_id: member.group_instance_id.clone(),
            metadata: self.metadata_of(member),
        });
        members.collect()
    }

    /// What a member is answered that has asked for its assignment.
    pub(super) fn synced(&self, assignment: Bytes) -> Synced {
        Synced { protocol_type: self.protocol_type.clone(), protocol: self.protocol.clone(), assignment }
    }

    /// The greatest time that a member wants for joining again.
    pub(super) fn rebalance_timeout(&self) -> Duration {
        let greatest_ms = self.members.values().map(|member| member.rebalance_timeout_ms).max();
        milliseconds(greatest_ms.unwrap_or(0))
    }

    /// When something is due next, from scratch.
    pub(super) fn next_deadline(&self) -> Option<Monotonic> {
        let members = self.members.values().map(|member| member.deadline);
        let timers = self.join_timer.map(|timer| timer.at).into_iter().chain(self.sync_deadline);
        members.chain(self.pending.values().copied()).chain(timers).min()
    }

    /// Everybody who waits is refused: the group is not served here any more.
    pub(super) fn unload(self, error: GroupError, context: &mut Context<'_, T>) {
        for (member_id, member) in self.members {
            refuse(member, error, &member_id, context);
        }
    }

    /// About what a member with this request would add.
    pub(super) fn growth_bytes(request: &JoinRequest) -> usize {
        // An upper bound of what `Member::size_bytes` says: the id is the client's or instance's and a UUID.
        let instance_id = request.group_instance_id.as_ref().map_or(0, |id| id.len());
        let texts = 4 * (request.client_id.len().max(instance_id) + 64) + 3 * instance_id + request.client_host.len();
        512 + texts + protocols_size_bytes(&request.protocols)
    }
}

/// Gives back the tickets of a member that is no more.
pub(super) fn refuse<T>(member: Member<T>, error: GroupError, member_id: &str, context: &mut Context<'_, T>) {
    if let Some(ticket) = member.joining {
        let refused = JoinRefused { error, member_id: member_id.into() };
        context.effects.push(Effect::Join(ticket, Err(refused)));
    }
    if let Some(ticket) = member.syncing {
        context.effects.push(Effect::Sync(ticket, Err(error)));
    }
}

/// The earlier of two points of time, of which one may not be.
pub(super) fn earlier(known: Option<Monotonic>, at: Monotonic) -> Option<Monotonic> {
    Some(known.map_or(at, |known| known.min(at)))
}

#[cfg(test)]
impl<T> Group<T> {
    /// Panics if something that is kept is not what it would be if it were worked out anew.
    pub(super) fn check_books(&self) {
        let members = self.members.values();
        assert_eq!(self.joining_count, members.clone().filter(|member| member.joining.is_some()).count());
        assert_eq!(self.unsynced_count, members.clone().filter(|member| member.owes_sync).count());
        let mut supported: BTreeMap<Box<str>, usize> = BTreeMap::new();
        for protocol in members.clone().flat_map(|member| &member.protocols) {
            *supported.entry(protocol.name.clone()).or_default() += 1;
        }
        assert_eq!(self.supported, supported);
        let statics =
            self.members.iter().filter_map(|(id, member)| Some((member.group_instance_id.clone()?, id.clone())));
        assert_eq!(self.statics, statics.collect());
        match &self.leader {
            Some(leader) => assert!(self.members.contains_key(leader)),
            None => assert!(self.members.is_empty()),
        }
        assert!(self.pending.keys().all(|member_id| !self.members.contains_key(member_id)));
        let sizes = self.members.iter().map(|(id, member)| member.size_bytes() + 3 * id.len());
        let pending = self.pending.keys().map(|id| PENDING_SIZE_BYTES + id.len());
        let size_bytes = GROUP_SIZE_BYTES + 2 * self.id.len() + sizes.chain(pending).sum::<usize>();
        assert_eq!(self.size_bytes, size_bytes);
        if matches!(self.state, GroupState::Stable | GroupState::CompletingRebalance) {
            assert!(!self.members.is_empty());
            let protocol = self.protocol.as_ref().expect("it was chosen");
            assert!(members.clone().all(|member| member.metadata(protocol).is_some()) || !self.replacements.is_empty());
        }
        if self.state == GroupState::Stable {
            assert!(members.clone().all(|member| member.syncing.is_none()));
            assert!(self.joining_count <= self.replacements.len());
        }
        if matches!(self.state, GroupState::PreparingRebalance | GroupState::Empty) {
            assert!(members.clone().all(|member| member.syncing.is_none() && !member.owes_sync));
        }
        assert_eq!(self.join_timer.is_some(), self.state == GroupState::PreparingRebalance);
        assert_eq!(
            self.state == GroupState::Empty || self.state == GroupState::Dead,
            self.members.is_empty() && self.state != GroupState::PreparingRebalance
        );
    }
}
