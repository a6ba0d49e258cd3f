//! The send chain of one connection: what is to go out, in order, one operation at a time.
//!
//! Memory goes by gathered sends, file ranges by [`Op::SendFile`]. Whatever stops short goes on from the exact byte.
//! Hot path: small responses are joined in one vector while a send is under way, and its memory serves the next one.

use std::collections::VecDeque;

use super::response::{Content, Response};
use crate::base::units::MIB;
use crate::io::{File, Gather, Io, Op, Piece, Slice, Socket, Token};

/// The most that one operation is asked for, but for its last piece. A longer transfer would only hold its pipe
/// longer, and a longer send would hide for too long whether the receiver takes anything.
const TRANSFER_SIZE_BYTES_MAX: u64 = MIB as u64;
/// Pieces of one gathered send: the kernel takes 1,024 (`UIO_MAXIOV`), the ring fewer at a time.
const GATHER_PIECE_COUNT_MAX: usize = 64;
/// Owned bytes are joined up to this size instead of being sent as pieces of their own.
const JOIN_SIZE_BYTES_MAX: usize = 64 * 1024;
/// Room that is made when a second response joins.
const JOIN_RESERVE_BYTES: usize = 512;
/// Memory that is kept for the next send, at most: the answers of a turn to a client with many small requests ahead.
const SPARE_SIZE_BYTES_MAX: usize = 8 * 1024;

#[derive(Debug)]
enum Item {
    Bytes(Vec<u8>),
    Memory(Slice),
    File { file: File, position: u64, length_bytes: u64 },
}

/// Which operation is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Sending,
    Transferring,
}

/// What is to be sent on one connection.
#[derive(Debug)]
pub struct SendChain {
    items: VecDeque<Item>,
    pending_bytes: u64,
    under_way_bytes: u64,
    /// Memory of the chain's own, that of the operation under way included.
    owned_bytes: u64,
    owned_under_way_bytes: u64,
    /// What the last send left: its list and the memory of its bytes.
    spare: Gather,
    state: State,
}

impl Default for SendChain {
    fn default() -> SendChain {
        SendChain {
            items: VecDeque::new(),
            pending_bytes: 0,
            under_way_bytes: 0,
            owned_bytes: 0,
            owned_under_way_bytes: 0,
            spare: Gather::new(),
            state: State::Idle,
        }
    }
}

impl SendChain {
    /// Puts a response behind what is there.
    pub fn push(&mut self, response: Response) {
        let Response { bytes, gaps } = response;
        if gaps.is_empty() {
            return self.push_bytes(bytes);
        }
        let mut from = 0;
        for gap in gaps {
            if gap.at > from {
                self.push_copy(&bytes[from..gap.at]);
                from = gap.at;
            }
            let length = gap.content.length_bytes();
            if length == 0 {
                continue;
            }
            let item = match gap.content {
                Content::Owned(bytes) => {
                    self.push_bytes(bytes);
                    continue;
                }
                Content::Memory(slice) => Item::Memory(slice),
                Content::File { file, position, length_bytes } => Item::File { file, position, length_bytes },
            };
            self.pending_bytes += length;
            self.items.push_back(item);
        }
        if from < bytes.len() {
            self.push_copy(&bytes[from..]);
        }
    }

    /// Puts a copy of a small response, or of a part of one, behind what is there.
    pub fn push_copy(&mut self, bytes: &[u8]) {
        if self.join(bytes) {
            return;
        }
        let mut own = self.spare.take_spent().unwrap_or_default();
        own.extend_from_slice(bytes);
        self.push_bytes(own);
    }

    /// True if the bytes have joined those at the end.
    fn join(&mut self, bytes: &[u8]) -> bool {
        let Some(Item::Bytes(last)) = self.items.back_mut() else { return false };
        if last.len() + bytes.len() > JOIN_SIZE_BYTES_MAX {
            return false;
        }
        if last.capacity() < last.len() + bytes.len() {
            // The second of many, mostly.
            last.reserve(bytes.len().max(JOIN_RESERVE_BYTES));
        }
        last.extend_from_slice(bytes);
        self.pending_bytes += bytes.len() as u64;
        self.owned_bytes += bytes.len() as u64;
        true
    }

    fn push_bytes(&mut self, bytes: Vec<u8>) {
        if bytes.is_empty() || self.join(&bytes) {
            return;
        }
        self.pending_bytes += bytes.len() as u64;
        self.owned_bytes += bytes.len() as u64;
        self.items.push_back(Item::Bytes(bytes));
    }

    /// Bytes handed to the chain and not yet known to be sent.
    pub fn pending_bytes(&self) -> u64 {
        self.pending_bytes
    }

