//! One group: what it is, the books that events share, its subscriptions and its targets.
//!
//! Counts by topic, pattern, assignor and protocol are kept, so that no event but a new target walks all members.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::assignor::{Assignor, Candidate, PartitionCounts};
use super::change::{Change, Resolved, Subscribed};
use super::event::{Context, Settings};
use super::kept::Kept;
use super::member::{Current, Member, MemberState, Profile};
use super::{Assignment, pattern, size_bytes_of};
use crate::base::mutant;
use crate::base::time::{Monotonic, Now};
use crate::coordinator::group::event::GroupError;
use crate::model::id::TopicId;

/// What a group takes in memory beside its members, topics and texts.
const GROUP_SIZE_BYTES: usize = 1024;
/// What a topic that it reads takes beside its name.
const TOPIC_SIZE_BYTES: usize = 96;
/// The least pause between two looks of a group at what its patterns match, and what each topic adds to it: matching
/// a name takes about half a microsecond, so this is at most some permille of a core for each group.
const PATTERN_PAUSE: Duration = Duration::from_secs(1);
const PATTERN_PAUSE_PER_TOPIC: Duration = Duration::from_micros(100);

/// Where a group is, in Kafka's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupState {
    /// Nobody is a member.
    Empty,
    /// Targets are to be made at the next heartbeat.
    Assigning,
    /// Members are on the way to their targets.
    Reconciling,
    /// Every member has its target.
    Stable,
    /// It is being deleted.
    Dead,
}

impl GroupState {
    /// Kafka's name for it: `Reconciling`.
    pub const fn name(self) -> &'static str {
        match self {
            GroupState::Empty => "Empty",
            GroupState::Assigning => "Assigning",
            GroupState::Reconciling => "Reconciling",
            GroupState::Stable => "Stable",
            GroupState::Dead => "Dead",
        }
    }
}

/// A group of the consumer protocol.
#[derive(Debug)]
pub struct ConsumerGroup {
    /// Its id.
    pub id: Box<str>,
    /// A number that no other group of this coordinator has or had.
    pub(super) life: u64,
    /// Raised by every change of members and topics.
    pub epoch: i32,
    /// The group epoch that the targets were made for.
    pub target_epoch: i32,
    /// By id.
    pub(super) members: BTreeMap<Box<str>, Member>,
    /// Ids of static members by instance id.
    pub(super) statics: BTreeMap<Box<str>, Box<str>>,
    /// What members are to have, by id.
    pub(super) targets: BTreeMap<Box<str>, Arc<Assignment>>,
    /// How many members have, or are still to give up, each partition: by topic, then partition.
    holders: BTreeMap<TopicId, BTreeMap<i32, u32>>,
    /// The topics that are read and that there are.
    pub(super) subscribed: Subscribed,
    /// What patterns match.
    pub(super) regexes: BTreeMap<Box<str>, Resolved>,
    /// How many members read a topic by name, use a pattern, want an assignor, support a classic protocol.
    name_counts: BTreeMap<Box<str>, usize>,
    regex_counts: BTreeMap<Box<str>, usize>,
    assignor_counts: BTreeMap<Box<str>, usize>,
    pub(super) protocol_counts: BTreeMap<Box<str>, usize>,
    /// Members of the classic protocol.
    pub(super) classic_count: usize,
    /// Metadata that `subscribed`, and that the patterns, were made of.
    topics_version: Option<u64>,
    patterns_looked_at: Option<(u64, Monotonic)>,
    /// It is being deleted.
    pub(super) is_dead: bool,
    /// Writes that have not come out.
    pub(super) unsettled_count: usize,
    /// Set while the log is behind, for a write was refused: when the whole group is to be written.
    pub(super) behind: Option<Monotonic>,
    /// What is then to be taken back, beside what there is.
    pub(super) removed: Vec<Change>,
    /// Nothing is due before; what the events have set since it was last armed counts.
    pub(super) earliest: Option<Monotonic>,
    /// About what it takes in memory.
    pub(super) size_bytes: usize,
    /// For when the collection looks at it again.
    pub(super) armed: Option<Monotonic>,
}

