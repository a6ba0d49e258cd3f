//! Long polls and fetch sessions, end to end.

use std::time::Duration;

use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::fetch_request::ForgottenTopic;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{DeleteRecordsRequest, FetchRequest, ListOffsetsRequest};

use super::client::{Client, FETCH_BY_ID, PRODUCE_BY_ID, batch, fetch_request, produce_request, topic_name};
use super::node::{Spec, TestNode};
use crate::base::time::Timestamp;
use crate::io::sim::{Fault, OpKind, Rule, World, WorldOptions};
use crate::model::builder::BatchBuilder;
use crate::model::compression::Codec;
use crate::protocol::ErrorCode;

fn one_shard(seed: u64) -> (World, TestNode, Client) {
    let world = World::new(seed, WorldOptions::default());
    let node = TestNode::start(&world, &Spec::new(1));
    let client = Client::connect(&node, 0);
    (world, node, client)
}

#[test]
fn a_long_poll_is_woken_by_an_append_of_enough_bytes_or_by_its_time_out() {
    for seed in 0..10 {
        let (world, mut node, mut reader) = one_shard(seed);
        let mut writer = Client::connect(&node, 0);
        let id = writer.create(&mut node, "t", 1, &[]);
        let now = world.now().wall;
        let one = batch(now, None, &[&[b'x'; 100]]);
        let size = one.len() as i32;

        // Nothing comes: answered empty, not before its time and not much after.
        let started = world.now().monotonic;
        let poll = fetch_request(id, 0, 0).with_max_wait_ms(500);
        let data = reader.fetch(&mut node, &poll).expect("answered");
        assert!(data.records.unwrap_or_default().is_empty());
        let waited = world.now().monotonic - started;
        assert!((500..600).contains(&waited.as_millis()), "seed {seed}: {waited:?}");

        // Two batches are enough, one is not.
        let poll = fetch_request(id, 0, 0).with_max_wait_ms(20_000).with_min_bytes(2 * size);
        reader.send(FETCH_BY_ID, &poll);
        assert_eq!(writer.produce(&mut node, id, 0, one.clone()).error_code, 0);
        node.run_for(Duration::from_secs(1));
        assert_eq!(reader.link.available_bytes(), 0, "seed {seed}: too early");
        let started = world.now().monotonic;
        assert_eq!(writer.produce(&mut node, id, 0, one.clone()).error_code, 0);
        let response = reader.receive::<FetchRequest>(&mut node, FETCH_BY_ID).expect("answered");
        assert!(world.now().monotonic - started < Duration::from_millis(500), "seed {seed}");
        let records = response.responses[0].partitions[0].records.clone().unwrap_or_default();
        assert_eq!(records.len() as i32, 2 * size);

        // A deletion wakes it too.
        reader.send(FETCH_BY_ID, &fetch_request(id, 0, 2).with_max_wait_ms(20_000));
        node.run_for(Duration::from_millis(100));
        let started = world.now().monotonic;
        assert_eq!(writer.try_delete(&mut node, "t"), Some(ErrorCode::None));
        let response = reader.receive::<FetchRequest>(&mut node, FETCH_BY_ID).expect("answered");
        assert_eq!(response.responses[0].partitions[0].error_code, ErrorCode::UnknownTopicId.code());
        assert!(world.now().monotonic - started < Duration::from_secs(1), "seed {seed}");
    }
}

#[test]
fn what_partitions_add_to_a_long_poll_is_summed_up_over_appends() {
    // Three partitions and as many bytes as four batches; none counts for more than its own limit.
    for seed in 0..5 {
        let (world, mut node, mut reader) = one_shard(seed);
        let mut writer = Client::connect(&node, 0);
        let id = writer.create(&mut node, "t", 3, &[]);
        let one = batch(world.now().wall, None, &[&[b'x'; 100]]);
        let size = one.len() as i32;
        let mut poll = fetch_request(id, 0, 0).with_max_wait_ms(60_000).with_min_bytes(4 * size);
        let part = poll.topics[0].partitions[0].clone().with_partition_max_bytes(2 * size);
        poll.topics[0].partitions = (0..3).map(|index| part.clone().with_partition(index)).collect();
        reader.send(FETCH_BY_ID, &poll);
        for index in [0, 1, 0, 0, 0] {
            assert_eq!(writer.produce(&mut node, id, index, one.clone()).error_code, 0);
            node.run_for(Duration::from_millis(300));
            assert_eq!(reader.link.available_bytes(), 0, "seed {seed}: three of four");
        }
        assert_eq!(writer.produce(&mut node, id, 2, one.clone()).error_code, 0);
        let started = world.now().monotonic;
        let response = reader.receive::<FetchRequest>(&mut node, FETCH_BY_ID).expect("answered");
        assert!(world.now().monotonic - started < Duration::from_secs(1), "seed {seed}: woken, not timed out");
        let sizes: Vec<i32> = response.responses[0]
            .partitions
            .iter()
            .map(|part| part.records.as_ref().map_or(0, |records| records.len() as i32))
            .collect();
        assert_eq!(sizes, [2 * size, size, size], "seed {seed}");
    }
}

