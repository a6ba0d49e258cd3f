//! Members of a group by librdkafka, which share the partitions of one topic.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rdkafka::Message;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};

use super::broker::{Broker, Options};
use super::clients::{Admin, send_all};
use super::until;

/// What they read.
pub const TOPIC: &str = "work";
/// Its partitions.
pub const PARTITION_COUNT: i32 = 6;

/// Values by topic and partition.
pub type Values = BTreeMap<(String, i32), Vec<String>>;

/// A broker of two shards with the topic.
pub fn broker(settings: &[(&str, &str)]) -> Broker {
    let options = settings.iter().fold(Options::shards(2), |options, (name, value)| options.set(name, value));
    let broker = Broker::start(options);
    Admin::new(&broker.bootstrap()).create(TOPIC, PARTITION_COUNT, &[]);
    broker
}

/// A member that reads from the start and notices soon what happens.
pub fn member<C: ConsumerContext + Default + 'static>(
    broker: &Broker,
    group: &str,
    topic: &str,
    settings: &[(&str, &str)],
) -> BaseConsumer<C> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", broker.bootstrap())
        .set("broker.address.family", "v4")
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("reconnect.backoff.ms", "20")
        .set("reconnect.backoff.max.ms", "200")
        .set("fetch.wait.max.ms", "50")
        .set("topic.metadata.refresh.interval.ms", "1000")
        .set_log_level(RDKafkaLogLevel::Emerg);
    for (key, value) in settings {
        config.set(*key, *value);
    }
    let member: BaseConsumer<C> = config.create_with_context(C::default()).expect("a consumer");
    member.subscribe(&[topic]).expect("a subscription");
    member
}

/// Takes whatever a member is given for a moment.
pub fn poll<C: ConsumerContext>(member: &BaseConsumer<C>, read: &mut Values) {
    for _ in 0..20 {
        match member.poll(Duration::from_millis(5)) {
            Some(Ok(message)) => {
                let value = String::from_utf8(message.payload().expect("a value").to_vec()).expect("text");
                read.entry((message.topic().to_owned(), message.partition())).or_default().push(value);
            }
            Some(Err(_)) => {}
            None => return,
        }
    }
}

/// Polls members until they have read so much of every partition.
pub fn read_all<C: ConsumerContext>(what: &str, members: &[&BaseConsumer<C>], count_min: usize) -> Values {
    let mut read = Values::new();
    until(what, || {
        members.iter().for_each(|member| poll(member, &mut read));
        let is_enough = |read: &Vec<String>| read.iter().collect::<BTreeSet<_>>().len() >= count_min;
        (read.len() == PARTITION_COUNT as usize && read.values().all(is_enough)).then_some(())
    });
    read
}

/// The partitions that a member has.
pub fn assigned<C: ConsumerContext>(member: &BaseConsumer<C>) -> BTreeSet<i32> {
    let assignment = member.assignment().expect("an assignment");
    assignment.elements().iter().map(|element| element.partition()).collect()
}

/// Polls members until the partitions are shared among them, each having some.
pub fn until_shared<C: ConsumerContext>(members: &[&BaseConsumer<C>]) -> Vec<BTreeSet<i32>> {
    until("the partitions are shared", || {
        members.iter().for_each(|member| poll(member, &mut Values::new()));
        let shares: Vec<BTreeSet<i32>> = members.iter().map(|member| assigned(member)).collect();
        let count: usize = shares.iter().map(BTreeSet::len).sum();
        let all: BTreeSet<i32> = shares.iter().flatten().copied().collect();
        let is_shared = count == PARTITION_COUNT as usize && all.len() == count;
        (is_shared && shares.iter().all(|share| !share.is_empty())).then_some(shares)
    })
}

/// Every member commits. Where the group rebalances meanwhile, the commit is refused and made again.
pub fn commit<C: ConsumerContext>(members: &[&BaseConsumer<C>]) {
    let mut left = members.to_vec();
    until("everything is committed", || {
        left.retain(|member| member.commit_consumer_state(CommitMode::Sync).is_err());
        left.iter().for_each(|member| poll(member, &mut Values::new()));
        left.is_empty().then_some(())
    });
}

/// Ten values of a round.
pub fn values(round: usize) -> Vec<String> {
    (0..10).map(|number| format!("{round}/{number}")).collect()
}

/// Sends the same to every partition.
pub fn send_to_all(broker: &Broker, values: &[String]) {
    (0..PARTITION_COUNT).for_each(|partition| send_all(&broker.bootstrap(), TOPIC, partition, values));
}
