//! One client connection: its receive buffer, its requests in order, its send chain, and how it ends.
//!
//! Receiving. The buffer starts small, so that thousands of quiet connections cost little, and grows to what the
//! frames need or to [`RECEIVE_SIZE_BYTES_BUSY`] when a receive fills it. It goes back to small when the connection
//! has been quiet for a while ([`Connection::shrink`]). While the ring has the buffer nobody else can reach it.
//! A large frame's room is counted when its size is known, so that two half-received frames never wait for each
//! other, but taken only as its bytes arrive: announcing costs nothing.
//!
//! Time. A frame that has begun to arrive and a send that has been started must get on: [`PATIENCE_MAX`] and what the
//! bytes may take at the slowest rate that is served; else the client counts as gone.
//!
//! Ending. [`Connection::close`] shuts the socket down, which ends the operations under way; the owner forgets the
//! connection when [`Connection::is_finished`]. Answers to its requests that come later find nobody.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use super::admission::Admission;
use super::response::{Response, ResponseQueue};
use super::send::SendChain;
use crate::base::time::Monotonic;
use crate::base::units::{KIB, MIB, align_up};
use crate::io::buffer::{ALIGN_BYTES, SIZE_MAX_BYTES};
use crate::io::{Buffer, Gather, Io, Op, Socket, Token};
use crate::model::limits::CONNECTION_REQUEST_COUNT_MAX;
use crate::protocol::frame::{self, Frame};

/// A quiet connection's buffer.
pub const RECEIVE_SIZE_BYTES_MIN: usize = 4 * KIB;
/// A busy connection's buffer: plain receives into 128 to 256 KiB cost least.
pub const RECEIVE_SIZE_BYTES_BUSY: usize = 256 * KIB;
/// With more than this answered and not yet sent, no further request is looked at.
pub const SEND_PENDING_BYTES_MAX: u64 = 8 * MIB as u64;
/// Frames up to this size are received in room that is taken at once.
const RECEIVE_SIZE_BYTES_STEP: usize = 2 * MIB;
/// A frame under way and a send under way get this long, and more for their bytes, before the client counts as gone.
pub const PATIENCE_MAX: Duration = Duration::from_secs(60);
/// The slowest sender that is still served, by what has come of a frame so far.
const RECEIVE_BYTES_PER_SECOND_MIN: u64 = 32 * KIB as u64;
/// The slowest receiver that is still served, by what one send holds; with the patience for each it is far less.
const SEND_BYTES_PER_SECOND_MIN: u64 = 128 * KIB as u64;

/// A client that has taken nothing for this long is in the way where memory for answers is short.
const STALL_MAX: Duration = Duration::from_secs(2);
/// And this much longer for what one send holds.
const STALL_BYTES_PER_SECOND_MIN: u64 = MIB as u64;

/// Bytes of a frame's content that tell how large it may be.
pub const FRAME_START_SIZE: usize = 2;

/// The operations' numbers in the low bits of a connection's tokens.
pub const OP_RECEIVE: u64 = 1;
/// See [`OP_RECEIVE`].
pub const OP_SEND: u64 = 2;

/// Why a connection was closed, for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The client ended it.
    ClosedByPeer,
    /// The socket failed.
    SocketError(i32),
    /// A file is shorter than what was to be sent of it.
    FileEnded,
    /// A frame above `socket.request.max.bytes`, or below the least.
    FrameSize(i64),
    /// The bytes are no request.
    Malformed(&'static str),
    /// The client does not take its responses.
    SendTimeout,
    /// The client does not take its responses, and others need the memory.
    NotTaken,
    /// The client has sent the beginning of a frame and not the rest.
    ReceiveTimeout,
    /// Nothing was asked for `connections.max.idle.ms`.
    Idle,
    /// There is no memory for its frame.
    NoMemory,
    /// The broker stops.
    Stopping,
}

impl CloseReason {
    /// True for ends that are nobody's mistake.
    pub fn is_normal(self) -> bool {
        matches!(self, CloseReason::ClosedByPeer | CloseReason::Idle | CloseReason::Stopping)
    }

