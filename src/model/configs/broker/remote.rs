//! Broker config keys: tiered storage, which ottla does not have.
//!
//! Names, types, defaults and bounds are those a Kafka 4.2 broker answers; the words are our own.

use crate::model::configs::key::{ConfigKey, keys};

/// The keys of this family, by name within each subject.
pub const KEYS: &[ConfigKey] = keys! {
    "remote.log.storage.system.enable", Boolean, Some("false"), Any, ReadOnly, Unsupported,
        "Tiered storage.";
    "remote.log.storage.manager.class.name", String, None, Any, ReadOnly, Ignored,
        "Tiered storage: a Java class.";
    "remote.log.storage.manager.class.path", String, None, Any, ReadOnly, Ignored,
        "Tiered storage: where a Java class is.";
    "remote.log.storage.manager.impl.prefix", String, Some("rsm.config."), Any, ReadOnly, Ignored,
        "Tiered storage: prefix of a Java class's configs.";
    "remote.log.metadata.manager.class.name", String,
        Some("org.apache.kafka.server.log.remote.metadata.storage.TopicBasedRemoteLogMetadataManager"), Any, ReadOnly, Ignored,
        "Tiered storage: a Java class.";
    "remote.log.metadata.manager.class.path", String, None, Any, ReadOnly, Ignored,
        "Tiered storage: where a Java class is.";
    "remote.log.metadata.manager.impl.prefix", String, Some("rlmm.config."), Any, ReadOnly, Ignored,
        "Tiered storage: prefix of a Java class's configs.";
    "remote.log.metadata.manager.listener.name", String, None, Any, ReadOnly, Ignored,
        "Tiered storage: listener of its metadata.";
    "remote.log.metadata.custom.metadata.max.bytes", Int, Some("128"), AtLeast(0), ReadOnly, Ignored,
        "Tiered storage: size of its custom metadata.";
    "remote.log.index.file.cache.total.size.bytes", Long, Some("1073741824"), AtLeast(1), Dynamic, Ignored,
        "Tiered storage: index cache.";
    "remote.log.manager.thread.pool.size", Int, Some("2"), Any, ReadOnly, Ignored,
        "Tiered storage: threads.";
    "remote.log.manager.copier.thread.pool.size", Int, Some("10"), Any, Dynamic, Ignored,
        "Tiered storage: threads that copy.";
    "remote.log.manager.expiration.thread.pool.size", Int, Some("10"), Any, Dynamic, Ignored,
        "Tiered storage: threads that expire.";
    "remote.log.manager.follower.thread.pool.size", Int, Some("2"), Any, Dynamic, Ignored,
        "Tiered storage: threads of followers.";
    "remote.log.manager.task.interval.ms", Long, Some("30000"), AtLeast(1), ReadOnly, Ignored,
        "Tiered storage: how often it runs.";
    "remote.log.manager.copy.max.bytes.per.second", Long, Some("9223372036854775807"), AtLeast(1), Dynamic, Ignored,
        "Tiered storage: bound on copying.";
    "remote.log.manager.copy.quota.window.num", Int, Some("11"), AtLeast(1), ReadOnly, Ignored,
        "Tiered storage: samples of the copy quota.";
    "remote.log.manager.copy.quota.window.size.seconds", Int, Some("1"), AtLeast(1), ReadOnly, Ignored,
        "Tiered storage: length of a sample of the copy quota.";
    "remote.log.manager.fetch.max.bytes.per.second", Long, Some("9223372036854775807"), AtLeast(1), Dynamic, Ignored,
        "Tiered storage: bound on fetching.";
    "remote.log.manager.fetch.quota.window.num", Int, Some("11"), AtLeast(1), ReadOnly, Ignored,
        "Tiered storage: samples of the fetch quota.";
    "remote.log.manager.fetch.quota.window.size.seconds", Int, Some("1"), AtLeast(1), ReadOnly, Ignored,
        "Tiered storage: length of a sample of the fetch quota.";
    "remote.log.reader.threads", Int, Some("10"), AtLeast(1), Dynamic, Ignored,
        "Tiered storage: threads that read.";
    "remote.log.reader.max.pending.tasks", Int, Some("100"), AtLeast(1), ReadOnly, Ignored,
        "Tiered storage: reads that may wait.";
    "remote.fetch.max.wait.ms", Int, Some("500"), AtLeast(1), Dynamic, Ignored,
        "Tiered storage: how long a fetch may wait.";
    "remote.list.offsets.request.timeout.ms", Long, Some("30000"), AtLeast(1), Dynamic, Ignored,
        "Tiered storage: timeout of ListOffsets.";
    "log.local.retention.ms", Long, Some("-2"), AtLeast(-2), Dynamic, Ignored,
        "Tiered storage: how long records stay local; -2 is log.retention.ms.";
    "log.local.retention.bytes", Long, Some("-2"), AtLeast(-2), Dynamic, Ignored,
        "Tiered storage: bytes that stay local; -2 is log.retention.bytes.";
};
