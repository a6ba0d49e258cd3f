//! Classic groups that become ones of the consumer protocol, their classic members, and the way back.

use bytes::Bytes;

use super::world::*;
use crate::coordinator::consumer_group::Assignment;
use crate::coordinator::consumer_group::embedded;
use crate::coordinator::consumer_group::event::{Answer, Migrant, MigrantMember};
use crate::coordinator::consumer_group::group::GroupState;
use crate::coordinator::consumer_group::groups::Taken;
use crate::coordinator::consumer_group::member::ClassicProfile;
use crate::coordinator::group::event::{GroupError, JoinRefused, JoinRequest, Joined, Leaving, Protocol, SyncRequest};

/// A subscription of version 1, by hand.
fn subscription(topics: &[&str], owned: &[(&str, &[i32])]) -> Bytes {
    let mut bytes = vec![0, 1];
    bytes.extend((topics.len() as i32).to_be_bytes());
    for topic in topics {
        bytes.extend((topic.len() as i16).to_be_bytes());
        bytes.extend(topic.as_bytes());
    }
    bytes.extend([0xff; 4]);
    bytes.extend((owned.len() as i32).to_be_bytes());
    for (topic, partitions) in owned {
        bytes.extend((topic.len() as i16).to_be_bytes());
        bytes.extend(topic.as_bytes());
        bytes.extend((partitions.len() as i32).to_be_bytes());
        partitions.iter().for_each(|partition| bytes.extend(partition.to_be_bytes()));
    }
    bytes.into()
}

fn protocols(owned: &[(&str, &[i32])]) -> Vec<Protocol> {
    vec![Protocol { name: "range".into(), metadata: subscription(&["a"], owned) }]
}

/// A classic group of generation 3 whose members have two partitions of `a` each.
fn classic(world: &World, member_ids: &[&str]) -> Migrant {
    let members = member_ids.iter().enumerate().map(|(index, member_id)| {
        let first = 2 * index as i32;
        let assigned = world.of(&[("a", &[first, first + 1])]);
        MigrantMember {
            member_id: (*member_id).into(),
            instance_id: None,
            client_id: "client".into(),
            client_host: "/127.0.0.1".into(),
            rebalance_timeout_ms: REBALANCE_MS as i32,
            classic: ClassicProfile { session_timeout_ms: 10_000, protocols: protocols(&[]) },
            assignment: embedded::put_assignment(&assigned, 1, &world.topics),
        }
    });
    Migrant { group_id: GROUP.into(), generation: 3, protocol: Some("range".into()), members: members.collect() }
}

fn join_request(member_id: &str, instance_id: Option<&str>, owned: &[(&str, &[i32])]) -> JoinRequest {
    JoinRequest {
        group_id: GROUP.into(),
        member_id: member_id.into(),
        group_instance_id: instance_id.map(Into::into),
        client_id: "client".into(),
        client_host: "/127.0.0.1".into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: REBALANCE_MS as i32,
        protocol_type: "consumer".into(),
        protocols: protocols(owned),
        requires_member_id: true,
        can_skip_assignment: false,
    }
}

impl World {
    fn join_classic(&mut self, request: &JoinRequest) -> Result<Joined, JoinRefused> {
        let (ticket, ()) = self.event(|groups, ticket, context| groups.join(ticket, request, plenty(), context));
        match self.answers.remove(&ticket) {
            Some(Answer::Join(result)) => result,
            other => panic!("{other:?}"),
        }
    }

    fn sync_classic(&mut self, member_id: &str, generation: i32) -> Result<Assignment, GroupError> {
        let request = SyncRequest {
            group_id: GROUP,
            member_id,
            group_instance_id: None,
            generation,
            protocol_type: Some("consumer"),
            protocol: Some("range"),
            assignments: Vec::new(),
        };
        let (ticket, ()) = self.event(|groups, ticket, context| groups.sync(ticket, &request, context));
        match self.answers.remove(&ticket) {
            Some(Answer::Sync(result)) => {
                result.map(|synced| embedded::assignment(&synced.assignment, &self.topics).unwrap())
            }
            other => panic!("{other:?}"),
        }
    }

