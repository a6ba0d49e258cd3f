//! What many connections, many partitions, stopped readers, a full disk and a meagre host cost, measured on the real
//! binary. Figures are printed (`--nocapture` shows them); asserted are the bounds that the design promises.
//!
//! `OTTLA_TEST_SCALE=N` divides the counts by N, for small hosts.

mod support_bad;

use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::messages::{FetchRequest, MetadataRequest};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::socket::{setsockopt, sockopt};

use support_bad::{Broker, FETCH_VERSION, PATIENCE, PRODUCE_VERSION, Wire, Witness};
use support_bad::{batch, binary, fetch, produce, produce_all};

/// The slowest round of a witness: a debug build on a host that builds other things at the same time.
const SLOWEST: Duration = Duration::from_secs(5);
const KAFKA_STORAGE_ERROR: i16 = 56;

fn scaled(count: usize) -> usize {
    let scale = std::env::var("OTTLA_TEST_SCALE").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    (count / scale).max(1)
}

/// Raises this process's limit of open files as far as it goes; how many there may be.
fn raise_open_files() -> usize {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let wanted = hard.max(30_000);
    if setrlimit(Resource::RLIMIT_NOFILE, wanted, wanted).is_err() {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    }
    getrlimit(Resource::RLIMIT_NOFILE).unwrap().0 as usize
}

#[test]
fn ten_thousand_connections_that_do_nothing_cost_little_and_disturb_nobody() {
    let count = scaled(10_000).min(raise_open_files() / 4 * 3);
    let broker = Broker::start(&[]);
    let witness = Witness::start(broker.address());
    std::thread::sleep(Duration::from_millis(200));
    let before = broker.rss_kib();
    let began = Instant::now();
    let idle: Vec<Wire> = (0..count).map(|_| Wire::open(broker.address())).collect();
    // Every other one has asked something before.
    let mut asked = 0;
    for mut wire in idle.iter().step_by(2).map(|wire| Wire::of(wire.stream.try_clone().unwrap())) {
        wire.metadata(Some("nothing"));
        asked += 1;
    }
    let took = began.elapsed();
    let after = broker.rss_kib();
    let each = (after - before) as f64 / count as f64;
    println!(
        "{count} idle connections: {each:.2} KiB each ({before} to {after} KiB), opened in {took:?}, {asked} asked"
    );
    assert!(each < 16.0, "{each} KiB for an idle connection");
    let cpu = broker.cpu();
    let rounds = witness.finish(SLOWEST);
    std::thread::sleep(Duration::from_secs(3));
    let cpu = broker.cpu() - cpu;
    println!(
        "the witness made {} rounds, the slowest {:?}; idle: {cpu:?} of CPU in 3 s",
        rounds.round_count, rounds.slowest
    );
    assert!(cpu < Duration::from_millis(1000), "an idle broker uses no CPU: {cpu:?}");
    drop(idle);
    let mut wire = Wire::open(broker.address());
    wire.create_topic("after", 1, &[]);
    assert_eq!(wire.produce("after", 0, batch(1, 10)), (0, 0));
}

