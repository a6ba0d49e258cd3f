//! The frame around every archive on disk: what it is, which version, how long, and whether it is whole.
//!
//! ```text
//!  0  magic            8 bytes   names the kind of file
//!  8  format version   u32
//! 12  CRC-32C          u32       of bytes 0-11 and of byte 16 to the end of the payload
//! 16  sequence         u64       what it means is the kind's business
//! 24  payload length   u64
//! 32  payload          an rkyv archive, little-endian
//!     zeros to the next multiple of the block
//! ```
//! Integers are little-endian. The payload begins at a multiple of 16, so that in a block-aligned buffer it can be
//! accessed in place. Whatever the bytes are, reading them ends in an error at worst.

use rkyv::api::high::{HighSerializer, HighValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::AlignedVec;
use rkyv::{Portable, Serialize};

use crate::base::units::align_up;
use crate::model::limits::{BLOCK_SIZE_BYTES, ENVELOPE_SIZE_BYTES_MAX};

/// Bytes before the payload.
pub const ENVELOPE_HEADER_SIZE: usize = 32;

/// A kind of file: its magic and its format versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// First eight bytes.
    pub magic: [u8; 8],
    /// The version that is written. Raised with every change of the payload's layout.
    pub version: u32,
    /// The oldest version that is read.
    pub version_min: u32,
}

/// Why bytes are not the archive that was expected. The disk's fault, or a newer broker wrote them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Too short, or the length leads outside.
    #[error("the file is truncated")]
    Truncated,
    /// Another kind of file, or nothing was ever written.
    #[error("the magic is not the expected one")]
    Magic,
    /// Written by another version of the broker, and not one of those that are read.
    #[error("format version {version} is not supported")]
    Version {
        /// The version found.
        version: u32,
        /// The envelope's sequence, which every version has at the same place.
        sequence: u64,
    },
    /// The bytes are damaged or the write was torn.
    #[error("the checksum does not match")]
    Checksum,
    /// The checksum is right but the payload is not an archive of this kind.
    #[error("the archive is malformed")]
    Malformed,
}

/// A checked envelope: the payload may be accessed.
#[derive(Clone, Copy, Debug)]
pub struct Envelope<'a> {
    /// The format version of the payload.
    pub version: u32,
    /// The writer's sequence.
    pub sequence: u64,
    /// The archive.
    pub payload: &'a [u8],
    /// Bytes of the envelope with its padding.
    pub size_bytes: usize,
}

/// Archives `value` and frames it, padded with zeros to whole blocks. What became larger than
/// [`ENVELOPE_SIZE_BYTES_MAX`] is refused on reading and then made again from the segments.
pub fn seal<T>(kind: Kind, sequence: u64, value: &T) -> Vec<u8>
where
    T: for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, rancor::Error>>,
{
    let payload = rkyv::to_bytes::<rancor::Error>(value).expect("archiving into memory cannot fail");
    let end = ENVELOPE_HEADER_SIZE + payload.len();
    let size = align_up(end as u64, BLOCK_SIZE_BYTES as u64) as usize;
    let mut bytes = Vec::with_capacity(size);
    bytes.extend_from_slice(&kind.magic);
    bytes.extend_from_slice(&kind.version.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&sequence.to_le_bytes());
    bytes.extend_from_slice(&(payload.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&payload);
    let crc = crc_of(&bytes);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    bytes.resize(size, 0);
    bytes
}

/// Checks the envelope at the start of `bytes`; what follows it is ignored.
pub fn open(kind: Kind, bytes: &[u8]) -> Result<Envelope<'_>, EnvelopeError> {
    let header: &[u8; ENVELOPE_HEADER_SIZE] = bytes.first_chunk().ok_or(EnvelopeError::Truncated)?;
    if header[..8] != kind.magic {
        return Err(EnvelopeError::Magic);
    }
    let version = u32_at(header, 8);
    let sequence = u64_at(header, 16);
    let length = usize::try_from(u64_at(header, 24)).map_err(|_| EnvelopeError::Truncated)?;
    if length > ENVELOPE_SIZE_BYTES_MAX {
        return Err(EnvelopeError::Truncated);
    }
    let end = ENVELOPE_HEADER_SIZE + length;
    let whole = bytes.get(..end).ok_or(EnvelopeError::Truncated)?;
    if crc_of(whole) != u32_at(header, 12) {
        return Err(EnvelopeError::Checksum);
    }
    if !(kind.version_min..=kind.version).contains(&version) {
        return Err(EnvelopeError::Version { version, sequence });
    }
    Ok(Envelope {
        version,
        sequence,
        payload: &whole[ENVELOPE_HEADER_SIZE..],
        size_bytes: align_up(end as u64, BLOCK_SIZE_BYTES as u64) as usize,
    })
}

