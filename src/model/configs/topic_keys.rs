//! Every topic config key: Kafka 4.x's list and ottla's own, each with the broker configs that give its default.
//!
//! Synonyms are in order of strength: the first one that is set wins, and if none is, the first that has a default.
//! A synonym in minutes or hours is converted by its factor; a negative number means "no limit" in every unit and is
//! not converted.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use crate::model::configs::key::{ConfigError, ConfigKey, keys, unknown_key};

const MINUTE_MS: i64 = 60 * 1000;
const HOUR_MS: i64 = 60 * MINUTE_MS;

/// A broker config that a topic config takes its default from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Synonym {
    /// The broker config's name.
    pub broker_key: &'static str,
    /// What a value of it is multiplied with to be in the topic config's unit.
    pub factor: i64,
}

/// One row: the key itself and where its default comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TopicKey {
    /// The key; its default counts only without synonyms.
    pub key: &'static ConfigKey,
    /// The broker configs behind it, strongest first.
    pub synonyms: &'static [Synonym],
}

const KEYS: &[ConfigKey] = keys! {
    "cleanup.policy", List, Some("delete"), ListOf(&["compact", "delete"]), Dynamic, Acted,
        "What happens to old segments: delete, compact or both.";
    "compression.gzip.level", Int, Some("-1"), Between(-1, 9), Dynamic, Acted,
        "Level for compression.type=gzip.";
    "compression.lz4.level", Int, Some("9"), Between(1, 17), Dynamic, Ignored,
        "Level for compression.type=lz4; ottla has one speed.";
    "compression.type", String, Some("producer"),
        OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]), Dynamic, Acted,
        "Codec of stored batches; producer: as they came. Batches of another one are recompressed by the broker.";
    "compression.zstd.level", Int, Some("3"), Between(-131072, 22), Dynamic, Acted,
        "Level for compression.type=zstd.";
    "delete.retention.ms", Long, Some("86400000"), AtLeast(0), Dynamic, Acted,
        "How long a tombstone stays after compaction, in milliseconds.";
    "file.delete.delay.ms", Long, Some("60000"), AtLeast(0), Dynamic, Ignored,
        "Kafka waits this long before it unlinks a segment; ottla reuses or unlinks it when the last reader is done.";
    "flush.messages", Long, Some("9223372036854775807"), AtLeast(1), Dynamic, Acted,
        "Records that may be unsynced under ottla.ack.after=write or memory; 1 means sync. No effect under sync.";
    "flush.ms", Long, Some("9223372036854775807"), AtLeast(0), Dynamic, Acted,
        "Milliseconds a record may be unsynced under ottla.ack.after=write or memory; 0 means sync.";
    "follower.replication.throttled.replicas", List, Some(""), Any, Dynamic, Ignored,
        "Replicas whose following is throttled; one node has no followers.";
    "index.interval.bytes", Int, Some("4096"), AtLeast(0), Dynamic, Acted,
        "Bytes of log between two entries of the offset index.";
    "leader.replication.throttled.replicas", List, Some(""), Any, Dynamic, Ignored,
        "Replicas whose leading is throttled; one node has no followers.";
    "local.retention.bytes", Long, Some("-2"), AtLeast(-2), Dynamic, Ignored,
        "Tiered storage, which ottla does not have: bytes that stay local; -2 is retention.bytes.";
    "local.retention.ms", Long, Some("-2"), AtLeast(-2), Dynamic, Ignored,
        "Tiered storage, which ottla does not have: how long records stay local; -2 is retention.ms.";
    "max.compaction.lag.ms", Long, Some("9223372036854775807"), AtLeast(1), Dynamic, Acted,
        "A record is compacted at this age at the latest, in milliseconds.";
    "max.message.bytes", Int, Some("1048588"), AtLeast(0), Dynamic, Acted,
        "Greatest record batch that is accepted, compressed, in bytes.";
    "message.timestamp.after.max.ms", Long, Some("3600000"), AtLeast(0), Dynamic, Acted,
        "How far a record's time may lie after the broker's, in milliseconds.";
    "message.timestamp.before.max.ms", Long, Some("9223372036854775807"), AtLeast(0), Dynamic, Acted,
        "How far a record's time may lie before the broker's, in milliseconds.";
    "message.timestamp.type", String, Some("CreateTime"), OneOf(&["CreateTime", "LogAppendTime"]), Dynamic, Acted,
        "Whose time a record carries: CreateTime (its producer's) or LogAppendTime (the broker's).";
    "min.cleanable.dirty.ratio", Double, Some("0.5"), Fraction(0.0, 1.0), Dynamic, Acted,
        "Share of a log that must be uncompacted before compaction starts.";
    "min.compaction.lag.ms", Long, Some("0"), AtLeast(0), Dynamic, Acted,
        "A record is not compacted before this age, in milliseconds.";
    "min.insync.replicas", Int, Some("1"), AtLeast(1), Dynamic, Acted,
        "Replicas that must have a batch before acks=all is answered; capped at the replicas that exist.";
    "ottla.ack.after", String, Some("sync"), OneOf(&["sync", "write", "memory"]), Dynamic, Acted,
        "When acks=1 and acks=all are answered: sync (durable), write (the write completed), memory (staged).";
    "ottla.validate", String, Some("header"), OneOf(&["header", "records"]), Dynamic, Acted,
        "How much of a batch is checked: header (CRC and header), records (decompressed and walked too).";
    "preallocate", Boolean, Some("false"), Any, Dynamic, Ignored,
        "Allocate a whole segment when it is created; ottla prepares space in steps: ottla.prepare.";
    "remote.log.copy.disable", Boolean, Some("false"), Any, Dynamic, Ignored,
        "Tiered storage, which ottla does not have: stop copying.";
    "remote.log.delete.on.disable", Boolean, Some("false"), Any, Dynamic, Ignored,
        "Tiered storage, which ottla does not have: delete what was copied when it is switched off.";
    "remote.storage.enable", Boolean, Some("false"), Any, Dynamic, Unsupported,
        "Tiered storage, which ottla does not have.";
    "retention.bytes", Long, Some("-1"), Any, Dynamic, Acted,
        "Size to which each partition is trimmed, in bytes; negative: not limited.";
    "retention.ms", Long, Some("604800000"), AtLeast(-1), Dynamic, Acted,
        "How long records are kept, in milliseconds; -1 for ever.";
    "segment.bytes", Int, Some("134217728"), AtLeast(1048576), Dynamic, Acted,
        "Size at which a segment is closed, in bytes.";
    "segment.index.bytes", Int, Some("10485760"), AtLeast(4), Dynamic, Ignored,
        "Bound of Kafka's index files; ottla's index is as large as its segment needs.";
    "segment.jitter.ms", Long, Some("0"), AtLeast(0), Dynamic, Ignored,
        "Random part taken off segment.ms; ottla closes segments without jitter.";
    "segment.ms", Long, Some("604800000"), AtLeast(1), Dynamic, Acted,
        "Age at which a segment is closed, in milliseconds.";
    "unclean.leader.election.enable", Boolean, Some("false"), Any, Dynamic, Ignored,
        "Let a replica lead that lacks acknowledged records; with one copy there is none.";
};

