//! The closed loop: so many requests in flight on each connection, from one thread.
//!
//! Plain non-blocking sockets and epoll. A connection sends its cycle of frames round and round: it knows the byte at
//! which it stands and how many whole frames it may still send; each answer allows one more. Of an answer only size,
//! correlation id and error code are looked at.
//!
//! A request's time runs from the moment it was allowed, so a socket that takes no more bytes shows in the latency.
//!
//! Hot path: nothing is allocated, encoded or patched per request.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use hdrhistogram::Histogram;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::Report;
use super::meter::{CpuTime, Meter};
use super::workload::Cycle;
use crate::client::code_name;

/// Received at once, of one connection.
const RECEIVE_SIZE_BYTES: usize = 64 << 10;
/// The greatest answer: one partition's, with an error message.
const ANSWER_SIZE_BYTES_MAX: usize = 16 << 10;
/// Without an answer for so long the run has failed.
const SILENCE_MAX: Duration = Duration::from_secs(20);
const EVENT_COUNT_MAX: usize = 64;
const WAIT_MS: u16 = 1000;
/// The longest latency that is told apart.
const LATENCY_NS_MAX: u64 = 60_000_000_000;

/// How long to run.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// Not counted.
    pub warm_up: Duration,
    /// Counted.
    pub measured: Duration,
}

struct Connection {
    stream: TcpStream,
    cycle: Rc<Cycle>,
    /// Position in the cycle's bytes.
    position: usize,
    /// Whole frames that may be sent, one that is partly sent included.
    allowed_count: usize,
    /// When each request in flight or allowed was allowed, oldest first.
    since: VecDeque<Instant>,
    /// The correlation id that the next answer must have.
    expected_id: usize,
    /// Bytes of an answer that is not all there.
    rest: Vec<u8>,
    wants_room: bool,
}

/// Runs the load on connections that are made already: each with its cycle and `in_flight_count` requests.
pub fn run(
    streams: Vec<(TcpStream, Rc<Cycle>)>,
    in_flight_count: usize,
    batch_size_bytes: usize,
    times: Times,
    meter: &Meter,
) -> anyhow::Result<Report> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let mut connections = Vec::new();
    for (index, (stream, cycle)) in streams.into_iter().enumerate() {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, index as u64))?;
        connections.push(Connection {
            stream,
            cycle,
            position: 0,
            allowed_count: in_flight_count,
            since: VecDeque::with_capacity(in_flight_count),
            expected_id: 0,
            rest: Vec::with_capacity(ANSWER_SIZE_BYTES_MAX),
            wants_room: false,
        });
    }
    let mut run = Run {
        epoll,
        connections,
        latency_ns: Histogram::new_with_bounds(100, LATENCY_NS_MAX, 3)?,
        measuring: false,
        stopping: false,
        count: 0,
        count_total: 0,
        in_flight_total: 0,
        received: vec![0; RECEIVE_SIZE_BYTES],
    };
    let (measured, cpu) = run.drive(times, meter)?;
    Ok(Report {
        request_count: run.count,
        batch_size_bytes,
        measured,
        latency_ns: run.latency_ns,
        cpu,
        request_count_total: run.count_total,
    })
}

struct Run {
    epoll: Epoll,
    connections: Vec<Connection>,
    latency_ns: Histogram<u64>,
    measuring: bool,
    /// Nothing new is allowed: what is in flight is waited for.
    stopping: bool,
    count: u64,
    count_total: u64,
    in_flight_total: usize,
    received: Vec<u8>,
}

