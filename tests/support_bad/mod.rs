//! What the tests of bad input and of limits share: the real binary on loopback, clients that speak the protocol byte
//! by byte, and a witness: a well-behaved connection that has to go on working whatever the others do.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    CreateTopicsRequest, DeleteTopicsRequest, FetchRequest, MetadataRequest, MetadataResponse, ProduceRequest,
    TopicName,
};
use kafka_protocol::protocol::{Request, StrBytes};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ottla::base::time::Timestamp;
use ottla::model::builder::BatchBuilder;
use ottla::model::compression::Codec;
use ottla::protocol::decode::decode_response;
use ottla::protocol::encode::encode_request;

pub const PRODUCE_VERSION: i16 = 9;
pub const FETCH_VERSION: i16 = 12;
/// How long anything that has to happen may take: builds run beside the tests.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The binary under test; `OTTLA_TEST_BINARY` names another, such as a release build.
pub fn binary() -> PathBuf {
    std::env::var_os("OTTLA_TEST_BINARY").map_or_else(|| env!("CARGO_BIN_EXE_ottla").into(), PathBuf::from)
}

/// The binary as a user without rights, behind `wrapper`; `None` where we are not root.
pub fn as_nobody(dir: &Path, wrapper: &[&str]) -> Option<Command> {
    const NOBODY: u32 = 65534;
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: only root can become somebody else");
        return None;
    }
    // Where the binary lies nobody may look.
    let own = dir.join("ottla");
    if !own.exists() {
        std::fs::copy(binary(), &own).unwrap();
    }
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = match wrapper.split_first() {
        Some((first, rest)) => {
            let mut command = Command::new(first);
            command.args(rest).arg(own);
            command
        }
        None => Command::new(own),
    };
    command.uid(NOBODY).gid(NOBODY);
    Some(command)
}

/// A broker process and its log.
pub struct Broker {
    child: Child,
    pub addresses: Vec<SocketAddr>,
    log: PathBuf,
    /// From the start of the process to the last shard that serves.
    pub start_took: Duration,
    _own_dir: Option<tempfile::TempDir>,
}

impl Broker {
    /// A broker on a directory of its own.
    pub fn start(args: &[&str]) -> Broker {
        let dir = tempfile::tempdir().unwrap();
        let mut broker = Broker::start_in(dir.path(), args);
        broker._own_dir = Some(dir);
        broker
    }

    /// A broker on `dir/data`; its log is appended to `dir/log`.
    pub fn start_in(dir: &Path, args: &[&str]) -> Broker {
        let mut command = Command::new(binary());
        command.arg("serve").arg("--data-dir").arg(dir.join("data")).args(["--listen", "127.0.0.1:0"]);
        // Tests run beside each other: pinned, their first shards would all share one CPU.
        command.arg("--no-pin").args(args);
        if !args.contains(&"--shards") {
            command.args(["--shards", "1"]);
        }
        Broker::start_command(command, &dir.join("log"))
    }

    /// Runs a prepared command and waits until it serves.
    pub fn start_command(command: Command, log: &Path) -> Broker {
        let began = Instant::now();
        let args: Vec<_> = command.get_args().map(|arg| arg.to_string_lossy().into_owned()).collect();
        let shards = args.iter().position(|arg| arg == "--shards").map(|at| args[at + 1].parse().unwrap());
        let shard_count = shards.unwrap_or(1);
        let mut broker = Broker::spawn(command, log);
        loop {
            let text = broker.log();
            let serving: Vec<&str> = text.lines().filter(|line| line.contains(": serving ")).collect();

            if !serving.is_empty() && serving.len() >= shard_count {
                broker.addresses =
                    serving.iter().map(|line| field(line, "address=").unwrap().parse().unwrap()).collect();
                break;
            }
            if let Some(status) = broker.child.try_wait().unwrap() {
                panic!("the broker ended with {status}:\n{text}");
            }
            assert!(began.elapsed() < 4 * PATIENCE, "the broker does not serve:\n{text}");
            std::thread::sleep(Duration::from_millis(5));
        }
        broker.start_took = began.elapsed();
        broker
    }

