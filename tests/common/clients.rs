//! librdkafka through the `rdkafka` crate: producing, reading partitions to their end, administration.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};
use rdkafka::{ClientContext, Offset, Timestamp, TopicPartitionList};

use super::WAIT_MAX;

const POLL: Duration = Duration::from_millis(50);

/// A record as a test compares it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
    /// Its headers in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// The time that its producer gives it; librdkafka's own if there is none.
    pub timestamp_ms: Option<i64>,
}

impl Record {
    /// A record that is only a value.
    pub fn of(value: impl AsRef<[u8]>) -> Record {
        Record { value: Some(value.as_ref().to_vec()), ..Record::default() }
    }
}

/// A record as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its time and whose it is.
    pub timestamp: Timestamp,
    /// The rest; the timestamp once more.
    pub record: Record,
}

impl Read {
    fn of(message: &BorrowedMessage<'_>) -> Read {
        let headers = message.headers().map_or(Vec::new(), |headers| {
            headers.iter().map(|header| (header.key.to_string(), header.value.map(<[u8]>::to_vec))).collect()
        });
        Read {
            partition: message.partition(),
            offset: message.offset(),
            timestamp: message.timestamp(),
            record: Record {
                key: message.key().map(<[u8]>::to_vec),
                value: message.payload().map(<[u8]>::to_vec),
                headers,
                timestamp_ms: message.timestamp().to_millis(),
            },
        }
    }

    /// Its value as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(self.record.value.as_deref().expect("a value")).expect("text")
    }
}

/// What became of each record, by the number that [`Producer::send`] gave: partition and offset, or the error.
pub type Reports = BTreeMap<usize, Result<(i32, i64), RDKafkaErrorCode>>;

/// The context of all clients here: quiet, since killed brokers are part of the tests, and collecting reports.
#[derive(Default)]
pub struct Collecting {
    reports: Mutex<Reports>,
}

impl ClientContext for Collecting {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}
    fn error(&self, _: KafkaError, _: &str) {}
}

impl ConsumerContext for Collecting {}

impl ProducerContext for Collecting {
    type DeliveryOpaque = usize;
    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        let report = match result {
            Ok(message) => Ok((message.partition(), message.offset())),
            Err((error, _)) => Err(error.rdkafka_error_code().expect("a delivery error has a code")),
        };
        let before = self.reports.lock().unwrap().insert(number, report);
        assert!(before.is_none(), "record {number} was reported twice");
    }
}

/// A producer that remembers what was delivered.
pub struct Producer {
    inner: BaseProducer<Collecting>,
    sent_count: usize,
}

impl Producer {
    /// A producer with acks=all and these settings of librdkafka's.
    pub fn new(bootstrap: &str, settings: &[(&str, &str)]) -> Producer {
        let mut config = config(bootstrap);
        config.set("linger.ms", "5").set("acks", "all");
        for (key, value) in settings {
            config.set(*key, *value);
        }
        let inner = config.create_with_context(Collecting::default()).expect("a producer");
        Producer { inner, sent_count: 0 }
    }

    /// Queues a record and gives its number: 0 and up.
    pub fn send(&mut self, topic: &str, partition: i32, record: &Record) -> usize {
        let number = self.sent_count;
        self.sent_count += 1;
        let mut message = BaseRecord::<[u8], [u8], usize>::with_opaque_to(topic, number).partition(partition);
        message.key = record.key.as_deref();
        message.payload = record.value.as_deref();
        message.timestamp = record.timestamp_ms;
        if !record.headers.is_empty() {
            let headers = record.headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
                headers.insert(Header { key, value: value.as_ref() })
            });
            message.headers = Some(headers);
        }
        let deadline = Instant::now() + WAIT_MAX;
        while let Err((error, back)) = self.inner.send(message) {
            assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::QueueFull), "{error}");
            assert!(Instant::now() < deadline, "the queue stays full");
            self.inner.poll(POLL);
            message = back;
        }
        number
    }

    /// Serves reports.
    pub fn poll(&self) {
        self.inner.poll(Duration::ZERO);
    }

    /// Records that were reported so far.
    pub fn reported_count(&self) -> usize {
        self.inner.context().reports.lock().unwrap().len()
    }

    /// What was reported so far, by number.
    pub fn reports(&self) -> Reports {
        self.inner.context().reports.lock().unwrap().clone()
    }

    /// Waits until everything that was queued is reported.
    pub fn flush(&self) -> Reports {
        self.inner.flush(WAIT_MAX).expect("everything is reported in time");
        let reports = self.inner.context().reports.lock().unwrap().clone();
        assert_eq!(reports.len(), self.sent_count, "every record is reported");
        reports
    }

    /// Waits as [`flush`](Self::flush) does for success; gives the offsets by number.
    pub fn deliver(&self) -> BTreeMap<usize, (i32, i64)> {
        let reports = self.flush();
        reports.into_iter().map(|(number, report)| (number, report.expect("it is delivered"))).collect()
    }
}

/// Sends `values` to one partition and waits for them.
pub fn send_all(bootstrap: &str, topic: &str, partition: i32, values: &[String]) {
    let mut producer = Producer::new(bootstrap, &[]);
    for value in values {
        producer.send(topic, partition, &Record::of(value));
    }
    producer.deliver();
}

