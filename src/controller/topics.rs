//! Requests about topics, judged against an image: what becomes a record, and what is refused with which words.
//!
//! Names, counts, assignments, configs and the replication-factor policy are decided here and nowhere else. Nothing
//! here changes anything.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::controller::apply::collision_key;
use crate::controller::image::{Image, TopicImage, locate};
use crate::controller::records::TopicCreated;
use crate::model::configs::{BrokerConfig, ConfigError, Overrides, ReplicationFactorPolicy, TopicConfig};
use crate::model::id::{BrokerId, PartitionIndex, TopicId};
use crate::model::limits::{
    CONFIG_VALUE_SIZE_BYTES_MAX, GROUP_CONFIG_COUNT_MAX, SHARD_PARTITION_COUNT_MAX, TOPIC_NAME_SIZE_BYTES_MAX,
    TOPIC_PARTITION_COUNT_MAX,
};

/// A topic that is to be created.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// How many partitions; -1: the broker's default, or as many as are assigned.
    pub partition_count: i32,
    /// How many replicas; -1: the broker's default, or as many as are assigned.
    pub replication_factor: i16,
    /// Brokers for each partition, leader first, in any order; empty: the controller places them.
    pub assignments: Vec<(PartitionIndex, Vec<BrokerId>)>,
    /// Its own settings; a value may be null on the wire, which is refused.
    pub configs: Vec<(String, Option<String>)>,
}

impl NewTopic {
    /// A topic with the broker's defaults.
    pub fn with_defaults(name: impl Into<String>) -> NewTopic {
        NewTopic { name: name.into(), partition_count: -1, replication_factor: -1, ..NewTopic::default() }
    }
}

/// A topic that was created, or would have been.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedTopic {
    /// Its identity; none if the request was only to be judged.
    pub id: TopicId,
    /// How many partitions it has.
    pub partition_count: i32,
    /// The replicas that it really has (or pretends to have, if the policy says so).
    pub replication_factor: i16,
    /// The replicas that were asked for: worth a warning where the two differ.
    pub replication_factor_asked: i16,
    /// Its own settings.
    pub configs: Arc<Overrides>,
}

/// How a request names a topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TopicRef {
    /// By name.
    Name(String),
    /// By id.
    Id(TopicId),
    /// By both, which is one too many.
    Both(String, TopicId),
    /// Not at all.
    Neither,
}

/// A topic that was deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletedTopicRef {
    /// Its identity.
    pub id: TopicId,
    /// Its name.
    pub name: Arc<str>,
}

