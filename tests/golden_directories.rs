//! Data directories that earlier versions have written, which every later one must read: `tests/golden/data-VERSION/`
//! holds one that was stopped cleanly and one that was killed, made by `make_a_golden_directory` (below, ignored) of
//! that version. Files of a released version never change; a version that writes another format adds its own.

mod support_bad;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use kafka_protocol::messages::InitProducerIdRequest;
use nix::sys::signal::Signal;
use ottla::base::time::Timestamp;
use ottla::model::batch::{self, batches};
use ottla::model::builder::BatchBuilder;
use ottla::model::compression::Codec;
use ottla::model::id::{ProducerEpoch, ProducerId, Sequence};
use ottla::model::records::{Records, section};

use support_bad::{Broker, Wire, binary};

/// Batches of each partition.
const BATCH_COUNT: i64 = 12;
const RECORDS_EACH: i64 = 3;
const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
/// Topics and their partitions; the first producer that asks gets this id.
const TOPICS: [(&str, i32); 2] = [("plain", 2), ("codecs", 1)];
const PRODUCER: i64 = 0;
/// A compacted topic of one partition, in directories of versions that compact.
const KEPT: &str = "kept";
const KEPT_KEY_COUNT: i64 = 5;
/// The partition that an idempotent producer writes to.
const IDEMPOTENT: (&str, i32) = ("plain", 1);

fn value(topic: &str, partition: i32, number: i64) -> Vec<u8> {
    format!("{topic} {partition}: record {number} ").repeat(1 + number as usize % 40).into_bytes()
}

/// Batch `number` of a partition, the same in every version.
fn golden_batch(topic: &str, partition: i32, number: i64) -> Vec<u8> {
    let codec = if topic == "plain" { Codec::None } else { CODECS[number as usize % CODECS.len()] };
    let mut builder = BatchBuilder::new(codec);
    if (topic, partition) == IDEMPOTENT {
        let sequence = Sequence((number * RECORDS_EACH) as i32);
        builder = builder.producer(ProducerId(PRODUCER), ProducerEpoch(0), sequence);
    }
    for record in number * RECORDS_EACH..(number + 1) * RECORDS_EACH {
        let key = format!("key {}", if topic == KEPT { record % KEPT_KEY_COUNT } else { record });
        let at = Timestamp(1_760_000_000_000 + record);
        builder.push(at, Some(key.as_bytes()), Some(&value(topic, partition, record)), &[]);
    }
    builder.build()
}

/// Reads a partition from its start and compares every record.
fn compare(wire: &mut Wire, topic: &str, partition: i32, batch_count: i64) {
    let (mut offset, end) = (0, batch_count * RECORDS_EACH);
    while offset < end {
        let (error, bytes) = wire.fetch(topic, partition, offset, 1 << 20);
        assert_eq!(error, 0, "{topic}-{partition} at {offset}");
        assert!(!bytes.is_empty(), "{topic}-{partition} ends at {offset}, not at {end}");
        for (header, bytes) in batches(&bytes) {
            batch::validate(bytes).expect("a sound batch");
            assert_eq!(header.base_offset.0, offset);
            let records = section(&header, bytes, 1 << 20).expect("it decompresses");
            for record in Records::new(&records, header.record_count) {
                let record = record.expect("a sound record");
                assert_eq!(record.value.expect("a value"), value(topic, partition, offset), "at {offset}");
                assert_eq!(record.timestamp(&header).0, 1_760_000_000_000 + offset);
                offset += 1;
            }
        }
    }
    assert_eq!(offset, end);
}

/// Reads the compacted partition: its records, which are what was written, by offset.
fn read_kept(wire: &mut Wire, batch_count: i64) -> BTreeMap<i64, Vec<u8>> {
    let mut kept = BTreeMap::new();
    let mut offset = 0;
    while offset < batch_count * RECORDS_EACH {
        let (error, bytes) = wire.fetch(KEPT, 0, offset, 1 << 20);
        assert!(error == 0 && !bytes.is_empty(), "error {error} at {offset}");
        for (header, bytes) in batches(&bytes) {
            batch::validate_stored(bytes).expect("a sound batch");
            assert!(header.next_offset().0 > offset);
            let records = section(&header, bytes, 1 << 20).expect("it decompresses");
            for record in Records::new(&records, header.record_count) {
                let record = record.expect("a sound record");
                let at = record.offset(&header).0;
                assert_eq!(record.value.expect("a value"), value(KEPT, 0, at), "at {at}");
                kept.insert(at, record.key.expect("a key").to_vec());
            }
            offset = header.next_offset().0;
        }
    }
    kept
}

/// Of each key the last record is there.
fn compare_kept(wire: &mut Wire, batch_count: i64) {
    let kept = read_kept(wire, batch_count);
    let end = batch_count * RECORDS_EACH;
    assert!(kept.len() < end as usize, "it was compacted");
    assert!((end - KEPT_KEY_COUNT..end).all(|last| kept.contains_key(&last)), "{:?} of {end}", kept.keys());
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => drop(fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}

/// Every golden data directory.
fn golden_directories() -> Vec<PathBuf> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let versions = fs::read_dir(golden).unwrap().map(|entry| entry.unwrap().path());
    let is_data = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with("data-");
    let mut found: Vec<PathBuf> =
        versions.filter(is_data).flat_map(|version| [version.join("stopped"), version.join("killed")]).collect();
    found.sort();
    found
}