    fn beat_classic(&mut self, member_id: &str, generation: i32) -> Result<(), GroupError> {
        let beat =
            self.event(|groups, _, context| groups.heartbeat_classic(GROUP, member_id, None, generation, context));
        beat.1
    }
}

/// A group of the classic members c1 and c2 and the new member m1, which has just joined.
fn upgraded() -> World {
    let mut world = World::new(&[("a", 4)]);
    let migrant = classic(&world, &["c1", "c2"]);
    let (joined, taken) = world.heartbeat_of(joining("m1", &["a"]), Some(migrant));
    let joined = joined.unwrap();
    assert_eq!((taken, joined.member_epoch, told(&joined)), (Taken::Over, 4, Assignment::new()));
    world
}

#[test]
fn a_classic_group_goes_on_with_its_members_and_what_they_have() {
    // The new member waits until a classic one, told by its heartbeat, has joined again and given something up.
    let mut world = upgraded();
    assert_eq!((world.members().len(), world.group().classic_count), (3, 2));
    assert_eq!(world.state(), GroupState::Reconciling);
    assert_eq!(world.beat_classic("c1", 3), Err(GroupError::RebalanceInProgress));
    let joined = world.join_classic(&join_request("c1", None, &[("a", &[0, 1])])).unwrap();
    assert_eq!((&*joined.leader, joined.members.len()), ("", 0));
    // It has been told its own: joined in its old epoch if it is to give up, else in the new one.
    let kept = world.sync_classic("c1", joined.generation).unwrap();
    let joined = world.join_classic(&join_request("c2", None, &[("a", &[2, 3])])).unwrap();
    let other = world.sync_classic("c2", joined.generation).unwrap();
    let target = world.group().target("m1");
    assert_eq!(crate::coordinator::consumer_group::count_of(&target), 1);
    // Whoever was to give up joins once more without it.
    for (member_id, kept) in [("c1", kept), ("c2", other)] {
        let partitions: Vec<i32> = kept.values().flatten().copied().collect();
        let generation = world.join_classic(&join_request(member_id, None, &[("a", &partitions)])).unwrap().generation;
        world.sync_classic(member_id, generation).unwrap();
        assert_eq!(world.beat_classic(member_id, generation), Ok(()));
    }
    assert_eq!(told(&world.go_on("m1", 4, None).unwrap()), (*target).clone());
    assert_eq!(world.state(), GroupState::Stable);
    world.group().check_exclusive();
    let before = world.members();
    world.restart();
    assert_eq!((world.members(), world.group().classic_count), (before, 2));
}

#[test]
fn the_last_member_of_the_consumer_protocol_turns_the_group_back() {
    // The others are a classic group of the same epoch, with their targets; the log has nothing of this one.
    let mut world = upgraded();
    let epoch = world.group().epoch;
    world.heartbeat(going_on("m1", -1)).unwrap();
    assert!(!world.groups.has_group(GROUP) && world.log.is_empty());
    let [migrant] = &world.downgraded[..] else { panic!("{:?}", world.downgraded) };
    assert_eq!((migrant.generation, migrant.members.len()), (epoch, 2));
    assert_eq!(&*migrant.members[0].member_id, "c1");
    assert_eq!(migrant.members[0].classic.protocols, protocols(&[]));
}

#[test]
fn a_member_that_times_out_turns_the_group_back_too() {
    let mut world = upgraded();
    for _ in 0..45 {
        world.pass_ms(1_000);
        if world.groups.has_group(GROUP) {
            // Heartbeats of classic members that are to join go on until their rebalance timeout.
            for member_id in ["c1", "c2"] {
                let generation = world.join_classic(&join_request(member_id, None, &[])).unwrap().generation;
                world.sync_classic(member_id, generation).unwrap();
            }
        }
    }
    assert_eq!(world.downgraded.len(), 1);
}

