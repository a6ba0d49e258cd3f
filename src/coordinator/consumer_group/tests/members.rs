//! Who is let in, who is fenced, and who may commit.

use super::world::*;
use crate::coordinator::consumer_group::Assignment;
use crate::coordinator::consumer_group::event::HeartbeatRequest;
use crate::coordinator::consumer_group::groups::check_heartbeat;
use crate::coordinator::consumer_group::member::AWAY_EPOCH;
use crate::coordinator::group::event::GroupError;

fn fixed<'a>(member_id: &'a str, instance_id: &'a str) -> HeartbeatRequest<'a> {
    HeartbeatRequest { instance_id: Some(instance_id), ..joining(member_id, &["a"]) }
}

#[test]
fn requests_that_are_wrong_in_themselves_are_refused() {
    // What no group could take, by Kafka's rules.
    let settings = World::new(&[]).settings;
    let check = |request: &HeartbeatRequest<'_>| check_heartbeat(request, &settings);
    let join = joining("m", &["a"]);
    assert_eq!(check(&join), Ok(()));
    assert_eq!(check(&HeartbeatRequest { topics: Some(Vec::new()), ..join.clone() }), Ok(()));
    assert_eq!(check(&HeartbeatRequest { topics: None, regex: Some("a"), ..join.clone() }), Ok(()));
    assert_eq!(check(&HeartbeatRequest { member_id: "", requires_member_id: false, ..join.clone() }), Ok(()));
    let long = "x".repeat(40_000);
    let wrong = [
        HeartbeatRequest { group_id: " ", ..join.clone() },
        HeartbeatRequest { group_id: &long, ..join.clone() },
        HeartbeatRequest { member_id: "", ..join.clone() },
        HeartbeatRequest { instance_id: Some(""), ..join.clone() },
        HeartbeatRequest { rack_id: Some(""), ..join.clone() },
        HeartbeatRequest { rebalance_timeout_ms: -1, ..join.clone() },
        HeartbeatRequest { topics: None, ..join.clone() },
        HeartbeatRequest { owned: None, ..join.clone() },
        HeartbeatRequest { owned: Some(World::new(&[]).of(&[("a", &[0])])), ..join.clone() },
        HeartbeatRequest { member_id: "", requires_member_id: false, ..going_on("", 1) },
        HeartbeatRequest { client_id: &long, ..join.clone() },
        going_on("m", AWAY_EPOCH),
        going_on("m", -3),
    ];
    for request in wrong {
        assert_eq!(check(&request), Err(GroupError::InvalidRequest), "{request:.60?}");
    }
}

#[test]
fn an_old_client_is_given_an_id() {
    let mut world = World::new(&[("a", 1)]);
    let request = HeartbeatRequest { requires_member_id: false, ..joining("", &["a"]) };
    let joined = world.heartbeat(request).unwrap();
    assert!(uuid::Uuid::parse_str(&joined.member_id).is_ok());
    assert!(world.go_on(&joined.member_id, 1, None).is_ok());
}

#[test]
fn groups_and_members_that_are_not_there_are_unknown() {
    let mut world = World::new(&[("a", 1)]);
    assert_eq!(world.go_on("m1", 1, None), Err(GroupError::GroupIdNotFound));
    assert!(!world.groups.has_group(GROUP));
    world.join("m1", &["a"]);
    for epoch in [1, -1] {
        assert_eq!(world.go_on("m2", epoch, None), Err(GroupError::UnknownMemberId));
    }
}

#[test]
fn a_member_of_another_epoch_is_fenced_unless_an_answer_was_lost() {
    // The epoch before counts if the member has nothing but what it was given since.
    let mut world = World::new(&[("a", 2)]);
    world.join("m1", &["a"]);
    world.topics.set("a", 3);
    assert_eq!(world.go_on("m1", 1, None).unwrap().member_epoch, 2);
    let (two, three) = (world.of(&[("a", &[0, 1])]), world.of(&[("a", &[0, 3])]));
    assert_eq!(world.go_on("m1", 1, Some(&two)).unwrap().member_epoch, 2);
    assert_eq!(world.go_on("m1", 1, Some(&three)), Err(GroupError::FencedMemberEpoch));
    assert_eq!(world.go_on("m1", 1, None), Err(GroupError::FencedMemberEpoch));
    assert_eq!(world.go_on("m1", 3, Some(&two)), Err(GroupError::FencedMemberEpoch));
    // Whoever is fenced joins again under its id, has nothing, and is given everything.
    let joined = world.join("m1", &["a"]);
    assert_eq!((joined.member_epoch, told(&joined)), (2, world.of(&[("a", &[0, 1, 2])])));
}

#[test]
fn a_lost_answer_is_given_again_to_who_tells_everything() {
    let mut world = World::new(&[("a", 2)]);
    world.join("m1", &["a"]);
    let full = HeartbeatRequest { owned: Some(Assignment::new()), member_epoch: 1, ..joining("m1", &["a"]) };
    assert_eq!(told(&world.heartbeat(full).unwrap()), world.of(&[("a", &[0, 1])]));
}

#[test]
fn a_full_group_takes_nobody_else() {
    let mut world = World::new(&[("a", 2)]);
    world.settings.member_count_max = 2;
    world.join("m1", &["a"]);
    world.join("m2", &["a"]);
    assert_eq!(world.heartbeat(joining("m3", &["a"])), Err(GroupError::GroupMaxSizeReached));
    world.join("m2", &["a"]);
}

