//! One connection's bytes: what is being sent, and answers cut out of what is received.

use anyhow::{Context, bail};

use crate::io::{Buffer, Gather, Io, Op, Pool, Socket, Token};
use crate::protocol::frame::{self, Frame};

/// A connection.
pub(super) struct Link {
    incoming: Incoming,
    /// The pieces of the next send; `None` while one is under way.
    gather: Option<Gather>,
}

/// The receiving side of a connection.
#[derive(Clone)]
pub(super) struct Incoming {
    socket: Socket,
    /// Its number; see [`token`].
    number: u32,
    answer_size_bytes_max: usize,
}

/// What a completion is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doing {
    Connecting,
    Receiving,
    Sending,
}

pub(super) fn token(number: u32, doing: Doing) -> Token {
    Token(u64::from(number) << 8 | doing as u64)
}

pub(super) fn of_token(token: Token) -> (u32, Doing) {
    let doing = match token.0 & 0xff {
        0 => Doing::Connecting,
        1 => Doing::Receiving,
        _ => Doing::Sending,
    };
    ((token.0 >> 8) as u32, doing)
}

impl Link {
    /// A connection that was just made. Starts receiving.
    pub(super) fn new(
        io: &mut impl Io,
        number: u32,
        socket: Socket,
        buffer_size_bytes: usize,
        answer_size_bytes_max: usize,
    ) -> anyhow::Result<Link> {
        let buffer = io.pool().take(buffer_size_bytes).context("memory for a receive buffer")?;
        let incoming = Incoming { socket, number, answer_size_bytes_max };
        incoming.receive(io, buffer, 0);
        Ok(Link { incoming, gather: Some(Gather::new()) })
    }

    /// True if nothing is being sent.
    pub(super) fn can_send(&self) -> bool {
        self.gather.is_some()
    }

    /// Sends what `fill` puts into the pieces. Nothing may be under way.
    pub(super) fn send(&mut self, io: &mut impl Io, fill: impl FnOnce(&mut Gather)) {
        let mut gather = self.gather.take().expect("nothing is being sent");
        fill(&mut gather);
        let socket = self.incoming.socket.clone();
        io.submit(token(self.incoming.number, Doing::Sending), Op::Send { socket, gather });
    }

    /// The send is over.
    pub(super) fn sent(&mut self, gather: Gather) -> anyhow::Result<()> {
        if !gather.is_empty() {
            bail!("the broker closed a connection");
        }
        self.gather = Some(gather);
        Ok(())
    }

    /// The receiving side, to be used while the owner of this is changed.
    pub(super) fn incoming(&self) -> Incoming {
        self.incoming.clone()
    }
}

impl Incoming {
    /// Cuts the whole answers out of the first `filled_bytes` of `buffer`, gives their contents to `each`, and goes
    /// on receiving behind the rest.
    #[inline]
    pub(super) fn received(
        &self,
        io: &mut impl Io,
        mut buffer: Buffer,
        filled_bytes: usize,
        mut each: impl FnMut(&[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut at = 0;
        let needed_bytes = loop {
            match frame::scan_response(&buffer[at..filled_bytes], self.answer_size_bytes_max) {
                Frame::Complete { start, end } => {
                    each(&buffer[at + start..at + end])?;
                    at += end;
                }
                Frame::Incomplete { needed_bytes } => break needed_bytes,
                Frame::TooLarge(bytes) => bail!("an answer of {bytes} bytes"),
                Frame::Invalid(size) => bail!("an answer of {size} bytes: is this a Kafka broker?"),
            }
        };
        let rest = filled_bytes - at;
        if needed_bytes > buffer.len() {
            let mut larger = grow(io.pool(), needed_bytes)?;
            larger[..rest].copy_from_slice(&buffer[at..filled_bytes]);
            buffer = larger;
        } else if at > 0 {
            buffer.copy_within(at..filled_bytes, 0);
        }
        self.receive(io, buffer, rest);
        Ok(())
    }

    fn receive(&self, io: &mut impl Io, buffer: Buffer, filled: usize) {
        let socket = self.socket.clone();
        io.submit(token(self.number, Doing::Receiving), Op::Recv { socket, buffer, filled });
    }
}

fn grow(pool: &Pool, size_bytes: usize) -> anyhow::Result<Buffer> {
    pool.take(size_bytes.next_power_of_two()).with_context(|| format!("memory for an answer of {size_bytes} bytes"))
}
