//! A client that is a member of a group: joins, assigns if it leads, is given shares, commits under its generation,
//! and leaves, falls silent, or comes back.
//!
//! It holds the coordinator to what consumers rely on: the generation that it was told is the group's, its assignment
//! is its own, and it is not forgotten while it is heard of.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    FindCoordinatorRequest, GroupId, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
    OffsetCommitRequest, SyncGroupRequest,
};
use kafka_protocol::protocol::{Request, StrBytes};

use super::admin::topic_name;
use super::contact::{Contact, FIND, is_absence};
use super::groups::{assignment, shares_of};
use super::link::decode;
use super::model::{PartKey, TopicState};
use super::scene::{Scene, error_of};
use super::violation::{Checker, Violation, violated};
use crate::base::coverage;
use crate::base::rng::Rng;
use crate::base::time::Monotonic;
use crate::protocol::ErrorCode;

const GROUP: &str = "members";
const JOIN: i16 = 7;
const SYNC: i16 = 5;
const HEARTBEAT: i16 = 4;
const LEAVE: i16 = 4;
const COMMIT: i16 = 8;
/// What the leader divides.
const SHARE_COUNT: u8 = 8;
/// How long a member may be silent.
const SESSION: Duration = Duration::from_millis(1_500);
/// How long it may take to join again. Not less, so that a rebalance expels nobody whose session goes on.
const REBALANCE: Duration = Duration::from_millis(2_500);

/// What was asked, when, and the earliest generation that its answer may be about.
struct Question {
    what: What,
    at: Monotonic,
    floor: i32,
}

enum What {
    Find,
    Join,
    Sync,
    Heartbeat,
    Leave,
    Commit(PartKey),
}

/// See the module.
pub struct Member {
    id: u32,
    rng: Rng,
    contact: Contact<Question>,
    /// Empty until the coordinator has given one.
    member_id: String,
    /// -1 until it has joined.
    generation: i32,
    has_assignment: bool,
    /// Members by id, if it leads this generation.
    to_assign: Vec<String>,
    /// What it says about itself: another one makes the group rebalance.
    wish: u64,
    /// Until then the coordinator must know it.
    known_until: Monotonic,
    /// An answer was lost: the group may have gone on without its knowing.
    has_doubt: bool,
    /// The coordinator has read the group in this life. Before that it takes every heartbeat, as Kafka does.
    is_loaded: bool,
    next_at: Monotonic,
    pace_us: u64,
}

impl Member {
    /// Member `id`.
    pub fn new(id: u32, rng: Rng) -> Member {
        Member {
            id,
            rng,
            contact: Contact::default(),
            member_id: String::new(),
            generation: -1,
            has_assignment: false,
            to_assign: Vec::new(),
            wish: 0,
            known_until: Monotonic(0),
            has_doubt: false,
            is_loaded: false,
            next_at: Monotonic(0),
            pace_us: 0,
        }
    }

    /// A life begins; the node began to start at `start`, and the last one ended before that at `end`. Sessions begin
    /// anew when groups were read.
    pub fn begin_life(&mut self, end: Monotonic, start: Monotonic) {
        self.has_doubt |= self.contact.begin_life();
        self.is_loaded = false;
        let is_kept = self.has_assignment && self.known_until > end;
        self.known_until = if is_kept { start + SESSION } else { Monotonic(0) };
        self.pace_us = [2_000, 20_000, 200_000][self.rng.in_range(0..3) as usize];
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

    /// A fault of the network: its connection.
    pub fn disturb(&mut self, until: Monotonic) -> &'static str {
        match self.contact.reset() {
            None => "nothing",
            Some(is_lost) => {
                self.has_doubt |= is_lost;
                self.next_at = self.next_at.max(until);
                "a member's connection is reset"
            }
        }
    }