    fn spawn(mut command: Command, log: &Path) -> Broker {
        let file = std::fs::File::create(log).unwrap();
        let child = command
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        Broker { child, addresses: Vec::new(), log: log.into(), start_took: Duration::ZERO, _own_dir: None }
    }

    /// Runs a command that has to refuse: its exit code and what it said.
    pub fn refused(command: Command, log: &Path) -> (i32, String) {
        let mut broker = Broker::spawn(command, log);
        let began = Instant::now();
        loop {
            if let Some(status) = broker.child.try_wait().unwrap() {
                return (status.code().unwrap_or(-1), broker.log());
            }
            assert!(began.elapsed() < PATIENCE, "it goes on:\n{}", broker.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap()).into_owned()
    }

    /// Waits for a line with `text` to be logged.
    pub fn wait_for_log(&self, text: &str) {
        self.wait_for_log_count(text, 1);
    }

    /// Waits for `count` lines with `text`.
    pub fn wait_for_log_count(&self, text: &str, count: usize) {
        let began = Instant::now();
        loop {
            let log = self.log();
            let found = log.lines().filter(|line| line.contains(text)).count();
            if found >= count {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "{found} of {count} lines with {text:?}:\n{log}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn status_kib(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        field(&status, name).unwrap().parse().unwrap()
    }

    /// Resident memory, in KiB.
    pub fn rss_kib(&self) -> u64 {
        self.status_kib("VmRSS:")
    }

    /// The most that was ever resident, in KiB.
    pub fn rss_peak_kib(&self) -> u64 {
        self.status_kib("VmHWM:")
    }

    /// Processor time so far.
    pub fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        Duration::from_millis(ticks * 10)
    }

    /// A counter's sum over all shards.
    pub fn counter(&self, name: &str) -> u64 {
        let before = self.log().len();
        self.signal(Signal::SIGUSR1);
        let began = Instant::now();
        loop {
            let log = self.log();
            let lines: Vec<&str> = log[before..].lines().filter(|line| line.contains("turns=")).collect();
            if lines.len() >= self.addresses.len() {
                let name = format!(" {name}=");
                return lines.iter().filter_map(|line| field(line, &name)?.parse::<u64>().ok()).sum();
            }
            assert!(began.elapsed() < PATIENCE, "no counters:\n{}", &log[before..]);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid() as i32), signal).unwrap();
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Asks it to stop, or kills it; how long that took.
    pub fn end(&mut self, signal: Signal) -> Duration {
        let began = Instant::now();
        self.signal(signal);
        while self.is_running() {
            assert!(began.elapsed() < 2 * PATIENCE, "it does not stop:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
        began.elapsed()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let from = log.len().saturating_sub(8000);
            eprintln!("the broker's log ends with:\n{}", String::from_utf8_lossy(&log.as_bytes()[from..]));
        }
    }
}

/// The word behind `name` in `text`, without quotes.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let rest = &text[text.find(name)? + name.len()..];
    Some(rest.split_whitespace().next()?.trim_matches('"'))
}

/// A connection on which anything can be said.
pub struct Wire {
    pub stream: TcpStream,
    correlation_id: i32,
}

/// What the broker did with a connection.
#[derive(Debug, PartialEq, Eq)]
pub enum Reaction {
    Closed,
    Answered(Vec<u8>),
    Silent,
}

impl Wire {
    pub fn open(address: SocketAddr) -> Wire {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Wire { stream, correlation_id: 0 }
    }

    /// Another hand on a connection.
    pub fn of(stream: TcpStream) -> Wire {
        Wire { stream, correlation_id: 0 }
    }

    /// The frame of a request.
    pub fn frame<R: Request>(&mut self, version: i16, request: &R) -> Vec<u8> {
        self.correlation_id += 1;
        let mut bytes = Vec::new();
        encode_request(&mut bytes, version, self.correlation_id, Some("test"), request).unwrap();
        bytes
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub fn try_call<R: Request>(&mut self, version: i16, request: &R) -> io::Result<R::Response> {
        let frame = self.frame(version, request);
        self.stream.write_all(&frame)?;
        self.try_receive::<R>(version)
    }

    pub fn call<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        self.try_call(version, request).unwrap()
    }

    pub fn receive<R: Request>(&mut self, version: i16) -> R::Response {
        self.try_receive::<R>(version).unwrap()
    }

    pub fn try_receive<R: Request>(&mut self, version: i16) -> io::Result<R::Response> {
        let content = self.receive_frame()?;
        let (_, response) = decode_response::<R>(Bytes::from(content), version)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
        Ok(response)
    }

    pub fn receive_frame(&mut self) -> io::Result<Vec<u8>> {
        let mut prefix = [0; 4];
        self.stream.read_exact(&mut prefix)?;
        let mut content = vec![0; i32::from_be_bytes(prefix) as usize];
        self.stream.read_exact(&mut content)?;
        Ok(content)
    }

    /// What comes within `wait`.
    pub fn reaction(&mut self, wait: Duration) -> Reaction {
        self.stream.set_read_timeout(Some(wait)).unwrap();
        match self.receive_frame() {
            Ok(content) => Reaction::Answered(content),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                Reaction::Silent
            }
            Err(_) => Reaction::Closed,
        }
    }

    /// Waits for the broker to close the connection, whatever it sends before.
    pub fn wait_for_close(&mut self, wait: Duration) {
        let until = Instant::now() + wait;
        let mut bytes = vec![0; 64 * 1024];
        loop {
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "the connection is not closed");
            self.stream.set_read_timeout(Some(left)).unwrap();
            match self.stream.read(&mut bytes) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    panic!("the connection is not closed")
                }
                Err(_) => return,
            }
        }
    }

    pub fn metadata(&mut self, topic: Option<&str>) -> MetadataResponse {
        use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
        let topics = topic.map(|name| vec![MetadataRequestTopic::default().with_name(Some(topic_name(name)))]);
        self.call(9, &MetadataRequest::default().with_topics(topics).with_allow_auto_topic_creation(false))
    }

    pub fn create_topic(&mut self, name: &str, partition_count: i32, configs: &[(&str, &str)]) {
        let configs = configs
            .iter()
            .map(|(name, value)| CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value))));
        let topic = CreatableTopic::default()
            .with_name(topic_name(name))
            .with_num_partitions(partition_count)
            .with_replication_factor(1)
            .with_configs(configs.collect());
        let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(30_000);
        let response = self.call(5, &request);
        let error = &response.topics[0];
        assert_eq!(error.error_code, 0, "{error:?}");
    }

    pub fn delete_topic(&mut self, name: &str) -> i16 {
        let request = DeleteTopicsRequest::default().with_topic_names(vec![topic_name(name)]).with_timeout_ms(30_000);
        self.call(4, &request).responses[0].error_code
    }

    /// Error code and base offset.
    pub fn produce(&mut self, topic: &str, partition: i32, records: impl Into<Bytes>) -> (i16, i64) {
        self.try_produce(topic, partition, records).unwrap()
    }

    pub fn try_produce(&mut self, topic: &str, partition: i32, records: impl Into<Bytes>) -> io::Result<(i16, i64)> {
        let response = self.try_call(PRODUCE_VERSION, &produce(topic, partition, records))?;
        let partition = &response.responses[0].partition_responses[0];
        Ok((partition.error_code, partition.base_offset))
    }

    /// Error code and bytes of batches.
    pub fn fetch(&mut self, topic: &str, partition: i32, offset: i64, size_bytes_max: i32) -> (i16, Bytes) {
        let response = self.call(FETCH_VERSION, &fetch(topic, partition, offset, size_bytes_max, 0));
        assert_eq!(response.error_code, 0);
        let partition = &response.responses[0].partitions[0];
        (partition.error_code, partition.records.clone().unwrap_or_default())
    }
}

