//! Accept, connect, receive and send.
//!
//! Sockets are blocking ones: the ring itself tries without waiting and then waits for readiness, and it would hand
//! an `EAGAIN` of a non-blocking one back to us.

use std::io;
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use io_uring::{opcode, types};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrLike, SockaddrStorage};

use super::ring::Ring;
use super::slots::{Step, Work};
use crate::io::{Buffer, Completion, Gather, Listener, Outcome, Socket};

/// Pieces handed to the kernel at a time; more follow when these are sent.
const PIECE_COUNT_MAX: usize = 64;
/// Connections that may wait to be accepted: a burst of reconnecting clients. The host's `net.core.somaxconn`, 4096
/// by default, bounds it anyway.
const LISTEN_BACKLOG: i32 = 4096;
/// How often the log says that accepting had to pause.
const ACCEPT_WARNING_EVERY: Duration = Duration::from_secs(10);
const SEND_FLAGS: i32 = libc::MSG_WAITALL | libc::MSG_NOSIGNAL;

pub(super) struct AcceptWork {
    pub(super) listener: Listener,
    /// No request is under way: it waits for a delay to end.
    pub(super) paused: bool,
}

pub(super) struct ConnectWork {
    address: Box<SockaddrStorage>,
    fd: OwnedFd,
}

pub(super) struct ReceiveWork {
    socket: Socket,
    buffer: Buffer,
    filled: usize,
}

pub(super) struct SendWork {
    socket: Socket,
    gather: Gather,
    sent: usize,
    asked: usize,
    frame: Option<Box<Frame>>,
    zero_copy: bool,
    /// The result of a zero-copy send whose notification is still to come.
    result: Option<i32>,
}

/// What a send of several pieces points to. Reused.
pub(super) struct Frame {
    header: libc::msghdr,
    pieces: [libc::iovec; PIECE_COUNT_MAX],
}

impl SendWork {
    /// True while only the notification is missing.
    pub(super) fn awaits_notification(&self) -> bool {
        self.result.is_some()
    }
}

/// Resets a connection and drops what it has not sent yet.
fn reset(fd: std::os::fd::RawFd) {
    let unspecified = libc::sockaddr { sa_family: libc::AF_UNSPEC as libc::sa_family_t, sa_data: [0; 14] };
    // SAFETY: the call reads the address, which outlives it. On a connection that is gone already it fails, and that
    // is as good.
    unsafe { libc::connect(fd, &raw const unspecified, size_of_val(&unspecified) as libc::socklen_t) };
}

impl Frame {
    fn new() -> Box<Frame> {
        // SAFETY: both are plain structures of integers and pointers, for which all zeros are valid.
        unsafe { Box::new(MaybeUninit::zeroed().assume_init()) }
    }
}

impl Ring {
    /// Opens a listening socket; see [`crate::io::Io::listen`].
    pub(super) fn open_listener(&mut self, address: SocketAddr) -> io::Result<(Listener, SocketAddr)> {
        let listener = TcpListener::bind(address)?;
        // SAFETY: no pointers. Listening again is how the backlog is changed.
        if unsafe { libc::listen(listener.as_raw_fd(), LISTEN_BACKLOG) } < 0 {
            return Err(io::Error::last_os_error());
        }
        let local = listener.local_addr()?;
        let index = self.table.insert(self.queue.ring(), listener.into(), false);
        Ok((Listener::new(index, &self.dropped), local))
    }

    pub(super) fn accept(&mut self, index: u32, listener: Listener) {
        let target = self.table.target(listener.index());
        let entry = opcode::AcceptMulti::new(target.fd).flags(libc::SOCK_CLOEXEC).build().flags(target.flags);
        self.slots.set(index, Work::Accept(AcceptWork { listener, paused: false }));
        // SAFETY: the request points to nothing, and the slot keeps the listener.
        unsafe { self.start(index, Step::Only, entry) };
    }

