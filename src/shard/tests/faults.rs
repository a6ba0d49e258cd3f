//! Full and failing disks.

use std::time::Duration;

use super::client::{Client, batch, fetch_request};
use super::load::Load;
use super::node::{Spec, Start, TestNode};
use crate::base::units::MIB;
use crate::io::sim::{Fault, Loss, OpKind, Rule, World, WorldOptions};
use crate::protocol::ErrorCode;

#[test]
fn a_full_disk_refuses_appends_and_nothing_else_and_deletion_makes_room() {
    for seed in 0..5 {
        let world = World::new(seed, WorldOptions::default());
        let spec = Spec::new(2).set("log.segment.bytes", 256 * 1024);
        let mut node = TestNode::start(&world, &spec);
        let mut clients: Vec<Client> = (0..2).map(|shard| Client::connect(&node, shard)).collect();
        let big = clients[0].create(&mut node, "big", 2, &[]);
        let small = clients[0].create(&mut node, "small", 2, &[]);
        let leader = |node: &mut TestNode, clients: &mut Vec<Client>, name: &str, index: usize| {
            clients[0].topic(node, name).topics[0].partitions[index].leader_id.0 as usize - 1
        };
        let small_leader = leader(&mut node, &mut clients, "small", 0);
        let big_leader = leader(&mut node, &mut clients, "big", 0);
        let bytes = batch(world.now().wall, None, &[b"kept"]);
        assert_eq!(clients[small_leader].produce(&mut node, small, 0, bytes).error_code, 0);

        world.set_capacity(world.occupied_bytes() + 2 * MIB as u64);
        let value = vec![7u8; 60_000];
        let (mut accepted, mut refused) = (0, None);
        for _ in 0..200 {
            let bytes = batch(world.now().wall, None, &[&value]);
            let answer = clients[big_leader].produce(&mut node, big, 0, bytes);
            if answer.error_code != 0 {
                refused = Some(answer);
                break;
            }
            assert_eq!(answer.base_offset, accepted, "seed {seed}");
            accepted += 1;
        }
        let refused = refused.expect("the disk is full");
        assert_eq!(refused.error_code, ErrorCode::KafkaStorageError.code(), "seed {seed}: {refused:?}");

        // Reading goes on, of everything that was accepted.
        let (found, _) = clients[big_leader].read_all(&mut node, big, 0, 0).expect("answered").expect("readable");
        assert_eq!(found.len() as i64, accepted, "seed {seed}");
        let (found, _) = clients[small_leader].read_all(&mut node, small, 0, 0).expect("answered").expect("readable");
        assert_eq!(found.len(), 1, "seed {seed}");
        // Deletion works, and makes room.
        assert_eq!(clients[0].try_delete(&mut node, "big"), Some(ErrorCode::None), "seed {seed}");
        node.run_for(Duration::from_secs(3));
        let again = clients[0].create(&mut node, "again", 2, &[]);
        let at = leader(&mut node, &mut clients, "again", 0);
        for expected in 0..5 {
            let bytes = batch(world.now().wall, None, &[&value]);
            let answer = clients[at].produce(&mut node, again, 0, bytes);
            assert_eq!((answer.error_code, answer.base_offset), (0, expected), "seed {seed}");
        }
    }
}

#[test]
fn appends_resume_when_a_full_disk_has_room_again() {
    for seed in 0..5 {
        let world = World::new(seed, WorldOptions::default());
        let mut node = TestNode::start(&world, &Spec::new(1).set("log.segment.bytes", 256 * 1024));
        let mut client = Client::connect(&node, 0);
        let id = client.create(&mut node, "t", 1, &[]);
        world.set_capacity(world.occupied_bytes() + MIB as u64);
        let value = vec![7u8; 60_000];
        let mut accepted = 0;
        for round in 0..60 {
            let bytes = batch(world.now().wall, None, &[&value]);
            let answer = client.produce(&mut node, id, 0, bytes);
            match answer.error_code {
                0 => accepted += 1,
                _ => assert!(round > 3, "seed {seed}: {answer:?}"),
            }
        }
        assert!(accepted < 30, "seed {seed}: the disk was never full");
        world.set_capacity(u64::MAX);
        node.run_for(Duration::from_secs(1));
        let bytes = batch(world.now().wall, None, &[&value]);
        let answer = client.produce(&mut node, id, 0, bytes);
        assert_eq!((answer.error_code, answer.base_offset), (0, accepted), "seed {seed}: {answer:?}");
        world.power_cut();
        let mut node = TestNode::start(&world, &Spec::new(1));
        let mut client = Client::connect(&node, 0);
        let (found, _) = client.read_all(&mut node, id, 0, 0).expect("answered").expect("readable");
        assert_eq!(found.len() as i64, accepted + 1, "seed {seed}");
    }
}

