//! The world of the tests: one coordinator, its clock, its log, and what it has answered.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use crate::base::rng::Rng;
use crate::base::time::{Now, Timestamp};
use crate::coordinator::group::event::*;
use crate::coordinator::group::groups::Room;
use crate::coordinator::group::snapshot::GroupSnapshot;
use crate::coordinator::group::{Groups, event};

pub const GROUP: &str = "group";
pub const SESSION_MS: i32 = 10_000;
pub const REBALANCE_MS: i32 = 60_000;

pub type JoinResult = Result<Joined, JoinRefused>;
pub type SyncResult = Result<Synced, GroupError>;

pub struct World {
    pub groups: Groups<u32>,
    pub now: Now,
    pub rng: Rng,
    pub settings: Settings,
    pub room: Room,
    /// What was asked to be written and not told to be durable.
    pub unwritten: Vec<(Written, GroupSnapshot)>,
    /// Writes are durable at once, or fail, or wait for [`World::write`].
    pub writes: Option<Result<(), GroupError>>,
    /// What is durable.
    pub kept: BTreeMap<Box<str>, GroupSnapshot>,
    pub joins: BTreeMap<u32, JoinResult>,
    pub syncs: BTreeMap<u32, SyncResult>,
    pub ticket_count: u32,
    /// Count everything anew after each event; too slow with many groups.
    pub is_checked: bool,
}

impl World {
    pub fn new() -> World {
        World {
            groups: Groups::default(),
            now: Now { monotonic: Default::default(), wall: Timestamp(1_000_000) },
            rng: Rng::new(7),
            settings: Settings {
                session_timeout_ms_min: 6_000,
                session_timeout_ms_max: 1_800_000,
                initial_rebalance_delay: Duration::from_secs(3),
                member_count_max: 1_000_000,
            },
            room: Room { group_count: 1000, size_bytes: 1 << 30 },
            unwritten: Vec::new(),
            writes: Some(Ok(())),
            kept: BTreeMap::new(),
            joins: BTreeMap::new(),
            syncs: BTreeMap::new(),
            ticket_count: 0,
            is_checked: true,
        }
    }