#[test]
fn a_connection_above_the_limit_is_refused_and_the_others_stay() {
    // By max.connections, then by descriptors: some are kept for files, so that a partition's first file can be made
    // while connections take all the others.
    let broker = Broker::start(&["--set", "max.connections=20"]);
    let witness = Witness::start(broker.address());
    let mut many: Vec<Wire> = (0..30).map(|_| Wire::open(broker.address())).collect();
    for wire in &mut many[20..] {
        wire.wait_for_close(PATIENCE);
    }
    broker.wait_for_log_count("connection refused: at a limit", 10);
    witness.finish(SLOWEST);
    drop(broker);

    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new("prlimit");
    command.arg("--nofile=300:300").args(serve_args(dir.path()));
    let broker = Broker::start_command(command, &dir.path().join("log"));
    broker.wait_for_log("only 300 files may be open");
    let witness = Witness::start(broker.address());
    let mut many: Vec<Wire> = (0..400).map(|_| Wire::open(broker.address())).collect();
    broker.wait_for_log("connection refused: at a limit");
    for wire in &mut many[300..] {
        wire.wait_for_close(PATIENCE);
    }
    many[0].create_topic("late", 3, &[]);
    for partition in 0..3 {
        assert_eq!(many[0].produce("late", partition, batch(1, 10)), (0, 0));
    }
    let cpu = broker.cpu();
    std::thread::sleep(Duration::from_secs(1));
    assert!(broker.cpu() - cpu < Duration::from_millis(900), "it spins where no descriptor is left");
    witness.finish(SLOWEST);
    drop(many);
    // What was closed is read as closed before it counts no longer.
    let began = Instant::now();
    while Wire::open(broker.address()).try_call(9, &MetadataRequest::default()).is_err() {
        assert!(began.elapsed() < PATIENCE, "no connection is taken though there are descriptors again");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_soft_limit_of_open_files_is_raised() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new("prlimit");
    command.arg("--nofile=300:5000").args(serve_args(dir.path()));
    let broker = Broker::start_command(command, &dir.path().join("log"));
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", broker.pid())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(line.split_whitespace().nth(3), Some("5000"), "{line}");
}

#[test]
fn a_thousand_stopped_catch_up_readers_do_not_hold_up_a_live_one() {
    // 64 MiB in sealed segments, 1,000 clients that ask for all of it and read nothing, and a witness at the tail of
    // another topic of the same shard. Then one of the stopped reads on and gets every byte.
    let count = scaled(1000).min(raise_open_files() / 4);
    let broker = Broker::start(&["--tail-cache", "4MiB"]);
    let mut wire = Wire::open(broker.address());
    wire.create_topic("old", 1, &[("segment.bytes", "8388608")]);
    let part = Bytes::from(batch(1, 900_000));
    for offset in 0..72 {
        assert_eq!(wire.produce("old", 0, part.clone()), (0, offset));
    }
    let quiet = Witness::start(broker.address());
    std::thread::sleep(Duration::from_secs(2));
    let quiet = quiet.finish(SLOWEST);
    let before = broker.rss_kib();
    let mut stopped: Vec<Wire> = (0..count)
        .map(|number| {
            let mut wire = Wire::open(broker.address());
            // The first will read on: with a window of some KiB that would take TCP minutes.
            if number > 0 {
                setsockopt(&wire.stream, sockopt::RcvBuf, &4096).unwrap();
            }
            for segment in 0..4 {
                let offset = ((number + segment) % 7 * 9) as i64;
                let frame = wire.frame(FETCH_VERSION, &fetch("old", 0, offset, 8 << 20, 0));
                wire.send(&frame);
            }
            wire
        })
        .collect();
    let witness = Witness::start(broker.address());
    std::thread::sleep(Duration::from_secs(4));
    let rss = broker.rss_kib();
    let beside = witness.finish(SLOWEST);
    let (rate, rate_before) = (beside.round_count as f64 / 4.0, quiet.round_count as f64 / 2.0);
    println!(
        "{count} stopped readers: {} KiB more; rounds/s {rate_before:.0} before, {rate:.0} beside; slowest {:?}, {:?}",
        rss as i64 - before as i64,
        quiet.slowest,
        beside.slowest
    );
    assert!(rss < before + 64 * 1024, "{before} KiB, then {rss} KiB");
    assert!(rate > rate_before / 8.0, "{rate_before} rounds/s alone, {rate} beside stopped readers");
    assert!(broker.counter("fetch_bytes_splice") > count as u64 * (1 << 20), "the readers are on the splice path");
    let reader = &mut stopped[0];
    let answers: Vec<Bytes> = (0..4).map(|_| records_of(reader)).collect();
    for (segment, mut records) in (0..4i64).zip(answers) {
        let mut tries = 0..100;
        while records.is_empty() && tries.next().is_some() {
            // It had answers to take first, or there was no room; clients ask again.
            std::thread::sleep(Duration::from_millis(50));
            let frame = reader.frame(FETCH_VERSION, &fetch("old", 0, segment * 9, 8 << 20, 0));
            reader.send(&frame);
            records = records_of(reader);
        }
        assert_eq!(i64::from_be_bytes(records[..8].try_into().unwrap()), segment * 9);
        assert!(records.len() > part.len());
        for batch in records.chunks(part.len()) {
            assert_eq!(batch[21..], part[21..]);
        }
    }
}

fn records_of(wire: &mut Wire) -> Bytes {
    let response = wire.receive::<FetchRequest>(FETCH_VERSION);
    response.responses[0].partitions[0].records.clone().unwrap_or_default()
}

#[test]
fn ten_thousand_partitions_on_two_shards_start_in_seconds_and_stay_small() {
    // Ten topics of 1,000; one record into each of 3,000 partitions; a clean restart, and one after kill -9.
    let (topic_count, partition_count) = (10, scaled(1000));
    let written_topics = 3;
    let dir = tempfile::tempdir().unwrap();
    let args = ["--shards", "2"];
    let mut broker = Broker::start_in(dir.path(), &args);
    let empty = broker.rss_kib();
    let began = Instant::now();
    let mut wire = Wire::open(broker.address());
    for topic in 0..topic_count {
        wire.create_topic(&format!("t{topic}"), partition_count as i32, &[]);
    }
    let created = began.elapsed();
    let count = topic_count * partition_count;
    let with_partitions = broker.rss_kib();
    let each = (with_partitions - empty) as f64 / count as f64;
    println!(
        "{count} partitions created in {created:?}: {each:.2} KiB of memory each ({empty} to {with_partitions} KiB)"
    );
    assert!(with_partitions < 1 << 20, "{with_partitions} KiB");
    assert!(each < 32.0, "{each} KiB for an empty partition");
    assert!(created < Duration::from_secs(60), "{created:?}");
    broker.end(Signal::SIGTERM);
    let mut broker = Broker::start_in(dir.path(), &args);
    println!("start with {count} empty partitions: {:?}, {} KiB", broker.start_took, broker.rss_kib());
    assert!(broker.start_took < Duration::from_secs(15));

    let began = Instant::now();
    let record = Bytes::from(batch(1, 100));
    let produced = write_to_each(&broker, written_topics, &record);
    let took = began.elapsed();
    assert_eq!(produced, written_topics * partition_count);
    let rss = broker.rss_kib();
    let disk = disk_bytes(&dir.path().join("data/topics")) / produced as u64;
    println!(
        "{produced} partitions written to in {took:?}: {disk} bytes of disk each, {:.2} KiB of memory each",
        (rss as f64 - with_partitions as f64) / produced as f64
    );
    assert!(disk < 64 * 1024, "{disk} bytes of disk for a partition of one record");
    assert!(rss < 1 << 20, "{rss} KiB");
    assert!((rss - empty) / produced as u64 <= 64, "{rss} KiB");

    let stopped = broker.end(Signal::SIGTERM);
    let mut broker = Broker::start_in(dir.path(), &args);
    println!("SIGTERM took {stopped:?}; the start after it {:?}, {} KiB", broker.start_took, broker.rss_kib());
    assert!(broker.start_took < Duration::from_secs(20));
    assert!(!broker.log().contains("offline=") || broker.log().contains("offline=0"));
    assert_eq!(read_each(&broker, written_topics, partition_count, 0, &record), produced);
    assert_eq!(write_to_each(&broker, written_topics, &record), produced);
    broker.end(Signal::SIGKILL);
    let broker = Broker::start_in(dir.path(), &args);
    println!("the start after kill -9: {:?}, {} KiB", broker.start_took, broker.rss_kib());
    assert!(broker.start_took < Duration::from_secs(60));
    assert_eq!(read_each(&broker, written_topics, partition_count, 1, &record), produced);
    assert!(broker.rss_kib() < 1 << 20, "{} KiB", broker.rss_kib());
}

/// Produces one record to every partition of the first topics, at its leader, on some connections at a time; how many
/// were taken.
fn write_to_each(broker: &Broker, topic_count: usize, record: &Bytes) -> usize {
    let mut requests = Vec::new();
    for (topic, address, partitions) in leaders(broker, topic_count) {
        for some in partitions.chunks(50) {
            requests.push((address, produce_all(&topic, some.iter().map(|index| (*index, record.clone())))));
        }
    }
    let requests = std::sync::Mutex::new(requests);
    let produce_some = || {
        let mut taken = 0;
        loop {
            let Some((address, request)) = requests.lock().unwrap().pop() else { return taken };
            let response = Wire::open(address).call(PRODUCE_VERSION, &request);
            for partition in &response.responses[0].partition_responses {
                assert_eq!(partition.error_code, 0, "{}", partition.index);
                taken += 1;
            }
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..16).map(|_| scope.spawn(produce_some)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    })
}

/// Reads the record at `offset` of every partition; how many were as they should be.
fn read_each(broker: &Broker, topic_count: usize, partition_count: usize, offset: i64, record: &Bytes) -> usize {
    let mut read = 0;
    for (topic, address, partitions) in leaders(broker, topic_count) {
        assert!(partitions.len() <= partition_count);
        let mut wire = Wire::open(address);
        for index in partitions {
            let (error, records) = wire.fetch(&topic, index, offset, 1 << 20);
            assert_eq!((error, &records[21..]), (0, &record[21..]), "{topic}-{index}");
            read += 1;
        }
    }
    read
}

fn leaders(broker: &Broker, topic_count: usize) -> Vec<(String, std::net::SocketAddr, Vec<i32>)> {
    let mut all = Vec::new();
    for topic in 0..topic_count {
        let name = format!("t{topic}");
        let metadata = Wire::open(broker.address()).metadata(Some(&name));
        for (shard, address) in broker.addresses.iter().enumerate() {
            let led = metadata.topics[0].partitions.iter().filter(|p| p.leader_id.0 == shard as i32 + 1);
            all.push((name.clone(), *address, led.map(|p| p.partition_index).collect()));
        }
    }
    all
}

fn disk_bytes(path: &Path) -> u64 {
    let metadata = std::fs::symlink_metadata(path).unwrap();
    let own = metadata.blocks() * 512;
    if !metadata.is_dir() {
        return own;
    }
    own + std::fs::read_dir(path).unwrap().map(|entry| disk_bytes(&entry.unwrap().path())).sum::<u64>()
}

fn serve_args(dir: &Path) -> Vec<String> {
    let data = dir.join("data");
    let program = binary();
    let words = [program.to_str().unwrap(), "serve", "--data-dir", data.to_str().unwrap()];
    let rest = ["--listen", "127.0.0.1:0", "--shards", "1", "--no-pin"];
    words.into_iter().chain(rest).map(String::from).collect()
}

fn refused(dir: &Path, more: &[&str]) -> String {
    let mut command = Command::new(binary());
    command.args(&serve_args(dir)[1..]).args(more);
    let (code, said) = Broker::refused(command, &dir.join("log-refused"));
    assert_ne!(code, 0, "{said}");
    assert!(!said.contains("panicked"), "{said}");
    println!("exit {code}: {}", said.trim());
    said
}

#[test]
fn a_second_broker_on_the_same_directory_is_refused_and_the_first_stays() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start_in(dir.path(), &[]);
    let witness = Witness::start(broker.address());
    let said = refused(dir.path(), &[]);
    assert!(said.contains("another ottla is running") && said.contains(&format!("kill {}", broker.pid())), "{said}");
    witness.finish(SLOWEST);
}

