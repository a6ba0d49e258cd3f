//! The record batch of Kafka's message format v2: the wire's unit and the disk's.
//!
//! ```text
//!  0  base offset              i64   stamped by the broker
//!  8  batch length             i32   bytes after this field: 49 + records
//! 12  partition leader epoch   i32   stamped by the broker
//! 16  magic                    i8    2
//! 17  CRC-32C                  u32   of everything from byte 21 to the end
//! 21  attributes               i16   bits 0-2 codec, 3 LogAppendTime, 4 transactional, 5 control, 6 delete horizon
//! 23  last offset delta        i32
//! 27  base timestamp           i64
//! 35  max timestamp            i64
//! 43  producer id              i64
//! 51  producer epoch           i16
//! 53  base sequence            i32
//! 57  record count             i32
//! 61  records
//! ```
//! All integers are big-endian. The CRC covers neither base offset, length nor leader epoch, so the broker stamps
//! those in place.
//!
//! Invariant: [`Header::parse`] reads the first 61 bytes and trusts nothing; [`validate`] is what makes a batch from
//! a client acceptable. Hot path: neither allocates.

use crate::base::time::Timestamp;
use crate::model::id::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence};

/// Bytes of a batch before its first record.
pub const HEADER_SIZE: usize = 61;
/// Bytes before and including the length field: what must be there to know how long the batch is.
pub const PREFIX_SIZE: usize = 12;
/// Where the CRC-covered part starts. The bytes before it can be torn from the rest without the CRC noticing.
pub const CRC_COVERED_FROM: usize = 21;
/// The only message format that is stored.
pub const MAGIC: i8 = 2;

const AT_LENGTH: usize = 8;
const AT_LEADER_EPOCH: usize = 12;
const AT_MAGIC: usize = 16;
const AT_CRC: usize = 17;
const AT_ATTRIBUTES: usize = 21;
const AT_LAST_OFFSET_DELTA: usize = 23;
const AT_BASE_TIMESTAMP: usize = 27;
const AT_MAX_TIMESTAMP: usize = 35;
const AT_PRODUCER_ID: usize = 43;
const AT_PRODUCER_EPOCH: usize = 51;
const AT_BASE_SEQUENCE: usize = 53;
const AT_RECORD_COUNT: usize = 57;

/// A batch's attribute bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes(pub i16);

impl Attributes {
    /// The codec's number: 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd; 5 to 7 are not assigned.
    pub const fn codec(self) -> u8 {
        (self.0 & 0x07) as u8
    }
    /// The timestamps are the broker's (`message.timestamp.type=LogAppendTime`).
    pub const fn is_log_append_time(self) -> bool {
        self.0 & 0x08 != 0
    }
    /// Part of a transaction.
    pub const fn is_transactional(self) -> bool {
        self.0 & 0x10 != 0
    }
    /// A commit or abort marker, written by brokers only.
    pub const fn is_control(self) -> bool {
        self.0 & 0x20 != 0
    }
}

/// A batch header's fields, as they stand in the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Offset of the first record.
    pub base_offset: Offset,
    /// Bytes of the whole batch, header included: the length field plus [`PREFIX_SIZE`].
    pub size_bytes: usize,
    /// The epoch of the leader that appended it.
    pub leader_epoch: LeaderEpoch,
    /// Format version.
    pub magic: i8,
    /// CRC-32C of bytes 21 to the end.
    pub crc: u32,
    /// Codec and flags.
    pub attributes: Attributes,
    /// Offset of the last record less the base offset.
    pub last_offset_delta: i32,
    /// Timestamp of the first record.
    pub base_timestamp: Timestamp,
    /// Greatest timestamp of its records.
    pub max_timestamp: Timestamp,
    /// Producer, or -1.
    pub producer_id: ProducerId,
    /// Producer's epoch, or -1.
    pub producer_epoch: ProducerEpoch,
    /// Sequence of the first record, or -1.
    pub base_sequence: Sequence,
    /// Number of records.
    pub record_count: i32,
}

impl Header {
    /// Reads the header of the batch at the start of `bytes`, or `None` if fewer than [`HEADER_SIZE`] bytes are
    /// there or the length field is below its least value. The batch may end behind `bytes`.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Option<Header> {
        let b: &[u8; HEADER_SIZE] = bytes.first_chunk()?;
        let size_bytes = size_of_batch(b)?;
        Some(Header {
            base_offset: Offset(i64_at(b, 0)),
            size_bytes,
            leader_epoch: LeaderEpoch(i32_at(b, AT_LEADER_EPOCH)),
            magic: b[AT_MAGIC] as i8,
            crc: i32_at(b, AT_CRC) as u32,
            attributes: Attributes(i16_at(b, AT_ATTRIBUTES)),
            last_offset_delta: i32_at(b, AT_LAST_OFFSET_DELTA),
            base_timestamp: Timestamp(i64_at(b, AT_BASE_TIMESTAMP)),
            max_timestamp: Timestamp(i64_at(b, AT_MAX_TIMESTAMP)),
            producer_id: ProducerId(i64_at(b, AT_PRODUCER_ID)),
            producer_epoch: ProducerEpoch(i16_at(b, AT_PRODUCER_EPOCH)),
            base_sequence: Sequence(i32_at(b, AT_BASE_SEQUENCE)),
            record_count: i32_at(b, AT_RECORD_COUNT),
        })
    }

    /// Offset of the last record.
    #[inline]
    pub fn last_offset(&self) -> Offset {
        self.base_offset.plus(i64::from(self.last_offset_delta))
    }

    /// Offset that the next batch of an uncompacted log must have.
    #[inline]
    pub fn next_offset(&self) -> Offset {
        self.last_offset().plus(1)
    }
}

