//! Who may join, and what each is told.

use super::world::*;
use crate::coordinator::group::event::*;
use crate::coordinator::group::groups::check_join;

fn error(result: JoinResult) -> GroupError {
    result.expect_err("refused").error
}

#[test]
fn a_new_member_is_given_an_id_and_joins_with_it() {
    // The id is the client's name and a UUID of version 4.
    let mut world = World::new();
    let member_id = world.new_id(dynamic(""));
    let (name, id) = member_id.split_at(7);
    assert_eq!(name, "client-");
    assert_eq!(uuid::Uuid::parse_str(id).unwrap().get_version_num(), 4);
    assert_eq!(world.state(), GroupState::Empty);
    let ticket = world.join(dynamic(&member_id));
    assert_eq!(world.state(), GroupState::PreparingRebalance);
    world.pass_ms(3_000);
    let joined = world.take_join(ticket).unwrap();
    assert_eq!((joined.generation, joined.leader, joined.member_id), (1, member_id.clone(), member_id));
    assert_eq!(joined.members.len(), 1);
}

#[test]
fn an_id_that_nobody_uses_is_forgotten_and_its_group_with_it() {
    // Within the session timeout; afterwards the id is unknown, and there was never a record to keep.
    let mut world = World::new();
    let member_id = world.new_id(dynamic(""));
    world.pass_ms(SESSION_MS as u64 - 1);
    assert!(world.groups.has_group(GROUP));
    world.pass_ms(1);
    assert!(!world.groups.has_group(GROUP));
    assert_eq!(world.groups.size_bytes(), 0);
    assert_eq!(error(world.joined(dynamic(&member_id))), GroupError::UnknownMemberId);
    assert!(!world.groups.has_group(GROUP));
}

#[test]
fn a_rebalance_waits_for_ids_that_were_given_out() {
    // Two members, a third one has its id: the rebalance of the other two is complete when it has joined.
    let mut world = World::new();
    let members = world.stable(2);
    let third = world.new_id(dynamic(""));
    assert_eq!(world.state(), GroupState::Stable);
    let fourth = world.join(dynamic(""));
    let again: Vec<u32> = members.iter().map(|member_id| world.join(dynamic(member_id))).collect();
    assert!(world.joins.is_empty());
    let third = world.join(dynamic(&third));
    for ticket in again.into_iter().chain([third, fourth]) {
        assert_eq!(world.take_join(ticket).unwrap().generation, 2);
    }
}

#[test]
fn requests_that_are_wrong_in_themselves_are_refused() {
    // What no group could take.
    let settings = World::new().settings;
    let check = |request| check_join(&request, &settings);
    assert_eq!(check(dynamic("")), Ok(()));
    assert_eq!(check(JoinRequest { group_id: "".into(), ..dynamic("") }), Err(GroupError::InvalidGroupId));
    let long: Box<str> = "x".repeat(40_000).into();
    assert_eq!(check(JoinRequest { group_id: long.clone(), ..dynamic("") }), Err(GroupError::InvalidGroupId));
    assert_eq!(check(JoinRequest { client_id: long.clone(), ..dynamic("") }), Err(GroupError::InvalidRequest));
    assert_eq!(check(fixed(&long, "")), Err(GroupError::InvalidRequest));
    for (timeout_ms, expected) in
        [(-1, false), (0, false), (5_999, false), (6_000, true), (1_800_000, true), (1_800_001, false)]
    {
        let result = check(JoinRequest { session_timeout_ms: timeout_ms, ..dynamic("") });
        assert_eq!(result.is_ok(), expected, "{timeout_ms}: {result:?}");
        assert!(expected || result == Err(GroupError::InvalidSessionTimeout));
    }
}