/// Why a request about a topic is refused: the client's fault, but for the last two.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// The name cannot be a topic's.
    #[error("Topic name is invalid: {reason}")]
    InvalidName {
        /// Why not.
        reason: String,
    },
    /// There is a topic of that name.
    #[error("Topic '{name}' already exists.")]
    TopicExists {
        /// The name.
        name: String,
    },
    /// The name differs from another topic's only in `.` and `_`.
    #[error("Topic '{name}' collides with existing topic: {existing}")]
    NameCollision {
        /// The name.
        name: String,
        /// The other topic's.
        existing: String,
    },
    /// One request names the topic twice.
    #[error("Duplicate topic name.")]
    Duplicate,
    /// No topic can have so many partitions.
    #[error(
        "Number of partitions must be from 1 to {TOPIC_PARTITION_COUNT_MAX}, or -1 to use the default value, not {count}."
    )]
    InvalidPartitions {
        /// How many were asked for.
        count: i32,
    },
    /// A topic can only get more partitions than it has.
    #[error("{reason}")]
    NoMorePartitions {
        /// How many it has.
        reason: String,
    },
    /// No topic can have so many replicas.
    #[error("{reason}")]
    InvalidReplicationFactor {
        /// Why not.
        reason: String,
    },
    /// The assignment of brokers is not one.
    #[error("{reason}")]
    InvalidAssignment {
        /// Why not.
        reason: String,
    },
    /// Counts and assignments are both given.
    #[error("A manual partition assignment was specified, but {field} was not set to -1.")]
    InvalidRequest {
        /// The count that is too much.
        field: &'static str,
    },
    /// A setting is not one.
    #[error("{0}")]
    InvalidConfig(#[from] ConfigError),
    /// A setting has no value.
    #[error("Null value not supported for topic configs: {name}")]
    NullConfig {
        /// The setting.
        name: String,
    },
    /// A setting's value is too long.
    #[error("The value of topic config {name} is longer than {CONFIG_VALUE_SIZE_BYTES_MAX} bytes.")]
    LongConfig {
        /// The setting.
        name: String,
    },
    /// A change of the configs of a group without a name.
    #[error("Default group resources are not allowed.")]
    DefaultGroup,
    /// As many groups as there may be have settings of their own.
    #[error("{GROUP_CONFIG_COUNT_MAX} groups have configs of their own; take back those of others first.")]
    ManyGroups,
    /// A setting is no list, and has no entries to add or to take out.
    #[error("Can't {op} to key {name} because its type is not LIST.")]
    NotAList {
        /// What was to be done.
        op: &'static str,
        /// The setting.
        name: String,
    },
    /// Settings of no topic in particular.
    #[error("Default topic resources are not allowed.")]
    DefaultTopic,
    /// A topic is named in two ways.
    #[error("You may not specify both topic name and topic id.")]
    NameAndId,
    /// A topic is not named.
    #[error("Neither topic name nor id were specified.")]
    NeitherNameNorId,
    /// One request names the topic's id twice.
    #[error("Duplicate topic id.")]
    DuplicateId,
    /// No topic has that name.
    #[error("This server does not host this topic-partition.")]
    UnknownTopic,
    /// No topic has that id.
    #[error("This server does not host this topic ID.")]
    UnknownTopicId,
    /// `delete.topic.enable` is off.
    #[error("Topic deletion is disabled.")]
    DeletionDisabled,
    /// The cluster would have more partitions than its shards can carry.
    #[error("The cluster would have {count} partitions, and its {broker_count} shards carry at most {count_max}.")]
    PolicyViolation {
        /// Partitions that it would have.
        count: usize,
        /// Partitions that it may have.
        count_max: usize,
        /// Its brokers.
        broker_count: usize,
    },
}

/// Judges a new topic, which gets `id`, and gives its record and the replication factor that was asked for.
pub fn judge_creation(
    image: &Image,
    config: &BrokerConfig,
    new: &NewTopic,
    id: TopicId,
) -> Result<(TopicCreated, i16), TopicError> {
    check_name(&new.name)?;
    if image.topic_by_name(&new.name).is_some() {
        return Err(TopicError::TopicExists { name: new.name.clone() });
    }
    let collision = collision_key(&new.name).and_then(|key| image.names_by_collision.get(&*key));
    if let Some(existing) = collision {
        return Err(TopicError::NameCollision { name: new.name.clone(), existing: existing.to_string() });
    }
    let configs = judge_configs(config, given(&new.configs)?)?;
    let (partition_count, asked, assignments) = if new.assignments.is_empty() {
        let (partition_count, asked) = judge_counts(image, config, new)?;
        (partition_count, asked, Vec::new())
    } else {
        judge_assignments(image, new)?
    };
    let replication_factor = judge_replication_factor(image, config, asked)?;
    let assignments = match config.replication_factor_policy {
        ReplicationFactorPolicy::Pretend => assignments,
        _ => assignments.into_iter().map(one_per_node).collect(),
    };
    judge_partition_count(image, partition_count as usize)?;
    let name = new.name.clone();
    Ok((TopicCreated { id, name, partition_count, replication_factor, assignments, configs }, asked))
}

/// The topic that is to be deleted.
pub fn judge_deletion<'a>(
    image: &'a Image,
    config: &BrokerConfig,
    topic: &TopicRef,
) -> Result<&'a TopicImage, TopicError> {
    if !config.delete_topic_enable {
        return Err(TopicError::DeletionDisabled);
    }
    match topic {
        TopicRef::Name(name) => image.topic_by_name(name).ok_or(TopicError::UnknownTopic),
        TopicRef::Id(id) => image.topic(*id).ok_or(TopicError::UnknownTopicId),
        TopicRef::Both(..) => Err(TopicError::NameAndId),
        TopicRef::Neither => Err(TopicError::NeitherNameNorId),
    }
    .map(|topic| &**topic)
}

