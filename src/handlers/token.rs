//! How this broker uses the 64 bits of an operation's [`Token`].
//!
//! ```text
//! 63      56 55                    24 23         8 7      0
//! | kind    | index in its table     | generation  | op   |
//! ```
//! The low 8 bits belong to whoever was given the base token: connection, log or read.

use crate::io::Token;
use crate::net::ConnectionId;

/// Whose operation it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The listener's accept.
    Accept,
    /// A connection's receive or send.
    Connection,
    /// A partition's log.
    Log,
    /// A read for a fetch.
    Fetch,
    /// A read for a lookup by time.
    Lookup,
    /// The metadata log (controller only).
    Metadata,
    /// A read of a coordinator that loads.
    Coordinator,
    /// A removal of a deleted partition's files.
    Removal,
    /// Compaction.
    Compaction,
    /// The shard's journal.
    Journal,
}

const KINDS: [Kind; 10] = [
    Kind::Accept,
    Kind::Connection,
    Kind::Log,
    Kind::Fetch,
    Kind::Lookup,
    Kind::Metadata,
    Kind::Removal,
    Kind::Coordinator,
    Kind::Compaction,
    Kind::Journal,
];

/// The token of `kind` with its low 8 bits free.
pub fn base(kind: Kind, index: u32, generation: u16) -> Token {
    let kind = KINDS.iter().position(|k| *k == kind).expect("every kind is listed") as u64;
    Token((kind + 1) << 56 | u64::from(index) << 24 | u64::from(generation) << 8)
}

/// The base token of a connection.
pub fn connection(id: ConnectionId) -> Token {
    base(Kind::Connection, id.index, id.generation)
}

/// A token taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    /// Whose.
    pub kind: Kind,
    /// Which one.
    pub index: u32,
    /// Which generation of it.
    pub generation: u16,
    /// Which of its operations.
    pub op: u64,
}

/// Takes a token of this broker apart.
pub fn parts(token: Token) -> Parts {
    let kind = (token.0 >> 56) as usize;
    Parts {
        kind: KINDS[kind - 1],
        index: (token.0 >> 24) as u32,
        generation: (token.0 >> 8) as u16,
        op: token.0 & 0xff,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_apart_as_it_was_made() {
        for kind in KINDS {
            let token = Token(base(kind, u32::MAX - 5, 0xabcd).0 | 0x7f);
            assert_eq!(parts(token), Parts { kind, index: u32::MAX - 5, generation: 0xabcd, op: 0x7f });
        }
    }
}
