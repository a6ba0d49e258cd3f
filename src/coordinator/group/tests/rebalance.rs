//! How long a rebalance waits, and for whom.

use super::world::*;
use crate::coordinator::group::event::*;

#[test]
fn the_first_rebalance_waits_for_more_members_and_longer_while_they_come() {
    // Delay 3 s. One comes after 2 s: at 3 s it is extended to 6 s, at which nobody else has come.
    let mut world = World::new();
    let first = world.join(dynamic(""));
    world.pass_ms(2_000);
    let second = world.join(dynamic(""));
    world.pass_ms(3_999);
    assert!(world.joins.is_empty());
    world.pass_ms(1);
    assert_eq!(world.take_join(first).unwrap().generation, 1);
    assert_eq!(world.take_join(second).unwrap().generation, 1);
}

#[test]
fn the_first_rebalance_waits_no_longer_than_its_members_allow() {
    // Members that allow 7 s come every second: 3 s, 3 s more, 1 s more.
    let mut world = World::new();
    let request = || JoinRequest { rebalance_timeout_ms: 7_000, ..dynamic("") };
    let mut tickets = Vec::new();
    for _ in 0..7 {
        tickets.push(world.join(request()));
        assert!(world.joins.is_empty());
        world.pass_ms(1_000);
    }
    for ticket in tickets {
        assert_eq!(world.take_join(ticket).unwrap().generation, 1);
    }
}

#[test]
fn without_a_delay_the_first_member_is_served_at_once() {
    // The turn that takes the request also looks at deadlines.
    let mut world = World::new();
    world.settings.initial_rebalance_delay = std::time::Duration::ZERO;
    let ticket = world.join(dynamic(""));
    world.pass_ms(0);
    assert_eq!(world.take_join(ticket).unwrap().generation, 1);
}

#[test]
fn members_learn_of_a_rebalance_by_their_heartbeats() {
    // A third one joins; the others are told, join, and all have the next generation.
    let mut world = World::new();
    let members = world.stable(2);
    assert_eq!(world.heartbeat(&members[0], 1), Ok(()));
    let third = world.join(dynamic(""));
    let again: Vec<u32> = members
        .iter()
        .map(|member_id| {
            assert_eq!(world.heartbeat(member_id, 1), Err(GroupError::RebalanceInProgress));
            world.join(dynamic(member_id))
        })
        .collect();
    for ticket in again.into_iter().chain([third]) {
        assert_eq!(world.take_join(ticket).unwrap().generation, 2);
    }
    // They may send heartbeats before everybody has its assignment.
    assert_eq!(world.state(), GroupState::CompletingRebalance);
    assert_eq!(world.heartbeat(&members[0], 2), Ok(()));
    assert_eq!(world.heartbeat(&members[0], 1), Err(GroupError::IllegalGeneration));
}

#[test]
fn who_does_not_join_in_time_is_out_and_another_one_leads() {
    // The leader of three keeps sending heartbeats but does not join for the rebalance timeout.
    let mut world = World::new();
    let members = world.stable(3);
    let leader = world.groups.get(GROUP).unwrap().leader.clone().unwrap();
    let others: Vec<_> = members.iter().filter(|member_id| **member_id != leader).collect();
    let mut tickets: Vec<u32> = Vec::new();
    world.leave(&[Leaving { member_id: others[1], group_instance_id: None }]);
    tickets.push(world.join(dynamic(others[0])));
    for _ in 0..REBALANCE_MS / 5_000 {
        assert!(world.joins.is_empty());
        assert_eq!(world.heartbeat(&leader, 1), Err(GroupError::RebalanceInProgress));
        world.pass_ms(5_000);
    }
    let joined = world.take_join(tickets[0]).unwrap();
    assert_eq!((&joined.leader, joined.members.len()), (others[0], 1));
    assert_eq!(world.heartbeat(&leader, 1), Err(GroupError::UnknownMemberId));
}

#[test]
fn a_silent_member_is_out_after_its_session_and_the_others_rebalance() {
    // Two members, one stops its heartbeats. To the millisecond.
    let mut world = World::new();
    let members = world.stable(2);
    world.pass_ms(6_000);
    assert_eq!(world.heartbeat(&members[0], 1), Ok(()));
    world.pass_ms(SESSION_MS as u64 - 6_001);
    assert_eq!(world.state(), GroupState::Stable);
    world.pass_ms(1);
    assert_eq!(world.heartbeat(&members[0], 1), Err(GroupError::RebalanceInProgress));
    assert_eq!(world.heartbeat(&members[1], 1), Err(GroupError::UnknownMemberId));
    let ticket = world.join(dynamic(&members[0]));
    assert_eq!(world.take_join(ticket).unwrap().members.len(), 1);
}

