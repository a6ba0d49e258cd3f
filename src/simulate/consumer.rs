//! A client that is a member of a group of the consumer protocol (KIP-848): joins, is given partitions, gives them up,
//! changes its mind, and leaves, falls silent, or forgets who it was, or where it was last.
//!
//! It holds the coordinator to what consumers rely on: a partition has one owner, its epoch never falls, it is neither
//! unknown nor fenced while it is heard of, and what it says under an epoch of long ago counts for nothing. An answer
//! that may be lost makes it say everything again.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
use kafka_protocol::messages::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, FindCoordinatorRequest, GroupId,
};
use kafka_protocol::protocol::StrBytes;

use super::admin::topic_name;
use super::contact::{Contact, FIND, is_absence};
use super::link::decode;
use super::owners::Part;
use super::scene::{Scene, error_of};
use super::violation::{Checker, Violation, violated};
use crate::base::coverage;
use crate::base::rng::Rng;
use crate::base::time::Monotonic;
use crate::protocol::ErrorCode;

const GROUP: &str = "consumers";
const HEARTBEAT: i16 = 1;
/// How long a member may be silent, as the node is told.
pub const SESSION: Duration = Duration::from_millis(1_500);
/// How long it may take to give partitions up: it does so with its next heartbeat.
const REBALANCE_MS: i32 = 60_000;
/// The epochs that join and leave.
const JOIN: i32 = 0;
const LEAVE: i32 = -1;

/// What was asked, and when.
struct Question {
    /// `None` asks for the coordinator.
    epoch: Option<i32>,
    /// It has been told of two later epochs.
    is_outdated: bool,
    at: Monotonic,
}

/// See the module.
pub struct Consumer {
    id: u32,
    rng: Rng,
    contact: Contact<Question>,
    /// How often it was somebody else.
    life: u32,
    /// 0 until it has joined.
    epoch: i32,
    /// The last two that it was told before that one, the later one first; 0: none.
    before: [i32; 2],
    owned: BTreeSet<Part>,
    /// It reads these topics, or all.
    names: Option<Vec<String>>,
    /// The next heartbeat says everything.
    says_all: bool,
    /// An answer was lost: its epoch may be older than the one before the group's.
    has_doubt: bool,
    /// Until then the coordinator must know it.
    known_until: Monotonic,
    next_at: Monotonic,
    pace_us: u64,
}

impl Consumer {
    /// Consumer `id`.
    pub fn new(id: u32, rng: Rng) -> Consumer {
        Consumer {
            id,
            rng,
            contact: Contact::default(),
            life: 0,
            epoch: JOIN,
            before: [0; 2],
            owned: BTreeSet::new(),
            names: None,
            says_all: true,
            has_doubt: false,
            known_until: Monotonic(0),
            next_at: Monotonic(0),
            pace_us: 0,
        }
    }

    /// A life begins; the node began to start at `start`, and the last one ended before that at `end`. Sessions begin
    /// anew when groups were read. Until when it is known.
    pub fn begin_life(&mut self, end: Monotonic, start: Monotonic) -> Monotonic {
        let is_lost = self.contact.begin_life();
        self.lose(is_lost);
        let is_kept = self.epoch > JOIN && self.known_until > end;
        self.known_until = if is_kept { start + SESSION } else { Monotonic(0) };
        self.pace_us = [2_000, 20_000, 200_000][self.rng.in_range(0..3) as usize];
        self.next_at = Monotonic(0);
        self.known_until
    }

    /// Which consumer it is.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// When it acts without being answered.
    pub fn next_at(&self) -> Monotonic {
        self.next_at
    }

    /// Questions that are not answered.
    pub fn under_way_count(&self) -> usize {
        self.contact.under_way_count()
    }

