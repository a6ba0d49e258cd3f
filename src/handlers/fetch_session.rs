//! Fetch sessions (KIP-227): a consumer tells once what it reads; later fetches name only changes, and answers only
//! what is new.
//!
//! Pure bookkeeping: who has which session, which partitions it holds, and what its last answer said of each.
//!
//! Invariants
//! - A session's epoch starts at 1 after the full fetch that made it and is raised by every fetch of the session; a
//!   fetch with another epoch is refused and changes nothing.
//! - At most `slot_count` sessions; one is evicted for another only after [`EVICTABLE_AFTER`] without use. Where they
//!   name too many partitions together, a consumer is served without a session.
//! - A fetch begins behind the last partition that returned data, so that a busy one cannot starve the others.

use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;

use crate::base::rng::Rng;
use crate::base::time::Monotonic;
use crate::model::id::{LeaderEpoch, Offset, PartitionIndex, TopicId};
use crate::model::limits::SESSIONS_PARTITION_COUNT_MAX;

/// A session that was used within this time is not evicted for a new one (Kafka's `MIN_EVICTION_MS`).
const EVICTABLE_AFTER: Duration = Duration::from_secs(120);
/// Partitions of one session: 200 bytes each. Kafka has no bound; here a client must not fill the memory with what it
/// only names. A consumer of more is served without a session.
const SESSION_PARTITION_COUNT_MAX: usize = 16 * 1024;
/// The epoch that asks for a new session.
pub const EPOCH_INITIAL: i32 = 0;
/// The epoch that ends a session, or asks for none.
pub const EPOCH_FINAL: i32 = -1;

/// How a request names a topic: by id since Fetch 13, by name before.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TopicRef {
    /// By id.
    Id(TopicId),
    /// By name.
    Name(Arc<str>),
}

/// What a fetch wants of one partition.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The topic as the client names it.
    pub topic: TopicRef,
    /// The partition.
    pub partition: PartitionIndex,
    /// The leader epoch that the client believes in, or -1.
    pub current_leader_epoch: LeaderEpoch,
    /// Where to read from.
    pub fetch_offset: Offset,
    /// The epoch of the last record that the client has, or -1.
    pub last_fetched_epoch: LeaderEpoch,
    /// The most bytes to return, unless the first batch is larger.
    pub size_bytes_max: i32,
}

/// One partition of a session and what the client was last told of it.
#[derive(Clone, Debug)]
struct Member {
    wanted: Wanted,
    told_high_watermark: Offset,
    told_log_start_offset: Offset,
}

#[derive(Debug)]
struct Session {
    epoch: i32,
    used_at: Monotonic,
    members: Vec<Member>,
    positions: FxHashMap<(TopicRef, PartitionIndex), usize>,
    first: usize,
}

/// Why an incremental fetch is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionError {
    /// FETCH_SESSION_ID_NOT_FOUND.
    IdNotFound,
    /// INVALID_FETCH_SESSION_EPOCH.
    InvalidEpoch,
    /// FETCH_SESSION_TOPIC_ID_ERROR: the session names topics by id and the request by name, or the reverse.
    TopicIdError,
}

/// What a fetch is to do, and how its answer is to be given.
#[derive(Debug)]
pub struct Plan {
    /// The session id of the answer: 0 for none.
    pub session_id: i32,
    /// True if only partitions with news belong into the answer.
    pub incremental: bool,
    /// The partitions to look at, in order.
    pub wanted: Vec<Wanted>,
}

/// The sessions of one shard.
#[derive(Debug)]
pub struct FetchSessions {
    sessions: FxHashMap<i32, Session>,
    slot_count: usize,
}

impl FetchSessions {
    /// At most `slot_count` sessions (`max.incremental.fetch.session.cache.slots`).
    pub fn new(slot_count: usize) -> FetchSessions {
        FetchSessions { sessions: FxHashMap::default(), slot_count }
    }

