//! How groups end, are kept and come back.

use super::world::*;
use crate::base::time::Timestamp;
use crate::coordinator::group::event::*;

fn leaving(member_id: &str) -> Leaving<'_> {
    Leaving { member_id, group_instance_id: None }
}

#[test]
fn a_group_whose_last_member_leaves_is_empty_and_kept() {
    // Two leave at once; the record has no member and the next generation.
    let mut world = World::new();
    let members = world.stable(2);
    world.pass_ms(1_000);
    assert_eq!(world.leave(&[leaving(&members[0]), leaving(&members[1])]), [Ok(()), Ok(())]);
    assert_eq!(world.state(), GroupState::Empty);
    let kept = &world.kept[GROUP];
    assert_eq!((kept.generation, kept.members.len(), &kept.leader, &kept.protocol), (2, 0, &None, &None));
    assert_eq!((kept.protocol_type.as_deref(), kept.current_state_timestamp), (Some("consumer"), world.now.wall));
    world.restart();
    assert_eq!((world.state(), world.generation()), (GroupState::Empty, 2));
}

#[test]
fn leaving_is_answered_for_each_member() {
    // A member, an unknown one, an id that was given out, a foreign instance id.
    let mut world = World::new();
    let members = world.stable_of(vec![fixed("one", ""), fixed("two", ""), dynamic("")]);
    let pending = world.new_id(dynamic(""));
    let foreign = Leaving { member_id: &members[0], group_instance_id: Some("two") };
    let results = world.leave(&[leaving(&pending), leaving("nobody"), foreign, leaving("")]);
    assert_eq!(
        results,
        [Ok(()), Err(GroupError::UnknownMemberId), Err(GroupError::FencedInstanceId), Err(GroupError::UnknownMemberId)]
    );
    assert_eq!(world.state(), GroupState::Stable, "no member has left");
    world.leave_one(&members[2]);
    assert_eq!(world.state(), GroupState::PreparingRebalance);
    let none = world.event(|groups, context| groups.leave("other", &[leaving("x")], context));
    assert_eq!(none, Ok(vec![Err(GroupError::UnknownMemberId)]));
}

#[test]
fn a_member_that_leaves_while_it_waits_is_answered() {
    // Its JoinGroup comes back with UNKNOWN_MEMBER_ID, so that it joins anew if it is still there.
    let mut world = World::new();
    let members = world.stable(2);
    let leader = world.groups.get(GROUP).unwrap().leader.clone().unwrap();
    let ticket = world.join(dynamic(&leader));
    world.leave_one(&leader);
    assert_eq!(world.take_join(ticket).unwrap_err().error, GroupError::UnknownMemberId);
    let other = members.iter().find(|member_id| **member_id != leader).unwrap();
    let ticket = world.join(dynamic(other));
    assert_eq!(world.take_join(ticket).unwrap().leader, *other);
}

#[test]
fn a_group_survives_a_restart_with_its_members_and_their_work() {
    // Sessions begin anew: the member is heard of just before their end.
    let mut world = World::new();
    let members = world.stable_of(vec![dynamic(""), fixed("one", "")]);
    let leader = world.groups.get(GROUP).unwrap().leader.clone().unwrap();
    world.pass_ms(SESSION_MS as u64 - 1);
    world.restart();
    world.pass_ms(SESSION_MS as u64 - 1);
    let group = world.groups.get(GROUP).unwrap();
    assert_eq!((group.state, group.generation, group.leader.as_ref()), (GroupState::Stable, 1, Some(&leader)));
    for member_id in &members {
        assert_eq!(world.heartbeat(member_id, 1), Ok(()));
        let synced = world.sync(member_id, 1, &[]);
        assert_eq!(world.take_sync(synced).unwrap().assignment, "work");
    }
    world.pass_ms(SESSION_MS as u64);
    assert_eq!(world.state(), GroupState::Empty);
}

