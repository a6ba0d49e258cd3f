//! Every broker config key: the full list that DescribeConfigs of a Kafka broker shows, and ottla's own.
//!
//! A file per family, a row per key. [`find`] is by name; [`all`] is in the order of names, as Kafka's tools print.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use crate::model::configs::key::{ConfigError, ConfigKey, unknown_key};

mod cluster;
mod groups;
mod log;
mod network;
mod ottla;
mod remote;
mod security;
mod transactions;

const FAMILIES: [&[ConfigKey]; 8] = [
    log::KEYS,
    network::KEYS,
    cluster::KEYS,
    groups::KEYS,
    transactions::KEYS,
    remote::KEYS,
    security::KEYS,
    ottla::KEYS,
];

/// A view of the constant tables, made once: it never changes, so threads may share it.
static BY_NAME: LazyLock<BTreeMap<&'static str, &'static ConfigKey>> =
    LazyLock::new(|| FAMILIES.iter().flat_map(|family| family.iter()).map(|key| (key.name, key)).collect());

/// Every key, by name.
pub fn all() -> impl Iterator<Item = &'static ConfigKey> {
    BY_NAME.values().copied()
}

/// The key called `name`, or an error that suggests what may have been meant.
pub fn find(name: &str) -> Result<&'static ConfigKey, ConfigError> {
    BY_NAME.get(name).copied().ok_or_else(|| unknown_key(name, BY_NAME.keys().copied()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::configs::key::{ConfigType, Effect};

    #[test]
    fn every_default_passes_its_own_check() {
        for key in all() {
            if let Some(default) = key.default {
                assert_eq!(key.check(default), Ok(default), "{}", key.name);
            }
        }
    }

    #[test]
    fn no_name_is_there_twice() {
        assert_eq!(all().count(), FAMILIES.iter().map(|family| family.len()).sum::<usize>());
    }

    #[test]
    fn the_list_is_as_long_as_kafkas() {
        // A Kafka 4.2 broker with default configs answers 320 entries; ottla adds its own.
        assert_eq!(all().filter(|key| !key.name.starts_with("ottla.")).count(), 320);
    }

    #[test]
    fn secrets_are_passwords_and_have_no_default() {
        for key in all().filter(|key| key.config_type == ConfigType::Password) {
            assert_eq!(key.default, None, "{}", key.name);
        }
    }

    #[test]
    fn what_is_not_supported_is_off_by_default() {
        for key in all().filter(|key| key.effect == Effect::Unsupported) {
            assert_eq!(key.default, Some("false"), "{}", key.name);
        }
    }
}