    /// Takes answers and asks on.
    pub fn act(&mut self, scene: &mut Scene<'_>) -> Result<(), Violation> {
        while let Some((question, frame)) = self.contact.take(scene)? {
            self.answered(&question, frame, scene)?;
        }
        let is_lost = self.contact.check(scene, &format_args!("member {}", self.id))?;
        self.has_doubt |= is_lost == Some(true);
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
            let question = Question { what: What::Find, at: scene.now, floor: scene.model.group.floor() };
            return self.contact.find(GROUP, question, scene);
        }
        if self.generation < 0 {
            return self.join(scene);
        }
        if !self.has_assignment {
            return self.sync(scene);
        }
        match self.rng.in_range(0..60) {
            _ if !self.is_loaded => self.commit(scene),
            0 => self.leave(scene),
            1 => {
                // It stops without a word, and does not know any more who it was.
                coverage::hit("group: a member is lost");
                self.forget();
                self.next_at = scene.now + Duration::from_millis(self.rng.in_range(0..4_000));
            }
            2 => {
                // It hangs, and goes on as if nothing had happened.
                coverage::hit("group: a member hangs");
                self.next_at = scene.now + Duration::from_millis(self.rng.in_range(500..6_000));
            }
            3 => {
                self.wish += 1;
                self.generation = -1;
                self.join(scene);
            }
            4..7 => self.commit(scene),
            _ => {
                let request = HeartbeatRequest::default()
                    .with_group_id(group())
                    .with_generation_id(self.generation)
                    .with_member_id(StrBytes::from_string(self.member_id.clone()));
                self.send(HEARTBEAT, &request, What::Heartbeat, scene);
            }
        }
    }

    fn send<R: Request>(&mut self, version: i16, request: &R, what: What, scene: &mut Scene<'_>) {
        let question = Question { what, at: scene.now, floor: scene.model.group.floor() };
        self.contact.ask(version, request, question, scene);
    }

    fn join(&mut self, scene: &mut Scene<'_>) {
        let metadata = format!("member {} wants {}", self.id, self.wish);
        let protocol = JoinGroupRequestProtocol::default()
            .with_name(StrBytes::from_static_str("shares"))
            .with_metadata(Bytes::from(metadata));
        let request = JoinGroupRequest::default()
            .with_group_id(group())
            .with_session_timeout_ms(SESSION.as_millis() as i32)
            .with_rebalance_timeout_ms(REBALANCE.as_millis() as i32)
            .with_member_id(StrBytes::from_string(self.member_id.clone()))
            .with_protocol_type(StrBytes::from_static_str("simulated"))
            .with_protocols(vec![protocol]);
        scene.story.tell(scene.now, || format!("member {} joins as {:?}", self.id, self.member_id));
        self.has_assignment = false;
        self.send(JOIN, &request, What::Join, scene);
    }

    fn sync(&mut self, scene: &mut Scene<'_>) {
        let mut assignments = Vec::new();
        let first = self.rng.in_range(0..u64::from(SHARE_COUNT)) as u8;
        for (at, member_id) in self.to_assign.iter().enumerate() {
            let shares = (0..SHARE_COUNT).filter(|share| usize::from(*share) % self.to_assign.len() == at);
            let shares: Vec<u8> = shares.map(|share| (share + first) % SHARE_COUNT).collect();
            assignments.push(
                SyncGroupRequestAssignment::default()
                    .with_member_id(StrBytes::from_string(member_id.clone()))
                    .with_assignment(assignment(self.generation, member_id, &shares).into()),
            );
        }
        let request = SyncGroupRequest::default()
            .with_group_id(group())
            .with_generation_id(self.generation)
            .with_member_id(StrBytes::from_string(self.member_id.clone()))
            .with_protocol_type(Some(StrBytes::from_static_str("simulated")))
            .with_protocol_name(Some(StrBytes::from_static_str("shares")))
            .with_assignments(assignments);
        self.send(SYNC, &request, What::Sync, scene);
    }

    fn leave(&mut self, scene: &mut Scene<'_>) {
        let member = MemberIdentity::default().with_member_id(StrBytes::from_string(self.member_id.clone()));
        let request = LeaveGroupRequest::default().with_group_id(group()).with_members(vec![member]);
        scene.story.tell(scene.now, || format!("member {} leaves, {}", self.id, self.member_id));
        self.send(LEAVE, &request, What::Leave, scene);
        // Whatever becomes of it, it comes back as another one.
        self.forget();
    }

    fn commit(&mut self, scene: &mut Scene<'_>) {
        let keys: Vec<PartKey> = scene.model.live_parts().map(|(key, _)| *key).collect();
        if keys.is_empty() {
            return;
        }
        let key = keys[self.rng.in_range(0..keys.len() as u64) as usize];
        let partition =
            OffsetCommitRequestPartition::default().with_partition_index(key.index).with_committed_offset(1);
        let topic = OffsetCommitRequestTopic::default()
            .with_name(topic_name(&scene.model.topics[&key.topic].name))
            .with_partitions(vec![partition]);
        let request = OffsetCommitRequest::default()
            .with_group_id(group())
            .with_generation_id_or_member_epoch(self.generation)
            .with_member_id(StrBytes::from_string(self.member_id.clone()))
            .with_topics(vec![topic]);
        self.send(COMMIT, &request, What::Commit(key), scene);
    }

    fn answered(&mut self, question: &Question, frame: Bytes, scene: &mut Scene<'_>) -> Result<(), Violation> {
        match question.what {
            What::Find => {
                let response = decode::<FindCoordinatorRequest>(frame, FIND)?;
                if self.is_well(error_of(response.error_code)?, question, scene)? {
                    self.contact.found(response.node_id);
                }
            }
            What::Join => {
                let response = decode::<JoinGroupRequest>(frame, JOIN)?;
                return self.joined(&response, question, scene);
            }
            What::Sync => {
                let response = decode::<SyncGroupRequest>(frame, SYNC)?;
                if self.is_well(error_of(response.error_code)?, question, scene)? {
                    return self.synced(&response.assignment, question, scene);
                }
            }
            What::Heartbeat => {
                let response = decode::<HeartbeatRequest>(frame, HEARTBEAT)?;
                if self.is_well(error_of(response.error_code)?, question, scene)? && self.is_loaded {
                    coverage::hit("group: heartbeat");
                    scene.model.group.accepted(self.generation, question.floor, &self.who())?;
                    self.known_until = question.at + SESSION;
                    self.has_doubt = false;
                }
            }
            // It has given up its membership when it asked.
            What::Leave => {
                decode::<LeaveGroupRequest>(frame, LEAVE)?;
                coverage::hit("group: a member leaves");
            }
            What::Commit(key) => {
                let response = decode::<OffsetCommitRequest>(frame, COMMIT)?;
                let error = error_of(response.topics[0].partitions[0].error_code)?;
                if scene.model.state(key.topic) == TopicState::Live && self.is_well(error, question, scene)? {
                    coverage::hit("group: commit of a member");
                    return scene.model.group.accepted(self.generation, question.floor, &self.who());
                }
            }
        }
        Ok(())
    }

    fn joined(
        &mut self,
        response: &JoinGroupResponse,
        question: &Question,
        scene: &mut Scene<'_>,
    ) -> Result<(), Violation> {
        let error = error_of(response.error_code)?;
        scene.story.tell(scene.now, || {
            format!("member {} has joined: {error:?}, {}, {}", self.id, response.generation_id, &*response.member_id)
        });
        if error == ErrorCode::MemberIdRequired && self.member_id.is_empty() {
            self.member_id = response.member_id.to_string();
            self.known_until = question.at + SESSION;
            return Ok(());
        }
        if !self.is_well(error, question, scene)? {
            return Ok(());
        }
        let who = self.who();
        let members: Vec<String> = response.members.iter().map(|member| member.member_id.to_string()).collect();
        let leads = response.leader == response.member_id;
        let mut unique = members.clone();
        unique.sort();
        unique.dedup();
        let is_listed = members.contains(&self.member_id) && unique.len() == members.len();
        if *response.member_id != self.member_id || leads != is_listed || (!leads && !members.is_empty()) {
            return violated(Checker::Groups, format!("{who}: the group's answer contradicts itself: {response:?}"));
        }
        coverage::hit(if leads { "group: a leader joins" } else { "group: a follower joins" });
        scene.model.group.joined(response.generation_id, &response.leader, question.floor, &who)?;
        (self.generation, self.to_assign) = (response.generation_id, members);
        (self.has_assignment, self.has_doubt) = (false, false);
        self.known_until = question.at + SESSION;
        // It has asked for it at once.
        self.next_at = scene.now;
        Ok(())
    }

    fn synced(&mut self, bytes: &[u8], question: &Question, scene: &mut Scene<'_>) -> Result<(), Violation> {
        let who = self.who();
        let Some(shares) = shares_of(bytes, self.generation, &self.member_id) else {
            return violated(Checker::Groups, format!("{who}: what it is given is another one's: {bytes:?}"));
        };
        scene.story.tell(scene.now, || format!("{who} is given {shares:?}"));
        coverage::hit("group: an assignment");
        scene.model.group.given(self.generation, self.id, shares, question.floor, &who)?;
        (self.has_assignment, self.has_doubt) = (true, false);
        self.known_until = question.at + SESSION;
        Ok(())
    }

    /// True if there is no error; else does what the error asks for, if there is a reason for it.
    fn is_well(&mut self, error: ErrorCode, question: &Question, scene: &Scene<'_>) -> Result<bool, Violation> {
        let excuses = scene.excuses;
        let is_broken = excuses.storage || excuses.full || excuses.corrupt;
        let who = self.who();
        let what = || format!("{who}: {error:?}");
        let tells_the_group = !matches!(question.what, What::Find | What::Heartbeat);
        let is_loaded = self.is_loaded || tells_the_group && !is_absence(error);
        match error {
            ErrorCode::None => {
                self.contact.is_there();
                self.is_loaded = is_loaded;
                return Ok(true);
            }
            ErrorCode::RebalanceInProgress => {
                coverage::hit("group: told to join again");
                self.generation = -1;
            }
            ErrorCode::UnknownMemberId => {
                coverage::hit("group: told that it is unknown");
                if scene.now < self.known_until && !is_broken {
                    return violated(Checker::Groups, format!("{}, asked at {:?}", what(), question.at));
                }
                self.forget();
            }
            ErrorCode::IllegalGeneration => {
                if self.has_assignment && !self.has_doubt && !is_broken {
                    return violated(Checker::Groups, format!("{}, and no answer was lost", what()));
                }
                self.generation = -1;
            }
            error if is_absence(error) => self.contact.is_absent(error, scene, &who)?,
            error if scene.excuses(error) => {}
            _ => return violated(Checker::Refusals, what()),
        }
        self.is_loaded = is_loaded;
        Ok(false)
    }

    /// It is nobody's member.
    fn forget(&mut self) {
        self.member_id.clear();
        self.to_assign.clear();
        (self.generation, self.has_assignment, self.known_until) = (-1, false, Monotonic(0));
    }

    fn who(&self) -> String {
        format!("member {} of generation {}, {:?}", self.id, self.generation, self.member_id)
    }
}

fn group() -> GroupId {
    GroupId(StrBytes::from_static_str(GROUP))
}
