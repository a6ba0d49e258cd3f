//! The groups of one coordinator: finding them, their writes, their deadlines, their bounds.
//!
//! Each group has at most one deadline in the queue. Events only move a group's to the front; that members were heard
//! of in the meantime is seen when it comes, and then the next one is looked for among its members.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::Duration;

use super::change::Change;
use super::event::{Answer, Context, Effect, HeartbeatRequest, Migrant, Settings, Written};
use super::group::{ConsumerGroup, GroupState};
use super::heartbeat::Fate;
use super::kept::Kept;
use crate::base::rng::Rng;
use crate::base::time::{Monotonic, Now};
use crate::coordinator::group::event::{GroupError, JoinRefused, JoinRequest, Leaving, SyncRequest};
use crate::coordinator::group::groups::Room;
use crate::model::limits::{GROUP_PROTOCOL_COUNT_MAX, GROUP_SIZE_BYTES_MAX};

pub use super::heartbeat::check_heartbeat;

/// What is due at once again waits this long, so that a tick ends.
const TICK_MIN: Duration = Duration::from_millis(1);
/// When a group whose records were refused is written again.
const RETRY: Duration = Duration::from_secs(1);
/// What a partition takes that a member is given: in its target, in what it has, among those that are held.
const PARTITION_SIZE_BYTES: usize = 24;
/// What a member takes at most beside what its request is long.
const MEMBER_SIZE_BYTES: usize = 1024;

/// The groups of one coordinator. See the module.
#[derive(Debug, Default)]
pub struct ConsumerGroups {
    groups: BTreeMap<Box<str>, ConsumerGroup>,
    due: BTreeSet<(Monotonic, Box<str>)>,
    life_count: u64,
    size_bytes: usize,
    /// What was written of groups that are no more of this protocol and could not be taken back yet.
    leftovers: BTreeMap<Box<str>, Vec<Change>>,
    leftovers_at: Option<Monotonic>,
}

/// What became of a request that may have taken a classic group over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Nothing: a classic group stays.
    No,
    /// The classic group is one of these from now on.
    Over,
}

