//! A broker that does next to nothing: what the load generator and the network cost without one, and what no broker
//! can beat on this host.
//!
//! It answers ApiVersions, Metadata, CreateTopics, ListOffsets, Produce and Fetch like a broker with one node, and
//! keeps no record apart from the rest:
//! - batches are dropped, or ([`log`]) checked by CRC, copied into one staging buffer and written by group commit to
//!   one file that goes round;
//! - a Fetch is answered from one block of batches that stands for every partition, from memory or by splice.
//!
//! A measuring device: it trusts its clients, bounds only the size of frames, and loses everything. Answers of
//! different APIs on one connection may overtake one another.

mod kafka;
pub mod log;
#[cfg(test)]
pub(super) mod tests;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, bail};
use bytes::Bytes;

use crate::io::{
    Buffer, Completion, File, Gather, Io, Listener, Op, OpenOptions, Outcome, Piece, Slice, Socket, Token,
};
use crate::protocol::frame::{self, Frame};
use kafka::Kafka;
use log::{Log, LogOptions};

/// Received at once; also the room for frames that are not all there. Larger frames get more.
const RECEIVE_SIZE_BYTES: usize = 256 << 10;
const FRAME_SIZE_BYTES_MAX: usize = 100 << 20;
/// What the log takes at once.
const LOGGED_SIZE_BYTES_MAX: usize = log::STAGING_SIZE_BYTES / 2;

const ACCEPT: u64 = 0;
const RECEIVE: u64 = 1;
const SEND: u64 = 2;
const WRITE: u64 = 3;

/// What a sink does.
#[derive(Clone, Debug)]
pub struct SinkOptions {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Partitions of topics that are asked for without being created.
    pub partition_count: i32,
    /// Write batches to a file.
    pub log: Option<LogOptions>,
    /// Bytes of the block that fetches are answered from.
    pub fetch_size_bytes: usize,
    /// Bytes of one of its batches.
    pub fetch_batch_size_bytes: usize,
    /// Answer fetches by splice from this file, which is made.
    pub fetch_file: Option<PathBuf>,
}

/// A part of what a connection sends.
enum Part {
    Bytes(Vec<u8>),
    Memory(Slice),
    File { offset: u64, length_bytes: u32 },
}

struct Connection {
    socket: Socket,
    /// Answers to Produce, of which the first so many bytes may go out.
    answers: Vec<u8>,
    released_bytes: usize,
    parts: VecDeque<Part>,
    is_sending: bool,
    is_dirty: bool,
    /// Received bytes that wait for room in the log.
    stalled: Option<(Buffer, usize)>,
}

/// The server.
pub struct Sink<'i, I: Io> {
    io: &'i mut I,
    kafka: Kafka,
    log: Option<Log>,
    fetch_file: Option<File>,
    connections: Vec<Option<Connection>>,
    dirty: Vec<u32>,
    stalled: Vec<u32>,
    address: SocketAddr,
    listener: Listener,
}