    /// True if the client has just gone, as killed ones do: worth counting, not a line in the log.
    pub fn is_abrupt_end(self) -> bool {
        matches!(self, CloseReason::SocketError(libc::ECONNRESET | libc::EPIPE))
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CloseReason::ClosedByPeer => write!(f, "closed by the client"),
            CloseReason::SocketError(errno) => {
                write!(f, "socket error: {}", io::Error::from_raw_os_error(*errno))
            }
            CloseReason::FileEnded => write!(f, "a segment's file is shorter than its batches"),
            CloseReason::FrameSize(bytes) => {
                write!(f, "a frame of {bytes} bytes is outside of what socket.request.max.bytes allows")
            }
            CloseReason::Malformed(what) => write!(f, "malformed request: {what}"),
            CloseReason::SendTimeout => write!(f, "the client did not take its responses in time"),
            CloseReason::NotTaken => {
                write!(f, "the client did not take its responses while memory for responses was short")
            }
            CloseReason::ReceiveTimeout => write!(f, "the client did not send the rest of its request in time"),
            CloseReason::Idle => write!(f, "idle for connections.max.idle.ms"),
            CloseReason::NoMemory => write!(f, "no memory left for its request"),
            CloseReason::Stopping => write!(f, "the broker is stopping"),
        }
    }
}

/// What was received and not yet consumed. Taken out of the connection while its frames are handled, so that a
/// handler may change the bytes in place and still reach everything else.
#[derive(Debug)]
pub struct Input {
    buffer: Buffer,
    start: usize,
    filled: usize,
    frame_size_bytes_max: usize,
}

/// What the input holds next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// A whole frame, without its size prefix.
    Frame(Range<usize>),
    /// Fewer bytes than a frame; so many are needed from its start on.
    Incomplete {
        /// Size of the frame as far as is known, prefix included.
        needed_bytes: usize,
    },
    /// The stream cannot be understood any more.
    Broken(CloseReason),
}

impl Input {
    /// Looks for the next frame; it stays until [`consume`](Self::consume). `size_bytes_max_of` tells by a frame's
    /// first [`FRAME_START_SIZE`] bytes how large it may be: no room is made for more.
    pub fn next(&self, size_bytes_max_of: impl Fn([u8; FRAME_START_SIZE]) -> usize) -> Next {
        let bytes = &self.buffer[self.start..self.filled];
        let known = bytes.get(frame::PREFIX_SIZE..).and_then(|content| content.first_chunk::<FRAME_START_SIZE>());
        let size_bytes_max = match known {
            Some(start) => self.frame_size_bytes_max.min(size_bytes_max_of(*start)),
            None => self.frame_size_bytes_max,
        };
        match frame::scan(bytes, size_bytes_max) {
            Frame::Complete { start, end } => Next::Frame(self.start + start..self.start + end),
            Frame::Incomplete { needed_bytes } if known.is_none() => {
                Next::Incomplete { needed_bytes: needed_bytes.min(frame::PREFIX_SIZE + FRAME_START_SIZE) }
            }
            Frame::Incomplete { needed_bytes } => Next::Incomplete { needed_bytes },
            Frame::TooLarge(claimed) => Next::Broken(CloseReason::FrameSize(claimed as i64)),
            Frame::Invalid(claimed) => Next::Broken(CloseReason::FrameSize(i64::from(claimed))),
        }
    }

    /// The bytes of a frame that [`next`](Self::next) found.
    pub fn frame(&mut self, range: Range<usize>) -> &mut [u8] {
        &mut self.buffer[range]
    }

    /// Everything up to `end` is done with.
    pub fn consume(&mut self, end: usize) {
        self.start = end;
    }

    /// Bytes that are not yet done with.
    pub fn unread_bytes(&self) -> usize {
        self.filled - self.start
    }
}

fn time_of(bytes: u64, bytes_per_second: u64) -> Duration {
    Duration::from_millis(bytes * 1000 / bytes_per_second)
}

