//! What DescribeConfigs tells, in domain types: every key with its value, where that comes from, and what is behind.
//!
//! A secret's value is never given out, not even its default.

use crate::model::configs::group_config;
use crate::model::configs::key::{ConfigError, ConfigKey, ConfigType};
use crate::model::configs::topic_config::{Overrides, broker_value, check_overrides};
use crate::model::configs::{BrokerConfig, broker, topic_keys};

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigSource {
    /// Set on the topic.
    DynamicTopicConfig,
    /// Set on the broker when it was started.
    StaticBrokerConfig,
    /// Set nowhere.
    DefaultConfig,
    /// Set on the group.
    DynamicGroupConfig,
}

impl ConfigSource {
    /// The number that stands for the source in DescribeConfigs.
    pub const fn number(self) -> i8 {
        match self {
            ConfigSource::DynamicTopicConfig => 1,
            ConfigSource::StaticBrokerConfig => 4,
            ConfigSource::DefaultConfig => 5,
            ConfigSource::DynamicGroupConfig => 8,
        }
    }
}

/// One of the settings that a value is chosen from, strongest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigSynonym {
    /// The key, in its own unit.
    pub name: &'static str,
    /// Its value.
    pub value: Option<String>,
    /// Where it is set.
    pub source: ConfigSource,
}

/// One key with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigEntry {
    /// The key.
    pub name: &'static str,
    /// The value that holds; `None` is Kafka's null, and what secrets show.
    pub value: Option<String>,
    /// Where it comes from.
    pub source: ConfigSource,
    /// It cannot change while running.
    pub read_only: bool,
    /// It is a secret.
    pub is_sensitive: bool,
    /// What it was chosen from, strongest first.
    pub synonyms: Vec<ConfigSynonym>,
    /// Its type.
    pub config_type: ConfigType,
    /// A short text for people.
    pub documentation: &'static str,
}

/// All configs of a topic with these overrides, by name.
///
/// # Errors
/// An override with an unknown name or a value that does not fit: it cannot have been accepted.
pub fn describe_topic(broker: &BrokerConfig, overrides: &Overrides) -> Result<Vec<ConfigEntry>, ConfigError> {
    check_overrides(overrides)?;
    let describe = |row: &topic_keys::TopicKey| {
        let own = overrides.get(row.key.name).map(|value| value.trim().to_owned());
        let mut synonyms: Vec<ConfigSynonym> = own
            .iter()
            .map(|value| ConfigSynonym {
                name: row.key.name,
                value: Some(value.clone()),
                source: ConfigSource::DynamicTopicConfig,
            })
            .collect();
        // Kafka tells every synonym that is set before any default.
        for synonym in row.synonyms {
            synonyms.extend(static_synonym(broker, synonym.broker_key));
        }
        for synonym in row.synonyms {
            synonyms.extend(default_synonym(synonym.broker_key));
        }
        let source = synonyms.first().map_or(ConfigSource::DefaultConfig, |strongest| strongest.source);
        let value = own.or_else(|| broker_value(broker, row)).or_else(|| row.key.default.map(str::to_owned));
        entry(row.key, value, source, synonyms)
    };
    Ok(topic_keys::all().map(describe).collect())
}

/// All configs of a group with these overrides, by name.
pub fn describe_group(broker: &BrokerConfig, overrides: &Overrides) -> Vec<ConfigEntry> {
    let describe = |row: &group_config::GroupKey| {
        let own = overrides.get(row.key.name).map(|value| ConfigSynonym {
            name: row.key.name,
            value: Some(value.clone()),
            source: ConfigSource::DynamicGroupConfig,
        });
        let behind = [static_synonym(broker, row.broker_key), default_synonym(row.broker_key)];
        let synonyms: Vec<ConfigSynonym> = own.into_iter().chain(behind.into_iter().flatten()).collect();
        let source = synonyms.first().map_or(ConfigSource::DefaultConfig, |strongest| strongest.source);
        entry(row.key, Some(row.value(broker, overrides).to_string()), source, synonyms)
    };
    group_config::ROWS.iter().map(describe).collect()
}

/// All configs of the broker, by name. `at_start` are values that the start decided, such as `listeners`, `node.id`
/// or a shard's `fetch.max.bytes`; they count as set where the operator did not set the key.
pub fn describe_broker(broker: &BrokerConfig, at_start: &[(&str, String)]) -> Vec<ConfigEntry> {
    let describe = |key: &'static ConfigKey| {
        let decided = at_start.iter().find(|(name, _)| *name == key.name).map(|(_, value)| value.as_str());
        let set = broker.set_value(key.name).or(decided).map(|value| ConfigSynonym {
            name: key.name,
            value: visible(key, value),
            source: ConfigSource::StaticBrokerConfig,
        });
        let synonyms: Vec<ConfigSynonym> = set.into_iter().chain(default_synonym(key.name)).collect();
        let source = synonyms.first().map_or(ConfigSource::DefaultConfig, |strongest| strongest.source);
        let value = synonyms.first().and_then(|strongest| strongest.value.clone());
        entry(key, value, source, synonyms)
    };
    broker::all().map(describe).collect()
}

