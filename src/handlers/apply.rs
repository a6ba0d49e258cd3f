//! A new image of the metadata: what it changes on this shard, deletions above all.
//!
//! A deletion is durable before its image comes. The partition's directory is renamed away, then removed file by file;
//! when all of a topic's directories on this shard are gone the controller is told: until then its name is not free.
//! What fails is tried again, less and less often. What a stop interrupts, the next start finishes
//! ([`Broker::remove_left_over`]).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use std::collections::BTreeMap;
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::broker::Broker;
use super::bus::{CONTROLLER, Message};
use super::partitions::Partition;
use super::token::{self, Kind};
use crate::base::coverage;
use crate::base::mutant;
use crate::base::time::Monotonic;
use crate::controller::controller::Event;
use crate::controller::image::{DeletedTopic, Image};
use crate::io::{Completion, Io, Op, OpenOptions, Outcome};
use crate::model::configs::TopicConfig;
use crate::model::id::{PartitionIndex, TopicId, TopicIdPartition};
use crate::protocol::error::ErrorCode;
use crate::storage::layout::{self, FileName};
use crate::storage::{Events, Identity, Log, Removal};

/// How long a directory that could not be renamed or removed is left alone at first, and at most. Whoever waits for
/// its name waits for that; a disk that fails for good is asked once a minute.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// Deleted topics whose directories this shard is removing: how many of them are left, and the removals under way.
#[derive(Default)]
pub struct Removals {
    left: FxHashMap<TopicId, usize>,
    /// Those that the start could not finish, until the first image comes.
    left_over: FxHashMap<TopicId, usize>,
    running: FxHashMap<u32, Removal>,
    /// What failed, by slot: when it is tried again, and how long that was put off.
    failed: BTreeMap<u32, (Monotonic, Duration)>,
}

impl<I: Io> Broker<I> {
    /// The metadata is `image` from now on.
    pub fn apply_image(&mut self, image: Arc<Image>) {
        if !(mutant::is_on("apply_at_the_controller_only") && self.shard != CONTROLLER) {
            let before = std::mem::replace(&mut self.image, image.clone());
            self.reconfigure(&before);
            self.note_groups(&before);
            self.open_coordinators();
        }
        self.removals.left.retain(|id, left| *left > 0 || image.is_deleted(*id));
        for (id, deleted) in image.deleted_topics() {
            if self.removals.left.contains_key(&id) {
                continue;
            }
            let slots: Vec<u32> = (0..deleted.partition_count)
                .filter_map(|index| {
                    let partition = PartitionIndex(index);
                    self.partitions.find(TopicIdPartition { topic: id, partition })
                })
                .collect();
            let left = slots.len() + self.removals.left_over.remove(&id).unwrap_or(0);
            self.removals.left.insert(id, left);
            self.forget_topic(id, &deleted.name);
            if left == 0 {
                self.tell_removed(id);
            }
            for slot in slots {
                self.delete_partition(slot);
            }
        }
        let applied = Event::Applied { shard: self.shard, version: image.version() };
        self.outbox.push((CONTROLLER, Message::Ask(applied)));
    }

    /// True while the directory that the partition's log would make may still be that of a deleted topic of the same
    /// name, here or on another shard: what is written into it would go away with it.
    pub(super) fn is_directory_taken(&mut self, slot: u32) -> bool {
        if mutant::is_on("write_into_a_deleted_directory") {
            return false;
        }
        let topic = &self.partitions.get_mut(slot).topic;
        self.image.deleted_topics().any(|(_, deleted)| deleted.name == *topic)
    }

    /// Tells the controller that nothing of a deleted topic is left here, unless offsets committed for it are.
    pub(super) fn tell_removed(&mut self, topic: TopicId) {
        if !self.is_cleared(topic) {
            return;
        }
        let removed = Event::DirectoriesRemoved { shard: self.shard, topic };
        self.outbox.push((CONTROLLER, Message::Ask(removed)));
    }