impl ConsumerGroup {
    pub(super) fn new(id: &str, life: u64) -> ConsumerGroup {
        ConsumerGroup {
            id: id.into(),
            life,
            epoch: 0,
            target_epoch: 0,
            members: BTreeMap::new(),
            statics: BTreeMap::new(),
            targets: BTreeMap::new(),
            holders: BTreeMap::new(),
            subscribed: Subscribed::new(),
            regexes: BTreeMap::new(),
            name_counts: BTreeMap::new(),
            regex_counts: BTreeMap::new(),
            assignor_counts: BTreeMap::new(),
            protocol_counts: BTreeMap::new(),
            classic_count: 0,
            topics_version: None,
            patterns_looked_at: None,
            is_dead: false,
            unsettled_count: 0,
            behind: None,
            removed: Vec::new(),
            earliest: None,
            size_bytes: GROUP_SIZE_BYTES + 2 * id.len(),
            armed: None,
        }
    }

    /// The group that was kept; sessions begin with [`begin`](Self::begin).
    pub(super) fn restore(id: &str, life: u64, kept: Kept) -> Option<ConsumerGroup> {
        let mut group = ConsumerGroup::new(id, life);
        group.epoch = kept.epoch?;
        group.target_epoch = kept.target_epoch;
        let (mut targets, mut currents) = (kept.targets, kept.currents);
        for (member_id, profile) in kept.profiles {
            let current = currents.remove(&member_id).unwrap_or_default();
            if let Some(target) = targets.remove(&member_id) {
                group.set_target(&member_id, target);
            }
            let current = if mutant::is_on("forget_member_epochs") { Current::default() } else { current };
            group.put(&member_id, Member::new(profile, current));
        }
        group.set_subscribed(kept.topics);
        for (regex, resolved) in kept.regexes {
            if group.regex_counts.contains_key(&regex) {
                group.set_regex(regex, resolved);
            }
        }
        Some(group)
    }

    /// A restored group is served from now on: nobody was silent yet.
    pub(super) fn begin(&mut self, settings: &Settings, now: Now) {
        let session_timeout = settings.timeouts(&self.id).session;
        for member in self.members.values_mut() {
            member.session_deadline = now.monotonic + session_of(&member.profile, session_timeout);
            let is_revoking = member.current.state == MemberState::UnrevokedPartitions && !member.is_classic();
            member.rebalance_deadline = is_revoking.then(|| now.monotonic + member.rebalance_timeout());
        }
        self.earliest = self.next_deadline();
    }

    /// Where it is.
    pub fn state(&self) -> GroupState {
        if self.is_dead {
            GroupState::Dead
        } else if self.members.is_empty() {
            GroupState::Empty
        } else if self.epoch > self.target_epoch {
            GroupState::Assigning
        } else if self.members.values().all(|member| member.current.is_reconciled_to(self.target_epoch)) {
            GroupState::Stable
        } else {
            GroupState::Reconciling
        }
    }

    /// The members, by id.
    pub fn members(&self) -> impl ExactSizeIterator<Item = (&str, &Member)> {
        self.members.iter().map(|(member_id, member)| (&**member_id, member))
    }

    /// What a member is to have.
    pub fn target(&self, member_id: &str) -> Arc<Assignment> {
        self.targets.get(member_id).cloned().unwrap_or_default()
    }

    /// True if a member reads the topic.
    pub fn reads_topic(&self, name: &str) -> bool {
        self.subscribed.contains_key(name)
            || self.name_counts.contains_key(name)
            || self.regexes.values().any(|resolved| resolved.topics.iter().any(|topic| **topic == *name))
    }

    /// The assignor that most members want, of equals the first by name; the default one if nobody wants one.
    pub fn assignor(&self, default: Assignor) -> Assignor {
        let most = self.assignor_counts.values().max();
        let wanted = most.and_then(|most| self.assignor_counts.iter().find(|(_, count)| *count == most));
        wanted.and_then(|(name, _)| Assignor::find(name)).unwrap_or(default)
    }

    /// The group's memory of a partition: nobody has it.
    pub(super) fn is_free(&self, topic: TopicId, partition: i32) -> bool {
        let is_held = self.holders.get(&topic).is_some_and(|held| held.contains_key(&partition));
        !is_held || mutant::is_on("give_what_is_taken")
    }

    // ---- books

