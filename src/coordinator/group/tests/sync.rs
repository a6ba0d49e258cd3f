//! Assignments and what is durable of them.

use super::world::*;
use crate::coordinator::group::event::*;

fn two_joined(world: &mut World) -> (Box<str>, Box<str>) {
    let tickets = [world.join(dynamic("")), world.join(dynamic(""))];
    world.pass_ms(6_000);
    let joined = tickets.map(|ticket| world.take_join(ticket).unwrap());
    let leader = joined[0].leader.clone();
    let other = joined.into_iter().find(|one| one.member_id != leader).unwrap().member_id;
    (leader, other)
}

#[test]
fn assignments_are_given_out_when_they_are_durable() {
    // The leader comes, the write waits: nobody is answered, the group is not stable. A late follower is served then.
    let mut world = World::new();
    world.writes = None;
    let (leader, other) = two_joined(&mut world);
    let waiting = world.sync(&leader, 1, &[(&leader, "mine"), (&other, "yours"), ("nobody", "lost")]);
    assert!(world.syncs.is_empty());
    assert_eq!(world.state(), GroupState::CompletingRebalance);
    let (_, snapshot) = &world.unwritten[0];
    assert_eq!((snapshot.generation, snapshot.members.len()), (1, 2));
    assert_eq!(snapshot.leader.as_ref(), Some(&leader));
    assert_eq!((snapshot.protocol_type.as_deref(), snapshot.protocol.as_deref()), (Some("consumer"), Some("range")));
    let kept = |member_id: &str| snapshot.members.iter().find(|kept| *kept.member_id == *member_id).unwrap();
    assert_eq!((&kept(&leader).assignment[..], &kept(&leader).subscription[..]), (&b"mine"[..], &b"range"[..]));
    assert_eq!((&*kept(&other).client_id, &*kept(&other).client_host), ("client", "/127.0.0.1"));
    assert_eq!((kept(&other).session_timeout_ms, kept(&other).rebalance_timeout_ms), (SESSION_MS, REBALANCE_MS));
    world.write(Ok(()));
    let synced = world.take_sync(waiting).unwrap();
    assert_eq!((&synced.assignment[..], synced.protocol.as_deref()), (&b"mine"[..], Some("range")));
    assert_eq!(world.state(), GroupState::Stable);
    let late = world.sync(&other, 1, &[]);
    assert_eq!(world.take_sync(late).unwrap().assignment, "yours");
}

#[test]
fn a_member_without_an_assignment_gets_an_empty_one() {
    // The leader forgets the other one.
    let mut world = World::new();
    let (leader, other) = two_joined(&mut world);
    world.sync(&leader, 1, &[(&leader, "mine")]);
    let late = world.sync(&other, 1, &[]);
    assert_eq!(world.take_sync(late).unwrap().assignment, "");
}

#[test]
fn an_assignment_that_cannot_be_kept_is_nobodys() {
    // Who waits is told why, and everybody joins again.
    let mut world = World::new();
    world.writes = Some(Err(GroupError::CoordinatorNotAvailable));
    let (leader, other) = two_joined(&mut world);
    let following = world.sync(&other, 1, &[]);
    let leading = world.sync(&leader, 1, &[(&other, "yours")]);
    assert_eq!(world.take_sync(following), Err(GroupError::CoordinatorNotAvailable));
    assert_eq!(world.take_sync(leading), Err(GroupError::CoordinatorNotAvailable));
    assert_eq!(world.heartbeat(&other, 1), Err(GroupError::RebalanceInProgress));
    world.writes = Some(Ok(()));
    let tickets = [world.join(dynamic(&leader)), world.join(dynamic(&other))];
    assert!(tickets.iter().all(|ticket| world.take_join(*ticket).unwrap().generation == 2));
}

#[test]
fn a_rebalance_that_begins_during_the_write_wins() {
    // A third member joins: those who wait are told to join again; that the write succeeds changes nothing.
    let mut world = World::new();
    world.writes = None;
    let (leader, other) = two_joined(&mut world);
    let waiting = [world.sync(&other, 1, &[]), world.sync(&leader, 1, &[(&other, "yours")])];
    world.join(dynamic(""));
    for ticket in waiting {
        assert_eq!(world.take_sync(ticket), Err(GroupError::RebalanceInProgress));
    }
    world.write(Ok(()));
    assert_eq!(world.state(), GroupState::PreparingRebalance);
    let refused = world.sync_with(sync_request(&other, 1));
    assert_eq!(refused, Err(GroupError::RebalanceInProgress));
}

#[test]
fn a_leader_that_asks_again_during_the_write_changes_nothing() {
    // What it said first is written and given out, once.
    let mut world = World::new();
    world.writes = None;
    let (leader, other) = two_joined(&mut world);
    let first = world.sync(&leader, 1, &[(&other, "first")]);
    let second = world.sync(&leader, 1, &[(&other, "second")]);
    assert_eq!(world.take_sync(first), Err(GroupError::RebalanceInProgress));
    assert_eq!(world.unwritten.len(), 1);
    world.write(Ok(()));
    assert!(world.take_sync(second).is_ok());
    let late = world.sync(&other, 1, &[]);
    assert_eq!(world.take_sync(late).unwrap().assignment, "first");
}

