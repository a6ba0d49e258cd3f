//! The records inside a batch: borrowed iteration, validation and lookup by time.
//!
//! ```text
//! length            varint    bytes that follow
//! attributes        i8        none are assigned
//! timestamp delta   varlong   to the batch's base timestamp
//! offset delta      varint    to the batch's base offset
//! key length        varint    -1: null, then the key
//! value length      varint    -1: null, then the value
//! header count      varint    then for each: key length, key, value length (-1: null), value
//! ```
//! Variable-length integers are zigzag-coded, seven bits a byte, least significant first.
//!
//! Invariants: every length is checked against the bytes that are left before it is used, so no input makes this
//! panic or allocate; a [`Record`] that was handed out is sound down to its last header. Decompressing is the only
//! thing that allocates, within the limit that the caller gives.

use std::borrow::Cow;

use crate::base::time::Timestamp;
use crate::model::batch::{HEADER_SIZE, Header};
use crate::model::compression::{Codec, DecompressError, decompress};
use crate::model::id::Offset;

/// One record, borrowed from its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Timestamp less the batch's base timestamp, in milliseconds.
    pub timestamp_delta: i64,
    /// Offset less the batch's base offset.
    pub offset_delta: i32,
    /// Key, or null.
    pub key: Option<&'a [u8]>,
    /// Value, or null.
    pub value: Option<&'a [u8]>,
    /// Headers, in the producer's order; keys may repeat.
    pub headers: Headers<'a>,
}

/// A record's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader<'a> {
    /// Key: text by convention, but nobody checks.
    pub key: &'a [u8],
    /// Value, or null.
    pub value: Option<&'a [u8]>,
}

/// What is wrong with a batch's records. The peer's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// A length leads outside of what there is, or a varint does not end.
    #[error("record {0} is truncated or malformed")]
    Malformed(i32),
    /// There are fewer records than the header says.
    #[error("there are {0} records, fewer than the batch says")]
    Missing(i32),
    /// Bytes are left behind the last record.
    #[error("bytes are left behind the last record")]
    Trailing,
    /// Offset deltas do not count 0, 1, 2, ...
    #[error("record {0} has offset delta {1}")]
    OffsetDelta(i32, i32),
    /// A record without a key where keys are required.
    #[error("record {0} has no key, and the topic is compacted")]
    NoKey(i32),
    /// The codec's number is not assigned.
    #[error("unknown compression codec {0}")]
    Codec(u8),
    /// They cannot be decompressed.
    #[error(transparent)]
    Decompress(#[from] DecompressError),
}

/// The records of the batch that `batch` is, decompressed into at most `limit_bytes`; borrowed if they are not
/// compressed. To be walked with [`Records::new`].
pub fn section<'a>(header: &Header, batch: &'a [u8], limit_bytes: usize) -> Result<Cow<'a, [u8]>, RecordError> {
    let number = header.attributes.codec();
    let codec = Codec::from_number(number).ok_or(RecordError::Codec(number))?;
    let bytes = batch.get(HEADER_SIZE..header.size_bytes).ok_or(RecordError::Missing(0))?;
    Ok(decompress(codec, bytes, limit_bytes)?)
}

/// Walks an uncompressed records section. Yields an error once and then nothing.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    rest: &'a [u8],
    index: i32,
    count: i32,
}

impl<'a> Records<'a> {
    /// The records in `section`, of which the header says there are `count`.
    pub fn new(section: &'a [u8], count: i32) -> Records<'a> {
        Records { rest: section, index: 0, count }
    }

    /// Bytes that were not walked yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    fn end<T>(&mut self, error: RecordError) -> Option<Result<T, RecordError>> {
        self.index = self.count;
        Some(Err(error))
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, RecordError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.index >= self.count {
            return None;
        }
        if self.rest.is_empty() {
            return self.end(RecordError::Missing(self.index));
        }
        match take_record(&mut self.rest) {
            Some(record) => {
                self.index += 1;
                Some(Ok(record))
            }
            None => self.end(RecordError::Malformed(self.index)),
        }
    }
}