#[test]
fn a_port_in_use_is_named_with_the_command_that_shows_who_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut command = Command::new(binary());
    command.arg("serve").arg("--data-dir").arg(dir.path().join("data")).args(["--listen", &address, "--shards", "1"]);
    let (code, said) = Broker::refused(command, &dir.path().join("log"));
    assert_eq!(code, 3, "{said}");
    assert!(said.contains(&address) && said.contains("in use") && said.contains("ss -ltnp"), "{said}");
}

#[test]
fn a_data_directory_that_cannot_be_used_is_named_with_its_cause() {
    // A file in the way, and a directory that belongs to somebody else.
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("data"), "a file").unwrap();
    let said = refused(dir.path(), &[]);
    assert!(said.contains("data directory") && said.contains("--data-dir"), "{said}");
    std::fs::remove_file(dir.path().join("data")).unwrap();
    std::fs::create_dir(dir.path().join("data")).unwrap();
    let Some(mut command) = support_bad::as_nobody(dir.path(), &[]) else { return };
    command.args(&serve_args(dir.path())[1..]);
    let (code, said) = Broker::refused(command, &dir.path().join("log"));
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("cannot be written") && said.contains("chown"), "{said}");
}

#[test]
fn a_normal_user_with_64_kib_of_locked_memory_is_served() {
    // Three shards, whose rings do not all fit as asked: it says what it falls back to, and works.
    let dir = tempfile::tempdir().unwrap();
    let Some(mut command) = support_bad::as_nobody(dir.path(), &["prlimit", "--memlock=65536:65536"]) else { return };
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::os::unix::fs::chown(&data, Some(65534), Some(65534)).unwrap();
    command.arg("serve").arg("--data-dir").arg(&data).args(["--listen", "127.0.0.1:0", "--shards", "3", "--no-pin"]);
    let broker = Broker::start_command(command, &dir.path().join("log"));
    broker.wait_for_log("the limit on locked memory is 64.0 KiB");
    let log = broker.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("WARN") || line.contains("serving ")).collect();
    println!("{}", lines.join("\n"));
    let mut wire = Wire::open(broker.address());
    wire.create_topic("each", 3, &[]);
    let metadata = wire.metadata(Some("each"));
    for partition in &metadata.topics[0].partitions {
        let mut wire = Wire::open(broker.addresses[partition.leader_id.0 as usize - 1]);
        assert_eq!(wire.produce("each", partition.partition_index, batch(1, 10)), (0, 0));
    }
}