    fn delete_partition(&mut self, slot: u32) {
        self.partitions.unlist(slot);
        self.refuse_waiting(slot, ErrorCode::UnknownTopicOrPartition);
        self.refuse_deletions(slot, ErrorCode::UnknownTopicOrPartition);
        self.end_markers(slot, Ok(()));
        self.wake_fetches(slot);
        self.serve_held(slot);
        let events = self.partitions.get_mut(slot).log.delete_files(&mut self.io);
        self.react_to_deletion(slot, events);
    }

    /// What the log of a deleted partition tells: once its directory is renamed, its removal begins.
    pub(super) fn react_to_deletion(&mut self, slot: u32, events: Events) {
        if events.left_over {
            // Its name is not free: the controller must not hear that it is.
            self.retry_removal(slot);
        } else if events.closed {
            let dir = self.partitions.get_mut(slot).log.deleted_dir();
            let removal = Removal::start(&mut self.io, token::base(Kind::Removal, slot, 0), dir);
            self.removals.running.insert(slot, removal);
        }
        self.forget_deleted(slot);
    }

    /// An operation of a removal has completed.
    pub(super) fn removal_completed(&mut self, slot: u32, completion: Completion) {
        let removal = self.removals.running.get_mut(&slot).expect("it is running");
        match removal.resume(&mut self.io, completion.result) {
            Ok(false) => return,
            Ok(true) => {}
            Err(error) => {
                let dir = self.partitions.get_mut(slot).log.deleted_dir();
                tracing::warn!(dir = %dir.display(), %error, "not removed; it is tried again");
                self.removals.running.remove(&slot);
                return self.retry_removal(slot);
            }
        }
        coverage::hit("deletion: directory removed");
        self.removals.running.remove(&slot);
        self.removals.failed.remove(&slot);
        self.partitions.get_mut(slot).is_removed = true;
        self.forget_deleted(slot);
    }

    /// What is to be done with a deleted partition's directory has failed: later it is begun again.
    fn retry_removal(&mut self, slot: u32) {
        coverage::hit("deletion: is tried again");
        let now = self.now.monotonic;
        let wait = self.removals.failed.get(&slot).map_or(RETRY_MIN, |(_, wait)| (*wait * 2).min(RETRY_MAX));
        self.removals.failed.insert(slot, (now + wait, wait));
    }

    /// Begins removals again that failed a while ago. For the slow tick.
    pub(super) fn retry_removals(&mut self) {
        let now = self.now.monotonic;
        let is_due = |slot: &u32, at: Monotonic| at <= now && !self.removals.running.contains_key(slot);
        let due: Vec<u32> =
            self.removals.failed.iter().filter(|(slot, (at, _))| is_due(slot, *at)).map(|(slot, _)| *slot).collect();
        for slot in due {
            let partition = self.partitions.get_mut(slot);
            if partition.log.is_quiet() && !self.is_stopping() {
                let events = self.partitions.get_mut(slot).log.delete_files(&mut self.io);
                self.react_to_deletion(slot, events);
            }
        }
    }

    fn forget_deleted(&mut self, slot: u32) {
        let partition = self.partitions.get_mut(slot);
        if !(partition.is_removed && partition.log.is_quiet()) {
            return;
        }
        let topic = self.partitions.remove(slot).id.topic;
        if let Some(left) = self.removals.left_over.get_mut(&topic) {
            *left -= 1;
        } else if let Some(left) = self.removals.left.get_mut(&topic) {
            *left -= 1;
            if *left == 0 {
                self.tell_removed(topic);
            }
        }
    }

