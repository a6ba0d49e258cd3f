//! Configs: the tables of keys, and the plain values that the broker acts on.
//!
//! Kafka's tools set and show hundreds of keys by name; [`topic_keys`] and [`broker`] list them all, a row each.
//! [`BrokerConfig`] and [`TopicConfig`] hold what ottla acts on, parsed once, so that nobody below looks up a name.
//! A topic's value is its own override, else the strongest broker config behind it that is set, else the default;
//! [`describe_topic`] and [`describe_broker`] show the same chain. A [`GroupConfig`] is to a group what these are to a
//! topic.
//!
//! Invariant: a [`TopicConfig`] that was resolved stays valid whatever the defaults become, for overrides are stored
//! as the client wrote them and checked when they are set.
//! It must not know where settings come from (flags, file, environment) nor wire versions.

pub mod broker;
mod broker_config;
mod describe;
mod group_config;
pub mod key;
mod topic_config;
pub mod topic_keys;

pub use broker_config::{BrokerConfig, Prepare, ReplicationFactorPolicy};
pub use describe::{ConfigEntry, ConfigSource, ConfigSynonym, describe_broker, describe_group, describe_topic};
pub use group_config::GroupConfig;
pub use key::ConfigError;
pub use topic_config::{AckAfter, CleanupPolicy, Overrides, TimestampType, TopicConfig, Validate};
