//! The controller as a whole: requests in, what is appended, published and answered out, over a world of shards that
//! are as slow as the seed says.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::base::rng::Rng;
use crate::controller::configs::{ConfigChange, ConfigOp, ConfigResource};
use crate::controller::controller::{Controller, ControllerError, Effect, Event, Reply};
use crate::controller::growth::MorePartitions;
use crate::controller::image::Image;
use crate::controller::records::Record;
use crate::controller::topics::{NewTopic, TopicError, TopicRef};
use crate::model::configs::BrokerConfig;
use crate::model::id::{LeaderEpoch, NodeId, Offset, PartitionIndex, ShardId, TopicId, TopicIdPartition};
use crate::model::limits::{METADATA_BATCH_SIZE_BYTES_MAX, METADATA_CHANGE_COUNT_MAX, TOPIC_PARTITION_COUNT_MAX};

type Ticket = u32;

/// A controller, its log and its shards. Nothing moves until it is told to.
struct World {
    controller: Controller<Ticket>,
    /// What is durable.
    log: Vec<Vec<u8>>,
    /// What is being written.
    append: Option<Vec<Vec<u8>>>,
    /// Images on their way to each shard.
    bus: Vec<VecDeque<Image>>,
    /// What each shard has applied.
    shards: Vec<Image>,
    replies: Vec<(Ticket, Result<Reply, ControllerError>)>,
}

impl World {
    /// A node that is to be started over this log.
    fn new(settings: &[(&str, &str)], log: Vec<Vec<u8>>, shard_count: u16, seed: u64) -> World {
        let config = Arc::new(BrokerConfig::parse(settings.iter().copied()).unwrap());
        World {
            controller: Controller::new(config, replay(&log), shard_count, Rng::new(seed)),
            log,
            append: None,
            bus: vec![VecDeque::new(); usize::from(shard_count)],
            shards: vec![Image::default(); usize::from(shard_count)],
            replies: Vec::new(),
        }
    }

    fn started(settings: &[(&str, &str)], log: Vec<Vec<u8>>, shard_count: u16, seed: u64) -> World {
        let mut world = World::new(settings, log, shard_count, seed);
        world.event(Event::Start { ticket: 0, node: NodeId(0) });
        world.settle();
        assert_eq!(world.replies, [(0, Ok(Reply::Started))]);
        world.replies.clear();
        world
    }

    fn event(&mut self, event: Event<Ticket>) {
        for effect in self.controller.handle(event) {
            match effect {
                Effect::Append { base_offset, values } => {
                    assert_eq!(base_offset, Offset(self.log.len() as i64), "records are appended where the log ends");
                    assert!(self.append.replace(values).is_none(), "one append at a time");
                }
                Effect::Publish(image) => {
                    assert_eq!(image.version(), Offset(self.log.len() as i64 - 1), "only what is durable is published");
                    self.bus.iter_mut().for_each(|bus| bus.push_back(image.clone()));
                }
                Effect::Reply { ticket, result } => self.replies.push((ticket, result)),
            }
        }
    }

    /// Ends the append in flight; false if there is none.
    fn finish_append(&mut self) -> bool {
        let Some(values) = self.append.take() else { return false };
        self.log.extend(values);
        self.event(Event::Appended);
        true
    }

    /// Lets a shard apply its next image; false if there is none.
    fn deliver(&mut self, shard: usize) -> bool {
        let Some(image) = self.bus[shard].pop_front() else { return false };
        let version = image.version();
        self.shards[shard] = image;
        self.event(Event::Applied { shard: ShardId(shard as u16), version });
        true
    }

    /// Ends everything that is under way.
    fn settle(&mut self) {
        loop {
            let appended = self.finish_append();
            let delivered = (0..self.shards.len()).filter(|shard| self.deliver(*shard)).count();
            if !appended && delivered == 0 {
                return;
            }
        }
    }

    fn create(&mut self, ticket: Ticket, names: &[&str]) {
        let topics = names.iter().map(|name| NewTopic::with_defaults(*name)).collect();
        self.event(Event::CreateTopics { ticket, topics, validate_only: false });
    }

