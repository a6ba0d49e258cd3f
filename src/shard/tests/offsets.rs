//! Group coordinators on whole shards: where they are, and what of the committed offsets survives.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use kafka_protocol::messages::{
    FindCoordinatorRequest, FindCoordinatorResponse, GroupId, OffsetCommitRequest, OffsetFetchRequest,
    OffsetFetchResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use super::client::{Client, batch, create_request};
use super::node::{DATA, Spec, TestNode};
use crate::coordinator::{OFFSETS_TOPIC, TRANSACTIONS_TOPIC, partition_of};
use crate::io::sim::{Fault, OpKind, Rule, Tear, World, WorldOptions};
use crate::model::id::TopicId;
use crate::protocol::ErrorCode;

const FIND: i16 = 6;
const COMMIT: i16 = 9;
const FETCH: i16 = 9;

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
    let metadata = client.topic(&mut node, TRANSACTIONS_TOPIC);
    assert!(metadata.topics[0].is_internal);
    let index = partition_of("t", 50) as usize;
    assert_eq!((transactional.error_code, transactional.node_id), (0, metadata.topics[0].partitions[index].leader_id));
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

/// Clients of group coordinators, who remember what they have committed.
///
/// The offsets of one group and partition grow from 1 on. What is found must not be below what was acknowledged nor
/// above what was sent.
#[derive(Default)]
struct Commits {
    links: BTreeMap<i32, Client>,
    coordinators: BTreeMap<String, i32>,
    sent: BTreeMap<Key, i64>,
    acked: BTreeMap<Key, i64>,
    metadata: String,
}

/// Group, topic, partition.
type Key = (String, String, i32);

impl Commits {
    /// Forgets connections and who coordinates whom: for a node that was started again.
    fn disconnect(&mut self) {
        self.links.clear();
        self.coordinators.clear();
    }

    /// The coordinator of a group and a connection to it.
    fn coordinator(&mut self, node: &mut TestNode, group: &str) -> Option<i32> {
        if let Some(id) = self.coordinators.get(group) {
            return Some(*id);
        }
        let mut client = Client::connect(node, 0);
        let found = client.try_call(node, FIND, &find_request(0, &[group]))?.coordinators.remove(0);
        assert_eq!(found.error_code, 0, "{found:?}");
        let id = found.node_id.0;
        self.links.entry(id).or_insert_with(|| Client::connect(node, id as usize - 1));
        self.coordinators.insert(group.to_owned(), id);
        Some(id)
    }

    fn next(&mut self, group: &str, topic: &str, index: i32) -> (i64, OffsetCommitRequest) {
        let sent = self.sent.entry((group.to_owned(), topic.to_owned(), index)).or_default();
        *sent += 1;
        let mut request = commit_request(group, topic, index, *sent);
        request.topics[0].partitions[0].committed_metadata = Some(text(&self.metadata));
        (*sent, request)
    }

    /// Commits the next offset of each key, those of one coordinator in flight together. `None` if the power was cut.
    fn commit(&mut self, node: &mut TestNode, keys: &[Key]) -> Option<()> {
        let mut under_way: BTreeMap<i32, VecDeque<(Key, i64)>> = BTreeMap::new();
        for key in keys {
            let id = self.coordinator(node, &key.0)?;
            let (offset, request) = self.next(&key.0, &key.1, key.2);
            self.links.get_mut(&id).expect("it is connected").send(COMMIT, &request);
            under_way.entry(id).or_default().push_back((key.clone(), offset));
        }
        for (id, mut asked) in under_way {
            while let Some((key, offset)) = asked.pop_front() {
                let client = self.links.get_mut(&id).expect("it is connected");
                let response = client.receive::<OffsetCommitRequest>(node, COMMIT)?;
                let error = response.topics[0].partitions[0].error_code;
                assert_eq!(error, 0, "seed {}: {key:?} at {offset}", node.world.seed());
                self.acked.insert(key, offset);
            }
        }
        Some(())
    }

