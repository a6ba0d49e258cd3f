//! kill -9 of the real broker on the real ring, under load, again and again; and an oracle that reads the data
//! directory by itself.
//!
//! The oracle has a segment parser of its own, from `src/doc/on_disk_format.md`: it looks at what lies on disk between
//! the death of one process and the start of the next, and after the last clean stop. Everything that a client was told
//! is stored must be there, at its offset, byte for byte; nothing may be there twice, out of order, or unasked for.
//!
//! `OTTLA_CRASH_COUNT` sets the number of kills; the load between two of them follows from `OTTLA_CRASH_SEED`.

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use common::broker::{Broker, Options};
use common::clients::{Admin, Producer, Record};
use common::until;

const TOPIC: &str = "crashed";
const PARTITION_COUNT: i32 = 5;
/// Records that are queued between two kills.
const RECORD_COUNT: usize = 3_000;

#[test]
fn what_was_acknowledged_lies_on_disk_after_every_kill_9() {
    kill_again_and_again(Options::shards(2));
}

#[test]
fn what_the_journal_took_lies_on_disk_after_every_kill_9() {
    // Every small commit goes through it, and its files are overwritten again and again.
    let options = Options::shards(2).set("ottla.journal.min.partitions", "1").set("ottla.journal.bytes", "262144");
    kill_again_and_again(options);
}

fn kill_again_and_again(options: Options) {
    let number =
        |name: &str, otherwise: usize| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise);
    let (kill_count, seed) = (number("OTTLA_CRASH_COUNT", 8), number("OTTLA_CRASH_SEED", 1));
    let mut random = seed as u64;
    let mut broker = Broker::start(options);
    let bootstrap = broker.bootstrap();
    // The smallest segments that Kafka allows: every few kills a partition rolls.
    Admin::new(&bootstrap).create(TOPIC, PARTITION_COUNT, &[("segment.bytes", "1048576")]);
    let settings = [("enable.idempotence", "true"), ("batch.num.messages", "40"), ("linger.ms", "1")];
    let mut producer = Producer::new(&bootstrap, &settings);
    let (mut sent_count, mut reported_count) = (0, 0);
    for kill in 0..kill_count {
        for number in sent_count..sent_count + RECORD_COUNT {
            producer.send(TOPIC, number as i32 % PARTITION_COUNT, &Record::of(value_of(number)));
        }
        sent_count += RECORD_COUNT;
        // At a moment of the seed's: after so many more acknowledgements.
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let wanted = reported_count + 1 + (random >> 33) as usize % (RECORD_COUNT - 200);
        until("a part is acknowledged", || {
            producer.poll();
            Some(producer.reported_count()).filter(|count| *count >= wanted)
        });
        broker.kill9();
        // What was told to the client counts; what it has not heard yet may be there or not.
        producer.poll();
        reported_count = producer.reported_count();
        check(broker.data_dir(), &producer, sent_count, false, &format!("seed {seed}, kill {kill}"));
        broker.start_again();
    }
    producer.deliver();
    broker.stop();
    check(broker.data_dir(), &producer, sent_count, true, &format!("seed {seed}, the end"));
}

/// Record `number` of the load.
fn value_of(number: usize) -> String {
    format!("{number:08} ").repeat(1 + number * 7 % 60)
}

fn check(data: &Path, producer: &Producer, sent_count: usize, is_end: bool, when: &str) {
    let journals = read_journals(data);
    let partitions: Vec<BTreeMap<i64, Vec<u8>>> = (0..PARTITION_COUNT)
        .map(|index| read_partition(&data.join(format!("topics/{TOPIC}-{index}")), index, &journals))
        .collect();
    for (number, report) in producer.reports() {
        let (partition, offset) = report.expect("an idempotent producer does not give up");
        let found = partitions[partition as usize].get(&offset).map(|value| String::from_utf8_lossy(value));
        assert_eq!(found.as_deref(), Some(&*value_of(number)), "{when}: record {number} at {partition}/{offset}");
    }
    for (index, records) in partitions.iter().enumerate() {
        let numbers: Vec<usize> = records
            .values()
            .map(|value| {
                let text = std::str::from_utf8(value).expect("text was sent");
                let number = text[..8].parse().expect("it begins with its number");
                assert_eq!(text, value_of(number), "{when}: partition {index} holds what was not sent");
                number
            })
            .collect();
        // Every fifth record is this partition's: from the first on, in order, once each.
        let expected: Vec<usize> = (index..sent_count).step_by(PARTITION_COUNT as usize).collect();
        assert_eq!(numbers[..], expected[..numbers.len()], "{when}: partition {index}");
        assert!(!is_end || numbers.len() == expected.len(), "{when}: partition {index} is not complete");
    }
}