/// The whole size of the batch whose first [`PREFIX_SIZE`] bytes are at the start of `bytes`, or `None` if they are
/// not there or the length field is too small for a header.
#[inline]
pub fn size_of_batch(bytes: &[u8]) -> Option<usize> {
    let prefix: &[u8; PREFIX_SIZE] = bytes.first_chunk()?;
    let length = usize::try_from(i32_at(prefix, AT_LENGTH)).ok()?;
    (length >= HEADER_SIZE - PREFIX_SIZE).then_some(length + PREFIX_SIZE)
}

/// Why a batch from a client is not acceptable. The protocol layer maps each to Kafka's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The length field lies, or the field holds less than a header.
    #[error("the batch is truncated or its length is wrong")]
    Truncated,
    /// More than one batch in the field (KIP-98 allows one since Produce 3).
    #[error("more than one batch in one partition's field")]
    Trailing,
    /// Not message format v2.
    #[error("message format {0} is not supported; only 2 is")]
    Magic(i8),
    /// The CRC does not fit the bytes.
    #[error("the CRC does not match")]
    Crc,
    /// No record, a count that differs from the offset delta, a bad codec number or a control bit from a client.
    #[error("invalid record batch: {0}")]
    Invalid(&'static str),
}

/// Checks that `bytes` is exactly one batch that a client may send and returns its header: sizes, magic, CRC,
/// record count = last offset delta + 1, known codec, no control bit, producer fields that make sense together.
pub fn validate(bytes: &[u8]) -> Result<Header, BatchError> {
    let header = match Header::parse(bytes) {
        Some(header) => header,
        // Formats 0 and 1 have their magic at the same place but shorter headers, so look before giving up.
        None if bytes.len() > AT_MAGIC && bytes[AT_MAGIC] as i8 != MAGIC => {
            return Err(BatchError::Magic(bytes[AT_MAGIC] as i8));
        }
        None => return Err(BatchError::Truncated),
    };
    if header.magic != MAGIC {
        return Err(BatchError::Magic(header.magic));
    }
    if header.size_bytes > bytes.len() {
        return Err(BatchError::Truncated);
    }
    if header.size_bytes < bytes.len() {
        return Err(BatchError::Trailing);
    }
    if crc_of(bytes) != header.crc {
        return Err(BatchError::Crc);
    }
    if header.record_count <= 0 {
        return Err(BatchError::Invalid("the batch holds no record"));
    }
    if header.last_offset_delta != header.record_count - 1 {
        return Err(BatchError::Invalid("the record count differs from the last offset delta"));
    }
    if header.attributes.codec() > 4 {
        return Err(BatchError::Invalid("unknown compression codec"));
    }
    if header.attributes.is_control() {
        return Err(BatchError::Invalid("clients may not write control batches"));
    }
    if header.producer_id.0 < ProducerId::NONE.0 {
        return Err(BatchError::Invalid("negative producer id"));
    }
    if header.producer_id != ProducerId::NONE && (header.producer_epoch.0 < 0 || header.base_sequence.0 < 0) {
        return Err(BatchError::Invalid("a producer id without epoch or sequence"));
    }
    Ok(header)
}

/// The CRC-32C that belongs into the batch that `bytes` is exactly.
#[inline]
pub fn crc_of(bytes: &[u8]) -> u32 {
    crc32c::crc32c(&bytes[CRC_COVERED_FROM..])
}

/// Writes the base offset and leader epoch into a batch's bytes. The CRC does not cover them.
#[inline]
pub fn stamp(bytes: &mut [u8], base_offset: Offset, leader_epoch: LeaderEpoch) {
    bytes[..8].copy_from_slice(&base_offset.0.to_be_bytes());
    bytes[AT_LEADER_EPOCH..AT_LEADER_EPOCH + 4].copy_from_slice(&leader_epoch.0.to_be_bytes());
}

/// Turns a batch into one of LogAppendTime: sets the flag and the max timestamp and recomputes the CRC, as Kafka
/// does; readers then give every record that timestamp.
pub fn stamp_log_append_time(bytes: &mut [u8], now: Timestamp) {
    let attributes = i16_at(bytes, AT_ATTRIBUTES) | 0x08;
    bytes[AT_ATTRIBUTES..AT_ATTRIBUTES + 2].copy_from_slice(&attributes.to_be_bytes());
    bytes[AT_MAX_TIMESTAMP..AT_MAX_TIMESTAMP + 8].copy_from_slice(&now.0.to_be_bytes());
    let crc = crc_of(bytes);
    bytes[AT_CRC..AT_CRC + 4].copy_from_slice(&crc.to_be_bytes());
}

/// Walks whole batches at the start of `bytes`: header and exactly the batch's bytes. Stops at the first batch that
/// is cut or is no batch; it checks neither magic nor CRC.
pub fn batches(bytes: &[u8]) -> impl Iterator<Item = (Header, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let header = Header::parse(rest)?;
        let (batch, tail) = rest.split_at_checked(header.size_bytes)?;
        rest = tail;
        Some((header, batch))
    })
}

#[inline]
fn i16_at(bytes: &[u8], at: usize) -> i16 {
    i16::from_be_bytes([bytes[at], bytes[at + 1]])
}

#[inline]
fn i32_at(bytes: &[u8], at: usize) -> i32 {
    i32::from_be_bytes(*bytes[at..].first_chunk().expect("the caller checked the length"))
}

#[inline]
fn i64_at(bytes: &[u8], at: usize) -> i64 {
    i64::from_be_bytes(*bytes[at..].first_chunk().expect("the caller checked the length"))
}
