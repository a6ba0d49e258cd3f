//! The broker's own configs, parsed: the values that the broker acts on, and what was set.
//!
//! Built once at start from `(key, value)` pairs under Kafka's names; handed down as plain values. Fields bear
//! Kafka's names; times are in milliseconds and sizes in bytes unless a name says otherwise.

use std::collections::BTreeMap;

use crate::base::units::MIB;
use crate::model::configs::broker;
use crate::model::configs::key::{ConfigError, ConfigKey, parse_bool};

/// What all brokers together may return to one fetch: Kafka's `fetch.max.bytes`. Clients reserve room per broker, and
/// each shard is one, so a shard's share is this divided by the shards.
const FETCH_SIZE_BYTES_MAX: usize = 55 * MIB;

/// Kafka refuses a smaller `fetch.max.bytes`; a shard's share does not fall below it either.
const FETCH_SIZE_BYTES_MIN: usize = 1024;

/// How space ahead of the writer is prepared (`ottla.prepare`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prepare {
    /// Blocks are written with zeros, so that later writes are plain overwrites.
    Write,
    /// Blocks are allocated, not written.
    Allocate,
    /// Nothing is prepared.
    None,
}

/// What a replication factor that the cluster cannot give is answered with (`ottla.replication.factor.policy`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicationFactorPolicy {
    /// Accepted up to the number of brokers, and answered as what it really is.
    Truthful,
    /// Refused above what can be given.
    Refuse,
    /// Accepted, and shown as it was asked for.
    Pretend,
}

/// The broker's configs.
#[derive(Clone, Debug, PartialEq)]
pub struct BrokerConfig {
    /// What was set, by key: values are checked and trimmed.
    settings: BTreeMap<&'static str, String>,
    /// Partitions of a topic created with -1.
    pub num_partitions: i32,
    /// Replication factor of a topic created with -1.
    pub default_replication_factor: i16,
    /// Whether Metadata may create topics.
    pub auto_create_topics_enable: bool,
    /// Whether DeleteTopics is allowed.
    pub delete_topic_enable: bool,
    /// What happens to replication factors that cannot be given.
    pub replication_factor_policy: ReplicationFactorPolicy,
    /// How space ahead of the writer is prepared.
    pub prepare: Prepare,
    /// Bytes of a shard's journal; 0: none.
    pub journal_size_bytes: u64,
    /// Partitions that must commit at a time for it to be used.
    pub journal_min_partitions: usize,
    /// How often retention is looked at.
    pub log_retention_check_interval_ms: u64,
    /// Whether compacted topics are compacted.
    pub log_cleaner_enable: bool,
    /// Memory of the compaction's map of keys, of the whole node.
    pub log_cleaner_dedupe_buffer_size: usize,
    /// How full that map may get.
    pub log_cleaner_io_buffer_load_factor: f64,
    /// Bytes that compaction may read and write in a second, of the whole node.
    pub log_cleaner_io_max_bytes_per_second: f64,
    /// How often compaction looks for work.
    pub log_cleaner_backoff_ms: u64,
    /// Greatest request frame.
    pub socket_request_max_bytes: usize,
    /// Kernel send buffer of a connection; `None` leaves it to the kernel.
    pub socket_send_buffer_bytes: Option<usize>,
    /// Kernel receive buffer of a connection; `None` leaves it to the kernel.
    pub socket_receive_buffer_bytes: Option<usize>,
    /// Connections that may wait to be accepted.
    pub socket_listen_backlog_size: i32,
    /// Connections of the whole node.
    pub max_connections: usize,
    /// Connections from one address.
    pub max_connections_per_ip: usize,
    /// A connection without a request for this long is closed; `None`: never.
    pub connections_max_idle_ms: Option<u64>,
    /// Most bytes of one fetch, if it was set; see [`fetch_max_bytes`](Self::fetch_max_bytes).
    fetch_max_bytes: Option<usize>,
    /// Fetch sessions of the whole node.
    pub max_incremental_fetch_session_cache_slots: usize,
    /// Most partitions of one DescribeTopicPartitions.
    pub max_request_partition_size_limit: usize,
    /// A producer silent for this long is forgotten.
    pub producer_id_expiration_ms: u64,
    /// First wait of a new group.
    pub group_initial_rebalance_delay_ms: u64,
    /// Least session timeout of a member.
    pub group_min_session_timeout_ms: u64,
    /// Greatest session timeout of a member.
    pub group_max_session_timeout_ms: u64,
    /// Most members of a group.
    pub group_max_size: usize,
    /// The consumer protocol is offered. Its timeouts, which groups may have of their own, are in a
    /// [`GroupConfig`](crate::model::configs::GroupConfig).
    pub group_consumer_enable: bool,
    /// Most members of a group of the consumer protocol.
    pub group_consumer_max_size: usize,
    /// Server-side assignors, the default one first.
    pub group_consumer_assignors: Vec<String>,
    /// Which way groups may change between the protocols.
    pub group_consumer_migration_policy: String,
    /// Longest metadata string of an offset commit.
    pub offset_metadata_max_bytes: usize,
    /// How long the offsets of an empty group are kept.
    pub offsets_retention_ms: u64,
    /// How often expired offsets are looked for.
    pub offsets_retention_check_interval_ms: u64,
    /// Partitions of the offsets topic.
    pub offsets_topic_num_partitions: i32,
    /// Segment size of the offsets topic.
    pub offsets_topic_segment_bytes: i32,
    /// How long an offset commit may wait to be durable.
    pub offsets_commit_timeout_ms: u64,
    /// How often transactions past their timeout are looked for.
    pub transaction_abort_timed_out_interval_ms: u64,
    /// How often expired transactional ids are looked for.
    pub transaction_remove_expired_interval_ms: u64,
    /// A partition asks the coordinator whether it is in a transaction before it takes batches of it.
    pub transaction_partition_verification_enable: bool,
    /// Greatest transaction timeout.
    pub transaction_max_timeout_ms: u64,
    /// A transactional id silent for this long is forgotten.
    pub transactional_id_expiration_ms: u64,
    /// Partitions of the transaction topic.
    pub transaction_state_log_num_partitions: i32,
    /// Segment size of the transaction topic.
    pub transaction_state_log_segment_bytes: i32,
}