#[test]
fn a_failed_write_takes_its_partition_offline_and_no_other() {
    for seed in 0..10 {
        let world = World::new(seed, WorldOptions::default());
        let mut node = TestNode::start(&world, &Spec::new(1));
        let mut client = Client::connect(&node, 0);
        let bad = client.create(&mut node, "bad", 1, &[]);
        let good = client.create(&mut node, "good", 1, &[]);
        let mut load = Load::new(seed);
        load.add_topic(bad, 1, None);
        load.add_topic(good, 1, None);
        assert!(load.connect(&mut node) && load.run(&mut node, 10));
        world.inject(Rule::new(OpKind::Write, Fault::Error(libc::EIO)).path("/bad-0/").times(1));
        let bytes = |text: &[u8]| batch(world.now().wall, None, &[text]);
        let lost = bytes(b"lost?");
        let answer = client.produce(&mut node, bad, 0, lost.clone());
        assert_eq!(answer.error_code, ErrorCode::KafkaStorageError.code(), "seed {seed}: {answer:?}");
        let answer = client.produce(&mut node, bad, 0, bytes(b"later"));
        assert_eq!(answer.error_code, ErrorCode::KafkaStorageError.code(), "seed {seed}: sticky");
        let data = client.fetch(&mut node, &fetch_request(bad, 0, 0)).expect("answered");
        assert_eq!(data.error_code, ErrorCode::KafkaStorageError.code());
        load.parts[0].is_refused = Some(ErrorCode::KafkaStorageError);
        assert!(load.run(&mut node, 10), "the other goes on");
        // A stop does not hang on it, and the next start looks at what is really there.
        assert!(node.stop());
        let mut node = TestNode::start(&world, &Spec::new(1));
        load.disconnect();
        load.parts[0].add_unacknowledged(&lost);
        assert!(load.connect(&mut node) && load.verify(&mut node));
    }
}

#[test]
fn a_metadata_log_that_fails_refuses_changes_and_data_goes_on() {
    for seed in 0..5 {
        let world = World::new(seed, WorldOptions::default());
        let mut node = TestNode::start(&world, &Spec::new(2));
        let mut client = Client::connect(&node, 0);
        let id = client.create(&mut node, "t", 2, &[]);
        let mut load = Load::new(seed);
        load.add_topic(id, 2, None);
        assert!(load.connect(&mut node) && load.run(&mut node, 10));
        world.inject(Rule::new(OpKind::Write, Fault::Error(libc::EIO)).path("__cluster_metadata").times(1));
        let created = client.try_create(&mut node, "new", 1, &[]);
        assert_eq!(created, Some(Err(ErrorCode::KafkaStorageError)), "seed {seed}");
        assert_eq!(client.try_delete(&mut node, "t"), Some(ErrorCode::KafkaStorageError), "seed {seed}");
        assert!(load.run(&mut node, 10), "seed {seed}");
        assert!(load.verify(&mut node));
        assert!(node.stop());
        let mut node = TestNode::start(&world, &Spec::new(2));
        assert!(load.connect(&mut node) && load.verify(&mut node) && load.run(&mut node, 10));
    }
}

#[test]
fn a_partition_that_cannot_be_recorded_as_having_data_says_so() {
    // The metadata log fails when a topic's first batch comes: it is refused at once, as those behind it are, and taken
    // after the next start. (Found by the simulator: each waited for its timeout.)
    for seed in 0..5 {
        let world = World::new(seed, WorldOptions::default());
        let mut node = TestNode::start(&world, &Spec::new(1));
        let mut client = Client::connect(&node, 0);
        let id = client.create(&mut node, "t", 1, &[]);
        world.inject(Rule::new(OpKind::Write, Fault::Error(libc::EIO)).path("__cluster_metadata").times(1));
        let began = world.now().monotonic;
        for _ in 0..2 {
            let answer = client.produce(&mut node, id, 0, batch(world.now().wall, None, &[b"x"]));
            assert_eq!(answer.error_code, ErrorCode::KafkaStorageError.code(), "seed {seed}: {answer:?}");
        }
        assert!(world.now().monotonic.since(began) < Duration::from_secs(5));
        assert!(node.stop());
        let mut node = TestNode::start(&world, &Spec::new(1));
        let mut client = Client::connect(&node, 0);
        let answer = client.produce(&mut node, id, 0, batch(world.now().wall, None, &[b"x"]));
        assert_eq!((answer.error_code, answer.base_offset), (0, 0), "seed {seed}");
    }
}

