//! The tour with the `rdkafka` crate (librdkafka), by the rules of `../python/tour.py`. An example of the package, so
//! that it is built with its tests. Arguments: bootstrap address, topic; as a member of a group: `member`, bootstrap
//! address, topic, group.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::{ClientContext, Offset, TopicPartitionList};

const PARTITIONS: i32 = 6;
const PARTITIONS_MORE: i32 = 8;
const PER_CODEC: i64 = 300;
const BASE_MS: i64 = 1_700_000_000_000;
const RETENTION_MS: &str = "9000000000000";
const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];
const TOTAL: i64 = CODECS.len() as i64 * PER_CODEC;
const NOTE: &str = "a note \u{2713}";
const WAIT: Duration = Duration::from_secs(30);

// ---- the records

type Fields = (i64, Option<String>, Option<String>, Vec<(String, String)>);

/// Timestamp, key, value and headers of a record.
fn fields(n: i64) -> Fields {
    let key = (n % 7 != 0).then(|| format!("key-{}", n % 97));
    let value = match n {
        n if n % 5 == 0 && n % 7 != 0 => None,
        n if n % 11 == 0 => Some(String::new()),
        n => Some(format!("value {n} {}", "abcdefgh".repeat((n % 50) as usize))),
    };
    let mut headers = vec![("number".to_owned(), n.to_string()), ("nothing".to_owned(), String::new())];
    headers.truncate((n % 3) as usize);
    (BASE_MS + n * 1000, key, value, headers)
}

/// The first record of each partition that is not older; `None` where there is none.
fn first_at(timestamp_ms: i64) -> Vec<Option<i64>> {
    let end = TOTAL / i64::from(PARTITIONS);
    let at = |p, offset| BASE_MS + (offset * i64::from(PARTITIONS) + i64::from(p)) * 1000;
    (0..PARTITIONS).map(|p| (0..end).find(|offset| at(p, *offset) >= timestamp_ms)).collect()
}

fn committed(partition: i32) -> i64 {
    i64::from(10 * (partition + 1))
}

// ---- the clients

/// Counts what was delivered, and prints what a member of a group is to print.
#[derive(Default)]
struct Own {
    delivered: Mutex<Vec<Result<(i32, i64), KafkaError>>>,
    is_member: bool,
}

impl ClientContext for Own {}

impl ProducerContext for Own {
    type DeliveryOpaque = ();
    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let result = result.as_ref().map(|m| (m.partition(), m.offset())).map_err(|(error, _)| error.clone());
        self.delivered.lock().unwrap().push(result);
    }
}

impl ConsumerContext for Own {
    fn post_rebalance(&self, consumer: &BaseConsumer<Own>, _: &Rebalance<'_>) {
        // A client that is being closed cannot be asked any more.
        if self.is_member
            && let Ok(assignment) = consumer.assignment()
        {
            let all: BTreeSet<i32> = assignment.elements().iter().map(|element| element.partition()).collect();
            println!("assigned\t{}", all.iter().map(i32::to_string).collect::<Vec<_>>().join(","));
        }
    }
}

fn config(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set_log_level(RDKafkaLogLevel::Error);
    config
}

fn consumer(bootstrap: &str, group: &str, is_member: bool) -> BaseConsumer<Own> {
    config(bootstrap)
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("check.crcs", "true")
        .set("session.timeout.ms", "6000")
        .set("heartbeat.interval.ms", "500")
        .create_with_context(Own { is_member, ..Own::default() })
        .expect("a consumer")
}

struct Tour {
    bootstrap: String,
    topic: String,
    admin: AdminClient<DefaultClientContext>,
    has_failed: bool,
}

impl Tour {
    fn group(&self, name: &str) -> String {
        format!("{}-{name}", self.topic)
    }