    /// What a group has committed for a partition, once its coordinator is loaded.
    fn fetch(&mut self, node: &mut TestNode, key: &Key) -> i64 {
        let id = self.coordinator(node, &key.0).expect("the power stays on");
        let deadline = node.world.now().monotonic + Duration::from_secs(60);
        loop {
            let client = self.links.get_mut(&id).expect("it is connected");
            let response = client.call(node, FETCH, &offset_fetch_request(&key.0, &key.1, key.2));
            let group = &response.groups[0];
            if group.error_code == 0 {
                return group.topics[0].partitions[0].committed_offset;
            }
            assert_eq!(group.error_code, ErrorCode::CoordinatorLoadInProgress.code());
            assert!(node.world.now().monotonic < deadline, "it is loaded in time");
            node.run_for(Duration::from_millis(5));
        }
    }

    /// Compares everything with what is found; then that is what there is.
    fn verify(&mut self, node: &mut TestNode) {
        let seed = node.world.seed();
        for key in self.sent.keys().cloned().collect::<Vec<_>>() {
            let found = self.fetch(node, &key);
            let (acked, sent) = (self.acked.get(&key).copied().unwrap_or(-1), self.sent[&key]);
            assert!(found >= acked && found <= sent, "seed {seed}: {key:?}: {found} of {acked} to {sent}");
            assert_ne!(found, 0);
            self.sent.insert(key.clone(), found.max(0));
            self.acked.insert(key, found);
        }
    }
}

fn key(group: &str, topic: &str, index: i32) -> Key {
    (group.to_owned(), topic.to_owned(), index)
}

fn commit_request(group: &str, topic: &str, index: i32, offset: i64) -> OffsetCommitRequest {
    let partition = OffsetCommitRequestPartition::default()
        .with_partition_index(index)
        .with_committed_offset(offset)
        .with_committed_leader_epoch(7)
        .with_committed_metadata(Some(text("a note")));
    let topic = OffsetCommitRequestTopic::default()
        .with_name(TopicName(StrBytes::from_string(topic.to_owned())))
        .with_partitions(vec![partition]);
    OffsetCommitRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic])
}

fn offset_fetch_request(group: &str, topic: &str, index: i32) -> OffsetFetchRequest {
    let topic = OffsetFetchRequestTopics::default()
        .with_name(TopicName(StrBytes::from_string(topic.to_owned())))
        .with_partition_indexes(vec![index]);
    let group = OffsetFetchRequestGroup::default()
        .with_group_id(GroupId(text(group)))
        .with_member_epoch(-1)
        .with_topics(Some(vec![topic]));
    OffsetFetchRequest::default().with_groups(vec![group])
}

fn spec(shard_count: u16) -> Spec {
    Spec::new(shard_count).set("offsets.topic.num.partitions", 4).set("offsets.topic.segment.bytes", 1)
}

fn keys() -> Vec<Key> {
    let groups = ["one", "two", "three", "four", "five"];
    groups.iter().flat_map(|group| (0..3).map(|index| key(group, "t", index))).collect()
}