/// A consumer with these settings, assigned to partitions from offsets on.
pub fn consumer(
    bootstrap: &str,
    topic: &str,
    from: &[(i32, Offset)],
    settings: &[(&str, &str)],
) -> BaseConsumer<Collecting> {
    let mut config = config(bootstrap);
    config
        .set("group.id", "not-used")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "true")
        .set("check.crcs", "true")
        .set("auto.offset.reset", "error");
    for (key, value) in settings {
        config.set(*key, *value);
    }
    let consumer: BaseConsumer<Collecting> = config.create_with_context(Collecting::default()).expect("a consumer");
    let mut assignment = TopicPartitionList::new();
    for (partition, offset) in from {
        assignment.add_partition_offset(topic, *partition, *offset).expect("an offset");
    }
    consumer.assign(&assignment).expect("an assignment");
    consumer
}

/// Reads partitions 0 to `partition_count` from their beginning to their end; the records of each, in the order in
/// which they came.
pub fn read_all(bootstrap: &str, topic: &str, partition_count: i32) -> Vec<Vec<Read>> {
    let from: Vec<_> = (0..partition_count).map(|partition| (partition, Offset::Beginning)).collect();
    // An end is found by a fetch that waits there in vain.
    read_to_end(&consumer(bootstrap, topic, &from, &[("fetch.wait.max.ms", "10")]), partition_count)
}

/// Reads until every partition has come to its end.
pub fn read_to_end(consumer: &BaseConsumer<Collecting>, partition_count: i32) -> Vec<Vec<Read>> {
    let mut records = vec![Vec::new(); partition_count as usize];
    let mut ended = vec![false; partition_count as usize];
    let deadline = Instant::now() + WAIT_MAX;
    while ended.contains(&false) {
        assert!(Instant::now() < deadline, "partitions do not come to their end: {ended:?}");
        match consumer.poll(POLL) {
            None => {}
            Some(Ok(message)) => records[message.partition() as usize].push(Read::of(&message)),
            Some(Err(KafkaError::PartitionEOF(partition))) => ended[partition as usize] = true,
            Some(Err(error)) if is_passing(&error) => {}
            Some(Err(error)) => panic!("reading failed: {error}"),
        }
    }
    records
}

/// Waits for the next record.
pub fn read_one(consumer: &BaseConsumer<Collecting>) -> Read {
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        assert!(Instant::now() < deadline, "no record comes");
        match consumer.poll(POLL) {
            Some(Ok(message)) => return Read::of(&message),
            Some(Err(KafkaError::PartitionEOF(_))) | None => {}
            Some(Err(error)) if is_passing(&error) => {}
            Some(Err(error)) => panic!("reading failed: {error}"),
        }
    }
}

/// What librdkafka reports while a broker is away.
fn is_passing(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{AllBrokersDown, BrokerTransportFailure, OperationTimedOut, Resolve};
    matches!(error.rdkafka_error_code(), Some(AllBrokersDown | BrokerTransportFailure | OperationTimedOut | Resolve))
}

/// An administrator.
pub struct Admin {
    inner: AdminClient<DefaultClientContext>,
}

impl Admin {
    /// Connects when it is first used.
    pub fn new(bootstrap: &str) -> Admin {
        Admin { inner: config(bootstrap).create().expect("an admin client") }
    }

    /// Creates a topic with configs, one replica.
    pub fn create(&self, topic: &str, partition_count: i32, configs: &[(&str, &str)]) {
        self.try_create(topic, partition_count, 1, configs, false).unwrap_or_else(|code| panic!("{topic}: {code}"));
    }

    /// Creates a topic, or only has it judged.
    pub fn try_create(
        &self,
        topic: &str,
        partition_count: i32,
        replication_factor: i32,
        configs: &[(&str, &str)],
        validate_only: bool,
    ) -> Result<(), RDKafkaErrorCode> {
        let mut new = NewTopic::new(topic, partition_count, TopicReplication::Fixed(replication_factor));
        for (key, value) in configs {
            new = new.set(key, value);
        }
        let options = options().validate_only(validate_only);
        let results = block_on(self.inner.create_topics([&new], &options)).expect("CreateTopics is answered");
        results.into_iter().next().expect("one topic").map(drop).map_err(|(_, code)| code)
    }

    /// Deletes a topic.
    pub fn delete(&self, topic: &str) -> Result<(), RDKafkaErrorCode> {
        let results = block_on(self.inner.delete_topics(&[topic], &options())).expect("DeleteTopics is answered");
        results.into_iter().next().expect("one topic").map(drop).map_err(|(_, code)| code)
    }

    /// The client itself.
    pub fn inner(&self) -> &AdminClient<DefaultClientContext> {
        &self.inner
    }
}

/// Admin options with a bound.
pub fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(WAIT_MAX)).operation_timeout(Some(WAIT_MAX))
}

fn config(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("broker.address.family", "v4")
        // Brokers go and come in these tests: look for them often.
        .set("reconnect.backoff.ms", "20")
        .set("reconnect.backoff.max.ms", "200")
        .set("topic.metadata.refresh.fast.interval.ms", "50")
        .set_log_level(RDKafkaLogLevel::Emerg);
    config
}

/// Runs a future on this thread.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "it is not done within {WAIT_MAX:?}");
        std::thread::park_timeout(left);
    }
}
