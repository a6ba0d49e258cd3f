//! Responses and the queue that keeps them in request order.

use std::collections::VecDeque;

use crate::io::{File, Slice};

/// A response: encoded bytes with gaps that are filled by bytes from elsewhere, never copied into it.
#[derive(Debug, Default)]
pub struct Response {
    /// Size prefix, header and body without what the gaps hold.
    pub bytes: Vec<u8>,
    /// Gaps by ascending position.
    pub gaps: Vec<Gap>,
}

/// Something to be sent in the middle of a response's bytes.
#[derive(Debug)]
pub struct Gap {
    /// It goes in front of `bytes[at]`.
    pub at: usize,
    /// What goes there.
    pub content: Content,
}

/// Bytes that a response refers to.
#[derive(Debug)]
pub enum Content {
    /// Memory of its own.
    Owned(Vec<u8>),
    /// Memory that others use as well.
    Memory(Slice),
    /// A range of a file that goes to the socket without passing user space.
    File {
        /// Not open for direct I/O. The handle is the pin.
        file: File,
        /// Where the range starts.
        position: u64,
        /// How long it is.
        length_bytes: u64,
    },
}

impl Content {
    /// How many bytes it stands for.
    pub fn length_bytes(&self) -> u64 {
        match self {
            Content::Owned(bytes) => bytes.len() as u64,
            Content::Memory(slice) => slice.len() as u64,
            Content::File { length_bytes, .. } => *length_bytes,
        }
    }
}

impl Response {
    /// How many bytes it is, gaps included.
    pub fn length_bytes(&self) -> u64 {
        self.bytes.len() as u64 + self.gaps.iter().map(|gap| gap.content.length_bytes()).sum::<u64>()
    }

    /// How many of them are memory of its own.
    pub fn owned_bytes(&self) -> u64 {
        let owned = |gap: &Gap| match &gap.content {
            Content::Owned(bytes) => bytes.len() as u64,
            Content::Memory(_) | Content::File { .. } => 0,
        };
        self.bytes.len() as u64 + self.gaps.iter().map(owned).sum::<u64>()
    }
}

impl From<Vec<u8>> for Response {
    fn from(bytes: Vec<u8>) -> Response {
        Response { bytes, gaps: Vec::new() }
    }
}

/// What became of a request.
#[derive(Debug)]
enum Slot {
    /// Not answered yet.
    Waiting,
    /// Answered, but an earlier one is not.
    Ready(Response),
    /// Answered by silence (acks = 0).
    Silent,
}

/// The requests of one connection that have not been sent an answer, oldest first.
#[derive(Debug, Default)]
pub struct ResponseQueue {
    slots: VecDeque<Slot>,
    first: u64,
    ready_bytes: u64,
    owned_bytes: u64,
}

impl ResponseQueue {
    /// Numbers requests from `first` on. Before the first of them is opened.
    pub fn number_from(&mut self, first: u64) {
        assert!(self.slots.is_empty());
        self.first = first;
    }

    /// True if request `number` is one of these.
    pub fn has(&self, number: u64) -> bool {
        number.checked_sub(self.first).is_some_and(|index| index < self.slots.len() as u64)
    }

    /// A slot for a request that was just read; its number is what answers are given by.
    pub fn open(&mut self) -> u64 {
        self.slots.push_back(Slot::Waiting);
        self.first + self.slots.len() as u64 - 1
    }

    /// Answers request `number`; `None` is silence. Each request is answered once.
    pub fn fill(&mut self, number: u64, response: Option<Response>) {
        let index = usize::try_from(number - self.first).expect("in memory");
        let slot = &mut self.slots[index];
        assert!(matches!(slot, Slot::Waiting), "request {number} was answered twice");
        self.ready_bytes += response.as_ref().map_or(0, Response::length_bytes);
        self.owned_bytes += response.as_ref().map_or(0, Response::owned_bytes);
        *slot = response.map_or(Slot::Silent, Slot::Ready);
    }

    /// Answers request `number` by bytes that are sent at once: true if its turn has come. Else nothing has changed.
    pub fn pass(&mut self, number: u64) -> bool {
        if number != self.first {
            return false;
        }
        let slot = self.slots.pop_front();
        assert!(matches!(slot, Some(Slot::Waiting)), "request {number} was answered twice");
        self.first += 1;
        true
    }

    /// The next response that may be sent, if its turn has come.
    pub fn pop_ready(&mut self) -> Option<Response> {
        loop {
            if matches!(self.slots.front()?, Slot::Waiting) {
                return None;
            }
            self.first += 1;
            if let Some(Slot::Ready(response)) = self.slots.pop_front() {
                self.ready_bytes -= response.length_bytes();
                self.owned_bytes -= response.owned_bytes();
                return Some(response);
            }
        }
    }

    /// Bytes of answers whose turn has not come.
    pub fn ready_bytes(&self) -> u64 {
        self.ready_bytes
    }

    /// How many of them are memory of their own.
    pub fn owned_bytes(&self) -> u64 {
        self.owned_bytes
    }

    /// Requests without an answer that was handed over for sending.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// True if every request was answered.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_leave_in_request_order_whatever_order_they_come_in() {
        let mut queue = ResponseQueue::default();
        let numbers: Vec<u64> = (0..4).map(|_| queue.open()).collect();
        queue.fill(numbers[2], Some(b"c".to_vec().into()));
        assert!(queue.pop_ready().is_none());
        queue.fill(numbers[1], None);
        queue.fill(numbers[0], Some(b"a".to_vec().into()));
        let mut sent = Vec::new();
        while let Some(response) = queue.pop_ready() {
            sent.push(response.bytes);
        }
        assert_eq!(sent, [b"a".to_vec(), b"c".to_vec()]);
        assert_eq!((queue.len(), queue.ready_bytes()), (1, 0));
        assert!(!queue.pass(numbers[3] + 1));
        let next = queue.open();
        queue.fill(numbers[3], Some(b"d".to_vec().into()));
        queue.fill(next, Some(b"e".to_vec().into()));
        assert_eq!(queue.pop_ready().expect("its turn").bytes, b"d");
        assert_eq!(queue.pop_ready().expect("its turn").bytes, b"e");
        assert!(queue.is_empty());
    }

    #[test]
    fn only_requests_that_are_open_are_its_own() {
        let mut queue = ResponseQueue::default();
        queue.number_from(100);
        let (first, second) = (queue.open(), queue.open());
        assert_eq!((first, second), (100, 101));
        queue.fill(second, Some(b"late".to_vec().into()));
        assert_eq!(queue.ready_bytes(), 4);
        assert_eq!([99, 100, 101, 102].map(|number| queue.has(number)), [false, true, true, false]);
        queue.fill(first, None);
        assert_eq!(queue.pop_ready().expect("its turn").bytes, b"late");
        assert!(!queue.has(first) && !queue.has(second));
    }

    #[test]
    #[should_panic(expected = "answered twice")]
    fn a_second_answer_to_one_request_is_a_broken_invariant() {
        let mut queue = ResponseQueue::default();
        let (_, second) = (queue.open(), queue.open());
        queue.fill(second, None);
        queue.fill(second, None);
    }
}
