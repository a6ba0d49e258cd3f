//! One connection of a client: requests out, answers in, each by its number.
//!
//! It checks what every client may rely on: answers come in the order of requests, with their correlation ids, and a
//! connection that is open answers.

use std::collections::VecDeque;
use std::net::SocketAddr;

use bytes::Bytes;
use kafka_protocol::protocol::Request;

use super::violation::{Checker, Violation, violated};
use crate::base::time::Monotonic;
use crate::io::sim::{SimClient, World};
use crate::protocol::decode::decode_response;
use crate::protocol::encode::encode_request;

/// An answer: which request it is to, and its frame.
pub type Answer<Q> = (Q, Bytes);

/// A connection on which questions `Q` are under way.
pub struct Link<Q> {
    client: SimClient,
    inbox: Vec<u8>,
    next_correlation: i32,
    under_way: VecDeque<(i32, Q, Monotonic)>,
    /// The client takes nothing until then.
    pub deaf_until: Monotonic,
}

impl<Q> Link<Q> {
    /// Connects; `None` where nobody listens.
    pub fn connect(world: &World, address: SocketAddr) -> Option<Link<Q>> {
        let client = world.connect(address).ok()?;
        let deaf_until = Monotonic(0);
        Some(Link { client, inbox: Vec::new(), next_correlation: 1, under_way: VecDeque::new(), deaf_until })
    }

    /// Asks. Without a question nothing will be answered.
    pub fn send<R: Request>(&mut self, version: i16, request: &R, question: Option<Q>, now: Monotonic) {
        let mut bytes = Vec::new();
        encode_request(&mut bytes, version, self.next_correlation, Some("sim"), request).expect("it fits the version");
        if let Some(question) = question {
            self.under_way.push_back((self.next_correlation, question, now));
        }
        self.next_correlation += 1;
        self.client.send(&bytes);
    }

    /// The next answer, if it has come.
    pub fn take(&mut self, now: Monotonic) -> Result<Option<Answer<Q>>, Violation> {
        if now < self.deaf_until {
            return Ok(None);
        }
        if self.client.available_bytes() > 0 {
            self.inbox.extend(self.client.recv_available());
        }
        let Some(size) = self.inbox.first_chunk::<4>() else { return Ok(None) };
        let size = u32::from_be_bytes(*size) as usize;
        if self.inbox.len() < 4 + size {
            return Ok(None);
        }
        let frame: Bytes = self.inbox.drain(..4 + size).skip(4).collect::<Vec<u8>>().into();
        let Some((expected, question, _)) = self.under_way.pop_front() else {
            return violated(Checker::Answers, "an answer to no question".into());
        };
        match frame.first_chunk::<4>().map(|number| i32::from_be_bytes(*number)) {
            Some(number) if number == expected => Ok(Some((question, frame))),
            number => violated(Checker::Answers, format!("answer {number:?} where {expected} is next")),
        }
    }

    /// Questions that are not answered.
    pub fn under_way_count(&self) -> usize {
        self.under_way.len()
    }

    /// The oldest of them.
    pub fn first(&self) -> Option<&Q> {
        self.under_way.front().map(|(_, question, _)| question)
    }

    /// Since when the oldest of them waits.
    pub fn waits_since(&self) -> Option<Monotonic> {
        self.under_way.front().map(|(_, _, since)| *since)
    }

    /// The questions that nobody will answer any more, oldest first.
    pub fn into_questions(self) -> Vec<Q> {
        self.under_way.into_iter().map(|(_, question, _)| question).collect()
    }

    /// As [`into_questions`](Self::into_questions), by a reset.
    pub fn reset(self) -> Vec<Q> {
        self.client.reset();
        self.under_way.into_iter().map(|(_, question, _)| question).collect()
    }

    /// True once nothing more will come.
    pub fn is_over(&self) -> bool {
        self.client.is_ended() && self.client.available_bytes() == 0
    }

    /// The most that waits at the client before the broker must wait.
    pub fn set_window(&self, bytes: usize) {
        self.client.set_window(bytes);
    }
}

/// An answer's content.
pub fn decode<R: Request>(frame: Bytes, version: i16) -> Result<R::Response, Violation> {
    match decode_response::<R>(frame, version) {
        Ok((_, response)) => Ok(response),
        Err(error) => violated(Checker::Answers, format!("an answer that cannot be decoded: {error}")),
    }
}