/// A client connection.
#[derive(Debug)]
pub struct Connection {
    socket: Socket,
    peer: SocketAddr,
    token: Token,
    input: Option<Input>,
    receiving: bool,
    received_before: usize,
    reserved_bytes: usize,
    queue: ResponseQueue,
    send: SendChain,
    /// There are answers to be sent when the turn ends.
    awaits_flush: bool,
    send_deadline: Option<Monotonic>,
    /// When the client last took something, or a send was begun.
    taken_at: Monotonic,
    /// What its answers are counted as.
    answer_bytes: u64,
    active_at: Monotonic,
    patience: Duration,
    // Since when a frame is being received whose end has not come.
    frame_since: Option<Monotonic>,
    // Bytes of answers that are still being read from disk.
    expected_bytes: u64,
    closing: Option<CloseReason>,
    peer_done: bool,
    frame_size_bytes_max: usize,
}

impl Connection {
    /// Takes an accepted socket. `token`'s low 8 bits are the connection's own. A client that does not get on with a
    /// frame or an answer for `patience`, at most [`PATIENCE_MAX`], counts as gone. `None` if there is no memory for
    /// the smallest buffer.
    #[expect(clippy::too_many_arguments, reason = "what a connection is made of")]
    pub fn open(
        io: &mut impl Io,
        admission: &mut Admission,
        socket: Socket,
        peer: SocketAddr,
        token: Token,
        frame_size_bytes_max: usize,
        patience: Duration,
        now: Monotonic,
    ) -> Option<Connection> {
        if !admission.reserve(RECEIVE_SIZE_BYTES_MIN) {
            return None;
        }
        let Some(buffer) = io.pool().take(RECEIVE_SIZE_BYTES_MIN) else {
            admission.release(RECEIVE_SIZE_BYTES_MIN);
            return None;
        };
        let mut connection = Connection {
            socket,
            peer,
            token,
            input: Some(Input { buffer, start: 0, filled: 0, frame_size_bytes_max }),
            receiving: false,
            received_before: 0,
            reserved_bytes: RECEIVE_SIZE_BYTES_MIN,
            queue: ResponseQueue::default(),
            send: SendChain::default(),
            awaits_flush: false,
            send_deadline: None,
            taken_at: now,
            answer_bytes: 0,
            active_at: now,
            patience: patience.min(PATIENCE_MAX),
            frame_since: None,
            expected_bytes: 0,
            closing: None,
            peer_done: false,
            frame_size_bytes_max,
        };
        connection.receive(io);
        Some(connection)
    }

    /// Who is on the other end.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// When the client last sent something.
    pub fn active_at(&self) -> Monotonic {
        self.active_at
    }

    /// Why it is being closed, if it is.
    pub fn closing(&self) -> Option<CloseReason> {
        self.closing
    }

    /// Numbers its requests from `first` on. Before the first of them.
    pub(super) fn number_requests_from(&mut self, first: u64) {
        self.queue.number_from(first);
    }

    /// True if an answer to request `number` would be sent.
    pub fn awaits(&self, number: u64) -> bool {
        self.closing.is_none() && self.queue.has(number)
    }

    /// True if no more requests may be looked at before some are answered and sent. Answers that wait for the one to
    /// an earlier request take memory like those that are being sent.
    pub fn is_saturated(&self) -> bool {
        let answered_bytes = self.queue.ready_bytes() + self.send.pending_bytes() + self.expected_bytes;
        self.queue.len() >= CONNECTION_REQUEST_COUNT_MAX || answered_bytes > SEND_PENDING_BYTES_MAX
    }

    /// True if the client must take answers before more is done for it: always if it is saturated, and where memory
    /// for answers is short if there are any.
    pub fn must_take_first(&self, is_short: bool) -> bool {
        self.is_saturated() || (is_short && self.has_unsent())
    }

    /// True if there are answers that it has not taken.
    pub fn has_unsent(&self) -> bool {
        self.send.pending_bytes() > 0 || self.queue.ready_bytes() > 0
    }

    /// Requests that are not answered, or whose answers wait for an earlier one.
    pub fn request_count(&self) -> usize {
        self.queue.len()
    }

    /// Counts the memory that its answers hold now. After everything that changes it.
    pub fn recount(&mut self, admission: &mut Admission) {
        let bytes = self.queue.owned_bytes() + self.send.owned_bytes();
        admission.recount_answers(std::mem::replace(&mut self.answer_bytes, bytes), bytes);
    }

    /// Memory of any kind that is held until the client takes what it was sent.
    pub fn unsent_memory_bytes(&self) -> u64 {
        self.queue.owned_bytes() + self.send.memory_bytes()
    }