/// Every record of a partition's directory by offset: the segments in order, then the file that the log was about to
/// go on in.
fn read_partition(dir: &Path, index: i32, journals: &[Entry]) -> BTreeMap<i64, Vec<u8>> {
    let mut segments = BTreeMap::new();
    let mut spares = Vec::new();
    let entries = std::fs::read_dir(dir).into_iter().flatten();
    for path in entries.map(|entry| entry.expect("a directory entry").path()) {
        let stem = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse::<i64>().ok());
        match (stem, path.extension().and_then(|extension| extension.to_str())) {
            (Some(base), Some("log")) => drop(segments.insert(base, path)),
            (Some(_), Some("spare")) => spares.push(path),
            _ => {}
        }
    }
    let mut log = Reading::default();
    let last = segments.keys().last().copied().unwrap_or(-1);
    for (base, path) in segments {
        assert_eq!(base, log.next_offset, "{}: segments have no gap", path.display());
        let mut bytes = std::fs::read(&path).expect("a readable segment");
        if base == last {
            // What belongs to any other segment was in it before this one was made.
            let entries = journals.iter().filter(|entry| (entry.partition, entry.segment) == (index, base));
            entries.for_each(|entry| entry.write_to(&mut bytes));
        }
        log.read(&bytes);
    }
    for path in spares {
        // An interrupted roll: the next segment may still have its old name.
        log.read(&std::fs::read(&path).expect("a readable file"));
    }
    log.records
}

/// Batches that a journal holds, and where they belong. The topic is the only one that is produced to.
struct Entry {
    partition: i32,
    segment: i64,
    position: usize,
    batches: Vec<u8>,
}

impl Entry {
    fn write_to(&self, segment: &mut [u8]) {
        segment[self.position..self.position + self.batches.len()].copy_from_slice(&self.batches);
    }
}

/// Every entry of every whole group in the journals, old ones too: they change nothing.
fn read_journals(data: &Path) -> Vec<Entry> {
    let mut entries = Vec::new();
    let journals = std::fs::read_dir(data.join("journal")).into_iter().flatten();
    let journals = journals.map(|dir| dir.expect("a directory entry").path());
    let whole = journals.filter(|dir| dir.extension().is_none());
    for path in whole.flat_map(|dir| std::fs::read_dir(dir).expect("a journal")) {
        let bytes = std::fs::read(path.expect("a directory entry").path()).expect("a readable journal");
        for at in (0..bytes.len()).step_by(4096).filter(|at| bytes[*at..].starts_with(b"ottla-j1")) {
            let group = &bytes[at..];
            let size = u32::from_le_bytes(field(group, 48)) as usize;
            let is_whole = (60..=group.len()).contains(&size)
                && u32::from_le_bytes(field(group, size - 4)) == crc32c(&group[..size - 4]);
            let mut rest = if is_whole { &group[56..size - 4] } else { &[] };
            while !rest.is_empty() {
                let length = u32::from_le_bytes(field(rest, 20)) as usize;
                entries.push(Entry {
                    partition: i32::from_le_bytes(field(rest, 16)),
                    segment: i64::from_le_bytes(field(rest, 24)),
                    position: u64::from_le_bytes(field(rest, 32)) as usize,
                    batches: rest[40..40 + length].to_vec(),
                });
                rest = &rest[40 + length..];
            }
        }
    }
    entries
}

/// A log as it is read: what may follow is known.
#[derive(Default)]
struct Reading {
    records: BTreeMap<i64, Vec<u8>>,
    next_offset: i64,
    epoch: i32,
}

