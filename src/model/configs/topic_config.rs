//! A topic's configs, parsed: its overrides over the broker's defaults.
//!
//! How flushing maps (DESIGN section 3): `ottla.ack.after` says when an acknowledgement is given. Under `sync`, which
//! is the default, every acknowledged record is synced already and `flush.messages` and `flush.ms` change nothing.
//! Under `write` and `memory` they bound what may be unsynced: after that many records, or that long after the first
//! unsynced one, the partition is synced. A bound of one record (or of 0 ms) asks for nothing to be unsynced, so it
//! strengthens `write` and `memory` to `sync`. They never weaken anything.

use std::collections::BTreeMap;

use crate::model::compression::Codec;
use crate::model::configs::key::{ConfigError, list};
use crate::model::configs::topic_keys::{self, Synonym, TopicKey};
use crate::model::configs::{BrokerConfig, broker};

/// A topic's own settings as the client wrote them, by key.
pub type Overrides = BTreeMap<String, String>;

/// What happens to old segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CleanupPolicy {
    /// They are deleted by age and size.
    pub delete: bool,
    /// They are compacted by key.
    pub compact: bool,
}

/// Whose time a record carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    /// Its producer's.
    CreateTime,
    /// The broker's.
    LogAppendTime,
}

/// When acks=1 and acks=all are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckAfter {
    /// The write is durable: survives power loss.
    Sync,
    /// The write completed: survives kill -9.
    Write,
    /// The batch is staged: survives a clean stop only.
    Memory,
}

/// How much of a batch from a client is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validate {
    /// CRC and header.
    Header,
    /// Also decompressed, and its records walked.
    Records,
}

/// The values that the broker acts on. Times are in milliseconds, sizes in bytes; names are Kafka's.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicConfig {
    /// What happens to old segments.
    pub cleanup_policy: CleanupPolicy,
    /// How long records are kept; `None` for ever.
    pub retention_ms: Option<u64>,
    /// Size to which a partition is trimmed; `None`: not limited.
    pub retention_bytes: Option<u64>,
    /// Size at which a segment is closed.
    pub segment_bytes: u32,
    /// Age at which a segment is closed.
    pub segment_ms: u64,
    /// Greatest batch that is accepted.
    pub max_message_bytes: usize,
    /// Whose time a record carries.
    pub message_timestamp_type: TimestampType,
    /// How far a record's time may lie before the broker's.
    pub message_timestamp_before_max_ms: u64,
    /// How far a record's time may lie after the broker's.
    pub message_timestamp_after_max_ms: u64,
    /// Replicas that acks=all needs, as it was set; see [`min_isr`](Self::min_isr).
    pub min_insync_replicas: u32,
    /// Bytes between two entries of the offset index.
    pub index_interval_bytes: u32,
    /// `compression.type`: the codec of stored batches and its level; `None`: as their producers compressed them.
    pub compression: Option<(Codec, Option<i32>)>,
    /// When acknowledgements are given, `flush.*` considered.
    pub ack_after: AckAfter,
    /// Records that may be unsynced; counts under `write` and `memory`. `None`: not limited.
    pub flush_messages: Option<u64>,
    /// How long a record may be unsynced; counts under `write` and `memory`. `None`: not limited.
    pub flush_ms: Option<u64>,
    /// How much of a batch is checked: on compacted topics always the records.
    pub validate: Validate,
    /// How long a tombstone stays after compaction.
    pub delete_retention_ms: u64,
    /// Age before which a record is not compacted.
    pub min_compaction_lag_ms: u64,
    /// Age at which a record is compacted at the latest.
    pub max_compaction_lag_ms: u64,
    /// Share of a log that must be uncompacted before compaction starts.
    pub min_cleanable_dirty_ratio: f64,
}

impl TopicConfig {
    /// The values of a topic with these overrides on a broker with these configs.
    ///
    /// # Errors
    /// An override with an unknown name or a value that does not fit.
    pub fn resolve(broker: &BrokerConfig, overrides: &Overrides) -> Result<TopicConfig, ConfigError> {
        check_overrides(overrides)?;
        Ok(TopicConfig::from_checked(&Values { broker, overrides }))
    }