#[test]
fn the_policy_decides_whether_groups_change() {
    let mut world = World::new(&[("a", 4)]);
    let migrant = classic(&world, &["c1"]);
    world.settings.can_upgrade = false;
    let (refused, taken) = world.heartbeat_of(joining("m1", &["a"]), Some(migrant.clone()));
    assert_eq!((refused, taken), (Err(GroupError::GroupIdNotFound), Taken::No));
    assert!(!world.groups.has_group(GROUP));
    // One without members is taken over anyway.
    let empty = Migrant { members: Vec::new(), ..migrant.clone() };
    let (joined, taken) = world.heartbeat_of(joining("m1", &["a"]), Some(empty));
    assert_eq!((joined.unwrap().member_epoch, taken), (1, Taken::Over));
    // Without the way back the group stays as it is.
    let mut world = World::new(&[("a", 4)]);
    world.settings.can_downgrade = false;
    world.heartbeat_of(joining("m1", &["a"]), Some(migrant)).0.unwrap();
    world.heartbeat(going_on("m1", -1)).unwrap();
    assert_eq!((world.members().len(), world.downgraded.len()), (1, 0));
}

#[test]
fn what_is_no_subscription_cannot_be_taken_over() {
    let mut world = World::new(&[("a", 4)]);
    let mut migrant = classic(&world, &["c1"]);
    migrant.members[0].classic.protocols[0].metadata = Bytes::from_static(b"x");
    let (refused, taken) = world.heartbeat_of(joining("m1", &["a"]), Some(migrant));
    assert_eq!((refused, taken), (Err(GroupError::GroupIdNotFound), Taken::No));
}

#[test]
fn classic_members_join_and_leave_a_group_of_the_consumer_protocol() {
    // A new one is given its id first, then its epoch; it must have a protocol that the other classic ones have.
    let mut world = World::new(&[("a", 4)]);
    world.join("m1", &["a"]);
    let asked = world.join_classic(&join_request("", None, &[])).unwrap_err();
    assert_eq!(asked.error, GroupError::MemberIdRequired);
    let joined = world.join_classic(&join_request(&asked.member_id, None, &[])).unwrap();
    assert_eq!((&*joined.member_id, joined.generation), (&*asked.member_id, 2));
    assert_eq!(world.sync_classic(&asked.member_id, 2), Ok(Assignment::new()));
    assert_eq!(world.sync_classic(&asked.member_id, 1), Err(GroupError::IllegalGeneration));
    assert_eq!(world.sync_classic("m1", 1), Err(GroupError::UnknownMemberId));
    let mut other = join_request("c9", None, &[]);
    other.protocols[0].name = "sticky".into();
    assert_eq!(world.join_classic(&other).unwrap_err().error, GroupError::InconsistentGroupProtocol);
    other.protocol_type = "connect".into();
    assert_eq!(world.join_classic(&other).unwrap_err().error, GroupError::InconsistentGroupProtocol);
    // Once the new one has given up, the classic one is told to join again.
    let all = world.of(&[("a", &[0, 1, 2, 3])]);
    assert_eq!(world.beat_classic(&asked.member_id, 2), Ok(()));
    let kept = told(&world.go_on("m1", 1, Some(&all)).unwrap());
    world.go_on("m1", 1, Some(&kept)).unwrap();
    assert_eq!(world.beat_classic(&asked.member_id, 2), Err(GroupError::RebalanceInProgress));
    let joined = world.join_classic(&join_request(&asked.member_id, None, &[])).unwrap();
    let given = world.sync_classic(&asked.member_id, joined.generation).unwrap();
    assert_eq!(crate::coordinator::consumer_group::count_of(&given), 2);
    assert_eq!(world.beat_classic(&asked.member_id, joined.generation), Ok(()));
    let check =
        |world: &mut World, epoch| world.groups.check_commit(GROUP, &asked.member_id, None, epoch, false, 5).unwrap();
    assert_eq!(check(&mut world, joined.generation), Ok(()));
    assert_eq!(check(&mut world, 1), Err(GroupError::IllegalGeneration));
    let leaving = [
        Leaving { member_id: &asked.member_id, group_instance_id: None },
        Leaving { member_id: "m1", group_instance_id: None },
        Leaving { member_id: "", group_instance_id: Some("i") },
    ];
    let (_, left) = world.event(|groups, _, context| groups.leave(GROUP, &leaving, context));
    let unknown = Err(GroupError::UnknownMemberId);
    assert_eq!(left, Ok(vec![Ok(()), unknown, unknown]));
    assert_eq!(world.converge()["m1"], all);
}