    fn take_reply(&mut self, ticket: Ticket) -> Reply {
        let at = self.replies.iter().position(|(of, _)| *of == ticket).expect("an answer");
        self.replies.remove(at).1.expect("judged")
    }

    fn created(&mut self, ticket: Ticket) -> Vec<Result<TopicId, TopicError>> {
        let Reply::CreateTopics(results) = self.take_reply(ticket) else { panic!("another answer") };
        results.into_iter().map(|(_, result)| result.map(|created| created.id)).collect()
    }

    fn deleted(&mut self, ticket: Ticket) -> Vec<Result<TopicId, TopicError>> {
        let Reply::DeleteTopics(results) = self.take_reply(ticket) else { panic!("another answer") };
        results.into_iter().map(|(_, result)| result.map(|deleted| deleted.id)).collect()
    }
}

fn replay(log: &[Vec<u8>]) -> Image {
    let mut image = Image::default();
    for value in log {
        image.apply(&Record::decode(value).expect("a record")).expect("it fits");
    }
    image
}

#[test]
fn a_creation_is_answered_when_it_is_durable_and_every_shard_knows() {
    let mut world = World::started(&[], Vec::new(), 3, 1);
    world.create(7, &["t"]);
    assert!(world.replies.is_empty(), "before it is durable");
    world.finish_append();
    assert!(world.replies.is_empty(), "before any shard knows");
    world.deliver(0);
    world.deliver(2);
    assert!(world.replies.is_empty(), "before the last shard knows");
    world.deliver(1);
    let id = world.created(7)[0].clone().unwrap();
    assert!(world.shards.iter().all(|image| image.topic(id).is_some()));
}

#[test]
fn what_queues_during_an_append_goes_together_in_the_next() {
    let mut world = World::started(&[], Vec::new(), 1, 1);
    for ticket in 0..50 {
        world.create(ticket, &[&format!("t{ticket}")]);
    }
    assert_eq!(world.append.as_ref().unwrap().len(), 1);
    world.finish_append();
    assert_eq!(world.append.as_ref().unwrap().len(), 49);
    world.settle();
    assert_eq!(world.replies.iter().map(|(ticket, _)| *ticket).collect::<Vec<_>>(), (0..50).collect::<Vec<_>>());
}

#[test]
fn a_batch_has_a_bound() {
    // Long configs: the queue is more than one batch may hold.
    let mut world = World::started(&[], Vec::new(), 1, 1);
    for ticket in 0..100 {
        let value = "x".repeat(30_000);
        let configs = vec![("leader.replication.throttled.replicas".to_owned(), Some(value))];
        let topics = vec![NewTopic { configs, ..NewTopic::with_defaults(format!("t{ticket}")) }];
        world.event(Event::CreateTopics { ticket, topics, validate_only: false });
    }
    let mut batch_count = 0;
    while let Some(values) = &world.append {
        assert!(values.iter().map(Vec::len).sum::<usize>() <= METADATA_BATCH_SIZE_BYTES_MAX);
        world.finish_append();
        batch_count += 1;
    }
    assert!((4..10).contains(&batch_count), "{batch_count}");
    world.settle();
    assert_eq!(world.replies.len(), 100);
}

#[test]
fn two_creations_of_a_name_cannot_both_succeed() {
    // In one request, and in requests that follow one another before the first is durable.
    let mut world = World::started(&[], Vec::new(), 2, 1);
    world.create(1, &["same", "other", "same"]);
    world.create(2, &["t"]);
    world.create(3, &["t"]);
    world.create(4, &["a.b", "a_b"]);
    assert!(world.replies.is_empty(), "not even a refusal runs ahead of what the shards know");
    world.settle();
    let first = world.created(1);
    assert!(first.len() == 2 && first[0] == Err(TopicError::Duplicate) && first[1].is_ok());
    assert!(world.created(2)[0].is_ok());
    assert!(matches!(world.created(3)[0], Err(TopicError::TopicExists { .. })));
    let last = world.created(4);
    assert!(last[0].is_ok() && matches!(last[1], Err(TopicError::NameCollision { .. })));
}