#[test]
fn a_batch_sent_again_to_a_partition_that_went_offline_is_refused_again() {
    // Its first write fails, so the producer's state knows it and the log will never acknowledge it: an answer must
    // come all the same. (Found by the simulator: the answer was waited for without end.)
    for seed in 0..5 {
        let world = World::new(seed, WorldOptions::default());
        let mut node = TestNode::start(&world, &Spec::new(1));
        let mut client = Client::connect(&node, 0);
        let id = client.create(&mut node, "t", 1, &[]);
        let producer = client.try_producer(&mut node).expect("no cut");
        let bytes = |sequence| batch(world.now().wall, Some((producer, sequence)), &[b"x"]);
        assert_eq!(client.produce(&mut node, id, 0, bytes(0)).error_code, 0);
        world.inject(Rule::new(OpKind::Write, Fault::Error(libc::EIO)).path("/t-0/").times(1));
        let again = bytes(1);
        for _ in 0..3 {
            let answer = client.produce(&mut node, id, 0, again.clone());
            assert_eq!(answer.error_code, ErrorCode::KafkaStorageError.code(), "seed {seed}: {answer:?}");
        }
    }
}

#[test]
fn a_start_that_cannot_be_recorded_serves_nothing() {
    // Each start meets one failing write of the metadata log, another one each time. Whatever it makes of it, two
    // starts that serve never share a leader epoch. (Found by the simulator: the node served with an epoch that was
    // not durable, and the next start took the same.)
    for seed in 0..3 {
        let world = World::new(seed, WorldOptions::default());
        let mut node = TestNode::start(&world, &Spec::new(2));
        let id = Client::connect(&node, 0).create(&mut node, "t", 1, &[]);
        assert!(node.stop());
        let (mut epoch, mut refused_count) = (-1, 0);
        for skip in 0..8 {
            let fault = Rule::new(OpKind::Write, Fault::Error(libc::EIO)).path("__cluster_metadata");
            world.inject(fault.skip(skip).times(1));
            match TestNode::begin(&world, &Spec::new(1)) {
                Start::Cut => unreachable!("nothing cuts the power"),
                Start::Refused(_) => refused_count += 1,
                Start::Serving(mut node) => {
                    let mut client = Client::connect(&node, 0);
                    let bytes = batch(world.now().wall, None, &[b"x"]);
                    let answer = client.produce(&mut node, id, 0, bytes);
                    if answer.error_code == 0 {
                        let (found, _) = client.read_all(&mut node, id, 0, answer.base_offset).unwrap().unwrap();
                        let now = found.last().expect("it was appended").0.leader_epoch.0;
                        assert!(now > epoch, "seed {seed}, write {skip}: epoch {now} after {epoch}");
                        epoch = now;
                    }
                }
            }
            world.kill_process();
            world.clear_faults();
        }
        assert!(refused_count > 0 && epoch >= 0, "seed {seed}: {refused_count} refused, epoch {epoch}");
    }
}

#[test]
fn a_metadata_log_whose_making_was_interrupted_is_durable_when_the_next_start_serves() {
    // One of the first start's syncs of directories fails, another one each time; the next start finds what it has
    // made so far. Then the power is cut and everything that may be lost is. (Found by the simulator: the directory of
    // the log was never synced, and with it went all metadata.)
    let mut refused_count = 0;
    for skip in 0..5 {
        let world = World::new(skip, WorldOptions { loss: Loss::All, ..WorldOptions::calm() });
        world.inject(Rule::new(OpKind::SyncDir, Fault::Error(libc::EIO)).path("/data/meta").skip(skip).times(1));
        refused_count += usize::from(matches!(TestNode::begin(&world, &Spec::new(1)), Start::Refused(_)));
        world.kill_process();
        world.clear_faults();
        let mut node = TestNode::start(&world, &Spec::new(1));
        let mut client = Client::connect(&node, 0);
        let id = client.create(&mut node, "t", 1, &[]);
        let bytes = batch(world.now().wall, None, &[b"kept"]);
        assert_eq!(client.produce(&mut node, id, 0, bytes).error_code, 0);
        world.power_cut();
        drop(node);
        let mut node = TestNode::start(&world, &Spec::new(1));
        let mut client = Client::connect(&node, 0);
        let (batches, _) = client.read_all(&mut node, id, 0, 0).expect("answered").expect("readable");
        assert_eq!(batches.len(), 1, "sync {skip}");
    }
    assert!(refused_count > 1, "{refused_count} starts were refused");
}

