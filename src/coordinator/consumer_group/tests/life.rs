//! How a group comes to its assignment: joining, giving up, leaving, topics that change.

use std::time::Duration;

use super::world::*;
use crate::coordinator::consumer_group::assignor::Assignor;
use crate::coordinator::consumer_group::event::{HeartbeatRequest, Timeouts};
use crate::coordinator::consumer_group::group::GroupState;
use crate::coordinator::consumer_group::{Assignment, count_of};
use crate::coordinator::group::event::GroupError;

#[test]
fn the_first_member_is_given_everything_at_once() {
    let mut world = World::new(&[("a", 3), ("b", 1)]);
    let joined = world.join("m1", &["a", "b", "gone"]);
    assert_eq!((&*joined.member_id, joined.member_epoch), ("m1", 1));
    assert_eq!(told(&joined), world.of(&[("a", &[0, 1, 2]), ("b", &[0])]));
    assert_eq!(world.state(), GroupState::Stable);
    // Nothing has changed: nothing is told again and nothing is written.
    let log = world.log.clone();
    let again = world.go_on("m1", 1, None).unwrap();
    assert_eq!((again.member_epoch, again.assignment), (1, None));
    assert_eq!(world.log, log);
}

#[test]
fn a_second_member_is_given_what_the_first_has_given_up() {
    // The second one's epoch is the target's at once, with nothing; the first one stays in its epoch until it has
    // given up; the partitions change hands when it says so.
    let mut world = World::new(&[("a", 4)]);
    world.join("m1", &["a"]);
    let second = world.join("m2", &["a"]);
    assert_eq!((second.member_epoch, told(&second)), (2, Assignment::new()));
    assert_eq!(world.state(), GroupState::Reconciling);
    let all = world.of(&[("a", &[0, 1, 2, 3])]);
    let first = world.go_on("m1", 1, Some(&all)).unwrap();
    let kept = told(&first);
    assert_eq!((first.member_epoch, count_of(&kept)), (1, 2));
    assert_eq!(world.go_on("m2", 2, None).unwrap().assignment, None);
    // Still busy.
    assert_eq!(world.go_on("m1", 1, None).unwrap().member_epoch, 1);
    assert_eq!(world.go_on("m1", 1, Some(&kept)).unwrap().member_epoch, 2);
    let second = world.go_on("m2", 2, None).unwrap();
    assert_eq!(count_of(&told(&second)), 2);
    assert_eq!(world.state(), GroupState::Stable);
    world.group().check_exclusive();
}

#[test]
fn what_a_member_leaves_the_others_are_given() {
    let mut world = World::new(&[("a", 4)]);
    world.join("m1", &["a"]);
    world.join("m2", &["a"]);
    world.converge();
    let left = world.heartbeat(going_on("m1", -1)).unwrap();
    assert_eq!((&*left.member_id, left.member_epoch, left.assignment), ("m1", -1, None));
    assert_eq!(world.state(), GroupState::Assigning);
    let assigned = world.converge();
    assert_eq!(assigned.into_iter().collect::<Vec<_>>(), [("m2".to_owned(), world.of(&[("a", &[0, 1, 2, 3])]))]);
    world.heartbeat(going_on("m2", -1)).unwrap();
    assert_eq!(world.state(), GroupState::Empty);
    assert!(world.group().members().len() == 0 && world.group().targets.is_empty());
}

#[test]
fn a_member_that_is_silent_for_its_session_timeout_is_gone() {
    let mut world = World::new(&[("a", 2)]);
    world.join("m1", &["a"]);
    world.join("m2", &["a"]);
    world.converge();
    world.pass_ms(SESSION_MS - 1);
    let epoch = world.group().target_epoch;
    world.go_on("m1", epoch, None).unwrap();
    world.pass_ms(1);
    assert_eq!(world.members().len(), 1);
    assert_eq!(world.go_on("m2", epoch, None), Err(GroupError::UnknownMemberId));
    assert_eq!(world.converge()["m1"], world.of(&[("a", &[0, 1])]));
    world.pass_ms(SESSION_MS);
    assert_eq!(world.state(), GroupState::Empty);
}