    /// Every value was checked when it was set, or is a default: parsing cannot fail.
    fn from_checked(values: &Values) -> TopicConfig {
        let cleanup_policy = values.text("cleanup.policy");
        let cleanup_policy = CleanupPolicy {
            delete: list(&cleanup_policy).any(|policy| policy == "delete"),
            compact: list(&cleanup_policy).any(|policy| policy == "compact"),
        };
        let flush_messages = values.limit("flush.messages");
        let flush_ms = values.limit("flush.ms");
        let ack_after = match values.text("ottla.ack.after").as_str() {
            _ if flush_messages == Some(1) || flush_ms == Some(0) => AckAfter::Sync,
            "memory" => AckAfter::Memory,
            "write" => AckAfter::Write,
            _ => AckAfter::Sync,
        };
        // A keyless record on a compacted topic must be refused, and keys can be seen in the records only.
        let validate = match values.text("ottla.validate").as_str() {
            "records" => Validate::Records,
            _ if cleanup_policy.compact => Validate::Records,
            _ => Validate::Header,
        };
        let compression = match values.text("compression.type").as_str() {
            "producer" => None,
            "gzip" => Some((Codec::Gzip, values.level("compression.gzip.level"))),
            "zstd" => Some((Codec::Zstd, values.level("compression.zstd.level"))),
            "lz4" => Some((Codec::Lz4, None)),
            "snappy" => Some((Codec::Snappy, None)),
            _ => Some((Codec::None, None)),
        };
        TopicConfig {
            compression,
            cleanup_policy,
            retention_ms: values.limit("retention.ms"),
            retention_bytes: values.limit("retention.bytes"),
            segment_bytes: values.small("segment.bytes"),
            segment_ms: values.count("segment.ms"),
            max_message_bytes: values.small("max.message.bytes") as usize,
            message_timestamp_type: match values.text("message.timestamp.type").as_str() {
                "LogAppendTime" => TimestampType::LogAppendTime,
                _ => TimestampType::CreateTime,
            },
            message_timestamp_before_max_ms: values.count("message.timestamp.before.max.ms"),
            message_timestamp_after_max_ms: values.count("message.timestamp.after.max.ms"),
            min_insync_replicas: values.small("min.insync.replicas"),
            index_interval_bytes: values.small("index.interval.bytes"),
            ack_after,
            flush_messages,
            flush_ms,
            validate,
            delete_retention_ms: values.count("delete.retention.ms"),
            min_compaction_lag_ms: values.count("min.compaction.lag.ms"),
            max_compaction_lag_ms: values.count("max.compaction.lag.ms"),
            min_cleanable_dirty_ratio: values.text("min.cleanable.dirty.ratio").parse().expect("a checked double"),
        }
    }

    /// In-sync replicas that acks=all needs, of a partition with `replica_count` replicas: what was set, but never
    /// more than there are, because tools set 2 beside a replication factor of 3 that one node answers as 1.
    pub fn min_isr(&self, replica_count: usize) -> usize {
        (self.min_insync_replicas as usize).min(replica_count).max(1)
    }
}

/// Accepts a topic's overrides, or names the first that is unknown or does not fit.
pub(super) fn check_overrides(overrides: &Overrides) -> Result<(), ConfigError> {
    overrides.iter().try_for_each(|(name, value)| topic_keys::find(name)?.key.check(value).map(drop))
}

/// What the broker says about a topic config: the strongest synonym that is set, else the first that has a default.
/// In the topic config's unit.
pub(super) fn broker_value(broker: &BrokerConfig, row: &TopicKey) -> Option<String> {
    let set = |synonym: &Synonym| broker.set_value(synonym.broker_key).map(|value| convert(value, synonym.factor));
    let default = |synonym: &Synonym| {
        let key = broker::find(synonym.broker_key).expect("a synonym is a broker config");
        key.default.map(|value| convert(value, synonym.factor))
    };
    row.synonyms.iter().find_map(set).or_else(|| row.synonyms.iter().find_map(default))
}

/// `value` times `factor`, stopping at the greatest number; negative numbers mean "no limit" in every unit.
fn convert(value: &str, factor: i64) -> String {
    match value.parse::<i64>() {
        Ok(number) if factor != 1 && number >= 0 => number.saturating_mul(factor).to_string(),
        _ => value.to_owned(),
    }
}

/// A topic's overrides and the broker's values behind them, by type.
struct Values<'a> {
    broker: &'a BrokerConfig,
    overrides: &'a Overrides,
}

