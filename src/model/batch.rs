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
    /// The base timestamp is the time from which on compaction may drop the batch's tombstones (KIP-534).
    pub const fn has_delete_horizon(self) -> bool {
        self.0 & 0x40 != 0
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

    /// From when on compaction may drop the batch's tombstones, if an earlier pass has said so.
    #[inline]
    pub fn delete_horizon(&self) -> Option<Timestamp> {
        self.attributes.has_delete_horizon().then_some(self.base_timestamp)
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

/// Checks that `bytes` is exactly one batch as it may be stored and returns its header: sizes, magic, CRC, known codec.
/// Compaction may have removed some of its records, or all of them, and it may be a control batch.
pub fn validate_stored(bytes: &[u8]) -> Result<Header, BatchError> {
    let header = Header::parse(bytes).ok_or(BatchError::Truncated)?;
    match () {
        () if header.magic != MAGIC => Err(BatchError::Magic(header.magic)),
        () if header.size_bytes > bytes.len() => Err(BatchError::Truncated),
        () if header.size_bytes < bytes.len() => Err(BatchError::Trailing),
        () if crc_of(bytes) != header.crc => Err(BatchError::Crc),
        () if header.record_count < 0 || header.last_offset_delta < 0 => {
            Err(BatchError::Invalid("a negative record count or last offset delta"))
        }
        () if header.attributes.codec() > 4 => Err(BatchError::Invalid("unknown compression codec")),
        () => Ok(header),
    }
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
    stamp_crc(bytes);
}

/// Writes the CRC that belongs into the batch that `bytes` is exactly.
#[inline]
pub fn stamp_crc(bytes: &mut [u8]) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::builder::BatchBuilder;
    use crate::model::compression::Codec;

    fn sound() -> Vec<u8> {
        let mut builder = BatchBuilder::new(Codec::None).producer(ProducerId(7), ProducerEpoch(1), Sequence(9));
        for at in 0..3 {
            builder.push(Timestamp(1000 + at), Some(b"key"), Some(b"value"), &[]);
        }
        builder.build()
    }

    /// The verdict on a sound batch after `change`, with the CRC made right again.
    fn after(change: impl FnOnce(&mut Vec<u8>)) -> Result<Header, BatchError> {
        let mut bytes = sound();
        change(&mut bytes);
        stamp_crc(&mut bytes);
        validate(&bytes)
    }

    fn put<const N: usize>(at: usize, value: [u8; N]) -> impl FnOnce(&mut Vec<u8>) {
        move |bytes| bytes[at..at + N].copy_from_slice(&value)
    }

    #[test]
    fn the_header_is_read_as_it_was_built() {
        let bytes = sound();
        let header = validate(&bytes).expect("sound");
        assert_eq!(header.size_bytes, bytes.len());
        assert_eq!((header.record_count, header.last_offset_delta), (3, 2));
        assert_eq!((header.base_timestamp, header.max_timestamp), (Timestamp(1000), Timestamp(1002)));
        assert_eq!(
            (header.producer_id, header.producer_epoch, header.base_sequence),
            (ProducerId(7), ProducerEpoch(1), Sequence(9))
        );
        assert_eq!((header.last_offset(), header.next_offset()), (Offset(2), Offset(3)));
    }

    #[test]
    fn each_fault_has_its_error() {
        let invalid = |result: Result<Header, BatchError>| matches!(result, Err(BatchError::Invalid(_)));
        assert!(after(|_| ()).is_ok());
        assert!(invalid(after(put(AT_RECORD_COUNT, 0_i32.to_be_bytes()))));
        assert!(invalid(after(put(AT_RECORD_COUNT, (-3_i32).to_be_bytes()))));
        assert!(invalid(after(put(AT_RECORD_COUNT, 4_i32.to_be_bytes()))));
        assert!(invalid(after(put(AT_LAST_OFFSET_DELTA, i32::MAX.to_be_bytes()))));
        assert!(invalid(after(put(AT_LAST_OFFSET_DELTA, (-1_i32).to_be_bytes()))));
        for codec in 0..8 {
            assert_eq!(after(put(AT_ATTRIBUTES, (codec as i16).to_be_bytes())).is_ok(), codec <= 4);
        }
        assert!(invalid(after(put(AT_ATTRIBUTES, 0x20_i16.to_be_bytes()))));
        assert!(invalid(after(put(AT_PRODUCER_ID, (-2_i64).to_be_bytes()))));
        assert!(invalid(after(put(AT_PRODUCER_EPOCH, (-1_i16).to_be_bytes()))));
        assert!(invalid(after(put(AT_BASE_SEQUENCE, (-1_i32).to_be_bytes()))));
        for magic in [0, 1, 3, 0xff] {
            assert_eq!(after(put(AT_MAGIC, [magic])), Err(BatchError::Magic(magic as i8)));
        }
    }

    #[test]
    fn a_stored_batch_may_have_lost_records_and_a_clients_may_not() {
        let mut bytes = sound();
        bytes[AT_LAST_OFFSET_DELTA..AT_LAST_OFFSET_DELTA + 4].copy_from_slice(&9_i32.to_be_bytes());
        stamp_crc(&mut bytes);
        assert!(validate(&bytes).is_err());
        assert_eq!(validate_stored(&bytes).map(|header| header.last_offset_delta), Ok(9));
        let empty = crate::model::rewrite::without_records(&Header::parse(&bytes).expect("a header"));
        assert_eq!(validate_stored(&empty).map(|header| (header.record_count, header.last_offset_delta)), Ok((0, 9)));
        for (at, error) in [(AT_MAGIC, BatchError::Magic(9)), (HEADER_SIZE, BatchError::Crc)] {
            let mut broken = bytes.clone();
            broken[at] = 9;
            assert_eq!(validate_stored(&broken), Err(error));
        }
        assert_eq!(validate_stored(&bytes[..70]), Err(BatchError::Truncated));
        assert_eq!(validate_stored(&[bytes.clone(), bytes].concat()), Err(BatchError::Trailing));
    }

    #[test]
    fn a_length_that_lies_is_found_before_anything_is_believed() {
        let length = sound().len() as i32 - PREFIX_SIZE as i32;
        let with = |length: i32| after(put(AT_LENGTH, length.to_be_bytes()));
        assert_eq!(with(length + 1), Err(BatchError::Truncated));
        assert_eq!(with(length - 1), Err(BatchError::Trailing));
        for length in [i32::MIN, -1, 0, 48] {
            assert_eq!(with(length), Err(BatchError::Truncated));
        }
        assert_eq!(with(i32::MAX), Err(BatchError::Truncated));
    }

    #[test]
    fn a_batch_cut_anywhere_is_refused() {
        let bytes = sound();
        for cut in 0..bytes.len() {
            assert_eq!(validate(&bytes[..cut]), Err(BatchError::Truncated));
        }
        // A message of format 0 or 1 is shorter than our header, and is named for what it is.
        let mut old = vec![0; 34];
        old[AT_MAGIC] = 1;
        assert_eq!(validate(&old), Err(BatchError::Magic(1)));
    }

    #[test]
    fn two_batches_are_one_too_many() {
        let bytes = [sound(), sound()].concat();
        assert_eq!(validate(&bytes), Err(BatchError::Trailing));
    }

    #[test]
    fn a_changed_bit_in_what_the_crc_covers_is_found() {
        for at in CRC_COVERED_FROM..sound().len() {
            let mut bytes = sound();
            bytes[at] ^= 0x10;
            assert_eq!(validate(&bytes), Err(BatchError::Crc), "byte {at}");
        }
    }

    #[test]
    fn stamping_leaves_the_crc_right() {
        let mut bytes = sound();
        stamp(&mut bytes, Offset(1 << 40), LeaderEpoch(12));
        let header = validate(&bytes).expect("still sound");
        assert_eq!((header.base_offset, header.leader_epoch), (Offset(1 << 40), LeaderEpoch(12)));
    }

    #[test]
    fn log_append_time_changes_covered_bytes_and_makes_the_crc_right() {
        let mut bytes = sound();
        let before = validate(&bytes).expect("sound");
        stamp_log_append_time(&mut bytes, Timestamp(123_456));
        let header = validate(&bytes).expect("still sound");
        assert!(header.attributes.is_log_append_time() && !before.attributes.is_log_append_time());
        assert_eq!((header.max_timestamp, header.base_timestamp), (Timestamp(123_456), before.base_timestamp));
        assert_ne!(header.crc, before.crc);
    }

    #[test]
    fn walking_stops_at_the_first_batch_that_is_cut() {
        let one = sound();
        let mut bytes = [&one[..], &one, &one].concat();
        assert_eq!(batches(&bytes).count(), 3);
        bytes.truncate(bytes.len() - 1);
        assert_eq!(batches(&bytes).map(|(_, batch)| batch.len()).collect::<Vec<_>>(), [one.len(), one.len()]);
        assert_eq!(batches(&[0; 4096]).count(), 0);
    }
}