/// Refuses `added_count` more partitions than the cluster's shards carry.
pub(super) fn judge_partition_count(image: &Image, added_count: usize) -> Result<(), TopicError> {
    let count = image.partition_count() + added_count;
    let broker_count = image.brokers().len();
    let count_max = SHARD_PARTITION_COUNT_MAX * broker_count;
    match count > count_max {
        true => Err(TopicError::PolicyViolation { count, count_max, broker_count }),
        false => Ok(()),
    }
}

/// Accepts what can be a topic's name: it is part of a directory's name, and of the metrics of Kafka's tools.
pub fn check_name(name: &str) -> Result<(), TopicError> {
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let reason = if name.is_empty() {
        "the empty string is not allowed".to_owned()
    } else if name == "." || name == ".." {
        format!("'{name}' is not allowed")
    } else if name.len() > TOPIC_NAME_SIZE_BYTES_MAX {
        format!("its length {} is above the maximum of {TOPIC_NAME_SIZE_BYTES_MAX}", name.len())
    } else if !name.bytes().all(is_legal) {
        format!("'{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'")
    } else {
        return Ok(());
    };
    Err(TopicError::InvalidName { reason })
}

/// The settings as they were given; a null is none.
fn given(configs: &[(String, Option<String>)]) -> Result<Overrides, TopicError> {
    let given = configs.iter().map(|(name, value)| match value {
        Some(value) => Ok((name.clone(), value.clone())),
        None => Err(TopicError::NullConfig { name: name.clone() }),
    });
    given.collect()
}

/// Accepts a topic's settings, without the spaces around their values.
pub(super) fn judge_configs(config: &BrokerConfig, mut settings: Overrides) -> Result<Overrides, TopicError> {
    for (name, value) in &mut settings {
        if value.len() > CONFIG_VALUE_SIZE_BYTES_MAX {
            return Err(TopicError::LongConfig { name: name.clone() });
        }
        *value = value.trim().to_owned();
    }
    TopicConfig::resolve(config, &settings)?;
    Ok(settings)
}

fn judge_counts(image: &Image, config: &BrokerConfig, new: &NewTopic) -> Result<(i32, i16), TopicError> {
    let asked = match new.replication_factor {
        -1 => config.default_replication_factor,
        asked => asked,
    };
    if asked < 1 {
        let reason = "Replication factor must be larger than 0, or -1 to use the default value.".to_owned();
        return Err(TopicError::InvalidReplicationFactor { reason });
    }
    let broker_count = image.brokers().len();
    if asked as usize > broker_count {
        let reason = format!(
            "Unable to replicate the partition {asked} time(s): The target replication factor of {asked} cannot be \
             reached because only {broker_count} broker(s) are registered."
        );
        return Err(TopicError::InvalidReplicationFactor { reason });
    }
    let partition_count = match new.partition_count {
        -1 => config.num_partitions,
        count => count,
    };
    if !(1..=TOPIC_PARTITION_COUNT_MAX as i32).contains(&partition_count) {
        return Err(TopicError::InvalidPartitions { count: partition_count });
    }
    Ok((partition_count, asked))
}