impl Values<'_> {
    fn text(&self, name: &'static str) -> String {
        let row = topic_keys::find(name).expect("a field's key is in the table");
        match self.overrides.get(name) {
            Some(value) => value.trim().to_owned(),
            None => broker_value(self.broker, row)
                .or_else(|| row.key.default.map(str::to_owned))
                .expect("a topic config has a default"),
        }
    }

    /// A limit; negative and the greatest number mean that there is none.
    fn limit(&self, name: &'static str) -> Option<u64> {
        let number: i64 = self.text(name).parse().expect("a checked number");
        if number == i64::MAX { None } else { u64::try_from(number).ok() }
    }

    fn count(&self, name: &'static str) -> u64 {
        let number: i64 = self.text(name).parse().expect("a checked number");
        u64::try_from(number).unwrap_or(0)
    }

    /// A codec's level; gzip's -1 is its usual one.
    fn level(&self, name: &'static str) -> Option<i32> {
        let level = self.text(name).parse().expect("a checked number");
        (name != "compression.gzip.level" || level > 0).then_some(level)
    }

    fn small(&self, name: &'static str) -> u32 {
        u32::try_from(self.count(name)).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(broker: &[(&str, &str)], overrides: &[(&str, &str)]) -> Result<TopicConfig, ConfigError> {
        let broker = BrokerConfig::parse(broker.iter().copied()).unwrap();
        let overrides = overrides.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        TopicConfig::resolve(&broker, &overrides)
    }

    #[test]
    fn nothing_set_gives_kafkas_defaults_and_durable_acknowledgements() {
        let config = resolve(&[], &[]).unwrap();
        assert_eq!(config.cleanup_policy, CleanupPolicy { delete: true, compact: false });
        assert_eq!((config.retention_ms, config.retention_bytes), (Some(604_800_000), None));
        assert_eq!((config.segment_bytes, config.segment_ms), (128 << 20, 604_800_000));
        assert_eq!(config.max_message_bytes, 1_048_588);
        assert_eq!(config.message_timestamp_before_max_ms, i64::MAX as u64);
        assert_eq!(config.message_timestamp_after_max_ms, 3_600_000);
        assert_eq!((config.ack_after, config.validate), (AckAfter::Sync, Validate::Header));
        assert_eq!((config.flush_messages, config.flush_ms), (None, None));
    }

    #[test]
    fn a_topic_wins_over_the_broker_and_smaller_units_over_larger_ones() {
        assert_eq!(resolve(&[("log.retention.hours", "2")], &[]).unwrap().retention_ms, Some(7_200_000));
        let both = [("log.retention.hours", "2"), ("log.retention.minutes", "3")];
        assert_eq!(resolve(&both, &[]).unwrap().retention_ms, Some(180_000));
        assert_eq!(resolve(&both, &[("retention.ms", "5")]).unwrap().retention_ms, Some(5));
        assert_eq!(resolve(&[("log.retention.hours", "-1")], &[]).unwrap().retention_ms, None);
        assert_eq!(resolve(&[("message.max.bytes", "99")], &[]).unwrap().max_message_bytes, 99);
    }

    #[test]
    fn flush_bounds_strengthen_and_never_weaken() {
        let ack =
            |flush: (&str, &str), after: &str| resolve(&[], &[flush, ("ottla.ack.after", after)]).unwrap().ack_after;
        assert_eq!(ack(("flush.messages", "1"), "memory"), AckAfter::Sync);
        assert_eq!(ack(("flush.ms", "0"), "write"), AckAfter::Sync);
        assert_eq!(ack(("flush.messages", "1000"), "sync"), AckAfter::Sync);
        let bounded =
            resolve(&[("ottla.ack.after", "write")], &[("flush.messages", "1000"), ("flush.ms", "50")]).unwrap();
        assert_eq!(bounded.ack_after, AckAfter::Write);
        assert_eq!((bounded.flush_messages, bounded.flush_ms), (Some(1000), Some(50)));
    }

    #[test]
    fn compacted_topics_always_have_their_records_checked() {
        let config = resolve(&[], &[("cleanup.policy", "compact,delete"), ("ottla.validate", "header")]).unwrap();
        assert_eq!(config.cleanup_policy, CleanupPolicy { delete: true, compact: true });
        assert_eq!(config.validate, Validate::Records);
    }

    #[test]
    fn a_codec_of_the_topics_own_has_its_level() {
        assert_eq!(resolve(&[], &[]).unwrap().compression, None);
        let of = |pairs: &[(&str, &str)]| resolve(&[("compression.gzip.level", "3")], pairs).unwrap().compression;
        assert_eq!(of(&[("compression.type", "gzip")]), Some((Codec::Gzip, Some(3))));
        assert_eq!(of(&[("compression.type", "gzip"), ("compression.gzip.level", "-1")]), Some((Codec::Gzip, None)));
        let zstd = [("compression.type", "zstd"), ("compression.zstd.level", "-5")];
        assert_eq!(of(&zstd), Some((Codec::Zstd, Some(-5))));
        assert_eq!(of(&[("compression.type", "uncompressed")]), Some((Codec::None, None)));
    }

    #[test]
    fn unknown_and_invalid_overrides_are_refused() {
        assert!(matches!(resolve(&[], &[("retention.m", "1")]), Err(ConfigError::UnknownKey { .. })));
        assert!(matches!(resolve(&[], &[("retention.ms", "-2")]), Err(ConfigError::InvalidValue { .. })));
        assert!(matches!(resolve(&[], &[("remote.storage.enable", "true")]), Err(ConfigError::Unsupported { .. })));
        // A broker config is no topic config.
        assert!(resolve(&[], &[("num.partitions", "1")]).is_err());
    }

    #[test]
    fn min_isr_is_capped_at_the_replicas() {
        let config = resolve(&[], &[("min.insync.replicas", "2")]).unwrap();
        assert_eq!((config.min_isr(1), config.min_isr(3)), (1, 2));
    }
}