#[test]
fn judging_only_changes_nothing() {
    let mut world = World::started(&[], Vec::new(), 2, 1);
    let before = world.controller.committed().clone();
    let topics = vec![NewTopic::with_defaults("a.b"), NewTopic::with_defaults("a_b")];
    world.event(Event::CreateTopics { ticket: 1, topics, validate_only: true });
    assert!(world.append.is_none());
    let results = world.created(1);
    assert_eq!(results[0], Ok(TopicId::NONE));
    assert!(matches!(results[1], Err(TopicError::NameCollision { .. })), "they met one another");
    assert_eq!(world.controller.committed(), &before);
}

#[test]
fn a_topic_created_again_is_another_topic() {
    let mut world = World::started(&[], Vec::new(), 2, 1);
    world.create(1, &["t"]);
    world.event(Event::DeleteTopics { ticket: 2, topics: vec![TopicRef::Name("t".into())] });
    world.create(3, &["t"]);
    world.settle();
    let (old, new) = (world.created(1)[0].clone().unwrap(), world.created(3)[0].clone().unwrap());
    assert_eq!(world.deleted(2), [Ok(old)]);
    assert_ne!(old, new);
    world.event(Event::DeleteTopics { ticket: 4, topics: vec![TopicRef::Id(old), TopicRef::Id(new)] });
    world.settle();
    assert_eq!(world.deleted(4), [Err(TopicError::UnknownTopicId), Ok(new)]);
}

#[test]
fn a_deletion_must_name_its_topic_once_and_in_one_way() {
    // As Kafka: what is there twice is told once, and not done.
    let mut world = World::started(&[], Vec::new(), 1, 1);
    world.create(1, &["t", "u"]);
    world.settle();
    let id = world.created(1)[0].clone().unwrap();
    let name = |name: &str| TopicRef::Name(name.into());
    let topics = vec![
        name("t"),
        TopicRef::Id(id),
        TopicRef::Both("u".into(), id),
        TopicRef::Neither,
        name("t"),
        TopicRef::Id(id),
        TopicRef::Neither,
        name("u"),
    ];
    world.event(Event::DeleteTopics { ticket: 2, topics });
    world.settle();
    let told = world.deleted(2);
    let errors: Vec<_> = told.iter().filter_map(|result| result.clone().err()).collect();
    let nameless = TopicError::NeitherNameNorId;
    assert_eq!(
        errors,
        [TopicError::Duplicate, TopicError::DuplicateId, TopicError::NameAndId, nameless.clone(), nameless]
    );
    assert!(told.len() == 6 && told[5].is_ok(), "{told:?}");
    assert!(world.controller.committed().topic_by_name("t").is_some());
}

/// What becomes of a topic's retention.
fn retention(name: &str, value: &str) -> (ConfigResource, ConfigChange) {
    let op = ConfigOp::Set(value.to_owned());
    (ConfigResource::Topic(name.to_owned()), ConfigChange::Edit(BTreeMap::from([("retention.ms".to_owned(), op)])))
}

#[test]
fn changed_settings_are_answered_when_they_are_durable_and_every_shard_knows() {
    let mut world = World::started(&[], Vec::new(), 2, 1);
    world.create(1, &["t"]);
    world.settle();
    let id = world.created(1)[0].clone().unwrap();
    let resources = vec![retention("missing", "5"), retention("t", "5")];
    world.event(Event::AlterConfigs { ticket: 2, resources: resources.clone(), validate_only: true });
    let unknown = Err(TopicError::UnknownTopic);
    let expected = Reply::AlterConfigs(vec![
        (ConfigResource::Topic("missing".into()), unknown),
        (ConfigResource::Topic("t".into()), Ok(())),
    ]);
    assert_eq!(world.take_reply(2), expected);
    assert!(world.append.is_none(), "only judged");
    world.event(Event::AlterConfigs { ticket: 3, resources, validate_only: false });
    world.finish_append();
    world.deliver(0);
    assert!(world.replies.is_empty(), "before the last shard knows");
    world.deliver(1);
    assert_eq!(world.take_reply(3), expected);
    let of = |image: &Image| image.topic(id).unwrap().configs["retention.ms"].clone();
    assert!(world.shards.iter().all(|image| of(image) == "5"));
    // Judged by what was accepted before it, durable or not: what changes nothing waits for it all the same.
    let alter =
        |ticket, value| Event::AlterConfigs { ticket, resources: vec![retention("t", value)], validate_only: false };
    world.event(alter(4, "6"));
    world.event(alter(5, "6"));
    assert!(world.replies.is_empty());
    let before = world.log.len();
    world.settle();
    assert_eq!((world.replies.len(), world.log.len()), (2, before + 1));
}