#[test]
fn a_group_may_have_timeouts_of_its_own() {
    // They hold from the next heartbeat on; other groups have the broker's.
    let mut world = World::new(&[("a", 2)]);
    assert_eq!(world.join("m1", &["a"]).interval, Duration::from_millis(INTERVAL_MS));
    let own = Timeouts { session: Duration::from_secs(10), heartbeat_interval: Duration::from_secs(1) };
    world.settings.timeouts_of.insert(GROUP.into(), own);
    assert_eq!(world.go_on("m1", 1, None).unwrap().interval, Duration::from_secs(1));
    world.pass_ms(9_999);
    assert_eq!(world.members().len(), 1);
    world.pass_ms(1);
    assert_eq!(world.members().len(), 0);
    let other = world.heartbeat(HeartbeatRequest { group_id: "other", ..joining("m1", &["a"]) }).unwrap();
    assert_eq!(other.interval, Duration::from_millis(INTERVAL_MS));
}

#[test]
fn a_member_that_does_not_give_up_within_its_rebalance_timeout_is_gone() {
    // Its heartbeats go on meanwhile.
    let mut world = World::new(&[("a", 2)]);
    world.join("m1", &["a"]);
    world.join("m2", &["a"]);
    let all = world.of(&[("a", &[0, 1])]);
    world.go_on("m1", 1, Some(&all)).unwrap();
    for _ in 0..REBALANCE_MS / 1000 - 1 {
        world.pass_ms(1000);
        world.go_on("m1", 1, Some(&all)).unwrap();
        world.go_on("m2", 2, None).unwrap();
    }
    world.pass_ms(1000);
    assert_eq!(world.go_on("m1", 1, Some(&all)), Err(GroupError::UnknownMemberId));
    assert_eq!(world.converge()["m2"], all);
}

#[test]
fn a_topic_that_comes_grows_or_goes_moves_the_group() {
    // Seen at the next heartbeat.
    let mut world = World::new(&[("a", 1)]);
    world.join("m1", &["a", "b"]);
    world.topics.set("b", 2);
    let grown = world.go_on("m1", 1, None).unwrap();
    assert_eq!((grown.member_epoch, told(&grown)), (2, world.of(&[("a", &[0]), ("b", &[0, 1])])));
    world.topics.set("a", 3);
    assert_eq!(told(&world.go_on("m1", 2, None).unwrap()), world.of(&[("a", &[0, 1, 2]), ("b", &[0, 1])]));
    // A topic of no interest does not.
    world.topics.set("c", 3);
    assert_eq!(world.go_on("m1", 3, None).unwrap().member_epoch, 3);
    world.topics.set("b", 0);
    let left = world.of(&[("a", &[0, 1, 2])]);
    assert_eq!(told(&world.go_on("m1", 3, None).unwrap()), left);
    assert_eq!(world.converge()["m1"], left);
}

#[test]
fn a_pattern_follows_the_topics_that_it_matches() {
    // Looked at again when topics have changed, but not more often than the pause allows.
    let mut world = World::new(&[("orders-1", 1), ("other", 1)]);
    let regex = HeartbeatRequest { topics: None, regex: Some("orders-.*"), ..joining("m1", &[]) };
    let joined = world.heartbeat(regex).unwrap();
    assert_eq!(told(&joined), world.of(&[("orders-1", &[0])]));
    world.topics.set("orders-2", 2);
    assert_eq!(world.go_on("m1", 1, None).unwrap().member_epoch, 1);
    world.pass_ms(5_000);
    let grown = world.go_on("m1", 1, None).unwrap();
    assert_eq!((grown.member_epoch, count_of(&told(&grown))), (2, 3));
    // Together with names; taken back by an empty one.
    let names = HeartbeatRequest { topics: Some(vec!["other"]), ..going_on("m1", 2) };
    assert_eq!(count_of(&told(&world.heartbeat(names).unwrap())), 4);
    let none = HeartbeatRequest { regex: Some(""), ..going_on("m1", 3) };
    world.heartbeat(none).unwrap();
    assert_eq!(world.converge()["m1"], world.of(&[("other", &[0])]));
    assert!(world.log[GROUP].regexes.is_empty() && world.group().regexes.is_empty());
    let wrong = HeartbeatRequest { regex: Some("("), ..going_on("m1", world.group().target_epoch) };
    assert_eq!(world.heartbeat(wrong), Err(GroupError::InvalidRegularExpression));
}

