//! What is answered is durable, and what is refused is written later.

use super::world::*;
use crate::coordinator::consumer_group::event::Answer;
use crate::coordinator::consumer_group::group::GroupState;
use crate::coordinator::group::event::GroupError;

#[test]
fn an_answer_waits_for_its_own_write_and_for_those_before() {
    let mut world = World::new(&[("a", 2)]);
    world.join("m1", &["a"]);
    world.is_slow = true;
    let request = joining("m2", &["a"]);
    let (second, _) =
        world.event(|groups, ticket, context| groups.heartbeat(ticket, &request, None, plenty(), context));
    // It changes nothing, but what it is told may depend on what is on its way.
    let request = going_on("m2", 2);
    let (third, _) = world.event(|groups, ticket, context| groups.heartbeat(ticket, &request, None, plenty(), context));
    assert!(world.answers.is_empty());
    assert_eq!(world.waiting.len(), 2);
    world.settle(Ok(()));
    assert!(matches!(world.answers[&second], Answer::Heartbeat(Ok(_))));
    assert!(matches!(world.answers[&third], Answer::Heartbeat(Ok(_))));
}

#[test]
fn a_start_finds_what_was_answered() {
    // In the middle of a rebalance: the first one still gives up, and has its whole timeout for it.
    let mut world = World::new(&[("a", 4), ("b", 1)]);
    world.join("m1", &["a"]);
    world.join("m2", &["a", "b"]);
    let all = world.of(&[("a", &[0, 1, 2, 3])]);
    world.go_on("m1", 1, Some(&all)).unwrap();
    let before = (world.members(), world.state(), world.group().epoch, world.group().target_epoch);
    world.pass_ms(REBALANCE_MS - 1000);
    world.restart();
    assert_eq!((world.members(), world.state(), world.group().epoch, world.group().target_epoch), before);
    world.pass_ms(REBALANCE_MS - 1000);
    assert_eq!(world.members().len(), 2);
    world.go_on("m2", 2, None).unwrap();
    world.pass_ms(1000);
    assert_eq!(world.members().len(), 1);
}

#[test]
fn a_refused_write_is_made_up_for_before_anybody_is_answered_again() {
    // The log does not take what the second member has changed: it is told so. A second later the whole group is
    // written, and it is as if the answer had been lost.
    let mut world = World::new(&[("a", 2)]);
    world.join("m1", &["a"]);
    world.join("m0", &["a"]);
    world.converge();
    world.is_slow = true;
    let refused = |world: &mut World, request| {
        let (ticket, _) =
            world.event(|groups, ticket, context| groups.heartbeat(ticket, &request, None, plenty(), context));
        world.settle(Err(GroupError::CoordinatorNotAvailable));
        world.answers.remove(&ticket)
    };
    let not_available = Some(Answer::Heartbeat(Err(GroupError::CoordinatorNotAvailable)));
    assert_eq!(refused(&mut world, joining("m2", &["a"])), not_available);
    let epoch = world.group().target_epoch;
    assert_eq!(refused(&mut world, going_on("m0", -1)), not_available);
    assert_eq!(refused(&mut world, going_on("m1", epoch)), not_available);
    assert!(world.waiting.is_empty());
    world.pass_ms(1_000);
    assert_eq!(world.waiting.len(), 1);
    // Not that one either: a second later once more.
    world.settle(Err(GroupError::CoordinatorNotAvailable));
    world.pass_ms(1_000);
    world.is_slow = false;
    world.settle(Ok(()));
    world.join("m2", &["a"]);
    let before = world.members();
    world.restart();
    assert_eq!(world.members(), before);
    world.converge();
}

#[test]
fn nobody_is_fenced_while_the_log_is_behind() {
    // A disk that is full for a minute does not cost a group its members.
    let mut world = World::new(&[("a", 2)]);
    world.join("m1", &["a"]);
    world.is_slow = true;
    let request = joining("m2", &["a"]);
    world.event(|groups, ticket, context| groups.heartbeat(ticket, &request, None, plenty(), context));
    world.settle(Err(GroupError::CoordinatorNotAvailable));
    for _ in 0..60 {
        for member_id in ["m1", "m2"] {
            let request = going_on(member_id, 1);
            world.event(|groups, ticket, context| groups.heartbeat(ticket, &request, None, plenty(), context));
        }
        world.pass_ms(1_000);
        world.settle(Err(GroupError::CoordinatorNotAvailable));
    }
    world.pass_ms(1_000);
    world.is_slow = false;
    world.settle(Ok(()));
    assert_eq!(world.members().len(), 2);
    assert_ne!(world.state(), GroupState::Empty);
}

#[test]
fn a_group_that_ends_before_its_write_comes_out_is_not_missed() {
    let mut world = World::new(&[("a", 2)]);
    world.is_slow = true;
    let request = joining("m1", &["a"]);
    world.event(|groups, ticket, context| groups.heartbeat(ticket, &request, None, plenty(), context));
    world.groups = Default::default();
    world.settle(Err(GroupError::NotCoordinator));
    assert_eq!(world.groups.count(), 0);
}

#[test]
fn without_room_nobody_new_is_taken() {
    let mut world = World::new(&[("a", 2)]);
    world.join("m1", &["a"]);
    let none = crate::coordinator::group::groups::Room { group_count: 0, size_bytes: 100 };
    let request = joining("m2", &["a"]);
    let (ticket, _) = world.event(|groups, ticket, context| groups.heartbeat(ticket, &request, None, none, context));
    assert_eq!(world.answers[&ticket], Answer::Heartbeat(Err(GroupError::CoordinatorNotAvailable)));
    let request = going_on("m1", 1);
    let (ticket, _) = world.event(|groups, ticket, context| groups.heartbeat(ticket, &request, None, none, context));
    assert!(matches!(world.answers[&ticket], Answer::Heartbeat(Ok(_))));
}
