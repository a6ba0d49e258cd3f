//! What many groups cost: members on connections of their own that join, get their work and send heartbeats.
//!
//! The small round runs always. The one with figures is asked for, best with a release build:
//! `cargo build --release && OTTLA_TEST_BINARY=target/release/ottla cargo test --test e2e_group_load -- --ignored --nocapture`

#[path = "support_bad/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{FindCoordinatorRequest, GroupId, HeartbeatRequest, JoinGroupRequest, SyncGroupRequest};
use kafka_protocol::protocol::StrBytes;
use ottla::client::{Connection, ConnectionOptions};
use support::Broker;

const MEMBER_COUNT: usize = 5;
/// Kafka's default interval of heartbeats.
const INTERVAL: Duration = Duration::from_secs(3);

struct Member {
    connection: Connection,
    group: GroupId,
    member_id: StrBytes,
}

struct Figures {
    cpu_share: f64,
    bytes_per_group: f64,
    joined_in: Duration,
}

fn text(text: String) -> StrBytes {
    StrBytes::from_string(text)
}

fn open(address: &str) -> Connection {
    let options = ConnectionOptions { answer_wait_max: Duration::from_secs(120), ..Default::default() };
    Connection::open(address, &options).expect("a connection")
}

/// Opens the members' connections, each to its group's coordinator.
fn members(broker: &Broker, group_count: usize) -> Vec<Member> {
    let mut asking = open(&broker.address().to_string());
    let mut members = Vec::with_capacity(group_count * MEMBER_COUNT);
    let mut used = BTreeMap::new();
    for group in 0..group_count {
        let group = GroupId(text(format!("group-{group}")));
        let request = FindCoordinatorRequest::default().with_coordinator_keys(vec![group.0.clone()]);
        let found = asking.call(6, &request).expect("answered").coordinators.remove(0);
        assert_eq!(found.error_code, 0);
        let address = format!("{}:{}", &*found.host, found.port);
        *used.entry(address.clone()).or_insert(0) += 1;
        for _ in 0..MEMBER_COUNT {
            members.push(Member { connection: open(&address), group: group.clone(), member_id: StrBytes::default() });
        }
    }
    assert_eq!(used.len(), broker.addresses.len(), "every shard coordinates some: {used:?}");
    members
}

fn join(members: &mut [Member]) {
    let metadata = Bytes::from(vec![0x61; 100]);
    for member in members.iter_mut() {
        let protocol = JoinGroupRequestProtocol::default()
            .with_name(StrBytes::from_static_str("range"))
            .with_metadata(metadata.clone());
        let request = JoinGroupRequest::default()
            .with_group_id(member.group.clone())
            .with_session_timeout_ms(300_000)
            .with_rebalance_timeout_ms(300_000)
            .with_protocol_type(StrBytes::from_static_str("consumer"))
            .with_protocols(vec![protocol]);
        member.connection.send(3, &request).expect("sent");
    }
    let mut assignments = Vec::with_capacity(members.len());
    for member in members.iter_mut() {
        let joined = member.connection.receive::<JoinGroupRequest>().expect("answered");
        assert_eq!((joined.error_code, joined.generation_id), (0, 1));
        member.member_id = joined.member_id;
        let assigned = joined.members.iter().map(|joined| {
            SyncGroupRequestAssignment::default()
                .with_member_id(joined.member_id.clone())
                .with_assignment(metadata.clone())
        });
        assignments.push(assigned.collect::<Vec<_>>());
    }
    for (member, assignments) in members.iter_mut().zip(assignments) {
        let request = SyncGroupRequest::default()
            .with_group_id(member.group.clone())
            .with_generation_id(1)
            .with_member_id(member.member_id.clone())
            .with_assignments(assignments);
        member.connection.send(3, &request).expect("sent");
    }
    for member in members {
        let synced = member.connection.receive::<SyncGroupRequest>().expect("answered");
        assert_eq!((synced.error_code, synced.assignment.len()), (0, 100));
    }
}

/// All members' heartbeats, spread over `interval`.
fn heartbeats(members: &mut [Member], interval: Duration) {
    let began = Instant::now();
    let count = members.len();
    for (number, member) in members.iter_mut().enumerate() {
        let due = began + interval.mul_f64(number as f64 / count as f64);
        let left = due.saturating_duration_since(Instant::now());
        if left > Duration::from_millis(2) {
            std::thread::sleep(left);
        }
        let request = HeartbeatRequest::default()
            .with_group_id(member.group.clone())
            .with_generation_id(1)
            .with_member_id(member.member_id.clone());
        member.connection.send(3, &request).expect("sent");
    }
    for member in members {
        assert_eq!(member.connection.receive::<HeartbeatRequest>().expect("answered").error_code, 0);
    }
}

fn run(group_count: usize, round_count: u32, interval: Duration) -> Figures {
    let args = ["--shards", "2", "--set", "group.initial.rebalance.delay.ms=1000"];
    let broker = Broker::start(&args);
    let mut members = members(&broker, group_count);
    let before_kib = broker.rss_kib();
    let began = Instant::now();
    join(&mut members);
    let joined_in = began.elapsed();
    let bytes_per_group = (broker.rss_kib() - before_kib) as f64 * 1024.0 / group_count as f64;
    heartbeats(&mut members, interval);
    let (cpu, began) = (broker.cpu(), Instant::now());
    (0..round_count).for_each(|_| heartbeats(&mut members, interval));
    let cpu_share = (broker.cpu() - cpu).as_secs_f64() / began.elapsed().as_secs_f64();
    Figures { cpu_share, bytes_per_group, joined_in }
}

#[test]
fn groups_on_two_shards_live_by_their_heartbeats() {
    // 40 groups of 5; nobody is refused.
    run(40, 3, Duration::from_millis(300));
}

#[test]
#[ignore = "takes a minute and wants a quiet machine; prints figures"]
fn a_thousand_groups_cost_less_than_a_tenth_of_a_core() {
    // 1,000 groups of 5 on 2 shards, a heartbeat of each member every 3 s, ten rounds.
    let figures = run(1_000, 10, INTERVAL);
    println!(
        "{:.1} % of a core, {:.0} bytes of memory a group with {MEMBER_COUNT} members, joined in {:.1} s",
        100.0 * figures.cpu_share,
        figures.bytes_per_group,
        figures.joined_in.as_secs_f64()
    );
    assert!(cfg!(debug_assertions) && std::env::var_os("OTTLA_TEST_BINARY").is_none() || figures.cpu_share < 0.1);
}
