//! The codecs of record batches, under Kafka's numbers and names.
//!
//! 1. [`compress`] writes what every Kafka client reads: gzip with one member, snappy in the blocks of snappy-java
//!    (32 KiB each), lz4 frames with independent blocks, zstd frames.
//! 2. [`decompress`] reads what they write, snappy also without blocks, and never yields more than the limit it is
//!    given: a few bytes can claim, or even become, gigabytes.
//!
//! The broker passes compressed batches through untouched; this is for clients, for `ottla.validate=records`, for
//! lookups by time and for inspecting.

use std::borrow::Cow;
use std::io::{self, Read, Write};

use crate::base::units::KIB;

/// How the records of a batch are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Codec {
    /// Not at all.
    #[default]
    None,
    /// RFC 1952.
    Gzip,
    /// Snappy in snappy-java's blocks, or raw.
    Snappy,
    /// LZ4 frames.
    Lz4,
    /// Zstandard (since Produce 7 and Fetch 10).
    Zstd,
}

impl Codec {
    /// Every codec, by its number.
    pub const ALL: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

    /// The codec with this number in a batch's attributes; 5 to 7 are not assigned.
    pub fn from_number(number: u8) -> Option<Codec> {
        Codec::ALL.get(usize::from(number)).copied()
    }

    /// Its number in a batch's attributes.
    pub const fn number(self) -> u8 {
        match self {
            Codec::None => 0,
            Codec::Gzip => 1,
            Codec::Snappy => 2,
            Codec::Lz4 => 3,
            Codec::Zstd => 4,
        }
    }

    /// Its name in configurations (`compression.type`).
    pub const fn name(self) -> &'static str {
        match self {
            Codec::None => "none",
            Codec::Gzip => "gzip",
            Codec::Snappy => "snappy",
            Codec::Lz4 => "lz4",
            Codec::Zstd => "zstd",
        }
    }

    /// The levels that may be asked for, as in Kafka's `compression.<codec>.level`; `None`: it has none.
    pub const fn levels(self) -> Option<std::ops::RangeInclusive<i32>> {
        match self {
            Codec::None | Codec::Snappy => None,
            Codec::Gzip => Some(1..=9),
            Codec::Lz4 => Some(1..=17),
            Codec::Zstd => Some(-131_072..=22),
        }
    }
}

impl std::fmt::Display for Codec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Codec {
    type Err = UnknownCodec;
    fn from_str(name: &str) -> Result<Codec, UnknownCodec> {
        Codec::ALL.into_iter().find(|codec| codec.name() == name).ok_or(UnknownCodec)
    }
}

/// The text names no codec.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown compression codec: expected none, gzip, snappy, lz4 or zstd")]
pub struct UnknownCodec;

/// Why bytes cannot be decompressed. The peer's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecompressError {
    /// They are not what the codec writes, or not all of it.
    #[error("the {0} data is damaged or truncated")]
    Damaged(Codec),
    /// They become more than the caller allows.
    #[error("the data is larger than {0} bytes when decompressed")]
    TooLarge(usize),
}

/// Compresses `bytes`. A level outside of [`Codec::levels`] is brought into them; `None` is the codec's usual one.
/// Lz4 has one speed here whatever the level.
pub fn compress(codec: Codec, level: Option<i32>, bytes: &[u8]) -> Vec<u8> {
    let level = level.zip(codec.levels()).map(|(level, range)| level.clamp(*range.start(), *range.end()));
    const IN_MEMORY: &str = "compressing in memory cannot fail";
    match codec {
        Codec::None => bytes.to_vec(),
        Codec::Gzip => {
            let level = level.map_or(flate2::Compression::default(), |level| flate2::Compression::new(level as u32));
            let mut encoder = flate2::write::GzEncoder::new(Vec::with_capacity(bytes.len() / 2), level);
            encoder.write_all(bytes).expect(IN_MEMORY);
            encoder.finish().expect(IN_MEMORY)
        }
        Codec::Snappy => compress_snappy(bytes),
        Codec::Lz4 => {
            // Java reads only independent blocks, which are the default.
            let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::with_capacity(bytes.len() / 2));
            encoder.write_all(bytes).expect(IN_MEMORY);
            encoder.finish().expect(IN_MEMORY)
        }
        Codec::Zstd => zstd::bulk::compress(bytes, level.unwrap_or(ZSTD_LEVEL_DEFAULT)).expect(IN_MEMORY),
    }
}

