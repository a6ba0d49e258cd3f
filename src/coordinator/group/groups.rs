//! The groups of one coordinator: finding them, their deadlines, their bounds, and what is asked about them.
//!
//! Each group has at most one deadline in the queue. Events only move a group's to the front; that members were heard
//! of in the meantime is seen when it comes, and then the next one is looked for among its members.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::classic::Group;
use super::event::{
    Context, Effect, GroupError, GroupState, JoinRefused, JoinRequest, Leaving, Settings, SyncRequest, Written,
};
use super::snapshot::GroupSnapshot;
use crate::base::time::Monotonic;
use crate::model::limits::GROUP_TEXT_SIZE_BYTES_MAX;

/// What is due at once again waits this long, so that a tick ends.
const TICK_MIN: Duration = Duration::from_millis(1);

/// What the shard has left for groups.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// How many more groups.
    pub group_count: usize,
    /// How many more bytes of them.
    pub size_bytes: usize,
}

/// The groups of one coordinator. See the module.
#[derive(Debug)]
pub struct Groups<T> {
    slots: Vec<Option<Group<T>>>,
    free: Vec<u32>,
    pub(super) by_id: BTreeMap<Box<str>, u32>,
    due: BTreeSet<(Monotonic, u32)>,
    pub(super) life_count: u64,
    size_bytes: usize,
}

impl<T> Default for Groups<T> {
    fn default() -> Groups<T> {
        Groups {
            slots: Vec::new(),
            free: Vec::new(),
            by_id: BTreeMap::new(),
            due: BTreeSet::new(),
            life_count: 0,
            size_bytes: 0,
        }
    }
}

/// Fails if `group_id` can be none: [`GroupError::InvalidGroupId`].
pub fn check_group_id(group_id: &str) -> Result<(), GroupError> {
    match (1..=GROUP_TEXT_SIZE_BYTES_MAX).contains(&group_id.len()) {
        true => Ok(()),
        false => Err(GroupError::InvalidGroupId),
    }
}

/// Fails if a request to join is wrong whatever the group is: its group id, its session timeout, a text that no record
/// can hold.
pub fn check_join(request: &JoinRequest, settings: &Settings) -> Result<(), GroupError> {
    check_group_id(&request.group_id)?;
    let allowed_ms = settings.session_timeout_ms_min..=settings.session_timeout_ms_max;
    if !u64::try_from(request.session_timeout_ms).is_ok_and(|timeout_ms| allowed_ms.contains(&timeout_ms)) {
        return Err(GroupError::InvalidSessionTimeout);
    }
    // A member's id is one of the first two and a UUID.
    let instance_id = request.group_instance_id.as_deref().unwrap_or("");
    let names = request.protocols.iter().map(|protocol| &*protocol.name);
    let texts = [&*request.client_id, instance_id, &request.client_host, &request.protocol_type];
    match texts.into_iter().chain(names).all(|text| text.len() + 37 <= GROUP_TEXT_SIZE_BYTES_MAX) {
        true => Ok(()),
        false => Err(GroupError::InvalidRequest),
    }
}

impl<T> Groups<T> {
    /// Somebody joins a group, which is made if it is not there and the member is new. The request has passed
    /// [`check_join`].
    pub fn join(&mut self, ticket: T, request: JoinRequest, room: Room, context: &mut Context<'_, T>) {
        let known = self.by_id.get(&request.group_id).copied();
        let has_room = Group::<T>::growth_bytes(&request) <= room.size_bytes;
        let slot = match known {
            Some(slot) if has_room => slot,
            None if !request.member_id.is_empty() => {
                let refused = JoinRefused { error: GroupError::UnknownMemberId, member_id: request.member_id };
                return context.effects.push(Effect::Join(ticket, Err(refused)));
            }
            None if has_room && room.group_count > 0 => {
                self.life_count += 1;
                let group = Group::new(&request.group_id, self.life_count, context.now.wall);
                self.insert(group)
            }
            _ => {
                tracing::warn!(group = %request.group_id, "no room for a member: too many groups, or too large ones");
                let error = GroupError::CoordinatorNotAvailable;
                let refused = JoinRefused { error, member_id: request.member_id };
                return context.effects.push(Effect::Join(ticket, Err(refused)));
            }
        };
        self.change(slot, |group| group.join(ticket, request, context));
    }

    /// A member asks for its assignment.
    pub fn sync(&mut self, ticket: T, request: SyncRequest<'_>, context: &mut Context<'_, T>) {
        match self.by_id.get(request.group_id).copied() {
            Some(slot) => self.change(slot, |group| group.sync(ticket, request, context)),
            None => context.effects.push(Effect::Sync(ticket, Err(GroupError::UnknownMemberId))),
        }
    }