fn entry(
    key: &'static ConfigKey,
    value: Option<String>,
    source: ConfigSource,
    synonyms: Vec<ConfigSynonym>,
) -> ConfigEntry {
    ConfigEntry {
        name: key.name,
        value: value.and_then(|value| visible(key, &value)),
        source,
        read_only: key.is_read_only(),
        is_sensitive: key.is_sensitive(),
        synonyms,
        config_type: key.config_type,
        documentation: key.documentation,
    }
}

fn static_synonym(broker: &BrokerConfig, name: &str) -> Option<ConfigSynonym> {
    let key = broker::find(name).expect("a synonym is a broker config");
    let value = broker.set_value(name)?;
    Some(ConfigSynonym { name: key.name, value: visible(key, value), source: ConfigSource::StaticBrokerConfig })
}

fn default_synonym(name: &str) -> Option<ConfigSynonym> {
    let key = broker::find(name).expect("a synonym is a broker config");
    let value = key.default?;
    Some(ConfigSynonym { name: key.name, value: visible(key, value), source: ConfigSource::DefaultConfig })
}

/// The value, unless it is a secret.
fn visible(key: &ConfigKey, value: &str) -> Option<String> {
    (!key.is_sensitive()).then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find<'a>(entries: &'a [ConfigEntry], name: &str) -> &'a ConfigEntry {
        entries.iter().find(|entry| entry.name == name).unwrap()
    }

    fn chain(entry: &ConfigEntry) -> Vec<(&str, &str, i8)> {
        let synonym = |s: &'_ ConfigSynonym| (s.name, s.source.number());
        entry
            .synonyms
            .iter()
            .map(|s| {
                let (name, source) = synonym(s);
                (name, s.value.as_deref().unwrap_or("null"), source)
            })
            .collect()
    }

    #[test]
    fn a_topics_values_tell_where_they_come_from() {
        let broker = BrokerConfig::parse([("log.retention.hours", "2")]).unwrap();
        let overrides = Overrides::from([("cleanup.policy".into(), "compact".into())]);
        let entries = describe_topic(&broker, &overrides).unwrap();
        assert_eq!(entries.len(), topic_keys::all().count());

        let policy = find(&entries, "cleanup.policy");
        assert_eq!((policy.value.as_deref(), policy.source), (Some("compact"), ConfigSource::DynamicTopicConfig));
        assert_eq!(chain(policy), [("cleanup.policy", "compact", 1), ("log.cleanup.policy", "delete", 5)]);

        // The value is in the topic config's unit, the synonyms are in their own.
        let retention = find(&entries, "retention.ms");
        assert_eq!((retention.value.as_deref(), retention.source.number()), (Some("7200000"), 4));
        assert_eq!(chain(retention), [("log.retention.hours", "2", 4), ("log.retention.hours", "168", 5)]);

        let flush = find(&entries, "flush.ms");
        assert_eq!((flush.value.as_deref(), flush.source.number()), (Some("9223372036854775807"), 5));
    }

    #[test]
    fn a_groups_values_tell_where_they_come_from() {
        let broker = BrokerConfig::parse([("group.consumer.heartbeat.interval.ms", "6000")]).unwrap();
        let overrides = Overrides::from([("consumer.session.timeout.ms".into(), "50000".into())]);
        let entries = describe_group(&broker, &overrides);
        let session = find(&entries, "consumer.session.timeout.ms");
        assert_eq!((session.value.as_deref(), session.source), (Some("50000"), ConfigSource::DynamicGroupConfig));
        let behind = ("group.consumer.session.timeout.ms", "45000", 5);
        assert_eq!(chain(session), [("consumer.session.timeout.ms", "50000", 8), behind]);
        let heartbeat = find(&entries, "consumer.heartbeat.interval.ms");
        assert_eq!((heartbeat.value.as_deref(), heartbeat.source.number()), (Some("6000"), 4));
        assert!(!heartbeat.read_only);
    }

    #[test]
    fn a_brokers_values_tell_where_they_come_from() {
        let broker = BrokerConfig::parse([("num.partitions", "6"), ("ssl.key.password", "hunter2")]).unwrap();
        let entries = describe_broker(&broker, &[("node.id", "7".into()), ("num.partitions", "9".into())]);
        assert_eq!(entries.len(), broker::all().count());
        assert!(entries.is_sorted_by_key(|entry| entry.name));

        // What the operator set is stronger than what the start decided.
        assert_eq!(chain(find(&entries, "num.partitions")), [("num.partitions", "6", 4), ("num.partitions", "1", 5)]);
        assert_eq!(find(&entries, "node.id").value.as_deref(), Some("7"));
        let retention = find(&entries, "log.retention.ms");
        assert_eq!((retention.value.as_deref(), retention.source), (None, ConfigSource::DefaultConfig));

        let secret = find(&entries, "ssl.key.password");
        assert!(secret.is_sensitive && secret.value.is_none());
        assert!(secret.synonyms.iter().all(|synonym| synonym.value.is_none()));
    }
}