/// Writes the table of synonyms: `"topic key": "broker key" * factor, ...;` per row, strongest first.
macro_rules! synonyms {
    ($($topic_key:literal: $($broker_key:literal $(* $factor:ident)?),+;)*) => {
        &[$(($topic_key, &[$(Synonym { broker_key: $broker_key, factor: 1 $(* $factor)? }),+])),*]
    };
}

/// The broker configs behind each topic config. What has none has the default of its own row.
const SYNONYMS: &[(&str, &[Synonym])] = synonyms! {
    "cleanup.policy": "log.cleanup.policy";
    "compression.gzip.level": "compression.gzip.level";
    "compression.lz4.level": "compression.lz4.level";
    "compression.type": "compression.type";
    "compression.zstd.level": "compression.zstd.level";
    "delete.retention.ms": "log.cleaner.delete.retention.ms";
    "file.delete.delay.ms": "log.segment.delete.delay.ms";
    "flush.messages": "log.flush.interval.messages";
    "flush.ms": "log.flush.interval.ms", "log.flush.scheduler.interval.ms";
    "index.interval.bytes": "log.index.interval.bytes";
    "local.retention.bytes": "log.local.retention.bytes";
    "local.retention.ms": "log.local.retention.ms";
    "max.compaction.lag.ms": "log.cleaner.max.compaction.lag.ms";
    "max.message.bytes": "message.max.bytes";
    "message.timestamp.after.max.ms": "log.message.timestamp.after.max.ms";
    "message.timestamp.before.max.ms": "log.message.timestamp.before.max.ms";
    "message.timestamp.type": "log.message.timestamp.type";
    "min.cleanable.dirty.ratio": "log.cleaner.min.cleanable.ratio";
    "min.compaction.lag.ms": "log.cleaner.min.compaction.lag.ms";
    "min.insync.replicas": "min.insync.replicas";
    "ottla.ack.after": "ottla.ack.after";
    "ottla.validate": "ottla.validate";
    "preallocate": "log.preallocate";
    "retention.bytes": "log.retention.bytes";
    "retention.ms": "log.retention.ms", "log.retention.minutes" * MINUTE_MS, "log.retention.hours" * HOUR_MS;
    "segment.bytes": "log.segment.bytes";
    "segment.index.bytes": "log.index.size.max.bytes";
    "segment.jitter.ms": "log.roll.jitter.ms", "log.roll.jitter.hours" * HOUR_MS;
    "segment.ms": "log.roll.ms", "log.roll.hours" * HOUR_MS;
    "unclean.leader.election.enable": "unclean.leader.election.enable";
};

