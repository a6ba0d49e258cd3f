//! A client's connection to the one shard that it needs at a time: the coordinator of its group, the leader of its
//! partition. Without knowing which one that is it asks any.
//!
//! It has one question under way at a time, and does not take it for an answer for ever that nobody is there.

use std::fmt::Display;
use std::time::Duration;

use kafka_protocol::messages::{BrokerId, FindCoordinatorRequest};
use kafka_protocol::protocol::{Request, StrBytes};

use super::link::{Answer, Link};
use super::scene::Scene;
use super::violation::{Checker, Violation, violated};
use crate::base::rng::Rng;
use crate::base::time::Monotonic;
use crate::protocol::ErrorCode;

/// The version in which a group's coordinator is asked for.
pub const FIND: i16 = 3;
/// How long a group may be without a coordinator where nothing is slow.
const ABSENCE_TIME_MAX: Duration = Duration::from_secs(30);

/// A connection on which a question `Q` is under way, or none.
pub struct Contact<Q> {
    link: Option<(usize, Link<Q>)>,
    /// The shard that is needed, if that is known.
    pub shard: Option<usize>,
    absent_since: Option<Monotonic>,
    connection_count: u32,
}

impl<Q> Default for Contact<Q> {
    fn default() -> Contact<Q> {
        Contact { link: None, shard: None, absent_since: None, connection_count: 0 }
    }
}

impl<Q> Contact<Q> {
    /// A life begins, without a connection. True if a question is lost.
    pub fn begin_life(&mut self) -> bool {
        (self.shard, self.absent_since) = (None, None);
        self.drop_link()
    }

    fn drop_link(&mut self) -> bool {
        self.link.take().is_some_and(|(_, link)| link.under_way_count() > 0)
    }

    /// Questions that are not answered.
    pub fn under_way_count(&self) -> usize {
        self.link.as_ref().map_or(0, |(_, link)| link.under_way_count())
    }

    /// Which connection this is.
    pub fn connection_count(&self) -> u32 {
        self.connection_count
    }

    /// The next answer, if it has come.
    pub fn take(&mut self, scene: &Scene<'_>) -> Result<Option<Answer<Q>>, Violation> {
        match &mut self.link {
            Some((_, link)) => link.take(scene.now),
            None => Ok(None),
        }
    }

    /// Checks a connection that has nothing to say at the moment. If it is over it is given up: whether a question is
    /// lost.
    pub fn check(&mut self, scene: &Scene<'_>, who: &dyn Display) -> Result<Option<bool>, Violation> {
        let Some((shard, link)) = &self.link else { return Ok(None) };
        let is_over = scene.check_link(link, &format_args!("{who} at shard {shard}"))?;
        Ok(is_over.then(|| self.drop_link()))
    }

    /// Resets the connection, if there is one: whether a question is lost.
    pub fn reset(&mut self) -> Option<bool> {
        self.link.take().map(|(_, link)| !link.reset().is_empty())
    }

    /// Connects to the shard that is needed, or to any. False where nobody listens.
    pub fn connect(&mut self, rng: &mut Rng, scene: &Scene<'_>) -> bool {
        let any = rng.in_range(0..scene.addresses.len() as u64) as usize;
        let shard = self.shard.unwrap_or(any);
        if self.link.as_ref().is_none_or(|(connected, _)| *connected != shard) {
            self.connection_count += 1;
            self.link = Link::connect(scene.world, scene.addresses[shard]).map(|link| (shard, link));
        }
        self.link.is_some()
    }

    /// Asks.
    pub fn ask<R: Request>(&mut self, version: i16, request: &R, question: Q, scene: &Scene<'_>) {
        let (_, link) = self.link.as_mut().expect("connected");
        link.send(version, request, Some(question), scene.now);
    }

    /// Asks for the coordinator of a group, in version [`FIND`].
    pub fn find(&mut self, group: &str, question: Q, scene: &Scene<'_>) {
        let key = StrBytes::from_string(group.to_owned());
        self.ask(FIND, &FindCoordinatorRequest::default().with_key(key).with_key_type(0), question, scene);
    }

    /// It is at this broker.
    pub fn found(&mut self, broker: BrokerId) {
        self.shard = usize::try_from(broker.0 - 1).ok();
    }

    /// The coordinator has answered as one.
    pub fn is_there(&mut self) {
        self.absent_since = None;
    }

    /// The coordinator has said that it [is absent](is_absence): it is looked for again, but not for ever.
    pub fn is_absent(&mut self, error: ErrorCode, scene: &Scene<'_>, who: &dyn Display) -> Result<(), Violation> {
        self.shard = None;
        let absent_for = scene.now.since(*self.absent_since.get_or_insert(scene.now));
        match absent_for > ABSENCE_TIME_MAX && !scene.excuses_absence() {
            true => violated(Checker::Refusals, format!("{who}: {error:?} for {absent_for:?}")),
            false => Ok(()),
        }
    }
}

/// True for what a coordinator says that is not there, not ready or somewhere else.
pub fn is_absence(error: ErrorCode) -> bool {
    matches!(
        error,
        ErrorCode::CoordinatorNotAvailable
            | ErrorCode::CoordinatorLoadInProgress
            | ErrorCode::NotCoordinator
            | ErrorCode::UnknownTopicOrPartition
    )
}