    /// Memory of the chain's own: responses and what was copied, not slices of memory that others use.
    pub fn owned_bytes(&self) -> u64 {
        self.owned_bytes
    }

    /// Memory of any kind that is held until it is sent.
    pub fn memory_bytes(&self) -> u64 {
        let slices = self.items.iter().map(|item| match item {
            Item::Memory(slice) => slice.len() as u64,
            Item::Bytes(_) | Item::File { .. } => 0,
        });
        let sending = if self.state == State::Sending { self.under_way_bytes } else { 0 };
        self.owned_bytes + slices.sum::<u64>() + sending
    }

    /// True while an operation is under way.
    pub fn is_busy(&self) -> bool {
        self.state != State::Idle
    }

    /// Starts the next operation if there is something to send and none is under way.
    pub fn start(&mut self, io: &mut impl Io, token: Token, socket: &Socket) {
        if self.state != State::Idle {
            return;
        }
        match self.items.front() {
            None => {}
            Some(Item::File { file, position, length_bytes }) => {
                self.state = State::Transferring;
                self.under_way_bytes = (*length_bytes).min(TRANSFER_SIZE_BYTES_MAX);
                let op = Op::SendFile {
                    socket: socket.clone(),
                    file: file.clone(),
                    offset: *position,
                    length_bytes: (*length_bytes).min(TRANSFER_SIZE_BYTES_MAX) as u32,
                };
                io.submit(token, op);
            }
            Some(_) => {
                let mut gather = std::mem::take(&mut self.spare);
                while gather.piece_count() < GATHER_PIECE_COUNT_MAX
                    && gather.remaining_bytes() < TRANSFER_SIZE_BYTES_MAX as usize
                {
                    match self.items.pop_front() {
                        Some(Item::Bytes(bytes)) => {
                            self.owned_under_way_bytes += bytes.len() as u64;
                            gather.push(Piece::Owned(bytes));
                        }
                        Some(Item::Memory(slice)) => gather.push(Piece::Shared(slice)),
                        Some(file @ Item::File { .. }) => {
                            self.items.push_front(file);
                            break;
                        }
                        None => break,
                    }
                }
                self.state = State::Sending;
                self.under_way_bytes = gather.remaining_bytes() as u64;
                io.submit(token, Op::Send { socket: socket.clone(), gather });
            }
        }
    }

    /// Bytes of the operation under way.
    pub fn under_way_bytes(&self) -> u64 {
        self.under_way_bytes
    }

    /// A gathered send has completed. What it did not send is sent first of all.
    pub fn sent(&mut self, io: &mut impl Io, token: Token, socket: &Socket, gather: Gather, bytes: usize) {
        assert_eq!(self.state, State::Sending);
        self.state = State::Idle;
        self.pending_bytes -= bytes as u64;
        if gather.is_empty() {
            self.keep(gather);
            self.owned_bytes -= std::mem::take(&mut self.owned_under_way_bytes);
            self.start(io, token, socket);
        } else {
            self.state = State::Sending;
            self.under_way_bytes = gather.remaining_bytes() as u64;
            io.submit(token, Op::Send { socket: socket.clone(), gather });
        }
    }

    fn keep(&mut self, mut gather: Gather) {
        if let Some(bytes) = gather.take_spent()
            && bytes.capacity() <= SPARE_SIZE_BYTES_MAX
        {
            gather.keep_spent(bytes);
        }
        self.spare = gather;
    }

    /// Gives up the memory that is kept for the next send.
    pub fn shrink(&mut self) {
        self.spare = Gather::new();
        self.items.shrink_to_fit();
    }

    /// A file transfer has completed with `bytes` sent; the rest of the range stays first in line. Returns false if
    /// nothing was sent: the receiver is not taking anything.
    pub fn transferred(&mut self, bytes: usize) -> bool {
        assert_eq!(self.state, State::Transferring);
        self.state = State::Idle;
        let Some(Item::File { position, length_bytes, .. }) = self.items.front_mut() else {
            panic!("a transfer without its item");
        };
        *position += bytes as u64;
        *length_bytes -= bytes as u64;
        self.pending_bytes -= bytes as u64;
        if *length_bytes == 0 {
            self.items.pop_front();
        }
        bytes > 0
    }

    /// The operation under way has failed: nothing more will be sent. Pins end here.
    pub fn abandon(&mut self) {
        self.state = State::Idle;
        self.items.clear();
        (self.pending_bytes, self.owned_bytes, self.owned_under_way_bytes) = (0, 0, 0);
    }
}