/// Commits until the power is cut or all is committed, starts again with other shards, compares, goes on, stops
/// cleanly, starts once more and compares. Returns how many writes the disk saw before the cut.
fn cut_and_compare(seed: u64, cut_at: Option<u64>, shards: [u16; 3]) -> u64 {
    let world = World::new(seed, WorldOptions::default());
    if let Some(cut_at) = cut_at {
        world.cut_power_at_write(cut_at, Tear::Random);
    }
    let mut commits = Commits::default();
    let first = TestNode::try_start(&world, &spec(shards[0])).and_then(|mut node| {
        let _ = Client::connect(&node, 0).try_create(&mut node, "t", 3, &[])?;
        for _ in 0..20 {
            commits.commit(&mut node, &keys())?;
        }
        Some(node)
    });
    let writes = world.write_count();
    if cut_at.is_none() {
        world.kill_process();
    }
    drop(first);
    world.clear_write_hooks();
    commits.disconnect();

    let mut node = TestNode::start(&world, &spec(shards[1]));
    // The cut may have come before the topic was there.
    Client::connect(&node, 0).try_create(&mut node, "t", 3, &[]);
    commits.verify(&mut node);
    for _ in 0..30 {
        commits.commit(&mut node, &keys()).expect("the power stays on");
    }
    commits.verify(&mut node);
    assert!(node.stop());
    commits.disconnect();

    let mut node = TestNode::start(&world, &spec(shards[2]));
    let acked = commits.acked.clone();
    commits.verify(&mut node);
    assert_eq!(acked, commits.acked);
    writes
}

#[test]
fn acknowledged_commits_survive_a_power_cut_at_any_write_and_other_shard_counts() {
    // Counts the writes of a whole run, then cuts the power at every k-th.
    for (seed, shards) in [(1, [1, 2, 1]), (2, [3, 1, 2])] {
        let writes = cut_and_compare(seed, None, shards);
        let step = (writes / 16).max(1);
        let mut cut_at = seed % step;
        while cut_at < writes {
            cut_and_compare(seed, Some(cut_at), shards);
            cut_at += step;
        }
    }
}

#[test]
fn nobody_is_answered_from_a_coordinator_that_loads() {
    // After a kill the log of the only partition, which has several segments, is read slowly: until it was read there
    // is no offset, and no commit is taken.
    let world = World::new(3, WorldOptions::default());
    let spec = Spec::new(1).set("offsets.topic.num.partitions", 1).set("offsets.topic.segment.bytes", 1);
    let mut node = TestNode::start(&world, &spec);
    Client::connect(&node, 0).create(&mut node, "t", 3, &[]);
    let mut commits = Commits { metadata: "long ".repeat(800), ..Commits::default() };
    for _ in 0..40 {
        commits.commit(&mut node, &keys()).expect("the power stays on");
    }
    let dir = world.list(format!("{DATA}/topics/{OFFSETS_TOPIC}-0")).expect("a directory");
    assert!(dir.iter().filter(|entry| entry.name.ends_with(".log")).count() > 2, "{dir:?}");
    world.kill_process();
    drop(node);
    commits.disconnect();
    let mut node = TestNode::start(&world, &spec);
    let slow = Fault::Delay(Duration::from_millis(300));
    world.inject(Rule::new(OpKind::Read, slow).path(format!("/{OFFSETS_TOPIC}-0/")));
    let mut client = Client::connect(&node, 0);
    let loading = ErrorCode::CoordinatorLoadInProgress.code();
    let fetched = client.call(&mut node, FETCH, &offset_fetch_request("one", "t", 0));
    assert_eq!(fetched.groups[0].error_code, loading);
    let committed = client.call(&mut node, COMMIT, &commit_request("one", "t", 0, 99));
    assert_eq!(committed.topics[0].partitions[0].error_code, loading);
    commits.verify(&mut node);
    assert!(commits.acked.values().all(|offset| *offset == 40));
}

