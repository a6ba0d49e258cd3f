//! Retention: logs stay small, their start moves, files are reused, readers notice.

mod common;

use std::path::Path;

use common::broker::{Broker, Options};
use common::clients::{Admin, consumer, read_one};
use common::requests::{self, AT_ONCE, FETCH, append, batch, connect, error_of, fetch, fetched, list_offsets};
use common::until;
use ottla::protocol::ErrorCode;
use rdkafka::Offset;

const MIB: u64 = 1 << 20;

/// Files of a partition by the ends of their names: how many, and how many bytes of disk they take.
fn files(dir: &Path, ends: &str) -> (usize, u64) {
    use std::os::unix::fs::MetadataExt;
    // A file may go while it is looked at.
    let entries = std::fs::read_dir(dir).expect("the partition's directory").flatten();
    let sizes = entries.filter(|entry| entry.file_name().to_string_lossy().ends_with(ends));
    let sizes: Vec<u64> = sizes.filter_map(|entry| Some(entry.metadata().ok()?.blocks() * 512)).collect();
    (sizes.len(), sizes.iter().sum())
}

/// Waits until the files of all segments below `start` are freed, which they are when the log start is durable.
fn wait_until_freed(dir: &Path, start: i64) {
    until("segments below the log start are freed", || {
        let names = std::fs::read_dir(dir).expect("the partition's directory").flatten();
        let mut bases = names.filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".log")?.parse::<i64>().ok());
        bases.all(|base| base >= start).then_some(())
    });
}

#[test]
fn a_log_that_is_limited_in_size_reuses_its_segments_and_its_start_moves() {
    // 4 rounds of 6 MiB into a log of 3 MiB in segments of 1 MiB. After each round retention has come by when the log
    // start has moved; then spare files are there to be overwritten, and the disk holds only so much.
    let mut broker = Broker::start(Options::shards(1).set("log.retention.check.interval.ms", "100"));
    let configs = [("segment.bytes", "1048576"), ("retention.bytes", "3145728")];
    Admin::new(&broker.bootstrap()).create("bounded", 1, &configs);
    let mut connection = connect(&broker.bootstrap());
    let topic = requests::topic(&mut connection, "bounded");
    let dir = broker.data_dir().join("topics/bounded-0");
    let (mut end, mut start, mut spare_count_max) = (0, 0, 0);
    for round in 0..4 {
        let mut connection = connect(&broker.bootstrap());
        for _ in 0..60 {
            let value = format!("{end:08} ").repeat(11_000);
            assert_eq!(append(&mut connection, &topic, 0, batch(&[value.as_bytes()])), Ok(end));
            end += 1;
        }
        start = until("the log start moves", || {
            let now = list_offsets(&mut connection, 7, "bounded", 0, -2).offset;
            // At most four segments of ten batches are left, the active one included.
            (now > start && end - now <= 45).then_some(now)
        });
        wait_until_freed(&dir, start);
        spare_count_max = spare_count_max.max(files(&dir, ".spare").0);
        let (_, used) = files(&dir, "");
        assert!(used <= 16 * MIB, "{used} bytes of disk are taken in round {round}");
        if round == 1 {
            broker.restart();
        }
    }
    assert!(spare_count_max > 0, "freed segments become spares");

    // Below the start there is nothing: the protocol's error, and librdkafka goes to the earliest.
    let mut connection = connect(&broker.bootstrap());
    let response = fetch(&mut connection, FETCH, &topic, &[(0, start - 1)], AT_ONCE);
    assert_eq!(error_of(fetched(&response).error_code), ErrorCode::OffsetOutOfRange);
    let settings = [("auto.offset.reset", "earliest")];
    let consumer = consumer(&broker.bootstrap(), "bounded", &[(0, Offset::Offset(0))], &settings);
    for offset in start..end {
        let read = read_one(&consumer);
        assert_eq!((read.offset, &read.text()[..8]), (offset, format!("{offset:08}").as_str()));
    }
}

#[test]
fn records_older_than_retention_ms_go_even_from_the_active_segment() {
    let broker = Broker::start(Options::shards(1).set("log.retention.check.interval.ms", "100"));
    Admin::new(&broker.bootstrap()).create("short", 1, &[("retention.ms", "1000")]);
    let mut connection = connect(&broker.bootstrap());
    let topic = requests::topic(&mut connection, "short");
    // The helper's batches have a time of years ago.
    for number in 0..10 {
        assert_eq!(append(&mut connection, &topic, 0, batch(&[b"old"])), Ok(number));
    }
    until("everything is gone", || (list_offsets(&mut connection, 7, "short", 0, -2).offset == 10).then_some(()));
    assert_eq!(append(&mut connection, &topic, 0, batch(&[b"next"])), Ok(10));
}

#[test]
fn the_log_start_and_reused_segments_survive_a_crash() {
    // Reused files hold old batches behind the new ones: after kill -9 in the middle of a round, none of them appears.
    let mut broker = Broker::start(Options::shards(1).set("log.retention.check.interval.ms", "100"));
    let configs = [("segment.bytes", "1048576"), ("retention.bytes", "2097152")];
    Admin::new(&broker.bootstrap()).create("crashed", 1, &configs);
    let topic = requests::topic(&mut connect(&broker.bootstrap()), "crashed");
    let (mut end, mut start) = (0, 0);
    for round in 0..4 {
        let mut connection = connect(&broker.bootstrap());
        for _ in 0..37 {
            let value = format!("{end:08} ").repeat(11_000);
            assert_eq!(append(&mut connection, &topic, 0, batch(&[value.as_bytes()])), Ok(end), "round {round}");
            end += 1;
        }
        start = until("the log start moves", || {
            Some(list_offsets(&mut connection, 7, "crashed", 0, -2).offset).filter(|now| *now > start)
        });
        wait_until_freed(&broker.data_dir().join("topics/crashed-0"), start);
        broker.kill9();
        broker.start_again();
        let mut connection = connect(&broker.bootstrap());
        let now = list_offsets(&mut connection, 7, "crashed", 0, -2).offset;
        assert!(now >= start, "the log start went back from {start} to {now}");
        start = now;
        assert_eq!(list_offsets(&mut connection, 7, "crashed", 0, -1).offset, end, "round {round}");
        let mut expected = start;
        for header in requests::headers(&requests::fetch_to_end(&mut connection, &topic, 0, start)) {
            assert_eq!(header.base_offset.0, expected);
            expected = header.next_offset().0;
        }
        assert_eq!(expected, end);
    }
}