/// What a walk over a whole batch found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The greatest timestamp of the records (the header's claim is not looked at) and the offset of the first record
    /// that has it.
    pub max_timestamp: (Timestamp, Offset),
    /// The least timestamp of the records.
    pub min_timestamp: Timestamp,
    /// Bytes of the records, not compressed.
    pub size_bytes: usize,
}

/// Checks the records of the batch that `batch` is, whose header has been validated: they decompress within
/// `limit_bytes`, are as many as the header says, count their offsets 0, 1, 2, ..., have keys if those are required,
/// and nothing follows them.
pub fn validate_records(
    header: &Header,
    batch: &[u8],
    limit_bytes: usize,
    keys_required: bool,
) -> Result<Summary, RecordError> {
    let section = section(header, batch, limit_bytes)?;
    let mut records = Records::new(&section, header.record_count);
    let mut max_timestamp = (Timestamp(i64::MIN), Offset::NONE);
    let mut min_timestamp = Timestamp(i64::MAX);
    for index in 0..header.record_count {
        let record = records.next().unwrap_or(Err(RecordError::Missing(index)))?;
        if record.offset_delta != index {
            return Err(RecordError::OffsetDelta(index, record.offset_delta));
        }
        if keys_required && record.key.is_none() {
            return Err(RecordError::NoKey(index));
        }
        let timestamp = record.timestamp(header);
        min_timestamp = min_timestamp.min(timestamp);
        if timestamp > max_timestamp.0 {
            max_timestamp = (timestamp, record.offset(header));
        }
    }
    if !records.rest().is_empty() {
        return Err(RecordError::Trailing);
    }
    Ok(Summary { max_timestamp, min_timestamp, size_bytes: section.len() })
}

/// The first record of the batch at or behind offset `from` whose timestamp is at or above `timestamp`, if it has one.
pub fn first_at_or_after(
    header: &Header,
    batch: &[u8],
    timestamp: Timestamp,
    from: Offset,
    limit_bytes: usize,
) -> Result<Option<(Timestamp, Offset)>, RecordError> {
    if header.record_count == 0 {
        return Ok(None); // Compaction kept the header only.
    }
    if header.attributes.is_log_append_time() {
        // Every record has the same timestamp; compaction may have removed the first one, and its offset still does.
        let found = (header.max_timestamp, header.base_offset.max(from));
        return Ok((header.max_timestamp >= timestamp && header.last_offset() >= from).then_some(found));
    }
    let section = section(header, batch, limit_bytes)?;
    for record in Records::new(&section, header.record_count) {
        let record = record?;
        let (found, offset) = (record.timestamp(header), record.offset(header));
        if found >= timestamp && offset >= from {
            return Ok(Some((found, offset)));
        }
    }
    Ok(None)
}

/// The greatest timestamp of the batch's records at or behind offset `from`, and the offset of the first record that
/// has it; none of either where no record is.
pub fn max_timestamp(
    header: &Header,
    batch: &[u8],
    from: Offset,
    limit_bytes: usize,
) -> Result<(Timestamp, Offset), RecordError> {
    if header.attributes.is_log_append_time() {
        return Ok((header.max_timestamp, header.base_offset.max(from)));
    }
    let section = section(header, batch, limit_bytes)?;
    let mut greatest = (Timestamp::NONE, Offset::NONE);
    for record in Records::new(&section, header.record_count) {
        let record = record?;
        let (timestamp, offset) = (record.timestamp(header), record.offset(header));
        if offset >= from && (timestamp > greatest.0 || greatest.1 == Offset::NONE) {
            greatest = (timestamp, offset);
        }
    }
    Ok(greatest)
}

