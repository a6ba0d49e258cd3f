//! Group coordinators on whole shards: where they are, and what of the committed offsets survives.

use kafka_protocol::messages::{FindCoordinatorRequest, FindCoordinatorResponse};
use kafka_protocol::protocol::StrBytes;

use super::client::{Client, batch, create_request};
use super::node::{Spec, TestNode};
use crate::coordinator::{OFFSETS_TOPIC, partition_of};
use crate::io::sim::{World, WorldOptions};
use crate::model::id::TopicId;
use crate::protocol::ErrorCode;

const FIND: i16 = 6;

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn find_request(key_type: i8, groups: &[&str]) -> FindCoordinatorRequest {
    let keys = groups.iter().map(|group| text(group)).collect();
    FindCoordinatorRequest::default().with_key_type(key_type).with_coordinator_keys(keys)
}

fn find(client: &mut Client, node: &mut TestNode, key_type: i8, groups: &[&str]) -> FindCoordinatorResponse {
    client.call(node, FIND, &find_request(key_type, groups))
}

#[test]
fn the_first_question_for_a_coordinator_makes_the_topic_and_is_answered_by_its_leaders() {
    // Asks every shard for the coordinators of some groups: all name the leader that Metadata names.
    let world = World::new(1, WorldOptions::default());
    let mut node = TestNode::start(&world, &Spec::new(3));
    let groups = ["a", "b", "group", "my-group", ""];
    let mut seen = Vec::new();
    for shard in 0..3 {
        let mut client = Client::connect(&node, shard);
        let found = find(&mut client, &mut node, 0, &groups).coordinators;
        let metadata = client.topic(&mut node, OFFSETS_TOPIC);
        let topic = &metadata.topics[0];
        assert!(topic.is_internal && topic.error_code == 0);
        assert_eq!(topic.partitions.len(), 50);
        for (found, group) in found.iter().zip(groups) {
            let index = partition_of(group, 50) as usize;
            assert_eq!((found.error_code, found.key.as_str()), (0, group));
            assert_eq!(found.node_id, topic.partitions[index].leader_id);
            assert_eq!(found.port, i32::from(node.addresses[found.node_id.0 as usize - 1].port()));
        }
        seen.push(found);
    }
    assert!(seen.iter().all(|found| *found == seen[0]));

    let mut client = Client::connect(&node, 0);
    let transactional = find(&mut client, &mut node, 1, &["t"]).coordinators.remove(0);
    assert_eq!(transactional.error_code, ErrorCode::CoordinatorNotAvailable.code());
    let share = find(&mut client, &mut node, 2, &["s"]).coordinators.remove(0);
    assert_eq!((share.error_code, share.node_id.0), (ErrorCode::InvalidRequest.code(), -1));
    assert!(find(&mut client, &mut node, 0, &[]).coordinators.is_empty());
    let one = FindCoordinatorRequest::default().with_key(text("my-group"));
    assert_eq!(client.call(&mut node, 2, &one).node_id, seen[0][3].node_id);
}

#[test]
fn clients_do_not_write_to_the_offsets_topic() {
    // Made by a client, it is what the broker would have made; records for it are refused.
    let world = World::new(2, WorldOptions::default());
    let mut node = TestNode::start(&world, &Spec::new(1));
    let mut client = Client::connect(&node, 0);
    let created =
        client.call(&mut node, super::client::CREATE, &create_request(OFFSETS_TOPIC, -1, &[])).topics.remove(0);
    assert_eq!((created.error_code, created.num_partitions), (0, 50));
    let policy = created.configs.unwrap().into_iter().find(|config| &*config.name == "cleanup.policy").unwrap();
    assert_eq!(policy.value.as_deref(), Some("compact"));
    let records = batch(node.world.now().wall, None, &[b"forged"]);
    let refused = client.produce(&mut node, TopicId(created.topic_id), 3, records);
    assert_eq!(refused.error_code, ErrorCode::InvalidTopicException.code());
}