#[test]
fn a_directory_in_memory_is_served_with_a_warning() {
    let Ok(dir) = tempfile::tempdir_in("/dev/shm") else {
        println!("skipped: there is no /dev/shm");
        return;
    };
    let mut broker = Broker::start_in(dir.path(), &[]);
    broker.wait_for_log("lies in memory (tmpfs)");
    let mut wire = Wire::open(broker.address());
    wire.create_topic("fleeting", 1, &[]);
    assert_eq!(wire.produce("fleeting", 0, batch(1, 1000)), (0, 0));
    broker.end(Signal::SIGKILL);
    let broker = Broker::start_in(dir.path(), &[]);
    assert_eq!(Wire::open(broker.address()).fetch("fleeting", 0, 0, 1 << 20).0, 0);
}

/// A mount namespace of its own with a small file system in it, as long as it lives.
struct SmallDisk {
    holder: Child,
    path: PathBuf,
    _dir: tempfile::TempDir,
}

impl SmallDisk {
    /// `None`, with the reason printed, where this is not permitted.
    fn mount(script: &str) -> Option<SmallDisk> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        std::fs::create_dir(&path).unwrap();
        let script = format!("{script} && touch {0}/../mounted && exec sleep 600", path.display());
        let holder = Command::new("unshare")
            .args(["-m", "sh", "-c", &script.replace("DISK", path.to_str().unwrap())])
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let mut holder = match holder {
            Ok(holder) => holder,
            Err(error) => {
                println!("skipped: unshare cannot be run: {error}");
                return None;
            }
        };
        while !dir.path().join("mounted").exists() {
            if let Some(status) = holder.try_wait().unwrap() {
                println!("skipped: no file system can be mounted here: {status}");
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Some(SmallDisk { holder, path, _dir: dir })
    }

    fn broker(&self, more: &[&str]) -> Broker {
        let mut command = Command::new("nsenter");
        command.args(["-m", "-t", &self.holder.id().to_string()]).args(serve_args(&self.path)).args(more);
        Broker::start_command(command, &self.path.parent().unwrap().join("log"))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Fills the disk until an append is refused; then fetches, kill -9, deletion, and appends again; after another kill
/// -9 all that was acknowledged is there.
fn a_disk_is_filled(disk: &SmallDisk) {
    let part = Bytes::from(batch(1, 500_000));
    let mut broker = disk.broker(&[]);
    let mut reader = Wire::open(broker.address());
    let mut wire = Wire::open(broker.address());
    wire.create_topic("kept", 1, &[("segment.bytes", "4194304")]);
    wire.create_topic("dropped", 1, &[("segment.bytes", "4194304")]);
    for _ in 0..30 {
        assert_eq!(wire.produce("dropped", 0, part.clone()).0, 0);
    }
    let mut acknowledged = 0;
    let refused = loop {
        match wire.produce("kept", 0, part.clone()) {
            (0, offset) => {
                assert_eq!(offset, acknowledged);
                acknowledged += 1;
                assert!(acknowledged < 1000, "the disk is never full");
            }
            (error, _) => break error,
        }
    };
    assert_eq!(refused, KAFKA_STORAGE_ERROR);
    println!("full after {acknowledged} batches of {} bytes", part.len());
    // Again and again, to another topic too; fetches and metadata go on.
    for _ in 0..3 {
        assert_eq!(wire.produce("kept", 0, part.clone()).0, KAFKA_STORAGE_ERROR);
    }
    let read_all = |wire: &mut Wire, count: i64| {
        for offset in 0..count {
            let (error, fetched) = wire.fetch("kept", 0, offset, 1);
            assert_eq!((error, &fetched[21..]), (0, &part[21..]), "offset {offset}");
        }
    };
    read_all(&mut reader, acknowledged);
    assert_eq!(reader.metadata(Some("kept")).topics[0].partitions.len(), 1);
    // A broker that is killed now comes back: with nothing to spare it can still be read, and told to delete.
    broker.end(Signal::SIGKILL);
    let mut broker = disk.broker(&[]);
    broker.wait_for_log("appends are refused");
    let mut wire = Wire::open(broker.address());
    read_all(&mut wire, acknowledged);
    // Deleting is a change of metadata and needs no room that is not there.
    assert_eq!(wire.delete_topic("dropped"), 0);
    let began = Instant::now();
    loop {
        match wire.produce("kept", 0, part.clone()) {
            (0, offset) => {
                assert_eq!(offset, acknowledged);
                acknowledged += 1;
                break;
            }
            (error, _) => assert_eq!(error, KAFKA_STORAGE_ERROR),
        }
        assert!(began.elapsed() < PATIENCE, "appends do not resume:\n{}", broker.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    println!("appends resumed {:?} after the deletion was answered", began.elapsed());
    broker.end(Signal::SIGKILL);
    let mut broker = disk.broker(&[]);
    let mut wire = Wire::open(broker.address());
    read_all(&mut wire, acknowledged);
    assert_eq!(wire.produce("kept", 0, part.clone()), (0, acknowledged));
    broker.end(Signal::SIGTERM);
}

#[test]
fn a_full_disk_refuses_appends_and_nothing_else() {
    let Some(disk) = SmallDisk::mount("mount -t tmpfs -o size=64m tmpfs DISK") else { return };
    a_disk_is_filled(&disk);
}

#[test]
fn a_full_ext4_refuses_appends_and_nothing_else() {
    let script = "truncate -s 96M DISK/../image && mkfs.ext4 -q -m 0 DISK/../image && mount -o loop DISK/../image DISK";
    let Some(disk) = SmallDisk::mount(script) else { return };
    a_disk_is_filled(&disk);
}

#[test]
fn retention_goes_on_where_the_disk_is_full() {
    // Records expire at once, but the check comes so late that the disk is full before.
    let Some(disk) = SmallDisk::mount("mount -t tmpfs -o size=64m tmpfs DISK") else { return };
    let broker = disk.broker(&["--set", "log.retention.check.interval.ms=4000"]);
    let mut wire = Wire::open(broker.address());
    wire.create_topic("short", 1, &[("segment.bytes", "2097152"), ("retention.ms", "1")]);
    let part = Bytes::from(batch(1, 500_000));
    let mut refused = 0;
    let began = Instant::now();
    let mut taken_after = 0;
    while taken_after < 20 {
        match wire.produce("short", 0, part.clone()).0 {
            0 if refused > 0 => taken_after += 1,
            0 => {}
            KAFKA_STORAGE_ERROR => {
                refused += 1;
                std::thread::sleep(Duration::from_millis(50));
            }
            other => panic!("error {other}"),
        }
        assert!(began.elapsed() < 2 * PATIENCE, "retention does not make room: refused {refused}");
    }
    println!("refused {refused} times, then retention made room");
}

#[test]
fn one_produce_to_a_stopped_consumer_of_its_own_topic_is_acknowledged() {
    // The consumer asks for the tail and reads nothing: what it holds of the tail cache does not stop the producer.
    let broker = Broker::start(&["--memory-per-shard", "32MiB", "--tail-cache", "4MiB"]);
    let mut wire = Wire::open(broker.address());
    wire.create_topic("tail", 1, &[]);
    let part = Bytes::from(batch(1, 900_000));
    let mut stopped = Vec::new();
    for offset in 0..60 {
        let frame = wire.frame(PRODUCE_VERSION, &produce("tail", 0, part.clone()));
        wire.send(&frame);
        let response = wire.receive::<kafka_protocol::messages::ProduceRequest>(PRODUCE_VERSION);
        assert_eq!(response.responses[0].partition_responses[0].error_code, 0, "{offset}");
        let mut consumer = Wire::open(broker.address());
        setsockopt(&consumer.stream, sockopt::RcvBuf, &4096).unwrap();
        let frame = consumer.frame(FETCH_VERSION, &fetch("tail", 0, offset, 1 << 20, 0));
        consumer.send(&frame);
        stopped.push(consumer);
    }
    let rss = broker.rss_kib();
    println!("60 consumers stopped at the tail: {rss} KiB resident of a budget of 32 MiB");
    assert!(rss < 100 * 1024, "{rss} KiB");
}