    /// A member is alive; the error is what it is to be told.
    pub fn heartbeat(
        &mut self,
        group_id: &str,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
        now: Monotonic,
    ) -> Result<(), GroupError> {
        // A heartbeat puts a deadline off; there is nothing to enter in the queue.
        let group = self.find_mut(group_id).ok_or(GroupError::UnknownMemberId)?;
        group.heartbeat(member_id, instance_id, generation, now)
    }

    /// Members leave. What became of each, in order, or why nothing could become of any.
    pub fn leave(
        &mut self,
        group_id: &str,
        leaving: &[Leaving<'_>],
        context: &mut Context<'_, T>,
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        match self.by_id.get(group_id).copied() {
            Some(slot) => self.change(slot, |group| group.leave(leaving, context)),
            None => Ok(vec![Err(GroupError::UnknownMemberId); leaving.len()]),
        }
    }

    /// Whether offsets may be committed for a group, perhaps in a transaction, where the producer is fenced instead of
    /// the member if it names none. A generation below 0 with no member is a tool, or a consumer that
    /// shares partitions without a group, and then the group need not be there;
    /// [`GroupError::GroupIdNotFound`] is for others. A member's commit is a sign of life, like a heartbeat.
    pub fn check_commit(
        &mut self,
        group_id: &str,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
        is_transactional: bool,
        now: Monotonic,
    ) -> Result<(), GroupError> {
        match self.find_mut(group_id) {
            Some(group) => group.check_commit(member_id, instance_id, generation, is_transactional, now),
            None if generation < 0 => Ok(()),
            None => Err(GroupError::GroupIdNotFound),
        }
    }

    /// What became of a write that an [`Effect::Persist`] has asked for.
    pub fn persisted(&mut self, written: &Written, result: Result<(), GroupError>, context: &mut Context<'_, T>) {
        let Some(slot) = self.by_id.get(&written.group_id).copied() else { return };
        if self.group(slot).life == written.life {
            self.change(slot, |group| group.persisted(written.number, result, context));
        }
    }

    /// Does what is due by now.
    pub fn tick(&mut self, context: &mut Context<'_, T>) {
        while let Some((at, slot)) = self.due.first().copied()
            && at <= context.now.monotonic
        {
            self.due.pop_first();
            let group = self.slots[slot as usize].as_mut().expect("what is due is there");
            group.armed = None;
            self.change(slot, |group| {
                group.tick(context);
                // Whatever has been put off since is seen here.
                group.earliest = group.next_deadline().map(|at| at.max(context.now.monotonic + TICK_MIN));
            });
        }
    }

    /// When [`tick`](Self::tick) is to be called at the latest.
    pub fn next_deadline(&self) -> Option<Monotonic> {
        self.due.first().map(|(at, _)| *at)
    }

    /// A record of the group was read: this is what it is, or there is none. Served from [`begin`](Self::begin) on.
    pub fn restore(&mut self, group_id: &str, snapshot: Option<GroupSnapshot>) {
        if let Some(slot) = self.by_id.get(group_id).copied() {
            self.remove(slot);
        }
        let Some(snapshot) = snapshot else { return };
        self.life_count += 1;
        match Group::restore(group_id, self.life_count, snapshot) {
            Some(group) => _ = self.insert(group),
            None => tracing::warn!(group = group_id, "the group's record contradicts itself: its members join anew"),
        }
    }

    /// All records were read: sessions begin.
    pub fn begin(&mut self, context: &mut Context<'_, T>) {
        for slot in 0..self.slots.len() as u32 {
            if self.slots[slot as usize].is_some() {
                self.change(slot, |group| group.begin(context));
            }
        }
    }

    /// The groups are served here no longer: who waits is refused with `error`.
    pub fn unload(&mut self, error: GroupError, context: &mut Context<'_, T>) {
        for group in std::mem::take(self).into_groups() {
            group.unload(error, context);
        }
    }

    /// A group is to be deleted: until [`end_delete`](Self::end_delete) it is dead. Fails if it has members, is not
    /// there or is being deleted.
    pub fn begin_delete(&mut self, group_id: &str) -> Result<(), GroupError> {
        let group = self.find_mut(group_id).ok_or(GroupError::GroupIdNotFound)?;
        match group.state {
            GroupState::Empty => {
                group.state = GroupState::Dead;
                Ok(())
            }
            GroupState::Dead => Err(GroupError::GroupIdNotFound),
            _ => Err(GroupError::NonEmptyGroup),
        }
    }

    /// The deletion is durable, or was refused and the group is there as before.
    pub fn end_delete(&mut self, group_id: &str, is_deleted: bool) {
        let Some(slot) = self.by_id.get(group_id).copied() else { return };
        if self.group(slot).state == GroupState::Dead {
            match is_deleted {
                true => drop(self.remove(slot)),
                false => self.change(slot, |group| group.state = GroupState::Empty),
            }
        }
    }

    /// A group, to be described.
    pub fn get(&self, group_id: &str) -> Option<&Group<T>> {
        self.by_id.get(group_id).map(|slot| self.group(*slot))
    }

    /// True if the group is known here, with members or without.
    pub fn has_group(&self, group_id: &str) -> bool {
        self.by_id.contains_key(group_id)
    }

    /// Where a group is.
    pub fn state_of(&self, group_id: &str) -> Option<GroupState> {
        self.get(group_id).map(|group| group.state)
    }

    /// True if a member of the group reads `topic`, or may: that of consumers whose metadata cannot be read is not
    /// known.
    pub fn is_subscribed_to(&self, group_id: &str, topic: &str) -> bool {
        self.get(group_id).is_some_and(|group| group.reads_topic(topic).unwrap_or(group.is_of_consumers()))
    }

    /// All groups, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Group<T>> {
        self.by_id.values().map(|slot| self.group(*slot))
    }

