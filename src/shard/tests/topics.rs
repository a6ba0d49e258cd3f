//! What the metadata survives: creations, deletions, names used again, cut at any write.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kafka_protocol::messages::FetchRequest;

use super::client::{Client, batch, fetch_request, topic_name};
use super::node::{DATA, Spec, TestNode};
use crate::base::rng::Rng;
use crate::io::sim::{Fault, OpKind, Rule, Tear, World, WorldOptions};
use crate::model::id::TopicId;
use crate::protocol::ErrorCode;

const NAMES: [&str; 3] = ["a", "b", "c"];

/// What a client was told about topics.
#[derive(Default)]
struct Told {
    /// Exists: its id and how many records were acknowledged in its partition 0.
    live: BTreeMap<&'static str, (TopicId, i64)>,
    deleted: BTreeSet<TopicId>,
    /// A request about this name was under way when the power went.
    unsure: Option<&'static str>,
}

impl Told {
    /// Creates, writes to and deletes topics by the seed; false once the power is cut.
    fn play(&mut self, node: &mut TestNode, rng: &mut Rng, rounds: u32) -> Option<()> {
        let mut clients: Vec<Client> = (0..node.shards.len()).map(|shard| Client::connect(node, shard)).collect();
        for _ in 0..rounds {
            let name = NAMES[rng.in_range(0..NAMES.len() as u64) as usize];
            let at = rng.in_range(0..clients.len() as u64) as usize;
            let client = &mut clients[at];
            self.unsure = Some(name);
            match self.live.get(name).copied() {
                None => {
                    let id = client.try_create(node, name, 3, &[])?.expect("it does not exist");
                    assert!(!self.deleted.contains(&id), "an id is never used twice");
                    self.live.insert(name, (id, 0));
                }
                Some((id, _)) if rng.chance(1, 2) => {
                    let code = client.try_delete(node, name)?;
                    assert_eq!(code, ErrorCode::None, "seed {}", node.world.seed());
                    self.live.remove(name);
                    self.deleted.insert(id);
                }
                Some((id, _)) => {
                    self.unsure = None;
                    let metadata = client.metadata(node)?;
                    let topic = metadata.topics.iter().find(|topic| topic.topic_id == id.0).expect("it exists");
                    for index in 0..3 {
                        let leader = topic.partitions[index as usize].leader_id.0 as usize - 1;
                        let bytes = batch(node.world.now().wall, None, &[id.to_string().as_bytes()]);
                        let request = super::client::produce_request(id, index, bytes);
                        let answer = clients[leader].try_call(node, super::client::PRODUCE_BY_ID, &request)?;
                        let answer = super::client::partition_of(answer);
                        assert_eq!(answer.error_code, 0, "seed {}: {answer:?}", node.world.seed());
                        if index == 0 {
                            self.live.get_mut(name).expect("it exists").1 = answer.base_offset + 1;
                        }
                    }
                }
            }
            self.unsure = None;
        }
        Some(())
    }

