//! A coordinator without a broker: topics, a clock, writes that come out when the test says so.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::base::rng::Rng;
use crate::base::time::{Monotonic, Now, Timestamp};
use crate::coordinator::consumer_group::assignor::Assignor;
use crate::coordinator::consumer_group::change::Change;
use crate::coordinator::consumer_group::event::*;
use crate::coordinator::consumer_group::group::{ConsumerGroup, GroupState};
use crate::coordinator::consumer_group::groups::{ConsumerGroups, Taken, check_heartbeat};
use crate::coordinator::consumer_group::kept::Kept;
use crate::coordinator::consumer_group::{Assignment, Topic, Topics, assignment_of, records};
use crate::coordinator::group::event::GroupError;
use crate::coordinator::group::groups::Room;
use crate::model::id::TopicId;

pub const GROUP: &str = "group";
pub const SESSION_MS: u64 = 45_000;
pub const INTERVAL_MS: u64 = 5_000;
pub const REBALANCE_MS: u64 = 20_000;

/// Topics that a test makes up; the id follows from the name.
#[derive(Clone, Default)]
pub struct Catalog {
    topics: BTreeMap<String, i32>,
    version: u64,
}

impl Catalog {
    pub fn of(topics: &[(&str, i32)]) -> Catalog {
        Catalog { topics: topics.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect(), version: 1 }
    }

    pub fn id(&self, name: &str) -> TopicId {
        let number = name.bytes().fold(1_u128, |number, byte| number * 256 + u128::from(byte));
        TopicId(uuid::Uuid::from_u128(number))
    }

    /// Makes a topic, gives it more partitions, or, with none, takes it away.
    pub fn set(&mut self, name: &str, partition_count: i32) {
        self.version += 1;
        match partition_count {
            0 => _ = self.topics.remove(name),
            _ => _ = self.topics.insert(name.to_owned(), partition_count),
        }
    }
}

impl Topics for Catalog {
    fn version(&self) -> u64 {
        self.version
    }
    fn count(&self) -> usize {
        self.topics.len()
    }
    fn find(&self, name: &str) -> Option<Topic> {
        Some(Topic { id: self.id(name), partition_count: *self.topics.get(name)? })
    }
    fn name_of(&self, id: TopicId) -> Option<&str> {
        self.topics.keys().find(|name| self.id(name) == id).map(String::as_str)
    }
    fn visit_names(&self, visit: &mut dyn FnMut(&str)) {
        self.topics.keys().for_each(|name| visit(name));
    }
}

/// A write that has not come out.
type Waiting = (Written, Vec<Change>, Option<(u32, Answer)>);

pub struct World {
    pub groups: ConsumerGroups,
    pub topics: Catalog,
    pub settings: Settings,
    pub now: Now,
    rng: Rng,
    tickets: u32,
    pub answers: BTreeMap<u32, Answer>,
    /// Writes come out at once unless this is set.
    pub is_slow: bool,
    pub waiting: Vec<Waiting>,
    /// What the log says of each group.
    pub log: BTreeMap<Box<str>, Kept>,
    /// Groups that have become classic ones.
    pub downgraded: Vec<Migrant>,
}

impl World {
    pub fn new(topics: &[(&str, i32)]) -> World {
        World {
            groups: ConsumerGroups::default(),
            topics: Catalog::of(topics),
            settings: Settings {
                timeouts: Timeouts {
                    session: Duration::from_millis(SESSION_MS),
                    heartbeat_interval: Duration::from_millis(INTERVAL_MS),
                },
                timeouts_of: BTreeMap::new(),
                member_count_max: 1000,
                classic_member_count_max: 1000,
                assignors: vec![Assignor::Uniform, Assignor::Range],
                can_upgrade: true,
                can_downgrade: true,
            },
            now: Now { monotonic: Monotonic(1_000_000_000), wall: Timestamp(1_000) },
            rng: Rng::new(7),
            tickets: 0,
            answers: BTreeMap::new(),
            is_slow: false,
            waiting: Vec::new(),
            log: BTreeMap::new(),
            downgraded: Vec::new(),
        }
    }