#[test]
fn a_member_must_have_a_protocol_that_all_others_have() {
    // Of the same type, too. An empty group takes any type, but not none.
    let mut world = World::new();
    let none = JoinRequest { protocols: Vec::new(), ..dynamic("") };
    assert_eq!(error(world.joined(none)), GroupError::InconsistentGroupProtocol);
    let no_type = JoinRequest { protocol_type: "".into(), ..dynamic("") };
    assert_eq!(error(world.joined(no_type)), GroupError::InconsistentGroupProtocol);
    assert!(!world.groups.has_group(GROUP));
    let members = world.stable(1);
    let other = JoinRequest { protocols: protocols(&["sticky"]), ..dynamic("") };
    assert_eq!(error(world.joined(other)), GroupError::InconsistentGroupProtocol);
    let connect = JoinRequest { protocol_type: "connect".into(), ..dynamic("") };
    assert_eq!(error(world.joined(connect.clone())), GroupError::InconsistentGroupProtocol);
    assert_eq!(world.state(), GroupState::Stable);
    world.leave_one(&members[0]);
    assert_eq!(world.state(), GroupState::Empty);
    let ticket = world.join(connect);
    world.pass_ms(3_000);
    assert_eq!(world.take_join(ticket).unwrap().protocol_type.as_deref(), Some("connect"));
}

#[test]
fn a_refused_member_is_told_the_id_it_came_with() {
    // So that it can tell what it was refused for: Kafka's clients keep or drop the id by it.
    let mut world = World::new();
    let members = world.stable(1);
    let other = JoinRequest { protocols: protocols(&["sticky"]), ..dynamic(&members[0]) };
    assert_eq!(world.joined(other).unwrap_err().member_id, members[0]);
    let unknown = world.joined(dynamic("nobody")).unwrap_err();
    assert_eq!((unknown.error, &*unknown.member_id), (GroupError::UnknownMemberId, "nobody"));
}

#[test]
fn a_foreign_instance_id_is_refused() {
    // One that nobody has is unknown, somebody else's is fenced; so is an id given out to a dynamic member.
    let mut world = World::new();
    let members = world.stable_of(vec![fixed("one", ""), fixed("two", ""), dynamic("")]);
    assert_eq!(error(world.joined(fixed("three", &members[0]))), GroupError::UnknownMemberId);
    assert_eq!(error(world.joined(fixed("two", &members[0]))), GroupError::FencedInstanceId);
    assert_eq!(error(world.joined(fixed("two", "nobody"))), GroupError::FencedInstanceId);
    let pending = world.new_id(dynamic(""));
    assert_eq!(error(world.joined(fixed("three", &pending))), GroupError::UnknownMemberId);
    assert_eq!(world.state(), GroupState::Stable);
}

#[test]
fn one_member_leads_and_is_told_of_all_others_are_told_of_none() {
    // The metadata is that of the chosen protocol; instance ids are passed on.
    let mut world = World::new();
    let tickets = [world.join(dynamic("")), world.join(fixed("static", "")), world.join(dynamic(""))];
    world.pass_ms(6_000);
    let joined = tickets.map(|ticket| world.take_join(ticket).unwrap());
    let leader = &joined[0].leader;
    for one in &joined {
        assert_eq!((&one.leader, one.generation, one.protocol.as_deref()), (leader, 1, Some("range")));
        assert_eq!(one.members.len(), if one.member_id == *leader { 3 } else { 0 });
        assert!(!one.skip_assignment);
    }
    let all = &joined.iter().find(|one| one.member_id == *leader).unwrap().members;
    assert!(all.iter().all(|member| member.metadata == "range"));
    let instances: Vec<_> = all.iter().filter_map(|member| member.group_instance_id.as_deref()).collect();
    assert_eq!(instances, ["static"]);
}