    /// A fault of the network: its connection.
    pub fn disturb(&mut self, until: Monotonic) -> &'static str {
        match self.contact.reset() {
            None => "nothing",
            Some(is_lost) => {
                self.lose(is_lost);
                self.next_at = self.next_at.max(until);
                "a consumer's connection is reset"
            }
        }
    }

    fn lose(&mut self, is_lost: bool) {
        self.has_doubt |= is_lost;
        self.says_all |= is_lost;
    }

    /// Takes answers and asks on.
    pub fn act(&mut self, scene: &mut Scene<'_>) -> Result<(), Violation> {
        while let Some((question, frame)) = self.contact.take(scene)? {
            self.answered(&question, frame, scene)?;
        }
        let is_lost = self.contact.check(scene, &format_args!("consumer {}", self.id))?;
        self.lose(is_lost == Some(true));
        if scene.now < self.next_at || !scene.is_busy || self.under_way_count() > 0 {
            return Ok(());
        }
        self.next_at = scene.now + Duration::from_micros(self.rng.in_range(0..=2 * self.pace_us));
        if self.contact.connect(&mut self.rng, scene) {
            self.ask(scene);
        }
        Ok(())
    }

    fn ask(&mut self, scene: &mut Scene<'_>) {
        if self.contact.shard.is_none() {
            return self.contact.find(GROUP, Question { epoch: None, is_outdated: false, at: scene.now }, scene);
        }
        if self.epoch == JOIN {
            return self.heartbeat(JOIN, scene);
        }
        match self.rng.in_range(0..60) {
            0 => {
                coverage::hit("consumer: leaves");
                self.heartbeat(LEAVE, scene);
                self.become_another(scene);
            }
            1 => {
                // It stops without a word, and does not know any more who it was.
                coverage::hit("consumer: is lost");
                self.become_another(scene);
                self.next_at = scene.now + Duration::from_millis(self.rng.in_range(0..4_000));
            }
            2 => {
                // It hangs, and goes on as if nothing had happened.
                coverage::hit("consumer: hangs");
                self.next_at = scene.now + Duration::from_millis(self.rng.in_range(500..6_000));
            }
            3 => {
                // It gives everything up and joins again as who it is.
                coverage::hit("consumer: joins again");
                self.give_up(scene);
                self.heartbeat(JOIN, scene);
            }
            4 if self.before[1] > 0 => {
                // It goes on where it was a while ago, as a process does that was copied.
                coverage::hit("consumer: goes on where it was");
                self.heartbeat(self.before[1], scene);
            }
            4..7 => {
                coverage::hit("consumer: reads other topics");
                let all: Vec<String> = scene.model.names.keys().cloned().collect();
                let some = self.rng.in_range(0..=all.len() as u64) as usize;
                self.names = self.rng.chance(1, 2).then(|| all.into_iter().take(some).collect());
                self.says_all = true;
                self.heartbeat(self.epoch, scene);
            }
            _ => self.heartbeat(self.epoch, scene),
        }
    }

    fn heartbeat(&mut self, epoch: i32, scene: &mut Scene<'_>) {
        let mut owned: Vec<TopicPartitions> = Vec::new();
        for (topic, partition) in &self.owned {
            match owned.last_mut().filter(|last| last.topic_id == *topic) {
                Some(last) => last.partitions.push(*partition),
                None => owned.push(TopicPartitions::default().with_topic_id(*topic).with_partitions(vec![*partition])),
            }
        }
        let mut request = ConsumerGroupHeartbeatRequest::default()
            .with_group_id(GroupId(StrBytes::from_static_str(GROUP)))
            .with_member_id(StrBytes::from_string(self.member_id()))
            .with_member_epoch(epoch)
            .with_topic_partitions(Some(owned));
        if epoch == JOIN || (epoch > JOIN && self.says_all) {
            let names = self.names.iter().flatten().map(|name| topic_name(name)).collect();
            let pattern = StrBytes::from_static_str(if self.names.is_some() { "" } else { ".*" });
            request = request
                .with_rebalance_timeout_ms(REBALANCE_MS)
                .with_subscribed_topic_names(Some(names))
                .with_subscribed_topic_regex(Some(pattern));
        }
        let is_outdated = epoch > JOIN && epoch < self.epoch;
        let question = Question { epoch: Some(epoch), is_outdated, at: scene.now };
        self.contact.ask(HEARTBEAT, &request, question, scene);
    }

    fn answered(&mut self, question: &Question, frame: Bytes, scene: &mut Scene<'_>) -> Result<(), Violation> {
        match question.epoch {
            None => {
                let response = decode::<FindCoordinatorRequest>(frame, FIND)?;
                if self.is_well(error_of(response.error_code)?, scene)? {
                    self.contact.found(response.node_id);
                }
            }
            // It is another one since it asked.
            Some(LEAVE) => drop(decode::<ConsumerGroupHeartbeatRequest>(frame, HEARTBEAT)?),
            Some(epoch) => {
                let response = decode::<ConsumerGroupHeartbeatRequest>(frame, HEARTBEAT)?;
                let error = error_of(response.error_code)?;
                scene.story.tell(scene.now, || {
                    let epochs = (epoch, response.member_epoch);
                    format!("{}: {error:?}, {epochs:?}, {:?}", self.who(), response.assignment)
                });
                if question.is_outdated && error == ErrorCode::FencedMemberEpoch {
                    coverage::hit("consumer: fenced");
                    self.give_up(scene);
                } else if self.is_well(error, scene)? {
                    return self.goes_on(epoch, &response, question, scene);
                }
            }
        }
        Ok(())
    }

    fn goes_on(
        &mut self,
        asked_epoch: i32,
        response: &ConsumerGroupHeartbeatResponse,
        question: &Question,
        scene: &mut Scene<'_>,
    ) -> Result<(), Violation> {
        let who = self.who();
        if question.is_outdated {
            return violated(Checker::Groups, format!("{who}: what it says in epoch {asked_epoch} is taken"));
        }
        let is_own = response.member_id.as_deref().is_some_and(|member_id| *member_id == self.member_id());
        if !is_own || response.member_epoch < asked_epoch.max(1) || response.heartbeat_interval_ms <= 0 {
            return violated(
                Checker::Groups,
                format!("{who}: asked at {asked_epoch}, an answer of another: {response:?}"),
            );
        }
        let is_told_all = asked_epoch == JOIN || self.says_all;
        if is_told_all && response.assignment.is_none() {
            return violated(Checker::Groups, format!("{who} said everything and was told nothing: {response:?}"));
        }
        coverage::hit(if asked_epoch == JOIN { "consumer: joins" } else { "consumer: heartbeat" });
        if response.member_epoch != self.epoch {
            self.before = [self.epoch, self.before[0]];
            self.epoch = response.member_epoch;
        }
        (self.says_all, self.has_doubt) = (false, false);
        self.known_until = question.at + SESSION;
        scene.model.owners.lives(self.id, self.known_until);
        let Some(assignment) = &response.assignment else { return Ok(()) };
        let told = assignment.topic_partitions.iter();
        let told = told.flat_map(|topic| topic.partitions.iter().map(|partition| (topic.topic_id, *partition)));
        let told: BTreeSet<Part> = told.collect();
        for part in self.owned.difference(&told) {
            coverage::hit("consumer: gives up");
            scene.model.owners.released(self.id, *part);
        }
        for part in &told {
            coverage::hit("consumer: has a partition");
            scene.model.owners.given(self.id, *part, scene.now, &who)?;
        }
        self.owned = told;
        Ok(())
    }

    /// True if there is no error; else does what the error asks for, if there is a reason for it.
    fn is_well(&mut self, error: ErrorCode, scene: &mut Scene<'_>) -> Result<bool, Violation> {
        let excuses = scene.excuses;
        let is_broken = excuses.storage || excuses.full || excuses.corrupt;
        let what = format!("{}: {error:?}", self.who());
        match error {
            ErrorCode::None => {
                self.contact.is_there();
                return Ok(true);
            }
            ErrorCode::UnknownMemberId | ErrorCode::GroupIdNotFound => {
                coverage::hit("consumer: told that it is unknown");
                if scene.now < self.known_until && !is_broken {
                    return violated(Checker::Groups, what);
                }
                self.become_another(scene);
            }
            ErrorCode::FencedMemberEpoch => {
                coverage::hit("consumer: fenced");
                if scene.now < self.known_until && !self.has_doubt && !is_broken {
                    return violated(Checker::Groups, format!("{what}, and no answer was lost"));
                }
                self.give_up(scene);
            }
            error if is_absence(error) => {
                // Whether the change was made before it was refused nobody knows.
                self.lose(true);
                let who = self.who();
                self.contact.is_absent(error, scene, &who)?;
            }
            error if scene.excuses(error) => self.lose(true),
            _ => return violated(Checker::Refusals, what),
        }
        Ok(false)
    }

    /// It has nothing any more, and joins again.
    fn give_up(&mut self, scene: &mut Scene<'_>) {
        self.owned.clear();
        (self.epoch, self.before, self.says_all) = (JOIN, [0; 2], true);
        scene.model.owners.released_all(self.id);
    }

    /// Whatever becomes of it, it comes back as another one.
    fn become_another(&mut self, scene: &mut Scene<'_>) {
        self.give_up(scene);
        self.life += 1;
        (self.known_until, self.has_doubt) = (Monotonic(0), false);
    }

    fn member_id(&self) -> String {
        format!("consumer-{}-{}", self.id, self.life)
    }

    fn who(&self) -> String {
        format!("{} of epoch {}", self.member_id(), self.epoch)
    }
}
