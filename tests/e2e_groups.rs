//! Groups with a real librdkafka, a real broker, and members by hand: sharing partitions while members come, leave and
//! die, static members, cooperative rebalancing, a broker that starts again, every version, and what is refused.

mod common;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use common::broker::Broker;
use common::groups::{heartbeat, join, join_request, sync_request, text, to_coordinator};
use common::members::{self, TOPIC, Values, assigned, commit, poll, read_all, send_to_all, until_shared, values};
use common::requests::{connect, error_of};
use common::{WAIT_MAX, until};
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::{
    DeleteGroupsRequest, DescribeGroupsRequest, GroupId, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse,
    LeaveGroupRequest, ListGroupsRequest,
};
use ottla::client::Connection;
use ottla::protocol::ErrorCode;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError;

/// A broker on which groups come about quickly.
fn broker() -> Broker {
    members::broker(&[("group.initial.rebalance.delay.ms", "200"), ("group.min.session.timeout.ms", "1000")])
}

// ---- members by librdkafka

/// Counts rebalances and is quiet.
#[derive(Default)]
struct Counting {
    assigned_count: AtomicUsize,
    revoked_count: AtomicUsize,
}

impl ClientContext for Counting {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}
    fn error(&self, _: KafkaError, _: &str) {}
}

impl ConsumerContext for Counting {
    fn post_rebalance(&self, _: &BaseConsumer<Counting>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(_) => _ = self.assigned_count.fetch_add(1, Ordering::Relaxed),
            Rebalance::Revoke(_) => _ = self.revoked_count.fetch_add(1, Ordering::Relaxed),
            Rebalance::Error(_) => {}
        }
    }
}

type Member = BaseConsumer<Counting>;

fn member(broker: &Broker, group: &str, settings: &[(&str, &str)]) -> Member {
    let usual = [("session.timeout.ms", "10000"), ("heartbeat.interval.ms", "200")];
    members::member(broker, group, TOPIC, &[&usual, settings].concat())
}

fn rebalance_counts(member: &Member) -> (usize, usize) {
    let context = member.context();
    (context.assigned_count.load(Ordering::Relaxed), context.revoked_count.load(Ordering::Relaxed))
}

#[test]
fn three_members_share_a_topic_and_take_over_from_one_that_leaves() {
    // Every record is read by the group; what the member that leaves has committed is not read again.
    let broker = broker();
    send_to_all(&broker, &values(0));
    let members = [(); 3].map(|()| member(&broker, "leaving", &[]));
    let [first, second, third] = &members;
    read_all("every record is read", &[first, second, third], 10);
    let shares = until_shared(&[first, second, third]);
    assert!(shares.iter().all(|share| share.len() == 2), "{shares:?}");
    commit(&[first, second, third]);
    third.unsubscribe();
    until_shared(&[first, second]);
    send_to_all(&broker, &values(1));
    let read = read_all("every new record is read", &[first, second], 10);
    for (partition, read) in &read {
        assert_eq!(*read, values(1), "{partition:?}");
    }
}

#[test]
fn the_partitions_of_a_member_that_dies_go_to_the_others() {
    // One member by hand joins like a consumer, gets its share and is never heard of again.
    let broker = broker();
    let first = member(&broker, "dying", &[]);
    until_shared(&[&first]);
    let mut dying = to_coordinator(&broker, "dying");
    let request = |member_id: &str| {
        let topics = [&[0, 0, 0, 0, 0, 1, 0, 4][..], TOPIC.as_bytes(), &[0xff; 4]].concat();
        join_request("dying", member_id, "range", &topics).with_session_timeout_ms(2_000)
    };
    let member_id = dying.call(5, &request("")).expect("answered").member_id;
    dying.send(5, &request(&member_id)).expect("sent");
    // The first one must be told by a heartbeat, and join again.
    let deadline = Instant::now() + WAIT_MAX;
    let joined = std::thread::scope(|scope| {
        let joining = scope.spawn(|| dying.receive::<JoinGroupRequest>().expect("answered"));
        while !joining.is_finished() && Instant::now() < deadline {
            poll(&first, &mut Values::new());
        }
        joining.join().expect("it has joined")
    });
    assert_eq!((error_of(joined.error_code), joined.members.len()), (ErrorCode::None, 0), "the first one leads");
    let sync = sync_request("dying", &member_id, joined.generation_id, &[]);
    let assignment = dying.call(3, &sync).expect("answered").assignment;
    assert!(assignment.len() > 12, "it has a share");
    drop(dying);
    until_shared(&[&first]);
    let (_, revoked) = rebalance_counts(&first);
    assert!(revoked >= 2, "once for the member that came, once when it was gone");
}