#[test]
fn the_protocol_is_the_one_that_most_like_best_of_those_that_all_have() {
    // "sticky" is liked best by two of three, but the third does not have it; then two of three prefer "b".
    let mut world = World::new();
    let lists: [&[&'static str]; 3] = [&["sticky", "a", "b"], &["sticky", "b", "a"], &["b", "a"]];
    let tickets = lists.map(|names| world.join(JoinRequest { protocols: protocols(names), ..dynamic("") }));
    world.pass_ms(6_000);
    for ticket in tickets {
        assert_eq!(world.take_join(ticket).unwrap().protocol.as_deref(), Some("b"));
    }
}

#[test]
fn a_protocol_that_is_offered_twice_counts_once() {
    // By one of two members; the first of the two counts.
    let mut world = World::new();
    let mut twice = protocols(&["range", "range", "roundrobin", "range"]);
    twice[1].metadata = "second".into();
    let tickets = [world.join(JoinRequest { protocols: twice, ..dynamic("") }), world.join(dynamic(""))];
    world.pass_ms(6_000);
    let joined = tickets.map(|ticket| world.take_join(ticket).unwrap());
    assert_eq!(joined[0].protocol.as_deref(), Some("range"));
    let leader = joined.iter().find(|one| !one.members.is_empty()).unwrap();
    assert!(leader.members.iter().all(|member| member.metadata == "range"));
}

#[test]
fn a_follower_that_joins_again_unchanged_is_told_what_it_knew() {
    // In Stable and in CompletingRebalance, where an answer may have been lost. The leader's own join rebalances.
    let mut world = World::new();
    let mut members = world.stable(2);
    members.sort_by_key(|member_id| !world.groups.get(GROUP).unwrap().is_leader(member_id));
    let told = world.joined(dynamic(&members[1])).unwrap();
    assert_eq!((told.generation, told.members.len()), (1, 0));
    let leading = world.join(dynamic(&members[0]));
    assert_eq!(world.state(), GroupState::PreparingRebalance);
    let following = world.join(dynamic(&members[1]));
    let (leading, following) = (world.take_join(leading).unwrap(), world.take_join(following).unwrap());
    assert_eq!(world.state(), GroupState::CompletingRebalance);
    assert_eq!(world.joined(dynamic(&members[0])).unwrap(), leading);
    assert_eq!(world.joined(dynamic(&members[1])).unwrap(), following);
    assert_eq!(world.state(), GroupState::CompletingRebalance);
}

#[test]
fn a_member_whose_metadata_has_changed_rebalances_the_group() {
    // A follower with another subscription, in Stable and then in CompletingRebalance.
    let mut world = World::new();
    let mut members = world.stable(2);
    members.sort_by_key(|member_id| !world.groups.get(GROUP).unwrap().is_leader(member_id));
    let changed = |names| JoinRequest { protocols: protocols(names), ..dynamic(&members[1]) };
    let ticket = world.join(changed(&["range"]));
    assert_eq!(world.heartbeat(&members[0], 1), Err(GroupError::RebalanceInProgress));
    let leading = world.join(dynamic(&members[0]));
    assert_eq!(world.take_join(ticket).unwrap().generation, 2);
    assert_eq!(world.take_join(leading).unwrap().protocol.as_deref(), Some("range"));
    let ticket = world.join(changed(&["range", "sticky"]));
    assert_eq!(world.state(), GroupState::PreparingRebalance);
    let leading = world.join(dynamic(&members[0]));
    assert_eq!(world.take_join(leading).unwrap().generation, 3);
    assert_eq!(world.take_join(ticket).unwrap().generation, 3);
}

#[test]
fn a_member_that_asks_twice_is_answered_twice() {
    // The second JoinGroup, and likewise the second SyncGroup, takes the place of the first one.
    let mut world = World::new();
    let member_id = world.new_id(dynamic(""));
    let first = world.join(dynamic(&member_id));
    let second = world.join(dynamic(&member_id));
    assert_eq!(error(world.take_join(first)), GroupError::RebalanceInProgress);
    let other = world.join(dynamic(""));
    world.pass_ms(6_000);
    let joined = world.take_join(second).unwrap();
    let follower = [joined, world.take_join(other).unwrap()].into_iter().find(|one| one.members.is_empty()).unwrap();
    let first = world.sync(&follower.member_id, 1, &[]);
    let second = world.sync(&follower.member_id, 1, &[]);
    assert_eq!(world.take_sync(first), Err(GroupError::RebalanceInProgress));
    world.sync(&follower.leader, 1, &[(&follower.member_id, "yours")]);
    assert_eq!(world.take_sync(second).unwrap().assignment, "yours");
}