#[test]
fn a_member_that_waits_is_alive() {
    // One waits in JoinGroup for much longer than its session, because another one does not come but lives.
    let mut world = World::new();
    let members = world.stable(2);
    let leader = world.groups.get(GROUP).unwrap().leader.clone().unwrap();
    let other = members.iter().find(|member_id| **member_id != leader).unwrap();
    let ticket = world.join(dynamic(&leader));
    for _ in 0..10 {
        world.pass_ms(5_000);
        assert_eq!(world.heartbeat(other, 1), Err(GroupError::RebalanceInProgress));
    }
    let second = world.join(dynamic(other));
    assert_eq!(world.take_join(ticket).unwrap().generation, 2);
    // The same in SyncGroup, while the leader takes its time.
    assert_eq!(world.take_join(second).unwrap().generation, 2);
    let waiting = world.sync(other, 2, &[]);
    for _ in 0..5 {
        world.pass_ms(5_000);
        assert_eq!(world.heartbeat(&leader, 2), Ok(()));
    }
    world.sync(&leader, 2, &[(other, "work")]);
    assert_eq!(world.take_sync(waiting).unwrap().assignment, "work");
    world.pass_ms(SESSION_MS as u64 - 1);
    assert_eq!(world.heartbeat(other, 2), Ok(()));
}

#[test]
fn a_new_member_that_has_given_up_does_not_hold_up_its_group() {
    // Its first join waits for another member that lives and never joins; its connection is gone, which nobody sees.
    let mut world = World::new();
    let slow = JoinRequest { rebalance_timeout_ms: 3_600_000, ..dynamic("") };
    let members = world.stable_of(vec![slow]);
    let ticket = world.join(dynamic(""));
    for _ in 0..301 {
        world.pass_ms(1_000);
        assert_eq!(world.heartbeat(&members[0], 1), Err(GroupError::RebalanceInProgress));
    }
    let refused = world.take_join(ticket).unwrap_err();
    assert_eq!((refused.error, &*refused.member_id), (GroupError::UnknownMemberId, ""));
    let again = world.join(dynamic(&members[0]));
    assert_eq!(world.take_join(again).unwrap().members.len(), 1);
}

#[test]
fn who_joins_and_does_not_ask_for_its_assignment_is_out() {
    // It keeps sending heartbeats. The rebalance timeout counts; the others rebalance then.
    let mut world = World::new();
    let tickets = [world.join(dynamic("")), world.join(dynamic(""))];
    world.pass_ms(6_000);
    let joined = tickets.map(|ticket| world.take_join(ticket).unwrap());
    let leader = joined[0].leader.clone();
    let other = joined.iter().find(|one| one.member_id != leader).unwrap().member_id.clone();
    let synced = world.sync(&leader, 1, &[]);
    assert!(world.take_sync(synced).is_ok());
    for _ in 0..REBALANCE_MS / 5_000 - 1 {
        world.pass_ms(5_000);
        assert_eq!((world.heartbeat(&leader, 1), world.heartbeat(&other, 1)), (Ok(()), Ok(())));
    }
    world.pass_ms(5_000);
    assert_eq!(world.heartbeat(&other, 1), Err(GroupError::UnknownMemberId));
    assert_eq!(world.heartbeat(&leader, 1), Err(GroupError::RebalanceInProgress));
}

#[test]
fn static_members_stay_through_a_rebalance_that_they_miss() {
    // One of two static members is restarting while the other rebalances: it keeps its place until its session ends.
    let mut world = World::new();
    let long = |request| JoinRequest { session_timeout_ms: 600_000, ..request };
    let members = world.stable_of(vec![long(fixed("one", "")), long(fixed("two", ""))]);
    let other = JoinRequest { protocols: protocols(&["range"]), ..long(fixed("one", &members[0])) };
    let ticket = world.join(other);
    world.pass_ms(REBALANCE_MS as u64);
    let joined = world.take_join(ticket).unwrap();
    assert_eq!((joined.leader, joined.members.len()), (members[0].clone(), 2));
}

#[test]
fn a_rebalance_that_nobody_joins_waits_for_the_sessions_to_end() {
    // Two static members; one leaves, the other never joins again. No busy waiting, whatever timeout it asked for.
    let mut world = World::new();
    let hasty = |request| JoinRequest { rebalance_timeout_ms: 0, session_timeout_ms: 30_000, ..request };
    world.settings.initial_rebalance_delay = std::time::Duration::ZERO;
    let tickets = [world.join(hasty(fixed("one", ""))), world.join(hasty(fixed("two", "")))];
    world.pass_ms(0);
    let members = tickets.map(|ticket| world.take_join(ticket).unwrap().member_id);
    world.leave(&[Leaving { member_id: &members[0], group_instance_id: None }]);
    assert_eq!(world.state(), GroupState::PreparingRebalance);
    let mut turns = 0;
    while world.groups.state_of(GROUP) != Some(GroupState::Empty) {
        let at = world.groups.next_deadline().expect("it ends");
        world.pass(at - world.now.monotonic);
        turns += 1;
        assert!(turns < 40);
    }
}
