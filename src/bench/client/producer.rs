//! A producing connection: which requests wait, which are under way, and what their answers say.
//!
//! Invariants: at most `in_flight_count` requests are under way; answers come in the order of requests. Hot path:
//! nothing is encoded, patched or allocated per request.

use std::collections::VecDeque;
use std::rc::Rc;

use anyhow::{Context, bail, ensure};

use super::link::Link;
use super::matcher::Matcher;
use crate::base::time::Monotonic;
use crate::bench::answers;
use crate::bench::cycle::Cycle;
use crate::bench::recorder::Counts;
use crate::bench::route::{LoadTopic, Place};
use crate::client::code_name;
use crate::io::{Io, Piece};

/// The most that one send hands to the kernel, unless one request is larger: enough for full speed.
const SEND_SIZE_BYTES_MAX: usize = 1 << 20;
/// Requests that may be due and not sent on one connection. The run fails then: the rate is out of reach.
pub const WAITING_COUNT_MAX: usize = 4 << 20;

/// A connection that sends a cycle of requests.
pub(super) struct Producer {
    pub(super) link: Link,
    pub(super) cycle: Rc<Cycle>,
    in_flight_count_max: usize,
    /// Without answers (acks=0) a request is done when its bytes are in the socket.
    unanswered: bool,
    /// Index of the frame to be sent next, and of the one to be answered next.
    send_next: usize,
    answer_next: usize,
    /// When each request that waits was to be sent, oldest first; and each that is under way.
    waiting: VecDeque<Monotonic>,
    under_way: VecDeque<Monotonic>,
    /// It is on the list of those to be looked at.
    pub(super) is_listed: bool,
}

/// A request that is done.
pub(super) struct Done {
    /// When it was to be sent.
    pub(super) since: Monotonic,
    pub(super) counts: Counts,
}

impl Producer {
    pub(super) fn new(link: Link, cycle: Rc<Cycle>, in_flight_count_max: usize, unanswered: bool) -> Producer {
        Producer {
            link,
            cycle,
            in_flight_count_max,
            unanswered,
            send_next: 0,
            answer_next: 0,
            waiting: VecDeque::new(),
            under_way: VecDeque::with_capacity(in_flight_count_max),
            is_listed: false,
        }
    }

    /// One more request is to be sent, as of `since`.
    #[inline]
    pub(super) fn add(&mut self, since: Monotonic) -> anyhow::Result<()> {
        if self.waiting.len() >= WAITING_COUNT_MAX {
            bail!("{WAITING_COUNT_MAX} requests wait on one connection: the rate is far above what the broker can do");
        }
        self.waiting.push_back(since);
        Ok(())
    }

    /// Requests under way or waiting.
    pub(super) fn open_count(&self) -> usize {
        self.waiting.len() + self.under_way.len()
    }

    /// When those were to be sent, oldest first.
    pub(super) fn open(&self) -> impl Iterator<Item = Monotonic> + '_ {
        self.under_way.iter().chain(&self.waiting).copied()
    }

    /// Takes back what waits.
    pub(super) fn withdraw(&mut self) {
        self.waiting.clear();
    }

    /// Sends what may be sent.
    pub(super) fn pump(&mut self, io: &mut impl Io) {
        if !self.link.can_send() {
            return;
        }
        let count = self.waiting.len().min(self.in_flight_count_max - self.under_way.len());
        if count == 0 {
            return;
        }
        let (cycle, frame_count) = (&self.cycle, self.cycle.frames.len());
        let (waiting, under_way, send_next) = (&mut self.waiting, &mut self.under_way, &mut self.send_next);
        self.link.send(io, |gather| {
            let mut left = count;
            // Once more from the start where the cycle ends.
            while left > 0 && gather.remaining_bytes() < SEND_SIZE_BYTES_MAX {
                let start = cycle.frames[*send_next].start;
                let mut end = start;
                while left > 0 && *send_next < frame_count {
                    let frame = &cycle.frames[*send_next];
                    if end > start && gather.remaining_bytes() + frame.end - start > SEND_SIZE_BYTES_MAX {
                        left = 0;
                        break;
                    }
                    end = frame.end;
                    under_way.push_back(waiting.pop_front().expect("counted above"));
                    *send_next += 1;
                    left -= 1;
                }
                gather.push(Piece::Shared(cycle.bytes.slice(start..end)));
                *send_next %= frame_count;
            }
        });
    }

    /// The last send is over. Without answers its requests are done.
    pub(super) fn sent(&mut self, mut done: impl FnMut(Done)) {
        while self.unanswered && !self.under_way.is_empty() {
            let since = self.under_way.pop_front().expect("not empty");
            done(Done { since, counts: self.counts() });
            self.answer_next = (self.answer_next + 1) % self.cycle.frames.len();
        }
    }

    /// An answer; `met` is called for each of its batches that a consumer has seen before.
    #[inline]
    pub(super) fn answered(
        &mut self,
        answer: &[u8],
        topics: &[LoadTopic],
        matcher: Option<&mut Matcher>,
        mut met: impl FnMut(Monotonic, Monotonic),
    ) -> anyhow::Result<Done> {
        let id = answers::correlation_id(answer)?;
        ensure!(id as usize == self.answer_next, "an answer to request {id} instead of {}", self.answer_next);
        let since = self.under_way.pop_front().context("an answer to no request")?;
        let frame = &self.cycle.frames[self.answer_next];
        let places = self.cycle.places_of(frame);
        let mut matcher = matcher;
        let mut count = 0;
        answers::produced::<anyhow::Error>(answer, self.cycle.version, |produced| {
            if produced.error_code != 0 {
                let code = code_name(produced.error_code);
                bail!("the broker answered {code} for partition {}", produced.partition);
            }
            count += 1;
            if let Some(matcher) = &mut matcher {
                let is_same = |place: &&Place| {
                    place.partition == produced.partition && topics[place.topic as usize].is(produced.topic)
                };
                let place = places.iter().find(is_same);
                let place = place.context("an answer for a partition that was not asked")?;
                if let Some(seen) = matcher.sent(place.id, produced.base_offset, since)? {
                    met(since, seen);
                }
            }
            Ok(())
        })?;
        ensure!(count == frame.place_count, "an answer for {count} partitions instead of {}", frame.place_count);
        let done = Done { since, counts: self.counts() };
        self.answer_next = (self.answer_next + 1) % self.cycle.frames.len();
        Ok(done)
    }

    /// What the next request to be answered carries.
    fn counts(&self) -> Counts {
        let frame = &self.cycle.frames[self.answer_next];
        Counts { requests: 1, bytes: u64::from(frame.batch_bytes), records: u64::from(frame.records) }
    }
}