#[test]
fn a_static_member_comes_back_without_a_rebalance() {
    // It ends without leaving and comes back as another process; the other one keeps its assignment all the time.
    let broker = broker();
    let named = |name: &str| member(&broker, "static", &[("group.instance.id", name), ("session.timeout.ms", "30000")]);
    let (one, two) = (named("one"), named("two"));
    let shares = until_shared(&[&one, &two]);
    let counts = rebalance_counts(&one);
    let generation = described(&broker, "static").2;
    drop(two);
    let two = named("two");
    assert_eq!(until_shared(&[&one, &two]), shares);
    assert_eq!(rebalance_counts(&one), counts);
    let (state, members, protocol) = described(&broker, "static");
    assert_eq!((&*state, members.len(), protocol), ("Stable", 2, generation));
}

#[test]
fn cooperative_members_keep_what_they_need_not_give() {
    // The first one has everything; when the second one comes it gives away half and keeps the rest.
    let broker = broker();
    let sticky = || member(&broker, "sticky", &[("partition.assignment.strategy", "cooperative-sticky")]);
    let first = sticky();
    until_shared(&[&first]);
    let second = sticky();
    let shares = until_shared(&[&first, &second]);
    assert!(shares.iter().all(|share| share.len() == 3), "{shares:?}");
    let third = sticky();
    let again = until_shared(&[&first, &second, &third]);
    for (before, after) in shares.iter().zip(&again) {
        assert!(after.is_subset(before), "{before:?} became {after:?}");
    }
    let (state, members, protocol) = described(&broker, "sticky");
    assert_eq!((&*state, members.len(), &*protocol), ("Stable", 3, "cooperative-sticky"));
}

#[test]
fn a_group_goes_on_when_the_broker_is_killed_and_starts_again() {
    // Two members work through it: nobody rebalances, new records come, commits are kept.
    let mut broker = broker();
    let settings = [("session.timeout.ms", "60000")];
    let (first, second) = (member(&broker, "lasting", &settings), member(&broker, "lasting", &settings));
    let shares = until_shared(&[&first, &second]);
    let counts = (rebalance_counts(&first), rebalance_counts(&second));
    broker.kill9();
    broker.start_again();
    send_to_all(&broker, &["after".to_owned()]);
    read_all("the group reads on", &[&first, &second], 1);
    commit(&[&first, &second]);
    assert_eq!([assigned(&first), assigned(&second)], shares[..]);
    assert_eq!((rebalance_counts(&first), rebalance_counts(&second)), counts);
}

// ---- members by hand

/// State, members' ids and protocol of a group.
fn described(broker: &Broker, group: &str) -> (String, Vec<String>, String) {
    let request = DescribeGroupsRequest::default().with_groups(vec![GroupId(text(group))]);
    let found = to_coordinator(broker, group).call(5, &request).expect("answered").groups.remove(0);
    assert_eq!(error_of(found.error_code), ErrorCode::None);
    let members = found.members.iter().map(|member| member.member_id.to_string()).collect();
    (found.group_state.to_string(), members, found.protocol_data.to_string())
}