    /// Compares every shard's metadata, and what topics hold.
    fn compare(&mut self, node: &mut TestNode) {
        let seed = node.world.seed();
        let mut clients: Vec<Client> = (0..node.shards.len()).map(|shard| Client::connect(node, shard)).collect();
        for shard in 0..clients.len() {
            let metadata = clients[shard].metadata(node).expect("no cut");
            let listed: BTreeMap<String, TopicId> = metadata
                .topics
                .iter()
                .map(|topic| (topic.name.as_ref().expect("named").to_string(), TopicId(topic.topic_id)))
                .collect();
            if let Some(name) = self.unsure.take() {
                // Either it happened or not; from now on it is known.
                match (self.live.get(name).copied(), listed.get(name)) {
                    (None, Some(id)) => drop(self.live.insert(name, (*id, 0))),
                    (Some((id, _)), None) => {
                        self.live.remove(name);
                        self.deleted.insert(id);
                    }
                    _ => {}
                }
            }
            let expected: BTreeMap<String, TopicId> =
                self.live.iter().map(|(name, (id, _))| (name.to_string(), *id)).collect();
            assert_eq!(listed, expected, "seed {seed}, shard {shard}");
            for topic in &metadata.topics {
                for partition in &topic.partitions {
                    let leader = partition.leader_id.0 as usize - 1;
                    let id = TopicId(topic.topic_id);
                    let index = partition.partition_index;
                    let (found, _) = clients[leader].read_all(node, id, index, 0).expect("no cut").expect("readable");
                    let mine = id.to_string();
                    let foreign = found.iter().any(|(_, bytes)| !contains(bytes, mine.as_bytes()));
                    assert!(!foreign, "seed {seed}: records of another topic in {mine}-{index}");
                    let name: &str = topic.name.as_ref().expect("named");
                    if index == 0 {
                        assert!(found.len() as i64 >= self.live[name].1, "seed {seed}: {name} has lost records");
                    }
                }
            }
            for id in &self.deleted {
                let data = clients[shard].fetch(node, &fetch_request(*id, 0, 0)).expect("no cut");
                assert_eq!(data.error_code, ErrorCode::UnknownTopicId.code(), "seed {seed}");
            }
        }
    }

