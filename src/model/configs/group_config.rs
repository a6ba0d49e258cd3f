//! A group's configs (Kafka's resource type GROUP): its overrides over what the broker says about all groups of the
//! consumer protocol, within the bounds that the operator has set.
//!
//! Bounds may have moved since an override was accepted: what lies outside of them counts as the nearest value within.

use crate::model::configs::broker;
use crate::model::configs::key::{ConfigError, ConfigKey, keys, unknown_key};
use crate::model::configs::{BrokerConfig, Overrides};

const KEYS: &[ConfigKey] = keys! {
    "consumer.heartbeat.interval.ms", Int, Some("5000"), AtLeast(1), Dynamic, Acted,
        "How often members of a group of the consumer protocol are to be heard of, in milliseconds.";
    "consumer.session.timeout.ms", Int, Some("45000"), AtLeast(1), Dynamic, Acted,
        "How long a member of a group of the consumer protocol may be silent, in milliseconds.";
};

/// One row: the key, the broker config that gives its default, and those that give its bounds.
pub(super) struct GroupKey {
    pub key: &'static ConfigKey,
    pub broker_key: &'static str,
    least: &'static str,
    greatest: &'static str,
}

const HEARTBEAT_INTERVAL: GroupKey = GroupKey {
    key: &KEYS[0],
    broker_key: "group.consumer.heartbeat.interval.ms",
    least: "group.consumer.min.heartbeat.interval.ms",
    greatest: "group.consumer.max.heartbeat.interval.ms",
};
const SESSION_TIMEOUT: GroupKey = GroupKey {
    key: &KEYS[1],
    broker_key: "group.consumer.session.timeout.ms",
    least: "group.consumer.min.session.timeout.ms",
    greatest: "group.consumer.max.session.timeout.ms",
};

/// All rows, by name.
pub(super) const ROWS: [GroupKey; 2] = [HEARTBEAT_INTERVAL, SESSION_TIMEOUT];

/// The values that a group's coordinator acts on, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupConfig {
    /// How long a member may be silent.
    pub session_timeout_ms: u64,
    /// How often members are to be heard of.
    pub heartbeat_interval_ms: u64,
}

impl GroupConfig {
    /// The values of a group with these overrides, which were checked, on a broker with these configs.
    pub fn resolve(broker: &BrokerConfig, overrides: &Overrides) -> GroupConfig {
        GroupConfig {
            session_timeout_ms: SESSION_TIMEOUT.value(broker, overrides),
            heartbeat_interval_ms: HEARTBEAT_INTERVAL.value(broker, overrides),
        }
    }

    /// Accepts a group's overrides, or names the first that is unknown or does not fit.
    ///
    /// # Errors
    /// A name that is no key, a value outside its bounds, or a session that is over before a heartbeat is due.
    pub fn check(broker: &BrokerConfig, overrides: &Overrides) -> Result<(), ConfigError> {
        for (name, value) in overrides {
            let row = ROWS.iter().find(|row| row.key.name == *name);
            let row = row.ok_or_else(|| unknown_key(name, KEYS.iter().map(|key| key.name)))?;
            let value = row.key.check(value)?;
            let (least, greatest) = row.bounds(broker);
            if !value.parse().is_ok_and(|number: u64| (least..=greatest).contains(&number)) {
                let expected = format!("int from {} to {}: {least} to {greatest}", row.least, row.greatest);
                return Err(ConfigError::InvalidValue { name: row.key.name, value: value.to_owned(), expected });
            }
        }
        let values = GroupConfig::resolve(broker, overrides);
        match overrides.is_empty() || values.session_timeout_ms > values.heartbeat_interval_ms {
            true => Ok(()),
            false => Err(ConfigError::InvalidValue {
                name: SESSION_TIMEOUT.key.name,
                value: values.session_timeout_ms.to_string(),
                expected: format!(
                    "more than {}, which is {}",
                    HEARTBEAT_INTERVAL.key.name, values.heartbeat_interval_ms
                ),
            }),
        }
    }
}

