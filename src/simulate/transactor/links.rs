//! Connections of one client to every shard that it needs.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use kafka_protocol::protocol::Request;

use crate::simulate::link::{Answer, Link};
use crate::simulate::scene::Scene;
use crate::simulate::violation::Violation;

/// Connections on which questions `Q` are under way, by shard. One question is at a time.
pub(super) struct Links<Q>(BTreeMap<usize, Link<Q>>);

impl<Q> Default for Links<Q> {
    fn default() -> Links<Q> {
        Links(BTreeMap::new())
    }
}

impl<Q> Links<Q> {
    /// Asks a shard; nothing is under way where nobody listens.
    pub fn ask<R: Request>(&mut self, shard: usize, version: i16, request: &R, question: Q, scene: &Scene<'_>) {
        let link = match self.0.entry(shard) {
            Entry::Occupied(link) => link.into_mut(),
            Entry::Vacant(place) => match Link::connect(scene.world, scene.addresses[shard]) {
                Some(link) => place.insert(link),
                None => return,
            },
        };
        link.send(version, request, Some(question), scene.now);
    }

    /// Questions that are not answered.
    pub fn under_way_count(&self) -> usize {
        self.0.values().map(Link::under_way_count).sum()
    }

    /// Answers that have come, and whether a question was lost.
    pub fn take(&mut self, scene: &Scene<'_>, who: &str) -> Result<(Vec<Answer<Q>>, bool), Violation> {
        let (mut answers, mut over, mut is_lost) = (Vec::new(), Vec::new(), false);
        for (shard, link) in &mut self.0 {
            while let Some(answer) = link.take(scene.now)? {
                answers.push(answer);
            }
            if scene.check_link(link, &format_args!("{who} at shard {shard}"))? {
                over.push(*shard);
            }
        }
        for shard in over {
            is_lost |= self.0.remove(&shard).expect("it is there").under_way_count() > 0;
        }
        Ok((answers, is_lost))
    }
}
