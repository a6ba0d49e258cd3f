//! Groups of the consumer protocol on this shard: what they are told, what they want done, and their way to and from
//! the classic protocol.
//!
//! As with classic groups an event's effects are carried out at once. A change is written with
//! [`Continuation::ConsumerGroup`], which carries the answer that waits for it.

use std::sync::Arc;
use std::time::Duration;

use super::append::Continuation;
use super::{HostState, Hosted, Place};
use crate::controller::image::Image;
use crate::coordinator::consumer_group::assignor::Assignor;
use crate::coordinator::consumer_group::change::Change;
use crate::coordinator::consumer_group::event::{Answer, Context, Effect, Settings, Timeouts, Written};
use crate::coordinator::consumer_group::{ConsumerGroups, Topic, Topics, records};
use crate::handlers::broker::Broker;
use crate::handlers::call::Call;
use crate::handlers::errors;
use crate::handlers::metadata::is_internal;
use crate::io::Io;
use crate::model::configs::{BrokerConfig, GroupConfig, Overrides};
use crate::model::id::TopicId;
use crate::protocol::error::ErrorCode;

/// A change of a group that is on its way, and the answer that waits for it.
#[derive(Debug)]
pub(in crate::handlers) struct ConsumerGroupWrite {
    written: Written,
    answer: Option<(Call, Answer)>,
}

/// The topics of an image, as groups see them.
struct Catalog<'a> {
    image: &'a Image,
    version: u64,
}

impl Topics for Catalog<'_> {
    fn version(&self) -> u64 {
        self.version
    }

    fn count(&self) -> usize {
        self.image.topic_count()
    }

    fn find(&self, name: &str) -> Option<Topic> {
        let topic = self.image.topic_by_name(name)?;
        Some(Topic { id: topic.id, partition_count: topic.partition_count })
    }

    fn name_of(&self, id: TopicId) -> Option<&str> {
        self.image.topic(id).map(|topic| &*topic.name)
    }

    fn visit_names(&self, visit: &mut dyn FnMut(&str)) {
        self.image.topics().filter(|topic| !is_internal(&topic.name)).for_each(|topic| visit(&topic.name));
    }
}

impl<I: Io> Broker<I> {
    /// The image has replaced `before`: whether groups are to look at their topics, or at their configs, again.
    pub(in crate::handlers) fn note_groups(&mut self, before: &Image) {
        let image = &self.image;
        let is_other = |id: TopicId, count: i32| before.topic(id).is_none_or(|old| old.partition_count != count);
        let has_changed = before.topic_count() != image.topic_count()
            || image.topics_changed_since(before).any(|topic| is_other(topic.id, topic.partition_count));
        self.coordinator.topics_version += u64::from(has_changed);
        if !Arc::ptr_eq(before.group_configs(), image.group_configs()) {
            self.coordinator.consumer_settings = None;
        }
    }