    /// Decides what a fetch with `session_id`, `epoch`, its partitions and those to forget is to do.
    pub fn begin(
        &mut self,
        (session_id, epoch): (i32, i32),
        wanted: Vec<Wanted>,
        forgotten: &[(TopicRef, PartitionIndex)],
        rng: &mut Rng,
        now: Monotonic,
    ) -> Result<Plan, SessionError> {
        if epoch == EPOCH_FINAL || epoch == EPOCH_INITIAL {
            self.sessions.remove(&session_id);
            let created = if epoch == EPOCH_INITIAL { self.create(&wanted, rng, now) } else { None };
            return Ok(Plan { session_id: created.unwrap_or(0), incremental: false, wanted });
        }
        let session = self.sessions.get_mut(&session_id).ok_or(SessionError::IdNotFound)?;
        if epoch != session.epoch {
            return Err(SessionError::InvalidEpoch);
        }
        let by_id = |topic: &TopicRef| matches!(topic, TopicRef::Id(_));
        if let Some(first) = session.members.first() {
            let session_by_id = by_id(&first.wanted.topic);
            let named = wanted.iter().map(|w| &w.topic).chain(forgotten.iter().map(|(topic, _)| topic));
            if named.into_iter().any(|topic| by_id(topic) != session_by_id) {
                return Err(SessionError::TopicIdError);
            }
        }
        session.used_at = now;
        session.epoch = if session.epoch == i32::MAX { 1 } else { session.epoch + 1 };
        let has_more = !wanted.is_empty();
        for one in wanted {
            session.put(one);
        }
        for key in forgotten {
            session.forget(key);
        }
        let is_too_large = session.members.len() > SESSION_PARTITION_COUNT_MAX;
        if is_too_large || (has_more && self.partition_count() > SESSIONS_PARTITION_COUNT_MAX) {
            // The client begins again, without a session if it still wants that many.
            self.sessions.remove(&session_id);
            return Err(SessionError::IdNotFound);
        }
        let session = &self.sessions[&session_id];
        if session.members.is_empty() {
            self.sessions.remove(&session_id);
            return Ok(Plan { session_id: 0, incremental: true, wanted: Vec::new() });
        }
        let (behind, from) = session.members.split_at(session.first.min(session.members.len()));
        let wanted = from.iter().chain(behind).map(|member| member.wanted.clone()).collect();
        Ok(Plan { session_id, incremental: true, wanted })
    }

    /// True if the session names its topics by id and a request by name, or the reverse: its partitions could not be
    /// named in the answer.
    pub fn is_named_otherwise(&self, session_id: i32, by_id: bool) -> bool {
        let member = self.sessions.get(&session_id).and_then(|session| session.members.first());
        member.is_some_and(|member| matches!(member.wanted.topic, TopicRef::Id(_)) != by_id)
    }

    fn create(&mut self, wanted: &[Wanted], rng: &mut Rng, now: Monotonic) -> Option<i32> {
        if wanted.is_empty() || wanted.len() > SESSION_PARTITION_COUNT_MAX || self.slot_count == 0 {
            return None;
        }
        if self.sessions.len() >= self.slot_count {
            let (&oldest, session) = self.sessions.iter().min_by_key(|(id, session)| (session.used_at, **id))?;
            if now.since(session.used_at) < EVICTABLE_AFTER {
                return None;
            }
            self.sessions.remove(&oldest);
        }
        if self.partition_count() + wanted.len() > SESSIONS_PARTITION_COUNT_MAX {
            return None;
        }
        let id = loop {
            let id = rng.in_range(1..=i32::MAX as u64) as i32;
            if !self.sessions.contains_key(&id) {
                break id;
            }
        };
        let mut session =
            Session { epoch: 1, used_at: now, members: Vec::new(), positions: FxHashMap::default(), first: 0 };
        for one in wanted {
            session.put(one.clone());
        }
        self.sessions.insert(id, session);
        Some(id)
    }

    /// Partitions of all sessions together.
    pub(super) fn partition_count(&self) -> usize {
        self.sessions.values().map(|session| session.members.len()).sum()
    }

    /// Decides whether a partition belongs into the answer of `plan_session`, and remembers what the client is told.
    /// An error is told every time and makes the next answer include the partition again. Of a session that ended while
    /// its fetch waited, as when its consumer closes it, what was told is not known any more.
    pub fn tell(&mut self, session_id: i32, incremental: bool, key: &(TopicRef, PartitionIndex), told: Told) -> bool {
        let is_told = !incremental || told.is_error || told.has_records;
        let Some(session) = self.sessions.get_mut(&session_id) else { return is_told };
        let Some(&position) = session.positions.get(key) else { return is_told };
        let member = &mut session.members[position];
        let news = told.is_error
            || told.has_records
            || member.told_high_watermark != told.high_watermark
            || member.told_log_start_offset != told.log_start_offset;
        if told.has_records {
            session.first = position + 1;
        }
        let member = &mut session.members[position];
        member.told_high_watermark = if told.is_error { Offset::NONE } else { told.high_watermark };
        member.told_log_start_offset = if told.is_error { Offset::NONE } else { told.log_start_offset };
        news || !incremental
    }

    /// How many sessions there are.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.sessions.len()
    }
}

/// What an answer says of one partition.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    /// It carries an error.
    pub is_error: bool,
    /// It carries records.
    pub has_records: bool,
    /// Its high watermark.
    pub high_watermark: Offset,
    /// Its log start offset.
    pub log_start_offset: Offset,
}

