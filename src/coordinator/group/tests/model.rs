//! Random clients against a group, with the simplest model of what they must see.
//!
//! Clients do what Kafka's do, in any order and at any speed: they get an id, join, ask for their assignment, send
//! heartbeats, commit, leave, change what they read, fall silent, come back as the same static member or lose an
//! answer and ask again. Writes take their time and fail; the broker starts again from what is durable.
//!
//! The model knows who is alive. It demands: a generation has one leader; members of a generation agree about it;
//! an id that is in use is refused only after its client was silent for a session, left, or lost a restart; when
//! nothing is disturbed any more, everybody who calls has an assignment of the same generation.

use std::collections::{BTreeMap, BTreeSet};

use super::world::*;
use crate::base::rng::Rng;
use crate::base::time::Monotonic;
use crate::coordinator::group::event::*;

/// What a client is doing.
#[derive(Clone, Debug, PartialEq)]
enum Doing {
    /// It must join next.
    Outside,
    Joining(u32),
    /// It must ask for its assignment next; with all members if it leads.
    Joined(Option<Vec<Box<str>>>),
    Syncing(u32),
    Member,
}

struct Client {
    member_id: Box<str>,
    instance_id: Option<String>,
    protocols: Vec<Protocol>,
    generation: i32,
    doing: Doing,
    /// When the coordinator heard of it last, or answered it.
    heard: Monotonic,
    /// Its id may be unknown: it was silent, its answer was lost, or the broker has forgotten it.
    has_cause: bool,
    is_silent: bool,
}

struct Model {
    world: World,
    rng: Rng,
    clients: Vec<Client>,
    /// Leaders by generation of this run of the broker.
    leaders: BTreeMap<i32, Box<str>>,
    /// No faults any more.
    is_calm: bool,
    seed: u64,
}

const CLIENT_COUNT: usize = 6;

impl Model {
    fn new(seed: u64) -> Model {
        let mut world = World::new();
        world.rng = Rng::new(seed ^ 0x5eed);
        world.writes = None;
        let client = |index: usize| Client {
            member_id: "".into(),
            instance_id: index.is_multiple_of(3).then(|| format!("static-{index}")),
            protocols: protocols(&["range", "roundrobin"]),
            generation: -1,
            doing: Doing::Outside,
            heard: Monotonic::default(),
            has_cause: false,
            is_silent: false,
        };
        let clients = (0..CLIENT_COUNT).map(client).collect();
        Model { world, rng: Rng::new(seed), clients, leaders: BTreeMap::new(), is_calm: false, seed }
    }

    fn request(&mut self, index: usize) -> JoinRequest {
        let client = &self.clients[index];
        let base = match &client.instance_id {
            Some(instance_id) => fixed(instance_id, &client.member_id),
            None => dynamic(&client.member_id),
        };
        JoinRequest {
            protocols: client.protocols.clone(),
            requires_member_id: index.is_multiple_of(2),
            can_skip_assignment: index.is_multiple_of(4),
            ..base
        }
    }