impl Run {
    /// Warm-up, measured time, and the wait for what is in flight at its end.
    fn drive(&mut self, times: Times, meter: &Meter) -> anyhow::Result<(Duration, CpuTime)> {
        let start = Instant::now();
        for index in 0..self.connections.len() {
            let connection = &mut self.connections[index];
            connection.since.extend(std::iter::repeat_n(start, connection.allowed_count));
            self.in_flight_total += connection.allowed_count;
            self.send(index)?;
        }
        let mut events = [EpollEvent::empty(); EVENT_COUNT_MAX];
        let mut begun: Option<(Instant, CpuTime)> = None;
        let mut result = None;
        let mut last_answer = start;
        while self.in_flight_total > 0 {
            let event_count = match self.epoll.wait(&mut events, EpollTimeout::from(WAIT_MS)) {
                Ok(count) => count,
                Err(Errno::EINTR) => continue,
                Err(error) => return Err(error).context("waiting for answers"),
            };
            let before = self.count_total;
            for event in &events[..event_count] {
                let index = event.data() as usize;
                if event.events().intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
                    self.receive(index)?;
                }
                self.send(index)?;
            }
            let now = Instant::now();
            if self.count_total > before {
                last_answer = now;
            }
            ensure!(
                now - last_answer < SILENCE_MAX,
                "no answer in {SILENCE_MAX:?}; {} in flight",
                self.in_flight_total
            );
            match &begun {
                None if now - start >= times.warm_up => {
                    begun = Some((now, meter.read()?));
                    self.measuring = true;
                }
                Some((at, cpu)) if self.measuring && now - *at >= times.measured => {
                    result = Some((now - *at, meter.read()?.since(cpu)));
                    (self.measuring, self.stopping) = (false, true);
                    for connection in &mut self.connections {
                        self.in_flight_total -= connection.withdraw();
                    }
                }
                _ => {}
            }
        }
        result.context("the run ended before the measured time")
    }

    /// Sends what is allowed, as far as the socket takes it.
    fn send(&mut self, index: usize) -> anyhow::Result<()> {
        let connection = &mut self.connections[index];
        let cycle = &connection.cycle;
        let mut refused = false;
        while connection.allowed_count > 0 {
            let in_frame = connection.position % cycle.frame_size_bytes;
            let left = connection.allowed_count * cycle.frame_size_bytes - in_frame;
            let end = (connection.position + left).min(cycle.bytes.len());
            match connection.stream.write(&cycle.bytes[connection.position..end]) {
                Ok(bytes) => {
                    connection.allowed_count -= (in_frame + bytes) / cycle.frame_size_bytes;
                    connection.position = (connection.position + bytes) % cycle.bytes.len();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    refused = true;
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("sending"),
            }
        }
        if refused != connection.wants_room {
            connection.wants_room = refused;
            let room = if refused { EpollFlags::EPOLLOUT } else { EpollFlags::empty() };
            self.epoll.modify(&connection.stream, &mut EpollEvent::new(EpollFlags::EPOLLIN | room, index as u64))?;
        }
        Ok(())
    }

    /// Takes the answers that are there; each allows a further request.
    fn receive(&mut self, index: usize) -> anyhow::Result<()> {
        let connection = &mut self.connections[index];
        let bytes = match connection.stream.read(&mut self.received) {
            Ok(0) => bail!("the broker closed the connection"),
            Ok(bytes) => bytes,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return Ok(());
            }
            Err(error) => return Err(error).context("receiving"),
        };
        let now = Instant::now();
        let mut answered_count = 0;
        let mut input = &self.received[..bytes];
        while !connection.rest.is_empty() && !input.is_empty() {
            // An answer whose first part came before.
            let wanted = frame_size_bytes(&connection.rest)?.unwrap_or(4).saturating_sub(connection.rest.len());
            let (now_there, later) = input.split_at(wanted.min(input.len()));
            connection.rest.extend_from_slice(now_there);
            input = later;
            if frame_size_bytes(&connection.rest)? == Some(connection.rest.len()) {
                check_answer(&connection.rest, &connection.cycle, &mut connection.expected_id)?;
                connection.rest.clear();
                answered_count += 1;
            }
        }
        while let Some(size) = frame_size_bytes(input)?.filter(|size| *size <= input.len()) {
            let (answer, later) = input.split_at(size);
            check_answer(answer, &connection.cycle, &mut connection.expected_id)?;
            input = later;
            answered_count += 1;
        }
        connection.rest.extend_from_slice(input);
        for _ in 0..answered_count {
            let since = connection.since.pop_front().context("an answer to no request")?;
            if self.measuring {
                self.latency_ns.saturating_record((now - since).as_nanos() as u64);
            }
            if self.stopping {
                self.in_flight_total -= 1;
            } else {
                connection.since.push_back(now);
                connection.allowed_count += 1;
            }
        }
        self.count_total += answered_count;
        if self.measuring {
            self.count += answered_count;
        }
        Ok(())
    }
}