    /// Puts a member in, or in the place of what it was.
    pub(super) fn put(&mut self, member_id: &str, member: Member) {
        drop(self.take(member_id));
        if let Some(instance_id) = &member.profile.instance_id {
            self.statics.insert(instance_id.clone(), member_id.into());
        }
        self.count(&member, true);
        self.size_bytes += member.size_bytes() + 2 * member_id.len();
        self.members.insert(member_id.into(), member);
    }

    /// Takes a member out. Its target stays.
    pub(super) fn take(&mut self, member_id: &str) -> Option<Member> {
        let member = self.members.remove(member_id)?;
        if let Some(instance_id) = &member.profile.instance_id
            && self.statics.get(instance_id).is_some_and(|owner| **owner == *member_id)
        {
            self.statics.remove(instance_id);
        }
        self.count(&member, false);
        self.size_bytes -= member.size_bytes() + 2 * member_id.len();
        Some(member)
    }

    fn count(&mut self, member: &Member, is_added: bool) {
        let profile = &member.profile;
        profile.topics.iter().for_each(|topic| count_one(&mut self.name_counts, topic, is_added));
        profile.regex.iter().for_each(|regex| count_one(&mut self.regex_counts, regex, is_added));
        profile.assignor.iter().for_each(|assignor| count_one(&mut self.assignor_counts, assignor, is_added));
        if let Some(classic) = &profile.classic {
            classic.protocols.iter().for_each(|known| count_one(&mut self.protocol_counts, &known.name, is_added));
            self.classic_count = if is_added { self.classic_count + 1 } else { self.classic_count - 1 };
        }
        for held in [&member.current.assigned, &member.current.revoking] {
            self.hold(held, is_added);
        }
    }

    fn hold(&mut self, held: &Assignment, is_added: bool) {
        for (topic, partitions) in held {
            let held = self.holders.entry(*topic).or_default();
            for partition in partitions {
                match held.get_mut(partition) {
                    None if is_added => drop(held.insert(*partition, 1)),
                    None => {}
                    Some(count) if is_added => *count += 1,
                    Some(1) => drop(held.remove(partition)),
                    Some(count) => *count -= 1,
                }
            }
            if held.is_empty() {
                self.holders.remove(topic);
            }
        }
    }

    pub(super) fn set_target(&mut self, member_id: &str, target: Arc<Assignment>) {
        self.size_bytes += size_bytes_of(&target);
        let old = self.targets.insert(member_id.into(), target);
        self.size_bytes -= old.map_or(0, |old| size_bytes_of(&old));
    }

    pub(super) fn take_target(&mut self, member_id: &str) -> Option<Arc<Assignment>> {
        let target = self.targets.remove(member_id)?;
        self.size_bytes -= size_bytes_of(&target);
        Some(target)
    }

    fn set_subscribed(&mut self, subscribed: Subscribed) {
        self.size_bytes += size_bytes_of_topics(subscribed.keys());
        self.size_bytes -= size_bytes_of_topics(self.subscribed.keys());
        self.subscribed = subscribed;
    }

    fn set_regex(&mut self, regex: Box<str>, resolved: Resolved) {
        self.take_regex(&regex);
        self.size_bytes += regex.len() + size_bytes_of_topics(&resolved.topics);
        self.regexes.insert(regex, resolved);
    }

    fn take_regex(&mut self, regex: &str) {
        if let Some(resolved) = self.regexes.remove(regex) {
            self.size_bytes -= regex.len() + size_bytes_of_topics(&resolved.topics);
        }
    }

    // ---- steps that events share

    /// Something is due at `at`.
    pub(super) fn due_by(&mut self, at: Monotonic) {
        self.earliest = Some(self.earliest.map_or(at, |known| known.min(at)));
    }

    /// The member was heard of.
    pub(super) fn renew(&mut self, member_id: &str, settings: &Settings, now: Now) {
        let session_timeout = settings.timeouts(&self.id).session;
        let Some(member) = self.members.get_mut(member_id) else { return };
        member.session_deadline = now.monotonic + session_of(&member.profile, session_timeout);
        let deadline = member.session_deadline;
        self.due_by(deadline);
    }

    /// Takes a member out for good, and what was written of it.
    pub(super) fn remove(&mut self, member_id: &str, changes: &mut Vec<Change>) -> Option<Member> {
        let member = self.take(member_id)?;
        self.take_target(member_id);
        // In Kafka's order: its loader wants the member to be the last to go.
        changes.push(Change::Current(member_id.into(), None));
        changes.push(Change::Target(member_id.into(), None));
        changes.push(Change::Member(member_id.into(), None));
        Some(member)
    }