    pub(super) fn accept_done(&mut self, index: u32, mut work: AcceptWork, result: i32, more: bool) {
        if result >= 0 {
            // SAFETY: the kernel has just accepted it for us; it belongs to nobody else.
            let stream = TcpStream::from(unsafe { OwnedFd::from_raw_fd(result) });
            // Without a peer the connection is gone already, and nobody needs to hear of it.
            if let Ok(peer) = stream.peer_addr() {
                let socket = self.adopt(stream);
                let token = self.slots.token(index);
                // The system gives the lowest number that is free: all below it are open.
                let outcome = Outcome::Accepted { socket, peer, open_count: result as u32 };
                self.ready.push(Completion { token, more: true, result: Ok(outcome) });
            }
        }
        if more {
            return self.slots.set(index, Work::Accept(work));
        }
        if self.slots.is_cancelled(index) {
            return self.fail(index, -libc::ECANCELED);
        }
        match -result {
            // The kernel ends a multishot when completions overflow; it is simply asked again.
            _ if result >= 0 => self.accept(index, work.listener),
            libc::EINTR | libc::ECONNABORTED | libc::EPROTO | libc::EAGAIN => self.accept(index, work.listener),
            libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::EPERM => {
                // Connections wait in the listener meanwhile. Asking again at once would spin.
                let now = self.read_monotonic();
                if self.accept_warned.is_none_or(|last| now.since(last) >= ACCEPT_WARNING_EVERY) {
                    self.accept_warned = Some(now);
                    tracing::warn!(cause = %super::disk::error(result), "connections cannot be accepted for now");
                }
                self.counters.accept_pause_count += 1;
                work.paused = true;
                self.slots.set(index, Work::Accept(work));
                self.delays.add(now, index, self.slots.generation(index));
            }
            _ => self.fail(index, result),
        }
    }

    fn adopt(&mut self, stream: TcpStream) -> Socket {
        // It can only fail on a connection that is gone, and then the next operation tells.
        let _ = stream.set_nodelay(true);
        let handle = self.table.insert(self.queue.ring(), stream.into(), false);
        Socket::new(handle, &self.dropped)
    }