    fn list(&self, offset: impl Fn(i32) -> Offset) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            list.add_partition_offset(&self.topic, partition, offset(partition)).expect("an offset");
        }
        list
    }

    fn topics(&self) -> Vec<String> {
        let metadata = self.admin.inner().fetch_metadata(None, WAIT).expect("metadata");
        metadata.topics().iter().map(|topic| topic.name().to_owned()).collect()
    }

    fn create(&self) {
        let topic =
            NewTopic::new(&self.topic, PARTITIONS, TopicReplication::Fixed(1)).set("retention.ms", RETENTION_MS);
        let create = |validate_only| {
            let created = block_on(self.admin.create_topics([&topic], &options().validate_only(validate_only)));
            created.expect("answered").remove(0).map_err(|(_, code)| code)
        };
        create(true).expect("it is judged as good");
        assert!(!self.topics().contains(&self.topic), "after validate_only");
        create(false).expect("it is created");
        assert_eq!(create(false), Err(RDKafkaErrorCode::TopicAlreadyExists));
    }

    fn produce(&self, codec: usize) {
        let producer: BaseProducer<Own> = config(&self.bootstrap)
            .set("compression.type", CODECS[codec])
            .set("enable.idempotence", if codec.is_multiple_of(2) { "true" } else { "false" })
            .create_with_context(Own::default())
            .expect("a producer");
        for n in codec as i64 * PER_CODEC..(codec as i64 + 1) * PER_CODEC {
            let (timestamp_ms, key, value, headers) = fields(n);
            let headers = headers
                .iter()
                .fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: Some(value) }));
            let mut record = BaseRecord::<str, str>::to(&self.topic)
                .partition((n % i64::from(PARTITIONS)) as i32)
                .timestamp(timestamp_ms);
            record.key = key.as_deref();
            record.payload = value.as_deref();
            producer.send(record.headers(headers)).map_err(|(error, _)| error).expect("room in the queue");
        }
        producer.flush(WAIT).expect("delivered in time");
        let delivered = producer.context().delivered.lock().unwrap();
        assert_eq!(delivered.len(), PER_CODEC as usize);
        assert!(delivered.iter().all(Result::is_ok), "{delivered:?}");
    }

    fn consume(&self) {
        let consumer = consumer(&self.bootstrap, "unused", false);
        consumer.assign(&self.list(|_| Offset::Beginning)).expect("assigned");
        let mut next = vec![0; PARTITIONS as usize];
        for _ in 0..TOTAL {
            let message = consumer.poll(WAIT).expect("a record in time").expect("no error");
            let offset = &mut next[message.partition() as usize];
            assert_eq!(message.offset(), *offset, "partition {}", message.partition());
            let text = |bytes: Option<&[u8]>| bytes.map(|bytes| String::from_utf8(bytes.to_vec()).expect("text"));
            let headers = message.headers().map_or(Vec::new(), |headers| {
                headers.iter().map(|header| (header.key.to_owned(), text(header.value).expect("a value"))).collect()
            });
            let timestamp_ms = message.timestamp().to_millis().expect("a time");
            let got: Fields = (timestamp_ms, text(message.key()), text(message.payload()), headers);
            assert_eq!(got, fields(*offset * i64::from(PARTITIONS) + i64::from(message.partition())));
            *offset += 1;
        }
    }

    fn seek(&self) {
        let consumer = consumer(&self.bootstrap, "unused", false);
        let by_time = |at| consumer.offsets_for_times(self.list(|_| Offset::Offset(at)), WAIT).expect("answered");
        for n in [0, 450, 452, TOTAL] {
            let at = BASE_MS + n * 1000 - 1;
            let found = by_time(at);
            let got: Vec<_> = found.elements().iter().map(|element| element.offset()).collect();
            let want: Vec<_> =
                first_at(at).into_iter().map(|first| first.map_or(Offset::End, Offset::Offset)).collect();
            assert_eq!(got, want, "at {at}");
        }
        let at = BASE_MS + 452_000;
        consumer.assign(&by_time(at)).expect("assigned");
        let got: Vec<_> = first_of_each(&consumer).into_values().map(Some).collect();
        assert_eq!(got, first_at(at));
    }

    fn describe(&self) {
        let metadata = self.admin.inner().fetch_metadata(Some(&self.topic), WAIT).expect("metadata");
        let nodes: Vec<i32> = metadata.brokers().iter().map(|broker| broker.id()).collect();
        let partitions = metadata.topics()[0].partitions();
        assert_eq!(partitions.len(), PARTITIONS as usize);
        assert!(partitions.iter().all(|partition| nodes.contains(&partition.leader())));
        assert_eq!(self.configs(), [RETENTION_MS, "1048588"]);
        for node in nodes {
            let answer = block_on(self.admin.describe_configs(&[ResourceSpecifier::Broker(node)], &options()));
            let resource = answer.expect("answered").remove(0).expect("no error");
            assert!(resource.get("num.partitions").is_some(), "configs of broker {node}");
        }
    }

    /// retention.ms and max.message.bytes of the topic.
    fn configs(&self) -> Vec<String> {
        let answer = block_on(self.admin.describe_configs(&[ResourceSpecifier::Topic(&self.topic)], &options()));
        let resource = answer.expect("answered").remove(0).expect("no error");
        ["retention.ms", "max.message.bytes"]
            .map(|name| resource.get(name).and_then(|entry| entry.value.clone()).expect("a value"))
            .into()
    }

    fn offsets(&self) {
        let consumer = consumer(&self.bootstrap, "unused", false);
        for partition in 0..PARTITIONS {
            let found = consumer.fetch_watermarks(&self.topic, partition, WAIT).expect("answered");
            assert_eq!(found, (0, TOTAL / i64::from(PARTITIONS)));
        }
    }

    fn group_of_three(&self) {
        let done = Command::new(env::var_os("GROUP_SH").expect("GROUP_SH"))
            .arg(TOTAL.to_string())
            .arg(env::current_exe().expect("a path"))
            .args(["member", &self.bootstrap, &self.topic, &self.group("group")])
            .output()
            .expect("group.sh runs");
        let output = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success() && output.is_empty(), "{output}");
    }

    fn committed(&self, group: &str) -> BTreeMap<i32, (Offset, String)> {
        let found = consumer(&self.bootstrap, group, false).committed_offsets(self.list(|_| Offset::Invalid), WAIT);
        let found = found.expect("answered");
        found.elements().iter().map(|e| (e.partition(), (e.offset(), e.metadata().to_owned()))).collect()
    }

    fn commit(&self) {
        let group = self.group("commit");
        let first = consumer(&self.bootstrap, &group, false);
        first.subscribe(&[&self.topic]).expect("subscribed");
        assert!(first_of_each(&first).values().eq([0; PARTITIONS as usize].iter()), "first offsets");
        let mut list = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            let mut element = list.add_partition(&self.topic, partition);
            element.set_offset(Offset::Offset(committed(partition))).expect("an offset");
            element.set_metadata(NOTE);
        }
        first.commit(&list, CommitMode::Sync).expect("committed");
        let want = |p| (p, (Offset::Offset(committed(p)), NOTE.to_owned()));
        assert_eq!(self.committed(&group), (0..PARTITIONS).map(want).collect());
        let listed = first.fetch_group_list(Some(&group), WAIT).expect("answered");
        assert_eq!((listed.groups()[0].state(), listed.groups()[0].members().len()), ("Stable", 1));
        drop(first);
        let second = consumer(&self.bootstrap, &group, false);
        second.subscribe(&[&self.topic]).expect("subscribed");
        assert_eq!(first_of_each(&second), (0..PARTITIONS).map(|p| (p, committed(p))).collect());
    }

    fn groups(&self) {
        let names = [self.group("commit"), self.group("group")];
        let client = consumer(&self.bootstrap, "unused", false);
        let listed = |state: Option<&str>| {
            let listed = client.fetch_group_list(None, WAIT).expect("answered");
            let is = |name: &String| {
                listed.groups().iter().any(|g| g.name() == name && state.is_none_or(|s| s == g.state()))
            };
            names.iter().filter(|name| is(name)).count()
        };
        assert_eq!(listed(Some("Empty")), 2);
        // A killed member may have read what it had not committed.
        let last = self.committed(&names[1]).into_values().filter_map(|(offset, _)| offset.to_raw()).max();
        assert_eq!(last, Some(TOTAL / i64::from(PARTITIONS)));
        let deleted = block_on(self.admin.delete_groups(&names.each_ref().map(|name| &**name), &options()));
        assert!(deleted.expect("answered").iter().all(Result::is_ok));
        assert_eq!(listed(None), 0);
    }

    fn alter(&self) {
        // AlterConfigs replaces all settings.
        let alter = |config: AlterConfig<'_>| {
            let config = config.set("retention.ms", RETENTION_MS);
            block_on(self.admin.alter_configs([&config], &options())).expect("answered").remove(0).expect("altered");
            self.configs()
        };
        let config = || AlterConfig::new(ResourceSpecifier::Topic(&self.topic));
        assert_eq!(alter(config().set("max.message.bytes", "2000000")), [RETENTION_MS, "2000000"]);
        assert_eq!(alter(config()), [RETENTION_MS, "1048588"]);
    }

    fn partitions(&self) {
        let more = NewPartitions::new(&self.topic, PARTITIONS_MORE as usize);
        let created = block_on(self.admin.create_partitions([&more], &options()));
        created.expect("answered").remove(0).expect("created");
        let producer: BaseProducer<Own> =
            config(&self.bootstrap).create_with_context(Own::default()).expect("a producer");
        let record = BaseRecord::<str, str>::to(&self.topic).partition(PARTITIONS_MORE - 1).payload("new");
        producer.send(record).map_err(|(error, _)| error).expect("room in the queue");
        producer.flush(WAIT).expect("delivered in time");
        assert_eq!(*producer.context().delivered.lock().unwrap(), [Ok((PARTITIONS_MORE - 1, 0))]);
    }

    fn records(&self) {
        let mut before = TopicPartitionList::new();
        before.add_partition_offset(&self.topic, 0, Offset::Offset(100)).expect("an offset");
        before.add_partition_offset(&self.topic, 1, Offset::End).expect("an offset");
        let deleted = block_on(self.admin.delete_records(&before, &options())).expect("answered");
        let low: Vec<_> = deleted.elements().iter().map(|element| element.offset()).collect();
        assert_eq!(low, [Offset::Offset(100), Offset::Offset(TOTAL / i64::from(PARTITIONS))]);
        let found = consumer(&self.bootstrap, "unused", false).fetch_watermarks(&self.topic, 0, WAIT);
        assert_eq!(found.expect("answered").0, 100);
    }

    fn delete(&self) {
        let deleted = block_on(self.admin.delete_topics(&[&self.topic], &options()));
        deleted.expect("answered").remove(0).expect("deleted");
        assert!(!self.topics().contains(&self.topic));
    }

    fn step(&mut self, name: &str, run: impl FnOnce(&Tour)) {
        match catch_unwind(AssertUnwindSafe(|| run(self))) {
            Ok(()) => println!("step\t{name}\tok"),
            Err(_) => {
                self.has_failed = true;
                println!("step\t{name}\tfailed\tsee above");
            }
        }
    }
}