    /// Looks at the topics again if they have changed or `is_forced` says that subscriptions have. True if what the
    /// group reads is not what it was.
    pub(super) fn refresh<T>(&mut self, is_forced: bool, context: &Context<'_, T>, changes: &mut Vec<Change>) -> bool {
        let version = context.topics.version();
        self.refresh_patterns(is_forced, context, changes);
        if !is_forced && self.topics_version == Some(version) && !changes.iter().any(is_of_pattern) {
            return false;
        }
        self.topics_version = Some(version);
        let mut subscribed = Subscribed::new();
        let matched = self.regexes.values().flat_map(|resolved| &resolved.topics);
        for name in self.name_counts.keys().chain(matched) {
            if let Some(topic) = context.topics.find(name) {
                subscribed.insert(name.clone(), topic);
            }
        }
        if subscribed == self.subscribed {
            return false;
        }
        changes.push(Change::Topics(Some(subscribed.clone())));
        self.set_subscribed(subscribed);
        true
    }

    fn refresh_patterns<T>(&mut self, is_forced: bool, context: &Context<'_, T>, changes: &mut Vec<Change>) {
        if is_forced {
            let unused: Vec<Box<str>> =
                self.regexes.keys().filter(|regex| !self.regex_counts.contains_key(*regex)).cloned().collect();
            for regex in unused {
                self.take_regex(&regex);
                changes.push(Change::Regex(regex, None));
            }
            let new: Vec<Box<str>> =
                self.regex_counts.keys().filter(|regex| !self.regexes.contains_key(*regex)).cloned().collect();
            new.into_iter().for_each(|regex| self.resolve(regex, context, changes));
        }
        let version = context.topics.version();
        let now = context.now.monotonic;
        let pause = PATTERN_PAUSE + PATTERN_PAUSE_PER_TOPIC * u32::try_from(context.topics.count()).unwrap_or(u32::MAX);
        let is_due = match self.patterns_looked_at {
            Some((looked_at, at)) => looked_at != version && now.since(at) >= pause,
            None => true,
        };
        if !self.regexes.is_empty() && is_due {
            self.patterns_looked_at = Some((version, now));
            let known: Vec<Box<str>> = self.regexes.keys().cloned().collect();
            known.into_iter().for_each(|regex| self.resolve(regex, context, changes));
        }
    }

    fn resolve<T>(&mut self, regex: Box<str>, context: &Context<'_, T>, changes: &mut Vec<Change>) {
        // What was taken is a pattern; one that a Kafka broker took and that is none here matches nothing.
        let resolved = pattern::resolve(&regex, context.topics, context.now.wall).unwrap_or_default();
        if self.regexes.get(&regex).is_none_or(|known| known.topics != resolved.topics) {
            changes.push(Change::Regex(regex.clone(), Some(resolved.clone())));
            self.set_regex(regex, resolved);
        }
    }

    /// Raises the group epoch.
    pub(super) fn bump(&mut self, changes: &mut Vec<Change>) {
        self.epoch += 1;
        changes.push(Change::Epoch(Some(self.epoch)));
    }

    /// Makes targets for the group epoch, if those that there are are older.
    pub(super) fn retarget<T>(&mut self, context: &Context<'_, T>, changes: &mut Vec<Change>) {
        if self.epoch <= self.target_epoch {
            return;
        }
        let assignor = self.assignor(context.settings.assignors.first().copied().unwrap_or(Assignor::Uniform));
        let counts: PartitionCounts = self.subscribed.values().map(|topic| (topic.id, topic.partition_count)).collect();
        let is_homogeneous = self.is_homogeneous();
        let mut common: Option<Rc<[TopicId]>> = None;
        let mut candidates = Vec::with_capacity(self.members.len());
        for (member_id, member) in &self.members {
            let topics = match &common {
                Some(topics) if is_homogeneous => topics.clone(),
                _ => self.topics_of(&member.profile),
            };
            common = Some(topics.clone());
            let target = self.target(member_id);
            let instance_id = member.profile.instance_id.as_deref();
            candidates.push(Candidate { member_id, instance_id, topics, target });
        }
        let targets = assignor.assign(&candidates, &counts, is_homogeneous);
        let changed: Vec<(Box<str>, Arc<Assignment>)> = candidates
            .into_iter()
            .zip(targets)
            .filter(|(candidate, target)| {
                *candidate.target != *target || !self.targets.contains_key(candidate.member_id)
            })
            .map(|(candidate, target)| (candidate.member_id.into(), Arc::new(target)))
            .collect();
        for (member_id, target) in changed {
            self.set_target(&member_id, target.clone());
            changes.push(Change::Target(member_id, Some(target)));
        }
        self.target_epoch = self.epoch;
        changes.push(Change::TargetEpoch(Some(self.epoch)));
        tracing::info!(group = %self.id, epoch = self.epoch, assignor = assignor.name(), "assigned");
    }