#[test]
fn a_produce_that_is_held_back_is_checked_once() {
    // The first append to a partition waits for its directory; three partitions of one request do.
    let (world, mut node, mut client) = one_shard(3);
    let id = client.create(&mut node, "t", 3, &[("ottla.validate", "records")]);
    let mut request = produce_request(id, 0, batch(world.now().wall, None, &[b"x"]));
    let part = request.topic_data[0].partition_data[0].clone();
    request.topic_data[0].partition_data = (0..3).map(|index| part.clone().with_index(index)).collect();
    let response = client.call(&mut node, PRODUCE_BY_ID, &request);
    assert!(response.responses[0].partition_responses.iter().all(|part| part.error_code == 0));
    let counters = node.shards[0].broker().counters;
    assert!(counters.produce_held > 0);
    assert_eq!((counters.produce_batches_checked, counters.produce_batches_appended), (3, 3));
}

#[test]
fn a_session_tells_only_what_is_new_and_ends_as_asked() {
    let (world, mut node, mut client) = one_shard(1);
    let id = client.create(&mut node, "t", 3, &[]);
    let mut all = fetch_request(id, 0, 0).with_session_epoch(0);
    let first = all.topics[0].partitions[0].clone();
    for index in 1..3 {
        all.topics[0].partitions.push(first.clone().with_partition(index));
    }
    let response = client.call(&mut node, FETCH_BY_ID, &all);
    let session = response.session_id;
    assert!(session != 0 && response.responses[0].partitions.len() == 3);
    let go_on = |epoch: i32| {
        let mut request = fetch_request(id, 0, 0).with_session_id(session).with_session_epoch(epoch);
        request.topics.clear();
        request
    };
    // Nothing is new.
    let response = client.call(&mut node, FETCH_BY_ID, &go_on(1));
    assert_eq!((response.error_code, response.responses.len()), (0, 0));
    // One partition has news.
    let bytes = batch(world.now().wall, None, &[b"x"]);
    assert_eq!(client.produce(&mut node, id, 2, bytes).error_code, 0);
    let response = client.call(&mut node, FETCH_BY_ID, &go_on(2));
    let told: Vec<i32> = response.responses[0].partitions.iter().map(|p| p.partition_index).collect();
    assert_eq!(told, [2]);
    // A wrong epoch is refused and changes nothing; a partition that is forgotten is told no more.
    let refused = client.call(&mut node, FETCH_BY_ID, &go_on(7));
    assert_eq!(refused.error_code, ErrorCode::InvalidFetchSessionEpoch.code());
    let forgotten = ForgottenTopic::default().with_topic_id(id.0).with_partitions(vec![2]);
    let request = go_on(3).with_forgotten_topics_data(vec![forgotten]);
    assert_eq!(client.call(&mut node, FETCH_BY_ID, &request).responses.len(), 0);
    // Its end.
    let ended = client.call(&mut node, FETCH_BY_ID, &go_on(-1));
    assert_eq!((ended.error_code, ended.session_id), (0, 0));
    let unknown = client.call(&mut node, FETCH_BY_ID, &go_on(4));
    assert_eq!(unknown.error_code, ErrorCode::FetchSessionIdNotFound.code());
}