    /// Removes what an earlier process left of deleted topics: this shard's share of their partitions. At start,
    /// where nothing else is under way.
    pub fn remove_left_over(&mut self) {
        let image = self.image.clone();
        if image.deleted_topics().next().is_none() {
            return;
        }
        let mut removed = Vec::new();
        for (id, deleted) in image.deleted_topics() {
            coverage::hit("deletion: finished by a start");
            let share = (0..deleted.partition_count).skip(usize::from(self.shard.0));
            for index in share.step_by(usize::from(self.options.shard_count)) {
                let partition = PartitionIndex(index);
                let dir = self.options.layout.partition_dir(&deleted.name, partition);
                let deleted_dir = self.options.layout.deleted_dir(id, partition);
                let renamed = self.rename_left_over(dir, &deleted_dir, id);
                match renamed.and_then(|()| self.remove_directory(&deleted_dir)) {
                    Ok(()) => removed.push((id, partition, deleted)),
                    Err(error) => {
                        tracing::warn!(dir = %deleted_dir.display(), %error, "not removed; it is tried again");
                        // Its name may not be free: the controller must not hear that it is.
                        self.remove_later(id, partition, deleted);
                    }
                }
            }
        }
        // The controller forgets a deletion once every shard has told that its directories are gone.
        let path = self.options.layout.topics_dir();
        if let Err(error) = self.io.run(Op::SyncDir { path }) {
            tracing::warn!(%error, "removed directories may be back after a power cut; it is tried again");
            for (id, partition, deleted) in removed {
                self.remove_later(id, partition, deleted);
            }
        }
    }

    /// Renames a partition's directory if it is still there, durably.
    fn rename_left_over(&mut self, dir: PathBuf, deleted_dir: &Path, topic: TopicId) -> io::Result<()> {
        if self.is_directory_of(&dir, topic)? {
            self.io.run(Op::Rename { from: dir, to: deleted_dir.to_owned() })?;
            self.io.run(Op::SyncDir { path: self.options.layout.topics_dir() })?;
        }
        Ok(())
    }

    /// Whether the directory is there, and this topic's. What cannot be read may be.
    fn is_directory_of(&mut self, dir: &Path, topic: TopicId) -> io::Result<bool> {
        let path = FileName::PartitionMetadata.path(dir);
        let file = match self.io.run(Op::Open { path, options: OpenOptions::default() }) {
            Ok(Outcome::Opened(file)) => file,
            Ok(outcome) => panic!("an open completed with {outcome:?}"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        let buffer = self.io.pool().take(4096).ok_or(io::ErrorKind::OutOfMemory)?;
        match self.io.run(Op::Read { file, offset: 0, buffer, length_bytes: 4096 })? {
            Outcome::Read { buffer, bytes } => {
                Ok(layout::parse_partition_metadata(&buffer[..bytes]).is_ok_and(|found| found == topic))
            }
            outcome => panic!("a read completed with {outcome:?}"),
        }
    }

    /// Removes a directory that nobody uses. It not being there is success.
    fn remove_directory(&mut self, dir: &Path) -> io::Result<()> {
        let entries = match self.io.run(Op::List { path: dir.to_owned() }) {
            Ok(Outcome::Listed(entries)) => entries,
            Ok(outcome) => panic!("a listing completed with {outcome:?}"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        for entry in entries {
            self.io.run(Op::Remove { path: dir.join(&entry.name) })?;
        }
        self.io.run(Op::RemoveDir { path: dir.to_owned() })?;
        Ok(())
    }

    /// The start could not remove a deleted partition's directory: it is done while the shard serves, as for one that
    /// is deleted then.
    fn remove_later(&mut self, topic: TopicId, partition: PartitionIndex, deleted: &DeletedTopic) {
        let (slot, generation) = self.partitions.next_slot();
        let identity = Identity {
            topic_id: topic,
            partition,
            parent: self.options.layout.topics_dir(),
            dir: self.options.layout.partition_dir(&deleted.name, partition),
        };
        let config = TopicConfig::resolve(&self.options.config, &Default::default()).expect("defaults fit");
        let options = self.log_options(&config);
        let log =
            Log::new_deleted(token::base(Kind::Log, slot, generation).0, identity, options, self.resources.clone());
        let id = TopicIdPartition { topic, partition };
        self.partitions.insert(Partition::new(id, deleted.name.clone(), Arc::new(config), log));
        self.partitions.unlist(slot);
        *self.removals.left_over.entry(topic).or_default() += 1;
        self.retry_removal(slot);
    }
}