#[test]
fn what_earlier_versions_have_written_is_read_and_written_on() {
    // On one shard and on two; then a duplicate of the last batch of the idempotent producer, whose state is known,
    // and one batch more everywhere; then killed, and all of it again.
    let directories = golden_directories();
    assert!(directories.len() >= 2, "there is none");
    for directory in directories {
        for shards in ["1", "2"] {
            let dir = tempfile::tempdir().unwrap();
            copy(&directory, &dir.path().join("data"));
            let sound = Command::new(binary()).arg("inspect").arg(dir.path().join("data")).output().unwrap();
            assert!(sound.status.success(), "{}: {sound:?}", directory.display());
            let mut broker = Broker::start_in(dir.path(), &["--shards", shards]);
            let wires = |broker: &Broker| -> Vec<Wire> { broker.addresses.iter().map(|at| Wire::open(*at)).collect() };
            let mut all = wires(&broker);
            let led = |all: &mut [Wire], topic: &str, partition: i32| -> usize {
                let metadata = all[0].metadata(Some(topic));
                let mut partitions = metadata.topics[0].partitions.iter();
                let found = partitions.find(|found| found.partition_index == partition).expect("it is listed");
                found.leader_id.0 as usize - 1
            };
            for (topic, partitions) in TOPICS {
                for partition in 0..partitions {
                    let leader = led(&mut all, topic, partition);
                    let wire = &mut all[leader];
                    compare(wire, topic, partition, BATCH_COUNT);
                    if (topic, partition) == IDEMPOTENT {
                        let last = golden_batch(topic, partition, BATCH_COUNT - 1);
                        let offset = (BATCH_COUNT - 1) * RECORDS_EACH;
                        assert_eq!(wire.produce(topic, partition, last), (0, offset), "known as a duplicate");
                    }
                    let more = golden_batch(topic, partition, BATCH_COUNT);
                    assert_eq!(wire.produce(topic, partition, more), (0, BATCH_COUNT * RECORDS_EACH));
                }
            }
            let has_kept = directory.join(format!("topics/{KEPT}-0")).exists();
            if has_kept {
                let leader = led(&mut all, KEPT, 0);
                compare_kept(&mut all[leader], BATCH_COUNT);
                let more = golden_batch(KEPT, 0, BATCH_COUNT);
                assert_eq!(all[leader].produce(KEPT, 0, more), (0, BATCH_COUNT * RECORDS_EACH));
            }
            drop(all);
            broker.end(Signal::SIGKILL);
            let broker = Broker::start_in(dir.path(), &["--shards", shards]);
            let mut all = wires(&broker);
            for (topic, partitions) in TOPICS {
                for partition in 0..partitions {
                    let leader = led(&mut all, topic, partition);
                    compare(&mut all[leader], topic, partition, BATCH_COUNT + 1);
                }
            }
            if has_kept {
                let leader = led(&mut all, KEPT, 0);
                compare_kept(&mut all[leader], BATCH_COUNT + 1);
            }
        }
    }
}

/// `OTTLA_GOLDEN=DIR cargo test --test golden_directories -- --ignored` writes the directories of this version.
#[test]
#[ignore = "makes what the other test reads; once for each version that changes a format"]
fn make_a_golden_directory() {
    let target = PathBuf::from(std::env::var_os("OTTLA_GOLDEN").expect("OTTLA_GOLDEN names the directory to make"));
    for (name, signal) in [("stopped", Signal::SIGTERM), ("killed", Signal::SIGKILL)] {
        let dir = tempfile::tempdir().unwrap();
        let mut broker = Broker::start_in(dir.path(), &["--set", "log.cleaner.backoff.ms=20"]);
        let mut wire = Wire::open(broker.address());
        let request = InitProducerIdRequest::default().with_transactional_id(None);
        let producer = wire.call(4, &request.with_producer_id((-1).into()).with_producer_epoch(-1));
        assert_eq!(producer.producer_id.0, PRODUCER);
        // Each batch is younger than the last by more than a segment may be: every partition has several.
        for (topic, partitions) in TOPICS {
            let configs = [("retention.ms", "-1"), ("segment.ms", "7")];
            wire.create_topic(topic, partitions, &configs);
            for partition in 0..partitions {
                for number in 0..BATCH_COUNT {
                    let batch = golden_batch(topic, partition, number);
                    assert_eq!(wire.produce(topic, partition, batch), (0, number * RECORDS_EACH));
                }
            }
        }
        let configs = [("cleanup.policy", "compact"), ("segment.ms", "7"), ("min.cleanable.dirty.ratio", "0.1")];
        wire.create_topic(KEPT, 1, &configs);
        for number in 0..BATCH_COUNT {
            assert_eq!(wire.produce(KEPT, 0, golden_batch(KEPT, 0, number)), (0, number * RECORDS_EACH));
        }
        let until = Instant::now() + Duration::from_secs(30);
        while read_kept(&mut wire, BATCH_COUNT).len() > 20 {
            assert!(Instant::now() < until, "it is never compacted");
            std::thread::sleep(Duration::from_millis(50));
        }
        wire.create_topic("gone", 1, &[]);
        assert_eq!(wire.produce("gone", 0, golden_batch("plain", 0, 0)), (0, 0));
        wire.delete_topic("gone");
        drop(wire);
        std::thread::sleep(Duration::from_millis(500));
        broker.end(signal);
        let to = target.join(name);
        let _ = fs::remove_dir_all(&to);
        copy(&dir.path().join("data"), &to);
        let _ = fs::remove_file(to.join(".lock"));
    }
}