    /// Since when the client has taken nothing, if that is long for what it was sent.
    pub fn stalled_since(&self, now: Monotonic) -> Option<Monotonic> {
        let patience = STALL_MAX + time_of(self.send.under_way_bytes(), STALL_BYTES_PER_SECOND_MIN);
        (self.send_deadline.is_some() && now > self.taken_at + patience).then_some(self.taken_at)
    }

    /// An answer of about `bytes` is being read.
    pub fn expect(&mut self, bytes: u64) {
        self.expected_bytes += bytes;
    }

    /// What [`expect`](Self::expect) announced is there, or will not come.
    pub fn unexpect(&mut self, bytes: u64) {
        self.expected_bytes -= bytes;
    }

    /// A receive has completed: the bytes join the input.
    pub fn received(&mut self, buffer: Buffer, filled: usize, bytes: usize, now: Monotonic) {
        self.receiving = false;
        self.active_at = now;
        let frame_size_bytes_max = self.frame_size_bytes_max;
        // `receive` moved what was there to the start of the buffer before it gave it away.
        self.input = Some(Input { buffer, start: 0, filled: filled + bytes, frame_size_bytes_max });
        self.peer_done |= bytes == 0;
    }

    /// A receive has failed; its buffer went back to the pool.
    pub fn receive_failed(&mut self, admission: &mut Admission) {
        self.receiving = false;
        admission.release(self.reserved_bytes);
        self.reserved_bytes = 0;
    }

    /// True if the client has ended its side and all that it sent before is with us.
    pub fn is_peer_done(&self) -> bool {
        self.peer_done
    }

    /// The input, if the ring does not have it and nobody else took it.
    pub fn take_input(&mut self) -> Option<Input> {
        if self.closing.is_some() { None } else { self.input.take() }
    }

    /// Gives the input back without receiving more: a request in it is held back.
    pub fn hold(&mut self, input: Input) {
        self.input = Some(input);
    }

    /// True if received bytes wait to be handled.
    pub fn is_held(&self) -> bool {
        self.input.is_some() && !self.receiving && self.closing.is_none()
    }

    /// Gives the input back and receives more behind it, of which `needed_bytes` from the next frame's start on are
    /// known to be needed. Returns false if there is no memory for that; the input is then held.
    pub fn resume(
        &mut self,
        io: &mut impl Io,
        admission: &mut Admission,
        input: Input,
        needed_bytes: usize,
        now: Monotonic,
    ) -> bool {
        let unread = input.unread_bytes();
        let full = input.filled == input.buffer.len();
        if unread == 0 {
            self.frame_since = None;
        } else if self.frame_since.is_none() || input.start > 0 {
            // What is left belongs to another frame than before.
            self.frame_since = Some(now);
        }
        let wanted = if needed_bytes > input.buffer.len() && needed_bytes > RECEIVE_SIZE_BYTES_STEP {
            if !self.reserve(admission, needed_bytes) {
                self.frame_since = None;
                self.input = Some(input);
                return false;
            }
            match unread < input.buffer.len() {
                true => 0,
                false => needed_bytes.min((unread * 4).max(RECEIVE_SIZE_BYTES_STEP)),
            }
        } else if needed_bytes > input.buffer.len() {
            needed_bytes.max(RECEIVE_SIZE_BYTES_BUSY.min(needed_bytes * 4))
        } else if full && input.buffer.len() < RECEIVE_SIZE_BYTES_BUSY {
            (input.buffer.len() * 8).min(RECEIVE_SIZE_BYTES_BUSY)
        } else {
            0
        };
        let mut input = input;
        if wanted > input.buffer.len() {
            let grown = self.grow(io, admission, &mut input, wanted);
            if !grown && needed_bytes > input.buffer.len() {
                // The wait is ours, not the client's.
                self.frame_since = None;
                self.input = Some(input);
                return false;
            }
        }
        if input.buffer.len() > RECEIVE_SIZE_BYTES_STEP
            && unread.max(needed_bytes) <= RECEIVE_SIZE_BYTES_BUSY
            && let Some(smaller) = io.pool().take(RECEIVE_SIZE_BYTES_BUSY)
        {
            // A large frame's room is not kept for the next one: others may need it.
            let larger = std::mem::replace(&mut input.buffer, smaller);
            input.buffer[..unread].copy_from_slice(&larger[input.start..input.filled]);
            (input.start, input.filled) = (0, unread);
            admission.release(self.reserved_bytes - RECEIVE_SIZE_BYTES_BUSY);
            self.reserved_bytes = RECEIVE_SIZE_BYTES_BUSY;
        }
        if input.start > 0 {
            input.buffer.copy_within(input.start..input.filled, 0);
            input.start = 0;
            input.filled = unread;
        }
        self.input = Some(input);
        self.receive(io);
        true
    }

