//! Groups of the consumer protocol on whole shards: what members were told survives, whatever happens to the node.

use std::collections::BTreeMap;
use std::time::Duration;

use kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
use kafka_protocol::messages::{ConsumerGroupHeartbeatRequest, FindCoordinatorRequest, GroupId};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::client::{Client, topic_name};
use super::node::{Spec, TestNode};
use crate::io::sim::{Tear, World, WorldOptions};
use crate::protocol::ErrorCode;

const HEARTBEAT: i16 = 1;
const GROUP: &str = "group";
const PARTITION_COUNT: i32 = 7;

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// A member as its client sees itself.
struct Member {
    id: &'static str,
    epoch: i32,
    /// By topic; given up as soon as it is told to.
    owned: BTreeMap<Uuid, Vec<i32>>,
    /// The last answer may be lost: the next request says everything, and is told everything.
    is_unsure: bool,
}

impl Member {
    fn new(id: &'static str) -> Member {
        Member { id, epoch: 0, owned: BTreeMap::new(), is_unsure: true }
    }

    fn request(&self) -> ConsumerGroupHeartbeatRequest {
        let owned = self.owned.iter().map(|(topic, partitions)| {
            TopicPartitions::default().with_topic_id(*topic).with_partitions(partitions.clone())
        });
        let request = ConsumerGroupHeartbeatRequest::default()
            .with_group_id(GroupId(text(GROUP)))
            .with_member_id(text(self.id))
            .with_member_epoch(self.epoch)
            .with_topic_partitions(Some(owned.collect()));
        match self.is_unsure {
            true => request.with_rebalance_timeout_ms(60_000).with_subscribed_topic_names(Some(vec![topic_name("t")])),
            false => request,
        }
    }

    /// A heartbeat. `None` if the power was cut.
    fn beat(&mut self, client: &mut Client, node: &mut TestNode) -> Option<()> {
        let request = self.request();
        self.is_unsure = true;
        loop {
            let answer = client.try_call(node, HEARTBEAT, &request)?;
            if answer.error_code == ErrorCode::CoordinatorLoadInProgress.code() {
                node.run_for(Duration::from_millis(5));
                continue;
            }
            let seed = node.world.seed();
            assert_eq!(answer.error_code, 0, "seed {seed}: {} at {}: {:?}", self.id, self.epoch, answer.error_message);
            assert!(answer.member_epoch >= self.epoch, "seed {seed}");
            self.epoch = answer.member_epoch;
            self.is_unsure = false;
            if let Some(assignment) = answer.assignment {
                let topics = assignment.topic_partitions.into_iter();
                self.owned = topics.map(|topic| (topic.topic_id, topic.partitions)).collect();
            }
            return Some(());
        }
    }
}

/// Partitions that members have; no two have the same.
fn owned(members: &[Member], seed: u64) -> usize {
    let mut all: Vec<(Uuid, i32)> = Vec::new();
    for member in members {
        all.extend(member.owned.iter().flat_map(|(topic, found)| found.iter().map(|partition| (*topic, *partition))));
    }
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), count, "seed {seed}: two members have one partition");
    count
}

fn coordinator(node: &mut TestNode) -> Option<Client> {
    let mut client = Client::connect(node, 0);
    let request = FindCoordinatorRequest::default().with_coordinator_keys(vec![text(GROUP)]);
    let found = client.try_call(node, 6, &request)?.coordinators.remove(0);
    assert_eq!(found.error_code, 0);
    Some(Client::connect(node, found.node_id.0 as usize - 1))
}

/// Members come one after the other until the power is cut or all are there, the node starts again with other shards,
/// and they go on. Returns how many writes the disk saw before the cut.
fn cut_and_go_on(seed: u64, cut_at: Option<u64>, shards: [u16; 2]) -> u64 {
    let world = World::new(seed, WorldOptions::default());
    let spec = |shard_count| Spec::new(shard_count).set("offsets.topic.num.partitions", 2);
    if let Some(cut_at) = cut_at {
        world.cut_power_at_write(cut_at, Tear::Random);
    }
    let mut members: Vec<Member> = Vec::new();
    let first = TestNode::try_start(&world, &spec(shards[0])).and_then(|mut node| {
        let _ = Client::connect(&node, 0).try_create(&mut node, "t", PARTITION_COUNT, &[])?;
        let mut client = coordinator(&mut node)?;
        for id in ["a", "b", "c"] {
            members.push(Member::new(id));
            for _ in 0..3 {
                for member in &mut members {
                    member.beat(&mut client, &mut node)?;
                }
                owned(&members, seed);
            }
        }
        Some(node)
    });
    let writes = world.write_count();
    if cut_at.is_none() {
        world.kill_process();
    }
    drop(first);
    world.clear_write_hooks();

    let mut node = TestNode::start(&world, &spec(shards[1]));
    // The cut may have come before the topic was there.
    Client::connect(&node, 0).try_create(&mut node, "t", PARTITION_COUNT, &[]);
    let mut client = coordinator(&mut node).expect("the power stays on");
    members.push(Member::new("d"));
    for _ in 0..8 {
        for member in &mut members {
            member.beat(&mut client, &mut node).expect("the power stays on");
        }
        owned(&members, seed);
    }
    assert_eq!(owned(&members, seed), PARTITION_COUNT as usize, "seed {seed}: everything is given");
    writes
}

#[test]
fn members_go_on_after_a_power_cut_at_any_write_with_other_shard_counts() {
    // Nobody who was answered is unknown or fenced, and at no time two have one partition.
    for (seed, shards) in [(1, [1, 2]), (2, [2, 1])] {
        let writes = cut_and_go_on(seed, None, shards);
        let step = (writes / 24).max(1);
        let mut cut_at = seed % step;
        while cut_at < writes {
            cut_and_go_on(seed, Some(cut_at), shards);
            cut_at += step;
        }
    }
}