    /// Lets something happen and takes its effects.
    pub fn event<R>(&mut self, event: impl FnOnce(&mut Groups<u32>, &mut Context<'_, u32>) -> R) -> R {
        let mut effects = Vec::new();
        let mut context =
            Context { now: self.now, settings: &self.settings, rng: &mut self.rng, effects: &mut effects };
        let result = event(&mut self.groups, &mut context);
        for effect in effects {
            match effect {
                Effect::Join(ticket, answer) => assert!(self.joins.insert(ticket, answer).is_none(), "answered twice"),
                Effect::Sync(ticket, answer) => assert!(self.syncs.insert(ticket, answer).is_none(), "answered twice"),
                Effect::Persist(written, snapshot) => {
                    self.unwritten.push((written, snapshot));
                    if let Some(result) = self.writes {
                        self.write(result);
                    }
                }
            }
        }
        if self.is_checked {
            self.groups.check_books();
        }
        result
    }

    /// The oldest write comes out.
    pub fn write(&mut self, result: Result<(), GroupError>) {
        let (written, snapshot) = self.unwritten.remove(0);
        if result.is_ok() {
            self.kept.insert(written.group_id.clone(), snapshot);
        }
        self.event(|groups, context| groups.persisted(&written, result, context));
    }

    /// Time goes on, with everything that is due on the way.
    pub fn pass(&mut self, duration: Duration) {
        let end = self.now.monotonic + duration;
        loop {
            let next = self.groups.next_deadline().filter(|at| *at <= end).unwrap_or(end).max(self.now.monotonic);
            self.now.wall.0 += (next - self.now.monotonic).as_millis() as i64;
            self.now.monotonic = next;
            self.event(|groups, context| groups.tick(context));
            if next == end && self.groups.next_deadline().is_none_or(|at| at > end) {
                return;
            }
        }
    }

    pub fn pass_ms(&mut self, ms: u64) {
        self.pass(Duration::from_millis(ms));
    }

    pub fn join(&mut self, request: JoinRequest) -> u32 {
        self.ticket_count += 1;
        let (ticket, room) = (self.ticket_count, self.room);
        self.event(|groups, context| groups.join(ticket, request, room, context));
        ticket
    }

    /// Joins and is answered at once.
    pub fn joined(&mut self, request: JoinRequest) -> JoinResult {
        let ticket = self.join(request);
        self.joins.remove(&ticket).expect("answered at once")
    }

    pub fn take_join(&mut self, ticket: u32) -> JoinResult {
        self.joins.remove(&ticket).expect("answered")
    }

    /// Gets an id as clients since JoinGroup 4 do.
    pub fn new_id(&mut self, request: JoinRequest) -> Box<str> {
        let refused = self.joined(JoinRequest { requires_member_id: true, ..request }).expect_err("an id comes first");
        assert_eq!(refused.error, GroupError::MemberIdRequired);
        refused.member_id
    }

    pub fn sync(&mut self, member_id: &str, generation: i32, assignments: &[(&str, &'static str)]) -> u32 {
        self.ticket_count += 1;
        let ticket = self.ticket_count;
        let request = SyncRequest { assignments: of(assignments), ..sync_request(member_id, generation) };
        self.event(|groups, context| groups.sync(ticket, request, context));
        ticket
    }

    pub fn sync_with(&mut self, request: SyncRequest<'_>) -> SyncResult {
        self.event(|groups, context| groups.sync(0, request, context));
        self.syncs.remove(&0).expect("answered at once")
    }

    pub fn take_sync(&mut self, ticket: u32) -> SyncResult {
        self.syncs.remove(&ticket).expect("answered")
    }

    pub fn heartbeat(&mut self, member_id: &str, generation: i32) -> Result<(), GroupError> {
        let now = self.now.monotonic;
        let result = self.groups.heartbeat(GROUP, member_id, None, generation, now);
        self.groups.check_books();
        result
    }

    pub fn leave(&mut self, leaving: &[Leaving<'_>]) -> Vec<Result<(), GroupError>> {
        self.event(|groups, context| groups.leave(GROUP, leaving, context)).expect("the group can be left")
    }

    pub fn leave_one(&mut self, member_id: &str) {
        let leaving = Leaving { member_id, group_instance_id: None };
        assert_eq!(self.leave(&[leaving]), [Ok(())]);
    }

    pub fn state(&self) -> GroupState {
        self.groups.state_of(GROUP).expect("the group is there")
    }

    pub fn generation(&self) -> i32 {
        self.groups.get(GROUP).expect("the group is there").generation
    }

    /// A group of so many dynamic members, stable in its first generation; the first one leads. Member ids.
    pub fn stable(&mut self, count: usize) -> Vec<Box<str>> {
        let requests = (0..count).map(|_| dynamic("")).collect();
        self.stable_of(requests)
    }

    /// The same of members with these requests, in their order.
    pub fn stable_of(&mut self, requests: Vec<JoinRequest>) -> Vec<Box<str>> {
        let tickets: Vec<u32> = requests.into_iter().map(|request| self.join(request)).collect();
        self.pass_ms(6_000);
        let joined: Vec<Joined> = tickets.into_iter().map(|ticket| self.take_join(ticket).unwrap()).collect();
        let members: Vec<Box<str>> = joined.iter().map(|joined| joined.member_id.clone()).collect();
        let assignments: Vec<(&str, &str)> = members.iter().map(|member_id| (&**member_id, "work")).collect();
        let generation = joined[0].generation;
        let syncs: Vec<u32> = members
            .iter()
            .map(|member_id| {
                let is_leader = *joined[0].leader == **member_id;
                self.sync(member_id, generation, if is_leader { &assignments } else { &[] })
            })
            .collect();
        for ticket in syncs {
            assert_eq!(self.take_sync(ticket).unwrap().assignment, "work");
        }
        assert_eq!(self.state(), GroupState::Stable);
        members
    }

    /// The broker starts again: what is durable is all there is.
    pub fn restart(&mut self) {
        self.groups = Groups::default();
        self.unwritten.clear();
        for (group_id, snapshot) in self.kept.clone() {
            self.groups.restore(&group_id, Some(snapshot));
        }
        self.event(|groups, context| groups.begin(context));
    }
}

/// A request of a dynamic member of an old client, which is not asked to come again with an id.
pub fn dynamic(member_id: &str) -> JoinRequest {
    JoinRequest {
        group_id: GROUP.into(),
        member_id: member_id.into(),
        group_instance_id: None,
        client_id: "client".into(),
        client_host: "/127.0.0.1".into(),
        session_timeout_ms: SESSION_MS,
        rebalance_timeout_ms: REBALANCE_MS,
        protocol_type: "consumer".into(),
        protocols: protocols(&["range", "roundrobin"]),
        requires_member_id: false,
        can_skip_assignment: false,
    }
}

pub fn fixed(instance_id: &str, member_id: &str) -> JoinRequest {
    JoinRequest { group_instance_id: Some(instance_id.into()), ..dynamic(member_id) }
}

pub fn protocols(names: &[&'static str]) -> Vec<event::Protocol> {
    let protocol = |name: &&'static str| event::Protocol { name: (*name).into(), metadata: (*name).into() };
    names.iter().map(protocol).collect()
}

pub fn sync_request(member_id: &str, generation: i32) -> SyncRequest<'_> {
    SyncRequest {
        group_id: GROUP,
        member_id,
        group_instance_id: None,
        generation,
        protocol_type: None,
        protocol: None,
        assignments: Vec::new(),
    }
}

fn of<'a>(assignments: &[(&'a str, &'static str)]) -> Vec<(&'a str, Bytes)> {
    assignments.iter().map(|(member_id, bytes)| (*member_id, Bytes::from_static(bytes.as_bytes()))).collect()
}