/// The number of partitions, the replicas of each, and their brokers in the order of partitions.
fn judge_assignments(image: &Image, new: &NewTopic) -> Result<(i32, i16, Vec<Vec<BrokerId>>), TopicError> {
    let invalid = |reason: String| TopicError::InvalidAssignment { reason };
    if new.replication_factor != -1 {
        return Err(TopicError::InvalidRequest { field: "replication factor" });
    }
    if new.partition_count != -1 {
        return Err(TopicError::InvalidRequest { field: "numPartitions" });
    }
    let partition_count = new.assignments.len();
    if partition_count > TOPIC_PARTITION_COUNT_MAX {
        return Err(TopicError::InvalidPartitions { count: i32::try_from(partition_count).unwrap_or(i32::MAX) });
    }
    let replica_count = new.assignments[0].1.len();
    let mut by_partition: Vec<Option<&[BrokerId]>> = vec![None; partition_count];
    for (partition, brokers) in &new.assignments {
        let place = usize::try_from(partition.0).ok().and_then(|index| by_partition.get_mut(index));
        let place =
            place.ok_or_else(|| invalid("partitions should be a consecutive 0-based integer sequence".to_owned()))?;
        if place.replace(brokers).is_some() {
            return Err(invalid(format!("Found multiple manual partition assignments for partition {partition}")));
        }
        check_replicas(image, brokers, replica_count)?;
    }
    // As many entries as partitions, each in a place of its own: every place is filled.
    let assignments = by_partition.into_iter().flatten().map(<[BrokerId]>::to_vec).collect();
    Ok((partition_count as i32, replica_count as i16, assignments))
}

/// Accepts the brokers that a client chose for one partition of a topic with `replica_count` replicas.
pub(super) fn check_replicas(image: &Image, brokers: &[BrokerId], replica_count: usize) -> Result<(), TopicError> {
    let invalid = |reason: String| Err(TopicError::InvalidAssignment { reason });
    if brokers.is_empty() {
        return invalid("The manual partition assignment includes an empty replica list.".to_owned());
    }
    let mut seen = BTreeSet::new();
    for broker in brokers {
        if image.brokers().binary_search(broker).is_err() {
            return invalid(format!(
                "The manual partition assignment includes broker {broker}, but no such broker is registered."
            ));
        }
        if !seen.insert(broker) {
            return invalid(format!("The manual partition assignment includes the broker {broker} more than once."));
        }
    }
    if brokers.len() != replica_count {
        return invalid(format!(
            "The manual partition assignment includes a partition with {} replica(s), but this is not consistent \
             with previous partitions, which have {replica_count} replica(s).",
            brokers.len()
        ));
    }
    Ok(())
}

/// The replication factor that is answered. The replicas of a partition are on different nodes, whatever the number
/// of brokers that a node shows.
fn judge_replication_factor(image: &Image, config: &BrokerConfig, asked: i16) -> Result<i16, TopicError> {
    let node_count = i16::try_from(image.nodes().len()).unwrap_or(i16::MAX);
    match config.replication_factor_policy {
        ReplicationFactorPolicy::Pretend => Ok(asked),
        ReplicationFactorPolicy::Truthful => Ok(asked.min(node_count)),
        ReplicationFactorPolicy::Refuse if asked <= node_count => Ok(asked),
        ReplicationFactorPolicy::Refuse => {
            let reason = format!(
                "Replication factor {asked} is refused: the cluster has {node_count} node(s), and shards of one node \
                 are no replicas (ottla.replication.factor.policy=refuse)."
            );
            Err(TopicError::InvalidReplicationFactor { reason })
        }
    }
}