#[test]
fn a_start_that_cannot_list_a_directory_takes_nothing_for_new() {
    // Listings fail, one or two in a row, others each time: the start is refused or finds everything, and so does the
    // next one. (Found by the simulator: the metadata log was taken for a new one.)
    let mut refused_count = 0;
    for (skip, times) in (0..5).flat_map(|skip| [(skip, 1), (skip, 2)]) {
        let world = World::new(skip, WorldOptions::calm());
        let mut node = TestNode::start(&world, &Spec::new(1));
        let mut client = Client::connect(&node, 0);
        let id = client.create(&mut node, "t", 1, &[]);
        let bytes = batch(world.now().wall, None, &[b"kept"]);
        assert_eq!(client.produce(&mut node, id, 0, bytes).error_code, 0);
        world.kill_process();
        drop(node);
        world.inject(Rule::new(OpKind::List, Fault::Error(libc::EIO)).skip(skip).times(times));
        refused_count += usize::from(matches!(TestNode::begin(&world, &Spec::new(1)), Start::Refused(_)));
        world.kill_process();
        world.clear_faults();
        let mut node = TestNode::start(&world, &Spec::new(1));
        let mut client = Client::connect(&node, 0);
        let (batches, _) = client.read_all(&mut node, id, 0, 0).expect("answered").expect("readable");
        assert_eq!(batches.len(), 1, "listing {skip}, {times} in a row");
    }
    assert!(refused_count > 2, "{refused_count} starts were refused");
}

#[test]
fn a_deleted_directory_that_could_not_be_renamed_is_not_the_next_topics() {
    // A topic of the same name is created at once. It takes nothing before the old files are gone, which a start sees
    // to, unless it cannot see whose directory it is. (Found by the simulator: the new topic's log was made in the old
    // one's directory, and the next start found files of both.)
    let world = World::new(27, WorldOptions::calm());
    let mut node = TestNode::start(&world, &Spec::new(1));
    let mut client = Client::connect(&node, 0);
    let old = client.create(&mut node, "t", 1, &[]);
    for _ in 0..3 {
        let bytes = batch(world.now().wall, None, &[b"old"]);
        assert_eq!(client.produce(&mut node, old, 0, bytes).error_code, 0);
    }
    world.inject(Rule::new(OpKind::Rename, Fault::Error(libc::EIO)).path("/t-0"));
    assert_eq!(client.try_delete(&mut node, "t"), Some(ErrorCode::None));
    let new = client.create(&mut node, "t", 1, &[]);
    let bytes = batch(world.now().wall, None, &[b"new"]);
    assert_ne!(client.produce(&mut node, new, 0, bytes.clone()).error_code, 0);
    assert!(node.stop());
    world.inject(Rule::new(OpKind::Open, Fault::Error(libc::EIO)).path("/t-0/partition.metadata").times(1));
    let mut node = TestNode::start(&world, &Spec::new(1));
    let mut client = Client::connect(&node, 0);
    assert_ne!(client.produce(&mut node, new, 0, bytes.clone()).error_code, 0);
    world.clear_faults();
    let answer = client.produce(&mut node, new, 0, bytes);
    assert_eq!((answer.error_code, answer.base_offset), (0, 0));
    world.power_cut();
    drop(node);
    let mut node = TestNode::start(&world, &Spec::new(1));
    let mut client = Client::connect(&node, 0);
    let (batches, _) = client.read_all(&mut node, new, 0, 0).expect("answered").expect("readable");
    assert_eq!(batches.len(), 1);
}

#[test]
fn a_topic_made_again_takes_records_once_its_predecessors_directory_is_renamed() {
    // The directory cannot be renamed, its renaming cannot be synced, it cannot be removed; when the disk works again
    // nobody has to start the broker anew. (Found by the simulator: the new topic answered REQUEST_TIMED_OUT until the
    // next start.)
    let faults: [&[(OpKind, &str)]; 5] = [
        &[(OpKind::Rename, "/t-0")],
        &[(OpKind::SyncDir, "/topics")],
        &[(OpKind::Remove, ".deleted")],
        &[(OpKind::List, ".deleted")],
        &[(OpKind::RemoveDir, ".deleted"), (OpKind::Rename, "/t-0")],
    ];
    for (at, faults) in faults.into_iter().enumerate() {
        let world = World::new(28 + at as u64, WorldOptions::calm());
        let mut node = TestNode::start(&world, &Spec::new(1));
        let mut client = Client::connect(&node, 0);
        let old = client.create(&mut node, "t", 1, &[]);
        assert_eq!(client.produce(&mut node, old, 0, batch(world.now().wall, None, &[b"old"])).error_code, 0);
        for (kind, path) in faults {
            world.inject(Rule::new(*kind, Fault::Error(libc::EIO)).path(*path));
        }
        assert_eq!(client.try_delete(&mut node, "t"), Some(ErrorCode::None));
        let new = client.create(&mut node, "t", 1, &[]);
        let bytes = batch(world.now().wall, None, &[b"new"]);
        assert_ne!(client.produce(&mut node, new, 0, bytes.clone()).error_code, 0, "{faults:?}");
        world.clear_faults();
        // No later than when it is tried again.
        assert_eq!(client.produce(&mut node, new, 0, bytes).error_code, 0, "{faults:?}");
        let left = world.list("/data/topics").expect("it is there");
        assert!(left.iter().all(|entry| !entry.name.ends_with(".deleted")), "{left:?}");
        assert!(node.stop());
    }
}