impl Session {
    fn put(&mut self, wanted: Wanted) {
        let key = (wanted.topic.clone(), wanted.partition);
        match self.positions.get(&key) {
            Some(&position) => self.members[position].wanted = wanted,
            None => {
                self.positions.insert(key, self.members.len());
                let unknown = Offset::NONE;
                self.members.push(Member { wanted, told_high_watermark: unknown, told_log_start_offset: unknown });
            }
        }
    }

    fn forget(&mut self, key: &(TopicRef, PartitionIndex)) {
        let Some(position) = self.positions.remove(key) else { return };
        self.members.swap_remove(position);
        if let Some(moved) = self.members.get(position) {
            self.positions.insert((moved.wanted.topic.clone(), moved.wanted.partition), position);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn want(name: &str, partition: i32, offset: i64) -> Wanted {
        Wanted {
            topic: TopicRef::Name(name.into()),
            partition: PartitionIndex(partition),
            current_leader_epoch: LeaderEpoch::NONE,
            fetch_offset: Offset(offset),
            last_fetched_epoch: LeaderEpoch::NONE,
            size_bytes_max: 1 << 20,
        }
    }

    fn told(has_records: bool, high_watermark: i64) -> Told {
        let (high_watermark, log_start_offset) = (Offset(high_watermark), Offset(0));
        Told { is_error: false, has_records, high_watermark, log_start_offset }
    }

    fn key(name: &str, partition: i32) -> (TopicRef, PartitionIndex) {
        (TopicRef::Name(name.into()), PartitionIndex(partition))
    }

    fn partitions(plan: &Plan) -> Vec<i32> {
        plan.wanted.iter().map(|w| w.partition.0).collect()
    }

    #[test]
    fn an_incremental_fetch_reads_all_but_tells_only_news() {
        let (mut sessions, mut rng, now) = (FetchSessions::new(10), Rng::new(1), Monotonic(0));
        let full = sessions.begin((0, 0), vec![want("t", 0, 0), want("t", 1, 0)], &[], &mut rng, now).expect("new");
        assert!(full.session_id > 0 && !full.incremental);
        assert!(sessions.tell(full.session_id, false, &key("t", 0), told(false, 5)));
        assert!(sessions.tell(full.session_id, false, &key("t", 1), told(false, 5)));

        let next = sessions.begin((full.session_id, 1), vec![], &[], &mut rng, now).expect("known");
        assert_eq!((partitions(&next), next.incremental), (vec![0, 1], true));
        assert!(!sessions.tell(next.session_id, true, &key("t", 0), told(false, 5)));
        assert!(sessions.tell(next.session_id, true, &key("t", 1), told(false, 6)), "its high watermark moved");
        assert!(sessions.tell(next.session_id, true, &key("t", 0), told(true, 5)));
    }

    #[test]
    fn a_fetch_whose_session_ends_meanwhile_is_told_records_and_errors_only() {
        // A consumer that closes sends the end of its session behind a fetch that waits.
        let (mut sessions, mut rng, now) = (FetchSessions::new(10), Rng::new(1), Monotonic(0));
        let id = sessions.begin((0, 0), vec![want("t", 0, 0)], &[], &mut rng, now).expect("new").session_id;
        assert!(sessions.tell(id, false, &key("t", 0), told(false, 5)));
        let waiting = sessions.begin((id, 1), vec![], &[], &mut rng, now).expect("known");
        let end = sessions.begin((id, EPOCH_FINAL), vec![], &[], &mut rng, now).expect("ended");
        assert_eq!((end.session_id, end.wanted.len(), sessions.len()), (0, 0, 0));
        assert!(!sessions.tell(waiting.session_id, true, &key("t", 0), told(false, 5)));
        assert!(sessions.tell(waiting.session_id, true, &key("t", 0), told(true, 6)));
        assert!(sessions.tell(0, false, &key("t", 0), told(false, 5)), "without a session all is told");
    }

    #[test]
    fn partitions_that_returned_data_go_to_the_end() {
        let (mut sessions, mut rng, now) = (FetchSessions::new(10), Rng::new(1), Monotonic(0));
        let wanted = (0..4).map(|p| want("t", p, 0)).collect();
        let id = sessions.begin((0, 0), wanted, &[], &mut rng, now).expect("new").session_id;
        sessions.tell(id, true, &key("t", 1), told(true, 1));
        let next = sessions.begin((id, 1), vec![], &[], &mut rng, now).expect("known");
        assert_eq!(partitions(&next), [2, 3, 0, 1]);
    }

    #[test]
    fn wrong_ids_and_epochs_are_refused_and_change_nothing() {
        let (mut sessions, mut rng, now) = (FetchSessions::new(10), Rng::new(1), Monotonic(0));
        let id = sessions.begin((0, 0), vec![want("t", 0, 0)], &[], &mut rng, now).expect("new").session_id;
        let error = |r: Result<Plan, SessionError>| r.expect_err("refused");
        assert_eq!(error(sessions.begin((id ^ 1, 1), vec![], &[], &mut rng, now)), SessionError::IdNotFound);
        assert_eq!(error(sessions.begin((id, 2), vec![], &[], &mut rng, now)), SessionError::InvalidEpoch);
        let mut by_id = want("t", 0, 0);
        by_id.topic = TopicRef::Id(TopicId::NONE);
        assert_eq!(error(sessions.begin((id, 1), vec![by_id], &[], &mut rng, now)), SessionError::TopicIdError);
        assert!(sessions.begin((id, 1), vec![], &[], &mut rng, now).is_ok());
    }

    #[test]
    fn a_session_by_name_is_told_from_a_request_by_id_even_if_that_names_nothing() {
        let (mut sessions, mut rng, now) = (FetchSessions::new(10), Rng::new(1), Monotonic(0));
        let id = sessions.begin((0, 0), vec![want("t", 0, 0)], &[], &mut rng, now).expect("new").session_id;
        assert!(sessions.is_named_otherwise(id, true));
        assert!(!sessions.is_named_otherwise(id, false));
        assert!(!sessions.is_named_otherwise(id ^ 1, true), "what is not there is found out later");
    }

    #[test]
    fn forgetting_everything_ends_the_session() {
        let (mut sessions, mut rng, now) = (FetchSessions::new(10), Rng::new(1), Monotonic(0));
        let wanted = vec![want("t", 0, 0), want("t", 1, 0), want("u", 0, 0)];
        let id = sessions.begin((0, 0), wanted, &[], &mut rng, now).expect("new").session_id;
        let next = sessions.begin((id, 1), vec![want("u", 0, 9)], &[key("t", 0)], &mut rng, now).expect("known");
        assert_eq!(next.wanted.len(), 2);
        assert!(next.wanted.iter().any(|w| w.fetch_offset == Offset(9)));
        let last = sessions.begin((id, 2), vec![], &[key("t", 1), key("u", 0)], &mut rng, now).expect("known");
        assert_eq!((last.session_id, sessions.len()), (0, 0));
    }

    #[test]
    fn a_session_that_grows_too_large_ends() {
        let (mut sessions, mut rng, now) = (FetchSessions::new(10), Rng::new(1), Monotonic(0));
        let many = |from: i32| (from..from + 10_000).map(|p| want("t", p, 0)).collect::<Vec<_>>();
        let id = sessions.begin((0, 0), many(0), &[], &mut rng, now).expect("new").session_id;
        let grown = sessions.begin((id, 1), many(10_000), &[], &mut rng, now);
        assert_eq!((grown.expect_err("too large"), sessions.len()), (SessionError::IdNotFound, 0));
        let all = [many(0), many(10_000)].concat();
        assert_eq!(sessions.begin((0, 0), all, &[], &mut rng, now).expect("no session").session_id, 0);
    }

    #[test]
    fn sessions_name_only_so_many_partitions_together() {
        // Sixteen of the largest sessions are all; ended ones make room.
        let (mut sessions, mut rng, now) = (FetchSessions::new(100), Rng::new(1), Monotonic(0));
        let largest: Vec<Wanted> = (0..SESSION_PARTITION_COUNT_MAX as i32).map(|p| want("t", p, 0)).collect();
        let mut begin = |session: (i32, i32), wanted: &[Wanted]| {
            sessions.begin(session, wanted.to_vec(), &[], &mut rng, now).map(|plan| plan.session_id)
        };
        let small = begin((0, 0), &largest[..1]).expect("a session");
        let ids: Vec<i32> = (1..16).map(|_| begin((0, 0), &largest).expect("a session")).collect();
        assert!(ids.iter().all(|id| *id != 0));
        assert_eq!(begin((0, 0), &largest).expect("served"), 0, "without a session");
        assert_eq!(begin((small, 1), &largest[..1]), Ok(small));
        assert_eq!(begin((ids[0], -1), &[]).expect("ended"), 0);
        assert_ne!(begin((0, 0), &largest).expect("a session"), 0);
    }

    #[test]
    fn a_full_cache_refuses_until_a_session_is_old() {
        let (mut sessions, mut rng) = (FetchSessions::new(1), Rng::new(1));
        let first = sessions.begin((0, 0), vec![want("t", 0, 0)], &[], &mut rng, Monotonic(0)).expect("new");
        let early = sessions.begin((0, 0), vec![want("t", 0, 0)], &[], &mut rng, Monotonic(1)).expect("no session");
        assert_eq!(early.session_id, 0);
        let later = Monotonic(0) + EVICTABLE_AFTER;
        let second = sessions.begin((0, 0), vec![want("t", 0, 0)], &[], &mut rng, later).expect("evicts");
        assert!(second.session_id > 0 && second.session_id != first.session_id);
        assert_eq!(sessions.len(), 1);
    }
}
