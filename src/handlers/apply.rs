//! A new image of the metadata: what it changes on this shard, deletions above all.
//!
//! A deletion is durable before its image comes. The partition's directory is renamed away, then removed file by file;
//! when all of a topic's directories on this shard are gone the controller is told. What a stop interrupts, the next
//! start finishes ([`Broker::remove_left_over`]).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::broker::Broker;
use super::bus::{CONTROLLER, Message};
use super::token::{self, Kind};
use crate::base::coverage;
use crate::base::mutant;
use crate::controller::controller::Event;
use crate::controller::image::Image;
use crate::io::{Completion, Io, Op, OpenOptions, Outcome};
use crate::model::id::{PartitionIndex, TopicId};
use crate::protocol::error::ErrorCode;
use crate::storage::layout::{self, FileName};
use crate::storage::{Events, Removal};

/// Deleted topics whose directories this shard is removing: how many of them are left, and the removals under way.
#[derive(Default)]
pub struct Removals {
    left: FxHashMap<TopicId, usize>,
    running: FxHashMap<u32, Removal>,
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
                    self.partitions.find(crate::model::id::TopicIdPartition { topic: id, partition })
                })
                .collect();
            self.removals.left.insert(id, slots.len());
            self.forget_topic(id, &deleted.name);
            if slots.is_empty() {
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
            // Its name is not free: the controller must not hear that it is. The next start tries again.
            let partition = self.partitions.get_mut(slot);
            partition.is_removed = true;
            self.removals.left.insert(partition.id.topic, usize::MAX);
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
                tracing::warn!(dir = %dir.display(), %error, "not removed; the next start tries again");
            }
        }
        coverage::hit("deletion: directory removed");
        self.removals.running.remove(&slot);
        self.partitions.get_mut(slot).is_removed = true;
        self.forget_deleted(slot);
    }

    fn forget_deleted(&mut self, slot: u32) {
        let partition = self.partitions.get_mut(slot);
        if !(partition.is_removed && partition.log.is_quiet()) {
            return;
        }
        let topic = self.partitions.remove(slot).id.topic;
        if let Some(left) = self.removals.left.get_mut(&topic) {
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
        for (id, deleted) in image.deleted_topics() {
            coverage::hit("deletion: finished by a start");
            let share = (0..deleted.partition_count).skip(usize::from(self.shard.0));
            for index in share.step_by(usize::from(self.options.shard_count)) {
                let partition = PartitionIndex(index);
                let dir = self.options.layout.partition_dir(&deleted.name, partition);
                let deleted_dir = self.options.layout.deleted_dir(id, partition);
                if let Err(error) = self.rename_left_over(dir, &deleted_dir, id) {
                    tracing::warn!(dir = %deleted_dir.display(), %error, "not renamed");
                    // Its name may not be free: the controller must not hear that it is.
                    self.removals.left.insert(id, usize::MAX);
                    continue;
                }
                self.remove_directory(&deleted_dir);
            }
        }
        // The controller forgets a deletion once every shard has told that its directories are gone.
        let path = self.options.layout.topics_dir();
        if let Err(error) = self.io.run(Op::SyncDir { path }) {
            tracing::warn!(%error, "removed directories may be back after a power cut");
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

    fn remove_directory(&mut self, dir: &Path) {
        let Ok(Outcome::Listed(entries)) = self.io.run(Op::List { path: dir.to_owned() }) else { return };
        for entry in entries {
            if let Err(error) = self.io.run(Op::Remove { path: dir.join(&entry.name) }) {
                tracing::warn!(dir = %dir.display(), file = entry.name, %error, "not removed");
            }
        }
        if let Err(error) = self.io.run(Op::RemoveDir { path: dir.to_owned() }) {
            tracing::warn!(dir = %dir.display(), %error, "not removed");
        }
    }
}
