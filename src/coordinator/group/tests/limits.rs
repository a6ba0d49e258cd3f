//! Bounds.

use std::time::Duration;

use bytes::Bytes;

use super::world::*;
use crate::coordinator::group::event::*;
use crate::coordinator::group::groups::Room;
use crate::model::limits::{GROUP_PROTOCOL_COUNT_MAX, GROUP_SIZE_BYTES_MAX};

#[test]
fn a_full_group_takes_no_more_members_and_keeps_those_it_has() {
    // group.max.size is 2: refused in Stable, in CompletingRebalance, and among those that join.
    let mut world = World::new();
    world.settings.member_count_max = 2;
    let members = world.stable(2);
    let refused = world.joined(dynamic("")).unwrap_err();
    assert_eq!((refused.error, &*refused.member_id), (GroupError::GroupMaxSizeReached, ""));
    assert_eq!(world.state(), GroupState::Stable);
    let _ = [world.join(dynamic(&members[1])), world.join(dynamic(&members[0])), world.join(dynamic(&members[1]))];
    assert_eq!(world.state(), GroupState::CompletingRebalance);
    let refused = world.joined(dynamic("")).unwrap_err();
    assert_eq!(refused.error, GroupError::GroupMaxSizeReached);
    assert_eq!(world.groups.get(GROUP).unwrap().members.len(), 2);
    let mut world = World::new();
    world.settings.member_count_max = 2;
    let tickets = [(); 3].map(|()| world.join(dynamic("")));
    assert_eq!(world.take_join(tickets[2]).unwrap_err().error, GroupError::GroupMaxSizeReached);
    world.pass_ms(6_000);
    assert!(world.take_join(tickets[0]).is_ok() && world.take_join(tickets[1]).is_ok());
}

#[test]
fn a_group_that_is_too_large_after_a_restart_loses_those_that_join_last() {
    // group.max.size was lowered from 3 to 2.
    let mut world = World::new();
    let members = world.stable(3);
    world.settings.member_count_max = 2;
    world.restart();
    assert_eq!(world.state(), GroupState::PreparingRebalance);
    let tickets: Vec<u32> = members.iter().map(|member_id| world.join(dynamic(member_id))).collect();
    assert_eq!(world.take_join(tickets[2]).unwrap_err().error, GroupError::GroupMaxSizeReached);
    assert_eq!(world.take_join(tickets[0]).unwrap().generation, 2);
    assert_eq!(world.take_join(tickets[1]).unwrap().generation, 2);
}

#[test]
fn metadata_has_a_bound_and_who_is_above_it_harms_nobody_else() {
    // A member with more than fits is refused; a member that grows too large is put out and the other goes on.
    let mut world = World::new();
    let members = world.stable(2);
    let large = |member_id: &str| {
        let metadata = Bytes::from(vec![0; GROUP_SIZE_BYTES_MAX]);
        JoinRequest { protocols: vec![Protocol { name: "range".into(), metadata }], ..dynamic(member_id) }
    };
    assert_eq!(world.joined(large("")).unwrap_err().error, GroupError::GroupMaxSizeReached);
    assert_eq!(world.state(), GroupState::Stable);
    assert_eq!(world.joined(large(&members[0])).unwrap_err().error, GroupError::GroupMaxSizeReached);
    let ticket = world.join(dynamic(&members[1]));
    assert_eq!(world.take_join(ticket).unwrap().members.len(), 1);
    let many =
        (0..=GROUP_PROTOCOL_COUNT_MAX).map(|index| Protocol { name: index.to_string().into(), metadata: Bytes::new() });
    let many = JoinRequest { protocols: many.chain(protocols(&["range"])).collect(), ..dynamic("") };
    assert_eq!(world.joined(many).unwrap_err().error, GroupError::InconsistentGroupProtocol);
}

#[test]
fn assignments_that_do_not_fit_are_refused() {
    // As Kafka refuses a record that is too large: to everybody who waits, and the group tries again.
    let mut world = World::new();
    let ticket = world.join(dynamic(""));
    world.pass_ms(3_000);
    let member_id = world.take_join(ticket).unwrap().member_id;
    let assignments = vec![(&*member_id, Bytes::from(vec![0; GROUP_SIZE_BYTES_MAX]))];
    let result = world.sync_with(SyncRequest { assignments, ..sync_request(&member_id, 1) });
    assert_eq!(result, Err(GroupError::TooLarge));
    assert_eq!(world.state(), GroupState::PreparingRebalance);
    assert!(world.kept.is_empty());
}

#[test]
fn a_shard_without_room_takes_no_more_members() {
    // No new group, no new member of an old one; those that are there go on.
    let mut world = World::new();
    let members = world.stable(1);
    world.room = Room { group_count: 0, size_bytes: 1 << 20 };
    let other = JoinRequest { group_id: "other".into(), ..dynamic("") };
    let refused = world.joined(other).unwrap_err();
    assert_eq!(refused.error, GroupError::CoordinatorNotAvailable);
    world.room = Room { group_count: 1, size_bytes: 100 };
    let refused = world.joined(dynamic("")).unwrap_err();
    assert_eq!(refused.error, GroupError::CoordinatorNotAvailable);
    assert_eq!(world.heartbeat(&members[0], 1), Ok(()));
}

#[test]
fn heartbeats_of_many_groups_cost_no_deadlines() {
    // 1,000 groups of 5: over ten minutes of heartbeats every 3 s each group is looked at about once a session.
    let mut world = World::new();
    world.is_checked = false;
    let mut members: Vec<(Box<str>, u32)> = Vec::new();
    for group in 0..1_000 {
        let group_id: Box<str> = format!("group-{group}").into();
        for _ in 0..5 {
            let request = JoinRequest { group_id: group_id.clone(), session_timeout_ms: 45_000, ..dynamic("") };
            members.push((group_id.clone(), world.join(request)));
        }
    }
    world.pass_ms(12_000);
    let joined = members.into_iter().map(|(group_id, ticket)| (group_id, world.take_join(ticket).unwrap().member_id));
    let members: Vec<(Box<str>, Box<str>)> = joined.collect();
    for (ticket, (group_id, member_id)) in members.iter().enumerate() {
        let request = SyncRequest { group_id, ..sync_request(member_id, 1) };
        world.event(|groups, context| groups.sync(ticket as u32, request, context));
    }
    let mut turns = 0;
    for _ in 0..200 {
        world.now.monotonic = world.now.monotonic + Duration::from_secs(3);
        let now = world.now.monotonic;
        for (group_id, member_id) in &members {
            assert_eq!(world.groups.heartbeat(group_id, member_id, None, 1, now), Ok(()));
        }
        while world.groups.next_deadline().is_some_and(|at| at <= now) {
            turns += 1;
            world.event(|groups, context| groups.tick(context));
        }
    }
    assert!(turns < 40, "{turns}");
    world.groups.check_books();
    let size_bytes = world.groups.size_bytes() / 1_000;
    assert!(size_bytes < 8 * 1024, "{size_bytes} bytes a group");
}