impl Record<'_> {
    /// The record's timestamp in the batch with this header: its own, or the broker's (LogAppendTime).
    #[inline]
    pub fn timestamp(&self, header: &Header) -> Timestamp {
        if header.attributes.is_log_append_time() {
            header.max_timestamp
        } else {
            Timestamp(header.base_timestamp.0.wrapping_add(self.timestamp_delta))
        }
    }

    /// The record's offset in the batch with this header.
    #[inline]
    pub fn offset(&self, header: &Header) -> Offset {
        Offset(header.base_offset.0.wrapping_add(i64::from(self.offset_delta)))
    }
}

/// A record's headers, which were checked when the record was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Headers<'a> {
    rest: &'a [u8],
    count: usize,
}

impl<'a> Iterator for Headers<'a> {
    type Item = RecordHeader<'a>;

    fn next(&mut self) -> Option<RecordHeader<'a>> {
        self.count = self.count.checked_sub(1)?;
        take_header(&mut self.rest)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.count, Some(self.count))
    }
}

impl ExactSizeIterator for Headers<'_> {}

fn take_record<'a>(input: &mut &'a [u8]) -> Option<Record<'a>> {
    let length = usize::try_from(take_varint(input)?).ok()?;
    let (mut rest, tail) = input.split_at_checked(length)?;
    let (_attributes, after) = rest.split_first()?;
    rest = after;
    let timestamp_delta = take_varlong(&mut rest)?;
    let offset_delta = take_varint(&mut rest)?;
    let key = take_nullable(&mut rest)?;
    let value = take_nullable(&mut rest)?;
    let count = usize::try_from(take_varint(&mut rest)?).ok()?;
    let headers = Headers { rest, count };
    // Every header has at least two bytes: a count that lies is found here or by running out below.
    if count > rest.len() / 2 {
        return None;
    }
    for _ in 0..count {
        take_header(&mut rest)?;
    }
    if !rest.is_empty() {
        return None;
    }
    *input = tail;
    Some(Record { timestamp_delta, offset_delta, key, value, headers })
}

fn take_header<'a>(input: &mut &'a [u8]) -> Option<RecordHeader<'a>> {
    let key = take_nullable(input)??;
    Some(RecordHeader { key, value: take_nullable(input)? })
}

/// Bytes with their length before them; -1 means null, less is malformed.
#[inline]
fn take_nullable<'a>(input: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let length = take_varint(input)?;
    if length == -1 {
        return Some(None);
    }
    let (bytes, tail) = input.split_at_checked(usize::try_from(length).ok()?)?;
    *input = tail;
    Some(Some(bytes))
}

#[inline]
pub(super) fn take_varint(input: &mut &[u8]) -> Option<i32> {
    let value = u32::try_from(take_unsigned(input, 5)?).ok()?;
    Some((value >> 1) as i32 ^ -((value & 1) as i32))
}

#[inline]
pub(super) fn take_varlong(input: &mut &[u8]) -> Option<i64> {
    let value = take_unsigned(input, 10)?;
    Some((value >> 1) as i64 ^ -((value & 1) as i64))
}

#[inline]
fn take_unsigned(input: &mut &[u8], size_max: usize) -> Option<u64> {
    let mut value: u64 = 0;
    for at in 0..size_max {
        let byte = *input.get(at)?;
        let bits = u64::from(byte & 0x7f);
        if at == 9 && bits > 1 {
            return None;
        }
        value |= bits << (7 * at);
        if byte & 0x80 == 0 {
            *input = &input[at + 1..];
            return Some(value);
        }
    }
    None
}

/// Appends a zigzag-coded variable-length integer; the other side of what is read here.
pub(super) fn put_varlong(output: &mut Vec<u8>, value: i64) {
    let mut bits = ((value << 1) ^ (value >> 63)) as u64;
    while bits >= 0x80 {
        output.push(bits as u8 | 0x80);
        bits >>= 7;
    }
    output.push(bits as u8);
}

