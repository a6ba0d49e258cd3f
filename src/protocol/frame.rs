//! Where a frame begins and ends in received bytes.
//!
//! A frame is a big-endian `i32` size and that many bytes. [`scan`] looks only at the size, so a frame that claims
//! too much is refused when its first four bytes are there, before anybody makes room for it.

/// Bytes of the size prefix.
pub const PREFIX_SIZE: usize = 4;
/// The least request: key, version and correlation id (header version 0 had nothing else).
pub const REQUEST_SIZE_BYTES_MIN: usize = 8;
/// The least response: correlation id and an error code.
pub const RESPONSE_SIZE_BYTES_MIN: usize = 6;

/// What stands at the start of received bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A whole frame: its content, the size prefix excluded, is `bytes[start..end]`; the next frame starts at `end`.
    Complete {
        /// First byte of the content.
        start: usize,
        /// One behind the last byte of the content.
        end: usize,
    },
    /// Not all there: scan again when the buffer holds at least this many bytes, counted from the frame's start with
    /// the size prefix. [`PREFIX_SIZE`] as long as the size itself is not known.
    Incomplete {
        /// What the buffer must hold; always more than it holds now.
        needed_bytes: usize,
    },
    /// The size claims this many bytes, more than the bound. Close the connection.
    TooLarge(usize),
    /// The size is negative or too small for a header. Close the connection.
    Invalid(i32),
}

/// Looks at the request frame at the start of `bytes`; its content may have up to `size_bytes_max` bytes.
#[inline]
pub fn scan(bytes: &[u8], size_bytes_max: usize) -> Frame {
    scan_bounded(bytes, REQUEST_SIZE_BYTES_MIN, size_bytes_max)
}

/// [`scan`] for a client: looks at the response frame at the start of `bytes`.
#[inline]
pub fn scan_response(bytes: &[u8], size_bytes_max: usize) -> Frame {
    scan_bounded(bytes, RESPONSE_SIZE_BYTES_MIN, size_bytes_max)
}

#[inline]
fn scan_bounded(bytes: &[u8], size_bytes_min: usize, size_bytes_max: usize) -> Frame {
    let Some(prefix) = bytes.first_chunk::<PREFIX_SIZE>() else {
        return Frame::Incomplete { needed_bytes: PREFIX_SIZE };
    };
    let claimed = i32::from_be_bytes(*prefix);
    let Some(size_bytes) = usize::try_from(claimed).ok().filter(|size| *size >= size_bytes_min) else {
        return Frame::Invalid(claimed);
    };
    if size_bytes > size_bytes_max {
        return Frame::TooLarge(size_bytes);
    }
    let end = PREFIX_SIZE + size_bytes;
    if bytes.len() < end {
        return Frame::Incomplete { needed_bytes: end };
    }
    Frame::Complete { start: PREFIX_SIZE, end }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    const MAX: usize = 1000;

    #[test]
    fn a_frame_is_complete_from_its_last_byte_on() {
        // Every prefix of two frames, one after the other.
        let mut bytes = vec![0, 0, 0, 10];
        bytes.resize(14, 7);
        bytes.extend_from_slice(&[0, 0]);
        for length in 0..=bytes.len() {
            let expected = match length {
                0..4 => Frame::Incomplete { needed_bytes: 4 },
                4..14 => Frame::Incomplete { needed_bytes: 14 },
                _ => Frame::Complete { start: 4, end: 14 },
            };
            assert_eq!(scan(&bytes[..length], MAX), expected);
        }
    }

    #[test]
    fn absurd_sizes_are_refused_from_the_prefix_alone() {
        assert_eq!(scan(&i32::MAX.to_be_bytes(), MAX), Frame::TooLarge(i32::MAX as usize));
        assert_eq!(scan(&1001i32.to_be_bytes(), MAX), Frame::TooLarge(1001));
        assert_eq!(scan(&1000i32.to_be_bytes(), MAX), Frame::Incomplete { needed_bytes: 1004 });
        for size in [-1, i32::MIN, 0, 7] {
            assert_eq!(scan(&size.to_be_bytes(), MAX), Frame::Invalid(size));
        }
        assert_eq!(scan_response(&6i32.to_be_bytes(), MAX), Frame::Incomplete { needed_bytes: 10 });
        // An HTTP client: "GET " as a size.
        assert_eq!(scan(b"GET / HTTP/1.1", 100 << 20), Frame::TooLarge(0x4745_5420));
    }

    #[test]
    fn no_bytes_make_it_panic_or_point_outside() {
        // Seeded random bytes: what it returns is always within what was given.
        let mut rng = Rng::new(1);
        for _ in 0..10_000 {
            let mut bytes = vec![0; rng.in_range(0..64) as usize];
            rng.fill(&mut bytes);
            if bytes.len() > 2 && rng.chance(1, 2) {
                bytes[..3].fill(0);
            }
            match scan(&bytes, MAX) {
                Frame::Complete { start, end } => assert!(start == 4 && start <= end && end <= bytes.len()),
                Frame::Incomplete { needed_bytes } => {
                    assert!(needed_bytes > bytes.len() && needed_bytes <= MAX + PREFIX_SIZE);
                }
                Frame::TooLarge(size) => assert!(size > MAX),
                Frame::Invalid(size) => assert!(size < REQUEST_SIZE_BYTES_MIN as i32),
            }
        }
    }
}