    /// True if it is certain that all members read the same topics.
    fn is_homogeneous(&self) -> bool {
        let count = self.members.len();
        match self.regex_counts.len() {
            0 => self.name_counts.values().all(|known| *known == count),
            1 => self.name_counts.is_empty() && self.regex_counts.values().all(|known| *known == count),
            _ => false,
        }
    }

    fn topics_of(&self, profile: &Profile) -> Rc<[TopicId]> {
        let matched = profile.regex.as_ref().and_then(|regex| self.regexes.get(regex));
        let names = profile.topics.iter().chain(matched.into_iter().flat_map(|resolved| &resolved.topics));
        let mut topics: Vec<TopicId> = names.filter_map(|name| Some(self.subscribed.get(name)?.id)).collect();
        topics.sort_unstable();
        topics.dedup();
        topics.into()
    }

    /// Everything that is to be written so that the log says what is so: what is gone first, then what there is.
    pub(super) fn whole(&mut self) -> Vec<Change> {
        let mut changes = std::mem::take(&mut self.removed);
        changes.retain(|change| match change {
            Change::Current(member_id, _) | Change::Target(member_id, _) | Change::Member(member_id, _) => {
                !self.members.contains_key(member_id)
            }
            Change::Regex(regex, _) => !self.regexes.contains_key(regex),
            _ => true,
        });
        let members = &self.members;
        changes.extend(members.iter().map(|(id, member)| Change::Member(id.clone(), Some(member.profile.clone()))));
        changes.push(Change::Topics(Some(self.subscribed.clone())));
        changes.push(Change::Epoch(Some(self.epoch)));
        let regexes = self.regexes.iter();
        changes.extend(regexes.map(|(regex, resolved)| Change::Regex(regex.clone(), Some(resolved.clone()))));
        let targets = self.targets.iter();
        changes.extend(targets.map(|(id, target)| Change::Target(id.clone(), Some(target.clone()))));
        changes.push(Change::TargetEpoch(Some(self.target_epoch)));
        changes.extend(members.iter().map(|(id, member)| Change::Current(id.clone(), Some(member.current.clone()))));
        changes
    }

    /// Everything that takes back what was written of it, in Kafka's order.
    pub(super) fn tombstones(&self) -> Vec<Change> {
        let ids = || self.members.keys().cloned();
        let mut changes: Vec<Change> = ids().map(|id| Change::Current(id, None)).collect();
        changes.extend(ids().map(|id| Change::Target(id, None)));
        changes.push(Change::TargetEpoch(None));
        changes.extend(ids().map(|id| Change::Member(id, None)));
        changes.extend(self.regexes.keys().map(|regex| Change::Regex(regex.clone(), None)));
        changes.push(Change::Topics(None));
        changes.push(Change::Epoch(None));
        changes
    }

    /// When something is due next, from scratch.
    pub(super) fn next_deadline(&self) -> Option<Monotonic> {
        // While the log is behind nobody is fenced.
        self.behind.or_else(|| self.members.values().map(Member::next_deadline).min())
    }

    /// The member of this id, if the instance id is its own.
    pub(super) fn check_member(&self, member_id: &str, instance_id: Option<&str>) -> Result<&Member, GroupError> {
        if let Some(instance_id) = instance_id {
            match self.statics.get(instance_id) {
                None => return Err(GroupError::UnknownMemberId),
                Some(owner) if **owner != *member_id => return Err(GroupError::FencedInstanceId),
                Some(_) => {}
            }
        }
        self.members.get(member_id).ok_or(GroupError::UnknownMemberId)
    }