    /// Counts room for a frame of `needed_bytes`, unless that much is counted already.
    fn reserve(&mut self, admission: &mut Admission, needed_bytes: usize) -> bool {
        let more = needed_bytes.saturating_sub(self.reserved_bytes);
        if more > 0 && !admission.reserve_for_frame(more) {
            return false;
        }
        self.reserved_bytes += more;
        true
    }

    fn grow(&mut self, io: &mut impl Io, admission: &mut Admission, input: &mut Input, wanted: usize) -> bool {
        let size = match wanted.next_power_of_two() {
            size if size <= SIZE_MAX_BYTES => size,
            // Served exactly, in whole blocks.
            _ => align_up(wanted as u64, ALIGN_BYTES as u64) as usize,
        };
        if !self.reserve(admission, size) {
            return false;
        }
        let Some(mut larger) = io.pool().take(size) else { return false };
        let unread = input.unread_bytes();
        larger[..unread].copy_from_slice(&input.buffer[input.start..input.filled]);
        input.buffer = larger;
        input.start = 0;
        input.filled = unread;
        true
    }

    fn receive(&mut self, io: &mut impl Io) {
        let Some(input) = self.input.take() else { return };
        if self.peer_done || self.closing.is_some() {
            self.input = Some(input);
            return;
        }
        debug_assert!(input.start == 0 && input.filled < input.buffer.len());
        self.receiving = true;
        let Input { buffer, filled, .. } = input;
        self.received_before = filled;
        io.submit(self.op(OP_RECEIVE), Op::Recv { socket: self.socket.clone(), buffer, filled });
    }

    /// A slot for the request that is about to be handled.
    pub fn open_request(&mut self) -> u64 {
        self.queue.open()
    }

    /// Answers request `number` (`None`: by silence). An answer that comes too late, or is for an earlier connection
    /// of the same id, goes nowhere. True if [`flush`](Self::flush) is to be called before the turn ends: the answers
    /// of one turn share a send, since a send of its own for each costs more than all else about a small request.
    #[must_use]
    pub fn answer(&mut self, number: u64, response: Option<Response>) -> bool {
        if !self.awaits(number) {
            return false;
        }
        self.queue.fill(number, response);
        self.hand_over()
    }

    /// The same with a small answer's bytes, which are copied to where they are sent from.
    #[must_use]
    pub fn answer_copy(&mut self, number: u64, bytes: &[u8]) -> bool {
        if !self.awaits(number) {
            return false;
        }
        match self.queue.pass(number) {
            true => self.send.push_copy(bytes),
            false => self.queue.fill(number, Some(bytes.to_vec().into())),
        }
        self.hand_over()
    }

    fn hand_over(&mut self) -> bool {
        while let Some(response) = self.queue.pop_ready() {
            self.send.push(response);
        }
        // A send under way goes on with them when it completes.
        let is_first = !self.send.is_busy() && self.send.pending_bytes() > 0 && !self.awaits_flush;
        self.awaits_flush |= is_first;
        is_first
    }

    /// Sends what was answered.
    pub fn flush(&mut self, io: &mut impl Io, now: Monotonic) {
        self.awaits_flush = false;
        if self.closing.is_none() {
            self.pump(io, false, now);
        }
    }

    /// Starts what is to be sent. With `progress` the receiver has taken something, and gets its time anew.
    fn pump(&mut self, io: &mut impl Io, progress: bool, now: Monotonic) {
        let was_busy = self.send.is_busy();
        self.send.start(io, self.op(OP_SEND), &self.socket);
        if !self.send.is_busy() {
            self.send_deadline = None;
        } else if progress || !was_busy {
            self.taken_at = now;
            self.send_deadline =
                Some(now + self.patience + time_of(self.send.under_way_bytes(), SEND_BYTES_PER_SECOND_MIN));
        }
    }