/// Bytes of the envelope, padding included, whose header is at the start of `bytes`: how much to read before
/// [`open`]. `None` if there is no header of this kind or its length is above the limit. The checksum is not looked at.
pub fn size_of_envelope(kind: Kind, bytes: &[u8]) -> Option<usize> {
    let header: &[u8; ENVELOPE_HEADER_SIZE] = bytes.first_chunk()?;
    let length = usize::try_from(u64_at(header, 24)).ok()?;
    let sound = header[..8] == kind.magic && length <= ENVELOPE_SIZE_BYTES_MAX;
    sound.then(|| align_up((ENVELOPE_HEADER_SIZE + length) as u64, BLOCK_SIZE_BYTES as u64) as usize)
}

/// Accesses a payload in place. The envelope must start in memory at a multiple of 16.
pub fn access<A>(payload: &[u8]) -> Result<&A, EnvelopeError>
where
    A: Portable + for<'a> CheckBytes<HighValidator<'a, rancor::Failure>>,
{
    rkyv::access::<A, rancor::Failure>(payload).map_err(|_| EnvelopeError::Malformed)
}

fn crc_of(bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..])
}

fn u32_at(bytes: &[u8; ENVELOPE_HEADER_SIZE], at: usize) -> u32 {
    u32::from_le_bytes(*bytes[at..].first_chunk().expect("within the header"))
}

fn u64_at(bytes: &[u8; ENVELOPE_HEADER_SIZE], at: usize) -> u64 {
    u64::from_le_bytes(*bytes[at..].first_chunk().expect("within the header"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    const KIND: Kind = Kind { magic: *b"ottlaTST", version: 7, version_min: 6 };

    /// Copies into memory aligned like a buffer of the pool.
    fn aligned(bytes: &[u8]) -> AlignedVec<4096> {
        let mut copy = AlignedVec::new();
        copy.extend_from_slice(bytes);
        copy
    }

    #[test]
    fn what_is_sealed_opens_in_place() {
        let sealed = seal(KIND, 42, &vec![1_u64, 2, 3]);
        assert_eq!(sealed.len() % BLOCK_SIZE_BYTES, 0);
        assert_eq!(size_of_envelope(KIND, &sealed[..ENVELOPE_HEADER_SIZE]), Some(sealed.len()));
        let bytes = aligned(&[&sealed[..], &[9; 100]].concat());
        let envelope = open(KIND, &bytes).expect("sound");
        assert_eq!((envelope.version, envelope.sequence, envelope.size_bytes), (7, 42, sealed.len()));
        let values = access::<rkyv::Archived<Vec<u64>>>(envelope.payload).expect("sound");
        assert_eq!(values.iter().map(|value| value.to_native()).collect::<Vec<_>>(), [1, 2, 3]);
    }

    #[test]
    fn each_fault_has_its_error() {
        let sealed = seal(KIND, 42, &vec![1_u64, 2, 3]);
        let end = ENVELOPE_HEADER_SIZE + u64_at(sealed.first_chunk().expect("there"), 24) as usize;
        for cut in 0..end {
            assert_eq!(open(KIND, &sealed[..cut]).err(), Some(EnvelopeError::Truncated));
        }
        assert!(open(KIND, &sealed[..end]).is_ok());
        let other = Kind { magic: *b"ottlaYes", ..KIND };
        assert_eq!(open(other, &sealed).err(), Some(EnvelopeError::Magic));
        assert_eq!(size_of_envelope(other, &sealed), None);
        assert_eq!(open(KIND, &[0; 4096]).err(), Some(EnvelopeError::Magic));
        let error = EnvelopeError::Version { version: 7, sequence: 42 };
        for (version_min, version) in [(8, 8), (5, 6)] {
            assert_eq!(open(Kind { version, version_min, ..KIND }, &sealed).err(), Some(error));
        }
        assert_eq!(open(Kind { version: 8, ..KIND }, &sealed).map(|envelope| envelope.version), Ok(7));
        let mut lying = sealed;
        lying[24..32].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(open(KIND, &lying).err(), Some(EnvelopeError::Truncated));
        assert_eq!(size_of_envelope(KIND, &lying), None);
    }

    #[test]
    fn every_changed_bit_is_found() {
        let sealed = seal(KIND, 42, &vec![1_u64, 2, 3]);
        let end = ENVELOPE_HEADER_SIZE + u64_at(sealed.first_chunk().expect("there"), 24) as usize;
        for bit in 0..end * 8 {
            let mut bytes = sealed.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(open(KIND, &bytes).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_payload_that_is_no_archive_is_malformed_and_never_a_panic() {
        // Behind a right checksum: random bytes, and memory that is not aligned.
        let mut rng = Rng::new(9);
        for _ in 0..5000 {
            let mut noise = vec![0; rng.in_range(0..64) as usize];
            rng.fill(&mut noise);
            let _ = access::<rkyv::Archived<Vec<u64>>>(&aligned(&noise));
        }
        let sealed = aligned(&[&[0], &seal(KIND, 0, &vec![1_u64])[..]].concat());
        let envelope = open(KIND, &sealed[1..]).expect("the checksum does not mind");
        assert_eq!(access::<rkyv::Archived<Vec<u64>>>(envelope.payload).err(), Some(EnvelopeError::Malformed));
    }
}