impl ConsumerGroups {
    /// A heartbeat, which has passed [`check_heartbeat`]. `classic` is the classic group of this id, if there is one:
    /// if the answer says so it is to be forgotten.
    pub fn heartbeat<T>(
        &mut self,
        ticket: T,
        request: &HeartbeatRequest<'_>,
        classic: Option<Migrant>,
        room: Room,
        context: &mut Context<'_, T>,
    ) -> Taken {
        let refuse = |ticket, error, context: &mut Context<'_, T>| {
            context.effects.push(Effect::Answer(ticket, Answer::Heartbeat(Err(error))));
            Taken::No
        };
        let group_id = request.group_id;
        let is_joining = request.member_epoch == 0;
        let growth_bytes = self.growth_bytes(request, context);
        let known = self.groups.get(group_id);
        let size_bytes = known.map_or(0, |group| group.size_bytes);
        if growth_bytes > room.size_bytes || (known.is_none() && is_joining && room.group_count == 0) {
            tracing::warn!(group = group_id, "no room for a member: too many groups, or too large ones");
            return refuse(ticket, GroupError::CoordinatorNotAvailable, context);
        }
        if growth_bytes > 0 && size_bytes + growth_bytes > GROUP_SIZE_BYTES_MAX {
            return refuse(ticket, GroupError::GroupMaxSizeReached, context);
        }
        if known.is_none() {
            return match is_joining {
                true => self.found(ticket, request, classic, context),
                false => refuse(ticket, GroupError::GroupIdNotFound, context),
            };
        }
        let answer = self.change(group_id, context, |group, context, changes| {
            if let Err(error) = group.check_writable() {
                // It is alive all the same.
                group.renew(request.member_id, context.settings, context.now);
                return (Err(error), Fate::GoesOn);
            }
            if is_joining || request.member_epoch > 0 {
                let member_id = member_id_of(request, context.rng);
                return (group.heartbeat(&member_id, request, context, changes), Fate::GoesOn);
            }
            let left = group.leave(request, context, changes);
            let answer = super::event::Heartbeat {
                member_id: request.member_id.into(),
                member_epoch: request.member_epoch,
                assignment: None,
                interval: context.settings.timeouts(group_id).heartbeat_interval,
            };
            (left.map(|_| answer), left.unwrap_or(Fate::GoesOn))
        });
        let ((result, fate), changes) = answer.expect("it is there");
        match fate {
            Fate::Downgrades => self.downgrade(group_id, Some((ticket, Answer::Heartbeat(result))), context),
            Fate::GoesOn => self.finish(group_id, changes, Some((ticket, Answer::Heartbeat(result))), context),
        }
        Taken::No
    }

    /// The first member of a group that is not there yet, or is a classic one.
    fn found<T>(
        &mut self,
        ticket: T,
        request: &HeartbeatRequest<'_>,
        classic: Option<Migrant>,
        context: &mut Context<'_, T>,
    ) -> Taken {
        self.life_count += 1;
        let made = match &classic {
            None => Ok((ConsumerGroup::new(request.group_id, self.life_count), Vec::new())),
            Some(migrant) if migrant.members.is_empty() => {
                Ok((ConsumerGroup::new(request.group_id, self.life_count), vec![Change::Classic(None)]))
            }
            Some(migrant) => ConsumerGroup::upgraded(migrant, self.life_count, context.topics),
        };
        let is_too_large =
            classic.as_ref().is_some_and(|migrant| migrant.members.len() > context.settings.member_count_max);
        let is_refused = classic
            .as_ref()
            .is_some_and(|migrant| !migrant.members.is_empty() && (!context.settings.can_upgrade || is_too_large));
        let (mut group, mut changes) = match made {
            Ok(made) if !is_refused => made,
            // As Kafka: there is no group of this protocol.
            _ => {
                tracing::info!(
                    group = request.group_id,
                    "the classic group does not become one of the consumer protocol"
                );
                let answer = Answer::Heartbeat(Err(GroupError::GroupIdNotFound));
                context.effects.push(Effect::Answer(ticket, answer));
                return Taken::No;
            }
        };
        group.begin(context.settings, context.now);
        let member_id = member_id_of(request, context.rng);
        let result = group.heartbeat(&member_id, request, context, &mut changes);
        if result.is_err() {
            context.effects.push(Effect::Answer(ticket, Answer::Heartbeat(result)));
            return Taken::No;
        }
        if classic.as_ref().is_some_and(|migrant| !migrant.members.is_empty()) {
            tracing::info!(group = request.group_id, epoch = group.epoch, "upgraded from classic to consumer");
        }
        if let Some(leftovers) = self.leftovers.remove(request.group_id) {
            // They are taken back with what is written now, which is the whole group.
            group.removed = leftovers;
            group.behind = Some(context.now.monotonic);
        }
        self.insert(group);
        self.finish(request.group_id, changes, Some((ticket, Answer::Heartbeat(result))), context);
        Taken::Over
    }

    // ---- members of the classic protocol

    /// True if requests of classic members for this group are answered here: it has members.
    pub fn has_members(&self, group_id: &str) -> bool {
        self.groups.get(group_id).is_some_and(|group| !group.members.is_empty() || group.is_dead)
    }

    /// A group without members is forgotten: a classic one is founded in its place.
    pub fn make_room<T>(&mut self, group_id: &str, context: &mut Context<'_, T>) {
        let Some(group) = self.groups.get(group_id) else { return };
        let mut changes = group.removed.clone();
        changes.extend(group.tombstones());
        let written =
            Written { group_id: group_id.into(), life: group.life, removed: changes.clone(), is_whole: false };
        self.remove(group_id);
        context.effects.push(Effect::Write(written, changes, None));
    }

    /// A classic member joins a group that has members.
    pub fn join<T>(&mut self, ticket: T, request: &JoinRequest, room: Room, context: &mut Context<'_, T>) {
        let refused = |error, member_id: &str| Answer::Join(Err(JoinRefused { error, member_id: member_id.into() }));
        let group_id = &*request.group_id;
        let is_new = request.member_id.is_empty();
        let member_id = if is_new { new_member_id(context.rng) } else { request.member_id.clone() };
        let size_bytes = self.groups.get(group_id).map_or(0, |group| group.size_bytes);
        let protocols: usize =
            request.protocols.iter().map(|offered| offered.name.len() + offered.metadata.len()).sum();
        let growth_bytes = MEMBER_SIZE_BYTES + 3 * protocols;
        if growth_bytes > room.size_bytes || size_bytes + growth_bytes > GROUP_SIZE_BYTES_MAX {
            let answer = refused(GroupError::GroupMaxSizeReached, &request.member_id);
            return context.effects.push(Effect::Answer(ticket, answer));
        }
        if request.protocols.len() > GROUP_PROTOCOL_COUNT_MAX {
            let answer = refused(GroupError::InconsistentGroupProtocol, &request.member_id);
            return context.effects.push(Effect::Answer(ticket, answer));
        }
        let answer = self.change(group_id, context, |group, context, changes| {
            group.check_writable()?;
            let is_dynamic = request.group_instance_id.is_none();
            if is_new && is_dynamic && request.requires_member_id && group.supports(request) {
                return Err(GroupError::MemberIdRequired);
            }
            group.join_classic(&member_id, request, context, changes)
        });
        let Some((result, changes)) = answer else {
            let answer = refused(GroupError::UnknownMemberId, &request.member_id);
            return context.effects.push(Effect::Answer(ticket, answer));
        };
        let result = result.map_err(|error| {
            let is_told = error == GroupError::MemberIdRequired || !is_new;
            JoinRefused { error, member_id: if is_told { member_id.clone() } else { "".into() } }
        });
        let group = &self.groups[group_id];
        let is_last = group.classic_count == group.members.len()
            && context.settings.can_downgrade
            && group.classic_count <= context.settings.classic_member_count_max;
        if result.is_ok() && is_last && changes.iter().any(is_removal) {
            // It has taken the place of the last member of the other protocol: all join a classic group.
            let error = GroupError::RebalanceInProgress;
            let answer = Answer::Join(Err(JoinRefused { error, member_id: request.member_id.clone() }));
            self.finish(group_id, changes, None, context);
            return self.downgrade(group_id, Some((ticket, answer)), context);
        }
        self.finish(group_id, changes, Some((ticket, Answer::Join(result))), context);
    }

    /// A classic member of a group that has members asks for its assignment.
    pub fn sync<T>(&mut self, ticket: T, request: &SyncRequest<'_>, context: &mut Context<'_, T>) {
        let answer = self.change(request.group_id, context, |group, context, _| {
            group.check_writable()?;
            group.sync_classic(request, context)
        });
        match answer {
            Some((result, changes)) => {
                self.finish(request.group_id, changes, Some((ticket, Answer::Sync(result))), context);
            }
            None => {
                let answer = Answer::Sync(Err(GroupError::UnknownMemberId));
                context.effects.push(Effect::Answer(ticket, answer));
            }
        }
    }

    /// A classic member of a group that has members is alive; the error is what it is to be told.
    pub fn heartbeat_classic<T>(
        &mut self,
        group_id: &str,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
        context: &mut Context<'_, T>,
    ) -> Result<(), GroupError> {
        let answer = self.change(group_id, context, |group, context, _| {
            group.heartbeat_classic(member_id, instance_id, generation, context)
        });
        answer.map_or(Err(GroupError::UnknownMemberId), |(result, _)| result)
    }

    /// Classic members of a group that has members leave. What became of each, in order, or why nothing could become
    /// of any.
    pub fn leave<T>(
        &mut self,
        group_id: &str,
        leaving: &[Leaving<'_>],
        context: &mut Context<'_, T>,
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        let left = self.change(group_id, context, |group, context, changes| {
            group.check_writable()?;
            Ok(group.leave_classic(leaving, context, changes))
        });
        let (result, changes) = left.ok_or(GroupError::UnknownMemberId)?;
        self.finish(group_id, changes, None, context);
        result
    }

    // ---- writes

    /// What became of a write that an [`Effect::Write`] has asked for. Its answer is the caller's to give.
    pub fn written(&mut self, written: Written, result: Result<(), GroupError>, now: Now) {
        let is_of = |group: &&mut ConsumerGroup| group.life == written.life;
        let Some(group) = self.groups.get_mut(&written.group_id).filter(is_of) else {
            if result.is_err() && !written.removed.is_empty() {
                self.leftovers.entry(written.group_id).or_default().extend(written.removed);
                self.leftovers_at = Some(now.monotonic + RETRY);
            }
            return;
        };
        group.unsettled_count -= 1;
        match result {
            Ok(()) if written.is_whole && group.removed.is_empty() => {
                group.behind = None;
                group.earliest = group.next_deadline();
            }
            Ok(()) => {}
            Err(error) => {
                tracing::warn!(group = %group.id, %error, "the group could not be written: later as a whole");
                group.removed.extend(written.removed);
                let at = now.monotonic + RETRY;
                group.behind = Some(at);
                group.due_by(at);
            }
        }
        self.arm(&written.group_id);
    }

    /// Writes what an event has changed and has it answered when that, and whatever came before it, is durable.
    fn finish<T>(
        &mut self,
        group_id: &str,
        mut changes: Vec<Change>,
        answer: Option<(T, Answer)>,
        context: &mut Context<'_, T>,
    ) {
        let group = self.groups.get_mut(group_id).expect("it has just changed");
        let is_whole = group.behind.is_some() && !changes.is_empty();
        if is_whole {
            // Timers go on while the log is behind, and a group may be founded on what could not be taken back.
            group.removed.extend(changes.into_iter().filter(is_removal));
            group.behind = Some(context.now.monotonic + RETRY);
            changes = group.whole();
        }
        if changes.is_empty() && group.unsettled_count == 0 {
            if let Some((ticket, answer)) = answer {
                context.effects.push(Effect::Answer(ticket, answer));
            }
            return;
        }
        if changes.is_empty() && answer.is_none() {
            return;
        }
        group.unsettled_count += 1;
        let removed = changes.iter().filter(|change| is_removal(change)).cloned().collect();
        let written = Written { group_id: group_id.into(), life: group.life, removed, is_whole };
        context.effects.push(Effect::Write(written, changes, answer));
    }

    /// The group goes on as a classic one: its classic members join again.
    fn downgrade<T>(&mut self, group_id: &str, answer: Option<(T, Answer)>, context: &mut Context<'_, T>) {
        let group = self.groups.get(group_id).expect("it has just been looked at");
        tracing::info!(group = group_id, epoch = group.epoch, "downgraded from consumer to classic");
        let mut changes = group.removed.clone();
        changes.extend(group.tombstones());
        let migrant = group.downgraded(context.topics);
        let written =
            Written { group_id: group_id.into(), life: group.life, removed: changes.clone(), is_whole: false };
        self.remove(group_id);
        context.effects.push(Effect::Downgrade(migrant, written, changes, answer));
    }

    // ---- time

    /// Does what is due by now.
    pub fn tick<T>(&mut self, context: &mut Context<'_, T>) {
        let now = context.now.monotonic;
        if self.leftovers_at.is_some_and(|at| at <= now) {
            self.leftovers_at = None;
            for (group_id, changes) in std::mem::take(&mut self.leftovers) {
                let written = Written { group_id, life: 0, removed: changes.clone(), is_whole: false };
                context.effects.push(Effect::Write(written, changes, None));
            }
        }
        while let Some((at, _)) = self.due.first()
            && *at <= now
        {
            let (_, group_id) = self.due.pop_first().expect("it was looked at");
            self.groups.get_mut(&group_id).expect("what is due is there").armed = None;
            self.tick_group(&group_id, context);
            if let Some(group) = self.groups.get_mut(&group_id) {
                group.earliest = group.next_deadline().map(|at| at.max(now + TICK_MIN));
                self.arm(&group_id);
            }
        }
    }

    fn tick_group<T>(&mut self, group_id: &str, context: &mut Context<'_, T>) {
        let now = context.now.monotonic;
        let group = self.groups.get_mut(group_id).expect("it is there");
        if let Some(at) = group.behind {
            if at > now {
                return;
            }
            group.behind = Some(now + RETRY);
            if group.unsettled_count > 0 {
                return;
            }
            group.unsettled_count += 1;
            let changes = group.whole();
            let removed = changes.iter().filter(|change| is_removal(change)).cloned().collect();
            let written = Written { group_id: group_id.into(), life: group.life, removed, is_whole: true };
            return context.effects.push(Effect::Write(written, changes, None));
        }
        let late = group.members.iter().filter(|(_, member)| member.next_deadline() <= now);
        let late: Vec<Box<str>> = late.map(|(member_id, _)| member_id.clone()).collect();
        for member_id in late {
            tracing::info!(group = group_id, member = %member_id, "is gone: a timeout has passed");
            let fenced =
                self.change(group_id, context, |group, context, changes| group.fence(&member_id, context, changes));
            match fenced.expect("it is there") {
                (Fate::Downgrades, _) => return self.downgrade(group_id, None, context),
                (Fate::GoesOn, changes) => self.finish(group_id, changes, None, context),
            }
        }
    }

    /// When [`tick`](Self::tick) is to be called at the latest.
    pub fn next_deadline(&self) -> Option<Monotonic> {
        self.due.first().map(|(at, _)| *at).into_iter().chain(self.leftovers_at).min()
    }

    // ---- starting and ending

    /// The group that was read. Served from [`begin`](Self::begin) on. False if it is none.
    pub fn restore(&mut self, group_id: &str, kept: Kept) -> bool {
        self.life_count += 1;
        match ConsumerGroup::restore(group_id, self.life_count, kept) {
            Some(group) => {
                self.insert(group);
                true
            }
            None => false,
        }
    }

    /// All records were read: sessions begin.
    pub fn begin(&mut self, settings: &Settings, now: Now) {
        let ids: Vec<Box<str>> = self.groups.keys().cloned().collect();
        for group_id in ids {
            self.groups.get_mut(&group_id).expect("it is there").begin(settings, now);
            self.arm(&group_id);
        }
    }

    /// A group is to be deleted: until [`end_delete`](Self::end_delete) it is dead. What takes its records back; fails
    /// if it has members, is not there or is being deleted.
    pub fn begin_delete(&mut self, group_id: &str) -> Result<Vec<Change>, GroupError> {
        let group = self.groups.get_mut(group_id).ok_or(GroupError::GroupIdNotFound)?;
        match group.state() {
            GroupState::Empty if group.behind.is_some() => Err(GroupError::CoordinatorNotAvailable),
            GroupState::Empty => {
                group.is_dead = true;
                Ok(group.tombstones())
            }
            GroupState::Dead => Err(GroupError::GroupIdNotFound),
            _ => Err(GroupError::NonEmptyGroup),
        }
    }

    /// The deletion is durable, or was refused and the group is there as before.
    pub fn end_delete(&mut self, group_id: &str, is_deleted: bool) {
        let Some(group) = self.groups.get_mut(group_id).filter(|group| group.is_dead) else { return };
        group.is_dead = false;
        if is_deleted {
            self.remove(group_id);
        }
    }

    // ---- what is asked

    /// A group, to be described.
    pub fn get(&self, group_id: &str) -> Option<&ConsumerGroup> {
        self.groups.get(group_id)
    }

    /// True if the group is known here, with members or without.
    pub fn has_group(&self, group_id: &str) -> bool {
        self.groups.contains_key(group_id)
    }

    /// All groups, by id.
    pub fn iter(&self) -> impl Iterator<Item = &ConsumerGroup> {
        self.groups.values()
    }

    /// How many groups there are.
    pub fn count(&self) -> usize {
        self.groups.len()
    }

    /// About what they take in memory.
    pub fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    /// Whether a member, or somebody who is none, may commit offsets: with an OffsetCommit of `version`, or in a
    /// transaction. `None` if there is no such group.
    pub fn check_commit(
        &self,
        group_id: &str,
        member_id: &str,
        instance_id: Option<&str>,
        epoch: i32,
        is_transactional: bool,
        version: i16,
    ) -> Option<Result<(), GroupError>> {
        Some(self.groups.get(group_id)?.check_commit(member_id, instance_id, epoch, is_transactional, version))
    }

    /// Whether a member, or somebody who is none, may ask for committed offsets; `None` if there is no such group.
    pub fn check_fetch(&self, group_id: &str, member_id: Option<&str>, epoch: i32) -> Option<Result<(), GroupError>> {
        Some(self.groups.get(group_id)?.check_fetch(member_id, epoch))
    }

    // ---- books

    fn insert(&mut self, group: ConsumerGroup) {
        let group_id = group.id.clone();
        self.size_bytes += group.size_bytes;
        self.groups.insert(group_id.clone(), group);
        self.arm(&group_id);
    }

    fn remove(&mut self, group_id: &str) {
        let Some(group) = self.groups.remove(group_id) else { return };
        self.size_bytes -= group.size_bytes;
        if let Some(at) = group.armed {
            self.due.remove(&(at, group.id));
        }
    }

    /// Lets an event happen to a group, and keeps the books: its size and its deadline.
    fn change<T, R>(
        &mut self,
        group_id: &str,
        context: &mut Context<'_, T>,
        event: impl FnOnce(&mut ConsumerGroup, &mut Context<'_, T>, &mut Vec<Change>) -> R,
    ) -> Option<(R, Vec<Change>)> {
        let group = self.groups.get_mut(group_id)?;
        let mut changes = Vec::new();
        let size_bytes = group.size_bytes;
        let result = event(group, context, &mut changes);
        self.size_bytes = self.size_bytes - size_bytes + group.size_bytes;
        self.arm(group_id);
        Some((result, changes))
    }

    fn arm(&mut self, group_id: &str) {
        let Some(group) = self.groups.get_mut(group_id) else { return };
        if let Some(at) = group.earliest
            && group.armed.is_none_or(|armed| at < armed)
        {
            if let Some(armed) = group.armed.replace(at) {
                self.due.remove(&(armed, group_id.into()));
            }
            self.due.insert((at, group_id.into()));
        }
    }

    /// About what a request may add: nothing if it only goes on.
    fn growth_bytes<T>(&self, request: &HeartbeatRequest<'_>, context: &Context<'_, T>) -> usize {
        if request.member_epoch < 0 || (request.topics.is_none() && request.regex.is_none()) {
            return 0;
        }
        let group = self.groups.get(request.group_id);
        let names = request.topics.iter().flatten();
        let texts: usize = names.clone().map(|name| 128 + 2 * name.len()).sum();
        // Topics that the group reads already it has.
        let is_new = |name: &&&str| group.is_none_or(|group| !group.subscribed.contains_key(**name));
        let found = names.filter(is_new).filter_map(|name| context.topics.find(name));
        let partitions: usize = found.map(|topic| 64 + PARTITION_SIZE_BYTES * topic.partition_count as usize).sum();
        let texts = texts + request.regex.map_or(0, str::len) + request.client_id.len() + request.member_id.len();
        MEMBER_SIZE_BYTES + 2 * texts + partitions
    }
}

impl ConsumerGroup {
    /// Fails while the group cannot be changed.
    fn check_writable(&self) -> Result<(), GroupError> {
        match self.is_dead || self.behind.is_some() {
            true => Err(GroupError::CoordinatorNotAvailable),
            false => Ok(()),
        }
    }
}

/// True if the change takes something back.
fn is_removal(change: &Change) -> bool {
    matches!(
        change,
        Change::Epoch(None)
            | Change::Topics(None)
            | Change::Member(_, None)
            | Change::TargetEpoch(None)
            | Change::Target(_, None)
            | Change::Current(_, None)
            | Change::Regex(_, None)
            | Change::Classic(None)
    )
}

/// A member's id as Kafka makes it: a random UUID.
/// The id of the member that has sent a heartbeat; one that has none yet gets one.
fn member_id_of<'a>(request: &HeartbeatRequest<'a>, rng: &mut Rng) -> Cow<'a, str> {
    match request.member_id {
        "" => new_member_id(rng).into_string().into(),
        member_id => member_id.into(),
    }
}

fn new_member_id(rng: &mut Rng) -> Box<str> {
    let mut bytes = [0; 16];
    rng.fill(&mut bytes);
    let id = uuid::Builder::from_random_bytes(bytes).into_uuid();
    let mut member_id = String::with_capacity(36);
    write!(member_id, "{id}").expect("a string takes it");
    member_id.into()
}

#[cfg(test)]
impl ConsumerGroups {
    /// Panics if a count or a deadline is not what it would be if it were counted anew.
    pub(super) fn check_books(&self) {
        let mut size_bytes = 0;
        for (group_id, group) in &self.groups {
            assert_eq!(group.id, *group_id);
            group.check_books();
            size_bytes += group.size_bytes;
            if let Some(next) = group.next_deadline() {
                assert!(group.armed.is_some_and(|armed| armed <= next.max(Monotonic(0) + TICK_MIN)), "{group_id}");
            }
            assert!(group.armed.is_none_or(|at| self.due.contains(&(at, group_id.clone()))));
        }
        assert_eq!(size_bytes, self.size_bytes);
        assert_eq!(self.due.len(), self.groups.values().filter(|group| group.armed.is_some()).count());
    }
}