#[test]
fn a_rebalance_that_no_record_was_written_of_is_lost_in_a_restart() {
    // The generation before it is in force: members that have joined the lost one are told so and join again.
    let mut world = World::new();
    let members = world.stable(2);
    let tickets: Vec<u32> = members.iter().map(|member_id| world.join(dynamic(member_id))).collect();
    // The leader's join has begun the rebalance, a follower's that came before it was answered at once.
    let _ = tickets;
    assert_eq!(world.state(), GroupState::CompletingRebalance);
    world.restart();
    assert_eq!(world.heartbeat(&members[0], 2), Err(GroupError::IllegalGeneration));
    assert_eq!(world.heartbeat(&members[0], 1), Ok(()));
}

#[test]
fn records_that_contradict_themselves_are_no_group() {
    // Members twice, no protocol; an unknown leader and a missing timeout are mended.
    let mut world = World::new();
    world.stable_of(vec![fixed("one", ""), fixed("two", "")]);
    let good = world.kept[GROUP].clone();
    let mut twice = good.clone();
    twice.members[1].member_id = twice.members[0].member_id.clone();
    let mut same_instance = good.clone();
    same_instance.members[1].group_instance_id = same_instance.members[0].group_instance_id.clone();
    let mut no_protocol = good.clone();
    no_protocol.protocol = None;
    let mut no_type = good.clone();
    no_type.protocol_type = Some("".into());
    for bad in [twice, same_instance, no_protocol, no_type] {
        world.kept.insert(GROUP.into(), bad);
        world.restart();
        assert!(!world.groups.has_group(GROUP));
        assert_eq!(world.groups.size_bytes(), 0);
    }
    let mut mended = good.clone();
    mended.leader = Some("nobody".into());
    mended.current_state_timestamp = Timestamp::NONE;
    mended.members[0].rebalance_timeout_ms = -1;
    world.kept.insert(GROUP.into(), mended);
    world.restart();
    let group = world.groups.get(GROUP).unwrap();
    assert_eq!(group.leader.as_ref(), Some(&good.members[0].member_id));
    assert_eq!(group.members[&good.members[0].member_id].rebalance_timeout_ms, SESSION_MS);
}

#[test]
fn the_last_record_of_a_group_counts() {
    // Restored over and over, then taken back.
    let mut world = World::new();
    world.stable(2);
    let snapshot = world.kept[GROUP].clone();
    let size_bytes = {
        world.restart();
        world.groups.size_bytes()
    };
    for _ in 0..3 {
        world.groups.restore(GROUP, Some(snapshot.clone()));
        assert_eq!((world.groups.count(), world.groups.size_bytes()), (1, size_bytes));
    }
    world.groups.restore(GROUP, None);
    assert_eq!((world.groups.count(), world.groups.size_bytes()), (0, 0));
    world.groups.restore("never", None);
}

#[test]
fn only_empty_groups_are_deleted() {
    // While the deletion is being written the group is dead; refused, it is there as before.
    let mut world = World::new();
    assert_eq!(world.groups.begin_delete(GROUP), Err(GroupError::GroupIdNotFound));
    let members = world.stable(1);
    assert_eq!(world.groups.begin_delete(GROUP), Err(GroupError::NonEmptyGroup));
    world.leave_one(&members[0]);
    let since = world.groups.get(GROUP).unwrap().since;
    assert_eq!(world.groups.begin_delete(GROUP), Ok(()));
    assert_eq!(world.groups.begin_delete(GROUP), Err(GroupError::GroupIdNotFound));
    let refused = world.joined(dynamic("")).unwrap_err();
    assert_eq!(refused.error, GroupError::CoordinatorNotAvailable);
    assert_eq!(world.heartbeat(&members[0], 2), Err(GroupError::CoordinatorNotAvailable));
    assert_eq!(world.sync_with(sync_request(&members[0], 2)), Err(GroupError::CoordinatorNotAvailable));
    let now = world.now.monotonic;
    let commit = world.groups.check_commit(GROUP, "", None, -1, false, now);
    assert_eq!(commit, Err(GroupError::CoordinatorNotAvailable));
    world.groups.end_delete(GROUP, false);
    assert_eq!((world.state(), world.groups.get(GROUP).unwrap().since), (GroupState::Empty, since));
    assert_eq!(world.groups.begin_delete(GROUP), Ok(()));
    world.groups.end_delete(GROUP, true);
    assert!(!world.groups.has_group(GROUP));
    assert_eq!(world.groups.size_bytes(), 0);
    world.groups.end_delete(GROUP, true);
}