#[test]
fn a_group_can_be_joined_used_and_left_in_every_version() {
    // One member goes through everything in the greatest version each API has up to a number.
    let broker = broker();
    for version in 0..=9 {
        let group = format!("version-{version}");
        let mut connection = to_coordinator(&broker, &group);
        let mut request = join_request(&group, "", "any", b"metadata");
        if version == 0 {
            request.rebalance_timeout_ms = -1;
        }
        let asked = connection.call(version, &request).expect("answered");
        let needs_id = version >= 4;
        assert_eq!(error_of(asked.error_code) == ErrorCode::MemberIdRequired, needs_id, "version {version}");
        let joined = match needs_id {
            true => connection.call(version, &request.clone().with_member_id(asked.member_id)).expect("answered"),
            false => asked,
        };
        assert_eq!((error_of(joined.error_code), joined.generation_id), (ErrorCode::None, 1));
        assert_eq!((&joined.leader, joined.protocol_name.as_deref()), (&joined.member_id, Some("any")));
        assert_eq!(joined.protocol_type.as_deref(), (version >= 7).then_some("consumer"));
        assert_eq!((joined.members.len(), &joined.members[0].metadata[..]), (1, &b"metadata"[..]));
        let member_id = &*joined.member_id;
        let sync_version = version.min(5);
        let sync = sync_request(&group, member_id, 1, &[(member_id, "all of it")]);
        let synced = connection.call(sync_version, &sync).expect("answered");
        assert_eq!((error_of(synced.error_code), &synced.assignment[..]), (ErrorCode::None, &b"all of it"[..]));
        assert_eq!(synced.protocol_name.as_deref(), (sync_version >= 5).then_some("any"));
        assert_eq!(heartbeat(&mut connection, version.min(4), &group, member_id, 1), ErrorCode::None);

        let describe = DescribeGroupsRequest::default()
            .with_groups(vec![GroupId(text(&group)), GroupId(text("nobody's"))])
            .with_include_authorized_operations(version >= 3);
        let found = connection.call(version.min(6), &describe).expect("answered").groups;
        assert_eq!((&*found[0].group_state, &*found[0].protocol_data), ("Stable", "any"));
        assert_eq!(&found[0].members[0].member_assignment[..], b"all of it");
        assert_eq!(&found[0].members[0].member_metadata[..], b"metadata");
        assert_eq!(&*found[0].members[0].client_host, "/127.0.0.1");
        assert_eq!(found[0].authorized_operations, if version >= 3 { 0xd48 } else { i32::MIN });

        let filtered = ListGroupsRequest::default()
            .with_states_filter(if version >= 4 { vec![text("stable")] } else { vec![] })
            .with_types_filter(if version >= 5 { vec![text("Classic")] } else { vec![] });
        let listed = connection.call(version.min(5), &filtered).expect("answered").groups;
        assert!(listed.iter().any(|listed| **listed.group_id == *group), "version {version}");
        if version >= 4 {
            let empty = ListGroupsRequest::default().with_states_filter(vec![text("Empty")]);
            let listed = connection.call(version.min(5), &empty).expect("answered").groups;
            assert!(!listed.iter().any(|listed| **listed.group_id == *group));
        }
        if version >= 5 {
            let other = ListGroupsRequest::default().with_types_filter(vec![text("consumer")]);
            assert!(connection.call(5, &other).expect("answered").groups.is_empty());
        }

        let leave_version = version.min(5);
        let delete = DeleteGroupsRequest::default().with_groups_names(vec![GroupId(text(&group))]);
        let refused = connection.call(version.min(2), &delete).expect("answered").results;
        assert_eq!(error_of(refused[0].error_code), ErrorCode::NonEmptyGroup);
        let leave = LeaveGroupRequest::default().with_group_id(GroupId(text(&group)));
        let leave = match leave_version {
            ..3 => leave.with_member_id(joined.member_id.clone()),
            _ => leave.with_members(vec![
                MemberIdentity::default().with_member_id(joined.member_id.clone()),
                MemberIdentity::default().with_member_id(text("nobody")),
            ]),
        };
        let left = connection.call(leave_version, &leave).expect("answered");
        assert_eq!(error_of(left.error_code), ErrorCode::None);
        if leave_version >= 3 {
            let codes: Vec<_> = left.members.iter().map(|member| error_of(member.error_code)).collect();
            assert_eq!(codes, [ErrorCode::None, ErrorCode::UnknownMemberId]);
        }
        let deleted = connection.call(version.min(2), &delete).expect("answered").results;
        assert_eq!(error_of(deleted[0].error_code), ErrorCode::None);
        let again = connection.call(version.min(2), &delete).expect("answered").results;
        assert_eq!(error_of(again[0].error_code), ErrorCode::GroupIdNotFound);
    }
}