#[test]
fn who_wants_stable_offsets_waits_for_commits_that_are_on_their_way() {
    // The write of a second commit takes long: who does not insist is told the first at once, who does the second.
    let world = World::new(7, WorldOptions::default());
    let mut node = TestNode::start(&world, &spec(1));
    let mut committing = Client::connect(&node, 0);
    committing.create(&mut node, "t", 3, &[]);
    Commits::default().commit(&mut node, &[key("one", "t", 0)]).expect("the power stays on");
    let first = committing.call(&mut node, COMMIT, &commit_request("one", "t", 0, 1));
    assert_eq!(first.topics[0].partitions[0].error_code, 0);
    let path = format!("/{OFFSETS_TOPIC}-{}/", partition_of("one", 4));
    world.inject(Rule::new(OpKind::Write, Fault::Delay(Duration::from_secs(5))).path(path));
    committing.send(COMMIT, &commit_request("one", "t", 0, 2));
    let (mut asking, mut insisting) = (Client::connect(&node, 0), Client::connect(&node, 0));
    let request = offset_fetch_request("one", "t", 0);
    let offset = |response: OffsetFetchResponse| response.groups[0].topics[0].partitions[0].committed_offset;
    for _ in 0..3 {
        assert_eq!(offset(asking.call(&mut node, FETCH, &request)), 1);
    }
    assert!(committing.take::<OffsetCommitRequest>(COMMIT).is_none(), "it is on its way");
    assert_eq!(offset(insisting.call(&mut node, FETCH, &request.clone().with_require_stable(true))), 2);
    let second = committing.receive::<OffsetCommitRequest>(&mut node, COMMIT).expect("answered");
    assert_eq!(second.topics[0].partitions[0].error_code, 0);
    assert_eq!(offset(asking.call(&mut node, FETCH, &request)), 2);
}

#[test]
fn a_commit_that_cannot_be_written_is_refused_and_not_seen() {
    // The write of the second commit fails: its partition goes offline and has no coordinator any more, the others
    // go on; the next start has the first commit or the second, which may have reached the disk.
    let world = World::new(4, WorldOptions::default());
    let mut node = TestNode::start(&world, &spec(1));
    Client::connect(&node, 0).create(&mut node, "t", 3, &[]);
    let mut commits = Commits::default();
    commits.commit(&mut node, &keys()).expect("the power stays on");
    let index = partition_of("one", 4);
    let path = format!("/{OFFSETS_TOPIC}-{index}/");
    world.inject(Rule::new(OpKind::Write, Fault::Error(libc::EIO)).path(path).times(1));
    let mut client = Client::connect(&node, 0);
    let not_here = ErrorCode::NotCoordinator.code();
    let (_, request) = commits.next("one", "t", 0);
    let response = client.call(&mut node, COMMIT, &request);
    assert_eq!(response.topics[0].partitions[0].error_code, not_here);
    let response = client.call(&mut node, FETCH, &offset_fetch_request("one", "t", 0));
    assert_eq!(response.groups[0].error_code, not_here);
    let others: Vec<Key> = keys().into_iter().filter(|key| partition_of(&key.0, 4) != index).collect();
    assert!(!others.is_empty());
    commits.commit(&mut node, &others).expect("the power stays on");
    world.kill_process();
    drop(node);
    commits.disconnect();
    let mut node = TestNode::start(&world, &spec(2));
    commits.verify(&mut node);
}

#[test]
fn a_full_disk_refuses_commits_and_takes_them_again_when_there_is_room() {
    let world = World::new(5, WorldOptions::default());
    let mut node = TestNode::start(&world, &spec(1));
    Client::connect(&node, 0).create(&mut node, "t", 3, &[]);
    let mut commits = Commits::default();
    commits.commit(&mut node, &keys()).expect("the power stays on");
    world.set_capacity(world.occupied_bytes());
    let mut client = Client::connect(&node, 0);
    let mut refused_count = 0;
    for _ in 0..2000 {
        let (offset, request) = commits.next("one", "t", 0);
        let response = client.call(&mut node, COMMIT, &request);
        match response.topics[0].partitions[0].error_code {
            0 => drop(commits.acked.insert(key("one", "t", 0), offset)),
            error => {
                assert_eq!(error, ErrorCode::CoordinatorNotAvailable.code());
                refused_count += 1;
                let found = commits.fetch(&mut node, &key("one", "t", 0));
                assert_eq!(found, commits.acked[&key("one", "t", 0)]);
            }
        }
        if refused_count == 3 {
            break;
        }
    }
    assert_eq!(refused_count, 3, "the disk is full at some time");
    world.set_capacity(u64::MAX);
    node.run_for(Duration::from_secs(2));
    commits.commit(&mut node, &keys()).expect("the power stays on");
    commits.verify(&mut node);
}

