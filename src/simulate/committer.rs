//! A client that commits offsets for a group without members and reads them back.
//!
//! What it was told is committed, or has read, is what a later fetch must give, whatever happened in between; what was
//! not answered may have happened or not, and may still happen as long as this life lasts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::{FindCoordinatorRequest, GroupId, OffsetCommitRequest, OffsetFetchRequest};
use kafka_protocol::protocol::StrBytes;

use super::admin::topic_name;
use super::contact::{Contact, FIND, is_absence};
use super::link::decode;
use super::model::{PartKey, TopicState};
use super::scene::{Scene, error_of};
use super::violation::{Checker, Violation, violated};
use crate::base::coverage;
use crate::base::rng::Rng;
use crate::base::time::Monotonic;
use crate::protocol::ErrorCode;

const COMMIT: i16 = 8;
const FETCH: i16 = 7;

enum Question {
    Find,
    Commit(PartKey, i64),
    Fetch(PartKey),
}

/// What is known of one committed offset.
#[derive(Default)]
struct Committed {
    known: Option<i64>,
    /// Sent and not answered, or not yet.
    perhaps: BTreeSet<i64>,
}

/// See the module.
pub struct Committer {
    group: String,
    rng: Rng,
    contact: Contact<Question>,
    committed: BTreeMap<PartKey, Committed>,
    next_offset: i64,
    next_at: Monotonic,
}

impl Committer {
    /// The committer of group `id`.
    pub fn new(id: u32, rng: Rng) -> Committer {
        Committer {
            group: format!("group-{id}"),
            rng,
            contact: Contact::default(),
            committed: BTreeMap::new(),
            next_offset: 1,
            next_at: Monotonic(0),
        }
    }

    /// A life begins.
    pub fn begin_life(&mut self) {
        self.contact.begin_life();
        self.next_at = Monotonic(0);
    }

    /// When it acts without being answered.
    pub fn next_at(&self) -> Monotonic {
        self.next_at
    }

    /// Questions that are not answered.
    pub fn under_way_count(&self) -> usize {
        self.contact.under_way_count()
    }

    /// Takes answers and asks on.
    pub fn act(&mut self, scene: &mut Scene<'_>) -> Result<(), Violation> {
        while let Some((question, frame)) = self.contact.take(scene)? {
            self.answered(question, frame, scene)?;
        }
        self.contact.check(scene, &format_args!("the committer of {}", self.group))?;
        if scene.now < self.next_at || !scene.is_busy || self.under_way_count() > 0 {
            return Ok(());
        }
        self.next_at = scene.now + Duration::from_micros(self.rng.in_range(1_000..60_000));
        let model = &scene.model;
        self.committed.retain(|key, _| model.state(key.topic) == TopicState::Live);
        let keys: Vec<PartKey> = model.live_parts().map(|(key, _)| *key).collect();
        if keys.is_empty() {
            return Ok(());
        }
        let key = keys[self.rng.in_range(0..keys.len() as u64) as usize];
        if !self.contact.connect(&mut self.rng, scene) {
            return Ok(());
        }
        let group = || GroupId(StrBytes::from_string(self.group.clone()));
        let name = &scene.model.topics[&key.topic].name;
        match self.contact.shard {
            None => self.contact.find(&self.group, Question::Find, scene),
            Some(_) if self.rng.chance(1, 2) => {
                let offset = self.next_offset;
                self.next_offset += 1;
                let partition = OffsetCommitRequestPartition::default()
                    .with_partition_index(key.index)
                    .with_committed_offset(offset)
                    .with_committed_metadata(Some(StrBytes::from_string(format!("text {offset}"))));
                let topic =
                    OffsetCommitRequestTopic::default().with_name(topic_name(name)).with_partitions(vec![partition]);
                let request = OffsetCommitRequest::default()
                    .with_group_id(group())
                    .with_generation_id_or_member_epoch(-1)
                    .with_topics(vec![topic]);
                self.contact.ask(COMMIT, &request, Question::Commit(key, offset), scene);
                self.committed.entry(key).or_default().perhaps.insert(offset);
                scene.story.tell(scene.now, || format!("{} commits {offset} for {name}-{}", self.group, key.index));
            }
            Some(_) => {
                let topic = OffsetFetchRequestTopic::default()
                    .with_name(topic_name(name))
                    .with_partition_indexes(vec![key.index]);
                let request = OffsetFetchRequest::default().with_group_id(group()).with_topics(Some(vec![topic]));
                self.contact.ask(FETCH, &request, Question::Fetch(key), scene);
            }
        }
        Ok(())
    }

    fn answered(&mut self, question: Question, frame: Bytes, scene: &mut Scene<'_>) -> Result<(), Violation> {
        match question {
            Question::Find => {
                let response = decode::<FindCoordinatorRequest>(frame, FIND)?;
                if self.is_there(error_of(response.error_code)?, scene)? {
                    self.contact.found(response.node_id);
                }
            }
            Question::Commit(key, offset) => {
                let response = decode::<OffsetCommitRequest>(frame, COMMIT)?;
                let error = error_of(response.topics[0].partitions[0].error_code)?;
                if scene.model.state(key.topic) != TopicState::Live || !self.is_there(error, scene)? {
                    return Ok(());
                }
                scene.story.tell(scene.now, || format!("{} has committed {offset}", self.group));
                coverage::hit("offset committed");
                let committed = self.committed.entry(key).or_default();
                // An earlier one that was never answered may be on its way behind this one.
                committed.perhaps.remove(&offset);
                committed.known = Some(offset);
            }
            Question::Fetch(key) => {
                let response = decode::<OffsetFetchRequest>(frame, FETCH)?;
                let error = error_of(response.error_code)?;
                if scene.model.state(key.topic) != TopicState::Live || !self.is_there(error, scene)? {
                    return Ok(());
                }
                let answer = &response.topics[0].partitions[0];
                if !self.is_there(error_of(answer.error_code)?, scene)? {
                    return Ok(());
                }
                let (offset, text) = (answer.committed_offset, answer.metadata.as_ref().map(|text| text.to_string()));
                let committed = self.committed.entry(key).or_default();
                let is_known = committed.known.is_none_or(|known| known == offset) || committed.perhaps.remove(&offset);
                let has_text = offset < 0 || text == Some(format!("text {offset}"));
                if !is_known || !has_text {
                    let (group, known) = (&self.group, committed.known);
                    return violated(
                        Checker::Commits,
                        format!(
                            "{group}, {}-{}: {offset} ({text:?}) is read, {known:?} was committed",
                            key.topic, key.index
                        ),
                    );
                }
                if offset >= 0 {
                    coverage::hit("committed offset read");
                    committed.known = Some(offset);
                }
            }
        }
        Ok(())
    }

    /// True if there is no error. A coordinator that moves or loads is found again, but not for ever.
    fn is_there(&mut self, error: ErrorCode, scene: &Scene<'_>) -> Result<bool, Violation> {
        match error {
            ErrorCode::None => {
                self.contact.is_there();
                Ok(true)
            }
            error if is_absence(error) => self.contact.is_absent(error, scene, &self.group).map(|()| false),
            error if scene.excuses(error) => Ok(false),
            error => violated(Checker::Refusals, format!("{}: {error:?}", self.group)),
        }
    }
}