#[test]
fn a_static_member_comes_back_to_its_place() {
    // It has left for a while: its partitions stay its own, and the group does not move.
    let mut world = World::new(&[("a", 4)]);
    world.heartbeat(fixed("m1", "i1")).unwrap();
    world.heartbeat(fixed("m2", "i2")).unwrap();
    let before = world.converge();
    let epoch = world.group().epoch;
    let away = HeartbeatRequest { instance_id: Some("i1"), ..going_on("m1", AWAY_EPOCH) };
    assert_eq!(world.heartbeat(away).unwrap().member_epoch, AWAY_EPOCH);
    assert_eq!(world.go_on("m1", epoch, None), Err(GroupError::FencedMemberEpoch));
    world.go_on("m2", epoch, None).unwrap();
    let back = world.heartbeat(fixed("m3", "i1")).unwrap();
    assert_eq!((back.member_epoch, told(&back)), (epoch, before["m1"].clone()));
    assert_eq!((world.group().epoch, world.members().len()), (epoch, 2));
    let old = HeartbeatRequest { instance_id: Some("i1"), ..going_on("m1", epoch) };
    assert_eq!(world.heartbeat(old), Err(GroupError::FencedInstanceId));
    assert!(!world.log[GROUP].profiles.contains_key("m1"));
}

#[test]
fn an_instance_id_is_its_members_until_that_has_left() {
    let mut world = World::new(&[("a", 4)]);
    world.heartbeat(fixed("m1", "i1")).unwrap();
    assert_eq!(world.heartbeat(fixed("m2", "i1")), Err(GroupError::UnreleasedInstanceId));
    let unknown = HeartbeatRequest { instance_id: Some("i2"), ..going_on("m1", 1) };
    assert_eq!(world.heartbeat(unknown), Err(GroupError::UnknownMemberId));
    // One that stays away longer than its session is gone.
    world.heartbeat(HeartbeatRequest { instance_id: Some("i1"), ..going_on("m1", AWAY_EPOCH) }).unwrap();
    world.pass_ms(SESSION_MS);
    assert!(world.members().is_empty());
    world.heartbeat(fixed("m2", "i1")).unwrap();
}

#[test]
fn who_commits_or_asks_for_offsets_must_be_of_the_current_epoch() {
    // Without members anybody may who claims nothing; members need versions that have their epoch.
    let mut world = World::new(&[("a", 2)]);
    world.join("m1", &["a"]);
    let commit = |world: &mut World, member: &str, epoch, version| {
        world.groups.check_commit(GROUP, member, None, epoch, false, version).unwrap()
    };
    assert_eq!(commit(&mut world, "m1", 1, 9), Ok(()));
    assert_eq!(commit(&mut world, "m1", 1, 8), Err(GroupError::UnsupportedVersion));
    assert_eq!(commit(&mut world, "m1", 0, 9), Err(GroupError::StaleMemberEpoch));
    assert_eq!(commit(&mut world, "m2", 1, 9), Err(GroupError::UnknownMemberId));
    assert_eq!(commit(&mut world, "", -1, 9), Err(GroupError::UnknownMemberId));
    let fetch = |world: &World, member, epoch| world.groups.check_fetch(GROUP, member, epoch).unwrap();
    assert_eq!(fetch(&world, Some("m1"), 1), Ok(()));
    assert_eq!(fetch(&world, Some("m1"), 2), Err(GroupError::StaleMemberEpoch));
    assert_eq!(fetch(&world, Some("m2"), 1), Err(GroupError::UnknownMemberId));
    assert_eq!(fetch(&world, None, -1), Ok(()));
    // A transaction's producer need not claim anything; what it claims is looked at.
    let in_transaction = |member, epoch| world.groups.check_commit(GROUP, member, None, epoch, true, 3).unwrap();
    assert_eq!((in_transaction("", -1), in_transaction("m1", 1)), (Ok(()), Ok(())));
    assert_eq!(in_transaction("m1", 2), Err(GroupError::StaleMemberEpoch));
    world.heartbeat(going_on("m1", -1)).unwrap();
    assert_eq!(commit(&mut world, "", -1, 2), Ok(()));
    assert!(world.groups.check_commit("other", "", None, -1, false, 9).is_none());
}

#[test]
fn a_group_is_deleted_when_it_is_empty() {
    let mut world = World::new(&[("a", 2)]);
    world.join("m1", &["a"]);
    assert_eq!(world.groups.begin_delete(GROUP), Err(GroupError::NonEmptyGroup));
    assert_eq!(world.groups.begin_delete("other"), Err(GroupError::GroupIdNotFound));
    world.heartbeat(going_on("m1", -1)).unwrap();
    let changes = world.groups.begin_delete(GROUP).unwrap();
    // Dead until that is written.
    assert_eq!(world.heartbeat(joining("m1", &["a"])), Err(GroupError::CoordinatorNotAvailable));
    assert_eq!(world.groups.begin_delete(GROUP), Err(GroupError::GroupIdNotFound));
    let kept = world.log.get_mut(GROUP).unwrap();
    changes.into_iter().for_each(|change| kept.apply(change));
    assert!(kept.is_nothing());
    world.groups.end_delete(GROUP, false);
    world.join("m1", &["a"]);
    world.heartbeat(going_on("m1", -1)).unwrap();
    world.groups.begin_delete(GROUP).unwrap();
    world.groups.end_delete(GROUP, true);
    assert!(!world.groups.has_group(GROUP) && world.groups.size_bytes() == 0);
}
