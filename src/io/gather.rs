//! What one send sends: pieces in order, some owned, some slices of shared buffers.

use std::collections::VecDeque;

use super::Slice;

/// A run of bytes to send.
#[derive(Debug)]
pub enum Piece {
    /// Bytes made for this send: headers and small responses.
    Owned(Vec<u8>),
    /// Bytes that others use as well: the tail cache, a read from disk.
    Shared(Slice),
}

impl Piece {
    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Piece::Owned(bytes) => bytes,
            Piece::Shared(slice) => slice.as_bytes(),
        }
    }
}

/// Pieces in order and how much of the first is gone. Empty pieces are never kept; the memory of the last owned one
/// that was sent is, for the next send.
#[derive(Debug, Default)]
pub struct Gather {
    pieces: VecDeque<Piece>,
    sent_of_first_bytes: usize,
    remaining_bytes: usize,
    spent: Option<Vec<u8>>,
}

impl Gather {
    /// Nothing to send.
    pub fn new() -> Gather {
        Gather::default()
    }

    /// Adds `piece` at the end.
    pub fn push(&mut self, piece: Piece) {
        let length = piece.as_bytes().len();
        if length > 0 {
            self.remaining_bytes += length;
            self.pieces.push_back(piece);
        }
    }

    /// Bytes that are still to be sent.
    pub fn remaining_bytes(&self) -> usize {
        self.remaining_bytes
    }

    /// True when nothing is left.
    pub fn is_empty(&self) -> bool {
        self.remaining_bytes == 0
    }

    /// The number of pieces that still hold bytes to be sent.
    pub fn piece_count(&self) -> usize {
        self.pieces.len()
    }

    /// What is left, in order.
    pub fn chunks(&self) -> impl Iterator<Item = &[u8]> {
        self.pieces.iter().enumerate().map(|(index, piece)| {
            let bytes = piece.as_bytes();
            if index == 0 { &bytes[self.sent_of_first_bytes..] } else { bytes }
        })
    }

    /// An empty vector with the memory of a piece that was sent, if there is one.
    pub fn take_spent(&mut self) -> Option<Vec<u8>> {
        self.spent.take()
    }

    /// Keeps an empty vector's memory for the next send.
    pub fn keep_spent(&mut self, bytes: Vec<u8>) {
        debug_assert!(bytes.is_empty());
        self.spent = Some(bytes);
    }

    /// Takes away the first `bytes`, which must be there: they are sent. Wholly sent pieces are dropped.
    pub fn advance(&mut self, bytes: usize) {
        assert!(bytes <= self.remaining_bytes, "{bytes} sent of {}", self.remaining_bytes);
        self.remaining_bytes -= bytes;
        self.sent_of_first_bytes += bytes;
        while let Some(first) = self.pieces.front() {
            let length = first.as_bytes().len();
            if self.sent_of_first_bytes < length {
                break;
            }
            self.sent_of_first_bytes -= length;
            if let Some(Piece::Owned(mut bytes)) = self.pieces.pop_front() {
                bytes.clear();
                self.spent = Some(bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_send_resumes_from_the_exact_byte_at_any_split() {
        // Advances by every pair of counts and compares what is left with the plain bytes.
        for first in 0..=9 {
            for second in 0..=9 - first {
                let mut gather = Gather::new();
                for part in ["abc", "", "defg", "hi"] {
                    gather.push(Piece::Owned(part.into()));
                }
                gather.advance(first);
                gather.advance(second);
                let left: Vec<u8> = gather.chunks().flatten().copied().collect();
                assert_eq!(left, b"abcdefghi"[first + second..]);
                assert_eq!(gather.remaining_bytes(), left.len());
            }
        }
    }
}
