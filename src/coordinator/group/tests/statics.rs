//! Static members: those with a `group.instance.id`.

use super::world::*;
use crate::coordinator::group::event::*;

fn skipping(request: JoinRequest) -> JoinRequest {
    JoinRequest { can_skip_assignment: true, ..request }
}

fn leader_and_other(world: &World, members: &[Box<str>]) -> (usize, usize) {
    let leader = world.groups.get(GROUP).unwrap().leader.clone().unwrap();
    let leading = members.iter().position(|member_id| *member_id == leader).unwrap();
    (leading, 1 - leading)
}

const NAMES: [&str; 2] = ["one", "two"];

#[test]
fn a_static_member_that_comes_back_takes_its_place_without_a_rebalance() {
    // The follower of two, under a new id; it keeps its assignment and its old id is fenced. It is written first.
    let mut world = World::new();
    let members = world.stable_of(vec![fixed("one", ""), fixed("two", "")]);
    let (leading, other) = leader_and_other(&world, &members);
    world.writes = None;
    let ticket = world.join(skipping(fixed(NAMES[other], "")));
    assert!(world.joins.is_empty());
    world.write(Ok(()));
    let joined = world.take_join(ticket).unwrap();
    assert_ne!(joined.member_id, members[other]);
    assert!(joined.member_id.starts_with(NAMES[other]));
    assert_eq!((joined.generation, joined.leader), (1, members[leading].clone()));
    assert_eq!((joined.skip_assignment, joined.members.len()), (false, 0));
    assert_eq!(world.state(), GroupState::Stable);
    let synced = world.sync(&joined.member_id, 1, &[]);
    assert_eq!(world.take_sync(synced).unwrap().assignment, "work");
    assert_eq!(world.heartbeat(&members[leading], 1), Ok(()));
    let now = world.now.monotonic;
    let old = world.groups.heartbeat(GROUP, &members[other], Some(NAMES[other]), 1, now);
    assert_eq!(old, Err(GroupError::FencedInstanceId));
    assert_eq!(world.heartbeat(&members[other], 1), Err(GroupError::UnknownMemberId));
    let kept = &world.kept[GROUP].members;
    assert!(kept.iter().any(|kept| kept.member_id == joined.member_id && kept.assignment == "work"));
}

#[test]
fn a_leader_that_comes_back_is_told_not_to_assign() {
    // JoinGroup 9 says so; an older client is told that its old id leads, so that it does not.
    for can_skip in [true, false] {
        let mut world = World::new();
        let members = world.stable_of(vec![fixed("one", ""), fixed("two", "")]);
        let (leading, _) = leader_and_other(&world, &members);
        let request = JoinRequest { can_skip_assignment: can_skip, ..fixed(NAMES[leading], "") };
        let joined = world.joined(request).unwrap();
        assert_eq!(world.state(), GroupState::Stable);
        assert_eq!(world.groups.get(GROUP).unwrap().leader.as_ref(), Some(&joined.member_id));
        if can_skip {
            assert_eq!((&joined.leader, joined.skip_assignment), (&joined.member_id, true));
            assert_eq!(joined.members.len(), 2);
        } else {
            assert_eq!((joined.leader, joined.skip_assignment), (members[leading].clone(), false));
            assert!(joined.members.is_empty());
        }
    }
}

#[test]
fn a_static_member_that_comes_back_with_other_protocols_rebalances_if_the_choice_changes() {
    // "range" was chosen; it comes back without it. What it says about itself otherwise does not matter.
    let mut world = World::new();
    let members = world.stable_of(vec![fixed("one", ""), fixed("two", "")]);
    let changed = JoinRequest { protocols: protocols(&["roundrobin"]), ..fixed("two", "") };
    world.join(changed);
    assert_eq!(world.state(), GroupState::PreparingRebalance);
    let again = world.join(fixed("one", &members[0]));
    assert_eq!(world.take_join(again).unwrap().protocol.as_deref(), Some("roundrobin"));
}

#[test]
fn a_static_member_whose_return_cannot_be_kept_has_not_come_back() {
    // It is told so; the old id is good again.
    let mut world = World::new();
    let members = world.stable_of(vec![fixed("one", ""), fixed("two", "")]);
    world.writes = Some(Err(GroupError::CoordinatorNotAvailable));
    let refused = world.joined(fixed("two", "")).unwrap_err();
    assert_eq!((refused.error, &*refused.member_id), (GroupError::CoordinatorNotAvailable, ""));
    let now = world.now.monotonic;
    assert_eq!(world.groups.heartbeat(GROUP, &members[1], Some("two"), 1, now), Ok(()));
    assert_eq!(world.state(), GroupState::Stable);
}

#[test]
fn a_rebalance_that_begins_while_a_return_is_written_answers_it() {
    // A new member joins before the write comes out: the returned one has joined that rebalance.
    let mut world = World::new();
    let members = world.stable_of(vec![fixed("one", ""), fixed("two", "")]);
    world.writes = None;
    let returned = world.join(fixed("two", ""));
    let third = world.join(dynamic(""));
    world.write(Ok(()));
    assert!(world.joins.is_empty());
    let first = world.join(fixed("one", &members[0]));
    for ticket in [returned, third, first] {
        assert_eq!(world.take_join(ticket).unwrap().generation, 2);
    }
}

#[test]
fn who_waits_under_an_old_id_is_fenced() {
    // In JoinGroup and in SyncGroup.
    let mut world = World::new();
    let first = world.join(fixed("one", ""));
    let second = world.join(fixed("one", ""));
    assert_eq!(world.take_join(first).unwrap_err().error, GroupError::FencedInstanceId);
    let other = world.join(fixed("two", ""));
    world.pass_ms(6_000);
    let joined = [world.take_join(second).unwrap(), world.take_join(other).unwrap()];
    let follower = joined.iter().find(|one| one.members.is_empty()).unwrap();
    let instance_id = if follower.member_id.starts_with("one") { "one" } else { "two" };
    let waiting = world.sync(&follower.member_id, 1, &[]);
    // The leader may have been told of the old id, so everybody joins again.
    world.join(fixed(instance_id, ""));
    assert_eq!(world.take_sync(waiting), Err(GroupError::FencedInstanceId));
    assert_eq!(world.state(), GroupState::PreparingRebalance);
}

#[test]
fn an_operator_removes_static_members_by_their_names() {
    // Several at once, of which one is unknown: one rebalance of those who are left.
    let mut world = World::new();
    let members = world.stable_of(vec![fixed("one", ""), fixed("two", ""), fixed("three", ""), dynamic("")]);
    let by_name = |name| Leaving { member_id: "", group_instance_id: Some(name) };
    let results = world.leave(&[by_name("one"), by_name("four"), by_name("two")]);
    assert_eq!(results, [Ok(()), Err(GroupError::UnknownMemberId), Ok(())]);
    let tickets = [world.join(fixed("three", &members[2])), world.join(dynamic(&members[3]))];
    for ticket in tickets {
        assert_eq!(world.take_join(ticket).unwrap().generation, 2);
    }
}