impl Default for BrokerConfig {
    /// Nothing set.
    fn default() -> BrokerConfig {
        BrokerConfig::from_settings(BTreeMap::new())
    }
}

impl BrokerConfig {
    /// Parses settings under Kafka's names. A key that comes twice keeps its last value.
    ///
    /// # Errors
    /// A name that no key has (with the nearest ones), or a value that does not fit (with what was expected).
    pub fn parse<K: AsRef<str>, V: AsRef<str>>(
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Result<BrokerConfig, ConfigError> {
        let mut settings = BTreeMap::new();
        for (name, value) in pairs {
            let key = broker::find(name.as_ref().trim())?;
            let value = key.check(value.as_ref())?;
            settings.insert(key.name, value.to_owned());
        }
        Ok(BrokerConfig::from_settings(settings))
    }

    /// The same with a value that its key may refuse: tests want segments far below Kafka's least size.
    #[cfg(any(test, feature = "simulate"))]
    pub(crate) fn with_unchecked(mut self, name: &'static str, value: &str) -> BrokerConfig {
        self.settings.insert(name, value.to_owned());
        BrokerConfig::from_settings(self.settings)
    }

    /// Every value was checked against its key, or is a key's default: parsing cannot fail.
    fn from_settings(settings: BTreeMap<&'static str, String>) -> BrokerConfig {
        let values = Values(&settings);
        BrokerConfig {
            num_partitions: values.int("num.partitions"),
            default_replication_factor: i16::try_from(values.long("default.replication.factor")).unwrap_or(i16::MAX),
            auto_create_topics_enable: values.boolean("auto.create.topics.enable"),
            delete_topic_enable: values.boolean("delete.topic.enable"),
            replication_factor_policy: match values.text("ottla.replication.factor.policy") {
                "refuse" => ReplicationFactorPolicy::Refuse,
                "pretend" => ReplicationFactorPolicy::Pretend,
                _ => ReplicationFactorPolicy::Truthful,
            },
            prepare: match values.text("ottla.prepare") {
                "allocate" => Prepare::Allocate,
                "none" => Prepare::None,
                _ => Prepare::Write,
            },
            journal_size_bytes: values.count("ottla.journal.bytes"),
            journal_min_partitions: values.size("ottla.journal.min.partitions"),
            log_retention_check_interval_ms: values.count("log.retention.check.interval.ms"),
            log_cleaner_enable: values.boolean("log.cleaner.enable"),
            log_cleaner_dedupe_buffer_size: values.size("log.cleaner.dedupe.buffer.size"),
            log_cleaner_io_buffer_load_factor: values.double("log.cleaner.io.buffer.load.factor"),
            log_cleaner_io_max_bytes_per_second: values.double("log.cleaner.io.max.bytes.per.second"),
            log_cleaner_backoff_ms: values.count("log.cleaner.backoff.ms"),
            socket_request_max_bytes: values.size("socket.request.max.bytes"),
            socket_send_buffer_bytes: usize::try_from(values.long("socket.send.buffer.bytes")).ok(),
            socket_receive_buffer_bytes: usize::try_from(values.long("socket.receive.buffer.bytes")).ok(),
            socket_listen_backlog_size: values.int("socket.listen.backlog.size"),
            max_connections: values.size("max.connections"),
            max_connections_per_ip: values.size("max.connections.per.ip"),
            connections_max_idle_ms: u64::try_from(values.long("connections.max.idle.ms")).ok(),
            fetch_max_bytes: settings.contains_key("fetch.max.bytes").then(|| values.size("fetch.max.bytes")),
            max_incremental_fetch_session_cache_slots: values.size("max.incremental.fetch.session.cache.slots"),
            max_request_partition_size_limit: values.size("max.request.partition.size.limit"),
            producer_id_expiration_ms: values.count("producer.id.expiration.ms"),
            group_initial_rebalance_delay_ms: values.count("group.initial.rebalance.delay.ms"),
            group_min_session_timeout_ms: values.count("group.min.session.timeout.ms"),
            group_max_session_timeout_ms: values.count("group.max.session.timeout.ms"),
            group_max_size: values.size("group.max.size"),
            group_consumer_enable: values
                .list("group.coordinator.rebalance.protocols")
                .iter()
                .any(|one| one == "consumer"),
            group_consumer_max_size: values.size("group.consumer.max.size"),
            group_consumer_assignors: values.list("group.consumer.assignors"),
            group_consumer_migration_policy: values.text("group.consumer.migration.policy").to_owned(),
            offset_metadata_max_bytes: values.size("offset.metadata.max.bytes"),
            offsets_retention_ms: values.count("offsets.retention.minutes") * 60_000,
            offsets_retention_check_interval_ms: values.count("offsets.retention.check.interval.ms"),
            offsets_topic_num_partitions: values.int("offsets.topic.num.partitions"),
            offsets_topic_segment_bytes: values.int("offsets.topic.segment.bytes"),
            offsets_commit_timeout_ms: values.count("offsets.commit.timeout.ms"),
            transaction_abort_timed_out_interval_ms: values
                .count("transaction.abort.timed.out.transaction.cleanup.interval.ms"),
            transaction_remove_expired_interval_ms: values
                .count("transaction.remove.expired.transaction.cleanup.interval.ms"),
            transaction_partition_verification_enable: values.boolean("transaction.partition.verification.enable"),
            transaction_max_timeout_ms: values.count("transaction.max.timeout.ms"),
            transactional_id_expiration_ms: values.count("transactional.id.expiration.ms"),
            transaction_state_log_num_partitions: values.int("transaction.state.log.num.partitions"),
            transaction_state_log_segment_bytes: values.int("transaction.state.log.segment.bytes"),
            settings,
        }
    }

    /// What was set for the key called `name`, if anything.
    pub fn set_value(&self, name: &str) -> Option<&str> {
        self.settings.get(name).map(String::as_str)
    }

    /// Everything that was set, by key.
    pub fn settings(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.settings.iter().map(|(name, value)| (*name, value.as_str()))
    }

    /// Most bytes of one fetch from one of `shard_count` shards: what was set, or the shard's share of 55 MiB.
    pub fn fetch_max_bytes(&self, shard_count: usize) -> usize {
        self.fetch_max_bytes.unwrap_or_else(|| (FETCH_SIZE_BYTES_MAX / shard_count.max(1)).max(FETCH_SIZE_BYTES_MIN))
    }
}

/// Settings and the defaults behind them, by type.
struct Values<'a>(&'a BTreeMap<&'static str, String>);

impl<'a> Values<'a> {
    /// The value as text; a key without value and default is the empty text.
    fn text(&self, name: &'static str) -> &'a str {
        let key: &'static ConfigKey = broker::find(name).expect("a field's key is in the table");
        self.0.get(name).map(String::as_str).or(key.default).unwrap_or_default()
    }

    /// The texts of a list.
    fn list(&self, name: &'static str) -> Vec<String> {
        let texts = self.text(name).split(',').map(str::trim).filter(|text| !text.is_empty());
        texts.map(str::to_owned).collect()
    }

    fn boolean(&self, name: &'static str) -> bool {
        parse_bool(self.text(name)).expect("a checked boolean")
    }

    fn long(&self, name: &'static str) -> i64 {
        self.text(name).parse().expect("a checked number")
    }

    fn double(&self, name: &'static str) -> f64 {
        self.text(name).parse().expect("a checked double")
    }

    fn int(&self, name: &'static str) -> i32 {
        self.text(name).parse().expect("a checked int")
    }

    /// A number that cannot be negative in meaning: a negative one, which Kafka's table may allow, is 0.
    fn count(&self, name: &'static str) -> u64 {
        u64::try_from(self.long(name)).unwrap_or(0)
    }

    fn size(&self, name: &'static str) -> usize {
        usize::try_from(self.count(name)).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_set_gives_kafkas_defaults() {
        let config = BrokerConfig::default();
        assert_eq!((config.num_partitions, config.default_replication_factor), (1, 1));
        assert!(config.auto_create_topics_enable && config.delete_topic_enable);
        assert_eq!(config.socket_request_max_bytes, 104_857_600);
        assert_eq!(config.connections_max_idle_ms, Some(600_000));
        assert_eq!(config.max_incremental_fetch_session_cache_slots, 1000);
        assert_eq!(config.offsets_retention_ms, 7 * 24 * 3600 * 1000);
        assert_eq!(config.settings().count(), 0);
    }

    #[test]
    fn settings_are_parsed_and_the_last_one_wins() {
        let config = BrokerConfig::parse([
            ("num.partitions", "3"),
            ("auto.create.topics.enable", "FALSE"),
            ("connections.max.idle.ms", "-1"),
            ("socket.send.buffer.bytes", "-1"),
            ("ottla.prepare", "none"),
            ("num.partitions", " 6 "),
        ])
        .unwrap();
        assert_eq!(config.num_partitions, 6);
        assert!(!config.auto_create_topics_enable);
        assert_eq!((config.connections_max_idle_ms, config.socket_send_buffer_bytes), (None, None));
        assert_eq!(config.prepare, Prepare::None);
        assert_eq!(config.set_value("num.partitions"), Some("6"));
        assert_eq!(config.set_value("log.dirs"), None);
    }

    #[test]
    fn a_wrong_name_and_a_wrong_value_are_explained() {
        let error = BrokerConfig::parse([("num.partition", "3")]).unwrap_err().to_string();
        assert_eq!(error, "unknown config num.partition; did you mean num.partitions?");
        let error = BrokerConfig::parse([("num.partitions", "0")]).unwrap_err().to_string();
        assert_eq!(error, "invalid value \"0\" for config num.partitions: expected int, at least 1");
        let error = BrokerConfig::parse([("remote.log.storage.system.enable", "true")]).unwrap_err();
        assert!(matches!(error, ConfigError::Unsupported { .. }));
    }

    #[test]
    fn a_fetch_returns_a_shards_share_of_55_mib() {
        let config = BrokerConfig::default();
        assert_eq!(config.fetch_max_bytes(1), 57_671_680);
        assert_eq!(config.fetch_max_bytes(5), 11_534_336);
        assert_eq!(BrokerConfig::parse([("fetch.max.bytes", "2048")]).unwrap().fetch_max_bytes(5), 2048);
    }
}
