//! Changes of a topic's or a group's configs, judged against an image: the core that AlterConfigs and IncrementalAlterConfigs share.
//!
//! A change gives the topic's whole new settings, which are checked by the same table as those of a new topic, so
//! what could not be created cannot be altered into being either. Kafka's order of judging is kept: a wrong config is
//! told before it is told that there is no such topic.
//!
//! Nothing here changes anything.

use std::collections::BTreeMap;

use crate::controller::image::Image;
use crate::controller::records::Record;
use crate::controller::topics::{TopicError, check_name, judge_configs};
use crate::model::configs::key::{ConfigType, list};
use crate::model::configs::{BrokerConfig, GroupConfig, Overrides, topic_keys};
use crate::model::limits::GROUP_CONFIG_COUNT_MAX;

/// What has settings that can be changed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConfigResource {
    /// The topic of this name.
    Topic(String),
    /// The group of this id, which need not be there.
    Group(String),
}

/// What becomes of the settings of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigChange {
    /// They are these and no others (AlterConfigs).
    Replace(BTreeMap<String, String>),
    /// Each of these is changed (IncrementalAlterConfigs).
    Edit(BTreeMap<String, ConfigOp>),
}

/// What becomes of one setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigOp {
    /// It gets this value.
    Set(String),
    /// It is taken back; the broker's value holds again.
    Delete,
    /// These entries are added to its list, unless they are there.
    Append(String),
    /// These entries are taken out of its list.
    Subtract(String),
}

/// Judges a change: its record, or `None` if nothing would be different.
pub fn judge_alteration(
    image: &Image,
    config: &BrokerConfig,
    resource: &ConfigResource,
    change: &ConfigChange,
) -> Result<Option<Record>, TopicError> {
    match resource {
        ConfigResource::Topic(name) => judge_topic(image, config, name, change),
        ConfigResource::Group(group) => judge_group(image, config, group, change),
    }
}

fn judge_group(
    image: &Image,
    config: &BrokerConfig,
    group: &str,
    change: &ConfigChange,
) -> Result<Option<Record>, TopicError> {
    if group.is_empty() {
        return Err(TopicError::DefaultGroup);
    }
    let before = image.group_configs().get(group).cloned().unwrap_or_default();
    let after = match change {
        ConfigChange::Replace(settings) => settings.clone(),
        ConfigChange::Edit(ops) => edited(&before, ops)?,
    };
    GroupConfig::check(config, &after)?;
    let after: Overrides = after.into_iter().map(|(name, value)| (name, value.trim().to_owned())).collect();
    if before.is_empty() && !after.is_empty() && image.group_configs().len() >= GROUP_CONFIG_COUNT_MAX {
        return Err(TopicError::ManyGroups);
    }
    Ok((after != before).then(|| Record::GroupConfigChanged { group: group.to_owned(), configs: after }))
}

fn judge_topic(
    image: &Image,
    config: &BrokerConfig,
    name: &str,
    change: &ConfigChange,
) -> Result<Option<Record>, TopicError> {
    if name.is_empty() {
        return Err(TopicError::DefaultTopic);
    }
    check_name(name)?;
    let topic = image.topic_by_name(name);
    let before = topic.map(|topic| topic.configs.clone()).unwrap_or_default();
    let after = match change {
        ConfigChange::Replace(settings) => settings.clone(),
        ConfigChange::Edit(ops) => edited(&before, ops)?,
    };
    let after = judge_configs(config, after)?;
    let topic = topic.ok_or(TopicError::UnknownTopic)?;
    Ok((after != *before).then_some(Record::TopicConfigChanged { topic: topic.id, configs: after }))
}

fn edited(before: &Overrides, ops: &BTreeMap<String, ConfigOp>) -> Result<Overrides, TopicError> {
    let mut after = before.clone();
    for (name, op) in ops {
        match op {
            ConfigOp::Set(value) => drop(after.insert(name.clone(), value.clone())),
            // Of a name that nobody knows as well: it is not set afterwards.
            ConfigOp::Delete => drop(after.remove(name)),
            ConfigOp::Append(value) => {
                let mut entries = entries(&after, name, "APPEND")?;
                for entry in list(value) {
                    if !entries.iter().any(|there| there == entry) {
                        entries.push(entry.to_owned());
                    }
                }
                after.insert(name.clone(), entries.join(","));
            }
            ConfigOp::Subtract(value) => {
                let mut entries = entries(&after, name, "SUBTRACT")?;
                entries.retain(|there| !list(value).any(|entry| entry == there));
                after.insert(name.clone(), entries.join(","));
            }
        }
    }
    Ok(after)
}