    /// A gathered send has completed.
    pub fn sent(&mut self, io: &mut impl Io, gather: Gather, bytes: usize, now: Monotonic) {
        if self.closing.is_some() {
            return self.send.abandon();
        }
        self.send.sent(io, self.op(OP_SEND), &self.socket, gather, bytes);
        self.pump(io, true, now);
    }

    /// A file transfer has completed; 0 bytes do not move the deadline.
    pub fn transferred(&mut self, io: &mut impl Io, bytes: usize, now: Monotonic) {
        let progress = self.send.transferred(bytes);
        if self.closing.is_some() {
            return self.send.abandon();
        }
        let before = (self.send_deadline, self.taken_at);
        self.pump(io, true, now);
        if !progress {
            (self.send_deadline, self.taken_at) = before;
        }
    }

    /// A send or transfer has failed.
    pub fn send_failed(&mut self) {
        self.send.abandon();
    }

    /// Requests whose answers have not left yet.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && !self.send.is_busy() && self.send.pending_bytes() == 0
    }

    /// Why the connection is to be closed if the client has let its time pass.
    pub fn overdue(&self, now: Monotonic) -> Option<CloseReason> {
        if self.send_deadline.is_some_and(|deadline| now > deadline) {
            return Some(CloseReason::SendTimeout);
        }
        let time = self.patience + time_of(self.received_before as u64, RECEIVE_BYTES_PER_SECOND_MIN);
        let frame_is_late = self.receiving && self.frame_since.is_some_and(|since| now > since + time);
        frame_is_late.then_some(CloseReason::ReceiveTimeout)
    }

    /// Gives a large buffer back if it is empty and waits for a client that has been quiet: the receive under way is
    /// cancelled and started again with a small one when it completes.
    pub fn shrink(&mut self, io: &mut impl Io) {
        if !self.send.is_busy() {
            self.send.shrink();
        }
        if self.receiving && self.received_before == 0 && self.reserved_bytes > RECEIVE_SIZE_BYTES_MIN {
            io.cancel(self.op(OP_RECEIVE));
        }
    }

    /// Starts receiving again with the smallest buffer after [`shrink`](Self::shrink). False without memory.
    pub fn restart(&mut self, io: &mut impl Io, admission: &mut Admission) -> bool {
        if !admission.reserve(RECEIVE_SIZE_BYTES_MIN) {
            return false;
        }
        let Some(buffer) = io.pool().take(RECEIVE_SIZE_BYTES_MIN) else {
            admission.release(RECEIVE_SIZE_BYTES_MIN);
            return false;
        };
        self.reserved_bytes = RECEIVE_SIZE_BYTES_MIN;
        self.input = Some(Input { buffer, start: 0, filled: 0, frame_size_bytes_max: self.frame_size_bytes_max });
        self.receive(io);
        true
    }

    /// Ends the connection: nothing more is read or sent. The first reason stays.
    pub fn close(&mut self, io: &mut impl Io, reason: CloseReason) {
        if self.closing.is_none() {
            self.closing = Some(reason);
            io.shutdown(&self.socket);
            if !self.send.is_busy() {
                self.send.abandon();
            }
        }
    }

    /// True when a closed connection has no operation under way and can be forgotten.
    pub fn is_finished(&self) -> bool {
        self.closing.is_some() && !self.receiving && !self.send.is_busy()
    }

    /// Gives its receive memory back to the budget. Call once, when forgetting it.
    pub fn release(&mut self, admission: &mut Admission) {
        self.input = None;
        admission.release(self.reserved_bytes);
        self.reserved_bytes = 0;
        admission.recount_answers(std::mem::take(&mut self.answer_bytes), 0);
    }

    fn op(&self, number: u64) -> Token {
        Token(self.token.0 | number)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::io::sim::{SimClient, SimIo, World, WorldOptions};
    use crate::io::{Completion, Outcome};

    const RECEIVE_BYTES_MAX: usize = MIB;
    const FRAME_BYTES_MAX: usize = 2 * MIB;

    /// A connection on a calm world, driven as a broker drives it.
    struct Scene {
        io: SimIo,
        admission: Admission,
        connection: Connection,
        client: SimClient,
        frames: Vec<Vec<u8>>,
        starved: bool,
    }

    impl Scene {
        fn new(options: WorldOptions) -> Scene {
            let world = World::new(7, options);
            let mut io = world.io("shard 0", 4 * MIB);
            let (listener, address) = io.listen("127.0.0.1:0".parse().expect("an address")).expect("free");
            io.submit(Token(1 << 8), Op::Accept { listener });
            io.poll(Some(Monotonic(0)), &mut Vec::new());
            let client = world.connect(address).expect("it listens");
            let mut completions = Vec::new();
            io.poll(None, &mut completions);
            let Ok(Outcome::Accepted { socket, peer, .. }) = completions.remove(0).result else {
                panic!("not accepted")
            };
            let mut admission = Admission::new(1, u64::MAX, RECEIVE_BYTES_MAX);
            let now = io.now().monotonic;
            let token = Token(2 << 8);
            let connection =
                Connection::open(&mut io, &mut admission, socket, peer, token, FRAME_BYTES_MAX, PATIENCE_MAX, now);
            let connection = connection.expect("there is memory");
            Scene { io, admission, connection, client, frames: Vec::new(), starved: false }
        }

        /// Lets a second pass and handles what completes.
        fn go_on(&mut self) {
            let until = self.io.now().monotonic + Duration::from_secs(1);
            while self.io.now().monotonic < until {
                let mut completions = Vec::new();
                self.io.poll(Some(until), &mut completions);
                completions.into_iter().for_each(|completion| self.complete(completion));
            }
        }

        fn complete(&mut self, completion: Completion) {
            let now = self.io.now().monotonic;
            match completion.result {
                Ok(Outcome::Received { buffer, filled, bytes }) => {
                    self.connection.received(buffer, filled, bytes, now);
                    self.serve();
                }
                Ok(Outcome::Sent { gather, bytes }) => self.connection.sent(&mut self.io, gather, bytes, now),
                Err(error) if error.raw_os_error() == Some(libc::ECANCELED) => {
                    self.connection.receive_failed(&mut self.admission);
                    assert!(self.connection.restart(&mut self.io, &mut self.admission));
                }
                other => panic!("{other:?}"),
            }
        }

        fn serve(&mut self) {
            let Some(mut input) = self.connection.take_input() else { return };
            loop {
                match input.next(|_| FRAME_BYTES_MAX) {
                    Next::Frame(range) => {
                        let end = range.end;
                        self.frames.push(input.frame(range).to_vec());
                        input.consume(end);
                    }
                    Next::Incomplete { .. } if self.connection.is_peer_done() => return self.connection.hold(input),
                    Next::Incomplete { needed_bytes } => {
                        let (now, io, admission) = (self.io.now().monotonic, &mut self.io, &mut self.admission);
                        self.starved = !self.connection.resume(io, admission, input, needed_bytes, now);
                        return;
                    }
                    Next::Broken(reason) => panic!("{reason}"),
                }
            }
        }

        /// Closes, and checks that nothing is left of it.
        fn end(mut self) {
            self.connection.close(&mut self.io, CloseReason::Stopping);
            let until = self.io.now().monotonic + Duration::from_secs(1);
            while !self.connection.is_finished() {
                assert!(self.io.now().monotonic < until, "it never finishes");
                let mut completions = Vec::new();
                self.io.poll(Some(until), &mut completions);
                for completion in completions {
                    match completion.result {
                        Ok(Outcome::Received { buffer, filled, bytes }) => {
                            self.connection.received(buffer, filled, bytes, until);
                        }
                        Ok(Outcome::Sent { gather, bytes }) => {
                            self.connection.sent(&mut self.io, gather, bytes, until);
                        }
                        _ if completion.token.0 & 0xff == OP_SEND => self.connection.send_failed(),
                        _ => self.connection.receive_failed(&mut self.admission),
                    }
                }
            }
            self.connection.release(&mut self.admission);
            drop(self.connection);
            assert_eq!((self.admission.receive_bytes(), self.io.pool().used_bytes()), (0, 0));
        }
    }

    fn frame(size_bytes: usize, fill: u8) -> Vec<u8> {
        let mut bytes = (size_bytes as u32).to_be_bytes().to_vec();
        bytes.resize(4 + size_bytes, fill);
        bytes
    }

    #[test]
    fn frames_of_any_size_arrive_whole_and_in_order() {
        // Sizes around every buffer size, in tiny segments, all pipelined.
        let sizes = [8, 4088, 4092, 4093, 9, 32_764, 32_765, 262_140, 262_141, 10, 300_000, 11];
        let mut scene = Scene::new(WorldOptions { window_bytes: 64 * KIB, ..WorldOptions::calm() });
        for (fill, size) in sizes.into_iter().enumerate() {
            scene.client.send(&frame(size, fill as u8));
        }
        (0..5).for_each(|_| scene.go_on());
        let expected: Vec<Vec<u8>> = sizes.iter().enumerate().map(|(fill, size)| vec![fill as u8; *size]).collect();
        assert!(scene.frames == expected, "{} frames came", scene.frames.len());
        scene.end();
    }

    #[test]
    fn a_large_buffer_is_given_back_when_the_client_is_quiet_and_nothing_is_lost() {
        let mut scene = Scene::new(WorldOptions::calm());
        scene.client.send(&frame(300_000, 1));
        (0..3).for_each(|_| scene.go_on());
        assert!(scene.admission.receive_bytes() > RECEIVE_SIZE_BYTES_MIN);
        // Bytes are on their way when the receive is cancelled.
        scene.client.send(&frame(100, 2));
        scene.connection.shrink(&mut scene.io);
        scene.go_on();
        assert_eq!(scene.frames.len(), 2);
        scene.connection.shrink(&mut scene.io);
        scene.go_on();
        assert_eq!(scene.admission.receive_bytes(), RECEIVE_SIZE_BYTES_MIN);
        scene.client.send(&frame(100, 3));
        scene.go_on();
        assert_eq!(scene.frames.last().expect("three"), &vec![3; 100]);
        scene.end();
    }

    #[test]
    fn without_memory_a_frame_waits_and_goes_on_where_it_was() {
        let mut scene = Scene::new(WorldOptions::calm());
        assert!(scene.admission.reserve(RECEIVE_BYTES_MAX - RECEIVE_SIZE_BYTES_MIN), "somebody else has it all");
        scene.client.send(&frame(500_000, 5));
        scene.go_on();
        assert!(scene.starved && scene.frames.is_empty());
        scene.admission.release(RECEIVE_BYTES_MAX - RECEIVE_SIZE_BYTES_MIN);
        scene.serve();
        (0..3).for_each(|_| scene.go_on());
        assert!(scene.frames == [vec![5; 500_000]]);
        scene.end();
    }

    #[test]
    fn an_answer_to_nobody_goes_nowhere_and_answers_that_wait_count() {
        let mut scene = Scene::new(WorldOptions::calm());
        scene.connection.number_requests_from(1 << 40);
        let (first, second) = (scene.connection.open_request(), scene.connection.open_request());
        assert!(!scene.connection.answer(0, Some(b"of an earlier connection".to_vec().into())));
        assert!(!scene.connection.answer(second, Some(vec![2; 9 * MIB].into())), "it is not its turn");
        assert!(scene.connection.is_saturated(), "it waits for the first and takes memory");
        assert!(scene.connection.awaits(first));
        scene.end();
    }

    #[test]
    fn a_client_that_never_reads_is_overdue_however_much_more_it_asks() {
        let mut scene = Scene::new(WorldOptions { window_bytes: 1000, ..WorldOptions::calm() });
        for _ in 0..4 {
            let number = scene.connection.open_request();
            let now = scene.io.now().monotonic;
            if scene.connection.answer(number, Some(vec![1; 5000].into())) {
                scene.connection.flush(&mut scene.io, now);
            }
            (0..20).for_each(|_| scene.go_on());
        }
        let now = scene.io.now().monotonic;
        assert_eq!(scene.connection.overdue(now), Some(CloseReason::SendTimeout));
        scene.end();
    }
}