    /// Lets an event happen to the groups of the consumer protocol of a partition, and carries out its effects. `None`
    /// if it has no coordinator here.
    pub(super) fn with_consumer_groups<R>(
        &mut self,
        index: Place,
        event: impl FnOnce(&mut ConsumerGroups, &mut Context<'_, Call>) -> R,
    ) -> Option<R> {
        let settings = self.consumer_settings();
        let image = Arc::clone(&self.image);
        let topics = Catalog { image: &image, version: self.coordinator.topics_version };
        let hosted = self.coordinator.partitions.get_mut(&index)?;
        let mut effects = Vec::new();
        let mut context =
            Context { now: self.now, settings: &settings, topics: &topics, rng: &mut self.rng, effects: &mut effects };
        let result = event(&mut hosted.consumer_groups, &mut context);
        let next = hosted.consumer_groups.next_deadline();
        self.look_at_groups_by(next);
        for effect in effects {
            match effect {
                Effect::Answer(call, answer) => self.answer_consumer(call, answer),
                Effect::Write(written, changes, answer) => self.write_consumer_group(index, written, changes, answer),
                Effect::Downgrade(migrant, written, mut changes, answer) => {
                    let snapshot = self.with_groups(index, |groups, context| groups.immigrate(migrant, context));
                    changes.push(Change::Classic(snapshot));
                    self.write_consumer_group(index, written, changes, answer);
                }
            }
        }
        Some(result)
    }

    fn write_consumer_group(
        &mut self,
        index: Place,
        written: Written,
        changes: Vec<Change>,
        answer: Option<(Call, Answer)>,
    ) {
        let records = changes.iter().map(|change| records::encode(&written.group_id, change)).collect();
        let write = ConsumerGroupWrite { written, answer };
        self.coordinator_append(index, records, Continuation::ConsumerGroup(Box::new(write)));
    }

    /// The records of a change are durable, or were refused.
    pub(super) fn consumer_group_written(
        &mut self,
        index: Place,
        write: ConsumerGroupWrite,
        result: Result<(), ErrorCode>,
    ) {
        let result = result.map_err(errors::to_group);
        if let Some((call, answer)) = write.answer {
            let answer = match result {
                Ok(()) => answer,
                Err(error) => answer.refused(error),
            };
            self.answer_consumer(call, answer);
        }
        let now = self.now;
        if let Some(hosted) = self.coordinator.partitions.get_mut(&index)
            && hosted.state == HostState::Active
        {
            hosted.consumer_groups.written(write.written, result, now);
            let next = hosted.consumer_groups.next_deadline();
            self.look_at_groups_by(next);
        }
    }

    fn answer_consumer(&mut self, call: Call, answer: Answer) {
        match answer {
            Answer::Heartbeat(result) => self.answer_consumer_heartbeat(call, result),
            Answer::Join(result) => self.answer_join(call, result),
            Answer::Sync(result) => self.answer_sync(call, result),
        }
    }

    /// True if members of the classic protocol are answered by a group of the consumer protocol, which has members.
    pub(super) fn is_consumer_group(&self, index: Place, group_id: &str) -> bool {
        self.coordinator.hosted(index).is_some_and(|hosted| hosted.consumer_groups.has_members(group_id))
    }

    /// A classic member joins a group that no member of the consumer protocol is in: one without members goes.
    pub(super) fn make_room_for_classic(&mut self, index: Place, group_id: &str) {
        let hosted = self.coordinator.hosted(index);
        if hosted.is_some_and(|hosted| hosted.consumer_groups.has_group(group_id)) {
            self.with_consumer_groups(index, |groups, context| groups.make_room(group_id, context));
        }
    }

    /// What the operator decided about these groups. Only configs of groups change while the broker runs.
    pub(super) fn consumer_settings(&mut self) -> Arc<Settings> {
        let (config, image) = (&self.options.config, &self.image);
        self.coordinator.consumer_settings.get_or_insert_with(|| Arc::new(settings(config, image))).clone()
    }

    /// Fails if groups of the consumer protocol are not offered (`group.coordinator.rebalance.protocols`).
    pub(super) fn check_consumer_protocol(&self) -> Result<(), ErrorCode> {
        match self.options.config.group_consumer_enable {
            true => Ok(()),
            false => Err(ErrorCode::UnsupportedVersion),
        }
    }
}

impl Hosted {
    /// Whether somebody may ask for what a group has committed, as far as the group has something to say about it.
    pub(super) fn check_fetch(&self, group: &str, member: Option<&str>, epoch: i32) -> Result<(), ErrorCode> {
        let checked = self.consumer_groups.check_fetch(group, member, epoch);
        checked.unwrap_or(Ok(())).map_err(|error| errors::of_group(&error))
    }
}

fn settings(config: &BrokerConfig, image: &Image) -> Settings {
    let assignors: Vec<Assignor> =
        config.group_consumer_assignors.iter().filter_map(|name| Assignor::find(name)).collect();
    let policy = &*config.group_consumer_migration_policy;
    let timeouts = |overrides: &Overrides| {
        let group = GroupConfig::resolve(config, overrides);
        Timeouts {
            session: Duration::from_millis(group.session_timeout_ms),
            heartbeat_interval: Duration::from_millis(group.heartbeat_interval_ms),
        }
    };
    let own = image.group_configs().iter();
    Settings {
        timeouts: timeouts(&Overrides::new()),
        timeouts_of: own.map(|(group_id, overrides)| (group_id.clone(), timeouts(overrides))).collect(),
        member_count_max: config.group_consumer_max_size,
        classic_member_count_max: config.group_max_size,
        assignors,
        can_upgrade: matches!(policy, "bidirectional" | "upgrade"),
        can_downgrade: matches!(policy, "bidirectional" | "downgrade"),
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::controller::image::ClusterId;
    use crate::controller::records::Record;

    #[test]
    fn what_is_not_set_is_kafkas_and_groups_have_their_own() {
        let mut image = Image::default();
        let known = settings(&BrokerConfig::default(), &image);
        let kafkas = Timeouts { session: Duration::from_secs(45), heartbeat_interval: Duration::from_secs(5) };
        assert_eq!(known.timeouts("g"), kafkas);
        assert_eq!(known.assignors, [Assignor::Uniform, Assignor::Range]);
        assert!(known.can_upgrade && known.can_downgrade);
        let config = BrokerConfig::parse([
            ("group.consumer.session.timeout.ms", "90000"),
            ("group.consumer.assignors", "range"),
            ("group.consumer.migration.policy", "upgrade"),
        ])
        .unwrap();
        image.apply(&Record::ClusterCreated { cluster_id: ClusterId(Uuid::from_u128(1)) }).unwrap();
        let configs = Overrides::from([("consumer.session.timeout.ms".into(), "50000".into())]);
        image.apply(&Record::GroupConfigChanged { group: "g".into(), configs }).unwrap();
        let known = settings(&config, &image);
        assert_eq!(known.timeouts("g").session, Duration::from_secs(50));
        assert_eq!((known.timeouts("h").session, known.assignors), (Duration::from_secs(60), vec![Assignor::Range]));
        assert!(known.can_upgrade && !known.can_downgrade);
    }
}