#[test]
fn a_write_of_a_life_that_is_over_means_nothing() {
    // The group is deleted and made again while a write of the first one is under way.
    let mut world = World::new();
    world.writes = None;
    let ticket = world.join(dynamic(""));
    world.pass_ms(3_000);
    let first = world.take_join(ticket).unwrap().member_id;
    world.sync(&first, 1, &[(&first, "old")]);
    world.leave_one(&first);
    assert_eq!(world.groups.begin_delete(GROUP), Ok(()));
    world.groups.end_delete(GROUP, true);
    let ticket = world.join(dynamic(""));
    world.pass_ms(3_000);
    let second = world.take_join(ticket).unwrap().member_id;
    let waiting = world.sync(&second, 1, &[(&second, "new")]);
    world.write(Ok(()));
    world.write(Ok(()));
    assert!(!world.syncs.contains_key(&waiting));
    world.write(Ok(()));
    assert_eq!(world.take_sync(waiting).unwrap().assignment, "new");
}

#[test]
fn when_the_coordinator_ends_everybody_who_waits_is_told() {
    // One in JoinGroup, two in SyncGroup, of two groups.
    let mut world = World::new();
    world.writes = None;
    let other = |member_id: &str| JoinRequest { group_id: "other".into(), ..dynamic(member_id) };
    let joining = world.join(dynamic(""));
    let tickets = [world.join(other("")), world.join(other(""))];
    let begun = world.joined(JoinRequest { requires_member_id: true, ..dynamic("") });
    assert!(begun.is_err());
    world.pass_ms(6_000);
    let joined = tickets.map(|ticket| world.take_join(ticket).unwrap());
    let joining_again = world.join(dynamic(""));
    let syncing: Vec<u32> = joined
        .iter()
        .map(|one| {
            world.ticket_count += 1;
            let ticket = world.ticket_count;
            let request = SyncRequest { group_id: "other", ..sync_request(&one.member_id, 1) };
            world.event(|groups, context| groups.sync(ticket, request, context));
            ticket
        })
        .collect();
    assert!(world.joins.remove(&joining).is_none_or(|result| result.is_ok()));
    world.event(|groups, context| groups.unload(GroupError::NotCoordinator, context));
    assert_eq!(world.take_join(joining_again).unwrap_err().error, GroupError::NotCoordinator);
    for ticket in syncing {
        assert_eq!(world.take_sync(ticket), Err(GroupError::NotCoordinator));
    }
    assert_eq!((world.groups.count(), world.groups.size_bytes(), world.groups.next_deadline()), (0, 0, None));
}

#[test]
fn the_topics_of_consumers_are_known() {
    // Of two consumers one names "a" and the other one "b"; metadata that cannot be read may name anything, that of
    // other types names nothing.
    let mut world = World::new();
    let naming = |name: &str| {
        let metadata = [&[0, 0, 0, 0, 0, 1, 0, 1][..], name.as_bytes(), &[0, 0, 0, 0]].concat();
        let protocol = Protocol { name: "range".into(), metadata: metadata.into() };
        JoinRequest { protocols: vec![protocol], ..dynamic("") }
    };
    world.stable_of(vec![naming("a"), naming("b")]);
    let reads = |world: &World, topic| world.groups.is_subscribed_to(GROUP, topic);
    assert_eq!((reads(&world, "a"), reads(&world, "b"), reads(&world, "c")), (true, true, false));
    assert!(!world.groups.is_subscribed_to("other", "a"));
    let mut world = World::new();
    let members = world.stable(1);
    assert!(reads(&world, "a"));
    world.leave_one(&members[0]);
    assert!(!reads(&world, "a"));
    let mut world = World::new();
    world.stable_of(vec![JoinRequest { protocol_type: "connect".into(), ..naming("a") }]);
    assert!(!reads(&world, "a"));
}
