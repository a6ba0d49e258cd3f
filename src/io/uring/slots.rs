//! Slots: what an operation needs from its submission until the kernel's last completion for it.
//!
//! Slots are reused, so an operation costs no allocation. A slot's generation changes with each use, so that a
//! completion, a delay or a queue entry that outlived its operation is recognized.

use io_uring::squeue;

use super::disk::{OpenWork, ReadWork, SimpleWork, WriteWork, ZeroWork};
use super::names::SyncDirWork;
use super::send_file::SendFileWork;
use super::sockets::{AcceptWork, ConnectWork, ReceiveWork, SendWork};
use crate::io::Token;

/// What an operation is doing.
pub(super) enum Work {
    Free,
    Accept(AcceptWork),
    Connect(ConnectWork),
    Receive(ReceiveWork),
    Send(SendWork),
    SendFile(SendFileWork),
    Open(OpenWork),
    Read(ReadWork),
    Write(WriteWork),
    Zero(ZeroWork),
    Simple(SimpleWork),
    SyncDir(SyncDirWork),
}

/// Which of a slot's requests a completion belongs to, or what else it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Step {
    /// The slot's only request.
    Only = 0,
    /// Of a file send: the wait for room in the socket.
    Writable = 1,
    /// Of a file send: file to pipe, linked to the next.
    SpliceIn = 2,
    /// Of a file send: pipe to socket.
    SpliceOut = 3,
    /// No slot: the eventfd was written.
    Wake = 4,
    /// No slot: a cancellation was looked for.
    Cancel = 5,
    /// No slot: a descriptor was closed.
    Close = 6,
}

/// What travels through the kernel with each request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UserData {
    pub(super) index: u32,
    pub(super) generation: u32,
    pub(super) step: Step,
}

/// Generations have 24 bits of the user data.
const GENERATION_MASK: u32 = (1 << 24) - 1;

impl UserData {
    /// For a request without a slot.
    pub(super) fn slotless(step: Step) -> u64 {
        UserData { index: u32::MAX, generation: 0, step }.into()
    }
}

impl From<UserData> for u64 {
    #[inline]
    fn from(data: UserData) -> u64 {
        u64::from(data.index) | u64::from(data.step as u8) << 32 | u64::from(data.generation) << 40
    }
}

impl From<u64> for UserData {
    #[inline]
    fn from(bits: u64) -> UserData {
        let step = match (bits >> 32) as u8 {
            0 => Step::Only,
            1 => Step::Writable,
            2 => Step::SpliceIn,
            3 => Step::SpliceOut,
            4 => Step::Wake,
            5 => Step::Cancel,
            6 => Step::Close,
            other => unreachable!("the kernel returns user data unchanged, and nobody made step {other}"),
        };
        UserData { index: bits as u32, generation: (bits >> 40) as u32, step }
    }
}

struct Slot {
    generation: u32,
    /// Requests that the kernel has, or will get from the backlog, and not completed for the last time.
    in_flight: u16,
    cancelled: bool,
    work: Work,
}

/// All slots of a ring.
#[derive(Default)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    /// The token of each slot, apart from the rest so that a cancellation can search them fast.
    tokens: Vec<Token>,
    free: Vec<u32>,
    in_flight: usize,
}

impl Slots {
    /// A free slot for an operation with `token`. Its work is set by whoever starts it.
    pub(super) fn insert(&mut self, token: Token) -> u32 {
        if let Some(index) = self.free.pop() {
            self.tokens[index as usize] = token;
            return index;
        }
        let index = self.slots.len() as u32;
        assert!(index < u32::MAX, "a slot for every operation that memory could hold");
        self.slots.push(Slot { generation: 0, in_flight: 0, cancelled: false, work: Work::Free });
        self.tokens.push(token);
        index
    }

    /// Frees a slot that the kernel is done with and returns its token.
    pub(super) fn remove(&mut self, index: u32) -> Token {
        let slot = &mut self.slots[index as usize];
        assert!(slot.in_flight == 0, "slot {index} is freed under the kernel");
        slot.generation = (slot.generation + 1) & GENERATION_MASK;
        slot.cancelled = false;
        slot.work = Work::Free;
        self.free.push(index);
        self.tokens[index as usize]
    }

    #[inline]
    pub(super) fn token(&self, index: u32) -> Token {
        self.tokens[index as usize]
    }

    #[inline]
    pub(super) fn set(&mut self, index: u32, work: Work) {
        self.slots[index as usize].work = work;
    }

    #[inline]
    pub(super) fn take(&mut self, index: u32) -> Work {
        std::mem::replace(&mut self.slots[index as usize].work, Work::Free)
    }

    pub(super) fn work(&self, index: u32) -> &Work {
        &self.slots[index as usize].work
    }

    #[inline]
    pub(super) fn generation(&self, index: u32) -> u32 {
        self.slots[index as usize].generation
    }

    /// True if that use of the slot is over.
    pub(super) fn is_stale(&self, index: u32, generation: u32) -> bool {
        self.slots[index as usize].generation != generation
    }

    #[inline]
    pub(super) fn is_cancelled(&self, index: u32) -> bool {
        self.slots[index as usize].cancelled
    }

    pub(super) fn set_cancelled(&mut self, index: u32) {
        self.slots[index as usize].cancelled = true;
    }

    /// Requests of the slot that are under way.
    #[inline]
    pub(super) fn slot_in_flight(&self, index: u32) -> u16 {
        self.slots[index as usize].in_flight
    }

    /// Requests of all slots that are under way.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Marks `entry` as a request of the slot.
    #[inline]
    pub(super) fn begin(&mut self, index: u32, step: Step, entry: squeue::Entry) -> squeue::Entry {
        let slot = &mut self.slots[index as usize];
        slot.in_flight += 1;
        self.in_flight += 1;
        entry.user_data(UserData { index, generation: slot.generation, step }.into())
    }

    /// The kernel is done with one request of the slot.
    #[inline]
    pub(super) fn end(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        assert!(slot.in_flight > 0, "slot {index} completed more often than it asked");
        slot.in_flight -= 1;
        self.in_flight -= 1;
    }

    /// The operations under way with `token`.
    pub(super) fn with_token(&self, token: Token) -> Vec<u32> {
        let same = self.tokens.iter().enumerate().filter(|&(_, &other)| other == token);
        let used = same.filter(|&(index, _)| !matches!(self.slots[index].work, Work::Free));
        used.map(|(index, _)| index as u32).collect()
    }

    /// What all slots are doing.
    pub(super) fn works(&self) -> impl Iterator<Item = &Work> {
        self.slots.iter().map(|slot| &slot.work)
    }

    /// The number of slots in use.
    pub(super) fn used_count(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_data_comes_back_as_it_went() {
        // Packs and unpacks the extremes of each field.
        for index in [0, 1, u32::MAX] {
            for generation in [0, 1, GENERATION_MASK] {
                for step in [Step::Only, Step::SpliceOut, Step::Close] {
                    let data = UserData { index, generation, step };
                    assert_eq!(UserData::from(u64::from(data)), data);
                }
            }
        }
    }
}