impl Reading {
    /// Takes batches from the start of a file for as long as they can be the log's next ones.
    fn read(&mut self, mut bytes: &[u8]) {
        while let Some(size) = self.next_batch_size(bytes) {
            let (batch, rest) = bytes.split_at(size);
            let base_offset = i64::from_be_bytes(field(batch, 0));
            self.epoch = i32::from_be_bytes(field(batch, 12));
            assert_eq!(batch[22] & 7, 0, "nothing was compressed");
            let mut records = &batch[61..];
            for delta in 0..i32::from_be_bytes(field(batch, 57)) {
                let value = take_record(&mut records, delta);
                let before = self.records.insert(base_offset + i64::from(delta), value.to_vec());
                assert!(before.is_none(), "an offset twice");
            }
            assert!(records.is_empty(), "bytes behind the last record");
            self.next_offset = base_offset + i64::from(i32::from_be_bytes(field(batch, 23))) + 1;
            bytes = rest;
        }
    }

    /// The size of the batch at the start of `bytes`, if the log goes on with it: length, offset, epoch and CRC fit.
    fn next_batch_size(&self, bytes: &[u8]) -> Option<usize> {
        if bytes.len() < 61 {
            return None;
        }
        let size = usize::try_from(i32::from_be_bytes(field(bytes, 8))).ok()? + 12;
        let fits = (61..=bytes.len()).contains(&size) && bytes[16] == 2;
        let follows = i64::from_be_bytes(field(bytes, 0)) == self.next_offset
            && i32::from_be_bytes(field(bytes, 12)) >= self.epoch;
        (fits && follows && u32::from_be_bytes(field(bytes, 17)) == crc32c(&bytes[21..size])).then_some(size)
    }
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("within the batch")
}

/// The next record's value.
fn take_record<'a>(bytes: &mut &'a [u8], delta: i32) -> &'a [u8] {
    let size = take_varint(bytes) as usize;
    let (mut record, rest) = bytes.split_at(size);
    *bytes = rest;
    record = &record[1..];
    take_varint(&mut record);
    assert_eq!(take_varint(&mut record), i64::from(delta));
    assert_eq!(take_varint(&mut record), -1, "no key was sent");
    let size = take_varint(&mut record) as usize;
    &record[..size]
}

fn take_varint(bytes: &mut &[u8]) -> i64 {
    let (mut value, mut shift) = (0u64, 0);
    loop {
        let byte = bytes[0];
        *bytes = &bytes[1..];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return (value >> 1) as i64 ^ -((value & 1) as i64);
        }
        shift += 7;
    }
}

/// CRC-32C, by a table made here.
fn crc32c(bytes: &[u8]) -> u32 {
    static TABLE: std::sync::OnceLock<[u32; 256]> = std::sync::OnceLock::new();
    let table = TABLE.get_or_init(|| {
        std::array::from_fn(|byte| {
            (0..8).fold(byte as u32, |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 })
        })
    });
    !bytes.iter().fold(!0, |crc, byte| crc >> 8 ^ table[(crc as u8 ^ byte) as usize])
}

#[test]
fn the_oracle_s_parser_knows_a_batch_from_a_stale_one() {
    // A check of the check: "123456789" has a known CRC-32C; a batch with another offset or an older epoch ends the
    // log, as does a changed byte.
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    let batch = |offset: i64, epoch: i32| {
        let mut bytes = vec![0; 61];
        bytes[..8].copy_from_slice(&offset.to_be_bytes());
        bytes[12..16].copy_from_slice(&epoch.to_be_bytes());
        bytes[16] = 2;
        bytes[57..61].copy_from_slice(&1i32.to_be_bytes());
        // Length 7 (zigzag 14): attributes, time, offset, no key, one byte of value, no headers.
        bytes.extend([14, 0, 0, 0, 1, 2, b'v', 0]);
        let length = bytes.len() as i32 - 12;
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        let crc = crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        bytes
    };
    let read = |bytes: &[u8]| {
        let mut reading = Reading::default();
        reading.read(bytes);
        (reading.records.len(), reading.next_offset)
    };
    assert_eq!(read(&[batch(0, 1), batch(1, 1)].concat()), (2, 2));
    assert_eq!(read(&[batch(0, 1), batch(2, 1)].concat()), (1, 1));
    assert_eq!(read(&[batch(0, 1), batch(1, 0)].concat()), (1, 1));
    let mut damaged = [batch(0, 1), batch(1, 1)].concat();
    *damaged.last_mut().unwrap() ^= 1;
    assert_eq!(read(&damaged), (1, 1));
}