    /// How many groups there are.
    pub fn count(&self) -> usize {
        self.by_id.len()
    }

    /// About what they take in memory.
    pub fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    fn group(&self, slot: u32) -> &Group<T> {
        self.slots[slot as usize].as_ref().expect("the index names what is there")
    }

    fn find_mut(&mut self, group_id: &str) -> Option<&mut Group<T>> {
        let slot = *self.by_id.get(group_id)?;
        self.slots[slot as usize].as_mut()
    }

    pub(super) fn insert(&mut self, group: Group<T>) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            u32::try_from(self.slots.len() - 1).expect("groups are bounded")
        });
        self.size_bytes += group.size_bytes;
        self.by_id.insert(group.id.clone(), slot);
        self.slots[slot as usize] = Some(group);
        slot
    }

    pub(super) fn remove(&mut self, slot: u32) -> Group<T> {
        let group = self.slots[slot as usize].take().expect("the index names what is there");
        if let Some(at) = group.armed {
            self.due.remove(&(at, slot));
        }
        self.size_bytes -= group.size_bytes;
        self.by_id.remove(&group.id);
        self.free.push(slot);
        group
    }

    fn into_groups(self) -> impl Iterator<Item = Group<T>> {
        let Groups { mut slots, by_id, .. } = self;
        by_id.into_values().filter_map(move |slot| slots[slot as usize].take())
    }

    /// Lets an event happen to a group, and keeps the books: its size, its deadline, and that a group that was never
    /// written and that nobody uses is none.
    pub(super) fn change<R>(&mut self, slot: u32, event: impl FnOnce(&mut Group<T>) -> R) -> R {
        let group = self.slots[slot as usize].as_mut().expect("the index names what is there");
        let size_bytes = group.size_bytes;
        let result = event(group);
        self.size_bytes = self.size_bytes - size_bytes + group.size_bytes;
        if group.is_unused() && !group.is_recorded {
            self.remove(slot);
        } else if let Some(at) = group.earliest
            && group.armed.is_none_or(|armed| at < armed)
        {
            if let Some(armed) = group.armed.replace(at) {
                self.due.remove(&(armed, slot));
            }
            self.due.insert((at, slot));
        }
        result
    }
}

#[cfg(test)]
impl<T> Groups<T> {
    /// Panics if a count or a deadline is not what it would be if it were counted anew.
    pub(super) fn check_books(&self) {
        let mut size_bytes = 0;
        for (id, slot) in &self.by_id {
            let group = self.group(*slot);
            assert_eq!(group.id, *id);
            group.check_books();
            size_bytes += group.size_bytes;
            if let Some(next) = group.next_deadline() {
                assert!(
                    group.armed.is_some_and(|armed| armed <= next.max(Monotonic(0) + TICK_MIN)),
                    "{group_id}",
                    group_id = id
                );
            }
            assert_eq!(group.armed.is_some_and(|at| self.due.contains(&(at, *slot))), group.armed.is_some());
            assert!(!group.is_unused() || group.is_recorded);
        }
        assert_eq!(size_bytes, self.size_bytes);
        assert_eq!(self.due.len(), self.iter().filter(|group| group.armed.is_some()).count());
        assert_eq!(self.slots.len(), self.free.len() + self.by_id.len());
    }
}