    pub(super) fn connect(&mut self, index: u32, address: SocketAddr) {
        let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        match nix::sys::socket::socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None) {
            Ok(fd) => self.start_connect(index, ConnectWork { address: Box::new(SockaddrStorage::from(address)), fd }),
            Err(errno) => self.finish(index, Err(errno.into())),
        }
    }

    fn start_connect(&mut self, index: u32, work: ConnectWork) {
        let entry = opcode::Connect::new(types::Fd(work.fd.as_raw_fd()), work.address.as_ptr(), work.address.len());
        self.slots.set(index, Work::Connect(work));
        // SAFETY: the slot owns the address, on the heap, and the descriptor until the completion.
        unsafe { self.start(index, Step::Only, entry.build()) };
    }

    pub(super) fn connect_done(&mut self, index: u32, work: ConnectWork, result: i32) {
        if result < 0 {
            return self.fail(index, result);
        }
        let socket = self.adopt(TcpStream::from(work.fd));
        self.finish(index, Ok(Outcome::Connected(socket)));
    }

    pub(super) fn receive(&mut self, index: u32, socket: Socket, buffer: Buffer, filled: usize) {
        assert!(filled < buffer.len(), "a receive needs room: {filled} of {} bytes are filled", buffer.len());
        self.start_receive(index, ReceiveWork { socket, buffer, filled });
    }

    fn start_receive(&mut self, index: u32, mut work: ReceiveWork) {
        let target = self.table.target(work.socket.index());
        let room = &mut work.buffer[work.filled..];
        let length = u32::try_from(room.len()).unwrap_or(u32::MAX);
        let entry = opcode::Recv::new(target.fd, room.as_mut_ptr(), length).build().flags(target.flags);
        self.slots.set(index, Work::Receive(work));
        // SAFETY: the slot owns the buffer until the completion and nobody else can reach it.
        unsafe { self.start(index, Step::Only, entry) };
    }

    pub(super) fn receive_done(&mut self, index: u32, work: ReceiveWork, result: i32) {
        if result < 0 {
            return match self.is_retry(index, result) {
                true => self.start_receive(index, work),
                false => self.fail(index, result),
            };
        }
        let ReceiveWork { buffer, filled, .. } = work;
        self.finish(index, Ok(Outcome::Received { buffer, filled, bytes: result as usize }));
    }

    pub(super) fn send(&mut self, index: u32, socket: Socket, gather: Gather) {
        if gather.is_empty() {
            return self.finish(index, Ok(Outcome::Sent { gather, bytes: 0 }));
        }
        let zero_copy = self.zero_copy_min_bytes.is_some_and(|min| gather.remaining_bytes() >= min);
        let work = SendWork { socket, gather, sent: 0, asked: 0, frame: None, zero_copy, result: None };
        self.start_send(index, work);
    }

    fn start_send(&mut self, index: u32, mut work: SendWork) {
        let target = self.table.target(work.socket.index());
        let entry = if work.gather.piece_count() == 1 {
            let bytes = work.gather.chunks().next().expect("there is one piece");
            work.asked = bytes.len();
            let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            match work.zero_copy {
                true => opcode::SendZc::new(target.fd, bytes.as_ptr(), length).flags(SEND_FLAGS).build(),
                false => opcode::Send::new(target.fd, bytes.as_ptr(), length).flags(SEND_FLAGS).build(),
            }
        } else {
            let frame = work.frame.get_or_insert_with(|| self.frames.pop().unwrap_or_else(Frame::new));
            let mut count = 0;
            work.asked = 0;
            for bytes in work.gather.chunks().take(PIECE_COUNT_MAX) {
                frame.pieces[count] = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
                count += 1;
                work.asked += bytes.len();
            }
            frame.header.msg_iov = frame.pieces.as_mut_ptr();
            frame.header.msg_iovlen = count;
            let header: *const libc::msghdr = &frame.header;
            match work.zero_copy {
                true => opcode::SendMsgZc::new(target.fd, header).flags(SEND_FLAGS as u32).build(),
                false => opcode::SendMsg::new(target.fd, header).flags(SEND_FLAGS as u32).build(),
            }
        };
        self.slots.set(index, Work::Send(work));
        // SAFETY: the slot owns the frame, on the heap, and the pieces, whose bytes do not move, until the last
        // completion, notification included.
        unsafe { self.start(index, Step::Only, entry.flags(target.flags)) };
    }

    pub(super) fn send_done(&mut self, index: u32, mut work: SendWork, result: i32, more: bool) {
        if more {
            // A zero-copy send is in the socket; its bytes are still read until the notification.
            work.result = Some(result);
            if self.slots.is_cancelled(index) {
                self.abort_send(&work);
            }
            return self.slots.set(index, Work::Send(work));
        }
        let result = work.result.take().unwrap_or(result);
        if result < 0 && work.zero_copy && matches!(-result, libc::ENOBUFS | libc::EOPNOTSUPP | libc::ENOMEM) {
            // Pinned pages are charged to memlock; without room there the bytes are copied.
            work.zero_copy = false;
            self.counters.zero_copy_refused_count += 1;
            return self.start_send(index, work);
        }
        if result < 0 && self.is_retry(index, result) {
            return self.start_send(index, work);
        }
        if result > 0 {
            let bytes = result as usize;
            work.gather.advance(bytes);
            work.sent += bytes;
            if !work.gather.is_empty() && !self.slots.is_cancelled(index) {
                // More pieces than fit, or short: what cut it short shows at the next request.
                return self.start_send(index, work);
            }
        }
        if let Some(frame) = work.frame.take() {
            self.frames.push(frame);
        }
        // What was sent before an error is reported; the error shows again at the next operation.
        if result < 0 && work.sent == 0 {
            return self.fail(index, result);
        }
        self.finish(index, Ok(Outcome::Sent { gather: work.gather, bytes: work.sent }));
    }

    /// Ends both directions at once; see [`crate::io::Io::shutdown`].
    pub(super) fn shut_down(&mut self, socket: &Socket) {
        // SAFETY: no pointers; the handle keeps the descriptor open. A connection that is gone already is fine.
        unsafe { libc::shutdown(self.table.fd(socket.index()), libc::SHUT_RDWR) };
        if self.zero_copy_min_bytes.is_some() {
            // Whatever is still read from our memory must end too.
            reset(self.table.fd(socket.index()));
        }
    }

    /// Ends a zero-copy send whose bytes the kernel still reads: only the receiver or a reset can.
    pub(super) fn abort_send(&self, work: &SendWork) {
        if work.zero_copy {
            reset(self.table.fd(work.socket.index()));
        }
    }
}