/// A view of the constant tables, made once: it never changes, so threads may share it.
static BY_NAME: LazyLock<BTreeMap<&'static str, TopicKey>> = LazyLock::new(|| {
    let synonyms: BTreeMap<_, _> = SYNONYMS.iter().copied().collect();
    let row = |key: &'static ConfigKey| TopicKey { key, synonyms: synonyms.get(key.name).copied().unwrap_or(&[]) };
    KEYS.iter().map(|key| (key.name, row(key))).collect()
});

/// Every key, by name.
pub fn all() -> impl Iterator<Item = &'static TopicKey> {
    BY_NAME.values()
}

/// The key called `name`, or an error that suggests what may have been meant.
pub fn find(name: &str) -> Result<&'static TopicKey, ConfigError> {
    BY_NAME.get(name).ok_or_else(|| unknown_key(name, BY_NAME.keys().copied()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::configs::broker;

    #[test]
    fn every_default_passes_its_own_check() {
        for TopicKey { key, .. } in all() {
            let default = key.default.expect("topic configs have defaults");
            assert_eq!(key.check(default), Ok(default), "{}", key.name);
        }
        assert_eq!(all().count(), KEYS.len());
        assert!(SYNONYMS.iter().all(|(name, _)| find(name).is_ok()));
    }

    #[test]
    fn a_topic_default_is_what_its_broker_configs_say() {
        for TopicKey { key, synonyms } in all().filter(|row| !row.synonyms.is_empty()) {
            let from_broker = synonyms.iter().find_map(|synonym| {
                let default = broker::find(synonym.broker_key).expect("a synonym is a broker config").default?;
                Some(match default.parse::<i64>() {
                    Ok(number) if synonym.factor != 1 => (number * synonym.factor).to_string(),
                    _ => default.to_owned(),
                })
            });
            assert_eq!(from_broker.as_deref(), key.default, "{}", key.name);
        }
    }

    #[test]
    fn a_key_and_its_synonyms_have_the_same_bounds_in_the_same_unit() {
        // A broker default must never be one that the topic would refuse.
        for TopicKey { key, synonyms } in all() {
            for synonym in synonyms.iter().filter(|synonym| synonym.factor == 1) {
                let broker_key = broker::find(synonym.broker_key).unwrap();
                assert_eq!(broker_key.config_type, key.config_type, "{}", key.name);
                assert_eq!(broker_key.validator, key.validator, "{}", key.name);
            }
        }
    }
}