#[test]
fn a_classic_member_that_does_not_join_again_or_ask_in_time_is_gone() {
    let mut world = World::new(&[("a", 4)]);
    world.join("m1", &["a"]);
    world.join_classic(&JoinRequest { requires_member_id: false, ..join_request("c1", None, &[]) }).unwrap();
    let alive = |world: &mut World, ms: u64| {
        for _ in 0..ms / 1000 {
            world.pass_ms(1000);
            let _ = world.beat_classic("c1", 2);
            let epoch = world.group().members().find(|(id, _)| *id == "m1").unwrap().1.current.epoch;
            world.go_on("m1", epoch, Some(&Assignment::new())).unwrap();
        }
    };
    // It has joined and never asks for its assignment.
    alive(&mut world, REBALANCE_MS - 1000);
    assert_eq!(world.members().len(), 2);
    alive(&mut world, 2000);
    assert_eq!(world.members().len(), 1);
}

#[test]
fn a_static_member_may_change_its_protocol() {
    // Either way the place and what it has stay. When that was the last one the group is a classic one again.
    let mut world = World::new(&[("a", 4)]);
    let fixed = |member_id, instance_id| crate::coordinator::consumer_group::event::HeartbeatRequest {
        instance_id: Some(instance_id),
        ..joining(member_id, &["a"])
    };
    world.heartbeat(fixed("m1", "i1")).unwrap();
    world.heartbeat(fixed("m2", "i2")).unwrap();
    world.converge();
    let joined = world.join_classic(&join_request("", Some("i1"), &[])).unwrap();
    assert_eq!((world.members().len(), world.group().classic_count), (2, 1));
    assert_eq!(crate::coordinator::consumer_group::count_of(&world.group().target(&joined.member_id)), 2);
    let back = world.heartbeat(fixed("m3", "i1")).unwrap();
    assert_eq!((world.group().classic_count, crate::coordinator::consumer_group::count_of(&told(&back))), (0, 2));
    world.join_classic(&join_request("", Some("i1"), &[])).unwrap();
    let refused = world.join_classic(&join_request("", Some("i2"), &[])).unwrap_err();
    assert_eq!((refused.error, &*refused.member_id), (GroupError::RebalanceInProgress, ""));
    assert!(world.log.is_empty() && world.downgraded[0].members.len() == 2);
}

#[test]
fn a_group_without_members_makes_room_for_a_classic_one() {
    let mut world = World::new(&[("a", 4)]);
    world.join("m1", &["a"]);
    assert!(world.groups.has_members(GROUP));
    world.heartbeat(going_on("m1", -1)).unwrap();
    assert!(!world.groups.has_members(GROUP));
    world.event(|groups, _, context| groups.make_room(GROUP, context));
    assert!(!world.groups.has_group(GROUP) && world.log.is_empty());
}

#[test]
fn what_could_not_be_taken_back_is_taken_back_later() {
    // The downgrade is refused by the log; a second later the tombstones are written.
    let mut world = upgraded();
    world.is_slow = true;
    let request = going_on("m1", -1);
    world.event(|groups, ticket, context| groups.heartbeat(ticket, &request, None, plenty(), context));
    world.settle(Err(GroupError::CoordinatorNotAvailable));
    assert!(!world.log.is_empty());
    world.is_slow = false;
    world.pass_ms(1_000);
    assert!(world.log.is_empty());
}