#[test]
fn a_topic_grows_when_every_shard_knows_and_only_if_all_its_request_fits() {
    let mut world = World::started(&[], Vec::new(), 2, 1);
    world.create(1, &["t", "u"]);
    world.settle();
    let id = world.created(1)[0].clone().unwrap();
    let more = |name: &str, partition_count| MorePartitions { name: name.into(), partition_count, assignments: None };
    let grow = |ticket, topics, validate_only| Event::CreatePartitions { ticket, topics, validate_only };
    // Each would fit, both do not; a repeated name is told once.
    let most = TOPIC_PARTITION_COUNT_MAX as i32;
    let topics = vec![more("t", most), more("w", 2), more("u", most), more("w", 3)];
    world.event(grow(2, [topics, vec![more("u", most)]].concat(), true));
    let Reply::CreatePartitions(results) = world.take_reply(2) else { panic!("another answer") };
    assert_eq!(results.len(), 3, "{results:?}");
    assert_eq!(results[0], ("t".into(), Ok(())));
    assert_eq!(results[1], ("w".into(), Err(TopicError::Duplicate)));
    assert_eq!(results[2], ("u".into(), Err(TopicError::Duplicate)));
    assert!(world.append.is_none(), "only judged");
    world.event(grow(3, vec![more("t", 5), more("u", 1)], false));
    world.finish_append();
    world.deliver(1);
    assert!(world.replies.is_empty(), "before the last shard knows");
    world.deliver(0);
    let Reply::CreatePartitions(results) = world.take_reply(3) else { panic!("another answer") };
    assert!(results[0].1.is_ok() && matches!(results[1].1, Err(TopicError::NoMorePartitions { .. })));
    assert!(world.shards.iter().all(|image| image.topic(id).unwrap().partition_count == 5));
    assert_eq!(replay(&world.log), *world.controller.committed());
}

#[test]
fn directories_are_removed_when_every_shard_says_so() {
    let mut world = World::started(&[], Vec::new(), 2, 1);
    world.create(1, &["t"]);
    world.event(Event::DeleteTopics { ticket: 2, topics: vec![TopicRef::Name("t".into())] });
    world.settle();
    let id = world.deleted(2)[0].clone().unwrap();
    let removed = |shard| Event::DirectoriesRemoved { shard: ShardId(shard), topic: id };
    world.event(removed(0));
    world.event(removed(0));
    world.settle();
    assert_eq!(world.controller.committed().deleted_topics().count(), 1);
    world.event(removed(1));
    world.settle();
    assert_eq!(world.controller.committed().deleted_topics().count(), 0);
    // A late word about it, or about a topic that lives, is nothing.
    world.event(removed(1));
    assert!(world.append.is_none());
}