#[test]
fn a_fetch_tells_the_high_watermark_that_its_records_were_read_under() {
    // The read of the first batches waits for the disk while another one is appended: it goes up to the new end.
    // (Found by the simulator: the answer told the high watermark of before the wait.)
    for seed in 0..5 {
        let world = World::new(seed, WorldOptions::default());
        let mut spec = Spec::new(1);
        spec.tail_size_bytes = 64 * 1024;
        let mut node = TestNode::start(&world, &spec);
        let mut writer = Client::connect(&node, 0);
        let mut reader = Client::connect(&node, 0);
        let id = writer.create(&mut node, "t", 1, &[]);
        for _ in 0..40 {
            let bytes = batch(world.now().wall, None, &[&[b'x'; 4_000]]);
            assert_eq!(writer.produce(&mut node, id, 0, bytes).error_code, 0);
        }
        world.inject(Rule::new(OpKind::Read, Fault::Delay(Duration::from_secs(2))).path("/t-0/").times(1));
        let mut request = fetch_request(id, 0, 20);
        request.topics[0].partitions[0].partition_max_bytes = 1 << 20;
        reader.send(FETCH_BY_ID, &request);
        node.run_for(Duration::from_millis(100));
        assert_eq!(reader.link.available_bytes(), 0, "seed {seed}: it should still be reading");
        let bytes = batch(world.now().wall, None, &[b"later"]);
        assert_eq!(writer.produce(&mut node, id, 0, bytes).error_code, 0);
        let response = reader.receive::<FetchRequest>(&mut node, FETCH_BY_ID).expect("answered");
        let data = &response.responses[0].partitions[0];
        let records = data.records.clone().unwrap_or_default();
        let end = crate::model::batch::batches(&records).last().map(|(header, _)| header.next_offset().0);
        assert!(end.is_some_and(|end| end <= data.high_watermark), "seed {seed}: {end:?}, {}", data.high_watermark);
    }
}

#[test]
fn what_a_fetch_has_read_stays_if_its_topic_is_deleted_while_it_waits_for_the_disk() {
    // Other readers have all places at the disk. A long poll has waited long enough, has the records of one topic, and
    // needs the disk for the other; then the first topic is deleted.
    // (Found by the simulator: its records were dropped, but counted, so that nothing of the other was given either.)
    for seed in 0..5 {
        let world = World::new(seed, WorldOptions::default());
        let mut spec = Spec::new(1);
        spec.tail_size_bytes = 64 * 1024;
        let mut node = TestNode::start(&world, &spec);
        let mut writer = Client::connect(&node, 0);
        let (first, second) = (writer.create(&mut node, "a", 1, &[]), writer.create(&mut node, "b", 1, &[]));
        for _ in 0..40 {
            let bytes = batch(world.now().wall, None, &[&[b'x'; 4_000]]);
            assert_eq!(writer.produce(&mut node, second, 0, bytes).error_code, 0);
        }
        world.inject(Rule::new(OpKind::Read, Fault::Delay(Duration::from_secs(2))).path("/b-0/").times(40));
        let mut others: Vec<Client> = (0..40).map(|_| Client::connect(&node, 0)).collect();
        others.iter_mut().for_each(|other| other.send(FETCH_BY_ID, &fetch_request(second, 0, 20)));
        node.run_for(Duration::from_millis(100));

        let bytes = batch(world.now().wall, None, &[&[b'y'; 1_000]]);
        assert_eq!(writer.produce(&mut node, first, 0, bytes).error_code, 0);
        let mut request = fetch_request(first, 0, 0).with_max_wait_ms(300).with_min_bytes(10_000);
        request.topics.extend(fetch_request(second, 0, 10).topics);
        request.topics[1].partitions[0].partition_max_bytes = 100;
        let mut reader = Client::connect(&node, 0);
        reader.send(FETCH_BY_ID, &request);
        node.run_for(Duration::from_millis(100));
        let waits = node.shards[0].broker().counters.cold_waits;
        node.run_for(Duration::from_millis(300));
        assert!(node.shards[0].broker().counters.cold_waits > waits, "seed {seed}: it should wait for the disk");
        assert_eq!(writer.try_delete(&mut node, "a"), Some(ErrorCode::None));
        let response = reader.receive::<FetchRequest>(&mut node, FETCH_BY_ID).expect("answered");
        let data = &response.responses[0].partitions[0];
        let size = data.records.as_ref().map_or(0, |records| records.len());
        assert!(data.error_code == 0 && size > 1_000, "seed {seed}: {response:?}");
    }
}