    /// In the end nothing on disk belongs to a deleted topic.
    fn compare_directories(&self, node: &mut TestNode) {
        node.run_for(Duration::from_secs(3));
        let live: BTreeSet<&str> = self.live.keys().copied().collect();
        for entry in node.world.list(format!("{DATA}/topics")).expect("a directory") {
            let topic = entry.name.rsplit_once('-').expect("topic and partition").0;
            let is_deleted = entry.name.ends_with(".deleted");
            assert!(live.contains(topic) && !is_deleted, "seed {}: {} is left", node.world.seed(), entry.name);
        }
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// Plays, cut at a write if one is given, and compares after two more starts. Returns the writes of the first part.
fn cut_and_compare(seed: u64, cut_at: Option<u64>, shards: [u16; 2]) -> u64 {
    let world = World::new(seed, WorldOptions::default());
    if let Some(cut_at) = cut_at {
        world.cut_power_at_write(cut_at, Tear::Random);
    }
    let mut rng = Rng::new(seed);
    let mut told = Told::default();
    let node = TestNode::try_start(&world, &Spec::new(shards[0]));
    let whole = node.and_then(|mut node| told.play(&mut node, &mut rng, 25).map(|()| node));
    let writes = world.write_count();
    if whole.is_some() {
        world.power_cut();
    }
    drop(whole);
    world.clear_write_hooks();
    for shard_count in shards {
        let mut node = TestNode::start(&world, &Spec::new(shard_count));
        told.compare(&mut node);
        told.compare_directories(&mut node);
        told.play(&mut node, &mut rng, 5).expect("no cut");
        told.compare(&mut node);
        world.kill_process();
    }
    writes
}

#[test]
fn topics_and_deletions_survive_a_power_cut_at_any_write() {
    // One play per seed; then the same play cut at every k-th of its writes.
    for (seed, shards) in [(11, [1, 1]), (12, [3, 2]), (13, [2, 3])] {
        let writes = cut_and_compare(seed, None, shards);
        let step = (writes / 25).max(1);
        for cut_at in (seed % step..writes).step_by(step as usize) {
            cut_and_compare(seed, Some(cut_at), shards);
        }
    }
}

#[test]
fn topics_survive_a_power_cut_at_any_moment() {
    // Between writes as well: renames, removals and syncs of directories are cut too.
    for seed in 100..160 {
        let world = World::new(seed, WorldOptions::default());
        let mut rng = Rng::new(seed);
        let mut told = Told::default();
        for round in 0..3 {
            let mut node = TestNode::start(&world, &Spec::new(1 + rng.in_range(0..3) as u16));
            told.compare(&mut node);
            if round == 2 {
                told.compare_directories(&mut node);
                break;
            }
            let rounds = rng.in_range(1..20) as u32;
            told.play(&mut node, &mut rng, rounds).expect("no cut");
            // The end of a deletion goes on behind its answer.
            for _ in 0..rng.in_range(0..200) {
                node.step();
            }
            if rng.chance(1, 3) { world.kill_process() } else { world.power_cut() }
        }
    }
}

#[test]
fn a_read_by_name_never_ends_in_another_topic_of_that_name() {
    // A fetch by name waits for a slow disk while its topic is deleted, created again and filled.
    for seed in 0..3 {
        let world = World::new(seed, WorldOptions::calm());
        let mut spec = Spec::new(1).set("log.segment.bytes", 16 * 1024);
        spec.tail_size_bytes = 64 * 1024;
        let mut node = TestNode::start(&world, &spec);
        let mut client = Client::connect(&node, 0);
        let mut reader = Client::connect(&node, 0);
        let fill = |node: &mut TestNode, client: &mut Client| {
            let id = client.create(node, "t", 1, &[]);
            for _ in 0..40 {
                let value = id.to_string().repeat(200);
                let bytes = batch(node.world.now().wall, None, &[value.as_bytes()]);
                assert_eq!(client.produce(node, id, 0, bytes).error_code, 0, "seed {seed}");
            }
            id
        };
        let old = fill(&mut node, &mut client);
        world.inject(Rule::new(OpKind::Read, Fault::Delay(Duration::from_secs(5))).path(".log").times(1));
        let mut request = fetch_request(TopicId::NONE, 0, 0);
        request.topics[0].topic = topic_name("t");
        // So little is read, not spliced.
        request.topics[0].partitions[0].partition_max_bytes = 6_000;
        reader.send(12, &request);
        node.run_for(Duration::from_millis(50));
        assert_eq!(client.try_delete(&mut node, "t"), Some(ErrorCode::None));
        let new = fill(&mut node, &mut client);
        assert_eq!(reader.link.available_bytes(), 0, "seed {seed}: it should still be reading");
        let response = reader.receive::<FetchRequest>(&mut node, 12).expect("answered");
        let data = &response.responses[0].partitions[0];
        let records = data.records.clone().unwrap_or_default();
        assert!(!contains(&records, old.to_string().as_bytes()), "seed {seed}: old records in an answer of today");
        for _ in 0..2 {
            let (found, _) = client.read_all(&mut node, new, 0, 0).expect("answered").expect("readable");
            assert!(found.len() == 40 && found.iter().all(|(_, b)| contains(b, new.to_string().as_bytes())));
        }
    }
}

#[test]
fn a_topic_created_again_is_empty_and_its_old_id_is_unknown() {
    let world = World::new(1, WorldOptions::default());
    let mut node = TestNode::start(&world, &Spec::new(2));
    let mut told = Told::default();
    let mut client = Client::connect(&node, 0);
    let mut clients: Vec<Client> = (0..2).map(|shard| Client::connect(&node, shard)).collect();
    for _ in 0..10 {
        let id = client.create(&mut node, "a", 2, &[]);
        let metadata = client.topic(&mut node, "a");
        for index in 0..2 {
            let leader = metadata.topics[0].partitions[index].leader_id.0 as usize - 1;
            let data = clients[leader].fetch(&mut node, &fetch_request(id, index as i32, 0)).expect("answered");
            assert_eq!((data.error_code, data.high_watermark), (0, 0));
            let bytes = batch(world.now().wall, None, &[id.to_string().as_bytes()]);
            let answer = clients[leader].produce(&mut node, id, index as i32, bytes);
            assert_eq!((answer.error_code, answer.base_offset), (0, 0));
        }
        assert_eq!(client.try_delete(&mut node, "a"), Some(ErrorCode::None));
        told.deleted.insert(id);
    }
    told.compare(&mut node);
    told.compare_directories(&mut node);
}