/// The brokers of an assignment that can be replicas of one another: the first of each node.
pub(super) fn one_per_node(brokers: Vec<BrokerId>) -> Vec<BrokerId> {
    let mut nodes = BTreeSet::new();
    brokers.into_iter().filter(|broker| nodes.insert(locate(*broker).0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::image::ClusterId;
    use crate::controller::records::Record;
    use crate::model::id::NodeId;
    use uuid::Uuid;

    fn image(shard_count: u16) -> Image {
        let mut image = Image::default();
        image.apply(&Record::ClusterCreated { cluster_id: ClusterId(Uuid::from_u128(1)) }).unwrap();
        image.apply(&Record::NodeStarted { node: NodeId(0), shard_count, format: 1 }).unwrap();
        image
    }

    fn config(settings: &[(&str, &str)]) -> BrokerConfig {
        BrokerConfig::parse(settings.iter().copied()).unwrap()
    }

    fn judge(settings: &[(&str, &str)], new: &NewTopic) -> Result<TopicCreated, TopicError> {
        judge_creation(&image(3), &config(settings), new, TopicId(Uuid::from_u128(9))).map(|(record, _)| record)
    }

    fn topic(partition_count: i32, replication_factor: i16) -> NewTopic {
        NewTopic { partition_count, replication_factor, ..NewTopic::with_defaults("t") }
    }

    fn assigned(assignments: &[(i32, &[i32])]) -> NewTopic {
        let assignment = |(partition, brokers): &(i32, &[i32])| {
            (PartitionIndex(*partition), brokers.iter().map(|broker| BrokerId(*broker)).collect())
        };
        NewTopic { assignments: assignments.iter().map(assignment).collect(), ..topic(-1, -1) }
    }

    #[test]
    fn names_are_those_that_kafka_accepts() {
        let longest = "n".repeat(249);
        for good in ["a", "A-b_c.9", "...", "__consumer_offsets", &longest] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        let too_long = "n".repeat(250);
        for bad in ["", ".", "..", "a b", "a/b", "ä", "a\0", &too_long] {
            assert!(matches!(check_name(bad), Err(TopicError::InvalidName { .. })), "{bad}");
        }
    }

    #[test]
    fn minus_one_is_the_brokers_default() {
        let settings = [("num.partitions", "6"), ("default.replication.factor", "2")];
        let record = judge(&settings, &NewTopic::with_defaults("t")).unwrap();
        assert_eq!((record.partition_count, record.replication_factor), (6, 1));
        assert_eq!(judge(&settings, &topic(4, 1)).unwrap().partition_count, 4);
    }

    #[test]
    fn counts_that_cannot_be_are_refused() {
        for count in [0, -2, i32::MIN, TOPIC_PARTITION_COUNT_MAX as i32 + 1, i32::MAX] {
            assert_eq!(judge(&[], &topic(count, 1)), Err(TopicError::InvalidPartitions { count }));
        }
        for factor in [0, -2, 4, i16::MAX] {
            let result = judge(&[], &topic(1, factor));
            assert!(matches!(result, Err(TopicError::InvalidReplicationFactor { .. })), "{factor}");
        }
    }

    #[test]
    fn a_replication_factor_is_answered_as_the_policy_says() {
        let factor = |policy, asked| {
            judge(&[("ottla.replication.factor.policy", policy)], &topic(1, asked))
                .map(|record| record.replication_factor)
        };
        assert_eq!((factor("truthful", 1), factor("truthful", 3)), (Ok(1), Ok(1)));
        assert_eq!((factor("pretend", 1), factor("pretend", 3)), (Ok(1), Ok(3)));
        assert_eq!(factor("refuse", 1), Ok(1));
        assert!(matches!(factor("refuse", 2), Err(TopicError::InvalidReplicationFactor { .. })));
    }

    #[test]
    fn a_chosen_assignment_is_kept_in_the_order_of_partitions() {
        let record = judge(&[], &assigned(&[(1, &[3]), (0, &[2])])).unwrap();
        assert_eq!(record.partition_count, 2);
        assert_eq!(record.assignments, [vec![BrokerId(2)], vec![BrokerId(3)]]);
        // Shards of one node are no replicas: the leader stays, unless the policy pretends.
        let both = assigned(&[(0, &[2, 1])]);
        let record = judge(&[], &both).unwrap();
        assert_eq!((record.assignments, record.replication_factor), (vec![vec![BrokerId(2)]], 1));
        let record = judge(&[("ottla.replication.factor.policy", "pretend")], &both).unwrap();
        assert_eq!((record.assignments, record.replication_factor), (vec![vec![BrokerId(2), BrokerId(1)]], 2));
    }

    #[test]
    fn assignments_that_are_none_are_refused() {
        let cases: [&[(i32, &[i32])]; 7] = [
            &[(0, &[4])],
            &[(0, &[])],
            &[(0, &[1, 1])],
            &[(0, &[1]), (0, &[2])],
            &[(0, &[1]), (2, &[2])],
            &[(-1, &[1])],
            &[(0, &[1, 2]), (1, &[1])],
        ];
        for case in cases {
            let result = judge(&[], &assigned(case));
            assert!(matches!(result, Err(TopicError::InvalidAssignment { .. })), "{case:?}: {result:?}");
        }
        let with_count = NewTopic { partition_count: 1, ..assigned(&[(0, &[1])]) };
        assert!(matches!(judge(&[], &with_count), Err(TopicError::InvalidRequest { .. })));
        let with_factor = NewTopic { replication_factor: 1, ..assigned(&[(0, &[1])]) };
        assert!(matches!(judge(&[], &with_factor), Err(TopicError::InvalidRequest { .. })));
    }

    #[test]
    fn configs_are_checked_when_they_are_set() {
        let with = |name: &str, value: Option<&str>| {
            let configs = vec![(name.to_owned(), value.map(str::to_owned))];
            judge(&[], &NewTopic { configs, ..topic(1, 1) }).map(|record| record.configs)
        };
        assert_eq!(with("retention.ms", Some(" 5 ")), Ok(Overrides::from([("retention.ms".into(), "5".into())])));
        assert!(matches!(with("retention.m", Some("5")), Err(TopicError::InvalidConfig(_))));
        assert!(matches!(with("retention.ms", Some("x")), Err(TopicError::InvalidConfig(_))));
        assert!(matches!(with("retention.ms", None), Err(TopicError::NullConfig { .. })));
        let long = "x".repeat(40_000);
        let result = with("leader.replication.throttled.replicas", Some(&long));
        assert!(matches!(result, Err(TopicError::LongConfig { .. })));
    }

    #[test]
    fn a_name_that_is_taken_or_collides_is_refused() {
        let mut image = image(1);
        let config = config(&[]);
        let create = |image: &Image, name: &str, id: u128| {
            judge_creation(image, &config, &NewTopic::with_defaults(name), TopicId(Uuid::from_u128(id)))
        };
        let (record, _) = create(&image, "a.b", 1).unwrap();
        image.apply(&Record::TopicCreated(record)).unwrap();
        assert!(matches!(create(&image, "a.b", 2), Err(TopicError::TopicExists { .. })));
        let error = create(&image, "a_b", 2).unwrap_err();
        assert_eq!(error.to_string(), "Topic 'a_b' collides with existing topic: a.b");
        assert!(create(&image, "a-b", 2).is_ok());
        image.apply(&Record::TopicDeleted { topic: TopicId(Uuid::from_u128(1)) }).unwrap();
        assert!(create(&image, "a_b", 2).is_ok());
    }

    #[test]
    fn more_partitions_than_the_shards_carry_are_refused() {
        let mut image = image(1);
        let config = config(&[]);
        let new = NewTopic { partition_count: TOPIC_PARTITION_COUNT_MAX as i32, ..NewTopic::with_defaults("big") };
        let (record, _) = judge_creation(&image, &config, &new, TopicId(Uuid::from_u128(1))).unwrap();
        image.apply(&Record::TopicCreated(record)).unwrap();
        let result = judge_creation(&image, &config, &NewTopic::with_defaults("one"), TopicId(Uuid::from_u128(2)));
        assert!(matches!(result, Err(TopicError::PolicyViolation { .. })));
    }

    #[test]
    fn deletion_is_by_name_or_id_and_may_be_switched_off() {
        let mut image = image(1);
        let id = TopicId(Uuid::from_u128(1));
        let (record, _) = judge_creation(&image, &config(&[]), &NewTopic::with_defaults("t"), id).unwrap();
        image.apply(&Record::TopicCreated(record)).unwrap();
        let judge = |settings: &[(&str, &str)], topic| judge_deletion(&image, &config(settings), &topic).map(|t| t.id);
        assert_eq!(judge(&[], TopicRef::Name("t".into())), Ok(id));
        assert_eq!(judge(&[], TopicRef::Id(id)), Ok(id));
        assert_eq!(judge(&[], TopicRef::Name("u".into())), Err(TopicError::UnknownTopic));
        assert_eq!(judge(&[], TopicRef::Id(TopicId(Uuid::from_u128(2)))), Err(TopicError::UnknownTopicId));
        assert_eq!(judge(&[("delete.topic.enable", "false")], TopicRef::Id(id)), Err(TopicError::DeletionDisabled));
    }
}