/// Decompresses `bytes` into at most `limit_bytes`. With no codec they are given back as they are.
pub fn decompress(codec: Codec, bytes: &[u8], limit_bytes: usize) -> Result<Cow<'_, [u8]>, DecompressError> {
    if codec != Codec::None && bytes.is_empty() {
        return Err(DecompressError::Damaged(codec));
    }
    match codec {
        Codec::None if bytes.len() > limit_bytes => Err(DecompressError::TooLarge(limit_bytes)),
        Codec::None => Ok(Cow::Borrowed(bytes)),
        Codec::Gzip => read_all(codec, flate2::bufread::MultiGzDecoder::new(bytes), limit_bytes),
        Codec::Snappy => decompress_snappy(bytes, limit_bytes),
        Codec::Lz4 => decompress_lz4(bytes, limit_bytes),
        Codec::Zstd => {
            let mut decoder =
                zstd::stream::read::Decoder::with_buffer(bytes).map_err(|_| DecompressError::Damaged(codec))?;
            // The window is allocated before the first byte comes out, so what it may be follows from the limit.
            let window_log = usize::BITS - limit_bytes.saturating_sub(1).leading_zeros();
            decoder
                .window_log_max(window_log.clamp(ZSTD_WINDOW_LOG_MIN, ZSTD_WINDOW_LOG_MAX))
                .map_err(|_| DecompressError::Damaged(codec))?;
            read_all(codec, decoder, limit_bytes)
        }
    }
}

/// Kafka's default.
const ZSTD_LEVEL_DEFAULT: i32 = 3;
/// The window of the usual levels is 8 MiB at most: that much a decoder always may take.
const ZSTD_WINDOW_LOG_MIN: u32 = 23;
/// What decoders accept unless told otherwise: 128 MiB.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

fn read_all(codec: Codec, reader: impl Read, limit_bytes: usize) -> Result<Cow<'static, [u8]>, DecompressError> {
    let mut output = Vec::new();
    let limit = u64::try_from(limit_bytes).unwrap_or(u64::MAX);
    reader.take(limit.saturating_add(1)).read_to_end(&mut output).map_err(|_| DecompressError::Damaged(codec))?;
    if output.len() > limit_bytes { Err(DecompressError::TooLarge(limit_bytes)) } else { Ok(Cow::Owned(output)) }
}

/// Input that remembers whether more was wanted than there was: the lz4 decoder takes an end between two blocks for
/// the end of the frame.
struct Watched<'a> {
    bytes: &'a [u8],
    ran_out: bool,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.bytes.read(buffer)?;
        self.ran_out |= count == 0 && !buffer.is_empty();
        Ok(count)
    }
}

fn decompress_lz4(bytes: &[u8], limit_bytes: usize) -> Result<Cow<'_, [u8]>, DecompressError> {
    let mut input = Watched { bytes, ran_out: false };
    let output = read_all(Codec::Lz4, lz4_flex::frame::FrameDecoder::new(&mut input), limit_bytes)?;
    if input.ran_out || !input.bytes.is_empty() {
        return Err(DecompressError::Damaged(Codec::Lz4));
    }
    Ok(output)
}

/// What snappy-java begins a stream with; version 1, readable by version 1, big-endian; then per block its length and
/// one raw snappy block.
const SNAPPY_JAVA_MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const SNAPPY_JAVA_HEADER_SIZE: usize = 16;
const SNAPPY_BLOCK_SIZE_BYTES: usize = 32 * KIB;
/// The best that snappy can do: a copy of 64 bytes takes 3.
const SNAPPY_RATIO_MAX: usize = 22;

fn compress_snappy(bytes: &[u8]) -> Vec<u8> {
    let mut output = Vec::with_capacity(SNAPPY_JAVA_HEADER_SIZE + bytes.len() / 2);
    output.extend_from_slice(&SNAPPY_JAVA_MAGIC);
    output.extend_from_slice(&1_i32.to_be_bytes());
    output.extend_from_slice(&1_i32.to_be_bytes());
    let mut encoder = snap::raw::Encoder::new();
    for block in bytes.chunks(SNAPPY_BLOCK_SIZE_BYTES) {
        let start = output.len();
        output.resize(start + 4 + snap::raw::max_compress_len(block.len()), 0);
        let length = encoder.compress(block, &mut output[start + 4..]).expect("the room is what it asked for");
        let prefix = u32::try_from(length).expect("a block is small").to_be_bytes();
        output[start..start + 4].copy_from_slice(&prefix);
        output.truncate(start + 4 + length);
    }
    output
}