/// The number of bytes that [`put_varlong`] appends.
pub(super) fn varlong_size(value: i64) -> usize {
    let bits = ((value << 1) ^ (value >> 63)) as u64;
    (64 - (bits | 1).leading_zeros() as usize).div_ceil(7)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;
    use crate::base::units::MIB;
    use crate::model::batch;
    use crate::model::builder::BatchBuilder;

    fn three(codec: Codec) -> (Header, Vec<u8>) {
        let mut builder = BatchBuilder::new(codec).base_offset(Offset(100));
        builder.push(Timestamp(1000), Some(b"k"), Some(b"v"), &[("a", Some(b"1")), ("a", None)]);
        builder.push(Timestamp(3000), None, Some(b""), &[]);
        builder.push(Timestamp(2000), Some(b""), None, &[]);
        let bytes = builder.build();
        (Header::parse(&bytes).expect("a whole header"), bytes)
    }

    #[test]
    fn records_come_back_as_they_were_put_in() {
        for codec in Codec::ALL {
            let (header, bytes) = three(codec);
            let section = section(&header, &bytes, MIB).expect("it decompresses");
            let records: Vec<_> =
                Records::new(&section, header.record_count).collect::<Result<_, _>>().expect("they are sound");
            let seen: Vec<_> = records
                .iter()
                .map(|record| (record.timestamp(&header).0, record.offset(&header).0, record.key, record.value))
                .collect();
            assert_eq!(
                seen,
                [
                    (1000, 100, Some(&b"k"[..]), Some(&b"v"[..])),
                    (3000, 101, None, Some(&b""[..])),
                    (2000, 102, Some(&b""[..]), None)
                ]
            );
            let headers: Vec<_> = records[0].headers.map(|header| (header.key, header.value)).collect();
            assert_eq!(headers, [(&b"a"[..], Some(&b"1"[..])), (b"a", None)]);
            assert_eq!(records[1].headers.len(), 0);
        }
    }

    #[test]
    fn lookups_by_time_find_the_exact_record() {
        let (header, bytes) = three(Codec::Zstd);
        let first = |timestamp| first_at_or_after(&header, &bytes, Timestamp(timestamp), Offset(0), MIB);
        assert_eq!(first(0), Ok(Some((Timestamp(1000), Offset(100)))));
        assert_eq!(first(1001), Ok(Some((Timestamp(3000), Offset(101)))));
        assert_eq!(first(3001), Ok(None));
        assert_eq!(max_timestamp(&header, &bytes, Offset(0), MIB), Ok((Timestamp(3000), Offset(101))));
    }

    #[test]
    fn records_of_log_append_time_have_the_batchs_timestamp() {
        let (_, mut bytes) = three(Codec::None);
        batch::stamp_log_append_time(&mut bytes, Timestamp(9000));
        let header = Header::parse(&bytes).expect("a whole header");
        let first = |timestamp| first_at_or_after(&header, &bytes, Timestamp(timestamp), Offset(0), MIB);
        assert_eq!(first(9000), Ok(Some((Timestamp(9000), Offset(100)))));
        assert_eq!(first(9001), Ok(None));
        assert_eq!(max_timestamp(&header, &bytes, Offset(0), MIB), Ok((Timestamp(9000), Offset(100))));
        let summary = validate_records(&header, &bytes, MIB, false).expect("sound");
        assert_eq!(summary.max_timestamp, (Timestamp(9000), Offset(100)));
    }

    #[test]
    fn each_fault_of_the_records_has_its_error() {
        // An uncompressed batch of three records whose section or header is changed; the CRC is none of this
        // function's business.
        let (header, bytes) = three(Codec::None);
        let check = |header: &Header, bytes: &[u8]| validate_records(header, bytes, MIB, false).map(|_| ());
        assert_eq!(check(&header, &bytes), Ok(()));
        assert_eq!(validate_records(&header, &bytes, MIB, true), Err(RecordError::NoKey(1)));

        let more = Header { record_count: 4, ..header };
        assert_eq!(check(&more, &bytes), Err(RecordError::Missing(3)));
        let fewer = Header { record_count: 2, ..header };
        assert_eq!(check(&fewer, &bytes), Err(RecordError::Trailing));
        let cut = Header { size_bytes: header.size_bytes - 1, ..header };
        assert_eq!(check(&cut, &bytes), Err(RecordError::Malformed(2)));
        let beyond = Header { size_bytes: header.size_bytes + 1, ..header };
        assert_eq!(check(&beyond, &bytes), Err(RecordError::Missing(0)));
        let codec = Header { attributes: batch::Attributes(7), ..header };
        assert_eq!(check(&codec, &bytes), Err(RecordError::Codec(7)));
        let codec = Header { attributes: batch::Attributes(1), ..header };
        assert_eq!(check(&codec, &bytes), Err(RecordError::Decompress(DecompressError::Damaged(Codec::Gzip))));
        assert_eq!(
            validate_records(&header, &bytes, 3, false),
            Err(RecordError::Decompress(DecompressError::TooLarge(3)))
        );

        // The first record: length, attributes, timestamp delta, offset delta, ...
        let mut wrong = bytes.clone();
        wrong[HEADER_SIZE + 3] = 2;
        assert_eq!(check(&header, &wrong), Err(RecordError::OffsetDelta(0, 1)));
        let mut wrong = bytes.clone();
        wrong[HEADER_SIZE + 4] = 3; // key length -2
        assert_eq!(check(&header, &wrong), Err(RecordError::Malformed(0)));
        let mut wrong = bytes;
        wrong[HEADER_SIZE] = 0xff; // a length that runs on
        assert_eq!(check(&header, &wrong), Err(RecordError::Malformed(0)));
    }

    #[test]
    fn garbage_never_panics_and_ends_the_walk() {
        // Random bytes, and sound sections with random bytes changed or cut.
        let mut rng = Rng::new(17);
        let (header, bytes) = three(Codec::None);
        for round in 0..20_000 {
            let mut garbage = if round % 2 == 0 {
                let mut noise = vec![0; rng.in_range(0..100) as usize];
                rng.fill(&mut noise);
                noise
            } else {
                bytes[HEADER_SIZE..].to_vec()
            };
            if !garbage.is_empty() {
                let at = rng.in_range(..garbage.len() as u64) as usize;
                garbage[at] = rng.next_u64() as u8;
                garbage.truncate(rng.in_range(0..=garbage.len() as u64) as usize);
            }
            let results: Vec<_> = Records::new(&garbage, i32::MAX).collect();
            assert!(results.iter().rev().skip(1).all(Result::is_ok));
            for record in results.iter().flatten() {
                assert_eq!(record.headers.count(), record.headers.len());
            }
            let _ = validate_records(
                &Header { size_bytes: HEADER_SIZE + garbage.len(), ..header },
                &[&bytes[..HEADER_SIZE], &garbage].concat(),
                MIB,
                false,
            );
        }
    }

    #[test]
    fn variable_length_integers_read_back_at_every_length() {
        let mut values = vec![0, 1, -1, i64::MAX, i64::MIN];
        values.extend((0..63).flat_map(|bit| [1_i64 << bit, (1 << bit) - 1, -(1 << bit)]));
        for value in values {
            let mut bytes = Vec::new();
            put_varlong(&mut bytes, value);
            assert_eq!(bytes.len(), varlong_size(value));
            let mut rest = &bytes[..];
            assert_eq!((take_varlong(&mut rest), rest.len()), (Some(value), 0));
            let mut rest = &bytes[..];
            assert_eq!(take_varint(&mut rest), i32::try_from(value).ok(), "{value}");
            let mut rest = &bytes[..bytes.len() - 1];
            assert_eq!(take_varlong(&mut rest), None);
        }
        let mut endless = &[0xff; 11][..];
        assert_eq!(take_varlong(&mut endless), None);
    }
}