#[test]
fn topics_are_created_on_demand_where_that_is_allowed() {
    let mut world = World::started(&[("num.partitions", "4")], Vec::new(), 2, 1);
    world.event(Event::AutoCreateTopics { ticket: 1, names: vec!["new".into(), "b/d".into()] });
    world.event(Event::AutoCreateTopics { ticket: 2, names: vec!["new".into()] });
    world.settle();
    let Reply::AutoCreateTopics(first) = world.take_reply(1) else { panic!() };
    let Reply::AutoCreateTopics(second) = world.take_reply(2) else { panic!() };
    assert_eq!(first[0].1, second[0].1, "the second finds what the first made");
    assert!(matches!(first[1].1, Err(TopicError::InvalidName { .. })));
    assert_eq!(world.controller.committed().topic_by_name("new").unwrap().partition_count, 4);

    let mut world = World::started(&[("auto.create.topics.enable", "false")], Vec::new(), 2, 1);
    world.create(1, &["old"]);
    world.event(Event::AutoCreateTopics { ticket: 2, names: vec!["new".into(), "old".into()] });
    world.settle();
    let Reply::AutoCreateTopics(results) = world.take_reply(2) else { panic!() };
    assert!(results[0].1 == Err(TopicError::UnknownTopic) && results[1].1.is_ok());
}

#[test]
fn partitions_materialize_once_and_together() {
    let mut world = World::started(&[("num.partitions", "1000")], Vec::new(), 2, 1);
    world.create(1, &["t", "u"]);
    world.settle();
    let id = world.created(1)[0].clone().unwrap();
    let partition = |index| TopicIdPartition { topic: id, partition: PartitionIndex(index) };
    for index in 0..1001 {
        world.event(Event::Materialize { ticket: index as u32, partitions: vec![partition(index)] });
    }
    world.finish_append();
    assert_eq!(world.append.as_ref().unwrap().len(), 1, "all that queued are one record");
    world.settle();
    assert_eq!(world.take_reply(999), Reply::Materialized { unknown: vec![] });
    assert_eq!(world.take_reply(1000), Reply::Materialized { unknown: vec![partition(1000)] });
    let topic = world.controller.committed().topic(id).unwrap().clone();
    assert!(topic.partitions().all(|index| topic.is_materialized(index)));
    world.event(Event::Materialize { ticket: 5000, partitions: vec![partition(3)] });
    assert!(world.append.is_none(), "what is known already needs no record");
    assert_eq!(world.take_reply(5000), Reply::Materialized { unknown: vec![] });
    assert_eq!(replay(&world.log), *world.controller.committed());
}

#[test]
fn producer_ids_are_given_out_once_across_restarts() {
    let mut world = World::started(&[], Vec::new(), 2, 1);
    let mut firsts = Vec::new();
    for restart in 0..3 {
        for ticket in 1..4 {
            world.event(Event::AllocateProducerIds { ticket });
        }
        world.settle();
        for ticket in 1..4 {
            let Reply::ProducerIds(block) = world.take_reply(ticket) else { panic!() };
            firsts.push(block.first.0);
            assert_eq!(block.count, 1000);
        }
        world = World::started(&[], std::mem::take(&mut world.log), 2, restart + 2);
    }
    assert_eq!(firsts, (0..9).map(|block| block * 1000).collect::<Vec<_>>());
}

#[test]
fn a_restart_keeps_identity_and_raises_epochs() {
    let mut world = World::started(&[], Vec::new(), 2, 1);
    world.create(1, &["t"]);
    world.settle();
    let before = world.controller.committed().clone();
    for restart in 1..5 {
        world = World::started(&[], std::mem::take(&mut world.log), 1 + restart as u16, restart as u64);
        let image = world.controller.committed();
        let topic = image.topic_by_name("t").unwrap();
        assert_eq!(image.cluster_id(), before.cluster_id());
        assert_eq!(topic.id, before.topic_by_name("t").unwrap().id);
        assert_eq!(image.leader_epoch(topic), LeaderEpoch(restart));
    }
}

#[test]
fn nothing_is_accepted_after_the_log_failed() {
    let mut world = World::started(&[], Vec::new(), 2, 1);
    world.create(1, &["durable"]);
    world.finish_append();
    world.create(2, &["lost"]);
    world.create(3, &["queued"]);
    world.append = None;
    world.event(Event::AppendFailed { cause: "EIO".into() });
    world.create(4, &["late"]);
    let failed = Err(ControllerError::LogFailed { cause: "EIO".into() });
    assert_eq!(world.replies, [(2, failed.clone()), (3, failed.clone()), (4, failed)]);
    world.replies.clear();
    // What was durable before is published and answered all the same.
    world.settle();
    assert!(world.created(1)[0].is_ok());
    assert!(world.append.is_none() && world.controller.committed().topic_count() == 1);
}

