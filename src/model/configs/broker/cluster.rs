//! Broker config keys: nodes, controller, replication, quotas and metrics.
//!
//! Names, types, defaults and bounds are those a Kafka 4.2 broker answers; the words are our own.

use crate::model::configs::key::{ConfigKey, keys};

/// The keys of this family, by name within each subject.
pub const KEYS: &[ConfigKey] = keys! {
    "broker.id", Int, Some("-1"), Any, ReadOnly, Ignored,
        "The broker's id. ottla: node id * 1000 + shard + 1.";
    "node.id", Int, Some("-1"), Any, ReadOnly, Ignored,
        "The node's id. ottla: --node-id.";
    "broker.rack", String, None, Any, ReadOnly, Ignored,
        "The broker's rack. ottla names its node, for its shards fail together.";
    "process.roles", List, Some(""), Any, ReadOnly, Ignored,
        "What a KRaft node does; every ottla node is broker and controller.";
    "controlled.shutdown.enable", Boolean, Some("true"), Any, ReadOnly, Ignored,
        "Hand leadership over before stopping; one node has nobody to hand it to.";
    "broker.heartbeat.interval.ms", Int, Some("2000"), Any, ReadOnly, Ignored,
        "How often Kafka's brokers report to the controller.";
    "broker.session.timeout.ms", Int, Some("9000"), Any, ReadOnly, Ignored,
        "When Kafka's controller gives a silent broker up.";
    "initial.broker.registration.timeout.ms", Int, Some("60000"), Any, ReadOnly, Ignored,
        "How long a Kafka broker tries to register when it starts.";
    "controller.listener.names", String, None, Any, ReadOnly, Ignored,
        "Listeners of Kafka's controllers.";
    "controller.socket.timeout.ms", Int, Some("30000"), Any, ReadOnly, Ignored,
        "Timeout of Kafka's controller channel.";
    "controller.quorum.voters", List, Some(""), Any, ReadOnly, Ignored,
        "Voters of Kafka's metadata quorum; one ottla node is its own.";
    "controller.quorum.bootstrap.servers", List, Some(""), Any, ReadOnly, Ignored,
        "Where Kafka finds its metadata quorum.";
    "controller.quorum.auto.join.enable", Boolean, Some("false"), Any, ReadOnly, Ignored,
        "Whether a Kafka controller joins the quorum by itself.";
    "controller.quorum.election.timeout.ms", Int, Some("1000"), Any, ReadOnly, Ignored,
        "When Kafka's quorum starts an election.";
    "controller.quorum.fetch.timeout.ms", Int, Some("2000"), Any, ReadOnly, Ignored,
        "When a follower of Kafka's quorum gives its leader up.";
    "controller.quorum.election.backoff.max.ms", Int, Some("1000"), Any, ReadOnly, Ignored,
        "Greatest pause between elections of Kafka's quorum.";
    "controller.quorum.append.linger.ms", Int, Some("25"), Any, ReadOnly, Ignored,
        "How long Kafka's quorum gathers metadata records; ottla gathers while one write is in flight.";
    "controller.quorum.request.timeout.ms", Int, Some("2000"), Any, ReadOnly, Ignored,
        "Timeout of a request within Kafka's quorum.";
    "controller.quorum.retry.backoff.ms", Int, Some("20"), Any, ReadOnly, Ignored,
        "Pause before a request within Kafka's quorum is repeated.";
    "metadata.log.dir", String, None, Any, ReadOnly, Ignored,
        "Where Kafka keeps its metadata log. ottla: meta/ in the data directory.";
    "metadata.log.max.record.bytes.between.snapshots", Long, Some("20971520"), AtLeast(1), ReadOnly, Ignored,
        "Bytes of metadata log between two snapshots of Kafka.";
    "metadata.log.max.snapshot.interval.ms", Long, Some("3600000"), AtLeast(0), ReadOnly, Ignored,
        "Longest time between two metadata snapshots of Kafka.";
    "metadata.log.segment.bytes", Int, Some("1073741824"), AtLeast(12), ReadOnly, Ignored,
        "Segment size of Kafka's metadata log.";
    "metadata.log.segment.ms", Long, Some("604800000"), Any, ReadOnly, Ignored,
        "Segment age of Kafka's metadata log.";
    "metadata.max.retention.bytes", Long, Some("104857600"), Any, ReadOnly, Ignored,
        "Size to which Kafka trims its metadata log.";
    "metadata.max.retention.ms", Long, Some("604800000"), Any, ReadOnly, Ignored,
        "Age to which Kafka trims its metadata log.";
    "metadata.max.idle.interval.ms", Int, Some("500"), AtLeast(0), ReadOnly, Ignored,
        "How often an idle Kafka controller writes a record.";
    "security.inter.broker.protocol", String, Some("PLAINTEXT"), Any, ReadOnly, Ignored,
        "Security protocol between Kafka's brokers.";
    "inter.broker.listener.name", String, None, Any, ReadOnly, Ignored,
        "Listener that Kafka's brokers use with one another.";
    "auto.leader.rebalance.enable", Boolean, Some("true"), Any, ReadOnly, Ignored,
        "Move leadership back to preferred replicas; with one copy the leader is always preferred.";
    "leader.imbalance.check.interval.seconds", Long, Some("300"), AtLeast(1), ReadOnly, Ignored,
        "How often Kafka looks at the balance of leaders.";
    "unclean.leader.election.enable", Boolean, Some("false"), Any, Dynamic, Ignored,
        "Let a replica lead that lacks acknowledged records; with one copy there is none.";
    "replica.lag.time.max.ms", Long, Some("30000"), Any, ReadOnly, Ignored,
        "When a silent follower leaves the in-sync set.";
    "replica.socket.timeout.ms", Int, Some("30000"), Any, ReadOnly, Ignored,
        "Timeout of a follower's requests.";
    "replica.socket.receive.buffer.bytes", Int, Some("65536"), Any, ReadOnly, Ignored,
        "Receive buffer of a follower.";
    "replica.fetch.max.bytes", Int, Some("1048576"), AtLeast(0), ReadOnly, Ignored,
        "Bytes per partition that a follower asks for.";
    "replica.fetch.wait.max.ms", Int, Some("500"), Any, ReadOnly, Ignored,
        "How long a follower's fetch may wait.";
    "replica.fetch.backoff.ms", Int, Some("1000"), AtLeast(0), ReadOnly, Ignored,
        "Pause of a follower after an error.";
    "replica.fetch.min.bytes", Int, Some("1"), Any, ReadOnly, Ignored,
        "Bytes that a follower's fetch waits for.";
    "replica.fetch.response.max.bytes", Int, Some("10485760"), AtLeast(0), ReadOnly, Ignored,
        "Bytes that a follower's fetch may return.";
    "num.replica.fetchers", Int, Some("1"), Any, Dynamic, Ignored,
        "Threads that fetch from a leader.";
    "replica.high.watermark.checkpoint.interval.ms", Long, Some("5000"), Any, ReadOnly, Ignored,
        "How often Kafka writes its high watermarks; on one node it is the durable offset.";
    "replica.selector.class", String, None, Any, ReadOnly, Ignored,
        "A Java class that chooses the replica to read from; ottla runs no Java.";
    "quota.window.num", Int, Some("11"), AtLeast(1), ReadOnly, Ignored,
        "Samples of client quotas; ottla has no quotas yet.";
    "quota.window.size.seconds", Int, Some("1"), AtLeast(1), ReadOnly, Ignored,
        "Length of a client quota's sample; ottla has no quotas yet.";
    "replication.quota.window.num", Int, Some("11"), AtLeast(1), ReadOnly, Ignored,
        "Samples of replication quotas; ottla has no quotas yet.";
    "replication.quota.window.size.seconds", Int, Some("1"), AtLeast(1), ReadOnly, Ignored,
        "Length of a replication quota's sample; ottla has no quotas yet.";
    "alter.log.dirs.replication.quota.window.num", Int, Some("11"), AtLeast(1), ReadOnly, Ignored,
        "Samples of the quota for moves between directories; ottla has one directory.";
    "alter.log.dirs.replication.quota.window.size.seconds", Int, Some("1"), AtLeast(1), ReadOnly, Ignored,
        "Length of a sample of the quota for moves between directories; ottla has one.";
    "controller.quota.window.num", Int, Some("11"), AtLeast(1), ReadOnly, Ignored,
        "Samples of controller quotas; ottla has no quotas yet.";
    "controller.quota.window.size.seconds", Int, Some("1"), AtLeast(1), ReadOnly, Ignored,
        "Length of a controller quota's sample; ottla has no quotas yet.";
    "client.quota.callback.class", Class, None, Any, ReadOnly, Ignored,
        "A Java class that decides quotas; ottla runs no Java.";
    "metrics.num.samples", Int, Some("2"), AtLeast(1), ReadOnly, Ignored,
        "Samples of Kafka's metrics.";
    "metrics.sample.window.ms", Long, Some("30000"), AtLeast(1), ReadOnly, Ignored,
        "Length of a sample of Kafka's metrics.";
    "metrics.recording.level", String, Some("INFO"), Any, ReadOnly, Ignored,
        "How much Kafka's metrics record.";
    "metric.reporters", List, Some("org.apache.kafka.common.metrics.JmxReporter"), Any, Dynamic, Ignored,
        "Java classes that report metrics; ottla runs no Java.";
    "kafka.metrics.reporters", List, Some(""), Any, ReadOnly, Ignored,
        "Java classes that report Kafka's older metrics; ottla runs no Java.";
    "kafka.metrics.polling.interval.secs", Int, Some("10"), AtLeast(1), ReadOnly, Ignored,
        "How often Kafka's older metrics are polled.";
    "telemetry.max.bytes", Int, Some("1048576"), AtLeast(1), ReadOnly, Ignored,
        "Greatest client telemetry that Kafka takes; ottla takes none yet.";
    "config.providers", List, Some(""), Any, Dynamic, Ignored,
        "Java classes that resolve values in configs; ottla runs no Java.";
};
