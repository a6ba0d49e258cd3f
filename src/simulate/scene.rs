//! What a client sees of a life while it acts: the world, the model, and what may go wrong.

use std::collections::VecDeque;
use std::fmt::Display;
use std::net::SocketAddr;
use std::time::Duration;

use super::link::Link;
use super::model::Model;
use super::plan::Plan;
use super::violation::{Checker, Violation, violated};
use crate::base::time::Monotonic;
use crate::io::sim::World;
use crate::protocol::ErrorCode;

/// How long an answer may take, in the world's time, where nothing is slow; with faults of time it is doubled.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(90);
/// Lines of a story that are kept.
const STORY_LINE_COUNT_MAX: usize = 400;

/// What the faults of this life excuse.
#[derive(Clone, Copy, Debug, Default)]
pub struct Excuses {
    /// The disk fails: partitions and the metadata log may be offline.
    pub storage: bool,
    /// The disk may be full.
    pub full: bool,
    /// Reads may be wrong.
    pub corrupt: bool,
    /// Connections may end.
    pub network: bool,
    /// Things may take long.
    pub slow: bool,
    /// The wall clock may jump.
    pub clock: bool,
}

/// What happened, for people.
#[derive(Debug, Default)]
pub struct Story {
    is_told: bool,
    lines: VecDeque<String>,
}

impl Story {
    /// An empty one, whose lines are kept if it is to be told.
    pub fn new(is_told: bool) -> Story {
        Story { is_told, lines: VecDeque::new() }
    }

    /// Adds a line, if anybody listens.
    pub fn tell(&mut self, now: Monotonic, line: impl FnOnce() -> String) {
        if self.is_told {
            if self.lines.len() == STORY_LINE_COUNT_MAX {
                self.lines.pop_front();
            }
            let text = line();
            match text.starts_with("--") {
                true => self.lines.push_back(text),
                false => self.lines.push_back(format!("{:>12.6} s  {text}", now.0 as f64 / 1e9)),
            }
        }
    }

    /// The lines.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }
}

/// A moment of a life.
pub struct Scene<'a> {
    /// The world.
    pub world: &'a World,
    /// Where shards listen.
    pub addresses: &'a [SocketAddr],
    /// What is known.
    pub model: &'a mut Model,
    /// What may go wrong.
    pub excuses: Excuses,
    /// What happened.
    pub story: &'a mut Story,
    /// The plan.
    pub plan: &'a Plan,
    /// The monotonic clock.
    pub now: Monotonic,
    /// The wall clock in milliseconds.
    pub wall_ms: i64,
    /// Clients start new things; otherwise they only end what they began.
    pub is_busy: bool,
}

impl Scene<'_> {
    /// Checks a connection that has nothing to say at the moment. True if it is over.
    pub fn check_link<Q>(&self, link: &Link<Q>, who: &dyn Display) -> Result<bool, Violation> {
        if link.is_over() {
            return match self.excuses.network {
                true => Ok(true),
                false => violated(Checker::Refusals, format!("{who}: the broker has ended the connection")),
            };
        }
        let is_slow = self.excuses.slow || self.excuses.full || self.excuses.network;
        let time_max = if is_slow { ANSWER_TIME_MAX * 2 } else { ANSWER_TIME_MAX };
        match link.waits_since() {
            Some(since) if self.now.since(since.max(link.deaf_until)) > time_max => violated(
                Checker::Answers,
                format!("{who}: no answer for {:?}, and the connection is open", self.now.since(since)),
            ),
            _ => Ok(false),
        }
    }

    /// True if the faults of this life may keep a part of the broker away for long.
    pub fn excuses_absence(&self) -> bool {
        let Excuses { storage, full, corrupt, network, slow, clock: _ } = self.excuses;
        storage || full || corrupt || network || slow
    }

    /// True if the faults of this life are a reason for `error`.
    pub fn excuses(&self, error: ErrorCode) -> bool {
        match error {
            ErrorCode::KafkaStorageError => self.excuses.storage || self.excuses.full || self.excuses.corrupt,
            ErrorCode::RequestTimedOut => {
                self.excuses.slow || self.excuses.full || self.excuses.network || self.excuses.storage
            }
            ErrorCode::InvalidTimestamp => self.excuses.clock,
            _ => false,
        }
    }
}

/// An error code from the wire.
pub fn error_of(code: i16) -> Result<ErrorCode, Violation> {
    match ErrorCode::from_code(code) {
        Some(error) => Ok(error),
        None => violated(Checker::Answers, format!("error code {code} is none of Kafka's")),
    }
}