    /// Lets an event happen, and carries out its effects.
    pub fn event<R>(&mut self, event: impl FnOnce(&mut ConsumerGroups, u32, &mut Context<'_, u32>) -> R) -> (u32, R) {
        self.tickets += 1;
        let ticket = self.tickets;
        let mut effects = Vec::new();
        let mut context = Context {
            now: self.now,
            settings: &self.settings,
            topics: &self.topics,
            rng: &mut self.rng,
            effects: &mut effects,
        };
        let result = event(&mut self.groups, ticket, &mut context);
        for effect in effects {
            match effect {
                Effect::Answer(ticket, answer) => self.answer(ticket, answer),
                Effect::Write(written, changes, answer) => self.waiting.push((written, changes, answer)),
                Effect::Downgrade(migrant, written, changes, answer) => {
                    self.downgraded.push(migrant);
                    self.waiting.push((written, changes, answer));
                }
            }
        }
        if !self.is_slow {
            self.settle(Ok(()));
        }
        self.groups.check_books();
        (ticket, result)
    }

    fn answer(&mut self, ticket: u32, answer: Answer) {
        assert!(self.answers.insert(ticket, answer).is_none(), "answered twice");
    }

    /// Lets all writes come out: into the log, as their own bytes say.
    pub fn settle(&mut self, result: Result<(), GroupError>) {
        for (written, changes, answer) in std::mem::take(&mut self.waiting) {
            if result.is_ok() {
                for change in &changes {
                    let record = records::encode(&written.group_id, change);
                    let read = records::decode(&record.key, record.value.as_deref()).unwrap();
                    let Some((group_id, change)) = read else { continue };
                    self.log.entry(group_id.into()).or_default().apply(change);
                }
                self.log.retain(|_, kept| !kept.is_nothing());
            }
            if let Some((ticket, answer)) = answer {
                let answer = match result {
                    Ok(()) => answer,
                    Err(error) => answer.refused(error),
                };
                self.answer(ticket, answer);
            }
            self.groups.written(written, result, self.now);
        }
    }

    pub fn heartbeat(&mut self, request: HeartbeatRequest<'_>) -> Result<Heartbeat, GroupError> {
        self.heartbeat_of(request, None).0
    }

    /// A heartbeat while there is a classic group of the id.
    pub fn heartbeat_of(
        &mut self,
        request: HeartbeatRequest<'_>,
        classic: Option<Migrant>,
    ) -> (Result<Heartbeat, GroupError>, Taken) {
        if let Err(error) = check_heartbeat(&request, &self.settings) {
            return (Err(error), Taken::No);
        }
        let (ticket, taken) =
            self.event(|groups, ticket, context| groups.heartbeat(ticket, &request, classic, plenty(), context));
        match self.answers.remove(&ticket) {
            Some(Answer::Heartbeat(result)) => (result, taken),
            other => panic!("{other:?}"),
        }
    }

    /// The first heartbeat of a member that reads these topics.
    pub fn join(&mut self, member_id: &str, topics: &[&str]) -> Heartbeat {
        self.heartbeat(joining(member_id, topics)).unwrap()
    }

    /// A heartbeat that tells nothing but what the member has.
    pub fn go_on(&mut self, member_id: &str, epoch: i32, owned: Option<&Assignment>) -> Result<Heartbeat, GroupError> {
        self.heartbeat(HeartbeatRequest { owned: owned.cloned(), ..going_on(member_id, epoch) })
    }

    /// Every member goes on, giving up what it is told to, until all have what they are to have. What they have.
    pub fn converge(&mut self) -> BTreeMap<String, Assignment> {
        for _ in 0..20 {
            if self.state() == GroupState::Stable {
                break;
            }
            let members = self.members();
            for (member_id, epoch, assigned) in members {
                if epoch >= 0 {
                    self.go_on(&member_id, epoch, Some(&assigned)).unwrap();
                }
            }
        }
        assert_eq!(self.state(), GroupState::Stable);
        self.group().check_exclusive();
        self.members().into_iter().map(|(member_id, _, assigned)| (member_id, assigned)).collect()
    }

    /// Id, epoch, and what it may use, of each member.
    pub fn members(&self) -> Vec<(String, i32, Assignment)> {
        let members = self.group().members();
        let members =
            members.map(|(id, member)| (id.to_owned(), member.current.epoch, (*member.current.assigned).clone()));
        members.collect()
    }

    pub fn group(&self) -> &ConsumerGroup {
        self.groups.get(GROUP).expect("the group is there")
    }

    pub fn state(&self) -> GroupState {
        self.group().state()
    }

    /// Time passes, and what is due happens.
    pub fn pass_ms(&mut self, ms: u64) {
        let end = self.now.monotonic + Duration::from_millis(ms);
        while let Some(at) = self.groups.next_deadline().filter(|at| *at <= end) {
            self.now.monotonic = at.max(self.now.monotonic);
            self.event(|groups, _, context| groups.tick(context));
        }
        self.now.monotonic = end;
        self.now.wall.0 += ms as i64;
    }

    /// The broker is killed and started again: the groups are what the log says.
    pub fn restart(&mut self) {
        self.groups = ConsumerGroups::default();
        self.waiting.clear();
        for (group_id, kept) in self.log.clone() {
            assert!(self.groups.restore(&group_id, kept));
        }
        self.groups.begin(&self.settings, self.now);
        self.groups.check_books();
    }

    /// Partitions of a topic, as an assignment.
    pub fn of(&self, topics: &[(&str, &[i32])]) -> Assignment {
        assignment_of(topics.iter().map(|(name, partitions)| (self.topics.id(name), partitions.to_vec())))
    }
}

pub fn plenty() -> Room {
    Room { group_count: 100, size_bytes: 1 << 30 }
}

pub fn going_on(member_id: &str, member_epoch: i32) -> HeartbeatRequest<'_> {
    HeartbeatRequest {
        group_id: GROUP,
        member_id,
        member_epoch,
        rebalance_timeout_ms: -1,
        client_id: "client",
        client_host: "/127.0.0.1",
        requires_member_id: true,
        ..HeartbeatRequest::default()
    }
}

pub fn joining<'a>(member_id: &'a str, topics: &[&'a str]) -> HeartbeatRequest<'a> {
    HeartbeatRequest {
        rebalance_timeout_ms: REBALANCE_MS as i32,
        topics: Some(topics.to_vec()),
        owned: Some(Assignment::new()),
        ..going_on(member_id, 0)
    }
}

/// What a heartbeat was told to use.
pub fn told(heartbeat: &Heartbeat) -> Assignment {
    let assignment: &Arc<Assignment> = heartbeat.assignment.as_ref().expect("it was told");
    (**assignment).clone()
}