    /// Whether a member, or somebody who is none, may commit offsets: with OffsetCommit of `version`, or in a transaction,
    /// whose producer need not claim anything.
    pub(super) fn check_commit(
        &self,
        member_id: &str,
        instance_id: Option<&str>,
        epoch: i32,
        is_transactional: bool,
        version: i16,
    ) -> Result<(), GroupError> {
        /// From this version on members of this protocol may commit.
        const EPOCH_FROM: i16 = 9;
        if self.is_dead {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        let claims_nothing = epoch < 0 && member_id.is_empty() && instance_id.is_none();
        if (epoch < 0 && self.members.is_empty()) || (is_transactional && claims_nothing) {
            return Ok(());
        }
        let member = match self.members.get(member_id) {
            Some(member) if member.is_classic() => self.check_member(member_id, instance_id)?,
            Some(_) if version < EPOCH_FROM && !is_transactional => return Err(GroupError::UnsupportedVersion),
            Some(member) => member,
            None => return Err(GroupError::UnknownMemberId),
        };
        check_epoch(member, epoch)
    }

    /// Whether a member, or somebody who claims to be none, may ask for committed offsets.
    pub(super) fn check_fetch(&self, member_id: Option<&str>, epoch: i32) -> Result<(), GroupError> {
        match member_id {
            None if epoch < 0 => Ok(()),
            None => Err(GroupError::UnknownMemberId),
            Some(member_id) => check_epoch(self.members.get(member_id).ok_or(GroupError::UnknownMemberId)?, epoch),
        }
    }
}

/// How long a member may be silent.
pub(super) fn session_of(profile: &Profile, session_timeout: Duration) -> Duration {
    /// No session is shorter.
    const SESSION_TIMEOUT_MIN: Duration = Duration::from_millis(100);
    let timeout = match &profile.classic {
        Some(classic) => Duration::from_millis(u64::try_from(classic.session_timeout_ms).unwrap_or(0)),
        None => session_timeout,
    };
    timeout.max(SESSION_TIMEOUT_MIN)
}

fn check_epoch(member: &Member, epoch: i32) -> Result<(), GroupError> {
    match member.current.epoch == epoch {
        true => Ok(()),
        false if member.is_classic() => Err(GroupError::IllegalGeneration),
        false => Err(GroupError::StaleMemberEpoch),
    }
}

fn is_of_pattern(change: &Change) -> bool {
    matches!(change, Change::Regex(..))
}

fn count_one(counts: &mut BTreeMap<Box<str>, usize>, key: &str, is_added: bool) {
    match counts.get_mut(key) {
        Some(count) if is_added => *count += 1,
        Some(count) if *count > 1 => *count -= 1,
        Some(_) => _ = counts.remove(key),
        None => _ = counts.insert(key.into(), 1),
    }
}

fn size_bytes_of_topics<'a>(names: impl IntoIterator<Item = &'a Box<str>>) -> usize {
    names.into_iter().map(|name| TOPIC_SIZE_BYTES + name.len()).sum()
}

#[cfg(test)]
impl ConsumerGroup {
    /// Panics if something that is kept is not what it would be if it were worked out anew.
    pub(super) fn check_books(&self) {
        let mut again = ConsumerGroup::new(&self.id, self.life);
        for (member_id, member) in &self.members {
            again.put(member_id, member.clone());
        }
        for (member_id, target) in &self.targets {
            assert!(self.members.contains_key(member_id), "a target of nobody");
            again.set_target(member_id, target.clone());
        }
        again.set_subscribed(self.subscribed.clone());
        for (regex, resolved) in &self.regexes {
            again.set_regex(regex.clone(), resolved.clone());
        }
        assert_eq!((&self.statics, &self.holders), (&again.statics, &again.holders));
        assert_eq!((&self.name_counts, &self.regex_counts), (&again.name_counts, &again.regex_counts));
        assert_eq!((&self.assignor_counts, &self.protocol_counts), (&again.assignor_counts, &again.protocol_counts));
        assert_eq!((self.classic_count, self.size_bytes), (again.classic_count, again.size_bytes));
        assert!(self.regexes.keys().all(|regex| self.regex_counts.contains_key(regex)));
    }

    /// Panics if two members have one partition.
    pub(super) fn check_exclusive(&self) {
        for (topic, counts) in &self.holders {
            assert!(counts.values().all(|count| *count <= 1), "{topic} {counts:?}");
        }
    }
}
