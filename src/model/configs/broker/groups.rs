//! Broker config keys: group coordinators.
//!
//! Names, types, defaults and bounds are those a Kafka 4.2 broker answers; the words are our own.

use crate::model::configs::key::{ConfigKey, keys};

/// The keys of this family, by name within each subject.
pub const KEYS: &[ConfigKey] = keys! {
    "group.min.session.timeout.ms", Int, Some("6000"), Any, ReadOnly, Acted,
        "Least session timeout that a member may ask for, in milliseconds.";
    "group.max.session.timeout.ms", Int, Some("1800000"), Any, ReadOnly, Acted,
        "Greatest session timeout that a member may ask for, in milliseconds.";
    "group.initial.rebalance.delay.ms", Int, Some("3000"), AtLeast(0), ReadOnly, Acted,
        "How long a new group waits for more members before its first rebalance, in milliseconds.";
    "group.max.size", Int, Some("2147483647"), AtLeast(1), ReadOnly, Acted,
        "Most members of one group.";
    "group.coordinator.rebalance.protocols", List, Some("classic,consumer,streams"),
        ListOf(&["classic", "consumer", "share", "streams"]), ReadOnly, Acted,
        "Rebalance protocols that are offered: consumer may be left out. classic always is; streams and share ottla does \
         not have yet.";
    "group.coordinator.threads", Int, Some("4"), Any, ReadOnly, Ignored,
        "Kafka's coordinator threads; ottla's coordinators live on their shards.";
    "group.coordinator.append.linger.ms", Int, Some("-1"), Any, ReadOnly, Ignored,
        "How long Kafka's coordinator gathers writes; ottla gathers while one write is in flight.";
    "offset.metadata.max.bytes", Int, Some("4096"), Any, ReadOnly, Acted,
        "Longest metadata string of an offset commit, in bytes.";
    "offsets.commit.timeout.ms", Int, Some("5000"), AtLeast(1), ReadOnly, Acted,
        "How long an offset commit may wait to be durable, in milliseconds.";
    "offsets.load.buffer.size", Int, Some("5242880"), AtLeast(1), ReadOnly, Ignored,
        "Bytes that Kafka reads at once when it loads offsets.";
    "offsets.retention.minutes", Int, Some("10080"), AtLeast(1), ReadOnly, Acted,
        "How long the offsets of an empty group are kept, in minutes.";
    "offsets.retention.check.interval.ms", Long, Some("600000"), AtLeast(1), ReadOnly, Acted,
        "How often expired offsets are looked for, in milliseconds.";
    "offsets.topic.num.partitions", Int, Some("50"), AtLeast(1), ReadOnly, Acted,
        "Partitions of the offsets topic, fixed when it is created.";
    "offsets.topic.replication.factor", Short, Some("3"), AtLeast(1), ReadOnly, Ignored,
        "Copies of the offsets topic; one node keeps one.";
    "offsets.topic.segment.bytes", Int, Some("104857600"), AtLeast(1), ReadOnly, Acted,
        "Segment size of the offsets topic, in bytes.";
    "offsets.topic.compression.codec", Int, Some("0"), Any, ReadOnly, Ignored,
        "Codec of the offsets topic: 0 for none, which ottla uses.";
    "group.consumer.session.timeout.ms", Int, Some("45000"), AtLeast(1), ReadOnly, Acted,
        "Session timeout of the consumer protocol (KIP-848), in milliseconds.";
    "group.consumer.min.session.timeout.ms", Int, Some("45000"), AtLeast(1), ReadOnly, Acted,
        "Least session timeout of the consumer protocol, in milliseconds.";
    "group.consumer.max.session.timeout.ms", Int, Some("60000"), AtLeast(1), ReadOnly, Acted,
        "Greatest session timeout of the consumer protocol, in milliseconds.";
    "group.consumer.heartbeat.interval.ms", Int, Some("5000"), AtLeast(1), ReadOnly, Acted,
        "Heartbeat interval of the consumer protocol, in milliseconds.";
    "group.consumer.min.heartbeat.interval.ms", Int, Some("5000"), AtLeast(1), ReadOnly, Acted,
        "Least heartbeat interval of the consumer protocol, in milliseconds.";
    "group.consumer.max.heartbeat.interval.ms", Int, Some("15000"), AtLeast(1), ReadOnly, Acted,
        "Greatest heartbeat interval of the consumer protocol, in milliseconds.";
    "group.consumer.max.size", Int, Some("2147483647"), AtLeast(1), ReadOnly, Acted,
        "Most members of one group of the consumer protocol.";
    "group.consumer.assignors", List, Some("uniform,range"), ListOf(&["uniform", "range"]), ReadOnly, Acted,
        "Server-side assignors, the first being the default.";
    "group.consumer.migration.policy", String, Some("bidirectional"),
        OneOf(&["bidirectional", "upgrade", "downgrade", "disabled"]), ReadOnly, Acted,
        "Which way groups may change between the classic and the consumer protocol.";
    "group.streams.session.timeout.ms", Int, Some("45000"), Any, ReadOnly, Ignored,
        "Session timeout of Streams groups, which ottla does not have yet.";
    "group.streams.min.session.timeout.ms", Int, Some("45000"), Any, ReadOnly, Ignored,
        "Least session timeout of Streams groups, which ottla does not have yet.";
    "group.streams.max.session.timeout.ms", Int, Some("60000"), Any, ReadOnly, Ignored,
        "Greatest session timeout of Streams groups, which ottla does not have yet.";
    "group.streams.heartbeat.interval.ms", Int, Some("5000"), Any, ReadOnly, Ignored,
        "Heartbeat interval of Streams groups, which ottla does not have yet.";
    "group.streams.min.heartbeat.interval.ms", Int, Some("5000"), Any, ReadOnly, Ignored,
        "Least heartbeat interval of Streams groups, which ottla does not have yet.";
    "group.streams.max.heartbeat.interval.ms", Int, Some("15000"), Any, ReadOnly, Ignored,
        "Greatest heartbeat interval of Streams groups, which ottla does not have yet.";
    "group.streams.initial.rebalance.delay.ms", Int, Some("3000"), Any, ReadOnly, Ignored,
        "First wait of Streams groups, which ottla does not have yet.";
    "group.streams.max.size", Int, Some("2147483647"), Any, ReadOnly, Ignored,
        "Most members of a Streams group, which ottla does not have yet.";
    "group.streams.num.standby.replicas", Int, Some("0"), Any, ReadOnly, Ignored,
        "Standby tasks of Streams groups, which ottla does not have yet.";
    "group.streams.max.standby.replicas", Int, Some("2"), Any, ReadOnly, Ignored,
        "Most standby tasks of Streams groups, which ottla does not have yet.";
    "group.share.assignors", List, Some("simple"), Any, ReadOnly, Ignored,
        "Assignors of share groups, which ottla does not have yet.";
    "group.share.session.timeout.ms", Int, Some("45000"), AtLeast(1), ReadOnly, Ignored,
        "Session timeout of share groups, which ottla does not have yet.";
    "group.share.min.session.timeout.ms", Int, Some("45000"), AtLeast(1), ReadOnly, Ignored,
        "Least session timeout of share groups, which ottla does not have yet.";
    "group.share.max.session.timeout.ms", Int, Some("60000"), AtLeast(1), ReadOnly, Ignored,
        "Greatest session timeout of share groups, which ottla does not have yet.";
    "group.share.heartbeat.interval.ms", Int, Some("5000"), AtLeast(1), ReadOnly, Ignored,
        "Heartbeat interval of share groups, which ottla does not have yet.";
    "group.share.min.heartbeat.interval.ms", Int, Some("5000"), AtLeast(1), ReadOnly, Ignored,
        "Least heartbeat interval of share groups, which ottla does not have yet.";
    "group.share.max.heartbeat.interval.ms", Int, Some("15000"), AtLeast(1), ReadOnly, Ignored,
        "Greatest heartbeat interval of share groups, which ottla does not have yet.";
    "group.share.max.size", Int, Some("200"), Between(10, 1000), ReadOnly, Ignored,
        "Most members of a share group, which ottla does not have yet.";
    "group.share.max.share.sessions", Int, Some("2000"), Any, ReadOnly, Ignored,
        "Most share sessions of a broker; ottla has no share groups yet.";
    "group.share.delivery.count.limit", Int, Some("5"), Between(2, 10), ReadOnly, Ignored,
        "Deliveries of a record in a share group, which ottla does not have yet.";
    "group.share.record.lock.duration.ms", Int, Some("30000"), Between(1000, 3600000), ReadOnly, Ignored,
        "Lock of a record in a share group, which ottla does not have yet.";
    "group.share.min.record.lock.duration.ms", Int, Some("15000"), Between(1000, 30000), ReadOnly, Ignored,
        "Least lock of a record in a share group, which ottla does not have yet.";
    "group.share.max.record.lock.duration.ms", Int, Some("60000"), Between(30000, 3600000), ReadOnly, Ignored,
        "Greatest lock of a record in a share group, which ottla does not have yet.";
    "group.share.partition.max.record.locks", Int, Some("2000"), Any, ReadOnly, Ignored,
        "Most locks of a partition in a share group, which ottla does not have yet.";
    "share.coordinator.append.linger.ms", Int, Some("-1"), Any, ReadOnly, Ignored,
        "How long the share coordinator gathers writes; ottla has no share groups yet.";
    "share.coordinator.load.buffer.size", Int, Some("5242880"), AtLeast(1), ReadOnly, Ignored,
        "Bytes that the share coordinator reads at once; ottla has no share groups yet.";
    "share.coordinator.snapshot.update.records.per.snapshot", Int, Some("500"), AtLeast(0), ReadOnly, Ignored,
        "Updates between two share snapshots; ottla has no share groups yet.";
    "share.coordinator.state.topic.compression.codec", Int, Some("0"), Any, ReadOnly, Ignored,
        "Codec of the share state topic; ottla has no share groups yet.";
    "share.coordinator.state.topic.min.isr", Short, Some("2"), AtLeast(1), ReadOnly, Ignored,
        "In-sync replicas of the share state topic; ottla has no share groups yet.";
    "share.coordinator.state.topic.num.partitions", Int, Some("50"), AtLeast(1), ReadOnly, Ignored,
        "Partitions of the share state topic; ottla has no share groups yet.";
    "share.coordinator.state.topic.replication.factor", Short, Some("3"), AtLeast(1), ReadOnly, Ignored,
        "Copies of the share state topic; ottla has no share groups yet.";
    "share.coordinator.state.topic.segment.bytes", Int, Some("104857600"), AtLeast(1), ReadOnly, Ignored,
        "Segment size of the share state topic; ottla has no share groups yet.";
    "share.coordinator.threads", Int, Some("1"), AtLeast(1), ReadOnly, Ignored,
        "Threads of the share coordinator; ottla has no share groups yet.";
    "share.coordinator.write.timeout.ms", Int, Some("5000"), AtLeast(1), ReadOnly, Ignored,
        "Timeout of the share coordinator's writes; ottla has no share groups yet.";
};