/// The list that a setting is: its own value, else Kafka's default (not the broker's, as Kafka has it).
fn entries(settings: &Overrides, name: &str, op: &'static str) -> Result<Vec<String>, TopicError> {
    let key = topic_keys::find(name).ok().map(|row| row.key).filter(|key| key.config_type == ConfigType::List);
    let key = key.ok_or_else(|| TopicError::NotAList { op, name: name.to_owned() })?;
    let value = settings.get(name).map(String::as_str).or(key.default).unwrap_or_default();
    Ok(list(value).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::controller::image::ClusterId;
    use crate::controller::records::TopicCreated;
    use crate::model::id::{NodeId, TopicId};

    fn image(configs: &[(&str, &str)]) -> Image {
        let mut image = Image::default();
        image.apply(&Record::ClusterCreated { cluster_id: ClusterId(Uuid::from_u128(1)) }).unwrap();
        image.apply(&Record::NodeStarted { node: NodeId(0), shard_count: 1, format: 1 }).unwrap();
        let created = TopicCreated {
            id: TopicId(Uuid::from_u128(9)),
            name: "t".into(),
            partition_count: 1,
            replication_factor: 1,
            assignments: Vec::new(),
            configs: settings(configs),
        };
        image.apply(&Record::TopicCreated(created)).unwrap();
        image
    }

    fn settings(configs: &[(&str, &str)]) -> Overrides {
        configs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    /// What a topic with settings `before` has after `ops`; `None`: nothing is written.
    fn edit(before: &[(&str, &str)], ops: &[(&str, ConfigOp)]) -> Result<Option<Overrides>, TopicError> {
        let ops = ops.iter().map(|(name, op)| (name.to_string(), op.clone())).collect();
        let record = judge_topic(&image(before), &BrokerConfig::default(), "t", &ConfigChange::Edit(ops))?;
        Ok(record.map(|record| match record {
            Record::TopicConfigChanged { topic, configs } => {
                assert_eq!(topic, TopicId(Uuid::from_u128(9)));
                configs
            }
            other => panic!("{other:?}"),
        }))
    }

    fn set(value: &str) -> ConfigOp {
        ConfigOp::Set(value.into())
    }

    #[test]
    fn settings_are_set_and_taken_back_one_by_one_and_the_others_stay() {
        let before = [("retention.ms", "5"), ("segment.bytes", "1048576")];
        let after = edit(&before, &[("retention.ms", set(" 7 ")), ("flush.ms", set("9"))]);
        let expected = [("retention.ms", "7"), ("segment.bytes", "1048576"), ("flush.ms", "9")];
        assert_eq!(after, Ok(Some(settings(&expected))));
        let after = edit(&before, &[("retention.ms", ConfigOp::Delete)]);
        assert_eq!(after, Ok(Some(settings(&[("segment.bytes", "1048576")]))));
    }

    #[test]
    fn what_changes_nothing_writes_nothing() {
        let before = [("retention.ms", "5")];
        assert_eq!(edit(&before, &[("retention.ms", set("5"))]), Ok(None));
        assert_eq!(edit(&before, &[("segment.ms", ConfigOp::Delete)]), Ok(None));
        // As Kafka: what nobody knows is not set afterwards, which is what was asked for.
        assert_eq!(edit(&before, &[("no.such.config", ConfigOp::Delete)]), Ok(None));
        assert_eq!(edit(&before, &[]), Ok(None));
    }

    #[test]
    fn lists_are_appended_to_and_subtracted_from() {
        let policy = |before: &[(&str, &str)], op| {
            edit(before, &[("cleanup.policy", op)]).map(|after| after.map(|after| after["cleanup.policy"].clone()))
        };
        let append = |value: &str| ConfigOp::Append(value.into());
        let subtract = |value: &str| ConfigOp::Subtract(value.into());
        // Without a value of its own the list begins with the default.
        assert_eq!(policy(&[], append("compact")), Ok(Some("delete,compact".into())));
        assert_eq!(policy(&[("cleanup.policy", "compact")], append("compact")), Ok(None));
        let both = [("cleanup.policy", "delete,compact")];
        assert_eq!(policy(&both, subtract("delete")), Ok(Some("compact".into())));
        assert_eq!(policy(&both, subtract("delete, unknown")), Ok(Some("compact".into())));
        // Nothing left is no policy.
        assert!(matches!(policy(&both, subtract("delete,compact")), Err(TopicError::InvalidConfig(_))));
        assert!(matches!(policy(&[], append("shrink")), Err(TopicError::InvalidConfig(_))));
        for name in ["retention.ms", "no.such.config"] {
            let result = edit(&[], &[(name, append("5"))]);
            assert_eq!(result, Err(TopicError::NotAList { op: "APPEND", name: name.into() }));
        }
    }

    #[test]
    fn a_replacement_leaves_nothing_of_what_was_there() {
        let image = image(&[("retention.ms", "5"), ("flush.ms", "6")]);
        let judge = |configs: &[(&str, &str)]| {
            judge_topic(&image, &BrokerConfig::default(), "t", &ConfigChange::Replace(settings(configs)))
        };
        let topic = TopicId(Uuid::from_u128(9));
        let configs = settings(&[("retention.ms", "7")]);
        assert_eq!(judge(&[("retention.ms", "7")]), Ok(Some(Record::TopicConfigChanged { topic, configs })));
        let configs = Overrides::new();
        assert_eq!(judge(&[]), Ok(Some(Record::TopicConfigChanged { topic, configs })));
        assert_eq!(judge(&[("flush.ms", "6"), ("retention.ms", "5")]), Ok(None));
    }

    #[test]
    fn what_a_new_topic_may_not_have_an_old_one_cannot_get() {
        let refused = |name: &str, value: &str| edit(&[], &[(name, set(value))]).unwrap_err();
        assert!(matches!(refused("retention.m", "5"), TopicError::InvalidConfig(_)));
        assert!(matches!(refused("retention.ms", "soon"), TopicError::InvalidConfig(_)));
        assert!(matches!(refused("remote.storage.enable", "true"), TopicError::InvalidConfig(_)));
        assert!(matches!(refused("num.partitions", "5"), TopicError::InvalidConfig(_)));
        let long = "1:2,".repeat(10_000);
        assert!(matches!(refused("leader.replication.throttled.replicas", &long), TopicError::LongConfig { .. }));
    }

    #[test]
    fn a_topic_must_be_named_and_exist_but_its_configs_are_judged_first() {
        let judge = |name: &str, value: &str| {
            let change = ConfigChange::Edit(BTreeMap::from([("retention.ms".to_owned(), set(value))]));
            judge_topic(&image(&[]), &BrokerConfig::default(), name, &change).unwrap_err()
        };
        assert_eq!(judge("", "5"), TopicError::DefaultTopic);
        assert!(matches!(judge("a/b", "5"), TopicError::InvalidName { .. }));
        assert_eq!(judge("other", "5"), TopicError::UnknownTopic);
        assert!(matches!(judge("other", "soon"), TopicError::InvalidConfig(_)));
    }

    #[test]
    fn a_groups_settings_are_changed_whether_the_group_is_there_or_not() {
        let mut image = image(&[]);
        let change = |image: &Image, group: &str, ops: &[(&str, ConfigOp)]| {
            let ops = ops.iter().map(|(name, op)| (name.to_string(), op.clone())).collect();
            let resource = ConfigResource::Group(group.into());
            judge_alteration(image, &BrokerConfig::default(), &resource, &ConfigChange::Edit(ops))
        };
        const SESSION: &str = "consumer.session.timeout.ms";
        let record = change(&image, "g", &[(SESSION, set(" 50000 "))]).unwrap().unwrap();
        let configs = settings(&[(SESSION, "50000")]);
        assert_eq!(record, Record::GroupConfigChanged { group: "g".into(), configs });
        image.apply(&record).unwrap();
        assert_eq!(change(&image, "g", &[(SESSION, set("50000"))]), Ok(None));
        let taken_back = change(&image, "g", &[(SESSION, ConfigOp::Delete)]).unwrap().unwrap();
        assert_eq!(taken_back, Record::GroupConfigChanged { group: "g".into(), configs: Overrides::new() });
        // The operator's bounds, names that are none, and no name.
        assert!(matches!(change(&image, "g", &[(SESSION, set("1"))]), Err(TopicError::InvalidConfig(_))));
        assert!(matches!(change(&image, "g", &[("retention.ms", set("1"))]), Err(TopicError::InvalidConfig(_))));
        assert!(matches!(
            change(&image, "g", &[(SESSION, ConfigOp::Append("1".into()))]),
            Err(TopicError::NotAList { .. })
        ));
        assert_eq!(change(&image, "", &[]), Err(TopicError::DefaultGroup));
    }
}