pub fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.into())
}

pub fn topic_name(name: &str) -> TopicName {
    TopicName(text(name))
}

pub fn produce(topic: &str, partition: i32, records: impl Into<Bytes>) -> ProduceRequest {
    produce_all(topic, [(partition, records.into())])
}

pub fn produce_all(topic: &str, partitions: impl IntoIterator<Item = (i32, Bytes)>) -> ProduceRequest {
    let data = partitions
        .into_iter()
        .map(|(index, records)| PartitionProduceData::default().with_index(index).with_records(Some(records)));
    let topic = TopicProduceData::default().with_name(topic_name(topic)).with_partition_data(data.collect());
    ProduceRequest::default().with_acks(-1).with_timeout_ms(30_000).with_topic_data(vec![topic])
}

pub fn fetch(topic: &str, partition: i32, offset: i64, size_bytes_max: i32, wait_ms_max: i32) -> FetchRequest {
    let partition = FetchPartition::default()
        .with_partition(partition)
        .with_current_leader_epoch(-1)
        .with_fetch_offset(offset)
        .with_last_fetched_epoch(-1)
        .with_log_start_offset(-1)
        .with_partition_max_bytes(size_bytes_max);
    let topic = FetchTopic::default().with_topic(topic_name(topic)).with_partitions(vec![partition]);
    FetchRequest::default()
        .with_replica_id((-1).into())
        .with_max_wait_ms(wait_ms_max)
        .with_min_bytes(1)
        .with_max_bytes(size_bytes_max)
        .with_session_epoch(-1)
        .with_topics(vec![topic])
}