impl GroupKey {
    /// The value that counts.
    pub(super) fn value(&self, broker: &BrokerConfig, overrides: &Overrides) -> u64 {
        let own = overrides.get(self.key.name).and_then(|value| value.trim().parse().ok());
        let (least, greatest) = self.bounds(broker);
        // Where they contradict each other the greatest one counts.
        own.unwrap_or_else(|| number(broker, self.broker_key)).max(least).min(greatest)
    }

    fn bounds(&self, broker: &BrokerConfig) -> (u64, u64) {
        (number(broker, self.least), number(broker, self.greatest))
    }
}

fn number(config: &BrokerConfig, name: &str) -> u64 {
    let key = broker::find(name).expect("a broker config");
    config.set_value(name).or(key.default).and_then(|value| value.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overrides(pairs: &[(&str, &str)]) -> Overrides {
        pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    #[test]
    fn a_groups_own_values_win_over_the_brokers_and_stay_within_its_bounds() {
        let resolve = |broker: &[(&str, &str)], own: &[(&str, &str)]| {
            let broker = BrokerConfig::parse(broker.iter().copied()).unwrap();
            let config = GroupConfig::resolve(&broker, &overrides(own));
            (config.session_timeout_ms, config.heartbeat_interval_ms)
        };
        assert_eq!(resolve(&[], &[]), (45_000, 5_000));
        assert_eq!(resolve(&[], &[("consumer.session.timeout.ms", "50000")]), (50_000, 5_000));
        // A broker's default outside its own bounds, and an override that was within others.
        assert_eq!(resolve(&[("group.consumer.session.timeout.ms", "90000")], &[]), (60_000, 5_000));
        assert_eq!(resolve(&[], &[("consumer.session.timeout.ms", "100")]), (45_000, 5_000));
        let contradiction = ("group.consumer.max.session.timeout.ms", "1000");
        assert_eq!(resolve(&[contradiction], &[]), (1_000, 5_000));
        assert_eq!(resolve(&[], &[("consumer.heartbeat.interval.ms", "15000")]), (45_000, 15_000));
    }

    #[test]
    fn what_is_unknown_or_outside_the_operators_bounds_is_refused() {
        let broker = BrokerConfig::parse([
            ("group.consumer.min.session.timeout.ms", "1000"),
            ("group.consumer.session.timeout.ms", "10000"),
        ])
        .unwrap();
        let check = |name: &str, value: &str| GroupConfig::check(&broker, &overrides(&[(name, value)]));
        assert_eq!(check("consumer.session.timeout.ms", " 7000 "), Ok(()));
        for (name, value) in [
            ("consumer.session.timeout.ms", "999"),
            ("consumer.session.timeout.ms", "60001"),
            ("consumer.session.timeout.ms", "soon"),
            ("consumer.heartbeat.interval.ms", "4999"),
            // A session must be longer than the pause between two heartbeats.
            ("consumer.session.timeout.ms", "5000"),
            ("consumer.heartbeat.interval.ms", "10000"),
        ] {
            assert!(matches!(check(name, value), Err(ConfigError::InvalidValue { .. })), "{name}={value}");
        }
        assert!(matches!(check("consumer.session.timeout", "7000"), Err(ConfigError::UnknownKey { .. })));
        assert_eq!(GroupConfig::check(&broker, &Overrides::new()), Ok(()));
    }

    #[test]
    fn a_key_has_the_default_and_the_type_of_its_broker_config() {
        assert!(KEYS.is_sorted_by_key(|key| key.name));
        for row in ROWS {
            let broker_key = broker::find(row.broker_key).unwrap();
            assert_eq!((row.key.default, row.key.config_type), (broker_key.default, broker_key.config_type));
            assert!(broker::find(row.least).is_ok() && broker::find(row.greatest).is_ok());
        }
    }
}