#[test]
fn requests_that_wait_have_a_bound() {
    let mut world = World::started(&[], Vec::new(), 1, 1);
    for ticket in 0..METADATA_CHANGE_COUNT_MAX as u32 + 1 {
        world.event(Event::AllocateProducerIds { ticket });
    }
    assert_eq!(world.replies, [(METADATA_CHANGE_COUNT_MAX as u32, Err(ControllerError::Overloaded))]);
    world.settle();
    assert_eq!(world.replies.len(), METADATA_CHANGE_COUNT_MAX + 1);
}

#[test]
fn many_topics_and_many_partitions_are_cheap() {
    // 10,000 requests of one topic and one topic of 10,000 partitions, each published to a shard that keeps the last
    // image: quadratic work would take minutes.
    let begin = std::time::Instant::now();
    let mut world = World::started(&[], Vec::new(), 2, 1);
    for ticket in 0..10_000 {
        world.create(ticket, &[&format!("topic-{ticket}")]);
        world.settle();
    }
    let topics = vec![NewTopic { partition_count: 10_000, ..NewTopic::with_defaults("wide") }];
    world.event(Event::CreateTopics { ticket: 0, topics, validate_only: false });
    world.settle();
    let image = world.controller.committed().clone();
    assert_eq!((image.topic_count(), image.partition_count()), (10_001, 20_000));
    for index in 0..10_000 {
        let partitions =
            vec![TopicIdPartition { topic: image.topic_by_name("wide").unwrap().id, partition: PartitionIndex(index) }];
        world.event(Event::Materialize { ticket: 0, partitions });
        world.settle();
    }
    assert_eq!(replay(&world.log), *world.controller.committed());
    assert!(begin.elapsed().as_secs() < 30, "{:?}", begin.elapsed());
}

#[test]
fn random_requests_do_what_a_simple_model_does() {
    // Requests, ends of appends and applied images come in an order that the seed decides. The model knows only names
    // and ids and applies requests one after another.
    for seed in 0..60 {
        run_against_model(seed);
    }
}

#[test]
fn a_seed_runs_the_same_way_twice() {
    assert_eq!(run_against_model(1234), run_against_model(1234));
}

/// What the model expects of a request: for each topic, whether it succeeds.
enum Expected {
    Created(Vec<(String, bool)>),
    Deleted(Vec<bool>),
    Materialized,
}