/// A batch of `count` records whose values have `value_size_bytes`, which do not compress.
pub fn batch(count: usize, value_size_bytes: usize) -> Vec<u8> {
    batch_with(Codec::None, count, value_size_bytes)
}

pub fn batch_with(codec: Codec, count: usize, value_size_bytes: usize) -> Vec<u8> {
    let mut builder = BatchBuilder::new(codec);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..count {
        let value: Vec<u8> = (0..value_size_bytes)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state as u8
            })
            .collect();
        builder.push(now(), Some(b"key"), Some(&value), &[]);
    }
    builder.build()
}

pub fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp(since.as_millis() as i64)
}

/// A well-behaved client in a thread of its own: it produces one record at a time and fetches it back.
pub struct Witness {
    stop: Arc<AtomicBool>,
    round_count: Arc<AtomicU64>,
    thread: JoinHandle<Witnessed>,
}

/// What a witness saw.
#[derive(Debug)]
pub struct Witnessed {
    pub round_count: u64,
    pub slowest: Duration,
}

impl Witness {
    /// Starts on a topic of its own.
    pub fn start(address: SocketAddr) -> Witness {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let topic = format!("witness-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let mut wire = Wire::open(address);
        wire.create_topic(&topic, 1, &[]);
        let stop = Arc::new(AtomicBool::new(false));
        let is_over = stop.clone();
        let round_count = Arc::new(AtomicU64::new(0));
        let rounds = round_count.clone();
        let thread = std::thread::spawn(move || {
            let mut seen = Witnessed { round_count: 0, slowest: Duration::ZERO };
            let records = batch(1, 5000);
            while !is_over.load(Ordering::Relaxed) {
                let began = Instant::now();
                let (error, offset) = wire.produce(&topic, 0, records.clone());
                assert_eq!((error, offset), (0, seen.round_count as i64));
                let (error, fetched) = wire.fetch(&topic, 0, offset, 1 << 20);
                assert_eq!((error, fetched.len()), (0, records.len()));
                seen.slowest = seen.slowest.max(began.elapsed());
                seen.round_count += 1;
                rounds.store(seen.round_count, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(2));
            }
            seen
        });
        // Its topic is made with the first round, which what is witnessed may make impossible.
        let began = Instant::now();
        while round_count.load(Ordering::Relaxed) == 0 && !thread.is_finished() && began.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(1));
        }
        Witness { stop, round_count, thread }
    }

    /// Ends it; fails if it met an error or had to wait longer than `slowest` for one round.
    pub fn finish(self, slowest: Duration) -> Witnessed {
        // What is witnessed may have been over quickly: some rounds come after it.
        let until = self.round_count.load(Ordering::Relaxed) + 3;
        while self.round_count.load(Ordering::Relaxed) < until && !self.thread.is_finished() {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.stop.store(true, Ordering::Relaxed);
        let seen = self.thread.join().expect("the witness met an error");
        assert!(seen.round_count > 0 && seen.slowest < slowest, "{seen:?}");
        seen
    }
}