#[test]
fn who_is_wrong_gets_no_assignment() {
    // Unknown group, member or instance, another generation, another protocol.
    let mut world = World::new();
    let ask = |world: &mut World, request| world.sync_with(request);
    assert_eq!(ask(&mut world, sync_request("nobody", 1)), Err(GroupError::UnknownMemberId));
    let members = world.stable_of(vec![fixed("one", ""), fixed("two", "")]);
    let good = sync_request(&members[0], 1);
    assert_eq!(ask(&mut world, sync_request("nobody", 1)), Err(GroupError::UnknownMemberId));
    for generation in [-1, 0, 2] {
        assert_eq!(ask(&mut world, sync_request(&members[0], generation)), Err(GroupError::IllegalGeneration));
    }
    let foreign = SyncRequest { group_instance_id: Some("two"), ..good.clone() };
    assert_eq!(ask(&mut world, foreign), Err(GroupError::FencedInstanceId));
    let unknown = SyncRequest { group_instance_id: Some("three"), ..good.clone() };
    assert_eq!(ask(&mut world, unknown), Err(GroupError::UnknownMemberId));
    let connect = SyncRequest { protocol_type: Some("connect"), ..good.clone() };
    assert_eq!(ask(&mut world, connect), Err(GroupError::InconsistentGroupProtocol));
    let sticky = SyncRequest { protocol: Some("sticky"), ..good.clone() };
    assert_eq!(ask(&mut world, sticky), Err(GroupError::InconsistentGroupProtocol));
    let exact = SyncRequest { protocol_type: Some("consumer"), protocol: Some("range"), ..good };
    assert_eq!(ask(&mut world, exact).unwrap().assignment, "work");
}

#[test]
fn heartbeats_are_refused_in_kafkas_order() {
    // Group, instance, member, generation.
    let mut world = World::new();
    assert_eq!(world.heartbeat("nobody", 1), Err(GroupError::UnknownMemberId));
    let members = world.stable_of(vec![fixed("one", ""), fixed("two", "")]);
    let now = world.now.monotonic;
    let mut beat = |member_id: &str, instance_id: Option<&str>, generation| {
        world.groups.heartbeat(GROUP, member_id, instance_id, generation, now)
    };
    assert_eq!(beat(&members[0], Some("one"), 1), Ok(()));
    assert_eq!(beat(&members[0], Some("two"), 9), Err(GroupError::FencedInstanceId));
    assert_eq!(beat(&members[0], Some("three"), 9), Err(GroupError::UnknownMemberId));
    assert_eq!(beat("nobody", None, 9), Err(GroupError::UnknownMemberId));
    assert_eq!(beat(&members[0], None, 0), Err(GroupError::IllegalGeneration));
    let pending = world.new_id(dynamic(""));
    assert_eq!(world.heartbeat(&pending, 1), Err(GroupError::UnknownMemberId));
}

#[test]
fn commits_are_checked_as_kafka_checks_them() {
    // Without a group; with an empty one; by members in each state; by nobody in particular.
    let mut world = World::new();
    let check = |world: &mut World, member_id: &str, instance_id: Option<&str>, generation| {
        let now = world.now.monotonic;
        world.groups.check_commit(GROUP, member_id, instance_id, generation, false, now)
    };
    assert_eq!(check(&mut world, "", None, -1), Ok(()));
    assert_eq!(check(&mut world, "member", None, 1), Err(GroupError::GroupIdNotFound));
    let (leader, other) = two_joined(&mut world);
    assert_eq!(check(&mut world, &other, None, 1), Err(GroupError::RebalanceInProgress));
    world.sync(&leader, 1, &[]);
    assert_eq!(check(&mut world, &other, None, 1), Ok(()));
    assert_eq!(check(&mut world, &other, None, 2), Err(GroupError::IllegalGeneration));
    assert_eq!(check(&mut world, "nobody", None, 1), Err(GroupError::UnknownMemberId));
    assert_eq!(check(&mut world, "", None, -1), Err(GroupError::UnknownMemberId));
    assert_eq!(check(&mut world, &other, None, -1), Err(GroupError::IllegalGeneration));
    assert_eq!(check(&mut world, &other, Some("one"), 1), Err(GroupError::UnknownMemberId));
    world.sync(&other, 1, &[]);
    world.join(dynamic(&leader));
    assert_eq!(check(&mut world, &other, None, 1), Ok(()), "members commit before they join again");
    world.leave_one(&leader);
    world.leave_one(&other);
    assert_eq!(check(&mut world, "", None, -1), Ok(()));
    assert_eq!(check(&mut world, &other, None, 2), Err(GroupError::UnknownMemberId));
}

#[test]
fn a_commit_is_a_sign_of_life() {
    // No heartbeats, only commits, for longer than the session.
    let mut world = World::new();
    let members = world.stable(1);
    for _ in 0..10 {
        world.pass_ms(5_000);
        let now = world.now.monotonic;
        assert_eq!(world.groups.check_commit(GROUP, &members[0], None, 1, false, now), Ok(()));
    }
    assert_eq!(world.state(), GroupState::Stable);
}