#[test]
fn who_is_wrong_is_told_so_in_kafkas_codes() {
    // Unknown groups, members, generations and instances; bad ids and timeouts; the wrong broker.
    let broker = broker();
    let group = "refusing";
    let mut connection = to_coordinator(&broker, group);
    let request = || join_request(group, "", "any", b"x");
    let code = |answer: JoinGroupResponse| error_of(answer.error_code);

    assert_eq!(heartbeat(&mut connection, 4, group, "nobody", 1), ErrorCode::UnknownMemberId);
    assert_eq!(heartbeat(&mut connection, 4, "", "nobody", 1), ErrorCode::InvalidGroupId);
    let sync = connection.call(5, &sync_request(group, "nobody", 1, &[])).expect("answered");
    assert_eq!(error_of(sync.error_code), ErrorCode::UnknownMemberId);
    let sync = connection.call(5, &sync_request("", "nobody", 1, &[])).expect("answered");
    assert_eq!(error_of(sync.error_code), ErrorCode::InvalidGroupId);
    let leave = |group: &str, member: MemberIdentity| {
        LeaveGroupRequest::default().with_group_id(GroupId(text(group))).with_members(vec![member])
    };
    let nobody = MemberIdentity::default().with_member_id(text("nobody"));
    let left = connection.call(5, &leave(group, nobody.clone())).expect("answered");
    assert_eq!(error_of(left.members[0].error_code), ErrorCode::UnknownMemberId);
    let left = connection.call(5, &leave("", nobody)).expect("answered");
    assert_eq!(error_of(left.error_code), ErrorCode::InvalidGroupId);
    let describe = DescribeGroupsRequest::default().with_groups(vec![GroupId(text(group)), GroupId(text(""))]);
    let found = connection.call(6, &describe).expect("answered").groups;
    assert_eq!((error_of(found[0].error_code), &*found[0].group_state), (ErrorCode::GroupIdNotFound, "Dead"));
    assert_eq!(error_of(found[1].error_code), ErrorCode::InvalidGroupId);
    let found = connection.call(5, &describe).expect("answered").groups;
    assert_eq!((error_of(found[0].error_code), &*found[0].group_state), (ErrorCode::None, "Dead"));

    let mut refuse = |request: JoinGroupRequest| code(connection.call(9, &request).expect("answered"));
    assert_eq!(refuse(request().with_group_id(GroupId(text("")))), ErrorCode::InvalidGroupId);
    for timeout_ms in [-1, 0, 999, 1_800_001] {
        assert_eq!(refuse(request().with_session_timeout_ms(timeout_ms)), ErrorCode::InvalidSessionTimeout);
    }
    assert_eq!(refuse(request().with_member_id(text("nobody"))), ErrorCode::UnknownMemberId);
    assert_eq!(refuse(request().with_protocols(vec![])), ErrorCode::InconsistentGroupProtocol);
    assert_eq!(refuse(request().with_protocol_type(text(""))), ErrorCode::InconsistentGroupProtocol);

    // A group of two static members.
    let named = |name| request().with_group_instance_id(Some(text(name)));
    let mut other = to_coordinator(&broker, group);
    connection.send(9, &named("one")).expect("sent");
    other.send(9, &named("two")).expect("sent");
    let joined = [connection.receive::<JoinGroupRequest>(), other.receive::<JoinGroupRequest>()];
    let [one, two] = joined.map(|answer| answer.expect("answered"));
    assert_eq!((one.error_code, two.error_code, one.generation_id, two.generation_id), (0, 0, 1, 1));
    let leader = if one.members.is_empty() { &two } else { &one };
    assert_eq!(leader.members.len(), 2);
    let mut sync = sync_request(group, &leader.member_id, 1, &[(&one.member_id, "a"), (&two.member_id, "b")]);
    sync.protocol_name = Some(text("none"));
    let answer = connection.call(5, &sync).expect("answered");
    assert_eq!(error_of(answer.error_code), ErrorCode::InconsistentGroupProtocol);
    sync.protocol_name = Some(text("any"));
    assert_eq!(connection.call(5, &sync).expect("answered").error_code, 0);

    let mut refuse = |request: JoinGroupRequest| code(connection.call(9, &request).expect("answered"));
    assert_eq!(refuse(named("two").with_member_id(one.member_id.clone())), ErrorCode::FencedInstanceId);
    assert_eq!(refuse(named("three").with_member_id(one.member_id.clone())), ErrorCode::UnknownMemberId);
    let foreign = JoinGroupRequestProtocol::default().with_name(text("sticky"));
    assert_eq!(refuse(request().with_protocols(vec![foreign])), ErrorCode::InconsistentGroupProtocol);
    for generation in [-1, 0, 2] {
        assert_eq!(heartbeat(&mut connection, 4, group, &one.member_id, generation), ErrorCode::IllegalGeneration);
        let sync = sync_request(group, &one.member_id, generation, &[]);
        let answer = connection.call(5, &sync).expect("answered");
        assert_eq!(error_of(answer.error_code), ErrorCode::IllegalGeneration);
    }
    let foreign = HeartbeatRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_member_id(one.member_id.clone())
        .with_generation_id(1)
        .with_group_instance_id(Some(text("two")));
    assert_eq!(error_of(connection.call(4, &foreign).expect("answered").error_code), ErrorCode::FencedInstanceId);
    assert_eq!(heartbeat(&mut connection, 4, group, &one.member_id, 1), ErrorCode::None);

    // The other shard is not its coordinator.
    let coordinator = connection.address().to_owned();
    let elsewhere = broker.serving().iter().find(|serving| serving.address != coordinator).expect("two shards");
    let mut elsewhere = connect(&elsewhere.address);
    assert_eq!(heartbeat(&mut elsewhere, 4, group, &one.member_id, 1), ErrorCode::NotCoordinator);
    assert_eq!(code(elsewhere.call(9, &request()).expect("answered")), ErrorCode::NotCoordinator);
    let answer = elsewhere.call(5, &sync_request(group, &one.member_id, 1, &[])).expect("answered");
    assert_eq!(error_of(answer.error_code), ErrorCode::NotCoordinator);
    let found = elsewhere.call(6, &describe).expect("answered").groups;
    assert_eq!(error_of(found[0].error_code), ErrorCode::NotCoordinator);
    let delete = DeleteGroupsRequest::default().with_groups_names(vec![GroupId(text(group)), GroupId(text(""))]);
    let results = elsewhere.call(2, &delete).expect("answered").results;
    assert_eq!(error_of(results[0].error_code), ErrorCode::NotCoordinator);
    assert_eq!(error_of(results[1].error_code), ErrorCode::InvalidGroupId);
}