impl Connection {
    /// Takes back what was allowed and not begun; returns how many requests that are.
    fn withdraw(&mut self) -> usize {
        let begun = usize::from(!self.position.is_multiple_of(self.cycle.frame_size_bytes));
        let withdrawn = self.allowed_count - begun.min(self.allowed_count);
        self.allowed_count -= withdrawn;
        self.since.truncate(self.since.len() - withdrawn);
        withdrawn
    }
}

/// Size of the answer at the start of `bytes` with its prefix, if the prefix is there.
#[inline]
fn frame_size_bytes(bytes: &[u8]) -> anyhow::Result<Option<usize>> {
    let Some(prefix) = bytes.first_chunk() else { return Ok(None) };
    let claimed = i32::from_be_bytes(*prefix);
    match usize::try_from(claimed) {
        Ok(size) if size <= ANSWER_SIZE_BYTES_MAX => Ok(Some(4 + size)),
        _ => bail!("an answer of {claimed} bytes"),
    }
}

#[inline]
fn check_answer(answer: &[u8], cycle: &Cycle, expected_id: &mut usize) -> anyhow::Result<()> {
    let at = cycle.error_code_at;
    ensure!(answer.len() > at + 1, "an answer of {} bytes is too short", answer.len());
    let id = i32::from_be_bytes(*answer[4..].first_chunk().expect("longer than that"));
    ensure!(id as usize == *expected_id, "an answer to request {id} instead of {expected_id}");
    *expected_id = if *expected_id + 1 == cycle.frame_count { 0 } else { *expected_id + 1 };
    let code = i16::from_be_bytes(*answer[at..].first_chunk().expect("longer than that"));
    ensure!(code == 0, "the broker answered {}", code_name(code));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;

    /// A cycle of three frames of 20 bytes, whose answers have the error code at byte 8.
    fn cycle() -> Rc<Cycle> {
        let mut bytes = vec![7; 60];
        for (place, frame) in bytes.chunks_mut(20).enumerate() {
            frame[..4].copy_from_slice(&16i32.to_be_bytes());
            frame[8..12].copy_from_slice(&(place as i32).to_be_bytes());
        }
        Rc::new(Cycle { bytes, frame_size_bytes: 20, frame_count: 3, error_code_at: 8 })
    }

    /// A peer that reads requests and answers them, in pieces of `piece` bytes; request `failing` with an error.
    fn broker(piece: usize, failing: Option<u64>) -> (TcpStream, thread::JoinHandle<u64>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let peer = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_nodelay(true).unwrap();
            let mut answered = 0;
            let mut frame = [0; 20];
            while stream.read_exact(&mut frame).is_ok() {
                let mut answer = vec![0, 0, 0, 10];
                answer.extend_from_slice(&frame[8..12]);
                answer.extend_from_slice(&(if failing == Some(answered) { 6i16 } else { 0 }).to_be_bytes());
                answer.extend_from_slice(&[9; 4]);
                for part in answer.chunks(piece) {
                    if stream.write_all(part).is_err() {
                        return answered;
                    }
                }
                answered += 1;
            }
            answered
        });
        (TcpStream::connect(address).unwrap(), peer)
    }

    const TIMES: Times = Times { warm_up: Duration::from_millis(20), measured: Duration::from_millis(60) };

    #[test]
    fn every_request_is_answered_and_counted_once() {
        // Answers that come whole and byte by byte; the peer's count is the total.
        for piece in [1, 5, 100] {
            let (stream, peer) = broker(piece, None);
            let report = run(vec![(stream, cycle())], 4, 100, TIMES, &Meter::new(None).unwrap()).unwrap();
            assert_eq!(peer.join().unwrap(), report.request_count_total);
            assert!(report.request_count > 0 && report.request_count < report.request_count_total);
            assert_eq!(report.latency_ns.len(), report.request_count);
        }
    }

    #[test]
    fn an_error_or_a_lost_connection_is_no_result() {
        let (stream, _peer) = broker(100, Some(5));
        let error = run(vec![(stream, cycle())], 2, 100, TIMES, &Meter::new(None).unwrap()).unwrap_err();
        assert!(error.to_string().contains("NOT_LEADER"), "{error}");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        drop(listener.accept().unwrap());
        assert!(run(vec![(stream, cycle())], 2, 100, TIMES, &Meter::new(None).unwrap()).is_err());
    }
}