fn decompress_snappy(bytes: &[u8], limit_bytes: usize) -> Result<Cow<'_, [u8]>, DecompressError> {
    const DAMAGED: DecompressError = DecompressError::Damaged(Codec::Snappy);
    let mut output = Vec::new();
    if !bytes.starts_with(&SNAPPY_JAVA_MAGIC) {
        decompress_snappy_block(bytes, &mut output, limit_bytes)?;
        return Ok(Cow::Owned(output));
    }
    let mut rest = bytes.get(SNAPPY_JAVA_HEADER_SIZE..).ok_or(DAMAGED)?;
    while !rest.is_empty() {
        let (prefix, tail) = rest.split_first_chunk::<4>().ok_or(DAMAGED)?;
        // Concatenated streams repeat the header.
        if tail.len() >= 12 && rest.starts_with(&SNAPPY_JAVA_MAGIC) {
            rest = &rest[SNAPPY_JAVA_HEADER_SIZE..];
            continue;
        }
        let length = usize::try_from(u32::from_be_bytes(*prefix)).map_err(|_| DAMAGED)?;
        let (block, tail) = tail.split_at_checked(length).ok_or(DAMAGED)?;
        decompress_snappy_block(block, &mut output, limit_bytes)?;
        rest = tail;
    }
    Ok(Cow::Owned(output))
}

