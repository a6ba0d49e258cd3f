//! Broker config keys: the log: segments, retention, flushing, compaction.
//!
//! Names, types, defaults and bounds are those a Kafka 4.2 broker answers; the words are our own.

use crate::model::configs::key::{ConfigKey, keys};

/// The keys of this family, by name within each subject.
pub const KEYS: &[ConfigKey] = keys! {
    "num.partitions", Int, Some("1"), AtLeast(1), ReadOnly, Acted,
        "Partitions of a topic that is created without saying how many.";
    "auto.create.topics.enable", Boolean, Some("true"), Any, ReadOnly, Acted,
        "Create a topic when a client asks for the metadata of a name that does not exist and allows it.";
    "delete.topic.enable", Boolean, Some("true"), Any, ReadOnly, Acted,
        "Allow DeleteTopics.";
    "default.replication.factor", Int, Some("1"), AtLeast(1), ReadOnly, Acted,
        "Replication factor of a topic created with -1. One node keeps one copy: see ottla.replication.factor.policy.";
    "min.insync.replicas", Int, Some("1"), AtLeast(1), Dynamic, Acted,
        "Replicas that must have a batch before acks=all is answered; capped at the replicas that exist.";
    "message.max.bytes", Int, Some("1048588"), AtLeast(0), Dynamic, Acted,
        "Greatest record batch that is accepted, compressed, in bytes. Topics: max.message.bytes.";
    "compression.type", String, Some("producer"),
        OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]), Dynamic, Acted,
        "Codec of stored batches; producer: as they came. Batches of another one are recompressed by the broker.";
    "compression.gzip.level", Int, Some("-1"), Between(-1, 9), Dynamic, Acted,
        "Level for compression.type=gzip.";
    "compression.lz4.level", Int, Some("9"), Between(1, 17), Dynamic, Ignored,
        "Level for compression.type=lz4; ottla has one speed.";
    "compression.zstd.level", Int, Some("3"), Between(-131072, 22), Dynamic, Acted,
        "Level for compression.type=zstd.";
    "log.dir", String, None, Any, ReadOnly, Ignored,
        "Where Kafka keeps its logs. ottla: --data-dir.";
    "log.dirs", String, None, Any, ReadOnly, Ignored,
        "Where Kafka keeps its logs, as a list. ottla has one data directory: --data-dir.";
    "log.dir.failure.timeout.ms", Long, Some("30000"), AtLeast(1), ReadOnly, Ignored,
        "Kafka stops when it cannot report a failed directory; ottla has one directory and takes partitions offline.";
    "log.segment.bytes", Int, Some("134217728"), AtLeast(1048576), Dynamic, Acted,
        "Size at which a segment is closed, in bytes.";
    "log.roll.ms", Long, None, AtLeast(1), Dynamic, Acted,
        "Age at which a segment is closed, in milliseconds; unset: log.roll.hours.";
    "log.roll.hours", Int, Some("168"), AtLeast(1), ReadOnly, Acted,
        "Age at which a segment is closed, in hours, unless log.roll.ms is set.";
    "log.roll.jitter.ms", Long, None, AtLeast(0), Dynamic, Ignored,
        "Random part taken off log.roll.ms; ottla closes segments without jitter.";
    "log.roll.jitter.hours", Int, Some("0"), AtLeast(0), ReadOnly, Ignored,
        "Random part taken off log.roll.hours; ottla closes segments without jitter.";
    "log.retention.ms", Long, None, AtLeast(-1), Dynamic, Acted,
        "How long records are kept, in milliseconds; -1 for ever; unset: log.retention.minutes.";
    "log.retention.minutes", Int, None, AtLeast(-1), ReadOnly, Acted,
        "How long records are kept, in minutes, unless log.retention.ms is set; unset: log.retention.hours.";
    "log.retention.hours", Int, Some("168"), AtLeast(-1), ReadOnly, Acted,
        "How long records are kept, in hours, unless minutes or milliseconds are set.";
    "log.retention.bytes", Long, Some("-1"), Any, Dynamic, Acted,
        "Size to which each partition is trimmed, in bytes; -1 does not limit it.";
    "log.retention.check.interval.ms", Long, Some("300000"), AtLeast(1), ReadOnly, Acted,
        "How often retention is looked at, in milliseconds.";
    "log.cleanup.policy", List, Some("delete"), ListOf(&["compact", "delete"]), Dynamic, Acted,
        "What happens to old segments: delete, compact or both.";
    "log.segment.delete.delay.ms", Long, Some("60000"), AtLeast(0), Dynamic, Ignored,
        "Kafka waits this long before it unlinks a segment; ottla reuses or unlinks it when the last reader is done.";
    "log.preallocate", Boolean, Some("false"), Any, Dynamic, Ignored,
        "Allocate a whole segment when it is created; ottla prepares space in steps: ottla.prepare.";
    "log.index.interval.bytes", Int, Some("4096"), AtLeast(0), Dynamic, Acted,
        "Bytes of log between two entries of the offset index.";
    "log.index.size.max.bytes", Int, Some("10485760"), AtLeast(4), Dynamic, Ignored,
        "Bound of Kafka's index files; ottla's index is as large as its segment needs.";
    "log.flush.interval.messages", Long, Some("9223372036854775807"), AtLeast(1), Dynamic, Acted,
        "Records that may be unsynced under ottla.ack.after=write or memory; 1 means sync.";
    "log.flush.interval.ms", Long, None, AtLeast(0), Dynamic, Acted,
        "Milliseconds a record may be unsynced under ottla.ack.after=write or memory; 0 means sync.";
    "log.flush.scheduler.interval.ms", Long, Some("9223372036854775807"), AtLeast(0), ReadOnly, Acted,
        "Value of log.flush.interval.ms where that is unset.";
    "log.flush.offset.checkpoint.interval.ms", Int, Some("60000"), AtLeast(0), ReadOnly, Ignored,
        "How often Kafka writes recovery checkpoints; ottla writes one when a segment is closed.";
    "log.flush.start.offset.checkpoint.interval.ms", Int, Some("60000"), AtLeast(0), ReadOnly, Ignored,
        "How often Kafka writes log start offsets; ottla writes them before it reuses a segment.";
    "log.message.timestamp.type", String, Some("CreateTime"), OneOf(&["CreateTime", "LogAppendTime"]), Dynamic, Acted,
        "Whose time a record carries: CreateTime (its producer's) or LogAppendTime (the broker's).";
    "log.message.timestamp.before.max.ms", Long, Some("9223372036854775807"), AtLeast(0), Dynamic, Acted,
        "How far a record's time may lie before the broker's, in milliseconds.";
    "log.message.timestamp.after.max.ms", Long, Some("3600000"), AtLeast(0), Dynamic, Acted,
        "How far a record's time may lie after the broker's, in milliseconds.";
    "log.cleaner.enable", Boolean, Some("true"), Any, ReadOnly, Acted,
        "Compact topics whose cleanup.policy says so.";
    "log.cleaner.threads", Int, Some("1"), AtLeast(0), Dynamic, Ignored,
        "Kafka's compaction threads; ottla compacts on the shard that owns the partition.";
    "log.cleaner.io.max.bytes.per.second", Double, Some("1.7976931348623157E308"), Any, ReadOnly, Acted,
        "Bytes that compaction may read and write in a second, of all shards together.";
    "log.cleaner.dedupe.buffer.size", Long, Some("134217728"), Any, ReadOnly, Acted,
        "Memory of compaction's map of keys, 24 bytes a key, of all shards together; taken while it is used.";
    "log.cleaner.io.buffer.size", Int, Some("524288"), AtLeast(0), Dynamic, Ignored,
        "Memory of Kafka's compaction reads and writes.";
    "log.cleaner.io.buffer.load.factor", Double, Some("0.9"), Any, ReadOnly, Acted,
        "How full compaction's map of keys may get.";
    "log.cleaner.backoff.ms", Long, Some("15000"), AtLeast(0), ReadOnly, Acted,
        "How often compaction looks for work when it found none, in milliseconds.";
    "log.cleaner.min.cleanable.ratio", Double, Some("0.5"), Fraction(0.0, 1.0), Dynamic, Acted,
        "Share of a log that must be uncompacted before compaction starts.";
    "log.cleaner.delete.retention.ms", Long, Some("86400000"), AtLeast(0), Dynamic, Acted,
        "How long a tombstone stays after compaction, in milliseconds.";
    "log.cleaner.min.compaction.lag.ms", Long, Some("0"), AtLeast(0), Dynamic, Acted,
        "A record is not compacted before this age, in milliseconds.";
    "log.cleaner.max.compaction.lag.ms", Long, Some("9223372036854775807"), AtLeast(1), Dynamic, Acted,
        "A record is compacted at this age at the latest, in milliseconds.";
    "num.recovery.threads.per.data.dir", Int, Some("2"), AtLeast(1), Dynamic, Ignored,
        "Kafka's threads for recovery; ottla recovers each partition on its shard.";
    "create.topic.policy.class.name", Class, None, Any, ReadOnly, Ignored,
        "A Java class that judges new topics; ottla runs no Java.";
    "alter.config.policy.class.name", Class, None, Any, ReadOnly, Ignored,
        "A Java class that judges changed configs; ottla runs no Java.";
};