#[test]
fn the_assignor_that_most_members_want_assigns() {
    let mut world = World::new(&[("a", 4), ("b", 4)]);
    let wanting = |member_id, assignor| HeartbeatRequest { assignor, ..joining(member_id, &["a", "b"]) };
    world.heartbeat(wanting("m1", None)).unwrap();
    assert_eq!(world.group().assignor(Assignor::Uniform), Assignor::Uniform);
    world.heartbeat(wanting("m2", Some("range"))).unwrap();
    assert_eq!(world.group().assignor(Assignor::Uniform), Assignor::Range);
    let assigned = world.converge();
    assert_eq!(assigned["m1"], world.of(&[("a", &[0, 1]), ("b", &[0, 1])]));
    assert_eq!(world.heartbeat(wanting("m3", Some("sticky"))), Err(GroupError::UnsupportedAssignor));
    world.settings.assignors = vec![Assignor::Uniform];
    assert_eq!(world.heartbeat(wanting("m3", Some("range"))), Err(GroupError::UnsupportedAssignor));
}

#[test]
fn members_may_read_different_topics() {
    let mut world = World::new(&[("a", 4), ("b", 2)]);
    world.join("m1", &["a", "b"]);
    world.join("m2", &["a"]);
    let assigned = world.converge();
    assert_eq!((count_of(&assigned["m1"]), count_of(&assigned["m2"])), (3, 3));
    // One changes its mind.
    let epoch = world.group().target_epoch;
    world.heartbeat(HeartbeatRequest { topics: Some(vec!["b"]), ..going_on("m1", epoch) }).unwrap();
    let assigned = world.converge();
    assert_eq!(assigned["m1"], world.of(&[("b", &[0, 1])]));
    assert_eq!(assigned["m2"], world.of(&[("a", &[0, 1, 2, 3])]));
}

#[test]
fn whatever_happens_no_partition_has_two_members_and_all_are_given_in_the_end() {
    // Members come, go, fall silent, lose answers, change topics; the broker is killed now and then. Two hundred seeds.
    use crate::base::rng::Rng;
    for seed in 0..200 {
        let mut rng = Rng::new(seed);
        let mut world = World::new(&[("a", 5), ("b", 3)]);
        let names = ["m0", "m1", "m2", "m3", "m4"];
        // What each client thinks: its epoch and what it has.
        let mut clients: Vec<Option<(i32, Assignment)>> = vec![None; names.len()];
        for _ in 0..60 {
            let number = rng.in_range(0..5) as usize;
            let name = names[number];
            match rng.in_range(0..12) {
                0 => {
                    let _ = world.heartbeat(going_on(name, -1));
                    clients[number] = None;
                }
                1 => world.pass_ms(rng.in_range(0..30_000)),
                2 => world.topics.set("b", rng.in_range(0..6) as i32),
                3 => world.restart(),
                _ => {
                    let topics: &[&str] = if rng.chance(1, 2) { &["a", "b"] } else { &["a"] };
                    let result = match &clients[number] {
                        None => world.heartbeat(joining(name, topics)),
                        Some((epoch, owned)) => world.go_on(name, *epoch, Some(owned)),
                    };
                    // Some answers are lost.
                    match result {
                        _ if rng.chance(1, 8) => {}
                        Ok(told) => {
                            let before = clients[number].take().map_or(Assignment::new(), |(_, owned)| owned);
                            let owned = told.assignment.map_or(before, |assignment| (*assignment).clone());
                            clients[number] = Some((told.member_epoch, owned));
                        }
                        Err(
                            GroupError::UnknownMemberId | GroupError::FencedMemberEpoch | GroupError::GroupIdNotFound,
                        ) => {
                            clients[number] = None;
                        }
                        Err(error) => panic!("seed {seed}: {error}"),
                    }
                }
            }
            if world.groups.has_group(GROUP) {
                world.group().check_exclusive();
            }
        }
        names.iter().for_each(|name| drop(world.join(name, &["a", "b"])));
        let assigned = world.converge();
        let b = crate::coordinator::consumer_group::Topics::find(&world.topics, "b").map_or(0, |t| t.partition_count);
        let count: usize = assigned.values().map(count_of).sum();
        assert_eq!(count, 5 + b as usize, "seed {seed}");
    }
}
