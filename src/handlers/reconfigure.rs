//! Changed settings of topics take effect on the partitions that this shard leads, when their image comes.
//!
//! Nothing is restarted: a log has its options from one call to the next, and what the handlers look at is the
//! partition's own copy of its topic's values. Until the image is applied here nobody was told that the change is
//! made, for the controller waits for every shard.

use super::broker::Broker;
use crate::controller::image::Image;
use crate::io::Io;
use crate::model::id::TopicIdPartition;

impl<I: Io> Broker<I> {
    /// The image has replaced `before`: topics whose settings differ get their new ones.
    pub(super) fn reconfigure(&mut self, before: &Image) {
        let image = self.image.clone();
        for topic in image.topics_changed_since(before) {
            // A topic that is new has no partition here yet.
            if before.topic(topic.id).is_none_or(|old| old.configs == topic.configs) {
                continue;
            }
            let config = self.config_of(topic);
            let options = self.log_options(&config);
            for index in topic.partitions() {
                let id = TopicIdPartition { topic: topic.id, partition: index };
                let Some(slot) = self.partitions.find(id) else { continue };
                let partition = self.partitions.get_mut(slot);
                partition.config = config.clone();
                let events = partition.log.set_options(&mut self.io, options);
                self.react(slot, events);
            }
        }
    }
}