impl<'i, I: Io> Sink<'i, I> {
    /// Listens and makes what it needs.
    pub fn new(io: &'i mut I, options: &SinkOptions) -> anyhow::Result<Sink<'i, I>> {
        let (listener, address) =
            io.listen(options.listen).with_context(|| format!("listening on {}", options.listen))?;
        let log = options.log.as_ref().map(|log| Log::open(io, log)).transpose()?;
        let kafka = Kafka::new(address, options, io.pool())?;
        let fetch_file = match &options.fetch_file {
            None => None,
            Some(path) => {
                std::fs::write(path, kafka.block().as_bytes())
                    .with_context(|| format!("writing {}", path.display()))?;
                let open = Op::Open { path: path.clone(), options: OpenOptions::default() };
                let Outcome::Opened(file) = io.run(open)? else { bail!("an open that did something else") };
                Some(file)
            }
        };
        Ok(Sink {
            io,
            kafka,
            log,
            fetch_file,
            connections: Vec::new(),
            dirty: Vec::new(),
            stalled: Vec::new(),
            address,
            listener,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` says so; it is asked once a loop turn.
    pub fn run(mut self, mut stop: impl FnMut() -> bool) -> anyhow::Result<()> {
        self.io.submit(Token(ACCEPT), Op::Accept { listener: self.listener.clone() });
        let mut completions = Vec::new();
        while !stop() {
            self.io.poll(None, &mut completions);
            for completion in completions.drain(..) {
                self.complete(completion)?;
            }
            self.commit();
            self.flush();
        }
        Ok(())
    }

    fn complete(&mut self, completion: Completion) -> anyhow::Result<()> {
        let (kind, index) = (completion.token.0 & 0xff, (completion.token.0 >> 8) as u32);
        let outcome = match completion.result {
            Ok(outcome) => outcome,
            Err(error) if kind == ACCEPT || kind == WRITE => return Err(error).context("the sink"),
            Err(_) => {
                self.connections[index as usize] = None;
                return Ok(());
            }
        };
        match outcome {
            Outcome::Accepted { socket, .. } => {
                let index = self.connections.len() as u32;
                let buffer = self.io.pool().take(RECEIVE_SIZE_BYTES).context("memory for a receive buffer")?;
                self.receive(&socket, index, buffer, 0);
                self.connections.push(Some(Connection {
                    socket,
                    answers: Vec::new(),
                    released_bytes: 0,
                    parts: VecDeque::new(),
                    is_sending: false,
                    is_dirty: false,
                    stalled: None,
                }));
            }
            Outcome::Received { bytes: 0, .. } => self.connections[index as usize] = None,
            Outcome::Received { buffer, filled, bytes } => self.received(index, buffer, filled + bytes)?,
            Outcome::Sent { .. } => self.sent(index, 0),
            Outcome::SentFile { bytes } => self.sent(index, bytes as u32),
            Outcome::Done => {
                let Sink { log: Some(log), connections, dirty, .. } = self else { bail!("a write without a log") };
                log.written(|connection, size_bytes| {
                    if let Some(connection_of) = &mut connections[connection as usize] {
                        connection_of.released_bytes += size_bytes;
                        list(connection_of, connection, dirty);
                    }
                });
                for index in std::mem::take(&mut self.stalled) {
                    let connection = self.connections[index as usize].as_mut();
                    if let Some((buffer, filled)) = connection.and_then(|connection| connection.stalled.take()) {
                        self.received(index, buffer, filled)?;
                    }
                }
            }
            other => bail!("an operation that nobody asked for ended: {other:?}"),
        }
        Ok(())
    }

    fn receive(&mut self, socket: &Socket, index: u32, buffer: Buffer, filled: usize) {
        let socket = socket.clone();
        self.io.submit(Token(u64::from(index) << 8 | RECEIVE), Op::Recv { socket, buffer, filled });
    }

    fn received(&mut self, index: u32, mut buffer: Buffer, filled_bytes: usize) -> anyhow::Result<()> {
        let Some(connection) = &mut self.connections[index as usize] else { return Ok(()) };
        let mut at = 0;
        let mut is_stalled = false;
        let needed_bytes = loop {
            match frame::scan(&buffer[at..filled_bytes], FRAME_SIZE_BYTES_MAX) {
                Frame::Complete { start, end } => {
                    let content = &buffer[at + start..at + end];
                    if self.log.is_some() && content.len() > LOGGED_SIZE_BYTES_MAX {
                        self.connections[index as usize] = None;
                        return Ok(());
                    }
                    if self.log.as_ref().is_some_and(|log| !log.has_room(content.len())) {
                        is_stalled = true;
                        break 0;
                    }
                    let answer = Answer { index, connection, log: self.log.as_mut() };
                    if self.kafka.request(content, answer, self.fetch_file.is_some()).is_err() {
                        // Nothing that a measurement has to know: the client sees its connection end.
                        self.connections[index as usize] = None;
                        return Ok(());
                    }
                    at += end;
                }
                Frame::Incomplete { needed_bytes } => break needed_bytes,
                Frame::TooLarge(_) | Frame::Invalid(_) => {
                    self.connections[index as usize] = None;
                    return Ok(());
                }
            }
        };
        let rest = filled_bytes - at;
        if needed_bytes > buffer.len() {
            let mut larger = self.io.pool().take(needed_bytes).context("memory for a frame")?;
            larger[..rest].copy_from_slice(&buffer[at..filled_bytes]);
            buffer = larger;
        } else if at > 0 {
            buffer.copy_within(at..filled_bytes, 0);
        }
        list(connection, index, &mut self.dirty);
        if is_stalled {
            connection.stalled = Some((buffer, rest));
            self.stalled.push(index);
            return Ok(());
        }
        let socket = connection.socket.clone();
        self.receive(&socket, index, buffer, rest);
        Ok(())
    }

    fn sent(&mut self, index: u32, file_bytes: u32) {
        let Some(connection) = &mut self.connections[index as usize] else { return };
        connection.is_sending = false;
        if file_bytes > 0
            && let Some(Part::File { offset, length_bytes }) = connection.parts.front_mut()
        {
            (*offset, *length_bytes) = (*offset + u64::from(file_bytes), *length_bytes - file_bytes);
            if *length_bytes == 0 {
                connection.parts.pop_front();
            }
        }
        list(connection, index, &mut self.dirty);
    }

    /// Starts the next write if it is time.
    fn commit(&mut self) {
        if let Some(log) = &mut self.log
            && let Some(write) = log.next_write(self.io.pool())
        {
            self.io.submit(Token(WRITE), write);
        }
    }

    /// Sends what connections have to say.
    fn flush(&mut self) {
        for index in self.dirty.drain(..) {
            let Some(connection) = &mut self.connections[index as usize] else { continue };
            connection.is_dirty = false;
            if connection.is_sending {
                continue;
            }
            let mut gather = Gather::new();
            if connection.released_bytes > 0 {
                let rest = connection.answers.split_off(connection.released_bytes);
                gather.push(Piece::Owned(std::mem::replace(&mut connection.answers, rest)));
                connection.released_bytes = 0;
            }
            while let Some(part) = connection.parts.pop_front() {
                match part {
                    Part::Bytes(bytes) => gather.push(Piece::Owned(bytes)),
                    Part::Memory(slice) => gather.push(Piece::Shared(slice)),
                    part @ Part::File { .. } => {
                        connection.parts.push_front(part);
                        break;
                    }
                }
            }
            let socket = connection.socket.clone();
            let token = Token(u64::from(index) << 8 | SEND);
            if !gather.is_empty() {
                connection.is_sending = true;
                self.io.submit(token, Op::Send { socket, gather });
            } else if let (Some(Part::File { offset, length_bytes }), Some(file)) =
                (connection.parts.front(), &self.fetch_file)
            {
                let (offset, length_bytes, file) = (*offset, *length_bytes, file.clone());
                connection.is_sending = true;
                self.io.submit(token, Op::SendFile { socket, file, offset, length_bytes });
            }
        }
    }
}

fn list(connection: &mut Connection, index: u32, dirty: &mut Vec<u32>) {
    if !connection.is_dirty {
        connection.is_dirty = true;
        dirty.push(index);
    }
}

/// Where a request's answer goes.
struct Answer<'c> {
    index: u32,
    connection: &'c mut Connection,
    log: Option<&'c mut Log>,
}

impl Answer<'_> {
    /// A batch that is to be stored.
    fn store(&mut self, batch: &[u8]) {
        if let Some(log) = &mut self.log {
            log.append(batch);
        }
    }

    /// An answer to Produce, which goes out when its batches are written.
    fn produced(&mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        let before = self.connection.answers.len();
        encode(&mut self.connection.answers);
        let size_bytes = self.connection.answers.len() - before;
        match &mut self.log {
            Some(log) => log.answer_when_written(self.index, size_bytes),
            None => self.connection.released_bytes += size_bytes,
        }
    }

    /// Any other answer.
    fn bytes(&mut self, bytes: Vec<u8>) {
        self.connection.parts.push_back(Part::Bytes(bytes));
    }
}

/// A frame's content for the decoders that want to own it.
fn owned(content: &[u8]) -> Bytes {
    Bytes::copy_from_slice(content)
}