#[test]
fn oversized_metadata_is_refused_and_harms_nobody_else() {
    // Members with 7 MiB each: as many as a group may hold are taken, the next one is told, the first ones go on.
    let broker = broker();
    let group = "large";
    let metadata = vec![0x5a; 7 * 1024 * 1024];
    let mut connections: Vec<Connection> = (0..3).map(|_| to_coordinator(&broker, group)).collect();
    let request = |size: usize| join_request(group, "", "any", &metadata[..size]);
    for connection in &mut connections[..2] {
        connection.send(3, &request(metadata.len())).expect("sent");
    }
    until("both are members", || (described(&broker, group).1.len() == 2).then_some(()));
    let refused = connections[2].call(3, &request(metadata.len())).expect("answered");
    assert_eq!(error_of(refused.error_code), ErrorCode::GroupMaxSizeReached);
    connections[2].send(3, &request(10)).expect("sent");
    let joined: Vec<JoinGroupResponse> =
        connections.iter_mut().map(|connection| connection.receive::<JoinGroupRequest>().expect("answered")).collect();
    assert!(joined.iter().all(|joined| joined.error_code == 0));
    let place = joined.iter().position(|joined| !joined.members.is_empty()).expect("one leads");
    let leader = &joined[place];
    assert_eq!(leader.members.iter().map(|member| member.metadata.len()).sum::<usize>(), 2 * metadata.len() + 10);
    let assignments: Vec<_> = leader.members.iter().map(|member| (&*member.member_id, "some")).collect();
    let sync = sync_request(group, &leader.member_id, 1, &assignments);
    let synced = connections[place].call(3, &sync).expect("answered");
    assert_eq!((error_of(synced.error_code), &synced.assignment[..]), (ErrorCode::None, &b"some"[..]));
}

#[test]
fn answers_keep_their_order_while_a_join_waits() {
    // A JoinGroup that waits, behind it others on the same connection; somebody else's work goes on meanwhile.
    let broker = broker();
    let group = "ordered";
    let mut first = to_coordinator(&broker, group);
    let joined = join(&mut first, 5, join_request(group, "", "any", b"x"));
    let assignments = [(&*joined.member_id, "work")];
    assert_eq!(
        first.call(3, &sync_request(group, &joined.member_id, 1, &assignments)).expect("answered").error_code,
        0
    );
    let mut second = to_coordinator(&broker, group);
    second.send(3, &join_request(group, "", "any", b"y")).expect("sent");
    let list = ListGroupsRequest::default();
    second.send(4, &list).expect("sent");
    second.send(4, &list).expect("sent");
    until("the group rebalances", || {
        let beat = heartbeat(&mut first, 4, group, &joined.member_id, 1);
        (beat == ErrorCode::RebalanceInProgress).then_some(())
    });
    let again = join_request(group, &joined.member_id, "any", b"x");
    let again = first.call(5, &again).expect("answered");
    assert_eq!(again.generation_id, 2);
    let answer = second.receive::<JoinGroupRequest>().expect("answered");
    assert_eq!((answer.error_code, answer.generation_id), (0, 2));
    for _ in 0..2 {
        let listed = second.receive::<ListGroupsRequest>().expect("answered");
        assert!(listed.groups.iter().any(|listed| **listed.group_id == *group));
    }
}