fn run_against_model(seed: u64) -> Vec<Vec<u8>> {
    println!("seed {seed}");
    let mut rng = Rng::new(seed);
    let mut model: BTreeSet<String> = BTreeSet::new();
    let mut log = Vec::new();
    for _ in 0..3 {
        let shard_count = rng.in_range(1..6) as u16;
        let mut world = World::new(&[], std::mem::take(&mut log), shard_count, rng.next_u64());
        world.event(Event::Start { ticket: 0, node: NodeId(0) });
        let mut expected: BTreeMap<Ticket, Expected> = BTreeMap::new();
        for ticket in 1..200 {
            let names: Vec<String> = (0..rng.in_range(1..4)).map(|_| format!("t{}", rng.in_range(0..20))).collect();
            match rng.in_range(0..8) {
                0 | 1 => {
                    let results = names
                        .iter()
                        .filter(|name| names.iter().filter(|other| other == name).count() == 1)
                        .map(|name| (name.clone(), model.insert(name.clone())))
                        .collect();
                    expected.insert(ticket, Expected::Created(results));
                    world.create(ticket, &names.iter().map(String::as_str).collect::<Vec<_>>());
                }
                2 => {
                    let mut told = BTreeSet::new();
                    let is_repeated = |name: &String| names.iter().filter(|other| *other == name).count() > 1;
                    let results = names
                        .iter()
                        .filter(|name| told.insert(*name))
                        .map(|name| !is_repeated(name) && model.remove(name))
                        .collect();
                    expected.insert(ticket, Expected::Deleted(results));
                    let topics = names.iter().map(|name| TopicRef::Name(name.clone())).collect();
                    world.event(Event::DeleteTopics { ticket, topics });
                }
                3 => {
                    let topics: Vec<TopicId> = world.shards[0].topics().map(|topic| topic.id).collect();
                    let partition = |topic| TopicIdPartition { topic, partition: PartitionIndex(0) };
                    let partitions = topics.into_iter().take(3).map(partition).collect();
                    expected.insert(ticket, Expected::Materialized);
                    world.event(Event::Materialize { ticket, partitions });
                }
                4 => {
                    let topics: Vec<TopicId> = world.shards[0].deleted_topics().map(|(id, _)| id).collect();
                    for topic in topics.into_iter().take(2) {
                        let shard = ShardId(rng.in_range(0..u64::from(shard_count)) as u16);
                        world.event(Event::DirectoriesRemoved { shard, topic });
                    }
                }
                5 => drop(world.finish_append()),
                _ => drop(world.deliver(rng.in_range(0..u64::from(shard_count)) as usize)),
            }
            check_replies(&mut world, &mut expected);
        }
        if rng.chance(1, 3) {
            // Killed: what was not durable is gone, and the model must forget it too.
            log = world.log;
            model = replay(&log).topics().map(|topic| topic.name.to_string()).collect();
            continue;
        }
        world.settle();
        check_replies(&mut world, &mut expected);
        assert!(expected.is_empty(), "every request is answered in the end");
        let names: Vec<String> = replay(&world.log).topics().map(|topic| topic.name.to_string()).collect();
        assert_eq!(names.len(), model.len());
        assert!(names.iter().all(|name| model.contains(name)));
        assert_eq!(replay(&world.log), *world.controller.committed());
        assert!(world.shards.iter().all(|image| image == world.controller.committed()));
        log = world.log;
    }
    log
}

fn check_replies(world: &mut World, expected: &mut BTreeMap<Ticket, Expected>) {
    for (ticket, result) in std::mem::take(&mut world.replies) {
        let reply = result.expect("the log does not fail here");
        if ticket == 0 {
            continue;
        }
        let first = expected.first_key_value().map(|(ticket, _)| *ticket);
        assert_eq!(first, Some(ticket), "answers keep the order of requests");
        let expected = expected.remove(&ticket).unwrap();
        match (reply, expected) {
            (Reply::CreateTopics(results), Expected::Created(expected)) => {
                for (name, succeeds) in expected {
                    let (_, result) = results.iter().find(|(of, _)| *of == name).expect("a result per name");
                    assert_eq!(result.is_ok(), succeeds, "{name}: {result:?}");
                    // Whoever hears of a topic finds it at every shard, unless it was deleted since.
                    if let Ok(created) = result {
                        let knows = |image: &Image| {
                            image.topic(created.id).is_some() || image.deleted_topics().any(|(id, _)| id == created.id)
                        };
                        assert!(
                            world.shards.iter().filter(|image| knows(image)).count() + removed(world, created.id)
                                >= world.shards.len()
                        );
                    }
                }
            }
            (Reply::DeleteTopics(results), Expected::Deleted(expected)) => {
                let succeeded: Vec<bool> = results.iter().map(|(_, result)| result.is_ok()).collect();
                assert_eq!(succeeded, expected);
            }
            (Reply::Materialized { .. }, Expected::Materialized) => {}
            (reply, _) => panic!("another answer: {reply:?}"),
        }
    }
}

/// All shards, if a topic was deleted and its directories removed: no image names it any more.
fn removed(world: &World, id: TopicId) -> usize {
    let is_removed = world
        .log
        .iter()
        .any(|value| matches!(Record::decode(value), Ok(Record::TopicDirectoriesRemoved { topic }) if topic == id));
    if is_removed { world.shards.len() } else { 0 }
}