    fn call(&mut self, index: usize) {
        match self.clients[index].doing.clone() {
            Doing::Outside => {
                let request = self.request(index);
                self.clients[index].heard = self.world.now.monotonic;
                let ticket = self.world.join(request);
                self.clients[index].doing = Doing::Joining(ticket);
            }
            Doing::Joined(members) => {
                let client = &mut self.clients[index];
                client.heard = self.world.now.monotonic;
                let (member_id, generation) = (client.member_id.clone(), client.generation);
                let members = members.unwrap_or_default();
                let work: Vec<(&str, &'static str)> = members.iter().map(|member_id| (&**member_id, "work")).collect();
                let ticket = self.world.sync(&member_id, generation, &work);
                self.clients[index].doing = Doing::Syncing(ticket);
            }
            Doing::Member => {
                let client = &self.clients[index];
                let (member_id, generation) = (client.member_id.clone(), client.generation);
                let result = match self.rng.chance(1, 3) {
                    true => {
                        let now = self.world.now.monotonic;
                        self.world.groups.check_commit(GROUP, &member_id, None, generation, false, now)
                    }
                    false => self.world.heartbeat(&member_id, generation),
                };
                match result {
                    Ok(()) => self.clients[index].heard = self.world.now.monotonic,
                    Err(error) => self.refused(index, error, None),
                }
            }
            Doing::Joining(_) | Doing::Syncing(_) => {}
        }
    }

    /// What a client does about an error, as Kafka's clients do.
    fn refused(&mut self, index: usize, error: GroupError, member_id: Option<Box<str>>) {
        let seed = self.seed;
        let client = &mut self.clients[index];
        match error {
            GroupError::MemberIdRequired => client.member_id = member_id.expect("an id is given"),
            GroupError::UnknownMemberId | GroupError::FencedInstanceId => {
                assert!(client.has_cause, "seed {seed}: client {index} is alive and was refused: {error}");
                client.member_id = "".into();
                client.has_cause = false;
            }
            GroupError::RebalanceInProgress | GroupError::CoordinatorNotAvailable | GroupError::NotCoordinator => {}
            GroupError::IllegalGeneration => {
                // It missed a rebalance, which is as good a reason as to be unknown.
                assert!(client.has_cause, "seed {seed}: client {index} has not missed anything");
            }
            other => panic!("seed {seed}: {other}"),
        }
        client.generation = -1;
        client.doing = Doing::Outside;
    }

    fn take_answers(&mut self) {
        for index in 0..self.clients.len() {
            let now = self.world.now.monotonic;
            match self.clients[index].doing {
                Doing::Joining(ticket) => match self.world.joins.remove(&ticket) {
                    None => {}
                    Some(Err(refused)) => self.refused(index, refused.error, Some(refused.member_id)),
                    Some(Ok(joined)) => {
                        self.check_leader(&joined);
                        let client = &mut self.clients[index];
                        client.heard = now;
                        client.has_cause = false;
                        client.member_id = joined.member_id;
                        client.generation = joined.generation;
                        let is_leading = joined.leader == client.member_id && !joined.skip_assignment;
                        let members = joined.members.into_iter().map(|member| member.member_id).collect();
                        client.doing = Doing::Joined(is_leading.then_some(members));
                    }
                },
                Doing::Syncing(ticket) => match self.world.syncs.remove(&ticket) {
                    None => {}
                    Some(Err(error)) => self.refused(index, error, None),
                    Some(Ok(_)) => {
                        self.clients[index].heard = now;
                        self.clients[index].doing = Doing::Member;
                    }
                },
                _ => {}
            }
        }
        // Answers that nobody waits for any more.
        self.world.joins.clear();
        self.world.syncs.clear();
    }

    fn check_leader(&mut self, joined: &Joined) {
        if joined.members.is_empty() || joined.skip_assignment {
            return;
        }
        assert_eq!(joined.leader, joined.member_id);
        let known = self.leaders.entry(joined.generation).or_insert_with(|| joined.leader.clone());
        assert_eq!(*known, joined.leader, "seed {}: two leaders of generation {}", self.seed, joined.generation);
        let ids: BTreeSet<_> = joined.members.iter().map(|member| &member.member_id).collect();
        assert_eq!(ids.len(), joined.members.len());
        assert!(ids.contains(&joined.leader));
    }

    /// The client is lost to the coordinator: whatever it is told afterwards it has deserved.
    fn disturb(&mut self) {
        let index = self.rng.in_range(0..CLIENT_COUNT as u64) as usize;
        match self.rng.in_range(0..10) {
            0 => {
                // Silent for a while; its answers are lost.
                let client = &mut self.clients[index];
                client.is_silent = true;
                client.has_cause = true;
                client.doing = Doing::Outside;
            }
            1 | 2 => {
                let client = &mut self.clients[index];
                if client.is_silent {
                    client.is_silent = false;
                    // As another process: without an id.
                    if self.rng.chance(1, 2) {
                        client.member_id = "".into();
                    }
                }
            }
            3 if self.clients[index].doing == Doing::Member => {
                let member_id = self.clients[index].member_id.clone();
                self.world.event(|groups, context| {
                    let leaving = Leaving { member_id: &member_id, group_instance_id: None };
                    groups.leave(GROUP, &[leaving], context).map(|_| ()).ok()
                });
                self.clients[index].member_id = "".into();
                self.clients[index].doing = Doing::Outside;
            }
            4 => {
                let names: &[&'static str] = if self.rng.chance(1, 2) { &["range"] } else { &["range", "roundrobin"] };
                self.clients[index].protocols = protocols(names);
                if self.clients[index].doing == Doing::Member {
                    self.clients[index].doing = Doing::Outside;
                }
            }
            5 => {
                // The answer is lost and the client asks again.
                let client = &mut self.clients[index];
                if matches!(client.doing, Doing::Joining(_) | Doing::Syncing(_)) && !client.member_id.is_empty() {
                    client.doing = Doing::Outside;
                    client.has_cause = true;
                }
            }
            6 if self.rng.chance(1, 10) => {
                // Who waits loses its connection; of the others the coordinator knows what was durable.
                self.world.restart();
                self.leaders.clear();
                for client in &mut self.clients {
                    client.has_cause = true;
                    if matches!(client.doing, Doing::Joining(_) | Doing::Syncing(_)) {
                        client.doing = Doing::Outside;
                    }
                }
            }
            7 if !self.world.unwritten.is_empty() => self.world.write(Err(GroupError::CoordinatorNotAvailable)),
            _ => {}
        }
    }

    fn step(&mut self) {
        if !self.is_calm && self.rng.chance(1, 12) {
            self.disturb();
        }
        let index = self.rng.in_range(0..CLIENT_COUNT as u64) as usize;
        if !self.clients[index].is_silent {
            self.call(index);
        }
        if !self.world.unwritten.is_empty() && self.rng.chance(1, 2) {
            self.world.write(Ok(()));
        }
        self.take_answers();
        let ms = self.rng.in_range(0..300);
        self.world.pass_ms(ms);
        self.take_answers();
        let session = std::time::Duration::from_millis(SESSION_MS as u64);
        for client in &mut self.clients {
            let is_waiting = matches!(client.doing, Doing::Joining(_) | Doing::Syncing(_));
            // A member with an answer to read that does not call in time is silent too.
            if !is_waiting && self.world.now.monotonic.since(client.heard) >= session {
                client.has_cause = true;
            }
        }
    }
}

#[test]
fn whoever_lives_and_calls_ends_with_an_assignment_and_is_never_unknown() {
    // 300 seeds, 600 disturbed steps each, then calm until everybody has one of the same generation.
    for seed in 0..300 {
        let mut model = Model::new(seed);
        for _ in 0..600 {
            model.step();
        }
        model.is_calm = true;
        for client in &mut model.clients {
            client.is_silent = false;
        }
        let mut steps = 0;
        loop {
            model.step();
            let generation = model.clients[0].generation;
            let is_member = |client: &Client| client.doing == Doing::Member && client.generation == generation;
            if model.clients.iter().all(is_member) && model.world.state() == GroupState::Stable {
                break;
            }
            steps += 1;
            assert!(steps < 4_000, "seed {seed}: the group does not come to rest");
        }
        let group = model.world.groups.get(GROUP).unwrap();
        let members: BTreeSet<Box<str>> = group.members().map(|(member_id, _)| member_id.into()).collect();
        assert_eq!(members, model.clients.iter().map(|client| client.member_id.clone()).collect(), "seed {seed}");
        assert!(group.members().all(|(_, member)| member.assignment == "work"), "seed {seed}");
    }
}