#[test]
fn a_member_whose_connection_ends_while_it_waits_holds_up_nobody() {
    // It has joined a rebalance and is gone before it completes: the others have the group to themselves after its
    // session.
    let broker = broker();
    let group = "broken";
    let mut first = to_coordinator(&broker, group);
    let joined = join(&mut first, 5, join_request(group, "", "any", b"x"));
    let all = [(&*joined.member_id, "work")];
    assert_eq!(first.call(3, &sync_request(group, &joined.member_id, 1, &all)).expect("answered").error_code, 0);
    let mut second = to_coordinator(&broker, group);
    second.send(3, &join_request(group, "", "any", b"y").with_session_timeout_ms(1_000)).expect("sent");
    until("it has joined", || (described(&broker, group).1.len() == 2).then_some(()));
    drop(second);
    let again = first.call(5, &join_request(group, &joined.member_id, "any", b"x")).expect("answered");
    assert_eq!((again.error_code, again.generation_id, again.members.len()), (0, 2, 2));
    until("its session ends", || {
        let beat = heartbeat(&mut first, 4, group, &joined.member_id, 2);
        (beat == ErrorCode::RebalanceInProgress).then_some(())
    });
    let again = first.call(5, &join_request(group, &joined.member_id, "any", b"x")).expect("answered");
    assert_eq!((again.error_code, again.generation_id, again.members.len()), (0, 3, 1));
}

#[test]
fn groups_of_any_type_survive_a_clean_stop_and_deletions_do_too() {
    // A connect group with members, an empty one, a deleted one.
    let mut broker = broker();
    let group_request = |group: &str| join_request(group, "", "default", b"url").with_protocol_type(text("connect"));
    let mut generations = BTreeMap::new();
    for group in ["working", "empty", "deleted"] {
        let mut connection = to_coordinator(&broker, group);
        let joined = join(&mut connection, 5, group_request(group));
        let sync = sync_request(group, &joined.member_id, 1, &[(&joined.member_id, "tasks")]);
        assert_eq!(connection.call(3, &sync).expect("answered").error_code, 0);
        if group != "working" {
            let leave = LeaveGroupRequest::default()
                .with_group_id(GroupId(text(group)))
                .with_members(vec![MemberIdentity::default().with_member_id(joined.member_id.clone())]);
            assert_eq!(connection.call(5, &leave).expect("answered").error_code, 0);
        }
        if group == "deleted" {
            let delete = DeleteGroupsRequest::default().with_groups_names(vec![GroupId(text(group))]);
            assert_eq!(connection.call(2, &delete).expect("answered").results[0].error_code, 0);
        }
        generations.insert(group, joined);
    }
    broker.restart();
    until("the coordinators are loaded", || {
        let listed: BTreeMap<String, String> = broker
            .serving()
            .iter()
            .flat_map(|serving| {
                connect(&serving.address).call(4, &ListGroupsRequest::default()).expect("answered").groups
            })
            .map(|listed| (listed.group_id.to_string(), format!("{} {}", listed.protocol_type, listed.group_state)))
            .collect();
        let expected = [("empty", "connect Empty"), ("working", "connect Stable")];
        let expected = expected.map(|(group, state)| (group.to_owned(), state.to_owned()));
        (listed == BTreeMap::from(expected)).then_some(())
    });
    let mut connection = to_coordinator(&broker, "working");
    let member_id = &generations["working"].member_id;
    assert_eq!(heartbeat(&mut connection, 4, "working", member_id, 1), ErrorCode::None);
    let synced = connection.call(3, &sync_request("working", member_id, 1, &[])).expect("answered");
    assert_eq!((synced.error_code, &synced.assignment[..]), (0, &b"tasks"[..]));
}
