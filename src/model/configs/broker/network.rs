//! Broker config keys: listeners, connections, requests and what a fetch may return.
//!
//! Names, types, defaults and bounds are those a Kafka 4.2 broker answers; the words are our own.

use crate::model::configs::key::{ConfigKey, keys};

/// The keys of this family, by name within each subject.
pub const KEYS: &[ConfigKey] = keys! {
    "listeners", String, None, Any, ReadOnly, Ignored,
        "Addresses that are listened on. ottla: --listen.";
    "advertised.listeners", String, None, Any, ReadOnly, Ignored,
        "Addresses that clients are told. ottla: --advertise.";
    "listener.security.protocol.map", String, Some("PLAINTEXT:PLAINTEXT"), Any, ReadOnly, Ignored,
        "Security protocol of each listener name; ottla's listener is PLAINTEXT.";
    "early.start.listeners", String, None, Any, ReadOnly, Ignored,
        "Listeners that Kafka opens before its authorizer is ready.";
    "socket.send.buffer.bytes", Int, Some("102400"), AtLeast(-1), ReadOnly, Acted,
        "Kernel send buffer of a connection, in bytes; -1 leaves it to the kernel.";
    "socket.receive.buffer.bytes", Int, Some("102400"), AtLeast(-1), ReadOnly, Acted,
        "Kernel receive buffer of a connection, in bytes; -1 leaves it to the kernel.";
    "socket.request.max.bytes", Int, Some("104857600"), AtLeast(1), ReadOnly, Acted,
        "Greatest request frame, in bytes.";
    "socket.listen.backlog.size", Int, Some("50"), AtLeast(1), ReadOnly, Acted,
        "Connections that may wait to be accepted.";
    "max.connections", Int, Some("2147483647"), AtLeast(0), Dynamic, Acted,
        "Connections of the whole node; more are closed at once.";
    "max.connections.per.ip", Int, Some("2147483647"), AtLeast(0), Dynamic, Acted,
        "Connections from one address; more are closed at once.";
    "max.connections.per.ip.overrides", String, Some(""), Any, Dynamic, Ignored,
        "Other bounds for single addresses, as address:count,...";
    "max.connection.creation.rate", Int, Some("2147483647"), AtLeast(0), Dynamic, Ignored,
        "New connections per second.";
    "connections.max.idle.ms", Long, Some("600000"), Any, ReadOnly, Acted,
        "A connection without a request for this long is closed, in milliseconds; negative: never.";
    "connection.failed.authentication.delay.ms", Int, Some("100"), AtLeast(0), ReadOnly, Ignored,
        "Pause before a failed authentication is answered.";
    "queued.max.requests", Int, Some("500"), AtLeast(1), ReadOnly, Ignored,
        "Kafka's bound of its request queue; ottla bounds requests in flight by connection.";
    "queued.max.request.bytes", Long, Some("-1"), Any, ReadOnly, Ignored,
        "Kafka's bound of queued request bytes; ottla budgets receive buffers by shard.";
    "num.network.threads", Int, Some("3"), AtLeast(1), Dynamic, Ignored,
        "Kafka's network threads; ottla has one thread per shard: --shards.";
    "num.io.threads", Int, Some("8"), AtLeast(1), Dynamic, Ignored,
        "Kafka's request threads; ottla has one thread per shard: --shards.";
    "background.threads", Int, Some("10"), AtLeast(1), Dynamic, Ignored,
        "Kafka's background threads; ottla has one thread per shard: --shards.";
    "num.replica.alter.log.dirs.threads", Int, None, Any, ReadOnly, Ignored,
        "Kafka's threads that move replicas between directories; ottla has one directory.";
    "request.timeout.ms", Int, Some("30000"), Any, ReadOnly, Ignored,
        "How long Kafka's brokers wait for one another.";
    "socket.connection.setup.timeout.ms", Long, Some("10000"), Any, ReadOnly, Ignored,
        "How long Kafka's brokers wait for a connection to one another.";
    "socket.connection.setup.timeout.max.ms", Long, Some("30000"), Any, ReadOnly, Ignored,
        "Greatest wait for a connection between Kafka's brokers.";
    "fetch.max.bytes", Int, Some("57671680"), AtLeast(1024), ReadOnly, Acted,
        "Most bytes that one fetch returns. Default: 55 MiB divided by the shards, each being a broker to clients.";
    "max.incremental.fetch.session.cache.slots", Int, Some("1000"), AtLeast(0), ReadOnly, Acted,
        "Fetch sessions that are remembered on the node; 0 refuses sessions.";
    "max.request.partition.size.limit", Int, Some("2000"), AtLeast(1), ReadOnly, Acted,
        "Most partitions that one DescribeTopicPartitions returns.";
    "fetch.purgatory.purge.interval.requests", Int, Some("1000"), Any, ReadOnly, Ignored,
        "How often Kafka tidies its waiting fetches; ottla's waiters leave at once.";
    "producer.purgatory.purge.interval.requests", Int, Some("1000"), Any, ReadOnly, Ignored,
        "How often Kafka tidies its waiting produces; ottla's waiters leave at once.";
    "delete.records.purgatory.purge.interval.requests", Int, Some("1"), Any, ReadOnly, Ignored,
        "How often Kafka tidies its waiting DeleteRecords; ottla's waiters leave at once.";
    "share.fetch.purgatory.purge.interval.requests", Int, Some("1000"), Any, ReadOnly, Ignored,
        "How often Kafka tidies its waiting share fetches.";
};
