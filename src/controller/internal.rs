//! Topics that the broker keeps for itself: what they are created with, whoever asks first.
//!
//! It must not know what is in them.

use crate::controller::topics::NewTopic;
use crate::coordinator::{OFFSETS_TOPIC, TRANSACTIONS_TOPIC};
use crate::model::configs::BrokerConfig;

/// The least `segment.bytes` that a topic may have. `offsets.topic.segment.bytes` may be smaller, and the topic must be
/// created nevertheless.
const SEGMENT_BYTES_MIN: i32 = 1024 * 1024;

/// The topic as the broker creates it, if `name` is one that it makes for itself.
pub fn internal_topic(config: &BrokerConfig, name: &str) -> Option<NewTopic> {
    let setting = |key: &str, value: String| (key.to_owned(), Some(value));
    let (partition_count, segment_bytes) = match name {
        OFFSETS_TOPIC => (config.offsets_topic_num_partitions, config.offsets_topic_segment_bytes),
        TRANSACTIONS_TOPIC => (config.transaction_state_log_num_partitions, config.transaction_state_log_segment_bytes),
        _ => return None,
    };
    Some(NewTopic {
        partition_count,
        replication_factor: 1,
        configs: vec![
            setting("cleanup.policy", "compact".to_owned()),
            setting("compression.type", "producer".to_owned()),
            setting("segment.bytes", segment_bytes.max(SEGMENT_BYTES_MIN).to_string()),
        ],
        ..NewTopic::with_defaults(name)
    })
}

/// A topic that a client creates, by hand or by a tool that copies topics. One of the broker's own gets its settings
/// where the client gives none.
pub fn with_internal_settings(config: &BrokerConfig, mut topic: NewTopic) -> NewTopic {
    if let Some(internal) = internal_topic(config, &topic.name) {
        if topic.assignments.is_empty() && topic.partition_count == -1 {
            topic.partition_count = internal.partition_count;
        }
        let own = std::mem::replace(&mut topic.configs, internal.configs);
        topic.configs.retain(|(key, _)| own.iter().all(|(own, _)| own != key));
        topic.configs.extend(own);
    }
    topic
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offsets_topic_gets_its_settings_whoever_creates_it() {
        let config = BrokerConfig::parse([("offsets.topic.num.partitions", "7")]).unwrap();
        let internal = internal_topic(&config, OFFSETS_TOPIC).expect("it is internal");
        assert_eq!(internal.partition_count, 7);
        assert!(internal.configs.contains(&("segment.bytes".into(), Some("104857600".into()))));
        assert_eq!(internal_topic(&config, "flights"), None);
        let transactions = internal_topic(&config, TRANSACTIONS_TOPIC).expect("it is internal");
        assert_eq!(transactions.partition_count, 50);

        let given = NewTopic {
            configs: vec![("segment.bytes".into(), Some("2000000".into()))],
            ..NewTopic::with_defaults(OFFSETS_TOPIC)
        };
        let created = with_internal_settings(&config, given);
        assert_eq!((created.partition_count, created.configs.len()), (7, 3));
        assert!(created.configs.contains(&("segment.bytes".into(), Some("2000000".into()))));
        assert!(created.configs.contains(&("cleanup.policy".into(), Some("compact".into()))));
        let other = NewTopic::with_defaults("flights");
        assert_eq!(with_internal_settings(&config, other.clone()), other);
    }
}