/// The offset of the first record that comes of each partition.
fn first_of_each(consumer: &BaseConsumer<Own>) -> BTreeMap<i32, i64> {
    let mut seen = BTreeMap::new();
    let deadline = Instant::now() + WAIT;
    while seen.len() < PARTITIONS as usize && Instant::now() < deadline {
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(200)) {
            seen.entry(message.partition()).or_insert(message.offset());
        }
    }
    seen
}

/// One member of `group.sh`. SIGTERM is waited for by a descriptor: no handler, and librdkafka's threads inherit the mask.
fn member(bootstrap: &str, topic: &str, group: &str) {
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGTERM);
    mask.thread_block().expect("a mask");
    let told = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK).expect("a descriptor");
    let consumer = consumer(bootstrap, group, true);
    consumer.subscribe(&[topic]).expect("subscribed");
    while told.read_signal().expect("readable").is_none() {
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
            println!("read\t{}\t{}", message.partition(), message.offset());
            // Where the group rebalances this fails; a later commit covers it, or another member reads it again.
            let _ = consumer.commit_message(&message, CommitMode::Sync);
        }
    }
    println!("assigned\t");
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(WAIT)).operation_timeout(Some(WAIT))
}

/// Runs a future on this thread.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return value;
        }
        std::thread::park();
    }
}

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let [kind, bootstrap, topic, group] = &arguments[..] {
        assert_eq!(kind, "member");
        return member(bootstrap, topic, group);
    }
    let [bootstrap, topic] = &arguments[..] else { panic!("arguments: bootstrap address, topic") };
    let admin = config(bootstrap).create().expect("an admin client");
    let mut tour = Tour { bootstrap: bootstrap.clone(), topic: topic.clone(), admin, has_failed: false };
    let (_, version) = rdkafka::util::get_rdkafka_version();
    println!("client\trdkafka (Rust)\tlibrdkafka {version}");
    tour.step("create", Tour::create);
    for (index, codec) in CODECS.iter().enumerate() {
        tour.step(&format!("produce {codec}"), |tour| tour.produce(index));
    }
    tour.step("consume", Tour::consume);
    tour.step("seek", Tour::seek);
    tour.step("describe", Tour::describe);
    tour.step("offsets", Tour::offsets);
    tour.step("group", Tour::group_of_three);
    tour.step("commit", Tour::commit);
    tour.step("groups", Tour::groups);
    tour.step("alter", Tour::alter);
    tour.step("partitions", Tour::partitions);
    tour.step("records", Tour::records);
    tour.step("delete", Tour::delete);
    std::process::exit(i32::from(tour.has_failed));
}