#[test]
fn a_topic_never_begins_with_the_offsets_of_an_older_one_of_its_name() {
    // Deletes and creates the topic again; cuts the power at every k-th write from the deletion on.
    let run = |cut_after: Option<u64>| {
        let world = World::new(6, WorldOptions::default());
        let mut node = TestNode::start(&world, &spec(2));
        Client::connect(&node, 0).create(&mut node, "t", 3, &[]);
        Client::connect(&node, 0).create(&mut node, "other", 1, &[]);
        let mut commits = Commits::default();
        let stays = key("one", "other", 0);
        for _ in 0..3 {
            commits.commit(&mut node, &keys()).expect("the power stays on");
            commits.commit(&mut node, std::slice::from_ref(&stays)).expect("the power stays on");
        }
        let before = world.write_count();
        if let Some(cut_after) = cut_after {
            world.cut_power_at_write(before + cut_after, Tear::Random);
        }
        let mut client = Client::connect(&node, 0);
        let deleted = client.try_delete(&mut node, "t");
        let created = deleted.and_then(|_| client.try_create(&mut node, "t", 3, &[]));
        let is_new = created.is_some();
        if is_new && cut_after.is_none() {
            // At once, not only when the tombstones are written.
            for key in keys() {
                assert_eq!(commits.fetch(&mut node, &key), -1, "{key:?}");
            }
        }
        node.run_for(Duration::from_secs(3));
        let writes = world.write_count() - before;
        if cut_after.is_none() {
            world.kill_process();
        }
        drop((client, node));
        world.clear_write_hooks();
        commits.disconnect();
        let mut node = TestNode::start(&world, &spec(3));
        let mut client = Client::connect(&node, 0);
        if client.topic(&mut node, "t").topics[0].error_code != 0 {
            client.create(&mut node, "t", 3, &[]);
        }
        for key in keys() {
            let found = commits.fetch(&mut node, &key);
            // Unless the deletion itself was lost, and with it the new topic.
            assert!(found == -1 || (!is_new && found == 3), "cut after {cut_after:?}: {key:?} has {found}");
        }
        assert_eq!(commits.fetch(&mut node, &stays), 3);
        // Commits for the new one are taken.
        node.run_for(Duration::from_secs(3));
        commits.commit(&mut node, &keys()).expect("the power stays on");
        writes
    };
    let writes = run(None);
    for cut_after in (0..writes).step_by((writes as usize / 12).max(1)) {
        run(Some(cut_after));
    }
}

#[test]
fn offsets_expire_and_stay_away() {
    let world = World::new(7, WorldOptions::default());
    let spec = spec(1).set("offsets.retention.minutes", 2).set("offsets.retention.check.interval.ms", 1000);
    let mut node = TestNode::start(&world, &spec);
    Client::connect(&node, 0).create(&mut node, "t", 3, &[]);
    let mut commits = Commits::default();
    commits.commit(&mut node, &keys()).expect("the power stays on");
    let in_use = key("one", "t", 0);
    node.run_for(Duration::from_secs(60));
    commits.commit(&mut node, std::slice::from_ref(&in_use)).expect("the power stays on");
    assert_eq!(commits.fetch(&mut node, &key("two", "t", 1)), 1);
    node.run_for(Duration::from_secs(90));
    let check = |commits: &mut Commits, node: &mut TestNode| {
        for key in keys() {
            let expected = if key == in_use { 2 } else { -1 };
            assert_eq!(commits.fetch(node, &key), expected, "{key:?}");
        }
    };
    check(&mut commits, &mut node);
    world.kill_process();
    drop(node);
    commits.disconnect();
    let mut node = TestNode::start(&world, &spec);
    check(&mut commits, &mut node);
}