/// Appends what `block` becomes. What it claims to become is checked before it is allocated.
fn decompress_snappy_block(block: &[u8], output: &mut Vec<u8>, limit_bytes: usize) -> Result<(), DecompressError> {
    const DAMAGED: DecompressError = DecompressError::Damaged(Codec::Snappy);
    let claimed = snap::raw::decompress_len(block).map_err(|_| DAMAGED)?;
    if claimed > limit_bytes.saturating_sub(output.len()) {
        return Err(DecompressError::TooLarge(limit_bytes));
    }
    if block.is_empty() || claimed > block.len().saturating_mul(SNAPPY_RATIO_MAX) {
        return Err(DAMAGED);
    }
    let start = output.len();
    output.resize(start + claimed, 0);
    let length = snap::raw::Decoder::new().decompress(block, &mut output[start..]).map_err(|_| DAMAGED)?;
    if length == claimed { Ok(()) } else { Err(DAMAGED) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;
    use crate::base::units::MIB;

    /// Text that compresses, longer than a block of any codec.
    fn sample(length: usize) -> Vec<u8> {
        let mut rng = Rng::new(11);
        let mut text = Vec::with_capacity(length + 32);
        while text.len() < length {
            text.extend_from_slice(format!("flight {} to {};", rng.in_range(0..900), rng.in_range(0..60)).as_bytes());
        }
        text.truncate(length);
        text
    }

    const COMPRESSING: [Codec; 4] = [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

    #[test]
    fn what_is_compressed_comes_back() {
        for codec in Codec::ALL {
            for length in [0, 1, 100, SNAPPY_BLOCK_SIZE_BYTES, 300_000] {
                let bytes = sample(length);
                let small = compress(codec, None, &bytes);
                assert_eq!(decompress(codec, &small, length).as_deref(), Ok(&bytes[..]), "{codec} {length}");
                if codec != Codec::None && length > 1000 {
                    assert!(small.len() < length / 2, "{codec} {length}: {}", small.len());
                }
            }
        }
    }

    #[test]
    fn every_level_is_accepted_and_those_outside_are_brought_inside() {
        let bytes = sample(10_000);
        for codec in Codec::ALL {
            for level in [i32::MIN, -5, 0, 1, 9, 17, i32::MAX] {
                let small = compress(codec, Some(level), &bytes);
                assert_eq!(decompress(codec, &small, bytes.len()).as_deref(), Ok(&bytes[..]), "{codec} {level}");
            }
        }
    }

    #[test]
    fn numbers_and_names_are_kafkas() {
        for (number, name) in ["none", "gzip", "snappy", "lz4", "zstd"].into_iter().enumerate() {
            let codec = Codec::from_number(number as u8).expect("it is assigned");
            assert_eq!((codec.number(), codec.name(), name.parse()), (number as u8, name, Ok(codec)));
        }
        assert_eq!(Codec::from_number(5), None);
        assert_eq!("GZIP".parse::<Codec>(), Err(UnknownCodec));
    }

    #[test]
    fn nothing_grows_beyond_the_limit() {
        // Zeros: a bomb of 64 MiB for each codec, opened with a limit of 1 MiB, and a limit one byte too small.
        let zeros = vec![0; 64 * MIB];
        for codec in Codec::ALL {
            let bomb = compress(codec, None, &zeros);
            assert_eq!(decompress(codec, &bomb, MIB), Err(DecompressError::TooLarge(MIB)), "{codec}");
            let small = compress(codec, None, &zeros[..1000]);
            assert_eq!(decompress(codec, &small, 999), Err(DecompressError::TooLarge(999)), "{codec}");
        }
    }

    #[test]
    fn truncated_data_is_damaged_wherever_it_is_cut() {
        for codec in COMPRESSING {
            let small = compress(codec, None, &sample(70_000));
            // Snappy's blocks have no end mark: a cut between two of them shows only by what is missing.
            let whole_blocks = |cut: usize| codec == Codec::Snappy && (cut == 16 || is_block_end(&small, cut));
            let step = small.len() / 1000 + 1;
            for cut in (0..64).chain((64..small.len()).step_by(step)).chain(small.len() - 32..small.len()) {
                if !whole_blocks(cut) {
                    let result = decompress(codec, &small[..cut], MIB);
                    assert_eq!(result, Err(DecompressError::Damaged(codec)), "{codec} cut at {cut}");
                }
            }
        }
    }

    fn is_block_end(framed: &[u8], at: usize) -> bool {
        let mut end = SNAPPY_JAVA_HEADER_SIZE;
        while end < at {
            end += 4 + u32::from_be_bytes(*framed[end..].first_chunk().expect("a whole prefix")) as usize;
        }
        end == at
    }

    #[test]
    fn raw_snappy_is_read_too() {
        let bytes = sample(100_000);
        let raw = snap::raw::Encoder::new().compress_vec(&bytes).expect("it fits");
        assert_eq!(decompress(Codec::Snappy, &raw, bytes.len()).as_deref(), Ok(&bytes[..]));
    }

    #[test]
    fn a_snappy_block_that_lies_about_its_length_is_not_believed() {
        // Ten bytes that claim 80 MiB, below the limit, raw and framed: refused before anything is allocated.
        let raw = [0x80, 0x80, 0x80, 0x28, 0, 1, 2, 3, 4, 5];
        assert_eq!(snap::raw::decompress_len(&raw), Ok(80 * MIB));
        assert_eq!(decompress(Codec::Snappy, &raw, 100 * MIB), Err(DecompressError::Damaged(Codec::Snappy)));
        let mut framed = compress(Codec::Snappy, None, b"");
        framed.extend_from_slice(&u32::MAX.to_be_bytes());
        framed.extend_from_slice(&raw);
        assert_eq!(decompress(Codec::Snappy, &framed, 100 * MIB), Err(DecompressError::Damaged(Codec::Snappy)));
    }

    #[test]
    fn snappy_framing_is_that_of_snappy_java() {
        assert_eq!(compress(Codec::Snappy, None, b"abc"), b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01\0\0\0\x05\x03\x08abc");
    }

    #[test]
    fn lz4_frames_have_independent_blocks_as_java_demands() {
        let frame = compress(Codec::Lz4, None, &sample(100_000));
        assert_eq!(frame[..4], [0x04, 0x22, 0x4d, 0x18]);
        let flags = frame[4];
        assert_eq!((flags >> 6, flags & 0x20, flags & 0x01), (1, 0x20, 0), "version 1, independent, no dictionary");
    }

    #[test]
    fn random_bytes_never_panic_and_stay_within_the_limit() {
        // Random bytes, and sound data with random bytes changed, for every codec.
        let mut rng = Rng::new(5);
        let bytes = sample(5000);
        for round in 0..3000 {
            let codec = COMPRESSING[round % 4];
            let mut data = if round % 3 == 0 {
                let mut noise = vec![0; rng.in_range(1..300) as usize];
                rng.fill(&mut noise);
                noise
            } else {
                compress(codec, None, &bytes)
            };
            for _ in 0..rng.in_range(1..4) {
                let at = rng.in_range(..data.len() as u64) as usize;
                data[at] = rng.next_u64() as u8;
            }
            if let Ok(output) = decompress(codec, &data, 6000) {
                assert!(output.len() <= 6000);
            }
        }
    }
}
