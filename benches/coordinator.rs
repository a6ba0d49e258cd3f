//! A step of a group's coordinator, without its log: a heartbeat among thousands of members, a member's whole life, an
//! offset committed.

mod harness;

use std::time::Duration;

use bytes::Bytes;
use criterion::Throughput;
use harness::Subject;
use ottla::base::rng::Rng;
use ottla::base::time::{Monotonic, Now, Timestamp};
use ottla::coordinator::group::event::{Context, JoinRequest, Leaving, Protocol, Settings, SyncRequest};
use ottla::coordinator::group::groups::Room;
use ottla::coordinator::group::{Effect, Groups};
use ottla::coordinator::offsets::{CommittedOffset, Offsets};
use ottla::model::id::{LeaderEpoch, Offset, PartitionIndex};

const GROUP_COUNT: usize = 1_000;
const MEMBER_COUNT: usize = 5;
const SETTINGS: Settings = Settings {
    session_timeout_ms_min: 6_000,
    session_timeout_ms_max: 1_800_000,
    initial_rebalance_delay: Duration::from_millis(1),
    member_count_max: 100,
};

/// A coordinator whose log takes everything at once.
struct World {
    groups: Groups<usize>,
    now: Now,
    rng: Rng,
    /// The last member that was answered, and the group's leader and generation.
    joined: Option<(Box<str>, Box<str>, i32)>,
}

impl World {
    fn new() -> World {
        let now = Now { monotonic: Monotonic::default(), wall: Timestamp(1_750_000_000_000) };
        World { groups: Groups::default(), now, rng: Rng::new(1), joined: None }
    }

    /// Lets something happen and takes its effects.
    fn event(&mut self, event: impl FnOnce(&mut Groups<usize>, &mut Context<'_, usize>)) {
        let effects = self.effects_of(event);
        self.take(effects);
    }

    fn effects_of(&mut self, event: impl FnOnce(&mut Groups<usize>, &mut Context<'_, usize>)) -> Vec<Effect<usize>> {
        let mut effects = Vec::new();
        let (now, settings, rng) = (self.now, &SETTINGS, &mut self.rng);
        event(&mut self.groups, &mut Context { now, settings, rng, effects: &mut effects });
        effects
    }

    fn take(&mut self, effects: Vec<Effect<usize>>) {
        for effect in effects {
            match effect {
                Effect::Join(_, answer) => {
                    let joined = answer.expect("there is room");
                    self.joined = Some((joined.member_id, joined.leader, joined.generation));
                }
                Effect::Sync(_, answer) => drop(answer.expect("it has joined")),
                Effect::Persist(written, _) => {
                    let effects = self.effects_of(|groups, context| groups.persisted(&written, Ok(()), context));
                    self.take(effects);
                }
            }
        }
    }

    fn join(&mut self, group_id: &str) {
        let request = JoinRequest {
            group_id: group_id.into(),
            member_id: "".into(),
            group_instance_id: None,
            client_id: "bench".into(),
            client_host: "/127.0.0.1".into(),
            session_timeout_ms: 1_800_000,
            rebalance_timeout_ms: 60_000,
            protocol_type: "consumer".into(),
            protocols: vec![Protocol { name: "range".into(), metadata: Bytes::from_static(&[0; 40]) }],
            requires_member_id: false,
            can_skip_assignment: false,
        };
        let room = Room { group_count: GROUP_COUNT, size_bytes: 1 << 30 };
        self.event(|groups, context| groups.join(0, request, room, context));
    }

    /// The delay of a first rebalance passes, which each member that joins makes longer.
    fn rebalance(&mut self) {
        while self.joined.is_none() {
            self.now.monotonic = self.groups.next_deadline().expect("somebody joins").max(self.now.monotonic);
            self.event(|groups, context| groups.tick(context));
        }
    }

    /// The leader that has joined last assigns. Gives it, and the generation.
    fn assign(&mut self, group_id: &str) -> (Box<str>, i32) {
        let (_, leader, generation) = self.joined.take().expect("a member has joined");
        let request = SyncRequest {
            group_id,
            member_id: &leader,
            group_instance_id: None,
            generation,
            protocol_type: None,
            protocol: None,
            assignments: vec![(&leader, Bytes::from_static(&[0; 60]))],
        };
        self.event(|groups, context| groups.sync(0, request, context));
        (leader, generation)
    }
}

fn heartbeat() -> Subject {
    let mut world = World::new();
    let members: Vec<(String, Box<str>, i32)> = (0..GROUP_COUNT)
        .map(|number| {
            let group_id = format!("group-{number}");
            (0..MEMBER_COUNT).for_each(|_| world.join(&group_id));
            world.rebalance();
            let (leader, generation) = world.assign(&group_id);
            (group_id, leader, generation)
        })
        .collect();
    let mut next = 0;
    Subject::new("group", "heartbeat", Throughput::Elements(1), move || {
        let (group_id, member_id, generation) = &members[next];
        next = (next + 1) % members.len();
        world.groups.heartbeat(group_id, member_id, None, *generation, world.now.monotonic).expect("a member")
    })
}

fn life() -> Subject {
    let mut world = World::new();
    Subject::new("group", "join, assign and leave", Throughput::Elements(1), move || {
        world.join("group");
        world.rebalance();
        let (member_id, _) = world.assign("group");
        let leaving = [Leaving { member_id: &member_id, group_instance_id: None }];
        world.event(|groups, context| drop(groups.leave("group", &leaving, context)));
    })
}

fn commit() -> Subject {
    let mut offsets = Offsets::default();
    let names: Vec<String> = (0..GROUP_COUNT).map(|number| format!("group-{number}")).collect();
    let mut next = 0;
    Subject::new("group", "offset committed", Throughput::Elements(1), move || {
        next += 1;
        let committed = CommittedOffset {
            offset: Offset(next as i64),
            leader_epoch: LeaderEpoch(3),
            metadata: "".into(),
            commit_timestamp: Timestamp(1_750_000_000_000),
            expire_timestamp: None,
        };
        offsets.put(&names[next % GROUP_COUNT], "topic", PartitionIndex((next % 7) as i32), committed);
    })
}

fn main() {
    harness::main(vec![heartbeat(), life(), commit()]);
}