#[test]
fn an_offset_by_time_is_found_although_the_segment_that_was_looked_into_is_freed_meanwhile() {
    // Every look at a sealed segment waits for the disk while retention frees the oldest ones. (Found by the simulator:
    // the lookup went on at the old place in another segment, or with a file that was gone, and was refused.)
    for seed in 0..10 {
        let world = World::new(seed, WorldOptions::default());
        let spec = Spec::new(1)
            .set("log.segment.bytes", 16 * 1024)
            .set("log.retention.bytes", 40 * 1024)
            .set("log.retention.check.interval.ms", 200);
        let mut node = TestNode::start(&world, &spec);
        let mut writer = Client::connect(&node, 0);
        let mut asker = Client::connect(&node, 0);
        let id = writer.create(&mut node, "t", 1, &[]);
        let fill = |node: &mut TestNode, writer: &mut Client| {
            for _ in 0..40 {
                let bytes = batch(world.now().wall, None, &[&[b'x'; 2_000]]);
                assert_eq!(writer.produce(node, id, 0, bytes).error_code, 0, "seed {seed}");
            }
        };
        fill(&mut node, &mut writer);
        for part in [".sidecar", ".log"] {
            for kind in [OpKind::Open, OpKind::Read] {
                world.inject(Rule::new(kind, Fault::Delay(Duration::from_secs(4))).path(part).times(1));
            }
        }
        let partition = ListOffsetsPartition::default()
            .with_partition_index(0)
            .with_current_leader_epoch(-1)
            .with_timestamp(world.now().wall.0 - 3_600_000);
        let topic = ListOffsetsTopic::default().with_name(topic_name("t")).with_partitions(vec![partition]);
        asker.send(7, &ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![topic]));
        node.run_for(Duration::from_millis(10));
        fill(&mut node, &mut writer);
        let response = asker.receive::<ListOffsetsRequest>(&mut node, 7).expect("answered");
        let answer = &response.topics[0].partitions[0];
        assert!(answer.error_code == 0 && answer.offset > 0, "seed {seed}: {answer:?}");
    }
}

#[test]
fn an_offset_by_time_is_not_that_of_a_deleted_record() {
    // A batch of three records, its middle one the youngest, deleted up to the second and to the third. (Found by the
    // simulator: the answer was the log start with the time of a record that was deleted.)
    let (world, mut node, mut client) = one_shard(3);
    let id = client.create(&mut node, "t", 1, &[]);
    let now = world.now().wall.0;
    let mut builder = BatchBuilder::new(Codec::None);
    for delta in [10, 30, 20] {
        builder.push(Timestamp(now + delta), None, Some(b"x"), &[]);
    }
    assert_eq!(client.produce(&mut node, id, 0, builder.build()).error_code, 0);
    let ask = |node: &mut TestNode, client: &mut Client, timestamp: i64| {
        let partition = ListOffsetsPartition::default()
            .with_partition_index(0)
            .with_current_leader_epoch(-1)
            .with_timestamp(timestamp);
        let topic = ListOffsetsTopic::default().with_name(topic_name("t")).with_partitions(vec![partition]);
        let request = ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![topic]);
        let response = client.call(node, 7, &request);
        let answer = &response.topics[0].partitions[0];
        (answer.error_code, answer.offset, answer.timestamp)
    };
    for (start, times) in [(0, [(0, 10), (1, 30)]), (1, [(1, 30), (1, 30)]), (2, [(2, 20), (-1, 0)])] {
        let partition = DeleteRecordsPartition::default().with_partition_index(0).with_offset(start);
        let topic = DeleteRecordsTopic::default().with_name(topic_name("t")).with_partitions(vec![partition]);
        let request = DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(30_000);
        assert_eq!(client.call(&mut node, 2, &request).topics[0].partitions[0].error_code, 0);
        for (asked, (offset, delta)) in [5, 25].into_iter().zip(times) {
            let expected = if offset < 0 { (0, -1, -1) } else { (0, offset, now + delta) };
            assert_eq!(ask(&mut node, &mut client, now + asked), expected, "from {start}, {asked}");
        }
    }
}

#[test]
fn offsets_are_listed_at_the_leader() {
    let (world, mut node, mut client) = one_shard(2);
    let id = client.create(&mut node, "t", 1, &[]);
    for _ in 0..3 {
        let bytes = batch(world.now().wall, None, &[b"x", b"y"]);
        client.produce(&mut node, id, 0, bytes);
        node.run_for(Duration::from_millis(10));
    }
    for (timestamp, offset) in [(-2, 0), (-1, 6), (0, 0), (i64::MAX, -1)] {
        let partition = ListOffsetsPartition::default()
            .with_partition_index(0)
            .with_current_leader_epoch(-1)
            .with_timestamp(timestamp);
        let topic = ListOffsetsTopic::default().with_name(topic_name("t")).with_partitions(vec![partition]);
        let request = ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![topic]);
        let response = client.call(&mut node, 7, &request);
        let answer = &response.topics[0].partitions[0];
        assert_eq!((answer.error_code, answer.offset), (0, offset), "at {timestamp}");
    }
}
